//! One token request: its form, its headers, and the secrets in them. Does no I/O.
//!
//! [RFC 6749 §3.2](https://www.rfc-editor.org/rfc/rfc6749#section-3.2).

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::token_exchange::ExpectedTokenType;
use crate::clock::UnixTime;
use crate::error::{ConfigError, ConfigErrorKind, Error, OAuthError};
use crate::oauth::{Endpoint, Issuer};
use crate::redact::Secrets;

/// Words of a header and values of extension parameters with at least this many bytes are treated
/// as secrets.
pub(super) const MIN_SECRET_LENGTH: usize = 8;

/// Hydra's code for an assertion that was sent before.
const REUSED: &str = "jti_known";

/// A token request that is being written
/// ([RFC 6749 §3.2](https://www.rfc-editor.org/rfc/rfc6749#section-3.2)).
///
/// A [`Grant`](super::Grant) and a [`ClientAuthentication`](super::ClientAuthentication) add
/// parameters and headers. Each attempt is a new request, because an assertion may be used only
/// once.
///
/// An error of the token request quotes the error response of the server. Secrets of the request
/// are redacted there: those of [`append_secret`](Self::append_secret),
/// [`insert_header`](Self::insert_header) and [`add_secret`](Self::add_secret). `Debug` shows the
/// names of parameters and headers, and no values.
///
/// [`ClientAuthentication`](super::ClientAuthentication#examples) has an example.
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
/// use secrecy::{ExposeSecret as _, SecretString};
/// use tower_oauth::client::{BoxFuture, ClientAuthentication, TokenRequest};
/// use tower_oauth::{Error, Issuer, TokenManager};
///
/// /// An assertion (RFC 7523 §2.2) that a key service signs.
/// #[derive(Debug)]
/// struct SignedAssertion;
///
/// impl ClientAuthentication for SignedAssertion {
///     fn authenticate<'a>(
///         &'a self,
///         request: &'a mut TokenRequest,
///     ) -> BoxFuture<'a, Result<(), Error>> {
///         Box::pin(async move {
///             let audience = request.issuer().map_or(request.endpoint().as_str(), Issuer::as_str);
///             let assertion = SecretString::from(format!("signed-for:{audience}"));
///             let jwt_bearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
///             request.append("client_assertion_type", jwt_bearer);
///             request.append_secret("client_assertion", &assertion);
///             assert!(!format!("{request:?}").contains(assertion.expose_secret()));
///             Ok(())
///         })
///     }
/// }
///
/// let tokens = TokenManager::builder(endpoint, SignedAssertion)
///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
///     .start()?;
/// let form = tokens.access_token().await?;
/// assert!(form.expose_secret().contains("&client_assertion=signed-for%3Ahttps"));
/// # Ok(())
/// # }
/// ```
pub struct TokenRequest {
    endpoint: Endpoint,
    issuer: Option<Issuer>,
    now: UnixTime,
    parameters: Vec<(String, SecretString)>,
    headers: HeaderMap,
    secrets: Vec<SecretString>,
    /// What was read for this request, and may have been replaced since: id and secret, the
    /// public key of a signing key, assertions.
    read_credentials: Vec<SecretString>,
    /// The assertions that were read for this request.
    read_assertions: Vec<ReadAssertion>,
    /// What a refusal of a part may be due to.
    hints: Vec<(RequestPart, Cow<'static, str>)>,
    /// The `issued_token_type` that the response must have, if it is a token exchange.
    expected_type: Option<ExpectedTokenType>,
}

/// An assertion that was read for a request, and may be sent in others too.
pub(super) struct ReadAssertion {
    pub(super) assertion: SecretString,
    part: RequestPart,
    /// How errors call it.
    description: String,
}

/// A part of a token request that the server may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPart {
    ClientAuthentication,
    Grant,
}

impl TokenRequest {
    pub(super) fn new(endpoint: Endpoint, issuer: Option<Issuer>, now: UnixTime) -> Self {
        Self {
            endpoint,
            issuer,
            now,
            parameters: Vec::new(),
            headers: HeaderMap::new(),
            secrets: Vec::new(),
            read_credentials: Vec::new(),
            read_assertions: Vec::new(),
            hints: Vec::new(),
            expected_type: None,
        }
    }

