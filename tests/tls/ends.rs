//! Ends: whether they were announced, in either direction, and what is told of them.

use super::forger::Forger;
use super::records::open;
use super::rig::{Frame, State};
use super::script::{Heard, Script};
use super::town::{TlsPeer, Town, VERSIONS};
use lodger::tls::Version;
use lodger::tls::rustls::ContentType;
use lodger::ws::CloseCode;
use lodger::{Decision, Flow, Limits, Response, SendError, sim};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);
/// What says that nothing more comes.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

#[test]
fn an_announced_end_is_the_end_of_a_plain_connection() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), Script::echo);
        town.version(version);
        let mut peer = town.secured();
        peer.say("hello");
        town.settle(&mut peer);
        peer.close_notify();
        peer.finish();
        town.settle(&mut peer);
        assert_eq!(peer.heard(), b"hello");
        assert!(peer.closed && peer.socket().at_end() && !peer.socket().was_reset());
        assert_eq!(town.log(), ["opened", "bytes hello", "end", "closed: PeerEnded"]);
    }
}

#[test]
fn an_end_that_was_not_announced_is_a_truncation() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), Script::echo);
        town.version(version);
        let mut peer = town.secured();
        peer.say("hello");
        town.settle(&mut peer);
        peer.finish();
        town.settle(&mut peer);
        assert_eq!(town.log(), ["opened", "bytes hello", "closed: Tls(Truncated)"]);
        assert_eq!(town.links(), 1);

        let mut town = Town::hall(Limits::default(), Script::echo);
        town.version(version);
        let mut peer = town.secured();
        open(&mut town, &mut peer);
        peer.finish();
        town.settle(&mut peer);
        assert_eq!(town.log()[1..], ["opened", "closed: Tls(Truncated)"]);
        assert_eq!(town.links(), 1);
    }
}

#[test]
fn content_that_is_cut_off_is_told_from_content_that_the_peer_left_out() {
    for (announced, reason) in [(true, "closed: PeerEnded"), (false, "closed: Tls(Truncated)")] {
        let mut town = Town::hall(Limits::default(), Script::quiet);
        let mut peer = town.secured();
        peer.say("POST /script HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
        if announced {
            peer.close_notify();
        }
        peer.finish();
        town.settle(&mut peer);
        assert_eq!(town.log()[1..], ["POST /script", "bytes half", reason]);
        assert_eq!(town.links(), 1);
    }
}

#[test]
fn a_client_that_ends_its_direction_gets_what_is_decided_later() {
    for keeps_tcp_open in [true, false] {
        for at_once in [true, false] {
            for request in ["GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /later HTTP/1.0\r\n\r\n"] {
                let mut town = Town::hall(Limits::default(), Script::quiet);
                let mut peer = town.secured();
                peer.say(request);
                if !at_once {
                    town.settle(&mut peer);
                }
                peer.close_notify();
                if !keeps_tcp_open {
                    peer.finish();
                }
                town.settle(&mut peer);
                town.run_for(Duration::from_secs(9));
                let id = town.state.conns[0];
                town.context.io().decide(id, Decision::respond(Response::text("later"))).unwrap();
                town.settle(&mut peer);
                assert_eq!(peer.answer(), Some((200, "later".to_owned())), "{request:?}, at once: {at_once}");
                assert!(peer.closed);
                assert_eq!(town.links(), 1);
            }
        }
    }
}

#[test]
fn a_silent_exchange_hears_that_its_client_has_ended_and_ends_at_the_limit() {
    for keeps_tcp_open in [true, false] {
        let mut town = Town::hall(Limits::default(), || {
            Script::new(|cx, heard| {
                if let Heard::Complete(_) = heard {
                    let _ = cx.respond(Response::stream("text/event-stream"));
                }
            })
        });
        let mut peer = town.secured();
        peer.say("GET /script HTTP/1.1\r\nHost: localhost\r\n\r\n");
        town.settle(&mut peer);
        town.run_for(Duration::from_secs(1000));
        town.log();
        peer.close_notify();
        if !keeps_tcp_open {
            peer.finish();
        }
        town.settle(&mut peer);
        town.run_for(Limits::default().half_closed - MILLI);
        assert_eq!(town.log(), ["peer ended"]);
        town.run_for(MILLI);
        assert_eq!(town.log(), ["closed: TimedOut(HalfClosed)"]);
        town.settle(&mut peer);
        assert!(!peer.closed, "what has come must not be taken for all");
        assert_eq!(town.links(), 1);
    }
}

#[test]
fn a_websocket_whose_peer_ends_without_a_close_still_sends_what_was_queued() {
    let mut town = Town::hall(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::PeerEnded = heard {
                let _ = cx.send(&vec![b'x'; 2_000_000][..]);
            }
        })
    });
    let mut peer = town.secured();
    peer.say(super::rig::upgrade("/script", ""));
    town.settle(&mut peer);
    peer.heard();
    town.log();
    peer.socket().stop_reading();
    peer.close_notify();
    town.settle(&mut peer);
    assert_eq!(town.log(), ["peer ended"]);
    peer.socket().resume_reading();
    town.settle(&mut peer);
    assert_eq!(peer.heard().len(), 2_000_010);
    assert!(peer.closed);
    assert_eq!(town.log(), ["closed: PeerEnded"]);
}

