//! Worlds from seeds: a network and a loop as unkind as they may be, peers that stop, end, reset or vanish anywhere. Each
//! conn that began ends once, and nothing is left behind.

use super::rig::{Frame, State, upgrade};
use super::script::Script;
use super::town::{Hall, TlsPeer, Town, VERSIONS, any_port};
use lodger::sim::{Chaos, seeds};
use lodger::{Io, Limits, Peer, Site, raw};
use std::time::Duration;

/// A few choices from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> usize {
        // Knuth's constants; the upper bits are good enough.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end) as usize
    }
}

/// Echoes, and at times does what it should rather not.
fn moody(mut dice: Dice) -> Script {
    Script::new(move |cx, heard| {
        use super::script::Heard;
        let sent = match heard {
            Heard::Text(text) => cx.send(text.as_str()),
            Heard::Binary(bytes) => cx.send(&bytes[..]),
            Heard::Bytes(bytes) => cx.write(bytes),
            Heard::Timer => {
                cx.conn().resume();
                return;
            }
            _ => return,
        };
        let _ = sent;
        match dice.below(40) {
            0 => cx.close(),
            1 => cx.conn().abort(),
            2 => cx.conn().finish(),
            3..6 => {
                cx.conn().pause();
                cx.conn().set_timer(Duration::from_millis(20));
            }
            6 => drop(cx.io.conn(cx.id()).map(|conn| conn.tls().expect("it is secured"))),
            _ => {}
        }
    })
}

fn world(seed: u64, chaos: Chaos) {
    let mut dice = Dice(seed);
    dice.below(1);
    let mut town = Town::seeded(seed);
    town.world.chaos(chaos);
    town.version(VERSIONS[dice.below(2)]);
    let mut handlers = Dice(seed ^ 0xdead);
    let hall = Hall::new("", move || moody(Dice(handlers.below(1 << 30) as u64)));
    let site = Site::new().protocol("", hall).tls(town.server.clone());
    let site = town.context.io().add_site(site).unwrap();
    let web = town.context.io().listen(any_port().tls(), site).unwrap();
    let mut handlers = Dice(seed ^ 0xbeef);
    let accept = move |_: &Peer, _: &mut State, _: &mut Io<State>| {
        let script = moody(Dice(handlers.below(1 << 30) as u64));
        Some(Box::new(script) as Box<dyn raw::Handler<State>>)
    };
    let bytes =
        town.context.io().listen_raw(any_port().tls_with(town.server.clone()), Limits::default(), accept);
    let listeners = [web, bytes.unwrap()];
    town.run_for(Duration::from_millis(10));
    let mut peers: Vec<(TlsPeer, bool)> = Vec::new();
    for _ in 0..60 {
        match dice.below(12) {
            0..3 if peers.len() < 12 => {
                let raw = dice.below(2) == 1;
                // In a hostile world it may be gone.
                let address = town.context.io().local_addr(listeners[usize::from(raw)]);
                let Some(Ok(socket)) = address.map(|address| town.world.connect(&address)) else { continue };
                let mut peer = TlsPeer::new(socket, "localhost", &town.client);
                peer.step = [0, 1, 7, 100, 1000][dice.below(5)];
                if !raw {
                    peer.say(upgrade("/", ""));
                }
                peers.push((peer, raw));
            }
            _ if peers.is_empty() => {}
            act => {
                let at = dice.below(peers.len() as u64);
                let (peer, raw) = &mut peers[at];
                match act {
                    0..6 if *raw => peer.say(vec![b'x'; dice.below(30_000)]),
                    0..5 => peer.say(Frame::binary(vec![b'y'; dice.below(30_000)]).masked()),
                    5 => peer.say(Frame::text("short").masked().repeat(dice.below(300))),
                    6 => peer.socket().stop_reading(),
                    7 => peer.socket().resume_reading(),
                    8 if dice.below(3) == 0 => peer.close_notify(),
                    9 if dice.below(3) == 0 => peer.finish(),
                    10 if dice.below(3) == 0 => drop(peers.swap_remove(at)),
                    11 if dice.below(5) == 0 => peers.swap_remove(at).0.socket.take().unwrap().reset(),
                    11 if dice.below(5) == 0 && !peer.finished => {
                        let noise: Vec<u8> = (0..dice.below(100)).map(|_| dice.below(256) as u8).collect();
                        peer.socket().send(noise);
                    }
                    _ => {}
                }
            }
        }
        for (peer, _) in &mut peers {
            peer.pump();
        }
        match dice.below(3) {
            0 => town.turn(),
            1 => town.run(),
            _ => town.run_for(Duration::from_millis(dice.below(50) as u64)),
        }
    }
    peers.clear();
    town.run_for(Duration::from_secs(600));
    let left: Vec<String> = town.context.io().links().map(|link| format!("{link:?}")).collect();
    assert!(left.len() <= 2 && left.iter().all(|link| link.contains("listener")), "{left:#?}");
    let log = town.log();
    let opened = log.iter().filter(|line| *line == "opened").count();
    let closed = log.iter().filter(|line| line.starts_with("closed")).count();
    // Who was still in the handshake, on a raw listener, has heard of no opening.
    assert!(closed >= opened, "{opened} opened, {closed} closed: {log:?}");
    assert!(town.state.conns.len() == opened);
}

#[test]
fn in_a_kind_world_every_conn_ends_once() {
    for seed in seeds(20) {
        world(seed, Chaos::NONE);
    }
}

#[test]
fn in_a_wild_world_every_conn_ends_once() {
    for seed in seeds(40) {
        world(seed, Chaos::wild());
    }
}

#[test]
fn in_a_hostile_world_every_conn_ends_once() {
    for seed in seeds(40) {
        world(seed, Chaos::hostile());
    }
}
