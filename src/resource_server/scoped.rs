//! An axum extractor that requires scopes.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use axum_core::extract::FromRequestParts;
use http::request::Parts;

use super::layer::Anonymous;
use super::{AuthContext, Rejection, Requirement};
use crate::log_limit::LogLimit;

/// The scopes that [`Scoped`] requires, as a type.
pub trait RequiredScopes {
    /// All of them are required. Checked when the program is compiled: at least one, and each a
    /// scope token (RFC 6749 §3.3).
    const SCOPES: &'static [&'static str];
}

/// Extracts the [`AuthContext`] of a caller that has all scopes of `T`.
///
/// The handler itself says what it requires, so no layer that is added to its route or to a
/// `MethodRouter` can apply to the wrong method. Dereferences to the [`AuthContext`].
///
/// A caller without the scopes gets the response of a
/// [`RequireScopeLayer`](crate::RequireScopeLayer). Unlike a layer, it adds no scopes to the
/// challenge of what the handler requires after it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use tower::ServiceExt as _;
/// use tower_oauth::AuthContext;
/// use tower_oauth::resource_server::{RequiredScopes, Scoped};
///
/// struct OrdersRead;
/// impl RequiredScopes for OrdersRead {
///     const SCOPES: &'static [&'static str] = &["orders.read"];
/// }
/// struct OrdersWrite;
/// impl RequiredScopes for OrdersWrite {
///     const SCOPES: &'static [&'static str] = &["orders.write"];
/// }
///
/// async fn list(caller: Scoped<OrdersRead>) -> String {
///     format!("the orders of {}", caller.subject().unwrap_or("a client"))
/// }
/// async fn create(_: Scoped<OrdersWrite>) -> &'static str {
///     "created"
/// }
///
/// let app: Router = Router::new().route("/orders", get(list).post(create));
/// // and `.layer(server.layer())`
///
/// let reader = AuthContext::builder().scopes(["orders.read"]).build();
/// let send = async |method: &str| -> Result<_, tower_oauth::BoxError> {
///     let request = Request::builder().method(method).uri("/orders").extension(reader.clone());
///     Ok(app.clone().oneshot(request.body(Body::empty())?).await?.status())
/// };
/// assert_eq!(send("GET").await?, 200);
/// assert_eq!(send("POST").await?, 403);
/// # Ok(())
/// # }
/// ```
///
/// A name that is no scope token does not compile:
///
/// ```compile_fail
/// # use tower_oauth::resource_server::{RequiredScopes, Scoped};
/// struct Two;
/// impl RequiredScopes for Two {
///     const SCOPES: &'static [&'static str] = &["orders.read orders.write"];
/// }
/// async fn list(_: Scoped<Two>) {}
/// let _: axum::Router = axum::Router::new().route("/", axum::routing::get(list));
/// ```
pub struct Scoped<T> {
    context: AuthContext,
    scopes: PhantomData<fn() -> T>,
}

impl<T> Scoped<T> {
    /// Returns the context.
    #[must_use]
    pub fn into_inner(self) -> AuthContext {
        self.context
    }
}

impl<T> Deref for Scoped<T> {
    type Target = AuthContext;

    fn deref(&self) -> &AuthContext {
        &self.context
    }
}

impl<T: RequiredScopes, S: Send + Sync> FromRequestParts<S> for Scoped<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        static LAYER_MISSING: LogLimit = LogLimit::new();
        const {
            assert!(
                are_scope_tokens(T::SCOPES),
                "SCOPES must have at least one scope token, and nothing else"
            );
        }
        if let Some(context) = AuthContext::from_extensions(&parts.extensions) {
            context.require_scopes(T::SCOPES)?;
            return Ok(Self {
                context: context.clone(),
                scopes: PhantomData,
            });
        }
        Err(match parts.extensions.get::<Anonymous>() {
            Some(Anonymous) => Requirement::scopes(T::SCOPES).reject_anonymous(),
            None => {
                let part = "a handler that extracts `Scoped`";
                Rejection::layer_missing(part, &LAYER_MISSING, false)
            }
        })
    }
}

/// As [`Scope::new`](crate::Scope::new) checks it, for constants.
const fn are_scope_tokens(mut scopes: &[&str]) -> bool {
    if scopes.is_empty() {
        return false;
    }
    while let [scope, others @ ..] = scopes {
        let mut bytes = scope.as_bytes();
        if bytes.is_empty() {
            return false;
        }
        while let [byte, rest @ ..] = bytes {
            if !matches!(*byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e) {
                return false;
            }
            bytes = rest;
        }
        scopes = others;
    }
    true
}

impl<T> Clone for Scoped<T> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            scopes: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Scoped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scoped").field(&self.context).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::Scope;

    #[test]
    fn a_constant_is_a_scope_token_exactly_if_it_is_a_scope() {
        for byte in 0..=0x7f_u8 {
            let text = char::from(byte).to_string();
            assert_eq!(are_scope_tokens(&[&text]), Scope::new(&text).is_ok());
            assert_eq!(are_scope_tokens(&["a", &text]), Scope::new(&text).is_ok());
        }
        for (scopes, are_valid) in [
            (&[][..], false),
            (&[""][..], false),
            (&["é"][..], false),
            (&["a", "b.c"][..], true),
            (&["a", "b c"][..], false),
        ] {
            assert_eq!(are_scope_tokens(scopes), are_valid, "{scopes:?}");
        }
    }
}
