//! Telling a loop that spins from one that is busy.

use crate::{Context, Ready};

/// The same thing, time after time, with nothing coming of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Streak {
    length: u32,
    pub(super) batch: u64,
    ready: Ready,
    host_calls: u64,
    moved: Option<u64>,
}

impl Streak {
    /// One more time; true when that makes `limit` in a row, and `moved` has said the same for the second half of them.
    pub(super) fn goes_on(
        &mut self,
        batch: u64,
        ready: Ready,
        host_calls: u64,
        limit: u32,
        moved: impl FnOnce() -> u64,
    ) -> bool {
        if self.length > 0 && self.batch == batch {
            return false;
        }
        let is_next = self.batch + 1 == batch && self.ready == ready && self.host_calls == host_calls;
        if self.length == 0 || !is_next {
            *self = Self { length: 1, batch, ready, host_calls, moved: None };
            return false;
        }
        self.length += 1;
        self.batch = batch;
        if self.moved.is_none() && self.length >= limit / 2 {
            self.moved = Some(moved());
            return false;
        }
        if self.length < limit {
            return false;
        }
        let is_spin = self.moved == Some(moved());
        *self = Self::default();
        is_spin
    }
}

/// A number that differs whenever bytes have moved on any link, or links have come or gone.
pub(super) fn moved<D>(context: &mut Context<D>) -> u64 {
    let links = context.io().links();
    links.fold(0, |sum: u64, link| sum.wrapping_add(link.received).wrapping_add(link.sent))
}
