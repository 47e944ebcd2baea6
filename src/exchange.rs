//! Requests and their handlers: where HTTP on a link meets the protocols of its site.

use crate::context::{Context, Next, protocol_at};
use crate::engine::REQUEST;
use crate::engine::link::{Flags, State};
use crate::engine::store::Key;
use crate::handler::{AnyHandler, CloseReason, Decision, Timeout};
use crate::http::{Fields, Request, Response, StatusCode};
use crate::http1::body::{BodyError, Decoder, Step};
use crate::http1::encode::Asked;
use crate::http1::head::{self, Framing, Head};
use crate::http1::role::{Output, Phase, error_response};
use crate::memory;
use crate::net::Peer;
use crate::role::Role;
use crate::ws;
use crate::ws::extension::{Deflate, Deflated};
use crate::ws::handshake::{self, AcceptKey};
use crate::ws::role::WebSocket;
use std::mem::MaybeUninit;

/// So many fields of a head are read on the stack; a site that allows more costs an allocation for each of those heads.
const FIELDS: usize = 100;

/// How far content was handed over.
pub(crate) enum Handed {
    End(Fields),
    Failed(BodyError),
    /// There is no more of it for now, or something is in the way.
    Stopped(Next),
}

/// What an upgrade needs besides its request.
struct Upgrade<'a> {
    key: AcceptKey,
    /// The name of the protocol that was chosen, if the client offers it.
    subprotocol: Option<&'a str>,
}

impl<D> Context<D> {
    /// Takes one step of HTTP with the input of a link.
    pub(crate) fn handle_http(
        &mut self,
        index: u32,
        input: &mut [u8],
        budget: &mut u32,
        data: &mut D,
    ) -> (usize, Next) {
        let Some(server) = self.io.core.server(index) else { return (0, Next::Again) };
        match server.phase {
            Phase::Head => {
                if !input.is_empty() {
                    *budget = budget.saturating_sub(REQUEST);
                }
                self.read_head(index, input, data)
            }
            Phase::Deciding => (0, Next::Stop),
            Phase::Exchange => {
                let received = server.received;
                self.io.core.pump_file(index);
                let Some(server) = self.io.core.server(index) else { return (0, Next::Again) };
                if server.response == Output::Complete && self.io.core.exchange_may_end(index) {
                    // Now, so that a handler hears of its end before the next request has one.
                    self.tell_all_closed(data);
                    (0, Next::Again)
                } else if received {
                    (0, Next::Stop)
                } else {
                    self.read_content(index, input, budget, data)
                }
            }
        }
    }

    fn read_head(&mut self, index: u32, input: &[u8], data: &mut D) -> (usize, Next) {
        if input.is_empty() {
            return (0, Next::More);
        }
        let core = &mut self.io.core;
        let limits = core.limits(index);
        let Some(server) = core.server(index) else { return (0, Next::Again) };
        match head::find_end(input, &mut server.seen, limits.head) {
            Ok(Some(end)) => {
                self.parse_head(index, &input[..end], limits.fields, data);
                (end, Next::Again)
            }
            Ok(None) => {
                // The first request has its time from the moment of accepting.
                if !server.first && !std::mem::replace(&mut server.in_head, true) {
                    core.arm_phase(index, limits.head_time);
                }
                (0, Next::More)
            }
            Err(error) => {
                core.refuse(index, error_response(error.status()));
                (input.len(), Next::Again)
            }
        }
    }

    fn parse_head(&mut self, index: u32, bytes: &[u8], fields: usize, data: &mut D) {
        let mut room = [const { MaybeUninit::uninit() }; FIELDS];
        let mut more = Vec::new();
        let room = if fields <= FIELDS {
            &mut room[..fields]
        } else {
            more.resize_with(fields, MaybeUninit::uninit);
            &mut more[..]
        };
        match head::parse(bytes, room) {
            Ok(head) => self.request(index, &head, bytes, data),
            Err(error) => self.io.core.refuse(index, error_response(error.status())),
        }
    }

