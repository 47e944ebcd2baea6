//! SOCKS version 5 (RFC 1928), with a user's name and password (RFC 1929).

use super::{Credentials, Progress, ProxyError, Target};
use std::fmt;
use std::net::IpAddr;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;

/// What a SOCKS proxy says instead of "succeeded" (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[doc(alias = "CURLINFO_PROXY_ERROR")]
pub enum SocksReply {
    /// 1: the proxy failed in general.
    GeneralFailure,
    /// 2: its rules do not allow the connection.
    NotAllowed,
    /// 3: the server's network cannot be reached.
    NetworkUnreachable,
    /// 4: the server cannot be reached, or its name was not found.
    HostUnreachable,
    /// 5: the server refused the connection.
    ConnectionRefused,
    /// 6: the time to live expired on the way to the server.
    TtlExpired,
    /// 7: the proxy makes no connections.
    CommandNotSupported,
    /// 8: the proxy does not know this type of address: a name, or IPv6.
    AddressTypeNotSupported,
    /// Another reply.
    Unassigned(u8),
}

impl SocksReply {
    /// `None` for "succeeded".
    fn new(reply: u8) -> Option<Self> {
        Some(match reply {
            0 => return None,
            1 => Self::GeneralFailure,
            2 => Self::NotAllowed,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::TtlExpired,
            7 => Self::CommandNotSupported,
            8 => Self::AddressTypeNotSupported,
            9.. => Self::Unassigned(reply),
        })
    }
}

impl fmt::Display for SocksReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GeneralFailure => f.write_str("general failure"),
            Self::NotAllowed => f.write_str("not allowed by its rules"),
            Self::NetworkUnreachable => f.write_str("network unreachable"),
            Self::HostUnreachable => f.write_str("host unreachable"),
            Self::ConnectionRefused => f.write_str("connection refused"),
            Self::TtlExpired => f.write_str("time to live expired"),
            Self::CommandNotSupported => f.write_str("command not supported"),
            Self::AddressTypeNotSupported => f.write_str("address type not supported"),
            Self::Unassigned(reply) => write!(f, "reply {reply}"),
        }
    }
}

/// ```text
///            no authentication
///   Method ─────────────────────▶ Reply ──▶ done
///     │ user and password           ▲
///     └──────────▶ Status ──────────┘
/// ```
pub(crate) struct Socks5 {
    state: State,
    /// What is sent when the method is user and password (RFC 1929, section 2).
    credentials: Option<Vec<u8>>,
    /// What is sent when the proxy knows enough of us.
    request: Vec<u8>,
}

/// What the proxy says next.
#[derive(Clone, Copy)]
enum State {
    /// Which method it takes (RFC 1928, section 3).
    Method,
    /// Whether it accepts the credentials (RFC 1929, section 2).
    Status,
    /// Whether it made the connection (RFC 1928, section 6).
    Reply,
}

impl Socks5 {
    pub(super) fn begin(
        credentials: Option<&Credentials>,
        target: Target,
        port: u16,
        out: &mut Vec<u8>,
    ) -> Result<Self, ProxyError> {
        let credentials = credentials.map(encode_credentials).transpose()?;
        match credentials {
            Some(_) => out.extend([VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD]),
            None => out.extend([VERSION, 1, NO_AUTHENTICATION]),
        }
        Ok(Self { state: State::Method, credentials, request: encode_request(&target, port)? })
    }

    pub(super) fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Progress), ProxyError> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            self.state = match self.state {
                State::Method => {
                    // Said at once, since one that speaks something else may wait for us.
                    if rest.first().is_some_and(|version| *version != VERSION) {
                        return Err(ProxyError::NotAProxy);
                    }
                    let Some(&[_, method]) = rest.first_chunk() else {
                        return Ok((used, Progress::More));
                    };
                    used += 2;
                    self.chosen(method, out)?
                }
                State::Status => {
                    // Some say version 5 here, so only the status counts.
                    let Some(&[_, status]) = rest.first_chunk() else {
                        return Ok((used, Progress::More));
                    };
                    if status != 0 {
                        return Err(ProxyError::CredentialsRefused);
                    }
                    used += 2;
                    out.extend_from_slice(&self.request);
                    State::Reply
                }
                State::Reply => {
                    return match reply_length(rest)? {
                        Some(length) if rest.len() >= length => Ok((used + length, Progress::Done)),
                        Some(_) | None => Ok((used, Progress::More)),
                    };
                }
            };
        }
    }

    fn chosen(&self, method: u8, out: &mut Vec<u8>) -> Result<State, ProxyError> {
        match (method, &self.credentials) {
            (NO_AUTHENTICATION, _) => {
                out.extend_from_slice(&self.request);
                Ok(State::Reply)
            }
            (USER_AND_PASSWORD, Some(credentials)) => {
                out.extend_from_slice(credentials);
                Ok(State::Status)
            }
            (NO_ACCEPTABLE_METHOD | USER_AND_PASSWORD, None) => Err(ProxyError::CredentialsNeeded),
            _ => Err(ProxyError::AuthenticationNotSupported),
        }
    }
}

/// How long the reply at the front of `input` is, as soon as that can be told. One that is not "succeeded" is an error
/// however short: what a proxy sends behind its code is of no use, and some send nothing.
fn reply_length(input: &[u8]) -> Result<Option<usize>, ProxyError> {
    if input.first().is_some_and(|version| *version != VERSION) {
        return Err(ProxyError::NotAProxy);
    }
    if let Some(reply) = input.get(1).and_then(|reply| SocksReply::new(*reply)) {
        return Err(ProxyError::Socks(reply));
    }
    let address = match (input.get(3), input.get(4)) {
        (Some(1), _) => 4,
        (Some(4), _) => 16,
        (Some(3), Some(length)) => 1 + usize::from(*length),
        (Some(3) | None, _) => return Ok(None),
        (Some(_), _) => return Err(ProxyError::NotAProxy),
    };
    Ok(Some(4 + address + 2))
}

fn encode_credentials(credentials: &Credentials) -> Result<Vec<u8>, ProxyError> {
    let mut message = vec![1];
    for text in [&credentials.user, &credentials.password] {
        if text.is_empty() {
            return Err(ProxyError::Credentials);
        }
        message.push(text.len().try_into().map_err(|_| ProxyError::Credentials)?);
        message.extend_from_slice(text.as_bytes());
    }
    Ok(message)
}

fn encode_request(target: &Target, port: u16) -> Result<Vec<u8>, ProxyError> {
    const CONNECT: u8 = 1;
    let mut request = vec![VERSION, CONNECT, 0];
    match target {
        Target::Ip(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Target::Ip(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Target::Name(name) => {
            request.extend([3, name.len().try_into().map_err(|_| ProxyError::Target)?]);
            request.extend_from_slice(name.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}
