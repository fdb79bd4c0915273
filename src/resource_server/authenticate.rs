//! Authentication of a request or of a token alone: the fast path, which does not wait, and the
//! slow path, which awaits and tries again.

use http::HeaderMap;
use http::request::Parts;

use super::context::CachedToken;
use super::credentials::{Credentials, Head};
use super::in_flight::InFlight;
use super::rejection::{Details, RejectionReason};
use super::responses::Responses;
use super::validate::{Attempt, Pending, Validation};
use super::{AuthContext, Rejection, RejectionKind, ResourceServer};
use crate::clock::UnixTime;

/// The outcome for credentials that are not rejected.
pub(super) enum Authentication {
    /// The token is valid, and this request may use it.
    Complete(Authenticated),
    /// Await this, then authenticate again.
    Pending(Pending),
}

/// The result of an authentication.
pub(super) struct Authenticated {
    pub(super) context: AuthContext,
    /// Header fields for the response, with any status.
    pub(super) response_headers: Option<Box<HeaderMap>>,
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
    pub async fn authenticate(&self, head: &Parts) -> Result<AuthContext, Rejection> {
        let head = Head::from_parts(head);
        self.authenticate_and_count(Credentials::from_head(head), Some(head))
            .await
    }

    /// Validates an access token that came without an HTTP request.
    ///
    /// For the header of a message, or the first frame of a WebSocket. The rules are those of
    /// [`authenticate`](Self::authenticate); `token` is the token alone, without `Bearer`.
    /// An empty token is [`RejectionKind::MissingToken`].
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
    /// let rejection = orders.validate("").await.unwrap_err(); // such as a message without a token
    /// assert_eq!(rejection.kind(), RejectionKind::MissingToken);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn validate(&self, token: &str) -> Result<AuthContext, Rejection> {
        self.authenticate_and_count(Credentials::from_token(token), None)
            .await
    }

    #[inline]
    async fn authenticate_and_count(
        &self,
        credentials: Result<Credentials<'_>, RejectionKind>,
        head: Option<Head<'_>>,
    ) -> Result<AuthContext, Rejection> {
        let mut in_flight = InFlight::new(&self.0.responses);
        let authentication = credentials
            .map_err(RejectionReason::from)
            .map(Attempt::new)
            .and_then(|mut attempt| Ok((self.try_authenticate_token(&mut attempt)?, attempt)));
        let outcome = match authentication {
            Ok((Authentication::Complete(authenticated), _)) => Ok(authenticated),
            // Boxed to keep the future small: most requests do not wait.
            Ok((Authentication::Pending(pending), attempt)) => {
                Box::pin(self.wait_and_retry(attempt, pending)).await
            }
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok(Authenticated { context, .. }) => {
                in_flight.passed();
                Ok(context)
            }
            Err(mut reason) => {
                if head.is_none() {
                    reason.kind = kind_for_bare_token(reason.kind);
                }
                let rejection = self.reject(reason, head, &self.0.responses);
                in_flight.rejected(&rejection);
                Err(rejection)
            }
        }
    }

    /// The outcome of [`validate`](Self::validate) now, without its effects: nothing is awaited,
    /// fetched, cached, counted or logged.
    pub(super) fn validate_dry(&self, token: &str, now: UnixTime) -> Result<(), RejectionKind> {
        let outcome = Credentials::from_token(token)
            .map_err(RejectionReason::from)
            .and_then(|credentials| {
                let mut attempt = Attempt::dry_run(credentials);
                self.check_length(credentials.token())?;
                match self.validate_token(&mut attempt, now)? {
                    Validation::Valid(validated) => self.check_request(validated, &mut attempt),
                    Validation::Pending(_) => Err(RejectionKind::KeysUnavailable.into()),
                }
            });
        match outcome {
            Ok(_) => Ok(()),
            Err(reason) => Err(kind_for_bare_token(reason.kind)),
        }
    }

    /// Authenticates a request without waiting.
    pub(super) fn try_authenticate(
        &self,
        head: Head<'_>,
    ) -> Result<Authentication, RejectionReason> {
        self.try_authenticate_token(&mut Attempt::new(Credentials::from_head(head)?))
    }

    /// Waits for what [`try_authenticate`](Self::try_authenticate) needs, until there is an
    /// outcome. Returns the head of the request with it.
    pub(super) async fn finish_authentication(
        self,
        head: Parts,
        pending: Pending,
    ) -> (Parts, Result<Authenticated, RejectionReason>) {
        let outcome = match Credentials::from_head(Head::from_parts(&head)) {
            Ok(credentials) => {
                self.wait_and_retry(Attempt::new(credentials), pending)
                    .await
            }
            Err(kind) => Err(kind.into()),
        };
        (head, outcome)
    }

    /// Authenticates by the cache or by validation, then by the checks of each request.
    fn try_authenticate_token(
        &self,
        attempt: &mut Attempt<'_>,
    ) -> Result<Authentication, RejectionReason> {
        let token = attempt.credentials.token();
        self.check_length(token)?;
        let now = self.0.clock.now();
        let cached = self.cached(token, now);
        // A request that has waited is counted already.
        if attempt.is_first() {
            let counter = match cached {
                Some(_) => &self.0.cache_hits,
                None => &self.0.cache_misses,
            };
            counter.increment();
        }
        let validated = match cached {
            Some(cached) => cached,
            None => match self.validate_token(attempt, now)? {
                Validation::Valid(validated) => validated,
                Validation::Pending(pending) => return Ok(Authentication::Pending(pending)),
            },
        };
        self.check_request(validated, attempt)
    }

    #[inline]
    fn check_length(&self, token: &[u8]) -> Result<(), RejectionKind> {
        if token.len() > self.0.issuers.max_token_len() {
            return Err(RejectionKind::TokenTooLong);
        }
        Ok(())
    }

    /// Checks what depends on the request and not on the token alone, after a cache hit as well.
    ///
    /// The result has the header fields that the response needs because of it: none so far.
    #[inline]
    fn check_request(
        &self,
        token: CachedToken,
        attempt: &mut Attempt<'_>,
    ) -> Result<Authentication, RejectionReason> {
        if token.is_bound() && !token.is_proved_by(attempt.proved_keys()) {
            return Err(RejectionKind::MissingProofOfPossession.into());
        }
        Ok(Authentication::Complete(Authenticated {
            context: token.into(),
            response_headers: None,
        }))
    }

    /// Waits and tries again until there is an outcome.
    async fn wait_and_retry(
        &self,
        mut attempt: Attempt<'_>,
        mut pending: Pending,
    ) -> Result<Authenticated, RejectionReason> {
        loop {
            attempt.awaited.add(pending.await);
            match self.try_authenticate_token(&mut attempt)? {
                Authentication::Complete(authenticated) => return Ok(authenticated),
                Authentication::Pending(next) => pending = next,
            }
        }
    }

    /// Looks up the token in the cache, and removes it if it is no longer valid.
    fn cached(&self, token: &[u8], now: UnixTime) -> Option<CachedToken> {
        let cached = self.0.cache.get(token, now)?;
        let issuer = self.0.issuers.get(cached.issuer_index())?;
        if issuer.validator.is_still_valid(&cached, now) {
            return Some(cached);
        }
        self.0.cache.remove(token);
        None
    }

    /// Rejects a request, or without a `head` a bare token.
    pub(super) fn reject(
        &self,
        reason: RejectionReason,
        head: Option<Head<'_>>,
        responses: &Responses,
    ) -> Rejection {
        let state = reason.issuer_index().and_then(|at| self.0.issuers.get(at));
        let mut details = Details {
            issuer: state.map(|state| state.policy.issuer.clone()),
            mismatch: reason.mismatch,
            ..Details::default()
        };
        if let (RejectionKind::MissingToken, Some(head)) = (reason.kind, head) {
            details.found = Some(head.instead_of_a_token());
            details.has_other_event = head.has_access_token();
            if details.has_other_event {
                self.warn_of_a_token_in_the_query();
            }
        }
        let is_grpc = head.is_some_and(Head::is_grpc);
        responses.reject(reason.kind, reason.required_scopes, details, is_grpc)
    }

    /// Such a token ends up in the logs of every server on the way (RFC 9700 §4.3.2).
    #[cfg_attr(
        not(feature = "tracing"),
        expect(unused_variables, reason = "nothing is logged")
    )]
    fn warn_of_a_token_in_the_query(&self) {
        let now = self.0.clock.now();
        if let Some(suppressed) = self.0.token_in_query.permit(now) {
            crate::trace::warn!(
                target: "tower_oauth::resource_server",
                "a request has its access token in the query, where it is ignored{suppressed} \
                 (logged once a minute)"
            );
        }
    }
}

/// The kind for a token without a request: there is no field that could be malformed, only the
/// token.
fn kind_for_bare_token(kind: RejectionKind) -> RejectionKind {
    match kind {
        RejectionKind::InvalidRequest => RejectionKind::Malformed,
        other => other,
    }
}
