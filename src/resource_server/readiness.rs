//! When a resource server with several issuers is ready.

/// Of which issuers a resource server needs keys to be ready.
///
/// Decides [`keys_available`], which readiness probes use, [`wait_for_keys`], and the wait of
/// [`start`]. It decides no request: a token of an issuer without keys is answered 503.
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
