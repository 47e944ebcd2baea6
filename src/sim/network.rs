//! The network of a simulated world, as descriptors see it: what the system calls are to the rest of the crate.
//!
//! A descriptor is a real number that stays reserved while the world lives, so that numbers are used again in an order that
//! depends on the world alone: the free number that is oldest, as the kernel takes the lowest. Behind it is nothing but
//! `/dev/null`. In the log a descriptor is named by a count of those opened, never by its number.

use super::chaos::Chaos;
use super::log::Log;
use super::random::Random;
use super::stream::{Holder, Odds, Stream};
use crate::net::Standing;
use crate::{Peer, Ready};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The network of a [`World`](super::World): a handle, of which all clones are the same network.
///
/// Handlers of raw descriptors ([`fd::Handler`](crate::fd::Handler)) read and write simulated sockets through it.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

/// What the world answers when lodger connects to an address that nobody in it listens on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// `ECONNREFUSED`; what happens at addresses that nothing else was said of.
    Refused,
    /// `EHOSTUNREACH`.
    Unreachable,
    /// Nothing, for ever.
    Silent,
}

pub(super) struct State {
    pub(super) odds: Odds,
    pub(super) log: Log,
    /// Counts whatever moves: bytes, connections, ends. A run in which it stands still is a spin.
    pub(super) activity: u64,
    pub(super) streams: BTreeMap<u64, Stream>,
    pub(super) listeners: BTreeMap<u64, Listener>,
    /// What went wrong and could not be said on the spot.
    pub(super) violations: Vec<String>,
    pub(super) reach: Vec<(Peer, Reach)>,
    pub(super) failing_accepts: VecDeque<Errno>,
    pub(super) backlog: usize,
    descriptors: BTreeMap<RawFd, Descriptor>,
    /// Numbers that are reserved, in the order in which they first came: the number, and the descriptor while it is free.
    numbers: Vec<(RawFd, Option<OwnedFd>)>,
    last_id: u64,
    last_port: u16,
}

pub(super) struct Listener {
    pub(super) address: Peer,
    /// Connections that nobody has accepted, oldest first.
    pub(super) backlog: VecDeque<u64>,
}

struct Descriptor {
    /// Its name in the log.
    serial: u64,
    kind: Kind,
    /// How many hosts watch it.
    watchers: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Listener(u64),
    Stream(u64, usize),
    WakeUp { signalled: bool },
}

