//! Connections to servers: what to connect to, through what, and what stood in the way.
//!
//! A client lives in the same context and loop as a server, and holds up neither: names are looked up beside the loop
//! ([`resolve`](crate::resolve)), addresses are raced (RFC 8305), and every step has its time.
//! [`Io::connect`](crate::Io::connect) opens a WebSocket, [`Io::connect_http`](crate::Io::connect_http) an HTTP connection,
//! [`Io::connect_raw`](crate::Io::connect_raw) one of bytes. One that is to be kept up connects again in its `closed`:
//!
//! ```
//! use lodger::client::Backoff;
//! use lodger::{Closed, CloseReason, Connect, Context, Cx, http, ws};
//!
//! struct Feed {
//!     connect: Connect,
//!     backoff: Backoff,
//! }
//!
//! impl<D> ws::Handler<D> for Feed {
//!     fn connected(&mut self, cx: &mut Cx<'_, D>, _response: &http::ResponseHead<'_>) -> bool {
//!         self.backoff.opened(cx.io.now());
//!         true
//!     }
//!
//!     fn closed(mut self: Box<Self>, cx: &mut Cx<'_, D>, closed: Closed) {
//!         if closed.reason.is_transient() {
//!             let delay = cx.io.next_delay(&mut self.backoff);
//!             cx.io.connect(self.connect.clone().after(delay), self);
//!         }
//!     }
//! }
//!
//! let mut context: Context = Context::new();
//! let connect = Connect::to("ws://localhost:7681/feed");
//! let feed = Feed { connect: connect.clone(), backoff: Backoff::default() };
//! context.io().connect(connect, Box::new(feed));
//! # context.abandon();
//! ```

mod backoff;
mod connect;
mod drive;
mod error;
pub(crate) mod proxy;
mod url;

pub use backoff::Backoff;
pub use connect::Connect;
pub use error::{Attempt, ConnectError, ExchangeError, RedirectError, Refusal, Step};
pub use proxy::{Proxy, ProxyError, ProxyUrlError, SocksReply};
pub use url::UrlError;
pub(crate) use url::{Host, Scheme, Url};
