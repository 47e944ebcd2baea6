//! The source, and the way to it for the loop's other callbacks.

use crate::Single;
use calloop::generic::Generic;
use calloop::{Interest, LoopHandle, Mode, PostAction, RegistrationToken};
use lodger::{Context, Io};
use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

/// How many connections a dispatch serves unless it is told otherwise.
const BATCH: usize = 64;

/// Inserts a context into a loop. Its handlers get the loop's own data.
///
/// It lives there until [`Local::leave`] or [`Local::detach`], or until calloop drops it: with
/// [`LoopHandle::remove`], or with the loop itself. Then its connections are closed without a word, and its handlers are
/// dropped; calloop's handle is not theirs to use there. A handler that keeps the loop's handle keeps the weak one
/// ([`LoopHandle::downgrade`]), as every callback in a calloop loop does, or the loop is never dropped.
///
/// A forked child shares the loop's epoll set with its parent, and calloop takes every source from it when it drops a loop: the
/// child leaves the loop alone ([`std::mem::forget`]), and goes on, if it does, in a new one ([`Local::take_over`]).
///
/// # Errors
///
/// The system has no descriptor left, or calloop's poller refuses one. The context is dropped.
pub fn insert<D: 'static>(handle: &LoopHandle<'_, D>, context: Context<D>) -> io::Result<Local<D>> {
    let single = Single::new(context)?;
    // A second number for the same descriptor, so that calloop can let go of its own whenever it likes.
    let watched = single.as_fd().try_clone_to_owned()?;
    let source = Generic::new(watched, Interest::READ, Mode::Level);
    let lodging = Rc::new(Lodging {
        single: RefCell::new(Some(single)),
        queue: RefCell::new(VecDeque::new()),
        end: Cell::new(None),
        batch: Cell::new(BATCH),
        process: std::process::id(),
    });
    let tenancy = Tenancy(Rc::clone(&lodging));
    let token = handle
        .insert_source(source, move |_, _, data| tenancy.0.dispatch(data).map(|()| PostAction::Continue))
        .map_err(|refused| io::Error::other(refused.error))?;
    Ok(Local { lodging, token })
}

/// A context that lives in a calloop loop, for every callback of that loop: clones of it name the same one.
///
/// It does not keep the context: once that has gone, all of this does nothing and says so.
pub struct Local<D> {
    lodging: Rc<Lodging<D>>,
    token: RegistrationToken,
}

impl<D: 'static> Local<D> {
    /// Runs `run` with the loop's data and the context: send, close, listen, adopt, set timers.
    ///
    /// It runs at once; while the context is busy, which is inside a handler and inside another `with`, it waits until that
    /// has returned. Either way what comes of it is written and announced before the loop sleeps. False when the context
    /// has gone; nothing is run then.
    pub fn with(&self, data: &mut D, run: impl FnOnce(&mut D, &mut Io<D>) + 'static) -> bool {
        match self.lodging.single.try_borrow_mut() {
            Ok(slot) if slot.is_none() => return false,
            Ok(slot) => self
                .lodging
                .run(slot, data, |single, data| single.with(|io| run(data, io)))
                .unwrap_or_else(report),
            Err(_) => self.lodging.queue.borrow_mut().push_back(Box::new(run)),
        }
        true
    }

    /// The same at once or not at all, with a result: `None` when the context is busy or has gone.
    pub fn try_with<R>(&self, data: &mut D, run: impl FnOnce(&mut D, &mut Io<D>) -> R) -> Option<R> {
        let slot = self.lodging.single.try_borrow_mut().ok().filter(|slot| slot.is_some())?;
        let mut result = None;
        self.lodging
            .run(slot, data, |single, data| single.with(|io| result = Some(run(data, io))))
            .unwrap_or_else(report);
        result
    }

    /// How many connections one dispatch serves at the most, before the loop's other sources have their turn: 64 unless it is
    /// set. A smaller batch disturbs frames less, a larger one costs fewer system calls. Zero counts as one.
    pub fn set_batch(&self, connections: usize) {
        self.lodging.batch.set(connections.max(1));
    }

    /// Whether the context is still there.
    pub fn is_there(&self) -> bool {
        self.lodging.single.try_borrow().map_or(true, |slot| slot.is_some())
    }

    /// The source's name in its loop, for [`LoopHandle::disable`], [`LoopHandle::enable`] and [`LoopHandle::remove`].
    pub fn token(&self) -> RegistrationToken {
        self.token
    }

    /// Leaves the loop for good: says goodbye to every peer, and closes ([`Context::leave`]). `handle` is the handle of the
    /// loop that the context was inserted into.
    ///
    /// While the context is busy, inside a handler for one, it leaves as soon as that has returned, and what
    /// [`with`](Self::with) had queued has run.
    pub fn leave(&self, handle: &LoopHandle<'_, D>, data: &mut D) {
        let single = match self.lodging.single.try_borrow_mut() {
            Ok(mut slot) => slot.take(),
            Err(_) => {
                self.lodging.end.set(Some(End::Leave));
                None
            }
        };
        self.take_from(handle);
        if let Some(single) = single {
            single.leave(data);
        }
    }

    /// Takes the source from the loop, unless a forked child shares that with its parent.
    fn take_from(&self, handle: &LoopHandle<'_, D>) {
        if self.lodging.process == std::process::id() {
            handle.remove(self.token);
        }
    }

    /// Takes the context out of the loop and gives it back, for another loop or to be inserted again. Nothing is closed.
    /// `handle` is the handle of the loop that the context was inserted into.
    ///
    /// `None` when it has gone, and while it is busy, inside a handler for one: then nothing has changed.
    pub fn detach(&self, handle: &LoopHandle<'_, D>) -> Option<Context<D>> {
        let single = self.lodging.single.try_borrow_mut().ok()?.take()?;
        self.take_from(handle);
        Some(single.detach())
    }

    /// In a forked child that goes on serving in its parent's place: [`Context::take_over`]. The context is taken out of the loop,
    /// which is shared with the parent and is not touched, to be [inserted](insert) into a new one; the old loop is left alone.
    /// `None` when the context has gone, and while it is busy.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left. It can be tried again.
    #[doc(alias("fork", "daemonize"))]
    pub fn take_over(&self) -> io::Result<Option<Context<D>>> {
        let Ok(mut slot) = self.lodging.single.try_borrow_mut() else { return Ok(None) };
        let Some(single) = &mut *slot else { return Ok(None) };
        single.take_over()?;
        Ok(slot.take().map(Single::detach))
    }
}

