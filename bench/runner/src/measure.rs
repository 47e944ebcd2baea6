//! One run: a fresh server, the load, an end.

use crate::cells::{Cell, Work};
use crate::options::Options;
use crate::results::Sample;
use crate::servers::Server;
use crate::two_cores;
use lodger_bench_load::{Echo, Kind, Measured, Plan, connects, echo, handshakes, memory, system};
use std::io;
use std::time::Duration;

pub(crate) struct Settings {
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
    pub(crate) server_core: usize,
    pub(crate) load_core: usize,
    /// How many descriptors a process may have.
    pub(crate) descriptors: usize,
    /// The most idle connections that are asked for.
    pub(crate) idle: usize,
    page: Vec<u8>,
}

impl Settings {
    pub(crate) fn new(options: &Options) -> io::Result<Self> {
        let (server_core, load_core) = two_cores(options.cores);
        system::pin(load_core)?;
        Ok(Self {
            warm_up: Duration::from_secs_f64(options.warm_up),
            time: Duration::from_secs_f64(options.seconds),
            server_core,
            load_core,
            descriptors: system::all_descriptors(),
            idle: options.idle,
            page: std::fs::read("www/index.html")?,
        })
    }

    /// How many connections a process can have, beside what else it has open.
    pub(crate) fn most_connections(&self) -> usize {
        self.descriptors.saturating_sub(200)
    }
}

/// Measures `cell` of `server`, with a server of its own.
pub(crate) fn measure(cell: &Cell, server: &Server, settings: &Settings) -> io::Result<Vec<Sample>> {
    let running = server.start(settings.server_core, settings.load_core)?;
    let (address, watched) = (running.address, running.watched());
    let time = cell.time(settings);
    let run = |kind, size, depth, connections, rate| {
        let plan = Plan::new(kind, size, depth, &settings.page);
        let how = Echo { connections, idle: 0, warm_up: settings.warm_up, time, rate };
        echo(address, &watched, &plan, &how)
    };
    let bytes = if server.speaks("ws") { Kind::WebSocket } else { Kind::Raw };
    let one = |measured: Measured| vec![sample(cell.name, measured.server_nanos(), Some(&measured))];
    Ok(match cell.work {
        Work::Echo { size, connections, depth } => one(run(bytes, size, depth, connections, None)?),
        Work::Text { size, connections } => one(run(Kind::Text, size, 1, connections, None)?),
        Work::Get { connections, .. } => one(run(Kind::Http, 1, 1, connections, None)?),
        Work::Connects { parallel } => one(connects(address, &watched, parallel, settings.warm_up, time)?),
        Work::Rate { size, connections, per_second } => {
            let mut measured = run(bytes, size, 1, connections, Some(per_second.into()))?;
            // It never sleeps, which says nothing.
            measured.load = Duration::ZERO;
            let p99 = measured.latency.map_or(0, |latency| latency.p99);
            vec![sample(cell.name, p99 as f64, Some(&measured))]
        }
        Work::Memory { connections } => {
            let connections = connections.min(settings.most_connections());
            let memory = memory(address, &watched, bytes, connections)?;
            vec![sample("memory", memory.opened, None), sample("memory-used", memory.used, None)]
        }
        Work::MemoryUsed => Vec::new(),
        Work::Secure { size, connections } => {
            let kind = if server.speaks("wss") { Kind::Secure } else { Kind::WebSocket };
            one(run(kind, size, 1, connections, None)?)
        }
        Work::Handshakes { parallel, resume } => {
            one(handshakes(address, &watched, resume, parallel, settings.warm_up, time)?)
        }
        Work::SecureMemory { connections } => {
            let memory = memory(address, &watched, Kind::Secure, connections)?;
            vec![sample(cell.name, memory.used, None)]
        }
    })
}

fn sample(cell: &str, value: f64, measured: Option<&Measured>) -> Sample {
    let latency = measured.and_then(|measured| measured.latency);
    Sample {
        cell: cell.to_owned(),
        server: String::new(),
        round: 0,
        value,
        server_nanos: measured.map(Measured::server_nanos),
        load_nanos: measured.map(Measured::load_nanos),
        rate: measured.map(Measured::rate),
        latency: latency.map(|latency| [latency.p50, latency.p99, latency.p999]),
    }
}
