//! Pausing, finishing, closing, releasing, and the end of all.

use super::Core;
use super::conn::{Conn, Hold};
use super::link::{Flags, Link, NO_CONN, State};
use super::store::Key;
use crate::error::SendError;
use crate::handler::{CloseReason, Flow};
use crate::http1::client::Phase as ClientPhase;
use crate::http1::role::{Output, Phase};
use crate::role::Role;
use crate::ws::CloseCode;
use std::os::fd::AsFd;

/// What a link with this conn waits for, for the application's eyes.
pub(crate) fn waits_for(link: &Link, conn: Option<&Conn>) -> &'static str {
    let held = conn.is_some_and(|conn| conn.hold.contains(Hold::HELD));
    match (link.state, &link.role) {
        (State::Ended, _) => "being closed",
        (State::Finishing, _) => "its last bytes to be taken",
        (State::Lingering, _) => "the peer's end",
        (State::Open, _) if held => "room to write, before it reads on",
        (State::Open, _) if link.queued() > 0 => "room to write",
        (State::Open, _) if link.flags.contains(Flags::PAUSED) => "resume",
        (State::Open, Role::Listener(listener)) if listener.paused => "free descriptors",
        (State::Open, Role::Listener(_)) => "connections",
        (State::Open, Role::WakeUp) => "other threads",
        (State::Open, Role::Descriptor(_)) => "readiness",
        (State::Open, Role::Connecting(_)) => "the connection",
        (State::Open, Role::Resolver { .. }) => "names",
        (State::Open, Role::Raw) => "bytes",
        (State::Open, Role::Client(client)) => match &client.phase {
            ClientPhase::Proxy(_) => "the proxy",
            ClientPhase::Securing => "the TLS handshake",
            ClientPhase::Opening(..) => "the answer to the opening handshake",
            ClientPhase::Idle => "a request to send",
            ClientPhase::Response => "a response",
            ClientPhase::Content => "the content of a response",
        },
        (State::Open, Role::WebSocket(websocket)) if !websocket.closing.may_send() => "the peer's Close",
        (State::Open, Role::WebSocket(_)) => "messages",
        (State::Open, Role::Http(server)) => match server.phase {
            Phase::Head => "a request",
            Phase::Deciding => "a decision",
            Phase::Exchange if !server.received => "content",
            Phase::Exchange => "a response",
        },
    }
}

impl Core {
    /// Bytes as they are: on a raw connection, or as content of a response.
    pub(crate) fn write_bytes(&mut self, conn: Key, bytes: &[u8]) -> Result<Flow, SendError> {
        let index = self.conns.get(conn).ok_or(SendError::Gone)?.link;
        let Some(link) = self.links.at_mut(index) else { return Err(self.without_link(conn)) };
        match &link.role {
            Role::Http(_) => return self.send_content(conn, bytes),
            Role::Client(_) => return self.send_request_content(conn, bytes),
            Role::Raw => {}
            _ => return Err(SendError::Role),
        }
        if link.output_over() {
            return Err(SendError::Closing);
        }
        if link.is_over_send_max() && !self.answers_once(index) {
            return Err(SendError::Overrun);
        }
        Ok(self.push(index, &[], bytes))
    }

    /// A conn wants to hear of room: at once, if there is some.
    pub(crate) fn room_wanted(&mut self, index: u32) {
        let link = self.link(index);
        if link.state == State::Open && !link.flags.contains(Flags::WRITE_FAILED) {
            self.offer_room(index);
        }
    }

    /// The user wants no more to be read for now.
    pub(crate) fn pause(&mut self, index: u32) {
        if !self.hold_outlived(index) {
            self.stop_reading(index);
        }
    }

    pub(super) fn stop_reading(&mut self, index: u32) {
        let link = self.link(index);
        if link.state != State::Open
            || link.flags.contains(Flags::PAUSED)
            || link.flags.contains(Flags::RELEASING)
        {
            return;
        }
        match &link.role {
            // A closing connection is only read for the peer's Close.
            Role::WebSocket(websocket) if !websocket.closing.may_send() => return,
            // What comes first is the outcome.
            Role::Client(client) if !client.is_busy() => return,
            // There is no content to hold back.
            Role::Http(server) if server.phase != Phase::Exchange => return,
            _ => {}
        }
        link.flags.insert(Flags::PAUSED);
        link.flags.insert(Flags::SMALL_READS);
        let handshaking = link.tls.as_ref().is_some_and(|tls| !tls.is_secured());
        self.interrupt(index);
        if !handshaking {
            self.cancel_phase(index);
            self.arm_look(index);
            self.arm_exchange(index);
        }
        self.mark(index);
    }

