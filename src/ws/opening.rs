//! The opening handshake (RFC 6455, section 4), the client's half: from a key to the facts of a response.
//!
//! ```
//! use lodger::http::StatusCode;
//! use lodger::ws::opening::ClientKey;
//!
//! # let random = *b"the sample nonce";
//! let key = ClientKey::from_random(random); // of the system's
//! // GET in HTTP/1.1 with Host, Upgrade: websocket, Connection: Upgrade, Sec-WebSocket-Version: 13, and as Sec-WebSocket-Key:
//! assert_eq!(key.as_str(), "dGhlIHNhbXBsZSBub25jZQ==");
//!
//! let fields: [(&str, &[u8]); 4] = [
//!     ("Upgrade", b"websocket"),
//!     ("Connection", b"Upgrade"),
//!     ("Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
//!     ("Sec-WebSocket-Protocol", b"chat"),
//! ];
//! let subprotocol = key.check(StatusCode::SWITCHING_PROTOCOLS, 1, fields, &["chat", "superchat"], &[])?;
//! assert_eq!(subprotocol, Some("chat"));
//! # Ok::<(), lodger::ws::opening::OpeningError>(())
//! ```

use super::handshake::{AcceptKey, accept_key};
use crate::http::{FieldError, Fields, RequestError, StatusCode, Target, Version};
use crate::http::{elements, is_field_value, is_managed_in_requests, is_token};
use crate::http1::answer::Answer;
use crate::http1::ask::request_line;
use crate::http1::encode::field;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// The value of Sec-WebSocket-Key (RFC 6455, section 4.1, item 7): by what comes back for it, a client knows that the server
/// understood. It is new for each connection, and no secret.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct ClientKey([u8; 24]);

impl ClientKey {
    /// A key of 16 bytes that cannot be predicted.
    pub fn from_random(random: [u8; 16]) -> Self {
        let mut key = [0; 24];
        STANDARD.encode_slice(random, &mut key).expect("the base64 of 16 bytes has 24");
        Self(key)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("base64 is ASCII")
    }

    /// The value that Sec-WebSocket-Accept must have in the response (section 4.1, item 4 of the second list).
    pub fn accept_key(&self) -> AcceptKey {
        accept_key(&self.0)
    }

    /// Checks the response to a request that had this key against RFC 6455, section 4.1, and gives the subprotocol that the
    /// server has chosen. `None`: it has chosen none, which is for the client to judge.
    ///
    /// `minor_version` is that of HTTP/1.x; `fields` are all fields of the response, as they came, names in any case.
    /// `subprotocols` and `extensions` are those that the request offered, the latter by name; what the server says about an
    /// extension's parameters is not looked at.
    ///
    /// # Errors
    ///
    /// The first that applies, in the order of [`OpeningError`]. The connection is to be closed.
    pub fn check<'a, S: AsRef<str>>(
        &self,
        status: StatusCode,
        minor_version: u8,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        subprotocols: &[S],
        extensions: &[&str],
    ) -> Result<Option<&'a str>, OpeningError> {
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(OpeningError::Status(status));
        }
        if minor_version == 0 {
            return Err(OpeningError::HttpVersion);
        }
        let reply = Reply::read(fields);
        match reply.upgrade {
            Field::Missing => return Err(OpeningError::NoUpgrade),
            Field::Once(value) if value.eq_ignore_ascii_case(b"websocket") => {}
            Field::Once(value) | Field::Repeated(value) => {
                return Err(OpeningError::WrongUpgrade(text(value)));
            }
        }
        match reply.connection {
            Some(true) => {}
            Some(false) => return Err(OpeningError::WrongConnection),
            None => return Err(OpeningError::NoConnection),
        }
        match reply.accept {
            Field::Missing => return Err(OpeningError::NoAccept),
            Field::Once(value) if value == self.accept_key().as_bytes() => {}
            Field::Once(_) => return Err(OpeningError::WrongAccept),
            Field::Repeated(_) => return Err(OpeningError::DoubledAccept),
        }
        let subprotocol = match reply.subprotocol {
            Field::Missing => None,
            Field::Once(value) => Some(chosen(value, subprotocols)?),
            Field::Repeated(_) => return Err(OpeningError::DoubledSubprotocol),
        };
        check_extensions(&reply.extensions, extensions)?;
        Ok(subprotocol)
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientKey").field(&self.as_str()).finish()
    }
}

