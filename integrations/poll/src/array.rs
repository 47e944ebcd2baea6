//! The array of a loop: lodger's entries and the host's beside each other.

use crate::sys;
use lodger::{Context, Host, Interest, Served, Wait};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// An array for `poll(2)` with lodger's entries and the host's own, called *foreign*.
///
/// Entries are found by their number without a search. One that is removed while the ready ones are gone through stays
/// as a tombstone, so that none is skipped; the next [`wait`](Self::wait) closes the gaps, and so moves entries.
///
/// The array owns no descriptor. One that was closed without being removed is reported with `POLLNVAL`.
///
/// ```
/// use lodger_poll::PollArray;
/// use std::os::fd::AsRawFd;
/// use std::time::Duration;
///
/// let (reader, _writer) = std::io::pipe()?;
/// let mut array = PollArray::new();
/// array.insert_foreign(reader.as_raw_fd(), libc::POLLIN)?;
/// assert_eq!(array.wait(Duration::ZERO)?, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Where the array is a field of the data that handlers get, `serve` cannot be called; what it does is
///
/// ```
/// # use lodger::{Context, Ready, Served};
/// # use lodger_poll::PollArray;
/// struct Server {
///     array: PollArray,
/// }
///
/// fn serve(server: &mut Server, context: &mut Context<Server>) {
///     while let Some(entry) = server.array.next_ready().copied() {
///         let ready = Ready::from_poll_revents(entry.revents);
///         if context.service(entry.fd, ready, server) == Served::Foreign {
///             // the server's own
///         }
///     }
/// }
/// ```
#[doc(alias("pollfd", "lws_service_fd"))]
#[derive(Debug, Default)]
pub struct PollArray {
    entries: Vec<libc::pollfd>,
    /// Whose each entry is; as long as `entries`.
    owners: Vec<Owner>,
    /// By descriptor, where its entry is; `NOWHERE` if it has none.
    places: Vec<u32>,
    /// Where the tombstones are.
    holes: Vec<u32>,
    /// Where the search for ready entries goes on, and how many are still to be found.
    cursor: usize,
    unseen: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Owner {
    Lodger,
    Foreign,
}

impl PollArray {
    /// An empty array.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry of the host's own: `fd` is polled for `events` from the next wait on.
    ///
    /// # Errors
    ///
    /// - `AlreadyExists`: there is an entry for `fd`.
    /// - `InvalidInput`: `fd` is negative.
    pub fn insert_foreign(&mut self, fd: RawFd, events: i16) -> io::Result<()> {
        self.insert(fd, events, Owner::Foreign)
    }

    /// Polls the host's own `fd` for `events` from the next wait on; false if the host has no entry for it.
    pub fn set_events(&mut self, fd: RawFd, events: i16) -> bool {
        let found = self.find(fd, Owner::Foreign);
        if let Some(at) = found {
            self.entries[at].events = events;
        }
        found.is_some()
    }

    /// Removes the host's own entry for `fd`, at any time, also while the ready ones are gone through; before `fd` is
    /// closed. False if the host has no entry for it.
    pub fn remove_foreign(&mut self, fd: RawFd) -> bool {
        let found = self.find(fd, Owner::Foreign);
        if let Some(at) = found {
            self.bury(at);
        }
        found.is_some()
    }

    /// Waits with `poll(2)` until a descriptor is ready or `wait` is over, and says how many are ready. It takes what
    /// [`Context::prepare`] returned, or a `Duration`; a loop with a limit of its own passes
    /// `wait.sooner(limit.into())`. Times are rounded up to milliseconds.
    ///
    /// A wait that a signal interrupts ends with none ready.
    ///
    /// # Errors
    ///
    /// What `poll(2)` fails with: too many entries for the process's limit, or no memory.
    pub fn wait(&mut self, wait: impl Into<Wait>) -> io::Result<usize> {
        self.wait_millis(wait.into().poll_millis())
    }

