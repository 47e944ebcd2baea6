//! A server on real sockets, served turn by turn in the test's thread under the audit, with a clock that only the test moves,
//! and clients whose bytes move between the turns.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use super::script::Script;
use lodger::audit::Audited;
use lodger::{
    ConnId, Context, Decision, Env, Io, Limits, Listen, ProtocolId, Request, Site, SiteId, SystemEnv, Wait,
};
use lodger_poll::PollArray;
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant, SystemTime};

/// What the host of these tests owns.
#[derive(Default)]
pub struct State {
    /// What the handlers have heard.
    pub log: Vec<String>,
    /// The conns of scripts, in the order in which they were opened.
    pub conns: Vec<ConnId>,
    /// A protocol that somebody wanted to remember.
    pub protocol: Option<ProtocolId>,
}

/// Stands still unless it is moved.
#[derive(Clone)]
pub struct Clock(Rc<Cell<Instant>>);

impl Clock {
    fn new() -> Self {
        Self(Rc::new(Cell::new(SystemEnv.now())))
    }

    pub fn now(&self) -> Instant {
        self.0.get()
    }
}

impl Env for Clock {
    fn now(&mut self) -> Instant {
        self.0.get()
    }

    fn date(&mut self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn random(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

pub struct Rig {
    pub context: Context<State>,
    pub state: State,
    pub host: Audited<PollArray>,
    pub clock: Clock,
    /// What `prepare` said last.
    pub wait: Wait,
    /// Where the site listens.
    pub address: SocketAddr,
    pub site: SiteId,
    clients: Vec<Weak<RefCell<Socket>>>,
}

/// No test waits longer than this for something that has to come.
const PATIENCE: Duration = Duration::from_secs(10);

impl Rig {
    /// A server with one site.
    pub fn site(site: Site<State>) -> Self {
        Self::listening(site, |listen| listen)
    }

    /// The same, with options for the listener.
    pub fn listening(site: Site<State>, options: impl FnOnce(Listen) -> Listen) -> Self {
        Self::with(site, |builder| builder, options)
    }

    /// A server with one site, in a context that is built as `build` says.
    pub fn built(site: Site<State>, build: impl FnOnce(lodger::Builder) -> lodger::Builder) -> Self {
        Self::with(site, build, |listen| listen)
    }

    fn with(
        site: Site<State>,
        build: impl FnOnce(lodger::Builder) -> lodger::Builder,
        options: impl FnOnce(Listen) -> Listen,
    ) -> Self {
        let clock = Clock::new();
        let mut context: Context<State> = build(Context::builder().env(clock.clone())).build();
        let io = context.io();
        let site = io.add_site(site).expect("a site with a protocol");
        let listener = io.listen(options(Listen::tcp(([127, 0, 0, 1], 0))), site).expect("a port is free");
        let address = io.local_addr(listener).expect("it listens").inet().expect("TCP");
        let audit_clock = clock.clone();
        let host = Audited::new(PollArray::new())
            .clock(move || audit_clock.now())
            .tolerance(Duration::from_secs(1_000_000));
        let state = State::default();
        let clients = Vec::new();
        let mut rig = Self { context, state, host, clock, wait: Wait::FOREVER, address, site, clients };
        rig.run();
        rig
    }

    /// A server whose every WebSocket is run by a script of its own.
    pub fn websocket(limits: Limits, mut make: impl FnMut() -> Script + 'static) -> Self {
        let accept = move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::websocket(make());
        Self::site(Site::new().protocol("", accept).limits(limits))
    }

    /// A server whose every HTTP exchange is run by a script of its own.
    pub fn http(limits: Limits, mut make: impl FnMut() -> Script + 'static) -> Self {
        let accept = move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::http(make());
        Self::site(Site::new().protocol("", accept).limits(limits))
    }

    /// A server whose every raw connection is run by a script of its own.
    pub fn raw(limits: Limits, mut make: impl FnMut() -> Script + 'static) -> Self {
        let mut rig = Self::site(
            Site::new().protocol("", |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::Later),
        );
        let io = rig.context.io();
        let accept = move |_: &lodger::Peer, _: &mut State, _: &mut Io<State>| {
            Some(Box::new(make()) as Box<dyn lodger::raw::Handler<State>>)
        };
        let listener =
            io.listen_raw(Listen::tcp(([127, 0, 0, 1], 0)), limits, accept).expect("a port is free");
        rig.address = io.local_addr(listener).expect("it listens").inet().expect("TCP");
        rig.run();
        rig
    }

    pub fn io(&mut self) -> &mut Io<State> {
        self.context.io()
    }

    // Time.

    /// One turn, whose sleep is at most `millis` long. Says whether anything happened.
    pub fn turn(&mut self, millis: u64) -> bool {
        let moved = self.pump();
        self.wait = self.host.prepare(&mut self.context);
        let due = self.wait.instant().is_some_and(|due| due <= self.clock.now());
        let busy = moved || due || self.wait.is_now();
        let sleep = if busy { Duration::ZERO } else { Duration::from_millis(millis) };
        let sleep = self.wait.sooner(sleep.into());
        self.host.audit.sleeping(Some(Duration::ZERO));
        let ready = self.host.host.wait(sleep).expect("poll");
        while let Some(entry) = self.host.host.next_ready() {
            let _ = self.host.audit.service_fd(&mut self.context, entry, &mut self.state);
        }
        self.host.audit.service_timeouts(&mut self.context, &mut self.state);
        moved || ready > 0 || busy
    }

    /// Turns until nothing happens any more. What has to come is waited for with [`until`](Self::until).
    pub fn run(&mut self) {
        let mut quiet = 0;
        for _ in 0..100_000 {
            quiet = if self.turn(quiet) { 0 } else { quiet + 1 };
            if quiet == 3 {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.state.log);
    }

    /// Moves the clock, and runs nothing: the host stands still.
    pub fn stand_still(&mut self, by: Duration) {
        self.clock.0.set(self.clock.now() + by);
    }

    /// Moves the clock, and turns until nothing happens any more.
    pub fn advance(&mut self, by: Duration) {
        self.run();
        self.clock.0.set(self.clock.now() + by);
        self.run();
    }

    /// Turns until `condition` holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let start = SystemEnv.now();
        while !condition(self) {
            self.turn(5);
            if SystemEnv.now().duration_since(start) > PATIENCE {
                let links: Vec<_> = self.context.io().links().collect();
                panic!("in vain: {what}\nlog: {:?}\nlinks: {links:?}", self.state.log);
            }
        }
    }

    // The log.

    pub fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.state.log)
    }

    /// Turns until the log has this line.
    #[track_caller]
    pub fn until_logged(&mut self, line: &str) {
        self.until(line, |rig| rig.state.log.iter().any(|known| known == line));
    }

    // Clients.

    /// Moves the clients' bytes.
    fn pump(&mut self) -> bool {
        let mut moved = false;
        self.clients.retain(|client| {
            let Some(socket) = client.upgrade() else { return false };
            moved |= socket.borrow_mut().pump();
            true
        });
        moved
    }

    pub fn connect(&mut self) -> Client {
        let stream = TcpStream::connect(self.address).expect("somebody listens");
        self.client(stream)
    }

    /// A client at this end of a connection.
    pub fn client(&mut self, stream: TcpStream) -> Client {
        stream.set_nonblocking(true).expect("a socket can be non-blocking");
        stream.set_nodelay(true).expect("a TCP socket");
        let socket = Socket {
            stream,
            out: Vec::new(),
            received: Vec::new(),
            allowance: usize::MAX,
            finishing: false,
            ended: false,
            was_reset: false,
        };
        let socket = Rc::new(RefCell::new(socket));
        self.clients.push(Rc::downgrade(&socket));
        Client(socket)
    }

    /// A connection that nobody serves yet: a socket to adopt, and its client.
    pub fn pair(&mut self) -> (OwnedFd, Client) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (socket, _) = listener.accept().expect("it was connected to");
        (socket.into(), self.client(stream))
    }

