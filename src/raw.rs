//! Bytes as they are: connections without a protocol of lodger's.
//!
//! ```
//! use lodger::{Context, Cx, Limits, Listen, raw};
//!
//! struct Shout;
//!
//! impl<D> raw::Handler<D> for Shout {
//!     fn received(&mut self, cx: &mut Cx<'_, D>, bytes: &[u8]) {
//!         // What cannot be written yet waits, and holds back what is read: nothing is lost.
//!         let _ = cx.write(&bytes.to_ascii_uppercase());
//!     }
//! }
//!
//! # fn main() -> Result<(), lodger::ListenError> {
//! let mut context: Context = Context::new();
//! let listen = Listen::tcp(([127, 0, 0, 1], 0));
//! context.io().listen_raw(listen, Limits::default(), |_peer, _data, _io| Some(Box::new(Shout)))?;
//! # context.abandon();
//! # Ok(())
//! # }
//! ```

use crate::context::Cx;
use crate::handler::Closed;
use crate::ids::ConnId;
use std::any::Any;

/// One raw connection. Both directions end on their own: the peer's with [`end`](Self::end), ours with
/// [`Conn::finish`](crate::Conn::finish); when both have, the connection is over.
#[doc(alias("LWS_CALLBACK_RAW_SKT_BIND_PROTOCOL", "lws_callback_function"))]
pub trait Handler<D> {
    /// The connection is there.
    #[doc(alias("LWS_CALLBACK_RAW_ADOPT", "LWS_CALLBACK_RAW_CONNECTED"))]
    fn opened(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// Bytes came. What is written here holds back what is read, once
    /// [`Limits::send_high_water`](crate::Limits::send_high_water) bytes of it wait
    /// ([`Conn::read_when_full`](crate::Conn::read_when_full)).
    #[doc(alias = "LWS_CALLBACK_RAW_RX")]
    fn received(&mut self, cx: &mut Cx<'_, D>, bytes: &[u8]) {
        let _ = (cx, bytes);
    }

    /// The peer will send no more. The default ends our direction too, once what is queued has gone out.
    fn end(&mut self, cx: &mut Cx<'_, D>) {
        cx.conn().finish();
    }

    /// There is room to send, after [`Conn::request_writable`](crate::Conn::request_writable).
    #[doc(alias = "LWS_CALLBACK_RAW_WRITEABLE")]
    fn writable(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// The timer set with [`Conn::set_timer`](crate::Conn::set_timer) is due.
    #[doc(alias = "LWS_CALLBACK_TIMER")]
    fn timer(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// Somebody in the application sent this handler an event ([`Io::notify`](crate::Io::notify)).
    #[doc(alias = "LWS_CALLBACK_USER")]
    fn event(&mut self, cx: &mut Cx<'_, D>, event: Box<dyn Any>) {
        let _ = (cx, event);
    }

    /// A conn whose parent this is has ended.
    #[doc(alias = "LWS_CALLBACK_CHILD_CLOSING")]
    fn child_closed(&mut self, cx: &mut Cx<'_, D>, child: ConnId) {
        let _ = (cx, child);
    }

    /// The connection is over. The last event.
    #[doc(alias("LWS_CALLBACK_RAW_CLOSE", "LWS_CALLBACK_RAW_SKT_DROP_PROTOCOL"))]
    fn closed(self: Box<Self>, cx: &mut Cx<'_, D>, closed: Closed) {
        let _ = (cx, closed);
    }
}
