//! In which order a client's handler hears things: the outcome first, after the call has returned; one end, and nothing after it.

use super::town::{Heard, MILLI, Script, State, TIMEOUT, Town, handshake, open, peer, switching};
use lodger::client::Backoff;
use lodger::http::ClientRequest;
use lodger::sim::Reach;
use lodger::{CloseReason, ConnId, Connect, Cx, Io, Limits, Listen, SendError, ws};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

const WS: &str = "ws://10.0.0.1/";

#[test]
fn nothing_is_heard_before_the_call_has_returned() {
    // Each of these fails, or succeeds, without anybody being asked.
    for url in ["what", "ws://unknown.example/", WS] {
        let mut town = Town::new();
        let called = Rc::new(Cell::new(false));
        town.context.io().after(Duration::ZERO, {
            let called = called.clone();
            move |state: &mut State, io: &mut Io<State>| {
                io.connect(Connect::to(url), Script::quiet());
                assert!(state.log.is_empty());
                called.set(true);
            }
        });
        town.run();
        assert!(called.get());
        assert_eq!(town.log().len(), 1);
    }
}

/// Connects from within each event of a conn, and sees that what it hears comes later.
#[test]
fn a_handler_that_connects_hears_of_it_when_it_has_returned() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    let begin = |cx: &mut Cx<'_, State>| {
        let before = cx.data.log.len();
        cx.io.connect(Connect::to("what"), Script::named("inner", |_, _| {}));
        assert_eq!(cx.data.log.len(), before);
    };
    let id = town.ws(
        Connect::to(WS),
        Script::new(move |cx, heard| match heard {
            Heard::Connected | Heard::Text(_) | Heard::Event | Heard::Timer | Heard::Closed(_) => begin(cx),
            _ => {}
        }),
    );
    let mut peer = town.accept(&mut server);
    open(&mut peer, "");
    peer.send(b"\x81\x02hi");
    town.run();
    town.context.io().notify(id, Box::new(())).unwrap();
    town.context.io().conn(id).unwrap().set_timer(MILLI);
    town.run_for(MILLI);
    peer.finish();
    town.run();
    let inner = "inner: closed: the address cannot be used: no scheme, such as wss://, in front of the URL";
    let log = town.log();
    for line in ["connected", "text hi", "event", "timer", "closed: the peer ended the connection"] {
        let at = log.iter().position(|known| known == line).unwrap_or_else(|| panic!("{line}: {log:?}"));
        assert!(log[at..].contains(&inner.to_owned()));
    }
    assert_eq!(log.iter().filter(|line| *line == inner).count(), 5, "{log:?}");
}

#[test]
fn what_is_asked_for_before_the_outcome_comes_after_it() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    let id = town.ws(Connect::to(WS), Script::quiet());
    let ask = |town: &mut Town| {
        let mut conn = town.context.io().conn(id).unwrap();
        conn.set_timer(Duration::ZERO);
        conn.request_writable();
        assert_eq!(conn.send("hello"), Err(SendError::NotConnected));
        town.context.io().notify(id, Box::new(())).unwrap();
    };
    ask(&mut town);
    town.run_for(MILLI);
    let mut peer = server.accept().unwrap();
    assert!(town.log().is_empty());
    ask(&mut town);
    town.run_for(MILLI);
    assert!(town.log().is_empty());
    open(&mut peer, "");
    town.run();
    let log = town.log();
    assert_eq!(log[0], "connected");
    for (line, times) in [("event", 2), ("timer", 1), ("writable", 1)] {
        let heard = log.iter().filter(|known| *known == line).count();
        assert!(heard >= times, "{line}: {log:?}");
    }
}

#[test]
fn what_was_asked_for_is_not_told_to_one_that_is_never_connected() {
    let mut town = Town::new();
    town.world.reach(&peer("10.0.0.1:80"), Reach::Silent);
    let id = town.ws(Connect::to(WS), Script::quiet());
    town.run();
    let mut conn = town.context.io().conn(id).unwrap();
    conn.set_timer(MILLI);
    conn.request_writable();
    town.context.io().notify(id, Box::new(())).unwrap();
    town.run_for(TIMEOUT);
    assert_eq!(town.log().len(), 1);
    assert!(town.context.io().notify(id, Box::new(())).is_err());
}

#[test]
fn the_first_frames_may_come_with_the_answer() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    town.ws(Connect::to(WS), Script::quiet());
    let mut peer = town.accept(&mut server);
    let (_, accept) = handshake(&mut peer);
    peer.send([switching(&accept, "").as_bytes(), b"\x81\x05first\x81\x06second\x88\x02\x03\xe8"].concat());
    town.run();
    peer.finish();
    town.run();
    assert_eq!(
        town.log(),
        ["connected", "text first", "text second", "closed: closed by the peer, code 1000"]
    );
}

