//! Exponential backoff with full jitter.

use std::time::Duration;

/// Backoff whose bound doubles from `base` to `cap`.
///
/// Each wait is uniformly distributed below its bound, so that clients that failed at the same
/// time do not retry at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) base: Duration,
    pub(crate) cap: Duration,
}

impl Backoff {
    /// The upper bound of the wait after `failures` consecutive failures, at least one.
    pub(crate) fn bound(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        self.base.saturating_mul(1_u32 << doublings).min(self.cap)
    }

    /// The wait after `failures` consecutive failures; `random` is uniform in 0.0 to 1.0.
    ///
    /// At least a tenth of the bound, so that a run of low random numbers causes no flood.
    pub(crate) fn wait(&self, failures: u32, random: f64) -> Duration {
        self.bound(failures).mul_f64(random.clamp(0.1, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_are_never_zero() {
        let backoff = Backoff {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(60),
        };
        let bounds: Vec<u64> = (1..9)
            .map(|failures| backoff.bound(failures).as_secs())
            .collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.bound(u32::MAX).as_secs(), 60);
        assert_eq!(backoff.wait(3, 0.5), Duration::from_secs(2));
        assert_eq!(backoff.wait(1, 0.0), Duration::from_millis(100));
    }
}
