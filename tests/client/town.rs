//! A world with clients in it, and servers whose every byte the test writes.

use lodger::client::{ConnectError, ExchangeError};
use lodger::http::{ClientHandler, ClientRequest, Fields, ResponseHead};
use lodger::sim::{Endpoint, Server, World};
use lodger::{
    CloseReason, Closed, ConnId, Connect, Context, Cx, Decision, Io, Listen, Peer, Request, Response, Site,
    raw, ws,
};
use std::any::Any;
use std::fmt;
use std::time::Duration;

pub(crate) const MILLI: Duration = Duration::from_millis(1);
/// How long connecting may take unless a test says otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// What handlers are lent.
#[derive(Default)]
pub(crate) struct State {
    /// What handlers have heard, each line with the name of the handler, if it has one, in front.
    pub(crate) log: Vec<String>,
    /// How conns have ended, in this order.
    pub(crate) ends: Vec<(&'static str, Closed)>,
    /// A number for a test to count with.
    pub(crate) count: u64,
}

/// One event of a handler.
pub(crate) enum Heard<'a> {
    /// The connection stands.
    Connected,
    Interim(&'a ResponseHead<'a>),
    Response(&'a ResponseHead<'a>),
    Bytes(&'a [u8]),
    Complete(&'a Fields),
    Text(&'a str),
    End,
    Writable,
    Timer,
    Event,
    Child,
    Closed(&'a Closed),
}

impl fmt::Display for Heard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Interim(head) => write!(f, "interim {}", head.status().code()),
            Self::Response(head) => write!(f, "response {}", head.status().code()),
            Self::Bytes(bytes) => write!(f, "bytes {}", String::from_utf8_lossy(bytes)),
            Self::Complete(trailers) if trailers.is_empty() => f.write_str("complete"),
            Self::Complete(trailers) => {
                f.write_str("complete")?;
                for (name, value) in trailers.iter() {
                    write!(f, ", {name}: {}", String::from_utf8_lossy(value))?;
                }
                Ok(())
            }
            Self::Text(text) => write!(f, "text {text}"),
            Self::End => f.write_str("end"),
            Self::Writable => f.write_str("writable"),
            Self::Timer => f.write_str("timer"),
            Self::Event => f.write_str("event"),
            Self::Child => f.write_str("child closed"),
            Self::Closed(closed) => write!(f, "closed: {}", closed.reason),
        }
    }
}

type Act = Box<dyn FnMut(&mut Cx<'_, State>, &Heard<'_>)>;

/// A handler of any kind of client: writes down what it hears, and does what the test says.
pub(crate) struct Script {
    name: &'static str,
    act: Act,
    /// What a WebSocket's `connected` answers.
    welcome: bool,
}

impl Script {
    pub(crate) fn new(act: impl FnMut(&mut Cx<'_, State>, &Heard<'_>) + 'static) -> Box<Self> {
        Self::named("", act)
    }

    pub(crate) fn named(
        name: &'static str,
        act: impl FnMut(&mut Cx<'_, State>, &Heard<'_>) + 'static,
    ) -> Box<Self> {
        Box::new(Self { name, act: Box::new(act), welcome: true })
    }

    /// Does nothing but listen.
    pub(crate) fn quiet() -> Box<Self> {
        Self::new(|_, _| {})
    }

    pub(crate) fn unwelcoming() -> Box<Self> {
        Box::new(Self { name: "", act: Box::new(|_, _| {}), welcome: false })
    }

    fn hear(&mut self, cx: &mut Cx<'_, State>, heard: Heard<'_>) {
        let line = if self.name.is_empty() { heard.to_string() } else { format!("{}: {heard}", self.name) };
        cx.data.log.push(line);
        (self.act)(cx, &heard);
    }

    fn end(mut self, cx: &mut Cx<'_, State>, closed: Closed) {
        self.hear(cx, Heard::Closed(&closed));
        cx.data.ends.push((self.name, closed));
    }
}

impl ws::Handler<State> for Script {
    fn connected(&mut self, cx: &mut Cx<'_, State>, _: &ResponseHead<'_>) -> bool {
        self.hear(cx, Heard::Connected);
        self.welcome
    }

    fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
        match message {
            ws::Message::Text(text) => self.hear(cx, Heard::Text(text)),
            ws::Message::Binary(bytes) => self.hear(cx, Heard::Bytes(bytes)),
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Writable);
    }

    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Timer);
    }

    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn Any>) {
        self.hear(cx, Heard::Event);
    }

    fn child_closed(&mut self, cx: &mut Cx<'_, State>, _: ConnId) {
        self.hear(cx, Heard::Child);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.end(cx, closed);
    }
}

impl ClientHandler<State> for Script {
    fn connected(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Connected);
    }

    fn interim(&mut self, cx: &mut Cx<'_, State>, response: &ResponseHead<'_>) {
        self.hear(cx, Heard::Interim(response));
    }

    fn response(&mut self, cx: &mut Cx<'_, State>, response: &ResponseHead<'_>) {
        self.hear(cx, Heard::Response(response));
    }

    fn body(&mut self, cx: &mut Cx<'_, State>, piece: &[u8]) {
        self.hear(cx, Heard::Bytes(piece));
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, State>, trailers: &Fields) {
        self.hear(cx, Heard::Complete(trailers));
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Writable);
    }

    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Timer);
    }

    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn Any>) {
        self.hear(cx, Heard::Event);
    }

    fn child_closed(&mut self, cx: &mut Cx<'_, State>, _: ConnId) {
        self.hear(cx, Heard::Child);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.end(cx, closed);
    }
}

