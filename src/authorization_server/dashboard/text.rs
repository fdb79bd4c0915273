//! Times, errors and counts as text.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::UnixTime;
use crate::error::ConfigError;

/// A duration in its two largest units.
pub(super) fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        (1, ..) => format!("1 day {} h", hours % 24),
        _ => format!("{days} days {} h", hours % 24),
    }
}

/// The age of an event, such as "2 h 0 min ago".
pub(super) fn format_age(then: UnixTime, now: UnixTime) -> String {
    match now.saturating_since(then) {
        Duration::ZERO => "just now".to_owned(),
        age => format!("{} ago", format_duration(age)),
    }
}

/// Date and time in UTC.
pub(super) fn format_date(time: UnixTime) -> String {
    // HTTP dates end with the year 9999.
    let time = Duration::from_secs(time.as_secs().min(253_402_300_799));
    UNIX_EPOCH
        .checked_add(time)
        .map(httpdate::fmt_http_date)
        .unwrap_or_default()
}

/// The duration of a request.
pub(super) fn format_elapsed(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "< 1 ms".to_owned(),
        millis @ ..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// An error as a sentence.
pub(super) fn error_sentence(error: &ConfigError) -> String {
    let text = error.to_string();
    let mut rest = text.chars();
    let first = rest.next().into_iter().flat_map(char::to_uppercase);
    first.chain(rest).chain(['.']).collect()
}

/// A count with its noun.
pub(super) fn pluralize(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_their_two_largest_units() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (3599, "59 min 59 s"),
            (3600, "1 h 0 min"),
            (90_000, "1 day 1 h"),
            (200_000, "2 days 7 h"),
        ] {
            assert_eq!(format_duration(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn dates_are_capped_at_the_year_9999() {
        assert_eq!(
            format_date(UnixTime::from_secs(0)),
            "Thu, 01 Jan 1970 00:00:00 GMT"
        );
        assert_eq!(
            format_date(UnixTime::from_secs(u64::MAX)),
            "Fri, 31 Dec 9999 23:59:59 GMT"
        );
    }
}
