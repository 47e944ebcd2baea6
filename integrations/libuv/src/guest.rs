//! A context that lives in a libuv loop.

use crate::sys::{Awake, Events, Home, Prepare, Timer};
use crate::watchers::{Watched, Watchers, watched};
use lodger::audit::Calls;
use lodger::{Context, Io, Ready, Wait};
use std::any::Any;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};

/// A context in a libuv loop, and the state `D` that its handlers work on: a C loop has no place to lend it from.
///
/// It keeps the loop alive while it has something to wait for: a listener, a connection, an adopted descriptor (a paused one,
/// too), or a timer. A [`Remote`](lodger::Remote) alone does not, as a C program would expect of an `uv_async_t` that was
/// unref'd. [`keep_loop_alive`](Self::keep_loop_alive) turns that off.
///
/// When dropped, it takes its descriptors from the loop and drops the context: nothing is said to the peers.
/// [`leave`](Self::leave) does that. Either may happen anywhere, also in a handler. The loop is afterwards as it was, once it has
/// run the close callbacks of the guest's handles: one `uv_run` in any mode. A loop that is not run again cannot be closed,
/// and keeps their memory.
///
/// # Panics in handlers
///
/// A panic must not unwind into C. It is caught, the guest stands still (nothing of it is watched, nothing keeps the loop
/// alive), and the panic goes on outside: from [`Loop::run`](crate::Loop::run) where the loop is Rust's own, which ends
/// early for it, else from [`leave`](Self::leave) and [`detach`](Self::detach), after they have done what they do, unless
/// [`take_panic`](Self::take_panic) has taken it before. Once it was taken the guest goes on, without the connection
/// whose handler panicked. Only a closure of [`with`](Self::with) that runs at once unwinds into its caller, as any function does.
#[doc(alias("uv_poll_t", "lws_context"))]
pub struct Guest<D: 'static = ()> {
    inner: Rc<Inner<D>>,
}

/// A way to a [`Guest`] for other callbacks of its loop: timers, sockets and whatever else lives there.
///
/// It does not keep the guest.
pub struct Local<D: 'static = ()> {
    inner: Weak<Inner<D>>,
}

pub(crate) struct Inner<D> {
    /// Borrowed while the context is busy; empty once the guest has gone.
    pub(crate) stay: RefCell<Option<Stay<D>>>,
    /// What came meanwhile.
    queue: RefCell<VecDeque<Task<D>>>,
    /// What came meanwhile and ends it.
    ending: Cell<Option<Ending>>,
    /// What the loop said meanwhile, since a handler runs it.
    missed: RefCell<Vec<Missed>>,
    keeps_alive: Cell<bool>,
    panics: Rc<Panics>,
    home: Home,
}

type Task<D> = Box<dyn FnOnce(&mut D, &mut Io<D>)>;

/// The guest in its loop. Its handles close when it is dropped.
pub(crate) struct Stay<D> {
    context: Context<D>,
    pub(crate) watched: Watched,
    pub(crate) data: D,
    prepare: Prepare,
    awake: Awake,
    timer: Timer,
    /// What the timer is set for.
    armed: Wait,
    /// The context was used since it was prepared.
    used: bool,
    /// A handler has panicked, and nobody has seen it yet.
    stopped: bool,
}

/// Its handle stands still until the context is prepared.
enum Missed {
    Ready(RawFd),
    Due,
}

#[derive(Clone, Copy)]
enum Ending {
    Detach,
    Leave,
}

