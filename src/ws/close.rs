//! The closing handshake (RFC 6455, sections 5.5.1 and 7): status codes, the Close frame, and who closes when.

use super::frame::{Header, MAX_CONTROL, Opcode};
use super::{ProtocolError, mask, utf8};
use std::fmt;

/// Why an endpoint closes: the status code of a Close (RFC 6455, section 7.4).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection has been fulfilled.
    #[doc(alias = "LWS_CLOSE_STATUS_NORMAL")]
    pub const NORMAL: Self = Self(1000);
    /// The server goes down, or the browser leaves the page.
    #[doc(alias = "LWS_CLOSE_STATUS_GOINGAWAY")]
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    #[doc(alias = "LWS_CLOSE_STATUS_PROTOCOL_ERR")]
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A kind of data that the endpoint cannot take, such as binary where it understands only text.
    #[doc(alias = "LWS_CLOSE_STATUS_UNACCEPTABLE_OPCODE")]
    pub const UNSUPPORTED: Self = Self(1003);
    /// Stands for a Close without a status code. Never sent.
    #[doc(alias = "LWS_CLOSE_STATUS_NO_STATUS")]
    pub const NO_STATUS: Self = Self(1005);
    /// Stands for a connection that ended without a Close. Never sent.
    #[doc(alias = "LWS_CLOSE_STATUS_ABNORMAL_CLOSE")]
    pub const ABNORMAL: Self = Self(1006);
    /// Data that is not what the message's kind says: text that is not UTF-8.
    #[doc(alias = "LWS_CLOSE_STATUS_INVALID_PAYLOAD")]
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A message against the endpoint's policy; when no other code fits or details are to stay hidden.
    #[doc(alias = "LWS_CLOSE_STATUS_POLICY_VIOLATION")]
    pub const POLICY: Self = Self(1008);
    /// A message too big to process.
    #[doc(alias = "LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE")]
    pub const TOO_BIG: Self = Self(1009);
    /// The client expected an extension that the server did not negotiate.
    #[doc(alias = "LWS_CLOSE_STATUS_EXTENSION_REQUIRED")]
    pub const EXTENSION: Self = Self(1010);
    /// Something unexpected kept the server from fulfilling the request.
    #[doc(alias = "LWS_CLOSE_STATUS_UNEXPECTED_CONDITION")]
    pub const INTERNAL: Self = Self(1011);
    /// The server restarts: come back after a random delay (IANA registry).
    pub const SERVICE_RESTART: Self = Self(1012);
    /// The server is overloaded: come back later (IANA registry).
    pub const TRY_AGAIN: Self = Self(1013);
    /// A gateway got a bad answer from the server behind it (IANA registry).
    pub const BAD_GATEWAY: Self = Self(1014);

    /// The code with this number, also when it [may not be sent](Self::may_be_sent).
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// True if a Close may carry it: 1000 to 1003, 1007 to 1014, and 3000 to 4999, which are for libraries and
    /// applications (section 7.4 and the IANA registry).
    pub const fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The body of a Close (RFC 6455, section 5.5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CloseFrame<'a> {
    /// Why the peer closes.
    pub code: CloseCode,
    /// The same in words, not meant for people to read; may be empty.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Reads the unmasked payload of a Close; `None` if it is empty, as it may be.
    pub fn decode(payload: &'a [u8]) -> Result<Option<Self>, ProtocolError> {
        let &[high, low, ref reason @ ..] = payload else {
            return if payload.is_empty() { Ok(None) } else { Err(ProtocolError::CloseTooShort) };
        };
        let code = CloseCode(u16::from_be_bytes([high, low]));
        if !code.may_be_sent() {
            return Err(ProtocolError::CloseCode);
        }
        Ok(Some(Self { code, reason: utf8::validate(reason)? }))
    }
}

/// Appends a Close (RFC 6455, section 5.5.1). `masking` is the key of a client, `None` for a server.
///
/// A reason of more than 123 bytes is cut before the first character that does not fit. A code that
/// [may not be sent](CloseCode::may_be_sent), such as [`CloseCode::NO_STATUS`], makes the Close an empty one.
#[doc(alias = "lws_close_reason")]
pub fn encode_close(out: &mut Vec<u8>, close: Option<(CloseCode, &str)>, masking: Option<[u8; 4]>) {
    let (code, reason) = match close {
        Some((code, reason)) if code.may_be_sent() => (&code.0.to_be_bytes()[..], fitting(reason)),
        _ => (&[][..], ""),
    };
    let length = (code.len() + reason.len()) as u64;
    out.extend_from_slice(
        Header { fin: true, rsv: 0, opcode: Opcode::Close, masking, length }.encode().as_bytes(),
    );
    let start = out.len();
    out.extend_from_slice(code);
    out.extend_from_slice(reason.as_bytes());
    if let Some(key) = masking {
        mask::apply(key, &mut out[start..]);
    }
}

