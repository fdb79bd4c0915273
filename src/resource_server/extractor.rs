//! [`AuthContext`] and its claims as axum extractors.

use std::fmt;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::layer::Anonymous;
use super::rejection_response::rejection_response;
use super::{
    AuthContext, ClaimError, DefaultRejectionResponse, InboundToken, Rejection, RejectionKind,
};
use crate::log_limit::LogLimit;

/// Why no [`AuthContext`] or no [`Claims`] could be extracted.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum::extract::FromRequestParts as _;
/// use http::{Request, StatusCode};
/// use tower_oauth::AuthContext;
/// use tower_oauth::resource_server::AuthContextRejection;
///
/// let (mut parts, ()) = Request::new(()).into_parts(); // did not pass `ResourceServerLayer`
/// let rejection = AuthContext::from_request_parts(&mut parts, &()).await.unwrap_err();
/// assert!(matches!(rejection, AuthContextRejection::LayerMissing(_)));
/// assert_eq!(rejection.status(), StatusCode::INTERNAL_SERVER_ERROR);
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AuthContextRejection {
    /// The layer allows anonymous requests, but this handler requires a token: 401.
    Anonymous(Rejection),
    /// A resource server layer is missing, or does not keep the token: 500.
    ///
    /// It keeps the token for a handler that extracts [`InboundToken`] after
    /// [`keep_token`](crate::ResourceServerLayer::keep_token).
    LayerMissing(Rejection),
    /// The claims have another shape than the type of [`Claims`]: 403.
    ClaimsMismatch(ClaimError),
}

impl AuthContextRejection {
    /// The status of the response.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use axum::{Router, body::Body, http::Request, routing::get};
    /// use tower::ServiceExt as _;
    /// use tower_oauth::AuthContext;
    /// use tower_oauth::resource_server::AuthContextRejection;
    ///
    /// // An extractor's error is a value, and the handler decides.
    /// async fn whoami(caller: Result<AuthContext, AuthContextRejection>) -> String {
    ///     match caller {
    ///         Ok(caller) => caller.subject().unwrap_or_default().to_owned(),
    ///         Err(rejection) => format!("{}: {rejection}", rejection.status().as_u16()),
    ///     }
    /// }
    ///
    /// let app: Router = Router::new().route("/", get(whoami)); // without `ResourceServerLayer`
    /// let response = app.oneshot(Request::get("/").body(Body::empty())?).await?;
    /// let body = axum::body::to_bytes(response.into_body(), 1024).await?;
    /// assert!(body.starts_with(b"500"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Anonymous(rejection) | Self::LayerMissing(rejection) => rejection.status(),
            Self::ClaimsMismatch(_) => StatusCode::FORBIDDEN,
        }
    }
}

impl fmt::Display for AuthContextRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous(rejection) | Self::LayerMissing(rejection) => rejection.fmt(f),
            Self::ClaimsMismatch(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AuthContextRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ClaimsMismatch(error) => error.source(),
            Self::Anonymous(_) | Self::LayerMissing(_) => None,
        }
    }
}

/// The [`DefaultRejectionResponse`]; the layer around the handler completes its challenge.
impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        rejection_response(&DefaultRejectionResponse, self)
    }
}

impl IntoResponse for AuthContextRejection {
    fn into_response(self) -> Response {
        match self {
            Self::Anonymous(rejection) | Self::LayerMissing(rejection) => rejection.into_response(),
            Self::ClaimsMismatch(_) => {
                let mut rejection = Rejection::forbidden();
                rejection.details.found = Some("claims of another shape than a handler extracts");
                rejection.into_response()
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AuthContext {
    type Rejection = AuthContextRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        static LAYER_MISSING: LogLimit = LogLimit::new();
        if let Some(context) = Self::from_extensions(&parts.extensions) {
            return Ok(context.clone());
        }
        let part = "a handler that extracts `AuthContext` or `Claims`";
        Err(not_found(parts, part, &LAYER_MISSING))
    }
}

/// Why the extensions of a request do not have what `part` extracts.
fn not_found(parts: &Parts, part: &'static str, log_limit: &LogLimit) -> AuthContextRejection {
    match parts.extensions.get::<Anonymous>() {
        Some(Anonymous) => {
            let kind = RejectionKind::MissingToken;
            AuthContextRejection::Anonymous(Rejection::incomplete(kind, None, false))
        }
        None => {
            let rejection = Rejection::layer_missing(part, log_limit, false);
            AuthContextRejection::LayerMissing(rejection)
        }
    }
}

/// 500 unless the layer has [`keep_token`](crate::ResourceServerLayer::keep_token); 401 for an
/// anonymous request.
impl<S: Send + Sync> FromRequestParts<S> for InboundToken {
    type Rejection = AuthContextRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        static LAYER_MISSING: LogLimit = LogLimit::new();
        if let Some(token) = Self::from_extensions(&parts.extensions) {
            return Ok(token.clone());
        }
        let part = "a handler that extracts `InboundToken`";
        if AuthContext::from_extensions(&parts.extensions).is_some() {
            let rejection = Rejection::token_not_kept(&LAYER_MISSING);
            return Err(AuthContextRejection::LayerMissing(rejection));
        }
        Err(not_found(parts, part, &LAYER_MISSING))
    }
}

/// `None` for an anonymous request that the layer allows.
impl<S: Send + Sync> OptionalFromRequestParts<S> for AuthContext {
    type Rejection = AuthContextRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        match <Self as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(context) => Ok(Some(context)),
            Err(AuthContextRejection::Anonymous(_)) => Ok(None),
            Err(rejection) => Err(rejection),
        }
    }
}

/// Extracts the claims of the token as a type of the application.
///
/// As [`AuthContext::claims`]; the JSON of the claims is parsed once for all extractors and clones
/// of the context of a request.
///
/// The source of the rejection names a member that is missing, and quotes a value of another type:
/// extract `Result<Claims<T>, AuthContextRejection>` to see it. It is for the operator. Claims of
/// another shape are a 403 without a challenge: the token is valid, so it is not `invalid_token`
/// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)), which would have the
/// client request a new one of the same shape.
///
/// ```
/// # #[cfg(feature = "test-util")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use tower::ServiceExt as _;
/// use tower_oauth::AuthContext;
/// use tower_oauth::resource_server::Claims;
///
/// #[derive(serde::Deserialize)]
/// struct Plan {
///     plan: String,
/// }
///
/// async fn plan(Claims(Plan { plan }): Claims<Plan>) -> String {
///     plan
/// }
///
/// let app: Router = Router::new().route("/", get(plan)); // and `.layer(server.layer())`
/// let send = async |caller: AuthContext| {
///     let request = Request::builder().extension(caller).body(Body::empty()).unwrap();
///     app.clone().oneshot(request).await.unwrap().status()
/// };
/// assert_eq!(send(AuthContext::builder().claim("plan", "pro").build()).await, 200);
/// assert_eq!(send(AuthContext::builder().claim("plan", 1).build()).await, 403);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "test-util"))]
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a pattern of handlers")]
pub struct Claims<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Claims<T> {
    type Rejection = AuthContextRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let context =
            <AuthContext as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        context.claims().map(Self).map_err(|error| {
            crate::trace::debug!(
                target: "tower_oauth::resource_server",
                expected = std::any::type_name::<T>(),
                "the claims of a valid token do not have the shape that a handler extracts"
            );
            AuthContextRejection::ClaimsMismatch(error)
        })
    }
}