#[test]
fn paused_conns_over_tls_hear_of_an_end_and_of_a_reset_within_seconds() {
    for websocket in [true, false] {
        for reset in [true, false] {
            let mut town = Town::hall(Limits::default(), || {
                Script::new(|cx, heard| {
                    if let Heard::Text(_) | Heard::Bytes(_) = heard {
                        cx.conn().pause();
                    }
                })
            });
            let mut peer = town.secured();
            if websocket {
                peer.say(super::rig::upgrade("/script", ""));
                peer.say(Frame::text("one").masked());
            } else {
                peer.say("POST /script HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\none");
            }
            town.settle(&mut peer);
            town.log();
            match websocket {
                true => peer.say(Frame::text("two").masked()),
                false => peer.say("two"),
            }
            town.settle(&mut peer);
            town.run_for(Duration::from_secs(1000));
            match reset {
                true => peer.socket.take().unwrap().reset(),
                false => peer.finish(),
            }
            town.run_for(Duration::from_secs(5));
            let log = town.log();
            match reset {
                true => assert_eq!(log, ["closed: ConnectionReset"]),
                false => assert_eq!(log, ["peer ended"]),
            }
        }
    }
}

#[test]
fn between_requests_either_end_is_the_end_of_the_connection() {
    for announced in [true, false] {
        for keeps_tcp_open in [true, false] {
            let mut town = Town::hall(Limits::default(), Script::quiet);
            let mut peer = town.secured();
            assert!(town.ask(&mut peer, "/a", "localhost").is_some());
            if announced {
                peer.close_notify();
            }
            if !keeps_tcp_open {
                peer.finish();
            }
            town.settle(&mut peer);
            let links = if announced || !keeps_tcp_open { 1 } else { 2 };
            assert_eq!(town.links(), links, "announced {announced}, TCP open {keeps_tcp_open}");
            assert_eq!(peer.closed, announced);
        }
    }
}

#[test]
fn our_close_is_announced_before_our_end() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), || {
            Script::new(|cx, heard| {
                if let Heard::Bytes(_) = heard {
                    assert_eq!(cx.write(b"last words"), Ok(Flow::Ready));
                    cx.close();
                    assert_eq!(cx.write(b"more"), Err(SendError::Closing));
                }
            })
        });
        let mut forger = Forger::new(&mut town, version);
        forger.send(ContentType::ApplicationData, b"go");
        town.run();
        let alert = (ContentType::Alert, CLOSE_NOTIFY.to_vec());
        assert_eq!(forger.received(), [(ContentType::ApplicationData, b"last words".to_vec()), alert]);
        assert!(forger.socket.at_end());
        // What still comes is nobody's, and no reset follows.
        forger.send(ContentType::ApplicationData, b"too late");
        town.run();
        forger.send(ContentType::Alert, &CLOSE_NOTIFY);
        forger.socket.finish();
        town.run();
        assert!(!forger.socket.was_reset());
        assert_eq!(town.log(), ["opened", "bytes go", "closed: Closed"]);
        assert_eq!(town.links(), 1);
    }
}

