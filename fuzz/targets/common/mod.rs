//! What the targets have in common.

/// Where pieces of `length` bytes end whose sizes are those in `cuts`, over and over; the last one ends at `length`.
pub fn ends(length: usize, cuts: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    let mut cuts = cuts.iter().cycle();
    while at < length {
        at = (at + cuts.next().map_or(length, |&cut| usize::from(cut) + 1)).min(length);
        ends.push(at);
    }
    if ends.is_empty() {
        ends.push(0);
    }
    ends
}

/// The first `count` bytes, and the rest.
pub fn split(data: &[u8], count: usize) -> (&[u8], &[u8]) {
    data.split_at(count.min(data.len()))
}
