//! mio, which is edge-triggered: one descriptor for all of lodger's.

use lodger::Context;
use lodger_epoll::Single;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io;
use std::os::fd::AsRawFd;

pub(crate) fn run<D: 'static>(context: Context<D>, mut data: D) -> io::Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
    let mut lodger = Single::new(context)?.edge_triggered();
    poll.registry().register(&mut SourceFd(&lodger.as_raw_fd()), Token(0), Interest::READABLE)?;
    while lodger.with(|io| io.link_count())? > 0 {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        if !events.is_empty() {
            lodger.dispatch(256, &mut data)?;
        }
    }
    Ok(())
}
