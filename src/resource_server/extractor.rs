//! [`AuthContext`] as an axum extractor.

use axum_core::body::Body;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::authentication::Anonymous;
use super::{AuthContext, DefaultRejectionResponse, Rejection, RejectionResponse};

/// Why no [`AuthContext`] could be extracted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AuthContextRejection {
    /// The layer allows anonymous requests, but this handler requires a token: 401.
    Anonymous(Rejection),
    /// The route is not behind a `ResourceServerLayer`: 500, an error of this service.
    LayerMissing,
}

impl AuthContextRejection {
    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Anonymous(rejection) => rejection.status(),
            Self::LayerMissing => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for AuthContextRejection {
    fn into_response(self) -> Response {
        match self {
            Self::Anonymous(rejection) => {
                let mut response: Response<Body> = DefaultRejectionResponse.response(&rejection);
                response.extensions_mut().insert(rejection);
                response
            }
            Self::LayerMissing => self.status().into_response(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AuthContext {
    type Rejection = AuthContextRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        if let Some(context) = parts.extensions.get::<Self>() {
            return Ok(context.clone());
        }
        Err(match parts.extensions.get::<Anonymous>() {
            Some(Anonymous(rejection)) => AuthContextRejection::Anonymous(rejection.clone()),
            None => AuthContextRejection::LayerMissing,
        })
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
            Err(missing @ AuthContextRejection::LayerMissing) => Err(missing),
        }
    }
}
