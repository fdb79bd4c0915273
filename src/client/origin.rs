//! Where a token may go: origins ([RFC 6454 §4](https://www.rfc-editor.org/rfc/rfc6454#section-4)).

use http::Uri;

use crate::oauth::Endpoint;

/// The scheme, host and port of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let url = endpoint.url();
        Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default(),
        }
    }

    /// Whether a request for `uri` goes here. Allocates nothing.
    pub(super) fn covers(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return false;
        };
        let default_port = match scheme {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        };
        scheme == self.scheme
            && host.eq_ignore_ascii_case(&self.host)
            && uri.port_u16().or(default_port) == self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_host_and_port_count_and_nothing_else() {
        let origin = Origin::of(&Endpoint::new("https://orders.example/v1/").unwrap());
        for same in [
            "https://orders.example",
            "https://ORDERS.example:443/other?x=y",
            "HTTPS://orders.example/",
        ] {
            assert!(origin.covers(&same.parse().unwrap()), "{same}");
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
            assert!(!origin.covers(&other.parse().unwrap()), "{other}");
        }
        let loopback = Origin::of(&Endpoint::new("http://[::1]:8081").unwrap());
        assert!(loopback.covers(&"http://[::1]:8081/x".parse().unwrap()));
        assert!(!loopback.covers(&"http://[::1]/x".parse().unwrap()));
    }
}
