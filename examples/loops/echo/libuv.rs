//! libuv: a guest in its loop.

use lodger::Context;
use lodger_libuv::Loop;
use std::io;

pub(crate) fn run(context: Context) -> io::Result<()> {
    let mut uv = Loop::new()?;
    let guest = uv.join(context, ());
    uv.run();
    guest.leave();
    uv.close()
}
