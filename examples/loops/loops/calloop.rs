//! calloop: an event source beside the others.

use calloop::EventLoop;
use lodger::Context;
use std::io;

pub(crate) fn run<D: 'static>(context: Context<D>, mut data: D) -> io::Result<()> {
    let mut event_loop = EventLoop::<D>::try_new()?;
    let lodger = lodger_calloop::insert(&event_loop.handle(), context)?;
    while lodger.try_with(&mut data, |_, io| io.link_count()) > Some(0) {
        event_loop.dispatch(None, &mut data)?;
    }
    Ok(())
}
