//! What lodger brings into the house: a page at `/`, and its WebSockets at `/live`.
//!
//! Text messages go to the browsers: the table, the lines, and where lines can be sent. Binary messages go both ways:
//! strokes on the whiteboard, sent on to every browser by one broadcast.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use lodger::http::StatusCode;
use lodger::ws::{self, CloseCode, Message};
use lodger::{
    Cx, Decision, Host, Interest, Io, Limits, Listen, Peer, Protocol, ProtocolId, Request, Response, Site,
    tls,
};

use crate::array::{Array, What};
use crate::house::{House, Line};

/// The contract with the array: three methods, each a line.
impl Host for Array {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.add(fd.as_raw_fd(), interest.poll_events(), What::Lodger, "");
        Ok(())
    }

    fn change(&mut self, fd: BorrowedFd<'_>, _previous: Interest, interest: Interest) -> io::Result<()> {
        let at = self.find(fd.as_raw_fd()).ok_or(io::ErrorKind::NotFound)?;
        self.fds[at].events = interest.poll_events();
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        if let Some(at) = self.find(fd.as_raw_fd()) {
            self.remove(at);
        }
    }
}

/// What the handlers keep in the server's state.
#[derive(Default)]
pub(crate) struct Lodging {
    /// The protocol that all browsers speak.
    live: Option<ProtocolId>,
    board: Board,
    /// The number of the last line that the browsers know.
    shown_line: u64,
    /// The tick at which they got the last table.
    shown_tick: Option<u64>,
}

/// Listens at `address`, over TLS if there is a certificate; answers where that is.
pub(crate) fn open(
    io: &mut Io<House>,
    address: SocketAddr,
    tls: Option<tls::Server>,
) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    let limits =
        Limits { message: STROKE_MAX, ping_interval: Some(Duration::from_secs(20)), ..Limits::default() };
    let mut site = Site::new().protocol("", Live).limits(limits);
    if address.ip().is_loopback() {
        // A name on the internet that suddenly resolves to this machine is none of ours.
        let numeric = address.to_string();
        site = site.hosts(["localhost", numeric.rsplit_once(':').map_or("", |(host, _port)| host)]);
    }
    let mut listen = Listen::tcp(address);
    if let Some(tls) = tls {
        site = site.tls(tls);
        listen = listen.tls();
    }
    let site = io.add_site(site)?;
    let listener = io.listen(listen, site)?;
    match io.local_addr(listener) {
        Some(Peer::Inet(address)) => Ok(address),
        _ => Err("no address".into()),
    }
}

/// The page, and the protocol that it speaks. Pages from elsewhere are refused: that is a site's default.
struct Live;

impl Protocol<House> for Live {
    fn started(&mut self, id: ProtocolId, house: &mut House, _io: &mut Io<House>) {
        house.lodging.live = Some(id);
    }

    fn accept(&mut self, request: &Request<'_>, _house: &mut House, _io: &mut Io<House>) -> Decision<House> {
        match (request.is_websocket(), request.path()) {
            (true, "/live") => Decision::websocket(Browser),
            (false, "/") => Decision::respond(Response::html(include_str!("page.html"))),
            _ => Decision::respond(Response::text("Nothing here.\n").status(StatusCode::NOT_FOUND)),
        }
    }
}

/// One browser's WebSocket.
struct Browser;

impl ws::Handler<House> for Browser {
    fn opened(&mut self, cx: &mut Cx<'_, House>, _request: &Request<'_>) {
        let id = cx.id();
        let Some(mut browser) = cx.io.conn(id) else { return };
        let mut sent = browser.send(Message::Text(&hello(cx.data)));
        for known in cx.data.lines.iter().filter(|line| line.number <= cx.data.lodging.shown_line) {
            sent = sent.and(browser.send(Message::Text(&line(known))));
        }
        sent = sent.and(browser.send(Message::Binary(&cx.data.lodging.board.strokes)));
        if sent.is_err() {
            // More than may wait for one browser. It comes again, when there may be less.
            browser.abort();
        }
        cx.data.lodging.shown_tick = None;
    }

    /// A slow viewer is dropped: what it shows would lack a stroke or a line for ever, and when it comes again it gets
    /// everything. A reset, since the closing handshake would wait behind all that it does not take.
    fn missed(&mut self, cx: &mut Cx<'_, House>) {
        cx.conn().abort();
    }

    fn message(&mut self, cx: &mut Cx<'_, House>, message: Message<'_>) {
        match (message, cx.data.lodging.live) {
            (Message::Binary(stroke), Some(live)) if cx.data.lodging.board.add(stroke) => {
                let frame = cx.io.encode(Message::Binary(stroke));
                let _ = cx.io.broadcast(live, &frame); // `missed` tells whom it left out
            }
            _ => cx.conn().close_with(CloseCode::POLICY, "not a stroke"),
        }
    }
}

