//! Fields that are owned: those of a response, and the trailer fields of a request (RFC 9110, sections 5 and 6.5).

use super::chars::{is_field_value, is_token};
use crate::memory::{self, OutOfMemory};
use std::fmt;

/// A list of fields, in the order in which they came. Names are compared without regard to case (RFC 9110, section 5.1).
///
/// Whatever is in it can be sent: names are tokens, and values hold no control characters but the tab.
///
/// ```
/// use lodger::http::Fields;
///
/// let mut fields = Fields::new();
/// fields.push("Server-Timing", "db;dur=53")?;
/// assert_eq!(fields.get("server-timing"), Some(&b"db;dur=53"[..]));
/// assert!(fields.push("X-Injected", "a\r\nSet-Cookie: b").is_err());
/// # Ok::<(), lodger::http::FieldError>(())
/// ```
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Fields {
    /// `name: value CRLF`, as HTTP/1 sends it, once per field. Neither a name nor a value can hold CR, LF or, for names,
    /// a colon, so the list can be read back.
    lines: Vec<u8>,
}

impl Fields {
    /// No fields.
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// Adds a field at the end, also when one of this name is there already. Whitespace around the value is left out
    /// (RFC 9110, section 5.5).
    ///
    /// # Errors
    ///
    /// - [`FieldError::Name`]: the name is empty or not a token (section 5.6.2).
    /// - [`FieldError::Value`]: the value holds a control character, CR, LF and NUL among them (section 5.5).
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), FieldError> {
        let value = trim(value.as_ref());
        if !is_token(name.as_bytes()) {
            return Err(FieldError::Name);
        }
        if !is_field_value(value) {
            return Err(FieldError::Value);
        }
        self.append(name, value);
        Ok(())
    }

    /// Makes room for a field whose line has so many bytes, without its end.
    pub(crate) fn reserve(&mut self, line: usize) -> Result<(), OutOfMemory> {
        // A space behind the colon, and the end of the line.
        memory::reserve(&mut self.lines, line + 3)
    }

    fn append(&mut self, name: &str, value: &[u8]) {
        self.lines.reserve(name.len() + value.len() + 4);
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
    }

    /// The fields of a response with content of this type.
    pub(crate) fn of_content(content_type: &str) -> Result<Self, FieldError> {
        let mut fields = Self::new();
        let value = trim(content_type.as_bytes());
        if !is_field_value(value) {
            return Err(FieldError::Value);
        }
        fields.append("Content-Type", value);
        Ok(fields)
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut rest = self.lines.as_slice();
        while let Some(end) = memchr::memchr(b'\r', rest) {
            let is_it = rest.get(name.len()) == Some(&b':')
                && rest[..name.len()].eq_ignore_ascii_case(name.as_bytes())
                && !name.contains(':');
            if is_it {
                return Some(&rest[name.len() + 2..end]);
            }
            rest = &rest[end + 2..];
        }
        None
    }

    /// Name and value of each field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = self.lines.as_slice();
        std::iter::from_fn(move || {
            let colon = memchr::memchr(b':', rest)?;
            let end = memchr::memchr(b'\r', rest)?;
            let (name, value) = (&rest[..colon], &rest[colon + 2..end]);
            rest = &rest[end + 2..];
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Leaves out every field of this name.
    pub(crate) fn remove(&mut self, name: &str) {
        if self.get(name).is_none() {
            return;
        }
        let all = std::mem::take(self);
        for (known, value) in all.iter().filter(|(known, _)| !known.eq_ignore_ascii_case(name)) {
            self.push(known, value).expect("it was in a list before");
        }
    }

    /// The fields as HTTP/1 sends them: each line with its CRLF.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

/// Why a field cannot be sent.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldError {
    /// The name is empty or not a token (RFC 9110, section 5.6.2).
    Name,
    /// The value holds a control character, such as CR, LF or NUL (RFC 9110, section 5.5).
    Value,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "field name is not a token",
            Self::Value => "control character in a field value",
        })
    }
}

impl std::error::Error for FieldError {}

/// The elements of a list field's value, without the whitespace around them (RFC 9110, section 5.6.1). Empty elements are
/// among them. Commas in quoted strings are not told apart: use it only for lists of tokens.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let list = rest?;
        let (element, after) = match memchr::memchr(b',', list) {
            Some(comma) => (&list[..comma], Some(&list[comma + 1..])),
            None => (list, None),
        };
        rest = after;
        Some(trim(element))
    })
}

/// `value` without optional whitespace at its ends: spaces and tabs, nothing else (RFC 9110, section 5.6.3).
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a field of this name has no place among trailer fields (RFC 9110, section 6.5.1): one that frames or routes
/// the message, says who asks, or tells how its content is to be read, all of which was decided when the head came.
pub(crate) fn is_forbidden_trailer(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["if-", "proxy-", "sec-", "access-control-"];
    const NAMES: [&str; 37] = [
        "accept-encoding",
        "age",
        "allow",
        "authorization",
        "cache-control",
        "connection",
        "content-disposition",
        "content-encoding",
        "content-length",
        "content-range",
        "content-security-policy",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "keep-alive",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "referer",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-forwarded-for",
        "x-forwarded-host",
    ];
    let starts =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name)) || PREFIXES.into_iter().any(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order_and_are_found_in_any_case() {
        let mut fields = Fields::new();
        fields.push("A", "1").unwrap();
        fields.push("B:".trim_end_matches(':'), " x: y \t").unwrap();
        fields.push("a", [b'2', 0xff]).unwrap();
        fields.push("Empty", "").unwrap();
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(all, [("A", &b"1"[..]), ("B", b"x: y"), ("a", b"2\xff"), ("Empty", b"")]);
        assert_eq!(fields.get("a"), Some(&b"1"[..]));
        assert_eq!(fields.get("EMPTY"), Some(&b""[..]));
        assert_eq!((fields.get("C"), fields.get(""), fields.get("B: x")), (None, None, None));
        assert_eq!(fields.len(), 4);
        fields.remove("A");
        assert_eq!(fields.lines(), b"B: x: y\r\nEmpty: \r\n");
        assert!(!fields.is_empty() && Fields::new().is_empty());
    }

    #[test]
    fn nothing_that_breaks_a_line_gets_in() {
        let mut fields = Fields::new();
        for name in ["", " ", "a b", "a:", "a\r", "a\n", "\0", "é"] {
            assert_eq!(fields.push(name, "v"), Err(FieldError::Name), "{name:?}");
        }
        for value in ["a\rb", "a\nb", "a\r\nb", "\0", "\x7f", "\x0b", "a\r\n", "\r\na"] {
            assert_eq!(fields.push("n", value), Err(FieldError::Value), "{value:?}");
        }
        assert!(fields.is_empty());
    }

    #[test]
    fn a_list_is_split_at_each_comma() {
        let split = |value: &'static str| elements(value.as_bytes()).collect::<Vec<_>>();
        assert_eq!(split("a"), [b"a"]);
        assert_eq!(split(" a ,\tb,, "), [&b"a"[..], b"b", b"", b""]);
        assert_eq!(split(""), [b""]);
    }

    #[test]
    fn trailers_that_would_change_the_message_are_forbidden() {
        for name in ["Content-Length", "TE", "If-Match", "SEC-WebSocket-Key", "authorization", "Host", "date"]
        {
            assert!(is_forbidden_trailer(name), "{name}");
        }
        for name in ["X-Checksum", "Content-Digest", "Server-Timing", "ETag", "se", "i"] {
            assert!(!is_forbidden_trailer(name), "{name}");
        }
    }
}
