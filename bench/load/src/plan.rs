//! What is said to a server and what it has to answer, made once.

use crate::answers::Expected;
use crate::tls;
use rustls::ClientConfig;
use std::sync::Arc;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Binary messages to an echo, over WebSocket.
    WebSocket,
    /// The same over TLS.
    Secure,
    /// The same as text.
    Text,
    /// Bytes to an echo without a protocol.
    Raw,
    /// `GET` of a page, on a connection that stays.
    Http,
}

impl Kind {
    /// The kind of this name: `ws`, `wss`, `text`, `raw` or `http`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ws" => Self::WebSocket,
            "wss" => Self::Secure,
            "text" => Self::Text,
            "raw" => Self::Raw,
            "http" => Self::Http,
            _ => return None,
        })
    }
}

/// What all connections of a measurement say and expect.
pub struct Plan {
    /// Said first and answered by 101, where there is an opening handshake.
    pub(crate) opening: Option<Vec<u8>>,
    /// As many requests, one after another, as may be in flight.
    pub(crate) block: Vec<u8>,
    /// The length of one.
    pub(crate) one: usize,
    pub(crate) expected: Expected,
    /// How the connections are encrypted, if they are.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// The accept key that belongs to the key of every handshake here (RFC 6455, section 1.3).
pub(crate) const ACCEPT_KEY: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const MASKING_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

impl Plan {
    /// Messages of `size` bytes, `depth` at once. For [`Kind::Http`], `page` is what the server answers.
    pub fn new(kind: Kind, size: usize, depth: usize, page: &[u8]) -> Self {
        let payload: Vec<u8> = (0..size).map(|at| b' ' + (at % 89) as u8).collect();
        let (opening, request, expected) = match kind {
            Kind::WebSocket | Kind::Secure => {
                (Some(upgrade()), frame(2, &payload, Some(MASKING_KEY)), Expected::message(2, payload))
            }
            Kind::Text => {
                (Some(upgrade()), frame(1, &payload, Some(MASKING_KEY)), Expected::message(1, payload))
            }
            Kind::Raw => (None, payload.clone(), Expected::Bytes(payload)),
            Kind::Http => (None, get(), Expected::Page(page.to_vec())),
        };
        let one = request.len();
        let tls = (kind == Kind::Secure).then(|| tls::config(false));
        Self { opening, block: request.repeat(depth), one, expected, tls }
    }

    pub(crate) fn depth(&self) -> usize {
        self.block.len() / self.one
    }
}

pub(crate) fn upgrade() -> Vec<u8> {
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        .to_vec()
}

fn get() -> Vec<u8> {
    b"GET /index.html HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: lodger-bench\r\nAccept: */*\r\n\r\n".to_vec()
}

/// One frame (RFC 6455, section 5.2), final and of this opcode.
pub(crate) fn frame(opcode: u8, payload: &[u8], masking_key: Option<[u8; 4]>) -> Vec<u8> {
    let mask = if masking_key.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(mask | short as u8),
        long @ 126..0x1_0000 => {
            frame.push(mask | 126);
            frame.extend((long as u16).to_be_bytes());
        }
        longest => {
            frame.push(mask | 127);
            frame.extend((longest as u64).to_be_bytes());
        }
    }
    let key = masking_key.unwrap_or_default();
    if masking_key.is_some() {
        frame.extend(key);
    }
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_specification() {
        assert_eq!(frame(1, b"Hello", None), b"\x81\x05Hello");
        assert_eq!(
            frame(1, b"Hello", Some(MASKING_KEY)),
            [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]
        );
        assert_eq!(frame(2, &[0; 256], None)[..4], [0x82, 0x7e, 1, 0]);
        assert_eq!(frame(2, &[0; 65536], None)[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
