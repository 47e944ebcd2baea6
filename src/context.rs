//! The context: the calls that a host makes, and the running of handlers.

mod builder;
mod judge;
mod messages;
mod settle;

pub use builder::Builder;

use crate::engine::link::{Flags, NO_CONN, State};
use crate::engine::store::Key;
use crate::engine::{Accepted, Budget, Filled, MESSAGES, RECEIVE};
use crate::handler::{AnyHandler, CloseReason, Protocol};
use crate::host::{Host, Interest, Pollable, Ready, Served, Wait};
pub(crate) use crate::io::{Cx, Io};
use crate::net::Peer;
use crate::remote::Remote;
use crate::role::Role;
use crate::ws;
use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::rc::Rc;

/// A set of connections that live in one host's loop. See the [crate's page](crate) for how the two meet.
///
/// `D` is the host's own state, lent to each service call and from there to the handlers. A context belongs to one
/// thread; [`Remote`] is the door for others.
///
/// Take it from its loop with [`detach`](Self::detach) or [`leave`](Self::leave) before it is dropped; dropping it while a
/// host watches its descriptors is a mistake that is logged.
///
/// It also belongs to one process, the one that built it. A forked child has a copy, whose connections are the parent's: there
/// dropping, [`detach`](Self::detach) and [`leave`](Self::leave) do what [`abandon`](Self::abandon) does, and a
/// [`Remote`] answers [`PostError::Forked`](crate::PostError::Forked). A child that is to serve in its parent's place says so by
/// [`take_over`](Self::take_over); nothing else may be done with the copy before. (Two processes in different namespaces
/// may have one number, by which they are told apart: say `abandon` or `take_over` there before anything else.)
#[doc(alias("lws_context", "lws_create_context"))]
pub struct Context<D = ()> {
    pub(crate) io: Io<D>,
    /// By the places of the conns.
    pub(crate) handlers: Handlers<D>,
    /// By the places of the sites.
    pub(crate) protocols: Vec<Vec<Box<dyn Protocol<D>>>>,
    acceptors: Vec<(Key, Acceptor<D>)>,
    /// What is read goes here first, whichever link it is from.
    buffer: Vec<u8>,
    /// Where messages are collected that do not come in one piece.
    spare: ws::Spare,
    /// The conn whose handler runs. Found here by the next call, it has unwound.
    pub(crate) running: u32,
    self_wake: bool,
    /// The descriptor was signalled since the last `prepare`.
    woken: bool,
}

/// Who gets the connections of a raw listener.
pub(crate) type Acceptor<D> =
    Box<dyn FnMut(&Peer, &mut D, &mut Io<D>) -> Option<Box<dyn crate::raw::Handler<D>>>>;

/// Handlers by the places of their conns.
pub(crate) struct Handlers<D> {
    #[expect(clippy::vec_box, reason = "growing moves no page")]
    pages: Vec<Box<[Option<AnyHandler<D>>; PAGE]>>,
}

const PAGE: usize = 64;

impl<D> Handlers<D> {
    pub(crate) fn place(&mut self, index: u32) -> &mut Option<AnyHandler<D>> {
        let index = index as usize;
        while self.pages.len() <= index / PAGE {
            self.pages.push(Box::new([const { None }; PAGE]));
        }
        &mut self.pages[index / PAGE][index % PAGE]
    }

    #[inline]
    pub(crate) fn get(&mut self, index: u32) -> Option<&mut AnyHandler<D>> {
        self.pages.get_mut(index as usize / PAGE)?[index as usize % PAGE].as_mut()
    }

    fn take(&mut self, index: u32) -> Option<AnyHandler<D>> {
        self.pages.get_mut(index as usize / PAGE)?[index as usize % PAGE].take()
    }
}

impl<D> Context<D> {
    /// A context with every default.
    pub fn new() -> Self {
        Context::builder().build()
    }

    /// Tells the host what has changed and how long it may sleep. Call it after the last use of the context and before the loop
    /// can sleep. Calling it more often is harmless.
    ///
    /// Writes what was queued outside service calls, then says removes, changes and adds, then closes what was removed.
    /// It cannot fail: a link whose descriptor is refused hears so in its `closed`.
    #[doc(alias("lws_service_adjust_timeout", "LWS_CALLBACK_LOCK_POLL"))]
    #[inline]
    pub fn prepare(&mut self, host: &mut dyn Host) -> Wait {
        let core = &mut self.io.core;
        // The sleep is about to begin: a time that was read up to here is of no use after it.
        core.turn_ended();
        let nothing_new = !core.work && core.changes.is_empty() && core.timers.is_empty();
        if nothing_new && self.running == NO_CONN && !self.self_wake {
            return Wait::FOREVER;
        }
        self.prepare_slowly(host)
    }

