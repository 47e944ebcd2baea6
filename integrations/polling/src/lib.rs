//! lodger over the [`polling`] crate: a loop of one's own wherever `polling` watches level-triggered.
//!
//! It is the portable reference. `lodger-epoll` does the same with fewer system calls per turn; where that does not
//! build, or where `polling` is in the program already, take this one.
//!
//! ```
//! use lodger::Context;
//! use lodger_polling::Loop;
//! use std::time::Duration;
//!
//! let mut context = Context::new();
//! context.io().after(Duration::from_millis(1), |greeted: &mut bool, _| *greeted = true);
//! let mut greeted = false;
//! Loop::new()?.run(&mut context, &mut greeted)?;
//! assert!(greeted);
//! # Ok::<(), std::io::Error>(())
//! ```

mod own;
mod watcher;

pub use own::Loop;

// The tests of the loop, once more, with the audit between poller and context.
#[cfg(test)]
extern crate self as lodger_polling;
#[cfg(test)]
#[path = "../tests/own.rs"]
mod audited;
