//! Peers that are slow: what is answered holds back what is read, nothing is lost in silence, and nobody waits for ever.

#[path = "tls/authority.rs"]
#[allow(dead_code, reason = "the tests of TLS use all of it")]
mod authority;

use lodger::http::{self, Fields, ResponseHead};
use lodger::sim::{Chaos, Endpoint, Frame, World};
use lodger::ws::{self, Deflate, Message, MessageKind, Piece, Receive, Shared};
use lodger::{
    CloseReason, Closed, ConnId, Connect, Context, Cx, Decision, Flow, Io, Limits, Listen, Peer, Request,
    Response, SendError, Site, Timeout, raw,
};
use std::any::Any;
use std::sync::Mutex;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// How the link of a conn looks that is not read because its answers wait.
const HELD: &str = "room to write, before it reads on";

/// What handlers are lent.
#[derive(Default)]
struct State {
    conns: Vec<ConnId>,
    /// How many messages, or pieces of content, the server has got.
    received: usize,
    /// What clients have got.
    heard: Vec<Vec<u8>>,
    writable: usize,
    missed: usize,
    refused: usize,
    ends: Vec<Closed>,
}

type Act = Box<dyn FnMut(&mut Cx<'_, State>, What<'_>)>;

/// One event of a handler.
enum What<'a> {
    Opened,
    Message(Message<'a>),
    Piece(Piece<'a>),
    Bytes(&'a [u8]),
    Complete,
    Writable,
    Timer,
    Event,
    Missed,
}

/// A handler of any kind that does what the test says.
struct Script(Receive, Act);

impl Script {
    fn new(act: impl FnMut(&mut Cx<'_, State>, What<'_>) + 'static) -> Self {
        Self(Receive::Whole, Box::new(act))
    }

    /// Sends back what comes, and looks at nothing.
    fn echo() -> Self {
        Self::new(|cx, what| match what {
            What::Message(message) => drop(cx.send(message)),
            What::Piece(piece) => drop(cx.conn().send_piece(piece.kind, piece.payload, piece.last)),
            What::Bytes(bytes) => drop(cx.write(bytes)),
            _ => {}
        })
    }

    fn hear(&mut self, cx: &mut Cx<'_, State>, what: What<'_>) {
        match what {
            What::Opened => {
                let id = cx.id();
                cx.data.conns.push(id);
            }
            What::Message(_) | What::Piece(_) | What::Bytes(_) => cx.data.received += 1,
            What::Writable => cx.data.writable += 1,
            What::Missed => cx.data.missed += 1,
            What::Complete | What::Timer | What::Event => {}
        }
        (self.1)(cx, what);
    }
}

impl ws::Handler<State> for Script {
    fn receive(&self) -> Receive {
        self.0
    }

    fn opened(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        self.hear(cx, What::Opened);
    }

    fn connected(&mut self, cx: &mut Cx<'_, State>, _: &ResponseHead<'_>) -> bool {
        self.hear(cx, What::Opened);
        true
    }

    fn message(&mut self, cx: &mut Cx<'_, State>, message: Message<'_>) {
        self.hear(cx, What::Message(message));
    }

    fn piece(&mut self, cx: &mut Cx<'_, State>, piece: Piece<'_>) {
        self.hear(cx, What::Piece(piece));
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, What::Writable);
    }

    fn missed(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, What::Missed);
    }

    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, What::Timer);
    }

    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn Any>) {
        self.hear(cx, What::Event);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.ends.push(closed);
    }
}

impl raw::Handler<State> for Script {
    fn opened(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, What::Opened);
    }

    fn received(&mut self, cx: &mut Cx<'_, State>, bytes: &[u8]) {
        self.hear(cx, What::Bytes(bytes));
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.ends.push(closed);
    }
}

impl http::Handler<State> for Script {
    fn request(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        self.hear(cx, What::Opened);
    }

    fn body(&mut self, cx: &mut Cx<'_, State>, piece: &[u8]) {
        self.hear(cx, What::Bytes(piece));
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, State>, _: &Fields) {
        self.hear(cx, What::Complete);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.ends.push(closed);
    }
}

