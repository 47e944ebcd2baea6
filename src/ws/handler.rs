//! What an application writes for one WebSocket connection.

use super::extension::Deflate;
use super::{CloseFrame, Message, Piece, Receive, TooLarge};
use crate::context::Cx;
use crate::handler::Closed;
use crate::http::{Request, ResponseHead};
use crate::ids::ConnId;
use std::any::Any;

/// One WebSocket connection: its fields are the session, its methods what happens to it. Each has a default that does
/// the usual thing.
///
/// ```
/// use lodger::{Cx, ws};
///
/// struct Echo;
///
/// impl<D> ws::Handler<D> for Echo {
///     fn message(&mut self, cx: &mut Cx<'_, D>, message: ws::Message<'_>) {
///         // A peer that does not read what it gets is not read from either, so that nothing is lost.
///         let _ = cx.send(message);
///     }
/// }
/// ```
///
/// What `message` and `piece` answer with holds back what is read: once
/// [`Limits::send_high_water`](crate::Limits::send_high_water) bytes of answers wait ([`Flow::Full`](crate::Flow::Full)), no
/// further message comes until half of that is left, unless [`Conn::read_when_full`](crate::Conn::read_when_full) says
/// otherwise. What is sent from other events holds nothing back: there, heed `Full`, and go on in `writable`.
#[doc(alias("lws_callback_function", "LWS_CALLBACK_WS_SERVER_BIND_PROTOCOL"))]
pub trait Handler<D> {
    /// Whether messages come whole or in pieces. Asked once, when the connection opens.
    fn receive(&self) -> Receive {
        Receive::Whole
    }

    /// We are the server, and the opening handshake is done. The fields of the request are readable here for the last time.
    #[doc(alias("LWS_CALLBACK_ESTABLISHED", "LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED", "onopen"))]
    fn opened(&mut self, cx: &mut Cx<'_, D>, request: &Request<'_>) {
        let _ = (cx, request);
    }

    /// We are the client, and the server has accepted the opening handshake. `response` is readable here for the last time: its
    /// subprotocol, cookies, and whatever else it says. False refuses the connection
    /// ([`ConnectError::Rejected`](crate::ConnectError::Rejected)).
    #[doc(alias(
        "LWS_CALLBACK_CLIENT_ESTABLISHED",
        "LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH",
        "LWS_CALLBACK_WS_CLIENT_BIND_PROTOCOL"
    ))]
    fn connected(&mut self, cx: &mut Cx<'_, D>, response: &ResponseHead<'_>) -> bool {
        let _ = (cx, response);
        true
    }

    /// A message came, whole ([`Receive::Whole`]).
    #[doc(alias("LWS_CALLBACK_RECEIVE", "onmessage"))]
    fn message(&mut self, cx: &mut Cx<'_, D>, message: Message<'_>) {
        let _ = (cx, message);
    }

    /// A piece of a message came ([`Receive::Pieces`]).
    #[doc(alias("lws_remaining_packet_payload", "lws_is_final_fragment", "LWS_CALLBACK_RECEIVE"))]
    fn piece(&mut self, cx: &mut Cx<'_, D>, piece: Piece<'_>) {
        let _ = (cx, piece);
    }

    /// A frame or message is over the limit. Close 1009 is sent after this, and nothing more is received.
    #[doc(alias = "onframetoolarge")]
    fn too_large(&mut self, cx: &mut Cx<'_, D>, size: TooLarge) {
        let _ = (cx, size);
    }

    /// A Ping came. It is answered without the handler's help.
    #[doc(alias = "LWS_CALLBACK_RECEIVE_PING")]
    fn ping(&mut self, cx: &mut Cx<'_, D>, payload: &[u8]) {
        let _ = (cx, payload);
    }

    /// A Pong came.
    #[doc(alias = "LWS_CALLBACK_RECEIVE_PONG")]
    fn pong(&mut self, cx: &mut Cx<'_, D>, payload: &[u8]) {
        let _ = (cx, payload);
    }

    /// The peer began the closing handshake. What is sent here still goes out before our Close, which follows by itself
    /// with the peer's code; `close_with` chooses another, `abort` drops the connection instead.
    #[doc(alias = "LWS_CALLBACK_WS_PEER_INITIATED_CLOSE")]
    fn peer_closed(&mut self, cx: &mut Cx<'_, D>, close: Option<CloseFrame<'_>>) {
        let _ = (cx, close);
    }

    /// The peer has ended the connection without a Close: it has crashed, or its network has. What is queued, and what is sent
    /// here, is still written, for as long as [`Limits::closing`](crate::Limits::closing) and
    /// [`Limits::write_stall`](crate::Limits::write_stall) allow; then `closed` says
    /// [`CloseReason::PeerEnded`](crate::CloseReason::PeerEnded). Told at once, and once.
    ///
    /// While the conn is [paused](crate::Conn::pause), the end is found within seconds, though messages may lie unread in front of
    /// it, and a Close among them: the conn stays as it is, until it goes on or is closed.
    #[doc(alias = "onclose")]
    fn peer_ended(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// There is room to send, after [`Conn::request_writable`](crate::Conn::request_writable). May come without being
    /// asked for.
    #[doc(alias("LWS_CALLBACK_SERVER_WRITEABLE", "LWS_CALLBACK_CLIENT_WRITEABLE", "ondrain"))]
    fn writable(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// A broadcast ([`Io::broadcast`](crate::Io::broadcast), [`Remote::broadcast`](crate::Remote::broadcast)) has left this
    /// connection out, because more than [`Limits::send_max`](crate::Limits::send_max) bytes wait for its peer. It may have been
    /// left out of others since: this is told once, and again only after `writable` would have come. Who cannot do without what
    /// it missed is best dropped here, with [`Conn::abort`](crate::Conn::abort), since a Close would wait behind the rest.
    fn missed(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// The timer set with [`Conn::set_timer`](crate::Conn::set_timer) is due.
    #[doc(alias = "LWS_CALLBACK_TIMER")]
    fn timer(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// Somebody in the application sent this handler an event ([`Io::notify`](crate::Io::notify)).
    #[doc(alias("LWS_CALLBACK_USER", "LWS_CALLBACK_EVENT_WAIT_CANCELLED"))]
    fn event(&mut self, cx: &mut Cx<'_, D>, event: Box<dyn Any>) {
        let _ = (cx, event);
    }

    /// A conn whose parent this is ([`Conn::set_parent`](crate::Conn::set_parent)) has ended.
    #[doc(alias = "LWS_CALLBACK_CHILD_CLOSING")]
    fn child_closed(&mut self, cx: &mut Cx<'_, D>, child: ConnId) {
        let _ = (cx, child);
    }

    /// The connection is over. This is the last event; the handler is the caller's to drop or to use again.
    #[doc(alias(
        "LWS_CALLBACK_CLOSED",
        "LWS_CALLBACK_WSI_DESTROY",
        "LWS_CALLBACK_WS_SERVER_DROP_PROTOCOL",
        "onclose"
    ))]
    fn closed(self: Box<Self>, cx: &mut Cx<'_, D>, closed: Closed) {
        let _ = (cx, closed);
    }
}

