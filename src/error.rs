//! Errors of set-up and misuse. What a peer does wrong is in the protocol's own module.

use crate::net::Peer;
use std::fmt;
use std::io;

/// Why a listener could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenError {
    /// No socket of this family could be made.
    Socket(io::Error),
    /// The named socket option was refused.
    Option(&'static str, io::Error),
    /// The address could not be bound: in use, not ours, or not allowed.
    Bind {
        /// The address and port, or the path of a Unix socket, that was asked for.
        address: Peer,
        /// What the system says.
        error: io::Error,
    },
    /// The system would not listen on it; for a descriptor of one's own: it is not a listening stream socket.
    Listen(io::Error),
    /// The context is leaving.
    Leaving,
    /// There is no such site: it was removed, or is another context's.
    NoSite,
    /// The listener speaks TLS, and there is no certificate for it: give the site one, or a raw listener its own.
    NoCertificate,
    /// A listener of a site speaks TLS by the site's certificate, and takes none of its own.
    CertificateOfSite,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "no socket for listening: {error}"),
            Self::Option(name, error) => write!(f, "socket option {name} refused: {error}"),
            Self::Bind { address, error } => write!(f, "address {address} cannot be bound: {error}"),
            Self::Listen(error) => write!(f, "cannot listen: {error}"),
            Self::Leaving => f.write_str("the context is leaving"),
            Self::NoSite => f.write_str("no such site"),
            Self::NoCertificate => f.write_str("the listener speaks TLS, and has no certificate"),
            Self::CertificateOfSite => f.write_str("the certificate has to be given to the site"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket(error) | Self::Option(_, error) | Self::Bind { error, .. } | Self::Listen(error) => {
                Some(error)
            }
            Self::Leaving | Self::NoSite | Self::NoCertificate | Self::CertificateOfSite => None,
        }
    }
}

/// Why a site was not added.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SiteError {
    /// It has no protocol: nobody would decide about its connections.
    NoProtocol,
    /// Two of its protocols have this name, which is empty where neither has one: clients could ask for the first only.
    SameName(Box<str>),
    /// This name of a protocol is not a token (RFC 9110, section 5.6.2), as the subprotocols that clients ask for are (RFC 6455,
    /// section 4.1).
    Name(Box<str>),
}

impl fmt::Display for SiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProtocol => f.write_str("the site has no protocol"),
            Self::SameName(name) if name.is_empty() => f.write_str("two protocols of the site have no name"),
            Self::SameName(name) => write!(f, "two protocols of the site have the name {name}"),
            Self::Name(name) => write!(f, "the name of a protocol is not a token: {name:?}"),
        }
    }
}

impl std::error::Error for SiteError {}

/// Why a descriptor was not adopted. The descriptor is given back.
pub struct AdoptError<D> {
    /// What stood in the way.
    pub reason: AdoptRefused,
    /// What was to be adopted.
    pub descriptor: D,
}

/// What stands in the way of adopting a descriptor.
#[derive(Debug)]
#[non_exhaustive]
pub enum AdoptRefused {
    /// It could not be made non-blocking.
    Nonblocking(io::Error),
    /// There is no such site: it was removed.
    NoSite,
    /// Neither readability nor writability is wanted.
    NoInterest,
    /// [`Builder::max_links`](crate::Builder::max_links) is reached.
    Full,
    /// The context is leaving.
    Leaving,
}

impl fmt::Display for AdoptRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nonblocking(error) => write!(f, "descriptor cannot be made non-blocking: {error}"),
            Self::NoSite => f.write_str("no such site"),
            Self::NoInterest => f.write_str("nothing is wanted of the descriptor"),
            Self::Full => f.write_str("the limit of links is reached"),
            Self::Leaving => f.write_str("the context is leaving"),
        }
    }
}

impl<D> fmt::Debug for AdoptError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdoptError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<D> fmt::Display for AdoptError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<D> std::error::Error for AdoptError<D> {}

/// Why nothing of a message, or of a piece of one, was queued.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SendError {
    /// The conn is gone: it ended, or the id is stale.
    Gone,
    /// Closing has begun: no data may follow (RFC 6455, section 5.5.1), or `finish` was called before.
    Closing,
    /// [`Flow::Full`](crate::Flow::Full) was ignored until [`Limits::send_max`](crate::Limits::send_max) bytes waited.
    Overrun,
    /// The conn's role has no such thing: a message on a raw conn, a response on a WebSocket.
    Role,
    /// A message is being sent in pieces, and this is not its next piece (RFC 6455, section 5.4).
    InMessage,
    /// A piece of text makes the message invalid UTF-8 (RFC 6455, section 5.6).
    InvalidUtf8,
    /// The payload of a control frame is longer than 125 bytes (RFC 6455, section 5.5).
    ControlTooLong,
    /// The response is complete, or was begun already.
    Responded,
    /// No response was begun; or, for a client, no request whose content comes in pieces.
    NotResponding,
    /// The request's protocol has not decided about it yet.
    Undecided,
    /// More content than the response announced, or less when it was ended (RFC 9112, section 6.3).
    Length,
    /// The connection is not made yet: wait for `connected`, or `opened`.
    NotConnected,
    /// The response to the last request is not complete; requests are not pipelined.
    InExchange,
    /// The content of the request waits for the server to want it: `writable` tells when it does.
    Expecting,
    /// The field of this name, of a response or of a request, has a name or a value that must not be sent, or would contradict the
    /// framing (RFC 9110, section 5; RFC 9112, sections 6 and 9). Where something else of the head must not be sent, such as content
    /// with status 204, it says what. A response is replaced by 500, as [`Decision::Respond`](crate::Decision::Respond) is; of a
    /// request nothing is sent.
    Field(Box<str>),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Field(name) => return write!(f, "not allowed to be sent: {name:?}"),
            Self::Gone => "the connection is gone",
            Self::Closing => "closing has begun",
            Self::Overrun => "too much is queued: wait for writable after Full",
            Self::Role => "not possible in this role",
            Self::InMessage => "another message is being sent in pieces",
            Self::InvalidUtf8 => "text is not UTF-8",
            Self::ControlTooLong => "control frame longer than 125 bytes",
            Self::Responded => "a response was given already",
            Self::NotResponding => "no response was begun",
            Self::Undecided => "no decision about the request yet",
            Self::Length => "content differs from the length that was announced",
            Self::NotConnected => "the connection is not made yet",
            Self::InExchange => "the last response is not complete",
            Self::Expecting => "the server has not said that it wants the content",
        })
    }
}

impl std::error::Error for SendError {}

/// The conn, or whatever the id named, has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gone")
    }
}

impl std::error::Error for Gone {}
