//! What can be wrong with what a peer sent, and with what the application wants to send.

use super::CloseCode;
use crate::memory::OutOfMemory;
use std::fmt;

/// How the peer broke RFC 6455. Every variant fails the connection (section 7.1.7).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProtocolError {
    /// A reserved bit was set that no negotiated extension gives a meaning (section 5.2).
    ReservedBits,
    /// The opcode is a reserved one: 3 to 7 or 11 to 15 (section 5.2).
    Opcode,
    /// A client frame came unmasked, or a server frame masked (section 5.1).
    Masking,
    /// The length took more bytes than it needs (section 5.2).
    LengthNotMinimal,
    /// The top bit of a 64-bit length was set (section 5.2).
    LengthTopBit,
    /// A Close, Ping or Pong was fragmented (section 5.5).
    FragmentedControl,
    /// A Close, Ping or Pong had more than 125 bytes (section 5.5).
    LongControl,
    /// A continuation frame came while no message was under way (section 5.4).
    ContinuationWithoutStart,
    /// A new message began before the last fragment of the one under way (section 5.4).
    MessageWithinMessage,
    /// A text message, or the reason of a Close, was not UTF-8 (section 8.1).
    InvalidUtf8,
    /// The body of a Close was a single byte: half a status code (section 5.5.1).
    CloseTooShort,
    /// A Close carried a status code that must not be sent (section 7.4).
    CloseCode,
    /// A compressed message is not what a compressor makes (RFC 7692, section 7.2.2).
    InvalidDeflate,
}

impl ProtocolError {
    /// The status code our Close carries for this error (section 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::InvalidDeflate => CloseCode::INVALID_PAYLOAD,
            Self::ReservedBits
            | Self::Opcode
            | Self::Masking
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::FragmentedControl
            | Self::LongControl
            | Self::ContinuationWithoutStart
            | Self::MessageWithinMessage
            | Self::CloseTooShort
            | Self::CloseCode => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedBits => "reserved bit set without an extension",
            Self::Opcode => "reserved opcode",
            Self::Masking => "frame masked or unmasked against the rule",
            Self::LengthNotMinimal => "payload length in more bytes than needed",
            Self::LengthTopBit => "payload length with its top bit set",
            Self::FragmentedControl => "fragmented control frame",
            Self::LongControl => "control frame of more than 125 bytes",
            Self::ContinuationWithoutStart => "continuation frame without a message under way",
            Self::MessageWithinMessage => "new message before the end of the one under way",
            Self::InvalidUtf8 => "text is not UTF-8",
            Self::CloseTooShort => "body of a close frame is one byte",
            Self::CloseCode => "status code that must not be sent",
            Self::InvalidDeflate => "compressed message is invalid",
        })
    }
}

impl std::error::Error for ProtocolError {}

/// A frame or message larger than what [`Settings`](super::Settings) allow. The peer gets Close 1009 (section 7.4.1).
///
/// It is known from the header, before any of the excess is taken in; of a compressed message, while it is inflated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooLarge {
    /// What was announced, in bytes: the frame's payload, or that of the message's frames so far, this one included. What a
    /// compressed message comes to is not known: one byte more than is allowed.
    pub size: u64,
    /// What is allowed.
    pub limit: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes announced, {} allowed", self.size, self.limit)
    }
}

impl std::error::Error for TooLarge {}

/// Why [`Receiver::next`](super::Receiver::next) gave up. The connection has to be failed (section 7.1.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// The peer kept to the protocol, but sends more than is allowed.
    TooLarge(TooLarge),
    /// The system has no memory for the message. What was kept of it is let go.
    OutOfMemory,
}

impl ReceiveError {
    /// The status code our Close carries for this error (section 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol(error) => error.close_code(),
            // It is too big for what is left, whatever is allowed.
            Self::TooLarge(_) | Self::OutOfMemory => CloseCode::TOO_BIG,
        }
    }
}

impl From<ProtocolError> for ReceiveError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<TooLarge> for ReceiveError {
    fn from(error: TooLarge) -> Self {
        Self::TooLarge(error)
    }
}

impl From<OutOfMemory> for ReceiveError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => error.fmt(f),
            Self::TooLarge(error) => error.fmt(f),
            Self::OutOfMemory => f.write_str("no memory for the message"),
        }
    }
}

impl std::error::Error for ReceiveError {}

/// Why a piece of a message cannot be sent. Nothing was encoded, and the message under way can be continued.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SendPieceError {
    /// The message under way is of the other kind; its pieces must all be of one (RFC 6455, section 5.4).
    OtherKind,
    /// With this piece the text is not UTF-8, or ends within a character (section 5.6). A piece that is not the last may
    /// end within a character.
    InvalidUtf8,
}

impl fmt::Display for SendPieceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherKind => "the message under way is of the other kind",
            Self::InvalidUtf8 => "text is not UTF-8",
        })
    }
}

impl std::error::Error for SendPieceError {}

/// A Ping, Pong or Close may carry 125 bytes (RFC 6455, section 5.5). Nothing was encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ControlTooLong {
    /// The bytes it would have carried.
    pub size: usize,
}

impl fmt::Display for ControlTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in a control frame, 125 allowed", self.size)
    }
}

impl std::error::Error for ControlTooLong {}
