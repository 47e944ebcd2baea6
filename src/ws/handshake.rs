//! The opening handshake (RFC 6455, section 4), the server's half: from the facts of a request to an accept key.
//!
//! ```
//! use lodger::ws::handshake;
//!
//! let fields: [(&str, &[u8]); 5] = [
//!     ("Host", b"server.example.com"),
//!     ("Upgrade", b"websocket"),
//!     ("Connection", b"keep-alive, Upgrade"),
//!     ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
//!     ("Sec-WebSocket-Version", b"13"),
//! ];
//! let accept = handshake::check("GET", 1, fields)?;
//! // Status 101 with Upgrade: websocket, Connection: Upgrade, and as Sec-WebSocket-Accept:
//! assert_eq!(accept.as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
//! # Ok::<(), handshake::HandshakeError>(())
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// What a request that asks for a WebSocket does wrong (RFC 6455, section 4.2.1). It is answered as HTTP, by
/// [`status`](Self::status) and [`fields`](Self::fields).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HandshakeError {
    /// The method is not GET.
    Method,
    /// The version is HTTP/1.0, which has no upgrade.
    HttpVersion,
    /// There is no Host, or more than one.
    Host,
    /// There is no Upgrade that lists `websocket`.
    Upgrade,
    /// There is no Connection that lists `upgrade`.
    Connection,
    /// There is no Sec-WebSocket-Key, more than one, or one that is not the base64 of 16 bytes.
    Key,
    /// Sec-WebSocket-Version is missing or not 13.
    Version,
    /// Sec-WebSocket-Version came more than once.
    RepeatedVersion,
    /// Sec-WebSocket-Protocol lists something that is not a token, or the same twice (section 4.1).
    Subprotocols,
}

impl HandshakeError {
    /// The status code of the answer: 400, 405 or 426.
    pub fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Upgrade | Self::Version => 426,
            Self::HttpVersion
            | Self::Host
            | Self::Connection
            | Self::Key
            | Self::RepeatedVersion
            | Self::Subprotocols => 400,
        }
    }

    /// The fields that the answer must have, for what its status says: Allow with 405 (RFC 9110, section 15.5.6), Upgrade
    /// with 426 (section 15.5.22), and the version we speak (RFC 6455, section 4.4).
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self.status() {
            405 => &[("Allow", "GET")],
            426 => &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")],
            _ => &[],
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "method is not GET",
            Self::HttpVersion => "HTTP version before 1.1",
            Self::Host => "not exactly one Host",
            Self::Upgrade => "no upgrade to websocket asked for",
            Self::Connection => "upgrade not listed in Connection",
            Self::Key => "not exactly one valid Sec-WebSocket-Key",
            Self::Version => "Sec-WebSocket-Version is not 13",
            Self::RepeatedVersion => "more than one Sec-WebSocket-Version",
            Self::Subprotocols => "invalid list of subprotocols",
        })
    }
}

impl std::error::Error for HandshakeError {}

/// The value of Sec-WebSocket-Accept (RFC 6455, section 4.2.2, item 5.4).
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct AcceptKey([u8; 28]);

impl AcceptKey {
    /// As text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("base64 is ASCII")
    }

    /// As bytes.
    pub fn as_bytes(&self) -> &[u8; 28] {
        &self.0
    }
}

impl fmt::Debug for AcceptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AcceptKey").field(&self.as_str()).finish()
    }
}

impl fmt::Display for AcceptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checks a request against RFC 6455, section 4.2.1, and gives the accept key for the answer.
///
/// `minor_version` is that of HTTP/1.x; `fields` are all fields of the request, as they came, names in any case. The list
/// of subprotocols is checked too; read it with [`subprotocols`]. Origin and target are the application's to judge.
/// Sec-WebSocket-Extensions is not looked at: without an answer to it every extension is declined. `ws::deflate` (feature
/// `deflate`) has what answers the offers of permessage-deflate (RFC 7692).
///
/// # Errors
///
/// The first that applies, in the order of [`HandshakeError`].
pub fn check<'a>(
    method: &str,
    minor_version: u8,
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<AcceptKey, HandshakeError> {
    let offer = Offer::read(fields);
    let required = [
        (method == "GET", HandshakeError::Method),
        (minor_version >= 1, HandshakeError::HttpVersion),
        (matches!(offer.host, Field::Once(_)), HandshakeError::Host),
        (offer.upgrade, HandshakeError::Upgrade),
        (offer.connection, HandshakeError::Connection),
    ];
    if let Some((_, error)) = required.into_iter().find(|(holds, _)| !holds) {
        return Err(error);
    }
    let Field::Once(key) = offer.key else {
        return Err(HandshakeError::Key);
    };
    if !is_valid_key(key) {
        return Err(HandshakeError::Key);
    }
    match offer.version {
        Field::Once(b"13") => {}
        Field::Missing | Field::Once(_) => return Err(HandshakeError::Version),
        Field::Repeated => return Err(HandshakeError::RepeatedVersion),
    }
    subprotocols(offer.subprotocols)?;
    Ok(accept_key(key))
}