    /// The URL that the request is sent to.
    ///
    /// With [`TokenManager::for_issuer`](super::TokenManager::for_issuer) the metadata of the
    /// issuer named it, so it may change from one request to the next.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The configured issuer; `None` if only the token endpoint is configured.
    ///
    /// The audience of an assertion, if there is one: an audience from the metadata would let a
    /// malicious server obtain assertions for another server.
    #[must_use]
    pub fn issuer(&self) -> Option<&Issuer> {
        self.issuer.as_ref()
    }

    /// The time at which the request was begun, by the
    /// [clock](super::TokenManagerBuilder::clock) of the manager.
    ///
    /// The `iat` of an assertion that is signed for the request.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.now
    }

    /// Appends a parameter whose value is no secret: an error may quote it.
    ///
    /// Only `resource` may be repeated
    /// ([RFC 8707 §2](https://www.rfc-editor.org/rfc/rfc8707#section-2)). Repetition of another
    /// parameter is an error of the request, which is not sent.
    pub fn append(&mut self, name: &str, value: &str) {
        self.parameters.push((name.to_owned(), value.into()));
    }

    /// Appends a parameter whose value no error quotes, such as an assertion.
    pub fn append_secret(&mut self, name: &str, value: &SecretString) {
        self.add_secret(value.expose_secret());
        self.parameters.push((name.to_owned(), value.clone()));
    }

    /// Removes a parameter, and returns its value.
    pub(super) fn remove_parameter(&mut self, name: &str) -> Option<SecretString> {
        let index = self
            .parameters
            .iter()
            .position(|(other, _)| other == name)?;
        Some(self.parameters.remove(index).1)
    }

    /// Sets a header and marks it sensitive. Errors redact the credentials in it.
    ///
    /// Credentials are the words, values of parameters and quoted strings of at least 8 bytes, and
    /// the last word, which is the token of an `Authorization` field. `Accept` and `Content-Type`
    /// cannot be changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use http_body_util::Full;
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<Full<bytes::Bytes>>| {
    /// #         let key = request.headers()["x-api-key"].to_str()?;
    /// #         let body = serde_json::json!({ "access_token": key, "token_type": "Bearer" });
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// use http::{HeaderName, HeaderValue};
    /// use tower_oauth::client::{BoxFuture, ClientAuthentication, TokenRequest};
    /// use tower_oauth::{Error, TokenManager};
    ///
    /// /// The key of a gateway in front of the token endpoint.
    /// #[derive(Debug)]
    /// struct GatewayKey;
    ///
    /// impl ClientAuthentication for GatewayKey {
    ///     fn authenticate<'a>(
    ///         &'a self,
    ///         request: &'a mut TokenRequest,
    ///     ) -> BoxFuture<'a, Result<(), Error>> {
    ///         let name = HeaderName::from_static("x-api-key");
    ///         request.insert_header(name, HeaderValue::from_static("a-gateway-key"));
    ///         Box::pin(async { Ok(()) })
    ///     }
    /// }
    ///
    /// let tokens = TokenManager::builder(endpoint, GatewayKey)
    ///     .transport(echo) // a token endpoint whose token is the key that it receives
    ///     .start()?;
    /// assert_eq!(tokens.access_token().await?.expose_secret(), "a-gateway-key");
    /// # Ok(())
    /// # }
    /// ```
    pub fn insert_header(&mut self, name: HeaderName, mut value: HeaderValue) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let words = text.split([' ', '\t', ',', ';', '"']);
        let words = words.flat_map(|word| {
            let value = word.split_once('=').map(|(_, value)| value);
            [Some(word), value].into_iter().flatten()
        });
        // A server may quote base64 without the padding.
        let trim = |word: &'_ str| word.trim_end_matches('=').to_owned();
        let words = words.map(trim);
        let words = words.filter(|word| word.len() >= MIN_SECRET_LENGTH);
        let last = text.rsplit([' ', '\t']).take(1).map(trim);
        self.secrets
            .extend(words.chain(last).map(SecretString::from));
        value.set_sensitive(true);
        self.headers.insert(name, value);
    }

    /// Adds a secret that no error quotes, in any usual encoding.
    ///
    /// For a secret that is sent in another form, such as the password of Basic authentication.
    pub fn add_secret(&mut self, secret: &str) {
        self.secrets.push(secret.into());
    }

    /// Records credentials that were read for this request, and may have changed since.
    pub(super) fn record_credentials(&mut self, id: &str, secret: &SecretString) {
        let pair = format!("{id}\n{}", secret.expose_secret());
        self.read_credentials.push(pair.into());
    }

    /// Records an assertion that was read for this request, and may have been replaced since.
    ///
    /// `description` is what errors call it.
    pub(super) fn record_assertion(
        &mut self,
        assertion: &SecretString,
        part: RequestPart,
        description: String,
    ) {
        self.read_credentials.push(assertion.clone());
        self.read_assertions.push(ReadAssertion {
            assertion: assertion.clone(),
            part,
            description,
        });
    }

    pub(super) fn has_read_credentials(&self) -> bool {
        !self.read_credentials.is_empty()
    }

    /// Whether the same credentials were read for both requests.
    pub(super) fn has_credentials_of(&self, other: &Self) -> bool {
        let [one, other] = [self, other].map(|request| {
            let credentials = request.read_credentials.iter();
            credentials.map(ExposeSecret::expose_secret)
        });
        one.eq(other)
    }

    /// The assertions that were read for this request.
    pub(super) fn read_assertions(&self) -> impl Iterator<Item = &SecretString> {
        self.read_assertions.iter().map(|read| &read.assertion)
    }

    /// Whether the server does not accept what was read for this request.
    pub(super) fn is_refusal_of_credentials(&self, error: &Error) -> bool {
        refuses_client(error) || self.refused_assertion(error).is_some()
    }

    /// The assertion that was read for this request, and that the server does not accept.
    pub(super) fn refused_assertion(&self, error: &Error) -> Option<&ReadAssertion> {
        let mut assertions = self.read_assertions.iter();
        assertions.find(|read| read.part.is_refused_by(error))
    }

    /// Adds a possible cause of a refusal of this part.
    pub(super) fn add_refusal_hint(
        &mut self,
        part: RequestPart,
        hint: impl Into<Cow<'static, str>>,
    ) {
        self.hints.push((part, hint.into()));
    }

    /// Sets the token type that the response must have: the request is a token exchange
    /// ([RFC 8693 §2.1](https://www.rfc-editor.org/rfc/rfc8693#section-2.1)).
    pub(super) fn expect_token_type(&mut self, expected_type: ExpectedTokenType) {
        self.expected_type = Some(expected_type);
    }

    pub(super) fn expected_type(&self) -> Option<&ExpectedTokenType> {
        self.expected_type.as_ref()
    }

    /// Adds what is known about an error of this request.
    pub(super) fn annotate(&self, error: Error) -> Error {
        let hints = self.hints.iter();
        let is_reused = error.oauth_error().map(OAuthError::code) == Some(REUSED);
        let was_read = |part| self.read_assertions.iter().any(|read| read.part == part);
        let hints = hints.filter(|(part, _)| match is_reused {
            true => was_read(*part),
            false => part.may_be_refused_by(&error),
        });
        let hints: Vec<_> = hints.map(|(_, hint)| hint).collect();
        let has_resource = || self.parameters.iter().any(|(name, _)| name == "resource");
        let error = match self.expected_type.is_some() {
            true => explain_exchange(error),
            false if hints.is_empty() && has_resource() => explain_resource(error),
            false => error,
        };
        hints
            .into_iter()
            .fold(error, |error, hint| error.with_detail(hint.as_ref()))
    }

    /// The secrets that no error may quote.
    pub(super) fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        for secret in &self.secrets {
            secrets.add(secret.expose_secret());
        }
        secrets
    }

    /// A length that the form does not exceed: each byte may be percent-encoded.
    fn max_form_length(&self) -> usize {
        let lengths = self.parameters.iter().map(|(name, value)| {
            let plain = name.len().saturating_add(value.expose_secret().len());
            plain.saturating_mul(3).saturating_add("&=".len())
        });
        lengths.fold(0, usize::saturating_add)
    }

    /// The HTTP request. The memory of its body is zeroized when the last clone of it is dropped.
    pub(super) fn to_http(&self) -> Result<Request<Bytes>, Error> {
        for (index, (name, _)) in self.parameters.iter().enumerate() {
            let is_repeated = self.parameters.iter().skip(index + 1).any(|p| p.0 == *name);
            // RFC 6749 §3.2: a parameter must not be included more than once.
            if is_repeated && name != "resource" {
                let error = ConfigError::new("parameter", name, "must not be repeated");
                return Err(error.with_kind(ConfigErrorKind::Conflict).into());
            }
        }
        // Allocated at once, because a growing buffer leaves copies behind.
        let form = String::with_capacity(self.max_form_length());
        let mut form = form_urlencoded::Serializer::new(form);
        for (name, value) in &self.parameters {
            form.append_pair(name, value.expose_secret());
        }
        let form = Zeroizing::new(form.finish().into_bytes());
        let mut request = Request::new(Bytes::from_owner(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.to_uri()?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        Ok(request)
    }
}

/// Says what to do if the server refuses the parameter `resource`
/// ([RFC 8707 §2](https://www.rfc-editor.org/rfc/rfc8707#section-2)), or may have failed at it.
fn explain_resource(error: Error) -> Error {
    const WAYS_OUT: &str = "register the resource at the server, or leave the parameter out \
                            (`omit_resource()`, or no `resource(..)`)";
    match error.oauth_error().map(OAuthError::code) {
        Some("invalid_target") => error.with_detail(format!(
            "the server issues no token for this `resource`: {WAYS_OUT}"
        )),
        Some("invalid_request") => error.with_detail(format!(
            "the server may not support the parameter `resource`: {WAYS_OUT}"
        )),
        _ if error.status() == Some(StatusCode::INTERNAL_SERVER_ERROR) => error.with_detail(
            format!("the server may fail at the parameter `resource`: {WAYS_OUT}"),
        ),
        _ => error,
    }
}

/// Says what to do if the server refuses a token exchange
/// ([RFC 8693 §2.2.2](https://www.rfc-editor.org/rfc/rfc8693#section-2.2.2)).
fn explain_exchange(error: Error) -> Error {
    let hint = match error.oauth_error().map(OAuthError::code) {
        Some("invalid_target") => {
            "the server exchanges no token for this `audience`, `resource` or `scope`: allow it at \
             the server, or correct it"
        }
        Some("invalid_request" | "invalid_grant") => {
            "the server may not accept the subject token: it must be valid there, and for most \
             servers this client must be in its `aud`; or it does not know a parameter, such as \
             `audience` or `requested_token_type`"
        }
        // Keycloak's code.
        Some("access_denied") => {
            "the server may require that this client is in the `aud` of the subject token"
        }
        Some("invalid_client") => {
            "if other token requests of this client succeed, the server may not know the `audience`"
        }
        Some("unauthorized_client" | "unsupported_grant_type") => {
            "allow token exchange for this client at the server"
        }
        _ => return error,
    };
    error.with_detail(hint)
}

impl ReadAssertion {
    /// Adds to a refusal that the assertion was sent before.
    pub(super) fn explain_reuse(&self, error: Error) -> Error {
        error.with_detail(format!(
            "the server may take each assertion once, and {} has not changed since: if its `aud` is \
             right, allow its use for several token requests at the server",
            self.description
        ))
    }
}

impl RequestPart {
    /// Whether an error may be due to this part: its code, or none with a status that some servers
    /// send instead.
    fn may_be_refused_by(self, error: &Error) -> bool {
        let code = error.oauth_error().map(OAuthError::code);
        match (code, self) {
            (Some("invalid_client"), Self::ClientAuthentication)
            | (Some("invalid_grant"), Self::Grant) => true,
            (Some(_), _) => false,
            (None, _) => matches!(
                error.status(),
                Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            ),
        }
    }

    fn is_refused_by(self, error: &Error) -> bool {
        let code = error.oauth_error().map(OAuthError::code);
        code == Some(REUSED)
            || match self {
                Self::ClientAuthentication => refuses_client(error),
                // RFC 7523 §3.1
                Self::Grant => code == Some("invalid_grant"),
            }
    }
}

/// Whether the server does not know the client or its credentials (RFC 6749 §5.2).
fn refuses_client(error: &Error) -> bool {
    let code = error.oauth_error().map(OAuthError::code);
    error.status() == Some(StatusCode::UNAUTHORIZED) || code == Some("invalid_client")
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<&str> = self.parameters.iter().map(|p| p.0.as_str()).collect();
        let headers: Vec<&HeaderName> = self.headers.keys().collect();
        f.debug_struct("TokenRequest")
            .field("endpoint", &self.endpoint)
            .field("issuer", &self.issuer)
            .field("parameters", &parameters)
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}
