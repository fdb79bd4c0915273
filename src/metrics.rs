//! Counters, gauges and histograms of the `metrics` facade; no-ops without the feature `metrics`.
//!
//! The names are stable; `guide/metrics.md` lists them. Label values come from fixed lists and from
//! settings, never from requests, so that callers cannot create time series.

use std::time::Duration;

#[cfg(feature = "metrics")]
use ::metrics::{Label, Level, Metadata};

/// The handle of a registered counter, for use in requests.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    #[cfg(feature = "metrics")]
    inner: ::metrics::Counter,
}

impl Counter {
    /// Registers a counter with the current recorder.
    pub(crate) fn new(name: &'static str, label: (&'static str, &str)) -> Self {
        Self::with_labels(name, &[label])
    }

    pub(crate) fn without_label(name: &'static str) -> Self {
        Self::with_labels(name, &[])
    }

    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, reason = "nothing is counted")
    )]
    fn with_labels(name: &'static str, labels: &[(&'static str, &str)]) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            inner: ::metrics::with_recorder(|recorder| {
                recorder.register_counter(&key(name, labels), &metadata())
            }),
        }
    }

    pub(crate) fn increment(&self) {
        #[cfg(feature = "metrics")]
        self.inner.increment(1);
    }
}

/// The handle of a registered histogram of durations in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    #[cfg(feature = "metrics")]
    inner: ::metrics::Histogram,
}

impl Histogram {
    /// Registers a histogram with the current recorder.
    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, reason = "nothing is recorded")
    )]
    pub(crate) fn new(name: &'static str, labels: &[(&'static str, &str)]) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            inner: ::metrics::with_recorder(|recorder| {
                recorder.register_histogram(&key(name, labels), &metadata())
            }),
        }
    }

    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, reason = "nothing is recorded")
    )]
    pub(crate) fn record(&self, duration: Duration) {
        #[cfg(feature = "metrics")]
        self.inner.record(duration);
    }

    /// Records how long a call takes.
    pub(crate) fn time<T>(&self, call: impl FnOnce() -> T) -> T {
        #[cfg(feature = "metrics")]
        let start = std::time::Instant::now();
        let output = call();
        #[cfg(feature = "metrics")]
        self.record(start.elapsed());
        output
    }
}

/// Increments a counter.
#[cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "nothing is counted")
)]
pub(crate) fn count(name: &'static str, labels: &[(&'static str, &str)]) {
    #[cfg(feature = "metrics")]
    ::metrics::with_recorder(|recorder| recorder.register_counter(&key(name, labels), &metadata()))
        .increment(1);
}

/// Sets a gauge.
#[cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "nothing is measured")
)]
pub(crate) fn gauge(name: &'static str, labels: &[(&'static str, &str)], value: u64) {
    #[cfg(feature = "metrics")]
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "counts and seconds, far below 2^53"
    )]
    ::metrics::with_recorder(|recorder| recorder.register_gauge(&key(name, labels), &metadata()))
        .set(value as f64);
}

/// Registers the descriptions of all metrics with the current recorder.
pub(crate) fn describe() {
    #[cfg(feature = "metrics")]
    ::metrics::with_recorder(|recorder| {
        for (name, help) in COUNTERS {
            recorder.describe_counter((*name).into(), None, (*help).into());
        }
        for (name, help) in GAUGES {
            recorder.describe_gauge((*name).into(), None, (*help).into());
        }
        for (name, help) in HISTOGRAMS {
            recorder.describe_histogram((*name).into(), None, (*help).into());
        }
    });
}

#[cfg(feature = "metrics")]
fn key(name: &'static str, labels: &[(&'static str, &str)]) -> ::metrics::Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    ::metrics::Key::from_parts(name, labels)
}

#[cfg(feature = "metrics")]
fn metadata() -> Metadata<'static> {
    Metadata::new("tower_oauth", Level::INFO, None)
}

macro_rules! names {
    ($list:ident: $($(#[doc = $help:literal])* $constant:ident = $name:literal;)*) => {
        $($(#[doc = $help])* pub(crate) const $constant: &str = $name;)*
        #[cfg(feature = "metrics")]
        const $list: &[(&str, &str)] = &[$(($name, concat!($($help),*).trim_ascii_start())),*];
    };
}

names! { COUNTERS:
    /// Requests by result: granted, anonymous, cancelled, or the reason for the rejection.
    REQUESTS = "tower_oauth_requests_total";
    /// Requests whose token was in the token cache and still valid.
    TOKEN_CACHE_HITS = "tower_oauth_token_cache_hits_total";
    /// Requests whose token was not in the token cache, or not valid any more.
    TOKEN_CACHE_MISSES = "tower_oauth_token_cache_misses_total";
    /// Refreshes of a key set by cause, outcome and class of error.
    REFRESHES = "tower_oauth_key_set_refreshes_total";
    /// Requests that waited for a newer key set.
    JWKS_REFRESH_WAITS = "tower_oauth_jwks_refresh_waits_total";
    /// Requests rejected because their kid was in the negative cache.
    JWKS_NEGATIVE_CACHE_HITS = "tower_oauth_jwks_negative_cache_hits_total";
    /// Token requests by manager, outcome and class of error.
    TOKEN_REQUESTS = "tower_oauth_token_requests_total";
}

names! { GAUGES:
    /// Unix time of the last successful refresh.
    LAST_REFRESH_SUCCESS = "tower_oauth_jwks_last_refresh_success_timestamp_seconds";
    /// Failed refreshes since the last successful one.
    CONSECUTIVE_FAILURES = "tower_oauth_key_set_consecutive_failures";
    /// Number of different key sets so far.
    GENERATION = "tower_oauth_key_set_generation";
    /// 1 if the last discovery failed, else 0.
    DISCOVERY_FAILING = "tower_oauth_discovery_failing";
    /// 1 if usable keys are available, else 0.
    READY = "tower_oauth_key_set_ready";
    /// Unusable members of the key set.
    SKIPPED_KEYS = "tower_oauth_key_set_skipped_keys";
    /// Keys in use, including revoked ones.
    USABLE_KEYS = "tower_oauth_key_set_usable_keys";
}

names! { HISTOGRAMS:
    /// Seconds that the verification of a signature took, with any outcome.
    VERIFICATION_DURATION = "tower_oauth_verification_duration_seconds";
    /// Seconds that a fetch of a key set took, discovery included, by outcome.
    JWKS_FETCH_DURATION = "tower_oauth_jwks_fetch_duration_seconds";
}
