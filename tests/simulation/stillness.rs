//! A loop that stood still, because its process was stopped or a handler took long, judges no peer that has kept its time: what
//! the peer has sent, or taken, is looked at first.

use lodger::http::{ClientRequest, ResponseHead};
use lodger::sim::{Endpoint, World};
use lodger::{
    Closed, Connect, Context, Cx, Decision, Io, Limits, Listen, Peer, Request, Response, Site, http, raw, ws,
};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
/// Longer than any limit here.
const LONG: Duration = Duration::from_secs(30);

/// What the handlers of a world have heard.
type Log = Vec<String>;

struct Talker;

fn reason(log: &mut Log, closed: &Closed) {
    log.push(format!("closed: {}", closed.reason));
}

impl ws::Handler<Log> for Talker {
    fn connected(&mut self, cx: &mut Cx<'_, Log>, _: &ResponseHead<'_>) -> bool {
        cx.data.push("connected".into());
        true
    }

    fn message(&mut self, cx: &mut Cx<'_, Log>, message: ws::Message<'_>) {
        cx.data.push(format!("message of {}", message.len()));
        match message {
            ws::Message::Text("close") => cx.close(),
            ws::Message::Text("much") => assert!(cx.send(&vec![0; 100_000]).is_ok()),
            ws::Message::Text("too much") => while cx.send(&vec![0; 100_000]).is_ok() {},
            _ => {}
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Log>, closed: Closed) {
        reason(cx.data, &closed);
    }
}

impl raw::Handler<Log> for Talker {
    fn received(&mut self, cx: &mut Cx<'_, Log>, bytes: &[u8]) {
        cx.data.push(format!("{} bytes", bytes.len()));
        match bytes {
            b"close" => cx.close(),
            b"much" => assert!(cx.write(&vec![0; 100_000]).is_ok()),
            _ => {}
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Log>, closed: Closed) {
        reason(cx.data, &closed);
    }
}

impl http::Handler<Log> for Talker {
    fn request(&mut self, cx: &mut Cx<'_, Log>, request: &Request<'_>) {
        if request.path() == "/much" {
            let much = Response::bytes("application/octet-stream", vec![0; 100_000]);
            assert!(cx.respond(much).is_ok());
        }
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, Log>, _: &http::Fields) {
        let _ = cx.respond(Response::text("ok"));
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Log>, closed: Closed) {
        reason(cx.data, &closed);
    }
}

impl http::ClientHandler<Log> for Talker {
    fn connected(&mut self, cx: &mut Cx<'_, Log>) {
        cx.data.push("connected".into());
    }

    fn response(&mut self, cx: &mut Cx<'_, Log>, response: &ResponseHead<'_>) {
        cx.data.push(format!("status {}", response.status().code()));
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, Log>, _: &http::Fields) {
        cx.data.push("complete".into());
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Log>, closed: Closed) {
        reason(cx.data, &closed);
    }
}

/// A server, and a loop that can stand still.
struct Still {
    world: World,
    context: Context<Log>,
    log: Log,
    http: Peer,
    raw: Peer,
}

impl Still {
    fn new(limits: Limits) -> Self {
        let mut world = World::new(1);
        let mut context: Context<Log> = world.builder().build();
        world.chaos(lodger::sim::Chaos { buffer: 4096, ..lodger::sim::Chaos::NONE });
        let accept = |request: &Request<'_>, _: &mut Log, _: &mut Io<Log>| match request.is_websocket() {
            true => Decision::websocket(Talker),
            false => Decision::http(Talker),
        };
        let io = context.io();
        let site =
            io.add_site(Site::new().protocol("", accept).limits(limits.clone())).expect("it can serve");
        let any = || Listen::tcp(([127, 0, 0, 1], 0));
        let http = io.listen(any(), site).expect("it listens");
        let raw = io.listen_raw(any(), limits, |_, _, _| Some(Box::new(Talker))).expect("it listens");
        let address = |listener| io.local_addr(listener).expect("it listens");
        let (http, raw) = (address(http), address(raw));
        let mut still = Self { world, context, log: Log::new(), http, raw };
        still.run();
        still
    }

