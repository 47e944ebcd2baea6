//! What lies between the bytes of a link and its socket: nothing, or TLS. The rest of the crate is the same for both, and knows
//! of neither.

#![cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without TLS there is no transport"))]

use crate::memory::{self, OutOfMemory};

#[cfg(feature = "tls")]
pub(crate) use crate::tls::{Server, TlsError, transport::Tls};
#[cfg(not(feature = "tls"))]
pub(crate) use none::{Server, Tls, TlsError};

/// What a step of a transport brought.
#[derive(Default)]
pub(crate) struct Step {
    /// Bytes that were decrypted, and in how many records they came.
    pub(crate) plain: usize,
    pub(crate) records: usize,
    /// The handshake has been completed.
    pub(crate) secured: bool,
    /// The connection has failed; what tells the peer so, if there is anything to say, was written.
    pub(crate) error: Option<TlsError>,
}

/// What is known of the name that a client asks for, by which its site is chosen.
pub(crate) enum Hello {
    /// It was asked before, or is not asked.
    Known,
    /// More has to come first.
    More,
    /// This is it; it may have asked for none.
    Name(Option<Box<str>>),
}

/// What is kept of the memory that records were made in: enough for messages of 512 KiB.
const MOST_KEPT: usize = 1024 * 1024;

/// Records on their way out. The bytes behind the used ones stay as they are, so that nothing is filled twice.
#[derive(Default)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    length: usize,
}

impl Records {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// They have been written, or queued. Memory that only a large message needs is given up.
    pub(crate) fn clear(&mut self) {
        self.length = 0;
        if self.bytes.capacity() > MOST_KEPT {
            self.bytes = Vec::new();
        }
    }

    /// Makes sure of memory for `length` bytes, encrypted: each record of the shortest that are full has some thirty more.
    pub(crate) fn reserve(&mut self, length: usize) -> Result<(), OutOfMemory> {
        let end = self.length + length + length / 32 + 1024;
        let more = end.saturating_sub(self.bytes.len());
        memory::reserve(&mut self.bytes, more)
    }

    /// Room for `length` bytes behind those that are there.
    pub(crate) fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.length + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.length..end]
    }

    /// So much of the room was used.
    pub(crate) fn used(&mut self, length: usize) {
        self.length += length;
    }
}

/// The buffers that all links with a transport share.
#[derive(Default)]
pub(crate) struct Buffers {
    /// What was read and not decrypted.
    pub(crate) input: Vec<u8>,
    pub(crate) output: Records,
    /// Where small pieces are put together, so that they share a record.
    pub(crate) joined: Vec<u8>,
}

/// Without TLS there is no transport.
#[cfg(not(feature = "tls"))]
mod none {
    use super::{Hello, Records, Step};

    pub(crate) enum Tls {}

    #[derive(Clone, Debug)]
    pub(crate) struct Server;

    pub(crate) type TlsError = std::io::Error;

    impl Server {
        pub(crate) fn generation(&self) -> u64 {
            0
        }

        pub(crate) fn next_report(&self, _: std::time::SystemTime) -> Option<(i64, std::time::Duration)> {
            None
        }
    }

    impl Tls {
        /// There is none.
        pub(crate) fn server() -> Option<Self> {
            None
        }

        pub(crate) fn is_secured(&self) -> bool {
            match *self {}
        }

        pub(crate) fn take_secured(&mut self) -> bool {
            match *self {}
        }

        pub(crate) fn peer_has_closed(&self) -> bool {
            match *self {}
        }

        pub(crate) fn truncated(&self) -> TlsError {
            match *self {}
        }

        pub(crate) fn fail_later(&mut self, _: TlsError, _: bool) {
            match *self {}
        }

        pub(crate) fn has_failed(&self) -> bool {
            match *self {}
        }

        pub(crate) fn take_failure(&mut self) -> Option<(TlsError, bool)> {
            match *self {}
        }

        pub(crate) fn waiting(&self) -> usize {
            match *self {}
        }

        pub(crate) fn kept(&self) -> &[u8] {
            match *self {}
        }

        pub(crate) fn at_once(&self) -> usize {
            match *self {}
        }

        pub(crate) fn read_at_once(&mut self, _: usize) {
            match *self {}
        }

        pub(crate) fn forget_early(&mut self) {
            match *self {}
        }

        pub(crate) fn hello(&mut self, _: &[u8]) -> Hello {
            match *self {}
        }

        pub(crate) fn choose(&mut self, _: &Server, _: &mut Records) -> Result<(), TlsError> {
            match *self {}
        }

        pub(crate) fn receive(&mut self, _: &mut [u8], _: &mut [u8], _: &mut Records) -> Step {
            match *self {}
        }

        pub(crate) fn encrypt(
            &mut self,
            _: &[&[u8]],
            _: &mut Vec<u8>,
            _: &mut Records,
        ) -> Result<(), TlsError> {
            match *self {}
        }

        pub(crate) fn encrypt_early(&mut self, _: &mut Records) -> Result<(), TlsError> {
            match *self {}
        }

        pub(crate) fn close(&mut self, _: &mut Records) {
            match *self {}
        }
    }
}
