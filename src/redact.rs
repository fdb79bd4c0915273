//! Removes secrets and tokens from what a server says.
//!
//! A server may quote the request that it refuses, or its own answer. It may have decoded what it
//! quotes, or have encoded it again: so each character of a secret is recognised as it is,
//! percent-encoded, form-urlencoded, as an escape of JSON, or as a character reference of HTML.

use std::fmt;

use serde_json::Value;
use url::form_urlencoded;
use zeroize::Zeroizing;

/// What stands in place of a secret.
const REDACTED: &str = "[redacted]";

/// Characters of a text that are kept. It bounds the work on a text of any length, too.
const LONGEST: usize = 2000;

/// The shortest run of characters that counts as a compact JWS by its beginning alone.
const SHORTEST_JWS: usize = 20;

/// Members of an answer that hold secrets, wherever they stand in it.
const SECRET_MEMBERS: [&str; 10] = [
    "access_token",
    "apikey",
    "assertion",
    "client_assertion",
    "client_secret",
    "id_token",
    "password",
    "refresh_token",
    "secret",
    "token",
];

/// The secrets of one exchange. Their memory is wiped when they are dropped.
#[derive(Default)]
pub(crate) struct Secrets(Vec<Zeroizing<String>>);

impl Secrets {
    /// Adds a secret; its encodings are recognised by themselves.
    pub(crate) fn add(&mut self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        // Of the full length at once: a buffer that grows leaves copies behind.
        let mut encoded = Zeroizing::new(String::with_capacity(secret.len().saturating_mul(3)));
        encoded.extend(form_urlencoded::byte_serialize(secret.as_bytes()));
        if *encoded != secret {
            // It went out form-urlencoded; a server may quote that in another encoding.
            self.0.push(encoded);
        }
        self.0.push(Zeroizing::new(secret.to_owned()));
    }

    /// Adds the tokens and secrets that stand in an answer.
    pub(crate) fn add_members(&mut self, answer: &Value) {
        match answer {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(secret) if SECRET_MEMBERS.contains(&name.as_str()) => self.add(secret),
                        value => self.add_members(value),
                    }
                }
            }
            Value::Array(members) => members.iter().for_each(|member| self.add_members(member)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The text without these secrets and without anything that looks like a compact JWS; cut to
    /// 2,000 characters after that.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut redacted = String::new();
        let mut rest = text;
        let mut length = 0;
        while let (Some(c), true) = (rest.chars().next(), length < LONGEST) {
            let secret = self.0.iter().filter_map(|secret| prefix_len(rest, secret)).max();
            match secret.or_else(|| compact_jws(rest)) {
                Some(end) => {
                    redacted.push_str(REDACTED);
                    length += REDACTED.len();
                    rest = rest.get(end..).unwrap_or_default();
                }
                None => {
                    redacted.push(c);
                    length += 1;
                    rest = rest.get(c.len_utf8()..).unwrap_or_default();
                }
            }
        }
        redacted
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// The length of what begins as a compact JWS does, with `{"` in base64url.
fn compact_jws(text: &str) -> Option<usize> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    (text.starts_with("eyJ") && end >= SHORTEST_JWS).then_some(end)
}

/// The length of the longest beginning of `text` that stands for `secret`.
fn prefix_len(text: &str, secret: &str) -> Option<usize> {
    // A character of the secret may be one that begins an escape, so that there are several ways to
    // read the text: all of them are followed.
    let mut ends = vec![0];
    for c in secret.chars() {
        let mut next: Vec<usize> = Vec::new();
        for end in ends {
            let rest = text.get(end..).unwrap_or_default();
            next.extend(spellings(rest, c).into_iter().flatten().map(|length| end + length));
        }
        next.sort_unstable();
        next.dedup();
        if next.is_empty() {
            return None;
        }
        ends = next;
    }
    ends.last().copied().filter(|end| *end > 0)
}

