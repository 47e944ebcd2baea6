//! A server that goes, and its successor: what was sent to it before it has gone is answered.
//!
//! `LODGER_RESTART_REQUESTS` says how many requests the real clients make.

use lodger::http::Handler;
use lodger::sim::{Endpoint, World};
use lodger::ws::CloseCode;
use lodger::{
    Context, Cx, Decision, Io, Limits, Listen, ListenerId, Remote, Request, Response, Site, SiteId,
};
use lodger_poll::Loop;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

struct House {
    world: World,
    context: Context,
    site: SiteId,
    listener: ListenerId,
}

/// Begins its response at once, and ends it when told.
struct Slow;

impl Handler<()> for Slow {
    fn request(&mut self, cx: &mut Cx<'_, ()>, _: &Request<'_>) {
        cx.respond(Response::stream("text/plain").length(6)).expect("it can respond");
        cx.conn().set_timer(Duration::from_secs(1));
    }

    fn timer(&mut self, cx: &mut Cx<'_, ()>) {
        cx.write(b"slowly").expect("it responds");
    }
}

fn decide(request: &Request<'_>, _: &mut (), _: &mut Io) -> Decision<()> {
    match request.path() {
        "/slow" => Decision::http(Slow),
        _ => Decision::respond(Response::text("page")),
    }
}

impl House {
    fn new() -> Self {
        let mut world = World::new(1);
        let mut context: Context = world.builder().build();
        let io = context.io();
        let site = io.add_site(Site::new().protocol("", decide)).unwrap();
        let listener = io.listen(Listen::tcp(([127, 0, 0, 1], 0)), site).unwrap();
        world.run(&mut context, &mut ());
        Self { world, context, site, listener }
    }

    fn connect(&mut self) -> Endpoint {
        let address = self.context.io().local_addr(self.listener).unwrap();
        let peer = self.world.connect(&address).unwrap();
        self.run();
        peer
    }

    fn run(&mut self) {
        self.world.run(&mut self.context, &mut ());
    }

    fn run_for(&mut self, time: Duration) {
        self.world.run_for(&mut self.context, &mut (), time);
    }

    /// Goes, in each of the ways.
    fn go(&mut self, whole: bool) {
        match whole {
            true => self.context.io().shutdown(CloseCode::GOING_AWAY),
            false => self.context.io().remove_site(self.site),
        }
    }
}

fn is_last(peer: &mut Endpoint) -> bool {
    let answer = peer.next_answer().expect("a response");
    assert_eq!(answer.status, 200);
    answer.field("Connection") == Some("close")
}

#[test]
fn a_request_that_lies_in_the_socket_is_answered_the_first_one_too() {
    for whole in [true, false] {
        let mut house = House::new();
        let (mut first, mut next, mut part) = (house.connect(), house.connect(), house.connect());
        next.get("/");
        house.run();
        assert!(!is_last(&mut next));
        for peer in [&mut first, &mut next] {
            peer.get("/");
        }
        part.send("GET / HTTP/1.1\r\nHo");
        house.go(whole);
        house.run();
        part.send("st: localhost\r\n\r\n");
        house.run();
        for peer in [&mut first, &mut next, &mut part] {
            assert!(is_last(peer) && peer.at_end() && !peer.was_reset());
            peer.finish();
        }
        house.run();
        assert_eq!(house.context.link_count(), 0);
    }
}

#[test]
fn an_idle_connection_ends_at_once_and_is_not_reset_by_a_request_that_comes_too_late() {
    for whole in [true, false] {
        let mut house = House::new();
        let mut peer = house.connect();
        peer.get("/");
        house.run();
        assert!(!is_last(&mut peer));
        house.go(whole);
        house.run();
        assert!(peer.at_end());
        peer.get("/");
        house.run();
        assert!(peer.take().is_empty() && !peer.was_reset());
        peer.finish();
        house.run();
        assert_eq!(house.context.link_count(), 0);
    }
}

#[test]
fn a_first_request_is_waited_for_no_longer_than_for_closing() {
    let mut house = House::new();
    let (mut late, silent) = (house.connect(), house.connect());
    house.go(true);
    let closing = Limits::default().closing;
    let milli = Duration::from_millis(1);
    house.run_for(closing - milli);
    late.get("/");
    house.run();
    assert!(is_last(&mut late));
    late.finish();
    assert!(!silent.at_end());
    house.run_for(milli);
    assert!(silent.at_end());
    assert_eq!(house.context.link_count(), 0);
}

