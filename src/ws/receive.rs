//! Frames in, events out (RFC 6455, sections 5 and 6.2).

use super::frame::{FIN, Header, MASK, Opcode, Side};
use super::utf8::{self, Utf8};
use super::{CloseFrame, Event, Message, MessageKind, Piece, ProtocolError, ReceiveError, TooLarge, mask};
use crate::memory;
use std::ops::Range;

/// How messages are handed out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Receive {
    /// Whole, as [`Event::Message`].
    #[default]
    Whole,
    /// As they arrive, as [`Event::Piece`]: nothing is kept, and a message may have any length.
    Pieces,
}

/// What a [`Receiver`] may hand out and must refuse. It is given to each call, so that many receivers can share one.
///
/// ```
/// let mut settings = lodger::ws::Settings::default();
/// settings.max_message = 64 * 1024;
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Whole messages or pieces. A change takes effect with the next message.
    pub receive: Receive,
    /// The longest message that is received whole, in bytes; of a compressed one, what it is inflated to. Default 16 MiB.
    /// Does not apply to pieces.
    pub max_message: usize,
    /// The longest payload that one frame may announce, in bytes, also in pieces. Default: no limit.
    pub max_frame: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { receive: Receive::Whole, max_message: 16 * 1024 * 1024, max_frame: u64::MAX }
    }
}

/// The receiving half of a connection: takes bytes, gives [`Event`]s.
///
/// It holds memory only while a message is under way that has not come in one piece; the memory grows with what has
/// arrived, never with what was announced.
#[derive(Debug)]
pub struct Receiver {
    reads: Reads,
    message: Option<Box<Partial>>,
}

impl Receiver {
    /// The receiver of an endpoint on this side, at the beginning of a connection. Allocates nothing.
    #[inline]
    pub const fn new(side: Side) -> Self {
        let reads = match side {
            Side::Client => Reads::Unmasked,
            Side::Server => Reads::Masked,
        };
        Self { reads, message: None }
    }

