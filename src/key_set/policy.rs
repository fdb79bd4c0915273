//! The settings of a key set's refreshes.

use std::time::Duration;

/// When a key set is refreshed and how long it is trusted.
///
/// The defaults are meant for production. Retries have no setting: after a failure the wait is a
/// random part of a backoff that doubles from 1 second to 1 minute, or the issuer's `Retry-After`,
/// limited to 1 second to 5 minutes, plus up to a tenth, if that is longer. While there is no
/// usable set, no wait is longer than 5 seconds, for any value of `Retry-After`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use std::time::Duration;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::key_set::RefreshPolicy;
///
/// let policy = RefreshPolicy::new()
///     .interval(Duration::from_secs(900))
///     .max_interval(Duration::from_secs(900))
///     .max_stale(Duration::from_secs(6 * 3600));
/// let orders = ResourceServer::builder(issuer.issuer(), "orders")
///     .refresh(policy)
///     .transport(issuer.transport())
///     .start()
///     .await?;
/// let next = orders.key_sets()[0].next_refresh_in().expect("a refresh is scheduled");
/// assert!(next <= Duration::from_secs(900));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RefreshPolicy {
    pub(crate) interval: Duration,
    pub(crate) min_interval: Duration,
    pub(crate) max_interval: Duration,
    pub(crate) max_stale: Duration,
    pub(crate) fetch_timeout: Duration,
    pub(crate) max_body: usize,
    pub(crate) unknown_key_burst: u32,
    pub(crate) unknown_key_period: Duration,
    pub(crate) unknown_key_timeout: Duration,
    pub(crate) max_waiters: usize,
    pub(crate) refresh_on_invalid_signature: bool,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(300),
            min_interval: Duration::from_secs(60),
            max_interval: Duration::from_secs(600),
            max_stale: Duration::from_secs(86_400),
            fetch_timeout: Duration::from_secs(5),
            max_body: 256 * 1024,
            unknown_key_burst: 2,
            unknown_key_period: Duration::from_secs(15),
            unknown_key_timeout: Duration::from_secs(1),
            max_waiters: 1024,
            refresh_on_invalid_signature: false,
        }
    }
}

impl RefreshPolicy {
    /// Returns the default policy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a policy that trusts keys for at most an hour of an outage.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::clock::{ManualClock, UnixTime};
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::key_set::RefreshPolicy;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .refresh(RefreshPolicy::strict())
    /// #   .transport(issuer.transport())
    /// #   .clock(clock.clone())
    ///     .start()
    ///     .await?;
    /// clock.advance(Duration::from_secs(3601)); // without a refresh
    /// assert!(!orders.keys_available());
    /// # Ok(())
    /// # }
    /// ```
    pub fn strict() -> Self {
        Self::new().max_stale(Duration::from_secs(3600))
    }

