//! The system's resolver, which waits, and the thread that does the waiting.

use super::{Found, Hands, Lookup, LookupId, ResolveError, Resolver};
use crate::host::{Interest, Ready};
use crate::net::{Net, Signal};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A name has no more bytes than that (RFC 1035, section 2.3.4), with the dot at its end.
const NAME_MAX: usize = 254;

/// Asks the system as every other program does, by `getaddrinfo`: `/etc/hosts`, `nsswitch.conf` and search lists hold.
///
/// That call waits, so a thread of its own makes it, one look-up at a time, started at the first that needs it. It is called
/// `lodger-names`, and ends when the resolver is dropped, or once the call that it is in has returned; nobody waits for
/// that. Its mask of blocked signals is that of the thread that serves the context, so that signals which are
/// blocked there for a `signalfd` or for `ppoll` go where they went before.
///
/// The same question asked by many at once is asked once, and answers are kept for a while. Names of addresses are looked up
/// with the feature `peer-names`, and are [`Unsupported`](ResolveError::Unsupported) without.
///
/// ```
/// use lodger::resolve::SystemResolver;
/// use std::time::Duration;
///
/// let resolver = SystemResolver::new().queue(256).keep_found(Duration::from_secs(5));
/// ```
#[doc(alias("getaddrinfo", "getnameinfo", "CURLOPT_DNS_CACHE_TIMEOUT", "CURL_ASYNC"))]
pub struct SystemResolver {
    ask: Arc<Ask>,
    start: Start,
    thread: Option<Thread>,
    /// Who waits for what was asked.
    waiting: HashMap<Lookup, Vec<LookupId>>,
    queue: usize,
    cache: Cache,
}

type Answer = Result<Found, ResolveError>;
type Ask = dyn Fn(&Lookup) -> Answer + Send + Sync;
type Start = fn(Box<dyn FnOnce() + Send>) -> io::Result<()>;

impl SystemResolver {
    /// The system's resolver with the defaults: 64 questions at once, 256 answers kept, for 30 s or, when nothing was found, for
    /// 2 s.
    pub fn new() -> Self {
        Self {
            ask: Arc::new(ask_system),
            start: start_thread,
            thread: None,
            waiting: HashMap::new(),
            queue: 64,
            cache: Cache {
                answers: HashMap::new(),
                most: 256,
                found: Duration::from_secs(30),
                not_found: Duration::from_secs(2),
            },
        }
    }

    /// How many different questions may wait for an answer, the one being asked included; 64 unless given. What comes beyond
    /// is [`Busy`](ResolveError::Busy).
    #[must_use]
    pub fn queue(mut self, questions: usize) -> Self {
        self.queue = questions;
        self
    }

    /// How many answers are kept at most; 256 unless given, 0 for none. The ones that expire first make room.
    #[must_use]
    pub fn keep(mut self, answers: usize) -> Self {
        self.cache.most = answers;
        self
    }

    /// For how long what was found is kept; 30 s unless given, zero for not at all. The system does not tell for how long it
    /// may be (the time to live of RFC 1035), so keep this short.
    #[doc(alias = "CURLOPT_DNS_CACHE_TIMEOUT")]
    #[must_use]
    pub fn keep_found(mut self, time: Duration) -> Self {
        self.cache.found = time;
        self
    }

    /// For how long it is kept that there is no such name; 2 s unless given, zero for not at all. Other failures are never kept.
    #[must_use]
    pub fn keep_not_found(mut self, time: Duration) -> Self {
        self.cache.not_found = time;
        self
    }

    /// One that puts its questions to `ask` instead of the system.
    #[cfg(test)]
    fn asking(ask: impl Fn(&Lookup) -> Answer + Send + Sync + 'static) -> Self {
        Self { ask: Arc::new(ask), ..Self::new() }
    }

    fn begin(&mut self, id: LookupId, lookup: Lookup, hands: &mut Hands<'_>) -> Result<(), ResolveError> {
        if let Some(askers) = self.waiting.get_mut(&lookup) {
            askers.push(id);
            return Ok(());
        }
        if self.waiting.len() >= self.queue {
            return Err(ResolveError::Busy);
        }
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => none.insert(Thread::start(&self.ask, self.start, hands)?),
        };
        thread.desk.ask(&lookup);
        self.waiting.insert(lookup, vec![id]);
        Ok(())
    }
}

