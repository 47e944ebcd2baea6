//! The peers of the simulated town: each acts by a script that its seed writes, and knows what it must get.

use super::dice::Dice;
use super::handlers::{FILE, content};
use super::town::port;
use lodger::sim::{Answer, Endpoint, Frame};
use std::collections::VecDeque;

pub(crate) struct Peer {
    pub(crate) port: u16,
    /// `None` once it has closed.
    pub(crate) endpoint: Option<Endpoint>,
    dice: Dice,
    pub(crate) role: Role,
    /// How many more times it acts.
    acts: usize,
    /// Behaves, so that everything must arrive.
    kind: Temper,
    /// Reads again after so many acts.
    stopped: usize,
    /// Bytes of its next request that it has not sent yet.
    unsaid: VecDeque<u8>,
    pub(crate) did: Did,
    /// It waits for the other side's end, to close itself.
    pub(crate) at_end: bool,
    pub(crate) was_reset: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Temper {
    Friendly,
    Rude,
}

/// What a peer did that explains an end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Did {
    pub(crate) close: bool,
    pub(crate) finish: bool,
    /// Reset, or closed at once.
    pub(crate) vanish: bool,
    pub(crate) violate: bool,
    pub(crate) too_large: bool,
    /// It was not read in time, or was slow to speak.
    pub(crate) slow: bool,
}

pub(crate) enum Role {
    Talk(Talk),
    Web(Web),
    Bytes(Bytes),
}

#[derive(Default)]
pub(crate) struct Talk {
    pub(crate) upgraded: bool,
    /// Requests that precede the upgrade, and their answers.
    before: usize,
    pub(crate) messages: Vec<(u8, Vec<u8>)>,
    pings: Vec<Vec<u8>>,
    answered: usize,
    pub(crate) frames: Vec<Frame>,
    pub(crate) close: Option<Frame>,
    /// What has come of a frame that is not complete.
    pub(crate) partial: usize,
    codes: Vec<u16>,
    limit: usize,
    answers_closes: bool,
    streamed: bool,
}

#[derive(Default)]
pub(crate) struct Web {
    pub(crate) expected: VecDeque<Expected>,
    next: usize,
    limit: usize,
}

/// An answer that is to come.
pub(crate) struct Expected {
    head_only: bool,
    statuses: Vec<u16>,
    content: Option<Vec<u8>>,
    last: bool,
}

#[derive(Default)]
pub(crate) struct Bytes {
    pub(crate) said: Vec<u8>,
    pub(crate) heard: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(endpoint: Endpoint, mut dice: Dice, role: Role, friendly: bool) -> Self {
        Self {
            port: port(&endpoint.address()),
            endpoint: Some(endpoint),
            acts: 1 + dice.below(14),
            dice,
            role,
            kind: if friendly { Temper::Friendly } else { Temper::Rude },
            stopped: 0,
            unsaid: VecDeque::new(),
            did: Did::default(),
            at_end: false,
            was_reset: false,
        }
    }

