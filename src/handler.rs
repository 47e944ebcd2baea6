//! What applications write: protocols, and what all handlers have in common.

use crate::client::{ConnectError, ExchangeError};
use crate::context::Io;
use crate::http;
use crate::http::{Request, Response};
use crate::ids::{ConnId, ListenerId, ProtocolId};
use crate::net::Peer;
use crate::transport::TlsError;
use crate::ws::{self, CloseCode, ProtocolError};
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// One protocol of a [`Site`](crate::Site): sees each request that is its own and decides what becomes of it.
///
/// A closure `FnMut(&Request<'_>, &mut D, &mut Io<D>) -> Decision<D>` is one too.
///
/// ```
/// use lodger::{Decision, Io, Protocol, Request, Response, ws};
///
/// struct Chat;
/// struct Member;
///
/// impl ws::Handler<Vec<String>> for Member {
///     fn message(&mut self, cx: &mut lodger::Cx<'_, Vec<String>>, message: ws::Message<'_>) {
///         if let ws::Message::Text(line) = message {
///             cx.data.push(line.to_owned());
///         }
///     }
/// }
///
/// impl Protocol<Vec<String>> for Chat {
///     fn accept(&mut self, request: &Request<'_>, log: &mut Vec<String>, _io: &mut Io<Vec<String>>) -> Decision<Vec<String>> {
///         if request.is_websocket() {
///             Decision::websocket(Member)
///         } else {
///             Decision::respond(Response::text(log.join("\n")))
///         }
///     }
/// }
/// ```
#[doc(alias("lws_protocols", "protocols[]"))]
pub trait Protocol<D> {
    /// The site that holds the protocol has begun. Called once, from the service call that follows; `id` names the
    /// protocol for [`Io::broadcast`] and the like.
    #[doc(alias = "LWS_CALLBACK_PROTOCOL_INIT")]
    fn started(&mut self, id: ProtocolId, data: &mut D, io: &mut Io<D>) {
        let _ = (id, data, io);
    }

    /// Whether to talk to `peer` at all. Asked of the site's first protocol right after accepting, before a byte is read
    /// or sent; refusing closes the connection at once, and nothing more is heard of it.
    #[doc(alias = "LWS_CALLBACK_FILTER_NETWORK_CONNECTION")]
    fn filter(&mut self, peer: &Peer, data: &mut D) -> bool {
        let _ = (peer, data);
        true
    }

    /// A connection has begun: one of the site's listeners has accepted it, and [`filter`](Self::filter) has let it in. Told of each,
    /// before a byte is read or sent and before its TLS handshake, also of those that never make a request; to the protocol that
    /// `filter` was asked of, whichever site and protocol a request will be for. The descriptor's number is the connection's name
    /// until [`connection_ended`](Self::connection_ended): [`Io::hang_up`] ends it, [`Io::find_fd`] finds its conn.
    ///
    /// Nothing is told here of raw listeners' connections, whose handlers hear `opened` and `closed`, and of adopted ones
    /// ([`Io::adopt_http`] and its kin).
    #[doc(alias("LWS_CALLBACK_WSI_CREATE", "LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED"))]
    fn connection_began(&mut self, connection: &Connection, data: &mut D, io: &mut Io<D>) {
        let _ = (connection, data, io);
    }

    /// A connection has ended whose beginning this protocol was told of by [`connection_began`](Self::connection_began). Told once of
    /// each, and last: the `closed` of its conn came before, save where the descriptor is given away
    /// ([`ConnectionEnd::Released`]), which comes after. From here on, and not before, the number may be that of something else.
    ///
    /// Not told where handlers hear no `closed` either, since the context is dropped or abandoned; nor once the protocol's own site
    /// has [`ended`](Self::ended), which connections of other sites at its listener may outlive.
    #[doc(alias("LWS_CALLBACK_WSI_DESTROY", "LWS_CALLBACK_CLOSED_HTTP"))]
    fn connection_ended(
        &mut self,
        connection: &Connection,
        reason: ConnectionEnd,
        data: &mut D,
        io: &mut Io<D>,
    ) {
        let _ = (connection, reason, data, io);
    }

    /// The host refused to watch a listener of the site, which is closed therefore. Told to the site's first protocol.
    fn listener_refused(&mut self, listener: ListenerId, error: io::Error, data: &mut D, io: &mut Io<D>) {
        let _ = (listener, error, data, io);
    }