struct Town {
    world: World,
    context: Context<State>,
    state: State,
}

impl Town {
    fn new() -> Self {
        let mut world = World::new(1);
        world.chaos(Chaos { buffer: 64 * 1024, ..Chaos::NONE });
        let context = world.builder().build();
        Self { world, context, state: State::default() }
    }

    /// A town whose server runs a script for each WebSocket at port 80.
    fn websockets(limits: Limits, make: impl FnMut() -> Script + 'static) -> Self {
        let mut town = Self::new();
        town.serve(Site::new().limits(limits), make, |accept| accept);
        town
    }

    fn serve(
        &mut self,
        site: Site<State>,
        mut make: impl FnMut() -> Script + 'static,
        change: impl Fn(ws::Accept<State>) -> ws::Accept<State> + 'static,
    ) {
        let accept = move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
            Decision::WebSocket(change(ws::Accept::new(make())))
        };
        let site = self.context.io().add_site(site.protocol("", accept)).unwrap();
        self.context.io().listen(listen(80), site).unwrap();
    }

    fn run(&mut self) {
        self.world.run(&mut self.context, &mut self.state);
    }

    fn run_for(&mut self, time: Duration) {
        self.world.run_for(&mut self.context, &mut self.state, time);
    }

    fn connect(&mut self) -> Endpoint {
        self.world.connect(&at(80)).unwrap()
    }

    /// A peer whose WebSocket is open.
    fn open(&mut self) -> Endpoint {
        let mut peer = self.connect();
        peer.upgrade("/");
        self.run();
        assert!(peer.upgraded());
        peer
    }

    /// What the links of conns wait for.
    fn waits(&mut self) -> Vec<&'static str> {
        self.context.io().links().filter(|link| link.conn.is_some()).map(|link| link.waits_for).collect()
    }

    fn refused(&mut self) -> Vec<u64> {
        self.context.io().links().filter(|link| link.conn.is_some()).map(|link| link.refused).collect()
    }

    fn conn(&mut self) -> lodger::Conn<'_, State> {
        let id = self.state.conns[0];
        self.context.io().conn(id).unwrap()
    }

    fn leave(&mut self) {
        self.world.leave(&mut self.context, &mut self.state);
    }
}

fn at(port: u16) -> Peer {
    Peer::Inet(([127, 0, 0, 1], port).into())
}

fn listen(port: u16) -> Listen {
    Listen::tcp(([127, 0, 0, 1], port))
}

