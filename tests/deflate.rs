//! permessage-deflate on connections, in the simulated world: what is agreed on, what goes over the wire, and its bounds.

#[path = "deflate/town.rs"]
mod town;

use lodger::sim::{Chaos, seeds};
use lodger::ws::deflate::{Compressor, Decompressor, Deflate, Setting};
use lodger::ws::{Message, MessageKind, Shared};
use lodger::{ConnId, Limits};
use town::{MILLI, Town, json, noise, taking_over};

/// The first bytes of a text message that is compressed, and of one that is not.
const COMPRESSED: u8 = 0xc1;
const PLAIN: u8 = 0x81;

// What is agreed on.

#[test]
fn nothing_is_compressed_unless_the_site_says_so() {
    let mut town = Town::new(None);
    assert_eq!(town.answer("/", &["permessage-deflate"]), None);
    let mut town = Town::new(Some(Deflate::default()));
    assert_eq!(town.answer("/", &[]), None);
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(town.answer("/", &["permessage-deflate"]).as_deref(), Some(both));
}

#[test]
fn the_first_offer_that_can_be_kept_to_is_accepted() {
    let mut town = Town::new(Some(taking_over()));
    for (offers, answer) in [
        (&["permessage-deflate"][..], Some("permessage-deflate")),
        (
            &["mux, permessage-deflate; server_max_window_bits=10"],
            Some("permessage-deflate; server_max_window_bits=10"),
        ),
        // What cannot be done, an unknown parameter, a value that cannot be, twice the same: passed over.
        (&["permessage-deflate; server_max_window_bits=8"], None),
        (
            &[
                "permessage-deflate; server_max_window_bits=8",
                "permessage-deflate; client_no_context_takeover",
            ],
            Some("permessage-deflate; client_no_context_takeover"),
        ),
        (
            &["permessage-deflate; x=1, permessage-deflate; client_max_window_bits=16, permessage-deflate"],
            Some("permessage-deflate"),
        ),
        (&["permessage-deflate; client_no_context_takeover; client_no_context_takeover"], None),
        (&["permessage-deflate; server_no_context_takeover=1"], None),
        (&["permessage-deflate;; , ;, =", "permessage-deflate; =x"], None),
        (&["permessage-bzip2"], None),
    ] {
        assert_eq!(town.answer("/", offers).as_deref(), answer, "{offers:?}");
    }
}

#[test]
fn a_decision_can_refuse_and_can_ask_for_something_else() {
    let mut town = Town::new(Some(taking_over()));
    let offer = ["permessage-deflate; client_max_window_bits"];
    assert_eq!(town.answer("/never", &offer), None);
    let small = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=10";
    assert_eq!(town.answer("/small", &offer).as_deref(), Some(small));
    // Without the site's word too.
    let mut town = Town::new(None);
    assert_eq!(town.answer("/small", &offer).as_deref(), Some(small));
}

#[test]
fn every_combination_of_parameters_carries_messages_both_ways() {
    for bits in [(15, 15), (9, 15), (15, 8), (10, 12)] {
        for takeover in 0..4 {
            let mut options = Deflate::default();
            options.server_no_context_takeover = takeover & 1 == 0;
            options.client_no_context_takeover = takeover & 2 == 0;
            (options.server_max_window_bits, options.client_max_window_bits) = bits;
            for server in [options, taking_over()] {
                for target in ["/", "/pieces"] {
                    let mut town = Town::new(Some(server));
                    let mut client = town.open(target, options);
                    let texts: Vec<String> =
                        [10, 3000, 300, 70_000, 3000, 0, 256].iter().map(|&length| json(length, 7)).collect();
                    for text in &texts {
                        client.send(Message::Text(text));
                        client.send(Message::Binary(&noise(500, 9)));
                    }
                    town.run();
                    client.read();
                    assert_eq!(client.messages.len(), 2 * texts.len());
                    for (pair, text) in client.messages.chunks(2).zip(&texts) {
                        assert!(pair[0] == (MessageKind::Text, text.clone().into_bytes()));
                        assert!(pair[1] == (MessageKind::Binary, noise(500, 9)));
                    }
                    town.leave();
                }
            }
        }
    }
}

// What goes over the wire.

