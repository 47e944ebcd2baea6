//! What a listener's protocol hears of connections: that each begins and ends, once, whatever comes between; and what is done by
//! the number of a descriptor.

use lodger::sim::{Chaos, Endpoint, World};
use lodger::ws::CloseCode;
use lodger::{
    Closed, Connection, ConnectionEnd, Context, Cx, Decision, Io, Limits, Listen, ListenerId, Peer, Protocol,
    Request, Response, Site, SiteId, ws,
};
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// What is heard, and what is to be done.
#[derive(Default)]
struct Desk {
    log: Vec<String>,
    /// Connections that have begun and not ended.
    open: Vec<Connection>,
    /// What panics, once.
    panics: Option<&'static str>,
    refuses: bool,
    hangs_up_at_once: bool,
}

impl Desk {
    fn note(&mut self, line: impl Into<String>) {
        self.log.push(line.into());
        if self.panics.is_some_and(|line| self.log.last().is_some_and(|last| last.starts_with(line))) {
            self.panics = None;
            panic!("as the test wants it");
        }
    }
}

/// The protocol of a site, by a name for the log.
struct Porter(&'static str);

impl Protocol<Desk> for Porter {
    fn filter(&mut self, _: &Peer, desk: &mut Desk) -> bool {
        !desk.refuses
    }

    fn connection_began(&mut self, connection: &Connection, desk: &mut Desk, io: &mut Io<Desk>) {
        assert!(desk.open.iter().all(|known| known.fd != connection.fd), "a number has begun twice");
        assert!(io.links().any(|link| link.fd == connection.fd && link.role == "http"));
        assert_eq!(io.find_fd(connection.fd), None, "no request was made");
        desk.open.push(connection.clone());
        if desk.hangs_up_at_once {
            assert!(io.hang_up(connection.fd));
        }
        desk.note(format!("{}began", self.0));
    }

    fn connection_ended(
        &mut self,
        connection: &Connection,
        reason: ConnectionEnd,
        desk: &mut Desk,
        io: &mut Io<Desk>,
    ) {
        let place = desk.open.iter().position(|known| known == connection);
        desk.open.remove(place.expect("it has begun, and not ended"));
        let has_number = io.links().any(|link| link.fd == connection.fd);
        assert!(
            has_number || matches!(reason, ConnectionEnd::Released),
            "its number is not to be used again before"
        );
        assert!(!io.hang_up(connection.fd));
        desk.note(format!("{}ended: {reason}", self.0));
    }

    fn accept(&mut self, request: &Request<'_>, desk: &mut Desk, _: &mut Io<Desk>) -> Decision<Desk> {
        desk.note(format!("{}accept", self.0));
        match request.path() {
            _ if request.is_websocket() => Decision::websocket(Talk),
            "/later" => Decision::Later,
            "/handler" => Decision::http(Exchange),
            _ => Decision::respond(Response::text("page")),
        }
    }

    fn ended(&mut self, desk: &mut Desk, _: &mut Io<Desk>) {
        desk.note(format!("{}site ended", self.0));
    }
}

struct Exchange;

impl lodger::http::Handler<Desk> for Exchange {
    fn request(&mut self, cx: &mut Cx<'_, Desk>, _: &Request<'_>) {
        let _ = cx.respond(Response::text("page"));
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Desk>, closed: Closed) {
        cx.data.note(format!("closed: {}", closed.reason));
    }
}

struct Talk;

impl ws::Handler<Desk> for Talk {
    fn message(&mut self, cx: &mut Cx<'_, Desk>, message: ws::Message<'_>) {
        let ws::Message::Text(text) = message else { return };
        cx.data.note(text);
        match text {
            "abort" => cx.conn().abort(),
            "release" => cx.conn().release(),
            _ => {}
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Desk>, closed: Closed) {
        cx.data.note(format!("closed: {}", closed.reason));
    }
}

struct House {
    world: World,
    context: Context<Desk>,
    desk: Desk,
    site: SiteId,
    listener: ListenerId,
}

impl House {
    fn new() -> Self {
        Self::with(1, Limits::default())
    }

    fn with(seed: u64, limits: Limits) -> Self {
        let mut world = World::new(seed);
        let mut context: Context<Desk> = world.builder().build();
        let io = context.io();
        let site = Site::new().protocol("", Porter("")).protocol("chat", Porter("chat: ")).limits(limits);
        let site = io.add_site(site).unwrap();
        let listener = io.listen(Listen::tcp(([127, 0, 0, 1], 0)), site).unwrap();
        let mut house = Self { world, context, desk: Desk::default(), site, listener };
        house.run();
        house
    }

    fn connect(&mut self) -> Endpoint {
        let address = self.context.io().local_addr(self.listener).unwrap();
        let peer = self.world.connect(&address).unwrap();
        self.run();
        peer
    }

    fn upgraded(&mut self) -> Endpoint {
        let mut peer = self.connect();
        peer.upgrade("/");
        self.run();
        assert!(peer.upgraded());
        peer
    }

    fn run(&mut self) {
        self.world.run(&mut self.context, &mut self.desk);
    }

    fn run_for(&mut self, time: Duration) {
        self.world.run_for(&mut self.context, &mut self.desk, time);
    }

    /// What was heard since.
    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.desk.log)
    }

    /// The number of the only connection.
    fn fd(&self) -> RawFd {
        let [only] = &self.desk.open[..] else { panic!("{:?}", self.desk.open) };
        only.fd
    }

    fn links(&self) -> usize {
        self.context.link_count()
    }
}

