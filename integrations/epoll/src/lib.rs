//! lodger over epoll (Linux) or kqueue (macOS and the BSDs): a loop of one's own, and one descriptor that stands for all of
//! lodger's in somebody else's loop.
//!
//! [`Loop`] is for programs that have no loop, or want lodger's in a thread of its own. [`Single`] is for loops that can
//! watch only few descriptors, or that pay for each: a `poll(2)` array with thousands of entries, glib, mio, tokio, calloop, Qt.
//! It keeps lodger's descriptors, its deadline and its wake-up behind one descriptor of its own:
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

mod own;
mod poller;
mod single;

pub use own::Loop;
pub use single::Single;
