//! Bytes to records and back: however they are cut, delayed, held up or paused, what arrives is what was sent.

use super::forger::Forger;
use super::rig::{Frame, upgrade};
use super::script::{Heard, Script};
use super::town::{TlsPeer, Town, VERSIONS};
use lodger::sim::Chaos;
use lodger::tls::Version;
use lodger::tls::rustls::ContentType;
use lodger::{Flow, Limits};
use std::time::Duration;

fn bytes(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at * 7 / 3) as u8).collect()
}

/// Sends back, and waits while the peer does not take it.
fn patient_echo() -> Script {
    Script::new(|cx, heard| match heard {
        Heard::Bytes(bytes) => {
            cx.data.log.pop();
            if cx.write(bytes) == Ok(Flow::Full) {
                cx.conn().pause();
                cx.conn().request_writable();
            }
        }
        Heard::Writable => {
            cx.data.log.pop();
            cx.conn().resume();
        }
        _ => {}
    })
}

pub(crate) fn open(town: &mut Town, peer: &mut TlsPeer) {
    peer.say(upgrade("/", ""));
    town.settle(peer);
    let head = String::from_utf8(peer.heard()).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}, {:?}", town.state.log);
}

#[test]
fn every_role_is_served_over_either_version() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), Script::echo);
        town.version(version);
        let mut peer = town.secured();
        peer.say("hello");
        town.settle(&mut peer);
        assert_eq!(peer.heard(), b"hello");

        let mut town = Town::hall(Limits::default(), Script::echo);
        town.version(version);
        let mut peer = town.secured();
        assert_eq!(town.ask(&mut peer, "/a", "localhost"), Some((200, "/a".to_owned())));
        assert_eq!(town.ask(&mut peer, "/b", "localhost"), Some((200, "/b".to_owned())));
        open(&mut town, &mut peer);
        peer.say(Frame::text("hello").masked());
        town.settle(&mut peer);
        assert_eq!(peer.heard(), Frame::text("hello").unmasked());
        assert_eq!(town.log()[0], format!("secured {version} localhost"));
    }
}

#[test]
fn records_may_be_cut_at_every_byte_in_both_directions() {
    for version in VERSIONS {
        let mut town = Town::hall(Limits::default(), Script::echo);
        town.version(version);
        let mut peer = town.connect();
        (peer.step, peer.bite) = (1, 1);
        town.settle(&mut peer);
        open(&mut town, &mut peer);
        for length in [0, 1, 125, 126, 700] {
            let frame = Frame::binary(bytes(length));
            peer.say(frame.masked());
            town.settle(&mut peer);
            assert_eq!(peer.heard(), frame.unmasked());
        }
    }
}

#[test]
fn a_conversation_may_be_cut_in_two_at_any_place() {
    for version in VERSIONS {
        for cut in 1..120 {
            let mut town = Town::raw(Limits::default(), Script::echo);
            town.version(version);
            let mut peer = town.secured();
            peer.say("first");
            peer.say(bytes(50));
            let records = peer.records();
            let cut = cut.min(records.len() - 1);
            peer.socket().send(&records[..cut]);
            town.run();
            peer.socket().send(&records[cut..]);
            town.settle(&mut peer);
            assert_eq!(peer.heard(), [&b"first"[..], &bytes(50)].concat());
        }
    }
}

#[test]
fn many_records_may_come_in_one_read_and_one_record_in_many() {
    let mut town = Town::hall(Limits::default(), Script::echo);
    let mut peer = town.secured();
    open(&mut town, &mut peer);
    let mut expected = Vec::new();
    for at in 0..300 {
        let frame = Frame::text(&at.to_string());
        peer.say(frame.masked());
        expected.extend(frame.unmasked());
    }
    town.settle(&mut peer);
    assert_eq!(peer.heard(), expected);
    // The record of all these is cut into many.
    peer.step = 7;
    for at in 0..300 {
        peer.say(Frame::text(&at.to_string()).masked());
    }
    town.settle(&mut peer);
    assert_eq!(peer.heard(), expected);
}

#[test]
fn megabytes_come_back_as_they_went_in_any_world() {
    for (seed, version) in [(1, Version::Tls13), (2, Version::Tls12), (3, Version::Tls13)] {
        for chaos in [Chaos::NONE, Chaos { short_writes: 0.5, short_reads: 0.5, ..Chaos::NONE }] {
            let mut town = Town::seeded(seed);
            town.world.chaos(chaos);
            town.listen_raw(Limits::default(), patient_echo);
            town.version(version);
            let mut peer = town.secured();
            let sent = bytes(2_000_000);
            peer.say(&sent);
            town.settle(&mut peer);
            assert!(peer.heard() == sent);
        }
    }
}

