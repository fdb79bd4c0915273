//! The origins that a token may be sent to.

use std::sync::Arc;

use http::Uri;

use crate::clock::{Clock as _, SystemClock};
use crate::log_limit::LogLimit;
use crate::oauth::{Origin, PlainHttp};
use crate::trace;

/// This many of the allowed origins are logged.
const MAX_LISTED: usize = 8;

/// The origins whose requests get the token.
#[derive(Clone, Debug)]
pub(super) struct AllowedOrigins {
    origins: Arc<[Origin]>,
    /// Whether requests without an authority get the token.
    origin_form: bool,
    /// On events of requests to other origins.
    log_limit: Arc<LogLimit>,
}

impl AllowedOrigins {
    /// Leaves out the origins with plain `http` that is not allowed: anyone on the way could read
    /// the token.
    pub(super) fn new(
        origins: impl IntoIterator<Item = impl Into<Origin>>,
        plain_http: &PlainHttp,
    ) -> Self {
        let mut allowed = Vec::new();
        for origin in origins {
            let origin = origin.into();
            if plain_http.check(origin.endpoint()).is_err() {
                trace::warn!(
                    target: "tower_oauth::client",
                    origin = %origin,
                    "requests to this origin get no token, because it is plain http: use https, or \
                     allow_http"
                );
            } else {
                allowed.push(origin);
            }
        }
        Self {
            origins: allowed.into(),
            origin_form: false,
            log_limit: Arc::new(LogLimit::new()),
        }
    }

    pub(super) fn allow_origin_form(&mut self) {
        self.origin_form = true;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Origin> {
        self.origins.iter()
    }

    pub(super) fn matches(&self, uri: &Uri) -> bool {
        match uri.authority() {
            Some(_) => self.origins.iter().any(|origin| origin.matches(uri)),
            None => self.origin_form,
        }
    }

    /// Logs a request to another origin, which gets no token: each at `debug`, one a minute at
    /// `warn`. Neither user information nor path of the URI is logged.
    #[cfg_attr(
        not(feature = "tracing"),
        expect(unused_variables, reason = "nothing is logged")
    )]
    #[cold]
    pub(super) fn log_other(&self, uri: &Uri) {
        if !trace::warns!("tower_oauth::client") {
            return;
        }
        let (scheme, host) = (uri.scheme_str(), uri.host());
        let port = uri.port().map(|port| format!(":{port}"));
        let origin = match (scheme, host) {
            (Some(scheme), Some(host)) => format!("{scheme}://{host}{}", port.unwrap_or_default()),
            _ => "none: the URI has no host".to_owned(),
        };
        let allowed = self.origins.iter().take(MAX_LISTED);
        let allowed: Vec<_> = allowed.map(ToString::to_string).collect();
        trace::debug!(
            target: "tower_oauth::client",
            %origin,
            ?allowed,
            "a request gets no token, because the layer is not for its origin"
        );
        if let Some(suppressed) = self.log_limit.permit(SystemClock.now()) {
            trace::warn!(
                target: "tower_oauth::client",
                %origin,
                ?allowed,
                "requests get no token{suppressed}, because the layer is not for their origin \
                 (logged once a minute)"
            );
        }
    }
}