    fn connect(&mut self) -> Endpoint {
        let address = self.http.clone();
        let peer = self.world.connect(&address).expect("it listens");
        self.run();
        peer
    }

    fn upgraded(&mut self) -> Endpoint {
        let mut peer = self.connect();
        peer.upgrade("/");
        self.run();
        assert!(peer.upgraded());
        peer
    }

    fn run(&mut self) {
        self.world.run(&mut self.context, &mut self.log);
    }

    fn run_for(&mut self, time: Duration) {
        self.world.run_for(&mut self.context, &mut self.log, time);
    }

    fn stands_still(&mut self) {
        self.world.stand_still(&mut self.context, &mut self.log, LONG);
        self.run();
    }

    fn timed_out(&self) -> bool {
        self.log.iter().any(|line| line.contains("timed out"))
    }
}

fn limits() -> Limits {
    Limits {
        handshake: 400 * MS,
        head_time: 500 * MS,
        body_stall: 600 * MS,
        keep_alive: 700 * MS,
        closing: 800 * MS,
        write_stall: 900 * MS,
        response: 300 * MS,
        ..Limits::default()
    }
}

#[test]
fn first_request_that_came_in_time_is_answered() {
    for sent in ["", "GET / HTTP/1.1\r\n"] {
        let mut still = Still::new(limits());
        let mut peer = still.connect();
        peer.send(sent);
        still.run();
        peer.send(&"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[sent.len()..]);
        still.stands_still();
        assert_eq!(peer.next_answer().map(|answer| answer.status), Some(200), "after {sent:?}");
    }
}

#[test]
fn next_request_that_came_in_time_is_answered() {
    for sent in ["", "GET / HTTP/1.1\r\n"] {
        let mut still = Still::new(limits());
        let mut peer = still.connect();
        peer.get("/");
        still.run();
        assert_eq!(peer.next_answer().map(|answer| answer.status), Some(200));
        peer.send(sent);
        still.run();
        peer.send(&"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[sent.len()..]);
        still.stands_still();
        assert_eq!(peer.next_answer().map(|answer| answer.status), Some(200), "after {sent:?}");
    }
}

#[test]
fn head_of_which_a_part_came_has_a_moment_for_the_rest_and_no_more() {
    let mut still = Still::new(limits());
    let mut peer = still.connect();
    peer.send("GET / HTTP/1.1\r\n");
    still.stands_still();
    assert_eq!(peer.take(), b"");
    peer.send("Host: localhost\r\n\r\n");
    still.run();
    assert_eq!(peer.next_answer().map(|answer| answer.status), Some(200));

    let mut peer = still.connect();
    peer.send("GET / HTTP/1.1\r\n");
    still.stands_still();
    still.run_for(2 * Duration::from_secs(1));
    assert!(peer.take().starts_with(b"HTTP/1.1 408"));
}

#[test]
fn content_that_came_in_time_is_heard() {
    let mut still = Still::new(limits());
    let mut peer = still.connect();
    peer.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab");
    still.run();
    peer.send("cd");
    still.stands_still();
    assert_eq!(peer.next_answer().map(|answer| answer.status), Some(200));
}

#[test]
fn pong_that_came_in_time_keeps_the_connection() {
    let mut still = Still::new(Limits { ping_interval: Some(300 * MS), pong_wait: 200 * MS, ..limits() });
    let mut peers: Vec<Endpoint> = (0..400).map(|_| still.upgraded()).collect();
    still.run_for(310 * MS);
    for peer in &mut peers {
        assert_eq!(peer.next_frame().map(|frame| frame.opcode), Some(9));
        peer.send_frame(&lodger::sim::Frame::pong(""));
    }
    still.stands_still();
    assert!(!still.timed_out(), "{:?}", still.log);
    assert_eq!(still.context.io().link_count(), 402);
}

#[test]
fn waiting_message_is_no_idleness_and_is_not_lost() {
    let mut still = Still::new(Limits { idle: Some(450 * MS), ..limits() });
    let mut peer = still.upgraded();
    peer.send_text("hello");
    still.stands_still();
    assert_eq!(still.log, ["message of 5"]);
    assert_eq!(peer.take(), b"");
}

#[test]
fn close_that_came_in_time_ends_the_handshake() {
    for before in [0, 300] {
        let mut still = Still::new(limits());
        still.world.chaos(lodger::sim::Chaos { buffer: 1 << 20, ..lodger::sim::Chaos::NONE });
        let mut peer = still.upgraded();
        peer.send_text("close");
        still.run();
        still.log.clear();
        // Nobody hears them any more; the Close behind them is heard.
        for _ in 0..before {
            peer.send_binary([7; 1000]);
        }
        peer.send_close(1000, "");
        peer.finish();
        still.stands_still();
        assert!(still.log[0].starts_with("closed: closed by us, code 1000"), "{:?}", still.log);
    }
}

#[test]
fn end_that_came_in_time_is_followed() {
    let mut still = Still::new(limits());
    let address = still.raw.clone();
    let mut peer = still.world.connect(&address).expect("it listens");
    peer.send("close");
    still.run();
    peer.finish();
    still.stands_still();
    assert_eq!(still.log, ["5 bytes", "closed: closed by us"]);
}

#[test]
fn peer_that_takes_what_is_sent_is_not_stalled() {
    type Begin = fn(&mut Still) -> Endpoint;
    let begin: [(&str, Begin); 3] = [
        ("websocket", |still| {
            let mut peer = still.upgraded();
            peer.stop_reading();
            peer.send_text("much");
            peer
        }),
        ("http", |still| {
            let mut peer = still.connect();
            peer.stop_reading();
            peer.get("/much");
            peer
        }),
        ("raw", |still| {
            let address = still.raw.clone();
            let mut peer = still.world.connect(&address).expect("it listens");
            peer.stop_reading();
            peer.send("much");
            peer
        }),
    ];
    for (name, begin) in begin {
        let mut still = Still::new(limits());
        let mut peer = begin(&mut still);
        still.run();
        for _ in 0..3 {
            peer.read_at_most(1000);
            still.stands_still();
            assert!(!still.timed_out(), "{name}: {:?}", still.log);
        }
        peer.stop_reading();
        still.stands_still();
        still.stands_still();
        assert!(still.timed_out(), "{name}: {:?}", still.log);
    }
}

#[test]
fn ping_without_room_is_owed_no_pong() {
    let limits = Limits {
        ping_interval: Some(300 * MS),
        pong_wait: 200 * MS,
        write_stall: Duration::from_secs(20),
        ..limits()
    };
    let mut still = Still::new(limits);
    let mut peer = still.upgraded();
    peer.stop_reading();
    peer.send_text("too much");
    still.run();
    still.run_for(Duration::from_secs(19));
    assert!(!still.timed_out(), "{:?}", still.log);
    still.run_for(Duration::from_secs(2));
    assert!(still.log.iter().any(|line| line.contains("WriteStall")), "{:?}", still.log);
}

#[test]
fn ping_behind_what_the_peer_takes_has_its_time_from_when_it_leaves() {
    let mut still = Still::new(Limits { ping_interval: Some(300 * MS), pong_wait: 500 * MS, ..limits() });
    let mut peer = still.upgraded();
    peer.take();
    peer.stop_reading();
    peer.send_text("much");
    let mut heard = 0;
    while heard < 100_000 {
        peer.read_at_most(2000);
        still.run_for(100 * MS);
        heard += peer.take().len();
        assert!(!still.timed_out(), "after {heard} bytes: {:?}", still.log);
    }
    peer.resume_reading();
    // The Ping was behind that. It is not answered.
    still.run_for(150 * MS);
    assert!(!still.timed_out(), "{:?}", still.log);
    still.run_for(600 * MS);
    assert!(still.log.iter().any(|line| line.contains("PongWait")), "{:?}", still.log);
}

#[test]
fn message_that_is_under_way_is_no_idleness() {
    // Coming, in one frame and in many.
    for fragmented in [false, true] {
        let mut still = Still::new(Limits { idle: Some(450 * MS), ..limits() });
        let mut peer = still.upgraded();
        let frames: Vec<u8> = match fragmented {
            false => lodger::sim::Frame::binary([7; 20]).masked([0; 4]),
            true => {
                let first = lodger::sim::Frame::binary([7]).unfinished().masked([0; 4]);
                let rest = (0..4).flat_map(|_| lodger::sim::Frame::new(0, [7]).unfinished().masked([0; 4]));
                first.into_iter().chain(rest).chain(lodger::sim::Frame::new(0, [7]).masked([0; 4])).collect()
            }
        };
        for byte in frames.chunks(7) {
            peer.send(byte);
            still.run_for(300 * MS);
        }
        assert!(still.log.iter().any(|line| line.starts_with("message of")), "{:?}", still.log);
        assert!(!still.log.iter().any(|line| line.starts_with("closed")), "{:?}", still.log);
    }
    // Going.
    let mut still = Still::new(Limits { idle: Some(450 * MS), ..limits() });
    let mut peer = still.upgraded();
    peer.take();
    peer.stop_reading();
    peer.send_text("much");
    let mut heard = 0;
    while heard < 100_000 {
        peer.read_at_most(8000);
        still.run_for(300 * MS);
        heard += peer.take().len();
        assert_eq!(still.log, ["message of 4"], "after {heard} bytes");
    }
}

fn connected_to(still: &mut Still, connect: impl FnOnce(Connect) -> Connect) -> lodger::sim::Server {
    let address: Peer = Peer::Inet(([127, 0, 0, 1], 99).into());
    let server = still.world.listen(&address).expect("nobody listens there");
    let connect = connect(Connect::to("http://127.0.0.1:99/").limits(limits()));
    still.context.io().connect_http(connect, ClientRequest::get(), Box::new(Talker));
    server
}

#[test]
fn client_hears_what_came_in_time() {
    // The response, and its content.
    let mut still = Still::new(limits());
    let mut server = connected_to(&mut still, |connect| connect);
    still.run();
    let mut peer = server.accept().expect("it connects");
    still.log.clear();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    still.stands_still();
    assert_eq!(still.log, ["status 200"]);
    peer.send("abcd");
    still.stands_still();
    assert_eq!(still.log, ["status 200", "complete"]);
}

#[test]
fn client_that_stood_still_while_it_connected_goes_on() {
    let mut still = Still::new(limits());
    let mut server = connected_to(&mut still, |connect| connect.timeout(Duration::from_secs(5)));
    still.stands_still();
    let mut peer = server.accept().expect("it connects");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    still.run();
    assert_eq!(still.log, ["connected", "status 200", "complete"]);
}

#[test]
fn name_that_was_answered_in_time_is_connected_to() {
    let mut still = Still::new(limits());
    let address: Peer = Peer::Inet(([127, 0, 0, 1], 99).into());
    let _server = still.world.listen(&address).expect("nobody listens there");
    still.world.names().set("example.test", [[127, 0, 0, 1].into()], 100 * MS);
    let connect = Connect::to("http://example.test:99/").timeout(Duration::from_secs(5));
    still.context.io().connect_http(connect, ClientRequest::get(), Box::new(Talker));
    still.run();
    still.stands_still();
    assert_eq!(still.log, ["connected"]);
}

#[test]
fn time_of_a_client_begins_with_the_hosts_first_turn() {
    let mut still = Still::new(limits());
    let mut server = connected_to(&mut still, |connect| connect.timeout(Duration::from_secs(5)));
    still.world.advance(LONG);
    still.run();
    assert_eq!(still.log, ["connected"]);
    let _peer = server.accept().expect("it connects");
}

#[test]
fn silent_server_is_given_up_though_the_loop_stood_still() {
    let mut still = Still::new(limits());
    let mut server = connected_to(&mut still, |connect| connect);
    still.run();
    let _peer = server.accept().expect("it connects");
    still.stands_still();
    assert!(still.timed_out(), "{:?}", still.log);
}

#[test]
fn handshake_that_moved_while_the_loop_stood_still_goes_on() {
    // Its beginning is served before the time is looked at, as a loop does that finds everything ready.
    let mut still = Still::new(limits());
    let mut peer = still.connect();
    peer.send("GET / HTTP/1.1\r\n");
    still.world.advance(LONG);
    still.run();
    assert_eq!(peer.take(), b"");
    peer.send("Host: localhost\r\n\r\n");
    still.run();
    assert_eq!(peer.next_answer().map(|answer| answer.status), Some(200));
}
