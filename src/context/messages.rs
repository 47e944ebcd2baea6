//! What comes on a WebSocket, and its handler.

use super::{Context, Next};
use crate::engine::Core;
use crate::engine::link::{Flags, NO_CONN, State};
use crate::engine::store::Key;
use crate::handler::AnyHandler;
use crate::io::Cx;
use crate::role::Role;
use crate::ws;
use crate::ws::extension::{Reading, Source};

impl<D> Context<D> {
    pub(super) fn handle_websocket(
        &mut self,
        index: u32,
        input: &mut [u8],
        budget: &mut u32,
        data: &mut D,
    ) -> (usize, Next) {
        let link = self.io.core.link(index);
        let (conn, timed) = (link.conn, link.flags.contains(Flags::TIMED));
        let Role::WebSocket(websocket) = &link.role else { return (input.len(), Next::More) };
        if !websocket.closing.may_send() {
            return self.await_close(index, input, budget);
        }
        if link.flags.contains(Flags::PAUSED) {
            // In `opened`, with messages right behind the handshake.
            return (0, Next::Stop);
        }
        let short = websocket.sends_plainly() && link.is_short(websocket) && !timed;
        let Some(AnyHandler::WebSocket(handler)) = self.handlers.get(conn) else {
            return (input.len(), Next::More);
        };
        let Some(key) = self.io.core.conns.key_at(conn) else { return (input.len(), Next::More) };
        self.running = conn;
        self.io.core.short = if short { key } else { Key::NONE };
        // Out of its place while handlers run: an event may borrow from it, and handlers get everything else.
        let (reading, settings) = self.io.core.take_reading(index, *budget);
        let was_unfinished = reading.receiver().in_message();
        let mut cx = Cx::new(data, &mut self.io, key);
        let (handler, spare) = (&mut **handler, &mut self.spare);
        let (used, next, mut reading) = match reading {
            Reading::Plain(mut receiver) => {
                let (used, next) =
                    deliver_all(&mut receiver, handler, &mut cx, index, input, &settings, spare, budget);
                (used, next, Reading::Plain(receiver))
            }
            Reading::Extended(mut extended) => {
                let (used, next) =
                    deliver_all(&mut extended, handler, &mut cx, index, input, &settings, spare, budget);
                *budget = extended.budget_left(*budget);
                if extended.has_more() && matches!(next, Next::Stop | Next::Later) {
                    // Though no input may be left: what comes after it has to wait.
                    self.io.core.link(index).flags.insert(Flags::BACKLOG);
                }
                (used, next, Reading::Extended(extended))
            }
        };
        self.running = NO_CONN;
        // Whoever pauses after a message, or waits for the next, does not hold the last one.
        reading.handed_over(spare);
        self.io.core.put_reading(index, reading, was_unfinished);
        (used, next)
    }

    /// The peer has ended its half, and with it the connection, though not by a Close that both know of.
    pub(crate) fn websocket_input_ended(&mut self, index: u32, data: &mut D) {
        let link = self.io.core.link(index);
        let conn = link.conn;
        let open = matches!(&link.role, Role::WebSocket(websocket) if websocket.closing.may_send());
        if open && self.io.core.hears_first_end(conn) {
            self.with_gathered(conn, data, |handler, cx| {
                if let AnyHandler::WebSocket(handler) = handler {
                    handler.peer_ended(cx);
                }
            });
        }
        self.io.core.websocket_ended(index);
    }

    /// Looks for the peer's answer to our Close. What comes before it is nobody's any more.
    #[cold]
    fn await_close(&mut self, index: u32, input: &mut [u8], budget: &mut u32) -> (usize, Next) {
        let (reading, settings) = self.io.core.take_reading(index, *budget);
        let was_unfinished = reading.receiver().in_message();
        let (core, spare) = (&mut self.io.core, &mut self.spare);
        let (used, next, mut reading) = match reading {
            Reading::Plain(mut receiver) => {
                let (used, next) =
                    drop_until_close(&mut receiver, core, index, input, &settings, spare, budget);
                (used, next, Reading::Plain(receiver))
            }
            Reading::Extended(mut extended) => {
                let (used, next) =
                    drop_until_close(&mut extended, core, index, input, &settings, spare, budget);
                *budget = extended.budget_left(*budget);
                (used, next, Reading::Extended(extended))
            }
        };
        reading.handed_over(spare);
        core.put_reading(index, reading, was_unfinished);
        (used, next)
    }
}

