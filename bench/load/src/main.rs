//! The load generator by hand, against a server that runs already.

use lodger_bench_load::{Echo, Kind, Measured, Plan, Watched, connects, echo, handshakes, memory, system};
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

const USAGE: &str = "\
usage: load KIND PORT PID [options]
  KIND                ws, wss, http, raw (an echo, or a page), connects, handshakes, resumed (TLS), idle or idle-wss (memory)
  PORT, PID           where the server listens on 127.0.0.1, and its process
  --text              messages are text
  --size BYTES        of a message (default 32)
  --connections N     (default 64; for connects, at once; for idle, in all)
  --idle N            beside them, silent: the others are the busy ones (default 0)
  --depth D           in flight on each connection (default 1)
  --rate N            requests in a second in all, instead of as fast as answers come
  --warm-up SECONDS   (default 0.2)
  --seconds SECONDS   (default 0.7)
  --core N            where to run (default: anywhere)
  --page FILE         what `http` is to get (default www/index.html)";

struct Options {
    what: String,
    server: SocketAddr,
    pid: i32,
    text: bool,
    size: usize,
    depth: usize,
    echo: Echo,
    page: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options(std::env::args().skip(1)).unwrap_or_else(|problem| {
        eprintln!("{problem}\n{USAGE}");
        std::process::exit(2);
    });
    system::all_descriptors();
    let watched = Watched::new(options.pid);
    let Options { what, server, text, size, depth, echo: how, page, .. } = options;
    let kind = if text { Kind::Text } else { Kind::named(&what).unwrap_or(Kind::WebSocket) };
    match what.as_str() {
        "idle" | "idle-wss" => {
            let kind = if what == "idle" { kind } else { Kind::Secure };
            let memory = memory(server, &watched, kind, how.connections)?;
            println!("{:.0} bytes per connection, {:.0} after a message", memory.opened, memory.used);
        }
        "connects" => show(&connects(server, &watched, how.connections, how.warm_up, how.time)?),
        "handshakes" | "resumed" => {
            let resume = what == "resumed";
            show(&handshakes(server, &watched, resume, how.connections, how.warm_up, how.time)?);
        }
        _ => {
            let page = if kind == Kind::Http { std::fs::read(page)? } else { Vec::new() };
            show(&echo(server, &watched, &Plan::new(kind, size, depth, &page), &how)?);
        }
    }
    Ok(())
}

fn show(measured: &Measured) {
    println!(
        "{:.0} ns of the server's processor for each, {:.0} ns of the generator's; {:.0} in a second",
        measured.server_nanos(),
        measured.load_nanos(),
        measured.rate()
    );
    if let Some(latency) = measured.latency {
        let micros = |nanos| nanos as f64 / 1000.0;
        println!(
            "latency in microseconds: p50 {:.1}, p99 {:.1}, p99.9 {:.1}, longest {:.1}",
            micros(latency.p50),
            micros(latency.p99),
            micros(latency.p999),
            micros(latency.max)
        );
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut next = || arguments.next().ok_or("KIND, PORT and PID are needed".to_owned());
    let (what, port, pid) = (next()?, next()?, next()?);
    if !["ws", "wss", "http", "raw", "connects", "handshakes", "resumed", "idle", "idle-wss"]
        .contains(&what.as_str())
    {
        return Err(format!("no such kind: {what}"));
    }
    let mut options = Options {
        what,
        server: ([127, 0, 0, 1], parsed::<u16>(&port)?).into(),
        pid: parsed(&pid)?,
        text: false,
        size: 32,
        depth: 1,
        echo: Echo {
            connections: 64,
            idle: 0,
            warm_up: Duration::from_millis(200),
            time: Duration::from_millis(700),
            rate: None,
        },
        page: "www/index.html".into(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--text" => options.text = true,
            "--size" => options.size = parsed(&value()?)?,
            "--connections" => options.echo.connections = parsed(&value()?)?,
            "--idle" => options.echo.idle = parsed(&value()?)?,
            "--depth" => options.depth = parsed(&value()?)?,
            "--rate" => options.echo.rate = Some(parsed(&value()?)?),
            "--warm-up" => options.echo.warm_up = Duration::from_secs_f64(parsed(&value()?)?),
            "--seconds" => options.echo.time = Duration::from_secs_f64(parsed(&value()?)?),
            "--core" => system::pin(parsed(&value()?)?).map_err(|error| format!("--core: {error}"))?,
            "--page" => options.page = value()?,
            other => return Err(format!("no such option: {other}")),
        }
    }
    Ok(options)
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}