impl Resolver for SystemResolver {
    fn look_up(&mut self, id: LookupId, lookup: &Lookup, hands: &mut Hands<'_>) {
        let lookup = match lookup {
            Lookup::Addresses(name) if name.len() > NAME_MAX => {
                return hands.answer(id, Err(ResolveError::NotFound));
            }
            Lookup::Name(_) if !cfg!(feature = "peer-names") => {
                return hands.answer(id, Err(ResolveError::Unsupported));
            }
            Lookup::Addresses(name) => Lookup::Addresses(name.to_ascii_lowercase()),
            Lookup::Name(address) => Lookup::Name(*address),
        };
        if let Some(answer) = self.cache.get(&lookup, hands.now()) {
            hands.answer(id, answer);
        } else if let Err(error) = self.begin(id, lookup, hands) {
            hands.answer(id, Err(error));
        }
    }

    fn cancel(&mut self, id: LookupId, _hands: &mut Hands<'_>) {
        let Some((lookup, askers)) = self.waiting.iter_mut().find(|(_, askers)| askers.contains(&id)) else {
            return;
        };
        askers.retain(|asker| *asker != id);
        if askers.is_empty() {
            let lookup = lookup.clone();
            self.waiting.remove(&lookup);
            if let Some(thread) = &self.thread {
                thread.desk.take_back(&lookup);
            }
        }
    }

    fn ready(&mut self, _fd: RawFd, _ready: Ready, hands: &mut Hands<'_>) {
        let Some(thread) = &self.thread else {
            return;
        };
        // Drained first: what is answered from here on raises the signal again.
        Net::System.drain_wake_up(thread.wake.as_fd());
        for (lookup, answer) in thread.desk.take_answers() {
            for id in self.waiting.remove(&lookup).unwrap_or_default() {
                hands.answer(id, answer.clone());
            }
            self.cache.keep(lookup, &answer, hands.now());
        }
    }

    fn abandon(mut self: Box<Self>) {
        if let Some(thread) = &mut self.thread {
            thread.is_gone = true;
        }
    }

    fn take_over(&mut self, hands: &mut Hands<'_>) {
        let Some(mut gone) = self.thread.take() else {
            return;
        };
        gone.is_gone = true;
        hands.unwatch(gone.wake.as_raw_fd());
        if self.waiting.is_empty() {
            return;
        }
        match Thread::start(&self.ask, self.start, hands) {
            Ok(thread) => {
                let thread = self.thread.insert(thread);
                self.waiting.keys().for_each(|lookup| thread.desk.ask(lookup));
            }
            Err(error) => {
                let error = ResolveError::from(error);
                let askers = self.waiting.drain().flat_map(|(_, askers)| askers);
                askers.for_each(|id| hands.answer(id, Err(error.clone())));
            }
        }
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemResolver")
            .field("waiting", &self.waiting.len())
            .field("kept", &self.cache.answers.len())
            .finish_non_exhaustive()
    }
}

/// The answers that are kept.
struct Cache {
    answers: HashMap<Lookup, Kept>,
    most: usize,
    found: Duration,
    not_found: Duration,
}

struct Kept {
    until: Instant,
    /// `None`: there is no such name.
    found: Option<Found>,
}

impl Cache {
    fn get(&mut self, lookup: &Lookup, now: Instant) -> Option<Answer> {
        let kept = self.answers.get(lookup)?;
        if kept.until <= now {
            self.answers.remove(lookup);
            return None;
        }
        Some(kept.found.clone().ok_or(ResolveError::NotFound))
    }

    fn keep(&mut self, lookup: Lookup, answer: &Answer, now: Instant) {
        let (found, time) = match answer {
            Ok(found) => (Some(found.clone()), self.found),
            Err(ResolveError::NotFound) => (None, self.not_found),
            Err(_) => return,
        };
        if time.is_zero() || self.most == 0 {
            return;
        }
        // So far ahead that the clock cannot say it is for ever; a year will do.
        let until = now.checked_add(time).unwrap_or(now + Duration::from_secs(31_536_000));
        if self.answers.len() >= self.most && !self.answers.contains_key(&lookup) {
            self.make_room();
        }
        self.answers.insert(lookup, Kept { until, found });
    }

    fn make_room(&mut self) {
        let first = self.answers.iter().min_by_key(|(_, kept)| kept.until).map(|(lookup, _)| lookup.clone());
        if let Some(first) = first {
            self.answers.remove(&first);
        }
    }
}

