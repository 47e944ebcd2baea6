//! What an application is told about one connection, however its bytes are cut and however it pauses.

use super::dice::Dice;
use lodger::http::Fields;
use lodger::sim::{Chaos, Endpoint, Frame, World};
use lodger::ws::{CloseFrame, Message, Piece, Receive, TooLarge};
use lodger::{
    CloseReason, Closed, Context, Cx, Decision, Io, Limits, Listen, Request, Response, Site, http, raw, ws,
};
use std::time::Duration;

/// Events, with pieces of one thing put together.
#[derive(Default)]
struct Book {
    lines: Vec<String>,
    /// Where the message in pieces began that is under way.
    unfinished: Option<usize>,
    /// The handlers pause after events, by chance.
    pauses: Option<Dice>,
}

impl Book {
    fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Adds bytes to the line that begins like this.
    fn part(&mut self, name: &str, bytes: &[u8]) {
        if !self.lines.last().is_some_and(|line| line.starts_with(name)) {
            self.lines.push(name.to_owned());
        }
        let last = self.lines.last_mut().expect("just pushed");
        last.extend(bytes.iter().map(|byte| format!(" {byte:02x}")));
    }
}

fn perhaps_pause(cx: &mut Cx<'_, Book>) {
    let Some(dice) = &mut cx.data.pauses else { return };
    if !dice.chance(0.2) {
        return;
    }
    let delay = Duration::from_millis(dice.below(30) as u64);
    let id = cx.id();
    cx.conn().pause();
    cx.io.after(delay, move |_, io| {
        if let Some(mut conn) = io.conn(id) {
            conn.resume();
        }
    });
}

struct Listener {
    streamed: bool,
}

impl ws::Handler<Book> for Listener {
    fn receive(&self) -> Receive {
        if self.streamed { Receive::Pieces } else { Receive::Whole }
    }

    fn opened(&mut self, cx: &mut Cx<'_, Book>, request: &Request<'_>) {
        cx.data.line(format!("opened {}", request.target()));
        perhaps_pause(cx);
    }

    fn message(&mut self, cx: &mut Cx<'_, Book>, message: Message<'_>) {
        cx.data.line(format!("{message:02x?}"));
        let _ = cx.send(message);
        perhaps_pause(cx);
    }

    fn piece(&mut self, cx: &mut Cx<'_, Book>, piece: Piece<'_>) {
        if piece.first {
            cx.data.unfinished = Some(cx.data.lines.len());
            cx.data.line(format!("{:?}", piece.kind));
        }
        cx.data.part(&format!("{:?}", piece.kind), piece.payload);
        if piece.last {
            cx.data.line("complete".to_owned());
            cx.data.unfinished = None;
        }
        perhaps_pause(cx);
    }

    fn too_large(&mut self, cx: &mut Cx<'_, Book>, size: TooLarge) {
        let _ = size;
        cx.data.line("too large".to_owned());
    }

    fn ping(&mut self, cx: &mut Cx<'_, Book>, payload: &[u8]) {
        cx.data.line(format!("ping {payload:02x?}"));
        perhaps_pause(cx);
    }

    fn pong(&mut self, cx: &mut Cx<'_, Book>, payload: &[u8]) {
        cx.data.line(format!("pong {payload:02x?}"));
        perhaps_pause(cx);
    }

    fn peer_closed(&mut self, cx: &mut Cx<'_, Book>, close: Option<CloseFrame<'_>>) {
        cx.data.line(format!("{close:?}"));
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Book>, closed: Closed) {
        let broken = matches!(closed.reason, CloseReason::Protocol(_) | CloseReason::TooLarge);
        if let Some(begun) = cx.data.unfinished.take().filter(|_| broken) {
            // How much of a message is handed over before its mistake is found depends on how it is cut.
            let mut at = 0..;
            cx.data.lines.retain(|line| {
                at.next() < Some(begun) || !(line.starts_with("Text") || line.starts_with("Binary"))
            });
        }
        cx.data.line(format!("closed: {}", closed.reason));
    }
}

#[derive(Default)]
struct Reader(Vec<u8>);

impl http::Handler<Book> for Reader {
    fn request(&mut self, cx: &mut Cx<'_, Book>, request: &Request<'_>) {
        let fields: Vec<_> = request.fields().collect();
        cx.data.line(format!("{} {} {fields:?}", request.method(), request.target()));
        perhaps_pause(cx);
    }

    fn body(&mut self, cx: &mut Cx<'_, Book>, piece: &[u8]) {
        cx.data.part("body", piece);
        self.0.extend(piece);
        perhaps_pause(cx);
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, Book>, trailers: &Fields) {
        cx.data.line(format!("complete {trailers:?}"));
        let body = std::mem::take(&mut self.0);
        let _ = cx.respond(Response::bytes("a/b", body));
        perhaps_pause(cx);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Book>, closed: Closed) {
        cx.data.line(format!("closed: {}", closed.reason));
    }
}

struct Bytes;

impl raw::Handler<Book> for Bytes {
    fn received(&mut self, cx: &mut Cx<'_, Book>, bytes: &[u8]) {
        cx.data.part("bytes", bytes);
        let _ = cx.write(bytes);
        perhaps_pause(cx);
    }

    fn end(&mut self, cx: &mut Cx<'_, Book>) {
        cx.data.line("end".to_owned());
        cx.conn().finish();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Book>, closed: Closed) {
        cx.data.line(format!("closed: {}", closed.reason));
    }
}

fn decide(request: &Request<'_>, _: &mut Book, _: &mut Io<Book>) -> Decision<Book> {
    match request.is_websocket() {
        true => Decision::websocket(Listener { streamed: request.path() == "/streamed" }),
        false => Decision::http(Reader::default()),
    }
}

