//! What a call does besides serving: it tells handlers what has come up, runs what is due, and ends what has ended.

use super::{Context, protocol_at};
use crate::engine::link::Flags;
use crate::engine::store::Key;
use crate::engine::timers::{Tick, Timer, TimerId};
use crate::engine::{Budget, EndedConnection};
use crate::handler::{AnyHandler, CloseReason, Notice, Protocol};
use crate::ids::{ListenerId, ProtocolId};
use crate::io::{Cx, Fresh};
use crate::remote::Command;

/// Calls what handlers of all roles have.
macro_rules! in_any_role {
    ($any:expr, $handler:ident => $call:expr) => {
        match $any {
            AnyHandler::WebSocket($handler) => $call,
            AnyHandler::Http($handler) => $call,
            AnyHandler::Raw($handler) => $call,
            AnyHandler::Client($handler) => $call,
            AnyHandler::Descriptor($handler) => $call,
        }
    };
}

impl<D> Context<D> {
    /// Puts in place what handlers, or the host, have made since.
    pub(super) fn install(&mut self, data: &mut D) {
        while let Some(fresh) = self.io.fresh.pop_front() {
            match fresh {
                Fresh::Handler(key, handler) => {
                    let raw = matches!(handler, AnyHandler::Raw(_));
                    if self.io.core.conns.get(key).is_some() {
                        *self.handlers.place(key.index) = Some(handler);
                        // Where there is something to be made first, it opens after that.
                        if raw && !self.io.core.is_unopened(key) {
                            self.open_raw_handler(key.index, data);
                        }
                    }
                }
                Fresh::Acceptor(listener, accept) => {
                    self.acceptors.retain(|(known, _)| self.io.core.links.get(*known).is_some());
                    self.acceptors.push((listener, accept));
                }
                Fresh::Site(site, protocols) => self.start_site(site, protocols, data),
                Fresh::Certificate(site) => self.report_certificate(site, data),
                Fresh::Decision(conn, decision) => self.decided(conn, decision, data),
            }
        }
    }

    fn start_site(&mut self, site: Key, protocols: Vec<Box<dyn Protocol<D>>>, data: &mut D) {
        let keys = self.io.core.sites.get(site).map(|facts| facts.protocols.clone()).unwrap_or_default();
        let place = site.index as usize;
        if self.protocols.len() <= place {
            self.protocols.resize_with(place + 1, Vec::new);
        }
        self.protocols[place] = protocols;
        for (protocol, key) in self.protocols[place].iter_mut().zip(keys) {
            let id = ProtocolId(self.io.core.origin.id(key));
            protocol.started(id, data, &mut self.io);
        }
    }

    /// Tells how long a site's certificate is valid, now and when it is time to say it again. Only while it listens or serves:
    /// what is not used wakes nobody.
    fn report_certificate(&mut self, site: Key, data: &mut D) {
        let now = self.io.core.env.date();
        let Some(facts) = self.io.core.sites.get_mut(site).filter(|facts| facts.is_used()) else { return };
        let mut timer = std::mem::replace(&mut facts.aging, TimerId::NONE);
        let server = facts.policy.tls.clone();
        self.io.core.timers.cancel(&mut timer);
        let Some((server, (days_left, next))) =
            server.and_then(|server| server.next_report(now).map(|report| (server, report)))
        else {
            return;
        };
        let at = self.io.core.read_clock().after(next);
        let timer = self.io.core.timers.arm(at, Timer::Certificate(site));
        if let Some(facts) = self.io.core.sites.get_mut(site) {
            facts.aging = timer;
        }
        self.tell_age(site, &server, days_left, data);
    }

    #[cfg(feature = "tls")]
    fn tell_age(&mut self, site: Key, server: &crate::tls::Server, days_left: i64, data: &mut D) {
        if let Some(first) = protocol_at(&mut self.protocols, site, 0) {
            let site = crate::SiteId(self.io.core.origin.id(site));
            first.certificate_ages(site, server, days_left, data, &mut self.io);
        }
    }

    #[cfg(not(feature = "tls"))]
    fn tell_age(&mut self, _: Key, _: &crate::transport::Server, _: i64, _: &mut D) {}

    #[cfg(feature = "tls")]
    fn tell_failed_handshake(&mut self, failed: crate::engine::FailedHandshake, data: &mut D) {
        let peer = failed.peer.map_or(crate::Peer::Unix(None), crate::Peer::Inet);
        if let Some(first) = protocol_at(&mut self.protocols, failed.site, 0) {
            first.handshake_failed(&peer, &failed.error, data, &mut self.io);
        }
    }

    #[cfg(not(feature = "tls"))]
    fn tell_failed_handshake(&mut self, _: crate::engine::FailedHandshake, _: &mut D) {}

    /// Does what the call has left to do: writes, tells handlers, ends what has ended.
    #[inline]
    pub(super) fn settle(&mut self, data: &mut D) {
        if self.io.core.work {
            self.settle_slowly(data, &mut Budget::new());
        }
    }

