//! A server in the simulated world, and clients that speak TLS to it.

use super::authority::Authority;
use super::rig::State;
use super::script::Script;
use lodger::sim::{Endpoint, World};
use lodger::tls::rustls::{self, ClientConfig, ClientConnection};
use lodger::tls::{Client, Facts, Server, TlsError, Version};
use lodger::{
    Context, Decision, Io, Limits, Listen, ListenerId, Peer, Protocol, Request, Response, Site, SiteId, raw,
};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Town {
    pub(crate) world: World,
    pub(crate) context: Context<State>,
    pub(crate) state: State,
    pub(crate) authority: Authority,
    pub(crate) server: Server,
    pub(crate) listener: Option<ListenerId>,
    pub(crate) address: Option<Peer>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) has_site: bool,
}

pub(crate) const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

pub(crate) fn any_port() -> Listen {
    Listen::tcp(([127, 0, 0, 1], 0))
}

impl Town {
    /// Nobody listens yet.
    pub(crate) fn empty() -> Self {
        Self::seeded(1)
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        let mut world = World::new(seed);
        let context = world.builder().build();
        let authority = Authority::new();
        let server = authority.server("localhost");
        let client = authority.client().build().unwrap().config();
        let state = State::default();
        Self {
            world,
            context,
            state,
            authority,
            server,
            listener: None,
            address: None,
            client,
            has_site: false,
        }
    }

    /// A raw listener that speaks TLS.
    pub(crate) fn raw(limits: Limits, make: impl FnMut() -> Script + 'static) -> Self {
        let mut town = Self::empty();
        town.listen_raw(limits, make);
        town
    }

    pub(crate) fn listen_raw(&mut self, limits: Limits, mut make: impl FnMut() -> Script + 'static) {
        let accept = move |_: &Peer, _: &mut State, _: &mut Io<State>| {
            Some(Box::new(make()) as Box<dyn raw::Handler<State>>)
        };
        let listen = any_port().tls_with(self.server.clone());
        let listener = self.context.io().listen_raw(listen, limits, accept).unwrap();
        self.at(listener);
    }

    /// A site whose protocol is a [`Hall`].
    pub(crate) fn hall(limits: Limits, make: impl FnMut() -> Script + 'static) -> Self {
        let mut town = Self::empty();
        town.listen_hall(limits, make);
        town
    }

    pub(crate) fn listen_hall(&mut self, limits: Limits, make: impl FnMut() -> Script + 'static) -> SiteId {
        let site = Site::new().protocol("", Hall::new("", make)).limits(limits).tls(self.server.clone());
        self.listen(site)
    }

    pub(crate) fn listen(&mut self, site: Site<State>) -> SiteId {
        self.has_site = true;
        let site = self.context.io().add_site(site).unwrap();
        let listener = self.context.io().listen(any_port().tls(), site).unwrap();
        self.at(listener);
        site
    }

    /// Clients connect to this one from now on.
    pub(crate) fn at(&mut self, listener: ListenerId) {
        self.listener = Some(listener);
        self.address = self.context.io().local_addr(listener);
        self.world.run(&mut self.context, &mut self.state);
    }

    /// From now on clients speak this version only.
    pub(crate) fn version(&mut self, version: Version) {
        self.client = self.authority.client().versions(&[version]).build().unwrap().config();
    }

