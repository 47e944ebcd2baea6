//! Messages in, frames out (RFC 6455, sections 5 and 6.1).
//!
//! Everything appends to a buffer. `masking` is the masking key, which a client takes fresh and unpredictable for each
//! frame (section 5.3), and `None` for a server.

use super::error::{ControlTooLong, SendPieceError};
use super::frame::{FIN, Header, HeaderBytes, MAX_CONTROL, Opcode};
use super::utf8::Utf8;
use super::{Message, MessageKind, mask};

/// Appends a whole message, as one unfragmented frame (RFC 6455, section 5.6).
///
/// ```
/// let mut out = Vec::new();
/// lodger::ws::encode(&mut out, "Hello".into(), None);
/// assert_eq!(out, b"\x81\x05Hello");
/// ```
#[doc(alias = "lws_write")]
#[inline]
pub fn encode(out: &mut Vec<u8>, message: Message<'_>, masking: Option<[u8; 4]>) {
    let payload = message.as_bytes();
    if masking.is_none() && payload.len() <= 125 {
        // What a server sends most. Room for the payload is checked for once, by the copy.
        out.extend_from_slice(&[FIN | message.kind().opcode() as u8, payload.len() as u8]);
        out.extend_from_slice(payload);
        return;
    }
    encode_long(out, message, masking);
}

/// The header of a whole message in one frame, for a payload that is written behind it from where it lies.
///
/// With a masking key the payload must be [masked](mask::apply) with it.
#[inline]
pub fn message_header(kind: MessageKind, length: u64, masking: Option<[u8; 4]>) -> HeaderBytes {
    Header { fin: true, rsv: 0, opcode: kind.opcode(), masking, length }.encode()
}

/// Appends a Ping (RFC 6455, section 5.5.2), which the peer answers by a Pong with the same payload.
///
/// # Errors
///
/// The payload has more than 125 bytes.
#[doc(alias = "LWS_WRITE_PING")]
pub fn encode_ping(
    out: &mut Vec<u8>,
    payload: &[u8],
    masking: Option<[u8; 4]>,
) -> Result<(), ControlTooLong> {
    encode_control(out, Opcode::Ping, payload, masking)
}

/// Appends a Pong (RFC 6455, section 5.5.3): the answer to a Ping, with its payload, or a heartbeat of its own.
///
/// # Errors
///
/// The payload has more than 125 bytes; that of a received Ping never has.
#[doc(alias = "LWS_WRITE_PONG")]
pub fn encode_pong(
    out: &mut Vec<u8>,
    payload: &[u8],
    masking: Option<[u8; 4]>,
) -> Result<(), ControlTooLong> {
    encode_control(out, Opcode::Pong, payload, masking)
}

/// The sending half of a connection, as far as it has a state: a message that is sent in pieces.
///
/// Whole messages and control frames need none, but a whole message must not come between the pieces of another
/// (RFC 6455, section 5.4): ask [`in_message`](Self::in_message).
///
/// ```
/// use lodger::ws::{MessageKind::Text, Sender};
///
/// let mut sender = Sender::default();
/// let mut out = Vec::new();
/// sender.encode_piece(&mut out, Text, b"Hel", false, None)?;
/// sender.encode_piece(&mut out, Text, b"lo", true, None)?;
/// assert_eq!(out, b"\x01\x03Hel\x80\x02lo");
/// # Ok::<(), lodger::ws::SendPieceError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender {
    under_way: Option<MessageKind>,
    utf8: Utf8,
}

impl Sender {
    /// No message is under way.
    pub fn new() -> Self {
        Self::default()
    }

    /// True between the first and the last piece of a message.
    #[inline]
    pub fn in_message(&self) -> bool {
        self.under_way.is_some()
    }

    /// Appends the next piece of a message as one frame; `last` ends the message. A piece may be empty, and that of a text
    /// may end within a character if it is not the last.
    ///
    /// # Errors
    ///
    /// As in [`SendPieceError`]; nothing is appended then, and the state is as before.
    #[doc(alias = "LWS_WRITE_CONTINUATION")]
    #[doc(alias = "LWS_WRITE_NO_FIN")]
    pub fn encode_piece(
        &mut self,
        out: &mut Vec<u8>,
        kind: MessageKind,
        payload: &[u8],
        last: bool,
        masking: Option<[u8; 4]>,
    ) -> Result<(), SendPieceError> {
        let header = self.piece_header(kind, payload, last, masking)?;
        append(out, &header, payload, masking);
        Ok(())
    }

    /// Like [`encode_piece`](Self::encode_piece), but gives only the header, for a payload that is written behind it from
    /// where it lies.
    ///
    /// # Errors
    ///
    /// As in [`SendPieceError`]; the state is as before.
    pub fn piece_header(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        last: bool,
        masking: Option<[u8; 4]>,
    ) -> Result<HeaderBytes, SendPieceError> {
        Ok(Header { masking, ..self.piece(kind, payload, last)? }.encode())
    }

