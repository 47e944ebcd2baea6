//! The sending half of a connection with permessage-deflate (RFC 7692, sections 6.1 and 7.2.1).

use super::negotiate::MIN_OWN_BITS;
use super::{Compressor, Compressors, Deflate, Parameters, RSV, Setting};
use crate::ws::frame::{Header, HeaderBytes, Opcode};
use crate::ws::{Message, MessageKind, SendPieceError, Sender, Side, encode, mask};

/// The header of a whole compressed message in one frame, for a payload that is written behind it from where it lies.
/// `length` is that of the compressed payload.
pub fn message_header(kind: MessageKind, length: u64, masking: Option<[u8; 4]>) -> HeaderBytes {
    Header { fin: true, rsv: RSV, opcode: kind.opcode(), masking, length }.encode()
}

/// What a connection needs to compress what it sends. It has a compressor of its own only with context takeover, and
/// while a message is sent in pieces.
#[derive(Debug)]
pub struct Deflater {
    /// `None`: what has been agreed on cannot be kept to, so that everything goes uncompressed.
    setting: Option<Setting>,
    takes_over: bool,
    threshold: usize,
    /// Whether to compress at all.
    compress: bool,
    under_way: UnderWay,
    compressor: Option<Box<Compressor>>,
    /// Bytes that were compressed, and what became of them.
    counted: (u64, u64),
}

/// The message that is sent in pieces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum UnderWay {
    Nothing,
    Plain,
    Compressed,
}

impl Deflate {
    /// What the compressor of this side is made for.
    pub fn setting(&self, parameters: &Parameters, side: Side) -> Setting {
        let window_bits = self.window_bits(side).min(parameters.window_bits(side));
        Setting::new(self.level, window_bits, self.mem_level)
    }
}

impl Deflater {
    /// Allocates nothing.
    pub fn new(options: &Deflate, parameters: &Parameters, side: Side) -> Self {
        let asked = Parameters {
            server_no_context_takeover: options.server_no_context_takeover,
            client_no_context_takeover: options.client_no_context_takeover,
            ..Parameters::default()
        };
        let is_possible = parameters.window_bits(side) >= MIN_OWN_BITS;
        Self {
            setting: is_possible.then(|| options.setting(parameters, side)),
            takes_over: parameters.takes_over(side) && asked.takes_over(side),
            threshold: options.threshold,
            compress: true,
            under_way: UnderWay::Nothing,
            compressor: None,
            counted: (0, 0),
        }
    }

    /// What a message is compressed with; `None` if none ever is. Two connections without context takeover that have the same
    /// can send the same frame.
    pub fn setting(&self) -> Option<Setting> {
        self.setting
    }

    /// Whether messages refer to those before them.
    pub fn takes_over(&self) -> bool {
        self.takes_over
    }

    /// As [`Deflate::level`], from the next message on.
    pub fn set_level(&mut self, level: u8) {
        self.setting = self.setting.map(|setting| setting.at_level(level));
    }

    /// As [`Deflate::threshold`], from the next message on.
    pub fn set_threshold(&mut self, threshold: usize) {
        self.threshold = threshold;
    }

    /// Whether to compress at all, from the next message on. So it is at first.
    pub fn set_compress(&mut self, on: bool) {
        self.compress = on;
    }

    /// What a whole message of this length would be compressed with; `None` if it goes uncompressed whatever it is, as all do
    /// while a message is sent in pieces.
    pub fn setting_for(&self, length: usize) -> Option<Setting> {
        // An empty message would grow by a byte.
        let worth = self.compress && length >= self.threshold.max(1) && self.under_way == UnderWay::Nothing;
        self.setting.filter(|_| worth)
    }

    /// How many bytes of payload were compressed, and how many that gave.
    pub fn counted(&self) -> (u64, u64) {
        self.counted
    }

    /// A message was sent that another compressor has made: it is counted, and what came before it is
    /// [forgotten](Self::forget).
    pub(crate) fn sent_otherwise(&mut self, plain: usize, compressed: usize) {
        self.count(plain, compressed);
        self.forget();
    }

    fn count(&mut self, plain: usize, compressed: usize) {
        self.counted.0 += plain as u64;
        self.counted.1 += compressed as u64;
    }

