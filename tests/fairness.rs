//! What one honest peer has of a server beside a hundred that send as much as they can: counted in turns and in work, in the
//! simulated world.

use lodger::sim::{Chaos, Endpoint, Frame, World};
use lodger::{
    ConnId, Context, Cx, Decision, Io, Limits, Listen, Peer, Protocol, Request, Response, Site, http, raw, ws,
};
use std::time::Duration;

const FLOODS: usize = 100;
/// What is done for busy links in one turn, in messages: 512 for each of those that are ready, and 16 Ki for all that have
/// something left of earlier turns (`docs/design.md`, section 6).
const PER_TURN: usize = FLOODS * 512 + 16 * 1024;
/// What is read from each.
const BYTES: usize = 64 * 1024;
/// What a connection holds that waits to be read: more than is read at once.
const BUFFER: usize = 2 * BYTES;
/// The honest peer's message is answered within so many turns: it comes, it is read, the answer goes.
const TURNS: usize = 3;
/// How many turns are looked at.
const LONG: usize = 6;

/// What handlers have heard in this turn.
#[derive(Default)]
struct Heard {
    events: usize,
    bytes: usize,
    timers: usize,
    honest: Option<ConnId>,
}

/// Counts; sends back what is one byte long.
struct Counting(ws::Receive);

impl ws::Handler<Heard> for Counting {
    fn receive(&self) -> ws::Receive {
        self.0
    }

    fn opened(&mut self, cx: &mut Cx<'_, Heard>, request: &Request<'_>) {
        if request.path() == "/honest" {
            cx.data.honest = Some(cx.id());
        }
    }

    fn message(&mut self, cx: &mut Cx<'_, Heard>, message: ws::Message<'_>) {
        if message.as_bytes() == b"honest" {
            cx.send("answer").expect("there is room");
        } else {
            cx.data.events += 1;
            cx.data.bytes += message.as_bytes().len();
        }
    }

    fn piece(&mut self, cx: &mut Cx<'_, Heard>, piece: ws::Piece<'_>) {
        cx.data.events += 1;
        cx.data.bytes += piece.payload.len();
    }

    fn ping(&mut self, cx: &mut Cx<'_, Heard>, _: &[u8]) {
        cx.data.events += 1;
    }

    fn pong(&mut self, cx: &mut Cx<'_, Heard>, _: &[u8]) {
        cx.data.events += 1;
    }

    fn timer(&mut self, cx: &mut Cx<'_, Heard>) {
        cx.data.timers += 1;
    }
}

impl http::Handler<Heard> for Counting {
    fn body(&mut self, cx: &mut Cx<'_, Heard>, piece: &[u8]) {
        cx.data.events += 1;
        cx.data.bytes += piece.len();
    }
}

impl raw::Handler<Heard> for Counting {
    fn received(&mut self, cx: &mut Cx<'_, Heard>, bytes: &[u8]) {
        cx.data.bytes += bytes.len();
    }
}

struct Any;

impl Protocol<Heard> for Any {
    fn accept(&mut self, request: &Request<'_>, data: &mut Heard, _: &mut Io<Heard>) -> Decision<Heard> {
        match request.path() {
            "/upload" => Decision::http(Counting(ws::Receive::Whole)),
            "/pieces" => Decision::websocket(Counting(ws::Receive::Pieces)),
            _ if request.is_websocket() => Decision::websocket(Counting(ws::Receive::Whole)),
            _ => {
                data.events += 1;
                Decision::respond(Response::text("x"))
            }
        }
    }
}

/// A server, the honest peer, and those that flood with `block` once they have said `first`.
struct Town {
    world: World,
    context: Context<Heard>,
    heard: Heard,
    honest: Endpoint,
    floods: Vec<Endpoint>,
    buffer: usize,
    block: Vec<u8>,
}

impl Town {
    fn new(raw: bool, first: impl Fn(&mut Endpoint), block: Vec<u8>) -> Self {
        Self::of(FLOODS, BUFFER, raw, first, block)
    }

