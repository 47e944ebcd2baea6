//! Worlds from seeds, with lodger at both ends: all kinds of clients, plain and over TLS, straight and through proxies, to names
//! with many addresses or none, while everything fails that can, anywhere. Each conn has one outcome in its time and one end,
//! and nothing is left behind.

use super::authority::Authority;
use super::dice::{Dice, seeds};
use super::town::{peer, relay, switching};
use lodger::client::ConnectError;
use lodger::http::{ClientHandler, ClientRequest, Fields, ResponseHead, StatusCode};
use lodger::resolve::ResolveError;
use lodger::sim::{Chaos, Endpoint, Reach, Server, World};
use lodger::ws::CloseCode;
use lodger::{
    CloseReason, Closed, ConnId, Connect, Context, Cx, Decision, Io, Limits, Listen, Proxy, Request,
    Response, Site, raw, tls, ws,
};
use std::any::Any;
use std::time::{Duration, Instant};

/// How late a deadline may be: the loop oversleeps by up to 20 ms, and hears of it in the turn after that.
const LATE: Duration = Duration::from_millis(45);

/// What is known of each conn.
struct Record {
    id: Option<ConnId>,
    due: Instant,
    opened: bool,
    closed: bool,
}

#[derive(Default)]
struct Books {
    records: Vec<Record>,
    /// Handlers no longer begin anything.
    over: bool,
    connected: usize,
    failed: usize,
}

impl Books {
    fn may_begin(&self) -> bool {
        !self.over && self.records.len() < 100
    }

    fn open(&mut self, due: Instant) -> usize {
        self.records.push(Record { id: None, due, opened: false, closed: false });
        self.records.len() - 1
    }
}

#[derive(Clone, Copy)]
enum Kind {
    WebSocket,
    Http,
    Raw,
}

/// A client of any kind, that does now and then what it should rather not.
struct Walker {
    at: usize,
    dice: Dice,
    kind: Kind,
    kit: Kit,
    /// So often does it do something of its own accord, so that a world comes to rest.
    acts: u32,
}

impl Walker {
    fn outcome(&mut self, cx: &mut Cx<'_, Books>) {
        let record = &mut cx.data.records[self.at];
        assert!(!record.opened && !record.closed, "a second outcome");
        record.opened = true;
        cx.data.connected += 1;
        self.act(cx);
    }

    /// Anything between the outcome and the end.
    fn hear(&mut self, cx: &mut Cx<'_, Books>) {
        let record = &cx.data.records[self.at];
        assert!(record.opened && !record.closed, "an event before the outcome, or after the end");
        self.act(cx);
    }

    fn act(&mut self, cx: &mut Cx<'_, Books>) {
        let Some(left) = self.acts.checked_sub(1) else { return };
        self.acts = left;
        let length = self.dice.length();
        match (self.dice.below(30), self.kind) {
            (0, _) => cx.close(),
            (1, _) => cx.conn().abort(),
            (2, _) => cx.conn().finish(),
            (3, _) => cx.conn().request_writable(),
            (4 | 5, _) => {
                cx.conn().pause();
                cx.conn().set_timer(Duration::from_millis(self.dice.below(300) as u64));
            }
            (6, _) => drop(cx.io.notify(cx.id(), Box::new(()))),
            (7, _) if cx.data.may_begin() => begin(&self.kit, &mut self.dice, cx.data, cx.io),
            (8..20, Kind::WebSocket) => drop(cx.send(&self.dice.bytes(length)[..])),
            (8..20, Kind::Raw) => drop(cx.write(&self.dice.bytes(length))),
            (8..20, Kind::Http) => {
                // Whether one is under way is for the other side to know: it may be refused.
                let _ = cx.conn().request(request(&mut self.dice));
                let _ = cx.write(&self.dice.bytes(length));
                if self.dice.below(2) == 0 {
                    let _ = cx.conn().end_request();
                }
            }
            _ => {}
        }
    }

