//! One descriptor for all of lodger's, with the deadline and the wake-up behind it.

use crate::poller::{Event, Poller};
use lodger::{Context, Io};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// A context behind one descriptor, which is readable whenever lodger has something to do: a descriptor of its own is ready,
/// its deadline has come, or another thread posted something. The host watches it for readability and calls
/// [`dispatch`](Self::dispatch); it needs to know nothing else.
///
/// Level-triggered hosts (`poll`, glib, calloop, libuv, Qt) need no more than that. For edge-triggered ones (mio, tokio, `EPOLLET`)
/// see [`edge_triggered`](Self::edge_triggered).
///
/// When dropped, it detaches and drops its context: nothing is said to the peers. [`leave`](Self::leave) does that.
#[derive(Debug)]
pub struct Single<D> {
    /// Present until it is taken out for good.
    context: Option<Context<D>>,
    poller: Poller,
    edge_triggered: bool,
    armed: Armed,
}

/// When the poller will become readable by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Armed {
    Never,
    Now,
    At(Instant),
}

impl<D> Single<D> {
    /// Takes a context in. Its descriptors are watched from here on.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub fn new(context: Context<D>) -> io::Result<Self> {
        let mut single = Self {
            context: Some(context),
            poller: Poller::new()?,
            edge_triggered: false,
            armed: Armed::Never,
        };
        single.prepare()?;
        Ok(single)
    }

    /// For hosts that hear only of changes: after a dispatch that left something, the descriptor becomes readable anew, so
    /// that the next edge comes. It costs a system call per dispatch.
    #[must_use]
    pub fn edge_triggered(mut self) -> Self {
        self.edge_triggered = true;
        self
    }

    /// Serves at most `max` ready descriptors and what is due, and says how many descriptors were ready. It does not wait. What
    /// is left, or comes meanwhile, keeps the descriptor readable: a host that draws frames asks for a small `max`, 64
    /// for one, and is called again.
    ///
    /// # Errors
    ///
    /// What the system's poller fails with, for want of memory or descriptors; nothing is lost, and the next dispatch goes on.
    pub fn dispatch(&mut self, max: usize, data: &mut D) -> io::Result<usize> {
        let Some(context) = &mut self.context else { return Ok(0) };
        let ready = self.poller.wait(Some(Duration::ZERO), max.max(1))?;
        for at in 0..ready {
            match self.poller.event(at) {
                Some(Event::Ready(fd, ready)) => {
                    let _ = context.service(fd, ready, data);
                }
                Some(Event::Own) => self.armed = Armed::Never,
                None => {}
            }
        }
        context.service_timeouts(data);
        self.prepare()?;
        if self.edge_triggered && ready > 0 {
            // What was ready may be so still, and nobody would hear of it.
            self.arm(Armed::Now, Some(Duration::ZERO))?;
        }
        Ok(ready)
    }

    /// Uses the context from outside a dispatch: send, close, listen, set timers. What comes of it is written and
    /// announced before this returns; handlers hear of it in the next dispatch.
    ///
    /// # Errors
    ///
    /// As [`dispatch`](Self::dispatch), after `with` has run.
    pub fn with<R>(&mut self, with: impl FnOnce(&mut Io<D>) -> R) -> io::Result<R> {
        let context = self.context.as_mut().expect("a context is taken out only for good");
        let result = with(context.io());
        self.prepare()?;
        Ok(result)
    }

    /// Takes the context out again, for another loop. Nothing is closed.
    pub fn detach(mut self) -> Context<D> {
        let mut context = self.context.take().expect("a context is taken out only for good");
        context.detach(&mut self.poller);
        context
    }

    /// Says goodbye to every peer, and closes ([`Context::leave`]).
    pub fn leave(mut self, data: &mut D) {
        if let Some(mut context) = self.context.take() {
            context.leave(&mut self.poller, data);
        }
    }

    /// Has everything watched as it is to be, and the deadline armed.
    fn prepare(&mut self) -> io::Result<()> {
        let Some(context) = &mut self.context else { return Ok(()) };
        let wait = context.prepare(&mut self.poller);
        let wanted = match wait.instant() {
            Some(at) => Armed::At(at),
            None if wait.is_now() => Armed::Now,
            None => Armed::Never,
        };
        // A deadline that has moved later is left armed: it is put right when the earlier one comes.
        let early_enough = match (self.armed, wanted) {
            (Armed::Now, Armed::Now | Armed::At(_)) | (Armed::Never, Armed::Never) => true,
            (Armed::At(armed), Armed::At(wanted)) => armed <= wanted,
            (Armed::At(_) | Armed::Never, Armed::Now) => false,
            (Armed::Never, Armed::At(_)) | (Armed::Now | Armed::At(_), Armed::Never) => false,
        };
        if early_enough { Ok(()) } else { self.arm(wanted, wait.duration()) }
    }

    fn arm(&mut self, wanted: Armed, delay: Option<Duration>) -> io::Result<()> {
        self.poller.arm(delay)?;
        self.armed = wanted;
        Ok(())
    }
}

impl<D> Drop for Single<D> {
    fn drop(&mut self) {
        if let Some(mut context) = self.context.take() {
            context.detach(&mut self.poller);
        }
    }
}

impl<D> AsFd for Single<D> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

impl<D> AsRawFd for Single<D> {
    fn as_raw_fd(&self) -> RawFd {
        self.poller.as_fd().as_raw_fd()
    }
}
