//! The head of a request (RFC 9112, sections 2 to 6): where it ends, and what it says.
//!
//! What a lenient reader would guess at is refused here, because the next reader may guess differently: that is how requests are
//! smuggled past a proxy (RFC 9112, section 11.2).

use crate::http::{StatusCode, Target, Version, elements, is_authority, is_token, same_authority};
use httparse::Header;
use std::fmt;
use std::mem::MaybeUninit;

/// The longest method we wait for. The registry's longest has 17 characters; what is longer is no method.
const METHOD_MAX: usize = 64;

/// A request's head that has passed every check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: Target<'a>,
    pub(crate) version: Version,
    pub(crate) fields: &'a [Header<'a>],
    /// The `Host` field, or the authority of the absolute form; a valid authority.
    pub(crate) host: Option<&'a str>,
    pub(crate) framing: Framing,
    /// The client can use the connection again (RFC 9112, section 9.3).
    pub(crate) keep_alive: bool,
    /// `Connection: upgrade`, in version 1.1 and with an `Upgrade` field (RFC 9110, section 7.8).
    pub(crate) upgrade: bool,
    /// The client waits for 100 before it sends the content (RFC 9110, section 10.1.1).
    pub(crate) expects_continue: bool,
}

/// How the content of a message is delimited (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// No content.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks, until the last one.
    Chunked,
    /// Until the connection ends; of responses only.
    Close,
}

/// Looks for the end of a head at the front of `input`, and returns how long the head is, with the empty line that ends it and
/// a CRLF in front of it.
///
/// `None` when there is no end yet: call again with the same bytes and more. `seen`, 0 for a new head and set back to 0 at its
/// end, is how much has been looked at. `limit` is the most that a head may have.
///
/// What cannot become a request is an error as soon as it is there, so that nobody waits for the rest of it: bytes that are
/// no method, a request line of another version, a line end that is not CRLF.
pub(crate) fn find_end(input: &[u8], seen: &mut usize, limit: usize) -> Result<Option<usize>, HeadError> {
    let window = &input[..input.len().min(limit)];
    // One empty line in front is let pass: some old clients send a CRLF after their content (RFC 9112, section 2.2).
    let start = if window.starts_with(b"\r\n") { 2 } else { 0 };
    if window == b"\r" {
        return Ok(None);
    }
    scan(input, start, seen, limit, check_start, check_request_line)
}

/// [`find_end`] for any head that begins at `start`: `check_start` is asked about what has come of the first line while it is
/// not whole, `check_line` once about the whole line without its end.
pub(super) fn scan<E: From<Fault>>(
    input: &[u8],
    start: usize,
    seen: &mut usize,
    limit: usize,
    check_start: impl Fn(&[u8]) -> Result<(), E>,
    check_line: impl Fn(&[u8]) -> Result<(), E>,
) -> Result<Option<usize>, E> {
    let window = &input[..input.len().min(limit)];
    let line_known = memchr::memchr(b'\n', window.get(start..*seen).unwrap_or_default()).is_some();
    if !line_known {
        check_start(&window[start..])?;
    }
    let mut first_line = !line_known;
    let mut line = (*seen).max(start);
    while let Some(at) = memchr::memchr2(b'\r', b'\n', &window[line..]).map(|at| line + at) {
        match &window[at..] {
            [b'\r'] => break,
            [b'\r', b'\n', ..] => {}
            _ => return Err(Fault::LineEnd.into()),
        }
        if first_line {
            check_line(&window[start..at])?;
            first_line = false;
        } else if window[..at].ends_with(b"\r\n") {
            *seen = 0;
            return Ok(Some(at + 2));
        }
        line = at + 2;
    }
    *seen = match window.last() {
        Some(b'\r') => window.len() - 1,
        _ => window.len(),
    };
    match input.len() >= limit {
        true if first_line => Err(Fault::FirstLineTooLong.into()),
        true => Err(Fault::TooLong.into()),
        false => Ok(None),
    }
}

/// What any head can have wrong, whatever its first line is.
pub(super) enum Fault {
    LineEnd,
    FirstLineTooLong,
    TooLong,
}