#[test]
fn a_peer_that_reads_slowly_holds_up_what_is_sent_and_loses_nothing() {
    let mut town = Town::raw(Limits::default(), patient_echo);
    let limits = Limits::default();
    let mut peer = town.secured();
    peer.socket().stop_reading();
    let sent = bytes(3_000_000);
    peer.say(&sent);
    town.settle(&mut peer);
    assert!(peer.socket().unsent() > 0, "it was read to the end");
    let bound = limits.send_high_water + 600_000;
    for _ in 0..4000 {
        peer.socket().read_at_most(10_000);
        town.settle(&mut peer);
        let queued = town.context.io().links().map(|link| link.queued).max().unwrap();
        assert!(queued <= bound, "{queued} bytes wait");
        if peer.plain.len() == sent.len() {
            break;
        }
    }
    assert!(peer.heard() == sent);
}

#[test]
fn a_large_message_goes_out_whole_to_a_peer_that_takes_it_in_small_parts() {
    let mut town = Town::hall(Limits { send_max: 8_000_000, ..Limits::default() }, || {
        Script::new(|cx, heard| {
            if let Heard::Text(_) = heard {
                assert_eq!(cx.send(&bytes(3_000_000)[..]), Ok(Flow::Full));
                assert_eq!(cx.send("behind it"), Ok(Flow::Full));
            }
        })
    });
    let mut peer = town.secured();
    open(&mut town, &mut peer);
    peer.socket().stop_reading();
    peer.say(Frame::text("go").masked());
    town.settle(&mut peer);
    for _ in 0..200 {
        peer.socket().read_at_most(33_333);
        town.settle(&mut peer);
    }
    let expected = [Frame::binary(bytes(3_000_000)).unmasked(), Frame::text("behind it").unmasked()].concat();
    assert!(peer.heard() == expected);
}

#[test]
fn what_is_sent_before_the_handshake_is_complete_follows_it() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), Script::quiet);
        town.version(version);
        let mut peer = town.connect();
        peer.step = 40;
        peer.pump();
        town.run();
        // Nobody has told of it, and yet it is there.
        assert_eq!(town.log(), [""; 0]);
        let conn = town.context.io().links().find_map(|link| link.conn).unwrap();
        let sent = bytes(100_000);
        let mut conn = town.context.io().conn(conn).unwrap();
        assert!(conn.is_secure() && conn.tls().is_none());
        assert_eq!(conn.write(&sent), Ok(Flow::Full));
        assert_eq!(conn.queued(), sent.len());
        conn.finish();
        town.settle(&mut peer);
        assert!(peer.heard() == sent);
        assert!(peer.closed);
        assert_eq!(town.log(), ["opened"]);
    }
}

#[test]
fn what_waits_for_the_handshake_is_bounded() {
    let limits = Limits::default();
    let most = limits.send_max;
    let mut town = Town::raw(limits, Script::quiet);
    let mut peer = town.connect();
    peer.step = 40;
    peer.pump();
    town.run();
    let id = town.context.io().links().find_map(|link| link.conn).unwrap();
    let mut conn = town.context.io().conn(id).unwrap();
    while conn.write(&[1; 100_000]).is_ok() {
        assert!(conn.queued() < 2 * most, "{} bytes wait", conn.queued());
    }
    assert_eq!(conn.write(b"x"), Err(lodger::SendError::Overrun));
}

#[test]
fn a_paused_connection_delivers_nothing_and_loses_nothing() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), || {
            Script::new(|cx, heard| match heard {
                Heard::Opened => cx.conn().pause(),
                Heard::Event(_) => cx.conn().resume(),
                _ => {}
            })
        });
        town.version(version);
        let mut peer = town.secured();
        assert_eq!(town.log(), ["opened"]);
        peer.say("while paused");
        peer.close_notify();
        town.settle(&mut peer);
        town.run_for(Duration::from_secs(3600));
        assert_eq!(town.log(), [""; 0]);
        let id = town.state.conns[0];
        town.context.io().notify(id, Box::new("go")).unwrap();
        town.settle(&mut peer);
        assert_eq!(town.log(), ["event go", "bytes while paused", "end", "closed: PeerEnded"]);
    }
}

