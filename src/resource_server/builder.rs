//! The builder of a resource server, and the future that refreshes its keys.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::challenge::{DEFAULT_REALM, Responses};
use super::log_limit::LogLimit;
use super::metrics::Metrics;
use super::server::{Inner, IssuerState};
use super::token_cache::{self, TokenCache};
use super::verification_limit::VerificationLimit;
use super::{ResourceServer, TrustedIssuer};
use crate::clock::{Clock, SystemClock};
use crate::error::{ConfigError, ConfigErrorKind, Error};
use crate::jwt::SizeLimits;
use crate::key_set::{KeySet, KeySetHandle, RefreshPolicy, RefresherConfig, Source};
use crate::oauth::Endpoint;
use crate::transport::{Transport, default_transport};
use crate::{metadata, metrics};

/// Builds a [`ResourceServer`]. All defaults suit production.
#[derive(Debug)]
#[must_use]
pub struct ResourceServerBuilder {
    issuers: Vec<TrustedIssuer>,
    transport: Option<Arc<dyn Transport>>,
    clock: Arc<dyn Clock>,
    refresh: RefreshPolicy,
    leeway: Duration,
    max_token_len: usize,
    realm: String,
    resource_metadata: Option<Endpoint>,
    allow_loopback_http: bool,
    startup: Startup,
    cache: token_cache::Limits,
    max_verifications: Option<usize>,
}

/// How [`start`](ResourceServerBuilder::start) waits for the first keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Startup {
    /// Returns immediately. Until keys are available, requests get a 503.
    Background,
    /// Waits for the keys of every issuer, and fails if they are not available in time.
    Require(Duration),
    /// Waits for the keys of every issuer up to this long, then starts without.
    Wait(Duration),
}

impl ResourceServerBuilder {
    pub(super) fn new(issuer: TrustedIssuer) -> Self {
        Self {
            issuers: vec![issuer],
            transport: None,
            clock: Arc::new(SystemClock),
            refresh: RefreshPolicy::new(),
            leeway: Duration::from_secs(60),
            max_token_len: 16 * 1024,
            realm: DEFAULT_REALM.to_owned(),
            resource_metadata: None,
            allow_loopback_http: false,
            startup: Startup::Wait(Duration::from_secs(10)),
            cache: token_cache::DEFAULT_LIMITS,
            max_verifications: None,
        }
    }

    /// Accepts the tokens of one more issuer.
    pub fn add_issuer(mut self, issuer: TrustedIssuer) -> Self {
        self.issuers.push(issuer);
        self
    }

    /// Fetches the keys of the most recently added issuer from `jwks_uri`, without discovery.
    pub fn jwks_uri(self, jwks_uri: Endpoint) -> Self {
        self.issuer(|issuer| issuer.jwks_uri(jwks_uri))
    }

    /// Uses these keys for the most recently added issuer, and fetches none.
    pub fn keys(self, keys: KeySet) -> Self {
        self.issuer(|issuer| issuer.keys(keys))
    }

