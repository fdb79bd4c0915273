//! The identifier of a protected resource, and the location of its metadata.

use super::endpoint::Endpoint;
use crate::error::ConfigError;

/// [RFC 9728 §3](https://www.rfc-editor.org/rfc/rfc9728#section-3).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// A resource identifier
/// ([RFC 9728 §1.2](https://www.rfc-editor.org/rfc/rfc9728#section-1.2)), byte for byte as it was
/// configured: clients compare it, and send it as `resource`.
#[derive(Clone, Debug)]
pub(crate) struct ResourceIdentifier {
    identifier: String,
    url: Endpoint,
    metadata_url: String,
    /// The length of the origin in `metadata_url`.
    origin_len: usize,
}

impl ResourceIdentifier {
    /// Checks that the identifier is a URL that no client normalizes.
    pub(crate) fn new(identifier: impl Into<String>) -> Result<Self, ConfigError> {
        let identifier = identifier.into();
        let invalid = |reason: &str| ConfigError::new("resource", identifier.as_str(), reason);
        let url = Endpoint::new(&identifier).map_err(|error| error.with_setting("resource"))?;
        // None of these needs an escape in a quoted-string.
        if !has_only_uri_characters(&identifier) {
            return Err(invalid("must consist of the characters of a URL"));
        }
        // Clients compare the identifier byte for byte, and some normalize it first.
        let origin = url.origin();
        let normal = url.as_str().strip_prefix(&origin).unwrap_or_default();
        let suffix = match normal.strip_prefix('/') {
            // A parser adds the slash to an empty path.
            Some(rest) if has_empty_path(&identifier) => rest,
            _ => normal,
        };
        if identifier.strip_prefix(&origin) != Some(suffix) {
            let reason = format!("must be normalized: write `{origin}{suffix}`");
            return Err(invalid(&reason));
        }
        Ok(Self {
            metadata_url: metadata_url(&origin, suffix),
            origin_len: origin.len(),
            identifier,
            url,
        })
    }

    /// The identifier, as it was configured.
    pub(crate) fn as_str(&self) -> &str {
        &self.identifier
    }

    pub(crate) fn url(&self) -> &Endpoint {
        &self.url
    }

    /// The URL of the metadata of the resource.
    pub(crate) fn metadata_url(&self) -> &str {
        &self.metadata_url
    }

    /// Path and query of [`metadata_url`](Self::metadata_url).
    pub(crate) fn metadata_path_and_query(&self) -> &str {
        self.metadata_url.get(self.origin_len..).unwrap_or_default()
    }
}

/// Whether a text consists of the characters of a URI
/// ([RFC 3986 §2](https://www.rfc-editor.org/rfc/rfc3986#section-2)), without `#`.
pub(crate) fn has_only_uri_characters(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte))
}

/// Whether nothing or a query follows the authority of a URL.
fn has_empty_path(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    !rest.split('?').next().unwrap_or_default().contains('/')
}

/// Inserts the well-known path between the origin of a resource and its path and query
/// ([RFC 9728 §3.1](https://www.rfc-editor.org/rfc/rfc9728#section-3.1)). A slash that ends the
/// path and directly follows the origin is removed.
fn metadata_url(origin: &str, path_and_query: &str) -> String {
    let suffix = match path_and_query.strip_prefix('/') {
        Some(rest) if rest.is_empty() || rest.starts_with('?') => rest,
        _ => path_and_query,
    };
    format!("{origin}{WELL_KNOWN}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_that_builds_is_what_url_parsers_make_of_it() {
        let mut built = 0;
        for byte in 0x21..0x7f_u8 {
            let byte = char::from(byte);
            for identifier in [
                format!("https://api.example/a{byte}b"),
                format!("https://api.example/a?b={byte}c"),
                format!("https://api.example?b={byte}c"),
                format!("https://api.example/{byte}"),
                format!("https://api.example{byte}"),
            ] {
                let Ok(resource) = ResourceIdentifier::new(&identifier) else {
                    continue;
                };
                built += 1;
                let parsed = url::Url::parse(resource.metadata_url()).unwrap();
                assert_eq!(parsed.as_str(), resource.metadata_url());
                let target: http::Uri = resource.metadata_url().parse().unwrap();
                assert_eq!(
                    target.path_and_query().unwrap(),
                    resource.metadata_path_and_query()
                );
            }
        }
        assert!(built > 300, "{built}");
    }

    #[test]
    fn what_an_error_says_to_write_is_the_same_identifier_and_builds() {
        for (spelled, normal) in [
            ("https://API.example", "https://api.example"),
            ("https://API.example/", "https://api.example/"),
            ("https://API.example/orders", "https://api.example/orders"),
            ("https://API.example/orders/", "https://api.example/orders/"),
            ("https://API.example//", "https://api.example//"),
            ("https://API.example?x=/", "https://api.example?x=/"),
            ("https://API.example/?x=1", "https://api.example/?x=1"),
            ("https://a.example:443/x/?y/", "https://a.example/x/?y/"),
            ("https://a.example/x?y='z'", "https://a.example/x?y=%27z%27"),
            ("https://a.example?'", "https://a.example?%27"),
            ("https:api.example", "https://api.example"),
        ] {
            let error = ResourceIdentifier::new(spelled).unwrap_err().to_string();
            assert!(error.contains(&format!("write `{normal}`")), "{error}");
            assert_eq!(ResourceIdentifier::new(normal).unwrap().as_str(), normal);
        }
    }
}
