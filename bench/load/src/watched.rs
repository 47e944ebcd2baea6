//! The server that is measured, seen from outside.

use crate::system::process_time;
use std::fs;
use std::io;
use std::time::Duration;

/// A process and what it started: nginx, for one, works in children.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pid: i32,
}

impl Watched {
    /// The process of this number.
    pub fn new(pid: i32) -> Self {
        Self { pid }
    }

    /// The processor time that all of it took so far, user and system.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn time(&self) -> io::Result<Duration> {
        self.all().into_iter().map(process_time).sum()
    }

    /// The processor time of the process alone: a look that takes little time itself.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn own_time(&self) -> io::Result<Duration> {
        process_time(self.pid)
    }

    /// The memory that all of it has for itself and that no file backs: heap and stacks, in bytes.
    ///
    /// # Errors
    ///
    /// It has ended, or the system does not tell.
    pub fn memory(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for pid in self.all() {
            let sums = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let anonymous = sums.lines().find_map(|line| line.strip_prefix("Anonymous:"));
            let kilobytes = anonymous.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            bytes += 1024 * kilobytes.ok_or_else(|| io::Error::other("no such line in smaps_rollup"))?;
        }
        Ok(bytes)
    }

    /// Looked up each time: a server accepts before all of its processes are there.
    fn all(&self) -> Vec<i32> {
        let mut pids = vec![self.pid];
        let mut at = 0;
        while let Some(parent) = pids.get(at) {
            let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
            let children: Vec<i32> = threads
                .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
                .flat_map(|children| children.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
                .collect();
            pids.extend(children);
            at += 1;
        }
        pids
    }
}
