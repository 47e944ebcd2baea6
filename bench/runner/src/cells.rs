//! The grid: what is measured, and what lodger has to reach in it.

use crate::measure::Settings;
use crate::results::LODGER;
use crate::servers::Server;
use std::time::Duration;

/// One thing that is measured of every server that can do it.
pub(crate) struct Cell {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    pub(crate) goal: Option<Goal>,
    /// It is part of the quick run.
    pub(crate) quick: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Work {
    /// Binary messages; raw servers get the same number of bytes without frames.
    Echo { size: usize, connections: usize, depth: usize },
    /// The same as text.
    Text { size: usize, connections: usize },
    /// So many messages in a second, below what a server can do: for latency.
    Rate { size: usize, connections: usize, per_second: u32 },
    /// The page, on connections that stay.
    Get { connections: usize, from: Page },
    /// Connecting, upgrading, closing; so many at once.
    Connects { parallel: usize },
    /// Memory of idle connections: gives two results, this one after the handshake, and `memory-used`.
    Memory { connections: usize },
    /// The second result of `Memory`.
    MemoryUsed,
    /// Binary messages over TLS. lodger without TLS is measured beside.
    Secure { size: usize, connections: usize },
    /// Connecting, the TLS handshake, closing; so many at once.
    Handshakes { parallel: usize, resume: bool },
    /// Memory of connections over TLS that are idle after a message.
    SecureMemory { connections: usize },
}

/// Where a server has the page from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Page {
    File,
    Memory,
}

/// What lodger has to reach, in the same run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At most so many times what this raw echo takes in this cell.
    TimesRaw { at_most: f64, raw: &'static str, cell: &'static str },
    /// At most so much, in the cell's unit.
    AtMost(f64),
}

/// What a cell's value is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unit {
    /// Nanoseconds of the server's processor, for each message, response or cycle.
    Processor,
    /// Nanoseconds from a request to its answer, below which 99 of 100 are.
    Latency,
    /// Bytes for each connection.
    Memory,
}

const fn echo(name: &'static str, size: usize, connections: usize, depth: usize, at_most: f64) -> Cell {
    let goal = Some(Goal::TimesRaw { at_most, raw: "raw-epoll", cell: name });
    Cell { name, work: Work::Echo { size, connections, depth }, goal, quick: false }
}

const fn other(name: &'static str, work: Work, goal: Option<Goal>) -> Cell {
    Cell { name, work, goal, quick: false }
}

const fn quick(cell: Cell) -> Cell {
    Cell { quick: true, ..cell }
}

pub(crate) const GRID: &[Cell] = &[
    echo("32B-1c", 32, 1, 1, 1.02),
    quick(echo("32B-64c", 32, 64, 1, 1.02)),
    echo("32B-1000c", 32, 1000, 1, 1.02),
    echo("32B-10000c", 32, 10_000, 1, 1.01),
    echo("32B-1c-16deep", 32, 1, 16, 1.00),
    quick(echo("32B-64c-16deep", 32, 64, 16, 1.04)),
    quick(echo("1K-64c", 1024, 64, 1, 1.02)),
    echo("1K-1000c", 1024, 1000, 1, 1.02),
    echo("16K-64c", 16 * 1024, 64, 1, 1.06),
    echo("16K-1000c", 16 * 1024, 1000, 1, 1.10),
    echo("256K-1c", 256 * 1024, 1, 1, 1.00),
    other(
        "256K-64c",
        Work::Echo { size: 256 * 1024, connections: 64, depth: 1 },
        Some(Goal::TimesRaw { at_most: 1.10, raw: "raw-epoll-512k", cell: "256K-64c" }),
    ),
    other("text-32B-64c", Work::Text { size: 32, connections: 64 }, None),
    other("text-1K-64c", Work::Text { size: 1024, connections: 64 }, None),
    other("latency-1K-64c", Work::Rate { size: 1024, connections: 64, per_second: 40_000 }, None),
    quick(other(
        "get-64c",
        Work::Get { connections: 64, from: Page::File },
        Some(Goal::TimesRaw { at_most: 1.8, raw: "raw-epoll", cell: "1K-64c" }),
    )),
    other("get-memory-64c", Work::Get { connections: 64, from: Page::Memory }, None),
    other("connects", Work::Connects { parallel: 16 }, Some(Goal::AtMost(28_000.0))),
    other("memory", Work::Memory { connections: 10_000 }, Some(Goal::AtMost(208.0))),
    other("memory-used", Work::MemoryUsed, Some(Goal::AtMost(208.0))),
    other("wss-1K-64c", Work::Secure { size: 1024, connections: 64 }, Some(Goal::AtMost(6_500.0))),
    other("wss-16K-64c", Work::Secure { size: 16 * 1024, connections: 64 }, Some(Goal::AtMost(15_000.0))),
    other("handshakes", Work::Handshakes { parallel: 16, resume: false }, None),
    other("handshakes-resumed", Work::Handshakes { parallel: 16, resume: true }, None),
    other("wss-memory", Work::SecureMemory { connections: 2000 }, Some(Goal::AtMost(3072.0))),
];

