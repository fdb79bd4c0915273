//! Tokens for tests, valid or invalid in a chosen way.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};

use super::issuance::{self, TokenParams};
use super::signing_keys::SigningKey;
use super::{AuthorizationServer, Version};
use crate::clock::UnixTime;
use crate::error::ConfigError;
use crate::jwt::Algorithm;

/// A builder for one access token, valid by default.
///
/// Returned by [`AuthorizationServer::mint`]. Its claims are those of App ID, as at the token
/// endpoint: `iss`, `exp`, `iat`, `aud` and `sub` (both the application's client id), `scope`,
/// `amr`, `tenant` (the tenant id), and `roles` if the application has any. There is no
/// `client_id`, so [`AuthContext::client_id`](crate::AuthContext::client_id) is `None`. Add it with
/// [`claim`](Self::claim) or, for all tokens of an application, with
/// [`RegisteredApplication::set_claim`](super::RegisteredApplication::set_claim); or build the
/// resource server from [`RegisteredApplication::binding`](super::RegisteredApplication::binding),
/// whose issuer reads `sub`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::resource_server::RejectionKind;
///
/// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
/// # let orders = orders.transport(issuer.transport()).start().await?;
/// let mint = || issuer.mint(&shop).audience(["orders"]).scope("orders.read");
/// assert!(orders.validate(&mint().sign()).await?.has_scope("orders.read"));
/// assert_eq!(orders.validate(&mint().sign()).await?.client_id(), None);
/// let named = mint().claim("client_id", "shop").sign();
/// assert_eq!(orders.validate(&named).await?.client_id(), Some("shop"));
///
/// let reject = async |token: String| orders.validate(&token).await.map_err(|one| one.kind());
/// let forged = mint().with_another_key().sign();
/// assert_eq!(reject(forged).await.unwrap_err(), RejectionKind::InvalidSignature);
/// let odd = mint().claim("iss", "https://evil.example").sign();
/// assert_eq!(reject(odd).await.unwrap_err(), RejectionKind::UntrustedIssuer);
/// let endless = mint().without("exp").sign();
/// assert_eq!(reject(endless).await.unwrap_err(), RejectionKind::InvalidClaims);
/// # Ok(())
/// # }
/// ```
#[must_use = "`sign` returns the token"]
pub struct TokenMint {
    server: AuthorizationServer,
    client_id: String,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    without: Vec<String>,
    without_header: Vec<String>,
    signature: SignatureKind,
    expires_in: Option<Duration>,
}

enum SignatureKind {
    Current,
    UnpublishedKey,
    UnknownKey(Algorithm),
    Tampered,
    PublicKeyAsSecret,
    None,
}

impl SignatureKind {
    /// The value of `alg` if it differs from the key's algorithm.
    fn claimed_algorithm(&self) -> Option<&'static str> {
        match self {
            Self::None => Some("none"),
            Self::PublicKeyAsSecret => Some("HS256"),
            Self::Current | Self::UnpublishedKey | Self::UnknownKey(_) | Self::Tampered => None,
        }
    }

    fn sign(&self, key: &SigningKey, input: &[u8]) -> Result<Vec<u8>, ConfigError> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::Current | Self::UnpublishedKey | Self::UnknownKey(_) => key.sign(input),
            Self::Tampered => key.sign(input).map(|mut signature| {
                signature.iter_mut().take(1).for_each(|byte| *byte ^= 1);
                signature
            }),
            Self::PublicKeyAsSecret => {
                // The RSA modulus or the x-coordinate, in base64url as in the key set.
                let number = key
                    .jwk()
                    .get("n")
                    .or_else(|| key.jwk().get("x"))
                    .and_then(Value::as_str);
                let secret =
                    hmac::Key::new(hmac::HMAC_SHA256, number.unwrap_or_default().as_bytes());
                Ok(hmac::sign(&secret, input).as_ref().to_vec())
            }
        }
    }
}