/// What went wrong where nobody asks: the deadline could not be armed. The next dispatch tries again.
fn report(error: io::Error) {
    log::error!(target: "lodger::host", "the deadline of a context in a calloop loop: {error}");
}

type Task<D> = Box<dyn FnOnce(&mut D, &mut Io<D>)>;

/// What the source and its [`Local`]s share.
struct Lodging<D> {
    /// Borrowed while the context is busy; empty when it has gone.
    single: RefCell<Option<Single<D>>>,
    /// What was to run while the context was busy.
    queue: RefCell<VecDeque<Task<D>>>,
    /// It was to end while it was busy.
    end: Cell<Option<End>>,
    batch: Cell<usize>,
    /// The process of the loop.
    process: u32,
}

#[derive(Clone, Copy)]
enum End {
    Drop,
    Leave,
}

type Slot<'a, D> = RefMut<'a, Option<Single<D>>>;

impl<D: 'static> Lodging<D> {
    /// The descriptor is readable.
    fn dispatch(&self, data: &mut D) -> io::Result<()> {
        let Ok(slot) = self.single.try_borrow_mut() else { return Ok(()) };
        let batch = self.batch.get();
        self.run(slot, data, |single, data| single.dispatch(batch, data).map(drop))
    }

    /// Runs `run`, then what was queued by it, then ends what was ended by it. A panic goes on after that.
    fn run(
        &self,
        mut slot: Slot<'_, D>,
        data: &mut D,
        run: impl FnOnce(&mut Single<D>, &mut D) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(single) = &mut *slot else { return Ok(()) };
        let ran = catch_unwind(AssertUnwindSafe(|| {
            run(single, data)?;
            self.run_queue(single, data)
        }));
        let mut armed = Ok(());
        match self.end.take() {
            // A panic came before it, or it was queued by what was queued: the next dispatch goes on with it.
            None if !self.queue.borrow().is_empty() => {
                armed = single.with(|io| io.after(Duration::ZERO, |_, _| {})).map(drop);
            }
            None => {}
            Some(end) => {
                let single = slot.take();
                // Nobody finds it busy any more: it has gone.
                drop(slot);
                drop(self.queue.take());
                match (single, end) {
                    (Some(single), End::Leave) => single.leave(data),
                    (single, _) => drop(single),
                }
            }
        }
        ran.unwrap_or_else(|panic| resume_unwind(panic)).and(armed)
    }

    /// Runs what is queued now; what that queues is for later.
    fn run_queue(&self, single: &mut Single<D>, data: &mut D) -> io::Result<()> {
        let queued = self.queue.borrow().len();
        if queued == 0 {
            return Ok(());
        }
        single.with(|io| {
            for _ in 0..queued {
                let task = self.queue.borrow_mut().pop_front();
                if let Some(task) = task {
                    task(data, io);
                }
            }
        })
    }
}

/// What calloop owns: with it the context goes.
struct Tenancy<D>(Rc<Lodging<D>>);

impl<D> Drop for Tenancy<D> {
    fn drop(&mut self) {
        let Ok(mut slot) = self.0.single.try_borrow_mut() else {
            if self.0.end.get().is_none() {
                self.0.end.set(Some(End::Drop));
            }
            return;
        };
        let single = slot.take();
        drop(slot);
        drop(single);
        drop(self.0.queue.take());
    }
}

impl<D> Clone for Local<D> {
    fn clone(&self) -> Self {
        Self { lodging: Rc::clone(&self.lodging), token: self.token }
    }
}

impl<D: 'static> fmt::Debug for Local<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("is_there", &self.is_there()).finish_non_exhaustive()
    }
}
