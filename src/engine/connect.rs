//! Connections that are being made: what a name resolves to, the race between its addresses (RFC 8305), and what each attempt
//! came to. What is spoken once one of them stands is the [client's](crate::http1::client).

use super::Core;
use super::conn::{Conn, NO_LINK};
use super::link::{Link, State};
use super::store::Key;
use super::timers::{Tick, Timer, TimerId};
use crate::client::{Attempt, Connect, ConnectError, ExchangeError, Host, RedirectError, Step};
use crate::error::SendError;
use crate::handler::CloseReason;
use crate::host::Ready;
use crate::http::ClientRequest;
use crate::http1::client::{Client, Phase};
use crate::net::{self, Peer};
use crate::resolve::{self, Action, Found, Hands, Lookup, LookupId, ResolveError, Resolver};
use crate::role::Role;
#[cfg(feature = "tls")]
use crate::tls::TlsError;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

/// How long an address has to itself before the next is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// A client's conn, from the call that made it until it is connected; for HTTP, where a redirect may lead elsewhere, until its end.
pub(crate) struct Connecting {
    conn: Key,
    pub(crate) connect: Connect,
    pub(crate) speak: Speak,
    stage: Stage,
    /// What is still to be tried.
    addresses: VecDeque<Peer>,
    racing: Vec<Key>,
    attempts: Vec<Attempt>,
    deadline: TimerId,
    /// When its name was answered, or its link connected.
    moved: Tick,
    stagger: TimerId,
    /// Redirects followed in a row.
    pub(crate) redirects: u8,
    /// They have led to another server than was asked for.
    pub(crate) is_elsewhere: bool,
}

/// What is spoken once the connection stands.
pub(crate) enum Speak {
    Raw,
    WebSocket,
    /// With the first request.
    Http(Option<ClientRequest>),
}

#[derive(Clone, Copy)]
enum Stage {
    /// It is to begin later.
    Delayed,
    Resolving(LookupId),
    Racing,
    /// It has a link.
    Linked,
}

/// Who waits for a look-up.
pub(crate) enum Asker {
    Connecting(Key),
    /// A task of the application's.
    Task(Key),
}

