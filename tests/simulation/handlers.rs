//! The protocols and handlers of the simulated town.

use super::town::{Ending, Kind, Session, Town, opcode, port};
use lodger::http::{Fields, StatusCode};
use lodger::ws::{CloseFrame, Message, Piece, Receive, TooLarge};
use lodger::{
    Closed, ConnId, Connection, ConnectionEnd, Cx, Decision, Flow, Io, Peer, Protocol, ProtocolId, Request,
    Response, fd, http, raw, ws,
};
use std::any::Any;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What the web answers with: text of this many bytes.
pub(crate) fn content(length: usize) -> String {
    (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect()
}

/// How long the file is that the web answers with.
pub(crate) const FILE: usize = 50_000;

/// How a talker treats messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Style {
    Echo,
    Streamed,
    Chat,
}

pub(crate) struct House {
    pub(crate) style: Style,
    pub(crate) id: Option<ProtocolId>,
}

impl Protocol<Town> for House {
    fn started(&mut self, id: ProtocolId, town: &mut Town, _: &mut Io<Town>) {
        self.id = Some(id);
        town.protocols.push(id);
        town.started += 1;
    }

    fn connection_began(&mut self, connection: &Connection, town: &mut Town, io: &mut Io<Town>) {
        assert_eq!(self.style, Style::Echo, "not the first protocol");
        assert!(io.links().any(|link| link.fd == connection.fd && link.peer == connection.peer.inet()));
        assert!(town.connections.iter().all(|known| known.fd != connection.fd), "{connection:?} has begun");
        town.connections.push(connection.clone());
    }

    fn connection_ended(
        &mut self,
        connection: &Connection,
        _: ConnectionEnd,
        town: &mut Town,
        io: &mut Io<Town>,
    ) {
        let place = town.connections.iter().position(|known| known == connection);
        town.connections.swap_remove(place.expect("it has begun, and not ended"));
        assert_eq!(io.find_fd(connection.fd), None);
        let live = town.lives.iter().find(|life| life.is_live() && life.port == port(&connection.peer));
        assert!(
            live.is_none_or(|life| life.ending == Some(Ending::Released)),
            "before its conn: {connection:?}"
        );
    }

    fn accept(&mut self, request: &Request<'_>, town: &mut Town, io: &mut Io<Town>) -> Decision<Town> {
        decide(request, self.style, town, io)
    }

    fn ended(&mut self, town: &mut Town, _: &mut Io<Town>) {
        assert!(self.id.take().is_some(), "ended before started, or twice");
        town.ended += 1;
    }
}

fn number(request: &Request<'_>) -> usize {
    request.query().and_then(|query| query.parse().ok()).unwrap_or(0)
}

fn decide(request: &Request<'_>, style: Style, town: &mut Town, io: &mut Io<Town>) -> Decision<Town> {
    let (id, length) = (request.id(), number(request));
    if request.path() == "/later" {
        let delay = town.delay();
        let is_websocket = request.is_websocket();
        town.after(io, delay, move |_, io| {
            let decision = match length % 2 {
                _ if is_websocket => Decision::websocket(Talker::new(style)),
                0 => Decision::respond(Response::text(content(length))),
                _ => Decision::http(Clerk { job: Job::Stream(length), ..Clerk::default() }),
            };
            let _ = io.decide(id, decision);
        });
        return Decision::Later;
    }
    if request.is_websocket() {
        return Decision::websocket(Talker::new(style));
    }
    let job = match request.path() {
        "/text" => return Decision::respond(Response::text(content(length))),
        "/file" => {
            return Decision::respond(Response::file(&town.file, "text/plain").expect("the file is there"));
        }
        "/never" => return Decision::Later,
        "/mirror" => Job::Mirror,
        "/pipe" => Job::Pipe,
        "/stream" => Job::Stream(length),
        "/length" => Job::Length(length),
        "/slow" => Job::Slow(length),
        "/early" => Job::Early(length),
        _ => return Decision::respond(Response::text("nothing").status(StatusCode::NOT_FOUND)),
    };
    Decision::http(Clerk { job, ..Clerk::default() })
}

// WebSocket.

pub(crate) struct Talker {
    style: Style,
    session: Option<Session>,
}

impl Talker {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, session: None }
    }

    /// One that was adopted hears no `opened`.
    pub(crate) fn adopted(style: Style, session: Session) -> Self {
        Self { style, session: Some(session) }
    }

    fn session(&self) -> Session {
        self.session.expect("opened comes first")
    }
}

impl ws::Handler<Town> for Talker {
    fn receive(&self) -> Receive {
        if self.style == Style::Streamed { Receive::Pieces } else { Receive::Whole }
    }