impl<D: 'static> Guest<D> {
    pub(crate) fn move_in(home: &Home, context: Context<D>, data: D, panics: Rc<Panics>) -> Self {
        let inner = Rc::new(Inner {
            stay: RefCell::new(None),
            queue: RefCell::default(),
            ending: Cell::new(None),
            missed: RefCell::default(),
            keeps_alive: Cell::new(true),
            panics,
            home: home.clone(),
        });
        let events: Weak<dyn Events> = Rc::downgrade(&inner) as Weak<dyn Events>;
        let mut stay = Stay {
            context,
            watched: watched(Watchers::new(home.clone(), events.clone())),
            data,
            prepare: Prepare::new(home, events.clone()),
            awake: Awake::new(home, events.clone()),
            timer: Timer::new(home, events),
            armed: Wait::FOREVER,
            used: false,
            stopped: false,
        };
        stay.used();
        *inner.stay.borrow_mut() = Some(stay);
        Self { inner }
    }

    /// Uses the context from outside its handlers: send, close, listen, set timers. It runs at once, or, while the context is
    /// busy (within a handler, or within another `with`), when that has returned. Handlers hear what comes of it in the
    /// loop's next iteration; there is nothing to call afterwards.
    pub fn with(&self, run: impl FnOnce(&mut D, &mut Io<D>) + 'static) {
        self.inner.with(run);
    }

    /// As [`with`](Self::with), for closures that give something back or borrow something: only at once. `None` while the
    /// context is busy.
    pub fn try_with<R>(&self, run: impl FnOnce(&mut D, &mut Io<D>) -> R) -> Option<R> {
        self.inner.try_with(run)
    }

    /// A way here for the loop's other callbacks.
    pub fn local(&self) -> Local<D> {
        Local { inner: Rc::downgrade(&self.inner) }
    }

    /// Whether what lodger waits for keeps the loop alive: on at first. Off, the loop ends when only lodger is left, as with
    /// `uv_unref`.
    #[doc(alias("uv_ref", "uv_unref"))]
    pub fn keep_loop_alive(&self, on: bool) {
        self.inner.keeps_alive.set(on);
        self.inner.try_with(|_, _| ());
    }

    /// The panic of a handler, if there was one. The guest, which has stood still since, goes on. In a loop that is Rust's
    /// own, [`Loop::run`](crate::Loop::run) takes it.
    pub fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        self.inner.panics.take()
    }

    /// Says goodbye to every peer, and closes ([`Context::leave`]). Gives the state back, unless the context is busy: then
    /// it is done when the handler returns, and the state is dropped after it.
    ///
    /// # Panics
    ///
    /// With the panic of a handler that nobody has taken.
    pub fn leave(self) -> Option<D> {
        let stay = self.inner.end(Ending::Leave)?;
        self.inner.resume_panic(&stay);
        Some(stay.data)
    }

    /// Takes context and state out again, for another loop. Nothing is closed.
    ///
    /// # Errors
    ///
    /// The context is busy, since this is a handler: the guest stays.
    ///
    /// # Panics
    ///
    /// With the panic of a handler that nobody has taken.
    pub fn detach(self) -> Result<(Context<D>, D), Self> {
        if self.inner.stay.try_borrow_mut().is_err() {
            return Err(self);
        }
        let stay = self.inner.end(Ending::Detach).expect("a guest that was not left is there");
        self.inner.resume_panic(&stay);
        Ok((stay.context, stay.data))
    }

    /// In a forked child that goes on serving in its parent's place, once the loop is the child's own (`uv_loop_fork`, or
    /// [`Loop::take_over`](crate::Loop::take_over)): [`Context::take_over`]. The loop's next iteration watches on.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while the context is busy, within a handler for one; else the system has no descriptor left. It can be tried
    /// again.
    #[doc(alias("fork", "uv_loop_fork"))]
    pub fn take_over(&self) -> io::Result<()> {
        let mut borrowed =
            self.inner.stay.try_borrow_mut().map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
        let Some(stay) = borrowed.as_mut() else { return Ok(()) };
        stay.context.take_over()?;
        self.inner.home.taken_over();
        stay.used();
        Ok(())
    }

    /// For a forked child: gives the descriptors' numbers back, and touches neither the loop, which shares its epoll descriptor
    /// with the parent's, nor the connections ([`Context::abandon`]). The loop must not be used in the child any more. In a child
    /// that has not [taken over](Self::take_over) dropping, [`leave`](Self::leave) and [`detach`](Self::detach) do no more either.
    #[doc(alias("fork", "uv_loop_fork"))]
    pub fn abandon(self) {
        // A guest that is busy stays as it is, for good.
        let stay = self.inner.stay.try_borrow_mut().ok().and_then(|mut stay| stay.take());
        match stay {
            Some(Stay { context, watched, prepare, awake, timer, .. }) => {
                context.abandon();
                mem::forget((watched, prepare, awake, timer));
            }
            None => mem::forget(self),
        }
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> lodger::audit::Counts {
        self.inner.stay.borrow().as_ref().unwrap().watched.counts()
    }
}

impl<D> Drop for Guest<D> {
    fn drop(&mut self) {
        drop(self.inner.end(Ending::Detach));
    }
}

