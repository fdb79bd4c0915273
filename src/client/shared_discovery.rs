//! Discovery for all clones of a builder: one fetch of the metadata serves each of them.
//!
//! A clone may have other settings. So each selects the endpoint by itself, and checks whether it
//! may use it.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::token_endpoint::DiscoveryContext;
use crate::error::Error;
use crate::metadata::{self, Metadata};
use crate::oauth::{Endpoint, Issuer};
use crate::timer::now;
use crate::transport::Limits;

/// How long metadata are used.
pub(super) const DISCOVERY_INTERVAL: Duration = Duration::from_secs(3600);

/// Locked during a discovery, never during a token request.
#[derive(Debug, Default)]
pub(super) struct SharedDiscovery(Mutex<LastDiscovery>);

#[derive(Debug, Default)]
struct LastDiscovery {
    metadata: Option<(Metadata, Instant)>,
    /// Of the last fetch, for those that have waited for it.
    failure: Option<Error>,
}

/// A token endpoint that the metadata name.
pub(super) struct DiscoveredUrl {
    pub(super) url: Endpoint,
    /// When the metadata were fetched.
    pub(super) fetched_at: Instant,
    /// Whether they were fetched before, for this manager or for another one.
    pub(super) from_cache: bool,
}

/// Why a discovery yields no URL.
pub(super) enum DiscoveryFailure {
    /// The metadata could not be fetched, or are of another issuer.
    NoMetadata(Error),
    /// The metadata name no usable URL.
    NoEndpoint(Error),
}

impl SharedDiscovery {
    /// The token endpoint of `issuer`, by metadata that were fetched after `min_fetched_at`, or now.
    /// A client that uses mutual TLS has another one, if the metadata name it.
    pub(super) async fn token_endpoint(
        &self,
        issuer: &Issuer,
        uses_mtls: bool,
        context: DiscoveryContext<'_>,
        min_fetched_at: Option<Instant>,
    ) -> Result<DiscoveredUrl, DiscoveryFailure> {
        let DiscoveryContext {
            http_client,
            now: wall_time,
            limits,
        } = context;
        let select = |metadata: &Metadata| match uses_mtls {
            true => metadata.mtls_token_endpoint(http_client.plain_http()),
            false => metadata.token_endpoint(http_client.plain_http()),
        };
        let ends_at = now() + limits.total;
        let (mut last, has_waited) = match self.0.try_lock() {
            Ok(last) => (last, false),
            Err(_) => (self.0.lock().await, true),
        };
        if let Some((metadata, at)) = &last.metadata
            && min_fetched_at.is_none_or(|min| *at > min)
            && now() < *at + DISCOVERY_INTERVAL
            && let Ok(url) = select(metadata)
        {
            return Ok(DiscoveredUrl {
                url,
                fetched_at: *at,
                from_cache: true,
            });
        }
        if let Some(error) = last.failure.as_ref().filter(|_| has_waited) {
            return Err(DiscoveryFailure::NoMetadata(error.clone()));
        }
        // A fetch that is dropped has no result.
        last.failure = None;
        let limits = Limits {
            total: ends_at.saturating_duration_since(now()),
            ..limits
        };
        match metadata::discover(http_client, issuer, wall_time, limits).await {
            Ok(metadata) => {
                let url = select(&metadata).map_err(DiscoveryFailure::NoEndpoint)?;
                let at = now();
                last.metadata = Some((metadata, at));
                Ok(DiscoveredUrl {
                    url,
                    fetched_at: at,
                    from_cache: false,
                })
            }
            Err(error) => {
                last.failure = Some(error.clone());
                Err(DiscoveryFailure::NoMetadata(error))
            }
        }
    }
}
