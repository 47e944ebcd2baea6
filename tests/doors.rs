//! Where there is no room for a new connection: who gives way, and who does not. In the simulated world.

#[path = "doors/flood.rs"]
mod flood;
#[path = "doors/storms.rs"]
mod storms;
#[path = "support/mod.rs"]
mod support;

use lodger::sim::{Chaos, Endpoint, World};
use lodger::{
    Builder, Closed, Context, Cx, Decision, Interest, Io, Limits, Listen, Peer, Request, Response, Site, raw,
    ws,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;
use support::in_own_process;

const HALF_A_SECOND: Duration = Duration::from_millis(500);
const A_MOMENT: Duration = Duration::from_millis(1);

/// A site on a listener, and another listener for raw connections.
struct Town {
    world: World,
    context: Context<Vec<String>>,
    log: Vec<String>,
    address: Peer,
    raw_address: Peer,
    last_port: u16,
}

struct Quiet;

impl ws::Handler<Vec<String>> for Quiet {}

impl raw::Handler<Vec<String>> for Quiet {
    fn closed(self: Box<Self>, cx: &mut Cx<'_, Vec<String>>, closed: Closed) {
        cx.data.push(format!("{:?}", closed.reason));
    }
}

impl Town {
    fn new(set_up: impl FnOnce(Builder) -> Builder) -> Self {
        Self::with(World::new(1), set_up)
    }

    fn with(mut world: World, set_up: impl FnOnce(Builder) -> Builder) -> Self {
        let mut context: Context<Vec<String>> = set_up(world.builder()).build();
        let accept =
            |request: &Request<'_>, _: &mut Vec<String>, _: &mut Io<Vec<String>>| match request.path() {
                _ if request.is_websocket() => Decision::websocket(Quiet),
                "/later" => Decision::Later,
                path => Decision::respond(Response::text(path.to_owned())),
            };
        let io = context.io();
        let site = io.add_site(Site::new().protocol("", accept)).unwrap();
        let any_port = || Listen::tcp(([127, 0, 0, 1], 0));
        let listener = io.listen(any_port(), site).unwrap();
        let raw = |_: &Peer, _: &mut Vec<String>, _: &mut Io<Vec<String>>| {
            Some(Box::new(Quiet) as Box<dyn raw::Handler<Vec<String>>>)
        };
        let raw = io.listen_raw(any_port(), Limits::default(), raw).unwrap();
        let address = io.local_addr(listener).unwrap();
        let raw_address = io.local_addr(raw).unwrap();
        let log = Vec::new();
        let mut town = Self { world, context, log, address, raw_address, last_port: 1000 };
        town.run();
        town
    }

    /// Room for so many handshakes.
    fn handshakes(count: usize) -> Self {
        Self::new(|builder| builder.max_handshakes(count))
    }

    /// Room for so many connections beside the two listeners.
    fn links(count: usize) -> Self {
        Self::new(|builder| builder.max_links(count + 2))
    }

    fn run(&mut self) {
        self.world.run(&mut self.context, &mut self.log);
    }

    fn run_for(&mut self, time: Duration) {
        self.world.run_for(&mut self.context, &mut self.log, time);
    }

    /// A connection from an address that waits to be accepted.
    fn knock(&mut self, from: &str) -> Endpoint {
        self.last_port += 1;
        let from: IpAddr = from.parse().unwrap();
        let from = Peer::Inet(SocketAddr::new(from, self.last_port));
        self.world.connect_from(&self.address, Some(from)).unwrap()
    }

    /// A connection that was accepted, a moment after what was before.
    fn enter(&mut self, from: &str) -> Endpoint {
        let endpoint = self.knock(from);
        self.run_for(A_MOMENT);
        endpoint
    }

    /// Whether both listeners are watched.
    fn is_accepting(&mut self) -> bool {
        let listeners = self.context.io().links().filter(|link| link.role == "listener");
        listeners.filter(|link| link.interest == Interest::READ).count() == 2
    }

    /// What is open beside the listeners.
    fn open(&mut self) -> usize {
        self.context.io().link_count() - 2
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.world.leave(&mut self.context, &mut self.log);
            assert_eq!(self.context.io().link_count(), 0);
            assert_eq!(self.world.network().open_descriptors(), 0);
        }
    }
}

