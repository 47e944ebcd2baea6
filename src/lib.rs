//! HTTP, WebSocket and raw sockets that live in somebody else's event loop.
//!
//! lodger is a guest. It tells its host, the loop that is there already, which descriptors to watch; the host calls it when
//! one of them is ready; and it says when it next needs to run. It owns no loop and no signal, and never waits. The one
//! thread that it may have looks up names for clients, where [the system's resolver](resolve::SystemResolver) is not replaced.
//!
//! # The three obligations of a host
//!
//! 1. After the last use of the context, and before the loop can sleep:
//!    `let wait = context.prepare(&mut host)`; it sleeps no longer than `wait`.
//! 2. For each ready descriptor, its own or not: `context.service_fd(&mut pollfd, &mut data)`.
//! 3. After the sleep: `context.service_timeouts(&mut data)`.
//!
//! No flush call, no periodic tick, no "call again until", no draining until `EAGAIN`, no loop turn needed to shut down.
//!
//! # Side by side
//!
//! A server keeps three things side by side: the context, its own state, and its poll array. The state is lent to each
//! service call, and from there to the handlers; the array is where the context announces its descriptors.
//!
//! ```
//! use lodger::{Context, Cx, Decision, Io, Limits, Listen, Request, Response, Site, ws};
//! use lodger_poll::PollArray;
//!
//! /// The server's own state, which it had before lodger came.
//! #[derive(Default)]
//! struct State {
//!     messages: u64,
//! }
//!
//! struct Echo;
//!
//! impl ws::Handler<State> for Echo {
//!     fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
//!         cx.data.messages += 1;
//!         // What cannot be sent yet waits, and holds back what is read: nothing is lost.
//!         let _ = cx.send(message);
//!     }
//! }
//!
//! fn accept(request: &Request<'_>, state: &mut State, _io: &mut Io<State>) -> Decision<State> {
//!     if request.is_websocket() {
//!         Decision::websocket(Echo)
//!     } else {
//!         Decision::respond(Response::text(format!("{} messages so far\n", state.messages)))
//!     }
//! }
//!
//! struct Server {
//!     context: Context<State>,
//!     state: State,
//!     array: PollArray,
//! }
//!
//! impl Server {
//!     fn turn(&mut self) -> std::io::Result<()> {
//!         let wait = self.context.prepare(&mut self.array);
//!         self.array.wait(wait)?;
//!         while let Some(mine) = self.array.serve(&mut self.context, &mut self.state) {
//!             // An entry of the server's own, as before.
//!             println!("descriptor {} is ready", mine.fd);
//!         }
//!         self.context.service_timeouts(&mut self.state);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut server = Server { context: Context::new(), state: State::default(), array: PollArray::new() };
//! let site = server.context.io().add_site(Site::new().protocol("echo", accept).limits(Limits::default()))?;
//! server.context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
//! # server.context.io().after(std::time::Duration::ZERO, |_, _| {});
//! server.turn()?;
//! # server.context.leave(&mut server.array, &mut server.state);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! - [`client`]: connections to servers, WebSocket, HTTP and raw.
//! - [`Context`]: what a host calls. [`Host`]: what it implements. [`Io`], [`Conn`], [`Cx`]: what handlers use.
//! - [`ws`], [`http`], [`raw`], [`fd`]: a handler trait for each role. [`Site`] and [`Protocol`] choose the handler.
//! - `tls` (feature `tls`): secure transport under every role; [`Io::share_listener`] for several names on one port.
//! - [`Limits`]: every bound on what a peer can make lodger do.
//! - [`Remote`]: for other threads.
//! - [`audit`] checks both sides of the contract; `sim` (feature `sim`) runs servers in a simulated world.
//!
//! # Features
//!
//! - `libc`: [`Pollable`] for `libc::pollfd`, so that a poll array is served in place.
//! - `tls-aws-lc-rs`, `tls-ring`: `tls` with the cryptography of AWS-LC or of ring; `tls` alone takes a provider of the
//!   application's. `tls-webpki-roots` and `tls-native-roots` add roots to trust.
//! - `peer-names`: the names of peers' addresses, by `getnameinfo`.
//! - `deflate`: compressed messages, permessage-deflate (RFC 7692): [`Site`]`::deflate`, and the module `ws::deflate`.
//! - `sim`: the simulated world, for tests.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// The resolver of an example is tested here, where a resolver can be driven without a context.
#[cfg(test)]
extern crate self as lodger;

pub mod audit;
pub mod client;
mod conn;
mod context;
mod engine;
mod env;
mod error;
mod exchange;
pub mod fd;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
mod handler;
pub mod host;
pub mod http;
mod http1;
mod ids;
mod io;
pub mod limits;
mod memory;
mod net;
pub mod raw;
pub mod remote;
pub mod resolve;
mod role;
#[cfg(feature = "sim")]
pub mod sim;
mod site;
#[cfg(feature = "tls")]
pub mod tls;
mod transport;
pub mod ws;

pub use client::{Connect, ConnectError, Proxy};
pub use conn::Conn;
pub use context::{Builder, Context};
pub use env::{Env, SystemEnv};
pub use error::{AdoptError, AdoptRefused, Gone, ListenError, SendError, SiteError};
pub use handler::{By, CloseReason, Closed, Connection, ConnectionEnd, Decision, Flow, Protocol, Timeout};
pub use host::{Host, Interest, PollFd, Pollable, Ready, Scope, Served, Wait};
pub use http::{Request, Response};
pub use ids::{ConnId, ListenerId, ProtocolId, SiteId, TaskId};
pub use io::{Broadcast, Cx, Io, LinkInfo};
pub use limits::Limits;
pub use net::{Keepalive, Listen, Peer};
pub use remote::{PostError, Remote};
pub use site::{Origins, Site};
pub use ws::Shared;

#[cfg(all(doctest, feature = "libc"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(doctest, feature = "tls-ring"))]
#[doc = include_str!("../docs/tls.md")]
struct TlsPage;

#[cfg(all(doctest, feature = "deflate"))]
#[doc = include_str!("../docs/deflate.md")]
struct DeflatePage;

#[cfg(all(doctest, feature = "libc", target_os = "linux"))]
#[doc = include_str!("../docs/adapters.md")]
struct Adapters;
