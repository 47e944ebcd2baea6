//! A handler of any role whose behaviour is a closure, and which writes down what it hears.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use super::rig::State;
use lodger::http::Fields;
use lodger::ws::{CloseFrame, Message, Piece, Receive, TooLarge};
use lodger::{By, CloseReason, Closed, ConnId, Cx, Request, http, raw, ws};
use std::any::Any;
use std::fmt;

/// What a handler hears.
#[derive(Debug)]
pub enum Heard {
    /// The opening of a WebSocket or a raw connection.
    Opened,
    /// A request: method and target.
    Request(String),
    Text(String),
    Binary(Vec<u8>),
    Piece {
        payload: Vec<u8>,
        first: bool,
        last: bool,
        remaining: u64,
        final_fragment: bool,
    },
    TooLarge(TooLarge),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    PeerClosed(Option<(u16, String)>),
    PeerEnded,
    /// Content, or raw bytes.
    Bytes(Vec<u8>),
    /// The content is complete; its trailer fields.
    Complete(Vec<(String, String)>),
    End,
    Writable,
    Timer,
    Event(String),
    ChildClosed(ConnId),
    Closed(Closed),
}

type Act = Box<dyn FnMut(&mut Cx<'_, State>, &Heard)>;

pub struct Script {
    name: &'static str,
    act: Act,
    receive: Receive,
    keeps_open: bool,
}

impl Script {
    pub fn new(act: impl FnMut(&mut Cx<'_, State>, &Heard) + 'static) -> Self {
        Self { name: "", act: Box::new(act), receive: Receive::Whole, keeps_open: false }
    }

    /// Does nothing but write down.
    pub fn quiet() -> Self {
        Self::new(|_, _| {})
    }

    /// Sends back whatever comes.
    pub fn echo() -> Self {
        Self::new(|cx, heard| match heard {
            Heard::Text(text) => drop(cx.send(text.as_str())),
            Heard::Binary(bytes) => drop(cx.send(&bytes[..])),
            Heard::Bytes(bytes) => drop(cx.write(bytes)),
            _ => {}
        })
    }

    /// Its lines in the log begin with this.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub fn in_pieces(mut self) -> Self {
        self.receive = Receive::Pieces;
        self
    }

    /// Does not finish when the peer has.
    pub fn keeps_open(mut self) -> Self {
        self.keeps_open = true;
        self
    }

    fn hear(&mut self, cx: &mut Cx<'_, State>, heard: Heard) {
        let name = self.name;
        cx.data.log.push(if name.is_empty() { heard.to_string() } else { format!("{name}: {heard}") });
        (self.act)(cx, &heard);
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lossy = String::from_utf8_lossy;
        match self {
            Self::Opened => f.write_str("opened"),
            Self::Request(line) => f.write_str(line),
            Self::Text(text) => write!(f, "text {text}"),
            Self::Binary(bytes) => write!(f, "binary {}", lossy(bytes)),
            Self::Piece { payload, first, last, remaining, final_fragment } => {
                let first = if *first { " first" } else { "" };
                let last = if *last { " last" } else { "" };
                let final_fragment = if *final_fragment { " final" } else { "" };
                write!(f, "piece {}{first}{last} {remaining}{final_fragment}", lossy(payload))
            }
            Self::TooLarge(TooLarge { size, limit }) => write!(f, "too large {size} {limit}"),
            Self::Ping(payload) => write!(f, "ping {}", lossy(payload)),
            Self::Pong(payload) => write!(f, "pong {}", lossy(payload)),
            Self::PeerClosed(None) => f.write_str("peer closed"),
            Self::PeerClosed(Some((code, reason))) => write!(f, "peer closed {code} {reason}"),
            Self::PeerEnded => f.write_str("peer ended"),
            Self::Bytes(bytes) => write!(f, "bytes {}", lossy(bytes)),
            Self::Complete(trailers) => {
                f.write_str("complete")?;
                trailers.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
            }
            Self::End => f.write_str("end"),
            Self::Writable => f.write_str("writable"),
            Self::Timer => f.write_str("timer"),
            Self::Event(event) => write!(f, "event {event}"),
            Self::ChildClosed(_) => f.write_str("child closed"),
            Self::Closed(closed) => {
                f.write_str("closed: ")?;
                match &closed.reason {
                    CloseReason::Handshake { by, code, reason } => {
                        let by = if *by == By::Us { "us" } else { "peer" };
                        let code = code.map_or("none".to_owned(), |code| code.to_string());
                        write!(f, "by {by} {code} {reason}")?;
                    }
                    CloseReason::Io(error) => write!(f, "{:?}", error.kind())?,
                    CloseReason::File(error) => write!(f, "File {:?}", error.kind())?,
                    reason => write!(f, "{reason:?}")?,
                }
                match closed.unsent {
                    0 => Ok(()),
                    _ => f.write_str(", unsent"),
                }
            }
        }
    }
}

fn event(event: Box<dyn Any>) -> Heard {
    Heard::Event(event.downcast::<&str>().map_or("?".to_owned(), |event| (*event).to_owned()))
}

impl ws::Handler<State> for Script {
    fn receive(&self) -> Receive {
        self.receive
    }
    fn opened(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        let id = cx.id();
        cx.data.conns.push(id);
        self.hear(cx, Heard::Opened);
    }
    fn message(&mut self, cx: &mut Cx<'_, State>, message: Message<'_>) {
        let heard = match message {
            Message::Text(text) => Heard::Text(text.to_owned()),
            Message::Binary(bytes) => Heard::Binary(bytes.to_owned()),
        };
        self.hear(cx, heard);
    }
    fn piece(&mut self, cx: &mut Cx<'_, State>, piece: Piece<'_>) {
        let heard = Heard::Piece {
            payload: piece.payload.to_owned(),
            first: piece.first,
            last: piece.last,
            remaining: piece.remaining_in_frame,
            final_fragment: piece.final_fragment,
        };
        self.hear(cx, heard);
    }
    fn too_large(&mut self, cx: &mut Cx<'_, State>, size: TooLarge) {
        self.hear(cx, Heard::TooLarge(size));
    }
    fn ping(&mut self, cx: &mut Cx<'_, State>, payload: &[u8]) {
        self.hear(cx, Heard::Ping(payload.to_owned()));
    }
    fn pong(&mut self, cx: &mut Cx<'_, State>, payload: &[u8]) {
        self.hear(cx, Heard::Pong(payload.to_owned()));
    }
    fn peer_closed(&mut self, cx: &mut Cx<'_, State>, close: Option<CloseFrame<'_>>) {
        self.hear(cx, Heard::PeerClosed(close.map(|close| (close.code.get(), close.reason.to_owned()))));
    }
    fn peer_ended(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::PeerEnded);
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Writable);
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Timer);
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, happened: Box<dyn Any>) {
        self.hear(cx, event(happened));
    }
    fn child_closed(&mut self, cx: &mut Cx<'_, State>, child: ConnId) {
        self.hear(cx, Heard::ChildClosed(child));
    }
    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.hear(cx, Heard::Closed(closed));
    }
}

