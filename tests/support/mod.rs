//! What the tests over real sockets share: a house for a context to live in, a client, and a handler that notes what it
//! hears.

#![allow(dead_code, reason = "each test file uses a part of it")]

use lodger::audit::{Audited, Counts};
use lodger::{
    Closed, Conn, ConnId, Context, Cx, Decision, Env, Interest, Io, Limits, Listen, ListenerId, Peer,
    Protocol, ProtocolId, Request, Response, Served, Site, SiteId, SystemEnv, fd, http, raw, ws,
};
use lodger_poll::PollArray;
use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a condition may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn now() -> Instant {
    SystemEnv.now()
}

/// Waits, without a house, until `done`.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        lodger_poll::poll(&mut [], Duration::from_millis(1)).unwrap();
    }
}

/// A context in an audited poll array, with the state that it is lent.
pub(crate) struct House<D = State> {
    pub(crate) context: Context<D>,
    pub(crate) data: D,
    pub(crate) host: Audited<PollArray>,
    /// Entries of nobody that came back from the last turn.
    pub(crate) foreign: Vec<libc::pollfd>,
}

impl<D: Default> House<D> {
    pub(crate) fn new() -> Self {
        Self::with(Context::new())
    }

    pub(crate) fn with(context: Context<D>) -> Self {
        Self { context, data: D::default(), host: Audited::new(PollArray::new()), foreign: Vec::new() }
    }
}

impl<D> House<D> {
    pub(crate) fn io(&mut self) -> &mut Io<D> {
        self.context.io()
    }

    /// One turn, which sleeps for `limit` at most; says how many descriptors were ready.
    pub(crate) fn turn(&mut self, limit: Duration) -> usize {
        let wait = self.host.prepare(&mut self.context).sooner(limit.into());
        self.host.audit.sleeping(wait.duration());
        let ready = self.host.host.wait(wait).unwrap();
        self.foreign.clear();
        while let Some(entry) = self.host.host.next_ready() {
            if self.host.audit.service_fd(&mut self.context, entry, &mut self.data) == Served::Foreign {
                self.foreign.push(*entry);
            }
        }
        self.host.audit.service_timeouts(&mut self.context, &mut self.data);
        ready
    }

    /// Turns until `done`.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
            self.turn(Duration::from_millis(1));
        }
    }

    /// Turns until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        let start = now();
        while quiet < 3 {
            assert!(start.elapsed() < PATIENCE, "it never comes to rest");
            let before = self.host.counts();
            let ready = self.turn(Duration::from_millis(1));
            let idle = ready == 0 && self.host.counts().since(&before).wake_ups == 0;
            quiet = if idle { quiet + 1 } else { 0 };
        }
    }

    /// Comes to rest, and then is not woken, nor says a word to its host.
    pub(crate) fn assert_idle(&mut self) {
        self.settle();
        let before = self.host.counts();
        for _ in 0..8 {
            assert_eq!(self.turn(Duration::from_millis(4)), 0, "woken while idle: {:?}", self.host);
        }
        let counts = self.host.counts().since(&before);
        assert_eq!(
            (counts.host_calls(), counts.locks, counts.wake_ups, counts.services),
            (0, 0, 0, 0),
            "{counts:?}"
        );
    }

    pub(crate) fn counts(&self) -> Counts {
        self.host.counts()
    }

    /// What the client gets next: an opcode and a payload.
    pub(crate) fn frame(&mut self, client: &mut Client) -> (u8, Vec<u8>) {
        let mut frame = None;
        self.until("a frame comes", |_| {
            client.pull();
            frame = client.next_frame();
            frame.is_some()
        });
        frame.unwrap()
    }

    /// The next `length` bytes that the client gets.
    pub(crate) fn bytes(&mut self, client: &mut Client, length: usize) -> Vec<u8> {
        self.until("the bytes come", |_| {
            client.pull();
            client.inbox.len() >= length
        });
        client.inbox.drain(..length).collect()
    }

    /// Until the client sees the end.
    pub(crate) fn ends(&mut self, client: &mut Client) {
        self.until("the connection ends", |_| {
            client.pull();
            client.end.is_some()
        });
    }

    /// A head of a response, as text.
    pub(crate) fn head(&mut self, client: &mut Client) -> String {
        let mut end = None;
        self.until("a response comes", |_| {
            client.pull();
            end = client.inbox.windows(4).position(|window| window == b"\r\n\r\n");
            end.is_some()
        });
        let head = client.inbox.drain(..end.unwrap() + 4).collect();
        String::from_utf8(head).unwrap()
    }

    /// The opening handshake, as a client.
    pub(crate) fn upgrade(&mut self, client: &mut Client) {
        client.write(UPGRADE);
        let head = self.head(client);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    pub(crate) fn leave(&mut self) {
        self.host.leave(&mut self.context, &mut self.data);
        self.host.finished();
        assert!(self.context.io().links().next().is_none());
    }
}

