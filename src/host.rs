//! The contract with the loop: what a host implements, and the values that cross between the two.
//!
//! A host tells the operating system which descriptors to watch; lodger tells the host. The smallest one keeps a list:
//!
//! ```
//! use lodger::{Host, Interest};
//! use std::io;
//! use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
//!
//! #[derive(Default)]
//! struct Watched(Vec<(RawFd, Interest)>);
//!
//! impl Host for Watched {
//!     fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
//!         self.0.push((fd.as_raw_fd(), interest));
//!         Ok(())
//!     }
//!     fn change(&mut self, fd: BorrowedFd<'_>, _previous: Interest, interest: Interest) -> io::Result<()> {
//!         let entry = self.0.iter_mut().find(|(known, _)| *known == fd.as_raw_fd());
//!         entry.ok_or(io::ErrorKind::NotFound)?.1 = interest;
//!         Ok(())
//!     }
//!     fn remove(&mut self, fd: BorrowedFd<'_>) {
//!         self.0.retain(|(known, _)| *known != fd.as_raw_fd());
//!     }
//! }
//! ```

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// The host: what lodger tells the loop. Its methods are called from [`Context::prepare`](crate::Context::prepare),
/// [`Context::detach`](crate::Context::detach) and [`Context::leave`](crate::Context::leave), and from nowhere else.
///
/// Per registration there is one `add`, a `change` only when the interest really differs, and one `remove`, which
/// returns before the descriptor is closed. Nothing is said about a descriptor that was never added. The host watches
/// level-triggered, or behaves as if it did.
///
/// A host gets no reference to the context, and must not unwind. The descriptor stays open until `remove` has
/// returned, which is the promise that a host built on unsafe system interfaces relies on; such a type is private to its
/// adapter, so that nobody else calls these methods.
#[doc(alias("LWS_CALLBACK_ADD_POLL_FD", "external_poll", "CURLMOPT_SOCKETFUNCTION"))]
pub trait Host {
    /// Watches `fd` for `interest`, which is never empty, from now on.
    ///
    /// # Errors
    ///
    /// An error ends the link that the descriptor belongs to ([`CloseReason::Host`](crate::CloseReason::Host)); no `remove`
    /// follows. Accepting goes on, and the wake-up descriptor is tried again.
    #[doc(alias = "LWS_CALLBACK_ADD_POLL_FD")]
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()>;

    /// Watches `fd`, added before, for `interest` instead of `previous`; they differ, and neither is empty.
    ///
    /// A host that keeps a mask of its own asks [`Interest::set_bits`] and [`Interest::clear_bits`].
    ///
    /// # Errors
    ///
    /// An error ends the link; `remove` follows, since the descriptor was added.
    #[doc(alias(
        "LWS_CALLBACK_CHANGE_MODE_POLL_FD",
        "LWS_CALLBACK_SET_MODE_POLL_FD",
        "LWS_CALLBACK_CLEAR_MODE_POLL_FD"
    ))]
    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()>;

    /// Stops watching `fd`. After this returns, lodger may close it.
    #[doc(alias = "LWS_CALLBACK_DEL_POLL_FD")]
    fn remove(&mut self, fd: BorrowedFd<'_>);

    /// Called before a batch of the above, and never when there is nothing to say. Where other threads read the host's
    /// table, it keeps them out from here to [`unlock`](Self::unlock).
    #[doc(alias = "LWS_CALLBACK_LOCK_POLL")]
    fn lock(&mut self, scope: Scope) {
        let _ = scope;
    }

    /// Called after the batch, with the scope that `lock` was given.
    #[doc(alias = "LWS_CALLBACK_UNLOCK_POLL")]
    fn unlock(&mut self, scope: Scope) {
        let _ = scope;
    }
}

impl<H: Host + ?Sized> Host for &mut H {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        (**self).add(fd, interest)
    }

    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()> {
        (**self).change(fd, previous, interest)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        (**self).remove(fd);
    }

    fn lock(&mut self, scope: Scope) {
        (**self).lock(scope);
    }

    fn unlock(&mut self, scope: Scope) {
        (**self).unlock(scope);
    }
}

/// What a batch of changes does to the host's table.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scope {
    /// Only what is watched for changes, not which descriptors there are (0 in libwebsockets).
    Interests,
    /// Descriptors come or go (1 in libwebsockets).
    Descriptors,
}

/// What a descriptor is watched for. Hang-up and errors are always reported, whatever the interest.
// The bits are those of poll(2).
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Interest(u8);

impl Interest {
    /// Nothing. A host never gets it: a descriptor of which nothing is wanted is removed.
    pub const NONE: Self = Self(0);
    /// Readable (`POLLIN`, `EPOLLIN`).
    pub const READ: Self = Self(1);
    /// Writable (`POLLOUT`, `EPOLLOUT`).
    pub const WRITE: Self = Self(4);
    /// Readable and writable.
    pub const BOTH: Self = Self(5);