/// A payload that says which it is, and that does not become shorter by compression.
fn numbered(number: usize, length: usize) -> Vec<u8> {
    let mut state = number as u32;
    let mut bytes = (number as u32).to_be_bytes().to_vec();
    bytes.resize_with(length, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes
}

/// A client that sends `count` messages as there is room, reads none of the answers for a second, and then all.
fn pump(count: usize, length: usize) -> Box<Script> {
    let mut next = 0;
    Box::new(Script::new(move |cx, what| match what {
        What::Opened | What::Writable => {
            if next == 0 {
                cx.conn().pause();
                cx.conn().set_timer(SECOND);
            }
            while next < count {
                next += 1;
                if cx.send(&numbered(next - 1, length)[..]).unwrap() == Flow::Full {
                    cx.conn().request_writable();
                    break;
                }
            }
        }
        What::Timer => cx.conn().resume(),
        What::Message(message) => cx.data.heard.push(message.as_bytes().to_vec()),
        _ => {}
    }))
}

/// Accepts a client's opening handshake, and sends it a thousand messages, without reading what it answers.
fn flood(server: &mut Endpoint) {
    let head = String::from_utf8(server.take()).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = ws::handshake::accept_key(key.as_bytes());
    server.send(format!(
        "HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept.as_str()
    ));
    server.stop_reading();
    let mut frames = Vec::new();
    (0..1000).for_each(|number| ws::encode(&mut frames, Message::Binary(&numbered(number, 5000)), None));
    server.send(&frames);
}

// Answers hold back what is read.

#[test]
fn an_echo_that_looks_at_nothing_loses_nothing_whatever_lies_between() {
    let authority = authority::Authority::new();
    for (secure, deflate, pieces) in [
        (false, false, false),
        (false, false, true),
        (true, false, false),
        (false, true, false),
        (true, true, true),
    ] {
        for (count, length) in [(15_000, 120), (400, 5000), (30, 70_000)] {
            let what = format!("secure {secure}, deflate {deflate}, pieces {pieces}, {length} bytes");
            let mut town = Town::new();
            let mut site = Site::new();
            if deflate {
                site = site.deflate(Deflate::default());
            }
            if secure {
                site = site.tls(authority.server("localhost"));
            }
            let receive = if pieces { Receive::Pieces } else { Receive::Whole };
            let make = move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
                Decision::websocket(Script(receive, Script::echo().1))
            };
            let io = town.context.io();
            let site = io.add_site(site.protocol("", make)).unwrap();
            io.listen(if secure { listen(80).tls() } else { listen(80) }, site).unwrap();
            let scheme = if secure { "wss" } else { "ws" };
            let mut connect =
                Connect::to(format!("{scheme}://localhost:80/")).address(([127, 0, 0, 1], 80).into());
            connect = connect.tls(authority.client().build().unwrap());
            if deflate {
                connect = connect.deflate(Deflate::default());
            }
            io.connect(connect, pump(count, length));
            town.run_for(SECOND / 2);
            assert!(town.waits().contains(&HELD), "{what}: {:?}", town.waits());
            town.run_for(SECOND);
            let expected: Vec<_> = (0..count).map(|number| numbered(number, length)).collect();
            assert!(town.state.heard == expected, "{what}: {} have come back", town.state.heard.len());
            assert!(town.waits().iter().all(|waits| *waits == "messages"), "{what}");
            assert_eq!(town.refused(), [0, 0], "{what}");
            town.leave();
        }
    }
}

#[test]
fn an_echo_of_bytes_and_of_content_loses_nothing_either() {
    let bytes: Vec<u8> = (0..1000).flat_map(|number| numbered(number, 6000)).collect();
    for content in [false, true] {
        let mut town = Town::new();
        let io = town.context.io();
        if content {
            let accept = |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
                Decision::http(Script::new(|cx, what| match what {
                    What::Opened => {
                        cx.respond(Response::stream("text/plain").length(6_000_000)).unwrap();
                    }
                    What::Bytes(bytes) => drop(cx.write(bytes)),
                    _ => {}
                }))
            };
            let site = io.add_site(Site::new().protocol("", accept)).unwrap();
            io.listen(listen(80), site).unwrap();
        } else {
            let accept = |_: &Peer, _: &mut State, _: &mut Io<State>| {
                Some(Box::new(Script::echo()) as Box<dyn raw::Handler<_>>)
            };
            io.listen_raw(listen(80), Limits::default(), accept).unwrap();
        }
        let mut peer = town.connect();
        if content {
            peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6000000\r\n\r\n");
            town.run();
            assert_eq!(peer.next_head().unwrap().status, 200);
        }
        peer.stop_reading();
        peer.send(&bytes);
        town.run();
        assert!(town.waits().contains(&HELD), "{:?}", town.waits());
        assert!(peer.unsent() > 4_000_000, "all was read: {}", peer.unsent());
        peer.resume_reading();
        town.run();
        assert!(peer.take() == bytes, "content {content}");
        assert_eq!(town.state.ends.len(), usize::from(content));
        assert!(town.state.ends.iter().all(|closed| closed.refused == 0 && closed.unsent == 0));
        town.leave();
    }
}

#[test]
fn a_client_that_answers_loses_nothing() {
    let mut town = Town::new();
    let mut server = town.world.listen(&at(81)).unwrap();
    town.context.io().connect(Connect::to("ws://127.0.0.1:81/"), Box::new(Script::echo()));
    town.run();
    let mut server = server.accept().unwrap();
    flood(&mut server);
    town.run();
    assert_eq!(town.waits(), [HELD]);
    assert!(town.state.received < 100, "{} were read", town.state.received);
    server.resume_reading();
    town.run();
    assert_eq!((town.state.received, server.take().len()), (1000, 1000 * 5008));
    assert_eq!(town.refused(), [0]);
    town.leave();
}

