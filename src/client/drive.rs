//! Clients and their handlers: where a connection that has been made meets what is to be spoken on it.

use super::UrlError;
use super::connect::is_secret;
use super::proxy::{Negotiation, Progress, ProxyError};
use super::{ConnectError, ExchangeError, RedirectError, Refusal};
use crate::context::{Context, Next};
use crate::engine::connect::Speak;
use crate::engine::link::{Flags, State};
use crate::engine::store::Key;
use crate::exchange::Handed;
use crate::handler::{AnyHandler, CloseReason, Timeout};
use crate::http::{ClientRequest, Content, Fields, ResponseHead, StatusCode};
use crate::http1::answer::{self, Answer};
use crate::http1::body::{BodyError, Decoder, Step};
use crate::http1::client::Phase;
use crate::role::Role;
use crate::transport::Tls;
use crate::ws::Side;
use crate::ws::extension::{Deflated, Offered};
use crate::ws::opening::{self, ClientKey};
use crate::ws::role::WebSocket;
use std::mem::MaybeUninit;

/// So many interim responses in a row are passed over.
const INTERIM: u8 = 32;

impl<D> Context<D> {
    /// A connecting link may be connected.
    pub(crate) fn serve_connecting(&mut self, index: u32, data: &mut D) {
        if self.io.core.is_connected(index) {
            self.link_up(index, data);
        }
    }

    /// The connection stands: the proxy comes first, then TLS, then what is spoken.
    fn link_up(&mut self, index: u32, data: &mut D) {
        let core = &mut self.io.core;
        let Some(client) = core.client(index) else { return };
        let key = client.connecting;
        let Some(connecting) = core.connecting.get(key) else { return };
        let Some((proxy, url)) = connecting.connect.proxy.as_ref().zip(connecting.connect.url.as_ref().ok())
        else {
            self.tunnelled(index, &mut [], data);
            return;
        };
        let mut out = core.pool.take();
        let begun = Negotiation::begin(proxy, &url.name(), url.port, &mut out);
        core.push(index, &out, &[]);
        core.pool.give(out);
        match begun {
            Ok(negotiation) => {
                if let Some(client) = core.client(index) {
                    client.phase = Phase::Proxy(Box::new(negotiation));
                }
            }
            Err(error) => self.connect_failed(index, ConnectError::Proxy(error)),
        }
    }

    /// The way to the server is open, and this has come on it already. Says how much of that was used.
    fn tunnelled(&mut self, index: u32, records: &mut [u8], data: &mut D) -> usize {
        match self.secure(index) {
            Ok(Some(tls)) => {
                if let Some(client) = self.io.core.client(index) {
                    client.phase = Phase::Securing;
                }
                self.io.core.begin_client_tls(index, tls, records);
                return records.len();
            }
            Ok(None) => self.speak(index, data),
            Err(error) => self.connect_failed(index, error),
        }
        0
    }

    /// The client's end of TLS, if the connection is to have any.
    #[cfg(feature = "tls")]
    fn secure(&mut self, index: u32) -> Result<Option<Tls>, ConnectError> {
        let core = &mut self.io.core;
        let Some(key) = core.client(index).map(|client| client.connecting) else { return Ok(None) };
        let Some(connecting) = core.connecting.get(key) else { return Ok(None) };
        let connect = &connecting.connect;
        let Some(url) = connect.url.as_ref().ok().filter(|url| url.scheme.is_secure()) else {
            return Ok(None);
        };
        let name = connect.server_name.clone().unwrap_or_else(|| url.name());
        let client = match (&connect.tls, &core.default_tls) {
            (Some(client), _) | (None, Some(client)) => client.clone(),
            (None, None) => {
                let client = crate::tls::Client::builder().build().map_err(ConnectError::TlsConfig)?;
                core.default_tls.insert(client).clone()
            }
        };
        let name = crate::tls::Client::server_name(&name).ok_or(ConnectError::Url(UrlError::Host))?;
        Tls::client(client.config(), name).map(Some).map_err(ConnectError::Tls)
    }

