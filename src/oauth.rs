//! Validated OAuth values: issuers, audiences, scopes and endpoints.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use url::{Host, ParseError, Url};

use crate::error::ConfigError;

/// An issuer identifier: the value of `iss` in its tokens
/// ([RFC 8414 §2](https://www.rfc-editor.org/rfc/rfc8414#section-2)).
///
/// Compared byte for byte: `https://as.example` and `https://as.example/` are two issuers.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Issuer(Arc<str>);

impl Issuer {
    /// Creates an issuer identifier, spelled as in the tokens.
    ///
    /// It must be a URL if metadata are discovered at it, and need not be one otherwise: version 3
    /// tokens of App ID name a bare host.
    ///
    /// # Errors
    ///
    /// If it is empty or contains white space or control characters. The error does not show the
    /// value, because a URL may contain a secret.
    pub fn new(issuer: impl AsRef<str>) -> Result<Self, ConfigError> {
        let issuer = issuer.as_ref();
        if issuer.is_empty() || issuer.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(ConfigError::without_value(
                "issuer",
                "must not be empty or contain white space or control characters",
            ));
        }
        Ok(Self(issuer.into()))
    }

    /// The identifier.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// An audience: a value of `aud`
/// ([RFC 7519 §4.1.3](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3)).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Audience(Arc<str>);

impl Audience {
    /// Creates an audience, which is compared byte for byte with the values of `aud`.
    ///
    /// # Errors
    ///
    /// If it is empty or white space.
    pub fn new(audience: impl AsRef<str>) -> Result<Self, ConfigError> {
        let audience = audience.as_ref();
        if audience.trim().is_empty() {
            return Err(ConfigError::new("audience", audience, "must not be empty"));
        }
        Ok(Self(audience.into()))
    }

    /// The audience.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A scope token ([RFC 6749 §3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3)).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Creates a scope token: printable ASCII characters except space, `"` and `\`.
    ///
    /// # Errors
    ///
    /// If it is empty or contains another character.
    pub fn new(scope: impl AsRef<str>) -> Result<Self, ConfigError> {
        let scope = scope.as_ref();
        let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if scope.is_empty() || !scope.bytes().all(allowed) {
            return Err(ConfigError::new(
                "scope",
                scope,
                "must be a scope token (RFC 6749 §3.3)",
            ));
        }
        Ok(Self(scope.into()))
    }