pub(crate) const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

pub(crate) fn any_port() -> Listen {
    Listen::tcp(([127, 0, 0, 1], 0))
}

/// A house with one site, and where it listens.
pub(crate) fn served() -> (House, Server) {
    served_with(Context::new(), Limits::default())
}

pub(crate) fn served_with(context: Context<State>, limits: Limits) -> (House, Server) {
    let mut house = House::with(context);
    let io = house.io();
    let site = io.add_site(Site::new().protocol("", Hall).limits(limits.clone())).unwrap();
    let listener = io.listen(any_port(), site).unwrap();
    let accept =
        |_: &Peer, _: &mut State, _: &mut Io<State>| Some(Box::new(Probe) as Box<dyn raw::Handler<State>>);
    let raw_listener = io.listen_raw(any_port(), limits, accept).unwrap();
    let server = Server {
        site,
        listener,
        raw_listener,
        address: io.local_addr(listener).unwrap().inet().unwrap(),
        raw_address: io.local_addr(raw_listener).unwrap().inet().unwrap(),
    };
    house.settle();
    (house, server)
}

/// What [`served`] has opened.
#[derive(Clone, Copy)]
pub(crate) struct Server {
    pub(crate) site: SiteId,
    pub(crate) listener: ListenerId,
    pub(crate) raw_listener: ListenerId,
    pub(crate) address: SocketAddr,
    pub(crate) raw_address: SocketAddr,
}

impl Server {
    /// A WebSocket of this server, and its conn.
    pub(crate) fn websocket(&self, house: &mut House) -> (Client, ConnId) {
        let mut client = Client::tcp(self.address);
        house.upgrade(&mut client);
        house.until("it is open", |house| house.data.opened("opened").is_some());
        let id = house.data.opened("opened").unwrap();
        house.data.log.retain(|(of, _)| *of != id);
        (client, id)
    }

    /// A raw connection to this server, and its conn.
    pub(crate) fn raw(&self, house: &mut House) -> (Client, ConnId) {
        let client = Client::tcp(self.raw_address);
        house.until("it is open", |house| house.data.opened("raw opened").is_some());
        let id = house.data.opened("raw opened").unwrap();
        house.data.log.retain(|(of, _)| *of != id);
        (client, id)
    }
}

/// The state that the house lends: notes of what handlers heard, and what they are to do.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) log: Vec<(ConnId, String)>,
    pub(crate) closed: Vec<(ConnId, Closed)>,
    pub(crate) protocol: Option<ProtocolId>,
    /// Protocols that have ended.
    pub(crate) ended: usize,
    pub(crate) numbers: Vec<u32>,
    /// Runs at each event, with its name.
    pub(crate) act: Option<Act>,
    /// Handlers unwind at this event.
    pub(crate) unwind: Option<&'static str>,
    /// Messages and bytes are not echoed.
    pub(crate) silent: bool,
}

pub(crate) type Act = Box<dyn FnMut(&str, ConnId, &mut Io<State>)>;

impl State {
    /// Without the message of a panic, of which there would be many.
    fn unwind_at(&self, event: &str) {
        if self.unwind == Some(event) {
            std::panic::resume_unwind(Box::new("told to"));
        }
    }

    fn opened(&self, what: &str) -> Option<ConnId> {
        self.log.iter().find(|(_, heard)| heard == what).map(|(id, _)| *id)
    }

    pub(crate) fn heard(&self, id: ConnId) -> Vec<&str> {
        self.log.iter().filter(|(of, _)| *of == id).map(|(_, what)| what.as_str()).collect()
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|(_, heard)| heard == what).count()
    }

    pub(crate) fn closed_of(&self, id: ConnId) -> Option<&Closed> {
        self.closed.iter().find(|(of, _)| *of == id).map(|(_, closed)| closed)
    }
}

