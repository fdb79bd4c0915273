//! The client of an App ID service instance's management API.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::application::{
    Application, ApplicationName, ApplicationType, Members, Role, ScopeName, Scopes,
};
use super::iam::IamToken;
use crate::clock::{Clock, SystemClock, UnixTime};
use crate::error::{BoxError, ConfigError, Error, ErrorKind, OAuthError, Operation};
use crate::oauth::{Endpoint, Scope};
use crate::redact::Secrets;
#[cfg(feature = "reqwest")]
use crate::transport::ReqwestTransport;
use crate::transport::{Limits, Transport, retry_after, send};

/// Registers applications with an App ID service instance, and looks after them.
///
/// Each method is one request. Nothing is retried: a `POST` that was lost on its way back may
/// have registered an application. After a 401 the next call has another IAM token
/// ([`IamToken::invalidate`]). App ID takes 50 requests a second and then none for 30 s;
/// its [`retry_after`](Error::retry_after) is in the error.
///
/// Cheap to clone.
///
/// # Errors
///
/// All methods fail alike: [`ErrorKind::Refused`] if the server names an
/// [`oauth_error`](Error::oauth_error) (its `error` or `error_code`),
/// [`ErrorKind::Status`] if it answers otherwise than with success,
/// [`ErrorKind::Malformed`] if the answer is not of the documented shape,
/// [`ErrorKind::Configuration`] if a client id or the token cannot be sent, and the others of
/// [`ErrorKind`] if no answer came. A failing [`IamToken`] shows as an error of
/// [`Operation::TokenRequest`].
///
/// # Examples
///
/// ```no_run
/// # #[cfg(feature = "reqwest")]
/// # async fn register() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_oauth::Endpoint;
/// use tower_oauth::app_id::{ApplicationName, IamApiKey, ManagementClient, ScopeName};
///
/// let url = "https://us-south.appid.cloud.ibm.com/management/v4/39a37f57-a227-4bfe-a044-93b6e6060b61";
/// let iam = IamApiKey::new(std::env::var("IBMCLOUD_API_KEY")?)?;
/// let management = ManagementClient::builder(Endpoint::new(url)?, iam).build()?;
///
/// let application = management.register(&ApplicationName::new("reports")?).await?;
/// management.set_scopes(application.client_id(), &[ScopeName::new("reports.read")?]).await?;
/// let binding = application.binding()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ManagementClient(Arc<Inner>);

struct Inner {
    url: Endpoint,
    iam: Arc<dyn IamToken>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    limits: Limits,
}

impl ManagementClient {
    /// Starts with the base URL, `https://…/management/v4/{tenant}`, and the bearer token: a
    /// [`SecretString`](secrecy::SecretString), an [`IamApiKey`](super::IamApiKey), or a provider
    /// of your own.
    pub fn builder(management_url: Endpoint, iam: impl IamToken) -> ManagementClientBuilder {
        ManagementClientBuilder {
            url: management_url,
            iam: Arc::new(iam),
            clock: Arc::new(SystemClock),
            timeout: TIMEOUT,
            allow_loopback_http: false,
        }
    }

    /// A client with the defaults of the builder, on `transport`.
    ///
    /// # Errors
    ///
    /// As [`ManagementClientBuilder::build_with`].
    pub fn new(
        management_url: Endpoint,
        iam: impl IamToken,
        transport: impl Transport,
    ) -> Result<Self, ConfigError> {
        Self::builder(management_url, iam).build_with(transport)
    }

