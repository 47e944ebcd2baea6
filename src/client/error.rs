//! How connecting fails, step by step, and how an exchange does after that.

use super::{ProxyError, UrlError};
use crate::http::{AnswerError, Fields, RequestError, StatusCode};
use crate::net::Peer;
use crate::resolve::ResolveError;
use crate::ws::opening::OpeningError;
use std::fmt;
use std::io;

/// Why a connection did not come about: the reason in `closed`
/// ([`CloseReason::Connect`](crate::CloseReason::Connect)) of a handler that was never connected.
///
/// ```
/// use lodger::client::Step;
/// use lodger::{CloseReason, ConnectError};
///
/// fn explain(reason: &CloseReason) -> String {
///     match reason {
///         CloseReason::Connect(error) => match &**error {
///             ConnectError::Status(refusal) if refusal.status.code() == 401 => "log in first".into(),
///             ConnectError::TimedOut { step: Step::Resolving, .. } => "is the name server there?".into(),
///             error => error.to_string(),
///         },
///         reason => reason.to_string(),
///     }
/// }
/// ```
#[doc(alias("LWS_CALLBACK_CLIENT_CONNECTION_ERROR", "CURLcode", "onerror"))]
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address cannot be used.
    #[doc(alias = "CURLE_URL_MALFORMAT")]
    Url(UrlError),
    /// A field of the request, its method or its target must not be sent. Nothing was.
    Request(RequestError),
    /// The name was not resolved.
    #[doc(alias("unknown host", "CURLE_COULDNT_RESOLVE_HOST"))]
    Resolve {
        /// The name that was looked up: the server's, or the proxy's.
        name: String,
        /// What the resolver says.
        error: ResolveError,
    },
    /// No address could be connected to; each is there, in the order in which they failed. Empty where a name has none.
    #[doc(alias("conn fail", "unable to connect", "socket() failed", "CURLE_COULDNT_CONNECT"))]
    Unreachable(Vec<Attempt>),
    /// The proxy would not do it.
    #[doc(alias("proxy: ERROR proxyrsp", "socks", "CURLE_PROXY"))]
    Proxy(ProxyError),
    /// TLS failed: the server's certificate, or something that the two could not agree on.
    #[cfg(feature = "tls")]
    #[doc(alias("ssl hs", "SSL_connect", "CURLE_PEER_FAILED_VERIFICATION"))]
    Tls(crate::tls::TlsError),
    /// The TLS that connections have by default could not be set up: no roots to trust, for one.
    #[cfg(feature = "tls")]
    #[doc(alias("CURLE_SSL_CACERT_BADFILE"))]
    TlsConfig(crate::tls::ConfigError),
    /// The scheme (`https`, `wss`, `tls`) asks for TLS, and lodger was built without its feature `tls`. The program's manifest turns
    /// it on, best by `tls-aws-lc-rs` or `tls-ring`, which bring the cryptography.
    #[doc(alias = "CURLE_UNSUPPORTED_PROTOCOL")]
    NoTls,
    /// The server answered the opening handshake with another status than 101 (RFC 6455, section 4.2.2).
    #[doc(alias("HS: ws upgrade response not 101", "HS: disallowed"))]
    Status(Box<Refusal>),
    /// The server's answer of 101 does not open the connection that was asked for (RFC 6455, section 4.1).
    #[doc(alias(
        "HS: Accept hash wrong",
        "HS: ACCEPT missing",
        "HS: PROTOCOL malformed",
        "HS: EXT: unknown ext"
    ))]
    Handshake(OpeningError),
    /// The server answered 101 with permessage-deflate as it was not offered (RFC 7692, section 5.1).
    #[cfg(feature = "deflate")]
    #[doc(alias = "HS: EXT: failed parsing")]
    Extension(crate::ws::deflate::ResponseError),
    /// What the server answered to the opening handshake is no response, or one that cannot be followed.
    #[doc(alias("HS: redirect", "HS: header too long"))]
    Exchange(ExchangeError),
    /// The handler would not have the connection: its `connected` answered no.
    #[doc(alias("HS: Rejected by filter cb", "HS: PROXY"))]
    Rejected,
    /// The time for connecting was up ([`Connect::timeout`](crate::Connect::timeout)).
    #[doc(alias("Timed out waiting SSL", "Timed out waiting server reply", "CURLE_OPERATION_TIMEDOUT"))]
    TimedOut {
        /// What it was waiting for.
        step: Step,
        /// The addresses that had failed by then.
        attempts: Vec<Attempt>,
    },
    /// The connection broke before it could be used.
    #[doc(alias("Peer hung up", "Closed before conn", "CURLE_GOT_NOTHING"))]
    Lost {
        /// What it was waiting for.
        step: Step,
        /// What the system says; `None` when the other end closed without a word.
        error: Option<io::Error>,
    },
    /// The context has as many links as it may have ([`Builder::max_links`](crate::Builder::max_links)).
    Full,
}

