//! What seeds have found, each told by itself.

use lodger::sim::{Chaos, Endpoint, Frame, World};
use lodger::{
    CloseReason, Closed, ConnId, Context, Cx, Decision, Interest, Io, Limits, Listen, Request, Response,
    Site, fd, http, raw, ws,
};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What happened, in order, and who is there.
#[derive(Default)]
struct Book {
    lines: Vec<String>,
    conns: Vec<ConnId>,
}

/// Does what its peer's words say.
struct Actor;

const SECOND: Duration = Duration::from_secs(1);

impl Book {
    fn closed(&mut self, closed: Closed) {
        self.lines.push(format!("closed: {}, {} unsent", closed.reason, closed.unsent));
        if let CloseReason::Released { .. } = closed.reason {
            self.lines.push("given back".to_owned());
        }
    }
}

impl ws::Handler<Book> for Actor {
    fn opened(&mut self, cx: &mut Cx<'_, Book>, request: &Request<'_>) {
        let id = cx.id();
        cx.data.conns.push(id);
        if request.path() == "/pause" {
            cx.conn().pause();
            cx.io.after(SECOND, move |_, io| io.conn(id).expect("it is there").resume());
        }
    }

    fn message(&mut self, cx: &mut Cx<'_, Book>, message: ws::Message<'_>) {
        cx.data.lines.push(format!("{:?}", message.as_bytes().len()));
        match message.as_bytes() {
            b"release" => {
                cx.send("four").expect("it is open");
                cx.conn().release();
            }
            b"hold" => {
                let shared = cx.io.encode("four");
                cx.conn().send_piece(ws::MessageKind::Text, b"begun", false).expect("it is open");
                cx.conn().send_shared(&shared).expect("it waits");
                cx.conn().abort();
            }
            _ => {}
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Book>, closed: Closed) {
        cx.data.closed(closed);
    }
}

impl http::Handler<Book> for Actor {
    fn request(&mut self, cx: &mut Cx<'_, Book>, request: &Request<'_>) {
        let id = cx.id();
        cx.data.lines.push(request.target().to_owned());
        if request.path() == "/pause" {
            cx.conn().pause();
        }
        cx.io.after(SECOND, move |_, io| {
            if let Some(mut conn) = io.conn(id) {
                conn.respond(Response::text("late")).expect("it waits for this");
            }
        });
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Book>, closed: Closed) {
        cx.data.closed(closed);
    }
}

impl raw::Handler<Book> for Actor {
    fn opened(&mut self, cx: &mut Cx<'_, Book>) {
        let id = cx.id();
        cx.data.conns.push(id);
    }

