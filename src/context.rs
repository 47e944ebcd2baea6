//! The context: the calls that a host makes, and the running of handlers.

use crate::engine::link::{Flags, NO_CONN, State};
use crate::engine::store::Key;
use crate::engine::timers::{Timer, TimerId};
use crate::engine::{Budget, Core, Filled, MESSAGES, RECEIVE};
use crate::env::{Env, SystemEnv};
use crate::handler::{AnyHandler, CloseReason, Notice, Protocol, Timeout};
use crate::host::{Host, Interest, Pollable, Ready, Served, Wait};
pub(crate) use crate::io::{Cx, Io};
use crate::io::{Fresh, ListenerId};
use crate::net::{Net, Peer};
use crate::remote::{Command, Remote};
use crate::resolve::{Resolver, SystemResolver};
use crate::role::Role;
use crate::ws;
use crate::ws::extension::{Pools, Reading, Source};
use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::rc::Rc;

/// Names a conn: one conversation that a handler has. It finds nothing once the conn has ended.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnId(pub(crate) Key);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.index, self.0.generation)
    }
}

/// A set of connections that live in one host's loop. See the [crate's page](crate) for how the two meet.
///
/// `D` is the host's own state, lent to each service call and from there to the handlers. A context belongs to one
/// thread; [`Remote`] is the door for others.
///
/// Take it from its loop with [`detach`](Self::detach) or [`leave`](Self::leave) before it is dropped; dropping it while a
/// host watches its descriptors is a mistake that is logged.
#[doc(alias("lws_context", "lws_create_context"))]
pub struct Context<D = ()> {
    pub(crate) io: Io<D>,
    /// By the places of the conns.
    pub(crate) handlers: Handlers<D>,
    /// By the places of the sites.
    pub(crate) protocols: Vec<Vec<Box<dyn Protocol<D>>>>,
    acceptors: Vec<(Key, Acceptor<D>)>,
    /// What is read goes here first, whichever link it is from.
    buffer: Vec<u8>,
    /// Where messages are collected that do not come in one piece.
    spare: ws::Spare,
    /// The conn whose handler runs. Found here by the next call, it has unwound.
    pub(crate) running: u32,
    self_wake: bool,
    /// The descriptor was signalled since the last `prepare`.
    woken: bool,
    abandoned: bool,
}

/// Who gets the connections of a raw listener.
pub(crate) type Acceptor<D> =
    Box<dyn FnMut(&Peer, &mut D, &mut Io<D>) -> Option<Box<dyn crate::raw::Handler<D>>>>;

/// Calls what handlers of all roles have.
macro_rules! in_any_role {
    ($any:expr, $handler:ident => $call:expr) => {
        match $any {
            AnyHandler::WebSocket($handler) => $call,
            AnyHandler::Http($handler) => $call,
            AnyHandler::Raw($handler) => $call,
            AnyHandler::Client($handler) => $call,
            AnyHandler::Descriptor($handler) => $call,
        }
    };
}

/// Handlers by the places of their conns.
pub(crate) struct Handlers<D> {
    #[expect(clippy::vec_box, reason = "growing moves no page")]
    pages: Vec<Box<[Option<AnyHandler<D>>; PAGE]>>,
}

const PAGE: usize = 64;

impl<D> Handlers<D> {
    pub(crate) fn place(&mut self, index: u32) -> &mut Option<AnyHandler<D>> {
        let index = index as usize;
        while self.pages.len() <= index / PAGE {
            self.pages.push(Box::new([const { None }; PAGE]));
        }
        &mut self.pages[index / PAGE][index % PAGE]
    }

    #[inline]
    pub(crate) fn get(&mut self, index: u32) -> Option<&mut AnyHandler<D>> {
        self.pages.get_mut(index as usize / PAGE)?[index as usize % PAGE].as_mut()
    }

    fn take(&mut self, index: u32) -> Option<AnyHandler<D>> {
        self.pages.get_mut(index as usize / PAGE)?[index as usize % PAGE].take()
    }
}

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

    /// How many descriptors the context may have at once, listeners and adopted ones included. At the bound accepting
    /// pauses, and goes on when one closes. Default: as many as the process may open (RLIMIT_NOFILE), where the system
    /// itself draws the line.
    #[doc(alias("max connections", "fd_limit_per_thread"))]
    #[must_use]
    pub fn max_links(mut self, links: usize) -> Self {
        self.max_links = links;
        self
    }

    /// How many accepted connections may be without a complete first request, or, where they are raw and speak TLS, without a
    /// complete handshake. Beyond it accepting pauses. Default 1,024.
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
            abandoned: false,
        }
    }
}

impl<D> Context<D> {
    /// A context with every default.
    pub fn new() -> Self {
        Context::builder().build()
    }

    /// Tells the host what has changed and how long it may sleep. Call it after the last use of the context and before the loop
    /// can sleep. Calling it more often is harmless.
    ///
    /// Writes what was queued outside service calls, then says removes, changes and adds, then closes what was removed.
    /// It cannot fail: a link whose descriptor is refused hears so in its `closed`.
    #[doc(alias("lws_service_adjust_timeout", "LWS_CALLBACK_LOCK_POLL"))]
    #[inline]
    pub fn prepare(&mut self, host: &mut dyn Host) -> Wait {
        let core = &mut self.io.core;
        // The sleep is about to begin: a time that was read up to here is of no use after it.
        core.turn_ended();
        let nothing_new = !core.work && core.changes.is_empty() && core.timers.is_empty();
        if nothing_new && self.running == NO_CONN && !self.self_wake {
            return Wait::FOREVER;
        }
        self.prepare_slowly(host)
    }

    #[inline(never)]
    fn prepare_slowly(&mut self, host: &mut dyn Host) -> Wait {
        self.recover();
        if self.self_wake && self.io.remote.is_none() {
            self.make_wake_up();
        }
        self.woken = false;
        let core = &mut self.io.core;
        core.turn_ended();
        core.flush_waiting(&mut Budget::new());
        if !core.changes.is_empty() {
            core.tell(host);
            self.forget_acceptors();
        }
        self.io.core.turn_ended();
        let due = self.io.is_due();
        self.io.core.wait(due)
    }