/// The content of the response that has come.
fn answer(endpoint: &mut Endpoint) -> String {
    let answer = endpoint.next_answer().expect("it was served");
    String::from_utf8(answer.content).unwrap()
}

/// Which of them are gone.
fn gone<const N: usize>(endpoints: [&Endpoint; N]) -> [bool; N] {
    endpoints.map(|endpoint| {
        let gone = endpoint.at_end();
        assert_eq!(gone, endpoint.was_reset(), "whoever gives way is reset");
        gone
    })
}

#[test]
fn of_the_address_that_has_most_the_one_silent_longest_gives_way() {
    let mut town = Town::handshakes(5);
    let oldest = town.enter("10.0.0.1");
    let first = town.enter("10.0.0.2");
    let second = town.enter("10.0.0.2");
    let other = town.enter("10.0.0.3");
    let third = town.enter("10.0.0.2");
    assert_eq!(gone([&oldest, &first, &second, &other, &third]), [false; 5]);
    let sixth = town.enter("10.0.0.4");
    assert_eq!(
        gone([&oldest, &first, &second, &other, &third, &sixth]),
        [false, true, false, false, false, false]
    );
    let seventh = town.enter("10.0.0.5");
    assert_eq!(
        gone([&oldest, &second, &other, &third, &sixth, &seventh]),
        [false, true, false, false, false, false]
    );
    assert!(town.is_accepting());
}

#[test]
fn whoever_floods_pushes_out_their_own() {
    let mut town = Town::handshakes(8);
    let honest: Vec<_> = (1..=4).map(|host| town.enter(&format!("10.0.0.{host}"))).collect();
    let flood: Vec<_> = (0..100).map(|_| town.enter("10.9.9.9")).collect();
    assert!(honest.iter().all(|peer| !peer.at_end()));
    assert_eq!(flood.iter().filter(|peer| peer.at_end()).count(), 96);
    assert!(flood[96..].iter().all(|peer| !peer.at_end()));
    assert_eq!(town.open(), 8);
}

#[test]
fn a_newcomer_counts_for_its_own_address_before_it_is_decided_who_gives_way() {
    let mut town = Town::handshakes(4);
    let first = town.enter("10.0.0.1");
    let second = town.enter("10.0.0.1");
    let third = town.enter("10.0.0.2");
    let fourth = town.enter("10.0.0.2");
    let _fifth = town.enter("10.0.0.2");
    assert_eq!(gone([&first, &second, &third, &fourth]), [false, false, true, false]);
}

#[test]
fn an_ipv6_network_of_64_bits_counts_as_one_address() {
    let mut town = Town::handshakes(5);
    let mapped = town.enter("::ffff:10.0.0.1");
    let neighbour = town.enter("2001:db8:0:1::1");
    let first = town.enter("2001:db8:0:2::1");
    let second = town.enter("2001:db8:0:2:ffff::2");
    let plain = town.enter("10.0.0.9");
    let _sixth = town.enter("2001:db8:0:2::3");
    assert_eq!(gone([&mapped, &neighbour, &first, &second, &plain]), [false, false, true, false, false]);
    // An IPv4 address is the same address in either form: it has two by now, as the network has, and the one silent longest of
    // all four goes.
    let _seventh = town.enter("10.0.0.1");
    assert_eq!(gone([&mapped, &neighbour, &second, &plain]), [true, false, false, false]);
}

#[test]
fn what_has_come_lately_keeps_a_connection_longer() {
    let mut town = Town::handshakes(3);
    let mut slow = town.enter("10.0.0.1");
    let mut slower = town.enter("10.0.0.1");
    let silent = town.enter("10.0.0.1");
    slower.send("GET ");
    town.run_for(A_MOMENT);
    slow.send("GET ");
    town.run_for(A_MOMENT);
    let _fourth = town.enter("10.0.0.1");
    assert_eq!(gone([&slow, &slower, &silent]), [false, false, true]);
    let _fifth = town.enter("10.0.0.1");
    assert_eq!(gone([&slow, &slower]), [false, true]);
}

