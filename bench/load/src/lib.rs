//! The load generator: one thread over epoll that keeps a number of messages in flight on a number of connections, counts and
//! checks the answers, and reads how much processor time the server took meanwhile.
//!
//! It must cost less than what it measures: requests are made once, in advance; answers are checked by their lengths, and by
//! their content the first time on each connection. [`Measured`] says what the generator itself took.

mod answers;
mod connects;
mod flood;
mod handshakes;
mod histogram;
mod idle;
mod link;
mod plan;
mod pump;
pub mod system;
mod tls;
mod transport;
mod watched;

pub use connects::connects;
pub use flood::{Beside, Flood, Waited, beside};
pub use handshakes::handshakes;
pub use histogram::{Histogram, Latency};
pub use idle::{Memory, memory};
pub use plan::{Kind, Plan};
pub use pump::{Echo, echo};
pub use watched::Watched;

use std::time::Duration;

/// What a measurement found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Answers in the measured time; for [`connects`] and [`handshakes`], cycles.
    pub messages: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Processor time of the server, of all its threads and processes, user and system.
    pub server: Duration,
    /// Processor time of the generator.
    pub load: Duration,
    /// From a request to its answer, where that was looked at.
    pub latency: Option<Latency>,
}

impl Measured {
    /// The server's processor time for each message, in nanoseconds.
    pub fn server_nanos(&self) -> f64 {
        self.server.as_nanos() as f64 / self.messages.max(1) as f64
    }

    /// The generator's.
    pub fn load_nanos(&self) -> f64 {
        self.load.as_nanos() as f64 / self.messages.max(1) as f64
    }

    /// Messages in a second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}
