//! Fetching one issuer's key set over HTTP, and discovery of its `jwks_uri`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::cache_control::CacheControl;
use super::config::RefresherConfig;
use super::jwk_set::parse_set;
use super::refresh_cause::RefreshCause;
use super::set::KeySet;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, Issuer};
use crate::timer::now;
use crate::transport::{HttpClient, Limits, describe_document, within};
use crate::{metadata, trace};

/// The time between two discoveries while keys are fetched successfully.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(3600);

/// The time after which failed discovery is retried if a `jwks_uri` is known.
const DISCOVERY_RETRY: Duration = Duration::from_secs(60);

/// The longest `Retry-After` of discovery that is honored.
const MAX_DISCOVERY_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The time during which 304 is accepted before the whole set is fetched again.
const REVALIDATE_FOR: Duration = Duration::from_secs(3600);

/// The source of an issuer's keys.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A fixed set.
    Fixed(KeySet),
    /// The `jwks_uri` of the issuer's metadata (RFC 8414).
    Discovery,
    /// A configured `jwks_uri`.
    JwksUri(Endpoint),
}

/// Fetches one issuer's keys and stores the `jwks_uri` and the last document.
///
/// A fetch is cancel safe: state that must survive is set before each await.
#[derive(Debug)]
pub(super) struct Fetcher {
    issuer: Issuer,
    /// The configured `jwks_uri`; if `None`, it is discovered.
    configured_uri: Option<Endpoint>,
    /// The last discovered `jwks_uri`. A failure does not clear it.
    discovered_uri: Option<Endpoint>,
    /// Time of the next discovery if `discovered_uri` is known.
    discover_at: Instant,
    /// Time until which `discovered_uri` is used although discovery fails.
    discovered_until: Option<Instant>,
    /// The error of the last discovery.
    metadata_error: Option<Error>,
    max_stale: Duration,
    max_candidate_keys: usize,
    limits: Limits,
    http_client: HttpClient,
    clock: Arc<dyn Clock>,
    /// `If-None-Match` and `If-Modified-Since` of the current document.
    validators: HeaderMap,
    /// Time until which the validators above are sent.
    revalidate_until: Instant,
    /// The current document.
    body: Bytes,
}

/// The result of a successful fetch.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The new set; `None` if the current one has not changed.
    pub(super) keys: Option<KeySet>,
    pub(super) cache_control: CacheControl,
}

impl Fetcher {
    pub(super) fn new(refresh: &RefresherConfig) -> Self {
        Self {
            issuer: refresh.issuer.clone(),
            configured_uri: refresh.jwks_uri.clone(),
            discovered_uri: None,
            discover_at: now(),
            discovered_until: None,
            metadata_error: None,
            max_stale: refresh.policy.max_stale,
            max_candidate_keys: refresh.max_candidate_keys,
            limits: Limits {
                total: refresh.policy.fetch_timeout,
                max_body: refresh.policy.max_body,
            },
            http_client: refresh.http_client.clone(),
            clock: Arc::clone(&refresh.clock),
            validators: HeaderMap::new(),
            revalidate_until: now(),
            body: Bytes::new(),
        }
    }

