//! A rejected request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::RejectionKind;
use super::challenge::{StepUp, incomplete_headers};
use crate::clock::{Clock, SystemClock};
use crate::jwt::Mismatch;
use crate::log_limit::LogLimit;
use crate::metrics::REQUESTS;
use crate::oauth::{Issuer, Scope};

/// Why a request or a token is rejected, before a [`Rejection`] has the headers of the server.
#[derive(Debug)]
pub(super) struct RejectionReason {
    pub(super) kind: RejectionKind,
    /// The index of the issuer in the list of the resource server, if it is known.
    pub(super) issuer: Option<u16>,
    /// With `InsufficientScope`.
    pub(super) required_scopes: Option<Arc<[Scope]>>,
    /// Of a token with a valid signature.
    pub(super) mismatch: Option<Arc<Mismatch>>,
}

impl<K: Into<RejectionKind>> From<K> for RejectionReason {
    fn from(kind: K) -> Self {
        Self {
            kind: kind.into(),
            issuer: None,
            required_scopes: None,
            mismatch: None,
        }
    }
}

impl RejectionReason {
    /// For a token with a valid signature.
    pub(super) fn with_mismatch(
        kind: impl Into<RejectionKind>,
        mismatch: Option<Mismatch>,
    ) -> Self {
        Self {
            mismatch: mismatch.map(Arc::new),
            ..kind.into().into()
        }
    }

    /// For a token of the issuer with this index.
    pub(super) fn of_issuer(self, index: usize) -> Self {
        let issuer = u16::try_from(index).ok();
        Self { issuer, ..self }
    }

    pub(super) fn issuer_index(&self) -> Option<usize> {
        self.issuer.map(usize::from)
    }
}

/// The rejection of a request: its reason and the headers of the response.
///
/// Also an extension of the response, so that outer layers can count reasons. It shows no data of
/// the token.
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
/// use tower_oauth::{Rejection, ResourceServer};
/// use tower_oauth::resource_server::RejectionKind;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// let layer = orders.layer().on_rejection(|rejection: &Rejection| {
///     let mut response = Response::new(rejection.description().to_owned());
///     *response.status_mut() = rejection.status();
///     response
/// });
/// let service = ServiceBuilder::new().layer(layer).service(service_fn(
///     |_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::default()) },
/// ));
/// let request = Request::builder().header("authorization", "Bearer a.b.c").body(())?;
/// let response = service.oneshot(request).await?;
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.body(), "The access token is invalid");
/// let rejection = response.extensions().get::<Rejection>().expect("inserted by the layer");
/// assert_eq!(rejection.kind(), RejectionKind::Malformed);
/// assert_eq!(rejection.error(), Some("invalid_token"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Rejection {
    pub(super) kind: RejectionKind,
    /// The headers of the response.
    pub(super) headers: Arc<HeaderMap>,
    pub(super) required_scopes: Option<Arc<[Scope]>>,
    /// With `InsufficientAuthentication`.
    pub(super) step_up: Option<Arc<StepUp>>,
    pub(super) grpc: bool,
    /// Whether the challenge has the parameters of a resource server.
    pub(super) is_complete: bool,
    /// Whether the response is that of `DefaultRejectionResponse`.
    pub(super) has_default_response: bool,
    /// For the event of the rejection.
    pub(super) details: Details,
}

/// What the event of a rejection says besides its reason. No part of the response.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "for events"))]
pub(super) struct Details {
    pub(super) issuer: Option<Issuer>,
    /// Of a token with a valid signature.
    pub(super) mismatch: Option<Arc<Mismatch>>,
    /// What the request has, if there is no mismatch.
    pub(super) found: Option<&'static str>,
    /// Another event at `warn` is for this request.
    pub(super) has_other_event: bool,
}

impl Rejection {
    /// Rejects a request whose token lacks one of `scopes`, all of which it needs: 403.
    ///
    /// The challenge names them, without those that are no scope token (RFC 6749 §3.3): no token
    /// has such a scope.
    ///
    /// For a handler or a layer inside a [`ResourceServerLayer`](crate::ResourceServerLayer). That
    /// layer counts the rejection, and adds `realm` and `resource_metadata` to the challenge of the
    /// response: it finds the `Rejection` in the response's extensions, where
    /// [`RejectionResponse`](super::RejectionResponse) implementations and, with the feature
    /// `axum`, `IntoResponse` leave it.
    ///
    /// ```
    /// use tower_oauth::Rejection;
    ///
    /// let rejection = Rejection::insufficient_scope(["orders.write"]);
    /// assert_eq!(rejection.status(), 403);
    /// assert_eq!(rejection.required_scopes()[0], "orders.write");
    /// ```
    #[must_use]
    pub fn insufficient_scope(scopes: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let scopes = scopes
            .into_iter()
            .filter_map(|scope| Scope::new(scope).ok());
        let scopes = scopes.collect();
        Self::incomplete(RejectionKind::InsufficientScope, Some(scopes), false)
    }

