//! Crowds that connect to nobody: what the loop's turns are like meanwhile.

use super::town::{MILLI, Script, State, Town, open, peer};
use lodger::resolve::ResolveError;
use lodger::sim::{Endpoint, Reach};
use lodger::{Connect, Context, Listen, Site};
use std::time::Duration;

const CROWD: usize = 1000;

/// A town where others are served at port 80, and whose client they are: all echo.
fn town() -> (Town, Vec<Endpoint>) {
    let mut town = Town::new();
    town.serve(Listen::tcp(([10, 0, 0, 1], 80)), |site| site);
    town.run();
    let mut peers: Vec<Endpoint> = (0..5)
        .map(|_| {
            let mut peer = town.world.connect(&peer("10.0.0.1:80")).unwrap();
            peer.upgrade("/");
            peer
        })
        .collect();
    town.run();
    assert!(peers.iter_mut().all(Endpoint::upgraded));
    (town, peers)
}

/// Has each peer say something in every turn, and counts the turns in which one of them got no answer to what it had said in
/// the turn before.
fn gaps(town: &mut Town, peers: &mut [Endpoint], turns: usize, step: Duration) -> usize {
    let mut gaps = 0;
    peers.iter_mut().for_each(|peer| peer.send_text("echo"));
    for _ in 0..turns {
        town.world.turn(&mut town.context, &mut town.state);
        // What was written goes out as the loop prepares to sleep, or before.
        let _ = town.context.prepare(town.world.host_mut());
        for peer in peers.iter_mut() {
            gaps += usize::from(peer.next_frame().is_none());
            peer.send_text("echo");
        }
        town.world.advance(step);
    }
    gaps
}

/// How many ends were told in the last turn, and in the one with the most of them.
fn count(town: &Town, told: &mut usize, most: &mut usize) {
    *most = (*most).max(town.state.ends.len() - *told);
    *told = town.state.ends.len();
}

/// Takes the answers that are still under way, in the one turn that they need.
fn answer(town: &mut Town, peers: &mut [Endpoint]) {
    town.world.turn(&mut town.context, &mut town.state);
    let _ = town.context.prepare(town.world.host_mut());
    assert!(peers.iter_mut().all(|peer| peer.next_frame().is_some()));
}

#[test]
fn a_thousand_connects_to_a_black_hole_hold_nobody_up() {
    let (mut town, mut peers) = town();
    town.world.reach(&peer("10.0.0.9:80"), Reach::Silent);
    for _ in 0..CROWD {
        town.ws(Connect::to("ws://10.0.0.9/"), Script::quiet());
    }
    assert_eq!(gaps(&mut town, &mut peers, 40, 10 * MILLI), 0);
    assert_eq!(town.context.io().link_count(), CROWD + 6);
    let wake_ups = town.world.host().wake_ups();
    town.run();
    town.run_for(Duration::from_secs(1));
    // What answers nothing wakes nobody.
    assert!(town.world.host().wake_ups() <= wake_ups + 10, "{}", town.world.host().wake_ups() - wake_ups);
    // Their time is up for all of them in the same instant: the others are served beside their ends.
    town.world.advance(Duration::from_secs(5));
    let (mut told, mut most) = (0, 0);
    while town.context.io().link_count() > 6 || told < CROWD {
        assert_eq!(gaps(&mut town, &mut peers, 1, Duration::ZERO), 0);
        count(&town, &mut told, &mut most);
        answer(&mut town, &mut peers);
        count(&town, &mut told, &mut most);
    }
    assert!(most < CROWD, "all in one turn");
    assert_eq!(town.state.ends.len(), CROWD);
}

#[test]
fn a_thousand_names_that_nobody_answers_hold_nobody_up() {
    let (mut town, mut peers) = town();
    town.world.names().silence("silent.example");
    for _ in 0..CROWD {
        town.ws(Connect::to("ws://silent.example/"), Script::quiet());
    }
    assert_eq!(gaps(&mut town, &mut peers, 40, 10 * MILLI), 0);
    assert_eq!((town.world.names().asked(), town.context.io().link_count()), (CROWD, 6));
    town.run();
    town.run_for(Duration::from_secs(5));
    assert_eq!((town.state.ends.len(), town.world.names().cancelled()), (CROWD, CROWD));
}

#[test]
fn a_thousand_names_that_fail_at_once_are_told_turn_by_turn() {
    let (mut town, mut peers) = town();
    town.world.names().fail("failing.example", ResolveError::Again, MILLI);
    for _ in 0..CROWD {
        town.ws(Connect::to("ws://failing.example/"), Script::quiet());
    }
    town.world.advance(2 * MILLI);
    let (mut told, mut most) = (0, 0);
    while told < CROWD {
        assert_eq!(gaps(&mut town, &mut peers, 1, Duration::ZERO), 0);
        count(&town, &mut told, &mut most);
        answer(&mut town, &mut peers);
        count(&town, &mut told, &mut most);
    }
    assert!(most < CROWD, "all in one turn");
}

#[test]
fn a_thousand_connections_that_are_made_at_once_are_all_made() {
    let mut town = Town::new();
    let mut other: Context<State> = town.world.builder().build();
    let mut others = State::default();
    let site = other.io().add_site(Site::new().protocol("", super::town::serve)).unwrap();
    other.io().listen(Listen::tcp(([10, 0, 0, 1], 80)), site).unwrap();
    for _ in 0..CROWD {
        town.ws(Connect::to("ws://10.0.0.1/"), Script::quiet());
    }
    town.world.run_all(&mut [(&mut town.context, &mut town.state), (&mut other, &mut others)]);
    assert_eq!(town.log().len(), CROWD);
    assert_eq!((town.context.io().link_count(), town.state.ends.len()), (CROWD, 0));
    town.leave();
    town.world.leave(&mut other, &mut others);
}

#[test]
fn one_that_is_served_is_heard_while_a_crowd_is_refused() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    town.ws(Connect::to("ws://10.0.0.1/"), Script::named("served", |_, _| {}));
    let mut peer = town.accept(&mut server);
    open(&mut peer, "");
    town.run();
    for _ in 0..CROWD {
        town.ws(Connect::to("ws://10.0.0.9/"), Script::named("refused", |_, _| {}));
    }
    peer.send(b"\x81\x02hi");
    town.run();
    let log = town.log();
    assert_eq!(log.iter().filter(|line| *line == "served: text hi").count(), 1);
    assert_eq!(town.state.ends.len(), CROWD);
    assert_eq!(town.descriptors(), 1);
}
