//! Where a client connects to, and what it asks for there (RFC 3986), in the forms that this library serves.
//!
//! A small parser instead of a general one: what is refused here is most of RFC 3986, and what is taken beside it (sockets by
//! their path, zones of addresses) is not in it.

use crate::http::is_target;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// The longest URL, and the longest target that comes of a redirect.
const LENGTH_MAX: usize = 8 * 1024;
/// A name in DNS, and each part of it (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// A URL in its parts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    /// Through which interface, by name or number, an address of a link is reached (RFC 6874).
    pub(crate) zone: Option<String>,
    /// 0 with [`Host::Unix`].
    pub(crate) port: u16,
    /// Path and query, percent-encoded as they came; never empty.
    pub(crate) target: String,
    /// The value of `Host`: without the scheme's default port, without the zone, which nobody else understands.
    pub(crate) authority: String,
}

/// What is spoken, and whether over TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    Ws,
    Wss,
    Http,
    Https,
    /// Bytes as they are.
    Tcp,
    Tls,
}

/// Where to connect to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Host {
    /// A name for DNS, in lower case, without the dot that may end it.
    Name(String),
    Ip(IpAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Scheme {
    /// Whether it is spoken over TLS.
    pub(crate) fn is_secure(self) -> bool {
        match self {
            Self::Wss | Self::Https | Self::Tls => true,
            Self::Ws | Self::Http | Self::Tcp => false,
        }
    }

    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// The port where none is given (RFC 9110, section 4.2; RFC 6455, section 3).
    pub(crate) fn default_port(self) -> Option<u16> {
        match self {
            Self::Ws | Self::Http => Some(80),
            Self::Wss | Self::Https => Some(443),
            Self::Tcp | Self::Tls => None,
        }
    }

    /// As a URL has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    fn is_raw(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

impl Url {
    /// Reads a URL: `ws`, `wss`, `http` and `https` with a host and perhaps port, path and query; `tcp` and `tls` with host and
    /// port; `unix:/path` for a raw connection to a socket, `ws+unix:/path:/target` and `http+unix:/path:/target` for others.
    /// Paths of sockets are taken as they are, without any decoding.
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        check_characters(text)?;
        let (scheme, rest) = split_scheme(text).ok_or(UrlError::NoScheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "ws" => Self::parse_network(Scheme::Ws, rest),
            "wss" => Self::parse_network(Scheme::Wss, rest),
            "http" => Self::parse_network(Scheme::Http, rest),
            "https" => Self::parse_network(Scheme::Https, rest),
            "tcp" => Self::parse_network(Scheme::Tcp, rest),
            "tls" => Self::parse_network(Scheme::Tls, rest),
            "unix" => Self::parse_unix(Scheme::Tcp, rest),
            "ws+unix" => Self::parse_unix(Scheme::Ws, rest),
            "http+unix" => Self::parse_unix(Scheme::Http, rest),
            _ => Err(UrlError::UnknownScheme),
        }
    }

    fn parse_network(scheme: Scheme, rest: &str) -> Result<Self, UrlError> {
        let rest = without_fragment(scheme, rest)?;
        let rest = rest.strip_prefix("//").ok_or(UrlError::NoHost)?;
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, zone, port) = parse_authority(authority)?;
        let port = port.or(scheme.default_port()).ok_or(UrlError::NoPort)?;
        let target = origin_form(target)?;
        if scheme.is_raw() && target != "/" {
            return Err(UrlError::Target);
        }
        let mut authority = match &host {
            Host::Name(name) => name.clone(),
            Host::Ip(IpAddr::V6(address)) => format!("[{address}]"),
            Host::Ip(address) => address.to_string(),
            Host::Unix(_) => return Err(UrlError::Host),
        };
        if scheme.default_port() != Some(port) {
            authority += &format!(":{port}");
        }
        Ok(Self { scheme, host, zone, port, target, authority })
    }

    fn parse_unix(scheme: Scheme, rest: &str) -> Result<Self, UrlError> {
        // An empty authority, as in file:///path.
        let rest = if rest.starts_with("///") { &rest[2..] } else { rest };
        let (path, target) = match rest.split_once(':') {
            Some(parts) if !scheme.is_raw() => parts,
            _ => (rest, ""),
        };
        if path.len() < 2 || !path.starts_with('/') || path.starts_with("//") {
            return Err(UrlError::SocketPath);
        }
        let target = origin_form(without_fragment(scheme, target)?)?;
        let host = Host::Unix(PathBuf::from(path));
        Ok(Self { scheme, host, zone: None, port: 0, target, authority: LOCAL.to_owned() })
    }

    /// Where a `Location` leads to from here (RFC 3986, section 5.2; RFC 9110, section 10.2.2). It stays with HTTP, or with
    /// WebSocket, for which `http` means `ws` and `https` means `wss`; a fragment is dropped. Whether to go from TLS to plain
    /// text is the caller's to judge.
    pub(crate) fn join(&self, reference: &str) -> Result<Self, UrlError> {
        if self.scheme.is_raw() {
            return Err(UrlError::Redirect);
        }
        check_characters(reference)?;
        let reference = reference.split('#').next().unwrap_or_default();
        let mut joined = if split_scheme(reference).is_some() {
            self.turn_to(Self::parse(reference)?)?
        } else if reference.starts_with("//") {
            Self::parse(&format!("{}:{reference}", self.scheme.name()))?
        } else {
            Self { target: resolve(&self.target, reference)?, ..self.clone() }
        };
        // A server behind a socket says of itself what we said it was.
        if matches!(self.host, Host::Unix(_)) && joined.authority == LOCAL && joined.scheme == self.scheme {
            joined.host = self.host.clone();
            joined.port = self.port;
        }
        match joined.target.len() > LENGTH_MAX {
            true => Err(UrlError::TooLong),
            false => Ok(joined),
        }
    }

    /// What an absolute URL of a server's means to us. A server cannot send us to sockets of this machine by their path, nor
    /// make something else of what the connection is for.
    fn turn_to(&self, mut url: Self) -> Result<Self, UrlError> {
        url.scheme = match (self.scheme.is_websocket(), url.scheme) {
            _ if matches!(url.host, Host::Unix(_)) => return Err(UrlError::Redirect),
            (true, Scheme::Http) => Scheme::Ws,
            (true, Scheme::Https) => Scheme::Wss,
            (true, Scheme::Ws | Scheme::Wss) | (false, Scheme::Http | Scheme::Https) => url.scheme,
            (false, Scheme::Ws | Scheme::Wss) | (_, Scheme::Tcp | Scheme::Tls) => {
                return Err(UrlError::Redirect);
            }
        };
        url.target = without_dots(&url.target);
        Ok(url)
    }
}

