//! Deadlines by which a peer is judged. None ends a connection before its socket was looked at: the process may have been
//! stopped, or a handler may have taken long, and then the peer's answer lies unread in the socket while its time runs out.

use super::Context;
use crate::engine::Budget;
use crate::engine::link::{Flags, State};
use crate::engine::store::Key;
use crate::engine::timers::Tick;
use crate::handler::{CloseReason, Timeout};
use crate::role::Role;
use std::time::Duration;

/// How much longer a peer has when the look at its socket found something, but not all that was waited for: for the few round
/// trips that were missed. What a peer may send meanwhile is bounded by the size of what is waited for: a head, a handshake.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How many reads a look takes to find the peer's end, or its Close, behind what it sent before: as much as sockets hold.
const READS: u32 = 16;

impl<D> Context<D> {
    /// The phase that a link is in has lasted as long as it may, or is to be looked at again.
    pub(super) fn phase_expired(&mut self, index: u32, due: Tick, budget: &mut Budget, data: &mut D) {
        let core = &mut self.io.core;
        let link = core.link(index);
        if link.state == State::Ended {
            return;
        }
        if link.is_only_looked_at() {
            return core.look_at_peer(index);
        }
        if link.flags.contains(Flags::TO_RESUME) {
            // Its input, or its handshake, waits for its turn here: it is not the peer that is late.
            let now = core.now();
            return core.arm_phase_at(index, now);
        }
        let received = link.received;
        self.look(index, budget, data);
        let link = self.io.core.link(index);
        let waits_here = link.flags.contains(Flags::TO_RESUME);
        let heard = link.received != received || link.heard_since(due) || waits_here;
        if link.phase_timer.is_none() && link.state != State::Ended {
            self.phase_over(index, heard);
        }
    }

    /// What becomes of a link whose time is up, now that its socket was looked at; `heard` says whether anything has come since then.
    fn phase_over(&mut self, index: u32, heard: bool) {
        let core = &mut self.io.core;
        let link = core.link(index);
        if link.queue.is_some() && link.is_closing() {
            // What is queued is still being taken, which has a limit of its own.
            let closing = link.limits.closing;
            return core.arm_phase(index, closing);
        }
        let handshaking = link.is_handshaking();
        let reads_head = matches!(&link.role, Role::Http(server) if server.awaits_head());
        match (link.state, &link.role) {
            (State::Ended, _) => {}
            (State::Finishing | State::Lingering, _) => {
                core.end(index, CloseReason::TimedOut(Timeout::Closing))
            }
            (State::Open, _) if heard && (handshaking || reads_head) => core.arm_phase(index, LOOK_AGAIN),
            (State::Open, Role::WebSocket(_)) => core.websocket_timer(index),
            (State::Open, Role::Http(_)) if handshaking => {
                core.end(index, CloseReason::TimedOut(Timeout::Handshake))
            }
            (State::Open, Role::Http(_)) => self.http_timer(index),
            // The handshake of its transport is not complete: there is no other phase that has a time.
            (State::Open, Role::Raw) if handshaking => {
                core.abort(index, CloseReason::TimedOut(Timeout::Handshake))
            }
            (State::Open, Role::Client(client)) if heard && client.awaits_response() => {
                core.arm_phase(index, LOOK_AGAIN)
            }
            (State::Open, Role::Client(_)) => self.client_timer(index),
            (State::Open, _) => {}
        }
    }

    /// The output of a link has not moved for as long as it may. An attempt to write shows a peer that takes little: a system may
    /// say that a socket is writable only when a third of its buffer is free.
    pub(super) fn stall_expired(&mut self, index: u32, budget: &mut Budget, data: &mut D) {
        if !self.io.core.stalled(index) {
            return;
        }
        let sent = self.io.core.link(index).sent;
        self.look(index, budget, data);
        let link = self.io.core.link(index);
        if link.state != State::Ended && link.queue.is_some() && link.sent == sent {
            self.io.core.abort(index, CloseReason::TimedOut(Timeout::WriteStall));
        }
    }

    /// A message that has begun has not moved on for as long as it may, or is to be looked at again.
    pub(super) fn message_expired(&mut self, key: Key, budget: &mut Budget, data: &mut D) {
        let core = &mut self.io.core;
        if !core.message_expired(key) {
            return;
        }
        if core.link(key.index).flags.intersects(Flags::BACKLOG.union(Flags::TO_RESUME)) {
            // Its input waits for its turn here: it is not the peer that is late.
            return core.message_goes_on(key.index);
        }
        self.look(key.index, budget, data);
        if self.io.core.message_stalled(key) {
            self.io.core.message_timed_out(key.index);
        }
    }

    /// A client's connection is to be begun, or has not come about in its time.
    pub(super) fn connect_expired(&mut self, key: Key, due: Tick, budget: &mut Budget, data: &mut D) {
        let core = &mut self.io.core;
        if core.begins_late(key) {
            return;
        }
        core.arm_deadline(key, LOOK_AGAIN);
        core.look_for_names(key);
        for index in core.racing(key) {
            if self.io.core.link(index).state == State::Open {
                self.serve_connecting(index, data);
            }
        }
        if let Some(index) = self.io.core.link_of_connecting(key) {
            self.look(index, budget, data);
        }
        let core = &mut self.io.core;
        if core.has_deadline(key) && !core.has_moved_since(key, due) {
            core.connect_over(key);
        }
    }

    /// Writes what a link has queued and reads it once, or until the peer's end where only that is waited for; and hands over
    /// what came.
    fn look(&mut self, index: u32, budget: &mut Budget, data: &mut D) {
        self.io.core.flush(index, budget);
        for _ in 0..READS {
            let link = self.io.core.link(index);
            let received = link.received;
            if !link.wants().is_readable() {
                return;
            }
            let messages = self.receive(index, false, data);
            let link = self.io.core.link(index);
            budget.received(messages, link.received - received);
            if link.received == received || !link.is_closing() {
                return;
            }
        }
    }
}
