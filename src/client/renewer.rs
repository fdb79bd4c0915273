//! The task behind a token manager: sleeps, asks, publishes. One request at a time.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::endpoint::{Lookup, TokenEndpoint};
use super::grant::{self, Grant, Issued};
use super::manager::{Held, Outcome, Shared};
use super::renewal::{Failure, Renewal, RenewalPolicy};
use crate::error::{ConfigError, Error, ErrorKind, Operation};
use crate::timer::{now, sleep_until_some};
use crate::transport::{Limits, Transport, exchange};
use crate::{metrics, trace};

/// Largest answer that is read, in bytes after decompression.
const MAX_ANSWER: usize = 64 * 1024;

/// A token is handed out until so long before its expiry: it has to reach the resource server.
const MARGIN: Duration = Duration::from_secs(10);

/// Everything that obtaining tokens takes.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) endpoint: TokenEndpoint,
    pub(super) grant: Grant,
    pub(super) policy: RenewalPolicy,
    pub(super) allow_loopback_http: bool,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) shared: Arc<Shared>,
    pub(super) demands: mpsc::Receiver<()>,
    pub(super) outcomes: watch::Sender<Outcome>,
}

impl Task {
    pub(super) async fn run(mut self) {
        let mut renewal = Renewal::new(self.policy.clone());
        let mut last_error: Option<Error> = None;
        loop {
            tokio::select! {
                biased;
                demand = self.demands.recv() => {
                    let Some(()) = demand else { return };
                    if let Some(token) = self.shared.in_hand(Held::token) {
                        // It came meanwhile, or this is the ring of a token's first use.
                        renewal.wake(now());
                        let _ = self.outcomes.send(Some(Ok(token)));
                    } else if !renewal.demand(now()) {
                        let _ = self.outcomes.send(last_error.clone().map(Err));
                    }
                    continue;
                }
                () = sleep_until_some(renewal.next()) => {}
            }
            if !renewal.somebody_waits() && self.shared.in_hand(Held::is_used) != Some(true) {
                renewal.rest();
                continue;
            }
            let Some(attempt) = self.attempt(&mut renewal).await else { return };
            measure(&attempt);
            match attempt {
                Ok(Issued { token, lifetime }) => {
                    trace::debug!(target: "tower_oauth::client", expires_in = lifetime.map(|l| l.as_secs()), "an access token was obtained");
                    renewal.succeeded(now(), lifetime, fastrand::f64());
                    last_error = None;
                    if let Some(held) = Held::new(&token, lifetime, MARGIN) {
                        self.shared.hold(held);
                    }
                    self.answer(Ok(token));
                }
                Err(error) => {
                    trace::warning!(target: "tower_oauth::client", %error, "no access token could be obtained");
                    let tell = renewal.failed(now(), failure(&error), fastrand::f64());
                    // The last attempt may be cut short: what the server said before tells more.
                    let told_before = last_error.take().filter(|last| last.oauth_error().is_some());
                    let error = match told_before {
                        Some(last) if error.kind() == ErrorKind::Timeout => last,
                        _ => error,
                    };
                    last_error = Some(error.clone());
                    if tell {
                        self.answer(Err(error));
                    }
                }
            }
        }
    }

    /// One token request; `None` if nobody is left to want it.
    async fn attempt(&mut self, renewal: &mut Renewal) -> Option<Result<Issued, Error>> {
        let limit = renewal.attempt_limit(now());
        let Self { endpoint, grant, allow_loopback_http, transport, shared, demands, .. } = self;
        let request = tokio::time::timeout(
            limit,
            obtain(endpoint, grant, *allow_loopback_http, &**transport, shared, limit),
        );
        let mut request = pin!(trace::spanned!(request, target: "tower_oauth::client", "token_request"));
        loop {
            tokio::select! {
                biased;
                answer = &mut request => {
                    let timeout = |_| Error::new(Operation::TokenRequest, ErrorKind::Timeout);
                    return Some(answer.map_err(timeout).and_then(|answer| answer));
                }
                demand = demands.recv() => {
                    demand?;
                    if shared.in_hand(Held::token).is_none() {
                        renewal.demand(now());
                    }
                }
            }
        }
    }

    /// Answers all who wait. Demands from before belong to this answer, and would only cause
    /// another request.
    fn answer(&mut self, outcome: Result<super::AccessToken, Error>) {
        while self.demands.try_recv().is_ok() {}
        let _nobody_may_be_waiting = self.outcomes.send(Some(outcome));
    }
}

/// Counts a token request.
fn measure(attempt: &Result<Issued, Error>) {
    let (outcome, error) = match attempt {
        Ok(_) => ("success", "none"),
        Err(error) => ("failure", error.kind().as_str()),
    };
    metrics::count(metrics::TOKEN_REQUESTS, &[("outcome", outcome), ("error", error)]);
}

/// Asks for a token once.
async fn obtain(
    endpoint: &mut TokenEndpoint,
    grant: &Grant,
    allow_loopback_http: bool,
    transport: &dyn Transport,
    shared: &Shared,
    limit: Duration,
) -> Result<Issued, Error> {
    let limits = Limits { total: limit, max_body: MAX_ANSWER };
    let lookup = Lookup { transport, allow_loopback_http, now: shared.clock.now(), limits };
    let place = endpoint.place(lookup).await?;
    let request = grant.request(&place.url)?;
    let sent_at = shared.clock.now();
    let answer = exchange(transport, Operation::TokenRequest, request, limits).await;
    let secrets = || {
        let mut secrets = grant.secrets();
        if let Some(token) = shared.in_hand(Held::token) {
            secrets.add(token.expose_secret());
        }
        secrets
    };
    let issued = answer.and_then(|answer| grant::read(&answer, sent_at, &place.url, secrets));
    let issued = issued.map_err(|error| place.explain(error))?;
    endpoint.proved(place);
    Ok(issued)
}

/// Transport errors, 429 and 5xx may pass; everything else stays as it is.
fn failure(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::Transport | ErrorKind::Timeout => Failure::Transient(None),
        ErrorKind::Status(status) if grant::is_transient(status) => Failure::Transient(error.retry_after()),
        _ => Failure::Final,
    }
}

/// The error of a manager whose task is not there any more.
pub(super) fn gone() -> Error {
    ConfigError::without_value("renewer", "is not running: no token can be obtained").into()
}

/// Obtains and renews the token of a [`TokenManager`](crate::TokenManager) while it is polled.
///
/// It ends when the last clone of the manager is dropped.
#[must_use = "tokens are obtained only while this is polled"]
pub struct Renewer(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Renewer {
    pub(super) fn new(task: Task) -> Self {
        Self(Box::pin(task.run()))
    }
}

impl Future for Renewer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Renewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewer").finish_non_exhaustive()
    }
}