/// What `Host` says where there is none, as others do.
const LOCAL: &str = "localhost";

/// A scheme and what follows its colon (RFC 3986, section 3.1).
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let first = scheme.bytes().next()?;
    (first.is_ascii_alphabetic() && scheme.bytes().all(right)).then_some((scheme, rest))
}

fn check_characters(text: &str) -> Result<(), UrlError> {
    if text.len() > LENGTH_MAX {
        return Err(UrlError::TooLong);
    }
    match text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        true => Err(UrlError::Character),
        false => Ok(()),
    }
}

/// A fragment is for what is shown of a page; a WebSocket has nothing to show (RFC 6455, section 3).
fn without_fragment(scheme: Scheme, text: &str) -> Result<&str, UrlError> {
    match text.split_once('#') {
        None => Ok(text),
        Some((rest, _)) if matches!(scheme, Scheme::Http | Scheme::Https) => Ok(rest),
        Some(_) => Err(UrlError::Fragment),
    }
}

/// Path and query as a request has them (RFC 9112, section 3.2.1).
fn origin_form(text: &str) -> Result<String, UrlError> {
    let slash = if text.starts_with('/') { "" } else { "/" };
    match text {
        _ if !is_target(text.as_bytes()) => Err(UrlError::Target),
        "" => Ok("/".to_owned()),
        _ if text.starts_with(['/', '?']) => Ok(format!("{slash}{text}")),
        _ => Err(UrlError::Target),
    }
}

