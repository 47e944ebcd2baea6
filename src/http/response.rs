//! A response, before anybody has decided how it travels.

use super::fields::{FieldError, Fields};
use super::status::StatusCode;
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

/// A response: status, fields, and what its content is.
///
/// ```
/// use lodger::http::{Response, StatusCode};
///
/// let response = Response::bytes("application/json", br#"{"error":"busy"}"#)
///     .status(StatusCode::SERVICE_UNAVAILABLE)
///     .field("Retry-After", "120");
/// assert_eq!(response.error(), None);
/// ```
///
/// A mistake in building it, such as a line end in a field's value, is kept until it is sent, and reported then: the answer is 500
/// in its place, and the log says why.
#[derive(Debug)]
pub struct Response {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: Body,
    pub(crate) close: bool,
    error: Option<ResponseError>,
    /// The name of the field that is the mistake.
    wrong: Option<Box<str>>,
}

/// What the content of a response is, and where it comes from.
#[derive(Debug)]
pub(crate) enum Body {
    /// There is none.
    Empty,
    /// In memory.
    Bytes(Cow<'static, [u8]>),
    /// The first `length` bytes of a file.
    File { file: File, length: u64 },
    /// Written piece by piece, after the head. Without a length it ends when the application says so.
    Stream { length: Option<u64> },
}

impl Response {
    /// A response without content.
    ///
    /// ```
    /// # use lodger::http::{Response, StatusCode};
    /// let moved = Response::new(StatusCode::SEE_OTHER).field("Location", "/done");
    /// # assert_eq!(moved.error(), None);
    /// ```
    pub fn new(status: StatusCode) -> Self {
        Self { status, fields: Fields::new(), body: Body::Empty, close: false, error: None, wrong: None }
    }

    /// 200 with plain text, declared as UTF-8.
    pub fn text(content: impl Into<Cow<'static, str>>) -> Self {
        Self::bytes("text/plain; charset=utf-8", bytes_of(content.into()))
    }

    /// 200 with a page of HTML, declared as UTF-8.
    pub fn html(content: impl Into<Cow<'static, str>>) -> Self {
        Self::bytes("text/html; charset=utf-8", bytes_of(content.into()))
    }

    /// 200 with content of this media type (RFC 9110, section 8.3).
    pub fn bytes(content_type: &str, content: impl Into<Cow<'static, [u8]>>) -> Self {
        Self::with_body(content_type, Body::Bytes(content.into()))
    }

    /// 200 with a file of this media type. The file is opened and measured now, and read while it is sent; what is added to it
    /// later is not sent. When it has become shorter by then, the response cannot be completed and the connection is aborted.
    ///
    /// # Errors
    ///
    /// Those of opening it, and [`io::ErrorKind::InvalidInput`] for what is not a regular file: a directory, a device, a
    /// pipe. Nothing here keeps a path inside a directory: that is for the caller to see to.
    pub fn file(path: impl AsRef<Path>, content_type: &str) -> io::Result<Self> {
        let (file, length) = crate::net::open_file(path.as_ref())?;
        Ok(Self::with_body(content_type, Body::File { file, length }))
    }

    /// 200 with content that is written piece by piece after the head. It travels in chunks (RFC 9112, section 7.1), and to an
    /// HTTP/1.0 client until the connection closes, unless its [`length`](Self::length) is known.
    pub fn stream(content_type: &str) -> Self {
        Self::with_body(content_type, Body::Stream { length: None })
    }

    /// How many bytes a [`stream`](Self::stream) will have in all. No effect on other responses, whose length is known.
    #[must_use]
    pub fn length(mut self, length: u64) -> Self {
        if let Body::Stream { length: known } = &mut self.body {
            *known = Some(length);
        }
        self
    }

    /// Another status than the one that the response has. With 304, and for a `HEAD` request, content is measured and not
    /// sent (RFC 9110, sections 9.3.2 and 15.4.5).
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds a field; a `Content-Type` or `Date` replaces the one that there would be otherwise. Where there is none, a `Date`
    /// is added when the response is sent.
    ///
    /// How the message travels is not for fields to say: `Content-Length`, `Transfer-Encoding`, `Connection`,
    /// `Keep-Alive`, `Proxy-Connection`, `TE` and `Trailer` are refused ([`ResponseError::Managed`]). An `Upgrade`
    /// field, as 426 needs it, brings the `Connection: upgrade` that belongs to it (RFC 9110, section 7.8).
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if let Err(error) = self.add(name, value.as_ref())
            && self.error.is_none()
        {
            (self.error, self.wrong) = (Some(error), Some(name.into()));
        }
        self
    }