    /// Serves one descriptor, if it is lodger's: then `revents` is zero on return. Otherwise nothing is touched. Any value is
    /// harmless: pass every descriptor of an array, and handle those that come back [`Served::Foreign`].
    #[doc(alias("lws_service_fd", "libwebsocket_service_fd"))]
    #[inline]
    pub fn service_fd(&mut self, pollfd: &mut impl Pollable, data: &mut D) -> Served {
        let Some(link) = self.io.core.lookup(pollfd.fd()) else { return Served::Foreign };
        let ready = pollfd.revents();
        pollfd.clear();
        if !ready.is_none() {
            self.serve(link, ready, data);
        }
        Served::Ours
    }

    /// The same for loops without pollfd, and where the array is part of `data`.
    #[doc(alias("lws_service_fd", "curl_multi_socket_action"))]
    #[inline]
    pub fn service(&mut self, fd: RawFd, ready: Ready, data: &mut D) -> Served {
        self.service_fd(&mut crate::host::PollFd::new(fd, ready), data)
    }

    /// Runs what is due: timers, timeouts, input and output that a budget or a pause left, posts from other threads. Call it
    /// after each sleep; calling it too often is harmless.
    #[doc(alias("lws_service_tsi", "LWS_CALLBACK_TIMER", "CURL_SOCKET_TIMEOUT"))]
    #[inline]
    pub fn service_timeouts(&mut self, data: &mut D) {
        let core = &self.io.core;
        if core.work || !core.timers.is_empty() || self.io.remote.is_some() || self.running != NO_CONN {
            self.service_timeouts_slowly(data);
        }
    }

    #[inline(never)]
    fn service_timeouts_slowly(&mut self, data: &mut D) {
        let core = &mut self.io.core;
        let due = core.timers.next().is_some_and(|next| next <= core.now());
        let posted = self.io.remote.as_ref().is_some_and(|remote| remote.0.is_raised());
        if due || posted || self.io.core.work || self.running != NO_CONN {
            self.run_due(data);
        }
    }

    /// Everything but serving, for use between service calls: listen, send, close, adopt. What is queued here is written and
    /// announced by the next [`prepare`](Self::prepare).
    pub fn io(&mut self) -> &mut Io<D> {
        if self.self_wake && !self.woken {
            self.woken = true;
            if let Some(remote) = self.make_wake_up() {
                remote.0.raise();
            }
        }
        &mut self.io
    }

    /// The wake-up descriptor is there before the first sleep of a loop that is to be woken by it.
    #[cold]
    fn make_wake_up(&mut self) -> Option<Remote<D>> {
        let remote = self.io.remote();
        if let Err(error) = &remote {
            log::error!(target: "lodger::host", "no wake-up descriptor: {error}");
        }
        remote.ok()
    }

    /// How many descriptors there are, the wake-up descriptor not counted: [`Io::link_count`], for loops to look at without
    /// it being a use of the context.
    pub fn link_count(&self) -> usize {
        self.io.link_count()
    }

