//! The identifier of a protected resource, and the place of its metadata.

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
        // RFC 3986 §2. Of these, none needs an escape in a quoted-string.
        let is_url_byte =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte);
        if !identifier.bytes().all(is_url_byte) {
            return Err(invalid("must consist of the characters of a URL"));
        }
        // Clients compare the identifier byte for byte, and some normalize it first.
        let origin = url.origin();
        let suffix = identifier.strip_prefix(&origin).unwrap_or("#");
        let path = suffix.split('?').next().unwrap_or_default();
        if path != url.url().path() && !(path.is_empty() && url.url().path() == "/") {
            let normal = url.as_str().trim_end_matches('/');
            return Err(invalid(&format!("must be normalized: write `{normal}`")));
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
