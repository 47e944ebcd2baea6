//! What connections share: idle compressors and decompressors, and a bound on those that are not shared.

use super::{Compressor, Decompressor, Parameters, Setting};
use crate::ws::Side;

/// Idle compressors, for the connections that need one for a message only.
#[derive(Debug)]
pub struct Compressors {
    #[expect(clippy::vec_box, reason = "connections hold them as they are")]
    idle: Vec<Box<Compressor>>,
    most: usize,
    /// Where messages are compressed to before they become frames.
    scratch: Vec<u8>,
}

impl Compressors {
    /// Keeps at most so many; others are freed when they come back.
    pub fn new(most: usize) -> Self {
        Self { idle: Vec::new(), most, scratch: Vec::new() }
    }

    /// One with this setting that refers to nothing. Made if none is idle.
    pub fn take(&mut self, setting: Setting) -> Box<Compressor> {
        match self.idle.iter().rposition(|compressor| compressor.setting().is_alike(setting)) {
            Some(index) => {
                let mut compressor = self.idle.swap_remove(index);
                compressor.set_level(setting.level());
                compressor
            }
            None => Box::new(Compressor::new(setting)),
        }
    }

    /// Takes one back. If there are enough, the one that was idle longest is freed.
    pub fn give(&mut self, mut compressor: Box<Compressor>) {
        compressor.reset();
        if self.idle.len() >= self.most.max(1) {
            self.idle.remove(0);
        }
        if self.most > 0 {
            self.idle.push(compressor);
        }
    }

    /// Appends the payload of a whole message, compressed on its own: once for all connections whose
    /// [`Deflater::setting`](super::Deflater::setting) is this. False if it does not shrink: nothing is appended then.
    ///
    /// Where a connection has context takeover, [`Deflater::forget`](super::Deflater::forget) has to follow.
    pub fn compress(&mut self, setting: Setting, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let mut compressor = self.take(setting);
        let shrinks = compressor.compress(payload, out);
        self.give(compressor);
        shrinks
    }

    /// Memory to compress a message to, empty.
    pub(super) fn take_scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    /// It is not needed any more.
    pub(super) fn give_scratch(&mut self, mut scratch: Vec<u8>) {
        if scratch.capacity() <= MOST_SCRATCH {
            scratch.clear();
            self.scratch = scratch;
        }
    }

    /// Frees all that is idle.
    pub fn clear(&mut self) {
        self.idle = Vec::new();
        self.scratch = Vec::new();
    }

    /// What is idle, in bytes.
    pub fn memory(&self) -> usize {
        let idle: usize = self.idle.iter().map(|compressor| compressor.setting().memory()).sum();
        idle + self.scratch.capacity()
    }
}

/// Keeps at most two.
impl Default for Compressors {
    fn default() -> Self {
        Self::new(2)
    }
}

/// Idle decompressors, for the connections that need one for a message only; and the memory that inflated pieces lie in, for
/// all.
#[derive(Debug)]
pub struct Decompressors {
    #[expect(clippy::vec_box, reason = "connections hold them as they are")]
    idle: Vec<Box<Decompressor>>,
    most: usize,
    pub(super) output: Box<[u8]>,
}

impl Decompressors {
    /// Keeps at most so many; others are freed when they come back.
    pub fn new(most: usize) -> Self {
        Self { idle: Vec::new(), most, output: Box::default() }
    }

    /// One that has seen nothing. Made if none is idle.
    pub fn take(&mut self) -> Box<Decompressor> {
        self.idle.pop().unwrap_or_default()
    }

    /// Takes one back.
    pub fn give(&mut self, mut decompressor: Box<Decompressor>) {
        if self.idle.len() < self.most {
            decompressor.reset();
            self.idle.push(decompressor);
        }
    }

    /// Whether the next one has to be made.
    pub(super) fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// Frees all that is idle.
    pub fn clear(&mut self) {
        self.idle = Vec::new();
        self.output = Box::default();
    }

    /// What is idle, in bytes.
    pub fn memory(&self) -> usize {
        self.idle.len() * Decompressor::MEMORY + self.output.len()
    }

    /// Where pieces are inflated to.
    pub(super) fn output(&mut self) -> &mut [u8] {
        if self.output.is_empty() {
            self.output = vec![0; PIECE].into();
        }
        &mut self.output
    }
}

/// Keeps at most two.
impl Default for Decompressors {
    fn default() -> Self {
        Self::new(2)
    }
}