#[test]
fn our_close_is_announced_behind_what_waits_for_a_slow_peer() {
    let mut town = Town::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                let _ = cx.write(&vec![b'x'; 2_000_000]);
                cx.close();
            }
        })
    });
    let mut peer = town.secured();
    peer.socket().stop_reading();
    peer.say("go");
    town.settle(&mut peer);
    assert_eq!(peer.plain.len(), 0);
    peer.socket().resume_reading();
    town.settle(&mut peer);
    assert!(peer.heard() == vec![b'x'; 2_000_000]);
    assert!(peer.closed && peer.socket().at_end());
    peer.close_notify();
    peer.finish();
    town.settle(&mut peer);
    assert_eq!(town.log(), ["opened", "bytes go", "closed: Closed"]);
}

#[test]
fn a_close_that_the_peer_does_not_follow_ends_at_the_limit() {
    let mut town = Town::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                cx.close();
            }
        })
    });
    let mut peer = town.secured();
    peer.say("go");
    town.settle(&mut peer);
    assert!(peer.closed);
    town.run_for(Limits::default().closing - MILLI);
    assert_eq!(town.log(), ["opened", "bytes go"]);
    town.run_for(MILLI);
    assert_eq!(town.log(), ["closed: TimedOut(Closing)"]);
    assert_eq!(town.links(), 1);
}

#[test]
fn a_handler_that_has_finished_still_receives() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), || {
            Script::new(|cx, heard| {
                if let Heard::Bytes(bytes) = heard
                    && bytes == b"go"
                {
                    assert_eq!(cx.write(b"all I say"), Ok(Flow::Ready));
                    cx.conn().finish();
                    assert_eq!(cx.write(b"more"), Err(SendError::Closing));
                }
            })
        });
        let mut forger = Forger::new(&mut town, version);
        forger.send(ContentType::ApplicationData, b"go");
        town.run();
        let alert = (ContentType::Alert, CLOSE_NOTIFY.to_vec());
        assert_eq!(forger.received(), [(ContentType::ApplicationData, b"all I say".to_vec()), alert]);
        assert!(forger.socket.at_end());
        forger.send(ContentType::ApplicationData, b"heard");
        town.run_for(Duration::from_secs(3600));
        forger.send(ContentType::ApplicationData, b"again");
        town.run();
        forger.send(ContentType::Alert, &CLOSE_NOTIFY);
        forger.socket.finish();
        town.run();
        assert_eq!(town.log(), ["opened", "bytes go", "bytes heard", "bytes again", "closed: PeerEnded"]);
    }
}

