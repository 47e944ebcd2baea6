//! What can be broken: each rule of the contract between lodger and a loop that the audit watches.

use crate::{Interest, Ready, Served};
use std::error::Error;
use std::fmt;
use std::os::fd::RawFd;
use std::time::Duration;

/// One breach of the contract. [`blame`](Self::blame) says by whom, [`rule`](Self::rule) of which rule.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Violation {
    /// A descriptor was added that is being watched already.
    AddedTwice {
        /// The descriptor.
        fd: RawFd,
    },
    /// A descriptor was changed that is not being watched.
    ChangedUnknown {
        /// The descriptor.
        fd: RawFd,
    },
    /// A descriptor was removed that is not being watched.
    RemovedUnknown {
        /// The descriptor.
        fd: RawFd,
    },
    /// A change to the interest that the descriptor had already.
    ChangedNothing {
        /// The descriptor.
        fd: RawFd,
        /// The interest before and after.
        interest: Interest,
    },
    /// A change whose `previous` is not what the host was told last.
    WrongPrevious {
        /// The descriptor.
        fd: RawFd,
        /// What the change said.
        said: Interest,
        /// What the host was told last.
        known: Interest,
    },
    /// An add, or a change, to no interest at all.
    EmptyInterest {
        /// The descriptor.
        fd: RawFd,
    },
    /// A change of a descriptor after the host answered an earlier change with an error; only a remove may follow.
    ChangedAfterError {
        /// The descriptor.
        fd: RawFd,
    },
    /// The descriptor was closed, or its number used again, before the remove.
    ClosedBeforeRemove {
        /// The descriptor.
        fd: RawFd,
    },
    /// A descriptor that a child process would inherit was added.
    NotCloseOnExec {
        /// The descriptor.
        fd: RawFd,
    },
    /// An add, a change or a remove came outside `lock` and `unlock`.
    OutsideLock {
        /// The descriptor.
        fd: RawFd,
    },
    /// An add or a remove came under `Scope::Interests`, which promises that no descriptor comes or goes.
    WrongScope {
        /// The descriptor.
        fd: RawFd,
    },
    /// `lock` while locked.
    LockedTwice,
    /// `unlock` while not locked.
    UnlockedUnlocked,
    /// `unlock` with another scope than its `lock` had.
    UnlockedOtherScope,
    /// `lock` and `unlock` with nothing between them.
    EmptyBracket,
    /// A call into the context ended with the host still locked.
    LeftLocked,
    /// A descriptor is still being watched at the end.
    NeverRemoved {
        /// The descriptor.
        fd: RawFd,
        /// Whether the context was told to detach or to leave.
        detached: bool,
    },
    /// lodger called a descriptor its own that it had not added, or had removed and closed.
    Claimed {
        /// The descriptor.
        fd: RawFd,
    },
    /// lodger called a descriptor foreign that it has added.
    Disowned {
        /// The descriptor.
        fd: RawFd,
    },
    /// `revents` is not zero after [`Served::Ours`], or not what it was after [`Served::Foreign`].
    WrongRevents {
        /// The descriptor.
        fd: RawFd,
        /// What lodger answered.
        served: Served,
    },
    /// A descriptor is reported again and again, and neither bytes nor a registration moved.
    Spins {
        /// The descriptor.
        fd: RawFd,
        /// What is reported.
        ready: Ready,
        /// In how many waits in a row.
        turns: u32,
    },
    /// lodger asks not to sleep again and again; it is called each time, and neither bytes nor a registration moved.
    DeadlineSpins {
        /// In how many turns in a row.
        turns: u32,
    },
    /// A descriptor was reported after a wait that began after its remove.
    ReadyAfterRemove {
        /// The descriptor.
        fd: RawFd,
    },
    /// A descriptor that lodger never added was reported, by a loop that is [`exclusive`](super::Audited::exclusive).
    ReadyUnknown {
        /// The descriptor.
        fd: RawFd,
    },
    /// Readiness was reported that was not watched for. What is reported with a hang-up or an error is never that; an
    /// adapter of a loop that says a hang-up as both directions adds [`Ready::HANG_UP`].
    NotAskedFor {
        /// The descriptor.
        fd: RawFd,
        /// What was reported.
        ready: Ready,
        /// What it is watched for.
        interest: Interest,
    },
    /// The loop went to sleep without a `prepare` after the last use of the context.
    NotPrepared,
    /// The loop went to sleep for longer than `prepare` allowed.
    SleepsTooLong {
        /// What `prepare` allowed.
        allowed: Duration,
        /// What the loop asked the system for; `None` is for ever.
        asked: Option<Duration>,
    },
    /// The loop came back from its sleep late.
    MissedDeadline {
        /// By how much.
        late: Duration,
    },
    /// The deadline passed, and `prepare` came without a `service_timeouts`.
    TimeoutsSkipped {
        /// How long ago it passed.
        late: Duration,
    },
}