    /// A handle for other threads. The first makes the wake-up descriptor.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub fn remote(&mut self) -> std::io::Result<Remote<D>> {
        self.io.remote()
    }

    /// Takes every descriptor from the host and closes nothing. The next `prepare`, with any host, adds them again.
    #[doc(alias = "foreign loops")]
    pub fn detach(&mut self, host: &mut dyn Host) {
        self.recover();
        self.io.core.tell(host);
        self.io.core.detach(host);
    }

    /// Leaves the loop for good: every descriptor is taken from the host; WebSockets get a Close with 1001, and what is
    /// queued gets one last write that does not wait; every handler hears `closed` with [`CloseReason::Leaving`], every
    /// protocol `ended`; then all is closed. Handlers that listen, adopt or send meanwhile are told `Leaving` or `Closing`. Nothing is
    /// heard of what they connect or look up meanwhile: who connects again whenever a connection ends would never come to an end.
    #[doc(alias("lws_context_destroy", "libwebsocket_context_destroy"))]
    pub fn leave(&mut self, host: &mut dyn Host, data: &mut D) {
        self.recover();
        self.settle(data);
        self.io.core.detach(host);
        self.io.core.leave();
        self.settle_all(data);
        // Nothing is registered and everything has ended, so that this says nothing to the host.
        self.io.core.tell(host);
        self.end_protocols(data);
        self.settle_all(data);
        self.io.core.tell(host);
        self.io.drop_tasks();
        self.forget_acceptors();
        self.io.close_remote();
    }

    /// For a forked child: gives the descriptors' numbers back, and does nothing else. Nothing is sent, shut down or said to
    /// the host, and handlers hear nothing, so that the parent's connections go on unharmed.
    #[doc(alias = "fork")]
    pub fn abandon(mut self) {
        self.abandoned = true;
    }

    // Serving.

    /// A handler that unwound is not called again: its conn is aborted. So is the link that was being served then; whoever runs
    /// something that is no handler of a conn while there is one says that there is work, so that this is looked at.
    fn recover(&mut self) {
        if self.running != NO_CONN || self.io.core.current != crate::engine::NOBODY {
            self.recover_from_panic();
        }
    }

    #[cold]
    fn recover_from_panic(&mut self) {
        let conn = std::mem::replace(&mut self.running, NO_CONN);
        log::error!(target: "lodger::handler", "a handler panicked; its connection is aborted");
        drop(self.handlers.take(conn));
        self.io.take_back_lent();
        let core = &mut self.io.core;
        let served = std::mem::replace(&mut core.current, crate::engine::NOBODY);
        core.short = Key::NONE;
        core.handling = false;
        core.out.clear();
        if core.links.at(served).is_some() {
            core.abort(served, CloseReason::Aborted);
        }
        if let Some(link) = core.conns.at(conn).map(|(_, conn)| conn.link)
            && core.links.at(link).is_some()
        {
            core.abort(link, CloseReason::Aborted);
        }
    }

    // Never: where it is inlined, the loop around it gets in the way of its registers.
    #[inline(never)]
    fn serve(&mut self, index: u32, ready: Ready, data: &mut D) {
        if self.io.core.work || self.running != NO_CONN {
            self.recover();
            self.install(data);
        }
        if ready != Ready::READ || !self.serve_messages(index, data) {
            self.serve_otherwise(index, ready, data);
        }
        self.settle(data);
    }

    /// The hot path: reads a WebSocket of which nothing else is to be done, hands over what came as far as that is short messages
    /// in one frame each, and writes what their handler has gathered. The rest, if there is one, goes the way of all input. False
    /// if there is something else to be done.
    ///
    /// What is the same for all messages of one read is looked up once, and nothing of it is held while the handler runs, which may
    /// change all of it but says so by `interrupted`.
    #[inline(always)]
    fn serve_messages(&mut self, index: u32, data: &mut D) -> bool {
        let core = &mut self.io.core;
        let Some(link) = core.links.at_mut(index).filter(|link| link.is_plain_websocket()) else {
            return false;
        };
        let Role::WebSocket(websocket) = &link.role else { return false };
        let Some(limit) = websocket.receiver.short_limit::<true>(&websocket.settings(&link.limits)) else {
            return false;
        };
        let (conn, timed, is_short) =
            (link.conn, link.flags.contains(Flags::TIMED), link.is_short(websocket));
        if self.buffer.is_empty() {
            self.buffer.resize(RECEIVE, 0);
        }
        let filled = match link.read(&core.net, &mut self.buffer) {
            Filled::Bytes(filled) => filled,
            nothing => {
                self.received_nothing(index, nothing, data);
                return true;
            }
        };
        if timed {
            core.set_active(index);
        }
        core.make_current(index);
        let mut used = 0;
        let mut budget = MESSAGES;
        if let Some(key) = core.conns.key_at(conn)
            && let Some(AnyHandler::WebSocket(handler)) = self.handlers.get(conn)
        {
            core.short = if is_short { key } else { Key::NONE };
            self.running = conn;
            let mut cx = Cx::new(data, &mut self.io, ConnId(key));
            let handler = &mut **handler;
            let mut input = &mut self.buffer[..filled];
            // One is left to the way of all input, which knows what to do when there are more.
            while budget > 1
                && let Some((kind, payload)) = ws::ShortFrame::take::<true>(&mut input, limit)
            {
                budget -= 1;
                match ws::Message::new(kind, payload) {
                    Ok(message) => handler.message(&mut cx, message),
                    Err(error) => cx.io.core.fail_websocket(index, error.into()),
                }
                if cx.io.core.interrupted {
                    break;
                }
            }
            used = filled - input.len();
            self.running = NO_CONN;
        }
        if timed && used > 0 {
            self.io.core.message_passed(index);
        }
        if used < filled || self.io.core.interrupted {
            self.receive_rest(index, used..filled, budget, data);
        } else {
            self.io.core.release_plain();
        }
        true
    }

    /// Hands over the rest of what was read.
    #[inline(never)]
    fn receive_rest(&mut self, index: u32, rest: Range<usize>, budget: u32, data: &mut D) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let left = self.handle_on(index, &mut buffer[rest.clone()], budget, data);
        if left.bytes > 0 {
            self.put_back(index, &buffer[rest.end - left.bytes..rest.end], left.stopped);
        }
        self.buffer = buffer;
    }

    /// All that is not input alone.
    #[inline(never)]
    fn serve_otherwise(&mut self, index: u32, ready: Ready, data: &mut D) {
        let core = &mut self.io.core;
        let link = core.link(index);
        if link.state == State::Ended || link.flags.contains(Flags::RELEASING) {
            return;
        }
        match &link.role {
            Role::WebSocket(_) | Role::Http(_) | Role::Raw | Role::Client(_) => {
                if ready.is_writable() && link.queue.is_some() {
                    core.flush(index, &mut Budget::new());
                }
                if ready.is_readable() && core.link(index).wants().is_readable() {
                    self.receive(index, false, data);
                }
            }
            Role::Listener(_) => self.accept(index, data),
            Role::WakeUp => self.wake_up(index),
            Role::Descriptor(_) => self.serve_descriptor(index, ready, data),
            Role::Connecting(_) => self.serve_connecting(index, data),
            Role::Resolver { number, .. } => {
                let number = *number;
                core.resolver_ready(number, ready);
            }
        }
    }

    /// Reads a link once and hands over what came.
    fn receive(&mut self, index: u32, waited: bool, data: &mut D) {
        if !self.io.core.handshake_may_go_on(index, waited) {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer.resize(RECEIVE, 0);
        }
        let filled = self.io.core.fill(index, &mut buffer);
        if self.io.core.was_just_secured(index) && !self.secured(index, data) {
            self.buffer = buffer;
            return;
        }
        match filled {
            Filled::Bytes(filled) => {
                let left = self.handle(index, &mut buffer[..filled], data);
                if left.bytes > 0 {
                    self.put_back(index, &buffer[filled - left.bytes..filled], left.stopped);
                }
            }
            nothing => self.received_nothing(index, nothing, data),
        }
        self.buffer = buffer;
        self.transport_may_have_ended(index, data);
    }

    /// The handshake of a link is complete. False if its client is refused.
    fn secured(&mut self, index: u32, data: &mut D) -> bool {
        let link = self.io.core.link(index);
        let conn = link.conn;
        match &link.role {
            Role::Http(server) => {
                let site = server.site;
                // One that unwinds lets nobody in.
                self.io.core.make_current(index);
                self.io.core.work = true;
                let welcome = self.is_welcome(index, site, data);
                self.io.core.release_current();
                if !welcome {
                    self.io.core.finish_and_linger(index);
                }
                welcome
            }
            // Closed meanwhile, with something to be sent first.
            Role::Raw if link.state != State::Open => {
                self.io.core.left_handshake(index);
                true
            }
            Role::Raw => {
                self.io.core.left_handshake(index);
                self.io.core.opens(index);
                self.open_raw_handler(conn, data);
                true
            }
            // Closed meanwhile, with something to be sent first.
            Role::Client(_) if link.state != State::Open => true,
            Role::Client(_) => {
                self.speak(index, data);
                true
            }
            _ => true,
        }
    }

    #[cfg(feature = "tls")]
    fn is_welcome(&mut self, index: u32, site: Key, data: &mut D) -> bool {
        let link = self.io.core.link(index);
        let peer = link.peer().map_or(Peer::Unix(None), Peer::Inet);
        let facts = link.tls.as_ref().and_then(|tls| tls.facts());
        let first = protocol_at(&mut self.protocols, site, 0);
        first.zip(facts).is_none_or(|(first, facts)| first.secured(&peer, &facts, data))
    }

    #[cfg(not(feature = "tls"))]
    fn is_welcome(&mut self, _: u32, _: Key, _: &mut D) -> bool {
        true
    }

    pub(crate) fn open_raw_handler(&mut self, conn: u32, data: &mut D) {
        self.with_gathered(conn, data, |handler, cx| {
            if let AnyHandler::Raw(handler) = handler {
                handler.opened(cx);
            }
        });
    }

    /// The end of what the peer has to say, or a failure, may have come with the last of it, and is said once that has been handed
    /// over.
    fn transport_may_have_ended(&mut self, index: u32, data: &mut D) {
        let link = self.io.core.link(index);
        let waits = link.state == State::Ended || link.flags.intersects(Flags::BACKLOG.union(Flags::PAUSED));
        if link.tls.is_some()
            && !waits
            && !self.io.core.fail_now(index)
            && self.io.core.peer_has_closed(index)
        {
            self.input_ended(index, data);
        }
    }

    #[inline(never)]
    fn received_nothing(&mut self, index: u32, nothing: Filled, data: &mut D) {
        match nothing {
            Filled::Bytes(_) | Filled::Nothing => {}
            Filled::End => self.input_ended(index, data),
            Filled::Failed(error) => self.io.core.end(index, CloseReason::Io(error)),
        }
    }

    /// Goes on with the input that a link has kept, and says how many messages that gave.
    fn resume(&mut self, index: u32, data: &mut D) -> u32 {
        let core = &mut self.io.core;
        let link = core.link(index);
        // Pausing holds back content, not the end of an exchange that is complete.
        if link.state == State::Ended
            || (link.flags.contains(Flags::PAUSED) && !matches!(link.role, Role::Http(_)))
        {
            return 0;
        }
        link.flags.remove(Flags::BACKLOG);
        if link.tls.as_ref().is_some_and(|tls| !tls.is_secured()) {
            // A handshake that waited for its share.
            self.receive(index, true, data);
            self.io.core.mark(index);
            return 1;
        }
        let mut kept = link.kept.take().unwrap_or_default();
        let start = kept.start;
        let left = self.handle(index, &mut kept.bytes[start..], data);
        if left.bytes == 0 {
            self.io.core.pool.give(kept.bytes);
        } else {
            kept.start = kept.bytes.len() - left.bytes;
            let link = self.io.core.link(index);
            if link.state == State::Open {
                link.kept = Some(kept);
                link.flags.set(Flags::BACKLOG, left.stopped);
            }
        }
        self.io.core.input_kept(index);
        self.transport_may_have_ended(index, data);
        left.messages
    }

    /// Keeps what a link has not used. `stopped` says that it could be, and is not for now.
    fn put_back(&mut self, index: u32, rest: &[u8], stopped: bool) {
        let core = &mut self.io.core;
        if core.link(index).state != State::Open {
            return;
        }
        core.keep(index, rest);
        core.link(index).flags.set(Flags::BACKLOG, stopped);
        core.input_kept(index);
    }

    /// Hands the input of a link to its role, as far as it goes.
    fn handle(&mut self, index: u32, input: &mut [u8], data: &mut D) -> Left {
        self.io.core.make_current(index);
        self.handle_on(index, input, MESSAGES, data)
    }

    /// The same for a link that is being served already.
    fn handle_on(&mut self, index: u32, input: &mut [u8], mut budget: u32, data: &mut D) -> Left {
        self.io.core.interrupted = false;
        self.io.core.handling = true;
        let mut used = 0;
        let (bytes, stopped) = loop {
            let link = self.io.core.link(index);
            if link.state != State::Open {
                break (0, false);
            }
            let rest = &mut input[used..];
            let (took, next) = match &link.role {
                Role::WebSocket(_) => self.handle_websocket(index, rest, &mut budget, data),
                Role::Http(_) => self.handle_http(index, rest, &mut budget, data),
                Role::Raw => self.handle_raw(index, rest, data),
                Role::Client(_) => self.handle_client(index, rest, &mut budget, data),
                _ => (rest.len(), Next::More),
            };
            used += took;
            match next {
                Next::Again if budget > 0 => {}
                Next::More => break (input.len() - used, false),
                Next::Stop => break (input.len() - used, true),
                Next::Again | Next::Later => {
                    self.io.core.resume_later(index);
                    break (input.len() - used, true);
                }
            }
        };
        self.io.core.handling = false;
        self.io.core.release_current();
        Left { bytes, stopped, messages: MESSAGES - budget }
    }

    fn handle_websocket(
        &mut self,
        index: u32,
        input: &mut [u8],
        budget: &mut u32,
        data: &mut D,
    ) -> (usize, Next) {
        let link = self.io.core.link(index);
        let (conn, timed) = (link.conn, link.flags.contains(Flags::TIMED));
        let Role::WebSocket(websocket) = &link.role else { return (input.len(), Next::More) };
        if !websocket.closing.may_send() {
            return self.await_close(index, input, budget);
        }
        if link.flags.contains(Flags::PAUSED) {
            // In `opened`, with messages right behind the handshake.
            return (0, Next::Stop);
        }
        let short = link.is_short(websocket) && !timed;
        let Some(AnyHandler::WebSocket(handler)) = self.handlers.get(conn) else {
            return (input.len(), Next::More);
        };
        let Some(key) = self.io.core.conns.key_at(conn) else { return (input.len(), Next::More) };
        self.running = conn;
        self.io.core.short = if short { key } else { Key::NONE };
        // Out of its place while handlers run: an event may borrow from it, and handlers get everything else.
        let (reading, settings) = self.io.core.take_reading(index, *budget);
        let mut cx = Cx::new(data, &mut self.io, ConnId(key));
        let (handler, spare) = (&mut **handler, &mut self.spare);
        let (used, next, reading) = match reading {
            Reading::Plain(mut receiver) => {
                let (used, next) =
                    deliver_all(&mut receiver, handler, &mut cx, index, input, &settings, spare, budget);
                (used, next, Reading::Plain(receiver))
            }
            Reading::Extended(mut extended) => {
                let (used, next) =
                    deliver_all(&mut extended, handler, &mut cx, index, input, &settings, spare, budget);
                *budget = extended.budget_left(*budget);
                if extended.has_more() && matches!(next, Next::Stop | Next::Later) {
                    // Though no input may be left: what comes after it has to wait.
                    self.io.core.link(index).flags.insert(Flags::BACKLOG);
                }
                (used, next, Reading::Extended(extended))
            }
        };
        self.running = NO_CONN;
        self.io.core.put_reading(index, reading);
        (used, next)
    }

    /// Looks for the peer's answer to our Close. What comes before it is nobody's any more.
    #[cold]
    fn await_close(&mut self, index: u32, input: &mut [u8], budget: &mut u32) -> (usize, Next) {
        let (reading, settings) = self.io.core.take_reading(index, *budget);
        let (core, spare) = (&mut self.io.core, &mut self.spare);
        let (used, next, reading) = match reading {
            Reading::Plain(mut receiver) => {
                let (used, next) = drop_until_close(&mut receiver, core, index, input, &settings, spare);
                (used, next, Reading::Plain(receiver))
            }
            Reading::Extended(mut extended) => {
                let (used, next) = drop_until_close(&mut extended, core, index, input, &settings, spare);
                *budget = extended.budget_left(*budget);
                (used, next, Reading::Extended(extended))
            }
        };
        core.put_reading(index, reading);
        (used, next)
    }

    fn handle_raw(&mut self, index: u32, input: &mut [u8], data: &mut D) -> (usize, Next) {
        let link = self.io.core.link(index);
        let conn = link.conn;
        if link.flags.contains(Flags::PAUSED) {
            // In `opened`, with bytes right behind the handshake.
            return (0, Next::Stop);
        }
        if !input.is_empty() {
            self.with_handler(conn, data, |handler, cx| {
                if let AnyHandler::Raw(handler) = handler {
                    handler.received(cx, input);
                }
            });
        }
        (input.len(), Next::More)
    }

    /// The peer has ended its half of a link, and everything before that has been handed over.
    fn input_ended(&mut self, index: u32, data: &mut D) {
        let core = &mut self.io.core;
        let link = core.link(index);
        if link.flags.contains(Flags::WRITE_FAILED) {
            return core.end(index, CloseReason::PeerEnded);
        }
        if link.state == State::Lingering {
            return core.end(index, CloseReason::Closed);
        }
        if link.state == State::Finishing {
            // Our last bytes still go out; then it is over.
            return core.mark(index);
        }
        match &link.role {
            Role::WebSocket(_) => core.websocket_ended(index),
            Role::Http(_) => self.http_input_ended(index),
            Role::Raw => {
                let conn = link.conn;
                if link.flags.contains(Flags::FINISHED) && link.queued() == 0 {
                    return core.end(index, CloseReason::PeerEnded);
                }
                core.make_current(index);
                self.with_handler(conn, data, |handler, cx| {
                    if let AnyHandler::Raw(handler) = handler {
                        handler.end(cx);
                    }
                });
                self.io.core.release_current();
            }
            Role::Client(_) => self.client_input_ended(index, data),
            _ => {}
        }
        if let Some((_, link)) = self.io.core.links.at(index)
            && link.state == State::Open
        {
            self.io.core.mark(index);
        }
    }

    fn accept(&mut self, index: u32, data: &mut D) {
        let burst = self.io.core.burst(index);
        for accepted in 0..burst {
            let core = &mut self.io.core;
            let Some((socket, peer)) = core.accept(index) else {
                return core.burst_was(index, accepted, false);
            };
            if core.over_address_limit(&peer) {
                core.net.close(socket);
                continue;
            }
            let listener = core.links.key_at(index).unwrap_or(Key::NONE);
            let Role::Listener(facts) = &core.link(index).role else { return };
            match facts.sites.first().copied() {
                Some(site) => {
                    let first = protocol_at(&mut self.protocols, site, 0);
                    if first.is_some_and(|first| first.filter(&peer, data)) {
                        let link = self.io.open_http(socket, &peer, site, listener);
                        self.io.core.count_address(link);
                    } else {
                        self.io.core.net.close(socket);
                    }
                }
                None => self.accept_raw(index, socket, &peer, data),
            }
        }
        self.io.core.burst_was(index, burst, true);
    }

    fn accept_raw(&mut self, index: u32, socket: OwnedFd, peer: &Peer, data: &mut D) {
        let limits = self.io.core.limits(index);
        let listener = self.io.core.links.key_at(index);
        let acceptor = self.acceptors.iter_mut().find(|(key, _)| Some(*key) == listener);
        match acceptor.and_then(|(_, accept)| accept(peer, data, &mut self.io)) {
            Some(handler) => {
                let server = self.io.core.own_server(index);
                let conn = self.io.open_raw(socket, Some(peer), limits, handler);
                if let Some(link) = self.io.core.conns.get(conn).map(|conn| conn.link) {
                    self.io.core.count_address(link);
                    if let Some(server) = server {
                        self.io.core.begin_tls(link, &server);
                    }
                }
                self.install(data);
                self.io.core.wind_up_late(conn);
            }
            None => self.io.core.net.close(socket),
        }
    }

    /// What accepts for a raw listener goes with it.
    fn forget_acceptors(&mut self) {
        let links = &self.io.core.links;
        self.acceptors.retain(|(listener, _)| links.get(*listener).is_some());
    }

    fn wake_up(&mut self, index: u32) {
        let core = &self.io.core;
        if let Some(fd) = core.links.at(index).and_then(|(_, link)| link.fd.as_ref()) {
            core.net.drain_wake_up(fd.as_fd());
        }
        self.io.core.link(index).received += 1;
        // Emptied first: a post from here on signals again.
        if let Some(remote) = &self.io.remote {
            remote.0.lowered();
        }
        self.io.look_for_posts();
    }

    fn serve_descriptor(&mut self, index: u32, ready: Ready, data: &mut D) {
        let link = self.io.core.link(index);
        let conn = link.conn;
        let Role::Descriptor(interest) = &mut link.role else { return };
        let read = ready.is_readable() && interest.is_readable() && !link.flags.contains(Flags::PAUSED);
        let write = ready.is_writable() && interest.is_writable();
        *interest = interest.without(if write { Interest::WRITE } else { Interest::NONE });
        link.sent += u64::from(write);
        if write {
            self.lend(index, conn, data, |handler, cx, fd| handler.writable(cx, fd));
        }
        let link = self.io.core.link(index);
        if read && link.state == State::Open && !link.flags.contains(Flags::PAUSED) {
            link.received += 1;
            self.lend(index, conn, data, |handler, cx, fd| handler.readable(cx, fd));
        }
        self.io.core.mark(index);
    }

    /// Runs a descriptor's handler with the descriptor in its hands.
    fn lend(
        &mut self,
        index: u32,
        conn: u32,
        data: &mut D,
        run: impl FnOnce(&mut dyn crate::fd::Handler<D>, &mut Cx<'_, D>, std::os::fd::BorrowedFd<'_>),
    ) {
        let Some(fd) = self.io.core.link(index).fd.take() else { return };
        // Kept by the context while it is lent, so that a handler that unwinds does not close what the host still watches.
        let fd = Rc::new(fd);
        self.io.lent = Some((index, Rc::clone(&fd)));
        self.with_handler(conn, data, |handler, cx| {
            if let AnyHandler::Descriptor(handler) = handler {
                run(&mut **handler, cx, fd.as_fd());
            }
        });
        drop(fd);
        self.io.take_back_lent();
    }

    // Handlers.

    /// Runs `run` with a conn's handler, unless the conn has ended.
    pub(crate) fn with_handler(
        &mut self,
        conn: u32,
        data: &mut D,
        run: impl FnOnce(&mut AnyHandler<D>, &mut Cx<'_, D>),
    ) {
        let Some((key, conn_facts)) = self.io.core.conns.at(conn) else { return };
        if conn_facts.ended {
            return;
        }
        let Some(handler) = self.handlers.get(conn) else { return };
        self.running = conn;
        run(handler, &mut Cx::new(data, &mut self.io, ConnId(key)));
        self.running = NO_CONN;
    }

    /// Runs `run` with a conn's handler, its output gathered.
    pub(crate) fn with_gathered(
        &mut self,
        conn: u32,
        data: &mut D,
        run: impl FnOnce(&mut AnyHandler<D>, &mut Cx<'_, D>),
    ) {
        let link = self.io.core.conns.at(conn).map_or(NO_CONN, |(_, conn)| conn.link);
        let gather = self.io.core.current == crate::engine::NOBODY && self.io.core.links.at(link).is_some();
        if gather {
            self.io.core.make_current(link);
        }
        self.with_handler(conn, data, run);
        if gather {
            self.io.core.release_current();
        }
    }

    /// Puts in place what handlers, or the host, have made since.
    fn install(&mut self, data: &mut D) {
        while let Some(fresh) = self.io.fresh.pop_front() {
            match fresh {
                Fresh::Handler(key, handler) => {
                    let raw = matches!(handler, AnyHandler::Raw(_));
                    if self.io.core.conns.get(key).is_some() {
                        *self.handlers.place(key.index) = Some(handler);
                        // Where there is something to be made first, it opens after that.
                        if raw && !self.io.core.is_unopened(key) {
                            self.open_raw_handler(key.index, data);
                        }
                    }
                }
                Fresh::Acceptor(listener, accept) => {
                    self.acceptors.retain(|(known, _)| self.io.core.links.get(*known).is_some());
                    self.acceptors.push((listener, accept));
                }
                Fresh::Site(site, protocols) => self.start_site(site, protocols, data),
                Fresh::Certificate(site) => self.report_certificate(site, data),
                Fresh::Decision(conn, decision) => self.decided(conn, decision, data),
            }
        }
    }

    fn start_site(&mut self, site: Key, protocols: Vec<Box<dyn Protocol<D>>>, data: &mut D) {
        let keys = self.io.core.sites.get(site).map(|facts| facts.protocols.clone()).unwrap_or_default();
        let place = site.index as usize;
        if self.protocols.len() <= place {
            self.protocols.resize_with(place + 1, Vec::new);
        }
        self.protocols[place] = protocols;
        for (protocol, key) in self.protocols[place].iter_mut().zip(keys) {
            protocol.started(crate::site::ProtocolId(key), data, &mut self.io);
        }
    }

    /// Tells how long a site's certificate is valid, now and when it is time to say it again. Only while it listens or serves:
    /// what is not used wakes nobody.
    fn report_certificate(&mut self, site: Key, data: &mut D) {
        let now = self.io.core.env.date();
        let Some(facts) = self.io.core.sites.get_mut(site).filter(|facts| facts.is_used()) else { return };
        let mut timer = std::mem::replace(&mut facts.aging, TimerId::NONE);
        let server = facts.policy.tls.clone();
        self.io.core.timers.cancel(&mut timer);
        let Some((server, (days_left, next))) =
            server.and_then(|server| server.next_report(now).map(|report| (server, report)))
        else {
            return;
        };
        let at = self.io.core.read_clock().after(next);
        let timer = self.io.core.timers.arm(at, Timer::Certificate(site));
        if let Some(facts) = self.io.core.sites.get_mut(site) {
            facts.aging = timer;
        }
        self.tell_age(site, &server, days_left, data);
    }

    #[cfg(feature = "tls")]
    fn tell_age(&mut self, site: Key, server: &crate::tls::Server, days_left: i64, data: &mut D) {
        if let Some(first) = protocol_at(&mut self.protocols, site, 0) {
            first.certificate_ages(crate::SiteId(site), server, days_left, data, &mut self.io);
        }
    }

    #[cfg(not(feature = "tls"))]
    fn tell_age(&mut self, _: Key, _: &crate::transport::Server, _: i64, _: &mut D) {}

    #[cfg(feature = "tls")]
    fn tell_failed_handshake(&mut self, failed: crate::engine::FailedHandshake, data: &mut D) {
        let peer = failed.peer.map_or(Peer::Unix(None), Peer::Inet);
        if let Some(first) = protocol_at(&mut self.protocols, failed.site, 0) {
            first.handshake_failed(&peer, &failed.error, data, &mut self.io);
        }
    }

    #[cfg(not(feature = "tls"))]
    fn tell_failed_handshake(&mut self, _: crate::engine::FailedHandshake, _: &mut D) {}

    /// Does what the call has left to do: writes, tells handlers, ends what has ended.
    #[inline]
    fn settle(&mut self, data: &mut D) {
        if self.io.core.work {
            self.settle_slowly(data, &mut Budget::new());
        }
    }

    fn settle_slowly(&mut self, data: &mut D, budget: &mut Budget) {
        loop {
            self.run_commands(data, budget);
            self.install(data);
            if !self.io.core.ended.is_empty() && budget.take() {
                self.tell_closed(data);
            } else if !self.io.core.notices.is_empty() && budget.take() {
                self.tell_notice(data);
            } else if !self.io.core.to_flush.is_empty() && budget.take() {
                self.io.core.flush_waiting(budget);
            } else if let Some((site, listener, error)) = self.io.core.refused_listeners.pop_front() {
                if let Some(first) = protocol_at(&mut self.protocols, site, 0) {
                    first.listener_refused(ListenerId(listener), error, data, &mut self.io);
                }
            } else if let Some(failed) = self.io.core.failed_handshakes.pop_front() {
                self.tell_failed_handshake(failed, data);
            } else if !self.io.core.answers.is_empty() && budget.take() {
                self.tell_answer(data);
            } else if let Some(site) = self.io.core.ended_sites.pop() {
                self.end_site(site, data);
            } else {
                break;
            }
        }
        self.io.core.work = self.io.core.has_work() || self.io.is_busy();
    }

    /// The same without a bound, for the end of all.
    fn settle_all(&mut self, data: &mut D) {
        while self.io.core.has_work() || self.io.is_busy() {
            self.settle_slowly(data, &mut Budget::new());
        }
    }

    fn tell_answer(&mut self, data: &mut D) {
        let Some((question, answer)) = self.io.core.answers.pop_front() else { return };
        if let Some(entry) = self.io.questions.remove(question) {
            (entry.run)(answer, data, &mut self.io);
        }
    }

    /// Tells all that have ended by now; those that end meanwhile have their turn later. No handler runs now.
    pub(crate) fn tell_all_closed(&mut self, data: &mut D) {
        for _ in 0..self.io.core.ended.len() {
            self.tell_closed(data);
        }
    }

    fn tell_closed(&mut self, data: &mut D) {
        let Some((key, closed)) = self.io.core.ended.pop_front() else { return };
        // It may have ended before its handler was put in its place.
        let handler = self.handlers.take(key.index).or_else(|| self.io.take_fresh_handler(key));
        self.io.core.conns.remove(key);
        let mut cx = Cx::new(data, &mut self.io, ConnId(key));
        if let Some(handler) = handler {
            in_any_role!(handler, handler => handler.closed(&mut cx, closed));
        }
    }

    fn tell_notice(&mut self, data: &mut D) {
        let Some((key, notice)) = self.io.core.notices.pop_front() else { return };
        if !self.io.core.hears(key) {
            return;
        }
        if let (Notice::Timer, Some(conn)) = (&notice, self.io.core.conns.get_mut(key)) {
            // It may have been cancelled, or set anew, since it expired.
            if !std::mem::take(&mut conn.timer_due) {
                return;
            }
        }
        self.with_gathered(key.index, data, |handler, cx| match notice {
            Notice::Writable => match handler {
                AnyHandler::WebSocket(handler) => handler.writable(cx),
                AnyHandler::Http(handler) => handler.writable(cx),
                AnyHandler::Raw(handler) => handler.writable(cx),
                AnyHandler::Client(handler) => handler.writable(cx),
                // The host says so, and the descriptor is lent for it.
                AnyHandler::Descriptor(_) => {}
            },
            Notice::Timer => in_any_role!(handler, handler => handler.timer(cx)),
            Notice::Event(event) => in_any_role!(handler, handler => handler.event(cx, event)),
            Notice::ChildClosed(child) => in_any_role!(handler, handler => handler.child_closed(cx, child)),
        });
    }

    /// Runs what other threads have posted.
    fn run_commands(&mut self, data: &mut D, budget: &mut Budget) {
        if !self.io.remote_due {
            return;
        }
        let Some(remote) = self.io.remote.clone() else { return };
        while budget.take() {
            let Some(command) = remote.0.take() else {
                self.io.remote_due = false;
                return;
            };
            match command {
                Command::Post(task) => task(data, &mut self.io),
                Command::Notify(id, event) => {
                    let _ = self.io.notify(id, event);
                }
                Command::RequestWritable(id) => {
                    if let Some(mut conn) = self.io.conn(id) {
                        conn.request_writable();
                    }
                }
                Command::RequestWritableAll(protocol) => self.io.request_writable_all(protocol),
                Command::Broadcast(protocol, frame) => {
                    self.io.broadcast(protocol, &frame);
                }
            }
        }
    }

    // What is due.

    fn run_due(&mut self, data: &mut D) {
        self.recover();
        let mut budget = Budget::new();
        self.io.remote_due |= self.io.remote.as_ref().is_some_and(|remote| remote.0.is_raised());
        self.install(data);
        let now = self.io.core.now();
        // Timers that those which run now set are for the next call, even when they are due at once.
        while budget.is_left() && self.io.core.timers.expire(now) {
            budget.take();
        }
        while let Some(timer) = self.io.core.timers.take_due() {
            self.expired(timer, data);
        }
        // What a task has adopted may have input to go on with.
        self.install(data);
        for _ in 0..self.io.core.to_resume.len() {
            let Some(key) = self.io.core.to_resume.pop_front() else { break };
            if !budget.take() {
                self.io.core.to_resume.push_front(key);
                break;
            }
            if let Some(link) = self.io.core.links.get_mut(key) {
                link.flags.remove(Flags::TO_RESUME);
                budget.delivered(self.resume(key.index, data));
            }
        }
        self.settle_slowly(data, &mut budget);
    }

    fn expired(&mut self, timer: Timer, data: &mut D) {
        let core = &mut self.io.core;
        match timer {
            Timer::Phase(key) => {
                if let Some(link) = core.links.get_mut(key) {
                    link.phase_timer = TimerId::NONE;
                    self.phase_expired(key.index);
                }
            }
            Timer::Stall(key) => {
                if core.links.get(key).is_some() && core.stalled(key.index) {
                    core.abort(key.index, CloseReason::TimedOut(Timeout::WriteStall));
                }
            }
            Timer::User(key) => {
                if let Some(conn) = core.conns.get_mut(key) {
                    conn.timer = TimerId::NONE;
                    conn.timer_due = true;
                    core.notice(key, Notice::Timer);
                }
            }
            Timer::Task(key) => {
                if let Some(task) = self.io.tasks.remove(key) {
                    (task.run)(data, &mut self.io);
                }
            }
            Timer::Certificate(site) => {
                if let Some(facts) = core.sites.get_mut(site) {
                    facts.aging = TimerId::NONE;
                }
                self.report_certificate(site, data);
            }
            Timer::Connect(key) => core.connect_timer(key),
            Timer::Stagger(key) => core.stagger_timer(key),
            Timer::Resolver => core.resolver_timer(),
            Timer::Accept => core.accept_timer_expired(),
            Timer::Wake => {
                if let Some(link) = self.io.wake_link.filter(|link| core.links.at(*link).is_some()) {
                    core.link(link).flags.remove(Flags::REFUSED);
                    core.mark(link);
                }
                self.io.look_for_posts();
            }
        }
    }

    fn phase_expired(&mut self, index: u32) {
        let core = &mut self.io.core;
        let link = core.link(index);
        if link.state != State::Ended && link.queue.is_some() && link.is_closing() {
            // What is queued is still being taken, which has a limit of its own.
            let closing = link.limits.closing;
            return core.arm_phase(index, closing);
        }
        match (link.state, &link.role) {
            (State::Ended, _) => {}
            (State::Finishing | State::Lingering, _) => {
                core.end(index, CloseReason::TimedOut(Timeout::Closing))
            }
            (State::Open, Role::WebSocket(_)) => core.websocket_timer(index),
            (State::Open, Role::Http(_)) if link.tls.as_ref().is_some_and(|tls| !tls.is_secured()) => {
                core.end(index, CloseReason::TimedOut(Timeout::Handshake))
            }
            (State::Open, Role::Http(_)) => self.http_timer(index),
            // The handshake of its transport is not complete: there is no other phase that has a time.
            (State::Open, Role::Raw) => core.abort(index, CloseReason::TimedOut(Timeout::Handshake)),
            (State::Open, Role::Client(_)) => self.client_timer(index),
            (State::Open, _) => {}
        }
    }

    // Ends.

    fn end_site(&mut self, site: Key, data: &mut D) {
        let Some(facts) = self.io.core.sites.remove(site) else { return };
        for protocol in facts.protocols {
            self.io.core.protocols.remove(protocol);
        }
        if let Some(protocols) = self.protocols.get_mut(site.index as usize) {
            for mut protocol in std::mem::take(protocols) {
                protocol.ended(data, &mut self.io);
            }
        }
    }

    fn end_protocols(&mut self, data: &mut D) {
        let sites: Vec<Key> = self.io.core.sites.iter().map(|(key, _)| key).collect();
        for site in sites {
            self.end_site(site, data);
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
        }
    }
}

impl<D> Default for Context<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D> Drop for Context<D> {
    fn drop(&mut self) {
        if self.abandoned {
            self.io.abandon_remote();
            return self.io.core.abandon();
        }
        self.io.close_remote();
        if self.io.core.is_attached() {
            log::error!(target: "lodger::host", "a context was dropped while its host still watches its descriptors");
        }
        self.io.core.close_all();
    }
}

impl<D> fmt::Debug for Context<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("links", &self.io.core.links.len()).finish_non_exhaustive()
    }
}