    /// A TLS handshake is complete: `facts` says what it agreed on, and who the client showed itself to be. False refuses it,
    /// which closes the connection before anything was read. Asked of the first protocol of the site whose certificate was shown.
    #[cfg(feature = "tls")]
    #[doc(alias(
        "LWS_CALLBACK_SSL_INFO",
        "LWS_CALLBACK_OPENSSL_PERFORM_CLIENT_CERT_VERIFICATION",
        "SSL_set_info_callback"
    ))]
    fn secured(&mut self, peer: &Peer, facts: &crate::tls::Facts, data: &mut D) -> bool {
        let _ = (peer, facts, data);
        true
    }

    /// A TLS handshake has failed: one side has refused the other, or the peer left
    /// ([`HandshakeEnded`](crate::tls::TlsError::HandshakeEnded), [`HandshakeIo`](crate::tls::TlsError::HandshakeIo)), also
    /// without having sent anything, or [`Limits::handshake`](crate::Limits::handshake) was reached, or it gave way to a new
    /// connection ([`Builder::max_handshakes`](crate::Builder::max_handshakes)). The peer was told by an
    /// alert, where there is one. Told to the first protocol of the site. Raw connections hear of it by their `closed`.
    #[cfg(feature = "tls")]
    #[doc(alias("SSL_ERROR_SSL", "LWS_CALLBACK_SSL_INFO"))]
    fn handshake_failed(&mut self, peer: &Peer, error: &crate::tls::TlsError, data: &mut D, io: &mut Io<D>) {
        let _ = (peer, error, data, io);
    }

    /// How many days the site's certificate is still valid; none or less: it has expired. Told to the site's first protocol when
    /// the site begins, when 30, 14, 7, 3, 2 and 1 days are left, and then every day, until it is replaced.
    #[cfg(feature = "tls")]
    #[doc(alias = "LWS_CALLBACK_VHOST_CERT_AGING")]
    fn certificate_ages(
        &mut self,
        site: crate::SiteId,
        certificate: &crate::tls::Server,
        days_left: i64,
        data: &mut D,
        io: &mut Io<D>,
    ) {
        let _ = (site, certificate, days_left, data, io);
    }

    /// Decides about a request, with all of its head readable. Origin and Host name have been checked already
    /// ([`Site::origins`](crate::Site::origins), [`Site::hosts`](crate::Site::hosts)).
    ///
    /// For a WebSocket upgrade ([`Request::is_websocket`]) the opening handshake is known to be valid (RFC 6455, section
    /// 4.2.1), and the protocol was chosen by the subprotocols that the client offers.
    #[doc(alias(
        "LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION",
        "LWS_CALLBACK_FILTER_HTTP_CONNECTION",
        "LWS_CALLBACK_HTTP_CONFIRM_UPGRADE",
        "LWS_CALLBACK_HTTP"
    ))]
    fn accept(&mut self, request: &Request<'_>, data: &mut D, io: &mut Io<D>) -> Decision<D>;

    /// The site has ended, and with it the last of its connections. Called once.
    #[doc(alias = "LWS_CALLBACK_PROTOCOL_DESTROY")]
    fn ended(&mut self, data: &mut D, io: &mut Io<D>) {
        let _ = (data, io);
    }
}

impl<D, F> Protocol<D> for F
where
    F: FnMut(&Request<'_>, &mut D, &mut Io<D>) -> Decision<D>,
{
    fn accept(&mut self, request: &Request<'_>, data: &mut D, io: &mut Io<D>) -> Decision<D> {
        self(request, data, io)
    }
}

/// An accepted connection, as [`Protocol::connection_began`] and [`Protocol::connection_ended`] tell of it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Connection {
    /// The number of its descriptor, which is lodger's: to know the connection by, not to read, write or close.
    pub fd: RawFd,
    /// The address at the other end; for a Unix socket without a path.
    pub peer: Peer,
    /// The listener that has accepted it, which may have closed since.
    pub listener: ListenerId,
}

/// How an accepted connection ended ([`Protocol::connection_ended`]).
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectionEnd {
    /// It was closed. Where a conn ended with it, or it failed with one, this is what the conn's `closed` says; an HTTP connection that
    /// ends between requests has a reason of its own.
    Closed(CloseReason),
    /// Its descriptor goes to the application ([`Conn::release`](crate::Conn::release)).
    Released,
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(reason) => reason.fmt(f),
            Self::Released => f.write_str("released"),
        }
    }
}