    /// A request's head is there: finds out what becomes of it.
    fn request(&mut self, index: u32, head: &Head<'_>, bytes: &[u8], data: &mut D) {
        let core = &mut self.io.core;
        core.cancel_phase(index);
        core.left_handshake(index);
        let site = core.site_of_request(index, head.host);
        let limits = core.limits(index);
        let conn = core.add_conn(index);
        let link = core.link(index);
        let secure = link.flags.contains(Flags::SECURE);
        let peer = link.peer().map_or(Peer::Unix(None), Peer::Inet);
        let Some(server) = core.server(index) else { return };
        server.asked = Asked::by(head);
        server.phase = Phase::Exchange;
        server.owes_continue = head.expects_continue;
        match Decoder::new(head.framing, &limits) {
            Ok(content) => server.content = content,
            Err(error) => return core.refuse(index, error_response(error.status())),
        }
        core.await_content(index);
        let Some(site) = site else {
            return core.refuse(index, error_response(StatusCode::MISDIRECTED_REQUEST));
        };
        let Some(facts) = core.sites.get(site) else { return core.abort(index, CloseReason::Leaving) };
        let request = Request::new(core.conn_id(conn), &peer, head);
        let mut protocol = 0;
        let mut upgrade = None;
        if request.is_websocket() {
            // Whoever passes it on may take what follows for content, and we for frames.
            if !matches!(head.framing, Framing::None | Framing::Length(0)) {
                return core.refuse(index, error_response(StatusCode::BAD_REQUEST));
            }
            if !facts.policy.lets_in(request.origin(), request.host(), secure) {
                return self.answer(index, error_response(StatusCode::FORBIDDEN));
            }
            let key = match handshake::check(request.method(), 1, request.fields()) {
                Ok(key) => key,
                Err(error) => return self.answer(index, handshake_refusal(error)),
            };
            let named = |name| Some((name, self.protocol_named(site, name)?));
            let chosen = request.subprotocols().find_map(named);
            protocol = chosen.map_or(0, |(_, protocol)| protocol);
            upgrade = Some(Upgrade { key, subprotocol: chosen.map(|(name, _)| name) });
        }
        if let Some(key) =
            self.io.core.sites.get(site).and_then(|facts| facts.protocols.get(protocol)).copied()
        {
            self.io.core.bind(conn, key);
        }
        let Some(chosen) = protocol_at(&mut self.protocols, site, protocol) else {
            return self.answer(index, error_response(StatusCode::NOT_FOUND));
        };
        if let Some(server) = self.io.core.server(index) {
            server.phase = Phase::Deciding;
        }
        self.running = conn.index;
        let decision = chosen.accept(&request, data, &mut self.io);
        self.running = crate::engine::link::NO_CONN;
        self.carry_out(index, conn, decision, &request, upgrade, bytes, data);
    }