/// As much of `reason` as fits into a Close behind the code.
fn fitting(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// The closing handshake (RFC 6455, section 7.1.2) seen from one endpoint.
///
/// ```text
///           LocalClose                     PeerClose
///   Open ────────────────▶ CloseSent ─────────────────────▶ Done(Clean)
///     │ PeerClose                     CloseFlushed, PeerEnded   ▲
///     ├────────────────▶ CloseReceived ────────────────────────┘
///     │ Failed                        CloseFlushed
///     └────────────────▶ Failing ─────────────────────▶ Done(Failed)
///
///   PeerEnded where no arrow says otherwise, and TimedOut ──▶ Done(Abnormal)
/// ```
///
/// It only decides; its caller sends, drops the transport and runs the timer from the first step out of `Open` on. A
/// client whose close was clean should leave it to the server to end the transport first, for as long as that timer
/// allows (section 7.1.1).
///
/// ```
/// use lodger::ws::{Closing, ClosingAction, ClosingInput, Outcome};
///
/// let (closing, action) = Closing::Open.step(ClosingInput::PeerClose);
/// assert_eq!(action, ClosingAction::EchoClose);
/// let (closing, action) = closing.step(ClosingInput::CloseFlushed);
/// assert_eq!((closing, action), (Closing::Done(Outcome::Clean), ClosingAction::DropTransport));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Closing {
    /// No Close was sent or received.
    #[default]
    Open,
    /// We closed first and wait for the peer's Close. We send nothing more.
    CloseSent,
    /// The peer closed first; our answer is under way.
    CloseReceived,
    /// We failed the connection; our Close is under way and nothing more is received (section 7.1.7).
    Failing,
    /// Nothing is left to do but to let the transport go.
    Done(Outcome),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Both sides sent a Close (RFC 6455, section 7.1.4).
    Clean,
    /// The transport ended, or the time was up, before that: the code is [`CloseCode::ABNORMAL`] (section 7.1.5).
    Abnormal,
    /// The peer broke the protocol or a limit, and was told so (section 7.1.7).
    Failed,
}

/// What happened to a connection that is [`Closing`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClosingInput {
    /// The application closes.
    LocalClose,
    /// A Close was received.
    PeerClose,
    /// The peer broke the protocol or a limit.
    Failed,
    /// Our Close has left for the transport.
    CloseFlushed,
    /// The close timer ran out.
    TimedOut,
    /// The peer's end of the transport was reached.
    PeerEnded,
}

/// What a step of [`Closing`] asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClosingAction {
    /// Nothing.
    Nothing,
    /// Send a Close with our code and reason, behind what is queued, and nothing after it.
    SendClose,
    /// Send a Close with the code that was received, if any, and nothing after it (RFC 6455, section 5.5.1).
    EchoClose,
    /// End the transport as soon as what is queued has been written; at once, if that is not possible.
    DropTransport,
}

impl Closing {
    /// Takes one step.
    pub fn step(self, input: ClosingInput) -> (Self, ClosingAction) {
        use Closing::{CloseReceived, CloseSent, Done, Failing, Open};
        use ClosingAction::{DropTransport, EchoClose, Nothing, SendClose};
        use ClosingInput::{CloseFlushed, Failed, LocalClose, PeerClose, PeerEnded, TimedOut};
        match (self, input) {
            (Open, LocalClose) => (CloseSent, SendClose),
            (Open, PeerClose) => (CloseReceived, EchoClose),
            (Open, Failed) => (Failing, SendClose),
            // There is none under way.
            (Open, CloseFlushed) => (Open, Nothing),
            (CloseSent, PeerClose) => (Done(Outcome::Clean), DropTransport),
            // Our Close was an orderly one, and a second one must not follow it.
            (CloseSent, Failed) => (Done(Outcome::Failed), DropTransport),
            // The answer to the peer's Close may still be in the queue; that is written first.
            (CloseReceived, CloseFlushed | PeerEnded) => (Done(Outcome::Clean), DropTransport),
            (Failing, CloseFlushed) => (Done(Outcome::Failed), DropTransport),
            (Open | CloseSent | CloseReceived | Failing, TimedOut) => {
                (Done(Outcome::Abnormal), DropTransport)
            }
            (Open | CloseSent | Failing, PeerEnded) => (Done(Outcome::Abnormal), DropTransport),
            // Closing twice is not an error: the first code and reason stand.
            (CloseSent | CloseReceived | Failing, LocalClose) => (self, Nothing),
            // What follows the peer's Close, or comes while we fail, is ignored (sections 1.4 and 7.1.7).
            (CloseReceived | Failing, PeerClose | Failed) => (self, Nothing),
            // It was ours that has left; the peer's is still to come.
            (CloseSent, CloseFlushed) => (CloseSent, Nothing),
            (Done(_), LocalClose | PeerClose | Failed | CloseFlushed | TimedOut | PeerEnded) => {
                (self, Nothing)
            }
        }
    }