impl http::Handler<State> for Script {
    fn request(&mut self, cx: &mut Cx<'_, State>, request: &Request<'_>) {
        let id = cx.id();
        cx.data.conns.push(id);
        self.hear(cx, Heard::Request(format!("{} {}", request.method(), request.target())));
    }
    fn body(&mut self, cx: &mut Cx<'_, State>, piece: &[u8]) {
        self.hear(cx, Heard::Bytes(piece.to_owned()));
    }
    fn body_complete(&mut self, cx: &mut Cx<'_, State>, trailers: &Fields) {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let trailers = trailers.iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
        self.hear(cx, Heard::Complete(trailers));
    }
    fn peer_ended(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::PeerEnded);
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Writable);
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Timer);
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, happened: Box<dyn Any>) {
        self.hear(cx, event(happened));
    }
    fn child_closed(&mut self, cx: &mut Cx<'_, State>, child: ConnId) {
        self.hear(cx, Heard::ChildClosed(child));
    }
    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.hear(cx, Heard::Closed(closed));
    }
}

impl raw::Handler<State> for Script {
    fn opened(&mut self, cx: &mut Cx<'_, State>) {
        let id = cx.id();
        cx.data.conns.push(id);
        self.hear(cx, Heard::Opened);
    }
    fn received(&mut self, cx: &mut Cx<'_, State>, bytes: &[u8]) {
        self.hear(cx, Heard::Bytes(bytes.to_owned()));
    }
    fn end(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::End);
        if !self.keeps_open {
            cx.conn().finish();
        }
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Writable);
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, Heard::Timer);
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, happened: Box<dyn Any>) {
        self.hear(cx, event(happened));
    }
    fn child_closed(&mut self, cx: &mut Cx<'_, State>, child: ConnId) {
        self.hear(cx, Heard::ChildClosed(child));
    }
    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.hear(cx, Heard::Closed(closed));
    }
}
