//! The challenges of a response
//! ([RFC 9110 §11.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1)).
//!
//! A field has several challenges, and a response several fields. What does not follow the grammar
//! is skipped up to the next comma, so that it hides no other challenge.

use http::{HeaderMap, header};

/// A challenge, with the parameters that it has by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Whether this is the scheme. It is compared without case.
    pub(super) fn is_of(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The first parameter of this name, which is compared without case.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        let found = parameters.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Longer fields are not read. A challenge has a few hundred bytes.
const MAX_FIELD_LENGTH: usize = 16 * 1024;

/// The challenges of all `WWW-Authenticate` fields.
pub(super) fn challenges(headers: &HeaderMap) -> impl Iterator<Item = Challenge> {
    let fields = headers.get_all(header::WWW_AUTHENTICATE).iter();
    let fields = fields.filter(|field| field.len() <= MAX_FIELD_LENGTH);
    fields.flat_map(|field| parse(field.as_bytes()))
}

fn parse(field: &[u8]) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = Cursor(field);
    loop {
        rest.skip(|byte| is_space(byte) || byte == b',');
        if rest.0.is_empty() {
            return challenges;
        }
        let name = rest.take(is_token_byte);
        if name.is_empty() {
            rest.skip_element();
            continue;
        }
        let after_name = rest;
        rest.skip(is_space);
        if rest.next_is(b'=') {
            match (rest.value(), challenges.last_mut()) {
                (Some(value), Some(challenge)) => {
                    challenge.parameters.push((text(name), value));
                }
                (Some(_), None) => {}
                (None, _) => rest.skip_element(),
            }
        } else {
            rest = after_name;
            challenges.push(Challenge {
                scheme: text(name),
                parameters: Vec::new(),
            });
            rest.skip_token68();
        }
    }
}