/// The protocol at this place of a site.
pub(crate) fn protocol_at<D>(
    protocols: &mut [Vec<Box<dyn Protocol<D>>>],
    site: Key,
    place: usize,
) -> Option<&mut Box<dyn Protocol<D>>> {
    protocols.get_mut(site.index as usize)?.get_mut(place)
}

/// What a role has left of its input.
struct Left {
    bytes: usize,
    /// It could be used, and is not for now.
    stopped: bool,
    /// How many messages were delivered.
    messages: u32,
}

/// What a role wants after a step.
pub(crate) enum Next {
    /// Another step, perhaps of another role, with what is left.
    Again,
    /// More input; what is left is not enough.
    More,
    /// Nothing for now: it will be said when it goes on.
    Stop,
    /// To go on with the next call.
    Later,
}

/// Hands over what comes from `source`, until there is no more of it, or something is in the way.
#[expect(clippy::too_many_arguments, reason = "each is borrowed from another place")]
#[inline]
fn deliver_all<D, S: Source>(
    source: &mut S,
    handler: &mut dyn ws::Handler<D>,
    cx: &mut Cx<'_, D>,
    index: u32,
    input: &mut [u8],
    settings: &ws::Settings,
    spare: &mut ws::Spare,
    budget: &mut u32,
) -> (usize, Next) {
    let mut used = 0;
    let next = loop {
        match source.next(&mut input[used..], settings, spare) {
            Ok((took, None)) => {
                used += took;
                break if source.is_exhausted() { Next::Later } else { Next::More };
            }
            Ok((took, Some(event))) => {
                used += took;
                deliver(handler, cx, index, event);
            }
            Err(error) => {
                used = input.len();
                if let ws::ReceiveError::TooLarge(size) = error {
                    handler.too_large(cx, size);
                }
                cx.io.core.fail_websocket(index, error);
                break Next::More;
            }
        }
        if std::mem::take(&mut cx.io.core.interrupted) {
            let link = cx.io.core.link(index);
            let closing = matches!(&link.role, Role::WebSocket(websocket) if !websocket.closing.may_send());
            if link.state != State::Open || closing {
                break Next::Again;
            }
            if link.flags.contains(Flags::PAUSED) {
                break Next::Stop;
            }
        }
        *budget -= 1;
        if *budget == 0 || source.is_exhausted() {
            break Next::Later;
        }
        if used == input.len() && source.is_idle() {
            break Next::More;
        }
    };
    (used, next)
}