#[test]
fn one_with_bytes_unread_in_its_socket_stays_and_is_served() {
    let mut town = Town::handshakes(3);
    let mut busy = town.enter("10.0.0.1");
    let silent = town.enter("10.0.0.1");
    let other = town.enter("10.0.0.1");
    // All of it lies in the sockets before the loop comes round: the listener, which it is told of first, is served first.
    busy.get("/a");
    let new = town.knock("10.0.0.2");
    town.run();
    assert_eq!(answer(&mut busy), "/a");
    assert_eq!(gone([&silent, &other, &new]), [true, false, false]);
}

#[test]
fn a_crowd_whose_requests_lie_unread_is_served_and_nobody_gives_way() {
    let mut town = Town::handshakes(40);
    let mut crowd: Vec<_> = (0..40).map(|_| town.enter("10.0.0.1")).collect();
    for peer in &mut crowd {
        peer.get("/a");
    }
    let late: Vec<_> = (0..40).map(|_| town.knock("10.0.0.1")).collect();
    town.run();
    for peer in &mut crowd {
        assert_eq!(answer(peer), "/a");
    }
    assert!(late.iter().all(|peer| !peer.at_end()));
}

#[test]
fn whoever_sends_a_byte_now_and_then_keeps_nobody_out() {
    let mut town = Town::handshakes(4);
    let mut flood: Vec<_> = (0..4).map(|_| town.enter("10.0.0.1")).collect();
    for _ in 0..100 {
        let mut honest = town.knock("10.0.0.2");
        for _ in 0..20 {
            flood.iter_mut().filter(|peer| !peer.at_end()).for_each(|peer| peer.send("x"));
            town.world.turn(&mut town.context, &mut town.log);
        }
        honest.get("/in");
        town.run();
        assert_eq!(answer(&mut honest), "/in");
        flood.retain(|peer| !peer.at_end());
        while flood.len() < 4 {
            flood.push(town.knock("10.0.0.1"));
        }
        town.run();
    }
}

#[test]
fn no_address_has_more_than_one_and_each_has_half_a_second() {
    let mut town = Town::handshakes(2);
    let first = town.enter("10.0.0.1");
    let second = town.enter("10.0.0.2");
    let mut third = town.knock("10.0.0.3");
    third.get("/third");
    town.run_for(HALF_A_SECOND - 10 * A_MOMENT);
    assert_eq!(gone([&first, &second]), [false, false]);
    assert!(third.received().is_empty() && !town.is_accepting());
    // It is looked at again within a quarter of a second.
    town.run_for(HALF_A_SECOND / 2 + 10 * A_MOMENT);
    assert_eq!(gone([&first, &second]), [true, false]);
    assert_eq!(answer(&mut third), "/third");
}

#[test]
fn a_crowd_of_honest_clients_with_an_address_each_is_served_without_pushing_one_another_out() {
    let mut town = Town::handshakes(4);
    let mut crowd: Vec<_> = (1..=60).map(|host| town.knock(&format!("10.0.1.{host}"))).collect();
    // A round trip lies between connecting and the request.
    town.run_for(100 * A_MOMENT);
    for peer in &mut crowd {
        peer.get("/");
    }
    town.run_for(100 * A_MOMENT);
    for peer in &mut crowd {
        assert_eq!(answer(peer), "/");
    }
}

#[test]
fn who_has_made_a_request_never_gives_way() {
    let mut town = Town::handshakes(2);
    let mut websocket = town.enter("10.0.0.1");
    websocket.upgrade("/");
    town.run();
    assert!(websocket.upgraded());
    let mut idle = town.enter("10.0.0.1");
    idle.get("/");
    town.run();
    let mut undecided = town.enter("10.0.0.1");
    undecided.get("/later");
    town.run();
    let flood: Vec<_> = (0..10).map(|_| town.enter("10.0.0.1")).collect();
    assert_eq!(gone([&websocket, &idle, &undecided]), [false; 3]);
    assert_eq!(flood.iter().filter(|peer| !peer.at_end()).count(), 2);
}