/// Host, zone and port (RFC 3986, section 3.2).
fn parse_authority(text: &str) -> Result<(Host, Option<String>, Option<u16>), UrlError> {
    if text.contains('@') {
        return Err(UrlError::UserInformation);
    }
    if !text.is_ascii() {
        return Err(UrlError::HostNotAscii);
    }
    if let Some(literal) = text.strip_prefix('[') {
        let (address, port) = literal.split_once(']').ok_or(UrlError::Host)?;
        let (address, zone) = match address.split_once("%25") {
            Some((address, zone)) => (address, Some(parse_zone(zone)?)),
            None => (address, None),
        };
        let address: Ipv6Addr = address.parse().map_err(|_| UrlError::Host)?;
        let port = match port.strip_prefix(':') {
            None if !port.is_empty() => return Err(UrlError::Host),
            digits => parse_port(digits.unwrap_or_default())?,
        };
        return Ok((Host::Ip(address.into()), zone, port));
    }
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    if port.contains(':') {
        // An IPv6 address that lacks its brackets.
        return Err(UrlError::Host);
    }
    Ok((parse_host(host)?, None, parse_port(port)?))
}

/// An empty port is the default one (RFC 3986, section 3.2.3).
fn parse_port(digits: &str) -> Result<Option<u16>, UrlError> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    match digits.parse() {
        _ if digits.is_empty() => Ok(None),
        Ok(0) | Err(_) => Err(UrlError::Port),
        Ok(port) => Ok(Some(port)),
    }
}

fn parse_zone(zone: &str) -> Result<String, UrlError> {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match !zone.is_empty() && zone.bytes().all(right) {
        true => Ok(zone.to_owned()),
        false => Err(UrlError::Host),
    }
}

fn parse_host(text: &str) -> Result<Host, UrlError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(UrlError::NoHost);
    }
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(address.into()));
    }
    let right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let whole = |label: &str| !label.is_empty() && label.len() <= LABEL_MAX && label.bytes().all(right);
    let last = name.rsplit('.').next().unwrap_or_default();
    match name.len() <= NAME_MAX && name.split('.').all(whole) && !is_number(last) {
        true => Ok(Host::Name(name.to_ascii_lowercase())),
        false => Err(UrlError::Host),
    }
}

/// Whether a resolver may take a name that ends so for an IPv4 address in one of its old forms, such as `0x7f.1`: no name
/// ends so, and checks of addresses would not see what it is.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or(label.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// The target of a reference without scheme and authority (RFC 3986, section 5.2.2).
fn resolve(base: &str, reference: &str) -> Result<String, UrlError> {
    let base_path = path_of(base);
    let target = match reference.bytes().next() {
        None => base.to_owned(),
        Some(b'?') => format!("{base_path}{reference}"),
        Some(b'/') => without_dots(reference),
        Some(_) => {
            let directory = base_path.rfind('/').map_or("/", |slash| &base_path[..=slash]);
            without_dots(&format!("{directory}{reference}"))
        }
    };
    match is_target(target.as_bytes()) {
        true => Ok(target),
        false => Err(UrlError::Target),
    }
}

fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// `target`, which begins with a slash, without the `.` and `..` of its path (RFC 3986, section 5.2.4).
fn without_dots(target: &str) -> String {
    let path = path_of(target);
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
        if matches!(segment, "." | "..") && segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}{}", kept.join("/"), &target[path.len()..])
}