#[test]
fn short_messages_and_those_that_do_not_shrink_go_uncompressed() {
    let mut town = Town::new(Some(Deflate::default()));
    let mut client = town.open("/", Deflate::default());
    client.send(Message::Text(&json(255, 1)));
    client.send(Message::Text(&json(256, 1)));
    client.send(Message::Binary(&noise(4096, 1)));
    town.run();
    client.read();
    let firsts: Vec<u8> = client.frames.iter().map(|(first, _)| *first).collect();
    assert_eq!(firsts, [PLAIN, COMPRESSED, 0x82]);
    assert_eq!(client.frames[2].1, 4096);
    assert!(client.frames[1].1 < 200);
}

#[test]
fn level_threshold_and_whether_can_be_set_while_the_connection_lives() {
    let mut town = Town::new(Some(Deflate::default()));
    let mut client = town.open("/", Deflate::default());
    let id = town.state.opened[0];
    let text = json(2000, 3);
    let mut sent = |town: &mut Town, what: &str| {
        town.context.io().conn(id).unwrap().send(&*text).unwrap();
        town.run();
        client.read();
        assert_eq!(client.texts().last(), Some(&&*text), "{what}");
        *client.frames.last().unwrap()
    };
    let (first, by_default) = sent(&mut town, "by default");
    assert_eq!(first, COMPRESSED);

    town.context.io().conn(id).unwrap().deflate().unwrap().set_level(9);
    let (_, at_most) = sent(&mut town, "level 9");
    assert!(at_most < by_default);
    town.context.io().conn(id).unwrap().deflate().unwrap().set_threshold(2001);
    assert_eq!(sent(&mut town, "below the threshold"), (PLAIN, 2000));
    town.context.io().conn(id).unwrap().deflate().unwrap().set_threshold(2000);
    assert_eq!(sent(&mut town, "at the threshold").0, COMPRESSED);
    town.context.io().conn(id).unwrap().deflate().unwrap().set_compress(false);
    assert_eq!(sent(&mut town, "switched off"), (PLAIN, 2000));
    town.context.io().conn(id).unwrap().deflate().unwrap().set_compress(true);
    assert_eq!(sent(&mut town, "and on").0, COMPRESSED);

    let (_plain, _) = town.ask("/", &[]);
    let plain = town.state.opened[1];
    assert!(town.context.io().conn(plain).unwrap().deflate().is_none());
}

#[test]
fn single_messages_go_uncompressed_where_the_application_says_so() {
    for options in [Deflate::default(), taking_over()] {
        let mut town = Town::new(Some(options));
        let mut client = town.open("/", options);
        let id = town.state.opened[0];
        let text = json(2000, 3);
        let mut conn = town.context.io().conn(id).unwrap();
        conn.send(&*text).unwrap();
        conn.send_uncompressed(&*text).unwrap();
        conn.send(&*text).unwrap();
        conn.send_shared(&Shared::uncompressed(Message::Text(&text))).unwrap();
        conn.send_shared(&Shared::new(Message::Text(&text))).unwrap();
        conn.send(&*text).unwrap();
        // Another message is under way.
        conn.send_piece(MessageKind::Text, b"", false).unwrap();
        assert_eq!(conn.send_uncompressed("x"), Err(lodger::SendError::InMessage));
        town.run();
        client.read();
        assert_eq!(client.texts(), [&*text; 6]);
        let firsts: Vec<u8> = client.frames.iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts[..6], [COMPRESSED, PLAIN, COMPRESSED, PLAIN, COMPRESSED, COMPRESSED]);
    }
}

#[test]
fn control_frames_are_never_compressed_and_come_between_fragments() {
    let mut town = Town::new(Some(Deflate::default()));
    let mut client = town.open("/", Deflate::default());
    let text = json(5000, 2);
    let (one, two) = text.as_bytes().split_at(2500);
    let fragments = client.encode_pieces(MessageKind::Text, &[one, two]);
    assert_eq!((fragments[0][0], fragments[1][0]), (0x41, 0x80));
    client.endpoint.send(&fragments[0]);
    client.send_frame(0x89, b"ping");
    client.endpoint.send(&fragments[1]);
    town.run();
    client.read();
    assert_eq!((client.pongs, client.texts()), (1, vec![&*text]));
    assert_eq!(client.frames[0], (0x8a, 4));
}

