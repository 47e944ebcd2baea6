//! The engine: links, conns and their timers, what is queued for them, and the list of what the host has to be told. It
//! calls neither handlers nor the host.

pub(crate) mod buffer;
pub(crate) mod changes;
pub(crate) mod conn;
pub(crate) mod connect;
mod doors;
mod ending;
mod entrances;
mod flow;
pub(crate) mod link;
mod looking;
mod secure;
mod shares;
mod sites;
pub(crate) mod store;
pub(crate) mod timers;
pub(crate) mod unfinished;

use crate::env::{Env, Randomness, SystemEnv};
use crate::handler::{CloseReason, Closed, Flow, Notice};
use crate::host::Wait;
use crate::http::StatusCode;
use crate::http1::role::error_response;
use crate::ids::{ConnId, Origin};
use crate::memory;
use crate::net::{self, Net, Peer};
use crate::resolve::{Found, LookupId, ResolveError, Resolver};
use crate::role::Role;
use crate::site::Policy;
use crate::transport::TlsError;
use crate::ws::ReceiveError;
use crate::ws::extension::Pools;
use buffer::{Gathered, Kept, Pool};
use conn::{Conn, NO_LINK, NO_PROTOCOL};
use connect::{Asker, Connecting};
use doors::{Doors, Room};
pub(crate) use ending::waits_for;
pub(crate) use entrances::EndedConnection;
use entrances::Entrances;
pub(crate) use link::Filled;
use link::{Flags, Link, NO_CONN, State};
use shares::Shares;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;
use store::{Key, Store};
use timers::{Tick, Timer, TimerId, Timers};
use unfinished::Unfinished;

/// What one call reads at the most, and the size of the receive buffer.
pub(crate) const RECEIVE: usize = 512 * 1024;
/// What is read at once from a link that has paused before.
pub(crate) const SMALL_RECEIVE: usize = 64 * 1024;
/// How much work one call does for one link, in messages of a few bytes: such a message is 1, what costs more or less counts
/// accordingly.
pub(crate) const MESSAGES: u32 = 1024;
/// What a request with its response counts, and what a record of TLS does.
pub(crate) const REQUEST: u32 = 16;
const RECORD: u32 = 4;
/// How much work one call does with what was left of earlier reads, for all links, in messages.
const MESSAGES_PER_CALL: u32 = 16 * 1024;
/// How many links one call serves or writes.
const LINKS_PER_CALL: u32 = 256;
/// How much one call writes for links other than the one it was made for.
const BYTES_PER_CALL: usize = 4 * 1024 * 1024;
/// From this size on a payload is written straight from where it lies.
pub(crate) const DIRECT: usize = 16 * 1024;
/// How many connections one call accepts from one listener at the most.
const ACCEPTS: u8 = 64;
/// For so many calls after one that has looked in vain, a listener does not look for more than it did.
const CALM: u8 = 16;
/// How long after pausing, and after each look, a link that is not read is looked at: seconds, so that a pause of ordinary length
/// wakes nobody, and few, so that a program does not serve for long whom nobody uses any more.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// How long accepting waits for descriptors to come free before it tries again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(250);

pub(crate) const NOBODY: u32 = u32::MAX;
/// In the table of numbers, beside the place of a link that no host has been told of.
const UNANNOUNCED: u32 = 1 << 31;

/// A site as the engine knows it.
pub(crate) struct SiteFacts {
    pub(crate) policy: Policy,
    pub(crate) protocols: Vec<Key>,
    /// Links that live by it.
    pub(crate) links: usize,
    /// Listeners that it has a part in.
    pub(crate) listeners: usize,
    /// No new links; it ends with the last one.
    pub(crate) removed: bool,
    /// When its certificate's age is to be reported again.
    pub(crate) aging: TimerId,
    /// Which of its certificates was reported: how often it had been replaced.
    pub(crate) certificate: u64,
}

#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without TLS none fails"))]
/// A handshake that has failed before there was a conn to say so to.
pub(crate) struct FailedHandshake {
    pub(crate) site: Key,
    pub(crate) peer: Option<std::net::SocketAddr>,
    pub(crate) error: TlsError,
}

/// A protocol as the engine knows it.
pub(crate) struct ProtocolFacts {
    pub(crate) name: String,
    /// The conns that are bound to it, by their places.
    pub(crate) members: Vec<u32>,
}

/// How much a call may still do.
pub(crate) struct Budget {
    links: u32,
    bytes: usize,
    messages: u32,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { links: LINKS_PER_CALL, bytes: BYTES_PER_CALL, messages: MESSAGES_PER_CALL }
    }

    /// Takes one link's share; false when nothing is left.
    pub(crate) fn take(&mut self) -> bool {
        let left = self.is_left();
        self.links -= u32::from(left);
        left
    }

    /// Whether there is a share to take.
    pub(crate) fn is_left(&self) -> bool {
        self.links > 0 && self.may_deliver()
    }

    /// Charges the work that was done for one link, in messages.
    pub(crate) fn delivered(&mut self, messages: u32) {
        self.messages = self.messages.saturating_sub(messages);
    }

    /// Charges what one link has received out of its turn.
    pub(crate) fn received(&mut self, messages: u32, bytes: u64) {
        self.delivered(messages);
        self.bytes = self.bytes.saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Whether a link that has its share may still receive, or write.
    pub(crate) fn may_deliver(&self) -> bool {
        self.bytes > 0 && self.messages > 0
    }
}

/// What accepting has brought.
pub(crate) enum Accepted {
    Socket {
        socket: OwnedFd,
        peer: Peer,
        /// What gives way to it, where there is no room for both.
        gives_way: Option<Key>,
    },
    /// Nothing waits, or there is no room.
    Nothing,
    /// There is going to be room by the next turn.
    Later,
}

