//! WebSocket (RFC 6455): messages over a connection that began as HTTP.
//!
//! Below [`Handler`], which is what a WebSocket application implements, this module is a codec without any input or
//! output of its own, for people who have their own HTTP, TLS or transport. Bytes go in, events come out, answers are
//! appended to a buffer; lodger's own connections use the same parts.
//!
//! ```
//! use lodger::ws::{self, Event, Receiver, Settings, Side};
//!
//! let settings = Settings::default();
//! let mut receiver = Receiver::new(Side::Server);
//! // What was read from the transport: "Hello" in a masked text frame, and the first byte of what follows.
//! let mut input = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x88".to_vec();
//! // What is to be written to it.
//! let mut output = Vec::new();
//!
//! let mut used = 0;
//! loop {
//!     match receiver.next(&mut input[used..], &settings) {
//!         Ok((bytes, event)) => {
//!             used += bytes;
//!             match event {
//!                 Some(Event::Message(message)) => ws::encode(&mut output, message, None), // an echo
//!                 Some(Event::Ping(payload)) => ws::encode_pong(&mut output, payload, None)?,
//!                 Some(Event::Close(close)) => {
//!                     ws::encode_close(&mut output, close.map(|close| (close.code, "")), None);
//!                 }
//!                 Some(Event::Pong(_) | Event::Piece(_)) => {}
//!                 None => break, // all that was usable has been used
//!             }
//!         }
//!         Err(error) => {
//!             ws::encode_close(&mut output, Some((error.close_code(), "")), None);
//!             break; // write the output, then drop the transport
//!         }
//!     }
//! }
//! input.drain(..used); // the next bytes go behind the rest
//!
//! assert_eq!(input, b"\x88");
//! assert_eq!(output, b"\x81\x05Hello");
//! # Ok::<(), ws::ControlTooLong>(())
//! ```
//!
//! The parts: [`handshake`] judges the HTTP request that asks for a connection, and [`opening`] the response to it. [`Receiver`] turns bytes into
//! [`Event`]s. [`encode`], its relatives and [`Sender`] make frames. [`Closing`] says when the connection is to be
//! closed, and how it ended.

mod close;
#[cfg(feature = "deflate")]
pub mod deflate;
mod error;
pub(crate) mod extension;
#[cfg(feature = "deflate")]
mod extensions;
mod frame;
pub mod handshake;
pub mod mask;
mod message;
pub mod opening;
mod receive;
mod send;
mod utf8;

mod handler;
pub(crate) mod role;
mod shared;

#[cfg(feature = "deflate")]
pub use deflate::Deflate;
pub use handler::{Accept, Handler};
pub use shared::Shared;

pub use close::{CloseCode, CloseFrame, Closing, ClosingAction, ClosingInput, Outcome, encode_close};
pub use error::{ControlTooLong, ProtocolError, ReceiveError, SendPieceError, TooLarge};
pub use frame::{Header, HeaderBytes, Opcode, Side};
pub use message::{Event, Message, MessageKind, Piece};
pub(crate) use receive::{Progress, ShortFrame, Spare};
pub use receive::{Receive, Receiver, Settings};
pub use send::{Sender, encode, encode_ping, encode_pong, message_header};
