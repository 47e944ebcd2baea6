//! Just enough of HTTP/1.1 and WebSocket to stand on the other side of a test, written apart from the code under test.

use std::collections::VecDeque;

/// One WebSocket frame (RFC 6455, section 5.2), masked when an endpoint sends it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Whether it is the last of its message.
    pub fin: bool,
    /// The three reserved bits, RSV1 being 4.
    pub rsv: u8,
    /// What it is: 0 goes on, 1 is text, 2 is binary, 8 to 10 are Close, Ping and Pong.
    pub opcode: u8,
    /// The payload, not masked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole message or control frame.
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self { fin: true, rsv: 0, opcode, payload: payload.as_ref().to_vec() }
    }

    /// A text message.
    pub fn text(text: &str) -> Self {
        Self::new(1, text)
    }

    /// A binary message.
    pub fn binary(payload: impl AsRef<[u8]>) -> Self {
        Self::new(2, payload)
    }

    /// A Close.
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(8, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    /// A Ping.
    pub fn ping(payload: impl AsRef<[u8]>) -> Self {
        Self::new(9, payload)
    }

    /// A Pong.
    pub fn pong(payload: impl AsRef<[u8]>) -> Self {
        Self::new(10, payload)
    }

    /// The same frame, with more of its message to follow.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    /// The code of a Close that has one.
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk::<2>().filter(|_| self.opcode == 8)?;
        Some(u16::from_be_bytes(*code))
    }

    /// The bytes of the frame as a client sends it.
    pub fn masked(&self, key: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        match self.payload.len() {
            length @ ..126 => bytes.push(0x80 | length as u8),
            length @ ..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(key);
        bytes.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// Takes a server's frame from the front of `input`, when all of it is there.
    pub(super) fn take(input: &mut VecDeque<u8>) -> Option<Self> {
        let bytes = &*input.make_contiguous();
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        assert!(second & 0x80 == 0, "the server masked a frame: {bytes:02x?}");
        let (length, header) = match second {
            126 => (u16::from_be_bytes(*rest.first_chunk()?).into(), 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
            length => (length.into(), 2),
        };
        let end = header + usize::try_from(length).ok()?;
        let payload = bytes.get(header..end)?.to_vec();
        input.drain(..end);
        Some(Self { fin: first & 0x80 != 0, rsv: first >> 4 & 7, opcode: first & 0xf, payload })
    }
}

/// A response to a request that an endpoint sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names and values, in the order and spelling in which they came.
    pub fields: Vec<(String, String)>,
    /// The content, without any transfer coding.
    pub content: Vec<u8>,
}

impl Answer {
    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Takes a head from the front of `input`, when all of it is there.
    pub(super) fn take_head(input: &mut VecDeque<u8>) -> Option<Self> {
        let (head, length) = head(input.make_contiguous())?;
        input.drain(..length);
        Some(head)
    }

    /// Takes a response with its content, when all of it is there. One of unknown length ends `at_end`.
    pub(super) fn take(input: &mut VecDeque<u8>, at_end: bool) -> Option<Self> {
        let bytes = &*input.make_contiguous();
        let (mut answer, head) = head(bytes)?;
        let rest = &bytes[head..];
        let length =
            answer.field("content-length").map(|length| length.parse().expect("a length is a number"));
        let chunked = answer.field("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let (content, used) = match (answer.status, length) {
            (100..200 | 204 | 304, _) => (Vec::new(), 0),
            (_, Some(length)) => (rest.get(..length)?.to_vec(), length),
            (_, None) if chunked => chunks(rest)?,
            (_, None) if at_end => (rest.to_vec(), rest.len()),
            (_, None) => return None,
        };
        answer.content = content;
        input.drain(..head + used);
        Some(answer)
    }
}

fn head(bytes: &[u8]) -> Option<(Answer, usize)> {
    let length = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..length - 4]).expect("a response head is ASCII");
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a field line: {line:?}"));
        (name.to_owned(), value.trim().to_owned())
    };
    Some((Answer { status, fields: lines.map(field).collect(), content: Vec::new() }, length))
}

/// The content in chunks (RFC 9112, section 7.1), and how many bytes it took. Trailer fields are skipped.
fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |from: usize| {
        let length = bytes.get(from..)?.windows(2).position(|two| two == b"\r\n")?;
        Some((&bytes[from..from + length], from + length + 2))
    };
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let (size, data) = line(at)?;
        let size = std::str::from_utf8(size).ok().and_then(|size| size.split(';').next());
        let size = size
            .and_then(|size| usize::from_str_radix(size.trim(), 16).ok())
            .expect("a chunk begins with its size");
        if size == 0 {
            at = data;
            break;
        }
        content.extend(bytes.get(data..data + size)?);
        at = data + size + 2;
        assert_eq!(bytes.get(at - 2..at)?, b"\r\n", "a chunk ends with a line end");
    }
    loop {
        let (trailer, next) = line(at)?;
        at = next;
        if trailer.is_empty() {
            return Some((content, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_of_the_specification_are_read_and_written() {
        // RFC 6455, section 5.7.
        let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(Frame::text("Hello").masked([0x37, 0xfa, 0x21, 0x3d]), masked);
        let mut input: VecDeque<u8> = b"\x01\x03Hel\x80\x02lo\x8a\x05Hello".iter().copied().collect();
        assert_eq!(Frame::take(&mut input), Some(Frame::text("Hel").unfinished()));
        assert_eq!(Frame::take(&mut input), Some(Frame::new(0, "lo")));
        assert_eq!(Frame::take(&mut input), Some(Frame::pong("Hello")));
        assert!(input.is_empty());
    }

    #[test]
    fn a_frame_of_any_length_waits_for_its_last_byte() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let frame = Frame::binary(vec![7; length]);
            let mut bytes = frame.masked([0; 4]);
            bytes[1] &= 0x7f;
            let mask = bytes.len() - length - 4;
            bytes.drain(mask..mask + 4);
            let last = bytes.pop().expect("a frame is not empty");
            let mut input: VecDeque<u8> = bytes.into();
            assert_eq!(Frame::take(&mut input), None);
            input.push_back(last);
            assert_eq!(Frame::take(&mut input), Some(frame));
        }
    }

    #[test]
    fn an_answer_ends_where_its_framing_says() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nTransfer-Encoding: \
            chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nT: v\r\n\r\nHTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest";
        let mut input: VecDeque<u8> = bytes.iter().copied().collect();
        assert_eq!(Answer::take(&mut input, false).unwrap().content, b"hi");
        assert_eq!(Answer::take(&mut input, false).unwrap().content, b"abcd");
        assert_eq!(Answer::take(&mut input, false).unwrap().status, 204);
        assert_eq!(Answer::take(&mut input, false), None);
        assert_eq!(Answer::take(&mut input, true).unwrap().content, b"rest");
    }
}