/// What becomes of a request.
pub enum Decision<D> {
    /// The opening handshake succeeds, and the handler has the connection. For a request that is no upgrade the answer is
    /// 426 (RFC 9110, section 15.5.22).
    WebSocket(ws::Accept<D>),
    /// The handler has the exchange: it gets the content of the request and makes the response.
    Http(Box<dyn http::Handler<D>>),
    /// This is the response. Content that the request may have is read and dropped.
    Respond(Response),
    /// [`Io::decide`] will tell, within [`Limits::handshake`](crate::Limits::handshake); after that the answer is 503.
    Later,
}

impl<D> Decision<D> {
    /// The connection becomes a WebSocket with this handler.
    pub fn websocket(handler: impl ws::Handler<D> + 'static) -> Self {
        Self::WebSocket(ws::Accept::new(handler))
    }

    /// The handler answers.
    pub fn http(handler: impl http::Handler<D> + 'static) -> Self {
        Self::Http(Box::new(handler))
    }

    /// This is the answer.
    pub fn respond(response: Response) -> Self {
        Self::Respond(response)
    }
}

impl<D> fmt::Debug for Decision<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebSocket(_) => "WebSocket",
            Self::Http(_) => "Http",
            Self::Respond(_) => "Respond",
            Self::Later => "Later",
        })
    }
}

/// How a send went. Either way it is queued whole.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Flow {
    /// Send on.
    Ready,
    /// At least [`Limits::send_high_water`](crate::Limits::send_high_water) bytes wait: stop, ask with
    /// [`Conn::request_writable`](crate::Conn::request_writable), and go on when `writable` comes. Who sends in answer to what was
    /// received need not: nothing more is received for now ([`Conn::read_when_full`](crate::Conn::read_when_full)).
    Full,
}

/// How a conn ended: the last thing its handler hears.
#[doc(alias("LWS_CALLBACK_CLOSED", "LWS_CALLBACK_CLOSED_HTTP", "LWS_CALLBACK_RAW_CLOSE"))]
#[derive(Debug)]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
    /// How many bytes were accepted for sending and never handed to the system. 0 after an orderly end: what is lost of the end itself (a
    /// Close, a close_notify), because the peer has left without waiting for it, is not counted. Over TLS those that were
    /// encrypted count as they were to be sent, with what that adds: 22 bytes for each record of TLS 1.3.
    pub unsent: usize,
    /// How many sends were refused because too much waited ([`SendError::Overrun`](crate::SendError::Overrun)), and how many
    /// broadcasts left it out for that. What they would have sent, the peer has never got.
    pub refused: u64,
}

