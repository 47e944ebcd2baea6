//! The report: one page that needs nothing else.

use crate::cells::{Cell, Unit, grouped};
use crate::goals::{Verdict, verdicts};
use crate::results::{Part, Results, Summary};
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M8 1 1 7v8h14V7z' fill='%2339617f'/%3E%3Crect x='6' y='9' width='4' height='6' fill='%23f0915a'/%3E%3C/svg%3E";

pub(crate) fn html(results: &Results) -> String {
    let mut page = String::new();
    let out = &mut page;
    let verdicts = verdicts(results);
    put(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    put(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    put(out, "<meta name=\"color-scheme\" content=\"light dark\">\n<title>lodger · how fast it is</title>\n");
    put(out, &format!("<link rel=\"icon\" href=\"{ICON}\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n"));
    put(out, "<div class=\"page\">\n");
    header(out, results, &verdicts);
    put(out, "<main>\n");
    goals(out, &verdicts);
    charts(out, results);
    details(out, results);
    method(out, results);
    put(out, "</main>\n</div>\n</body>\n</html>\n");
    page
}

fn put(out: &mut String, text: &str) {
    out.push_str(text);
}

fn header(out: &mut String, results: &Results, verdicts: &[Verdict]) {
    let holds = |verdict: &&Verdict| verdict.bound.as_ref().is_none_or(|bound| bound.holds());
    let bounded: Vec<_> = verdicts.iter().filter(|verdict| verdict.bound.is_some()).collect();
    let reached = bounded.iter().copied().filter(holds).count();
    let compared = verdicts.iter().filter(|verdict| verdict.leads().is_some()).count();
    let leads = verdicts.iter().filter(|verdict| verdict.leads() == Some(true)).count();
    let machine = &results.machine;
    let cores = if machine.cores == 1 { "1 core".into() } else { format!("{} cores", machine.cores) };
    let _ = write!(
        out,
        "<header>\n<div><h1>What a message costs, with <em>lodger</em> and with others</h1>\n\
         <p>{}, {cores}; {}; {}. lodger {}, {}. Medians of {} rounds of {:.2} s, in which all servers take turns. \
         Figures hold for this machine; compare within a row.</p></div>\n\
         <ul class=\"tiles\"><li><b>{reached} of {}</b> bounds hold</li><li><b>{leads} of {compared}</b> best of all peers</li></ul>\n</header>\n",
        escape(&machine.processor),
        escape(&machine.kernel),
        escape(&machine.rustc),
        escape(&machine.commit),
        escape(&machine.day),
        results.rounds,
        results.seconds,
        bounded.len(),
    );
}

fn goals(out: &mut String, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    put(
        out,
        "<section>\n<div class=\"head\"><h2>What lodger has to reach</h2><p>in an epoll loop, against the floor and the best peer of the same run</p></div>\n",
    );
    put(
        out,
        "<div class=\"scroll\"><table>\n<thead><tr><th>what</th><th class=\"number\">lodger</th><th>bound</th><th class=\"number\">found</th><th></th><th>best peer</th><th class=\"number\">lodger to it</th><th></th></tr></thead>\n<tbody>\n",
    );
    for verdict in verdicts {
        let unit = verdict.cell.unit();
        let (bound, found, mark) = match &verdict.bound {
            Some(bound) => {
                let (words, found) = match bound.raw {
                    Some((raw, cell)) => {
                        let of =
                            if cell == verdict.cell.name { String::new() } else { format!(" in {cell}") };
                        (format!("{:.2} × {raw}{of}", bound.at_most), format!("{:.3} ×", bound.found))
                    }
                    None => (unit.show(bound.at_most), unit.show(bound.found)),
                };
                (words, found, mark(bound.holds()))
            }
            None => (String::new(), String::new(), String::new()),
        };
        let (peer, ratio) = verdict
            .best
            .as_ref()
            .map_or((String::new(), String::new()), |(name, ratio)| (escape(name), format!("{ratio:.3} ×")));
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"number strong\">{}</td><td>{bound}</td><td class=\"number\">{found}</td><td>{mark}</td><td>{peer}</td><td class=\"number\">{ratio}</td><td>{}</td></tr>",
            escape(&verdict.cell.title()),
            unit.show(verdict.lodger),
            verdict.leads().map_or(String::new(), self::mark),
        );
    }
    put(out, "</tbody></table></div>\n</section>\n");
}

fn mark(holds: bool) -> String {
    let (class, word) = if holds { ("ok", "holds") } else { ("bad", "missed") };
    format!("<span class=\"mark {class}\">{word}</span>")
}

fn charts(out: &mut String, results: &Results) {
    put(
        out,
        "<ul class=\"legend\"><li class=\"lodger\">lodger in an epoll loop</li><li class=\"guise\">lodger in other loops</li><li class=\"raw\">raw echo, without a protocol: the floor</li><li class=\"peer\">others</li><li class=\"whisker\">least to most of the rounds</li></ul>\n",
    );
    put(out, "<div class=\"cards\">\n");
    for cell in results.cells() {
        let mut summaries = results.summaries(cell.name);
        if summaries.is_empty() {
            continue;
        }
        summaries.sort_by(|one, other| one.value.total_cmp(&other.value));
        let _ = write!(
            out,
            "<section class=\"card\">\n<div class=\"head\"><h2>{}</h2><p>{}; less is better</p></div>\n",
            escape(&cell.title()),
            cell.unit().words()
        );
        chart(out, cell, &summaries);
        put(out, "</section>\n");
    }
    put(out, "</div>\n");
}

const ROW: usize = 24;
/// Where the bars begin and how long the longest is, in a drawing 600 wide.
const BAR: (f64, f64) = (178.0, 330.0);

/// A bar for each server, the best on top. What is beyond four times the median ends in an arrow, so that the others stay
/// apart.
fn chart(out: &mut String, cell: &Cell, summaries: &[Summary<'_>]) {
    let middle = summaries[summaries.len() / 2].value;
    let longest =
        summaries.iter().map(|summary| summary.value).fold(0.0, f64::max).min(4.0 * middle).max(1e-9);
    let height = ROW * summaries.len() + 8;
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 600 {height}\" role=\"img\" aria-label=\"{}\">",
        escape(&format!("{}, by server", cell.title()))
    );
    let (from, width) = BAR;
    let x = |value: f64| from + width * (value.clamp(0.0, longest) / longest);
    for (at, summary) in summaries.iter().enumerate() {
        let top = at * ROW + 4;
        let class = class(summary.server.part());
        let end = x(summary.value);
        let cut = summary.value > longest * 1.001;
        let (name, middle) = (escape(&summary.server.name), top + ROW / 2);
        let ratio = summary.to_lodger.map_or(String::new(), |ratio| format!(", {ratio:.3} times lodger"));
        let _ = writeln!(
            out,
            "<g class=\"{class}\"><title>{name}: {}{ratio}; {} to {}</title><text class=\"name\" x=\"{}\" y=\"{}\">{name}</text>\
             <rect x=\"{from}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" rx=\"3\"/>{}<text class=\"value\" x=\"{}\" y=\"{}\">{}</text></g>",
            cell.unit().show(summary.value),
            cell.unit().show(summary.least),
            cell.unit().show(summary.most),
            from - 10.0,
            middle + 4,
            top + 4,
            (end - from).max(1.0),
            ROW - 8,
            if cut {
                format!(
                    "<path class=\"cut\" d=\"M{:.1} {}l5 {}l-5 {}\"/>",
                    end - 9.0,
                    top + 4,
                    (ROW - 8) / 2,
                    (ROW - 8) / 2
                )
            } else {
                format!(
                    "<path class=\"whisker\" d=\"M{:.1} {middle}H{:.1}\"/>",
                    x(summary.least),
                    x(summary.most)
                )
            },
            600,
            middle + 4,
            cell.unit().show(summary.value),
        );
    }
    put(out, "</svg>\n");
}

fn class(part: Part) -> &'static str {
    match part {
        Part::Lodger => "lodger",
        Part::Guise => "guise",
        Part::Raw => "raw",
        Part::Peer => "peer",
    }
}

