//! The content of a message: as long as announced, in chunks, or until the connection ends (RFC 9112, sections 6 and 7).
//!
//! Content is handed over borrowed, as it came; nothing of it is kept. Of chunk extensions, which have no use, only the
//! grammar is checked; of trailer fields, those that may not change the message any more are kept.

use super::head::Framing;
use crate::http::{Fields, StatusCode, is_forbidden_trailer, is_token};
use crate::limits::Limits;
use crate::memory;
use std::fmt;

/// The longest line that tells a chunk's size, with its extensions.
const CHUNK_LINE_MAX: u32 = 4 * 1024;
/// Extensions in all chunks of a request together: they cost the peer as much as content and us more, and say nothing.
const EXTENSIONS_MAX: u32 = 16 * 1024;
/// As many digits as a `u64` has; more would be leading zeros, without an end.
const DIGITS_MAX: u8 = 16;

/// Decodes the content of one message.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// No content, or its end has been handed over.
    None,
    /// So much is still to come.
    Length { left: u64 },
    /// In chunks.
    Chunked(Box<Chunked>),
    /// Until [`Decoder::finish`]; at most so much.
    Close { room: u64 },
}

/// What there is at the front of the input.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Step<'a> {
    /// Nothing yet: call again with more, after what was used.
    More,
    /// Content, not empty.
    Piece(&'a [u8]),
    /// The end of the content. What follows belongs to the next request.
    End(Fields),
}

impl Decoder {
    /// A decoder for content framed like this.
    ///
    /// # Errors
    ///
    /// [`BodyError::TooLarge`] when the announced length is beyond [`Limits::content`].
    pub(crate) fn new(framing: Framing, limits: &Limits) -> Result<Self, BodyError> {
        let most = limits.content.unwrap_or(u64::MAX);
        match framing {
            Framing::Length(length) if length > most => Err(BodyError::TooLarge),
            Framing::None | Framing::Length(0) => Ok(Self::None),
            Framing::Length(left) => Ok(Self::Length { left }),
            Framing::Chunked => Ok(Self::Chunked(Box::new(Chunked::new(limits)))),
            Framing::Close => Ok(Self::Close { room: most }),
        }
    }

    /// Takes one step, and says how many bytes of `input` it used. Those are not given again. After an error there is no way
    /// on: where the next request begins is unknown.
    pub(crate) fn next<'a>(&mut self, input: &'a [u8]) -> Result<(Step<'a>, usize), BodyError> {
        match self {
            Self::None => Ok((Step::End(Fields::new()), 0)),
            Self::Length { left: 0 } => {
                *self = Self::None;
                Ok((Step::End(Fields::new()), 0))
            }
            Self::Length { left } => Ok(take(left, input)),
            Self::Chunked(chunked) => {
                let (step, used) = chunked.next(input)?;
                if matches!(step, Step::End(_)) {
                    *self = Self::None;
                }
                Ok((step, used))
            }
            Self::Close { .. } if input.is_empty() => Ok((Step::More, 0)),
            Self::Close { room } => {
                *room = room.checked_sub(input.len() as u64).ok_or(BodyError::TooLarge)?;
                Ok((Step::Piece(input), input.len()))
            }
        }
    }

    /// Takes the end of the connection, after all that came before it: [`Step::End`] where the content is complete.
    ///
    /// # Errors
    ///
    /// [`BodyError::Truncated`] where some of it is missing (RFC 9112, section 8).
    pub(crate) fn finish(&mut self) -> Result<Step<'static>, BodyError> {
        match self {
            Self::None | Self::Length { left: 0 } | Self::Close { .. } => {
                *self = Self::None;
                Ok(Step::End(Fields::new()))
            }
            Self::Length { .. } | Self::Chunked(_) => Err(BodyError::Truncated),
        }
    }

    /// How many bytes are still to come, where that is known.
    pub(crate) fn announced(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Length { left } => Some(*left),
            Self::Chunked(_) | Self::Close { .. } => None,
        }
    }

    /// Whether nothing more is needed from the peer: what is left to do is to hand over the end.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self, Self::None | Self::Length { left: 0 })
    }
}

/// As much of `input` as is `left`.
fn take<'a>(left: &mut u64, input: &'a [u8]) -> (Step<'a>, usize) {
    let length = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= length as u64;
    match length {
        0 => (Step::More, 0),
        _ => (Step::Piece(&input[..length]), length),
    }
}

