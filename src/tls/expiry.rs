//! When to report how long a certificate is still valid: by deadline, never by a tick.

use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The days left at which a report is due. After the last one, expiry itself, one is due each day.
const MARKS: [u32; 7] = [30, 14, 7, 3, 2, 1, 0];

/// The days left of a certificate, and how long until the next report is due; it is never due at once.
///
/// Days are counted as begun: 1 during the last 24 hours, 0 or less once `not_after` is reached. So a report that comes a
/// little late, as timers do, has the number of its mark still.
pub(crate) fn next_report(now: SystemTime, not_after: SystemTime) -> (i64, Duration) {
    match not_after.duration_since(now) {
        Ok(left) if !left.is_zero() => {
            let next = MARKS.into_iter().map(|days| DAY * days).find(|mark| *mark < left);
            (whole_days(begun(left)), left - next.unwrap_or(Duration::ZERO))
        }
        Ok(_) => (0, DAY),
        Err(past) => {
            let past = past.duration();
            let days = past.as_secs() / DAY.as_secs();
            let into = Duration::new(past.as_secs() % DAY.as_secs(), past.subsec_nanos());
            (-whole_days(days), DAY - into)
        }
    }
}

/// How many days have begun.
fn begun(left: Duration) -> u64 {
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    seconds.div_ceil(DAY.as_secs())
}

fn whole_days(days: u64) -> i64 {
    i64::try_from(days).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const SECOND: Duration = Duration::from_secs(1);

    fn end() -> SystemTime {
        UNIX_EPOCH + DAY * 20_000
    }

    #[test]
    fn reports_come_at_thirty_fourteen_seven_three_two_one_and_no_days_left_and_daily_after() {
        let mut now = end() - DAY * 90;
        let mut reports = Vec::new();
        for _ in 0..11 {
            let (days, wait) = next_report(now, end());
            reports.push(days);
            now += wait;
        }
        assert_eq!(reports, [90, 30, 14, 7, 3, 2, 1, 0, -1, -2, -3]);
    }

    #[test]
    fn late_report_has_the_number_of_its_mark_and_the_next_one_is_not_shifted() {
        let (days, wait) = next_report(end() - DAY * 30 + SECOND, end());
        assert_eq!(days, 30);
        assert_eq!(wait, DAY * 16 - SECOND);
        let (days, wait) = next_report(end() + SECOND, end());
        assert_eq!(days, 0);
        assert_eq!(wait, DAY - SECOND);
    }

    #[test]
    fn days_are_counted_as_begun() {
        assert_eq!(next_report(end() - SECOND, end()), (1, SECOND));
        assert_eq!(next_report(end() - DAY, end()), (1, DAY));
        assert_eq!(next_report(end() - DAY - Duration::from_nanos(1), end()), (2, Duration::from_nanos(1)));
        assert_eq!(next_report(end(), end()), (0, DAY));
        assert_eq!(next_report(end() + DAY, end()), (-1, DAY));
    }

    #[test]
    fn next_report_is_never_due_at_once() {
        for seconds in (0..DAY.as_secs() * 40).step_by(1801) {
            for now in [end() - SECOND * seconds as u32, end() + SECOND * seconds as u32] {
                let (_, wait) = next_report(now, end());
                assert!(wait > Duration::ZERO && wait <= DAY * 16, "{seconds}: {wait:?}");
            }
        }
    }
}