#[test]
fn a_full_record_read_byte_by_byte_is_delivered_without_any_more_readiness() {
    for version in VERSIONS {
        let mut town = Town::seeded(5);
        town.world.chaos(Chaos { small_buffers: 1.0, trickle: 1.0, ..Chaos::NONE });
        town.listen_hall(Limits::default(), || {
            Script::new(|cx, heard| match heard {
                Heard::Text(_) => {
                    cx.conn().pause();
                    cx.conn().set_timer(Duration::from_millis(1));
                }
                Heard::Timer => {
                    cx.data.log.pop();
                    cx.conn().resume();
                }
                _ => {}
            })
        });
        town.version(version);
        let mut peer = town.secured();
        open(&mut town, &mut peer);
        town.log();
        // As many messages as fit one record.
        let messages: Vec<String> = (1000..2500).map(|at| at.to_string()).collect();
        peer.say(messages.iter().flat_map(|text| Frame::text(text).masked()).collect::<Vec<u8>>());
        town.settle(&mut peer);
        town.run_for(Duration::from_secs(10));
        town.settle(&mut peer);
        let expected: Vec<String> = messages.iter().map(|text| format!("text {text}")).collect();
        assert_eq!(town.log(), expected);
    }
}

#[test]
fn many_messages_in_one_record_are_delivered_turn_by_turn_without_any_more_readiness() {
    let mut town = Town::hall(Limits::default(), Script::echo);
    let mut peer = town.secured();
    open(&mut town, &mut peer);
    town.log();
    // More than one turn has room for.
    peer.say(Frame::text("").masked().repeat(20_000));
    town.settle(&mut peer);
    assert_eq!(peer.heard(), Frame::text("").unmasked().repeat(20_000));
}

#[test]
fn pipelined_requests_in_one_record_are_answered_in_turn() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.secured();
    peer.say("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3000));
    town.settle(&mut peer);
    for _ in 0..3000 {
        assert_eq!(peer.answer(), Some((200, "/x".to_owned())));
    }
}

#[test]
fn keys_are_renewed_in_the_middle_of_a_conversation() {
    let mut town = Town::raw(Limits::default(), Script::echo);
    let mut peer = town.secured();
    for at in 0..20 {
        peer.say(format!("{at} "));
        peer.tls.refresh_traffic_keys().unwrap();
        peer.say("and ");
        town.settle(&mut peer);
    }
    let expected: String = (0..20).map(|at| format!("{at} and ")).collect();
    assert_eq!(String::from_utf8(peer.heard()).unwrap(), expected);
    assert_eq!(peer.error, None);
}

#[test]
fn a_message_of_the_handshake_cut_into_records_does_not_keep_us_from_writing() {
    // A KeyUpdate that asks for none in return (RFC 8446, section 4.6.3).
    let update = [24, 0, 0, 1, 0];
    for cut in 1..update.len() {
        let mut town = Town::raw(Limits::default(), Script::echo);
        let mut forger = Forger::new(&mut town, Version::Tls13);
        let id = town.state.conns[0];
        forger.send(ContentType::Handshake, &update[..cut]);
        town.run();
        for _ in 0..3 {
            town.context.io().conn(id).unwrap().write(b"meanwhile ").unwrap();
            town.run();
        }
        assert_eq!(forger.data(), b"meanwhile meanwhile meanwhile ");
        forger.send(ContentType::Handshake, &update[cut..]);
        town.run();
        town.context.io().conn(id).unwrap().write(b"afterwards").unwrap();
        town.run();
        assert_eq!(forger.data(), b"afterwards");
        assert_eq!(town.log(), ["opened"]);
    }
}

#[test]
fn a_record_that_is_cut_does_not_keep_us_from_writing() {
    for version in VERSIONS {
        for cut in [1, 4, 5, 6, 20] {
            let mut town = Town::raw(Limits::default(), Script::quiet);
            let mut forger = Forger::new(&mut town, version);
            let id = town.state.conns[0];
            let record = forger.record(ContentType::ApplicationData, b"in two parts");
            forger.socket.send(&record[..cut]);
            town.run();
            town.context.io().conn(id).unwrap().write(b"meanwhile").unwrap();
            town.run();
            assert_eq!(forger.data(), b"meanwhile");
            forger.socket.send(&record[cut..]);
            town.run();
            assert_eq!(town.log(), ["opened", "bytes in two parts"]);
        }
    }
}

#[test]
fn records_without_content_are_no_input_and_do_no_harm() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), Script::echo);
        let mut forger = Forger::new(&mut town, version);
        for _ in 0..20 {
            forger.send(ContentType::ApplicationData, b"");
            town.run();
        }
        forger.send(ContentType::ApplicationData, b"x");
        town.run();
        assert_eq!(forger.data(), b"x");
        assert_eq!(town.log(), ["opened", "bytes x"]);
    }
}
