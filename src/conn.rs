//! A conn in the hands of whoever has its name: sending, flow control, timers, closing.

use crate::engine::conn::NO_PROTOCOL;
use crate::engine::link::State;
use crate::engine::store::Key;
use crate::engine::timers::Timer;
use crate::error::SendError;
use crate::handler::{CloseReason, Flow};
use crate::host::Interest;
use crate::http::{ClientRequest, Response};
use crate::ids::{ConnId, ProtocolId};
use crate::io::Io;
use crate::net::{Keepalive, Peer};
use crate::role::Role;
use crate::ws::{CloseCode, Message, MessageKind, Shared};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

/// One conn, to be used at once: [`Io::conn`] finds it by its name, [`Cx::conn`](crate::Cx::conn) is the handler's own.
///
/// ```
/// use lodger::{ConnId, Flow, Io, ws};
///
/// /// Passes a line on; what the peer does not take now, it does not get.
/// fn tell<D>(io: &mut Io<D>, to: ConnId, line: &str) -> bool {
///     let Some(mut conn) = io.conn(to) else { return false };
///     conn.queued() == 0 && conn.send(line) == Ok(Flow::Ready)
/// }
/// ```
pub struct Conn<'a, D> {
    io: &'a mut Io<D>,
    key: Key,
}

impl<'a, D> Conn<'a, D> {
    pub(crate) fn new(io: &'a mut Io<D>, key: Key) -> Self {
        Self { io, key }
    }

    /// Its name.
    pub fn id(&self) -> ConnId {
        self.io.core.conn_id(self.key)
    }

    /// The place of its link, while it has one.
    fn link(&self) -> Option<u32> {
        let conn = self.io.core.conns.get(self.key)?;
        self.io.core.links.at(conn.link)?;
        Some(conn.link)
    }

    // Facts.

    /// The number of its descriptor.
    #[doc(alias = "lws_get_socket_fd")]
    pub fn fd(&self) -> Option<RawFd> {
        let index = self.link()?;
        let (_, link) = self.io.core.links.at(index)?;
        let lent = self.io.lent.as_ref().filter(|(lent, _)| *lent == index).map(|(_, fd)| fd.as_raw_fd());
        link.fd.as_ref().map(AsRawFd::as_raw_fd).or(lent)
    }

    /// Who is at the other end; `None` for adopted descriptors. For a Unix socket, the path is asked of the system.
    #[doc(alias = "lws_get_peer_addresses")]
    pub fn peer(&self) -> Option<Peer> {
        let (_, link) = self.io.core.links.at(self.link()?)?;
        match (link.peer(), &link.role) {
            (Some(address), _) => Some(Peer::Inet(address)),
            (None, Role::Descriptor(_)) => None,
            (None, _) => self.io.core.net.peer_addr(link.fd.as_ref()?.as_fd()).ok(),
        }
    }

    /// The protocol that it is bound to; `None` for raw connections and adopted descriptors.
    #[doc(alias = "lws_get_protocol")]
    pub fn protocol(&self) -> Option<ProtocolId> {
        let conn = self.io.core.conns.get(self.key)?;
        if conn.protocol == NO_PROTOCOL {
            return None;
        }
        let key = self.io.core.protocols.key_at(conn.protocol)?;
        Some(ProtocolId(self.io.core.origin.id(key)))
    }

    /// Whether the connection speaks TLS.
    #[doc(alias = "lws_is_ssl")]
    pub fn is_secure(&self) -> bool {
        self.link().and_then(|index| self.io.core.links.at(index)).is_some_and(|(_, link)| link.tls.is_some())
    }

    /// What the TLS handshake has agreed on, and who the peer showed itself to be. `None` without TLS, and before the
    /// handshake is complete.
    #[cfg(feature = "tls")]
    #[doc(alias("lws_tls_peer_cert_info", "SSL_get_peer_certificate", "LWS_CALLBACK_SSL_INFO"))]
    pub fn tls(&self) -> Option<crate::tls::Facts> {
        let (_, link) = self.io.core.links.at(self.link()?)?;
        link.tls.as_ref()?.facts()
    }

    /// How many bytes wait to be sent, the kernel's own buffer not counted.
    #[doc(alias("lws_partial_buffered", "bufferedAmount"))]
    pub fn queued(&self) -> usize {
        let Some(index) = self.link() else { return 0 };
        let gathered = if self.io.core.current == index { self.io.core.out.len() } else { 0 };
        self.io.core.links.at(index).map_or(0, |(_, link)| link.queued()) + gathered
    }