/// Whether `input` can be the start of a request line: a token, then a space (RFC 9112, section 3).
fn check_start(input: &[u8]) -> Result<(), HeadError> {
    let window = &input[..input.len().min(METHOD_MAX + 1)];
    match memchr::memchr(b' ', window) {
        Some(space) if is_token(&window[..space]) => Ok(()),
        None if window.is_empty() => Ok(()),
        None if window.len() <= METHOD_MAX && is_token(window) => Ok(()),
        _ => Err(HeadError::NotARequest),
    }
}

/// Whether a request line, without its end, closes with a version that we speak (RFC 9112, section 2.3).
fn check_request_line(line: &[u8]) -> Result<(), HeadError> {
    let version = memchr::memrchr(b' ', line).map_or(&[][..], |space| &line[space + 1..]);
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(HeadError::VersionNotSupported),
        _ => Err(HeadError::RequestLine),
    }
}

/// Reads a head that [`find_end`] has delimited; `fields` is the room for its fields, and thereby bounds how many there can be.
/// Nothing is allocated or copied.
pub(crate) fn parse<'h, 'b: 'h>(
    head: &'b [u8],
    fields: &'h mut [MaybeUninit<Header<'b>>],
) -> Result<Head<'h>, HeadError> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, fields)? {
        httparse::Status::Complete(used) if used == head.len() => {}
        _ => return Err(HeadError::LineEnd),
    }
    let httparse::Request { method: Some(method), path: Some(target), version: Some(minor), headers } =
        request
    else {
        return Err(HeadError::RequestLine);
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    interpret(method, target, version, headers)
}

fn interpret<'a>(
    method: &'a str,
    target: &'a str,
    version: Version,
    fields: &'a [Header<'a>],
) -> Result<Head<'a>, HeadError> {
    if method == "CONNECT" {
        return Err(HeadError::Connect);
    }
    let target = Target::parse(target).ok_or(HeadError::Target)?;
    if target.is_asterisk() && method != "OPTIONS" {
        return Err(HeadError::Target);
    }
    let mut known = Known::default();
    for field in fields {
        known.read(field)?;
    }
    let framing = known.framing(version)?;
    let newer = version > Version::Http10;
    Ok(Head {
        method,
        target,
        version,
        fields,
        host: known.host(version, &target)?,
        framing,
        keep_alive: known.connection.keeps_alive(version),
        upgrade: newer && known.connection.upgrade && known.upgrade,
        // A 1.0 client would not understand 100, and without content there is nothing to wait for.
        expects_continue: newer
            && known.expects_continue
            && !matches!(framing, Framing::None | Framing::Length(0)),
    })
}

impl<'a> Head<'a> {
    /// The value of the first field of this name, in any case.
    pub(crate) fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.field_all(name).next()
    }

    /// The values of all fields of this name, in order.
    pub(crate) fn field_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}

/// What the fields that concern us have said, read line by line.
#[derive(Default)]
struct Known<'a> {
    host: Option<&'a str>,
    length: Option<u64>,
    coding: Option<Coding>,
    connection: Options,
    upgrade: bool,
    expects_continue: bool,
}

/// The transfer codings so far (RFC 9112, section 6.1).
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub(super) struct Coding {
    chunked: bool,
    /// There is another one than `chunked`.
    pub(super) unknown: bool,
}

impl Coding {
    /// Reads one more field. `None`: it is malformed.
    pub(super) fn read(&mut self, value: &[u8]) -> Option<()> {
        for element in elements(value) {
            let name = &element[..memchr::memchr2(b';', b' ', element).unwrap_or(element.len())];
            let chunked = name.eq_ignore_ascii_case(b"chunked");
            // Chunked comes last, once, and without parameters (RFC 9112, section 6.1 and 7.1).
            if self.chunked || !is_token(name) || (chunked && name.len() != element.len()) {
                return None;
            }
            self.chunked |= chunked;
            self.unknown |= !chunked;
        }
        Some(())
    }
}