    /// Reading goes on, whatever held it back.
    pub(crate) fn resume(&mut self, index: u32) {
        self.forget_hold(index);
        let link = self.link(index);
        if link.flags.contains(Flags::RELEASING) || !link.flags.lower(Flags::PAUSED) {
            return;
        }
        let now = self.now();
        let link = self.link(index);
        link.role.set_active(now);
        let ended = link.tls.as_ref().is_some_and(|tls| tls.peer_has_closed() || tls.has_failed());
        // An exchange may have been completed meanwhile, or the peer have said that nothing more comes.
        if link.kept.is_some()
            || link.flags.contains(Flags::BACKLOG)
            || ended
            || matches!(link.role, Role::Http(_) | Role::Client(_))
        {
            self.resume_later(index);
        }
        let link = self.link(index);
        match &link.role {
            Role::WebSocket(websocket) if websocket.closing.may_send() => {
                self.begin_websocket_timers(index);
                self.message_goes_on(index);
            }
            Role::Http(_) => self.arm_exchange(index),
            Role::Client(_) => self.arm_client(index),
            // No look any more.
            Role::Raw if link.tls.as_ref().is_none_or(|tls| tls.is_secured()) => self.cancel_phase(index),
            _ => {}
        }
        self.mark(index);
    }

    /// Ends our direction of a raw connection.
    pub(crate) fn finish(&mut self, index: u32) {
        let link = self.link(index);
        let open = link.state == State::Open && !link.flags.contains(Flags::RELEASING);
        if open && !link.flags.raise(Flags::FINISHED) {
            self.output_done(index);
            if self.link(index).state == State::Open {
                self.mark(index);
            }
        }
    }

    /// Closes in an orderly way.
    pub(crate) fn close(&mut self, index: u32, code: CloseCode, reason: &str) {
        let link = self.link(index);
        // What is given back is given back as it is.
        if link.flags.contains(Flags::RELEASING) {
            return;
        }
        match &mut link.role {
            Role::WebSocket(_) => self.close_websocket(index, Some((code, reason))),
            Role::Http(server) => match (server.phase, server.response) {
                // Once the response is complete, the connection ends behind it.
                (Phase::Exchange, Output::Content(_) | Output::Complete) => {
                    server.asked.keep_alive = false;
                    self.complete_response_in_time(index);
                }
                (Phase::Head | Phase::Deciding | Phase::Exchange, _) => self.finish_and_linger(index),
            },
            Role::Raw => self.finish_and_linger(index),
            Role::Client(client) => match client.used && !client.is_busy() {
                true => self.end(index, CloseReason::Completed),
                false => self.end(index, CloseReason::Closed),
            },
            Role::Listener(_) | Role::WakeUp | Role::Descriptor(_) => self.end(index, CloseReason::Closed),
            Role::Connecting(_) | Role::Resolver { .. } => self.end(index, CloseReason::Closed),
        }
    }

    /// Closes whatever connection a link is, and says whether it is one.
    pub(crate) fn hang_up(&mut self, index: u32) -> bool {
        let link = self.link(index);
        if link.state == State::Ended || link.flags.contains(Flags::RELEASING) {
            return false;
        }
        match &link.role {
            Role::Listener(_) | Role::WakeUp | Role::Resolver { .. } | Role::Connecting(_) => return false,
            // Nothing was said yet that could be ended in an orderly way.
            Role::Http(_) if link.tls.as_ref().is_some_and(|tls| !tls.is_secured()) => {
                self.end(index, CloseReason::Closed);
            }
            Role::Http(_) | Role::WebSocket(_) | Role::Raw | Role::Client(_) | Role::Descriptor(_) => {
                self.close(index, CloseCode::NORMAL, "");
            }
        }
        true
    }

    /// Lets go of a link whose descriptor goes back to the application once the host has been told.
    pub(crate) fn release(&mut self, index: u32) {
        if self.link(index).tls.is_some() {
            return self.close(index, CloseCode::NORMAL, "");
        }
        let mut phase = std::mem::replace(&mut self.link(index).phase_timer, super::TimerId::NONE);
        self.timers.cancel(&mut phase);
        let link = self.link(index);
        link.flags.insert(Flags::RELEASING);
        link.flags.insert(Flags::PAUSED);
        let queue = link.queue.take();
        self.interrupt(index);
        let mut lost = self.drop_queue(queue);
        if self.current == index {
            lost += self.out.len();
            self.out.clear();
        }
        let conn = self.link(index).conn;
        if let Some(conn) = self.conns.at_mut(conn).filter(|_| lost > 0) {
            conn.cold().lost += lost;
        }
        self.mark(index);
    }

