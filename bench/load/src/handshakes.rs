//! TLS handshakes, each on a connection of its own that is closed in an orderly way when it is done.

use crate::Measured;
use crate::link::{PATIENCE, silence};
use crate::system::own_time;
use crate::tls;
use crate::transport::Transport;
use crate::watched::Watched;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Keeps `parallel` connections in the cycle of connecting, the handshake, and close_notify, until the server has ended each.
/// With `resume`, sessions go on, and the first ones, which cannot, are before the measured time.
///
/// # Errors
///
/// The server answered something wrong, or nothing, or did not resume a session.
pub fn handshakes(
    server: SocketAddr,
    watched: &Watched,
    resume: bool,
    parallel: usize,
    warm_up: Duration,
    time: Duration,
) -> io::Result<Measured> {
    let config = tls::config(resume);
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let begin = |at: usize| -> io::Result<(Transport, bool)> {
        let mut transport = Transport::connect(server, at)?;
        transport.secure(&config)?;
        epoll::add(&watch, &transport, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
        Ok((transport, false))
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
                for (transport, _) in &cycles {
                    transport.abort_on_close()?;
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
            let (transport, done) = &mut cycles[at];
            let ended = transport.read(&mut buffer)? == Some(0);
            if !*done && !transport.is_handshaking() {
                *done = true;
                if before.is_some() && transport.is_resumed() != resume {
                    return Err(io::Error::other("the server resumed no session"));
                }
                transport.close_tls()?;
            }
            if ended {
                if !*done {
                    return Err(io::Error::other("the server closed a connection in its TLS handshake"));
                }
                measured.messages += u64::from(before.is_some());
                cycles[at] = begin(at)?;
            }
        }
    }
}
