//! Peers that end their direction, or vanish, while nothing else shows it: over real sockets, with a clock that only the test moves.

#[path = "support/rig.rs"]
mod rig;
#[path = "support/script.rs"]
mod script;

use lodger::{Cx, Decision, Io, Limits, Request, Response, Site};
use rig::{Client, Frame, Rig, State};
use script::{Heard, Script};
use std::rc::Rc;
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// When a paused link is looked at.
const LOOK: Duration = Duration::from_secs(5);
const HALF_CLOSED: Duration = Duration::from_secs(10);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";

fn server(act: impl Fn(&mut Cx<'_, State>, &Heard) + 'static) -> Rig {
    let act = Rc::new(act);
    Rig::http(Limits::default(), move || {
        let act = Rc::clone(&act);
        Script::new(move |cx, heard| act(cx, heard))
    })
}

/// A server that decides when it is told to.
fn hesitating() -> Rig {
    let accept = |request: &Request<'_>, state: &mut State, _: &mut Io<State>| {
        state.conns.push(request.id());
        state.log.push("accept".to_owned());
        Decision::Later
    };
    Rig::site(Site::new().protocol("", accept))
}

fn begins(cx: &mut Cx<'_, State>, heard: &Heard) {
    if let Heard::Complete(_) = heard {
        let _ = cx.respond(Response::stream("text/event-stream"));
        let _ = cx.write(b"data: x\n\n");
    }
}

// HTTP.

#[test]
fn a_silent_exchange_hears_that_its_client_has_ended_and_ends_at_the_limit() {
    for request in [GET, OLD, POST] {
        for begun in [false, true] {
            let mut rig = server(move |cx, heard| {
                if begun {
                    begins(cx, heard);
                }
            });
            let client = rig.connect();
            client.send(request);
            rig.until_logged("complete");
            rig.log();
            // For as long as it likes, if it began.
            rig.advance(if begun { SECOND * 100_000 } else { SECOND * 60 });
            client.finish();
            rig.until("the end is heard", |rig| !rig.state.log.is_empty());
            rig.advance(HALF_CLOSED - MILLI);
            assert_eq!(rig.log(), ["peer ended"], "{request:?}, begun: {begun}");
            rig.advance(MILLI);
            assert_eq!(rig.log(), ["closed: TimedOut(HalfClosed)"]);
            rig.until("the end", |_| client.at_end());
            if begun {
                assert!(client.was_reset(), "what has come must not be taken for all");
            } else {
                assert_eq!(rig.answer(&client).status, 503);
                assert!(!client.was_reset());
            }
            assert_eq!(rig.io().link_count(), 1);
        }
    }
}

#[test]
fn a_client_that_only_ends_its_direction_gets_whatever_comes_within_the_limit() {
    for request in [GET, OLD, POST] {
        let mut rig = server(|cx, heard| match heard {
            Heard::Complete(_) => cx.conn().set_timer(HALF_CLOSED - MILLI),
            Heard::Timer => drop(cx.respond(Response::text("late"))),
            _ => {}
        });
        let client = rig.connect();
        client.send(request);
        client.finish();
        rig.until_logged("peer ended");
        rig.advance(HALF_CLOSED - MILLI);
        assert_eq!(rig.answer(&client).text(), "late");
        rig.end(&client);
        assert_eq!(rig.log()[1..].last().unwrap(), "closed: Completed");
    }
}

#[test]
fn the_time_of_a_client_that_has_ended_its_direction_begins_anew_with_each_piece() {
    let mut rig = server(|cx, heard| {
        begins(cx, heard);
        match heard {
            Heard::PeerEnded => cx.conn().set_timer(SECOND * 9),
            Heard::Timer => {
                let _ = cx.write(b"data: y\n\n");
                cx.conn().set_timer(SECOND * 9);
            }
            Heard::Event(_) => drop(cx.conn().end_response()),
            _ => {}
        }
    });
    let client = rig.connect();
    client.send(GET);
    client.finish();
    rig.until_logged("peer ended");
    for _ in 0..5 {
        rig.advance(SECOND * 9);
    }
    assert_eq!(rig.state.log.iter().filter(|line| *line == "timer").count(), 5);
    let id = rig.state.conns[0];
    rig.io().notify(id, Box::new("enough")).unwrap();
    assert_eq!(rig.answer(&client).text(), "data: x\n\n".to_owned() + &"data: y\n\n".repeat(5));
    rig.end(&client);
}