/// What a peer sends, all of it decided beforehand.
fn conversation(seed: u64) -> (bool, Vec<u8>) {
    let mut dice = Dice::new(seed);
    let mut bytes = Vec::new();
    let raw = dice.chance(0.2);
    if raw {
        let length = dice.length();
        return (true, dice.bytes(length));
    }
    for number in 0..dice.below(4) {
        let length = dice.length().min(3000);
        let body = dice.text(length);
        let head = format!("POST /{number} HTTP/1.1\r\nHost: localhost\r\n");
        if dice.chance(0.5) {
            bytes.extend(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).bytes());
        } else {
            bytes.extend(format!("{head}Transfer-Encoding: chunked\r\n\r\n").bytes());
            for chunk in body.as_bytes().chunks(1 + dice.below(900)) {
                bytes.extend(format!("{:x};ext=\"a\"\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\nX-Trailer: 1\r\n\r\n");
        }
    }
    if dice.chance(0.1) {
        bytes.extend(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n");
        return (false, bytes);
    }
    let path = dice.pick(&["/whole", "/streamed"]);
    bytes.extend(
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .bytes(),
    );
    for _ in 0..dice.below(20) {
        let key = (dice.next() as u32).to_le_bytes();
        let length = dice.length().min(8000);
        let frame = match dice.below(10) {
            0 => Frame::ping(dice.bytes(length.min(125))),
            1 => Frame::pong(dice.bytes(length.min(125))),
            2..6 => Frame::text(&dice.text(length)),
            6 | 7 => {
                let text = dice.text(length).into_bytes();
                let (first, last) = text.split_at(dice.below(text.len() + 1));
                bytes.extend(Frame::new(1, first).unfinished().masked(key));
                bytes.extend(Frame::ping("between").masked(key));
                Frame::new(0, last)
            }
            _ => Frame::binary(dice.bytes(length)),
        };
        bytes.extend(frame.masked(key));
    }
    match dice.below(8) {
        0 => bytes.extend(b"\x81\x01a"),
        1 => bytes.extend(Frame::new(1, [b'a', 0xff]).masked([0; 4])),
        2 => bytes.extend(Frame::new(2, vec![0; 70_000]).masked([0; 4])),
        3 => bytes.extend(Frame::text("unfinished").unfinished().masked([0; 4])),
        _ => bytes.extend(Frame::close(1000, "bye").masked([7; 4])),
    }
    (false, bytes)
}

/// What the application was told, and what the peer got.
pub(crate) fn transcript(seed: u64, chaos: Chaos, pauses: bool, limit: usize) -> (Vec<String>, Vec<u8>) {
    let (raw, bytes) = conversation(seed);
    let mut world = World::new(seed);
    let mut book = Book { pauses: pauses.then(|| Dice::new(!seed)), ..Book::default() };
    let mut context: Context<Book> = world.builder().build();
    let io = context.io();
    // Room for everything: of Pings that come while too much waits, only the last is answered.
    let (high, max) = (1 << 24, 1 << 24);
    let limits = Limits { message: limit, send_high_water: high, send_max: max, ..Limits::default() };
    let any = || Listen::tcp(([127, 0, 0, 1], 0));
    let listener = if raw {
        io.listen_raw(any(), limits, |_, _, _| Some(Box::new(Bytes)))
    } else {
        let site = io.add_site(Site::new().protocol("", decide).limits(limits)).unwrap();
        io.listen(any(), site)
    };
    let address = io.local_addr(listener.expect("it listens")).expect("it listens");
    world.chaos(chaos);
    let mut peer: Endpoint = world.connect(&address).expect("it listens");
    peer.send(&bytes);
    peer.finish();
    let mut got = Vec::new();
    // Where every byte comes alone and is followed by a pause, it takes long.
    while !peer.at_end() && world.elapsed() < Duration::from_secs(600) {
        world.run_for(&mut context, &mut book, Duration::from_millis(100));
        got.extend(peer.take());
    }
    assert!(peer.at_end(), "it goes on after {:.200?}", book.lines.last());
    assert!(!peer.was_reset(), "a reset after {:.200?}", book.lines.last());
    if book.lines.last().is_some_and(|line| line.ends_with("the peer ended the connection")) {
        // How much of the answers was out by then is chance.
        got.clear();
    }
    // Pausing takes time.
    for at in 0..got.len() {
        if got[at..].starts_with(b"\r\nDate: ") {
            got[at + 8..].iter_mut().take(29).for_each(|byte| *byte = b'-');
        }
    }
    world.leave(&mut context, &mut book);
    assert_eq!(world.network().open_descriptors(), 0);
    (book.lines, got)
}

/// Says where two runs differ, without all that they have in common.
pub(crate) fn assert_same(seed: u64, one: &(Vec<String>, Vec<u8>), other: &(Vec<String>, Vec<u8>)) {
    for (at, (line, expected)) in one.0.iter().zip(&other.0).enumerate() {
        assert!(line == expected, "seed {seed}, event {at}: {line:.200}, not {expected:.200}");
    }
    assert_eq!(one.0.len(), other.0.len(), "seed {seed}: {:.200?}", one.0.last().max(other.0.last()));
    let (got, expected) = (&one.1, &other.1);
    let at = got.iter().zip(expected).take_while(|(one, other)| one == other).count();
    let next = |bytes: &[u8]| bytes[at..].iter().take(40).copied().collect::<Vec<u8>>();
    let (rest, expected_rest) = (next(got), next(expected));
    assert!(
        rest.is_empty() && expected_rest.is_empty(),
        "seed {seed}: the peer got {rest:?} at byte {at}, not {expected_rest:?}"
    );
}