    /// The next entry that the last wait found ready, lodger's or foreign, in the order of the array; `None` when all have
    /// been seen. Entries may be added and removed between two calls.
    pub fn next_ready(&mut self) -> Option<&mut libc::pollfd> {
        self.find_ready().map(|at| &mut self.entries[at])
    }

    /// Has the ready entries served by `context`, up to the next that is not its own: that one is returned, for the host
    /// to handle. `None` when all have been served.
    ///
    /// With several contexts, an entry that this one does not know may belong to another.
    pub fn serve<D>(&mut self, context: &mut Context<D>, data: &mut D) -> Option<libc::pollfd> {
        while let Some(at) = self.find_ready() {
            let entry = &mut self.entries[at];
            if self.owners[at] == Owner::Foreign || context.service_fd(entry, data) == Served::Foreign {
                return Some(*entry);
            }
        }
        None
    }

    /// How many descriptors are polled.
    pub fn len(&self) -> usize {
        self.entries.len() - self.holes.len()
    }

    /// Whether no descriptor is polled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries, tombstones (`fd` is -1) among them.
    pub fn entries(&self) -> &[libc::pollfd] {
        &self.entries
    }

    /// Removes the entry for `fd`, whosever it is.
    pub(crate) fn forget(&mut self, fd: RawFd) {
        if let Some(at) = self.place(fd) {
            self.bury(at);
        }
    }

    /// As [`wait`](Self::wait), -1 is for ever.
    pub(crate) fn wait_millis(&mut self, millis: i32) -> io::Result<usize> {
        if !self.holes.is_empty() {
            self.close_gaps();
        }
        self.cursor = 0;
        self.unseen = 0;
        self.unseen = sys::poll(&mut self.entries, millis)?;
        Ok(self.unseen)
    }

    fn find_ready(&mut self) -> Option<usize> {
        if self.unseen == 0 {
            return None;
        }
        let offset = self.entries[self.cursor..].iter().position(|entry| entry.revents != 0)?;
        let at = self.cursor + offset;
        self.cursor = at + 1;
        self.unseen -= 1;
        Some(at)
    }

    fn insert(&mut self, fd: RawFd, events: i16, owner: Owner) -> io::Result<()> {
        let number = usize::try_from(fd).map_err(|_| io::ErrorKind::InvalidInput)?;
        if self.place(fd).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if number >= self.places.len() {
            self.places.resize(number + 1, NOWHERE);
        }
        self.places[number] = self.entries.len() as u32;
        self.entries.push(libc::pollfd { fd, events, revents: 0 });
        self.owners.push(owner);
        Ok(())
    }

    /// Makes the entry a tombstone.
    fn bury(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        self.places[entry.fd as usize] = NOWHERE;
        if entry.revents != 0 && at >= self.cursor {
            self.unseen = self.unseen.saturating_sub(1);
        }
        *entry = libc::pollfd { fd: -1, events: 0, revents: 0 };
        self.holes.push(at as u32);
    }

    /// Moves entries from the end into the holes. The last holes go first, so that what is moved is never one.
    #[inline(never)]
    fn close_gaps(&mut self) {
        self.holes.sort_unstable();
        while let Some(hole) = self.holes.pop() {
            let hole = hole as usize;
            self.entries.swap_remove(hole);
            self.owners.swap_remove(hole);
            if let Some(moved) = self.entries.get(hole) {
                self.places[moved.fd as usize] = hole as u32;
            }
        }
    }

    fn place(&self, fd: RawFd) -> Option<usize> {
        let place = *self.places.get(usize::try_from(fd).ok()?)?;
        (place != NOWHERE).then_some(place as usize)
    }