impl<D: 'static> Local<D> {
    /// As [`Guest::with`]. False once the guest has gone; nothing is run then.
    pub fn with(&self, run: impl FnOnce(&mut D, &mut Io<D>) + 'static) -> bool {
        self.inner.upgrade().is_some_and(|inner| inner.with(run))
    }

    /// As [`Guest::try_with`]. `None` also once the guest has gone.
    pub fn try_with<R>(&self, run: impl FnOnce(&mut D, &mut Io<D>) -> R) -> Option<R> {
        self.inner.upgrade()?.try_with(run)
    }
}

impl<D> Clone for Local<D> {
    fn clone(&self) -> Self {
        Self { inner: Weak::clone(&self.inner) }
    }
}

impl<D> Inner<D> {
    fn with(&self, run: impl FnOnce(&mut D, &mut Io<D>) + 'static) -> bool {
        match self.stay.try_borrow_mut() {
            Ok(stay) if stay.is_some() => {
                self.use_now(stay, run);
                true
            }
            Ok(_) => false,
            Err(_) => {
                self.queue.borrow_mut().push_back(Box::new(run));
                true
            }
        }
    }

    fn try_with<R>(&self, run: impl FnOnce(&mut D, &mut Io<D>) -> R) -> Option<R> {
        let stay = self.stay.try_borrow_mut().ok()?;
        stay.is_some().then(|| self.use_now(stay, run))
    }

    fn use_now<R>(
        &self,
        borrowed: RefMut<'_, Option<Stay<D>>>,
        run: impl FnOnce(&mut D, &mut Io<D>) -> R,
    ) -> R {
        // Also when it unwinds: nobody else would end what was ended meanwhile.
        let _at_the_end = EndIfAsked(self);
        let mut borrowed = borrowed;
        let stay = borrowed.as_mut().expect("the caller has looked");
        stay.used();
        let result = run(&mut stay.data, stay.context.io());
        self.run_queue(stay);
        stay.stay_awake();
        result
    }

    fn run_queue(&self, stay: &mut Stay<D>) {
        loop {
            let Some(task) = self.queue.borrow_mut().pop_front() else { return };
            stay.used();
            task(&mut stay.data, stay.context.io());
        }
    }

    /// Ends the stay now, or when the context is busy no more. Whatever is gone is gone only once.
    fn end(&self, ending: Ending) -> Option<Stay<D>> {
        let Ok(mut borrowed) = self.stay.try_borrow_mut() else {
            if self.ending.get().is_none() {
                self.ending.set(Some(ending));
            }
            return None;
        };
        let mut stay = borrowed.take()?;
        drop(borrowed);
        match ending {
            Ending::Detach => stay.watched.detach(&mut stay.context),
            Ending::Leave => stay.watched.leave(&mut stay.context, &mut stay.data),
        }
        // Outside the borrow: what is dropped may look for the queue.
        let queue = self.queue.take();
        drop(queue);
        Some(stay)
    }

    fn resume_panic(&self, stay: &Stay<D>) {
        if stay.stopped
            && let Some(panic) = self.panics.take()
        {
            resume_unwind(panic);
        }
    }
}

/// Ends a guest that was dropped or left while its context was busy.
struct EndIfAsked<'a, D>(&'a Inner<D>);

impl<D> Drop for EndIfAsked<'_, D> {
    fn drop(&mut self) {
        if let Some(ending) = self.0.ending.take() {
            drop(self.0.end(ending));
        }
    }
}

impl<D: 'static> Inner<D> {
    /// The boundary to C: nothing unwinds from here. False: a handler runs the loop, within which nothing of the guest's is
    /// served.
    fn called(self: &Rc<Self>, run: impl FnOnce(&Self, &mut Stay<D>)) -> bool {
        let Ok(borrowed) = self.stay.try_borrow_mut() else { return false };
        let result = catch_unwind(AssertUnwindSafe(|| {
            let _at_the_end = EndIfAsked(self);
            let mut borrowed = borrowed;
            if let Some(stay) = borrowed.as_mut() {
                run(self, stay);
                self.run_queue(stay);
                stay.stay_awake();
            }
        }));
        if let Err(panic) = result {
            // Its own panic would be the second; the first is what matters.
            let _ = catch_unwind(AssertUnwindSafe(|| self.stop()));
            self.panics.keep(panic, Rc::downgrade(self) as Weak<dyn GoOn>);
            self.home.stop_own();
        }
        true
    }

    /// Stands still, after a panic.
    fn stop(&self) {
        if let Ok(mut borrowed) = self.stay.try_borrow_mut()
            && let Some(stay) = borrowed.as_mut()
        {
            stay.stopped = true;
            stay.used = false;
            stay.armed = Wait::FOREVER;
            stay.timer.stop();
            stay.awake.set(false);
            stay.prepare.keep_alive(false);
            stay.watched.detach(&mut stay.context);
        }
    }
}