    /// Rejects a request with 403; another token of the caller would not help.
    ///
    /// The response has no challenge.
    ///
    /// For a handler or a layer, as [`insufficient_scope`](Self::insufficient_scope).
    ///
    /// ```
    /// use tower_oauth::Rejection;
    ///
    /// let rejection = Rejection::forbidden();
    /// assert_eq!(rejection.status(), 403);
    /// assert_eq!(rejection.www_authenticate(), None);
    /// ```
    #[must_use]
    pub fn forbidden() -> Self {
        Self::incomplete(RejectionKind::Forbidden, None, false)
    }

    /// A rejection for which the challenge has no parameters of a resource server yet.
    pub(super) fn incomplete(
        kind: RejectionKind,
        required_scopes: Option<Arc<[Scope]>>,
        grpc: bool,
    ) -> Self {
        Self {
            grpc,
            ..Self::requiring(kind, required_scopes, None)
        }
    }

    /// As [`incomplete`](Self::incomplete), with the authentication that is required.
    pub(super) fn requiring(
        kind: RejectionKind,
        required_scopes: Option<Arc<[Scope]>>,
        step_up: Option<Arc<StepUp>>,
    ) -> Self {
        let scopes = required_scopes.as_deref().unwrap_or_default();
        Self {
            kind,
            headers: incomplete_headers(kind, scopes, step_up.as_deref()),
            required_scopes,
            step_up,
            grpc: false,
            is_complete: false,
            has_default_response: false,
            details: Details::default(),
        }
    }

