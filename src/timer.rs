//! Monotonic time for background tasks.

use tokio::time::{Instant, sleep_until};

/// The current tokio time as a `std` instant, the type that the schedules use.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Sleeps until `at`; never completes for `None`.
pub(crate) async fn sleep_until_some(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(Instant::from_std(at)).await,
        None => std::future::pending().await,
    }
}
