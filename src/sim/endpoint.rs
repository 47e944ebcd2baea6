//! The other side of a connection: bytes that a test sends and reads.

use super::network::Network;
use super::stream::{End, Stream};
use super::wire::{Answer, Frame};
use crate::Peer;
use std::fmt;

/// The test's end of a simulated connection.
///
/// It sends any number of bytes, which follow as there is room, and reads whatever comes, unless
/// [told](Self::stop_reading) not to. Bytes travel when the world takes a turn. Dropping it closes it.
pub struct Endpoint {
    network: Network,
    id: u64,
    side: usize,
}

impl Endpoint {
    pub(super) fn new(network: Network, id: u64, side: usize) -> Self {
        Self { network, id, side }
    }

    /// Its address, as the other side sees it.
    pub fn address(&self) -> Peer {
        self.end(|end| end.address.clone())
    }

    /// Sends bytes; none any more once this side has [finished](Self::finish).
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream(|stream, side| stream.endpoint_sends(side, bytes.as_ref()));
    }

    /// How many bytes wait because the other side does not read.
    pub fn unsent(&self) -> usize {
        self.end(|end| end.unsent())
    }

    /// What has come and not been taken.
    pub fn received(&self) -> Vec<u8> {
        self.pull();
        self.end(|end| end.taken.iter().copied().collect())
    }

    /// Takes what has come.
    pub fn take(&mut self) -> Vec<u8> {
        self.pull();
        self.end(|end| end.taken.drain(..).collect())
    }

    /// Whether the other side has ended, in whichever way, and everything before that was read.
    pub fn at_end(&self) -> bool {
        self.pull();
        self.end(|end| end.is_at_end())
    }

    /// Whether the connection was reset.
    pub fn was_reset(&self) -> bool {
        self.end(|end| end.is_reset())
    }

    /// Ends this side once everything was sent, and reads on.
    pub fn finish(&mut self) {
        self.stream(Stream::endpoint_finishes);
    }

    /// Closes. What was sent still arrives; what had come and was not read makes it a reset, as TCP does.
    pub fn close(self) {
        drop(self);
    }

    /// Resets: what was not read yet on the other side may be lost ([`Chaos::lost_on_reset`](super::Chaos)).
    pub fn reset(self) {
        self.stream(Stream::set_zero_linger);
    }

    /// Reads no more, so that the other side's writes come to a stop.
    pub fn stop_reading(&mut self) {
        self.read_at_most(0);
    }

    /// Reads `bytes` more, then no more.
    pub fn read_at_most(&mut self, bytes: usize) {
        self.end(|end| end.allowance = Some(bytes));
    }

    /// Reads whatever comes.
    pub fn resume_reading(&mut self) {
        self.end(|end| end.allowance = None);
    }

    /// Sends a GET request for `target` from the Host `localhost`.
    pub fn get(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }

    /// The next response, when all of it has come. Use [`next_head`](Self::next_head) after HEAD.
    pub fn next_answer(&mut self) -> Option<Answer> {
        let at_end = self.at_end();
        self.end(|end| Answer::take(&mut end.taken, at_end))
    }

    /// The head of the next response; its content comes as bytes.
    pub fn next_head(&mut self) -> Option<Answer> {
        self.pull();
        self.end(|end| Answer::take_head(&mut end.taken))
    }

    /// Sends a valid opening handshake for `target` (RFC 6455, section 4.1).
    pub fn upgrade(&mut self, target: &str) {
        self.upgrade_with(target, "");
    }

    /// The same with more fields, each a line that ends in CR LF.
    pub fn upgrade_with(&mut self, target: &str, fields: &str) {
        self.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        ));
    }

    /// Takes the answer to the opening handshake: whether it has come.
    ///
    /// # Panics
    ///
    /// Panics when it is not the right one.
    pub fn upgraded(&mut self) -> bool {
        let Some(head) = self.next_head() else { return false };
        assert_eq!(head.status, 101, "refused: {head:?}");
        assert_eq!(head.field("sec-websocket-accept"), Some(ACCEPT), "{head:?}");
        for (name, expected) in [("upgrade", "websocket"), ("connection", "upgrade")] {
            let value = head.field(name).unwrap_or_default();
            assert!(value.eq_ignore_ascii_case(expected), "{name}: {head:?}");
        }
        true
    }

    /// Sends a frame, masked by a key from the world's seed.
    pub fn send_frame(&mut self, frame: &Frame) {
        let mut key = [0; 4];
        self.network.state().odds.random.fill(&mut key);
        self.send(frame.masked(key));
    }

    /// Sends a text message.
    pub fn send_text(&mut self, text: &str) {
        self.send_frame(&Frame::text(text));
    }

    /// Sends a binary message.
    pub fn send_binary(&mut self, payload: impl AsRef<[u8]>) {
        self.send_frame(&Frame::binary(payload));
    }

    /// Sends a Ping.
    pub fn send_ping(&mut self, payload: impl AsRef<[u8]>) {
        self.send_frame(&Frame::ping(payload));
    }

    /// Sends a Close.
    pub fn send_close(&mut self, code: u16, reason: &str) {
        self.send_frame(&Frame::close(code, reason));
    }

    /// The next frame, when all of it has come.
    ///
    /// # Panics
    ///
    /// Panics when it is masked, which a server must not do.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.pull();
        self.end(|end| Frame::take(&mut end.taken))
    }

    /// Reads what is there, as far as it reads at all.
    fn pull(&self) {
        let mut state = self.network.state();
        let stream = state.stream(self.id);
        let moved = stream.take(self.side, stream.ends[self.side].readable());
        state.activity += u64::from(moved);
    }

    fn stream<T>(&self, act: impl FnOnce(&mut Stream, usize) -> T) -> T {
        act(self.network.state().stream(self.id), self.side)
    }

    fn end<T>(&self, act: impl FnOnce(&mut End) -> T) -> T {
        self.stream(|stream, side| act(&mut stream.ends[side]))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.pull();
        let mut state = self.network.state();
        let state = &mut *state;
        state.activity += 1;
        state.log.line(format_args!("endpoint {} closes", self.id));
        if let Some(stream) = state.streams.get_mut(&self.id) {
            stream.endpoint_closes(self.side, &mut state.odds);
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint {} ({})", self.id, self.address())
    }
}

/// Somebody in the world who listens, for lodger to connect to.
pub struct Server {
    network: Network,
    id: u64,
}

impl Server {
    pub(super) fn new(network: Network, id: u64) -> Self {
        Self { network, id }
    }

    /// What it listens on.
    pub fn address(&self) -> Peer {
        self.network.state().listeners[&self.id].address.clone()
    }

    /// The next connection that was made to it.
    pub fn accept(&mut self) -> Option<Endpoint> {
        let mut state = self.network.state();
        let id = state.listeners.get_mut(&self.id)?.backlog.pop_front()?;
        state.stream(id).ends[1].holder = super::stream::Holder::Endpoint;
        drop(state);
        Some(Endpoint::new(self.network.clone(), id, 1))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.network.state().remove_listener(self.id);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server ({})", self.address())
    }
}

/// The key and its answer in RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
