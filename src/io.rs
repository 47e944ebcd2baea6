//! What handlers and hosts do with a context besides serving it.

mod adopting;
mod connecting;
mod listening;

use crate::conn::Conn;
use crate::context::Acceptor;
use crate::engine::Core;
use crate::engine::link::Link;
use crate::engine::store::{Key, Store};
use crate::engine::timers::{Tick, Timer, TimerId};
use crate::error::{Gone, SendError};
use crate::handler::{AnyHandler, Decision, Flow, Notice, Protocol};
use crate::host::Interest;
use crate::http::Response;
use crate::ids::{ConnId, ProtocolId, TaskId};
use crate::net;
use crate::remote::{Inbox, Remote};
use crate::resolve::{Found, ResolveError};
use crate::role::Role;
use crate::ws::{CloseCode, Message, Shared};
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a handler gets with each event: the host's state and lodger's hands, both at once.
pub struct Cx<'a, D> {
    /// The host's own state.
    pub data: &'a mut D,
    /// Everything that can be done with the context.
    pub io: &'a mut Io<D>,
    key: Key,
}

impl<'a, D> Cx<'a, D> {
    #[inline]
    pub(crate) fn new(data: &'a mut D, io: &'a mut Io<D>, key: Key) -> Self {
        Self { data, io, key }
    }

    /// The handler's own conn, by name.
    pub fn id(&self) -> ConnId {
        self.io.core.conn_id(self.key)
    }

    /// The handler's own conn. In `closed` it is gone: whatever is asked of it then answers so.
    pub fn conn(&mut self) -> Conn<'_, D> {
        Conn::new(self.io, self.key)
    }

    /// [`Conn::send`] on its own conn.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<Flow, SendError> {
        self.io.core.send_message(self.key, message.into())
    }

    /// [`Conn::write`] on its own conn.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write(&mut self, bytes: &[u8]) -> Result<Flow, SendError> {
        self.conn().write(bytes)
    }

    /// [`Conn::respond`] on its own conn.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn respond(&mut self, response: Response) -> Result<Flow, SendError> {
        self.conn().respond(response)
    }

    /// [`Conn::close`] on its own conn.
    pub fn close(&mut self) {
        self.conn().close();
    }
}

/// lodger's hands: connections, listeners, timers. Nothing here runs a handler: effects come when the running one returns,
/// or with the next service call; output queued outside service calls is written by the next `prepare`.
pub struct Io<D = ()> {
    pub(crate) core: Core,
    pub(crate) tasks: Store<TaskEntry<D>>,
    pub(crate) fresh: VecDeque<Fresh<D>>,
    /// What the application has asked the resolver.
    pub(crate) questions: Store<Question<D>>,
    pub(crate) remote: Option<Remote<D>>,
    /// The link of the wake-up descriptor.
    pub(crate) wake_link: Option<u32>,
    /// Posts from other threads may wait.
    pub(crate) remote_due: bool,
    /// A descriptor that its handler has in its hands, and whose link it is.
    pub(crate) lent: Option<(u32, Rc<OwnedFd>)>,
    /// The process that the context belongs to.
    process: u32,
}

/// What was made and waits to be put in its place.
pub(crate) enum Fresh<D> {
    Handler(Key, AnyHandler<D>),
    Acceptor(Key, Acceptor<D>),
    Site(Key, Vec<Box<dyn Protocol<D>>>),
    /// How long the certificate of a site is valid.
    Certificate(Key),
    Decision(Key, Decision<D>),
}

type Task<D> = Box<dyn FnOnce(&mut D, &mut Io<D>)>;

impl<D> Fresh<D> {
    /// Whether somebody is to hear of it.
    fn is_due(&self) -> bool {
        match self {
            Self::Handler(_, handler) => matches!(handler, AnyHandler::Raw(_)),
            Self::Acceptor(..) => false,
            Self::Site(..) | Self::Certificate(_) | Self::Decision(..) => true,
        }
    }
}

type Answered<D> = Box<dyn FnOnce(Result<Found, ResolveError>, &mut D, &mut Io<D>)>;

