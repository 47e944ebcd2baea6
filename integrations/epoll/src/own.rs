//! A loop for programs that have none.

use crate::poller::{Event, Poller};
use lodger::{Context, Wait};
use std::io;
use std::time::Duration;

/// How many events one wait takes.
const EVENTS: usize = 256;

/// A loop for one context, and nothing beside it. A turn costs one system call, the wait, and one more for each change of
/// what is watched.
///
/// ```
/// use lodger::Context;
/// use lodger_epoll::Loop;
/// use std::time::Duration;
///
/// let mut context = Context::new();
/// context.io().after(Duration::from_millis(1), |greeted: &mut bool, _| *greeted = true);
/// let mut greeted = false;
/// Loop::new()?.run(&mut context, &mut greeted)?;
/// assert!(greeted);
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias("lws_service", "libwebsocket_service", "uv_run"))]
#[derive(Debug)]
pub struct Loop {
    poller: Poller,
}

impl Loop {
    /// A loop that watches nothing yet.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { poller: Poller::new()? })
    }

    /// Runs until nothing is left to do: no link, no timer. To end a server, a handler, a timer or a
    /// [`Remote`](lodger::Remote) says [`Io::shutdown`](lodger::Io::shutdown).
    ///
    /// On return, also with an error and when a handler panics, the context is detached and can go to another loop.
    ///
    /// # Errors
    ///
    /// What the wait fails with.
    pub fn run<D>(&mut self, context: &mut Context<D>, data: &mut D) -> io::Result<()> {
        let stay = Stay { poller: &mut self.poller, context };
        loop {
            let wait = stay.context.prepare(stay.poller);
            if wait == Wait::FOREVER && stay.context.link_count() == 0 {
                return Ok(());
            }
            serve(stay.poller, stay.context, data, wait, None)?;
        }
    }

    /// Runs while `running` says so: it is asked before every sleep, and looks at what handlers have done to `data`.
    ///
    /// On return, also with an error and when a handler panics, the context is detached; nothing is closed.
    ///
    /// # Errors
    ///
    /// What the wait fails with.
    pub fn run_while<D>(
        &mut self,
        context: &mut Context<D>,
        data: &mut D,
        mut running: impl FnMut(&mut D) -> bool,
    ) -> io::Result<()> {
        let stay = Stay { poller: &mut self.poller, context };
        while running(data) {
            let wait = stay.context.prepare(stay.poller);
            serve(stay.poller, stay.context, data, wait, None)?;
        }
        Ok(())
    }

    /// One turn: sleeps until something is ready, until lodger's deadline, or for `timeout`, whichever is first; serves what
    /// is ready, 256 descriptors at the most, and what is due. Says how many were ready. A `timeout` of zero returns at
    /// once, `None` is no limit.
    ///
    /// Whoever ends calls [`detach`](Self::detach), or [`leave`](Self::leave).
    ///
    /// # Errors
    ///
    /// What the wait fails with.
    pub fn turn<D>(
        &mut self,
        context: &mut Context<D>,
        data: &mut D,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let wait = context.prepare(&mut self.poller);
        serve(&mut self.poller, context, data, wait, timeout)
    }

    /// [`Context::detach`] from this loop: nothing is closed, and another loop may take the context.
    pub fn detach<D>(&mut self, context: &mut Context<D>) {
        context.detach(&mut self.poller);
    }

    /// [`Context::leave`]: says goodbye to every peer, and closes.
    pub fn leave<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        context.leave(&mut self.poller, data);
    }
}

/// A context in a running loop: detached at the end, whichever way that comes.
struct Stay<'a, D> {
    poller: &'a mut Poller,
    context: &'a mut Context<D>,
}

impl<D> Drop for Stay<'_, D> {
    fn drop(&mut self) {
        self.context.detach(self.poller);
    }
}

/// From the sleep to the end of a turn.
fn serve<D>(
    poller: &mut Poller,
    context: &mut Context<D>,
    data: &mut D,
    wait: Wait,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let ready = poller.wait(sooner(wait, timeout), EVENTS)?;
    for at in 0..ready {
        if let Some(Event::Ready(fd, ready)) = poller.event(at) {
            let _ = context.service(fd, ready, data);
        }
    }
    context.service_timeouts(data);
    Ok(ready)
}

/// The shorter of the two, in whole milliseconds, so that the loop does not wake before its time and spin.
fn sooner(wait: Wait, timeout: Option<Duration>) -> Option<Duration> {
    let wait = match wait.poll_millis() {
        -1 => None,
        millis => Some(Duration::from_millis(millis.unsigned_abs().into())),
    };
    match (wait, timeout) {
        (Some(wait), Some(timeout)) => Some(wait.min(timeout)),
        (wait, timeout) => wait.or(timeout),
    }
}