/// A WebSocket connection that is to be: its handler, and what the response to the opening handshake says besides.
pub struct Accept<D> {
    pub(crate) handler: Box<dyn Handler<D>>,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) subprotocol: Option<Option<String>>,
    /// What is said instead of the site's.
    pub(crate) deflate: Option<Option<Deflate>>,
    /// Reading goes on when the output is full.
    pub(crate) read_when_full: bool,
}

impl<D> Accept<D> {
    /// The connection with this handler.
    pub fn new(handler: impl Handler<D> + 'static) -> Self {
        Self {
            handler: Box::new(handler),
            fields: Vec::new(),
            subprotocol: None,
            deflate: None,
            read_when_full: false,
        }
    }

    /// Adds a field to the response: a cookie, for one. What the handshake itself says cannot be added; a field with a
    /// name or a value that must not be sent turns the answer into 500.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Names the subprotocol to answer with, which must be among those offered (else the answer is 500); `None` for none.
    /// Without this call it is the name under which the site holds the protocol, if the client offers it.
    #[must_use]
    pub fn subprotocol(mut self, name: Option<&str>) -> Self {
        self.subprotocol = Some(name.map(str::to_owned));
        self
    }

    /// Reads on although the handler's answers wait for the client to read them
    /// ([`Conn::read_when_full`](crate::Conn::read_when_full)). Default: false.
    #[must_use]
    pub fn read_when_full(mut self, on: bool) -> Self {
        self.read_when_full = on;
        self
    }

    /// How this connection is to compress its messages, if the client offers that; `None`: not at all. Without this call it is as
    /// the site says ([`Site::deflate`](crate::Site::deflate)). What the client offers is in the request, in
    /// `Sec-WebSocket-Extensions`.
    #[cfg(feature = "deflate")]
    #[doc(alias("LWS_CALLBACK_CONFIRM_EXTENSION_OKAY", "LWS_CALLBACK_WS_EXT_DEFAULTS"))]
    #[must_use]
    pub fn deflate(mut self, deflate: impl Into<Option<Deflate>>) -> Self {
        self.deflate = Some(deflate.into());
        self
    }
}

impl<D> From<Accept<D>> for crate::handler::Decision<D> {
    fn from(accept: Accept<D>) -> Self {
        Self::WebSocket(accept)
    }
}
