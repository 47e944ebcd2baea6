//! Names with many addresses: in which order they are tried, when the next one is, and what becomes of the losers.

use super::town::{MILLI, Script, TIMEOUT, Town, open, peer};
use lodger::Connect;
use lodger::client::{ConnectError, Step};
use lodger::sim::Reach;
use std::io::ErrorKind;
use std::time::Duration;

const STAGGER: Duration = Duration::from_millis(250);

/// A town where `many.example` has these addresses, of which these say nothing.
fn town(addresses: &[&str], silent: &[&str]) -> Town {
    let mut town = Town::new();
    let parsed = addresses.iter().map(|address| address.parse().unwrap());
    town.world.names().set("many.example", parsed, Duration::ZERO);
    for address in silent {
        town.world.reach(&peer(&at(address)), Reach::Silent);
    }
    town
}

/// The address, at the port that all are connected to.
fn at(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") }
}

fn connect() -> Connect {
    Connect::to("ws://many.example/")
}

#[test]
fn the_second_family_has_its_try_a_quarter_of_a_second_later() {
    let mut town = town(&["2001:db8::1", "2001:db8::2", "10.0.0.1"], &["2001:db8::1", "2001:db8::2"]);
    let mut server = town.server("10.0.0.1:80");
    let id = town.ws(connect(), Script::quiet());
    town.run_for(STAGGER - MILLI);
    assert_eq!(town.descriptors(), 1);
    assert!(server.accept().is_none());
    town.run_for(MILLI);
    let mut peer = town.accept(&mut server);
    // The winner has closed the loser, and the third was never tried.
    assert_eq!((town.descriptors(), town.context.io().link_count()), (1, 1));
    assert_eq!(town.context.io().conn(id).unwrap().peer(), Some(super::town::peer("10.0.0.1:80")));
    open(&mut peer, "");
    town.run_for(TIMEOUT);
    assert_eq!(town.log(), ["connected"]);
}

#[test]
fn an_address_that_answers_at_once_is_the_only_one_that_is_tried() {
    let mut town = town(&["10.0.0.1", "10.0.0.2"], &[]);
    let (mut first, mut second) = (town.server("10.0.0.1:80"), town.server("10.0.0.2:80"));
    town.ws(connect(), Script::quiet());
    open(&mut town.accept(&mut first), "");
    town.run_for(TIMEOUT);
    assert!(second.accept().is_none() && first.accept().is_none());
    assert_eq!(town.log()[0], "connected");
}

#[test]
fn a_refused_address_lets_the_next_go_on_at_once() {
    let mut town = town(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], &[]);
    town.world.reach(&peer("10.0.0.2:80"), Reach::Unreachable);
    let mut server = town.server("10.0.0.3:80");
    town.ws(connect(), Script::quiet());
    let mut peer = town.accept(&mut server);
    assert_eq!(town.world.elapsed(), Duration::ZERO);
    open(&mut peer, "");
    town.run();
    assert_eq!((town.log(), town.descriptors()), (vec!["connected".to_owned()], 1));
}

#[test]
fn silent_addresses_are_tried_one_beside_the_other() {
    let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
    let mut town = town(&addresses, &addresses[..3]);
    let mut server = town.server("10.0.0.4:80");
    town.ws(connect(), Script::quiet());
    town.run();
    for under_way in 1..=3 {
        assert_eq!(town.descriptors(), under_way);
        town.run_for(STAGGER - MILLI);
        assert_eq!(town.descriptors(), under_way);
        town.run_for(MILLI);
    }
    let mut peer = town.accept(&mut server);
    assert_eq!(town.descriptors(), 1);
    open(&mut peer, "");
    town.run();
    assert_eq!(town.log(), ["connected"]);
}

