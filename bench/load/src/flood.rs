//! Peers that send as fast as they are read, and one beside them that sends a message now and then: how long does it wait?

use crate::answers::{Expected, Incoming};
use crate::histogram::{Histogram, Latency};
use crate::link::{is_accepted, silence, wait_for};
use crate::plan::{frame, upgrade};
use crate::system::own_time;
use crate::tls;
use crate::transport::{Transport, or_nothing};
use crate::watched::Watched;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, SendFlags};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a flooding peer sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flood {
    /// Nothing: the honest peer is alone.
    Nothing,
    /// One message of WebSocket without an end, in fragments of so many bytes.
    Fragments(usize),
    /// Whole messages of so many bytes.
    Messages(usize),
    /// Empty Pings.
    Pings,
    /// Requests, one behind another without waiting.
    Gets,
    /// Content in chunks of one byte.
    Chunks,
    /// Whole messages of one byte over TLS, each byte in a record of its own.
    Records,
}

impl Flood {
    /// Whether it is sent over TLS, where the server has it.
    pub fn is_secure(self) -> bool {
        self == Self::Records
    }

    /// What is said first, and waited for where it is an opening handshake.
    fn opening(self) -> Vec<u8> {
        match self {
            Self::Gets => Vec::new(),
            Self::Chunks => {
                b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()
            }
            _ => upgrade(),
        }
    }

    /// What is sent from then on, again and again.
    fn block(self) -> Vec<u8> {
        const KEY: Option<[u8; 4]> = Some([0; 4]);
        /// Long enough that a call sends much of it.
        const LENGTH: usize = 512 * 1024;
        let again = |what: &[u8]| what.repeat(LENGTH.div_ceil(what.len().max(1)));
        match self {
            Self::Nothing => Vec::new(),
            Self::Fragments(size) => {
                // A message begins, and is ended by the last of 64 KiB of continuations, so that it never becomes too long.
                let fragment = |first: u8| {
                    let mut frame = frame(0, &vec![b'f'; size], KEY);
                    frame[0] = first;
                    frame
                };
                let middle = fragment(0).repeat((64 * 1024 / (size + 6)).max(1));
                again(&[fragment(2), middle, fragment(0x80)].concat())
            }
            Self::Messages(size) => again(&frame(2, &vec![b'm'; size], KEY)),
            Self::Pings => again(&frame(9, b"", KEY)),
            Self::Gets => again(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Self::Chunks => again(b"1\r\nx\r\n"),
            Self::Records => again(&frame(2, b"r", KEY)),
        }
    }
}

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// Peers that flood.
    pub floods: usize,
    /// The server has no protocol: it throws away what it reads, but for what begins with a question mark.
    pub discarded: bool,
    /// The servers' other end is TLS, for those that flood by it.
    pub secure: bool,
    /// Before the measured time: buffers fill up.
    pub warm_up: Duration,
    /// The measured time.
    pub time: Duration,
    /// The honest peer sends no more messages than so many, and rests between them.
    pub most: usize,
    /// Between an answer and the next message.
    pub rest: Duration,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// From a message of the honest peer to its answer.
    pub latency: Latency,
    /// The server's processor time meanwhile: what was done before the answer, whatever else the machine did.
    pub work: Latency,
    /// The part of the time in which the server's processor was at work for it.
    pub server: f64,
    /// The same of the flooding peers.
    pub load: f64,
    /// Bytes that were taken from them in a second.
    pub taken: f64,
    /// Bytes that came back to them in a second.
    pub answered: f64,
}

/// Measures.
///
/// # Errors
///
/// The server answered something wrong, or nothing for five seconds, or ended a connection.
pub fn beside(server: SocketAddr, watched: &Watched, flood: Flood, how: &Beside) -> io::Result<Waited> {
    let floods = if flood == Flood::Nothing { 0 } else { how.floods };
    let mut peers = Peers::open(server, flood, floods, how)?;
    let mut honest = Honest::open(server, how)?;
    let stop = AtomicBool::new(false);
    let (taken, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let flooding = scope.spawn(|| peers.run(&stop, &taken, &answered));
        // It shares a processor with the flood, and is not to wait for that. Without the right to, it goes as it goes.
        let _ = rustix::process::nice(-5);
        let result = honest
            .measure(watched, how, || [taken.load(Ordering::Relaxed), answered.load(Ordering::Relaxed)]);
        stop.store(true, Ordering::Relaxed);
        let _ = rustix::process::nice(5);
        flooding.join().expect("the flood does not panic")?;
        result
    })
}

/// The peer whose messages are timed.
struct Honest {
    transport: Transport,
    incoming: Incoming,
    request: Vec<u8>,
    expected: Expected,
}

impl Honest {
    fn open(server: SocketAddr, how: &Beside) -> io::Result<Self> {
        let config = how.secure.then(|| tls::config(false));
        let mut transport = Transport::open(server, 0, config.as_ref())?;
        transport.abort_on_close()?;
        let (request, expected) = match how.discarded {
            true => (b"?honest".to_vec(), Expected::Bytes(b"?honest".to_vec())),
            false => (frame(2, b"h", Some([0; 4])), Expected::message(2, b"h".to_vec())),
        };
        let mut incoming = Incoming::default();
        if !how.discarded {
            transport.write(&upgrade())?;
            let mut head = Vec::new();
            while !is_accepted(&head)? {
                wait_for(&transport)?;
                let mut buffer = [0; 1024];
                match transport.read(&mut buffer)? {
                    Some(0) => return Err(closed()),
                    Some(length) => head.extend_from_slice(&buffer[..length]),
                    None => {}
                }
            }
            incoming.opened();
        }
        Ok(Self { transport, incoming, request, expected })
    }

