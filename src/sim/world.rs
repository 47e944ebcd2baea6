//! The simulated world: its network, its time, its chance, and the loops in it.

use super::Names;
use super::chaos::Chaos;
use super::endpoint::{Endpoint, Server};
use super::network::{Network, Reach};
use super::random::Random;
use super::time::{Clock, Surroundings};
use super::turns::Loop;
use crate::{Builder, Context, Peer};
use rustix::io::Errno;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Everything around a context, in memory and from a seed: network, peers, time, randomness, and a loop.
///
/// It is a [`Loop`] too, for the one context that most worlds have. When a test panics, the world says on standard error
/// how it came to that, and from which seed.
pub struct World {
    seed: u64,
    random: Random,
    names: Names,
    main: Loop,
}

impl World {
    /// A world in which everything that is left to chance follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let network = Network::new(random.fork());
        let main = Loop::new(network, Clock::new(), random.fork());
        Self { seed, random, names: Names::default(), main }
    }

    /// A builder for a context that lives in this world.
    pub fn builder(&mut self) -> Builder {
        let surroundings = Surroundings { clock: self.main.clock.clone(), random: self.random.fork() };
        Context::builder().env(surroundings).simulated(self.network()).resolver(self.names.resolver())
    }

    /// The names that the contexts of this world can look up.
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// Another loop in this world. Time is the same for all of them.
    pub fn new_loop(&mut self) -> Loop {
        Loop::new(self.network(), self.main.clock.clone(), self.random.fork())
    }

    /// From now on, everything is as unkind as this says. Connections keep the buffers they have.
    pub fn chaos(&mut self, chaos: Chaos) {
        self.network().state().odds.chaos = chaos;
    }

    /// Connects to a listener.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` when nobody listens there, `TimedOut` when the backlog is full.
    pub fn connect(&mut self, address: &Peer) -> io::Result<Endpoint> {
        self.connect_from(address, None)
    }

    /// Connects from an address of the caller's choice.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_from(&mut self, address: &Peer, from: Option<Peer>) -> io::Result<Endpoint> {
        let network = self.network();
        let id = network.connect_endpoint(address, from)?;
        Ok(Endpoint::new(network, id, 0))
    }

    /// A connection between a socket, to be adopted, and an endpoint.
    ///
    /// # Errors
    ///
    /// When the process has no descriptors left.
    pub fn socket(&mut self) -> io::Result<(OwnedFd, Endpoint)> {
        let network = self.network();
        let (fd, id) = network.socket()?;
        Ok((fd, Endpoint::new(network, id, 0)))
    }

    /// Listens, for lodger to connect to.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when somebody does already.
    pub fn listen(&mut self, address: &Peer) -> io::Result<Server> {
        let network = self.network();
        let id = network.state().add_listener(address)?;
        Ok(Server::new(network, id))
    }

    /// What happens to those who connect to `address` while nobody listens there.
    pub fn reach(&mut self, address: &Peer, reach: Reach) {
        self.network().state().reach.push((address.clone(), reach));
    }

    /// How many connections may wait at a listener: 4,096 unless set.
    pub fn backlog(&mut self, connections: usize) {
        self.network().state().backlog = connections;
    }

    /// The next `count` calls of `accept` that have something to accept fail with `EMFILE`.
    pub fn fail_accepts(&mut self, count: usize) {
        self.network().state().failing_accepts.extend(std::iter::repeat_n(Errno::MFILE, count));
    }

    /// Moves the clock, and runs nothing.
    pub fn advance(&mut self, by: Duration) {
        self.main.clock.advance(by);
    }

    /// The time that has passed in this world.
    pub fn elapsed(&self) -> Duration {
        self.main.clock.elapsed()
    }

    /// What the clock says.
    pub fn now(&self) -> Instant {
        self.main.clock.now()
    }

    /// How often contexts have read the monotonic clock.
    pub fn clock_readings(&self) -> u64 {
        self.main.clock.readings()
    }

    /// A number that is the same when everything happened in the same way.
    pub fn fingerprint(&self) -> u64 {
        self.network().state().log.fingerprint()
    }
}

impl Deref for World {
    type Target = Loop;

    fn deref(&self) -> &Loop {
        &self.main
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Loop {
        &mut self.main
    }
}

impl Drop for World {
    #[allow(clippy::print_stderr, reason = "this is for whoever reads a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.seed;
            eprint!(
                "simulated world of seed {seed} failed after {:?}; {}",
                self.elapsed(),
                self.network().state().log
            );
            eprintln!(
                "to replay: World::new({seed}), or {SEED}={seed} where the test takes its seeds from sim::seeds"
            );
        }
    }
}

/// The seeds 1 to `count`, or only the one in the environment variable `LODGER_SIM_SEED`.
///
/// # Panics
///
/// Panics when the variable is set to something else than a number.
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    match std::env::var(SEED) {
        Ok(seed) => {
            let seed = seed.parse().unwrap_or_else(|_| panic!("{SEED} is not a number: {seed:?}"));
            seed..=seed
        }
        Err(_) => 1..=count,
    }
}

const SEED: &str = "LODGER_SIM_SEED";
