//! The doors: which connections have not made their first request yet, and which of them gives way where there is no room for
//! a new one.

use super::link::Flags;
use super::store::Key;
use super::timers::Tick;
use super::{Core, NOBODY};
use crate::handler::CloseReason;
use crate::net::Peer;
use crate::role::Role;
use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

/// For so long a connection does not give way while no address has more than one: a crowd of honest clients, each from an
/// address of its own, would otherwise push one another out, come again, and never be served.
const ALONE: Duration = Duration::from_millis(500);
/// How many connections are looked at for one that gives way.
const LOOKS: u32 = 16;
/// How often a connection stays because something of it lay unread. Each time all that had come was read afterwards and was no
/// whole request: whoever sends a byte now and then must not keep everyone else out.
const SPARED: u8 = 4;
/// The log says at most once in so long that connections give way.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// Of one that stands in no line.
const ALONE_IN_LINE: [(u32, u32); 2] = [(NOBODY, NOBODY); 2];

/// Whom a connection is counted for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Source {
    /// A Unix socket, or a socket of unknown origin.
    Local,
    V4(Ipv4Addr),
    /// The first 64 bits: what is behind them is the choice of whoever has the network (RFC 4291, section 2.5.4).
    V6(u64),
}

impl Source {
    fn of(peer: Option<SocketAddr>) -> Self {
        match peer.map(|peer| peer.ip().to_canonical()) {
            None => Self::Local,
            Some(IpAddr::V4(address)) => Self::V4(address),
            Some(IpAddr::V6(address)) => Self::V6((u128::from(address) >> 64) as u64),
        }
    }
}

impl Hash for Source {
    /// One number, since each connection is looked up by it.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(match *self {
            Self::Local => u64::MAX,
            Self::V4(address) => address.to_bits().into(),
            Self::V6(network) => network,
        });
    }
}

/// A connection whose first request, or whose handshake if it is a raw one, is not complete.
struct Waiting {
    source: Source,
    /// The links before and after it in the line of its source, and in the line of all.
    neighbours: [(u32, u32); 2],
    /// When something was last heard of it, also as its place in the order of that.
    since: Tick,
    order: u64,
    /// How much had been read of it when more was last found unread.
    read: u64,
    spared: u8,
}

/// Connections in the order of their silence, by their links: who has been silent longest comes first.
#[derive(Clone, Copy)]
struct Line {
    first: u32,
    last: u32,
}

impl Line {
    const EMPTY: Self = Self { first: NOBODY, last: NOBODY };

    /// Puts a connection at the end, and says behind which.
    fn append(&mut self, link: u32) -> u32 {
        if self.first == NOBODY {
            self.first = link;
        }
        std::mem::replace(&mut self.last, link)
    }

    /// Closes the gap that a connection between these two has left.
    fn close(&mut self, before: u32, after: u32) {
        if before == NOBODY {
            self.first = after;
        }
        if after == NOBODY {
            self.last = before;
        }
    }
}

/// Which of its two lines is meant.
#[derive(Clone, Copy)]
enum Of {
    Source,
    All,
}

/// The connections of one source.
struct Crowd {
    size: usize,
    /// The place in the order of silence of the first in its line.
    first: u64,
    line: Line,
}

impl Crowd {
    fn rank(&self, source: Source) -> Rank {
        (self.size, Reverse(self.first), source)
    }
}

/// Where a source stands among the others: the one of which a connection gives way comes last.
type Rank = (usize, Reverse<u64>, Source);

/// All connections that wait for their first request.
///
/// One that is alone of its source takes constant time, since most are alone while nobody floods. The others take logarithmic
/// time. Memory is in proportion to their number.
pub(crate) struct Doors {
    /// By their links.
    waiting: HashMap<u32, Waiting, BuildHasherDefault<OfLink>>,
    crowds: HashMap<Source, Crowd>,
    all: Line,
    /// The sources that have more than one, by how many; of those that have as many, the last has the connection that has been
    /// silent longest.
    by_size: BTreeSet<Rank>,
    /// The last place in the order of silence.
    last: u64,
    /// How many have given way since the log said so.
    untold: u64,
    told: Option<Tick>,
}

