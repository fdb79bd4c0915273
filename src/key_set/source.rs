//! Where keys come from, and one fetch of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::KeySet;
use super::freshness::Freshness;
use super::jwk::{Quirks, parse_set};
use super::refresher::Refresh;
use super::schedule::RefreshCause;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, Issuer};
use crate::timer::now;
use crate::transport::{Limits, Transport, get_json};
use crate::{metadata, trace};

/// How often the metadata are asked again while the place that they named goes on answering.
const DISCOVER_EVERY: Duration = Duration::from_secs(3600);

/// Metadata that could not be had are left alone for this long, as long as a place is known.
const DISCOVER_AGAIN: Duration = Duration::from_secs(60);

/// Where the keys of an issuer come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A set that never changes.
    Fixed(KeySet),
    /// The issuer's metadata names the place (RFC 8414).
    Discovery,
    /// A given `jwks_uri`.
    JwksUri(Endpoint),
}

/// One issuer's keys over HTTP: remembers where they are and what it has.
///
/// A fetch may be dropped wherever it waits: what has to hold after it is set before.
#[derive(Debug)]
pub(super) struct Fetcher {
    issuer: Issuer,
    /// The configured `jwks_uri`; without it the metadata are asked.
    fixed_uri: Option<Endpoint>,
    /// What the metadata named last. Kept through every failure: a place that does not answer now
    /// is better than none.
    known_uri: Option<Endpoint>,
    /// When the metadata are asked again, although a place is known.
    discover_at: Instant,
    quirks: Quirks,
    candidate_keys: usize,
    allow_loopback_http: bool,
    limits: Limits,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    /// `If-None-Match` and `If-Modified-Since` for the set in hand.
    conditions: HeaderMap,
    /// The document of the set in hand.
    body: Bytes,
}

/// What a successful fetch brought.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The new set; `None` if the one in hand is still the issuer's.
    pub(super) keys: Option<KeySet>,
    pub(super) freshness: Freshness,
}

impl Fetcher {
    pub(super) fn new(refresh: &Refresh) -> Self {
        Self {
            issuer: refresh.issuer.clone(),
            fixed_uri: refresh.jwks_uri.clone(),
            known_uri: None,
            discover_at: now(),
            quirks: refresh.quirks,
            candidate_keys: refresh.candidate_keys,
            allow_loopback_http: refresh.allow_loopback_http,
            limits: Limits { total: refresh.policy.fetch_timeout, max_body: refresh.policy.max_body },
            transport: Arc::clone(&refresh.transport),
            clock: Arc::clone(&refresh.clock),
            conditions: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Fetches the set, and its place first where that is not known or in doubt. Takes no longer
    /// than the time limit in all.
    pub(super) async fn fetch(&mut self, cause: RefreshCause) -> Result<Fetched, Error> {
        let ends_at = now() + self.limits.total;
        let mut headers = HeaderMap::new();
        if cause != RefreshCause::Timer {
            // RFC 9111 §5.2.1.4: whoever keeps answers in between has to ask the issuer.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let before = self.discover_at;
        let uri = self.place(&headers).await?;
        let discover_at = self.discover_at;
        // Unless the keys come, they may have moved.
        self.doubt_place();
        let fetched = self.fetch_from(&uri, headers, ends_at.saturating_duration_since(now())).await?;
        // So they may if a token wants a key that this place does not have, unless it was named
        // just now.
        if cause != RefreshCause::UnknownKey || fetched.keys.is_some() || discover_at != before {
            self.discover_at = discover_at;
        }
        Ok(fetched)
    }

    /// Has the metadata asked by the next fetch, unless they failed just now.
    fn doubt_place(&mut self) {
        if self.discover_at > now() + DISCOVER_AGAIN {
            self.discover_at = now();
        }
    }

    async fn place(&mut self, headers: &HeaderMap) -> Result<Endpoint, Error> {
        if let Some(uri) = &self.fixed_uri {
            return Ok(uri.clone());
        }
        let total = self.limits.total;
        let Some(known) = self.known_uri.clone() else { return self.discover(headers, total).await };
        if now() < self.discover_at {
            return Ok(known);
        }
        self.discover_at = now() + DISCOVER_AGAIN;
        // Metadata that cannot be had are no reason to do without keys that can: they get a part
        // of the time, and the place that is known gets the rest.
        Ok(self.discover(headers, total.mul_f64(0.4)).await.unwrap_or_else(|_error| {
            trace::warning!(
                target: "tower_oauth::key_set",
                issuer = %self.issuer,
                error = %_error,
                "the metadata could not be read again: the keys are asked for where they were"
            );
            known
        }))
    }

    async fn discover(&mut self, headers: &HeaderMap, limit: Duration) -> Result<Endpoint, Error> {
        let limits = Limits { total: limit, ..self.limits };
        let metadata = metadata::discover_with(
            headers,
            &*self.transport,
            &self.issuer,
            self.allow_loopback_http,
            self.clock.now(),
            limits,
        );
        // Over all the places where they may be.
        let metadata = timeout(limit, metadata)
            .await
            .unwrap_or_else(|_elapsed| Err(Error::new(Operation::Discovery, ErrorKind::Timeout)))?;
        let uri = metadata.jwks_uri(self.allow_loopback_http)?.ok_or_else(|| {
            Error::new(Operation::Discovery, ErrorKind::Malformed)
                .with_source("the metadata has no `jwks_uri`")
        })?;
        if self.known_uri.as_ref() != Some(&uri) {
            // An `ETag` is that of one place.
            self.conditions.clear();
        }
        self.known_uri = Some(uri.clone());
        self.discover_at = now() + DISCOVER_EVERY;
        Ok(uri)
    }

    async fn fetch_from(
        &mut self,
        uri: &Endpoint,
        mut headers: HeaderMap,
        limit: Duration,
    ) -> Result<Fetched, Error> {
        let conditional = !self.conditions.is_empty();
        headers.extend(self.conditions.clone());
        let limits = Limits { total: limit, ..self.limits };
        let now = self.clock.now();
        let answer = get_json(&*self.transport, Operation::KeySet, uri, headers, now, limits).await?;
        let freshness = Freshness::of(answer.headers());
        if answer.status() == StatusCode::NOT_MODIFIED {
            // Only an answer to a question: nobody asked "modified since?" without a set in hand.
            if !conditional {
                return Err(Error::new(Operation::KeySet, ErrorKind::Malformed).with_url(uri.as_str()));
            }
            return Ok(Fetched { keys: None, freshness });
        }
        let is_new = self.body.is_empty() || answer.body() != &self.body;
        let keys = if is_new {
            let keys = parse_set(answer.body(), self.quirks, self.candidate_keys);
            Some(keys.map_err(|error| error.with_url(uri.as_str()))?)
        } else {
            None
        };
        self.remember(&answer);
        Ok(Fetched { keys, freshness })
    }

    fn remember(&mut self, answer: &http::Response<Bytes>) {
        self.body = answer.body().clone();
        self.conditions.clear();
        for (from, to) in
            [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)]
        {
            if let Some(value) = answer.headers().get(from) {
                self.conditions.insert(to, value.clone());
            }
        }
    }
}
