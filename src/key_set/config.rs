//! The configuration of a refresh task.

use std::sync::Arc;

use super::policy::RefreshPolicy;
use super::set::KeySet;
use crate::clock::{Clock, UnixTime};
use crate::oauth::{Endpoint, Issuer};
use crate::transport::HttpClient;

/// The configuration of a refresh task.
#[derive(Debug)]
pub(crate) struct RefresherConfig {
    pub(crate) issuer: Issuer,
    /// If `None`, discovered from the issuer's metadata.
    pub(crate) jwks_uri: Option<Endpoint>,
    /// How many keys are tried for one `kid`.
    pub(crate) max_candidate_keys: usize,
    pub(crate) policy: RefreshPolicy,
    /// Keys to start with, and the time at which they were fetched.
    pub(crate) initial_keys: Option<(KeySet, UnixTime)>,
    pub(crate) http_client: HttpClient,
    pub(crate) clock: Arc<dyn Clock>,
}
