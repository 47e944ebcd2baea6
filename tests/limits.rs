//! What one peer can make the server do in one turn, and what may wait to be sent: bounded, link by link.

#[path = "support/rig.rs"]
mod rig;
#[path = "support/script.rs"]
mod script;

use lodger::ws::MessageKind;
use lodger::{Cx, Decision, Flow, Io, Limits, Request, Response, SendError, Site};
use rig::{Frame, Rig, State};
use script::{Heard, Script};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Messages per link in one call (`docs/design.md`, section 6); a turn has two calls for a link, when it is ready and when it
/// goes on with what was left.
const PER_TURN: usize = 2 * 1024;
/// What is read from a link in one call.
const RECEIVE: u64 = 512 * 1024;

#[test]
fn a_link_with_many_messages_leaves_every_turn_some_time_for_the_others() {
    let count = Rc::new(Cell::new(0));
    let seen = Rc::clone(&count);
    let site = Site::new().protocol("", move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
        let seen = Rc::clone(&seen);
        Decision::websocket(Script::new(move |cx, heard| match heard {
            Heard::Text(text) if text == "busy" => {
                cx.data.log.pop();
                seen.set(seen.get() + 1);
            }
            Heard::Text(_) => drop(cx.send(seen.get().to_string().as_str())),
            _ => {}
        }))
    });
    let mut rig = Rig::site(site);
    let (busy, other) = (rig.open(), rig.open());
    busy.send(Frame::text("busy").masked().repeat(20_000));
    other.text("how far are you?");
    let mut before = 0;
    rig.until("all of them", |_| {
        let now = count.get();
        assert!(now - before <= PER_TURN, "{} messages in one turn", now - before);
        before = now;
        now == 20_000
    });
    let answer = rig.frame(&other).payload;
    let at: usize = String::from_utf8(answer).unwrap().parse().unwrap();
    assert!(at <= 2 * PER_TURN, "served after {at} messages of the other");
}

#[test]
fn a_link_with_many_pipelined_requests_leaves_every_turn_some_time_for_the_others() {
    let count = Rc::new(Cell::new(0));
    let seen = Rc::clone(&count);
    let site = Site::new().protocol("", move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
        seen.set(seen.get() + 1);
        Decision::respond(Response::text("x"))
    });
    let mut rig = Rig::site(site);
    let busy = rig.connect();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10_000));
    let mut before = 0;
    rig.until("all of them", |_| {
        let now = count.get();
        assert!(now - before <= PER_TURN, "{} requests in one turn", now - before);
        before = now;
        now == 10_000
    });
    for _ in 0..10_000 {
        assert_eq!(rig.answer(&busy).text(), "x");
    }
}

#[test]
fn one_receive_buffer_is_read_from_a_link_in_one_call() {
    let mut rig = Rig::raw(Limits::default(), || Script::new(|cx, _| drop(cx.data.log.pop())));
    let client = rig.connect();
    client.send(vec![1; 20_000_000]);
    let mut before = 0;
    rig.until("all of it", |rig| {
        let now = rig.io().links().find(|link| link.role == "raw").map_or(0, |link| link.received);
        assert!(now - before <= RECEIVE, "{} bytes in one turn", now - before);
        before = now;
        now == 20_000_000
    });
}

#[test]
fn a_connection_that_has_paused_is_read_in_smaller_pieces() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Opened = heard {
                cx.conn().pause();
            }
            cx.data.log.pop();
        })
    });
    let client = rig.connect();
    client.send(vec![1; 2_000_000]);
    rig.run();
    let id = rig.state.conns[0];
    rig.io().conn(id).unwrap().resume();
    let mut before = 0;
    rig.until("all of it", |rig| {
        let now = rig.io().links().find(|link| link.role == "raw").map_or(0, |link| link.received);
        assert!(now - before <= 64 * 1024, "{} bytes in one turn", now - before);
        before = now;
        now == 2_000_000
    });
}

fn small() -> Limits {
    Limits { send_high_water: 1000, send_max: 5000, ..Limits::default() }
}

/// Fills the kernel's buffers of a connection, until bytes wait here.
fn fill(cx: &mut Cx<'_, State>) {
    while cx.conn().queued() == 0 {
        let _ = cx.send(&[0; 100_000][..]);
    }
}

