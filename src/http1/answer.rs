//! The head of a response (RFC 9112, sections 2 to 6) that a client receives: where it ends, and what it says.
//!
//! It is read as strictly as that of a [request](super::head): a response whose length two readers see differently is how
//! one client is given another's answer (RFC 9112, section 11.1).

use super::head::{Coding, Fault, Framing, Options, read_length, scan};
use crate::http::{StatusCode, Version, is_field_value};
use httparse::Header;
use std::fmt;
use std::mem::MaybeUninit;

/// A response's head that has passed every check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) version: Version,
    pub(crate) status: StatusCode,
    pub(crate) reason: &'a [u8],
    pub(crate) fields: &'a [Header<'a>],
    /// How the content that follows is delimited.
    pub(crate) framing: Framing,
    /// `Content-Length`, also where no content follows.
    pub(crate) length: Option<u64>,
    /// The server takes another request on the connection, and where the response ends is known without its end
    /// (RFC 9112, section 9.3).
    pub(crate) keep_alive: bool,
    /// `Connection: upgrade`, in version 1.1 and with an `Upgrade` field (RFC 9110, section 7.8).
    #[cfg_attr(not(test), expect(dead_code, reason = "the opening handshake reads the fields itself"))]
    pub(crate) upgrade: bool,
}

/// What the request's method means for the response (RFC 9112, section 6.3, items 1 and 2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Asking {
    /// `HEAD`: no content, whatever the fields say.
    Head,
    /// `CONNECT`: success makes a tunnel.
    Connect,
    /// Any other.
    Content,
}

impl Asking {
    /// By the request's method.
    pub(crate) fn by(method: &str) -> Self {
        match method {
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            _ => Self::Content,
        }
    }
}

/// Looks for the end of a head at the front of `input`, and returns how long the head is, with the empty line that ends it.
///
/// `None` when there is no end yet: call again with the same bytes and more. `seen`, 0 for a new head and set back to 0 at its
/// end, is how much has been looked at. `limit` is the most that a head may have.
///
/// What cannot become a response is an error as soon as it is there, so that nobody waits for the rest of it.
pub(crate) fn find_end(input: &[u8], seen: &mut usize, limit: usize) -> Result<Option<usize>, AnswerError> {
    scan(input, 0, seen, limit, check_start, check_status_line)
}

/// Whether `input` can be the start of a status line (RFC 9112, section 4), up to the byte behind the status code.
fn check_start(input: &[u8]) -> Result<(), AnswerError> {
    const NAME: &[u8; 5] = b"HTTP/";
    for (at, &byte) in input.iter().enumerate().take(13) {
        let right = match at {
            // The content types of an alert and of a handshake record (RFC 8446, section 5.1).
            0 if matches!(byte, 21 | 22) => return Err(AnswerError::Tls),
            0..5 if byte != NAME[at] => return Err(AnswerError::NotHttp),
            0..5 => true,
            5 | 7 if byte.is_ascii_digit() && !matches!((at, byte), (_, b'1') | (7, b'0')) => {
                return Err(AnswerError::VersionNotSupported);
            }
            5 | 7 => byte.is_ascii_digit(),
            6 => byte == b'.',
            8 => byte == b' ',
            9 if matches!(byte, b'0' | b'6'..=b'9') => return Err(AnswerError::Status),
            9..=11 => byte.is_ascii_digit(),
            // Without a reason phrase, some leave out the space too. LF is an error of the line's end.
            _ => matches!(byte, b' ' | b'\r' | b'\n'),
        };
        if !right {
            return Err(AnswerError::StatusLine);
        }
    }
    Ok(())
}

/// Whether the rest of a status line, without its end, is a reason phrase.
fn check_status_line(line: &[u8]) -> Result<(), AnswerError> {
    match line.len() >= 12 && is_field_value(&line[12..]) {
        true => Ok(()),
        false => Err(AnswerError::StatusLine),
    }
}