impl raw::Handler<State> for Script {
    fn opened(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Connected);
    }

    fn received(&mut self, cx: &mut Cx<'_, State>, bytes: &[u8]) {
        self.hear(cx, Heard::Bytes(bytes));
    }

    fn end(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::End);
        cx.conn().finish();
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Writable);
    }

    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Timer);
    }

    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn Any>) {
        self.hear(cx, Heard::Event);
    }

    fn child_closed(&mut self, cx: &mut Cx<'_, State>, _: ConnId) {
        self.hear(cx, Heard::Child);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        Script::end(*self, cx, closed);
    }
}

pub(crate) struct Town {
    pub(crate) world: World,
    pub(crate) context: Context<State>,
    pub(crate) state: State,
}

impl Town {
    pub(crate) fn new() -> Self {
        let mut world = World::new(1);
        let context = world.builder().build();
        Self { world, context, state: State::default() }
    }

    /// A server at this address and port, of which the test writes every byte.
    pub(crate) fn server(&mut self, address: &str) -> Server {
        self.world.listen(&peer(address)).unwrap()
    }

    pub(crate) fn ws(&mut self, connect: Connect, script: Box<Script>) -> ConnId {
        self.context.io().connect(connect, script)
    }

    pub(crate) fn http(&mut self, connect: Connect, request: ClientRequest, script: Box<Script>) -> ConnId {
        self.context.io().connect_http(connect, request, script)
    }

    pub(crate) fn raw(&mut self, connect: Connect, script: Box<Script>) -> ConnId {
        self.context.io().connect_raw(connect, script)
    }

    pub(crate) fn run(&mut self) {
        self.world.run(&mut self.context, &mut self.state);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.world.run_for(&mut self.context, &mut self.state, time);
    }

    pub(crate) fn leave(&mut self) {
        self.world.leave(&mut self.context, &mut self.state);
    }

    /// The next connection to a server, once the loop has nothing to do.
    pub(crate) fn accept(&mut self, server: &mut Server) -> Endpoint {
        self.run();
        server.accept().unwrap_or_else(|| panic!("nobody has connected: {:?}", self.state.log))
    }

    /// What was heard since this was last asked.
    pub(crate) fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.state.log)
    }

    /// How the one conn has ended that there was.
    pub(crate) fn end(&mut self) -> CloseReason {
        let mut ends = std::mem::take(&mut self.state.ends);
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends.remove(0).1.reason
    }

    /// Why the one conn was not connected that there was; nothing else was heard of it.
    pub(crate) fn refusal(&mut self) -> ConnectError {
        let log = self.log();
        assert_eq!(log.len(), 1, "{log:?}");
        self.connect_error()
    }

    /// The same, whatever was heard before.
    pub(crate) fn connect_error(&mut self) -> ConnectError {
        match self.end() {
            CloseReason::Connect(error) => *error,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn exchange_error(&mut self) -> ExchangeError {
        match self.end() {
            CloseReason::Exchange(error) => *error,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn descriptors(&self) -> usize {
        self.world.network().open_descriptors()
    }

    /// A server of lodger's in the same context, which echoes and answers every request with a page.
    pub(crate) fn serve(&mut self, listen: Listen, change: impl FnOnce(Site<State>) -> Site<State>) {
        let site = change(Site::new().protocol("", serve));
        let site = self.context.io().add_site(site).unwrap();
        self.context.io().listen(listen, site).unwrap();
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.leave();
            assert_eq!(self.context.io().link_count(), 0);
            assert_eq!(self.descriptors(), 0, "descriptors are left");
        }
    }
}

pub(crate) struct Echo;

impl ws::Handler<State> for Echo {
    fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
        let _ = cx.send(message);
    }
}

pub(crate) fn serve(request: &Request<'_>, _: &mut State, _: &mut Io<State>) -> Decision<State> {
    match request.is_websocket() {
        true => Decision::websocket(Echo),
        false => Decision::respond(Response::text(format!("page {}", request.path()))),
    }
}

pub(crate) fn peer(address: &str) -> Peer {
    Peer::Inet(address.parse().unwrap())
}

/// A field of a head that has come.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.split_once(": ").filter(|(known, _)| *known == name))
        .map(|(_, value)| value)
}

/// Reads a client's opening handshake, and returns it with the accept key that belongs to it.
pub(crate) fn handshake(server: &mut Endpoint) -> (String, String) {
    let head = String::from_utf8(server.take()).unwrap();
    let key =
        field(&head, "Sec-WebSocket-Key").unwrap_or_else(|| panic!("no handshake: {head:?}")).to_owned();
    (head, ws::handshake::accept_key(key.as_bytes()).as_str().to_owned())
}

/// Opens a WebSocket; `fields` are lines that end in CR LF.
pub(crate) fn open(server: &mut Endpoint, fields: &str) -> String {
    let (head, accept) = handshake(server);
    server.send(switching(&accept, fields));
    head
}

pub(crate) fn switching(accept: &str, fields: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
    )
}

/// Carries what comes from each to the other, ends too. True if anything moved.
pub(crate) fn relay(one: &mut Endpoint, other: &mut Endpoint) -> bool {
    let (here, there) = (one.take(), other.take());
    other.send(&here);
    one.send(&there);
    !here.is_empty() || !there.is_empty()
}
