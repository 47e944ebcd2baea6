//! Clients whose handlers do anything at any event, among servers that answer anything.

use lodger::http::{ClientRequest, Fields, ResponseHead};
use lodger::sim::{Chaos, Reach, World, seeds};
use lodger::{Closed, ConnId, Connect, Context, Cx, Limits, Peer, Proxy, http, raw, ws};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

struct State {
    random: u64,
    events: HashMap<ConnId, Vec<String>>,
    left: u32,
}

impl State {
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % end
    }
}

struct Any;

impl Any {
    fn hear(&mut self, cx: &mut Cx<'_, State>, what: &str) {
        let id = cx.id();
        let heard = cx.data.events.entry(id).or_default();
        assert!(!heard.iter().any(|what| what == "closed"), "{what} after closed: {heard:?}");
        if heard.is_empty() {
            assert!(matches!(what, "connected" | "opened" | "closed"), "{what} comes first");
        }
        assert!(!matches!(what, "connected" | "opened") || heard.is_empty(), "{what} after {heard:?}");
        heard.push(what.to_owned());
        if what == "closed" {
            return;
        }
        for _ in 0..cx.data.below(3) {
            act(cx, id);
        }
    }
}

fn act(cx: &mut Cx<'_, State>, id: ConnId) {
    let choice = cx.data.below(24);
    let delay = SECOND * cx.data.below(3) as u32;
    let length = cx.data.below(3000) as usize;
    let random = cx.data.random;
    match choice {
        0 => cx.conn().pause(),
        1 | 2 => cx.conn().resume(),
        3 | 4 => cx.conn().set_timer(delay),
        5 => cx.conn().request_writable(),
        6 => drop(cx.io.notify(id, Box::new(()))),
        7 | 8 => drop(cx.conn().request(request(random))),
        9 | 10 => drop(cx.conn().write(&vec![b'w'; length])),
        11 => drop(cx.conn().end_request()),
        12 => drop(cx.send("text")),
        13 if length < 500 => cx.close(),
        14 if length < 500 => cx.conn().abort(),
        15 if length < 500 => cx.conn().release(),
        16 if length < 500 => cx.conn().finish(),
        17 => drop(cx.conn().queued()),
        18 => begin(cx.io, cx.data),
        _ => {}
    }
}

fn request(random: u64) -> ClientRequest {
    let request = match random >> 40 & 7 {
        0 => ClientRequest::head(),
        1 => ClientRequest::post(vec![b'p'; 700]).expect_continue(SECOND),
        2 => ClientRequest::new("PUT").content_stream(None),
        3 => ClientRequest::new("PUT").content_stream(Some(2000)).expect_continue(SECOND),
        4 => ClientRequest::get().close(),
        _ => ClientRequest::get(),
    };
    request.target("/a/b")
}

fn begin(io: &mut lodger::Io<State>, state: &mut State) {
    if state.left == 0 {
        return;
    }
    state.left -= 1;
    let host = ["127.0.0.1:80", "a.example", "late.example", "many.example", "silent.example", "[::1]:9"]
        [state.below(6) as usize];
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let limits = Limits { response: 7 * SECOND, body_stall: 3 * SECOND, ..Limits::default() };
    let kind = state.below(3);
    let scheme = ["ws", "http", "tcp"][kind as usize];
    let mut connect = Connect::to(format!("{scheme}://{host}")).limits(limits);
    match state.below(8) {
        0 => connect = connect.proxy(Proxy::http("127.0.0.1", 80)),
        1 => connect = connect.proxy(Proxy::socks5("a.example", 80).credentials("u", "p")),
        2 => connect = connect.after(SECOND / 2),
        _ => {}
    }
    let id = match kind {
        0 => io.connect(connect, Box::new(Any)),
        1 => io.connect_http(connect, request(state.random), Box::new(Any)),
        _ => io.connect_raw(connect, Box::new(Any)),
    };
    match state.below(20) {
        0 => io.conn(id).unwrap().close(),
        1 => io.conn(id).unwrap().abort(),
        2 => io.conn(id).unwrap().pause(),
        3 => io.conn(id).unwrap().request_writable(),
        4 => io.conn(id).unwrap().set_timer(Duration::ZERO),
        5 => drop(io.notify(id, Box::new(()))),
        _ => {}
    }
    state.events.entry(id).or_default();
}

impl http::ClientHandler<State> for Any {
    fn connected(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "connected");
    }
    fn interim(&mut self, cx: &mut Cx<'_, State>, _: &ResponseHead<'_>) {
        self.hear(cx, "interim");
    }
    fn response(&mut self, cx: &mut Cx<'_, State>, _: &ResponseHead<'_>) {
        self.hear(cx, "response");
    }
    fn body(&mut self, cx: &mut Cx<'_, State>, _: &[u8]) {
        self.hear(cx, "body");
    }
    fn body_complete(&mut self, cx: &mut Cx<'_, State>, _: &Fields) {
        self.hear(cx, "complete");
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "writable");
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "timer");
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn std::any::Any>) {
        self.hear(cx, "event");
    }
    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, _: Closed) {
        self.hear(cx, "closed");
    }
}