/// Shows the browsers what happened in this turn: new lines at once, the table once a tick and to newcomers.
pub(crate) fn show(house: &mut House, array: &Array, io: &mut Io<House>) {
    let Some(live) = house.lodging.live else { return };
    for new in house.lines.iter().filter(|line| line.number > house.lodging.shown_line) {
        let frame = io.encode(Message::Text(&line(new)));
        let _ = io.broadcast(live, &frame);
    }
    house.lodging.shown_line = house.lines.back().map_or(0, |line| line.number);

    if house.lodging.shown_tick != Some(house.ticks) && io.conns_of(live).next().is_some() {
        let table = table(house, array, io);
        let frame = io.encode(Message::Text(&table));
        let _ = io.broadcast(live, &frame);
        house.lodging.shown_tick = Some(house.ticks);
    }
}

/// The array as it is. Of lodger's own entries, lodger itself says what they are.
fn table(house: &House, array: &Array, io: &mut Io<House>) -> String {
    let links = io.links().map(|link| (link.fd, link)).collect::<HashMap<_, _>>();
    let mut rows = Vec::new();
    for (pollfd, entry) in array.fds.iter().zip(&array.entries).filter(|(pollfd, _)| pollfd.fd >= 0) {
        let mut row = match entry.what {
            What::Signals => "signals",
            What::Tick => "tick",
            What::Lines => "lines",
            What::LineListener => "line listener",
            What::LineClient => "line client",
            What::Lodger => "leaving",
        };
        let (mut note, mut bytes) = (entry.note.clone(), (entry.bytes_in, entry.bytes_out));
        if let Some(link) = links.get(&pollfd.fd) {
            row = link.role;
            note = link.peer.map_or(String::new(), |peer| peer.to_string());
            bytes = (link.received, link.sent);
            if link.role == "listener" {
                // It takes connections, not bytes.
                note = format!("{} accepted", link.received);
                bytes = (0, 0);
            }
        }
        rows.push(format!(
            r#"{{"fd":{},"owner":"{}","role":{},"note":{},"events":{},"wakeups":{},"in":{},"out":{}}}"#,
            pollfd.fd,
            if entry.what == What::Lodger { "lodger" } else { "server" },
            json(row),
            json(&note),
            pollfd.events,
            entry.wakeups,
            bytes.0,
            bytes.1,
        ));
    }
    format!(r#"{{"table":{{"turns":{},"rows":[{}]}}}}"#, house.turns, rows.join(","))
}

fn line(line: &Line) -> String {
    format!(r#"{{"line":{{"n":{},"from":{},"text":{}}}}}"#, line.number, json(line.from), json(&line.text))
}

fn hello(house: &House) -> String {
    let fifo = house.fifo().map_or("null".to_owned(), |path| json(&path.to_string_lossy()));
    format!(r#"{{"house":{{"lines":"{}","fifo":{fifo}}}}}"#, house.lines_address())
}

/// `text` as a JSON string.
fn json(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => {
                write!(quoted, "\\u{:04x}", control as u32).expect("a string takes all")
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// What is on the whiteboard, as it travels: strokes one after another, each `u8` ink, `u8` zero, `u16` count, then
/// count points of two `u16`, in network byte order. A stroke without points wipes the board.
#[derive(Default)]
struct Board {
    strokes: Vec<u8>,
}

const STROKE_MAX: usize = 8 * 1024;
const BOARD_MAX: usize = 256 * 1024;

impl Board {
    /// Draws one stroke. `false` when it is none, or more than one.
    fn add(&mut self, stroke: &[u8]) -> bool {
        if stroke_length(stroke) != Some(stroke.len()) {
            return false;
        }
        if stroke.len() == 4 {
            self.strokes.clear();
            return true;
        }
        self.strokes.extend_from_slice(stroke);
        if self.strokes.len() > BOARD_MAX {
            self.fade();
        }
        true
    }

    /// The older half of the strokes goes.
    fn fade(&mut self) {
        let mut end = 0;
        while end < BOARD_MAX / 2 {
            end += stroke_length(&self.strokes[end..]).expect("only strokes are kept");
        }
        self.strokes.drain(..end);
    }
}

/// How long the first of these strokes is.
fn stroke_length(strokes: &[u8]) -> Option<usize> {
    let &[_ink, 0, high, low, ref points @ ..] = strokes else { return None };
    let length = 4 * usize::from(u16::from_be_bytes([high, low]));
    (points.len() >= length).then_some(4 + length)
}