/// Appends the request that asks for a WebSocket (RFC 6455, section 4.1).
///
/// # Errors
///
/// [`RequestError::Managed`] when `fields` has one that is said here already; otherwise that of what is wrong. Nothing has
/// been appended then.
#[allow(clippy::too_many_arguments, reason = "each is a line of the request")]
pub(crate) fn request(
    out: &mut Vec<u8>,
    target: &str,
    authority: &str,
    key: &ClientKey,
    origin: Option<&str>,
    subprotocols: &[String],
    extensions: Option<&str>,
    fields: &Fields,
) -> Result<(), RequestError> {
    let own = |name: &str| {
        is_managed_in_requests(name)
            || name.get(..14).is_some_and(|start| start.eq_ignore_ascii_case("Sec-WebSocket-"))
            || (origin.is_some() && name.eq_ignore_ascii_case("Origin"))
    };
    if fields.iter().any(|(name, _)| own(name)) {
        return Err(RequestError::Managed);
    }
    if !origin.into_iter().chain(extensions).all(|value| is_field_value(value.as_bytes())) {
        return Err(RequestError::Field(FieldError::Value));
    }
    let repeated = |at: usize| subprotocols[..at].contains(&subprotocols[at]);
    if (0..subprotocols.len()).any(|at| !is_token(subprotocols[at].as_bytes()) || repeated(at)) {
        return Err(RequestError::Subprotocol);
    }
    if Target::parse(target).is_none_or(|target| target.is_asterisk()) {
        return Err(RequestError::Target);
    }
    request_line(out, "GET", target, authority)?;
    out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    field(out, b"Sec-WebSocket-Key: ", &key.0);
    out.extend_from_slice(b"Sec-WebSocket-Version: 13\r\n");
    if let Some(origin) = origin {
        field(out, b"Origin: ", origin.as_bytes());
    }
    if !subprotocols.is_empty() {
        field(out, b"Sec-WebSocket-Protocol: ", subprotocols.join(", ").as_bytes());
    }
    if let Some(extensions) = extensions {
        field(out, b"Sec-WebSocket-Extensions: ", extensions.as_bytes());
    }
    out.extend_from_slice(fields.lines());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Checks a response that was received; permessage-deflate is the one extension that can have been offered.
///
/// # Errors
///
/// As [`ClientKey::check`].
pub(crate) fn check<'a>(
    answer: &Answer<'a>,
    key: &ClientKey,
    subprotocols: &[String],
    extensions_offered: bool,
) -> Result<Option<&'a str>, OpeningError> {
    let minor_version = u8::from(answer.version > Version::Http10);
    let fields = answer.fields.iter().map(|field| (field.name, field.value));
    let extensions: &[&str] = if extensions_offered { &["permessage-deflate"] } else { &[] };
    key.check(answer.status, minor_version, fields, subprotocols, extensions)
}

/// What a response says about the connection that was asked for.
#[derive(Default)]
struct Reply<'a> {
    upgrade: Field<'a>,
    /// Whether `upgrade` is listed, if there is such a field.
    connection: Option<bool>,
    accept: Field<'a>,
    subprotocol: Field<'a>,
    extensions: Vec<&'a [u8]>,
}