    /// The place of the protocol that has this name at a site.
    fn protocol_named(&self, site: Key, name: &str) -> Option<usize> {
        let facts = self.io.core.sites.get(site)?;
        facts.protocols.iter().position(|key| {
            let protocol = self.io.core.protocols.get(*key);
            protocol.is_some_and(|protocol| protocol.name == name)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "all that a request and its decision are")]
    fn carry_out(
        &mut self,
        index: u32,
        conn: Key,
        decision: Decision<D>,
        request: &Request<'_>,
        upgrade: Option<Upgrade<'_>>,
        bytes: &[u8],
        data: &mut D,
    ) {
        if self.io.core.live(conn).is_none() || self.io.core.link(index).state != State::Open {
            return;
        }
        if let Some(server) = self.io.core.server(index) {
            server.phase = Phase::Exchange;
        }
        match (decision, upgrade) {
            (Decision::WebSocket(_), _) if self.is_ending(index) => {
                self.answer(index, error_response(StatusCode::SERVICE_UNAVAILABLE));
            }
            (Decision::WebSocket(accept), Some(upgrade)) => {
                self.upgrade(index, conn, accept, request, &upgrade, data)
            }
            (Decision::WebSocket(_), None) => {
                let response = error_response(StatusCode::UPGRADE_REQUIRED).field("Upgrade", "websocket");
                self.answer(index, response);
            }
            (Decision::Http(handler), _) => self.exchange(index, conn, handler, request, data),
            (Decision::Respond(response), _) => self.answer(index, response),
            (Decision::Later, _) => {
                let core = &mut self.io.core;
                let Ok(bytes) = memory::copy(bytes) else { return core.out_of_memory(index) };
                if let Some(server) = core.server(index) {
                    server.head = bytes;
                    server.phase = Phase::Deciding;
                }
                let handshake = core.limits(index).handshake;
                core.arm_phase(index, handshake);
            }
        }
    }

    /// Whether a link is only there for what it has under way.
    fn is_ending(&mut self, index: u32) -> bool {
        let core = &mut self.io.core;
        let Some(server) = core.server(index) else { return false };
        let (last, site) = (server.last, server.site);
        last || core.leaving || core.sites.get(site).is_none_or(|facts| facts.removed)
    }

    /// A decision that was to come later is there.
    pub(crate) fn decided(&mut self, conn: Key, decision: Decision<D>, data: &mut D) {
        if !self.io.core.is_deciding(conn) {
            return;
        }
        let Some(index) = self.io.core.live(conn).map(|conn| conn.link) else { return };
        let core = &mut self.io.core;
        core.cancel_phase(index);
        let limits = core.limits(index);
        let peer = core.link(index).peer().map_or(Peer::Unix(None), Peer::Inet);
        let Some(server) = core.server(index) else { return };
        server.phase = Phase::Exchange;
        server.decided = false;
        let bytes = std::mem::take(&mut server.head);
        core.await_content(index);
        let mut room = Vec::new();
        room.resize_with(limits.fields, MaybeUninit::uninit);
        let Ok(head) = head::parse(&bytes, &mut room) else { return };
        let request = Request::new(core.conn_id(conn), &peer, &head);
        let upgrade = if request.is_websocket() {
            let name = core
                .conns
                .get(conn)
                .and_then(|conn| core.protocols.at(conn.protocol))
                .map(|(_, facts)| &facts.name);
            let subprotocol = request.subprotocols().find(|offered| name.is_some_and(|name| name == offered));
            let key = handshake::check(request.method(), 1, request.fields());
            key.ok().map(|key| Upgrade { key, subprotocol })
        } else {
            None
        };
        core.make_current(index);
        self.carry_out(index, conn, decision, &request, upgrade, &bytes, data);
        self.io.core.release_current();
        self.io.core.resume_later(index);
        let link = self.io.core.link(index);
        // A peer that has ended its half meanwhile, as one may that waits for a response, cannot be talked with.
        if link.flags.contains(Flags::END_RECEIVED) && matches!(link.role, Role::WebSocket(_)) {
            self.websocket_input_ended(index, data);
        }
    }

    /// The opening handshake succeeds (RFC 6455, section 4.2.2).
    fn upgrade(
        &mut self,
        index: u32,
        conn: Key,
        accept: ws::Accept<D>,
        request: &Request<'_>,
        upgrade: &Upgrade<'_>,
        data: &mut D,
    ) {
        let chosen = match &accept.subprotocol {
            None => upgrade.subprotocol,
            Some(named) => named.as_deref(),
        };
        let offered = chosen.is_none_or(|name| request.subprotocols().any(|offered| offered == name));
        let mut fields = Fields::new();
        let sound = accept.fields.iter().all(|(name, value)| fields.push(name, value).is_ok());
        let deflated = self.negotiate(index, accept.deflate, request);
        let core = &mut self.io.core;
        let extensions = deflated.as_ref().map(Deflated::field);
        let (key, extensions) = (&upgrade.key, extensions.as_deref());
        if !offered || !sound || core.switch_protocols(index, key, chosen, extensions, &fields).is_err() {
            if let Some(deflated) = deflated {
                core.pools.take_back(deflated);
            }
            log::error!(target: "lodger::http", "an upgrade was accepted with a field or a subprotocol that must not be sent");
            return self.answer(index, error_response(StatusCode::INTERNAL_SERVER_ERROR));
        }
        // Seen by whoever looks after a panic.
        self.io.core.work = true;
        if accept.read_when_full {
            self.io.core.read_when_full(conn, true);
        }
        let mut websocket = WebSocket::new(ws::Side::Server, accept.handler.receive());
        if let Some(deflated) = deflated {
            websocket.extend(deflated);
        }
        self.io.core.link(index).role = Role::WebSocket(websocket);
        self.io.core.begin_websocket_timers(index);
        *self.handlers.place(conn.index) = Some(AnyHandler::WebSocket(accept.handler));
        self.with_handler(conn.index, data, |handler, cx| {
            if let AnyHandler::WebSocket(handler) = handler {
                handler.opened(cx, request);
            }
        });
    }

    /// Which extension is agreed on (RFC 6455, section 9.1): `chosen`, or that of the site, if the client offers it.
    fn negotiate(
        &mut self,
        index: u32,
        chosen: Option<Option<Deflate>>,
        request: &Request<'_>,
    ) -> Option<Deflated> {
        let core = &mut self.io.core;
        let site = core.server(index)?.site;
        let options = chosen.unwrap_or_else(|| core.sites.get(site)?.policy.deflate)?;
        let offers: Vec<&[u8]> = request.field_all("Sec-WebSocket-Extensions").collect();
        core.pools.accept(&options, offers.iter().copied())
    }

    /// The handler has the exchange.
    fn exchange(
        &mut self,
        index: u32,
        conn: Key,
        handler: Box<dyn crate::http::Handler<D>>,
        request: &Request<'_>,
        data: &mut D,
    ) {
        *self.handlers.place(conn.index) = Some(AnyHandler::Http(handler));
        self.with_handler(conn.index, data, |handler, cx| {
            if let AnyHandler::Http(handler) = handler {
                handler.request(cx, request);
            }
        });
        let core = &mut self.io.core;
        if core.server(index).is_some_and(|server| server.response == Output::None) {
            core.send_continue(index);
        }
    }

    /// Responds without a handler.
    fn answer(&mut self, index: u32, mut response: Response) {
        let core = &mut self.io.core;
        // It is read and dropped for the sake of the next request, but not without bounds, and then the connection ends: who will
        // end it says so (RFC 9112, section 9.6).
        response.close |= core.leaves_content(index);
        if core.respond_on(index, response).is_err() {
            self.io.core.refuse(index, error_response(StatusCode::INTERNAL_SERVER_ERROR));
        }
    }

    fn read_content(&mut self, index: u32, input: &[u8], budget: &mut u32, data: &mut D) -> (usize, Next) {
        let link = self.io.core.link(index);
        if link.flags.contains(Flags::PAUSED) {
            self.io.core.end_is_held(index);
            return (0, Next::Stop);
        }
        let conn = link.conn;
        let Some(server) = self.io.core.server(index) else { return (0, Next::Again) };
        // Out of its place while handlers run.
        let mut content = std::mem::replace(&mut server.content, Decoder::None);
        let (used, handed) = self.hand_over(index, &mut content, input, budget, |context, piece| {
            context.content_piece(index, conn, piece, data);
        });
        let next = match handed {
            Handed::Stopped(next) => next,
            Handed::End(trailers) => {
                self.content_complete(index, conn, &trailers, data);
                Next::Again
            }
            Handed::Failed(error) => {
                self.content_malformed(index, error);
                Next::Again
            }
        };
        if let Some(server) = self.io.core.server(index) {
            server.content = content;
        }
        (used, next)
    }

    /// Hands over content piece by piece, until it ends or something is in the way.
    pub(crate) fn hand_over(
        &mut self,
        index: u32,
        content: &mut Decoder,
        input: &[u8],
        budget: &mut u32,
        mut take: impl FnMut(&mut Self, &[u8]),
    ) -> (usize, Handed) {
        let mut used = 0;
        loop {
            let (step, took) = match content.next(&input[used..]) {
                Ok(step) => step,
                Err(error) => return (used, Handed::Failed(error)),
            };
            used += took;
            match step {
                Step::More => return (used, Handed::Stopped(Next::More)),
                Step::End(trailers) => return (used, Handed::End(trailers)),
                Step::Piece(piece) => {
                    *budget = budget.saturating_sub(1);
                    take(self, piece);
                }
            }
            let link = self.io.core.link(index);
            if link.state != State::Open {
                return (used, Handed::Stopped(Next::Again));
            }
            if link.flags.contains(Flags::PAUSED) {
                return (used, Handed::Stopped(Next::Stop));
            }
            if *budget == 0 {
                return (used, Handed::Stopped(Next::Later));
            }
        }
    }

    fn content_piece(&mut self, index: u32, conn: u32, piece: &[u8], data: &mut D) {
        if self.handlers.get(conn).is_some() {
            self.with_receiver(conn, data, |handler, cx| {
                if let AnyHandler::Http(handler) = handler {
                    handler.body(cx, piece);
                }
            });
        } else if let Some(server) = self.io.core.server(index) {
            server.dropped += piece.len() as u64;
        }
    }

    fn content_complete(&mut self, index: u32, conn: u32, trailers: &Fields, data: &mut D) {
        let core = &mut self.io.core;
        core.cancel_phase(index);
        core.link(index).flags.remove(Flags::TIMED);
        if let Some(server) = core.server(index) {
            server.received = true;
        }
        self.with_handler(conn, data, |handler, cx| {
            if let AnyHandler::Http(handler) = handler {
                handler.body_complete(cx, trailers);
            }
        });
        let core = &mut self.io.core;
        if core.link(index).flags.contains(Flags::END_RECEIVED) {
            core.tell_peer_ended(index);
        }
        if core.server(index).is_some_and(|server| server.response != Output::Complete) {
            core.arm_exchange(index);
        }
    }

    fn content_malformed(&mut self, index: u32, error: BodyError) {
        let reason = match error {
            BodyError::TooLarge => CloseReason::ContentTooLarge,
            BodyError::OutOfMemory => CloseReason::OutOfMemory,
            _ => CloseReason::Content,
        };
        self.io.core.set_reason(index, reason);
        self.io.core.refuse(index, error_response(error.status()));
    }

    /// The peer has ended its half of an HTTP connection.
    pub(crate) fn http_input_ended(&mut self, index: u32) {
        let core = &mut self.io.core;
        let queued = core.link(index).queued();
        let Some(server) = core.server(index) else { return };
        match server.phase {
            // A client that has all its requests out may end its half and still wants the response (RFC 9112, section 9.6).
            Phase::Exchange if server.is_request_whole() => {
                server.asked.keep_alive = false;
                core.tell_peer_ended(index);
                core.arm_exchange(index);
                core.resume_later(index);
            }
            Phase::Deciding if server.is_request_whole() => {}
            // The last response may still be on its way.
            Phase::Head if queued > 0 => core.finish_and_linger(index),
            Phase::Head | Phase::Deciding | Phase::Exchange => core.end(index, CloseReason::PeerEnded),
        }
    }

    /// The time of a connection's phase is up.
    pub(crate) fn http_timer(&mut self, index: u32) {
        let core = &mut self.io.core;
        let now = core.now();
        let limits = core.limits(index);
        let link = core.link(index);
        let (partial, queued) = (link.kept.is_some(), link.queued());
        let Some(server) = core.server(index) else { return };
        let active = server.active;
        match server.phase {
            Phase::Head if partial => core.refuse(index, error_response(StatusCode::REQUEST_TIMEOUT)),
            Phase::Head if queued > 0 => core.finish_and_linger(index),
            Phase::Head => {
                let limit = if server.first { Timeout::Handshake } else { Timeout::KeepAlive };
                core.end(index, CloseReason::TimedOut(limit));
            }
            Phase::Deciding => {
                server.phase = Phase::Exchange;
                server.head = Vec::new();
                core.set_reason(index, CloseReason::TimedOut(Timeout::Handshake));
                core.refuse(index, error_response(StatusCode::SERVICE_UNAVAILABLE));
            }
            Phase::Exchange => {
                if !core.exchange_goes_on(index) {
                    return;
                }
                let link = core.link(index);
                let unread = link.flags.intersects(Flags::PAUSED.union(Flags::END_RECEIVED));
                let awaits = link.flags.contains(Flags::TIMED);
                if unread || !awaits || active.after(limits.body_stall) > now {
                    return core.arm_exchange(index);
                }
                core.set_reason(index, CloseReason::TimedOut(Timeout::BodyStall));
                core.refuse(index, error_response(StatusCode::REQUEST_TIMEOUT));
            }
        }
    }
}

fn handshake_refusal(error: handshake::HandshakeError) -> Response {
    let status = StatusCode::new(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let response = Response::text(format!("{error}\n")).status(status);
    let fields = error.fields().iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Connection"));
    fields.fold(response, |response, (name, value)| response.field(name, value))
}
