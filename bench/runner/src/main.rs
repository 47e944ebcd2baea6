//! Runs servers against the load, one at a time and in turns, and reports. `bench/run`, `bench/scale` and `bench/fair` build and start it.

mod cells;
mod certificate;
mod fair;
mod goals;
mod machine;
mod measure;
mod options;
mod page;
mod results;
mod scale;
mod servers;
mod table;

use cells::{Cell, GRID};
use lodger_bench_load::system;
use machine::Machine;
use measure::Settings;
use options::Options;
use results::{Results, Sample};
use servers::Server;
use std::collections::HashSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    match Options::from_args(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if let Some(path) = &options.report {
        let results: Results = serde_json::from_slice(&std::fs::read(path)?)?;
        table::print(&results);
        return write(&options.page, &page::html(&results));
    }
    let settings = Settings::new(options)?;
    let servers = Server::all(options)?;
    if options.list {
        GRID.iter().for_each(|cell| println!("{:<20} {}", cell.name, cell.title()));
        servers.iter().for_each(|server| println!("{:<20} {}", server.name, server.command.join(" ")));
        return Ok(());
    }
    if options.fair {
        return fair::run(options, &settings, &servers);
    }
    if options.scale {
        return scale::run(&settings, &servers);
    }
    let cells: Vec<_> = GRID.iter().filter(|cell| options.wants(cell)).collect();
    let servers: Vec<_> =
        servers.into_iter().filter(|server| cells.iter().any(|cell| cell.suits(server))).collect();
    if cells.is_empty() || servers.is_empty() {
        return Err("nothing to run: `list` shows the names of cells and servers".into());
    }
    let estimate = estimate(&cells, &servers, options, &settings);
    println!(
        "{} cells, {} servers, {} rounds of {:.2} s: about {:.0} min {:02.0} s",
        cells.len(),
        servers.len(),
        options.rounds,
        settings.time.as_secs_f64(),
        (estimate.as_secs() / 60) as f64,
        estimate.as_secs() % 60
    );
    if settings.load_core == settings.server_core {
        println!("Only one processor: server and load share it, so that nothing but ratios says anything.");
    }
    let started = Instant::now();
    let mut results = Results::new(Machine::look(), options, &cells, &servers);
    measure_all(&cells, &servers, options, &settings, &mut results);
    results.took = started.elapsed().as_secs_f64();
    table::print(&results);
    write(&options.json, &serde_json::to_string_pretty(&results)?)?;
    write(&options.page, &page::html(&results))
}

/// In turns, so that what the machine does meanwhile happens to all.
fn measure_all(
    cells: &[&Cell],
    servers: &[Server],
    options: &Options,
    settings: &Settings,
    results: &mut Results,
) {
    let mut failed = HashSet::new();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for cell in cells.iter().filter(|cell| round < cell.rounds()) {
            for turn in 0..servers.len() {
                let server = &servers[(turn + round) % servers.len()];
                if !cell.suits(server) || failed.contains(&(cell.name, &server.name)) {
                    continue;
                }
                match measure::measure(cell, server, settings) {
                    Ok(found) => results.samples.extend(found.into_iter().map(|found| Sample {
                        server: server.name.clone(),
                        round,
                        ..found
                    })),
                    Err(error) => {
                        failed.insert((cell.name, &server.name));
                        let failure = format!("{}, {}: {error}", server.name, cell.name);
                        eprintln!("failed, and left out from here on: {failure}");
                        results.failures.push(failure);
                    }
                }
            }
        }
    }
}

fn estimate(cells: &[&Cell], servers: &[Server], options: &Options, settings: &Settings) -> Duration {
    let each = |cell: &&Cell| {
        let runs =
            servers.iter().filter(|server| cell.suits(server)).count() * cell.rounds().min(options.rounds);
        cell.duration(settings) * runs as u32
    };
    cells.iter().map(each).sum()
}

fn write(path: &str, content: &str) -> Result<(), Box<dyn Error>> {
    if let Some(directory) = Path::new(path).parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, content)?;
    println!("written: {}", path.trim_start_matches("../"));
    Ok(())
}

/// The processors for server and load: the first two that there are, unless told otherwise.
fn two_cores(wanted: Option<(usize, usize)>) -> (usize, usize) {
    let cores = system::cores();
    wanted.unwrap_or((cores[0], *cores.get(1).unwrap_or(&cores[0])))
}