/// A field that is to come once; of a repeated one, the last value.
#[derive(Clone, Copy, Default)]
enum Field<'a> {
    #[default]
    Missing,
    Once(&'a [u8]),
    Repeated(&'a [u8]),
}

impl<'a> Reply<'a> {
    fn read(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut reply = Self::default();
        for (name, value) in fields {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("Upgrade") {
                reply.upgrade.add(value);
            } else if is("Connection") {
                let listed = elements(value).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
                *reply.connection.get_or_insert_default() |= listed;
            } else if is("Sec-WebSocket-Accept") {
                reply.accept.add(value);
            } else if is("Sec-WebSocket-Protocol") {
                reply.subprotocol.add(value);
            } else if is("Sec-WebSocket-Extensions") {
                reply.extensions.push(value);
            }
        }
        reply
    }
}

impl<'a> Field<'a> {
    fn add(&mut self, value: &'a [u8]) {
        let value = value.trim_ascii();
        *self = match self {
            Self::Missing => Self::Once(value),
            Self::Once(_) | Self::Repeated(_) => Self::Repeated(value),
        };
    }
}

/// The subprotocol that the server has chosen; the comparison regards case.
fn chosen<'a, S: AsRef<str>>(value: &'a [u8], offered: &[S]) -> Result<&'a str, OpeningError> {
    str::from_utf8(value)
        .ok()
        .filter(|value| offered.iter().any(|offered| offered.as_ref() == *value))
        .ok_or_else(|| OpeningError::SubprotocolNotOffered(text(value)))
}

fn check_extensions(values: &[&[u8]], offered: &[&str]) -> Result<(), OpeningError> {
    let mut accepted: Vec<&[u8]> = Vec::new();
    for element in values.iter().flat_map(|value| elements(value)).filter(|element| !element.is_empty()) {
        let name = element.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        if !offered.iter().any(|offered| offered.as_bytes() == name) {
            return Err(OpeningError::ExtensionNotOffered(text(name)));
        }
        if accepted.contains(&name) {
            return Err(OpeningError::DoubledExtension(text(name)));
        }
        accepted.push(name);
    }
    Ok(())
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// What is wrong with the response to an opening handshake (RFC 6455, section 4.1). No connection comes of it.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
#[doc(alias("LWS_CALLBACK_CLIENT_CONNECTION_ERROR", "HS:"))]
pub enum OpeningError {
    /// The status is another one than 101: the response is one of HTTP.
    #[doc(alias("HS: ws upgrade response not 101", "HS: Server did not return 200"))]
    Status(StatusCode),
    /// The version is HTTP/1.0, which has no upgrade.
    HttpVersion,
    /// There is no Upgrade.
    #[doc(alias = "HS: UPGRADE missing")]
    NoUpgrade,
    /// Upgrade is not `websocket`, or not that alone; this is its value.
    #[doc(alias = "HS: Upgrade to something other than websocket")]
    WrongUpgrade(String),
    /// There is no Connection.
    #[doc(alias = "HS: CONNECTION missing")]
    NoConnection,
    /// Connection does not list `upgrade`.
    #[doc(alias = "HS: UPGRADE malformed")]
    WrongConnection,
    /// There is no Sec-WebSocket-Accept.
    #[doc(alias = "HS: ACCEPT missing")]
    NoAccept,
    /// Sec-WebSocket-Accept does not belong to the key that was sent.
    #[doc(alias = "HS: Accept hash wrong")]
    WrongAccept,
    /// There is more than one Sec-WebSocket-Accept (section 11.3.3).
    DoubledAccept,
    /// Sec-WebSocket-Protocol is none of those that were offered; this is its value.
    #[doc(alias("HS: PROTOCOL malformed", "HS: Cannot match protocol"))]
    SubprotocolNotOffered(String),
    /// There is more than one Sec-WebSocket-Protocol (section 11.3.4).
    DoubledSubprotocol,
    /// Sec-WebSocket-Extensions has one that was not offered; this is its name.
    #[doc(alias("HS: EXT: unknown ext", "HS: EXT: list too big"))]
    ExtensionNotOffered(String),
    /// Sec-WebSocket-Extensions has an extension twice; this is its name.
    DoubledExtension(String),
}

impl fmt::Display for OpeningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "server answered {status} instead of 101: {}", advice(*status)),
            Self::HttpVersion => f.write_str(
                "server answered in HTTP/1.0, which has no upgrade: look for a proxy on the way that has to be told",
            ),
            Self::NoUpgrade => f.write_str(
                "server answered 101 without Upgrade: look for a proxy on the way that takes the field out",
            ),
            Self::WrongUpgrade(value) => {
                write!(f, "server upgrades to {value:?} instead of websocket: check host, port and path")
            }
            Self::NoConnection => f.write_str(
                "server answered 101 without Connection: look for a proxy on the way that takes the field out",
            ),
            Self::WrongConnection => f.write_str(
                "Connection in the answer does not list upgrade: look for a proxy on the way that changes the field",
            ),
            Self::NoAccept => {
                f.write_str("server answered 101 without Sec-WebSocket-Accept: it does not speak RFC 6455")
            }
            Self::WrongAccept => f.write_str(
                "Sec-WebSocket-Accept is not for the key that was sent: the server is broken, or a cache has answered",
            ),
            Self::DoubledAccept => {
                f.write_str("more than one Sec-WebSocket-Accept: the server, or a proxy on the way, is broken")
            }
            Self::SubprotocolNotOffered(value) => {
                write!(f, "server chose the subprotocol {value:?}, which was not offered: offer it, if it is spoken")
            }
            Self::DoubledSubprotocol => {
                f.write_str("more than one Sec-WebSocket-Protocol: the server has to choose one")
            }
            Self::ExtensionNotOffered(name) => {
                write!(f, "server uses the extension {name:?}, which was not offered: turn it off there")
            }
            Self::DoubledExtension(name) => {
                write!(f, "server uses the extension {name:?} twice: turn it off, here or there")
            }
        }
    }
}

