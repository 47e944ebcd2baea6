//! CONNECT (RFC 9110, section 9.3.6): a request whose answer ends in a tunnel.

use super::{Credentials, Progress, ProxyError, Target};
use crate::http::{StatusCode, elements};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Header};
use std::net::IpAddr;

/// The most that all heads of the answer have together.
pub(super) const HEADS_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 100;

pub(crate) struct Connect {
    has_credentials: bool,
    /// How much of the head that comes next was looked at, and found without an end.
    seen: usize,
    /// What is left of [`HEADS_MAX`].
    room: usize,
}

impl Connect {
    pub(super) fn begin(
        credentials: Option<&Credentials>,
        target: &Target,
        port: u16,
        out: &mut Vec<u8>,
    ) -> Result<Self, ProxyError> {
        let authority = match target {
            Target::Ip(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            Target::Ip(IpAddr::V4(address)) => format!("{address}:{port}"),
            Target::Name(name) => format!("{name}:{port}"),
        };
        let authorization = match credentials {
            Some(credentials) => format!("Proxy-Authorization: Basic {}\r\n", basic(credentials)?),
            None => String::new(),
        };
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n");
        out.extend_from_slice(head.as_bytes());
        Ok(Self { has_credentials: credentials.is_some(), seen: 0, room: HEADS_MAX })
    }

    pub(super) fn receive(&mut self, input: &[u8]) -> Result<(usize, Progress), ProxyError> {
        let mut used = 0;
        while let Some(length) = self.find_end(&input[used..])? {
            let head = &input[used..used + length];
            used += length;
            self.room -= length;
            if self.read(head)? == Progress::Done {
                return Ok((used, Progress::Done));
            }
        }
        Ok((used, Progress::More))
    }

    /// How long the head at the front of `input` is, if its end is there.
    fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, ProxyError> {
        const START: &[u8] = b"HTTP/1.";
        let window = &input[..input.len().min(self.room)];
        let start = window.len().min(START.len());
        if window[..start] != START[..start] {
            return Err(ProxyError::NotAProxy);
        }
        let from = self.seen;
        for at in memchr::memchr_iter(b'\n', &window[from..]).map(|at| from + at) {
            let line_end = window[..at].strip_suffix(b"\r").unwrap_or(&window[..at]);
            if line_end.ends_with(b"\n") {
                self.seen = 0;
                return Ok(Some(at + 1));
            }
        }
        self.seen = window.len();
        if input.len() >= self.room { Err(ProxyError::TooLong) } else { Ok(None) }
    }

    fn read(&self, head: &[u8]) -> Result<Progress, ProxyError> {
        let mut fields = [EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(head) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(ProxyError::TooLong),
            Ok(_) | Err(_) => return Err(ProxyError::Malformed),
        }
        let status = response.code.and_then(StatusCode::new).ok_or(ProxyError::Malformed)?;
        match status {
            // A length or a coding means nothing here (RFC 9110, section 9.3.6).
            _ if status.is_success() => Ok(Progress::Done),
            // To another protocol, which nobody has asked for.
            StatusCode::SWITCHING_PROTOCOLS => Err(ProxyError::Refused(status)),
            _ if status.is_informational() => Ok(Progress::More),
            // tinyproxy answers 401 to credentials that it does not accept.
            StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED => {
                Err(self.unauthorized(response.headers))
            }
            _ => Err(ProxyError::Refused(status)),
        }
    }

    fn unauthorized(&self, fields: &[Header<'_>]) -> ProxyError {
        let is_basic = |challenge: &[u8]| {
            let scheme = challenge.split(|byte| *byte == b' ').next().unwrap_or_default();
            scheme.eq_ignore_ascii_case(b"Basic")
        };
        let mut challenges =
            fields.iter().filter(|field| field.name.eq_ignore_ascii_case("Proxy-Authenticate")).peekable();
        if challenges.peek().is_some() && !challenges.any(|field| elements(field.value).any(is_basic)) {
            ProxyError::AuthenticationNotSupported
        } else if self.has_credentials {
            ProxyError::CredentialsRefused
        } else {
            ProxyError::CredentialsNeeded
        }
    }
}

/// Credentials of the Basic scheme (RFC 7617, section 2).
fn basic(credentials: &Credentials) -> Result<String, ProxyError> {
    let Credentials { user, password } = credentials;
    if user.contains(':') || user.chars().chain(password.chars()).any(char::is_control) {
        return Err(ProxyError::Credentials);
    }
    Ok(STANDARD.encode(format!("{user}:{password}")))
}
