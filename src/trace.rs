//! Events through `tracing`, or nothing without the feature of that name.
//!
//! One target for each island; fields, not prose; never a token or a secret.

macro_rules! debug {
    ($($event:tt)*) => {{
        #[cfg(feature = "tracing")]
        ::tracing::debug!($($event)*);
    }};
}

macro_rules! warning {
    ($($event:tt)*) => {{
        #[cfg(feature = "tracing")]
        ::tracing::warn!($($event)*);
    }};
}

pub(crate) use {debug, warning};