#[test]
fn a_handler_may_go_on_sending_when_the_peer_has_finished() {
    for version in VERSIONS {
        for keeps_tcp_open in [true, false] {
            let mut town = Town::raw(Limits::default(), || {
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
            town.version(version);
            let mut peer = town.secured();
            peer.say("question");
            peer.close_notify();
            peer.pump();
            if !keeps_tcp_open {
                peer.finish();
            }
            town.settle(&mut peer);
            assert_eq!(town.log(), ["opened", "bytes question", "end"]);
            assert!(!peer.socket().at_end());
            town.run_for(Duration::from_secs(60));
            town.settle(&mut peer);
            assert_eq!(peer.heard(), b"late");
            assert!(peer.closed && peer.socket().at_end());
            assert_eq!(town.log(), ["timer", "closed: PeerEnded"]);
            assert_eq!(town.links(), 1);
        }
    }
}

#[test]
fn an_end_that_comes_with_the_last_bytes_is_heard_behind_them() {
    for version in VERSIONS {
        for keeps_tcp_open in [true, false] {
            let mut town = Town::raw(Limits::default(), Script::echo);
            town.version(version);
            let mut peer = town.secured();
            peer.say("last");
            peer.close_notify();
            peer.pump();
            if !keeps_tcp_open {
                peer.finish();
            }
            town.settle(&mut peer);
            assert_eq!(peer.heard(), b"last");
            assert!(peer.closed && peer.socket().at_end());
            assert_eq!(town.log(), ["opened", "bytes last", "end", "closed: PeerEnded"]);
            assert_eq!(town.links(), 1);
        }
    }
}

#[test]
fn an_end_that_comes_with_the_end_of_the_handshake_is_heard_behind_it() {
    let mut town = Town::raw(Limits::default(), Script::echo);
    town.version(Version::Tls13);
    let mut peer = town.connect();
    peer.pump();
    town.run();
    let flight = peer.socket().take();
    peer.tls.read_tls(&mut &flight[..]).unwrap();
    peer.tls.process_new_packets().unwrap();
    peer.say("first and last");
    peer.close_notify();
    town.settle(&mut peer);
    assert_eq!(town.log(), ["opened", "bytes first and last", "end", "closed: PeerEnded"]);
    assert_eq!(peer.heard(), b"first and last");
    assert!(peer.closed && peer.socket().at_end());
}

#[test]
fn an_end_that_is_announced_before_the_handshake_is_complete_is_none() {
    let told = "Alert { description: CloseNotify, received: true }";
    for version in VERSIONS {
        for raw in [false, true] {
            let mut town = match raw {
                true => Town::raw(Limits::default(), Script::quiet),
                false => Town::hall(Limits::default(), Script::quiet),
            };
            town.version(version);
            let mut peer = town.connect();
            peer.pump();
            peer.socket().send([21, 3, 3, 0, 2, 1, 0]);
            town.run();
            // Anybody can have sent it: TLS 1.2 passes over it, TLS 1.3 does not have it.
            let told = if raw { format!("closed: Tls({told})") } else { format!("failed {told}") };
            let expected = if version == Version::Tls12 { vec![] } else { vec![told] };
            assert_eq!(town.log(), expected);
            town.settle(&mut peer);
            assert_eq!(peer.error.is_none(), version == Version::Tls12);
        }
    }
}

#[test]
fn an_end_waits_for_a_handler_that_pauses_and_needs_no_more_readiness() {
    for version in VERSIONS {
        for keeps_tcp_open in [true, false] {
            let mut town = Town::raw(Limits::default(), || {
                Script::new(|cx, heard| match heard {
                    Heard::Bytes(_) => cx.conn().pause(),
                    Heard::Event(_) => cx.conn().resume(),
                    _ => {}
                })
            });
            town.version(version);
            let mut peer = town.secured();
            peer.say("last");
            peer.close_notify();
            peer.pump();
            if !keeps_tcp_open {
                peer.finish();
            }
            town.settle(&mut peer);
            town.run_for(Duration::from_secs(3600));
            assert_eq!(town.log(), ["opened", "bytes last"]);
            let id = town.state.conns[0];
            town.context.io().notify(id, Box::new("go")).unwrap();
            town.settle(&mut peer);
            assert_eq!(town.log(), ["event go", "end", "closed: PeerEnded"], "TCP open: {keeps_tcp_open}");
        }
    }
}

#[test]
fn an_end_waits_for_messages_that_a_pause_holds_back() {
    for keeps_tcp_open in [true, false] {
        let mut town = Town::hall(Limits::default(), || {
            Script::new(|cx, heard| match heard {
                Heard::Text(_) => cx.conn().pause(),
                Heard::Event(_) => cx.conn().resume(),
                _ => {}
            })
        });
        let mut peer = town.secured();
        open(&mut town, &mut peer);
        peer.say([Frame::text("a").masked(), Frame::text("b").masked()].concat());
        peer.close_notify();
        peer.pump();
        if !keeps_tcp_open {
            peer.finish();
        }
        town.settle(&mut peer);
        town.run_for(Duration::from_secs(60));
        // It is found by a look, and told once.
        assert_eq!(town.log()[1..], ["opened", "text a", "peer ended"]);
        let id = town.state.conns[0];
        for expected in [&["event go", "text b"][..], &["event go", "closed: PeerEnded"]] {
            town.context.io().notify(id, Box::new("go")).unwrap();
            town.settle(&mut peer);
            assert_eq!(town.log(), expected, "TCP open: {keeps_tcp_open}");
        }
        assert_eq!(town.links(), 1);
    }
}

#[test]
fn an_end_is_heard_behind_more_messages_than_a_turn_has_room_for() {
    for keeps_tcp_open in [true, false] {
        let mut town = Town::hall(Limits::default(), || {
            Script::new(|cx, heard| {
                if let Heard::Text(_) = heard {
                    cx.data.log.pop();
                }
            })
        });
        let mut peer = town.secured();
        open(&mut town, &mut peer);
        peer.say([Frame::text("a").masked().repeat(10_000), Frame::binary("z").masked()].concat());
        peer.close_notify();
        peer.pump();
        if !keeps_tcp_open {
            peer.finish();
        }
        town.settle(&mut peer);
        assert_eq!(town.log()[1..], ["opened", "binary z", "peer ended", "closed: PeerEnded"]);
    }
}

#[test]
fn an_end_within_a_request_that_is_being_decided_is_told_when_it_can_be() {
    for keeps_tcp_open in [true, false] {
        let mut town = Town::hall(Limits::default(), || {
            Script::new(|cx, heard| match heard {
                Heard::Request(_) => cx.conn().set_timer(Duration::from_secs(1)),
                Heard::Timer => drop(cx.respond(lodger::Response::text("late"))),
                _ => {}
            })
        });
        let mut peer = town.secured();
        peer.say("GET /script HTTP/1.1\r\nHost: localhost\r\n\r\n");
        peer.close_notify();
        peer.pump();
        if !keeps_tcp_open {
            peer.finish();
        }
        town.settle(&mut peer);
        town.run_for(Duration::from_secs(1));
        town.settle(&mut peer);
        assert_eq!(peer.answer(), Some((200, "late".to_owned())));
        assert!(peer.closed && peer.socket().at_end());
        assert_eq!(town.log()[1..], ["GET /script", "complete", "peer ended", "timer", "closed: Completed"]);
        assert_eq!(town.links(), 1);
    }
}

#[test]
fn a_closing_handshake_ends_both_layers() {
    for version in VERSIONS {
        for by_us in [true, false] {
            let mut town = Town::hall(Limits::default(), || {
                Script::new(|cx, heard| {
                    if let Heard::Text(_) = heard {
                        cx.close();
                    }
                })
            });
            town.version(version);
            let mut peer = town.secured();
            open(&mut town, &mut peer);
            if by_us {
                peer.say(Frame::text("close").masked());
                town.settle(&mut peer);
                assert_eq!(peer.heard(), Frame::close(1000, "").unmasked());
                peer.say(Frame::close(1000, "").masked());
            } else {
                peer.say(Frame::close(1001, "bye").masked());
                town.settle(&mut peer);
                assert_eq!(peer.heard(), Frame::close(1001, "").unmasked());
            }
            town.settle(&mut peer);
            assert!(peer.closed && peer.socket().at_end());
            peer.close_notify();
            peer.finish();
            town.settle(&mut peer);
            let by = if by_us { "closed: by us 1000 " } else { "closed: by peer 1001 bye" };
            assert!(town.has_logged(by), "{:?}", town.state.log);
            assert_eq!(town.links(), 1);
        }
    }
}

#[test]
fn a_peer_that_announces_its_end_and_keeps_its_socket_holds_up_nothing() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.secured();
    open(&mut town, &mut peer);
    peer.close_notify();
    town.settle(&mut peer);
    assert_eq!(town.log()[1..], ["opened", "peer ended", "closed: PeerEnded"]);
    assert!(peer.closed && peer.socket().at_end());
    assert_eq!(town.links(), 1);
}

#[test]
fn what_comes_behind_an_announced_end_is_not_delivered() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), || Script::quiet().keeps_open());
        let mut forger = Forger::new(&mut town, version);
        forger.send(ContentType::Alert, &CLOSE_NOTIFY);
        forger.send(ContentType::ApplicationData, b"behind it");
        town.run();
        forger.send(ContentType::ApplicationData, b"behind it");
        town.run_for(Duration::from_secs(5));
        assert_eq!(town.log(), ["opened", "end"]);
    }
}

