//! lodger in a libuv loop, whoever owns it.
//!
//! [`Guest`] is a context that lives in a loop, beside whatever else does: timers, sockets, signals, Node's or Julia's whole
//! world. [`Guest::join`] moves it into an `uv_loop_t *` that a C program or another binding owns; [`Loop`] is a small loop
//! for Rust programs that have none.
//!
//! ```
//! use lodger::{Context, Cx, Decision, Io, Listen, Request, Response, Site, ws};
//! use lodger_libuv::Loop;
//! use std::time::Duration;
//!
//! struct Echo;
//!
//! impl ws::Handler<u64> for Echo {
//!     fn message(&mut self, cx: &mut Cx<'_, u64>, message: ws::Message<'_>) {
//!         *cx.data += 1;
//!         // What cannot be sent yet waits, and holds back what is read: nothing is lost.
//!         let _ = cx.send(message);
//!     }
//! }
//!
//! fn accept(_: &Request<'_>, _: &mut u64, _: &mut Io<u64>) -> Decision<u64> {
//!     Decision::websocket(Echo)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut context = Context::new();
//! let site = context.io().add_site(Site::new().protocol("", accept))?;
//! context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
//!
//! let mut uv = Loop::new()?;
//! let guest = uv.join(context, 0);
//! # guest.with(|_, io| { io.after(Duration::from_millis(1), |_, io| io.shutdown(ws::CloseCode::GOING_AWAY)); });
//! uv.run(); // or the program's own uv_run, where the loop is C's
//!
//! let messages = guest.leave();
//! uv.close()?;
//! # assert_eq!(messages, Some(0));
//! # Ok(())
//! # }
//! ```
//!
//! # In the loop
//!
//! A guest has an `uv_poll_t` for each descriptor, one `uv_timer_t` for lodger's deadline, one `uv_prepare_t` by which it hears
//! of each sleep before it begins, and one `uv_idle_t`, which is on only from a use of the context to that point: so the
//! loop neither sleeps nor ends before lodger has said what to watch, in whichever of the loop's phases the use came. Only
//! the prepare handle is ever ref'd, while there is something to wait for. Where nothing changes, nothing is called but that
//! one handle, and no system call is made. Other threads come in by [`Remote`](lodger::Remote), whose descriptor is polled like
//! the others.
//!
//! libuv loops must not be run within their own callbacks, so neither in handlers. Where that is done all the same, the others
//! in the loop are served meanwhile, the guest is when its handler has returned, and nothing of it is lost.
//!
//! # Building
//!
//! It needs libuv 1.19 or newer with its development files, found by pkg-config (Debian: `libuv1-dev` and `pkg-config`). The few
//! functions that it calls are declared by hand: no libclang is needed, and it gets along with any other binding of the
//! same libuv.

#![deny(unsafe_code)]

mod guest;
mod own;
#[allow(unsafe_code)]
mod sys;
#[cfg(test)]
mod tests;
mod watchers;

pub use guest::{Guest, Local};
pub use own::Loop;
pub use sys::uv_loop_t;

// The battery, once more, with the audit between watchers and context.
#[cfg(test)]
extern crate self as lodger_libuv;
#[cfg(test)]
#[path = "../tests/battery.rs"]
mod audited_battery;
