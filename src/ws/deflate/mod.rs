//! permessage-deflate (RFC 7692): messages are compressed, each as a whole.
//!
//! On lodger's own connections, [`Site::deflate`](crate::Site::deflate) is all that it takes; a decision can refuse it or ask for
//! something else ([`Accept::deflate`](super::Accept::deflate)), and on the live connection there is
//! [`Conn::deflate`](crate::Conn::deflate):
//!
//! ```
//! use lodger::{Decision, Io, Request, Site, ws};
//!
//! struct Quiet;
//! impl<D> ws::Handler<D> for Quiet {}
//!
//! let accept = |_: &Request<'_>, _: &mut (), _: &mut Io| Decision::websocket(Quiet);
//! let mut deflate = ws::Deflate::default();
//! deflate.threshold = 1024;
//! let site: Site<()> = Site::new().protocol("", accept).deflate(deflate);
//! # let _ = site;
//! ```
//!
//! # Secrets
//!
//! How much a message shrinks says how much of it occurs twice. If it holds a secret beside what an attacker has a say in, and the
//! attacker sees its length, through TLS too, the secret can be guessed bit by bit (CRIME, BREACH). Send such messages
//! with [`Conn::send_uncompressed`](crate::Conn::send_uncompressed), or refuse compression for such connections.
//!
//! # The codec
//!
//! Like the rest of [`ws`](super), this is also a codec without input or output of its own. In the opening handshake a server
//! [accepts](Deflate::accept) an offer, and a client [offers](Deflate::offer) and [checks](Deflate::accepted) what was
//! accepted: [`Parameters`]. With these, one connection has a [`Deflater`] for what it sends, and an [`Inflater`] with
//! which its [`Receiver`](super::Receiver) reads ([`next_inflated`](super::Receiver::next_inflated)).
//!
//! ```
//! use lodger::ws::deflate::{Compressors, Decompressors, Deflate, Deflater, Inflater};
//! use lodger::ws::{Event, Message, Receiver, Settings, Side};
//!
//! let options = Deflate::default();
//! let parameters = options.accept([&b"permessage-deflate; client_max_window_bits"[..]]).unwrap();
//! // What all connections share.
//! let (mut compressors, mut decompressors) = (Compressors::default(), Decompressors::default());
//!
//! // A client sends.
//! let mut deflater = Deflater::new(&options, &parameters, Side::Client);
//! let message = "to be compressed, ".repeat(100);
//! let mut bytes = Vec::new();
//! deflater.encode(&mut bytes, Message::Text(&message), Some([1, 2, 3, 4]), &mut compressors);
//! assert!(bytes.len() < 60);
//!
//! // The server receives.
//! let mut receiver = Receiver::new(Side::Server);
//! let mut inflater = Inflater::new(&parameters, Side::Server);
//! let settings = Settings::default();
//! let (used, event) = receiver.next_inflated(&mut bytes, &settings, &mut inflater, &mut decompressors)?;
//! assert_eq!(event, Some(Event::Message(Message::Text(&message))));
//! # Ok::<(), lodger::ws::ReceiveError>(())
//! ```
//!
//! # Memory
//!
//! A [`Compressor`] takes 137 to 495 KB, most of it whatever the window ([`Setting::memory`]), a [`Decompressor`]
//! [47.5 KB](Decompressor::MEMORY). They are made when first needed. A direction without context takeover borrows one from
//! [`Compressors`] or [`Decompressors`] for each message, so that all connections share a few; one with takeover keeps its
//! own, and [`Budget`] bounds what these take together.

mod codec;
pub(crate) mod link;
mod live;
mod negotiate;
mod pool;
mod receive;
mod send;
#[cfg(test)]
mod tests;

pub(crate) use link::{Deflated, Extended, Forms, Pools};

pub use codec::{Compressor, Decompressor, Progress, Setting, Step};
pub use live::{Live, Metrics, Volume};
pub use negotiate::{Deflate, Offer, Parameters, ResponseError};
pub use pool::{Budget, Compressors, Decompressors};
pub use receive::Inflater;
pub use send::{Deflater, message_header};

/// The reserved bit of the first frame of a compressed message (RFC 7692, section 6): RSV1.
pub(crate) const RSV: u8 = 0x40;