    fn opened(&mut self, cx: &mut Cx<'_, Town>, request: &Request<'_>) {
        assert!(self.session.is_none(), "opened twice");
        let id = cx.id();
        self.session = Some(Session(cx.data.begin(id, port(request.peer()), Kind::Talk)));
        if cx.data.dice.chance(0.3) {
            cx.data.say(cx.io, id);
        }
        cx.data.meddle(cx.io, id);
    }

    fn message(&mut self, cx: &mut Cx<'_, Town>, message: Message<'_>) {
        let id = cx.id();
        let life = cx.data.receive(self.session().0, "message");
        life.got.push((opcode(message.kind()), message.as_bytes().to_vec()));
        let protocol = cx.conn().protocol();
        match protocol.filter(|_| self.style == Style::Chat) {
            Some(protocol) => cx.data.tell_all(cx.io, protocol),
            None => {
                if cx.data.send(cx.io, id, message) == Some(Flow::Full) {
                    cx.data.wait_for_room(cx.io, id);
                }
            }
        }
        cx.data.meddle(cx.io, id);
    }

    fn piece(&mut self, cx: &mut Cx<'_, Town>, piece: Piece<'_>) {
        let id = cx.id();
        let life = cx.data.receive(self.session().0, "piece");
        assert_eq!(piece.first, life.part.is_none(), "the first piece begins a message");
        let part = life.part.get_or_insert_with(|| (opcode(piece.kind), Vec::new()));
        assert_eq!(part.0, opcode(piece.kind));
        part.1.extend(piece.payload);
        if piece.last {
            let whole = life.part.take().expect("just filled");
            life.got.push(whole);
        }
        match cx.data.send_piece(cx.io, id, piece.kind, piece.payload, piece.last) {
            Some(Flow::Ready) => {}
            Some(Flow::Full) => cx.data.wait_for_room(cx.io, id),
            // A message with a gap is no message.
            None => cx.data.end(cx.io, id, Ending::Closed),
        }
        cx.data.meddle(cx.io, id);
    }

    fn too_large(&mut self, cx: &mut Cx<'_, Town>, _: TooLarge) {
        cx.data.receive(self.session().0, "too_large");
    }

    fn ping(&mut self, cx: &mut Cx<'_, Town>, payload: &[u8]) {
        let id = cx.id();
        let life = cx.data.receive(self.session().0, "ping");
        life.pongs.push(payload.to_vec());
        cx.data.meddle(cx.io, id);
    }

    fn pong(&mut self, cx: &mut Cx<'_, Town>, _: &[u8]) {
        let id = cx.id();
        cx.data.receive(self.session().0, "pong");
        cx.data.meddle(cx.io, id);
    }

    fn peer_closed(&mut self, cx: &mut Cx<'_, Town>, _: Option<CloseFrame<'_>>) {
        let id = cx.id();
        cx.data.peer_closed(self.session().0);
        if cx.data.dice.chance(0.3) {
            cx.data.say(cx.io, id);
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, Town>) {
        self.session().writable(cx);
    }

    fn timer(&mut self, cx: &mut Cx<'_, Town>) {
        self.session().timer(cx);
    }

    fn event(&mut self, cx: &mut Cx<'_, Town>, event: Box<dyn Any>) {
        self.session().event(cx, &*event);
    }

    fn child_closed(&mut self, cx: &mut Cx<'_, Town>, child: ConnId) {
        self.session().child_closed(cx, child);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Town>, closed: Closed) {
        let released = self.session().closed(cx, closed);
        cx.data.let_go(released);
    }
}

// HTTP.

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Job {
    #[default]
    Mirror,
    /// The content goes back as it comes.
    Pipe,
    Stream(usize),
    Length(usize),
    /// The response comes later.
    Slow(usize),
    /// The response comes before the content.
    Early(usize),
}

#[derive(Default)]
pub(crate) struct Clerk {
    job: Job,
    session: Option<Session>,
    body: Vec<u8>,
    written: usize,
    answered: bool,
}

impl Clerk {
    fn session(&self) -> Session {
        self.session.expect("request comes first")
    }

    /// Writes what there is room for.
    fn pump(&mut self, cx: &mut Cx<'_, Town>, length: usize) {
        let text = content(length);
        while self.written < length {
            let piece = 1 + cx.data.dice.below(3000);
            let end = (self.written + piece).min(length);
            match cx.write(&text.as_bytes()[self.written..end]) {
                Ok(flow) => {
                    self.written = end;
                    if flow == Flow::Full {
                        return cx.conn().request_writable();
                    }
                }
                Err(_) => return,
            }
        }
        if !std::mem::replace(&mut self.answered, true) {
            let _ = cx.conn().end_response();
            self.answered(cx);
        }
    }

    /// Who has answered holds no content back any more.
    fn answered(&self, cx: &mut Cx<'_, Town>) {
        cx.data.lives[self.session().0].paused = false;
    }

