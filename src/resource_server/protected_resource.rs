//! The settings of a protected resource, and the metadata document that clients read.

use std::sync::Arc;

use super::protected_resource_service::ProtectedResourceMetadataService;
use crate::error::ConfigError;
use crate::oauth::{Endpoint, Issuer, ResourceIdentifier, Scope};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Clients bound what they read.
const MAX_DOCUMENT_LENGTH: usize = 16 * 1024;

/// A protected resource, as its metadata describes it to clients.
///
/// The document of [RFC 9728](https://www.rfc-editor.org/rfc/rfc9728#section-2): which authorization
/// servers issue tokens for the resource, and which scopes it has.
///
/// ```
/// use tower_oauth::resource_server::ProtectedResource;
/// use tower_oauth::{ResourceServer, Scope};
///
/// let orders = ProtectedResource::new("https://api.example/orders")?
///     .resource_name("Orders")
///     .scopes_supported([Scope::new("orders.read")?]);
/// let (server, _refresher) = ResourceServer::for_resource(orders, "https://as.example").build()?;
/// let metadata = server.resource_metadata().expect("the resource is named");
/// assert_eq!(metadata.path(), "/.well-known/oauth-protected-resource/orders");
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ProtectedResource {
    identifier: ResourceIdentifier,
    authorization_servers: Option<Vec<Issuer>>,
    scopes_supported: Vec<Scope>,
    members: Map<String, Value>,
}

impl ProtectedResource {
    /// A resource by its identifier: the URL that clients know it by.
    ///
    /// ```
    /// use tower_oauth::resource_server::ProtectedResource;
    ///
    /// assert!(ProtectedResource::new("https://api.example/orders").is_ok());
    /// let error = ProtectedResource::new("https://API.example").unwrap_err();
    /// assert!(error.to_string().contains("write `https://api.example`"));
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not an absolute `https` or `http` URL, has a fragment or user information
    /// (RFC 9728 §1.2), an upper-case scheme or host, a default port, a path with dot segments, or
    /// a character that a URL parser escapes or removes.
    pub fn new(identifier: impl Into<String>) -> Result<Self, ConfigError> {
        Ok(Self {
            identifier: ResourceIdentifier::new(identifier)?,
            authorization_servers: None,
            scopes_supported: Vec::new(),
            members: Map::new(),
        })
    }

    /// Sets the scopes that clients may request (`scopes_supported`). Default: not disclosed.
    pub fn scopes_supported(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes_supported = scopes.into_iter().collect();
        self
    }

    /// Sets the authorization servers that clients may ask for a token (`authorization_servers`).
    ///
    /// Default: the trusted issuers whose keys are fetched, in the order of their addition. An
    /// issuer with fixed keys, or of workload tokens, usually has no token endpoint for clients.
    ///
    /// ```
    /// use tower_oauth::resource_server::ProtectedResource;
    /// use tower_oauth::{Issuer, ResourceServer};
    ///
    /// let orders = ProtectedResource::new("https://api.example/orders")?
    ///     .authorization_servers([Issuer::new("https://login.example")?]);
    /// let (server, _refresher) = ResourceServer::for_resource(orders, "https://as.example").build()?;
    /// let metadata = server.resource_metadata().expect("the resource is named");
    /// let document: serde_json::Value = serde_json::from_slice(metadata.document())?;
    /// assert_eq!(document["authorization_servers"], serde_json::json!(["https://login.example"]));
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    pub fn authorization_servers(mut self, issuers: impl IntoIterator<Item = Issuer>) -> Self {
        self.authorization_servers = Some(issuers.into_iter().collect());
        self
    }

    /// Sets the name that clients show to people (`resource_name`).
    ///
    /// ```
    /// use tower_oauth::resource_server::ProtectedResource;
    /// use tower_oauth::{Endpoint, ResourceServer};
    ///
    /// let orders = ProtectedResource::new("https://api.example/orders")?
    ///     .resource_name("Orders")
    ///     .resource_documentation(&Endpoint::new("https://docs.example/orders")?)
    ///     .resource_policy_uri(&Endpoint::new("https://docs.example/policy")?)
    ///     .resource_tos_uri(&Endpoint::new("https://docs.example/terms")?);
    /// let (server, _refresher) = ResourceServer::for_resource(orders, "https://as.example").build()?;
    /// let metadata = server.resource_metadata().expect("the resource is named");
    /// let document: serde_json::Value = serde_json::from_slice(metadata.document())?;
    /// assert_eq!(document["resource_name"], "Orders");
    /// assert_eq!(document["resource_documentation"], "https://docs.example/orders");
    /// assert_eq!(document["resource_policy_uri"], "https://docs.example/policy");
    /// assert_eq!(document["resource_tos_uri"], "https://docs.example/terms");
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    pub fn resource_name(self, name: impl Into<String>) -> Self {
        self.text("resource_name", name.into())
    }