    /// How many bytes may be sent before [`Flow::Full`].
    #[doc(alias = "lws_get_peer_write_allowance")]
    pub fn room(&self) -> usize {
        let Some((_, link)) = self.link().and_then(|index| self.io.core.links.at(index)) else { return 0 };
        link.limits.send_high_water.saturating_sub(self.queued())
    }

    // Sending.

    /// Sends one WebSocket message as one unfragmented frame (RFC 6455, section 5.6).
    ///
    /// It is queued whole or not at all, and written when the current service call ends, or by the next `prepare`. Large
    /// messages are written at once, from where they lie. [`Flow::Full`] means that at least
    /// [`Limits::send_high_water`](crate::Limits::send_high_water) bytes now wait: stop, ask with
    /// [`request_writable`](Self::request_writable), and go on in `writable`. Who answers a message need not: the next one comes
    /// when there is room for its answer ([`read_when_full`](Self::read_when_full)).
    ///
    /// # Errors
    ///
    /// - [`SendError::Closing`]: the closing handshake has begun (section 5.5.1), or output has failed.
    /// - [`SendError::Overrun`]: `Full` was ignored until [`Limits::send_max`](crate::Limits::send_max) bytes waited. It is counted
    ///   ([`LinkInfo::refused`](crate::LinkInfo::refused), [`Closed::refused`](crate::Closed::refused)), and logged once.
    /// - [`SendError::InMessage`]: a message in pieces is under way.
    /// - [`SendError::Role`], [`SendError::Gone`].
    #[doc(alias("lws_write", "LWS_WRITE_TEXT", "LWS_WRITE_BINARY", "LWS_PRE"))]
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<Flow, SendError> {
        self.io.core.send_message(self.key, message.into())
    }

    /// Sends one message as [`send`](Self::send) does, uncompressed whatever was agreed on: one that holds a secret beside what
    /// somebody else has a say in ([`ws::deflate`](crate::ws::deflate)), or is compressed already.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[cfg(feature = "deflate")]
    #[doc(alias("BREACH", "CRIME", "LWS_WRITE_TEXT"))]
    pub fn send_uncompressed<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<Flow, SendError> {
        let sent = self.io.core.send_uncompressed(self.key, message.into());
        self.sent(sent)
    }