pub(crate) struct Core {
    pub(crate) net: Net,
    pub(crate) env: Box<dyn Env>,
    /// Which context its ids are of.
    pub(crate) origin: Origin,
    /// For masking keys.
    pub(crate) randomness: Randomness,
    pub(crate) start: std::time::Instant,
    /// The time of this turn, once it was asked for.
    turn_time: Option<Tick>,
    pub(crate) links: Store<Link>,
    pub(crate) conns: Store<Conn>,
    /// Clients' conns on their way to a link.
    pub(crate) connecting: Store<Connecting>,
    /// Those of them whose time begins with the next turn.
    begun: Vec<Key>,
    pub(crate) resolver: Option<Box<dyn Resolver>>,
    resolver_timer: TimerId,
    /// The resolver's descriptors, by the numbers that it knows them by.
    resolver_links: Vec<(RawFd, Key)>,
    last_lookup: u32,
    pub(crate) lookups: HashMap<LookupId, Asker>,
    /// Answers to what the application has asked.
    pub(crate) answers: VecDeque<(Key, Result<Found, ResolveError>)>,
    /// TLS for clients that have nothing of their own, once it was asked for.
    #[cfg(feature = "tls")]
    pub(crate) default_tls: Option<crate::tls::Client>,
    pub(crate) sites: Store<SiteFacts>,
    pub(crate) protocols: Store<ProtocolFacts>,
    pub(crate) timers: Timers,
    pub(crate) pool: Pool,
    /// What connections with an extension share.
    pub(crate) pools: Pools,
    pub(crate) unfinished: Unfinished,
    /// What links with a transport share.
    buffers: crate::transport::Buffers,
    /// Handshakes that may go on in this turn.
    handshakes_left: u32,
    /// What each link may take of this turn.
    pub(crate) shares: Shares,
    /// The link of each descriptor number, until it is closed; with `UNANNOUNCED` before its `add`, and while the context is
    /// detached.
    pub(crate) fds: Vec<u32>,
    /// Links of which the host may have to be told something.
    pub(crate) changes: Vec<u32>,
    /// The link whose output is gathered in `out`.
    pub(crate) current: u32,
    pub(crate) out: Gathered,
    /// Something happened to the link being served that its frame loop has to look at.
    pub(crate) interrupted: bool,
    /// The conn whose messages may take the short way out: a WebSocket of the link being served, open, without a backlog, and
    /// without a timer that messages concern.
    pub(crate) short: Key,
    /// The handler that runs was not called for what its conn has received: what it sends answers nothing.
    pub(crate) unprompted: bool,
    /// The input of the current link is being handled: whatever it has left to do is looked at before that ends.
    pub(crate) handling: bool,
    /// One of the lists below has an entry.
    pub(crate) work: bool,
    pub(crate) to_flush: VecDeque<Key>,
    pub(crate) to_resume: VecDeque<Key>,
    pub(crate) ended: VecDeque<(Key, Closed)>,
    pub(crate) notices: VecDeque<(Key, Notice)>,
    /// Listeners whose accepting is paused.
    paused_listeners: Vec<Key>,
    accept_timer: TimerId,
    /// Sites without links that were removed: their protocols are to hear that they ended.
    pub(crate) ended_sites: Vec<Key>,
    pub(crate) failed_handshakes: VecDeque<FailedHandshake>,
    /// By which listeners connections came in, and whose ends are to be told.
    pub(crate) entrances: Entrances,
    /// Listeners that the host has refused, and their sites.
    pub(crate) refused_listeners: VecDeque<(Key, Key, io::Error)>,
    pub(crate) max_links: usize,
    pub(crate) max_handshakes: usize,
    pub(crate) max_per_address: Option<usize>,
    /// Accepted connections by address, where they are limited.
    addresses: HashMap<IpAddr, usize>,
    /// Connections whose first request is not complete.
    doors: Doors,
    /// How many links have ended and are there until the host has been told.
    ended_links: usize,
    pub(crate) leaving: bool,
    pub(crate) date_cache: crate::http::DateCache,
}

impl Core {
    pub(crate) fn new(net: Net, mut env: Box<dyn Env>, max_links: usize, max_handshakes: usize) -> Self {
        Self {
            net,
            start: env.now(),
            origin: Origin::draw(&mut *env),
            env,
            randomness: Randomness::new(),
            turn_time: None,
            links: Store::new(),
            conns: Store::new(),
            connecting: Store::new(),
            begun: Vec::new(),
            resolver: None,
            resolver_timer: TimerId::NONE,
            resolver_links: Vec::new(),
            last_lookup: 0,
            lookups: HashMap::new(),
            answers: VecDeque::new(),
            #[cfg(feature = "tls")]
            default_tls: None,
            sites: Store::new(),
            protocols: Store::new(),
            timers: Timers::new(),
            pool: Pool::default(),
            pools: Pools::default(),
            unfinished: Unfinished::new(),
            buffers: crate::transport::Buffers::default(),
            handshakes_left: secure::HANDSHAKES_PER_TURN,
            shares: Shares::new(),
            fds: Vec::new(),
            changes: Vec::new(),
            current: NOBODY,
            out: Gathered::new(),
            interrupted: false,
            short: Key::NONE,
            unprompted: false,
            handling: false,
            work: false,
            to_flush: VecDeque::new(),
            to_resume: VecDeque::new(),
            ended: VecDeque::new(),
            notices: VecDeque::new(),
            paused_listeners: Vec::new(),
            accept_timer: TimerId::NONE,
            ended_sites: Vec::new(),
            failed_handshakes: VecDeque::new(),
            entrances: Entrances::default(),
            refused_listeners: VecDeque::new(),
            max_links,
            max_handshakes,
            max_per_address: None,
            addresses: HashMap::new(),
            doors: Doors::new(),
            ended_links: 0,
            leaving: false,
            date_cache: crate::http::DateCache::new(),
        }
    }

    // Forking.

    /// A forked child goes on with what there is. What it has as a copy, and would use as its parent does, is made anew.
    pub(crate) fn take_over(&mut self) {
        self.randomness = Randomness::new();
        self.turn_ended();
        self.with_resolver(|resolver, hands| resolver.take_over(hands));
    }

    /// Begins anew, as the engine of a context that leaves: nothing is there, nothing is to be done, and nothing comes.
    fn forget_everything(&mut self) {
        let net = std::mem::replace(&mut self.net, Net::System);
        let env = std::mem::replace(&mut self.env, Box::new(SystemEnv));
        *self = Self { leaving: true, ..Self::new(net, env, 0, 0) };
    }

    // Time.