/// Why a conn ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// An HTTP exchange is complete: the response was handed over for sending, and the request received, or as much of it as
    /// anybody wanted. For a client: the last response was complete.
    #[doc(alias = "LWS_CALLBACK_HTTP_FILE_COMPLETION")]
    Completed,
    /// The WebSocket closing handshake took place (RFC 6455, section 7.1.4).
    Handshake {
        /// Who began it.
        by: By,
        /// The code the peer sent; `None` when its Close had none (1005).
        code: Option<CloseCode>,
        /// The reason the peer gave.
        reason: String,
    },
    /// We ended it, with `close` or `finish`, and the peer followed.
    Closed,
    /// We ended it, with `abort`.
    Aborted,
    /// The peer ended it without a word: end of input, for a WebSocket without a Close (1006), for HTTP within a request.
    PeerEnded,
    /// Reading or writing failed: reset by the peer, for one.
    Io(io::Error),
    /// The peer broke RFC 6455, and was told with [`ProtocolError::close_code`].
    Protocol(ProtocolError),
    /// The peer sent a frame or a message over the limit, and was told with 1009.
    TooLarge,
    /// Unfinished messages of all connections together held more than
    /// [`Builder::max_unfinished`](crate::Builder::max_unfinished), and the one that was under way here had moved least for what it
    /// held. The peer was told with 1013.
    MessageGaveWay,
    /// The system had no memory for what the peer sent, or for what was to be sent to it. A WebSocket's peer was told with 1009,
    /// where it is a message that found no room, a client of HTTP with 503, where there was no response yet.
    OutOfMemory,
    /// The content of a request broke RFC 9112.
    Content,
    /// The content of a request is over [`Limits::content`](crate::Limits::content); the answer was 413.
    ContentTooLarge,
    /// The handler's file turned out shorter than it was, or could not be read.
    File(io::Error),
    /// A limit was reached.
    TimedOut(Timeout),
    /// There was no room for a new connection, and this one gave way to it: its handshake was not complete, and it had been
    /// silent longest ([`Builder::max_handshakes`](crate::Builder::max_handshakes)).
    GaveWay,
    /// The host refused to watch the descriptor.
    Host(io::Error),
    /// The descriptor goes back to the application, with what had been read and not delivered.
    #[doc(alias = "adopt_socket_readbuf")]
    Released {
        /// The descriptor; the host watches it no more.
        descriptor: OwnedFd,
        /// Bytes that were read and not delivered.
        unread: Vec<u8>,
    },
    /// A client's connection did not come about. The handler's first event was this.
    #[doc(alias = "LWS_CALLBACK_CLIENT_CONNECTION_ERROR")]
    Connect(Box<ConnectError>),
    /// A server broke an HTTP exchange.
    Exchange(Box<ExchangeError>),
    /// The context left its loop ([`Context::leave`](crate::Context::leave)).
    Leaving,
    /// TLS failed, or ended without a word: what came may have been cut off.
    #[cfg(feature = "tls")]
    #[doc(alias("SSL_get_error", "LWS_SSL_CAPABLE_ERROR"))]
    Tls(crate::tls::TlsError),
}

impl CloseReason {
    /// What is told of an accepted connection that ends for this reason. A conn that ends with it has the reason itself.
    pub(crate) fn of_connection(&self) -> ConnectionEnd {
        ConnectionEnd::Closed(match self {
            Self::Released { .. } => return ConnectionEnd::Released,
            Self::Completed => Self::Completed,
            Self::Handshake { by, code, reason } => {
                Self::Handshake { by: *by, code: *code, reason: reason.clone() }
            }
            // No connection that was accepted is a client's.
            Self::Closed | Self::Connect(_) | Self::Exchange(_) => Self::Closed,
            Self::Aborted => Self::Aborted,
            Self::PeerEnded => Self::PeerEnded,
            Self::Io(error) => Self::Io(copy(error)),
            Self::Protocol(error) => Self::Protocol(*error),
            Self::TooLarge => Self::TooLarge,
            Self::Content => Self::Content,
            Self::ContentTooLarge => Self::ContentTooLarge,
            Self::File(error) => Self::File(copy(error)),
            Self::TimedOut(which) => Self::TimedOut(*which),
            Self::Host(error) => Self::Host(copy(error)),
            Self::GaveWay => Self::GaveWay,
            Self::MessageGaveWay => Self::MessageGaveWay,
            Self::OutOfMemory => Self::OutOfMemory,
            Self::Leaving => Self::Leaving,
            #[cfg(feature = "tls")]
            Self::Tls(error) => Self::Tls(error.clone()),
        })
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(error: TlsError) -> Self {
        Self::Tls(error)
    }

    #[cfg(not(feature = "tls"))]
    pub(crate) fn tls(error: TlsError) -> Self {
        Self::Io(error)
    }

    #[cfg(feature = "tls")]
    pub(crate) fn copy_of_tls(error: &TlsError) -> Self {
        Self::Tls(error.clone())
    }

    #[cfg(not(feature = "tls"))]
    pub(crate) fn copy_of_tls(error: &TlsError) -> Self {
        Self::Io(copy(error))
    }

    /// How a handshake has failed that ends for this reason; `None` if this side has ended it.
    #[cfg(feature = "tls")]
    pub(crate) fn in_handshake(&self) -> Option<TlsError> {
        match self {
            Self::Tls(error) => Some(error.clone()),
            Self::Io(error) => Some(TlsError::HandshakeIo(error.kind())),
            Self::TimedOut(_) => Some(TlsError::HandshakeTimedOut),
            Self::GaveWay => Some(TlsError::HandshakeGaveWay),
            _ => None,
        }
    }

    #[cfg(not(feature = "tls"))]
    pub(crate) fn in_handshake(&self) -> Option<TlsError> {
        None
    }
}

impl CloseReason {
    /// Whether a client that connects again, later and with the same settings, may well be served: the network or the server was
    /// in the way. Not so where this side has closed, where the server closed for good (1000, or a code that blames this side),
    /// and where the settings would fail again.
    #[doc(alias("lws_retry_sul_schedule", "reconnect"))]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_transient(),
            Self::Handshake { by: By::Peer, code: Some(code), .. } => {
                matches!(code.get(), 1001 | 1005 | 1006 | 1011 | 1012 | 1013 | 1014)
            }
            Self::Handshake { by: By::Peer, code: None, .. } => true,
            Self::PeerEnded | Self::Io(_) | Self::TimedOut(_) | Self::MessageGaveWay | Self::OutOfMemory => {
                true
            }
            Self::Exchange(error) => error.is_transient(),
            #[cfg(feature = "tls")]
            Self::Tls(error) => matches!(error, TlsError::Truncated),
            _ => false,
        }
    }
}