    /// A client whose WebSocket is open.
    #[track_caller]
    pub fn open(&mut self) -> Client {
        self.open_with("/", "")
    }

    /// The same with a target and fields.
    #[track_caller]
    pub fn open_with(&mut self, target: &str, fields: &str) -> Client {
        let client = self.connect();
        client.upgrade(target, fields);
        let head = self.head(&client);
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        client
    }

    /// The next frame of a client.
    #[track_caller]
    pub fn frame(&mut self, client: &Client) -> Frame {
        let mut frame = None;
        self.until("a frame", |_| {
            frame = client.next_frame();
            frame.is_some()
        });
        frame.expect("just seen")
    }

    /// The next response of a client.
    #[track_caller]
    pub fn answer(&mut self, client: &Client) -> Answer {
        let mut answer = None;
        self.until("a response", |_| {
            answer = client.next_answer();
            answer.is_some()
        });
        answer.expect("just seen")
    }

    /// The head of the next response.
    #[track_caller]
    pub fn head(&mut self, client: &Client) -> Answer {
        let mut head = None;
        self.until("a response's head", |_| {
            head = client.next_head();
            head.is_some()
        });
        head.expect("just seen")
    }

    /// Waits for the server's end of the connection, which is to be an orderly one.
    #[track_caller]
    pub fn end(&mut self, client: &Client) {
        self.until("the end", |_| client.at_end());
        assert!(!client.was_reset(), "a reset");
    }