    fn respond(&mut self, cx: &mut Cx<'_, Town>, response: Response) {
        if !std::mem::replace(&mut self.answered, true) {
            let _ = cx.respond(response);
            self.answered(cx);
        }
    }
}

impl http::Handler<Town> for Clerk {
    fn request(&mut self, cx: &mut Cx<'_, Town>, request: &Request<'_>) {
        assert!(self.session.is_none(), "request twice");
        let id = cx.id();
        self.session = Some(Session(cx.data.begin(id, port(request.peer()), Kind::Exchange)));
        match self.job {
            Job::Mirror => {}
            Job::Pipe => {
                let _ = cx.respond(Response::stream("text/plain"));
            }
            Job::Stream(length) => {
                let _ = cx.respond(Response::stream("text/plain"));
                self.pump(cx, length);
            }
            Job::Length(length) => {
                let _ = cx.respond(Response::stream("text/plain").length(length as u64));
                self.pump(cx, length);
            }
            Job::Slow(_) => {
                let delay = cx.data.delay();
                cx.data.after(cx.io, delay, move |town, io| {
                    town.notify(io, id, true);
                });
            }
            Job::Early(length) => self.respond(cx, Response::text(content(length))),
        }
        cx.data.meddle(cx.io, id);
    }

    fn body(&mut self, cx: &mut Cx<'_, Town>, piece: &[u8]) {
        let id = cx.id();
        cx.data.receive(self.session().0, "body");
        assert!(!piece.is_empty(), "an empty piece");
        match self.job {
            Job::Pipe => match cx.write(piece) {
                Ok(Flow::Ready) => {}
                Ok(Flow::Full) => cx.data.wait_for_room(cx.io, id),
                Err(_) => cx.data.end(cx.io, id, Ending::Aborted),
            },
            _ => self.body.extend(piece),
        }
        cx.data.meddle(cx.io, id);
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, Town>, _: &Fields) {
        let id = cx.id();
        let life = cx.data.receive(self.session().0, "body_complete");
        assert!(!std::mem::replace(&mut life.got_end, true));
        match self.job {
            Job::Mirror => {
                let body = std::mem::take(&mut self.body);
                self.respond(cx, Response::bytes("text/plain", body));
            }
            Job::Pipe => {
                self.answered = true;
                let _ = cx.conn().end_response();
                self.answered(cx);
            }
            _ => {}
        }
        cx.data.meddle(cx.io, id);
    }

    fn writable(&mut self, cx: &mut Cx<'_, Town>) {
        self.session().writable(cx);
        if let Job::Stream(length) | Job::Length(length) = self.job {
            self.pump(cx, length);
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_, Town>) {
        self.session().timer(cx);
    }

    fn event(&mut self, cx: &mut Cx<'_, Town>, event: Box<dyn Any>) {
        if self.session().event(cx, &*event)
            && let Job::Slow(length) = self.job
        {
            self.respond(cx, Response::text(content(length)));
        }
    }

    fn child_closed(&mut self, cx: &mut Cx<'_, Town>, child: ConnId) {
        self.session().child_closed(cx, child);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Town>, closed: Closed) {
        let released = self.session().closed(cx, closed);
        cx.data.let_go(released);
    }
}

// Raw bytes.

/// Echoes bytes.
pub(crate) struct Pipe {
    session: Option<Session>,
    /// Sends more after the peer's end.
    lingers: bool,
    /// Who is there, where that is known beforehand: after a reset the system does not tell.
    port: Option<u16>,
}

impl Pipe {
    pub(crate) fn adopted(lingers: bool, port: u16) -> Self {
        Self { session: None, lingers, port: Some(port) }
    }

    /// One that goes on where another one was released.
    fn successor(session: Session) -> Self {
        Self { session: Some(session), lingers: false, port: None }
    }

    fn session(&self) -> Session {
        self.session.expect("opened comes first")
    }
}

/// Accepts on the raw listener.
pub(crate) fn accept_bytes(
    peer: &Peer,
    town: &mut Town,
    _: &mut Io<Town>,
) -> Option<Box<dyn raw::Handler<Town>>> {
    let lingers = town.dice.chance(0.3);
    Some(Box::new(Pipe::adopted(lingers, port(peer))))
}

impl raw::Handler<Town> for Pipe {
    fn opened(&mut self, cx: &mut Cx<'_, Town>) {
        let id = cx.id();
        if self.session.is_none() {
            let port = self.port.expect("whoever is no successor is accepted or adopted");
            self.session = Some(Session(cx.data.begin(id, port, Kind::Bytes)));
        }
        cx.data.meddle(cx.io, id);
    }

