//! What a request must have besides a valid token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::challenge::StepUp;
use super::claim_rules::found_scopes;
use super::rejection::Details;
use super::{AuthContext, Rejection, RejectionKind, rejection_events};
use crate::jwt::Mismatch;
use crate::oauth::Scope;
use crate::text;

/// What a request must have besides a valid token.
///
/// Scopes, roles, an authentication that is recent or strong, or any condition on the
/// [`AuthContext`], with [`and`](Self::and) and [`or`](Self::or). Cheap to clone.
///
/// Use it in a [`RequireLayer`](crate::RequireLayer), or in a handler with
/// [`AuthContext::require`].
///
/// ```
/// use tower_oauth::resource_server::Requirement;
/// use tower_oauth::AuthContext;
///
/// let approve = Requirement::scopes(["orders.write"])
///     .and(Requirement::any_role(["approver", "manager"]))
///     .and(|caller: &AuthContext| caller.client_id() == Some("shop"));
///
/// let caller = AuthContext::builder().client_id("shop").scopes(["orders.write"]);
/// assert!(!approve.is_met_by(&caller.clone().build()));
/// assert!(approve.is_met_by(&caller.roles(["manager"]).build()));
/// ```
///
/// # The response
///
/// | not met | response |
/// | --- | --- |
/// | scopes | 403, `insufficient_scope` (RFC 6750 §3.1) |
/// | `acr_values`, `max_age` | 401, `insufficient_user_authentication` (RFC 9470 §3) |
/// | roles, a condition | 403 without a challenge |
///
/// There is no error code for a missing role, and no other token of the caller has it. Without a
/// challenge, clients do not request one.
///
/// Of several parts of one requirement that are not met, a role or a condition decides, because no
/// other token helps; else the first part does. The challenge has the scopes of all parts, and that
/// of a 401 the authentication, too: the client's next request for a token asks for exactly these.
///
/// A layer is checked before what is inside of it: another layer, an extractor or a handler. Its
/// rejection names what the layer requires alone. A rejection from inside names what both require.
/// The extractors and the code of one handler add nothing to each other.
#[derive(Clone, Debug)]
#[must_use]
pub struct Requirement(Expression);

#[derive(Clone, Debug)]
enum Expression {
    Authenticated,
    Scopes(Arc<[Scope]>, Quantifier),
    Roles(Arc<Roles>, Quantifier),
    Condition(Condition),
    AcrValues(Arc<[Box<str>]>),
    MaxAge(Duration),
    And(Arc<[Requirement; 2]>),
    Or(Arc<[Requirement; 2]>),
}

#[derive(Clone, Copy, Debug)]
enum Quantifier {
    All,
    Any,
}

#[derive(Debug)]
struct Roles {
    /// The client whose roles they are, or the issuer's.
    client: Option<Box<str>>,
    names: Box<[Box<str>]>,
}

#[derive(Clone)]
struct Condition(Arc<dyn Fn(&AuthContext) -> bool + Send + Sync>);

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condition")
    }
}

/// What a requirement needs, and which part of it is not met.
#[derive(Default)]
struct Needs<'r> {
    /// Without duplicates.
    scopes: Vec<Scope>,
    step_up: StepUp,
    unmet: Option<&'r Expression>,
}