/// How far connecting had come.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Looking up the name.
    Resolving,
    /// Connecting to its addresses.
    Connecting,
    /// Asking the proxy for a tunnel.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The opening handshake of WebSocket.
    Handshake,
}

/// One address that could not be connected to.
#[derive(Debug)]
pub struct Attempt {
    /// The address.
    pub peer: Peer,
    /// Why not.
    pub error: io::Error,
}

/// A response that is no 101: what it says is what a next try needs to know, where there is one (`WWW-Authenticate`, `Retry-After`).
#[derive(Debug)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub fields: Fields,
}

/// How an HTTP exchange of a client's went wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The head of the response (RFC 9112, section 4).
    Head(AnswerError),
    /// One interim response after another (RFC 9110, section 15.2), more than 32.
    Interim,
    /// The chunks of the response's content are malformed (RFC 9112, section 7.1).
    Content,
    /// The content of the response is over [`Limits::content`](crate::Limits::content).
    ContentTooLarge,
    /// The system has no memory for the trailer fields of the response.
    OutOfMemory,
    /// The connection ended before the response was complete (RFC 9112, section 8).
    Truncated,
    /// Bytes came that belong to no response.
    Unsolicited,
    /// A redirect that cannot be followed.
    Redirect(RedirectError),
}

/// Why a redirect was not followed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RedirectError {
    /// More than [`Connect::redirects`](crate::Connect::redirects) allows.
    TooMany,
    /// It has no `Location`, or more than one.
    NoLocation,
    /// Its `Location` cannot be used.
    Location(UrlError),
    /// It leads from TLS to a connection without it.
    Insecure,
    /// Where it leads could not be connected to.
    Connect(Box<ConnectError>),
}

impl ConnectError {
    /// Whether another try, later and with the same settings, may well succeed: the network or the server was in the way, and
    /// not what was asked for.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { error, .. } => error.is_transient(),
            Self::Unreachable(_) | Self::TimedOut { .. } | Self::Lost { .. } | Self::Full => true,
            Self::Status(refusal) => matches!(refusal.status.code(), 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Proxy(error) => error.is_transient(),
            Self::Exchange(error) => error.is_transient(),
            #[cfg(feature = "tls")]
            Self::Tls(_) | Self::TlsConfig(_) => false,
            #[cfg(feature = "deflate")]
            Self::Extension(_) => false,
            Self::Url(_) | Self::Request(_) | Self::NoTls | Self::Handshake(_) | Self::Rejected => false,
        }
    }
}

