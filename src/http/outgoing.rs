//! A request that a client sends, before anybody has decided how it travels.

use super::fields::{FieldError, Fields};
use super::is_token;
use super::response::is_managed;
use super::target::Target;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// What a client asks: method, target, fields, and what the content is.
///
/// ```
/// use lodger::http::ClientRequest;
///
/// let request = ClientRequest::post(br#"{"door":"front"}"#)
///     .target("/bell?times=2")
///     .field("Content-Type", "application/json");
/// assert_eq!(request.error(), None);
/// ```
///
/// `Host` comes from where the request is sent to. A mistake in building it, such as a line end in a field's value, is kept
/// until it is sent, and reported then: nothing of the request is sent.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    pub(crate) method: String,
    pub(crate) target: Option<String>,
    pub(crate) fields: Fields,
    pub(crate) content: Content,
    pub(crate) expect: Option<Duration>,
    pub(crate) close: bool,
    error: Option<RequestError>,
    /// The name of the field that is the mistake.
    wrong: Option<Box<str>>,
}

/// What the content of a request is, and where it comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Content {
    /// There is none.
    Empty,
    /// In memory.
    Bytes(Cow<'static, [u8]>),
    /// Written piece by piece, after the head. Without a length it ends when the application says so.
    Stream { length: Option<u64> },
}

impl ClientRequest {
    /// A request with this method, a token, and no content (RFC 9110, section 9). Methods are case-sensitive: `GET`.
    ///
    /// What is no token is [`RequestError::Method`], and `CONNECT`, which is for proxies, [`RequestError::Connect`].
    #[doc(alias("lws_client_connect_info", "method", "CURLOPT_CUSTOMREQUEST"))]
    pub fn new(method: &str) -> Self {
        let error = match method {
            "CONNECT" => Some(RequestError::Connect),
            _ if !is_token(method.as_bytes()) => Some(RequestError::Method),
            _ => None,
        };
        Self {
            method: method.to_owned(),
            target: None,
            fields: Fields::new(),
            content: Content::Empty,
            expect: None,
            close: false,
            error,
            wrong: None,
        }
    }

    /// `GET` (RFC 9110, section 9.3.1).
    #[doc(alias = "CURLOPT_HTTPGET")]
    pub fn get() -> Self {
        Self::new("GET")
    }

    /// `HEAD` (RFC 9110, section 9.3.2): as `GET`, and the response has no content.
    #[doc(alias = "CURLOPT_NOBODY")]
    pub fn head() -> Self {
        Self::new("HEAD")
    }

    /// `POST` with this content (RFC 9110, section 9.3.3). Its type is for a `Content-Type` field to say.
    #[doc(alias("CURLOPT_POST", "CURLOPT_POSTFIELDS"))]
    pub fn post(content: impl Into<Cow<'static, [u8]>>) -> Self {
        Self::new("POST").content(content)
    }

    /// Another target than that of the URL: a path with perhaps a query, percent-encoded, or the `*` of `OPTIONS` (RFC 9112,
    /// section 3.2). Anything else is [`RequestError::Target`].
    #[must_use]
    #[doc(alias("path", "CURLOPT_REQUEST_TARGET"))]
    pub fn target(mut self, target: &str) -> Self {
        if !is_target(&self.method, target) {
            self.error.get_or_insert(RequestError::Target);
        }
        self.target = Some(target.to_owned());
        self
    }

    /// Adds a field, also when one of this name is there already.
    ///
    /// How the message travels is not for fields to say: `Host`, `Content-Length`, `Transfer-Encoding`, `Connection`, `Upgrade`,
    /// `Keep-Alive`, `Proxy-Connection`, `TE`, `Trailer` and `Expect` are refused ([`RequestError::Managed`]).
    #[must_use]
    #[doc(alias(
        "lws_add_http_header_by_name",
        "LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER",
        "CURLOPT_HTTPHEADER"
    ))]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let added = match is_managed_in_requests(name) {
            true => Err(RequestError::Managed),
            false => self.fields.push(name, value).map_err(RequestError::Field),
        };
        if let Err(error) = added
            && self.error.is_none()
        {
            (self.error, self.wrong) = (Some(error), Some(name.into()));
        }
        self
    }

    /// Content, in memory and of any type (RFC 9110, section 6.4). It replaces what there was.
    #[must_use]
    #[doc(alias("lws_client_http_body_pending", "CURLOPT_COPYPOSTFIELDS"))]
    pub fn content(mut self, content: impl Into<Cow<'static, [u8]>>) -> Self {
        self.content = Content::Bytes(content.into());
        self
    }

    /// Content that is written piece by piece after the head. With a length in bytes, exactly so many have to be written;
    /// without, it travels in chunks (RFC 9112, section 7.1), which a server that knows only HTTP/1.0 does not understand.
    #[must_use]
    #[doc(alias("LWS_CALLBACK_CLIENT_HTTP_WRITEABLE", "CURLOPT_READFUNCTION", "CURLOPT_INFILESIZE_LARGE"))]
    pub fn content_stream(mut self, length: Option<u64>) -> Self {
        self.content = Content::Stream { length };
        self
    }

    /// Asks the server to say whether it wants the content, by `Expect: 100-continue`, and holds the content back until it
    /// answers, or for so long at most (RFC 9110, section 10.1.1). No effect on a request without content.
    #[must_use]
    #[doc(alias = "CURLOPT_EXPECT_100_TIMEOUT_MS")]
    pub fn expect_continue(mut self, wait: Duration) -> Self {
        self.expect = Some(wait);
        self
    }

    /// Ends the connection after the response to this request (RFC 9112, section 9.6).
    #[must_use]
    #[doc(alias = "CURLOPT_FORBID_REUSE")]
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The first mistake made in building the request, if there was one: then it cannot be sent.
    pub fn error(&self) -> Option<RequestError> {
        self.error.or_else(|| self.check_content().err())
    }

    /// What must not be sent, now that `error` stands in the way: the name of a field, or the mistake where that is no field.
    pub(crate) fn what_is_wrong(&self, error: RequestError) -> Box<str> {
        self.wrong.clone().unwrap_or_else(|| error.to_string().into())
    }

    /// The method that the request has.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The fields that the request has, without those that are added when it is sent.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    fn check_content(&self) -> Result<(), RequestError> {
        match self.method == "TRACE" && self.content.length() != Some(0) {
            true => Err(RequestError::Content),
            false => Ok(()),
        }
    }
}

