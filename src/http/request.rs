//! A request as the application sees it: borrowed from the bytes that came, read on demand.

use super::fields::elements;
use super::is_token;
use crate::http1::head::Head;
use crate::{ConnId, Peer};
use std::fmt;

/// The version of HTTP that a message came in (RFC 9110, section 2.5).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Version {
    /// HTTP/1.0 (RFC 1945).
    Http10,
    /// HTTP/1.1 (RFC 9112).
    Http11,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        })
    }
}

/// The head of a request, and who it came from.
///
/// Everything is borrowed, also what the methods return, and nothing is decoded. What is here has passed the checks of
/// RFC 9110 and RFC 9112: there is a valid `Host` unless the version is 1.0, names are tokens, and no value holds a
/// control character other than the tab.
///
/// ```
/// use lodger::http::Request;
///
/// fn language<'a>(request: &Request<'a>) -> &'a str {
///     match request.query().and_then(|query| query.strip_prefix("lang=")) {
///         Some(language) => language,
///         None => request.text("Accept-Language").unwrap_or("en"),
///     }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Request<'a> {
    id: ConnId,
    peer: &'a Peer,
    head: &'a Head<'a>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(id: ConnId, peer: &'a Peer, head: &'a Head<'a>) -> Self {
        Self { id, peer, head }
    }

    /// The conn that this request begins. Keep it to decide later.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Who is at the other end of the socket, which may be a proxy.
    pub fn peer(&self) -> &'a Peer {
        self.peer
    }

    /// The method, as it came: a token, case-sensitive, not necessarily one that RFC 9110 knows (section 9.1). It is never
    /// `CONNECT`, which is answered with 501.
    pub fn method(&self) -> &'a str {
        self.head.method
    }

    /// The target as it came: a path with its query, an absolute `http` or `https` URI, or the `*` of `OPTIONS`
    /// (RFC 9112, section 3.2). It is visible ASCII, has no fragment, and its percent-encoding is neither undone nor checked.
    pub fn target(&self) -> &'a str {
        self.head.target.text()
    }

    /// The path of the target, still percent-encoded, dot segments included; `/` when an absolute URI has none, and `*` for
    /// the `*` of `OPTIONS`.
    pub fn path(&self) -> &'a str {
        self.head.target.path()
    }

    /// The query of the target, after the first question mark, still percent-encoded (RFC 3986, section 3.4).
    pub fn query(&self) -> Option<&'a str> {
        self.head.target.query()
    }

    /// The version of HTTP that the request came in.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The value of the first field of this name, in any case. Bytes above ASCII are possible (RFC 9110, section 5.5).
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.head.field(name)
    }

    /// The values of all fields of this name, in order. Together they are one list, if the field is defined as a list
    /// (RFC 9110, section 5.3).
    pub fn field_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.head.field_all(name)
    }

    /// The value of the first field of this name, if it is UTF-8, as nearly all values are.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.field(name)?).ok()
    }

    /// Name and value of every field, in the order and the case in which they came.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.head.fields.iter().map(|field| (field.name, field.value))
    }

    /// The host, with its port if there was one, that the request was sent to: the `Host` field, or the authority of an absolute
    /// target, which has to agree with it (RFC 9110, section 7.2). `None` is possible in HTTP/1.0 only.
    pub fn host(&self) -> Option<&'a str> {
        self.head.host
    }

    /// The `Origin` field: which site's page sent the request, if a browser did (RFC 6454, section 7). It is `null` for a page
    /// without an origin of its own, and also when the field comes twice or is not text, so that no site takes it for its own.
    pub fn origin(&self) -> Option<&'a str> {
        origin(self.head)
    }

    /// Whether this is a WebSocket opening handshake: `GET` in version 1.1, `Upgrade: websocket`, `Connection: upgrade`
    /// (RFC 6455, section 4.2.1, items 1 to 4). Key and version are not looked at.
    pub fn is_websocket(&self) -> bool {
        is_websocket(self.head)
    }

    /// The subprotocols that a WebSocket client offers, the one that it prefers first, across all the
    /// `Sec-WebSocket-Protocol` fields (RFC 6455, section 11.3.4). What is not a token is left out.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        subprotocols(self.head)
    }
}

fn origin<'a>(head: &Head<'a>) -> Option<&'a str> {
    let mut all = head.field_all("Origin");
    let first = all.next()?;
    match (std::str::from_utf8(first), all.next()) {
        (Ok(origin), None) => Some(origin),
        (_, Some(_)) | (Err(_), _) => Some("null"),
    }
}

fn is_websocket(head: &Head<'_>) -> bool {
    let asks = |value| elements(value).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    head.upgrade && head.method == "GET" && head.field_all("Upgrade").any(asks)
}

fn subprotocols<'a>(head: &Head<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    head.field_all("Sec-WebSocket-Protocol")
        .flat_map(elements)
        .filter(|token| is_token(token))
        .filter_map(|token| std::str::from_utf8(token).ok())
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("method", &self.method())
            .field("target", &self.target())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::parse;
    use std::mem::MaybeUninit;

    fn with_head<T>(line: &str, fields: &[u8], then: impl FnOnce(&Head<'_>) -> T) -> T {
        let bytes = [line.as_bytes(), b"\r\nHost: a\r\n", fields, b"\r\n"].concat();
        let mut room = [const { MaybeUninit::uninit() }; 10];
        then(&parse(&bytes, &mut room).expect("the request is right"))
    }

    #[test]
    fn a_websocket_is_asked_for_by_method_version_and_two_fields() {
        for (line, fields, asked) in [
            ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
            ("GET / HTTP/1.1", "connection: keep-alive, upgrade\r\nUPGRADE: h2c, WebSocket\r\n", true),
            (
                "GET / HTTP/1.1",
                "Connection: x\r\nConnection: upgrade\r\nUpgrade: a\r\nUpgrade: websocket\r\n",
                true,
            ),
            ("GET / HTTP/1.1", "Upgrade: websocket\r\n", false),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\n", false),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: made-up/1.0\r\n", false),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websockets\r\n", false),
            ("POST / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", false),
            ("GET / HTTP/1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", false),
        ] {
            assert_eq!(with_head(line, fields.as_bytes(), is_websocket), asked, "{line} {fields:?}");
        }
    }

    #[test]
    fn subprotocols_come_from_all_lines_in_order() {
        let fields = b"Sec-WebSocket-Protocol: chat, super chat,,v2\r\nsec-websocket-protocol:x\r\n";
        with_head("GET / HTTP/1.1", fields, |head| {
            assert_eq!(subprotocols(head).collect::<Vec<_>>(), ["chat", "v2", "x"]);
        });
    }

    #[test]
    fn an_origin_that_is_unclear_is_nobodys() {
        for (fields, expected) in [
            (&b""[..], None),
            (b"Origin: http://a\r\n", Some("http://a")),
            (b"Origin: null\r\n", Some("null")),
            (b"Origin: http://a\r\nOrigin: http://a\r\n", Some("null")),
            (b"Origin: http://\xff\r\n", Some("null")),
        ] {
            with_head("GET / HTTP/1.1", fields, |head| assert_eq!(origin(head), expected));
        }
    }
}
