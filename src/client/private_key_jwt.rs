//! Client authentication with an assertion that the client signs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde_json::json;

use super::assertion_audience::AssertionAudience;
use super::authentication::ClientAuthentication;
use super::box_future::BoxFuture;
use super::client_assertion::JWT_BEARER_ASSERTION;
use super::signing_key::SigningKey;
use super::token_request::{RequestPart, TokenRequest};
use crate::error::{ConfigError, Error, ErrorKind, Operation};
use crate::jwt::new_token_id;

/// The default lifetime of an assertion.
const LIFETIME: Duration = Duration::from_secs(60);

/// The longest lifetime: Okta refuses longer ones.
const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// Authenticates the client with an assertion that its key signs: `private_key_jwt`
/// ([RFC 7523 §2.2](https://www.rfc-editor.org/rfc/rfc7523#section-2.2),
/// [OpenID Connect Core §9](https://openid.net/specs/openid-connect-core-1_0.html#ClientAuthentication)).
///
/// The server has the public key, so that there is no shared secret. Each token request, and each
/// retry of one, has a new assertion with another `jti`, which expires after a minute. Its memory
/// is zeroized after the request; the buffers of the HTTP client that sends it are not.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use http_body_util::BodyExt as _;
/// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
/// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
/// #         let form = request.into_body().collect().await?.to_bytes();
/// #         let form = String::from_utf8_lossy(&form).into_owned();
/// #         let body = serde_json::json!({ "access_token": form, "token_type": "Bearer" });
/// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
/// #     },
/// # ));
/// # let pem = "-----BEGIN PRIVATE KEY-----\n\
/// #     MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
/// #     -----END PRIVATE KEY-----\n";
/// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
/// use tower_oauth::client::{Algorithm, SigningKey};
/// use tower_oauth::{PrivateKeyJwt, TokenManager};
///
/// // `pem` is "-----BEGIN PRIVATE KEY-----\n…".
/// let key = SigningKey::from_pem(pem, Algorithm::EdDsa)?.key_id("2026-11");
/// let tokens = TokenManager::builder(endpoint, PrivateKeyJwt::new("orders", key))
///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
///     .start()?;
/// let form = tokens.access_token().await?;
/// assert!(form.expose_secret().starts_with(
///     "grant_type=client_credentials&client_id=orders&client_assertion_type=urn%3Aietf%3A\
///      params%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=eyJ"
/// ));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PrivateKeyJwt {
    client_id: String,
    key: SigningKey,
    audience: AssertionAudience,
    lifetime: Duration,
    sends_client_id: bool,
}

impl PrivateKeyJwt {
    /// Assertions of this client, signed with this key.
    pub fn new(client_id: impl Into<String>, key: SigningKey) -> Self {
        Self {
            client_id: client_id.into(),
            key,
            audience: AssertionAudience::Default,
            lifetime: LIFETIME,
            sends_client_id: true,
        }
    }

    /// Sets the audience of the assertions. Default: [`Default`](AssertionAudience::Default).
    pub fn audience(mut self, audience: AssertionAudience) -> Self {
        self.audience = audience;
        self
    }

    /// Sets the time from the token request to the `exp` of its assertion. Default: 60 s.
    ///
    /// At least a second and at most an hour. A longer one helps if the clock of the server is
    /// ahead.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Leaves the parameter `client_id` out, which is optional beside an assertion
    /// ([RFC 7521 §4.2](https://www.rfc-editor.org/rfc/rfc7521#section-4.2)).
    pub fn omit_client_id(mut self) -> Self {
        self.sends_client_id = false;
        self
    }

    pub(super) fn assertion_audience(&self) -> &AssertionAudience {
        &self.audience
    }

    /// A new assertion for this request, with this `typ`.
    pub(super) async fn sign(
        &self,
        audience: &AssertionAudience,
        typ: &'static str,
        request: &TokenRequest,
    ) -> Result<SignedAssertion, Error> {
        let failed = || Error::new(Operation::TokenRequest, ErrorKind::Credentials);
        let (now, expiry) = (request.now(), request.now().saturating_add(self.lifetime));
        let token_id = new_token_id().map_err(|error| failed().with_detail(error.to_string()))?;
        let claims = json!({
            "iss": self.client_id,
            "sub": self.client_id,
            // RFC 7523 §3 allows an array, rfc7523bis a single string only.
            "aud": audience.resolve(request)?,
            "exp": expiry.as_secs(),
            "iat": now.as_secs(),
            "nbf": now.as_secs(),
            "jti": token_id,
        });
        let signed = self.key.sign(typ, claims).await?;
        let times =
            format!("the assertion is valid from {now} to {expiry} by the clock of this client");
        let refusal_hint = match audience.refusal_hint(request) {
            Some(hint) => format!("{hint}; {times}"),
            None => times,
        };
        Ok(SignedAssertion {
            jwt: signed.jwt,
            public_key: signed.public_key,
            refusal_hint,
        })
    }

    async fn write(&self, request: &mut TokenRequest) -> Result<(), Error> {
        // rfc7523bis §3: an explicit type, where the audience is the one that it requires too.
        let typ = match self.audience.is_issuer(request) {
            true => "client-authentication+jwt",
            false => "JWT",
        };
        let assertion = self.sign(&self.audience, typ, request).await?;
        if self.key.is_read() {
            let public_key = URL_SAFE_NO_PAD.encode(&assertion.public_key).into();
            request.record_credentials(&self.client_id, &public_key);
        }
        request.add_refusal_hint(RequestPart::ClientAuthentication, assertion.refusal_hint);
        if self.sends_client_id {
            request.append("client_id", &self.client_id);
        }
        request.append("client_assertion_type", JWT_BEARER_ASSERTION);
        request.append_secret("client_assertion", &assertion.jwt);
        Ok(())
    }
}

/// An assertion that was signed for a token request.
pub(super) struct SignedAssertion {
    pub(super) jwt: SecretString,
    public_key: Vec<u8>,
    /// What a refusal may be due to.
    pub(super) refusal_hint: String,
}

impl ClientAuthentication for PrivateKeyJwt {
    fn authenticate<'a>(
        &'a self,
        request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.write(request))
    }

    fn client_id(&self) -> Option<&str> {
        Some(&self.client_id)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.client_id.is_empty() {
            return Err(ConfigError::missing("client id", "must not be empty"));
        }
        if self.lifetime < Duration::from_secs(1) || self.lifetime > MAX_LIFETIME {
            let lifetime = format!("{:?}", self.lifetime);
            let reason = "must be at least a second and at most an hour";
            return Err(ConfigError::new("assertion lifetime", lifetime, reason));
        }
        self.audience.check()
    }
}
