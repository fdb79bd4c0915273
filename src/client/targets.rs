//! The targets of a layer: which token is sent to which origins.

use std::sync::Arc;

use http::{HeaderMap, Uri, header};

use super::renewal::trigger::RenewalTrigger;
use super::{TokenManager, Unauthorized};
use crate::clock::{Clock as _, SystemClock};
use crate::log_limit::LogLimit;
use crate::oauth::Origin;
use crate::trace;

/// This many of the allowed origins are logged.
const MAX_LISTED: usize = 8;

/// The targets of a layer. A request gets the token of the target that its origin belongs to.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    targets: Arc<[Target]>,
    /// Whether requests without an authority get the token of the only target.
    origin_form: bool,
    /// On events of requests to other origins.
    log_limit: Arc<LogLimit>,
}

/// Origins whose requests get the token of one manager.
#[derive(Clone, Debug)]
pub(super) struct Target {
    origins: Vec<Origin>,
    /// A request that does not show its origin may be for one that is left out.
    has_refused_origin: bool,
    renewal: RenewalTrigger,
}

impl Target {
    /// Leaves out the origins with plain `http` that is not allowed: anyone on the way could read
    /// the token.
    pub(super) fn new(
        tokens: &TokenManager,
        origins: impl IntoIterator<Item = impl Into<Origin>>,
    ) -> Self {
        let mut allowed = Vec::new();
        let mut has_refused_origin = false;
        for origin in origins {
            let origin = origin.into();
            if tokens.plain_http().check(origin.endpoint()).is_err() {
                has_refused_origin = true;
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
        let renewal = RenewalTrigger {
            tokens: tokens.clone(),
            on: Unauthorized::default(),
            steps_up: tokens.steps_up_for(&allowed),
        };
        Self {
            origins: allowed,
            has_refused_origin,
            renewal,
        }
    }
}

impl Target {
    /// Whether each origin that a request without one may be for is allowed.
    fn allows_origin_form(&self) -> bool {
        !self.has_refused_origin && !self.origins.is_empty()
    }
}

impl Targets {
    pub(super) fn new(targets: impl IntoIterator<Item = Target>) -> Self {
        Self {
            targets: targets.into_iter().collect(),
            origin_form: false,
            log_limit: Arc::new(LogLimit::new()),
        }
    }

    pub(super) fn allow_origin_form(&mut self) {
        self.origin_form = true;
    }

    pub(super) fn renew_on(&mut self, responses: Unauthorized) {
        for target in Arc::make_mut(&mut self.targets) {
            target.renewal.on = responses;
        }
    }

    /// The manager of the token that a request gets. `None` if it is sent unchanged: it has an
    /// `Authorization` field, or its origin belongs to no target, which is logged.
    pub(super) fn find(&self, uri: &Uri, headers: &HeaderMap) -> Option<&RenewalTrigger> {
        if headers.contains_key(header::AUTHORIZATION) {
            return None;
        }
        let target = match (uri.authority(), &*self.targets) {
            (Some(_), targets) => targets
                .iter()
                .find(|target| target.origins.iter().any(|origin| origin.matches(uri))),
            // The URI does not say which of several targets it is for.
            (None, [target]) if self.origin_form && target.allows_origin_form() => Some(target),
            (None, _) => None,
        };
        if target.is_none() {
            self.log_other(uri);
        }
        target.map(|target| &target.renewal)
    }

    /// Logs a request to another origin, which gets no token: each at `debug`, one a minute at
    /// `warn`. Neither user information nor path of the URI is logged.
    #[cfg_attr(
        not(feature = "tracing"),
        expect(unused_variables, reason = "nothing is logged")
    )]
    #[cold]
    fn log_other(&self, uri: &Uri) {
        if !trace::warns!("tower_oauth::client") {
            return;
        }
        let (scheme, host) = (uri.scheme_str(), uri.host());
        let port = uri.port().map(|port| format!(":{port}"));
        let origin = match (scheme, host) {
            (Some(scheme), Some(host)) => format!("{scheme}://{host}{}", port.unwrap_or_default()),
            _ => "none: the URI has no host".to_owned(),
        };
        let allowed = self.targets.iter().flat_map(|target| &target.origins);
        let allowed: Vec<_> = allowed.take(MAX_LISTED).map(ToString::to_string).collect();
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
