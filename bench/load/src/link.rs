//! Connections, and getting many of them through the opening handshake.

use crate::answers::Incoming;
use crate::plan::{ACCEPT_KEY, Plan};
use crate::transport::Transport;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// As long as a server may be silent before it counts as broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How many handshakes are under way at once: below any server's backlog.
const OPENING: usize = 64;

pub(crate) struct Link {
    pub(crate) transport: Transport,
    pub(crate) incoming: Incoming,
    /// How many requests are to be sent behind what is being sent.
    pub(crate) owed: usize,
    /// What of the plan's block is being sent.
    pub(crate) sending: Range<usize>,
    pub(crate) sent: Instant,
}

impl Link {
    /// Sends what is owed, as far as there is room.
    pub(crate) fn send(&mut self, plan: &Plan) -> io::Result<()> {
        self.transport.flush()?;
        loop {
            if self.sending.is_empty() {
                let requests = self.owed.min(plan.depth());
                if requests == 0 {
                    return Ok(());
                }
                self.owed -= requests;
                self.sending = 0..requests * plan.one;
            }
            match self.transport.write(&plan.block[self.sending.clone()])? {
                Some(length) => self.sending.start += length,
                None => return Ok(()),
            }
        }
    }

    /// Reads all that is there, and says how many answers became complete.
    pub(crate) fn receive(&mut self, plan: &Plan, buffer: &mut [u8]) -> io::Result<usize> {
        let mut answers = 0;
        loop {
            let Some(length) = self.transport.read(buffer)? else { return Ok(answers) };
            if length == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection"));
            }
            answers += plan.expected.take(&mut self.incoming, &buffer[..length])?;
            if length < buffer.len() {
                return Ok(answers);
            }
        }
    }
}

/// Connections, and what watches them.
pub(crate) struct Links {
    pub(crate) all: Vec<Link>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    pub(crate) buffer: Vec<u8>,
}

impl Links {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            all: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(256),
            buffer: vec![0; 512 * 1024],
        })
    }

    /// Opens `more` connections to `server`, through their handshakes.
    pub(crate) fn open(&mut self, server: SocketAddr, plan: &Plan, more: usize) -> io::Result<()> {
        for at in self.all.len()..self.all.len() + more {
            let transport = Transport::open(server, at, plan.tls.as_ref())?;
            transport.abort_on_close()?;
            let now = Instant::now();
            let mut link =
                Link { transport, incoming: Incoming::default(), owed: 0, sending: 0..0, sent: now };
            if let Some(opening) = &plan.opening
                && link.transport.write(opening)? != Some(opening.len())
            {
                return Err(io::Error::other("no room for a request"));
            }
            self.all.push(link);
            if at % OPENING == OPENING - 1 {
                self.finish_opening(plan, at + 1 - OPENING)?;
            }
        }
        self.finish_opening(plan, self.all.len() / OPENING * OPENING)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        for at in self.all.len() - more..self.all.len() {
            epoll::add(&self.epoll, &self.all[at].transport, epoll::EventData::new_u64(at as u64), flags)?;
        }
        // New descriptors are writable, which is no news.
        self.wait(Some(Duration::ZERO))?;
        while !self.events.is_empty() {
            self.wait(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Takes the answers to the handshakes from `first` on; those that are complete stay as they are.
    fn finish_opening(&mut self, plan: &Plan, first: usize) -> io::Result<()> {
        if plan.opening.is_none() {
            return self.ask_last(plan);
        }
        for link in &mut self.all[first..] {
            if link.incoming.is_open() {
                continue;
            }
            let mut head = Vec::new();
            while !is_accepted(&head)? {
                wait_for(&link.transport)?;
                match link.transport.read(&mut self.buffer[..1024])? {
                    Some(0) => {
                        return Err(io::Error::other("the server closed a connection in its handshake"));
                    }
                    Some(length) => head.extend_from_slice(&self.buffer[..length]),
                    None => {}
                }
            }
            link.incoming.opened();
        }
        Ok(())
    }

    /// Without a handshake, an answer on the last connection says that the server has accepted it, and those before.
    fn ask_last(&mut self, plan: &Plan) -> io::Result<()> {
        let Some(link) = self.all.last_mut() else { return Ok(()) };
        link.owed = 1;
        link.send(plan)?;
        while link.receive(plan, &mut self.buffer)? == 0 {
            link.send(plan)?;
            wait_for(&link.transport)?;
        }
        Ok(())
    }

    /// Waits for events, at most `timeout`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout
            .map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(events) => Ok(events),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What the last wait reported: which link, and whether it may be readable and writable.
    pub(crate) fn event(&self, at: usize) -> (usize, bool, bool) {
        let event = self.events[at];
        let flags = event.flags;
        let both = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        (
            event.data.u64() as usize,
            flags.intersects(epoll::EventFlags::IN | both),
            flags.intersects(epoll::EventFlags::OUT | both),
        )
    }
}

/// Whether the answer to a handshake is there, and what it should be.
pub(crate) fn is_accepted(head: &[u8]) -> io::Result<bool> {
    if !head.windows(4).any(|four| four == b"\r\n\r\n") {
        return Ok(false);
    }
    let accepted = head.windows(ACCEPT_KEY.len()).any(|key| key == ACCEPT_KEY);
    if !head.starts_with(b"HTTP/1.1 101") || !accepted || !head.ends_with(b"\r\n\r\n") {
        let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default())
            .into_owned();
        return Err(io::Error::other(format!("the handshake was refused: {line}")));
    }
    Ok(true)
}

/// Waits until something is there to be read.
pub(crate) fn wait_for(transport: &Transport) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    match poll(&mut [PollFd::new(transport, PollFlags::IN)], Some(&patience)) {
        Ok(0) => Err(silence()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn silence() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server has been silent for five seconds")
}
