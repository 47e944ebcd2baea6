//! The client's end of a link: the proxy's tunnel, the opening handshake of WebSocket, and HTTP/1, one exchange after another.

use super::answer::{Answer, Asking};
use super::ask;
use super::body::Decoder;
use super::encode::{self, Delimiting};
use super::role::Output;
use crate::client::proxy::Negotiation;
use crate::engine::Core;
use crate::engine::link::{Flags, State};
use crate::engine::store::Key;
use crate::engine::timers::Tick;
use crate::error::SendError;
use crate::handler::{Flow, Notice};
use crate::http::{ClientRequest, Content, Fields, RequestError};
use crate::limits::Limits;
use crate::role::Role;
use crate::ws::extension::Offered;
use crate::ws::opening::ClientKey;
use std::time::Duration;

/// A connection on which we are the client, unless it is raw or a WebSocket already.
pub(crate) struct Client {
    /// How it came to be.
    pub(crate) connecting: Key,
    pub(crate) phase: Phase,
    /// How much of the head has been searched for its end.
    pub(crate) seen: usize,
    /// Interim responses in a row.
    pub(crate) interim: u8,
    pub(crate) content: Decoder,
    /// How far the request is.
    pub(crate) request: Output,
    /// The content of the request waits for 100 (Continue), for so long at the most.
    pub(crate) expecting: Option<Duration>,
    /// The request that is under way, for the sake of its content and of redirects.
    pub(crate) asked: Option<Box<ClientRequest>>,
    /// Another request may follow this one.
    pub(crate) keep_alive: bool,
    /// An exchange has been completed.
    pub(crate) used: bool,
    /// When something was last received of what it waits for.
    pub(crate) active: Tick,
}

pub(crate) enum Phase {
    /// The proxy has been asked.
    Proxy(Box<Negotiation>),
    /// The TLS handshake is under way, or is about to begin.
    Securing,
    /// The opening handshake of WebSocket was sent, with this extension offered.
    Opening(ClientKey, Option<Offered>),
    /// No request is under way.
    Idle,
    /// A response is awaited.
    Response,
    /// The content of a response comes.
    Content,
}

impl Client {
    pub(crate) fn new(connecting: Key) -> Self {
        Self {
            connecting,
            phase: Phase::Securing,
            seen: 0,
            interim: 0,
            content: Decoder::None,
            request: Output::Complete,
            expecting: None,
            asked: None,
            keep_alive: true,
            used: false,
            active: Tick::default(),
        }
    }

    /// Whether a request is under way.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Response | Phase::Content)
    }

    /// Whether the head of a response is waited for, or the rest of one; or what comes before it: an answer of the proxy's, of
    /// the opening handshake.
    pub(crate) fn awaits_answer(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Content)
    }

    /// Whether the response has a time as a whole, which runs.
    pub(crate) fn awaits_response(&self) -> bool {
        matches!(self.phase, Phase::Response) && self.expecting.is_none()
    }

    /// How long it waits for what it waits for, from when that begins or began anew.
    pub(crate) fn waits_at_most(&self, limits: &Limits) -> Option<Duration> {
        match (&self.phase, self.expecting) {
            (Phase::Content, _) => Some(limits.body_stall),
            (Phase::Idle, _) => Some(limits.keep_alive),
            (Phase::Response, Some(wait)) => Some(wait),
            (Phase::Response, None) => (self.request == Output::Complete).then_some(limits.response),
            _ => None,
        }
    }

    /// What the request that is under way means for its response.
    pub(crate) fn asking(&self) -> Asking {
        self.asked.as_ref().map_or(Asking::Content, |request| Asking::by(request.method()))
    }
}

impl Core {
    pub(crate) fn client(&mut self, index: u32) -> Option<&mut Client> {
        match &mut self.link(index).role {
            Role::Client(client) => Some(client),
            _ => None,
        }
    }