impl ExchangeError {
    /// As [`ConnectError::is_transient`].
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Truncated => true,
            Self::Redirect(RedirectError::Connect(error)) => error.is_transient(),
            _ => false,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => write!(f, "the address cannot be used: {error}"),
            Self::Request(error) => write!(f, "the request cannot be sent: {error}"),
            Self::Resolve { name, error } => write!(f, "{name} was not resolved: {error}"),
            Self::Unreachable(attempts) if attempts.is_empty() => f.write_str("the name has no address"),
            Self::Unreachable(attempts) => {
                f.write_str("no address could be connected to")?;
                list(f, attempts)
            }
            Self::Proxy(error) => write!(f, "the proxy would not connect: {error}"),
            #[cfg(feature = "tls")]
            Self::Tls(error) => write!(f, "TLS failed: {error}"),
            #[cfg(feature = "tls")]
            Self::TlsConfig(error) => write!(f, "TLS cannot be set up: {error}"),
            Self::NoTls => {
                f.write_str("the scheme asks for TLS, and lodger was built without its feature `tls`")
            }
            Self::Status(refusal) => {
                write!(f, "the server answered {} to the opening handshake", refusal.status)
            }
            Self::Handshake(error) => write!(f, "the opening handshake failed: {error}"),
            #[cfg(feature = "deflate")]
            Self::Extension(error) => write!(f, "the opening handshake failed: {error}"),
            Self::Exchange(error) => error.fmt(f),
            Self::Rejected => f.write_str("the handler would not have the connection"),
            Self::TimedOut { step, attempts } => {
                write!(f, "timed out while {step}")?;
                list(f, attempts)
            }
            Self::Lost { step, error: Some(error) } => {
                write!(f, "the connection was lost while {step}: {error}")
            }
            Self::Lost { step, error: None } => write!(f, "the other end closed the connection while {step}"),
            Self::Full => f.write_str("the limit of links is reached"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, attempts: &[Attempt]) -> fmt::Result {
    for (place, attempt) in attempts.iter().enumerate() {
        let separator = if place == 0 { ": " } else { "; " };
        write!(f, "{separator}{}: {}", attempt.peer, attempt.error)?;
    }
    Ok(())
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url(error) => Some(error),
            Self::Request(error) => Some(error),
            Self::Resolve { error, .. } => Some(error),
            Self::Unreachable(attempts) => attempts.last().map(|attempt| &attempt.error as _),
            Self::Proxy(error) => Some(error),
            #[cfg(feature = "tls")]
            Self::Tls(error) => Some(error),
            #[cfg(feature = "tls")]
            Self::TlsConfig(error) => Some(error),
            Self::Handshake(error) => Some(error),
            #[cfg(feature = "deflate")]
            Self::Extension(error) => Some(error),
            Self::Exchange(error) => Some(error),
            Self::Lost { error, .. } => error.as_ref().map(|error| error as _),
            Self::NoTls | Self::Status(_) | Self::Rejected | Self::TimedOut { .. } | Self::Full => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolving => "looking up the name",
            Self::Connecting => "connecting",
            Self::Proxy => "asking the proxy",
            Self::Tls => "waiting for the TLS handshake",
            Self::Handshake => "waiting for the answer to the opening handshake",
        })
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(error) => write!(f, "the server's response is malformed: {error}"),
            Self::Interim => f.write_str("the server sends one interim response after another"),
            Self::Content => f.write_str("the chunks of the response are malformed"),
            Self::ContentTooLarge => f.write_str("the content of the response is over the limit"),
            Self::OutOfMemory => f.write_str("no memory for the trailer fields"),
            Self::Truncated => f.write_str("the connection ended before the response was complete"),
            Self::Unsolicited => f.write_str("the server sent what nobody asked for"),
            Self::Redirect(error) => write!(f, "a redirect was not followed: {error}"),
        }
    }
}

impl std::error::Error for ExchangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Head(error) => Some(error),
            Self::Redirect(error) => Some(error),
            Self::Interim
            | Self::Content
            | Self::ContentTooLarge
            | Self::OutOfMemory
            | Self::Truncated
            | Self::Unsolicited => None,
        }
    }
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => f.write_str("there are too many in a row"),
            Self::NoLocation => f.write_str("it does not say where to"),
            Self::Location(error) => write!(f, "its target cannot be used: {error}"),
            Self::Insecure => f.write_str("it leads from TLS to a connection without"),
            Self::Connect(error) => write!(f, "where it leads, {error}"),
        }
    }
}

impl std::error::Error for RedirectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Location(error) => Some(error),
            Self::Connect(error) => Some(&**error),
            Self::TooMany | Self::NoLocation | Self::Insecure => None,
        }
    }
}