/// The descriptor-facing half.
impl Network {
    pub(super) fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(State {
            odds: Odds { random, chaos: Chaos::NONE },
            log: Log::default(),
            activity: 0,
            streams: BTreeMap::new(),
            listeners: BTreeMap::new(),
            violations: Vec::new(),
            reach: Vec::new(),
            failing_accepts: VecDeque::new(),
            backlog: 4096,
            descriptors: BTreeMap::new(),
            numbers: Vec::new(),
            last_id: 0,
            last_port: 20_000,
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves the state as it is, and the panic is what the test reports.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn listen(&self, address: &Peer) -> io::Result<OwnedFd> {
        let mut state = self.state();
        let id = state.add_listener(address)?;
        state.open(Kind::Listener(id), "listen")
    }

    pub(crate) fn local_addr(&self, fd: BorrowedFd<'_>) -> io::Result<Peer> {
        let state = self.state();
        match state.kind(fd.as_raw_fd())? {
            Kind::Listener(id) => Ok(state.listeners[&id].address.clone()),
            Kind::Stream(id, side) => Ok(state.streams[&id].ends[side].address.clone()),
            Kind::WakeUp { .. } => Err(Errno::NOTSOCK.into()),
        }
    }

    pub(crate) fn peer_addr(&self, fd: BorrowedFd<'_>) -> io::Result<Peer> {
        let state = self.state();
        let (id, side) = state.stream_of(fd)?;
        match &state.streams[&id] {
            stream if stream.is_connecting() || stream.ends[side].is_reset() => Err(Errno::NOTCONN.into()),
            stream => Ok(stream.ends[1 - side].address.clone()),
        }
    }

    pub(crate) fn accept(&self, fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Peer)> {
        let mut state = self.state();
        let state = &mut *state;
        let Kind::Listener(listener) = state.kind(fd.as_raw_fd())? else {
            return Err(Errno::INVAL.into());
        };
        let waiting = state.listeners[&listener].backlog.front().copied();
        let Some(id) = waiting else { return Err(Errno::WOULDBLOCK.into()) };
        let failure = state.failing_accepts.pop_front();
        let by_chance = state.odds.random.chance(state.odds.chaos.failing_accepts).then_some(Errno::MFILE);
        if let Some(error) = failure.or(by_chance) {
            state.log.line(format_args!("accept fails: {error}"));
            return Err(error.into());
        }
        let accepted = state.open(Kind::Stream(id, 1), "accept")?;
        let listener =
            state.listeners.get_mut(&listener).expect("a listener lives as long as its descriptor");
        listener.backlog.pop_front();
        let stream = state.streams.get_mut(&id).expect("a connection in a backlog lives");
        stream.ends[1].holder = Holder::Descriptor;
        Ok((accepted, stream.ends[0].address.clone()))
    }

    /// Begins to connect. Over TCP nothing is known before the world's next turn.
    pub(crate) fn connect(&self, address: &Peer) -> io::Result<OwnedFd> {
        let mut state = self.state();
        let state = &mut *state;
        let from = state.client_address(address);
        let mut stream = Stream::new(from, address.clone(), true, &mut state.odds);
        stream.ends[0].holder = Holder::Descriptor;
        state.last_id += 1;
        let id = state.last_id;
        let fd = state.open(Kind::Stream(id, 0), "connect")?;
        state.streams.insert(id, stream);
        Ok(fd)
    }

    /// How connecting went: `WouldBlock` while it is under way.
    pub(crate) fn connect_outcome(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut state = self.state();
        let (id, side) = state.stream_of(fd)?;
        Ok(state.stream(id).outcome(side)?)
    }

    /// Reads from a socket: 0 is the end.
    ///
    /// # Errors
    ///
    /// What `read(2)` says: `WouldBlock`, `ConnectionReset` and so on.
    pub fn read(&self, fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        let (id, side) = state.stream_of(fd)?;
        let State { streams, odds, .. } = &mut *state;
        let stream = streams.get_mut(&id).ok_or(Errno::BADF)?;
        let result = stream.read(side, buf, odds);
        // Room was made: an endpoint that has more to send sends it, or the reader would see a gap that no wire has.
        let gained = odds.chaos.trickle == 0.0 && matches!(result, Ok(1..));
        let refilled = gained && stream.step(odds);
        state.note(fd, "read", &result, refilled);
        result
    }

    /// Writes to a socket.
    ///
    /// # Errors
    ///
    /// What `write(2)` says: `WouldBlock`, `BrokenPipe`, `ConnectionReset` and so on.
    pub fn write(&self, fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(fd, &[IoSlice::new(buf)])
    }

    pub(crate) fn write_vectored(&self, fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state();
        let (id, side) = state.stream_of(fd)?;
        let State { streams, odds, .. } = &mut *state;
        let stream = streams.get_mut(&id).ok_or(Errno::BADF)?;
        let result = stream.write(side, bufs, odds).map_err(io::Error::from);
        state.note(fd, "write", &result, false);
        result
    }

    pub(crate) fn shutdown_write(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut state = self.state();
        let (id, side) = state.stream_of(fd)?;
        let result = state.stream(id).finish(side).map_err(io::Error::from);
        state.note(fd, "shutdown", &result.as_ref().map(|()| 1).map_err(|error| error.kind().into()), false);
        result
    }

    pub(crate) fn standing(&self, fd: BorrowedFd<'_>) -> Standing {
        let mut state = self.state();
        match state.stream_of(fd) {
            Ok((id, side)) => state.stream(id).standing(side),
            Err(_) => Standing::Open,
        }
    }

    pub(crate) fn reset(&self, fd: BorrowedFd<'_>) {
        let mut state = self.state();
        if let Ok((id, side)) = state.stream_of(fd) {
            state.stream(id).set_zero_linger(side);
        }
    }

    /// Closes a socket. Dropping the descriptor instead frees the number, and the peer never hears of it.
    pub fn close(&self, fd: OwnedFd) {
        let mut state = self.state();
        let number = fd.as_raw_fd();
        state.forget(number);
        match state.numbers.iter_mut().find(|(known, _)| *known == number) {
            Some((_, free)) => *free = Some(fd),
            // Not of this world.
            None => drop(fd),
        }
    }

    pub(crate) fn wake_fd(&self) -> io::Result<OwnedFd> {
        self.state().open(Kind::WakeUp { signalled: false }, "wake-up")
    }

    pub(crate) fn wake(&self, fd: RawFd) {
        self.state().set_signalled(fd, true);
    }

    pub(crate) fn drain_wake(&self, fd: BorrowedFd<'_>) {
        self.state().set_signalled(fd.as_raw_fd(), false);
    }

    /// What `poll(2)` would report, were everything watched. A number that is not open has an error.
    pub fn ready(&self, fd: RawFd) -> Ready {
        let state = self.state();
        match state.kind(fd) {
            Err(_) => Ready::ERROR,
            Ok(Kind::Listener(id)) if state.listeners[&id].backlog.is_empty() => Ready::NONE,
            Ok(Kind::Listener(_) | Kind::WakeUp { signalled: true }) => Ready::READ,
            Ok(Kind::WakeUp { signalled: false }) => Ready::NONE,
            Ok(Kind::Stream(id, side)) => state.streams[&id].ready(side),
        }
    }

    /// How many simulated descriptors are open.
    pub fn open_descriptors(&self) -> usize {
        self.state().descriptors.len()
    }

    /// Repeats `run` for as long as anything moves: for worlds with several loops, each of which `run` runs.
    pub fn until_quiet(&self, mut run: impl FnMut()) {
        loop {
            let before = self.state().activity;
            run();
            if self.state().activity == before {
                break;
            }
        }
    }
}

/// What the world and its hosts do with it.
impl Network {
    /// Answers those that connect, and moves what endpoints send and read.
    pub(super) fn step(&self) {
        let mut state = self.state();
        let state = &mut *state;
        let connecting = state.streams.iter().filter(|(_, stream)| stream.is_connecting());
        for id in connecting.map(|(id, _)| *id).collect::<Vec<_>>() {
            if !state.odds.random.chance(state.odds.chaos.late) {
                state.answer(id);
            }
        }
        let State { streams, odds, activity, .. } = state;
        for stream in streams.values_mut() {
            *activity += u64::from(stream.step(odds));
        }
        streams.retain(|_, stream| !stream.is_over());
    }

    /// Whether [`step`](Self::step) would change anything.
    pub(super) fn is_moving(&self) -> bool {
        let state = self.state();
        state.streams.values().any(|stream| stream.is_moving() || state.is_answerable(stream))
    }

    /// The name of an open descriptor in the log.
    pub(super) fn serial(&self, fd: RawFd) -> Option<u64> {
        self.state().descriptors.get(&fd).map(|descriptor| descriptor.serial)
    }

    pub(super) fn watch(&self, fd: RawFd) {
        if let Some(descriptor) = self.state().descriptors.get_mut(&fd) {
            descriptor.watchers += 1;
        }
    }

    pub(super) fn unwatch(&self, fd: RawFd) {
        if let Some(descriptor) = self.state().descriptors.get_mut(&fd) {
            descriptor.watchers = descriptor.watchers.saturating_sub(1);
        }
    }

    /// A connection that an endpoint made; `from` is its address, or one is found.
    pub(super) fn connect_endpoint(&self, address: &Peer, from: Option<Peer>) -> io::Result<u64> {
        let mut state = self.state();
        let listener = state.listener_at(address).ok_or(Errno::CONNREFUSED)?;
        if state.listeners[&listener].backlog.len() >= state.backlog {
            return Err(Errno::TIMEDOUT.into());
        }
        let from = from.unwrap_or_else(|| state.client_address(address));
        let id = state.add_stream(from, address.clone(), Holder::Endpoint, Holder::Nobody);
        state.listeners.get_mut(&listener).expect("it was just found").backlog.push_back(id);
        state.log.line(format_args!("endpoint {id} connects"));
        Ok(id)
    }

    /// A connection without any listener: a descriptor for its accepted side, and the number of its streams.
    pub(super) fn socket(&self) -> io::Result<(OwnedFd, u64)> {
        let mut state = self.state();
        let to = Peer::Inet(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1));
        let from = state.client_address(&to);
        let id = state.add_stream(from, to, Holder::Endpoint, Holder::Descriptor);
        let fd = state.open(Kind::Stream(id, 1), "socket")?;
        Ok((fd, id))
    }
}

impl State {
    pub(super) fn stream(&mut self, id: u64) -> &mut Stream {
        self.streams.get_mut(&id).expect("a connection lives as long as somebody holds an end")
    }

