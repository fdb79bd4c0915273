//! The causes of a refresh.

/// Why a key set was refreshed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::key_set::RefreshCause;
///
/// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
/// # let orders = orders.transport(issuer.transport()).start().await?;
/// issuer.rotate()?;
/// let token = issuer.mint(&shop).audience(["orders"]).sign();
/// assert!(orders.validate(&token).await.is_ok());
/// let status = &orders.key_sets()[0];
/// assert_eq!(status.refreshes(RefreshCause::Timer).succeeded, 1);
/// assert_eq!(status.refreshes(RefreshCause::UnknownKey).succeeded, 1);
/// assert_eq!(RefreshCause::UnknownKey.as_str(), "unknown_key");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshCause {
    /// The program called [`ResourceServer::refresh_keys`](crate::ResourceServer::refresh_keys).
    Manual,
    /// A signature did not match the key with its `kid`, and
    /// [`refresh_on_invalid_signature`](super::RefreshPolicy::refresh_on_invalid_signature) is set.
    InvalidSignature,
    /// The wall clock and the timers diverged: the machine slept, or its clock was set.
    ClockJump,
    /// A scheduled refresh.
    Timer,
    /// A token has a `kid` that the set does not have.
    UnknownKey,
}

impl RefreshCause {
    /// Every cause.
    pub const ALL: &'static [Self] = &[
        Self::Manual,
        Self::InvalidSignature,
        Self::ClockJump,
        Self::Timer,
        Self::UnknownKey,
    ];

    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::InvalidSignature => "invalid_signature",
            Self::ClockJump => "clock_jump",
            Self::Timer => "timer",
            Self::UnknownKey => "unknown_key",
        }
    }

    /// Its member in the JSON of a [`KeySetStatus`](super::KeySetStatus). These names are stable.
    pub(super) fn member_name(self) -> &'static str {
        match self {
            Self::Manual => "asked",
            Self::InvalidSignature => "bad_signature",
            Self::ClockJump | Self::Timer | Self::UnknownKey => self.as_str(),
        }
    }
}