    /// The host has been told: the descriptor of a released link is its handler's.
    pub(super) fn hand_over(&mut self, index: u32) {
        let link = self.link(index);
        if link.state == State::Ended {
            return;
        }
        let Some(descriptor) = link.fd.take() else { return };
        let unread = link.kept.take().map(|kept| kept.rest().to_vec()).unwrap_or_default();
        let number = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
        self.forget(number, index);
        // It holds the descriptor, so that no other reason may stand in its place.
        let conn = self.link(index).conn;
        if let Some(cold) = self.conns.at_mut(conn).and_then(|conn| conn.cold.as_mut()) {
            cold.reason = None;
        }
        self.end(index, CloseReason::Released { descriptor, unread });
    }

    // The end of all.

    pub(crate) fn is_deciding(&mut self, conn: Key) -> bool {
        let Some(link) = self.live(conn).map(|conn| conn.link) else { return false };
        self.links.at(link).is_some_and(|(_, link)| link.state == State::Open)
            && self.server(link).is_some_and(|server| server.phase == Phase::Deciding)
    }

    /// Notes that a decision has been made, and says whether it was the first.
    pub(crate) fn decide(&mut self, conn: Key) -> bool {
        if !self.is_deciding(conn) {
            return false;
        }
        let Some(link) = self.live(conn).map(|conn| conn.link) else { return false };
        self.server(link).is_some_and(|server| !std::mem::replace(&mut server.decided, true))
    }

    pub(super) fn all_links(&self) -> Vec<u32> {
        self.links.iter().map(|(key, _)| key.index).collect()
    }

    /// Closes everything in an orderly way; the loop goes on until it is done.
    pub(crate) fn shutdown(&mut self, code: CloseCode) {
        self.leaving = true;
        self.end_connecting();
        for index in self.all_links() {
            self.wind_up(index, code);
        }
    }

    /// Winds up a conn that came to be after everything else was told to.
    pub(crate) fn wind_up_late(&mut self, conn: Key) {
        let Some(index) = self.live(conn).map(|conn| conn.link) else { return };
        let Some((_, link)) = self.links.at(index) else { return };
        let site_removed = self.sites.at(link.site).is_some_and(|(_, facts)| facts.removed);
        if self.leaving || site_removed {
            self.wind_up(index, CloseCode::GOING_AWAY);
        }
    }

    pub(super) fn wind_up(&mut self, index: u32, code: CloseCode) {
        let link = self.link(index);
        if link.state != State::Open {
            return;
        }
        match &mut link.role {
            Role::WakeUp | Role::Resolver { .. } => {}
            Role::Client(client) if client.is_busy() => client.keep_alive = false,
            Role::Http(server) => {
                server.last = true;
                if server.phase == Phase::Head && link.kept.is_none() {
                    self.look_last(index);
                }
            }
            Role::Listener(_) | Role::Descriptor(_) | Role::Raw | Role::WebSocket(_) => {
                self.close(index, code, "")
            }
            Role::Client(_) | Role::Connecting(_) => self.close(index, code, ""),
        }
    }

    /// The context leaves: WebSockets get a Close, what is queued one write, and every conn ends.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
        self.end_connecting();
        self.end_questions();
        for index in self.all_links() {
            if self.link(index).state == State::Ended {
                continue;
            }
            if self.link(index).flags.contains(Flags::RELEASING) {
                self.hand_over(index);
                continue;
            }
            let conn = self.link(index).conn;
            if conn != NO_CONN {
                self.set_reason(index, CloseReason::Leaving);
            }
            if matches!(self.link(index).role, Role::WebSocket(_)) {
                self.close_websocket(index, Some((CloseCode::GOING_AWAY, "")));
            }
            if self.link(index).state != State::Ended {
                if self.is_whole(index, &CloseReason::Leaving) {
                    self.close_secure(index);
                }
                self.flush(index, &mut super::Budget::new());
            }
            if self.link(index).state != State::Ended {
                self.end(index, CloseReason::Leaving);
            }
        }
        // Whoever had input to go on with has ended.
        self.to_resume.clear();
    }

    /// Closes every descriptor, saying nothing to anybody.
    pub(crate) fn close_all(&mut self) {
        for index in self.all_links() {
            let Some(key) = self.links.key_at(index) else { continue };
            let Some(mut link) = self.links.remove(key) else { continue };
            if let Role::Listener(listener) = &link.role
                && let Some(path) = &listener.path
            {
                path.remove();
            }
            if let Some(fd) = link.fd.take() {
                if link.flags.contains(Flags::RESET) {
                    self.net.reset(fd.as_fd());
                }
                self.net.close(fd);
            }
        }
    }

    /// Gives every number back, and nothing else: in a forked child the sockets are the parent's. Nothing is left to be done.
    pub(crate) fn abandon(&mut self) {
        if let Some(resolver) = self.resolver.take() {
            resolver.abandon();
        }
        for index in self.all_links() {
            let Some(key) = self.links.key_at(index) else { continue };
            if let Some(fd) = self.links.remove(key).and_then(|mut link| link.fd.take()) {
                self.net.close(fd);
            }
        }
        self.forget_everything();
    }
}