    /// Ends the connection after this response (RFC 9112, section 9.6).
    #[must_use]
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The first mistake made in building the response, if there was one: then it cannot be sent.
    pub fn error(&self) -> Option<ResponseError> {
        self.error.or_else(|| self.check_content().err())
    }

    /// What must not be sent, now that `error` stands in the way: the name of a field, or the mistake where that is no field.
    pub(crate) fn what_is_wrong(&self, error: ResponseError) -> Box<str> {
        self.wrong.clone().unwrap_or_else(|| error.to_string().into())
    }

    /// The status that the response has.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// The fields that the response has, without those that are added when it is sent.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    fn with_body(content_type: &str, body: Body) -> Self {
        let (fields, error, wrong) = match Fields::of_content(content_type) {
            Ok(fields) => (fields, None, None),
            Err(error) => (Fields::new(), Some(ResponseError::Field(error)), Some(Box::from("Content-Type"))),
        };
        Self { status: StatusCode::OK, fields, body, close: false, error, wrong }
    }

    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), ResponseError> {
        if is_managed(name) {
            return Err(ResponseError::Managed);
        }
        if name.eq_ignore_ascii_case("Content-Type") || name.eq_ignore_ascii_case("Date") {
            self.fields.remove(name);
        }
        self.fields.push(name, value).map_err(ResponseError::Field)
    }

    fn check_content(&self) -> Result<(), ResponseError> {
        let empty = matches!(
            &self.body,
            Body::Empty | Body::Stream { length: Some(0) } | Body::File { length: 0, .. }
        ) || matches!(&self.body, Body::Bytes(bytes) if bytes.is_empty());
        match self.status {
            status if status.is_informational() => Err(ResponseError::Informational),
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT if !empty => Err(ResponseError::Content),
            _ => Ok(()),
        }
    }
}

fn bytes_of(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Whether the library alone says this field, because it frames the message or governs the connection.
pub(crate) fn is_managed(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
    ];
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Why a response cannot be sent. Nothing of it has been.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ResponseError {
    /// A field has a name or a value that would break the message (RFC 9110, section 5).
    Field(FieldError),
    /// A field was given that says how the message travels; that is decided when it is sent (RFC 9112, sections 6 and 9).
    Managed,
    /// The status is 1xx, which is not a response to a request but something on the way to it (RFC 9110, section 15.2).
    Informational,
    /// There is content, and the status is one that has none: 204 or 205 (RFC 9110, sections 15.3.5 and 15.3.6).
    Content,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(error) => error.fmt(f),
            Self::Managed => f.write_str("field that only the library may send"),
            Self::Informational => f.write_str("informational status in place of a final one"),
            Self::Content => f.write_str("content with a status that has none"),
        }
    }
}

impl std::error::Error for ResponseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_frame_the_message_are_refused() {
        for name in ["content-length", "Transfer-Encoding", "CONNECTION", "keep-alive", "TE", "trailer"] {
            assert_eq!(Response::text("x").field(name, "1").error(), Some(ResponseError::Managed), "{name}");
        }
    }

    #[test]
    fn the_first_mistake_stays() {
        let response = Response::text("x").field("a\r\nb", "1").field("Connection", "close").field("a", "b");
        assert_eq!(response.error(), Some(ResponseError::Field(FieldError::Name)));
        assert_eq!(
            Response::bytes("text/plain\r\nA: b", b"x").error(),
            Some(ResponseError::Field(FieldError::Value))
        );
    }

    #[test]
    fn a_second_content_type_replaces_the_first_and_other_fields_add_up() {
        let response = Response::text("x").field("content-type", "text/css").field("a", "1").field("A", "2");
        assert_eq!(response.fields().lines(), b"content-type: text/css\r\na: 1\r\nA: 2\r\n");
    }

    #[test]
    fn a_status_without_content_takes_none() {
        for status in [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT] {
            assert_eq!(Response::new(status).error(), None);
            assert_eq!(Response::text("").status(status).error(), None);
            assert_eq!(Response::text("x").status(status).error(), Some(ResponseError::Content));
            assert_eq!(Response::stream("a/b").status(status).error(), Some(ResponseError::Content));
        }
        assert_eq!(Response::text("x").status(StatusCode::NOT_MODIFIED).error(), None);
        assert_eq!(Response::new(StatusCode::CONTINUE).error(), Some(ResponseError::Informational));
    }

    #[test]
    fn only_a_regular_file_is_sent() {
        let directory = std::env::temp_dir();
        let error = Response::file(&directory, "a/b").expect_err("a directory is not content");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(Response::file(directory.join("no such file here"), "a/b").is_err());

        let path = directory.join(format!("lodger-response-{}", std::process::id()));
        std::fs::write(&path, "12345").unwrap();
        let response = Response::file(&path, "a/b").unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(response.body, Body::File { length: 5, .. }));
    }
}