    fn settle_slowly(&mut self, data: &mut D, budget: &mut Budget) {
        loop {
            self.run_commands(data, budget);
            self.install(data);
            if !self.io.core.ended.is_empty() && budget.take() {
                self.tell_closed(data);
            } else if !self.io.core.notices.is_empty() && budget.take() {
                self.tell_notice(data);
            } else if !self.io.core.to_flush.is_empty() && budget.take() {
                self.io.core.flush_waiting(budget);
            } else if let Some((site, listener, error)) = self.io.core.refused_listeners.pop_front() {
                if let Some(first) = protocol_at(&mut self.protocols, site, 0) {
                    let listener = ListenerId(self.io.core.origin.id(listener));
                    first.listener_refused(listener, error, data, &mut self.io);
                }
            } else if let Some(failed) = self.io.core.failed_handshakes.pop_front() {
                self.tell_failed_handshake(failed, data);
            } else if !self.io.core.answers.is_empty() && budget.take() {
                self.tell_answer(data);
            } else if self.io.core.entrances.has_ended() {
                // Behind the ends of their conns, and before that of their site.
                if !self.io.core.ended.is_empty() || !budget.take() {
                    break;
                }
                self.tell_ended_connection(data);
            } else if let Some(site) = self.io.core.ended_sites.pop() {
                self.end_site(site, data);
            } else {
                break;
            }
        }
        let core = &self.io.core;
        self.io.core.work = core.has_work() || core.shares.are_counted() || self.io.is_busy();
    }

    /// The same without a bound, for the end of all.
    pub(super) fn settle_all(&mut self, data: &mut D) {
        while self.io.core.has_work() || self.io.is_busy() {
            self.settle_slowly(data, &mut Budget::new());
        }
    }

    fn tell_answer(&mut self, data: &mut D) {
        let Some((question, answer)) = self.io.core.answers.pop_front() else { return };
        if let Some(entry) = self.io.questions.remove(question) {
            (entry.run)(answer, data, &mut self.io);
        }
    }

    /// Tells all that have ended by now; those that end meanwhile have their turn later. No handler runs now.
    pub(crate) fn tell_all_closed(&mut self, data: &mut D) {
        for _ in 0..self.io.core.ended.len() {
            self.tell_closed(data);
        }
    }

    fn tell_closed(&mut self, data: &mut D) {
        let Some((key, closed)) = self.io.core.ended.pop_front() else { return };
        if matches!(closed.reason, CloseReason::Released { .. }) {
            while let Some(released) = self.io.core.take_released_connection() {
                self.tell_connection_end(released, data);
            }
        }
        let handler = self.handlers.take(key.index).or_else(|| self.io.take_fresh(key));
        self.io.core.conns.remove(key);
        let mut cx = Cx::new(data, &mut self.io, key);
        if let Some(handler) = handler {
            in_any_role!(handler, handler => handler.closed(&mut cx, closed));
        }
    }

    fn tell_ended_connection(&mut self, data: &mut D) {
        let core = &mut self.io.core;
        if let Some(ended) = core.take_released_connection().or_else(|| core.take_ended_connection()) {
            self.tell_connection_end(ended, data);
        }
    }

    fn tell_connection_end(&mut self, ended: EndedConnection, data: &mut D) {
        // The place of a site that has ended may be another's.
        if self.io.core.sites.get(ended.site).is_some()
            && let Some(first) = protocol_at(&mut self.protocols, ended.site, 0)
        {
            first.connection_ended(&ended.connection, ended.reason, data, &mut self.io);
        }
    }

    fn tell_notice(&mut self, data: &mut D) {
        let Some((key, notice)) = self.io.core.notices.pop_front() else { return };
        if !self.io.core.hears(key) {
            return;
        }
        if let (Notice::Timer, Some(conn)) = (&notice, self.io.core.conns.get_mut(key)) {
            // It may have been cancelled, or set anew, since it expired.
            if !std::mem::take(&mut conn.timer_due) {
                return;
            }
        }
        self.with_gathered(key.index, data, |handler, cx| match notice {
            Notice::Writable => match handler {
                AnyHandler::WebSocket(handler) => handler.writable(cx),
                AnyHandler::Http(handler) => handler.writable(cx),
                AnyHandler::Raw(handler) => handler.writable(cx),
                AnyHandler::Client(handler) => handler.writable(cx),
                // The host says so, and the descriptor is lent for it.
                AnyHandler::Descriptor(_) => {}
            },
            Notice::Missed => {
                if let AnyHandler::WebSocket(handler) = handler {
                    handler.missed(cx);
                }
            }
            Notice::PeerEnded => match handler {
                AnyHandler::WebSocket(handler) => handler.peer_ended(cx),
                AnyHandler::Http(handler) => handler.peer_ended(cx),
                // Raw bytes have `end`, in its place; the others have nothing to decide.
                AnyHandler::Raw(_) | AnyHandler::Client(_) | AnyHandler::Descriptor(_) => {}
            },
            Notice::Timer => in_any_role!(handler, handler => handler.timer(cx)),
            Notice::Event(event) => in_any_role!(handler, handler => handler.event(cx, event)),
            Notice::ChildClosed(child) => in_any_role!(handler, handler => handler.child_closed(cx, child)),
        });
    }