    pub(super) fn add_listener(&mut self, address: &Peer) -> io::Result<u64> {
        let address = match address {
            Peer::Inet(address) if address.port() == 0 => {
                self.last_port += 1;
                Peer::Inet(SocketAddr::new(address.ip(), self.last_port))
            }
            Peer::Unix(None) => return Err(Errno::INVAL.into()),
            address => address.clone(),
        };
        if self.listeners.values().any(|listener| listener.address == address) {
            return Err(Errno::ADDRINUSE.into());
        }
        self.last_id += 1;
        self.listeners.insert(self.last_id, Listener { address, backlog: VecDeque::new() });
        Ok(self.last_id)
    }

    pub(super) fn remove_listener(&mut self, id: u64) {
        let Some(listener) = self.listeners.remove(&id) else { return };
        for stream in listener.backlog {
            // The system resets what nobody has accepted.
            let State { streams, odds, .. } = self;
            let stream = streams.get_mut(&stream).expect("a connection in a backlog lives");
            stream.set_zero_linger(1);
            stream.close(1, odds);
        }
    }

    fn add_stream(&mut self, from: Peer, to: Peer, first: Holder, second: Holder) -> u64 {
        let mut stream = Stream::new(from, to, false, &mut self.odds);
        stream.ends[0].holder = first;
        stream.ends[1].holder = second;
        self.last_id += 1;
        self.streams.insert(self.last_id, stream);
        self.activity += 1;
        self.last_id
    }

