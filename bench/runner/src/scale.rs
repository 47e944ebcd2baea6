//! Many connections: what they cost in time and in memory, in tables for `docs/performance/scale.md`.

use crate::cells::grouped;
use crate::measure::Settings;
use crate::results::median;
use crate::servers::Server;
use lodger_bench_load::{Echo, Kind, Measured, Plan, echo, memory};
use std::error::Error;
use std::io;

/// The loops that differ in this.
const LOOPS: [&str; 5] = ["raw-epoll", "raw-poll", "lodger-epoll", "lodger-single-fd", "lodger-poll"];

const ROUNDS: usize = 3;

pub(crate) fn run(settings: &Settings, servers: &[Server]) -> Result<(), Box<dyn Error>> {
    let most = settings.most_connections();
    if most < settings.idle {
        println!(
            "A process may have {} descriptors here, so that {} connections are the most; {} were asked for. More: `ulimit -Hn`.",
            grouped(settings.descriptors as i64),
            grouped(most as i64),
            grouped(settings.idle as i64)
        );
    }
    let servers: Vec<_> = servers.iter().filter(|server| LOOPS.contains(&server.name.as_str())).collect();
    if servers.is_empty() {
        return Err("none of these servers is there".into());
    }
    let idle = settings.idle.min(most);
    active(settings, &servers, most.min(10_000));
    busy(settings, &servers, idle, 1);
    busy(settings, &servers, idle, 64);
    memories(settings, &servers, idle);
    Ok(())
}

/// All connections at work.
fn active(settings: &Settings, servers: &[&Server], connections: usize) {
    println!("\n{} connections, each with one message of 32 bytes in flight:\n", grouped(connections as i64));
    println!("| | processor time for a message | messages in a second | p50 | p99 |\n|---|--:|--:|--:|--:|");
    let found = in_turns(servers, |server| load(settings, server, connections, 0));
    for (server, measured) in servers.iter().zip(found) {
        let micros = |nanos: u64| format!("{} µs", grouped(nanos as i64 / 1000));
        let latency = measured.last().and_then(|measured| measured.latency);
        println!(
            "| {} | {} | {} | {} | {} |",
            server.name,
            nanos(&measured),
            median(measured.iter().map(Measured::rate)).map_or("-".into(), |rate| grouped(rate as i64)),
            latency.map_or("-".into(), |latency| micros(latency.p50)),
            latency.map_or("-".into(), |latency| micros(latency.p99)),
        );
    }
}

/// A few at work, the others silent.
fn busy(settings: &Settings, servers: &[&Server], idle: usize, busy: usize) {
    let most = idle.saturating_sub(busy);
    let mut steps: Vec<_> = [0, 1000, 10_000].into_iter().filter(|step| *step < most).collect();
    steps.push(most);
    println!("\nProcessor time for a message of 32 bytes, {busy} busy, beside so many idle connections:\n");
    let header = steps.iter().map(|step| format!(" {} |", grouped(*step as i64))).collect::<String>();
    println!("| |{header}\n|---|{}", "--:|".repeat(steps.len()));
    let columns: Vec<_> =
        steps.iter().map(|step| in_turns(servers, |server| load(settings, server, busy, *step))).collect();
    for (at, server) in servers.iter().enumerate() {
        let cells = columns.iter().map(|column| format!(" {} |", nanos(&column[at]))).collect::<String>();
        println!("| {} |{cells}", server.name);
    }
}

/// What the idle ones take.
fn memories(settings: &Settings, servers: &[&Server], connections: usize) {
    println!("\nMemory for each of {} idle connections, in bytes:\n", grouped(connections as i64));
    println!("| | after the handshake | after a message of 1 KiB on each |\n|---|--:|--:|");
    for server in servers.iter().filter(|server| server.speaks("ws")) {
        let found = server.start(settings.server_core, settings.load_core).and_then(|running| {
            let connections = connections.saturating_sub(64);
            memory(running.address, &running.watched(), Kind::WebSocket, connections)
        });
        match found {
            Ok(memory) => println!("| {} | {:.0} | {:.0} |", server.name, memory.opened, memory.used),
            Err(error) => println!("| {} | {error} | |", server.name),
        }
    }
}

/// Measures all in turns, and gives what was found of each.
fn in_turns(servers: &[&Server], measure: impl Fn(&Server) -> io::Result<Measured>) -> Vec<Vec<Measured>> {
    let mut found = vec![Vec::new(); servers.len()];
    for _ in 0..ROUNDS {
        for (server, found) in servers.iter().zip(&mut found) {
            match measure(server) {
                Ok(measured) => found.push(measured),
                Err(error) => eprintln!("{}: {error}", server.name),
            }
        }
    }
    found
}

fn load(settings: &Settings, server: &Server, connections: usize, idle: usize) -> io::Result<Measured> {
    let running = server.start(settings.server_core, settings.load_core)?;
    let kind = if server.speaks("ws") { Kind::WebSocket } else { Kind::Raw };
    // One message on each of thousands takes a while.
    let time = if connections > 1000 { settings.time * 3 } else { settings.time };
    let how = Echo { connections, idle, warm_up: settings.warm_up, time, rate: None };
    echo(running.address, &running.watched(), &Plan::new(kind, 32, 1, &[]), &how)
}

fn nanos(measured: &[Measured]) -> String {
    let nanos = median(measured.iter().map(Measured::server_nanos));
    nanos.map_or("-".into(), |nanos| format!("{} ns", grouped(nanos as i64)))
}