/// Who waits for the answer of the resolver.
pub(crate) struct Question<D> {
    pub(crate) run: Answered<D>,
}

pub(crate) struct TaskEntry<D> {
    pub(crate) run: Task<D>,
    timer: TimerId,
}

/// How many connections a [broadcast](Io::broadcast) has reached.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[must_use = "those that were left out have lost the message"]
#[non_exhaustive]
pub struct Broadcast {
    /// They took it: it is sent, or `closed` says that it was not.
    pub sent: usize,
    /// They were left out, since too much waits for their peers already.
    pub missed: usize,
}

/// One descriptor of a context, as [`Io::links`] shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkInfo<'a> {
    /// Its number.
    pub fd: RawFd,
    /// What is spoken: `listener`, `http`, `websocket`, `raw`, `descriptor`, `wake-up`; `connecting` and `client` while a
    /// client's connection is made, `client` for HTTP's after that too; `resolver`.
    pub role: &'static str,
    /// The name of the protocol that its conn is bound to.
    #[doc(alias = "lws_get_protocol")]
    pub protocol: Option<&'a str>,
    /// The address at the other end; none for Unix sockets, listeners and adopted descriptors.
    pub peer: Option<std::net::SocketAddr>,
    /// What the host watches it for.
    pub interest: Interest,
    /// Bytes read; for a listener, connections accepted; for the wake-up descriptor, times that it woke; for an adopted
    /// descriptor, times that it was readable.
    pub received: u64,
    /// Bytes the system has taken; for an adopted descriptor, times that it was writable.
    pub sent: u64,
    /// Bytes that wait to be sent.
    pub queued: usize,
    /// How many sends of the conversation that goes on were refused because too much waited, and how many broadcasts left it
    /// out for that.
    pub refused: u64,
    /// How long it has been there, in whole seconds.
    pub age: Duration,
    /// What it waits for.
    pub waits_for: &'static str,
    /// The conversation that goes on, if one does.
    pub conn: Option<ConnId>,
    /// Payload before and after permessage-deflate, where that was agreed on.
    #[cfg(feature = "deflate")]
    pub deflate: Option<crate::ws::deflate::Volume>,
}

impl<D> Io<D> {
    pub(crate) fn new(core: Core) -> Self {
        Self {
            core,
            tasks: Store::new(),
            fresh: VecDeque::new(),
            questions: Store::new(),
            remote: None,
            wake_link: None,
            remote_due: false,
            lent: None,
            process: net::process(),
        }
    }

    /// Has something put in its place by the next service call, or within this one.
    pub(crate) fn put(&mut self, fresh: Fresh<D>) {
        self.fresh.push_back(fresh);
        self.core.work = true;
    }

    /// The handler of a conn that has ended before it was put in its place.
    pub(crate) fn take_fresh(&mut self, conn: Key) -> Option<AnyHandler<D>> {
        let is_its = |fresh: &Fresh<D>| matches!(fresh, Fresh::Handler(key, _) if *key == conn);
        match self.fresh.remove(self.fresh.iter().position(is_its)?) {
            Some(Fresh::Handler(_, handler)) => Some(handler),
            _ => None,
        }
    }

    /// Posts from other threads may wait.
    pub(crate) fn look_for_posts(&mut self) {
        self.remote_due = true;
        self.core.work = true;
    }

    /// Whether something waits for a service call that the engine does not know of.
    pub(crate) fn is_busy(&self) -> bool {
        !self.fresh.is_empty() || self.remote_due
    }

    /// Whether that has to be soon. A handler that only waits to be put in its place has time until it is needed.
    pub(crate) fn is_due(&self) -> bool {
        self.remote_due || self.fresh.iter().any(Fresh::is_due)
    }

    pub(crate) fn take_back_lent(&mut self) {
        let Some((index, fd)) = self.lent.take() else { return };
        if let (Some(link), Some(fd)) = (self.core.links.at_mut(index), Rc::into_inner(fd)) {
            link.fd = Some(fd);
        }
    }

    // Conns.