#[test]
fn abort_is_a_reset() {
    let mut town = Town::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                cx.conn().abort();
            }
        })
    });
    let mut peer = town.secured();
    peer.say("go");
    town.settle(&mut peer);
    assert!(peer.socket().was_reset() && !peer.closed);
    assert_eq!(town.log(), ["opened", "bytes go", "closed: Aborted"]);
    assert_eq!(town.links(), 1);
}

#[test]
fn abort_during_the_handshake_is_a_reset_and_the_handler_hears_no_opening() {
    let mut town = Town::raw(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    peer.step = 50;
    peer.pump();
    town.run();
    let id = town.context.io().links().find_map(|link| link.conn).unwrap();
    town.context.io().conn(id).unwrap().abort();
    town.settle(&mut peer);
    assert_eq!(town.log(), ["closed: Aborted"]);
    assert_eq!(town.links(), 1);
}

/// A raw connection whose handler is told of something, asks for room and has a timer, all within the handshake.
fn busy_within_the_handshake() -> (Town, TlsPeer) {
    let mut town = Town::raw(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    let hello = peer.records();
    peer.socket().send(&hello[..50]);
    peer.out = hello[50..].to_vec();
    town.run();
    let id = town.context.io().links().find_map(|link| link.conn).unwrap();
    town.context.io().notify(id, Box::new("first")).unwrap();
    let mut conn = town.context.io().conn(id).unwrap();
    conn.request_writable();
    conn.set_timer(Duration::from_secs(1));
    town.run_for(Duration::from_secs(2));
    town.context.io().notify(id, Box::new("second")).unwrap();
    town.run();
    assert_eq!(town.log(), [""; 0]);
    (town, peer)
}

#[test]
fn what_happens_within_the_handshake_is_heard_behind_the_opening() {
    let (mut town, mut peer) = busy_within_the_handshake();
    town.settle(&mut peer);
    assert_eq!(town.log(), ["opened", "event first", "writable", "timer", "event second"]);
}

#[test]
fn a_timer_that_was_cancelled_within_the_handshake_is_not_heard() {
    let (mut town, mut peer) = busy_within_the_handshake();
    let id = town.context.io().links().find_map(|link| link.conn).unwrap();
    town.context.io().conn(id).unwrap().cancel_timer();
    town.settle(&mut peer);
    assert_eq!(town.log(), ["opened", "event first", "writable", "event second"]);
}

#[test]
fn what_happens_within_a_handshake_that_does_not_end_well_is_not_heard() {
    let (mut town, mut peer) = busy_within_the_handshake();
    peer.socket().finish();
    town.run();
    assert_eq!(town.log(), ["closed: Tls(HandshakeEnded)"]);
    // Closed by the application, with something to send.
    let (mut town, mut peer) = busy_within_the_handshake();
    let id = town.context.io().links().find_map(|link| link.conn).unwrap();
    town.context.io().conn(id).unwrap().write(b"last words").unwrap();
    town.context.io().conn(id).unwrap().close();
    town.settle(&mut peer);
    peer.close_notify();
    peer.finish();
    town.settle(&mut peer);
    assert_eq!(peer.heard(), b"last words");
    assert_eq!(town.log(), ["closed: Closed"]);
}

#[test]
fn what_waits_for_the_handshake_goes_out_before_a_close() {
    for version in VERSIONS {
        let (mut town, mut peer) = closed_during_the_handshake();
        town.version(version);
        town.settle(&mut peer);
        assert_eq!(peer.heard(), b"first and last");
        assert!(peer.closed && peer.socket().at_end());
        assert_eq!(town.log(), [""; 0]);
        peer.close_notify();
        peer.finish();
        town.settle(&mut peer);
        assert_eq!(town.log(), ["closed: Closed"]);
        assert_eq!(town.links(), 1);
    }
}

#[test]
fn a_close_during_a_handshake_that_is_not_completed_ends_at_the_limit() {
    let (mut town, peer) = closed_during_the_handshake();
    town.run_for(Limits::default().closing - MILLI);
    assert_eq!((town.links(), town.log()), (2, vec![]));
    town.run_for(MILLI);
    assert_eq!((town.links(), town.log()), (1, vec!["closed: TimedOut(Closing), unsent".to_owned()]));
    drop(peer);
}

#[test]
fn a_close_during_a_handshake_that_fails_or_ends_says_what_was_not_sent() {
    for fails in [true, false] {
        let (mut town, mut peer) = closed_during_the_handshake();
        if fails {
            peer.socket().send([0xff; 4000]);
        } else {
            peer.socket().finish();
        }
        town.run();
        assert_eq!(town.links(), 1);
        let log = town.log();
        assert!(log[0].starts_with("closed: Tls(") && log[0].ends_with(", unsent"), "{log:?}");
        assert_eq!(log.len(), 1);
    }
}

/// A raw connection with something to send that was closed before it could be sent.
fn closed_during_the_handshake() -> (Town, TlsPeer) {
    let mut town = Town::raw(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    let hello = peer.records();
    peer.socket().send(&hello[..50]);
    peer.out = hello[50..].to_vec();
    town.run();
    let id = town.context.io().links().find_map(|link| link.conn).unwrap();
    town.context.io().conn(id).unwrap().write(b"first and last").unwrap();
    town.context.io().conn(id).unwrap().close();
    town.run();
    (town, peer)
}

#[test]
fn a_close_during_the_handshake_with_nothing_to_send_is_an_end() {
    let mut town = Town::raw(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    peer.step = 50;
    peer.pump();
    town.run();
    let id = town.context.io().links().find_map(|link| link.conn).unwrap();
    town.context.io().conn(id).unwrap().close();
    town.run();
    assert!(peer.socket().at_end());
    peer.socket().finish();
    town.run();
    assert_eq!((town.links(), town.log()), (1, vec!["closed: Closed".to_owned()]));
}

#[test]
fn a_reset_by_the_peer_is_reported_with_what_was_not_sent() {
    let mut town = Town::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                let _ = cx.write(&vec![b'x'; 2_000_000]);
            }
        })
    });
    let mut idle = town.secured();
    idle.socket.take().unwrap().reset();
    town.run();
    assert_eq!(town.log(), ["opened", "closed: ConnectionReset"]);
    let mut busy = town.secured();
    busy.socket().stop_reading();
    busy.say("go");
    town.settle(&mut busy);
    busy.socket.take().unwrap().reset();
    town.run();
    assert_eq!(town.log(), ["opened", "bytes go", "closed: ConnectionReset, unsent"]);
}

