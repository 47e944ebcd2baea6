//! A simulated loop: what it reports, in which order, how late and how often.

use super::host::Host;
use super::network::Network;
use super::random::Random;
use super::time::Clock;
use crate::{Context, PollFd, Pollable as _, Ready, Served, Wait};
use std::fmt::Write as _;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// A loop in a simulated world, with a host of its own.
pub struct Loop {
    network: Network,
    pub(super) clock: Clock,
    host: Host,
    random: Random,
    held: Vec<Held>,
    wait: Wait,
    /// Several contexts have taken a turn together.
    shared: bool,
}

/// Readiness that is reported later.
struct Held {
    fd: RawFd,
    ready: Ready,
    turns: usize,
}

/// A context in a loop, and the data lent to it.
type Guest<'a, 'b, D> = (&'a mut Context<D>, &'b mut D);

impl Loop {
    pub(super) fn new(network: Network, clock: Clock, random: Random) -> Self {
        let host = Host::new(network.clone());
        Self { network, clock, host, random, held: Vec::new(), wait: Wait::FOREVER, shared: false }
    }

    /// The network, for handlers of raw descriptors, and for worlds of several loops.
    pub fn network(&self) -> Network {
        self.network.clone()
    }

    /// The host: what is watched, and what was said.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The host, to make it fail, or for [`Context::detach`] and [`Context::leave`].
    pub fn host_mut(&mut self) -> &mut Host {
        &mut self.host
    }

    /// How long the loop would sleep, as the last `prepare` said.
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// One turn: `prepare`, the sleep that takes no time, `service_fd` for what is ready, `service_timeouts`. Where a real
    /// loop would sleep on, it calls nothing but `prepare`, and answers `false`.
    pub fn turn<D>(&mut self, context: &mut Context<D>, data: &mut D) -> bool {
        self.turn_all(&mut [(context, data)])
    }

    /// One turn of several contexts that share the loop.
    pub fn turn_all<D>(&mut self, guests: &mut [Guest<'_, '_, D>]) -> bool {
        self.step(guests, true)
    }