#[test]
fn the_time_runs_from_when_the_last_byte_has_left() {
    let mut rig = server(|cx, heard| {
        if let Heard::Complete(_) = heard {
            let _ = cx.respond(Response::stream("text/plain"));
            let _ = cx.write(&vec![b'x'; 12_000_000]);
        }
    });
    let client = rig.connect();
    client.stop_reading();
    client.send(GET);
    client.finish();
    rig.until_logged("peer ended");
    // What waits for room has a limit of its own.
    rig.advance(SECOND * 25);
    client.resume_reading();
    rig.until("all has come", |_| client.received_len() > 12_000_000);
    rig.advance(HALF_CLOSED - MILLI);
    assert_eq!(rig.log().last().unwrap(), "peer ended");
    rig.advance(MILLI);
    assert_eq!(rig.log(), ["closed: TimedOut(HalfClosed)"]);
}

#[test]
fn a_reset_behind_the_end_is_told_as_a_reset() {
    for begun in [false, true] {
        let mut rig = server(move |cx, heard| {
            if begun {
                begins(cx, heard);
            }
        });
        let client = rig.connect();
        client.send(GET);
        client.finish();
        rig.until_logged("peer ended");
        rig.log();
        client.reset();
        rig.advance(HALF_CLOSED - MILLI);
        assert!(rig.log().is_empty(), "nobody is woken by it");
        rig.advance(MILLI);
        assert_eq!(rig.log(), ["closed: BrokenPipe"]);
    }
}

#[test]
fn a_request_that_is_decided_later_is_answered_though_its_client_has_ended_its_direction() {
    for request in [GET, OLD, POST] {
        let mut rig = hesitating();
        let client = rig.connect();
        client.send(request);
        client.finish();
        rig.until_logged("accept");
        rig.advance(SECOND * 9);
        let id = rig.state.conns[0];
        rig.io().decide(id, Decision::respond(Response::text("later"))).unwrap();
        assert_eq!(rig.answer(&client).text(), "later", "{request:?}");
        rig.end(&client);
        // With a handler, who hears of the end.
        let client = rig.connect();
        client.send(request);
        client.finish();
        rig.until("it is asked", |rig| rig.state.conns.len() == 2);
        rig.run();
        let id = rig.state.conns[1];
        rig.log();
        rig.io().decide(id, Decision::http(Script::quiet())).unwrap();
        rig.until_logged("peer ended");
        rig.io().conn(id).unwrap().respond(Response::text("handled")).unwrap();
        assert_eq!(rig.answer(&client).text(), "handled");
        rig.end(&client);
        rig.until_logged("closed: Completed");
    }
    let mut rig = hesitating();
    let client = rig.connect();
    client.send(GET);
    client.finish();
    rig.until_logged("accept");
    rig.advance(SECOND * 10);
    assert_eq!(rig.answer(&client).status, 503);
}

#[test]
fn content_of_a_request_that_was_decided_later_has_its_time() {
    let mut rig = hesitating();
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    rig.until_logged("accept");
    rig.advance(SECOND * 9);
    let id = rig.state.conns[0];
    rig.io().decide(id, Decision::http(Script::quiet())).unwrap();
    rig.run();
    client.send("a");
    rig.until_logged("bytes a");
    rig.advance(SECOND * 30 - MILLI);
    assert_eq!(client.received(), b"");
    rig.advance(MILLI);
    assert_eq!(rig.answer(&client).status, 408);
    rig.until_logged("closed: TimedOut(BodyStall)");
}

