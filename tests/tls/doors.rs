//! Where there is no room for a new connection: handshakes that give way, and what is heard of them.

use super::script::Script;
use super::town::{TlsPeer, Town};
use lodger::sim::{Chaos, Endpoint, seeds};
use lodger::{Limits, Peer};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const A_MOMENT: Duration = Duration::from_millis(1);

fn crowded(handshakes: usize) -> Town {
    let mut town = Town::empty();
    town.context = town.world.builder().max_handshakes(handshakes).build();
    town
}

/// A connection from an address, a moment after what was before.
fn knock(town: &mut Town, from: &str, port: u16) -> Endpoint {
    let from: IpAddr = from.parse().unwrap();
    let from = Peer::Inet(SocketAddr::new(from, port));
    let socket = town.world.connect_from(town.address.as_ref().unwrap(), Some(from)).unwrap();
    town.run_for(A_MOMENT);
    socket
}

fn client(town: &mut Town, from: &str, port: u16) -> TlsPeer {
    let socket = knock(town, from, port);
    TlsPeer::new(socket, "localhost", &town.client)
}

#[test]
fn a_site_hears_that_a_handshake_gave_way() {
    let mut town = crowded(2);
    town.listen_hall(Limits::default(), Script::quiet);
    let silent = [knock(&mut town, "10.0.0.1", 1), knock(&mut town, "10.0.0.1", 2)];
    let mut honest = client(&mut town, "10.0.0.2", 1);
    assert_eq!([silent[0].was_reset(), silent[1].was_reset()], [true, false]);
    assert_eq!(town.log(), ["failed HandshakeGaveWay"]);
    town.settle(&mut honest);
    assert!(!honest.tls.is_handshaking());
}

#[test]
fn a_raw_connection_hears_that_it_gave_way_and_nothing_else() {
    let mut town = crowded(2);
    town.listen_raw(Limits::default(), Script::echo);
    let silent = [knock(&mut town, "10.0.0.1", 1), knock(&mut town, "10.0.0.1", 2)];
    let mut honest = client(&mut town, "10.0.0.2", 1);
    assert_eq!([silent[0].was_reset(), silent[1].was_reset()], [true, false]);
    assert_eq!(town.log(), ["closed: GaveWay"]);
    town.settle(&mut honest);
    assert!(!honest.tls.is_handshaking());
    assert_eq!(town.log(), ["opened"]);
    // It is up, and gives way to nobody any more.
    for port in 10..20 {
        drop(knock(&mut town, "10.0.0.2", port));
        let _silent = knock(&mut town, "10.0.0.2", port + 100);
    }
    honest.say("hello");
    town.settle(&mut honest);
    assert_eq!(honest.heard(), b"hello");
}

#[test]
fn who_is_secured_and_has_made_no_request_gives_way_without_a_word() {
    let mut town = crowded(2);
    town.listen_hall(Limits::default(), Script::quiet);
    let mut first = client(&mut town, "10.0.0.1", 1);
    town.settle(&mut first);
    let _second = client(&mut town, "10.0.0.1", 2);
    town.log();
    let _third = knock(&mut town, "10.0.0.2", 1);
    assert!(first.socket().was_reset());
    assert_eq!(town.log(), [""; 0]);
}

#[test]
fn a_handshake_that_waits_for_its_share_of_the_turn_is_not_silent() {
    let mut town = crowded(100);
    town.listen_hall(Limits::default(), Script::quiet);
    let mut peers: Vec<TlsPeer> = (0..100).map(|port| client(&mut town, "10.0.0.1", port + 1)).collect();
    for peer in &mut peers {
        peer.say("GET /in HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        peer.pump();
    }
    // More than go on in a turn: most of them wait here, and the newcomers behind them.
    let _late: Vec<Endpoint> = (0..50).map(|_| town.socket()).collect();
    let mut still = 0;
    while still < 10 {
        town.turn();
        let moved = peers.iter_mut().fold(false, |moved, peer| peer.pump() | moved);
        still = if moved { 0 } else { still + 1 };
    }
    assert!(peers.iter_mut().all(|peer| peer.answer() == Some((200, "/in".to_owned()))));
}

#[test]
fn half_a_hello_from_everywhere_keeps_no_honest_client_out() {
    for seed in seeds(3) {
        let mut town = Town::seeded(seed);
        town.context = town.world.builder().max_handshakes(8).build();
        town.world.chaos(Chaos { trickle: 0.2, reordered: 0.5, early_prepare: 0.1, ..Chaos::NONE });
        town.listen_hall(Limits::default(), Script::quiet);
        let mut half = Vec::new();
        for round in 0..20_u16 {
            let mut honest = client(&mut town, "10.0.0.1", round + 1);
            for step in 0..12_u16 {
                let port = 1000 + 100 * round + step;
                let network = (u64::from(port) + seed) % 3;
                let mut liar = client(&mut town, &format!("2001:db8:0:{network}::{port:x}"), port);
                let mut hello = liar.records();
                hello.truncate(usize::from(port) * 7 % hello.len());
                liar.socket().send(&hello);
                if step % 3 == 0 {
                    liar.socket.take().unwrap().reset();
                } else {
                    half.push(liar);
                }
                honest.pump();
                let handshakes = town.context.io().links().filter(|link| link.role == "http").count();
                assert!(handshakes <= 9, "seed {seed}: {handshakes}");
            }
            honest.say("GET /in HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            town.settle(&mut honest);
            assert_eq!(honest.answer(), Some((200, "/in".to_owned())), "seed {seed}, round {round}");
        }
        drop(half);
        town.run_for(Duration::from_secs(60));
        assert_eq!(town.links(), 1, "seed {seed}");
    }
}