#[test]
fn what_is_done_in_connected_takes_effect() {
    type Act = fn(&mut Cx<'_, State>);
    let cases: [(Act, &str); 3] = [
        (|cx| cx.close(), "closed: closed by us, code 1000"),
        (|cx| cx.conn().abort(), "closed: aborted by us"),
        (|cx| cx.conn().close_with(ws::CloseCode::GOING_AWAY, "bye"), "closed: closed by us, code 1001"),
    ];
    for (act, end) in cases {
        let mut town = Town::new();
        town.serve(Listen::tcp(([10, 0, 0, 1], 80)), |site| site);
        let script = Script::new(move |cx, heard| {
            if let Heard::Connected = heard {
                act(cx);
            }
        });
        town.ws(Connect::to(WS), script);
        town.run();
        assert_eq!(town.log(), ["connected", end]);
    }
}

#[test]
fn closing_in_connected_and_refusing_it_too_is_one_end() {
    struct Contrary;
    impl ws::Handler<State> for Contrary {
        fn connected(&mut self, cx: &mut Cx<'_, State>, _: &lodger::http::ResponseHead<'_>) -> bool {
            cx.conn().abort();
            false
        }
        fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: lodger::Closed) {
            cx.data.ends.push(("", closed));
        }
    }
    let mut town = Town::new();
    town.serve(Listen::tcp(([10, 0, 0, 1], 80)), |site| site);
    town.context.io().connect(Connect::to(WS), Box::new(Contrary));
    town.run();
    town.end();
}

/// Connects again for as long as a server has not said goodbye, with what it is itself.
struct Persistent {
    connect: Connect,
    backoff: Backoff,
    ids: Rc<RefCell<Vec<ConnId>>>,
}

impl ws::Handler<State> for Persistent {
    fn connected(&mut self, cx: &mut Cx<'_, State>, _: &lodger::http::ResponseHead<'_>) -> bool {
        cx.data.log.push(format!("connected after {} attempts", self.backoff.attempts()));
        self.backoff.opened(cx.io.now());
        true
    }

    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, closed: lodger::Closed) {
        assert!(cx.io.conn(cx.id()).is_none());
        cx.data.log.push(format!("closed: {}", closed.reason));
        if closed.reason.is_transient() {
            let delay = cx.io.next_delay(&mut self.backoff);
            let (connect, ids) = (self.connect.clone().after(delay), self.ids.clone());
            let id = cx.io.connect(connect, self);
            ids.borrow_mut().push(id);
        }
    }
}

#[test]
fn a_handler_connects_again_with_itself_until_the_server_is_back() {
    let mut town = Town::new();
    let ids = Rc::<RefCell<Vec<ConnId>>>::default();
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
    let handler = Persistent { connect: Connect::to(WS), backoff, ids: ids.clone() };
    let first = town.context.io().connect(Connect::to(WS), Box::new(handler));
    ids.borrow_mut().push(first);
    town.run_for(Duration::from_secs(60));
    let refused = town.log();
    assert!(refused.len() > 7 && refused.iter().all(|line| line.contains("no address")), "{refused:?}");
    let mut server = town.server("10.0.0.1:80");
    let mut peer = loop {
        town.run_for(10 * MILLI);
        if let Some(peer) = server.accept() {
            break peer;
        }
    };
    open(&mut peer, "");
    town.run();
    assert!(town.log()[0].starts_with("connected after "));
    peer.send(b"\x88\x02\x03\xe8");
    peer.finish();
    town.run_for(Duration::from_secs(60));
    assert_eq!(town.log(), ["closed: closed by the peer, code 1000"]);
    let mut ids = ids.take();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), ids.iter().any(|id| town.context.io().conn(*id).is_some())), (all, false));
}

/// Connects again whatever has happened, and at once.
struct Obstinate;

impl ws::Handler<State> for Obstinate {
    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, _: lodger::Closed) {
        cx.data.count += 1;
        cx.io.connect(Connect::to("ws://unknown.example/"), self);
    }
}

#[test]
fn one_that_connects_again_at_once_and_for_ever_does_not_hold_up_the_loop() {
    let mut town = Town::new();
    town.context.io().connect(Connect::to("what"), Box::new(Obstinate));
    for _ in 0..10 {
        let before = town.state.count;
        town.world.turn(&mut town.context, &mut town.state);
        assert!(town.state.count - before < 10_000, "{}", town.state.count);
    }
    assert!(town.state.count > 0);
    town.leave();
}

#[test]
fn a_look_up_from_each_answer_does_not_hold_up_the_loop() {
    fn again(state: &mut State, io: &mut Io<State>) {
        state.count += 1;
        io.look_up(lodger::resolve::Lookup::Addresses("localhost".into()), |_, state, io| again(state, io));
    }
    let mut town = Town::new();
    town.context.io().after(Duration::ZERO, again);
    for _ in 0..10 {
        let before = town.state.count;
        town.world.turn(&mut town.context, &mut town.state);
        assert!(town.state.count - before < 10_000, "{}", town.state.count);
    }
    town.leave();
}

#[test]
fn tasks_connect_too() {
    let mut town = Town::new();
    town.serve(Listen::tcp(([10, 0, 0, 1], 80)), |site| site);
    town.context.io().after(3 * MILLI, |_, io: &mut Io<State>| {
        io.connect(Connect::to(WS), Script::quiet());
    });
    town.run_for(5 * MILLI);
    assert_eq!(town.log(), ["connected"]);
}

