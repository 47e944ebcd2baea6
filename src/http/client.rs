//! What an application writes for an HTTP client's connection.

use super::{Fields, ResponseHead};
use crate::context::Cx;
use crate::handler::Closed;
use crate::ids::ConnId;
use std::any::Any;

/// A connection to an HTTP server: one request after another, each answered before the next
/// ([`Conn::request`](crate::Conn::request)).
///
/// ```
/// use lodger::{Connect, Context, Cx, http};
///
/// struct Print;
///
/// impl<D> http::ClientHandler<D> for Print {
///     fn response(&mut self, _cx: &mut Cx<'_, D>, response: &http::ResponseHead<'_>) {
///         println!("{}", response.status());
///     }
///
///     fn body(&mut self, _cx: &mut Cx<'_, D>, piece: &[u8]) {
///         print!("{}", String::from_utf8_lossy(piece));
///     }
/// }
///
/// let mut context: Context = Context::new();
/// let connect = Connect::to("http://localhost:8080/status");
/// context.io().connect_http(connect, http::ClientRequest::get(), Box::new(Print));
/// # context.abandon();
/// ```
#[doc(alias("LWS_CALLBACK_CLIENT_HTTP_BIND_PROTOCOL", "CURLOPT_WRITEFUNCTION", "CURLOPT_HEADERFUNCTION"))]
pub trait ClientHandler<D> {
    /// The connection stands, TLS included, and the first request was sent; the content of one that comes in pieces
    /// ([`ClientRequest::content_stream`](super::ClientRequest::content_stream)) may be written from here on. Told once, also
    /// where redirects lead elsewhere.
    #[doc(alias = "LWS_CALLBACK_CLIENT_ESTABLISHED")]
    fn connected(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// An interim response came (RFC 9110, section 15.2), 103 for one. 100 is acted upon, and not told.
    fn interim(&mut self, cx: &mut Cx<'_, D>, response: &ResponseHead<'_>) {
        let _ = (cx, response);
    }

    /// The head of the response. Its fields are readable here for the last time. `close` refuses the rest.
    #[doc(alias("LWS_CALLBACK_ESTABLISHED_CLIENT_HTTP", "LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH"))]
    fn response(&mut self, cx: &mut Cx<'_, D>, response: &ResponseHead<'_>) {
        let _ = (cx, response);
    }

    /// A piece of the response's content, the chunked coding removed. While the handler [pauses](crate::Conn::pause), the socket
    /// is not read; nor while [`Limits::send_high_water`](crate::Limits::send_high_water) bytes wait that were written here
    /// ([`Conn::read_when_full`](crate::Conn::read_when_full)).
    #[doc(alias("LWS_CALLBACK_RECEIVE_CLIENT_HTTP", "LWS_CALLBACK_RECEIVE_CLIENT_HTTP_READ"))]
    fn body(&mut self, cx: &mut Cx<'_, D>, piece: &[u8]) {
        let _ = (cx, piece);
    }

    /// The response is complete; `trailers` are the trailer fields of a chunked one. Another request may be made from here on,
    /// unless the server ends the connection. The default closes.
    #[doc(alias = "LWS_CALLBACK_COMPLETED_CLIENT_HTTP")]
    fn body_complete(&mut self, cx: &mut Cx<'_, D>, trailers: &Fields) {
        let _ = trailers;
        cx.close();
    }

    /// There is room to send, after [`Conn::request_writable`](crate::Conn::request_writable); or the server wants the content of
    /// a request that has waited for 100 (Continue).
    #[doc(alias("LWS_CALLBACK_CLIENT_HTTP_WRITEABLE", "lws_client_http_body_pending"))]
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

    /// The connection is over, or did not come about ([`CloseReason::Connect`](crate::CloseReason::Connect)).
    /// [`CloseReason::Completed`](crate::CloseReason::Completed): after a response that was complete. The last event.
    #[doc(alias("LWS_CALLBACK_CLOSED_CLIENT_HTTP", "LWS_CALLBACK_CLIENT_CONNECTION_ERROR"))]
    fn closed(self: Box<Self>, cx: &mut Cx<'_, D>, closed: Closed) {
        let _ = (cx, closed);
    }
}
