//! Connections to servers, and names.

use super::{Fresh, Io, Question};
use crate::client::{Backoff, Connect};
use crate::engine::connect::Speak;
use crate::engine::store::Key;
use crate::handler::AnyHandler;
use crate::http::ClientRequest;
use crate::ids::ConnId;
use crate::resolve::{Found, Lookup, ResolveError};
use std::time::Duration;

impl<D> Io<D> {
    /// Opens a WebSocket to a server (RFC 6455, section 4.1).
    ///
    /// Nothing waits here: neither for a name nor for the network. The conn's name is there at once; its handler's first event
    /// is the outcome, in a later service call: [`connected`](crate::ws::Handler::connected), or
    /// [`closed`](crate::ws::Handler::closed) with [`CloseReason::Connect`](crate::CloseReason::Connect). `close` and
    /// `abort` give up meanwhile.
    ///
    /// While the context leaves or shuts down nothing is connected any more: the handler is dropped unheard, and the name finds
    /// nothing.
    ///
    /// ```
    /// use lodger::{Connect, Context, Cx, http, ws};
    ///
    /// struct Greeter;
    ///
    /// impl<D> ws::Handler<D> for Greeter {
    ///     fn connected(&mut self, cx: &mut Cx<'_, D>, _response: &http::ResponseHead<'_>) -> bool {
    ///         let _ = cx.send("hello");
    ///         true
    ///     }
    /// }
    ///
    /// let mut context: Context = Context::new();
    /// let id = context.io().connect(Connect::to("ws://localhost:7681/"), Box::new(Greeter));
    /// # let _ = id;
    /// # context.abandon();
    /// ```
    #[doc(alias("lws_client_connect_via_info", "libwebsocket_client_connect", "curl_ws_send"))]
    pub fn connect(&mut self, connect: Connect, handler: Box<dyn crate::ws::Handler<D>>) -> ConnId {
        self.begin(connect, Speak::WebSocket, AnyHandler::WebSocket(handler))
    }

    /// Connects to an HTTP server, and sends it a first request. The handler's first event is the outcome:
    /// [`connected`](crate::http::ClientHandler::connected) or `closed`, as for [`connect`](Self::connect).
    #[doc(alias("lws_client_connect_via_info", "curl_easy_perform", "curl_multi_add_handle"))]
    pub fn connect_http(
        &mut self,
        connect: Connect,
        request: ClientRequest,
        handler: Box<dyn crate::http::ClientHandler<D>>,
    ) -> ConnId {
        self.begin(connect, Speak::Http(Some(request)), AnyHandler::Client(handler))
    }

    /// Connects a raw connection: TCP, a Unix socket, TLS where the URL says so. The handler's first event is the outcome:
    /// [`opened`](crate::raw::Handler::opened) or `closed`, as for [`connect`](Self::connect).
    #[doc(alias("lws_client_connect_via_info", "RAW", "CURLOPT_CONNECT_ONLY"))]
    pub fn connect_raw(&mut self, connect: Connect, handler: Box<dyn crate::raw::Handler<D>>) -> ConnId {
        self.begin(connect, Speak::Raw, AnyHandler::Raw(handler))
    }

    fn begin(&mut self, connect: Connect, speak: Speak, handler: AnyHandler<D>) -> ConnId {
        let read_when_full = connect.read_when_full;
        let Some(conn) = self.core.connect(connect, speak) else { return self.core.conn_id(Key::NONE) };
        self.core.read_when_full(conn, read_when_full);
        self.put(Fresh::Handler(conn, handler));
        self.core.conn_id(conn)
    }

    /// Asks the resolver for the addresses of a name, or the name of an address
    /// ([`Conn::peer`](crate::Conn::peer)). `then` gets the answer, in a service call: [`ResolveError::Leaving`] if the
    /// context leaves before there is one. Of a context that leaves already nothing can be asked: `then` is dropped.
    ///
    /// ```
    /// use lodger::{Context, resolve::{Found, Lookup}};
    ///
    /// let mut context: Context = Context::new();
    /// context.io().look_up(Lookup::Addresses("localhost".into()), |answer, _data, _io| {
    ///     if let Ok(Found::Addresses(addresses)) = answer {
    ///         println!("{addresses:?}");
    ///     }
    /// });
    /// # context.abandon();
    /// ```
    #[doc(alias("getaddrinfo", "getnameinfo", "lws_get_peer_simple", "lws_async_dns_query"))]
    pub fn look_up(
        &mut self,
        lookup: Lookup,
        then: impl FnOnce(Result<Found, ResolveError>, &mut D, &mut Io<D>) + 'static,
    ) {
        if self.core.leaving {
            return;
        }
        let question = self.questions.insert(Question { run: Box::new(then) });
        self.core.ask_for_application(&lookup, question);
    }

    /// Fills `bytes` from the context's source of randomness ([`Env`](crate::Env)).
    #[doc(alias = "lws_get_random")]
    pub fn random(&mut self, bytes: &mut [u8]) {
        self.core.env.random(bytes);
    }

    /// How long to wait before connecting again: the backoff's next delay, by this context's time and chance.
    pub fn next_delay(&mut self, backoff: &mut Backoff) -> Duration {
        let mut random = [0; 8];
        self.random(&mut random);
        let now = self.now();
        backoff.delay(now, u64::from_ne_bytes(random))
    }
}
