//! What was found, as it is kept.

use crate::cells::Cell;
use crate::machine::Machine;
use crate::options::Options;
use crate::servers::Server;
use serde::{Deserialize, Serialize};

/// Everything of one run of the benchmark.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    /// The measured seconds of each.
    pub(crate) seconds: f64,
    /// How long all of it took, in seconds.
    pub(crate) took: f64,
    pub(crate) cells: Vec<String>,
    pub(crate) servers: Vec<Row>,
    pub(crate) failures: Vec<String>,
    pub(crate) samples: Vec<Sample>,
}

/// A server that was measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kinds: Vec<String>,
}

/// One run of one server in one cell. The value is in the cell's unit: nanoseconds, or bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Sample {
    pub(crate) cell: String,
    pub(crate) server: String,
    pub(crate) round: usize,
    pub(crate) value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_nanos: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) load_nanos: Option<f64>,
    /// In a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    /// p50, p99 and p99.9, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<[u64; 3]>,
}

/// What a server is in the comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// lodger as it is compared.
    Lodger,
    /// lodger in another loop or another guise.
    Guise,
    /// An echo without a protocol: the floor.
    Raw,
    Peer,
}

/// lodger as it is compared.
pub(crate) const LODGER: &str = "lodger-epoll";

impl Row {
    pub(crate) fn part(&self) -> Part {
        match self.name.as_str() {
            LODGER => Part::Lodger,
            name if name.starts_with("lodger") => Part::Guise,
            _ if self.kinds == ["raw"] => Part::Raw,
            _ => Part::Peer,
        }
    }
}

/// The rounds of one server in one cell, taken together.
#[derive(Clone, Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) server: &'a Row,
    pub(crate) value: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// Times lodger's, round by round.
    pub(crate) to_lodger: Option<f64>,
    pub(crate) load: Option<f64>,
    pub(crate) rate: Option<f64>,
    pub(crate) latency: Option<[f64; 3]>,
    /// The generator had no more time left than the server, so that the server waited for it.
    pub(crate) load_bound: bool,
}

impl Results {
    pub(crate) fn new(machine: Machine, options: &Options, cells: &[&Cell], servers: &[Server]) -> Self {
        let mut cells: Vec<_> = cells.iter().map(|cell| cell.name.to_owned()).collect();
        if cells.iter().any(|cell| cell == "memory") && !cells.iter().any(|cell| cell == "memory-used") {
            cells.push("memory-used".to_owned());
        }
        let row = |server: &Server| Row { name: server.name.clone(), kinds: server.kinds().to_vec() };
        Self {
            machine,
            rounds: options.rounds,
            seconds: options.seconds,
            took: 0.0,
            cells,
            servers: servers.iter().map(row).collect(),
            failures: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// The cells that were measured, and are still known.
    pub(crate) fn cells(&self) -> impl Iterator<Item = &'static Cell> {
        self.cells.iter().filter_map(|name| Cell::named(name))
    }

    fn of<'a>(&'a self, cell: &'a str, server: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.cell == cell && sample.server == server)
    }

    /// The servers that were measured in `cell`, in their own order.
    pub(crate) fn summaries(&self, cell: &str) -> Vec<Summary<'_>> {
        self.servers.iter().filter_map(|server| self.summary(cell, server)).collect()
    }

    pub(crate) fn summary<'a>(&'a self, cell: &str, server: &'a Row) -> Option<Summary<'a>> {
        let samples: Vec<_> = self.of(cell, &server.name).collect();
        let of =
            |field: fn(&Sample) -> Option<f64>| median(samples.iter().filter_map(|sample| field(sample)));
        let quantile =
            |at: usize| median(samples.iter().filter_map(|sample| Some(sample.latency?[at] as f64)));
        let latency =
            quantile(0).zip(quantile(1)).zip(quantile(2)).map(|((p50, p99), p999)| [p50, p99, p999]);
        let own = Cell::named(cell).map_or(LODGER, Cell::lodger);
        let (load, nanos) = (of(|sample| sample.load_nanos), of(|sample| sample.server_nanos));
        Some(Summary {
            server,
            value: of(|sample| Some(sample.value))?,
            least: samples.iter().map(|sample| sample.value).fold(f64::INFINITY, f64::min),
            most: samples.iter().map(|sample| sample.value).fold(0.0, f64::max),
            to_lodger: self.ratio((cell, &server.name), (cell, own)),
            load,
            rate: of(|sample| sample.rate),
            latency,
            load_bound: load.zip(nanos).is_some_and(|(load, nanos)| load >= nanos),
        })
    }

    /// The median, over the rounds, of one server's value divided by another's of the same round.
    pub(crate) fn ratio(&self, (cell, server): (&str, &str), (base_cell, base): (&str, &str)) -> Option<f64> {
        let ratios = self.of(cell, server).filter_map(|sample| {
            let base = self.of(base_cell, base).find(|other| other.round == sample.round)?;
            Some(sample.value / base.value)
        });
        median(ratios.filter(|ratio| ratio.is_finite()))
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[odd / 2]),
        even => Some((values[even / 2 - 1] + values[even / 2]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_between_the_two() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }
}