/// Hands over what comes from `source`, until there is no more of it, or something is in the way.
#[expect(clippy::too_many_arguments, reason = "each is borrowed from another place")]
#[inline]
fn deliver_all<D, S: Source>(
    source: &mut S,
    handler: &mut dyn ws::Handler<D>,
    cx: &mut Cx<'_, D>,
    index: u32,
    input: &mut [u8],
    settings: &ws::Settings,
    spare: &mut ws::Spare,
    budget: &mut u32,
) -> (usize, Next) {
    let mut used = 0;
    let next = loop {
        match source.next(&mut input[used..], settings, spare, budget) {
            Ok((took, None)) => {
                used += took;
                let stopped = source.is_exhausted() || (*budget == 0 && used < input.len());
                break if stopped { Next::Later } else { Next::More };
            }
            Ok((took, Some(event))) => {
                used += took;
                deliver(handler, cx, index, event);
            }
            Err(error) => {
                used = input.len();
                if let ws::ReceiveError::TooLarge(size) = error {
                    handler.too_large(cx, size);
                }
                cx.io.core.fail_websocket(index, error);
                break Next::More;
            }
        }
        if std::mem::take(&mut cx.io.core.interrupted) {
            let link = cx.io.core.link(index);
            let closing = matches!(&link.role, Role::WebSocket(websocket) if !websocket.closing.may_send());
            if link.state != State::Open || closing {
                break Next::Again;
            }
            if link.flags.contains(Flags::PAUSED) {
                break Next::Stop;
            }
        }
        *budget = budget.saturating_sub(1);
        if *budget == 0 || source.is_exhausted() {
            break Next::Later;
        }
        if used == input.len() && source.is_idle() {
            break Next::More;
        }
    };
    (used, next)
}

/// Drops what comes before the peer's Close.
fn drop_until_close<S: Source>(
    source: &mut S,
    core: &mut Core,
    index: u32,
    input: &mut [u8],
    settings: &ws::Settings,
    spare: &mut ws::Spare,
    budget: &mut u32,
) -> (usize, Next) {
    let mut used = 0;
    let next = loop {
        match source.next(&mut input[used..], settings, spare, budget) {
            Ok((took, Some(ws::Event::Close(close)))) => {
                used += took;
                let closing = core.closing(index);
                core.set_reason(index, ws::role::handshake_reason(closing, close));
                core.peer_closed(index, close.map(|close| close.code));
                break Next::Again;
            }
            Ok((took, event)) => {
                used += took;
                let is_none = event.is_none();
                *budget = budget.saturating_sub(u32::from(!is_none));
                if source.is_exhausted() || (*budget == 0 && used < input.len()) {
                    break Next::Later;
                }
                if is_none {
                    break Next::More;
                }
            }
            Err(error) => {
                used = input.len();
                core.fail_websocket(index, error);
                break Next::More;
            }
        }
    };
    (used, next)
}

/// Tells a WebSocket's handler of an event, and does what the protocol asks for besides.
fn deliver<D>(handler: &mut dyn ws::Handler<D>, cx: &mut Cx<'_, D>, index: u32, event: ws::Event<'_>) {
    match event {
        ws::Event::Message(message) => {
            cx.io.core.message_passed(index);
            handler.message(cx, message);
        }
        ws::Event::Piece(piece) => {
            cx.io.core.message_passed(index);
            handler.piece(cx, piece);
        }
        ws::Event::Ping(payload) => {
            cx.io.core.answer_ping(index, payload);
            handler.ping(cx, payload);
        }
        ws::Event::Pong(payload) => handler.pong(cx, payload),
        ws::Event::Close(close) => {
            let closing = cx.io.core.closing(index);
            cx.io.core.set_reason(index, ws::role::handshake_reason(closing, close));
            if closing == ws::Closing::Open {
                handler.peer_closed(cx, close);
            }
            cx.io.core.peer_closed(index, close.map(|close| close.code));
        }
    }
}