    /// Takes the next event from the front of `input`, which is unmasked in place.
    ///
    /// Returns how many bytes were consumed, and the event. `None` means that everything usable was consumed: come
    /// again with the rest, never more than 130 bytes, and more behind it. Bytes count only once, so drop what was
    /// consumed. Call until there is no event: a message that had to be collected is let go by the call after the
    /// one that gave it.
    ///
    /// A frame header and a control frame are consumed whole or not at all, the payload of a data frame as it comes.
    /// After a Close or an error everything is consumed and ignored (sections 1.4 and 7.1.7).
    ///
    /// # Errors
    ///
    /// The connection is to be failed: send a Close with [`ReceiveError::close_code`] and drop the transport. Text that
    /// is not UTF-8 is refused as soon as the first wrong byte is there, a frame that is too large as soon as its
    /// header is.
    #[inline]
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        settings: &Settings,
    ) -> Result<(usize, Option<Event<'a>>), ReceiveError> {
        let mut frames = u32::MAX;
        self.next_with(input, settings, &mut Spare::default(), &mut frames)
    }

    /// The next event, with the memory of collected messages taken from `spare` and given back to it. What is done without an event,
    /// for frames that begin a message or go on with one, is taken from `frames`, step by step; when that is 0, no event means
    /// nothing. A peer could keep us busy with such frames for as long as it sends them.
    // Always: the event is taken apart where it is used and need not be built in memory.
    #[inline(always)]
    pub(crate) fn next_with<'a>(
        &'a mut self,
        input: &'a mut [u8],
        settings: &Settings,
        spare: &mut Spare,
        frames: &mut u32,
    ) -> Result<(usize, Option<Event<'a>>), ReceiveError> {
        self.next_through(input, settings, spare, frames, ())
    }

    /// The same, with compressed messages, or what else an extension makes of a message, taken through `extension`.
    #[inline(always)]
    pub(super) fn next_through<'a, E: Incoming<'a>>(
        &'a mut self,
        input: &'a mut [u8],
        settings: &Settings,
        spare: &mut Spare,
        frames: &mut u32,
        extension: E,
    ) -> Result<(usize, Option<Event<'a>>), ReceiveError> {
        let masked = self.reads == Reads::Masked;
        let found = if masked {
            self.short_limit::<true>(settings).and_then(|limit| ShortFrame::find::<true>(input, limit))
        } else {
            self.short_limit::<false>(settings).and_then(|limit| ShortFrame::find::<false>(input, limit))
        };
        if let Some(frame) = found {
            let (kind, used) = (frame.kind, frame.end);
            let payload = if masked { frame.unmask::<true>(input) } else { frame.unmask::<false>(input) };
            return match Message::new(kind, payload) {
                Ok(message) => Ok((used, Some(Event::Message(message)))),
                Err(error) => Err(self.fail(error.into())),
            };
        }
        self.next_otherwise(input, settings, spare, frames, extension)
    }

    /// Whether nothing is held, and the next byte begins a frame.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.message.is_none()
    }

    /// Whether an extension has more to give without more input.
    #[cfg(feature = "deflate")]
    pub(crate) fn has_more(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.encoded == Some(Next::Again))
    }

    /// How long the next short frame may be; `None` while none is possible, since a message is under way, or is to be handed out in
    /// pieces, or nothing is read any more.
    #[inline]
    pub(crate) fn short_limit<const MASKED: bool>(&self, settings: &Settings) -> Option<usize> {
        let reads = if MASKED { Reads::Masked } else { Reads::Unmasked };
        let possible = self.reads == reads && self.message.is_none() && settings.receive == Receive::Whole;
        let limit = settings.max_message.min(usize::try_from(settings.max_frame).unwrap_or(usize::MAX));
        possible.then_some(limit)
    }

    /// True while a message has begun and not ended, be it between two of its frames or within one.
    pub fn in_message(&self) -> bool {
        self.message.as_ref().is_some_and(|message| !message.complete)
    }

    /// True after a Close or an error: nothing more will come out.
    pub fn has_ended(&self) -> bool {
        self.reads == Reads::Nothing
    }

    /// How many bytes are held for the message under way, or for the one given last.
    pub fn held(&self) -> usize {
        self.message.as_ref().map_or(0, |message| size_of::<Partial>() + message.content.capacity())
    }

    /// What has become of the message under way since this was asked last; `None` while there is none.
    pub(crate) fn progress(&mut self) -> Option<Progress> {
        let held = self.held();
        let message = self.message.as_mut().filter(|message| !message.complete)?;
        let is_new = !std::mem::replace(&mut message.noted, true);
        Some(Progress { held, moved: std::mem::take(&mut message.moved), is_new })
    }

    /// The message that was given last is not needed any more: its memory is spare.
    pub(crate) fn handed_over(&mut self, spare: &mut Spare) {
        spare.put(self.message.take_if(|message| message.complete));
    }

    /// Lets go of the message under way; nothing more is read.
    pub(crate) fn forget(&mut self) {
        *self = Self { reads: Reads::Nothing, message: None };
    }

    /// All that is not a complete, unfragmented, short data frame.
    #[cold]
    #[inline(never)]
    fn next_otherwise<'a, E: Incoming<'a>>(
        &'a mut self,
        input: &'a mut [u8],
        settings: &Settings,
        spare: &mut Spare,
        frames: &mut u32,
        mut extension: E,
    ) -> Result<(usize, Option<Event<'a>>), ReceiveError> {
        self.handed_over(spare);
        let mut start = 0;
        let (end, found) = loop {
            let step = self.step(&mut input[start..], settings, spare, &mut extension);
            match step.map_err(|error| self.fail(error))? {
                Step::Starved => return Ok((start, None)),
                Step::Used(used) => {
                    start += used;
                    *frames = frames.saturating_sub(1);
                    if *frames == 0 || extension.is_exhausted() {
                        return Ok((start, None));
                    }
                }
                Step::Found(used, found) => break (start + used, found),
            }
        };
        let Self { reads, message } = self;
        match found.event(&input[start..end], message.as_deref(), extension.into_decoded()) {
            Ok(event) => Ok((end, Some(event))),
            Err(error) => {
                *reads = Reads::Nothing;
                Err(error.into())
            }
        }
    }

    /// Goes on with the payload under way, or with the next header. What is found is unmasked.
    fn step<'a, E: Incoming<'a>>(
        &mut self,
        input: &mut [u8],
        settings: &Settings,
        spare: &mut Spare,
        extension: &mut E,
    ) -> Result<Step, ReceiveError> {
        let Some(side) = self.reads.side() else {
            return Ok(if input.is_empty() { Step::Starved } else { Step::Used(input.len()) });
        };
        if let Some(message) = &mut self.message
            && let Some(frame) = message.frame
        {
            let step = match message.encoded {
                None => message.take_payload(frame, input, settings.max_message)?,
                Some(_) => message.take_encoded(frame, input, settings.max_message, extension)?,
            };
            // Pieces leave nothing behind that the event could borrow.
            self.message.take_if(|message| message.complete && matches!(message.content, Content::Pieces(_)));
            return Ok(step);
        }
        let Some((header, used)) = Header::decode(input, side, E::RSV)? else {
            return Ok(Step::Starved);
        };
        // A bit that is for a message as a whole stands in its first frame (RFC 7692, section 6.1).
        if header.rsv != 0 && !matches!(header.opcode, Opcode::Text | Opcode::Binary) {
            return Err(ProtocolError::ReservedBits.into());
        }
        if header.opcode.is_control() {
            return Ok(self.control(header, used, input));
        }
        self.data(header, used, input, settings, spare)
    }

    /// A control frame whose header took `used` bytes. It waits until it is complete.
    fn control(&mut self, header: Header, used: usize, input: &mut [u8]) -> Step {
        let Some(payload) = complete_payload(header, used, input) else {
            return Step::Starved;
        };
        if header.opcode == Opcode::Close {
            *self = Self { reads: Reads::Nothing, message: None };
        }
        Step::Found(payload.end, Found::Control(header.opcode, payload))
    }

    /// A data frame whose header took `used` bytes. It is begun, or found in place if it is complete and a message of its own.
    fn data(
        &mut self,
        header: Header,
        used: usize,
        input: &mut [u8],
        settings: &Settings,
        spare: &mut Spare,
    ) -> Result<Step, ReceiveError> {
        if header.length > settings.max_frame {
            return Err(TooLarge { size: header.length, limit: settings.max_frame }.into());
        }
        let kind = match (header.opcode, &self.message) {
            (Opcode::Text, None) => MessageKind::Text,
            (Opcode::Binary, None) => MessageKind::Binary,
            (Opcode::Continuation, Some(message)) => message.content.kind(),
            (Opcode::Continuation, None) => return Err(ProtocolError::ContinuationWithoutStart.into()),
            _ => return Err(ProtocolError::MessageWithinMessage.into()),
        };
        let (receive, before, encoded) = match &self.message {
            Some(message) => (message.content.receive(), message.size, message.encoded.is_some()),
            None => (settings.receive, 0, header.rsv != 0),
        };
        let size = before.saturating_add(header.length);
        // What a compressed message comes to is not known from its header.
        if receive == Receive::Whole && !encoded && size > settings.max_message as u64 {
            return Err(TooLarge { size, limit: settings.max_message as u64 }.into());
        }
        if self.message.is_none()
            && header.fin
            && !encoded
            && let Some(payload) = complete_payload(header, used, input)
        {
            return Ok(Step::Found(payload.end, Found::Unfragmented(kind, receive, payload)));
        }
        let message = self.message.get_or_insert_with(|| spare.begin(kind, receive, size, encoded));
        message.size = size;
        message.frame =
            Some(Frame { masking: header.masking, remaining: header.length, is_final: header.fin });
        Ok(Step::Used(used))
    }

    /// Nothing will be read any more.
    #[cold]
    pub(crate) fn fail(&mut self, error: ReceiveError) -> ReceiveError {
        self.forget();
        error
    }
}

/// What an extension makes of the payload of messages that a reserved bit marks (RFC 6455, sections 5.2 and 9.2). `()` is
/// none.
pub(super) trait Incoming<'a> {
    /// The reserved bits that it gives a meaning, as in [`Header::rsv`].
    const RSV: u8;

    /// Takes what comes next of a message's payload; `last` says that the message ends with `input`.
    fn decode(&mut self, input: &[u8], last: bool) -> Result<Decoded, ReceiveError>;

    /// Whether it has made as much as it may for now.
    fn is_exhausted(&self) -> bool {
        false
    }

    /// What the last call of `decode` made of it.
    fn decoded(&self) -> &[u8];

    /// The same, to be handed out.
    fn into_decoded(self) -> &'a [u8];
}

/// What [`Incoming::decode`] did with its input.
pub(super) struct Decoded {
    pub(super) used: usize,
    pub(super) next: Next,
}

/// What it needs next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// More input: all there was is used.
    Input,
    /// To be called again, with what was not used, also if that is nothing.
    Again,
    /// Nothing: the message has ended.
    Nothing,
}

impl Incoming<'_> for () {
    const RSV: u8 = 0;

    fn decode(&mut self, input: &[u8], last: bool) -> Result<Decoded, ReceiveError> {
        Ok(Decoded { used: input.len(), next: if last { Next::Nothing } else { Next::Input } })
    }

    fn decoded(&self) -> &[u8] {
        &[]
    }

    fn into_decoded(self) -> &'static [u8] {
        &[]
    }
}

