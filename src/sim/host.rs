//! The host of a simulated loop: keeps what is watched, and holds lodger to its side of the contract.

use super::network::Network;
use crate::{Interest, Ready, Scope};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// The host of a [`Loop`](super::Loop). It panics where lodger breaks the contract that [`Host`](crate::Host) is.
pub struct Host {
    network: Network,
    /// By when they were added, which no number of a descriptor changes.
    watched: BTreeMap<u64, Watched>,
    additions: u64,
    changes: Vec<Change>,
    locked: Option<Scope>,
    said_in_lock: bool,
    pub(super) failing_adds: u32,
    pub(super) failing_changes: u32,
    pub(super) wake_ups: u64,
    /// Numbers that were removed lately.
    pub(super) removed: VecDeque<RawFd>,
}

#[derive(Clone, Copy)]
struct Watched {
    fd: RawFd,
    interest: Interest,
}

/// What lodger told the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// Watch this descriptor for this.
    Add(RawFd, Interest),
    /// Watch it for this instead.
    Change(RawFd, Interest),
    /// Watch it no more.
    Remove(RawFd),
}

impl Host {
    pub(super) fn new(network: Network) -> Self {
        Self {
            network,
            watched: BTreeMap::new(),
            additions: 0,
            changes: Vec::new(),
            locked: None,
            said_in_lock: false,
            failing_adds: 0,
            failing_changes: 0,
            wake_ups: 0,
            removed: VecDeque::new(),
        }
    }

    /// What `fd` is watched for, if it is watched.
    pub fn interest(&self, fd: RawFd) -> Option<Interest> {
        self.find(fd).map(|(_, watched)| watched.interest)
    }

    /// Everything that is watched, in the order in which it was added.
    pub fn watched(&self) -> impl Iterator<Item = (RawFd, Interest)> {
        self.watched.values().map(|watched| (watched.fd, watched.interest))
    }

    /// What lodger has said since the beginning, or since it was last [taken](Self::take_changes).
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Takes what lodger has said.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The next `count` descriptors are refused.
    pub fn fail_adds(&mut self, count: u32) {
        self.failing_adds = count;
    }

    /// The next `count` changes are refused.
    pub fn fail_changes(&mut self, count: u32) {
        self.failing_changes = count;
    }

    /// How often the loop came back from its sleep. An idle context leaves this alone.
    pub fn wake_ups(&self) -> u64 {
        self.wake_ups
    }

    /// What a level-triggered poll would report, in the order of addition.
    pub(super) fn ready(&self) -> Vec<(RawFd, Ready)> {
        let reported = |(fd, interest)| (fd, reported(self.network.ready(fd), interest));
        self.watched().map(reported).filter(|(_, ready)| !ready.is_none()).collect()
    }

    fn find(&self, fd: RawFd) -> Option<(u64, Watched)> {
        self.watched.iter().find(|(_, watched)| watched.fd == fd).map(|(at, watched)| (*at, *watched))
    }

    /// The name of `fd` in the log, for which it must be open, and the lock be held.
    fn check(&mut self, what: &str, fd: RawFd, scope: Scope) -> u64 {
        let Some(serial) = self.network.serial(fd) else {
            panic!("{what} of a descriptor that is not open: {fd}");
        };
        match self.locked {
            None => panic!("{what} of #{serial} outside lock and unlock"),
            Some(Scope::Interests) if scope == Scope::Descriptors => {
                panic!("{what} of #{serial} in a batch that was announced to change interests only")
            }
            Some(_) => self.said_in_lock = true,
        }
        self.network.state().log.line(format_args!("{what}: #{serial}"));
        serial
    }

    fn fails(&self, probability: f64) -> bool {
        self.network.state().odds.random.chance(probability)
    }
}

impl crate::Host for Host {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        let serial = self.check("add", fd, Scope::Descriptors);
        assert!(!interest.is_none(), "add of #{serial} for nothing");
        assert!(self.find(fd).is_none(), "second add of #{serial}");
        let probability = self.network.state().odds.chaos.failing_adds;
        if self.failing_adds > 0 || self.fails(probability) {
            self.failing_adds = self.failing_adds.saturating_sub(1);
            self.network.state().log.line(format_args!("add of #{serial} fails"));
            return Err(io::Error::other("simulated: the host has no room"));
        }
        self.additions += 1;
        self.watched.insert(self.additions, Watched { fd, interest });
        self.network.watch(fd);
        self.changes.push(Change::Add(fd, interest));
        Ok(())
    }

    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        let serial = self.check("change", fd, Scope::Interests);
        let Some((at, watched)) = self.find(fd) else { panic!("change of #{serial}, which is not watched") };
        assert_eq!(watched.interest, previous, "change of #{serial} from what it was not watched for");
        assert!(
            previous != interest && !interest.is_none(),
            "change of #{serial} from {previous:?} to {interest:?}"
        );
        let probability = self.network.state().odds.chaos.failing_changes;
        if self.failing_changes > 0 || self.fails(probability) {
            self.failing_changes = self.failing_changes.saturating_sub(1);
            self.network.state().log.line(format_args!("change of #{serial} fails"));
            return Err(io::Error::other("simulated: the host refuses the change"));
        }
        self.watched.insert(at, Watched { fd, interest });
        self.changes.push(Change::Change(fd, interest));
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        let fd = fd.as_raw_fd();
        let serial = self.check("remove", fd, Scope::Descriptors);
        let Some((at, _)) = self.find(fd) else { panic!("remove of #{serial}, which is not watched") };
        self.watched.remove(&at);
        self.network.unwatch(fd);
        self.changes.push(Change::Remove(fd));
        self.removed.push_front(fd);
        self.removed.truncate(REMEMBERED);
    }

    fn lock(&mut self, scope: Scope) {
        assert!(self.locked.is_none(), "lock inside lock");
        self.locked = Some(scope);
        self.said_in_lock = false;
    }

    fn unlock(&mut self, scope: Scope) {
        assert_eq!(self.locked.take(), Some(scope), "unlock of what was not locked");
        assert!(self.said_in_lock, "a batch with nothing in it");
    }
}

/// What a poll reports of what is there: what is watched, and what cannot be masked.
fn reported(ready: Ready, interest: Interest) -> Ready {
    let flags = [
        (interest.is_readable(), Ready::READ),
        (interest.is_writable(), Ready::WRITE),
        (true, Ready::HANG_UP),
        (true, Ready::ERROR),
    ];
    let there = flags.iter().filter(|(seen, flag)| *seen && ready.contains(*flag));
    there.fold(Ready::NONE, |seen, (_, flag)| seen.with(*flag))
}

const REMEMBERED: usize = 16;
