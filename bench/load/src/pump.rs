//! Keeps messages in flight, and counts.

use crate::Measured;
use crate::histogram::Histogram;
use crate::link::{Links, PATIENCE, silence};
use crate::plan::Plan;
use crate::system::own_time;
use crate::watched::Watched;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How an echo, or a page, is measured.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// Connections with the plan's number of requests in flight on each.
    pub connections: usize,
    /// Connections beside them that are open and silent.
    pub idle: usize,
    /// Before the measured time.
    pub warm_up: Duration,
    /// The measured time.
    pub time: Duration,
    /// Requests in a second in all, sent on time whether the server keeps up or not; `None` sends each when one was answered.
    pub rate: Option<f64>,
}

/// Measures.
///
/// # Errors
///
/// The server answered something wrong, or nothing.
pub fn echo(server: SocketAddr, watched: &Watched, plan: &Plan, echo: &Echo) -> io::Result<Measured> {
    let mut links = Links::new()?;
    links.open(server, plan, echo.connections + echo.idle)?;
    match echo.rate {
        None => closed(&mut links, watched, plan, echo),
        Some(rate) => open(&mut links, watched, plan, echo, rate),
    }
}

/// The measured time: what the counters were when it began.
struct Window<'a> {
    watched: &'a Watched,
    begin: Instant,
    end: Instant,
    before: Option<(Instant, Duration, Duration)>,
    measured: Measured,
    histogram: Histogram,
}

impl<'a> Window<'a> {
    fn new(watched: &'a Watched, echo: &Echo) -> Self {
        let begin = Instant::now() + echo.warm_up;
        Self {
            watched,
            begin,
            end: begin + echo.time,
            before: None,
            measured: Measured::default(),
            histogram: Histogram::default(),
        }
    }

    fn is_open(&self) -> bool {
        self.before.is_some()
    }

    /// Opens it when its time has come, and says whether it is over.
    fn is_over(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        match self.before {
            None if now >= self.begin => self.before = Some((now, self.watched.time()?, own_time())),
            Some((begin, server, load)) if now >= self.end => {
                self.measured.server = self.watched.time()?.saturating_sub(server);
                self.measured.load = own_time().saturating_sub(load);
                self.measured.elapsed = now - begin;
                self.measured.latency = self.histogram.latency();
                return Ok(true);
            }
            None | Some(_) => {}
        }
        Ok(false)
    }

    fn count(&mut self, answers: usize) {
        if self.is_open() {
            self.measured.messages += answers as u64;
        }
    }

    fn record(&mut self, from: Instant, to: Instant) {
        if self.is_open() {
            self.histogram.record(to.saturating_duration_since(from).as_nanos() as u64);
        }
    }
}

/// The next request goes out when an answer has come.
fn closed(links: &mut Links, watched: &Watched, plan: &Plan, echo: &Echo) -> io::Result<Measured> {
    let timed = plan.depth() == 1;
    let mut window = Window::new(watched, echo);
    let now = Instant::now();
    for link in &mut links.all[..echo.connections] {
        link.owed = plan.depth();
        link.sent = now;
        link.send(plan)?;
    }
    let mut heard = now;
    while !window.is_over()? {
        let events = links.wait(Some(Duration::from_millis(100)))?;
        for at in 0..events {
            let (which, readable, writable) = links.event(at);
            let Links { all, buffer, .. } = &mut *links;
            let link = &mut all[which];
            let answers = if readable { link.receive(plan, buffer)? } else { 0 };
            if answers > 0 {
                window.count(answers);
                link.owed += answers;
                if timed {
                    let now = Instant::now();
                    window.record(link.sent, now);
                    link.sent = now;
                }
            }
            if answers > 0 || writable {
                link.send(plan)?;
            }
        }
        if events > 0 {
            heard = Instant::now();
        } else if heard.elapsed() > PATIENCE {
            return Err(silence());
        }
    }
    Ok(window.measured)
}

/// Requests go out at their times. Latency is from the time at which a request was to be sent, so that a server which keeps
/// the generator from sending does not look faster for it.
fn open(links: &mut Links, watched: &Watched, plan: &Plan, echo: &Echo, rate: f64) -> io::Result<Measured> {
    let interval = Duration::from_secs_f64(1.0 / rate);
    let mut waiting = vec![VecDeque::<Instant>::new(); echo.connections];
    let mut window = Window::new(watched, echo);
    let (mut next, mut turn) = (Instant::now(), 0);
    let mut heard = next;
    // It does not sleep: the processor is its own, and a sleep would end late.
    while !window.is_over()? {
        let now = Instant::now();
        while next <= now {
            let link = &mut links.all[turn];
            waiting[turn].push_back(next);
            link.owed += 1;
            link.send(plan)?;
            turn = (turn + 1) % echo.connections;
            next += interval;
        }
        let events = links.wait(Some(Duration::ZERO))?;
        for at in 0..events {
            let (which, readable, writable) = links.event(at);
            let Links { all, buffer, .. } = &mut *links;
            let link = &mut all[which];
            if readable {
                let answers = link.receive(plan, buffer)?;
                let now = Instant::now();
                window.count(answers);
                let waiting = &mut waiting[which];
                for sent in waiting.drain(..answers.min(waiting.len())) {
                    window.record(sent, now);
                }
                heard = now;
            }
            if writable {
                link.send(plan)?;
            }
        }
        if now.saturating_duration_since(heard) > PATIENCE {
            return Err(silence());
        }
    }
    Ok(window.measured)
}
