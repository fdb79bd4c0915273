//! The access token that callers get.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};

use super::token_response::TokenResponse;
use super::unauthorized::{Denial, Unauthorized};
use crate::clock::UnixTime;
use crate::oauth::Scope;

/// An access token of this client
/// ([RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1)).
///
/// Cheap to clone. `Debug` does not show the token. The token is opaque to the client: only the
/// resource server interprets it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use tower_oauth::TokenManager;
///
/// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
/// # let tokens = tokens.transport(issuer.transport()).start()?;
/// let token = tokens.access_token().await?;
/// assert!(token.header_value().to_str()?.starts_with("Bearer "));
/// assert!(token.header_value().is_sensitive());
/// assert!(token.expires_at().is_some());
/// assert!(!format!("{token:?}").contains(token.expose_secret()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AccessToken(Arc<Inner>);

struct Inner {
    secret: SecretString,
    /// `Bearer …`, marked sensitive.
    header: HeaderValue,
    expires_at: Option<UnixTime>,
    scopes: Option<Vec<Scope>>,
}

impl AccessToken {
    /// The token of a response to a request that began at `requested_at`. Its lifetime may be an
    /// assumed one.
    pub(super) fn new(
        response: TokenResponse,
        lifetime: Option<Duration>,
        requested_at: UnixTime,
    ) -> Self {
        let expires_at = lifetime.map(|lifetime| requested_at.saturating_add(lifetime));
        let (secret, header, scopes) = response.into_parts();
        Self(Arc::new(Inner {
            secret,
            header,
            expires_at,
            scopes,
        }))
    }

    /// The token itself. It is a secret: use it only in requests to the resource server.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.0.secret.expose_secret()
    }

    /// The value of an `Authorization` field, `Bearer …`, marked sensitive
    /// ([RFC 6750 §2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1)).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use http::Request;
    /// use tower_oauth::TokenManager;
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// let token = tokens.access_token().await?;
    /// let request = Request::get("https://orders.example/");
    /// let request = request.header("authorization", token.header_value()).body(())?;
    /// assert!(!format!("{request:?}").contains(token.expose_secret()));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.0.header.clone()
    }

    /// When the token expires; `None` if it is not stored.
    ///
    /// Counted from the time of the request. A lifetime of more than a day counts as a day. If the
    /// server did not send `expires_in`, the lifetime is
    /// [assumed](super::TokenManagerBuilder::assumed_lifetime).
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
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::clock::Clock as _;
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).clock(clock.clone()).start()?;
    /// let token = tokens.access_token().await?;
    /// let hour = Duration::from_secs(3600);
    /// assert_eq!(token.expires_at(), Some(clock.now().saturating_add(hour)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixTime> {
        self.0.expires_at
    }

    /// The granted scopes, if the server sent them. It may omit them if they are the requested
    /// ones.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    ///
    /// shop.set_scopes(["orders.read"])?;
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// let token = tokens.access_token().await?;
    /// let scopes = token.scopes().unwrap_or_default();
    /// assert!(scopes.iter().any(|scope| scope == "orders.read"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn scopes(&self) -> Option<&[Scope]> {
        self.0.scopes.as_deref()
    }

    /// Whether a resource server that was sent this token rejects it with this response.
    ///
    /// For requests that are sent by hand. It is what [`BearerTokenLayer`] decides by default: a
    /// 401 with a Bearer challenge of `invalid_token`
    /// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)), or the same challenge
    /// with `grpc-status: 16` in the header section. Another token may then be accepted:
    /// [`TokenManager::invalidate_and_wait`] returns one.
    ///
    /// The origin of the response must be that of the request: another one, after a redirect, was
    /// not sent the token.
    ///
    /// [`BearerTokenLayer`]: super::BearerTokenLayer
    /// [`TokenManager::invalidate_and_wait`]: super::TokenManager::invalidate_and_wait
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use axum::http::HeaderMap;
    /// # use axum::response::IntoResponse as _;
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// # let tokens = tower_oauth::TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// # let first = tokens.access_token().await?.header_value();
    /// # let orders = axum::Router::new().route("/", axum::routing::get(async move |headers: HeaderMap| {
    /// #     if headers["authorization"] == first {
    /// #         let challenge = [("www-authenticate", r#"Bearer error="invalid_token""#)];
    /// #         return (axum::http::StatusCode::UNAUTHORIZED, challenge).into_response();
    /// #     }
    /// #     "orders".into_response()
    /// # }));
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let url = format!("http://{}/", listener.local_addr()?);
    /// # tokio::spawn(async move { axum::serve(listener, orders).await });
    /// let client = reqwest::Client::new();
    /// let send = async |token: &tower_oauth::client::AccessToken| {
    ///     client.get(&url).header("authorization", token.header_value()).send().await
    /// };
    /// // The server at `url` rejects the first token.
    /// let token = tokens.access_token().await?;
    /// let mut response = send(&token).await?;
    /// if token.is_refused_by(response.status(), response.headers()) {
    ///     if let Some(another) = tokens.invalidate_and_wait(&token).await {
    ///         response = send(&another).await?;
    ///     }
    /// }
    /// assert_eq!(response.text().await?, "orders");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_refused_by(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        Denial::of(status, headers) == Some(Denial::Unauthenticated)
            && Unauthorized::InvalidToken.matches(headers)
    }

    /// Whether both are the same token. A source may return a token more than once.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.expose_secret() == other.expose_secret()
    }
}

/// Sets the `Authorization` field, whose value is marked sensitive.
pub(super) fn authorize(headers: &mut HeaderMap, token: &AccessToken) {
    headers.insert(header::AUTHORIZATION, token.header_value());
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("expires_at", &self.0.expires_at)
            .field("scopes", &self.0.scopes)
            .finish_non_exhaustive()
    }
}
