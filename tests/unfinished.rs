//! Messages that begin and do not end: how long they are waited for, and what they hold together.

#[path = "support/rig.rs"]
mod rig;
#[path = "support/script.rs"]
mod script;

use lodger::ws::deflate::{Compressor, Deflate, Setting};
use lodger::ws::handshake::accept_key;
use lodger::{Connect, Decision, Io, Limits, Request, Response, Site};
use rig::{Client, Frame, Rig, State};
use script::{Heard, Script};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

/// The limit, and a little less.
const STALL: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(1);

fn short_of_it() -> Duration {
    STALL - TICK
}

/// The first bytes of a frame of which more is announced than comes.
fn begun(first: u8, announced: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match announced {
        0..126 => bytes.push(0x80 | announced as u8),
        126..65_536 => bytes.extend([&[0x80 | 126][..], &(announced as u16).to_be_bytes()].concat()),
        _ => bytes.extend([&[0x80 | 127][..], &(announced as u64).to_be_bytes()].concat()),
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// The end of a connection whose message was given up.
#[track_caller]
fn ends_with(rig: &mut Rig, client: &Client, code: u16, reason: &str) {
    rig.until("the end", |_| client.at_end());
    assert_eq!(client.next_frame(), Some(Frame::close(code, reason)));
    client.finish();
    rig.run();
}

#[test]
fn a_message_that_has_begun_and_stops_ends_its_connection_with_1008() {
    let beginnings = [
        // Within a frame, text or binary; between fragments, with something in them and with nothing.
        begun(0x81, 100, b"begun"),
        begun(0x82, 1 << 20, &[7; 70_000]),
        Frame::new(false, 1, "begun").masked(),
        Frame::new(false, 2, "").masked(),
        [Frame::new(false, 1, "begun").masked(), begun(0x80, 100, b"on")].concat(),
        // Behind messages that are complete.
        [Frame::text("whole").masked(), begun(0x81, 100, b"begun")].concat(),
    ];
    for pieces in [false, true] {
        for beginning in &beginnings {
            let make = move || if pieces { Script::quiet().in_pieces() } else { Script::quiet() };
            let mut rig = Rig::websocket(Limits::default(), make);
            let client = rig.open();
            client.send(beginning);
            rig.advance(short_of_it());
            assert!(!client.at_end() && client.received_len() == 0, "{beginning:?}");
            rig.advance(TICK);
            ends_with(&mut rig, &client, 1008, "message stalled");
            assert_eq!(rig.log().last().unwrap(), "closed: TimedOut(MessageStall)", "{beginning:?}");
            assert_eq!(rig.io().unfinished(), 0);
        }
    }
}

#[test]
fn a_compressed_message_that_stops_ends_its_connection_too() {
    let mut rig = compressing(|builder| builder);
    let client = open_compressing(&mut rig);
    client.send(parked(1 << 20));
    rig.run();
    assert!(rig.io().unfinished() > 1 << 20);
    rig.advance(STALL);
    ends_with(&mut rig, &client, 1008, "message stalled");
    assert_eq!(rig.io().unfinished(), 0);
}

#[test]
fn neither_pings_nor_empty_fragments_move_a_message() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let client = rig.open();
    client.send(Frame::new(false, 1, "begun").masked());
    for _ in 0..3 {
        rig.advance(Duration::from_secs(7));
        client.send(Frame::ping("here").masked());
        client.send(Frame::new(false, 0, "").masked());
    }
    rig.advance(Duration::from_secs(9));
    rig.until("the end", |_| client.at_end());
    client.finish();
    rig.run();
    assert_eq!(rig.log().last().unwrap(), "closed: TimedOut(MessageStall)");
}

#[test]
fn a_message_that_moves_on_may_take_as_long_as_it_likes() {
    for pieces in [false, true] {
        let make = move || if pieces { Script::quiet().in_pieces() } else { Script::quiet() };
        let mut rig = Rig::websocket(Limits::default(), make);
        let client = rig.open();
        client.send(begun(0x82, 20, b""));
        for _ in 0..20 {
            rig.advance(short_of_it());
            client.send([7]);
        }
        rig.run();
        assert!(!client.at_end());
        client.text("next");
        rig.run();
        let last = if pieces { "piece next first last 0 final" } else { "text next" };
        assert_eq!(rig.log().last().unwrap(), last);
    }
}

#[test]
fn the_time_of_a_message_is_over_with_the_message_and_wakes_nobody_afterwards() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let client = rig.open();
    for _ in 0..3 {
        client.send(Frame::new(false, 1, "one").masked());
        rig.run();
        client.send(Frame::new(true, 0, "message").masked());
        rig.advance(Duration::from_secs(1));
        assert_eq!(rig.io().unfinished(), 0);
    }
    rig.advance(STALL * 3);
    assert!(!client.at_end());
    assert_eq!(rig.wait.instant(), None, "nothing is armed for a connection without a message");
    // The next one has all of its time.
    client.send(Frame::new(false, 1, "one").masked());
    rig.advance(short_of_it());
    client.send(Frame::new(true, 0, "message").masked());
    rig.advance(STALL);
    assert!(!client.at_end());
}

