//! HTTP/1 on a link: one exchange after another, each with a response that is written at once, later or in pieces.

use super::body::Decoder;
use super::encode::{self, Asked, Delimiting};
use super::waits::Waits;
use crate::engine::Core;
use crate::engine::link::{Flags, State};
use crate::engine::store::Key;
use crate::engine::timers::Tick;
use crate::error::SendError;
use crate::handler::{CloseReason, Flow};
use crate::http::{Body, Fields, Response, ResponseError, StatusCode};
use crate::net;
use crate::role::Role;
use crate::ws::handshake::AcceptKey;
use std::fs::File;
use std::io;

/// A connection that speaks HTTP/1 with us as the server.
pub(crate) struct Server {
    pub(crate) site: Key,
    /// The listener that accepted it, whose other sites a request may be for.
    pub(crate) listener: Key,
    /// No request has been complete yet: it counts among those in the handshake.
    pub(crate) first: bool,
    pub(crate) phase: Phase,
    /// When something of a head was last received; or content, while that has its time.
    pub(crate) active: Tick,
    /// How much of the head has been searched for its end.
    pub(crate) seen: usize,
    pub(crate) content: Decoder,
    /// The end of the content has been handed over.
    pub(crate) received: bool,
    pub(crate) response: Output,
    pub(crate) asked: Asked,
    /// The peer waits for 100 (Continue) before it sends the content.
    pub(crate) owes_continue: bool,
    /// The head of a request whose decision is to come.
    pub(crate) head: Vec<u8>,
    /// Content that nobody wants any more, read so far.
    pub(crate) dropped: u64,
    /// A request has begun to come, and has a time by which its head must be there.
    pub(crate) in_head: bool,
    /// The decision has been made, and is about to be carried out.
    pub(crate) decided: bool,
    /// There is no request after this one.
    pub(crate) last: bool,
    /// It is read once more before it is taken to be idle, and ends: a request may have come that was not read yet.
    pub(crate) looks_last: bool,
    /// What the exchange waits for.
    pub(crate) waits: Waits,
    file: Option<Sending>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Between requests, or within a head.
    Head,
    /// The application decides.
    Deciding,
    /// The head is through: content comes, a response goes.
    Exchange,
}

/// A short page that says what went wrong.
pub(crate) fn error_response(status: StatusCode) -> Response {
    Response::text(format!("{status}\n")).status(status)
}

/// How far the response is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Output {
    /// Not begun.
    None,
    /// Its head is out; this much content is to come.
    Content(Delimiting),
    Complete,
}

/// A file on its way out.
struct Sending {
    file: File,
    at: u64,
    end: u64,
}

/// How much of a file is read at a time. One call sends as many pieces as make up what may be read from a link.
const FILE_PIECE: usize = 64 * 1024;
/// So much content that nobody wants is read for the sake of the next request; beyond it the connection ends.
const DROPPED_AT_MOST: u64 = 256 * 1024;

impl Server {
    pub(crate) fn new(site: Key, listener: Key) -> Self {
        Self {
            site,
            listener,
            first: true,
            phase: Phase::Head,
            active: Tick::default(),
            seen: 0,
            content: Decoder::None,
            received: false,
            response: Output::None,
            asked: Asked::unreadable(),
            owes_continue: false,
            head: Vec::new(),
            dropped: 0,
            in_head: false,
            decided: false,
            last: false,
            looks_last: false,
            waits: Waits::NONE,
            file: None,
        }
    }

    /// Whether content comes.
    pub(crate) fn is_receiving(&self) -> bool {
        self.phase == Phase::Exchange && !self.received
    }

    /// Whether the head of a request is waited for, or the rest of one.
    pub(crate) fn awaits_head(&self) -> bool {
        self.phase == Phase::Head
    }

    /// Whether nothing more of the request is needed: it is complete, or answered already, whatever was to follow.
    pub(crate) fn is_request_whole(&self) -> bool {
        self.received || self.content.is_complete() || self.response == Output::Complete
    }

    /// Ready for the next request.
    fn next_request(&mut self) {
        self.phase = Phase::Head;
        self.seen = 0;
        self.content = Decoder::None;
        self.received = false;
        self.response = Output::None;
        self.asked = Asked::unreadable();
        self.owes_continue = false;
        self.head = Vec::new();
        self.dropped = 0;
        self.in_head = false;
        self.decided = false;
        self.waits = Waits::NONE;
    }

    /// Whether the rest of the response is a file, which is sent without the handler.
    pub(crate) fn is_sending_file(&self) -> bool {
        self.file.is_some()
    }
}