#[test]
fn a_peer_that_takes_nothing_is_dropped_at_the_write_stall_and_not_before() {
    let mut town = Town::raw(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                let _ = cx.write(&vec![b'x'; 2_000_000]);
            }
        })
    });
    let mut peer = town.secured();
    peer.socket().stop_reading();
    peer.say("go");
    town.settle(&mut peer);
    town.run_for(Limits::default().write_stall - MILLI);
    assert_eq!(town.log(), ["opened", "bytes go"]);
    town.run_for(MILLI);
    assert_eq!(town.log(), ["closed: TimedOut(WriteStall), unsent"]);
}

#[test]
fn a_handler_that_panics_loses_its_connection_and_no_other() {
    let mut town = Town::raw(Limits::default(), || {
        Script::new(|_, heard| {
            if matches!(heard, Heard::Bytes(bytes) if bytes == b"panic") {
                std::panic::resume_unwind(Box::new("told to"));
            }
        })
    });
    let (mut doomed, mut other) = (town.secured(), town.secured());
    doomed.say("panic");
    doomed.pump();
    let unwound = catch_unwind(AssertUnwindSafe(|| town.run()));
    assert!(unwound.is_err());
    town.settle(&mut doomed);
    assert!(doomed.socket().was_reset());
    other.say("still here");
    town.settle(&mut other);
    assert!(town.has_logged("bytes still here"));
    assert_eq!(town.links(), 2);
}