    /// Registers an application of the default type, a regular web application, which is the
    /// one that gets a secret.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn register(&self, name: &ApplicationName) -> Result<Application, Error> {
        self.post_application(name, None).await
    }

    /// Registers an application of the given type.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn register_as(
        &self,
        name: &ApplicationName,
        application_type: ApplicationType,
    ) -> Result<Application, Error> {
        self.post_application(name, Some(application_type)).await
    }

    async fn post_application(
        &self,
        name: &ApplicationName,
        application_type: Option<ApplicationType>,
    ) -> Result<Application, Error> {
        let body = NewApplication {
            name: name.as_str(),
            application_type,
        };
        let url = self.0.url_of(["applications"])?;
        self.0
            .call::<Members>(Method::POST, &url, Some(json(&body)?), CREATED)
            .await?
            .application(&url)
    }

    /// All registered applications.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn applications(&self) -> Result<Vec<Application>, Error> {
        let url = self.0.url_of(["applications"])?;
        let list: Applications = self.0.call(Method::GET, &url, None, FOUND).await?;
        list.applications
            .into_iter()
            .map(|members| members.application(&url))
            .collect()
    }

    /// The application with this client id.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn application(&self, client_id: &str) -> Result<Application, Error> {
        let url = self.0.url_of(["applications", segment(client_id)?])?;
        self.0
            .call::<Members>(Method::GET, &url, None, FOUND)
            .await?
            .application(&url)
    }

    /// Gives an application another name.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn rename(
        &self,
        client_id: &str,
        name: &ApplicationName,
    ) -> Result<Application, Error> {
        let body = NewApplication {
            name: name.as_str(),
            application_type: None,
        };
        let url = self.0.url_of(["applications", segment(client_id)?])?;
        self.0
            .call::<Members>(Method::PUT, &url, Some(json(&body)?), CREATED)
            .await?
            .application(&url)
    }

    /// Deletes an application. Tokens that it has obtained stay valid until they expire.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn delete(&self, client_id: &str) -> Result<(), Error> {
        let url = self.0.url_of(["applications", segment(client_id)?])?;
        self.0
            .send(Method::DELETE, &url, None, DELETED)
            .await
            .map(|_answer| ())
    }

    /// The scopes that an application offers to others.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn scopes(&self, client_id: &str) -> Result<Vec<Scope>, Error> {
        let url = self
            .0
            .url_of(["applications", segment(client_id)?, "scopes"])?;
        self.0
            .call::<Scopes>(Method::GET, &url, None, FOUND)
            .await?
            .scopes(&url)
    }

    /// Replaces the scopes of an application. One that is left out is taken from the roles
    /// that hold it.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn set_scopes(
        &self,
        client_id: &str,
        scopes: &[ScopeName],
    ) -> Result<Vec<Scope>, Error> {
        let body = Scopes {
            scopes: scopes
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
        };
        let url = self
            .0
            .url_of(["applications", segment(client_id)?, "scopes"])?;
        self.0
            .call::<Scopes>(Method::PUT, &url, Some(json(&body)?), CREATED)
            .await?
            .scopes(&url)
    }

    /// The roles of an application, which count in the client credentials flow only.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn roles(&self, client_id: &str) -> Result<Vec<Role>, Error> {
        let url = self
            .0
            .url_of(["applications", segment(client_id)?, "roles"])?;
        self.0
            .call::<Roles>(Method::GET, &url, None, FOUND)
            .await
            .map(|roles| roles.roles)
    }

    /// Replaces the roles of an application with those of these ids.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn set_roles(&self, client_id: &str, role_ids: &[&str]) -> Result<Vec<Role>, Error> {
        let body = RoleIds {
            roles: Ids { ids: role_ids },
        };
        let url = self
            .0
            .url_of(["applications", segment(client_id)?, "roles"])?;
        self.0
            .call::<Roles>(Method::PUT, &url, Some(json(&body)?), CREATED)
            .await
            .map(|roles| roles.roles)
    }
}

impl Inner {
    fn url_of<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Result<Endpoint, Error> {
        let mut url = self.url.url().clone();
        // Fails only for URLs that cannot have a path, and an endpoint can.
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        Endpoint::new(url).map_err(unusable)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &Endpoint,
        body: Option<Bytes>,
        expected: &[StatusCode],
    ) -> Result<T, Error> {
        let answer = self.send(method, url, body, expected).await?;
        serde_json::from_slice(answer.body())
            .map_err(|error| malformed(Operation::Management, &error).with_url(url.as_str()))
    }

    async fn send(
        &self,
        method: Method,
        url: &Endpoint,
        body: Option<Bytes>,
        expected: &[StatusCode],
    ) -> Result<Response<Bytes>, Error> {
        let has_body = body.is_some();
        let mut request = Request::new(body.unwrap_or_default());
        *request.method_mut() = method;
        *request.uri_mut() = url.to_uri().map_err(unusable)?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if has_body {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        let token = self.token().await?;
        headers.insert(header::AUTHORIZATION, bearer(&token)?);
        let answer = send(
            &*self.transport,
            Operation::Management,
            request,
            self.limits,
        )
        .await?;
        if expected.contains(&answer.status()) {
            return Ok(answer);
        }
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.iam.invalidate(&token);
        }
        let mut secrets = Secrets::default();
        secrets.add(token.expose_secret());
        Err(
            failure(Operation::Management, &answer, self.clock.now(), secrets)
                .with_url(url.as_str()),
        )
    }

    async fn token(&self) -> Result<SecretString, Error> {
        tokio::time::timeout(self.limits.total, self.iam.token())
            .await
            .map_err(|_elapsed| Error::new(Operation::TokenRequest, ErrorKind::Timeout))?
            .map_err(|error| match error.downcast::<Error>() {
                Ok(error) => *error,
                Err(error) => {
                    Error::new(Operation::TokenRequest, ErrorKind::Transport).with_source(error)
                }
            })
    }
}

/// The `Authorization` field, marked sensitive.
fn bearer(token: &SecretString) -> Result<HeaderValue, Error> {
    let mut value =
        HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| {
            unusable(ConfigError::without_value(
                "IAM token",
                "cannot be sent in a header",
            ))
        })?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for ManagementClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementClient")
            .field("url", &self.0.url)
            .finish_non_exhaustive()
    }
}

/// Optional settings of a [`ManagementClient`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct ManagementClientBuilder {
    url: Endpoint,
    iam: Arc<dyn IamToken>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    allow_loopback_http: bool,
}