/// All figures.
fn details(out: &mut String, results: &Results) {
    put(out, "<section>\n<details>\n<summary><h2>All figures</h2></summary>\n");
    put(
        out,
        "<div class=\"scroll\"><table class=\"all\">\n<thead><tr><th>server</th><th class=\"number\">median</th><th class=\"number\">least</th><th class=\"number\">most</th><th class=\"number\">to lodger</th><th class=\"number\">load’s own</th><th class=\"number\">in a second</th><th class=\"number\">p50</th><th class=\"number\">p99</th><th class=\"number\">p99.9</th></tr></thead>\n",
    );
    for cell in results.cells() {
        let summaries = results.summaries(cell.name);
        if summaries.is_empty() {
            continue;
        }
        let title = escape(&cell.title());
        let _ = writeln!(
            out,
            "<tbody><tr class=\"of\"><th colspan=\"10\">{title} <span>{}</span></th></tr>",
            cell.name
        );
        for summary in &summaries {
            detail(out, cell, summary);
        }
        put(out, "</tbody>\n");
    }
    put(out, "</table></div>\n");
    put(
        out,
        "<p class=\"note\">* The load took no less processor time than the server: rate and latency are then the load’s as much as the server’s. The server’s processor time is not touched by that.</p>\n",
    );
    put(out, "</details>\n</section>\n");
}

