//! By which listener an accepted connection came in, and to whom its end is to be told.

use super::Core;
use super::link::{Link, State};
use super::store::Key;
use crate::handler::{CloseReason, Connection, ConnectionEnd};
use crate::ids::ListenerId;
use crate::net::Peer;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, RawFd};

/// The number that says that nobody is told of a link. A link's own is kept beside its peer's address.
pub(crate) const NOBODY_TOLD: u16 = 0;

/// A listener, and the site whose first protocol is told of what it accepts.
struct Entrance {
    listener: Key,
    site: Key,
    /// Links that came in by it, and the listener while it is the listener's current one.
    users: u32,
}

/// What the protocols of listeners are told of connections.
#[derive(Default)]
pub(crate) struct Entrances {
    /// By their numbers less one. An entry without users is free.
    all: Vec<Entrance>,
    /// Why links will have ended, where that is known before the end. Few links fail before they end.
    reasons: HashMap<u32, ConnectionEnd>,
    /// Connections that have ended, and whose ends are to be told.
    ended: VecDeque<EndedConnection>,
    /// Those whose descriptors go to the application: told before that gets them, since it may close them at once.
    released: VecDeque<EndedConnection>,
}

/// The end of a connection, to be told to the first protocol of `site`.
pub(crate) struct EndedConnection {
    pub(crate) link: Key,
    pub(crate) site: Key,
    pub(crate) connection: Connection,
    pub(crate) reason: ConnectionEnd,
}

impl Entrances {
    /// Whether there is an end to be told.
    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty() || !self.released.is_empty()
    }

    /// The number of the entrance that `listener` is for `site`, with one more user. `NOBODY_TOLD` when every number is in use.
    fn enter(&mut self, listener: Key, site: Key) -> u16 {
        let known = |entrance: &Entrance| {
            entrance.users > 0 && entrance.listener == listener && entrance.site == site
        };
        let place = self.all.iter().position(known).or_else(|| {
            let free = self.all.iter().position(|entrance| entrance.users == 0);
            let place = free.unwrap_or(self.all.len());
            let entrance = Entrance { listener, site, users: 0 };
            match self.all.get_mut(place) {
                Some(freed) => *freed = entrance,
                None if place < usize::from(u16::MAX) => self.all.push(entrance),
                None => return None,
            }
            Some(place)
        });
        let Some(place) = place else { return NOBODY_TOLD };
        self.all[place].users += 1;
        place as u16 + 1
    }

    fn take_reason(&mut self, index: u32) -> Option<ConnectionEnd> {
        // Nearly always there is none at all, and to look for one costs some two hundred instructions.
        if self.reasons.is_empty() { None } else { self.reasons.remove(&index) }
    }

    fn at(&mut self, number: u16) -> Option<&mut Entrance> {
        self.all.get_mut(usize::from(number).checked_sub(1)?)
    }

    fn leave(&mut self, number: u16) {
        if let Some(entrance) = self.at(number) {
            entrance.users -= 1;
        }
    }
}

impl Core {
    /// A listener's link came in by it: its end will be told. Returns what its beginning is told with.
    pub(crate) fn connection_begins(&mut self, index: u32, listener: Key, site: Key) -> Option<Connection> {
        let link = self.links.at_mut(index)?;
        let connection = Connection {
            fd: link.fd.as_ref()?.as_raw_fd(),
            peer: link.peer().map_or(Peer::Unix(None), Peer::Inet),
            listener: ListenerId(self.origin.id(listener)),
        };
        link.set_entrance(self.entrances.enter(listener, site));
        link.is_watched().then_some(connection)
    }

    /// Notes why a connection will have ended, when its link has failed and still has something to do. What is said first stands.
    pub(crate) fn note_end(&mut self, index: u32, reason: &CloseReason) {
        if self.links.at(index).is_some_and(|(_, link)| link.is_watched() && link.state != State::Ended) {
            self.entrances.reasons.entry(index).or_insert_with(|| reason.of_connection());
        }
    }

    /// A link has ended for `reason`, unless its conn or the link itself knows a better one. Its end is told by this service call, or
    /// by the next; until then its number is not closed.
    pub(super) fn connection_ends(&mut self, index: u32, reason: &CloseReason) {
        let noted = self.entrances.take_reason(index);
        let Some(link) = self.links.key_at(index) else { return };
        let facts = self.link(index);
        let (conn, peer) = (facts.conn, facts.peer().map_or(Peer::Unix(None), Peer::Inet));
        let (number, fd) = (facts.entrance(), descriptor_of(facts, reason));
        let (Some(entrance), Some(fd)) = (self.entrances.at(number), fd) else { return };
        let (site, listener) = (entrance.site, ListenerId(self.origin.id(entrance.listener)));
        let of_conn = self.conns.at(conn).and_then(|(_, conn)| conn.cold.as_ref()?.reason.as_ref());
        let reason = noted.unwrap_or_else(|| of_conn.unwrap_or(reason).of_connection());
        let connection = Connection { fd, peer, listener };
        let queue = match reason {
            ConnectionEnd::Closed(_) => &mut self.entrances.ended,
            ConnectionEnd::Released => &mut self.entrances.released,
        };
        queue.push_back(EndedConnection { link, site, connection, reason });
        self.work = true;
    }

    /// The next end of a connection that is to be told before the conns' own ends.
    pub(crate) fn take_released_connection(&mut self) -> Option<EndedConnection> {
        self.entrances.released.pop_front()
    }

    /// The next end of a connection that is to be told behind the conns' own ends. From here on its number may be closed.
    pub(crate) fn take_ended_connection(&mut self) -> Option<EndedConnection> {
        let ended = self.entrances.ended.pop_front()?;
        if let Some(link) = self.links.get_mut(ended.link) {
            let entrance = link.entrance();
            link.set_entrance(NOBODY_TOLD);
            self.entrances.leave(entrance);
            self.mark(ended.link.index);
        }
        Some(ended)
    }

    /// A link is gone.
    pub(super) fn left_entrance(&mut self, index: u32, link: &Link) {
        self.entrances.leave(link.entrance());
        self.entrances.take_reason(index);
    }
}

/// The number of a link's descriptor, which may be on its way to the application.
fn descriptor_of(link: &Link, reason: &CloseReason) -> Option<RawFd> {
    match (&link.fd, reason) {
        (Some(fd), _) => Some(fd.as_raw_fd()),
        (None, CloseReason::Released { descriptor, .. }) => Some(descriptor.as_raw_fd()),
        (None, _) => None,
    }
}
