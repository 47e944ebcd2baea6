//! Both halves together, over frames.

use super::*;
use crate::ws::{
    Event, Message, MessageKind, ProtocolError, Receive, ReceiveError, Receiver, Sender, Settings, Side,
    TooLarge, encode_close, encode_ping,
};
use MessageKind::{Binary, Text};

#[derive(Clone, Eq, PartialEq)]
enum Owned {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close,
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message(kind, bytes) => {
                write!(f, "{kind:?}({} bytes, {:x?}..)", bytes.len(), bytes.get(..8))
            }
            Self::Ping(_) | Self::Pong(_) => f.write_str("Ping or Pong"),
            Self::Close => f.write_str("Close"),
        }
    }
}

/// A transport's reader: keeps what is not consumed, puts pieces together to messages.
struct Reader {
    receiver: Receiver,
    inflater: Inflater,
    pool: Decompressors,
    settings: Settings,
    rest: Vec<u8>,
    pieces: Option<(MessageKind, Vec<u8>)>,
    longest: usize,
    events: Vec<Owned>,
    error: Option<ReceiveError>,
}

impl Reader {
    fn new(side: Side, receive: Receive, parameters: &Parameters) -> Self {
        let settings = Settings { receive, ..Settings::default() };
        Self {
            receiver: Receiver::new(side),
            inflater: Inflater::new(parameters, side),
            pool: Decompressors::default(),
            settings,
            rest: Vec::new(),
            pieces: None,
            longest: 0,
            events: Vec::new(),
            error: None,
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while self.step() {}
        assert!(self.rest.len() < 131);
    }

    /// Takes one event, as a reader does that pauses after each.
    fn step(&mut self) -> bool {
        let Self { receiver, inflater, pool, settings, rest, .. } = self;
        let (used, event) = match receiver.next_inflated(rest, settings, inflater, pool) {
            Ok(found) => found,
            Err(error) => {
                assert_eq!(self.error.replace(error), None, "only one error comes");
                return true;
            }
        };
        let goes_on = event.is_some();
        match event {
            None => {}
            Some(Event::Message(message)) => {
                assert_eq!(settings.receive, Receive::Whole);
                assert!(message.len() <= settings.max_message);
                self.events.push(Owned::Message(message.kind(), message.as_bytes().to_vec()));
            }
            Some(Event::Piece(piece)) => {
                assert_eq!((settings.receive, piece.first), (Receive::Pieces, self.pieces.is_none()));
                assert!(piece.first || piece.last || !piece.payload.is_empty());
                self.longest = self.longest.max(piece.payload.len());
                let (kind, mut bytes) = self.pieces.take().unwrap_or((piece.kind, Vec::new()));
                assert_eq!(kind, piece.kind);
                bytes.extend_from_slice(piece.payload);
                if piece.last {
                    assert!(piece.final_fragment && piece.remaining_in_frame == 0);
                    self.events.push(Owned::Message(kind, bytes));
                } else {
                    self.pieces = Some((kind, bytes));
                }
            }
            Some(Event::Ping(payload)) => self.events.push(Owned::Ping(payload.to_vec())),
            Some(Event::Close(_)) => self.events.push(Owned::Close),
            Some(Event::Pong(payload)) => self.events.push(Owned::Pong(payload.to_vec())),
        }
        self.rest.drain(..used);
        goes_on
    }
}

type Outcome = (Vec<Owned>, Option<ReceiveError>);

fn read<'a>(
    side: Side,
    receive: Receive,
    parameters: &Parameters,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let mut reader = Reader::new(side, receive, parameters);
    chunks.into_iter().for_each(|chunk| reader.read(chunk));
    let held = if reader.inflater.takes_over() { 47_552 } else { 0 };
    assert!(reader.error.is_some() || reader.receiver.in_message() || reader.inflater.memory() <= held);
    (reader.events, reader.error)
}