    /// permessage-deflate on this connection, to look at and to change; `None` if it was not agreed on.
    #[cfg(feature = "deflate")]
    #[doc(alias("lws_set_extension_option", "set_extension_option"))]
    pub fn deflate(&mut self) -> Option<crate::ws::deflate::Live<'_>> {
        let index = self.link()?;
        let core = &mut self.io.core;
        let Role::WebSocket(websocket) = &mut core.links.at_mut(index)?.role else { return None };
        websocket.deflated().map(|deflated| crate::ws::deflate::Live::new(deflated, &mut core.pools))
    }

    /// Sends a frame that was encoded once for many, without copying it. While a message in pieces is under way, it waits
    /// for the last of them.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_shared(&mut self, frame: &Shared) -> Result<Flow, SendError> {
        let sent = self.io.core.send_shared(self.key, frame);
        self.sent(sent)
    }

    /// Sends the next piece of a message as one fragment (RFC 6455, section 5.4); `last` ends the message. Control frames
    /// go between fragments.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`SendError::InMessage`] when `kind` is not that of the message under way, and
    /// [`SendError::InvalidUtf8`] when the text so far is not UTF-8, or ends within a character.
    #[doc(alias("LWS_WRITE_CONTINUATION", "LWS_WRITE_NO_FIN"))]
    pub fn send_piece(&mut self, kind: MessageKind, payload: &[u8], last: bool) -> Result<Flow, SendError> {
        let sent = self.io.core.send_piece(self.key, kind, payload, last);
        self.sent(sent)
    }

    /// Sends a Ping (RFC 6455, section 5.5.2).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`SendError::ControlTooLong`] beyond 125 bytes.
    #[doc(alias = "LWS_WRITE_PING")]
    pub fn ping(&mut self, payload: &[u8]) -> Result<Flow, SendError> {
        let sent = self.io.core.send_ping(self.key, payload);
        self.sent(sent)
    }

    /// Sends a Pong that nobody asked for (RFC 6455, section 5.5.3). Pings are answered without this.
    ///
    /// # Errors
    ///
    /// As [`ping`](Self::ping).
    #[doc(alias = "LWS_WRITE_PONG")]
    pub fn pong(&mut self, payload: &[u8]) -> Result<Flow, SendError> {
        let sent = self.io.core.send_pong(self.key, payload);
        self.sent(sent)
    }

    /// Sends bytes as they are on a raw connection, or the next piece of content of an HTTP response that was begun with
    /// [`Response::stream`], or of a request ([`ClientRequest::content_stream`]). Queued whole or not at all, as with [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// - [`SendError::Closing`]: output is over, by `finish`, `close` or a failed write.
    /// - [`SendError::Overrun`]: `Full` was ignored.
    /// - [`SendError::NotResponding`], [`SendError::Responded`], [`SendError::Length`]: for HTTP, the response has not begun,
    ///   is complete, or was announced shorter.
    /// - [`SendError::Role`], [`SendError::Gone`].
    #[doc(alias("lws_write", "LWS_WRITE_RAW", "LWS_WRITE_HTTP"))]
    pub fn write(&mut self, bytes: &[u8]) -> Result<Flow, SendError> {
        let sent = self.io.core.write_bytes(self.key, bytes);
        self.sent(sent)
    }

    /// Gives the response of an HTTP exchange: all of it, or its head, when it is a [`Response::stream`], the content of
    /// which follows with [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// [`SendError::Responded`], and as [`write`](Self::write): nothing was sent. [`SendError::Field`]: the response must not be
    /// sent; the answer is 500 and the connection ends behind it, since a handler that does not look would leave the client
    /// waiting.
    #[doc(alias("lws_add_http_header_status", "lws_finalize_http_header", "lws_serve_http_file"))]
    pub fn respond(&mut self, response: Response) -> Result<Flow, SendError> {
        let sent = self.io.core.respond(self.key, response);
        self.sent(sent)
    }

    /// Ends the content of a response that was sent in pieces.
    ///
    /// # Errors
    ///
    /// [`SendError::NotResponding`]; [`SendError::Length`] when less was sent than announced; and as
    /// [`write`](Self::write).
    #[doc(alias("lws_http_transaction_completed", "LWS_WRITE_HTTP_FINAL"))]
    pub fn end_response(&mut self) -> Result<Flow, SendError> {
        let sent = self.io.core.end_content(self.key);
        self.sent(sent)
    }

    /// Sends the next request on a client's connection, all of it, or its head, when its content comes in pieces
    /// ([`ClientRequest::content_stream`]), which follow with [`write`](Self::write) and
    /// [`end_request`](Self::end_request).
    ///
    /// # Errors
    ///
    /// [`SendError::InExchange`]: the last response is not complete; [`SendError::Closing`]: the server takes no other request
    /// on this connection; [`SendError::NotConnected`], [`SendError::Field`], [`SendError::Overrun`], [`SendError::Role`],
    /// [`SendError::Gone`]. Nothing was sent.
    #[doc(alias("lws_client_connect_via_info", "lws_client_http_body_pending"))]
    pub fn request(&mut self, request: ClientRequest) -> Result<Flow, SendError> {
        let sent = self.io.core.send_request(self.key, request);
        self.sent(sent)
    }

    /// Ends the content of a request that was sent in pieces.
    ///
    /// # Errors
    ///
    /// [`SendError::Length`] when less was sent than announced, [`SendError::Expecting`], and as [`write`](Self::write).
    #[doc(alias("LWS_WRITE_HTTP_FINAL", "lws_client_http_body_pending"))]
    pub fn end_request(&mut self) -> Result<Flow, SendError> {
        let sent = self.io.core.end_request_content(self.key);
        self.sent(sent)
    }

    /// Notes what came of a send.
    fn sent(&mut self, sent: Result<Flow, SendError>) -> Result<Flow, SendError> {
        self.io.core.sent(self.key, sent)
    }

    /// Asks for one `writable` event. If nothing stands in the way it comes in the same turn, without any change to what the
    /// host watches; else when the queue has emptied to half of the high-water mark.
    #[doc(alias = "lws_callback_on_writable")]
    pub fn request_writable(&mut self) {
        let Some(index) = self.link_in_use() else {
            return self.io.core.want_when_connected(self.key, |conn| conn.writable_wanted = true);
        };
        if let Role::Descriptor(interest) = &mut self.io.core.link(index).role {
            *interest = interest.with(Interest::WRITE);
            return self.io.core.mark(index);
        }
        if let Some(conn) = self.io.core.live(self.key) {
            conn.writable_wanted = true;
            self.io.core.room_wanted(index);
        }
    }

    // Flow control.

    /// Stops reading. Nothing that was read already is delivered either, and nothing is lost. Timers for idling, pings
    /// and content stand still. A client that is not connected yet still becomes so, and is paused from there.
    ///
    /// What the peer does meanwhile shows when reading goes on or writing fails. Where neither happens, the socket is looked at
    /// every five seconds, without reading: a reset ends the conn ([`CloseReason::Io`]), and on Linux the end of the peer's half
    /// is told, though what it has sent before lies unread (`peer_ended` of [`ws::Handler`](crate::ws::Handler::peer_ended) and
    /// [`http::Handler`](crate::http::Handler::peer_ended)). A raw connection hears of that end in its place, behind what comes
    /// before it.
    #[doc(alias("lws_rx_flow_control", "CURL_READFUNC_PAUSE"))]
    pub fn pause(&mut self) {
        match self.link_in_use() {
            Some(index) => self.io.core.pause(index),
            None => self.io.core.want_when_connected(self.key, |conn| conn.cold().pausing = true),
        }
    }

    /// Goes on reading, with what was read already first; also where answers wait ([`read_when_full`](Self::read_when_full)), until
    /// the next finds the output full again.
    #[doc(alias = "lws_rx_flow_control")]
    pub fn resume(&mut self) {
        match self.link_in_use() {
            Some(index) => self.io.core.resume(index),
            None => self.io.core.want_when_connected(self.key, |conn| conn.cold().pausing = false),
        }
    }

    /// Whether to read on although answers wait. Default: false.
    ///
    /// What a handler sends in answer to what it receives (from `message`, `piece`, `ping` and `pong` of a WebSocket, `received`
    /// of a raw connection, `body` of HTTP) holds back what is read: once
    /// [`Limits::send_high_water`](crate::Limits::send_high_water) bytes of answers wait ([`Flow::Full`]), nothing further is
    /// received until half of that is left. Meanwhile all is as after [`pause`](Self::pause), and a peer that takes nothing is
    /// ended by [`Limits::write_stall`](crate::Limits::write_stall). So a handler that answers, and looks at no `Flow`, loses
    /// nothing, and holds a bounded amount. What is sent at other times holds nothing back, so that two ends that both fill
    /// their output do not each wait for the other to read. [`pause`](Self::pause) outlives a hold, and
    /// [`resume`](Self::resume) ends it.
    ///
    /// With `true` all that comes is received, for who counts on reading on: both ends answer each other's answers, say, with
    /// more than what the system's buffers take. Then heed `Full`: beyond [`Limits::send_max`](crate::Limits::send_max) what is
    /// sent is refused. It takes effect at once; for a WebSocket it can be said before it opens
    /// ([`Accept::read_when_full`](crate::ws::Accept::read_when_full),
    /// [`Connect::read_when_full`](crate::Connect::read_when_full)). It is the conn's: each exchange of HTTP has its own.
    #[doc(alias("cork", "backpressure", "lws_rx_flow_control"))]
    pub fn read_when_full(&mut self, on: bool) {
        self.io.core.read_when_full(self.key, on);
    }

    // Time and kin.

    /// Sets the conn's own timer: `timer` is called after `delay`. A timer that was set before is moved.
    #[doc(alias("lws_set_timer_usecs", "LWS_CALLBACK_TIMER"))]
    pub fn set_timer(&mut self, delay: Duration) {
        let at = self.io.core.read_clock().after(delay);
        let core = &mut self.io.core;
        let Some(conn) = core.conns.get_mut(self.key).filter(|conn| !conn.ended) else { return };
        core.timers.cancel(&mut conn.timer);
        conn.timer_due = false;
        conn.timer = core.timers.arm(at, Timer::User(self.key));
    }

    /// Cancels the timer, if one is set.
    pub fn cancel_timer(&mut self) {
        let core = &mut self.io.core;
        if let Some(conn) = core.conns.get_mut(self.key) {
            core.timers.cancel(&mut conn.timer);
            conn.timer_due = false;
        }
    }

    /// Makes `parent` hear `child_closed` when this conn ends. A parent that has ended, or is of another context, hears nothing.
    #[doc(alias = "LWS_CALLBACK_CHILD_CLOSING")]
    pub fn set_parent(&mut self, parent: ConnId) {
        let parent = self.io.core.origin.key(parent.0);
        if let Some(conn) = self.io.core.live(self.key) {
            conn.cold().parent = Some(parent);
        }
    }

    // Socket options.

    /// Sets TCP keepalive; `None` switches it off.
    ///
    /// # Errors
    ///
    /// The system's, when it refuses; `NotConnected` when the conn is gone.
    #[doc(alias = "ka_time")]
    pub fn set_keepalive(&mut self, keepalive: Option<Keepalive>) -> io::Result<()> {
        self.with_socket(|net, fd| net.set_keepalive(fd, keepalive))
    }

    /// Whether small segments are sent at once (`TCP_NODELAY`), which they are unless this says otherwise.
    ///
    /// # Errors
    ///
    /// As [`set_keepalive`](Self::set_keepalive).
    pub fn set_nodelay(&mut self, on: bool) -> io::Result<()> {
        self.with_socket(|net, fd| net.set_nodelay(fd, on))
    }

    /// Sets the sizes of the kernel's buffers, in bytes; `None` leaves one as it is.
    ///
    /// # Errors
    ///
    /// As [`set_keepalive`](Self::set_keepalive).
    #[doc(alias("SO_SNDBUF", "SO_RCVBUF"))]
    pub fn set_buffer_sizes(&mut self, send: Option<usize>, receive: Option<usize>) -> io::Result<()> {
        self.with_socket(|net, fd| net.set_buffer_sizes(fd, send, receive))
    }

    fn with_socket(
        &mut self,
        set: impl FnOnce(&crate::net::Net, std::os::fd::BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let index = self.link().ok_or_else(gone)?;
        let core = &self.io.core;
        let fd = core.links.at(index).and_then(|(_, link)| link.fd.as_ref()).ok_or_else(gone)?;
        set(&core.net, fd.as_fd())
    }

    // Ending.

    /// Ends our direction of a raw connection, once what is queued has gone out; the peer's goes on. For other roles this is
    /// [`close`](Self::close).
    #[doc(alias = "shutdown")]
    pub fn finish(&mut self) {
        let Some(index) = self.link() else { return };
        if !matches!(self.io.core.link(index).role, Role::Raw) {
            return self.close();
        }
        self.io.core.finish(index);
    }

    /// Closes in an orderly way: what is queued goes out, a WebSocket's closing handshake follows, with 1000 (RFC 6455, section
    /// 7.1.2), then our direction ends, and what still comes is read and dropped until the peer's end or
    /// [`Limits::closing`](crate::Limits::closing). `closed` follows. An HTTP exchange is completed first, if its
    /// response has begun, and dropped if not. Content that the handler still has to send may follow for as long as that limit;
    /// then the exchange ends with a reset ([`Timeout::Closing`](crate::Timeout::Closing)).
    #[doc(alias("lws_close_reason", "LWS_TO_KILL_ASYNC"))]
    pub fn close(&mut self) {
        self.close_with(CloseCode::NORMAL, "");
    }

    /// The same with a code and a reason of at most 123 bytes, for a WebSocket; a longer one is cut. A code that may not be
    /// sent ([`CloseCode::may_be_sent`]) makes the Close an empty one. For other roles this is [`close`](Self::close).
    #[doc(alias = "lws_close_reason")]
    pub fn close_with(&mut self, code: CloseCode, reason: &str) {
        match self.link_in_use() {
            Some(index) => self.io.core.close(index, code, reason),
            None => self.give_up(CloseReason::Closed),
        }
    }

    /// Ends at once, with a reset: what is queued is dropped. Only `closed` follows.
    #[doc(alias("lws_set_timeout", "hangup_on_client"))]
    pub fn abort(&mut self) {
        match self.link_in_use() {
            Some(index) => self.io.core.abort(index, CloseReason::Aborted),
            None => self.give_up(CloseReason::Aborted),
        }
    }

    /// The link, unless a client's connection is still being made on it.
    fn link_in_use(&mut self) -> Option<u32> {
        let index = self.link()?;
        (!self.io.core.is_connecting(self.key)).then_some(index)
    }

    /// Ends a client's conn that has no connection yet.
    fn give_up(&mut self, reason: CloseReason) {
        if self.io.core.connecting_of(self.key).is_some() {
            self.io.core.end_unconnected(self.key, reason);
        }
    }

    /// Gives the descriptor back: the host is told to watch it no more, then `closed` brings it
    /// ([`CloseReason::Released`]), with what had been read and not delivered. What is queued for sending is not
    /// sent; send it first, and release when [`queued`](Self::queued) is 0.
    ///
    /// Nobody could go on with the records of a TLS connection: it is closed instead, as by [`close`](Self::close). Where
    /// permessage-deflate was agreed on, whoever goes on has to keep to that, and needs what earlier messages were if the
    /// client has context takeover.
    #[doc(alias("lws_adopt_descriptor_vhost", "give back"))]
    pub fn release(&mut self) {
        let Some(index) = self.link() else { return };
        if self.io.core.link(index).state == State::Open {
            self.io.core.release(index);
        }
    }
}

impl<D> fmt::Debug for Conn<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("id", &self.id()).field("fd", &self.fd()).finish_non_exhaustive()
    }
}