/// Drops what comes before the peer's Close.
fn drop_until_close<S: Source>(
    source: &mut S,
    core: &mut Core,
    index: u32,
    input: &mut [u8],
    settings: &ws::Settings,
    spare: &mut ws::Spare,
) -> (usize, Next) {
    let mut used = 0;
    let next = loop {
        match source.next(&mut input[used..], settings, spare) {
            Ok((took, Some(ws::Event::Close(close)))) => {
                used += took;
                let closing = core.closing(index);
                core.set_reason(index, ws::role::handshake_reason(closing, close));
                core.peer_closed(index, close.map(|close| close.code));
                break Next::Again;
            }
            Ok((took, event)) => {
                used += took;
                let is_none = event.is_none();
                if source.is_exhausted() {
                    break Next::Later;
                }
                if is_none {
                    break Next::More;
                }
            }
            Err(error) => {
                used = input.len();
                core.fail_websocket(index, error);
                break Next::More;
            }
        }
    };
    (used, next)
}

/// Tells a WebSocket's handler of an event, and does what the protocol asks for besides.
fn deliver<D>(handler: &mut dyn ws::Handler<D>, cx: &mut Cx<'_, D>, index: u32, event: ws::Event<'_>) {
    match event {
        ws::Event::Message(message) => {
            cx.io.core.message_passed(index);
            handler.message(cx, message);
        }
        ws::Event::Piece(piece) => {
            cx.io.core.message_passed(index);
            handler.piece(cx, piece);
        }
        ws::Event::Ping(payload) => {
            cx.io.core.answer_ping(index, payload);
            handler.ping(cx, payload);
        }
        ws::Event::Pong(payload) => handler.pong(cx, payload),
        ws::Event::Close(close) => {
            let closing = cx.io.core.closing(index);
            cx.io.core.set_reason(index, ws::role::handshake_reason(closing, close));
            if closing == ws::Closing::Open {
                handler.peer_closed(cx, close);
            }
            cx.io.core.peer_closed(index, close.map(|close| close.code));
        }
    }
}
