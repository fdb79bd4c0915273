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

/// The longest that metadata are left alone, however long their `Retry-After`.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// For so long 304 is believed without having seen the whole set again.
const BELIEVED_FOR: Duration = Duration::from_secs(3600);

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
    /// Until then the place is trusted, whatever becomes of the metadata.
    trusted_until: Option<Instant>,
    /// Why the metadata could not be read the last time.
    metadata_error: Option<Error>,
    max_stale: Duration,
    quirks: Quirks,
    max_candidate_keys: usize,
    allow_loopback_http: bool,
    limits: Limits,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    /// `If-None-Match` and `If-Modified-Since` for the set in hand, as long as they are believed.
    conditions: HeaderMap,
    /// Until then.
    conditions_until: Instant,
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
            trusted_until: None,
            metadata_error: None,
            max_stale: refresh.policy.max_stale,
            quirks: refresh.quirks,
            max_candidate_keys: refresh.max_candidate_keys,
            allow_loopback_http: refresh.allow_loopback_http,
            limits: Limits {
                total: refresh.policy.fetch_timeout,
                max_body: refresh.policy.max_body,
            },
            transport: Arc::clone(&refresh.transport),
            clock: Arc::clone(&refresh.clock),
            conditions: HeaderMap::new(),
            conditions_until: now(),
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
        let uri = self.place(cause, &headers).await?;
        let discover_at = self.discover_at;
        // Unless the keys come, they may have moved.
        self.doubt_place();
        let left = ends_at.saturating_duration_since(now());
        let mut fetched = self.fetch_from(&uri, cause, headers, left).await?;
        if self.metadata_error.is_some() {
            // Soon again, to learn that the metadata are back.
            fetched.freshness = Freshness::NoStore;
        }
        // So they may if a token wants a key that this place does not have, unless it was named
        // just now.
        if cause != RefreshCause::UnknownKey || fetched.keys.is_some() || discover_at != before {
            self.discover_at = discover_at;
        }
        Ok(fetched)
    }

    /// Has the metadata asked by the next fetch, unless they failed the last time: then they have
    /// their rest.
    fn doubt_place(&mut self) {
        if self.metadata_error.is_none() {
            self.discover_at = now();
        }
    }

    /// Why the metadata could not be read the last time, if they could not.
    pub(super) fn metadata_error(&self) -> Option<&Error> {
        self.metadata_error.as_ref()
    }

    async fn place(&mut self, cause: RefreshCause, headers: &HeaderMap) -> Result<Endpoint, Error> {
        if let Some(uri) = &self.fixed_uri {
            return Ok(uri.clone());
        }
        let total = self.limits.total;
        // What nobody has vouched for in a long time may belong to somebody else by now.
        let is_trusted = self.trusted_until.is_some_and(|end| now() < end);
        let Some(known) = self.known_uri.clone().filter(|_| is_trusted) else {
            return self.discover(headers, total).await;
        };
        // Who asks by hand wants to know all of it.
        if now() < self.discover_at && cause != RefreshCause::Manual {
            return Ok(known);
        }
        self.discover_at = now() + DISCOVER_AGAIN;
        // Metadata that cannot be had are no reason to do without keys that can: they get a part
        // of the time, and the place that is known gets the rest.
        let error = match self.discover(headers, total.mul_f64(0.4)).await {
            Ok(uri) => return Ok(uri),
            Err(error) => error,
        };
        let rest = error
            .retry_after()
            .unwrap_or_default()
            .clamp(DISCOVER_AGAIN, LONGEST_REST);
        self.discover_at = now() + rest;
        trace::warn!(
            target: "tower_oauth::key_set",
            issuer = %self.issuer,
            error = %error.with_sources(),
            "the metadata could not be read again: the keys are asked for where they were"
        );
        Ok(known)
    }

    async fn discover(&mut self, headers: &HeaderMap, limit: Duration) -> Result<Endpoint, Error> {
        let named = self.ask_metadata(headers, limit).await;
        self.metadata_error = named.as_ref().err().cloned();
        let uri = named?;
        if self.known_uri.as_ref() != Some(&uri) {
            // An `ETag` is that of one place.
            self.conditions.clear();
        }
        self.known_uri = Some(uri.clone());
        // In time to try again before the place is trusted no more.
        self.discover_at = now() + DISCOVER_EVERY.min(self.max_stale / 2);
        self.trusted_until = now().checked_add(self.max_stale);
        Ok(uri)
    }

    async fn ask_metadata(&self, headers: &HeaderMap, limit: Duration) -> Result<Endpoint, Error> {
        let limits = Limits {
            total: limit,
            ..self.limits
        };
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
        metadata.jwks_uri(self.allow_loopback_http)
    }

    async fn fetch_from(
        &mut self,
        uri: &Endpoint,
        cause: RefreshCause,
        mut headers: HeaderMap,
        limit: Duration,
    ) -> Result<Fetched, Error> {
        // Only the timer asks whether there is something new. Who has a reason to ask wants the
        // set, and so does everybody now and then, and after a failure: a version that tells the
        // sets of an issuer not apart, or a server that conditions confuse, must not be the end of
        // it.
        let believed = cause == RefreshCause::Timer && now() < self.conditions_until;
        let conditions = std::mem::take(&mut self.conditions);
        let conditional = believed && !conditions.is_empty();
        if conditional {
            headers.extend(conditions.clone());
        }
        let limits = Limits {
            total: limit,
            ..self.limits
        };
        let now = self.clock.now();
        let answer = get_json(
            &*self.transport,
            Operation::JwksFetch,
            uri,
            headers,
            now,
            limits,
        )
        .await?;
        let freshness = Freshness::of(answer.headers());
        if answer.status() == StatusCode::NOT_MODIFIED {
            // Only an answer to a question: nobody asked "modified since?" without a set in hand.
            if !conditional {
                return Err(
                    Error::new(Operation::JwksFetch, ErrorKind::Malformed).with_url(uri.as_str())
                );
            }
            self.conditions = conditions;
            return Ok(Fetched {
                keys: None,
                freshness,
            });
        }
        let is_new = self.body.is_empty() || answer.body() != &self.body;
        let keys = if is_new {
            let keys = parse_set(answer.body(), self.quirks, self.max_candidate_keys);
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
        self.conditions_until = now() + BELIEVED_FOR;
        for (from, to) in [
            (header::ETAG, header::IF_NONE_MATCH),
            (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE),
        ] {
            if let Some(value) = answer.headers().get(from) {
                self.conditions.insert(to, value.clone());
            }
        }
    }
}