    /// The answer to a request, and whether the connection ended after it in order.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        let client = self.connect();
        client.send(request);
        self.answer(&client)
    }

    /// Every frame that came up to an orderly end.
    #[track_caller]
    pub fn frames(&mut self, client: &Client) -> Vec<Frame> {
        self.end(client);
        std::iter::from_fn(|| client.next_frame()).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.host.leave(&mut self.context, &mut self.state);
            assert_eq!(self.context.io().link_count(), 0);
        }
    }
}

/// A client's end. Dropping it closes it.
#[derive(Clone)]
pub struct Client(Rc<RefCell<Socket>>);

struct Socket {
    stream: TcpStream,
    out: Vec<u8>,
    received: Vec<u8>,
    /// How much it still reads.
    allowance: usize,
    finishing: bool,
    ended: bool,
    was_reset: bool,
}

impl Socket {
    fn pump(&mut self) -> bool {
        let mut moved = false;
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => {
                    self.out.drain(..written);
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.was_reset = true;
                    self.out.clear();
                }
            }
        }
        if self.finishing && self.out.is_empty() {
            self.finishing = false;
            let _ = self.stream.shutdown(Shutdown::Write);
            moved = true;
        }
        let mut buffer = [0; 64 * 1024];
        while !self.ended && self.allowance > 0 {
            let most = self.allowance.min(buffer.len());
            match self.stream.read(&mut buffer[..most]) {
                Ok(0) => {
                    self.ended = true;
                    moved = true;
                }
                Ok(read) => {
                    self.received.extend_from_slice(&buffer[..read]);
                    if self.allowance != usize::MAX {
                        self.allowance -= read;
                    }
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    (self.ended, self.was_reset) = (true, true);
                    moved = true;
                }
            }
        }
        moved
    }
}

impl Client {
    pub fn address(&self) -> SocketAddr {
        self.0.borrow().stream.local_addr().expect("connected")
    }

    /// Sends bytes, now or as there is room.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let mut socket = self.0.borrow_mut();
        socket.out.extend_from_slice(bytes.as_ref());
        socket.pump();
    }

    /// How many bytes wait because the server does not read.
    pub fn unsent(&self) -> usize {
        self.0.borrow().out.len()
    }

    /// Ends its half, once everything was sent.
    pub fn finish(&self) {
        let mut socket = self.0.borrow_mut();
        socket.finishing = true;
        socket.pump();
    }

    /// Resets the connection at once. It is of no use after that.
    pub fn reset(&self) {
        let mut socket = self.0.borrow_mut();
        rustix::net::sockopt::set_socket_linger(&socket.stream, Some(Duration::ZERO)).expect("a TCP socket");
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        socket.stream = TcpStream::connect(other.local_addr().expect("bound")).expect("it listens");
        (socket.ended, socket.was_reset) = (true, true);
        socket.out.clear();
    }

    /// Closes, as `close(2)` does: a reset if something had come that was not read.
    pub fn close(self) {}

    /// Reads no more.
    pub fn stop_reading(&self) {
        self.read_at_most(0);
    }

    /// Reads so many bytes more.
    pub fn read_at_most(&self, bytes: usize) {
        self.0.borrow_mut().allowance = bytes;
    }

    pub fn resume_reading(&self) {
        self.read_at_most(usize::MAX);
    }

    /// What has come and was not taken.
    pub fn received(&self) -> Vec<u8> {
        self.0.borrow().received.clone()
    }

    pub fn received_len(&self) -> usize {
        self.0.borrow().received.len()
    }

    /// Takes what has come.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().received)
    }

    pub fn at_end(&self) -> bool {
        self.0.borrow().ended
    }

    pub fn was_reset(&self) -> bool {
        self.0.borrow().was_reset
    }

    /// Small kernel buffers, so that little fits in between.
    pub fn small_buffers(&self) {
        let socket = self.0.borrow();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket.stream, 4096).expect("a socket");
        rustix::net::sockopt::set_socket_send_buffer_size(&socket.stream, 4096).expect("a socket");
    }

    /// A kernel buffer of this size for what comes.
    pub fn receive_buffer(&self, bytes: usize) {
        let socket = self.0.borrow();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket.stream, bytes).expect("a socket");
    }

    // HTTP.

    pub fn get(&self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }

    pub fn next_answer(&self) -> Option<Answer> {
        let mut socket = self.0.borrow_mut();
        let ended = socket.ended;
        Answer::take(&mut socket.received, ended)
    }

    pub fn next_head(&self) -> Option<Answer> {
        let mut socket = self.0.borrow_mut();
        let (head, length) = head(&socket.received)?;
        socket.received.drain(..length);
        Some(head)
    }

    // WebSocket.

    pub fn upgrade(&self, target: &str, fields: &str) {
        self.send(upgrade(target, fields));
    }

    pub fn frame(&self, frame: &Frame) {
        self.send(frame.masked());
    }

    pub fn text(&self, text: &str) {
        self.frame(&Frame::text(text));
    }

    pub fn next_frame(&self) -> Option<Frame> {
        Frame::take(&mut self.0.borrow_mut().received)
    }
}

