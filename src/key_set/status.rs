//! The status of a key set, for readiness probes, dashboards and tests.

use std::time::{Duration, Instant};

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::jwk_set::NoUsableKeys;
use super::refresh_cause::RefreshCause;
use super::schedule::Schedule;
use super::set::KeySet;
use super::skipped_key::SkippedKey;
use crate::error::Error;
use crate::oauth::Issuer;

/// The outcomes of refreshes so far, and when the next one is due.
#[derive(Clone, Debug, Default)]
pub(super) struct RefreshState {
    /// In the order of [`RefreshCause::ALL`].
    counts: [RefreshCounts; RefreshCause::ALL.len()],
    pub(super) consecutive_failures: u32,
    pub(super) last_error: Option<Error>,
    /// The last fetched document, if it has no usable key.
    pub(super) unusable_keys: Option<KeySet>,
    /// The error of the last discovery.
    pub(super) metadata_error: Option<Error>,
    pub(super) next_refresh: Option<Instant>,
    /// The number of the last fetch that succeeded.
    pub(super) last_success: u64,
    /// The number of the last manual refresh, and its error.
    pub(super) manual: (u64, Option<Error>),
}

impl RefreshState {
    /// Whether the last fetch and the last discovery succeeded.
    pub(super) fn is_healthy(&self) -> bool {
        self.consecutive_failures == 0 && self.metadata_error.is_none()
    }

    /// Records the outcome of the fetch with this number.
    pub(super) fn finish(
        &mut self,
        number: u64,
        cause: RefreshCause,
        outcome: Result<(), Error>,
        schedule: &Schedule,
    ) {
        for (counted, count) in RefreshCause::ALL.iter().zip(&mut self.counts) {
            if *counted == cause {
                count.succeeded += u64::from(outcome.is_ok());
                count.failed += u64::from(outcome.is_err());
            }
        }
        if outcome.is_ok() {
            self.last_success = number;
        }
        match &outcome {
            Ok(()) => self.unusable_keys = None,
            // After a failure without a document, the last one is still the last one.
            Err(error) => {
                if let Some(NoUsableKeys { keys }) = NoUsableKeys::downcast_source(error) {
                    self.unusable_keys = Some(keys.clone());
                }
            }
        }
        self.last_error = outcome.err();
        if cause == RefreshCause::Manual {
            self.manual = (number, self.last_error.clone());
        }
        self.consecutive_failures = schedule.failures();
        self.next_refresh = Some(schedule.next());
    }

    pub(super) fn refreshes(&self, cause: RefreshCause) -> RefreshCounts {
        let count = RefreshCause::ALL
            .iter()
            .zip(&self.counts)
            .find(|(counted, _)| **counted == cause);
        count.map_or_else(RefreshCounts::default, |(_, count)| *count)
    }
}

/// The number of refreshes that succeeded and that failed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::authorization_server::{EndpointKind, Fault};
/// use tower_oauth::key_set::RefreshCause;
///
/// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
/// # let orders = orders.transport(issuer.transport()).start().await?;
/// issuer.fail_next(EndpointKind::Keys, 1, Fault::Garbage);
/// assert!(orders.refresh_keys().await.is_err());
/// assert!(orders.refresh_keys().await.is_ok());
/// let counts = orders.key_sets()[0].refreshes(RefreshCause::Manual);
/// assert_eq!((counts.succeeded, counts.failed, counts.total()), (1, 1, 2));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefreshCounts {
    /// Refreshes that returned a set, or that the current one is unchanged.
    pub succeeded: u64,
    /// Refreshes that returned no usable set.
    pub failed: u64,
}

impl RefreshCounts {
    /// The sum of both.
    #[must_use]
    pub fn total(self) -> u64 {
        self.succeeded + self.failed
    }
}

