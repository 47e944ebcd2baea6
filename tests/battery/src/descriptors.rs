//! Which descriptors this process has open.

use super::PATIENCE;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Numbers and what they stand for. Empty where the system has no `/proc`.
pub(crate) struct Descriptors(BTreeSet<(PathBuf, PathBuf)>);

impl Descriptors {
    pub(crate) fn open() -> Self {
        let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        // The one that the listing itself has is gone when its name is asked for.
        Self(entries.filter_map(|entry| Some((entry.path(), fs::read_link(entry.path()).ok()?))).collect())
    }

    /// Waits until none is open that was not before: tests of other threads come to their ends, what leaked does not.
    pub(crate) fn are_all_again(&self) {
        let (_nobody, nothing) = mpsc::channel::<()>();
        for _ in 0..PATIENCE.as_millis() {
            let left = Self::open().0.difference(&self.0).count();
            if left == 0 {
                return;
            }
            assert_eq!(nothing.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
        }
        let now = Self::open();
        let left: Vec<_> = now.0.difference(&self.0).collect();
        assert!(left.is_empty(), "left open: {left:?}");
    }
}
