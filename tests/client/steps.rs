//! Each step of connecting, and everything that can happen while it is under way: its time is up, the other end goes, the
//! application gives up, the context leaves, the host refuses.

use super::authority::Authority;
use super::town::{MILLI, Script, TIMEOUT, Town, peer};
use lodger::client::{ConnectError, Step};
use lodger::http::ClientRequest;
use lodger::sim::{Endpoint, Reach, Server};
use lodger::ws::CloseCode;
use lodger::{CloseReason, ConnId, Connect, Proxy};
use std::time::Duration;

const STEPS: [Step; 5] = [Step::Resolving, Step::Connecting, Step::Proxy, Step::Tls, Step::Handshake];
/// Those that have a connection.
const LINKED: [Step; 3] = [Step::Proxy, Step::Tls, Step::Handshake];

/// A client that has come as far as this, and no further.
struct Stuck {
    town: Town,
    id: ConnId,
    server: Server,
    peer: Option<Endpoint>,
}

fn connect(town: &mut Town, step: Step) -> Connect {
    match step {
        Step::Resolving => {
            town.world.names().silence("silent.example");
            Connect::to("ws://silent.example/")
        }
        Step::Connecting => {
            town.world.reach(&peer("10.0.0.9:80"), Reach::Silent);
            Connect::to("ws://10.0.0.9/")
        }
        Step::Proxy => Connect::to("ws://far.example/").proxy(Proxy::http("10.0.0.1", 80)),
        Step::Tls => Connect::to("wss://10.0.0.1:80/").tls(Authority::new().client().build().unwrap()),
        Step::Handshake => Connect::to("ws://10.0.0.1/"),
        step => panic!("{step:?}"),
    }
}

fn stuck_with(step: Step, change: impl FnOnce(Connect) -> Connect) -> Stuck {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    let connect = change(connect(&mut town, step));
    let id = town.ws(connect, Script::quiet());
    town.run();
    let peer = server.accept();
    assert_eq!(peer.is_some(), LINKED.contains(&step));
    assert!(town.log().is_empty());
    Stuck { town, id, server, peer }
}

fn stuck(step: Step) -> Stuck {
    stuck_with(step, |connect| connect)
}

/// Nothing is left, and the id is stale.
fn check_gone(mut stuck: Stuck) {
    let Stuck { town, id, peer, server } = &mut stuck;
    town.run();
    assert_eq!((town.descriptors(), town.context.io().link_count()), (0, 0));
    assert!(town.context.io().conn(*id).is_none());
    assert!(peer.as_ref().is_none_or(Endpoint::at_end) && server.accept().is_none());
    town.run_for(Duration::from_secs(100));
    assert!(town.log().is_empty());
}

#[test]
fn each_step_times_out_at_the_limit_and_not_before() {
    for step in STEPS {
        for limit in [TIMEOUT, 300 * MILLI, Duration::from_secs(60)] {
            let mut stuck = stuck_with(step, |connect| connect.timeout(limit));
            stuck.town.run_for(limit - MILLI);
            assert_eq!(stuck.town.log(), [] as [&str; 0], "{step}");
            stuck.town.run_for(MILLI);
            let error = stuck.town.refusal();
            let ConnectError::TimedOut { step: found, attempts } = &error else {
                panic!("{step}: {error:?}")
            };
            assert_eq!((*found, attempts.len()), (step, 0));
            assert!(error.is_transient() && error.to_string().contains("timed out"));
            check_gone(stuck);
        }
    }
}

#[test]
fn the_time_for_connecting_is_one_for_all_steps() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    town.world.names().set("slow.example", ["10.0.0.1".parse().unwrap()], 900 * MILLI);
    town.ws(Connect::to("ws://slow.example/").timeout(Duration::from_secs(1)), Script::quiet());
    town.run_for(950 * MILLI);
    let mut peer = server.accept().expect("it is connected");
    peer.send("HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n");
    town.run_for(49 * MILLI);
    assert!(town.log().is_empty());
    town.run_for(2 * MILLI);
    let error = town.refusal();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
}

#[test]
fn a_connection_that_ends_in_a_step_is_lost_there() {
    for step in LINKED {
        for reset in [false, true] {
            let mut stuck = stuck(step);
            let peer = stuck.peer.take().unwrap();
            if reset {
                peer.reset();
            } else {
                let _ = peer.received();
                peer.close();
            }
            stuck.town.run();
            let error = stuck.town.refusal();
            match &error {
                ConnectError::Lost { step: found, error } => {
                    assert_eq!((*found, error.is_some()), (step, reset));
                }
                other => panic!("{step}, reset {reset}: {other:?}"),
            }
            assert!(error.is_transient());
            check_gone(stuck);
        }
    }
}

#[test]
fn an_end_within_an_answer_is_a_loss_too() {
    for step in [Step::Proxy, Step::Handshake] {
        let mut stuck = stuck(step);
        let peer = stuck.peer.as_mut().unwrap();
        peer.send("HTTP/1.1 1");
        peer.finish();
        stuck.town.run();
        let error = stuck.town.refusal();
        assert!(
            matches!(&error, ConnectError::Lost { step: found, error: None } if *found == step),
            "{error:?}"
        );
        check_gone(stuck);
    }
}

#[test]
fn the_application_gives_up_in_any_step() {
    for step in STEPS {
        for abort in [false, true] {
            let mut stuck = stuck(step);
            let mut conn = stuck.town.context.io().conn(stuck.id).expect("it is under way");
            if abort {
                conn.abort();
            } else {
                conn.close();
            }
            stuck.town.run();
            let reason = stuck.town.end();
            match (abort, &reason) {
                (false, CloseReason::Closed) | (true, CloseReason::Aborted) => {}
                _ => panic!("{step}, abort {abort}: {reason:?}"),
            }
            assert!(!reason.is_transient());
            assert_eq!(stuck.town.log().len(), 1);
            assert_eq!(stuck.town.world.names().cancelled(), usize::from(step == Step::Resolving));
            check_gone(stuck);
        }
    }
}

