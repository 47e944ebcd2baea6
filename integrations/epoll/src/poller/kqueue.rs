//! kqueue, with its own timer for the deadline.

use super::Event;
use lodger::{Host, Interest, Ready};
use rustix::buffer::spare_capacity;
use rustix::event::kqueue::{self, EventFilter, EventFlags};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// Names the timer among timers; descriptors are another kind.
const TIMER: isize = 0;

pub(crate) struct Poller {
    kqueue: Queue,
    timer_armed: bool,
    events: Vec<kqueue::Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let kqueue = kqueue::kqueue()?;
        rustix::io::fcntl_setfd(&kqueue, rustix::io::FdFlags::CLOEXEC)?;
        let kqueue = Queue { fd: Some(kqueue), process: std::process::id() };
        Ok(Self { kqueue, timer_armed: false, events: Vec::new() })
    }

    /// One in which a deadline can be armed.
    pub(crate) fn with_timer() -> io::Result<Self> {
        Self::new()
    }

    /// In a forked child, which has not inherited the kqueue: one of its own.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        *self = Self::new()?;
        Ok(())
    }

    /// Waits for at most `timeout`, `None` is for ever, and takes at most `most` events.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, most: usize) -> io::Result<usize> {
        if self.events.capacity() != most {
            self.events = Vec::with_capacity(most);
        }
        self.events.clear();
        // SAFETY: nothing is registered here; what was is valid by the promise of `Host` (see `apply`).
        match unsafe { kqueue::kevent(&self.kqueue, &[], spare_capacity(&mut self.events), timeout) } {
            Ok(ready) => Ok(ready),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What the last wait reported.
    pub(crate) fn event(&self, at: usize) -> Option<Event> {
        let event = self.events.get(at)?;
        let end = if event.flags().contains(EventFlags::EOF) { Ready::HANG_UP } else { Ready::NONE };
        match event.filter() {
            EventFilter::Read(fd) => Some(Event::Ready(fd, Ready::READ.with(end))),
            // The end of a socket's writing half says nothing of what is still to be read.
            EventFilter::Write(fd) => Some(Event::Ready(fd, Ready::WRITE)),
            _ => Some(Event::Own),
        }
    }

    /// Makes the poller readable after `delay`, zero for at once; `None` disarms.
    pub(crate) fn arm(&mut self, delay: Option<Duration>) -> io::Result<()> {
        let flags = match delay {
            Some(_) => EventFlags::ADD | EventFlags::ONESHOT,
            None if self.timer_armed => EventFlags::DELETE,
            None => return Ok(()),
        };
        // Whole milliseconds, rounded up: some systems know no finer ones, and none may fire early.
        let millis =
            delay.map(|delay| Duration::from_millis(delay.as_nanos().div_ceil(1_000_000).max(1) as u64));
        let result = self.apply(EventFilter::Timer { ident: TIMER, timer: millis }, flags);
        self.timer_armed = delay.is_some();
        match result {
            // It has fired since, and is gone.
            Err(error) if delay.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn apply(&self, filter: EventFilter, flags: EventFlags) -> io::Result<()> {
        let change = [kqueue::Event::new(filter, flags, ptr::null_mut())];
        let mut none: [kqueue::Event; 0] = [];
        // SAFETY: `Host` promises that a descriptor stays open from its `add` to the end of its `remove`, which takes its
        // filters out; a timer names no descriptor.
        unsafe { kqueue::kevent(&self.kqueue, &change, &mut none, Some(Duration::ZERO)) }?;
        Ok(())
    }

    fn set(&self, fd: BorrowedFd<'_>, interest: Interest, flags: EventFlags) -> io::Result<()> {
        if interest.is_readable() {
            self.apply(EventFilter::Read(fd.as_raw_fd()), flags)?;
        }
        if interest.is_writable() {
            self.apply(EventFilter::Write(fd.as_raw_fd()), flags)?;
        }
        Ok(())
    }
}

impl Host for Poller {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.set(fd, interest, EventFlags::ADD)
    }

    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()> {
        self.set(fd, interest.set_bits(previous), EventFlags::ADD)?;
        self.set(fd, interest.clear_bits(previous), EventFlags::DELETE)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        for filter in [Interest::READ, Interest::WRITE] {
            // The one that was not added is not found.
            let _ = self.set(fd, filter, EventFlags::DELETE);
        }
    }
}

/// A kqueue, closed in the process that made it. A forked child does not inherit it: the number is free there, or stands for
/// something else by now.
struct Queue {
    /// There until it is dropped.
    fd: Option<OwnedFd>,
    process: u32,
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("it is taken out only when it is dropped").as_fd()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take().filter(|_| self.process != std::process::id()) {
            let _ = fd.into_raw_fd();
        }
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("kqueue", &self.as_fd()).finish_non_exhaustive()
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kqueue.as_fd()
    }
}