    /// Sets the page for developers that use the resource (`resource_documentation`).
    ///
    /// [`resource_name`](Self::resource_name) has an example.
    pub fn resource_documentation(self, page: &Endpoint) -> Self {
        self.text("resource_documentation", page.as_str().to_owned())
    }

    /// Sets the page about how clients may use the data (`resource_policy_uri`).
    ///
    /// [`resource_name`](Self::resource_name) has an example.
    pub fn resource_policy_uri(self, page: &Endpoint) -> Self {
        self.text("resource_policy_uri", page.as_str().to_owned())
    }

    /// Sets the page of the terms of service (`resource_tos_uri`).
    ///
    /// [`resource_name`](Self::resource_name) has an example.
    pub fn resource_tos_uri(self, page: &Endpoint) -> Self {
        self.text("resource_tos_uri", page.as_str().to_owned())
    }

    /// Sets any other member, such as a name in another language.
    ///
    /// `null` and an empty string, array or object are omitted
    /// ([RFC 9728 §3.2](https://www.rfc-editor.org/rfc/rfc9728#section-3.2)).
    ///
    /// ```
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::ProtectedResource;
    ///
    /// let orders = ProtectedResource::new("https://api.example/orders")?
    ///     .resource_name("Orders")
    ///     .member("resource_name#fr", "Commandes")?; // a language tag: RFC 9728 §2.1
    /// let (server, _refresher) = ResourceServer::for_resource(orders, "https://as.example").build()?;
    /// let metadata = server.resource_metadata().expect("the resource is named");
    /// let document: serde_json::Value = serde_json::from_slice(metadata.document())?;
    /// assert_eq!(document["resource_name#fr"], "Commandes");
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the member has a method, is always the same, or is of tokens that are bound to a key, which
    /// are not supported.
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Result<Self, ConfigError> {
        if let Some(reason) = why_reserved(name) {
            return Err(ConfigError::new("resource metadata member", name, reason));
        }
        self.members.insert(name.to_owned(), value.into());
        Ok(self)
    }

    fn text(mut self, name: &str, value: String) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The identifier, as it was configured.
    #[must_use]
    pub fn identifier(&self) -> &str {
        self.identifier.as_str()
    }

    pub(super) fn url(&self) -> &Endpoint {
        self.identifier.url()
    }

    /// Builds the document. `issuers` are those whose keys are fetched.
    pub(super) fn into_metadata(
        self,
        issuers: impl IntoIterator<Item = Issuer>,
    ) -> Result<ProtectedResourceMetadata, ConfigError> {
        let mut document = self.members;
        let mut insert = |name: &str, value: Value| document.insert(name.to_owned(), value);
        insert("resource", json!(self.identifier.as_str()));
        insert("bearer_methods_supported", json!(["header"]));
        let servers = self.authorization_servers;
        let servers = servers.unwrap_or_else(|| issuers.into_iter().collect());
        insert("authorization_servers", json!(servers));
        insert("scopes_supported", json!(self.scopes_supported));
        document.retain(|_, value| !is_empty(value));
        let document = Bytes::from(json!(document).to_string());
        if document.len() > MAX_DOCUMENT_LENGTH {
            let reason = "must be at most 16 KiB as a document";
            return Err(ConfigError::without_value("resource metadata", reason));
        }
        Ok(ProtectedResourceMetadata(Arc::new(Inner {
            document,
            identifier: self.identifier,
        })))
    }
}

/// Why [`ProtectedResource::member`] does not set this member. `None` if it does.
fn why_reserved(name: &str) -> Option<String> {
    let reason = match name {
        "authorization_servers"
        | "scopes_supported"
        | "resource_name"
        | "resource_documentation"
        | "resource_policy_uri"
        | "resource_tos_uri" => return Some(format!("is set with the method `{name}`")),
        "resource" => "is the identifier: see `ProtectedResource::new`",
        "bearer_methods_supported" => "is `header`: no other method is supported",
        "dpop_signing_alg_values_supported"
        | "dpop_bound_access_tokens_required"
        | "tls_client_certificate_bound_access_tokens" => {
            "must be absent: tokens that are bound to a key are not supported"
        }
        _ => return None,
    };
    Some(reason.to_owned())
}