    /// The address of somebody who connects to `address`.
    fn client_address(&mut self, address: &Peer) -> Peer {
        match address {
            Peer::Inet(address) => {
                self.last_port += 1;
                Peer::Inet(SocketAddr::new(address.ip(), self.last_port))
            }
            Peer::Unix(_) => Peer::Unix(None),
        }
    }

    /// The listener that `address` reaches: its own, or one on every address of its port.
    fn listener_at(&self, address: &Peer) -> Option<u64> {
        let reaches = |listener: &Listener| match (&listener.address, address) {
            (Peer::Inet(bound), Peer::Inet(to)) => {
                bound == to || (bound.ip().is_unspecified() && bound.port() == to.port())
            }
            (bound, to) => bound == to,
        };
        self.listeners.iter().find(|(_, listener)| reaches(listener)).map(|(id, _)| *id)
    }

    fn reach(&self, address: &Peer) -> Reach {
        let said = self.reach.iter().rev().find(|(known, _)| known == address);
        said.map_or(Reach::Refused, |(_, reach)| *reach)
    }

    fn is_answerable(&self, stream: &Stream) -> bool {
        let address = &stream.ends[1].address;
        stream.is_connecting()
            && match self.listener_at(address) {
                Some(listener) => self.listeners[&listener].backlog.len() < self.backlog,
                None => self.reach(address) != Reach::Silent,
            }
    }