impl Content {
    /// How many bytes there will be, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Stream { length } => *length,
        }
    }
}

/// Whether an origin server can be asked for this target by this method.
fn is_target(method: &str, target: &str) -> bool {
    Target::parse(target).is_some_and(|target| match target.is_asterisk() {
        true => method == "OPTIONS",
        false => target.authority().is_none(),
    })
}

/// Whether the library alone says this field in a request.
pub(crate) fn is_managed_in_requests(name: &str) -> bool {
    const NAMES: [&str; 3] = ["Host", "Upgrade", "Expect"];
    is_managed(name) || NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Why a request cannot be sent. Nothing of it has been.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestError {
    /// The method is not a token (RFC 9110, section 9.1).
    Method,
    /// The method is `CONNECT`, which makes a tunnel and is no request for a resource (RFC 9110, section 9.3.6).
    Connect,
    /// The target is in no form that a server takes, has a fragment, or holds what no URI may; or it is `*`, and the method
    /// is not `OPTIONS` (RFC 9112, section 3.2).
    Target,
    /// `Host` would not be a host with perhaps a port (RFC 9110, section 7.2).
    Host,
    /// A field has a name or a value that would break the message (RFC 9110, section 5).
    Field(FieldError),
    /// A field was given that says how the message travels; that is decided when it is sent (RFC 9112, sections 6 and 9).
    Managed,
    /// There is content, and the method is `TRACE`, which has none (RFC 9110, section 9.3.8).
    Content,
    /// A subprotocol is not a token, or is offered twice (RFC 6455, section 4.1, item 10).
    Subprotocol,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("method is not a token"),
            Self::Connect => f.write_str("method CONNECT, which is for proxies"),
            Self::Target => f.write_str("target is not a percent-encoded path with perhaps a query"),
            Self::Host => f.write_str("Host is not a host with perhaps a port"),
            Self::Field(error) => error.fmt(f),
            Self::Managed => f.write_str("field that only the library may send"),
            Self::Content => f.write_str("content with a method that has none"),
            Self::Subprotocol => f.write_str("subprotocol is not a token, or offered twice"),
        }
    }
}

impl std::error::Error for RequestError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_frame_the_message_or_belong_to_the_connection_are_refused() {
        for name in [
            "host",
            "Content-Length",
            "transfer-encoding",
            "CONNECTION",
            "Upgrade",
            "Keep-Alive",
            "proxy-connection",
            "te",
            "Trailer",
            "expect",
        ] {
            assert_eq!(ClientRequest::get().field(name, "1").error(), Some(RequestError::Managed), "{name}");
        }
        for name in ["Hosts", "Content-Type", "Authorization", "User-Agent", "Date"] {
            assert_eq!(ClientRequest::get().field(name, "1").error(), None, "{name}");
        }
    }

    #[test]
    fn the_first_mistake_stays() {
        let request = ClientRequest::get().field("a", "b\r\nc: d").field("Host", "x").target("x");
        assert_eq!(request.error(), Some(RequestError::Field(FieldError::Value)));
        assert_eq!(ClientRequest::new("GE T").field("a:", "b").error(), Some(RequestError::Method));
        assert_eq!(
            ClientRequest::get().field("a b", "c").error(),
            Some(RequestError::Field(FieldError::Name))
        );
    }

    #[test]
    fn a_method_is_a_token_and_not_connect() {
        for (method, error) in [
            ("GET", None),
            ("get", None),
            ("M-SEARCH", None),
            ("connect", None),
            ("CONNECT", Some(RequestError::Connect)),
            ("", Some(RequestError::Method)),
            ("G T", Some(RequestError::Method)),
            ("GET\r\n", Some(RequestError::Method)),
            ("GÉT", Some(RequestError::Method)),
        ] {
            assert_eq!(ClientRequest::new(method).error(), error, "{method:?}");
        }
    }

    #[test]
    fn a_target_is_a_path_or_the_asterisk_of_options() {
        for (method, target, right) in [
            ("GET", "/", true),
            ("GET", "/a?b=c#d", false),
            ("GET", "/a%20b?c", true),
            ("GET", "/a b", false),
            ("GET", "/\u{e4}", false),
            ("GET", "", false),
            ("GET", "a", false),
            ("GET", "http://a/", false),
            ("GET", "/\r\nHost: b", false),
            ("GET", "*", false),
            ("OPTIONS", "*", true),
            ("OPTIONS", "/a", true),
        ] {
            let error = (!right).then_some(RequestError::Target);
            assert_eq!(ClientRequest::new(method).target(target).error(), error, "{method} {target}");
        }
    }

    #[test]
    fn trace_has_no_content() {
        assert_eq!(ClientRequest::new("TRACE").error(), None);
        assert_eq!(ClientRequest::new("TRACE").content(b"").error(), None);
        assert_eq!(ClientRequest::new("TRACE").content(b"x").error(), Some(RequestError::Content));
        assert_eq!(ClientRequest::new("TRACE").content_stream(None).error(), Some(RequestError::Content));
    }
}
