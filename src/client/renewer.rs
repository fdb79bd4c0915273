//! The task behind a token manager: sleeps, asks, publishes. One request at a time.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::AccessToken;
use super::endpoint::{Lookup, Place, TokenEndpoint};
use super::grant::{self, Grant, Issued};
use super::manager::successor_wait;
use super::renewal::{Failure, Renewal, RenewalPolicy};
use super::shared::{Held, Progress, Shared};
use crate::error::{ConfigError, Error, ErrorKind, Operation};
use crate::timer::{now, sleep_until_some};
use crate::transport::{Limits, Transport, send};
use crate::{metrics, trace};

/// Largest answer that is read, in bytes after decompression.
const MAX_ANSWER: usize = 64 * 1024;

/// How much longer a token request may take in all than its limit.
const GRACE: Duration = Duration::from_millis(100);

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
    pub(super) progress: watch::Sender<Progress>,
}

impl Task {
    pub(super) async fn run(mut self) {
        let mut renewal = Renewal::new(self.policy.clone());
        let mut last_error: Option<Error> = None;
        loop {
            if self.shared.note_refusal()
                && !renewal.replace(now(), successor_wait(self.policy.attempt))
            {
                self.fail(None);
            }
            tokio::select! {
                biased;
                demand = self.demands.recv() => {
                    let Some(()) = demand else { return };
                    if let Some(token) = self.shared.current(Held::token) {
                        // It came meanwhile, or was used for the first time, or was refused.
                        renewal.wake(now());
                        self.answer(Ok(token));
                    } else if !renewal.demand(now())
                        && let Some(error) = last_error.clone()
                    {
                        self.answer(Err(error));
                    }
                    continue;
                }
                () = sleep_until_some(renewal.next()) => {}
            }
            if !renewal.somebody_waits() && self.shared.current(Held::is_used) != Some(true) {
                renewal.rest();
                continue;
            }
            let Some(attempt) = self.attempt(&mut renewal).await else {
                return;
            };
            measure(&attempt);
            match attempt {
                Ok(Issued { token, lifetime }) => {
                    trace::debug!(target: "tower_oauth::client", expires_in = lifetime.map(|l| l.as_secs()), "an access token was obtained");
                    renewal.succeeded(now(), lifetime, fastrand::f64());
                    last_error = None;
                    if let Some(held) = Held::new(&token, lifetime, MARGIN) {
                        self.shared.hold(held);
                    }
                    self.shared.settle_replaced();
                    self.drain();
                    self.answer(Ok(token));
                }
                Err(error) => {
                    trace::warn!(target: "tower_oauth::client", error = %error.with_sources(), "no access token could be obtained");
                    let is_final = renewal.failed(now(), failure(&error), fastrand::f64());
                    // The last attempt may be cut short: what the server said before tells more.
                    let told_before = last_error
                        .take()
                        .filter(|last| last.oauth_error().is_some());
                    let error = match told_before {
                        Some(last) if error.kind() == ErrorKind::Timeout => last,
                        _ => error,
                    };
                    last_error = Some(error.clone());
                    if is_final {
                        self.drain();
                    }
                    self.fail(is_final.then_some(error));
                }
            }
        }
    }

    /// One token request; `None` if nobody is left to want it.
    async fn attempt(&mut self, renewal: &mut Renewal) -> Option<Result<Issued, Error>> {
        let limit = renewal.attempt_limit(now());
        let Self {
            endpoint,
            grant,
            allow_loopback_http,
            transport,
            shared,
            demands,
            ..
        } = self;
        // The limits within end first, and with a better reason.
        let request = tokio::time::timeout(
            limit.saturating_add(GRACE),
            obtain(
                endpoint,
                grant,
                *allow_loopback_http,
                &**transport,
                shared,
                limit,
            ),
        );
        let mut request =
            pin!(trace::instrument!(request, target: "tower_oauth::client", "token_request"));
        loop {
            tokio::select! {
                biased;
                answer = &mut request => {
                    let timeout = |_| Error::new(Operation::TokenRequest, ErrorKind::Timeout);
                    return Some(answer.map_err(timeout).and_then(|answer| answer));
                }
                demand = demands.recv() => {
                    demand?;
                    if shared.current(Held::token).is_none() {
                        renewal.demand(now());
                    }
                }
            }
        }
    }

    /// Drops the demands from before an answer: they belong to it, and would only cause another
    /// request.
    fn drain(&mut self) {
        while self.demands.try_recv().is_ok() {}
    }

    /// Answers all calls that wait.
    fn answer(&self, answer: Result<AccessToken, Error>) {
        self.progress.send_modify(|progress| {
            progress.answers += 1;
            progress.answer = Some(answer);
        });
    }

    /// Ends the wait for the successor of a refused token, and with an error that of all other
    /// calls.
    fn fail(&self, error: Option<Error>) {
        self.shared.settle_failed();
        self.progress.send_modify(|progress| progress.failures += 1);
        if let Some(error) = error {
            self.answer(Err(error));
        }
    }
}

/// Counts a token request.
fn measure(attempt: &Result<Issued, Error>) {
    let (outcome, error) = match attempt {
        Ok(_) => ("success", "none"),
        Err(error) => ("failure", error.kind().as_str()),
    };
    metrics::count(
        metrics::TOKEN_REQUESTS,
        &[("outcome", outcome), ("error", error)],
    );
}

/// Asks for a token once; once more if the token endpoint turns out to have moved.
async fn obtain(
    endpoint: &mut TokenEndpoint,
    grant: &Grant,
    allow_loopback_http: bool,
    transport: &dyn Transport,
    shared: &Shared,
    limit: Duration,
) -> Result<Issued, Error> {
    let ends_at = now() + limit;
    let limits = || Limits {
        total: ends_at.saturating_duration_since(now()),
        max_body: MAX_ANSWER,
    };
    let lookup = || Lookup {
        transport,
        allow_loopback_http,
        now: shared.clock.now(),
        limits: limits(),
    };
    let place = endpoint.place(lookup()).await?;
    let outcome = ask(&place, grant, transport, shared, limits()).await;
    let may_have_moved = endpoint.settle(&place, &outcome);
    match outcome {
        // What may pass is tried again later, and looked up before.
        Err(error) if may_have_moved && failure(&error) == Failure::Final => {
            let named = endpoint.place(lookup()).await?;
            if named.url == place.url {
                return Err(error);
            }
            let outcome = ask(&named, grant, transport, shared, limits()).await;
            endpoint.settle(&named, &outcome);
            outcome
        }
        outcome => outcome,
    }
}

/// One token request to this address.
async fn ask(
    place: &Place,
    grant: &Grant,
    transport: &dyn Transport,
    shared: &Shared,
    limits: Limits,
) -> Result<Issued, Error> {
    let request = grant.request(&place.url)?;
    let sent_at = shared.clock.now();
    let secrets = || {
        let mut secrets = grant.secrets();
        if let Some(token) = shared.current(Held::token) {
            secrets.add(token.expose_secret());
        }
        secrets
    };
    send(transport, Operation::TokenRequest, request, limits)
        .await
        .and_then(|answer| grant::read(&answer, sent_at, &place.url, secrets))
        .map_err(|error| place.explain(error))
}

/// Transport errors, 429 and 5xx may pass; everything else stays as it is, a certificate error
/// included.
fn failure(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::Transport | ErrorKind::Timeout => Failure::Transient(None),
        ErrorKind::Status(status) if grant::is_transient(status) => {
            Failure::Transient(error.retry_after())
        }
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
