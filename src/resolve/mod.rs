//! Names and addresses, without ever waiting: what a resolver is, and the one that asks the system.
//!
//! A context asks its [`Resolver`] when it needs the addresses of a name. The default is [`SystemResolver`]. One of your own
//! answers from wherever you like, at once or later; what it has to wait for, it lets the host watch:
//!
//! ```
//! use lodger::resolve::{Action, Found, Hands, Lookup, LookupId, ResolveError, Resolver};
//! use std::collections::HashMap;
//! use std::net::IpAddr;
//! use std::time::Instant;
//!
//! /// Knows the names in a table and no others.
//! struct Table(HashMap<String, Vec<IpAddr>>);
//!
//! impl Resolver for Table {
//!     fn look_up(&mut self, id: LookupId, lookup: &Lookup, hands: &mut Hands<'_>) {
//!         let answer = match lookup {
//!             Lookup::Addresses(name) => match self.0.get(name) {
//!                 Some(addresses) => Ok(Found::Addresses(addresses.clone())),
//!                 None => Err(ResolveError::NotFound),
//!             },
//!             _ => Err(ResolveError::Unsupported),
//!         };
//!         hands.answer(id, answer);
//!     }
//!
//!     fn cancel(&mut self, _id: LookupId, _hands: &mut Hands<'_>) {}
//! }
//!
//! // By hand, as a test does it:
//! let mut table = Table(HashMap::from([("printer".to_owned(), vec![[192, 0, 2, 7].into()])]));
//! let (mut random, mut actions) = (|bytes: &mut [u8]| bytes.fill(4), Vec::new());
//! let mut hands = Hands::new(Instant::now(), &mut random, &mut actions);
//! table.look_up(LookupId::new(1), &Lookup::Addresses("printer".to_owned()), &mut hands);
//! table.look_up(LookupId::new(2), &Lookup::Addresses("scanner".to_owned()), &mut hands);
//! assert!(matches!(&actions[0], Action::Answer(_, Ok(Found::Addresses(found))) if found.len() == 1));
//! assert!(matches!(&actions[1], Action::Answer(_, Err(ResolveError::NotFound))));
//! ```
//!
//! `examples/own_resolver` asks a DNS server by UDP, in the loop.

mod system;

pub use system::SystemResolver;

use crate::host::{Interest, Ready};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

