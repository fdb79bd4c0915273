//! The id tokens of GitHub Actions, as assertions.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::assertion_file::is_compact_jws;
use super::assertion_source::AssertionSource;
use super::box_future::BoxFuture;
use super::environment;
use crate::clock::{Clock as _, SystemClock};
use crate::error::{BoxError, ConfigError, Error, ErrorKind, Operation};
use crate::oauth::Endpoint;
use crate::transport::{HttpClient, HttpSettings, Limits, Transport, default_transport};

const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

const HINT: &str = "GitHub Actions sets it for a job with the permission `id-token: write`";

/// The limits of a request for an id token.
const LIMITS: Limits = Limits {
    total: Duration::from_secs(10),
    max_body: 64 * 1024,
};

/// Requests an id token of GitHub Actions for each token request, as an assertion.
///
/// The authorization server has to trust GitHub's issuer for the repository of the job. The job
/// needs the permission `id-token: write`:
/// [GitHub's documentation](https://docs.github.com/en/actions/reference/security/oidc) has the
/// claims. `Debug` shows neither the request token nor the path of the URL.
///
/// ```
/// use tower_oauth::client::GitHubActionsAssertion;
/// # fn manager(issuer: tower_oauth::Issuer) -> Result<(), tower_oauth::ConfigError> {
/// use tower_oauth::client::AssertionAudience;
/// use tower_oauth::{ClientAssertion, TokenManager};
///
/// let client = ClientAssertion::new(GitHubActionsAssertion::from_env()?)
///     .with_client_id("orders")
///     .audience(AssertionAudience::Other("api://AzureADTokenExchange".to_owned()));
/// let tokens = TokenManager::for_issuer(issuer, client)?.start()?;
/// # Ok(())
/// # }
/// // Without the permission, or outside of GitHub Actions
/// if let Err(error) = GitHubActionsAssertion::from_env() {
///     assert!(error.to_string().contains("id-token: write"));
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct GitHubActionsAssertion {
    url: Endpoint,
    token: SecretString,
    http: HttpSettings,
    transport: Option<Arc<dyn Transport>>,
    /// Built for the first request, because the settings may change until then.
    client: OnceLock<HttpClient>,
}

/// The response to a request for an id token.
#[derive(Deserialize)]
struct IdToken {
    value: SecretString,
}

impl GitHubActionsAssertion {
    /// Reads `ACTIONS_ID_TOKEN_REQUEST_URL` and `ACTIONS_ID_TOKEN_REQUEST_TOKEN`.
    ///
    /// # Errors
    ///
    /// If one of them is not set, because the job lacks the permission `id-token: write`, or the
    /// first is not an `https` or `http` URL.
    pub fn from_env() -> Result<Self, ConfigError> {
        let url = environment::required_text(URL, HINT)?;
        let token = environment::required_text(TOKEN, HINT)?;
        Ok(Self {
            url: Endpoint::new(url).map_err(|error| error.with_setting(URL))?,
            token: token.into(),
            http: HttpSettings::default(),
            transport: None,
            client: OnceLock::new(),
        })
    }

    /// Sends the requests for id tokens with this transport. Default: a `ReqwestTransport`.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self.client = OnceLock::new();
        self
    }

    /// Allows plain `http` on loopback, for tests.
    pub fn allow_loopback_http(mut self) -> Self {
        self.http.allow_loopback_http = true;
        self.client = OnceLock::new();
        self
    }

    fn client(&self) -> Result<&HttpClient, ConfigError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let transport = default_transport(self.transport.clone())?;
        let client = self.http.client(transport)?;
        Ok(self.client.get_or_init(|| client))
    }

    async fn request(&self, audience: &str) -> Result<SecretString, BoxError> {
        let mut url = self.url.url().clone();
        url.query_pairs_mut().append_pair("audience", audience);
        let url = Endpoint::new(url.as_str())?;
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, self.authorization()?);
        let response = self
            .client()?
            .get_json(
                Operation::TokenRequest,
                &url,
                headers,
                SystemClock.now(),
                LIMITS,
            )
            .await
            .map_err(explain)?;
        // The error of a parser may quote the token.
        let malformed = |reason: &str| {
            Error::new(Operation::TokenRequest, ErrorKind::Malformed)
                .with_url(url.as_str())
                .with_detail(reason)
        };
        let IdToken { value } = serde_json::from_slice(response.body())
            .map_err(|_error| malformed("expected a JSON object with the id token as `value`"))?;
        if !is_compact_jws(value.expose_secret()) {
            return Err(malformed("its `value` is not a JWT").into());
        }
        Ok(value)
    }

    fn authorization(&self) -> Result<HeaderValue, ConfigError> {
        let field = Zeroizing::new(format!("bearer {}", self.token.expose_secret()));
        let mut field = HeaderValue::try_from(field.as_str())
            .map_err(|_| ConfigError::without_value(TOKEN, "must be a valid header value"))?;
        field.set_sensitive(true);
        Ok(field)
    }
}

/// Adds what to do if GitHub refuses the request token.
fn explain(error: Error) -> Error {
    match error.status().map(|status| status.as_u16()) {
        Some(401 | 403) => error.with_detail(
            "the request token is valid during its job only, and the job needs the permission \
             `id-token: write`",
        ),
        _ => error,
    }
}

impl AssertionSource for GitHubActionsAssertion {
    fn assertion<'a>(&'a self, audience: &'a str) -> BoxFuture<'a, Result<SecretString, BoxError>> {
        Box::pin(self.request(audience))
    }

    fn description(&self) -> String {
        "the id token of GitHub Actions".to_owned()
    }
}

impl fmt::Debug for GitHubActionsAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHubActionsAssertion")
            .field("url", &self.url.origin())
            .finish_non_exhaustive()
    }
}
