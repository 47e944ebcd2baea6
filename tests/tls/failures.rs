//! What a peer may do wrong, and what it and the application hear of it.

use super::authority::Authority;
use super::forger::Forger;
use super::records::open;
use super::rig::{Frame, State};
use super::script::{Heard, Script};
use super::town::{Town, VERSIONS};
use lodger::sim::Endpoint;
use lodger::tls::Version;
use lodger::tls::rustls::{AlertDescription, ContentType};
use lodger::{Connection, ConnectionEnd, Decision, Io, Limits, Protocol, Request, SendError, Site};
use std::sync::Arc;
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);

/// An alert in a record of its own, not encrypted.
fn plain_alert(description: AlertDescription) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, u8::from(description)]
}

/// What an application hears when a handshake fails.
type Told = fn(&str) -> String;

/// A town with a raw listener or a site, and what its application hears.
fn towns() -> [(Town, Told); 2] {
    [
        (Town::raw(Limits::default(), Script::quiet), |error| format!("closed: Tls({error})")),
        (Town::hall(Limits::default(), Script::quiet), |error| format!("failed {error}")),
    ]
}

/// Until the server has let go of a peer that it has refused.
fn end(town: &mut Town, socket: &mut Endpoint) {
    town.run();
    assert!(socket.at_end() && !socket.was_reset());
    socket.finish();
    town.run();
    assert_eq!(town.links(), 1);
}

#[test]
fn what_is_not_tls_is_refused_with_an_alert_and_told() {
    for first in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        &[0; 100],
        &[0xff; 5000],
    ] {
        for (mut town, told) in towns() {
            let mut socket = town.socket();
            socket.send(first);
            town.run();
            assert_eq!(town.log(), [told("NotTls")], "{first:?}");
            let alert = socket.take();
            assert_eq!((alert[0], alert.len()), (21, 7), "{alert:?}");
            end(&mut town, &mut socket);
        }
    }
}

#[test]
fn a_connection_whose_handshake_fails_ends_for_that_reason() {
    let mut town = Town::empty();
    town.listen(Site::new().protocol("", Porter).tls(town.server.clone()));
    let mut socket = town.socket();
    socket.send("GET / HTTP/1.1\r\n\r\n");
    town.run();
    end(&mut town, &mut socket);
    assert_eq!(town.log(), ["began", "ended: TLS failed: the peer does not speak TLS; plain HTTP, perhaps"]);
    drop(town.socket());
    town.run();
    let silent = town.socket();
    town.run_for(Limits::default().handshake);
    drop(silent);
    let log = town.log();
    assert!(log[1].starts_with("ended: "), "{log:?}");
    assert_eq!(log[2..], ["began", "ended: timed out: Handshake"]);
    let hung_up = town.socket();
    town.run();
    let fd = town.context.io().links().find(|link| link.role == "http").unwrap().fd;
    assert!(town.context.io().hang_up(fd));
    town.run();
    drop(hung_up);
    assert_eq!(town.log(), ["began", "ended: closed by us"]);
    assert_eq!(town.links(), 1);
}

/// Notes the beginnings and the ends of connections.
struct Porter;

impl Protocol<State> for Porter {
    fn connection_began(&mut self, _: &Connection, state: &mut State, _: &mut Io<State>) {
        state.log.push("began".into());
    }

    fn connection_ended(
        &mut self,
        _: &Connection,
        reason: ConnectionEnd,
        state: &mut State,
        _: &mut Io<State>,
    ) {
        state.log.push(format!("ended: {reason}"));
    }

    fn accept(&mut self, _: &Request<'_>, _: &mut State, _: &mut Io<State>) -> Decision<State> {
        Decision::Later
    }
}

#[test]
fn an_alert_is_told_by_its_name_in_each_state() {
    for version in VERSIONS {
        for (mut town, told) in towns() {
            // Before anything else.
            let mut socket = town.socket();
            socket.send(plain_alert(AlertDescription::HandshakeFailure));
            town.run();
            assert_eq!(town.log(), [told("Alert { description: HandshakeFailure, received: true }")]);
            end(&mut town, &mut socket);

            // In answer to our certificate.
            let stranger = Authority::named("a stranger").client().versions(&[version]).build().unwrap();
            let mut peer = town.secured_as("localhost", &stranger);
            assert!(peer.error.is_some());
            assert_eq!(town.log(), [told("Alert { description: UnknownCA, received: true }")]);
            end(&mut town, peer.socket());
        }

        let mut town = Town::raw(Limits::default(), Script::quiet);
        let mut forger = Forger::new(&mut town, version);
        forger.send(ContentType::Alert, &[2, u8::from(AlertDescription::InternalError)]);
        town.run();
        let told = "closed: Tls(Alert { description: InternalError, received: true })";
        assert_eq!(town.log(), ["opened", told]);
        end(&mut town, &mut forger.socket);
    }
}

