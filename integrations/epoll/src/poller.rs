//! What the system offers for watching many descriptors: epoll or kqueue, level-triggered.

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "poller/epoll.rs"]
mod system;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "poller/kqueue.rs"]
mod system;

pub(crate) use system::Poller;

use lodger::Ready;
use lodger::audit::Calls;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd, RawFd};

/// What a wait reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A descriptor of lodger's.
    Ready(RawFd, Ready),
    /// The deadline that was armed has come: it was taken already.
    Own,
}

impl Poller {
    /// Whether something is ready now, or the deadline has come. Takes nothing.
    #[expect(clippy::disallowed_methods, reason = "with this timeout it does not wait")]
    pub(crate) fn is_readable(&self) -> io::Result<bool> {
        let mut own = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        Ok(poll(&mut own, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    }
}

impl Calls for Poller {}

/// What stands between a context and its poller: nothing, and an audit in the tests of this crate.
#[cfg(not(test))]
pub(crate) type Watched = Poller;
#[cfg(test)]
pub(crate) type Watched = lodger::audit::Audited<Poller>;

pub(crate) fn watched(poller: Poller) -> Watched {
    #[cfg(test)]
    let poller = Watched::new(poller).exclusive();
    poller
}