/// Reads a head that [`find_end`] has delimited; `room` is for its fields, and thereby bounds how many there can be. Nothing is
/// allocated or copied. A folded line is refused, although RFC 9112, section 5.2, would have it unfolded.
pub(crate) fn parse<'h, 'b: 'h>(
    head: &'b [u8],
    room: &'h mut [MaybeUninit<Header<'b>>],
    asking: Asking,
) -> Result<Answer<'h>, AnswerError> {
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, head, room)? {
        httparse::Status::Complete(used) if used == head.len() => {}
        _ => return Err(AnswerError::LineEnd),
    }
    let httparse::Response { version: Some(minor), code: Some(code), headers: fields, .. } = response else {
        return Err(AnswerError::StatusLine);
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let status = StatusCode::new(code).ok_or(AnswerError::Status)?;
    let line = &head[..memchr::memchr(b'\r', head).unwrap_or(head.len())];
    let reason = line.get(13..).unwrap_or_default();

    let mut known = Known::default();
    for field in fields.iter() {
        known.read(field)?;
    }
    let framing = known.framing(version, status, asking)?;
    let newer = version > Version::Http10;
    Ok(Answer {
        version,
        status,
        reason,
        fields,
        framing,
        length: known.length,
        keep_alive: known.connection.keeps_alive(version) && framing != Framing::Close,
        upgrade: newer && known.connection.upgrade && known.upgrade,
    })
}

impl<'a> Answer<'a> {
    /// The values of all fields of this name, in any case, in order.
    pub(crate) fn field_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}

/// What the fields that concern us have said, read line by line.
#[derive(Default)]
struct Known {
    length: Option<u64>,
    coding: Option<Coding>,
    connection: Options,
    upgrade: bool,
}

impl Known {
    fn read(&mut self, field: &Header<'_>) -> Result<(), AnswerError> {
        let name = |known: &str| field.name.eq_ignore_ascii_case(known);
        match field.name.len() {
            7 if name("Upgrade") => self.upgrade = true,
            10 if name("Connection") => self.connection.read(field.value),
            14 if name("Content-Length") => {
                let length = read_length(field.value).ok_or(AnswerError::ContentLength)?;
                // Two equal ones are refused as well, as in a request.
                if self.length.replace(length).is_some() {
                    return Err(AnswerError::SecondContentLength);
                }
            }
            17 if name("Transfer-Encoding") => {
                self.coding.get_or_insert_default().read(field.value).ok_or(AnswerError::TransferCoding)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112, section 6.3. The fields have to make sense also where there is no content: the next reader may not know that.
    fn framing(&self, version: Version, status: StatusCode, asking: Asking) -> Result<Framing, AnswerError> {
        if asking == Asking::Connect && status.is_success() {
            return Ok(Framing::None);
        }
        let framing = match (self.coding, self.length) {
            (None, None) => Framing::Close,
            (None, Some(length)) => Framing::Length(length),
            (Some(_), Some(_)) => return Err(AnswerError::LengthAndCoding),
            (Some(_), None) if version == Version::Http10 => return Err(AnswerError::CodingInHttp10),
            (Some(coding), None) if coding.unknown => return Err(AnswerError::CodingNotSupported),
            (Some(_), None) => Framing::Chunked,
        };
        let no_content = asking == Asking::Head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(if no_content { Framing::None } else { framing })
    }
}

/// What is wrong with a response's head. Each ends the connection, since where the next response would begin is not known, or
/// not agreed upon.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnswerError {
    /// It does not start with `HTTP/`, so it is no response (RFC 9112, section 4). The peer speaks something else.
    NotHttp,
    /// It starts like a record of TLS (RFC 8446, section 5.1): the scheme should be `https` or `wss`.
    Tls,
    /// The version is neither 1.1 nor 1.0 (RFC 9110, section 2.5).
    VersionNotSupported,
    /// The status line is not version, status code and reason phrase, with one space between (RFC 9112, section 4).
    StatusLine,
    /// The status code is not one of 100 to 599 (RFC 9110, section 15).
    Status,
    /// A CR or LF that is not part of a CRLF (RFC 9112, section 2.2).
    LineEnd,
    /// The head is longer than [`Limits::head`](crate::Limits::head).
    TooLong,
    /// There are more fields than [`Limits::fields`](crate::Limits::fields).
    TooManyFields,
    /// A field line has no name, or one that is not a token, or whitespace beside it, or is folded (RFC 9112, section 5).
    FieldName,
    /// A field value holds a control character (RFC 9110, section 5.5).
    FieldValue,
    /// `Content-Length` is not a number, or too large a one (RFC 9110, section 8.6).
    ContentLength,
    /// There is more than one `Content-Length` (RFC 9112, section 6.3).
    SecondContentLength,
    /// There are both `Content-Length` and `Transfer-Encoding` (RFC 9112, section 6.3).
    LengthAndCoding,
    /// There is `Transfer-Encoding` in a 1.0 response (RFC 9112, section 6.1).
    CodingInHttp10,
    /// `Transfer-Encoding` is malformed: an empty element, `chunked` not last, twice, or with parameters (RFC 9112, section 6.1).
    TransferCoding,
    /// `Transfer-Encoding` names another coding than `chunked` (RFC 9112, section 6.1).
    CodingNotSupported,
}

impl From<Fault> for AnswerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::LineEnd => Self::LineEnd,
            Fault::FirstLineTooLong | Fault::TooLong => Self::TooLong,
        }
    }
}

