//! Every call that is not safe by itself, and nothing else.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Waits with `poll(2)` for `millis` at most, -1 is for ever, and says how many entries have `revents`.
///
/// An interrupted wait is one in which nothing was ready.
pub(crate) fn poll(entries: &mut [libc::pollfd], millis: libc::c_int) -> io::Result<usize> {
    // SAFETY: `entries` is exclusively borrowed for the call, and its length is its own. The numbers in it are only
    // looked at: what was closed meanwhile is answered with POLLNVAL. (`Host` promises that lodger's are open.)
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, millis) };
    if let Ok(ready) = usize::try_from(ready) {
        return Ok(ready);
    }
    poll_failed(entries)
}

#[cold]
fn poll_failed(entries: &mut [libc::pollfd]) -> io::Result<usize> {
    let error = io::Error::last_os_error();
    // What the entries hold after a failure differs between systems.
    entries.iter_mut().for_each(|entry| entry.revents = 0);
    if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
}

/// Takes ownership of `fd`, if it is a listening socket, and makes it close-on-exec.
///
/// Called by [`inherited_listeners`](crate::inherited_listeners) only: once per number and process, for numbers that whoever
/// started the process says it left open for it.
pub(crate) fn take_listener(fd: RawFd) -> Option<io::Result<OwnedFd>> {
    let mut listens: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals that outlive the call, and `size` is the size of the first. Any number may be
    // asked about.
    let result = unsafe {
        let listens = (&raw mut listens).cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, listens, &raw mut size)
    };
    if result != 0 || listens == 0 {
        return None;
    }
    // SAFETY: both take and return integers only.
    let result = unsafe {
        match libc::fcntl(fd, libc::F_GETFD) {
            -1 => -1,
            flags => libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC),
        }
    };
    if result == -1 {
        return Some(Err(io::Error::last_os_error()));
    }
    // SAFETY: the descriptor is open, as the calls above show, and nobody else in this process owns it: it was open when
    // the process began, by the protocol of socket activation, and the caller takes each number once.
    Some(Ok(unsafe { OwnedFd::from_raw_fd(fd) }))
}
