//! What lodger wants watched: a libuv watcher for each descriptor.

use crate::sys::{Events, Home, Poll};
use lodger::audit::Calls;
use lodger::{Host, Interest, Ready};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Weak;

/// The watchers of one guest.
pub(crate) struct Watchers {
    home: Home,
    events: Weak<dyn Events>,
    watchers: HashMap<RawFd, Watcher>,
    /// libuv has stopped watching these because of errors.
    failed: Vec<RawFd>,
}

struct Watcher {
    poll: Poll,
    interest: Interest,
    failed: bool,
}

impl Watchers {
    pub(crate) fn new(home: Home, events: Weak<dyn Events>) -> Self {
        Self { home, events, watchers: HashMap::new(), failed: Vec::new() }
    }

    /// What to report of a descriptor whose watcher libuv has stopped: the error, and what was waited for.
    pub(crate) fn failed(&mut self, fd: RawFd) -> Ready {
        let Some(watcher) = self.watchers.get_mut(&fd) else { return Ready::ERROR };
        watcher.failed = true;
        self.failed.push(fd);
        let readable = if watcher.interest.is_readable() { Ready::READ } else { Ready::NONE };
        let writable = if watcher.interest.is_writable() { Ready::WRITE } else { Ready::NONE };
        Ready::ERROR.with(readable).with(writable)
    }

    /// Starts what has failed and is to be watched all the same.
    pub(crate) fn start_failed(&mut self) {
        for fd in std::mem::take(&mut self.failed) {
            // The number may stand for another registration by now, which has not failed.
            let Some(watcher) = self.watchers.get_mut(&fd).filter(|watcher| watcher.failed) else { continue };
            watcher.failed = watcher.poll.start(watcher.interest).is_err();
            if watcher.failed {
                self.failed.push(fd);
            }
        }
    }
}

impl Host for Watchers {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        let poll = Poll::new(&self.home, fd, self.events.clone())?;
        poll.start(interest)?;
        self.watchers.insert(fd, Watcher { poll, interest, failed: false });
        Ok(())
    }

    fn change(&mut self, fd: BorrowedFd<'_>, _previous: Interest, interest: Interest) -> io::Result<()> {
        let watcher = self.watchers.get_mut(&fd.as_raw_fd()).ok_or(io::ErrorKind::NotFound)?;
        watcher.poll.start(interest)?;
        watcher.interest = interest;
        watcher.failed = false;
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        self.watchers.remove(&fd.as_raw_fd());
    }
}

impl Calls for Watchers {}

/// What stands between a context and its watchers: nothing, and an audit in the tests of this crate.
#[cfg(not(test))]
pub(crate) type Watched = Watchers;
#[cfg(test)]
pub(crate) type Watched = lodger::audit::Audited<Watchers>;

pub(crate) fn watched(watchers: Watchers) -> Watched {
    #[cfg(test)]
    let watchers = Watched::new(watchers).exclusive();
    watchers
}
