//! Checks both sides of the contract at run time: a host around any other host, for tests.
//!
//! Whoever writes an adapter, or a loop of their own, runs their tests under it: what the loop forgets, and what lodger
//! gets wrong, panics with the rule that was broken, who broke it, and the last calls about the descriptor. Calls into
//! the context that are made through the audit are checked; so are the calls of lodger to the host.
//!
//! ```
//! use lodger::{Context, audit::Audited};
//! use lodger_poll::PollArray;
//! use std::time::Duration;
//!
//! let mut context: Context = Context::new();
//! let mut audited = Audited::new(PollArray::new());
//! for _ in 0..3 {
//!     let wait = audited.prepare(&mut context).sooner(Duration::from_millis(1).into());
//!     audited.audit.sleeping(wait.duration());
//!     audited.host.wait(wait)?;
//!     while let Some(entry) = audited.host.next_ready() {
//!         let _ = audited.audit.service_fd(&mut context, entry, &mut ());
//!     }
//!     audited.audit.service_timeouts(&mut context, &mut ());
//! }
//! audited.detach(&mut context);
//! audited.finished();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A loop that is to be tested with an audit inside and used without one is written over [`Calls`].
//!
//! One audit belongs to one context. This module is not bound by semantic versioning: rules are added as they are found
//! broken.

mod books;
mod calls;
mod spin;
mod violation;

pub use books::Audit;
pub use calls::Calls;
pub use violation::{Blame, Violation};

use crate::{Context, Host, Interest, Scope, Wait};
use books::Report;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// A host that checks what passes between lodger and the host inside. See the [module](self).
///
/// It panics where [`Host`] says that a host must not: it is for tests. Two fields, so that the host can wait and be
/// looked through while the audit is called.
#[derive(Debug)]
pub struct Audited<H> {
    /// The host inside.
    pub host: H,
    /// What has passed, and the checked calls that need no host.
    pub audit: Audit,
}

impl<H> Audited<H> {
    /// Audits `host`; a violation panics.
    pub fn new(host: H) -> Self {
        Self { host, audit: Audit::new(Report::Panic) }
    }

    /// Audits `host`; violations are given to `report`, and all goes on.
    pub fn reporting(host: H, report: impl FnMut(Violation) + 'static) -> Self {
        Self { host, audit: Audit::new(Report::To(Box::new(report))) }
    }

    /// How late a loop may be by the clock: one second by default, so that a busy machine fails no test.
    #[must_use]
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.audit.tolerance = tolerance;
        self
    }

    /// In how many waits in a row a descriptor may be reported without bytes or a registration moving anywhere in the
    /// context: 1,000 by default. A test of an idle context asks for less; one whose handlers read adopted descriptors
    /// themselves, or whose listeners refuse many, may need more.
    #[must_use]
    pub fn spin_after(mut self, waits: u32) -> Self {
        self.audit.spin_after = waits;
        self
    }

    /// The loop passes lodger's descriptors only: any other that it reports is a violation.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.audit.exclusive = true;
        self
    }

    /// Reads the time from `clock`, for contexts whose time is simulated.
    #[must_use]
    pub fn clock(mut self, clock: impl FnMut() -> Instant + 'static) -> Self {
        self.audit.clock = Box::new(clock);
        self
    }

    /// What has been called so far.
    pub fn counts(&self) -> Counts {
        self.audit.counts
    }

    /// The end: checks that every descriptor that was added was removed. Dropping does the same.
    pub fn finished(&mut self) {
        self.audit.finish(false);
        self.audit.settled = true;
    }
}

impl<H: Host> Audited<H> {
    /// [`Context::prepare`], checked.
    pub fn prepare<D>(&mut self, context: &mut Context<D>) -> Wait {
        self.audit.before_prepare();
        let wait = context.prepare(self);
        self.audit.after_prepare(wait, || spin::moved(context));
        wait
    }

    /// [`Context::detach`], checked: nothing is watched after it. In a forked child that has not taken the context over there
    /// is nothing to check.
    pub fn detach<D>(&mut self, context: &mut Context<D>) {
        let is_forked = context.is_forked();
        context.detach(self);
        self.detached(is_forked);
    }

    /// [`Context::leave`], checked: nothing is watched after it. In a forked child that has not taken the context over there is
    /// nothing to check.
    pub fn leave<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        let is_forked = context.is_forked();
        context.leave(self, data);
        self.detached(is_forked);
    }

    fn detached(&mut self, is_forked: bool) {
        if is_forked {
            self.audit.settled = true;
        } else {
            self.audit.finish(true);
        }
    }
}

impl<H: Host> Host for Audited<H> {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.audit.before_add(fd, interest);
        let result = self.host.add(fd, interest);
        self.audit.after_add(fd, interest, result.is_ok());
        result
    }

    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()> {
        self.audit.before_change(fd, previous, interest);
        let result = self.host.change(fd, previous, interest);
        self.audit.after_change(fd, interest, result.is_ok());
        result
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        self.audit.before_remove(fd);
        self.host.remove(fd);
    }

    fn lock(&mut self, scope: Scope) {
        self.audit.before_lock(scope);
        self.host.lock(scope);
    }

    fn unlock(&mut self, scope: Scope) {
        self.host.unlock(scope);
        self.audit.after_unlock(scope);
    }
}

/// How often what was called: for tests that a thing costs nothing.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Calls of [`Host::add`].
    pub adds: u64,
    /// Calls of [`Host::change`].
    pub changes: u64,
    /// Calls of [`Host::remove`].
    pub removes: u64,
    /// Calls of [`Host::lock`].
    pub locks: u64,
    /// Adds and changes that the host inside answered with an error.
    pub refused: u64,
    /// Calls of [`Audited::prepare`].
    pub prepares: u64,
    /// Sleeps that lodger ended: by a descriptor of its own, or by its deadline.
    pub wake_ups: u64,
    /// Calls of [`Audit::service_fd`] and [`Audit::service`] for descriptors of lodger's, with something reported.
    pub services: u64,
    /// Calls of [`Audit::service_timeouts`].
    pub timeouts: u64,
}

impl Counts {
    /// Adds, changes and removes.
    pub fn host_calls(&self) -> u64 {
        self.adds + self.changes + self.removes
    }

    /// What has been called since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            adds: self.adds - earlier.adds,
            changes: self.changes - earlier.changes,
            removes: self.removes - earlier.removes,
            locks: self.locks - earlier.locks,
            refused: self.refused - earlier.refused,
            prepares: self.prepares - earlier.prepares,
            wake_ups: self.wake_ups - earlier.wake_ups,
            services: self.services - earlier.services,
            timeouts: self.timeouts - earlier.timeouts,
        }
    }
}

#[cfg(test)]
mod tests;
