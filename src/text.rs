//! Values and times as texts, for events and explanations: escaped, and bounded in length.

use std::time::Duration;

use serde::Serialize;

use crate::clock::UnixTime;
use crate::redact::without_jws;

/// A value is cut to this many characters.
const MAX_CHARS: usize = 200;

/// A list is cut to this many elements.
const MAX_ELEMENTS: usize = 8;

/// A value of a token or of a document as JSON. A token within it is not shown.
pub(crate) fn shown(value: &(impl Serialize + ?Sized)) -> String {
    shown_text(&to_json(value))
}

/// A text of a token or of a document. A token within it is not shown.
pub(crate) fn shown_text(text: &str) -> String {
    escaped(&without_jws(text))
}

/// Strings of a token as a JSON array.
pub(crate) fn shown_list<S: AsRef<str>>(elements: impl IntoIterator<Item = S>) -> String {
    array(elements, |one| shown(one.as_ref()))
}

/// A value of the settings as JSON.
pub(crate) fn setting(value: &(impl Serialize + ?Sized)) -> String {
    escaped(&to_json(value))
}

/// Strings of the settings as a JSON array.
pub(crate) fn setting_list<S: AsRef<str>>(elements: impl IntoIterator<Item = S>) -> String {
    array(elements, |one| setting(one.as_ref()))
}

fn to_json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Values as an array, each as this text.
pub(crate) fn array<T>(
    elements: impl IntoIterator<Item = T>,
    text: impl FnMut(T) -> String,
) -> String {
    format!("[{}]", joined(elements.into_iter().map(text)))
}

/// A text without control characters and other characters that are not shown, cut.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::new();
    let mut chars = text.chars();
    let mut count = 0;
    for c in chars.by_ref() {
        let escape = match c {
            '"' | '\'' | '\\' => c.to_string(),
            _ => c.escape_debug().to_string(),
        };
        count += escape.chars().count();
        if count > MAX_CHARS {
            shown.push('…');
            break;
        }
        shown.push_str(&escape);
    }
    shown
}

/// Texts, separated by commas.
pub(crate) fn joined(texts: impl Iterator<Item = String>) -> String {
    let mut texts = texts.peekable();
    let mut shown: Vec<String> = texts.by_ref().take(MAX_ELEMENTS).collect();
    if texts.peek().is_some() {
        shown.push(format!("and {} more", texts.count()));
    }
    shown.join(", ")
}
/// A count with its noun.
pub(crate) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// A duration in its two largest units.
pub(crate) fn duration(duration: Duration) -> String {
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
pub(crate) fn relative(time: UnixTime, now: UnixTime) -> String {
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
        assert_eq!(shown("a\u{1b}[31m\n"), r#""a\u001b[31m\n""#);
        assert_eq!(shown("a\u{7f}\u{202e}b"), r#""a\u{7f}\u{202e}b""#);
        assert_eq!(shown(r#"it's "\""#), r#""it's \"\\\"""#);
        assert_eq!(shown("é日本"), "\"é日本\"");
        assert_eq!(shown(&Some(["a"])), r#"["a"]"#);
    }

    #[test]
    fn a_token_within_a_value_is_not_shown() {
        let jws = "eyJhbGciOiJub25lIn0.e30.";
        assert_eq!(shown(&format!("a {jws}")), r#""a [redacted]""#);
        assert_eq!(shown_list([jws, "b"]), r#"["[redacted]", "b"]"#);
        for text in ["surveyJobs", "https://a.example/eyJ", "eyJs"] {
            assert_eq!(shown(text), format!("\"{text}\""));
        }
    }

    #[test]
    fn a_setting_is_shown_whatever_it_looks_like() {
        let long = "surveyJobs.of.the.whole.company";
        assert_eq!(setting(long), format!("\"{long}\""));
        assert_eq!(setting_list([long]), format!("[\"{long}\"]"));
    }

    #[test]
    fn values_and_lists_are_cut() {
        for (long, cut) in [
            ("x".repeat(5000), format!("\"{}…", "x".repeat(199))),
            ("é".repeat(5000), format!("\"{}…", "é".repeat(199))),
            (
                "\u{202e}".repeat(5000),
                format!("\"{}…", "\\u{202e}".repeat(24)),
            ),
        ] {
            assert_eq!(shown(&long), cut);
        }
        assert_eq!(shown(&"x".repeat(198)), format!("\"{}\"", "x".repeat(198)));
        assert_eq!(shown_list::<&str>([]), "[]");
        assert_eq!(shown_list(["a", "b"]), r#"["a", "b"]"#);
        let many: Vec<String> = (0..13).map(|number| number.to_string()).collect();
        assert!(shown_list(many).ends_with(r#", "7", and 5 more]"#));
        let largest = shown_list(vec!["\u{10ffff}".repeat(5_000); 5_000]);
        assert!(largest.chars().count() < 1_700, "{}", largest.len());
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