    /// The time of this turn. Read once a turn, when first asked for.
    pub(crate) fn now(&mut self) -> Tick {
        match self.turn_time {
            Some(tick) => tick,
            None => self.read_clock(),
        }
    }

    /// The time, read afresh: what the application times from must not be older than its call.
    pub(crate) fn read_clock(&mut self) -> Tick {
        let tick = Tick::at(self.start, self.env.now());
        self.turn_time = Some(tick);
        tick
    }

    #[inline]
    pub(crate) fn turn_ended(&mut self) {
        self.turn_time = None;
        self.handshakes_left = secure::HANDSHAKES_PER_TURN;
    }

    /// When the context needs to run, given that `busy` says whether the context itself has work.
    pub(crate) fn wait(&mut self, busy: bool) -> Wait {
        if busy || self.has_work() {
            return Wait::NOW;
        }
        let Some(deadline) = self.timers.next().and_then(|tick| tick.instant(self.start)) else {
            return Wait::FOREVER;
        };
        let simulated_now = self.env.is_simulated().then(|| self.env.now());
        Wait::until(deadline, simulated_now)
    }

    /// Whether a list waits for a service call, or for `prepare`.
    pub(crate) fn has_work(&self) -> bool {
        self.work
            && !(self.to_flush.is_empty()
                && self.to_resume.is_empty()
                && self.ended.is_empty()
                && self.notices.is_empty()
                && self.refused_listeners.is_empty()
                && self.failed_handshakes.is_empty()
                && !self.entrances.has_ended()
                && self.answers.is_empty()
                && self.ended_sites.is_empty())
    }

    // Links and conns.

    pub(crate) fn add_link(&mut self, mut link: Link) -> u32 {
        link.created = (self.now().since(Tick::default()).as_secs()) as u32;
        let fd = link.fd.as_ref().map(AsRawFd::as_raw_fd);
        let key = self.links.insert(link);
        if let Some(fd) = fd {
            self.know(fd, key.index | UNANNOUNCED);
        }
        self.mark(key.index);
        key.index
    }

    #[inline]
    pub(crate) fn link(&mut self, index: u32) -> &mut Link {
        self.links.at_mut(index).expect("a link outlives whatever holds its place")
    }

    pub(crate) fn add_conn(&mut self, link: u32) -> Key {
        let key = self.conns.insert(Conn::new(link));
        self.link(link).conn = key.index;
        key
    }

    /// The name of a conn.
    pub(crate) fn conn_id(&self, key: Key) -> ConnId {
        ConnId(self.origin.id(key))
    }

    /// A conn that has not ended.
    pub(crate) fn live(&mut self, key: Key) -> Option<&mut Conn> {
        self.conns.get_mut(key).filter(|conn| !conn.ended)
    }

    /// Notes that the host may have to be told something of a link.
    #[inline]
    pub(crate) fn mark(&mut self, index: u32) {
        let link = self.link(index);
        if link.has_changed() {
            link.flags.insert(Flags::DIRTY);
            self.changes.push(index);
        }
    }

    pub(crate) fn bind(&mut self, conn: Key, protocol: Key) {
        let Some(facts) = self.protocols.get_mut(protocol) else { return };
        let member = facts.members.len() as u32;
        if facts.members.len() == facts.members.capacity() {
            facts.members.reserve_exact(facts.members.len() / 8 + 16);
        }
        facts.members.push(conn.index);
        if let Some(conn) = self.conns.get_mut(conn) {
            (conn.protocol, conn.member) = (protocol.index, member);
        }
    }

    /// The conn at a place among the members of a protocol.
    pub(crate) fn member(&self, protocol: Key, at: usize) -> Option<u32> {
        self.protocols.get(protocol)?.members.get(at).copied()
    }

    fn unbind(&mut self, conn: Key) {
        let Some(conn) = self.conns.get_mut(conn) else { return };
        let (protocol, member) = (std::mem::replace(&mut conn.protocol, NO_PROTOCOL), conn.member);
        let Some(facts) = self.protocols.at_mut(protocol) else { return };
        facts.members.swap_remove(member as usize);
        if let Some(&moved) = facts.members.get(member as usize) {
            self.conns.at_mut(moved).expect("members are conns").member = member;
        }
    }

    /// Decides that a conn has ended; its handler hears `closed` next. The link is not touched.
    pub(crate) fn end_conn(&mut self, index: u32, reason: CloseReason, unsent: usize) {
        let Some((key, _)) = self.conns.at(index) else { return };
        let conn = self.conns.at_mut(index).expect("just found");
        if conn.ended {
            return;
        }
        let connecting = conn.cold.as_ref().and_then(|cold| cold.connecting);
        let step = connecting.map(|key| self.connect_step(key));
        let conn = self.conns.at_mut(index).expect("just found");
        conn.ended = true;
        conn.writable_wanted = false;
        let cold = conn.cold.take();
        let link = std::mem::replace(&mut conn.link, NO_LINK);
        let mut timer = std::mem::replace(&mut conn.timer, TimerId::NONE);
        self.timers.cancel(&mut timer);
        if let Some(link) = self.links.at_mut(link)
            && link.conn == index
        {
            link.conn = NO_CONN;
        }
        self.unbind(key);
        let (mut reason, mut unsent, mut refused) = (reason, unsent, 0);
        if let Some(cold) = cold {
            unsent += cold.lost;
            refused = cold.refused;
            reason = cold.reason.unwrap_or(reason);
            if let Some((key, step)) = cold.connecting.zip(step) {
                reason = self.connect_reason(key, step, reason);
                self.drop_connecting(key);
            }
            if let Some(parent) = cold.parent {
                let child = Notice::ChildClosed(self.conn_id(key));
                self.notice(parent, child);
            }
        }
        if let Some((_, Link { role: Role::WebSocket(websocket), .. })) = self.links.at(link) {
            unsent = unsent.saturating_sub(websocket.goodbye());
        }
        // For this reason a link may only linger from here on. After a complete exchange it goes on.
        if !matches!(reason, CloseReason::Completed) {
            self.note_end(link, &reason);
        }
        self.ended.push_back((key, Closed { reason, unsent, refused }));
        self.work = true;
    }