#[test]
fn a_shared_frame_waits_for_the_end_of_a_message_in_pieces() {
    for options in [Deflate::default(), taking_over()] {
        let mut town = Town::new(Some(options));
        let mut client = town.open("/", options);
        let id = town.state.opened[0];
        let text = json(3000, 4);
        let mut conn = town.context.io().conn(id).unwrap();
        for _ in 0..2 {
            conn.send_piece(MessageKind::Text, &text.as_bytes()[..1000], false).unwrap();
            conn.send_shared(&Shared::new(Message::Text(&text))).unwrap();
            conn.send_piece(MessageKind::Text, &text.as_bytes()[1000..], true).unwrap();
        }
        town.run();
        client.read();
        assert_eq!(client.texts(), [&*text; 4]);
        assert!(client.frames.iter().all(|(_, length)| *length < 1000));
    }
}

// However it is cut.

#[test]
fn whatever_the_chunks_and_the_pauses_the_messages_are_the_same() {
    for seed in seeds(12) {
        for target in ["/", "/pieces"] {
            let options = if seed % 2 == 0 { taking_over() } else { Deflate::default() };
            let mut town = Town::with(seed, Some(options), Limits::default(), usize::MAX);
            town.state.pauses = (seed % 3 > 0).then_some(1 + seed as u32 % 4);
            town.state.echoes = seed % 5 > 0;
            let mut client = town.open(target, options);
            town.world.chaos(Chaos::wild());
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for round in 0..12_u32 {
                let text = json([0, 1, 300, 3000, 20_000, 100_000][round as usize % 6], round + seed as u32);
                let zeros = vec![0; 60_000];
                bytes.extend(client.encode(Message::Text(&text)));
                bytes.extend(client.encode(Message::Binary(&zeros)));
                let (one, two) = text.as_bytes().split_at(text.len() / 3);
                bytes.extend(client.encode_pieces(MessageKind::Text, &[one, b"", two]).concat());
                expected.extend([
                    (MessageKind::Text, text.clone().into_bytes()),
                    (MessageKind::Binary, zeros),
                    (MessageKind::Text, text.into_bytes()),
                ]);
            }
            let mut rest = &bytes[..];
            let mut cut = noise(bytes.len(), seed).into_iter();
            while !rest.is_empty() {
                let length = 1 + usize::from(cut.next().unwrap()).pow(2) / 8;
                let (now, later) = rest.split_at(length.min(rest.len()));
                client.endpoint.send(now);
                rest = later;
                town.run_for(MILLI);
                client.read();
            }
            for _ in 0..1000 {
                if town.state.messages.len() == expected.len() {
                    break;
                }
                town.run_for(20 * MILLI);
                client.read();
            }
            town.run_for(100 * MILLI);
            client.read();
            let received: Vec<_> =
                town.state.messages.iter().map(|(_, kind, payload)| (*kind, payload.clone())).collect();
            assert!(received == expected, "seed {seed}: {} of {}", received.len(), expected.len());
            assert!(!town.state.echoes || client.messages == expected, "seed {seed}, echoes");
            let volume = town.metrics().volume;
            assert!(volume.received > 10 * volume.received_compressed, "{volume:?}");
            town.leave();
        }
    }
}

#[test]
fn a_handler_that_pauses_within_a_message_gets_the_rest_though_no_input_is_left() {
    let mut town = Town::new(Some(Deflate::default()));
    town.state.pauses = Some(1);
    town.state.echoes = false;
    let mut client = town.open("/pieces", Deflate::default());
    client.send(Message::Binary(&vec![7; 1_000_000]));
    // The end comes right behind it, and is heard after it.
    client.endpoint.finish();
    town.run_for(1000 * MILLI);
    assert_eq!(town.payloads(), [&vec![7; 1_000_000][..]]);
    assert!(town.state.longest <= 16 * 1024);
    assert_eq!(town.state.closed.len(), 1);
}

// Bounds.

fn bomb(length: usize) -> Vec<u8> {
    let mut compressed = Vec::new();
    Compressor::new(Setting::new(9, 15, 9)).compress_fragment(&vec![0; length], true, &mut compressed);
    compressed
}

