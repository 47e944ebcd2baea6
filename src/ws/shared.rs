//! A message encoded once, for many connections.

use super::extension::Forms;
use super::frame::RSV;
use super::{Header, Message, MessageKind};
use std::fmt;
use std::sync::Arc;

/// A message as one frame, encoded once and shared by all that send it ([`Conn::send_shared`](crate::Conn::send_shared),
/// [`Io::broadcast`](crate::Io::broadcast)). Cloning costs nothing; it may cross threads.
///
/// ```
/// use lodger::ws::{Message, Shared};
/// let frame = Shared::new(Message::Text("to all"));
/// assert_eq!(frame.clone().payload(), b"to all");
/// ```
///
/// Where permessage-deflate was agreed on, it is compressed once for all connections that need the same.
#[derive(Clone)]
pub struct Shared(Arc<Frame>);

struct Frame {
    /// As a server sends it: not masked. Shared apart from the rest, so that a queue which holds it does not hold the forms too.
    bytes: Arc<Vec<u8>>,
    payload_at: u8,
    kind: MessageKind,
    is_uncompressed: bool,
    forms: Forms,
}

impl Shared {
    /// Encodes `message` (RFC 6455, section 5.6).
    pub fn new(message: Message<'_>) -> Self {
        Self::encoded(message.kind(), 0, message.as_bytes())
    }

    /// The same for a message that goes uncompressed everywhere: one that holds a secret beside what somebody else has a say
    /// in, or is compressed already.
    #[doc(alias = "BREACH")]
    pub fn uncompressed(message: Message<'_>) -> Self {
        Self::from_frame(Frame { is_uncompressed: true, ..Frame::new(message.kind(), 0, message.as_bytes()) })
    }

    /// A frame with this payload, and these reserved bits.
    pub(crate) fn encoded(kind: MessageKind, rsv: u8, payload: &[u8]) -> Self {
        Self::from_frame(Frame::new(kind, rsv, payload))
    }

    fn from_frame(frame: Frame) -> Self {
        Self(Arc::new(frame))
    }

    /// Text or binary.
    pub fn kind(&self) -> MessageKind {
        self.0.kind
    }

    /// The message's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.0.bytes[self.0.payload_at.into()..]
    }

    /// Header and payload.
    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        self.0.bytes.split_at(self.0.payload_at.into())
    }

    /// The header, not masked.
    pub(crate) fn header(&self) -> Header {
        let rsv = self.0.bytes.first().map_or(0, |first| first & RSV);
        Header { rsv, ..Header::whole(self.0.kind.opcode(), self.payload().len()) }
    }

    pub(crate) fn bytes(&self) -> &Arc<Vec<u8>> {
        &self.0.bytes
    }

    /// What it takes in memory beside its bytes, the counts of those who share it included.
    pub(crate) const OVERHEAD: usize = size_of::<Frame>() + size_of::<Vec<u8>>() + 4 * size_of::<usize>();

    #[cfg_attr(not(feature = "deflate"), expect(dead_code, reason = "without permessage-deflate all are"))]
    pub(crate) fn is_uncompressed(&self) -> bool {
        self.0.is_uncompressed
    }

    /// What it becomes where it is compressed.
    #[cfg_attr(not(feature = "deflate"), expect(dead_code, reason = "without permessage-deflate nothing"))]
    pub(crate) fn forms(&self) -> &Forms {
        &self.0.forms
    }
}

impl Frame {
    fn new(kind: MessageKind, rsv: u8, payload: &[u8]) -> Self {
        let header = Header { rsv, ..Header::whole(kind.opcode(), payload.len()) }.encode();
        let bytes = Arc::new([header.as_bytes(), payload].concat());
        let payload_at = header.as_bytes().len() as u8;
        Self { bytes, payload_at, kind, is_uncompressed: false, forms: Forms::default() }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({:?}, {} bytes)", self.kind(), self.payload().len())
    }
}

impl From<Message<'_>> for Shared {
    fn from(message: Message<'_>) -> Self {
        Self::new(message)
    }
}
