//! Removes secrets and tokens from what a server says.
//!
//! A server may quote the request that it refuses, or the response that it makes. It may have
//! decoded what it quotes, or have encoded it once more: each secret is looked for in those
//! spellings.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;
use url::form_urlencoded;
use zeroize::Zeroizing;

/// What stands in place of a secret.
const REDACTED: &str = "[redacted]";

/// What stands in place of a text that is not searched for secrets, because it is too long or
/// there are too many of them.
const NOT_SHOWN: &str = "[not shown]";

/// Bytes of a text that is searched.
const MAX_TEXT: usize = 16 * 1024;

/// Secrets that are taken out of one response.
const MAX_MEMBERS: usize = 32;

/// Characters of a text that are kept.
const MAX_SHOWN: usize = 2000;

/// The shortest run of characters that counts as a compact JWS by its beginning alone.
const SHORTEST_JWS: usize = 20;

/// Members of a response that hold secrets, wherever they stand in it.
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

/// The secrets of one exchange, in all of their spellings. Their memory is wiped when they are
/// dropped.
#[derive(Default)]
pub(crate) struct Secrets {
    spellings: Vec<Zeroizing<String>>,
    members: usize,
}

impl Secrets {
    /// Adds a secret, as it is and as it may be quoted.
    pub(crate) fn add(&mut self, secret: &str) {
        // A server that reads RFC 6749 §2.3.1 decodes what another one takes as it is.
        let decoded = Zeroizing::new(form_decoded(secret).into_owned());
        let encoded = form_encoded(secret);
        for plain in [secret, secret.trim(), &decoded, &encoded] {
            let encoded = form_encoded(plain);
            self.add_spelling(&encoded.replace('+', "%20"));
            self.add_spelling(&with_lower_case_escapes(&encoded));
            self.add_spelling(&encoded);
            self.add_spelling(&json_escaped(plain));
            self.add_spelling(plain);
        }
    }

    fn add_spelling(&mut self, spelling: &str) {
        if !spelling.is_empty() && !self.spellings.iter().any(|own| **own == spelling) {
            self.spellings.push(Zeroizing::new(spelling.to_owned()));
        }
    }

    /// Adds the tokens and secrets that stand in a response.
    pub(crate) fn add_members(&mut self, response: &Value) {
        match response {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(secret) if SECRET_MEMBERS.contains(&name.as_str()) => {
                            self.members += 1;
                            if self.members <= MAX_MEMBERS {
                                self.add(secret);
                            }
                        }
                        value => self.add_members(value),
                    }
                }
            }
            Value::Array(members) => members.iter().for_each(|member| self.add_members(member)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The text without these secrets and without anything that looks like a compact JWS, cut to
    /// 2,000 characters after that.
    pub(crate) fn redact(&self, text: &str) -> String {
        if text.len() > MAX_TEXT || self.members > MAX_MEMBERS {
            return NOT_SHOWN.to_owned();
        }
        // The longest first: one may be a part of another.
        let mut spellings: Vec<&str> = self
            .spellings
            .iter()
            .map(|spelling| spelling.as_str())
            .collect();
        spellings.sort_unstable_by_key(|spelling| std::cmp::Reverse(spelling.len()));
        let mut redacted = without_jws(text);
        for spelling in spellings {
            redacted = redacted.replace(spelling, REDACTED);
        }
        redacted.chars().take(MAX_SHOWN).collect()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// As in a form (RFC 6749 appendix B). Of the full length at once: a buffer that grows leaves
/// copies behind.
fn form_encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len().saturating_mul(3)));
    encoded.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    encoded
}

/// The value that a form has, if this stands in it.
fn form_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) || text.contains('&') {
        return Cow::Borrowed(text);
    }
    let value = form_urlencoded::parse(text.as_bytes()).next();
    match value {
        Some((name, value)) if value.is_empty() => name,
        // The part before the first `=` was taken for a name.
        Some((name, value)) => Cow::Owned(format!("{name}={value}")),
        None => Cow::Borrowed(text),
    }
}