#[test]
fn a_websocket_hears_of_an_alert() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.secured();
    open(&mut town, &mut peer);
    // A record by no key.
    peer.socket().send([23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
    town.settle(&mut peer);
    assert_eq!(town.log()[1..], ["opened", "closed: Tls(Undecryptable)"]);
}

#[test]
fn a_handshake_that_is_never_finished_ends_at_the_limit_and_not_before() {
    let limit = Limits::default().handshake;
    for already in [0, 5, 100] {
        for trickles in [false, true] {
            for (mut town, _) in towns() {
                let raw = !town.has_site;
                let mut peer = town.connect();
                let records = peer.records();
                peer.socket().send(&records[..already]);
                town.run();
                let mut sent = already;
                // A byte now and then changes nothing.
                for _ in 0..9 {
                    town.run_for(Duration::from_secs(1));
                    if trickles {
                        peer.socket().send(&records[sent..sent + 1]);
                        sent += 1;
                    }
                    town.run();
                }
                town.run_for(limit - Duration::from_secs(9) - MILLI);
                assert_eq!(town.links(), 2);
                assert_eq!(town.log(), [""; 0]);
                town.run_for(MILLI);
                assert_eq!(town.links(), 1, "raw {raw}, {already}, trickles {trickles}");
                let told = if raw { "closed: TimedOut(Handshake)" } else { "failed HandshakeTimedOut" };
                assert_eq!(town.log(), [told]);
            }
        }
    }
}

#[test]
fn a_handshake_half_way_through_ends_at_the_limit_too() {
    for version in VERSIONS {
        for (mut town, _) in towns() {
            town.version(version);
            let mut peer = town.connect();
            peer.pump();
            town.run();
            assert!(!peer.socket().received().is_empty());
            town.run_for(Limits::default().handshake - MILLI);
            assert_eq!(town.links(), 2);
            town.run_for(MILLI);
            assert_eq!(town.links(), 1);
            let told = if town.has_site { "failed HandshakeTimedOut" } else { "closed: TimedOut(Handshake)" };
            assert_eq!(town.log(), [told]);
        }
    }
}

#[test]
fn a_peer_that_leaves_within_the_handshake_is_told_of() {
    for sent in [0, 1, 100, usize::MAX] {
        for (mut town, told) in towns() {
            let mut peer = town.connect();
            let hello = peer.records();
            peer.socket().send(&hello[..sent.min(hello.len())]);
            town.run();
            peer.socket().finish();
            town.run();
            assert_eq!(town.log(), [told("HandshakeEnded")], "{sent}");
            assert_eq!(town.links(), 1);

            let mut peer = town.connect();
            peer.socket().send(&hello[..sent.min(hello.len())]);
            town.run();
            peer.socket.take().unwrap().reset();
            town.run();
            let reset =
                if town.has_site { "failed HandshakeIo(ConnectionReset)" } else { "closed: ConnectionReset" };
            assert_eq!(town.log(), [reset], "{sent}");
            assert_eq!(town.links(), 1);
        }
    }
}

#[test]
fn a_handshake_that_this_side_ends_has_not_failed() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    peer.pump();
    town.run();
    let fd = town.context.io().links().find(|link| link.role == "http").unwrap().fd;
    assert!(town.context.io().hang_up(fd));
    town.settle(&mut peer);
    assert_eq!((town.log(), town.links()), (Vec::new(), 1));
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    peer.pump();
    town.run();
    town.world.leave(&mut town.context, &mut town.state);
    assert_eq!(town.log(), ["ended"]);
}

#[test]
fn the_limit_of_the_handshake_is_of_no_concern_once_it_is_complete() {
    let mut town = Town::raw(Limits::default(), Script::echo);
    let mut peer = town.secured();
    town.run_for(Duration::from_secs(3600));
    peer.say("still here");
    town.settle(&mut peer);
    assert_eq!(peer.heard(), b"still here");
}