/// Who broke the contract.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Blame {
    /// The loop, or the program around it.
    Host,
    /// lodger: a defect to report.
    Lodger,
}

impl Violation {
    /// Who did it.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NeverRemoved { detached: false, .. }
            | Self::ReadyAfterRemove { .. }
            | Self::ReadyUnknown { .. }
            | Self::NotAskedFor { .. }
            | Self::NotPrepared
            | Self::SleepsTooLong { .. }
            | Self::MissedDeadline { .. }
            | Self::TimeoutsSkipped { .. } => Blame::Host,
            Self::AddedTwice { .. }
            | Self::ChangedUnknown { .. }
            | Self::RemovedUnknown { .. }
            | Self::ChangedNothing { .. }
            | Self::WrongPrevious { .. }
            | Self::EmptyInterest { .. }
            | Self::ChangedAfterError { .. }
            | Self::ClosedBeforeRemove { .. }
            | Self::NotCloseOnExec { .. }
            | Self::OutsideLock { .. }
            | Self::WrongScope { .. }
            | Self::LockedTwice
            | Self::UnlockedUnlocked
            | Self::UnlockedOtherScope
            | Self::EmptyBracket
            | Self::LeftLocked
            | Self::NeverRemoved { detached: true, .. }
            | Self::Claimed { .. }
            | Self::Disowned { .. }
            | Self::WrongRevents { .. }
            | Self::Spins { .. }
            | Self::DeadlineSpins { .. } => Blame::Lodger,
        }
    }

    /// The rule that was broken: one of lodger's guarantees, or one of the host's three duties.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::AddedTwice { .. }
            | Self::ChangedUnknown { .. }
            | Self::RemovedUnknown { .. }
            | Self::ChangedNothing { .. }
            | Self::WrongPrevious { .. }
            | Self::ChangedAfterError { .. }
            | Self::ClosedBeforeRemove { .. } => "G2 (bracketed)",
            Self::Claimed { .. } | Self::Disowned { .. } | Self::WrongRevents { .. } => {
                "G3 (level and forgiving)"
            }
            Self::EmptyInterest { .. } | Self::Spins { .. } => "G4 (no spin)",
            Self::DeadlineSpins { .. } => "G5 (one deadline)",
            Self::NeverRemoved { .. } => "G10 (clean exit)",
            Self::NotCloseOnExec { .. } => "G12 (fork-safe)",
            Self::OutsideLock { .. }
            | Self::WrongScope { .. }
            | Self::LockedTwice
            | Self::UnlockedUnlocked
            | Self::UnlockedOtherScope
            | Self::EmptyBracket
            | Self::LeftLocked => "the bracket (Host::lock)",
            Self::NotPrepared | Self::SleepsTooLong { .. } | Self::MissedDeadline { .. } => {
                "duty 1 (prepare, then sleep no longer than it says)"
            }
            Self::ReadyAfterRemove { .. } | Self::ReadyUnknown { .. } | Self::NotAskedFor { .. } => {
                "duty 2 (what is watched, and is ready)"
            }
            Self::TimeoutsSkipped { .. } => "duty 3 (service_timeouts after the sleep)",
        }
    }

    /// The descriptor that it is about, if it is about one.
    pub fn fd(&self) -> Option<RawFd> {
        match *self {
            Self::AddedTwice { fd }
            | Self::ChangedUnknown { fd }
            | Self::RemovedUnknown { fd }
            | Self::ChangedNothing { fd, .. }
            | Self::WrongPrevious { fd, .. }
            | Self::EmptyInterest { fd }
            | Self::ChangedAfterError { fd }
            | Self::ClosedBeforeRemove { fd }
            | Self::NotCloseOnExec { fd }
            | Self::OutsideLock { fd }
            | Self::WrongScope { fd }
            | Self::NeverRemoved { fd, .. }
            | Self::Claimed { fd }
            | Self::Disowned { fd }
            | Self::WrongRevents { fd, .. }
            | Self::Spins { fd, .. }
            | Self::ReadyAfterRemove { fd }
            | Self::ReadyUnknown { fd }
            | Self::NotAskedFor { fd, .. } => Some(fd),
            Self::LockedTwice
            | Self::UnlockedUnlocked
            | Self::UnlockedOtherScope
            | Self::EmptyBracket
            | Self::LeftLocked
            | Self::DeadlineSpins { .. }
            | Self::NotPrepared
            | Self::SleepsTooLong { .. }
            | Self::MissedDeadline { .. }
            | Self::TimeoutsSkipped { .. } => None,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AddedTwice { fd } => write!(f, "descriptor {fd} was added twice"),
            Self::ChangedUnknown { fd } => write!(f, "descriptor {fd} was changed without being added"),
            Self::RemovedUnknown { fd } => write!(f, "descriptor {fd} was removed without being added"),
            Self::ChangedNothing { fd, interest } => {
                write!(f, "descriptor {fd} was changed to {interest:?}, which it had already")
            }
            Self::WrongPrevious { fd, said, known } => {
                write!(f, "the change of descriptor {fd} says that it had {said:?}, and it had {known:?}")
            }
            Self::EmptyInterest { fd } => write!(f, "descriptor {fd} is to be watched for nothing"),
            Self::ChangedAfterError { fd } => {
                write!(f, "descriptor {fd} was changed again after the host refused a change")
            }
            Self::ClosedBeforeRemove { fd } => {
                write!(f, "descriptor {fd} was closed, or its number used again, before its remove")
            }
            Self::NotCloseOnExec { fd } => write!(f, "descriptor {fd} is not close-on-exec"),
            Self::OutsideLock { fd } => {
                write!(f, "a call about descriptor {fd} came outside lock and unlock")
            }
            Self::WrongScope { fd } => {
                write!(f, "descriptor {fd} came or went in a batch that said only interests change")
            }
            Self::LockedTwice => f.write_str("lock was called while locked"),
            Self::UnlockedUnlocked => f.write_str("unlock was called while not locked"),
            Self::UnlockedOtherScope => f.write_str("unlock was called with another scope than lock"),
            Self::EmptyBracket => f.write_str("lock and unlock were called with nothing between them"),
            Self::LeftLocked => f.write_str("the host was left locked"),
            Self::NeverRemoved { fd, detached: true } => {
                write!(f, "descriptor {fd} was not removed on leaving")
            }
            Self::NeverRemoved { fd, detached: false } => {
                write!(f, "descriptor {fd} is still watched: neither detach nor leave was called")
            }
            Self::Claimed { fd } => {
                write!(f, "descriptor {fd}, which is not lodger's, was taken for its own")
            }
            Self::Disowned { fd } => write!(f, "descriptor {fd}, which lodger added, was taken for foreign"),
            Self::WrongRevents { fd, served: Served::Ours } => {
                write!(f, "the revents of descriptor {fd} were not cleared")
            }
            Self::WrongRevents { fd, served: Served::Foreign } => {
                write!(f, "the revents of descriptor {fd}, which is foreign, were touched")
            }
            Self::Spins { fd, ready, turns } => write!(
                f,
                "descriptor {fd} was reported {ready:?} in {turns} waits in a row, and nothing came of it"
            ),
            Self::DeadlineSpins { turns } => {
                write!(f, "no sleep was allowed {turns} times in a row, and nothing came of it")
            }
            Self::ReadyAfterRemove { fd } => {
                write!(f, "descriptor {fd} was reported after a wait that began after its remove")
            }
            Self::ReadyUnknown { fd } => write!(f, "descriptor {fd} was reported, and was never added"),
            Self::NotAskedFor { fd, ready, interest } => {
                write!(f, "descriptor {fd} was reported {ready:?}, and is watched for {interest:?}")
            }
            Self::NotPrepared => {
                f.write_str("the loop goes to sleep without a prepare after the last use of the context")
            }
            Self::SleepsTooLong { allowed, asked: Some(asked) } => {
                write!(f, "the loop sleeps {asked:?}, and prepare allowed {allowed:?}")
            }
            Self::SleepsTooLong { allowed, asked: None } => {
                write!(f, "the loop sleeps for ever, and prepare allowed {allowed:?}")
            }
            Self::MissedDeadline { late } => write!(f, "the loop woke {late:?} after the deadline"),
            Self::TimeoutsSkipped { late } => {
                write!(f, "the deadline passed {late:?} ago, and service_timeouts was not called")
            }
        }
    }
}

impl Error for Violation {}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host",
            Self::Lodger => "lodger",
        })
    }
}
