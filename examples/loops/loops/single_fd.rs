//! One descriptor for all of lodger's, in the `poll(2)` array of a server: what the array costs does not grow with the
//! connections.

use lodger::{Context, Wait};
use lodger_epoll::Single;
use lodger_poll::PollArray;
use std::io;
use std::os::fd::AsRawFd;

pub(crate) fn run<D: 'static>(context: Context<D>, mut data: D) -> io::Result<()> {
    let mut lodger = Single::new(context)?;
    // The server's own array, with what the server has in it beside this.
    let mut array = PollArray::new();
    array.insert_foreign(lodger.as_raw_fd(), libc::POLLIN)?;
    while lodger.with(|io| io.link_count())? > 0 {
        // lodger needs no timeout: its deadline is behind the descriptor.
        array.wait(Wait::FOREVER)?;
        while let Some(entry) = array.next_ready() {
            if entry.fd == lodger.as_raw_fd() {
                lodger.dispatch(256, &mut data)?;
            }
        }
    }
    Ok(())
}
