//! The results as text.

use crate::cells::Cell;
use crate::goals::verdicts;
use crate::results::{Results, Summary};

pub(crate) fn print(results: &Results) {
    for cell in results.cells() {
        let summaries = results.summaries(cell.name);
        if !summaries.is_empty() {
            print_cell(cell, &summaries);
        }
    }
    if results.cells().any(|cell| results.summaries(cell.name).iter().any(|summary| summary.load_bound)) {
        println!(
            "\n* the load took no less than the server: rate and latency are the load's as much as the server's"
        );
    }
    print_goals(results);
    for failure in &results.failures {
        println!("failed: {failure}");
    }
}

fn print_cell(cell: &Cell, summaries: &[Summary<'_>]) {
    println!("\n{}: {}, {}", cell.name, cell.title(), cell.unit().words());
    println!(
        "  {:<26}{:>12}  {:<25}{:>9}{:>11}{:>12}{:>9}{:>9}{:>9} µs",
        "", "median", "least .. most", "x lodger", "load", "in a s", "p50", "p99", "p99.9"
    );
    for summary in summaries {
        let show = |value| cell.unit().show(value);
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let micros =
            |at: usize| or_none(summary.latency.map(|latency| format!("{:.0}", latency[at] / 1000.0)));
        println!(
            "  {:<26}{:>12}  {:<25}{:>9}{:>11}{:>12}{:>9}{:>9}{:>9}",
            summary.server.name,
            show(summary.value),
            format!("{} .. {}", show(summary.least), show(summary.most)),
            or_none(summary.to_lodger.map(|ratio| format!("{ratio:.3}"))),
            or_none(
                summary
                    .load
                    .filter(|load| *load > 0.0)
                    .map(|load| format!("{load:.0} ns{}", if summary.load_bound { "*" } else { "" }))
            ),
            or_none(summary.rate.map(|rate| format!("{rate:.0}"))),
            micros(0),
            micros(1),
            micros(2),
        );
    }
}

fn print_goals(results: &Results) {
    let verdicts = verdicts(results);
    if verdicts.is_empty() {
        return;
    }
    println!("\nGoals of lodger-epoll in this run");
    for verdict in verdicts {
        let mark = |holds: bool| if holds { "holds " } else { "MISSED" };
        let show = verdict.cell.unit().show(verdict.lodger);
        let bound = match (&verdict.bound, verdict.cell.goal) {
            (Some(bound), _) => format!("{} {}", mark(bound.holds()), bound.show(verdict.cell)),
            (None, Some(_)) => "       its measure was left out".into(),
            (None, None) => "       no bound of its own".into(),
        };
        let best = match (&verdict.best, verdict.leads()) {
            (Some((name, ratio)), Some(leads)) => {
                format!("{} {ratio:.3} x the best peer, {name}", mark(leads))
            }
            _ => "no peer".into(),
        };
        println!("  {:<16}{show:>12}  {bound:<48}{best}", verdict.cell.name);
    }
}
