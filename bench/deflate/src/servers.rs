//! Servers that compress and inflate: each echoes JSON; what counts is their processor time, and their memory.

use crate::json;
use lodger::ws::deflate::{Compressors, Deflate, Deflater, Parameters};
use lodger::ws::{Header, Message, Side};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How many messages wait for their answer.
const IN_FLIGHT: usize = 8;
/// The lengths of messages.
const LENGTHS: [usize; 2] = [1024, 64 * 1024];
const WARM_UP: Duration = Duration::from_millis(700);
/// The servers take turns, one measurement each in every round.
const ROUNDS: usize = 3;
/// How many connections share the memory that is measured.
const CONNECTIONS: usize = 200;

struct Server {
    process: Child,
    address: String,
}

impl Server {
    /// The first word it says that ends in a port is where it listens.
    fn start(command: &[&str]) -> Self {
        let mut process = Command::new(command[0])
            .args(&command[1..])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("it says where");
        let address = line.split_whitespace().next_back().expect("an address").to_owned();
        Self { process, address }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.process.id())).expect("it runs")
    }

    /// Processor time of all its threads, in nanoseconds.
    fn processor(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("it runs");
        let time = |task: std::io::Result<std::fs::DirEntry>| {
            let schedule = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            schedule.split_whitespace().next()?.parse::<u64>().ok()
        };
        tasks.filter_map(time).sum()
    }

    /// What no file backs of its memory, in bytes.
    fn memory(&self) -> u64 {
        let rollup = self.file("smaps_rollup");
        let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).expect("the line is there");
        line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client's connection, which inflates nothing: answers are counted by their headers.
struct Client {
    stream: TcpStream,
    deflater: Deflater,
    pool: Compressors,
    input: Vec<u8>,
}

impl Client {
    /// Offers what `mode` says: nothing for "off", no context takeover for "none", or else what the server likes.
    fn connect(address: &str, mode: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("TCP has it");
        let compressed = mode != "off";
        let mut options = Deflate::default();
        (options.server_no_context_takeover, options.client_no_context_takeover) =
            (mode == "none", mode == "none");
        let offer = if compressed {
            format!("Sec-WebSocket-Extensions: {}\r\n", options.offer())
        } else {
            String::new()
        };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it takes the request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it answers");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("ASCII");
        let field = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-extensions").then_some(value)
        });
        let parameters = options.accepted(field.map(str::as_bytes)).expect("a valid answer");
        assert_eq!(parameters.is_some(), compressed, "{head}");
        if let Some(agreed) = &parameters {
            let takeover = (!agreed.client_no_context_takeover, !agreed.server_no_context_takeover);
            assert_eq!(takeover, (mode != "none", mode == "both"), "{head}");
        }
        options.threshold = if compressed { 0 } else { usize::MAX };
        let deflater = Deflater::new(&options, &parameters.unwrap_or(Parameters::default()), Side::Client);
        Self { stream, deflater, pool: Compressors::default(), input: Vec::new() }
    }

    fn send(&mut self, message: &str) {
        let mut bytes = Vec::new();
        self.deflater.encode(&mut bytes, Message::Text(message), Some([1, 2, 3, 4]), &mut self.pool);
        self.stream.write_all(&bytes).expect("it reads");
    }

    /// Waits for an answer: the bytes of its payload, as they came.
    fn receive(&mut self) -> u64 {
        let mut length = 0;
        loop {
            if let Ok(Some((header, used))) = Header::decode(&self.input, Side::Client, 0x40) {
                let end = used + header.length as usize;
                if self.input.len() >= end {
                    self.input.drain(..end);
                    length += header.length;
                    if header.fin {
                        return length;
                    }
                    continue;
                }
            }
            let mut buffer = [0; 65536];
            let read = self.stream.read(&mut buffer).expect("it answers");
            assert!(read > 0, "it has gone");
            self.input.extend_from_slice(&buffer[..read]);
        }
    }
}

/// What is known of a server at one length of messages.
#[derive(Clone, Copy)]
struct Figure {
    /// Processor time for a message.
    micros: f64,
    /// MB of payload each way in a second of the processor.
    speed: f64,
    /// What compressing leaves of the answers.
    left: f64,
}

/// A line of the table.
struct Contender<'a> {
    name: &'a str,
    mode: &'a str,
    command: Vec<&'a str>,
    /// Of each length, and each round.
    figures: [Vec<Figure>; 2],
}

