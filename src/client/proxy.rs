//! Proxies that a client goes through: which, with what credentials, and the negotiation that ends in a tunnel.

mod connect;
mod from_url;
mod socks5;
#[cfg(test)]
mod tests;

pub use from_url::ProxyUrlError;
pub use socks5::SocksReply;

use crate::http::{StatusCode, is_authority};
use connect::Connect;
use socks5::Socks5;
use std::fmt;
use std::net::IpAddr;

/// A proxy that connections go through: by CONNECT (RFC 9110, section 9.3.6), or by SOCKS version 5 (RFC 1928).
///
/// The name of the server is handed to the proxy, which looks it up; only the proxy's own is looked up here. Between this side
/// and the proxy nothing is encrypted but what the tunnel carries, so the credentials can be read on the way.
///
/// ```
/// # use lodger::Proxy;
/// let proxy = Proxy::socks5("gateway.example", 1080).credentials("ann", "secret");
/// let same: Proxy = "socks5://ann:secret@gateway.example".parse()?;
/// assert_eq!(proxy, same);
/// assert!(!format!("{proxy:?}").contains("secret"));
/// # Ok::<(), lodger::ProxyUrlError>(())
/// ```
#[doc(alias("http_proxy", "lws_set_proxy", "lws_set_socks", "CURLOPT_PROXY", "CURLOPT_HTTPPROXYTUNNEL"))]
#[derive(Clone, Eq, PartialEq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Http,
    Socks5,
}

#[derive(Clone, Eq, PartialEq)]
struct Credentials {
    user: String,
    password: String,
}

impl Proxy {
    /// An HTTP proxy, which is asked for a tunnel by CONNECT. `host` is a name or an address, without brackets.
    #[doc(alias("CURLPROXY_HTTP", "CURLOPT_HTTPPROXYTUNNEL"))]
    pub fn http(host: impl Into<String>, port: u16) -> Self {
        Self { kind: Kind::Http, host: host.into(), port, credentials: None }
    }

    /// A SOCKS proxy of version 5. `host` is a name or an address, without brackets.
    #[doc(alias("CURLPROXY_SOCKS5_HOSTNAME", "socks_proxy_address"))]
    pub fn socks5(host: impl Into<String>, port: u16) -> Self {
        Self { kind: Kind::Socks5, host: host.into(), port, credentials: None }
    }

    /// Who asks, for proxies that want to know: the Basic scheme (RFC 7617), or RFC 1929. What the scheme cannot say is an
    /// error when it is to be said: [`ProxyError::Credentials`].
    #[doc(alias("CURLOPT_PROXYUSERPWD", "CURLOPT_PROXYUSERNAME", "CURLOPT_PROXYPASSWORD"))]
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials { user: user.into(), password: password.into() });
        self
    }

    /// The proxy's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The proxy's port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Shows everything but the credentials.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("credentials", &self.credentials.as_ref().map(|_| "hidden"))
            .finish()
    }
}

/// Why a proxy made no tunnel.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProxyError {
    /// The proxy wants credentials, and there are none: 407 (RFC 9110, section 15.5.8), or a SOCKS proxy that takes nobody
    /// without.
    CredentialsNeeded,
    /// The proxy does not accept the credentials: 407, or the status of RFC 1929, section 2.
    CredentialsRefused,
    /// The proxy wants to know who asks by another scheme than Basic; by another method than that of RFC 1929.
    AuthenticationNotSupported,
    /// The credentials cannot be said: a colon in the user's name or a control character (RFC 7617, section 2), or more than
    /// 255 bytes (RFC 1929, section 2).
    Credentials,
    /// The server's name cannot be said: it is empty or too long, or has characters that no name has.
    Target,
    /// The answer to CONNECT: neither 2xx nor 407.
    #[doc(alias("CURLINFO_HTTP_CONNECTCODE", "HS: non-200 proxy response"))]
    Refused(StatusCode),
    /// The answer of a SOCKS proxy: anything but "succeeded" (RFC 1928, section 6).
    #[doc(alias = "CURLE_PROXY")]
    Socks(SocksReply),
    /// What answers is no proxy of this kind.
    NotAProxy,
    /// The head of the answer to CONNECT is malformed.
    Malformed,
    /// The head of the answer to CONNECT has more than 16 KiB, or more than 100 fields.
    TooLong,
}

impl ProxyError {
    /// Whether another try, later, may well succeed: the proxy could not reach the server, or was busy.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(status) => matches!(status.code(), 408 | 429 | 500 | 502 | 503 | 504),
            Self::Socks(_) => true,
            _ => false,
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CredentialsNeeded => f.write_str("the proxy wants credentials: give it some"),
            Self::CredentialsRefused => f.write_str("the proxy does not accept the credentials: check them"),
            Self::AuthenticationNotSupported => {
                f.write_str("the proxy wants authentication of a kind that is not supported")
            }
            Self::Credentials => f.write_str(
                "the credentials cannot be sent: too long, or a colon or control character in them",
            ),
            Self::Target => {
                f.write_str("the server's name cannot be given to a proxy: check how it is spelled")
            }
            Self::Refused(status) => write!(f, "the proxy refused the tunnel: {status}"),
            Self::Socks(reply) => write!(f, "the proxy made no connection: {reply}"),
            Self::NotAProxy => f.write_str("what answers is no proxy of this kind: check address and port"),
            Self::Malformed => f.write_str("the proxy's answer is malformed"),
            Self::TooLong => f.write_str("the proxy's answer is too long"),
        }
    }
}

impl std::error::Error for ProxyError {}

/// What is said to a proxy, and heard from it, until there is a tunnel.
pub(crate) enum Negotiation {
    Connect(Connect),
    Socks5(Socks5),
}

/// How far the negotiation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// The proxy has not said everything: come again with what was not used, and more.
    More,
    /// There is a tunnel. What was not used has come through it.
    Done,
}

impl Negotiation {
    /// Begins it for a tunnel to `host`, a name or an address, at `port`: what is to be sent first is appended to `out`.
    pub(crate) fn begin(proxy: &Proxy, host: &str, port: u16, out: &mut Vec<u8>) -> Result<Self, ProxyError> {
        let target = Target::new(host)?;
        let credentials = proxy.credentials.as_ref();
        Ok(match proxy.kind {
            Kind::Http => Self::Connect(Connect::begin(credentials, &target, port, out)?),
            Kind::Socks5 => Self::Socks5(Socks5::begin(credentials, target, port, out)?),
        })
    }

    /// Takes what the proxy sent, from the first byte that was not used before. Returns how much was used; what is to be sent
    /// now, be there more to come or not, is appended to `out`. An error is the end of the connection.
    pub(crate) fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Progress), ProxyError> {
        match self {
            Self::Connect(connect) => connect.receive(input),
            Self::Socks5(socks5) => socks5.receive(input, out),
        }
    }
}

/// Where the tunnel is to lead.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Target {
    Ip(IpAddr),
    Name(String),
}

impl Target {
    /// A length that SOCKS can say (RFC 1928, section 5), and nothing that would be taken for the end of a line.
    fn new(host: &str) -> Result<Self, ProxyError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Ip(address));
        }
        let is_name = host.len() <= 255 && !host.contains(':') && is_authority(host);
        if is_name { Ok(Self::Name(host.to_owned())) } else { Err(ProxyError::Target) }
    }
}