#[test]
fn sending_says_full_from_the_high_water_mark_and_refuses_beyond_the_maximum() {
    let mut rig = Rig::websocket(small(), || {
        Script::new(|cx, heard| match heard {
            Heard::Text(_) => {
                fill(cx);
                cx.conn().request_writable();
            }
            Heard::Writable => {
                fill(cx);
                let before = cx.conn().queued();
                assert!(before > 5000);
                assert_eq!(cx.conn().room(), 0);
                // One message may go beyond the maximum; now it is beyond.
                assert_eq!(cx.send("x"), Err(SendError::Overrun));
                assert_eq!(cx.conn().ping(b""), Err(SendError::Overrun));
                assert_eq!(cx.conn().send_piece(MessageKind::Text, b"x", true), Err(SendError::Overrun));
                let shared = cx.io.encode("x");
                assert_eq!(cx.conn().send_shared(&shared), Err(SendError::Overrun));
                assert_eq!(cx.conn().queued(), before, "nothing was queued");
            }
            _ => {}
        })
    });
    let client = rig.open();
    client.stop_reading();
    client.text("go");
    rig.until_logged("text go");
    rig.run();
    assert_eq!(rig.log(), ["opened", "text go"]);
    client.read_at_most(30_000_000);
    rig.until_logged("writable");
}

#[test]
fn one_message_may_go_beyond_the_maximum_and_none_after_it() {
    let mut rig = Rig::raw(small(), || {
        Script::new(|cx, heard| match heard {
            Heard::Bytes(_) => while cx.write(&[0; 100_000]) == Ok(Flow::Ready) {},
            Heard::Timer => {
                let mut conn = cx.conn();
                while conn.queued() <= 5000 {
                    assert_eq!(conn.write(&[0; 1000]), Ok(Flow::Full));
                }
                assert!(conn.queued() <= 6000 || conn.queued() > 90_000, "{}", conn.queued());
                assert_eq!(conn.write(&[0; 1]), Err(SendError::Overrun));
                cx.data.log.push("refused".to_owned());
            }
            _ => {}
        })
    });
    let client = rig.connect();
    client.stop_reading();
    client.send("go");
    rig.until_logged("bytes go");
    let id = rig.state.conns[0];
    rig.io().conn(id).unwrap().set_timer(Duration::from_secs(1));
    rig.advance(Duration::from_secs(1));
    rig.until_logged("refused");
}

#[test]
fn a_response_in_pieces_is_bounded_like_any_other_output() {
    let mut rig = Rig::http(small(), || {
        Script::new(|cx, heard| {
            if let Heard::Request(_) = heard {
                assert_eq!(cx.respond(Response::stream("text/plain")), Ok(Flow::Ready));
                let refused = (0..1000).find_map(|_| cx.write(&[0; 100_000]).err());
                assert_eq!(refused, Some(SendError::Overrun));
                assert!(cx.conn().queued() <= 5000 + 100_010);
                cx.data.log.push("refused".to_owned());
            }
        })
    });
    let client = rig.connect();
    client.stop_reading();
    client.get("/");
    rig.until_logged("refused");
    rig.until("all that was taken", |rig| rig.io().links().any(|link| link.queued > 0));
}

#[test]
fn frames_held_for_the_end_of_a_message_are_bounded() {
    let mut rig = Rig::websocket(small(), || {
        Script::new(|cx, heard| {
            if let Heard::Text(_) = heard {
                cx.conn().send_piece(MessageKind::Text, b"one ", false).unwrap();
                let shared = cx.io.encode(&[7; 998][..]);
                let held = (0..100).take_while(|_| cx.conn().send_shared(&shared).is_ok()).count();
                assert!((4..=6).contains(&held), "{held}");
                assert_eq!(cx.conn().send_shared(&shared), Err(SendError::Overrun));
                cx.conn().send_piece(MessageKind::Text, b"two", true).unwrap();
                cx.data.log.push(format!("held {held}"));
            }
        })
    });
    let client = rig.open();
    client.text("go");
    assert_eq!(rig.frame(&client), Frame::new(false, 1, "one "));
    assert_eq!(rig.frame(&client), Frame::new(true, 0, "two"));
    let held: usize = rig.log().last().unwrap().strip_prefix("held ").unwrap().parse().unwrap();
    for _ in 0..held {
        assert_eq!(rig.frame(&client), Frame::binary([7; 998]));
    }
}

