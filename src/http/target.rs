//! The target of a request (RFC 9112, section 3.2) and the authority in it and in `Host`.

use super::chars::{is_reg_name, is_target};
use std::net::Ipv6Addr;

/// A request's target, in one of the three forms that an origin server takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    text: &'a str,
    /// Default port and authority of the absolute form.
    authority: Option<(u16, &'a str)>,
    /// Path and query; in the asterisk form the asterisk.
    rest: &'a str,
}

impl<'a> Target<'a> {
    /// Reads a target. `None`: it is empty, in a form that is not for us, has a fragment, or holds what no URI may.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if !is_target(text.as_bytes()) {
            return None;
        }
        if text.starts_with('/') || text == "*" {
            return Some(Self { text, authority: None, rest: text });
        }
        let (scheme, rest) = text.split_once("://")?;
        let default_port = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => 80,
            _ if scheme.eq_ignore_ascii_case("https") => 443,
            _ => return None,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        is_authority(authority).then_some(Self { text, authority: Some((default_port, authority)), rest })
    }

    /// The target as it came.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The path, undecoded, without the query; `*` in the asterisk form. Never empty (RFC 9110, section 4.2.3).
    pub(crate) fn path(&self) -> &'a str {
        match self.split().0 {
            "" => "/",
            path => path,
        }
    }

    /// What follows the first question mark.
    pub(crate) fn query(&self) -> Option<&'a str> {
        self.split().1
    }

    /// Default port of the scheme, and authority, of the absolute form.
    pub(crate) fn authority(&self) -> Option<(u16, &'a str)> {
        self.authority
    }

    /// Whether this is `*` (RFC 9112, section 3.2.4).
    pub(crate) fn is_asterisk(&self) -> bool {
        self.text == "*"
    }

    fn split(&self) -> (&'a str, Option<&'a str>) {
        match memchr::memchr(b'?', self.rest.as_bytes()) {
            Some(mark) => (&self.rest[..mark], Some(&self.rest[mark + 1..])),
            None => (self.rest, None),
        }
    }
}

/// Whether `text` is `uri-host [ ":" port ]` with a host that is not empty (RFC 9110, section 7.2). The comma, which
/// RFC 3986 lets into a name, is refused: it is how two Host fields look when somebody has joined them.
pub(crate) fn is_authority(text: &str) -> bool {
    split_authority(text).is_some()
}

/// Whether two authorities mean the same host and port, `default_port` standing where there is none.
pub(crate) fn same_authority(a: &str, b: &str, default_port: u16) -> bool {
    let (Some((host_a, port_a)), Some((host_b, port_b))) = (split_authority(a), split_authority(b)) else {
        return false;
    };
    host_a.eq_ignore_ascii_case(host_b) && port_a.unwrap_or(default_port) == port_b.unwrap_or(default_port)
}

fn split_authority(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(literal) = text.strip_prefix('[') {
        let (address, port) = literal.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        (address, port)
    } else {
        let (host, port) = text.split_at(memchr::memchr(b':', text.as_bytes()).unwrap_or(text.len()));
        if host.is_empty() || !is_reg_name(host.as_bytes()) || !escapes_are_whole(host.as_bytes()) {
            return None;
        }
        (host, port)
    };
    // An empty port is the default one (RFC 3986, section 3.2.3).
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    Some((host, port))
}

fn escapes_are_whole(name: &[u8]) -> bool {
    memchr::memchr_iter(b'%', name)
        .all(|at| name.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_are_told_apart_in_every_form() {
        for (text, path, query) in [
            ("/", "/", None),
            ("/a/b?c=d?e", "/a/b", Some("c=d?e")),
            ("/?", "/", Some("")),
            ("//x/y", "//x/y", None),
            ("*", "*", None),
            ("http://example.org", "/", None),
            ("HTTP://example.org?q", "/", Some("q")),
            ("https://example.org:8443/a?b", "/a", Some("b")),
            ("http://[::1]:80/a", "/a", None),
            ("/a?b=http://c/", "/a", Some("b=http://c/")),
            ("/a\\b%00|{}^`", "/a\\b%00|{}^`", None),
        ] {
            let target = Target::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((target.text(), target.path(), target.query()), (text, path, query));
            assert_eq!(target.is_asterisk(), text == "*");
        }
    }

    #[test]
    fn what_is_not_a_target_is_refused() {
        for text in [
            "",
            "a",
            "**",
            "*/",
            "/a#b",
            "/a b",
            "/a\tb",
            "/\0",
            "/\x7f",
            "/é",
            "/<",
            "/\"",
            "http:/a",
            "http://",
            "://a/",
            "ftp://a/",
            "http:///a",
            "http://u@a/",
            "http://a,b/",
            "example.org:443",
            "?q",
            "http://a:x/",
            "/\r",
        ] {
            assert!(Target::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for text in [
            "a",
            "localhost:8080",
            "a.b.",
            "a_b",
            "a:",
            "127.0.0.1",
            "[::1]",
            "[::ffff:1.2.3.4]:65535",
            "x%2Fy",
            "a:0",
        ] {
            assert!(is_authority(text), "{text}");
        }
        for text in [
            "",
            ":",
            ":80",
            "a:b",
            "a:65536",
            "a:+1",
            "a:99999999999999999999",
            "u@a",
            "a/b",
            "a?b",
            "a#b",
            "a,b",
            "a, b",
            "a b",
            "[::1",
            "[]",
            "[::1]a",
            "[::1]:x",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "::1",
            "a%",
            "a%2",
            "a%zz",
            "é",
            "a\\b",
            "a:1:2",
        ] {
            assert!(!is_authority(text), "{text}");
        }
    }

    #[test]
    fn authorities_agree_in_any_case_and_with_the_default_port() {
        assert!(same_authority("Example.org", "example.ORG:80", 80));
        assert!(same_authority("a:", "a:443", 443));
        assert!(same_authority("[::A]:1", "[::a]:1", 80));
        assert!(!same_authority("a", "a:80", 443));
        assert!(!same_authority("a", "b", 80));
        assert!(!same_authority("a", "", 80));
    }
}
