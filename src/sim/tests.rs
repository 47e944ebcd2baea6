//! A whole server in the world: what holds in every world, and that a world is the same each time.

use super::{Change, Chaos, Endpoint, Frame, World, seeds};
use crate::{Context, Cx, Decision, Interest, Io, Limits, Listen, Peer, Request, Site, raw, ws};
use std::time::Duration;

/// Echoes messages, bytes, and counts what has ended.
struct Echo;

impl ws::Handler<u32> for Echo {
    fn message(&mut self, cx: &mut Cx<'_, u32>, message: ws::Message<'_>) {
        let _ = cx.send(message);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, u32>, _: crate::Closed) {
        *cx.data += 1;
    }
}

impl raw::Handler<u32> for Echo {
    fn received(&mut self, cx: &mut Cx<'_, u32>, bytes: &[u8]) {
        let _ = cx.write(bytes);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, u32>, _: crate::Closed) {
        *cx.data += 1;
    }
}

fn any_port() -> Listen {
    Listen::tcp(([127, 0, 0, 1], 0))
}

/// A context that echoes messages at one address, and bytes at another.
fn echo(world: &mut World) -> (Context<u32>, Peer, Peer) {
    let mut context: Context<u32> = world.builder().build();
    let io = context.io();
    let site =
        Site::new().protocol("", |_: &Request<'_>, _: &mut u32, _: &mut Io<u32>| Decision::websocket(Echo));
    let site = io.add_site(site).unwrap();
    let messages = io.listen(any_port(), site).unwrap();
    let bytes = io.listen_raw(any_port(), Limits::default(), |_, _, _| Some(Box::new(Echo))).unwrap();
    let (messages, bytes) = (io.local_addr(messages).unwrap(), io.local_addr(bytes).unwrap());
    (context, messages, bytes)
}

fn frames(peer: &mut Endpoint) -> Vec<Frame> {
    std::iter::from_fn(|| peer.next_frame()).collect()
}

/// Peers of both kinds talk, close in turn, and leave. Returns a sum of all that happened.
fn conversation(seed: u64, chaos: Chaos) -> u64 {
    let (mut world, mut ended) = (World::new(seed), 0);
    world.chaos(chaos);
    let (mut context, messages, bytes) = echo(&mut world);
    let mut talkers: Vec<_> = (0..6).map(|_| world.connect(&messages).unwrap()).collect();
    let mut senders: Vec<_> = (0..6).map(|_| world.connect(&bytes).unwrap()).collect();
    let sent = [Frame::text("hello"), Frame::binary(vec![7; 3000]), Frame::text(""), Frame::binary([1; 200])];
    for (talker, sender) in talkers.iter_mut().zip(&mut senders) {
        talker.upgrade("/");
        sent.iter().for_each(|frame| talker.send_frame(frame));
        sender.send(vec![9; 5000]);
    }
    world.run(&mut context, &mut ended);
    for (talker, sender) in talkers.iter_mut().zip(&mut senders) {
        assert!(talker.upgraded());
        assert_eq!(frames(talker), sent);
        assert_eq!(sender.take(), vec![9; 5000]);
        talker.send_close(1000, "bye");
        sender.finish();
    }
    world.run(&mut context, &mut ended);
    for (mut talker, sender) in talkers.into_iter().zip(senders) {
        let answer = talker.next_frame().unwrap();
        assert_eq!(answer.close_code(), Some(1000));
        assert!(talker.at_end() && sender.at_end());
        assert!(!talker.was_reset() && !sender.was_reset());
    }
    world.run(&mut context, &mut ended);
    assert_eq!(ended, 12);
    assert_eq!(world.host().watched().count(), 2);
    world.leave(&mut context, &mut ended);
    assert_eq!(world.network().open_descriptors(), 0);
    world.fingerprint()
}

#[test]
fn an_unkind_world_makes_no_difference_that_anybody_notices() {
    conversation(1, Chaos::NONE);
    for seed in seeds(200) {
        conversation(seed, Chaos::wild());
    }
}

#[test]
fn the_same_seed_makes_the_same_world() {
    let first = conversation(5, Chaos::wild());
    // Other numbers are free now, which must not matter.
    let _taken = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(conversation(5, Chaos::wild()), first);
    assert_ne!(conversation(6, Chaos::wild()), first);
}

#[test]
fn in_a_hostile_world_everything_ends_and_nothing_is_left() {
    for seed in seeds(200) {
        let (mut world, mut ended) = (World::new(seed), 0);
        world.chaos(Chaos::hostile());
        let (mut context, messages, bytes) = echo(&mut world);
        for round in 0..5 {
            // A listener that the host refused is gone.
            let peers = [&messages, &bytes, &messages, &bytes].map(|address| world.connect(address).ok());
            let mut peers = Vec::from_iter(peers.into_iter().flatten());
            for peer in &mut peers {
                peer.upgrade("/");
                peer.send_text("hello");
            }
            world.run_for(&mut context, &mut ended, Duration::from_millis(100 * round));
            for (at, peer) in peers.into_iter().enumerate() {
                if at % 2 == 0 { peer.reset() } else { peer.close() }
            }
        }
        world.chaos(Chaos::wild());
        world.run_for(&mut context, &mut ended, Duration::from_secs(60));
        assert!(
            context.io().links().all(|link| link.conn.is_none()),
            "{:?}",
            context.io().links().collect::<Vec<_>>()
        );
        world.leave(&mut context, &mut ended);
        assert_eq!(world.network().open_descriptors(), 0);
    }
}

#[test]
fn an_echo_costs_the_host_nothing_and_idleness_wakes_nobody() {
    let (mut world, mut ended) = (World::new(1), 0);
    let (mut context, messages, _) = echo(&mut world);
    world.run(&mut context, &mut ended);
    let mut peer = world.connect(&messages).unwrap();
    peer.upgrade("/");
    world.run(&mut context, &mut ended);
    assert!(peer.upgraded());
    let [.., Change::Add(_, Interest::READ)] = world.host_mut().take_changes()[..] else {
        panic!("not added")
    };
    let before = world.host().wake_ups();
    for _ in 0..10 {
        peer.send_text("again");
        world.run(&mut context, &mut ended);
        assert_eq!(peer.next_frame(), Some(Frame::text("again")));
    }
    assert_eq!(world.host().changes(), []);
    assert_eq!(world.host().wake_ups() - before, 10);
    world.run_for(&mut context, &mut ended, Duration::from_secs(3600));
    assert_eq!(world.host().wake_ups() - before, 10);
    world.leave(&mut context, &mut ended);
}

#[test]
fn a_peer_that_does_not_read_is_given_up_at_the_limit_and_not_before() {
    let (mut world, mut ended) = (World::new(1), 0);
    world.chaos(Chaos { buffer: 1000, ..Chaos::NONE });
    let (mut context, _, bytes) = echo(&mut world);
    let mut peer = world.connect(&bytes).unwrap();
    peer.stop_reading();
    peer.send(vec![1; 5000]);
    let stall = Limits::default().write_stall;
    world.run_for(&mut context, &mut ended, stall - Duration::from_secs(1));
    assert_eq!(ended, 0);
    world.run_for(&mut context, &mut ended, Duration::from_secs(5));
    assert_eq!(ended, 1);
    assert!(peer.was_reset());
    world.leave(&mut context, &mut ended);
}

#[test]
fn what_is_sent_behind_the_own_end_goes_nowhere() {
    let mut world = World::new(1);
    let (fd, mut peer) = world.socket().unwrap();
    peer.send("all");
    peer.finish();
    peer.send("more");
    let mut context: Context<String> = world.builder().build();
    let mut heard = String::new();
    context.io().adopt_raw(fd, b"", Limits::default(), Box::new(Listener)).unwrap();
    world.run(&mut context, &mut heard);
    assert_eq!(heard, "all");
    world.leave(&mut context, &mut heard);
}

struct Listener;

impl crate::raw::Handler<String> for Listener {
    fn received(&mut self, cx: &mut crate::Cx<'_, String>, bytes: &[u8]) {
        cx.data.push_str(&String::from_utf8_lossy(bytes));
    }
}