/// The chunked transfer coding (RFC 9112, section 7.1).
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes of the present chunk line, and of all extensions so far.
    line: u32,
    extensions: u32,
    /// Content that may still be announced.
    room: u64,
    trailers: Trailers,
}

/// Where in the coding the input stands.
///
/// ```text
///  ┌─────────────────────────────────────────────────────────────┐
///  ▼                                                             │
/// Size ─▶ (Extension) ─▶ SizeLf ─▶ Data ─▶ DataCr ─▶ DataLf ─────┘
///                          │ size 0
///                          └─▶ Trailer, line by line, until an empty one
/// ```
#[derive(Clone, Copy, Debug)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64, at: Extension },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer,
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112, section 7.1.1).
#[derive(Clone, Copy, Debug)]
enum Extension {
    /// Whitespace after the size or a value: only a semicolon may follow.
    BeforeSemicolon,
    /// After a semicolon.
    BeforeName,
    Name,
    /// Whitespace after a name.
    AfterName,
    /// After the equals sign.
    BeforeValue,
    Token,
    Quoted,
    /// After a backslash in a quoted string.
    Escaped,
    /// After the closing quote.
    AfterQuoted,
}

impl Chunked {
    fn new(limits: &Limits) -> Self {
        Self {
            state: State::Size { size: 0, digits: 0 },
            line: 0,
            extensions: 0,
            room: limits.content.unwrap_or(u64::MAX),
            trailers: Trailers::new(limits),
        }
    }

    fn next<'a>(&mut self, input: &'a [u8]) -> Result<(Step<'a>, usize), BodyError> {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            match self.state {
                State::Data { mut left } => {
                    let (step, length) = take(&mut left, &input[used..]);
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    return Ok((step, used + length));
                }
                State::Trailer => {
                    let (fields, length) = self.trailers.read(&input[used..])?;
                    return Ok((fields.map_or(Step::More, Step::End), used + length));
                }
                State::Size { .. }
                | State::Extension { .. }
                | State::SizeLf { .. }
                | State::DataCr
                | State::DataLf => {
                    self.byte(byte)?;
                    used += 1;
                }
            }
        }
        Ok((Step::More, used))
    }

    /// One byte of what is not content.
    fn byte(&mut self, byte: u8) -> Result<(), BodyError> {
        self.state = match (self.state, byte) {
            (State::Size { digits: 1.., size }, b'\r') => State::SizeLf { size },
            (State::Size { digits: 1.., size }, b';') => State::Extension { size, at: Extension::BeforeName },
            (State::Size { digits: 1.., size }, b' ' | b'\t') => {
                State::Extension { size, at: Extension::BeforeSemicolon }
            }
            (State::Size { size, digits }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(BodyError::ChunkSize)?;
                if digits == DIGITS_MAX {
                    return Err(BodyError::ChunkSize);
                }
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Extension { size, at }, _) => {
                self.extensions += 1;
                match at.step(byte)? {
                    Some(at) => State::Extension { size, at },
                    None => State::SizeLf { size },
                }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::Trailer,
            (State::SizeLf { size }, b'\n') => {
                self.room = self.room.checked_sub(size).ok_or(BodyError::TooLarge)?;
                State::Data { left: size }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::SizeLf { .. } | State::DataCr | State::DataLf, _) => return Err(BodyError::ChunkEnd),
            (State::Data { .. } | State::Trailer, _) => unreachable!("read in whole pieces by the caller"),
        };
        self.line += 1;
        if self.line > CHUNK_LINE_MAX || self.extensions > EXTENSIONS_MAX {
            return Err(BodyError::ExtensionsTooLong);
        }
        if matches!(self.state, State::Size { digits: 0, .. }) {
            self.line = 0;
        }
        Ok(())
    }
}