    fn end(mut self, cx: &mut Cx<'_, Books>, closed: &Closed) {
        let record = &mut cx.data.records[self.at];
        assert!(!record.closed, "a second end");
        record.closed = true;
        assert!(record.id.is_none_or(|id| cx.io.conn(id).is_none()));
        if !record.opened {
            cx.data.failed += 1;
            let failed = matches!(
                closed.reason,
                CloseReason::Connect(_)
                    | CloseReason::Closed
                    | CloseReason::Aborted
                    | CloseReason::Leaving
                    | CloseReason::Host(_)
            );
            assert!(failed, "{closed:?} of a conn that was never connected");
            // A deadline is kept, whatever stood in the way of it.
            assert!(cx.io.now() <= record.due + LATE, "{closed:?} is late");
        }
        if let CloseReason::Connect(error) = &closed.reason {
            assert!(!matches!(**error, ConnectError::Url(_) | ConnectError::Request(_)), "{error:?}");
        }
        if cx.data.may_begin() && self.dice.below(4) == 0 {
            begin(&self.kit, &mut self.dice, cx.data, cx.io);
        }
    }
}

impl ws::Handler<Books> for Walker {
    fn connected(&mut self, cx: &mut Cx<'_, Books>, _: &ResponseHead<'_>) -> bool {
        let welcome = self.dice.below(20) > 0;
        self.outcome(cx);
        welcome
    }
    fn message(&mut self, cx: &mut Cx<'_, Books>, _: ws::Message<'_>) {
        self.hear(cx);
    }
    fn writable(&mut self, cx: &mut Cx<'_, Books>) {
        self.hear(cx);
    }
    fn timer(&mut self, cx: &mut Cx<'_, Books>) {
        cx.conn().resume();
        self.hear(cx);
    }
    fn event(&mut self, cx: &mut Cx<'_, Books>, _: Box<dyn Any>) {
        self.hear(cx);
    }
    fn closed(self: Box<Self>, cx: &mut Cx<'_, Books>, closed: Closed) {
        self.end(cx, &closed);
    }
}

impl ClientHandler<Books> for Walker {
    fn connected(&mut self, cx: &mut Cx<'_, Books>) {
        self.outcome(cx);
    }
    fn interim(&mut self, cx: &mut Cx<'_, Books>, _: &ResponseHead<'_>) {
        self.hear(cx);
    }
    fn response(&mut self, cx: &mut Cx<'_, Books>, _: &ResponseHead<'_>) {
        self.hear(cx);
    }
    fn body(&mut self, cx: &mut Cx<'_, Books>, _: &[u8]) {
        self.hear(cx);
    }
    fn body_complete(&mut self, cx: &mut Cx<'_, Books>, _: &Fields) {
        self.hear(cx);
    }
    fn writable(&mut self, cx: &mut Cx<'_, Books>) {
        self.hear(cx);
    }
    fn timer(&mut self, cx: &mut Cx<'_, Books>) {
        cx.conn().resume();
        self.hear(cx);
    }
    fn event(&mut self, cx: &mut Cx<'_, Books>, _: Box<dyn Any>) {
        self.hear(cx);
    }
    fn closed(self: Box<Self>, cx: &mut Cx<'_, Books>, closed: Closed) {
        self.end(cx, &closed);
    }
}

impl raw::Handler<Books> for Walker {
    fn opened(&mut self, cx: &mut Cx<'_, Books>) {
        self.outcome(cx);
    }
    fn received(&mut self, cx: &mut Cx<'_, Books>, _: &[u8]) {
        self.hear(cx);
    }
    fn writable(&mut self, cx: &mut Cx<'_, Books>) {
        self.hear(cx);
    }
    fn timer(&mut self, cx: &mut Cx<'_, Books>) {
        cx.conn().resume();
        self.hear(cx);
    }
    fn event(&mut self, cx: &mut Cx<'_, Books>, _: Box<dyn Any>) {
        self.hear(cx);
    }
    fn closed(self: Box<Self>, cx: &mut Cx<'_, Books>, closed: Closed) {
        Walker::end(*self, cx, &closed);
    }
}

