//! A loop for programs that have none.

use crate::PollArray;
use lodger::audit::Calls;
use lodger::{Context, Served, Wait};
use std::io;
use std::time::Duration;

/// A loop over `poll(2)` for one context, and nothing beside it.
///
/// ```
/// use lodger::Context;
/// use lodger_poll::Loop;
/// use std::time::Duration;
///
/// let mut context = Context::new();
/// let mut greeted = false;
/// context.io().after(Duration::from_millis(1), |greeted: &mut bool, _| *greeted = true);
/// Loop::new().run_while(&mut context, &mut greeted, |greeted| !*greeted)?;
/// assert!(greeted);
/// # Ok::<(), std::io::Error>(())
/// ```
/// In a forked child that has not taken the context over ([`take_over`](Self::take_over)) the loop only gives it up
/// ([`Context::abandon`]), also at the end of [`run`](Self::run).
#[doc(alias("lws_service", "libwebsocket_service"))]
#[derive(Debug)]
pub struct Loop {
    array: Watched,
}

impl Calls for PollArray {}

/// What stands between a context and its array: nothing, and an audit in the tests of this crate.
#[cfg(not(test))]
type Watched = PollArray;
#[cfg(test)]
type Watched = lodger::audit::Audited<PollArray>;

fn watched(array: PollArray) -> Watched {
    #[cfg(test)]
    let array = Watched::new(array).exclusive();
    array
}

impl Loop {
    /// A loop that watches nothing yet.
    pub fn new() -> Self {
        Self { array: watched(PollArray::new()) }
    }

    /// Runs until nothing is left to do: no link, no timer. To end a server, a handler, a timer or a
    /// [`Remote`](lodger::Remote) says [`Io::shutdown`](lodger::Io::shutdown), which closes all links in an orderly way; what
    /// always keeps a timer uses [`run_while`](Self::run_while).
    ///
    /// On return, also with an error and when a handler panics, the context is detached and can go to another loop.
    ///
    /// # Errors
    ///
    /// What `poll(2)` fails with ([`PollArray::wait`]).
    pub fn run<D>(&mut self, context: &mut Context<D>, data: &mut D) -> io::Result<()> {
        let stay = Stay { array: &mut self.array, context };
        loop {
            let wait = stay.array.prepare(stay.context);
            if wait == Wait::FOREVER && stay.context.link_count() == 0 {
                return Ok(());
            }
            serve(stay.array, stay.context, data, wait, None)?;
        }
    }

    /// Runs while `running` says so: it is asked before every sleep, and looks at what handlers have done to `data`.
    /// Whoever changes `data` from elsewhere wakes the loop with a [`Remote`](lodger::Remote).
    ///
    /// On return, also with an error and when a handler panics, the context is detached; nothing is closed.
    ///
    /// # Errors
    ///
    /// What `poll(2)` fails with ([`PollArray::wait`]).
    pub fn run_while<D>(
        &mut self,
        context: &mut Context<D>,
        data: &mut D,
        mut running: impl FnMut(&mut D) -> bool,
    ) -> io::Result<()> {
        let stay = Stay { array: &mut self.array, context };
        while running(data) {
            let wait = stay.array.prepare(stay.context);
            serve(stay.array, stay.context, data, wait, None)?;
        }
        Ok(())
    }

    /// One turn: sleeps until something is ready, until lodger's deadline, or for `timeout`, whichever is first; serves what
    /// is ready and what is due. Says how many descriptors were ready. A `timeout` of zero returns at once, `None` is no
    /// limit.
    ///
    /// Whoever ends calls [`detach`](Self::detach), or [`leave`](Self::leave).
    ///
    /// # Errors
    ///
    /// What `poll(2)` fails with ([`PollArray::wait`]).
    pub fn turn<D>(
        &mut self,
        context: &mut Context<D>,
        data: &mut D,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let wait = self.array.prepare(context);
        serve(&mut self.array, context, data, wait, timeout)
    }

    /// [`Context::detach`] from this loop: nothing is closed, and another loop may take the context.
    pub fn detach<D>(&mut self, context: &mut Context<D>) {
        self.array.detach(context);
    }

    /// In a forked child that goes on serving in its parent's place: [`Context::take_over`]. The array is the child's own already,
    /// here as everywhere; the next turn watches on.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left. It can be tried again.
    #[doc(alias("fork", "daemonize"))]
    pub fn take_over<D>(&mut self, context: &mut Context<D>) -> io::Result<()> {
        context.take_over()
    }

    /// [`Context::leave`]: says goodbye to every peer, and closes.
    pub fn leave<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        self.array.leave(context, data);
    }
}

/// A context in the array of a running loop: detached at the end, whichever way that comes.
struct Stay<'a, D> {
    array: &'a mut Watched,
    context: &'a mut Context<D>,
}