impl<'a> Contender<'a> {
    /// `name` ends in the mode.
    fn new(name: &'a str, command: Vec<&'a str>) -> Self {
        let (name, mode) = name.rsplit_once(' ').expect("NAME MODE");
        Self { name, mode, command, figures: Default::default() }
    }
}

/// lodger in each mode, and others by what starts them, as a table in Markdown.
pub(crate) fn measure(time: Duration, others: &[&str]) {
    let own = std::env::current_exe().expect("it has a name");
    let own = own.to_str().expect("in UTF-8");
    let mut contenders: Vec<Contender<'_>> = ["lodger off", "lodger none", "lodger one", "lodger both"]
        .map(|name| Contender::new(name, vec![own, "serve", &name["lodger ".len()..]]))
        .into();
    contenders.extend(others.iter().map(|other| {
        let (name, command) = other.split_once('=').expect("NAME MODE=COMMAND");
        Contender::new(name, command.split(' ').collect())
    }));
    for _ in 0..ROUNDS {
        for contender in &mut contenders {
            for (figures, length) in contender.figures.iter_mut().zip(LENGTHS) {
                figures.push(speed(&contender.command, contender.mode, length, time));
            }
        }
    }
    println!(
        "Processor time of the server for a message; MB/s of payload each way in a second of the processor, and as a multiple \
         of lodger's with the same takeover; what compressing leaves of the answers; memory of an idle connection.\n"
    );
    println!(
        "| server | takeover | 1 KiB | MB/s | of lodger | left | 64 KiB | MB/s | of lodger | left | a connection |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for contender in &contenders {
        let ours = |ours: &&Contender<'_>| ours.name == "lodger" && ours.mode == contender.mode;
        let ours = contenders.iter().find(ours).expect("lodger has all modes");
        let cells: Vec<String> =
            contender.figures.iter().zip(&ours.figures).map(|(its, ours)| cells(its, ours)).collect();
        let memory = memory(&contender.command, contender.mode);
        println!("| {} | {} | {} | {memory} B |", contender.name, contender.mode, cells.join(" | "));
    }
}

/// Medians of the rounds, and of the rounds' ratios.
fn cells(its: &[Figure], ours: &[Figure]) -> String {
    let of = |figure: fn(&Figure) -> f64| median(its.iter().map(figure).collect());
    let ratio = median(its.iter().zip(ours).map(|(its, ours)| its.speed / ours.speed).collect());
    let (micros, speed, left) = (of(|its| its.micros), of(|its| its.speed), of(|its| its.left));
    format!("{micros:.1} µs | {speed:.0} | {ratio:.2} | {:.0} %", left * 100.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn speed(command: &[&str], mode: &str, length: usize, time: Duration) -> Figure {
    let server = Server::start(command);
    let mut client = Client::connect(&server.address, mode);
    let messages = json::messages(length);
    let mut messages = messages.iter().cycle();
    let mut next = || messages.next().expect("they go round");
    (0..IN_FLIGHT).for_each(|_| client.send(next()));
    let (mut count, mut received, mut from, mut start) = (0_u64, 0, None, Instant::now());
    loop {
        received += client.receive();
        client.send(next());
        count += 1;
        match from {
            None if start.elapsed() > WARM_UP => {
                (count, received, from, start) = (0, 0, Some(server.processor()), Instant::now());
            }
            Some(from) if start.elapsed() > time => {
                let nanos = (server.processor() - from) as f64 / count as f64;
                return Figure {
                    micros: nanos / 1e3,
                    speed: length as f64 * 1e3 / nanos,
                    left: received as f64 / (count as f64 * length as f64),
                };
            }
            _ => {}
        }
    }
}

/// What one more connection costs that has had two messages and is idle.
fn memory(command: &[&str], mode: &str) -> u64 {
    let server = Server::start(command);
    let messages = json::messages(1024);
    let open = || {
        let mut client = Client::connect(&server.address, mode);
        for message in &messages[..2] {
            client.send(message);
            client.receive();
        }
        client
    };
    let _first: Vec<Client> = (0..8).map(|_| open()).collect();
    let before = server.memory();
    let _clients: Vec<Client> = (0..CONNECTIONS).map(|_| open()).collect();
    server.memory().saturating_sub(before) / CONNECTIONS as u64
}