impl ws::Handler<State> for Any {
    fn connected(&mut self, cx: &mut Cx<'_, State>, _: &ResponseHead<'_>) -> bool {
        self.hear(cx, "connected");
        cx.data.below(10) > 0
    }
    fn message(&mut self, cx: &mut Cx<'_, State>, _: ws::Message<'_>) {
        self.hear(cx, "message");
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "writable");
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "timer");
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn std::any::Any>) {
        self.hear(cx, "event");
    }
    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, _: Closed) {
        self.hear(cx, "closed");
    }
}

impl raw::Handler<State> for Any {
    fn opened(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "opened");
    }
    fn received(&mut self, cx: &mut Cx<'_, State>, _: &[u8]) {
        self.hear(cx, "received");
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "writable");
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "timer");
    }
    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn std::any::Any>) {
        self.hear(cx, "event");
    }
    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, _: Closed) {
        self.hear(cx, "closed");
    }
}

/// What a server says to what it was asked.
fn answer(asked: &str, state: &mut State) -> Vec<u8> {
    let key = asked.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    if let Some(key) = key.filter(|_| state.below(4) > 0) {
        let accept = ws::handshake::accept_key(key.as_bytes());
        let accept = std::str::from_utf8(accept.as_bytes()).unwrap();
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(&[0x81, 1, b'a', 0x89, 0, 0x81, 1, b'b']);
        if state.below(2) == 0 {
            bytes.extend_from_slice(&[0x88, 2, 3, 0xe8]);
        }
        return bytes;
    }
    if asked.starts_with("CONNECT") {
        return b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    }
    if asked.starts_with('\u{5}') {
        return vec![5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    }
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 302 Found\r\nLocation: c\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://late.example/\r\n\r\n",
        "HTTP/1.1 303 See Other\r\nLocation: http://silent.example/\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://many.example/\r\n\r\n",
        "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nless",
        "\x15\x03\x03",
        "",
    ];
    let mut bytes = answers[state.below(answers.len() as u64) as usize].as_bytes().to_vec();
    if state.below(10) == 0 && !bytes.is_empty() {
        let at = state.below(bytes.len() as u64) as usize;
        bytes[at] = state.below(256) as u8;
    }
    bytes
}

fn storm(seed: u64, chaos: Chaos) {
    let mut world = World::new(seed);
    let at = |text: &str| Peer::Inet(text.parse::<SocketAddr>().unwrap());
    world.chaos(chaos);
    let names = world.names();
    names.set("a.example", [[127, 0, 0, 1].into()], Duration::ZERO);
    names.set("late.example", [[127, 0, 0, 1].into()], SECOND);
    names.silence("silent.example");
    world.reach(&at("192.0.2.1:80"), Reach::Silent);
    names.set(
        "many.example",
        [[192, 0, 2, 1].into(), [192, 0, 2, 2].into(), [127, 0, 0, 1].into()],
        Duration::ZERO,
    );
    let mut context: Context<State> = world.builder().build();
    let mut server = world.listen(&at("127.0.0.1:80")).unwrap();
    let mut state = State { random: seed, events: HashMap::new(), left: 30 };
    let mut ends = Vec::new();
    for step in 0..40 {
        if step < 10 {
            begin(context.io(), &mut state);
        }
        let time = SECOND / 4 * state.below(4) as u32;
        world.run_for(&mut context, &mut state, time);
        while let Some(end) = server.accept() {
            ends.push((Some(end), false));
        }
        for (place, finished) in &mut ends {
            let Some(end) = place else { continue };
            let asked = String::from_utf8_lossy(&end.take()).into_owned();
            if !asked.is_empty() && !*finished {
                end.send(answer(&asked, &mut state));
            }
            match state.below(40) {
                0 => {
                    *finished = true;
                    end.finish();
                }
                1 => *place = None,
                2 => place.take().unwrap().reset(),
                3 => end.stop_reading(),
                _ => {}
            }
        }
    }
    world.run_for(&mut context, &mut state, 200 * SECOND);
    world.leave(&mut context, &mut state);
    for (id, heard) in &state.events {
        let ends = heard.iter().filter(|what| *what == "closed").count();
        assert_eq!(ends, 1, "{id}: {heard:?}");
    }
}

#[test]
fn whatever_servers_and_handlers_do_each_client_has_one_outcome_and_one_end() {
    for seed in seeds(300) {
        storm(seed, Chaos::NONE);
    }
}

#[test]
fn so_it_is_in_a_wild_world() {
    for seed in seeds(300) {
        storm(seed, Chaos::wild());
    }
}

#[test]
fn so_it_is_where_the_host_refuses_descriptors() {
    for seed in seeds(300) {
        storm(seed, Chaos::hostile());
    }
}
