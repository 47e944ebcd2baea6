use super::*;
use crate::{Ready, Served};
use rustix::io::{DupFlags, dup3};
use rustix::pipe::{PipeFlags, pipe_with};
use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// A host that does nothing, or refuses everything.
struct Fake {
    refuses: bool,
}

impl Host for Fake {
    fn add(&mut self, _: BorrowedFd<'_>, _: Interest) -> io::Result<()> {
        if self.refuses { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
    fn change(&mut self, _: BorrowedFd<'_>, _: Interest, _: Interest) -> io::Result<()> {
        if self.refuses { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
    fn remove(&mut self, _: BorrowedFd<'_>) {}
}

/// An audit, what it has found, and a clock that stands still unless moved.
struct Bench {
    audited: Audited<Fake>,
    found: Rc<RefCell<Vec<Violation>>>,
    time: Rc<Cell<Instant>>,
}

impl Bench {
    fn new() -> Self {
        let found = Rc::new(RefCell::new(Vec::new()));
        let time = Rc::new(Cell::new(crate::env::system_now()));
        let (log, clock) = (found.clone(), time.clone());
        let audited =
            Audited::reporting(Fake { refuses: false }, move |violation| log.borrow_mut().push(violation))
                .clock(move || clock.get());
        Self { audited, found, time }
    }

    fn found(&self) -> Vec<Violation> {
        self.found.take()
    }

    fn batch(&mut self, scope: Scope, calls: impl FnOnce(&mut Audited<Fake>)) {
        self.audited.lock(scope);
        calls(&mut self.audited);
        self.audited.unlock(scope);
    }

    fn add(&mut self, fd: impl AsFd, interest: Interest) {
        self.batch(Scope::Descriptors, |host| drop(host.add(fd.as_fd(), interest)));
    }

    fn change(&mut self, fd: impl AsFd, previous: Interest, interest: Interest) {
        self.batch(Scope::Interests, |host| drop(host.change(fd.as_fd(), previous, interest)));
    }

    fn remove(&mut self, fd: impl AsFd) {
        self.batch(Scope::Descriptors, |host| host.remove(fd.as_fd()));
    }

    fn prepare(&mut self, wait: Wait) {
        self.audited.audit.before_prepare();
        self.audited.audit.after_prepare(wait, || 0);
    }

    fn sleep(&mut self) {
        self.audited.audit.sleeping(Some(Duration::ZERO));
    }

    fn ready(&mut self, fd: RawFd, ready: Ready, served: Served) {
        self.audited.audit.before_service(fd, ready);
        self.audited.audit.after_service(fd, ready, served, || 0);
    }

    fn timeouts(&mut self) {
        self.audited.audit.before_timeouts();
    }

    fn until(&self, delay: Duration) -> Wait {
        Wait::until(self.time.get() + delay, Some(self.time.get()))
    }

    fn advance(&self, time: Duration) {
        self.time.set(self.time.get() + time);
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

#[test]
fn a_well_behaved_pair_is_not_reported() {
    let mut bench = Bench::new();
    let (reader, writer) = pipe();
    let fd = reader.as_raw_fd();
    bench.add(&reader, Interest::READ);
    bench.add(&writer, Interest::WRITE);
    bench.prepare(bench.until(Duration::from_secs(5)));
    bench.audited.audit.sleeping(Some(Duration::from_secs(5)));
    bench.ready(fd, Ready::READ, Served::Ours);
    bench.ready(100_099, Ready::READ, Served::Foreign);
    bench.ready(-1, Ready::NONE, Served::Foreign);
    bench.timeouts();
    bench.change(&reader, Interest::READ, Interest::BOTH);
    bench.remove(&writer);
    bench.prepare(Wait::FOREVER);
    bench.sleep();
    bench.ready(fd, Ready::READ.with(Ready::WRITE), Served::Ours);
    bench.timeouts();
    bench.remove(&reader);
    bench.prepare(Wait::NOW);
    bench.sleep();
    bench.timeouts();
    bench.audited.finished();
    assert_eq!(bench.found(), []);
    let counts = bench.audited.counts();
    assert_eq!((counts.adds, counts.changes, counts.removes, counts.locks), (2, 1, 2, 5));
    assert_eq!((counts.services, counts.timeouts, counts.wake_ups, counts.host_calls()), (2, 3, 3, 5));
}

#[test]
fn second_add_is_found() {
    let mut bench = Bench::new();
    let (reader, _writer) = pipe();
    let fd = reader.as_raw_fd();
    bench.add(&reader, Interest::READ);
    bench.add(&reader, Interest::READ);
    assert_eq!(bench.found(), [Violation::AddedTwice { fd }]);
}

#[test]
fn change_and_remove_of_unknown_descriptors_are_found() {
    let mut bench = Bench::new();
    let (reader, _writer) = pipe();
    let fd = reader.as_raw_fd();
    bench.change(&reader, Interest::READ, Interest::BOTH);
    bench.remove(&reader);
    assert_eq!(bench.found(), [Violation::ChangedUnknown { fd }, Violation::RemovedUnknown { fd }]);
}

#[test]
fn change_of_nothing_or_of_the_wrong_previous_is_found() {
    let mut bench = Bench::new();
    let (reader, _writer) = pipe();
    let fd = reader.as_raw_fd();
    bench.add(&reader, Interest::READ);
    bench.change(&reader, Interest::READ, Interest::READ);
    assert_eq!(bench.found(), [Violation::ChangedNothing { fd, interest: Interest::READ }]);
    bench.change(&reader, Interest::WRITE, Interest::BOTH);
    let wrong = Violation::WrongPrevious { fd, said: Interest::WRITE, known: Interest::READ };
    assert_eq!(bench.found(), [wrong]);
}

#[test]
fn empty_interest_is_found() {
    let mut bench = Bench::new();
    let (reader, writer) = pipe();
    bench.add(&reader, Interest::NONE);
    assert_eq!(bench.found(), [Violation::EmptyInterest { fd: reader.as_raw_fd() }]);
    bench.add(&writer, Interest::WRITE);
    bench.change(&writer, Interest::WRITE, Interest::NONE);
    assert_eq!(bench.found(), [Violation::EmptyInterest { fd: writer.as_raw_fd() }]);
}

#[test]
fn number_used_again_before_its_remove_is_found() {
    let mut bench = Bench::new();
    let (mut reader, _writer) = pipe();
    let (other, _other_writer) = pipe();
    let fd = reader.as_raw_fd();
    bench.add(&reader, Interest::READ);
    dup3(&other, &mut reader, DupFlags::CLOEXEC).unwrap();
    bench.change(&reader, Interest::READ, Interest::BOTH);
    bench.remove(&reader);
    let closed = Violation::ClosedBeforeRemove { fd };
    assert_eq!(bench.found(), [closed, closed]);

    bench.add(&reader, Interest::READ);
    dup3(&_writer, &mut reader, DupFlags::CLOEXEC).unwrap();
    bench.add(&reader, Interest::READ);
    assert_eq!(bench.found(), [closed]);
}

#[test]
fn descriptor_that_children_inherit_is_found() {
    let mut bench = Bench::new();
    let (reader, _writer) = pipe_with(PipeFlags::empty()).unwrap();
    bench.add(&reader, Interest::READ);
    assert_eq!(bench.found(), [Violation::NotCloseOnExec { fd: reader.as_raw_fd() }]);
}

#[test]
fn every_misuse_of_the_lock_is_found() {
    let mut bench = Bench::new();
    let (reader, _writer) = pipe();
    let fd = reader.as_raw_fd();
    bench.audited.add(reader.as_fd(), Interest::READ).unwrap();
    assert_eq!(bench.found(), [Violation::OutsideLock { fd }]);
    bench.audited.unlock(Scope::Interests);
    assert_eq!(bench.found(), [Violation::UnlockedUnlocked]);
    bench.batch(Scope::Interests, |_| {});
    assert_eq!(bench.found(), [Violation::EmptyBracket]);
    bench.batch(Scope::Interests, |host| host.remove(reader.as_fd()));
    assert_eq!(bench.found(), [Violation::WrongScope { fd }]);
    bench.audited.lock(Scope::Interests);
    bench.audited.lock(Scope::Descriptors);
    assert_eq!(bench.found(), [Violation::LockedTwice]);
    bench.audited.unlock(Scope::Interests);
    assert_eq!(bench.found(), [Violation::UnlockedOtherScope]);
    bench.audited.lock(Scope::Interests);
    bench.prepare(Wait::FOREVER);
    assert_eq!(bench.found(), [Violation::LeftLocked]);
}

#[test]
fn descriptor_that_the_host_refused_is_not_watched() {
    let mut bench = Bench::new();
    let (reader, writer) = pipe();
    bench.audited.host.refuses = true;
    bench.add(&reader, Interest::READ);
    bench.audited.host.refuses = false;
    bench.add(&writer, Interest::WRITE);
    bench.audited.host.refuses = true;
    bench.change(&writer, Interest::WRITE, Interest::BOTH);
    assert_eq!(bench.found(), []);
    assert_eq!(bench.audited.counts().refused, 2);
    bench.change(&writer, Interest::WRITE, Interest::BOTH);
    assert_eq!(bench.found(), [Violation::ChangedAfterError { fd: writer.as_raw_fd() }]);
    bench.remove(&writer);
    bench.audited.finished();
    assert_eq!(bench.found(), []);
}

#[test]
fn descriptor_left_behind_is_found_and_the_right_side_blamed() {
    let mut bench = Bench::new();
    let (reader, writer) = pipe();
    bench.add(&reader, Interest::READ);
    bench.audited.audit.finish(true);
    let left = Violation::NeverRemoved { fd: reader.as_raw_fd(), detached: true };
    assert_eq!((bench.found(), left.blame()), (vec![left], Blame::Lodger));
    bench.add(&writer, Interest::WRITE);
    let Bench { audited, found, .. } = bench;
    drop(audited);
    let left = Violation::NeverRemoved { fd: writer.as_raw_fd(), detached: false };
    assert_eq!((found.take(), left.blame()), (vec![left], Blame::Host));
}

#[test]
fn readiness_after_the_remove_is_found_once_the_batch_is_over() {
    let mut bench = Bench::new();
    let (reader, _writer) = pipe();
    let fd = reader.as_raw_fd();
    bench.add(&reader, Interest::READ);
    bench.prepare(Wait::FOREVER);
    bench.sleep();
    bench.ready(fd, Ready::READ, Served::Ours);
    bench.remove(&reader);
    bench.prepare(Wait::FOREVER);
    bench.ready(fd, Ready::READ, Served::Ours); // left over from the wait before the remove
    assert_eq!(bench.found(), []);
    bench.prepare(Wait::FOREVER);
    bench.sleep();
    bench.ready(fd, Ready::READ, Served::Foreign); // the number may be the host's by now
    assert_eq!(bench.found(), []);
    bench.ready(fd, Ready::READ, Served::Ours);
    assert_eq!(bench.found(), [Violation::ReadyAfterRemove { fd }]);
    bench.audited.audit.exclusive = true;
    bench.ready(fd, Ready::READ, Served::Foreign);
    assert_eq!(bench.found(), [Violation::ReadyAfterRemove { fd }]);
}

#[test]
fn unknown_descriptor_is_found_in_an_exclusive_loop_only() {
    let mut bench = Bench::new();
    bench.prepare(Wait::FOREVER);
    bench.ready(100_090, Ready::READ, Served::Foreign);
    assert_eq!(bench.found(), []);
    bench.audited.audit.exclusive = true;
    bench.ready(100_090, Ready::READ, Served::Foreign);
    assert_eq!(bench.found(), [Violation::ReadyUnknown { fd: 100_090 }]);
}

#[test]
fn readiness_that_was_not_asked_for_is_found() {
    let mut bench = Bench::new();
    let (reader, _writer) = pipe();
    let fd = reader.as_raw_fd();
    bench.add(&reader, Interest::READ);
    bench.prepare(Wait::FOREVER);
    bench.sleep();
    bench.ready(fd, Ready::WRITE.with(Ready::HANG_UP), Served::Ours);
    bench.ready(fd, Ready::ERROR, Served::Ours);
    assert_eq!(bench.found(), []);
    bench.ready(fd, Ready::WRITE, Served::Ours);
    let found = Violation::NotAskedFor { fd, ready: Ready::WRITE, interest: Interest::READ };
    assert_eq!(bench.found(), [found]);

    // What was watched for when the wait began may still be said.
    bench.change(&reader, Interest::READ, Interest::WRITE);
    bench.prepare(Wait::FOREVER);
    bench.ready(fd, Ready::READ, Served::Ours);
    assert_eq!(bench.found(), []);
    bench.prepare(Wait::FOREVER);
    bench.sleep();
    bench.ready(fd, Ready::READ, Served::Ours);
    let found = Violation::NotAskedFor { fd, ready: Ready::READ, interest: Interest::WRITE };
    assert_eq!(bench.found(), [found]);
}

#[test]
fn wrong_owner_is_found() {
    let mut bench = Bench::new();
    let (reader, _writer) = pipe();
    let fd = reader.as_raw_fd();
    bench.add(&reader, Interest::READ);
    bench.prepare(Wait::FOREVER);
    bench.ready(fd, Ready::READ, Served::Foreign);
    assert_eq!(bench.found(), [Violation::Disowned { fd }]);
    bench.ready(100_091, Ready::READ, Served::Ours);
    assert_eq!(bench.found(), [Violation::Claimed { fd: 100_091 }]);
}

#[test]
fn wrong_revents_are_found() {
    let mut bench = Bench::new();
    let mut check = |before, after, served| {
        bench.audited.audit.check_revents(100_093, before, after, served);
        bench.found().len()
    };
    assert_eq!(check(Ready::READ, Ready::NONE, Served::Ours), 0);
    assert_eq!(check(Ready::READ, Ready::READ, Served::Foreign), 0);
    assert_eq!(check(Ready::READ, Ready::READ, Served::Ours), 1);
    assert_eq!(check(Ready::READ, Ready::NONE, Served::Foreign), 1);
}

#[test]
fn descriptor_that_spins_is_found_and_one_that_moves_bytes_is_not() {
    let mut bench = Bench::new();
    bench.audited.audit.spin_after = 10;
    let (reader, writer) = pipe();
    let (fd, busy) = (reader.as_raw_fd(), writer.as_raw_fd());
    bench.add(&reader, Interest::READ);
    for _ in 0..9 {
        bench.prepare(Wait::FOREVER);
        bench.sleep();
        bench.ready(fd, Ready::HANG_UP, Served::Ours);
        bench.ready(fd, Ready::HANG_UP, Served::Ours); // twice in one wait is one
    }
    assert_eq!(bench.found(), []);
    bench.prepare(Wait::FOREVER);
    bench.sleep();
    bench.ready(fd, Ready::HANG_UP, Served::Ours);
    assert_eq!(bench.found(), [Violation::Spins { fd, ready: Ready::HANG_UP, turns: 10 }]);

    bench.add(&writer, Interest::WRITE);
    for bytes in 0..50 {
        bench.prepare(Wait::FOREVER);
        bench.sleep();
        bench.audited.audit.before_service(busy, Ready::WRITE);
        bench.audited.audit.after_service(busy, Ready::WRITE, Served::Ours, || bytes);
    }
    assert_eq!(bench.found(), []);
}

#[test]
fn deadline_that_never_moves_is_found() {
    let mut bench = Bench::new();
    bench.audited.audit.spin_after = 10;
    for _ in 0..10 {
        bench.prepare(Wait::NOW);
        bench.sleep();
        bench.timeouts();
    }
    assert_eq!(bench.found(), []);
    bench.prepare(Wait::NOW);
    assert_eq!(bench.found(), [Violation::DeadlineSpins { turns: 10 }]);
}

#[test]
fn sleep_without_prepare_is_found() {
    let mut bench = Bench::new();
    bench.sleep();
    assert_eq!(bench.found(), [Violation::NotPrepared]);
    bench.prepare(Wait::FOREVER);
    bench.sleep();
    bench.timeouts();
    bench.sleep();
    assert_eq!(bench.found(), [Violation::NotPrepared]);
}

#[test]
fn sleep_that_is_too_long_is_found() {
    let mut bench = Bench::new();
    bench.prepare(bench.until(Duration::from_micros(9_500)));
    bench.audited.audit.sleeping(Some(Duration::from_millis(10))); // rounded up
    assert_eq!(bench.found(), []);
    let (allowed, asked) = (Duration::from_micros(9_500), Some(Duration::from_millis(20)));
    bench.audited.audit.sleeping(asked);
    assert_eq!(bench.found(), [Violation::SleepsTooLong { allowed, asked }]);
    bench.audited.audit.sleeping(None);
    assert_eq!(bench.found(), [Violation::SleepsTooLong { allowed, asked: None }]);
}

#[test]
fn missed_deadline_is_found() {
    let mut bench = Bench::new();
    bench.prepare(bench.until(Duration::from_secs(1)));
    bench.advance(Duration::from_secs(2));
    bench.timeouts();
    assert_eq!(bench.found(), []); // within the tolerance
    bench.prepare(bench.until(Duration::from_secs(1)));
    bench.advance(Duration::from_secs(4));
    bench.timeouts();
    assert_eq!(bench.found(), [Violation::MissedDeadline { late: Duration::from_secs(3) }]);
}

#[test]
fn timeouts_that_are_not_served_are_found() {
    let mut bench = Bench::new();
    bench.prepare(Wait::NOW);
    bench.advance(Duration::from_secs(1));
    bench.prepare(Wait::NOW);
    assert_eq!(bench.found(), []);
    bench.advance(Duration::from_secs(1));
    bench.prepare(Wait::NOW);
    assert_eq!(bench.found(), [Violation::TimeoutsSkipped { late: Duration::from_secs(2) }]);
}

#[test]
fn only_sleeps_that_lodger_ended_are_wake_ups() {
    let mut bench = Bench::new();
    let (reader, _writer) = pipe();
    bench.add(&reader, Interest::READ);
    bench.prepare(bench.until(Duration::from_secs(1)));
    bench.ready(100_092, Ready::READ, Served::Foreign);
    bench.timeouts();
    assert_eq!(bench.audited.counts().wake_ups, 0);
    bench.prepare(bench.until(Duration::from_secs(1)));
    bench.ready(reader.as_raw_fd(), Ready::READ, Served::Ours);
    bench.advance(Duration::from_secs(1));
    bench.timeouts();
    assert_eq!(bench.audited.counts().wake_ups, 1);
    let before = bench.audited.counts();
    bench.prepare(Wait::NOW);
    bench.timeouts();
    assert_eq!(bench.audited.counts().since(&before).wake_ups, 1);
}

#[test]
fn panic_names_the_rule_the_guilty_side_and_the_last_calls() {
    let (reader, _writer) = pipe();
    let fd = reader.as_raw_fd();
    let mut audited = Audited::new(Fake { refuses: false });
    audited.lock(Scope::Descriptors);
    audited.add(reader.as_fd(), Interest::READ).unwrap();
    let again = catch_unwind(AssertUnwindSafe(|| audited.add(reader.as_fd(), Interest::WRITE)));
    let message = again.unwrap_err().downcast::<String>().unwrap();
    let expected = format!(
        "lodger broke G2 (bracketed): descriptor {fd} was added twice; last calls about {fd}: add(READ), add(WRITE)"
    );
    assert_eq!(*message, expected);
    drop(audited); // does not panic again
}

impl Calls for Fake {}

/// A turn that forgets its `prepare`, over whichever host. Says whether anybody asked how long it sleeps.
fn forgetful_turn(host: &mut impl Calls, context: &mut Context<()>) -> bool {
    let mut is_asked = false;
    host.sleeping(|| {
        is_asked = true;
        None
    });
    let _ = host.service(context, 100_093, Ready::READ, &mut ());
    host.service_timeouts(context, &mut ());
    let _ = host.prepare(context);
    host.detach(context);
    host.leave(context, &mut ());
    is_asked
}

#[test]
fn loop_written_over_calls_is_checked_where_an_audit_is_in_it_and_nowhere_else() {
    let mut context = Context::new();
    assert!(!forgetful_turn(&mut Fake { refuses: false }, &mut context));
    let mut bench = Bench::new();
    assert!(forgetful_turn(&mut bench.audited, &mut context));
    assert_eq!(bench.found(), [Violation::NotPrepared]);
    let counts = bench.audited.counts();
    assert_eq!((counts.prepares, counts.timeouts), (1, 1));
    assert!(!bench.audited.refuses, "the host inside is found through the audit");
}
