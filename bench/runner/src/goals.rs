//! Which goals hold.

use crate::cells::{Cell, Goal};
use crate::results::{Part, Results};

/// How lodger does in a cell.
pub(crate) struct Verdict {
    pub(crate) cell: &'static Cell,
    pub(crate) lodger: f64,
    /// The goal: what was found, and what it may be at most.
    pub(crate) bound: Option<Bound>,
    /// The best peer, and what lodger takes in relation to it.
    pub(crate) best: Option<(String, f64)>,
}

pub(crate) struct Bound {
    pub(crate) found: f64,
    pub(crate) at_most: f64,
    /// Times this raw echo; a value in the cell's unit otherwise.
    pub(crate) raw: Option<(&'static str, &'static str)>,
}

impl Bound {
    pub(crate) fn holds(&self) -> bool {
        self.found <= self.at_most
    }

    pub(crate) fn show(&self, cell: &Cell) -> String {
        match self.raw {
            Some((raw, other)) if other != cell.name => {
                format!("{:.3} x {raw} in {other}, at most {:.2}", self.found, self.at_most)
            }
            Some((raw, _)) => format!("{:.3} x {raw}, at most {:.2}", self.found, self.at_most),
            None => format!("at most {}", cell.unit().show(self.at_most)),
        }
    }
}

impl Verdict {
    /// Whether lodger takes no more than the best peer.
    pub(crate) fn leads(&self) -> Option<bool> {
        self.best.as_ref().map(|(_, ratio)| *ratio <= 1.0)
    }
}

pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    results.cells().filter_map(|cell| verdict(results, cell)).collect()
}

fn verdict(results: &Results, cell: &'static Cell) -> Option<Verdict> {
    let summaries = results.summaries(cell.name);
    let own = cell.lodger();
    let lodger = summaries.iter().find(|summary| summary.server.name == own)?.value;
    let bound = cell.goal.and_then(|goal| match goal {
        Goal::AtMost(at_most) => Some(Bound { found: lodger, at_most, raw: None }),
        Goal::TimesRaw { at_most, raw, cell: other } => {
            let found = results.ratio((cell.name, own), (other, raw))?;
            Some(Bound { found, at_most, raw: Some((raw, other)) })
        }
    });
    let peers = summaries.iter().filter(|summary| summary.server.part() == Part::Peer);
    let best = peers.min_by(|one, other| one.value.total_cmp(&other.value)).and_then(|peer| {
        let name = &peer.server.name;
        Some((name.clone(), results.ratio((cell.name, own), (cell.name, name))?))
    });
    Some(Verdict { cell, lodger, bound, best })
}