#[test]
fn a_request_without_all_of_its_content_is_cut_wherever_it_stands() {
    let partial = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    let mut rig = hesitating();
    let client = rig.connect();
    client.send(partial);
    rig.until_logged("accept");
    client.finish();
    rig.until("the end", |_| client.at_end());
    assert_eq!(client.received(), b"");
    let mut rig = server(begins);
    let client = rig.connect();
    client.send(partial);
    rig.until_logged("POST /");
    client.finish();
    rig.until_logged("closed: PeerEnded");
    assert_eq!(rig.log(), ["POST /", "closed: PeerEnded"]);
}

#[test]
fn an_answer_to_content_that_nobody_wanted_arrives_whole_though_the_content_is_cut() {
    let accept = |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
        Decision::respond(Response::bytes("text/plain", vec![b'x'; 12_000_000]))
    };
    let mut rig = Rig::site(Site::new().protocol("", accept));
    let client = rig.connect();
    client.stop_reading();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    client.finish();
    rig.run();
    client.resume_reading();
    assert_eq!(rig.answer(&client).content.len(), 12_000_000);
    rig.end(&client);
}

#[test]
fn an_end_behind_another_request_is_found_by_a_look() {
    for begun in [false, true] {
        let mut rig = server(move |cx, heard| {
            if begun {
                begins(cx, heard);
            }
        });
        let client = rig.connect();
        client.send(GET.to_owned() + GET);
        rig.until_logged("complete");
        rig.log();
        rig.advance(SECOND * 20);
        client.finish();
        rig.advance(LOOK);
        assert_eq!(rig.log(), ["peer ended"]);
        rig.advance(HALF_CLOSED);
        assert_eq!(rig.log(), ["closed: TimedOut(HalfClosed)"]);
        // A reset is told as one.
        let client = rig.connect();
        client.send(GET.to_owned() + GET);
        rig.until_logged("complete");
        rig.log();
        client.reset();
        rig.advance(LOOK);
        assert_eq!(rig.log(), ["closed: ConnectionReset"]);
    }
}

#[test]
fn requests_that_wait_behind_a_late_answer_are_answered_after_the_end() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Complete(_) => cx.conn().set_timer(SECOND * 8),
        Heard::Timer => drop(cx.respond(Response::text("late"))),
        _ => {}
    });
    let client = rig.connect();
    client.send(GET.repeat(3));
    client.finish();
    rig.until_logged("complete");
    for _ in 0..3 {
        rig.advance(SECOND * 8);
        assert_eq!(rig.answer(&client).text(), "late");
    }
    rig.end(&client);
    assert_eq!(rig.log().iter().filter(|line| *line == "closed: Completed").count(), 3);
}

// WebSocket.