    /// Rejects a request that passed no resource server, and logs what to do.
    ///
    /// The event is an error at most once a minute, because every caller can cause it.
    #[cfg_attr(
        not(feature = "tracing"),
        expect(unused_variables, reason = "nothing is logged")
    )]
    pub(super) fn layer_missing(part: &'static str, log_limit: &LogLimit, grpc: bool) -> Self {
        if let Some(suppressed) = log_limit.permit(SystemClock.now()) {
            crate::trace::error!(
                target: "tower_oauth::resource_server",
                reason = RejectionKind::LayerMissing.as_str(),
                "{part} is outside of `ResourceServerLayer`, or there is none: add \
                 `.layer(server.layer())` after it on an axum router, before it in a \
                 `ServiceBuilder`{suppressed} (logged once a minute)"
            );
        }
        Self::misconfigured(grpc)
    }

    /// Rejects a request whose resource server layer does not keep the token that a handler
    /// extracts, and logs what to do, as [`layer_missing`](Self::layer_missing).
    #[cfg(feature = "axum")]
    #[cfg_attr(
        not(feature = "tracing"),
        expect(unused_variables, reason = "nothing is logged")
    )]
    pub(super) fn token_not_kept(log_limit: &LogLimit) -> Self {
        if let Some(suppressed) = log_limit.permit(SystemClock.now()) {
            crate::trace::error!(
                target: "tower_oauth::resource_server",
                reason = RejectionKind::LayerMissing.as_str(),
                "a handler that extracts `InboundToken` needs `keep_token()` on the \
                 `ResourceServerLayer` of its route{suppressed} (logged once a minute)"
            );
        }
        Self::misconfigured(false)
    }

    fn misconfigured(grpc: bool) -> Self {
        let kind = RejectionKind::LayerMissing;
        crate::metrics::count(REQUESTS, &[("result", kind.as_str())]);
        crate::trace::debug!(
            target: "tower_oauth::resource_server",
            reason = kind.as_str(),
            "request rejected"
        );
        Self::incomplete(kind, None, grpc)
    }

    /// The reason for the rejection.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
    /// let rejection = orders.validate("a.b").await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::Malformed);
    /// assert_eq!(rejection.to_string(), "request rejected: malformed");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// The status of the response. The response to a gRPC call always has 200 instead.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The error code ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)).
    ///
    /// `invalid_request`, `invalid_token`, `insufficient_scope` or
    /// `insufficient_user_authentication` (RFC 9470 §3); `None` for a request without a token, for
    /// [`RejectionKind::Forbidden`], and with status 500 and 503.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use tower_oauth::{Rejection, ResourceServer};
    ///
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
    /// let (head, _body) = http::Request::get("/orders").body(())?.into_parts();
    /// assert_eq!(orders.authenticate(&head).await.unwrap_err().error(), None);
    /// assert_eq!(orders.validate("a.b").await.unwrap_err().error(), Some("invalid_token"));
    /// let rejection = Rejection::insufficient_scope(["orders.write"]);
    /// assert_eq!(rejection.error(), Some("insufficient_scope"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn error(&self) -> Option<&'static str> {
        self.kind.error()
    }

    /// A text for the caller, `error_description` of the challenge.
    ///
    /// One of a few fixed texts, without data of the token.
    #[must_use]
    pub fn description(&self) -> &'static str {
        self.kind.description()
    }

    /// The scopes that the challenge names.
    ///
    /// All scopes of the requirement that is not met, also those that the token has. Each
    /// [`RequireLayer`](crate::RequireLayer) around it adds the scopes that it requires on the way
    /// out. Several `Scoped` and [`require_scopes`](crate::AuthContext::require_scopes) of one
    /// handler add none to each other, and the scopes of the issuer
    /// ([`TrustedIssuer::require_scopes`](crate::TrustedIssuer::require_scopes)) are not added.
    ///
    /// Of [`RequireScopeLayer::any`](crate::RequireScopeLayer::any), one of them is enough.
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    ///
    /// let caller = AuthContext::builder().scopes(["orders.read"]).build();
    /// let rejection = caller.require_scopes(["orders.read", "orders.list"]).unwrap_err();
    /// assert_eq!(rejection.required_scopes(), ["orders.read", "orders.list"]);
    /// ```
    #[must_use]
    pub fn required_scopes(&self) -> &[Scope] {
        self.required_scopes.as_deref().unwrap_or_default()
    }

    /// The values of `acr` that the request needs, one of them, in order of preference
    /// ([RFC 9470 §3](https://www.rfc-editor.org/rfc/rfc9470#section-3)).
    ///
    /// Empty unless the kind is [`RejectionKind::InsufficientAuthentication`].
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let two_factors = Requirement::acr_values(["mfa"]);
    /// let rejection = AuthContext::builder().build().require(&two_factors).unwrap_err();
    /// assert_eq!(rejection.acr_values().collect::<Vec<_>>(), ["mfa"]);
    /// ```
    pub fn acr_values(&self) -> impl Iterator<Item = &str> {
        let values = self.step_up.iter().flat_map(|needed| &needed.acr_values);
        values.flatten().map(|value| &**value)
    }

    /// The greatest time since the user authenticated
    /// ([RFC 9470 §3](https://www.rfc-editor.org/rfc/rfc9470#section-3)).
    ///
    /// `None` unless the kind is [`RejectionKind::InsufficientAuthentication`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let recent = Requirement::max_age(Duration::from_secs(300));
    /// let rejection = AuthContext::builder().build().require(&recent).unwrap_err();
    /// assert_eq!(rejection.max_age(), Some(Duration::from_secs(300)));
    /// ```
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        self.step_up.as_ref()?.max_age
    }

    /// The header fields of the response: challenge, `Retry-After` and `Cache-Control`.
    ///
    /// For a response that is built without [`DefaultRejectionResponse`][default], which sends
    /// them too. The fields of a gRPC response are not among them.
    ///
    /// ```
    /// use tower_oauth::Rejection;
    ///
    /// let rejection = Rejection::insufficient_scope(["orders.write"]);
    /// let mut response = http::Response::new("{}");
    /// response.headers_mut().extend(rejection.headers().clone());
    /// assert_eq!(response.headers()["cache-control"], "no-store");
    /// assert!(response.headers().contains_key("www-authenticate"));
    /// ```
    ///
    /// [default]: super::DefaultRejectionResponse
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The value of `WWW-Authenticate`.
    ///
    /// `None` for [`RejectionKind::Forbidden`], and with status 500 and 503.
    ///
    /// ```
    /// use tower_oauth::Rejection;
    ///
    /// let rejection = Rejection::insufficient_scope(["orders.write"]);
    /// let challenge = rejection.www_authenticate().expect("a 403");
    /// assert!(challenge.to_str()?.contains(r#"scope="orders.write""#));
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    #[must_use]
    pub fn www_authenticate(&self) -> Option<&HeaderValue> {
        self.headers.get(header::WWW_AUTHENTICATE)
    }

    /// The value of `Retry-After`; only with status 503.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    ///
    /// let (orders, _refresher) = ResourceServer::builder(issuer.issuer(), "orders").build()?;
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// let rejection = orders.validate(&token).await.unwrap_err(); // no keys yet
    /// assert_eq!(rejection.status(), 503);
    /// assert_eq!(rejection.retry_after(), Some(Duration::from_secs(5)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.kind.retry_after()
    }

    /// Whether the request was a gRPC call: `POST` over HTTP/2 with `content-type:
    /// application/grpc`.
    ///
    /// `false` for a rejection that a handler or an extractor makes: it does not look at the
    /// request.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use http::{Request, Version};
    /// use tower_oauth::ResourceServer;
    ///
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
    /// let call = Request::post("/demo.Greeter/Hello").version(Version::HTTP_2);
    /// let (head, _body) = call.header("content-type", "application/grpc").body(())?.into_parts();
    /// assert!(orders.authenticate(&head).await.unwrap_err().is_grpc());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.grpc
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request rejected: {}", self.kind)
    }
}

impl std::error::Error for Rejection {}
