//! The clock of a simulated world, and what a context in it takes for its surroundings.

use super::random::Random;
use crate::Env;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

/// Stands still unless it is set.
#[derive(Clone)]
pub(super) struct Clock(Rc<Face>);

struct Face {
    /// What zero is called: an `Instant` cannot be made from a number.
    start: Instant,
    elapsed: Cell<Duration>,
    readings: Cell<u64>,
}

impl Clock {
    pub(super) fn new() -> Self {
        let start = crate::env::system_now();
        Self(Rc::new(Face { start, elapsed: Cell::default(), readings: Cell::default() }))
    }

    pub(super) fn now(&self) -> Instant {
        self.0.start + self.elapsed()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed.get()
    }

    pub(super) fn advance(&self, by: Duration) {
        self.0.elapsed.set(self.elapsed() + by);
    }

    /// Never goes back.
    pub(super) fn set(&self, to: Instant) {
        self.0.elapsed.set(self.elapsed().max(to.saturating_duration_since(self.0.start)));
    }

    pub(super) fn readings(&self) -> u64 {
        self.0.readings.get()
    }
}

/// The simulated clocks and a seeded source of randomness.
pub(super) struct Surroundings {
    pub(super) clock: Clock,
    pub(super) random: Random,
}

impl Env for Surroundings {
    fn now(&mut self) -> Instant {
        self.clock.0.readings.set(self.clock.readings() + 1);
        self.clock.now()
    }

    fn date(&mut self) -> SystemTime {
        // 2020-01-01, 00:00:00: a Wednesday.
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800) + self.clock.elapsed()
    }

    fn random(&mut self, bytes: &mut [u8]) {
        self.random.fill(bytes);
    }

    fn is_simulated(&self) -> bool {
        true
    }
}
