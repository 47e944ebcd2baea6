//! One direction of a connection: payload in, compressed payload out, and back (RFC 7692, section 7.2).

use super::super::ProtocolError;
use super::negotiate::{MAX_BITS, MIN_OWN_BITS};
use std::fmt;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

/// What a flush ends with. It is left out at the end of a message, and put back before inflating (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// A message, or the rest of one, that is nothing: the header of a block whose remainder is the tail (section 7.2.3.6).
const EMPTY: u8 = 0x00;

/// What a compressor is made for. One made for these serves every connection that needs the same.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Setting {
    level: u8,
    window_bits: u8,
    mem_level: u8,
}

impl Setting {
    /// `level` and `mem_level` are 1 to 9, `window_bits` 9 to 15; what is outside counts as the nearest.
    pub fn new(level: u8, window_bits: u8, mem_level: u8) -> Self {
        Self {
            level: level.clamp(1, 9),
            window_bits: window_bits.clamp(MIN_OWN_BITS, MAX_BITS),
            mem_level: mem_level.clamp(1, 9),
        }
    }

    /// How hard a compressor of this setting tries.
    pub fn level(self) -> u8 {
        self.level
    }

    /// How far back it refers, as a power of two.
    pub fn window_bits(self) -> u8 {
        self.window_bits
    }

    /// What a compressor of this setting takes, in bytes: 137,216 to 494,720, most of it whatever the window.
    pub fn memory(self) -> usize {
        // Two windows, the chains of one, the heads of the chains, and the output buffers.
        const HEADS_AND_STATE: usize = 0x2_0000 + 3200;
        HEADS_AND_STATE + (4 << self.window_bits) + (7 << (self.mem_level + 6))
    }

    /// The same with another level, which a compressor can change to.
    pub(super) fn at_level(self, level: u8) -> Self {
        Self::new(level, self.window_bits, self.mem_level)
    }

    /// Whether a compressor made for the one can be set to the other.
    pub(super) fn is_alike(self, other: Self) -> bool {
        self == other.at_level(self.level)
    }
}

/// Compresses the messages that go one way, each into what may refer to those before it.
///
/// ```
/// use lodger::ws::deflate::{Compressor, Setting};
///
/// let mut compressor = Compressor::new(Setting::new(6, 15, 8));
/// let mut out = Vec::new();
/// assert!(compressor.compress(&[b'a'; 100], &mut out));
/// assert!(out.len() < 10);
/// ```
pub struct Compressor {
    deflate: Deflate,
    setting: Setting,
    /// Nothing has gone through since the last reset.
    is_fresh: bool,
}

impl Compressor {
    /// Allocates [`Setting::memory`].
    pub fn new(setting: Setting) -> Self {
        let config = DeflateConfig {
            level: setting.level.into(),
            window_bits: -i32::from(setting.window_bits),
            mem_level: setting.mem_level.into(),
            ..DeflateConfig::default()
        };
        Self { deflate: Deflate::new_with_config(config), setting, is_fresh: true }
    }

    /// What it is set to.
    pub fn setting(&self) -> Setting {
        self.setting
    }