    fn of(floods: usize, buffer: usize, raw: bool, first: impl Fn(&mut Endpoint), block: Vec<u8>) -> Self {
        let mut world = World::new(12);
        world.chaos(Chaos { buffer, ..Chaos::NONE });
        let mut context: Context<Heard> = world.builder().build();
        let mut heard = Heard::default();
        let io = context.io();
        let site = io.add_site(Site::new().protocol("", Any)).expect("it has a protocol");
        let listener = io.listen(Listen::tcp(([127, 0, 0, 1], 0)), site).expect("a port is free");
        let address = io.local_addr(listener).expect("it listens");
        let accept = |_: &Peer, _: &mut Heard, _: &mut Io<Heard>| {
            Some(Box::new(Counting(ws::Receive::Whole)) as Box<dyn raw::Handler<Heard>>)
        };
        let listener = io.listen_raw(Listen::tcp(([127, 0, 0, 1], 0)), Limits::default(), accept);
        let for_raw = io.local_addr(listener.expect("a port is free")).expect("it listens");
        let mut honest = world.connect(&address).expect("it listens");
        honest.upgrade("/honest");
        let mut all = Vec::new();
        for _ in 0..floods {
            let mut flood = world.connect(if raw { &for_raw } else { &address }).expect("it listens");
            first(&mut flood);
            all.push(flood);
        }
        world.run(&mut context, &mut heard);
        assert!(honest.upgraded());
        for flood in &mut all {
            flood.take();
        }
        // Long enough that few of them keep a connection full.
        let block = block.repeat((buffer / 2).div_ceil(block.len()));
        Self { world, context, heard, honest, floods: all, buffer, block }
    }

    fn websocket(target: &str, block: Vec<u8>) -> Self {
        Self::new(false, |flood| flood.upgrade(target), block)
    }

    /// One turn, before which all have more to send than can be taken.
    fn turn(&mut self) {
        for flood in &mut self.floods {
            while flood.unsent() < self.buffer {
                flood.send(&self.block);
            }
            flood.take();
        }
        (self.heard.events, self.heard.bytes) = (0, 0);
        self.world.turn(&mut self.context, &mut self.heard);
    }

    /// Bytes that were read of all connections.
    fn received(&mut self) -> usize {
        self.context.io().links().map(|link| link.received as usize).sum()
    }

    /// `weight` is how much an event counts, in messages.
    #[track_caller]
    fn serves_fairly(mut self, weight: usize) {
        let mut waited = None;
        let (mut events, mut bytes) = (0, 0);
        for turn in 0..LONG {
            if waited.is_none() {
                self.honest.send_text("honest");
                waited = Some(turn);
            }
            let before = self.received();
            self.turn();
            // The first turn does not know yet how many there are, and finds out as it goes.
            let most = if turn == 0 { 3 } else { 1 };
            let done = weight * self.heard.events;
            assert!(done <= most * PER_TURN, "{done} in turn {turn}, of {} events", self.heard.events);
            let read = self.received() - before;
            assert!(read <= most * FLOODS * BYTES + BYTES, "{read} bytes in turn {turn}");
            (events, bytes) = (events + self.heard.events, bytes + read);
            if let Some(frame) = self.honest.next_frame() {
                assert_eq!(frame, Frame::text("answer"));
                let turns = turn + 1 - waited.take().expect("it has sent");
                assert!(turns <= TURNS, "answered in the {turns}th turn");
            }
        }
        assert!(waited.is_none_or(|since| since + TURNS >= LONG), "not answered since turn {waited:?}");
        assert!(events > 0 || bytes > 0, "the others are served, too");
        self.world.leave(&mut self.context, &mut self.heard);
    }
}

