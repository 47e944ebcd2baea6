//! One descriptor for all of lodger's, with the deadline and the wake-up behind it.

use crate::poller::{Event, Poller, Watched, watched};
use lodger::audit::Calls;
use lodger::{Context, Io};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// A context behind one descriptor, which is readable whenever lodger has something to do: a descriptor of its own is ready,
/// its deadline has come, or another thread posted something. The host watches it for readability and calls
/// [`dispatch`](Self::dispatch); it needs to know nothing else.
///
/// Level-triggered hosts (`poll`, glib, calloop, libuv, Qt) need no more than that. For edge-triggered ones (mio, tokio, `EPOLLET`)
/// see [`edge_triggered`](Self::edge_triggered).
///
/// When dropped, it detaches and drops its context: nothing is said to the peers. [`leave`](Self::leave) does that.
///
/// A forked child shares what is behind the descriptor with its parent. There all of these give the context up
/// ([`Context::abandon`]) and leave the parent's alone, unless [`take_over`](Self::take_over) has made it the child's own.
#[derive(Debug)]
pub struct Single<D> {
    /// Present until it is taken out for good.
    context: Option<Context<D>>,
    watched: Watched,
    edge_triggered: bool,
    armed: Armed,
}

/// When the poller will become readable by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Armed {
    Never,
    Now,
    At(Instant),
}

impl<D> Single<D> {
    /// Takes a context in. Its descriptors are watched from here on.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub fn new(context: Context<D>) -> io::Result<Self> {
        let mut single = Self {
            context: Some(context),
            watched: watched(Poller::with_timer()?),
            edge_triggered: false,
            armed: Armed::Never,
        };
        single.prepare()?;
        Ok(single)
    }

    /// For hosts that hear only of changes: after a dispatch that left something, because of `max` or of a bound of lodger's own,
    /// the descriptor becomes readable anew, so that the next edge comes. It costs a system call per dispatch that found
    /// something ready, and one more if something is left.
    #[must_use]
    pub fn edge_triggered(mut self) -> Self {
        self.edge_triggered = true;
        self
    }

    /// Serves at most `max` ready descriptors, and 1,024 in any case, then what is due, and says how many were ready. It does not
    /// wait, and does nothing where nothing is ready. What is left, or comes meanwhile, keeps the descriptor readable: a
    /// host that draws frames asks for a small `max`, 64 for one, and is called again.
    ///
    /// Beside the calls that serve what is ready, a dispatch costs one system call; one more for each change of what
    /// is watched; and one when the deadline has moved to an earlier time, or has come.
    ///
    /// A handler that panics unwinds through this. What it kept from being served is reported again at once: a host that
    /// catches the panic goes on as before.
    ///
    /// # Errors
    ///
    /// What the system's poller fails with, for want of memory; nothing is lost, and the next dispatch goes on.
    pub fn dispatch(&mut self, max: usize, data: &mut D) -> io::Result<usize> {
        let most = max.clamp(1, EVENTS);
        let events = self.watched.wait(Some(Duration::ZERO), most)?;
        let ready = Use(self).serve(events, data);
        self.prepare()?;
        // What was ready may be so still, and nobody would hear of it. What becomes so from here on is heard of.
        if self.edge_triggered && events > 0 && self.watched.is_readable()? {
            self.arm(Armed::Now, Some(Duration::ZERO))?;
        }
        Ok(ready)
    }

    /// Uses the context from outside a dispatch: send, close, listen, set timers. What comes of it is written and
    /// announced before this returns; handlers hear of it in the next dispatch.
    ///
    /// # Errors
    ///
    /// As [`dispatch`](Self::dispatch), after `with` has run.
    pub fn with<R>(&mut self, with: impl FnOnce(&mut Io<D>) -> R) -> io::Result<R> {
        let result = with(Use(self).context().io());
        self.prepare()?;
        Ok(result)
    }

    /// Takes the context out again, for another loop. Nothing is closed.
    pub fn detach(mut self) -> Context<D> {
        let mut context = self.context.take().expect("a context is taken out only for good");
        self.watched.detach(&mut context);
        context
    }

    /// In a forked child that goes on serving in its parent's place: [`Context::take_over`], and a descriptor of the child's own,
    /// behind which everything is watched anew. The parent's is not touched.
    ///
    /// Its number may be another: the host lets go of the old one before this, and watches [`as_fd`](AsFd::as_fd) after.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left. It can be tried again.
    #[doc(alias("fork", "daemonize"))]
    pub fn take_over(&mut self) -> io::Result<()> {
        self.watched.renew()?;
        self.armed = Armed::Never;
        let context = self.context.as_mut().expect("a context is taken out only for good");
        context.take_over()?;
        // The new set has none of them: nothing is removed there, and all is added again.
        self.watched.detach(context);
        self.prepare()
    }

    /// Says goodbye to every peer, and closes ([`Context::leave`]).
    pub fn leave(mut self, data: &mut D) {
        if let Some(mut context) = self.context.take() {
            self.watched.leave(&mut context, data);
        }
    }

    /// Has everything watched as it is to be, and the deadline armed.
    fn prepare(&mut self) -> io::Result<()> {
        let Some(context) = &mut self.context else { return Ok(()) };
        let wait = self.watched.prepare(context);
        let wanted = match wait.instant() {
            Some(at) => Armed::At(at),
            None if wait.is_now() => Armed::Now,
            None => Armed::Never,
        };
        // A deadline that has moved later is left armed: it is put right when the earlier one comes.
        let early_enough = match (self.armed, wanted) {
            (Armed::Now, Armed::Now | Armed::At(_)) | (Armed::Never, Armed::Never) => true,
            (Armed::At(armed), Armed::At(wanted)) => armed <= wanted,
            (Armed::At(_) | Armed::Never, Armed::Now) => false,
            (Armed::Never, Armed::At(_)) | (Armed::Now | Armed::At(_), Armed::Never) => false,
        };
        if early_enough { Ok(()) } else { self.arm(wanted, wait.duration()) }
    }

    fn arm(&mut self, wanted: Armed, delay: Option<Duration>) -> io::Result<()> {
        self.watched.arm(delay)?;
        self.armed = wanted;
        Ok(())
    }
}