/// Reads `input` whole, in single bytes, and in every split into two; the outcome must be the same.
fn read_every_split(side: Side, receive: Receive, parameters: &Parameters, input: &[u8]) -> Outcome {
    let whole = read(side, receive, parameters, [input]);
    assert_eq!(read(side, receive, parameters, input.chunks(1)), whole);
    for at in 0..=input.len() {
        assert_eq!(read(side, receive, parameters, [&input[..at], &input[at..]]), whole, "split at {at}");
    }
    whole
}

/// What a client reads, whole and in pieces.
fn both(input: &[u8]) -> Outcome {
    let whole = read_every_split(Side::Client, Receive::Whole, &Parameters::default(), input);
    let pieces = read_every_split(Side::Client, Receive::Pieces, &Parameters::default(), input);
    assert_eq!(whole, pieces);
    whole
}

fn hello() -> Owned {
    Owned::Message(Text, b"Hello".to_vec())
}

#[test]
fn the_frames_of_the_rfc() {
    // Section 7.2.3: one frame, two fragments; with a reference to the message before; no compression, BFINAL, two blocks.
    let frames: [&[u8]; 6] = [
        b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
        b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00",
        b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00",
        b"\xc1\x0b\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ];
    for (index, frame) in frames.into_iter().enumerate() {
        let count = if index == 2 { 2 } else { 1 };
        assert_eq!(both(frame), (vec![hello(); count], None), "{frame:x?}");
    }
    // An uncompressed message may come between, and be in fragments with control frames among them.
    let mixed = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\x81\x05Hello\x41\x02\xf2\x00\x89\x01x\x00\x00\x80\x03\x11\x00\x00";
    let expected = vec![hello(), hello(), Owned::Ping(b"x".to_vec()), hello()];
    assert_eq!(both(mixed), (expected, None));
    // Section 7.2.3.6; no bytes at all; and a first fragment without any.
    let empty = Owned::Message(Text, vec![]);
    for frame in [&b"\xc1\x01\x00"[..], b"\xc1\x00", b"\x41\x00\x80\x01\x00", b"\x41\x00\x80\x00"] {
        assert_eq!(both(frame), (vec![empty.clone()], None));
    }

    let options = Deflate { level: 6, threshold: 0, server_no_context_takeover: false, ..Deflate::default() };
    let mut deflater = Deflater::new(&options, &Parameters::default(), Side::Server);
    let mut pool = Compressors::default();
    let mut out = Vec::new();
    let mut sender = Sender::new();
    for (piece, last) in [("Hel", false), ("lo", false), ("", true)] {
        deflater.encode_piece(&mut sender, &mut out, Text, piece.as_bytes(), last, None, &mut pool).unwrap();
    }
    assert_eq!(out[..2], [0x41, 0x09]);
    assert_eq!(out[out.len() - 3..], [0x80, 0x01, 0x00]);
    assert_eq!(both(&out), (vec![hello()], None));
}

#[test]
fn the_bit_stands_on_the_first_frame_of_a_message_and_nowhere_else() {
    let reserved = ReceiveError::from(ProtocolError::ReservedBits);
    for (input, count) in [
        (&b"\x41\x03\xf2\x48\xcd\xc0\x04\xc9\xc9\x07\x00"[..], 0),
        (b"\x01\x03Hel\xc0\x02lo", 0),
        (b"\xc9\x00", 0),
        (b"\xca\x00", 0),
        (b"\xc8\x00", 0),
        (b"\xa1\x00", 0),
        (b"\x91\x00", 0),
        (b"\xe1\x00", 0),
        (b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc9\x00", 1),
    ] {
        assert_eq!(both(input), (vec![hello(); count], Some(reserved)), "{input:x?}");
    }
    // Without the extension it stands nowhere.
    let mut receiver = Receiver::new(Side::Client);
    let mut input = *b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00";
    assert_eq!(receiver.next(&mut input, &Settings::default()).map(|_| ()), Err(reserved));
}

#[test]
fn a_message_is_judged_as_it_is_inflated() {
    let invalid = |error: ProtocolError| Some(ReceiveError::from(error));
    for (input, error) in [
        (&b"\xc1\x01\x06"[..], ProtocolError::InvalidDeflate),
        (b"\xc2\x05\xf2\x00\x11\x00\x00", ProtocolError::InvalidDeflate),
        (b"\xc2\x03\xf2\x48\xcd", ProtocolError::InvalidDeflate),
        (b"\x42\x03\xf2\x48\xcd\x80\x00", ProtocolError::InvalidDeflate),
        // Text: a byte that is no character; the beginning of one.
        (b"\xc1\x07\x00\x01\x00\xfe\xff\xff\x00", ProtocolError::InvalidUtf8),
        (b"\xc1\x07\x00\x01\x00\xfe\xff\xc3\x00", ProtocolError::InvalidUtf8),
        // What every message is judged by.
        (b"\xc1\x80\0\0\0\0", ProtocolError::Masking),
        (b"\x41\x00\xc1\x00", ProtocolError::MessageWithinMessage),
    ] {
        assert_eq!(both(input), (vec![], invalid(error)), "{input:x?}");
    }
    assert_eq!(invalid(ProtocolError::InvalidDeflate).unwrap().close_code().get(), 1007);
    // The first wrong byte fails, however the frame goes on.
    let mut reader = Reader::new(Side::Client, Receive::Whole, &Parameters::default());
    reader.read(b"\xc1\x7e\x10\x00\x00\x02\x00\xfd\xff\xff");
    assert_eq!(reader.error, invalid(ProtocolError::InvalidUtf8));
}

/// Every combination of what the two can want.
fn agreements() -> Vec<(Deflate, Parameters)> {
    let mut all = Vec::new();
    for flags in 0..4 {
        for server_bits in [9, 10, 15] {
            for client_bits in [8, 9, 12, 15] {
                let options = Deflate {
                    level: [1, 2, 3, 6][flags],
                    threshold: 20,
                    server_no_context_takeover: flags & 1 == 0,
                    client_no_context_takeover: flags & 2 == 0,
                    server_max_window_bits: server_bits,
                    client_max_window_bits: client_bits,
                    mem_level: 1 + flags as u8 * 2,
                };
                let answer = options.accept([options.offer().to_string().as_bytes()]).unwrap().to_string();
                all.push((options, options.accepted([answer.as_bytes()]).unwrap().unwrap()));
            }
        }
    }
    all
}

#[test]
fn our_two_ends_understand_each_other_whatever_was_agreed_on() {
    let mut random = Random(0x0bad_cafe_1234_5677);
    for (options, parameters) in agreements() {
        for side in [Side::Client, Side::Server] {
            let (receiver, receive) = match side {
                Side::Client => (Side::Server, Receive::Whole),
                Side::Server => (Side::Client, Receive::Pieces),
            };
            let (bytes, events) = random.stream(side, &options, &parameters);
            assert_eq!(
                read(receiver, receive, &parameters, [&bytes[..]]),
                (events, None),
                "{side:?} {options:?}"
            );
        }
    }
}

#[test]
fn every_split_of_a_stream_gives_the_same_messages() {
    let mut random = Random(0x7777_1234_9876_0001);
    let parameters = Parameters::default();
    let options = Deflate { threshold: 0, client_no_context_takeover: false, ..Deflate::default() };
    for receive in [Receive::Whole, Receive::Pieces] {
        let mut deflater = Deflater::new(&options, &parameters, Side::Client);
        let mut sender = Sender::new();
        let mut pool = Compressors::default();
        let mut bytes = Vec::new();
        let mut events = Vec::new();
        for length in [0, 3, 40, 90] {
            let text = random.text(length);
            deflater.encode(&mut bytes, Message::Text(&text), random.key(), &mut pool);
            events.push(Owned::Message(Text, text.clone().into_bytes()));
            for (piece, last) in
                [(&text.as_bytes()[..length / 2], false), (&text.as_bytes()[length / 2..], true)]
            {
                let key = random.key();
                deflater.encode_piece(&mut sender, &mut bytes, Binary, piece, last, key, &mut pool).unwrap();
            }
            events.push(Owned::Message(Binary, text.into_bytes()));
        }
        encode_close(&mut bytes, None, random.key());
        events.push(Owned::Close);
        assert_eq!(read_every_split(Side::Server, receive, &parameters, &bytes), (events, None));
    }
}

#[test]
fn no_cut_and_no_pause_changes_what_is_received() {
    let mut random = Random(0x1111_2222_3333_4445);
    let agreements = agreements();
    for round in 0..150 {
        let (options, parameters) = &agreements[random.below(agreements.len())];
        let (side, other) = [(Side::Client, Side::Server), (Side::Server, Side::Client)][round % 2];
        let (bytes, events) = random.stream(side, options, parameters);
        let receive = [Receive::Whole, Receive::Pieces][random.below(2)];
        for longest in [3, 100, 5000] {
            let mut reader = Reader::new(other, receive, parameters);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                // What has come is taken event by event, with more coming in between.
                let (chunk, behind) = rest.split_at((1 + random.below(longest)).min(rest.len()));
                reader.rest.extend_from_slice(chunk);
                (0..random.below(3)).for_each(|_| {
                    reader.step();
                });
                rest = behind;
            }
            reader.read(&[]);
            assert_eq!((reader.events, reader.error), (events.clone(), None));
            assert!(reader.longest <= 16 * 1024);
        }
    }
}

#[test]
fn nothing_a_peer_sends_panics_and_cuts_make_no_difference() {
    let mut random = Random(0xfeed_beef_1234_5671);
    let agreements = agreements();
    for round in 0..600 {
        let (options, parameters) = &agreements[random.below(agreements.len())];
        let receive = [Receive::Whole, Receive::Pieces][round % 2];
        let (mut bytes, _) = random.stream(Side::Server, options, parameters);
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        let whole = read(Side::Client, receive, parameters, [&bytes[..]]);
        assert_eq!(read(Side::Client, receive, parameters, bytes.chunks(1)), whole);
        assert_eq!(read(Side::Client, receive, parameters, random.chunks(&bytes, 50)), whole);
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let options = Deflate::default();
    let parameters = options.accept([&b"permessage-deflate"[..]]).unwrap();
    // A hundred times the same mebibyte, of which each refers to itself only.
    let mut zeros = Vec::new();
    Compressor::new(Setting::new(9, 15, 9)).compress_fragment(&vec![0; 1 << 20], false, &mut zeros);
    let mut payload = zeros.repeat(100);
    payload.push(0x00);
    assert!(payload.len() < 200_000, "{}", payload.len());
    let mut bomb = message_header(Binary, payload.len() as u64, None).as_bytes().to_vec();
    bomb.extend(payload);

    let mut reader = Reader::new(Side::Client, Receive::Whole, &parameters);
    reader.settings.max_message = 1 << 20;
    let mut most = 0;
    for chunk in bomb.chunks(100) {
        reader.read(chunk);
        most = most.max(reader.receiver.held() + reader.inflater.memory() + reader.pool.memory());
        if reader.error.is_some() {
            break;
        }
    }
    let Some(ReceiveError::TooLarge(TooLarge { size, limit })) = reader.error else { panic!("no limit") };
    assert_eq!((size, limit), ((1 << 20) + 1, 1 << 20));
    assert!(most <= (1 << 20) + 70_000, "{most}");
    assert_eq!(reader.receiver.held(), 0);

    // In pieces it has no limit, and no piece is long.
    let mut receiver = Receiver::new(Side::Client);
    let (mut inflater, mut pool) = (Inflater::new(&parameters, Side::Client), Decompressors::default());
    let settings = Settings { receive: Receive::Pieces, ..Settings::default() };
    let (mut used, mut total) = (0, 0);
    while let (bytes, Some(Event::Piece(piece))) =
        receiver.next_inflated(&mut bomb[used..], &settings, &mut inflater, &mut pool).unwrap()
    {
        used += bytes;
        total += piece.payload.len();
        assert!(piece.payload.len() <= 16 * 1024);
    }
    assert_eq!(total, 100 << 20);
}

#[test]
fn the_limit_is_for_what_a_message_becomes() {
    let run = |max_message, max_frame, input: &[u8]| {
        let mut reader = Reader::new(Side::Client, Receive::Whole, &Parameters::default());
        reader.settings.max_message = max_message;
        reader.settings.max_frame = max_frame;
        reader.read(input);
        reader.error
    };
    let too_large = |size, limit| Some(ReceiveError::TooLarge(TooLarge { size, limit }));
    // Seven bytes on the wire are five.
    let hello = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00";
    assert_eq!(run(5, 7, hello), None);
    assert_eq!(run(4, 7, hello), too_large(5, 4));
    assert_eq!(run(5, 6, hello), too_large(7, 6));
    assert_eq!(run(5, 4, b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00"), None);
    assert_eq!(run(4, 4, b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00"), too_large(5, 4));
}

#[test]
fn a_direction_without_takeover_holds_nothing_between_messages() {
    let options = Deflate::default();
    let parameters = options.accept([&b"permessage-deflate"[..]]).unwrap();
    let mut pool = Compressors::default();
    let message = "again and again, ".repeat(50);
    let mut both = [(); 2].map(|_| Deflater::new(&options, &parameters, Side::Server));
    assert_eq!(both[0].setting(), both[1].setting());
    let mut frames = Vec::new();
    for index in [0, 1, 0] {
        let deflater = &mut both[index];
        let mut frame = Vec::new();
        deflater.encode(&mut frame, Message::Text(&message), None, &mut pool);
        assert_eq!(deflater.memory(), 0);
        frames.push(frame);
    }
    assert!(frames.iter().all(|frame| *frame == frames[0]));
    assert!(pool.memory() < 400_000, "one compressor was enough");
    // Only a message in pieces keeps one while it lasts.
    let [mut one, _] = both;
    let mut sender = Sender::new();
    let mut out = Vec::new();
    one.encode_piece(&mut sender, &mut out, Text, b"a", false, None, &mut pool).unwrap();
    assert!(one.memory() > 0);
    one.encode_piece(&mut sender, &mut out, Text, b"b", true, None, &mut pool).unwrap();
    assert_eq!(one.memory(), 0);
}

#[test]
fn with_takeover_a_frame_of_another_compressor_may_come_between() {
    let options = Deflate { server_no_context_takeover: false, threshold: 0, ..Deflate::default() };
    let parameters = Parameters::default();
    let mut pool = Compressors::default();
    let mut deflater = Deflater::new(&options, &parameters, Side::Server);
    let mut random = Random(0x4242_4242_4242_4243);
    let mut bytes = Vec::new();
    let mut events = Vec::new();
    for round in 0..6 {
        let text = random.text(500);
        events.push(Owned::Message(Text, text.clone().into_bytes()));
        if round % 3 == 1 {
            let mut shared = Vec::new();
            assert!(pool.compress(deflater.setting().unwrap(), text.as_bytes(), &mut shared));
            bytes.extend_from_slice(message_header(Text, shared.len() as u64, None).as_bytes());
            bytes.extend(shared);
            deflater.forget();
        } else {
            deflater.encode(&mut bytes, Message::Text(&text), None, &mut pool);
        }
        if round == 3 {
            deflater.release(&mut pool);
        }
    }
    assert_eq!(read(Side::Client, Receive::Whole, &parameters, [&bytes[..]]), (events, None));
}

#[test]
fn what_is_not_worth_it_or_not_possible_goes_uncompressed() {
    let mut pool = Compressors::default();
    let mut check = |options: Deflate, parameters: Parameters, message: Message<'_>, compressed: bool| {
        let mut deflater = Deflater::new(&options, &parameters, Side::Client);
        let mut out = Vec::new();
        deflater.encode(&mut out, message, Some([0; 4]), &mut pool);
        assert_eq!(out[0] & RSV != 0, compressed);
        let mut sender = Sender::new();
        out.clear();
        deflater
            .encode_piece(
                &mut sender,
                &mut out,
                message.kind(),
                message.as_bytes(),
                false,
                Some([0; 4]),
                &mut pool,
            )
            .unwrap();
        out[0]
    };
    let options = Deflate { threshold: 50, ..Deflate::default() };
    let (short, enough) = ("a".repeat(49), "a".repeat(50));
    // In pieces the length is not known.
    assert_eq!(check(options, Parameters::default(), Message::Text(&short), false), 0x41);
    assert_eq!(check(options, Parameters::default(), Message::Text(&enough), true), 0x41);
    check(options, Parameters::default(), Message::Binary(&Random(99).noise(1000)), false);
    // Never.
    let never = Deflate { threshold: usize::MAX, ..options };
    assert_eq!(check(never, Parameters::default(), Message::Text(&enough), false), 0x01);
    let bound = Parameters { client_max_window_bits: Some(8), ..Parameters::default() };
    assert_eq!(check(options, bound, Message::Text(&enough), false), 0x01);
    let empty = Deflate { threshold: 0, ..options };
    check(empty, Parameters::default(), Message::Text(""), false);
}

#[test]
fn a_piece_that_is_refused_changes_nothing() {
    let options = Deflate { client_no_context_takeover: false, ..Deflate::default() };
    let mut deflater = Deflater::new(&options, &Parameters::default(), Side::Server);
    let (mut sender, mut pool, mut out) = (Sender::new(), Compressors::default(), Vec::new());
    deflater.encode_piece(&mut sender, &mut out, Text, b"Hel", false, None, &mut pool).unwrap();
    let before = out.clone();
    assert!(deflater.encode_piece(&mut sender, &mut out, Text, b"\xff", false, None, &mut pool).is_err());
    assert!(deflater.encode_piece(&mut sender, &mut out, Binary, b"x", true, None, &mut pool).is_err());
    assert_eq!(out, before);
    deflater.encode_piece(&mut sender, &mut out, Text, b"lo", true, None, &mut pool).unwrap();
    assert_eq!(both(&out), (vec![hello()], None));
}

#[test]
fn what_a_connection_has_is_small() {
    assert!(size_of::<Inflater>() <= 32);
    assert!(size_of::<Deflater>() <= 48, "{}", size_of::<Deflater>());
}

/// Prints MB/s each way. `cargo test --release --lib --features deflate -- --ignored --nocapture speed_of_each_level`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn speed_of_each_level() {
    use std::time::{Duration, Instant};
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    println!("bytes level takeover  ratio  compress MB/s  decompress MB/s");
    for length in [128, 256, 1024, 64 * 1024] {
        // More than a window holds, so that none is known already when it comes again.
        let messages: Vec<_> = (0..(1 << 20) / length).map(|_| random.json(length)).collect();
        for level in [1, 2, 3, 4, 6] {
            for takeover in [false, true] {
                let mut compressor = Compressor::new(Setting::new(level, 15, 8));
                let mut decompressor = Decompressor::new();
                let (mut plain, mut small) = (0, 0);
                let (mut compressing, mut inflating) = (Duration::ZERO, Duration::ZERO);
                let (mut wire, mut out) = (Vec::new(), vec![0; 128 * 1024]);
                while plain < 24 << 20 && compressing < Duration::from_millis(400) {
                    for message in &messages {
                        wire.clear();
                        let start = Instant::now();
                        if !takeover {
                            compressor.reset();
                        }
                        let shrinks = compressor.compress(message.as_bytes(), &mut wire);
                        let middle = Instant::now();
                        if shrinks {
                            if !takeover {
                                decompressor.reset();
                            }
                            let progress = decompressor.decompress(&wire, true, &mut out).unwrap();
                            assert_eq!(progress.written, message.len());
                            inflating += middle.elapsed();
                        }
                        compressing += middle - start;
                        plain += message.len();
                        small += if shrinks { wire.len() } else { message.len() };
                    }
                }
                let speed = |time: Duration| plain as f64 / 1e6 / time.as_secs_f64();
                println!(
                    "{length:5} {level:5} {takeover:8}  {:.3}  {:13.0}  {:15.0}",
                    small as f64 / plain as f64,
                    speed(compressing),
                    speed(inflating)
                );
            }
        }
    }
}

/// Xorshift, by Marsaglia.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn key(&mut self) -> Option<[u8; 4]> {
        Some((self.below(1 << 32) as u32).to_ne_bytes())
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    /// Words that come again, with characters of every width.
    fn text(&mut self, length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            match self.below(8) {
                0 => text.push(['a', 'é', '€', '🦀'][self.below(4)]),
                _ => text
                    .push_str(["{\"id\":", "null,", "\"name\":", "\"value\"}", "12", "}, "][self.below(6)]),
            }
        }
        let end = (0..=length).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text
    }

    fn json(&mut self, length: usize) -> String {
        let mut text = String::from("[");
        while text.len() < length {
            let name = ["alpha", "beta", "gamma", "delta", "omega"][self.below(5)];
            let (id, price, at) =
                (self.below(1 << 20), self.below(100_000), 1_700_000_000 + self.below(1 << 24));
            text += &format!(
                "{{\"id\":{id},\"name\":\"{name}\",\"price\":{}.{:02},\"active\":{},\"time\":{at}}},",
                price / 100,
                price % 100,
                id % 3 == 0
            );
        }
        text.truncate(length);
        text
    }

    fn chunks<'a>(&mut self, mut input: &'a [u8], longest: usize) -> Vec<&'a [u8]> {
        let mut chunks = Vec::new();
        while !input.is_empty() {
            let (chunk, rest) = input.split_at((1 + self.below(longest)).min(input.len()));
            chunks.push(chunk);
            input = rest;
        }
        chunks
    }

    /// What `side` sends: messages whole and in pieces, with Pings among them, and the events they must give.
    fn stream(&mut self, side: Side, options: &Deflate, parameters: &Parameters) -> (Vec<u8>, Vec<Owned>) {
        let mut deflater = Deflater::new(options, parameters, side);
        let mut pool = Compressors::new(1);
        let mut sender = Sender::new();
        let mut bytes = Vec::new();
        let mut events = Vec::new();
        let key = |random: &mut Self| (side == Side::Client).then(|| random.key()).flatten();
        for _ in 0..1 + self.below(5) {
            let length = [0, 1, 30, 126, 400, 3000, 40_000][self.below(7)];
            let (kind, payload) = match self.below(4) {
                0 => (Binary, self.noise(length.min(1000))),
                1 => (Binary, self.text(length).into_bytes()),
                _ => (Text, self.text(length).into_bytes()),
            };
            events.push(Owned::Message(kind, payload.clone()));
            if self.below(2) == 0 {
                let message = match kind {
                    Text => Message::Text(str::from_utf8(&payload).unwrap()),
                    Binary => Message::Binary(&payload),
                };
                deflater.encode(&mut bytes, message, key(self), &mut pool);
                continue;
            }
            let mut rest = &payload[..];
            loop {
                let (piece, behind) = rest.split_at(self.below(rest.len() + 1));
                let last = behind.is_empty() && self.below(2) == 0;
                let masking = key(self);
                deflater
                    .encode_piece(&mut sender, &mut bytes, kind, piece, last, masking, &mut pool)
                    .unwrap();
                if last {
                    break;
                }
                rest = behind;
                if self.below(3) == 0 {
                    encode_ping(&mut bytes, b"between", key(self)).unwrap();
                    events.insert(events.len() - 1, Owned::Ping(b"between".to_vec()));
                }
            }
        }
        (bytes, events)
    }
}