impl ManagementClientBuilder {
    /// Allows a plain `http` URL, which is possible on loopback only; for a development
    /// authorization server. Off by default.
    pub fn allow_loopback_http(mut self) -> Self {
        self.allow_loopback_http = true;
        self
    }

    /// How long one request may take as a whole, and fetching its token as well. 10 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The clock against which a `Retry-After` date is read; the system's by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// A client on [`ReqwestTransport`].
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with), or if the transport cannot be built.
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn build(self) -> Result<ManagementClient, ConfigError> {
        self.build_with(ReqwestTransport::new()?)
    }

    /// A client on `transport`.
    ///
    /// # Errors
    ///
    /// If the URL has a query, or is plain `http` without
    /// [`allow_loopback_http`](Self::allow_loopback_http).
    pub fn build_with(self, transport: impl Transport) -> Result<ManagementClient, ConfigError> {
        let Self {
            url,
            iam,
            clock,
            timeout,
            allow_loopback_http,
        } = self;
        url.check_plain_http(allow_loopback_http)
            .map_err(|error| error.for_setting("management URL"))?;
        if url.url().query().is_some() {
            return Err(ConfigError::new(
                "management URL",
                url.origin(),
                "must not have a query",
            ));
        }
        Ok(ManagementClient(Arc::new(Inner {
            // App ID answers two slashes in a row with 404.
            url: Endpoint::new(url.as_str().trim_end_matches('/'))?,
            iam,
            transport: Arc::new(transport),
            clock,
            limits: Limits {
                total: timeout,
                max_body: MAX_BODY,
            },
        })))
    }
}

impl fmt::Debug for ManagementClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementClientBuilder")
            .field("url", &self.url)
            .field("timeout", &self.timeout)
            .field("allow_loopback_http", &self.allow_loopback_http)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct NewApplication<'a> {
    name: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    application_type: Option<ApplicationType>,
}

#[derive(Deserialize)]
struct Applications {
    applications: Vec<Members>,
}

#[derive(Deserialize)]
struct Roles {
    roles: Vec<Role>,
}

#[derive(Serialize)]
struct RoleIds<'a> {
    roles: Ids<'a>,
}

#[derive(Serialize)]
struct Ids<'a> {
    ids: &'a [&'a str],
}

/// A client id as a segment of a path, where it is percent-encoded.
fn segment(client_id: &str) -> Result<&str, Error> {
    // RFC 6749 §A.1: VSCHAR. Segments of dots cannot be encoded, and change the path.
    let allowed = client_id.bytes().all(|b| matches!(b, 0x20..=0x7e));
    if client_id.is_empty() || !allowed || matches!(client_id, "." | "..") {
        return Err(unusable(ConfigError::new(
            "client id",
            client_id,
            "cannot stand in a path",
        )));
    }
    Ok(client_id)
}

fn json(body: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| {
        Error::new(Operation::Management, ErrorKind::Configuration).with_source(error)
    })
}

fn unusable(error: ConfigError) -> Error {
    Error::new(Operation::Management, ErrorKind::Configuration).with_source(error)
}

/// An answer that is not of its shape. serde_json's error may quote it, and with it a secret,
/// so the place is all that is told.
fn malformed(operation: Operation, error: &serde_json::Error) -> Error {
    let place = format!(
        "unexpected JSON at line {}, column {}",
        error.line(),
        error.column()
    );
    Error::new(operation, ErrorKind::Malformed).with_source(BoxError::from(place))
}

/// The error of an answer that is not a success; `secrets` are those that were sent.
pub(super) fn failure(
    operation: Operation,
    answer: &Response<Bytes>,
    now: UnixTime,
    secrets: Secrets,
) -> Error {
    let status = answer.status();
    let said = said(answer.body(), secrets);
    let kind = match &said {
        Some(_) if status.is_client_error() => ErrorKind::Refused,
        _ => ErrorKind::Status(status),
    };
    Error::new(operation, kind).with_response(status, said, retry_after(answer.headers(), now))
}

/// What the server says in an error: App ID has `error` or `error_code`, IAM `errorCode`. In
/// the wrong region the body is plain text, which says no more than the status.
fn said(body: &[u8], mut secrets: Secrets) -> Option<OAuthError> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let first = |keys: [&str; 3]| keys.into_iter().find_map(|key| body.get(key)?.as_str());
    let code = first(["error", "error_code", "errorCode"])?;
    secrets.add_members(&body);
    Some(OAuthError::new(
        code,
        first(["error_description", "errorMessage", "message"]),
        &secrets,
    ))
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// 200 applications, the most that an instance has, come to a fifth of it.
const MAX_BODY: usize = 1 << 20;

const FOUND: &[StatusCode] = &[StatusCode::OK];
/// The documentation and the service disagree about which of the two it is.
const CREATED: &[StatusCode] = &[StatusCode::OK, StatusCode::CREATED];
const DELETED: &[StatusCode] = &[StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT];