impl Extension {
    /// What comes after `byte`, or `None` when it is the CR that ends the line.
    fn step(self, byte: u8) -> Result<Option<Self>, BodyError> {
        use Extension::*;
        let blank = matches!(byte, b' ' | b'\t');
        let tchar = is_token(&[byte]);
        Ok(Some(match (self, byte) {
            (BeforeSemicolon, b';') => BeforeName,
            (BeforeSemicolon | BeforeName | AfterName | BeforeValue, _) if blank => self,
            (BeforeName, _) if tchar => Name,
            (Name, _) if tchar => Name,
            (Name, _) if blank => AfterName,
            (Name | AfterName, b'=') => BeforeValue,
            (Name | AfterName | Token | AfterQuoted, b';') => BeforeName,
            (Name | Token | AfterQuoted, b'\r') => return Ok(None),
            (BeforeValue, b'"') => Quoted,
            (BeforeValue | Token, _) if tchar => Token,
            (Token | AfterQuoted, _) if blank => BeforeSemicolon,
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
            (BeforeSemicolon | BeforeName | Name | AfterName | BeforeValue, _)
            | (Token | Quoted | Escaped | AfterQuoted, _) => return Err(BodyError::Extension),
        }))
    }
}

/// The trailer section (RFC 9112, section 7.1.2), a line at a time.
#[derive(Debug)]
struct Trailers {
    fields: Fields,
    /// The start of a line whose end has not come; nothing is allocated while lines come whole.
    partial: Vec<u8>,
    /// What may still come: bytes, fields.
    bytes: usize,
    count: usize,
}

impl Trailers {
    fn new(limits: &Limits) -> Self {
        Self { fields: Fields::new(), partial: Vec::new(), bytes: limits.head, count: limits.fields }
    }

    /// Reads lines until the empty one, which yields the fields, and says how much of `input` was used.
    fn read(&mut self, input: &[u8]) -> Result<(Option<Fields>, usize), BodyError> {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.keep(rest)?;
                return Ok((None, input.len()));
            };
            used += end + 1;
            if self.finish_line(&rest[..=end])? {
                return Ok((Some(std::mem::take(&mut self.fields)), used));
            }
        }
        Ok((None, used))
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), BodyError> {
        self.bytes = self.bytes.checked_sub(part.len()).ok_or(BodyError::TrailersTooLong)?;
        memory::reserve(&mut self.partial, part.len()).map_err(|_| BodyError::OutOfMemory)?;
        self.partial.extend_from_slice(part);
        Ok(())
    }

    /// Reads a line whose end is `part`. True when it is the empty one.
    fn finish_line(&mut self, part: &[u8]) -> Result<bool, BodyError> {
        if self.partial.is_empty() {
            self.bytes = self.bytes.checked_sub(part.len()).ok_or(BodyError::TrailersTooLong)?;
            return self.line(part);
        }
        self.keep(part)?;
        let mut line = std::mem::take(&mut self.partial);
        let empty = self.line(&line)?;
        line.clear();
        self.partial = line;
        Ok(empty)
    }

    fn line(&mut self, line: &[u8]) -> Result<bool, BodyError> {
        let line = line.strip_suffix(b"\r\n").ok_or(BodyError::Trailer)?;
        if line.is_empty() {
            return Ok(true);
        }
        self.count = self.count.checked_sub(1).ok_or(BodyError::TrailersTooLong)?;
        let colon = memchr::memchr(b':', line).ok_or(BodyError::Trailer)?;
        let name = std::str::from_utf8(&line[..colon]).map_err(|_| BodyError::Trailer)?;
        let mut checked = Fields::new();
        let fields = if is_forbidden_trailer(name) { &mut checked } else { &mut self.fields };
        fields.reserve(line.len()).map_err(|_| BodyError::OutOfMemory)?;
        fields.push(name, &line[colon + 1..]).map_err(|_| BodyError::Trailer)?;
        Ok(false)
    }
}

/// What is wrong with the content of a message. In a request, each is answered with [`status`](Self::status), where an answer
/// is still possible; all end the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyError {
    /// There is more content than [`Limits::content`] (RFC 9110, section 15.5.14).
    TooLarge,
    /// The size of a chunk is not 1 to 16 hexadecimal digits (RFC 9112, section 7.1).
    ChunkSize,
    /// A chunk's size or data is not followed by CRLF (RFC 9112, section 7.1).
    ChunkEnd,
    /// A chunk extension is malformed (RFC 9112, section 7.1.1).
    Extension,
    /// Chunk extensions are too long, on one line or in all (RFC 9112, section 7.1.1).
    ExtensionsTooLong,
    /// A trailer field is malformed (RFC 9112, section 7.1.2).
    Trailer,
    /// Trailer fields are too many, or too long together (RFC 6585, section 5).
    TrailersTooLong,
    /// The connection ended before the content did (RFC 9112, section 8).
    Truncated,
    /// The system has no memory for the trailer fields.
    OutOfMemory,
}