    /// Runs what other threads have posted.
    fn run_commands(&mut self, data: &mut D, budget: &mut Budget) {
        if !self.io.remote_due {
            return;
        }
        let Some(remote) = self.io.remote.clone() else { return };
        while budget.take() {
            let Some(command) = remote.0.take() else {
                self.io.remote_due = false;
                return;
            };
            match command {
                Command::Post(task) => task(data, &mut self.io),
                Command::Notify(id, event) => {
                    let _ = self.io.notify(id, event);
                }
                Command::RequestWritable(id) => {
                    if let Some(mut conn) = self.io.conn(id) {
                        conn.request_writable();
                    }
                }
                Command::RequestWritableAll(protocol) => self.io.request_writable_all(protocol),
                Command::Broadcast(protocol, frame) => {
                    // Those that it leaves out hear so.
                    let _ = self.io.broadcast(protocol, &frame);
                }
            }
        }
    }

    // What is due.

    pub(super) fn run_due(&mut self, data: &mut D) {
        self.recover();
        let mut budget = Budget::new();
        self.io.remote_due |= self.io.remote.as_ref().is_some_and(|remote| remote.0.is_raised());
        // What other threads have decided came before the time was up by which they were to.
        self.run_commands(data, &mut Budget::new());
        self.install(data);
        let now = self.io.core.now();
        // Timers that those which run now set are for the next call, even when they are due at once.
        while budget.is_left() && self.io.core.timers.expire(now) {
            budget.take();
        }
        // What the budget has nothing left for stays due.
        while budget.may_deliver()
            && let Some((timer, due)) = self.io.core.timers.take_due()
        {
            self.expired(timer, due, &mut budget, data);
        }
        // What a task has adopted may have input to go on with.
        self.install(data);
        self.io.core.shares.ready_served();
        self.resume_waiting(&mut budget, data);
        self.io.core.shares.left_served();
        // With a budget of its own: who has much to go on with keeps nobody else from hearing of timers and ends.
        self.settle_slowly(data, &mut Budget::new());
    }

    /// Goes on with links that have something left, in turns, until nothing is left of the budget.
    fn resume_waiting(&mut self, budget: &mut Budget, data: &mut D) {
        for _ in 0..self.io.core.to_resume.len() {
            if !budget.take() {
                return;
            }
            let Some(key) = self.io.core.to_resume.pop_front() else { return };
            if let Some(link) = self.io.core.links.get_mut(key) {
                link.flags.remove(Flags::TO_RESUME);
                budget.delivered(self.resume(key.index, data));
            }
        }
    }

    fn expired(&mut self, timer: Timer, due: Tick, budget: &mut Budget, data: &mut D) {
        let core = &mut self.io.core;
        match timer {
            Timer::Phase(key) => {
                if let Some(link) = core.links.get_mut(key) {
                    link.phase_timer = TimerId::NONE;
                    self.phase_expired(key.index, due, budget, data);
                }
            }
            Timer::Stall(key) => {
                if core.links.get(key).is_some() {
                    self.stall_expired(key.index, budget, data);
                }
            }
            Timer::Message(key) => self.message_expired(key, budget, data),
            Timer::User(key) => {
                if let Some(conn) = core.conns.get_mut(key) {
                    conn.timer = TimerId::NONE;
                    conn.timer_due = true;
                    core.notice(key, Notice::Timer);
                }
            }
            Timer::Task(key) => {
                if let Some(task) = self.io.tasks.remove(key) {
                    (task.run)(data, &mut self.io);
                }
            }
            Timer::Certificate(site) => {
                if let Some(facts) = core.sites.get_mut(site) {
                    facts.aging = TimerId::NONE;
                }
                self.report_certificate(site, data);
            }
            Timer::Connect(key) => self.connect_expired(key, due, budget, data),
            Timer::Stagger(key) => core.stagger_timer(key),
            Timer::Resolver => core.resolver_timer(),
            Timer::Accept => core.accept_timer_expired(),
            Timer::Wake => {
                for link in core.resolver_links().chain(self.io.wake_link).collect::<Vec<_>>() {
                    if core.links.at(link).is_some() {
                        core.link(link).flags.remove(Flags::REFUSED);
                        core.mark(link);
                    }
                }
                self.io.look_for_posts();
            }
        }
    }

    // Ends.

    fn end_site(&mut self, site: Key, data: &mut D) {
        let Some(facts) = self.io.core.sites.remove(site) else { return };
        for protocol in facts.protocols {
            self.io.core.protocols.remove(protocol);
        }
        if let Some(protocols) = self.protocols.get_mut(site.index as usize) {
            for mut protocol in std::mem::take(protocols) {
                protocol.ended(data, &mut self.io);
            }
        }
    }

    pub(super) fn end_protocols(&mut self, data: &mut D) {
        let sites: Vec<Key> = self.io.core.sites.iter().map(|(key, _)| key).collect();
        for site in sites {
            self.end_site(site, data);
        }
    }
}
