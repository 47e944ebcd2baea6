//! Links that are not read: whether their peers are still there.

use super::link::{Flags, Link, State};
use super::{Core, LOOK};
use crate::handler::{CloseReason, Notice};
use crate::net::Standing;
use crate::role::Role;
use std::os::fd::AsFd;

impl Link {
    /// Whether its user has paused it, and its timer has nothing else to do than to look at its peer. An HTTP exchange has, and
    /// a TLS handshake.
    pub(crate) fn is_only_looked_at(&self) -> bool {
        self.is_paused() && !self.is_handshaking() && !matches!(self.role, Role::Http(_))
    }

    /// Whether its user has paused a connection whose bytes are read here.
    pub(crate) fn is_paused(&self) -> bool {
        self.state == State::Open
            && self.flags.contains(Flags::PAUSED)
            && !self.flags.contains(Flags::RELEASING)
            && self.role.is_stream()
    }
}

impl Core {
    /// Sets the timer of a paused link to the next look.
    pub(crate) fn arm_look(&mut self, index: u32) {
        if self.link(index).is_only_looked_at() {
            self.arm_phase(index, LOOK);
        }
    }

    /// Looks whether the peer of a link that is not read is still there: a reset ends the link, the end of the peer's half is told,
    /// though bytes may lie unread in front of it.
    pub(crate) fn look_at_peer(&mut self, index: u32) {
        match self.standing(index) {
            Standing::Open => {}
            Standing::Ended => self.tell_peer_ended(index),
            Standing::Failed(error) => return self.end(index, CloseReason::Io(error)),
        }
        self.arm_look(index);
    }

    /// How the peer of a link stands, as far as that shows without reading.
    pub(crate) fn standing(&self, index: u32) -> Standing {
        let Some((_, link)) = self.links.at(index) else { return Standing::Open };
        let announced = link.tls.as_ref().is_some_and(|tls| tls.peer_has_closed());
        match link.fd.as_ref().map_or(Standing::Open, |fd| self.net.standing(fd.as_fd())) {
            Standing::Open if announced => Standing::Ended,
            standing => standing,
        }
    }

    /// Has the handler of a link's conn hear `peer_ended`, unless it has heard it.
    pub(crate) fn tell_peer_ended(&mut self, index: u32) {
        let conn = self.link(index).conn;
        if self.hears_first_end(conn)
            && let Some(key) = self.conns.key_at(conn)
        {
            self.notice(key, Notice::PeerEnded);
        }
    }

    /// Notes that a conn hears of its peer's end, and says whether that is the first time.
    pub(crate) fn hears_first_end(&mut self, conn: u32) -> bool {
        self.conns.at_mut(conn).is_some_and(|conn| !std::mem::replace(&mut conn.heard_end, true))
    }
}