#[test]
fn a_context_that_leaves_tells_those_that_are_under_way() {
    for step in STEPS {
        let mut stuck = stuck(step);
        stuck.town.leave();
        let reason = stuck.town.end();
        assert!(matches!(reason, CloseReason::Leaving), "{step}: {reason:?}");
        assert_eq!(stuck.town.log().len(), 1);
        check_gone(stuck);
    }
}

#[test]
fn a_shutdown_ends_those_that_are_under_way_and_lets_none_begin() {
    for step in STEPS {
        let mut stuck = stuck(step);
        stuck.town.context.io().shutdown(CloseCode::GOING_AWAY);
        stuck.town.run();
        let reason = stuck.town.end();
        assert!(matches!(reason, CloseReason::Leaving), "{step}: {reason:?}");
        let connect = connect(&mut stuck.town, step);
        stuck.town.ws(connect, Script::quiet());
        stuck.town.run();
        assert!(matches!(stuck.town.end(), CloseReason::Leaving));
        assert_eq!(stuck.town.log().len(), 2);
        check_gone(stuck);
    }
}

#[test]
fn a_descriptor_that_the_host_refuses_is_an_address_that_failed() {
    for step in [Step::Connecting, Step::Proxy, Step::Tls, Step::Handshake] {
        let mut town = Town::new();
        let _server = town.server("10.0.0.1:80");
        let connect = connect(&mut town, step);
        town.world.host_mut().fail_adds(1);
        town.ws(connect, Script::quiet());
        town.run();
        let error = town.refusal();
        let ConnectError::Unreachable(attempts) = &error else { panic!("{step}: {error:?}") };
        assert!(attempts.len() == 1 && attempts[0].error.to_string().contains("no room"), "{attempts:?}");
        assert_eq!(town.descriptors(), 0);
    }
}

#[test]
fn a_change_that_the_host_refuses_ends_it_with_the_hosts_error() {
    for step in LINKED {
        let mut town = Town::new();
        let _server = town.server("10.0.0.1:80");
        let connect = connect(&mut town, step);
        town.world.host_mut().fail_changes(1);
        town.ws(connect, Script::quiet());
        town.run();
        let reason = town.end();
        assert!(matches!(reason, CloseReason::Host(_)), "{step}: {reason:?}");
        assert_eq!((town.log().len(), town.descriptors()), (1, 0));
    }
}

#[test]
fn a_delay_comes_before_everything_and_is_no_part_of_the_time() {
    let mut town = Town::new();
    town.world.names().silence("silent.example");
    let later = Connect::to("ws://silent.example/").after(Duration::from_secs(7));
    town.ws(later.clone(), Script::quiet());
    town.run_for(Duration::from_secs(7) - MILLI);
    assert_eq!(town.world.names().asked(), 0);
    town.run_for(2 * MILLI);
    assert_eq!(town.world.names().asked(), 1);
    town.run_for(TIMEOUT - 3 * MILLI);
    assert!(town.log().is_empty());
    town.run_for(3 * MILLI);
    assert!(matches!(town.refusal(), ConnectError::TimedOut { step: Step::Resolving, .. }));

    let id = town.ws(later.clone(), Script::quiet());
    town.run_for(Duration::from_secs(1));
    town.context.io().conn(id).unwrap().close();
    town.run();
    assert!(matches!(town.end(), CloseReason::Closed));
    town.ws(later, Script::quiet());
    town.run_for(Duration::from_secs(1));
    town.leave();
    assert!(matches!(town.end(), CloseReason::Leaving));
    assert_eq!(town.world.names().asked(), 1);
}

#[test]
fn http_and_raw_clients_time_out_in_the_same_steps() {
    for step in [Step::Resolving, Step::Connecting, Step::Proxy, Step::Tls] {
        let mut town = Town::new();
        let _server = town.server("10.0.0.1:80");
        let (one, other) = (connect(&mut town, step), connect(&mut town, step));
        town.http(one, ClientRequest::get(), Script::named("http", |_, _| {}));
        town.raw(other, Script::named("raw", |_, _| {}));
        town.run_for(TIMEOUT + MILLI);
        let ends = std::mem::take(&mut town.state.ends);
        assert_eq!((ends.len(), town.log().len()), (2, 2));
        for (name, closed) in ends {
            let CloseReason::Connect(error) = &closed.reason else { panic!("{name}: {closed:?}") };
            assert!(
                matches!(**error, ConnectError::TimedOut { step: found, .. } if found == step),
                "{name}: {error:?}"
            );
        }
    }
}

#[test]
fn a_redirect_that_leads_nowhere_ends_an_exchange_in_time() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    town.world.names().silence("silent.example");
    town.http(Connect::to("http://10.0.0.1/"), ClientRequest::get(), Script::quiet());
    let mut peer = town.accept(&mut server);
    peer.send("HTTP/1.1 302 Found\r\nLocation: http://silent.example/\r\nContent-Length: 0\r\n\r\n");
    town.run_for(TIMEOUT - MILLI);
    assert_eq!(town.log(), ["connected"]);
    town.run_for(2 * MILLI);
    let error = town.connect_error();
    assert!(matches!(error, ConnectError::TimedOut { step: Step::Resolving, .. }), "{error:?}");
    assert_eq!((town.log().len(), town.descriptors()), (1, 0));
}
