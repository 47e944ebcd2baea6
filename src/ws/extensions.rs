//! Sec-WebSocket-Extensions (RFC 6455, section 9.1): which extensions, with which parameters, in which order.
//!
//! Nothing is copied: what is listed borrows the field's value.

use crate::http::is_token;
use std::fmt;

/// One element of the list: an offer in a request, what was accepted in a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extension<'a> {
    pub(crate) name: &'a [u8],
    /// What is behind the first semicolon.
    parameters: Option<&'a [u8]>,
}

/// A parameter of an extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: Option<Value<'a>>,
}

/// The value of a parameter: a token, as it is or as a quoted string.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    /// Without the quotes, with the backslashes.
    raw: &'a [u8],
    is_quoted: bool,
}

/// An element is against the grammar.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// The extensions listed in the values of all fields, in order. Several fields are as one (section 9.1). What is behind a
/// malformed element, up to the next comma that is not within quotes, belongs to it.
pub(crate) fn list<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = Result<Extension<'a>, Malformed>> {
    values.into_iter().flat_map(elements).map(Extension::parse)
}

/// The elements of a list, split at commas outside of quotes; empty ones are skipped (RFC 9110, section 5.6.1.2).
fn elements(mut value: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while !value.is_empty() {
            let (element, rest) = split(value, b',');
            value = rest.unwrap_or_default();
            let element = trim(element);
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    })
}

impl<'a> Extension<'a> {
    fn parse(element: &'a [u8]) -> Result<Self, Malformed> {
        let (name, parameters) = split(element, b';');
        let extension = Self { name: token(trim(name))?, parameters };
        match extension.split_parameters().all(|parameter| Parameter::parse(parameter).is_ok()) {
            true => Ok(extension),
            false => Err(Malformed),
        }
    }

    pub(crate) fn parameters(self) -> impl Iterator<Item = Parameter<'a>> {
        self.split_parameters().flat_map(Parameter::parse)
    }

    fn split_parameters(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.parameters;
        std::iter::from_fn(move || {
            let (parameter, behind) = split(rest?, b';');
            rest = behind;
            Some(parameter)
        })
    }
}

impl<'a> Parameter<'a> {
    fn parse(parameter: &'a [u8]) -> Result<Self, Malformed> {
        let (name, value) = split(parameter, b'=');
        let value = value.map(|value| Value::parse(trim(value))).transpose()?;
        Ok(Self { name: token(trim(name))?, value })
    }
}

impl<'a> Value<'a> {
    /// A quoted string too must be a token once its backslashes are gone (section 9.1).
    fn parse(value: &'a [u8]) -> Result<Self, Malformed> {
        let value = match value {
            [b'"', raw @ .., b'"'] => Self { raw, is_quoted: true },
            raw => Self { raw, is_quoted: false },
        };
        let mut bytes = value.bytes().peekable();
        let is_token = bytes.peek().is_some() && bytes.all(|byte| is_token(&[byte]));
        // A backslash with nothing behind it has taken the closing quote.
        let ends = value.raw.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 0;
        (is_token && ends).then_some(value).ok_or(Malformed)
    }

    pub(crate) fn bytes(self) -> impl Iterator<Item = u8> {
        let mut raw = self.raw.iter().copied();
        std::iter::from_fn(move || match raw.next()? {
            b'\\' if self.is_quoted => raw.next(),
            byte => Some(byte),
        })
    }

    /// The number of at most two digits that it is: no sign, no leading zero.
    pub(crate) fn number(self) -> Option<u8> {
        let mut number = 0;
        for (index, byte) in self.bytes().enumerate() {
            if index == 2 || !byte.is_ascii_digit() || (number == 0 && byte == b'0') {
                return None;
            }
            number = number * 10 + (byte - b'0');
        }
        Some(number)
    }
}

/// `value` up to the first `separator` outside of quotes, and what is behind it.
fn split(value: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut is_quoted = false;
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => at += 1,
            byte if byte == separator && !is_quoted => return (&value[..at], Some(&value[at + 1..])),
            _ => {}
        }
        at += 1;
    }
    (value, None)
}

fn token(bytes: &[u8]) -> Result<&[u8], Malformed> {
    match is_token(bytes) {
        true => Ok(bytes),
        false => Err(Malformed),
    }
}

/// Without spaces and tabs at its ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Writes an element of the list, its parameters one by one.
pub(crate) struct Formatter<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl<'a, 'b> Formatter<'a, 'b> {
    pub(crate) fn new(f: &'a mut fmt::Formatter<'b>, name: &str) -> Result<Self, fmt::Error> {
        f.write_str(name)?;
        Ok(Self(f))
    }