    /// Ends a link: nothing is read or written any more, its conn hears `closed` with `reason` unless another stands already, and
    /// `prepare` takes it from the host and closes it.
    pub(crate) fn end(&mut self, index: u32, reason: CloseReason) {
        let link = self.link(index);
        if link.state == State::Ended {
            return;
        }
        if link.tls.is_some() {
            self.handshake_may_have_failed(index, &reason);
            if self.is_whole(index, &reason) {
                self.say_end(index);
            }
        }
        self.ended_links += 1;
        if self.link(index).is_watched() {
            self.connection_ends(index, &reason);
        }
        let link = self.link(index);
        link.state = State::Ended;
        let conn = link.conn;
        let mut phase = std::mem::replace(&mut link.phase_timer, TimerId::NONE);
        let kept = link.kept.take();
        let queue = link.queue.take();
        let held = match &link.role {
            Role::WebSocket(websocket) => websocket.held(),
            _ => 0,
        };
        let waiting = link.tls.as_ref().map_or(0, |tls| tls.waiting());
        let mut unsent = held + waiting + self.drop_queue(queue);
        if let Some(kept) = kept {
            self.pool.give(kept.bytes);
        }
        if self.current == index {
            unsent += self.out.len();
            self.out.clear();
        }
        self.interrupt(index);
        self.timers.cancel(&mut phase);
        self.left_handshake(index);
        self.take_back_offer(index);
        self.forget_message(index);
        match &self.link(index).role {
            Role::Connecting(key) => {
                let key = *key;
                self.attempt_ended(key, index, reason);
            }
            _ if conn != NO_CONN => self.end_conn(conn, reason, unsent),
            _ => {}
        }
        self.mark(index);
    }

    /// How many bytes that were accepted for sending on a link wait, or are lost.
    pub(crate) fn unsent(&self, index: u32) -> usize {
        let Some((_, link)) = self.links.at(index) else { return 0 };
        let held = match &link.role {
            Role::WebSocket(websocket) => websocket.held(),
            _ => 0,
        };
        let gathered = if self.current == index { self.out.len() } else { 0 };
        let lost =
            self.conns.at(link.conn).and_then(|(_, conn)| conn.cold.as_ref()).map_or(0, |cold| cold.lost);
        held + link.queued() + gathered + lost
    }

    /// Ends a link with a reset, what is queued is dropped.
    pub(crate) fn abort(&mut self, index: u32, reason: CloseReason) {
        self.link(index).flags.insert(Flags::RESET);
        self.end(index, reason);
    }

    pub(crate) fn notice(&mut self, conn: Key, notice: Notice) {
        if let Some(conn) = self.conns.get_mut(conn).filter(|conn| conn.unopened) {
            conn.cold().held.push(notice);
            return;
        }
        self.notices.push_back((conn, notice));
        self.work = true;
    }

    // Timers of links.

    /// Sets the timer of the phase that the link is in.
    pub(crate) fn arm_phase(&mut self, index: u32, delay: Duration) {
        let at = self.now().after(delay);
        self.arm_phase_at(index, at);
    }

    pub(crate) fn arm_phase_at(&mut self, index: u32, at: Tick) {
        self.cancel_phase(index);
        if let Some(key) = self.links.key_at(index) {
            self.link(index).phase_timer = self.timers.arm(at, Timer::Phase(key));
        }
    }

    pub(crate) fn cancel_phase(&mut self, index: u32) {
        let mut timer = std::mem::replace(&mut self.link(index).phase_timer, TimerId::NONE);
        self.timers.cancel(&mut timer);
    }

    /// The stall timer has run out: how a link stands whose queue has not moved.
    pub(crate) fn stalled(&mut self, index: u32) -> bool {
        let now = self.now();
        let link = self.link(index);
        let Some(queue) = &mut link.queue else { return false };
        queue.stall_timer = TimerId::NONE;
        let due = queue.moved.after(link.limits.write_stall);
        if due > now {
            self.arm_stall(index, due);
            return false;
        }
        true
    }

    fn arm_stall(&mut self, index: u32, at: Tick) {
        let Some(key) = self.links.key_at(index) else { return };
        let queue = self.links.get_mut(key).and_then(|link| link.queue.as_mut());
        if let Some(queue) = queue.filter(|queue| queue.stall_timer.is_none()) {
            queue.stall_timer = self.timers.arm(at, Timer::Stall(key));
        }
    }

    /// Lets go of a queue, with its timer, and says how many bytes were in it.
    fn drop_queue(&mut self, queue: Option<Box<buffer::Queue>>) -> usize {
        let Some(mut queue) = queue else { return 0 };
        let bytes = queue.len();
        self.timers.cancel(&mut queue.stall_timer);
        self.pool.give_queue(queue);
        bytes
    }

    // Input.

    /// Notes what a link has taken of this turn, in bytes that were read and in messages: those that take much share what there is.
    #[inline(never)]
    pub(crate) fn took(&mut self, index: u32, bytes: usize, messages: u32) {
        // The next call has to count them.
        self.work |= self.shares.took(index, bytes, messages);
    }

    /// Reads a link once, behind what it has kept.
    pub(crate) fn fill(&mut self, index: u32, buffer: &mut Vec<u8>) -> Filled {
        let link = self.links.at_mut(index).expect("the link being served is there");
        let start = link.kept.as_ref().map_or(0, |kept| kept.len());
        let front = link.tls.as_ref().map_or(0, |tls| tls.kept().len());
        let small = SMALL_RECEIVE + front;
        let before = link.received;
        if buffer.len() < start + small {
            let more = start + RECEIVE - buffer.len();
            if memory::reserve_exact(buffer, more).is_err() {
                self.out_of_memory(index);
                return Filled::Nothing;
            }
            buffer.resize(start + RECEIVE, 0);
        }
        if let Some(kept) = link.kept.take() {
            buffer[..start].copy_from_slice(kept.rest());
            self.pool.give(kept.bytes);
        }
        // What cannot be used before a response is given is kept: little of it is read.
        let between = matches!(&link.role, Role::Http(server) if !server.is_receiving());
        let room = if link.flags.contains(Flags::SMALL_READS) || between {
            small
        } else {
            self.shares.bytes() + front
        };
        let end = buffer.len().min(start + room);
        let filled = if link.tls.is_some() {
            self.fill_secure(index, &mut buffer[start..end])
        } else {
            let filled = link.read(&self.net, &mut buffer[start..end]);
            if link.is_timed() && matches!(filled, Filled::Bytes(_)) {
                self.set_active(index);
            }
            filled
        };
        if self.doors.len() > 0 && self.link(index).received > before {
            self.heard_in_handshake(index);
        }
        match filled {
            Filled::Bytes(read) => {
                self.took(index, read, 0);
                Filled::Bytes(start + read)
            }
            nothing => {
                self.keep(index, &buffer[..start]);
                nothing
            }
        }
    }

