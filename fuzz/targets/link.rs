//! A whole link: bytes, cut anywhere, into a site that speaks HTTP and WebSocket, in a simulated world. Nothing may panic or
//! spin, what is held stays bounded, the contract with the loop holds, and in the end every connection is over.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use lodger::{
    Closed, Context, Cx, Decision, Flow, Io, Limits, Listen, Request, Response, Site, http, sim, ws,
};
use std::time::Duration;

/// Conns that began and have not ended.
#[derive(Default)]
struct Data {
    open: usize,
    began: usize,
}

/// Does what the first byte of a message says, and echoes.
struct Session {
    pieces: bool,
}

impl ws::Handler<Data> for Session {
    fn receive(&self) -> ws::Receive {
        if self.pieces { ws::Receive::Pieces } else { ws::Receive::Whole }
    }

    fn opened(&mut self, cx: &mut Cx<'_, Data>, _request: &Request<'_>) {
        cx.data.open += 1;
        cx.data.began += 1;
    }

    fn message(&mut self, cx: &mut Cx<'_, Data>, message: ws::Message<'_>) {
        match message.as_bytes().first() {
            Some(b'p') => pause(cx),
            Some(b'c') => cx.close(),
            Some(b'C') => cx.conn().close_with(ws::CloseCode::GOING_AWAY, "C"),
            Some(b'a') => cx.conn().abort(),
            Some(b'w') => cx.conn().request_writable(),
            Some(b'P') => {
                let _ = cx.conn().ping(b"?");
            }
            Some(b's') => {
                let frame = cx.io.encode(message);
                let protocol = cx.conn().protocol().expect("it came by a site");
                let _ = cx.io.broadcast(protocol, &frame);
            }
            _ => {}
        }
        if cx.send(message) == Ok(Flow::Full) {
            pause(cx);
            cx.conn().request_writable();
        }
    }

    fn piece(&mut self, cx: &mut Cx<'_, Data>, piece: ws::Piece<'_>) {
        if piece.payload.first() == Some(&b'p') {
            pause(cx);
        }
        let _ = cx.conn().send_piece(piece.kind, piece.payload, piece.last);
    }

    fn writable(&mut self, cx: &mut Cx<'_, Data>) {
        cx.conn().resume();
    }

    fn timer(&mut self, cx: &mut Cx<'_, Data>) {
        cx.conn().resume();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Data>, _closed: Closed) {
        cx.data.open -= 1;
    }
}

fn pause(cx: &mut Cx<'_, Data>) {
    cx.conn().pause();
    cx.conn().set_timer(Duration::from_millis(10));
}

/// Sends the content back, as it comes or afterwards.
#[derive(Default)]
struct Mirror {
    streamed: bool,
    content: Vec<u8>,
}

impl http::Handler<Data> for Mirror {
    fn request(&mut self, cx: &mut Cx<'_, Data>, request: &Request<'_>) {
        cx.data.open += 1;
        cx.data.began += 1;
        self.streamed = request.path() == "/s";
        if self.streamed {
            let _ = cx.respond(Response::stream("text/plain"));
        }
    }

    fn body(&mut self, cx: &mut Cx<'_, Data>, piece: &[u8]) {
        if piece[0] == b'p' {
            pause(cx);
        }
        if self.streamed {
            let _ = cx.write(piece);
        } else {
            self.content.extend_from_slice(piece);
        }
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, Data>, trailers: &http::Fields) {
        let _ = if self.streamed {
            cx.conn().end_response()
        } else {
            let mut response = Response::bytes("text/plain", std::mem::take(&mut self.content));
            for (name, value) in trailers.iter() {
                response = response.field(name, value);
            }
            cx.respond(response)
        };
    }

    fn timer(&mut self, cx: &mut Cx<'_, Data>) {
        cx.conn().resume();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Data>, _closed: Closed) {
        cx.data.open -= 1;
    }
}

fn accept(request: &Request<'_>, _: &mut Data, io: &mut Io<Data>) -> Decision<Data> {
    let chosen = decide(request.is_websocket(), request.method(), request.path());
    if request.query() == Some("later") {
        let id = request.id();
        io.after(Duration::from_millis(5), move |_, io| {
            let _ = io.decide(id, chosen);
        });
        return Decision::Later;
    }
    chosen
}

fn decide(websocket: bool, method: &str, path: &str) -> Decision<Data> {
    match (method, path) {
        (_, "/never") => Decision::Later,
        _ if websocket => Decision::websocket(Session { pieces: path == "/s" }),
        ("POST", _) => Decision::http(Mirror::default()),
        _ => Decision::respond(Response::text(path.to_owned())),
    }
}

/// The opening handshake of a client.
fn upgrade(path: &str, offer: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    )
}

fuzz_target!(|data: &[u8]| {
    let (head, input) = common::split(data, 6);
    let [flags, seed, cuts @ ..] = head else { return };
    let mut world = sim::World::new((*seed).into());
    if flags & 1 != 0 {
        world.chaos(sim::Chaos::wild());
    }
    let mut context: Context<Data> = world.builder().max_links(4).max_handshakes(2).build();
    let mut data = Data::default();
    let limits = Limits {
        head: 2048,
        fields: 20,
        content: Some(4096),
        message: 4096,
        send_high_water: 2048,
        send_max: 8192,
        ping_interval: (flags & 2 != 0).then_some(Duration::from_millis(50)),
        idle: (flags & 4 != 0).then_some(Duration::from_millis(100)),
        ..Limits::default()
    };
    let held = limits.send_max + 2 * limits.message + limits.head;
    let mut deflate = ws::Deflate::default();
    deflate.threshold = usize::from(seed >> 2);
    deflate.server_no_context_takeover = seed & 1 == 0;
    deflate.client_no_context_takeover = seed & 2 == 0;
    let site = context
        .io()
        .add_site(Site::new().protocol("", accept).limits(limits).deflate(deflate))
        .expect("a site with a protocol");
    let listener =
        context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site).expect("a simulated address is free");
    let address = context.io().local_addr(listener).expect("it listens");
    let Ok(mut peer) = world.connect(&address) else { return };
    if flags & 8 != 0 {
        let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
        peer.send(upgrade(
            if flags & 16 != 0 { "/s" } else { "/" },
            if flags & 128 != 0 { offer } else { "" },
        ));
    }
    if flags & 32 != 0 {
        peer.read_at_most(300);
    }
    let mut sent = 0;
    for end in common::ends(input.len(), cuts) {
        peer.send(&input[sent..end]);
        sent = end;
        world.run(&mut context, &mut data);
        for link in context.io().links() {
            assert!(link.queued <= held, "{} bytes are queued", link.queued);
        }
    }
    if flags & 64 != 0 {
        peer.finish();
    } else {
        peer.close();
    }
    world.run_for(&mut context, &mut data, Duration::from_secs(600));
    assert_eq!(
        context.link_count(),
        1,
        "only the listener is left: {:?}",
        context.io().links().collect::<Vec<_>>()
    );
    assert_eq!(data.open, 0, "each of {} conns has ended", data.began);
    world.leave(&mut context, &mut data);
});