    #[cfg(not(feature = "tls"))]
    fn secure(&mut self, _: u32) -> Result<Option<Tls>, ConnectError> {
        Ok(None)
    }

    /// The connection can be used: says what a client says first.
    pub(crate) fn speak(&mut self, index: u32, data: &mut D) {
        let core = &mut self.io.core;
        let link = core.link(index);
        let conn = link.conn;
        let Role::Client(client) = &mut link.role else { return };
        let key = client.connecting;
        client.phase = Phase::Idle;
        let Some(connecting) = core.connecting.get_mut(key) else { return };
        match &mut connecting.speak {
            Speak::Raw => {
                core.link(index).role = Role::Raw;
                core.connected(key);
                self.open_raw_handler(conn, data);
            }
            Speak::WebSocket => {
                if let Err(error) = self.ask_for_websocket(index, key) {
                    self.connect_failed(index, error);
                }
            }
            Speak::Http(first) => {
                let first = first.take();
                let told = core.conns.at(conn).is_some_and(|(_, conn)| !conn.unopened);
                if let Some(Err((error, _))) = first.map(|request| core.request_on(index, request)) {
                    return self.connect_failed(index, ConnectError::Request(error));
                }
                core.connected(key);
                if !told {
                    self.with_gathered(conn, data, |handler, cx| {
                        if let AnyHandler::Client(handler) = handler {
                            handler.connected(cx);
                        }
                    });
                }
            }
        }
        self.io.core.mark(index);
    }

    fn ask_for_websocket(&mut self, index: u32, key: Key) -> Result<(), ConnectError> {
        let core = &mut self.io.core;
        let mut random = [0; 16];
        core.env.random(&mut random);
        let client_key = ClientKey::from_random(random);
        let Some(connecting) = core.connecting.get(key) else { return Ok(()) };
        let connect = &connecting.connect;
        let Ok(url) = &connect.url else { return Ok(()) };
        let host = connect.host.as_deref().unwrap_or(&url.authority);
        let fields = connect.request_fields().map_err(ConnectError::Request)?;
        let (origin, subprotocols) = (connect.origin.as_deref(), &connect.subprotocols);
        let offered = connect.extension.map(|options| core.pools.offered(&options));
        let extensions = offered.map(|offered| offered.options.offer().to_string());
        let extensions = extensions.as_deref();
        let mut head = core.pool.take();
        let asked = opening::request(
            &mut head,
            &url.target,
            host,
            &client_key,
            origin,
            subprotocols,
            extensions,
            &fields,
        );
        if asked.is_ok() {
            core.push(index, &head, &[]);
        }
        core.pool.give(head);
        if let Some(client) = core.client(index) {
            client.phase = Phase::Opening(client_key, offered);
        }
        asked.map_err(ConnectError::Request)
    }

    fn connect_failed(&mut self, index: u32, error: ConnectError) {
        let core = &mut self.io.core;
        let conn = core.link(index).conn;
        match core.conns.key_at(conn) {
            Some(conn) => core.connect_failed(conn, error),
            None => core.end(index, CloseReason::Closed),
        }
    }

    // What comes.

    /// Takes one step with the input of a client's link.
    pub(crate) fn handle_client(
        &mut self,
        index: u32,
        input: &mut [u8],
        budget: &mut u32,
        data: &mut D,
    ) -> (usize, Next) {
        let link = self.io.core.link(index);
        let paused = link.flags.contains(Flags::PAUSED);
        let Role::Client(client) = &mut link.role else { return (0, Next::Again) };
        if input.is_empty() && !matches!(client.phase, Phase::Content) {
            return (0, Next::More);
        }
        match client.phase {
            Phase::Proxy(_) => self.ask_proxy(index, input, data),
            Phase::Securing => (0, Next::Stop),
            _ if paused => (0, Next::Stop),
            Phase::Opening(..) | Phase::Response => {
                *budget = budget.saturating_sub(1);
                self.read_answer(index, input, data)
            }
            Phase::Content => self.read_answer_content(index, input, budget, data),
            Phase::Idle => {
                self.exchange_failed(index, ExchangeError::Unsolicited);
                (input.len(), Next::Again)
            }
        }
    }

