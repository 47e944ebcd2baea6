//! What an application writes for one HTTP exchange.

use super::{Fields, Request};
use crate::context::Cx;
use crate::handler::Closed;
use crate::ids::ConnId;
use std::any::Any;

/// One HTTP exchange: a request and its response. Each method has a default.
///
/// The response is made with [`Cx::respond`](crate::Cx::respond), now or at any later time, or in pieces with
/// [`Response::stream`](crate::Response::stream), [`Cx::write`](crate::Cx::write) and
/// [`Conn::end_response`](crate::Conn::end_response).
///
/// ```
/// use lodger::{Cx, Response, http};
///
/// /// Answers with the content of the request.
/// #[derive(Default)]
/// struct Mirror(Vec<u8>);
///
/// impl<D> http::Handler<D> for Mirror {
///     fn body(&mut self, _cx: &mut Cx<'_, D>, piece: &[u8]) {
///         self.0.extend_from_slice(piece);
///     }
///
///     fn body_complete(&mut self, cx: &mut Cx<'_, D>, _trailers: &http::Fields) {
///         let content = std::mem::take(&mut self.0);
///         let _ = cx.respond(Response::bytes("application/octet-stream", content));
///     }
/// }
/// ```
#[doc(alias("LWS_CALLBACK_HTTP_BIND_PROTOCOL", "lws_callback_function"))]
pub trait Handler<D> {
    /// The request's head; its fields are readable here for the last time.
    #[doc(alias = "LWS_CALLBACK_HTTP")]
    fn request(&mut self, cx: &mut Cx<'_, D>, request: &Request<'_>) {
        let _ = (cx, request);
    }

    /// A piece of the request's content, with any chunked coding removed. While the conn is paused, none comes and the
    /// socket is not read; nor while [`Limits::send_high_water`](crate::Limits::send_high_water) bytes wait that were written
    /// here ([`Conn::read_when_full`](crate::Conn::read_when_full)).
    #[doc(alias = "LWS_CALLBACK_HTTP_BODY")]
    fn body(&mut self, cx: &mut Cx<'_, D>, piece: &[u8]) {
        let _ = (cx, piece);
    }

    /// The request is complete; at once when it has no content. `trailers` are the trailer fields of a chunked one.
    #[doc(alias = "LWS_CALLBACK_HTTP_BODY_COMPLETION")]
    fn body_complete(&mut self, cx: &mut Cx<'_, D>, trailers: &Fields) {
        let _ = (cx, trailers);
    }

    /// The peer has ended its direction: it has left, or it waits for its answer and sends no other request. Told at once, and
    /// once. What is sent still goes to a peer that is there; for one that is not, sending brings the end of the exchange. Who has
    /// nothing to send for [`Limits::half_closed`](crate::Limits::half_closed) hears `closed` then. An exchange whose content is
    /// cut short by that end is over at once, and hears `closed` instead of this.
    ///
    /// While the conn is [paused](crate::Conn::pause), or another request waits behind this one, the socket is not read: then an
    /// end is found within seconds.
    #[doc(alias("LWS_CALLBACK_WSI_DESTROY", "hang-up", "disconnect"))]
    fn peer_ended(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// There is room to send, after [`Conn::request_writable`](crate::Conn::request_writable).
    #[doc(alias = "LWS_CALLBACK_HTTP_WRITEABLE")]
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

    /// The exchange is over: complete ([`CloseReason::Completed`](crate::CloseReason::Completed)) or not. The last event.
    #[doc(alias(
        "LWS_CALLBACK_CLOSED_HTTP",
        "LWS_CALLBACK_HTTP_DROP_PROTOCOL",
        "LWS_CALLBACK_HTTP_FILE_COMPLETION"
    ))]
    fn closed(self: Box<Self>, cx: &mut Cx<'_, D>, closed: Closed) {
        let _ = (cx, closed);
    }
}