    pub(crate) fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.state.log)
    }

    pub(crate) fn has_logged(&self, line: &str) -> bool {
        self.state.log.iter().any(|known| known == line)
    }

    pub(crate) fn turn(&mut self) {
        self.world.turn(&mut self.context, &mut self.state);
    }

    /// Turns, with no client.
    pub(crate) fn run(&mut self) {
        self.world.run(&mut self.context, &mut self.state);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.world.run_for(&mut self.context, &mut self.state, time);
    }

    /// A connection to speak anything on.
    pub(crate) fn socket(&mut self) -> Endpoint {
        self.world.connect(self.address.as_ref().expect("somebody listens")).unwrap()
    }

    pub(crate) fn connect(&mut self) -> TlsPeer {
        self.connect_as("localhost", &self.client.clone())
    }

    pub(crate) fn connect_as(&mut self, name: &'static str, config: &Arc<ClientConfig>) -> TlsPeer {
        let socket = self.socket();
        TlsPeer::new(socket, name, config)
    }

    /// A client whose handshake is complete.
    pub(crate) fn secured(&mut self) -> TlsPeer {
        let mut peer = self.connect();
        self.settle(&mut peer);
        assert!(!peer.tls.is_handshaking(), "{:?}, {:?}", peer.error, self.state.log);
        peer
    }

    pub(crate) fn secured_as(&mut self, name: &'static str, client: &Client) -> TlsPeer {
        let mut peer = self.connect_as(name, &client.config());
        self.settle(&mut peer);
        peer
    }

    /// Carries bytes to and fro until nobody has more to say.
    pub(crate) fn settle(&mut self, peer: &mut TlsPeer) {
        self.settle_all(std::slice::from_mut(peer));
    }

    pub(crate) fn settle_all(&mut self, peers: &mut [TlsPeer]) {
        loop {
            self.run();
            let moved = peers.iter_mut().fold(false, |moved, peer| peer.pump() | moved);
            if !moved {
                return;
            }
        }
    }

    /// The answer to a request.
    pub(crate) fn ask(&mut self, peer: &mut TlsPeer, target: &str, host: &str) -> Option<(u16, String)> {
        peer.say(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.settle(peer);
        peer.answer()
    }

    /// Whether only so many links are left.
    pub(crate) fn links(&mut self) -> usize {
        self.context.io().link_count()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.world.leave(&mut self.context, &mut self.state);
            assert_eq!(self.context.io().link_count(), 0);
        }
    }
}

/// A client of rustls at a simulated socket.
pub(crate) struct TlsPeer {
    pub(crate) socket: Option<Endpoint>,
    pub(crate) tls: ClientConnection,
    /// What was decrypted and not taken.
    pub(crate) plain: Vec<u8>,
    /// Records that were not sent yet.
    pub(crate) out: Vec<u8>,
    /// So many bytes are sent each time; all if 0.
    pub(crate) step: usize,
    /// So many bytes of what came are decrypted at once; all if 0.
    pub(crate) bite: usize,
    /// The server has said that nothing more comes.
    pub(crate) closed: bool,
    pub(crate) error: Option<rustls::Error>,
    pub(crate) finished: bool,
}

impl TlsPeer {
    pub(crate) fn new(socket: Endpoint, name: &'static str, config: &Arc<ClientConfig>) -> Self {
        let mut tls = ClientConnection::new(Arc::clone(config), name.try_into().unwrap()).unwrap();
        tls.set_buffer_limit(None);
        Self {
            socket: Some(socket),
            tls,
            plain: Vec::new(),
            out: Vec::new(),
            step: 0,
            bite: 0,
            closed: false,
            error: None,
            finished: false,
        }
    }

    pub(crate) fn socket(&mut self) -> &mut Endpoint {
        self.socket.as_mut().expect("it is open")
    }