    fn ask_proxy(&mut self, index: u32, input: &mut [u8], data: &mut D) -> (usize, Next) {
        let core = &mut self.io.core;
        let mut out = core.pool.take();
        let Some(client) = core.client(index) else { return (0, Next::Again) };
        let Phase::Proxy(negotiation) = &mut client.phase else { return (0, Next::Again) };
        let mut step = negotiation.receive(input, &mut out);
        if matches!(step, Ok((_, Progress::Done))) && !out.is_empty() {
            // Answered before it was asked; and what has not left yet would be taken for what goes through the tunnel.
            step = Err(ProxyError::NotAProxy);
        } else {
            core.push(index, &out, &[]);
        }
        core.pool.give(out);
        match step {
            Ok((used, Progress::More)) => (used, Next::More),
            Ok((used, Progress::Done)) => {
                let took = self.tunnelled(index, &mut input[used..], data);
                (used + took, Next::Again)
            }
            Err(error) => {
                self.connect_failed(index, ConnectError::Proxy(error));
                (input.len(), Next::Again)
            }
        }
    }

    fn read_answer(&mut self, index: u32, input: &[u8], data: &mut D) -> (usize, Next) {
        let core = &mut self.io.core;
        let limits = core.limits(index);
        let Some(client) = core.client(index) else { return (0, Next::Again) };
        let asking = client.asking();
        let end = match answer::find_end(input, &mut client.seen, limits.head) {
            Ok(Some(end)) => end,
            Ok(None) => return (0, Next::More),
            Err(error) => {
                self.exchange_failed(index, ExchangeError::Head(error));
                return (input.len(), Next::Again);
            }
        };
        let mut room = Vec::new();
        room.resize_with(limits.fields, MaybeUninit::uninit);
        match answer::parse(&input[..end], &mut room, asking) {
            Ok(answer) => self.answered(index, &answer, data),
            Err(error) => self.exchange_failed(index, ExchangeError::Head(error)),
        }
        (end, Next::Again)
    }

    fn answered(&mut self, index: u32, answer: &Answer<'_>, data: &mut D) {
        let Some(client) = self.io.core.client(index) else { return };
        let opening = matches!(client.phase, Phase::Opening(..));
        match answer.status.code() {
            101 if opening => self.websocket_opened(index, answer, data),
            // Nobody has asked for another protocol (RFC 9110, section 15.2.2).
            101 => self.exchange_failed(index, ExchangeError::Unsolicited),
            100..200 => self.interim(index, answer, data),
            300..400 if self.io.core.may_redirect(index, answer) => self.redirected(index, answer),
            _ if opening => {
                let status = answer.status;
                let fields = owned(answer);
                self.connect_failed(index, ConnectError::Status(Box::new(Refusal { status, fields })));
            }
            _ => self.response(index, answer, data),
        }
    }

    /// An interim response (RFC 9110, section 15.2).
    fn interim(&mut self, index: u32, answer: &Answer<'_>, data: &mut D) {
        let core = &mut self.io.core;
        let Some(client) = core.client(index) else { return };
        client.interim += 1;
        if client.interim > INTERIM {
            return self.exchange_failed(index, ExchangeError::Interim);
        }
        if answer.status == StatusCode::CONTINUE {
            return core.continue_request(index);
        }
        let conn = core.link(index).conn;
        self.with_handler(conn, data, |handler, cx| {
            if let AnyHandler::Client(handler) = handler {
                handler.interim(cx, &ResponseHead::new(answer));
            }
        });
    }

