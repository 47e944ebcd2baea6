//! lodger in a [calloop] loop, beside Wayland, input, timers and whatever else is there. Handlers get the loop's own data.
//!
//! ```
//! use calloop::EventLoop;
//! use lodger::{Context, Cx, Decision, Io, Listen, Request, Response, Site, ws};
//!
//! /// The loop's data, as every other source of the loop gets it.
//! #[derive(Default)]
//! struct Compositor {
//!     keys: String,
//!     frames: u32,
//! }
//!
//! struct Keyboard;
//!
//! impl ws::Handler<Compositor> for Keyboard {
//!     fn message(&mut self, cx: &mut Cx<'_, Compositor>, message: ws::Message<'_>) {
//!         if let ws::Message::Text(keys) = message {
//!             cx.data.keys.push_str(keys);
//!         }
//!     }
//! }
//!
//! fn accept(request: &Request<'_>, _: &mut Compositor, _: &mut Io<Compositor>) -> Decision<Compositor> {
//!     if request.is_websocket() { Decision::websocket(Keyboard) } else { Decision::respond(Response::text("hello")) }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut event_loop: EventLoop<'_, Compositor> = EventLoop::try_new()?;
//! let mut context = Context::new();
//! let site = context.io().add_site(Site::new().protocol("", accept))?;
//! context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
//! let lodger = lodger_calloop::insert(&event_loop.handle(), context)?;
//!
//! // Any other callback of the loop reaches the connections with a copy of `lodger`:
//! let local = lodger.clone();
//! event_loop.handle().insert_idle(move |compositor| {
//!     local.with(compositor, |compositor, io| compositor.frames += io.link_count() as u32);
//! });
//!
//! let mut compositor = Compositor::default();
//! event_loop.dispatch(std::time::Duration::ZERO, &mut compositor)?;
//! assert_eq!(compositor.frames, 1);
//! lodger.leave(&event_loop.handle(), &mut compositor);
//! # Ok(())
//! # }
//! ```
//!
//! # How it lives there
//!
//! calloop watches one descriptor, however many connections there are; the descriptors of the connections, lodger's
//! deadline and its wake-up are behind that one ([`lodger_epoll::Single`]). calloop is asked to change nothing while
//! connections come and go, and the source has none of calloop's hooks around sleeping.
//!
//! One dispatch serves a bounded batch of connections ([`Local::set_batch`]); then the loop's other sources have their turn, so
//! that a flood of messages costs no frame.

#![forbid(unsafe_code)]

mod local;

pub use local::{Local, insert};
#[cfg(not(test))]
use lodger_epoll::Single;

// What is behind the descriptor once more, and the battery, with the audit between poller and context.
#[cfg(test)]
extern crate self as lodger_calloop;
#[cfg(test)]
#[path = "../tests/battery.rs"]
mod audited_battery;
#[cfg(test)]
#[path = "../../epoll/src/poller.rs"]
#[allow(dead_code, reason = "some of it is for a loop of one's own")]
mod poller;
#[cfg(test)]
#[path = "../../epoll/src/single.rs"]
#[allow(unreachable_pub, reason = "it is public where it belongs")]
mod single;
#[cfg(test)]
use single::Single;