#[test]
fn a_handler_that_panics_at_its_opening_loses_its_connection_and_no_other() {
    let mut first = true;
    let mut town = Town::raw(Limits::default(), move || {
        let panics = std::mem::take(&mut first);
        Script::new(move |cx, heard| match heard {
            Heard::Opened if panics => std::panic::resume_unwind(Box::new("told to")),
            Heard::Bytes(bytes) => drop(cx.write(bytes)),
            _ => {}
        })
    });
    let mut doomed = town.connect();
    let unwound = catch_unwind(AssertUnwindSafe(|| town.settle(&mut doomed)));
    assert!(unwound.is_err());
    town.run();
    assert!(doomed.socket().was_reset());
    let mut other = town.secured();
    other.say("hello");
    town.settle(&mut other);
    assert_eq!(other.heard(), b"hello");
}

#[test]
fn leaving_says_a_close_in_both_layers() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.secured();
    open(&mut town, &mut peer);
    town.log();
    let mut waiting = town.secured();
    let mut unfinished = town.connect();
    unfinished.step = 50;
    unfinished.pump();
    town.run();
    town.world.leave(&mut town.context, &mut town.state);
    town.world.turn_all::<State>(&mut []);
    peer.pump();
    assert_eq!(peer.heard(), Frame::close(1001, "").unmasked());
    assert!(peer.closed && peer.socket().at_end());
    waiting.pump();
    assert!(waiting.closed && waiting.socket().at_end());
    unfinished.pump();
    assert!(unfinished.socket().at_end());
    assert!(town.has_logged("closed: Leaving") && town.has_logged("ended"));
}

