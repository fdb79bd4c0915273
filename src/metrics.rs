//! Counters and gauges through the `metrics` facade, or nothing without the feature of that name.
//!
//! The names are stable; `guide/metrics.md` has them all. Labels come from fixed lists and from the
//! settings, never from a request: nobody outside can make a series.

#[cfg(feature = "metrics")]
use ::metrics::{Label, Level, Metadata};

/// A counter that is looked up once and then only added to: for the path of a request.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    #[cfg(feature = "metrics")]
    inner: ::metrics::Counter,
}

impl Counter {
    /// The counter of this name and label with the recorder that is installed now.
    pub(crate) fn new(name: &'static str, label: (&'static str, &str)) -> Self {
        Self::with(name, &[label])
    }

    pub(crate) fn without_label(name: &'static str) -> Self {
        Self::with(name, &[])
    }

    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, reason = "nothing is counted")
    )]
    fn with(name: &'static str, labels: &[(&'static str, &str)]) -> Self {
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

/// Adds one to a counter.
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

/// Tells the recorder what the names mean.
pub(crate) fn describe() {
    #[cfg(feature = "metrics")]
    ::metrics::with_recorder(|recorder| {
        for (name, help) in COUNTERS {
            recorder.describe_counter((*name).into(), None, (*help).into());
        }
        for (name, help) in GAUGES {
            recorder.describe_gauge((*name).into(), None, (*help).into());
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
    /// Requests by verdict: granted, or why not.
    REQUESTS = "tower_oauth_requests_total";
    /// Requests whose token was verified before, and the verdict still held.
    TOKEN_CACHE_HITS = "tower_oauth_token_cache_hits_total";
    /// RefreshCounts of a key set by cause, outcome and class of error.
    REFRESHES = "tower_oauth_key_set_refreshes_total";
    /// Requests that waited for a newer key set.
    JWKS_REFRESH_WAITS = "tower_oauth_jwks_refresh_waits_total";
    /// Requests refused at once because their kid was looked for in vain before.
    JWKS_NEGATIVE_CACHE_HITS = "tower_oauth_jwks_negative_cache_hits_total";
    /// Token requests by outcome and class of error.
    TOKEN_REQUESTS = "tower_oauth_token_requests_total";
}

names! { GAUGES:
    /// Unix time of the last successful refresh.
    LAST_REFRESH_SUCCESS = "tower_oauth_jwks_last_refresh_success_timestamp_seconds";
    /// RefreshCounts that failed since the last good one.
    CONSECUTIVE_FAILURES = "tower_oauth_key_set_consecutive_failures";
    /// How many different sets there have been.
    GENERATION = "tower_oauth_key_set_generation";
    /// 1 if the metadata could not be read the last time, else 0.
    DISCOVERY_FAILING = "tower_oauth_discovery_failing";
    /// 1 if tokens can be judged, else 0.
    READY = "tower_oauth_key_set_ready";
    /// Members of the set that cannot be used.
    SKIPPED_KEYS = "tower_oauth_key_set_skipped_keys";
    /// Keys that can verify signatures.
    USABLE_KEYS = "tower_oauth_key_set_usable_keys";
}