    /// Notes that something was received on a link whose timers look at that.
    pub(crate) fn set_active(&mut self, index: u32) {
        let now = self.now();
        self.link(index).role.set_active(now);
    }

    /// Keeps input for later.
    #[inline]
    pub(crate) fn keep(&mut self, index: u32, rest: &[u8]) {
        if !rest.is_empty() {
            let mut bytes = self.pool.take();
            if memory::reserve(&mut bytes, rest.len()).is_err() {
                return self.out_of_memory(index);
            }
            bytes.extend_from_slice(rest);
            self.link(index).kept = Some(Box::new(Kept { bytes, start: 0 }));
        }
    }

    /// A link has kept what it could not use. If nothing more can be sent on it, and the rest waits for that, it is over.
    pub(crate) fn input_kept(&mut self, index: u32) {
        let link = self.link(index);
        let stuck = link.flags.contains(Flags::BACKLOG)
            && !link.flags.contains(Flags::TO_RESUME)
            && !link.flags.contains(Flags::PAUSED);
        if link.state == State::Open
            && link.flags.contains(Flags::WRITE_FAILED)
            && stuck
            && !self.fail_now(index)
        {
            self.end(index, CloseReason::PeerEnded);
        }
        self.arm_exchange(index);
        self.mark(index);
    }

    /// Has the input that a link keeps handled by the next service call.
    pub(crate) fn resume_later(&mut self, index: u32) {
        let Some(key) = self.links.key_at(index) else { return };
        let link = self.link(index);
        if !link.flags.contains(Flags::TO_RESUME) {
            link.flags.insert(Flags::TO_RESUME);
            self.to_resume.push_back(key);
            self.work = true;
        }
    }

    // Output.

    /// Queues bytes on a link, or writes them: `head` and `payload` follow each other.
    #[inline]
    pub(crate) fn push(&mut self, index: u32, head: &[u8], payload: &[u8]) -> Flow {
        if index == self.current {
            let link = self.links.at_mut(index).expect("the link being served is there");
            if link.queue.is_none() && payload.len() < DIRECT && self.out.push(head, payload) {
                return Flow::Ready;
            }
        }
        self.push_slowly(index, head, payload)
    }

    /// Gathers a frame of a client's, if that is possible: `head`, and `payload` masked with `key`.
    pub(crate) fn gather_masked(&mut self, index: u32, head: &[u8], payload: &[u8], key: [u8; 4]) -> bool {
        let idle = index == self.current && self.link(index).queue.is_none();
        idle && payload.len() < DIRECT && self.out.push_masked(head, payload, key)
    }

    fn push_slowly(&mut self, index: u32, head: &[u8], payload: &[u8]) -> Flow {
        // Out of its place while it is written.
        let mut gathered = std::mem::replace(&mut self.out, Gathered::NONE);
        let before = if index == self.current { gathered.bytes() } else { &[] };
        let idle = self.link(index).queue.is_none();
        if idle && (payload.len() >= DIRECT || !before.is_empty()) {
            self.write_now(index, [before, head, payload]);
        } else {
            self.enqueue(index, [before, head, payload]);
            // A queue that was there waits for its turn already, or for the socket.
            if idle {
                self.flush_later(index);
            }
        }
        if index == self.current {
            gathered.clear();
            if self.link(index).queue.is_some() {
                self.short = Key::NONE;
            }
        }
        self.out = gathered;
        if self.unprompted || index != self.current {
            self.pumped(index);
        }
        self.flow(index)
    }

    /// Queues a frame that other links send too.
    pub(crate) fn push_shared(&mut self, index: u32, frame: &crate::ws::Shared) -> Flow {
        let pool = &mut self.pool;
        let link = self.links.at_mut(index).expect("the caller found it");
        if index == self.current || link.tls.is_some() {
            let (head, payload) = frame.parts();
            return self.push(index, head, payload);
        }
        let idle = link.queue.is_none();
        let queue = link.queue.get_or_insert_with(|| pool.take_queue());
        if queue.push_shared(frame.bytes(), pool).is_err() {
            self.output_lost(index, frame.bytes().len());
        } else {
            queue.pumped();
            if idle {
                self.flush_later(index);
            }
        }
        self.flow(index)
    }

    fn flow(&mut self, index: u32) -> Flow {
        let link = self.link(index);
        let full = link.queued() >= link.limits.send_high_water || link.is_over_send_max();
        if full { Flow::Full } else { Flow::Ready }
    }

    fn enqueue(&mut self, index: u32, parts: [&[u8]; 3]) {
        if self.link(index).tls.is_some() {
            self.enqueue_secure(index, parts);
        } else {
            self.queue_bytes(index, parts);
        }
    }

    /// Queues bytes as they are to be written.
    fn queue_bytes(&mut self, index: u32, parts: [&[u8]; 3]) {
        if parts.iter().all(|part| part.is_empty()) {
            return;
        }
        let pool = &mut self.pool;
        let link = self.links.at_mut(index).expect("the caller found it");
        let queue = link.queue.get_or_insert_with(|| pool.take_queue());
        let before = queue.len();
        if parts.iter().try_for_each(|part| queue.push(part, pool)).is_err() {
            let all: usize = parts.iter().map(|part| part.len()).sum();
            let lost = all - (queue.len() - before);
            self.output_lost(index, lost);
        }
    }