/// The subprotocols that the client offers, the preferred one first (RFC 6455, section 4.1, item 10), from the values of
/// all Sec-WebSocket-Protocol fields. They are compared with regard to case.
///
/// # Errors
///
/// [`HandshakeError::Subprotocols`]: something is not a token, or comes twice.
pub fn subprotocols<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<&'a str>, HandshakeError> {
    let mut listed = Vec::new();
    for element in values.into_iter().flat_map(elements) {
        if !element.iter().all(|&byte| is_token_byte(byte)) {
            return Err(HandshakeError::Subprotocols);
        }
        listed.push(str::from_utf8(element).map_err(|_| HandshakeError::Subprotocols)?);
    }
    // Sorted, so that a long list does not cost the square of its length.
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(HandshakeError::Subprotocols);
    }
    Ok(listed)
}

/// The accept key for a Sec-WebSocket-Key, which is taken as it is (RFC 6455, section 4.2.2, item 5.4).
pub fn accept_key(key: &[u8]) -> AcceptKey {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(GUID);
    let mut accept = [0; 28];
    STANDARD.encode_slice(hash.digest().bytes(), &mut accept).expect("the base64 of 20 bytes has 28");
    AcceptKey(accept)
}

/// True if `key` is the base64 of exactly 16 bytes, as a Sec-WebSocket-Key must be (RFC 6455, section 4.2.1, item 5).
pub fn is_valid_key(key: &[u8]) -> bool {
    // Nothing is decoded: simple clients take 22 letters at random, and what is left in the last has no meaning.
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(key.split_last_chunk(), Some((digits, b"==")) if digits.len() == 22 && digits.iter().all(is_digit))
}

/// What a request says about the connection it asks for.
#[derive(Default)]
struct Offer<'a> {
    host: Field<'a>,
    upgrade: bool,
    connection: bool,
    key: Field<'a>,
    version: Field<'a>,
    subprotocols: Vec<&'a [u8]>,
}

/// A field that must come once.
#[derive(Clone, Copy, Default)]
enum Field<'a> {
    #[default]
    Missing,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Offer<'a> {
    fn read(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut offer = Self::default();
        for (name, value) in fields {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("Host") {
                offer.host.add(value);
            } else if is("Upgrade") {
                offer.upgrade |= lists(value, "websocket");
            } else if is("Connection") {
                offer.connection |= lists(value, "upgrade");
            } else if is("Sec-WebSocket-Key") {
                offer.key.add(value);
            } else if is("Sec-WebSocket-Version") {
                offer.version.add(value);
            } else if is("Sec-WebSocket-Protocol") {
                offer.subprotocols.push(value);
            }
        }
        offer
    }
}

impl<'a> Field<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Missing => Self::Once(value.trim_ascii()),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }
}