impl Requirement {
    /// Requires that a condition is true.
    ///
    /// A closure converts into a `Requirement`, so that [`and`](Self::and), [`or`](Self::or) and
    /// [`RequireLayer::new`](crate::RequireLayer::new) take one. It must write the type of its
    /// parameter.
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let pro = Requirement::new(|caller: &AuthContext| {
    ///     caller.claim::<String>("plan").is_ok_and(|plan| plan.as_deref() == Some("pro"))
    /// });
    /// assert!(pro.is_met_by(&AuthContext::builder().claim("plan", "pro").build()));
    /// assert!(!pro.is_met_by(&AuthContext::builder().claim("plan", "free").build()));
    /// ```
    pub fn new(condition: impl Fn(&AuthContext) -> bool + Send + Sync + 'static) -> Self {
        Self(Expression::Condition(Condition(Arc::new(condition))))
    }

    /// Requires nothing besides a valid token.
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// assert!(Requirement::authenticated().is_met_by(&AuthContext::builder().build()));
    /// ```
    pub fn authenticated() -> Self {
        Self(Expression::Authenticated)
    }

    /// Requires all of `scopes`.
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let write = Requirement::scopes(["orders.read", "orders.write"]);
    /// assert!(!write.is_met_by(&AuthContext::builder().scopes(["orders.write"]).build()));
    /// ```
    ///
    /// # Panics
    ///
    /// If `scopes` is empty, or one of them is not a valid scope token (RFC 6749 §3.3).
    pub fn scopes(scopes: impl IntoIterator<Item: AsRef<str>>) -> Self {
        Self::with_scopes(scopes, Quantifier::All)
    }

    /// Requires at least one of `scopes`.
    ///
    /// The challenge names all of them, in this order, and clients request all. Where that matters,
    /// use [`scopes`](Self::scopes) and [`or`](Self::or).
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let read = Requirement::any_scope(["orders.read", "orders.admin"]);
    /// assert!(read.is_met_by(&AuthContext::builder().scopes(["orders.admin"]).build()));
    /// ```
    ///
    /// # Panics
    ///
    /// As [`scopes`](Self::scopes).
    pub fn any_scope(scopes: impl IntoIterator<Item: AsRef<str>>) -> Self {
        Self::with_scopes(scopes, Quantifier::Any)
    }

    fn with_scopes(scopes: impl IntoIterator<Item: AsRef<str>>, quantifier: Quantifier) -> Self {
        let scopes = valid_scopes(scopes);
        assert!(!scopes.is_empty(), "at least one scope must be required");
        Self(Expression::Scopes(scopes, quantifier))
    }

    /// Requires all of `roles`, as [`AuthContext::has_role`] reads them.
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let both = Requirement::roles(["buyer", "seller"]);
    /// assert!(both.is_met_by(&AuthContext::builder().roles(["seller", "buyer"]).build()));
    /// assert!(!both.is_met_by(&AuthContext::builder().roles(["seller"]).build()));
    /// ```
    ///
    /// # Panics
    ///
    /// If `roles` is empty, or one of them is.
    pub fn roles(roles: impl IntoIterator<Item: AsRef<str>>) -> Self {
        Self::with_roles(None, roles, Quantifier::All)
    }

    /// Requires at least one of `roles`, as [`AuthContext::has_role`] reads them.
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let either = Requirement::any_role(["buyer", "seller"]);
    /// assert!(either.is_met_by(&AuthContext::builder().roles(["seller"]).build()));
    /// ```
    ///
    /// # Panics
    ///
    /// As [`roles`](Self::roles).
    pub fn any_role(roles: impl IntoIterator<Item: AsRef<str>>) -> Self {
        Self::with_roles(None, roles, Quantifier::Any)
    }

    /// Requires all of these roles of a client, as [`AuthContext::has_client_role`] reads them.
    ///
    /// For Keycloak: `resource_access.{client}.roles`.
    ///
    /// ```
    /// use serde_json::json;
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let buyer = Requirement::client_roles("orders", ["buyer"]);
    /// let access = json!({ "orders": { "roles": ["buyer"] } });
    /// assert!(buyer.is_met_by(&AuthContext::builder().claim("resource_access", access).build()));
    /// assert!(!buyer.is_met_by(&AuthContext::builder().roles(["buyer"]).build()));
    /// ```
    ///
    /// # Panics
    ///
    /// As [`roles`](Self::roles).
    pub fn client_roles(
        client: impl AsRef<str>,
        roles: impl IntoIterator<Item: AsRef<str>>,
    ) -> Self {
        Self::with_roles(Some(client.as_ref()), roles, Quantifier::All)
    }

    /// Requires at least one of these roles of a client, as [`AuthContext::has_client_role`] reads
    /// them.
    ///
    /// ```
    /// use serde_json::json;
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let either = Requirement::any_client_role("orders", ["buyer", "seller"]);
    /// let access = json!({ "orders": { "roles": ["seller"] } });
    /// assert!(either.is_met_by(&AuthContext::builder().claim("resource_access", access).build()));
    /// ```
    ///
    /// # Panics
    ///
    /// As [`roles`](Self::roles).
    pub fn any_client_role(
        client: impl AsRef<str>,
        roles: impl IntoIterator<Item: AsRef<str>>,
    ) -> Self {
        Self::with_roles(Some(client.as_ref()), roles, Quantifier::Any)
    }

    fn with_roles(
        client: Option<&str>,
        roles: impl IntoIterator<Item: AsRef<str>>,
        quantifier: Quantifier,
    ) -> Self {
        let names: Box<[Box<str>]> = roles.into_iter().map(|one| one.as_ref().into()).collect();
        assert!(!names.is_empty(), "at least one role must be required");
        assert!(
            names.iter().all(|name| !name.is_empty()),
            "a role must not be empty"
        );
        let client = client.map(Into::into);
        Self(Expression::Roles(
            Arc::new(Roles { client, names }),
            quantifier,
        ))
    }

    /// Requires that the claim `acr` is one of these, in order of preference.
    ///
    /// How the user authenticated
    /// ([RFC 9470 §3](https://www.rfc-editor.org/rfc/rfc9470#section-3)). Without the claim it is
    /// not met.
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let two_factors = Requirement::acr_values(["urn:example:mfa"]);
    /// let caller = AuthContext::builder();
    /// assert!(two_factors.is_met_by(&caller.clone().claim("acr", "urn:example:mfa").build()));
    /// assert!(!two_factors.is_met_by(&caller.build()));
    /// ```
    ///
    /// # Panics
    ///
    /// If there is none, or one is empty or has other characters than a scope token: spaces
    /// separate them in the challenge.
    pub fn acr_values(values: impl IntoIterator<Item: AsRef<str>>) -> Self {
        // Each is one word of ASCII, as a scope is.
        let values = valid_scopes(values);
        assert!(
            !values.is_empty(),
            "at least one acr value must be accepted"
        );
        let values = values.iter().map(|value| value.as_str().into());
        Self(Expression::AcrValues(values.collect()))
    }

    /// Requires that the user authenticated no longer than `max_age` ago, in whole seconds.
    ///
    /// By the claim `auth_time`, with the leeway of the issuer
    /// ([RFC 9470 §3](https://www.rfc-editor.org/rfc/rfc9470#section-3)). Without the claim, or if
    /// it is in the future, it is not met.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_oauth::clock::{Clock as _, SystemClock};
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let recent = Requirement::max_age(Duration::from_secs(300));
    /// let caller = |age| {
    ///     let auth_time = SystemClock.now().saturating_sub(Duration::from_secs(age));
    ///     AuthContext::builder().claim("auth_time", auth_time.as_secs()).build()
    /// };
    /// assert!(recent.is_met_by(&caller(200)));
    /// assert!(!recent.is_met_by(&caller(400)));
    /// ```
    pub fn max_age(max_age: Duration) -> Self {
        Self(Expression::MaxAge(max_age))
    }

    /// Requires both.
    ///
    /// If several parts are not met, a role or a condition decides the response, because no other
    /// token helps; else the first part does. Its challenge names the scopes of both.
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let both = Requirement::scopes(["orders.read"]).and(Requirement::scopes(["orders.list"]));
    /// let caller = AuthContext::builder().scopes(["orders.read"]).build();
    /// let rejection = caller.require(&both).unwrap_err();
    /// assert_eq!(rejection.required_scopes(), ["orders.read", "orders.list"]);
    /// ```
    pub fn and(self, other: impl Into<Self>) -> Self {
        Self(Expression::And(Arc::new([self, other.into()])))
    }

    /// Requires at least one of the two.
    ///
    /// If neither is met, the response is that of the first one that another token can meet: of
    /// scopes or authentication, not of roles or a condition. If there is none, it is that of the
    /// first.
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let either = Requirement::roles(["admin"]).or(Requirement::scopes(["orders.read"]));
    /// assert!(either.is_met_by(&AuthContext::builder().roles(["admin"]).build()));
    /// let rejection = AuthContext::builder().build().require(&either).unwrap_err();
    /// assert_eq!(rejection.required_scopes(), ["orders.read"]);
    /// ```
    pub fn or(self, other: impl Into<Self>) -> Self {
        Self(Expression::Or(Arc::new([self, other.into()])))
    }

    /// Whether the caller meets the requirement.
    ///
    /// ```
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::AuthContext;
    ///
    /// let read = Requirement::scopes(["orders.read"]);
    /// assert!(read.is_met_by(&AuthContext::builder().scopes(["orders.read"]).build()));
    /// assert!(!read.is_met_by(&AuthContext::builder().build()));
    /// ```
    #[must_use]
    pub fn is_met_by(&self, context: &AuthContext) -> bool {
        self.0.is_met_by(context)
    }

    /// Checks a request that is authenticated.
    pub(super) fn check(&self, context: &AuthContext) -> Result<(), Rejection> {
        if self.is_met_by(context) {
            return Ok(());
        }
        Err(self.rejection(context))
    }

    #[cold]
    fn rejection(&self, context: &AuthContext) -> Rejection {
        let Needs {
            scopes,
            step_up,
            unmet,
        } = self.0.needs(Some(context));
        // A condition that is true now, but was not before.
        let unmet = unmet.unwrap_or(&self.0);
        let kind = unmet.kind();
        let is_named = kind != RejectionKind::Forbidden && !scopes.is_empty();
        let scopes = is_named.then(|| scopes.into());
        let is_step_up = kind == RejectionKind::InsufficientAuthentication;
        let step_up = is_step_up.then(|| Arc::new(step_up));
        Rejection {
            details: details(context, || unmet.mismatch(context)),
            ..Rejection::requiring(kind, scopes, step_up)
        }
    }

    /// Adds what this needs to a rejection by a requirement inside, which is checked after it.
    ///
    /// `None` if there is nothing to add.
    #[cold]
    pub(super) fn add_to(&self, inner: &Rejection, context: &AuthContext) -> Option<Rejection> {
        let is_step_up = inner.kind == RejectionKind::InsufficientAuthentication;
        if inner.is_complete || !(is_step_up || inner.kind == RejectionKind::InsufficientScope) {
            return None;
        }
        let mut needs = self.0.needs(Some(context));
        needs.add_scopes(inner.required_scopes());
        let scopes = (!needs.scopes.is_empty()).then(|| needs.scopes.into());
        let step_up = inner.step_up.as_deref().cloned().unwrap_or_default();
        let step_up = is_step_up.then(|| Arc::new(needs.step_up.and(step_up)));
        let Rejection {
            headers,
            required_scopes,
            step_up,
            ..
        } = Rejection::requiring(inner.kind, scopes, step_up);
        Some(Rejection {
            headers,
            required_scopes,
            step_up,
            ..inner.clone()
        })
    }

    /// Rejects a request without a token, with the scopes that it needs.
    #[cold]
    pub(super) fn reject_anonymous(&self) -> Rejection {
        let scopes = self.0.needs(None).scopes;
        let scopes = (!scopes.is_empty()).then(|| scopes.into());
        Rejection::requiring(RejectionKind::MissingToken, scopes, None)
    }
}

impl<F> From<F> for Requirement
where
    F: Fn(&AuthContext) -> bool + Send + Sync + 'static,
{
    fn from(condition: F) -> Self {
        Self::new(condition)
    }
}

impl Expression {
    #[inline]
    fn is_met_by(&self, context: &AuthContext) -> bool {
        match self {
            Self::Scopes(scopes, quantifier) => {
                let is_granted = |scope: &Scope| context.has_scope(scope.as_str());
                match quantifier {
                    Quantifier::All => scopes.iter().all(is_granted),
                    Quantifier::Any => scopes.iter().any(is_granted),
                }
            }
            Self::Roles(roles, quantifier) => {
                let has = |name: &str| match &roles.client {
                    Some(client) => context.has_client_role(client, name),
                    None => context.has_role(name),
                };
                let mut names = roles.names.iter().map(|name| &**name);
                match quantifier {
                    Quantifier::All => names.all(has),
                    Quantifier::Any => names.any(has),
                }
            }
            Self::Authenticated => true,
            Self::Condition(Condition(condition)) => condition(context),
            Self::AcrValues(values) => context
                .acr()
                .is_some_and(|acr| values.iter().any(|value| **value == *acr)),
            Self::MaxAge(max_age) => context.auth_time().is_some_and(|auth_time| {
                let (now, leeway) = (context.now(), context.leeway());
                let latest = auth_time.saturating_add(*max_age).saturating_add(leeway);
                auth_time <= now.saturating_add(leeway) && now <= latest
            }),
            Self::And(both) => both.iter().all(|one| one.is_met_by(context)),
            Self::Or(either) => either.iter().any(|one| one.is_met_by(context)),
        }
    }

    /// What this needs of a token: of this one, or of none.
    fn needs(&self, context: Option<&AuthContext>) -> Needs<'_> {
        let leaf = || Needs {
            unmet: (!context.is_some_and(|context| self.is_met_by(context))).then_some(self),
            ..Needs::default()
        };
        match self {
            Self::Authenticated | Self::Condition(_) | Self::Roles(..) => leaf(),
            Self::Scopes(scopes, _) => {
                let mut needs = leaf();
                needs.add_scopes(scopes);
                needs
            }
            Self::AcrValues(values) => {
                let mut needs = leaf();
                needs.step_up.acr_values = Some(values.to_vec());
                needs
            }
            Self::MaxAge(max_age) => {
                let mut needs = leaf();
                needs.step_up.max_age = Some(*max_age);
                needs
            }
            Self::And(both) => {
                let [first, second] = &**both;
                let (mut needs, other) = (first.0.needs(context), second.0.needs(context));
                if other.rank() > needs.rank() {
                    needs.unmet = other.unmet;
                }
                needs.add_scopes(&other.scopes);
                needs.step_up = needs.step_up.and(other.step_up);
                needs
            }
            Self::Or(either) => {
                let [first, second] = &**either;
                let (first, second) = (first.0.needs(context), second.0.needs(context));
                if second.rank() < first.rank() {
                    second
                } else {
                    first
                }
            }
        }
    }

    /// The reason for a rejection if this is not met.
    fn kind(&self) -> RejectionKind {
        match self {
            Self::Scopes(..) => RejectionKind::InsufficientScope,
            Self::AcrValues(_) | Self::MaxAge(_) => RejectionKind::InsufficientAuthentication,
            _ => RejectionKind::Forbidden,
        }
    }

    /// What the event of the rejection says.
    fn mismatch(&self, context: &AuthContext) -> (String, String) {
        match self {
            Self::Scopes(scopes, quantifier) => {
                let scopes = text::setting_list(&**scopes);
                let expected = format!("{quantifier} of the scopes {scopes}");
                (expected, found_scopes(context))
            }
            Self::Roles(roles, quantifier) => {
                let names = text::setting_list(&roles.names);
                let (of_client, found) = match &roles.client {
                    Some(client) => (
                        format!(" of the client {}", text::setting(client)),
                        text::shown_list(context.client_roles(client)),
                    ),
                    None => (String::new(), text::shown_list(context.roles())),
                };
                let expected = format!("{quantifier} of the roles {names}{of_client}");
                (expected, format!("roles {found}"))
            }
            Self::AcrValues(values) => {
                let found = context.acr().map_or_else(
                    || "no acr".to_owned(),
                    |acr| format!("acr {}", text::shown(acr)),
                );
                let values = text::setting_list(&**values);
                (format!("acr with one of {values}"), found)
            }
            Self::MaxAge(max_age) => {
                let found = context.auth_time().map_or_else(
                    || "no auth_time".to_owned(),
                    |at| format!("auth_time {}", text::relative(at, context.now())),
                );
                let (max_age, leeway) = (text::duration(*max_age), context.leeway().as_secs());
                let expected =
                    format!("auth_time at most {max_age} ago, with {leeway} s of leeway");
                (expected, found)
            }
            _ => (
                "a condition of the route that is true".to_owned(),
                "false".to_owned(),
            ),
        }
    }
}

impl Needs<'_> {
    fn add_scopes(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            if !self.scopes.contains(scope) {
                self.scopes.push(scope.clone());
            }
        }
    }

    /// The alternative with the lowest rank is taken: one that is met, else one that another token
    /// can meet. Of parts that all have to be met, the one with the highest rank decides.
    fn rank(&self) -> u8 {
        match self.unmet.map(Expression::kind) {
            None => 0,
            Some(RejectionKind::Forbidden) => 2,
            Some(_) => 1,
        }
    }
}

