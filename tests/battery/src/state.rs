//! What the host of the tests owns.

use lodger::audit::Counts;
use lodger::{CloseReason, Closed, ConnId, Io, ProtocolId};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

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
    errands: Receiver<Errand>,
}

/// What a callback of the host's is to do with the context.
pub(crate) type Errand = Box<dyn FnOnce(&mut State, &mut Io<State>) + Send>;

/// The other end of the host's own descriptor.
pub(crate) struct Bell {
    pub(crate) writer: PipeWriter,
    pub(crate) errands: Sender<Errand>,
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
pub(crate) struct Wanted;

impl State {
    pub(crate) fn new() -> (Self, Bell) {
        let (reader, writer) = pipe().expect("descriptors are left");
        let (sender, errands) = mpsc::channel();
        let bell = Bell { writer: writer.try_clone().expect("descriptors are left"), errands: sender };
        let shared = Shared {
            foreign: Foreign { reader, writer, errands },
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
            b'e' => {
                let errand = self.outside.0.foreign.errands.try_recv().expect("it comes before the ring");
                errand(self, io);
            }
            b'm' => return Then::Move,
            b'l' => return Then::End(Ending::Leave),
            b'd' => return Then::End(Ending::Drop),
            other => unreachable!("nobody rings so: {other}"),
        }
        Then::GoOn
    }

    /// To every WebSocket.
    pub(crate) fn say(&self, text: &str, io: &mut Io<Self>) {
        let frame = io.encode(text);
        let _ = io.broadcast(self.heard.protocol.expect("it has begun"), &frame);
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
    pub(crate) fn run_within(&mut self) {
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

    pub(crate) fn end(&mut self, closed: &Closed) {
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