    /// One that will talk WebSocket at a path; `subprotocol` chooses how it is treated.
    pub(crate) fn talker(
        endpoint: Endpoint,
        mut dice: Dice,
        subprotocol: &str,
        limit: usize,
        friendly: bool,
    ) -> Self {
        let talk = Talk {
            limit,
            answers_closes: friendly || dice.chance(0.8),
            before: if dice.chance(0.2) { 1 + dice.below(3) } else { 0 },
            streamed: subprotocol == "streamed",
            ..Talk::default()
        };
        let before = talk.before;
        let mut peer = Self::new(endpoint, dice, Role::Talk(talk), friendly);
        for _ in 0..before {
            peer.say(b"GET /text?11 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        let path = if peer.dice.chance(0.2) { "/later" } else { "/" };
        let fields = if subprotocol.is_empty() {
            String::new()
        } else {
            format!("Sec-WebSocket-Protocol: {subprotocol}\r\n")
        };
        peer.say(
            format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
            )
            .as_bytes(),
        );
        peer
    }

    /// One whose connection is a WebSocket from the beginning.
    pub(crate) fn adopted_talker(
        endpoint: Endpoint,
        dice: Dice,
        streamed: bool,
        limit: usize,
        friendly: bool,
    ) -> Self {
        let talk = Talk { limit, answers_closes: true, upgraded: true, streamed, ..Talk::default() };
        Self::new(endpoint, dice, Role::Talk(talk), friendly)
    }

    /// One that asks for pages.
    pub(crate) fn visitor(endpoint: Endpoint, dice: Dice, limit: usize, friendly: bool) -> Self {
        Self::new(endpoint, dice, Role::Web(Web { limit, ..Web::default() }), friendly)
    }

    /// One that sends bytes and reads them again; `said` was sent before.
    pub(crate) fn sender(endpoint: Endpoint, dice: Dice, said: Vec<u8>, friendly: bool) -> Self {
        Self::new(endpoint, dice, Role::Bytes(Bytes { said, heard: Vec::new() }), friendly)
    }

    pub(crate) fn is_friendly(&self) -> bool {
        let Did { finish, vanish, violate, too_large, slow, .. } = self.did;
        !(finish || vanish || violate || too_large || slow)
    }

    /// Whether it has read everything that came, to the end or to now.
    pub(crate) fn stopped_nowhere(&self) -> bool {
        self.stopped == 0
    }

    /// Sends bytes at once, or in parts that its acts send.
    fn say(&mut self, bytes: &[u8]) {
        let slow = self.kind == Temper::Rude && self.dice.chance(0.1);
        if slow || !self.unsaid.is_empty() {
            self.did.slow |= slow;
            self.unsaid.extend(bytes);
        } else if let Some(endpoint) = &mut self.endpoint {
            endpoint.send(bytes);
        }
    }

    fn frame(&mut self, frame: &Frame) {
        let key = (self.dice.next() as u32).to_le_bytes();
        let bytes = frame.masked(key);
        self.say(&bytes);
    }

    /// Whether it may say something more.
    fn may_speak(&self) -> bool {
        let Did { close, finish, vanish, violate, too_large, .. } = self.did;
        !(close || finish || vanish || violate || too_large) && self.endpoint.is_some()
    }

    /// One act of its script.
    pub(crate) fn act(&mut self) {
        self.read();
        self.go_on_reading();
        if self.acts == 0 || self.endpoint.is_none() {
            return;
        }
        self.acts -= 1;
        if !self.unsaid.is_empty() {
            let some = 1 + self.dice.below(self.unsaid.len().min(60));
            let some: Vec<u8> = self.unsaid.drain(..some).collect();
            if let Some(endpoint) = &mut self.endpoint {
                endpoint.send(some);
            }
            return;
        }
        if self.kind == Temper::Rude && self.dice.chance(0.15) {
            return self.be_rude();
        }
        if !self.may_speak() {
            return;
        }
        match &mut self.role {
            Role::Talk(_) => self.talk(),
            Role::Web(_) => self.ask(),
            Role::Bytes(bytes) => {
                let length = self.dice.length();
                let some = self.dice.bytes(length);
                bytes.said.extend(&some);
                self.say(&some);
                if self.acts == 0 {
                    self.finish();
                }
            }
        }
    }

    fn go_on_reading(&mut self) {
        if self.stopped > 0 {
            self.stopped -= 1;
            if self.stopped == 0
                && let Some(endpoint) = &mut self.endpoint
            {
                endpoint.resume_reading();
            }
        }
    }

    fn be_rude(&mut self) {
        let Some(endpoint) = &mut self.endpoint else { return };
        match self.dice.below(9) {
            0 => {
                self.did.vanish = true;
                self.endpoint.take().expect("it is there").reset();
            }
            1 => {
                self.did.vanish = true;
                self.endpoint.take().expect("it is there").close();
            }
            2 => self.finish(),
            3 | 4 => {
                self.stopped = 1 + self.dice.below(12);
                self.did.slow = true;
                match self.dice.below(2) {
                    0 => endpoint.stop_reading(),
                    _ => endpoint.read_at_most(self.dice.below(2000)),
                }
            }
            5 => self.acts += 3,
            _ if self.may_speak() => match &self.role {
                Role::Talk(_) => self.violate(),
                Role::Web(_) => self.ask_wrongly(),
                Role::Bytes(_) => self.finish(),
            },
            _ => {}
        }
    }

    pub(crate) fn finish(&mut self) {
        if let Some(endpoint) = &mut self.endpoint
            && self.unsaid.is_empty()
        {
            endpoint.finish();
            self.did.finish = true;
        }
    }

    /// Says the rest of what it has begun, reads everything, does no more.
    pub(crate) fn settle(&mut self) {
        self.acts = 0;
        self.stopped = 0;
        let rest: Vec<u8> = self.unsaid.drain(..).collect();
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.send(rest);
            endpoint.resume_reading();
        }
        self.read();
    }

    // WebSocket.

