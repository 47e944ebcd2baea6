//! WebSocket on a link: what is sent, and when the connection closes.

use super::extension::{Deflated, Reading};
use super::frame::{FIN, MAX_CONTROL};
use super::{
    CloseCode, Closing, ClosingAction, ClosingInput, Header, Message, MessageKind, Opcode, Outcome, Progress,
    Receive, ReceiveError, Receiver, SendPieceError, Sender, Settings, Shared, Side, encode_close, mask,
};
use crate::engine::buffer::{Gathered, SHARED_COST};
use crate::engine::link::{Flags, Link, State};
use crate::engine::store::Key;
use crate::engine::timers::Tick;
use crate::engine::{Core, DIRECT};
use crate::error::SendError;
use crate::handler::{By, CloseReason, Flow, Timeout};
use crate::limits::Limits;
use crate::memory;
use crate::role::Role;

pub(crate) struct WebSocket {
    pub(crate) receiver: Receiver,
    pub(crate) closing: Closing,
    kind: Kind,
    sender: Sender,
    cold: Option<Box<Cold>>,
}

bitflags::bitflags! {
    /// What does not change, in one byte, so that a link is as small without it.
    #[derive(Clone, Copy)]
    struct Kind: u8 {
        /// Messages are handed out in pieces.
        const PIECES = 1;
        /// We are its client: what is sent is masked.
        const CLIENT = 1 << 1;
        /// Its messages go through an extension.
        const EXTENDED = 1 << 2;
    }
}

/// What few connections need.
#[derive(Default)]
struct Cold {
    /// Shared frames that wait for the end of a message sent in pieces.
    held: Held,
    /// The answer to the last Ping, while the queue is too long for it.
    pong: Option<Vec<u8>>,
    ping: Ping,
    /// When bytes of a message were last received or sent.
    last_message: Tick,
    /// When anything was last received.
    active: Tick,
    /// The extension that was agreed on.
    deflated: Option<Box<Deflated>>,
    /// How many of the last bytes of output are our Close, which nobody has asked to be sent; `usize::MAX` where nothing but that can
    /// be left.
    goodbye: usize,
}

/// Shared frames that wait for the end of a message sent in pieces.
#[derive(Default)]
struct Held {
    frames: Vec<Shared>,
    bytes: usize,
}

impl Held {
    fn push(&mut self, frame: Shared) {
        self.bytes += frame.bytes().len();
        self.frames.push(frame);
    }

    /// The memory that they take beside their bytes. Each counts whole, as in a queue.
    fn beside(&self) -> usize {
        self.frames.len() * SHARED_COST
    }
}

/// How far the last Ping of the timer's is, as long as nothing has followed it.
#[derive(Clone, Copy, Debug, Default)]
enum Ping {
    /// None is on its way.
    #[default]
    None,
    /// It waits behind other output, and has left when so many bytes have been sent on the link: no Pong is owed yet.
    Queued(u64),
    /// It has left: a Pong is owed from here on.
    Left(Tick),
}

impl WebSocket {
    /// `side` is ours.
    pub(crate) fn new(side: Side, receive: Receive) -> Self {
        let mut kind = Kind::empty();
        kind.set(Kind::PIECES, receive == Receive::Pieces);
        kind.set(Kind::CLIENT, side == Side::Client);
        Self {
            receiver: Receiver::new(side),
            closing: Closing::Open,
            kind,
            sender: Sender::new(),
            cold: None,
        }
    }

    fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// Bytes of shared frames that wait for the end of a message sent in pieces.
    pub(crate) fn held(&self) -> usize {
        self.cold.as_ref().map_or(0, |cold| cold.held.bytes)
    }

    /// How many of its last bytes of output are none of the application's.
    pub(crate) fn goodbye(&self) -> usize {
        self.cold.as_ref().map_or(0, |cold| cold.goodbye)
    }

    /// Everything that was queued has gone out: from now on only the end of the connection is said. Frames that were held back never
    /// will be.
    pub(crate) fn said_all(&mut self) {
        if !self.closing.may_send() && self.held() == 0 {
            self.cold().goodbye = usize::MAX;
        }
    }

    /// Something was received; noted where a timer looks at it.
    pub(crate) fn set_active(&mut self, now: Tick) {
        if let Some(cold) = &mut self.cold {
            cold.active = now;
        }
    }

