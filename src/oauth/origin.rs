//! The origins of URLs.

use http::Uri;

use super::endpoint::Endpoint;
use super::text_value::impl_text_value;
use crate::error::ConfigError;

/// An origin: the scheme, host and port of a URL
/// ([RFC 6454 §4](https://www.rfc-editor.org/rfc/rfc6454#section-4)).
///
/// Written as `https://orders.example:8443`, without a path and without a default port.
///
/// ```
/// use tower_oauth::{Endpoint, Origin};
///
/// let origin: Origin = "https://orders.example:443".parse()?;
/// assert_eq!(origin, "https://orders.example");
/// assert_eq!(origin, Origin::from(Endpoint::new("https://orders.example/v1?page=2")?));
/// assert!(Origin::try_from("https://orders.example/v1").is_err());
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
// An endpoint with the path `/` and no query.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(Endpoint);

impl Origin {
    /// Parses an origin. One slash after host and port is ignored.
    ///
    /// ```
    /// use tower_oauth::Origin;
    ///
    /// assert_eq!(Origin::new("https://orders.example:8443/")?, "https://orders.example:8443");
    /// let error = Origin::new("https://orders.example/v1").unwrap_err();
    /// assert_eq!(error.setting(), "origin");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not an `https` or `http` URL, it has a path, query, fragment or user information,
    /// or its host is a link-local or cloud metadata address. The error shows only scheme, host
    /// and port.
    pub fn new(origin: impl AsRef<str>) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::new(origin).map_err(|error| error.with_setting("origin"))?;
        if endpoint.url().path() != "/" || endpoint.url().query().is_some() {
            return Err(ConfigError::new(
                "origin",
                endpoint.origin(),
                "must not have a path or a query",
            ));
        }
        Ok(Self(endpoint))
    }

    /// The serialization of RFC 6454 §6.2, such as `https://orders.example:8443`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Whether the scheme is `http`.
    #[must_use]
    pub fn is_plain_http(&self) -> bool {
        self.0.is_plain_http()
    }

    /// Whether the host is `localhost`, in 127.0.0.0/8 or `::1`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.0.is_loopback()
    }

    /// The URL of the origin, with the path `/`.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0
    }

    /// Whether `uri` has this origin. Does not allocate.
    pub(crate) fn matches(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return false;
        };
        let default_port = match scheme {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        };
        let url = self.0.url();
        scheme == url.scheme()
            && url
                .host_str()
                .is_some_and(|expected| host.eq_ignore_ascii_case(expected))
            && uri.port_u16().or(default_port) == url.port_or_known_default()
    }
}

impl From<&Endpoint> for Origin {
    fn from(endpoint: &Endpoint) -> Self {
        Self(endpoint.without_path())
    }
}

impl From<Endpoint> for Origin {
    fn from(endpoint: Endpoint) -> Self {
        Self::from(&endpoint)
    }
}

impl_text_value!(Origin, "an origin");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_by_scheme_host_and_port_only() {
        let origin = Origin::from(Endpoint::new("https://orders.example/v1/").unwrap());
        for same in [
            "https://orders.example",
            "https://ORDERS.example:443/other?x=y",
            "HTTPS://orders.example/",
        ] {
            assert!(origin.matches(&same.parse().unwrap()), "{same}");
        }
        for other in [
            "http://orders.example/",
            "https://orders.example:8443/",
            "https://orders.example.evil.example/",
            "https://evil.example/orders.example",
            "https://orders.example@evil.example/",
            "https://api.orders.example/",
            "https://orders.example./",
            "/v1/",
            "orders.example:443",
        ] {
            assert!(!origin.matches(&other.parse().unwrap()), "{other}");
        }
        let loopback = Origin::new("http://[::1]:8081").unwrap();
        assert!(loopback.matches(&"http://[::1]:8081/x".parse().unwrap()));
        assert!(!loopback.matches(&"http://[::1]/x".parse().unwrap()));
    }
}
