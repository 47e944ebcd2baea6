//! A listener that speaks TLS: bytes, cut anywhere, instead of a handshake, within one or after one that a client of rustls
//! has made, in a simulated world. Nothing may panic or spin, what is held stays bounded, the contract with the loop holds,
//! and in the end every connection is over.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use lodger::sim::{Chaos, Endpoint, World};
use lodger::tls::rustls::ClientConnection;
use lodger::tls::{Client, Server, Version};
use lodger::{Closed, Context, Cx, Decision, Flow, Io, Limits, Listen, Peer, Request, Site, raw, ws};
use std::io::{Read, Write};
use std::sync::LazyLock;
use std::time::Duration;

/// Conns that have not ended.
#[derive(Default)]
struct Data {
    open: usize,
}

/// Does what the first byte says, and echoes.
struct Session;

fn act(cx: &mut Cx<'_, Data>, first: Option<&u8>, sent: Result<Flow, lodger::SendError>) {
    match first {
        Some(b'p') => pause(cx),
        Some(b'c') => cx.close(),
        Some(b'a') => cx.conn().abort(),
        Some(b'f') => cx.conn().finish(),
        Some(b't') => assert!(cx.conn().tls().is_some()),
        _ => {}
    }
    if sent == Ok(Flow::Full) {
        pause(cx);
    }
}

fn pause(cx: &mut Cx<'_, Data>) {
    cx.conn().pause();
    cx.conn().set_timer(Duration::from_millis(10));
}

impl raw::Handler<Data> for Session {
    fn received(&mut self, cx: &mut Cx<'_, Data>, bytes: &[u8]) {
        let sent = cx.write(bytes);
        act(cx, bytes.first(), sent);
    }

    fn timer(&mut self, cx: &mut Cx<'_, Data>) {
        cx.conn().resume();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Data>, _: Closed) {
        cx.data.open -= 1;
    }
}

impl ws::Handler<Data> for Session {
    fn opened(&mut self, cx: &mut Cx<'_, Data>, _: &Request<'_>) {
        cx.data.open += 1;
    }

    fn message(&mut self, cx: &mut Cx<'_, Data>, message: ws::Message<'_>) {
        let sent = cx.send(message);
        act(cx, message.as_bytes().first(), sent);
    }

    fn timer(&mut self, cx: &mut Cx<'_, Data>) {
        cx.conn().resume();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Data>, _: Closed) {
        cx.data.open -= 1;
    }
}

const CHAIN: &[u8] = include_bytes!("../../tests/data/tls/ec.crt");
const KEY: &[u8] = include_bytes!("../../tests/data/tls/ec-sec1.key");

static SERVER: LazyLock<Server> =
    LazyLock::new(|| Server::from_pem(CHAIN, KEY).expect("they belong together"));

/// Clients of both versions.
static CLIENTS: LazyLock<[Client; 2]> = LazyLock::new(|| {
    [Version::Tls12, Version::Tls13].map(|version| {
        let client = Client::builder().versions(&[version]).dangerous().accept_any_certificate();
        client.build().expect("nothing is missing")
    })
});

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Carries what both sides have to say, the client's part `step` bytes at a time.
fn exchange(client: &mut ClientConnection, peer: &mut Endpoint, step: usize, mut run: impl FnMut()) {
    loop {
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records).expect("memory has room");
        }
        for part in records.chunks(step) {
            peer.send(part);
            run();
        }
        let came = peer.take();
        let mut rest = &came[..];
        while !rest.is_empty() && client.read_tls(&mut rest).is_ok_and(|read| read > 0) {
            let Ok(state) = client.process_new_packets() else { return };
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            let _ = client.reader().read_exact(&mut plain);
        }
        if records.is_empty() && came.is_empty() {
            return;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (head, input) = common::split(data, 6);
    let [flags, seed, cuts @ ..] = head else { return };
    let mut world = World::new((*seed).into());
    if flags & 1 != 0 {
        world.chaos(Chaos::wild());
    }
    let mut context: Context<Data> = world.builder().max_links(4).build();
    let mut data = Data::default();
    let limits = Limits { message: 4096, send_high_water: 2048, send_max: 8192, ..Limits::default() };
    let accept = |_: &Request<'_>, _: &mut Data, _: &mut Io<Data>| Decision::websocket(Session);
    let listen = Listen::tcp(([127, 0, 0, 1], 0));
    let listener = if flags & 2 != 0 {
        let site = Site::new().protocol("", accept).limits(limits).tls(SERVER.clone());
        let site = context.io().add_site(site).unwrap();
        context.io().listen(listen.tls(), site)
    } else {
        context.io().listen_raw(listen.tls_with(SERVER.clone()), limits, |_: &Peer, data: &mut Data, _| {
            data.open += 1;
            Some(Box::new(Session))
        })
    };
    let listener = listener.expect("a simulated address is free");
    let address = context.io().local_addr(listener).expect("it listens");
    let Ok(mut peer) = world.connect(&address) else { return };
    let mut run = || world.run(&mut context, &mut data);
    let config = CLIENTS[usize::from(flags & 4 != 0)].config();
    let mut client = ClientConnection::new(config, "ec".try_into().expect("a name")).expect("a client");
    let step = cuts.first().map_or(1, |&cut| usize::from(cut) + 1);
    match flags >> 3 & 3 {
        // Nothing but the input.
        0 => {}
        // A hello, and what follows is not from who has sent it.
        1 => {
            let mut hello = Vec::new();
            client.write_tls(&mut hello).expect("memory has room");
            peer.send(hello);
            run();
        }
        // The input by the keys agreed on, or in the clear behind it.
        way => {
            exchange(&mut client, &mut peer, step, &mut run);
            if flags & 2 != 0 {
                let _ = client.writer().write_all(UPGRADE);
            }
            if way == 2 {
                for piece in input.chunks(step) {
                    let _ = client.writer().write_all(piece);
                }
            }
            if flags & 32 != 0 {
                client.send_close_notify();
            }
            exchange(&mut client, &mut peer, step, &mut run);
        }
    }
    if flags >> 3 & 3 != 2 {
        let mut sent = 0;
        for end in common::ends(input.len(), cuts) {
            peer.send(&input[sent..end]);
            sent = end;
            run();
        }
    }
    for link in context.io().links() {
        assert!(link.queued <= 64 * 1024, "{} bytes are queued", link.queued);
    }
    if flags & 64 != 0 {
        peer.finish();
    } else {
        peer.close();
    }
    world.run_for(&mut context, &mut data, Duration::from_secs(600));
    let links: Vec<_> = context.io().links().map(|link| format!("{link:?}")).collect();
    assert_eq!(links.len(), 1, "only the listener is left: {links:?}");
    assert_eq!(data.open, 0, "each conn has ended");
    world.leave(&mut context, &mut data);
});