    fn received(&mut self, cx: &mut Cx<'_, Book>, bytes: &[u8]) {
        cx.data.lines.push(format!("{} bytes", bytes.len()));
        if bytes == b"release" {
            cx.conn().release();
            cx.conn().finish();
            cx.conn().close();
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_, Book>) {
        cx.data.lines.push("timer".to_owned());
        // Whoever is first takes the others' timers away, the last but one moves it.
        let others: Vec<ConnId> = cx.data.conns.iter().copied().filter(|id| *id != cx.id()).collect();
        for (at, id) in others.iter().enumerate() {
            let mut conn = cx.io.conn(*id).expect("it is there");
            if at == 0 { conn.set_timer(SECOND) } else { conn.cancel_timer() }
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Book>, closed: Closed) {
        cx.data.closed(closed);
    }
}

impl fd::Handler<Book> for Actor {
    fn readable(&mut self, cx: &mut Cx<'_, Book>, _: BorrowedFd<'_>) {
        cx.data.lines.push("readable".to_owned());
        cx.close();
    }

    fn writable(&mut self, cx: &mut Cx<'_, Book>, _: BorrowedFd<'_>) {
        cx.data.lines.push("writable".to_owned());
        cx.conn().pause();
    }
}

fn decide(request: &Request<'_>, _: &mut Book, _: &mut Io<Book>) -> Decision<Book> {
    match request.path() {
        "/file" => Decision::respond(Response::file(super::run::file(), "text/plain").expect("it is there")),
        _ if request.is_websocket() => Decision::websocket(Actor),
        _ => Decision::http(Actor),
    }
}

/// A world with a site, and a peer that has connected to it.
fn world() -> (World, Context<Book>, Book, Endpoint) {
    world_of(1)
}

fn world_of(seed: u64) -> (World, Context<Book>, Book, Endpoint) {
    let mut world = World::new(seed);
    let mut context: Context<Book> = world.builder().build();
    let io = context.io();
    let site = io.add_site(Site::new().protocol("", decide)).expect("a site with a protocol");
    let listener = io.listen(Listen::tcp(([127, 0, 0, 1], 0)), site).expect("it listens");
    let address = io.local_addr(listener).expect("it listens");
    let peer = world.connect(&address).expect("it listens");
    (world, context, Book::default(), peer)
}

#[test]
fn a_request_that_came_too_early_is_not_watched_for() {
    let (mut world, mut context, mut book, mut peer) = world();
    peer.get("/first");
    world.run(&mut context, &mut book);
    peer.get("/second");
    peer.send("rest");
    // It would spin, were the second request read and its socket still watched.
    world.run(&mut context, &mut book);
    peer.send("more");
    world.run(&mut context, &mut book);
    world.run_for(&mut context, &mut book, 3 * SECOND);
    assert_eq!(book.lines.iter().filter(|line| line.starts_with('/')).count(), 2);
    world.leave(&mut context, &mut book);
}

#[test]
fn what_a_task_adopts_begins_with_what_was_read_already() {
    let (mut world, mut context, mut book, _peer) = world();
    let (socket, _other) = world.socket().expect("there are descriptors");
    context.io().after(Duration::ZERO, move |_: &mut Book, io| {
        io.adopt_raw(socket, b"before", Limits::default(), Box::new(Actor)).expect("it is adopted");
    });
    world.run(&mut context, &mut book);
    assert_eq!(book.lines, ["6 bytes"]);
    world.leave(&mut context, &mut book);
}

#[test]
fn timers_of_one_moment_can_be_cancelled_and_moved_by_the_first() {
    let (mut world, mut context, mut book, _peer) = world();
    let sockets: Vec<_> = (0..3).map(|_| world.socket().expect("there are descriptors")).collect();
    let mut ends = Vec::new();
    for (socket, end) in sockets {
        let id =
            context.io().adopt_raw(socket, b"", Limits::default(), Box::new(Actor)).expect("it is adopted");
        context.io().conn(id).expect("it is there").set_timer(SECOND);
        ends.push(end);
    }
    world.run_for(&mut context, &mut book, SECOND);
    assert_eq!(book.lines, ["timer"]);
    world.run_for(&mut context, &mut book, SECOND);
    assert_eq!(book.lines, ["timer", "timer"]);
    world.leave(&mut context, &mut book);
}

#[test]
fn a_task_cancels_the_timer_of_a_conn_that_is_due_with_it() {
    let (mut world, mut context, mut book, _peer) = world();
    let (socket, _end) = world.socket().expect("there are descriptors");
    let id = context.io().adopt_raw(socket, b"", Limits::default(), Box::new(Actor)).expect("it is adopted");
    context.io().after(SECOND, move |_: &mut Book, io| io.conn(id).expect("it is there").cancel_timer());
    world.run(&mut context, &mut book);
    context.io().conn(id).expect("it is there").set_timer(SECOND);
    world.run_for(&mut context, &mut book, 2 * SECOND);
    assert_eq!(book.lines, [""; 0]);
    world.leave(&mut context, &mut book);
}

#[test]
fn a_conn_that_pauses_as_it_opens_gets_nothing_until_it_resumes() {
    let (mut world, mut context, mut book, mut peer) = world();
    peer.upgrade("/pause");
    peer.send_text("hello");
    world.run(&mut context, &mut book);
    assert_eq!(book.lines, [""; 0]);
    world.run_for(&mut context, &mut book, SECOND);
    assert_eq!(book.lines, ["5"]);
    world.leave(&mut context, &mut book);
}

#[test]
fn a_descriptor_that_pauses_when_writable_is_not_read() {
    let (mut world, mut context, mut book, _peer) = world();
    let (socket, mut other) = world.socket().expect("there are descriptors");
    other.send("hello");
    context.io().adopt(socket, Interest::BOTH, Box::new(Actor)).expect("it is adopted");
    world.run(&mut context, &mut book);
    assert_eq!(book.lines, ["writable"]);
    world.leave(&mut context, &mut book);
}

#[test]
fn a_release_says_what_was_not_sent() {
    let (mut world, mut context, mut book, mut peer) = world();
    peer.upgrade("/");
    world.run(&mut context, &mut book);
    peer.send_text("release");
    peer.send_frame(&Frame::text("and more"));
    world.run(&mut context, &mut book);
    assert_eq!(book.lines[1..], ["closed: released, 6 unsent", "given back"]);
    world.leave(&mut context, &mut book);
}

#[test]
fn frames_that_wait_for_the_end_of_a_message_count_as_unsent() {
    let (mut world, mut context, mut book, mut peer) = world();
    peer.upgrade("/");
    world.run(&mut context, &mut book);
    peer.send_text("hold");
    world.run(&mut context, &mut book);
    assert_eq!(book.lines[1..], ["closed: aborted by us, 13 unsent"]);
    world.leave(&mut context, &mut book);
}

#[test]
fn a_paused_exchange_ends_with_its_response() {
    let (mut world, mut context, mut book, mut peer) = world();
    peer.send("GET /pause HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    world.run_for(&mut context, &mut book, SECOND);
    assert_eq!(peer.next_answer().map(|answer| answer.content), Some(b"late".to_vec()));
    assert!(peer.at_end());
    assert_eq!(book.lines, ["/pause", "closed: exchange complete, 0 unsent"]);
    world.leave(&mut context, &mut book);
}

#[test]
fn a_file_for_a_peer_that_is_gone_keeps_nobody_awake() {
    for seed in 1..=100 {
        let (mut world, mut context, mut book, mut peer) = world_of(seed);
        world.run(&mut context, &mut book);
        // So late that the reset is there before the requests are read.
        world.chaos(Chaos { late: 0.8, ..Chaos::NONE });
        for _ in 0..4 {
            peer.get("/file");
        }
        for _ in 0..seed % 5 {
            world.turn(&mut context, &mut book);
        }
        peer.reset();
        world.run_for(&mut context, &mut book, 60 * SECOND);
        assert_eq!(context.io().link_count(), 1, "seed {seed}");
        world.leave(&mut context, &mut book);
    }
}

#[test]
fn what_is_given_back_is_not_closed_any_more() {
    let (mut world, mut context, mut book, _peer) = world();
    let (socket, mut other) = world.socket().expect("there are descriptors");
    other.send("release");
    context.io().adopt_raw(socket, b"", Limits::default(), Box::new(Actor)).expect("it is adopted");
    world.run(&mut context, &mut book);
    assert_eq!(book.lines, ["7 bytes", "closed: released, 0 unsent", "given back"]);
    // The number is not given back to the world here, so that its end is still ours.
    assert!(!other.at_end());
    world.leave(&mut context, &mut book);
}
