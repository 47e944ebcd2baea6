//! What falls between two rules: pauses and panics within a handshake, ends within an answer, listeners that are shared.

use super::rig::State;
use super::script::{Heard, Script};
use super::town::{Hall, Town, any_port};
use lodger::{Io, Limits, Peer, Response, Site, raw};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

#[test]
fn panic_while_an_end_is_told_sends_nothing_to_another_connection() {
    let mut town = Town::empty();
    let mut first = true;
    let site = Site::<State>::new().protocol(
        "",
        Hall::new("", move || {
            let panics = std::mem::take(&mut first);
            Script::new(move |cx, heard| match heard {
                Heard::Request(_) => {
                    let _ = cx.respond(Response::text(if panics { "secret of a" } else { "for b" }));
                }
                Heard::Closed(_) if panics => std::panic::resume_unwind(Box::new("told to")),
                _ => {}
            })
        }),
    );
    let site = town.context.io().add_site(site).unwrap();
    let listener = town.context.io().listen(any_port(), site).unwrap();
    town.at(listener);
    let mut a = town.socket();
    let mut b = town.socket();
    town.run();
    a.send(b"GET /script HTTP/1.1\r\nHost: a\r\n\r\n");
    let unwound = catch_unwind(AssertUnwindSafe(|| town.run()));
    assert!(unwound.is_err());
    town.run();
    b.send(b"GET /script HTTP/1.1\r\nHost: a\r\n\r\n");
    town.run();
    let got = String::from_utf8(b.take()).unwrap();
    let got_a = String::from_utf8(a.take()).unwrap();
    println!("a: {got_a}\nb: {got}\nlog {:?}", town.state.log);
    assert!(!got.contains("secret"), "{got}");
    assert!(got.contains("for b"), "{got}");
}

#[test]
fn raw_connection_that_pauses_when_it_opens_hears_nothing() {
    let mut town = Town::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if matches!(heard, Heard::Opened) {
                cx.conn().pause();
            }
        })
    });
    let mut peer = town.connect();
    peer.say("early");
    town.settle(&mut peer);
    assert_eq!(town.log(), ["opened"]);
    let id = town.state.conns[0];
    town.context.io().conn(id).unwrap().resume();
    town.settle(&mut peer);
    assert_eq!(town.log(), ["bytes early"]);
}

#[test]
fn handshakes_that_were_paused_while_they_waited_go_on() {
    let mut town = Town::raw(Limits::default(), Script::echo);
    let mut peers: Vec<_> = (0..60).map(|_| town.connect()).collect();
    town.run();
    for peer in &mut peers {
        peer.pump();
    }
    town.turn();
    let ids: Vec<_> = town.context.io().links().filter_map(|l| l.conn).collect();
    println!("{} conns", ids.len());
    for &id in &ids {
        if let Some(mut c) = town.context.io().conn(id) {
            c.pause();
        }
    }
    town.turn();
    town.turn();
    for &id in &ids {
        if let Some(mut c) = town.context.io().conn(id) {
            c.resume();
        }
    }
    town.settle_all(&mut peers);
    let stuck = peers.iter().filter(|p| p.tls.is_handshaking()).count();
    for l in town.context.io().links() {
        if l.received == 0 {
            println!("{l:?}");
        }
    }
    let wait = town.world.wait();
    println!("wait {wait:?}");
    assert_eq!(stuck, 0);
}

#[test]
fn handshake_has_its_time_after_a_pause_too() {
    let mut town = Town::raw(Limits::default(), Script::echo);
    let _peer = town.connect();
    town.run();
    let ids: Vec<_> = town.context.io().links().filter_map(|l| l.conn).collect();
    for &id in &ids {
        town.context.io().conn(id).unwrap().pause();
    }
    town.run();
    for &id in &ids {
        town.context.io().conn(id).unwrap().resume();
    }
    town.run_for(Duration::from_secs(3600));
    assert_eq!(town.links(), 1, "{:?}", town.state.log);
}