/// Whether the key set of an issuer is usable and up to date.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::authorization_server::{EndpointKind, Fault};
/// use tower_oauth::key_set::KeySetState;
///
/// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
/// # let orders = orders.transport(issuer.transport()).start().await?;
/// assert_eq!(orders.key_sets()[0].state(), KeySetState::Healthy);
/// issuer.fail(EndpointKind::Keys, Fault::Outage(None));
/// assert!(orders.refresh_keys().await.is_err());
/// let state = orders.key_sets()[0].state();
/// assert_eq!(state, KeySetState::Degraded);
/// assert!(state.is_usable()); // alert, but keep serving
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeySetState {
    /// The last good set is in use, but refreshing does not work.
    ///
    /// The last refresh failed, or discovery did ([`KeySetStatus::metadata_error`]), or the
    /// refresher has stopped ([`KeySetStatus::is_refresher_stopped`]).
    Degraded,
    /// The last refresh succeeded, none was made yet with initial keys, or the set is fixed.
    Healthy,
    /// The last good set is too old. Requests are answered 503.
    Stale,
    /// No set was loaded yet. Requests are answered 503.
    Starting,
}

impl KeySetState {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Healthy => "healthy",
            Self::Stale => "stale",
            Self::Starting => "starting",
        }
    }

    /// Whether tokens can be validated.
    #[must_use]
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Degraded | Self::Healthy)
    }
}

/// The status of one issuer's key set, for readiness routes and dashboards.
///
/// Implements `Serialize`. Members are added, never renamed:
///
/// | member | type | method |
/// | --- | --- | --- |
/// | `issuer` | string | [`issuer`](Self::issuer) |
/// | `state` | `degraded`, `healthy`, `stale`, `starting` | [`state`](Self::state) |
/// | `abandoned` | boolean | [`is_refresher_stopped`](Self::is_refresher_stopped) |
/// | `generation` | number | [`generation`](Self::generation) |
/// | `age_seconds` | number or `null` | [`age`](Self::age) |
/// | `next_attempt_seconds` | number or `null` | [`next_refresh_in`](Self::next_refresh_in) |
/// | `last_error` | name of an [`ErrorKind`], or `null` | [`last_error`](Self::last_error) |
/// | `metadata_error` | as `last_error` | [`metadata_error`](Self::metadata_error) |
/// | `consecutive_failures` | number | [`consecutive_failures`](Self::consecutive_failures) |
/// | `usable_keys` | number | [`usable_key_count`](Self::usable_key_count) |
/// | `skipped` | array | [`skipped`](Self::skipped) |
/// | `skipped[].kid` | string or `null` | [`SkippedKey::kid`], escaped, at most 200 characters |
/// | `skipped[].reason` | name of a [`SkipReason`] | [`SkippedKey::reason`] |
/// | `skipped[].detail` | text, which may change | [`SkippedKey::detail`] |
/// | `refreshes` | object with `asked` (manual), `bad_signature` (invalid signature), `clock_jump`, `timer` and `unknown_key` | [`refreshes`](Self::refreshes) |
/// | `refreshes.*.succeeded`, `refreshes.*.failed` | number | [`RefreshCounts`] |
/// | `waits` | number | [`refresh_waits`](Self::refresh_waits) |
/// | `negative_hits` | number | [`negative_cache_hits`](Self::negative_cache_hits) |
///
/// [`ErrorKind`]: crate::error::ErrorKind
/// [`SkipReason`]: super::SkipReason
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::ResourceServer;
///
/// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
/// # let orders = orders.transport(issuer.transport()).start().await?;
/// let status = &orders.key_sets()[0];
/// assert_eq!((status.generation(), status.usable_key_count()), (1, 1));
/// assert_eq!(status.last_error().map(ToString::to_string), None);
///
/// // The body of a readiness route:
/// let body = serde_json::json!({ "key_sets": orders.key_sets() });
/// assert_eq!(body["key_sets"][0]["state"], "healthy");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KeySetStatus {
    pub(super) issuer: Issuer,
    pub(super) state: KeySetState,
    pub(super) generation: u64,
    /// The keys that are used.
    pub(super) keys: Option<KeySet>,
    /// The last document that was fetched and parsed.
    pub(super) last_document: Option<KeySet>,
    pub(super) is_refresher_stopped: bool,
    pub(super) age: Option<Duration>,
    pub(super) next_refresh: Option<Duration>,
    pub(super) refresh_state: RefreshState,
    pub(super) refresh_waits: u64,
    pub(super) negative_cache_hits: u64,
}