    /// Records, up to where all that was said is in them.
    pub(crate) fn records(&mut self) -> Vec<u8> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.out).unwrap();
        }
        std::mem::take(&mut self.out)
    }

    pub(crate) fn pump(&mut self) -> bool {
        if self.socket.is_none() {
            return false;
        }
        let came = self.socket().take();
        let bite = if self.bite == 0 { came.len().max(1) } else { self.bite };
        for mut bytes in came.chunks(bite) {
            while !bytes.is_empty() && self.error.is_none() {
                match self.tls.read_tls(&mut bytes) {
                    // Nothing is of interest behind its end.
                    Ok(0) => break,
                    Ok(_) => self.decrypt(),
                    Err(error) => self.error = Some(rustls::Error::General(error.to_string())),
                }
            }
        }
        let records = self.records();
        self.out = if self.finished { Vec::new() } else { records };
        let sent = if self.step == 0 { self.out.len() } else { self.step.min(self.out.len()) };
        let records: Vec<u8> = self.out.drain(..sent).collect();
        self.socket().send(&records);
        sent > 0 || !came.is_empty()
    }

    fn decrypt(&mut self) {
        match self.tls.process_new_packets() {
            Ok(state) => {
                let start = self.plain.len();
                self.plain.resize(start + state.plaintext_bytes_to_read(), 0);
                self.tls.reader().read_exact(&mut self.plain[start..]).unwrap();
                self.closed |= state.peer_has_closed();
            }
            Err(error) => self.error = Some(error),
        }
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        // Whom the server has refused has nothing to say any more.
        let said = self.tls.writer().write_all(bytes.as_ref());
        assert!(said.is_ok() || self.error.is_some(), "{said:?}");
    }

    pub(crate) fn heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }

    /// The next response: its status, and its content.
    pub(crate) fn answer(&mut self) -> Option<(u16, String)> {
        let text = String::from_utf8(self.plain.clone()).unwrap();
        let (head, rest) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        let content = rest.get(..length)?.to_owned();
        let status = head[9..12].parse().unwrap();
        self.plain.drain(..head.len() + 4 + length);
        Some((status, content))
    }

    /// Says that nothing more comes.
    pub(crate) fn close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    pub(crate) fn finish(&mut self) {
        self.pump();
        self.finished = true;
        self.socket().finish();
    }
}

/// A protocol whose WebSockets and exchanges are run by scripts, and which writes down what it hears.
pub(crate) struct Hall {
    name: &'static str,
    make: Box<dyn FnMut() -> Script>,
    pub(crate) refuses: bool,
}

impl Hall {
    pub(crate) fn new(name: &'static str, make: impl FnMut() -> Script + 'static) -> Self {
        Self { name, make: Box::new(make), refuses: false }
    }

    pub(crate) fn quiet(name: &'static str) -> Self {
        Self::new(name, Script::quiet)
    }

    fn note(&self, state: &mut State, line: String) {
        let name = self.name;
        state.log.push(if name.is_empty() { line } else { format!("{name}: {line}") });
    }
}

impl Protocol<State> for Hall {
    fn secured(&mut self, _: &Peer, facts: &Facts, state: &mut State) -> bool {
        let name = facts.server_name.as_deref().unwrap_or("-");
        self.note(state, format!("secured {} {name}", facts.version));
        !self.refuses
    }

    fn handshake_failed(&mut self, _: &Peer, error: &TlsError, state: &mut State, _: &mut Io<State>) {
        self.note(state, format!("failed {error:?}"));
    }

    fn certificate_ages(&mut self, _: SiteId, _: &Server, days: i64, state: &mut State, _: &mut Io<State>) {
        // Those that last for decades are not what most tests are about.
        if days < 10_000 {
            self.note(state, format!("{days} days"));
        }
    }

    fn accept(&mut self, request: &Request<'_>, state: &mut State, io: &mut Io<State>) -> Decision<State> {
        match request.path() {
            _ if request.is_websocket() => Decision::websocket((self.make)()),
            "/later" => {
                state.conns.push(request.id());
                Decision::Later
            }
            "/script" => Decision::http((self.make)()),
            "/facts" => {
                let facts = io.conn(request.id()).and_then(|conn| conn.tls());
                state.log.push(format!("{facts:?}"));
                Decision::respond(Response::text("noted"))
            }
            path => Decision::respond(Response::text(format!("{}{path}", self.name))),
        }
    }

    fn ended(&mut self, state: &mut State, _: &mut Io<State>) {
        self.note(state, "ended".to_owned());
    }
}
