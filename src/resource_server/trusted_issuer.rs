//! A trusted issuer and the policy for its tokens.

use std::path::Path;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::error::{ConfigError, Error};
use crate::jwt::{Algorithm, ClaimsPolicy, TokenProfile};
use crate::key_set::{self, KeySet, Source};
use crate::oauth::{Audience, Endpoint, Issuer};

/// An issuer whose tokens are accepted, with audience, keys and policy.
///
/// A token is only ever validated with the keys and the policy of the issuer that it names.
///
/// ```
/// use tower_oauth::{Audience, Endpoint, Issuer, TrustedIssuer};
///
/// let issuer = TrustedIssuer::new(Issuer::new("https://as.example")?, Audience::new("orders")?)
///     .add_audience(Audience::new("https://orders.example")?)
///     .jwks_uri(Endpoint::new("https://as.example/keys")?);
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TrustedIssuer {
    policy: ClaimsPolicy,
    pub(super) source: Source,
    pub(super) initial_keys: Option<(KeySet, UnixTime)>,
}

impl TrustedIssuer {
    /// Trusts the tokens of `issuer` for `audience`. Both are always checked.
    pub fn new(issuer: Issuer, audience: Audience) -> Self {
        let policy = ClaimsPolicy {
            issuer,
            issuer_aliases: Vec::new(),
            audiences: vec![audience],
            algorithms: Algorithm::ALL.to_vec(),
            profile: TokenProfile::Jwt,
            tenant: None,
            subject_is_client: false,
            requires_scope: false,
            max_candidate_keys: 1,
            leeway: Duration::ZERO, // set when the resource server is built
            max_lifetime: None,
        };
        Self {
            policy,
            source: Source::Discovery,
            initial_keys: None,
        }
    }

    /// Accepts one more audience. One match is enough.
    pub fn add_audience(mut self, audience: Audience) -> Self {
        self.policy.audiences.push(audience);
        self
    }

    /// Starts with these keys, fetched at `fetched_at`. Default: none.
    ///
    /// With keys of an earlier run, tokens are accepted even if the issuer is unavailable at
    /// startup. The keys are used for `max_stale` from `fetched_at`, and replaced by the first
    /// fetched set.
    pub fn initial_keys(mut self, keys: KeySet, fetched_at: UnixTime) -> Self {
        self.initial_keys = Some((keys, fetched_at));
        self
    }

    /// Starts with the keys of a JWK Set document in a file.
    ///
    /// As [`initial_keys`](Self::initial_keys), with the modification time of the file as
    /// `fetched_at`. The file, for example of a config map, is read immediately and only once.
    ///
    /// Protect the file: its keys decide which tokens are accepted.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or has no usable key set ([`KeySet::from_json`]).
    pub fn initial_keys_file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        let (keys, fetched_at) = key_set::initial_keys::read(path.as_ref())?;
        Ok(self.initial_keys(keys, fetched_at))
    }

    /// Fetches the keys from `jwks_uri`. Default: the `jwks_uri` of the metadata (RFC 8414).
    pub fn jwks_uri(mut self, jwks_uri: Endpoint) -> Self {
        self.source = Source::JwksUri(jwks_uri);
        self
    }

    /// Uses these keys and fetches none.
    pub fn keys(mut self, keys: KeySet) -> Self {
        self.source = Source::Fixed(keys);
        self
    }

    /// Accepts only these signature algorithms. Default: all of [`Algorithm`], each with keys of
    /// its type. An empty list is a configuration error.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.policy.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Sets the profile that tokens must follow. Default: [`TokenProfile::Jwt`].
    pub fn profile(mut self, profile: TokenProfile) -> Self {
        self.policy.profile = profile;
        self
    }

    /// Rejects tokens with a longer lifetime, from `iat` (else `nbf`) to `exp`. Default: no limit.
    ///
    /// With a limit, tokens that have neither `iat` nor `nbf` are rejected as well.
    pub fn max_lifetime(mut self, limit: Duration) -> Self {
        self.policy.max_lifetime = Some(limit);
        self
    }

    /// Sets how many keys are tried for one token, at most 4. Default: 1.
    ///
    /// It applies to tokens without `kid`, and to those whose `kid` several keys share. If more
    /// keys match the algorithm than the limit, the token is rejected with
    /// [`RejectionKind::AmbiguousKey`](super::RejectionKind::AmbiguousKey).
    pub fn max_candidate_keys(mut self, limit: usize) -> Self {
        self.policy.max_candidate_keys = limit.clamp(1, 4);
        self
    }

    /// Applies the settings of App ID: tenant, the v3 issuer as alias, `sub` as the
    /// client, and a required `scope`, which distinguishes access tokens from identity tokens.
    #[cfg_attr(
        not(feature = "app-id"),
        expect(dead_code, reason = "for bindings alone")
    )]
    pub(crate) fn app_id(mut self, tenant: String, aliases: Vec<Issuer>) -> Self {
        self.policy.tenant = Some(tenant);
        self.policy.issuer_aliases = aliases;
        self.policy.subject_is_client = true;
        self.policy.requires_scope = true;
        self
    }

    /// All values of `iss` that denote this issuer.
    pub(super) fn names(&self) -> impl Iterator<Item = &Issuer> {
        std::iter::once(&self.policy.issuer).chain(&self.policy.issuer_aliases)
    }

    pub(super) fn policy(&self, leeway: Duration) -> Result<ClaimsPolicy, ConfigError> {
        if self.policy.algorithms.is_empty() {
            let reason = "must not be empty";
            return Err(ConfigError::without_value("algorithms", reason));
        }
        let mut policy = self.policy.clone();
        policy.leeway = leeway;
        Ok(policy)
    }
}
