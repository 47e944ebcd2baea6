//! WebSocket on a link: what is sent, and when the connection closes.

use super::frame::FIN;
use super::{
    CloseCode, Closing, ClosingAction, ClosingInput, Message, MessageKind, Receive, ReceiveError, Receiver,
    SendPieceError, Sender, Settings, Shared, Side, encode_close, encode_ping, encode_pong, message_header,
};
use crate::engine::buffer::Gathered;
use crate::engine::link::{Flags, Link, State};
use crate::engine::store::Key;
use crate::engine::timers::Tick;
use crate::engine::{Core, DIRECT};
use crate::error::SendError;
use crate::handler::{By, CloseReason, Flow, Timeout};
use crate::limits::Limits;
use crate::role::Role;

pub(crate) struct WebSocket {
    pub(crate) receiver: Receiver,
    pub(crate) closing: Closing,
    pub(crate) receive: Receive,
    sender: Sender,
    cold: Option<Box<Cold>>,
}

/// What few connections need.
#[derive(Default)]
struct Cold {
    /// Shared frames that wait for the end of a message sent in pieces.
    held: Vec<Shared>,
    /// The answer to the last Ping, while the queue is too long for it.
    pong: Option<Vec<u8>>,
    /// When a Ping went out that nothing has followed yet.
    ping_sent: Option<Tick>,
    /// When the last message was received or sent.
    last_message: Tick,
    /// When anything was last received.
    active: Tick,
}

impl WebSocket {
    pub(crate) fn new(receive: Receive) -> Self {
        Self {
            receiver: Receiver::new(Side::Server),
            closing: Closing::Open,
            receive,
            sender: Sender::new(),
            cold: None,
        }
    }

    fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// Bytes of shared frames that wait for the end of a message sent in pieces.
    pub(crate) fn held(&self) -> usize {
        self.cold.as_ref().map_or(0, |cold| cold.held.iter().map(|frame| frame.bytes().len()).sum())
    }

    /// Something was received; noted where a timer looks at it.
    pub(crate) fn set_active(&mut self, now: Tick) {
        if let Some(cold) = &mut self.cold {
            cold.active = now;
        }
    }

    #[inline]
    pub(crate) fn settings(&self, limits: &Limits) -> Settings {
        let max_frame = limits.frame.unwrap_or(u64::MAX);
        Settings { receive: self.receive, max_message: limits.message, max_frame, ..Settings::default() }
    }
}

/// The WebSocket of a link.
fn websocket(link: &mut Link) -> Option<&mut WebSocket> {
    match &mut link.role {
        Role::WebSocket(websocket) => Some(websocket),
        _ => None,
    }
}

impl Link {
    /// Whether messages of its WebSocket may take the short way out: it is open, and has no backlog.
    #[inline]
    pub(crate) fn is_short(&self, websocket: &WebSocket) -> bool {
        self.queue.is_none()
            && !self.output_over()
            && websocket.closing.may_send()
            && !websocket.sender.in_message()
    }
}

/// Adds a message of the server's to what is gathered, as one frame (RFC 6455, section 5.2), unless it is too large for that.
#[inline]
fn gather_short(out: &mut Gathered, message: Message<'_>) -> bool {
    let payload = message.as_bytes();
    let first = FIN | message.kind().opcode() as u8;
    if payload.len() <= 125 {
        return out.push(&[first, payload.len() as u8], payload);
    }
    let [high, low] = (payload.len() as u16).to_be_bytes();
    payload.len() < DIRECT && out.push(&[first, 126, high, low], payload)
}

impl Core {
    /// The link of a conn on which a message may begin.
    #[inline]
    fn sendable(&mut self, conn: Key) -> Result<(u32, &mut Link), SendError> {
        let conn = self.conns.get(conn).ok_or(SendError::Gone)?;
        let index = conn.link;
        let link = self.links.at_mut(index).ok_or(SendError::Gone)?;
        let Role::WebSocket(websocket) = &link.role else { return Err(SendError::Role) };
        if !websocket.closing.may_send() || link.output_over() {
            return Err(SendError::Closing);
        }
        if link.queued() > link.limits.send_max {
            return Err(SendError::Overrun);
        }
        Ok((index, link))
    }