    #[inline(never)]
    fn prepare_slowly(&mut self, host: &mut dyn Host) -> Wait {
        self.recover();
        if self.self_wake && self.io.remote.is_none() {
            self.make_wake_up();
        }
        self.woken = false;
        let core = &mut self.io.core;
        core.turn_ended();
        core.begin_deadlines();
        core.flush_waiting(&mut Budget::new());
        if !core.changes.is_empty() {
            core.tell(host);
            self.forget_acceptors();
        }
        self.io.core.turn_ended();
        let due = self.io.is_due();
        self.io.core.wait(due)
    }

    /// Serves one descriptor, if it is lodger's: then `revents` is zero on return. Otherwise nothing is touched. Any value is
    /// harmless: pass every descriptor of an array, and handle those that come back [`Served::Foreign`].
    #[doc(alias("lws_service_fd", "libwebsocket_service_fd"))]
    #[inline]
    pub fn service_fd(&mut self, pollfd: &mut impl Pollable, data: &mut D) -> Served {
        let Some(link) = self.io.core.lookup(pollfd.fd()) else { return Served::Foreign };
        let ready = pollfd.revents();
        pollfd.clear();
        if !ready.is_none() {
            self.serve(link, ready, data);
        }
        Served::Ours
    }

    /// The same for loops without pollfd, and where the array is part of `data`.
    #[doc(alias("lws_service_fd", "curl_multi_socket_action"))]
    #[inline]
    pub fn service(&mut self, fd: RawFd, ready: Ready, data: &mut D) -> Served {
        self.service_fd(&mut crate::host::PollFd::new(fd, ready), data)
    }

    /// Runs what is due: timers, timeouts, input and output that a budget or a pause left, posts from other threads. Call it
    /// after each sleep; calling it too often is harmless.
    #[doc(alias("lws_service_tsi", "LWS_CALLBACK_TIMER", "CURL_SOCKET_TIMEOUT"))]
    #[inline]
    pub fn service_timeouts(&mut self, data: &mut D) {
        let core = &self.io.core;
        if core.work || !core.timers.is_empty() || self.io.remote.is_some() || self.running != NO_CONN {
            self.service_timeouts_slowly(data);
        }
    }

    #[inline(never)]
    fn service_timeouts_slowly(&mut self, data: &mut D) {
        let core = &mut self.io.core;
        let due = core.timers.next().is_some_and(|next| next <= core.now());
        let posted = self.io.remote.as_ref().is_some_and(|remote| remote.0.is_raised());
        if due || posted || self.io.core.work || self.running != NO_CONN {
            self.run_due(data);
        }
    }

    /// Everything but serving, for use between service calls: listen, send, close, adopt. What is queued here is written and
    /// announced by the next [`prepare`](Self::prepare).
    pub fn io(&mut self) -> &mut Io<D> {
        if self.self_wake && !self.woken {
            self.woken = true;
            if let Some(remote) = self.make_wake_up() {
                remote.0.raise();
            }
        }
        &mut self.io
    }

    /// The wake-up descriptor is there before the first sleep of a loop that is to be woken by it.
    #[cold]
    fn make_wake_up(&mut self) -> Option<Remote<D>> {
        let remote = self.io.remote();
        if let Err(error) = &remote {
            log::error!(target: "lodger::host", "no wake-up descriptor: {error}");
        }
        remote.ok()
    }

    /// How many descriptors there are, the wake-up descriptor not counted: [`Io::link_count`], for loops to look at without
    /// it being a use of the context.
    pub fn link_count(&self) -> usize {
        self.io.link_count()
    }

