//! From settings to a resource server and the tasks behind it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::challenge::{DEFAULT_REALM, Responses};
use super::header_cache::HeaderCache;
use super::log_limit::LogLimit;
use super::metrics::Metrics;
use super::token_cache::{self, TokenCache};
use super::verification_limit::VerificationLimit;
use super::{Inner, IssuerState, ResourceServer, TrustedIssuer};
use crate::clock::{Clock, SystemClock};
use crate::error::{ConfigError, Error};
use crate::jwt::SizeLimits;
use crate::key_set::{KeySet, KeySetHandle, Refresh, RefreshPolicy, Source};
use crate::oauth::Endpoint;
use crate::transport::{Transport, default_transport};
use crate::{metadata, metrics};

/// Settings of a [`ResourceServer`]; every default is right for production.
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

/// What [`start`](ResourceServerBuilder::start) does about the first keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Startup {
    /// Returns at once. Until the keys are there, requests are answered 503.
    Background,
    /// Waits for every issuer's keys, fails if they do not come in time.
    Require(Duration),
    /// Waits for every issuer's keys up to this long, then starts without.
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
            cache: token_cache::Limits::default(),
            max_verifications: None,
        }
    }

    /// Accepts the tokens of one more issuer.
    pub fn add_issuer(mut self, issuer: TrustedIssuer) -> Self {
        self.issuers.push(issuer);
        self
    }

    /// Fetches the keys of the issuer that was added last from here, instead of asking its
    /// metadata.
    pub fn jwks_uri(self, jwks_uri: Endpoint) -> Self {
        self.issuer(|issuer| issuer.jwks_uri(jwks_uri))
    }

    /// Uses these keys of the issuer that was added last, and fetches none.
    pub fn keys(self, keys: KeySet) -> Self {
        self.issuer(|issuer| issuer.keys(keys))
    }

    /// Adjusts what was set for the issuer that was added last: audiences, algorithms, profile.
    ///
    /// ```
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TokenProfile};
    ///
    /// let builder = ResourceServer::builder(Issuer::new("https://as.example")?, Audience::new("orders")?)
    ///     .issuer(|issuer| issuer.profile(TokenProfile::Rfc9068));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn issuer(mut self, change: impl FnOnce(TrustedIssuer) -> TrustedIssuer) -> Self {
        let last = self.issuers.pop().map(change);
        self.issuers.extend(last);
        self
    }

    /// How metadata and keys are fetched. Default: `ReqwestTransport` (feature `reqwest`).
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// The clock by which tokens expire. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How key sets are refreshed and how long they are trusted.
    pub fn refresh(mut self, policy: RefreshPolicy) -> Self {
        self.refresh = policy;
        self
    }

    /// How far clocks may differ when `exp`, `nbf` and `iat` are checked. Default: 60 seconds.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The longest token that is looked at, in bytes. Default: 16 KiB.
    ///
    /// What a token's claims may hold grows with it, from 16 KiB on: 256 members of an object,
    /// those so far of the objects around it included; 1,024 strings in one of `aud`, `scope`,
    /// `scp` and `amr`; and 2,048 members and elements within the claims, in all objects and
    /// arrays together. With 64 KiB it is four times as many each. A token with more is refused
    /// as [`RejectionKind::TooManyMembers`](crate::RejectionKind::TooManyMembers). However long
    /// tokens may be, their header may have 8 KiB and 256 members, and 32 levels of nesting are
    /// the limit.
    pub fn max_token_len(mut self, bytes: usize) -> Self {
        self.max_token_len = bytes;
        self
    }

    /// How many verified tokens are remembered, from their second request on; 0 switches it off.
    /// Default: 10,000.
    ///
    /// A verdict is found by the whole token, and holds only while the token has not expired and
    /// the key that verified it is still the issuer's: a withdrawn, revoked or replaced key,
    /// and a set past `max_stale`, end it at once. Scopes are checked on each request all the
    /// same. More in [`guide::performance`](mod@crate::guide::performance).
    pub fn max_cached_tokens(mut self, limit: u64) -> Self {
        self.cache.entries = limit;
        self
    }

    /// How much memory the remembered tokens may take, in bytes, by estimate. Default: 32 MiB.
    /// Tokens of more than 8 KiB are never kept.
    ///
    /// Besides, each thread has copies of up to 128 tokens at hand that it uses again and again, of
    /// all resource servers together: some 250 KB with tokens of 900 bytes, 2 MB with the
    /// longest that are kept. They are judged like any other, and stay until others take their
    /// places, or the thread ends.
    pub fn max_cache_size(mut self, bytes: u64) -> Self {
        self.cache.bytes = bytes;
        self
    }

    /// How many signatures are verified at the same time. Default: no limit but the number of
    /// threads that serve requests.
    ///
    /// Each token that names a key of its issuer costs a verification, whoever made it: about 20
    /// microseconds with RSA-2048, several times that with RSA-4096, ten times with P-384. With a
    /// limit below the number of worker threads, a flood of forgeries keeps no more than so
    /// many threads busy, and the others go on serving tokens that are remembered. What it
    /// costs: a request that finds the limit reached waits for its turn behind the forgeries;
    /// if 1,024 wait already it is answered
    /// 503 ([`RejectionKind::Overloaded`](crate::RejectionKind::Overloaded)). So that it needs no second turn,
    /// a token is remembered from its first request on. At least 1.
    pub fn max_concurrent_verifications(mut self, limit: usize) -> Self {
        self.max_verifications = Some(limit);
        self
    }

    /// The `realm` of challenges. Default: `resource`.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// Names the protected resource metadata in challenges
    /// ([RFC 9728 §5.1](https://www.rfc-editor.org/rfc/rfc9728#section-5.1)). Default: none.
    pub fn resource_metadata(mut self, url: Endpoint) -> Self {
        self.resource_metadata = Some(url);
        self
    }

    /// Permits plain `http` for issuers on this machine: development and tests.
    pub fn allow_loopback_http(mut self) -> Self {
        self.allow_loopback_http = true;
        self
    }

    /// What [`start`](Self::start) does about the first keys. Default: waits up to 10 seconds,
    /// then starts without.
    pub fn startup(mut self, startup: Startup) -> Self {
        self.startup = startup;
        self
    }

    /// Makes the resource server, and the future that keeps its keys fresh. Does no I/O and
    /// spawns nothing: the caller runs the [`Refresher`].
    ///
    /// # Errors
    ///
    /// If settings contradict each other or cannot be used: no transport, an empty list of
    /// algorithms, an issuer named twice, an issuer for discovery that is no URL, plain
    /// `http` without [`allow_loopback_http`](Self::allow_loopback_http).
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
        let responses = Responses::new(&realm, resource_metadata.as_ref().map(Endpoint::as_str))?;
        let mut names = std::collections::HashSet::new();
        if let Some(duplicate) = issuers
            .iter()
            .flat_map(TrustedIssuer::names)
            .find(|name| !names.insert((*name).clone()))
        {
            return Err(ConfigError::new(
                "issuer",
                duplicate.as_str(),
                "is named twice",
            ));
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
                quirks,
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
                    for candidate in metadata::candidates(&name)? {
                        candidate.check_plain_http(allow_loopback_http)?;
                    }
                    None
                }
            };
            let Some(transport) = transport.clone() else {
                continue;
            };
            let refresh = Refresh {
                issuer: name,
                jwks_uri,
                quirks,
                max_candidate_keys,
                allow_loopback_http,
                policy: refresh.clone(),
                initial_keys,
                transport,
                clock: Arc::clone(&clock),
            };
            let (keys, task) = refresh.split();
            issuer_states.push(IssuerState { policy, keys });
            tasks.push(Box::pin(task));
        }
        metrics::describe();
        let inner = Inner {
            issuers: issuer_states,
            clock,
            max_token_len,
            size_limits: SizeLimits::for_tokens_of(max_token_len),
            responses,
            metrics: Metrics::new(),
            cache: TokenCache::new(cache),
            header_cache: HeaderCache::default(),
            verification_limit: VerificationLimit::new(max_verifications),
            token_in_query: LogLimit::default(),
        };
        let server = ResourceServer(Arc::new(inner));
        Ok((server, Refresher(tasks)))
    }

    /// Makes the resource server, spawns a task for each issuer's keys on the current tokio
    /// runtime, and waits for the first keys as [`startup`](Self::startup) says.
    ///
    /// The tasks end when the last clone of the resource server is dropped.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and with [`Startup::Require`] if the keys did not come in time:
    /// then the error is that of the last attempt.
    pub async fn start(self) -> Result<ResourceServer, Error> {
        let startup = self.startup;
        let (server, refresher) = self.build()?;
        for task in refresher.0 {
            #[expect(
                clippy::disallowed_methods,
                reason = "`start` is what spawns; `build` does not"
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

/// Keeps the keys of a [`ResourceServer`] fresh while it is polled.
///
/// It ends when the last clone of the resource server is dropped.
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