    /// Messages go through this extension from here on.
    pub(crate) fn extend(&mut self, deflated: Deflated) {
        self.kind.insert(Kind::EXTENDED);
        self.cold().deflated = Some(Box::new(deflated));
    }

    /// Whether it is for the server to end the connection: both have sent a Close, and we are the client.
    pub(crate) fn leaves_end_to_server(&self) -> bool {
        let both = matches!(self.closing, Closing::CloseReceived | Closing::Done(Outcome::Clean));
        both && self.kind.contains(Kind::CLIENT)
    }

    pub(crate) fn deflated(&mut self) -> Option<&mut Deflated> {
        self.cold.as_mut()?.deflated.as_deref_mut()
    }

    /// The same to look at.
    #[cfg(feature = "deflate")]
    pub(crate) fn extension(&self) -> Option<&Deflated> {
        self.cold.as_ref()?.deflated.as_deref()
    }

    /// The connection is gone, and with it what its extension has.
    pub(crate) fn take_deflated(&mut self) -> Option<Box<Deflated>> {
        self.cold.as_mut()?.deflated.take()
    }

    /// Whether messages go out as they are, behind a header.
    #[inline]
    pub(crate) fn sends_plainly(&self) -> bool {
        !self.kind.intersects(Kind::CLIENT.union(Kind::EXTENDED))
    }

    /// What is held for the message under way, and came of it since this was asked last; `None` if there is none.
    pub(crate) fn progress(&mut self) -> Option<Progress> {
        let lent = self.deflated().map_or(0, |deflated| deflated.lent());
        let mut progress = self.receiver.progress()?;
        progress.held += lent;
        Some(progress)
    }

    /// How long the next short frame may be. `None` if none is possible, or if messages come in pieces, or do not go out
    /// plainly: one comparison for both.
    #[inline]
    pub(crate) fn short_limit(&self, limits: &Limits) -> Option<usize> {
        if !self.kind.is_empty() {
            return None;
        }
        let max_frame = limits.frame.unwrap_or(u64::MAX);
        let settings = Settings { max_message: limits.message, max_frame, ..Settings::default() };
        self.receiver.short_limit::<true>(&settings)
    }