    /// What was offered in an opening handshake, which is over.
    pub(crate) fn take_back_offer(&mut self, index: u32) -> Option<Offered> {
        let Some(Client { phase: Phase::Opening(_, offered), .. }) = self.client(index) else { return None };
        let offered = offered.take()?;
        self.pools.take_back_offer(&offered);
        Some(offered)
    }

    /// The link of a conn that is an HTTP client's.
    fn asking(&mut self, conn: Key) -> Result<u32, SendError> {
        if self.is_connecting(conn) {
            return Err(SendError::NotConnected);
        }
        let index = self.conns.get(conn).ok_or(SendError::Gone)?.link;
        // It may be on its way to where a redirect leads.
        let Some(link) = self.links.at_mut(index) else { return Err(self.without_link(conn)) };
        if !matches!(&link.role, Role::Client(_)) {
            return Err(SendError::Role);
        }
        if link.output_over() {
            return Err(SendError::Closing);
        }
        if link.is_over_send_max() && !self.answers_once(index) {
            return Err(SendError::Overrun);
        }
        Ok(index)
    }

    /// Sends the next request of a conn.
    pub(crate) fn send_request(&mut self, conn: Key, request: ClientRequest) -> Result<Flow, SendError> {
        let index = self.asking(conn)?;
        let Some(client) = self.client(index) else { return Err(SendError::Role) };
        if client.is_busy() {
            return Err(SendError::InExchange);
        }
        if !client.keep_alive {
            return Err(SendError::Closing);
        }
        self.request_on(index, request).map_err(|(_, wrong)| SendError::Field(wrong))
    }

    /// Sends the next request on a link.
    ///
    /// # Errors
    ///
    /// Why it must not be sent, and what of it. Nothing was sent then.
    pub(crate) fn request_on(
        &mut self,
        index: u32,
        request: ClientRequest,
    ) -> Result<Flow, (RequestError, Box<str>)> {
        let Some(client) = self.client(index) else { return Ok(Flow::Ready) };
        let key = client.connecting;
        let Some(connecting) = self.connecting.get(key) else { return Ok(Flow::Ready) };
        let (connect, is_elsewhere) = (&connecting.connect, connecting.is_elsewhere);
        let Ok(url) = &connect.url else { return Ok(Flow::Ready) };
        let host = connect.host.as_deref().unwrap_or(&url.authority);
        let fields = connect.request_fields().map_err(|error| (error, error.to_string().into()))?;
        let mut head = self.pool.take();
        let framed =
            ask::head(&mut head, &request, request.target.as_deref().unwrap_or(&url.target), host, &fields);
        let delimiting = match framed {
            Ok(delimiting) => delimiting,
            Err(error) => {
                self.pool.give(head);
                let wrong = request.what_is_wrong(error);
                return Err((error, wrong));
            }
        };
        let expecting = request.expect.filter(|_| delimiting != Delimiting::None);
        let content = if expecting.is_none() { ask::content(&request) } else { &[] };
        let flow = self.push(index, &head, content);
        self.pool.give(head);
        let in_pieces = matches!(request.content, Content::Stream { .. }) && delimiting != Delimiting::None;
        let whole = expecting.is_none() && !in_pieces;
        if let Some(client) = self.client(index) {
            client.request = if whole { Output::Complete } else { Output::Content(delimiting) };
            client.expecting = expecting;
            client.keep_alive = !request.close && !is_elsewhere;
            client.asked = Some(Box::new(request));
            client.phase = Phase::Response;
            client.seen = 0;
            client.interim = 0;
        }
        self.arm_client(index);
        self.mark(index);
        Ok(flow)
    }

    /// What a client waits for has its time from here.
    pub(crate) fn arm_client(&mut self, index: u32) {
        self.cancel_phase(index);
        let link = self.link(index);
        let Role::Client(client) = &link.role else { return };
        match client.waits_at_most(&link.limits) {
            _ if link.flags.contains(Flags::PAUSED) => self.arm_look(index),
            Some(wait) => self.arm_phase(index, wait),
            None => {}
        }
    }