    /// Appends a whole message, compressed.
    ///
    /// False if it does not shrink: nothing is appended then, and what came before is forgotten, so that the message can go
    /// as it is. (What is sent later must not refer to something that the peer's decompressor has not seen; the peer
    /// need not know that we forgot.) An empty one changes nothing.
    pub fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        // Short of this, a byte at least is saved once the tail is taken off.
        let limit = start + payload.len() + TAIL.len();
        if payload.is_empty() {
            return false;
        }
        let shrinks = self.flush(payload, out, limit);
        if shrinks {
            take_tail(out);
        } else {
            self.drain(out, start);
            self.reset();
        }
        shrinks
    }

    /// Appends the next fragment of a message, compressed; `last` is the end of the message. It is sent even if it does not
    /// shrink, since the fragments before it were.
    pub fn compress_fragment(&mut self, payload: &[u8], last: bool, out: &mut Vec<u8>) {
        if !payload.is_empty() {
            self.flush(payload, out, usize::MAX);
            if last {
                take_tail(out);
            }
        } else if last {
            out.push(EMPTY);
        }
    }

    /// Forgets all that it may refer to. Cheap if there is nothing.
    pub fn reset(&mut self) {
        if !self.is_fresh {
            self.deflate.reset();
            self.is_fresh = true;
        }
    }

    /// Changes to another level, and forgets what it may refer to. To be called between messages.
    pub fn set_level(&mut self, level: u8) {
        let setting = self.setting.at_level(level);
        if setting == self.setting {
            return;
        }
        // zlib-rs changes nothing but a stream that has not begun.
        self.reset();
        let changed = self.deflate.set_level(setting.level.into());
        debug_assert_eq!(changed, Ok(Status::Ok), "the level is one, and nothing is under way");
        self.setting = setting;
    }

    /// Completes the block under way and takes what is not written yet; leaves `out` as it was. zlib-rs does not take a reset
    /// well before that: it forgets neither that a block is open nor its place in the buffer, and what comes next has no
    /// block header, or panics for want of room.
    fn drain(&mut self, out: &mut Vec<u8>, start: usize) {
        out.resize(start + DRAIN, 0);
        loop {
            let before = self.deflate.total_out();
            let status = self.deflate.compress(&[], &mut out[start..], DeflateFlush::SyncFlush);
            if self.deflate.total_out() - before < DRAIN as u64 || status.is_err() {
                break;
            }
        }
        out.truncate(start);
    }

    /// Compresses all of `payload`, which is not empty, up to the tail. False if `out` would reach `limit`.
    fn flush(&mut self, mut payload: &[u8], out: &mut Vec<u8>, limit: usize) -> bool {
        self.is_fresh = false;
        let mut end = out.len();
        loop {
            // Room for what is likely, and more when that was not enough.
            let room = (payload.len() / 2).clamp(64, MOST_ROOM).min(limit - end);
            out.resize(end + room, 0);
            let (read, written) = (self.deflate.total_in(), self.deflate.total_out());
            let status = self.deflate.compress(payload, &mut out[end..], DeflateFlush::SyncFlush);
            payload = &payload[(self.deflate.total_in() - read) as usize..];
            let new = (self.deflate.total_out() - written) as usize;
            end += new;
            debug_assert!(status.is_ok(), "it is set to what it can do");
            if payload.is_empty() && new < room {
                out.truncate(end);
                return true;
            }
            if end >= limit || status.is_err() {
                return false;
            }
        }
    }
}

/// A compressed message ends without the tail (section 7.2.1).
fn take_tail(out: &mut Vec<u8>) {
    debug_assert!(out.ends_with(&TAIL));
    out.truncate(out.len() - TAIL.len());
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("setting", &self.setting).finish_non_exhaustive()
    }
}

/// Decompresses the messages that come one way. What it keeps of them is bounded, whatever they are.
///
/// ```
/// use lodger::ws::deflate::{Decompressor, Step};
///
/// // The message of RFC 7692, section 7.2.3.1, in a slice that is too small for it.
/// let mut decompressor = Decompressor::new();
/// let mut out = [0; 3];
/// let message = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
/// let first = decompressor.decompress(&message, true, &mut out)?;
/// assert_eq!((first.written, first.state, &out), (3, Step::Full, b"Hel"));
/// let second = decompressor.decompress(&message[first.used..], true, &mut out)?;
/// assert_eq!((second.written, second.state, &out[..2]), (2, Step::End, &b"lo"[..]));
/// # Ok::<(), lodger::ws::ProtocolError>(())
/// ```
pub struct Decompressor {
    inflate: Inflate,
    /// The next byte begins a message, or what follows the last block of a stream.
    at_start: bool,
    /// Nothing has gone through since the last reset.
    is_fresh: bool,
    /// An error has come behind output, which was given first.
    has_failed: bool,
}