fn detail(out: &mut String, cell: &Cell, summary: &Summary<'_>) {
    let show = |value| cell.unit().show(value);
    let ratio = summary.to_lodger.map_or(String::new(), |ratio| format!("{ratio:.3}"));
    let load = summary.load.filter(|load| *load > 0.0).map_or(String::new(), |load| {
        format!("{}{}", Unit::Processor.show(load), if summary.load_bound { " *" } else { "" })
    });
    let rate = summary.rate.map_or(String::new(), |rate| grouped(rate.round() as i64));
    let _ = write!(
        out,
        "<tr class=\"{}\"><td>{}</td><td class=\"number strong\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{ratio}</td><td class=\"number\">{load}</td><td class=\"number\">{rate}</td>",
        class(summary.server.part()),
        escape(&summary.server.name),
        show(summary.value),
        show(summary.least),
        show(summary.most),
    );
    for at in 0..3 {
        let latency =
            summary.latency.map_or(String::new(), |latency| format!("{:.1} µs", latency[at] / 1000.0));
        let _ = write!(out, "<td class=\"number\">{latency}</td>");
    }
    put(out, "</tr>\n");
}

fn method(out: &mut String, results: &Results) {
    let versions = results
        .machine
        .versions
        .iter()
        .map(|(name, version)| format!("{} {}", escape(name), escape(version)));
    let _ = write!(
        out,
        "<section>\n<div class=\"head\"><h2>How it is measured</h2><p>bench/README.md</p></div>\n<div class=\"words\">\n\
         <p>Each server is started anew for each measurement and bound to one processor, the load to another; they talk over \
         loopback, without compression. What counts is the processor time that the server takes for a message, user and \
         system, of all its threads and processes. It does not depend on how fast the load is. The servers take turns in \
         each round, so that whatever the machine does meanwhile happens to all; ratios are taken within a round, and of \
         these the median.</p>\n<p>Latency is that of a closed loop, at saturation, except where a number of messages in a second \
         is given: there it is counted from when the message was to be sent. Memory is what no file backs, of a server with \
         10,000 connections, divided by their number.</p>\n<p>{}.</p>\n<p>It took {:.0} minutes.</p>\n",
        versions.collect::<Vec<_>>().join(", "),
        (results.took / 60.0).ceil()
    );
    if !results.failures.is_empty() {
        put(out, "<p>Failed, and left out:</p>\n<ul>\n");
        for failure in &results.failures {
            let _ = writeln!(out, "<li>{}</li>", escape(failure));
        }
        put(out, "</ul>\n");
    }
    put(out, "</div>\n</section>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
