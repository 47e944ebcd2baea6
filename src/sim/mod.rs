//! A simulated world: network, peers, time and loop in memory, from a seed, so that a failing test replays exactly.
//!
//! ```
//! use lodger::{Context, Cx, Decision, Io, Listen, Request, Site, sim, ws};
//!
//! struct Echo;
//!
//! impl ws::Handler<()> for Echo {
//!     fn message(&mut self, cx: &mut Cx<'_, ()>, message: ws::Message<'_>) {
//!         let _ = cx.send(message);
//!     }
//! }
//!
//! for seed in sim::seeds(20) {
//!     let mut world = sim::World::new(seed);
//!     world.chaos(sim::Chaos::wild());
//!     let mut context: Context = world.builder().build();
//!     let echo = |_: &Request<'_>, _: &mut (), _: &mut Io<()>| Decision::websocket(Echo);
//!     let site = context.io().add_site(Site::new().protocol("", echo))?;
//!     let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
//!     let address = context.io().local_addr(listener).expect("it listens");
//!
//!     let mut peer = world.connect(&address)?;
//!     peer.upgrade("/");
//!     peer.send_text("hello");
//!     world.run(&mut context, &mut ());
//!     assert!(peer.upgraded());
//!     assert_eq!(peer.next_frame(), Some(sim::Frame::text("hello")));
//!
//!     world.leave(&mut context, &mut ());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing happens by itself: [`run`](Loop::run) takes turns until there is nothing to do, [`advance`](World::advance) and
//! [`run_for`](Loop::run_for) move the clock. [`Chaos`] makes the system calls and the loop as unkind as they may be.
//! The host of each [`Loop`] checks lodger's side of the contract, and `run` notices a loop that spins.
//!
//! When a test panics, the world says what happened last and from which seed. It depends on nothing else, as long as
//! descriptors are closed by the library, or by [`Network::close`], and other threads keep out of it.
//!
//! This module is not bound by semantic versioning.

mod chaos;
mod endpoint;
mod host;
mod log;
mod names;
mod network;
mod random;
mod stream;
mod time;
mod turns;
mod wire;
mod world;

pub use chaos::Chaos;
pub use endpoint::{Endpoint, Server};
pub use host::{Change, Host};
pub use names::Names;
pub use network::{Network, Reach};
pub use turns::Loop;
pub use wire::{Answer, Frame};
pub use world::{World, seeds};

#[cfg(test)]
mod tests;