/// What one call of [`Decompressor::decompress`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Bytes of input that were used.
    pub used: usize,
    /// Bytes of output that were written.
    pub written: usize,
    /// What is to be done next.
    pub state: Step,
}

/// Where a [`Decompressor`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// All input is used, and all that it says written: more input is needed.
    Starved,
    /// There may be more output, or an error behind it, without more input: call again.
    Full,
    /// The message has ended, and all of it is written.
    End,
}

impl Decompressor {
    /// What one takes, in bytes, whatever the window.
    pub const MEMORY: usize = 47_552;

    /// Allocates [`MEMORY`](Self::MEMORY).
    pub fn new() -> Self {
        // A larger window than that agreed on does no harm, and it takes the same memory.
        Self { inflate: Inflate::new(false, MAX_BITS), at_start: true, is_fresh: true, has_failed: false }
    }

    /// Takes the next part of a message, cut anywhere; `last` says that the message ends with `input`. Call again with what
    /// was not used and the same `last`, even if nothing is left, until the state is not [`Step::Full`].
    ///
    /// Work and output are bounded by `input` and `out`, neither by what the message claims to be. A byte can become
    /// 1,032 bytes. `out` must not be empty.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::InvalidDeflate`]: this is not what DEFLATE makes (RFC 1951), or the message ends within a block (RFC
    /// 7692, section 7.2.2). The decompressor is of no use until it is [reset](Self::reset).
    pub fn decompress(
        &mut self,
        input: &[u8],
        last: bool,
        out: &mut [u8],
    ) -> Result<Progress, ProtocolError> {
        let mut progress = Progress { used: 0, written: 0, state: Step::Full };
        if !self.has_failed {
            self.has_failed = self.advance(input, last, out, &mut progress).is_err();
        }
        // What is given before an error does not depend on how the input was cut.
        if self.has_failed && progress.written == 0 {
            return Err(ProtocolError::InvalidDeflate);
        }
        Ok(progress)
    }

    fn advance(
        &mut self,
        input: &[u8],
        last: bool,
        out: &mut [u8],
        progress: &mut Progress,
    ) -> Result<(), ProtocolError> {
        // Output may be left from the call before. Only at a message's start there is none, nor a block to go on with.
        while progress.used < input.len() || !self.at_start {
            let Progress { used, written, .. } = *progress;
            let status = self.step(&input[used..], &mut out[written..], InflateFlush::NoFlush, progress)?;
            if status == Status::StreamEnd {
                // A block said that it is the last (section 7.2.3.4). Those behind it refer to nothing before them: what makes
                // such a block ends a stream, and has no window behind it.
                self.inflate.reset(false);
                self.at_start = true;
            } else if progress.written == out.len() {
                return Ok(());
            } else if progress.used == input.len() {
                break;
            } else if (progress.used, progress.written) == (used, written) {
                return Err(ProtocolError::InvalidDeflate);
            }
        }
        if last {
            self.end()?;
        }
        progress.state = if last { Step::End } else { Step::Starved };
        Ok(())
    }

    /// Forgets the messages so far, so that the next cannot refer to them. Cheap if there are none.
    pub fn reset(&mut self) {
        if !self.is_fresh {
            self.inflate.reset(false);
            (self.at_start, self.is_fresh, self.has_failed) = (true, true, false);
        }
    }

