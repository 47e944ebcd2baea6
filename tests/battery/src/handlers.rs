//! The handlers of the tests.

use crate::state::{Ending, State, Wanted};
use lodger::{
    Closed, Conn, Cx, Decision, Flow, Io, Protocol, ProtocolId, Request, Response, fd, http, raw, ws,
};
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::panic::resume_unwind;
use std::time::Duration;

/// The protocol of every site.
pub(crate) struct Hall;

impl Protocol<State> for Hall {
    fn started(&mut self, id: ProtocolId, state: &mut State, _io: &mut Io<State>) {
        state.heard.protocol.get_or_insert(id);
    }

    fn accept(&mut self, request: &Request<'_>, state: &mut State, _io: &mut Io<State>) -> Decision<State> {
        match request.path() {
            _ if request.is_websocket() => Decision::websocket(Echo),
            "/later" => {
                state.heard.later += 1;
                Decision::Later
            }
            "/content" => Decision::http(Content { left: CONTENT }),
            "/mirror" => Decision::http(Mirror { content: Vec::new() }),
            _ => Decision::respond(Response::text("hello\n")),
        }
    }
}

/// Sends messages back, and does what it is told.
struct Echo;

impl Echo {
    /// Ends its own context, and goes on for as long as it likes.
    fn end(&self, cx: &mut Cx<'_, State>, ending: Ending) {
        cx.data.end_now(ending);
        let _ = cx.send("still here");
    }
}

impl ws::Handler<State> for Echo {
    fn opened(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        cx.data.heard.opened += 1;
    }

    fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
        cx.data.heard.messages += 1;
        let full = match message {
            ws::Message::Text("!panic") => resume_unwind(Box::new(Wanted)),
            ws::Message::Text("!pause") => {
                let id = cx.id();
                cx.data.heard.paused.push(id);
                return cx.conn().pause();
            }
            ws::Message::Text("!close") => return cx.close(),
            ws::Message::Text("!leave") => return self.end(cx, Ending::Leave),
            ws::Message::Text("!drop") => return self.end(cx, Ending::Drop),
            ws::Message::Text("!run") => {
                cx.data.run_within();
                cx.send("has run") == Ok(Flow::Full)
            }
            ws::Message::Text("!timer") => return cx.conn().set_timer(Duration::from_millis(3)),
            ws::Message::Text("!fill") => {
                let piece = [7; 32 * 1024];
                while cx.send(&piece) == Ok(Flow::Ready) {}
                true
            }
            message => cx.send(message) == Ok(Flow::Full),
        };
        let queued = cx.conn().queued();
        let heard = &mut cx.data.heard;
        heard.most_queued = heard.most_queued.max(queued);
        if full {
            heard.full += 1;
            wait_for_room(cx.conn());
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        cx.conn().resume();
    }

    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        let _ = cx.send("timer");
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}

fn wait_for_room(mut conn: Conn<'_, State>) {
    conn.pause();
    conn.request_writable();
}

/// How long the content of `/content` is.
pub(crate) const CONTENT: usize = 4 << 20;

/// Makes content as fast as the peer takes it.
struct Content {
    left: usize,
}

impl http::Handler<State> for Content {
    fn request(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        cx.data.heard.opened += 1;
        let _ = cx.respond(Response::stream("application/octet-stream").length(CONTENT as u64));
        cx.conn().request_writable();
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        while self.left > 0 {
            let piece = [b'c'; 16 * 1024];
            let Ok(flow) = cx.write(&piece) else { return };
            self.left -= piece.len();
            cx.data.heard.made += piece.len();
            if flow == Flow::Full {
                cx.data.heard.full += 1;
                return cx.conn().request_writable();
            }
        }
        let _ = cx.conn().end_response();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}

/// Sends the content of a request back.
struct Mirror {
    content: Vec<u8>,
}

impl http::Handler<State> for Mirror {
    fn request(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        cx.data.heard.opened += 1;
    }

    fn body(&mut self, _cx: &mut Cx<'_, State>, piece: &[u8]) {
        self.content.extend(piece);
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, State>, _: &http::Fields) {
        let _ = cx.respond(Response::bytes("text/plain", std::mem::take(&mut self.content)));
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}

/// Sends raw bytes back, in capitals.
pub(crate) struct Shout;

impl raw::Handler<State> for Shout {
    fn opened(&mut self, cx: &mut Cx<'_, State>) {
        cx.data.heard.opened += 1;
    }

    fn received(&mut self, cx: &mut Cx<'_, State>, bytes: &[u8]) {
        if cx.write(&bytes.to_ascii_uppercase()) == Ok(Flow::Full) {
            wait_for_room(cx.conn());
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        cx.conn().resume();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}

/// Reads a byte at a time from an adopted descriptor, so that level-triggered watching shows, and gives it back at a full stop.
pub(crate) struct Lines(pub(crate) File);

impl fd::Handler<State> for Lines {
    fn readable(&mut self, cx: &mut Cx<'_, State>, _: BorrowedFd<'_>) {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(1) if byte[0] == b'.' => cx.conn().release(),
            Ok(1) => cx.data.heard.bytes.push(byte[0]),
            Ok(_) => cx.close(),
            Err(_) => {}
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}