    /// Whether readability is watched.
    pub const fn is_readable(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether writability is watched.
    pub const fn is_writable(self) -> bool {
        self.0 & 4 != 0
    }

    /// Whether nothing is watched.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// What is in either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this one and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What this interest has and `previous` had not: the bits that a host with a mask of its own sets.
    #[doc(alias = "LWS_CALLBACK_SET_MODE_POLL_FD")]
    #[must_use]
    pub const fn set_bits(self, previous: Self) -> Self {
        self.without(previous)
    }

    /// What `previous` had and this interest has not: the bits that a host with a mask of its own clears.
    #[doc(alias = "LWS_CALLBACK_CLEAR_MODE_POLL_FD")]
    #[must_use]
    pub const fn clear_bits(self, previous: Self) -> Self {
        previous.without(self)
    }

    /// The interest as the bits of `poll(2)`: `POLLIN` (1) and `POLLOUT` (4).
    pub const fn poll_events(self) -> i16 {
        self.0 as i16
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "NONE",
            1 => "READ",
            4 => "WRITE",
            _ => "BOTH",
        })
    }
}

/// What a loop reports of a descriptor.
// The bits are those of poll(2).
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Ready(u8);

impl Ready {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Readable (`POLLIN`).
    pub const READ: Self = Self(1);
    /// Writable (`POLLOUT`).
    pub const WRITE: Self = Self(4);
    /// The peer hung up (`POLLHUP`).
    pub const HANG_UP: Self = Self(0x10);
    /// An error waits (`POLLERR`), or the loop reports one in its own way (`POLLNVAL`, libuv's `status < 0`).
    pub const ERROR: Self = Self(8);

    /// What is in either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is reported.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether reading is worth a try: readable, hung up or failed. The system call tells the truth.
    pub const fn is_readable(self) -> bool {
        self.0 & (1 | 8 | 0x10) != 0
    }

    /// Whether writing is worth a try: writable, hung up or failed.
    pub const fn is_writable(self) -> bool {
        self.0 & (4 | 8 | 0x10) != 0
    }

    /// From the bits of `poll(2)`: `POLLIN`, `POLLOUT`, `POLLERR`, `POLLHUP`, `POLLNVAL`; others are left out.
    pub const fn from_poll_revents(revents: i16) -> Self {
        // POLLIN 0x1, POLLPRI 0x2, POLLOUT 0x4, POLLERR 0x8, POLLHUP 0x10, POLLNVAL 0x20 on every system that has poll(2).
        Self((revents & 0x1d | (revents & 0x20) >> 2) as u8)
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = f.debug_set();
        for (flag, name) in [(1, "READ"), (4, "WRITE"), (0x10, "HANG_UP"), (8, "ERROR")] {
            if self.0 & flag != 0 {
                names.entry(&format_args!("{name}"));
            }
        }
        names.finish()
    }
}

/// What [`Context::service_fd`](crate::Context::service_fd) takes: an entry of a poll array.
///
/// lodger's own [`PollFd`] is one; with the feature `libc`, so is `libc::pollfd`, in place and uncopied.
pub trait Pollable {
    /// The descriptor's number. Any value is harmless: negative, closed, foreign or enormous.
    fn fd(&self) -> RawFd;
    /// What the loop reported. Nothing else of the entry is read.
    fn revents(&self) -> Ready;
    /// Sets `revents` to nothing: lodger has handled it.
    fn clear(&mut self);
}

/// A descriptor and what the loop reported of it, for loops that have no array of their own.
///
/// ```
/// use lodger::{PollFd, Pollable, Ready};
///
/// let mut reported = PollFd::new(7, Ready::READ.with(Ready::HANG_UP));
/// assert!(reported.revents().is_readable());
/// reported.clear();
/// assert!(reported.revents().is_none());
/// ```
#[doc(alias("lws_pollfd", "pollfd"))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PollFd {
    fd: RawFd,
    revents: Ready,
}

impl PollFd {
    /// `fd` with what the loop reported of it.
    pub const fn new(fd: RawFd, revents: Ready) -> Self {
        Self { fd, revents }
    }
}

impl Pollable for PollFd {
    fn fd(&self) -> RawFd {
        self.fd
    }

    fn revents(&self) -> Ready {
        self.revents
    }

    fn clear(&mut self) {
        self.revents = Ready::NONE;
    }
}

#[cfg(feature = "libc")]
impl Pollable for libc::pollfd {
    fn fd(&self) -> RawFd {
        self.fd
    }

    fn revents(&self) -> Ready {
        Ready::from_poll_revents(self.revents)
    }

    fn clear(&mut self) {
        self.revents = 0;
    }
}

/// Whose descriptor it was.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[must_use = "a foreign descriptor is the host's to handle"]
pub enum Served {
    /// lodger's: it was served, and `revents` is zero now.
    Ours,
    /// Not lodger's: nothing was touched.
    Foreign,
}

