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
//!     let site = context.io().add_site(Site::new().protocol("echo", echo));
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
