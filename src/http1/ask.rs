//! Requests on the wire (RFC 9112, sections 3 and 6): everything that frames a message is decided and written here.

use super::encode::{Delimiting, decimal, field};
use crate::http::{
    ClientRequest, Content, Fields, RequestError, Target, is_authority, is_managed_in_requests,
};

/// Appends the head of `request`: request line, fields, what frames it, and the empty line. `target` is what is written, that
/// of the request or of its URL; in the absolute form it is for a proxy. `extra` are fields of the connection, which a field
/// of the request replaces. The content, delimited as the answer says, is to follow.
///
/// # Errors
///
/// Those of [`ClientRequest::error`], of `target`, of `authority`, and of `extra`. Nothing has been appended then.
pub(crate) fn head(
    out: &mut Vec<u8>,
    request: &ClientRequest,
    target: &str,
    authority: &str,
    extra: &Fields,
) -> Result<Delimiting, RequestError> {
    if let Some(error) = request.error() {
        return Err(error);
    }
    let parsed = Target::parse(target).ok_or(RequestError::Target)?;
    if parsed.is_asterisk() && request.method != "OPTIONS" {
        return Err(RequestError::Target);
    }
    if extra.iter().any(|(name, _)| is_managed_in_requests(name)) {
        return Err(RequestError::Managed);
    }
    request_line(out, &request.method, target, authority)?;
    for (name, value) in extra.iter().filter(|(name, _)| request.fields.get(name).is_none()) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(request.fields.lines());
    let delimiting = delimit(request);
    match delimiting {
        Delimiting::Length(length) => field(out, b"Content-Length: ", decimal(length, &mut [0; 20])),
        Delimiting::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Delimiting::None if takes_content(&request.method) => out.extend_from_slice(b"Content-Length: 0\r\n"),
        Delimiting::None | Delimiting::Close => {}
    }
    if request.expect.is_some() && delimiting != Delimiting::None {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    if request.close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(delimiting)
}

/// Appends the request line and `Host`, which comes first, since it says for whom the rest is (RFC 9110, section 7.2). Method
/// and target have been checked.
///
/// # Errors
///
/// [`RequestError::Host`]. Nothing has been appended then.
pub(crate) fn request_line(
    out: &mut Vec<u8>,
    method: &str,
    target: &str,
    authority: &str,
) -> Result<(), RequestError> {
    if !is_authority(authority) {
        return Err(RequestError::Host);
    }
    for part in [method, " ", target, " HTTP/1.1\r\nHost: ", authority, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    Ok(())
}

fn delimit(request: &ClientRequest) -> Delimiting {
    match request.content.length() {
        Some(0) => Delimiting::None,
        Some(length) => Delimiting::Length(length),
        None => Delimiting::Chunked,
    }
}

/// Whether a server expects content with this method, so that having none is to be said (RFC 9110, section 8.6).
fn takes_content(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

/// The content that goes right behind the head.
pub(crate) fn content(request: &ClientRequest) -> &[u8] {
    match &request.content {
        Content::Bytes(bytes) => bytes,
        Content::Empty | Content::Stream { .. } => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::FieldError;
    use crate::http1::head::{Framing, find_end, parse};
    use std::mem::MaybeUninit;
    use std::time::Duration;

    const WAIT: Duration = Duration::from_secs(1);

    fn written(request: &ClientRequest) -> (String, Delimiting) {
        let mut out = Vec::new();
        let delimiting = head(&mut out, request, "/", "a", &Fields::new()).unwrap();
        (String::from_utf8(out).unwrap(), delimiting)
    }

    #[test]
    fn a_request_is_written_whole() {
        let mut out = b"before".to_vec();
        let request = ClientRequest::post(b"hello").field("X-A", "b").expect_continue(WAIT).close();
        let mut extra = Fields::new();
        extra.push("User-Agent", "c").unwrap();
        extra.push("x-a", "replaced").unwrap();
        let delimiting = head(&mut out, &request, "/d?e", "example.org:8080", &extra);
        assert_eq!(delimiting, Ok(Delimiting::Length(5)));
        assert_eq!(content(&request), b"hello");
        let expected = "beforePOST /d?e HTTP/1.1\r\nHost: example.org:8080\r\nUser-Agent: c\r\nX-A: b\r\n\
            Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn content_is_delimited_as_method_and_length_say() {
        use Delimiting::*;
        let new = ClientRequest::new;
        for (request, lines, expected) in [
            (new("GET"), "", None),
            (new("GET").content(b""), "", None),
            (new("GET").content(b"abc"), "Content-Length: 3\r\n", Length(3)),
            (new("HEAD"), "", None),
            (new("DELETE"), "", None),
            (new("POST"), "Content-Length: 0\r\n", None),
            (new("PUT").content(b""), "Content-Length: 0\r\n", None),
            (new("PATCH").content_stream(Some(0)), "Content-Length: 0\r\n", None),
            (
                new("PUT").content_stream(Some(u64::MAX)),
                "Content-Length: 18446744073709551615\r\n",
                Length(u64::MAX),
            ),
            (new("PUT").content_stream(Option::None), "Transfer-Encoding: chunked\r\n", Chunked),
            (new("GET").content_stream(Option::None), "Transfer-Encoding: chunked\r\n", Chunked),
            (new("POST").expect_continue(WAIT), "Content-Length: 0\r\n", None),
            (
                new("PUT").content_stream(Option::None).expect_continue(WAIT),
                "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
                Chunked,
            ),
        ] {
            let whole = format!("{} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n", request.method());
            assert_eq!(written(&request), (whole, expected));
        }
    }

    #[test]
    fn what_is_written_is_what_a_server_reads() {
        for (request, framing) in [
            (ClientRequest::get().field("X", "y").close(), Framing::None),
            (ClientRequest::post(b"hello").expect_continue(WAIT), Framing::Length(5)),
            (ClientRequest::new("PUT").content_stream(None), Framing::Chunked),
        ] {
            let (text, _) = written(&request);
            assert_eq!(find_end(text.as_bytes(), &mut 0, 1024), Ok(Some(text.len())));
            let mut room = [const { MaybeUninit::uninit() }; 10];
            let read = parse(text.as_bytes(), &mut room).unwrap();
            assert_eq!((read.method, read.framing, read.host), (request.method(), framing, Some("a")));
            assert_eq!(read.keep_alive, !request.close);
            assert_eq!(read.expects_continue, request.expect.is_some());
        }
    }

    #[test]
    fn a_proxy_is_asked_for_an_absolute_target() {
        let mut out = Vec::new();
        head(&mut out, &ClientRequest::get(), "http://a/b?c", "a", &Fields::new()).unwrap();
        assert_eq!(out, b"GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n");
    }

    #[test]
    fn nothing_is_written_of_a_request_that_is_wrong() {
        let get = ClientRequest::get;
        for (request, target, authority, expected) in [
            (get(), "a", "a", RequestError::Target),
            (get(), "*", "a", RequestError::Target),
            (get(), "/ HTTP/1.1\r\nX: y", "a", RequestError::Target),
            (get(), "/", "", RequestError::Host),
            (get(), "/", "a\r\nb: c", RequestError::Host),
            (get(), "/", "u@a", RequestError::Host),
            (ClientRequest::new("CONNECT"), "/", "a", RequestError::Connect),
            (ClientRequest::new("GET /\r\n"), "/", "a", RequestError::Method),
            (get().field("a", "b\nc"), "/", "a", RequestError::Field(FieldError::Value)),
            (get().field("Host", "b"), "/", "a", RequestError::Managed),
        ] {
            let mut out = Vec::new();
            assert_eq!(head(&mut out, &request, target, authority, &Fields::new()), Err(expected));
            assert!(out.is_empty());
        }
        let mut extra = Fields::new();
        extra.push("host", "b").unwrap();
        let mut out = Vec::new();
        assert_eq!(head(&mut out, &get(), "/", "a", &extra), Err(RequestError::Managed));
        assert!(out.is_empty());
    }
}
