//! What two names of one issuer differ in.

use std::net::Ipv4Addr;

/// The only difference between two issuer identifiers. Each is a common mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssuerDifference {
    /// The slash at the end.
    Slash,
    /// Upper and lower case.
    Case,
    /// White space around it.
    WhiteSpace,
    /// `http` and `https`.
    Scheme,
    /// Two names or ports of this machine.
    Loopback,
    /// The host of a Keycloak.
    KeycloakHost,
}

impl IssuerDifference {
    /// Compares two issuer identifiers, which are not the same.
    pub(crate) fn between(one: &str, other: &str) -> Option<Self> {
        if one.trim_end_matches('/') == other.trim_end_matches('/') {
            return Some(Self::Slash);
        }
        if one.eq_ignore_ascii_case(other) {
            return Some(Self::Case);
        }
        if one.trim() == other.trim() {
            return Some(Self::WhiteSpace);
        }
        let (one, other) = (IssuerUrl::parse(one)?, IssuerUrl::parse(other)?);
        if one.path != other.path {
            None
        } else if one.authority == other.authority {
            Some(Self::Scheme)
        } else if one.is_loopback() && other.is_loopback() {
            Some(Self::Loopback)
        } else if one.realm().is_some() {
            Some(Self::KeycloakHost)
        } else {
            None
        }
    }

    /// The difference, and what to do about it.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Slash => {
                "only the slash at the end differs: spell the issuer as `issuer` in its metadata \
                 does"
            }
            Self::Case => {
                "only upper and lower case differ: spell the issuer as `issuer` in its metadata \
                 does"
            }
            Self::WhiteSpace => "only white space differs: correct it at the issuer",
            Self::Scheme => {
                "only the scheme differs: an issuer behind a proxy that ends TLS must know its \
                 public URL. Keycloak: set `hostname` and `proxy-headers`"
            }
            Self::Loopback => {
                "both are this machine, under two names or ports: use one of them for this \
                 service and for its clients. Keycloak names itself after the Host header unless \
                 `hostname` is set; its tokens then carry another `iss`"
            }
            Self::KeycloakHost => {
                "only the host differs. Keycloak names itself after the Host header: set its \
                 `hostname`, so that it has one name inside and outside of the network, and trust \
                 that one"
            }
        }
    }
}

/// An issuer identifier that is a URL, without the slash at its end.
pub(crate) struct IssuerUrl<'i> {
    /// Host and port.
    pub(crate) authority: &'i str,
    pub(crate) path: &'i str,
}

impl<'i> IssuerUrl<'i> {
    pub(crate) fn parse(issuer: &'i str) -> Option<Self> {
        let (_, rest) = issuer.split_once("://")?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let path = path.trim_end_matches('/');
        Some(Self { authority, path })
    }

    fn is_loopback(&self) -> bool {
        let host = match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => self.authority,
        };
        let is_address = || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        host == "localhost" || host == "[::1]" || is_address()
    }

    /// The realm of a Keycloak.
    pub(crate) fn realm(&self) -> Option<&'i str> {
        self.path.split_once("/realms/").map(|(_, realm)| realm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usual_difference_is_recognized_in_both_directions() {
        use IssuerDifference::{Case, KeycloakHost, Loopback, Scheme, Slash, WhiteSpace};
        for (one, other, difference) in [
            ("https://a.example", "https://a.example/", Some(Slash)),
            ("https://a.example/t/", "https://a.example/t", Some(Slash)),
            ("https://a.example/T", "https://a.example/t", Some(Case)),
            ("https://a.example", "https://a.example\n", Some(WhiteSpace)),
            ("https://a.example/x", "http://a.example/x/", Some(Scheme)),
            (
                "http://127.0.0.1:1/r",
                "http://localhost:1/r",
                Some(Loopback),
            ),
            ("http://localhost", "http://[::1]", Some(Loopback)),
            (
                "http://localhost:8080",
                "http://127.0.0.1:9090",
                Some(Loopback),
            ),
            (
                "http://kc:8080/realms/x",
                "https://sso.example/realms/x",
                Some(KeycloakHost),
            ),
            (
                "http://kc:8080/realms/x",
                "https://sso.example/realms/y",
                None,
            ),
            ("https://a.example", "https://other.example", None),
            ("https://a.example", "http://a.example:8080", None),
            ("http://localhost", "http://127.0.0.1.example", None),
            ("http://localhost/a", "http://127.0.0.1/b", None),
            ("a.example", "https://a.example", None),
        ] {
            assert_eq!(
                IssuerDifference::between(one, other),
                difference,
                "{one} {other}"
            );
            assert_eq!(
                IssuerDifference::between(other, one),
                difference,
                "{other} {one}"
            );
        }
    }
}