fn socket(act: impl Fn(&mut Cx<'_, State>, &Heard) + 'static) -> (Rig, Client) {
    let act = Rc::new(act);
    let limits = Limits { send_max: 16_000_000, ..Limits::default() };
    let mut rig = Rig::websocket(limits, move || {
        let act = Rc::clone(&act);
        Script::new(move |cx, heard| act(cx, heard))
    });
    let client = rig.open();
    rig.log();
    (rig, client)
}

/// By an event, since the answer to a message would hold back what is read.
fn send_much(rig: &mut Rig) {
    let id = rig.state.conns[0];
    rig.io().notify(id, Box::new("much")).unwrap();
    rig.until_logged("event much");
}

#[test]
fn a_websocket_peer_that_ends_without_a_close_gets_what_was_queued() {
    let (mut rig, client) = socket(|cx, heard| match heard {
        Heard::Event(_) => drop(cx.send(&vec![b'x'; 12_000_000][..])),
        Heard::PeerEnded => drop(cx.send("last words")),
        _ => {}
    });
    client.stop_reading();
    send_much(&mut rig);
    client.finish();
    rig.until_logged("peer ended");
    rig.run();
    client.resume_reading();
    let frames = rig.frames(&client);
    assert_eq!(frames.iter().map(|frame| frame.payload.len()).collect::<Vec<_>>(), [12_000_000, 10]);
    rig.until_logged("closed: PeerEnded");
    assert_eq!(rig.log(), ["event much", "peer ended", "closed: PeerEnded"]);
}

#[test]
fn a_websocket_peer_that_ends_and_takes_nothing_is_dropped_in_bounded_time() {
    let (mut rig, client) = socket(|cx, heard| {
        if let Heard::Event(_) = heard {
            let _ = cx.send(&vec![b'x'; 12_000_000][..]);
        }
    });
    client.stop_reading();
    send_much(&mut rig);
    client.finish();
    rig.until_logged("peer ended");
    // The kernel may take a little more at a look, though the peer reads nothing.
    for _ in 0..4 {
        rig.advance(SECOND * 30);
    }
    let log = rig.log();
    assert!(log.last().unwrap().starts_with("closed: "), "{log:?}");
    assert_eq!(rig.io().link_count(), 1);
}

#[test]
fn a_websocket_may_be_closed_or_aborted_when_its_peer_ends() {
    let (mut rig, client) = socket(|cx, heard| {
        if let Heard::PeerEnded = heard {
            cx.close();
        }
    });
    client.finish();
    let frames = rig.frames(&client);
    assert_eq!(frames.iter().map(Frame::close_code).collect::<Vec<_>>(), [Some(1000)]);
    rig.until_logged("closed: PeerEnded");
    let (mut rig, client) = socket(|cx, heard| {
        if let Heard::PeerEnded = heard {
            cx.conn().abort();
        }
    });
    client.finish();
    rig.until_logged("closed: Aborted");
    assert_eq!(rig.log(), ["peer ended", "closed: Aborted"]);
    rig.until("the reset", |_| client.was_reset());
}

#[test]
fn the_close_that_was_sent_before_the_peer_ended_still_arrives() {
    let (mut rig, client) = socket(|cx, heard| {
        if let Heard::Text(_) = heard {
            let _ = cx.send(&vec![b'x'; 12_000_000][..]);
            cx.close();
        }
    });
    client.stop_reading();
    client.text("much");
    client.finish();
    rig.run();
    client.resume_reading();
    let frames = rig.frames(&client);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[1].close_code(), Some(1000));
    rig.until_logged("closed: PeerEnded");
}

#[test]
fn an_upgrade_that_is_decided_after_the_end_is_opened_and_ends() {
    let mut rig = hesitating();
    let client = rig.connect();
    client.upgrade("/", "");
    client.finish();
    rig.until_logged("accept");
    rig.run();
    let id = rig.state.conns[0];
    let greets = Script::new(|cx, heard| {
        if let Heard::Opened = heard {
            let _ = cx.send("hello");
        }
    });
    rig.io().decide(id, Decision::websocket(greets)).unwrap();
    assert_eq!(rig.head(&client).status, 101);
    assert_eq!(rig.frames(&client), [Frame::text("hello")]);
    rig.until_logged("closed: PeerEnded");
    assert_eq!(rig.log(), ["accept", "opened", "peer ended", "closed: PeerEnded"]);
}

// Pauses.

fn pauses(cx: &mut Cx<'_, State>, heard: &Heard) {
    match heard {
        Heard::Text(_) | Heard::Bytes(_) => cx.conn().pause(),
        Heard::Event(_) => cx.conn().resume(),
        _ => {}
    }
}

/// Conns of each kind that have paused, with more to come that lies unread.
fn paused() -> [(Rig, Client); 3] {
    let (mut rig, client) = socket(pauses);
    client.text("one");
    rig.until_logged("text one");
    client.text("two");
    let websocket = (rig, client);
    let mut rig = server(pauses);
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none");
    rig.until_logged("bytes one");
    client.send("two");
    let exchange = (rig, client);
    let mut rig = Rig::raw(Limits::default(), || Script::new(pauses).keeps_open());
    let client = rig.connect();
    client.send("one");
    rig.until_logged("bytes one");
    client.send("two");
    let raw = (rig, client);
    let mut all = [websocket, exchange, raw];
    for (rig, _) in &mut all {
        rig.run();
        rig.log();
    }
    all
}

