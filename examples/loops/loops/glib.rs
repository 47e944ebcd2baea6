//! glib's main loop: one descriptor for all of lodger's, as a source of its own.

use glib::{ControlFlow, IOCondition, MainLoop};
use lodger::Context;
use lodger_epoll::Single;
use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

pub(crate) fn run<D: 'static>(context: Context<D>, mut data: D) -> io::Result<()> {
    let main_loop = MainLoop::new(None, false);
    let outcome = Rc::new(RefCell::new(Ok(0)));
    let (quit, over) = (main_loop.clone(), Rc::clone(&outcome));
    let mut lodger = Single::new(context)?;
    glib_unix::unix_fd_add_local(lodger.as_raw_fd(), IOCondition::IN, move |_, _| {
        let served = lodger.dispatch(256, &mut data).and_then(|_| lodger.with(|io| io.link_count()));
        if matches!(served, Ok(1..)) {
            return ControlFlow::Continue;
        }
        *over.borrow_mut() = served;
        quit.quit();
        ControlFlow::Break
    });
    main_loop.run();
    outcome.replace(Ok(0)).map(drop)
}