    /// A handle for other threads. The first makes the wake-up descriptor.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub fn remote(&mut self) -> std::io::Result<Remote<D>> {
        self.io.remote()
    }

    /// Takes every descriptor from the host and closes nothing. The next `prepare`, with any host, adds them again.
    ///
    /// In a forked child that has not taken the context over this gives it up instead, as [`abandon`](Self::abandon) does: the
    /// host may share with the parent what it watches by (an epoll set), so nothing is said to it, and the context is empty after.
    #[doc(alias = "foreign loops")]
    pub fn detach(&mut self, host: &mut dyn Host) {
        if self.is_forked() {
            return self.give_up();
        }
        self.recover();
        self.io.core.tell(host);
        self.io.core.detach(host);
    }

    /// Leaves the loop for good: every descriptor is taken from the host; WebSockets get a Close with 1001, and what is
    /// queued gets one last write that does not wait; every handler hears `closed` with [`CloseReason::Leaving`], every
    /// protocol `ended`; then all is closed. Handlers that listen, adopt or send meanwhile are told `Leaving` or `Closing`. Nothing is
    /// heard of what they connect or look up meanwhile: who connects again whenever a connection ends would never come to an end.
    ///
    /// In a forked child that has not taken the context over this is [`abandon`](Self::abandon): nobody hears anything.
    #[doc(alias("lws_context_destroy", "libwebsocket_context_destroy"))]
    pub fn leave(&mut self, host: &mut dyn Host, data: &mut D) {
        if self.is_forked() {
            return self.give_up();
        }
        self.recover();
        self.settle(data);
        self.io.core.detach(host);
        self.io.core.leave();
        self.settle_all(data);
        // Nothing is registered and everything has ended, so that this says nothing to the host.
        self.io.core.tell(host);
        self.end_protocols(data);
        self.settle_all(data);
        self.io.core.tell(host);
        self.io.drop_tasks();
        self.forget_acceptors();
        self.io.close_remote();
    }

    /// For a forked child, and for a parent whose child has taken the context over: gives the descriptors' numbers back, and
    /// does nothing else. Nothing is sent, shut down or said to the host, the paths of Unix sockets stay, and handlers are dropped
    /// unheard, so that the connections go on unharmed in the other process.
    #[doc(alias = "fork")]
    pub fn abandon(mut self) {
        self.give_up();
    }

    /// Whether the context is another process's: this one was forked from that, and has not taken the context over. Asks the
    /// system for the process's number.
    #[doc(alias = "fork")]
    pub fn is_forked(&self) -> bool {
        self.io.is_forked()
    }

    /// Makes this process, a forked child, the owner of the context, to go on serving in its parent's place: after daemonising,
    /// or where the loop is to run in a child. In the process that owns the context it does nothing.
    ///
    /// Connections, listeners, timers, handlers and ids are as they were. What cannot be shared with the parent is made anew:
    /// the wake-up descriptor, which the [`Remote`]s that the child has find, and the resolver's thread, which is asked again what
    /// was not answered ([`Resolver::take_over`](crate::resolve::Resolver::take_over)). Posts that waited are run. All of that
    /// takes effect with the next `prepare`.
    ///
    /// - The child does this right after the fork, from outside every handler, and starts its own threads later.
    /// - The parent does nothing with its own context any more: it [abandons](Self::abandon) it, or exits without dropping it
    ///   (`std::process::exit`). Two that read one socket take each other's bytes.
    /// - What the host watches by has to be the child's own. An array is, and stays as it is. An epoll set is shared with the
    ///   parent, and a kqueue is not there: the adapters' own `take_over` makes those anew. A loop of one's own
    ///   [detaches](Self::detach) the context from a host whose `remove` does nothing, and makes a new set, to which the next
    ///   `prepare` adds everything.
    /// - An [`Env`](crate::Env) of one's own that reckons its random bytes gives both processes the same: seed it anew.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left for the wake-up. Nothing has changed, and it can be tried again. Where no thread can
    /// be started for the resolver, what it was asked is answered with that.
    #[doc(alias("fork", "daemonize", "daemonise", "fork_service_loop", "uv_loop_fork"))]
    pub fn take_over(&mut self) -> std::io::Result<()> {
        if !self.is_forked() {
            return Ok(());
        }
        self.io.take_over()
    }

    fn give_up(&mut self) {
        self.io.abandon();
        self.running = NO_CONN;
        self.self_wake = false;
    }

    // Serving.

    /// A handler that unwound is not called again: its conn is aborted. So is the link that was being served then; whoever runs
    /// something that is no handler of a conn while there is one says that there is work, so that this is looked at.
    fn recover(&mut self) {
        if self.running != NO_CONN || self.io.core.current != crate::engine::NOBODY {
            self.recover_from_panic();
        }
    }

    #[cold]
    fn recover_from_panic(&mut self) {
        let conn = std::mem::replace(&mut self.running, NO_CONN);
        log::error!(target: "lodger::handler", "a handler panicked; its connection is aborted");
        drop(self.handlers.take(conn));
        self.io.take_back_lent();
        let core = &mut self.io.core;
        let served = std::mem::replace(&mut core.current, crate::engine::NOBODY);
        core.short = Key::NONE;
        core.unprompted = false;
        core.handling = false;
        core.out.clear();
        if core.links.at(served).is_some() {
            core.abort(served, CloseReason::Aborted);
        }
        if let Some(link) = core.conns.at(conn).map(|(_, conn)| conn.link)
            && core.links.at(link).is_some()
        {
            core.abort(link, CloseReason::Aborted);
        }
    }

    // Never: where it is inlined, the loop around it gets in the way of its registers.
    #[inline(never)]
    fn serve(&mut self, index: u32, ready: Ready, data: &mut D) {
        if self.io.core.work || self.running != NO_CONN {
            return self.serve_with_work(index, ready, data);
        }
        if ready != Ready::READ || !self.serve_messages::<true>(index, data) {
            self.serve_otherwise(index, ready, data);
        }
        self.settle(data);
    }

    /// Serves a link while there is something else to be done: what was made outside is put in place, and others may be busy.
    #[inline(never)]
    fn serve_with_work(&mut self, index: u32, ready: Ready, data: &mut D) {
        self.recover();
        self.install(data);
        if ready != Ready::READ || !self.serve_messages::<false>(index, data) {
            self.serve_otherwise(index, ready, data);
        }
        self.settle(data);
    }

    /// The hot path: reads a WebSocket of which nothing else is to be done, hands over what came as far as that is short messages
    /// in one frame each, and writes what their handler has gathered. The rest, if there is one, goes the way of all input. False
    /// if there is something else to be done.
    ///
    /// What is the same for all messages of one read is looked up once, and nothing of it is held while the handler runs, which may
    /// change all of it but says so by `interrupted`.
    ///
    /// Where others are busy, which `CALM` denies, the link has its share of the turn.
    #[inline(always)]
    fn serve_messages<const CALM: bool>(&mut self, index: u32, data: &mut D) -> bool {
        let core = &mut self.io.core;
        let Some(link) = core.links.at_mut(index).filter(|link| link.is_plain_websocket()) else {
            return false;
        };
        let Role::WebSocket(websocket) = &link.role else { return false };
        let Some(limit) = websocket.short_limit(&link.limits) else { return false };
        let (conn, timed, is_short) =
            (link.conn, link.flags.contains(Flags::TIMED), link.is_short(websocket));
        if self.buffer.is_empty() {
            self.buffer.resize(RECEIVE, 0);
        }
        let most = if CALM { self.buffer.len() } else { core.shares.bytes() };
        let given = if CALM { MESSAGES } else { core.shares.messages() };
        let filled = match link.read(&core.net, &mut self.buffer[..most]) {
            Filled::Bytes(filled) => filled,
            nothing => {
                self.received_nothing(index, nothing, data);
                return true;
            }
        };
        if timed {
            core.set_active(index);
        }
        core.make_current(index);
        let mut used = 0;
        let mut budget = given;
        if let Some(key) = core.conns.key_at(conn)
            && let Some(AnyHandler::WebSocket(handler)) = self.handlers.get(conn)
        {
            core.short = if is_short { key } else { Key::NONE };
            self.running = conn;
            let mut cx = Cx::new(data, &mut self.io, key);
            let handler = &mut **handler;
            let mut input = &mut self.buffer[..filled];
            // One is left to the way of all input, which knows what to do when there are more.
            while budget > 1
                && let Some((kind, payload)) = ws::ShortFrame::take::<true>(&mut input, limit)
            {
                budget -= 1;
                match ws::Message::new(kind, payload) {
                    Ok(message) => handler.message(&mut cx, message),
                    Err(error) => cx.io.core.fail_websocket(index, error.into()),
                }
                if cx.io.core.interrupted {
                    break;
                }
            }
            used = filled - input.len();
            self.running = NO_CONN;
        }
        if timed && used > 0 {
            self.io.core.message_passed(index);
        }
        if used < filled || self.io.core.interrupted {
            self.receive_rest(index, used..filled, budget, data);
        } else {
            self.io.core.release_plain();
        }
        if filled >= MUCH {
            self.io.core.took(index, filled, given - budget);
        }
        true
    }

    /// Hands over the rest of what was read.
    #[inline(never)]
    fn receive_rest(&mut self, index: u32, rest: Range<usize>, budget: u32, data: &mut D) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let left = self.handle_on(index, &mut buffer[rest.clone()], budget, data);
        if left.bytes > 0 {
            self.put_back(index, &buffer[rest.end - left.bytes..rest.end], left.stopped);
        }
        self.buffer = buffer;
    }

    /// All that is not input alone.
    #[inline(never)]
    fn serve_otherwise(&mut self, index: u32, ready: Ready, data: &mut D) {
        let core = &mut self.io.core;
        let link = core.link(index);
        if link.state == State::Ended || link.flags.contains(Flags::RELEASING) {
            return;
        }
        match &link.role {
            Role::WebSocket(_) | Role::Http(_) | Role::Raw | Role::Client(_) => {
                if ready.is_writable() && link.queue.is_some() {
                    core.flush(index, &mut Budget::new());
                }
                if ready.is_readable() && core.link(index).wants().is_readable() {
                    self.receive(index, false, data);
                }
            }
            Role::Listener(_) => self.accept(index, data),
            Role::WakeUp => self.wake_up(index),
            Role::Descriptor(_) => self.serve_descriptor(index, ready, data),
            Role::Connecting(_) => self.serve_connecting(index, data),
            Role::Resolver { number, .. } => {
                let number = *number;
                core.resolver_ready(number, ready);
            }
        }
    }

    /// Reads a link once and hands over what came; says how many messages that gave.
    fn receive(&mut self, index: u32, waited: bool, data: &mut D) -> u32 {
        if !self.io.core.handshake_may_go_on(index, waited) {
            return 0;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer.resize(RECEIVE, 0);
        }
        let filled = self.io.core.fill(index, &mut buffer);
        if self.io.core.was_just_secured(index) && !self.secured(index, data) {
            self.buffer = buffer;
            return 0;
        }
        let mut messages = 0;
        match filled {
            Filled::Bytes(filled) => {
                let left = self.handle(index, &mut buffer[..filled], data);
                messages = left.messages;
                if left.bytes > 0 {
                    self.put_back(index, &buffer[filled - left.bytes..filled], left.stopped);
                }
            }
            nothing => self.received_nothing(index, nothing, data),
        }
        self.buffer = buffer;
        self.transport_may_have_ended(index, data);
        messages
    }

    /// The handshake of a link is complete. False if its client is refused.
    fn secured(&mut self, index: u32, data: &mut D) -> bool {
        let link = self.io.core.link(index);
        let conn = link.conn;
        match &link.role {
            Role::Http(server) => {
                let site = server.site;
                // One that unwinds lets nobody in.
                self.io.core.make_current(index);
                self.io.core.work = true;
                let welcome = self.is_welcome(index, site, data);
                self.io.core.release_current();
                if !welcome {
                    self.io.core.finish_and_linger(index);
                }
                welcome
            }
            // Closed meanwhile, with something to be sent first.
            Role::Raw if link.state != State::Open => {
                self.io.core.left_handshake(index);
                true
            }
            Role::Raw => {
                self.io.core.left_handshake(index);
                self.io.core.opens(index);
                self.open_raw_handler(conn, data);
                true
            }
            // Closed meanwhile, with something to be sent first.
            Role::Client(_) if link.state != State::Open => true,
            Role::Client(_) => {
                self.speak(index, data);
                true
            }
            _ => true,
        }
    }

    #[cfg(feature = "tls")]
    fn is_welcome(&mut self, index: u32, site: Key, data: &mut D) -> bool {
        let link = self.io.core.link(index);
        let peer = link.peer().map_or(Peer::Unix(None), Peer::Inet);
        let facts = link.tls.as_ref().and_then(|tls| tls.facts());
        let first = protocol_at(&mut self.protocols, site, 0);
        first.zip(facts).is_none_or(|(first, facts)| first.secured(&peer, &facts, data))
    }

    #[cfg(not(feature = "tls"))]
    fn is_welcome(&mut self, _: u32, _: Key, _: &mut D) -> bool {
        true
    }

    pub(crate) fn open_raw_handler(&mut self, conn: u32, data: &mut D) {
        self.with_gathered(conn, data, |handler, cx| {
            if let AnyHandler::Raw(handler) = handler {
                handler.opened(cx);
            }
        });
    }

    /// The end of what the peer has to say, or a failure, may have come with the last of it, and is said once that has been handed
    /// over.
    fn transport_may_have_ended(&mut self, index: u32, data: &mut D) {
        let link = self.io.core.link(index);
        let waits = link.state == State::Ended || link.flags.intersects(Flags::BACKLOG.union(Flags::PAUSED));
        if link.tls.is_some()
            && !waits
            && !self.io.core.fail_now(index)
            && self.io.core.peer_has_closed(index)
        {
            self.input_ended(index, data);
        }
    }

    #[inline(never)]
    fn received_nothing(&mut self, index: u32, nothing: Filled, data: &mut D) {
        match nothing {
            Filled::Bytes(_) | Filled::Nothing => {}
            Filled::End => self.input_ended(index, data),
            Filled::Failed(error) => self.io.core.end(index, CloseReason::Io(error)),
        }
    }

    /// Goes on with the input that a link has kept, and says how much work that was, in messages.
    fn resume(&mut self, index: u32, data: &mut D) -> u32 {
        let core = &mut self.io.core;
        let link = core.link(index);
        // Pausing holds back content, not the end of an exchange that is complete.
        if link.state == State::Ended
            || (link.flags.contains(Flags::PAUSED) && !matches!(link.role, Role::Http(_)))
        {
            return 0;
        }
        if core.takes_last_look(index) {
            self.receive(index, true, data);
            self.io.core.looked_last(index);
            self.io.core.mark(index);
            return 1;
        }
        let link = core.link(index);
        link.flags.remove(Flags::BACKLOG);
        if link.tls.as_ref().is_some_and(|tls| !tls.is_secured()) {
            // A handshake that waited for its share.
            self.receive(index, true, data);
            self.io.core.mark(index);
            return 1;
        }
        let mut kept = link.kept.take().unwrap_or_default();
        let start = kept.start;
        let left = self.handle(index, &mut kept.bytes[start..], data);
        if left.bytes == 0 {
            self.io.core.pool.give(kept.bytes);
        } else {
            kept.start = kept.bytes.len() - left.bytes;
            let link = self.io.core.link(index);
            if link.state == State::Open {
                link.kept = Some(kept);
                link.flags.set(Flags::BACKLOG, left.stopped);
            }
        }
        self.io.core.input_kept(index);
        self.transport_may_have_ended(index, data);
        left.messages
    }

    /// Keeps what a link has not used. `stopped` says that it could be, and is not for now.
    fn put_back(&mut self, index: u32, rest: &[u8], stopped: bool) {
        let core = &mut self.io.core;
        if core.link(index).state != State::Open {
            return;
        }
        core.keep(index, rest);
        core.link(index).flags.set(Flags::BACKLOG, stopped);
        core.input_kept(index);
    }

    /// Hands the input of a link to its role, as far as it goes.
    fn handle(&mut self, index: u32, input: &mut [u8], data: &mut D) -> Left {
        self.io.core.make_current(index);
        let budget = self.io.core.shares.messages();
        self.handle_on(index, input, budget, data)
    }

    /// The same for a link that is being served already.
    fn handle_on(&mut self, index: u32, input: &mut [u8], given: u32, data: &mut D) -> Left {
        let mut budget = given;
        self.io.core.interrupted = false;
        self.io.core.handling = true;
        let mut used = 0;
        let (bytes, stopped) = loop {
            let link = self.io.core.link(index);
            if link.state != State::Open {
                break (0, false);
            }
            let rest = &mut input[used..];
            let (took, next) = match &link.role {
                Role::WebSocket(_) => self.handle_websocket(index, rest, &mut budget, data),
                Role::Http(_) => self.handle_http(index, rest, &mut budget, data),
                Role::Raw => self.handle_raw(index, rest, data),
                Role::Client(_) => self.handle_client(index, rest, &mut budget, data),
                _ => (rest.len(), Next::More),
            };
            used += took;
            match next {
                Next::Again if budget > 0 => {}
                Next::More => break (input.len() - used, false),
                Next::Stop => break (input.len() - used, true),
                Next::Again | Next::Later => {
                    self.io.core.resume_later(index);
                    break (input.len() - used, true);
                }
            }
        };
        self.io.core.handling = false;
        self.io.core.took(index, 0, given - budget);
        self.io.core.release_current();
        Left { bytes, stopped, messages: given - budget }
    }

    fn handle_raw(&mut self, index: u32, input: &mut [u8], data: &mut D) -> (usize, Next) {
        let link = self.io.core.link(index);
        let conn = link.conn;
        if link.flags.contains(Flags::PAUSED) {
            // In `opened`, with bytes right behind the handshake.
            return (0, Next::Stop);
        }
        if !input.is_empty() {
            self.with_receiver(conn, data, |handler, cx| {
                if let AnyHandler::Raw(handler) = handler {
                    handler.received(cx, input);
                }
            });
        }
        (input.len(), Next::More)
    }

    /// The peer has ended its half of a link, and everything before that has been handed over.
    fn input_ended(&mut self, index: u32, data: &mut D) {
        let core = &mut self.io.core;
        let link = core.link(index);
        if link.flags.contains(Flags::WRITE_FAILED) {
            return core.end(index, CloseReason::PeerEnded);
        }
        if link.state == State::Lingering {
            return core.end(index, CloseReason::Closed);
        }
        if link.state == State::Finishing {
            // Our last bytes still go out; then it is over.
            return core.mark(index);
        }
        match &link.role {
            Role::WebSocket(_) => self.websocket_input_ended(index, data),
            Role::Http(_) => self.http_input_ended(index),
            Role::Raw => {
                let conn = link.conn;
                if link.flags.contains(Flags::FINISHED) && link.queued() == 0 {
                    return core.end(index, CloseReason::PeerEnded);
                }
                core.make_current(index);
                self.with_handler(conn, data, |handler, cx| {
                    if let AnyHandler::Raw(handler) = handler {
                        handler.end(cx);
                    }
                });
                self.io.core.release_current();
            }
            Role::Client(_) => self.client_input_ended(index, data),
            _ => {}
        }
        if let Some((_, link)) = self.io.core.links.at(index)
            && link.state == State::Open
        {
            self.io.core.mark(index);
        }
    }

    fn accept(&mut self, index: u32, data: &mut D) {
        let burst = self.io.core.burst(index);
        for accepted in 0..burst {
            let core = &mut self.io.core;
            let (socket, peer, gives_way) = match core.accept(index) {
                Accepted::Socket { socket, peer, gives_way } => (socket, peer, gives_way),
                Accepted::Nothing => return core.burst_was(index, accepted, false),
                Accepted::Later => return,
            };
            if core.over_address_limit(&peer) {
                core.net.close(socket);
                continue;
            }
            let listener = core.links.key_at(index).unwrap_or(Key::NONE);
            let Role::Listener(facts) = &core.link(index).role else { return };
            match facts.sites.first().copied() {
                Some(site) => {
                    let first = protocol_at(&mut self.protocols, site, 0);
                    if first.is_some_and(|first| first.filter(&peer, data)) {
                        let link = self.io.open_http(socket, &peer, site, listener);
                        self.io.core.count_address(link);
                        self.connection_began(link, listener, site, data);
                    } else {
                        self.io.core.net.close(socket);
                    }
                }
                None => self.accept_raw(index, socket, &peer, data),
            }
            self.io.core.make_way(gives_way);
        }
        self.io.core.burst_was(index, burst, true);
    }

    /// Tells the protocol that has let a connection in of its beginning.
    fn connection_began(&mut self, index: u32, listener: Key, site: Key, data: &mut D) {
        let Some(connection) = self.io.core.connection_begins(index, listener, site) else { return };
        // One that unwinds aborts the connection, whose end is told all the same.
        self.io.core.make_current(index);
        self.io.core.work = true;
        if let Some(first) = protocol_at(&mut self.protocols, site, 0) {
            first.connection_began(&connection, data, &mut self.io);
        }
        self.io.core.release_current();
    }

    fn accept_raw(&mut self, index: u32, socket: OwnedFd, peer: &Peer, data: &mut D) {
        let limits = self.io.core.limits(index);
        let listener = self.io.core.links.key_at(index);
        let acceptor = self.acceptors.iter_mut().find(|(key, _)| Some(*key) == listener);
        match acceptor.and_then(|(_, accept)| accept(peer, data, &mut self.io)) {
            Some(handler) => {
                let server = self.io.core.own_server(index);
                let conn = self.io.open_raw(socket, Some(peer), limits, handler);
                if let Some(link) = self.io.core.conns.get(conn).map(|conn| conn.link) {
                    self.io.core.count_address(link);
                    if let Some(server) = server {
                        self.io.core.begin_tls(link, &server);
                    }
                }
                self.install(data);
                self.io.core.wind_up_late(conn);
            }
            None => self.io.core.net.close(socket),
        }
    }

    /// What accepts for a raw listener goes with it.
    fn forget_acceptors(&mut self) {
        let links = &self.io.core.links;
        self.acceptors.retain(|(listener, _)| links.get(*listener).is_some());
    }

    fn wake_up(&mut self, index: u32) {
        let core = &self.io.core;
        if let Some(fd) = core.links.at(index).and_then(|(_, link)| link.fd.as_ref()) {
            core.net.drain_wake_up(fd.as_fd());
        }
        self.io.core.link(index).received += 1;
        // Emptied first: a post from here on signals again.
        if let Some(remote) = &self.io.remote {
            remote.0.lowered();
        }
        self.io.look_for_posts();
    }

    fn serve_descriptor(&mut self, index: u32, ready: Ready, data: &mut D) {
        let link = self.io.core.link(index);
        let conn = link.conn;
        let Role::Descriptor(interest) = &mut link.role else { return };
        let read = ready.is_readable() && interest.is_readable() && !link.flags.contains(Flags::PAUSED);
        let write = ready.is_writable() && interest.is_writable();
        *interest = interest.without(if write { Interest::WRITE } else { Interest::NONE });
        link.sent += u64::from(write);
        if write {
            self.lend(index, conn, data, |handler, cx, fd| handler.writable(cx, fd));
        }
        let link = self.io.core.link(index);
        if read && link.state == State::Open && !link.flags.contains(Flags::PAUSED) {
            link.received += 1;
            self.lend(index, conn, data, |handler, cx, fd| handler.readable(cx, fd));
        }
        self.io.core.mark(index);
    }

    /// Runs a descriptor's handler with the descriptor in its hands.
    fn lend(
        &mut self,
        index: u32,
        conn: u32,
        data: &mut D,
        run: impl FnOnce(&mut dyn crate::fd::Handler<D>, &mut Cx<'_, D>, std::os::fd::BorrowedFd<'_>),
    ) {
        let Some(fd) = self.io.core.link(index).fd.take() else { return };
        // Kept by the context while it is lent, so that a handler that unwinds does not close what the host still watches.
        let fd = Rc::new(fd);
        self.io.lent = Some((index, Rc::clone(&fd)));
        self.with_handler(conn, data, |handler, cx| {
            if let AnyHandler::Descriptor(handler) = handler {
                run(&mut **handler, cx, fd.as_fd());
            }
        });
        drop(fd);
        self.io.take_back_lent();
    }

    // Handlers.

    /// Runs `run` with a conn's handler, unless the conn has ended. What it sends answers nothing that was received.
    pub(crate) fn with_handler(
        &mut self,
        conn: u32,
        data: &mut D,
        run: impl FnOnce(&mut AnyHandler<D>, &mut Cx<'_, D>),
    ) {
        self.io.core.unprompted = true;
        self.with_receiver(conn, data, run);
        self.io.core.unprompted = false;
    }

    /// Runs `run` with a conn's handler, unless the conn has ended, for what it has received.
    pub(crate) fn with_receiver(
        &mut self,
        conn: u32,
        data: &mut D,
        run: impl FnOnce(&mut AnyHandler<D>, &mut Cx<'_, D>),
    ) {
        let Some((key, conn_facts)) = self.io.core.conns.at(conn) else { return };
        if conn_facts.ended {
            return;
        }
        let Some(handler) = self.handlers.get(conn) else { return };
        self.running = conn;
        run(handler, &mut Cx::new(data, &mut self.io, key));
        self.running = NO_CONN;
    }

    /// Runs `run` with a conn's handler, its output gathered.
    pub(crate) fn with_gathered(
        &mut self,
        conn: u32,
        data: &mut D,
        run: impl FnOnce(&mut AnyHandler<D>, &mut Cx<'_, D>),
    ) {
        let link = self.io.core.conns.at(conn).map_or(NO_CONN, |(_, conn)| conn.link);
        let gather = self.io.core.current == crate::engine::NOBODY && self.io.core.links.at(link).is_some();
        if gather {
            self.io.core.make_current(link);
        }
        self.with_handler(conn, data, run);
        if gather {
            self.io.core.release_current();
            self.io.core.pumped(link);
        }
    }
}

impl<D> Default for Context<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D> Drop for Context<D> {
    fn drop(&mut self) {
        if self.is_forked() {
            return self.give_up();
        }
        self.io.close_remote();
        if self.io.core.is_attached() {
            log::error!(target: "lodger::host", "a context was dropped while its host still watches its descriptors");
        }
        self.io.core.close_all();
    }
}

impl<D> fmt::Debug for Context<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("links", &self.io.core.links.len()).finish_non_exhaustive()
    }
}

/// The protocol at this place of a site.
pub(crate) fn protocol_at<D>(
    protocols: &mut [Vec<Box<dyn Protocol<D>>>],
    site: Key,
    place: usize,
) -> Option<&mut Box<dyn Protocol<D>>> {
    protocols.get_mut(site.index as usize)?.get_mut(place)
}

/// From so many bytes on, a read is looked at for what the link has taken of the turn. Below that even the shortest messages are
/// little work.
const MUCH: usize = 4096;

/// What a role has left of its input.
struct Left {
    bytes: usize,
    /// It could be used, and is not for now.
    stopped: bool,
    /// How much work it was, in messages.
    messages: u32,
}

/// What a role wants after a step.
pub(crate) enum Next {
    /// Another step, perhaps of another role, with what is left.
    Again,
    /// More input; what is left is not enough.
    More,
    /// Nothing for now: it will be said when it goes on.
    Stop,
    /// To go on with the next call.
    Later,
}
