//! What handshakes cost the others: a share of each turn.

use super::records::open;
use super::rig::Frame;
use super::script::Script;
use super::town::{TlsPeer, Town};
use lodger::Limits;
use std::collections::HashMap;

/// How many steps of handshakes a turn has room for.
const PER_TURN: usize = 16;

#[test]
fn two_hundred_handshakes_at_once_leave_every_turn_to_those_that_are_up() {
    let mut town = Town::hall(Limits::default(), Script::echo);
    let mut up = town.secured();
    open(&mut town, &mut up);
    let mut peers: Vec<TlsPeer> = (0..200).map(|_| town.connect()).collect();
    let mut received: HashMap<i32, u64> = HashMap::new();
    let mut turns = 0;
    while peers.iter().any(|peer| peer.tls.is_handshaking()) || count(&town, "secured") < 201 {
        turns += 1;
        assert!(turns < 200, "{} of 200 are up", count(&town, "secured"));
        for peer in &mut peers {
            peer.pump();
        }
        // A turn to carry it there, and one to be served.
        up.say(Frame::text("hello").masked());
        up.pump();
        let before = count(&town, "text hello");
        town.turn();
        if count(&town, "text hello") == before {
            town.turn();
        }
        assert_eq!(count(&town, "text hello"), before + 1, "it has to wait for handshakes");
        up.pump();
        assert_eq!(up.heard(), Frame::text("hello").unmasked());
        let mut steps = 0;
        for link in town.context.io().links().filter(|link| link.role == "http") {
            let known = received.insert(link.fd, link.received).unwrap_or(0);
            steps += usize::from(link.received > known);
        }
        assert!(steps <= 2 * PER_TURN, "{steps} steps");
    }
    // They have needed two steps each.
    assert!(turns >= 200 * 2 / (2 * PER_TURN), "{turns} turns");
    for peer in &mut peers {
        peer.say("GET /up HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    town.settle_all(&mut peers);
    assert!(peers.iter_mut().all(|peer| peer.answer() == Some((200, "/up".to_owned()))));
}

fn count(town: &Town, begin: &str) -> usize {
    town.state.log.iter().filter(|line| line.starts_with(begin)).count()
}

#[test]
fn handshakes_that_wait_for_their_share_survive_the_end_of_their_peers() {
    let mut town = Town::hall(Limits::default(), Script::echo);
    let mut peers: Vec<TlsPeer> = (0..100).map(|_| town.connect()).collect();
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.pump();
        match at % 4 {
            0 => peer.finish(),
            1 => peer.socket.take().unwrap().reset(),
            2 => drop(peer.socket.take()),
            _ => {}
        }
    }
    town.settle_all(&mut peers);
    assert_eq!(count(&town, "secured"), 25);
    assert_eq!(town.links(), 26);
}

#[test]
fn handshakes_that_wait_for_their_share_are_left_in_order() {
    let mut town = Town::hall(Limits::default(), Script::echo);
    let mut peers: Vec<TlsPeer> = (0..100).map(|_| town.connect()).collect();
    for peer in &mut peers {
        peer.pump();
    }
    town.turn();
    town.context.detach(town.world.host_mut());
    town.turn();
    town.context.io().shutdown(lodger::ws::CloseCode::GOING_AWAY);
    // Each may still make its first request, which it cannot know to come too late.
    town.run_for(Limits::default().closing);
    assert_eq!(town.links(), 0);
    assert_eq!(town.world.wait(), lodger::Wait::FOREVER);
}