/// The lengths of the beginnings of `text` that stand for `c`.
fn spellings(text: &str, c: char) -> [Option<usize>; 3] {
    let as_it_is = text.starts_with(c).then(|| c.len_utf8());
    match text.as_bytes().first() {
        Some(b'%') => [as_it_is, percent_encoded(text, c), None],
        Some(b'+') => [as_it_is, (c == ' ').then_some(1), None],
        Some(b'\\') => [as_it_is, backslashed(text, c), unicode_escaped(text, c)],
        Some(b'&') => [as_it_is, character_reference(text, c), None],
        _ => [as_it_is, None, None],
    }
}

/// `%C3%A9` (RFC 3986 §2.1).
fn percent_encoded(text: &str, c: char) -> Option<usize> {
    let mut rest = text;
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        let digits = rest.strip_prefix('%')?.get(..2)?;
        if u8::from_str_radix(digits, 16).ok()? != byte {
            return None;
        }
        rest = rest.get(3..)?;
    }
    Some(text.len() - rest.len())
}

/// `\/` and its like (RFC 8259 §7).
fn backslashed(text: &str, c: char) -> Option<usize> {
    let letter = match c {
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        c => c,
    };
    text.strip_prefix('\\')?.starts_with(letter).then(|| 1 + letter.len_utf8())
}

/// `\u00e9`, or two of them (RFC 8259 §7).
fn unicode_escaped(text: &str, c: char) -> Option<usize> {
    let mut rest = text;
    for unit in c.encode_utf16(&mut [0; 2]) {
        let digits = rest.strip_prefix("\\u")?.get(..4)?;
        if u16::from_str_radix(digits, 16).ok()? != *unit {
            return None;
        }
        rest = rest.get(6..)?;
    }
    Some(text.len() - rest.len())
}

/// `&amp;`, `&#38;` or `&#x26;`.
fn character_reference(text: &str, c: char) -> Option<usize> {
    let (name, _) = text.strip_prefix('&')?.split_at_checked(text.find(';')?.checked_sub(1)?)?;
    let code = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    let named = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => match name.strip_prefix('#')? {
            digits if digits.starts_with(['x', 'X']) => code(digits.get(1..)?, 16),
            digits => code(digits, 10),
        },
    };
    (named == Some(c)).then_some(name.len() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(secret: &str, text: &str) -> String {
        let mut secrets = Secrets::default();
        secrets.add(secret);
        secrets.redact(text)
    }

    #[test]
    fn a_secret_is_found_in_any_mixture_of_encodings() {
        for quote in
            ["a%b \"é\\&", "a%25b+%22%C3%A9%5c%26", "a%b%20\\\"\\u00e9\\\\&amp;", "a%25b &quot;é\\&#x26;"]
        {
            assert_eq!(redact("a%b \"é\\&", &format!("<{quote}>")), "<[redacted]>", "{quote}");
        }
        assert_eq!(redact("%25", "%25 and %2525"), "[redacted] and [redacted]");
        assert_eq!(redact("𝄞", "\\ud834\\udd1e"), "[redacted]");
        assert_eq!(redact("aa", "aaaaa"), "[redacted][redacted]a");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in
            ["", "100 % of it", "%", "%2", "%zz", "\\", "\\u12", "&", "&;", "&#;", "&#x;", "é𝄞", "eyJ"]
        {
            assert_eq!(redact("secret", text), text);
        }
        assert_eq!(redact("", "text"), "text");
    }

    #[test]
    fn a_compact_jws_is_found_without_knowing_it() {
        assert_eq!(redact("x", "got eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln!"), "got [redacted]!");
    }

    #[test]
    fn a_long_text_is_cut_after_it_was_redacted() {
        let text = format!("{}secret", "x".repeat(LONGEST - 3));
        assert!(!redact("secret", &text).contains("sec"));
        assert_eq!(redact("secret", &"x".repeat(LONGEST * 2)).len(), LONGEST);
    }
}
