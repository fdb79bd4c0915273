//! The `Cache-Control` of a key set response (RFC 9111 §5.2.2).

use std::time::Duration;

use http::{HeaderMap, header};

/// The largest `max-age`, in seconds; far above any interval that is used.
const MAX: u64 = 1 << 31;

/// A parsed `Cache-Control`, before it is clamped to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheControl {
    /// Absent, or without a supported directive.
    Unspecified,
    /// `max-age`; zero with `no-cache`.
    MaxAge(Duration),
    /// `no-store`.
    NoStore,
}

impl CacheControl {
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let mut max_age = Self::Unspecified;
        for value in headers.get_all(header::CACHE_CONTROL) {
            let Ok(value) = value.to_str() else { continue };
            for directive in value.split(',') {
                let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
                let name = name.trim();
                if name.eq_ignore_ascii_case("no-store") {
                    return Self::NoStore;
                } else if name.eq_ignore_ascii_case("no-cache") {
                    max_age = Self::MaxAge(Duration::ZERO);
                } else if name.eq_ignore_ascii_case("max-age") && max_age == Self::Unspecified {
                    let argument = argument.trim().trim_matches('"');
                    if !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_digit()) {
                        // RFC 9111 §1.2.2: a number that is too large counts as the largest.
                        let seconds = argument.parse().unwrap_or(MAX);
                        max_age = Self::MaxAge(Duration::from_secs(seconds));
                    }
                }
            }
        }
        max_age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_parsed_as_in_rfc_9111() {
        let parse = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, value.parse().unwrap());
            CacheControl::from_headers(&headers)
        };
        let max_age = |seconds| CacheControl::MaxAge(Duration::from_secs(seconds));
        assert_eq!(
            CacheControl::from_headers(&HeaderMap::new()),
            CacheControl::Unspecified
        );
        assert_eq!(parse("public, max-age=120, must-revalidate"), max_age(120));
        assert_eq!(parse("Max-Age=\"7\""), max_age(7));
        assert_eq!(parse("max-age=1, max-age=2"), max_age(1));
        assert_eq!(parse("max-age=99999999999999999999"), max_age(MAX));
        assert_eq!(parse("max-age=9, no-store"), CacheControl::NoStore);
        assert_eq!(parse("no-cache"), max_age(0));
        for odd in [
            "max-age=-1",
            "max-age=",
            "max-age=soon",
            "s-maxage=5",
            ",,=",
        ] {
            assert_eq!(parse(odd), CacheControl::Unspecified, "{odd}");
        }
    }
}