/// What [`Receiver::progress`] says.
pub(crate) struct Progress {
    /// What is held for the message, in bytes.
    pub(crate) held: usize,
    /// Bytes of payload that came since, as they come over the wire.
    pub(crate) moved: u64,
    /// It is another message than before.
    pub(crate) is_new: bool,
}

/// What the receiver takes. The values are the mask bit that the second byte of a frame must have; `Nothing` matches none.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reads {
    Unmasked = 0x00,
    Masked = MASK,
    Nothing = 0xff,
}

impl Reads {
    /// The side that reads so; `None` if everything is ignored.
    fn side(self) -> Option<Side> {
        match self {
            Self::Unmasked => Some(Side::Client),
            Self::Masked => Some(Side::Server),
            Self::Nothing => None,
        }
    }
}

/// A message that lies complete at the front of the input, in one frame of less than 64 KiB: what nearly all frames are.
pub(crate) struct ShortFrame {
    kind: MessageKind,
    start: usize,
    end: usize,
}

impl ShortFrame {
    /// Decides on a few comparisons. `None` says nothing about what it is instead.
    // Always, like the others: what they return stays in registers where they are used.
    #[inline(always)]
    fn find<const MASKED: bool>(input: &[u8], limit: usize) -> Option<Self> {
        const TEXT: u8 = FIN | Opcode::Text as u8;
        const BINARY: u8 = FIN | Opcode::Binary as u8;
        let (mask_bit, key) = if MASKED { (MASK, 4) } else { (0, 0) };
        let &[b0, b1, ..] = input else { return None };
        let kind = match b0 {
            TEXT => MessageKind::Text,
            BINARY => MessageKind::Binary,
            _ => return None,
        };
        let (start, length) = match b1 ^ mask_bit {
            length @ ..=125 => (2 + key, usize::from(length)),
            126 => {
                let &[_, _, high, low, ..] = input else { return None };
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length < 126 {
                    // Not the shortest form.
                    return None;
                }
                (4 + key, length)
            }
            // 64 bits of length, or the wrong side's mask bit.
            _ => return None,
        };
        let end = start + length;
        (end <= input.len() && length <= limit).then_some(Self { kind, start, end })
    }

    /// Takes one from the front of `input`: its kind, and its payload, unmasked.
    #[inline(always)]
    pub(crate) fn take<'a, const MASKED: bool>(
        input: &mut &'a mut [u8],
        limit: usize,
    ) -> Option<(MessageKind, &'a mut [u8])> {
        let frame = Self::find::<MASKED>(input, limit)?;
        let (taken, rest) = std::mem::take(input).split_at_mut(frame.end);
        *input = rest;
        Some((frame.kind, frame.unmask::<MASKED>(taken)))
    }

    /// The payload, in the input that it was found in, unmasked in place.
    #[inline(always)]
    fn unmask<const MASKED: bool>(self, input: &mut [u8]) -> &mut [u8] {
        let (header, payload) = input[..self.end].split_at_mut(self.start);
        if MASKED && let Some(key) = header.last_chunk() {
            mask::apply(*key, payload);
        }
        payload
    }
}

/// A message that has begun and is not complete, or has been completed by the call before.
#[derive(Debug)]
pub(crate) struct Partial {
    content: Content,
    utf8: Utf8,
    /// The frame whose payload is under way; `None` between frames.
    frame: Option<Frame>,
    /// What the extension needs, if the payload goes through it.
    encoded: Option<Next>,
    /// What the frames have announced so far, in bytes.
    size: u64,
    /// Payload that has come since progress was asked for.
    moved: u64,
    /// Progress was asked for before.
    noted: bool,
    /// Nothing of the message has been handed out.
    first: bool,
    /// Handed out whole: it is let go at the next call.
    complete: bool,
}

/// Memory that a collected message has left for the next one, whichever receiver that comes to.
#[derive(Debug, Default)]
pub(crate) struct Spare(Option<Box<Partial>>);

/// The most that is kept.
const SPARE: usize = 512 * 1024;

impl Spare {
    fn put(&mut self, message: Option<Box<Partial>>) {
        if let Some(message) = message.filter(|message| (1..=SPARE).contains(&message.content.capacity())) {
            self.0 = Some(message);
        }
    }

    /// A message that begins with a frame of `size` bytes. What is encoded may become far more than that.
    fn begin(&mut self, kind: MessageKind, receive: Receive, size: u64, encoded: bool) -> Box<Partial> {
        let mut message = self.take(kind, receive, if encoded { u64::MAX } else { size });
        message.encoded = encoded.then_some(Next::Input);
        message
    }

    /// A message that begins with a frame of `size` bytes. What is far larger than that is not taken for it.
    fn take(&mut self, kind: MessageKind, receive: Receive, size: u64) -> Box<Partial> {
        let fits = |spare: &mut Box<Partial>| spare.content.capacity() as u64 / 2 <= size;
        match self.0.take_if(|spare| receive == Receive::Whole && fits(spare)) {
            Some(mut message) => {
                let content = std::mem::replace(&mut message.content, Content::Pieces(kind));
                *message = Partial::new(kind, receive);
                message.content = content.emptied(kind);
                message
            }
            None => Box::new(Partial::new(kind, receive)),
        }
    }
}

/// What becomes of the bytes of a message.
#[derive(Debug)]
enum Content {
    Text(String),
    Binary(Vec<u8>),
    Pieces(MessageKind),
}

/// The part of a frame that has not come.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Rotated to the next byte.
    masking: Option<[u8; 4]>,
    remaining: u64,
    is_final: bool,
}

impl Partial {
    fn new(kind: MessageKind, receive: Receive) -> Self {
        let content = match (receive, kind) {
            (Receive::Pieces, kind) => Content::Pieces(kind),
            (Receive::Whole, MessageKind::Text) => Content::Text(String::new()),
            (Receive::Whole, MessageKind::Binary) => Content::Binary(Vec::new()),
        };
        Self {
            content,
            utf8: Utf8::default(),
            frame: None,
            encoded: None,
            size: 0,
            moved: 0,
            noted: false,
            first: true,
            complete: false,
        }
    }

