//! A message encoded once, for many connections.

use super::{Message, MessageKind};
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
#[derive(Clone)]
pub struct Shared {
    /// The frame as a server sends it: not masked.
    frame: Arc<[u8]>,
    payload_at: u8,
    kind: MessageKind,
}

impl Shared {
    /// Encodes `message` (RFC 6455, section 5.6).
    pub fn new(message: Message<'_>) -> Self {
        let payload = message.as_bytes();
        let mut frame = Vec::with_capacity(payload.len() + 10);
        super::encode(&mut frame, message, None);
        let payload_at = (frame.len() - payload.len()) as u8;
        Self { frame: frame.into(), payload_at, kind: message.kind() }
    }

    /// Text or binary.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The message's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.frame[self.payload_at.into()..]
    }

    /// Header and payload.
    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        self.frame.split_at(self.payload_at.into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.frame
    }

    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { frame: bytes.into(), payload_at: 0, kind: MessageKind::Binary }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({:?}, {} bytes)", self.kind, self.payload().len())
    }
}

impl From<Message<'_>> for Shared {
    fn from(message: Message<'_>) -> Self {
        Self::new(message)
    }
}
