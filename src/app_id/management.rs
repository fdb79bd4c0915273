//! The client of the App ID management API.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::application::{
    Application, ApplicationJson, ApplicationName, ApplicationType, Role, ScopeName, ScopesJson,
};
use super::iam::IamToken;
use crate::clock::{Clock, SystemClock, UnixTime};
use crate::error::{BoxError, ConfigError, Error, ErrorKind, OAuthError, Operation};
use crate::oauth::{Endpoint, Scope};
use crate::redact::Secrets;
use crate::trace;
#[cfg(feature = "reqwest")]
use crate::transport::ReqwestTransport;
use crate::transport::{HttpClient, HttpSettings, Limits, Transport, retry_after};

/// Registers and manages the applications of an App ID service instance.
///
/// Each method sends one request. Nothing is retried, because a `POST` whose response was lost may
/// have registered an application. After a 401, an [`IamApiKey`](super::IamApiKey) gets another
/// token for the next call, at most once in 10 s ([`IamToken::invalidate`]); a `SecretString` stays
/// the same. App ID allows 50 requests per second and then blocks for 30 s; the error has its
/// [`retry_after`](Error::retry_after).
///
/// Cheap to clone.
///
/// # Errors
///
/// All methods return the same errors:
///
/// - [`ErrorKind::Refused`] if a 4xx response has an [`oauth_error`](Error::oauth_error) (its
///   `error` or `error_code`);
/// - [`ErrorKind::Status`] for other error responses; a 5xx may have an `oauth_error`, too;
/// - [`ErrorKind::Malformed`] if the response does not have the documented form;
/// - [`ErrorKind::Configuration`] if a client id or the token cannot be sent;
/// - the other variants of [`ErrorKind`] if there is no response.
///
/// An error of the [`IamToken`] has [`Operation::TokenRequest`].
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::Endpoint;
/// use tower_oauth::app_id::{ApplicationName, ManagementClient, ScopeName};
///
/// // In production: `https://us-south.appid.cloud.ibm.com/management/v4/{tenant}` and an
/// // `IamApiKey`.
/// let url = Endpoint::new(issuer.management_url())?;
/// let token = issuer.management_token().clone();
/// let management = ManagementClient::builder(url, token).build_with(issuer.transport())?;
///
/// let application = management.register(&ApplicationName::new("reports")?).await?;
/// let scopes = [ScopeName::new("reports.read")?];
/// management.set_scopes(application.client_id(), &scopes).await?;
/// assert_eq!(management.scopes(application.client_id()).await?[0], "reports.read");
/// assert!(application.binding()?.secret().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ManagementClient(Arc<Inner>);

struct Inner {
    url: Endpoint,
    iam: Arc<dyn IamToken>,
    http_client: HttpClient,
    clock: Arc<dyn Clock>,
    limits: Limits,
}

impl ManagementClient {
    /// Returns a builder with a base URL, `https://…/management/v4/{tenant}`, and a bearer token.
    ///
    /// The token is a [`SecretString`], an [`IamApiKey`](super::IamApiKey), or another
    /// implementation of [`IamToken`].
    pub fn builder(management_url: Endpoint, iam: impl IamToken) -> ManagementClientBuilder {
        ManagementClientBuilder {
            url: management_url,
            iam: Arc::new(iam),
            clock: Arc::new(SystemClock),
            timeout: DEFAULT_TIMEOUT,
            http: HttpSettings::default(),
        }
    }

    /// Creates a client with the defaults of the builder and this transport.
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

