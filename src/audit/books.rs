//! What has passed between lodger and the loop, and what each call must agree with.

use super::spin::{Streak, moved};
use super::{Counts, Violation};
use crate::{Context, Interest, Pollable, Ready, Scope, Served, Wait};
use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_getfd};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// The books of an [`Audited`](super::Audited) host, and the checked calls into the context that need no host.
pub struct Audit {
    report: Report,
    pub(super) clock: Box<dyn FnMut() -> Instant>,
    pub(super) tolerance: Duration,
    pub(super) spin_after: u32,
    pub(super) exclusive: bool,
    watched: BTreeMap<RawFd, Watched>,
    /// What was removed, and when; until the number is added again.
    removed: BTreeMap<RawFd, Stamp>,
    bracket: Option<Bracket>,
    turn: Turn,
    sleeps: u64,
    pub(super) counts: Counts,
    calls: VecDeque<(RawFd, Call)>,
    /// There is nothing left to check: it is over, or a violation has been thrown.
    pub(super) settled: bool,
}

pub(super) enum Report {
    Panic,
    To(Box<dyn FnMut(Violation)>),
}

/// One descriptor that is being watched.
struct Watched {
    interest: Interest,
    /// The interest before the last change, and when that was: readiness of the same batch may be of that time.
    before: Interest,
    changed: Stamp,
    file: Option<File>,
    /// The host answered a change with an error.
    refused: bool,
    reported: Streak,
}

/// Which open file a number stood for; `None` where the system does not tell such files apart.
#[derive(Clone, Copy, Eq, PartialEq)]
struct File {
    device: u64,
    inode: u64,
}

/// The moment of a call to the host, in prepares and in sleeps.
#[derive(Clone, Copy, Default)]
struct Stamp {
    prepares: u64,
    sleeps: u64,
}

struct Bracket {
    scope: Scope,
    is_empty: bool,
}

/// From one `prepare` to the next.
#[derive(Default)]
struct Turn {
    is_prepared: bool,
    /// When lodger wants to be called, and how far ahead that was when it said so.
    due: Option<Instant>,
    allowed: Option<Duration>,
    /// A service call was made, so the sleep is over.
    is_awake: bool,
    /// The sleep was counted as one that lodger ended.
    is_counted: bool,
    served_timeouts: bool,
    served_fd: bool,
    asked_now: Streak,
}

#[derive(Clone, Copy)]
enum Call {
    Add(Interest),
    Change(Interest, Interest),
    Remove,
    Refused,
    Reported(Ready),
}

impl Audit {
    pub(super) fn new(report: Report) -> Self {
        Self {
            report,
            clock: Box::new(crate::env::system_now),
            tolerance: Duration::from_secs(1),
            spin_after: 1000,
            exclusive: false,
            watched: BTreeMap::new(),
            removed: BTreeMap::new(),
            bracket: None,
            turn: Turn::default(),
            sleeps: 0,
            counts: Counts::default(),
            calls: VecDeque::with_capacity(CALLS_KEPT),
            settled: false,
        }
    }

    /// The loop is about to sleep, for `timeout` at most; `None` is for ever.
    ///
    /// Called right before each wait of the system's, it finds a missing `prepare` and a sleep that is too long without
    /// looking at the clock, and tells readiness of this wait from what is left of the one before. A loop that cannot say it
    /// leaves it out.
    pub fn sleeping(&mut self, timeout: Option<Duration>) {
        if !self.turn.is_prepared || self.turn.is_awake {
            self.violated(Violation::NotPrepared);
        }
        if let Some(allowed) = self.turn.allowed
            && timeout.is_none_or(|asked| asked > allowed + ROUNDING)
        {
            self.violated(Violation::SleepsTooLong { allowed, asked: timeout });
        }
        self.sleeps += 1;
    }

    /// [`Context::service_fd`], checked.
    pub fn service_fd<D>(
        &mut self,
        context: &mut Context<D>,
        pollfd: &mut impl Pollable,
        data: &mut D,
    ) -> Served {
        let (fd, ready) = (pollfd.fd(), pollfd.revents());
        self.before_service(fd, ready);
        let served = context.service_fd(pollfd, data);
        self.check_revents(fd, ready, pollfd.revents(), served);
        self.after_service(fd, ready, served, || moved(context));
        served
    }

    /// [`Context::service`], checked.
    pub fn service<D>(&mut self, context: &mut Context<D>, fd: RawFd, ready: Ready, data: &mut D) -> Served {
        self.before_service(fd, ready);
        let served = context.service(fd, ready, data);
        self.after_service(fd, ready, served, || moved(context));
        served
    }

