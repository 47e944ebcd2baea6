//! WebSocket frames, on both sides, whole and in pieces: however the bytes are cut, the events are the same.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use lodger::ws::{Event, Message, MessageKind, Receive, ReceiveError, Receiver, Settings, Side};

/// What was received, so that it does not show where pieces were cut.
#[derive(Debug, PartialEq)]
enum Entry {
    Message(MessageKind, Vec<u8>),
    /// Pieces of one message with nothing between them.
    Pieces(MessageKind, Vec<u8>),
    MessageEnd,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

#[derive(Debug, PartialEq)]
struct Outcome {
    entries: Vec<Entry>,
    error: Option<ReceiveError>,
    rest: Option<usize>,
    in_message: bool,
}

fn receive(bytes: &[u8], ends: &[usize], side: Side, settings: &Settings) -> Outcome {
    let mut receiver = Receiver::new(side);
    let mut entries: Vec<Entry> = Vec::new();
    let mut input = Vec::new();
    let mut fed = 0;
    for &end in ends {
        input.extend_from_slice(&bytes[fed..end]);
        fed = end;
        let mut used = 0;
        loop {
            let left = input.len() - used;
            match receiver.next(&mut input[used..], settings) {
                Ok((took, event)) => {
                    used += took;
                    assert!(took <= left);
                    match event {
                        Some(event) => note(&mut entries, event, settings),
                        None => break,
                    }
                }
                Err(error) => {
                    // How much of a message was handed out before its first wrong byte depends on the cuts.
                    entries.pop_if(|last| matches!(last, Entry::Pieces(..)));
                    return Outcome { entries, error: Some(error), rest: None, in_message: false };
                }
            }
        }
        input.drain(..used);
        assert!(input.len() <= 130, "{} bytes are left", input.len());
    }
    Outcome { entries, error: None, rest: Some(input.len()), in_message: receiver.in_message() }
}

fn note(entries: &mut Vec<Entry>, event: Event<'_>, settings: &Settings) {
    match event {
        Event::Message(message) => {
            assert_eq!(settings.receive, Receive::Whole);
            assert!(message.len() <= settings.max_message);
            if let Message::Text(text) = message {
                assert!(std::str::from_utf8(text.as_bytes()).is_ok());
            }
            entries.push(Entry::Message(message.kind(), message.as_bytes().to_vec()));
        }
        Event::Piece(piece) => {
            assert_eq!(settings.receive, Receive::Pieces);
            assert!(piece.first || piece.last || !piece.payload.is_empty());
            match entries.last_mut() {
                Some(Entry::Pieces(kind, bytes)) => {
                    assert!(*kind == piece.kind && !piece.first);
                    bytes.extend_from_slice(piece.payload);
                }
                _ => entries.push(Entry::Pieces(piece.kind, piece.payload.to_vec())),
            }
            if piece.last {
                entries.push(Entry::MessageEnd);
            }
        }
        Event::Ping(payload) => entries.push(Entry::Ping(payload.to_vec())),
        Event::Pong(payload) => entries.push(Entry::Pong(payload.to_vec())),
        Event::Close(close) => {
            entries.push(Entry::Close(close.map(|close| (close.code.into(), close.reason.to_owned()))));
        }
    }
}

/// Without the pieces that are empty: an empty one is handed out only where it says something about where it was cut.
fn normal(mut outcome: Outcome) -> Outcome {
    outcome.entries.retain(|entry| !matches!(entry, Entry::Pieces(_, bytes) if bytes.is_empty()));
    outcome
}

fuzz_target!(|data: &[u8]| {
    let (head, input) = common::split(data, 5);
    let [flags, cuts @ ..] = head else { return };
    let side = if flags & 1 == 0 { Side::Server } else { Side::Client };
    let mut settings = Settings::default();
    settings.receive = if flags & 2 == 0 { Receive::Whole } else { Receive::Pieces };
    settings.max_message = if flags & 4 == 0 { 1000 } else { 1 << 20 };
    settings.max_frame = if flags & 8 == 0 { 600 } else { u64::MAX };
    let whole = normal(receive(input, &[input.len()], side, &settings));
    let pieces = normal(receive(input, &common::ends(input.len(), cuts), side, &settings));
    assert_eq!(whole, pieces);
});