    pub(crate) fn settings(&self, limits: &Limits) -> Settings {
        let max_frame = limits.frame.unwrap_or(u64::MAX);
        let receive = if self.kind.contains(Kind::PIECES) { Receive::Pieces } else { Receive::Whole };
        Settings { receive, max_message: limits.message, max_frame, ..Settings::default() }
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
    /// Whether messages of its WebSocket may take the short way out, if they
    /// [go out plainly](WebSocket::sends_plainly): it is open, and has no backlog.
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

/// The header of a message in one frame.
#[inline]
fn header_of(message: Message<'_>) -> Header {
    Header::whole(message.kind().opcode(), message.len())
}

impl Core {
    /// The link of a conn on which a message may begin.
    #[inline]
    fn sendable(&mut self, conn: Key) -> Result<(u32, &mut Link), SendError> {
        let index = self.conns.get(conn).ok_or(SendError::Gone)?.link;
        if self.links.at(index).is_none() {
            return Err(self.without_link(conn));
        }
        let link = self.links.at_mut(index).ok_or(SendError::Gone)?;
        let websocket = match &link.role {
            Role::WebSocket(websocket) => websocket,
            Role::Client(_) => return Err(SendError::NotConnected),
            _ => return Err(SendError::Role),
        };
        if !websocket.closing.may_send() || link.output_over() {
            return Err(SendError::Closing);
        }
        if link.is_over_send_max() && !self.answers_once(index) {
            return Err(SendError::Overrun);
        }
        Ok((index, self.link(index)))
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
        let sent = self.queue_message(conn, message);
        self.sent(conn, sent)
    }

    fn queue_message(&mut self, conn: Key, message: Message<'_>) -> Result<Flow, SendError> {
        let (index, link) = self.sendable(conn)?;
        if websocket(link).is_some_and(|websocket| websocket.sender.in_message()) {
            return Err(SendError::InMessage);
        }
        self.message_passed(index);
        Ok(self.push_data(index, header_of(message), message.as_bytes()))
    }

    /// Sends a message as it is, whatever was agreed on.
    #[cfg(feature = "deflate")]
    pub(crate) fn send_uncompressed(&mut self, conn: Key, message: Message<'_>) -> Result<Flow, SendError> {
        let (index, link) = self.sendable(conn)?;
        if websocket(link).is_some_and(|websocket| websocket.sender.in_message()) {
            return Err(SendError::InMessage);
        }
        self.short = Key::NONE;
        self.message_passed(index);
        Ok(self.push_frame(index, header_of(message), message.as_bytes()))
    }

    pub(crate) fn send_shared(&mut self, conn: Key, frame: &Shared) -> Result<Flow, SendError> {
        let (index, link) = self.sendable(conn)?;
        let queued = link.queued();
        let send_max = link.limits.send_max;
        let Some(websocket) = websocket(link) else { return Err(SendError::Role) };
        if websocket.sender.in_message() {
            let held = &mut websocket.cold().held;
            if queued + held.bytes + held.beside() > send_max {
                return Err(SendError::Overrun);
            }
            held.push(frame.clone());
            return Ok(Flow::Full);
        }
        self.message_passed(index);
        Ok(self.push_frame_of_many(index, frame))
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
        let header = websocket.sender.piece(kind, payload, last).map_err(|error| match error {
            SendPieceError::OtherKind => SendError::InMessage,
            SendPieceError::InvalidUtf8 => SendError::InvalidUtf8,
        })?;
        let held = match &mut websocket.cold {
            Some(cold) if last => std::mem::take(&mut cold.held).frames,
            _ => Vec::new(),
        };
        self.short = Key::NONE;
        self.message_passed(index);
        let flow = self.push_data(index, header, payload);
        Ok(held.iter().fold(flow, |_, frame| self.push_frame_of_many(index, frame)))
    }

    pub(crate) fn send_ping(&mut self, conn: Key, payload: &[u8]) -> Result<Flow, SendError> {
        self.send_control(conn, Opcode::Ping, payload)
    }

    pub(crate) fn send_pong(&mut self, conn: Key, payload: &[u8]) -> Result<Flow, SendError> {
        self.send_control(conn, Opcode::Pong, payload)
    }

    fn send_control(&mut self, conn: Key, opcode: Opcode, payload: &[u8]) -> Result<Flow, SendError> {
        let (index, _) = self.sendable(conn)?;
        if payload.len() > MAX_CONTROL {
            return Err(SendError::ControlTooLong);
        }
        Ok(self.push_frame(index, Header::whole(opcode, payload.len()), payload))
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
        self.push_frame(index, Header::whole(Opcode::Pong, payload.len()), payload);
    }

    /// There is room again for the answer that waited.
    pub(crate) fn answer_waiting_ping(&mut self, index: u32) {
        let waiting = websocket(self.link(index)).and_then(|websocket| websocket.cold.as_mut()?.pong.take());
        if let Some(payload) = waiting {
            self.answer_ping(index, &payload);
        }
    }

    // Frames.

    /// Queues a frame of a message, compressed where that was agreed on and is worth it.
    fn push_data(&mut self, index: u32, mut header: Header, payload: &[u8]) -> Flow {
        let deflated = self.links.at_mut(index).and_then(websocket).and_then(WebSocket::deflated);
        let pools = &mut self.pools;
        match deflated.and_then(|deflated| deflated.compress(&mut header, payload, pools)) {
            Some(compressed) => {
                let flow = self.push_frame(index, header, &compressed);
                self.pools.give_scratch(compressed);
                flow
            }
            None => self.push_frame(index, header, payload),
        }
    }

    /// Queues a frame that was encoded for many; a client has to mask it with a key of its own.
    fn push_frame_of_many(&mut self, index: u32, frame: &Shared) -> Flow {
        let deflated = self.links.at_mut(index).and_then(websocket).and_then(WebSocket::deflated);
        let form = deflated.and_then(|deflated| deflated.form_of(frame, &mut self.pools));
        let frame = form.as_ref().unwrap_or(frame);
        match self.is_client(index) {
            true => self.push_frame(index, frame.header(), frame.payload()),
            false => self.push_shared(index, frame),
        }
    }

    /// Queues a frame on a link, or writes it; that of a client is masked (RFC 6455, section 5.3).
    fn push_frame(&mut self, index: u32, mut header: Header, payload: &[u8]) -> Flow {
        header.masking = self.masking(index);
        let head = header.encode();
        let Some(key) = header.masking else { return self.push(index, head.as_bytes(), payload) };
        if self.gather_masked(index, head.as_bytes(), payload, key) {
            return Flow::Ready;
        }
        // The payload is the caller's, and stays as it is.
        let mut masked = self.pool.take();
        if memory::reserve(&mut masked, payload.len()).is_err() {
            self.output_lost(index, head.as_bytes().len() + payload.len());
            return Flow::Full;
        }
        mask::apply_copy(key, payload, &mut masked);
        let flow = self.push(index, head.as_bytes(), &masked);
        self.pool.give(masked);
        flow
    }

    /// The masking key for the next frame of a link; none if we are its server.
    fn masking(&mut self, index: u32) -> Option<[u8; 4]> {
        self.is_client(index).then(|| self.randomness.take(&mut *self.env))
    }

    fn is_client(&mut self, index: u32) -> bool {
        websocket(self.link(index)).is_some_and(|websocket| websocket.kind.contains(Kind::CLIENT))
    }

    // Receiving.

    /// Takes what reads a link from its place, with what it has to keep to. `budget` is how many messages it may give.
    pub(crate) fn take_reading(&mut self, index: u32, budget: u32) -> (Reading, Settings) {
        let none = Receiver::new(Side::Server);
        let link = self.links.at_mut(index).expect("the link being served is there");
        let limits = &link.limits;
        let Role::WebSocket(websocket) = &mut link.role else {
            return (Reading::Plain(none), Settings::default());
        };
        let settings = websocket.settings(limits);
        let receiver = std::mem::replace(&mut websocket.receiver, none);
        let reading = match websocket.deflated() {
            None => Reading::Plain(receiver),
            Some(deflated) => deflated.take_reading(receiver, budget, &mut self.pools),
        };
        (reading, settings)
    }

    /// Puts it back. A message that is unfinished, or was before, is noted.
    pub(crate) fn put_reading(&mut self, index: u32, reading: Reading, was_unfinished: bool) {
        let is_unfinished = reading.receiver().in_message();
        let Some(websocket) = self.links.at_mut(index).and_then(websocket) else { return };
        websocket.receiver = match reading {
            Reading::Plain(receiver) => receiver,
            Reading::Extended(extended) => {
                let Some(deflated) = websocket.deflated() else { return };
                deflated.put_reading(extended, &mut self.pools)
            }
        };
        if is_unfinished || was_unfinished {
            self.message_left(index);
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
            ReceiveError::OutOfMemory => CloseReason::OutOfMemory,
        };
        self.fail_websocket_with(index, reason, code, &error.to_string());
    }

    /// Fails a connection: its peer is told by a Close with `code` and `text`, its handler by `reason`.
    pub(crate) fn fail_websocket_with(
        &mut self,
        index: u32,
        reason: CloseReason,
        code: CloseCode,
        text: &str,
    ) {
        self.set_reason(index, reason);
        if let Some(action) = self.closing_step(index, ClosingInput::Failed) {
            self.closing_action(index, action, Some((code, text)));
        }
    }

    /// Whether a conn's handler still hears something besides the end: neither side has begun to close.
    pub(crate) fn hears(&mut self, conn: Key) -> bool {
        let Some(index) = self.live(conn).map(|conn| conn.link) else { return false };
        // Without a link it is on its way to where a redirect leads.
        let Some((_, link)) = self.links.at(index) else { return self.connecting_of(conn).is_some() };
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
                    encode_close(&mut frame, close, self.masking(index));
                    let waits = self.unsent(index) > 0;
                    if let Some(websocket) = websocket(self.link(index)) {
                        websocket.cold().goodbye = if waits { frame.len() } else { usize::MAX };
                    }
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
            (cold.active, cold.last_message, cold.ping) = (now, now, Ping::None);
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
        let link = self.link(index);
        let paused = link.flags.contains(Flags::PAUSED);
        let timed = link.flags.contains(Flags::TIMED);
        let Some(websocket) = websocket(link) else { return };
        if !websocket.closing.may_send() {
            let _ = websocket.closing.step(ClosingInput::TimedOut);
            return self.end(index, CloseReason::TimedOut(Timeout::Closing));
        }
        if paused || !timed {
            return;
        }
        if self.is_idle(index) {
            self.set_reason(index, CloseReason::TimedOut(Timeout::Idle));
            return self.close_websocket(index, Some((CloseCode::GOING_AWAY, "idle")));
        }
        if self.owes_pong(index) {
            return self.abort(index, CloseReason::TimedOut(Timeout::PongWait));
        }
        let next = [self.idle_due(index), self.ping_due(index)].into_iter().flatten().min();
        if let Some(next) = next {
            self.arm_phase_at(index, next);
        }
    }

    fn is_idle(&mut self, index: u32) -> bool {
        let now = self.now();
        self.idle_due(index).is_some_and(|due| due <= now)
    }

    /// When a connection will have been without messages for too long. One that goes out slowly is under way as long as the peer
    /// takes something of it.
    fn idle_due(&mut self, index: u32) -> Option<Tick> {
        let link = self.link(index);
        let idle = link.limits.idle?;
        let taken = link.queue.as_ref().and_then(|queue| queue.last_taken()).unwrap_or_default();
        let cold = websocket(link)?.cold();
        Some(cold.last_message.max(taken).after(idle))
    }

    /// Whether a Ping has left, and nothing has come since for as long as that may take.
    fn owes_pong(&mut self, index: u32) -> bool {
        let now = self.now();
        let link = self.link(index);
        let wait = link.limits.pong_wait;
        let Some(websocket) = websocket(link) else { return false };
        let cold = websocket.cold();
        match cold.ping {
            Ping::Left(at) if cold.active >= at => {
                cold.ping = Ping::None;
                false
            }
            Ping::Left(at) => at.after(wait) <= now,
            Ping::Queued(_) | Ping::None => false,
        }
    }

    /// When there is to be looked after Ping and Pong again. Sends a Ping if it is time for one.
    fn ping_due(&mut self, index: u32) -> Option<Tick> {
        let now = self.now();
        let link = self.link(index);
        let (interval, wait) = (link.limits.ping_interval?, link.limits.pong_wait);
        let cold = websocket(link)?.cold();
        match cold.ping {
            Ping::Left(at) => return Some(at.after(wait)),
            // A peer that takes nothing of what lies before it has a limit of its own.
            Ping::Queued(_) => return Some(now.after(wait)),
            Ping::None => {}
        }
        let due = cold.active.after(interval);
        if due > now {
            return Some(due);
        }
        let conn = self.link(index).conn;
        let sent = self.conns.key_at(conn).is_some_and(|conn| self.send_ping(conn, b"").is_ok());
        let link = self.link(index);
        let left_at = link.sent + link.queued() as u64;
        if let Some(websocket) = websocket(link).filter(|_| sent) {
            websocket.cold().ping = Ping::Queued(left_at);
            return Some(now.after(wait));
        }
        // There is no room for it: no Pong is owed, and another is tried later.
        Some(now.after(interval))
    }

    /// Output has left that waited: a Ping may have been among it, and the peer's time for the Pong begins.
    pub(crate) fn ping_may_have_left(&mut self, index: u32) {
        let now = self.now();
        let link = self.link(index);
        let sent = link.sent;
        if let Some(cold) = websocket(link).and_then(|websocket| websocket.cold.as_mut())
            && matches!(cold.ping, Ping::Queued(left_at) if left_at <= sent)
        {
            cold.ping = Ping::Left(now);
        }
    }

    /// The peer has ended its half: what is queued still goes out, since who only ends its half reads on.
    pub(crate) fn websocket_ended(&mut self, index: u32) {
        if self.closing_step(index, ClosingInput::PeerEnded).is_some() {
            self.set_reason(index, CloseReason::PeerEnded);
            self.finish_and_linger(index);
        }
    }
}

/// How the closing handshake went, for the one who hears of the end.
pub(crate) fn handshake_reason(closing: Closing, close: Option<super::CloseFrame<'_>>) -> CloseReason {
    let by = if closing == Closing::Open { By::Peer } else { By::Us };
    let (code, reason) =
        close.map_or((None, String::new()), |close| (Some(close.code), close.reason.to_owned()));
    CloseReason::Handshake { by, code, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemEnv;
    use crate::net::Net;
    use crate::ws::Event;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    /// A client's link, and the server's end of it.
    fn client() -> (Core, Key, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut core = Core::new(Net::System, Box::new(SystemEnv), 10, 10);
        let role = Role::WebSocket(WebSocket::new(Side::Client, Receive::Whole));
        let limits = Limits { send_max: usize::MAX, send_high_water: usize::MAX, ..Limits::default() };
        let index = core.add_link(Link::new(ours.into(), role, None, Rc::new(limits)));
        let conn = core.add_conn(index);
        (core, conn, theirs)
    }

    /// What the server gets to read, as events written out and their payloads.
    fn read(core: &mut Core, theirs: &mut UnixStream) -> Vec<(&'static str, Vec<u8>)> {
        let mut bytes = Vec::new();
        loop {
            core.flush_waiting(&mut crate::engine::Budget::new());
            core.flush(0, &mut crate::engine::Budget::new());
            let before = bytes.len();
            let _ = theirs.read_to_end(&mut bytes);
            if bytes.len() == before {
                break;
            }
        }
        let (mut receiver, mut used) = (Receiver::new(Side::Server), 0);
        let mut events = Vec::new();
        while let (took, Some(event)) = receiver.next(&mut bytes[used..], &Settings::default()).unwrap() {
            used += took;
            events.push(match event {
                Event::Message(Message::Text(text)) => ("text", text.as_bytes().to_vec()),
                Event::Message(Message::Binary(bytes)) => ("binary", bytes.to_vec()),
                Event::Ping(payload) => ("ping", payload.to_vec()),
                Event::Pong(payload) => ("pong", payload.to_vec()),
                Event::Close(close) => ("close", close.unwrap().reason.as_bytes().to_vec()),
                Event::Piece(_) => unreachable!("messages are received whole"),
            });
        }
        assert_eq!(used, bytes.len());
        events
    }

    #[test]
    fn whatever_a_client_sends_is_masked_and_the_callers_bytes_stay_as_they_are() {
        for gathered in [false, true] {
            for length in [0, 1, 125, 126, 1000, DIRECT - 1, DIRECT, 300_000] {
                let (mut core, conn, mut theirs) = client();
                if gathered {
                    core.make_current(0);
                }
                let payload = vec![b'x'; length];
                let shared = Shared::new(Message::Binary(&payload));
                core.send_message(conn, Message::Text(str::from_utf8(&payload).unwrap())).unwrap();
                core.send_ping(conn, b"ping").unwrap();
                core.send_piece(conn, MessageKind::Binary, &payload, false).unwrap();
                core.send_shared(conn, &shared).unwrap();
                core.answer_ping(0, b"pong");
                core.send_piece(conn, MessageKind::Binary, b"end", true).unwrap();
                core.send_shared(conn, &shared).unwrap();
                core.close_websocket(0, Some((CloseCode::NORMAL, "bye")));
                if gathered {
                    core.release_current();
                }
                let expected = [
                    ("text", payload.clone()),
                    ("ping", b"ping".to_vec()),
                    ("pong", b"pong".to_vec()),
                    ("binary", [&payload[..], b"end"].concat()),
                    ("binary", payload.clone()),
                    ("binary", payload.clone()),
                    ("close", b"bye".to_vec()),
                ];
                assert!(read(&mut core, &mut theirs) == expected, "{length} bytes, gathered: {gathered}");
                assert_eq!(shared.payload(), payload);
            }
        }
    }

    #[test]
    fn every_frame_of_a_client_has_a_masking_key_of_its_own() {
        let (mut core, conn, mut theirs) = client();
        for _ in 0..500 {
            core.send_message(conn, Message::Binary(b"")).unwrap();
        }
        core.flush_waiting(&mut crate::engine::Budget::new());
        let mut bytes = Vec::new();
        let _ = theirs.read_to_end(&mut bytes);
        let keys: std::collections::HashSet<_> = bytes.chunks(6).map(|frame| &frame[2..]).collect();
        assert!(bytes.len() == 3000 && keys.len() > 490, "{} keys", keys.len());
    }
}
