//! The token endpoint: a configured URL, or a URL from the issuer's metadata.
//!
//! A discovered URL is discovered again after an hour, and after a token request whose failure may
//! mean that the endpoint has moved. If discovery fails then, the last known URL is used: an outage
//! of the metadata need not be an outage of the token endpoint. Metadata that name another issuer
//! or no usable URL are an error, and nothing is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::time::timeout;

use super::shared_discovery::{
    DISCOVERY_INTERVAL, DiscoveredUrl, DiscoveryFailure, SharedDiscovery,
};
use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, Issuer};
use crate::timer::now;
use crate::transport::{HttpClient, Limits, within};
use crate::{metadata, trace};

/// Minimum time between two discoveries that failed token requests cause.
const MIN_REDISCOVERY_INTERVAL: Duration = Duration::from_secs(10);

/// Time between a failed discovery and the next one while a URL is known.
const DISCOVERY_RETRY: Duration = Duration::from_secs(60);

/// Longer values of the metadata's `Retry-After` are cut to this.
const MAX_DISCOVERY_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Where token requests are sent.
#[derive(Clone, Debug)]
pub(super) enum TokenEndpoint {
    Fixed(Endpoint),
    Discovered(DiscoveredEndpoint),
}

/// A token endpoint named by the issuer's metadata.
#[derive(Clone, Debug)]
pub(super) struct DiscoveredEndpoint {
    pub(super) issuer: Issuer,
    /// Whether the client authenticates with its TLS certificate.
    uses_mtls: bool,
    /// `{issuer}/token`, for an issuer that publishes no metadata.
    fallback: Endpoint,
    known: Option<KnownEndpoint>,
    shared: Arc<SharedDiscovery>,
}

/// A URL that the metadata named, or a fallback where a token endpoint responded.
#[derive(Clone, Debug)]
struct KnownEndpoint {
    url: Endpoint,
    is_fallback: bool,
    /// When the next discovery is due.
    rediscover_at: Instant,
    /// Metadata that were fetched up to this time lead to no other URL.
    min_fetched_at: Instant,
    /// Failed token requests cause no discovery before this.
    no_rediscovery_before: Instant,
}

/// The arguments of a discovery.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiscoveryContext<'a> {
    pub(super) http_client: &'a HttpClient,
    pub(super) now: UnixTime,
    pub(super) limits: Limits,
}

/// The endpoint of one token request.
#[derive(Debug)]
pub(super) struct ResolvedEndpoint {
    pub(super) url: Endpoint,
    is_fallback: bool,
    /// Whether the URL was used without a new discovery.
    is_cached: bool,
    /// The known endpoint before the request.
    known: Option<KnownEndpoint>,
}

impl TokenEndpoint {
    pub(super) fn discovered(issuer: Issuer, fallback: Endpoint) -> Self {
        Self::Discovered(DiscoveredEndpoint {
            issuer,
            uses_mtls: false,
            fallback,
            known: None,
            shared: Arc::default(),
        })
    }

    /// Discovers without the clones.
    pub(super) fn unshare(&mut self) {
        if let Self::Discovered(discovery) = self {
            discovery.shared = Arc::default();
        }
    }

    /// Prefers the token endpoint of `mtls_endpoint_aliases` (RFC 8705 §5).
    pub(super) fn prefer_mtls(&mut self) {
        if let Self::Discovered(discovery) = self {
            discovery.uses_mtls = true;
        }
    }

    /// The endpoint of the next token request.
    ///
    /// The request counts as failed unless its result is [recorded](Self::record_result), because
    /// its future may be dropped at any await point.
    pub(super) async fn resolve(
        &mut self,
        context: DiscoveryContext<'_>,
    ) -> Result<ResolvedEndpoint, Error> {
        match self {
            Self::Fixed(url) => Ok(ResolvedEndpoint {
                url: url.clone(),
                is_fallback: false,
                is_cached: false,
                known: None,
            }),
            Self::Discovered(discovery) => {
                let resolved = discovery.resolve(context).await?;
                if let Some(known) = &mut discovery.known {
                    known.schedule_rediscovery();
                }
                Ok(resolved)
            }
        }
    }

    /// Records the result of a token request. Returns whether the endpoint may have moved and
    /// should be resolved again now.
    pub(super) fn record_result<T>(
        &mut self,
        resolved: &ResolvedEndpoint,
        result: &Result<T, Error>,
    ) -> bool {
        let Self::Discovered(discovery) = self else {
            return false;
        };
        let error = result.as_ref().err();
        if error.is_some_and(|error| error.url().is_none()) {
            // Nothing was sent, because the grant or the client authentication failed. If the
            // endpoint is not one for which an assertion is made, other metadata may help.
            if error.is_some_and(|error| error.kind() != ErrorKind::Configuration) {
                discovery.known.clone_from(&resolved.known);
            }
            return false;
        }
        if error.is_some_and(may_have_moved) {
            return resolved.is_cached
                && !discovery
                    .known
                    .as_ref()
                    .is_some_and(KnownEndpoint::is_fresh);
        }
        // A fallback becomes known once a token endpoint has responded there.
        discovery.known = resolved
            .known
            .clone()
            .or_else(|| Some(KnownEndpoint::new(resolved.url.clone(), true, now())));
        false
    }
}