#[test]
fn a_peer_that_never_reads_is_ended_by_the_write_stall_and_nothing_was_refused() {
    let mut town = Town::websockets(Limits::default(), Script::echo);
    let mut peer = town.open();
    peer.stop_reading();
    (0..1000).for_each(|_| peer.send_binary([7; 5000]));
    town.run_for(29 * SECOND);
    assert_eq!(town.waits(), [HELD]);
    town.run_for(2 * SECOND);
    let end = &town.state.ends[0];
    assert!(matches!(end.reason, CloseReason::TimedOut(Timeout::WriteStall)), "{end:?}");
    assert_eq!(end.refused, 0);
    assert!(end.unsent > 0 && town.state.received < 100);
    town.leave();
}

#[test]
fn two_ends_that_both_fill_their_output_do_not_stop_each_other() {
    const COUNT: usize = 1000;
    // Each sends of its own accord as much as there is room for, and acknowledges what comes in one short message each.
    fn script() -> Script {
        let (mut next, mut heard, mut acknowledged) = (0, 0, 0);
        Script::new(move |cx, what| match what {
            What::Opened | What::Writable => {
                while next < COUNT {
                    next += 1;
                    if cx.send(&numbered(next - 1, 4000)[..]).unwrap() == Flow::Full {
                        cx.conn().request_writable();
                        break;
                    }
                }
            }
            What::Message(Message::Binary(_)) => {
                heard += 1;
                cx.send("got it").unwrap();
            }
            What::Message(Message::Text(_)) => {
                acknowledged += 1;
                if (heard, acknowledged) == (COUNT, COUNT) {
                    cx.close();
                }
            }
            _ => {}
        })
    }
    for high_water in [4000, 64 * 1024] {
        let limits = Limits { send_high_water: high_water, ..Limits::default() };
        let mut town = Town::websockets(limits.clone(), script);
        let connect = Connect::to("ws://127.0.0.1:80/").limits(limits);
        town.context.io().connect(connect, Box::new(script()));
        town.run_for(SECOND);
        let waits = town.waits();
        assert_eq!(town.state.received, 4 * COUNT, "{high_water}: {waits:?}");
        assert_eq!(town.state.ends.len(), 2);
        assert!(town.state.ends.iter().all(|closed| (closed.refused, closed.unsent) == (0, 0)));
        town.leave();
    }
}

#[test]
fn what_is_sent_from_other_events_holds_nothing_back() {
    let fill = |cx: &mut Cx<'_, State>| while cx.send(&[7; 30_000][..]) == Ok(Flow::Ready) {};
    let mut town = Town::websockets(Limits::default(), move || {
        Script::new(move |cx, what| match what {
            What::Opened => {
                fill(cx);
                cx.conn().request_writable();
                cx.conn().set_timer(SECOND);
            }
            What::Writable | What::Timer | What::Event => fill(cx),
            _ => {}
        })
    });
    let mut peer = town.connect();
    peer.upgrade("/");
    peer.read_at_most(129);
    town.run();
    let id = town.state.conns[0];
    for wait in 0..3 {
        peer.send_text("one more");
        town.run_for(SECOND);
        assert_eq!((town.waits(), town.state.received), (vec!["room to write"], wait + 1));
        town.context.io().notify(id, Box::new(())).unwrap();
        let frame = town.context.io().encode(&[9; 10_000][..]);
        let protocol = town.conn().protocol().unwrap();
        assert_eq!(town.context.io().broadcast(protocol, &frame).sent, 1);
    }
    town.leave();
}