/// Whether a member has zero elements: it is omitted then (RFC 9728 §3.2).
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

impl TryFrom<&str> for ProtectedResource {
    type Error = ConfigError;

    fn try_from(identifier: &str) -> Result<Self, ConfigError> {
        Self::new(identifier)
    }
}

impl TryFrom<String> for ProtectedResource {
    type Error = ConfigError;

    fn try_from(identifier: String) -> Result<Self, ConfigError> {
        Self::new(identifier)
    }
}

/// The metadata of a protected resource: the document, and its URL.
///
/// Created once, when the [`ResourceServer`](crate::ResourceServer) is built. Nothing of a request
/// is ever in it.
///
/// ```
/// use tower_oauth::ResourceServer;
/// use tower_oauth::resource_server::ProtectedResource;
///
/// let orders = ProtectedResource::new("https://api.example/orders")?;
/// let (server, _refresher) = ResourceServer::for_resource(orders, "https://as.example").build()?;
/// let metadata = server.resource_metadata().expect("the resource is named");
/// assert_eq!(
///     metadata.url(),
///     "https://api.example/.well-known/oauth-protected-resource/orders"
/// );
/// let document: serde_json::Value = serde_json::from_slice(metadata.document())?;
/// assert_eq!(document["resource"], "https://api.example/orders");
/// assert_eq!(document["authorization_servers"][0], "https://as.example");
/// # Ok::<(), tower_oauth::BoxError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProtectedResourceMetadata(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    document: Bytes,
    identifier: ResourceIdentifier,
}

impl ProtectedResourceMetadata {
    /// The URL of the document, which challenges name (RFC 9728 §5.1).
    #[must_use]
    pub fn url(&self) -> &str {
        self.0.identifier.metadata_url()
    }

    /// The path of the document at its server, for a router.
    #[must_use]
    pub fn path(&self) -> &str {
        let target = self.path_and_query();
        target.split('?').next().unwrap_or(target)
    }

    pub(super) fn path_and_query(&self) -> &str {
        self.0.identifier.metadata_path_and_query()
    }

    /// The document, as JSON.
    #[must_use]
    pub fn document(&self) -> &Bytes {
        &self.0.document
    }

    /// The service that responds with the document to everyone, without a token.
    ///
    /// Add it to a router after the layer, or outside of it:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use axum::{Router, body::Body, http::Request, routing::get};
    /// use tower::ServiceExt as _;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::ProtectedResource;
    ///
    /// let orders = ProtectedResource::new("https://api.example/orders")?;
    /// let (server, _refresher) = ResourceServer::for_resource(orders, "https://as.example").build()?;
    /// let metadata = server.resource_metadata().expect("the resource is named");
    /// let app: Router = Router::new()
    ///     .route("/orders", get(async || "orders"))
    ///     .layer(server.layer()) // protects all routes before it
    ///     .route_service(metadata.path(), metadata.service()); // open, because it comes after
    ///
    /// let status = async |path: &str| -> Result<_, tower_oauth::BoxError> {
    ///     let request = Request::get(path).body(Body::empty())?;
    ///     Ok(app.clone().oneshot(request).await?.status())
    /// };
    /// assert_eq!(status("/orders").await?, 401);
    /// assert_eq!(status("/.well-known/oauth-protected-resource/orders").await?, 200);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn service(&self) -> ProtectedResourceMetadataService {
        ProtectedResourceMetadataService::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(identifier: &str) -> ProtectedResourceMetadata {
        let resource = ProtectedResource::new(identifier).expect(identifier);
        resource.into_metadata([]).unwrap()
    }

