//! What to connect to, and how.

use super::{Host, Proxy, Scheme, Url, UrlError};
use crate::engine::connect::Speak;
use crate::http::{Fields, RequestError, is_managed_in_requests, is_target};
use crate::limits::Limits;
use crate::net::{Keepalive, Peer};
use crate::ws::extension::Deflate;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// What to connect to, and how; for [`Io::connect`](crate::Io::connect), [`Io::connect_http`](crate::Io::connect_http) and
/// [`Io::connect_raw`](crate::Io::connect_raw).
///
/// A clone is cheap enough to keep in a handler that connects again.
///
/// ```
/// use lodger::Connect;
/// use std::time::Duration;
///
/// let plain = Connect::to("ws://localhost:7681/chat");
/// let more = Connect::to("wss://example.com/feed?from=now")
///     .subprotocol("feed.v2")
///     .subprotocol("feed.v1")
///     .origin("https://example.com")
///     .field("Authorization", "Bearer ...")
///     .timeout(Duration::from_secs(2));
/// let by_parts = Connect::tcp("10.0.0.7", 4001).path("/status").host("device.example");
/// let local = Connect::unix("/run/service.sock");
/// ```
#[doc(alias("lws_client_connect_info", "lws_client_connect_via_info", "curl_easy_setopt"))]
#[derive(Clone)]
pub struct Connect {
    pub(crate) url: Result<Url, UrlError>,
    /// The address to connect to, whatever the host's name says.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) host: Option<String>,
    pub(crate) origin: Option<String>,
    pub(crate) subprotocols: Vec<String>,
    pub(crate) fields: Vec<(String, String)>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::Client>,
    #[cfg(feature = "tls")]
    pub(crate) server_name: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) delay: Duration,
    pub(crate) source: Option<IpAddr>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) redirects: u8,
    pub(crate) limits: Rc<Limits>,
    pub(crate) options: Options,
    /// The extension to offer.
    pub(crate) extension: Option<Deflate>,
    /// Reading goes on when the output is full.
    pub(crate) read_when_full: bool,
}

/// What is set on the socket.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) receive_buffer: Option<usize>,
}

impl Connect {
    /// To a URL:
    ///
    /// - `ws://host[:port]/path?query`, `wss:` (RFC 6455, section 3), `http:`, `https:`;
    /// - `tcp://host:port`, and `tls://host:port` with TLS, for raw connections;
    /// - `unix:/path/of/socket`, `ws+unix:/path/of/socket:/target`, `http+unix:/path/of/socket:/target`.
    ///
    /// An address that cannot be used is the outcome ([`ConnectError::Url`](crate::ConnectError::Url)).
    #[doc(alias("address", "CURLOPT_URL", "wss"))]
    pub fn to(url: impl AsRef<str>) -> Self {
        Self::new(Url::parse(url.as_ref()))
    }

    /// To a port of a host, which is a name or an address. What is spoken there is said by the call that takes this: raw bytes,
    /// or HTTP or WebSocket without TLS; [`secure`](Self::secure) adds TLS.
    #[doc(alias("port", "address"))]
    pub fn tcp(host: &str, port: u16) -> Self {
        Self::new(Url::tcp(host, port))
    }