/// The most that one dispatch takes.
const EVENTS: usize = 1024;

/// The context is in use. Should that unwind, the host is called again soon: nothing has been announced, and nothing may be
/// armed.
struct Use<'a, D>(&'a mut Single<D>);

impl<D> Use<'_, D> {
    fn context(&mut self) -> &mut Context<D> {
        self.0.context.as_mut().expect("a context is taken out only for good")
    }

    /// Serves what the poller has found, and what is due.
    fn serve(self, events: usize, data: &mut D) -> usize {
        let Single { context, watched, armed, .. } = &mut *self.0;
        let context = context.as_mut().expect("a context is taken out only for good");
        let mut ready = 0;
        for at in 0..events {
            match watched.event(at) {
                Some(Event::Ready(fd, flags)) => {
                    ready += 1;
                    // What is not lodger's any more came too late.
                    let _ = watched.service(context, fd, flags, data);
                }
                Some(Event::Own) => *armed = Armed::Never,
                None => {}
            }
        }
        watched.service_timeouts(context, data);
        ready
    }
}

impl<D> Drop for Use<'_, D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.arm(Armed::Now, Some(Duration::ZERO));
        }
    }
}

impl<D> Drop for Single<D> {
    fn drop(&mut self) {
        if let Some(mut context) = self.context.take() {
            self.watched.detach(&mut context);
        }
    }
}

impl<D> AsFd for Single<D> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}