    /// The same before it is known how the frame is masked.
    pub(crate) fn piece(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        last: bool,
    ) -> Result<Header, SendPieceError> {
        if self.under_way.is_some_and(|under_way| under_way != kind) {
            return Err(SendPieceError::OtherKind);
        }
        if kind == MessageKind::Text {
            let mut utf8 = self.utf8;
            utf8.feed(payload).map_err(|_| SendPieceError::InvalidUtf8)?;
            if last && !utf8.is_complete() {
                return Err(SendPieceError::InvalidUtf8);
            }
            self.utf8 = utf8;
        }
        let opcode = if self.in_message() { Opcode::Continuation } else { kind.opcode() };
        self.under_way = (!last).then_some(kind);
        Ok(Header { fin: last, rsv: 0, opcode, masking: None, length: payload.len() as u64 })
    }
}

/// Kept apart from the short way, which is to stay small enough for its callers.
#[inline(never)]
fn encode_long(out: &mut Vec<u8>, message: Message<'_>, masking: Option<[u8; 4]>) {
    append(out, &message_header(message.kind(), message.len() as u64, masking), message.as_bytes(), masking);
}

fn encode_control(
    out: &mut Vec<u8>,
    opcode: Opcode,
    payload: &[u8],
    masking: Option<[u8; 4]>,
) -> Result<(), ControlTooLong> {
    if payload.len() > MAX_CONTROL {
        return Err(ControlTooLong { size: payload.len() });
    }
    let header = Header { fin: true, rsv: 0, opcode, masking, length: payload.len() as u64 }.encode();
    append(out, &header, payload, masking);
    Ok(())
}

fn append(out: &mut Vec<u8>, header: &HeaderBytes, payload: &[u8], masking: Option<[u8; 4]>) {
    out.reserve(header.as_bytes().len() + payload.len());
    out.extend_from_slice(header.as_bytes());
    match masking {
        Some(key) => mask::apply_copy(key, payload, out),
        None => out.extend_from_slice(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MessageKind::{Binary, Text};

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn encoded(message: Message<'_>, masking: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, message, masking);
        out
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // Section 5.7.
        assert_eq!(encoded("Hello".into(), None), [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(encoded("Hello".into(), Some(KEY)), masked);

        let mut sender = Sender::new();
        let mut out = Vec::new();
        sender.encode_piece(&mut out, Text, b"Hel", false, None).unwrap();
        assert_eq!(out, [0x01, 0x03, 0x48, 0x65, 0x6c]);
        out.clear();
        sender.encode_piece(&mut out, Text, b"lo", true, None).unwrap();
        assert_eq!(out, [0x80, 0x02, 0x6c, 0x6f]);

        out.clear();
        encode_ping(&mut out, b"Hello", None).unwrap();
        assert_eq!(out, [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        out.clear();
        encode_pong(&mut out, b"Hello", Some(KEY)).unwrap();
        assert_eq!(out, [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);

        assert_eq!(encoded((&[7; 256]).into(), None)[..4], [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(encoded((&[7; 65536]).into(), None)[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn the_short_way_and_the_long_one_meet() {
        for len in [0, 1, 125, 126, 127] {
            let payload = vec![b'x'; len];
            let mut expected = message_header(Binary, len as u64, None).as_bytes().to_vec();
            expected.extend_from_slice(&payload);
            assert_eq!(encoded((&payload).into(), None), expected);
        }
    }

    #[test]
    fn a_control_frame_has_at_most_125_bytes() {
        let mut out = Vec::new();
        assert_eq!(encode_ping(&mut out, &[0; 126], None), Err(ControlTooLong { size: 126 }));
        assert_eq!(encode_pong(&mut out, &[0; 126], None), Err(ControlTooLong { size: 126 }));
        assert!(out.is_empty());
        encode_ping(&mut out, &[0; 125], None).unwrap();
        assert_eq!(out.len(), 127);
    }

    #[test]
    fn a_piece_of_the_other_kind_is_refused() {
        let mut sender = Sender::new();
        let mut out = Vec::new();
        sender.encode_piece(&mut out, Binary, b"\xff", false, None).unwrap();
        assert!(sender.in_message());
        assert_eq!(sender.encode_piece(&mut out, Text, b"x", true, None), Err(SendPieceError::OtherKind));
        sender.encode_piece(&mut out, Binary, b"", true, None).unwrap();
        assert!(!sender.in_message());
        assert_eq!(out, b"\x02\x01\xff\x80\x00");
    }

    #[test]
    fn text_in_pieces_is_utf8_as_a_whole() {
        let mut sender = Sender::new();
        let mut out = Vec::new();
        sender.encode_piece(&mut out, Text, b"\xf0\x9f", false, None).unwrap();
        let before = out.clone();
        assert_eq!(sender.encode_piece(&mut out, Text, b"x", false, None), Err(SendPieceError::InvalidUtf8));
        assert_eq!(
            sender.encode_piece(&mut out, Text, b"\xa6", true, None),
            Err(SendPieceError::InvalidUtf8)
        );
        assert_eq!(out, before);
        sender.encode_piece(&mut out, Text, b"\xa6\x80", true, None).unwrap();
        assert_eq!(out, b"\x01\x02\xf0\x9f\x80\x02\xa6\x80");
        assert!(size_of::<Sender>() <= 8);
    }
}