    /// To a Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::new(Ok(Url::unix(path.into())))
    }

    fn new(url: Result<Url, UrlError>) -> Self {
        Self {
            url,
            address: None,
            host: None,
            origin: None,
            subprotocols: Vec::new(),
            fields: Vec::new(),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            server_name: None,
            timeout: Duration::from_secs(5),
            delay: Duration::ZERO,
            source: None,
            proxy: None,
            redirects: 5,
            limits: Rc::default(),
            options: Options::default(),
            extension: None,
            read_when_full: false,
        }
    }

    /// The target of the request, with its query: `/chat?room=1`. Default: the URL's, `/` if it has none.
    #[must_use]
    pub fn path(mut self, target: &str) -> Self {
        self.url = self.url.and_then(|url| url.with_target(target));
        self
    }

    /// What the Host field says (RFC 9110, section 7.2), instead of the URL's host and port.
    #[doc(alias = "CURLOPT_HTTPHEADER")]
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Connects to this address, whatever the host's name would resolve to. Name, Host field and certificate stay what the URL
    /// says. Not through a proxy.
    #[doc(alias = "CURLOPT_RESOLVE")]
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// The Origin field of the opening handshake (RFC 6455, section 10.2). Default: none, since this is no browser.
    #[must_use]
    pub fn origin(mut self, origin: &str) -> Self {
        self.origin = Some(origin.to_owned());
        self
    }

    /// Offers a subprotocol (RFC 6455, section 1.9), after those that were offered before: the best comes first. The server
    /// chooses one of them or none; [`connected`](crate::ws::Handler::connected) tells.
    #[doc(alias = "protocols")]
    #[must_use]
    pub fn subprotocol(mut self, name: &str) -> Self {
        self.subprotocols.push(name.to_owned());
        self
    }

    /// Offers permessage-deflate (RFC 7692). Default: not offered. Where there is no memory for context takeover
    /// ([`Builder::max_deflate_memory`](crate::Builder::max_deflate_memory)), it is offered without.
    #[cfg(feature = "deflate")]
    #[doc(alias("permessage-deflate", "lws_extension", "LWS_CALLBACK_CLIENT_CONFIRM_EXTENSION_SUPPORTED"))]
    #[must_use]
    pub fn deflate(mut self, options: crate::ws::deflate::Deflate) -> Self {
        self.extension = Some(options);
        self
    }

    /// Adds a field to the opening handshake, or to each request: cookies and credentials are the application's. A name or value
    /// that must not be sent, or that belongs to the handshake or the framing, is the outcome
    /// ([`ConnectError::Request`](crate::ConnectError::Request)). After a redirect to another host, `Authorization` and
    /// `Cookie` are left out.
    #[doc(alias("LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER", "CURLOPT_HTTPHEADER"))]
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// How TLS is spoken, where the scheme asks for it. Default: the roots of the feature `tls-native-roots` or
    /// `tls-webpki-roots` are trusted. One client for all connections resumes sessions and reads its roots once.
    #[cfg(feature = "tls")]
    #[doc(alias("ssl_connection", "CURLOPT_CAINFO", "client_ssl_ctx"))]
    #[must_use]
    pub fn tls(mut self, client: crate::tls::Client) -> Self {
        self.tls = Some(client);
        self
    }

    /// Speaks TLS, also where the parts do not say so ([`tcp`](Self::tcp), [`unix`](Self::unix)).
    #[cfg(feature = "tls")]
    #[doc(alias = "LCCSCF_USE_SSL")]
    #[must_use]
    pub fn secure(mut self) -> Self {
        self.url = self.url.map(Url::secured);
        self
    }

    /// The name that the server's certificate must have, and that is asked for (SNI, RFC 6066, section 3), instead of the URL's
    /// host.
    #[cfg(feature = "tls")]
    #[doc(alias("SNI", "SSL_set_tlsext_host_name"))]
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// How long it may take from the beginning to the outcome: looking up the name, connecting, proxy, TLS and, for a WebSocket,
    /// the opening handshake, redirects included. Default 5 s.
    #[doc(alias("timeout_secs", "CURLOPT_CONNECTTIMEOUT_MS"))]
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Begins after a delay; [`Backoff`](crate::client::Backoff) knows how long. Default: at once.
    #[doc(alias("lws_retry_bo_t", "lws_sul_schedule"))]
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The local address to connect from.
    #[doc(alias("iface", "CURLOPT_INTERFACE"))]
    #[must_use]
    pub fn source(mut self, address: IpAddr) -> Self {
        self.source = Some(address);
        self
    }

    /// Connects through a proxy, which also resolves the name. A Unix socket is connected to without.
    #[doc(alias("http_proxy_address", "socks_proxy", "CURLOPT_PROXY"))]
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// How many redirects in a row are followed (RFC 9110, section 15.4), never from TLS to none. 0 hands them to the handler: for
    /// HTTP as a response, for a WebSocket as [`ConnectError::Status`](crate::ConnectError::Status). Default 5.
    #[doc(alias("LCCSCF_HTTP_NO_FOLLOW_REDIRECT", "CURLOPT_FOLLOWLOCATION", "CURLOPT_MAXREDIRS"))]
    #[must_use]
    pub fn redirects(mut self, most: u8) -> Self {
        self.redirects = most;
        self
    }

    /// The limits of the connection. For HTTP, `head` and `fields` bound the response's, `content` its content.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Rc::new(limits);
        self
    }

    /// TCP keepalive on the socket. Where the system refuses it, that is logged.
    #[doc(alias("ka_time", "CURLOPT_TCP_KEEPALIVE"))]
    #[must_use]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.options.keepalive = Some(keepalive);
        self
    }

    /// The sizes of the kernel's buffers, in bytes; `None` leaves one as it is. Where the system refuses, that is logged.
    #[doc(alias("SO_SNDBUF", "SO_RCVBUF"))]
    #[must_use]
    pub fn buffer_sizes(mut self, send: Option<usize>, receive: Option<usize>) -> Self {
        (self.options.send_buffer, self.options.receive_buffer) = (send, receive);
        self
    }

    /// Reads on although the handler's answers wait for the server to read them
    /// ([`Conn::read_when_full`](crate::Conn::read_when_full)). Default: false.
    #[must_use]
    pub fn read_when_full(mut self, on: bool) -> Self {
        self.read_when_full = on;
        self
    }

    /// The fields that go with every request.
    pub(crate) fn request_fields(&self) -> Result<Fields, RequestError> {
        let mut fields = Fields::new();
        for (name, value) in &self.fields {
            if is_managed_in_requests(name) {
                return Err(RequestError::Managed);
            }
            fields.push(name, value).map_err(RequestError::Field)?;
        }
        Ok(fields)
    }

    /// Leaves out what is meant for the first host alone.
    pub(crate) fn leave_out_credentials(&mut self) {
        self.fields.retain(|(name, _)| !is_secret(name));
    }

    /// Goes to another place from now on, and says whether that is the same server.
    pub(crate) fn redirect(&mut self, url: Url) -> bool {
        let same = self.url.as_ref().is_ok_and(|before| before.has_origin_of(&url));
        if !same {
            self.leave_out_credentials();
            self.host = None;
            self.address = None;
            #[cfg(feature = "tls")]
            {
                self.server_name = None;
            }
        }
        self.url = Ok(url);
        same
    }
}

