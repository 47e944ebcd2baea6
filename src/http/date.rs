//! The `Date` field's value (RFC 9110, sections 5.6.7 and 6.6.1), made once a second.

use httpdate::HttpDate;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last moment that four digits of a year can say, in seconds since the epoch.
const LAST: u64 = 253_402_300_799;

/// The current time as `IMF-fixdate`. The caller reads the clock.
#[derive(Debug)]
pub(crate) struct DateCache {
    second: Option<u64>,
    text: String,
}

impl DateCache {
    /// A cache that has not seen a time.
    pub(crate) fn new() -> Self {
        Self { second: None, text: String::new() }
    }

    /// `now` in 29 characters. A time that `IMF-fixdate` cannot say becomes the nearest that it can.
    pub(crate) fn text(&mut self, now: SystemTime) -> &str {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(LAST);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
            write!(self.text, "{date}").expect("a String takes everything");
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfc_example_is_written_as_in_the_rfc() {
        let mut cache = DateCache::new();
        let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(cache.text(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.text(time + Duration::from_millis(999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.text(time + Duration::from_secs(1)), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(cache.text(time), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn times_out_of_range_become_the_nearest_in_range() {
        let mut cache = DateCache::new();
        assert_eq!(cache.text(UNIX_EPOCH - Duration::from_secs(5)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(cache.text(UNIX_EPOCH + Duration::from_secs(LAST + 5)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
