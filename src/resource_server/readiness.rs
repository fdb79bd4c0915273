//! When a resource server with several issuers is ready.

/// Of which issuers a resource server needs keys to be ready.
///
/// Decides [`keys_available`], which readiness probes use, [`wait_for_keys`], and the wait of
/// [`start`]. It decides no request: a token of an issuer without keys is answered 503.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::resource_server::ReadinessPolicy;
/// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
///
/// // An issuer that does not exist.
/// let partner = Issuer::new("https://partner.example")?;
/// let partner = TrustedIssuer::new(partner, Audience::new("orders")?);
/// let orders = ResourceServer::builder(issuer.issuer(), "orders")
///     .add_issuer(partner)
///     .transport(issuer.transport())
///     .readiness(ReadinessPolicy::Any)
///     .start()
///     .await?;
/// assert!(orders.keys_available());
/// # Ok(())
/// # }
/// ```
///
/// [`keys_available`]: super::ResourceServer::keys_available
/// [`wait_for_keys`]: super::ResourceServer::wait_for_keys
/// [`start`]: super::ResourceServerBuilder::start
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadinessPolicy {
    /// Of every issuer.
    #[default]
    All,
    /// Of one issuer at least.
    ///
    /// An instance that can serve the tokens of one issuer stays in the load balancer during an
    /// outage of another. [`KeySetStatus`](crate::key_set::KeySetStatus) reports each.
    Any,
}