/// A frame of WebSocket as clients send it, with these first bits.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
        longest => {
            frame.push(0x80 | 127);
            frame.extend((longest as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A message in fragments of so many bytes: as many as make up `fragments`.
fn fragmented(fragments: usize, size: usize) -> Vec<u8> {
    let middle = frame(0, &vec![b'f'; size]).repeat(fragments - 2);
    [frame(2, &vec![b'f'; size]), middle, frame(0x80, &vec![b'f'; size])].concat()
}

#[test]
fn an_honest_peer_waits_no_longer_beside_fragments_of_a_byte() {
    // Messages of ten fragments: they say how many fragments there were.
    Town::websocket("/", fragmented(10, 1)).serves_fairly(10);
}

#[test]
fn an_honest_peer_waits_no_longer_beside_empty_fragments() {
    Town::websocket("/", fragmented(10, 0)).serves_fairly(10);
}

#[test]
fn an_honest_peer_waits_no_longer_beside_fragments_that_are_handed_over_as_they_come() {
    Town::websocket("/pieces", fragmented(10, 1)).serves_fairly(1);
}

#[test]
fn an_honest_peer_waits_no_longer_beside_empty_fragments_that_are_handed_over_as_they_come() {
    // The first and the last of ten are handed over.
    Town::websocket("/pieces", fragmented(10, 0)).serves_fairly(5);
}

#[test]
fn an_honest_peer_waits_no_longer_beside_messages_of_any_size() {
    for size in [0, 1, 1016, 16 * 1024, 200 * 1024] {
        Town::websocket("/", frame(0x82, &vec![b'm'; size])).serves_fairly(1);
    }
}

#[test]
fn an_honest_peer_waits_no_longer_beside_large_messages_that_are_handed_over_as_they_come() {
    Town::websocket("/pieces", frame(0x82, &vec![b'm'; 1024 * 1024])).serves_fairly(1);
}

#[test]
fn an_honest_peer_waits_no_longer_beside_pings_and_pongs() {
    Town::websocket("/", frame(0x89, b"")).serves_fairly(1);
    Town::websocket("/", frame(0x8a, b"")).serves_fairly(1);
}

#[test]
fn an_honest_peer_waits_no_longer_beside_pipelined_requests() {
    let first = |flood: &mut Endpoint| flood.get("/");
    Town::new(false, first, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100)).serves_fairly(16);
}

#[test]
fn an_honest_peer_waits_no_longer_beside_chunks_of_a_byte() {
    let head = "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let first = |flood: &mut Endpoint| flood.send(head);
    Town::new(false, first, b"1\r\nx\r\n".repeat(1000)).serves_fairly(1);
}

#[test]
fn an_honest_peer_waits_no_longer_beside_raw_bytes() {
    Town::new(true, |_| {}, vec![b'r'; 100_000]).serves_fairly(1);
}

#[test]
fn what_is_read_of_busy_links_and_waits_is_bounded() {
    let mut town = Town::websocket("/", frame(0x82, b"m").repeat(1000));
    for _ in 0..10 {
        town.turn();
        let kept = town.received() / FLOODS;
        // Those that are served before it is known how many there are have more.
        assert!(kept < 2 * BYTES, "{kept} bytes read of each");
    }
}

#[test]
fn timers_are_told_while_a_hundred_links_have_something_left() {
    let mut town = Town::websocket("/", frame(0x82, b"m").repeat(1000));
    for _ in 0..5 {
        town.turn();
    }
    let honest = town.heard.honest.expect("it is open");
    town.context.io().conn(honest).expect("it is open").set_timer(Duration::from_millis(1));
    town.world.advance(Duration::from_millis(2));
    for _ in 0..TURNS {
        town.turn();
    }
    assert_eq!(town.heard.timers, 1);
}

#[test]
fn a_link_gets_all_again_once_the_others_are_quiet() {
    const FEW: usize = 20;
    let mut town = Town::of(FEW, 600 * 1024, true, |_| {}, vec![b'r'; 100_000]);
    for _ in 0..5 {
        town.turn();
    }
    assert!(town.heard.bytes <= 4 * 1024 * 1024);
    // What the others have sent is still read.
    town.floods.truncate(1);
    for _ in 0..40 {
        town.turn();
    }
    assert_eq!(town.heard.bytes, 512 * 1024);
}
