//! libuv: a guest in its loop.

use lodger::Context;
use lodger_libuv::Loop;
use std::io;

pub(crate) fn run<D: 'static>(context: Context<D>, data: D) -> io::Result<()> {
    let mut uv = Loop::new()?;
    let guest = uv.join(context, data);
    uv.run();
    guest.leave();
    uv.close()
}