/// The thread, as the loop's thread sees it. Dropping this ends it.
struct Thread {
    desk: Arc<Desk>,
    wake: OwnedFd,
    /// It is not there: this is a forked child.
    is_gone: bool,
}

impl Thread {
    fn start(ask: &Arc<Ask>, start: Start, hands: &mut Hands<'_>) -> io::Result<Self> {
        let (wake, signal) = Net::System.wake_up()?;
        let desk = Arc::new(Desk { state: Mutex::default(), more: Condvar::new() });
        let thread = Self { desk: desk.clone(), wake, is_gone: false };
        let ask = ask.clone();
        start(Box::new(move || desk.work(&*ask, &signal)))?;
        hands.watch(thread.wake.as_fd(), Interest::READ)?;
        Ok(thread)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if !self.is_gone {
            self.desk.close();
        }
    }
}

fn start_thread(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    std::thread::Builder::new().name("lodger-names".to_owned()).spawn(work).map(drop)
}

/// Where the two threads meet. Neither keeps the other from it for longer than it takes to move a question or an answer.
struct Desk {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    questions: VecDeque<Lookup>,
    asking: Option<Lookup>,
    answers: Vec<(Lookup, Answer)>,
    closed: bool,
}

impl Desk {
    fn ask(&self, lookup: &Lookup) {
        let mut state = self.lock();
        // Cancelled and asked again while the system was busy with it: its answer is as good.
        if state.asking.as_ref() != Some(lookup) {
            state.questions.push_back(lookup.clone());
            self.more.notify_one();
        }
    }

    fn take_back(&self, lookup: &Lookup) {
        self.lock().questions.retain(|question| question != lookup);
    }

    fn take_answers(&self) -> Vec<(Lookup, Answer)> {
        std::mem::take(&mut self.lock().answers)
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.questions.clear();
        self.more.notify_one();
    }

    /// What the thread does.
    fn work(&self, ask: &Ask, signal: &Signal) {
        while let Some(lookup) = self.next() {
            // The standard library panics over a message of the system's that is not UTF-8.
            let answer = std::panic::catch_unwind(AssertUnwindSafe(|| ask(&lookup)))
                .unwrap_or_else(|_| Err(io::Error::other("the system's resolver panicked").into()));
            let mut state = self.lock();
            state.asking = None;
            state.answers.push((lookup, answer));
            drop(state);
            signal.raise();
        }
    }

    #[allow(clippy::disallowed_methods, reason = "in a thread that may wait")]
    fn next(&self) -> Option<Lookup> {
        let idle = |state: &mut State| state.questions.is_empty() && !state.closed;
        let mut state = self.more.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        state.asking = state.questions.pop_front();
        state.asking.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask_system(lookup: &Lookup) -> Answer {
    match lookup {
        Lookup::Addresses(name) => addresses_of(name),
        Lookup::Name(address) => name_of(*address),
    }
}

#[allow(clippy::disallowed_methods, reason = "in a thread that may wait")]
fn addresses_of(name: &str) -> Answer {
    let resolved = std::net::ToSocketAddrs::to_socket_addrs(&(name, 0)).map_err(refused)?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in resolved {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(Found::Addresses(addresses)) }
}

#[cfg(feature = "peer-names")]
fn name_of(address: IpAddr) -> Answer {
    use dns_lookup::LookupErrorKind as Kind;
    dns_lookup::lookup_addr(&address).map(Found::Name).map_err(|error| match error.kind() {
        Kind::NoName | Kind::NoData => ResolveError::NotFound,
        Kind::Again => ResolveError::Again,
        _ => io::Error::from(error).into(),
    })
}

#[cfg(not(feature = "peer-names"))]
fn name_of(_address: IpAddr) -> Answer {
    Err(ResolveError::Unsupported)
}

/// The standard library hands on the words of `gai_strerror` without the code that they stand for. What is not recognized,
/// being in another language, is handed on in these words.
fn refused(error: io::Error) -> ResolveError {
    const NOT_FOUND: [&str; 4] =
        ["not known", "does not resolve", "no address associated", "no usable address"];
    const AGAIN: [&str; 3] = ["temporary failure", "try again", "at this time"];
    let text = error.to_string().to_ascii_lowercase();
    let says =
        |words: &[&str]| error.raw_os_error().is_none() && words.iter().any(|word| text.contains(word));
    if says(&NOT_FOUND) {
        ResolveError::NotFound
    } else if says(&AGAIN) {
        ResolveError::Again
    } else {
        error.into()
    }
}

#[cfg(test)]
mod tests;