#[test]
fn the_time_of_a_message_stands_still_while_reading_is_paused() {
    let mut rig = Rig::websocket(Limits::default(), || {
        Script::new(|cx, heard| {
            if let Heard::Text(_) = heard {
                cx.conn().pause();
            }
        })
    });
    let client = rig.open();
    client.send([Frame::text("pause").masked(), begun(0x81, 100, b"begun")].concat());
    rig.advance(STALL * 10);
    assert!(!client.at_end());
    let id = rig.state.conns[0];
    rig.io().conn(id).unwrap().resume();
    rig.advance(short_of_it());
    assert!(!client.at_end());
    rig.io().conn(id).unwrap().pause();
    rig.advance(STALL * 10);
    rig.io().conn(id).unwrap().resume();
    rig.advance(short_of_it());
    assert!(!client.at_end());
    rig.advance(TICK);
    ends_with(&mut rig, &client, 1008, "message stalled");
}

#[test]
fn a_message_whose_rest_lies_in_the_socket_has_not_stopped() {
    for (rest, last) in [("ning", "text beginning"), ("n", "opened")] {
        let mut rig = Rig::websocket(Limits::default(), Script::quiet);
        let client = rig.open();
        client.send(begun(0x81, 9, b"begin"));
        rig.run();
        client.send(rest);
        rig.stand_still(STALL * 3);
        // What is due runs before what is ready, as where a turn of the host is long.
        rig.context.service_timeouts(&mut rig.state);
        rig.run();
        assert!(!client.at_end());
        assert_eq!(rig.log().last().unwrap(), last);
        rig.advance(short_of_it());
        assert!(!client.at_end());
    }
}

#[test]
fn a_server_that_stops_within_a_message_is_left_by_its_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let nobody = |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::respond(Response::text(""));
    let mut rig = Rig::site(Site::new().protocol("", nobody));
    rig.io().connect(Connect::to(&url), Box::new(Script::quiet()));
    rig.run();
    let (mut server, _) = listener.accept().unwrap();
    let mut request = [0; 4096];
    rig.run();
    let read = server.read(&mut request).unwrap();
    let request = std::str::from_utf8(&request[..read]).unwrap();
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    server.write_all(answer.as_bytes()).unwrap();
    server.write_all(b"\x81\x7ebegun").unwrap();
    rig.until("the connection", |rig| rig.io().links().any(|link| link.role == "websocket"));
    rig.run();
    rig.advance(STALL);
    drop(server);
    rig.until_logged("closed: TimedOut(MessageStall)");
}

// What messages hold together.

const MIB: usize = 1 << 20;

/// A site where messages are compressed, and a context that is built as `build` says.
fn compressing(build: impl FnOnce(lodger::Builder) -> lodger::Builder) -> Rig {
    let accept = |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::websocket(Script::echo());
    Rig::built(Site::new().protocol("", accept).deflate(Deflate::default()), build)
}

fn open_compressing(rig: &mut Rig) -> Client {
    rig.open_with("/", "Sec-WebSocket-Extensions: permessage-deflate\r\n")
}

/// A compressed message of so many bytes, but for its last byte.
fn parked(length: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    assert!(Compressor::new(Setting::new(9, 15, 8)).compress(&vec![7; length], &mut payload));
    let announced = payload.len();
    payload.pop();
    begun(0xc2, announced, &payload)
}

fn echoing(build: impl FnOnce(lodger::Builder) -> lodger::Builder) -> Rig {
    let accept = |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::websocket(Script::echo());
    Rig::built(Site::new().protocol("", accept), build)
}

/// How many of these connections have ended.
fn ended(rig: &mut Rig, clients: &[Client]) -> usize {
    rig.run();
    clients.iter().filter(|client| client.at_end()).count()
}

#[test]
fn peers_that_park_messages_do_not_keep_an_honest_one_out() {
    let mut rig = echoing(|builder| builder.max_unfinished(8 * MIB));
    let mut parked = Vec::new();
    for _ in 0..20 {
        let client = rig.open();
        client.send(begun(0x82, MIB, &vec![7; MIB - 10]));
        rig.advance(Duration::from_secs(1));
        parked.push(client);
        assert!(rig.io().unfinished() <= 8 * MIB);
    }
    let before = ended(&mut rig, &parked);
    assert!((10..=13).contains(&before), "{before} have given way");
    let honest = rig.open();
    honest.send(Frame::binary(vec![1; MIB]).masked());
    assert_eq!(rig.frame(&honest).payload.len(), MIB);
    // The longest silent are those that have gone, told why.
    assert!(parked[..before].iter().all(Client::at_end));
    ends_with(&mut rig, &parked[0], 1013, "too many unfinished messages");
    assert!(rig.log().contains(&"closed: MessageGaveWay".to_owned()));
}