// What clients ask for.

/// What both ends of TLS need, made once.
#[derive(Clone)]
struct Kit {
    server: tls::Server,
    client: tls::Client,
}

impl Kit {
    fn new() -> Self {
        let authority = Authority::new();
        Self { server: authority.server("good.example"), client: authority.client().build().unwrap() }
    }
}

fn request(dice: &mut Dice) -> ClientRequest {
    let length = dice.length();
    let request = match dice.below(8) {
        0..3 => ClientRequest::get(),
        3 => ClientRequest::head(),
        4 => ClientRequest::post(dice.bytes(length)),
        5 => ClientRequest::new("PUT").content_stream(None),
        6 => ClientRequest::new("PUT").content_stream(Some(length as u64)),
        _ => ClientRequest::post(dice.bytes(length)).expect_continue(Duration::from_millis(50)),
    };
    let target = dice.pick(&["/", "/echo", "/around", "/elsewhere", "/nowhere", "/stream", "/never"]);
    let request = request.target(target);
    if dice.below(5) == 0 { request.close() } else { request }
}

/// Connects to anything, in any way.
fn begin(kit: &Kit, dice: &mut Dice, books: &mut Books, io: &mut Io<Books>) {
    let kind = dice.pick(&[Kind::WebSocket, Kind::Http, Kind::Raw]);
    let secure = dice.below(3) == 0;
    let host = dice.pick(&[
        "good.example",
        "many.example",
        "many.example",
        "slow.example",
        "failing.example",
        "silent.example",
        "unknown.example",
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.9",
    ]);
    let port = match (kind, secure) {
        (Kind::Raw, false) => 7,
        (Kind::Raw, true) => 8,
        (_, false) => 80,
        (_, true) => 443,
    };
    let port = if host == "10.0.0.9" { 80 } else { port };
    let limits = Limits {
        response: Duration::from_secs(3),
        body_stall: Duration::from_secs(3),
        content: (dice.below(4) == 0).then_some(10_000),
        ..Limits::default()
    };
    let timeout = Duration::from_millis(dice.pick(&[100, 700, 2000, 5000]));
    let delay = Duration::from_millis(dice.pick(&[0, 0, 0, 1, 400]));
    let mut connect = Connect::tcp(host, port).limits(limits).timeout(timeout).after(delay);
    let target = dice.pick(&["/echo", "/", "/around", "/elsewhere", "/refused", "/never"]);
    if !matches!(kind, Kind::Raw) {
        connect = connect.path(target);
    }
    if secure {
        connect = connect.secure().server_name("good.example");
        if dice.below(10) > 0 {
            connect = connect.tls(kit.client.clone());
        }
    }
    connect = match dice.below(6) {
        0 => connect.proxy(Proxy::http("10.0.0.8", 3128)),
        1 => connect.proxy(Proxy::socks5("10.0.0.8", 3128)),
        2 => connect.redirects(dice.below(3) as u8),
        _ => connect,
    };
    let due = io.now() + delay + timeout;
    let at = books.open(due);
    let walker = Box::new(Walker { at, dice: dice.fork(), kind, kit: kit.clone(), acts: 30 });
    let id = match kind {
        Kind::WebSocket => io.connect(connect, walker),
        Kind::Http => io.connect_http(connect, request(dice), walker),
        Kind::Raw => io.connect_raw(connect, walker),
    };
    books.records[at].id = Some(id);
    assert!(!books.records[at].opened && !books.records[at].closed, "an event before the call has returned");
    if dice.below(12) == 0
        && let Some(mut conn) = io.conn(id)
    {
        if dice.below(2) == 0 { conn.close() } else { conn.abort() }
    }
}

