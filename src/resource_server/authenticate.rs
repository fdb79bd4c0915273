//! Authentication of a request or of a bare token, without waiting; and the waiting.

use http::{Request, Response, header};

use super::context::CachedToken;
use super::credentials::{Credentials, Head};
use super::rejection::Refusal;
use super::validate::{Pending, Validation};
use super::verification_limit::Permit;
use super::{AuthContext, Rejection, RejectionKind, RejectionResponse, ResourceServer};
use crate::clock::UnixTime;

/// The outcome for credentials that are not refused.
pub(super) enum Authentication {
    /// The token is valid, and its use in this request is permitted.
    Complete(AuthContext),
    /// Await this, then authenticate again.
    Pending(Pending),
}

/// What a request has awaited so far.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub(super) awaited_keys: bool,
    pub(super) permit: Option<Permit>,
}

impl ResourceServer {
    /// Authenticates a request by its head.
    ///
    /// This is what [`ResourceServerLayer`](super::ResourceServerLayer) does, for programs that are
    /// no tower services: they use the [`AuthContext`], or build a response from the [`Rejection`].
    /// It waits for newer keys or for a free verification only where the layer does.
    ///
    /// The `Rejection` of a gRPC call has [`is_grpc`](Rejection::is_grpc), and
    /// [`DefaultRejectionResponse`](super::DefaultRejectionResponse) has status 200 then. A proxy
    /// that asks whether to forward a request reads 200 as permission: use
    /// [`Rejection::status`] instead.
    ///
    /// # Errors
    ///
    /// If the request is rejected.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, StatusCode};
    /// use tower_oauth::ResourceServer;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
    /// let (head, _body) = Request::get("/orders").body(())?.into_parts();
    /// let rejection = orders.authenticate(&head).await.unwrap_err();
    /// assert_eq!(rejection.status(), StatusCode::UNAUTHORIZED);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn authenticate(
        &self,
        head: &http::request::Parts,
    ) -> Result<AuthContext, Rejection> {
        let head = Head::of_parts(head);
        let outcome = match Credentials::from_head(head) {
            Ok(credentials) => self.validate_credentials(&credentials).await,
            Err(kind) => Err(kind.into()),
        };
        outcome.map_err(|refusal| self.reject(refusal, Some(head)))
    }

    /// Validates an access token that came without an HTTP request.
    ///
    /// For the header of a message, or the first frame of a WebSocket. The rules are those of
    /// [`authenticate`](Self::authenticate); `token` is the token alone, without `Bearer`.
    ///
    /// # Errors
    ///
    /// If the token is rejected.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
    /// let rejection = orders.validate("not.a.token").await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::Malformed);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn validate(&self, token: &str) -> Result<AuthContext, Rejection> {
        let outcome = match Credentials::from_token(token) {
            Ok(credentials) => self.validate_credentials(&credentials).await,
            Err(kind) => Err(kind.into()),
        };
        outcome.map_err(|refusal| self.reject(refusal, None))
    }

    async fn validate_credentials(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<AuthContext, Refusal> {
        match self.try_validate(credentials, &mut Attempt::default())? {
            Authentication::Complete(context) => Ok(context),
            Authentication::Pending(pending) => self.finish(credentials, pending).await,
        }
    }

    /// Authenticates a request without waiting.
    pub(super) fn try_authenticate(
        &self,
        head: Head<'_>,
        attempt: &mut Attempt,
    ) -> Result<Authentication, Refusal> {
        self.try_validate(&Credentials::from_head(head)?, attempt)
    }

    fn try_validate(
        &self,
        credentials: &Credentials<'_>,
        attempt: &mut Attempt,
    ) -> Result<Authentication, Refusal> {
        let token = credentials.token();
        if token.len() > self.0.max_token_len {
            return Err(RejectionKind::TokenTooLong.into());
        }
        let now = self.0.clock.now();
        let validated = match self.cached(token, now) {
            Some(cached) => cached,
            None => match self.validate_token(token, now, attempt)? {
                Validation::Valid(validated) => validated,
                Validation::Pending(pending) => return Ok(Authentication::Pending(pending)),
            },
        };
        Ok(Authentication::Complete(validated.into()))
    }

    /// Waits, and authenticates again, until there is an outcome.
    async fn finish(
        &self,
        credentials: &Credentials<'_>,
        mut pending: Pending,
    ) -> Result<AuthContext, Refusal> {
        let mut attempt = Attempt::default();
        loop {
            match pending {
                Pending::Keys(wait) => {
                    wait.await;
                    attempt.awaited_keys = true;
                }
                Pending::Permit(permit) => attempt.permit = Some(permit.await),
            }
            match self.try_validate(credentials, &mut attempt)? {
                Authentication::Complete(context) => return Ok(context),
                Authentication::Pending(next) => pending = next,
            }
        }
    }

    /// Looks up the token in the cache, and removes it if it is no longer valid.
    fn cached(&self, token: &[u8], now: UnixTime) -> Option<CachedToken> {
        let cached = self.0.cache.get(token, now)?;
        let issuer = self.0.issuers.get(cached.issuer_index())?;
        if issuer.validator.is_still_valid(&cached, now) {
            self.0.cache_hits.increment();
            return Some(cached);
        }
        self.0.cache.remove(token);
        None
    }

    /// Rejects a request, or without a `head` a bare token.
    pub(super) fn reject(&self, refusal: Refusal, head: Option<Head<'_>>) -> Rejection {
        let kind = refusal.kind;
        crate::trace::debug!(
            target: "tower_oauth::resource_server",
            reason = kind.as_str(),
            "request rejected"
        );
        if kind == RejectionKind::MissingToken
            && head.is_some_and(Head::has_access_token)
            // Such a token ends up in the logs of every server on the way (RFC 9700 §4.3.2).
            && self.0.token_in_query.allows(self.0.clock.now())
        {
            crate::trace::warn!(
                target: "tower_oauth::resource_server",
                "a request has its access token in the query, where it is ignored \
                 (logged once a minute)"
            );
        }
        let grpc = head.is_some_and(Head::is_grpc);
        match &refusal.required_scopes {
            Some(scopes) => self.0.responses.insufficient_scope(scopes, grpc),
            None => self.0.responses.reject(kind, grpc),
        }
    }
}

/// Request extension that marks an anonymous request.
///
/// Holds the rejection for a route that requires a token.
#[derive(Clone, Debug)]
pub(super) struct Anonymous(pub(super) Rejection);

/// Keeps the credentials out of the `Debug` output of the request.
///
/// One field is enough: a request with several is rejected before.
pub(super) fn mark_sensitive<B>(request: &mut Request<B>) {
    if let Some(credentials) = request.headers_mut().get_mut(header::AUTHORIZATION) {
        credentials.set_sensitive(true);
    }
}

/// Builds the response to a rejected request, with the rejection as an extension.
pub(super) fn rejection_response<B, R: RejectionResponse<B>>(
    on_rejection: &R,
    rejection: Rejection,
) -> Response<B> {
    let mut response = on_rejection.response(&rejection);
    response.extensions_mut().insert(rejection);
    response
}