    /// Says to one that connects how it went, when there is an answer.
    fn answer(&mut self, id: u64) {
        if !self.is_answerable(&self.streams[&id]) {
            return;
        }
        let address = self.streams[&id].ends[1].address.clone();
        let listener = self.listener_at(&address);
        let reach = self.reach(&address);
        let stream = self.stream(id);
        match (listener, reach) {
            (Some(_), _) => stream.establish(),
            (None, Reach::Unreachable) => stream.refuse(Errno::HOSTUNREACH),
            (None, Reach::Refused | Reach::Silent) => stream.refuse(Errno::CONNREFUSED),
        }
        if let Some(listener) = listener {
            self.listeners.get_mut(&listener).expect("it was just found").backlog.push_back(id);
        }
        self.activity += 1;
        self.log.line(format_args!("connecting {id} is answered"));
    }

    /// A descriptor for `kind`, with the oldest number that is free.
    fn open(&mut self, kind: Kind, call: &str) -> io::Result<OwnedFd> {
        let free = self.numbers.iter_mut().find_map(|(_, free)| free.take());
        let fd = match free {
            Some(fd) => fd,
            None => self.reserve()?,
        };
        self.last_id += 1;
        let serial = self.last_id;
        self.descriptors.insert(fd.as_raw_fd(), Descriptor { serial, kind, watchers: 0 });
        self.activity += 1;
        self.log.line(format_args!("{call}: #{serial}"));
        Ok(fd)
    }

    fn reserve(&mut self) -> io::Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        let fd = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let number = fd.as_raw_fd();
        // A descriptor that was dropped, not closed: its number came back from the kernel.
        self.forget(number);
        if !self.numbers.iter().any(|(known, _)| *known == number) {
            self.numbers.push((number, None));
        }
        Ok(fd)
    }

    /// Ends what is behind a number.
    fn forget(&mut self, fd: RawFd) {
        let Some(Descriptor { serial, kind, watchers }) = self.descriptors.remove(&fd) else { return };
        if watchers > 0 {
            self.violations.push(format!("#{serial} was closed while a host watched it"));
        }
        self.activity += 1;
        self.log.line(format_args!("close: #{serial}"));
        match kind {
            Kind::Listener(id) => self.remove_listener(id),
            Kind::WakeUp { .. } => {}
            Kind::Stream(id, side) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.close(side, &mut self.odds);
                }
            }
        }
    }

    fn kind(&self, fd: RawFd) -> Result<Kind, Errno> {
        self.descriptors.get(&fd).map(|descriptor| descriptor.kind).ok_or(Errno::BADF)
    }

    fn stream_of(&self, fd: BorrowedFd<'_>) -> Result<(u64, usize), Errno> {
        match self.kind(fd.as_raw_fd())? {
            Kind::Stream(id, side) => Ok((id, side)),
            Kind::Listener(_) => Err(Errno::NOTCONN),
            Kind::WakeUp { .. } => Err(Errno::NOTSOCK),
        }
    }

    fn set_signalled(&mut self, fd: RawFd, on: bool) {
        if let Some(Descriptor { kind: Kind::WakeUp { signalled }, .. }) = self.descriptors.get_mut(&fd) {
            self.activity += u64::from(*signalled != on);
            *signalled = on;
        }
    }

    /// Writes a call down, and whether it moved anything.
    fn note(&mut self, fd: BorrowedFd<'_>, call: &str, result: &io::Result<usize>, moved: bool) {
        let serial = self.descriptors.get(&fd.as_raw_fd()).map_or(0, |descriptor| descriptor.serial);
        match result {
            Ok(length) => {
                self.activity += u64::from(*length > 0 || moved);
                self.log.line(format_args!("{call} #{serial}: {length}"));
            }
            Err(error) => self.log.line(format_args!("{call} #{serial}: {}", error.kind())),
        }
    }
}

#[cfg(test)]
mod tests;
