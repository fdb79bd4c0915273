//! Removes secrets and tokens from the texts of a server.
//!
//! An error response may quote the request, or the response itself, and may decode or encode the
//! quotation. Each secret is searched for in these encodings.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;
use url::form_urlencoded;
use zeroize::Zeroizing;

/// Replaces a secret.
const REDACTED: &str = "[redacted]";

/// Replaces a text that is not searched, because it is too long or there are too many secrets.
const NOT_SEARCHED: &str = "[not shown]";

/// Maximum size in bytes of a text that is searched.
const MAX_TEXT: usize = 16 * 1024;

/// Maximum number of secrets in one response.
const MAX_MEMBERS: usize = 32;

/// Values of a response that are deeper are not searched for secrets.
const MAX_DEPTH: usize = 64;

/// Redacted texts are cut to this many characters.
const MAX_SHOWN: usize = 2000;

/// Minimum length of a text that is treated as a compact JWS because of its prefix.
const MIN_JWS_LENGTH: usize = 20;

/// Members of a response that hold secrets, at any depth.
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

/// The secrets of one request and its response, in all encodings. Zeroized on drop.
#[derive(Default)]
pub(crate) struct Secrets {
    encodings: Vec<Zeroizing<String>>,
    members: usize,
}

impl Secrets {
    /// Adds a secret in all encodings in which it may be quoted.
    pub(crate) fn add(&mut self, secret: &str) {
        // Servers that follow RFC 6749 §2.3.1 form-decode the secret; others do not.
        let decoded = Zeroizing::new(form_decoded(secret).into_owned());
        let encoded = form_encoded(secret);
        for plain in [secret, secret.trim(), &decoded, &encoded] {
            let encoded = form_encoded(plain);
            self.add_encoding(&encoded.replace('+', "%20"));
            self.add_encoding(&with_lower_case_escapes(&encoded));
            self.add_encoding(&encoded);
            self.add_encoding(&json_escaped(plain));
            self.add_encoding(plain);
        }
    }

    fn add_encoding(&mut self, encoding: &str) {
        if !encoding.is_empty() && !self.encodings.iter().any(|known| **known == encoding) {
            self.encodings.push(Zeroizing::new(encoding.to_owned()));
        }
    }

    /// Adds the tokens and secrets in the body of a response, if it is JSON.
    ///
    /// If it has some that cannot be read, no text is shown.
    pub(crate) fn add_members(&mut self, body: &[u8]) {
        match serde_json::from_slice::<&RawValue>(body) {
            Ok(body) => self.add_value(body, 0),
            Err(_) if body.trim_ascii().starts_with(b"{") => self.show_nothing(),
            Err(_) => {}
        }
    }

    /// Numbers are not parsed: no type may hold them.
    fn add_value(&mut self, value: &RawValue, depth: usize) {
        let json = value.get();
        let is_read = match json.as_bytes().first() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => false,
            Some(b'{') => serde_json::from_str::<BTreeMap<String, &RawValue>>(json)
                .map(|members| {
                    for (name, value) in members {
                        self.add_member(&name, value, depth + 1);
                    }
                })
                .is_ok(),
            Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(json)
                .map(|list| {
                    list.iter()
                        .for_each(|value| self.add_value(value, depth + 1))
                })
                .is_ok(),
            _ => true,
        };
        if !is_read {
            self.show_nothing();
        }
    }

    fn add_member(&mut self, name: &str, value: &RawValue, depth: usize) {
        if !SECRET_MEMBERS.contains(&name) || !value.get().starts_with('"') {
            return self.add_value(value, depth);
        }
        self.members = self.members.saturating_add(1);
        if self.members <= MAX_MEMBERS {
            match serde_json::from_str::<String>(value.get()).map(Zeroizing::new) {
                Ok(secret) => self.add(&secret),
                Err(_) => self.show_nothing(),
            }
        }
    }

    fn show_nothing(&mut self) {
        self.members = usize::MAX;
    }

    /// Replaces these secrets, and everything that looks like a compact JWS, and then cuts the text
    /// to 2,000 characters.
    pub(crate) fn redact(&self, text: &str) -> String {
        if text.len() > MAX_TEXT || self.members > MAX_MEMBERS {
            return NOT_SEARCHED.to_owned();
        }
        // Longest first, because one may contain another.
        let mut encodings: Vec<&str> = self
            .encodings
            .iter()
            .map(|encoding| encoding.as_str())
            .collect();
        encodings.sort_unstable_by_key(|encoding| std::cmp::Reverse(encoding.len()));
        let mut redacted = without_jws(text);
        for encoding in encodings {
            redacted = redacted.replace(encoding, REDACTED);
        }
        redacted.chars().take(MAX_SHOWN).collect()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// Form-encodes (RFC 6749 appendix B). Allocates the full length at once, because a growing buffer
/// leaves copies of the secret behind.
pub(crate) fn form_encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len().saturating_mul(3)));
    encoded.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    encoded
}