    /// Takes the tail. It completes the block that every message must end in, so that the next one begins with another.
    fn end(&mut self) -> Result<(), ProtocolError> {
        // A message of no bytes at all, or one that ends with the last block of a stream, lacks nothing.
        if !self.at_start {
            let [a, b, c, d] = TAIL;
            // At the end of a block it stops, and leaves the last byte alone.
            let mut progress = Progress { used: 0, written: 0, state: Step::End };
            self.step(&[a, b, c, d, EMPTY], &mut [0; 8], InflateFlush::Block, &mut progress)?;
            if (progress.used, progress.written) != (TAIL.len(), 0) {
                return Err(ProtocolError::InvalidDeflate);
            }
            self.at_start = true;
        }
        Ok(())
    }

    /// Adds to `progress` what was done, also before an error.
    fn step(
        &mut self,
        input: &[u8],
        out: &mut [u8],
        flush: InflateFlush,
        progress: &mut Progress,
    ) -> Result<Status, ProtocolError> {
        let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
        self.is_fresh = false;
        let status = self.inflate.decompress(input, out, flush);
        let used = (self.inflate.total_in() - read) as usize;
        self.at_start &= used == 0;
        progress.used += used;
        progress.written += (self.inflate.total_out() - written) as usize;
        status.map_err(|_| ProtocolError::InvalidDeflate)
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").field("at_start", &self.at_start).finish_non_exhaustive()
    }
}

/// The most that a compressor gets at once to write to: it is cleared before.
const MOST_ROOM: usize = 64 * 1024;

