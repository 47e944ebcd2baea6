//! A log-linear histogram: each power of two in 32 equal parts, so that a value is off by 3 % at the most.

const PARTS_LOG: u32 = 5;
const PARTS: usize = 1 << PARTS_LOG;

/// How often each value was seen, nearly.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// What a histogram of times says, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// 99 of 100 are below.
    pub p99: u64,
    /// 999 of 1,000 are below.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (64 - PARTS_LOG as usize + 1) * PARTS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        self.counts[slot(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// The value below which `share` of all are.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(at).min(self.max);
            }
        }
        self.max
    }

    /// The usual ones, unless nothing was recorded.
    pub fn latency(&self) -> Option<Latency> {
        (self.total > 0).then(|| Latency {
            p50: self.quantile(0.5),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: self.max,
        })
    }
}

fn slot(value: u64) -> usize {
    let exponent = (value | PARTS as u64).ilog2() - PARTS_LOG;
    exponent as usize * PARTS + (value >> exponent) as usize
}

/// The middle of what a slot holds.
fn middle(slot: usize) -> u64 {
    if slot < 2 * PARTS {
        return slot as u64;
    }
    let exponent = slot / PARTS - 1;
    let low = (slot - exponent * PARTS) as u64;
    (low << exponent) + (1 << exponent) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_off_by_three_percent_at_the_most() {
        for value in (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) + (1 << bit) / 3, (1 << bit) - 1]) {
            let found = middle(slot(value));
            assert!(found.abs_diff(value) <= value / 32, "{value} became {found}");
        }
    }

    #[test]
    fn quantiles_of_the_first_thousand_are_what_they_should_be() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.record(value));
        let latency = histogram.latency().unwrap();
        assert!(latency.p50.abs_diff(500) <= 16 && latency.p99.abs_diff(990) <= 31);
        assert_eq!(latency.max, 1000);
        assert!(Histogram::default().latency().is_none());
    }
}
