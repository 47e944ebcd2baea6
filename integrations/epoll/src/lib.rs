//! lodger over epoll (Linux) or kqueue (macOS and the BSDs): a loop of one's own, and one descriptor that stands for all of
//! lodger's in somebody else's loop.
//!
//! [`Loop`] is for programs that have no loop, or want lodger's in a thread of its own. [`Single`] is for loops that can
//! watch only few descriptors, or that pay for each: a `poll(2)` array with thousands of entries, glib, mio, tokio, calloop, Qt.
//! It keeps lodger's descriptors, its deadline and its wake-up behind one descriptor of its own, and a turn costs what is ready,
//! however many connections there are:
//!
//! ```
//! use lodger::Context;
//! use lodger_epoll::Single;
//! use std::os::fd::AsFd;
//! use std::time::Duration;
//!
//! let mut context: Context<Vec<&str>> = Context::new();
//! context.io().after(Duration::ZERO, |said, _io| said.push("hello"));
//! let mut lodger = Single::new(context)?;
//!
//! // The host watches `lodger.as_fd()` for readability, and whenever it is readable:
//! let mut said = Vec::new();
//! lodger.dispatch(64, &mut said)?;
//! assert_eq!(said, ["hello"]);
//! # let _ = lodger.as_fd();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! System calls beside those that serve what is ready, in a turn that changes nothing:
//!
//! | | |
//! |---|---|
//! | [`Loop`] | 1: the wait |
//! | [`Single`] | 1: a look at what is ready; the host's own wait comes to that |
//! | [`Single`], edge-triggered | 2: and a look at what is left |
//!
//! Echoing a message takes two more, one read and one write. A descriptor that comes, goes, or is watched for something
//! else takes one each.

mod own;
mod poller;
mod single;

pub use own::Loop;
pub use single::Single;

// The tests of the two, once more, with the audit between poller and context.
#[cfg(test)]
extern crate self as lodger_epoll;
#[cfg(test)]
#[path = "../tests/forking.rs"]
mod audited_forking;
#[cfg(test)]
#[path = "../tests/own.rs"]
mod audited_own;
#[cfg(test)]
#[path = "../tests/single.rs"]
mod audited_single;