    fn received(&mut self, cx: &mut Cx<'_, Town>, bytes: &[u8]) {
        let id = cx.id();
        assert!(!bytes.is_empty(), "nothing was received");
        cx.data.receive(self.session().0, "received").got_bytes.extend(bytes);
        if cx.data.write(cx.io, id, bytes) == Some(Flow::Full) {
            cx.data.wait_for_room(cx.io, id);
        }
        cx.data.meddle(cx.io, id);
    }

    fn end(&mut self, cx: &mut Cx<'_, Town>) {
        let id = cx.id();
        let life = cx.data.receive(self.session().0, "end");
        life.got_end = true;
        if self.lingers && !cx.data.settling {
            let delay = Duration::from_millis(cx.data.dice.below(900) as u64);
            cx.data.after(cx.io, delay, move |town, io| {
                town.write(io, id, b"and so on");
                town.end(io, id, Ending::Finished);
            });
        } else {
            cx.data.end(cx.io, id, Ending::Finished);
        }
        cx.data.meddle(cx.io, id);
    }

    fn writable(&mut self, cx: &mut Cx<'_, Town>) {
        self.session().writable(cx);
    }

    fn timer(&mut self, cx: &mut Cx<'_, Town>) {
        self.session().timer(cx);
    }

    fn event(&mut self, cx: &mut Cx<'_, Town>, event: Box<dyn Any>) {
        self.session().event(cx, &*event);
    }

    fn child_closed(&mut self, cx: &mut Cx<'_, Town>, child: ConnId) {
        self.session().child_closed(cx, child);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Town>, closed: Closed) {
        let whole = closed.unsent == 0;
        let Some((descriptor, unread)) = self.session().closed(cx, closed) else { return };
        // Goes on with the same socket, if nothing is missing and anybody still cares.
        if !whole || cx.data.settling {
            return cx.data.network.close(descriptor);
        }
        let limits = cx.data.limits.clone();
        let life = cx.data.lives.len();
        match cx.io.adopt_raw(descriptor, &unread, limits, Box::new(Pipe::successor(Session(life)))) {
            Ok(id) => {
                let before = &cx.data.lives[self.session().0];
                let (port, got, sent) = (before.port, before.got_bytes.clone(), before.sent_bytes.clone());
                assert_eq!(cx.data.begin(id, port, Kind::Bytes), life);
                cx.data.lives[life].got_bytes = got;
                cx.data.lives[life].sent_bytes = sent;
            }
            Err(refused) => cx.data.network.close(refused.descriptor),
        }
    }
}

// Watched descriptors.

/// Reads and writes an adopted socket itself.
pub(crate) struct Watcher {
    pub(crate) session: Session,
    backlog: Vec<u8>,
    ended: bool,
}

impl Watcher {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, backlog: Vec::new(), ended: false }
    }
}

impl fd::Handler<Town> for Watcher {
    fn readable(&mut self, cx: &mut Cx<'_, Town>, fd: BorrowedFd<'_>) {
        let id = cx.id();
        let mut buffer = vec![0; 1 + cx.data.dice.below(3000)];
        cx.data.receive(self.session.0, "readable");
        match cx.data.network.read(fd, &mut buffer) {
            Ok(0) => {
                self.ended = true;
                match self.backlog.is_empty() {
                    true => cx.data.end(cx.io, id, Ending::Closed),
                    // What is at its end stays readable.
                    false => cx.conn().pause(),
                }
            }
            Ok(read) => {
                cx.data.lives[self.session.0].got_bytes.extend(&buffer[..read]);
                self.backlog.extend(&buffer[..read]);
                cx.conn().request_writable();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => cx.data.end(cx.io, id, Ending::Closed),
        }
        cx.data.meddle(cx.io, id);
    }

    fn writable(&mut self, cx: &mut Cx<'_, Town>, fd: BorrowedFd<'_>) {
        let id = cx.id();
        cx.data.enter(self.session.0, "writable");
        match cx.data.network.write(fd, &self.backlog) {
            Ok(written) => {
                let sent: Vec<u8> = self.backlog.drain(..written).collect();
                cx.data.lives[self.session.0].sent_bytes.extend(sent);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return cx.data.end(cx.io, id, Ending::Closed),
        }
        match self.backlog.is_empty() {
            false => cx.conn().request_writable(),
            true if self.ended => cx.data.end(cx.io, id, Ending::Closed),
            true => {}
        }
        cx.data.meddle(cx.io, id);
    }

    fn timer(&mut self, cx: &mut Cx<'_, Town>) {
        self.session.timer(cx);
    }

    fn event(&mut self, cx: &mut Cx<'_, Town>, event: Box<dyn Any>) {
        self.session.event(cx, &*event);
    }

    fn child_closed(&mut self, cx: &mut Cx<'_, Town>, child: ConnId) {
        self.session.child_closed(cx, child);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Town>, closed: Closed) {
        let released = self.session.closed(cx, closed);
        cx.data.let_go(released);
    }
}
