//! What the system offers for watching many descriptors: epoll or kqueue, level-triggered.

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "poller/epoll.rs"]
mod system;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "poller/kqueue.rs"]
mod system;

pub(crate) use system::Poller;

use lodger::{Context, Host, Ready, Wait};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

/// What a wait reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A descriptor of lodger's.
    Ready(RawFd, Ready),
    /// The deadline that was armed has come: it was taken already.
    Own,
}

impl Poller {
    /// Whether something is ready now, or the deadline has come. Takes nothing.
    pub(crate) fn is_readable(&self) -> io::Result<bool> {
        let mut own = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        Ok(poll(&mut own, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    }
}

/// What stands between a context and its poller: nothing, and an audit in the tests of this crate.
#[cfg(not(test))]
pub(crate) type Watched = Poller;
#[cfg(test)]
pub(crate) type Watched = lodger::audit::Audited<Poller>;

/// Everything that the loops here call a context for.
pub(crate) trait Watch: Host + Sized {
    fn around(poller: Poller) -> Self;

    fn poller(&self) -> &Poller;

    fn poller_mut(&mut self) -> &mut Poller;

    /// The loop is about to sleep.
    fn sleeping(&mut self, timeout: Option<Duration>) {
        let _ = timeout;
    }

    fn prepare<D>(&mut self, context: &mut Context<D>) -> Wait {
        context.prepare(self)
    }

    fn service<D>(&mut self, context: &mut Context<D>, fd: RawFd, ready: Ready, data: &mut D) {
        // What is not lodger's any more came too late.
        let _ = context.service(fd, ready, data);
    }

    fn service_timeouts<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        context.service_timeouts(data);
    }

    fn detach<D>(&mut self, context: &mut Context<D>) {
        context.detach(self);
    }

    fn leave<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        context.leave(self, data);
    }
}

impl Watch for Poller {
    fn around(poller: Poller) -> Self {
        poller
    }

    fn poller(&self) -> &Poller {
        self
    }

    fn poller_mut(&mut self) -> &mut Poller {
        self
    }
}

#[cfg(test)]
impl Watch for lodger::audit::Audited<Poller> {
    fn around(poller: Poller) -> Self {
        Self::new(poller).exclusive()
    }

    fn poller(&self) -> &Poller {
        &self.host
    }

    fn poller_mut(&mut self) -> &mut Poller {
        &mut self.host
    }

    fn sleeping(&mut self, timeout: Option<Duration>) {
        self.audit.sleeping(timeout);
    }

    fn prepare<D>(&mut self, context: &mut Context<D>) -> Wait {
        Self::prepare(self, context)
    }

    fn service<D>(&mut self, context: &mut Context<D>, fd: RawFd, ready: Ready, data: &mut D) {
        let _ = self.audit.service(context, fd, ready, data);
    }

    fn service_timeouts<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        self.audit.service_timeouts(context, data);
    }

    fn detach<D>(&mut self, context: &mut Context<D>) {
        Self::detach(self, context);
    }

    fn leave<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        Self::leave(self, context, data);
    }
}