#[test]
fn a_flood_of_pings_from_a_peer_that_does_not_read_queues_little() {
    let site = Site::new().protocol("", |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
        Decision::websocket(Script::new(|cx, heard| {
            if let Heard::Ping(_) = heard {
                cx.data.log.pop();
            }
        }))
    });
    let mut rig = Rig::listening(site, |listen| listen.send_buffer(50_000));
    let client = rig.open();
    client.stop_reading();
    let flood = Frame::ping([b'p'; 125]).masked().repeat(10_000);
    let mut highest = 0;
    for _ in 0..4 {
        client.send(&flood);
        rig.until("the flood", |rig| {
            highest = highest.max(rig.io().links().map(|link| link.queued).max().unwrap());
            client.unsent() == 0
        });
    }
    rig.run();
    assert!(highest >= 64 * 1024, "the peer's buffers were never full: {highest}");
    assert!(highest <= 64 * 1024 + 1000, "{highest}");
    // The last of them is answered once there is room.
    client.frame(&Frame::ping("the last"));
    rig.run();
    client.resume_reading();
    let mut pongs = 0;
    while rig.frame(&client) != Frame::pong("the last") {
        pongs += 1;
    }
    assert!(pongs < 40_000, "most were left out");
}

#[test]
fn a_reader_that_is_slow_does_not_slow_down_the_others() {
    let mut rig = Rig::websocket(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Text(_) = heard {
                let _ = cx.send(&[1; 900_000][..]);
            }
        })
    });
    let (slow, quick) = (rig.open(), rig.open());
    slow.stop_reading();
    (0..20).for_each(|_| slow.text("more"));
    rig.run();
    for _ in 0..20 {
        quick.text("more");
        assert_eq!(rig.frame(&quick).payload.len(), 900_000);
    }
    let queued: Vec<usize> =
        rig.io().links().filter(|link| link.role == "websocket").map(|link| link.queued).collect();
    assert_eq!(queued.iter().filter(|queued| **queued == 0).count(), 1, "{queued:?}");
    assert!(queued.iter().all(|queued| *queued < 1024 * 1024 + 900_100), "{queued:?}");
}

#[test]
fn a_file_for_a_quick_reader_is_sent_over_several_turns() {
    let path = std::env::temp_dir().join(format!("lodger-limits-{}", std::process::id()));
    std::fs::write(&path, vec![b'x'; 40_000_000]).unwrap();
    let served = path.clone();
    let site = Site::new().protocol("", move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
        Decision::respond(Response::file(&served, "text/plain").unwrap())
    });
    let mut rig = Rig::site(site);
    // This reader empties the kernel's buffers while the server fills them.
    let mut stream = std::net::TcpStream::connect(rig.address).unwrap();
    let reader = std::thread::spawn(move || {
        use std::io::{Read, Write};
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return total,
                read => total += read,
            }
        }
    });
    let mut before = 0;
    rig.until("all of it", |rig| {
        let now = rig.io().links().filter(|link| link.role == "http").map(|link| link.sent).sum::<u64>();
        // Two calls of 4 MiB each at the most, and what was queued.
        assert!(now.saturating_sub(before) <= 10 * 1024 * 1024, "{} bytes in one turn", now - before);
        before = now;
        reader.is_finished()
    });
    assert!(reader.join().unwrap() > 40_000_000);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn one_call_serves_256_links_and_the_rest_comes_with_the_next() {
    struct Counted;

    impl lodger::raw::Handler<usize> for Counted {
        fn writable(&mut self, cx: &mut lodger::Cx<'_, usize>) {
            *cx.data += 1;
        }
    }

    let mut context: lodger::Context<usize> = lodger::Context::new();
    let mut array = lodger_poll::PollArray::new();
    let mut served = 0;
    let mut conns = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..300 {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let adopted = context.io().adopt_raw(ours.into(), b"", lodger::Limits::default(), Box::new(Counted));
        conns.push(adopted.unwrap());
        peers.push(theirs);
    }
    context.service_timeouts(&mut served);
    for id in conns {
        context.io().conn(id).unwrap().request_writable();
    }
    context.service_timeouts(&mut served);
    assert_eq!(served, 256);
    assert!(context.prepare(&mut array).is_now());
    context.service_timeouts(&mut served);
    assert_eq!(served, 300);
    assert_eq!(context.prepare(&mut array), lodger::Wait::FOREVER);
    context.leave(&mut array, &mut served);
}