impl std::error::Error for OpeningError {}

/// What to do about an answer that is no upgrade.
fn advice(status: StatusCode) -> &'static str {
    match status.code() {
        300..=399 => "follow its Location, or correct the URL",
        401 | 407 => "give credentials as a field",
        403 => "check credentials, and which origins it lets in",
        404 | 405 => "check the path of the URL",
        400 | 426 => "it does not take this request for an opening handshake; check the path of the URL",
        421 => "check the host of the URL",
        429 | 503 => "try again later",
        500..=599 => "look into the server's log",
        _ => "there is no WebSocket at this URL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::answer::{self, Asking};
    use crate::http1::head;
    use crate::ws::handshake;
    use std::mem::MaybeUninit;

    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const GOOD: [(&str, &str); 3] =
        [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT)];

    /// The key of the RFC's example.
    fn key() -> ClientKey {
        ClientKey::from_random(*b"the sample nonce")
    }

    /// Checks an answer to a request that offered `chat`, `superchat` and permessage-deflate.
    fn check_fields(fields: &[(&'static str, &'static str)]) -> Result<Option<&'static str>, OpeningError> {
        let fields = fields.iter().map(|&(name, value)| (name, value.as_bytes()));
        let status = StatusCode::SWITCHING_PROTOCOLS;
        key().check(status, 1, fields, &["chat", "superchat"], &["permessage-deflate"])
    }

    fn with(name: &'static str, value: &'static str) -> Result<Option<&'static str>, OpeningError> {
        let replaced =
            GOOD.map(|field| if field.0.eq_ignore_ascii_case(name) { (name, value) } else { field });
        check_fields(&replaced)
    }

    fn without(name: &str) -> Result<Option<&'static str>, OpeningError> {
        check_fields(&GOOD.into_iter().filter(|field| field.0 != name).collect::<Vec<_>>())
    }

    fn with_more(more: &[(&'static str, &'static str)]) -> Result<Option<&'static str>, OpeningError> {
        check_fields(&[&GOOD[..], more].concat())
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        // Sections 1.2 and 1.3.
        assert_eq!(key().as_str(), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(key().accept_key().as_str(), ACCEPT);
        assert_eq!(check_fields(&GOOD), Ok(None));
        assert_eq!(with_more(&[("Sec-WebSocket-Protocol", "chat")]), Ok(Some("chat")));
        assert!(handshake::is_valid_key(ClientKey::from_random([0xff; 16]).as_str().as_bytes()));
    }

    #[test]
    fn names_and_tokens_are_compared_without_regard_to_case() {
        assert_eq!(with("upgrade", " WebSocket "), Ok(None));
        assert_eq!(with("CONNECTION", "keep-alive,\tUPGRADE"), Ok(None));
        assert_eq!(with("sec-websocket-accept", " s3pPLMBiTxaQ9kYGzzhZRbK+xOo= "), Ok(None));
        assert_eq!(with_more(&[("Connection", "x"), ("Content-Length", "0")]), Ok(None));
    }

    #[test]
    fn each_mistake_has_its_error() {
        use OpeningError::*;
        let text = str::to_owned;
        assert_eq!(without("Upgrade"), Err(NoUpgrade));
        for value in ["websockets", "", "h2c", "websocket, h2c", "websocket/13"] {
            assert_eq!(with("Upgrade", value), Err(WrongUpgrade(text(value))));
        }
        assert_eq!(with_more(&[("Upgrade", "websocket")]), Err(WrongUpgrade(text("websocket"))));
        assert_eq!(without("Connection"), Err(NoConnection));
        assert_eq!(with("Connection", "keep-alive"), Err(WrongConnection));
        assert_eq!(with("Connection", ""), Err(WrongConnection));
        assert_eq!(without("Sec-WebSocket-Accept"), Err(NoAccept));
        for value in
            ["", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo", "S3PPLMBITXAQ9KYGZZHZRBK+XOO=", "dGhlIHNhbXBsZSBub25jZQ=="]
        {
            assert_eq!(with("Sec-WebSocket-Accept", value), Err(WrongAccept));
        }
        assert_eq!(with_more(&[("sec-websocket-accept", ACCEPT)]), Err(DoubledAccept));
        for value in ["other", "Chat", "chat, superchat", "", "chat;a=b"] {
            let found = with_more(&[("Sec-WebSocket-Protocol", value)]);
            assert_eq!(found, Err(SubprotocolNotOffered(text(value))));
        }
        let twice = [("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "chat")];
        assert_eq!(with_more(&twice), Err(DoubledSubprotocol));
    }

    #[test]
    fn only_extensions_that_were_offered_are_accepted_and_each_once() {
        use OpeningError::*;
        let name = "Sec-WebSocket-Extensions";
        for value in ["permessage-deflate", "permessage-deflate ; a=\"10\"; b", "", ",permessage-deflate,"] {
            assert_eq!(with_more(&[(name, value)]), Ok(None), "{value}");
        }
        for (value, unknown) in
            [("mux", "mux"), ("permessage-deflate, x-a; b", "x-a"), (";", ""), ("a b", "a b")]
        {
            assert_eq!(with_more(&[(name, value)]), Err(ExtensionNotOffered(unknown.to_owned())));
        }
        let doubled = Err(DoubledExtension("permessage-deflate".to_owned()));
        assert_eq!(with_more(&[(name, "permessage-deflate; a, permessage-deflate")]), doubled);
        assert_eq!(with_more(&[(name, "permessage-deflate"), (name, "permessage-deflate")]), doubled);
        let fields = GOOD.into_iter().chain([(name, "permessage-deflate")]);
        let fields = fields.map(|(name, value)| (name, value.as_bytes()));
        let found = key().check::<&str>(StatusCode::SWITCHING_PROTOCOLS, 1, fields, &[], &[]);
        assert_eq!(found, Err(ExtensionNotOffered("permessage-deflate".to_owned())));
    }

    #[test]
    fn what_is_no_upgrade_says_what_it_is() {
        let found = |status, minor| key().check::<&str>(status, minor, [], &[], &[]);
        for code in [100, 200, 302, 400, 401, 403, 404, 421, 426, 429, 500, 503] {
            let status = StatusCode::new(code).unwrap();
            let error = OpeningError::Status(status);
            assert!(error.to_string().starts_with(&format!("server answered {status} instead of 101: ")));
            assert_eq!(found(status, 1), Err(error));
        }
        assert_eq!(found(StatusCode::SWITCHING_PROTOCOLS, 0), Err(OpeningError::HttpVersion));
    }

    #[test]
    fn a_response_that_came_is_checked() {
        let bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: chat\r\n\
            Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        );
        let mut room = [const { MaybeUninit::uninit() }; 10];
        let answer = answer::parse(bytes.as_bytes(), &mut room, Asking::Content).unwrap();
        let offered = ["chat".to_owned()];
        assert_eq!(check(&answer, &key(), &offered, true), Ok(Some("chat")));
        let error = check(&answer, &key(), &offered, false);
        assert_eq!(error, Err(OpeningError::ExtensionNotOffered("permessage-deflate".to_owned())));
        assert!(check(&answer, &ClientKey::from_random([0; 16]), &offered, true).is_err());
    }

    #[test]
    fn the_request_is_as_in_the_rfc_and_a_server_takes_it() {
        let mut fields = Fields::new();
        fields.push("Authorization", "Basic eDp5").unwrap();
        let offered = ["chat", "superchat"].map(str::to_owned);
        let mut out = b"before".to_vec();
        let origin = Some("http://example.com");
        request(&mut out, "/chat?a", "server.example.com", &key(), origin, &offered, Some("x; y"), &fields)
            .unwrap();
        let expected = "beforeGET /chat?a HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
            Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
            Sec-WebSocket-Extensions: x; y\r\nAuthorization: Basic eDp5\r\n\r\n";
        assert_eq!(str::from_utf8(&out).unwrap(), expected);

        let mut room = [const { MaybeUninit::uninit() }; 10];
        let read = head::parse(&out[6..], &mut room).unwrap();
        let fields = read.fields.iter().map(|field| (field.name, field.value));
        assert_eq!(handshake::check(read.method, 1, fields), Ok(key().accept_key()));
        assert!(read.upgrade);
    }

    #[test]
    fn nothing_is_written_of_a_request_that_is_wrong() {
        let none = Fields::new();
        let of = |name: &str| {
            let mut fields = Fields::new();
            fields.push(name, "x").unwrap();
            fields
        };
        let mut out = Vec::new();
        let mut write =
            |target: &str, authority: &str, origin, subprotocols: &[&str], extensions, fields: &Fields| {
                let subprotocols: Vec<_> = subprotocols.iter().map(|&name| name.to_owned()).collect();
                request(&mut out, target, authority, &key(), origin, &subprotocols, extensions, fields).err()
            };
        let value = Some(RequestError::Field(FieldError::Value));
        assert_eq!(write("a", "a", None, &[], None, &none), Some(RequestError::Target));
        assert_eq!(write("*", "a", None, &[], None, &none), Some(RequestError::Target));
        assert_eq!(write("/", "a b", None, &[], None, &none), Some(RequestError::Host));
        assert_eq!(write("/", "a", Some("b\r\nc: d"), &[], None, &none), value);
        assert_eq!(write("/", "a", None, &[], Some("b\r\nc: d"), &none), value);
        for subprotocols in [&["a b"][..], &[""], &["a", "b", "a"], &["a,b"], &["\u{e4}"]] {
            assert_eq!(write("/", "a", None, subprotocols, None, &none), Some(RequestError::Subprotocol));
        }
        for name in
            ["Host", "upgrade", "Connection", "SEC-websocket-Key", "Sec-WebSocket-Protocol", "Content-Length"]
        {
            assert_eq!(write("/", "a", None, &[], None, &of(name)), Some(RequestError::Managed), "{name}");
        }
        assert_eq!(write("/", "a", Some("b"), &[], None, &of("origin")), Some(RequestError::Managed));
        assert!(out.is_empty());
        request(&mut out, "/", "a", &key(), None, &[], None, &of("origin")).unwrap();
    }
}