/// Hashes the place of a link, which no peer has a say in.
#[derive(Default)]
struct OfLink(u64);

impl Hasher for OfLink {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, place: u32) {
        // The high bits are the table's tags, the low ones its buckets: both are to differ.
        self.0 = (self.0 ^ u64::from(place)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

impl Doors {
    pub(super) fn new() -> Self {
        Self {
            waiting: HashMap::default(),
            crowds: HashMap::new(),
            all: Line::EMPTY,
            by_size: BTreeSet::new(),
            last: 0,
            untold: 0,
            told: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn join(&mut self, link: u32, peer: Option<SocketAddr>, now: Tick) {
        let source = Source::of(peer);
        self.append(
            link,
            Waiting { source, neighbours: ALONE_IN_LINE, since: now, order: 0, read: u64::MAX, spared: 0 },
        );
    }

    fn leave(&mut self, link: u32) -> bool {
        self.detach(link).is_some()
    }

    /// Something was heard of a connection: nobody has been silent for a shorter time.
    fn heard(&mut self, link: u32, now: Tick) {
        if self.all.last == link {
            if let Some(waiting) = self.waiting.get_mut(&link) {
                waiting.since = now;
            }
        } else if let Some(waiting) = self.detach(link) {
            self.append(link, Waiting { since: now, ..waiting });
        }
    }

    /// Puts a connection at the end of both its lines.
    fn append(&mut self, link: u32, mut waiting: Waiting) {
        self.last += 1;
        waiting.order = self.last;
        let source = waiting.source;
        let crowd =
            self.crowds.entry(source).or_insert(Crowd { size: 0, first: self.last, line: Line::EMPTY });
        if crowd.size > 1 {
            self.by_size.remove(&crowd.rank(source));
        }
        crowd.size += 1;
        if crowd.size > 1 {
            self.by_size.insert(crowd.rank(source));
        }
        let before = [crowd.line.append(link), self.all.append(link)];
        self.set_after(Of::Source, before[0], link);
        self.set_after(Of::All, before[1], link);
        waiting.neighbours = before.map(|before| (before, NOBODY));
        self.waiting.insert(link, waiting);
    }

    /// Takes a connection out of both its lines.
    fn detach(&mut self, link: u32) -> Option<Waiting> {
        let waiting = self.waiting.remove(&link)?;
        let [(before, after), (before_all, after_all)] = waiting.neighbours;
        self.set_after(Of::Source, before, after);
        self.set_before(Of::Source, after, before);
        self.set_after(Of::All, before_all, after_all);
        self.set_before(Of::All, after_all, before_all);
        self.all.close(before_all, after_all);
        if let Entry::Occupied(mut entry) = self.crowds.entry(waiting.source) {
            let crowd = entry.get_mut();
            if crowd.size > 1 {
                self.by_size.remove(&crowd.rank(waiting.source));
            }
            crowd.size -= 1;
            crowd.line.close(before, after);
            if let Some(first) = self.waiting.get(&crowd.line.first) {
                crowd.first = first.order;
            }
            match crowd.size {
                0 => drop(entry.remove()),
                1 => {}
                _ => drop(self.by_size.insert(crowd.rank(waiting.source))),
            }
        }
        Some(waiting)
    }

    fn set_after(&mut self, of: Of, link: u32, after: u32) {
        if link != NOBODY
            && let Some(waiting) = self.waiting.get_mut(&link)
        {
            waiting.neighbours[of as usize].1 = after;
        }
    }

    fn set_before(&mut self, of: Of, link: u32, before: u32) {
        if link != NOBODY
            && let Some(waiting) = self.waiting.get_mut(&link)
        {
            waiting.neighbours[of as usize].0 = before;
        }
    }

    /// The link whose turn it is to give way, unless something of it lies unread: of the source that has most connections, the
    /// one that has been silent longest.
    fn first(&self, now: Tick) -> Option<u32> {
        if let Some((.., source)) = self.by_size.last() {
            return self.crowds.get(source).map(|crowd| crowd.line.first);
        }
        let since = self.waiting.get(&self.all.first)?.since;
        (now.since(since) >= ALONE).then_some(self.all.first)
    }

    /// Notes that something of a connection lies unread, of which so much has been read by now, and says whether it stays for
    /// the sake of that.
    fn spare(&mut self, link: u32, read: u64) -> bool {
        let Some(waiting) = self.waiting.get_mut(&link) else { return true };
        if std::mem::replace(&mut waiting.read, read) != read {
            waiting.spared += 1;
        }
        waiting.spared <= SPARED
    }
}

/// Whether there is room for a connection that waits to be accepted.
pub(crate) enum Room {
    Free,
    /// This one gives way as soon as the new one is there.
    By(Key),
    /// There is some once the host has been told, or what lies unread has been read.
    Soon,
    None,
}

impl Core {
    /// A connection whose first request is to come, or whose handshake if it is a raw one, is there.
    pub(crate) fn join_handshakes(&mut self, index: u32) {
        let now = self.now();
        let peer = self.link(index).peer();
        self.doors.join(index, peer, now);
    }

    /// The connection's first request, or its handshake if it is a raw one, is complete, or never will be.
    pub(crate) fn left_handshake(&mut self, index: u32) {
        let link = self.links.at_mut(index).expect("the caller found it");
        let counted = match &mut link.role {
            Role::Http(server) => std::mem::take(&mut server.first),
            Role::Raw => self.conns.at_mut(link.conn).is_some_and(|conn| std::mem::take(&mut conn.counted)),
            _ => false,
        };
        if counted {
            self.doors.leave(index);
            self.accept_again();
        }
    }

    /// Something was read of a link: if its handshake is under way, it has not been silent.
    pub(super) fn heard_in_handshake(&mut self, index: u32) {
        let link = self.link(index);
        let in_handshake = match &link.role {
            Role::Http(server) => server.first,
            Role::Raw => link.tls.as_ref().is_some_and(|tls| !tls.is_secured()),
            _ => false,
        };
        if in_handshake {
            let now = self.now();
            self.doors.heard(index, now);
        }
    }

    /// Whether a listener may accept one more connection, and at whose cost.
    pub(crate) fn room_for(&mut self, listener: u32) -> Room {
        let link = self.link(listener);
        let handshakes = matches!(&link.role, Role::Listener(listener) if listener.has_handshakes());
        if self.links.len() >= self.max_links {
            return self.room_for_link(listener);
        }
        if handshakes && self.doors.len() >= self.max_handshakes {
            return self.who_gives_way();
        }
        Room::Free
    }

    /// There are as many links as there may be. One that gives way leaves its descriptor with the next `prepare` and not before.
    fn room_for_link(&mut self, listener: u32) -> Room {
        if self.links.len() - self.ended_links < self.max_links {
            return Room::Soon;
        }
        // Readiness may be reported in vain, and nobody is to give way to nobody.
        if !self.is_readable(listener) {
            return Room::Soon;
        }
        for made in 0..self.burst(listener) {
            match self.who_gives_way() {
                Room::By(key) => self.give_way(key),
                room if made == 0 => return room,
                _ => break,
            }
        }
        Room::Soon
    }

    /// Looks for the connection that gives way to a new one.
    fn who_gives_way(&mut self) -> Room {
        let now = self.now();
        let mut room = Room::None;
        for _ in 0..LOOKS {
            let Some(index) = self.doors.first(now) else { break };
            let Some(key) = self.links.key_at(index).filter(|_| self.is_silent(index)) else {
                // What is watched, or waits here for its turn, is read in this turn or the next. What is paused is not.
                if !self.link(index).flags.contains(Flags::PAUSED) {
                    room = Room::Soon;
                }
                self.doors.heard(index, now);
                continue;
            };
            return Room::By(key);
        }
        room
    }

    /// Whether a connection has nothing to say: nothing of it waits for its turn here or lies unread in its socket, or has done
    /// so too often.
    fn is_silent(&mut self, index: u32) -> bool {
        let link = self.link(index);
        if link.flags.intersects(Flags::TO_RESUME.union(Flags::BACKLOG)) {
            return false;
        }
        let read = link.received;
        !self.is_readable(index) || !self.doors.spare(index, read)
    }

    /// Whether the socket of a link has something for it, by a look that takes nothing.
    fn is_readable(&mut self, index: u32) -> bool {
        let fd = self.links.at(index).and_then(|(_, link)| link.fd.as_ref());
        fd.is_some_and(|fd| self.net.is_readable(fd.as_fd()))
    }

    /// A connection has been accepted and counted. If that is one too many, another gives way: `found`, which was looked for
    /// before, or one of the new one's own address if that has most by now.
    pub(crate) fn make_way(&mut self, found: Option<Key>) {
        if self.doors.len() <= self.max_handshakes {
            return;
        }
        let now = self.now();
        let first = self.doors.first(now).and_then(|index| self.links.key_at(index));
        let silent = first.filter(|key| Some(*key) == found || self.is_silent(key.index));
        if let Some(key) = silent.or(found) {
            self.give_way(key);
        }
    }

    /// Ends a connection in favour of a new one, by a reset: nothing of it stays behind in the system.
    fn give_way(&mut self, key: Key) {
        let Some(link) = self.links.get(key) else { return };
        let peer = link.peer().map_or(Peer::Unix(None), Peer::Inet);
        log::debug!(target: "lodger::net", "a connection that made no request gives way to a new one: {peer}");
        let now = self.now();
        self.doors.untold += 1;
        if self.doors.told.is_none_or(|told| now.since(told) >= WARN_AGAIN) {
            let count = std::mem::take(&mut self.doors.untold);
            self.doors.told = Some(now);
            log::warn!(target: "lodger::net", "connections that made no request have given way to new ones: {count}, the last of {peer}");
        }
        self.abort(key.index, CloseReason::GaveWay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn whoever_is_first_is_the_one_silent_longest_of_the_source_with_most() {
        let mut doors = Doors::new();
        // Link, source and order of silence, as a plain list.
        let mut model: Vec<(u32, SocketAddr)> = Vec::new();
        let mut state = 1_u64;
        let mut next = |end: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % end
        };
        for step in 0..5_000_u32 {
            match next(4) {
                0 => {
                    let peer = SocketAddr::new(IpAddr::from([10, 0, 0, next(7) as u8]), next(9) as u16);
                    doors.join(step, Some(peer), at(0));
                    model.push((step, peer));
                }
                1 if !model.is_empty() => {
                    let (link, _) = model.remove(next(model.len()));
                    assert!(doors.leave(link) && !doors.leave(link));
                }
                2 if !model.is_empty() => {
                    let moved = model.remove(next(model.len()));
                    model.push(moved);
                    doors.heard(moved.0, at(0));
                }
                _ => {}
            }
            let size = |peer: &SocketAddr| model.iter().filter(|(_, other)| other.ip() == peer.ip()).count();
            let most = model.iter().map(|(_, peer)| size(peer)).max();
            let first = model.iter().find(|(_, peer)| Some(size(peer)) == most).map(|&(link, _)| link);
            assert_eq!(doors.first(at(1)), first, "step {step}");
            assert_eq!(doors.len(), model.len());
        }
        for (link, _) in model {
            doors.leave(link);
        }
        assert!(doors.waiting.is_empty() && doors.crowds.is_empty() && doors.by_size.is_empty());
    }

    #[test]
    fn a_network_has_one_source_and_an_address_one_in_either_form() {
        let of = |text: &str| Source::of(Some(SocketAddr::new(text.parse().unwrap(), 1)));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_ne!(of("::"), Source::of(None));
    }

    #[test]
    fn it_stays_for_what_lies_unread_until_that_has_saved_it_often() {
        let mut doors = Doors::new();
        doors.join(1, None, at(0));
        for read in 0..u64::from(SPARED) {
            // It is looked at again before it was read: that is not its fault.
            assert!(doors.spare(1, read) && doors.spare(1, read));
        }
        assert!(!doors.spare(1, 100));
    }
}