#[test]
fn a_connection_that_makes_no_request_begins_and_ends() {
    let mut house = House::new();
    let peer = house.connect();
    assert_eq!(house.log(), ["began"]);
    let [connection] = &house.desk.open[..] else { panic!() };
    assert_eq!((&connection.peer, connection.listener), (&peer.address(), house.listener));
    peer.close();
    house.run();
    assert_eq!(house.log(), ["ended: the peer ended the connection"]);
    assert_eq!(house.links(), 1);

    let peer = house.connect();
    peer.reset();
    house.run();
    let log = house.log();
    assert_eq!(log.len(), 2);
    assert!(log[1].starts_with("ended: reading or writing failed: "), "{log:?}");

    let _silent = house.connect();
    house.run_for(Limits::default().handshake);
    assert_eq!(house.log(), ["began", "ended: timed out: Handshake"]);
    assert_eq!(house.links(), 1);
}

#[test]
fn requests_come_and_go_within_one_connection() {
    let mut house = House::new();
    let mut peer = house.connect();
    for _ in 0..2 {
        peer.get("/handler");
        house.run();
        assert_eq!(peer.next_answer().unwrap().status, 200);
    }
    house.run_for(Limits::default().keep_alive);
    let exchange = ["accept", "closed: exchange complete"];
    let all = [&["began"], &exchange[..], &exchange[..], &["ended: timed out: KeepAlive"]].concat();
    assert_eq!(house.log(), all);
}

#[test]
fn a_connection_ends_behind_its_conn_and_for_the_same_reason() {
    let mut house = House::new();
    let mut peer = house.upgraded();
    peer.send_close(1000, "bye");
    house.run();
    peer.finish();
    house.run();
    let reason = "closed by the peer, code 1000";
    assert_eq!(house.log(), ["began", "accept", &format!("closed: {reason}"), &format!("ended: {reason}")]);

    let mut peer = house.upgraded();
    peer.send_text("abort");
    house.run();
    assert_eq!(house.log()[2..], ["abort", "closed: aborted by us", "ended: aborted by us"]);

    let mut peer = house.upgraded();
    peer.send([0xff, 0xff]);
    house.run();
    peer.close();
    house.run();
    let log = house.log();
    assert!(log[2].starts_with("closed: the peer broke the protocol: "), "{log:?}");
    assert_eq!(log[2].strip_prefix("closed"), log[3].strip_prefix("ended"));
    assert_eq!((log.len(), house.links()), (4, 1));
}

#[test]
fn a_released_connection_ends_before_its_descriptor_is_given_away() {
    let mut house = House::new();
    let mut peer = house.upgraded();
    peer.send_text("release");
    house.run();
    assert_eq!(house.log(), ["began", "accept", "release", "ended: released", "closed: released"]);
    assert_eq!(house.links(), 1);
}

#[test]
fn the_protocol_that_is_asked_whom_to_let_in_is_told_whichever_a_request_is_for() {
    let mut house = House::new();
    let mut peer = house.connect();
    peer.upgrade_with("/", "Sec-WebSocket-Protocol: chat\r\n");
    house.run();
    assert!(peer.upgraded());
    peer.close();
    house.run();
    let log = house.log();
    let ended = "the peer ended the connection";
    assert_eq!(log, ["began", "chat: accept", &format!("closed: {ended}"), &format!("ended: {ended}")]);

    house.desk.refuses = true;
    let peer = house.connect();
    assert!(peer.at_end());
    assert_eq!(house.log(), [""; 0]);
}

