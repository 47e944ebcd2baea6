//! calloop: an event source beside the others.

use calloop::EventLoop;
use lodger::Context;
use std::io;

pub(crate) fn run(context: Context) -> io::Result<()> {
    let mut event_loop = EventLoop::try_new()?;
    let lodger = lodger_calloop::insert(&event_loop.handle(), context)?;
    while lodger.try_with(&mut (), |_, io| io.link_count()) > Some(0) {
        event_loop.dispatch(None, &mut ())?;
    }
    Ok(())
}
