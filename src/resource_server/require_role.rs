//! The layer that requires roles.

use tower_layer::Layer;

use super::{DefaultRejectionResponse, RequireLayer, RequireService, Requirement};

/// Passes only requests whose token has the required roles.
///
/// Roles are read as by [`AuthContext::has_role`](crate::AuthContext::has_role): flat ones, and
/// those of a Keycloak realm. [`all_of_client`](Self::all_of_client) is for the roles of a Keycloak
/// client. For roles in another claim use [`RequireLayer::new`] with a closure.
///
/// Apply it as a [`RequireScopeLayer`](crate::RequireScopeLayer). A request without the role gets a
/// 403 without a challenge: no other token of the caller has it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use tower::ServiceExt as _;
/// use tower_oauth::{AuthContext, RequireRoleLayer};
///
/// let reports = get(async || "reports").layer(RequireRoleLayer::all(["auditor"]));
/// let app: Router = Router::new().route("/reports", reports); // and `.layer(server.layer())`
/// let send = async |caller: AuthContext| -> Result<_, tower_oauth::BoxError> {
///     let request = Request::get("/reports").extension(caller).body(Body::empty())?;
///     Ok(app.clone().oneshot(request).await?)
/// };
/// assert_eq!(send(AuthContext::builder().roles(["auditor"]).build()).await?.status(), 200);
/// let response = send(AuthContext::builder().build()).await?;
/// assert_eq!(response.status(), 403);
/// assert!(!response.headers().contains_key("www-authenticate"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireRoleLayer<R = DefaultRejectionResponse>(RequireLayer<R>);

impl RequireRoleLayer {
    /// Requires all of `roles`.
    ///
    /// # Panics
    ///
    /// If `roles` is empty, or one of them is.
    pub fn all(roles: impl IntoIterator<Item: AsRef<str>>) -> Self {
        Self::requiring(Requirement::roles(roles))
    }

    /// Requires at least one of `roles`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use tower::{Layer as _, ServiceExt as _, service_fn};
    /// use tower_oauth::{AuthContext, RequireRoleLayer};
    ///
    /// let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    /// let either = RequireRoleLayer::any(["auditor", "admin"]).layer(inner);
    /// let mut request = Request::new(());
    /// request.extensions_mut().insert(AuthContext::builder().roles(["admin"]).build());
    /// assert_eq!(either.oneshot(request).await?.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`all`](Self::all).
    pub fn any(roles: impl IntoIterator<Item: AsRef<str>>) -> Self {
        Self::requiring(Requirement::any_role(roles))
    }

    /// Requires all of these roles of a client, as
    /// [`AuthContext::has_client_role`](crate::AuthContext::has_client_role) reads them.
    ///
    /// For Keycloak: `resource_access.{client}.roles`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use serde_json::json;
    /// use tower::{Layer as _, ServiceExt as _, service_fn};
    /// use tower_oauth::{AuthContext, RequireRoleLayer};
    ///
    /// let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    /// let editors = RequireRoleLayer::all_of_client("orders", ["editor"]).layer(inner);
    /// let send = async |client: &str| -> Result<_, tower_oauth::BoxError> {
    ///     let access = json!({ client: { "roles": ["editor"] } });
    ///     let caller = AuthContext::builder().claim("resource_access", access).build();
    ///     let mut request = Request::new(());
    ///     request.extensions_mut().insert(caller);
    ///     Ok(editors.clone().oneshot(request).await?.status())
    /// };
    /// assert_eq!(send("orders").await?, 200);
    /// assert_eq!(send("bills").await?, 403);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`all`](Self::all).
    pub fn all_of_client(
        client: impl AsRef<str>,
        roles: impl IntoIterator<Item: AsRef<str>>,
    ) -> Self {
        Self::requiring(Requirement::client_roles(client, roles))
    }

    /// Requires at least one of these roles of a client, as
    /// [`all_of_client`](Self::all_of_client) reads them.
    ///
    /// # Panics
    ///
    /// As [`all`](Self::all).
    pub fn any_of_client(
        client: impl AsRef<str>,
        roles: impl IntoIterator<Item: AsRef<str>>,
    ) -> Self {
        Self::requiring(Requirement::any_client_role(client, roles))
    }

    fn requiring(requirement: Requirement) -> Self {
        Self(RequireLayer::always("`RequireRoleLayer`", requirement))
    }
}

impl<R> RequireRoleLayer<R> {
    /// Sets the response to rejected requests, as
    /// [`RequireLayer::on_rejection`](crate::RequireLayer::on_rejection) does.
    pub fn on_rejection<N>(self, on_rejection: N) -> RequireRoleLayer<N> {
        RequireRoleLayer(self.0.on_rejection(on_rejection))
    }
}

impl<S, R: Clone> Layer<S> for RequireRoleLayer<R> {
    type Service = RequireService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}