#[test]
fn each_end_is_told_when_the_host_refuses_the_context_leaves_or_the_site_goes() {
    let mut house = House::new();
    house.world.host_mut().fail_adds(1);
    let _peer = house.connect();
    let log = house.log();
    assert_eq!(log.len(), 2);
    assert!(log[1].starts_with("ended: the host refused the descriptor: "), "{log:?}");

    let (_idle, _talking) = (house.connect(), house.upgraded());
    let mut leaving = house;
    leaving.log();
    leaving.world.leave(&mut leaving.context, &mut leaving.desk);
    let reason = "the context is leaving";
    let mut log = leaving.log();
    log[..3].sort();
    let (closed, ended) = (format!("closed: {reason}"), format!("ended: {reason}"));
    assert_eq!(log, [&closed, &ended, &ended, "site ended", "chat: site ended"]);
    assert!(leaving.desk.open.is_empty());

    let mut house = House::new();
    let mut idle = house.connect();
    idle.get("/handler");
    house.run();
    idle.finish();
    let site = house.site;
    house.context.io().remove_site(site);
    house.run();
    let ends = ["ended: the peer ended the connection", "site ended", "chat: site ended"];
    assert_eq!(house.log(), [&["began", "accept", "closed: exchange complete"][..], &ends].concat());
}

#[test]
fn an_end_outside_of_service_calls_is_told_before_the_number_is_closed() {
    let mut house = House::new();
    let _peer = house.upgraded();
    let fd = house.fd();
    let id = house.context.io().find_fd(fd).unwrap();
    house.context.io().conn(id).unwrap().abort();
    let open = house.world.network().open_descriptors();
    let _ = house.context.prepare(house.world.host_mut());
    assert_eq!(house.world.network().open_descriptors(), open);
    house.log();
    house.run();
    assert_eq!(house.log(), ["closed: aborted by us", "ended: aborted by us"]);
    assert_eq!(house.world.network().open_descriptors(), open - 1);
}

#[test]
fn whoever_unwinds_the_connection_is_aborted_and_its_end_told() {
    for line in ["began", "accept", "message", "closed", "ended"] {
        let mut house = House::new();
        house.desk.panics = Some(line);
        let address = house.context.io().local_addr(house.listener).unwrap();
        let mut peer = house.world.connect(&address).unwrap();
        let mut unwound = 0;
        for step in 0..6 {
            match step {
                1 => peer.upgrade("/"),
                2 => peer.send_text("message"),
                3 => peer.send_close(1000, ""),
                4 => peer.finish(),
                _ => {}
            }
            let run = AssertUnwindSafe(|| house.run());
            unwound += usize::from(catch_unwind(run).is_err());
        }
        assert_eq!(unwound, 1, "{line}");
        drop(peer);
        house.run();
        let log = house.log();
        assert_eq!(log.iter().filter(|line| line.starts_with("began")).count(), 1, "{log:?}");
        assert_eq!(log.iter().filter(|line| line.starts_with("ended")).count(), 1, "{log:?}");
        assert!(house.desk.open.is_empty());
        assert_eq!(house.links(), 1, "{line}: {log:?}");
    }
}

#[test]
fn a_connection_is_hung_up_by_its_number_in_the_way_of_its_role() {
    // Nothing was asked: our end, and no reset.
    let mut house = House::new();
    let mut peer = house.connect();
    let fd = house.fd();
    assert!(house.context.io().hang_up(fd));
    house.run();
    assert!(peer.at_end() && !peer.was_reset());
    // It is closing already, and counts until the peer has followed.
    assert!(house.context.io().hang_up(fd));
    peer.finish();
    house.run();
    assert!(!house.context.io().hang_up(fd));
    assert_eq!(house.log(), ["began", "ended: closed by us"]);

    // A request that waits for its response.
    let mut peer = house.connect();
    peer.get("/later");
    house.run();
    let fd = house.fd();
    assert!(house.context.io().hang_up(fd));
    peer.finish();
    house.run();
    assert!(peer.at_end() && peer.take().is_empty());
    assert_eq!(house.log(), ["began", "accept", "ended: closed by us"]);

    let mut peer = house.upgraded();
    let fd = house.fd();
    assert!(house.context.io().hang_up(fd));
    house.run();
    assert_eq!(peer.next_frame().unwrap().payload, 1000u16.to_be_bytes());
    peer.send_close(1000, "");
    peer.finish();
    house.run();
    let reason = "closed by us, code 1000";
    assert_eq!(house.log()[2..], [format!("closed: {reason}"), format!("ended: {reason}")]);

    house.desk.hangs_up_at_once = true;
    let mut peer = house.connect();
    peer.finish();
    house.run();
    assert!(peer.at_end());
    assert_eq!(house.log(), ["began", "ended: closed by us"]);

    let io = house.context.io();
    let listener = io.links().find(|link| link.role == "listener").unwrap().fd;
    assert!(!io.hang_up(listener) && !io.hang_up(-1) && !io.hang_up(RawFd::MAX));
    assert_eq!(house.links(), 1);
}