impl<D> AsRawFd for Single<D> {
    fn as_raw_fd(&self) -> RawFd {
        self.watched.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodger::{Cx, Interest, fd};
    use std::fs::File;
    use std::io::{PipeWriter, Read, Write, pipe};
    use std::os::fd::OwnedFd;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    const FAR: Duration = Duration::from_secs(3600);

    fn single() -> Single<Vec<u8>> {
        Single::new(Context::new()).unwrap()
    }

    fn is_readable(single: &Single<Vec<u8>>) -> bool {
        single.watched.is_readable().unwrap()
    }

    /// As a host that has nothing else.
    #[expect(clippy::disallowed_methods, reason = "a host waits")]
    fn wait(single: &Single<Vec<u8>>) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(single, PollFlags::IN)], Some(&patience)), Ok(1), "in vain");
    }

    fn after(single: &mut Single<Vec<u8>>, delay: Duration, byte: u8) -> lodger::TaskId {
        single.with(|io| io.after(delay, move |said, _| said.push(byte))).unwrap()
    }

    /// Reads one byte at a time, and panics at an exclamation mark.
    struct Reader(File);

    impl fd::Handler<Vec<u8>> for Reader {
        fn readable(&mut self, cx: &mut Cx<'_, Vec<u8>>, _fd: BorrowedFd<'_>) {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) if byte[0] == b'!' => resume_unwind(Box::new("told to")),
                Ok(1) => cx.data.push(byte[0]),
                _ => cx.close(),
            }
        }
    }

    fn watched_pipe(single: &mut Single<Vec<u8>>) -> PipeWriter {
        let (reader, writer) = pipe().unwrap();
        let file = File::from(OwnedFd::from(reader.try_clone().unwrap()));
        let adopted = single.with(|io| io.adopt(reader.into(), Interest::READ, Box::new(Reader(file))));
        assert!(adopted.unwrap().is_ok());
        writer
    }

    #[test]
    fn deadline_that_moves_earlier_is_armed_anew() {
        let (mut single, mut said) = (single(), Vec::new());
        after(&mut single, FAR, b'l');
        assert!(!is_readable(&single));
        after(&mut single, Duration::from_millis(1), b'e');
        while said.is_empty() {
            wait(&single);
            assert_eq!(single.dispatch(64, &mut said).unwrap(), 0);
        }
        assert_eq!(said, b"e");
        assert!(matches!(single.armed, Armed::At(_)), "the later one is armed again");
        assert!(!is_readable(&single), "what has fired is taken");
    }

    #[test]
    fn deadline_that_moves_later_costs_one_wake_up_at_the_most() {
        let (mut single, mut said) = (single(), Vec::new());
        let early = after(&mut single, Duration::from_millis(2), b'e');
        let armed = single.armed;
        after(&mut single, FAR, b'l');
        assert!(single.with(|io| io.cancel(early)).unwrap());
        assert_eq!(single.armed, armed, "moving it later costs nothing");
        wait(&single);
        assert_eq!(single.dispatch(64, &mut said).unwrap(), 0);
        assert!(matches!((single.armed, armed), (Armed::At(now), Armed::At(before)) if now > before));
        assert!(!is_readable(&single) && said.is_empty());
    }

    #[test]
    fn nothing_is_armed_when_nothing_is_to_come() {
        let mut single = single();
        let task = after(&mut single, Duration::from_millis(1), b'x');
        single.with(|io| io.cancel(task)).unwrap();
        assert_eq!(single.armed, Armed::Never);
        // Whoever was late to disarm finds it fired: the next dispatch takes that.
        assert_eq!(single.dispatch(64, &mut Vec::new()).unwrap(), 0);
        assert!(!is_readable(&single));
    }

    #[test]
    fn dispatch_with_nothing_ready_does_nothing() {
        let (mut single, mut said) = (single().edge_triggered(), Vec::new());
        let _writer = watched_pipe(&mut single);
        for max in [0, 1, usize::MAX] {
            assert_eq!(single.dispatch(max, &mut said).unwrap(), 0);
            assert!(!is_readable(&single) && said.is_empty());
        }
        assert_eq!(single.armed, Armed::Never);
    }

    #[test]
    fn full_batch_leaves_the_rest_readable_and_favours_none() {
        let (mut single, mut said) = (single(), Vec::new());
        let writers: Vec<_> = (0..10).map(|_| watched_pipe(&mut single)).collect();
        for (at, mut writer) in writers.iter().enumerate() {
            writer.write_all(&[at as u8; 2]).unwrap();
        }
        for _ in 0..10 / 2 {
            assert_eq!(single.dispatch(2, &mut said).unwrap(), 2);
            assert!(is_readable(&single));
        }
        said.sort_unstable();
        assert_eq!(said, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "each once, before any twice");
        assert_eq!(single.dispatch(64, &mut said).unwrap(), 10);
        assert!(!is_readable(&single));
    }

    #[test]
    fn what_a_use_from_outside_makes_due_is_heard_of() {
        let (mut single, mut said) = (single(), Vec::new());
        after(&mut single, Duration::ZERO, b'0');
        wait(&single);
        single.dispatch(64, &mut said).unwrap();
        assert_eq!(said, b"0");
        let mut writer = watched_pipe(&mut single);
        writer.write_all(b"w").unwrap();
        assert!(is_readable(&single));
        single.dispatch(64, &mut said).unwrap();
        assert_eq!(said, b"0w");
    }

    #[test]
    fn handler_that_panics_is_over_and_the_rest_goes_on() {
        let (mut single, mut said) = (single(), Vec::new());
        let (mut bad, mut good) = (watched_pipe(&mut single), watched_pipe(&mut single));
        bad.write_all(b"!").unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| single.dispatch(64, &mut said))).is_err());
        assert!(is_readable(&single), "the host is called again");
        good.write_all(b"g").unwrap();
        while said.is_empty() {
            wait(&single);
            single.dispatch(64, &mut said).unwrap();
        }
        assert_eq!(single.with(|io| io.link_count()).unwrap(), 1);
        assert!(
            catch_unwind(AssertUnwindSafe(|| single.with(|_| resume_unwind(Box::new("told to"))))).is_err()
        );
        assert!(is_readable(&single));
    }

    #[test]
    fn what_cannot_be_armed_is_told_and_tried_again() {
        let (mut single, mut said) = (single(), Vec::new());
        let with_timer = std::mem::replace(&mut *single.watched, Poller::new().unwrap());
        let failed = single.with(|io| io.after(Duration::from_millis(1), |said, _| said.push(b'a')));
        assert!(failed.is_err());
        assert!(single.dispatch(64, &mut said).is_err());
        *single.watched = with_timer;
        while said.is_empty() {
            single.dispatch(64, &mut said).unwrap();
            if said.is_empty() {
                wait(&single);
            }
        }
        assert_eq!(said, b"a");
    }

    #[test]
    fn context_goes_from_one_to_another() {
        let (mut single, mut said) = (single(), Vec::new());
        let mut writer = watched_pipe(&mut single);
        writer.write_all(b"ab").unwrap();
        single.dispatch(64, &mut said).unwrap();
        let mut next = Single::new(single.detach()).unwrap();
        assert!(is_readable(&next));
        next.dispatch(64, &mut said).unwrap();
        assert_eq!(said, b"ab");
        next.leave(&mut said);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn each_dispatch_that_leaves_something_makes_a_new_edge_and_no_other_does() {
        use rustix::event::epoll;
        let (mut single, mut said) = (single().edge_triggered(), Vec::new());
        let writers: Vec<_> = (0..5).map(|_| watched_pipe(&mut single)).collect();
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&set, &single, epoll::EventData::new_u64(0), flags).unwrap();
        let edge = |patience: i64| {
            let patience = rustix::event::Timespec { tv_sec: patience, tv_nsec: 0 };
            let mut events = Vec::with_capacity(1);
            epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), Some(&patience)).unwrap() > 0
        };
        for round in 1..=3 {
            for mut writer in &writers {
                writer.write_all(b"xy").unwrap();
            }
            while said.len() < round * 10 {
                assert!(edge(10), "nothing is heard of what is left, after {}", said.len());
                single.dispatch(2, &mut said).unwrap();
            }
            // One edge may be on its way: that the last ones became ready.
            while edge(0) {
                assert_eq!(single.dispatch(2, &mut said).unwrap(), 0);
            }
            assert!(!is_readable(&single) && !edge(0));
        }
        // A deadline makes one, too.
        after(&mut single, Duration::from_millis(1), b't');
        while said.len() < 31 {
            assert!(edge(10));
            single.dispatch(2, &mut said).unwrap();
        }
    }
}