impl fmt::Display for Quantifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Any => "one",
        })
    }
}

impl AuthContext {
    /// Requires something of the caller in a handler.
    ///
    /// The [`Rejection`] is a response in axum (feature `axum`). The layer that authenticated the
    /// request adds its realm and metadata to the challenge on the way out, and its
    /// [`on_rejection`](crate::ResourceServerLayer::on_rejection) makes the response.
    ///
    /// ```
    /// use tower_oauth::resource_server::{RejectionKind, Requirement};
    /// use tower_oauth::{AuthContext, Rejection};
    ///
    /// async fn delete(caller: AuthContext) -> Result<&'static str, Rejection> {
    ///     caller.require(&Requirement::roles(["admin"]))?;
    ///     Ok("deleted")
    /// }
    ///
    /// # futures_executor::block_on(async {
    /// let rejection = delete(AuthContext::builder().build()).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::Forbidden);
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// If the caller does not meet the requirement.
    pub fn require(&self, requirement: &Requirement) -> Result<(), Rejection> {
        requirement.check(self)
    }

    /// Requires all of `scopes` in a handler, as [`require`](Self::require) does.
    ///
    /// No scopes require nothing. A text that is not a scope token (RFC 6749 §3.3) is not met.
    ///
    /// Name all scopes that the handler requires, also those of its `Scoped`: the challenge has
    /// these and those of the layers around it, and a client requests no others.
    ///
    /// ```
    /// use tower_oauth::{AuthContext, Rejection};
    ///
    /// async fn cancel(caller: AuthContext) -> Result<&'static str, Rejection> {
    ///     caller.require_scopes(["orders.write"])?;
    ///     Ok("cancelled")
    /// }
    ///
    /// # futures_executor::block_on(async {
    /// let rejection = cancel(AuthContext::builder().build()).await.unwrap_err();
    /// assert_eq!(rejection.status(), 403);
    /// assert_eq!(rejection.required_scopes(), ["orders.write"]);
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// If the token lacks one of them.
    pub fn require_scopes(
        &self,
        scopes: impl IntoIterator<Item: AsRef<str>, IntoIter: Clone>,
    ) -> Result<(), Rejection> {
        let scopes = scopes.into_iter();
        if scopes.clone().all(|scope| self.has_scope(scope.as_ref())) {
            return Ok(());
        }
        let rejection = Rejection::insufficient_scope(scopes);
        let mismatch = || {
            let required = text::setting_list(rejection.required_scopes());
            (format!("all of the scopes {required}"), found_scopes(self))
        };
        let details = details(self, mismatch);
        Err(Rejection {
            details,
            ..rejection
        })
    }
}

/// For the event of a rejection: what is expected, and what the token has.
fn details(context: &AuthContext, mismatch: impl FnOnce() -> (String, String)) -> Details {
    if !rejection_events::are_logged() {
        return Details::default();
    }
    let (expected, found) = mismatch();
    let mismatch = Mismatch::new(context.client_id(), expected, found);
    Details {
        issuer: Some(context.issuer().clone()),
        mismatch: Some(Arc::new(mismatch)),
        ..Details::default()
    }
}

/// Panics if one of them is not a valid scope token.
pub(super) fn valid_scopes(scopes: impl IntoIterator<Item: AsRef<str>>) -> Arc<[Scope]> {
    let valid = |scope| Scope::new(scope).expect("each must be a scope token (RFC 6749 §3.3)");
    scopes.into_iter().map(valid).collect()
}
