//! tokio's current-thread runtime: one descriptor for all of lodger's, in a future that need not be `Send`.

use lodger::Context;
use lodger_epoll::Single;
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;

pub(crate) fn run<D: 'static>(context: Context<D>, mut data: D) -> io::Result<()> {
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        let lodger = Single::new(context)?.edge_triggered();
        // SAFETY: it keeps its one descriptor open as long as it lives, and nobody puts another in its place.
        let mut lodger = unsafe { AsyncFd::register_with_interest(lodger, Interest::READABLE)? };
        while lodger.get_mut().with(|io| io.link_count())? > 0 {
            let mut ready = lodger.readable_mut().await?;
            // Before the dispatch, which may leave something and make a new edge for it.
            ready.clear_ready();
            ready.get_inner_mut().dispatch(256, &mut data)?;
        }
        Ok(())
    })
}