    /// The response to an HTTP request.
    fn response(&mut self, index: u32, answer: &Answer<'_>, data: &mut D) {
        let core = &mut self.io.core;
        let limits = core.limits(index);
        let content = match Decoder::new(answer.framing, &limits) {
            Ok(content) => content,
            Err(error) => return self.exchange_failed(index, fault(&error)),
        };
        core.begin_content(index, answer, content);
        if let Some(key) = core.client(index).map(|client| client.connecting)
            && let Some(connecting) = core.connecting.get_mut(key)
        {
            connecting.redirects = 0;
        }
        let conn = core.link(index).conn;
        self.with_handler(conn, data, |handler, cx| {
            if let AnyHandler::Client(handler) = handler {
                handler.response(cx, &ResponseHead::new(answer));
            }
        });
    }

    /// The server has answered 101.
    fn websocket_opened(&mut self, index: u32, answer: &Answer<'_>, data: &mut D) {
        let core = &mut self.io.core;
        let Some((_, link)) = core.links.at(index) else { return };
        let conn = link.conn;
        let Role::Client(client) = &link.role else { return };
        let Phase::Opening(key, offered) = &client.phase else { return };
        let (connecting, offered) = (client.connecting, *offered);
        let Some(facts) = core.connecting.get(connecting) else { return };
        if let Err(error) = opening::check(answer, key, &facts.connect.subprotocols, offered.is_some()) {
            return self.connect_failed(index, ConnectError::Handshake(error));
        }
        let Some(AnyHandler::WebSocket(handler)) = self.handlers.get(conn) else { return };
        let mut websocket = WebSocket::new(Side::Client, handler.receive());
        self.io.core.take_back_offer(index);
        match self.accepted(offered, answer) {
            Ok(Some(deflated)) => websocket.extend(deflated),
            Ok(None) => {}
            Err(error) => return self.connect_failed(index, error),
        }
        let core = &mut self.io.core;
        core.link(index).role = Role::WebSocket(websocket);
        core.begin_websocket_timers(index);
        core.connected(connecting);
        let mut welcome = true;
        self.with_handler(conn, data, |handler, cx| {
            if let AnyHandler::WebSocket(handler) = handler {
                welcome = handler.connected(cx, &ResponseHead::new(answer));
            }
        });
        if !welcome {
            let core = &mut self.io.core;
            core.end_conn(conn, CloseReason::Connect(Box::new(ConnectError::Rejected)), 0);
            core.end(index, CloseReason::Closed);
        }
    }

    /// The extension that was agreed on, of what was offered.
    #[cfg(feature = "deflate")]
    fn accepted(
        &mut self,
        offered: Option<Offered>,
        answer: &Answer<'_>,
    ) -> Result<Option<Deflated>, ConnectError> {
        let Some(offered) = offered else { return Ok(None) };
        let values = answer.field_all("Sec-WebSocket-Extensions");
        self.io.core.pools.accepted(&offered, values).map_err(ConnectError::Extension)
    }

    #[cfg(not(feature = "deflate"))]
    fn accepted(&mut self, _: Option<Offered>, _: &Answer<'_>) -> Result<Option<Deflated>, ConnectError> {
        Ok(None)
    }

    // Redirects.

    fn redirected(&mut self, index: u32, answer: &Answer<'_>) {
        if let Err(error) = self.io.core.follow(index, answer) {
            self.exchange_failed(index, ExchangeError::Redirect(error));
        }
    }

    // Content.

