//! What lodger serves: the page at `/`, and its WebSockets at `/live`.
//!
//! - From a page: a text message is what its text field holds now. A binary message is a stroke, or a piece of one: red,
//!   green and blue, a byte each, then one point after another, each two `u16` in network byte order, as parts of 65535 of
//!   the board. An empty one wipes the board.
//! - To the pages: strokes, sent on as they came, so that all pages show what the window shows; the text, and events of
//!   the window, as JSON.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write;
use std::net::SocketAddr;

use lodger::http::StatusCode;
use lodger::ws::{self, CloseCode, Message};
use lodger::{Closed, Context, Cx, Decision, Io, Limits, Listen, Peer, ProtocolId, Request, Response, Site};
use lodger_calloop::Local;

use crate::App;

/// What the window shows.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) text: String,
    /// As they came, oldest first.
    pub(crate) strokes: VecDeque<Vec<u8>>,
}

const MESSAGE_MAX: usize = 4 * 1024;
const STROKES_KEPT: usize = 4000;

impl Board {
    /// Draws one stroke. False when it is none.
    fn add(&mut self, stroke: &[u8]) -> bool {
        match stroke.len() {
            0 => self.strokes.clear(),
            7.. if stroke.len() % 4 == 3 => self.strokes.push_back(stroke.to_vec()),
            _ => return false,
        }
        if self.strokes.len() > STROKES_KEPT {
            self.strokes.pop_front();
        }
        true
    }

    /// For pages: the text.
    fn describe(&self) -> String {
        format!(r#"{{"typed":{}}}"#, json(&self.text))
    }
}

/// The way from the window to the pages.
pub(crate) struct Pages {
    lodger: Local<App>,
    protocol: ProtocolId,
    pub(crate) address: SocketAddr,
    pub(crate) count: usize,
}

impl Pages {
    pub(crate) fn new(lodger: Local<App>, protocol: ProtocolId, address: SocketAddr) -> Self {
        Self { lodger, protocol, address, count: 0 }
    }
}

impl App {
    /// Tells all pages of an event of the window. This is how any callback of the loop reaches lodger.
    pub(crate) fn tell(&mut self, event: String) {
        let lodger = self.pages.lodger.clone();
        lodger.with(self, move |app, io| {
            let frame = io.encode(&*event);
            let _ = io.broadcast(app.pages.protocol, &frame); // `missed` tells whom it left out
        });
    }
}

/// A context that listens, where it does, and the name of the pages' protocol.
pub(crate) fn open(address: SocketAddr) -> Result<(Context<App>, SocketAddr, ProtocolId), Box<dyn Error>> {
    let mut context = Context::new();
    let io = context.io();
    let limits = Limits { message: MESSAGE_MAX, ..Limits::default() };
    let mut site = Site::new().protocol("", accept).limits(limits);
    if address.ip().is_loopback() {
        // A name on the internet that suddenly resolves to this machine is none of ours.
        let numeric = address.to_string();
        site = site.hosts(["localhost", numeric.rsplit_once(':').map_or("", |(host, _port)| host)]);
    }
    let site = io.add_site(site)?;
    let listener = io.listen(Listen::tcp(address), site)?;
    let Some(Peer::Inet(address)) = io.local_addr(listener) else { return Err("no address".into()) };
    let protocol = io.protocol(site, "").ok_or("the site has this protocol")?;
    Ok((context, address, protocol))
}

fn accept(request: &Request<'_>, _: &mut App, _: &mut Io<App>) -> Decision<App> {
    match (request.is_websocket(), request.path()) {
        (true, "/live") => Decision::websocket(Page),
        (false, "/") => Decision::respond(Response::html(include_str!("page.html"))),
        _ => Decision::respond(Response::text("Nothing here.\n").status(StatusCode::NOT_FOUND)),
    }
}

/// One page's WebSocket. `cx.data` is the loop's data: the window is at hand.
struct Page;

impl ws::Handler<App> for Page {
    fn opened(&mut self, cx: &mut Cx<'_, App>, _: &Request<'_>) {
        cx.data.pages.count += 1;
        cx.data.window.change();
        let id = cx.id();
        let Some(mut page) = cx.io.conn(id) else { return };
        // What is drawn already. A page that cannot take it is dropped: it comes again, and begins anew.
        let mut sent = page.send(&*cx.data.window.describe());
        sent = sent.and(page.send(&*cx.data.board.describe()));
        for stroke in &cx.data.board.strokes {
            sent = sent.and(page.send(Message::Binary(stroke)));
        }
        if sent.is_err() {
            page.abort();
        }
    }

    /// It has fallen so far behind that a stroke was not sent to it: what it shows would stay wrong.
    fn missed(&mut self, cx: &mut Cx<'_, App>) {
        cx.conn().abort();
    }

    fn message(&mut self, cx: &mut Cx<'_, App>, message: Message<'_>) {
        match message {
            Message::Text(text) => {
                cx.data.board.text = text.to_owned();
                cx.data.window.change();
                let frame = cx.io.encode(&*cx.data.board.describe());
                let _ = cx.io.broadcast(cx.data.pages.protocol, &frame);
            }
            Message::Binary(stroke) if cx.data.board.add(stroke) => {
                cx.data.window.change();
                let frame = cx.io.encode(Message::Binary(stroke));
                let _ = cx.io.broadcast(cx.data.pages.protocol, &frame);
            }
            Message::Binary(_) => cx.conn().close_with(CloseCode::POLICY, "not a stroke"),
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, App>, _: Closed) {
        cx.data.pages.count -= 1;
        cx.data.window.change();
    }
}

/// `text` as a JSON string.
pub(crate) fn json(text: &str) -> String {
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
