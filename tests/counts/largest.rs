//! What is left of the largest messages, in bytes of the heap.

use crate::tally::{Counted, bytes};
use lodger::ws::deflate::Deflate;
use lodger::ws::{self, Message};
use lodger::{Closed, Connect, Context, Cx, Decision, Io, Limits, Listen, Request, Site};
use std::time::Duration;

const LARGEST: usize = 8 * 1024 * 1024;
/// What a context may keep for the next message, of whatever size the last one was.
const KEPT: i64 = 1024 * 1024;

/// Whether the client is connected, how many messages have come back, and how many conns have closed.
#[derive(Default)]
struct Seen {
    opened: bool,
    echoed: usize,
    closed: usize,
}

/// Sends back what it gets.
struct Echo;

impl ws::Handler<Seen> for Echo {
    fn message(&mut self, cx: &mut Cx<'_, Seen>, message: Message<'_>) {
        cx.send(message).expect("one message may wait");
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Seen>, closed: Closed) {
        assert_eq!(closed.unsent, 0, "{}", closed.reason);
        cx.data.closed += 1;
    }
}

/// Counts what it gets.
struct Asking;

impl ws::Handler<Seen> for Asking {
    fn connected(&mut self, cx: &mut Cx<'_, Seen>, _: &lodger::http::ResponseHead<'_>) -> bool {
        cx.data.opened = true;
        true
    }

    fn message(&mut self, cx: &mut Cx<'_, Seen>, _: Message<'_>) {
        cx.data.echoed += 1;
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Seen>, closed: Closed) {
        assert_eq!(closed.unsent, 0, "{}", closed.reason);
        cx.data.closed += 1;
    }
}

/// Text that becomes about half as long.
fn text(length: usize) -> String {
    let mut state = 1u32;
    let letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 28) as u8)
    };
    (0..length).map(letter).collect()
}

/// How much more a context holds after a large message than after a small one, with a server and a client in it; while both are
/// there, and when they have gone.
fn left_of_the_largest(listen: Listen, site: Site<Seen>, connect: Connect) -> [i64; 2] {
    let limits = Limits { message: LARGEST, ..Limits::default() };
    let mut context: Context<Seen> = Context::new();
    let (mut seen, mut host) = (Seen::default(), Counted::default());
    let accept = |_: &Request<'_>, _: &mut Seen, _: &mut Io<Seen>| Decision::websocket(Echo);
    let io = context.io();
    let site = io.add_site(site.protocol("", accept).limits(limits.clone())).expect("a site with a protocol");
    let listener = io.listen(listen, site).expect("a port is free");
    let address = io.local_addr(listener).and_then(|address| address.inet()).expect("TCP");
    let id = io.connect(connect.address(address).limits(limits), Box::new(Asking));
    let mut until = |context: &mut Context<Seen>, done: &dyn Fn(&Seen) -> bool| {
        for turn in 0..1_000_000 {
            // What a turn leaves to the next is done as well.
            if turn > 2 && done(&seen) {
                return;
            }
            let wait = context.prepare(&mut host).sooner(Duration::from_millis(2).into());
            host.wait(wait, context, &mut seen);
        }
        panic!("it takes too long");
    };
    until(&mut context, &|seen| seen.opened);
    let (small, large) = (text(1000), text(LARGEST));
    let mut held = Vec::new();
    for (at, message) in [&small, &large, &large].into_iter().enumerate() {
        context.io().conn(id).expect("it is open").send(message.as_str()).expect("one message may wait");
        until(&mut context, &|seen| seen.echoed == at + 1);
        held.push(bytes());
    }
    context.io().conn(id).expect("it is open").close();
    until(&mut context, &|seen| seen.closed == 2);
    let _ = context.prepare(&mut host);
    let left = [held[1].max(held[2]) - held[0], bytes() - held[0]];
    context.leave(&mut host, &mut seen);
    left
}

fn any_port() -> Listen {
    Listen::tcp(([127, 0, 0, 1], 0))
}

fn assert_little_is_left(how: &str, [open, gone]: [i64; 2]) {
    println!("{how}: {open} bytes after the largest message, {gone} after the connection");
    assert!(open <= KEPT && gone <= KEPT, "{how}: {open} bytes, {gone} after the connection");
}

#[test]
fn the_largest_messages_leave_what_idle_connections_need() {
    let to = || Connect::to("ws://localhost/");
    assert_little_is_left("plain", left_of_the_largest(any_port(), Site::new(), to()));
    for takes_over in [false, true] {
        let mut deflate = Deflate::default();
        deflate.server_no_context_takeover = !takes_over;
        deflate.client_no_context_takeover = !takes_over;
        let left = left_of_the_largest(any_port(), Site::new().deflate(deflate), to().deflate(deflate));
        assert_little_is_left("compressed", left);
    }
}

#[cfg(any(feature = "tls-aws-lc-rs", feature = "tls-ring"))]
#[test]
fn the_largest_messages_over_tls_leave_what_idle_connections_need() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("rcgen works");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server =
        lodger::tls::Server::from_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together");
    let client = lodger::tls::Client::builder().roots_pem(chain.as_bytes()).build().expect("a root is there");
    for deflate in [None, Some(Deflate::default())] {
        let (mut site, mut to) =
            (Site::new().tls(server.clone()), Connect::to("wss://localhost/").tls(client.clone()));
        if let Some(deflate) = deflate {
            (site, to) = (site.deflate(deflate), to.deflate(deflate));
        }
        assert_little_is_left("TLS", left_of_the_largest(any_port().tls(), site, to));
    }
}
