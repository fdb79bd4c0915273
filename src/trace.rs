//! Macros for events and spans of `tracing`; no-ops without the feature `tracing`.
//!
//! Each module has one target. Events carry fields rather than prose, and no tokens or secrets.

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

macro_rules! error_event {
    ($($event:tt)*) => {{
        #[cfg(feature = "tracing")]
        ::tracing::error!($($event)*);
    }};
}

/// Whether events at `warn` of this target are logged: `false` without the feature `tracing`.
macro_rules! warns {
    ($target:literal) => {{
        #[cfg(feature = "tracing")]
        let warns = ::tracing::enabled!(target: $target, ::tracing::Level::WARN);
        #[cfg(not(feature = "tracing"))]
        let warns = false;
        warns
    }};
}

/// Names each host to which plain `http` is allowed, and what that makes possible.
macro_rules! warn_of_plain_http {
    (target: $target:literal, $hosts:expr, $message:literal) => {
        #[cfg_attr(
            not(feature = "tracing"),
            expect(unused_variables, reason = "nothing is logged")
        )]
        for host in $hosts {
            $crate::trace::warn!(
                target: $target,
                host = %host,
                $message
            );
        }
    };
}

/// Runs a future in a span.
macro_rules! instrument {
    ($future:expr, $($span:tt)*) => {{
        #[cfg(feature = "tracing")]
        let future = ::tracing::Instrument::instrument($future, ::tracing::debug_span!($($span)*));
        #[cfg(not(feature = "tracing"))]
        let future = $future;
        future
    }};
}

pub(crate) use {
    debug, error_event as error, instrument, warn_event as warn, warn_of_plain_http, warns,
};