impl Cell {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        GRID.iter().find(|cell| cell.name == name)
    }

    /// The guise of lodger that is compared.
    pub(crate) fn lodger(&self) -> &'static str {
        match self.work {
            Work::Get { from: Page::Memory, .. } => "lodger-bytes",
            Work::Secure { .. } | Work::Handshakes { .. } | Work::SecureMemory { .. } => "lodger-epoll-tls",
            _ => LODGER,
        }
    }

    pub(crate) fn title(&self) -> String {
        match self.work {
            Work::Echo { size, connections, depth: 1 } => {
                format!("echo of {}, {}", bytes(size), on(connections))
            }
            Work::Echo { size, connections, depth } => {
                format!("echo of {}, {}, {depth} in flight", bytes(size), on(connections))
            }
            Work::Text { size, connections } => format!("echo of text, {}, {}", bytes(size), on(connections)),
            Work::Rate { size, connections, per_second } => {
                format!(
                    "latency of {}, {}, {} in a second",
                    bytes(size),
                    on(connections),
                    grouped(per_second.into())
                )
            }
            Work::Get { connections, from: Page::File } => {
                format!("GET of a file of 612 bytes, {}", on(connections))
            }
            Work::Get { connections, from: Page::Memory } => {
                format!("GET of 612 bytes in memory, {}", on(connections))
            }
            Work::Connects { .. } => "connect, upgrade, close".into(),
            Work::Memory { .. } => "memory of an idle connection".into(),
            Work::MemoryUsed => "the same, after a message of 1 KiB".into(),
            Work::Secure { size, connections } => {
                format!("echo of {} over TLS, {}", bytes(size), on(connections))
            }
            Work::Handshakes { resume: false, .. } => "connect, full TLS handshake, close".into(),
            Work::Handshakes { resume: true, .. } => "connect, resumed TLS handshake, close".into(),
            Work::SecureMemory { .. } => {
                "memory of an idle connection over TLS, after a message of 1 KiB".into()
            }
        }
    }

    pub(crate) fn unit(&self) -> Unit {
        match self.work {
            Work::Rate { .. } => Unit::Latency,
            Work::Memory { .. } | Work::MemoryUsed | Work::SecureMemory { .. } => Unit::Memory,
            Work::Echo { .. } | Work::Text { .. } | Work::Get { .. } | Work::Connects { .. } => {
                Unit::Processor
            }
            Work::Secure { .. } | Work::Handshakes { .. } => Unit::Processor,
        }
    }

    pub(crate) fn suits(&self, server: &Server) -> bool {
        match self.work {
            Work::Echo { .. } | Work::Rate { .. } => server.speaks("ws") || server.speaks("raw"),
            Work::Text { .. } | Work::Connects { .. } | Work::Memory { .. } => server.speaks("ws"),
            Work::Get { from: Page::File, .. } => server.speaks("http"),
            Work::Get { from: Page::Memory, .. } => server.speaks("memory"),
            Work::MemoryUsed => false,
            Work::Secure { .. } => server.speaks("wss") || server.name == LODGER,
            Work::Handshakes { .. } | Work::SecureMemory { .. } => server.speaks("wss"),
        }
    }

    /// Memory is counted, and comes out the same each time.
    pub(crate) fn rounds(&self) -> usize {
        if self.unit() == Unit::Memory { 2 } else { usize::MAX }
    }

    fn connections(&self) -> usize {
        match self.work {
            Work::Echo { connections, .. }
            | Work::Text { connections, .. }
            | Work::Rate { connections, .. }
            | Work::Get { connections, .. }
            | Work::Connects { parallel: connections }
            | Work::Secure { connections, .. }
            | Work::Handshakes { parallel: connections, .. }
            | Work::SecureMemory { connections }
            | Work::Memory { connections } => connections,
            Work::MemoryUsed => 0,
        }
    }

    /// The measured time: longer where one message on each connection takes long.
    pub(crate) fn time(&self, settings: &Settings) -> Duration {
        if self.connections() >= 10_000 { settings.time * 2 } else { settings.time }
    }

    /// About how long one run takes.
    pub(crate) fn duration(&self, settings: &Settings) -> Duration {
        let around = Duration::from_millis(60) + Duration::from_micros(80) * self.connections() as u32;
        match self.unit() {
            Unit::Memory => around + Duration::from_millis(600),
            Unit::Processor | Unit::Latency => around + settings.warm_up + self.time(settings),
        }
    }
}

impl Unit {
    /// What the value is, in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Processor => "processor time of the server",
            Self::Latency => "99th percentile of latency",
            Self::Memory => "bytes for each connection",
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Memory => format!("{} B", grouped(value.round() as i64)),
            Self::Processor | Self::Latency if value >= 1_000_000.0 => {
                format!("{} µs", grouped((value / 1000.0).round() as i64))
            }
            Self::Processor | Self::Latency if value >= 100_000.0 => format!("{:.1} µs", value / 1000.0),
            Self::Processor | Self::Latency => format!("{} ns", grouped(value.round() as i64)),
        }
    }
}

fn on(connections: usize) -> String {
    match connections {
        1 => "1 connection".into(),
        more => format!("{} connections", grouped(more as i64)),
    }
}

fn bytes(size: usize) -> String {
    if size >= 1024 { format!("{} KiB", size / 1024) } else { format!("{size} B") }
}

/// A number with a comma between thousands.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
