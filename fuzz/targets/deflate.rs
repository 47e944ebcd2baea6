//! permessage-deflate: what a peer lists in Sec-WebSocket-Extensions, and what it sends compressed. However the bytes are
//! cut, the messages are the same; what we send ourselves comes back.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use lodger::ws::deflate::{Compressors, Decompressors, Deflate, Deflater, Inflater, Parameters};
use lodger::ws::{Event, Message, MessageKind, Receive, ReceiveError, Receiver, Sender, Settings, Side};

/// The longest message that is received whole.
const MOST: usize = 100_000;

/// What is looked at of a stream in pieces: a bomb is cut off there.
const MOST_IN_PIECES: usize = 1 << 20;

#[derive(Debug, PartialEq)]
enum Entry {
    Message(MessageKind, Vec<u8>),
    Control(u8, Vec<u8>),
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    entries: Vec<Entry>,
    error: Option<ReceiveError>,
}

fn receive(
    bytes: &[u8],
    ends: &[usize],
    side: Side,
    receive: Receive,
    parameters: &Parameters,
) -> Option<Outcome> {
    let mut settings = Settings::default();
    settings.receive = receive;
    settings.max_message = MOST;
    let mut receiver = Receiver::new(side);
    let mut inflater = Inflater::new(parameters, side);
    let mut pool = Decompressors::new(1);
    let mut outcome = Outcome::default();
    let mut begun = Vec::new();
    let (mut input, mut fed, mut total) = (Vec::new(), 0, 0);
    for &end in ends {
        input.extend_from_slice(&bytes[fed..end]);
        fed = end;
        let mut used = 0;
        loop {
            let (took, event) =
                match receiver.next_inflated(&mut input[used..], &settings, &mut inflater, &mut pool) {
                    Ok(found) => found,
                    Err(error) => {
                        outcome.error = Some(error);
                        return Some(outcome);
                    }
                };
            used += took;
            match event {
                None => break,
                Some(Event::Message(message)) => {
                    assert!(message.len() <= MOST);
                    outcome.entries.push(Entry::Message(message.kind(), message.as_bytes().to_vec()));
                }
                Some(Event::Piece(piece)) => {
                    assert!(piece.first || piece.last || !piece.payload.is_empty());
                    begun.extend_from_slice(piece.payload);
                    total += piece.payload.len();
                    if total > MOST_IN_PIECES {
                        return None;
                    }
                    if piece.last {
                        outcome.entries.push(Entry::Message(piece.kind, std::mem::take(&mut begun)));
                    }
                }
                Some(Event::Ping(payload)) => outcome.entries.push(Entry::Control(9, payload.to_vec())),
                Some(Event::Pong(payload)) => outcome.entries.push(Entry::Control(10, payload.to_vec())),
                Some(Event::Close(_)) => outcome.entries.push(Entry::Control(8, Vec::new())),
            }
        }
        input.drain(..used);
        assert!(input.len() <= 130, "{} bytes are left", input.len());
        assert!(receiver.held() <= 2 * MOST + 1000);
    }
    Some(outcome)
}

/// What is listed by a peer is answered so that the answer can be read back, or not at all.
fn negotiate(field: &[u8], options: &Deflate) -> Parameters {
    let fields = || field.split(|&byte| byte == b'\n');
    let response = options.accepted(fields());
    if let Ok(Some(parameters)) = response {
        assert_eq!(options.accepted([parameters.to_string().as_bytes()]), Ok(Some(parameters)));
    }
    let mut any = Deflate::default();
    (any.server_no_context_takeover, any.server_max_window_bits) = (false, 15);
    match options.accept(fields()) {
        Some(parameters) => {
            assert_eq!(any.accepted([parameters.to_string().as_bytes()]), Ok(Some(parameters)));
            assert!((9..=15).contains(&parameters.window_bits(Side::Server)));
            parameters
        }
        None => Parameters::default(),
    }
}

/// What is sent comes back, whole and in pieces.
fn there_and_back(payload: &[u8], cuts: &[u8], options: &Deflate, parameters: &Parameters) {
    let mut deflater = Deflater::new(options, parameters, Side::Server);
    let (mut sender, mut pool, mut bytes) = (Sender::new(), Compressors::new(1), Vec::new());
    let mut expected = Vec::new();
    for _ in 0..2 {
        deflater.encode(&mut bytes, Message::Binary(payload), None, &mut pool);
        let mut begin = 0;
        for end in common::ends(payload.len(), cuts) {
            let last = end == payload.len();
            let piece = &payload[begin..end];
            deflater
                .encode_piece(&mut sender, &mut bytes, MessageKind::Binary, piece, last, None, &mut pool)
                .expect("binary is never refused");
            begin = end;
        }
        expected.extend([0; 2].map(|_| Entry::Message(MessageKind::Binary, payload.to_vec())));
    }
    let outcome = receive(&bytes, &[bytes.len()], Side::Client, Receive::Pieces, parameters);
    assert_eq!(outcome, Some(Outcome { entries: expected, error: None }));
}

fuzz_target!(|data: &[u8]| {
    let (head, input) = common::split(data, 7);
    let [flags, settings, field_length, cuts @ ..] = head else { return };
    let (field, input) = common::split(input, usize::from(field_length % 128));
    let mut options = Deflate::default();
    options.server_no_context_takeover = flags & 1 != 0;
    options.client_no_context_takeover = flags & 2 != 0;
    options.level = [1, 2, 3, 6][usize::from(flags >> 2 & 3)];
    options.threshold = usize::from(settings & 1) * 30;
    options.server_max_window_bits = 8 + (settings >> 1 & 7);
    options.client_max_window_bits = 8 + (settings >> 4 & 7);
    options.mem_level = 1 + (settings >> 5);
    let parameters = negotiate(field, &options);
    let side = if flags & 16 == 0 { Side::Client } else { Side::Server };
    for mode in [Receive::Whole, Receive::Pieces] {
        let whole = receive(input, &[input.len()], side, mode, &parameters);
        let pieces = receive(input, &common::ends(input.len(), cuts), side, mode, &parameters);
        assert_eq!(whole, pieces);
    }
    if flags & 32 != 0 {
        there_and_back(input, cuts, &options, &parameters);
    }
});