#[test]
fn certificate_of_a_site_that_shares_a_listener_ages() {
    let mut town = Town::empty();
    let first = Site::new().protocol("", Hall::quiet("a")).hosts(["localhost"]).tls(town.server.clone());
    town.listen(first);
    town.log();
    let issued = town.authority.issue_with("other", |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 11);
    });
    let server = lodger::tls::Server::builder()
        .provider(lodger_provider(&town))
        .certificate_pem(&issued.chain, &issued.key)
        .build();
    let Ok(server) = server else { panic!("server") };
    let site = Site::new().protocol("", Hall::quiet("b")).hosts(["other"]).tls(server);
    let site = town.context.io().add_site(site).unwrap();
    let listener = town.listener.unwrap();
    town.context.io().share_listener(listener, site).unwrap();
    town.run();
    println!("{:?}", town.state.log);
    let client = town.client.clone();
    let mut peer = town.connect_as("other", &client);
    town.settle(&mut peer);
    println!("{:?}", town.state.log);
    town.run_for(Duration::from_secs(86400 * 9));
    println!("{:?}", town.state.log);
    assert!(town.state.log.iter().any(|l| l.contains("days")), "{:?}", town.state.log);
}
fn lodger_provider(_: &Town) -> std::sync::Arc<lodger::tls::rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(lodger::tls::rustls::crypto::ring::default_provider())
}

#[test]
fn listener_of_a_site_takes_no_certificate_of_its_own() {
    let mut town = Town::empty();
    let site = town.context.io().add_site(Site::new().protocol("", Hall::quiet(""))).unwrap();
    let listen = any_port().tls_with(town.server.clone());
    let listener = match town.context.io().listen(listen, site) {
        Ok(l) => l,
        Err(_) => return,
    };
    town.at(listener);
    let mut peer = town.connect();
    town.settle(&mut peer);
    assert!(!peer.tls.is_handshaking());
}

#[test]
fn leaving_amid_a_response_does_not_say_that_it_was_all() {
    let mut town = Town::hall(Limits::default(), || {
        Script::new(|cx, heard| {
            if matches!(heard, Heard::Request(_)) {
                let _ = cx.respond(Response::stream("text/plain"));
                let _ = cx.write(b"half of it");
            }
        })
    });
    let mut peer = town.secured();
    peer.say("GET /script HTTP/1.0\r\nHost: localhost\r\n\r\n");
    town.settle(&mut peer);
    println!("{}", String::from_utf8_lossy(&peer.plain));
    town.world.leave(&mut town.context, &mut town.state);
    town.world.turn_all::<State>(&mut []);
    peer.pump();
    assert!(!peer.closed, "it looks complete");
}

#[test]
fn failure_between_requests_is_no_failed_handshake() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.secured();
    assert!(town.ask(&mut peer, "/x", "localhost").is_some());
    town.log();
    peer.socket().send([23, 3, 3, 0, 30]);
    peer.socket().send([7; 30]);
    town.settle(&mut peer);
    assert_eq!(town.log(), [""; 0]);
}