    /// There was no memory to queue so many bytes: what follows them must not be sent either.
    #[cold]
    pub(crate) fn output_lost(&mut self, index: u32, lost: usize) {
        log::warn!(target: "lodger::memory", "out of memory: a connection is reset");
        let conn = self.link(index).conn;
        if let Some(conn) = self.conns.at_mut(conn) {
            conn.cold().lost += lost;
            conn.set_reason(CloseReason::OutOfMemory);
        }
        self.abort(index, CloseReason::OutOfMemory);
    }

    /// There is no memory for what a peer has sent: its link ends, and it is told so, where that is possible.
    #[cold]
    pub(crate) fn out_of_memory(&mut self, index: u32) {
        log::warn!(target: "lodger::memory", "out of memory: a connection ends");
        let link = self.link(index);
        if link.state != State::Open {
            return self.end(index, CloseReason::Closed);
        }
        match &link.role {
            Role::WebSocket(_) => self.fail_websocket(index, ReceiveError::OutOfMemory),
            Role::Http(_) => {
                self.set_reason(index, CloseReason::OutOfMemory);
                self.refuse(index, error_response(StatusCode::SERVICE_UNAVAILABLE));
            }
            _ => self.end(index, CloseReason::OutOfMemory),
        }
    }

    pub(crate) fn flush_later(&mut self, index: u32) {
        let Some(key) = self.links.key_at(index) else { return };
        let link = self.link(index);
        if !link.flags.contains(Flags::TO_FLUSH) {
            link.flags.insert(Flags::TO_FLUSH);
            self.to_flush.push_back(key);
            self.work = true;
        }
    }

    /// Writes at once, from where the parts lie; what the kernel refuses is queued.
    fn write_now(&mut self, index: u32, parts: [&[u8]; 3]) {
        let link = self.links.at_mut(index).expect("the caller found it");
        if link.tls.is_some() {
            return self.write_secure(index, parts);
        }
        let Some(fd) = &link.fd else { return };
        let result = self.net.write_vectored(fd.as_fd(), &parts.map(IoSlice::new));
        self.wrote(index, result, parts);
    }

    /// Notes what came of writing `parts`.
    fn wrote(&mut self, index: u32, result: io::Result<usize>, parts: [&[u8]; 3]) {
        let offered = parts.iter().map(|part| part.len()).sum();
        let mut written = match result {
            Ok(written) => written,
            Err(error) if net::would_block(&error) => 0,
            Err(error) => return self.write_failed(index, error, offered),
        };
        self.link(index).sent += written as u64;
        if written < offered {
            let rest = parts.map(|part| {
                let skip = written.min(part.len());
                written -= skip;
                &part[skip..]
            });
            self.queue_bytes(index, rest);
            self.wait_for_room(index);
        }
    }

    /// Writing failed: output is over. Input goes on to its end, since what the peer said before it left is worth hearing.
    fn write_failed(&mut self, index: u32, error: io::Error, lost: usize) {
        // What waited for answers to go out waits in vain, and is heard.
        self.end_hold(index);
        let link = self.link(index);
        link.flags.insert(Flags::WRITE_FAILED);
        let queue = link.queue.take();
        // Input that only waits for its turn is still heard.
        let stuck = link.flags.contains(Flags::BACKLOG) && !link.flags.contains(Flags::TO_RESUME);
        let nothing_more = link.flags.contains(Flags::END_RECEIVED)
            || link.flags.contains(Flags::PAUSED)
            || stuck
            || link.state != State::Open;
        let conn = link.conn;
        let lost = lost + self.drop_queue(queue);
        let reason = CloseReason::Io(error);
        self.note_end(index, &reason);
        if let Some(conn) = self.conns.at_mut(conn) {
            conn.cold().lost += lost;
            conn.set_reason(reason);
        }
        self.interrupt(index);
        if nothing_more {
            self.end(index, CloseReason::Closed);
        } else {
            self.mark(index);
        }
    }

    fn wait_for_room(&mut self, index: u32) {
        let now = self.now();
        let link = self.link(index);
        if let Some(queue) = &mut link.queue {
            queue.moved = now;
        }
        let due = now.after(link.limits.write_stall);
        self.arm_stall(index, due);
        self.mark(index);
    }

    /// Writes what a link has queued, as far as the kernel takes it.
    pub(crate) fn flush(&mut self, index: u32, budget: &mut Budget) {
        loop {
            let link = self.links.at_mut(index).expect("the caller found it");
            let (Some(queue), Some(fd)) = (&mut link.queue, &link.fd) else { return };
            let mut pieces = buffer::no_pieces();
            let count = queue.pieces(&mut pieces);
            let pieces = &pieces[..count];
            let offered: usize = pieces.iter().map(|piece| piece.len()).sum();
            let result = match pieces {
                [only] => self.net.write(fd.as_fd(), only),
                _ => self.net.write_vectored(fd.as_fd(), pieces),
            };
            match result {
                Ok(written) => {
                    link.sent += written as u64;
                    queue.written(written, &mut self.pool);
                    budget.bytes = budget.bytes.saturating_sub(written);
                    if queue.len() == 0 {
                        return self.drained(index);
                    }
                    if written < offered {
                        break;
                    }
                    if budget.bytes == 0 {
                        self.flush_later(index);
                        break;
                    }
                }
                Err(error) if net::would_block(&error) => {
                    self.mark(index);
                    if self.link(index).queue.as_ref().is_some_and(|queue| queue.stall_timer.is_none()) {
                        self.wait_for_room(index);
                    }
                    return;
                }
                Err(error) => return self.write_failed(index, error, 0),
            }
        }
        self.wait_for_room(index);
        self.offer_room(index);
    }

    /// A queue is empty.
    fn drained(&mut self, index: u32) {
        let queue = self.link(index).queue.take();
        if queue.as_ref().is_some_and(|queue| queue.last_taken().is_some()) {
            // It had to wait for the peer, which has taken the last of it now.
            self.message_passed(index);
        }
        self.drop_queue(queue);
        self.offer_room(index);
        self.output_done(index);
        self.mark(index);
    }

