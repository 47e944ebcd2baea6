//! Frame headers (RFC 6455, section 5.2).

use super::ProtocolError;

/// One of the two endpoints of a connection. They differ in who masks (RFC 6455, section 5.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// Asked for the connection. Masks what it sends.
    Client,
    /// Accepted the connection. Masks nothing.
    Server,
}

/// What a frame is (RFC 6455, sections 5.2 and 11.8).
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opcode {
    /// A fragment of a message, not its first.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// Ends the connection.
    Close = 0x8,
    /// Asks for a Pong.
    Ping = 0x9,
    /// Answers a Ping, or comes unasked.
    Pong = 0xa,
}

impl Opcode {
    /// The opcode with these four bits, if there is one.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }

    /// True for Close, Ping and Pong: they are never fragmented, carry 125 bytes at most, and may come between the
    /// fragments of a message (section 5.5).
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// What stands before a frame's payload (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// This is the last frame of its message.
    pub fin: bool,
    /// The reserved bits, where they stand in the first byte: 0x40, 0x20 and 0x10 for RSV1, RSV2 and RSV3. 0 without
    /// extensions.
    pub rsv: u8,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key, present in what clients send and only there.
    pub masking: Option<[u8; 4]>,
    /// The length of the payload, in bytes. The top bit is never set.
    pub length: u64,
}

impl Header {
    /// That of a frame which is all of its message, or a control frame. Not masked yet.
    #[inline]
    pub(crate) fn whole(opcode: Opcode, length: usize) -> Self {
        Self { fin: true, rsv: 0, opcode, masking: None, length: length as u64 }
    }

    /// Decodes one frame header from the front of `input`.
    ///
    /// Returns the header and the bytes it took, or `None` when `input` ends inside it: call again with the same bytes
    /// and more. `receiver` is our side of the connection, `extensions` the reserved bits (as in [`rsv`](Self::rsv))
    /// that negotiated extensions give a meaning.
    ///
    /// # Errors
    ///
    /// Every mistake that shows in the header alone. Whether the frame is in its place (section 5.4) is for the
    /// [`Receiver`](super::Receiver) to say.
    pub fn decode(
        input: &[u8],
        receiver: Side,
        extensions: u8,
    ) -> Result<Option<(Self, usize)>, ProtocolError> {
        let &[b0, b1, ref rest @ ..] = input else {
            return Ok(None);
        };
        let rsv = b0 & RSV;
        if rsv & !extensions != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = Opcode::from_bits(b0 & 0x0f).ok_or(ProtocolError::Opcode)?;
        let masked = b1 & MASK != 0;
        if masked != (receiver == Side::Server) {
            return Err(ProtocolError::Masking);
        }
        let fin = b0 & FIN != 0;
        if opcode.is_control() && !fin {
            return Err(ProtocolError::FragmentedControl);
        }
        if opcode.is_control() && b1 & !MASK > 125 {
            return Err(ProtocolError::LongControl);
        }
        let Some((length, rest)) = decode_length(b1 & !MASK, rest)? else {
            return Ok(None);
        };
        let (masking, rest) = match (masked, rest.split_first_chunk()) {
            (false, _) => (None, rest),
            (true, Some((key, rest))) => (Some(*key), rest),
            (true, None) => return Ok(None),
        };
        Ok(Some((Self { fin, rsv, opcode, masking, length }, input.len() - rest.len())))
    }