/// How long the loop may sleep.
///
/// ```
/// use lodger::Wait;
/// assert_eq!(Wait::FOREVER.poll_millis(), -1);
/// assert_eq!(Wait::NOW.poll_millis(), 0);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "the loop must not sleep longer than this"]
#[doc(alias("lws_service_adjust_timeout", "CURLMOPT_TIMERFUNCTION"))]
pub struct Wait(Until);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Until {
    Forever,
    Now,
    /// The deadline, and the time it is now where that is not the system's to say.
    Deadline(Instant, Option<Instant>),
}

impl Wait {
    /// No deadline: lodger needs no wake-up but readiness.
    pub const FOREVER: Self = Self(Until::Forever);
    /// Work waits: the loop looks at its descriptors without sleeping, then calls
    /// [`Context::service_timeouts`](crate::Context::service_timeouts).
    pub const NOW: Self = Self(Until::Now);

    /// Until `deadline`. `simulated_now` is given where time is simulated.
    pub(crate) fn until(deadline: Instant, simulated_now: Option<Instant>) -> Self {
        Self(Until::Deadline(deadline, simulated_now))
    }

    /// Whether lodger asks to be called without any sleep.
    pub fn is_now(self) -> bool {
        self.0 == Until::Now
    }

    /// When lodger needs to run, for loops that keep absolute timers. `None` when there is no such time: either no
    /// wake-up is needed at all, or it is needed at once, which [`is_now`](Self::is_now) tells.
    pub fn instant(self) -> Option<Instant> {
        match self.0 {
            Until::Deadline(at, _) => Some(at),
            Until::Forever | Until::Now => None,
        }
    }

    /// How long the loop may sleep from now; `None` is for ever. Reads the clock only when there is a deadline.
    pub fn duration(self) -> Option<Duration> {
        match self.0 {
            Until::Forever => None,
            Until::Now => Some(Duration::ZERO),
            Until::Deadline(at, now) => {
                let now = now.unwrap_or_else(crate::env::system_now);
                Some(at.saturating_duration_since(now))
            }
        }
    }

    /// The same as the timeout that `poll(2)` and `epoll_wait(2)` take: milliseconds, rounded up so that the loop does not
    /// wake early and spin; -1 is for ever.
    #[inline]
    pub fn poll_millis(self) -> i32 {
        match self.0 {
            Until::Forever => -1,
            Until::Now => 0,
            Until::Deadline(..) => self.millis_until(),
        }
    }

    #[inline(never)]
    fn millis_until(self) -> i32 {
        let nanos = self.duration().map_or(u128::MAX, |wait| wait.as_nanos());
        i32::try_from(nanos.div_ceil(1_000_000)).unwrap_or(i32::MAX)
    }

    /// The sooner of this and `other`, for a host with timers of its own or with several contexts.
    pub fn sooner(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Until::Now, _) | (_, Until::Now) => Self::NOW,
            (Until::Forever, _) => other,
            (_, Until::Forever) => self,
            (Until::Deadline(a, _), Until::Deadline(b, _)) => {
                if b < a {
                    other
                } else {
                    self
                }
            }
        }
    }
}

impl From<Duration> for Wait {
    /// A wait of `duration` from now, for a host that has a limit of its own: `wait.sooner(duration.into())`.
    fn from(duration: Duration) -> Self {
        crate::env::system_now().checked_add(duration).map_or(Self::FOREVER, |at| Self::until(at, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_as_bits_to_set_and_bits_to_clear() {
        assert_eq!(Interest::BOTH.set_bits(Interest::READ), Interest::WRITE);
        assert_eq!(Interest::READ.clear_bits(Interest::BOTH), Interest::WRITE);
        assert_eq!(Interest::READ.set_bits(Interest::READ), Interest::NONE);
    }

    #[test]
    fn bits_of_poll_carry_over_one_to_one() {
        assert_eq!(Interest::BOTH.poll_events(), 0x5);
        assert_eq!(Ready::from_poll_revents(0x1), Ready::READ);
        assert_eq!(Ready::from_poll_revents(0x4), Ready::WRITE);
        assert_eq!(Ready::from_poll_revents(0x8), Ready::ERROR);
        assert_eq!(Ready::from_poll_revents(0x10), Ready::HANG_UP);
        assert_eq!(Ready::from_poll_revents(0x20), Ready::ERROR);
        assert_eq!(Ready::from_poll_revents(0x2), Ready::NONE);
    }

    #[test]
    fn a_wait_rounds_up_and_never_to_zero() {
        let now = crate::env::system_now();
        let wait = Wait::until(now + Duration::from_micros(1), Some(now));
        assert_eq!(wait.poll_millis(), 1);
        let passed = Wait::until(now, Some(now + Duration::from_secs(1)));
        assert_eq!(passed.poll_millis(), 0);
    }

    #[test]
    fn the_sooner_wait_wins() {
        let now = crate::env::system_now();
        let (near, far) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        let (near, far) = (Wait::until(near, Some(now)), Wait::until(far, Some(now)));
        assert_eq!(far.sooner(near), near);
        assert_eq!(Wait::FOREVER.sooner(far), far);
        assert_eq!(far.sooner(Wait::NOW), Wait::NOW);
    }
}