    /// Changes settings of the most recently added issuer: audiences, algorithms, profile.
    ///
    /// ```
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TokenProfile};
    ///
    /// let (issuer, audience) = (Issuer::new("https://as.example")?, Audience::new("orders")?);
    /// let builder = ResourceServer::builder(issuer, audience)
    ///     .issuer(|issuer| issuer.profile(TokenProfile::Rfc9068));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn issuer(mut self, change: impl FnOnce(TrustedIssuer) -> TrustedIssuer) -> Self {
        let last = self.issuers.pop().map(change);
        self.issuers.extend(last);
        self
    }

    /// Sets the transport for metadata and keys. Default: `ReqwestTransport` (feature `reqwest`).
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Sets the clock for `exp`, `nbf` and `iat`. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how key sets are refreshed, and how long they are used.
    pub fn refresh(mut self, policy: RefreshPolicy) -> Self {
        self.refresh = policy;
        self
    }

    /// Sets the leeway for clock differences in `exp`, `nbf` and `iat`. Default: 60 seconds.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Sets the maximum length of a token in bytes. Default: 16 KiB.
    ///
    /// From 16 KiB on, it scales the limits on the content of a token. At 16 KiB they are:
    ///
    /// - 256 members in an object, including the members read so far of the objects around it;
    /// - 1,024 strings in each of `aud`, `scope`, `scp` and `amr`;
    /// - 2,048 members and elements in the claims, over all objects and arrays.
    ///
    /// With 64 KiB each limit is four times as high. A token beyond them is rejected with
    /// [`RejectionKind::TooManyMembers`](crate::RejectionKind::TooManyMembers). Independent of the
    /// length, a token header has at most 8 KiB and 256 members, and nesting is limited to 32
    /// levels.
    pub fn max_token_len(mut self, bytes: usize) -> Self {
        self.max_token_len = bytes;
        self
    }

    /// Sets the maximum number of tokens in the token cache. Default: 10,000; 0 disables the cache.
    ///
    /// A valid token is cached from its second request on. The cache stores no token, but 128 bits
    /// of a keyed hash of it: two tokens have the same with a probability below 2⁻⁹⁴. An entry is
    /// used only while the token has not expired and its key is still published: withdrawing,
    /// revoking or replacing the key invalidates it immediately, and so does a key set older than
    /// `max_stale`. Scopes are checked for each request. See
    /// [`guide::performance`](mod@crate::guide::performance).
    pub fn max_cached_tokens(mut self, limit: u64) -> Self {
        self.cache.entries = limit;
        self
    }

    /// Sets the maximum memory of the token cache, an estimate in bytes. Default: 32 MiB.
    ///
    /// Tokens of more than 8 KiB are never cached. An entry takes 1 KB with a token of 900 bytes.
    ///
    /// In addition, each thread has a cache with copies of up to 128 frequent tokens, over all
    /// resource servers: some 250 KB with tokens of 900 bytes, 2 MB with tokens of 8 KiB. Its
    /// entries are checked for validity as any other. They stay until they are evicted or the
    /// thread ends, and are then overwritten with zeros.
    pub fn max_cache_size(mut self, bytes: u64) -> Self {
        self.cache.bytes = bytes;
        self
    }

    /// Limits concurrent signature verifications; at least 1. Default: no limit.
    ///
    /// Each token that names a key of its issuer costs a verification, forged or not: about 20
    /// microseconds with RSA-2048, several times that with RSA-4096, ten times with P-384. With a
    /// limit below the number of worker threads, a flood of forged tokens occupies no more threads
    /// than the limit, and the others continue to serve cached tokens.
    ///
    /// At the limit, further requests queue behind the forged ones. If 1,024 wait already, a
    /// request gets a 503 ([`RejectionKind::Overloaded`](crate::RejectionKind::Overloaded)). With
    /// a limit, tokens are cached from their first request on, so that each needs one verification
    /// only.
    pub fn max_concurrent_verifications(mut self, limit: usize) -> Self {
        self.max_verifications = Some(limit);
        self
    }

    /// Sets the `realm` of challenges. Default: `resource`.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// Sets the `resource_metadata` parameter of challenges
    /// ([RFC 9728 §5.1](https://www.rfc-editor.org/rfc/rfc9728#section-5.1)). Default: none.
    pub fn resource_metadata(mut self, url: Endpoint) -> Self {
        self.resource_metadata = Some(url);
        self
    }

    /// Permits plain `http` for issuers on a loopback address, for development and tests.
    pub fn allow_loopback_http(mut self) -> Self {
        self.allow_loopback_http = true;
        self
    }

    /// Sets how [`start`](Self::start) waits for the first keys.
    ///
    /// Default: up to 10 seconds, then it starts without.
    pub fn startup(mut self, startup: Startup) -> Self {
        self.startup = startup;
        self
    }

    /// Builds the resource server and the future that refreshes its keys.
    ///
    /// Performs no I/O and spawns no task: the caller runs the [`Refresher`].
    ///
    /// # Errors
    ///
    /// If a setting is invalid: no transport, an empty list of algorithms, a duplicate issuer, an
    /// issuer for discovery that is not a URL, or plain `http` without
    /// [`allow_loopback_http`](Self::allow_loopback_http).
    pub fn build(self) -> Result<(ResourceServer, Refresher), ConfigError> {
        let Self {
            issuers,
            transport,
            clock,
            refresh,
            leeway,
            max_token_len,
            realm,
            resource_metadata,
            allow_loopback_http,
            startup: _,
            cache,
            max_verifications,
        } = self;
        if let Some(url) = &resource_metadata {
            url.check_plain_http(true)
                .map_err(|error| error.with_setting("resource_metadata"))?;
        }
        let responses = Responses::new(&realm, resource_metadata.as_ref().map(Endpoint::as_str))?;
        let mut names = std::collections::HashSet::new();
        if let Some(duplicate) = issuers
            .iter()
            .flat_map(TrustedIssuer::names)
            .find(|name| !names.insert((*name).clone()))
        {
            return Err(
                ConfigError::new("issuer", duplicate.as_str(), "must not be added twice")
                    .with_kind(ConfigErrorKind::Conflict),
            );
        }
        let needs_transport = issuers
            .iter()
            .any(|issuer| !matches!(issuer.source, Source::Fixed(_)));
        let transport = if needs_transport {
            Some(default_transport(transport)?)
        } else {
            None
        };
        let mut issuer_states = Vec::with_capacity(issuers.len());
        let mut tasks: Vec<Task> = Vec::new();
        for issuer in issuers {
            let policy = issuer.policy(leeway)?;
            let TrustedIssuer {
                issuer: name,
                source,
                leniency,
                max_candidate_keys,
                initial_keys,
                ..
            } = issuer;
            let jwks_uri = match source {
                Source::Fixed(keys) => {
                    issuer_states.push(IssuerState {
                        policy,
                        keys: KeySetHandle::fixed(name, keys),
                    });
                    continue;
                }
                Source::JwksUri(uri) => {
                    uri.check_plain_http(allow_loopback_http)?;
                    Some(uri)
                }
                Source::Discovery => {
                    for candidate in metadata::well_known_urls(&name)? {
                        candidate.check_plain_http(allow_loopback_http)?;
                    }
                    None
                }
            };
            let Some(transport) = transport.clone() else {
                continue;
            };
            let refresh = RefresherConfig {
                issuer: name,
                jwks_uri,
                leniency,
                max_candidate_keys,
                allow_loopback_http,
                policy: refresh.clone(),
                initial_keys,
                transport,
                clock: Arc::clone(&clock),
            };
            let (keys, task) = refresh.build();
            issuer_states.push(IssuerState { policy, keys });
            tasks.push(Box::pin(task));
        }
        metrics::describe();
        let inner = Inner {
            issuers: issuer_states,
            clock,
            max_token_len,
            size_limits: SizeLimits::for_max_token_len(max_token_len),
            responses,
            metrics: Metrics::new(),
            cache: TokenCache::new(cache),
            verification_limit: VerificationLimit::new(max_verifications),
            token_in_query: LogLimit::default(),
        };
        let server = ResourceServer(Arc::new(inner));
        Ok((server, Refresher(tasks)))
    }

    /// Builds the resource server, and spawns a refresh task for each issuer.
    ///
    /// The tasks run on the current tokio runtime and end when the last clone of the resource
    /// server is dropped. Waits for the first keys according to [`startup`](Self::startup).
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build); with [`Startup::Require`] also if the keys are not available in
    /// time, with the error of the last fetch.
    pub async fn start(self) -> Result<ResourceServer, Error> {
        let startup = self.startup;
        let (server, refresher) = self.build()?;
        for task in refresher.0 {
            #[expect(
                clippy::disallowed_methods,
                reason = "`start` is documented to spawn; `build` does not spawn"
            )]
            tokio::spawn(task);
        }
        let (limit, required) = match startup {
            Startup::Background => return Ok(server),
            Startup::Wait(limit) => (limit, false),
            Startup::Require(limit) => (limit, true),
        };
        let _elapsed = tokio::time::timeout(limit, server.wait_for_keys()).await;
        if required && !server.keys_available() {
            let statuses = server.key_sets();
            let error = statuses
                .iter()
                .find(|status| !status.state().is_usable())
                .and_then(|status| status.last_error());
            return Err(error.cloned().unwrap_or_else(|| {
                Error::new(
                    crate::error::Operation::JwksFetch,
                    crate::error::ErrorKind::Timeout,
                )
            }));
        }
        Ok(server)
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Refreshes the keys of a [`ResourceServer`] while it is polled.
///
/// Completes when the last clone of the resource server is dropped.
#[must_use = "the keys are fetched only while this is polled"]
pub struct Refresher(Vec<Task>);

impl Future for Refresher {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0
            .retain_mut(|task| task.as_mut().poll(cx).is_pending());
        if self.0.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresher")
            .field("issuers", &self.0.len())
            .finish()
    }
}