/// What is wrong with a URL.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[doc(alias("lws_parse_uri", "CURLE_URL_MALFORMAT", "HS: URI did not parse"))]
pub enum UrlError {
    /// It does not begin with a scheme and a colon (RFC 3986, section 3.1).
    NoScheme,
    /// The scheme is not one of `ws`, `wss`, `http`, `https`, `tcp`, `tls`, `unix`, `ws+unix`, `http+unix`.
    #[doc(alias = "CURLE_UNSUPPORTED_PROTOCOL")]
    UnknownScheme,
    /// There is no host behind the scheme (RFC 9110, section 4.2.1).
    NoHost,
    /// The host is neither a name as DNS has them, nor an IPv4 address, nor an IPv6 address in brackets.
    Host,
    /// The host has letters beyond ASCII; they are to be given in the form `xn--` (RFC 5891, section 4.4).
    #[doc(alias = "IDN")]
    HostNotAscii,
    /// There is no port, and the scheme, `tcp` or `tls`, has none of its own.
    NoPort,
    /// The port is not a number from 1 to 65,535.
    Port,
    /// The path of a Unix socket does not begin with one slash, or has nothing behind it.
    SocketPath,
    /// There are a user's name or password in it (RFC 9110, section 4.2.4).
    #[doc(alias = "CURLOPT_USERPWD")]
    UserInformation,
    /// There is a fragment, which only `http` and `https` have (RFC 6455, section 3).
    Fragment,
    /// There is white space or a control character in it.
    Character,
    /// Path or query hold what is not allowed there without percent-encoding, or a scheme without a path has one (RFC 3986,
    /// section 3.3).
    Target,
    /// It is longer than 8 KiB.
    TooLong,
    /// It is where a server has redirected us, and has another kind of scheme than what we asked for.
    Redirect,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScheme => "no scheme, such as wss://, in front of the URL",
            Self::UnknownScheme => {
                "unknown scheme in the URL: it can be ws, wss, http, https, tcp, tls, unix, ws+unix or http+unix"
            }
            Self::NoHost => "no host in the URL",
            Self::Host => "host in the URL is neither a name nor an address; IPv6 addresses have brackets",
            Self::HostNotAscii => "host in the URL is not ASCII: give it in its ASCII form (punycode, xn--)",
            Self::NoPort => "no port in the URL, and its scheme has no default",
            Self::Port => "port in the URL is not a number from 1 to 65535",
            Self::SocketPath => "path of a Unix socket in the URL is not absolute",
            Self::UserInformation => "user name or password in the URL: give credentials as a field",
            Self::Fragment => "fragment (#) in a URL whose scheme has none",
            Self::Character => "white space or control character in the URL: percent-encode it",
            Self::Target => "path or query of the URL hold what has to be percent-encoded, or are not allowed",
            Self::TooLong => "URL longer than 8 KiB",
            Self::Redirect => "redirect to a scheme of another kind",
        })
    }
}

