//! For servers that keep their own `Vec<libc::pollfd>`.

use crate::sys;
use lodger::{Host, Interest, Wait};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// lodger's way into a server's own array. It appends its entries, and makes those that it removes tombstones (`fd` -1,
/// `events` 0) in place: no entry moves while the server goes through the array. [`compact`] sweeps them out.
///
/// ```
/// use lodger::{Context, Served};
/// use lodger_poll::{VecHost, compact, poll};
///
/// fn turn(pollfds: &mut Vec<libc::pollfd>, context: &mut Context) -> std::io::Result<()> {
///     let wait = context.prepare(&mut VecHost(pollfds));
///     compact(pollfds);
///     let mut ready = poll(pollfds, wait)?;
///     for pollfd in pollfds.iter_mut().filter(|pollfd| pollfd.revents != 0) {
///         if context.service_fd(pollfd, &mut ()) == Served::Foreign {
///             // the server's own
///         }
///         ready -= 1;
///         if ready == 0 {
///             break;
///         }
///     }
///     context.service_timeouts(&mut ());
///     Ok(())
/// }
/// # let mut context = Context::new();
/// # context.io().after(std::time::Duration::ZERO, |_, _| {});
/// # turn(&mut Vec::new(), &mut context)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A change searches the array, from its end: right for small arrays, and for large ones there is
/// [`PollArray`](crate::PollArray). A server with a second array in step with this one implements [`Host`] itself.
#[derive(Debug)]
pub struct VecHost<'a>(pub &'a mut Vec<libc::pollfd>);

impl VecHost<'_> {
    /// lodger's entries come after the server's, so a stale one of the server's with the same number is not taken.
    fn find(&mut self, fd: BorrowedFd<'_>) -> Option<&mut libc::pollfd> {
        self.0.iter_mut().rev().find(|entry| entry.fd == fd.as_raw_fd())
    }
}

impl Host for VecHost<'_> {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.0.push(libc::pollfd { fd: fd.as_raw_fd(), events: interest.poll_events(), revents: 0 });
        Ok(())
    }

    fn change(&mut self, fd: BorrowedFd<'_>, _previous: Interest, interest: Interest) -> io::Result<()> {
        self.find(fd).ok_or(io::ErrorKind::NotFound)?.events = interest.poll_events();
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        if let Some(entry) = self.find(fd) {
            *entry = TOMBSTONE;
        }
    }
}

/// Sweeps the tombstones of [`VecHost`] out of `entries`; between `prepare` and the wait, not while the array is gone
/// through.
///
/// The others keep their order, so entries in front of lodger's first keep their place. An entry that the server has
/// switched off itself (`fd` -1, `events` not 0) stays.
pub fn compact(entries: &mut Vec<libc::pollfd>) {
    entries.retain(|entry| (entry.fd, entry.events) != (TOMBSTONE.fd, TOMBSTONE.events));
}

/// `poll(2)` over a server's own array, for what [`Context::prepare`](lodger::Context::prepare) returned or for a `Duration`:
/// the number of entries with `revents`, none if a signal interrupts it. Times are rounded up to milliseconds.
///
/// # Errors
///
/// What `poll(2)` fails with: too many entries for the process's limit, or no memory.
pub fn poll(entries: &mut [libc::pollfd], wait: impl Into<Wait>) -> io::Result<usize> {
    sys::poll(entries, wait.into().poll_millis())
}

const TOMBSTONE: libc::pollfd = libc::pollfd { fd: -1, events: 0, revents: 0 };

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Write, pipe};
    use std::os::fd::{AsFd, RawFd};
    use std::time::Duration;

    fn fds(entries: &[libc::pollfd]) -> Vec<RawFd> {
        entries.iter().map(|entry| entry.fd).collect()
    }

    #[test]
    fn removed_entries_stay_as_tombstones_until_compacted() {
        let (first, second) = pipe().unwrap();
        let switched_off = libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 };
        let mut entries = vec![switched_off];
        let mut host = VecHost(&mut entries);
        host.add(first.as_fd(), Interest::READ).unwrap();
        host.add(second.as_fd(), Interest::WRITE).unwrap();
        host.change(second.as_fd(), Interest::WRITE, Interest::BOTH).unwrap();
        host.remove(first.as_fd());
        host.remove(first.as_fd());
        assert!(host.change(first.as_fd(), Interest::READ, Interest::BOTH).is_err());
        assert_eq!(fds(&entries), [-1, -1, second.as_raw_fd()]);
        compact(&mut entries);
        assert_eq!(fds(&entries), [-1, second.as_raw_fd()]);
        assert_eq!(entries[1].events, libc::POLLIN | libc::POLLOUT);
    }

    #[test]
    fn stale_entry_of_the_server_with_the_same_number_is_not_taken() {
        let (reader, _writer) = pipe().unwrap();
        let mut entries = vec![libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
        let mut host = VecHost(&mut entries);
        host.add(reader.as_fd(), Interest::READ).unwrap();
        host.remove(reader.as_fd());
        compact(&mut entries);
        assert_eq!(entries[0].events, libc::POLLOUT);
    }

    #[test]
    fn tombstones_are_never_ready() {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let mut entries = vec![TOMBSTONE];
        VecHost(&mut entries).add(reader.as_fd(), Interest::READ).unwrap();
        assert_eq!(poll(&mut entries, Wait::FOREVER).unwrap(), 1);
        assert_eq!((entries[0].revents, entries[1].revents), (0, libc::POLLIN));
        assert_eq!(poll(&mut entries[..1], Duration::ZERO).unwrap(), 0);
    }
}
