//! Responses on the wire (RFC 9112, sections 4 and 6): everything that frames a message is decided and written here.

use super::head::Head;
use crate::http::{
    Body, Fields, Response, ResponseError, StatusCode, Version, is_field_value, is_forbidden_trailer,
};
use crate::http::{is_managed, is_token};

/// The interim response that an [`expects_continue`](Head::expects_continue) waits for (RFC 9110, section 15.2.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a response has to know of its request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    /// The version of the request: 1.0 knows no chunks.
    pub(crate) version: Version,
    /// The method is `HEAD`: no content.
    pub(crate) head: bool,
    /// Both sides can go on after the response.
    pub(crate) keep_alive: bool,
}

impl Asked {
    /// What this request asks for.
    pub(crate) fn by(head: &Head<'_>) -> Self {
        Self { version: head.version, head: head.method == "HEAD", keep_alive: head.keep_alive }
    }

    /// A request that could not be read: answered, and then the connection ends.
    pub(crate) fn unreadable() -> Self {
        Self { version: Version::Http11, head: false, keep_alive: false }
    }
}

/// How a response goes on after its head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Framed {
    pub(crate) content: Delimiting,
    /// Another request may follow on the connection; if not, it ends after the content.
    pub(crate) keep_alive: bool,
}

/// How the content of a response is delimited (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Delimiting {
    /// There is none to write, whatever the response's body holds.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Each piece behind its [`chunk_header`], the end by [`last_chunk`].
    Chunked,
    /// As it is, until the connection closes.
    Close,
}

