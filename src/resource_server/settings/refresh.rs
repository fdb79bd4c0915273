//! The settings of refreshes of key sets.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::Deserialize;

use crate::key_set::RefreshPolicy;
use crate::settings::{flag, number, positive};

/// The fields of a [`RefreshPolicy`]. What is absent stays as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RefreshSettings {
    #[serde(deserialize_with = "positive")]
    interval_seconds: Option<NonZeroU64>,
    #[serde(deserialize_with = "positive")]
    min_interval_seconds: Option<NonZeroU64>,
    #[serde(deserialize_with = "positive")]
    max_interval_seconds: Option<NonZeroU64>,
    #[serde(deserialize_with = "positive")]
    max_stale_seconds: Option<NonZeroU64>,
    #[serde(deserialize_with = "positive")]
    fetch_timeout_seconds: Option<NonZeroU64>,
    /// Bytes.
    #[serde(deserialize_with = "number")]
    max_document_size: Option<usize>,
    #[serde(deserialize_with = "number")]
    unknown_key_burst: Option<u32>,
    #[serde(deserialize_with = "positive")]
    unknown_key_period_seconds: Option<NonZeroU64>,
    #[serde(deserialize_with = "positive")]
    unknown_key_timeout_seconds: Option<NonZeroU64>,
    #[serde(deserialize_with = "number")]
    max_waiters: Option<usize>,
    #[serde(deserialize_with = "flag")]
    refresh_on_invalid_signature: Option<bool>,
}

impl RefreshSettings {
    /// This policy, with what is set.
    pub(super) fn apply(&self, base: &RefreshPolicy) -> RefreshPolicy {
        let seconds = |seconds: Option<NonZeroU64>, default: Duration| {
            seconds.map_or(default, |seconds| Duration::from_secs(seconds.get()))
        };
        let burst = self.unknown_key_burst.unwrap_or(base.unknown_key_burst);
        let period = seconds(self.unknown_key_period_seconds, base.unknown_key_period);
        let timeout = seconds(self.unknown_key_timeout_seconds, base.unknown_key_timeout);
        let mut policy = base
            .clone()
            .interval(seconds(self.interval_seconds, base.interval))
            .min_interval(seconds(self.min_interval_seconds, base.min_interval))
            .max_interval(seconds(self.max_interval_seconds, base.max_interval))
            .max_stale(seconds(self.max_stale_seconds, base.max_stale))
            .fetch_timeout(seconds(self.fetch_timeout_seconds, base.fetch_timeout))
            .max_document_size(self.max_document_size.unwrap_or(base.max_body))
            .unknown_key_rate_limit(burst, period)
            .unknown_key_timeout(timeout)
            .max_waiters(self.max_waiters.unwrap_or(base.max_waiters));
        if let Some(refresh) = self.refresh_on_invalid_signature {
            policy.refresh_on_invalid_signature = refresh;
        }
        policy
    }
}