    #[inline]
    pub(crate) fn send_message(&mut self, conn: Key, message: Message<'_>) -> Result<Flow, SendError> {
        if self.short == conn && gather_short(&mut self.out, message) {
            return Ok(Flow::Ready);
        }
        self.send_at_length(conn, message)
    }

    #[inline(never)]
    fn send_at_length(&mut self, conn: Key, message: Message<'_>) -> Result<Flow, SendError> {
        let payload = message.as_bytes();
        let header = message_header(message.kind(), payload.len() as u64, None);
        let (index, link) = self.sendable(conn)?;
        if websocket(link).is_some_and(|websocket| websocket.sender.in_message()) {
            return Err(SendError::InMessage);
        }
        self.message_passed(index);
        Ok(self.push(index, header.as_bytes(), payload))
    }

    pub(crate) fn send_shared(&mut self, conn: Key, frame: &Shared) -> Result<Flow, SendError> {
        let (index, link) = self.sendable(conn)?;
        let queued = link.queued();
        let send_max = link.limits.send_max;
        let Some(websocket) = websocket(link) else { return Err(SendError::Role) };
        if websocket.sender.in_message() {
            if queued + websocket.held() > send_max {
                return Err(SendError::Overrun);
            }
            websocket.cold().held.push(frame.clone());
            return Ok(Flow::Full);
        }
        self.message_passed(index);
        Ok(self.push_shared(index, frame))
    }

    pub(crate) fn send_piece(
        &mut self,
        conn: Key,
        kind: MessageKind,
        payload: &[u8],
        last: bool,
    ) -> Result<Flow, SendError> {
        let (index, link) = self.sendable(conn)?;
        let Some(websocket) = websocket(link) else { return Err(SendError::Role) };
        let header =
            websocket.sender.piece_header(kind, payload, last, None).map_err(|error| match error {
                SendPieceError::OtherKind => SendError::InMessage,
                SendPieceError::InvalidUtf8 => SendError::InvalidUtf8,
            })?;
        let held = match &mut websocket.cold {
            Some(cold) if last => std::mem::take(&mut cold.held),
            _ => Vec::new(),
        };
        self.short = Key::NONE;
        self.message_passed(index);
        let flow = self.push(index, header.as_bytes(), payload);
        Ok(held.iter().fold(flow, |_, frame| self.push_shared(index, frame)))
    }

    pub(crate) fn send_ping(&mut self, conn: Key, payload: &[u8]) -> Result<Flow, SendError> {
        let (index, _) = self.sendable(conn)?;
        let mut frame = Vec::with_capacity(payload.len() + 2);
        encode_ping(&mut frame, payload, None).map_err(|_| SendError::ControlTooLong)?;
        Ok(self.push(index, &frame, &[]))
    }

    pub(crate) fn send_pong(&mut self, conn: Key, payload: &[u8]) -> Result<Flow, SendError> {
        let (index, _) = self.sendable(conn)?;
        let mut frame = Vec::with_capacity(payload.len() + 2);
        encode_pong(&mut frame, payload, None).map_err(|_| SendError::ControlTooLong)?;
        Ok(self.push(index, &frame, &[]))
    }

    /// Answers a Ping (RFC 6455, section 5.5.3). While the peer does not read, only the last one is.
    pub(crate) fn answer_ping(&mut self, index: u32, payload: &[u8]) {
        let link = self.link(index);
        let crowded = link.queued() > link.limits.send_high_water;
        let over = link.output_over();
        let Some(websocket) = websocket(link).filter(|websocket| !over && websocket.closing.may_send())
        else {
            return;
        };
        if crowded {
            websocket.cold().pong = Some(payload.to_owned());
            return;
        }
        let mut frame = Vec::with_capacity(payload.len() + 2);
        if encode_pong(&mut frame, payload, None).is_ok() {
            self.push(index, &frame, &[]);
        }
    }

