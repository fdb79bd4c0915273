//! The resource server: decides whether a request is served, and tells the service who asks.
//!
//! ```text
//!  request ─▶ bearer token? ──no──▶ 401, or 400 if malformed
//!                 │ yes
//!                 ▼
//!             header, claims ──malformed──▶ 401 invalid_token
//!                 │
//!                 ▼
//!             issuer's keys ──none usable──▶ 503, Retry-After
//!                 │        └─unknown kid──▶ one bounded wait for a refresh ─┐
//!                 ▼                                                         │
//!             signature ◀───────────────────────────────────────────────────┘
//!                 │ good
//!                 ▼
//!             iss aud exp nbf ──any wrong──▶ 401 invalid_token
//!                 │ all right
//!                 ▼
//!             AuthContext into the request's extensions ─▶ inner service
//! ```

mod authentication;
mod builder;
mod challenge;
mod context;
mod credentials;
#[cfg(feature = "axum")]
mod extractor;
mod future;
mod header_cache;
mod layer;
mod log_limit;
mod metrics;
mod rejection;
mod require_scope;
mod service;
mod token_cache;
mod trusted_issuer;
mod verification_limit;

use std::sync::Arc;

pub use self::builder::{Refresher, ResourceServerBuilder, Startup};
pub use self::challenge::{DefaultRejectionResponse, RejectionResponse};
pub use self::context::{AuthContext, ClaimError};
#[cfg(feature = "axum")]
pub use self::extractor::AuthContextRejection;
pub use self::future::ResponseFuture;
pub use self::layer::ResourceServerLayer;
pub use self::rejection::{Rejection, RejectionKind};
pub use self::require_scope::{RequireScopeFuture, RequireScopeLayer, RequireScopeService};
pub use self::service::ResourceServerService;
pub use self::trusted_issuer::TrustedIssuer;
use crate::clock::Clock;
use crate::error::Error;
use crate::jwt::{ClaimsPolicy, SizeLimits};
use crate::key_set::{KeySetHandle, KeySetStatus};
use crate::oauth::{Audience, Issuer};

/// Judges bearer tokens by the keys of their issuers.
///
/// A handle on shared state: cheap to clone, no need to wrap it in an `Arc`. The background
/// refresh of the keys ends with the last clone, layers and services made from it included.
///
/// # Examples
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_oauth::{Audience, AuthContext, Issuer, KeySet, ResourceServer, TrustedIssuer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let document = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
/// let issuer = TrustedIssuer::new(Issuer::new("https://as.example")?, Audience::new("orders")?)
///     .keys(KeySet::from_json(document)?);
/// let orders = ResourceServer::from_issuer(issuer).start().await?;
///
/// let service = ServiceBuilder::new().layer(orders.layer()).service(service_fn(
///     |request: Request<String>| async move {
///         let context = AuthContext::from_request(&request).expect("the layer puts it there");
///         Ok::<_, std::convert::Infallible>(Response::new(format!("{:?}", context.subject())))
///     },
/// ));
///
/// // Without a token: 401, and what is asked for.
/// let response = service.oneshot(Request::new(String::new())).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="resource""#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ResourceServer(Arc<Inner>);

// In this order: what each hit of the token cache looks at stands together.
#[derive(Debug)]
#[repr(C)]
struct Inner {
    cache: token_cache::TokenCache,
    issuers: Vec<IssuerState>,
    clock: Arc<dyn Clock>,
    max_token_len: usize,
    size_limits: SizeLimits,
    metrics: metrics::Metrics,
    responses: challenge::Responses,
    header_cache: header_cache::HeaderCache,
    verification_limit: verification_limit::VerificationLimit,
    token_in_query: log_limit::LogLimit,
}

/// One issuer: what its tokens must be like, and its own keys.
#[derive(Debug)]
struct IssuerState {
    policy: ClaimsPolicy,
    keys: KeySetHandle,
}

impl ResourceServer {
    /// A resource server that accepts the tokens of `issuer` which are meant for `audience`.
    /// The keys are found by discovery (RFC 8414).
    pub fn builder(issuer: Issuer, audience: Audience) -> ResourceServerBuilder {
        Self::from_issuer(TrustedIssuer::new(issuer, audience))
    }

    /// A resource server that accepts tokens as `issuer` describes them.
    pub fn from_issuer(issuer: TrustedIssuer) -> ResourceServerBuilder {
        ResourceServerBuilder::new(issuer)
    }

    /// The layer that lets only requests with a valid token through.
    pub fn layer(&self) -> ResourceServerLayer {
        ResourceServerLayer::new(self.clone())
    }

    /// Whether tokens of every issuer can be judged now: what a readiness probe asks.
    #[must_use]
    pub fn keys_available(&self) -> bool {
        self.key_sets()
            .iter()
            .all(|status| status.state().is_usable())
    }

    /// Waits until [`keys_available`](Self::keys_available), or until the [`Refresher`] is gone and no keys can
    /// come any more.
    pub async fn wait_for_keys(&self) {
        for issuer in &self.0.issuers {
            issuer.keys.wait_until_usable(|| self.0.clock.now()).await;
        }
    }

    /// How the key set of each issuer is doing, in the order in which they were added.
    #[must_use]
    pub fn key_sets(&self) -> Vec<KeySetStatus> {
        let now = self.0.clock.now();
        self.0
            .issuers
            .iter()
            .map(|issuer| issuer.keys.status(now))
            .collect()
    }

    /// How many verified tokens are remembered. For tests and dashboards: it does some
    /// housekeeping.
    #[must_use]
    pub fn cached_token_count(&self) -> u64 {
        self.0.cache.len()
    }

    /// Has the keys of every issuer fetched at once, whatever timers and budgets say, and waits
    /// for the outcome of a fetch that began after this call.
    ///
    /// # Errors
    ///
    /// If the keys of an issuer could not be fetched; those in hand go on being used.
    pub async fn refresh_keys(&self) -> Result<(), Error> {
        // All are asked before the first refresh is waited for.
        let refreshes: Vec<_> = self
            .0
            .issuers
            .iter()
            .map(|state| state.keys.refresh_keys())
            .collect();
        let mut first_error = Ok(());
        for refresh in refreshes {
            first_error = first_error.and(refresh.await);
        }
        first_error
    }

    /// Revokes a key at once, and for the life of this resource server, whatever its issuer
    /// publishes: for the hour in which a private key is known to be lost and the issuer has not
    /// reacted yet. Tokens with this `kid` are refused, and under any `kid` those of the key that
    /// it names now. Returns whether that issuer, by any of its names, is trusted here.
    #[must_use = "an issuer that is not trusted here has no keys to revoke"]
    pub fn revoke_key(&self, issuer: &Issuer, kid: &str) -> bool {
        let state = self.0.issuers.iter().find(|state| {
            let ClaimsPolicy {
                issuer: name,
                issuer_aliases,
                ..
            } = &state.policy;
            name == issuer || issuer_aliases.contains(issuer)
        });
        if let Some(state) = state {
            state.keys.revoke(kid);
        }
        state.is_some()
    }
}