    /// Sends one message, and says how long its answer took.
    fn ask(&mut self) -> io::Result<Duration> {
        let sent = Instant::now();
        self.transport.write(&self.request)?;
        loop {
            wait_for(&self.transport)?;
            let mut buffer = [0; 1024];
            let Some(length) = self.transport.read(&mut buffer)? else { continue };
            if length == 0 {
                return Err(closed());
            }
            if self.expected.take(&mut self.incoming, &buffer[..length])? > 0 {
                return Ok(sent.elapsed());
            }
        }
    }

    fn measure(
        &mut self,
        watched: &Watched,
        how: &Beside,
        counted: impl Fn() -> [u64; 2],
    ) -> io::Result<Waited> {
        let warm = Instant::now() + how.warm_up;
        while Instant::now() < warm {
            self.ask()?;
            thread::sleep(how.rest);
        }
        let (mut histogram, mut work) = (Histogram::default(), Histogram::default());
        let (begin, server, load, before) = (Instant::now(), watched.time()?, own_time(), counted());
        for _ in 0..how.most {
            let before = watched.own_time()?;
            histogram.record(self.ask()?.as_nanos() as u64);
            work.record(watched.own_time()?.saturating_sub(before).as_nanos() as u64);
            if begin.elapsed() > how.time {
                break;
            }
            thread::sleep(how.rest);
        }
        let seconds = begin.elapsed().as_secs_f64();
        let after = counted();
        let rate = |at: usize| (after[at] - before[at]) as f64 / seconds;
        Ok(Waited {
            latency: histogram.latency().ok_or_else(silence)?,
            work: work.latency().ok_or_else(silence)?,
            server: watched.time()?.saturating_sub(server).as_secs_f64() / seconds,
            load: own_time().saturating_sub(load).as_secs_f64() / seconds,
            taken: rate(0),
            answered: rate(1),
        })
    }
}

/// The peers that flood.
struct Peers {
    all: Vec<Peer>,
    epoll: OwnedFd,
}

struct Peer {
    socket: OwnedFd,
    source: Source,
}

/// Where the next bytes come from.
enum Source {
    /// From memory that the system sends without copying it: who only throws away what it reads would be quicker than who copies.
    Block {
        memory: Arc<OwnedFd>,
        length: u64,
        at: u64,
    },
    Records(Box<tls::Records>),
}

/// So much is sent or read in one call, and then it is the next one's turn.
const AT_ONCE: usize = 256 * 1024;

impl Peers {
    fn open(server: SocketAddr, flood: Flood, floods: usize, how: &Beside) -> io::Result<Self> {
        let block: Arc<[u8]> = flood.block().into();
        let memory = Arc::new(in_memory(&block)?);
        let length = block.len() as u64;
        let config = how.secure.then(tls::giving_keys);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut all = Vec::new();
        for at in 0..floods {
            let transport = Transport::open(server, 1 + at, config.as_ref())?;
            transport.abort_on_close()?;
            let (socket, tls) = transport.into_parts();
            let source = Source::Block { memory: Arc::clone(&memory), length, at: 0 };
            let mut peer = Peer { socket, source };
            let opening = if how.discarded { Vec::new() } else { flood.opening() };
            match tls {
                Some(tls) => {
                    let mut records = tls.into_records(Arc::clone(&block))?;
                    let opening = records.one(&opening)?;
                    peer.say(&opening)?;
                    peer.source = Source::Records(Box::new(records));
                }
                None => peer.say(&opening)?,
            }
            rustix::io::ioctl_fionbio(&peer.socket, true)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            epoll::add(&epoll, &peer.socket, epoll::EventData::new_u64(at as u64), flags)?;
            all.push(peer);
        }
        Ok(Self { all, epoll })
    }

    fn run(&mut self, stop: &AtomicBool, taken: &AtomicU64, answered: &AtomicU64) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
        let mut buffer = vec![0; AT_ONCE];
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            let wait = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            for event in &events {
                let (flags, at) = (event.flags, event.data.u64() as usize);
                let peer = &mut self.all[at];
                if !flags.difference(epoll::EventFlags::OUT).is_empty() {
                    answered.fetch_add(peer.read(&mut buffer)? as u64, Ordering::Relaxed);
                }
                if flags.contains(epoll::EventFlags::OUT) {
                    taken.fetch_add(peer.send()? as u64, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

impl Peer {
    /// Sends all of it: it is short, and the first.
    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL)? {
            sent if sent == bytes.len() => Ok(()),
            _ => Err(io::Error::other("no room for a request")),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = rustix::net::recv(&self.socket, buffer, RecvFlags::DONTWAIT).map(|(_, read)| read);
        match or_nothing(read)? {
            Some(0) => Err(closed()),
            read => Ok(read.unwrap_or(0)),
        }
    }

    fn send(&mut self) -> io::Result<usize> {
        match &mut self.source {
            Source::Block { memory, length, at } => {
                let most = AT_ONCE.min((*length - *at) as usize);
                let sent = or_nothing(rustix::fs::sendfile(&self.socket, &**memory, Some(at), most))?;
                *at %= *length;
                Ok(sent.unwrap_or(0))
            }
            Source::Records(records) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let sent = or_nothing(rustix::net::send(&self.socket, records.next()?, flags))?.unwrap_or(0);
                records.sent(sent);
                Ok(sent)
            }
        }
    }
}

/// A file that is nowhere but in memory, with this content.
fn in_memory(content: &[u8]) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("flood", rustix::fs::MemfdFlags::CLOEXEC)?;
    File::from(memory.try_clone()?).write_all(content)?;
    Ok(memory)
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection")
}
