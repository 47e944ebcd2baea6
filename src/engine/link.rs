//! One socket: its transport, its role, its buffers and its timers.

use super::buffer::{Kept, Queue};
use super::entrances::NOBODY_TOLD;
use super::timers::{Tick, TimerId};
use crate::host::Interest;
use crate::limits::Limits;
use crate::net::{self, Net, Peer};
use crate::role::Role;
use crate::transport::Tls;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
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
    /// What lies between the bytes of the role and the socket, if anything does.
    pub(crate) tls: Option<Box<Tls>>,
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

/// What reading a link gave.
pub(crate) enum Filled {
    /// So many bytes stand at the front of the buffer, what was kept first; never none.
    Bytes(usize),
    Nothing,
    End,
    Failed(io::Error),
}

bitflags::bitflags! {
    /// What is true of a link besides its state.
    #[derive(Clone, Copy, Eq, PartialEq)]
    pub(crate) struct Flags: u16 {
        /// The link stands in the list of changes.
        const DIRTY = 1;
        /// It stands in the list of links with output to write.
        const TO_FLUSH = 1 << 1;
        /// It stands in the list of links with input to go on with.
        const TO_RESUME = 1 << 2;
        /// The user reads no more for now.
        const PAUSED = 1 << 3;
        /// It was paused once, and is read in smaller pieces since.
        const SMALL_READS = 1 << 4;
        /// `kept` holds input that could be handled without reading more.
        const BACKLOG = 1 << 5;
        /// The peer has ended its half.
        const END_RECEIVED = 1 << 6;
        /// Writing failed: output is over, input is read to its end.
        const WRITE_FAILED = 1 << 7;
        /// Our half is to be shut down once the queue is empty.
        const FINISHED = 1 << 8;
        /// Our half was shut down.
        const SHUT = 1 << 9;
        /// A timer looks at when something was last received.
        const TIMED = 1 << 10;
        /// The host has refused it, and it is to be offered again later.
        const REFUSED = 1 << 11;
        /// It is counted for its peer's address.
        const COUNTED = 1 << 12;
        /// The descriptor goes back to the application once the host has been told.
        const RELEASING = 1 << 13;
        /// Closing is to be a reset.
        const RESET = 1 << 14;
        /// There is a transport between its bytes and the socket.
        const SECURE = 1 << 15;
    }
}

impl Flags {
    /// Sets `flag` and says whether it was set before.
    pub(crate) fn raise(&mut self, flag: Self) -> bool {
        let before = self.contains(flag);
        self.insert(flag);
        before
    }

    /// Clears `flag` and says whether it was set before.
    pub(crate) fn lower(&mut self, flag: Self) -> bool {
        let before = self.contains(flag);
        self.remove(flag);
        before
    }
}

pub(crate) const NO_CONN: u32 = u32::MAX;

impl Link {
    pub(crate) fn new(fd: OwnedFd, role: Role, peer: Option<&Peer>, limits: Rc<Limits>) -> Self {
        Self {
            fd: Some(fd),
            conn: NO_CONN,
            limits,
            role,
            tls: None,
            queue: None,
            kept: None,
            received: 0,
            sent: 0,
            phase_timer: TimerId::NONE,
            created: 0,
            site: NO_CONN,
            peer: peer.map_or(CompactPeer::None(NOBODY_TOLD), CompactPeer::new),
            state: State::Open,
            told: Interest::NONE,
            flags: Flags::empty(),
        }
    }

    /// Reads once.
    // Always: the hot path reads here, and there are several copies of that.
    #[inline(always)]
    pub(crate) fn read(&mut self, net: &Net, buffer: &mut [u8]) -> Filled {
        let Some(fd) = &self.fd else { return Filled::Nothing };
        match net.read(fd.as_fd(), buffer) {
            Ok(0) => {
                self.flags.insert(Flags::END_RECEIVED);
                Filled::End
            }
            Ok(read) => {
                self.received += read as u64;
                Filled::Bytes(read)
            }
            Err(error) if net::would_block(&error) => Filled::Nothing,
            Err(error) => Filled::Failed(error),
        }
    }

    /// Whether it is an open WebSocket from which a message may come, nothing of which waits.
    #[inline]
    pub(crate) fn is_plain_websocket(&self) -> bool {
        const NOT_PLAIN: Flags = Flags::PAUSED
            .union(Flags::BACKLOG)
            .union(Flags::SMALL_READS)
            .union(Flags::END_RECEIVED)
            .union(Flags::RELEASING)
            .union(Flags::SECURE);
        let plain = self.state == State::Open && !self.flags.intersects(NOT_PLAIN) && self.kept.is_none();
        plain && matches!(&self.role, Role::WebSocket(websocket) if websocket.closing.may_send())
    }

    /// From now on its bytes go through a transport.
    pub(crate) fn secure(&mut self, tls: Tls) {
        self.tls = Some(Box::new(tls));
        self.flags.insert(Flags::SECURE);
    }