#[test]
fn a_client_that_was_told_that_the_connection_goes_on_has_its_next_request_answered() {
    for early in [true, false] {
        let mut house = House::new();
        let mut peer = house.connect();
        peer.get("/slow");
        house.run();
        if early {
            peer.get("/");
        }
        house.go(true);
        house.run_for(Duration::from_secs(1));
        assert!(!is_last(&mut peer));
        if early {
            assert!(is_last(&mut peer));
        }
        assert!(peer.at_end() && !peer.was_reset());
        peer.finish();
        house.run();
        assert_eq!(house.context.link_count(), 0);
    }
}

// Real sockets.

/// One server after another on a socket that all share, each in a thread of its own.
fn serve(listener: OwnedFd, ready: mpsc::Sender<Remote<()>>) {
    let mut context: Context = Context::new();
    let site = context.io().add_site(Site::new().protocol("", decide)).unwrap();
    context.io().listen(Listen::descriptor(listener), site).unwrap();
    ready.send(context.remote().unwrap()).unwrap();
    let mut host = Loop::new();
    host.run(&mut context, &mut ()).unwrap();
    host.leave(&mut context, &mut ());
}

/// Makes requests until there have been enough: on connections of its own each, or on those that are kept.
fn ask(address: SocketAddr, keeps: bool, left: &AtomicUsize, retried: &AtomicUsize) {
    let take = |left: usize| left.checked_sub(1);
    let mut kept: Option<TcpStream> = None;
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        loop {
            let is_new = kept.is_none();
            let mut stream =
                kept.take().unwrap_or_else(|| TcpStream::connect(address).expect("it is served"));
            let request = if keeps { "GET / HTTP/1.1\r\nHost: a\r\n\r\n" } else { "GET / HTTP/1.0\r\n\r\n" };
            stream.write_all(request.as_bytes()).expect("no reset");
            let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
            while !answer.ends_with(b"\r\n\r\npage") {
                match stream.read(&mut piece).expect("no reset") {
                    0 => break,
                    read => answer.extend_from_slice(&piece[..read]),
                }
            }
            if answer.is_empty() && !is_new {
                // The server's end and the request have crossed; what is kept may end (RFC 9112, section 9.3.1).
                retried.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let answer = String::from_utf8(answer).expect("text");
            assert!(answer.ends_with("\r\n\r\npage"), "{answer:?} on a connection that is new: {is_new}");
            if keeps && !answer.to_ascii_lowercase().contains("connection: close") {
                kept = Some(stream);
            }
            break;
        }
    }
}

#[test]
fn a_restart_under_load_resets_nobody_and_loses_no_request() {
    let requests = std::env::var("LODGER_RESTART_REQUESTS").ok().and_then(|count| count.parse().ok());
    let requests: usize = requests.unwrap_or(4_000);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (left, retried) = (AtomicUsize::new(requests), AtomicUsize::new(0));
    let (sender, ready) = mpsc::channel();
    let mut restarts = 0;
    thread::scope(|scope| {
        let start = || {
            let (socket, sender) = (listener.try_clone().unwrap().into(), sender.clone());
            let server = scope.spawn(move || serve(socket, sender));
            (server, ready.recv().unwrap())
        };
        let (mut server, mut remote) = start();
        let clients: Vec<_> = (0..6)
            .map(|at| {
                let (left, retried) = (&left, &retried);
                scope.spawn(move || ask(address, at % 2 == 0, left, retried))
            })
            .collect();
        // A restart for every few hundred requests.
        let mut next = requests;
        while !clients.iter().all(|client| client.is_finished()) {
            let now = left.load(Ordering::Relaxed);
            if now > next.saturating_sub(requests.min(400)) && now > 0 {
                thread::yield_now();
                continue;
            }
            next = now;
            if now == 0 {
                continue;
            }
            let (successor, its) = start();
            remote.post(|(), io| io.shutdown(CloseCode::GOING_AWAY)).unwrap();
            server.join().unwrap();
            (server, remote) = (successor, its);
            restarts += 1;
        }
        remote.post(|(), io| io.shutdown(CloseCode::GOING_AWAY)).unwrap();
        server.join().unwrap();
        for client in clients {
            client.join().unwrap();
        }
    });
    println!("{requests} requests, {restarts} restarts, {} tried again", retried.load(Ordering::Relaxed));
    assert!(restarts > 0);
}