/// Looks up names and addresses without ever waiting.
///
/// Numeric addresses and the names of `localhost` (RFC 6761, section 6.3) never come here. A look-up may be cancelled at any
/// time, and an answer to one that is unknown by then does no harm.
#[doc(alias("getaddrinfo", "LWS_WITH_SYS_ASYNC_DNS", "lws_async_dns_query", "CURLOPT_RESOLVE", "c-ares"))]
pub trait Resolver {
    /// Begins a look-up. The answer may be given at once or later, by [`Hands::answer`] in any of these methods.
    fn look_up(&mut self, id: LookupId, lookup: &Lookup, hands: &mut Hands<'_>);

    /// Nobody waits for the answer any more.
    fn cancel(&mut self, id: LookupId, hands: &mut Hands<'_>);

    /// A descriptor given to [`Hands::watch`] is ready. What is left unread is reported again.
    fn ready(&mut self, fd: RawFd, ready: Ready, hands: &mut Hands<'_>) {
        let _ = (fd, ready, hands);
    }

    /// The time set by [`Hands::wake_at`] has come; no other is set.
    fn due(&mut self, hands: &mut Hands<'_>) {
        let _ = hands;
    }

    /// Gives up its descriptors' numbers in a forked child ([`Context::abandon`](crate::Context::abandon)), where other threads are
    /// not there any more and a lock may never come free. The default drops the resolver.
    #[doc(alias = "fork")]
    fn abandon(self: Box<Self>) {}

    /// A forked child has taken the context over ([`Context::take_over`](crate::Context::take_over)): other threads are not
    /// there any more, and a lock may never come free. What was asked is still to be answered, so a resolver with a thread begins
    /// another and asks again. The default does nothing: sockets are the child's as they were the parent's.
    #[doc(alias = "fork")]
    fn take_over(&mut self, hands: &mut Hands<'_>) {
        let _ = hands;
    }
}

/// What a look-up is known by: eight bytes, `Copy`, `Send` and `Sync`.
///
/// A context's are unlike those of other contexts, as its [`ConnId`](crate::ConnId)s are, so that an answer that goes to the
/// wrong one does no harm. They come again after 4,294,967,296 look-ups.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LookupId(u64);

impl LookupId {
    /// The look-up of this number. A context makes its own; this is for whoever drives a [`Resolver`] by hand.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

/// What is to be looked up.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Lookup {
    /// The addresses of the host of this name. Nothing has been checked: any text may come.
    Addresses(String),
    /// The name of the host that has this address.
    #[doc(alias("getnameinfo", "lws_get_peer_addresses", "reverse"))]
    Name(IpAddr),
}

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Found {
    /// The addresses of a host, the preferred ones first. None at all means [`ResolveError::NotFound`].
    Addresses(Vec<IpAddr>),
    /// The name of a host. Whoever owns the address has chosen it: it proves nothing.
    Name(String),
}

/// Why nothing was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[doc(alias = "gai_strerror")]
pub enum ResolveError {
    /// There is no such name, it has no addresses, or the address has no name.
    #[doc(alias("EAI_NONAME", "EAI_NODATA", "NXDOMAIN"))]
    NotFound,
    /// It cannot be known just now: no name server answers, or the one that does has failed.
    #[doc(alias("EAI_AGAIN", "SERVFAIL"))]
    Again,
    /// Too many look-ups wait for an answer.
    Busy,
    /// No answer came in time.
    TimedOut,
    /// The resolver does not do look-ups of this kind.
    Unsupported,
    /// The context leaves its loop.
    Leaving,
    /// Something else went wrong.
    #[doc(alias("EAI_FAIL", "EAI_SYSTEM"))]
    Failed(Arc<io::Error>),
}

impl ResolveError {
    /// Whether another try, later, may well succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Again | Self::Busy | Self::TimedOut | Self::Failed(_) => true,
            Self::NotFound | Self::Unsupported | Self::Leaving => false,
        }
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found: check how the name is spelled"),
            Self::Again => f.write_str("names cannot be looked up just now: try again later"),
            Self::Busy => f.write_str("too many look-ups wait: try again when some have been answered"),
            Self::TimedOut => f.write_str("no answer in time: try again, or check the name servers"),
            Self::Unsupported => f.write_str("the resolver does not do look-ups of this kind: use another"),
            Self::Leaving => f.write_str("the context leaves its loop"),
            Self::Failed(error) => write!(f, "look-up failed: {error}"),
        }
    }
}

impl std::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(&**error),
            Self::NotFound | Self::Again | Self::Busy | Self::TimedOut => None,
            Self::Unsupported | Self::Leaving => None,
        }
    }
}

impl From<io::Error> for ResolveError {
    fn from(error: io::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}

/// What a resolver works with: the time, randomness, and what it wants done.
pub struct Hands<'a> {
    now: Instant,
    random: &'a mut dyn FnMut(&mut [u8]),
    actions: &'a mut Vec<Action>,
}

impl<'a> Hands<'a> {
    /// Hands that note in `actions` what the resolver wants done. A context makes its own; this is for whoever drives a
    /// [`Resolver`] by hand: its tests, or another resolver in front of it.
    pub fn new(now: Instant, random: &'a mut dyn FnMut(&mut [u8]), actions: &'a mut Vec<Action>) -> Self {
        Self { now, random, actions }
    }

    /// The time, the same throughout one call.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Fills `bytes` from a source that nobody can predict (RFC 5452, section 9.2).
    pub fn random(&mut self, bytes: &mut [u8]) {
        (self.random)(bytes);
    }

    /// Answers a look-up. Of several answers to one, the first stands.
    pub fn answer(&mut self, id: LookupId, answer: Result<Found, ResolveError>) {
        self.actions.push(Action::Answer(id, answer));
    }

    /// Lets the host watch `fd` from now on, level-triggered; a second time, for this interest instead. Watching for nothing
    /// is not watching.
    ///
    /// A duplicate is watched, so that the resolver keeps its own; [`Resolver::ready`] is told the number given here. Say
    /// [`unwatch`](Self::unwatch) before closing it, since the number may come back as something else's.
    ///
    /// # Errors
    ///
    /// The descriptor could not be duplicated, most often because the process may open no more (`EMFILE`).
    pub fn watch(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let number = fd.as_raw_fd();
        if interest.is_none() {
            self.unwatch(number);
        } else {
            let descriptor = fd.try_clone_to_owned()?;
            self.actions.push(Action::Watch { number, descriptor, interest });
        }
        Ok(())
    }