impl DiscoveredEndpoint {
    async fn resolve(&mut self, context: DiscoveryContext<'_>) -> Result<ResolvedEndpoint, Error> {
        if let Some(known) = self.known.as_ref().filter(|known| known.is_fresh()) {
            return Ok(known.resolved(true));
        }
        let error = match self.discover(context).await {
            Ok(DiscoveredUrl {
                url,
                fetched_at,
                from_cache,
            }) => {
                let no_rediscovery_before =
                    self.known.as_ref().map(|known| known.no_rediscovery_before);
                let mut known = KnownEndpoint::new(url, false, fetched_at);
                known.no_rediscovery_before =
                    no_rediscovery_before.unwrap_or(known.no_rediscovery_before);
                return Ok(self.known.insert(known).resolved(from_cache));
            }
            Err(DiscoveryFailure::NoEndpoint(error)) => return Err(error),
            Err(DiscoveryFailure::NoMetadata(error))
                if error.kind() == ErrorKind::IssuerMismatch =>
            {
                return Err(error);
            }
            Err(DiscoveryFailure::NoMetadata(error)) => error,
        };
        let is_unpublished = metadata::is_not_found(&error);
        match &mut self.known {
            Some(known) => {
                let pause = error
                    .retry_after()
                    .unwrap_or_default()
                    .clamp(DISCOVERY_RETRY, MAX_DISCOVERY_RETRY_AFTER);
                known.no_rediscovery_before = now() + pause;
                known.rediscover_at = now() + pause;
                if is_unpublished && known.is_fallback {
                    // The issuer publishes no metadata, as before.
                    known.rediscover_at = now() + DISCOVERY_INTERVAL;
                } else {
                    trace::warn!(
                        target: "tower_oauth::client",
                        issuer = %self.issuer,
                        error = %error.source_chain(),
                        "discovery failed: token requests go to the last known endpoint"
                    );
                }
                Ok(known.resolved(false))
            }
            None if is_unpublished => Ok(ResolvedEndpoint {
                url: self.fallback.clone(),
                is_fallback: true,
                is_cached: false,
                known: None,
            }),
            None => Err(error),
        }
    }

    async fn discover(
        &self,
        mut context: DiscoveryContext<'_>,
    ) -> Result<DiscoveredUrl, DiscoveryFailure> {
        let limits = &mut context.limits;
        if self.known.is_some() {
            // The token request needs the rest of the time.
            limits.total = limits.total.mul_f64(0.4);
        }
        let limit = limits.total;
        let min_fetched_at = self.known.as_ref().map(|known| known.min_fetched_at);
        let result =
            self.shared
                .token_endpoint(&self.issuer, self.uses_mtls, context, min_fetched_at);
        // One limit for all well-known locations, and for the wait for another discovery.
        timeout(limit, result).await.unwrap_or_else(|_elapsed| {
            let error = Error::new(Operation::Discovery, ErrorKind::Timeout);
            Err(DiscoveryFailure::NoMetadata(
                error.with_expected(within(limit)),
            ))
        })
    }
}

impl KnownEndpoint {
    fn new(url: Endpoint, is_fallback: bool, at: Instant) -> Self {
        Self {
            url,
            is_fallback,
            rediscover_at: at + DISCOVERY_INTERVAL,
            min_fetched_at: at,
            no_rediscovery_before: at,
        }
    }

    fn is_fresh(&self) -> bool {
        now() < self.rediscover_at
    }

    fn resolved(&self, is_cached: bool) -> ResolvedEndpoint {
        ResolvedEndpoint {
            url: self.url.clone(),
            is_fallback: self.is_fallback,
            is_cached,
            known: Some(self.clone()),
        }
    }

    /// Schedules a discovery before the next request, or at the end of the minimum interval.
    fn schedule_rediscovery(&mut self) {
        let at = self.no_rediscovery_before.max(now());
        if at < self.rediscover_at {
            self.rediscover_at = at;
            self.min_fetched_at = now();
            self.no_rediscovery_before = at + MIN_REDISCOVERY_INTERVAL;
        }
    }
}

impl ResolvedEndpoint {
    /// Adds to the error of a token request that its URL is a fallback.
    pub(super) fn annotate(&self, error: Error) -> Error {
        if self.is_fallback {
            error.with_detail("the URL is guessed, because the issuer publishes no metadata")
        } else {
            error
        }
    }
}

/// Whether the failure of a token request may mean that the URL is no token endpoint any more. An
/// OAuth error comes from a token endpoint.
fn may_have_moved(error: &Error) -> bool {
    let is_missing = |status| {
        matches!(
            status,
            StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::GONE
                | StatusCode::MISDIRECTED_REQUEST
        )
    };
    match error.kind() {
        // Some frameworks send an `error` member with every 404.
        ErrorKind::Refused => error.status().is_some_and(is_missing),
        ErrorKind::Status(status) => status != StatusCode::TOO_MANY_REQUESTS,
        _ => true,
    }
}