#[test]
fn a_broadcast_holds_back_nobody_not_even_whose_message_it_is() {
    let mut town = Town::websockets(Limits::default(), || {
        Script::new(|cx, what| {
            if let What::Message(message) = what {
                let frame = cx.io.encode(message);
                let protocol = cx.conn().protocol().unwrap();
                let told = cx.io.broadcast(protocol, &frame);
                cx.data.refused += told.missed;
            }
        })
    });
    let mut peer = town.open();
    peer.stop_reading();
    (0..400).for_each(|_| peer.send_binary([7; 5000]));
    town.run();
    assert_eq!((town.state.received, peer.unsent()), (400, 0));
    // The first that did not get it is told, and only once.
    let missed = town.state.refused;
    assert!(missed > 100, "{missed}");
    assert_eq!((town.state.missed, town.refused()), (1, vec![missed as u64]));
    town.leave();
}

#[test]
fn an_answer_is_taken_however_much_waits_that_is_none() {
    let mut town = Town::websockets(Limits::default(), Script::echo);
    let mut peer = town.open();
    peer.stop_reading();
    let protocol = town.conn().protocol().unwrap();
    let frame = Shared::new(Message::Binary(&[7; 100_000]));
    let mut taken = 0;
    while town.context.io().broadcast(protocol, &frame).sent == 1 {
        taken += 1;
        town.run();
    }
    (0..10).for_each(|_| peer.send_text("answer this"));
    town.run();
    assert_eq!((town.state.received, town.waits()), (1, vec![HELD]));
    assert_eq!(town.refused(), [1], "the broadcast alone");
    peer.resume_reading();
    town.run();
    assert_eq!(town.state.received, 10);
    for _ in 0..taken {
        assert_eq!(peer.next_frame().unwrap().payload.len(), 100_000);
    }
    for _ in 0..10 {
        assert_eq!(peer.next_frame(), Some(Frame::text("answer this")));
    }
    town.leave();
}

#[test]
fn a_conn_is_read_on_when_its_answers_are_out_though_broadcasts_wait_behind_them() {
    let mut town = Town::websockets(Limits::default(), Script::echo);
    let mut peer = town.open();
    peer.stop_reading();
    (0..100).for_each(|_| peer.send_binary([7; 5000]));
    town.run();
    assert_eq!(town.waits(), [HELD]);
    let protocol = town.conn().protocol().unwrap();
    let frame = Shared::new(Message::Binary(&[9; 5000]));
    (0..100).for_each(|_| assert_eq!(town.context.io().broadcast(protocol, &frame).sent, 1));
    let before = town.state.received;
    peer.read_at_most(150_000);
    town.run();
    assert!(town.state.received > before, "nothing more was read");
    assert!(town.conn().queued() > 400_000, "what waits is more than ever");
    town.leave();
}

#[test]
fn a_pause_outlives_a_hold_and_resume_ends_both() {
    let mut town = Town::websockets(Limits::default(), Script::echo);
    let mut peer = town.open();
    peer.stop_reading();
    (0..100).for_each(|_| peer.send_binary([7; 5000]));
    town.run();
    assert_eq!(town.waits(), [HELD]);
    let held_at = town.state.received;
    town.conn().pause();
    peer.resume_reading();
    town.run();
    assert_eq!((town.state.received, town.waits()), (held_at, vec!["resume"]));
    town.conn().resume();
    town.run();
    assert_eq!((town.state.received, town.waits()), (100, vec!["messages"]));

    peer.stop_reading();
    (0..100).for_each(|_| peer.send_binary([7; 5000]));
    town.run();
    let held_at = town.state.received;
    assert_eq!(town.waits(), [HELD]);
    // One more is answered before it finds the output full again.
    town.conn().resume();
    town.run();
    assert_eq!((town.state.received, town.waits()), (held_at + 1, vec![HELD]));
    peer.resume_reading();
    town.run();
    assert_eq!(town.state.received, 200);
    town.leave();
}