    /// Registers an application of the default type, a regular web application with a secret.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn register(&self, name: &ApplicationName) -> Result<Application, Error> {
        self.post_application(name, None).await
    }

    /// Registers an application of the given type.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::{ApplicationName, ApplicationType, ManagementClient};
    ///
    /// # let url = Endpoint::new(issuer.management_url())?;
    /// # let token = issuer.management_token().clone();
    /// # let management = ManagementClient::new(url, token, issuer.transport())?;
    /// let name = ApplicationName::new("shop")?;
    /// let shop = management.register_as(&name, ApplicationType::RegularWebApp).await?;
    /// assert_eq!(shop.application_type(), Some(ApplicationType::RegularWebApp));
    /// # Ok(())
    /// # }
    /// ```
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
        let url = self.0.endpoint(["applications"])?;
        self.0
            .call::<ApplicationJson>(
                Method::POST,
                &url,
                Some(serialize_body(&body)?),
                WRITE_STATUSES,
            )
            .await?
            .into_application(&url, self.0.http_client.plain_http())
    }

    /// Returns all registered applications.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn applications(&self) -> Result<Vec<Application>, Error> {
        let url = self.0.endpoint(["applications"])?;
        let list: Applications = self.0.call(Method::GET, &url, None, READ_STATUSES).await?;
        list.applications
            .into_iter()
            .map(|members| members.into_application(&url, self.0.http_client.plain_http()))
            .collect()
    }

    /// Returns the application with this client id.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn application(&self, client_id: &str) -> Result<Application, Error> {
        let url = self
            .0
            .endpoint(["applications", path_segment(client_id)?])?;
        self.0
            .call::<ApplicationJson>(Method::GET, &url, None, READ_STATUSES)
            .await?
            .into_application(&url, self.0.http_client.plain_http())
    }

    /// Changes the name of an application.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::{ApplicationName, ManagementClient};
    ///
    /// # let url = Endpoint::new(issuer.management_url())?;
    /// # let token = issuer.management_token().clone();
    /// # let management = ManagementClient::new(url, token, issuer.transport())?;
    /// management.rename(shop.client_id(), &ApplicationName::new("Shop")?).await?;
    /// assert_eq!(management.application(shop.client_id()).await?.name(), "Shop");
    /// # Ok(())
    /// # }
    /// ```
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
        let url = self
            .0
            .endpoint(["applications", path_segment(client_id)?])?;
        self.0
            .call::<ApplicationJson>(
                Method::PUT,
                &url,
                Some(serialize_body(&body)?),
                WRITE_STATUSES,
            )
            .await?
            .into_application(&url, self.0.http_client.plain_http())
    }

    /// Deletes an application. Its tokens stay valid until they expire.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::ManagementClient;
    ///
    /// # let url = Endpoint::new(issuer.management_url())?;
    /// # let token = issuer.management_token().clone();
    /// # let management = ManagementClient::new(url, token, issuer.transport())?;
    /// management.delete(shop.client_id()).await?;
    /// assert!(management.applications().await?.is_empty());
    /// let error = management.delete(shop.client_id()).await.unwrap_err();
    /// assert_eq!(error.status(), Some(http::StatusCode::NOT_FOUND));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn delete(&self, client_id: &str) -> Result<(), Error> {
        let url = self
            .0
            .endpoint(["applications", path_segment(client_id)?])?;
        self.0
            .send(Method::DELETE, &url, None, DELETE_STATUSES)
            .await
            .map(|_response| ())
    }

    /// Returns the scopes that an application defines.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn scopes(&self, client_id: &str) -> Result<Vec<Scope>, Error> {
        let url = self
            .0
            .endpoint(["applications", path_segment(client_id)?, "scopes"])?;
        self.0
            .call::<ScopesJson>(Method::GET, &url, None, READ_STATUSES)
            .await?
            .into_scopes(&url)
    }

    /// Replaces the scopes of an application.
    ///
    /// A scope that is removed is also removed from roles.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::{ManagementClient, ScopeName};
    ///
    /// # let url = Endpoint::new(issuer.management_url())?;
    /// # let token = issuer.management_token().clone();
    /// # let management = ManagementClient::new(url, token, issuer.transport())?;
    /// let scopes = [ScopeName::new("orders.read")?, ScopeName::new("orders.write")?];
    /// let defined = management.set_scopes(shop.client_id(), &scopes).await?;
    /// assert_eq!(defined.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn set_scopes(
        &self,
        client_id: &str,
        scopes: &[ScopeName],
    ) -> Result<Vec<Scope>, Error> {
        let body = ScopesJson {
            scopes: scopes
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
        };
        let url = self
            .0
            .endpoint(["applications", path_segment(client_id)?, "scopes"])?;
        self.0
            .call::<ScopesJson>(
                Method::PUT,
                &url,
                Some(serialize_body(&body)?),
                WRITE_STATUSES,
            )
            .await?
            .into_scopes(&url)
    }

    /// Returns the roles of an application, which apply to the client credentials grant only.
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn roles(&self, client_id: &str) -> Result<Vec<Role>, Error> {
        let url = self
            .0
            .endpoint(["applications", path_segment(client_id)?, "roles"])?;
        self.0
            .call::<RolesJson>(Method::GET, &url, None, READ_STATUSES)
            .await
            .map(|roles| roles.roles)
    }

    /// Replaces the roles of an application with the roles of these ids.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::ManagementClient;
    ///
    /// # let url = Endpoint::new(issuer.management_url())?;
    /// # let token = issuer.management_token().clone();
    /// # let management = ManagementClient::new(url, token, issuer.transport())?;
    /// let none = management.set_roles(shop.client_id(), &[]).await?;
    /// assert!(none.is_empty());
    /// assert!(management.roles(shop.client_id()).await?.is_empty());
    /// assert!(management.set_roles(shop.client_id(), &["unknown-id"]).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// See [the type](Self#errors).
    pub async fn set_roles(&self, client_id: &str, role_ids: &[&str]) -> Result<Vec<Role>, Error> {
        let body = RoleIds {
            roles: RoleIdList { ids: role_ids },
        };
        let url = self
            .0
            .endpoint(["applications", path_segment(client_id)?, "roles"])?;
        self.0
            .call::<RolesJson>(
                Method::PUT,
                &url,
                Some(serialize_body(&body)?),
                WRITE_STATUSES,
            )
            .await
            .map(|roles| roles.roles)
    }
}

