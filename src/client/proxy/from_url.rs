//! Proxies as URLs and environment variables name them.

use super::{Kind, Proxy};
use crate::http::is_authority;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Why a text names no proxy. The text itself is not in it, since it may have a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// The scheme is none of `http`, `socks5` and `socks5h`.
    Scheme,
    /// There is no host, or it is not written as RFC 3986, section 3.2.2, asks for; or the port is none.
    Host,
    /// User or password are not UTF-8 once decoded.
    Credentials,
    /// Something follows the port: a path, a query or a fragment.
    Path,
}

impl fmt::Display for ProxyUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the scheme of a proxy is http, socks5 or socks5h",
            Self::Host => "no valid host and port of a proxy",
            Self::Credentials => "user or password of a proxy are not UTF-8",
            Self::Path => {
                "the address of a proxy ends with the port: escape what user and password have of `/?#`"
            }
        })
    }
}

impl std::error::Error for ProxyUrlError {}

/// Reads `http://user:password@host:port`, `socks5://` or `socks5h://`, which mean the same here. User and password
/// are percent-decoded (RFC 3986, section 2.1). Without a scheme it is `http`; without a port, 80 or 1080.
impl FromStr for Proxy {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 80),
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            _ => return Err(ProxyUrlError::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(ProxyUrlError::Path);
        }
        let (user_information, authority) = match rest.rsplit_once('@') {
            Some((user_information, authority)) => (Some(user_information), authority),
            None => (None, rest),
        };
        let (host, port) = split(authority).ok_or(ProxyUrlError::Host)?;
        let proxy =
            Self { kind, host: host.to_owned(), port: port.unwrap_or(default_port), credentials: None };
        let Some(user_information) = user_information else {
            return Ok(proxy);
        };
        let (user, password) = user_information.split_once(':').unwrap_or((user_information, ""));
        let decode = |text| percent_decode_str(text).decode_utf8().map_err(|_| ProxyUrlError::Credentials);
        Ok(proxy.credentials(decode(user)?, decode(password)?))
    }
}

/// Host, without brackets, and port.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    if !is_authority(authority) {
        return None;
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(literal) => literal.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    match port.strip_prefix(':').filter(|digits| !digits.is_empty()) {
        None => Some((host, None)),
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).map(|port| (host, Some(port))),
    }
}

impl Proxy {
    /// The proxy that the environment names for a connection to `host`, as other programs understand it; `None` for a direct
    /// one. Nothing in lodger asks the environment but this.
    ///
    /// # Errors
    ///
    /// The variable that counts names no proxy.
    #[doc(alias("http_proxy", "https_proxy", "all_proxy", "no_proxy"))]
    pub fn from_env(secure: bool, host: &str) -> Result<Option<Self>, ProxyUrlError> {
        Self::from_variables(secure, host, |name| std::env::var(name).ok())
    }

    /// The same for variables from elsewhere.
    ///
    /// For a connection with TLS, `https_proxy` counts, for others `http_proxy`, and `all_proxy` where that is not set; each also in
    /// capital letters, except `HTTP_PROXY`, which a CGI program gets from whoever sends it a `Proxy` field.
    /// `no_proxy` lists, with commas or spaces between, what is reached directly: names, with the names below them;
    /// addresses, also with a prefix length (`10.0.0.0/8`); `*` for everything. A variable that is empty is not set.
    ///
    /// # Errors
    ///
    /// The variable that counts names no proxy.
    #[doc(alias = "CURLOPT_NOPROXY")]
    pub fn from_variables(
        secure: bool,
        host: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ProxyUrlError> {
        let first = |names: &[&str]| {
            names.iter().find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
        };
        let names: &[&str] = match secure {
            true => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
            false => &["http_proxy", "all_proxy", "ALL_PROXY"],
        };
        let Some(proxy) = first(names) else {
            return Ok(None);
        };
        let direct = first(&["no_proxy", "NO_PROXY"]).is_some_and(|list| lists(&list, host));
        if direct { Ok(None) } else { proxy.trim().parse().map(Some) }
    }
}

/// Whether `no_proxy` lists `host`.
fn lists(list: &str, host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let address: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).any(|entry| match address {
        _ if entry == "*" => true,
        Some(address) => covers(entry, address),
        None => is_within(host, entry),
    })
}

fn is_within(host: &str, domain: &str) -> bool {
    let domain = domain.trim_start_matches('.').trim_end_matches('.');
    let Some(at) = host.len().checked_sub(domain.len()).filter(|_| !domain.is_empty()) else {
        return false;
    };
    let (above, tail) = host.as_bytes().split_at(at);
    tail.eq_ignore_ascii_case(domain.as_bytes()) && matches!(above, [] | [.., b'.'])
}

fn covers(entry: &str, address: IpAddr) -> bool {
    let (network, length) =
        entry.split_once('/').map_or((entry, None), |(network, length)| (network, Some(length)));
    let network = network.trim_start_matches('[').trim_end_matches(']');
    let (network, address, bits) = match (network.parse(), address) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(address)) => {
            (u128::from(u32::from(network)), u128::from(u32::from(address)), 32)
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(address)) => (u128::from(network), u128::from(address), 128),
        _ => return false,
    };
    let Ok(length) = length.map_or(Ok(bits), str::parse::<u32>) else {
        return false;
    };
    // A shift by all bits is no shift.
    length <= bits && (network ^ address).checked_shr(bits - length).unwrap_or(0) == 0
}
