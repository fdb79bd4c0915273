//! Where assertions come from.

use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;

use super::box_future::BoxFuture;
use crate::error::BoxError;

/// Makes or reads an assertion, a JWT that proves who the client is
/// ([RFC 7523 §3](https://www.rfc-editor.org/rfc/rfc7523#section-3)).
///
/// Implement it for an assertion that a key management service signs, or that a platform issues.
///
/// ```
/// use secrecy::SecretString;
/// use tower_oauth::client::{AssertionSource, BoxFuture};
/// use tower_oauth::BoxError;
///
/// /// An agent that issues a token for an audience.
/// #[derive(Debug)]
/// struct Agent;
///
/// impl AssertionSource for Agent {
///     fn assertion<'a>(
///         &'a self,
///         audience: &'a str,
///     ) -> BoxFuture<'a, Result<SecretString, BoxError>> {
///         Box::pin(async move {
///             // A request to the agent.
///             Ok(format!("assertion-for:{audience}").into())
///         })
///     }
/// }
/// # use secrecy::ExposeSecret as _;
/// # let assertion = futures_executor::block_on(Agent.assertion("https://as.example"))?;
/// # assert_eq!(assertion.expose_secret(), "assertion-for:https://as.example");
/// # Ok::<(), BoxError>(())
/// ```
pub trait AssertionSource: fmt::Debug + Send + Sync + 'static {
    /// Returns an assertion for this audience.
    ///
    /// Called for each token request, whose time limit includes this call. `audience` is the `aud`
    /// that the authorization server expects. A source that signs must use it as the only audience,
    /// and make a new `jti` each time. A source that reads may ignore it.
    ///
    /// # Errors
    ///
    /// If there is no assertion. The token request is retried. The error must not contain a secret,
    /// because it is logged.
    fn assertion<'a>(&'a self, audience: &'a str) -> BoxFuture<'a, Result<SecretString, BoxError>>;

    /// What an error calls the assertion, such as `the assertion in /run/token`.
    ///
    /// It must not contain a secret. Default: `the assertion`.
    fn description(&self) -> String {
        "the assertion".to_owned()
    }

    /// Whether the source may return the same assertion for several token requests, as a file
    /// does.
    ///
    /// If the server refuses such an assertion, and the source has another one by then, the token
    /// request is sent once more. Default: `false`.
    fn is_reusable(&self) -> bool {
        false
    }
}

/// Shares one source, or chooses one at run time.
impl AssertionSource for Arc<dyn AssertionSource> {
    fn assertion<'a>(&'a self, audience: &'a str) -> BoxFuture<'a, Result<SecretString, BoxError>> {
        (**self).assertion(audience)
    }

    fn description(&self) -> String {
        (**self).description()
    }

    fn is_reusable(&self) -> bool {
        (**self).is_reusable()
    }
}
