//! The settings shared by all resources of a server.

use super::challenge::ChallengeParameters;
use super::protected_resource::{ProtectedResource, ProtectedResourceMetadata};
use super::readiness::ReadinessPolicy;
use super::token_cache;
use crate::error::ConfigError;
use crate::oauth::{Issuer, PlainHttp};

/// What servers with the same keys share, beside the issuers: see
/// [`ResourceServer::also`](super::ResourceServer::also).
#[derive(Clone, Debug)]
pub(super) struct SharedSettings {
    /// The issuers whose keys are fetched.
    pub(super) authorization_servers: Vec<Issuer>,
    pub(super) realm: String,
    /// Where the identifier of a resource may be plain `http`.
    pub(super) plain_http: PlainHttp,
    pub(super) cache: token_cache::Limits,
    pub(super) readiness: ReadinessPolicy,
}

/// What challenges and the document say about a resource.
pub(super) struct CheckedResource {
    pub(super) challenge: ChallengeParameters,
    pub(super) metadata: Option<ProtectedResourceMetadata>,
}

impl SharedSettings {
    /// Checks a resource, and makes its document; without one, only the realm is checked.
    pub(super) fn check_resource(
        &self,
        resource: Option<ProtectedResource>,
    ) -> Result<CheckedResource, ConfigError> {
        let metadata = match resource {
            Some(resource) => {
                let checked = self.plain_http.check(resource.url());
                checked.map_err(|error| error.with_setting("resource"))?;
                Some(resource.into_metadata(self.authorization_servers.iter().cloned())?)
            }
            None => None,
        };
        let url = metadata.as_ref().map(ProtectedResourceMetadata::url);
        Ok(CheckedResource {
            challenge: ChallengeParameters::new(&self.realm, url)?,
            metadata,
        })
    }
}
