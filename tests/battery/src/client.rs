//! A peer, with a blocking socket.

use super::PATIENCE;
use super::secure::Tls;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Client {
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    inbox: Vec<u8>,
    taken: usize,
}

/// One frame as it came.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

pub(crate) const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A frame as a client sends it.
pub(crate) fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = Vec::with_capacity(payload.len() + 14);
    bytes.push(u8::from(fin) << 7 | opcode);
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("it listens");
        stream.set_nodelay(true).expect("TCP");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let tls = Tls::begin(&mut stream);
        Self { stream, tls, inbox: Vec::new(), taken: 0 }
    }

    /// The same connection, for another thread to write.
    pub(crate) fn writer(&self) -> Self {
        let stream = self.stream.try_clone().expect("descriptors are left");
        Self { stream, tls: self.tls.clone(), inbox: Vec::new(), taken: 0 }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let sent = match &self.tls {
            Some(tls) => tls.send(&mut self.stream, bytes),
            None => self.stream.write_all(bytes),
        };
        sent.expect("the peer takes it");
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.send(&frame(true, TEXT, text.as_bytes()));
    }

    pub(crate) fn binary(&mut self, payload: &[u8]) {
        self.send(&frame(true, BINARY, payload));
    }

    pub(crate) fn finish(&mut self) {
        if let Some(tls) = &self.tls {
            tls.finish(&mut self.stream).expect("the peer takes it");
        }
        self.stream.shutdown(Shutdown::Write).expect("connected");
    }

    /// The connection is over at once, by a reset.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket");
    }

    // Reading.

    fn left(&self) -> &[u8] {
        &self.inbox[self.taken..]
    }

    /// Reads once; false at the end, also at a reset.
    fn pull(&mut self) -> bool {
        if self.taken > 1 << 20 || self.taken == self.inbox.len() {
            self.inbox.drain(..self.taken);
            self.taken = 0;
        }
        let mut piece = [0; 1 << 16];
        loop {
            let read = match &self.tls {
                Some(tls) => tls.read(&mut self.stream),
                None => self.stream.read(&mut piece).map(|length| piece[..length].to_vec()),
            };
            match read {
                Ok(bytes) => {
                    self.inbox.extend(&bytes);
                    return !bytes.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("nothing comes: {error}"),
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let bytes = self.left()[..length].to_vec();
        self.taken += length;
        bytes
    }

    /// The next `length` bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.left().len() < length {
            assert!(self.pull(), "the end, {} bytes too early", length - self.left().len());
        }
        self.take(length)
    }

    /// Whatever comes up to the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.pull() {}
        self.take(self.left().len())
    }

    /// The head of a response.
    pub(crate) fn head(&mut self) -> String {
        loop {
            let end = self.left().windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                return String::from_utf8(self.take(end + 4)).expect("ASCII");
            }
            assert!(self.pull(), "the end within a head: {:?}", String::from_utf8_lossy(self.left()));
        }
    }

    /// A response with its content, whose length is told.
    pub(crate) fn response(&mut self) -> (String, Vec<u8>) {
        let head = self.head();
        let line = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let length = line.and_then(|length| length.parse().ok()).expect("a length");
        let content = self.bytes(length);
        (head, content)
    }

    pub(crate) fn upgraded(&mut self) {
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// The next frame; none at the end.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = parse(self.left()) {
                self.taken += length;
                return Some(frame);
            }
            if !self.pull() {
                return None;
            }
        }
    }

    /// The payload of the next message, which is to be one frame.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        let frame = self.next_frame().expect("a message, not the end");
        assert!(frame.fin && (frame.opcode == TEXT || frame.opcode == BINARY), "{frame:?}");
        frame.payload
    }

    #[track_caller]
    pub(crate) fn echo(&mut self, text: &str) {
        self.text(text);
        assert_eq!(String::from_utf8_lossy(&self.message()), text);
    }

    /// The closing handshake, from this side.
    pub(crate) fn close(mut self) {
        self.send(&frame(true, CLOSE, &1000_u16.to_be_bytes()));
        let answer = self.next_frame().expect("a Close");
        assert_eq!((answer.opcode, &answer.payload[..2]), (CLOSE, &1000_u16.to_be_bytes()[..]));
        self.finish();
        assert_eq!(self.rest(), b"");
    }
}

/// The frame that `bytes` begin with, and its length.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!((first & 0x70, second & 0x80), (0, 0), "a server sets no reserved bit and no mask");
    let (length, header) = match second {
        126 => (u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?).into(), 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?), 10),
        length => (length.into(), 2),
    };
    let end = header + usize::try_from(length).ok()?;
    let payload = bytes.get(header..end)?.to_vec();
    Some((Frame { fin: first & 0x80 != 0, opcode: first & 15, payload }, end))
}