    /// RFC 9728 §3.1, and the same for ports and for a slash at the end.
    #[test]
    fn the_well_known_path_is_inserted_between_host_and_path() {
        let well_known = "/.well-known/oauth-protected-resource";
        for (identifier, origin, suffix) in [
            ("https://api.example", "https://api.example", ""),
            ("https://api.example/", "https://api.example", ""),
            ("https://api.example?x=1", "https://api.example", "?x=1"),
            ("https://api.example/?x=1", "https://api.example", "?x=1"),
            ("https://api.example/mcp", "https://api.example", "/mcp"),
            ("https://api.example/mcp/", "https://api.example", "/mcp/"),
            ("https://api.example/a?x=1", "https://api.example", "/a?x=1"),
            (
                "https://api.example:8443/v1",
                "https://api.example:8443",
                "/v1",
            ),
            ("http://127.0.0.1:8081/a", "http://127.0.0.1:8081", "/a"),
            ("https://[2001:db8::1]/a", "https://[2001:db8::1]", "/a"),
        ] {
            let metadata = metadata(identifier);
            assert_eq!(metadata.url(), format!("{origin}{well_known}{suffix}"));
            assert_eq!(metadata.path_and_query(), format!("{well_known}{suffix}"));
            assert!(!metadata.path().contains('?'));
            let document: Value = serde_json::from_slice(metadata.document()).unwrap();
            assert_eq!(document["resource"], identifier, "byte for byte");
        }
    }

    #[test]
    fn an_identifier_that_clients_may_normalize_is_an_error_that_says_what_to_write() {
        for (bad, expected) in [
            ("https://API.example/a", "write `https://api.example/a`"),
            ("HTTPS://api.example", "write `https://api.example`"),
            ("https://api.example:443/a", "write `https://api.example/a`"),
            (
                "https://api.example/a/../b",
                "write `https://api.example/b`",
            ),
            ("https://api.example/a#b", "fragment"),
            ("https://user:s3cret@api.example/a", "user information"),
            ("https://api.example/a\"b", "characters of a URL"),
            ("https://api.example/a b", "characters of a URL"),
            ("https://api.example/\u{e9}", "characters of a URL"),
            ("api.example", "https://"),
            ("urn:api", "scheme"),
            ("", "must not be empty"),
        ] {
            let error = ProtectedResource::new(bad).unwrap_err();
            assert_eq!(error.setting(), "resource", "{bad}");
            let text = error.to_string();
            assert!(
                text.contains(expected) && !text.contains("s3cret"),
                "{bad}: {text}"
            );
        }
    }

    #[test]
    fn empty_members_are_omitted_and_reserved_ones_are_errors() {
        let resource = ProtectedResource::new("https://api.example").unwrap();
        let set = |name: &str| resource.clone().member(name, "x");
        for (name, reason) in [
            ("resource", "ProtectedResource::new"),
            (
                "authorization_servers",
                "the method `authorization_servers`",
            ),
            ("scopes_supported", "the method `scopes_supported`"),
            ("resource_name", "the method `resource_name`"),
            (
                "resource_documentation",
                "the method `resource_documentation`",
            ),
            ("resource_policy_uri", "the method `resource_policy_uri`"),
            ("resource_tos_uri", "the method `resource_tos_uri`"),
            ("bearer_methods_supported", "no other method"),
            ("dpop_signing_alg_values_supported", "bound to a key"),
            ("dpop_bound_access_tokens_required", "bound to a key"),
            (
                "tls_client_certificate_bound_access_tokens",
                "bound to a key",
            ),
        ] {
            let error = set(name).unwrap_err();
            assert_eq!(error.value(), Some(name));
            assert!(error.to_string().contains(reason), "{error}");
        }
        let mut resource = resource
            .resource_name("")
            .member("resource_name#fr", "Commandes")
            .unwrap();
        for (name, empty) in [
            ("x_array", json!([])),
            ("x_string", json!("")),
            ("x_object", json!({})),
            ("x_null", json!(null)),
        ] {
            resource = resource.member(name, empty).unwrap();
        }
        for (name, value) in [
            ("y_array", json!([""])),
            ("y_false", json!(false)),
            ("y_zero", json!(0)),
        ] {
            resource = resource.member(name, value).unwrap();
        }
        let metadata = resource.clone().into_metadata([]).unwrap();
        let document: Value = serde_json::from_slice(metadata.document()).unwrap();
        assert_eq!(
            document,
            json!({
                "resource": "https://api.example",
                "bearer_methods_supported": ["header"],
                "resource_name#fr": "Commandes",
                "y_array": [""],
                "y_false": false,
                "y_zero": 0,
            })
        );
        let long = resource.resource_name("x".repeat(MAX_DOCUMENT_LENGTH));
        let error = long.into_metadata([]).unwrap_err();
        assert_eq!(error.setting(), "resource metadata");
    }
}
