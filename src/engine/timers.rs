//! Deadlines: an indexed heap, so that the earliest is known exactly and no wake-up comes before anything is due.
//!
//! Nothing on the path of a message touches it: a deadline that activity moves later is left where it is, and put right
//! when it is reached.

use super::store::Key;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Microseconds since the context began, as deadlines are kept.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Tick(u64);

impl Tick {
    /// Of what has no deadline.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) fn after(self, delay: Duration) -> Self {
        // Rounded up: a timer never fires early.
        Self(self.0.saturating_add(u64::try_from(delay.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// `now`, reckoned from `start`, rounded down.
    pub(crate) fn at(start: Instant, now: Instant) -> Self {
        Self(u64::try_from(now.saturating_duration_since(start).as_micros()).unwrap_or(u64::MAX))
    }

    /// The instant of this tick; `None` when it lies beyond what the system's clock can say.
    pub(crate) fn instant(self, start: Instant) -> Option<Instant> {
        start.checked_add(Duration::from_micros(self.0))
    }
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Timer {
    /// The phase a link is in has lasted too long, or is to be looked at again.
    Phase(Key),
    /// A link's queued output has not moved.
    Stall(Key),
    /// A link's unfinished message has not moved.
    Message(Key),
    /// A conn's own timer.
    User(Key),
    /// A task of `Io::after`.
    Task(Key),
    /// The age of a site's certificate is to be reported.
    Certificate(Key),
    /// A client's conn is to begin to connect, or has had its time for it.
    Connect(Key),
    /// The next address of a name is to be tried beside those that are under way.
    Stagger(Key),
    /// The resolver has asked for this.
    Resolver,
    /// Accepting, paused for want of descriptors, is to be tried again.
    Accept,
    /// The host refused the wake-up descriptor.
    Wake,
}

/// Names an armed timer. It stays valid until the timer is handed out or cancelled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TimerId(u32);

impl TimerId {
    pub(crate) const NONE: Self = Self(u32::MAX);

    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl Default for TimerId {
    fn default() -> Self {
        Self::NONE
    }
}

#[derive(Clone, Copy)]
struct Entry {
    timer: Timer,
    /// Where the entry stands in the heap, `DUE` or `CANCELLED` after that; the next free entry when it is free.
    place: u32,
}

pub(crate) struct Timers {
    /// A heap of four children each, by deadline; of those that are due together, the one armed first comes first.
    heap: Vec<Due>,
    /// How many timers have been armed.
    armed: u64,
    entries: Vec<Entry>,
    free: u32,
    /// Entries that have expired and were not handed out, in order, and when they were due.
    due: VecDeque<(u32, Tick)>,
}

/// A deadline, the number of the timer among all that were armed, and its entry.
type Due = (Tick, u64, u32);

const DUE: u32 = u32::MAX - 1;
const CANCELLED: u32 = u32::MAX - 2;

impl Timers {
    pub(crate) fn new() -> Self {
        Self { heap: Vec::new(), armed: 0, entries: Vec::new(), free: u32::MAX, due: VecDeque::new() }
    }

    /// Whether no timer is armed or due.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty() && self.due.is_empty()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Tick> {
        if !self.due.is_empty() {
            return Some(Tick::default());
        }
        self.heap.first().map(|&(tick, ..)| tick)
    }

    pub(crate) fn arm(&mut self, at: Tick, timer: Timer) -> TimerId {
        let place = self.heap.len() as u32;
        let id = if self.free == u32::MAX {
            self.entries.push(Entry { timer, place });
            self.entries.len() as u32 - 1
        } else {
            let id = self.free;
            self.free = self.entries[id as usize].place;
            self.entries[id as usize] = Entry { timer, place };
            id
        };
        self.heap.push((at, self.armed, id));
        self.armed += 1;
        self.rise(place as usize);
        TimerId(id)
    }

    /// Forgets the timer and leaves `NONE` in its place.
    pub(crate) fn cancel(&mut self, id: &mut TimerId) {
        if !id.is_none() {
            let entry = &mut self.entries[id.0 as usize];
            if entry.place == DUE {
                entry.place = CANCELLED;
            } else {
                let place = entry.place as usize;
                self.take(place);
                self.give_back(id.0);
            }
            *id = TimerId::NONE;
        }
    }

    /// Sets one timer aside that is due at `now`, the earliest first, and says whether there was one. It is handed out by
    /// `take_due`, unless it is cancelled before.
    pub(crate) fn expire(&mut self, now: Tick) -> bool {
        let Some(&(due, ..)) = self.heap.first().filter(|&&(tick, ..)| tick <= now) else { return false };
        let id = self.take(0);
        self.entries[id as usize].place = DUE;
        self.due.push_back((id, due));
        true
    }

    /// Hands out the next timer that has expired, and when it was due.
    pub(crate) fn take_due(&mut self) -> Option<(Timer, Tick)> {
        loop {
            let (id, due) = self.due.pop_front()?;
            let Entry { timer, place } = self.entries[id as usize];
            self.give_back(id);
            if place == DUE {
                return Some((timer, due));
            }
        }
    }

    /// Takes an entry out of the heap.
    fn take(&mut self, place: usize) -> u32 {
        let (.., id) = self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.entries[self.heap[place].2 as usize].place = place as u32;
            self.rise(place);
            self.sink(place);
        }
        id
    }

    fn give_back(&mut self, id: u32) {
        self.entries[id as usize].place = self.free;
        self.free = id;
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 4;
            if self.heap[parent] <= self.heap[place] {
                break;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = place * 4 + 1..(place * 4 + 5).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child]) else { return };
            if self.heap[place] <= self.heap[least] {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for place in [a, b] {
            self.entries[self.heap[place].2 as usize].place = place as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(n: u32) -> Timer {
        Timer::User(Key { index: n, generation: 1 })
    }

    #[test]
    fn timers_expire_in_order_and_not_before_their_time() {
        let mut timers = Timers::new();
        for n in [50, 10, 30, 20, 40] {
            timers.arm(Tick(n.into()), timer(n));
        }
        assert_eq!(timers.next(), Some(Tick(10)));
        assert!(!timers.expire(Tick(9)));
        while timers.expire(Tick(30)) {}
        let due: Vec<_> = std::iter::from_fn(|| timers.take_due()).map(|(timer, _)| timer).collect();
        assert_eq!(due, [timer(10), timer(20), timer(30)]);
        assert_eq!(timers.next(), Some(Tick(40)));
    }

    #[test]
    fn timers_that_are_due_together_come_in_the_order_in_which_they_were_armed() {
        let mut timers = Timers::new();
        for n in 0..50 {
            timers.arm(Tick(7), timer(n));
        }
        while timers.expire(Tick(7)) {}
        let due: Vec<_> = std::iter::from_fn(|| timers.take_due()).map(|(timer, _)| timer).collect();
        assert_eq!(due, (0..50).map(timer).collect::<Vec<_>>());
    }

    #[test]
    fn a_timer_that_is_due_can_be_cancelled_before_it_is_handed_out() {
        let mut timers = Timers::new();
        let mut ids: Vec<_> = (1..=3).map(|n| timers.arm(Tick(n), timer(n as u32))).collect();
        while timers.expire(Tick(3)) {}
        timers.cancel(&mut ids[1]);
        let mut again = timers.arm(Tick(4), timer(4));
        assert_eq!(timers.take_due().map(|(timer, _)| timer), Some(timer(1)));
        assert_eq!(timers.take_due().map(|(timer, _)| timer), Some(timer(3)));
        assert_eq!(timers.take_due(), None);
        assert_eq!(timers.next(), Some(Tick(4)));
        timers.cancel(&mut again);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn cancelling_in_any_order_keeps_the_rest_in_order() {
        let mut state = 7u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let mut timers = Timers::new();
        let mut armed: Vec<(u64, TimerId)> = Vec::new();
        for step in 0..5_000 {
            if random(3) == 0 && !armed.is_empty() {
                let (_, mut id) = armed.swap_remove(random(armed.len() as u64) as usize);
                timers.cancel(&mut id);
                assert!(id.is_none());
            } else {
                let at = random(1000);
                armed.push((at, timers.arm(Tick(at), timer(step))));
            }
            assert_eq!(timers.next().map(|tick| tick.0), armed.iter().map(|(at, _)| *at).min());
        }
        armed.sort_by_key(|(at, _)| *at);
        for (at, _) in armed {
            assert_eq!(timers.next(), Some(Tick(at)));
            assert!(timers.expire(Tick(at)) && timers.take_due().is_some());
        }
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn delays_round_up_and_readings_round_down() {
        let start = crate::env::system_now();
        assert_eq!(Tick::at(start, start + Duration::from_nanos(1999)), Tick(1));
        assert_eq!(Tick(1).after(Duration::from_nanos(1)), Tick(2));
        assert_eq!(Tick(1).after(Duration::MAX), Tick(u64::MAX));
    }
}
