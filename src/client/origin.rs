//! The origins that a token may be sent to
//! ([RFC 6454 §4](https://www.rfc-editor.org/rfc/rfc6454#section-4)).

use std::sync::Arc;

use http::Uri;

use crate::oauth::Endpoint;

/// The origins whose requests get the token.
#[derive(Clone, Debug)]
pub(super) struct AllowedOrigins {
    origins: Arc<[Origin]>,
    /// Whether requests without an authority get the token.
    origin_form: bool,
}

impl AllowedOrigins {
    pub(super) fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let origins = endpoints
            .into_iter()
            .map(|endpoint| Origin::from_endpoint(&endpoint))
            .collect();
        Self {
            origins,
            origin_form: false,
        }
    }

    pub(super) fn allow_origin_form(&mut self) {
        self.origin_form = true;
    }

    pub(super) fn matches(&self, uri: &Uri) -> bool {
        match uri.authority() {
            Some(_) => self.origins.iter().any(|origin| origin.matches(uri)),
            None => self.origin_form,
        }
    }
}

/// The scheme, host and port of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn from_endpoint(endpoint: &Endpoint) -> Self {
        let url = endpoint.url();
        Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default(),
        }
    }

    /// Whether `uri` has this origin. Does not allocate.
    fn matches(&self, uri: &Uri) -> bool {
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
    fn an_origin_is_compared_by_scheme_host_and_port_only() {
        let origin = Origin::from_endpoint(&Endpoint::new("https://orders.example/v1/").unwrap());
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
        let loopback = Origin::from_endpoint(&Endpoint::new("http://[::1]:8081").unwrap());
        assert!(loopback.matches(&"http://[::1]:8081/x".parse().unwrap()));
        assert!(!loopback.matches(&"http://[::1]/x".parse().unwrap()));
    }
}