#[test]
fn a_handler_that_pauses_by_itself_works_as_ever() {
    let mut town = Town::websockets(Limits::default(), || {
        Script::new(|cx, what| match what {
            What::Message(message) => {
                let sent = cx.send(message).unwrap();
                if sent == Flow::Full {
                    cx.conn().pause();
                    cx.conn().request_writable();
                }
            }
            What::Writable => cx.conn().resume(),
            _ => {}
        })
    });
    let mut peer = town.open();
    peer.stop_reading();
    (0..1000).for_each(|_| peer.send_binary([7; 5000]));
    town.run();
    assert_eq!(town.state.writable, 0);
    peer.resume_reading();
    town.run();
    assert!(town.state.writable > 0);
    assert_eq!((town.state.received, town.waits()), (1000, vec!["messages"]));
    assert_eq!(peer.take().len(), 1000 * 5004);
    town.leave();
}

#[test]
fn the_timers_of_a_conn_that_is_held_stand_still() {
    let limits = Limits {
        idle: Some(3 * SECOND),
        ping_interval: Some(SECOND),
        pong_wait: SECOND,
        write_stall: 60 * SECOND,
        ..Limits::default()
    };
    let mut town = Town::websockets(limits, Script::echo);
    let mut peer = town.open();
    peer.stop_reading();
    (0..1000).for_each(|_| peer.send_binary([7; 5000]));
    town.run_for(50 * SECOND);
    assert_eq!((town.waits(), town.state.ends.len()), (vec![HELD], 0));
    peer.resume_reading();
    town.run();
    assert_eq!(town.state.received, 1000);
    town.run_for(5 * SECOND);
    assert_eq!(town.state.ends.len(), 1, "they run again");
    town.leave();
}

#[test]
fn what_was_read_is_heard_when_the_peer_of_a_held_conn_has_gone() {
    let limits = Limits { send_high_water: 16_000, ..Limits::default() };
    let mut town = Town::websockets(limits, || {
        Script::new(|cx, what| match what {
            What::Event => while cx.send(&[7; 30_000][..]) == Ok(Flow::Ready) {},
            What::Message(message) => drop(cx.send(message)),
            _ => {}
        })
    });
    let mut peer = town.open();
    peer.stop_reading();
    let id = town.state.conns[0];
    town.context.io().notify(id, Box::new(())).unwrap();
    town.run();
    // All of it comes with one read.
    (0..10).for_each(|_| peer.send_binary([7; 4000]));
    (0..20).for_each(|_| peer.send_text("short"));
    town.run();
    assert_eq!((town.waits(), peer.unsent()), (vec![HELD], 0));
    assert!(town.state.received < 10, "{} were heard", town.state.received);
    peer.reset();
    town.run();
    assert_eq!(town.state.received, 30);
    assert!(matches!(town.state.ends[0].reason, CloseReason::Io(_)), "{:?}", town.state.ends);
    town.leave();
}

#[test]
fn a_link_that_was_held_is_read_in_large_pieces_again_once_all_has_gone_out() {
    let mut town = Town::new();
    town.world.chaos(Chaos { buffer: 1024 * 1024, ..Chaos::NONE });
    let accept = |_: &Peer, _: &mut State, _: &mut Io<State>| {
        Some(Box::new(Script::new(|cx, what| {
            if let What::Bytes(bytes) = what {
                cx.data.heard.push(bytes.to_vec());
                let _ = cx.write(bytes);
            }
        })) as Box<dyn raw::Handler<_>>)
    };
    town.context.io().listen_raw(listen(80), Limits::default(), accept).unwrap();
    let mut peer = town.connect();
    peer.stop_reading();
    peer.send(vec![7; 4_000_000]);
    town.run();
    assert_eq!(town.waits(), [HELD]);
    peer.resume_reading();
    town.run();
    town.state.heard.clear();
    peer.send(vec![7; 500_000]);
    town.run();
    let longest = town.state.heard.iter().map(Vec::len).max().unwrap();
    assert!(longest > 64 * 1024, "{longest}");
    town.leave();
}

