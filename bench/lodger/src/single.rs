//! One descriptor for all of lodger's, in the `poll(2)` array of a server.

use lodger::{Context, Wait};
use lodger_epoll::Single;
use lodger_poll::PollArray;
use std::io;
use std::os::fd::AsRawFd;

pub(crate) fn run(context: Context) -> io::Result<()> {
    let mut lodger = Single::new(context)?;
    let mut array = PollArray::new();
    array.insert_foreign(lodger.as_raw_fd(), libc::POLLIN)?;
    loop {
        array.wait(Wait::FOREVER)?;
        while let Some(entry) = array.next_ready() {
            if entry.fd == lodger.as_raw_fd() {
                lodger.dispatch(256, &mut ())?;
            }
        }
    }
}
