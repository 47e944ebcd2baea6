//! What an honest peer waits beside many that flood, compared with a server that reads 64 KiB from each and throws it away.

use crate::measure::Settings;
use crate::options::Options;
use crate::results::median;
use crate::servers::Server;
use lodger_bench_load::{Beside, Flood, Waited, beside};
use std::error::Error;
use std::io;
use std::time::Duration;

/// What floods, and how it is called.
const KINDS: [(&str, Flood); 12] = [
    ("nobody", Flood::Nothing),
    ("fragments-1", Flood::Fragments(1)),
    ("fragments-0", Flood::Fragments(0)),
    ("messages-1", Flood::Messages(1)),
    ("messages-125", Flood::Messages(125)),
    ("messages-1016", Flood::Messages(1016)),
    ("messages-16k", Flood::Messages(16 * 1024)),
    ("messages-1m", Flood::Messages(1024 * 1024)),
    ("pings", Flood::Pings),
    ("gets", Flood::Gets),
    ("chunks-1", Flood::Chunks),
    ("records-1", Flood::Records),
];

/// So many peers flood.
const FLOODS: usize = 100;
/// The goal: the honest peer waits no longer than so many times what it waits at the server that throws away.
const GOAL: f64 = 10.0;
/// A server that sleeps for more than the rest of the time was not flooded, and says nothing: it is measured again, so many times.
const BUSY: f64 = 0.85;
const AGAIN: usize = 5;

pub(crate) fn run(options: &Options, settings: &Settings, servers: &[Server]) -> Result<(), Box<dyn Error>> {
    let named = |name: &str| {
        let found = servers.iter().find(|server| server.name == name);
        found.ok_or_else(|| format!("{name} is not there"))
    };
    let (floor, plain, secure) = (named("discard")?, named(&options.fair_loop)?, named("lodger-epoll-tls")?);
    println!(
        "An honest peer's message of one byte beside {FLOODS} peers that flood; the median of {} rounds.\n",
        options.rounds
    );
    println!(
        "| flood | p50 | floor | ratio | p99 | floor | work p50 | floor | ratio | work p99 | floor | busy, floor | MB/s taken, floor | answered |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut beyond = Vec::new();
    for (name, flood) in KINDS.iter().filter(|(name, _)| options.wants_name(name)) {
        let server = if flood.is_secure() { secure } else { plain };
        let (mut ours, mut floors, mut ratios) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
        for round in 0..options.rounds {
            // In turns, so that what the machine does meanwhile happens to both.
            let mut one = |discarded| -> io::Result<()> {
                let (server, found) = if discarded { (floor, &mut floors) } else { (server, &mut ours) };
                let mut waited = measure(settings, server, *flood, discarded)?;
                for _ in 0..AGAIN {
                    if *flood == Flood::Nothing || waited.server >= BUSY {
                        break;
                    }
                    waited = measure(settings, server, *flood, discarded)?;
                }
                found.push(waited);
                Ok(())
            };
            one(round % 2 == 0)
                .and_then(|()| one(round % 2 != 0))
                .map_err(|error| format!("{name}: {error}"))?;
            let (ours, floors) = (&ours[round], &floors[round]);
            ratios[0].push(ours.latency.p50 as f64 / floors.latency.p50 as f64);
            ratios[1].push(ours.work.p50 as f64 / floors.work.p50.max(1) as f64);
        }
        let ratios = ratios.map(|ratios| median(ratios.into_iter()).unwrap_or(f64::NAN));
        println!("{}", row(name, &ours, &floors, ratios));
        if ratios[0].is_nan() || ratios[0] > GOAL {
            beyond.push(*name);
        }
    }
    if beyond.is_empty() {
        Ok(())
    } else {
        Err(format!("more than {GOAL} times: {}", beyond.join(", ")).into())
    }
}

fn row(name: &str, ours: &[Waited], floors: &[Waited], ratios: [f64; 2]) -> String {
    let of = |found: &[Waited], what: fn(&Waited) -> f64| median(found.iter().map(what)).unwrap_or(f64::NAN);
    let both = |what: fn(&Waited) -> f64| format!("{:.2} ms | {:.2} ms", of(ours, what), of(floors, what));
    format!(
        "| {name} | {} | {:.1} | {} | {} | {:.1} | {} | {:.0} %, {:.0} % | {:.0}, {:.0} | {:.0} |",
        both(|waited| waited.latency.p50 as f64 / 1e6),
        ratios[0],
        both(|waited| waited.latency.p99 as f64 / 1e6),
        both(|waited| waited.work.p50 as f64 / 1e6),
        ratios[1],
        both(|waited| waited.work.p99 as f64 / 1e6),
        100.0 * of(ours, |waited| waited.server),
        100.0 * of(floors, |waited| waited.server),
        of(ours, |waited| waited.taken) / 1e6,
        of(floors, |waited| waited.taken) / 1e6,
        of(ours, |waited| waited.answered) / 1e6,
    )
}

fn measure(settings: &Settings, server: &Server, flood: Flood, discarded: bool) -> io::Result<Waited> {
    let running = server.start(settings.server_core, settings.load_core)?;
    let how = Beside {
        floods: FLOODS,
        discarded,
        secure: flood.is_secure() && !discarded,
        warm_up: settings.warm_up,
        time: settings.time,
        most: 100_000,
        rest: Duration::from_millis(2),
    };
    beside(running.address, &running.watched(), flood, &how)
}