#[test]
fn an_end_before_the_beginning_is_the_only_event() {
    fn begin(io: &mut Io<State>) -> [ConnId; 3] {
        [
            io.connect(Connect::to(WS), Script::quiet()),
            io.connect_http(Connect::to("http://10.0.0.1/"), ClientRequest::get(), Script::quiet()),
            io.connect_raw(Connect::tcp("10.0.0.1", 80), Script::quiet()),
        ]
    }
    for within in [false, true] {
        let mut town = Town::new();
        let _server = town.server("10.0.0.1:80");
        if within {
            town.context.io().after(Duration::ZERO, |_, io: &mut Io<State>| {
                begin(io).into_iter().for_each(|id| io.conn(id).unwrap().close());
            });
        } else {
            let ids = begin(town.context.io());
            ids.into_iter().for_each(|id| town.context.io().conn(id).unwrap().abort());
            assert!(ids.iter().all(|id| town.context.io().conn(*id).is_none()));
        }
        town.run();
        let log = town.log();
        assert_eq!(log.len(), 3, "{log:?}");
        assert!(log.iter().all(|line| line.starts_with("closed: ")));
        assert_eq!(town.descriptors(), 0);
    }
}

#[test]
fn a_parent_hears_of_a_child_that_was_never_connected() {
    let mut town = Town::new();
    town.serve(Listen::tcp(([10, 0, 0, 1], 80)), |site| site);
    let parent = town.ws(Connect::to(WS), Script::named("parent", |_, _| {}));
    town.run();
    let child = town.ws(Connect::to("ws://10.0.0.2/"), Script::named("child", |_, _| {}));
    town.context.io().conn(child).unwrap().set_parent(parent);
    town.run();
    let log = town.log();
    assert_eq!(log[0], "parent: connected");
    assert!(log[1].starts_with("child: closed: no address"), "{log:?}");
    assert_eq!(log[2..], ["parent: child closed"]);
}

#[test]
fn a_parent_that_is_not_connected_hears_of_its_child_after_the_outcome() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    let parent = town.ws(Connect::to(WS), Script::named("parent", |_, _| {}));
    let child = town.ws(Connect::to("what"), Script::named("child", |_, _| {}));
    // It has ended already, so that this is for nobody.
    assert!(town.context.io().conn(child).is_none());
    let child = town.ws(Connect::to("ws://10.0.0.2/"), Script::named("child", |_, _| {}));
    town.context.io().conn(child).unwrap().set_parent(parent);
    let mut peer = town.accept(&mut server);
    let log = town.log();
    assert!(log.iter().all(|line| line.starts_with("child: closed")), "{log:?}");
    open(&mut peer, "");
    town.run();
    assert_eq!(town.log(), ["parent: connected", "parent: child closed"]);
}

#[test]
fn a_raw_connection_can_be_adopted_by_a_host_that_leaves_and_comes_back() {
    let mut town = Town::new();
    town.world.reach(&peer("10.0.0.1:80"), Reach::Silent);
    town.raw(Connect::tcp("10.0.0.1", 80), Script::quiet());
    town.run();
    town.context.detach(town.world.host_mut());
    assert_eq!(town.world.host().watched().count(), 0);
    let mut server = town.server("10.0.0.1:80");
    town.run();
    assert_eq!(town.log(), ["connected"]);
    assert!(server.accept().is_some());
}

#[test]
fn pausing_before_the_outcome_holds_back_what_comes_after_it() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    let id = town.ws(Connect::to(WS).limits(Limits::default()), Script::quiet());
    town.context.io().conn(id).unwrap().pause();
    let mut peer = town.accept(&mut server);
    open(&mut peer, "");
    peer.send(b"\x81\x02hi");
    town.run();
    assert_eq!(town.log(), ["connected"]);
    town.context.io().conn(id).unwrap().resume();
    town.run();
    assert_eq!(town.log(), ["text hi"]);
}

#[test]
fn one_that_gives_up_is_not_transient_and_one_that_is_cut_off_is() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    town.ws(Connect::to(WS), Script::quiet());
    open(&mut town.accept(&mut server), "");
    town.run();
    let reason = town.end();
    assert!(
        matches!(reason, CloseReason::PeerEnded | CloseReason::Io(_)) && reason.is_transient(),
        "{reason:?}"
    );
}

#[test]
fn what_is_begun_and_fails_while_a_server_answers_is_heard_of() {
    let mut town = Town::new();
    let accept = |_: &lodger::Request<'_>, _: &mut State, io: &mut Io<State>| {
        io.connect(Connect::to("what"), Script::quiet());
        lodger::Decision::respond(lodger::Response::text("page"))
    };
    let site = town.context.io().add_site(lodger::Site::new().protocol("", accept)).unwrap();
    town.context.io().listen(Listen::tcp(([10, 0, 0, 1], 80)), site).unwrap();
    town.run();
    let mut peer = town.world.connect(&super::town::peer("10.0.0.1:80")).unwrap();
    for _ in 0..3 {
        peer.get("/");
    }
    town.run();
    assert_eq!(town.log().len(), 3);
}