#[test]
fn a_bomb_ends_at_the_limit_and_lets_others_be_served_meanwhile() {
    let limits = Limits { message: 8 << 20, ..Limits::default() };
    let mut town = Town::with(1, Some(Deflate::default()), limits, usize::MAX);
    let mut other = town.open("/", Deflate::default());
    let mut client = town.open("/", Deflate::default());
    let compressed = bomb(64 << 20);
    assert!(compressed.len() < 70_000);
    client.send_compressed(MessageKind::Binary, &compressed);
    other.send(Message::Text("served"));
    let mut turns = 0;
    let mut served_at = None;
    while client.close_code().is_none() && turns < 1000 {
        let before = town.metrics().volume.received;
        town.world.turn(&mut town.context, &mut town.state);
        // One turn inflates about as much as one read may bring.
        assert!(town.metrics().volume.received - before <= 2 * 600 * 1024);
        other.read();
        served_at = served_at.or((!other.messages.is_empty()).then_some(turns));
        turns += 1;
    }
    assert_eq!(client.close, Some((1009, format!("{} bytes announced, {} allowed", (8 << 20) + 1, 8 << 20))));
    assert!(turns > 10 && served_at.is_some_and(|at| at < 6), "{turns} turns, served at {served_at:?}");
    let metrics = town.metrics();
    assert!(metrics.volume.received <= (8 << 20) + 600 * 1024, "{metrics:?}");
    assert_eq!(town.payloads(), [b"served"]);
    town.leave();
}

#[test]
fn a_bomb_in_pieces_is_handed_over_a_little_at_a_time() {
    let mut town = Town::new(Some(Deflate::default()));
    town.state.echoes = false;
    let mut client = town.open("/pieces", Deflate::default());
    client.send_compressed(MessageKind::Binary, &bomb(30 << 20));
    let mut before = 0;
    for _ in 0..1000 {
        if !town.state.messages.is_empty() {
            break;
        }
        town.world.turn(&mut town.context, &mut town.state);
        let now = town.metrics().volume.received;
        assert!(now - before <= 2 * 600 * 1024, "{}", now - before);
        before = now;
    }
    assert_eq!(town.state.messages[0].2.len(), 30 << 20);
    assert!(town.state.longest <= 16 * 1024);
}

#[test]
fn a_message_that_inflates_to_the_limit_is_let_in() {
    let limits = Limits { message: 100_000, ..Limits::default() };
    for (length, code) in [(100_000, None), (100_001, Some(1009))] {
        let mut town = Town::with(1, Some(Deflate::default()), limits.clone(), usize::MAX);
        let mut client = town.open("/", Deflate::default());
        client.send(Message::Binary(&vec![1; length]));
        town.run();
        assert_eq!(client.close_code(), code);
        assert_eq!(town.state.messages.len(), usize::from(code.is_none()));
    }
}

