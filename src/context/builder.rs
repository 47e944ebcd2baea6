//! Setting up a context.

use super::{Context, Handlers};
use crate::engine::Core;
use crate::engine::link::NO_CONN;
use crate::env::{Env, SystemEnv};
use crate::io::Io;
use crate::net::Net;
use crate::resolve::{Resolver, SystemResolver};
use crate::ws;
use crate::ws::extension::Pools;

/// Sets up a [`Context`].
#[doc(alias = "lws_context_creation_info")]
pub struct Builder {
    env: Box<dyn Env>,
    net: Net,
    self_wake: bool,
    max_links: usize,
    max_handshakes: usize,
    max_per_address: Option<usize>,
    resolver: Box<dyn Resolver>,
    pools: Pools,
    max_unfinished: usize,
}

impl Builder {
    /// Where time and randomness come from. Default: the system.
    #[must_use]
    pub fn env(mut self, env: impl Env + 'static) -> Self {
        self.env = Box::new(env);
        self
    }

    /// Who looks up names. Default: [`SystemResolver`](crate::resolve::SystemResolver), which asks the system in a thread of its
    /// own; it is started by the first name that is neither an address nor `localhost`.
    #[doc(alias("lws_async_dns", "CURLOPT_DNS_SERVERS"))]
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolver + 'static) -> Self {
        self.resolver = Box::new(resolver);
        self
    }

    /// The simulated network to live in, instead of the system's.
    #[cfg(feature = "sim")]
    #[must_use]
    pub(crate) fn simulated(mut self, network: crate::sim::Network) -> Self {
        self.net = Net::Simulated(network);
        self
    }

    /// For loops that may sleep without passing [`Context::prepare`] after the context was used: the first use of
    /// [`Context::io`] after a `prepare` signals the wake-up descriptor once, so that the loop comes round. Default: off.
    #[must_use]
    pub fn self_wake(mut self, on: bool) -> Self {
        self.self_wake = on;
        self
    }

    /// How many descriptors the context may have at once, listeners and adopted ones included. At the bound a connection that
    /// has not made its first request gives way to a new one, chosen as [`max_handshakes`](Self::max_handshakes) says; the new one
    /// is accepted in the next turn, when the other's descriptor is closed. Where there is none, accepting pauses, and goes on when
    /// a descriptor closes.
    ///
    /// Default: as many as the process may open (RLIMIT_NOFILE). There the system itself draws the line, nobody gives way, and
    /// accepting pauses.
    #[doc(alias("max connections", "fd_limit_per_thread"))]
    #[must_use]
    pub fn max_links(mut self, links: usize) -> Self {
        self.max_links = links;
        self
    }

    /// How many accepted connections may be without a complete first request, or, where they are raw and speak TLS, without a
    /// complete handshake. At the bound one of them gives way to each new connection: of the address that has most of them, the one
    /// that has been silent longest. Whoever floods a server with connections pushes out their own. Default 1,024.
    ///
    /// - The first 64 bits of an IPv6 address count as the address, since whoever has one has the network. All Unix sockets count
    ///   as one address.
    /// - Silent is who has sent nothing since: each is looked at first, and stays if something lies unread in its socket or waits
    ///   for its turn here, unless that has saved it four times before.
    /// - While no address has more than one, each has half a second, so that a crowd of honest clients does not push itself out.
    ///   Accepting pauses only if nobody can give way; it looks again after a quarter of a second, and whenever a handshake is over.
    ///
    /// The connection that gives way is reset. A raw one hears [`CloseReason::GaveWay`](crate::CloseReason::GaveWay); of a TLS
    /// handshake the site's first protocol hears [`TlsError::HandshakeGaveWay`](crate::tls::TlsError::HandshakeGaveWay). The log
    /// (target `lodger::net`) warns once a minute, and names each at the level `debug`.
    ///
    /// Connections that are [adopted](crate::Io::adopt_http) count as well, and are never too many themselves.
    #[doc(alias("SYN flood", "slowloris"))]
    #[must_use]
    pub fn max_handshakes(mut self, links: usize) -> Self {
        self.max_handshakes = links;
        self
    }

    /// How many connections one address may have at once, in all listeners together; more are closed right after accepting.
    /// An IPv6 address is counted as it is: who has a whole network has many.
    /// Default: no limit.
    #[must_use]
    pub fn max_per_address(mut self, links: usize) -> Self {
        self.max_per_address = Some(links);
        self
    }

    /// How many bytes the WebSocket messages that have begun and are not complete may hold, those of all connections together: what
    /// has come of them, the room for what comes next, and the decompressors that they have for themselves. When they hold more, the
    /// message gives way that has moved least for what it holds, in the last seconds of its time; the newest is not that one. Its peer
    /// gets Close 1013, its handler hears [`CloseReason::GaveWay`](crate::CloseReason::GaveWay). Content of HTTP is not meant: it is handed
    /// over in pieces and not kept. Default 256 MiB: sixteen messages of the length that
    /// [`Limits::message`](crate::Limits::message) allows. Give it more where more messages of such a length come at once.
    #[must_use]
    pub fn max_unfinished(mut self, bytes: usize) -> Self {
        self.max_unfinished = bytes;
        self
    }

    /// How many bytes the compressors and decompressors of connections with permessage-deflate may come to take, where they keep
    /// them for context takeover. Beyond it new connections have no context takeover, and share what all share. Default 64 MiB.
    #[cfg(feature = "deflate")]
    #[doc(alias("context takeover", "deflateInit2"))]
    #[must_use]
    pub fn max_deflate_memory(mut self, bytes: usize) -> Self {
        self.pools.budget = ws::deflate::Budget::new(bytes);
        self
    }

    /// The context.
    pub fn build<D>(self) -> Context<D> {
        let mut core = Core::new(self.net, self.env, self.max_links, self.max_handshakes);
        core.max_per_address = self.max_per_address;
        core.resolver = Some(self.resolver);
        core.pools = self.pools;
        core.unfinished.most = self.max_unfinished;
        Context {
            io: Io::new(core),
            handlers: Handlers { pages: Vec::new() },
            protocols: Vec::new(),
            acceptors: Vec::new(),
            buffer: Vec::new(),
            spare: ws::Spare::default(),
            running: NO_CONN,
            self_wake: self.self_wake,
            woken: false,
        }
    }
}

impl Context {
    /// Sets up a context that differs from the default.
    ///
    /// ```
    /// let context: lodger::Context<String> = lodger::Context::builder().max_links(100).build();
    /// # context.abandon();
    /// ```
    pub fn builder() -> Builder {
        Builder {
            env: Box::new(SystemEnv),
            net: Net::System,
            self_wake: false,
            max_links: usize::MAX,
            max_handshakes: 1024,
            max_per_address: None,
            resolver: Box::new(SystemResolver::new()),
            pools: Pools::default(),
            max_unfinished: crate::engine::unfinished::MOST,
        }
    }
}
