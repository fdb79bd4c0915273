//! The origins that a token may be sent to.

use std::sync::Arc;

use http::Uri;

use crate::oauth::{Origin, PlainHttp};
use crate::trace;

/// The origins whose requests get the token.
#[derive(Clone, Debug)]
pub(super) struct AllowedOrigins {
    origins: Arc<[Origin]>,
    /// Whether requests without an authority get the token.
    origin_form: bool,
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