impl TokenMint {
    pub(super) fn new(server: AuthorizationServer, client_id: String, scopes: &[String]) -> Self {
        let claims = Map::from_iter([("scope".to_owned(), json!(scopes.join(" ")))]);
        Self {
            server,
            client_id,
            header: Map::new(),
            claims,
            without: Vec::new(),
            without_header: Vec::new(),
            signature: SignatureKind::Current,
            expires_in: None,
        }
    }

    /// Sets the audience. Default: the application itself.
    pub fn audience(self, audience: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let audience = audience.into_iter().map(|one| one.as_ref().to_owned());
        self.claim("aud", audience.collect::<Vec<_>>())
    }

    /// Sets the scopes, separated by spaces. Default: `appid_default` and the application's.
    pub fn scope(self, scope: &str) -> Self {
        self.claim("scope", scope)
    }

    /// Sets a claim to any value.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Omits a claim, also one that another method sets.
    pub fn without(mut self, claim: &str) -> Self {
        self.without.push(claim.to_owned());
        self
    }

    /// Sets a header parameter to any value.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let proof = issuer.mint(&shop).audience(["orders"]).header("typ", "dpop+jwt").sign();
    /// let rejection = orders.validate(&proof).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::UnexpectedTokenType);
    /// # Ok(())
    /// # }
    /// ```
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Omits a header parameter.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).without_header("kid").sign();
    /// assert!(orders.validate(&token).await.is_ok()); // the issuer has only one key
    /// # Ok(())
    /// # }
    /// ```
    pub fn without_header(mut self, parameter: &str) -> Self {
        self.without_header.push(parameter.to_owned());
        self
    }

    /// Sets the lifetime from now. Default: the server's token lifetime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::clock::{ManualClock, UnixTime};
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    /// # let issuer = issuer.clock(clock.clone()).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).clock(clock.clone()).start().await?;
    /// let short = Duration::from_secs(30);
    /// let token = issuer.mint(&shop).audience(["orders"]).expires_in(short).sign();
    /// assert_eq!(orders.validate(&token).await?.expires_in(), short);
    /// # Ok(())
    /// # }
    /// ```
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = Some(lifetime);
        self
    }

    /// Sets `exp` to an hour ago.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let expired = issuer.mint(&shop).audience(["orders"]).expired().sign();
    /// let rejection = orders.validate(&expired).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::Expired);
    /// # Ok(())
    /// # }
    /// ```
    pub fn expired(self) -> Self {
        let now = self.server.0.clock.now();
        let hour = Duration::from_secs(3600);
        let at = |time: UnixTime| time.as_secs();
        self.claim("exp", at(now.saturating_sub(hour)))
            .claim("iat", at(now.saturating_sub(hour * 2)))
    }

    /// Uses the [RFC 9068](https://www.rfc-editor.org/rfc/rfc9068#section-2) profile: `typ` is
    /// `at+jwt`, with `client_id` and `jti`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::resource_server::TokenProfile;
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .profile(TokenProfile::Rfc9068)
    ///     .transport(issuer.transport());
    /// let orders = ResourceServer::from_issuer(trusted).start().await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).rfc9068().sign();
    /// assert_eq!(orders.validate(&token).await?.client_id(), Some(shop.client_id()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn rfc9068(self) -> Self {
        let client_id = self.client_id.clone();
        let jti = uuid::Uuid::new_v4().to_string();
        self.header("typ", "at+jwt")
            .without_header("ver")
            .claim("client_id", client_id)
            .claim("jti", jti)
    }

    /// Signs with an unpublished key under the `kid` of the current key: a forgery.
    pub fn with_another_key(mut self) -> Self {
        self.signature = SignatureKind::UnpublishedKey;
        self
    }

    /// Signs with an unpublished key of this algorithm under a new `kid`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).with_unknown_key(Algorithm::Es256);
    /// let rejection = orders.validate(&token.sign()).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::UnknownKey);
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_unknown_key(mut self, algorithm: Algorithm) -> Self {
        self.signature = SignatureKind::UnknownKey(algorithm);
        self
    }

    /// Signs with HS256 and the public key as the secret (RFC 8725 §2.1).
    ///
    /// The secret is the text of the public key's `n`, or `x`, in the key set. A verifier that
    /// lets the token choose the kind of key accepts it if it uses the same text as the secret.
    /// Verifiers that use the PEM or DER encoding of the key are not tested by this token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let forged = issuer.mint(&shop).audience(["orders"]).hs256_with_public_key().sign();
    /// let rejection = orders.validate(&forged).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::UnsupportedAlgorithm);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hs256_with_public_key(mut self) -> Self {
        self.signature = SignatureKind::PublicKeyAsSecret;
        self
    }

    /// Flips one bit of the signature.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let tampered = issuer.mint(&shop).audience(["orders"]).tampered().sign();
    /// let rejection = orders.validate(&tampered).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::InvalidSignature);
    /// # Ok(())
    /// # }
    /// ```
    pub fn tampered(mut self) -> Self {
        self.signature = SignatureKind::Tampered;
        self
    }

    /// Sets `alg` to `none` and leaves the signature empty.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let unsigned = issuer.mint(&shop).audience(["orders"]).unsigned().sign();
    /// let rejection = orders.validate(&unsigned).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::Malformed);
    /// # Ok(())
    /// # }
    /// ```
    pub fn unsigned(mut self) -> Self {
        self.signature = SignatureKind::None;
        self
    }

    /// Signs and returns the token.
    ///
    /// # Panics
    ///
    /// If the operating system provides no randomness to generate a key or to sign.
    #[must_use]
    pub fn sign(self) -> String {
        let Self {
            server,
            client_id,
            header,
            claims,
            without,
            without_header,
            signature,
            expires_in,
        } = self;
        let inner = &server.0;
        let now = inner.clock.now();
        let (current, (roles, own_claims)) = {
            let state = inner.state();
            let of_application = state
                .application(&client_id)
                .map(|application| (state.role_names(application), application.claims.clone()))
                .unwrap_or_default();
            (std::sync::Arc::clone(state.keys.current()), of_application)
        };
        let generate = |kid: &str, algorithm| {
            SigningKey::generate(kid.to_owned(), algorithm, now)
                .expect("randomness from the operating system")
        };
        let other = match signature {
            SignatureKind::UnpublishedKey => Some(generate(current.kid(), current.algorithm())),
            SignatureKind::UnknownKey(algorithm) => Some(generate(
                &super::signing_keys::new_kid(&inner.tenant_id),
                algorithm,
            )),
            SignatureKind::Current
            | SignatureKind::Tampered
            | SignatureKind::PublicKeyAsSecret
            | SignatureKind::None => None,
        };
        let key = other.as_ref().unwrap_or(&current);
        let params = TokenParams {
            client_id: &client_id,
            audience: vec![client_id.clone()],
            scope: String::new(),
            roles,
            claims: own_claims,
        };
        let mut all_claims = issuance::claims(
            inner,
            Version::V4,
            params,
            now,
            expires_in.unwrap_or(inner.token_lifetime),
        );
        all_claims.extend(claims);
        all_claims.retain(|name, _| !without.contains(name));
        let mut all_header = issuance::header(Version::V4, key);
        if let Some(claimed) = signature.claimed_algorithm() {
            all_header.insert("alg".to_owned(), json!(claimed));
        }
        all_header.extend(header);
        all_header.retain(|name, _| !without_header.contains(name));
        let sign = |input: &[u8]| signature.sign(key, input);
        issuance::encode(&all_header, &all_claims, sign).expect("the key matches its algorithm")
    }
}

impl fmt::Debug for TokenMint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMint")
            .field("client_id", &self.client_id)
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}