/// True if the list in `value` has `token`, in any case.
fn lists(value: &[u8], token: &str) -> bool {
    elements(value).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// The elements of a comma-separated list; empty ones are skipped (RFC 9110, section 5.6.1.2).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: [(&str, &str); 6] = [
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
    ];

    fn check_fields(fields: &[(&'static str, &'static str)]) -> Result<AcceptKey, HandshakeError> {
        check("GET", 1, fields.iter().map(|&(name, value)| (name, value.as_bytes())))
    }

    fn with(name: &'static str, value: &'static str) -> Result<AcceptKey, HandshakeError> {
        let replaced =
            GOOD.map(|field| if field.0.eq_ignore_ascii_case(name) { (name, value) } else { field });
        check_fields(&replaced)
    }

    fn without(name: &str) -> Result<AcceptKey, HandshakeError> {
        let rest: Vec<_> = GOOD.into_iter().filter(|field| field.0 != name).collect();
        check_fields(&rest)
    }

    fn with_more(name: &'static str, value: &'static str) -> Result<AcceptKey, HandshakeError> {
        check_fields(&[&GOOD[..], &[(name, value)]].concat())
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        // Section 1.3.
        let accept = check_fields(&GOOD).unwrap();
        assert_eq!(accept.as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accept, accept_key(KEY.as_bytes()));
    }

    #[test]
    fn names_and_tokens_are_compared_without_regard_to_case() {
        assert!(with("upgrade", "WebSocket").is_ok());
        assert!(with("UPGRADE", "h2c, websocket").is_ok());
        assert!(with("connection", " keep-alive ,\tUPGRADE ").is_ok());
        assert!(with("sec-websocket-version", " 13 ").is_ok());
        assert!(with_more("Connection", "close").is_ok());
    }

    #[test]
    fn every_requirement_is_checked() {
        assert_eq!(check("POST", 1, []), Err(HandshakeError::Method));
        assert_eq!(check("get", 1, []), Err(HandshakeError::Method));
        assert_eq!(check("GET", 0, []), Err(HandshakeError::HttpVersion));
        assert_eq!(without("Host"), Err(HandshakeError::Host));
        assert_eq!(with_more("Host", "other"), Err(HandshakeError::Host));
        assert_eq!(without("Upgrade"), Err(HandshakeError::Upgrade));
        assert_eq!(with("Upgrade", "websockets"), Err(HandshakeError::Upgrade));
        assert_eq!(without("Connection"), Err(HandshakeError::Connection));
        assert_eq!(with("Connection", "keep-alive"), Err(HandshakeError::Connection));
        assert_eq!(without("Sec-WebSocket-Key"), Err(HandshakeError::Key));
        assert_eq!(with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j"), Err(HandshakeError::Key));
        assert_eq!(with_more("Sec-WebSocket-Key", KEY), Err(HandshakeError::Key));
        assert_eq!(without("Sec-WebSocket-Version"), Err(HandshakeError::Version));
        for version in ["", "8", "12", "14", "013", "+13", "13, 8"] {
            assert_eq!(with("Sec-WebSocket-Version", version), Err(HandshakeError::Version));
        }
        assert_eq!(with_more("Sec-WebSocket-Version", "13"), Err(HandshakeError::RepeatedVersion));
        assert_eq!(with_more("Sec-WebSocket-Protocol", "chat"), Err(HandshakeError::Subprotocols));
    }

    #[test]
    fn the_answer_says_what_would_be_right() {
        assert_eq!(HandshakeError::Key.status(), 400);
        assert_eq!(HandshakeError::Method.fields(), [("Allow", "GET")]);
        assert_eq!(HandshakeError::Version.status(), 426);
        assert!(HandshakeError::Version.fields().contains(&("Sec-WebSocket-Version", "13")));
    }

    #[test]
    fn a_key_is_the_base64_of_16_bytes() {
        for good in [KEY, "AAAAAAAAAAAAAAAAAAAAAA==", "/////////////////////w==", "AAAAAAAAAAAAAAAAAAAAAB=="]
        {
            assert!(is_valid_key(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "AAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAA*A==",
            "AAAAAAAAAAAAAAAAAAAA====",
            "AAAAAAAAAAAAAAAAAAAAAAAAAA==",
            "____________________AA==",
        ] {
            assert!(!is_valid_key(bad.as_bytes()), "{bad}");
        }
        assert!(!is_valid_key(&[0xff; 24]));
    }

    #[test]
    fn subprotocols_keep_their_order_over_several_fields() {
        let values = [&b"b, a,, "[..], b"", b"A\t,x-1.2+json"];
        assert_eq!(subprotocols(values), Ok(vec!["b", "a", "A", "x-1.2+json"]));
        assert_eq!(subprotocols([]), Ok(vec![]));
    }

    #[test]
    fn a_bad_list_of_subprotocols_is_refused() {
        for bad in [&b"a b"[..], b"a/b", b"\"a\"", b"a, a", b"a, b, a", b"\xc3\xa4", b"a;q=1"] {
            assert_eq!(subprotocols([bad]), Err(HandshakeError::Subprotocols));
        }
    }
}