/// `%2F` as `%2f`.
fn with_lower_case_escapes(encoded: &str) -> Zeroizing<String> {
    let mut digits = 0;
    let lowered = encoded.chars().map(|c| {
        if c == '%' {
            digits = 2;
        } else if digits > 0 {
            digits -= 1;
            return c.to_ascii_lowercase();
        }
        c
    });
    Zeroizing::new(lowered.collect())
}

/// As in a string of JSON, without the quotation marks.
fn json_escaped(text: &str) -> Zeroizing<String> {
    let json = Zeroizing::new(Value::from(text).to_string());
    Zeroizing::new(
        json.trim_start_matches('"')
            .trim_end_matches('"')
            .to_owned(),
    )
}

/// The text without what begins as a compact JWS does, with `{"` in base64url.
fn without_jws(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.find("eyJ").and_then(|at| rest.split_at_checked(at)) {
        let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
        let (run, behind) = from.split_at_checked(end).unwrap_or((from, ""));
        redacted.push_str(before);
        redacted.push_str(if end >= SHORTEST_JWS { REDACTED } else { run });
        rest = behind;
    }
    redacted.push_str(rest);
    redacted
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
    fn a_secret_is_found_as_it_was_sent_decoded_and_encoded_once_more() {
        for (secret, quote) in [
            ("a/b+\"c", "a/b+\"c"),
            ("a/b+\"c", "a%2Fb%2B%22c"),
            ("a/b+\"c", "a%2fb%2b%22c"),
            ("a/b+\"c", "a%252Fb%252B%2522c"),
            ("a/b+\"c", "a/b+\\\"c"),
            ("a/b c", "a%2Fb+c"),
            ("a/b c", "a%2Fb%20c"),
            // Sent as it is, and decoded all the same.
            ("s3cr3t+x", "s3cr3t x"),
            ("abc+def%2Fgh", "abc def/gh"),
            ("abc=def%2Fgh", "abc=def/gh"),
            ("abcdef\n", "abcdef"),
        ] {
            assert_eq!(
                redact(secret, &format!("<{quote}>")),
                "<[redacted]>",
                "{secret} as {quote}"
            );
        }
        let twice = redact("aa", "aaaaa");
        assert_eq!(twice, "[redacted][redacted]a");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in [
            "",
            "100 % of it",
            "%",
            "%2",
            "%zz",
            "\\",
            "&",
            "é𝄞",
            "eyJ",
            "eyJ eyJ short",
        ] {
            assert_eq!(redact("secret", text), text);
        }
        assert_eq!(redact("", "text"), "text");
    }

    #[test]
    fn a_compact_jws_is_found_without_knowing_it() {
        let jws = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln";
        assert_eq!(
            redact("x", &format!("got {jws}! eyJ and {jws}")),
            "got [redacted]! eyJ and [redacted]"
        );
    }

    #[test]
    fn a_long_text_is_cut_after_it_was_redacted() {
        let text = format!("{}secret", "x".repeat(MAX_SHOWN - 3));
        assert!(!redact("secret", &text).contains("sec"));
        assert_eq!(
            redact("secret", &"x".repeat(MAX_SHOWN * 2)).len(),
            MAX_SHOWN
        );
    }

    /// The work is a fixed number of searches, each linear in a text of bounded length.
    #[test]
    fn neither_long_texts_nor_many_secrets_are_searched() {
        assert_eq!(redact("secret", &"x".repeat(MAX_TEXT + 1)), NOT_SHOWN);
        let mut secrets = Secrets::default();
        let tokens: Vec<Value> = (0..5000)
            .map(|n| serde_json::json!({ "token": format!("t{n}") }))
            .collect();
        secrets.add_members(&Value::from(tokens));
        assert!(secrets.spellings.len() <= MAX_MEMBERS * 20);
        assert_eq!(secrets.redact("t4999"), NOT_SHOWN);
    }
}