    /// Ends the watching of the descriptor that had this number. One that is not watched does no harm.
    pub fn unwatch(&mut self, fd: RawFd) {
        self.actions.push(Action::Unwatch(fd));
    }

    /// Sets when [`Resolver::due`] is called, once; the time set before is forgotten. `None`: not at all.
    pub fn wake_at(&mut self, at: Option<Instant>) {
        self.actions.push(Action::WakeAt(at));
    }
}

impl fmt::Debug for Hands<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hands")
            .field("now", &self.now)
            .field("actions", &self.actions)
            .finish_non_exhaustive()
    }
}

/// What a resolver wants done, in the order in which it said so: see the methods of [`Hands`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Action {
    /// A look-up is answered.
    Answer(LookupId, Result<Found, ResolveError>),
    /// A descriptor is to be watched, for this interest and no other.
    Watch {
        /// The number that the resolver knows it by.
        number: RawFd,
        /// The duplicate that is watched.
        descriptor: OwnedFd,
        /// What for; never nothing.
        interest: Interest,
    },
    /// The descriptor of this number is to be watched no more.
    Unwatch(RawFd),
    /// The time at which the resolver is to be called, instead of any set before.
    WakeAt(Option<Instant>),
}

/// What is known of a name without asking anybody: it is an address, or `localhost` or a name below it, which no
/// name server may be asked for (RFC 6761, section 6.3).
pub(crate) fn known(name: &str) -> Option<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Some(vec![address]);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next()?;
    let labels_are_there = !name.starts_with('.') && !name.contains("..");
    (last.eq_ignore_ascii_case("localhost") && labels_are_there)
        .then(|| vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()])
}

#[cfg(test)]
#[path = "../../examples/own_resolver/dns.rs"]
mod dns;
#[cfg(test)]
mod dns_tests;
#[cfg(test)]
mod rig;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn addresses_are_known_as_they_are() {
        for text in ["127.0.0.1", "192.0.2.1", "::1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0"] {
            assert_eq!(known(text), Some(vec![text.parse().unwrap()]), "{text}");
        }
    }

    #[test]
    fn localhost_and_the_names_below_it_are_loopback() {
        let loopback: Vec<IpAddr> = vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
        for name in ["localhost", "LocalHost", "localhost.", "a.localhost", "a.b.LOCALHOST."] {
            assert_eq!(known(name).as_ref(), Some(&loopback), "{name}");
        }
    }

    #[test]
    fn all_other_names_are_the_resolvers() {
        for name in [
            "",
            ".",
            "localhost..",
            ".localhost",
            "a..localhost",
            "xlocalhost",
            "localhost.example",
            "example.org",
            "127.1",
            "1",
            "[::1]",
            "fe80::1%lo",
            "127.0.0.1.",
        ] {
            assert_eq!(known(name), None, "{name}");
        }
    }

    #[test]
    fn a_descriptor_is_watched_by_a_duplicate_that_programs_started_later_do_not_get() {
        let (end, _other) = std::io::pipe().unwrap();
        let mut actions = Vec::new();
        let mut random = |_: &mut [u8]| {};
        let mut hands = Hands::new(crate::env::system_now(), &mut random, &mut actions);
        hands.watch(end.as_fd(), Interest::READ).unwrap();
        hands.watch(end.as_fd(), Interest::NONE).unwrap();
        let [Action::Watch { number, descriptor, interest: Interest::READ }, Action::Unwatch(gone)] =
            &actions[..]
        else {
            panic!("{actions:?}");
        };
        assert_eq!((*number, *gone), (end.as_raw_fd(), end.as_raw_fd()));
        assert_ne!(descriptor.as_raw_fd(), *number);
        let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn an_error_keeps_its_cause() {
        let error = ResolveError::from(io::Error::from(io::ErrorKind::OutOfMemory));
        let source = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::OutOfMemory));
        assert!(std::error::Error::source(&ResolveError::NotFound).is_none());
    }
}