/// Whether a field is meant for one server alone.
pub(crate) fn is_secret(name: &str) -> bool {
    ["Authorization", "Cookie"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

impl Url {
    fn tcp(host: &str, port: u16) -> Result<Self, UrlError> {
        let host = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => host.to_owned(),
        };
        Self::parse(&format!("tcp://{host}:{port}"))
    }

    fn unix(path: PathBuf) -> Self {
        let (target, authority) = ("/".to_owned(), "localhost".to_owned());
        Self { scheme: Scheme::Tcp, host: Host::Unix(path), zone: None, port: 0, target, authority }
    }

    fn with_target(mut self, target: &str) -> Result<Self, UrlError> {
        if !target.starts_with('/') || !is_target(target.as_bytes()) {
            return Err(UrlError::Target);
        }
        target.clone_into(&mut self.target);
        Ok(self)
    }

    /// The host as certificates, proxies and resolvers know it.
    pub(crate) fn name(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Ip(address) => address.to_string(),
            Host::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Which interface an IPv6 address of a link is reached through, as the system counts them.
    pub(crate) fn scope(&self) -> u32 {
        self.zone.as_deref().map_or(0, crate::net::interface)
    }

    /// The same, as what is going to be spoken there.
    pub(crate) fn speaking(mut self, speak: &Speak) -> Self {
        self.scheme = match (speak, self.scheme.is_secure()) {
            (Speak::Raw, _) => self.scheme,
            (Speak::WebSocket, false) => Scheme::Ws,
            (Speak::WebSocket, true) => Scheme::Wss,
            (Speak::Http(_), false) => Scheme::Http,
            (Speak::Http(_), true) => Scheme::Https,
        };
        self
    }

    /// Where it leads, if the socket's address is known without a resolver.
    pub(crate) fn path_of_socket(&self) -> Option<Peer> {
        match &self.host {
            Host::Unix(path) => Some(Peer::Unix(Some(path.clone()))),
            Host::Name(_) | Host::Ip(_) => None,
        }
    }

    /// Whether it is at the same place, with the same protection.
    pub(crate) fn has_origin_of(&self, other: &Self) -> bool {
        self.host == other.host
            && self.port == other.port
            && self.scheme.is_secure() == other.scheme.is_secure()
    }

    #[cfg(feature = "tls")]
    fn secured(mut self) -> Self {
        self.scheme = match self.scheme {
            Scheme::Ws | Scheme::Wss => Scheme::Wss,
            Scheme::Http | Scheme::Https => Scheme::Https,
            Scheme::Tcp | Scheme::Tls => Scheme::Tls,
        };
        self
    }
}

impl fmt::Debug for Connect {
    // The fields may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("url", &self.url)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
