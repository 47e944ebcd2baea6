//! How long to wait before connecting again.

use std::time::{Duration, Instant};

/// Exponential backoff with full jitter: the longest wait doubles with each attempt, and each wait is anything up to it, so that
/// clients that lost a server at the same time do not come back at the same time (RFC 6455, section 7.2.3).
///
/// Keep one where the connection's handler is made anew. Say [`opened`](Self::opened) when a connection is established, and ask
/// for the [`delay`](Self::delay) when it is lost, or could not be. A connection that was lost soon counts as one more
/// attempt; only one that held for the [healthy](Self::healthy) time begins anew, since a server that accepts and fails is
/// not to be asked every half second.
#[derive(Clone, Debug)]
#[doc(alias("lws_retry_bo_t", "retry_ms_table", "jitter_percent", "lws_retry_get_delay_ms"))]
pub struct Backoff {
    first: Duration,
    most: Duration,
    healthy: Duration,
    attempts: u32,
    opened: Option<Instant>,
}

/// At first up to 500 ms, in the end up to 30 s.
impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(30))
    }
}

impl Backoff {
    /// Waits of up to `first` before the first attempt, and of up to `most` at last. With zero for either there is no wait
    /// at all.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, healthy: Duration::from_secs(60), attempts: 0, opened: None }
    }

    /// How long a connection has to hold until waits begin anew. Default 60 s.
    #[must_use]
    #[doc(alias = "lws_retry_sul_schedule_retry_wsi")]
    pub fn healthy(mut self, time: Duration) -> Self {
        self.healthy = time;
        self
    }

    /// A connection has been established.
    pub fn opened(&mut self, now: Instant) {
        self.opened = Some(now);
    }

    /// How long to wait before the next attempt, now that a connection was lost or could not be established; `random` is any
    /// number that is not predictable. It counts as an attempt.
    #[doc(alias = "lws_retry_sul_schedule")]
    pub fn delay(&mut self, now: Instant, random: u64) -> Duration {
        let held = self.opened.take().map(|opened| now.saturating_duration_since(opened));
        if held.is_some_and(|held| held >= self.healthy) {
            self.attempts = 0;
        }
        let longest = self.first.saturating_mul(2u32.saturating_pow(self.attempts)).min(self.most);
        self.attempts = self.attempts.saturating_add(1);
        part(longest, random)
    }

    /// How many attempts there have been since a connection last held.
    #[doc(alias = "conceal_count")]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Begins anew, as after a connection that held: the user asked to connect, or the network changed.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Anything from nothing to `most`, both included, as `random` is of all that it can be.
fn part(most: Duration, random: u64) -> Duration {
    let nanos = (u128::from(random) * (most.as_nanos().min(u128::from(u64::MAX)) + 1)) >> 64;
    Duration::from_nanos(nanos as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::system_now;

    const MOST: u64 = u64::MAX;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_longest_wait_doubles_up_to_the_most() {
        let now = system_now();
        let mut backoff = Backoff::new(seconds(1), seconds(10));
        let longest: Vec<_> = (0..6).map(|_| backoff.delay(now, MOST)).collect();
        assert_eq!(longest, [1, 2, 4, 8, 10, 10].map(seconds));
        assert_eq!(backoff.attempts(), 6);
        backoff.reset();
        assert_eq!(backoff.delay(now, MOST), seconds(1));
        let mut default = Backoff::default();
        assert_eq!(default.delay(now, MOST), Duration::from_millis(500));
        assert_eq!((0..9).map(|_| default.delay(now, MOST)).max(), Some(seconds(30)));
    }

    #[test]
    fn a_wait_is_anything_up_to_the_longest() {
        let now = system_now();
        let wait = |random| Backoff::new(seconds(4), seconds(4)).delay(now, random);
        assert_eq!((wait(0), wait(1 << 62), wait(1 << 63), wait(MOST)), {
            (Duration::ZERO, seconds(1), seconds(2), seconds(4))
        });
        for bits in 0..64 {
            assert!(wait(MOST >> bits) <= seconds(4));
        }
    }

    #[test]
    fn no_number_of_attempts_and_no_duration_overflows() {
        let now = system_now();
        for (first, most, longest) in [
            (seconds(5), Duration::MAX, Duration::from_nanos(MOST)),
            (Duration::MAX, Duration::MAX, Duration::from_nanos(MOST)),
            (Duration::MAX, seconds(3), seconds(3)),
            (seconds(5), seconds(3), seconds(3)),
            (Duration::ZERO, seconds(3), Duration::ZERO),
            (seconds(3), Duration::ZERO, Duration::ZERO),
        ] {
            let mut backoff = Backoff::new(first, most);
            backoff.attempts = u32::MAX - 1;
            for _ in 0..3 {
                assert_eq!(backoff.delay(now, MOST), longest);
            }
            assert_eq!(backoff.attempts(), u32::MAX);
        }
    }

    #[test]
    fn only_a_connection_that_held_begins_anew() {
        let start = system_now();
        let mut backoff = Backoff::new(seconds(1), seconds(100)).healthy(seconds(60));
        assert_eq!(backoff.delay(start, MOST), seconds(1));
        backoff.opened(start);
        assert_eq!(backoff.delay(start + seconds(60) - Duration::from_nanos(1), MOST), seconds(2));
        // No connection since: the time that has gone by says nothing.
        assert_eq!(backoff.delay(start + seconds(600), MOST), seconds(4));
        backoff.opened(start + seconds(600));
        assert_eq!(backoff.delay(start + seconds(660), MOST), seconds(1));
        backoff.opened(start + seconds(700));
        assert_eq!(backoff.delay(start, MOST), seconds(2), "a clock that goes back is no healthy time");
    }
}
