//! Raw connections over real sockets: both directions end on their own, and `closed` says how it ended.

#[path = "support/rig.rs"]
mod rig;
#[path = "support/script.rs"]
mod script;

use lodger::{Flow, Limits, SendError};
use rig::Rig;
use script::{Heard, Script};
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn bytes_come_back_as_they_went() {
    let mut rig = Rig::raw(Limits::default(), Script::echo);
    let client = rig.connect();
    client.send("hello");
    rig.until("the echo", |_| client.received() == b"hello");
    client.finish();
    rig.end(&client);
    rig.until_logged("closed: PeerEnded");
    assert_eq!(rig.log(), ["opened", "bytes hello", "end", "closed: PeerEnded"]);
}

#[test]
fn megabytes_come_back_as_they_went() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| match heard {
            Heard::Bytes(bytes) if cx.write(bytes) == Ok(Flow::Full) => {
                cx.conn().pause();
                cx.conn().request_writable();
            }
            Heard::Writable => cx.conn().resume(),
            _ => {}
        })
    });
    let client = rig.connect();
    let sent: Vec<u8> = (0..3_000_000u32).map(|at| (at * 7 / 3) as u8).collect();
    client.send(&sent);
    client.finish();
    rig.end(&client);
    assert_eq!(client.take(), sent);
}

#[test]
fn by_default_the_end_of_the_peer_ends_both_directions_behind_what_is_queued() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| match heard {
            // Else the end would be heard once the answer has gone out.
            Heard::Opened => cx.conn().read_when_full(true),
            Heard::Bytes(_) => {
                let _ = cx.write(&vec![b'x'; 4_000_000]);
            }
            _ => {}
        })
    });
    let client = rig.connect();
    client.stop_reading();
    client.send("go");
    client.finish();
    rig.until_logged("end");
    rig.run();
    assert!(!rig.log().contains(&"closed: PeerEnded".to_owned()));
    client.resume_reading();
    rig.end(&client);
    assert_eq!(client.received_len(), 4_000_000);
    rig.until_logged("closed: PeerEnded");
}

#[test]
fn a_handler_may_go_on_sending_when_the_peer_has_finished() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| match heard {
            Heard::End => cx.conn().set_timer(Duration::from_secs(60)),
            Heard::Timer => {
                assert_eq!(cx.write(b"late"), Ok(Flow::Ready));
                cx.conn().finish();
            }
            _ => {}
        })
        .keeps_open()
    });
    let client = rig.connect();
    client.send("question");
    client.finish();
    rig.until_logged("end");
    rig.run();
    assert!(!client.at_end());
    rig.advance(Duration::from_secs(60));
    rig.end(&client);
    assert_eq!(client.take(), b"late");
    rig.until_logged("closed: PeerEnded");
    assert_eq!(rig.log(), ["opened", "bytes question", "end", "timer", "closed: PeerEnded"]);
}

#[test]
fn a_handler_that_has_finished_still_receives() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Opened = heard {
                assert_eq!(cx.write(b"all I say"), Ok(Flow::Ready));
                cx.conn().finish();
                assert_eq!(cx.write(b"more"), Err(SendError::Closing));
            }
        })
    });
    let client = rig.connect();
    rig.end(&client);
    assert_eq!(client.take(), b"all I say");
    client.send("heard");
    rig.until_logged("bytes heard");
    // Nobody hurries a peer that still talks.
    rig.advance(Duration::from_secs(3600));
    client.send("again");
    rig.until_logged("bytes again");
    client.finish();
    rig.until_logged("closed: PeerEnded");
    assert_eq!(rig.log(), ["opened", "bytes heard", "bytes again", "closed: PeerEnded"]);
}