    /// The content of a request that has waited for it goes out; or, where it comes in pieces, may.
    pub(crate) fn continue_request(&mut self, index: u32) {
        let Some(client) = self.client(index) else { return };
        if client.expecting.take().is_none() {
            return;
        }
        let asked = client.asked.take();
        match asked.as_deref().map(|request| &request.content) {
            Some(Content::Bytes(bytes)) => {
                self.push(index, &[], bytes);
                if let Some(client) = self.client(index) {
                    client.request = Output::Complete;
                }
            }
            _ => {
                let conn = self.link(index).conn;
                if let Some(key) = self.conns.key_at(conn) {
                    self.notice(key, Notice::Writable);
                }
            }
        }
        if let Some(client) = self.client(index) {
            client.asked = asked;
        }
        self.arm_client(index);
    }

    /// Sends a piece of a request's content.
    pub(crate) fn send_request_content(&mut self, conn: Key, piece: &[u8]) -> Result<Flow, SendError> {
        let index = self.asking(conn)?;
        let Some(client) = self.client(index) else { return Err(SendError::Role) };
        if client.expecting.is_some() {
            return Err(SendError::Expecting);
        }
        let Output::Content(delimiting) = &mut client.request else { return Err(SendError::NotResponding) };
        match delimiting {
            Delimiting::Length(left) => {
                let Some(rest) = left.checked_sub(piece.len() as u64) else { return Err(SendError::Length) };
                *left = rest;
                let flow = self.push(index, &[], piece);
                if rest == 0 {
                    self.request_sent(index);
                }
                Ok(flow)
            }
            Delimiting::Chunked => Ok(self.push_chunk(index, piece)),
            Delimiting::None | Delimiting::Close => Err(SendError::NotResponding),
        }
    }

    /// Ends the content of a request that was sent in pieces.
    pub(crate) fn end_request_content(&mut self, conn: Key) -> Result<Flow, SendError> {
        let index = self.asking(conn)?;
        let Some(client) = self.client(index) else { return Err(SendError::Role) };
        match client.request {
            Output::None | Output::Complete => return Ok(Flow::Ready),
            Output::Content(_) if client.expecting.is_some() => return Err(SendError::Expecting),
            Output::Content(Delimiting::Length(left)) if left > 0 => return Err(SendError::Length),
            Output::Content(Delimiting::Chunked) => {
                let mut end = self.pool.take();
                encode::last_chunk(&mut end, &Fields::new());
                self.push(index, &end, &[]);
                self.pool.give(end);
            }
            Output::Content(_) => {}
        }
        self.request_sent(index);
        Ok(Flow::Ready)
    }

    fn request_sent(&mut self, index: u32) {
        let Some(client) = self.client(index) else { return };
        client.request = Output::Complete;
        if matches!(client.phase, Phase::Response) {
            self.arm_client(index);
        }
    }

    /// The head of a response is there: its content follows.
    pub(crate) fn begin_content(&mut self, index: u32, answer: &Answer<'_>, content: Decoder) {
        let now = self.now();
        let link = self.link(index);
        link.flags.insert(Flags::TIMED);
        let Role::Client(client) = &mut link.role else { return };
        client.keep_alive &= answer.keep_alive;
        // What was announced and is not sent would be taken for the next request.
        client.keep_alive &= client.request == Output::Complete;
        client.expecting = None;
        client.content = content;
        client.phase = Phase::Content;
        client.active = now;
        self.arm_client(index);
    }

    /// The response is complete: another request may follow, if both sides can go on, and nothing is there that no request has
    /// asked for.
    pub(crate) fn response_complete(&mut self, index: u32, is_all: bool) {
        let link = self.link(index);
        link.flags.remove(Flags::TIMED);
        let open = link.state == State::Open && !link.flags.contains(Flags::END_RECEIVED);
        let Role::Client(client) = &mut link.role else { return };
        client.phase = Phase::Idle;
        client.asked = None;
        client.used = true;
        client.keep_alive &= open && is_all && client.request == Output::Complete;
        self.arm_client(index);
    }
}