impl<D: 'static> Events for Inner<D> {
    fn ready(self: Rc<Self>, fd: RawFd, ready: Option<Ready>) -> bool {
        let served = self.called(|_, stay| {
            stay.used();
            let ready = ready.unwrap_or_else(|| stay.watched.failed(fd));
            // What is not lodger's any more came too late.
            let _ = stay.watched.service(&mut stay.context, fd, ready, &mut stay.data);
        });
        if !served {
            self.missed.borrow_mut().push(Missed::Ready(fd));
        }
        served
    }

    fn due(self: Rc<Self>) {
        let served = self.called(|_, stay| {
            stay.used();
            stay.armed = Wait::FOREVER;
            stay.watched.service_timeouts(&mut stay.context, &mut stay.data);
        });
        if !served {
            self.missed.borrow_mut().push(Missed::Due);
        }
    }

    fn before_sleep(self: Rc<Self>) {
        self.called(|inner, stay| {
            if stay.used {
                for missed in inner.missed.take() {
                    stay.missed(&missed);
                }
                stay.prepare(inner.keeps_alive.get());
            }
            stay.watched.sleeping(|| inner.home.backend_timeout());
        });
    }

    fn is_busy(&self) -> bool {
        self.stay.try_borrow_mut().is_err()
    }
}

impl<D> Stay<D> {
    /// The loop is to come round to `prepare` before it sleeps or ends, in whichever of its phases this is.
    fn used(&mut self) {
        if !self.used && !self.stopped {
            self.used = true;
            self.awake.set(true);
        }
    }

    /// A loop that was run within a handler is kept awake no more.
    fn stay_awake(&self) {
        if self.used {
            self.awake.set(true);
        }
    }

    fn missed(&mut self, missed: &Missed) {
        match *missed {
            Missed::Ready(fd) => drop(self.watched.failed(fd)),
            Missed::Due => self.armed = Wait::FOREVER,
        }
    }

    fn prepare(&mut self, keeps_alive: bool) {
        self.used = false;
        self.awake.set(false);
        let wait = self.watched.prepare(&mut self.context);
        self.watched.start_failed();
        if wait != self.armed {
            match wait.duration() {
                Some(duration) => self.timer.start(duration.as_nanos()),
                None => self.timer.stop(),
            }
            self.armed = wait;
        }
        let waits = wait != Wait::FOREVER || self.context.link_count() > 0;
        self.prepare.keep_alive(keeps_alive && waits);
    }
}

/// The panic that handlers in one loop have ended with, and who has stood still since.
#[derive(Default)]
pub(crate) struct Panics {
    first: Cell<Option<Box<dyn Any + Send>>>,
    stopped: RefCell<Vec<Weak<dyn GoOn>>>,
}

trait GoOn {
    fn go_on(&self);
}

impl<D> GoOn for Inner<D> {
    fn go_on(&self) {
        if let Ok(mut borrowed) = self.stay.try_borrow_mut()
            && let Some(stay) = borrowed.as_mut()
        {
            stay.stopped = false;
            stay.used();
        }
    }
}

impl Panics {
    fn keep(&self, panic: Box<dyn Any + Send>, stopped: Weak<dyn GoOn>) {
        self.stopped.borrow_mut().push(stopped);
        let first = self.first.take().unwrap_or(panic);
        self.first.set(Some(first));
    }

    pub(crate) fn take(&self) -> Option<Box<dyn Any + Send>> {
        let panic = self.first.take()?;
        for stopped in self.stopped.take() {
            if let Some(guest) = stopped.upgrade() {
                guest.go_on();
            }
        }
        Some(panic)
    }
}

impl<D> fmt::Debug for Guest<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

impl<D> fmt::Debug for Local<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}