impl KeySetStatus {
    /// The issuer of the keys.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whether tokens can be validated, and whether refreshing works.
    #[must_use]
    pub fn state(&self) -> KeySetState {
        self.state
    }

    /// Whether the refresher has stopped.
    ///
    /// The [`Refresher`](crate::resource_server::Refresher) was dropped, or the runtime that it ran
    /// on. The current set is used until it is too old.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::ResourceServer;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let (orders, refresher) = orders.transport(issuer.transport()).build()?;
    /// let refreshing = tokio::spawn(refresher);
    /// orders.wait_for_keys().await;
    /// refreshing.abort();
    /// # assert!(refreshing.await.is_err());
    /// assert!(orders.key_sets()[0].is_refresher_stopped());
    /// assert!(orders.keys_available()); // until they are too old
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_refresher_stopped(&self) -> bool {
        self.is_refresher_stopped
    }

    /// The number of different sets that were loaded so far.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The number of keys in use. Keys that [`revoke_key`][revoke] has revoked still count.
    ///
    /// [revoke]: crate::ResourceServer::revoke_key
    #[must_use]
    pub fn usable_key_count(&self) -> usize {
        self.keys.as_ref().map_or(0, KeySet::len)
    }

    /// The skipped members of the last fetched document, at most 100.
    ///
    /// Also of a document without a usable key: the fetch then failed, and the keys in use, if
    /// there are any, are those of an earlier document.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use tower_oauth::transport::ServiceTransport;
    /// # let issuer = ServiceTransport::new(tower::service_fn(async |_: Request<Full<Bytes>>| {
    /// #     let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed448","kid":"2026-12","x":"AAAA"}]}"#;
    /// #     Ok::<_, std::convert::Infallible>(Response::new(keys.to_owned()))
    /// # }));
    /// use tower_oauth::{Endpoint, ResourceServer, TrustedIssuer};
    ///
    /// let trusted = TrustedIssuer::new("https://as.example".parse()?, "orders".parse()?)
    ///     .jwks_uri(Endpoint::new("https://as.example/keys")?); // its only key is an Ed448 key
    /// let orders = ResourceServer::from_issuer(trusted).transport(issuer).start().await?;
    /// let status = &orders.key_sets()[0];
    /// assert_eq!(status.usable_key_count(), 0);
    /// let skipped = status.skipped().next().ok_or("all are used")?;
    /// assert_eq!(skipped.detail(), "crv Ed448 is not supported, expected Ed25519");
    /// # Ok(())
    /// # }
    /// ```
    pub fn skipped(&self) -> impl Iterator<Item = &SkippedKey> {
        self.last_document.iter().flat_map(KeySet::skipped)
    }

    /// The time since the last successful refresh.
    ///
    /// `None` without a usable set and with a fixed one.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// The time until the next scheduled refresh.
    ///
    /// `None` before the first refresh has finished, with a fixed set, and after the refresher has
    /// stopped.
    #[must_use]
    pub fn next_refresh_in(&self) -> Option<Duration> {
        self.next_refresh
    }

