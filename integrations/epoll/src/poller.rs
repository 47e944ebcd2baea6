//! What the system offers for watching many descriptors: epoll or kqueue, level-triggered.

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "poller/epoll.rs"]
mod system;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "poller/kqueue.rs"]
mod system;

pub(crate) use system::Poller;

use lodger::Ready;
use std::os::fd::RawFd;

/// What a wait reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A descriptor of lodger's.
    Ready(RawFd, Ready),
    /// The deadline that was armed has come, or a wake-up of our own: it was taken already.
    Own,
}