#[test]
fn a_pause_of_ordinary_length_wakes_nobody() {
    for (mut rig, _client) in paused() {
        let due = rig.wait.instant().expect("a look is due");
        assert_eq!(due - rig.clock.now(), LOOK);
        rig.advance(LOOK - MILLI);
        assert_eq!(rig.wait.instant(), Some(due));
        let id = rig.state.conns[0];
        rig.io().notify(id, Box::new("go on")).unwrap();
        rig.until("the rest", |rig| rig.state.log.len() == 2);
        assert!(rig.log()[1].ends_with(" two"));
    }
}

#[test]
fn a_reset_of_a_paused_conn_is_found_by_a_look() {
    for (mut rig, client) in paused() {
        rig.advance(SECOND * 1000);
        client.reset();
        rig.advance(LOOK);
        assert_eq!(rig.log(), ["closed: ConnectionReset"]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_end_of_a_paused_conns_peer_is_told_once_and_what_lies_in_front_of_it_comes_later() {
    for (at, (mut rig, client)) in paused().into_iter().enumerate() {
        rig.advance(SECOND * 1000);
        client.finish();
        rig.advance(LOOK);
        rig.advance(SECOND * 1000);
        // Raw bytes hear of it in its place.
        let told: &[&str] = if at == 2 { &[] } else { &["peer ended"] };
        assert_eq!(rig.log(), told);
        let id = rig.state.conns[0];
        rig.io().notify(id, Box::new("go on")).unwrap();
        rig.until("the rest", |rig| rig.state.log.len() >= 2);
        rig.io().notify(id, Box::new("go on")).unwrap();
        let last = ["closed: PeerEnded", "complete", "end"][at];
        rig.until_logged(last);
        let log = rig.log();
        assert!(
            log.iter().any(|line| line.ends_with(" two")) && !log.iter().any(|line| line == "peer ended"),
            "{log:?}"
        );
        if at == 1 {
            // Its content is there: from here on it is as any other.
            rig.advance(HALF_CLOSED);
            assert_eq!(rig.log(), ["closed: TimedOut(HalfClosed)"]);
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_reset_behind_the_end_of_a_paused_conns_peer_is_found_too() {
    for (mut rig, client) in paused() {
        client.finish();
        rig.advance(LOOK);
        rig.log();
        client.reset();
        rig.advance(LOOK);
        assert_eq!(rig.log(), ["closed: BrokenPipe"]);
    }
}

#[test]
fn timers_of_idling_pings_and_content_stand_still_while_a_conn_is_looked_at() {
    let limits = Limits { idle: Some(SECOND * 7), ping_interval: Some(SECOND * 6), ..Limits::default() };
    let mut rig = Rig::websocket(limits, || Script::new(pauses));
    let client = rig.open();
    client.text("one");
    rig.until_logged("text one");
    rig.advance(SECOND * 1000);
    assert_eq!(client.next_frame(), None);
    assert_eq!(rig.log(), ["opened", "text one"]);
    let id = rig.state.conns[0];
    rig.io().notify(id, Box::new("go on")).unwrap();
    rig.run();
    rig.advance(SECOND * 6);
    assert_eq!(rig.frame(&client), Frame::ping(""));
    let [_, (mut rig, client), _] = paused();
    rig.advance(SECOND * 1000);
    let id = rig.state.conns[0];
    rig.io().notify(id, Box::new("go on")).unwrap();
    rig.until_logged("bytes two");
    rig.io().notify(id, Box::new("go on")).unwrap();
    rig.until_logged("complete");
    drop(client);
}