/// An error that says the same.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Who did it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum By {
    /// This side.
    Us,
    /// The peer.
    Peer,
}

/// Which limit of time was reached; each is a field of [`Limits`](crate::Limits).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Timeout {
    /// `handshake`: no decision came, or no request.
    Handshake,
    /// `keep_alive`: no further request came.
    KeepAlive,
    /// `body_stall`: the content of a request, or of a response, stopped coming.
    BodyStall,
    /// `message_stall`: a WebSocket message began and stopped coming.
    MessageStall,
    /// `begin_response`: the handler did not begin its response; the answer was 503.
    BeginResponse,
    /// `half_closed`: the client has ended its direction, and the handler had nothing more to send it.
    HalfClosed,
    /// `response`: a server has not answered.
    Response,
    /// `write_stall`: the peer takes nothing.
    WriteStall,
    /// `closing`: the peer did not follow our Close, or our end; or the handler closed within the content of its response, and did
    /// not complete it.
    Closing,
    /// `pong_wait`: silent after a Ping.
    PongWait,
    /// `idle`: no messages; the closing handshake, begun with 1001, was not answered either.
    Idle,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("exchange complete"),
            Self::Handshake { by, code, .. } => {
                let by = if *by == By::Us { "us" } else { "the peer" };
                match code {
                    Some(code) => write!(f, "closed by {by}, code {code}"),
                    None => write!(f, "closed by {by}, no code"),
                }
            }
            Self::Closed => f.write_str("closed by us"),
            Self::Aborted => f.write_str("aborted by us"),
            Self::PeerEnded => f.write_str("the peer ended the connection"),
            Self::Io(error) => write!(f, "reading or writing failed: {error}"),
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
            Self::TooLarge => f.write_str("message over the limit"),
            Self::MessageGaveWay => f.write_str("an unfinished message gave way to others"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Content => f.write_str("content malformed or cut short"),
            Self::ContentTooLarge => f.write_str("content over the limit"),
            Self::File(error) => write!(f, "file cannot be sent: {error}"),
            Self::TimedOut(which) => write!(f, "timed out: {which:?}"),
            Self::GaveWay => f.write_str("gave way to a new connection"),
            Self::Host(error) => write!(f, "the host refused the descriptor: {error}"),
            Self::Released { .. } => f.write_str("released"),
            Self::Connect(error) => error.fmt(f),
            Self::Exchange(error) => error.fmt(f),
            Self::Leaving => f.write_str("the context is leaving"),
            #[cfg(feature = "tls")]
            Self::Tls(error) => write!(f, "TLS failed: {error}"),
        }
    }
}

/// A handler of any role, as the store of handlers keeps it.
pub(crate) enum AnyHandler<D> {
    WebSocket(Box<dyn ws::Handler<D>>),
    Http(Box<dyn http::Handler<D>>),
    Raw(Box<dyn crate::raw::Handler<D>>),
    Client(Box<dyn http::ClientHandler<D>>),
    Descriptor(Box<dyn crate::fd::Handler<D>>),
}

/// What every handler hears, whatever its role.
pub(crate) enum Notice {
    Event(Box<dyn std::any::Any>),
    ChildClosed(ConnId),
    Timer,
    Writable,
    /// A broadcast has left it out.
    Missed,
    /// The peer has ended its half.
    PeerEnded,
}
