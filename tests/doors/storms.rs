//! Storms from seeds: crowds that connect, say little, say it slowly, leave and reset, and honest clients among them.

use super::{A_MOMENT, Town};
use lodger::sim::{Chaos, Endpoint, World, seeds};
use std::time::Duration;

const HANDSHAKES: usize = 8;
/// So many honest clients are on their way at once, and so many addresses flood: were nobody else there, each of the flood's
/// would have several of the places.
const HONEST: usize = 3;
const ADDRESSES: usize = 2;
/// How long an honest client may be kept waiting, the world's unkindness included.
const PATIENCE: Duration = Duration::from_secs(1);

/// splitmix64: the world has a generator of its own, which no choice made here may shift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A client that sends its request in pieces and is let in.
struct Honest {
    socket: Endpoint,
    sent: usize,
    since: Duration,
}

struct Storm {
    town: Town,
    dice: Dice,
    flood: Vec<Endpoint>,
    honest: Vec<Honest>,
    /// How many clients have come so far, each from an address of its own.
    came: usize,
    served: usize,
    max_links: usize,
    /// How much of what it could do the flood does.
    mischief: usize,
}

/// Everything.
const ALL: usize = 8;
/// Nothing for which it is refused: whoever is lingers for a while, which counts among the links and not among the handshakes.
const NOT_REFUSED: usize = 6;

impl Storm {
    fn new(seed: u64, chaos: Chaos, max_links: usize, mischief: usize) -> Self {
        let mut world = World::new(seed);
        world.chaos(chaos);
        let town = Town::with(world, |builder| {
            let builder = builder.max_handshakes(HANDSHAKES);
            if max_links == 0 { builder } else { builder.max_links(max_links + 2) }
        });
        let dice = Dice(seed);
        Self { town, dice, flood: Vec::new(), honest: Vec::new(), came: 0, served: 0, max_links, mischief }
    }

    /// Somebody of the flood does something.
    fn misbehave(&mut self) {
        if self.dice.below(2) == 0 || self.flood.is_empty() {
            let address = self.dice.below(ADDRESSES);
            let network = self.dice.below(1000);
            // Half of them change their addresses within their network.
            let from =
                if address == 0 { "10.9.9.9".to_owned() } else { format!("2001:db8:9:9::{network:x}") };
            self.flood.push(self.town.knock(&from));
            return;
        }
        let at = self.dice.below(self.flood.len());
        match self.dice.below(self.mischief) {
            0 => self.flood.swap_remove(at).reset(),
            1 => self.flood.swap_remove(at).close(),
            2 => self.flood[at].finish(),
            3 => self.flood[at].send("GET / HTTP/1.1\r\n"),
            4 => self.flood[at].send("X: y\r\n"),
            5 => self.flood[at].send("z"),
            6 => self.flood[at].send([0; 100]),
            _ => self.flood[at].send("x".repeat(20_000)),
        }
    }

    /// The honest clients go on.
    fn go_on(&mut self) {
        let now = self.town.world.elapsed();
        while self.honest.len() < HONEST {
            self.came += 1;
            let from = match self.came % 2 {
                0 => format!("10.0.{}.{}", self.came / 250 % 250, self.came % 250),
                _ => format!("2001:db8:1:{:x}::1", self.came),
            };
            let socket = self.town.knock(&from);
            self.honest.push(Honest { socket, sent: 0, since: now });
        }
        let mut waiting = Vec::new();
        for mut honest in std::mem::take(&mut self.honest) {
            assert!(!honest.socket.was_reset(), "an honest client was pushed out");
            if honest.sent < UPGRADE.len() {
                let most = 1 + self.dice.below(UPGRADE.len());
                let piece = &UPGRADE[honest.sent..(honest.sent + most).min(UPGRADE.len())];
                honest.socket.send(piece);
                honest.sent += piece.len();
            } else if honest.socket.upgraded() {
                self.served += 1;
                continue;
            }
            let waits = now - honest.since;
            assert!(waits < PATIENCE, "an honest client has waited for {waits:?}");
            waiting.push(honest);
        }
        self.honest = waiting;
    }

    fn check(&mut self) {
        let waiting = self.town.context.io().links().filter(|link| link.waits_for == "a request").count();
        assert!(waiting <= HANDSHAKES, "{waiting} handshakes");
        if self.max_links > 0 {
            let open = self.town.open();
            assert!(open <= self.max_links, "{open} links");
        }
    }

    fn rage(&mut self, steps: usize) {
        for _ in 0..steps {
            for _ in 0..self.dice.below(10) {
                self.misbehave();
            }
            self.flood.retain(|peer| !peer.at_end());
            self.go_on();
            if self.dice.below(50) == 0 {
                self.town.context.detach(self.town.world.host_mut());
            }
            match self.dice.below(4) {
                0 => drop(self.town.world.turn(&mut self.town.context, &mut self.town.log)),
                1 => self.town.run(),
                _ => self.town.run_for(A_MOMENT * self.dice.below(20) as u32),
            }
            self.check();
        }
    }

    /// All go, and nothing is left of them.
    fn subside(mut self) {
        self.flood.clear();
        self.honest.clear();
        self.town.run_for(Duration::from_secs(60));
        assert_eq!(self.town.open(), 0);
        assert!(self.town.is_accepting());
        assert_eq!(self.town.world.wait(), lodger::Wait::FOREVER);
    }
}

#[test]
fn honest_clients_get_in_through_every_storm() {
    for seed in seeds(8) {
        let mut storm = Storm::new(seed, Chaos::NONE, 0, ALL);
        storm.rage(200);
        assert!(storm.served > 30, "seed {seed}: {} were served", storm.served);
        storm.subside();
    }
}

#[test]
fn honest_clients_get_in_through_every_storm_in_an_unkind_world() {
    let chaos = Chaos { failing_accepts: 0.02, ..Chaos::wild() };
    for seed in seeds(8) {
        let mut storm = Storm::new(seed, chaos, 0, ALL - 1);
        storm.rage(200);
        assert!(storm.served > 10, "seed {seed}: {} were served", storm.served);
        storm.subside();
    }
}

#[test]
fn honest_clients_get_in_through_every_storm_at_the_bound_of_links() {
    for seed in seeds(8) {
        let mut storm = Storm::new(seed, Chaos::NONE, HANDSHAKES, NOT_REFUSED);
        storm.rage(200);
        assert!(storm.served > 30, "seed {seed}: {} were served", storm.served);
        storm.subside();
    }
}

#[test]
fn a_shutdown_ends_everything_in_the_middle_of_every_storm() {
    for seed in seeds(8) {
        let mut storm = Storm::new(seed, Chaos::wild(), 0, ALL - 1);
        storm.rage(50);
        storm.town.context.io().shutdown(lodger::ws::CloseCode::GOING_AWAY);
        storm.town.run_for(Duration::from_secs(60));
        assert_eq!(storm.town.context.io().link_count(), 0, "seed {seed}");
    }
}