impl Core {
    pub(crate) fn server(&mut self, index: u32) -> Option<&mut Server> {
        match &mut self.link(index).role {
            Role::Http(server) => Some(server),
            _ => None,
        }
    }

    /// The content of a request begins to have its time, if there is any to come.
    pub(crate) fn await_content(&mut self, index: u32) {
        if self.server(index).is_some_and(|server| !server.content.is_complete()) {
            let now = self.now();
            let link = self.link(index);
            link.role.set_active(now);
            link.flags.insert(Flags::TIMED);
            self.arm_exchange(index);
        }
    }

    /// The link of an exchange, if its conn has one.
    fn exchange(&mut self, conn: Key) -> Result<u32, SendError> {
        let index = self.conns.get(conn).ok_or(SendError::Gone)?.link;
        let link = self.links.at_mut(index).ok_or(SendError::Gone)?;
        let Role::Http(server) = &link.role else { return Err(SendError::Role) };
        if server.phase != Phase::Exchange {
            return Err(SendError::Undecided);
        }
        if link.output_over() {
            return Err(SendError::Closing);
        }
        if link.is_over_send_max() && !self.answers_once(index) {
            return Err(SendError::Overrun);
        }
        Ok(index)
    }

    /// Begins a response, and sends what content it has with it.
    pub(crate) fn respond(&mut self, conn: Key, response: Response) -> Result<Flow, SendError> {
        let index = self.exchange(conn)?;
        let Some(server) = self.server(index) else { return Err(SendError::Role) };
        if server.response != Output::None {
            return Err(SendError::Responded);
        }
        self.respond_on(index, response).map_err(|wrong| {
            // Who handles it may not look at the error, and the client would wait for ever.
            let failed = error_response(StatusCode::INTERNAL_SERVER_ERROR);
            let _ = self.respond_on(index, failed.close());
            SendError::Field(wrong)
        })
    }

    /// Begins a response on a link, whether it has a conn or not, and sends what content it has with it.
    ///
    /// # Errors
    ///
    /// What of the response must not be sent, as [`SendError::Field`] says it. Nothing was sent then, and it was logged.
    pub(crate) fn respond_on(&mut self, index: u32, mut response: Response) -> Result<Flow, Box<str>> {
        let date = self.env.date();
        let end_received = self.link(index).flags.contains(Flags::END_RECEIVED);
        let Some(server) = self.server(index) else { return Ok(Flow::Ready) };
        // A client that waits for 100 may send its content or not: what comes next could be either.
        let unclear = server.owes_continue && !server.content.is_complete();
        let last = server.last;
        if unclear || end_received || last || self.leaving {
            response = response.close();
        }
        let Some(server) = self.server(index) else { return Ok(Flow::Ready) };
        let asked = server.asked;
        let mut head = self.pool.take();
        let framed = match encode::head(&mut head, &response, asked, self.date_cache.text(date)) {
            Ok(framed) => framed,
            Err(error) => {
                self.pool.give(head);
                let wrong = response.what_is_wrong(error);
                log::error!(target: "lodger::http", "a response cannot be sent: {wrong:?}: {error}");
                return Err(wrong);
            }
        };
        let content: &[u8] = match &response.body {
            Body::Bytes(bytes) if framed.content != Delimiting::None => bytes,
            _ => &[],
        };
        let flow = self.push(index, &head, content);
        self.pool.give(head);
        let Some(server) = self.server(index) else { return Ok(flow) };
        server.owes_continue = false;
        server.asked.keep_alive = framed.keep_alive;
        server.response = match (framed.content, response.body) {
            (Delimiting::None, _) | (_, Body::Empty | Body::Bytes(_)) => Output::Complete,
            (delimiting, Body::File { file, length }) => {
                server.file = Some(Sending { file, at: 0, end: length });
                Output::Content(delimiting)
            }
            (delimiting, Body::Stream { .. }) => Output::Content(delimiting),
        };
        self.pump_file(index);
        self.response_sent(index);
        self.response_may_be_complete(index);
        Ok(flow)
    }