    fn talk(&mut self) {
        match self.dice.below(14) {
            0 | 1 => self.ping(),
            2 => self.frame(&Frame::pong("alive")),
            3 if self.kind == Temper::Rude || self.dice.chance(0.2) => {
                self.did.close = true;
                let frame = match self.dice.below(4) {
                    0 => Frame::new(8, []),
                    1 => Frame::close(3000, ""),
                    _ => Frame::close(1000, "bye"),
                };
                self.frame(&frame);
            }
            4 => (0..5).for_each(|_| self.message()),
            _ => self.message(),
        }
    }

    fn ping(&mut self) {
        let Role::Talk(talk) = &mut self.role else { return };
        let payload = format!("peer {}", talk.pings.len()).into_bytes();
        talk.pings.push(payload.clone());
        self.frame(&Frame::ping(payload));
    }

    fn message(&mut self) {
        let Role::Talk(talk) = &mut self.role else { return };
        let length = self.dice.length().min(talk.limit);
        let (opcode, payload) = match self.dice.chance(0.5) {
            true => (1, self.dice.text(length).into_bytes()),
            false => (2, self.dice.bytes(length)),
        };
        talk.messages.push((opcode, payload.clone()));
        let fragments = if self.dice.chance(0.3) { 2 + self.dice.below(5) } else { 1 };
        let mut rest = &payload[..];
        for fragment in 1..=fragments {
            let last = fragment == fragments;
            let length = if last { rest.len() } else { self.dice.below(rest.len() + 1) };
            let frame = Frame::new(if fragment == 1 { opcode } else { 0 }, &rest[..length]);
            rest = &rest[length..];
            self.frame(&if last { frame } else { frame.unfinished() });
            if !last && self.dice.chance(0.2) {
                self.ping();
            }
        }
    }

    fn violate(&mut self) {
        let in_message = self.dice.chance(0.3);
        if in_message {
            self.frame(&Frame::text("begun").unfinished());
        }
        let Role::Talk(talk) = &mut self.role else { return };
        let streamed = talk.streamed;
        let (bytes, code, too_large) = match self.dice.below(if streamed { 13 } else { 14 }) {
            0 => (b"\x81\x01a".to_vec(), 1002, false),
            1 => {
                let rsv = 1 + self.dice.below(7) as u8;
                (Frame { rsv, ..Frame::text("") }.masked([1; 4]), 1002, false)
            }
            2 => (Frame::new(self.dice.pick(&[3, 4, 5, 6, 7, 11, 15]), []).masked([1; 4]), 1002, false),
            3 => (Frame::ping([0; 126]).masked([1; 4]), 1002, false),
            4 => (Frame::ping([]).unfinished().masked([1; 4]), 1002, false),
            5 if in_message => (Frame::text("another").masked([1; 4]), 1002, false),
            5 => (Frame::new(0, "nothing before").masked([1; 4]), 1002, false),
            6 if in_message => (Frame::new(0, [0xff]).masked([1; 4]), 1007, false),
            6 => (Frame::new(1, [b'a', 0xc0, 0x80]).masked([1; 4]), 1007, false),
            7 if in_message => (Frame::new(0, [0xe2, 0x82]).masked([1; 4]), 1007, false),
            7 => (Frame::new(1, [0xe2, 0x82]).masked([1; 4]), 1007, false),
            8 => (Frame::new(8, [3]).masked([1; 4]), 1002, false),
            9 => {
                let code = self.dice.pick(&[0, 999, 1004, 1005, 1006, 1015, 2999, 5000]);
                (Frame::close(code, "").masked([1; 4]), 1002, false)
            }
            10 => (Frame::new(8, [3, 232, 0xff]).masked([1; 4]), 1007, false),
            11 => (b"\x82\xff\x80\0\0\0\0\0\0\x01\0\0\0\0".to_vec(), 1002, false),
            12 => (b"\x82\xfe\0\x05\0\0\0\0hello".to_vec(), 1002, false),
            _ => {
                let opcode = if in_message { 0 } else { 2 };
                let mut bytes = vec![0x80 | opcode, 0x80 | 127];
                bytes.extend((talk.limit as u64 + 1).to_be_bytes());
                bytes.extend([0; 40]);
                (bytes, 1009, true)
            }
        };
        // With a data frame inside a message, which of two mistakes is found first is open.
        talk.codes = if in_message { vec![code, 1002] } else { vec![code] };
        self.did.violate = !too_large;
        self.did.too_large = too_large;
        self.say(&bytes);
        if self.dice.chance(0.5) {
            self.frame(&Frame::text("too late"));
        }
    }