#[test]
fn an_address_that_was_given_up_for_slow_may_still_win() {
    let mut town = town(&["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]);
    town.ws(connect(), Script::quiet());
    town.run_for(2 * STAGGER);
    assert_eq!(town.descriptors(), 2);
    let mut late = town.server("10.0.0.1:80");
    let mut peer = town.accept(&mut late);
    assert_eq!(town.descriptors(), 1);
    open(&mut peer, "");
    town.run_for(TIMEOUT);
    assert_eq!(town.log(), ["connected"]);
}

#[test]
fn when_two_answer_in_the_same_turn_one_wins_and_the_other_is_closed() {
    let mut town = town(&["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]);
    town.ws(connect(), Script::quiet());
    town.run_for(2 * STAGGER);
    let (mut first, mut second) = (town.server("10.0.0.1:80"), town.server("10.0.0.2:80"));
    town.run();
    let (first, second) = (first.accept().unwrap(), second.accept().unwrap());
    assert_eq!(town.descriptors(), 1);
    let (mut winner, loser) = if first.at_end() { (second, first) } else { (first, second) };
    assert!(loser.at_end() && loser.received().is_empty() && !winner.at_end());
    open(&mut winner, "");
    town.run();
    assert_eq!(town.log(), ["connected"]);
}

#[test]
fn when_all_fail_the_error_names_each_attempt_in_the_order_of_failing() {
    let mut town = town(&["10.0.0.1", "10.0.0.2", "2001:db8::1"], &["10.0.0.1"]);
    town.world.reach(&peer("[2001:db8::1]:80"), Reach::Unreachable);
    town.ws(connect(), Script::quiet());
    town.run_for(2 * STAGGER);
    assert!(town.log().is_empty());
    // Nobody listens there now, so that it is refused.
    town.world.reach(&peer("10.0.0.1:80"), Reach::Refused);
    town.run();
    let error = town.refusal();
    let ConnectError::Unreachable(attempts) = &error else { panic!("{error:?}") };
    let found: Vec<_> = attempts.iter().map(|attempt| (attempt.peer.clone(), attempt.error.kind())).collect();
    let expected = [
        (peer("[2001:db8::1]:80"), ErrorKind::HostUnreachable),
        (peer("10.0.0.2:80"), ErrorKind::ConnectionRefused),
        (peer("10.0.0.1:80"), ErrorKind::ConnectionRefused),
    ];
    assert_eq!(found, expected);
    let text = error.to_string();
    assert!(expected.iter().all(|(peer, _)| text.contains(&peer.to_string())), "{text}");
    assert_eq!(town.descriptors(), 0);
}

#[test]
fn an_end_of_time_names_the_addresses_that_had_failed() {
    let mut town = town(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], &["10.0.0.2", "10.0.0.3"]);
    town.ws(connect().timeout(Duration::from_secs(1)), Script::quiet());
    town.run_for(Duration::from_secs(1));
    let error = town.refusal();
    let ConnectError::TimedOut { step: Step::Connecting, attempts } = &error else { panic!("{error:?}") };
    assert_eq!(attempts.iter().map(|attempt| &attempt.peer).collect::<Vec<_>>(), [&peer("10.0.0.1:80")]);
    assert_eq!(town.descriptors(), 0);
}

#[test]
fn giving_up_closes_all_that_are_under_way() {
    for leaves in [false, true] {
        let addresses = ["10.0.0.1", "2001:db8::1", "10.0.0.2"];
        let mut town = town(&addresses, &addresses);
        let id = town.ws(connect(), Script::quiet());
        town.run_for(3 * STAGGER);
        assert_eq!(town.descriptors(), 3);
        if leaves {
            town.leave();
        } else {
            town.context.io().conn(id).unwrap().abort();
            town.run();
        }
        assert_eq!((town.log().len(), town.descriptors()), (1, 0));
    }
}

#[test]
fn a_host_that_refuses_an_address_has_the_next_one_tried() {
    let mut town = town(&["10.0.0.1", "10.0.0.2"], &[]);
    let (_first, mut second) = (town.server("10.0.0.1:80"), town.server("10.0.0.2:80"));
    town.world.host_mut().fail_adds(1);
    town.ws(connect(), Script::quiet());
    open(&mut town.accept(&mut second), "");
    town.run();
    assert_eq!(town.log()[0], "connected");
}

#[test]
fn a_race_stops_short_of_the_limit_of_links() {
    let mut town = Town::new();
    let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    town.world.names().set("many.example", addresses.map(|address| address.parse().unwrap()), Duration::ZERO);
    for address in addresses {
        town.world.reach(&peer(&at(address)), Reach::Silent);
    }
    let mut context = town.world.builder().max_links(2).build();
    context.io().connect(connect(), Script::quiet());
    town.world.run_for(&mut context, &mut town.state, TIMEOUT - MILLI);
    assert_eq!(town.descriptors(), 2);
    // One that fails makes room for the one that has not had its turn.
    town.world.reach(&peer("10.0.0.1:80"), Reach::Refused);
    let mut third = town.server("10.0.0.3:80");
    town.world.run(&mut context, &mut town.state);
    let mut peer = third.accept().unwrap();
    open(&mut peer, "");
    town.world.run(&mut context, &mut town.state);
    assert_eq!(town.log(), ["connected"]);
    town.world.leave(&mut context, &mut town.state);
}

#[test]
fn the_two_addresses_of_localhost_are_known_without_a_resolver() {
    let mut town = Town::new();
    let mut server = town.server("127.0.0.1:80");
    town.ws(Connect::to("ws://localhost/"), Script::quiet());
    open(&mut town.accept(&mut server), "");
    town.run();
    assert_eq!((town.log()[0].as_str(), town.world.names().asked()), ("connected", 0));
}

#[test]
fn with_room_for_one_link_each_address_and_each_redirect_has_it_in_turn() {
    let mut town = Town::new();
    let addresses = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
    town.world.names().set("many.example", addresses, Duration::ZERO);
    let mut context = town.world.builder().max_links(1).build();
    let mut server = town.server("10.0.0.2:80");
    context.io().connect(connect(), Script::quiet());
    town.world.run(&mut context, &mut town.state);
    server.accept().unwrap().send("HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n");
    town.world.run(&mut context, &mut town.state);
    let mut peer = server.accept().unwrap_or_else(|| panic!("{:?}", town.state.log));
    assert!(open(&mut peer, "").starts_with("GET /b "));
    town.world.run(&mut context, &mut town.state);
    assert_eq!(town.log(), ["connected"]);
    town.world.leave(&mut context, &mut town.state);
}