    /// True as long as messages may be sent: no Close has been (RFC 6455, section 5.5.1).
    pub fn may_send(self) -> bool {
        self == Self::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ClosingInput::{CloseFlushed, Failed, LocalClose, PeerClose, PeerEnded, TimedOut};

    const INPUTS: [ClosingInput; 6] = [LocalClose, PeerClose, Failed, CloseFlushed, TimedOut, PeerEnded];

    fn encoded(close: Option<(CloseCode, &str)>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_close(&mut out, close, None);
        out
    }

    #[test]
    fn a_close_may_be_empty() {
        assert_eq!(encoded(None), b"\x88\x00");
        assert_eq!(encoded(Some((CloseCode::NO_STATUS, "unsaid"))), b"\x88\x00");
        assert_eq!(CloseFrame::decode(b""), Ok(None));
    }

    #[test]
    fn a_close_has_code_and_reason() {
        assert_eq!(encoded(Some((CloseCode::GOING_AWAY, ""))), b"\x88\x02\x03\xe9");
        assert_eq!(encoded(Some((CloseCode::NORMAL, "bye"))), b"\x88\x05\x03\xe8bye");
        let expected = CloseFrame { code: CloseCode::NORMAL, reason: "bye" };
        assert_eq!(CloseFrame::decode(b"\x03\xe8bye"), Ok(Some(expected)));
    }

    #[test]
    fn a_close_of_a_client_is_masked() {
        let mut out = b"x".to_vec();
        encode_close(&mut out, Some((CloseCode::NORMAL, "bye")), Some([1, 2, 3, 4]));
        assert_eq!(out, [b'x', 0x88, 0x85, 1, 2, 3, 4, 0x03 ^ 1, 0xe8 ^ 2, b'b' ^ 3, b'y' ^ 4, b'e' ^ 1]);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let fits = "x".repeat(123);
        assert_eq!(encoded(Some((CloseCode::NORMAL, &fits)))[4..], *fits.as_bytes());
        assert_eq!(encoded(Some((CloseCode::NORMAL, &"x".repeat(124))))[4..], *fits.as_bytes());
        for before in 119..=123 {
            let reason = "x".repeat(before) + "🦀";
            let expected = if before + 4 <= 123 { &reason[..] } else { &reason[..before] };
            assert_eq!(encoded(Some((CloseCode::NORMAL, &reason)))[4..], *expected.as_bytes());
        }
    }

    #[test]
    fn only_registered_and_private_codes_may_be_sent() {
        let may: Vec<u16> = (0..=u16::MAX).filter(|&code| CloseCode::new(code).may_be_sent()).collect();
        let listed: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(may, listed);
    }

    #[test]
    fn a_bad_close_is_refused() {
        assert_eq!(CloseFrame::decode(b"\x03"), Err(ProtocolError::CloseTooShort));
        assert_eq!(CloseFrame::decode(b"\x03\xed"), Err(ProtocolError::CloseCode));
        assert_eq!(CloseFrame::decode(b"\x03\xe8\xff"), Err(ProtocolError::InvalidUtf8));
    }

    #[test]
    fn every_path_ends_and_drops_the_transport_once() {
        /// Walks every path of four inputs from `state`; each must drop the transport exactly on entering `Done`.
        fn walk(state: Closing, depth: u32) {
            for input in INPUTS {
                let (next, action) = state.step(input);
                let enters_done = matches!(next, Closing::Done(_)) && !matches!(state, Closing::Done(_));
                assert_eq!(action == ClosingAction::DropTransport, enters_done, "{state:?} {input:?}");
                let leaves_open = state.may_send() && !next.may_send() && !enters_done;
                let sends = matches!(action, ClosingAction::SendClose | ClosingAction::EchoClose);
                assert_eq!(sends, leaves_open, "{state:?} {input:?}");
                assert!(matches!(next.step(TimedOut).0, Closing::Done(_)));
                if depth > 0 {
                    walk(next, depth - 1);
                }
            }
        }
        walk(Closing::Open, 4);
    }

    #[test]
    fn outcomes_tell_clean_from_abnormal() {
        let run =
            |inputs: &[ClosingInput]| inputs.iter().fold(Closing::Open, |state, &input| state.step(input).0);
        assert_eq!(run(&[LocalClose, PeerClose]), Closing::Done(Outcome::Clean));
        assert_eq!(run(&[LocalClose, CloseFlushed, PeerClose]), Closing::Done(Outcome::Clean));
        assert_eq!(run(&[PeerClose, CloseFlushed]), Closing::Done(Outcome::Clean));
        assert_eq!(run(&[PeerClose, PeerEnded]), Closing::Done(Outcome::Clean));
        assert_eq!(run(&[PeerEnded]), Closing::Done(Outcome::Abnormal));
        assert_eq!(run(&[LocalClose, PeerEnded]), Closing::Done(Outcome::Abnormal));
        assert_eq!(run(&[LocalClose, TimedOut]), Closing::Done(Outcome::Abnormal));
        assert_eq!(run(&[Failed, CloseFlushed]), Closing::Done(Outcome::Failed));
        assert_eq!(size_of::<Closing>(), 1);
    }
}