    /// Tells a conn that waits for room when there is some.
    pub(crate) fn offer_room(&mut self, index: u32) {
        self.pump_file(index);
        self.answer_waiting_ping(index);
        self.hold_may_end(index);
        let link = self.link(index);
        if link.flags.contains(Flags::TIMED) {
            self.ping_may_have_left(index);
        }
        let link = self.link(index);
        let roomy = link.queued() <= link.limits.send_high_water / 2;
        let conn = link.conn;
        let Some(key) = self.conns.key_at(conn) else { return };
        if let Some(conn) = self.conns.at_mut(conn).filter(|conn| roomy && conn.writable_wanted) {
            conn.writable_wanted = false;
            self.notice(key, Notice::Writable);
        }
    }

    /// Everything that was queued has gone out: whatever waited for that goes on.
    pub(crate) fn output_done(&mut self, index: u32) {
        let link = self.link(index);
        if link.queued() > 0 || (self.current == index && !self.out.is_empty()) {
            return;
        }
        let link = self.links.at_mut(index).expect("just used");
        if let Role::WebSocket(websocket) = &mut link.role {
            websocket.said_all();
        }
        let ends = link.state == State::Finishing || link.flags.contains(Flags::FINISHED);
        if link.state == State::Open && link.tls.as_ref().is_some_and(|tls| !tls.is_secured()) {
            // The handshake needs our half; what ends it comes again behind that.
            return;
        }
        // After both Closes it is the server that ends the connection (RFC 6455, section 7.1.1).
        let is_the_servers =
            matches!(&link.role, Role::WebSocket(websocket) if websocket.leaves_end_to_server());
        if ends && !is_the_servers && link.tls.is_some() && self.close_secure(index) {
            return;
        }
        let link = self.links.at_mut(index).expect("just used");
        let Some(fd) = &link.fd else { return };
        match link.state {
            State::Finishing => {
                if !is_the_servers {
                    self.net.shutdown_write(fd.as_fd());
                }
                link.state = State::Lingering;
                if link.flags.contains(Flags::END_RECEIVED) {
                    self.end(index, CloseReason::Closed);
                } else {
                    let limit = link.limits.closing;
                    self.arm_phase(index, limit);
                    self.mark(index);
                }
            }
            State::Open if link.flags.contains(Flags::FINISHED) => {
                if !link.flags.raise(Flags::SHUT) {
                    self.net.shutdown_write(fd.as_fd());
                }
                if link.flags.contains(Flags::END_RECEIVED) {
                    self.end(index, CloseReason::PeerEnded);
                }
            }
            // An HTTP exchange that waited for the socket may be over now.
            State::Open if matches!(link.role, Role::Http(_)) => {
                self.response_sent(index);
                self.resume_later(index);
            }
            // A request has left: the response has its time from here.
            State::Open if matches!(&link.role, Role::Client(client) if client.is_busy()) => {
                self.arm_client(index)
            }
            // Our Close has left: the peer's has its time from here.
            State::Open if matches!(&link.role, Role::WebSocket(websocket) if !websocket.closing.may_send()) =>
            {
                let limit = link.limits.closing;
                self.arm_phase(index, limit);
            }
            State::Open | State::Lingering | State::Ended => {}
        }
    }

    /// Lets what is queued go out, ends our half, and reads and drops what still comes, all within the limit for closing.
    pub(crate) fn finish_and_linger(&mut self, index: u32) {
        let link = self.link(index);
        if matches!(link.state, State::Open) {
            link.state = State::Finishing;
            link.flags.remove(Flags::PAUSED);
            link.flags.remove(Flags::BACKLOG);
            link.kept = None;
            let limit = link.limits.closing;
            self.give_up_message(index);
            self.interrupt(index);
            self.arm_phase(index, limit);
            self.write_last(index);
            if self.link(index).flags.contains(Flags::WRITE_FAILED) {
                return self.end(index, CloseReason::Closed);
            }
            self.output_done(index);
            if self.link(index).state != State::Ended {
                self.mark(index);
            }
        }
    }

    /// Writes what was gathered, if it is for this link and all that is left, because the end of our half comes right behind it.
    fn write_last(&mut self, index: u32) {
        let Some(link) = self.links.at_mut(index) else { return };
        let all = self.current == index && !self.out.is_empty() && link.queue.is_none() && link.tls.is_none();
        let Some(fd) = link.fd.as_ref().filter(|_| all) else { return };
        let mut out = std::mem::replace(&mut self.out, Gathered::NONE);
        let result = self.net.write_last(fd.as_fd(), out.bytes());
        self.wrote(index, result, [out.bytes(), &[], &[]]);
        out.clear();
        self.out = out;
    }

    /// Writes what was gathered for the link being served, which is served no more.
    pub(crate) fn release_current(&mut self) {
        if self.links.at(self.current).is_some_and(|(_, link)| link.tls.is_some()) {
            return self.released_secure();
        }
        self.release_plain();
    }

    /// The same for a link that has no transport.
    #[inline(always)]
    pub(crate) fn release_plain(&mut self) {
        let index = std::mem::replace(&mut self.current, NOBODY);
        self.short = Key::NONE;
        let Some(link) = self.links.at_mut(index) else { return };
        if let Some(fd) = link.fd.as_ref().filter(|_| !self.out.is_empty()) {
            match self.net.write(fd.as_fd(), self.out.bytes()) {
                Ok(written) if written == self.out.len() => {
                    link.sent += written as u64;
                    self.out.clear();
                }
                result => return self.released_with_rest(index, result),
            }
        }
        if !link.is_settled() {
            self.released_unsettled(index);
        }
    }

    #[inline(never)]
    fn released_unsettled(&mut self, index: u32) {
        let link = self.link(index);
        if link.state == State::Finishing || link.flags.contains(Flags::FINISHED) {
            self.output_done(index);
        }
        self.mark(index);
    }

    /// The same for a link that has one.
    fn released_secure(&mut self) {
        let index = std::mem::replace(&mut self.current, NOBODY);
        self.short = Key::NONE;
        let mut out = std::mem::replace(&mut self.out, Gathered::NONE);
        if !out.is_empty() {
            self.write_secure(index, [out.bytes(), &[], &[]]);
            out.clear();
        }
        self.out = out;
        self.released_unsettled(index);
    }

