//! The hosts to which plain `http` is allowed.

use std::net::Ipv6Addr;
use std::sync::Arc;

use url::Host;

use super::address::is_forbidden_host;
use super::endpoint::Endpoint;
use crate::error::{ConfigError, ConfigErrorKind};

/// The hosts to which requests over plain `http` are allowed. Default: none.
///
/// [`check`](Self::check) is the only place that decides it. Each URL passes it where settings are
/// built, and again when a request is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlainHttp {
    allow_loopback: bool,
    hosts: Arc<[Host]>,
}

impl PlainHttp {
    /// Allows loopback if `allow_loopback` is set, and these hosts by their exact names.
    ///
    /// An error does not show the value unless it is a host, because a URL may contain a secret.
    pub(crate) fn new(
        allow_loopback: bool,
        hosts: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, ConfigError> {
        let mut parsed: Vec<Host> = Vec::new();
        for host in hosts {
            let host = parse_host(host.as_ref())?;
            if !parsed.contains(&host) {
                parsed.push(host);
            }
        }
        Ok(Self {
            allow_loopback,
            hosts: parsed.into(),
        })
    }

    /// Allows loopback in addition.
    pub(crate) fn allowing_loopback(&self) -> Self {
        Self {
            allow_loopback: true,
            hosts: Arc::clone(&self.hosts),
        }
    }

    /// The hosts that were allowed by name, each once.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Checks that the URL is `https`, or plain `http` to a host that is allowed.
    pub(crate) fn check(&self, url: &Endpoint) -> Result<(), ConfigError> {
        if !url.is_plain_http() || self.names(url) || self.allow_loopback && url.is_loopback() {
            return Ok(());
        }
        let reason = if url.is_loopback() {
            "is plain http: use https, or allow_loopback_http()".to_owned()
        } else {
            let host = url.url().host_str().unwrap_or_default();
            format!("is plain http: use https, or allow_http([\"{host}\"])")
        };
        let error = ConfigError::new("URL", url.origin(), reason);
        Err(error.with_kind(ConfigErrorKind::PlainHttp))
    }

    /// Checks a URL in a document of `issuer`, which no operator has seen.
    ///
    /// An `https` issuer names `https` URLs only. Plain `http` to loopback is for an issuer on
    /// loopback: another one must not name services of this machine.
    pub(crate) fn check_named_by(
        &self,
        issuer: &Endpoint,
        url: &Endpoint,
    ) -> Result<(), ConfigError> {
        if url.is_plain_http() && !issuer.is_plain_http() {
            let reason = "must be https, because the server that names it is";
            let error = ConfigError::new("URL", url.origin(), reason);
            return Err(error.with_kind(ConfigErrorKind::PlainHttp));
        }
        let allowed = Self {
            allow_loopback: self.allow_loopback && issuer.is_loopback(),
            hosts: Arc::clone(&self.hosts),
        };
        allowed.check(url)
    }

    fn names(&self, url: &Endpoint) -> bool {
        let host = url.url().host().map(|host| host.to_owned());
        host.is_some_and(|host| self.hosts.contains(&host))
    }
}

/// Parses a host as URLs have it: in lower case, and an internationalized name in ASCII.
fn parse_host(text: &str) -> Result<Host, ConfigError> {
    let invalid = |reason| Err(ConfigError::without_value("allow_http", reason));
    if text.is_empty() {
        let reason = "must not contain an empty host name";
        return Err(ConfigError::missing("allow_http", reason));
    }
    if text.contains(['/', '\\', '?', '#', '@', '%']) {
        return invalid("must contain host names only: remove scheme, path and user information");
    }
    let without_brackets = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let host = if let Ok(address) = without_brackets.parse::<Ipv6Addr>() {
        Host::Ipv6(address)
    } else if text.contains(':') {
        return invalid("must contain host names only: remove the port, every port is allowed");
    } else if text.contains('*') {
        return invalid("must contain each host by its name: wildcards are not supported");
    } else {
        match Host::parse(text) {
            Ok(host) => host,
            Err(_) => return invalid("must contain valid host names"),
        }
    };
    if is_forbidden_host(&host) {
        return Err(ConfigError::new(
            "allow_http",
            host.to_string(),
            "must not be a link-local, metadata, multicast, broadcast or unspecified address",
        ));
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Endpoint {
        Endpoint::new(text).expect(text)
    }

    const HOSTS: [&str; 5] = [
        "keycloak.sso.svc",
        "Orders",
        "10.1.2.3",
        "fd12::1",
        "bücher",
    ];

    #[test]
    fn plain_http_is_allowed_on_loopback_only() {
        for (text, on_loopback) in [
            ("http://127.0.0.1:6002/secret", true),
            ("http://127.1.2.3/secret", true),
            ("http://localhost/secret", true),
            ("http://[::1]:1/secret", true),
            ("http://as.example/secret", false),
            ("http://127.0.0.1.example/secret", false),
            ("http://localhost.example/secret", false),
            ("http://[fd12::2]/secret", false),
        ] {
            let endpoint = url(text);
            assert_eq!(endpoint.is_loopback(), on_loopback, "{text}");
            let result = PlainHttp::default().allowing_loopback().check(&endpoint);
            assert_eq!(result.is_ok(), on_loopback, "{text}");
            let error = PlainHttp::default().check(&endpoint).expect_err(text);
            assert_eq!(error.kind(), ConfigErrorKind::PlainHttp);
            assert!(!error.to_string().contains("secret"), "{error}");
            let named = error.to_string().contains("allow_loopback_http()");
            assert_eq!(named, on_loopback, "{error}");
        }
        let https = url("https://as.example");
        PlainHttp::default().check(&https).unwrap();
    }

    #[test]
    fn plain_http_is_allowed_to_the_named_hosts_and_to_no_other() {
        let allowed = PlainHttp::new(false, HOSTS).unwrap();
        for (text, is_allowed) in [
            ("http://keycloak.sso.svc/realms/x", true),
            ("http://keycloak.sso.svc:8080/realms/x", true),
            ("HTTP://KEYCLOAK.sso.SVC", true),
            ("http://orders/", true),
            ("http://10.1.2.3/", true),
            ("http://0x0a010203/", true), // the same address
            ("http://[fd12::1]:80/", true),
            ("http://[fd12:0:0::1]/", true),
            ("http://xn--bcher-kva/", true),
            ("http://sso.svc/", false),
            ("http://keycloak.sso.svc.evil.example/", false),
            ("http://evil.keycloak.sso.svc/", false),
            ("http://keycloak.sso.svc./", false),
            ("http://keycloak-sso-svc/", false),
            ("http://keycloak/", false),
            ("http://orders.svc/", false),
            ("http://order/", false),
            ("http://10.1.2.30/", false),
            ("http://[::ffff:10.1.2.3]/", false),
            ("http://[fd12::2]/", false),
            ("http://localhost/", false),
            ("http://127.0.0.1/", false),
            ("http://as.example/?host=orders", false),
            ("http://as.example/orders", false),
            ("https://as.example/", true),
            ("https://127.0.0.1/", true),
        ] {
            let result = allowed.check(&url(text));
            assert_eq!(result.is_ok(), is_allowed, "{text}");
        }
        let error = allowed.check(&url("http://keycloak/realms/x")).unwrap_err();
        assert_eq!(
            error.with_setting("issuer").to_string(),
            "invalid issuer \"http://keycloak\": is plain http: use https, or \
             allow_http([\"keycloak\"])"
        );
    }

    #[test]
    fn loopback_can_be_allowed_by_name() {
        let allowed = PlainHttp::new(false, ["localhost"]).unwrap();
        allowed.check(&url("http://localhost:6002/")).unwrap();
        allowed.check(&url("http://127.0.0.1:6002/")).unwrap_err();
    }

    #[test]
    fn the_metadata_of_an_issuer_name_https_or_hosts_that_are_allowed() {
        let both = PlainHttp::new(true, ["keycloak", "keys"]).unwrap();
        for (issuer, named, is_allowed) in [
            ("https://keycloak", "https://keys/k", true),
            ("https://keycloak", "http://keys/k", false),
            ("https://keycloak", "http://keycloak/k", false),
            ("https://keycloak", "http://127.0.0.1/k", false),
            ("http://keycloak", "https://other/k", true),
            ("http://keycloak", "http://keycloak/k", true),
            ("http://keycloak", "http://keys/k", true),
            ("http://keycloak", "http://other/k", false),
            ("http://keycloak", "http://127.0.0.1/k", false),
            ("http://keycloak", "http://localhost/k", false),
            ("http://127.0.0.1:1", "http://localhost:2/k", true),
            ("http://127.0.0.1:1", "http://keys/k", true),
            ("http://127.0.0.1:1", "http://other/k", false),
        ] {
            let result = both.check_named_by(&url(issuer), &url(named));
            assert_eq!(result.is_ok(), is_allowed, "{issuer}: {named}");
            if let Err(error) = result {
                assert_eq!(error.kind(), ConfigErrorKind::PlainHttp);
            }
            let none = PlainHttp::default().check_named_by(&url(issuer), &url(named));
            assert_eq!(
                none.is_ok(),
                named.starts_with("https:"),
                "{issuer}: {named}"
            );
        }
    }

    #[test]
    fn only_the_name_of_a_host_can_be_allowed() {
        for (bad, reason) in [
            ("", "empty"),
            ("*", "wildcards"),
            ("*.sso.svc", "wildcards"),
            ("keycloak.*", "wildcards"),
            ("http://keycloak", "remove scheme"),
            ("https://user:secret@keycloak/", "remove scheme"),
            ("//keycloak", "remove scheme"),
            ("keycloak/realms", "remove scheme"),
            ("user@keycloak", "remove scheme"),
            ("keycloak?secret", "remove scheme"),
            ("keycloak#secret", "remove scheme"),
            ("key%63loak", "remove scheme"),
            ("keycloak:8080", "remove the port"),
            ("[fd12::1]:8080", "remove the port"),
            ("user:secret", "remove the port"),
            (" keycloak", "valid host names"),
            ("keycloak orders", "valid host names"),
            ("keycloak\n", "valid host names"),
            ("1.2.3.400", "valid host names"),
            ("169.254.169.254", "link-local, metadata"),
            ("2852039166", "link-local, metadata"),
            ("100.100.100.200", "link-local, metadata"),
            ("fd00:ec2::254", "link-local, metadata"),
            ("[fe80::1]", "link-local, metadata"),
            ("0.0.0.0", "link-local, metadata"),
            ("::", "link-local, metadata"),
        ] {
            let error = PlainHttp::new(true, ["good", bad]).expect_err(bad);
            assert_eq!(error.setting(), "allow_http");
            let text = error.to_string();
            assert!(text.contains(reason), "{bad:?}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_host_that_is_named_twice_is_one_host() {
        let hosts = ["Orders", "orders", "10.1.2.3", "0x0a010203", "keycloak"];
        let allowed = PlainHttp::new(false, hosts).unwrap();
        let hosts: Vec<String> = allowed.hosts().iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["orders", "10.1.2.3", "keycloak"]);
    }

    /// Names, addresses, and what looks like them.
    fn host() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c]{1,2}(\\.[a-c]{1,2}){0,2}",
            "[A-C]{1,2}\\.[a-c]",
            any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
            any::<Ipv6Addr>().prop_map(|address| format!("[{address}]")),
            Just("localhost".to_owned()),
            Just("127.0.0.1".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn a_host_that_was_not_named_gets_no_plain_http(
            named in prop::collection::vec(host(), 0..4),
            target in host(),
            port in prop_oneof![Just(String::new()), (1_u16..).prop_map(|port| format!(":{port}"))],
            allow_loopback: bool,
            issuer in host(),
        ) {
            let Ok(allowed) = PlainHttp::new(allow_loopback, &named) else {
                return Ok(()); // a forbidden address
            };
            let (Ok(plain), Ok(https)) = (
                Endpoint::new(format!("http://{target}{port}/token?a=b")),
                Endpoint::new(format!("https://{target}{port}/token?a=b")),
            ) else {
                return Ok(());
            };
            prop_assert!(allowed.check(&https).is_ok());
            let is_named = named.iter().any(|name| name.eq_ignore_ascii_case(&target));
            let is_loopback = allow_loopback && plain.is_loopback();
            prop_assert_eq!(allowed.check(&plain).is_ok(), is_named || is_loopback);

            let (Ok(plain_issuer), Ok(https_issuer)) = (
                Endpoint::new(format!("http://{issuer}")),
                Endpoint::new(format!("https://{issuer}")),
            ) else {
                return Ok(());
            };
            prop_assert!(allowed.check_named_by(&https_issuer, &plain).is_err());
            prop_assert_eq!(
                allowed.check_named_by(&plain_issuer, &plain).is_ok(),
                is_named || is_loopback && plain_issuer.is_loopback()
            );
        }
    }
}