/// How much is taken at once of what is thrown away.
const DRAIN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a message is inflated to, in pieces of `room` bytes.
    fn inflate(
        decompressor: &mut Decompressor,
        mut input: &[u8],
        room: usize,
    ) -> Result<Vec<u8>, ProtocolError> {
        let mut message = Vec::new();
        let mut out = vec![0; room];
        loop {
            let progress = decompressor.decompress(input, true, &mut out)?;
            message.extend_from_slice(&out[..progress.written]);
            input = &input[progress.used..];
            match progress.state {
                Step::Full => assert!(progress.written > 0 && progress.written <= room),
                Step::End => return Ok(message),
                Step::Starved => panic!("the last input was there"),
            }
        }
    }

    /// The same with the input cut after each byte.
    fn inflate_bytewise(decompressor: &mut Decompressor, input: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut message = Vec::new();
        let mut out = [0; 100];
        for at in 0..=input.len() {
            let mut part = if at == input.len() { &[][..] } else { &input[at..=at] };
            loop {
                let progress = decompressor.decompress(part, at == input.len(), &mut out)?;
                message.extend_from_slice(&out[..progress.written]);
                part = &part[progress.used..];
                match progress.state {
                    Step::Full => {}
                    Step::Starved | Step::End => break,
                }
            }
            assert!(part.is_empty());
        }
        Ok(message)
    }

    fn both(input: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let whole = inflate(&mut Decompressor::new(), input, 1000);
        for room in [1, 2, 3, 7] {
            assert_eq!(inflate(&mut Decompressor::new(), input, room), whole);
        }
        assert_eq!(inflate_bytewise(&mut Decompressor::new(), input), whole);
        whole
    }

    fn compressed(compressor: &mut Compressor, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compressor.compress_fragment(payload, true, &mut out);
        out
    }

    const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

    #[test]
    fn the_examples_of_the_rfc_are_inflated() {
        // Sections 7.2.3.1, 7.2.3.3, 7.2.3.4 and 7.2.3.5.
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        let bfinal = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        let two_blocks = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        for message in [&HELLO[..], &stored, &bfinal, &two_blocks] {
            assert_eq!(both(message).as_deref(), Ok(&b"Hello"[..]), "{message:x?}");
        }
        // Section 7.2.3.2: the second message refers to the first.
        let mut decompressor = Decompressor::new();
        assert_eq!(inflate(&mut decompressor, &HELLO, 100).unwrap(), b"Hello");
        assert_eq!(inflate(&mut decompressor, &[0xf2, 0x00, 0x11, 0x00, 0x00], 100).unwrap(), b"Hello");
        // Section 7.2.3.6.
        assert_eq!(inflate(&mut decompressor, &[0x00], 100).unwrap(), b"");
    }

    #[test]
    fn the_examples_of_the_rfc_are_made() {
        let mut compressor = Compressor::new(Setting::new(6, 15, 8));
        assert_eq!(compressed(&mut compressor, b"Hello"), HELLO);
        assert!(!compressor.compress(b"", &mut Vec::new()));
        assert_eq!(compressed(&mut compressor, b"Hello"), [0xf2, 0x00, 0x11, 0x00, 0x00]);
        assert_eq!(compressed(&mut compressor, b""), [0x00]);
        compressor.reset();
        assert_eq!(compressed(&mut compressor, b"Hello"), HELLO);
    }

    #[test]
    fn blocks_that_say_they_are_the_last_may_stand_anywhere() {
        let bfinal = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let mut decompressor = Decompressor::new();
        for _ in 0..3 {
            // Two of them, then an open one; and what some endpoints do: nothing behind the last one.
            let message = [&bfinal[..], &bfinal, &HELLO].concat();
            assert_eq!(inflate(&mut decompressor, &message, 100).unwrap(), b"HelloHelloHello");
            assert_eq!(inflate_bytewise(&mut decompressor, &bfinal).unwrap(), b"Hello");
            assert_eq!(inflate(&mut decompressor, &bfinal, 5).unwrap(), b"Hello");
            // Empty blocks in any number say nothing.
            let empty = [&[0, 0, 0, 0xff, 0xff].repeat(9)[..], &HELLO].concat();
            assert_eq!(inflate(&mut decompressor, &empty, 3).unwrap(), b"Hello");
            // A message of no bytes.
            assert_eq!(inflate(&mut decompressor, b"", 3).unwrap(), b"");
        }
        // Its window ends with it.
        assert_eq!(inflate(&mut decompressor, &bfinal, 100).unwrap(), b"Hello");
        let back = inflate(&mut decompressor, &[0xf2, 0x00, 0x11, 0x00, 0x00], 100);
        assert_eq!(back, Err(ProtocolError::InvalidDeflate));
    }

    #[test]
    fn what_no_compressor_makes_is_refused() {
        let cases: [&[u8]; 9] = [
            // A block type that does not exist, a stored block whose lengths differ, a reference to nothing.
            &[0x06],
            &[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48],
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
            // A message that ends within a block: stored, fixed, dynamic; or before its header is complete.
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48],
            &HELLO[..5],
            &HELLO[..3],
            &[0x04, 0xc0],
            // The tail is there although it should not be.
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff],
            &[0x00, 0x00, 0x00, 0xff, 0xff],
        ];
        for case in cases {
            assert_eq!(both(case), Err(ProtocolError::InvalidDeflate), "{case:x?}");
        }
        let mut decompressor = Decompressor::new();
        assert!(inflate(&mut decompressor, &[0x06], 100).is_err());
        decompressor.reset();
        assert_eq!(inflate(&mut decompressor, &HELLO, 100).unwrap(), b"Hello");
    }

    #[test]
    fn every_message_comes_back_at_every_setting() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for window_bits in 9..=15 {
            for mem_level in [1, 8, 9] {
                let mut compressor = Compressor::new(Setting::new(1, window_bits, mem_level));
                let mut decompressor = Decompressor::new();
                for level in [1, 6, 2, 9, 3, 1, 4, 5, 7, 8] {
                    compressor.set_level(level);
                    assert_eq!(compressor.setting(), Setting::new(level, window_bits, mem_level));
                    for length in [1, 5, 300, 5000, 40_000] {
                        let payload = random.payload(length);
                        let mut out = b"before".to_vec();
                        if compressor.compress(&payload, &mut out) {
                            assert!(out.len() - 6 < payload.len());
                            assert_eq!(inflate(&mut decompressor, &out[6..], 4096).unwrap(), payload);
                        }
                        assert!(out.starts_with(b"before"));
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_referred_to() {
        let mut random = Random(0x1357_9bdf_0246_8ace);
        for level in 1..=9 {
            let mut compressor = Compressor::new(Setting::new(level, 15, 8));
            let mut decompressor = Decompressor::new();
            let known = random.noise(300);
            for length in [1, 3, 100, 1000, 70_000] {
                let text = random.payload(2000);
                let mut out = Vec::new();
                assert!(compressor.compress(&[&text[..], &known].concat(), &mut out));
                inflate(&mut decompressor, &out, 9999).unwrap();
                let noise = random.noise(length);
                out.clear();
                assert!(!compressor.compress(&noise, &mut out) && out.is_empty());
                // It would shrink to nothing if the one before were still known.
                let again = [&noise[..], &noise].concat();
                if compressor.compress(&again, &mut out) {
                    assert_eq!(inflate(&mut decompressor, &out, 1234).unwrap(), again);
                }
            }
        }
    }

    #[test]
    fn fragments_are_flushed_one_by_one() {
        let mut random = Random(0x2468_ace0_1357_9bdf);
        for level in [1, 2, 3, 6, 9] {
            let mut compressor = Compressor::new(Setting::new(level, 15, 8));
            let mut decompressor = Decompressor::new();
            for round in 0..20 {
                let fragments: Vec<_> = [0, 10, 0, 0, 3000, 1, if round % 2 == 0 { 0 } else { 50 }]
                    .map(|length| random.payload(length))
                    .into();
                let mut message = Vec::new();
                for (index, fragment) in fragments.iter().enumerate() {
                    let last = index == fragments.len() - 1;
                    let mut out = Vec::new();
                    compressor.compress_fragment(fragment, last, &mut out);
                    assert!(last || fragment.is_empty() || out.ends_with(&TAIL));
                    // Each can be read as soon as it is there.
                    let mut read = vec![0; fragment.len() + 1];
                    let progress = decompressor.decompress(&out, last, &mut read).unwrap();
                    assert_eq!((progress.used, &read[..progress.written]), (out.len(), &fragment[..]));
                    message.extend(out);
                }
            }
        }
    }

    #[test]
    fn a_bomb_gives_no_more_at_once_than_there_is_room() {
        let bomb = compressed(&mut Compressor::new(Setting::new(9, 15, 9)), &vec![0; 4 << 20]);
        assert!(bomb.len() < 5000, "{}", bomb.len());
        let mut decompressor = Decompressor::new();
        let mut out = vec![1; 16 * 1024];
        let progress = decompressor.decompress(&bomb, true, &mut out).unwrap();
        assert_eq!((progress.written, progress.state), (out.len(), Step::Full));
        assert!(progress.used < 100);
        assert!(out.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn settings_stay_within_what_is_possible() {
        assert_eq!(Setting::new(0, 0, 0), Setting::new(1, 9, 1));
        assert_eq!(Setting::new(255, 255, 255), Setting::new(9, 15, 9));
        assert_eq!(Setting::new(1, 9, 1).memory(), 137_216);
        assert_eq!(Setting::new(1, 15, 8).memory(), 380_032);
        assert_eq!(Setting::new(1, 15, 9).memory(), 494_720);
    }

    /// Xorshift, by Marsaglia.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % bound
        }

        fn noise(&mut self, length: usize) -> Vec<u8> {
            (0..length).map(|_| self.below(256) as u8).collect()
        }

        /// Words that come again.
        fn payload(&mut self, length: usize) -> Vec<u8> {
            let mut payload = Vec::new();
            while payload.len() < length {
                let word = self.below(200);
                payload.extend_from_slice(format!("{{\"w{word}\":{}}},", word * word).as_bytes());
                if self.below(10) == 0 {
                    let noise = self.below(40);
                    payload.extend(self.noise(noise));
                }
            }
            payload.truncate(length);
            payload
        }
    }
}
