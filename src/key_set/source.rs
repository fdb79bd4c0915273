//! Where keys come from, and one fetch of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::freshness::Freshness;
use super::jwk::{Quirks, parse_set};
use super::{KeySet, RefreshPolicy};
use crate::clock::{Clock, UnixTime};
use crate::error::{Error, ErrorKind, Operation};
use crate::metadata;
use crate::oauth::{Endpoint, Issuer};
use crate::transport::{Limits, Transport, get_json};

/// How often the metadata is asked again while the place that it named goes on answering.
const DISCOVER_EVERY: Duration = Duration::from_secs(3600);

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
#[derive(Debug)]
pub(super) struct Fetcher {
    issuer: Issuer,
    /// The configured `jwks_uri`; without it the metadata is asked.
    fixed_uri: Option<Endpoint>,
    discovered_uri: Option<Endpoint>,
    /// When the metadata is asked again, although the place that it named still answers.
    discover_again_at: UnixTime,
    quirks: Quirks,
    allow_loopback_http: bool,
    limits: Limits,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    /// `If-None-Match` and `If-Modified-Since` for the set in hand.
    conditions: HeaderMap,
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
    pub(super) fn new(
        issuer: Issuer,
        fixed_uri: Option<Endpoint>,
        quirks: Quirks,
        allow_loopback_http: bool,
        policy: &RefreshPolicy,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            issuer,
            fixed_uri,
            discovered_uri: None,
            discover_again_at: UnixTime::from_secs(0),
            quirks,
            allow_loopback_http,
            limits: Limits { total: policy.fetch_timeout, max_body: policy.max_body },
            transport,
            clock,
            conditions: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Fetches the set, and its place first where that is not known.
    pub(super) async fn fetch(&mut self) -> Result<Fetched, Error> {
        let result = self.fetch_from_known_place().await;
        if result.is_err() {
            // The issuer may have moved its keys: the metadata is asked again.
            self.discovered_uri = None;
        }
        result
    }

    /// A token wants a key that the place in hand does not have: the keys may have moved.
    pub(super) fn doubt_place(&mut self) {
        self.discover_again_at = UnixTime::from_secs(0);
    }

    async fn fetch_from_known_place(&mut self) -> Result<Fetched, Error> {
        let uri = match (&self.fixed_uri, self.discovered_uri.clone()) {
            (Some(uri), _) => uri.clone(),
            (None, None) => self.discover().await?,
            (None, Some(uri)) if self.clock.now() < self.discover_again_at => uri,
            // Metadata that cannot be had is no reason to do without keys that can.
            (None, Some(uri)) => self.discover().await.unwrap_or(uri),
        };
        let now = self.clock.now();
        let conditions = self.conditions.clone();
        let conditional = !conditions.is_empty();
        let answer =
            get_json(&*self.transport, Operation::KeySet, &uri, conditions, now, self.limits).await?;
        let freshness = Freshness::of(answer.headers());
        if answer.status() == StatusCode::NOT_MODIFIED {
            // Only an answer to a question: nobody asked "modified since?" without a set in hand.
            if !conditional {
                return Err(Error::new(Operation::KeySet, ErrorKind::Malformed).with_url(uri.as_str()));
            }
            return Ok(Fetched { keys: None, freshness });
        }
        if !self.body.is_empty() && answer.body() == &self.body {
            return Ok(Fetched { keys: None, freshness });
        }
        let keys = parse_set(answer.body(), self.quirks).map_err(|error| error.with_url(uri.as_str()))?;
        self.remember(&answer);
        Ok(Fetched { keys: Some(keys), freshness })
    }

    async fn discover(&mut self) -> Result<Endpoint, Error> {
        let now = self.clock.now();
        let metadata =
            metadata::discover(&*self.transport, &self.issuer, self.allow_loopback_http, now, self.limits)
                .await?;
        let uri = metadata.jwks_uri(self.allow_loopback_http)?.ok_or_else(|| {
            Error::new(Operation::Discovery, ErrorKind::Malformed)
                .with_source("the metadata has no `jwks_uri`")
        })?;
        if self.discovered_uri.as_ref() != Some(&uri) {
            self.forget();
        }
        self.discovered_uri = Some(uri.clone());
        self.discover_again_at = self.clock.now().saturating_add(DISCOVER_EVERY);
        Ok(uri)
    }

    fn remember(&mut self, answer: &http::Response<Bytes>) {
        self.forget();
        self.body = answer.body().clone();
        for (from, to) in
            [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)]
        {
            if let Some(value) = answer.headers().get(from) {
                self.conditions.insert(to, value.clone());
            }
        }
    }

    /// Asks unconditionally next time.
    pub(super) fn forget(&mut self) {
        self.conditions.clear();
        self.body = Bytes::new();
    }
}