    /// Takes what `input` has of the payload of `frame`, the one under way. A message that is kept may have `limit` bytes.
    fn take_payload(
        &mut self,
        mut frame: Frame,
        input: &mut [u8],
        limit: usize,
    ) -> Result<Step, ReceiveError> {
        let used =
            usize::try_from(frame.remaining).map_or(input.len(), |remaining| remaining.min(input.len()));
        if used == 0 && frame.remaining > 0 {
            return Ok(Step::Starved);
        }
        let payload = &mut input[..used];
        if let Some(key) = &mut frame.masking {
            mask::apply(*key, payload);
            *key = mask::rotate(*key, used);
        }
        frame.remaining -= used as u64;
        self.moved += used as u64;
        self.frame = (frame.remaining > 0).then_some(frame);
        self.complete = frame.is_final && frame.remaining == 0;

        // More frames may follow one that is not the last; what they will announce is not known.
        let total = if frame.is_final { self.size } else { limit as u64 };
        self.content.append(payload, &mut self.utf8, total)?;
        if self.complete && !self.utf8.is_complete() {
            return Err(ProtocolError::InvalidUtf8.into());
        }
        Ok(match self.content {
            Content::Pieces(kind) if used > 0 || self.first || self.complete => {
                let first = std::mem::replace(&mut self.first, false);
                Step::Found(used, Found::Piece { kind, first, last: self.complete, frame, payload: 0..used })
            }
            Content::Text(_) | Content::Binary(_) if self.complete => Step::Found(used, Found::Collected),
            Content::Text(_) | Content::Binary(_) | Content::Pieces(_) => Step::Used(used),
        })
    }

    /// The same for a payload that goes through an extension. A message that is kept may have `limit` bytes behind it.
    fn take_encoded<'a, E: Incoming<'a>>(
        &mut self,
        mut frame: Frame,
        input: &mut [u8],
        limit: usize,
        extension: &mut E,
    ) -> Result<Step, ReceiveError> {
        let available =
            usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(input.len()).min(ENCODED_AT_ONCE);
        if available == 0 && frame.remaining > 0 && self.encoded == Some(Next::Input) {
            return Ok(Step::Starved);
        }
        let payload = &mut input[..available];
        let last = frame.is_final && frame.remaining == available as u64;
        if let Some(key) = frame.masking {
            mask::apply(key, payload);
        }
        let Decoded { used, next } = extension.decode(payload, last)?;
        if let Some(key) = &mut frame.masking {
            *key = mask::rotate(*key, used);
            // The rest comes again, and is unmasked again.
            mask::apply(*key, &mut payload[used..]);
        }
        frame.remaining -= used as u64;
        self.moved += used as u64;
        self.frame = (frame.remaining > 0 || next == Next::Again).then_some(frame);
        self.encoded = Some(next);
        self.complete = next == Next::Nothing;
        self.take_decoded(frame, used, limit, extension.decoded())
    }

    /// Validates what came out of an extension, and keeps it or hands it out.
    fn take_decoded(
        &mut self,
        frame: Frame,
        used: usize,
        limit: usize,
        decoded: &[u8],
    ) -> Result<Step, ReceiveError> {
        let room = match self.content.receive() {
            Receive::Whole => limit.saturating_sub(self.content.len()),
            Receive::Pieces => decoded.len(),
        };
        // What fits is judged first, so that it does not matter how much came at once.
        let (fits, beyond) = decoded.split_at(room.min(decoded.len()));
        let limit = limit as u64;
        self.content.append(fits, &mut self.utf8, limit)?;
        if !beyond.is_empty() {
            return Err(TooLarge { size: limit.saturating_add(1), limit }.into());
        }
        if self.complete && !self.utf8.is_complete() {
            return Err(ProtocolError::InvalidUtf8.into());
        }
        Ok(match self.content {
            Content::Pieces(kind) if !decoded.is_empty() || self.complete => {
                let first = std::mem::replace(&mut self.first, false);
                Step::Found(used, Found::DecodedPiece { kind, first, last: self.complete, frame })
            }
            Content::Text(_) | Content::Binary(_) if self.complete => Step::Found(used, Found::Collected),
            Content::Text(_) | Content::Binary(_) | Content::Pieces(_) => Step::Used(used),
        })
    }
}

/// The most payload that an extension gets at once: what it does not use is unmasked in vain.
const ENCODED_AT_ONCE: usize = 4096;

impl Content {
    fn kind(&self) -> MessageKind {
        match self {
            Self::Text(_) | Self::Pieces(MessageKind::Text) => MessageKind::Text,
            Self::Binary(_) | Self::Pieces(MessageKind::Binary) => MessageKind::Binary,
        }
    }

    fn receive(&self) -> Receive {
        match self {
            Self::Text(_) | Self::Binary(_) => Receive::Whole,
            Self::Pieces(_) => Receive::Pieces,
        }
    }

    /// Its memory, for another message that is received whole.
    fn emptied(self, kind: MessageKind) -> Self {
        let mut bytes = match self {
            Self::Text(text) => text.into_bytes(),
            Self::Binary(bytes) => bytes,
            Self::Pieces(_) => Vec::new(),
        };
        bytes.clear();
        match kind {
            MessageKind::Text => Self::Text(String::from_utf8(bytes).unwrap_or_default()),
            MessageKind::Binary => Self::Binary(bytes),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Pieces(_) => 0,
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Text(text) => text.capacity(),
            Self::Binary(bytes) => bytes.capacity(),
            Self::Pieces(_) => 0,
        }
    }

    /// Validates `payload` and keeps it, as far as that is to be done. `total` is what the message can have at most.
    fn append(&mut self, payload: &[u8], utf8: &mut Utf8, total: u64) -> Result<(), ReceiveError> {
        match self {
            Self::Text(text) => {
                let valid = utf8.feed(payload)?;
                let coming = valid.completed.map_or(0, char::len_utf8) + valid.text.len();
                match growth(text.len(), text.capacity(), coming, total) {
                    0 => {}
                    more => memory::reserve_text(text, more)?,
                }
                text.extend(valid.completed);
                text.push_str(valid.text);
            }
            Self::Binary(bytes) => {
                match growth(bytes.len(), bytes.capacity(), payload.len(), total) {
                    0 => {}
                    more => memory::reserve_exact(bytes, more)?,
                }
                bytes.extend_from_slice(payload);
            }
            Self::Pieces(MessageKind::Text) => {
                utf8.feed(payload)?;
            }
            Self::Pieces(MessageKind::Binary) => {}
        }
        Ok(())
    }
}

/// What to reserve behind `len` bytes when `coming` more have arrived: room for as much again, but not beyond `total`.
///
/// A peer that announces much and sends little makes us hold no more than twice what it sent.
fn growth(len: usize, capacity: usize, coming: usize, total: u64) -> usize {
    let needed = len + coming;
    if needed <= capacity {
        return 0;
    }
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    needed.saturating_mul(2).min(total).max(needed) - len
}

/// What one step did to the input.
enum Step {
    /// More is needed before anything can be consumed.
    Starved,
    /// So many bytes were consumed, without an event.
    Used(usize),
    /// So many bytes were consumed and gave an event.
    Found(usize, Found),
}