    fn read_answer_content(
        &mut self,
        index: u32,
        input: &[u8],
        budget: &mut u32,
        data: &mut D,
    ) -> (usize, Next) {
        let link = self.io.core.link(index);
        let conn = link.conn;
        let Role::Client(client) = &mut link.role else { return (0, Next::Again) };
        // Out of its place while handlers run.
        let mut content = std::mem::replace(&mut client.content, Decoder::None);
        let (used, handed) = self.hand_over(index, &mut content, input, budget, |context, piece| {
            context.with_receiver(conn, data, |handler, cx| {
                if let AnyHandler::Client(handler) = handler {
                    handler.body(cx, piece);
                }
            });
        });
        let next = match handed {
            Handed::Stopped(next) => next,
            Handed::End(trailers) => {
                self.answer_complete(index, &trailers, used == input.len(), data);
                return (used, Next::Again);
            }
            Handed::Failed(error) => {
                self.exchange_failed(index, fault(&error));
                Next::Again
            }
        };
        if let Some(client) = self.io.core.client(index) {
            client.content = content;
        }
        (used, next)
    }

    /// A response is complete; `is_all` of what has come.
    fn answer_complete(&mut self, index: u32, trailers: &Fields, is_all: bool, data: &mut D) {
        let core = &mut self.io.core;
        core.response_complete(index, is_all);
        let conn = core.link(index).conn;
        self.with_handler(conn, data, |handler, cx| {
            if let AnyHandler::Client(handler) = handler {
                handler.body_complete(cx, trailers);
            }
        });
        let core = &mut self.io.core;
        let over = core.client(index).is_some_and(|client| !client.keep_alive && !client.is_busy());
        let link = core.link(index);
        if !over || link.state != State::Open || link.flags.contains(Flags::RELEASING) {
            return;
        }
        match is_all {
            true => core.end(index, CloseReason::Completed),
            false => self.exchange_failed(index, ExchangeError::Unsolicited),
        }
    }

    /// The server has broken an exchange, or the opening handshake.
    fn exchange_failed(&mut self, index: u32, error: ExchangeError) {
        let core = &mut self.io.core;
        let conn = core.link(index).conn;
        match core.conns.key_at(conn) {
            Some(conn) if core.is_connecting(conn) => {
                core.connect_failed(conn, ConnectError::Exchange(error))
            }
            _ => core.end(index, CloseReason::Exchange(Box::new(error))),
        }
    }

    /// The server has ended its half of the connection.
    pub(crate) fn client_input_ended(&mut self, index: u32, data: &mut D) {
        let core = &mut self.io.core;
        let link = core.link(index);
        let Role::Client(client) = &mut link.role else { return };
        match client.phase {
            Phase::Content => {
                client.keep_alive = false;
                let mut content = std::mem::replace(&mut client.content, Decoder::None);
                match content.finish() {
                    Ok(Step::End(trailers)) => self.answer_complete(index, &trailers, true, data),
                    _ => self.exchange_failed(index, ExchangeError::Truncated),
                }
            }
            Phase::Response if client.used || client.seen > 0 || link.kept.is_some() => {
                self.exchange_failed(index, ExchangeError::Truncated);
            }
            Phase::Proxy(_) | Phase::Securing | Phase::Opening(..) | Phase::Idle | Phase::Response => {
                core.end(index, CloseReason::PeerEnded);
            }
        }
    }

    /// The time of a client's phase is up.
    pub(crate) fn client_timer(&mut self, index: u32) {
        let core = &mut self.io.core;
        let now = core.now();
        let limits = core.limits(index);
        let link = core.link(index);
        let (paused, queued) = (link.flags.contains(Flags::PAUSED), link.queued());
        let Some(client) = core.client(index) else { return };
        match client.phase {
            Phase::Response if client.expecting.is_some() => core.continue_request(index),
            // The request is still on its way out.
            Phase::Response if queued > 0 => core.arm_client(index),
            Phase::Response => core.abort(index, CloseReason::TimedOut(Timeout::Response)),
            Phase::Idle if client.used => core.end(index, CloseReason::Completed),
            Phase::Idle => core.end(index, CloseReason::Closed),
            Phase::Content if !paused => {
                let due = client.active.after(limits.body_stall);
                if due > now {
                    return core.arm_phase_at(index, due);
                }
                core.abort(index, CloseReason::TimedOut(Timeout::BodyStall));
            }
            Phase::Content | Phase::Proxy(_) | Phase::Securing | Phase::Opening(..) => {}
        }
    }
}