// The servers.

struct Echo;

impl ws::Handler<Books> for Echo {
    fn message(&mut self, cx: &mut Cx<'_, Books>, message: ws::Message<'_>) {
        let _ = cx.send(message);
    }
}

impl raw::Handler<Books> for Echo {
    fn received(&mut self, cx: &mut Cx<'_, Books>, bytes: &[u8]) {
        let _ = cx.write(bytes);
    }
}

impl lodger::http::Handler<Books> for Echo {
    fn body(&mut self, cx: &mut Cx<'_, Books>, piece: &[u8]) {
        // Begun with the first piece.
        let _ = cx.respond(Response::stream("text/plain"));
        let _ = cx.write(piece);
    }
    fn body_complete(&mut self, cx: &mut Cx<'_, Books>, _: &Fields) {
        let _ = cx.respond(Response::stream("text/plain"));
        let _ = cx.conn().end_response();
    }
}

fn serve(request: &Request<'_>, _: &mut Books, _: &mut Io<Books>) -> Decision<Books> {
    let redirect = |code, to: &str| {
        let status = StatusCode::new(code).unwrap();
        Decision::respond(Response::text("there").status(status).field("Location", to))
    };
    match request.path() {
        "/around" => redirect(302, "/around"),
        "/elsewhere" => redirect(307, "http://many.example/echo"),
        "/nowhere" => redirect(303, "ftp://nowhere"),
        "/refused" => Decision::respond(Response::text("no").status(StatusCode::new(403).unwrap())),
        "/never" => Decision::Later,
        _ if request.is_websocket() => Decision::websocket(Echo),
        "/stream" => Decision::http(Echo),
        _ => Decision::respond(Response::text("page ".repeat(2000))),
    }
}

fn listen(kit: &Kit, context: &mut Context<Books>) {
    let io = context.io();
    let site = io.add_site(Site::new().protocol("", serve).tls(kit.server.clone())).unwrap();
    let at = |port: u16| Listen::tcp(([10, 0, 0, 1], port));
    io.listen(at(80), site).unwrap();
    io.listen(at(443).tls(), site).unwrap();
    io.listen_raw(at(7), Limits::default(), |_, _, _| Some(Box::new(Echo))).unwrap();
    let secure = at(8).tls_with(kit.server.clone());
    io.listen_raw(secure, Limits::default(), |_, _, _| Some(Box::new(Echo))).unwrap();
}

/// One connection of somebody who is not to be relied on.
struct Rude {
    peer: Endpoint,
    asked: Vec<u8>,
    far: Option<Endpoint>,
}

