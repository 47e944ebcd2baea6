//! How long an exchange waits for its handler and for its peer, and how it ends when that time is over.

use super::role::{Output, Phase, Server, error_response};
use crate::engine::link::{Flags, Link, State};
use crate::engine::timers::Tick;
use crate::engine::{Core, LOOK};
use crate::handler::{CloseReason, Timeout};
use crate::http::StatusCode;
use crate::net::Standing;
use crate::role::Role;

/// What an exchange waits for besides content, each with the time at which that is over. One timer, that of its link, serves all:
/// it stands at the first of them, and at the time for content.
#[derive(Clone, Copy)]
pub(crate) struct Waits {
    /// The request is complete: the handler is to have begun its response.
    begin: Tick,
    /// The handler has closed within the content of its response: it is to have completed that.
    complete: Tick,
    /// The peer has ended its half: the handler is to have sent it something more.
    half_closed: Tick,
    /// The socket is not read: it is to be looked at.
    look: Tick,
    /// The request is complete, and its handler, which has paused, holds back that it hears so.
    held: bool,
}

impl Waits {
    pub(crate) const NONE: Self = Self {
        begin: Tick::NEVER,
        complete: Tick::NEVER,
        half_closed: Tick::NEVER,
        look: Tick::NEVER,
        held: false,
    };

    fn first(&self) -> Tick {
        self.begin.min(self.complete).min(self.half_closed).min(self.look)
    }
}

/// Sets or clears a deadline; one that is set stays where it is.
fn keep(deadline: &mut Tick, is_wanted: bool, at: impl FnOnce() -> Tick) {
    match is_wanted {
        false => *deadline = Tick::NEVER,
        true if *deadline == Tick::NEVER => *deadline = at(),
        true => {}
    }
}

/// An exchange that is going on.
fn exchange(link: &mut Link) -> Option<&mut Server> {
    let open = link.state == State::Open && !link.flags.contains(Flags::RELEASING);
    match &mut link.role {
        Role::Http(server) if open && server.phase == Phase::Exchange => Some(server),
        _ => None,
    }
}

impl Core {
    /// Finds out what an exchange waits for, and sets its timer to what is due first. For whenever that may have changed.
    pub(crate) fn arm_exchange(&mut self, index: u32) {
        if exchange(self.link(index)).is_none() {
            return;
        }
        let now = self.now();
        let conn = self.link(index).conn;
        let heard_end = self.conns.at(conn).is_some_and(|(_, conn)| conn.heard_end);
        let link = self.link(index);
        let flags = link.flags;
        let queued = link.queued() > 0;
        let ended = flags.contains(Flags::END_RECEIVED);
        let paused = flags.contains(Flags::PAUSED);
        let stuck = flags.contains(Flags::BACKLOG) && !flags.contains(Flags::TO_RESUME);
        let limits = std::rc::Rc::clone(&link.limits);
        let Some(server) = exchange(link) else { return };
        let complete = server.response == Output::Complete;
        let sends = queued || complete || server.is_sending_file();
        let whole = server.received || server.waits.held;
        let unbegun = whole && server.response == Output::None;
        let waits = &mut server.waits;
        if complete {
            waits.complete = Tick::NEVER;
        }
        keep(&mut waits.begin, unbegun, || now.after(limits.begin_response));
        keep(&mut waits.half_closed, whole && (ended || heard_end) && !sends, || {
            now.after(limits.half_closed)
        });
        keep(&mut waits.look, (paused || stuck) && !ended && !complete, || now.after(LOOK));
        let mut due = waits.first();
        if !paused && !ended && flags.contains(Flags::TIMED) {
            due = due.min(server.active.after(limits.body_stall));
        }
        match due {
            Tick::NEVER => self.cancel_phase(index),
            due => self.arm_phase_at(index, due),
        }
    }

    /// A handler that has paused holds back the end of its request. Where nothing but that end is missing, its time to respond runs.
    pub(crate) fn end_is_held(&mut self, index: u32) {
        if let Some(server) = exchange(self.link(index)).filter(|server| server.content.is_complete()) {
            server.waits.held = true;
            self.arm_exchange(index);
        }
    }

    /// Something of a response has been sent, or was to be and has left: a peer that has ended its half has its time from here.
    pub(crate) fn response_sent(&mut self, index: u32) {
        if let Some(server) = exchange(self.link(index)).filter(|server| server.waits.first() != Tick::NEVER)
        {
            server.waits.half_closed = Tick::NEVER;
            self.arm_exchange(index);
        }
    }

    /// The handler has closed within the content of its response, and has so long to complete it.
    pub(crate) fn complete_response_in_time(&mut self, index: u32) {
        let now = self.now();
        let closing = self.link(index).limits.closing;
        if let Some(server) =
            exchange(self.link(index)).filter(|server| matches!(server.response, Output::Content(_)))
        {
            keep(&mut server.waits.complete, true, || now.after(closing));
            self.arm_exchange(index);
        }
    }

    /// The timer of an exchange is due: ends what has waited for too long, but for content. Says whether the exchange goes on.
    pub(crate) fn exchange_goes_on(&mut self, index: u32) -> bool {
        let now = self.now();
        if exchange(self.link(index))
            .is_some_and(|server| server.waits.look.min(server.waits.half_closed) <= now)
        {
            match self.standing(index) {
                Standing::Open => {}
                Standing::Ended => self.tell_peer_ended(index),
                Standing::Failed(error) => {
                    self.end(index, CloseReason::Io(error));
                    return false;
                }
            }
        }
        let Some(late) = self.late_response(index, now) else { return true };
        self.give_up_response(index, late);
        false
    }

    /// For what an exchange has waited too long, if it has.
    fn late_response(&mut self, index: u32, now: Tick) -> Option<Timeout> {
        let link = self.link(index);
        let (queued, closing) = (link.queued() > 0, link.limits.closing);
        let server = exchange(link)?;
        let sends = queued || server.is_sending_file();
        let waits = &mut server.waits;
        if waits.look <= now {
            waits.look = Tick::NEVER;
        }
        if waits.begin <= now {
            return Some(Timeout::BeginResponse);
        }
        if sends {
            // What is queued is still being taken, which has a limit of its own.
            if waits.complete <= now {
                waits.complete = now.after(closing);
            }
            return None;
        }
        match (waits.half_closed <= now, waits.complete <= now) {
            (true, _) => Some(Timeout::HalfClosed),
            (false, true) => Some(Timeout::Closing),
            (false, false) => None,
        }
    }

    /// Ends an exchange whose handler has not done its part. A response that has not begun is 503; the end of one that has begun is
    /// a reset, since what was sent of it must not be taken for all of it.
    fn give_up_response(&mut self, index: u32, late: Timeout) {
        match self.server(index).map(|server| server.response) {
            Some(Output::None) => {
                self.set_reason(index, CloseReason::TimedOut(late));
                self.refuse(index, error_response(StatusCode::SERVICE_UNAVAILABLE));
            }
            _ => self.abort(index, CloseReason::TimedOut(late)),
        }
    }
}