    // HTTP.

    fn ask(&mut self) {
        let requests = if self.dice.chance(0.3) { 1 + self.dice.below(6) } else { 1 };
        for _ in 0..requests {
            self.request();
        }
    }

    fn request(&mut self) {
        let length = self.dice.length();
        let body_length = self.dice.length();
        let body = self.dice.text(body_length);
        let Role::Web(web) = &mut self.role else { return };
        let (path, content, has_body): (&str, Option<String>, bool) = match self.dice.below(14) {
            0 => ("/text", Some(content(length)), false),
            1 => ("/file", Some(content(FILE)), false),
            2 | 3 => ("/stream", Some(content(length)), false),
            4 => ("/length", Some(content(length)), false),
            5 => ("/slow", Some(content(length)), self.dice.chance(0.3)),
            6 => ("/early", Some(content(length)), self.dice.chance(0.5)),
            7 => ("/later", Some(content(length)), self.dice.chance(0.3)),
            8 => ("/text", Some(content(length)), true),
            9 => ("/nowhere", Some("nothing".to_owned()), false),
            10 | 11 => ("/pipe", Some(body.clone()), true),
            _ => ("/mirror", Some(body.clone()), true),
        };
        let head_only = !has_body && self.dice.chance(0.1);
        let method = if head_only {
            "HEAD"
        } else if has_body {
            "POST"
        } else {
            "GET"
        };
        let status = if path == "/nowhere" { 404 } else { 200 };
        web.next += 1;
        web.expected.push_back(Expected {
            head_only,
            statuses: vec![status],
            content: content.map(String::into_bytes),
            last: false,
        });
        let mut request =
            format!("{method} {path}?{length} HTTP/1.1\r\nHost: localhost\r\nX-Number: {}\r\n", web.next);
        if !has_body {
            request.push_str("\r\n");
        } else if self.dice.chance(0.5) {
            request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        } else {
            request.push_str("Transfer-Encoding: chunked\r\n\r\n");
            let mut rest = body.as_bytes();
            let mut bytes = request.into_bytes();
            while !rest.is_empty() {
                let size = (1 + self.dice.below(2000)).min(rest.len());
                bytes.extend(format!("{size:x}\r\n").bytes());
                bytes.extend(&rest[..size]);
                bytes.extend(b"\r\n");
                rest = &rest[size..];
            }
            bytes.extend(b"0\r\n");
            if self.dice.chance(0.3) {
                bytes.extend(b"X-Trailer: yes\r\n");
            }
            bytes.extend(b"\r\n");
            return self.say(&bytes);
        }
        self.say(request.as_bytes());
    }

    fn ask_wrongly(&mut self) {
        let Role::Web(web) = &mut self.role else { return };
        let long = "x".repeat(web.limit + 10);
        let (request, statuses): (String, Vec<u16>) = match self.dice.below(12) {
            0 => ("GET / HTTP/1.1\r\n\r\n".into(), vec![400]),
            1 => ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".into(), vec![400]),
            2 => ("GET / HTTP/1.1\r\nHost : localhost\r\n\r\n".into(), vec![400]),
            3 => ("GET / HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n".into(), vec![400]),
            4 => ("GET / HTTP/3.1\r\nHost: localhost\r\n\r\n".into(), vec![400, 505]),
            5 => (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), vec![414, 431]),
            6 => (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"), vec![431]),
            7 => (
                "POST /mirror HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                    .into(),
                vec![400],
            ),
            8 => (
                "POST /mirror HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".into(),
                vec![400],
            ),
            9 => (
                "POST /mirror HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n".into(),
                vec![400, 501],
            ),
            10 => (
                "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                    .into(),
                vec![400, 426],
            ),
            // Never finished.
            _ => ("POST /mirror HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nhalf".into(), vec![408]),
        };
        web.expected.push_back(Expected { head_only: false, statuses, content: None, last: true });
        self.did.violate = true;
        self.say(request.as_bytes());
    }

    // Reading.

    /// Takes what has come and compares it with what may come.
    pub(crate) fn read(&mut self) {
        let Some(mut endpoint) = self.endpoint.take() else { return };
        match &mut self.role {
            Role::Talk(_) => self.listen(&mut endpoint),
            Role::Web(_) => self.read_answers(&mut endpoint),
            Role::Bytes(bytes) => bytes.heard.extend(endpoint.take()),
        }
        self.at_end = endpoint.at_end();
        self.was_reset |= endpoint.was_reset();
        self.endpoint = Some(endpoint);
    }

