//! Processors, descriptors and clocks.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// The processors that this thread may use.
pub fn cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return vec![0] };
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Binds this thread, and what it starts from here on, to one processor.
///
/// # Errors
///
/// There is no such processor, or it may not be used.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Allows as many descriptors as can be had, and says how many that are. What is started from here on may have as many.
pub fn all_descriptors() -> usize {
    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}

/// Whether somebody accepts connections there.
pub fn accepts(server: SocketAddr) -> bool {
    crate::transport::accepts(server)
}

/// Has the port of `socket` chosen when it connects, not when it is bound to an address: a port may then serve several
/// addresses, and is found at once when thousands are taken.
pub(crate) fn choose_port_late(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: pointer and length are those of `on`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The processor time of all threads of a process, those that have ended too.
///
/// # Errors
///
/// There is no such process.
pub fn process_time(pid: i32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` is where the call writes to, and lives through it.
    let result = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    clock_time(clock)
}

/// The processor time of this process.
pub fn own_time() -> Duration {
    clock_time(libc::CLOCK_PROCESS_CPUTIME_ID).expect("every process has this clock")
}

fn clock_time(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` is where the call writes to, and lives through it.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has written.
    let time = unsafe { time.assume_init() };
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}
