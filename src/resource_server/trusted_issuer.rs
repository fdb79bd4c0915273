//! One issuer that is trusted, and what its tokens must be like.

use std::path::Path;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::error::{ConfigError, Error};
use crate::jwt::{Algorithm, ClaimsPolicy, TokenProfile};
use crate::key_set::{self, KeySet, Quirks, Source};
use crate::oauth::{Audience, Endpoint, Issuer};

/// An issuer whose tokens are accepted, with its audience, keys and policy.
///
/// A token only ever meets the keys and the policy of the issuer that it names.
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
    pub(super) issuer: Issuer,
    pub(super) aliases: Vec<Issuer>,
    pub(super) audiences: Vec<Audience>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) profile: TokenProfile,
    pub(super) max_lifetime: Option<Duration>,
    pub(super) source: Source,
    pub(super) initial_keys: Option<(KeySet, UnixTime)>,
    pub(super) quirks: Quirks,
    pub(super) tenant: Option<String>,
    pub(super) subject_is_client: bool,
    pub(super) requires_scope: bool,
    pub(super) max_candidate_keys: usize,
}

impl TrustedIssuer {
    /// Trusts the tokens of `issuer` that are meant for `audience`. Both are always checked.
    pub fn new(issuer: Issuer, audience: Audience) -> Self {
        Self {
            issuer,
            aliases: Vec::new(),
            audiences: vec![audience],
            algorithms: Algorithm::ALL.to_vec(),
            profile: TokenProfile::Jwt,
            max_lifetime: None,
            source: Source::Discovery,
            initial_keys: None,
            quirks: Quirks::None,
            tenant: None,
            subject_is_client: false,
            requires_scope: false,
            max_candidate_keys: 1,
        }
    }

    /// Accepts one more audience; any one of them is enough.
    pub fn add_audience(mut self, audience: Audience) -> Self {
        self.audiences.push(audience);
        self
    }

    /// Starts with these keys, which were fetched at that time: kept from an earlier run, say, so
    /// that a start while the issuer is down is no outage. They are replaced by the first set that
    /// is fetched, and trusted for `max_stale` from `fetched_at`. Default: none.
    pub fn initial_keys(mut self, keys: KeySet, fetched_at: UnixTime) -> Self {
        self.initial_keys = Some((keys, fetched_at));
        self
    }

    /// [`initial_keys`](Self::initial_keys) from a JWK Set document in a file that came with the program: from a
    /// config map, or from a job that fetches it. The keys are as old as the file, by its time of
    /// last modification. The file is read now, and never again.
    ///
    /// Who can write that file decides whose tokens are accepted.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or holds no usable set ([`KeySet::from_json`]).
    pub fn initial_keys_file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        let (keys, fetched_at) = key_set::initial_keys::read(path.as_ref(), self.quirks)?;
        Ok(self.initial_keys(keys, fetched_at))
    }

    /// Fetches the keys from here. Default: the `jwks_uri` of the issuer's metadata (RFC 8414).
    pub fn jwks_uri(mut self, jwks_uri: Endpoint) -> Self {
        self.source = Source::JwksUri(jwks_uri);
        self
    }

    /// Uses these keys and fetches none.
    pub fn keys(mut self, keys: KeySet) -> Self {
        self.source = Source::Fixed(keys);
        self
    }

    /// Accepts these signature algorithms only. Default: all of [`Algorithm`], each with keys of
    /// its kind. An empty list does not build.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// How strictly a token has to be an access token. Default: [`TokenProfile::Jwt`].
    pub fn profile(mut self, profile: TokenProfile) -> Self {
        self.profile = profile;
        self
    }

    /// Refuses tokens that live longer than this from `iat` (else `nbf`) to `exp`, and those
    /// that have neither. Default: no limit.
    pub fn max_lifetime(mut self, limit: Duration) -> Self {
        self.max_lifetime = Some(limit);
        self
    }

    /// Tries up to this many keys (4 at most) for a token without `kid`, or whose `kid` several
    /// keys share, if that many fit its algorithm. Default: 1, such a token is good only if
    /// exactly one key fits.
    pub fn max_candidate_keys(mut self, limit: usize) -> Self {
        self.max_candidate_keys = limit.clamp(1, 4);
        self
    }

    /// App ID: its key quirks, its tenant, its v3 spelling of the issuer, `sub` as the client, and
    /// `scope` as what tells an access token from an identity token.
    pub(crate) fn app_id(mut self, tenant: String, aliases: Vec<Issuer>) -> Self {
        self.quirks = Quirks::AppId;
        self.tenant = Some(tenant);
        self.aliases = aliases;
        self.subject_is_client = true;
        self.requires_scope = true;
        self
    }

    /// Every name by which tokens may call this issuer.
    pub(super) fn names(&self) -> impl Iterator<Item = &Issuer> {
        std::iter::once(&self.issuer).chain(&self.aliases)
    }

    pub(super) fn policy(&self, leeway: Duration) -> Result<ClaimsPolicy, ConfigError> {
        if self.algorithms.is_empty() {
            return Err(ConfigError::without_value(
                "algorithms",
                "must not be empty",
            ));
        }
        Ok(ClaimsPolicy {
            issuer: self.issuer.clone(),
            issuer_aliases: self.aliases.clone(),
            audiences: self.audiences.clone(),
            algorithms: self.algorithms.clone(),
            profile: self.profile,
            tenant: self.tenant.clone(),
            subject_is_client: self.subject_is_client,
            requires_scope: self.requires_scope,
            max_candidate_keys: self.max_candidate_keys,
            leeway,
            max_lifetime: self.max_lifetime,
        })
    }
}