#[test]
fn the_largest_hello_is_understood_in_any_pieces() {
    for step in [0, 997] {
        for (mut town, _) in towns() {
            let mut config = (*town.client).clone();
            // Nearly the 64 KiB that a handshake message may have here.
            config.alpn_protocols = (0..250u8).map(|at| vec![at; 255]).collect();
            config.alpn_protocols.push(b"http/1.1".to_vec());
            let mut peer = town.connect_as("localhost", &Arc::new(config));
            peer.step = step;
            town.settle(&mut peer);
            assert!(!peer.tls.is_handshaking(), "{:?}, {:?}", peer.error, town.state.log);
        }
    }
}

#[test]
fn a_hello_in_many_small_records_is_understood() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    let hello = peer.records();
    for byte in &hello[5..] {
        peer.socket().send([22, 3, 1, 0, 1, *byte]);
    }
    town.settle(&mut peer);
    assert!(!peer.tls.is_handshaking(), "{:?}, {:?}", peer.error, town.state.log);
}

#[test]
fn a_hello_without_end_is_refused_before_much_of_it_was_kept() {
    // A message of 16 MiB, in large records, small ones, and such as have no content.
    for content in [16_384, 100, 1, 0] {
        for (mut town, _) in towns() {
            let mut socket = town.socket();
            let mut message = [1, 0xff, 0xff, 0xff].into_iter().chain(std::iter::repeat(0));
            let mut sent = 0;
            while town.state.log.is_empty() {
                let body: Vec<u8> = message.by_ref().take(content).collect();
                let record = [&[22, 3, 1][..], &(content as u16).to_be_bytes(), &body].concat();
                sent += record.len();
                assert!(sent < 150_000, "records of {content} bytes, {sent} bytes sent");
                socket.send(record);
                town.run();
            }
            end(&mut town, &mut socket);
        }
    }
}

#[test]
fn a_message_without_end_is_refused_before_much_of_it_was_kept() {
    for content in [16_384, 1000, 1] {
        let mut town = Town::raw(Limits::default(), Script::quiet);
        let mut forger = Forger::new(&mut town, Version::Tls13);
        town.log();
        let mut sent = 0;
        let mut message = [24, 0xff, 0xff, 0xff].into_iter().chain(std::iter::repeat(0));
        while town.state.log.is_empty() {
            let body: Vec<u8> = message.by_ref().take(content).collect();
            forger.send(ContentType::Handshake, &body);
            sent += content + 22;
            assert!(sent < 200_000, "records of {content} bytes, {sent} bytes sent");
            town.run();
        }
        end(&mut town, &mut forger.socket);
    }
}

#[test]
fn a_record_over_the_limit_is_refused() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), Script::quiet);
        let mut forger = Forger::new(&mut town, version);
        forger.socket.send([23, 3, 3, 0xff, 0xff]);
        town.run();
        assert_eq!(town.log(), ["opened", "closed: Tls(RecordOverflow)"]);
        end(&mut town, &mut forger.socket);
    }
    for (mut town, told) in towns() {
        let mut socket = town.socket();
        socket.send([22, 3, 1, 0xff, 0xff]);
        town.run();
        assert_eq!(town.log(), [told("RecordOverflow")]);
        end(&mut town, &mut socket);
    }
}

#[test]
fn a_record_that_was_changed_on_its_way_is_refused_and_what_came_before_it_is_delivered() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), Script::quiet);
        let mut forger = Forger::new(&mut town, version);
        let before = forger.record(ContentType::ApplicationData, b"before");
        let mut changed = forger.record(ContentType::ApplicationData, b"changed");
        *changed.last_mut().unwrap() ^= 1;
        forger.socket.send(before);
        town.run();
        forger.socket.send(changed);
        town.run();
        assert_eq!(town.log(), ["opened", "bytes before", "closed: Tls(Undecryptable)"]);
        let bad_mac = u8::from(AlertDescription::BadRecordMac);
        assert_eq!(forger.received().last(), Some(&(ContentType::Alert, vec![2, bad_mac])));
        end(&mut town, &mut forger.socket);
    }
}