    /// Closes, when the other side has ended.
    pub(crate) fn follow(&mut self) {
        self.read();
        if self.at_end {
            self.endpoint = None;
        }
    }

    fn listen(&mut self, endpoint: &mut Endpoint) {
        let Role::Talk(talk) = &mut self.role else { return };
        while talk.before > 0 && !talk.upgraded {
            let Some(answer) = endpoint.next_answer() else { return };
            if self.did.slow && matches!(answer.status, 408 | 503) {
                return;
            }
            assert_eq!((answer.status, &answer.content[..]), (200, content(11).as_bytes()));
            talk.before -= 1;
        }
        if !talk.upgraded {
            if endpoint.received().starts_with(b"HTTP/1.1 4")
                || endpoint.received().starts_with(b"HTTP/1.1 5")
            {
                assert!(self.did.slow, "refused: {:?}", String::from_utf8_lossy(&endpoint.received()));
                return;
            }
            if !endpoint.upgraded() {
                return;
            }
            talk.upgraded = true;
        }
        let mut answers = Vec::new();
        while let Some(frame) = endpoint.next_frame() {
            assert!(talk.close.is_none(), "{frame:?} after a Close");
            assert_eq!(frame.rsv, 0);
            match frame.opcode {
                8 => {
                    assert!(frame.fin && frame.payload.len() <= 125 && frame.payload.len() != 1);
                    let code = frame.close_code();
                    if !self.did.close && talk.answers_closes {
                        answers.push(frame.clone());
                    }
                    if let Some(code) = code.filter(|_| !talk.codes.is_empty()) {
                        let others = [1000, 1001, 1008];
                        assert!(
                            talk.codes.contains(&code) || others.contains(&code),
                            "{code} for {:?}",
                            talk.codes
                        );
                    }
                    talk.close = Some(frame);
                }
                10 => {
                    let known = talk.pings[talk.answered..].iter().position(|ping| *ping == frame.payload);
                    let at = known.unwrap_or_else(|| panic!("a Pong that answers nothing: {frame:?}"));
                    talk.answered += at + 1;
                }
                9 => {
                    assert!(frame.fin && frame.payload.len() <= 125);
                    if !frame.payload.is_empty() {
                        talk.frames.push(frame.clone());
                    }
                    answers.push(Frame::pong(frame.payload));
                }
                0..=2 => talk.frames.push(frame),
                _ => panic!("no such frame: {frame:?}"),
            }
        }
        talk.partial = endpoint.received().len();
        let speaks = !(self.did.finish || self.did.violate || self.did.too_large) && self.unsaid.is_empty();
        for answer in answers {
            if speaks && !self.did.close {
                self.did.close |= answer.opcode == 8;
                let key = (self.dice.next() as u32).to_le_bytes();
                endpoint.send(answer.masked(key));
            }
        }
    }

    fn read_answers(&mut self, endpoint: &mut Endpoint) {
        let Role::Web(web) = &mut self.role else { return };
        while let Some(expected) = web.expected.front() {
            let answer = if expected.head_only { endpoint.next_head() } else { endpoint.next_answer() };
            let Some(answer) = answer else { return };
            // In place of an answer that was waited for too long.
            let late = self.did.slow && matches!(answer.status, 408 | 503);
            check_answer(&answer, expected, late);
            web.expected.pop_front();
        }
        if endpoint.received().is_empty() {
            return;
        }
        let answer = endpoint.next_answer();
        let late = answer.as_ref().is_none_or(|answer| self.did.slow && answer.status == 408);
        assert!(late, "an answer to nothing: {answer:?}");
    }

    pub(crate) fn name(&self) -> String {
        let role = match &self.role {
            Role::Talk(_) => "talker",
            Role::Web(_) => "visitor",
            Role::Bytes(_) => "sender",
        };
        format!("{role} of port {}, {:?}", self.port, self.did)
    }
}

impl Talk {
    /// Whether a frame of these codes was asked for.
    pub(crate) fn expects_close(&self) -> bool {
        !self.codes.is_empty()
    }
}

fn check_answer(answer: &Answer, expected: &Expected, late: bool) {
    if late {
        return;
    }
    let status = answer.status;
    assert!(expected.statuses.contains(&status), "{status}, not {:?}: {answer:?}", expected.statuses);
    if let Some(content) = expected.content.as_ref().filter(|_| !expected.head_only) {
        assert!(answer.content == *content, "content differs from what was asked for: {answer:?}");
    }
    assert!(!expected.last || answer.field("connection").is_some() || status == 426, "{answer:?}");
}
