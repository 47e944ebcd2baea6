//! What a server has to answer: counted by lengths, compared with what was expected the first time on each connection.

use crate::plan::frame;
use std::io;

/// One answer, as it should be.
pub(crate) enum Expected {
    /// A message, in one frame or in several.
    Message { opcode: u8, whole: Vec<u8>, head: usize },
    /// These bytes.
    Bytes(Vec<u8>),
    /// A response with this content.
    Page(Vec<u8>),
}

/// How far the answers of one connection have come.
#[derive(Default)]
pub(crate) struct Incoming {
    /// The first answer was compared with what it should be.
    checked: bool,
    /// The opening handshake is done.
    open: bool,
    /// How much of the current answer is there: payload, bytes, or bytes of the response.
    got: usize,
    /// What is left of the current frame's payload.
    left: usize,
    /// The current frame is the last of its message; it is none that carries data.
    last: bool,
    control: bool,
    /// A frame's header, or the first response, as long as it is incomplete.
    partial: Vec<u8>,
    /// The length of every response, once it is known.
    response: usize,
}

impl Incoming {
    pub(crate) fn opened(&mut self) {
        self.open = true;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }
}

impl Expected {
    pub(crate) fn message(opcode: u8, payload: Vec<u8>) -> Self {
        let whole = frame(opcode, &payload, None);
        let head = whole.len() - payload.len();
        Self::Message { opcode, whole, head }
    }

    /// Takes what came, and says how many answers became complete.
    pub(crate) fn take(&self, incoming: &mut Incoming, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Message { opcode, whole, head } => frames(*opcode, whole, *head, incoming, bytes),
            Self::Bytes(payload) => echoed(payload, incoming, bytes),
            Self::Page(content) => responses(content, incoming, bytes),
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("wrong answer: {what}"))
}

fn frames(
    opcode: u8,
    whole: &[u8],
    head: usize,
    incoming: &mut Incoming,
    mut bytes: &[u8],
) -> io::Result<usize> {
    let mut answers = 0;
    while !bytes.is_empty() {
        if incoming.checked
            && incoming.got == 0
            && incoming.left == 0
            && incoming.partial.is_empty()
            && bytes.len() >= whole.len()
            && bytes[..head] == whole[..head]
        {
            bytes = &bytes[whole.len()..];
            answers += 1;
            continue;
        }
        if incoming.left == 0 {
            let Some(rest) = frame_header(opcode, incoming, bytes)? else { return Ok(answers) };
            bytes = rest;
        }
        let payload = incoming.left.min(bytes.len());
        if !incoming.control {
            let expected = whole[head..].get(incoming.got..incoming.got + payload);
            if expected.is_none_or(|expected| !incoming.checked && expected != &bytes[..payload]) {
                return Err(wrong("another message"));
            }
            incoming.got += payload;
        }
        incoming.left -= payload;
        bytes = &bytes[payload..];
        if incoming.left == 0 && incoming.last && !incoming.control {
            if incoming.got != whole.len() - head {
                return Err(wrong("a message of another length"));
            }
            incoming.checked = true;
            incoming.got = 0;
            answers += 1;
        }
    }
    Ok(answers)
}

/// Takes the header of a frame from the front; `None` when it is incomplete.
fn frame_header<'a>(opcode: u8, incoming: &mut Incoming, bytes: &'a [u8]) -> io::Result<Option<&'a [u8]>> {
    let before = incoming.partial.len();
    incoming.partial.extend_from_slice(&bytes[..bytes.len().min(10)]);
    let header = &incoming.partial;
    let taken = match header.get(1) {
        Some(0..126) => 2,
        Some(126) => 4,
        Some(127) => 10,
        Some(_) => return Err(wrong("a masked frame")),
        None => return Ok(None),
    };
    if header.len() < taken {
        return Ok(None);
    }
    incoming.left = match taken {
        2 => header[1].into(),
        4 => u16::from_be_bytes([header[2], header[3]]).into(),
        _ => u64::from_be_bytes(header[2..10].try_into().expect("eight bytes")) as usize,
    };
    incoming.last = header[0] & 0x80 != 0;
    incoming.control = match header[0] & 0x7f {
        9 | 10 => true,
        8 => return Err(wrong("a Close")),
        0 if incoming.got > 0 => false,
        other if other == opcode && incoming.got == 0 => false,
        _ => return Err(wrong("another opcode")),
    };
    incoming.partial.clear();
    Ok(Some(&bytes[taken - before..]))
}

