//! One token request: its form, its headers, and the secrets in them. Does no I/O.
//!
//! [RFC 6749 §3.2](https://www.rfc-editor.org/rfc/rfc6749#section-3.2).

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;

use crate::error::{ConfigError, ConfigErrorKind, Error};
use crate::oauth::{Endpoint, Issuer};
use crate::redact::Secrets;

/// Words of a header and values of extension parameters with at least this many bytes are treated
/// as secrets.
pub(super) const MIN_SECRET_LENGTH: usize = 8;

/// A token request that is being written
/// ([RFC 6749 §3.2](https://www.rfc-editor.org/rfc/rfc6749#section-3.2)).
///
/// A [`Grant`](super::Grant) and a [`ClientAuthentication`](super::ClientAuthentication) add
/// parameters and headers. Each attempt is a new request, because an assertion may be used only
/// once.
///
/// An error of the token request quotes the error response of the server. Secrets of the request are
/// redacted there: those of [`append_secret`](Self::append_secret),
/// [`insert_header`](Self::insert_header) and [`add_secret`](Self::add_secret). `Debug` shows the
/// names of parameters and headers, and no values.
///
/// [`ClientAuthentication`](super::ClientAuthentication#examples) has an example.
pub struct TokenRequest {
    endpoint: Endpoint,
    issuer: Option<Issuer>,
    parameters: Vec<(String, SecretString)>,
    headers: HeaderMap,
    secrets: Vec<SecretString>,
}

impl TokenRequest {
    pub(super) fn new(endpoint: Endpoint, issuer: Option<Issuer>) -> Self {
        Self {
            endpoint,
            issuer,
            parameters: Vec::new(),
            headers: HeaderMap::new(),
            secrets: Vec::new(),
        }
    }

    /// The URL that the request is sent to.
    ///
    /// With [`TokenManager::for_issuer`](super::TokenManager::for_issuer) the metadata of the issuer
    /// named it, so it may change from one request to the next.
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

    /// Sets a header and marks it sensitive. Errors redact the credentials in it.
    ///
    /// Credentials are the words, values of parameters and quoted strings of at least 8 bytes, and
    /// the last word, which is the token of an `Authorization` field. `Accept` and `Content-Type`
    /// cannot be changed.
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

    /// The secrets that no error may quote.
    pub(super) fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        for secret in &self.secrets {
            secrets.add(secret.expose_secret());
        }
        secrets
    }

    /// The HTTP request.
    pub(super) fn to_http(&self) -> Result<Request<Bytes>, Error> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            let is_repeated = self.parameters.iter().skip(index + 1).any(|p| p.0 == *name);
            // RFC 6749 §3.2: a parameter must not be included more than once.
            if is_repeated && name != "resource" {
                let error = ConfigError::new("parameter", name, "must not be repeated");
                return Err(error.with_kind(ConfigErrorKind::Conflict).into());
            }
            form.append_pair(name, value.expose_secret());
        }
        let mut request = Request::new(Bytes::from(form.finish()));
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