#[test]
fn however_small_the_limits_are_an_echo_loses_nothing() {
    for (send_high_water, send_max) in
        [(0, 0), (0, 1000), (1, 1), (64 * 1024, 10), (10, 64 * 1024), (1000, 1000)]
    {
        let limits = Limits { send_high_water, send_max, ..Limits::default() };
        let mut town = Town::websockets(limits, Script::echo);
        let mut peer = town.open();
        peer.stop_reading();
        (0..500).for_each(|number| peer.send_binary(numbered(number, 1000)));
        town.run();
        assert_eq!(town.waits(), [HELD], "{send_high_water} {send_max}");
        peer.resume_reading();
        town.run();
        for number in 0..500 {
            assert_eq!(peer.next_frame(), Some(Frame::binary(numbered(number, 1000))));
        }
        assert_eq!(town.refused(), [0], "{send_high_water} {send_max}");
        town.leave();
    }
}

// Who asks for more gets more.

#[test]
fn who_wants_to_be_read_when_full_is_and_what_is_refused_is_counted() {
    for how in ["accept", "conn", "while held"] {
        let mut town = Town::new();
        let make = move || {
            Script::new(move |cx, what| match what {
                What::Opened if how == "conn" => cx.conn().read_when_full(true),
                What::Message(message) => {
                    let sent = cx.send(message);
                    cx.data.refused += usize::from(sent == Err(SendError::Overrun));
                }
                _ => {}
            })
        };
        town.serve(Site::new(), make, move |accept| accept.read_when_full(how == "accept"));
        let mut peer = town.open();
        peer.stop_reading();
        (0..1000).for_each(|_| peer.send_binary([7; 5000]));
        town.run();
        if how == "while held" {
            assert_eq!(town.waits(), [HELD]);
            town.conn().read_when_full(true);
            town.run();
        }
        assert_eq!((town.state.received, town.waits()), (1000, vec!["room to write"]), "{how}");
        let refused = town.state.refused as u64;
        assert!(refused > 500, "{how}: {refused}");
        assert_eq!(town.refused(), [refused], "{how}");
        town.conn().abort();
        town.run();
        assert_eq!(town.state.ends[0].refused, refused, "{how}");
        // From here on it is held again.
        let mut peer = town.open();
        let id = *town.state.conns.last().unwrap();
        town.context.io().conn(id).unwrap().read_when_full(false);
        peer.stop_reading();
        (0..1000).for_each(|_| peer.send_binary([7; 5000]));
        town.run();
        assert_eq!(town.waits(), [HELD], "{how}");
        town.leave();
    }
}

#[test]
fn a_client_that_wants_to_be_read_when_full_is() {
    let mut town = Town::new();
    let mut server = town.world.listen(&at(81)).unwrap();
    let connect = Connect::to("ws://127.0.0.1:81/").read_when_full(true);
    town.context.io().connect(connect, Box::new(Script::echo()));
    town.run();
    let mut server = server.accept().unwrap();
    flood(&mut server);
    town.run();
    assert_eq!(town.state.received, 1000);
    assert!(town.refused()[0] > 500);
    town.leave();
}

// What is refused is counted, and told.

/// What was logged at `lodger::flow`.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target() == "lodger::flow" {
            LOGGED.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

#[test]
fn every_refused_send_is_counted_and_the_first_of_a_conn_is_in_the_log() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let limits = Limits { send_high_water: 1000, send_max: 5000, ..Limits::default() };
    let mut town = Town::websockets(limits, || {
        Script::new(|cx, what| {
            if let What::Event = what {
                while cx.send(&[0; 100_000][..]).is_ok() {}
                let shared = cx.io.encode("x");
                let mut conn = cx.conn();
                assert_eq!(conn.ping(b""), Err(SendError::Overrun));
                assert_eq!(conn.pong(b""), Err(SendError::Overrun));
                assert_eq!(conn.send_piece(MessageKind::Text, b"x", true), Err(SendError::Overrun));
                assert_eq!(conn.send_shared(&shared), Err(SendError::Overrun));
                assert_eq!(conn.send_uncompressed("x"), Err(SendError::Overrun));
                assert_eq!(conn.send("x"), Err(SendError::Overrun));
            }
        })
    });
    let mut peers = [town.open(), town.open()];
    peers.iter_mut().for_each(Endpoint::stop_reading);
    for id in town.state.conns.clone() {
        town.context.io().notify(id, Box::new(())).unwrap();
    }
    town.run();
    assert_eq!(town.refused(), [7, 7]);
    let logged = std::mem::take(&mut *LOGGED.lock().unwrap());
    assert_eq!(logged.len(), 2, "{logged:?}");
    assert!(logged.iter().all(|line| line.starts_with("WARN ") && line.contains("127.0.0.1")), "{logged:?}");
    town.leave();
    assert!(town.state.ends.iter().all(|closed| closed.refused == 7));
}

