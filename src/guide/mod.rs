//! What does not fit beside one type: pages to read.

/// # How a key set lives
#[doc = include_str!("key_sets.md")]
pub mod key_sets {}

/// # What is measured
#[doc = include_str!("metrics.md")]
pub mod metrics {}

/// # What it costs
#[doc = include_str!("performance.md")]
pub mod performance {}

/// # Tests without an issuer
#[cfg(all(feature = "authorization-server", feature = "test-util"))]
#[cfg_attr(docsrs, doc(cfg(feature = "authorization-server")))]
#[doc = include_str!("testing.md")]
pub mod testing {}