    /// [`Context::service_timeouts`], checked.
    pub fn service_timeouts<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        self.before_timeouts();
        context.service_timeouts(data);
    }

    /// What has been called so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn before_add(&mut self, fd: BorrowedFd<'_>, interest: Interest) {
        let number = fd.as_raw_fd();
        self.counts.adds += 1;
        self.call(number, Call::Add(interest));
        self.check_bracket(number, true);
        if let Some(known) = self.watched.get(&number) {
            let is_same = known.file == file(fd);
            self.violated(match is_same {
                true => Violation::AddedTwice { fd: number },
                false => Violation::ClosedBeforeRemove { fd: number },
            });
        }
        if interest.is_none() {
            self.violated(Violation::EmptyInterest { fd: number });
        }
        if !fcntl_getfd(fd).is_ok_and(|flags| flags.contains(FdFlags::CLOEXEC)) {
            self.violated(Violation::NotCloseOnExec { fd: number });
        }
    }

    pub(super) fn after_add(&mut self, fd: BorrowedFd<'_>, interest: Interest, is_accepted: bool) {
        let number = fd.as_raw_fd();
        self.removed.remove(&number);
        if !is_accepted {
            return self.refused(number);
        }
        let watched = Watched {
            interest,
            // What is left of the wait before may be about the number's former owner.
            before: Interest::BOTH,
            changed: self.stamp(),
            file: file(fd),
            refused: false,
            reported: Streak::default(),
        };
        self.watched.insert(number, watched);
    }

    pub(super) fn before_change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) {
        let number = fd.as_raw_fd();
        self.counts.changes += 1;
        self.call(number, Call::Change(previous, interest));
        self.check_bracket(number, false);
        if previous == interest {
            self.violated(Violation::ChangedNothing { fd: number, interest });
        }
        if interest.is_none() {
            self.violated(Violation::EmptyInterest { fd: number });
        }
        let Some(known) = self.watched.get(&number) else {
            return self.violated(Violation::ChangedUnknown { fd: number });
        };
        let (known, was_refused) = (known.interest, known.refused);
        if known != previous {
            self.violated(Violation::WrongPrevious { fd: number, said: previous, known });
        }
        if was_refused {
            self.violated(Violation::ChangedAfterError { fd: number });
        }
        self.check_open(fd);
    }

    pub(super) fn after_change(&mut self, fd: BorrowedFd<'_>, interest: Interest, is_accepted: bool) {
        let (number, now) = (fd.as_raw_fd(), self.stamp());
        if let Some(known) = self.watched.get_mut(&number) {
            known.refused = !is_accepted;
            if is_accepted {
                known.before = known.interest;
                known.interest = interest;
                known.changed = now;
            }
        }
        if !is_accepted {
            self.refused(number);
        }
    }

    pub(super) fn before_remove(&mut self, fd: BorrowedFd<'_>) {
        let number = fd.as_raw_fd();
        self.counts.removes += 1;
        self.call(number, Call::Remove);
        self.check_bracket(number, true);
        self.check_open(fd);
        if self.watched.remove(&number).is_none() {
            self.violated(Violation::RemovedUnknown { fd: number });
        }
        self.removed.insert(number, self.stamp());
    }

    pub(super) fn before_lock(&mut self, scope: Scope) {
        self.counts.locks += 1;
        if self.bracket.replace(Bracket { scope, is_empty: true }).is_some() {
            self.violated(Violation::LockedTwice);
        }
    }

    pub(super) fn after_unlock(&mut self, scope: Scope) {
        match self.bracket.take() {
            None => self.violated(Violation::UnlockedUnlocked),
            Some(bracket) if bracket.scope != scope => self.violated(Violation::UnlockedOtherScope),
            Some(bracket) if bracket.is_empty => self.violated(Violation::EmptyBracket),
            Some(_) => {}
        }
    }

    pub(super) fn before_prepare(&mut self) {
        if let Some(late) = self.lateness()
            && !self.turn.served_timeouts
        {
            self.violated(Violation::TimeoutsSkipped { late });
        }
    }

    /// `moved` is what [`moved`] says; it is asked for only on suspicion.
    pub(super) fn after_prepare(&mut self, wait: Wait, moved: impl FnOnce() -> u64) {
        if self.bracket.take().is_some() {
            self.violated(Violation::LeftLocked);
        }
        self.counts.prepares += 1;
        let now = if wait == Wait::FOREVER { None } else { Some((self.clock)()) };
        // Whoever is told NOW and does not call stays due since the first time.
        let since = self.turn.due.filter(|_| !self.turn.served_timeouts);
        let due = match wait.instant() {
            Some(at) => Some(at),
            None if wait.is_now() => now.map(|now| since.map_or(now, |since| since.min(now))),
            None => None,
        };
        let is_due = due.zip(now).is_some_and(|(due, now)| due <= now);
        let mut asked_now = self.turn.asked_now;
        if is_due && self.turn.served_timeouts && !self.turn.served_fd {
            // Each turn is one more, whether the loop says that it sleeps or not.
            let batch = asked_now.batch + 1;
            if asked_now.goes_on(batch, Ready::NONE, self.counts.host_calls(), self.spin_after, moved) {
                self.violated(Violation::DeadlineSpins { turns: self.spin_after });
            }
        } else {
            asked_now = Streak::default();
        }
        let allowed = wait.duration();
        self.turn = Turn { is_prepared: true, due, allowed, asked_now, ..Turn::default() };
    }

    pub(super) fn before_service(&mut self, fd: RawFd, ready: Ready) {
        if ready.is_none() {
            return;
        }
        self.woke();
        let Some(known) = self.watched.get(&fd) else {
            if self.exclusive && !self.removed.contains_key(&fd) {
                self.violated(Violation::ReadyUnknown { fd });
            }
            return;
        };
        let interest = known.interest;
        let allowed = if self.is_this_batch(known.changed) { interest.with(known.before) } else { interest };
        // What comes with a hang-up or an error cannot be masked.
        let is_masked = !ready.contains(Ready::HANG_UP) && !ready.contains(Ready::ERROR);
        let is_more = (ready.is_readable() && !allowed.is_readable())
            || (ready.is_writable() && !allowed.is_writable());
        self.call(fd, Call::Reported(ready));
        if is_masked && is_more {
            self.violated(Violation::NotAskedFor { fd, ready, interest });
        }
        self.counts.services += 1;
        self.turn.served_fd = true;
        self.count_wake_up();
    }

    pub(super) fn after_service(
        &mut self,
        fd: RawFd,
        ready: Ready,
        served: Served,
        moved: impl FnOnce() -> u64,
    ) {
        if ready.is_none() {
            return;
        }
        let batch = self.batch();
        let host_calls = self.counts.host_calls();
        if let Some(known) = self.watched.get_mut(&fd) {
            let spins = known.reported.goes_on(batch, ready, host_calls, self.spin_after, moved);
            if served == Served::Foreign {
                self.violated(Violation::Disowned { fd });
            }
            if spins {
                self.violated(Violation::Spins { fd, ready, turns: self.spin_after });
            }
            return;
        }
        match self.removed.get(&fd) {
            // A paused link is lodger's and is not watched; what is left of an earlier wait may still say its number.
            Some(&removed) if served == Served::Ours && !self.is_this_batch(removed) => {
                self.violated(Violation::ReadyAfterRemove { fd });
            }
            // The number of the host's own descriptor, unless the loop has none.
            Some(&removed) if self.exclusive && !self.is_this_batch(removed) => {
                self.violated(Violation::ReadyAfterRemove { fd });
            }
            Some(_) => {}
            None if served == Served::Ours => self.violated(Violation::Claimed { fd }),
            None => {}
        }
    }

    pub(super) fn before_timeouts(&mut self) {
        self.counts.timeouts += 1;
        self.woke();
        self.turn.served_timeouts = true;
        if let Some(due) = self.turn.due
            && (self.clock)() >= due
        {
            self.count_wake_up();
        }
    }

    /// The first service call after a `prepare`: the sleep, if there was one, is over.
    fn woke(&mut self) {
        if self.turn.is_awake {
            return;
        }
        self.turn.is_awake = true;
        if let Some(late) = self.lateness() {
            self.violated(Violation::MissedDeadline { late });
        }
    }

    /// By how much the deadline was missed, if that is more than the tolerance.
    fn lateness(&mut self) -> Option<Duration> {
        let due = self.turn.due?;
        let late = (self.clock)().saturating_duration_since(due);
        (late > self.tolerance).then_some(late)
    }

    fn count_wake_up(&mut self) {
        if !self.turn.is_counted {
            self.turn.is_counted = true;
            self.counts.wake_ups += 1;
        }
    }

    pub(super) fn finish(&mut self, detached: bool) {
        if self.bracket.take().is_some() {
            self.violated(Violation::LeftLocked);
        }
        self.turn = Turn::default();
        while let Some((&fd, _)) = self.watched.first_key_value() {
            self.watched.remove(&fd);
            self.violated(Violation::NeverRemoved { fd, detached });
        }
    }

    fn check_bracket(&mut self, fd: RawFd, comes_or_goes: bool) {
        match &mut self.bracket {
            None => self.violated(Violation::OutsideLock { fd }),
            Some(bracket) => {
                bracket.is_empty = false;
                if comes_or_goes && bracket.scope == Scope::Interests {
                    self.violated(Violation::WrongScope { fd });
                }
            }
        }
    }

    /// The number still stands for the file that was added.
    fn check_open(&mut self, fd: BorrowedFd<'_>) {
        let number = fd.as_raw_fd();
        let is_same = self.watched.get(&number).is_none_or(|known| known.file == file(fd));
        if !is_same || fcntl_getfd(fd).is_err() {
            self.violated(Violation::ClosedBeforeRemove { fd: number });
        }
    }

    pub(super) fn check_revents(&mut self, fd: RawFd, before: Ready, after: Ready, served: Served) {
        let expected = match served {
            Served::Ours => Ready::NONE,
            Served::Foreign => before,
        };
        if after != expected {
            self.violated(Violation::WrongRevents { fd, served });
        }
    }

    fn refused(&mut self, fd: RawFd) {
        self.counts.refused += 1;
        self.call(fd, Call::Refused);
    }

    fn stamp(&self) -> Stamp {
        Stamp { prepares: self.counts.prepares, sleeps: self.sleeps }
    }

    /// Whether readiness that is reported now may be from a wait that began before `stamp`. A loop that prepares in the
    /// middle of a batch and does not say when it sleeps has one turn of grace.
    fn is_this_batch(&self, stamp: Stamp) -> bool {
        match self.sleeps {
            0 => self.counts.prepares <= stamp.prepares + 2,
            sleeps => sleeps == stamp.sleeps,
        }
    }

    fn batch(&self) -> u64 {
        if self.sleeps > 0 { self.sleeps } else { self.counts.prepares }
    }

    fn call(&mut self, fd: RawFd, call: Call) {
        if self.calls.len() == CALLS_KEPT {
            self.calls.pop_front();
        }
        self.calls.push_back((fd, call));
    }

    fn violated(&mut self, violation: Violation) {
        match &mut self.report {
            Report::To(report) => report(violation),
            Report::Panic => {
                self.settled = true;
                panic!(
                    "{} broke {}: {violation}{}",
                    violation.blame(),
                    violation.rule(),
                    self.history(violation)
                );
            }
        }
    }

    /// The last calls about the descriptor of `violation`.
    fn history(&self, violation: Violation) -> String {
        let Some(about) = violation.fd() else { return String::new() };
        let calls = self.calls.iter().filter(|(fd, _)| *fd == about).rev().take(CALLS_SHOWN);
        let mut calls: Vec<String> = calls.map(|(_, call)| call.to_string()).collect();
        calls.reverse();
        format!(
            "; last calls about {about}: {}",
            if calls.is_empty() { "none".into() } else { calls.join(", ") }
        )
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.settled && !std::thread::panicking() {
            self.finish(false);
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watched = self.watched.iter().map(|(fd, known)| (fd, known.interest));
        let watched: BTreeMap<_, _> = watched.collect();
        f.debug_struct("Audit")
            .field("watched", &watched)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(interest) => write!(f, "add({interest:?})"),
            Self::Change(previous, interest) => write!(f, "change({previous:?}, {interest:?})"),
            Self::Remove => f.write_str("remove"),
            Self::Refused => f.write_str("refused by the host"),
            Self::Reported(ready) => write!(f, "reported {ready:?}"),
        }
    }
}

/// The file behind `fd`. Event counters and the like share one inode, and have no type: they cannot be told apart.
fn file(fd: BorrowedFd<'_>) -> Option<File> {
    let stat = fstat(fd).ok()?;
    let is_shared = FileType::from_raw_mode(stat.st_mode) == FileType::Unknown;
    #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
    let file = File { device: stat.st_dev as u64, inode: stat.st_ino as u64 };
    (!is_shared).then_some(file)
}

/// What a loop may round its sleep up by: a millisecond, and a clock tick.
const ROUNDING: Duration = Duration::from_millis(2);

/// How many calls are remembered for messages, and how many of them a message shows.
const CALLS_KEPT: usize = 512;
const CALLS_SHOWN: usize = 8;