    /// Appends the payload of a whole message, compressed; its frame is to have [`message_header`].
    ///
    /// False if it is to go uncompressed, since it is short or does not shrink: nothing is appended then. A message that was
    /// appended must be sent, before any later one; if it is not, [`forget`](Self::forget) it. While a message is sent in
    /// pieces the answer is false.
    pub fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>, pool: &mut Compressors) -> bool {
        let Some(setting) = self.setting_for(payload.len()) else { return false };
        let before = out.len();
        let mut compressor = self.take(setting, pool);
        let compressed = compressor.compress(payload, out);
        self.put(compressor, pool);
        if compressed {
            self.count(payload.len(), out.len() - before);
        }
        compressed
    }

    /// Appends the payload of the next piece of a message, compressed. The first piece decides for all: false if the message
    /// goes uncompressed. RSV1 is to be set on its first frame only.
    ///
    /// A message in pieces is compressed whatever its length, which nobody knows, unless the threshold is `usize::MAX` or the
    /// first piece is the last.
    pub fn compress_piece(
        &mut self,
        payload: &[u8],
        last: bool,
        out: &mut Vec<u8>,
        pool: &mut Compressors,
    ) -> bool {
        if self.under_way == UnderWay::Nothing {
            if last {
                return self.compress(payload, out, pool);
            }
            self.under_way = UnderWay::Plain;
            if self.threshold < usize::MAX
                && self.compress
                && let Some(setting) = self.setting
            {
                self.compressor = Some(self.take(setting, pool));
                self.under_way = UnderWay::Compressed;
            }
        }
        let is_compressed = self.under_way == UnderWay::Compressed;
        let before = out.len();
        if is_compressed && let Some(compressor) = &mut self.compressor {
            compressor.compress_fragment(payload, last, out);
            self.count(payload.len(), out.len() - before);
        }
        if last {
            self.under_way = UnderWay::Nothing;
            if let Some(compressor) = self.compressor.take() {
                self.put(compressor, pool);
            }
        }
        is_compressed
    }

    /// Appends a whole message as one frame, compressed if that makes it shorter.
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        message: Message<'_>,
        masking: Option<[u8; 4]>,
        pool: &mut Compressors,
    ) {
        let mut scratch = pool.take_scratch();
        if self.compress(message.as_bytes(), &mut scratch, pool) {
            let header = message_header(message.kind(), scratch.len() as u64, masking);
            append(out, &header, &scratch, masking);
        } else {
            encode(out, message, masking);
        }
        pool.give_scratch(scratch);
    }

    /// Like [`Sender::encode_piece`], compressed if the first piece was. `sender` is that of the connection.
    ///
    /// # Errors
    ///
    /// As in [`SendPieceError`]; nothing is appended then, and the state is as before.
    #[expect(clippy::too_many_arguments, reason = "those of Sender::encode_piece and what is shared")]
    pub fn encode_piece(
        &mut self,
        sender: &mut Sender,
        out: &mut Vec<u8>,
        kind: MessageKind,
        payload: &[u8],
        last: bool,
        masking: Option<[u8; 4]>,
        pool: &mut Compressors,
    ) -> Result<(), SendPieceError> {
        let is_first = !sender.in_message();
        let plain = sender.piece_header(kind, payload, last, masking)?;
        let mut scratch = pool.take_scratch();
        if self.compress_piece(payload, last, &mut scratch, pool) {
            let (opcode, rsv) = if is_first { (kind.opcode(), RSV) } else { (Opcode::Continuation, 0) };
            let header = Header { fin: last, rsv, opcode, masking, length: scratch.len() as u64 }.encode();
            append(out, &header, &scratch, masking);
        } else {
            append(out, &plain, payload, masking);
        }
        pool.give_scratch(scratch);
        Ok(())
    }

    /// Forgets earlier messages, so that what is sent next does not refer to them. To be called when a message was sent that
    /// another compressor has made, as a frame that many connections share, which moves what came before it out of its
    /// place; and when a message was compressed but not sent. Between messages only.
    pub fn forget(&mut self) {
        if let Some(compressor) = &mut self.compressor {
            compressor.reset();
        }
    }

    /// Gives up the compressor of a connection that is idle, which is possible at any time between messages: the next
    /// message refers to nothing.
    pub fn release(&mut self, pool: &mut Compressors) {
        if self.under_way == UnderWay::Nothing
            && let Some(compressor) = self.compressor.take()
        {
            pool.give(compressor);
        }
    }

    /// What is held, in bytes.
    pub fn memory(&self) -> usize {
        self.compressor.as_ref().map_or(0, |compressor| compressor.setting().memory())
    }

    /// Gives it up for good. One that is within a message is not used again.
    pub(crate) fn discard(&mut self, pool: &mut Compressors) {
        self.release(pool);
        self.compressor = None;
    }

    fn take(&mut self, setting: Setting, pool: &mut Compressors) -> Box<Compressor> {
        let mut compressor = self.compressor.take().unwrap_or_else(|| pool.take(setting));
        compressor.set_level(setting.level());
        compressor
    }

    fn put(&mut self, compressor: Box<Compressor>, pool: &mut Compressors) {
        match self.takes_over {
            true => self.compressor = Some(compressor),
            false => pool.give(compressor),
        }
    }
}

fn append(out: &mut Vec<u8>, header: &HeaderBytes, payload: &[u8], masking: Option<[u8; 4]>) {
    out.reserve(header.as_bytes().len() + payload.len());
    out.extend_from_slice(header.as_bytes());
    match masking {
        Some(key) => mask::apply_copy(key, payload, out),
        None => out.extend_from_slice(payload),
    }
}
