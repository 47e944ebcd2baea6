//! What happened in a simulated world, kept so that runs can be compared and a failure can be told.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};

/// The latest lines, and a sum over all of them.
#[derive(Default)]
pub(super) struct Log {
    lines: u64,
    sum: DefaultHasher,
    recent: VecDeque<String>,
}

impl Log {
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        let mut text = match self.recent.len() {
            KEPT => self.recent.pop_front().unwrap_or_default(),
            _ => String::new(),
        };
        text.clear();
        // Writing to a String cannot fail.
        let _ = fmt::write(&mut text, line);
        self.lines += 1;
        self.sum.write(text.as_bytes());
        self.sum.write_u8(b'\n');
        self.recent.push_back(text);
    }

    /// The same after the same lines, and hardly ever after others.
    pub(super) fn fingerprint(&self) -> u64 {
        self.sum.finish()
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the last {} of {} lines:", self.recent.len(), self.lines)?;
        self.recent.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

const KEPT: usize = 60;
