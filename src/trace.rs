//! Events and spans through `tracing`, or nothing without the feature of that name.
//!
//! One target for each island; fields, not prose; never a token or a secret.

macro_rules! debug {
    ($($event:tt)*) => {{
        #[cfg(feature = "tracing")]
        ::tracing::debug!($($event)*);
    }};
}

macro_rules! warn_event {
    ($($event:tt)*) => {{
        #[cfg(feature = "tracing")]
        ::tracing::warn!($($event)*);
    }};
}

/// A future that runs in a span.
macro_rules! instrument {
    ($future:expr, $($span:tt)*) => {{
        #[cfg(feature = "tracing")]
        let future = ::tracing::Instrument::instrument($future, ::tracing::debug_span!($($span)*));
        #[cfg(not(feature = "tracing"))]
        let future = $future;
        future
    }};
}

pub(crate) use {debug, instrument, warn_event as warn};