#[test]
fn close_sends_what_is_queued_and_drops_what_still_comes() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                let _ = cx.write(&vec![b'x'; 2_000_000]);
                cx.close();
                assert_eq!(cx.write(b"more"), Err(SendError::Closing));
            }
        })
    });
    let client = rig.connect();
    client.stop_reading();
    client.send("go");
    rig.until_logged("bytes go");
    client.send(vec![b'y'; 1_000_000]);
    rig.run();
    client.resume_reading();
    rig.end(&client);
    assert_eq!(client.received_len(), 2_000_000);
    // Nothing came that was not read: no reset followed.
    rig.until("all taken", |_| client.unsent() == 0);
    client.finish();
    rig.until_logged("closed: Closed");
    assert!(!client.was_reset());
    assert_eq!(rig.log(), ["opened", "bytes go", "closed: Closed"]);
}

#[test]
fn a_close_that_the_peer_does_not_follow_ends_at_the_limit() {
    let limits = Limits::default();
    let closing = limits.closing;
    let mut rig = Rig::raw(limits, || {
        Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                cx.close();
            }
        })
    });
    let client = rig.connect();
    client.send("go");
    rig.end(&client);
    rig.advance(closing - MILLI);
    assert_eq!(rig.log(), ["opened", "bytes go"]);
    rig.advance(MILLI);
    assert_eq!(rig.log(), ["closed: TimedOut(Closing)"]);
    assert_eq!(rig.io().link_count(), 2);
}

#[test]
fn abort_is_a_reset_and_says_what_was_not_sent() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| match heard {
            Heard::Bytes(_) => {
                assert_eq!(cx.write(&vec![b'x'; 8_000_000]), Ok(Flow::Full));
                assert!(cx.conn().queued() > 0);
                cx.conn().set_timer(Duration::from_secs(1));
            }
            Heard::Timer => {
                let queued = cx.conn().queued();
                cx.conn().abort();
                cx.data.log.push(format!("unsent {queued}"));
            }
            Heard::Closed(closed) => cx.data.log.push(format!("unsent {}", closed.unsent)),
            _ => {}
        })
    });
    let client = rig.connect();
    client.stop_reading();
    client.send("go");
    rig.until_logged("bytes go");
    rig.advance(Duration::from_secs(1));
    rig.until_logged("closed: Aborted, unsent");
    let log = rig.log();
    assert_eq!(log[2], "timer");
    assert_eq!(log[3], log[5], "{log:?}");
    rig.run();
    client.resume_reading();
    rig.until("the reset", |_| client.was_reset());
}

#[test]
fn a_reset_by_the_peer_is_reported_with_what_was_not_sent() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                let _ = cx.write(&vec![b'x'; 8_000_000]);
            }
        })
    });
    let idle = rig.connect();
    rig.run();
    idle.reset();
    rig.until_logged("closed: ConnectionReset");
    let busy = rig.connect();
    busy.stop_reading();
    busy.send("go");
    rig.until_logged("bytes go");
    rig.run();
    busy.reset();
    rig.until_logged("closed: ConnectionReset, unsent");
}

#[test]
fn a_peer_that_takes_nothing_is_dropped_at_the_write_stall_and_not_before() {
    let limits = Limits::default();
    let stall = limits.write_stall;
    let mut rig = Rig::raw(limits, || {
        Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                let _ = cx.write(&vec![b'x'; 12_000_000]);
            }
        })
    });
    let client = rig.connect();
    client.stop_reading();
    client.send("go");
    rig.until_logged("bytes go");
    rig.advance(stall - MILLI);
    // Whoever takes something has the whole time again.
    client.read_at_most(4_000_000);
    rig.until("some", |_| client.received_len() == 4_000_000);
    rig.advance(stall - MILLI);
    assert_eq!(rig.log(), ["opened", "bytes go"]);
    rig.advance(MILLI);
    let mut log = rig.log();
    if log.is_empty() {
        // The kernel has taken a little more since it was last asked, though the client reads nothing.
        rig.advance(stall);
        log = rig.log();
    }
    assert_eq!(log, ["closed: TimedOut(WriteStall), unsent"]);
}

