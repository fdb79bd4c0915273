//! Moments on the monotonic clock, for the tasks in the background.

use tokio::time::{Instant, sleep_until};

/// This moment, as the pure schedules count it.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Sleeps until `at`; for ever without one.
pub(crate) async fn sleep_until_some(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(Instant::from_std(at)).await,
        None => std::future::pending().await,
    }
}