/// The part of a field that is not parsed yet.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, is_taken: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|&byte| !is_taken(byte));
        let (taken, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        taken
    }

    fn skip(&mut self, is_skipped: impl Fn(u8) -> bool) {
        self.take(is_skipped);
    }

    /// Takes this byte, if it is the next one.
    fn next_is(&mut self, expected: u8) -> bool {
        match self.0.split_first() {
            Some((&byte, rest)) if byte == expected => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// The value after `=`: a token or a quoted string, after optional white space.
    fn value(&mut self) -> Option<String> {
        self.skip(is_space);
        if self.next_is(b'"') {
            return self.quoted();
        }
        let value = self.take(is_token_byte);
        (!value.is_empty()).then(|| text(value))
    }

    /// The rest of a quoted string. `None` if it has no end.
    fn quoted(&mut self) -> Option<String> {
        let mut value = Vec::new();
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => return Some(text(&value)),
                b'\\' => {
                    let (&escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    value.push(escaped);
                }
                _ => value.push(byte),
            }
        }
    }

    /// Skips the credentials of a challenge that has them in place of parameters.
    fn skip_token68(&mut self) {
        let mut rest = *self;
        rest.skip(is_space);
        rest.skip(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        rest.skip(|byte| byte == b'=');
        rest.skip(is_space);
        if matches!(rest.0.first(), None | Some(b',')) {
            *self = rest;
        }
    }

    /// Skips to the next comma outside of a quoted string.
    fn skip_element(&mut self) {
        while let Some((&byte, rest)) = self.0.split_first() {
            match byte {
                b',' => return,
                b'"' => {
                    self.0 = rest;
                    self.quoted();
                }
                _ => self.0 = rest,
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// [RFC 9110 §5.6.2](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Challenge {
            scheme: scheme.to_owned(),
            parameters: parameters.iter().map(owned).collect(),
        }
    }

    #[test]
    fn a_field_that_is_too_long_is_not_read() {
        for (length, expected) in [(MAX_FIELD_LENGTH, 1), (MAX_FIELD_LENGTH + 1, 0)] {
            let mut headers = HeaderMap::new();
            let field = "a".repeat(length).parse().unwrap();
            headers.insert(header::WWW_AUTHENTICATE, field);
            assert_eq!(challenges(&headers).count(), expected);
        }
    }

    #[test]
    fn a_field_is_a_list_of_challenges() {
        let bearer = || challenge("Bearer", &[("error", "invalid_token")]);
        for (field, expected) in [
            ("", vec![]),
            (" , ,, ", vec![]),
            ("Bearer", vec![challenge("Bearer", &[])]),
            ("Bearer error=invalid_token", vec![bearer()]),
            ("Bearer error=\"invalid_token\"", vec![bearer()]),
            ("Bearer error\t = \t\"invalid_token\"", vec![bearer()]),
            ("Bearer error=\"invalid_\\token\"", vec![bearer()]),
            (",Bearer ,, error=invalid_token ,", vec![bearer()]),
            // RFC 9110 §11.6.1.
            (
                "Basic realm=\"simple\", Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\"",
                vec![
                    challenge("Basic", &[("realm", "simple")]),
                    challenge(
                        "Newauth",
                        &[
                            ("realm", "apps"),
                            ("type", "1"),
                            ("title", "Login to \"apps\""),
                        ],
                    ),
                ],
            ),
            (
                "DPoP algs=\"ES256 PS256\", error=\"x\", Bearer error=\"invalid_token\"",
                vec![
                    challenge("DPoP", &[("algs", "ES256 PS256"), ("error", "x")]),
                    bearer(),
                ],
            ),
            // token68
            (
                "Negotiate YII+/x==, Bearer error=invalid_token",
                vec![challenge("Negotiate", &[]), bearer()],
            ),
            (
                "Negotiate Bearer, Bearer error=invalid_token",
                vec![challenge("Negotiate", &[]), bearer()],
            ),
            // A quoted string hides what looks like a challenge.
            (
                "Basic realm=\", Bearer error=invalid_token\"",
                vec![challenge(
                    "Basic",
                    &[("realm", ", Bearer error=invalid_token")],
                )],
            ),
            // Without the comma, as some servers send it.
            (
                "Bearer error=\"invalid_token\" scope=\"a\"",
                vec![challenge(
                    "Bearer",
                    &[("error", "invalid_token"), ("scope", "a")],
                )],
            ),
            // What is malformed hides nothing else.
            ("@, Bearer error=invalid_token", vec![bearer()]),
            ("error=x, Bearer error=invalid_token", vec![bearer()]),
            ("Bearer realm=@, error=invalid_token", vec![bearer()]),
            (
                "Bearer realm=@\"a,b\"x, error=invalid_token",
                vec![bearer()],
            ),
            ("Bearer error=invalid_token, realm=\"no end", vec![bearer()]),
            (
                "Bearer realm=\"no end, error=invalid_token",
                vec![challenge("Bearer", &[])],
            ),
            ("Bearer realm=\"no end\\", vec![challenge("Bearer", &[])]),
        ] {
            assert_eq!(parse(field.as_bytes()), expected, "{field}");
        }
    }

    #[test]
    fn names_and_schemes_are_compared_without_case_and_the_first_of_two_counts() {
        let challenges = parse(b"bEARER Error=a, ERROR=b");
        assert!(challenges[0].is_of("Bearer"));
        assert_eq!(challenges[0].parameter("error"), Some("a"));
        assert_eq!(challenges[0].parameter("scope"), None);
    }

    fn written(challenges: &[Challenge], separators: &[&str]) -> String {
        let mut text = String::new();
        let mut separators = separators.iter().cycle();
        for challenge in challenges {
            text.push_str(separators.next().unwrap());
            text.push_str(&challenge.scheme);
            let mut before = " ";
            for (name, value) in &challenge.parameters {
                let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
                text.push_str(&format!("{before}{name}=\"{escaped}\""));
                before = separators.next().unwrap();
            }
        }
        text
    }

    proptest! {
        #[test]
        fn what_is_written_by_the_grammar_is_read_as_it_was(
            challenges in prop::collection::vec(
                (
                    "[A-Za-z][A-Za-z0-9!#-]{0,8}",
                    prop::collection::vec(("[a-z_*]{1,8}", "[ -~]{0,20}"), 0..4),
                ),
                0..4,
            ),
            separators in prop::collection::vec(
                prop::sample::select(vec![",", ", ", " , ", ",,", "\t,"]), 1..5,
            ),
        ) {
            let challenges: Vec<Challenge> = challenges
                .into_iter()
                .map(|(scheme, parameters)| Challenge { scheme, parameters })
                .collect();
            let field = written(&challenges, &separators);
            prop_assert_eq!(parse(field.as_bytes()), challenges, "{}", field);
        }

        #[test]
        fn any_bytes_can_be_parsed(field in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&field);
        }

        #[test]
        fn a_challenge_after_any_text_without_quotes_is_found(text in "[ -!#-~]{0,40}") {
            let field = format!("{text}, Bearer error=\"invalid_token\"");
            let found = parse(field.as_bytes());
            let is_bearer = |c: &Challenge| c.is_of("Bearer") && c.parameter("error").is_some();
            prop_assert!(found.iter().any(is_bearer), "{}", field);
        }
    }
}
