//! What the host of the tests owns, and the handlers.

use lodger::audit::Counts;
use lodger::{
    CloseReason, Closed, Conn, ConnId, Cx, Decision, Flow, Io, Protocol, ProtocolId, Request, Response, fd,
    http, raw, ws,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The host's own state, lent to each service call.
///
/// What its handlers have heard is known when it is dropped, by whomever.
pub struct State {
    /// What the audit has counted, where there is one.
    pub counts: Option<Counts>,
    outside: Outside,
    /// The handlers that the cases look at work on this one.
    is_first: bool,
    refusals: Arc<AtomicUsize>,
    end: Option<End>,
    run: Option<Rc<dyn Fn()>>,
    pub(crate) heard: Heard,
}

type End = Box<dyn FnOnce(&mut State, Ending)>;

/// What of a [`State`] is there for its loop while a guest of that loop has the rest.
#[derive(Clone)]
pub struct Outside(Rc<Shared>);

struct Shared {
    foreign: Foreign,
    turns: Cell<u64>,
    stopped: Cell<bool>,
    ending: Cell<Ending>,
    panics: Cell<usize>,
    /// How often the loop was run within a handler, and whether the host's own descriptor was served there.
    runs_within: Cell<u32>,
    rung_within: Cell<bool>,
    heard: RefCell<Heard>,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// By [`Context::leave`](lodger::Context::leave), or what the adapter has for it.
    Leave,
    /// The adapter, or the context detached from it, is dropped.
    Drop,
}

/// What a callback of the host's, that of its own descriptor, has been told to do, at once.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Then {
    /// Nothing more.
    GoOn,
    /// To take the first context out of the loop, and put it in again.
    Move,
    /// To end the first context, and to run the loop for what else is there.
    End(Ending),
}

/// The host's own descriptor.
struct Foreign {
    reader: PipeReader,
    writer: PipeWriter,
}

/// What the handlers have seen.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) counts: Option<Counts>,
    pub(crate) opened: usize,
    pub(crate) closed: usize,
    pub(crate) leaving: usize,
    pub(crate) refused: usize,
    pub(crate) messages: usize,
    pub(crate) protocol: Option<ProtocolId>,
    pub(crate) paused: Vec<ConnId>,
    /// How often output was full, and the most that waited.
    pub(crate) full: usize,
    pub(crate) most_queued: usize,
    /// Content that was made.
    pub(crate) made: usize,
    pub(crate) panics: usize,
    pub(crate) numbers: Vec<(u32, u32)>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) released: usize,
    pub(crate) later: usize,
    /// How often the host's own descriptor was served since the turn in which that began.
    pub(crate) flood: Option<(u64, u64)>,
    pub(crate) flood_over: bool,
}

/// The payload of a panic that a case wants.
struct Wanted;

impl State {
    pub(crate) fn new() -> (Self, PipeWriter) {
        let (reader, writer) = pipe().expect("descriptors are left");
        let bell = writer.try_clone().expect("descriptors are left");
        let shared = Shared {
            foreign: Foreign { reader, writer },
            turns: Cell::new(0),
            stopped: Cell::new(false),
            ending: Cell::new(Ending::Leave),
            panics: Cell::new(0),
            runs_within: Cell::new(0),
            rung_within: Cell::new(false),
            heard: RefCell::default(),
        };
        (Self::of(Outside(Rc::new(shared)), true, Arc::default()), bell)
    }

    fn of(outside: Outside, is_first: bool, refusals: Arc<AtomicUsize>) -> Self {
        Self { counts: None, outside, is_first, refusals, end: None, run: None, heard: Heard::default() }
    }

    /// For the other contexts of a loop in which each keeps a state of its own. The first gets this one.
    pub fn another(&self) -> Self {
        Self::of(self.outside(), false, Arc::default())
    }

    /// What the loop needs when a guest keeps this.
    pub fn outside(&self) -> Outside {
        self.outside.clone()
    }

    /// Whether the loop is to sleep once more. Asked once before each sleep.
    pub fn goes_on(&mut self) -> bool {
        self.outside.goes_on()
    }

    /// How the run is to end.
    pub fn ending(&self) -> Ending {
        self.outside.ending()
    }

