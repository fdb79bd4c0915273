//! The grant whose authorization is an assertion.

use std::sync::Arc;

use super::assertion;
use super::assertion_audience::AssertionAudience;
use super::assertion_source::AssertionSource;
use super::authentication::ClientAuthentication as _;
use super::box_future::BoxFuture;
use super::grant::Grant;
use super::private_key_jwt::PrivateKeyJwt;
use super::token_request::{RequestPart, TokenRequest};
use crate::error::{ConfigError, Error};

/// RFC 7523 §2.1.
pub(super) const JWT_BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// An assertion as the grant, `urn:ietf:params:oauth:grant-type:jwt-bearer`
/// ([RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1)).
///
/// The assertion says who asks, so that the client need not authenticate: use
/// [`NoAuthentication`](super::NoAuthentication), unless the server requires more. The source is
/// asked for each token request. An assertion that has expired is not sent.
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
/// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
/// use secrecy::SecretString;
/// use tower_oauth::client::{AssertionSource, BoxFuture, JwtBearerGrant, NoAuthentication};
/// use tower_oauth::{BoxError, Scope, TokenManager};
///
/// /// An agent that issues assertions.
/// #[derive(Debug)]
/// struct Agent;
///
/// impl AssertionSource for Agent {
///     fn assertion<'a>(
///         &'a self,
///         audience: &'a str,
///     ) -> BoxFuture<'a, Result<SecretString, BoxError>> {
///         Box::pin(async move { Ok(format!("for:{audience}").into()) })
///     }
/// }
///
/// let tokens = TokenManager::builder(endpoint, NoAuthentication)
///     .grant(JwtBearerGrant::new(Agent))
///     .scope(Scope::new("orders.read")?)
///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
///     .start()?;
/// let form = tokens.access_token().await?;
/// assert_eq!(
///     form.expose_secret(),
///     "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer\
///      &assertion=for%3Ahttps%3A%2F%2Fas.example%2Ftoken&scope=orders.read"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct JwtBearerGrant {
    assertions: Assertions,
    audience: AssertionAudience,
}

/// Where the assertions come from.
#[derive(Clone, Debug)]
enum Assertions {
    Source(Arc<dyn AssertionSource>),
    Signed(PrivateKeyJwt),
}

impl JwtBearerGrant {
    /// A grant with the assertions of this source.
    pub fn new(source: impl AssertionSource) -> Self {
        Self {
            assertions: Assertions::Source(Arc::new(source)),
            audience: AssertionAudience::Default,
        }
    }

    /// A grant with assertions that a key signs. Their `iss` and `sub` are the client id.
    ///
    /// For a server that knows the key of an account, such as one of a Zitadel service account: the
    /// id of the account is the client id. The lifetime and the audience are those of the
    /// [`PrivateKeyJwt`]. No `client_id` is sent, so [`PrivateKeyJwt::omit_client_id`] has no
    /// effect. A refused assertion is not sent again: a key file that was replaced meanwhile is
    /// read for the next token request.
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
    /// use tower_oauth::client::{Algorithm, JwtBearerGrant, NoAuthentication, SigningKey};
    /// use tower_oauth::{PrivateKeyJwt, TokenManager};
    ///
    /// // `pem` is "-----BEGIN PRIVATE KEY-----\n…".
    /// let key = SigningKey::from_pem(pem, Algorithm::EdDsa)?.key_id("2026-11");
    /// let tokens = TokenManager::builder(endpoint, NoAuthentication)
    ///     .grant(JwtBearerGrant::signed(PrivateKeyJwt::new("345377791925026818", key)))
    ///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
    ///     .start()?;
    /// let form = tokens.access_token().await?;
    /// assert!(form.expose_secret().starts_with(
    ///     "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=eyJ"
    /// ));
    /// # Ok(())
    /// # }
    /// ```
    pub fn signed(assertions: PrivateKeyJwt) -> Self {
        Self {
            audience: assertions.assertion_audience().clone(),
            assertions: Assertions::Signed(assertions),
        }
    }

    /// Sets the audience of the assertions, which a source is asked for. Default: that of the
    /// [`PrivateKeyJwt`] of [`signed`](Self::signed), else [`Default`](AssertionAudience::Default).
    pub fn audience(mut self, audience: AssertionAudience) -> Self {
        self.audience = audience;
        self
    }
}

impl Grant for JwtBearerGrant {
    fn write<'a>(&'a self, request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async {
            let part = RequestPart::Grant;
            let assertion = match &self.assertions {
                Assertions::Source(source) => {
                    let assertion = assertion::get(&**source, &self.audience, request).await?;
                    assertion::record(&**source, &self.audience, &assertion, part, request);
                    assertion
                }
                Assertions::Signed(key) => {
                    let assertion = key.sign(&self.audience, "JWT", request).await?;
                    request.add_refusal_hint(part, assertion.refusal_hint);
                    assertion.jwt
                }
            };
            request.append("grant_type", JWT_BEARER_GRANT);
            request.append_secret("assertion", &assertion);
            Ok(())
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        if let Assertions::Signed(key) = &self.assertions {
            key.check()?;
        }
        self.audience.check()
    }
}