/// Protocol of the house: `/later` is decided later, `/probe` is handled by a [`Probe`], an upgrade too.
pub(crate) struct Hall;

impl Protocol<State> for Hall {
    fn started(&mut self, id: ProtocolId, state: &mut State, _io: &mut Io<State>) {
        state.protocol = Some(id);
    }

    fn accept(&mut self, request: &Request<'_>, state: &mut State, io: &mut Io<State>) -> Decision<State> {
        let id = request.id();
        state.log.push((id, format!("accept {}", request.path())));
        state.unwind_at("accept");
        if let Some(mut act) = state.act.take() {
            act("accept", id, io);
            state.act.get_or_insert(act);
        }
        match request.path() {
            "/later" => Decision::Later,
            "/probe" => Decision::http(Probe),
            _ if request.is_websocket() => Decision::websocket(Probe),
            _ => Decision::respond(Response::text("hello\n")),
        }
    }

    fn ended(&mut self, state: &mut State, _io: &mut Io<State>) {
        state.ended += 1;
    }
}

/// A handler of any role that notes what it hears, echoes, and acts as the state says.
pub(crate) struct Probe;

impl Probe {
    fn hear(cx: &mut Cx<'_, State>, event: &str, more: &str) {
        let id = cx.id();
        let what = if more.is_empty() { event.to_owned() } else { format!("{event} {more}") };
        cx.data.log.push((id, what));
        cx.data.unwind_at(event);
        if let Some(mut act) = cx.data.act.take() {
            act(event, id, cx.io);
            cx.data.act.get_or_insert(act);
        }
    }

    fn end(cx: &mut Cx<'_, State>, closed: Closed) {
        let id = cx.id();
        cx.data.closed.push((id, closed));
        Self::hear(cx, "closed", "");
    }
}

impl ws::Handler<State> for Probe {
    fn opened(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        Self::hear(cx, "opened", "");
    }
    fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
        if !cx.data.silent {
            let _ = cx.send(message);
        }
        let text = String::from_utf8_lossy(message.as_bytes());
        Self::hear(cx, "message", if text.len() < 32 { &text } else { "long" });
    }
    fn ping(&mut self, cx: &mut Cx<'_, State>, _: &[u8]) {
        Self::hear(cx, "ping", "");
    }
    fn pong(&mut self, cx: &mut Cx<'_, State>, _: &[u8]) {
        Self::hear(cx, "pong", "");
    }
    fn peer_closed(&mut self, cx: &mut Cx<'_, State>, _: Option<ws::CloseFrame<'_>>) {
        Self::hear(cx, "peer_closed", "");
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        Self::hear(cx, "writable", "");
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        Self::hear(cx, "timer", "");
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn Any>) {
        Self::hear(cx, "event", "");
    }
    fn child_closed(&mut self, cx: &mut Cx<'_, State>, _: ConnId) {
        Self::hear(cx, "child_closed", "");
    }
    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        Self::end(cx, closed);
    }
}

impl raw::Handler<State> for Probe {
    fn opened(&mut self, cx: &mut Cx<'_, State>) {
        Self::hear(cx, "raw opened", "");
    }
    fn received(&mut self, cx: &mut Cx<'_, State>, bytes: &[u8]) {
        if !cx.data.silent {
            let _ = cx.write(bytes);
        }
        cx.data.numbers.push(bytes.len() as u32);
        Self::hear(cx, "received", "");
    }
    fn end(&mut self, cx: &mut Cx<'_, State>) {
        Self::hear(cx, "end", "");
        if !cx.data.silent {
            cx.conn().finish();
        }
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        Self::hear(cx, "writable", "");
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        Self::hear(cx, "timer", "");
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn Any>) {
        Self::hear(cx, "event", "");
    }
    fn child_closed(&mut self, cx: &mut Cx<'_, State>, _: ConnId) {
        Self::hear(cx, "child_closed", "");
    }
    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        Self::end(cx, closed);
    }
}

