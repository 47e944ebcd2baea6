//! One socket: its transport, its role, its buffers and its timers.

use super::buffer::{Kept, Queue};
use super::timers::TimerId;
use crate::host::Interest;
use crate::limits::Limits;
use crate::net::Peer;
use crate::role::Role;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// How far a link has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// In use.
    Open,
    /// What is queued goes out, then our half ends and the link lingers.
    Finishing,
    /// Our half has ended; what the peer still sends is read and dropped, until its end or the limit (RFC 9112, section 9.6).
    Lingering,
    /// Over: to be taken from the host and closed at the next `prepare`.
    Ended,
}

pub(crate) struct Link {
    /// `None` only while a release hands the descriptor over.
    pub(crate) fd: Option<OwnedFd>,
    /// The conn that is going on, by its place; `NO_CONN` between requests.
    pub(crate) conn: u32,
    pub(crate) limits: Rc<Limits>,
    pub(crate) role: Role,
    pub(crate) queue: Option<Box<Queue>>,
    /// Bytes that were read and not used yet.
    pub(crate) kept: Option<Box<Kept>>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) phase_timer: TimerId,
    /// Seconds from the context's start to the link's.
    pub(crate) created: u32,
    /// The site that it lives by, by its place; `NO_CONN` for none.
    pub(crate) site: u32,
    peer: CompactPeer,
    pub(crate) state: State,
    /// What the host was told; nothing when the descriptor is not registered.
    pub(crate) told: Interest,
    pub(crate) flags: Flags,
}

/// What is true of a link besides its state.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags {
    /// The link stands in the list of changes.
    pub(crate) dirty: bool,
    /// It stands in the list of links with output to write.
    pub(crate) to_flush: bool,
    /// It stands in the list of links with input to go on with.
    pub(crate) to_resume: bool,
    /// The user reads no more for now.
    pub(crate) paused: bool,
    /// It was paused once, and is read in smaller pieces since.
    pub(crate) small_reads: bool,
    /// `kept` holds input that could be handled without reading more.
    pub(crate) backlog: bool,
    /// The peer has ended its half.
    pub(crate) end_received: bool,
    /// Writing failed: output is over, input is read to its end.
    pub(crate) write_failed: bool,
    /// Our half is to be shut down once the queue is empty.
    pub(crate) finished: bool,
    /// Our half was shut down.
    pub(crate) shut: bool,
    /// A timer looks at when something was last received.
    pub(crate) timed: bool,
    /// The host has refused it, and it is to be offered again later.
    pub(crate) refused: bool,
    /// It is counted for its peer's address.
    pub(crate) counted: bool,
    /// The descriptor goes back to the application once the host has been told.
    pub(crate) releasing: bool,
    /// Closing is to be a reset.
    pub(crate) reset: bool,
}

pub(crate) const NO_CONN: u32 = u32::MAX;

impl Link {
    pub(crate) fn new(fd: OwnedFd, role: Role, peer: Option<&Peer>, limits: Rc<Limits>) -> Self {
        Self {
            fd: Some(fd),
            conn: NO_CONN,
            limits,
            role,
            queue: None,
            kept: None,
            received: 0,
            sent: 0,
            phase_timer: TimerId::NONE,
            created: 0,
            site: NO_CONN,
            peer: peer.map_or(CompactPeer::None, CompactPeer::new),
            state: State::Open,
            told: Interest::NONE,
            flags: Flags::default(),
        }
    }

    /// What the host has to watch: the one place where it is decided.
    pub(crate) fn wants(&self) -> Interest {
        let read = match self.state {
            _ if self.flags.releasing || self.flags.refused => return Interest::NONE,
            State::Ended => return Interest::NONE,
            State::Lingering => !self.flags.end_received,
            State::Open | State::Finishing => {
                !self.flags.end_received
                    && !self.flags.paused
                    && !self.flags.backlog
                    && self.role.wants_read()
            }
        };
        let write = !self.flags.write_failed && (self.queued() > 0 || self.role.wants_write());
        match (read, write) {
            (true, true) => Interest::BOTH,
            (true, false) => Interest::READ,
            (false, true) => Interest::WRITE,
            (false, false) => Interest::NONE,
        }
    }

    pub(crate) fn is_registered(&self) -> bool {
        !self.told.is_none()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.len())
    }

    /// Whether nothing more can be sent.
    pub(crate) fn output_over(&self) -> bool {
        self.flags.finished || self.flags.write_failed || self.flags.releasing || self.state != State::Open
    }

    /// Whether it only waits for its last bytes to go out, or for the peer to follow.
    pub(crate) fn is_closing(&self) -> bool {
        self.state != State::Open
            || matches!(&self.role, Role::WebSocket(websocket) if !websocket.closing.may_send())
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer.address()
    }
}

/// An address and port in 16 bytes, since there is one per link; the longer addresses lie elsewhere.
enum CompactPeer {
    None,
    V4(Ipv4Addr, u16),
    V6(Box<SocketAddrV6>),
}

impl CompactPeer {
    fn new(peer: &Peer) -> Self {
        match peer {
            Peer::Unix(_) => Self::None,
            Peer::Inet(SocketAddr::V4(address)) => Self::V4(*address.ip(), address.port()),
            Peer::Inet(SocketAddr::V6(address)) => Self::V6(Box::new(*address)),
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::None => None,
            Self::V4(ip, port) => Some(SocketAddrV4::new(*ip, *port).into()),
            Self::V6(address) => Some((**address).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_peer_gives_back_what_it_was_given() {
        for address in ["127.0.0.1:80", "[::1]:443", "[fe80::1%3]:9", "[::ffff:1.2.3.4]:5"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(CompactPeer::new(&Peer::Inet(address)).address(), Some(address));
        }
        assert_eq!(CompactPeer::new(&Peer::Unix(None)).address(), None);
    }
}
