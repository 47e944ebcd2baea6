//! What the codec hands out: messages, pieces of messages, and control frames.

use super::frame::Opcode;
use super::{CloseFrame, ProtocolError, utf8};

/// The two kinds of messages (RFC 6455, section 5.6).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MessageKind {
    /// UTF-8.
    #[doc(alias = "LWS_WRITE_TEXT")]
    Text,
    /// Any bytes.
    #[doc(alias = "LWS_WRITE_BINARY")]
    Binary,
}

impl MessageKind {
    /// The opcode of the message's first frame.
    #[inline]
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// A whole message, borrowed (RFC 6455, section 5.6).
///
/// ```
/// use lodger::ws::{Message, MessageKind};
///
/// assert_eq!(Message::from("text").kind(), MessageKind::Text);
/// assert_eq!(Message::from(b"\x00\xff").as_bytes(), [0x00, 0xff]);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// UTF-8.
    #[doc(alias = "LWS_WRITE_TEXT")]
    Text(&'a str),
    /// Any bytes.
    #[doc(alias = "LWS_WRITE_BINARY")]
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// A message of this kind with this payload, if that is text where it has to be.
    #[inline(always)]
    pub(crate) fn new(kind: MessageKind, payload: &'a [u8]) -> Result<Self, ProtocolError> {
        match kind {
            MessageKind::Binary => Ok(Self::Binary(payload)),
            MessageKind::Text => utf8::validate(payload).map(Self::Text),
        }
    }

    /// Text or binary.
    #[inline]
    #[doc(alias = "lws_frame_is_binary")]
    pub fn kind(self) -> MessageKind {
        match self {
            Self::Text(_) => MessageKind::Text,
            Self::Binary(_) => MessageKind::Binary,
        }
    }

    /// The payload.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The length of the payload, in bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.as_bytes().len()
    }

    /// True if there is no payload.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a str> for Message<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    #[inline]
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Message<'a> {
    #[inline]
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Message<'a> {
    #[inline]
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

/// A part of a message, handed out as it arrives: what [`Receive::Pieces`](super::Receive::Pieces) gives.
///
/// Pieces are cut where reads and frames end (RFC 6455, section 5.4 gives fragments no meaning of their own), so those
/// of a text may be cut within a character. All of them together are valid UTF-8 (section 8.1). A piece is empty
/// only where it is the first or the last.
#[doc(alias = "LWS_CALLBACK_RECEIVE")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece<'a> {
    /// What the message is.
    pub kind: MessageKind,
    /// The bytes.
    pub payload: &'a [u8],
    /// The message begins with this piece.
    #[doc(alias = "lws_is_first_fragment")]
    pub first: bool,
    /// The message ends with this piece.
    #[doc(alias = "lws_is_final_fragment")]
    pub last: bool,
    /// How many bytes of this frame are still to come.
    #[doc(alias = "lws_remaining_packet_payload")]
    pub remaining_in_frame: u64,
    /// The piece is of the message's last frame (FIN is set).
    pub final_fragment: bool,
}

/// What [`Receiver::next`](super::Receiver::next) found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event<'a> {
    /// A whole message.
    #[doc(alias = "LWS_CALLBACK_RECEIVE")]
    #[doc(alias = "LWS_CALLBACK_CLIENT_RECEIVE")]
    Message(Message<'a>),
    /// A part of a message, with [`Receive::Pieces`](super::Receive::Pieces) only.
    #[doc(alias = "LWS_CALLBACK_RECEIVE")]
    Piece(Piece<'a>),
    /// To be answered by a Pong with the same payload, as soon as is practical (RFC 6455, section 5.5.2).
    Ping(&'a [u8]),
    /// The answer to a Ping, or a one-way heartbeat (section 5.5.3).
    #[doc(alias = "LWS_CALLBACK_RECEIVE_PONG")]
    Pong(&'a [u8]),
    /// The peer closes; nothing it sends after this counts (section 5.5.1). `None` if it gave no status code.
    #[doc(alias = "LWS_CALLBACK_WS_PEER_INITIATED_CLOSE")]
    Close(Option<CloseFrame<'a>>),
}