#[test]
fn little_compressed_wire_does_not_hold_much_memory() {
    let mut rig = compressing(|builder| builder.max_unfinished(8 * MIB));
    let mut clients = Vec::new();
    for _ in 0..10 {
        let client = open_compressing(&mut rig);
        client.send(parked(2 * MIB));
        rig.advance(Duration::from_secs(1));
        assert!(rig.io().unfinished() <= 8 * MIB);
        clients.push(client);
    }
    assert!(ended(&mut rig, &clients) >= 5);
    let honest = rig.open();
    honest.send(Frame::binary(vec![1; MIB]).masked());
    assert_eq!(rig.frame(&honest).payload.len(), MIB);
}

#[test]
fn decompressors_count_that_messages_have_for_themselves() {
    let mut rig = compressing(|builder| builder.max_unfinished(MIB));
    let mut clients = Vec::new();
    for _ in 0..40 {
        let client = open_compressing(&mut rig);
        client.send(begun(0xc2, 100, b"\xca"));
        rig.run();
        clients.push(client);
    }
    assert!(rig.io().unfinished() <= MIB);
    assert!(ended(&mut rig, &clients) >= 15);
}

#[test]
fn the_one_that_drips_gives_way_and_not_the_newest_or_one_that_flows() {
    let mut rig = echoing(|builder| builder.max_unfinished(4 * MIB));
    let dripping = rig.open();
    dripping.send(begun(0x82, 2 * MIB, &vec![7; 2 * MIB - 100]));
    let slow = rig.open();
    slow.send(begun(0x82, 5000, &[7; 1000]));
    let flowing = rig.open();
    flowing.send(begun(0x82, 2 * MIB, b""));
    for _ in 0..15 {
        rig.advance(Duration::from_secs(1));
        dripping.send([7]);
        slow.send([7; 100]);
        flowing.send(vec![7; 60 * 1024]);
    }
    rig.run();
    assert!(!dripping.at_end());
    let newest = rig.open();
    newest.send(begun(0x82, 2 * MIB, &vec![7; MIB]));
    rig.until("one gives way", |_| dripping.at_end());
    assert!(!slow.at_end() && !flowing.at_end() && !newest.at_end());
    newest.send(vec![7; MIB]);
    assert_eq!(rig.frame(&newest).payload.len(), 2 * MIB);
}

#[test]
fn a_message_that_is_more_than_all_may_hold_gives_way_itself() {
    let mut rig = echoing(|builder| builder.max_unfinished(MIB));
    let client = rig.open();
    client.send(begun(0x82, 4 * MIB, &vec![7; 3 * MIB]));
    ends_with(&mut rig, &client, 1013, "too many unfinished messages");
    assert_eq!(rig.log().last().unwrap(), "closed: MessageGaveWay");
    assert_eq!(rig.io().unfinished(), 0);
}

#[test]
fn what_is_held_is_given_back_whichever_way_a_connection_ends() {
    let mut rig = echoing(|builder| builder);
    for way in 0..6 {
        let client = rig.open();
        let large = vec![7; 100_000];
        client.send(if way == 5 { Frame::new(false, 2, large).masked() } else { begun(0x82, MIB, &large) });
        rig.run();
        assert!(rig.io().unfinished() >= 100_000);
        let id = *rig.state.conns.last().unwrap();
        match way {
            0 => client.reset(),
            1 => client.finish(),
            2 => rig.io().conn(id).unwrap().abort(),
            3 => rig.io().conn(id).unwrap().close(),
            4 => client.send(vec![7; MIB]),
            _ => client.send(Frame::close(1000, "").masked()),
        }
        rig.run();
        if way == 3 {
            // Its message is not waited for longer than the peer's Close is.
            rig.advance(Duration::from_secs(5));
        }
        assert_eq!(rig.io().unfinished(), 0, "way {way}");
    }
}

#[test]
fn a_message_in_fragments_holds_no_more_than_its_limit() {
    let limits = Limits { message: MIB, ..Limits::default() };
    let mut rig = Rig::websocket(limits, Script::quiet);
    let client = rig.open();
    client.send(Frame::new(false, 2, vec![7; MIB - 100]).masked());
    rig.run();
    assert!((MIB - 100..=MIB + 1000).contains(&rig.io().unfinished()), "{}", rig.io().unfinished());
}