impl Rude {
    /// A proxy, at times. False when it goes.
    fn tunnel(&mut self, world: &mut World, dice: &mut Dice) -> bool {
        if let Some(far) = &mut self.far {
            relay(&mut self.peer, far);
            if self.peer.at_end() {
                far.finish();
            }
            if far.at_end() {
                self.peer.finish();
            }
            return dice.below(200) > 0 && !(far.at_end() && self.peer.at_end());
        }
        self.asked.extend(self.peer.take());
        match dice.below(60) {
            0 => return false,
            1 => self.peer.send("HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\n\r\n"),
            2 => self.peer.send([5, 0, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0]),
            3 => self.peer.send(dice.bytes(30)),
            4 => self.peer.finish(),
            _ => {}
        }
        let port = match &self.asked[..] {
            [5, 1, 0] => {
                self.peer.send([5, 0]);
                self.asked.push(0xff);
                return true;
            }
            [5, 1, 0, 0xff, request @ ..] if request.len() > 6 => {
                self.peer.send([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
                u16::from_be_bytes(*request.last_chunk().unwrap())
            }
            asked if asked.ends_with(b"\r\n\r\n") => {
                self.peer.send("HTTP/1.1 200 OK\r\n\r\n");
                let line = String::from_utf8_lossy(asked).into_owned();
                line.split([' ', ':']).find_map(|word| word.parse().ok()).unwrap_or(80)
            }
            _ => return true,
        };
        self.far = world.connect(&peer(&format!("10.0.0.1:{port}"))).ok();
        self.far.is_some()
    }

    /// A server, at times. False when it goes.
    fn answer(&mut self, dice: &mut Dice) -> bool {
        self.asked.extend(self.peer.take());
        let text = String::from_utf8_lossy(&self.asked).into_owned();
        let key = super::town::field(&text, "Sec-WebSocket-Key").unwrap_or_default().to_owned();
        let accept = ws::handshake::accept_key(key.as_bytes());
        match dice.below(24) {
            0 | 1 => return false,
            2 => self.peer.finish(),
            3 => self.peer.send("HTTP/1.1 100 Continue\r\n\r\n".repeat(dice.below(40))),
            4 => self.peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"),
            5 => {
                self.peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            }
            6 => self.peer.send("HTTP/1.1 302 Found\r\nLocation: http://many.example/\r\n\r\n"),
            7..11 => self.peer.send(switching(accept.as_str(), "")),
            11 => self.peer.send(b"\x81\x02hi"),
            12 => self.peer.send(b"\x88\x02\x03\xe9"),
            13 => {
                let length = dice.length();
                self.peer.send(dice.bytes(length));
            }
            14 => self.peer.stop_reading(),
            15 => self.peer.resume_reading(),
            16 => self.peer.send("HTTP/1.0 200 OK\r\n\r\nuntil the end"),
            _ => {}
        }
        true
    }
}

fn go(peers: &mut Vec<Rude>, dice: &mut Dice, mut stays: impl FnMut(&mut Rude, &mut Dice) -> bool) {
    for mut rude in std::mem::take(peers) {
        if stays(&mut rude, dice) {
            peers.push(rude);
        } else if dice.below(2) == 0 {
            rude.peer.reset();
        }
    }
}

fn accept(server: &mut Option<Server>, peers: &mut Vec<Rude>) {
    while let Some(peer) = server.as_mut().and_then(Server::accept) {
        peers.push(Rude { peer, asked: Vec::new(), far: None });
    }
}

/// What is said of addresses and names.
fn furnish(world: &mut World, dice: &mut Dice) {
    let address = |text: &str| text.parse().unwrap();
    let names = world.names();
    let many = ["2001:db8::1", "10.0.0.2", "10.0.0.3", "2001:db8::2", "10.0.0.1", "10.0.0.9"];
    let mut many: Vec<_> = many.iter().filter(|_| dice.below(3) > 0).map(|text| address(text)).collect();
    if dice.below(2) == 0 {
        many.reverse();
    }
    names.set("good.example", [address("10.0.0.1")], Duration::ZERO);
    names.set("many.example", many, Duration::from_millis(dice.pick(&[0, 3])));
    names.set("slow.example", [address("10.0.0.1")], Duration::from_millis(dice.below(3000) as u64));
    let error = dice.pick(&[0, 1, 2]);
    let error = [ResolveError::Again, ResolveError::Busy, ResolveError::TimedOut][error].clone();
    names.fail("failing.example", error, Duration::from_millis(dice.below(300) as u64));
    names.silence("silent.example");
    for text in ["[2001:db8::1]", "[2001:db8::2]", "10.0.0.2", "10.0.0.3"] {
        let reach = dice.pick(&[Reach::Refused, Reach::Unreachable, Reach::Silent]);
        for port in [7, 8, 80, 443] {
            world.reach(&peer(&format!("{text}:{port}")), reach);
        }
    }
}

/// Everything that was begun must have had its outcome by now.
fn check(books: &Books, now: Instant) {
    for (at, record) in books.records.iter().enumerate() {
        let waits = !record.opened && !record.closed;
        assert!(!waits || now <= record.due + LATE, "conn {at} has had no outcome in its time");
    }
}

/// Lives through one world, and says how many conns were connected, and how many were not.
fn live(seed: u64, chaos: Chaos, kit: &Kit) -> (usize, usize) {
    let mut dice = Dice::new(seed);
    let mut world = World::new(seed);
    world.chaos(chaos);
    furnish(&mut world, &mut dice);
    let most = dice.pick(&[usize::MAX, usize::MAX, 40]);
    let mut context: Context<Books> = world.builder().max_links(most).build();
    let mut other: Context<Books> = world.builder().build();
    let (mut books, mut others) = (Books::default(), Books::default());
    // Both ends in one context, or each in its own.
    let alone = dice.below(2) == 0;
    listen(kit, if alone { &mut context } else { &mut other });
    let mut proxy = Some(world.listen(&peer("10.0.0.8:3128")).unwrap());
    let mut rude = Some(world.listen(&peer("10.0.0.9:80")).unwrap());
    let (mut tunnels, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..25 {
        for _ in 0..dice.below(3) {
            begin(kit, &mut dice, &mut books, context.io());
        }
        match dice.below(20) {
            0 => world.host_mut().fail_adds(dice.below(3) as u32),
            1 => world.host_mut().fail_changes(dice.below(3) as u32),
            2 | 3 if !books.records.is_empty() => {
                let at = dice.below(books.records.len());
                if let Some(mut conn) = books.records[at].id.and_then(|id| context.io().conn(id)) {
                    if dice.below(2) == 0 { conn.close() } else { conn.abort() }
                }
            }
            4 => proxy = None,
            5 => context.detach(world.host_mut()),
            6 => furnish(&mut world, &mut dice),
            _ => {}
        }
        let time = Duration::from_millis(dice.pick(&[0, 0, 1, 5, 60, 260, 1100]));
        world.run_all_for(&mut [(&mut context, &mut books), (&mut other, &mut others)], time);
        accept(&mut proxy, &mut tunnels);
        accept(&mut rude, &mut servers);
        go(&mut tunnels, &mut dice, |rude, dice| rude.tunnel(&mut world, dice));
        go(&mut servers, &mut dice, Rude::answer);
        check(&books, world.now());
    }
    books.over = true;
    let ending = dice.below(3);
    if ending == 0 {
        context.io().shutdown(CloseCode::GOING_AWAY);
    }
    if ending < 2 {
        (tunnels, servers, proxy, rude) = (Vec::new(), Vec::new(), None, None);
        let time = Duration::from_secs(30);
        world.run_all_for(&mut [(&mut context, &mut books), (&mut other, &mut others)], time);
        check(&books, world.now());
    }
    world.leave(&mut context, &mut books);
    world.leave(&mut other, &mut others);
    drop((tunnels, servers, proxy, rude));
    for (at, record) in books.records.iter().enumerate() {
        assert!(record.closed, "conn {at} has not ended");
    }
    assert_eq!(world.network().open_descriptors(), 0, "descriptors are left");
    (books.connected, books.failed)
}

fn campaign(count: u64, chaos: Chaos) {
    let kit = Kit::new();
    let (mut connected, mut failed, mut worlds) = (0, 0, 0);
    for seed in seeds(count) {
        let (more, less) = live(seed, chaos, &kit);
        (connected, failed, worlds) = (connected + more, failed + less, worlds + 1);
    }
    // Neither is so rare that nothing was shown.
    assert!(worlds < 50 || (connected > 5 * worlds && failed > 5 * worlds), "{connected}, {failed}");
}

#[test]
fn in_a_kind_world_each_client_has_one_outcome_and_one_end() {
    campaign(100, Chaos::NONE);
}

#[test]
fn in_a_wild_world_each_client_has_one_outcome_and_one_end() {
    campaign(150, Chaos::wild());
}

#[test]
fn in_a_hostile_world_each_client_has_one_outcome_and_one_end() {
    campaign(150, Chaos::hostile());
}