/// Form-decodes a value.
fn form_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) || text.contains('&') {
        return Cow::Borrowed(text);
    }
    let value = form_urlencoded::parse(text.as_bytes()).next();
    match value {
        Some((name, value)) if value.is_empty() => name,
        // The part before the first `=` was parsed as a name.
        Some((name, value)) => Cow::Owned(format!("{name}={value}")),
        None => Cow::Borrowed(text),
    }
}

/// Converts `%2F` to `%2f`.
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

/// Escapes as in a JSON string, without the quotation marks.
fn json_escaped(text: &str) -> Zeroizing<String> {
    let json = Zeroizing::new(Value::from(text).to_string());
    Zeroizing::new(
        json.trim_start_matches('"')
            .trim_end_matches('"')
            .to_owned(),
    )
}

/// Replaces what starts like a compact JWS, with `{"` in base64url.
pub(crate) fn without_jws(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.find("eyJ").and_then(|at| rest.split_at_checked(at)) {
        let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
        let (run, after) = from.split_at_checked(end).unwrap_or((from, ""));
        redacted.push_str(before);
        redacted.push_str(if end >= MIN_JWS_LENGTH { REDACTED } else { run });
        rest = after;
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
    fn a_secret_is_redacted_as_sent_decoded_and_encoded_again() {
        for (secret, quote) in [
            ("a/b+\"c", "a/b+\"c"),
            ("a/b+\"c", "a%2Fb%2B%22c"),
            ("a/b+\"c", "a%2fb%2b%22c"),
            ("a/b+\"c", "a%252Fb%252B%2522c"),
            ("a/b+\"c", "a/b+\\\"c"),
            ("a/b c", "a%2Fb+c"),
            ("a/b c", "a%2Fb%20c"),
            // Sent without form-encoding, but form-decoded by the server.
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
    fn text_without_secrets_is_unchanged() {
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
    fn an_unknown_compact_jws_is_redacted() {
        let jws = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln";
        assert_eq!(
            redact("x", &format!("got {jws}! eyJ and {jws}")),
            "got [redacted]! eyJ and [redacted]"
        );
    }

    #[test]
    fn a_long_text_is_cut_after_redaction() {
        let text = format!("{}secret", "x".repeat(MAX_SHOWN - 3));
        assert!(!redact("secret", &text).contains("sec"));
        assert_eq!(
            redact("secret", &"x".repeat(MAX_SHOWN * 2)).len(),
            MAX_SHOWN
        );
    }

    #[test]
    fn secrets_in_a_response_are_found_beside_values_that_no_type_holds() {
        for (body, shown) in [
            (
                r#"{"x":1e999,"y":[{"id_token":"s3cr3t"}]}"#.to_owned(),
                "a [redacted]",
            ),
            (
                r#"{"token":{"secret":"s3cr3t"},"y":"\ud800"}"#.to_owned(),
                "a [redacted]",
            ),
            (nested(MAX_DEPTH - 2), "a [redacted]"),
            // What cannot be read may be quoted.
            (nested(MAX_DEPTH), NOT_SEARCHED),
            (nested(30_000), NOT_SEARCHED),
            (r#"{"token":"s3cr3t\ud800"}"#.to_owned(), NOT_SEARCHED),
            (r#"{"token":"s3cr3t""#.to_owned(), NOT_SEARCHED),
            ("no JSON".to_owned(), "a s3cr3t"),
        ] {
            let mut secrets = Secrets::default();
            secrets.add_members(body.as_bytes());
            assert_eq!(secrets.redact("a s3cr3t"), shown, "{body:.80}");
        }
    }

    fn nested(depth: usize) -> String {
        let secret = r#"{"token":"s3cr3t"}"#;
        format!("{}{secret}{}", "[".repeat(depth), "]".repeat(depth))
    }

    /// The number of searches is bounded, and each is linear in a text of bounded length.
    #[test]
    fn long_texts_and_many_secrets_are_not_searched() {
        assert_eq!(redact("secret", &"x".repeat(MAX_TEXT + 1)), NOT_SEARCHED);
        let mut secrets = Secrets::default();
        let tokens: Vec<Value> = (0..5000)
            .map(|n| serde_json::json!({ "token": format!("t{n}") }))
            .collect();
        secrets.add_members(Value::from(tokens).to_string().as_bytes());
        assert!(secrets.encodings.len() <= MAX_MEMBERS * 20);
        assert_eq!(secrets.redact("t4999"), NOT_SEARCHED);
    }
}
