//! For whom an assertion is made.

use std::borrow::Cow;

use super::token_request::TokenRequest;
use crate::error::{ConfigError, Error};
use crate::oauth::{Endpoint, Issuer, Origin};
use crate::text;

/// Nothing is tried by itself: the audience of an assertion is a decision of the operator.
const ISSUER_HINT: &str = "the audience of the assertion is the issuer; if the server expects its \
    token endpoint, as Microsoft Entra ID and Ory Hydra do, set `AssertionAudience::TokenEndpoint`";

/// The audience of an assertion, its `aud`
/// ([RFC 7523 §3](https://www.rfc-editor.org/rfc/rfc7523#section-3)).
///
/// It is configured, because a malicious server could name the audience or the token endpoint of
/// another server, and use the assertion there (CVE-2025-27370, CVE-2025-27371). With
/// [`TokenEndpoint`](Self::TokenEndpoint), metadata may name the URL, but only at the origin of the
/// issuer.
///
/// # Examples
///
/// For servers such as Microsoft Entra ID and Ory Hydra, which expect their token endpoint:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use http_body_util::BodyExt as _;
/// # let endpoint = "https://as.example/token";
/// # let server = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
/// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
/// #         let body = if request.uri().path() == "/token" {
/// #             let form = request.into_body().collect().await?.to_bytes();
/// #             let form = String::from_utf8_lossy(&form).into_owned();
/// #             serde_json::json!({ "access_token": form, "token_type": "Bearer" })
/// #         } else {
/// #             serde_json::json!({
/// #                 "issuer": "https://as.example",
/// #                 "token_endpoint": "https://as.example/token",
/// #                 "jwks_uri": "https://as.example/keys",
/// #             })
/// #         };
/// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
/// #     },
/// # ));
/// use secrecy::SecretString;
/// use tower_oauth::client::{AssertionAudience, AssertionSource, BoxFuture};
/// use tower_oauth::{BoxError, ClientAssertion, Issuer, TokenManager};
///
/// /// A key management service.
/// #[derive(Debug)]
/// struct Kms;
///
/// impl AssertionSource for Kms {
///     fn assertion<'a>(
///         &'a self,
///         audience: &'a str,
///     ) -> BoxFuture<'a, Result<SecretString, BoxError>> {
///         Box::pin(async move { Ok(format!("signed-for:{audience}").into()) })
///     }
/// }
///
/// let client = ClientAssertion::new(Kms).audience(AssertionAudience::TokenEndpoint);
/// let issuer = Issuer::new("https://as.example")?;
/// let tokens = TokenManager::for_issuer(issuer, client)?
///     .transport(server) // a server whose tokens are the forms that it receives
///     .start()?;
/// let form = tokens.access_token().await?;
/// assert!(form.expose_secret().ends_with("=signed-for%3Ahttps%3A%2F%2Fas.example%2Ftoken"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AssertionAudience {
    /// The issuer, if one is configured, else the token endpoint. This is the default.
    ///
    /// [draft-ietf-oauth-rfc7523bis](https://datatracker.ietf.org/doc/draft-ietf-oauth-rfc7523bis/)
    /// requires the issuer, because a configured issuer cannot be replaced by its metadata.
    #[default]
    Default,
    /// The token endpoint, also if it was discovered.
    ///
    /// A discovered endpoint must have the origin of the issuer. If it has another one, the token
    /// request fails before an assertion is made.
    TokenEndpoint,
    /// Another audience, as the server expects it.
    Other(String),
}

impl AssertionAudience {
    /// The audience of the assertion in this request.
    pub(super) fn resolve<'r>(&'r self, request: &'r TokenRequest) -> Result<&'r str, Error> {
        match (self, request.issuer()) {
            (Self::Other(audience), _) => Ok(audience),
            (Self::Default, Some(issuer)) => Ok(issuer.as_str()),
            (Self::TokenEndpoint, Some(issuer)) if !has_origin_of(request.endpoint(), issuer) => {
                let reason = format!(
                    "cannot be the token endpoint, which the metadata name at {}: it must have \
                     the origin of the issuer; set `AssertionAudience::Other`, or build the manager \
                     with the token endpoint (`TokenManager::builder`)",
                    request.endpoint().origin()
                );
                Err(ConfigError::without_value("assertion audience", reason).into())
            }
            (Self::Default | Self::TokenEndpoint, _) => Ok(request.endpoint().as_str()),
        }
    }

    /// Whether the assertion in this request is for the issuer.
    pub(super) fn is_issuer(&self, request: &TokenRequest) -> bool {
        match (self, request.issuer()) {
            (Self::Default, Some(_)) => true,
            (Self::Other(audience), Some(issuer)) => audience == issuer.as_str(),
            (_, None) | (Self::TokenEndpoint, _) => false,
        }
    }

    /// What the refusal of an assertion that was made for this audience may be due to.
    pub(super) fn refusal_hint(&self, request: &TokenRequest) -> Option<Cow<'static, str>> {
        match self {
            _ if self.is_issuer(request) => Some(ISSUER_HINT.into()),
            Self::Other(audience) => {
                let audience = text::setting(audience);
                let hint = format!(
                    "the audience of the assertion is {audience}; if the server expects another \
                     one, correct `AssertionAudience::Other`"
                );
                Some(hint.into())
            }
            Self::Default | Self::TokenEndpoint => None,
        }
    }

    /// Checks the setting. Called when the manager is built.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::Other(audience) if audience.trim().is_empty() => Err(ConfigError::missing(
                "assertion audience",
                "must not be empty",
            )),
            _ => Ok(()),
        }
    }
}

fn has_origin_of(endpoint: &Endpoint, issuer: &Issuer) -> bool {
    let issuer = Endpoint::new(issuer.as_str());
    issuer.is_ok_and(|issuer| Origin::from(issuer) == Origin::from(endpoint))
}