impl std::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn name(text: &str) -> Host {
        Host::Name(text.to_owned())
    }

    fn ip(text: &str) -> Host {
        Host::Ip(text.parse().unwrap())
    }

    fn unix(text: &str) -> Host {
        Host::Unix(PathBuf::from(text))
    }

    #[test]
    fn a_url_has_its_parts() {
        use Scheme::*;
        for (text, scheme, host, port, target, authority) in [
            ("ws://example.org", Ws, name("example.org"), 80, "/", "example.org"),
            ("wss://example.org/chat?a=b", Wss, name("example.org"), 443, "/chat?a=b", "example.org"),
            ("WSS://Example.ORG:443/Chat", Wss, name("example.org"), 443, "/Chat", "example.org"),
            ("ws://example.org:443", Ws, name("example.org"), 443, "/", "example.org:443"),
            ("http://example.org.?q", Http, name("example.org"), 80, "/?q", "example.org"),
            ("https://a_b.c-d:8443//x//", Https, name("a_b.c-d"), 8443, "//x//", "a_b.c-d:8443"),
            ("http://a:/b#c?d", Http, name("a"), 80, "/b", "a"),
            ("https://a#/b", Https, name("a"), 443, "/", "a"),
            ("http://127.0.0.1:00080/%20", Http, ip("127.0.0.1"), 80, "/%20", "127.0.0.1"),
            ("ws://[::1]:65535/", Ws, ip("::1"), 65535, "/", "[::1]:65535"),
            ("ws://[0:0::A]", Ws, ip("::a"), 80, "/", "[::a]"),
            ("http://[::ffff:1.2.3.4]", Http, ip("::ffff:1.2.3.4"), 80, "/", "[::ffff:1.2.3.4]"),
            ("ws://1.2.3.4.example/", Ws, name("1.2.3.4.example"), 80, "/", "1.2.3.4.example"),
            ("ws://xn--mnchen-3ya.de/", Ws, name("xn--mnchen-3ya.de"), 80, "/", "xn--mnchen-3ya.de"),
            ("tcp://a:1", Tcp, name("a"), 1, "/", "a:1"),
            ("tls://a:443/", Tls, name("a"), 443, "/", "a:443"),
            ("http://a/?b=http://c@d:1/", Http, name("a"), 80, "/?b=http://c@d:1/", "a"),
            ("unix:/run/a:b#c", Tcp, unix("/run/a:b#c"), 0, "/", "localhost"),
            ("unix:///run/\u{e4}", Tcp, unix("/run/\u{e4}"), 0, "/", "localhost"),
            ("ws+unix:/run/a.sock:/chat?x:y", Ws, unix("/run/a.sock"), 0, "/chat?x:y", "localhost"),
            ("ws+unix:/run/a.sock", Ws, unix("/run/a.sock"), 0, "/", "localhost"),
            ("HTTP+unix:///run/a:?q", Http, unix("/run/a"), 0, "/?q", "localhost"),
            ("http+unix:/run/a%2f:/b#c", Http, unix("/run/a%2f"), 0, "/b", "localhost"),
        ] {
            let (target, authority) = (target.to_owned(), authority.to_owned());
            assert_eq!(url(text), Url { scheme, host, zone: None, port, target, authority }, "{text}");
        }
    }

    #[test]
    fn a_zone_is_kept_apart() {
        let url = url("ws://[fe80::1%25eth0.1]:81/a");
        assert_eq!((url.host, url.zone.as_deref()), (ip("fe80::1"), Some("eth0.1")));
        assert_eq!(url.authority, "[fe80::1]:81");
    }

    #[test]
    fn schemes_know_their_port_and_their_secrecy() {
        for (text, secure, port) in [
            ("ws://a:1", false, Some(80)),
            ("wss://a:1", true, Some(443)),
            ("http://a:1", false, Some(80)),
            ("https://a:1", true, Some(443)),
            ("tcp://a:1", false, None),
            ("tls://a:1", true, None),
        ] {
            let scheme = url(text).scheme;
            assert_eq!((scheme.is_secure(), scheme.default_port()), (secure, port), "{text}");
            assert!(text.starts_with(&format!("{}:", scheme.name())));
        }
    }

    #[test]
    fn each_mistake_has_its_error() {
        use UrlError::*;
        let long_label = format!("ws://{}.org", "a".repeat(64));
        let long_name = format!("ws://{}org", "abcdefgh.".repeat(28));
        for (text, expected) in [
            ("", NoScheme),
            ("example.org", NoScheme),
            ("/path", NoScheme),
            ("//example.org", NoScheme),
            ("1ws://a", NoScheme),
            ("://a", NoScheme),
            ("w_s://a", NoScheme),
            ("localhost:8080", UnknownScheme),
            ("ftp://a", UnknownScheme),
            ("wss+unix:/a:/b", UnknownScheme),
            ("ws:", NoHost),
            ("ws:a", NoHost),
            ("ws:/a", NoHost),
            ("ws://", NoHost),
            ("ws:///a", NoHost),
            ("ws://?a", NoHost),
            ("ws://:80", NoHost),
            ("ws://.", NoHost),
            ("http:///a", NoHost),
            ("ws://a..b", Host),
            ("ws://.a", Host),
            ("ws://a%41", Host),
            ("ws://a,b", Host),
            ("ws://a\\b", Host),
            ("ws://a*", Host),
            ("ws://::1", Host),
            ("ws://::1/", Host),
            ("ws://[::1", Host),
            ("ws://[]", Host),
            ("ws://[1.2.3.4]", Host),
            ("ws://[v1.a]", Host),
            ("ws://[::1]a", Host),
            ("ws://[fe80::1%eth0]", Host),
            ("ws://[fe80::1%25]", Host),
            ("ws://[fe80::1%25a/b]", Host),
            ("ws://127.1", Host),
            ("ws://2130706433", Host),
            ("ws://0x7f000001", Host),
            ("ws://127.0.0.0x1", Host),
            ("ws://127.0.0.01", Host),
            ("ws://1.2.3.256", Host),
            ("ws://a.0x", Host),
            (&long_label, Host),
            (&long_name, Host),
            ("ws://m\u{fc}nchen.de", HostNotAscii),
            ("ws://example\u{3002}org", HostNotAscii),
            ("tcp://a", NoPort),
            ("tls://a:", NoPort),
            ("ws://a:0", Port),
            ("ws://a:65536", Port),
            ("ws://a:-1", Port),
            ("ws://a:+1", Port),
            ("ws://a:http", Port),
            ("ws://[::1]:0", Port),
            ("ws://a:99999999999999999999999", Port),
            ("ws://user@a", UserInformation),
            ("ws://user:password@a:80/", UserInformation),
            ("https://@a", UserInformation),
            ("ws://good\\@evil/", UserInformation),
            ("ws://a/b#c", Fragment),
            ("wss://a#", Fragment),
            ("tcp://a:1#b", Fragment),
            ("ws+unix:/a:/b#c", Fragment),
            ("ws://a/b c", Character),
            (" ws://a", Character),
            ("ws://a\n", Character),
            ("ws://a/\r\nHost: b", Character),
            ("ws://a/\0", Character),
            ("ws://a/\t", Character),
            ("ws://a/\u{85}\u{a0}", Character),
            ("unix:/a b", Character),
            ("ws://a/\u{e4}", Target),
            ("ws://a/\"", Target),
            ("http://a/<b>", Target),
            ("tcp://a:1/b", Target),
            ("tls://a:1?b", Target),
            ("ws+unix:/a:b", Target),
            ("unix:", SocketPath),
            ("unix:/", SocketPath),
            ("unix:a", SocketPath),
            ("unix://a/b", SocketPath),
            ("ws+unix::/b", SocketPath),
        ] {
            assert_eq!(Url::parse(text).err(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn a_url_may_be_as_long_as_the_limit_and_no_longer() {
        let long = |length: usize| format!("ws://a/{}", "b".repeat(length - 7));
        assert_eq!(url(&long(LENGTH_MAX)).target.len(), LENGTH_MAX - 6);
        assert_eq!(Url::parse(&long(LENGTH_MAX + 1)), Err(UrlError::TooLong));
        let base = url(&format!("ws://a/{}/", "b".repeat(LENGTH_MAX - 100)));
        assert!(base.join(&"c".repeat(98)).is_ok());
        assert_eq!(base.join(&"c".repeat(99)), Err(UrlError::TooLong));
        assert_eq!(base.join(&"c".repeat(LENGTH_MAX + 1)), Err(UrlError::TooLong));
        let name = format!("ws://{}orgs", "abcdefgh.".repeat(27) + "abcdef");
        assert_eq!(url(&name).host, Host::Name(name[5..].to_owned()));
        assert_eq!(name.len() - 5, NAME_MAX);
        assert!(Url::parse(&format!("ws://{}", "a".repeat(LABEL_MAX))).is_ok());
    }

    #[test]
    fn references_are_resolved_as_in_the_rfc() {
        // RFC 3986, sections 5.4.1 and 5.4.2, as far as they are HTTP; fragments are dropped.
        let base = url("http://a/b/c/d;p?q");
        for (reference, expected) in [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d;p?q"),
            ("g#s", "/b/c/g"),
            ("g?y#s", "/b/c/g?y"),
            (";x", "/b/c/;x"),
            ("g;x?y#s", "/b/c/g;x?y"),
            ("", "/b/c/d;p?q"),
            (".", "/b/c/"),
            ("./", "/b/c/"),
            ("..", "/b/"),
            ("../", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../", "/"),
            ("../../g", "/g"),
            ("../../../g", "/g"),
            ("../../../../g", "/g"),
            ("/./g", "/g"),
            ("/../g", "/g"),
            ("g.", "/b/c/g."),
            (".g", "/b/c/.g"),
            ("g..", "/b/c/g.."),
            ("..g", "/b/c/..g"),
            ("./../g", "/b/g"),
            ("./g/.", "/b/c/g/"),
            ("g/./h", "/b/c/g/h"),
            ("g/../h", "/b/c/h"),
            ("g;x=1/./y", "/b/c/g;x=1/y"),
            ("g;x=1/../y", "/b/c/y"),
            ("g?y/./x", "/b/c/g?y/./x"),
            ("g?y/../x", "/b/c/g?y/../x"),
            ("g#s/../x", "/b/c/g"),
            ("http://a/b/./../c//../d", "/c/d"),
        ] {
            let joined = base.join(reference).unwrap();
            assert_eq!(joined, Url { target: expected.to_owned(), ..base.clone() }, "{reference}");
        }
        assert_eq!(base.join("//g"), Ok(url("http://g")));
        assert_eq!(base.join("http:g"), Err(UrlError::NoHost));
        assert_eq!(base.join("g:h"), Err(UrlError::UnknownScheme));
    }

    #[test]
    fn a_redirect_stays_with_what_was_asked_for() {
        for (base, location, expected) in [
            ("ws://a/b", "http://c:81/d?e#f", Ok("ws://c:81/d?e")),
            ("ws://a/b", "https://a/b", Ok("wss://a/b")),
            ("wss://a/b", "ws://a/b", Ok("ws://a/b")),
            ("wss://a/b", "//c/d", Ok("wss://c/d")),
            ("wss://a:1/b", "/d", Ok("wss://a:1/d")),
            ("http://a/b", "https://c/../d", Ok("https://c/d")),
            ("http://a/b", "HTTPS://C", Ok("https://c/")),
            ("http://a/b", "ws://a/b", Err(UrlError::Redirect)),
            ("http://a/b", "tcp://a:1", Err(UrlError::Redirect)),
            ("ws://a/b", "tls://a:1", Err(UrlError::Redirect)),
            ("http://a/b", "http+unix:/c:/d", Err(UrlError::Redirect)),
            ("ws://a/b", "ws+unix:/c:/d", Err(UrlError::Redirect)),
            ("http://a/b", "unix:/c", Err(UrlError::Redirect)),
            ("http://a/b", "ftp://a", Err(UrlError::UnknownScheme)),
            ("http://a/b", "http://u@c/", Err(UrlError::UserInformation)),
            ("http://a/b", "/d e", Err(UrlError::Character)),
            ("http://a/b", "/\u{e4}", Err(UrlError::Target)),
            ("http://a/b", "d\"", Err(UrlError::Target)),
            ("tcp://a:1", "/d", Err(UrlError::Redirect)),
            ("unix:/a", "/d", Err(UrlError::Redirect)),
            ("http+unix:/a:/b/c", "../d", Ok("http+unix:/a:/d")),
            ("http+unix:/a:/b", "http://localhost/d", Ok("http+unix:/a:/d")),
            ("ws+unix:/a:/b", "http://localhost/d", Ok("ws+unix:/a:/d")),
            ("http+unix:/a:/b", "http://localhost:81/d", Ok("http://localhost:81/d")),
            ("http+unix:/a:/b", "https://localhost/d", Ok("https://localhost/d")),
            ("http+unix:/a:/b", "//c/d", Ok("http://c/d")),
        ] {
            assert_eq!(url(base).join(location), expected.map(url), "{base} {location}");
        }
    }
}