impl Inner {
    fn endpoint<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Result<Endpoint, Error> {
        let mut url = self.url.url().clone();
        // Fails only for URLs without a path; an endpoint has one.
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        Endpoint::new(url).map_err(invalid_setting)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &Endpoint,
        body: Option<Bytes>,
        expected: &[StatusCode],
    ) -> Result<T, Error> {
        let response = self.send(method, url, body, expected).await?;
        serde_json::from_slice(response.body())
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
        *request.uri_mut() = url.to_uri().map_err(invalid_setting)?;
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
        let response = self
            .http_client
            .send(Operation::Management, request, self.limits)
            .await?;
        if expected.contains(&response.status()) {
            return Ok(response);
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            self.iam.invalidate(&token);
        }
        let mut secrets = Secrets::default();
        secrets.add(token.expose_secret());
        Err(error_of(&response, self.clock.now(), secrets).with_url(url.as_str()))
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

/// The error of a response that is no success. `secrets` are those of the request.
fn error_of(response: &Response<Bytes>, now: UnixTime, secrets: Secrets) -> Error {
    let status = response.status();
    let oauth = OAuthError::from_body(response.body(), || secrets);
    let kind = match &oauth {
        Some(_) if status.is_client_error() => ErrorKind::Refused,
        _ => ErrorKind::Status(status),
    };
    let error = Error::new(Operation::Management, kind);
    error.with_response(status, oauth, retry_after(response.headers(), now))
}

/// The `Authorization` field, marked sensitive.
fn bearer(token: &SecretString) -> Result<HeaderValue, Error> {
    let mut value =
        HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| {
            invalid_setting(ConfigError::without_value(
                "IAM token",
                "must be a valid header value",
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

/// A builder of a [`ManagementClient`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use std::time::Duration;
/// use tower_oauth::Endpoint;
/// use tower_oauth::app_id::ManagementClient;
/// use tower_oauth::authorization_server::{EndpointKind, Fault};
/// use tower_oauth::error::ErrorKind;
///
/// let url = Endpoint::new(issuer.management_url())?;
/// let management = ManagementClient::builder(url, issuer.management_token().clone())
///     .timeout(Duration::from_secs(3))
///     .build_with(issuer.transport())?;
/// issuer.fail(EndpointKind::Management, Fault::Hang);
/// let error = management.applications().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Timeout);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct ManagementClientBuilder {
    url: Endpoint,
    iam: Arc<dyn IamToken>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    http: HttpSettings,
}

impl ManagementClientBuilder {
    /// Allows a plain `http` URL on loopback, for a development authorization server. Off by
    /// default.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::ManagementClient;
    ///
    /// let url = Endpoint::new("http://127.0.0.1:6002/management/v4/39a37f57-a227")?;
    /// let builder = ManagementClient::builder(url, issuer.management_token().clone());
    /// assert!(builder.clone().build_with(issuer.transport()).is_err());
    /// assert!(builder.allow_loopback_http().build_with(issuer.transport()).is_ok());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn allow_loopback_http(mut self) -> Self {
        self.http.allow_loopback_http = true;
        self
    }

    /// Allows plain `http` to these hosts.
    ///
    /// As [`TokenManagerBuilder::allow_http`](crate::client::TokenManagerBuilder::allow_http). It
    /// does not apply to requests of an [`IamApiKey`](super::IamApiKey), whose URL is `https`, or
    /// on loopback.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::ManagementClient;
    ///
    /// let url = Endpoint::new("http://appid.dev.svc/management/v4/39a37f57-a227")?;
    /// let builder = ManagementClient::builder(url, issuer.management_token().clone());
    /// assert!(builder.clone().build_with(issuer.transport()).is_err());
    /// let builder = builder.allow_http(["appid.dev.svc"]);
    /// assert!(builder.build_with(issuer.transport()).is_ok());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn allow_http(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.http.allow_http(hosts);
        self
    }

    /// Sets the `User-Agent` of requests. Default: `tower-oauth/` and its version.
    ///
    /// It does not apply to requests of an [`IamApiKey`](super::IamApiKey), which have the default
    /// one.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::ManagementClient;
    ///
    /// let url = Endpoint::new("https://eu-gb.appid.cloud.ibm.com/management/v4/39a37f57-a227")?;
    /// let builder = ManagementClient::builder(url, issuer.management_token().clone());
    /// let orders = builder.clone().user_agent("orders/1.4");
    /// assert!(orders.build_with(issuer.transport()).is_ok());
    /// assert!(builder.user_agent("two\nlines").build_with(issuer.transport()).is_err());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.http.set_user_agent(user_agent);
        self
    }

    /// Sets the time limit of a request, and that of obtaining its token. Default: 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the clock to which `Retry-After` dates are compared. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Builds a client on [`ReqwestTransport`].
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with), or if the transport cannot be built.
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn build(self) -> Result<ManagementClient, ConfigError> {
        self.build_with(ReqwestTransport::new()?)
    }

    /// Builds a client on `transport`.
    ///
    /// # Errors
    ///
    /// If the URL has a query, the user agent is not a header value, or the URL is plain `http`
    /// without [`allow_http`](Self::allow_http), or on loopback without
    /// [`allow_loopback_http`](Self::allow_loopback_http).
    pub fn build_with(self, transport: impl Transport) -> Result<ManagementClient, ConfigError> {
        let Self {
            url,
            iam,
            clock,
            timeout,
            http,
        } = self;
        let plain_http = http.plain_http()?;
        trace::warn_of_plain_http!(
            target: "tower_oauth::client",
            plain_http.hosts(),
            "plain http to this host is allowed: anyone who can read its traffic has the secrets and \
             tokens"
        );
        plain_http
            .check(&url)
            .map_err(|error| error.with_setting("management URL"))?;
        if url.url().query().is_some() {
            return Err(ConfigError::new(
                "management URL",
                url.origin(),
                "must not have a query",
            ));
        }
        Ok(ManagementClient(Arc::new(Inner {
            // App ID responds to two slashes in a row with 404.
            url: Endpoint::new(url.as_str().trim_end_matches('/'))?,
            iam,
            http_client: http.client(Arc::new(transport))?,
            clock,
            limits: Limits {
                total: timeout,
                max_body: MAX_RESPONSE,
            },
        })))
    }
}

impl fmt::Debug for ManagementClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementClientBuilder")
            .field("url", &self.url)
            .field("timeout", &self.timeout)
            .field("http", &self.http)
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
    applications: Vec<ApplicationJson>,
}

