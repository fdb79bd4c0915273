//! Why a token is accepted or rejected, check by check.
//!
//! The outcome is that of the validation, which [`ResourceServer::validate`] makes too. The list of
//! checks describes it, and goes on after the first check that fails.

mod check;
mod claims;
mod cure;
mod examine;
mod header;
mod keys;

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

pub use self::check::{Check, CheckOutcome};
use self::examine::Examination;
use super::{RejectionKind, ResourceServer};
use crate::key_set::KeySetStatus;

impl ResourceServer {
    /// Explains why a token is accepted or rejected, check by check.
    ///
    /// For the operator: a shell, a test, a route for administrators. Never show it to the caller,
    /// because it has the settings of this server and the claims of the token. In this crate only the
    /// dashboard of the development server calls it.
    ///
    /// [`Explanation::rejection`] is the kind that [`validate`](Self::validate) returns now. It
    /// differs only where `validate` waits, for newer keys or for a permit to verify a signature:
    /// this method fetches no keys and takes no permit. Nothing else changes either: the token is
    /// not cached, and nothing is counted or logged. What a
    /// [`RequireLayer`](super::RequireLayer) requires is no check of the token.
    ///
    /// A closure gets only tokens that `validate` gives to it. That of
    /// [`require`](crate::TrustedIssuer::require) is called once, that of
    /// [`client_id_from`](crate::TrustedIssuer::client_id_from) twice.
    ///
    /// `token` is the token alone, without `Bearer`. The signature is not in the explanation; the
    /// claims in it are escaped, and cut to 200 characters.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let explanation = orders.explain(&issuer.mint(&shop).audience(["account"]).sign());
    /// assert_eq!(explanation.rejection(), Some(RejectionKind::InvalidAudience));
    /// assert!(explanation.to_string().contains(
    ///     r#"aud is ["account"], trusted: ["orders"]. Keycloak: add an audience mapper"#
    /// ));
    ///
    /// let explanation = orders.explain(&issuer.mint(&shop).audience(["orders"]).sign());
    /// assert!(explanation.is_accepted());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn explain(&self, token: &str) -> Explanation {
        let now = self.0.clock.now();
        let rejection = self.validate_dry(token, now).err();
        let (checks, key_set) = Examination::new(self, token, now, rejection).finish();
        Explanation {
            rejection,
            checks,
            key_set,
        }
    }
}

/// Why a token is accepted or rejected: see [`ResourceServer::explain`].
///
/// `Display` has one line for the outcome and one for each check, those that failed first.
/// `Serialize` has the members `accepted`, `rejection`, `checks` and `key_set`.
///
/// ```
/// use tower_oauth::ResourceServer;
/// use tower_oauth::resource_server::CheckOutcome;
///
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// let explanation = orders.explain("d2hhdCBpcyB0aGlz");
/// assert_eq!(explanation.to_string().lines().next(), Some("rejected: malformed (401)"));
///
/// let segments = explanation.check("segments").ok_or("no such check")?;
/// assert_eq!(segments.outcome(), CheckOutcome::Failed);
/// assert_eq!(segments.found(), Some("1 part, an opaque token"));
///
/// let json = serde_json::to_value(&explanation)?;
/// assert_eq!(json["rejection"], "malformed");
/// assert_eq!(json["checks"][2]["name"], "segments");
/// # Ok::<(), tower_oauth::BoxError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    rejection: Option<RejectionKind>,
    checks: Vec<Check>,
    key_set: Option<KeySetStatus>,
}

impl Explanation {
    /// Whether [`ResourceServer::validate`] accepts the token.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.rejection.is_none()
    }

    /// The kind of the rejection; `None` for an accepted token.
    #[must_use]
    pub fn rejection(&self) -> Option<RejectionKind> {
        self.rejection
    }

    /// All checks, in the order of the validation.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The check of this name; [`Check`] lists the names.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name() == name)
    }

    /// The key set of the token's issuer; `None` if the issuer is not trusted.
    #[must_use]
    pub fn key_set(&self) -> Option<&KeySetStatus> {
        self.key_set.as_ref()
    }

    fn with_outcome(&self, outcome: CheckOutcome) -> impl Iterator<Item = &Check> {
        let checks = self.checks.iter();
        checks.filter(move |check| check.outcome() == outcome)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rejection {
            None => f.write_str("accepted")?,
            Some(kind) => write!(f, "rejected: {kind} ({})", kind.status().as_u16())?,
        }
        let signature = self.check("signature").map(Check::outcome);
        if signature != Some(CheckOutcome::Passed) {
            f.write_str("\nThe signature is not verified: anyone can have written the claims.")?;
        }
        for check in self.with_outcome(CheckOutcome::Failed) {
            write!(f, "\nfailed   {check}")?;
        }
        for check in self.with_outcome(CheckOutcome::Passed) {
            write!(f, "\npassed   {check}")?;
        }
        let skipped: Vec<&str> = self
            .with_outcome(CheckOutcome::Skipped)
            .map(Check::name)
            .collect();
        if !skipped.is_empty() {
            write!(f, "\nskipped  {}", skipped.join(", "))?;
        }
        Ok(())
    }
}

impl Serialize for Explanation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut explanation = serializer.serialize_struct("Explanation", 4)?;
        explanation.serialize_field("accepted", &self.is_accepted())?;
        explanation.serialize_field("rejection", &self.rejection.map(RejectionKind::as_str))?;
        explanation.serialize_field("checks", &self.checks)?;
        explanation.serialize_field("key_set", &self.key_set)?;
        explanation.end()
    }
}
