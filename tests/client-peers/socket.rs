//! A WebSocket: what it is told to send, and what it hears.

use crate::options::{content, digest, text};
use crate::{State, Teller, Words};
use lodger::ws::{self, CloseCode, CloseFrame, Message, MessageKind};
use lodger::{Closed, Cx, http};
use std::any::Any;
use std::collections::VecDeque;

/// Messages up to so many bytes are told word by word.
const SHORT: usize = 8 * 1024;

/// Told `text BYTES`, `binary BYTES`, `pieces BYTES COUNT`, `ping TEXT`, `traffic` or `close [CODE REASON]`.
pub(crate) struct Socket {
    teller: Teller,
    /// What an echo is compared with.
    sent: VecDeque<(MessageKind, Vec<u8>)>,
}

impl Socket {
    pub(crate) fn new(teller: Teller) -> Self {
        Self { teller, sent: VecDeque::new() }
    }

    fn send(&mut self, cx: &mut Cx<'_, State>, message: Message<'_>) {
        if let Err(error) = cx.send(message) {
            return self.teller.say(&["not sent", &error.to_string()]);
        }
        self.sent.push_back((message.kind(), message.as_bytes().to_vec()));
    }

    fn send_in_pieces(&mut self, cx: &mut Cx<'_, State>, length: usize, count: usize) {
        let content = content(length);
        let size = length.div_ceil(count);
        for (place, piece) in content.chunks(size).enumerate() {
            let last = (place + 1) * size >= length;
            if let Err(error) = cx.conn().send_piece(MessageKind::Binary, piece, last) {
                return self.teller.say(&["not sent", &error.to_string()]);
            }
        }
        self.sent.push_back((MessageKind::Binary, content));
    }

    fn obey(&mut self, cx: &mut Cx<'_, State>, words: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
        match words {
            ["text", length] => self.send(cx, Message::Text(&text(length.parse()?))),
            ["binary", length] => self.send(cx, Message::Binary(&content(length.parse()?))),
            ["pieces", length, count] => self.send_in_pieces(cx, length.parse()?, count.parse()?),
            ["ping", text] => {
                cx.conn().ping(text.as_bytes())?;
            }
            ["traffic"] => {
                let id = cx.id();
                let traffic =
                    cx.io.links().find(|link| link.conn == Some(id)).map(|link| (link.sent, link.received));
                let (sent, received) = traffic.ok_or("no link")?;
                self.teller.say(&["traffic", &sent.to_string(), &received.to_string()]);
            }
            ["close"] => cx.close(),
            ["close", code, reason] => {
                let code = CloseCode::new(code.parse()?);
                cx.conn().close_with(code, reason);
            }
            _ => return Err("no such word".into()),
        }
        Ok(())
    }
}

impl ws::Handler<State> for Socket {
    fn connected(&mut self, cx: &mut Cx<'_, State>, response: &http::ResponseHead<'_>) -> bool {
        self.teller.fields(response.fields());
        let version = cx.conn().tls().map_or("no TLS".to_owned(), |facts| facts.version.to_string());
        self.teller.say(&["connected", &response.status().to_string(), &version]);
        true
    }

    fn message(&mut self, _: &mut Cx<'_, State>, message: Message<'_>) {
        let (kind, length) = (format!("{:?}", message.kind()).to_lowercase(), message.len().to_string());
        let echo = self
            .sent
            .front()
            .is_some_and(|(kind, bytes)| (*kind, &**bytes) == (message.kind(), message.as_bytes()));
        if echo {
            self.sent.pop_front();
            return self.teller.say(&["echo", &kind, &length]);
        }
        let shown = match message {
            Message::Text(text) if text.len() <= SHORT => text,
            _ => "",
        };
        self.teller.say(&["message", &kind, &length, &digest(message.as_bytes()), shown]);
    }

    fn ping(&mut self, _: &mut Cx<'_, State>, payload: &[u8]) {
        self.teller.say(&["ping", &String::from_utf8_lossy(payload)]);
    }

    fn pong(&mut self, _: &mut Cx<'_, State>, payload: &[u8]) {
        self.teller.say(&["pong", &String::from_utf8_lossy(payload)]);
    }

    fn peer_closed(&mut self, _: &mut Cx<'_, State>, close: Option<CloseFrame<'_>>) {
        match close {
            Some(close) => self.teller.say(&["peer closed", &close.code.to_string(), close.reason]),
            None => self.teller.say(&["peer closed"]),
        }
    }

    fn event(&mut self, cx: &mut Cx<'_, State>, event: Box<dyn Any>) {
        let Ok(words) = event.downcast::<Words>() else { return };
        let words: Vec<&str> = words.0.iter().map(String::as_str).collect();
        if let Err(error) = self.obey(cx, &words) {
            self.teller.say(&["mistake", &error.to_string()]);
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.teller.closed(cx, &closed);
    }
}