/// A record with this content, and one behind it that was changed on its way.
fn before_a_changed_one(forger: &mut Forger, content: &[u8]) -> Vec<u8> {
    let before = forger.record(ContentType::ApplicationData, content);
    let mut changed = forger.record(ContentType::ApplicationData, b"changed");
    *changed.last_mut().unwrap() ^= 1;
    [before, changed].concat()
}

#[test]
fn what_came_in_front_of_a_record_that_fails_is_delivered_first() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), || {
            Script::new(|cx, heard| {
                if let Heard::Bytes(_) = heard {
                    // The peer has been told already.
                    assert_eq!(cx.write(b"answer"), Err(SendError::Closing));
                }
            })
        });
        let mut forger = Forger::new(&mut town, version);
        let records = before_a_changed_one(&mut forger, b"before");
        forger.socket.send(records);
        town.run();
        assert_eq!(town.log(), ["opened", "bytes before", "closed: Tls(Undecryptable)"]);
        let bad_mac = u8::from(AlertDescription::BadRecordMac);
        assert_eq!(forger.received(), [(ContentType::Alert, vec![2, bad_mac])]);
        end(&mut town, &mut forger.socket);
    }
}

#[test]
fn a_failure_waits_for_a_handler_that_pauses() {
    for version in VERSIONS {
        let mut town = Town::raw(Limits::default(), || {
            Script::new(|cx, heard| match heard {
                Heard::Bytes(_) => cx.conn().pause(),
                Heard::Event(_) => cx.conn().resume(),
                _ => {}
            })
        });
        let mut forger = Forger::new(&mut town, version);
        let records = before_a_changed_one(&mut forger, b"before");
        forger.socket.send(records);
        town.run();
        forger.socket.send(b"and then something");
        town.run_for(Duration::from_secs(3600));
        assert_eq!(town.log(), ["opened", "bytes before"]);
        let id = town.state.conns[0];
        town.context.io().notify(id, Box::new("go")).unwrap();
        town.run();
        assert_eq!(town.log(), ["event go", "closed: Tls(Undecryptable)"]);
        end(&mut town, &mut forger.socket);
    }
}

#[test]
fn a_failure_comes_behind_more_messages_than_a_turn_has_room_for() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.secured();
    open(&mut town, &mut peer);
    town.log();
    peer.say(Frame::text("x").masked().repeat(5000));
    let records = [&peer.records()[..], &[23, 3, 3, 0, 30], &[7; 30]].concat();
    peer.socket().send(records);
    town.settle(&mut peer);
    let log = town.log();
    assert_eq!(log.len(), 5001);
    assert!(log[..5000].iter().all(|line| line == "text x"));
    assert_eq!(log[5000], "closed: Tls(Undecryptable)");
}

#[test]
fn a_failure_behind_the_end_of_the_handshake_is_told_behind_the_opening() {
    let mut town = Town::raw(Limits::default(), Script::quiet);
    let mut peer = town.connect();
    peer.pump();
    town.run();
    let flight = peer.socket().take();
    peer.tls.read_tls(&mut &flight[..]).unwrap();
    peer.tls.process_new_packets().unwrap();
    peer.say("first");
    let records = [&peer.records()[..], &[23, 3, 3, 0, 30], &[7; 30]].concat();
    peer.socket().send(records);
    town.settle(&mut peer);
    assert_eq!(town.log(), ["opened", "bytes first", "closed: Tls(Undecryptable)"]);
}