    /// There is room again for the answer that waited.
    pub(crate) fn answer_waiting_ping(&mut self, index: u32) {
        let waiting = websocket(self.link(index)).and_then(|websocket| websocket.cold.as_mut()?.pong.take());
        if let Some(payload) = waiting {
            self.answer_ping(index, &payload);
        }
    }

    // Receiving.

    /// Takes the receiver of a link from its place, with what it has to keep to.
    pub(crate) fn take_receiver(&mut self, index: u32) -> (Receiver, Settings) {
        let link = self.link(index);
        let Role::WebSocket(websocket) = &mut link.role else {
            return (Receiver::new(Side::Server), Settings::default());
        };
        let settings = websocket.settings(&link.limits);
        (std::mem::replace(&mut websocket.receiver, Receiver::new(Side::Server)), settings)
    }

    /// Puts it back.
    pub(crate) fn put_receiver(&mut self, index: u32, receiver: Receiver) {
        if let Some(websocket) = websocket(self.link(index)) {
            websocket.receiver = receiver;
        }
    }

    // Closing.

    /// The application closes, with a code or without one.
    pub(crate) fn close_websocket(&mut self, index: u32, close: Option<(CloseCode, &str)>) {
        if let Some(action) = self.closing_step(index, ClosingInput::LocalClose) {
            self.closing_action(index, action, close);
            // The peer's answer has its time, and is waited for even where reading was paused.
            if action == ClosingAction::SendClose {
                let limits = self.limits(index);
                self.arm_phase(index, limits.closing);
                self.interrupt(index);
                self.resume(index);
            }
        }
    }

    /// The peer's Close has come, and the handler has heard of it.
    pub(crate) fn peer_closed(&mut self, index: u32, code: Option<CloseCode>) {
        if let Some(action) = self.closing_step(index, ClosingInput::PeerClose) {
            self.closing_action(index, action, code.map(|code| (code, "")));
        }
    }

    /// The peer broke the protocol or a limit.
    pub(crate) fn fail_websocket(&mut self, index: u32, error: ReceiveError) {
        let code = error.close_code();
        let reason = match error {
            ReceiveError::Protocol(error) => CloseReason::Protocol(error),
            ReceiveError::TooLarge(_) => CloseReason::TooLarge,
        };
        let text = error.to_string();
        self.set_reason(index, reason);
        if let Some(action) = self.closing_step(index, ClosingInput::Failed) {
            self.closing_action(index, action, Some((code, &text)));
        }
    }

    /// Whether a conn's handler still hears something besides the end: neither side has begun to close.
    pub(crate) fn hears(&mut self, conn: Key) -> bool {
        let Some(index) = self.live(conn).map(|conn| conn.link) else { return false };
        let Some((_, link)) = self.links.at(index) else { return false };
        let closing = matches!(&link.role, Role::WebSocket(websocket) if !websocket.closing.may_send());
        link.state == State::Open && !closing && !link.flags.contains(Flags::RELEASING)
    }

    /// How far the closing handshake is.
    pub(crate) fn closing(&mut self, index: u32) -> Closing {
        websocket(self.link(index)).map_or(Closing::Open, |websocket| websocket.closing)
    }

    pub(crate) fn set_reason(&mut self, index: u32, reason: CloseReason) {
        let conn = self.link(index).conn;
        if let Some(conn) = self.conns.at_mut(conn) {
            conn.set_reason(reason);
        }
    }

    fn closing_step(&mut self, index: u32, input: ClosingInput) -> Option<ClosingAction> {
        let link = self.link(index);
        if link.state != State::Open {
            return None;
        }
        let websocket = websocket(link)?;
        let (closing, action) = websocket.closing.step(input);
        websocket.closing = closing;
        Some(action)
    }

