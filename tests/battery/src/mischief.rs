//! A loop that misbehaves.

use crate::State;
use lodger::{Host, Interest, Ready, Scope};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A host whose readiness comes late, twice, not at all until the next time, or for nothing, and whose `add` fails when it is
/// told to. All of it is the same in each run.
///
/// Its audit reports and does not panic, and whatever it reports is the host's fault:
///
/// ```
/// use lodger::audit::{Audited, Blame};
/// use lodger_battery::{Mischief, State};
/// use lodger_poll::PollArray;
///
/// fn house(state: &State) -> Audited<Mischief<PollArray>> {
///     let host = Mischief::new(PollArray::new(), state);
///     Audited::reporting(host, |violation| assert_eq!(violation.blame(), Blame::Host, "{violation}"))
/// }
/// ```
#[derive(Debug)]
pub struct Mischief<H> {
    /// The host inside.
    pub host: H,
    refusals: Arc<AtomicUsize>,
    dice: u64,
    late: Vec<(RawFd, Ready)>,
    seen: RawFd,
}

impl<H> Mischief<H> {
    /// A host that does as the cases, by way of `state`, want it to.
    pub fn new(host: H, state: &State) -> Self {
        Self { host, refusals: state.refusals(), dice: 0x9e37_79b9_7f4a_7c15, late: Vec::new(), seen: 0 }
    }

    /// What the loop is to pass on, instead of what it found ready.
    pub fn distort(&mut self, ready: impl IntoIterator<Item = (RawFd, Ready)>) -> Vec<(RawFd, Ready)> {
        let mut passed = std::mem::take(&mut self.late);
        for (fd, ready) in ready {
            match self.roll(8) {
                0 => self.late.push((fd, ready)),
                1 => passed.extend([(fd, ready), (fd, ready)]),
                2 => {}
                3 => {
                    passed.push((fd, ready));
                    self.late.push((fd, ready));
                }
                4 => passed.extend([(self.seen, Ready::READ.with(Ready::WRITE)), (fd, ready)]),
                5 => passed.extend([(fd, ready), (fd, Ready::WRITE), (fd + 1, Ready::HANG_UP)]),
                _ => passed.push((fd, ready)),
            }
            self.seen = fd;
        }
        passed
    }

    /// xorshift64.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }
}

impl<H: Host> Host for Mischief<H> {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.host.add(fd, interest)
    }

    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()> {
        self.host.change(fd, previous, interest)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        // Of every other one it is too late to take back what is on its way.
        self.late.retain(|(late, _)| *late != fd.as_raw_fd() || late % 2 == 0);
        self.host.remove(fd);
    }

    fn lock(&mut self, scope: Scope) {
        self.host.lock(scope);
    }

    fn unlock(&mut self, scope: Scope) {
        self.host.unlock(scope);
    }
}
