//! The system calls for which the standard library has no safe form, as this server always had them.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Waits until an entry is ready or `millis` have passed; -1 is for ever.
pub(crate) fn poll(fds: &mut [libc::pollfd], millis: i32) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one slice, borrowed for the call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
    match check(ready) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result.map(drop),
    }
}

/// A descriptor that becomes readable when SIGINT or SIGTERM comes; the signals do nothing else from now on.
pub(crate) fn signals() -> io::Result<File> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set that the other calls read.
    unsafe {
        check(libc::sigemptyset(set.as_mut_ptr()))?;
        check(libc::sigaddset(set.as_mut_ptr(), libc::SIGINT))?;
        check(libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM))?;
        check(libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC))?;
        Ok(File::from(OwnedFd::from_raw_fd(fd)))
    }
}

/// A descriptor that becomes readable every `seconds`.
pub(crate) fn every(seconds: i64) -> io::Result<File> {
    let period = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
    let spec = libc::itimerspec { it_interval: period, it_value: period };
    // SAFETY: the descriptor is new and owned by nobody else; `spec` lives through the call.
    unsafe {
        let fd = check(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC))?;
        let timer = File::from(OwnedFd::from_raw_fd(fd));
        check(libc::timerfd_settime(fd, 0, &spec, std::ptr::null_mut()))?;
        Ok(timer)
    }
}

/// Opens the FIFO at `path`, made if nothing is there; tells whether it was. It is opened for writing too, so that it
/// does not end when the last writer goes.
pub(crate) fn fifo(path: &Path) -> io::Result<(File, bool)> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `name` is a C string that lives through the call.
    let made = match check(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("not a FIFO"));
    }
    Ok((file, made))
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