    /// A conn by its name; `None` once it has ended, and for a conn of another context.
    #[doc(alias("lws_get_protocol", "wsi"))]
    pub fn conn(&mut self, id: ConnId) -> Option<Conn<'_, D>> {
        let key = self.core.origin.key(id.0);
        self.core.live(key)?;
        Some(Conn::new(self, key))
    }

    /// The conn that goes on at a descriptor of lodger's, from when lodger has it until it is closed or given back, whether a host
    /// watches it at the moment or not. `None` for every other number, and between requests.
    #[doc(alias = "lws_get_socket_fd")]
    pub fn find_fd(&self, fd: RawFd) -> Option<ConnId> {
        let (_, link) = self.core.links.at(self.core.link_of(fd)?)?;
        self.core.conns.key_at(link.conn).map(|key| self.core.conn_id(key))
    }

    /// Ends the connection at a descriptor of lodger's in an orderly way, also where no conn goes on, and says whether there was one.
    /// It is for those who know connections by their numbers, as [`Protocol::connection_began`] and [`links`](Self::links) give them;
    /// whoever has a conn's id calls [`Conn::close`].
    ///
    /// - WebSocket: the closing handshake with 1000 (RFC 6455, section 7.1.2).
    /// - HTTP: a response that has begun is completed; anything else is dropped, also a request that waits for its response. Then the
    ///   connection ends.
    /// - Raw connection: what is queued is sent, then it ends.
    /// - Connection whose TLS handshake is not complete: ends at once, unless something is to be sent on it first.
    /// - Client's HTTP connection, and adopted descriptor: ends at once.
    ///
    /// What the peer still sends is read and dropped until it ends its half too, or [`Limits::closing`](crate::Limits::closing) is
    /// reached. A connection that is closing already goes on with that, and counts. Listeners, sockets that are being connected, the
    /// wake-up descriptor and the resolver's are no connections, nor is what [`Conn::release`] gives back: false, and nothing happens.
    #[doc(alias("lws_hangup_on_client", "libwebsockets_hangup_on_client"))]
    pub fn hang_up(&mut self, fd: RawFd) -> bool {
        self.core.link_of(fd).is_some_and(|index| self.core.hang_up(index))
    }

    /// The conns that are bound to a protocol; none for a protocol of another context.
    pub fn conns_of(&self, protocol: ProtocolId) -> impl Iterator<Item = ConnId> {
        let facts = self.core.protocols.get(self.core.origin.key(protocol.0));
        let members = facts.map(|facts| facts.members.as_slice()).unwrap_or_default();
        members.iter().filter_map(|&conn| self.core.conns.key_at(conn)).map(|key| self.core.conn_id(key))
    }

    /// Sends an event of the application's own to the handler of a conn, which gets it after the running handler has
    /// returned, or with the next service call.
    ///
    /// # Errors
    ///
    /// [`Gone`]: the conn has ended, is another context's, or has no handler yet, since its request is not decided.
    #[doc(alias = "LWS_CALLBACK_USER")]
    pub fn notify(&mut self, id: ConnId, event: Box<dyn Any>) -> Result<(), Gone> {
        let key = self.core.origin.key(id.0);
        if self.core.live(key).is_none() || self.core.is_deciding(key) {
            return Err(Gone);
        }
        self.core.notice(key, Notice::Event(event));
        Ok(())
    }

    /// Asks for a `writable` event on every conn of a protocol.
    #[doc(alias = "lws_callback_on_writable_all_protocol")]
    pub fn request_writable_all(&mut self, protocol: ProtocolId) {
        self.for_each(protocol, |mut conn| conn.request_writable());
    }

    /// Stops reading every conn of a protocol ([`Conn::pause`]).
    #[doc(alias = "lws_rx_flow_allow_all_protocol")]
    pub fn pause_all(&mut self, protocol: ProtocolId) {
        self.for_each(protocol, |mut conn| conn.pause());
    }

    /// Goes on reading every conn of a protocol ([`Conn::resume`]).
    #[doc(alias = "lws_rx_flow_allow_all_protocol")]
    pub fn resume_all(&mut self, protocol: ProtocolId) {
        self.for_each(protocol, |mut conn| conn.resume());
    }

    fn for_each(&mut self, protocol: ProtocolId, act: impl Fn(Conn<'_, D>)) {
        let conns: Vec<ConnId> = self.conns_of(protocol).collect();
        for id in conns {
            if let Some(conn) = self.conn(id) {
                act(conn);
            }
        }
    }

    /// Decides about a request whose protocol answered [`Decision::Later`].
    ///
    /// # Errors
    ///
    /// [`Gone`]: the peer went first, or the time was up, or it was decided already, or the conn is another context's.
    pub fn decide(&mut self, id: ConnId, decision: Decision<D>) -> Result<(), Gone> {
        let key = self.core.origin.key(id.0);
        if !self.core.decide(key) {
            return Err(Gone);
        }
        self.put(Fresh::Decision(key, decision));
        Ok(())
    }

    // Messages to many.

    /// Encodes a message once, for many conns.
    pub fn encode<'m>(&self, message: impl Into<Message<'m>>) -> Shared {
        Shared::new(message.into())
    }

    /// Sends a frame to every WebSocket conn of a protocol, without copying it, and says how many took it. Those for whose peer
    /// more than [`Limits::send_max`](crate::Limits::send_max) bytes wait already are left out, and hear so
    /// ([`missed`](crate::ws::Handler::missed)); those that are closing are passed over. It pauses nobody's reading. To choose for
    /// each, go through [`conns_of`](Self::conns_of) and [`Conn::send_shared`].
    #[doc(alias("libwebsockets_broadcast", "LWS_CALLBACK_BROADCAST"))]
    pub fn broadcast(&mut self, protocol: ProtocolId, frame: &Shared) -> Broadcast {
        let protocol = self.core.origin.key(protocol.0);
        let (mut told, mut at) = (Broadcast::default(), 0);
        // Also to the conn whose message has led to it: what all get answers nobody.
        let unprompted = std::mem::replace(&mut self.core.unprompted, true);
        while let Some(conn) = self.core.member(protocol, at) {
            let key = self.core.conns.key_at(conn).unwrap_or(Key::NONE);
            match self.core.send_shared(key, frame) {
                Ok(_) => told.sent += 1,
                Err(SendError::Overrun) => {
                    told.missed += 1;
                    self.core.left_out(key);
                }
                Err(_) => {}
            }
            // A member whose connection has just failed is none any more, and another has its place.
            at += usize::from(self.core.member(protocol, at) == Some(conn));
        }
        self.core.unprompted = unprompted;
        told
    }

    /// How many bytes WebSocket messages hold that have begun and are not complete, those of all connections together, as of the
    /// last read of each ([`Builder::max_unfinished`](crate::Builder::max_unfinished)).
    pub fn unfinished(&self) -> usize {
        self.core.unfinished.held
    }

    // Compressed messages.

    /// permessage-deflate in all connections. Looks at each of them.
    #[cfg(feature = "deflate")]
    pub fn deflate_metrics(&self) -> crate::ws::deflate::Metrics {
        let pools = &self.core.pools;
        let mut metrics = pools.metrics();
        for deflated in self.core.links.iter().filter_map(|(_, link)| link.role.extension()) {
            metrics.connections += 1;
            metrics.memory += deflated.memory();
            metrics.volume += deflated.volume();
        }
        metrics
    }

    /// Gives up every compressor and decompressor that is not needed at this moment: those that connections share, and those
    /// that connections with context takeover have for sending ([`Live::release`](crate::ws::deflate::Live::release)). They
    /// are made anew when they are needed.
    #[cfg(feature = "deflate")]
    #[doc(alias = "deflateEnd")]
    pub fn release_deflate_memory(&mut self) {
        let links: Vec<u32> = self.core.links.iter().map(|(key, _)| key.index).collect();
        let core = &mut self.core;
        for index in links {
            if let Some(link) = core.links.at_mut(index)
                && let Role::WebSocket(websocket) = &mut link.role
                && let Some(deflated) = websocket.deflated()
            {
                deflated.deflater.release(&mut core.pools.compressors);
            }
        }
        core.pools.compressors.clear();
        core.pools.decompressors.clear();
    }

    // Time.

    /// Runs `task` after `delay`, in a service call. A delay of zero means the next one.
    #[doc(alias("lws_sul_schedule", "lws_timed_callback_vh_protocol"))]
    pub fn after(&mut self, delay: Duration, task: impl FnOnce(&mut D, &mut Io<D>) + 'static) -> TaskId {
        let key = self.tasks.insert(TaskEntry { run: Box::new(task), timer: TimerId::NONE });
        let at = self.core.read_clock().after(delay);
        let timer = self.core.timers.arm(at, Timer::Task(key));
        if let Some(entry) = self.tasks.get_mut(key) {
            entry.timer = timer;
        }
        TaskId(self.core.origin.id(key))
    }

    /// Cancels a task; false when it has run, or was cancelled, or is another context's.
    #[doc(alias = "lws_sul_cancel")]
    pub fn cancel(&mut self, task: TaskId) -> bool {
        self.drop_task(self.core.origin.key(task.0))
    }

    fn drop_task(&mut self, key: Key) -> bool {
        let Some(mut entry) = self.tasks.remove(key) else { return false };
        self.core.timers.cancel(&mut entry.timer);
        true
    }

    /// The time, read from the context's [`Env`](crate::Env).
    pub fn now(&mut self) -> Instant {
        self.core.env.now()
    }

    /// What was to be done later is not done any more.
    pub(crate) fn drop_tasks(&mut self) {
        let tasks: Vec<Key> = self.tasks.iter().map(|(key, _)| key).collect();
        for task in tasks {
            self.drop_task(task);
        }
    }

    // The context as a whole.

    /// Closes gracefully: listeners close, every WebSocket gets a Close with `code`, idle HTTP connections end, requests under way
    /// are finished, raw connections are closed. It is done when [`link_count`](Self::link_count) is 0; until then the
    /// loop goes on as before. Adopted descriptors are closed too.
    ///
    /// No HTTP connection is called idle before it was read once more, by the next service call: a request that lies in its socket
    /// has its response, which says that it is the last (`Connection: close`; RFC 9112, section 9.6). A connection that has made no
    /// request yet has [`Limits::closing`](crate::Limits::closing) for its first.
    ///
    /// For a restart under load, successor and predecessor listen on one socket ([`Listen::descriptor`](crate::Listen::descriptor)
    /// with a duplicate): what waits to be accepted when the predecessor shuts down is the successor's. Of sockets that share a port
    /// ([`Listen::reuse_port`](crate::Listen::reuse_port)) each has a queue of its own, which the system resets with the socket.
    #[doc(alias("lws_context_deprecate", "graceful"))]
    pub fn shutdown(&mut self, code: CloseCode) {
        self.core.shutdown(code);
    }

    /// A handle for other threads. The first makes the wake-up descriptor.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub fn remote(&mut self) -> io::Result<Remote<D>> {
        if let Some(remote) = &self.remote {
            return Ok(remote.clone());
        }
        let (descriptor, signal) = self.core.net.wake_up()?;
        let remote = Remote(Arc::new(Inbox::new(signal, self.process)));
        self.wake_link = Some(self.add_wake_link(descriptor));
        self.remote = Some(remote.clone());
        Ok(remote)
    }

    fn add_wake_link(&mut self, descriptor: OwnedFd) -> u32 {
        self.core.add_link(Link::new(descriptor, Role::WakeUp, None, Rc::default()))
    }

    // Forking.

    pub(crate) fn is_forked(&self) -> bool {
        self.process != net::process()
    }

    /// Makes this process the owner. The wake-up descriptor is shared with the parent, which would take what is meant for the
    /// child: another takes its place.
    pub(crate) fn take_over(&mut self) -> io::Result<()> {
        let process = net::process();
        if let Some(remote) = &self.remote {
            let (descriptor, signal) = self.core.net.wake_up()?;
            self.remote = Some(Remote(remote.0.succeed(signal, process)));
            let link = self.add_wake_link(descriptor);
            let before = self.wake_link.replace(link);
            if let Some(before) = before.filter(|&before| self.core.links.at(before).is_some()) {
                self.core.end(before, crate::CloseReason::Closed);
            }
            // What waited, waits still.
            self.look_for_posts();
        }
        self.process = process;
        self.core.take_over();
        Ok(())
    }

    /// Gives up everything, and says nothing to anybody.
    pub(crate) fn abandon(&mut self) {
        if let Some(remote) = self.remote.take() {
            remote.0.abandon();
        }
        self.wake_link = None;
        self.remote_due = false;
        self.lent = None;
        self.fresh.clear();
        self.core.abandon();
        self.tasks = Store::new();
        self.questions = Store::new();
    }

    /// Whether the host watches the wake-up descriptor: false before the first `prepare` after [`remote`](Self::remote), and
    /// while the host refuses it.
    pub fn wakes_up(&self) -> bool {
        self.wake_link
            .and_then(|index| self.core.links.at(index))
            .is_some_and(|(_, link)| link.is_registered())
    }

    pub(crate) fn close_remote(&mut self) {
        if let Some(remote) = &self.remote {
            remote.0.close();
        }
    }

    /// How many descriptors there are; the wake-up descriptor and the resolver's are not counted.
    pub fn link_count(&self) -> usize {
        self.core.links.len()
            - self.core.resolver_descriptors()
            - usize::from(self.wake_link.is_some_and(|index| self.core.links.at(index).is_some()))
    }

    /// Every descriptor of the context, the wake-up descriptor too.
    #[doc(alias("lws_json_dump_context", "lws_get_socket_fd"))]
    pub fn links(&mut self) -> impl Iterator<Item = LinkInfo<'_>> {
        let now = self.core.read_clock().since(Tick::default());
        let core = &self.core;
        let lent = self.lent.as_ref().map(|(index, fd)| (*index, fd.as_raw_fd()));
        core.links.iter().filter_map(move |(key, link)| {
            let lent = lent.filter(|(index, _)| *index == key.index).map(|(_, fd)| fd);
            let fd = link.fd.as_ref().map(AsRawFd::as_raw_fd).or(lent)?;
            let conn = core.conns.at(link.conn);
            let protocol = conn.and_then(|(_, conn)| core.protocols.at(conn.protocol));
            Some(LinkInfo {
                fd,
                role: link.role.name(),
                protocol: protocol.map(|(_, facts)| facts.name.as_str()),
                peer: link.peer(),
                interest: link.told,
                received: link.received,
                sent: link.sent,
                queued: link.queued(),
                age: Duration::from_secs(now.as_secs().saturating_sub(link.created.into())),
                refused: conn.map_or(0, |(_, conn)| conn.refused()),
                waits_for: crate::engine::waits_for(link, conn.map(|(_, conn)| conn)),
                conn: conn.map(|(key, _)| core.conn_id(key)),
                #[cfg(feature = "deflate")]
                deflate: link.role.extension().map(|deflated| deflated.volume()),
            })
        })
    }

    /// How many links there may be: what was set with [`Builder::max_links`](crate::Builder::max_links), and what the
    /// system allows the process (RLIMIT_NOFILE).
    #[doc(alias = "lws_get_count_threads")]
    pub fn max_links(&self) -> usize {
        let system = net::descriptor_limit().and_then(|limit| usize::try_from(limit).ok());
        self.core.max_links.min(system.unwrap_or(usize::MAX))
    }

    /// The name that this machine has, as the system knows it.
    #[doc(alias = "lws_canonical_hostname")]
    pub fn host_name(&self) -> String {
        net::host_name()
    }
}

impl<D> fmt::Debug for Io<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("links", &self.core.links.len()).finish_non_exhaustive()
    }
}

impl<D> fmt::Debug for Cx<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").field("id", &self.id()).finish_non_exhaustive()
    }
}