    /// Sends a piece of a response's content.
    pub(crate) fn send_content(&mut self, conn: Key, piece: &[u8]) -> Result<Flow, SendError> {
        let index = self.exchange(conn)?;
        let Some(server) = self.server(index) else { return Err(SendError::Role) };
        if server.file.is_some() {
            return Err(SendError::Responded);
        }
        let delimiting = match &mut server.response {
            Output::None => return Err(SendError::NotResponding),
            // The content of a response to HEAD is not sent, and nobody has to know.
            Output::Complete if server.asked.head => return Ok(Flow::Ready),
            Output::Complete => return Err(SendError::Responded),
            Output::Content(delimiting) => delimiting,
        };
        let flow = match delimiting {
            Delimiting::Length(left) => {
                let Some(rest) = left.checked_sub(piece.len() as u64) else { return Err(SendError::Length) };
                *left = rest;
                let flow = self.push(index, &[], piece);
                if rest == 0 {
                    if let Some(server) = self.server(index) {
                        server.response = Output::Complete;
                    }
                    self.response_may_be_complete(index);
                }
                flow
            }
            Delimiting::Chunked => self.push_chunk(index, piece),
            Delimiting::None | Delimiting::Close => self.push(index, &[], piece),
        };
        self.response_sent(index);
        Ok(flow)
    }

    /// Sends a chunk (RFC 9112, section 7.1); an empty one would be the end.
    pub(super) fn push_chunk(&mut self, index: u32, piece: &[u8]) -> Flow {
        if piece.is_empty() {
            return Flow::Ready;
        }
        let mut header = self.pool.take();
        encode::chunk_header(&mut header, piece.len());
        self.push(index, &header, piece);
        self.pool.give(header);
        self.push(index, encode::CHUNK_END, &[])
    }

    /// Ends a response whose content was sent in pieces.
    pub(crate) fn end_content(&mut self, conn: Key) -> Result<Flow, SendError> {
        let index = self.exchange(conn)?;
        let Some(server) = self.server(index) else { return Err(SendError::Role) };
        match server.response {
            Output::None => return Err(SendError::NotResponding),
            // A response of announced length ends with its last byte, and one to HEAD with its head.
            Output::Complete => return Ok(Flow::Ready),
            Output::Content(_) if server.file.is_some() => return Err(SendError::Responded),
            Output::Content(Delimiting::Length(left)) if left > 0 => return Err(SendError::Length),
            Output::Content(delimiting) => {
                server.response = Output::Complete;
                if delimiting == Delimiting::Chunked {
                    let mut end = self.pool.take();
                    encode::last_chunk(&mut end, &Fields::new());
                    self.push(index, &end, &[]);
                    self.pool.give(end);
                }
            }
        }
        self.response_may_be_complete(index);
        Ok(Flow::Ready)
    }

    /// Sends more of a file, as far as the queue has room.
    pub(crate) fn pump_file(&mut self, index: u32) {
        if self.server(index).is_some_and(|server| server.file.is_some()) {
            self.send_pieces(index);
        }
    }

    #[inline(never)]
    fn send_pieces(&mut self, index: u32) {
        let mut piece = self.pool.take();
        let before = self.link(index).sent;
        for _ in 0..self.shares.bytes() / FILE_PIECE {
            let link = self.link(index);
            let room = link.queued() < link.limits.send_high_water && !link.output_over();
            let Some(server) = self.server(index).filter(|_| room) else { break };
            let Some(sending) = &mut server.file else { break };
            let most = (sending.end - sending.at).min(FILE_PIECE as u64) as usize;
            match net::read_file(&sending.file, sending.at, most, &mut piece) {
                Ok(()) if piece.is_empty() => {
                    let short = io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter");
                    return self.abort(index, CloseReason::File(short));
                }
                Ok(()) => {
                    sending.at += piece.len() as u64;
                    if sending.at == sending.end {
                        server.file = None;
                        server.response = Output::Complete;
                    }
                    self.push(index, &[], &piece);
                }
                Err(error) => return self.abort(index, CloseReason::File(error)),
            }
        }
        self.pool.give(piece);
        let sent = self.link(index).sent - before;
        self.took(index, sent as usize, 0);
        // What the queue has no room for goes when it has; what it has room for goes with the next call.
        let link = self.link(index);
        let room = link.queued() < link.limits.send_high_water && !link.output_over();
        if room && self.server(index).is_some_and(|server| server.file.is_some()) {
            self.resume_later(index);
        }
    }

    /// The response is out: what waited for that is looked at by the next step of the link.
    fn response_may_be_complete(&mut self, index: u32) {
        if self.server(index).is_some_and(|server| server.response == Output::Complete) {
            // Who has answered holds nothing back any more.
            self.resume(index);
            if !(self.handling && self.current == index) {
                self.resume_later(index);
            }
        }
    }

    /// Sends 100 (Continue) to a client that waits for it.
    pub(crate) fn send_continue(&mut self, index: u32) {
        if let Some(server) = self.server(index)
            && std::mem::take(&mut server.owes_continue)
        {
            self.push(index, encode::CONTINUE, &[]);
        }
    }