/// The connection options that concern us (RFC 9110, section 7.6.1).
#[derive(Clone, Copy, Default)]
pub(super) struct Options {
    close: bool,
    keep_alive: bool,
    pub(super) upgrade: bool,
}

impl Options {
    pub(super) fn read(&mut self, value: &[u8]) {
        for option in elements(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    /// Whether the sender of a message of this version goes on after it (RFC 9112, section 9.3).
    pub(super) fn keeps_alive(self, version: Version) -> bool {
        !self.close && (version > Version::Http10 || self.keep_alive)
    }
}

/// The value of a Content-Length. Leading zeros, which some take for octal, are refused.
pub(super) fn read_length(value: &[u8]) -> Option<u64> {
    let plain = |text: &&str| {
        text.bytes().all(|byte| byte.is_ascii_digit()) && (*text == "0" || !text.starts_with('0'))
    };
    std::str::from_utf8(value).ok().filter(plain)?.parse().ok()
}

impl<'a> Known<'a> {
    fn read(&mut self, field: &Header<'a>) -> Result<(), HeadError> {
        let name = |known: &str| field.name.eq_ignore_ascii_case(known);
        match field.name.len() {
            4 if name("Host") => self.read_host(field.value),
            6 if name("Expect") => self.read_expect(field.value),
            7 if name("Upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            10 if name("Connection") => {
                self.connection.read(field.value);
                Ok(())
            }
            14 if name("Content-Length") => self.read_length(field.value),
            17 if name("Transfer-Encoding") => self.read_coding(field.value),
            _ => Ok(()),
        }
    }

    fn read_host(&mut self, value: &'a [u8]) -> Result<(), HeadError> {
        let host = std::str::from_utf8(value).ok().filter(|host| is_authority(host));
        let host = host.ok_or(HeadError::Host)?;
        match self.host.replace(host) {
            None => Ok(()),
            Some(_) => Err(HeadError::SecondHost),
        }
    }

    /// Two equal lengths are refused as well: nobody sends them who is not trying something (RFC 9112, section 6.3, item 5).
    fn read_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        let length = read_length(value).ok_or(HeadError::ContentLength)?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(HeadError::SecondContentLength),
        }
    }

    fn read_coding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        self.coding.get_or_insert_default().read(value).ok_or(HeadError::TransferCoding)
    }

    fn read_expect(&mut self, value: &[u8]) -> Result<(), HeadError> {
        self.expects_continue = true;
        match elements(value).all(|element| element.eq_ignore_ascii_case(b"100-continue")) {
            true => Ok(()),
            false => Err(HeadError::Expectation),
        }
    }

    fn framing(&self, version: Version) -> Result<Framing, HeadError> {
        match (self.coding, self.length) {
            (None, None) => Ok(Framing::None),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(_), Some(_)) => Err(HeadError::LengthAndCoding),
            (Some(_), None) if version == Version::Http10 => Err(HeadError::CodingInHttp10),
            (Some(coding), None) if coding.unknown => Err(HeadError::CodingNotSupported),
            (Some(_), None) => Ok(Framing::Chunked),
        }
    }

    fn host(&self, version: Version, target: &Target<'a>) -> Result<Option<&'a str>, HeadError> {
        match (self.host, target.authority()) {
            (None, _) if version != Version::Http10 => Err(HeadError::NoHost),
            (None, authority) => Ok(authority.map(|(_, authority)| authority)),
            (Some(host), Some((port, authority))) if !same_authority(host, authority, port) => {
                Err(HeadError::OtherHost)
            }
            (Some(host), _) => Ok(Some(host)),
        }
    }
}

