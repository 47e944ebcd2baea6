//! lodger's descriptors in a poller, under their own numbers.

use lodger::audit::Calls;
use lodger::{Host, Interest, Ready};
use polling::{Event, Events, PollMode, Poller};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// How many events one wait takes.
pub(crate) const EVENTS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

#[derive(Debug)]
pub(crate) struct Watcher {
    /// Shared with nobody: so that it can be left undropped.
    poller: Arc<Poller>,
    process: u32,
    events: Events,
    /// What the last wait reported, as lodger has it.
    ready: Vec<(RawFd, Ready)>,
}

impl Watcher {
    pub(crate) fn new() -> io::Result<Self> {
        let poller = Poller::new()?;
        if !poller.supports_level() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (poller, process) = (Arc::new(poller), std::process::id());
        Ok(Self { poller, process, events: Events::with_capacity(EVENTS), ready: Vec::new() })
    }

    /// In a forked child, which shares the poller with its parent: an empty one of its own.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        *self = Self::new()?;
        Ok(())
    }

    /// Waits for at most `timeout`, `None` is for ever, and says how many are ready.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.events.clear();
        self.ready.clear();
        match self.poller.wait(&mut self.events, timeout) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        }
        let known = |event: Event| Some((RawFd::try_from(event.key).ok()?, ready(&event)));
        self.ready.extend(self.events.iter().filter_map(known));
        Ok(self.ready.len())
    }

    /// What the last wait reported.
    pub(crate) fn event(&self, at: usize) -> Option<(RawFd, Ready)> {
        self.ready.get(at).copied()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // A poller that is dropped takes its timer from the epoll set, which is the parent's as well.
        if self.process != std::process::id() {
            std::mem::forget(Arc::clone(&self.poller));
        }
    }
}

fn event(fd: BorrowedFd<'_>, interest: Interest) -> Event {
    // An open descriptor's number is not negative.
    let key = usize::try_from(fd.as_raw_fd()).unwrap_or_default();
    Event::new(key, interest.is_readable(), interest.is_writable())
}

fn ready(event: &Event) -> Ready {
    let known = [
        (event.readable, Ready::READ),
        (event.writable, Ready::WRITE),
        (event.is_interrupt(), Ready::HANG_UP),
        (event.is_err() == Some(true), Ready::ERROR),
    ];
    known.into_iter().filter(|(on, _)| *on).fold(Ready::NONE, |all, (_, ready)| all.with(ready))
}

impl Host for Watcher {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        // SAFETY: the descriptor has to be deleted from the poller before it is closed. `Host` promises that it stays open
        // until `remove` has returned, and `remove` deletes it; only contexts call either, since this type is private.
        unsafe { self.poller.add_with_mode(fd.as_raw_fd(), event(fd, interest), PollMode::Level) }
    }

    fn change(&mut self, fd: BorrowedFd<'_>, _previous: Interest, interest: Interest) -> io::Result<()> {
        self.poller.modify_with_mode(fd, event(fd, interest), PollMode::Level)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        // It was added and is open, so that this can only fail for want of memory; closing removes it then.
        let _ = self.poller.delete(fd);
    }
}

impl Calls for Watcher {}

/// What stands between a context and its poller: nothing, and an audit in the tests of this crate.
#[cfg(not(test))]
pub(crate) type Watched = Watcher;
#[cfg(test)]
pub(crate) type Watched = lodger::audit::Audited<Watcher>;

pub(crate) fn watched(watcher: Watcher) -> Watched {
    #[cfg(test)]
    let watcher = Watched::new(watcher).exclusive();
    watcher
}