impl crate::engine::Core {
    /// Whether a redirect is to be followed: it is one that can be, and what was sent can be sent again.
    fn may_redirect(&mut self, index: u32, answer: &Answer<'_>) -> bool {
        let Some(client) = self.client(index) else { return false };
        let repeats = client.asked.as_ref().is_none_or(|request| {
            becomes_get(request, answer.status) || !matches!(request.content, Content::Stream { .. })
        });
        let key = client.connecting;
        let followed = self.connecting.get(key).is_some_and(|connecting| connecting.connect.redirects > 0);
        followed && repeats && !self.leaving && matches!(answer.status.code(), 301..=303 | 307 | 308)
    }

    /// Goes where a redirect leads (RFC 9110, section 15.4).
    fn follow(&mut self, index: u32, answer: &Answer<'_>) -> Result<(), RedirectError> {
        let Some(client) = self.client(index) else { return Ok(()) };
        let (key, asked) = (client.connecting, client.asked.take());
        let Some(connecting) = self.connecting.get_mut(key) else { return Ok(()) };
        if connecting.redirects >= connecting.connect.redirects {
            return Err(RedirectError::TooMany);
        }
        connecting.redirects += 1;
        let mut locations = answer.field_all("Location");
        let (Some(location), None) = (locations.next(), locations.next()) else {
            return Err(RedirectError::NoLocation);
        };
        let not_ascii = |_| RedirectError::Location(UrlError::Target);
        let location = std::str::from_utf8(location).map_err(not_ascii)?;
        let Ok(mut before) = connecting.connect.url.clone() else { return Ok(()) };
        if let Some(target) = asked.as_ref().and_then(|request| request.target.as_ref()) {
            before.target.clone_from(target);
        }
        let url = before.join(location).map_err(RedirectError::Location)?;
        if before.scheme.is_secure() && !url.scheme.is_secure() {
            return Err(RedirectError::Insecure);
        }
        let same = connecting.connect.redirect(url);
        connecting.is_elsewhere |= !same;
        if let Speak::Http(first) = &mut connecting.speak {
            *first = asked.map(|request| redirected(*request, answer.status, same));
        }
        self.connect_elsewhere(key);
        Ok(())
    }
}

/// Whether a redirect asks for another resource, instead of the same of another place (RFC 9110, sections 15.4.2 to 15.4.4).
fn becomes_get(request: &ClientRequest, status: StatusCode) -> bool {
    match status.code() {
        303 => request.method != "HEAD",
        301 | 302 => request.method == "POST",
        _ => false,
    }
}

/// What is asked of the place that a redirect leads to (RFC 9110, section 15.4).
fn redirected(mut request: ClientRequest, status: StatusCode, same_server: bool) -> ClientRequest {
    let becomes_get = becomes_get(&request, status);
    if becomes_get {
        request.method = "GET".to_owned();
        request.content = Content::Empty;
        request.expect = None;
    }
    request.target = None;
    let mut fields = Fields::new();
    for (name, value) in request.fields.iter() {
        let of_content =
            becomes_get && name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("Content-"));
        if !of_content && (same_server || !is_secret(name)) {
            let _ = fields.push(name, value);
        }
    }
    request.fields = fields;
    request
}

fn fault(error: &BodyError) -> ExchangeError {
    match error {
        BodyError::TooLarge => ExchangeError::ContentTooLarge,
        BodyError::OutOfMemory => ExchangeError::OutOfMemory,
        _ => ExchangeError::Content,
    }
}

fn owned(answer: &Answer<'_>) -> Fields {
    let mut fields = Fields::new();
    for field in answer.fields {
        // A head that was parsed has only such as can be pushed.
        let _ = fields.push(field.name, field.value);
    }
    fields
}
