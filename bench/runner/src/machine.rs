//! The machine, and the versions of what was compared. No name of it, and no path.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where it was measured.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    /// The commit of lodger, with a plus when the tree had changes.
    pub(crate) commit: String,
    /// The day, as in 2026-01-31.
    pub(crate) day: String,
    /// Of the peers, as far as they say.
    pub(crate) versions: BTreeMap<String, String>,
}

/// Crates among the peers, or under them.
const CRATES: [&str; 7] =
    ["fastwebsockets", "hyper", "mio", "tokio", "tokio-tungstenite", "tokio-websockets", "tungstenite"];

impl Machine {
    pub(crate) fn look() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let uname = rustix::system::uname();
        Self {
            processor: processor.map_or("unknown".into(), |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from).max(cpus(&processors)),
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                numbers(&uname.release().to_string_lossy())
            ),
            rustc: said("rustc", &["--version"]).unwrap_or_default(),
            commit: commit(),
            day: day(SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs() / 86_400)),
            versions: versions(),
        }
    }
}

fn cpus(processors: &str) -> usize {
    processors.lines().filter(|line| line.starts_with("processor")).count()
}

/// The version itself, without what a distributor or a machine's owner has added.
fn numbers(release: &str) -> String {
    release.split('-').next().unwrap_or_default().to_owned()
}

fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or("unknown".into());
    let changed =
        said("git", &["status", "--porcelain", "--untracked-files=no", "..", ":!../docs/performance"]);
    if changed.is_some_and(|changed| !changed.is_empty()) { commit + "+" } else { commit }
}

fn versions() -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    for package in lock.split("[[package]]") {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version)) = (field("name"), field("version"))
            && CRATES.contains(&name.as_str())
        {
            versions.insert(name, version);
        }
    }
    let peers = said("peers/build", &["dir"]).unwrap_or_default();
    let nginx = format!("{peers}/debian/usr/sbin/nginx");
    let programs: [(&str, &str, &[&str]); 5] = [
        ("libwebsockets", "pkg-config", &["--modversion", "libwebsockets"]),
        ("nginx", "nginx", &["-v"]),
        ("nginx", "/usr/sbin/nginx", &["-v"]),
        ("nginx", &nginx, &["-v"]),
        ("node", "node", &["--version"]),
    ];
    for (name, program, arguments) in programs {
        if !versions.contains_key(name)
            && let Some(version) = said(program, arguments)
        {
            let version = version.rsplit('/').next().unwrap_or_default().trim_start_matches('v').to_owned();
            versions.insert(name.to_owned(), version);
        }
    }
    if let Some(version) = node_ws() {
        versions.insert("ws".to_owned(), version);
    }
    versions
}

/// What is to be installed for Node.
fn node_ws() -> Option<String> {
    let package: serde_json::Value = serde_json::from_slice(&fs::read("peers/package.json").ok()?).ok()?;
    Some(package.get("dependencies")?.get("ws")?.as_str()?.to_owned())
}

/// What a program says when it is asked, on either output.
pub(crate) fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Some(String::from_utf8_lossy(&said).trim().to_owned())
}

/// The date of a day since 1970, in the calendar that is used (days of the 400 years from 1 March 0000).
fn day(days: u64) -> String {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = 400 * era + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(11_016), "2000-02-29");
        assert_eq!(day(20_453), "2025-12-31");
    }
}
