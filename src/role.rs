//! What is spoken on a link, and what each role says about reading and writing.

use crate::engine::store::Key;
use crate::engine::timers::Tick;
use crate::host::Interest;
use crate::net::SocketPath;
use crate::transport::Server;
use std::os::fd::RawFd;

pub(crate) enum Role {
    Listener(Box<Listener>),
    /// The descriptor by which other threads wake the context.
    WakeUp,
    /// A descriptor of the application's, which reads and writes it.
    Descriptor(Interest),
    /// A socket that is being connected, for this entry of those that are connecting.
    Connecting(Key),
    /// A descriptor of the resolver's, under the number that the resolver knows it by.
    Resolver {
        number: RawFd,
        interest: Interest,
    },
    Raw,
    Http(Box<crate::http1::role::Server>),
    /// The client's end, before or beside WebSocket and raw bytes.
    Client(Box<crate::http1::client::Client>),
    WebSocket(crate::ws::role::WebSocket),
}

pub(crate) struct Listener {
    /// The sites that share it; the first gets what no other is named for. None for raw connections.
    pub(crate) sites: Vec<Key>,
    pub(crate) secure: Secure,
    /// Accepting waits for descriptors, memory or room.
    pub(crate) paused: bool,
    /// How many connections the next call accepts at the most.
    pub(crate) burst: u8,
    /// For so many calls it does not become more.
    pub(crate) calm: u8,
    /// What to remove when the listener closes.
    pub(crate) path: Option<SocketPath>,
    pub(crate) options: SocketOptions,
}

impl Listener {
    /// Whether its connections begin with something that they are to be done with in time: a request, or a handshake.
    pub(crate) fn has_handshakes(&self) -> bool {
        !self.sites.is_empty() || matches!(self.secure, Secure::By(_))
    }
}

/// Whether connections speak TLS, and by what configuration.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without TLS there is none"))]
#[derive(Debug)]
pub(crate) enum Secure {
    No,
    BySite,
    By(Server),
}

/// What is set on each accepted socket.
#[derive(Clone, Copy, Default)]
pub(crate) struct SocketOptions {
    /// It has `TCP_NODELAY` from its listener, or is to have none.
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<crate::net::Keepalive>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) receive_buffer: Option<usize>,
}

impl Role {
    /// Whether it is a connection whose bytes are read and written here.
    #[inline]
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::WebSocket(_) | Self::Http(_) | Self::Raw | Self::Client(_))
    }

    /// Whether reading is wanted while nothing else stands in the way.
    pub(crate) fn wants_read(&self) -> bool {
        match self {
            Self::Listener(listener) => !listener.paused,
            Self::WakeUp | Self::Raw | Self::Http(_) | Self::WebSocket(_) | Self::Client(_) => true,
            Self::Descriptor(interest) | Self::Resolver { interest, .. } => interest.is_readable(),
            Self::Connecting(_) => false,
        }
    }

    /// Whether writability is wanted for more than what is queued.
    pub(crate) fn wants_write(&self) -> bool {
        match self {
            Self::Descriptor(interest) | Self::Resolver { interest, .. } => interest.is_writable(),
            Self::Connecting(_) => true,
            _ => false,
        }
    }

    /// Notes that something was received, or that reading begins anew, for those whose timers look at it.
    pub(crate) fn set_active(&mut self, now: Tick) {
        match self {
            Self::Http(server) => server.active = now,
            Self::WebSocket(websocket) => websocket.set_active(now),
            Self::Client(client) => client.active = now,
            Self::Listener(_) | Self::WakeUp | Self::Descriptor(_) | Self::Raw => {}
            Self::Connecting(_) | Self::Resolver { .. } => {}
        }
    }

    /// Whether a head is waited for, or what a client waits for before it has one, or the rest of it.
    #[inline]
    pub(crate) fn awaits_head(&self) -> bool {
        match self {
            Self::Http(server) => server.awaits_head(),
            Self::Client(client) => client.awaits_answer(),
            _ => false,
        }
    }

    /// When something was last received of what is waited for, where that has its time as a whole.
    pub(crate) fn last_active(&self) -> Option<Tick> {
        match self {
            Self::Http(server) => Some(server.active),
            Self::Client(client) => Some(client.active),
            _ => None,
        }
    }

    /// The extension that its messages go through.
    #[cfg(feature = "deflate")]
    pub(crate) fn extension(&self) -> Option<&crate::ws::extension::Deflated> {
        match self {
            Self::WebSocket(websocket) => websocket.extension(),
            _ => None,
        }
    }

    /// For the application's eyes.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Listener(_) => "listener",
            Self::WakeUp => "wake-up",
            Self::Descriptor(_) => "descriptor",
            Self::Connecting(_) => "connecting",
            Self::Resolver { .. } => "resolver",
            Self::Raw => "raw",
            Self::Client(_) => "client",
            Self::Http(_) => "http",
            Self::WebSocket(_) => "websocket",
        }
    }
}