    /// Answers a request that cannot be served, or the next of which cannot be found, and ends the connection.
    pub(crate) fn refuse(&mut self, index: u32, response: Response) {
        self.left_handshake(index);
        if let Some(server) = self.server(index) {
            server.asked.keep_alive = false;
            server.phase = Phase::Exchange;
            match server.response {
                // It says all that there is to say, and is not to be lost.
                Output::Complete => {}
                Output::Content(_) => return self.abort(index, CloseReason::Content),
                Output::None => {
                    if self.respond_on(index, response.close()).is_err() {
                        return self.abort(index, CloseReason::Content);
                    }
                }
            }
        }
        let conn = self.link(index).conn;
        self.end_conn(conn, CloseReason::Content, 0);
        self.finish_and_linger(index);
    }

    /// Whether more content is announced than is read for the sake of the next request when nobody wants it.
    pub(crate) fn leaves_content(&mut self, index: u32) -> bool {
        self.server(index).is_some_and(|server| {
            let left = server.content.announced().unwrap_or(0);
            server.dropped.saturating_add(left) > DROPPED_AT_MOST
        })
    }

    /// Ends an exchange whose both halves are complete, and says whether it did.
    pub(crate) fn exchange_may_end(&mut self, index: u32) -> bool {
        let link = self.link(index);
        if link.state != State::Open || link.queued() > 0 || link.flags.contains(Flags::RELEASING) {
            return false;
        }
        let (conn, end_received) = (link.conn, link.flags.contains(Flags::END_RECEIVED));
        let Some(server) = self.server(index) else { return false };
        if server.phase != Phase::Exchange || server.response != Output::Complete {
            return false;
        }
        let content_complete = server.received;
        if !content_complete && server.dropped <= DROPPED_AT_MOST && server.asked.keep_alive {
            return false;
        }
        // Whoever was told that the connection goes on may have sent the next request already.
        let keep_alive = server.asked.keep_alive && content_complete && !end_received;
        let ends = server.last;
        server.next_request();
        self.end_conn(conn, CloseReason::Completed, 0);
        if keep_alive && ends {
            self.look_last(index);
        }
        if keep_alive {
            let limits = self.limits(index);
            self.arm_phase(index, limits.keep_alive);
            let link = self.link(index);
            link.flags.remove(Flags::BACKLOG);
            link.flags.remove(Flags::PAUSED);
            self.mark(index);
        } else {
            self.finish_and_linger(index);
        }
        true
    }

    /// Has a connection between requests read once more by the next service call, before it ends.
    pub(crate) fn look_last(&mut self, index: u32) {
        if let Some(server) = self.server(index) {
            server.looks_last = true;
            self.resume_later(index);
        }
    }

    /// Whether a connection is to be read a last time now.
    pub(crate) fn takes_last_look(&mut self, index: u32) -> bool {
        if self.link(index).state != State::Open || self.link(index).kept.is_some() {
            return false;
        }
        self.server(index)
            .is_some_and(|server| std::mem::take(&mut server.looks_last) && server.phase == Phase::Head)
    }

    /// A connection was read a last time. If no request has begun it ends, in an orderly way since one may be on its way. Its first is
    /// waited for, since the client cannot know that it came too late and has nobody else to ask; so is one that is encrypted and has
    /// come in part.
    pub(crate) fn looked_last(&mut self, index: u32) {
        let link = self.link(index);
        let encrypted = link.tls.as_ref().is_some_and(|tls| !tls.kept().is_empty());
        let (open, kept, closing) = (link.state == State::Open, link.kept.is_some(), link.limits.closing);
        let Some(server) = self.server(index).filter(|_| open && !kept) else { return };
        match server.phase {
            Phase::Head if server.first || encrypted => self.arm_phase(index, closing),
            Phase::Head => self.finish_and_linger(index),
            Phase::Deciding | Phase::Exchange => {}
        }
    }

    /// Writes the answer that makes a link a WebSocket.
    pub(crate) fn switch_protocols(
        &mut self,
        index: u32,
        key: &AcceptKey,
        subprotocol: Option<&str>,
        extensions: Option<&str>,
        fields: &Fields,
    ) -> Result<(), ResponseError> {
        let mut head = self.pool.take();
        let result = encode::switching(&mut head, key.as_str(), subprotocol, extensions, fields);
        if result.is_ok() {
            self.push(index, &head, &[]);
        }
        self.pool.give(head);
        result
    }
}