    /// The host's own descriptor, to be watched for readability.
    pub fn foreign(&self) -> BorrowedFd<'_> {
        self.outside.0.foreign.reader.as_fd()
    }

    /// The host's own descriptor is readable: reads a byte, and uses the context as a button of the host's would.
    pub fn foreign_ready(&mut self, io: &mut Io<Self>) -> Then {
        match self.outside.read() {
            b'f' => {
                let (_, served) = self.heard.flood.get_or_insert((self.outside.0.turns.get(), 0));
                *served += 1;
                if !self.heard.flood_over {
                    (&self.outside.0.foreign.writer).write_all(b"f").expect("there is room");
                }
            }
            b't' => {
                io.after(Duration::ZERO, |state: &mut Self, _| state.heard.numbers.push((0, 0)));
            }
            b'm' => return Then::Move,
            b'l' => return Then::End(Ending::Leave),
            b'd' => return Then::End(Ending::Drop),
            _ => {
                let frame = io.encode("from outside");
                io.broadcast(self.heard.protocol.expect("it has begun"), &frame);
            }
        }
        Then::GoOn
    }

    /// Handlers can end the first context: by `end`, once.
    pub fn ends_by(&mut self, end: impl FnOnce(&mut Self, Ending) + 'static) {
        self.end = Some(Box::new(end));
    }

    /// Handlers can run the loop, once round, by `run`.
    pub fn runs_by(&mut self, run: impl Fn() + 'static) {
        self.run = Some(Rc::new(run));
    }

    /// Runs what may run a handler. `None`: a handler panicked, as it was told to. Any other panic goes on.
    pub fn survive<R>(&mut self, run: impl FnOnce(&mut Self) -> R) -> Option<R> {
        let outside = self.outside();
        outside.survive(|| run(self))
    }

    pub(crate) fn turns(&self) -> u64 {
        self.outside.0.turns.get()
    }

    pub(crate) fn stop(&mut self) {
        self.outside.0.stopped.set(true);
    }

    pub(crate) fn end_by(&mut self, ending: Ending) {
        self.outside.0.ending.set(ending);
    }

    /// The context that this is called by a handler of.
    pub(crate) fn end_now(&mut self, ending: Ending) {
        let end = self.end.take().expect("handlers can end it");
        end(self, ending);
    }

    /// Runs the loop within a handler until the host's own descriptor has been served there.
    fn run_within(&mut self) {
        let run = self.run.clone().expect("handlers can run the loop");
        let shared = Rc::clone(&self.outside.0);
        while !shared.rung_within.get() {
            shared.runs_within.set(shared.runs_within.get() + 1);
            run();
        }
    }

    /// How often that ran it.
    pub(crate) fn take_runs_within(&self) -> u32 {
        self.outside.0.rung_within.set(false);
        self.outside.0.runs_within.take()
    }

    /// Whether there is a host that refuses when it is told to.
    pub(crate) fn can_refuse(&self) -> bool {
        Arc::strong_count(&self.refusals) > 1
    }

    pub(crate) fn refuse(&self, adds: usize) {
        self.refusals.store(adds, Ordering::SeqCst);
    }

    pub(crate) fn refusals(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.refusals)
    }

    fn end(&mut self, closed: &Closed) {
        self.heard.closed += 1;
        match closed.reason {
            CloseReason::Leaving => self.heard.leaving += 1,
            CloseReason::Host(_) => self.heard.refused += 1,
            CloseReason::Released { .. } => self.heard.released += 1,
            _ => {}
        }
    }
}

impl Outside {
    /// As [`State::goes_on`].
    pub fn goes_on(&self) -> bool {
        self.0.turns.set(self.0.turns.get() + 1);
        !self.0.stopped.get()
    }

    /// As [`State::ending`].
    pub fn ending(&self) -> Ending {
        self.0.ending.get()
    }