#[test]
fn a_conn_is_found_by_its_number_before_the_host_knows_it_and_after_detach() {
    let mut house = House::new();
    let (socket, _peer) = house.world.socket().unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    let limits = Limits::default();
    let id = house.context.io().adopt_websocket(socket, &[], limits, Box::new(Talk)).unwrap();
    assert_eq!(house.context.io().find_fd(fd), Some(id));
    let ready = lodger::Ready::READ;
    assert_eq!(house.context.service(fd, ready, &mut house.desk), lodger::Served::Foreign, "not added yet");
    house.run();
    assert_eq!(house.context.io().find_fd(fd), Some(id));
    for _ in 0..2 {
        house.context.detach(house.world.host_mut());
        assert_eq!(house.context.io().find_fd(fd), Some(id));
        assert_eq!(house.context.service(fd, ready, &mut house.desk), lodger::Served::Foreign);
    }
    house.run();
    assert_eq!(house.context.service(fd, ready, &mut house.desk), lodger::Served::Ours);
    // Unwatched while it is paused, and lodger's all the same.
    house.context.io().conn(id).unwrap().pause();
    house.run();
    assert_eq!(house.context.io().find_fd(fd), Some(id));
    house.context.detach(house.world.host_mut());
    house.context.io().conn(id).unwrap().abort();
    assert_eq!(house.context.io().find_fd(fd), None);
    house.run();
    assert_eq!(house.log(), ["closed: aborted by us"]);
    assert_eq!(house.links(), 1);
}

#[test]
fn the_sites_that_share_a_listener_leave_the_telling_to_the_first() {
    let mut house = House::new();
    let io = house.context.io();
    let cats = Site::new().protocol("", Porter("cats: ")).hosts(["cats.example"]);
    let cats = io.add_site(cats).unwrap();
    io.share_listener(house.listener, cats).unwrap();
    let mut peer = house.connect();
    peer.send("GET / HTTP/1.1\r\nHost: cats.example\r\n\r\n");
    house.run();
    assert_eq!(house.log(), ["began", "cats: accept"]);
    peer.finish();
    house.run();
    assert_eq!(house.log(), ["ended: the peer ended the connection"]);

    // What outlives the site that was told has nobody to be told any more.
    let mut peer = house.connect();
    peer.send("GET / HTTP/1.1\r\nHost: cats.example\r\n\r\n");
    house.run();
    let site = house.site;
    house.context.io().remove_site(site);
    house.run();
    assert_eq!(house.log(), ["began", "cats: accept", "site ended", "chat: site ended"]);
    house.desk.open.clear();
    let second = house.connect();
    assert_eq!(house.log(), ["cats: began"]);
    peer.finish();
    second.close();
    house.run();
    assert_eq!(house.log(), ["cats: ended: the peer ended the connection"]);
    house.context.io().shutdown(CloseCode::GOING_AWAY);
    house.run();
    assert_eq!(house.links(), 0);
}

#[test]
fn in_any_world_each_beginning_has_one_end() {
    for seed in lodger::sim::seeds(200) {
        let limits = Limits { handshake: SECOND, keep_alive: SECOND, closing: SECOND, ..Limits::default() };
        let mut house = House::with(seed, limits);
        house.world.chaos(Chaos::hostile());
        let mut peers = Vec::new();
        for at in 0..24 {
            let Some(address) = house.context.io().local_addr(house.listener) else { break };
            let mut peer = house.world.connect(&address).unwrap();
            match (seed + at) % 6 {
                0 => peer.finish(),
                1 => peer.get("/handler"),
                2 => peer.upgrade("/"),
                3 => peer.send("nonsense\r\n\r\n"),
                4 => peer.get("/later"),
                _ => {}
            }
            if at % 5 == 0 {
                peer.reset();
            } else {
                peers.push(peer);
            }
            house.run_for(Duration::from_millis(70 * (at % 4)));
            if at % 3 == 0
                && let Some(fd) = house.desk.open.first().map(|connection| connection.fd)
            {
                house.context.io().hang_up(fd);
            }
        }
        if seed % 2 == 0 {
            house.world.leave(&mut house.context, &mut house.desk);
        } else {
            house.context.io().shutdown(CloseCode::GOING_AWAY);
            drop(peers);
            house.run_for(10 * SECOND);
            assert_eq!(house.links(), 0);
        }
        let count = |what: &str| house.desk.log.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!(count("began"), count("ended"));
        assert!(house.desk.open.is_empty());
        assert_eq!(house.world.network().open_descriptors(), 0);
    }
}
