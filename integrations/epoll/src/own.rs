//! A loop for programs that have none.

use crate::poller::{Event, Poller, Watched, watched};
use lodger::audit::Calls;
use lodger::{Context, Wait};
use std::io;
use std::time::Duration;

/// How many events one wait takes.
const EVENTS: usize = 256;

/// A loop for one context, and nothing beside it. A turn in which nothing changes costs one system call, the wait, beside
/// those that serve what is ready; each change of what is watched costs one more.
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
/// A forked child shares the set with its parent (it has none at all where that is a kqueue). There the loop only gives the
/// context up ([`Context::abandon`]), also at the end of [`run`](Self::run), unless [`take_over`](Self::take_over) has made both
/// the child's own.
#[doc(alias("lws_service", "libwebsocket_service", "uv_run"))]
#[derive(Debug)]
pub struct Loop {
    watched: Watched,
}

impl Loop {
    /// A loop that watches nothing yet.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { watched: watched(Poller::new()?) })
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
        let stay = Stay { watched: &mut self.watched, context };
        loop {
            let wait = stay.watched.prepare(stay.context);
            if wait == Wait::FOREVER && stay.context.link_count() == 0 {
                return Ok(());
            }
            serve(stay.watched, stay.context, data, wait, None)?;
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
        let stay = Stay { watched: &mut self.watched, context };
        while running(data) {
            let wait = stay.watched.prepare(stay.context);
            serve(stay.watched, stay.context, data, wait, None)?;
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
        let wait = self.watched.prepare(context);
        serve(&mut self.watched, context, data, wait, timeout)
    }

    /// [`Context::detach`] from this loop: nothing is closed, and another loop may take the context.
    pub fn detach<D>(&mut self, context: &mut Context<D>) {
        self.watched.detach(context);
    }

    /// In a forked child that goes on serving in its parent's place: [`Context::take_over`], and a set of the child's own, to
    /// which the next turn adds everything. The parent's set is not touched.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left. It can be tried again.
    #[doc(alias("fork", "daemonize", "uv_loop_fork"))]
    pub fn take_over<D>(&mut self, context: &mut Context<D>) -> io::Result<()> {
        self.watched.renew()?;
        context.take_over()?;
        // The new set has none of them: nothing is removed there, and the next turn adds all.
        self.watched.detach(context);
        Ok(())
    }

    /// [`Context::leave`]: says goodbye to every peer, and closes.
    pub fn leave<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        self.watched.leave(context, data);
    }
}

/// A context in a running loop: detached at the end, whichever way that comes.
struct Stay<'a, D> {
    watched: &'a mut Watched,
    context: &'a mut Context<D>,
}

impl<D> Drop for Stay<'_, D> {
    fn drop(&mut self) {
        self.watched.detach(self.context);
    }
}

/// From the sleep to the end of a turn.
fn serve<D>(
    watched: &mut Watched,
    context: &mut Context<D>,
    data: &mut D,
    wait: Wait,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let timeout = sooner(wait, timeout);
    watched.sleeping(|| timeout);
    let ready = watched.wait(timeout, EVENTS)?;
    for at in 0..ready {
        if let Some(Event::Ready(fd, ready)) = watched.event(at) {
            // What is not lodger's any more came too late.
            let _ = watched.service(context, fd, ready, data);
        }
    }
    watched.service_timeouts(context, data);
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

#[cfg(test)]
mod tests {
    use super::*;
    use lodger::{Cx, Env, Interest, SystemEnv, fd};
    use std::fs::File;
    use std::io::{PipeWriter, Read, Write, pipe};
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Reads one byte at a time, so that level-triggered watching shows.
    struct Reader(File);

    impl fd::Handler<Vec<u8>> for Reader {
        fn readable(&mut self, cx: &mut Cx<'_, Vec<u8>>, _fd: BorrowedFd<'_>) {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) if byte[0] == b'!' => std::panic::resume_unwind(Box::new("told to")),
                Ok(1) => cx.data.push(byte[0]),
                _ => cx.close(),
            }
        }
    }

    fn watched_pipe(context: &mut Context<Vec<u8>>) -> PipeWriter {
        let (reader, writer) = pipe().unwrap();
        let file = File::from(OwnedFd::from(reader.try_clone().unwrap()));
        assert!(context.io().adopt(reader.into(), Interest::READ, Box::new(Reader(file))).is_ok());
        writer
    }

    #[test]
    fn turn_with_timeout_zero_returns_at_once_and_serves_what_is_ready() {
        let (mut context, mut read) = (Context::new(), Vec::new());
        let mut writer = watched_pipe(&mut context);
        let mut own = Loop::new().unwrap();
        assert_eq!(own.turn(&mut context, &mut read, Some(Duration::ZERO)).unwrap(), 0);
        writer.write_all(b"ab").unwrap();
        assert_eq!(own.turn(&mut context, &mut read, Some(Duration::ZERO)).unwrap(), 1);
        assert_eq!(read, b"a");
        assert_eq!(own.turn(&mut context, &mut read, None).unwrap(), 1);
        assert_eq!(read, b"ab");
        own.leave(&mut context, &mut read);
    }

    #[test]
    fn deadline_of_the_context_ends_a_longer_sleep() {
        let (mut context, mut read) = (Context::new(), Vec::new());
        context.io().after(Duration::from_millis(5), |read: &mut Vec<u8>, _| read.push(b't'));
        let mut own = Loop::new().unwrap();
        let before = SystemEnv.now();
        let mut turns = 0;
        while read.is_empty() {
            own.turn(&mut context, &mut read, Some(Duration::MAX)).unwrap();
            turns += 1;
        }
        assert!(before.elapsed() >= Duration::from_millis(5));
        assert!(turns <= 2, "{turns} turns for one deadline");
        own.leave(&mut context, &mut read);
    }

    #[test]
    fn more_than_one_wait_takes_is_served_in_turns_without_favour() {
        const PIPES: usize = EVENTS + 50;
        let (mut context, mut read) = (Context::new(), Vec::new());
        let writers: Vec<_> = (0..PIPES).map(|_| watched_pipe(&mut context)).collect();
        for mut writer in &writers {
            writer.write_all(b"xy").unwrap();
        }
        let mut own = Loop::new().unwrap();
        let mut turns = 0;
        while read.len() < 2 * PIPES {
            assert_ne!(own.turn(&mut context, &mut read, None).unwrap(), 0);
            turns += 1;
        }
        assert_eq!(turns, (2 * PIPES).div_ceil(EVENTS));
        own.leave(&mut context, &mut read);
    }

    #[test]
    fn run_ends_when_the_last_link_has_ended_and_a_context_goes_from_loop_to_loop() {
        let (mut context, mut read) = (Context::new(), Vec::new());
        let mut writer = watched_pipe(&mut context);
        let _remote = context.remote().unwrap();
        writer.write_all(b"over").unwrap();
        drop(writer);
        Loop::new().unwrap().run_while(&mut context, &mut read, |read| read.len() < 2).unwrap();
        assert_eq!(read, b"ov");
        Loop::new().unwrap().run(&mut context, &mut read).unwrap();
        assert_eq!(read, b"over");
    }

    #[test]
    fn panic_of_a_handler_leaves_the_context_detached() {
        let (mut context, mut read) = (Context::new(), Vec::new());
        let mut writer = watched_pipe(&mut context);
        writer.write_all(b"!").unwrap();
        let mut own = Loop::new().unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| own.run(&mut context, &mut read)));
        assert!(result.is_err());
        own.watched.finished();
        own.run(&mut context, &mut read).unwrap();
        assert_eq!(context.link_count(), 0);
    }
}