impl Core {
    /// Makes a conn, and begins to connect it. There is none any more once the context leaves: a handler that connects again in
    /// `closed` would have it go on for ever.
    pub(crate) fn connect(&mut self, mut connect: Connect, speak: Speak) -> Option<Key> {
        if self.leaving {
            return None;
        }
        connect.url = connect.url.map(|url| url.speaking(&speak));
        if connect.url.as_ref().is_ok_and(|url| matches!(url.host, Host::Unix(_))) {
            connect.proxy = None;
        }
        let conn = self.conns.insert(Conn::new(NO_LINK));
        let delay = connect.delay;
        let key = self.connecting.insert(Connecting {
            conn,
            connect,
            speak,
            stage: Stage::Delayed,
            addresses: VecDeque::new(),
            racing: Vec::new(),
            attempts: Vec::new(),
            deadline: TimerId::NONE,
            moved: Tick::default(),
            stagger: TimerId::NONE,
            redirects: 0,
            is_elsewhere: false,
        });
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.unopened = true;
            conn.cold().connecting = Some(key);
        }
        if delay.is_zero() {
            self.begin_connecting(key);
        } else {
            self.arm_deadline(key, delay);
        }
        Some(conn)
    }

    /// The entry of a conn that is not connected yet.
    pub(crate) fn connecting_of(&self, conn: Key) -> Option<Key> {
        self.conns.get(conn)?.cold.as_ref()?.connecting
    }

    /// Whether the first event of a client's conn is still to come: until then nothing else reaches its handler.
    pub(crate) fn is_connecting(&self, conn: Key) -> bool {
        self.is_unopened(conn) && self.connecting_of(conn).is_some()
    }

    /// Notes what is wanted of a conn that is not connected, or on its way to where a redirect leads.
    #[cold]
    pub(crate) fn want_when_connected(&mut self, conn: Key, want: impl FnOnce(&mut Conn)) {
        if self.connecting_of(conn).is_some()
            && let Some(conn) = self.live(conn)
        {
            want(conn);
        }
    }

    /// Does what was wanted before a conn had its link.
    fn do_what_was_wanted(&mut self, conn: Key) {
        let Some(conn) = self.live(conn) else { return };
        let (index, cold) = (conn.link, conn.cold.as_mut());
        let pausing = cold.is_some_and(|cold| std::mem::take(&mut cold.pausing));
        if self.links.at(index).is_some() {
            self.room_wanted(index);
            if pausing {
                self.pause(index);
            }
        }
    }

    /// Why nothing can be sent on a conn that has no link.
    #[cold]
    pub(crate) fn without_link(&self, conn: Key) -> SendError {
        match self.connecting_of(conn) {
            Some(_) => SendError::NotConnected,
            None => SendError::Gone,
        }
    }

    pub(crate) fn arm_deadline(&mut self, key: Key, delay: Duration) {
        let at = self.read_clock().after(delay);
        let timer = self.timers.arm(at, Timer::Connect(key));
        if let Some(connecting) = self.connecting.get_mut(key) {
            let mut before = std::mem::replace(&mut connecting.deadline, timer);
            self.timers.cancel(&mut before);
        }
    }

    /// Begins with a conn whose delay is over. False if it has begun, and this is the end of its time.
    pub(crate) fn begins_late(&mut self, key: Key) -> bool {
        let Some(connecting) = self.connecting.get_mut(key) else { return true };
        connecting.deadline = TimerId::NONE;
        let is_late = matches!(connecting.stage, Stage::Delayed);
        if is_late {
            self.begin_connecting(key);
        }
        is_late
    }

    /// Whether a conn still has a time by which it is to be connected.
    pub(crate) fn has_deadline(&self, key: Key) -> bool {
        self.connecting.get(key).is_some_and(|connecting| !connecting.deadline.is_none())
    }

    /// Has the time of those that began since the last turn run from here: it is the host that has kept them waiting so far.
    pub(crate) fn begin_deadlines(&mut self) {
        for key in std::mem::take(&mut self.begun) {
            let Some(connecting) = self.connecting.get(key) else { continue };
            let timeout = connecting.connect.timeout;
            if !connecting.deadline.is_none() && !matches!(connecting.stage, Stage::Delayed) {
                self.arm_deadline(key, timeout);
            }
        }
    }

    /// Whether a conn that is being connected has come further since `due`, or its server has said something.
    pub(crate) fn has_moved_since(&self, key: Key, due: Tick) -> bool {
        let link = self.link_of_connecting(key).and_then(|index| self.links.at(index));
        let heard = link.is_some_and(|(_, link)| link.heard_since(due));
        heard || self.connecting.get(key).is_some_and(|connecting| connecting.moved >= due)
    }

    /// Hears what the resolver has to say, if a conn waits for that.
    pub(crate) fn look_for_names(&mut self, key: Key) {
        let waits = |connecting: &Connecting| matches!(connecting.stage, Stage::Resolving(_));
        if self.connecting.get(key).is_some_and(waits) {
            for (number, _) in self.resolver_links.clone() {
                self.resolver_ready(number, Ready::READ);
            }
        }
    }

    /// The links of which the first that is connected becomes the conn's.
    pub(crate) fn racing(&self, key: Key) -> Vec<u32> {
        let racing =
            self.connecting.get(key).map(|connecting| connecting.racing.as_slice()).unwrap_or_default();
        racing.iter().map(|link| link.index).collect()
    }

    /// The link of a conn that is connected, and no more than that.
    pub(crate) fn link_of_connecting(&self, key: Key) -> Option<u32> {
        let connecting = self.connecting.get(key)?;
        let link = self.conns.get(connecting.conn)?.link;
        self.links.at(link).map(|_| link)
    }

    /// The time of a conn that is not connected is over.
    pub(crate) fn connect_over(&mut self, key: Key) {
        let Some(connecting) = self.connecting.get(key) else { return };
        let conn = connecting.conn;
        let step = self.connect_step(key);
        let attempts = self.take_attempts(key);
        self.connect_failed(conn, ConnectError::TimedOut { step, attempts });
    }

    fn take_attempts(&mut self, key: Key) -> Vec<Attempt> {
        self.connecting
            .get_mut(key)
            .map(|connecting| std::mem::take(&mut connecting.attempts))
            .unwrap_or_default()
    }

    /// How far it has come.
    pub(super) fn connect_step(&self, key: Key) -> Step {
        let Some(connecting) = self.connecting.get(key) else { return Step::Connecting };
        let link = self.conns.get(connecting.conn).and_then(|conn| self.links.at(conn.link));
        match (connecting.stage, link.map(|(_, link)| &link.role)) {
            (Stage::Delayed | Stage::Resolving(_), _) => Step::Resolving,
            (Stage::Racing, _) => Step::Connecting,
            (Stage::Linked, Some(Role::Client(client))) => match client.phase {
                Phase::Proxy(_) => Step::Proxy,
                Phase::Securing => Step::Tls,
                _ => Step::Handshake,
            },
            (Stage::Linked, _) => Step::Handshake,
        }
    }

    /// Begins, or begins again elsewhere.
    fn begin_connecting(&mut self, key: Key) {
        let Some(connecting) = self.connecting.get(key) else { return };
        let (conn, timeout) = (connecting.conn, connecting.connect.timeout);
        if connecting.deadline.is_none() {
            self.arm_deadline(key, timeout);
            self.begun.push(key);
        }
        if let Err(error) = self.find_addresses(key) {
            self.connect_failed(conn, error);
        }
    }

    fn find_addresses(&mut self, key: Key) -> Result<(), ConnectError> {
        let Some(connecting) = self.connecting.get(key) else { return Ok(()) };
        let connect = &connecting.connect;
        connect.request_fields().map_err(ConnectError::Request)?;
        let url = connect.url.as_ref().map_err(|error| ConnectError::Url(*error))?;
        if url.scheme.is_secure() && cfg!(not(feature = "tls")) {
            return Err(ConnectError::NoTls);
        }
        let (host, port) = match &connect.proxy {
            Some(proxy) => (Host::Name(proxy.host().to_owned()), proxy.port()),
            None => (url.host.clone(), url.port),
        };
        let scope = url.scope();
        let address = connect.address.filter(|_| connect.proxy.is_none());
        let of_port = |address: IpAddr| Peer::Inet(SocketAddr::new(address, port));
        match (address, host) {
            (Some(address), _) => self.race(key, vec![Peer::Inet(address)]),
            (None, Host::Unix(path)) => self.race(key, vec![Peer::Unix(Some(path))]),
            (None, Host::Ip(IpAddr::V6(address))) => {
                self.race(key, vec![Peer::Inet(SocketAddrV6::new(address, port, 0, scope).into())]);
            }
            (None, Host::Ip(address)) => self.race(key, vec![of_port(address)]),
            (None, Host::Name(name)) => match resolve::known(&name) {
                Some(addresses) => self.race(key, interleaved(addresses).map(of_port).collect()),
                None => {
                    let id = self.look_up(&Lookup::Addresses(name), Asker::Connecting(key));
                    // It may have been answered on the spot.
                    if self.lookups.contains_key(&id)
                        && let Some(connecting) = self.connecting.get_mut(key)
                    {
                        connecting.stage = Stage::Resolving(id);
                    }
                }
            },
        }
        Ok(())
    }

    fn resolved(&mut self, key: Key, result: Result<Found, ResolveError>) {
        let Some(connecting) = self.connecting.get(key) else { return };
        let conn = connecting.conn;
        let (name, port) = match (&connecting.connect.proxy, &connecting.connect.url) {
            (Some(proxy), _) => (proxy.host().to_owned(), proxy.port()),
            (None, Ok(url)) => (url.name(), url.port),
            (None, Err(_)) => return,
        };
        let error = match result {
            Ok(Found::Addresses(addresses)) if !addresses.is_empty() => {
                let of_port = |address: IpAddr| Peer::Inet(SocketAddr::new(address, port));
                return self.race(key, interleaved(addresses).map(of_port).collect());
            }
            Ok(_) => ResolveError::NotFound,
            Err(error) => error,
        };
        self.connect_failed(conn, ConnectError::Resolve { name, error });
    }

    // The race.

    fn race(&mut self, key: Key, addresses: Vec<Peer>) {
        let now = self.now();
        if let Some(connecting) = self.connecting.get_mut(key) {
            connecting.stage = Stage::Racing;
            connecting.moved = now;
            connecting.addresses = addresses.into();
            self.try_next(key);
        }
    }

    /// Begins with the next address that can be begun with.
    fn try_next(&mut self, key: Key) {
        loop {
            let full = self.is_full();
            let Some(connecting) = self.connecting.get_mut(key) else { return };
            let conn = connecting.conn;
            if full && connecting.racing.is_empty() {
                return self.connect_failed(conn, ConnectError::Full);
            }
            if full {
                return;
            }
            let Some(peer) = connecting.addresses.pop_front() else {
                if connecting.racing.is_empty() {
                    let attempts = self.take_attempts(key);
                    self.connect_failed(conn, ConnectError::Unreachable(attempts));
                }
                return;
            };
            let more = !connecting.addresses.is_empty();
            match self.net.connect(&peer, connecting.connect.source) {
                Ok(socket) => {
                    let limits = connecting.connect.limits.clone();
                    let link = Link::new(socket, Role::Connecting(key), Some(&peer), limits);
                    let index = self.add_link(link);
                    let link = self.links.key_at(index).unwrap_or(Key::NONE);
                    let stagger = more.then(|| self.read_clock().after(STAGGER));
                    let stagger = stagger.map(|at| self.timers.arm(at, Timer::Stagger(key)));
                    if let Some(connecting) = self.connecting.get_mut(key) {
                        connecting.racing.push(link);
                        connecting.stagger = stagger.unwrap_or_default();
                    }
                    return;
                }
                Err(error) => connecting.attempts.push(Attempt { peer, error }),
            }
        }
    }

    /// Whether there is room for another link. Those that have ended leave it with the next `prepare`, and are none.
    fn is_full(&self) -> bool {
        self.links.len() - self.ended_links >= self.max_links
    }

    /// The addresses under way have had their time alone.
    pub(crate) fn stagger_timer(&mut self, key: Key) {
        if let Some(connecting) = self.connecting.get_mut(key) {
            connecting.stagger = TimerId::NONE;
            self.try_next(key);
        }
    }

    /// A link in the race is over.
    pub(super) fn attempt_ended(&mut self, key: Key, index: u32, reason: CloseReason) {
        let peer = self.link(index).peer().map_or(Peer::Unix(None), Peer::Inet);
        let link = self.links.key_at(index);
        let Some(connecting) = self.connecting.get_mut(key) else { return };
        let Some(place) = connecting.racing.iter().position(|racing| Some(*racing) == link) else { return };
        connecting.racing.swap_remove(place);
        let error = match reason {
            CloseReason::Io(error) | CloseReason::Host(error) => error,
            other => std::io::Error::other(other.to_string()),
        };
        let peer = match (&peer, connecting.connect.url.as_ref().ok().and_then(|url| url.path_of_socket())) {
            (Peer::Unix(None), Some(path)) => path,
            _ => peer,
        };
        connecting.attempts.push(Attempt { peer, error });
        let mut stagger = std::mem::take(&mut connecting.stagger);
        self.timers.cancel(&mut stagger);
        self.try_next(key);
    }

    /// A connecting link is writable: whether it is connected, which ends the race.
    pub(crate) fn is_connected(&mut self, index: u32) -> bool {
        let link = self.link(index);
        let Role::Connecting(key) = link.role else { return false };
        let Some(fd) = &self.links.at(index).expect("just seen").1.fd else { return false };
        match self.net.connect_outcome(fd.as_fd()) {
            Ok(()) => self.won(key, index),
            Err(error) if net::would_block(&error) => false,
            Err(error) => {
                self.end(index, CloseReason::Io(error));
                false
            }
        }
    }

    fn won(&mut self, key: Key, index: u32) -> bool {
        let now = self.now();
        let Some(connecting) = self.connecting.get_mut(key) else { return false };
        let link = self.links.key_at(index);
        let others = std::mem::take(&mut connecting.racing);
        connecting.addresses.clear();
        connecting.attempts.clear();
        connecting.stage = Stage::Linked;
        connecting.moved = now;
        let mut stagger = std::mem::take(&mut connecting.stagger);
        let (conn, options) = (connecting.conn, connecting.connect.options);
        self.timers.cancel(&mut stagger);
        for other in others {
            if Some(other) != link {
                self.end(other.index, CloseReason::Closed);
            }
        }
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.link = index;
        }
        let link = self.links.at_mut(index).expect("the link being served is there");
        link.conn = conn.index;
        link.role = Role::Client(Box::new(Client::new(key)));
        if let Some(fd) = &link.fd {
            // Unix sockets have no such option, and where it fails that costs time, not correctness.
            let _ = self.net.set_nodelay(fd.as_fd(), true);
            let keepalive = options.keepalive;
            let set =
                keepalive.map_or(Ok(()), |keepalive| self.net.set_keepalive(fd.as_fd(), Some(keepalive)));
            let sizes = self.net.set_buffer_sizes(fd.as_fd(), options.send_buffer, options.receive_buffer);
            if let Err(error) = set.and(sizes) {
                log::warn!(target: "lodger::net", "socket option of a connection refused: {error}");
            }
        }
        self.mark(index);
        true
    }

    // Ends.

    /// The handler hears that it is connected. Only HTTP still needs to know how it came to that.
    pub(crate) fn connected(&mut self, key: Key) {
        let Some(connecting) = self.connecting.get_mut(key) else { return };
        let conn = connecting.conn;
        let for_redirects = matches!(connecting.speak, Speak::Http(_));
        let mut deadline = std::mem::take(&mut connecting.deadline);
        self.timers.cancel(&mut deadline);
        if !for_redirects {
            self.connecting.remove(key);
        }
        if !for_redirects && let Some(conn) = self.conns.get_mut(conn) {
            conn.cold().connecting = None;
        }
        self.opened(conn);
        self.do_what_was_wanted(conn);
    }

    /// Goes on at another place, over a new connection.
    pub(crate) fn connect_elsewhere(&mut self, key: Key) {
        let Some(connecting) = self.connecting.get_mut(key) else { return };
        connecting.stage = Stage::Racing;
        let conn = connecting.conn;
        let link = self.conns.get_mut(conn).map(|conn| std::mem::replace(&mut conn.link, NO_LINK));
        if let Some(index) = link.filter(|&index| self.links.at(index).is_some()) {
            self.link(index).conn = super::link::NO_CONN;
            self.end(index, CloseReason::Closed);
        }
        self.begin_connecting(key);
    }

    /// The conn will not be connected.
    pub(crate) fn connect_failed(&mut self, conn: Key, error: ConnectError) {
        let Some(link) = self.conns.get(conn).map(|conn| conn.link) else { return };
        let reason = match self.is_unopened(conn) {
            true => CloseReason::Connect(Box::new(error)),
            false => {
                let error = RedirectError::Connect(Box::new(error));
                CloseReason::Exchange(Box::new(ExchangeError::Redirect(error)))
            }
        };
        self.end_conn(conn.index, reason, 0);
        if self.links.at(link).is_some() {
            self.end(link, CloseReason::Closed);
        }
    }

    /// What the end of a link means for a conn that was not connected by then.
    pub(super) fn connect_reason(&mut self, key: Key, step: Step, reason: CloseReason) -> CloseReason {
        let Some(connecting) = self.connecting.get(key) else { return reason };
        if !self.is_unopened(connecting.conn) {
            return reason;
        }
        let error = match reason {
            CloseReason::Io(error) => ConnectError::Lost { step, error: Some(error) },
            CloseReason::PeerEnded => ConnectError::Lost { step, error: None },
            CloseReason::TimedOut(_) => ConnectError::TimedOut { step, attempts: Vec::new() },
            // An end without a word: as of a connection without TLS.
            #[cfg(feature = "tls")]
            CloseReason::Tls(TlsError::HandshakeEnded | TlsError::Truncated) => {
                ConnectError::Lost { step, error: None }
            }
            #[cfg(feature = "tls")]
            CloseReason::Tls(error) => ConnectError::Tls(error),
            other => return other,
        };
        CloseReason::Connect(Box::new(error))
    }

    /// Lets go of everything that a conn's connecting has under way.
    pub(super) fn drop_connecting(&mut self, key: Key) {
        let Some(mut connecting) = self.connecting.remove(key) else { return };
        self.timers.cancel(&mut connecting.deadline);
        self.timers.cancel(&mut connecting.stagger);
        if let Stage::Resolving(id) = connecting.stage {
            self.forget_lookup(id);
        }
        for link in connecting.racing {
            self.end(link.index, CloseReason::Closed);
        }
    }

    /// Ends what is not connected yet: the context leaves, or winds up.
    pub(super) fn end_connecting(&mut self) {
        let conns: Vec<Key> = self.connecting.iter().map(|(_, connecting)| connecting.conn).collect();
        // Besides those, the ones that are on their way to where a redirect leads.
        let unlinked = |conn: &Key| self.conns.get(*conn).is_some_and(|conn| conn.link == NO_LINK);
        let conns: Vec<Key> =
            conns.into_iter().filter(|conn| self.is_unopened(*conn) || unlinked(conn)).collect();
        for conn in conns {
            self.end_unconnected(conn, CloseReason::Leaving);
        }
    }

    /// Ends a conn that has no connection yet, or one that its handler has not heard of.
    pub(crate) fn end_unconnected(&mut self, conn: Key, reason: CloseReason) {
        let Some(link) = self.conns.get(conn).map(|conn| conn.link) else { return };
        self.end_conn(conn.index, reason, 0);
        if self.links.at(link).is_some_and(|(_, link)| link.state != State::Ended) {
            self.end(link, CloseReason::Closed);
        }
    }

    // Names.

    /// Asks the resolver.
    pub(crate) fn look_up(&mut self, lookup: &Lookup, asker: Asker) -> LookupId {
        self.last_lookup = self.last_lookup.wrapping_add(1);
        let id = LookupId::new(self.origin.number(self.last_lookup));
        self.lookups.insert(id, asker);
        self.with_resolver(|resolver, hands| resolver.look_up(id, lookup, hands));
        id
    }

    /// The context leaves: what the application has asked is not answered any more.
    pub(super) fn end_questions(&mut self) {
        let tasks = self.lookups.iter().filter_map(|(id, asker)| match asker {
            Asker::Task(task) => Some((*id, *task)),
            Asker::Connecting(_) => None,
        });
        for (id, task) in tasks.collect::<Vec<_>>() {
            self.forget_lookup(id);
            self.answers.push_back((task, Err(ResolveError::Leaving)));
            self.work = true;
        }
    }

    /// The same for a task of the application's, which gets its answer in a service call.
    pub(crate) fn ask_for_application(&mut self, lookup: &Lookup, question: Key) {
        let known = match lookup {
            Lookup::Addresses(name) => resolve::known(name),
            Lookup::Name(_) => None,
        };
        match known {
            Some(addresses) => {
                self.answers.push_back((question, Ok(Found::Addresses(addresses))));
                self.work = true;
            }
            None => {
                self.look_up(lookup, Asker::Task(question));
            }
        }
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn forget_lookup(&mut self, id: LookupId) {
        if self.lookups.remove(&id).is_some() {
            self.with_resolver(|resolver, hands| resolver.cancel(id, hands));
        }
    }

    /// A descriptor of the resolver's is ready.
    pub(crate) fn resolver_ready(&mut self, number: RawFd, ready: Ready) {
        self.with_resolver(|resolver, hands| resolver.ready(number, ready, hands));
    }

    pub(crate) fn resolver_timer(&mut self) {
        self.resolver_timer = TimerId::NONE;
        self.with_resolver(|resolver, hands| resolver.due(hands));
    }

    /// Has the resolver do something, and does what it asks for.
    pub(super) fn with_resolver(&mut self, act: impl FnOnce(&mut dyn Resolver, &mut Hands<'_>)) {
        let Some(resolver) = &mut self.resolver else { return };
        let now = self.env.now();
        let mut actions = Vec::new();
        let env = &mut self.env;
        let mut random = |bytes: &mut [u8]| env.random(bytes);
        act(&mut **resolver, &mut Hands::new(now, &mut random, &mut actions));
        for action in actions {
            self.do_for_resolver(action);
        }
    }

    fn do_for_resolver(&mut self, action: Action) {
        match action {
            Action::Answer(id, result) => match self.lookups.remove(&id) {
                Some(Asker::Connecting(key)) => self.resolved(key, result),
                Some(Asker::Task(task)) => {
                    self.answers.push_back((task, result));
                    self.work = true;
                }
                None => {}
            },
            Action::Watch { number, descriptor, interest } => match self.link_of_resolver(number) {
                Some(index) => {
                    self.link(index).role = Role::Resolver { number, interest };
                    self.mark(index);
                }
                None => {
                    let role = Role::Resolver { number, interest };
                    let index = self.add_link(Link::new(descriptor, role, None, std::rc::Rc::default()));
                    let link = self.links.key_at(index).unwrap_or(Key::NONE);
                    self.resolver_links.push((number, link));
                }
            },
            Action::Unwatch(number) => {
                if let Some(index) = self.link_of_resolver(number) {
                    self.end(index, CloseReason::Closed);
                }
                self.resolver_links.retain(|(other, _)| *other != number);
            }
            Action::WakeAt(at) => {
                let mut before = std::mem::take(&mut self.resolver_timer);
                self.timers.cancel(&mut before);
                if let Some(at) = at {
                    let tick = super::timers::Tick::at(self.start, at).after(Duration::from_micros(1));
                    self.resolver_timer = self.timers.arm(tick, Timer::Resolver);
                }
            }
        }
    }

    fn link_of_resolver(&self, wanted: RawFd) -> Option<u32> {
        let (_, link) = self.resolver_links.iter().find(|(number, _)| *number == wanted)?;
        self.links.get(*link).map(|_| link.index)
    }

    /// The links of the resolver's descriptors.
    pub(crate) fn resolver_links(&self) -> impl Iterator<Item = u32> {
        self.resolver_links.iter().map(|(_, link)| link.index)
    }

    /// How many descriptors are the resolver's.
    pub(crate) fn resolver_descriptors(&self) -> usize {
        self.resolver_links.iter().filter(|(_, link)| self.links.get(*link).is_some()).count()
    }
}

/// Addresses of the two families in turn, the first family first (RFC 8305, section 4).
fn interleaved(addresses: Vec<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    std::iter::from_fn(move || {
        let next = first.next().or_else(|| second.next());
        std::mem::swap(&mut first, &mut second);
        next
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_take_turns() {
        let parse =
            |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        for (given, expected) in [
            (
                &["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"][..],
                &["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"][..],
            ),
            (&["1.1.1.1", "::1", "2.2.2.2"], &["1.1.1.1", "::1", "2.2.2.2"]),
            (&["1.1.1.1", "2.2.2.2"], &["1.1.1.1", "2.2.2.2"]),
            (&["::1", "1.1.1.1", "2.2.2.2", "3.3.3.3"], &["::1", "1.1.1.1", "2.2.2.2", "3.3.3.3"]),
            (&[], &[]),
        ] {
            assert_eq!(interleaved(parse(given)).collect::<Vec<_>>(), parse(expected));
        }
    }
}
