//! An epoll loop as a server has its own, that knows nothing of lodger's adapters: what being a guest costs.

use lodger::{Context, Host, Interest, Ready, Served};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The server's loop: it would have descriptors of its own in it, and a timer.
struct Server {
    epoll: OwnedFd,
}

pub(crate) fn run(mut context: Context) -> io::Result<()> {
    let mut server = Server { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? };
    let mut events = Vec::with_capacity(256);
    loop {
        let wait = context.prepare(&mut server);
        let timeout = wait
            .duration()
            .map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) });
        events.clear();
        match epoll::wait(&server.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            let fd = event.data.u64() as RawFd;
            match context.service(fd, ready(event.flags), &mut ()) {
                Served::Ours => {}
                // The server's own would be served here.
                Served::Foreign => {}
            }
        }
        context.service_timeouts(&mut ());
    }
}

fn ready(flags: epoll::EventFlags) -> Ready {
    Ready::from_poll_revents(flags.bits() as i16)
}

fn flags(interest: Interest) -> epoll::EventFlags {
    epoll::EventFlags::from_bits_truncate(interest.poll_events() as u32)
}

fn token(fd: BorrowedFd<'_>) -> epoll::EventData {
    epoll::EventData::new_u64(fd.as_raw_fd() as u64)
}

impl Host for Server {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token(fd), flags(interest))?)
    }

    fn change(&mut self, fd: BorrowedFd<'_>, _previous: Interest, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, token(fd), flags(interest))?)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }
}