    /// The error of the last refresh; `None` if it succeeded.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::{EndpointKind, Fault};
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// issuer.fail(EndpointKind::Keys, Fault::Outage(None));
    /// assert!(orders.refresh_keys().await.is_err());
    /// let status = &orders.key_sets()[0];
    /// let error = status.last_error().expect("the refresh failed");
    /// assert_eq!(error.url(), Some(issuer.jwks_uri().as_str()));
    /// assert_eq!(status.consecutive_failures(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn last_error(&self) -> Option<&Error> {
        self.refresh_state.last_error.as_ref()
    }

    /// The error of the last discovery; `None` if it succeeded or is not used.
    ///
    /// Meanwhile the keys are fetched from the last known `jwks_uri`, for no longer than
    /// [`max_stale`](super::RefreshPolicy::max_stale) after the last successful discovery.
    #[must_use]
    pub fn metadata_error(&self) -> Option<&Error> {
        self.refresh_state.metadata_error.as_ref()
    }

    /// The number of failed refreshes since the last success.
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.refresh_state.consecutive_failures
    }

    /// The number of refreshes for this cause.
    #[must_use]
    pub fn refreshes(&self, cause: RefreshCause) -> RefreshCounts {
        self.refresh_state.refreshes(cause)
    }

    /// The number of refreshes that succeeded, for any cause.
    #[must_use]
    pub fn refreshes_succeeded(&self) -> u64 {
        RefreshCause::ALL
            .iter()
            .map(|cause| self.refreshes(*cause).succeeded)
            .sum()
    }

    /// The number of refreshes that failed, for any cause.
    #[must_use]
    pub fn refreshes_failed(&self) -> u64 {
        RefreshCause::ALL
            .iter()
            .map(|cause| self.refreshes(*cause).failed)
            .sum()
    }

    /// The number of requests that waited for a refresh.
    #[must_use]
    pub fn refresh_waits(&self) -> u64 {
        self.refresh_waits
    }

    /// The number of requests rejected at once because the negative cache had their `kid`.
    #[must_use]
    pub fn negative_cache_hits(&self) -> u64 {
        self.negative_cache_hits
    }
}

impl Serialize for KeySetStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Skipped<'a>(&'a KeySetStatus);

        impl Serialize for Skipped<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.skipped())
            }
        }

        struct ByCause<'a>(&'a KeySetStatus);

        impl Serialize for ByCause<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                #[derive(serde::Serialize)]
                struct Outcomes {
                    succeeded: u64,
                    failed: u64,
                }
                let mut causes = serializer.serialize_map(Some(RefreshCause::ALL.len()))?;
                for &cause in RefreshCause::ALL {
                    let RefreshCounts { succeeded, failed } = self.0.refreshes(cause);
                    causes.serialize_entry(cause.member_name(), &Outcomes { succeeded, failed })?;
                }
                causes.end()
            }
        }

        let mut status = serializer.serialize_struct("KeySetStatus", 14)?;
        status.serialize_field("issuer", self.issuer.as_str())?;
        status.serialize_field("state", self.state.as_str())?;
        status.serialize_field("abandoned", &self.is_refresher_stopped)?;
        status.serialize_field("generation", &self.generation)?;
        status.serialize_field("age_seconds", &self.age.map(|age| age.as_secs()))?;
        status.serialize_field(
            "next_attempt_seconds",
            &self.next_refresh.map(|wait| wait.as_secs()),
        )?;
        status.serialize_field(
            "last_error",
            &self.last_error().map(|error| error.kind().as_str()),
        )?;
        let metadata_error = self.metadata_error().map(|error| error.kind().as_str());
        status.serialize_field("metadata_error", &metadata_error)?;
        status.serialize_field("consecutive_failures", &self.consecutive_failures())?;
        status.serialize_field("usable_keys", &self.usable_key_count())?;
        status.serialize_field("skipped", &Skipped(self))?;
        status.serialize_field("refreshes", &ByCause(self))?;
        status.serialize_field("waits", &self.refresh_waits)?;
        status.serialize_field("negative_hits", &self.negative_cache_hits)?;
        status.end()
    }
}