/// An event by its place in the bytes that gave it; a decoded piece is what the extension made of them. Only when nothing
/// more is to be changed is it turned into borrows.
enum Found {
    Unfragmented(MessageKind, Receive, Range<usize>),
    Collected,
    Piece { kind: MessageKind, first: bool, last: bool, frame: Frame, payload: Range<usize> },
    DecodedPiece { kind: MessageKind, first: bool, last: bool, frame: Frame },
    Control(Opcode, Range<usize>),
}

impl Found {
    fn event<'a>(
        self,
        input: &'a [u8],
        message: Option<&'a Partial>,
        decoded: &'a [u8],
    ) -> Result<Event<'a>, ProtocolError> {
        Ok(match self {
            Self::Unfragmented(kind, receive, payload) => {
                let payload = &input[payload];
                let message = match kind {
                    MessageKind::Text => Message::Text(utf8::validate(payload)?),
                    MessageKind::Binary => Message::Binary(payload),
                };
                match receive {
                    Receive::Whole => Event::Message(message),
                    Receive::Pieces => Event::Piece(Piece {
                        kind,
                        payload,
                        first: true,
                        last: true,
                        remaining_in_frame: 0,
                        final_fragment: true,
                    }),
                }
            }
            Self::Collected => match &message.expect("a message was collected").content {
                Content::Text(text) => Event::Message(Message::Text(text)),
                Content::Binary(bytes) => Event::Message(Message::Binary(bytes)),
                Content::Pieces(_) => unreachable!("pieces are not collected"),
            },
            Self::Piece { kind, first, last, frame, payload } => Event::Piece(Piece {
                kind,
                payload: &input[payload],
                first,
                last,
                remaining_in_frame: frame.remaining,
                final_fragment: frame.is_final,
            }),
            Self::DecodedPiece { kind, first, last, frame } => Event::Piece(Piece {
                kind,
                payload: decoded,
                first,
                last,
                remaining_in_frame: frame.remaining,
                final_fragment: frame.is_final,
            }),
            Self::Control(Opcode::Ping, payload) => Event::Ping(&input[payload]),
            Self::Control(Opcode::Pong, payload) => Event::Pong(&input[payload]),
            Self::Control(_, payload) => Event::Close(CloseFrame::decode(&input[payload])?),
        })
    }
}

/// Unmasks the payload behind a header of `used` bytes and says where it lies, if `input` has it complete.
fn complete_payload(header: Header, used: usize, input: &mut [u8]) -> Option<Range<usize>> {
    let end = used.checked_add(usize::try_from(header.length).ok()?)?;
    let payload = input.get_mut(used..end)?;
    if let Some(key) = header.masking {
        mask::apply(key, payload);
    }
    Some(used..end)
}

#[cfg(test)]
mod tests {
    use super::super::{CloseCode, Sender, encode, encode_close, encode_ping, encode_pong};
    use super::*;
    use MessageKind::{Binary, Text};

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    /// A header but for its last byte, or a control frame but for its last.
    const LONGEST_REST: usize = 2 + 4 + 125 - 1;

    /// An event that owns its bytes. Pieces are put together to messages, so that all cuts of an input compare equal.
    #[derive(Clone, Debug, Eq, PartialEq)]
    enum Owned {
        Message(MessageKind, Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<(u16, String)>),
    }

    /// A transport's reader: keeps what is not consumed, checks what a receiver promises at every step.
    struct Reader {
        receiver: Receiver,
        settings: Settings,
        rest: Vec<u8>,
        arrived: usize,
        pieces: Option<(MessageKind, Vec<u8>)>,
        remaining: u64,
        events: Vec<Owned>,
        error: Option<ReceiveError>,
    }

    impl Reader {
        fn new(side: Side, receive: Receive) -> Self {
            Self {
                receiver: Receiver::new(side),
                settings: Settings { receive, ..Settings::default() },
                rest: Vec::new(),
                arrived: 0,
                pieces: None,
                remaining: 0,
                events: Vec::new(),
                error: None,
            }
        }

        fn read(&mut self, bytes: &[u8]) {
            self.arrived += bytes.len();
            self.rest.extend_from_slice(bytes);
            let mut used = 0;
            loop {
                let result = self.receiver.next(&mut self.rest[used..], &self.settings);
                let (bytes, event) = match result {
                    Ok(found) => found,
                    Err(error) => {
                        assert_eq!(self.error.replace(error), None, "only one error comes");
                        assert!(self.receiver.has_ended() && !self.receiver.in_message());
                        continue;
                    }
                };
                used += bytes;
                match event {
                    None => break,
                    Some(Event::Message(message)) => {
                        assert_eq!(self.settings.receive, Receive::Whole);
                        self.events.push(Owned::Message(message.kind(), message.as_bytes().to_vec()));
                    }
                    Some(Event::Piece(piece)) => {
                        assert_eq!(piece.first, self.pieces.is_none());
                        assert!(piece.first || piece.last || !piece.payload.is_empty());
                        assert_eq!(piece.last, piece.final_fragment && piece.remaining_in_frame == 0);
                        if self.remaining > 0 {
                            assert_eq!(self.remaining, piece.payload.len() as u64 + piece.remaining_in_frame);
                        }
                        self.remaining = piece.remaining_in_frame;
                        let (kind, mut bytes) = self.pieces.take().unwrap_or((piece.kind, Vec::new()));
                        assert_eq!(kind, piece.kind);
                        bytes.extend_from_slice(piece.payload);
                        if piece.last {
                            self.events.push(Owned::Message(kind, bytes));
                        } else {
                            self.pieces = Some((kind, bytes));
                        }
                    }
                    Some(Event::Ping(payload)) => self.events.push(Owned::Ping(payload.to_vec())),
                    Some(Event::Pong(payload)) => self.events.push(Owned::Pong(payload.to_vec())),
                    Some(Event::Close(close)) => {
                        let close = close.map(|close| (close.code.get(), close.reason.to_owned()));
                        self.events.push(Owned::Close(close));
                    }
                }
            }
            self.rest.drain(..used);
            assert!(self.rest.len() <= LONGEST_REST);
            let bound = if self.receiver.in_message() { size_of::<Partial>() + 2 * self.arrived } else { 0 };
            assert!(self.receiver.held() <= bound, "{} held of {bound}", self.receiver.held());
        }

        fn finish(self) -> (Vec<Owned>, Option<ReceiveError>) {
            (self.events, self.error)
        }
    }

    type Outcome = (Vec<Owned>, Option<ReceiveError>);

