//! The URLs of endpoints.

use std::sync::Arc;

use url::{Host, ParseError, Url};

use super::address::is_forbidden_host;
use super::text_value::impl_text_value;
use crate::error::ConfigError;

/// The URL of an endpoint: an absolute `https` or `http` URL.
///
/// It has a host, no user information and no fragment, and its host is not a link-local or cloud
/// metadata address. Whether plain `http` is allowed is decided where the endpoint is used:
/// builders reject it, and no request is sent to it, unless `allow_loopback_http` or `allow_http`
/// allows its host.
///
/// ```
/// use tower_oauth::Endpoint;
///
/// let keys: Endpoint = "https://as.example/keys".parse()?;
/// assert_eq!(keys, "https://as.example/keys");
/// assert!(Endpoint::try_from("as.example/keys").is_err());
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(Arc<Url>);

impl Endpoint {
    /// Parses the URL of an endpoint.
    ///
    /// ```
    /// use tower_oauth::Endpoint;
    ///
    /// assert!(Endpoint::new("https://as.example/token?tenant=acme").is_ok());
    /// assert!(Endpoint::new("https://169.254.169.254/latest").is_err()); // a metadata address
    /// let error = Endpoint::new("https://user:s3cret@as.example/token").unwrap_err();
    /// assert!(!error.to_string().contains("s3cret"));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not an absolute URL, its scheme is neither `https` nor `http`, it has user
    /// information or a fragment, or its host is a forbidden address. The error shows only scheme,
    /// host and port, because a URL may contain a secret.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let url = parse_absolute(url.as_ref())?;
        let invalid = |reason| Err(ConfigError::new("URL", scheme_and_host(&url), reason));
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("must not contain user information");
        }
        if url.fragment().is_some() {
            return invalid("must not have a fragment");
        }
        if url.host().is_some_and(|host| is_forbidden_host(&host)) {
            return invalid(
                "must not be a link-local, metadata, multicast, broadcast or unspecified address",
            );
        }
        match url.scheme() {
            "https" | "http" => Ok(Self(Arc::new(url))),
            _ => invalid("must be https or http"),
        }
    }

    /// The normalized URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether the scheme is `http`.
    #[must_use]
    pub fn is_plain_http(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// Whether the host is `localhost`, in 127.0.0.0/8 or `::1`.
    ///
    /// ```
    /// use tower_oauth::Endpoint;
    ///
    /// let development = Endpoint::new("http://localhost:6002/token")?;
    /// assert!(development.is_plain_http() && development.is_loopback());
    /// assert!(!Endpoint::new("http://as.example/token")?.is_loopback());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    /// Converts to [`http::Uri`].
    pub(crate) fn to_uri(&self) -> Result<http::Uri, ConfigError> {
        self.as_str().parse().map_err(|_| {
            ConfigError::new("URL", self.origin(), "must be usable as a request target")
        })
    }

    /// Scheme, host and port, without a default port
    /// ([RFC 6454 §6.2](https://www.rfc-editor.org/rfc/rfc6454#section-6.2)).
    pub(crate) fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Appends `path` with exactly one slash in between.
    pub(crate) fn join_path(&self, path: &str) -> Result<Self, ConfigError> {
        let base = self.as_str().trim_end_matches('/');
        Self::new(format!("{base}/{}", path.trim_start_matches('/')))
    }

    /// This URL with the path `/` and no query.
    pub(super) fn without_path(&self) -> Self {
        let mut url = Url::clone(&self.0);
        url.set_path("/");
        url.set_query(None);
        Self(Arc::new(url))
    }

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

impl_text_value!(Endpoint, "a URL");

/// Parses a URL with a scheme and a host. Errors do not show the URL, which may contain a secret.
fn parse_absolute(url: &str) -> Result<Url, ConfigError> {
    let invalid = |reason: &str| ConfigError::without_value("URL", reason);
    let no_scheme = || invalid("has no scheme: write `https://` before the host");
    let no_host = || invalid("has no host");
    if url.is_empty() {
        return Err(ConfigError::missing("URL", "must not be empty"));
    }
    let url = Url::parse(url).map_err(|error| match error {
        ParseError::RelativeUrlWithoutBase => no_scheme(),
        ParseError::EmptyHost => no_host(),
        // A fixed text, such as "invalid port number".
        other => invalid(&format!("must be a valid URL: {other}")),
    })?;
    match url.host_str() {
        // `orders:8080` is a URL with the scheme `orders`.
        _ if url.cannot_be_a_base() => Err(no_scheme()),
        None | Some("") => Err(no_host()),
        Some(_) => Ok(url),
    }
}

/// The part of a URL that errors show. (`Url::origin` is `null` for schemes that the URL Standard
/// does not define.)
fn scheme_and_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!("{}://{host}{port}", url.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_absolute_http_url_without_user_information_and_fragment() {
        for good in [
            "https://as.example/x",
            "http://as.example",
            "http://127.0.0.1:6002/a",
            "http://localhost",
            "http://[::1]:1/",
        ] {
            Endpoint::new(good).expect(good);
        }
        for bad in [
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "https://user:secret@as.example",
            "https://as.example/#f",
            "as.example",
            "",
        ] {
            let error = Endpoint::new(bad).expect_err(bad);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_link_local_or_metadata_address_is_no_endpoint() {
        for bad in [
            "https://169.254.169.254/latest",
            "https://[fe80::1]/",
            "https://[fd00:ec2::254]/",
            "https://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::169.254.169.254]/",
            "https://[2002:a9fe:a9fe::]/",
            "https://[::169.254.169.254]/",
            "https://2852039166/", // 169.254.169.254 as one number
            "https://0.0.0.0/",
            "https://100.100.100.200/",
            "http://169.254.169.254/latest",
            "https://168.63.129.16/",
        ] {
            let error = Endpoint::new(bad).expect_err(bad).to_string();
            assert!(error.contains("link-local, metadata"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_error_of_a_url_without_a_scheme_says_what_to_write() {
        for bad in [
            "orders:8080",
            "orders:8080/oauth/v4/t",
            "as.example",
            "as.example:443",
            "localhost:6002",
            "//as.example",
            "/oauth/v4/t",
            "https//as.example",
            "user:secret@as.example",
            "user:secret@as.example:8080/",
            "as.example/?key=secret",
        ] {
            let error = Endpoint::new(bad).expect_err(bad).to_string();
            assert!(
                error.contains("scheme") && error.contains("`https://`"),
                "{bad}: {error}"
            );
            assert!(
                !error.contains("null") && !error.contains("secret"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn errors_show_only_scheme_and_host_of_a_url() {
        for (bad, shown, reason) in [
            (
                "redis://user:secret@cache.example:6379/0",
                "redis://cache.example:6379",
                "user information",
            ),
            (
                "redis://cache.example/secret",
                "redis://cache.example",
                "must be https or http",
            ),
            (
                "ftp://as.example/secret",
                "ftp://as.example",
                "must be https or http",
            ),
            (
                "https://user:secret@as.example",
                "https://as.example",
                "user information",
            ),
            (
                "https://as.example:8443/secret#f",
                "https://as.example:8443",
                "fragment",
            ),
            ("https://0.0.0.0/secret", "https://0.0.0.0", "unspecified"),
            (
                "https://255.255.255.255/secret",
                "https://255.255.255.255",
                "broadcast",
            ),
            (
                "https://[fe80::1]/secret",
                "https://[fe80::1]",
                "link-local",
            ),
        ] {
            let error = Endpoint::new(bad).expect_err(bad).to_string();
            assert!(
                error.contains(&format!("{shown:?}")) && error.contains(reason),
                "{bad}: {error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
        for (bad, reason) in [
            ("", "empty"),
            ("https://", "no host"),
            ("https://:443/secret", "no host"),
            ("https://user:secret@:443", "no host"),
            ("file:///secret", "no host"),
            ("redis:///secret", "no host"),
            ("https://as.example:99999/secret", "port"),
            ("https://as.example:secret", "port"),
            ("https://[::1/secret", "IPv6"),
            ("https://1.2.3.400/secret", "IPv4"),
            ("https://a b.example/secret", "domain"),
        ] {
            let error = Endpoint::new(bad).expect_err(bad).to_string();
            assert!(error.contains(reason), "{bad}: {error}");
            assert!(
                !error.contains("secret") && !error.contains("null") && !error.contains('…'),
                "{error}"
            );
        }
    }

    #[test]
    fn join_path_inserts_exactly_one_slash() {
        for base in ["https://as.example/t", "https://as.example/t/"] {
            let joined = Endpoint::new(base).unwrap().join_path("/token").unwrap();
            assert_eq!(joined.as_str(), "https://as.example/t/token");
        }
    }
}