    /// The scope token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The URL of an endpoint: an absolute `https` URL, or `http` on loopback.
///
/// It has a host, no user information and no fragment, and its host is no link-local or cloud
/// metadata address. Each builder rejects `http` on loopback unless `allow_loopback_http` is
/// called.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Arc<Url>);

impl Endpoint {
    /// Parses the URL of an endpoint.
    ///
    /// # Errors
    ///
    /// If it is no absolute URL, its scheme is neither `https` nor (with a loopback host) `http`,
    /// it has user information or a fragment, or its host is a forbidden address. The error shows
    /// only scheme, host and port, because a URL may contain a secret.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let url = parse_absolute(url.as_ref())?;
        let invalid = |reason| Err(ConfigError::new("URL", scheme_and_host(&url), reason));
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("must not contain user information");
        }
        if url.fragment().is_some() {
            return invalid("must not have a fragment");
        }
        if is_forbidden_host(&url) {
            return invalid(
                "must not be a link-local, metadata, multicast, broadcast or unspecified address",
            );
        }
        match url.scheme() {
            "https" => Ok(Self(Arc::new(url))),
            "http" if is_loopback(&url) => Ok(Self(Arc::new(url))),
            "http" => invalid("must be https (plain http is allowed for loopback only)"),
            _ => invalid("must be https"),
        }
    }

    /// The normalized URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether the scheme is `http`, which is allowed for loopback only.
    #[must_use]
    pub fn is_plain_http(&self) -> bool {
        self.0.scheme() == "http"
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

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    /// Checks that the scheme is `https`, or that plain `http` is `allowed`.
    pub(crate) fn check_plain_http(&self, allowed: bool) -> Result<(), ConfigError> {
        if self.is_plain_http() && !allowed {
            return Err(ConfigError::new(
                "URL",
                self.origin(),
                "is plain http; call `allow_loopback_http` to use it on loopback",
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Parses a URL with a scheme and a host. Errors do not show the URL, which may contain a secret.
fn parse_absolute(url: &str) -> Result<Url, ConfigError> {
    let invalid = |reason: &str| ConfigError::without_value("URL", reason);
    let no_scheme = || invalid("has no scheme: write `https://` before the host");
    let no_host = || invalid("has no host");
    if url.is_empty() {
        return Err(invalid("must not be empty"));
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

fn is_forbidden_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => is_forbidden_address(address.into()),
        Some(Host::Ipv6(address)) => is_forbidden_address(address.into()),
        Some(Host::Domain(_)) | None => false,
    }
}

/// Whether requests to this address are forbidden: link-local and other addresses of cloud metadata
/// services, which serve credentials, and addresses that are not of one host.
pub(crate) fn is_forbidden_address(address: IpAddr) -> bool {
    match embedded_ipv4(address).unwrap_or(address).to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                // The metadata services of Alibaba Cloud, Oracle Cloud and Azure.
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
                || v4 == Ipv4Addr::new(192, 0, 0, 192)
                || v4 == Ipv4Addr::new(168, 63, 129, 16)
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                // The metadata service of AWS.
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

/// The IPv4 address in an IPv6 address of NAT64 (RFC 6052 §2.1) or 6to4 (RFC 3056 §2), or in an
/// IPv4-compatible one, which RFC 4291 §2.5.5.1 deprecates.
fn embedded_ipv4(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let v4 = match v6.octets() {
        [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => [a, b, c, d],
        [0x20, 0x02, a, b, c, d, ..] => [a, b, c, d],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] if a != 0 => [a, b, c, d],
        _ => return None,
    };
    Some(IpAddr::V4(v4.into()))
}

/// Whether the host is `localhost`, in 127.0.0.0/8 or `::1`.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_only() {
        for good in [
            "https://as.example/x",
            "http://127.0.0.1:6002/a",
            "http://localhost",
            "http://[::1]:1/",
        ] {
            Endpoint::new(good).expect(good);
        }
        for bad in [
            "http://as.example",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "https://user:secret@as.example",
            "https://as.example/#f",
            "as.example",
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
            "https://168.63.129.16/",
            "",
        ] {
            let error = Endpoint::new(bad).expect_err(bad);
            assert!(!error.to_string().contains("secret"), "{error}");
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
                "must be https",
            ),
            (
                "ftp://as.example/secret",
                "ftp://as.example",
                "must be https",
            ),
            (
                "http://as.example/secret",
                "http://as.example",
                "must be https",
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
    fn the_error_of_an_invalid_issuer_does_not_show_it() {
        let error = Issuer::new("https://user:secret@as.example /")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("white space") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn join_path_inserts_exactly_one_slash() {
        for base in ["https://as.example/t", "https://as.example/t/"] {
            let joined = Endpoint::new(base).unwrap().join_path("/token").unwrap();
            assert_eq!(joined.as_str(), "https://as.example/t/token");
        }
    }

    #[test]
    fn empty_and_malformed_values_are_invalid() {
        assert!(Issuer::new("").is_err());
        assert!(Issuer::new("https://as.example ").is_err());
        assert!(Audience::new("").is_err());
        assert!(Audience::new(" ").is_err());
        for scope in ["", "a b", "a\tb", "a\"b", "a\\b", "é"] {
            assert!(Scope::new(scope).is_err(), "{scope:?}");
        }
        assert_eq!(Scope::new("orders.read").unwrap().as_str(), "orders.read");
    }
}
