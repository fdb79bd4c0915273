//! Values and times as texts: escaped, and bounded in length.

use std::time::Duration;

use serde::Serialize;

use crate::clock::UnixTime;

/// A text is cut to this many characters.
const MAX_CHARS: usize = 200;

/// A list is cut to this many elements.
const MAX_ELEMENTS: usize = 8;

/// A value as JSON, without control characters and other characters that are not shown.
pub(super) fn json(value: &(impl Serialize + ?Sized)) -> String {
    escaped(&serde_json::to_string(value).unwrap_or_default())
}

/// A text without control characters and other characters that are not shown.
pub(super) fn escaped(text: &str) -> String {
    // The start of a compact JWS: a token within a token is not shown either.
    if text.contains("eyJ") {
        return "[not shown]".to_owned();
    }
    let mut shown = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(MAX_CHARS) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Strings as a JSON array.
pub(super) fn list<S: AsRef<str>>(elements: impl IntoIterator<Item = S>) -> String {
    let texts = elements.into_iter().map(|one| json(one.as_ref()));
    format!("[{}]", joined(texts))
}

/// Texts, separated by commas.
pub(super) fn joined(texts: impl Iterator<Item = String>) -> String {
    let mut texts = texts.peekable();
    let mut shown: Vec<String> = texts.by_ref().take(MAX_ELEMENTS).collect();
    if texts.peek().is_some() {
        shown.push(format!("… {} more", texts.count()));
    }
    shown.join(", ")
}

/// A count with its noun.
pub(super) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// A duration in its two largest units.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let (large, small) = match (days, hours, minutes) {
        (0, 0, 0) => ((seconds, "s"), (0, "")),
        (0, 0, _) => ((minutes, "min"), (seconds % 60, "s")),
        (0, ..) => ((hours, "h"), (minutes % 60, "min")),
        _ => ((days, "d"), (hours % 24, "h")),
    };
    match small {
        (0, _) => format!("{} {}", large.0, large.1),
        (number, unit) => format!("{} {} {number} {unit}", large.0, large.1),
    }
}

/// A time relative to now, such as "5 min ago".
pub(super) fn relative(time: UnixTime, now: UnixTime) -> String {
    match (time.saturating_since(now), now.saturating_since(time)) {
        (Duration::ZERO, Duration::ZERO) => "now".to_owned(),
        (Duration::ZERO, ago) => format!("{} ago", duration(ago)),
        (ahead, _) => format!("in {}", duration(ahead)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_format_characters_are_escaped() {
        assert_eq!(json("a\u{1b}[31m\n"), r#""a\u001b[31m\n""#);
        assert_eq!(json("a\u{7f}\u{202e}b"), r#""a\u{7f}\u{202e}b""#);
        assert_eq!(json(r#"it's "\""#), r#""it's \"\\\"""#);
        assert_eq!(json("é日本"), "\"é日本\"");
        assert_eq!(json("a eyJhbGciOiJub25lIn0.e30."), "[not shown]");
    }

    #[test]
    fn values_and_lists_are_cut() {
        let long = json(&"x".repeat(5000));
        assert_eq!(long.chars().count(), MAX_CHARS + 1);
        assert!(long.ends_with('…'));
        assert_eq!(list(["a", "b"]), r#"["a", "b"]"#);
        let many: Vec<String> = (0..13).map(|number| number.to_string()).collect();
        assert!(list(many).ends_with(r#", "7", … 5 more]"#));
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (300, "5 min"),
            (301, "5 min 1 s"),
            (3600, "1 h"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn times_are_relative_to_now() {
        let now = UnixTime::from_secs(1_700_000_000);
        for (seconds, shown) in [
            (1_700_000_000, "now"),
            (1_699_999_700, "5 min ago"),
            (1_700_000_060, "in 1 min"),
        ] {
            assert_eq!(relative(UnixTime::from_secs(seconds), now), shown);
        }
    }
}