    /// Sets the refresh interval without `Cache-Control`. Default: 5 minutes.
    ///
    /// Each refresh happens at a random 70 to 95 % of the interval, so that the instances of a
    /// service do not fetch together. Without `Cache-Control`, the interval bounds how long a
    /// withdrawn key is trusted; with it [`max_interval`](Self::max_interval) does, and during an
    /// outage [`max_stale`](Self::max_stale). A server whose `ETag` never changes can hide a
    /// withdrawal for an hour and one interval.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use std::convert::Infallible;
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use tower_oauth::transport::ServiceTransport;
    /// # let document = br#"{"keys":[{
    /// #     "kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    /// # }]}"#;
    /// # let keys = ServiceTransport::new(tower::service_fn(async |_: Request<Full<Bytes>>| {
    /// #     Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(document))))
    /// # }));
    /// use std::time::Duration;
    /// use tower_oauth::key_set::RefreshPolicy;
    /// use tower_oauth::{Audience, Endpoint, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// // Its key set has no `Cache-Control`.
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?)
    ///     .jwks_uri(Endpoint::new("https://as.example/keys")?)
    ///     .refresh(RefreshPolicy::new().interval(Duration::from_secs(120)))
    ///     .transport(keys);
    /// let orders = ResourceServer::from_issuer(issuer).start().await?;
    /// let next = orders.key_sets()[0].next_refresh_in().expect("a refresh is scheduled");
    /// assert!((80..=114).contains(&next.as_secs()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = bounded(interval);
        self
    }

    /// Sets the shortest interval for `Cache-Control`, used for `no-store`. Default: 1 minute.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use std::convert::Infallible;
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use tower_oauth::transport::ServiceTransport;
    /// # let document = br#"{"keys":[{
    /// #     "kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    /// # }]}"#;
    /// # let keys = ServiceTransport::new(tower::service_fn(async |_: Request<Full<Bytes>>| {
    /// #     let response = Response::builder().header("cache-control", "no-store");
    /// #     let body = Full::new(Bytes::from_static(document));
    /// #     Ok::<_, Infallible>(response.body(body).expect("a response"))
    /// # }));
    /// use std::time::Duration;
    /// use tower_oauth::key_set::RefreshPolicy;
    /// use tower_oauth::{Audience, Endpoint, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// // Its key set has `Cache-Control: no-store`.
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?)
    ///     .jwks_uri(Endpoint::new("https://as.example/keys")?)
    ///     .refresh(RefreshPolicy::new().min_interval(Duration::from_secs(240)))
    ///     .transport(keys);
    /// let orders = ResourceServer::from_issuer(issuer).start().await?;
    /// let next = orders.key_sets()[0].next_refresh_in().expect("a refresh is scheduled");
    /// assert!(next >= Duration::from_secs(160));
    /// # Ok(())
    /// # }
    /// ```
    pub fn min_interval(mut self, floor: Duration) -> Self {
        self.min_interval = bounded(floor);
        self
    }

    /// Sets the longest interval for `Cache-Control`. Default: 10 minutes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use std::convert::Infallible;
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use tower_oauth::transport::ServiceTransport;
    /// # let document = br#"{"keys":[{
    /// #     "kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    /// # }]}"#;
    /// # let keys = ServiceTransport::new(tower::service_fn(async |_: Request<Full<Bytes>>| {
    /// #     let response = Response::builder().header("cache-control", "max-age=86400");
    /// #     let body = Full::new(Bytes::from_static(document));
    /// #     Ok::<_, Infallible>(response.body(body).expect("a response"))
    /// # }));
    /// use std::time::Duration;
    /// use tower_oauth::key_set::RefreshPolicy;
    /// use tower_oauth::{Audience, Endpoint, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// // Its key set has `Cache-Control: max-age=86400`.
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?)
    ///     .jwks_uri(Endpoint::new("https://as.example/keys")?)
    ///     .refresh(RefreshPolicy::new().max_interval(Duration::from_secs(120)))
    ///     .transport(keys);
    /// let orders = ResourceServer::from_issuer(issuer).start().await?;
    /// let next = orders.key_sets()[0].next_refresh_in().expect("a refresh is scheduled");
    /// assert!(next <= Duration::from_secs(120));
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_interval(mut self, ceiling: Duration) -> Self {
        self.max_interval = bounded(ceiling);
        self
    }

    /// Sets how long the last good set is trusted during an outage. Default: 24 hours.
    ///
    /// After that, requests are answered 503.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::clock::{ManualClock, UnixTime};
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::{EndpointKind, Fault};
    /// use tower_oauth::key_set::{KeySetState, RefreshPolicy};
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .refresh(RefreshPolicy::new().max_stale(Duration::from_secs(1800)))
    /// #   .transport(issuer.transport())
    /// #   .clock(clock.clone())
    ///     .start()
    ///     .await?;
    /// issuer.fail(EndpointKind::Keys, Fault::Outage(None));
    /// clock.advance_with_timers(Duration::from_secs(1500)).await;
    /// assert_eq!(orders.key_sets()[0].state(), KeySetState::Degraded);
    /// clock.advance_with_timers(Duration::from_secs(600)).await;
    /// assert_eq!(orders.key_sets()[0].state(), KeySetState::Stale);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_stale(mut self, limit: Duration) -> Self {
        self.max_stale = bounded(limit);
        self
    }

    /// Sets the time limit of one fetch. Default: 5 seconds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::{EndpointKind, Fault};
    /// use tower_oauth::error::ErrorKind;
    /// use tower_oauth::key_set::RefreshPolicy;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .refresh(RefreshPolicy::new().fetch_timeout(Duration::from_secs(2)))
    /// #   .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// issuer.fail(EndpointKind::Keys, Fault::Latency(Duration::from_secs(3)));
    /// let error = orders.refresh_keys().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Timeout);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fetch_timeout(mut self, limit: Duration) -> Self {
        self.fetch_timeout = bounded(limit);
        self
    }

    /// Sets the largest accepted document, in bytes after decompression. Default: 256 KiB.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::error::ErrorKind;
    /// use tower_oauth::key_set::RefreshPolicy;
    /// use tower_oauth::resource_server::Startup;
    ///
    /// let error = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .refresh(RefreshPolicy::new().max_document_size(64)) // no key fits
    ///     .startup(Startup::Require(Duration::from_secs(5)))
    /// #   .transport(issuer.transport())
    ///     .start()
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TooLarge);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_document_size(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets the rate limit of refreshes for unknown `kid`s.
    ///
    /// `burst` refreshes are allowed at once, then one each `period`. Default: 2, then one each
    /// 15 seconds. Scheduled refreshes do not count, so that a flood of forged tokens cannot delay
    /// a rotation. A `kid` that a fetch did not find is rejected without another fetch for 15
    /// seconds, for any `period`, unless the set changes. With a `burst` of 0, no `kid` causes a
    /// refresh.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::EndpointKind;
    /// use tower_oauth::key_set::RefreshPolicy;
    ///
    /// let policy = RefreshPolicy::new().unknown_key_rate_limit(1, Duration::from_secs(60));
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .refresh(policy)
    /// #   .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// for _forged in 1..=10 {
    ///     let token = issuer.mint(&shop).audience(["orders"]).with_unknown_key(Algorithm::Es256);
    ///     assert!(orders.validate(&token.sign()).await.is_err());
    /// }
    /// assert_eq!(issuer.requests(EndpointKind::Keys), 2); // at startup, and for the first token
    /// # Ok(())
    /// # }
    /// ```
    pub fn unknown_key_rate_limit(mut self, burst: u32, period: Duration) -> Self {
        self.unknown_key_period = bounded(period);
        self.unknown_key_burst = burst.min(1000);
        self
    }

    /// Sets how long a request with an unknown `kid` waits for a refresh. Default: 1 second.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::{EndpointKind, Fault};
    /// use tower_oauth::key_set::RefreshPolicy;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .refresh(RefreshPolicy::new().unknown_key_timeout(Duration::from_millis(200)))
    /// #   .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// issuer.rotate()?;
    /// issuer.fail(EndpointKind::Keys, Fault::Latency(Duration::from_secs(3)));
    /// let started = tokio::time::Instant::now();
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// assert!(orders.validate(&token).await.is_err());
    /// assert!(started.elapsed() < Duration::from_secs(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn unknown_key_timeout(mut self, limit: Duration) -> Self {
        self.unknown_key_timeout = bounded(limit);
        self
    }

    /// Refreshes on an invalid signature, for issuers that reuse `kid`s. Default: off.
    ///
    /// A token with an invalid signature and otherwise valid claims then waits for a refresh. At
    /// most one such refresh is made in 5 minutes, because anyone can send an invalid signature.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::key_set::{RefreshCause, RefreshPolicy};
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .refresh(RefreshPolicy::new().refresh_on_invalid_signature())
    /// #   .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let forged = issuer.mint(&shop).audience(["orders"]).with_another_key().sign();
    /// assert!(orders.validate(&forged).await.is_err());
    /// let refreshes = orders.key_sets()[0].refreshes(RefreshCause::InvalidSignature);
    /// assert_eq!(refreshes.total(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn refresh_on_invalid_signature(mut self) -> Self {
        self.refresh_on_invalid_signature = true;
        self
    }

    /// Sets how many requests may wait for a refresh at the same time. Default: 1024.
    ///
    /// Further requests are rejected at once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::key_set::RefreshPolicy;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .refresh(RefreshPolicy::new().max_waiters(0)) // no request waits for a refresh
    /// #   .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// issuer.rotate()?;
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// assert!(orders.validate(&token).await.is_err());
    /// assert_eq!(orders.key_sets()[0].refresh_waits(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_waiters(mut self, limit: usize) -> Self {
        self.max_waiters = limit;
        self
    }
}

/// Limits a duration to ten years, so that it can be added to any `Instant`.
fn bounded(duration: Duration) -> Duration {
    duration.min(Duration::from_secs(10 * 365 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_stale_is_a_day_by_default_and_an_hour_when_strict() {
        assert_eq!(
            RefreshPolicy::new().max_stale,
            Duration::from_secs(24 * 3600)
        );
        assert_eq!(RefreshPolicy::strict().max_stale, Duration::from_secs(3600));
    }
}