#[test]
fn a_failure_behind_requests_is_heard_by_the_one_that_is_under_way() {
    let mut town = Town::hall(Limits::default(), Script::quiet);
    let mut peer = town.secured();
    town.log();
    peer.say("POST /script HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    let records = [&peer.records()[..], &[23, 3, 3, 0, 30], &[7; 30]].concat();
    peer.socket().send(records);
    town.settle(&mut peer);
    assert_eq!(town.log(), ["POST /script", "bytes half", "closed: Tls(Undecryptable)"]);
    end(&mut town, peer.socket());
    // An answer that nobody can be given any more.
    let mut peer = town.secured();
    town.log();
    peer.say("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2));
    let records = [&peer.records()[..], &[23, 3, 3, 0, 30], &[7; 30]].concat();
    peer.socket().send(records);
    town.settle(&mut peer);
    assert_eq!(town.log(), [""; 0]);
    end(&mut town, peer.socket());
}

#[test]
fn renegotiation_is_refused() {
    let hello = [&[1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0, 47, 1, 0]].concat();
    let mut town = Town::raw(Limits::default(), Script::echo);
    let mut forger = Forger::new(&mut town, Version::Tls12);
    forger.send(ContentType::Handshake, &hello);
    town.run();
    let no = u8::from(AlertDescription::NoRenegotiation);
    assert_eq!(forger.received(), [(ContentType::Alert, vec![1, no])]);
    forger.send(ContentType::ApplicationData, b"as before");
    town.run();
    assert_eq!(forger.data(), b"as before");
    // Who insists is not listened to.
    forger.send(ContentType::Handshake, &hello);
    town.run();
    assert_eq!(
        town.log(),
        ["opened", "bytes as before", "closed: Tls(Misbehaved(TooManyRenegotiationRequests))"]
    );
    end(&mut town, &mut forger.socket);
}

#[test]
fn a_handshake_message_in_an_established_connection_is_refused() {
    let mut town = Town::raw(Limits::default(), Script::echo);
    let mut forger = Forger::new(&mut town, Version::Tls13);
    forger.send(ContentType::Handshake, &[1, 0, 0, 0]);
    town.run();
    assert_eq!(town.links(), 2, "it is being closed");
    assert!(town.log()[1].starts_with("closed: Tls("));
    end(&mut town, &mut forger.socket);
}

type Records<'a> = &'a [(ContentType, &'a [u8])];

/// Has these records come once the handshake is complete: what the application hears, and the alert that the peer gets.
fn what_comes_of(version: Version, records: Records<'_>) -> (Vec<String>, Option<Vec<u8>>) {
    let mut town = Town::raw(Limits::default(), Script::quiet);
    let mut forger = Forger::new(&mut town, version);
    town.log();
    for (typ, payload) in records {
        forger.send(*typ, payload);
    }
    town.run();
    let alert = forger.received().pop().map(|(typ, alert)| {
        assert_eq!(typ, ContentType::Alert);
        alert
    });
    forger.socket.finish();
    town.run();
    assert_eq!(town.links(), 1);
    (town.log(), alert)
}

#[test]
fn what_has_no_place_behind_a_handshake_is_refused_and_the_peer_told_why() {
    use AlertDescription::*;
    use ContentType::{Alert, ApplicationData, Handshake};
    let tls13: [(Records<'_>, &str, AlertDescription); 14] = [
        (&[(Handshake, &[24, 0, 0, 1, 2])], "Malformed(InvalidKeyUpdate)", IllegalParameter),
        (&[(Handshake, &[24, 0, 0, 2, 0, 0])], "Malformed(HandshakePayloadTooLarge)", DecodeError),
        (&[(Handshake, &[24, 0, 0, 0])], "Malformed(MessageTooShort)", DecodeError),
        (
            &[(Handshake, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])],
            "Misbehaved(KeyEpochWithPendingFragment)",
            UnexpectedMessage,
        ),
        (
            &[(Handshake, &[24, 0]), (ApplicationData, b"x")],
            "Misbehaved(MessageInterleavedWithHandshakeMessage)",
            UnexpectedMessage,
        ),
        // A ticket, which only servers give.
        (&[(Handshake, &[4, 0, 0, 0])], "Unexpected", UnexpectedMessage),
        (&[(Handshake, &[])], "Unexpected", UnexpectedMessage),
        (&[(Alert, &[1])], "Malformed(MessageTooShort)", DecodeError),
        (&[(Alert, &[1, 0, 0])], "Malformed(MessageTooShort)", DecodeError),
        (&[(Alert, &[3, 80])], "Alert { description: InternalError, received: true }", IllegalParameter),
        (&[(Alert, &[1, 112])], "Alert { description: UnrecognisedName, received: true }", DecodeError),
        (&[(ContentType::Heartbeat, &[1])], "Unexpected", UnexpectedMessage),
        (
            &[(ContentType::ChangeCipherSpec, &[1])],
            "Misbehaved(IllegalMiddleboxChangeCipherSpec)",
            UnexpectedMessage,
        ),
        // Padding, and nothing else.
        (&[(ContentType::Unknown(0), &[0; 8])], "Misbehaved(IllegalTlsInnerPlaintext)", UnexpectedMessage),
    ];
    let tls12: [(Records<'_>, &str, AlertDescription); 4] = [
        (&[(Handshake, &[20, 0, 0, 0])], "Unexpected", UnexpectedMessage),
        (&[(Handshake, &[24, 0, 0, 1, 0])], "Unexpected", UnexpectedMessage),
        (&[(ContentType::ChangeCipherSpec, &[1])], "Unexpected", UnexpectedMessage),
        (&[(Alert, &[])], "Malformed(MessageTooShort)", DecodeError),
    ];
    let both: [(Records<'_>, &str, AlertDescription); 3] = [
        (&[(ApplicationData, &b""[..]); 33], "Misbehaved(TooManyEmptyFragments)", UnexpectedMessage),
        (&[(Alert, &[1, 90][..]); 5], "Misbehaved(TooManyWarningAlertsReceived)", UnexpectedMessage),
        (&[(ApplicationData, &[7; 16 * 1024 + 1])], "RecordOverflow", RecordOverflow),
    ];
    let tls13 = tls13.iter().chain(&both).map(|case| (Version::Tls13, case));
    let tls12 = tls12.iter().chain(&both).map(|case| (Version::Tls12, case));
    for (version, (records, error, alert)) in tls13.chain(tls12) {
        let expected = (vec![format!("closed: Tls({error})")], Some(vec![2, u8::from(*alert)]));
        assert_eq!(what_comes_of(version, records), expected, "{version}, {records:?}");
    }
}

#[test]
fn what_may_come_behind_a_handshake_is_no_failure() {
    use ContentType::{Alert, ApplicationData};
    for version in VERSIONS {
        let harmless: [Records<'_>; 3] = [
            &[(ApplicationData, &b""[..]); 32],
            // Told by some before they close.
            &[(Alert, &[1, 90][..]); 4],
            &[(ApplicationData, &[b'x'; 16 * 1024])],
        ];
        for records in harmless {
            let mut all = records.to_vec();
            all.extend([(ApplicationData, &b"last"[..]), (Alert, &[1, 0])]);
            let (log, alert) = what_comes_of(version, &all);
            assert!(log[0].starts_with("bytes ") && log[0].ends_with("last"));
            assert_eq!(log[1..], ["end", "closed: PeerEnded"]);
            assert_eq!(alert, Some(vec![1, 0]));
        }
    }
}

#[test]
fn what_is_not_encrypted_behind_a_handshake_is_refused() {
    for version in VERSIONS {
        for record in
            [&[20, 3, 3, 0, 1, 1][..], &[22, 3, 3, 0, 4, 0, 0, 0, 0], &[21, 3, 3, 0, 2, 1, 0], &[99; 40]]
        {
            let mut town = Town::raw(Limits::default(), Script::quiet);
            let mut forger = Forger::new(&mut town, version);
            forger.socket.send(record);
            town.run();
            let log = town.log();
            assert!(
                log[1..] == ["closed: Tls(Unexpected)"] || log[1..] == ["closed: Tls(Undecryptable)"],
                "{log:?}"
            );
            end(&mut town, &mut forger.socket);
        }
    }
}

#[test]
fn a_client_without_a_common_version_or_protocol_is_refused_by_name() {
    for (mut town, told) in towns() {
        let client = town.authority.client().alpn(&[b"other"]).build().unwrap();
        let mut peer = town.secured_as("localhost", &client);
        assert_eq!(town.log(), [told("NoCommonProtocol")]);
        assert!(peer.error.is_some());
        end(&mut town, peer.socket());
    }
    let mut town = Town::empty();
    town.server = town.authority.builder("localhost").versions(&[Version::Tls13]).build().unwrap();
    town.listen_hall(Limits::default(), Script::quiet);
    town.version(Version::Tls12);
    let mut peer = town.connect();
    town.settle(&mut peer);
    assert_eq!(town.log(), ["failed NoCommonVersion"]);
}

#[test]
fn a_peer_that_fails_harms_no_other() {
    let mut town = Town::hall(Limits::default(), Script::echo);
    let mut good = town.secured();
    open(&mut town, &mut good);
    for _ in 0..50 {
        let mut socket = town.socket();
        socket.send("not TLS");
        good.say(Frame::text("x").masked());
        town.settle(&mut good);
        assert_eq!(good.heard(), Frame::text("x").unmasked());
    }
}
