//! The seam at which an audit goes into a loop.

use super::Audited;
use crate::{Context, Host, Pollable, Ready, Served, Wait};
use std::ops::{Deref, DerefMut};
use std::os::fd::RawFd;
use std::time::Duration;

/// What a loop calls a context for, by way of its host: a loop that is written over these can be tested with an audit in it.
///
/// For a host they are the calls of [`Context`], and cost the same. For an audited one they are checked, and everything else
/// of the host is found through it. So the loop names its host once, and has nothing else for the audit:
///
/// ```
/// use lodger::audit::{Audited, Calls};
/// # use lodger::{Host, Interest};
/// # use std::{io, os::fd::BorrowedFd};
/// # #[derive(Default)]
/// # struct Poller;
/// # impl Host for Poller {
/// #     fn add(&mut self, _: BorrowedFd<'_>, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn change(&mut self, _: BorrowedFd<'_>, _: Interest, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn remove(&mut self, _: BorrowedFd<'_>) {}
/// # }
/// impl Calls for Poller {}
///
/// #[cfg(not(test))]
/// type Watched = Poller;
/// #[cfg(test)]
/// type Watched = Audited<Poller>;
///
/// fn watched(poller: Poller) -> Watched {
///     #[cfg(test)]
///     let poller = Audited::new(poller).exclusive();
///     poller
/// }
/// # let mut watched = watched(Poller);
/// # let mut context = lodger::Context::<()>::new();
/// # let wait = watched.prepare(&mut context);
/// # watched.sleeping(|| wait.duration());
/// # watched.service_timeouts(&mut context, &mut ());
/// # watched.detach(&mut context);
/// ```
pub trait Calls: Host + Sized {
    /// [`Context::prepare`].
    #[inline]
    fn prepare<D>(&mut self, context: &mut Context<D>) -> Wait {
        context.prepare(self)
    }

    /// The loop is about to sleep for `timeout` at most, `None` is for ever, which only an audit asks for
    /// ([`Audit::sleeping`](super::Audit::sleeping)).
    #[inline]
    fn sleeping(&mut self, timeout: impl FnOnce() -> Option<Duration>) {
        let _ = timeout;
    }

    /// [`Context::service_fd`], for a copy of an entry where the array is the host's.
    #[inline]
    fn service_fd<D>(
        &mut self,
        context: &mut Context<D>,
        pollfd: &mut impl Pollable,
        data: &mut D,
    ) -> Served {
        context.service_fd(pollfd, data)
    }

    /// [`Context::service`].
    #[inline]
    fn service<D>(&mut self, context: &mut Context<D>, fd: RawFd, ready: Ready, data: &mut D) -> Served {
        context.service(fd, ready, data)
    }

    /// [`Context::service_timeouts`].
    #[inline]
    fn service_timeouts<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        context.service_timeouts(data);
    }

    /// [`Context::detach`].
    fn detach<D>(&mut self, context: &mut Context<D>) {
        context.detach(self);
    }

    /// [`Context::leave`].
    fn leave<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        context.leave(self, data);
    }
}

impl<H: Host> Calls for Audited<H> {
    fn prepare<D>(&mut self, context: &mut Context<D>) -> Wait {
        Self::prepare(self, context)
    }

    fn sleeping(&mut self, timeout: impl FnOnce() -> Option<Duration>) {
        self.audit.sleeping(timeout());
    }

    fn service_fd<D>(
        &mut self,
        context: &mut Context<D>,
        pollfd: &mut impl Pollable,
        data: &mut D,
    ) -> Served {
        self.audit.service_fd(context, pollfd, data)
    }

    fn service<D>(&mut self, context: &mut Context<D>, fd: RawFd, ready: Ready, data: &mut D) -> Served {
        self.audit.service(context, fd, ready, data)
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

/// The host inside, so that a loop is written alike with the audit and without.
impl<H> Deref for Audited<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.host
    }
}

impl<H> DerefMut for Audited<H> {
    fn deref_mut(&mut self) -> &mut H {
        &mut self.host
    }
}
