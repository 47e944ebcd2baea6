//! The head of a response as a client's handler sees it: borrowed from the bytes that came, read on demand.

use super::{StatusCode, Version};
use crate::http1::answer::Answer;
use std::fmt;

/// The head of a response that a client received.
///
/// Everything is borrowed, also what the methods return, and nothing is decoded. What is here has passed the checks of
/// RFC 9110 and RFC 9112: names are tokens, no value holds a control character other than the tab, and the fields agree on how
/// long the content is.
///
/// ```
/// use lodger::http::{ResponseHead, StatusCode};
///
/// /// Where to go instead, if this is a redirect.
/// fn elsewhere<'a>(head: &ResponseHead<'a>) -> Option<&'a str> {
///     match head.status() {
///         StatusCode::FOUND | StatusCode::TEMPORARY_REDIRECT => head.text("Location"),
///         _ => None,
///     }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct ResponseHead<'a> {
    answer: &'a Answer<'a>,
}

impl<'a> ResponseHead<'a> {
    pub(crate) fn new(answer: &'a Answer<'a>) -> Self {
        Self { answer }
    }

    /// The status code (RFC 9110, section 15).
    #[doc(alias("lws_http_client_http_response", "CURLINFO_RESPONSE_CODE"))]
    pub fn status(&self) -> StatusCode {
        self.answer.status
    }

    /// The reason phrase as it came, which may be empty, and means nothing (RFC 9112, section 4).
    pub fn reason(&self) -> &'a [u8] {
        self.answer.reason
    }

    /// The version of HTTP that the response came in.
    #[doc(alias = "CURLINFO_HTTP_VERSION")]
    pub fn version(&self) -> Version {
        self.answer.version
    }

    /// The value of the first field of this name, in any case. Bytes above ASCII are possible (RFC 9110, section 5.5).
    #[doc(alias("lws_hdr_copy", "lws_hdr_custom_copy", "curl_easy_header"))]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.answer.field_all(name).next()
    }

    /// The values of all fields of this name, in order. Together they are one list, if the field is defined as a list
    /// (RFC 9110, section 5.3); `Set-Cookie` is not.
    #[doc(alias = "lws_hdr_copy_fragment")]
    pub fn field_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.answer.field_all(name)
    }

    /// The value of the first field of this name, if it is UTF-8, as nearly all values are.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.field(name)?).ok()
    }

    /// Name and value of every field, in the order and the case in which they came.
    #[doc(alias("lws_hdr_custom_name_foreach", "CURLOPT_HEADERFUNCTION"))]
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.answer.fields.iter().map(|field| (field.name, field.value))
    }

    /// How many bytes of content the response announces. For `HEAD`, and with 304, it is what another response would have
    /// (RFC 9110, section 8.6). `None`: the content comes in chunks, or until the connection ends, or there is none.
    #[doc(alias("lws_http_client_http_content_length", "CURLINFO_CONTENT_LENGTH_DOWNLOAD_T"))]
    pub fn content_length(&self) -> Option<u64> {
        self.answer.length
    }
}

impl fmt::Debug for ResponseHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::answer::{Asking, parse};
    use std::mem::MaybeUninit;

    #[test]
    fn a_head_says_what_came() {
        let bytes = b"HTTP/1.0 299 Fine\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\nX: \xff\r\nset-cookie: c=d\r\n\r\n";
        let mut room = [const { MaybeUninit::uninit() }; 10];
        let answer = parse(bytes, &mut room, Asking::Content).unwrap();
        let head = ResponseHead::new(&answer);
        assert_eq!(
            (head.status().code(), head.reason(), head.version()),
            (299, &b"Fine"[..], Version::Http10)
        );
        assert_eq!(head.field_all("SET-COOKIE").collect::<Vec<_>>(), [b"a=b", b"c=d"]);
        assert_eq!((head.text("content-length"), head.content_length()), (Some("5"), Some(5)));
        assert_eq!((head.field("x"), head.text("x"), head.field("y")), (Some(&b"\xff"[..]), None, None));
        assert_eq!(head.fields().map(|(name, _)| name).last(), Some("set-cookie"));
    }
}