    /// Encodes it, in as few bytes as its length allows.
    ///
    /// # Panics
    ///
    /// If the top bit of [`length`](Self::length) is set.
    #[inline]
    pub fn encode(&self) -> HeaderBytes {
        assert!(self.length >> 63 == 0, "the top bit of a length must not be set");
        let mut bytes = [0; MAX_HEADER];
        let mask = if self.masking.is_some() { MASK } else { 0 };
        bytes[0] = if self.fin { FIN } else { 0 } | self.rsv & RSV | self.opcode as u8;
        let mut len = match self.length {
            0..=125 => {
                bytes[1] = mask | self.length as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = mask | 126;
                bytes[2..4].copy_from_slice(&(self.length as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = mask | 127;
                bytes[2..10].copy_from_slice(&self.length.to_be_bytes());
                10
            }
        };
        if let Some(key) = self.masking {
            bytes[len..len + 4].copy_from_slice(&key);
            len += 4;
        }
        HeaderBytes { bytes, len: len as u8 }
    }
}

/// A frame header as it goes over the wire, so that a large payload can be written behind it without being copied.
#[derive(Clone, Copy, Debug)]
pub struct HeaderBytes {
    bytes: [u8; MAX_HEADER],
    len: u8,
}

impl HeaderBytes {
    /// The 2 to 14 bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for HeaderBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The length that `short`, the seven bits of it in the second byte, and the front of `rest` give, and what follows;
/// `None` if `rest` ends too early.
fn decode_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    match short {
        126 => {
            let Some((length, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            let length = u16::from_be_bytes(*length);
            if length < 126 {
                return Err(ProtocolError::LengthNotMinimal);
            }
            Ok(Some((length.into(), rest)))
        }
        127 => {
            let Some((length, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            let length = u64::from_be_bytes(*length);
            if length >> 63 != 0 {
                return Err(ProtocolError::LengthTopBit);
            }
            if length <= 0xffff {
                return Err(ProtocolError::LengthNotMinimal);
            }
            Ok(Some((length, rest)))
        }
        length => Ok(Some((length.into(), rest))),
    }
}

/// What the payload of a control frame may have (section 5.5).
pub(crate) const MAX_CONTROL: usize = 125;
/// Two bytes, eight of length, four of masking key.
const MAX_HEADER: usize = 14;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const MASK: u8 = 0x80;
pub(crate) const RSV: u8 = 0x70;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(input: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
        Header::decode(input, Side::Server, 0)
    }

    fn client(input: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
        Header::decode(input, Side::Client, 0)
    }

    #[test]
    fn every_header_comes_back_and_every_part_of_it_is_not_yet_one() {
        let opcodes =
            [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];
        for opcode in opcodes {
            for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, u64::MAX >> 1] {
                for (receiver, masking) in [(Side::Server, Some([1, 2, 3, 4])), (Side::Client, None)] {
                    for fin in [true, false] {
                        if opcode.is_control() && (!fin || length > 125) {
                            continue;
                        }
                        let header = Header { fin, rsv: 0, opcode, masking, length };
                        let bytes = header.encode();
                        let bytes = bytes.as_bytes();
                        let extra = [bytes, b"payload"].concat();
                        assert_eq!(Header::decode(&extra, receiver, 0), Ok(Some((header, bytes.len()))));
                        for end in 0..bytes.len() {
                            assert_eq!(Header::decode(&bytes[..end], receiver, 0), Ok(None));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_have_one_encoding() {
        let encoded = |length| {
            let header = Header { fin: true, rsv: 0, opcode: Opcode::Binary, masking: None, length };
            header.encode().as_bytes().to_vec()
        };
        assert_eq!(encoded(125), [0x82, 125]);
        assert_eq!(encoded(126), [0x82, 126, 0, 126]);
        assert_eq!(encoded(256), [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(encoded(0xffff), [0x82, 126, 0xff, 0xff]);
        assert_eq!(encoded(65536), [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(client(&[0x82, 126, 0, 125]), Err(ProtocolError::LengthNotMinimal));
        assert_eq!(client(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Err(ProtocolError::LengthNotMinimal));
        assert_eq!(client(&[0x82, 127, 0x80, 0, 0, 0, 0, 1, 0, 0]), Err(ProtocolError::LengthTopBit));
    }

    #[test]
    fn the_first_two_bytes_are_judged_at_once() {
        for b0 in 0..=255_u8 {
            let opcode = b0 & 0x0f;
            let result = client(&[b0, 0]);
            if b0 & RSV != 0 {
                assert_eq!(result, Err(ProtocolError::ReservedBits));
            } else if matches!(opcode, 3..=7 | 11..=15) {
                assert_eq!(result, Err(ProtocolError::Opcode));
            } else if opcode >= 8 && b0 & FIN == 0 {
                assert_eq!(result, Err(ProtocolError::FragmentedControl));
            } else {
                assert!(matches!(result, Ok(Some((_, 2)))));
            }
        }
        assert_eq!(client(&[0x81, 0x80]), Err(ProtocolError::Masking));
        assert_eq!(server(&[0x81, 0x00]), Err(ProtocolError::Masking));
        assert_eq!(client(&[0x89, 126]), Err(ProtocolError::LongControl));
        assert_eq!(client(&[0x89, 127]), Err(ProtocolError::LongControl));
    }

    #[test]
    fn a_negotiated_bit_passes() {
        let (header, _) = Header::decode(&[0xc1, 0], Side::Client, 0x40).unwrap().unwrap();
        assert_eq!(header.rsv, 0x40);
        assert_eq!(Header::decode(&[0xe1, 0], Side::Client, 0x40), Err(ProtocolError::ReservedBits));
        assert_eq!(header.encode().as_bytes(), [0xc1, 0]);
    }
}