impl BodyError {
    /// The status code that the answer has.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::CONTENT_TOO_LARGE,
            Self::TrailersTooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::OutOfMemory => StatusCode::SERVICE_UNAVAILABLE,
            Self::ChunkSize
            | Self::ChunkEnd
            | Self::Extension
            | Self::ExtensionsTooLong
            | Self::Trailer
            | Self::Truncated => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "content too large",
            Self::ChunkSize => "malformed chunk size",
            Self::ChunkEnd => "chunk not followed by CRLF",
            Self::Extension => "malformed chunk extension",
            Self::ExtensionsTooLong => "chunk extensions too long",
            Self::Trailer => "malformed trailer field",
            Self::TrailersTooLong => "too many or too long trailer fields",
            Self::Truncated => "connection ended before the content did",
            Self::OutOfMemory => "no memory for the trailer fields",
        })
    }
}

impl std::error::Error for BodyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::testing::{Random, mutate};

    /// Content, trailer fields, and how much of the input was used; `None` when the end has not come.
    type Decoded = Option<(Vec<u8>, Fields, usize)>;

    /// Decodes `parts`, which the peer sends one after the other.
    fn decode(decoder: &mut Decoder, parts: &[&[u8]]) -> Result<Decoded, BodyError> {
        let (mut content, mut total) = (Vec::new(), 0);
        for part in parts {
            let mut rest = *part;
            loop {
                let (step, used) = decoder.next(rest)?;
                rest = &rest[used..];
                total += used;
                match step {
                    Step::More => break,
                    Step::Piece(piece) => content.extend_from_slice(piece),
                    Step::End(trailers) => return Ok(Some((content, trailers, total))),
                }
            }
            assert!(rest.is_empty(), "what is not the next request's has been used");
        }
        Ok(None)
    }

    fn chunked(input: &[u8]) -> Result<Decoded, BodyError> {
        decode(&mut Decoder::new(Framing::Chunked, &Limits::default()).unwrap(), &[input])
    }

    const BODY: &[u8] = b"5\r\nhello\r\n00A ; a ; b = \"q\\\"\\\\; \xff\" ;c=d\r\n, world...\r\n0;last\r\n\
        X-Checksum: abc\r\nContent-Length: 5\r\nX-Empty:\r\n\r\n";

    #[test]
    fn chunks_are_decoded_at_every_split() {
        let input = BODY;
        let with_next = [input, b"GET / HTTP/1.1"].concat();
        let check = |parts: &[&[u8]]| {
            let mut decoder = Decoder::new(Framing::Chunked, &Limits::default()).unwrap();
            let (content, trailers, used) = decode(&mut decoder, parts).unwrap().expect("the end came");
            assert_eq!(content, b"hello, world...");
            assert_eq!(trailers.lines(), b"X-Checksum: abc\r\nX-Empty: \r\n");
            assert_eq!(used, input.len());
            assert!(decoder.is_complete());
        };
        check(&[&with_next]);
        for split in 0..input.len() {
            check(&[&with_next[..split], &with_next[split..]]);
            check(&[&input[..split], &input[split..]]);
        }
        check(&input.chunks(1).collect::<Vec<_>>());
        for end in 0..input.len() {
            assert_eq!(chunked(&input[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn content_of_a_known_length_ends_there() {
        let input = b"helloGET";
        for split in 0..=5 {
            let mut decoder = Decoder::new(Framing::Length(5), &Limits::default()).unwrap();
            assert!(!decoder.is_complete());
            let decoded = decode(&mut decoder, &[&input[..split], &input[split..]]);
            assert_eq!(decoded, Ok(Some((b"hello".to_vec(), Fields::new(), 5))));
        }
        for framing in [Framing::None, Framing::Length(0)] {
            let mut decoder = Decoder::new(framing, &Limits::default()).unwrap();
            assert!(decoder.is_complete());
            assert_eq!(decode(&mut decoder, &[b"GET"]), Ok(Some((Vec::new(), Fields::new(), 0))));
        }
    }

    #[test]
    fn each_mistake_has_its_error() {
        use BodyError::*;
        for (input, expected) in [
            ("\r\n", ChunkSize),
            (" 5\r\n", ChunkSize),
            (";a\r\n", ChunkSize),
            ("0x5\r\nhello\r\n", ChunkSize),
            ("+5\r\nhello\r\n", ChunkSize),
            ("-1\r\n", ChunkSize),
            ("1_0\r\n", ChunkSize),
            ("5\nhello", ChunkSize),
            ("FFFFFFFFFFFFFFFF0\r\n", ChunkSize),
            ("00000000000000005\r\n", ChunkSize),
            ("5\rhello", ChunkEnd),
            ("5\r\nhello!!\r\n", ChunkEnd),
            ("5\r\nhello\n0", ChunkEnd),
            ("5\r\nhello\r0", ChunkEnd),
            ("5\r\nhello0\r\n", ChunkEnd),
            ("5 \r\nhello\r\n", Extension),
            ("5 6\r\n", Extension),
            ("5;\r\n", Extension),
            ("5;\nhello", Extension),
            ("5; \r\n", Extension),
            ("5;bad[=x\r\n", Extension),
            ("5;a=\r\n", Extension),
            ("5;a \r\n", Extension),
            ("5;a= \r\n", Extension),
            ("5;a=b \r\n", Extension),
            ("5;a=b c\r\n", Extension),
            ("5;a=\"b\r\n", Extension),
            ("5;a=\"b\"c\r\n", Extension),
            ("5;\0ext\r\n", Extension),
            ("5;a=\"\x7f\"\r\n", Extension),
            ("5;a\rX\r\n", ChunkEnd),
            ("0\r\n\n", Trailer),
            ("0\r\nA: b\n\r\n", Trailer),
            ("0\r\nA b: c\r\n\r\n", Trailer),
            ("0\r\nA : c\r\n\r\n", Trailer),
            ("0\r\nA: c\r\n d\r\n\r\n", Trailer),
            ("0\r\nA\r\n\r\n", Trailer),
            ("0\r\n: b\r\n\r\n", Trailer),
            ("0\r\nA: b\0\r\n\r\n", Trailer),
            ("0\r\nA: b\rc\r\n\r\n", Trailer),
            ("0\r\nHost: b\0\r\n\r\n", Trailer),
        ] {
            assert_eq!(chunked(input.as_bytes()), Err(expected), "{input:?}");
            let parts: Vec<_> = input.as_bytes().chunks(1).collect();
            let mut decoder = Decoder::new(Framing::Chunked, &Limits::default()).unwrap();
            assert_eq!(decode(&mut decoder, &parts), Err(expected), "{input:?}");
        }
    }

    #[test]
    fn the_largest_size_is_read_and_only_what_there_is_of_it_handed_over() {
        let mut decoder = Decoder::new(Framing::Chunked, &Limits::default()).unwrap();
        let header = b"FFFFFFFFFFFFFFFF\r\n";
        assert_eq!(decode(&mut decoder, &[header]), Ok(None));
        assert_eq!(decoder.next(b"abc"), Ok((Step::Piece(b"abc"), 3)));
        // A second chunk would go beyond what can be counted.
        assert_eq!(chunked(b"1\r\na\r\nFFFFFFFFFFFFFFFF\r\n"), Err(BodyError::TooLarge));
    }

    #[test]
    fn extensions_are_bounded_on_a_line_and_in_all() {
        let line = |length: usize| format!("1;{}\r\n", "a".repeat(length - 4)).into_bytes();
        let longest = CHUNK_LINE_MAX as usize;
        assert_eq!(chunked(&line(longest)), Ok(None));
        assert_eq!(chunked(&line(longest + 1)), Err(BodyError::ExtensionsTooLong));
        let one = b"1;ab\r\nx\r\n"; // counts a, b and the CR
        let most = EXTENSIONS_MAX as usize / 3;
        assert_eq!(chunked(&one.repeat(most)), Ok(None));
        assert_eq!(chunked(&one.repeat(most + 1)), Err(BodyError::ExtensionsTooLong));
        assert_eq!(chunked(&b"1\r\nx\r\n".repeat(10_000)), Ok(None));
    }

    #[test]
    fn trailers_are_bounded_in_bytes_and_in_number() {
        let limits = |head, fields| Limits { head, fields, ..Limits::default() };
        let input = b"0\r\nA: b\r\nHost: c\r\n\r\n";
        let bytes = input.len() - 3;
        for (limits, fits) in
            [(limits(bytes, 2), true), (limits(bytes - 1, 2), false), (limits(bytes, 1), false)]
        {
            for parts in [vec![&input[..]], input.chunks(1).collect()] {
                let mut decoder = Decoder::new(Framing::Chunked, &limits).unwrap();
                match decode(&mut decoder, &parts) {
                    Ok(Some((_, trailers, _))) => assert!(fits && trailers.len() == 1),
                    other => assert!(!fits && other == Err(BodyError::TrailersTooLong)),
                }
            }
        }
        assert_eq!(BodyError::TrailersTooLong.status().code(), 431);
    }

    #[test]
    fn content_beyond_the_limit_is_refused_when_it_is_announced() {
        let limits = Limits { content: Some(5), ..Limits::default() };
        assert!(Decoder::new(Framing::Length(5), &limits).is_ok());
        assert_eq!(Decoder::new(Framing::Length(6), &limits).err(), Some(BodyError::TooLarge));
        let decode = |input: &[u8]| decode(&mut Decoder::new(Framing::Chunked, &limits).unwrap(), &[input]);
        assert!(decode(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").is_ok_and(|decoded| decoded.is_some()));
        assert_eq!(decode(b"3\r\nabc\r\n3\r\n"), Err(BodyError::TooLarge));
        assert_eq!(BodyError::TooLarge.status().code(), 413);
    }

    #[test]
    fn content_until_the_end_of_the_connection_ends_there() {
        let limits = Limits { content: Some(5), ..Limits::default() };
        let mut decoder = Decoder::new(Framing::Close, &limits).unwrap();
        assert!(!decoder.is_complete());
        assert_eq!(decoder.next(b""), Ok((Step::More, 0)));
        assert_eq!(decoder.next(b"hel"), Ok((Step::Piece(b"hel"), 3)));
        assert_eq!(decoder.next(b"lo"), Ok((Step::Piece(b"lo"), 2)));
        assert_eq!(decoder.next(b""), Ok((Step::More, 0)));
        assert_eq!(decoder.finish(), Ok(Step::End(Fields::new())));
        assert!(decoder.is_complete());
        let mut long = Decoder::new(Framing::Close, &limits).unwrap();
        assert_eq!(long.next(b"hello!"), Err(BodyError::TooLarge));
        let mut empty = Decoder::new(Framing::Close, &limits).unwrap();
        assert_eq!(empty.finish(), Ok(Step::End(Fields::new())));
    }

    #[test]
    fn a_connection_that_ends_too_early_is_an_error() {
        let after = |framing, input: &[u8]| {
            let mut decoder = Decoder::new(framing, &Limits::default()).unwrap();
            let mut rest = input;
            while let (Step::Piece(_), used) = decoder.next(rest).unwrap() {
                rest = &rest[used..];
            }
            decoder.finish().map(|_| ())
        };
        assert_eq!(after(Framing::None, b""), Ok(()));
        assert_eq!(after(Framing::Length(0), b""), Ok(()));
        assert_eq!(after(Framing::Length(5), b"hello"), Ok(()));
        assert_eq!(after(Framing::Length(5), b"hell"), Err(BodyError::Truncated));
        assert_eq!(after(Framing::Length(1), b""), Err(BodyError::Truncated));
        let whole = b"5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(after(Framing::Chunked, whole), Ok(()));
        for end in 0..whole.len() {
            assert_eq!(after(Framing::Chunked, &whole[..end]), Err(BodyError::Truncated), "{end}");
        }
    }

    #[test]
    fn no_input_panics_and_no_split_changes_the_answer() {
        let mut random = Random::new(0x2545_f491_4f6c_dd1d);
        for _ in 0..5000 {
            let input = mutate(BODY, &mut random);
            let at = random.below(input.len() + 1);
            let mut decoder = Decoder::new(Framing::Chunked, &Limits::default()).unwrap();
            let split = decode(&mut decoder, &[&input[..at], &input[at..]]);
            assert_eq!(chunked(&input), split, "{}", input.escape_ascii());
        }
    }
}