#[derive(Deserialize)]
struct RolesJson {
    roles: Vec<Role>,
}

#[derive(Serialize)]
struct RoleIds<'a> {
    roles: RoleIdList<'a>,
}

#[derive(Serialize)]
struct RoleIdList<'a> {
    ids: &'a [&'a str],
}

/// Checks that a client id is usable as a path segment, which is then percent-encoded.
fn path_segment(client_id: &str) -> Result<&str, Error> {
    // RFC 6749 §A.1: VSCHAR. The segments `.` and `..` cannot be encoded, and change the path.
    let allowed = client_id.bytes().all(|b| matches!(b, 0x20..=0x7e));
    if client_id.is_empty() || !allowed || matches!(client_id, "." | "..") {
        return Err(invalid_setting(ConfigError::new(
            "client id",
            client_id,
            "must be a valid path segment",
        )));
    }
    Ok(client_id)
}

fn serialize_body(body: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| {
        Error::new(Operation::Management, ErrorKind::Configuration).with_source(error)
    })
}

fn invalid_setting(error: ConfigError) -> Error {
    Error::new(Operation::Management, ErrorKind::Configuration).with_source(error)
}

/// The error of a response that does not have the documented form. It has only line and column,
/// because the error of serde_json may quote a secret.
fn malformed(operation: Operation, error: &serde_json::Error) -> Error {
    let position = format!(
        "unexpected JSON at line {}, column {}",
        error.line(),
        error.column()
    );
    Error::new(operation, ErrorKind::Malformed).with_source(BoxError::from(position))
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// About five times the size of 200 applications, the maximum of an instance.
const MAX_RESPONSE: usize = 1 << 20;

const READ_STATUSES: &[StatusCode] = &[StatusCode::OK];
/// The documentation and the service disagree about which of the two is used.
const WRITE_STATUSES: &[StatusCode] = &[StatusCode::OK, StatusCode::CREATED];
const DELETE_STATUSES: &[StatusCode] =
    &[StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT];