#[test]
fn bytes_and_content_that_are_refused_are_counted_too() {
    let fill = |cx: &mut Cx<'_, State>| while cx.write(&[0; 100_000]).is_ok() {};
    let mut town = Town::new();
    let accept = move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
        Decision::http(Script::new(move |cx, what| {
            if let What::Opened = what {
                let _ = cx.respond(Response::stream("text/plain"));
                fill(cx);
            }
        }))
    };
    let io = town.context.io();
    let site = io.add_site(Site::new().protocol("", accept)).unwrap();
    io.listen(listen(80), site).unwrap();
    let accept = move |_: &Peer, _: &mut State, _: &mut Io<State>| {
        Some(Box::new(Script::new(move |cx, what| {
            if let What::Opened = what {
                fill(cx);
            }
        })) as Box<dyn raw::Handler<_>>)
    };
    io.listen_raw(listen(82), Limits::default(), accept).unwrap();
    let mut http = town.connect();
    http.stop_reading();
    http.get("/");
    let mut raw = town.world.connect(&at(82)).unwrap();
    raw.stop_reading();
    town.run();
    assert_eq!(town.refused(), [1, 1]);
    town.leave();
}

#[test]
fn a_conn_that_a_broadcast_leaves_out_is_told_once_until_it_has_room() {
    for remote in [false, true] {
        let mut town = Town::websockets(Limits::default(), || Script::new(|_, _| {}));
        let (mut slow, mut quick) = (town.open(), town.open());
        slow.stop_reading();
        let protocol = town.conn().protocol().unwrap();
        let frame = Shared::new(Message::Binary(&[7; 300_000]));
        let mut told = |town: &mut Town| {
            if remote {
                town.context.remote().unwrap().broadcast(protocol, frame.clone()).unwrap();
            } else {
                let told = town.context.io().broadcast(protocol, &frame);
                assert_eq!(told.sent + told.missed, 2);
            }
            town.run();
            assert_eq!(quick.next_frame().unwrap().payload.len(), 300_000);
            town.state.missed
        };
        let mut taken = 0;
        while told(&mut town) == 0 {
            taken += 1;
        }
        assert_eq!((told(&mut town), told(&mut town)), (1, 1), "once");
        assert_eq!(town.refused(), [3, 0]);
        slow.resume_reading();
        town.run();
        for _ in 0..taken {
            assert_eq!(slow.next_frame().unwrap().payload.len(), 300_000);
        }
        assert_eq!(told(&mut town), 1, "it has room");
        assert_eq!(slow.next_frame().unwrap().payload.len(), 300_000);
        slow.stop_reading();
        while told(&mut town) == 1 {}
        assert_eq!(told(&mut town), 2, "once more");
        town.leave();
    }
}

#[test]
fn a_slow_viewer_can_be_dropped_when_it_is_told_and_the_others_go_on() {
    let mut town = Town::websockets(Limits::default(), || {
        Script::new(|cx, what| {
            if let What::Missed = what {
                cx.conn().abort();
            }
        })
    });
    let (mut slow, mut quick) = (town.open(), town.open());
    slow.stop_reading();
    let protocol = town.conn().protocol().unwrap();
    let frame = Shared::new(Message::Binary(&[7; 300_000]));
    for _ in 0..20 {
        let _ = town.context.io().broadcast(protocol, &frame);
        town.run();
        assert_eq!(quick.next_frame().unwrap().payload.len(), 300_000);
    }
    assert_eq!((town.state.missed, town.state.ends.len()), (1, 1));
    assert!(matches!(town.state.ends[0].reason, CloseReason::Aborted));
    assert_eq!(town.state.ends[0].refused, 1);
    town.leave();
}
