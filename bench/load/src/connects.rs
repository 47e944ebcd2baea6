//! Connections that come, are upgraded, and go, in an orderly way.

use crate::Measured;
use crate::link::{PATIENCE, is_accepted, silence};
use crate::plan::{frame, upgrade};
use crate::system::own_time;
use crate::transport::Transport;
use crate::watched::Watched;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// One connection on its way through a cycle.
struct Cycle {
    transport: Transport,
    head: Vec<u8>,
    accepted: bool,
}

/// Keeps `parallel` connections in the cycle of connecting, upgrading and closing: our Close, the server's, and its end of the
/// connection, which a server is first to close (RFC 6455, section 7.1.1).
///
/// # Errors
///
/// The server answered something wrong, or nothing.
pub fn connects(
    server: SocketAddr,
    watched: &Watched,
    parallel: usize,
    warm_up: Duration,
    time: Duration,
) -> io::Result<Measured> {
    let (upgrade, close) = (upgrade(), frame(8, &1000_u16.to_be_bytes(), Some([1, 2, 3, 4])));
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let begin = |at: usize| -> io::Result<Cycle> {
        let mut transport = Transport::connect(server, at)?;
        transport.write(&upgrade)?;
        epoll::add(&watch, &transport, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
        Ok(Cycle { transport, head: Vec::new(), accepted: false })
    };
    let mut cycles = (0..parallel).map(begin).collect::<io::Result<Vec<_>>>()?;
    let mut events: Vec<epoll::Event> = Vec::with_capacity(parallel);
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let mut buffer = vec![0; 4096];

    let start = Instant::now();
    let mut before = None;
    let mut measured = Measured::default();
    loop {
        let now = Instant::now();
        match before {
            None if now >= start + warm_up => before = Some((now, watched.time()?, own_time())),
            Some((begin, server, load)) if now >= begin + time => {
                measured.server = watched.time()?.saturating_sub(server);
                measured.load = own_time().saturating_sub(load);
                measured.elapsed = now - begin;
                for cycle in &cycles {
                    cycle.transport.abort_on_close()?;
                }
                return Ok(measured);
            }
            None | Some(_) => {}
        }
        events.clear();
        match epoll::wait(&watch, spare_capacity(&mut events), Some(&patience)) {
            Ok(0) => return Err(silence()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            let at = event.data.u64() as usize;
            let cycle = &mut cycles[at];
            match cycle.transport.read(&mut buffer) {
                Ok(None) => {}
                Ok(Some(0)) if cycle.accepted => {
                    measured.messages += u64::from(before.is_some());
                    cycles[at] = begin(at)?;
                }
                Ok(Some(0)) => {
                    return Err(io::Error::other("the server closed a connection in its handshake"));
                }
                Ok(Some(length)) if !cycle.accepted => {
                    cycle.head.extend_from_slice(&buffer[..length]);
                    if is_accepted(&cycle.head)? {
                        cycle.accepted = true;
                        cycle.transport.write(&close)?;
                    }
                }
                // The server's Close.
                Ok(Some(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