    fn closing_action(&mut self, index: u32, action: ClosingAction, close: Option<(CloseCode, &str)>) {
        let over = self.link(index).output_over();
        match action {
            ClosingAction::Nothing => {}
            ClosingAction::SendClose | ClosingAction::EchoClose => {
                if !over {
                    let mut frame = Vec::new();
                    encode_close(&mut frame, close, None);
                    self.push(index, &frame, &[]);
                }
                // What comes after our Close only matters until the peer's has come; an answer to the peer's, or a failure, is
                // the last of us.
                let waits = matches!(websocket(self.link(index)), Some(websocket) if websocket.closing == Closing::CloseSent);
                if !waits {
                    self.finish_and_linger(index);
                }
            }
            ClosingAction::DropTransport => self.finish_and_linger(index),
        }
    }

    // Pings and idling.

    /// The connection is open: its timers begin.
    pub(crate) fn begin_websocket_timers(&mut self, index: u32) {
        self.cancel_phase(index);
        let limits = self.limits(index);
        if limits.ping_interval.is_none() && limits.idle.is_none() {
            return;
        }
        let now = self.now();
        let link = self.link(index);
        link.flags.insert(Flags::TIMED);
        if let Some(websocket) = websocket(link) {
            let cold = websocket.cold();
            (cold.active, cold.last_message, cold.ping_sent) = (now, now, None);
        }
        self.websocket_timer(index);
    }

    /// A message was received or sent.
    #[inline]
    pub(crate) fn message_passed(&mut self, index: u32) {
        if self.link(index).flags.contains(Flags::TIMED) {
            let now = self.now();
            if let Some(websocket) = websocket(self.link(index)) {
                websocket.cold().last_message = now;
            }
        }
    }

    /// The time of a connection's phase is up, or has to be set: sends a Ping, closes, or sets it anew.
    pub(crate) fn websocket_timer(&mut self, index: u32) {
        let now = self.now();
        let limits = self.limits(index);
        let link = self.link(index);
        let paused = link.flags.contains(Flags::PAUSED);
        let Some(websocket) = websocket(link) else { return };
        if !websocket.closing.may_send() {
            let _ = websocket.closing.step(ClosingInput::TimedOut);
            return self.end(index, CloseReason::TimedOut(Timeout::Closing));
        }
        if paused {
            return;
        }
        let cold = websocket.cold();
        let active = cold.active;
        let mut next = None;
        if let Some(idle) = limits.idle {
            let due = cold.last_message.after(idle);
            if due <= now {
                self.set_reason(index, CloseReason::TimedOut(Timeout::Idle));
                return self.close_websocket(index, Some((CloseCode::GOING_AWAY, "idle")));
            }
            next = Some(due);
        }
        if let Some(interval) = limits.ping_interval {
            cold.ping_sent.take_if(|sent| active >= *sent);
            let due = match cold.ping_sent {
                Some(sent) => {
                    let due = sent.after(limits.pong_wait);
                    if due <= now {
                        return self.abort(index, CloseReason::TimedOut(Timeout::PongWait));
                    }
                    due
                }
                None => {
                    let due = active.after(interval);
                    if due <= now {
                        cold.ping_sent = Some(now);
                        let conn = self.link(index).conn;
                        if let Some(key) = self.conns.key_at(conn) {
                            let _ = self.send_ping(key, b"");
                        }
                        now.after(limits.pong_wait)
                    } else {
                        due
                    }
                }
            };
            next = Some(next.map_or(due, |other| due.min(other)));
        }
        if let Some(next) = next {
            self.arm_phase_at(index, next);
        }
    }

    /// The transport has ended.
    pub(crate) fn websocket_ended(&mut self, index: u32) {
        let _ = self.closing_step(index, ClosingInput::PeerEnded);
        self.end(index, CloseReason::PeerEnded);
    }
}

/// How the closing handshake went, for the one who hears of the end.
pub(crate) fn handshake_reason(closing: Closing, close: Option<super::CloseFrame<'_>>) -> CloseReason {
    let by = if closing == Closing::Open { By::Peer } else { By::Us };
    let (code, reason) =
        close.map_or((None, String::new()), |close| (Some(close.code), close.reason.to_owned()));
    CloseReason::Handshake { by, code, reason }
}