#[test]
fn reserved_bits_out_of_their_place_and_invalid_streams_fail_the_connection() {
    let cases: [(u8, &[u8], u16); 9] = [
        // RSV1 on a control frame; RSV2 and RSV3 anywhere.
        (0xc9, b"", 1002),
        (0xca, b"x", 1002),
        (0xa1, b"x", 1002),
        (0x92, b"x", 1002),
        (0xe1, b"x", 1002),
        // RSV1 where no message begins.
        (0xc0, b"x", 1002),
        // What no compressor makes; a message that ends within a block; one that refers to nothing.
        (0xc1, &[0x06], 1007),
        (0xc2, &[0xf2, 0x48, 0xcd], 1007),
        (0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00], 1007),
    ];
    for (first, payload, code) in cases {
        let mut town = Town::new(Some(Deflate::default()));
        let mut client = town.open("/", Deflate::default());
        client.send_frame(first, payload);
        town.run();
        assert_eq!(client.close_code(), Some(code), "{first:x} {payload:x?}");
        assert!(town.state.messages.is_empty());
    }
    // A continuation with RSV1 within a message.
    let mut town = Town::new(Some(Deflate::default()));
    let mut client = town.open("/", Deflate::default());
    client.send_frame(0x41, &[0xf2, 0x48]);
    client.send_frame(0xc0, &[0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    town.run();
    assert_eq!(client.close_code(), Some(1002));
    // Compressed text that is not UTF-8.
    let mut client = town.open("/", Deflate::default());
    let mut compressed = Vec::new();
    assert!(Compressor::new(Setting::new(6, 15, 8)).compress(&[0xff; 1000], &mut compressed));
    client.send_compressed(MessageKind::Text, &compressed);
    town.run();
    assert_eq!(client.close_code(), Some(1007));
    // Without the extension RSV1 means nothing.
    let mut town = Town::new(None);
    let (mut endpoint, _) = town.ask("/", &["permessage-deflate"]);
    endpoint.send(b"\xc1\x81\0\0\0\0x");
    town.run();
    assert_eq!(endpoint.next_frame().unwrap().close_code(), Some(1002));
}

#[test]
fn messages_that_come_after_our_close_are_dropped_compressed_or_not() {
    for target in ["/", "/pieces"] {
        for options in [Deflate::default(), taking_over()] {
            let mut town = Town::new(Some(options));
            let mut client = town.open(target, options);
            let text = json(50_000, 1);
            let fragments = client.encode_pieces(MessageKind::Text, &[&text.as_bytes()[..30_000], b"", b"x"]);
            client.endpoint.send(&fragments[0]);
            town.run();
            let id = town.state.opened[0];
            town.context.io().conn(id).unwrap().close();
            town.run();
            client.endpoint.send(fragments[1..].concat());
            let zeros = client.encode(Message::Binary(&vec![0; 4_000_000]));
            client.endpoint.send(zeros);
            client.send_frame(0x88, &1000_u16.to_be_bytes());
            town.run();
            assert_eq!(client.close_code(), Some(1000));
            client.endpoint.finish();
            town.run();
            let clean = "Handshake { by: Us, code: Some(CloseCode(1000)), reason: \"\" }";
            assert_eq!(town.state.closed, [(id, clean.to_owned())]);
            assert!(town.state.messages.is_empty());
        }
    }
}

// Memory.

#[test]
fn without_context_takeover_connections_hold_nothing_between_messages() {
    let mut town = Town::new(Some(Deflate::default()));
    let mut clients: Vec<_> = (0..20).map(|_| town.open("/", Deflate::default())).collect();
    assert_eq!(town.metrics().memory, 0, "nothing was needed yet");
    for client in &mut clients {
        client.send(Message::Text(&json(3000, 1)));
    }
    town.run();
    let metrics = town.metrics();
    assert_eq!((metrics.connections, metrics.reserved), (20, 0));
    let pair = Setting::new(3, 15, 8).memory() + Decompressor::MEMORY;
    assert!((pair..pair + 40_000).contains(&metrics.memory), "{metrics:?}");
    for id in town.state.opened.clone() {
        assert_eq!(town.context.io().conn(id).unwrap().deflate().unwrap().memory(), 0);
    }
    town.context.io().release_deflate_memory();
    assert_eq!(town.metrics().memory, 0);
}

#[test]
fn beyond_the_cap_new_connections_have_no_context_takeover() {
    let each = Setting::new(3, 15, 8).memory() + Decompressor::MEMORY;
    let mut town = Town::with(1, Some(taking_over()), Limits::default(), 2 * each);
    let mut clients: Vec<_> = (0..4).map(|_| town.open("/", taking_over())).collect();
    let takes_over: Vec<bool> =
        clients.iter().map(|client| !client.parameters.server_no_context_takeover).collect();
    assert_eq!(takes_over, [true, true, false, false]);
    let metrics = town.metrics();
    assert_eq!((metrics.reserved, metrics.limit, metrics.memory), (2 * each, 2 * each, 0));
    for client in &mut clients {
        for _ in 0..2 {
            client.send(Message::Text(&json(3000, 1)));
        }
    }
    town.run();
    for client in &mut clients {
        client.read();
        assert_eq!(client.messages.len(), 2);
        let [first, second] = [client.frames[0].1, client.frames[1].1];
        assert_eq!(second < first / 2, !client.parameters.server_no_context_takeover, "{first} {second}");
    }
    let memory = town.metrics().memory;
    assert!((2 * each..3 * each + 40_000).contains(&memory), "{memory}");

    // One goes, and there is room for another.
    clients.remove(0).endpoint.close();
    town.run();
    assert_eq!(town.metrics().reserved, each);
    assert!(!town.open("/", taking_over()).parameters.server_no_context_takeover);
    town.leave();
}

#[test]
fn an_idle_connection_can_give_up_its_compressor() {
    let mut town = Town::new(Some(taking_over()));
    let mut client = town.open("/", taking_over());
    let text = json(3000, 1);
    client.send(Message::Text(&text));
    town.run();
    let id = town.state.opened[0];
    let memory = |town: &mut Town| town.context.io().conn(id).unwrap().deflate().unwrap().memory();
    assert_eq!(memory(&mut town), Setting::new(3, 15, 8).memory() + Decompressor::MEMORY);
    town.context.io().conn(id).unwrap().deflate().unwrap().release();
    // The peer may still refer to what it sent.
    assert_eq!(memory(&mut town), Decompressor::MEMORY);
    client.send(Message::Text(&text));
    town.run();
    town.context.io().release_deflate_memory();
    assert_eq!((memory(&mut town), town.metrics().memory), (Decompressor::MEMORY, Decompressor::MEMORY));
    client.send(Message::Text(&text));
    town.run();
    client.read();
    assert_eq!(client.texts(), [&*text; 3]);
    assert!(client.frames.iter().all(|(first, _)| *first == COMPRESSED));
}

#[test]
fn what_connections_have_sent_and_received_is_counted_before_and_after() {
    let mut town = Town::new(Some(taking_over()));
    let mut client = town.open("/", taking_over());
    let text = json(3000, 1);
    for _ in 0..3 {
        client.send(Message::Text(&text));
    }
    client.send(Message::Text("short"));
    town.run();
    client.read();
    let on_link = town.context.io().links().find_map(|link| link.deflate).unwrap();
    let compressed: usize = client.frames.iter().take(3).map(|(_, length)| length).sum();
    assert_eq!((on_link.sent, on_link.sent_compressed), (9000, compressed as u64));
    assert_eq!((on_link.received, on_link.received_compressed), (9000, compressed as u64));
    assert_eq!(town.metrics().volume, on_link);
    client.endpoint.close();
    town.run();
    let metrics = town.metrics();
    assert_eq!((metrics.connections, metrics.volume, metrics.reserved), (0, on_link, 0));
}

// Many.

#[test]
fn a_message_for_many_goes_to_each_in_the_form_that_it_agreed_on() {
    let mut town = Town::new(Some(taking_over()));
    let mut small = Deflate::default();
    small.server_max_window_bits = 9;
    let kinds = [taking_over(), Deflate::default(), small];
    let mut clients: Vec<_> = (0..12).map(|index| town.open("/", kinds[index % 3])).collect();
    let (mut plain, _) = town.ask("/", &[]);
    let text = json(20_000, 5);
    let protocol = town.state.protocol.unwrap();
    for round in 0..3 {
        let frame = town.context.io().encode(&*text);
        assert_eq!(town.context.io().broadcast(protocol, &frame).sent, 13);
        assert_eq!((frame.payload(), frame.kind()), (text.as_bytes(), MessageKind::Text));
        // What is sent on its own in between refers to nothing that is not there.
        let ids: Vec<ConnId> = town.state.opened.clone();
        for id in ids {
            town.context.io().conn(id).unwrap().send(&*text).unwrap();
        }
        town.run();
        for (index, client) in clients.iter_mut().enumerate() {
            client.read();
            assert_eq!(client.texts(), vec![&*text; 2 * round + 2], "client {index}");
        }
        for _ in 0..2 {
            assert_eq!(plain.next_frame().unwrap().payload, text.as_bytes());
        }
    }
    // The forms are two: by window.
    let lengths = |index: usize| -> Vec<usize> {
        clients.iter().skip(index).step_by(3).map(|client| client.frames[0].1).collect()
    };
    let all = [lengths(0), lengths(1), lengths(2)];
    assert!(all.iter().all(|of_kind| of_kind.iter().all(|length| *length == of_kind[0])));
    assert!(all[0] == all[1] && all[2] != all[1], "{all:?}");
    // Nobody's own compressor was needed for what is for many.
    let before = town.metrics().volume.sent;
    town.context.io().release_deflate_memory();
    let told = town.context.io().broadcast(protocol, &Shared::new(Message::Text(&text)));
    assert_eq!(told.sent, 13);
    let metrics = town.metrics();
    assert_eq!(metrics.volume.sent - before, 12 * 20_000);
    assert!(metrics.memory < 2 * Setting::new(3, 15, 8).memory() + 13 * Decompressor::MEMORY, "{metrics:?}");
    town.leave();
}