    /// As [`State::survive`].
    pub fn survive<R>(&self, run: impl FnOnce() -> R) -> Option<R> {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => Some(result),
            Err(panic) if panic.is::<Wanted>() => {
                self.0.panics.set(self.0.panics.get() + 1);
                None
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// As [`State::foreign_ready`], for a callback that finds the context busy, since a handler runs the loop.
    pub fn foreign_ready_within(&self) {
        let _ = self.read();
        self.0.rung_within.set(true);
    }

    fn read(&self) -> u8 {
        let mut byte = [0];
        (&self.0.foreign.reader).read_exact(&mut byte).expect("it is readable");
        byte[0]
    }

    /// What the handlers have heard, once the state is dropped.
    pub(crate) fn heard(&self) -> Heard {
        Heard { panics: self.0.panics.get(), ..self.0.heard.take() }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.is_first {
            let heard = Heard { counts: self.counts, ..std::mem::take(&mut self.heard) };
            self.outside.0.heard.replace(heard);
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("turns", &self.turns())
            .field("heard", &self.heard)
            .finish_non_exhaustive()
    }
}

/// The protocol of every site.
pub(crate) struct Hall;

impl Protocol<State> for Hall {
    fn started(&mut self, id: ProtocolId, state: &mut State, _io: &mut Io<State>) {
        state.heard.protocol.get_or_insert(id);
    }

    fn accept(&mut self, request: &Request<'_>, state: &mut State, _io: &mut Io<State>) -> Decision<State> {
        match request.path() {
            _ if request.is_websocket() => Decision::websocket(Echo),
            "/later" => {
                state.heard.later += 1;
                Decision::Later
            }
            "/content" => Decision::http(Content { left: CONTENT }),
            "/mirror" => Decision::http(Mirror { content: Vec::new() }),
            _ => Decision::respond(Response::text("hello\n")),
        }
    }
}

/// Sends messages back, and does what it is told.
struct Echo;

impl Echo {
    /// Ends its own context, and goes on for as long as it likes.
    fn end(&self, cx: &mut Cx<'_, State>, ending: Ending) {
        cx.data.end_now(ending);
        let _ = cx.send("still here");
    }
}

impl ws::Handler<State> for Echo {
    fn opened(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        cx.data.heard.opened += 1;
    }

    fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
        cx.data.heard.messages += 1;
        let full = match message {
            ws::Message::Text("!panic") => resume_unwind(Box::new(Wanted)),
            ws::Message::Text("!pause") => {
                let id = cx.id();
                cx.data.heard.paused.push(id);
                return cx.conn().pause();
            }
            ws::Message::Text("!close") => return cx.close(),
            ws::Message::Text("!leave") => return self.end(cx, Ending::Leave),
            ws::Message::Text("!drop") => return self.end(cx, Ending::Drop),
            ws::Message::Text("!run") => {
                cx.data.run_within();
                cx.send("has run") == Ok(Flow::Full)
            }
            ws::Message::Text("!timer") => return cx.conn().set_timer(Duration::from_millis(3)),
            ws::Message::Text("!fill") => {
                let piece = [7; 32 * 1024];
                while cx.send(&piece) == Ok(Flow::Ready) {}
                true
            }
            message => cx.send(message) == Ok(Flow::Full),
        };
        let queued = cx.conn().queued();
        let heard = &mut cx.data.heard;
        heard.most_queued = heard.most_queued.max(queued);
        if full {
            heard.full += 1;
            wait_for_room(cx.conn());
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        cx.conn().resume();
    }

    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        let _ = cx.send("timer");
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}

fn wait_for_room(mut conn: Conn<'_, State>) {
    conn.pause();
    conn.request_writable();
}

/// How long the content of `/content` is.
pub(crate) const CONTENT: usize = 4 << 20;

/// Makes content as fast as the peer takes it.
struct Content {
    left: usize,
}

impl http::Handler<State> for Content {
    fn request(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        cx.data.heard.opened += 1;
        let _ = cx.respond(Response::stream("application/octet-stream").length(CONTENT as u64));
        cx.conn().request_writable();
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        while self.left > 0 {
            let piece = [b'c'; 16 * 1024];
            let Ok(flow) = cx.write(&piece) else { return };
            self.left -= piece.len();
            cx.data.heard.made += piece.len();
            if flow == Flow::Full {
                cx.data.heard.full += 1;
                return cx.conn().request_writable();
            }
        }
        let _ = cx.conn().end_response();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}

/// Sends the content of a request back.
struct Mirror {
    content: Vec<u8>,
}

impl http::Handler<State> for Mirror {
    fn request(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        cx.data.heard.opened += 1;
    }

    fn body(&mut self, _cx: &mut Cx<'_, State>, piece: &[u8]) {
        self.content.extend(piece);
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, State>, _: &http::Fields) {
        let _ = cx.respond(Response::bytes("text/plain", std::mem::take(&mut self.content)));
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}

/// Sends raw bytes back, in capitals.
pub(crate) struct Shout;

impl raw::Handler<State> for Shout {
    fn opened(&mut self, cx: &mut Cx<'_, State>) {
        cx.data.heard.opened += 1;
    }

    fn received(&mut self, cx: &mut Cx<'_, State>, bytes: &[u8]) {
        if cx.write(&bytes.to_ascii_uppercase()) == Ok(Flow::Full) {
            wait_for_room(cx.conn());
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        cx.conn().resume();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}

/// Reads a byte at a time from an adopted descriptor, so that level-triggered watching shows, and gives it back at a full stop.
pub(crate) struct Lines(pub(crate) File);

impl fd::Handler<State> for Lines {
    fn readable(&mut self, cx: &mut Cx<'_, State>, _: BorrowedFd<'_>) {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(1) if byte[0] == b'.' => cx.conn().release(),
            Ok(1) => cx.data.heard.bytes.push(byte[0]),
            Ok(_) => cx.close(),
            Err(_) => {}
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.end(&closed);
    }
}