/// What is wrong with a request's head. Each is answered with [`status`](Self::status) and ends the connection, since where the
/// next request would begin is not known, or not agreed upon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HeadError {
    /// It does not start with a method, so it is no HTTP request (RFC 9112, section 3).
    NotARequest,
    /// The request line is not method, target and version with one space between (RFC 9112, section 3).
    RequestLine,
    /// The request line alone is longer than a head may be (RFC 9112, section 3).
    RequestLineTooLong,
    /// The version has the right shape and is neither 1.1 nor 1.0 (RFC 9110, section 15.6.6).
    VersionNotSupported,
    /// The method is CONNECT, which is for proxies (RFC 9110, section 9.3.6).
    Connect,
    /// The target is in no form that an origin takes, has a fragment, or holds what no URI may (RFC 9112, section 3.2).
    Target,
    /// A CR or LF that is not part of a CRLF (RFC 9112, section 2.2).
    LineEnd,
    /// The head is longer than it may be (RFC 6585, section 5).
    TooLong,
    /// There are more fields than there may be (RFC 6585, section 5).
    TooManyFields,
    /// A field line has no name, or one that is not a token, or whitespace beside it, or is folded (RFC 9112, section 5).
    FieldName,
    /// A field value holds a control character (RFC 9110, section 5.5).
    FieldValue,
    /// There is no `Host` in a 1.1 request (RFC 9112, section 3.2).
    NoHost,
    /// There is more than one `Host` (RFC 9112, section 3.2).
    SecondHost,
    /// `Host` is empty, or not a host with perhaps a port (RFC 9112, section 3.2).
    Host,
    /// `Host` and the authority of an absolute target disagree (RFC 9112, section 3.2.2).
    OtherHost,
    /// `Content-Length` is not a number, or too large a one (RFC 9110, section 8.6).
    ContentLength,
    /// There is more than one `Content-Length` (RFC 9112, section 6.3).
    SecondContentLength,
    /// There are both `Content-Length` and `Transfer-Encoding` (RFC 9112, section 6.3).
    LengthAndCoding,
    /// There is `Transfer-Encoding` in a 1.0 request (RFC 9112, section 6.1).
    CodingInHttp10,
    /// `Transfer-Encoding` is malformed: an empty element, `chunked` not last, twice, or with parameters (RFC 9112, section 6.1).
    TransferCoding,
    /// `Transfer-Encoding` names another coding than `chunked` (RFC 9112, section 6.1).
    CodingNotSupported,
    /// `Expect` asks for something other than `100-continue` (RFC 9110, section 10.1.1).
    Expectation,
}

impl HeadError {
    /// The status code that the answer has.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::RequestLineTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLong | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Connect | Self::CodingNotSupported => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::NotARequest
            | Self::RequestLine
            | Self::Target
            | Self::LineEnd
            | Self::FieldName
            | Self::FieldValue
            | Self::NoHost
            | Self::SecondHost
            | Self::Host
            | Self::OtherHost
            | Self::ContentLength
            | Self::SecondContentLength
            | Self::LengthAndCoding
            | Self::CodingInHttp10
            | Self::TransferCoding => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<Fault> for HeadError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::LineEnd => Self::LineEnd,
            Fault::FirstLineTooLong => Self::RequestLineTooLong,
            Fault::TooLong => Self::TooLong,
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => Self::FieldName,
            httparse::Error::HeaderValue => Self::FieldValue,
            httparse::Error::NewLine => Self::LineEnd,
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::Token | httparse::Error::Version | httparse::Error::Status => Self::RequestLine,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotARequest => "not an HTTP request",
            Self::RequestLine => "malformed request line",
            Self::RequestLineTooLong => "request line too long",
            Self::VersionNotSupported => "version of HTTP not supported",
            Self::Connect => "method CONNECT",
            Self::Target => "malformed target",
            Self::LineEnd => "line end that is not CRLF",
            Self::TooLong => "head too long",
            Self::TooManyFields => "too many fields",
            Self::FieldName => "malformed field name",
            Self::FieldValue => "control character in a field value",
            Self::NoHost => "no Host field",
            Self::SecondHost => "more than one Host field",
            Self::Host => "malformed Host field",
            Self::OtherHost => "target and Host field disagree",
            Self::ContentLength => "malformed Content-Length",
            Self::SecondContentLength => "more than one Content-Length",
            Self::LengthAndCoding => "Content-Length with Transfer-Encoding",
            Self::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::TransferCoding => "malformed Transfer-Encoding",
            Self::CodingNotSupported => "transfer coding not supported",
            Self::Expectation => "unknown expectation",
        })
    }
}