impl From<httparse::Error> for AnswerError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => Self::FieldName,
            httparse::Error::HeaderValue => Self::FieldValue,
            httparse::Error::NewLine => Self::LineEnd,
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::Token | httparse::Error::Version | httparse::Error::Status => Self::StatusLine,
        }
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHttp => "not an HTTP response",
            Self::Tls => "TLS in place of an HTTP response: the scheme should be https or wss",
            Self::VersionNotSupported => "version of HTTP not supported",
            Self::StatusLine => "malformed status line",
            Self::Status => "status code not in 100 to 599",
            Self::LineEnd => "line end that is not CRLF",
            Self::TooLong => "head too long",
            Self::TooManyFields => "too many fields",
            Self::FieldName => "malformed field name",
            Self::FieldValue => "control character in a field value",
            Self::ContentLength => "malformed Content-Length",
            Self::SecondContentLength => "more than one Content-Length",
            Self::LengthAndCoding => "Content-Length with Transfer-Encoding",
            Self::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::TransferCoding => "malformed Transfer-Encoding",
            Self::CodingNotSupported => "transfer coding not supported",
        })
    }
}

impl std::error::Error for AnswerError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::testing::{Random, mutate};

    /// Finds and parses one head in 16 KiB and 100 fields, and hands it on.
    fn with_answer<T>(
        input: &[u8],
        asking: Asking,
        then: impl FnOnce(Answer<'_>) -> T,
    ) -> Result<T, AnswerError> {
        let end = find_end(input, &mut 0, 16 * 1024)?.expect("the head is whole");
        parse(&input[..end], &mut [const { MaybeUninit::uninit() }; 100], asking).map(then)
    }

    fn error(input: &[u8]) -> Option<AnswerError> {
        with_answer(input, Asking::Content, |_| ()).err()
    }

    /// A response with this status and these lines.
    fn answer(status: &str, lines: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\n{lines}\r\n").into_bytes()
    }

    const SERVER: &[u8] = b"HTTP/1.1 200 All is well\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX:\r\n\
        Content-Type: text/plain\r\nSet-Cookie: a=b\r\nContent-Length: 51\r\nSet-Cookie: c=d, e\xff\r\n\r\n";

    #[test]
    fn a_head_says_what_came() {
        with_answer(SERVER, Asking::Content, |answer| {
            assert_eq!((answer.version, answer.status), (Version::Http11, StatusCode::OK));
            assert_eq!(answer.reason, b"All is well");
            assert_eq!((answer.framing, answer.length), (Framing::Length(51), Some(51)));
            assert_eq!((answer.keep_alive, answer.upgrade), (true, false));
            assert_eq!(answer.field_all("set-COOKIE").collect::<Vec<_>>(), [&b"a=b"[..], b"c=d, e\xff"]);
            assert_eq!(answer.fields.len(), 6);
        })
        .unwrap();
    }

    #[test]
    fn the_end_is_found_at_every_split_and_byte_by_byte() {
        for input in [SERVER, b"HTTP/1.0 404\r\n\r\n", b"HTTP/1.1 200 \r\nA: b\r\n\r\n"] {
            let whole = [input, b"content"].concat();
            for split in 0..input.len() {
                let mut seen = 0;
                assert_eq!(find_end(&whole[..split], &mut seen, 1024), Ok(None), "{split}");
                assert_eq!(find_end(&whole, &mut seen, 1024), Ok(Some(input.len())), "{split}");
                assert_eq!(seen, 0);
            }
            let mut seen = 0;
            for length in 0..input.len() {
                assert_eq!(find_end(&whole[..length], &mut seen, 1024), Ok(None), "{length}");
            }
            assert_eq!(find_end(input, &mut seen, 1024), Ok(Some(input.len())));
        }
    }

    #[test]
    fn what_is_no_response_is_refused_before_its_end_and_at_every_split() {
        use AnswerError::*;
        for (input, expected) in [
            (&b"\r\nHTTP/1.1 200 OK\r\n\r\n"[..], NotHttp),
            (b"ICY 200 OK\r\n", NotHttp),
            (b"http/1.1 200 OK\r\n", NotHttp),
            (b"HTTPS", NotHttp),
            (b"GET / HTTP/1.1\r\n", NotHttp),
            (b"SSH-2.0-OpenSSH_10.0\r\n", NotHttp),
            (b"<html>", NotHttp),
            (b"\0\0\x12\x04", NotHttp),
            (b"\x15\x03\x01\0\x02\x02\x0a", Tls),
            (b"\x16\x03\x03", Tls),
            (b"HTTP/2", VersionNotSupported),
            (b"HTTP/1.2 200 OK\r\n", VersionNotSupported),
            (b"HTTP/0.9 200 OK\r\n", VersionNotSupported),
            (b"HTTP/1 200 OK\r\n", StatusLine),
            (b"HTTP/11", StatusLine),
            (b"HTTP/1.1\r\n", StatusLine),
            (b"HTTP/1.1\t200 OK\r\n", StatusLine),
            (b"HTTP/1.1  200 OK\r\n", StatusLine),
            (b"HTTP/1.1 20 OK\r\n", StatusLine),
            (b"HTTP/1.1 2000 OK\r\n", StatusLine),
            (b"HTTP/1.1 +20 OK\r\n", StatusLine),
            (b"HTTP/1.1 200OK\r\n", StatusLine),
            (b"HTTP/1.1 200 O\x01K\r\n", StatusLine),
            (b"HTTP/1.1 200 O\0K\r\n", StatusLine),
            (b"HTTP/1.1 099 Low\r\n", Status),
            (b"HTTP/1.1 600 High\r\n", Status),
            (b"HTTP/1.1 999 High\r\n", Status),
            (b"HTTP/1.1 200\n", LineEnd),
            (b"HTTP/1.1 200 OK\n", LineEnd),
            (b"HTTP/1.1 200 OK\r\r", LineEnd),
            (b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", LineEnd),
            (b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", LineEnd),
            (b"HTTP/1.1 200 OK\r\n\n", LineEnd),
        ] {
            for split in 0..=input.len() {
                let mut seen = 0;
                let early = find_end(&input[..split], &mut seen, 1024);
                let found = early.and_then(|_| find_end(input, &mut seen, 1024));
                assert_eq!(found, Err(expected), "{split} of {}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
        let input = answer("200 OK", "X: 12345\r\n");
        let length = input.len();
        assert_eq!(find_end(&input, &mut 0, length), Ok(Some(length)));
        assert_eq!(find_end(&input, &mut 0, length - 1), Err(AnswerError::TooLong));
        assert_eq!(find_end(&input[..length - 1], &mut 0, length), Ok(None));
        assert_eq!(find_end(&input[..length - 1], &mut 0, length - 1), Err(AnswerError::TooLong));
        let reason = [b"HTTP/1.1 200 ", &[b'a'; 100][..]].concat();
        assert_eq!(find_end(&reason, &mut 0, 114), Ok(None));
        assert_eq!(find_end(&reason, &mut 0, 113), Err(AnswerError::TooLong));
    }

    #[test]
    fn there_may_be_as_many_fields_as_there_is_room_for_and_no_more() {
        for (count, expected) in [(100, None), (101, Some(AnswerError::TooManyFields))] {
            assert_eq!(error(&answer("200 OK", &"a: b\r\n".repeat(count))), expected);
        }
    }

    #[test]
    fn each_mistake_has_its_error() {
        use AnswerError::*;
        for (lines, expected) in [
            ("Content-Length: 5\r\nContent-Length: 5\r\n", SecondContentLength),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", SecondContentLength),
            ("Content-Length: 5, 5\r\n", ContentLength),
            ("Content-Length: \r\n", ContentLength),
            ("Content-Length: +5\r\n", ContentLength),
            ("Content-Length: -5\r\n", ContentLength),
            ("Content-Length: 0x5\r\n", ContentLength),
            ("Content-Length: 05\r\n", ContentLength),
            ("Content-Length: 5 5\r\n", ContentLength),
            ("Content-Length: 18446744073709551616\r\n", ContentLength),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndCoding),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", LengthAndCoding),
            ("Transfer-Encoding: gzip\r\n", CodingNotSupported),
            ("Transfer-Encoding: gzip, chunked\r\n", CodingNotSupported),
            ("Transfer-Encoding: identity\r\n", CodingNotSupported),
            ("Transfer-Encoding: xchunked\r\n", CodingNotSupported),
            ("Transfer-Encoding: chunked, gzip\r\n", TransferCoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TransferCoding),
            ("Transfer-Encoding: \r\n", TransferCoding),
            ("Transfer-Encoding: chunked;a=b\r\n", TransferCoding),
            ("A b: c\r\n", FieldName),
            ("A : c\r\n", FieldName),
            (" A: c\r\n", FieldName),
            ("A: b\r\n c\r\n", FieldName),
            (": c\r\n", FieldName),
            ("A\r\n", FieldName),
            ("A: \x01\r\n", FieldValue),
            ("A: b\0c\r\n", FieldValue),
        ] {
            assert_eq!(error(&answer("200 OK", lines)), Some(expected), "{lines:?}");
        }
        let old = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(error(old), Some(CodingInHttp10));
    }

    #[test]
    fn content_is_framed_as_request_status_and_fields_say() {
        use Asking::{Connect, Content, Head};
        const LENGTH: &str = "Content-Length: 5\r\n";
        const CHUNKED: &str = "Transfer-Encoding: Chunked\r\n";
        const BOTH: &str = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
        for (asking, status, lines, expected) in [
            (Content, "200 OK", "", Framing::Close),
            (Content, "200 OK", LENGTH, Framing::Length(5)),
            (Content, "200 OK", "Content-Length: 0\r\n", Framing::Length(0)),
            (Content, "200 OK", CHUNKED, Framing::Chunked),
            (Content, "404 Not Found", "", Framing::Close),
            (Content, "302 Found", LENGTH, Framing::Length(5)),
            (Content, "205 Reset Content", CHUNKED, Framing::Chunked),
            (Content, "100 Continue", "", Framing::None),
            (Content, "101 Switching Protocols", "Content-Length: 0\r\n", Framing::None),
            (Content, "103 Early Hints", CHUNKED, Framing::None),
            (Content, "204 No Content", LENGTH, Framing::None),
            (Content, "304 Not Modified", LENGTH, Framing::None),
            (Content, "304 Not Modified", CHUNKED, Framing::None),
            (Head, "200 OK", LENGTH, Framing::None),
            (Head, "200 OK", CHUNKED, Framing::None),
            (Head, "500 Internal Server Error", "", Framing::None),
            (Connect, "200 OK", LENGTH, Framing::None),
            (Connect, "299 OK", BOTH, Framing::None),
            (Connect, "407 Proxy Authentication Required", LENGTH, Framing::Length(5)),
            (Connect, "502 Bad Gateway", "", Framing::Close),
        ] {
            let input = answer(status, lines);
            let framing = with_answer(&input, asking, |answer| answer.framing);
            assert_eq!(framing, Ok(expected), "{asking:?} {status} {lines:?}");
        }
        for asking in [Content, Head] {
            let both = with_answer(&answer("200 OK", BOTH), asking, |_| ());
            assert_eq!(both, Err(AnswerError::LengthAndCoding));
        }
        assert_eq!([Asking::by("HEAD"), Asking::by("CONNECT"), Asking::by("head")], [Head, Connect, Content]);
    }

    #[test]
    fn a_connection_is_kept_as_version_options_and_framing_say() {
        for (version, lines, kept) in [
            ("1.1", "Content-Length: 5\r\n", true),
            ("1.1", "Content-Length: 5\r\nConnection: close\r\n", false),
            ("1.1", "Transfer-Encoding: chunked\r\nConnection: x, CLOSE\r\n", false),
            ("1.1", "", false),
            ("1.1", "Connection: keep-alive\r\n", false),
            ("1.0", "Content-Length: 5\r\n", false),
            ("1.0", "Content-Length: 5\r\nConnection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive\r\n", false),
        ] {
            let input = format!("HTTP/{version} 200 OK\r\n{lines}\r\n");
            let keep_alive = with_answer(input.as_bytes(), Asking::Content, |answer| answer.keep_alive);
            assert_eq!(keep_alive, Ok(kept), "{input:?}");
        }
    }

    #[test]
    fn an_upgrade_is_two_fields_in_version_1_1() {
        for (version, lines, upgrade) in [
            ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
            ("1.1", "Connection: Upgrade\r\n", false),
            ("1.1", "Upgrade: websocket\r\n", false),
            ("1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", false),
        ] {
            let input = format!("HTTP/{version} 101 Switching Protocols\r\n{lines}\r\n");
            assert_eq!(with_answer(input.as_bytes(), Asking::Content, |answer| answer.upgrade), Ok(upgrade));
        }
    }

    #[test]
    fn a_reason_phrase_may_be_anything_or_missing() {
        for (line, reason) in [
            ("HTTP/1.1 200", &b""[..]),
            ("HTTP/1.1 200 ", b""),
            ("HTTP/1.1 200  two\tspaces ", b" two\tspaces "),
            ("HTTP/1.1 200 \u{e9}", "\u{e9}".as_bytes()),
        ] {
            let input = format!("{line}\r\n\r\n");
            let read = with_answer(input.as_bytes(), Asking::Content, |answer| answer.reason.to_vec());
            assert_eq!(read.as_deref(), Ok(reason), "{line:?}");
        }
    }

    #[test]
    fn no_input_panics_and_no_split_changes_the_answer() {
        let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
        for _ in 0..5000 {
            let input = mutate(SERVER, &mut random);
            let whole = find_end(&input, &mut 0, 400);
            let mut seen = 0;
            let split = random.below(input.len() + 1);
            let split = find_end(&input[..split], &mut seen, 400).and_then(|end| match end {
                None => find_end(&input, &mut seen, 400),
                found => Ok(found),
            });
            assert_eq!(whole, split, "{}", input.escape_ascii());
            let end = whole.ok().flatten().unwrap_or(input.len());
            let mut room = [const { MaybeUninit::uninit() }; 16];
            if let Ok(answer) = parse(&input[..end], &mut room, Asking::Content) {
                assert!(answer.fields.iter().all(|field| is_field_value(field.value)));
            }
        }
    }
}