    /// Fetches the set, after discovery where the `jwks_uri` is unknown or due for it. Both share
    /// one time limit.
    pub(super) async fn fetch(&mut self, cause: RefreshCause) -> Result<Fetched, Error> {
        let ends_at = now() + self.limits.total;
        let mut headers = HeaderMap::new();
        if cause != RefreshCause::Timer {
            // RFC 9111 §5.2.1.4: a cache on the way must revalidate with the issuer.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let before = self.discover_at;
        let uri = self.jwks_uri(cause, &headers).await?;
        let discover_at = self.discover_at;
        // A fetch that fails invalidates `jwks_uri`: the keys may have moved.
        self.invalidate_jwks_uri();
        let left = ends_at.saturating_duration_since(now());
        let mut fetched = self.fetch_from(&uri, cause, headers, left).await?;
        if self.metadata_error.is_some() {
            // The shortest interval, to notice soon when discovery works again.
            fetched.cache_control = CacheControl::NoStore;
        }
        // A fetch for an unknown `kid` that brought nothing new also invalidates `jwks_uri`,
        // unless discovery has just returned it.
        if cause != RefreshCause::UnknownKey || fetched.keys.is_some() || discover_at != before {
            self.discover_at = discover_at;
        }
        Ok(fetched)
    }

    /// Makes the next fetch discover `jwks_uri`. A failed discovery has its own retry time.
    fn invalidate_jwks_uri(&mut self) {
        if self.metadata_error.is_none() {
            self.discover_at = now();
        }
    }

    /// The error of the last discovery, if it failed.
    pub(super) fn metadata_error(&self) -> Option<&Error> {
        self.metadata_error.as_ref()
    }

    /// The configured `jwks_uri`, or the discovered one after a discovery where that is due.
    async fn jwks_uri(
        &mut self,
        cause: RefreshCause,
        headers: &HeaderMap,
    ) -> Result<Endpoint, Error> {
        if let Some(uri) = &self.configured_uri {
            return Ok(uri.clone());
        }
        let total = self.limits.total;
        // After `max_stale` without metadata the host may belong to another party.
        let is_trusted = self.discovered_until.is_some_and(|end| now() < end);
        let Some(known) = self.discovered_uri.clone().filter(|_| is_trusted) else {
            return self.discover(headers, total).await;
        };
        // A manual refresh always includes discovery.
        if now() < self.discover_at && cause != RefreshCause::Manual {
            return Ok(known);
        }
        self.discover_at = now() + DISCOVERY_RETRY;
        // If discovery fails, keys are still fetched from the known `jwks_uri`: discovery gets
        // 40 % of the time limit, the fetch the rest.
        let error = match self.discover(headers, total.mul_f64(0.4)).await {
            Ok(uri) => return Ok(uri),
            Err(error) => error,
        };
        let retry_after = error
            .retry_after()
            .unwrap_or_default()
            .clamp(DISCOVERY_RETRY, MAX_DISCOVERY_RETRY_AFTER);
        self.discover_at = now() + retry_after;
        trace::warn!(
            target: "tower_oauth::key_set",
            issuer = %self.issuer,
            error = %error.source_chain(),
            "discovery failed: the keys are fetched from the last known jwks_uri"
        );
        Ok(known)
    }

    async fn discover(&mut self, headers: &HeaderMap, limit: Duration) -> Result<Endpoint, Error> {
        let discovered = self.fetch_metadata(headers, limit).await;
        self.metadata_error = discovered.as_ref().err().cloned();
        let uri = discovered?;
        if self.discovered_uri.as_ref() != Some(&uri) {
            // Validators belong to one URI (RFC 9110 §8.8).
            self.validators.clear();
        }
        self.discovered_uri = Some(uri.clone());
        // Early enough for a retry before `discovered_until`.
        self.discover_at = now() + DISCOVERY_INTERVAL.min(self.max_stale / 2);
        self.discovered_until = now().checked_add(self.max_stale);
        Ok(uri)
    }

    async fn fetch_metadata(
        &self,
        headers: &HeaderMap,
        limit: Duration,
    ) -> Result<Endpoint, Error> {
        let limits = Limits {
            total: limit,
            ..self.limits
        };
        let metadata = metadata::discover_with_headers(
            headers,
            &self.http_client,
            &self.issuer,
            self.clock.now(),
            limits,
        );
        // One time limit for all the well-known locations.
        let metadata = timeout(limit, metadata).await.unwrap_or_else(|_elapsed| {
            let error = Error::new(Operation::Discovery, ErrorKind::Timeout);
            Err(error.with_expected(within(limit)))
        })?;
        metadata.jwks_uri(self.http_client.plain_http())
    }

    async fn fetch_from(
        &mut self,
        uri: &Endpoint,
        cause: RefreshCause,
        mut headers: HeaderMap,
        limit: Duration,
    ) -> Result<Fetched, Error> {
        // Only scheduled refreshes send validators. On-demand refreshes, the first fetch after a
        // failure, and one fetch an hour are unconditional, so that a server with a constant
        // `ETag` cannot hide a rotation for ever.
        let may_revalidate = cause == RefreshCause::Timer && now() < self.revalidate_until;
        let validators = std::mem::take(&mut self.validators);
        let conditional = may_revalidate && !validators.is_empty();
        if conditional {
            headers.extend(validators.clone());
        }
        let limits = Limits {
            total: limit,
            ..self.limits
        };
        let now = self.clock.now();
        let response = self
            .http_client
            .get_json(Operation::JwksFetch, uri, headers, now, limits)
            .await?;
        let cache_control = CacheControl::from_headers(response.headers());
        if response.status() == StatusCode::NOT_MODIFIED {
            // A 304 to an unconditional request is a protocol error (RFC 9110 §15.4.5).
            if !conditional {
                return Err(
                    Error::new(Operation::JwksFetch, ErrorKind::Malformed).with_url(uri.as_str())
                );
            }
            self.validators = validators;
            return Ok(Fetched {
                keys: None,
                cache_control,
            });
        }
        let is_new = self.body.is_empty() || response.body() != &self.body;
        let keys = if is_new {
            let keys = parse_set(response.body(), self.max_candidate_keys);
            Some(keys.map_err(|error| describe_document(error, &response).with_url(uri.as_str()))?)
        } else {
            None
        };
        self.store_validators(&response);
        Ok(Fetched {
            keys,
            cache_control,
        })
    }

    /// Stores the document and its validators for the next scheduled refresh.
    fn store_validators(&mut self, response: &http::Response<Bytes>) {
        self.body = response.body().clone();
        self.validators.clear();
        self.revalidate_until = now() + REVALIDATE_FOR;
        for (from, to) in [
            (header::ETAG, header::IF_NONE_MATCH),
            (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE),
        ] {
            if let Some(value) = response.headers().get(from) {
                self.validators.insert(to, value.clone());
            }
        }
    }
}