impl std::error::Error for HeadError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::testing::{Random, mutate};

    /// Finds and parses one head in 16 KiB and 100 fields, and hands it on.
    fn with_head<T>(input: &[u8], then: impl FnOnce(Head<'_>) -> T) -> Result<T, HeadError> {
        let end = find_end(input, &mut 0, 16 * 1024)?.expect("the head is whole");
        parse(&input[..end], &mut [const { MaybeUninit::uninit() }; 100]).map(then)
    }

    fn error(input: &[u8]) -> Option<HeadError> {
        with_head(input, |_| ()).err()
    }

    /// A request for `/` with these lines.
    fn get(lines: &str) -> Vec<u8> {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
    }

    const BROWSER: &[u8] =
        b"GET /chat?room=1 HTTP/1.1\r\nHost: example.org:8080\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nOrigin: http://example.org:8080\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAccept-Language: de,en;q=0.5\r\n\r\n";

    #[test]
    fn a_head_says_what_came() {
        with_head(BROWSER, |head| {
            assert_eq!(
                (head.method, head.version, head.host),
                ("GET", Version::Http11, Some("example.org:8080"))
            );
            assert_eq!((head.target.path(), head.target.query()), ("/chat", Some("room=1")));
            assert_eq!((head.framing, head.keep_alive, head.upgrade), (Framing::None, true, true));
            assert_eq!(head.field("accept-LANGUAGE"), Some(&b"de,en;q=0.5"[..]));
            assert_eq!(head.fields.len(), 7);
        })
        .unwrap();
    }

    #[test]
    fn the_end_is_found_at_every_split_and_byte_by_byte() {
        for input in [BROWSER, b"\r\nGET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let whole = [input, b"next request"].concat();
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
    fn an_error_is_the_same_at_every_split() {
        for (input, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n"[..], HeadError::LineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\rB: c\r\n\r\n", HeadError::LineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", HeadError::LineEnd),
            (b"GET / HTTP/2.0\r\n\r\n", HeadError::VersionNotSupported),
            (b"GET /\r\n\r\n", HeadError::RequestLine),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", HeadError::NotARequest),
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
    fn what_is_no_request_is_refused_before_its_end() {
        for (input, expected) in [
            (&b"PRI * HTTP/2.0\r\n"[..], HeadError::VersionNotSupported),
            (b"\x16\x03\x01\x02\x00\x01", HeadError::NotARequest),
            (b"\xc5D\x1cyx", HeadError::NotARequest),
            (b" ", HeadError::NotARequest),
            (b"\n", HeadError::NotARequest),
            (b"\r\n\r", HeadError::NotARequest),
            (b"\rG", HeadError::NotARequest),
            (b"{\"a\":1}", HeadError::NotARequest),
            (b"GET\t", HeadError::NotARequest),
            (b"GET /\r\n", HeadError::RequestLine),
            (b"GET / HTTP/1.1\n", HeadError::LineEnd),
            (b"GET / HTTP/1.1\r\r", HeadError::LineEnd),
            (b"GET / HTTP/9.9\r\n", HeadError::VersionNotSupported),
        ] {
            assert_eq!(find_end(input, &mut 0, 1024), Err(expected), "{}", input.escape_ascii());
        }
        for prefix in
            [&b""[..], b"\r", b"\r\n", b"G", b"GET", b"GET ", b"GET / HTTP/2.0", b"GET / HTTP/1.1\r"]
        {
            assert_eq!(find_end(prefix, &mut 0, 1024), Ok(None), "{}", prefix.escape_ascii());
        }
    }

    #[test]
    fn a_method_is_waited_for_up_to_its_limit() {
        let mut input = [b'A'; METHOD_MAX + 1];
        assert_eq!(find_end(&input[..METHOD_MAX], &mut 0, 1024), Ok(None));
        assert_eq!(find_end(&input, &mut 0, 1024), Err(HeadError::NotARequest));
        input[METHOD_MAX] = b' ';
        assert_eq!(find_end(&input, &mut 0, 1024), Ok(None));
    }

    #[test]
    fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
        let input = get("X: 12345\r\n");
        let length = input.len();
        assert_eq!(find_end(&input, &mut 0, length), Ok(Some(length)));
        assert_eq!(find_end(&input, &mut 0, length - 1), Err(HeadError::TooLong));
        assert_eq!(find_end(&input[..length - 1], &mut 0, length), Ok(None));
        assert_eq!(find_end(&input[..length - 1], &mut 0, length - 1), Err(HeadError::TooLong));
        let long = [b"GET /", &[b'a'; 100][..]].concat();
        assert_eq!(find_end(&long, &mut 0, 106), Ok(None));
        assert_eq!(find_end(&long, &mut 0, 105), Err(HeadError::RequestLineTooLong));
    }

    #[test]
    fn a_request_line_of_8000_bytes_is_read() {
        let target = format!("/{}", "a".repeat(8000 - "GET / HTTP/1.1".len()));
        let input = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(with_head(input.as_bytes(), |head| head.target.path() == target), Ok(true));
    }

    #[test]
    fn there_may_be_as_many_fields_as_there_is_room_for_and_no_more() {
        for (count, expected) in [(99, None), (100, Some(HeadError::TooManyFields))] {
            assert_eq!(error(&get(&"a: b\r\n".repeat(count))), expected);
        }
    }

    #[test]
    fn each_mistake_has_its_error() {
        use HeadError::*;
        for (lines, expected) in [
            ("Host: a\r\n", SecondHost),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", SecondContentLength),
            ("Content-Length: 5, 5\r\n", ContentLength),
            ("Content-Length: \r\n", ContentLength),
            ("Content-Length: +5\r\n", ContentLength),
            ("Content-Length: 05\r\n", ContentLength),
            ("Content-Length: 00\r\n", ContentLength),
            ("Content-Length: 1_0\r\n", ContentLength),
            ("Content-Length: 18446744073709551616\r\n", ContentLength),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndCoding),
            ("Transfer-Encoding: gzip\r\n", CodingNotSupported),
            ("Transfer-Encoding: gzip, chunked\r\n", CodingNotSupported),
            ("Transfer-Encoding: gzip;q=1, chunked\r\n", CodingNotSupported),
            ("Transfer-Encoding: identity\r\n", CodingNotSupported),
            ("Transfer-Encoding: xchunked\r\n", CodingNotSupported),
            ("Transfer-Encoding: \r\n", TransferCoding),
            ("Transfer-Encoding: , chunked\r\n", TransferCoding),
            ("Transfer-Encoding: chunked,\r\n", TransferCoding),
            ("Transfer-Encoding: chunked, chunked\r\n", TransferCoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TransferCoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", TransferCoding),
            ("Transfer-Encoding: chunked, gzip\r\n", TransferCoding),
            ("Transfer-Encoding: chunked;a=b\r\n", TransferCoding),
            ("Transfer-Encoding: \"chunked\"\r\n", TransferCoding),
            ("Expect: 200-ok\r\n", Expectation),
            ("Expect: 100-continue, x\r\n", Expectation),
            ("A b: c\r\n", FieldName),
            ("A : c\r\n", FieldName),
            (" A: c\r\n", FieldName),
            ("A: b\r\n c\r\n", FieldName),
            (": c\r\n", FieldName),
            ("A\r\n", FieldName),
            ("A: \x01\r\n", FieldValue),
            ("A: \x7f\r\n", FieldValue),
            ("A: b\0c\r\n", FieldValue),
        ] {
            assert_eq!(error(&get(lines)), Some(expected), "{lines:?}");
        }
        for (line, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", NoHost),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", Host),
            ("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", Host),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", OtherHost),
            ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", OtherHost),
            ("GET http://a/ HTTP/1.1\r\n\r\n", NoHost),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", Connect),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", CodingInHttp10),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", VersionNotSupported),
            ("GET / HTTP/1\r\nHost: a\r\n\r\n", RequestLine),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", RequestLine),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            ("GET HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ] {
            assert_eq!(error(line.as_bytes()), Some(expected), "{line:?}");
        }
    }

    #[test]
    fn content_is_framed_as_the_fields_say() {
        for (lines, expected) in [
            ("", Framing::None),
            ("Content-Length: 0\r\n", Framing::Length(0)),
            ("Content-Length:\t5 \r\n", Framing::Length(5)),
            ("content-length: 18446744073709551615\r\n", Framing::Length(u64::MAX)),
            ("Transfer-Encoding: chunked \r\n", Framing::Chunked),
            ("TRANSFER-ENCODING:Chunked\r\n", Framing::Chunked),
            ("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", Framing::Length(5)),
        ] {
            assert_eq!(with_head(&get(lines), |head| head.framing), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_as_version_and_options_say() {
        for (version, option, kept) in [
            ("1.1", "", true),
            ("1.1", "close", false),
            ("1.1", "x, CLOSE", false),
            ("1.1", "keep-alive, close", false),
            ("1.1", "keep-alive", true),
            ("1.0", "", false),
            ("1.0", "Keep-Alive", true),
            ("1.0", "close, keep-alive", false),
        ] {
            let input = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {option}\r\n\r\n");
            assert_eq!(with_head(input.as_bytes(), |head| head.keep_alive), Ok(kept), "{version} {option}");
        }
    }

    #[test]
    fn only_a_1_1_client_with_content_gets_100() {
        for (version, lines, expects) in [
            ("1.1", "Expect: 100-Continue\r\nContent-Length: 5\r\n", true),
            ("1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", true),
            ("1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false),
            ("1.1", "Expect: 100-continue\r\n", false),
            ("1.1", "Content-Length: 5\r\n", false),
            ("1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n", false),
        ] {
            let input = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
            assert_eq!(
                with_head(input.as_bytes(), |head| head.expects_continue),
                Ok(expects),
                "{version} {lines}"
            );
        }
    }

    #[test]
    fn requests_that_are_strange_but_right_are_read() {
        for input in [
            "GET / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "get / HTTP/1.1\r\nHost: a\r\n\r\n",
            "M-SEARCH /!$&'()*+,;=:@%00[]|\\?/?^{}` HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            "GET http://A:80?b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET https://a/b HTTP/1.1\r\nHost: a:443\r\n\r\n",
            "GET / HTTP/1.1\r\nhOST:a\r\nX:\r\nY: \u{e9}\u{ff}\tz\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(error(input.as_bytes()), None, "{input:?}");
        }
        let host = with_head(b"GET http://b/ HTTP/1.0\r\n\r\n", |head| head.host.map(str::to_owned));
        assert_eq!(host, Ok(Some("b".to_owned())));
    }

    #[test]
    fn each_error_has_its_status() {
        for (error, code) in [
            (HeadError::LengthAndCoding, 400),
            (HeadError::RequestLineTooLong, 414),
            (HeadError::Expectation, 417),
            (HeadError::TooLong, 431),
            (HeadError::TooManyFields, 431),
            (HeadError::CodingNotSupported, 501),
            (HeadError::Connect, 501),
            (HeadError::VersionNotSupported, 505),
        ] {
            assert_eq!(error.status().code(), code, "{error}");
        }
    }

    #[test]
    fn no_input_panics_and_no_split_changes_the_answer() {
        let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
        for _ in 0..5000 {
            let input = mutate(BROWSER, &mut random);
            let whole = find_end(&input, &mut 0, 400);
            let mut seen = 0;
            let split = random.below(input.len() + 1);
            let split = find_end(&input[..split], &mut seen, 400).and_then(|end| match end {
                None => find_end(&input, &mut seen, 400),
                found => Ok(found),
            });
            // An error further on is not seen when the rest has not come; otherwise the two agree.
            assert_eq!(whole, split, "{}", input.escape_ascii());
            if let Ok(Some(end)) = whole {
                let mut fields = [const { MaybeUninit::uninit() }; 16];
                if let Ok(head) = parse(&input[..end], &mut fields) {
                    assert!(head.fields.iter().all(|field| is_token(field.name.as_bytes())));
                    assert!(head.host.is_some() || head.version == Version::Http10);
                }
            }
        }
    }
}