impl http::Handler<State> for Probe {
    fn request(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        Self::hear(cx, "request", "");
    }
    fn body(&mut self, cx: &mut Cx<'_, State>, _: &[u8]) {
        Self::hear(cx, "body", "");
    }
    fn body_complete(&mut self, cx: &mut Cx<'_, State>, _: &http::Fields) {
        if !cx.data.silent {
            let _ = cx.respond(Response::text("done\n"));
        }
        Self::hear(cx, "body_complete", "");
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        Self::hear(cx, "writable", "");
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        Self::hear(cx, "timer", "");
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn Any>) {
        Self::hear(cx, "event", "");
    }
    fn child_closed(&mut self, cx: &mut Cx<'_, State>, _: ConnId) {
        Self::hear(cx, "child_closed", "");
    }
    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        Self::end(cx, closed);
    }
}

impl fd::Handler<State> for Probe {
    fn readable(&mut self, cx: &mut Cx<'_, State>, fd: BorrowedFd<'_>) {
        let mut buffer = [0; 512];
        let read = rustix::io::read(fd, &mut buffer[..]).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        Self::hear(cx, "readable", text.trim_end_matches('\0'));
        if read == 0 {
            cx.close();
        }
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>, _: BorrowedFd<'_>) {
        Self::hear(cx, "fd writable", "");
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        Self::hear(cx, "timer", "");
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn Any>) {
        Self::hear(cx, "event", "");
    }
    fn child_closed(&mut self, cx: &mut Cx<'_, State>, _: ConnId) {
        Self::hear(cx, "child_closed", "");
    }
    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        Self::end(cx, closed);
    }
}

/// A conn that is known to be there.
pub(crate) fn conn<D>(house: &mut House<D>, id: ConnId) -> Conn<'_, D> {
    house.context.io().conn(id).expect("the conn is there")
}

/// What is watched for a conn.
pub(crate) fn interest<D>(house: &mut House<D>, id: ConnId) -> Interest {
    house.context.io().links().find(|link| link.conn == Some(id)).expect("the link is there").interest
}

/// A client that never blocks.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) inbox: Vec<u8>,
    pub(crate) end: Option<End>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Eof,
    Reset,
}

impl Client {
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn unix(path: &Path) -> Self {
        Self::on(TcpStream::from(OwnedFd::from(UnixStream::connect(path).unwrap())))
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        let _ = stream.set_nodelay(true);
        Self { stream, inbox: Vec::new(), end: None }
    }

    /// Takes in what has come.
    pub(crate) fn pull(&mut self) {
        let mut buffer = [0; 64 * 1024];
        while self.end.is_none() {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.end = Some(End::Eof),
                Ok(read) => self.inbox.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.end = Some(End::Reset),
            }
        }
    }

    /// Writes what fits into the kernel's buffers.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, opcode: u8, payload: &[u8]) {
        let frame = client_frame(opcode, payload);
        self.write(&frame);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.send(1, text.as_bytes());
    }

    pub(crate) fn close(&mut self, code: u16) {
        self.send(8, &code.to_be_bytes());
    }

    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Goes away with a reset.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Takes a frame off the front of what has come.
    pub(crate) fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (header, length) = match *self.inbox.as_slice() {
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            [_, 127, a, b, c, d, e, f, g, h, ..] => {
                (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize)
            }
            [_, length @ 0..=125, ..] => (2, usize::from(length)),
            _ => return None,
        };
        if self.inbox.len() < header + length {
            return None;
        }
        let frame: Vec<u8> = self.inbox.drain(..header + length).collect();
        Some((frame[0] & 15, frame[header..].to_vec()))
    }
}

/// A frame of one fragment, as a client sends it.
pub(crate) fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 11, 13, 17];
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// What poll(2) says of a descriptor right now.
pub(crate) fn reported(fd: RawFd, events: i16) -> i16 {
    let mut entries = [libc::pollfd { fd, events, revents: 0 }];
    lodger_poll::poll(&mut entries, Duration::ZERO).unwrap();
    entries[0].revents
}

/// Whether the number is open in this process.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: it takes integers only.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Runs the test `name` of this binary in a process of its own; true there. What needs the process for itself (its limits,
/// its table of descriptors, its logger, forking) is tested so.
pub(crate) fn in_own_process(name: &str) -> bool {
    const MARK: &str = "LODGER_TEST_PROCESS";
    if std::env::var_os(MARK).is_some_and(|value| value == name) {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output =
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, name).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "in its own process:\n{out}\n{err}");
    false
}

/// A directory for this test alone, removed in the end.
pub(crate) struct Directory(pub(crate) std::path::PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lodger-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The number of anything that has one.
pub(crate) fn number(fd: &impl AsRawFd) -> RawFd {
    fd.as_raw_fd()
}
