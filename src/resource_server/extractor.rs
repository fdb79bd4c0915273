//! [`AuthContext`] as an axum extractor.

use std::fmt;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::authentication::{Anonymous, rejection_response};
use super::log_limit::LogLimit;
use super::{AuthContext, DefaultRejectionResponse, Rejection};

/// Why no [`AuthContext`] could be extracted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AuthContextRejection {
    /// The layer allows anonymous requests, but this handler requires a token: 401.
    Anonymous(Rejection),
    /// The route is not behind a `ResourceServerLayer`: 500, an error of this service.
    LayerMissing(Rejection),
}

impl AuthContextRejection {
    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Anonymous(rejection) | Self::LayerMissing(rejection) => rejection.status(),
        }
    }
}

impl fmt::Display for AuthContextRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous(rejection) | Self::LayerMissing(rejection) => rejection.fmt(f),
        }
    }
}

impl std::error::Error for AuthContextRejection {}

impl IntoResponse for AuthContextRejection {
    fn into_response(self) -> Response {
        match self {
            Self::Anonymous(rejection) | Self::LayerMissing(rejection) => {
                rejection_response(&DefaultRejectionResponse, rejection)
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AuthContext {
    type Rejection = AuthContextRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        static LAYER_MISSING: LogLimit = LogLimit::new();
        if let Some(context) = parts.extensions.get::<Self>() {
            return Ok(context.clone());
        }
        Err(match parts.extensions.get::<Anonymous>() {
            Some(Anonymous(rejection)) => AuthContextRejection::Anonymous(rejection.clone()),
            None => AuthContextRejection::LayerMissing(Rejection::layer_missing(
                "a handler with an `AuthContext`",
                &LAYER_MISSING,
                false,
            )),
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
            Err(rejection) => Err(rejection),
        }
    }
}
