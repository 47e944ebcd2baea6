//! epoll, with a timerfd for the deadline.

use super::Event;
use lodger::{Host, Interest, Ready};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// The token of the timer: no descriptor has this number.
const TIMER: u64 = u64::MAX;

pub(crate) struct Poller {
    epoll: OwnedFd,
    /// Where a deadline can be armed.
    timer: Option<OwnedFd>,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, timer: None, events: Vec::new() })
    }

    /// One in which a deadline can be armed.
    pub(crate) fn with_timer() -> io::Result<Self> {
        let mut poller = Self::new()?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&poller.epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        poller.timer = Some(timer);
        Ok(poller)
    }

    /// In a forked child, which shares the set and the timer with its parent: empty ones of its own.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        *self = if self.timer.is_some() { Self::with_timer()? } else { Self::new()? };
        Ok(())
    }

    /// Waits for at most `timeout`, `None` is for ever, and takes at most `most` events.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, most: usize) -> io::Result<usize> {
        let timeout = timeout.map(timespec);
        if self.events.capacity() != most {
            self.events = Vec::with_capacity(most);
        }
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(ready) => Ok(ready),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What the last wait reported.
    pub(crate) fn event(&self, at: usize) -> Option<Event> {
        let event = self.events.get(at)?;
        let (token, flags) = (event.data.u64(), event.flags);
        Some(match RawFd::try_from(token) {
            Ok(fd) => Event::Ready(fd, ready(flags)),
            Err(_) => {
                self.take_timer();
                Event::Own
            }
        })
    }

    /// Makes the poller readable after `delay`, zero for at once; `None` disarms.
    pub(crate) fn arm(&mut self, delay: Option<Duration>) -> io::Result<()> {
        let Some(timer) = &self.timer else { return Err(io::ErrorKind::Unsupported.into()) };
        // Zero would disarm it.
        let value = delay.map_or(Duration::ZERO, |delay| delay.max(Duration::from_nanos(1)));
        let setting = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(value) };
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }

    fn take_timer(&self) {
        if let Some(timer) = &self.timer {
            let _ = rustix::io::read(timer, &mut [0; 8]);
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    let tv_sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: duration.subsec_nanos().into() }
}

fn flags(interest: Interest) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, interest.is_readable());
    flags.set(epoll::EventFlags::OUT, interest.is_writable());
    flags
}

fn ready(flags: epoll::EventFlags) -> Ready {
    let known = [
        (epoll::EventFlags::IN, Ready::READ),
        (epoll::EventFlags::OUT, Ready::WRITE),
        (epoll::EventFlags::HUP, Ready::HANG_UP),
        (epoll::EventFlags::ERR, Ready::ERROR),
    ];
    known
        .into_iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .fold(Ready::NONE, |all, (_, ready)| all.with(ready))
}

impl Host for Poller {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let token = epoll::EventData::new_u64(fd.as_raw_fd() as u64);
        Ok(epoll::add(&self.epoll, fd, token, flags(interest))?)
    }

    fn change(&mut self, fd: BorrowedFd<'_>, _previous: Interest, interest: Interest) -> io::Result<()> {
        let token = epoll::EventData::new_u64(fd.as_raw_fd() as u64);
        Ok(epoll::modify(&self.epoll, fd, token, flags(interest))?)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        // It was added and is open, so that this can only fail for want of memory; closing removes it then.
        let _ = epoll::delete(&self.epoll, fd);
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("epoll", &self.epoll)
            .field("timer", &self.timer)
            .finish_non_exhaustive()
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