fn echoed(payload: &[u8], incoming: &mut Incoming, bytes: &[u8]) -> io::Result<usize> {
    if !incoming.checked {
        let first = &payload[incoming.got..];
        let length = first.len().min(bytes.len());
        if first[..length] != bytes[..length] {
            return Err(wrong("other bytes"));
        }
        incoming.checked = length == first.len();
    }
    incoming.got += bytes.len();
    let answers = incoming.got / payload.len();
    incoming.got %= payload.len();
    Ok(answers)
}

const STATUS: &[u8] = b"HTTP/1.1 200";

fn responses(content: &[u8], incoming: &mut Incoming, mut bytes: &[u8]) -> io::Result<usize> {
    let mut answers = 0;
    if !incoming.checked {
        let before = incoming.partial.len();
        incoming.partial.extend_from_slice(bytes);
        let Some(length) = first_response(content, &incoming.partial)? else { return Ok(0) };
        incoming.checked = true;
        incoming.response = length;
        incoming.partial = Vec::new();
        bytes = &bytes[length - before..];
        answers = 1;
    }
    while !bytes.is_empty() {
        let length = (incoming.response - incoming.got).min(bytes.len());
        if incoming.got == 0 && bytes.len() >= STATUS.len() && !bytes.starts_with(STATUS) {
            return Err(wrong("another status, or a response of another length"));
        }
        incoming.got += length;
        bytes = &bytes[length..];
        if incoming.got == incoming.response {
            incoming.got = 0;
            answers += 1;
        }
    }
    Ok(answers)
}

/// How long the first response is, once it is complete and right.
fn first_response(content: &[u8], bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = bytes.split_at(end + 4);
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    if !head.starts_with(STATUS)
        || length.and_then(|length| length.trim().parse().ok()) != Some(content.len())
    {
        return Err(wrong(text.lines().next().unwrap_or_default()));
    }
    match body.get(..content.len()) {
        None => Ok(None),
        Some(body) if body == content => Ok(Some(head.len() + content.len())),
        Some(_) => Err(wrong("another page")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of every size.
    fn in_pieces(expected: &Expected, bytes: &[u8]) -> Vec<io::Result<usize>> {
        let all = |size| {
            let mut incoming = Incoming::default();
            bytes.chunks(size).map(|piece| expected.take(&mut incoming, piece)).sum()
        };
        (1..=bytes.len()).map(all).collect()
    }

    fn each(results: Vec<io::Result<usize>>, answers: usize) {
        for result in results {
            assert_eq!(result.unwrap(), answers);
        }
    }

    #[test]
    fn answers_are_counted_however_they_are_cut() {
        let payload = vec![b'x'; 200];
        let expected = Expected::message(2, payload.clone());
        each(in_pieces(&expected, &frame(2, &payload, None).repeat(3)), 3);
        each(in_pieces(&Expected::Bytes(payload.clone()), &payload.repeat(3)), 3);
        let page = [b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n", &payload[..]].concat();
        each(in_pieces(&Expected::Page(payload), &page.repeat(3)), 3);
    }

    #[test]
    fn message_in_fragments_with_a_ping_between_is_one_answer() {
        let expected = Expected::message(1, b"Hello".to_vec());
        each(in_pieces(&expected, b"\x01\x03Hel\x89\x02ab\x80\x02lo\x81\x05Hello"), 2);
    }

    #[test]
    fn what_is_wrong_is_noticed() {
        let expected = Expected::message(2, b"Hello".to_vec());
        for bad in [
            &b"\x82\x05Hallo"[..],
            b"\x82\x04Hell",
            b"\x82\x06Hello!",
            b"\x81\x05Hello",
            b"\x82\x85....",
            b"\x88\x00",
        ] {
            assert!(in_pieces(&expected, bad).iter().all(Result::is_err), "{bad:?}");
        }
        assert!(in_pieces(&Expected::Bytes(b"Hello".to_vec()), b"Hallo").iter().all(Result::is_err));
        let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nHello";
        assert!(in_pieces(&Expected::Page(b"Hello".to_vec()), missing).iter().all(Result::is_err));
    }
}
