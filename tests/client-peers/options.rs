//! How connections and requests are to be made: the options of a line.
//!
//! - of any connection: `timeout=MILLISECONDS`, `redirects=N`, `field=NAME: VALUE`, `proxy=URL`, `receive-buffer=BYTES`
//! - of TLS: `roots=FILE`, `version=1.2|1.3`, `self-signed`, `any-name`
//! - of a WebSocket: `subprotocol=NAME`, `origin=ORIGIN`, `deflate=SERVER-TAKES-OVER,CLIENT-TAKES-OVER,SERVER-BITS,CLIENT-BITS`
//! - of a request: `target=TARGET`, `header=NAME: VALUE`, `content=BYTES`, `stream=BYTES` and `chunked=BYTES` for content in
//!   pieces, `expect`, `pause-at=BYTES`, `end` for a connection that ends after the response

use lodger::http::ClientRequest;
use lodger::tls::{Client, Version};
use lodger::ws::deflate::Deflate;
use lodger::{Connect, Limits};
use std::error::Error;
use std::time::Duration;

/// The name of an option, and its value.
fn split(option: &str) -> (&str, &str) {
    option.split_once('=').unwrap_or((option, ""))
}

pub(crate) fn connect(url: &str, options: &[&str]) -> Result<Connect, Box<dyn Error>> {
    let mut connect = Connect::to(url).timeout(Duration::from_secs(20)).limits(limits());
    for option in options {
        let (name, value) = split(option);
        connect = match name {
            "timeout" => connect.timeout(Duration::from_millis(value.parse()?)),
            "redirects" => connect.redirects(value.parse()?),
            "field" => {
                let (name, value) = value.split_once(": ").ok_or("a field is NAME: VALUE")?;
                connect.field(name, value)
            }
            "proxy" => connect.proxy(value.parse()?),
            "receive-buffer" => connect.buffer_sizes(None, Some(value.parse()?)),
            "subprotocol" => connect.subprotocol(value),
            "origin" => connect.origin(value),
            "deflate" => connect.deflate(deflate(value)?),
            _ => connect,
        };
    }
    match tls(options)? {
        Some(client) => Ok(connect.tls(client)),
        None => Ok(connect),
    }
}

/// Echoes of a megabyte and a little more are sent whole, without waiting for one another.
fn limits() -> Limits {
    Limits { send_max: 16 * 1024 * 1024, ..Limits::default() }
}

fn tls(options: &[&str]) -> Result<Option<Client>, Box<dyn Error>> {
    let (mut builder, mut asked) = (Client::builder(), false);
    for option in options {
        let before = asked;
        asked = true;
        builder = match split(option) {
            ("roots", file) => builder.roots_file(file),
            ("version", "1.2") => builder.versions(&[Version::Tls12]),
            ("version", _) => builder.versions(&[Version::Tls13]),
            ("self-signed", _) => builder.dangerous().accept_self_signed(),
            ("any-name", _) => builder.dangerous().accept_any_name(),
            _ => {
                asked = before;
                builder
            }
        };
    }
    Ok(if asked { Some(builder.build()?) } else { None })
}

fn deflate(value: &str) -> Result<Deflate, Box<dyn Error>> {
    let mut deflate = Deflate::default();
    let parts: Vec<&str> = value.split(',').collect();
    let [server, client, server_bits, client_bits] = parts[..] else { return Err("four parts".into()) };
    deflate.server_no_context_takeover = !server.parse::<bool>()?;
    deflate.client_no_context_takeover = !client.parse::<bool>()?;
    deflate.server_max_window_bits = server_bits.parse()?;
    deflate.client_max_window_bits = client_bits.parse()?;
    Ok(deflate)
}

/// What goes with a request beside what it says.
#[derive(Default)]
pub(crate) struct Plan {
    /// Content that is sent in pieces.
    pub(crate) pieces: Option<usize>,
    /// After so many bytes of the response nothing more is read for a while.
    pub(crate) pause_at: Option<usize>,
}

pub(crate) fn request(method: &str, options: &[&str]) -> Result<(ClientRequest, Plan), Box<dyn Error>> {
    let mut request = ClientRequest::new(method);
    let mut plan = Plan::default();
    for option in options {
        let (name, value) = split(option);
        request = match name {
            "target" => request.target(value),
            "header" => {
                let (name, value) = value.split_once(": ").ok_or("a header is NAME: VALUE")?;
                request.field(name, value)
            }
            "content" => request.content(content(value.parse()?)),
            "stream" | "chunked" => {
                let length: usize = value.parse()?;
                plan.pieces = Some(length);
                request.content_stream(Some(length as u64).filter(|_| name == "stream"))
            }
            "expect" => request.expect_continue(Duration::from_secs(20)),
            "end" => request.close(),
            "pause-at" => {
                plan.pause_at = Some(value.parse()?);
                request
            }
            _ => request,
        };
    }
    Ok((request, plan))
}

/// Bytes that any loss or change of order would alter.
pub(crate) fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 256 * 7) as u8).collect()
}

/// Text of so many bytes, not all of it ASCII, that compresses.
pub(crate) fn text(length: usize) -> String {
    let words = "what was said is said again: grüß Gott, 世界, \u{1f98a}. ";
    let mut text = words.repeat(length / words.len() + 1);
    let end = (0..=length).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    text.extend(std::iter::repeat_n('.', length - end));
    text
}

/// What a long content is known by.
pub(crate) fn digest(content: &[u8]) -> String {
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(content);
    sha1.digest().to_string()
}