    fn find(&self, fd: RawFd, owner: Owner) -> Option<usize> {
        self.place(fd).filter(|&at| self.owners[at] == owner)
    }
}

/// lodger's side. A foreign entry with the number of a descriptor that lodger adds is stale, since lodger's is open: whoever
/// closed the former one did not remove it. It is dropped.
impl Host for PollArray {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.remove_foreign(fd.as_raw_fd());
        self.insert(fd.as_raw_fd(), interest.poll_events(), Owner::Lodger)
    }

    fn change(&mut self, fd: BorrowedFd<'_>, _previous: Interest, interest: Interest) -> io::Result<()> {
        let at = self.find(fd.as_raw_fd(), Owner::Lodger).ok_or(io::ErrorKind::NotFound)?;
        self.entries[at].events = interest.poll_events();
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        if let Some(at) = self.find(fd.as_raw_fd(), Owner::Lodger) {
            self.bury(at);
        }
    }
}

const NOWHERE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use lodger::{Env, SystemEnv};
    use std::io::{PipeReader, PipeWriter, Write, pipe};
    use std::os::fd::AsFd;
    use std::time::Duration;

    /// Pipes with something to read in each, all polled as foreign.
    fn ready_pipes(array: &mut PollArray, count: usize) -> Vec<(PipeReader, PipeWriter)> {
        let pipes: Vec<_> = (0..count).map(|_| pipe().unwrap()).collect();
        for (reader, writer) in &pipes {
            let mut writer = writer;
            writer.write_all(b"x").unwrap();
            array.insert_foreign(reader.as_raw_fd(), libc::POLLIN).unwrap();
        }
        pipes
    }

    fn ready(array: &mut PollArray) -> Vec<RawFd> {
        std::iter::from_fn(|| array.next_ready().map(|entry| entry.fd)).collect()
    }

    /// What the array says of itself agrees with its entries.
    fn check(array: &PollArray) {
        let live: Vec<_> = array.entries.iter().enumerate().filter(|(_, entry)| entry.fd >= 0).collect();
        assert_eq!(live.len(), array.len());
        assert_eq!(array.entries.len(), array.owners.len());
        for (at, entry) in live {
            assert_eq!(array.place(entry.fd), Some(at));
        }
        assert_eq!(array.places.iter().filter(|&&place| place != NOWHERE).count(), array.len());
    }

    #[test]
    fn removing_during_an_iteration_skips_none_and_hits_none_that_was_removed() {
        let mut array = PollArray::new();
        let pipes = ready_pipes(&mut array, 5);
        let fds: Vec<_> = pipes.iter().map(|(reader, _)| reader.as_raw_fd()).collect();
        assert_eq!(array.wait(Duration::ZERO).unwrap(), 5);
        assert_eq!(array.next_ready().unwrap().fd, fds[0]);
        assert!(array.remove_foreign(fds[0]));
        assert!(array.remove_foreign(fds[2]));
        assert_eq!(ready(&mut array), [fds[1], fds[3], fds[4]]);
        check(&array);
        assert_eq!(array.entries().len(), 5);
        assert_eq!(array.wait(Duration::ZERO).unwrap(), 3);
        assert_eq!(array.entries().len(), 3);
        check(&array);
        let left = ready(&mut array);
        assert!(left.len() == 3 && [1, 3, 4].iter().all(|&at| left.contains(&fds[at])));
    }

    #[test]
    fn adding_during_an_iteration_reports_nothing_before_the_next_wait() {
        let mut array = PollArray::new();
        let _first = ready_pipes(&mut array, 1);
        array.wait(Duration::ZERO).unwrap();
        assert!(array.next_ready().is_some());
        let _second = ready_pipes(&mut array, 1);
        assert!(array.next_ready().is_none());
        assert_eq!(array.wait(Duration::ZERO).unwrap(), 2);
    }

    #[test]
    fn number_removed_and_used_again_during_an_iteration_is_not_taken_for_ready() {
        let mut array = PollArray::new();
        let pipes = ready_pipes(&mut array, 2);
        let again = &pipes[1].0;
        array.wait(Duration::ZERO).unwrap();
        assert!(array.next_ready().is_some());
        array.remove_foreign(again.as_raw_fd());
        array.add(again.as_fd(), Interest::READ).unwrap();
        assert!(array.next_ready().is_none());
        array.wait(Duration::ZERO).unwrap();
        assert_eq!(ready(&mut array).len(), 2);
        check(&array);
    }

    #[test]
    fn gaps_are_closed_for_every_pattern_of_removals() {
        let pipes: Vec<_> = (0..6).map(|_| pipe().unwrap()).collect();
        for pattern in 0_u32..1 << pipes.len() {
            let mut array = PollArray::new();
            for (reader, _) in &pipes {
                array.insert_foreign(reader.as_raw_fd(), libc::POLLIN).unwrap();
            }
            // Not in the order of the array: odd ones from the front, then even ones from the back.
            let (odd, even) = ([1, 3, 5], [4, 2, 0]);
            for bit in odd.into_iter().chain(even).filter(|bit| pattern & (1 << bit) != 0) {
                assert!(array.remove_foreign(pipes[bit].0.as_raw_fd()));
            }
            assert_eq!(array.wait(Duration::ZERO).unwrap(), 0);
            assert_eq!(array.entries().len(), pipes.len() - pattern.count_ones() as usize);
            assert!(array.entries().iter().all(|entry| entry.fd >= 0));
            check(&array);
        }
    }

    #[test]
    fn host_and_lodger_cannot_touch_each_others_entries() {
        let mut array = PollArray::new();
        let (reader, writer) = pipe().unwrap();
        array.add(reader.as_fd(), Interest::READ).unwrap();
        let fd = reader.as_raw_fd();
        assert_eq!(array.insert_foreign(fd, libc::POLLOUT).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!array.set_events(fd, libc::POLLOUT));
        assert!(!array.remove_foreign(fd));
        array.insert_foreign(writer.as_raw_fd(), libc::POLLOUT).unwrap();
        array.remove(writer.as_fd());
        assert!(array.change(writer.as_fd(), Interest::WRITE, Interest::READ).is_err());
        array.change(reader.as_fd(), Interest::READ, Interest::BOTH).unwrap();
        let events: Vec<_> = array.entries().iter().map(|entry| entry.events).collect();
        assert_eq!(events, [libc::POLLIN | libc::POLLOUT, libc::POLLOUT]);
        assert!(array.set_events(writer.as_raw_fd(), 0));
        assert_eq!(array.insert_foreign(-1, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn stale_foreign_entry_gives_way_to_lodgers() {
        let mut array = PollArray::new();
        let (reader, _writer) = pipe().unwrap();
        array.insert_foreign(reader.as_raw_fd(), libc::POLLOUT).unwrap();
        array.add(reader.as_fd(), Interest::READ).unwrap();
        array.remove(reader.as_fd());
        assert!(array.is_empty());
        check(&array);
    }

    #[test]
    fn wait_rounds_up_and_zero_returns_at_once() {
        let mut array = PollArray::new();
        let before = SystemEnv.now();
        assert_eq!(array.wait(Duration::from_micros(10)).unwrap(), 0);
        assert!(before.elapsed() >= Duration::from_micros(10));
        assert_eq!(array.wait(Duration::ZERO).unwrap(), 0);
        assert_eq!(array.wait(Wait::NOW).unwrap(), 0);
    }

    #[test]
    fn closed_descriptor_is_reported_as_invalid() {
        let mut array = PollArray::new();
        let (reader, _writer) = pipe().unwrap();
        // A number that nothing else of this process uses.
        let fd = reader.as_raw_fd() + 500;
        array.insert_foreign(fd, libc::POLLIN).unwrap();
        assert_eq!(array.wait(Duration::ZERO).unwrap(), 1);
        assert_eq!(array.next_ready().unwrap().revents, libc::POLLNVAL);
    }
}