    /// Turns, until nothing is ready, nothing under way and nothing due. The clock stands still.
    ///
    /// # Panics
    ///
    /// Panics when the loop spins: when for a thousand turns nothing moves.
    pub fn run<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        self.run_all(&mut [(context, data)]);
    }

    /// [`run`](Self::run), for several contexts that share the loop.
    ///
    /// # Panics
    ///
    /// As `run`.
    pub fn run_all<D>(&mut self, guests: &mut [Guest<'_, '_, D>]) {
        let mut awake = self.step(guests, true);
        let (mut still, mut seen) = (0, self.activity());
        while awake {
            awake = self.step(guests, false);
            let moved = self.activity() != seen;
            still = if moved { 0 } else { still + 1 };
            seen = self.activity();
            assert!(still < SPIN, "the loop spins\n{}", self.report());
        }
    }

    /// Runs for `duration` of simulated time: until quiet, to the next deadline, until quiet, and so on.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    pub fn run_for<D>(&mut self, context: &mut Context<D>, data: &mut D, duration: Duration) {
        self.run_all_for(&mut [(context, data)], duration);
    }

    /// [`run_for`](Self::run_for), for several contexts that share the loop.
    ///
    /// # Panics
    ///
    /// As `run`.
    pub fn run_all_for<D>(&mut self, guests: &mut [Guest<'_, '_, D>], duration: Duration) {
        let end = self.clock.now() + duration;
        loop {
            self.run_all(guests);
            match self.wait.instant() {
                Some(deadline) if deadline <= end => {
                    let late = self.oversleep();
                    self.sleep_until((deadline + late).min(end));
                }
                _ if self.clock.now() < end => self.sleep_until(end),
                _ => break,
            }
        }
    }

    /// Time passes in which the loop does nothing, as in a process that was stopped, or whose handler takes long; what peers have
    /// sent arrives meanwhile. Then the loop goes on as one does whose sleep was interrupted: it knows of nothing that is
    /// ready, and calls `service_timeouts`.
    pub fn stand_still<D>(&mut self, context: &mut Context<D>, data: &mut D, duration: Duration) {
        self.stand_still_all(&mut [(context, data)], duration);
    }

    /// [`stand_still`](Self::stand_still), for several contexts that share the loop.
    pub fn stand_still_all<D>(&mut self, guests: &mut [Guest<'_, '_, D>], duration: Duration) {
        self.prepare(guests);
        self.sleep_until(self.clock.now() + duration);
        for _ in 0..SPIN {
            self.network.step();
        }
        for (context, data) in guests.iter_mut() {
            context.service_timeouts(data);
        }
        self.check();
    }

    /// [`Context::leave`], and a look at whether it left anything behind.
    ///
    /// # Panics
    ///
    /// Panics when something is still watched, unless another context shares the loop.
    pub fn leave<D>(&mut self, context: &mut Context<D>, data: &mut D) {
        context.leave(&mut self.host, data);
        self.check();
        assert!(self.shared || self.host.watched().count() == 0, "left behind\n{}", self.report());
    }

    fn sleep_until(&mut self, time: Instant) {
        self.clock.set(time);
        let elapsed = self.clock.elapsed();
        self.network.state().log.line(format_args!("time: {elapsed:?}"));
    }

    fn oversleep(&mut self) -> Duration {
        let probability = self.network.state().odds.chaos.oversleep;
        let late = self.random.chance(probability);
        if late { Duration::from_millis(self.random.below(21) as u64) } else { Duration::ZERO }
    }

    fn activity(&self) -> u64 {
        self.network.state().activity
    }

    /// One turn, and whether the loop was awake; `noise` is whether readiness may be made up where nothing is ready.
    fn step<D>(&mut self, guests: &mut [Guest<'_, '_, D>], noise: bool) -> bool {
        self.shared |= guests.len() > 1;
        self.prepare(guests);
        self.network.step();
        let due =
            self.wait.is_now() || self.wait.instant().is_some_and(|deadline| deadline <= self.clock.now());
        let mut events = self.host.ready();
        let awake = !events.is_empty() || !self.held.is_empty() || due || self.network.is_moving();
        if noise || awake {
            self.disturb(&mut events);
        }
        if events.is_empty() && !due {
            // Bytes that are on their way wake nobody.
            return awake;
        }
        self.host.wake_ups += 1;
        for (fd, ready) in events {
            self.offer(guests, fd, ready);
        }
        for (context, data) in guests.iter_mut() {
            context.service_timeouts(data);
        }
        self.check();
        true
    }

    fn prepare<D>(&mut self, guests: &mut [Guest<'_, '_, D>]) {
        let probability = self.network.state().odds.chaos.early_prepare;
        self.wait = Wait::FOREVER;
        for (context, _) in guests.iter_mut() {
            if self.random.chance(probability) {
                let _ = context.prepare(&mut self.host);
            }
            self.wait = self.wait.sooner(context.prepare(&mut self.host));
        }
        self.check();
    }

    /// Makes of what is ready what this loop reports of it.
    fn disturb(&mut self, events: &mut Vec<(RawFd, Ready)>) {
        let chaos = self.network.state().odds.chaos;
        let random = &mut self.random;
        let (late, now) = events.drain(..).partition::<Vec<_>, _>(|_| random.chance(chaos.late));
        *events = now;
        self.held.iter_mut().for_each(|held| held.turns -= 1);
        let over = self.held.extract_if(.., |held| held.turns == 0);
        events.extend(over.map(|held| (held.fd, held.ready)));
        let held = late.into_iter().map(|(fd, ready)| Held { fd, ready, turns: 1 + random.below(3) });
        self.held.extend(held);
        for (fd, _) in self.host.watched() {
            if random.chance(chaos.spurious) {
                events.push((fd, any_readiness(random)));
            }
        }
        if random.chance(chaos.stale) {
            let never = [-1, RawFd::MIN, RawFd::MAX, 1_000_000];
            let at = random.below(self.host.removed.len() + never.len());
            let fd = self.host.removed.iter().chain(&never).nth(at);
            events.extend(fd.map(|fd| (*fd, any_readiness(random))));
        }
        for event in events.clone() {
            if random.chance(chaos.repeated) {
                events.push(event);
            }
        }
        if random.chance(chaos.reordered) {
            random.shuffle(events);
        }
    }

    /// Offers readiness to one context after the other, until it is somebody's.
    fn offer<D>(&mut self, guests: &mut [Guest<'_, '_, D>], fd: RawFd, ready: Ready) {
        let early = self.network.state().odds.chaos.early_prepare;
        if self.random.chance(early) {
            self.prepare(guests);
        }
        let (serial, watched) = (self.network.serial(fd), self.host.interest(fd).is_some());
        let name = serial.map_or_else(|| "a number".to_owned(), |serial| format!("#{serial}"));
        self.network.state().log.line(format_args!("report {ready:?} of {name}"));
        let by_number = self.random.chance(0.5);
        let owned = guests.iter_mut().any(|(context, data)| {
            let mut entry = PollFd::new(fd, ready);
            let served = match by_number {
                true => context.service(fd, ready, data),
                false => context.service_fd(&mut entry, data),
            };
            let touched = entry.revents() != ready;
            assert!(
                by_number || touched == (served == Served::Ours),
                "{name}: {served:?}, with {entry:?} left"
            );
            served == Served::Ours
        });
        assert!(owned || !watched, "{name} is watched and nobody's\n{}", self.report());
        assert!(!owned || serial.is_some(), "{name}, which was closed, is somebody's\n{}", self.report());
    }

    /// What was noticed where it could not be said.
    fn check(&self) {
        let violations = std::mem::take(&mut self.network.state().violations);
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }

    fn report(&self) -> String {
        let until = self.wait.instant().unwrap_or(self.clock.now());
        let left = until.saturating_duration_since(self.clock.now());
        let mut report = match self.wait {
            Wait::FOREVER => format!("at {:?}, without a deadline\n", self.clock.elapsed()),
            _ => format!("at {:?}, {left:?} before the deadline\n", self.clock.elapsed()),
        };
        for (fd, interest) in self.host.watched() {
            let (name, ready) = (self.network.serial(fd).unwrap_or_default(), self.network.ready(fd));
            // Writing to a String cannot fail.
            let _ = writeln!(report, "#{name}: watched for {interest:?}, {ready:?}");
        }
        report
    }
}

fn any_readiness(random: &mut Random) -> Ready {
    let flags = [Ready::READ, Ready::WRITE, Ready::HANG_UP, Ready::ERROR];
    let first = flags[random.below(2)];
    if random.chance(0.2) { first.with(flags[random.below(4)]) } else { first }
}

/// After how many turns without anything moving a loop spins.
const SPIN: u32 = 1000;