    pub(crate) fn flag(&mut self, name: &str, is_set: bool) -> fmt::Result {
        if is_set { write!(self.0, "; {name}") } else { Ok(()) }
    }

    pub(crate) fn number(&mut self, name: &str, value: Option<u8>) -> fmt::Result {
        value.map_or(Ok(()), |value| write!(self.0, "; {name}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list, written in one way: `None` for what is malformed.
    fn read(values: &[&str]) -> Vec<Option<String>> {
        list(values.iter().map(|value| value.as_bytes()))
            .map(|extension| extension.ok().map(written))
            .collect()
    }

    fn written(extension: Extension<'_>) -> String {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut out = text(extension.name);
        for parameter in extension.parameters() {
            out += &format!(";{}", text(parameter.name));
            if let Some(value) = parameter.value {
                out += &format!("={}", text(&value.bytes().collect::<Vec<_>>()));
            }
        }
        out
    }

    fn some(expected: &[&str]) -> Vec<Option<String>> {
        expected.iter().map(|&extension| (extension != "-").then(|| extension.to_owned())).collect()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 6455, section 9.1.
        assert_eq!(read(&["deflate-stream"]), some(&["deflate-stream"]));
        let one_field = read(&["mux; max-channels=4; flow-control, deflate-stream"]);
        assert_eq!(one_field, some(&["mux;max-channels=4;flow-control", "deflate-stream"]));
        assert_eq!(read(&["private-extension"]), some(&["private-extension"]));
        assert_eq!(read(&["foo, bar; baz=2"]), read(&["foo", "bar; baz=2"]));
        // RFC 7692, section 5.1.
        assert_eq!(read(&["permessage-foo; use_x; use_y=10, permessage-foo"]).len(), 2);
    }

    #[test]
    fn several_fields_are_one_list_and_white_space_means_nothing() {
        let values = ["", " ,\ta ;\tb = \"c\" ,, ", "d;e=f;g"];
        assert_eq!(read(&values), some(&["a;b=c", "d;e=f;g"]));
        assert_eq!(read(&[]), some(&[]));
    }

    #[test]
    fn a_quoted_string_is_a_token_once_its_backslashes_are_gone() {
        assert_eq!(read(&[r#"a; b="1\0""#]), some(&["a;b=10"]));
        for bad in [
            r#"a;b="""#,
            r#"a;b="c d""#,
            r#"a;b="c,d""#,
            r#"a;b="c;d""#,
            r#"a;b="c\"d""#,
            r#"a;b="c"#,
            r#"a;b="c\""#,
        ] {
            assert_eq!(read(&[bad]), some(&["-"]), "{bad}");
        }
    }

    #[test]
    fn a_malformed_element_reaches_to_the_next_comma() {
        for bad in [
            "a b",
            "=",
            ";",
            "a;",
            "a;;b",
            "a;b=",
            "a;=b",
            "a;b=c=d",
            "a;b c",
            "\"a\"",
            "a\"",
            "ä",
            "a;b=\"c\"d",
            "a=b",
        ] {
            assert_eq!(read(&[&format!("x, {bad}"), "y"]), some(&["x", "-", "y"]), "{bad}");
        }
        assert_eq!(read(&["a b, c", "d;"]), some(&["-", "c", "-"]));
        // A comma within quotes separates nothing, in an open quote least of all.
        assert_eq!(read(&["a;b=\"c,d, e", "f"]), some(&["-", "f"]));
    }

    #[test]
    fn a_number_has_one_form() {
        let number = |text: &str| {
            let field = format!("a;b={text}");
            list([field.as_bytes()])
                .next()
                .unwrap()
                .unwrap()
                .parameters()
                .next()
                .unwrap()
                .value
                .unwrap()
                .number()
        };
        for (text, expected) in [("8", Some(8)), ("15", Some(15)), ("99", Some(99)), ("\"1\\2\"", Some(12))] {
            assert_eq!(number(text), expected);
        }
        for text in ["0", "08", "015", "100", "+8", "-8", "8.", "1a", "a"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_a_peer_lists_panics() {
        let mut random = 0x1234_5678_u32;
        for _ in 0..20_000 {
            let value: Vec<u8> = (0..12)
                .map(|_| {
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    b"ab1,;=\"\\ \t\x80"[random as usize % 11]
                })
                .collect();
            for extension in list([&value[..]]).flatten() {
                written(extension);
                let _ = extension.parameters().filter_map(|parameter| parameter.value?.number()).count();
            }
        }
    }
}
