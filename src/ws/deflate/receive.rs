//! The receiving half of a connection with permessage-deflate (RFC 7692, sections 6.2 and 7.2.2).

use super::{Decompressor, Decompressors, Parameters, RSV, Step};
use crate::memory;
use crate::ws::receive::{Decoded, Incoming, Next, Spare};
use crate::ws::{Event, ReceiveError, Receiver, Settings, Side};

/// What a connection needs to decompress what it receives. It has a decompressor of its own only with context takeover, and
/// while a compressed message is under way.
#[derive(Debug)]
pub struct Inflater {
    takes_over: bool,
    decompressor: Option<Box<Decompressor>>,
    /// Bytes that were inflated, and what became of them.
    counted: (u64, u64),
}

impl Inflater {
    /// `side` is ours. Allocates nothing.
    pub fn new(parameters: &Parameters, side: Side) -> Self {
        let peer = match side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        Self { takes_over: parameters.takes_over(peer), decompressor: None, counted: (0, 0) }
    }

    /// Whether messages may refer to those before them.
    pub fn takes_over(&self) -> bool {
        self.takes_over
    }

    /// How many bytes of compressed payload were received, and how many that gave.
    pub fn counted(&self) -> (u64, u64) {
        self.counted
    }

    /// Gives up the decompressor of a connection that has ended.
    pub fn release(&mut self, pool: &mut Decompressors) {
        if let Some(decompressor) = self.decompressor.take() {
            pool.give(decompressor);
        }
    }

    /// What is held, in bytes.
    pub fn memory(&self) -> usize {
        if self.decompressor.is_some() { Decompressor::MEMORY } else { 0 }
    }
}

impl Receiver {
    /// Like [`next`](Self::next), for a connection on which permessage-deflate has been agreed on: RSV1 marks a compressed
    /// message, on its first frame only.
    ///
    /// [`Settings::max_message`] bounds what a message is inflated to, [`Settings::max_frame`] what comes over the wire. A
    /// message that is received whole is inflated as it comes, up to the limit and no further. Received in pieces, each
    /// call inflates one, of 16 KiB at most, and may leave input that is usable: go on until there is no event.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next); in addition [`ProtocolError::InvalidDeflate`](crate::ws::ProtocolError::InvalidDeflate) for a message that is not what a compressor
    /// makes.
    #[inline]
    pub fn next_inflated<'a>(
        &'a mut self,
        input: &'a mut [u8],
        settings: &Settings,
        inflater: &mut Inflater,
        pool: &'a mut Decompressors,
    ) -> Result<(usize, Option<Event<'a>>), ReceiveError> {
        let (mut allowance, mut frames) = (usize::MAX, u32::MAX);
        let spare = &mut Spare::default();
        self.next_inflated_with(input, settings, inflater, pool, spare, &mut allowance, &mut frames)
    }

    /// The same, with the memory of collected messages taken from `spare` and given back to it. About so many bytes are inflated
    /// as `allowance` says, and taken from it, and so are frames without an event from `frames`; when one is 0, no event means
    /// nothing.
    #[expect(clippy::too_many_arguments, reason = "each is borrowed from another place")]
    #[inline]
    pub(crate) fn next_inflated_with<'a>(
        &'a mut self,
        input: &'a mut [u8],
        settings: &Settings,
        inflater: &mut Inflater,
        pool: &'a mut Decompressors,
        spare: &mut Spare,
        allowance: &mut usize,
        frames: &mut u32,
    ) -> Result<(usize, Option<Event<'a>>), ReceiveError> {
        let inflating = Inflating { inflater, pool, written: 0, allowance };
        self.next_through(input, settings, spare, frames, inflating)
    }
}

/// One call's way from compressed payload to a piece of a message.
struct Inflating<'a, 'b> {
    inflater: &'b mut Inflater,
    pool: &'a mut Decompressors,
    /// What lies in the pool's output.
    written: usize,
    allowance: &'b mut usize,
}

impl<'a> Incoming<'a> for Inflating<'a, '_> {
    const RSV: u8 = RSV;

    fn decode(&mut self, input: &[u8], last: bool) -> Result<Decoded, ReceiveError> {
        let decompressor = match &mut self.inflater.decompressor {
            Some(decompressor) => decompressor,
            none => {
                if self.pool.is_empty() {
                    memory::has(Decompressor::MEMORY)?;
                }
                none.insert(self.pool.take())
            }
        };
        let progress = decompressor.decompress(input, last, self.pool.output())?;
        self.written = progress.written;
        *self.allowance = self.allowance.saturating_sub(progress.written);
        self.inflater.counted.0 += progress.used as u64;
        self.inflater.counted.1 += progress.written as u64;
        let next = match progress.state {
            Step::Starved => Next::Input,
            Step::Full => Next::Again,
            Step::End => Next::Nothing,
        };
        if next == Next::Nothing && !self.inflater.takes_over {
            self.inflater.release(self.pool);
        }
        Ok(Decoded { used: progress.used, next })
    }

    fn is_exhausted(&self) -> bool {
        *self.allowance == 0
    }

    fn decoded(&self) -> &[u8] {
        &self.pool.output[..self.written]
    }

    fn into_decoded(self) -> &'a [u8] {
        &self.pool.output[..self.written]
    }
}