#[test]
fn at_the_bound_of_links_whoever_has_made_no_request_gives_way() {
    let mut town = Town::links(3);
    let mut websocket = town.enter("10.0.0.1");
    websocket.upgrade("/");
    town.run();
    let first = town.enter("10.0.0.1");
    let second = town.enter("10.0.0.1");
    let mut third = town.enter("10.0.0.2");
    assert_eq!(gone([&websocket, &first, &second, &third]), [false, true, false, false]);
    assert_eq!(town.open(), 3);
    // A connection of a raw listener needs a place as well.
    let raw = town.world.connect(&town.raw_address.clone()).unwrap();
    town.run_for(HALF_A_SECOND);
    third.get("/");
    town.run_for(HALF_A_SECOND);
    assert_eq!(gone([&websocket, &second, &third, &raw]), [false, true, false, false]);
    assert_eq!(town.open(), 3);
    // From here on nobody can give way.
    let _fourth = town.enter("10.0.0.3");
    assert_eq!(gone([&websocket, &third, &raw]), [false; 3]);
    assert!(!town.is_accepting());
}

#[test]
fn a_flood_at_the_bound_of_links_pushes_out_its_own() {
    let mut town = Town::links(6);
    let mut honest = town.enter("10.0.0.1");
    for _ in 0..100 {
        let _flood: Vec<_> = (0..7).map(|_| town.knock("10.0.0.2")).collect();
        town.run();
        assert!(town.open() <= 6);
        assert!(!honest.at_end());
    }
    honest.get("/");
    town.run();
    assert_eq!(answer(&mut honest), "/");
}

#[test]
fn readiness_that_is_not_there_costs_nobody_a_place() {
    for mut town in [Town::links(3), Town::handshakes(3)] {
        let peers: Vec<_> = (0..3).map(|_| town.enter("10.0.0.1")).collect();
        town.world.chaos(Chaos { spurious: 1.0, repeated: 0.5, reordered: 0.5, ..Chaos::NONE });
        for _ in 0..100 {
            town.world.turn(&mut town.context, &mut town.log);
        }
        assert!(peers.iter().all(|peer| !peer.at_end()));
        town.world.chaos(Chaos::NONE);
    }
}

#[test]
fn who_is_not_let_in_pushes_nobody_out() {
    let mut town = Town::new(|builder| builder.max_handshakes(3).max_per_address(2));
    let first = town.enter("10.0.0.1");
    let second = town.enter("10.0.0.1");
    let third = town.enter("10.0.0.2");
    for _ in 0..10 {
        let refused = town.enter("10.0.0.1");
        assert!(refused.at_end());
    }
    assert_eq!(gone([&first, &second, &third]), [false; 3]);
}

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        LOGGED.lock().unwrap().push(format!("{} {} {}", record.level(), record.target(), record.args()));
    }
    fn flush(&self) {}
}

#[test]
fn the_log_says_once_a_minute_how_many_gave_way() {
    if !in_own_process("the_log_says_once_a_minute_how_many_gave_way") {
        return;
    }
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let mut town = Town::handshakes(4);
    let said = |count: usize, port: u16| {
        format!(
            "WARN lodger::net connections that made no request have given way to new ones: {count}, the last of 10.0.0.1:{port}"
        )
    };
    let _flood: Vec<_> = (0..20).map(|_| town.enter("10.0.0.1")).collect();
    assert_eq!(*LOGGED.lock().unwrap(), [said(1, 1001)]);
    town.run_for(Duration::from_secs(60));
    let _more: Vec<_> = (0..5).map(|_| town.enter("10.0.0.1")).collect();
    assert_eq!(*LOGGED.lock().unwrap(), [said(1, 1001), said(16, 1021)]);
}