/// Appends the head of `response`: status line, fields, what frames it, and the empty line.
///
/// # Errors
///
/// Those of [`Response::error`]. Nothing has been appended then.
pub(crate) fn head(
    out: &mut Vec<u8>,
    response: &Response,
    asked: Asked,
    date: &str,
) -> Result<Framed, ResponseError> {
    if let Some(error) = response.error() {
        return Err(error);
    }
    let (content, announced) = delimit(response, asked);
    let keep_alive = asked.keep_alive && !response.close && content != Delimiting::Close;
    let upgrade = response.fields.get("Upgrade").is_some();

    status_line(out, response.status);
    out.extend_from_slice(response.fields.lines());
    if response.fields.get("Date").is_none() {
        field(out, b"Date: ", date.as_bytes());
    }
    match announced {
        Delimiting::None | Delimiting::Close => {}
        Delimiting::Length(length) => field(out, b"Content-Length: ", decimal(length, &mut [0; 20])),
        Delimiting::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    match (keep_alive, upgrade) {
        (false, true) => out.extend_from_slice(b"Connection: close, upgrade\r\n"),
        (false, false) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, true) => out.extend_from_slice(b"Connection: upgrade\r\n"),
        (true, false) if asked.version == Version::Http10 => {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        (true, false) => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(Framed { content, keep_alive })
}

/// How the content is sent, and what the head says about it. The two differ where content is measured and not sent: for
/// `HEAD`, and with 304 (RFC 9110, section 8.6).
fn delimit(response: &Response, asked: Asked) -> (Delimiting, Delimiting) {
    use Delimiting::*;
    let length = match &response.body {
        Body::Empty => Some(0),
        Body::Bytes(bytes) => Some(bytes.len() as u64),
        Body::File { length, .. } => Some(*length),
        Body::Stream { length } => *length,
    };
    let unmeasured = matches!(response.body, Body::Empty);
    match (response.status, length) {
        (StatusCode::NO_CONTENT, _) => (None, None),
        // A length of 0 would be said of the content that a GET or a 200 has.
        (StatusCode::NOT_MODIFIED, _) if unmeasured => (None, None),
        (StatusCode::NOT_MODIFIED, Some(length)) => (None, Length(length)),
        (StatusCode::NOT_MODIFIED, Option::None) => (None, None),
        (_, _) if asked.head && unmeasured => (None, None),
        (_, Some(length)) if asked.head => (None, Length(length)),
        (_, Option::None) if asked.head => (None, None),
        (_, Some(0)) => (None, Length(0)),
        (_, Some(length)) => (Length(length), Length(length)),
        (_, Option::None) if asked.version == Version::Http10 => (Close, Close),
        (_, Option::None) => (Chunked, Chunked),
    }
}

/// Appends the response that accepts a WebSocket (RFC 6455, section 4.2.2, item 5).
///
/// # Errors
///
/// [`ResponseError::Managed`] when `extra` has a field that is said here already, [`ResponseError::Field`] when the
/// subprotocol is not a token. Nothing has been appended then.
pub(crate) fn switching(
    out: &mut Vec<u8>,
    accept_key: &str,
    subprotocol: Option<&str>,
    extensions: Option<&str>,
    extra: &Fields,
) -> Result<(), ResponseError> {
    const OWN: [&str; 4] =
        ["Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"];
    let own = |name: &str| is_managed(name) || OWN.iter().any(|known| known.eq_ignore_ascii_case(name));
    if extra.iter().any(|(name, _)| own(name)) {
        return Err(ResponseError::Managed);
    }
    let whole =
        is_field_value(accept_key.as_bytes()) && subprotocol.is_none_or(|name| is_token(name.as_bytes()));
    if !whole {
        return Err(ResponseError::Field(crate::http::FieldError::Value));
    }
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    field(out, b"", accept_key.as_bytes());
    if let Some(subprotocol) = subprotocol {
        field(out, b"Sec-WebSocket-Protocol: ", subprotocol.as_bytes());
    }
    if let Some(extensions) = extensions {
        field(out, b"Sec-WebSocket-Extensions: ", extensions.as_bytes());
    }
    out.extend_from_slice(extra.lines());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends what precedes a chunk's data of `length` bytes, which is not 0. [`CHUNK_END`] follows the data.
pub(crate) fn chunk_header(out: &mut Vec<u8>, length: usize) {
    debug_assert_ne!(length, 0, "it would end the content");
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    let digit = |place: u32| b"0123456789abcdef"[(length >> (4 * place)) & 15];
    out.extend((0..digits).rev().map(digit));
    out.extend_from_slice(b"\r\n");
}

/// What follows a chunk's data.
pub(crate) const CHUNK_END: &[u8] = b"\r\n";

/// Appends the end of chunked content. Trailer fields that have no place there are left out (RFC 9110, section 6.5.1).
pub(crate) fn last_chunk(out: &mut Vec<u8>, trailers: &Fields) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.iter().filter(|(name, _)| !is_forbidden_trailer(name)) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    let digit = |place: u16| b'0' + (status.code() / place % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    // The space stays when there is no reason phrase (RFC 9112, section 4).
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    field(out, b"", status.reason().as_bytes());
}

/// One line: `name` has its colon and space already.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

pub(super) fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::FieldError;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const GET: Asked = Asked { version: Version::Http11, head: false, keep_alive: true };
    const HEAD: Asked = Asked { head: true, ..GET };
    const OLD: Asked = Asked { version: Version::Http10, keep_alive: false, ..GET };
    const OLD_KEPT: Asked = Asked { keep_alive: true, ..OLD };

    /// What the head says besides status and `Date`, and how it goes on.
    fn encoded(response: Response, asked: Asked) -> (String, Framed) {
        let mut out = Vec::new();
        let framed = head(&mut out, &response, asked, DATE).unwrap();
        let text = String::from_utf8(out).unwrap();
        let (status, rest) = text.split_once("\r\n").unwrap();
        assert_eq!(status, format!("HTTP/1.1 {} {}", response.status.code(), response.status.reason()));
        let rest = rest.strip_suffix("\r\n\r\n").unwrap();
        let lines: Vec<_> = rest.split("\r\n").filter(|line| *line != format!("Date: {DATE}")).collect();
        assert_eq!(lines.len() + 1, rest.split("\r\n").count(), "one Date");
        (lines.join("|"), framed)
    }

    fn framed(content: Delimiting, keep_alive: bool) -> Framed {
        Framed { content, keep_alive }
    }

    #[test]
    fn a_response_is_written_whole() {
        let mut out = b"before".to_vec();
        let response = Response::text("hello").field("X-A", "b");
        assert_eq!(head(&mut out, &response, GET, DATE), Ok(framed(Delimiting::Length(5), true)));
        let expected = "beforeHTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-A: b\r\n\
            Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(out, expected.as_bytes());
    }

    #[test]
    fn content_is_delimited_as_version_method_and_status_allow() {
        use Delimiting::*;
        let text = || Response::bytes("a/b", b"hello");
        let stream = || Response::stream("a/b");
        let empty = Response::new;
        for (response, asked, lines, expected) in [
            (text(), GET, "Content-Type: a/b|Content-Length: 5", framed(Length(5), true)),
            (text(), HEAD, "Content-Type: a/b|Content-Length: 5", framed(None, true)),
            (text(), OLD, "Content-Type: a/b|Content-Length: 5|Connection: close", framed(Length(5), false)),
            (
                text(),
                OLD_KEPT,
                "Content-Type: a/b|Content-Length: 5|Connection: keep-alive",
                framed(Length(5), true),
            ),
            (
                text().close(),
                GET,
                "Content-Type: a/b|Content-Length: 5|Connection: close",
                framed(Length(5), false),
            ),
            (stream(), GET, "Content-Type: a/b|Transfer-Encoding: chunked", framed(Chunked, true)),
            (stream(), HEAD, "Content-Type: a/b", framed(None, true)),
            (stream(), OLD_KEPT, "Content-Type: a/b|Connection: close", framed(Close, false)),
            (
                stream().length(7),
                OLD_KEPT,
                "Content-Type: a/b|Content-Length: 7|Connection: keep-alive",
                framed(Length(7), true),
            ),
            (stream().length(0), GET, "Content-Type: a/b|Content-Length: 0", framed(None, true)),
            (empty(StatusCode::OK), GET, "Content-Length: 0", framed(None, true)),
            (empty(StatusCode::OK), HEAD, "", framed(None, true)),
            (empty(StatusCode::NO_CONTENT), GET, "", framed(None, true)),
            (empty(StatusCode::RESET_CONTENT), GET, "Content-Length: 0", framed(None, true)),
            (empty(StatusCode::NOT_MODIFIED), GET, "", framed(None, true)),
            (
                text().status(StatusCode::NOT_MODIFIED),
                GET,
                "Content-Type: a/b|Content-Length: 5",
                framed(None, true),
            ),
            (
                stream().status(StatusCode::NOT_MODIFIED),
                OLD_KEPT,
                "Content-Type: a/b|Connection: keep-alive",
                framed(None, true),
            ),
            (
                empty(StatusCode::BAD_REQUEST),
                Asked::unreadable(),
                "Content-Length: 0|Connection: close",
                framed(None, false),
            ),
        ] {
            let shown = format!("{response:?} {asked:?}");
            let (written, how) = encoded(response, asked);
            // Without fields of its own a head has the Date alone, and joins to an empty string.
            assert_eq!((written.as_str(), how), (lines, expected), "{shown}");
        }
    }

    #[test]
    fn an_upgrade_field_brings_its_connection_option() {
        let response = || Response::new(StatusCode::UPGRADE_REQUIRED).field("Upgrade", "websocket");
        assert_eq!(encoded(response(), GET).0, "Upgrade: websocket|Content-Length: 0|Connection: upgrade");
        let closing = "Upgrade: websocket|Content-Length: 0|Connection: close, upgrade";
        assert_eq!(encoded(response().close(), GET).0, closing);
    }

    #[test]
    fn a_date_of_the_applications_own_is_the_only_one() {
        let mut out = Vec::new();
        let response = Response::new(StatusCode::OK).field("date", "Mon, 07 Nov 1994 08:49:37 GMT");
        head(&mut out, &response, GET, DATE).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().to_lowercase().matches("date:").count(), 1);
    }

    #[test]
    fn a_status_without_a_reason_keeps_the_space() {
        let mut out = Vec::new();
        let status = StatusCode::new(299).unwrap();
        head(&mut out, &Response::new(status), GET, DATE).unwrap();
        assert!(out.starts_with(b"HTTP/1.1 299 \r\n"));
    }

    #[test]
    fn nothing_is_written_of_a_response_that_is_wrong() {
        for (response, expected) in [
            (Response::text("x").field("a", "b\r\nc: d"), ResponseError::Field(FieldError::Value)),
            (Response::text("x").field("a\n", "b"), ResponseError::Field(FieldError::Name)),
            (Response::text("x").field("Content-Length", "5"), ResponseError::Managed),
            (Response::text("x").status(StatusCode::NO_CONTENT), ResponseError::Content),
            (Response::new(StatusCode::SWITCHING_PROTOCOLS), ResponseError::Informational),
        ] {
            let mut out = Vec::new();
            assert_eq!(head(&mut out, &response, GET, DATE), Err(expected));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn the_opening_handshake_is_answered_as_in_the_rfc() {
        let mut out = Vec::new();
        let mut extra = Fields::new();
        extra.push("X-A", "b").unwrap();
        switching(&mut out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", Some("chat"), Some("mux; a=1"), &extra).unwrap();
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
            Sec-WebSocket-Extensions: mux; a=1\r\nX-A: b\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);

        let mut out = Vec::new();
        assert!(switching(&mut out, "k", Some("a\r\nb"), None, &Fields::new()).is_err());
        for name in [
            "Connection",
            "sec-websocket-accept",
            "Content-Length",
            "Sec-WebSocket-Protocol",
            "sec-websocket-extensions",
        ] {
            let mut extra = Fields::new();
            extra.push(name, "x").unwrap();
            assert_eq!(switching(&mut out, "k", None, None, &extra), Err(ResponseError::Managed), "{name}");
        }
        assert!(out.is_empty());
    }

    #[test]
    fn chunks_are_written_in_hexadecimal() {
        for (length, header) in [
            (1, "1\r\n"),
            (15, "f\r\n"),
            (16, "10\r\n"),
            (0xabc0, "abc0\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            let mut out = Vec::new();
            chunk_header(&mut out, length);
            assert!(out.as_slice() == header.as_bytes() || length == usize::MAX, "{length}");
        }
        let mut out = Vec::new();
        chunk_header(&mut out, 5);
        out.extend_from_slice(b"hello");
        out.extend_from_slice(CHUNK_END);
        let mut trailers = Fields::new();
        trailers.push("X-A", "b").unwrap();
        trailers.push("Content-Length", "5").unwrap();
        last_chunk(&mut out, &trailers);
        assert_eq!(out, b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n");
    }
}
