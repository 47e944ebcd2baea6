//! The calls between a guest's context and its watchers. Tests have the same under audit.

use crate::sys::Home;
use crate::watchers::Watchers;
use lodger::{Context, Ready, Wait};
use std::os::fd::RawFd;

pub(crate) struct Lodger<D> {
    pub(crate) context: Context<D>,
    pub(crate) watchers: Watchers,
}

impl<D> Lodger<D> {
    pub(crate) fn new(context: Context<D>, watchers: Watchers) -> Self {
        Self { context, watchers }
    }

    pub(crate) fn watchers(&mut self) -> &mut Watchers {
        &mut self.watchers
    }

    pub(crate) fn prepare(&mut self) -> Wait {
        self.context.prepare(&mut self.watchers)
    }

    pub(crate) fn about_to_sleep(&mut self, _: &Home) {}

    pub(crate) fn service(&mut self, fd: RawFd, ready: Ready, data: &mut D) {
        let _ = self.context.service(fd, ready, data);
    }

    pub(crate) fn service_timeouts(&mut self, data: &mut D) {
        self.context.service_timeouts(data);
    }

    pub(crate) fn detach(&mut self) {
        self.context.detach(&mut self.watchers);
    }

    pub(crate) fn leave(&mut self, data: &mut D) {
        self.context.leave(&mut self.watchers, data);
    }

    pub(crate) fn abandon(self) {
        self.context.abandon();
        std::mem::forget(self.watchers);
    }
}