#[test]
fn raw_connection_that_finishes_before_its_handshake_still_receives() {
    let mut town = Town::raw(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    town.run();
    let ids: Vec<_> = town.context.io().links().filter_map(|l| l.conn).collect();
    town.context.io().conn(ids[0]).unwrap().finish();
    peer.say("hello");
    town.settle(&mut peer);
    assert!(town.has_logged("bytes hello"), "{:?}", town.state.log);
}

#[test]
fn what_follows_a_failed_handshake_is_ignored_though_something_waits_for_it() {
    let mut town = Town::raw(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    town.run();
    let ids: Vec<_> = town.context.io().links().filter_map(|l| l.conn).collect();
    town.context.io().conn(ids[0]).unwrap().write(b"before the handshake").unwrap();
    // A ClientHello with another message behind it in its record, which new keys must not come between.
    let mut hello = peer.records();
    hello.extend_from_slice(&[1, 0, 0, 0]);
    let length = u16::from_be_bytes([hello[3], hello[4]]) + 4;
    hello[3..5].copy_from_slice(&length.to_be_bytes());
    peer.socket().send(&hello);
    town.run();
    assert!(town.state.log.iter().any(|what| what.contains("Misbehaved")), "{:?}", town.state.log);
    peer.socket().send([22, 3, 3, 0, 1, 0]);
    town.run();
    assert!(peer.socket().at_end());
}

#[test]
fn what_follows_an_announced_end_is_ignored() {
    let mut town = Town::raw(Limits::default(), Script::quiet);
    let mut peer = town.secured();
    peer.say("hello");
    peer.close_notify();
    let mut records = peer.records();
    records.extend(std::iter::repeat_n(9u8, 120_000));
    peer.socket().send(&records);
    town.settle(&mut peer);
    println!("{:?}", town.state.log);
    assert!(town.has_logged("bytes hello"), "{:?}", town.state.log);
}
#[allow(unused)]
fn unused(_: &Peer, _: &mut Io<State>, _: Option<Box<dyn raw::Handler<State>>>) {}

struct Guard(bool);
impl lodger::Protocol<State> for Guard {
    fn secured(&mut self, _: &Peer, _: &lodger::tls::Facts, _: &mut State) -> bool {
        if std::mem::take(&mut self.0) {
            std::panic::resume_unwind(Box::new("told to"));
        }
        true
    }
    fn accept(
        &mut self,
        _: &lodger::Request<'_>,
        state: &mut State,
        _: &mut Io<State>,
    ) -> lodger::Decision<State> {
        state.log.push("accepted".into());
        lodger::Decision::respond(Response::text("come in"))
    }
}
#[test]
fn guard_that_panics_lets_nobody_in() {
    let mut town = Town::empty();
    let site = Site::new().protocol("", Guard(true)).tls(town.server.clone());
    town.listen(site);
    let mut peer = town.connect();
    let unwound = catch_unwind(AssertUnwindSafe(|| town.settle(&mut peer)));
    assert!(unwound.is_err());
    town.settle(&mut peer);
    peer.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    town.settle(&mut peer);
    assert_eq!(town.log(), [""; 0]);
}

#[test]
fn newcomers_do_not_starve_handshakes_that_wait() {
    let mut town = Town::hall(Limits::default(), Script::echo);
    let mut peers: Vec<_> = (0..40).map(|_| town.connect()).collect();
    town.run();
    for peer in &mut peers {
        peer.pump();
    }
    for _ in 0..300 {
        let mut p = town.connect();
        p.step = 1;
        p.pump();
    }
    town.turn();
    let mut flood = Vec::new();
    let mut up = Vec::new();
    for _ in 0..60 {
        for _ in 0..20 {
            let mut p = town.connect();
            p.pump();
            flood.push(p);
        }
        town.turn();
        for peer in &mut peers {
            peer.pump();
        }
        up.push(town.state.log.iter().filter(|l| l.starts_with("secured")).count());
    }
    println!("{up:?} links {}", town.links());
    assert!(*up.last().unwrap() >= 35);
}

#[test]
fn shared_listener_moves_on_and_sites_end_once() {
    let mut town = Town::empty();
    let a =
        town.listen(Site::new().protocol("", Hall::quiet("a")).hosts(["localhost"]).tls(town.server.clone()));
    let b = town
        .context
        .io()
        .add_site(
            Site::new().protocol("", Hall::quiet("b")).hosts(["other"]).tls(town.authority.server("other")),
        )
        .unwrap();
    let l = town.listener.unwrap();
    town.context.io().share_listener(l, b).unwrap();
    town.context.io().share_listener(l, b).unwrap();
    let mut pa = town.secured();
    let cfg = town.client.clone();
    let mut pb = town.connect_as("other", &cfg);
    town.settle(&mut pb);
    town.context.io().remove_site(a);
    town.context.io().remove_site(a);
    town.settle(&mut pa);
    pa.finish();
    town.settle(&mut pa);
    assert_eq!(town.state.log.iter().filter(|l| *l == "a: ended").count(), 1, "{:?}", town.state.log);
    let answer = town.ask(&mut pb, "/x", "other");
    assert_eq!(answer.map(|a| a.0), Some(200));
    town.context.io().remove_site(b);
    town.settle(&mut pb);
    pb.finish();
    town.settle(&mut pb);
    assert_eq!(town.state.log.iter().filter(|l| *l == "b: ended").count(), 1, "{:?}", town.state.log);
    assert_eq!(town.links(), 0);
}
#[test]
fn reason_after_our_half_has_ended_is_the_failure() {
    let mut town = Town::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if matches!(heard, Heard::Opened) {
                cx.conn().finish()
            }
        })
    });
    let mut peer = town.secured();
    peer.socket().send([23, 3, 3, 0, 30]);
    peer.socket().send([7; 30]);
    town.settle(&mut peer);
    assert_eq!(town.log(), ["opened", "closed: Tls(Undecryptable)"]);
}
#[test]
fn closed_listener_cannot_be_shared() {
    let mut town = Town::empty();
    town.listen(Site::new().protocol("", Hall::quiet("a")).tls(town.server.clone()));
    let l = town.listener.unwrap();
    let b = town
        .context
        .io()
        .add_site(Site::new().protocol("", Hall::quiet("b")).tls(town.server.clone()))
        .unwrap();
    town.context.io().close_listener(l);
    assert!(town.context.io().share_listener(l, b).is_err());
}