/// The most that the compressors and decompressors of connections with context takeover may take, together.
///
/// It only counts. Ask it before the handshake is answered: when a connection does not fit, it is to have no context
/// takeover, and needs nothing of its own.
///
/// ```
/// use lodger::ws::Side;
/// use lodger::ws::deflate::{Budget, Deflate};
///
/// let mut options = Deflate::default();
/// options.server_no_context_takeover = false;
/// let mut budget = Budget::new(1_000_000);
/// let connections: Vec<_> = (0..4)
///     .map(|_| budget.accept(&options, [&b"permessage-deflate"[..]]).unwrap())
///     .collect();
/// let takes_over: Vec<_> = connections.iter().map(|(parameters, _)| parameters.takes_over(Side::Server)).collect();
/// assert_eq!(takes_over, [true, true, false, false]);
/// // When a connection ends, what was counted for it is given back.
/// budget.release(connections[0].1);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    limit: usize,
    used: usize,
}

impl Budget {
    /// Nothing is used of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, used: 0 }
    }

    /// Counts so many bytes, if they fit.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.limit.saturating_sub(self.used);
        self.used += if fits { bytes } else { 0 };
        fits
    }

    /// Counts them whether they fit or not.
    pub(super) fn add(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
    }

    /// They are free again.
    pub fn release(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Bytes that are counted.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes that may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// [`Deflate::accept`](super::Deflate::accept) within the budget: what is accepted, and what was counted for it.
    pub fn accept<'a>(
        &mut self,
        options: &super::Deflate,
        values: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
    ) -> Option<(Parameters, usize)> {
        let values = values.into_iter();
        let accepted = options.accept(values.clone())?;
        let bytes = options.memory(&accepted, Side::Server);
        if self.reserve(bytes) {
            return Some((accepted, bytes));
        }
        Some((options.without_context_takeover().accept(values)?, 0))
    }
}

impl super::Deflate {
    /// What a connection with these parameters comes to hold between messages, in bytes: a compressor and a decompressor, each
    /// if its direction has context takeover.
    pub fn memory(&self, parameters: &Parameters, side: Side) -> usize {
        let own = if parameters.takes_over(side) { self.setting(parameters, side).memory() } else { 0 };
        let other = match side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        own + if parameters.takes_over(other) { Decompressor::MEMORY } else { 0 }
    }
}

/// The most memory for compressed messages that is kept.
const MOST_SCRATCH: usize = 512 * 1024;

/// The longest piece that is inflated at once.
const PIECE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::super::Deflate;
    use super::*;

    #[test]
    fn a_pool_keeps_so_many_and_gives_what_fits() {
        let mut pool = Compressors::new(2);
        let settings = [Setting::new(1, 9, 1), Setting::new(1, 10, 1), Setting::new(1, 11, 1)];
        for setting in settings {
            pool.give(Box::new(Compressor::new(setting)));
        }
        assert_eq!(pool.memory(), settings[1].memory() + settings[2].memory());
        // Another level will do, another window will not.
        let wanted = Setting::new(6, 11, 1);
        assert_eq!(pool.take(wanted).setting(), wanted);
        assert_eq!(pool.memory(), settings[1].memory());
        assert_eq!(pool.take(settings[0]).setting(), settings[0]);
        pool.clear();
        assert_eq!(pool.memory(), 0);
        let mut none = Compressors::new(0);
        none.give(Box::new(Compressor::new(wanted)));
        assert_eq!(none.memory(), 0);

        let mut pool = Decompressors::new(1);
        let (one, other) = (pool.take(), pool.take());
        pool.give(one);
        pool.give(other);
        assert_eq!(pool.memory(), Decompressor::MEMORY);
    }

    #[test]
    fn what_does_not_fit_the_budget_has_no_context_takeover() {
        let options = Deflate {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            ..Deflate::default()
        };
        let each = Setting::new(1, 15, 8).memory() + Decompressor::MEMORY;
        let mut budget = Budget::new(2 * each + 1);
        let offer = || [&b"permessage-deflate"[..]];
        assert_eq!(budget.accept(&options, [&b"mux"[..]]), None);
        for used in [each, 2 * each] {
            assert_eq!(budget.accept(&options, offer()), Some((Parameters::default(), each)));
            assert_eq!(budget.used(), used);
        }
        let frugal = Parameters {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            ..Parameters::default()
        };
        assert_eq!(budget.accept(&options, offer()), Some((frugal, 0)));
        budget.release(each);
        assert_eq!(budget.accept(&options, offer()), Some((Parameters::default(), each)));
        assert_eq!(options.memory(&frugal, Side::Client), 0);
    }
}