    /// The same where not all of it could be written.
    #[cold]
    fn released_with_rest(&mut self, index: u32, result: io::Result<usize>) {
        let mut out = std::mem::replace(&mut self.out, Gathered::NONE);
        self.wrote(index, result, [out.bytes(), &[], &[]]);
        out.clear();
        self.out = out;
        self.output_done(index);
        self.mark(index);
    }

    /// Something happened to a link that its frame loop has to look at, if it is the one being served.
    pub(crate) fn interrupt(&mut self, index: u32) {
        if self.current == index {
            self.interrupted = true;
            self.short = Key::NONE;
        }
    }

    /// Gathers the output of a link from here to `release_current`.
    #[inline]
    pub(crate) fn make_current(&mut self, index: u32) {
        debug_assert!(self.current == NOBODY && self.out.is_empty());
        self.current = index;
        self.interrupted = false;
    }

    /// Writes the queues that wait, until nothing is left to write or of the budget.
    pub(crate) fn flush_waiting(&mut self, budget: &mut Budget) {
        while !self.to_flush.is_empty() && budget.take() {
            let Some(key) = self.to_flush.pop_front() else { return };
            if let Some(link) = self.links.get_mut(key) {
                link.flags.remove(Flags::TO_FLUSH);
                if link.state != State::Ended {
                    self.flush(key.index, budget);
                }
            }
        }
    }

    // Accepting.

    /// How many connections a call accepts from a listener: one, and twice as many with each call that finds so many waiting. To
    /// look for one in vain costs more than to be called again, since the system makes the socket first.
    pub(crate) fn burst(&mut self, index: u32) -> u8 {
        match &self.link(index).role {
            Role::Listener(listener) => listener.burst,
            _ => 0,
        }
    }

    /// A call has accepted so many connections; `all` that it was to, or there were no more.
    pub(crate) fn burst_was(&mut self, index: u32, accepted: u8, all: bool) {
        if let Role::Listener(listener) = &mut self.link(index).role {
            if !all {
                // What comes one by one for a while is taken one by one.
                listener.burst = accepted.max(1);
                listener.calm = CALM;
            } else if listener.calm > 0 {
                listener.calm -= 1;
            } else {
                listener.burst = (listener.burst * 2).min(ACCEPTS);
            }
        }
    }

    /// Accepts one connection of a listener, if accepting is possible now. Once it is there, [`make_way`](Self::make_way) has to
    /// be called.
    pub(crate) fn accept(&mut self, index: u32) -> Accepted {
        if self.links.at(index).is_none_or(|(_, link)| link.state != State::Open) {
            return Accepted::Nothing;
        }
        let gives_way = match self.room_for(index) {
            Room::Free => None,
            Room::By(key) => Some(key),
            Room::Soon => return Accepted::Later,
            Room::None => {
                self.pause_accepting(index);
                return Accepted::Nothing;
            }
        };
        let link = self.links.at_mut(index).expect("just found");
        let Some(fd) = &link.fd else { return Accepted::Nothing };
        match self.net.accept(fd.as_fd()) {
            Ok((socket, peer)) => {
                let Role::Listener(listener) = &link.role else { return Accepted::Nothing };
                let options = listener.options;
                if !options.nodelay {
                    // Unix sockets have no such option, and where it fails that costs time, not correctness.
                    let _ = self.net.set_nodelay(socket.as_fd(), true);
                }
                let set = options
                    .keepalive
                    .map_or(Ok(()), |keep| self.net.set_keepalive(socket.as_fd(), Some(keep)));
                let set = set.and_then(|()| {
                    self.net.set_buffer_sizes(socket.as_fd(), options.send_buffer, options.receive_buffer)
                });
                if let Err(error) = set {
                    log::warn!(target: "lodger::net", "socket option of an accepted connection refused: {error}");
                }
                link.received += 1;
                Accepted::Socket { socket, peer, gives_way }
            }
            Err(error) => {
                // For want of descriptors or memory, or because of what a moment may mend: either way the listener stays ready.
                if !net::would_block(&error) {
                    log::warn!(target: "lodger::net", "accepting pauses: {error}");
                    self.pause_accepting(index);
                }
                Accepted::Nothing
            }
        }
    }

    /// Whether a peer's address has all the connections that it may have.
    pub(crate) fn over_address_limit(&self, peer: &Peer) -> bool {
        let (Some(most), Some(address)) = (self.max_per_address, peer.inet()) else { return false };
        self.addresses.get(&address.ip()).is_some_and(|&count| count >= most)
    }

    /// Counts an accepted connection for its address.
    pub(crate) fn count_address(&mut self, index: u32) {
        if self.max_per_address.is_some() {
            let link = self.link(index);
            if let Some(address) = link.peer() {
                link.flags.insert(Flags::COUNTED);
                *self.addresses.entry(address.ip()).or_default() += 1;
            }
        }
    }

    /// A link is gone.
    fn left_address(&mut self, link: &Link) {
        let Some(address) = link.peer().filter(|_| link.flags.contains(Flags::COUNTED)) else { return };
        if let Some(count) = self.addresses.get_mut(&address.ip()) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address.ip());
            }
        }
    }

    fn pause_accepting(&mut self, index: u32) {
        let Some(key) = self.links.key_at(index) else { return };
        if let Role::Listener(listener) = &mut self.link(index).role
            && !std::mem::replace(&mut listener.paused, true)
        {
            self.paused_listeners.push(key);
        }
        if self.accept_timer.is_none() {
            let at = self.now().after(ACCEPT_AGAIN);
            self.accept_timer = self.timers.arm(at, Timer::Accept);
        }
        self.mark(index);
    }

    /// Accepting goes on: something came free.
    pub(crate) fn accept_again(&mut self) {
        if self.paused_listeners.is_empty() {
            return;
        }
        let mut timer = std::mem::replace(&mut self.accept_timer, TimerId::NONE);
        self.timers.cancel(&mut timer);
        for key in std::mem::take(&mut self.paused_listeners) {
            if let Some(link) = self.links.get_mut(key) {
                if let Role::Listener(listener) = &mut link.role {
                    listener.paused = false;
                }
                self.mark(key.index);
            }
        }
    }

    pub(crate) fn accept_timer_expired(&mut self) {
        self.accept_timer = TimerId::NONE;
        self.accept_again();
    }
}
