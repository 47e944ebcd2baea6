//! What lodger asks of the system besides sockets: the time and randomness, both replaceable.
//!
//! ```
//! use lodger::{Context, Env, SystemEnv};
//! use std::time::{Instant, SystemTime};
//!
//! /// The system's clock, and the same "random" bytes in every run.
//! struct Repeatable;
//!
//! impl Env for Repeatable {
//!     fn now(&mut self) -> Instant {
//!         SystemEnv.now()
//!     }
//!     fn date(&mut self) -> SystemTime {
//!         SystemEnv.date()
//!     }
//!     fn random(&mut self, bytes: &mut [u8]) {
//!         bytes.fill(4);
//!     }
//! }
//!
//! let context: Context = Context::builder().env(Repeatable).build();
//! # drop(context);
//! ```

use std::time::{Instant, SystemTime};

/// The clocks and the source of randomness of a context.
pub trait Env {
    /// The monotonic time. Serving asks for it at most once a turn, after the sleep, and only when a deadline exists; setting a
    /// timer asks anew.
    fn now(&mut self) -> Instant;

    /// The wall clock, for the `Date` field (RFC 9110, section 6.6.1).
    fn date(&mut self) -> SystemTime;

    /// Fills `bytes` from a source that a peer cannot predict: masking keys come from here (RFC 6455, section 10.3).
    ///
    /// A context asks for its first four when it is built: they tell its ids from those of other contexts
    /// ([`ConnId`](crate::ConnId)). Two contexts that are given the same have equal ids.
    fn random(&mut self, bytes: &mut [u8]);

    /// Whether [`now`](Self::now) is not the system's monotonic clock, so that waiting must be reckoned by it.
    fn is_simulated(&self) -> bool {
        false
    }
}

/// The system's clocks and its random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnv;

impl Env for SystemEnv {
    fn now(&mut self) -> Instant {
        system_now()
    }

    #[allow(clippy::disallowed_methods, reason = "Env is where time comes from")]
    fn date(&mut self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            match rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()) {
                Ok(filled) => bytes = &mut bytes[filled..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the system has no source of randomness: {error}"),
            }
        }
    }
}

/// The system's monotonic clock.
#[allow(clippy::disallowed_methods, reason = "Env is where time comes from")]
pub(crate) fn system_now() -> Instant {
    Instant::now()
}

/// Random bytes in stock, each given out once: to ask the system for four at a time would be a call for each masking key.
pub(crate) struct Randomness {
    bytes: [u8; 256],
    used: usize,
}

impl Randomness {
    pub(crate) fn new() -> Self {
        let bytes = [0; 256];
        Self { used: bytes.len(), bytes }
    }

    pub(crate) fn take<const N: usize>(&mut self, env: &mut dyn Env) -> [u8; N] {
        if self.bytes.len() - self.used < N {
            env.random(&mut self.bytes);
            self.used = 0;
        }
        let mut taken = [0; N];
        let given = &mut self.bytes[self.used..self.used + N];
        taken.copy_from_slice(given);
        given.fill(0);
        self.used += N;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts, so that it shows whether a byte comes twice.
    struct Counting(u32);

    impl Env for Counting {
        fn now(&mut self) -> Instant {
            SystemEnv.now()
        }
        fn date(&mut self) -> SystemTime {
            SystemEnv.date()
        }
        fn random(&mut self, bytes: &mut [u8]) {
            for word in bytes.as_chunks_mut::<4>().0 {
                *word = self.0.to_be_bytes();
                self.0 += 1;
            }
        }
    }

    #[test]
    fn no_random_byte_is_given_out_twice() {
        let (mut env, mut randomness) = (Counting(0), Randomness::new());
        for expected in 0..1000_u32 {
            assert_eq!(randomness.take(&mut env), expected.to_be_bytes());
        }
    }
}