#[test]
fn a_paused_connection_delivers_nothing_and_loses_nothing() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| match heard {
            Heard::Opened => cx.conn().pause(),
            Heard::Event(_) => cx.conn().resume(),
            _ => {}
        })
    });
    let client = rig.connect();
    client.send("while paused");
    client.finish();
    rig.until_logged("opened");
    rig.advance(Duration::from_secs(3600));
    assert_eq!(rig.log(), ["opened"]);
    let id = rig.state.conns[0];
    rig.io().notify(id, Box::new("go")).unwrap();
    rig.until_logged("closed: PeerEnded");
    assert_eq!(rig.log(), ["event go", "bytes while paused", "end", "closed: PeerEnded"]);
}

#[test]
fn an_acceptor_may_refuse_before_anything_is_read() {
    let mut rig = Rig::raw(Limits::default(), Script::echo);
    let io = rig.context.io();
    let listen = lodger::Listen::tcp(([127, 0, 0, 1], 0));
    let refused = io.listen_raw(listen, Limits::default(), |_, state: &mut rig::State, _| {
        state.log.push("refused".to_owned());
        None
    });
    rig.address = io.local_addr(refused.unwrap()).unwrap().inet().unwrap();
    let client = rig.connect();
    rig.end(&client);
    assert_eq!(client.take(), b"");
    assert_eq!(rig.log(), ["refused"]);
}

#[test]
fn an_adopted_socket_begins_with_what_was_read_already() {
    let mut rig = Rig::raw(Limits::default(), Script::echo);
    let (socket, client) = rig.pair();
    client.send(" and more");
    let io = rig.io();
    let id = io.adopt_raw(socket, b"read before", Limits::default(), Box::new(Script::echo())).unwrap();
    assert_eq!(io.conn(id).unwrap().peer().unwrap().inet(), Some(client.address()));
    rig.until("the echo", |_| client.received() == b"read before and more");
    client.finish();
    rig.end(&client);
    rig.until_logged("closed: PeerEnded");
    assert_eq!(rig.log()[..2], ["opened", "bytes read before"]);
}

#[test]
fn a_websocket_or_http_call_on_a_raw_connection_is_refused() {
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Opened = heard {
                assert_eq!(cx.send("x"), Err(SendError::Role));
                assert_eq!(cx.respond(lodger::Response::text("x")), Err(SendError::Role));
                assert_eq!(cx.conn().end_response(), Err(SendError::Role));
                assert_eq!(cx.conn().ping(b""), Err(SendError::Role));
                cx.data.log.push("all refused".to_owned());
            }
        })
    });
    let client = rig.connect();
    rig.until_logged("all refused");
    drop(client);
}

#[test]
fn a_peer_that_takes_a_little_at_a_time_is_slow_and_not_stalled() {
    let stall = Limits::default().write_stall;
    let mut rig = Rig::raw(Limits::default(), || {
        Script::new(|cx, heard| match heard {
            Heard::Opened => cx.conn().set_buffer_sizes(Some(1 << 20), None).expect("it is a socket"),
            Heard::Bytes(_) => drop(cx.write(&vec![b'x'; 12_000_000])),
            _ => {}
        })
    });
    let client = rig.connect();
    // What it has read is what the kernel has let go of.
    client.receive_buffer(64 * 1024);
    client.stop_reading();
    client.send("go");
    rig.until_logged("bytes go");
    rig.run();
    // Far less than a third of the kernel's buffer, so that it does not say that the socket is writable.
    for round in 1..=3 {
        client.read_at_most(200_000);
        rig.until("some", |_| client.received_len() == round * 200_000);
        rig.advance(stall);
        assert!(!rig.log().iter().any(|line| line.starts_with("closed")), "in round {round}");
    }
    // It takes no more, and the kernel only what it has room for.
    for _ in 0..3 {
        rig.advance(stall);
    }
    assert_eq!(rig.log().last().map(String::as_str), Some("closed: TimedOut(WriteStall), unsent"));
}