impl<D> Drop for Stay<'_, D> {
    fn drop(&mut self) {
        self.array.detach(self.context);
    }
}

/// From the sleep to the end of a turn.
fn serve<D>(
    array: &mut Watched,
    context: &mut Context<D>,
    data: &mut D,
    wait: Wait,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let millis = sooner(wait, timeout);
    array.sleeping(|| u64::try_from(millis).ok().map(Duration::from_millis));
    let found = array.wait_millis(millis)?;
    while let Some(mut entry) = array.next_ready().copied() {
        let served = array.service_fd(context, &mut entry, data);
        // Left by a context that was dropped without detaching; it would be reported for ever.
        if served == Served::Foreign && entry.revents & libc::POLLNVAL != 0 {
            array.forget(entry.fd);
        }
    }
    array.service_timeouts(context, data);
    Ok(found)
}

/// The shorter of the two, in milliseconds; -1 is for ever.
fn sooner(wait: Wait, timeout: Option<Duration>) -> i32 {
    let timeout =
        timeout.map(|timeout| i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    match (timeout, wait.poll_millis()) {
        (None, millis) => millis,
        (Some(timeout), -1) => timeout,
        (Some(timeout), millis) => timeout.min(millis),
    }
}

impl Default for Loop {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodger::audit::Audited;
    use lodger::{Cx, Env, Interest, SystemEnv, fd};
    use std::fs::File;
    use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
    use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[derive(Default)]
    struct Server {
        read: Vec<u8>,
        ticks: usize,
    }

    /// Reads one byte at a time, so that level-triggered watching shows.
    struct Reader(File);

    impl fd::Handler<Server> for Reader {
        fn readable(&mut self, cx: &mut Cx<'_, Server>, _fd: BorrowedFd<'_>) {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) if byte[0] == b'!' => panic!("told to"),
                Ok(1) => cx.data.read.push(byte[0]),
                _ => cx.close(),
            }
        }
    }

    fn watched() -> (Context<Server>, PipeWriter) {
        let mut context = Context::new();
        let writer = add_pipe(&mut context);
        (context, writer)
    }

    fn add_pipe(context: &mut Context<Server>) -> PipeWriter {
        let (reader, writer): (PipeReader, PipeWriter) = pipe().unwrap();
        let file = File::from(OwnedFd::from(reader.try_clone().unwrap()));
        assert!(context.io().adopt(reader.into(), Interest::READ, Box::new(Reader(file))).is_ok());
        writer
    }

    #[test]
    fn turn_with_timeout_zero_returns_at_once_and_serves_what_is_ready() {
        let (mut context, mut writer) = watched();
        let (mut server, mut own) = (Server::default(), Loop::new());
        assert_eq!(own.turn(&mut context, &mut server, Some(Duration::ZERO)).unwrap(), 0);
        writer.write_all(b"ab").unwrap();
        assert_eq!(own.turn(&mut context, &mut server, Some(Duration::ZERO)).unwrap(), 1);
        assert_eq!(server.read, b"a");
        assert_eq!(own.turn(&mut context, &mut server, None).unwrap(), 1);
        assert_eq!(server.read, b"ab");
        own.detach(&mut context);
        assert!(own.array.is_empty());
        context.abandon();
    }

    #[test]
    fn shorter_of_two_times_is_slept_rounded_up() {
        assert_eq!(sooner(Wait::FOREVER, None), -1);
        assert_eq!(sooner(Wait::FOREVER, Some(Duration::ZERO)), 0);
        assert_eq!(sooner(Wait::FOREVER, Some(Duration::from_nanos(1))), 1);
        assert_eq!(sooner(Wait::FOREVER, Some(Duration::MAX)), i32::MAX);
        assert_eq!(sooner(Wait::NOW, Some(Duration::MAX)), 0);
        assert_eq!(sooner(Duration::from_secs(9).into(), Some(Duration::from_millis(5))), 5);
    }

    #[test]
    fn deadline_of_the_context_ends_a_longer_sleep() {
        let mut context = Context::new();
        context.io().after(Duration::from_millis(5), |server: &mut Server, _| server.ticks += 1);
        let (mut server, mut own) = (Server::default(), Loop::new());
        let before = SystemEnv.now();
        while server.ticks == 0 {
            own.turn(&mut context, &mut server, Some(Duration::MAX)).unwrap();
        }
        assert!(before.elapsed() >= Duration::from_millis(5));
        own.leave(&mut context, &mut server);
    }

    #[test]
    fn run_ends_when_the_last_link_has_ended() {
        let (mut context, mut writer) = watched();
        let (mut server, mut own) = (Server::default(), Loop::new());
        writer.write_all(b"over").unwrap();
        drop(writer);
        own.run(&mut context, &mut server).unwrap();
        assert_eq!(server.read, b"over");
        assert!(own.array.is_empty());
    }

    #[test]
    fn run_ends_with_the_last_link_also_where_other_threads_could_wake_it() {
        let (mut context, mut writer) = watched();
        let _remote = context.remote().unwrap();
        let (mut server, mut own) = (Server::default(), Loop::new());
        writer.write_all(b"over").unwrap();
        drop(writer);
        own.run(&mut context, &mut server).unwrap();
        assert_eq!(server.read, b"over");
    }

    #[test]
    fn run_while_ends_when_a_handler_says_so_and_detaches() {
        let (mut context, mut writer) = watched();
        let (mut server, mut own) = (Server::default(), Loop::new());
        writer.write_all(b"abc").unwrap();
        own.run_while(&mut context, &mut server, |server| server.read.len() < 2).unwrap();
        assert_eq!(server.read, b"ab");
        assert!(own.array.is_empty());
        // Another loop takes over where this one ended.
        Loop::new().run_while(&mut context, &mut server, |server| server.read.len() < 3).unwrap();
        assert_eq!(server.read, b"abc");
        context.abandon();
    }

    #[test]
    fn every_ready_descriptor_is_served_in_each_turn() {
        let mut context = Context::new();
        let writers: Vec<_> = (0..20).map(|_| add_pipe(&mut context)).collect();
        let (mut server, mut own) = (Server::default(), Loop::new());
        for mut writer in &writers {
            writer.write_all(b"xyz").unwrap();
        }
        for turn in 1..=3 {
            assert_eq!(own.turn(&mut context, &mut server, None).unwrap(), 20);
            assert_eq!(server.read.len(), 20 * turn);
        }
        own.leave(&mut context, &mut server);
    }

    #[test]
    fn host_gets_its_own_ready_entries_and_only_those_in_the_same_pass() {
        let mut context = Context::new();
        let mut server = Server::default();
        let mut array = PollArray::new();
        let mut own = Vec::new();
        let mut writers = Vec::new();
        for _ in 0..5 {
            writers.push(add_pipe(&mut context));
            let (reader, writer) = pipe().unwrap();
            array.insert_foreign(reader.as_raw_fd(), libc::POLLIN).unwrap();
            own.push(reader);
            writers.push(writer);
            let _ = context.prepare(&mut array); // so that the entries alternate
        }
        for mut writer in &writers {
            writer.write_all(b"x").unwrap();
        }
        assert_eq!(array.wait(Wait::FOREVER).unwrap(), 10);
        let mut got = Vec::new();
        while let Some(entry) = array.serve(&mut context, &mut server) {
            assert_eq!(entry.revents, libc::POLLIN);
            got.push(entry.fd);
        }
        assert_eq!(got, own.iter().map(|reader| reader.as_raw_fd()).collect::<Vec<_>>());
        assert_eq!(server.read, b"xxxxx");
        context.leave(&mut array, &mut server);
        assert_eq!(array.len(), 5);
    }

    #[test]
    fn panic_of_a_handler_leaves_the_context_detached() {
        let (mut context, mut writer) = watched();
        let (mut server, mut own) = (Server::default(), Loop::new());
        writer.write_all(b"!").unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| own.run(&mut context, &mut server)));
        assert!(result.is_err());
        assert!(own.array.is_empty());
        context.abandon();
    }

    #[test]
    fn idle_context_is_not_woken_and_a_byte_read_costs_no_call_to_the_host() {
        let (mut context, mut writer) = watched();
        let mut server = Server::default();
        let mut audited = Audited::new(PollArray::new()).spin_after(4);
        let mut counts = Vec::new();
        for message in [b"".as_slice(), b"a", b"", b"b", b""] {
            writer.write_all(message).unwrap();
            let wait = audited.prepare(&mut context).sooner(Duration::ZERO.into());
            audited.audit.sleeping(wait.duration());
            audited.host.wait(wait).unwrap();
            while let Some(entry) = audited.host.next_ready() {
                assert_eq!(audited.audit.service_fd(&mut context, entry, &mut server), Served::Ours);
            }
            audited.audit.service_timeouts(&mut context, &mut server);
            counts.push((audited.counts().host_calls(), audited.counts().wake_ups));
        }
        assert_eq!(counts, [(1, 0), (1, 1), (1, 1), (1, 2), (1, 2)]);
        assert_eq!(server.read, b"ab");
        audited.leave(&mut context, &mut server);
        audited.finished();
    }

    #[test]
    fn closed_descriptor_of_nobody_is_dropped() {
        let mut own = Loop { array: Audited::new(PollArray::new()) };
        own.array.insert_foreign(700, libc::POLLIN).unwrap(); // a number that nothing of this process has
        let mut context: Context = Context::new();
        let _ = own.turn(&mut context, &mut (), Some(Duration::ZERO)).unwrap();
        assert_eq!(own.turn(&mut context, &mut (), Some(Duration::ZERO)).unwrap(), 0);
    }
}