#[test]
fn shutdown_ends_every_connection_in_order_and_the_loop_with_it() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.secured();
    open(&mut town, &mut peer);
    let mut waiting = town.secured();
    town.ask(&mut waiting, "/", "localhost");
    let mut unfinished = town.connect();
    unfinished.step = 50;
    unfinished.pump();
    town.run();
    town.log();
    town.context.io().shutdown(CloseCode::GOING_AWAY);
    town.settle(&mut waiting);
    assert!(waiting.closed && waiting.socket().at_end());
    town.settle(&mut peer);
    assert_eq!(peer.heard(), Frame::close(1001, "").unmasked());
    peer.say(Frame::close(1001, "").masked());
    town.settle(&mut peer);
    assert!(peer.closed && peer.socket().at_end());
    peer.close_notify();
    peer.finish();
    waiting.close_notify();
    waiting.finish();
    town.settle(&mut peer);
    town.settle(&mut waiting);
    town.run_for(Duration::from_secs(60));
    assert_eq!(town.links(), 0);
    assert_eq!(town.world.wait(), lodger::Wait::FOREVER);
    assert_eq!(town.log(), ["closed: by us 1001 ", "failed HandshakeTimedOut"]);
}

#[test]
fn a_request_that_is_on_its_way_when_the_server_shuts_down_is_answered() {
    for version in VERSIONS {
        let mut town = Town::hall(Limits::default(), Script::quiet);
        town.version(version);
        let mut next = town.secured();
        assert_eq!(town.ask(&mut next, "/", "localhost").unwrap().0, 200);
        let (mut first, mut hello, mut part) = (town.secured(), town.connect(), town.secured());
        assert_eq!(town.ask(&mut part, "/", "localhost").unwrap().0, 200);
        for peer in [&mut first, &mut next, &mut hello, &mut part] {
            peer.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        part.step = 20;
        for peer in [&mut first, &mut next, &mut hello, &mut part] {
            peer.pump();
        }
        town.context.io().shutdown(CloseCode::GOING_AWAY);
        let mut peers = [first, next, hello, part];
        town.settle_all(&mut peers);
        for peer in &mut peers {
            assert_eq!(peer.answer().unwrap().0, 200);
            town.settle(peer);
            assert!(peer.closed && !peer.socket().was_reset());
            peer.finish();
        }
        town.run();
        assert_eq!(town.links(), 0);
    }
}

#[test]
fn connections_go_on_in_another_loop() {
    let mut town = Town::raw(Limits::default(), Script::echo);
    let mut peer = town.secured();
    let mut unfinished = town.connect();
    unfinished.step = 50;
    unfinished.pump();
    town.run();
    for _ in 0..3 {
        town.context.detach(town.world.host_mut());
        assert_eq!(town.world.host().watched().count(), 0);
        peer.say("still here");
        town.settle(&mut peer);
        assert_eq!(peer.heard(), b"still here");
    }
    unfinished.say("me too");
    town.settle(&mut unfinished);
    assert_eq!(unfinished.heard(), b"me too");
}

#[test]
fn an_adopted_socket_of_a_site_with_a_certificate_speaks_as_the_application_has_begun() {
    let mut town = Town::empty();
    let site = town.listen_hall(Limits::default(), Script::quiet);
    let (socket, mut client): (_, sim::Endpoint) = town.world.socket().unwrap();
    town.context.io().adopt_http(socket, b"GET /plain HT", site).unwrap();
    client.send("TP/1.1\r\nHost: localhost\r\n\r\n");
    town.run();
    assert_eq!(client.next_answer().map(|answer| answer.status), Some(200));
}
