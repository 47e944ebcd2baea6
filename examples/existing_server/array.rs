//! The server's poll array: what `poll(2)` takes, and beside each entry what the server knows of it.

use std::os::fd::RawFd;

/// The array. `fds[at]` and `entries[at]` belong together.
#[derive(Default)]
pub(crate) struct Array {
    pub(crate) fds: Vec<libc::pollfd>,
    pub(crate) entries: Vec<Entry>,
}

/// One descriptor in the array.
pub(crate) struct Entry {
    pub(crate) what: What,
    /// A word more about it, for people.
    pub(crate) note: String,
    /// How often poll reported it.
    pub(crate) wakeups: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// What an entry is, and so who serves it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    Signals,
    Tick,
    /// Lines that come from nowhere but this machine: the FIFO, standard input, the child's pipe.
    Lines,
    LineListener,
    LineClient,
    /// Not the server's.
    Lodger,
}

impl Array {
    /// Watches `fd` for `events`.
    pub(crate) fn add(&mut self, fd: RawFd, events: i16, what: What, note: impl Into<String>) {
        self.fds.push(libc::pollfd { fd, events, revents: 0 });
        self.entries.push(Entry { what, note: note.into(), wakeups: 0, bytes_in: 0, bytes_out: 0 });
    }

    /// The entry of `fd`.
    pub(crate) fn find(&self, fd: RawFd) -> Option<usize> {
        self.fds.iter().position(|entry| entry.fd == fd)
    }

    /// Forgets the entry. It keeps its place until the batch is over, so that no other is skipped.
    pub(crate) fn remove(&mut self, at: usize) {
        self.fds[at].fd = -1;
        self.fds[at].revents = 0;
    }

    /// Closes the gaps, between two batches.
    pub(crate) fn compact(&mut self) {
        let mut kept = self.fds.iter().map(|entry| entry.fd >= 0);
        self.entries.retain(|_| kept.next() == Some(true));
        self.fds.retain(|entry| entry.fd >= 0);
    }

    /// Whether poll reported the entry; counts it.
    pub(crate) fn is_ready(&mut self, at: usize) -> bool {
        let ready = self.fds[at].revents != 0;
        self.entries[at].wakeups += u64::from(ready);
        ready
    }
}
