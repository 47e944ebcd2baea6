//! What `calls.rs` is, under audit.

use crate::sys::Home;
use crate::watchers::Watchers;
use lodger::audit::Audited;
use lodger::{Context, Ready, Wait};
use std::os::fd::RawFd;
use std::time::Duration;

pub(crate) struct Lodger<D> {
    pub(crate) context: Context<D>,
    pub(crate) audited: Audited<Watchers>,
}

impl<D> Lodger<D> {
    pub(crate) fn new(context: Context<D>, watchers: Watchers) -> Self {
        Self { context, audited: Audited::new(watchers).exclusive() }
    }

    pub(crate) fn watchers(&mut self) -> &mut Watchers {
        &mut self.audited.host
    }

    pub(crate) fn prepare(&mut self) -> Wait {
        self.audited.prepare(&mut self.context)
    }

    pub(crate) fn about_to_sleep(&mut self, home: &Home) {
        let millis = u64::try_from(home.backend_timeout()).ok();
        // The loop's time may be a millisecond behind, and the timeout counts from there.
        let timeout = millis.map(|millis| Duration::from_millis(millis.saturating_sub(1)));
        self.audited.audit.sleeping(timeout);
    }

    pub(crate) fn service(&mut self, fd: RawFd, ready: Ready, data: &mut D) {
        let _ = self.audited.audit.service(&mut self.context, fd, ready, data);
    }

    pub(crate) fn service_timeouts(&mut self, data: &mut D) {
        self.audited.audit.service_timeouts(&mut self.context, data);
    }

    pub(crate) fn detach(&mut self) {
        self.audited.detach(&mut self.context);
    }

    pub(crate) fn leave(&mut self, data: &mut D) {
        self.audited.leave(&mut self.context, data);
    }

    pub(crate) fn abandon(self) {
        self.context.abandon();
        std::mem::forget(self.audited);
    }
}