    /// What the host has to watch: the one place where it is decided.
    #[inline]
    pub(crate) fn wants(&self) -> Interest {
        const NOTHING: Flags = Flags::RELEASING.union(Flags::REFUSED);
        const NO_INPUT: Flags = Flags::END_RECEIVED.union(Flags::PAUSED).union(Flags::BACKLOG);
        if self.flags.intersects(NOTHING) {
            return Interest::NONE;
        }
        let read = match self.state {
            State::Ended => return Interest::NONE,
            State::Lingering => !self.flags.contains(Flags::END_RECEIVED),
            State::Open | State::Finishing => !self.flags.intersects(NO_INPUT) && self.role.wants_read(),
        };
        let write =
            !self.flags.contains(Flags::WRITE_FAILED) && (self.queue.is_some() || self.role.wants_write());
        match (read, write) {
            (true, true) => Interest::BOTH,
            (true, false) => Interest::READ,
            (false, true) => Interest::WRITE,
            (false, false) => Interest::NONE,
        }
    }

    /// Whether the host has to be told something of it, or it has to be let go, and does not stand in the list for that.
    #[inline]
    pub(crate) fn has_changed(&self) -> bool {
        !self.flags.contains(Flags::DIRTY)
            && (self.wants() != self.told || self.may_go() || self.flags.contains(Flags::RELEASING))
    }

    /// Whether it is over, and its number may be closed: whoever is to hear of the end has heard of it.
    #[inline]
    pub(crate) fn may_go(&self) -> bool {
        self.state == State::Ended && (self.fd.is_none() || !self.is_watched())
    }

    /// Whether the protocol of a listener has been told of its beginning, and not of its end.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.entrance() != NOBODY_TOLD
    }

    /// By which entrance it came in, if its protocol is to be told of its end.
    #[inline]
    pub(crate) fn entrance(&self) -> u16 {
        match self.peer {
            CompactPeer::None(entrance) | CompactPeer::V4(_, _, entrance) | CompactPeer::V6(_, entrance) => {
                entrance
            }
        }
    }

    pub(crate) fn set_entrance(&mut self, number: u16) {
        match &mut self.peer {
            CompactPeer::None(entrance) | CompactPeer::V4(_, _, entrance) | CompactPeer::V6(_, entrance) => {
                *entrance = number
            }
        }
    }

    /// Whether it is a connection that is only read, as the host knows, and nothing of it waits.
    #[inline(always)]
    pub(crate) fn is_settled(&self) -> bool {
        const WAITING: Flags = Flags::RELEASING
            .union(Flags::REFUSED)
            .union(Flags::END_RECEIVED)
            .union(Flags::PAUSED)
            .union(Flags::BACKLOG)
            .union(Flags::FINISHED);
        self.state == State::Open
            && !self.flags.intersects(WAITING)
            && self.queue.is_none()
            && self.told == Interest::READ
            && self.role.is_stream()
    }

    pub(crate) fn is_registered(&self) -> bool {
        !self.told.is_none()
    }

    /// Bytes that wait to be sent: as they lie in the queue, and those that wait for the end of the handshake.
    pub(crate) fn queued(&self) -> usize {
        let queue = self.queue.as_ref().map_or(0, |queue| queue.len());
        queue + self.tls.as_ref().map_or(0, |tls| tls.waiting())
    }

    /// Whether no more may be queued: what waits, with the memory that it takes, is over its limit.
    #[inline]
    pub(crate) fn is_over_send_max(&self) -> bool {
        self.queued() + self.queue.as_ref().map_or(0, |queue| queue.beside()) > self.limits.send_max
    }

    /// Whether nothing more can be sent.
    #[inline]
    pub(crate) fn output_over(&self) -> bool {
        const OVER: Flags = Flags::FINISHED.union(Flags::WRITE_FAILED).union(Flags::RELEASING);
        self.flags.intersects(OVER) || self.state != State::Open
    }

    /// Whether it only waits for its last bytes to go out, or for the peer to follow.
    pub(crate) fn is_closing(&self) -> bool {
        self.state != State::Open
            || matches!(&self.role, Role::WebSocket(websocket) if !websocket.closing.may_send())
    }

    /// Whether somebody looks at when something was last received: a timer, or what is waited for has its time as a whole.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.flags.contains(Flags::TIMED) || self.role.awaits_head() || self.is_handshaking()
    }

    /// Whether something has come since `due` of a head, or of a handshake that comes before one.
    pub(crate) fn heard_since(&self, due: Tick) -> bool {
        self.role.last_active().is_some_and(|active| active >= due)
    }

    /// Whether it has a transport whose handshake is not complete.
    #[inline]
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.is_secured())
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer.address()
    }
}

/// An address and port in 16 bytes, since there is one per link; the longer addresses lie elsewhere. The last number is the link's
/// entrance, in bytes that nothing else would fill.
enum CompactPeer {
    None(u16),
    V4(Ipv4Addr, u16, u16),
    V6(Box<SocketAddrV6>, u16),
}

impl CompactPeer {
    fn new(peer: &Peer) -> Self {
        match peer {
            Peer::Unix(_) => Self::None(NOBODY_TOLD),
            Peer::Inet(SocketAddr::V4(address)) => Self::V4(*address.ip(), address.port(), NOBODY_TOLD),
            Peer::Inet(SocketAddr::V6(address)) => Self::V6(Box::new(*address), NOBODY_TOLD),
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::None(_) => None,
            Self::V4(ip, port, _) => Some(SocketAddrV4::new(*ip, *port).into()),
            Self::V6(address, _) => Some((**address).into()),
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
        assert_eq!(size_of::<CompactPeer>(), 16);
    }
}
