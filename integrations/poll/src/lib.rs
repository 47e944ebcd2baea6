//! lodger in a `poll(2)` array, and a loop for programs that have none.
//!
//! A server that has its own loop keeps three things side by side: the context, its state, and its array.
//!
//! ```no_run
//! use lodger::{Context, Cx, Decision, Io, Listen, Request, Site, ws};
//! use lodger_poll::PollArray;
//!
//! struct Server {
//!     echoed: usize,
//! }
//!
//! struct Echo;
//!
//! impl ws::Handler<Server> for Echo {
//!     fn message(&mut self, cx: &mut Cx<'_, Server>, message: ws::Message<'_>) {
//!         cx.data.echoed += 1;
//!         // What cannot be sent yet waits, and holds back what is read: nothing is lost.
//!         let _ = cx.send(message);
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut context = Context::new();
//!     let mut server = Server { echoed: 0 };
//!     let mut array = PollArray::new();
//!
//!     let echo = |_: &Request<'_>, _: &mut Server, _: &mut Io<Server>| Decision::websocket(Echo);
//!     let site = context.io().add_site(Site::new().protocol("echo", echo))?;
//!     context.io().listen(Listen::tcp(([127, 0, 0, 1], 8080)), site)?;
//!     array.insert_foreign(0, libc::POLLIN)?; // the server's own: standard input ends it
//!
//!     'running: loop {
//!         let wait = context.prepare(&mut array);
//!         array.wait(wait)?;
//!         while let Some(own) = array.serve(&mut context, &mut server) {
//!             if own.fd == 0 {
//!                 break 'running;
//!             }
//!         }
//!         context.service_timeouts(&mut server);
//!     }
//!     context.leave(&mut array, &mut server);
//!     println!("{} messages", server.echoed);
//!     Ok(())
//! }
//! ```
//!
//! - A server whose array is a `Vec<libc::pollfd>` keeps it: [`VecHost`], [`compact`] and [`poll`].
//! - A program without a loop takes [`Loop`].
//! - A program that is started with its listeners open (socket activation) asks [`inherited_listeners`].
//!
//! A turn in which nothing changes makes one system call beside those that serve what is ready, and allocates nothing.
//! Every ready descriptor is served in every turn, each for a bounded time, so the order of the array favours nobody.
//!
//! # Thousands of connections
//!
//! `poll(2)` looks at every entry in every turn, ready or not. With a few hundred connections, or where most of them are
//! busy, that does not matter. With thousands that are mostly silent it is nearly all that the server does: the array then
//! gets one entry for all of them, the descriptor of `lodger_epoll::Single`. Its price is one system call for each turn in
//! which lodger has something to do.
//!
//! | silent connections beside one that echoes | each in the array | all behind one descriptor |
//! |---|---|---|
//! | system calls for a message | 3: poll, read, write | 4: poll, epoll_wait, read, write |
//! | processor time for a message, with 1,000 | 200 us | 7 to 25 us |
//! | with 8,000 | 1,600 us | 7 to 25 us |
//!
//! ```
//! use lodger::{Context, Wait};
//! use lodger_epoll::Single;
//! use lodger_poll::PollArray;
//! use std::os::fd::AsRawFd;
//! # use std::time::Duration;
//!
//! struct Server {
//!     running: bool,
//! }
//!
//! let mut context = Context::new();
//! # context.io().after(Duration::from_millis(1), |server: &mut Server, _| server.running = false);
//! let mut lodger = Single::new(context)?;
//! let mut server = Server { running: true };
//! let mut array = PollArray::new();
//! array.insert_foreign(lodger.as_raw_fd(), libc::POLLIN)?;
//!
//! while server.running {
//!     array.wait(Wait::FOREVER)?; // lodger's deadline is behind the descriptor, too
//!     while let Some(entry) = array.next_ready() {
//!         if entry.fd == lodger.as_raw_fd() {
//!             lodger.dispatch(64, &mut server)?;
//!         } else {
//!             // the server's own
//!         }
//!     }
//! }
//! lodger.leave(&mut server);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! `echo --loop poll` and `echo --loop single-fd` are the same server both ways.

#![warn(unsafe_op_in_unsafe_fn)]
#![deny(unsafe_code)]

mod array;
mod inherited;
mod run;
#[allow(unsafe_code, reason = "poll(2), and owning what was inherited")]
mod sys;
mod vec;

pub use array::PollArray;
pub use inherited::inherited_listeners;
pub use run::Loop;
pub use vec::{VecHost, compact, poll};

// The tests of the loop, once more, with the audit between array and context.
#[cfg(test)]
extern crate self as lodger_poll;
#[cfg(test)]
#[path = "../tests/own.rs"]
mod audited;