    fn read<'a>(side: Side, receive: Receive, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let mut reader = Reader::new(side, receive);
        chunks.into_iter().for_each(|chunk| reader.read(chunk));
        reader.finish()
    }

    /// Reads `input` whole, in single bytes, and in every split into two; the outcome must be the same.
    fn read_every_split(side: Side, receive: Receive, input: &[u8]) -> Outcome {
        let whole = read(side, receive, [input]);
        assert_eq!(read(side, receive, input.chunks(1)), whole);
        for at in 0..=input.len() {
            assert_eq!(read(side, receive, [&input[..at], &input[at..]]), whole, "split at {at}");
        }
        whole
    }

    fn frame(first_byte: u8, payload: &[u8], masking: Option<[u8; 4]>) -> Vec<u8> {
        let opcode = Opcode::from_bits(first_byte & 0x0f).unwrap();
        let fin = first_byte & FIN != 0;
        let header = Header { fin, rsv: first_byte & 0x70, opcode, masking, length: payload.len() as u64 };
        let mut out = header.encode().as_bytes().to_vec();
        mask::apply_copy(masking.unwrap_or_default(), payload, &mut out);
        out
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

        fn key(&mut self, side: Side) -> Option<[u8; 4]> {
            (side == Side::Server).then(|| (self.below(1 << 32) as u32).to_ne_bytes())
        }

        fn chunks<'a>(&mut self, mut input: &'a [u8], longest: usize) -> Vec<&'a [u8]> {
            let mut chunks = Vec::new();
            while !input.is_empty() {
                let (chunk, rest) = input.split_at((1 + self.below(longest)).min(input.len()));
                chunks.push(chunk);
                input = rest;
            }
            chunks
        }

        /// Text with characters of every width.
        fn text(&mut self, len: usize) -> String {
            (0..len).map(|_| ['a', 'é', '€', '🦀'][self.below(4)]).collect()
        }

        /// Messages in random fragments with control frames between them, and the events they must give.
        fn stream(&mut self, side: Side) -> (Vec<u8>, Vec<Owned>) {
            let mut bytes = Vec::new();
            let mut events = Vec::new();
            for _ in 0..1 + self.below(4) {
                let len = [0, 1, 30, 126, 400][self.below(5)];
                let (kind, payload) = match self.below(2) {
                    0 => (Text, self.text(len).into_bytes()),
                    _ => (Binary, (0..len).map(|_| self.below(256) as u8).collect()),
                };
                let mut sender = Sender::new();
                let mut rest = &payload[..];
                loop {
                    let (fragment, behind) = rest.split_at(self.below(rest.len() + 1));
                    let last = behind.is_empty() && self.below(2) == 0;
                    sender.encode_piece(&mut bytes, kind, fragment, last, self.key(side)).unwrap();
                    if last {
                        break;
                    }
                    rest = behind;
                    let body = vec![b'!'; self.below(126)];
                    match self.below(6) {
                        0 => {
                            encode_ping(&mut bytes, &body, self.key(side)).unwrap();
                            events.push(Owned::Ping(body));
                        }
                        1 => {
                            encode_pong(&mut bytes, &body, self.key(side)).unwrap();
                            events.push(Owned::Pong(body));
                        }
                        _ => {}
                    }
                }
                events.push(Owned::Message(kind, payload));
            }
            if self.below(2) == 0 {
                encode_close(&mut bytes, Some((CloseCode::NORMAL, "é")), self.key(side));
                events.push(Owned::Close(Some((1000, "é".into()))));
            }
            (bytes, events)
        }
    }

    const MODES: [(Side, Receive); 4] = [
        (Side::Server, Receive::Whole),
        (Side::Server, Receive::Pieces),
        (Side::Client, Receive::Whole),
        (Side::Client, Receive::Pieces),
    ];

    #[test]
    fn the_examples_of_the_rfc() {
        // Section 5.7.
        let hello = Owned::Message(Text, b"Hello".to_vec());
        let client: [(&[u8], Owned); 4] = [
            (b"\x81\x05Hello", hello.clone()),
            (b"\x01\x03Hel\x80\x02lo", hello.clone()),
            (b"\x89\x05Hello", Owned::Ping(b"Hello".to_vec())),
            (&[&b"\x82\x7e\x01\x00"[..], &[7; 256]].concat(), Owned::Message(Binary, vec![7; 256])),
        ];
        for (input, event) in client {
            for receive in [Receive::Whole, Receive::Pieces] {
                assert_eq!(read_every_split(Side::Client, receive, input), (vec![event.clone()], None));
            }
        }
        let server: [(&[u8], Owned); 2] = [
            (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", hello),
            (b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", Owned::Pong(b"Hello".to_vec())),
        ];
        for (input, event) in server {
            for receive in [Receive::Whole, Receive::Pieces] {
                assert_eq!(read_every_split(Side::Server, receive, input), (vec![event.clone()], None));
            }
        }
        let large = [&b"\x82\x7f\0\0\0\0\0\x01\0\0"[..], &[7; 65536]].concat();
        for (chunk, receive) in [(70_000, Receive::Whole), (1000, Receive::Whole), (1000, Receive::Pieces)] {
            let expected = vec![Owned::Message(Binary, vec![7; 65536])];
            assert_eq!(read(Side::Client, receive, large.chunks(chunk)), (expected, None));
        }
    }

    #[test]
    fn every_split_of_several_frames_gives_the_same_events() {
        for (side, receive) in MODES {
            let key = (side == Side::Server).then_some(KEY);
            let mut input = Vec::new();
            encode(&mut input, "é".into(), key);
            input.extend(frame(0x01, "a€".as_bytes(), key));
            input.extend(frame(0x89, b"between", key));
            input.extend(frame(0x00, b"", key));
            input.extend(frame(0x00, b"\xf0\x9f", key));
            input.extend(frame(0x8a, b"", key));
            input.extend(frame(0x80, b"\xa6\x80", key));
            encode(&mut input, (&[0xff; 130]).into(), key);
            input.extend(frame(0x02, b"", key));
            input.extend(frame(0x80, b"", key));
            encode_close(&mut input, Some((CloseCode::GOING_AWAY, "bye")), key);
            let expected = vec![
                Owned::Message(Text, "é".into()),
                Owned::Ping(b"between".to_vec()),
                Owned::Pong(vec![]),
                Owned::Message(Text, "a€🦀".into()),
                Owned::Message(Binary, vec![0xff; 130]),
                Owned::Message(Binary, vec![]),
                Owned::Close(Some((1001, "bye".into()))),
            ];
            assert_eq!(read_every_split(side, receive, &input), (expected, None));
        }
    }

    #[test]
    fn random_fragments_with_control_frames_between_give_what_was_sent() {
        let mut random = Random(0x1234_5678_9abc_def1);
        for round in 0..2000 {
            let (side, receive) = MODES[round % 4];
            let (bytes, events) = random.stream(side);
            for longest in [3, 40, 2000] {
                let chunks = random.chunks(&bytes, longest);
                assert_eq!(read(side, receive, chunks), (events.clone(), None));
            }
        }
    }

    #[test]
    fn nothing_a_peer_sends_panics_and_cuts_make_no_difference() {
        let mut random = Random(0xfeed_beef_1234_5671);
        for round in 0..6000 {
            let (side, receive) = MODES[round % 4];
            let mut bytes = match random.below(3) {
                0 => (0..random.below(300)).map(|_| random.below(256) as u8).collect(),
                _ => random.stream(side).0,
            };
            for _ in 0..random.below(4) {
                if !bytes.is_empty() {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
            }
            let whole = read(side, receive, [&bytes[..]]);
            assert_eq!(read(side, receive, bytes.chunks(1)), whole);
            assert_eq!(read(side, receive, random.chunks(&bytes, 50)), whole);
        }
    }

    #[test]
    fn every_mistake_has_its_error_and_close_code() {
        use ProtocolError::*;
        let cases: [(&[u8], ProtocolError); 18] = [
            (b"\xc1\x00", ReservedBits),
            (b"\xa1\x00", ReservedBits),
            (b"\x91\x00", ReservedBits),
            (b"\x83\x00", Opcode),
            (b"\x8b\x00", Opcode),
            (b"\x81\x80\0\0\0\0", Masking),
            (b"\x81\x7e\x00\x7d", LengthNotMinimal),
            (b"\x82\x7f\0\0\0\0\0\0\xff\xff", LengthNotMinimal),
            (b"\x82\x7f\x80\0\0\0\0\0\0\0", LengthTopBit),
            (b"\x09\x00", FragmentedControl),
            (b"\x89\x7e\x00\x7e", LongControl),
            (b"\x80\x00", ContinuationWithoutStart),
            (b"\x01\x01a\x81\x01b", MessageWithinMessage),
            (b"\x02\x01a\x02\x01b", MessageWithinMessage),
            (b"\x81\x01\xff", InvalidUtf8),
            (b"\x88\x01x", CloseTooShort),
            (b"\x88\x02\x03\xed", CloseCode),
            (b"\x88\x03\x03\xe8\xff", InvalidUtf8),
        ];
        for (input, error) in cases {
            for receive in [Receive::Whole, Receive::Pieces] {
                // What follows an error is ignored.
                let input = [input, b"\x81\x01x"].concat();
                let (events, found) = read_every_split(Side::Client, receive, &input);
                assert_eq!((events, found), (vec![], Some(error.into())), "{input:x?}");
            }
        }
        assert_eq!(read(Side::Server, Receive::Whole, [&b"\x81\x00"[..]]), (vec![], Some(Masking.into())));
        assert_eq!(ReceiveError::from(InvalidUtf8).close_code(), super::super::CloseCode::INVALID_PAYLOAD);
        assert_eq!(ReceiveError::from(Masking).close_code(), super::super::CloseCode::PROTOCOL_ERROR);
    }

    #[test]
    fn text_fails_with_its_first_wrong_byte() {
        let texts: [&[u8]; 5] = [
            b"ok\xff....",
            "κόσμε\u{10ffff}".as_bytes(),
            b"\xed\xa0\x80x",
            b"a\xf4\x90\x80\x80",
            b"\xe2\x28\xa1",
        ];
        for (side, receive) in MODES {
            let key = (side == Side::Server).then_some(KEY);
            for text in texts {
                let first_wrong = (1..=text.len()).find(|&end| {
                    str::from_utf8(&text[..end]).is_err_and(|error| error.error_len().is_some())
                });
                // Once as one long frame that never ends, once with a fragment for each byte.
                let header =
                    Header { fin: true, rsv: 0, opcode: Opcode::Text, masking: key, length: 1000 }.encode();
                let masked = frame(0x81, text, key);
                let payload = &masked[masked.len() - text.len()..];
                let mut one_frame = Reader::new(side, receive);
                one_frame.read(header.as_bytes());
                let mut fragments = Reader::new(side, receive);
                for at in 0..text.len() {
                    one_frame.read(&payload[at..=at]);
                    fragments.read(&frame(u8::from(at == 0), &text[at..=at], key));
                    let wrong = first_wrong.is_some_and(|end| at + 1 >= end);
                    let expected = wrong.then_some(ReceiveError::Protocol(ProtocolError::InvalidUtf8));
                    assert_eq!((one_frame.error, fragments.error), (expected, expected), "{text:x?} at {at}");
                }
            }
        }
    }

    #[test]
    fn text_must_not_end_within_a_character() {
        for receive in [Receive::Whole, Receive::Pieces] {
            for input in [&b"\x81\x02a\xc3"[..], b"\x01\x02a\xc3\x80\x00", b"\x01\x02a\xe2\x80\x01\x82"] {
                let (events, error) = read_every_split(Side::Client, receive, input);
                assert_eq!((events, error), (vec![], Some(ProtocolError::InvalidUtf8.into())));
            }
        }
    }

    #[test]
    fn an_incomplete_header_or_control_frame_is_not_touched() {
        let input = frame(0x89, b"Hello", Some(KEY));
        for end in 0..input.len() {
            let mut part = input[..end].to_vec();
            let mut receiver = Receiver::new(Side::Server);
            assert_eq!(receiver.next(&mut part, &Settings::default()), Ok((0, None)));
            assert_eq!(part, input[..end]);
            assert_eq!(receiver.held(), 0);
        }
    }

    #[test]
    fn pieces_say_where_they_belong() {
        let mut reader = Receiver::new(Side::Client);
        let settings = Settings { receive: Receive::Pieces, ..Settings::default() };
        let mut expect = |input: &[u8], used: usize, expected: Option<Piece<'_>>| {
            let mut input = input.to_vec();
            assert_eq!(reader.next(&mut input, &settings), Ok((used, expected.map(Event::Piece))));
            assert_eq!(reader.held() > 0, reader.in_message(), "what is done is let go at once");
        };
        let piece = Piece {
            kind: Binary,
            payload: b"",
            first: false,
            last: false,
            remaining_in_frame: 0,
            final_fragment: false,
        };
        // An empty first fragment, an empty one in the middle, three bytes in two parts, an empty last fragment.
        expect(b"\x02\x00", 2, Some(Piece { first: true, ..piece }));
        expect(b"\x00\x00", 2, None);
        expect(b"\x00\x03ab", 4, Some(Piece { payload: b"ab", remaining_in_frame: 1, ..piece }));
        expect(b"c\x80\x00", 1, Some(Piece { payload: b"c", ..piece }));
        expect(b"\x80\x00", 2, Some(Piece { last: true, final_fragment: true, ..piece }));
        // A header without payload says nothing yet; the message begins with its first byte.
        expect(b"\x82\x02", 2, None);
        let first =
            Piece { payload: b"a", first: true, remaining_in_frame: 1, final_fragment: true, ..piece };
        expect(b"a", 1, Some(first));
        expect(b"b", 1, Some(Piece { payload: b"b", last: true, final_fragment: true, ..piece }));
        // A complete one.
        let whole = Piece { payload: b"ab", first: true, last: true, final_fragment: true, ..piece };
        expect(b"\x82\x02ab", 4, Some(whole));
        assert_eq!(reader.held(), 0);
    }

    #[test]
    fn a_change_of_settings_waits_for_the_next_message() {
        let mut receiver = Receiver::new(Side::Client);
        let mut settings = Settings::default();
        assert_eq!(receiver.next(&mut b"\x02\x01a".to_owned(), &settings), Ok((3, None)));
        settings.receive = Receive::Pieces;
        let mut input = *b"\x80\x01b\x82\x01c";
        let whole = Event::Message(Message::Binary(b"ab"));
        assert_eq!(receiver.next(&mut input, &settings), Ok((3, Some(whole))));
        assert!(matches!(receiver.next(&mut input[3..], &settings), Ok((3, Some(Event::Piece(_))))));

        // The limit for whole messages stays with the one that was begun whole.
        settings = Settings { max_message: 2, ..Settings::default() };
        assert_eq!(receiver.next(&mut b"\x02\x01a".to_owned(), &settings), Ok((3, None)));
        settings.receive = Receive::Pieces;
        let too_large = TooLarge { size: 3, limit: 2 };
        assert_eq!(receiver.next(&mut b"\x80\x02bc".to_owned(), &settings), Err(too_large.into()));
    }

    #[test]
    fn a_length_in_more_bytes_than_needed_is_refused_also_in_a_complete_frame() {
        for receive in [Receive::Whole, Receive::Pieces] {
            for length in [0, 1, 125, 126] {
                let input = [&[0x82, 126, 0, length][..], &vec![7; length.into()]].concat();
                let (events, error) = read_every_split(Side::Client, receive, &input);
                let refused = (length < 126).then_some(ProtocolError::LengthNotMinimal.into());
                assert_eq!((events.is_empty(), error), (length < 126, refused));
            }
        }
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let too_large = |size, limit| Some(ReceiveError::TooLarge(TooLarge { size, limit }));
        let run = |receive, max_message, max_frame, input: &[u8]| {
            let mut reader = Reader::new(Side::Client, receive);
            reader.settings.max_message = max_message;
            reader.settings.max_frame = max_frame;
            reader.read(input);
            reader.finish().1
        };
        let (whole, pieces) = (Receive::Whole, Receive::Pieces);
        // One frame, complete or known by its header only.
        assert_eq!(run(whole, 4, u64::MAX, b"\x82\x04abcd"), None);
        assert_eq!(run(whole, 3, u64::MAX, b"\x82\x04abcd"), too_large(4, 3));
        assert_eq!(run(whole, 3, u64::MAX, b"\x82\x04"), too_large(4, 3));
        assert_eq!(run(whole, 3, u64::MAX, b"\x82\x7f\0\0\0\0\0\x01\0\0"), too_large(0x1_0000, 3));
        // Fragments.
        assert_eq!(run(whole, 4, u64::MAX, b"\x02\x02ab\x80\x02cd"), None);
        assert_eq!(run(whole, 3, u64::MAX, b"\x02\x02ab\x80\x02"), too_large(4, 3));
        // Pieces are bounded by the frame only.
        assert_eq!(run(pieces, 3, u64::MAX, b"\x82\x04abcd"), None);
        for receive in [whole, pieces] {
            assert_eq!(run(receive, 100, 2, b"\x02\x02ab\x80\x02cd"), None);
            assert_eq!(run(receive, 100, 3, b"\x02\x02ab\x80\x04"), too_large(4, 3));
            assert_eq!(run(receive, 100, 3, b"\x82\x04abcd"), too_large(4, 3));
        }
        assert_eq!(too_large(4, 3).unwrap().close_code(), CloseCode::TOO_BIG);
    }

    #[test]
    fn memory_follows_what_arrived_and_not_what_was_announced() {
        let mut receiver = Receiver::new(Side::Client);
        let settings = Settings { max_message: usize::MAX, ..Settings::default() };
        let mut input = *b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xffabc";
        assert_eq!(receiver.next(&mut input, &settings), Ok((13, None)));
        assert!(receiver.in_message());
        assert!(receiver.held() <= size_of::<Partial>() + 6);
        for arrived in (103..10_000).step_by(100) {
            assert_eq!(receiver.next(&mut [0; 100], &settings), Ok((100, None)));
            assert!(receiver.held() <= size_of::<Partial>() + 2 * arrived);
        }
        // Nor does it pass the limit: the last byte of a frame needs no spare room.
        assert_eq!(growth(60, 60, 10, 100), 40);
        assert_eq!(growth(10, 10, 10, 100), 30);
        assert_eq!(growth(10, 30, 10, 100), 0);
    }

    #[test]
    fn a_collected_message_is_let_go_at_the_next_call() {
        let mut receiver = Receiver::new(Side::Client);
        let settings = Settings::default();
        assert_eq!(receiver.next(&mut b"\x81\x02h".to_owned(), &settings), Ok((3, None)));
        assert!(receiver.in_message());
        let message = Event::Message(Message::Text("hi"));
        assert_eq!(receiver.next(&mut b"i".to_owned(), &settings), Ok((1, Some(message))));
        assert!(!receiver.in_message());
        assert_eq!(receiver.next(&mut [], &settings), Ok((0, None)));
        assert_eq!(receiver.held(), 0);
    }

    #[test]
    fn what_follows_a_close_is_ignored() {
        for (side, receive) in MODES {
            let key = (side == Side::Server).then_some(KEY);
            let mut input = frame(0x02, b"begun", key);
            encode_close(&mut input, None, key);
            input.extend(frame(0x80, b"ended", key));
            input.extend_from_slice(b"\xff\xff\xff");
            assert_eq!(read_every_split(side, receive, &input), (vec![Owned::Close(None)], None));
        }
    }

    #[test]
    fn every_close_code_is_judged() {
        for code in 0..=u16::MAX {
            let input = frame(0x88, &code.to_be_bytes(), None);
            let expected = if CloseCode::new(code).may_be_sent() {
                (vec![Owned::Close(Some((code, String::new())))], None)
            } else {
                (vec![], Some(ProtocolError::CloseCode.into()))
            };
            assert_eq!(read(Side::Client, Receive::Whole, [&input[..]]), expected);
        }
    }

    #[test]
    fn a_receiver_is_small() {
        assert!(size_of::<Receiver>() <= 16);
    }
}