/// A valid opening handshake, with the key of RFC 6455, section 1.3.
pub fn upgrade(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// One frame (RFC 6455, section 5.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(fin: bool, opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self { fin, opcode, payload: payload.as_ref().to_vec() }
    }

    pub fn text(text: &str) -> Self {
        Self::new(true, 1, text)
    }

    pub fn binary(payload: impl AsRef<[u8]>) -> Self {
        Self::new(true, 2, payload)
    }

    pub fn ping(payload: impl AsRef<[u8]>) -> Self {
        Self::new(true, 9, payload)
    }

    pub fn pong(payload: impl AsRef<[u8]>) -> Self {
        Self::new(true, 10, payload)
    }

    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(true, 8, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    pub fn close_code(&self) -> Option<u16> {
        match (self.opcode, &self.payload[..]) {
            (8, [high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }

    fn header(&self, mask: u8) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | self.opcode];
        match self.payload.len() {
            length @ 0..126 => bytes.push(mask | length as u8),
            length @ 126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes
    }

    /// As a client sends it.
    pub fn masked(&self) -> Vec<u8> {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = self.header(0x80);
        bytes.extend(key);
        bytes.extend(self.payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
        bytes
    }

    /// As a server sends it.
    pub fn unmasked(&self) -> Vec<u8> {
        let mut bytes = self.header(0);
        bytes.extend(&self.payload);
        bytes
    }

    fn take(input: &mut Vec<u8>) -> Option<Self> {
        let (&first, &second) = (input.first()?, input.get(1)?);
        assert_eq!((first & 0x70, second & 0x80), (0, 0), "a server sets no reserved bit and no mask");
        let (length, header) = match second {
            126 => (u64::from(u16::from_be_bytes(*input.get(2..)?.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*input.get(2..)?.first_chunk()?), 10),
            length => (length.into(), 2),
        };
        let end = header + usize::try_from(length).ok()?;
        let payload = input.get(header..end)?.to_vec();
        input.drain(..end);
        Some(Self { fin: first & 0x80 != 0, opcode: first & 15, payload })
    }
}

/// A response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub content: Vec<u8>,
}

impl Answer {
    /// The value of the one field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} comes twice: {self:?}");
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.content).expect("text")
    }

    fn take(input: &mut Vec<u8>, ended: bool) -> Option<Self> {
        let (mut answer, start) = head(input)?;
        let rest = &input[start..];
        let length = answer.field("content-length").map(|length| length.parse::<usize>().expect("a length"));
        let chunked = answer.field("transfer-encoding") == Some("chunked");
        assert!(!(chunked && length.is_some()), "framed twice: {answer:?}");
        let (content, used) = match (answer.status, length) {
            (100..200 | 204 | 304, _) => (Vec::new(), 0),
            (_, Some(length)) => (rest.get(..length)?.to_vec(), length),
            _ if chunked => chunks(rest)?,
            _ if ended => (rest.to_vec(), rest.len()),
            _ => return None,
        };
        answer.content = content;
        input.drain(..start + used);
        Some(answer)
    }
}

fn head(bytes: &[u8]) -> Option<(Answer, usize)> {
    let length = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..length - 4]).expect("a head is ASCII");
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not a status line: {line:?}"));
    let fields = lines
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("not a field: {line:?}")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Some((Answer { status, fields, content: Vec::new() }, length))
}

fn chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let all = bytes.len();
    let mut content = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size =
            std::str::from_utf8(&bytes[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.expect("a chunk begins with its size");
        content.extend(bytes.get(end + 2..end + 2 + size)?);
        assert_eq!(bytes.get(end + 2 + size..end + 4 + size)?, b"\r\n");
        bytes = &bytes[end + 4 + size..];
        if size == 0 {
            return Some((content, all - bytes.len()));
        }
    }
}
