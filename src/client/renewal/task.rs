//! The task of a token manager: requests tokens, one request at a time, and publishes the results.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::super::AccessToken;
use super::super::state::{CurrentToken, RenewalResults, SharedState};
use super::super::token_endpoint::{DiscoveryContext, ResolvedEndpoint, TokenEndpoint};
use super::super::token_request::{self, IssuedToken, TokenRequest};
use super::schedule::{Failure, RenewalPolicy, RenewalSchedule};
use crate::error::{Error, ErrorKind, Operation};
use crate::timer::{now, sleep_until_some};
use crate::transport::{Limits, Transport, send};
use crate::{metrics, trace};

/// Maximum size of a token response in bytes, after decompression.
const MAX_RESPONSE: usize = 64 * 1024;

/// Added to the time limit of a token request, so that the inner limits expire first: their
/// errors say more.
const TIMEOUT_GRACE: Duration = Duration::from_millis(100);

/// A token is handed out until this long before its expiry, so that it is still valid when it
/// reaches the resource server.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);

/// The state of the task.
#[derive(Debug)]
pub(in crate::client) struct RenewalTask {
    pub(in crate::client) endpoint: TokenEndpoint,
    pub(in crate::client) token_request: TokenRequest,
    pub(in crate::client) policy: RenewalPolicy,
    pub(in crate::client) allow_loopback_http: bool,
    pub(in crate::client) transport: Arc<dyn Transport>,
    pub(in crate::client) state: Arc<SharedState>,
    pub(in crate::client) wakeups: mpsc::Receiver<()>,
    pub(in crate::client) results: watch::Sender<RenewalResults>,
}

impl RenewalTask {
    async fn run(mut self) {
        let mut schedule = RenewalSchedule::new(self.policy.clone());
        let mut last_error: Option<Error> = None;
        loop {
            if self.state.acknowledge_invalidation()
                && !schedule.request_replacement(now(), self.policy.successor_timeout())
            {
                self.report_failure(None);
            }
            tokio::select! {
                biased;
                wakeup = self.wakeups.recv() => {
                    let Some(()) = wakeup else { return };
                    if let Some(token) = self.state.with_current(CurrentToken::token) {
                        // The token arrived in the meantime, was used for the first time, or was
                        // invalidated.
                        schedule.resume(now());
                        self.notify_waiters(Ok(token));
                    } else if !schedule.register_waiter(now())
                        && let Some(error) = last_error.clone()
                    {
                        self.notify_waiters(Err(error));
                    }
                    continue;
                }
                () = sleep_until_some(schedule.next_attempt()) => {}
            }
            if !schedule.has_waiters()
                && self.state.with_current(CurrentToken::is_used) != Some(true)
            {
                schedule.pause();
                continue;
            }
            let Some(result) = self.try_once(&mut schedule).await else {
                return;
            };
            record_metrics(&result);
            match result {
                Ok(IssuedToken { token, lifetime }) => {
                    trace::debug!(
                        target: "tower_oauth::client",
                        expires_in = lifetime.map(|l| l.as_secs()),
                        "an access token was obtained"
                    );
                    schedule.succeeded(now(), lifetime, fastrand::f64());
                    last_error = None;
                    if let Some(current) = CurrentToken::new(&token, lifetime, EXPIRY_MARGIN) {
                        self.state.set_current(current);
                    }
                    self.state.complete_invalidation();
                    self.discard_wakeups();
                    self.notify_waiters(Ok(token));
                }
                Err(error) => {
                    trace::warn!(
                        target: "tower_oauth::client",
                        error = %error.source_chain(),
                        "no access token could be obtained"
                    );
                    let ends_wait = schedule.failed(now(), classify(&error), fastrand::f64());
                    // The time left may cut the last attempt short: an earlier OAuth error says
                    // more than the timeout.
                    let oauth_error = last_error
                        .take()
                        .filter(|last| last.oauth_error().is_some());
                    let error = match oauth_error {
                        Some(last) if error.kind() == ErrorKind::Timeout => last,
                        _ => error,
                    };
                    last_error = Some(error.clone());
                    if ends_wait {
                        self.discard_wakeups();
                    }
                    self.report_failure(ends_wait.then_some(error));
                }
            }
        }
    }

    /// Makes one token request. `None` if all handles were dropped meanwhile.
    async fn try_once(
        &mut self,
        schedule: &mut RenewalSchedule,
    ) -> Option<Result<IssuedToken, Error>> {
        let limit = schedule.attempt_timeout(now());
        let Self {
            endpoint,
            token_request,
            allow_loopback_http,
            transport,
            state,
            wakeups,
            ..
        } = self;
        let request = tokio::time::timeout(
            limit.saturating_add(TIMEOUT_GRACE),
            request_token(
                endpoint,
                token_request,
                *allow_loopback_http,
                &**transport,
                state,
                limit,
            ),
        );
        let mut request =
            pin!(trace::instrument!(request, target: "tower_oauth::client", "token_request"));
        loop {
            tokio::select! {
                biased;
                result = &mut request => {
                    let timeout = |_| Error::new(Operation::TokenRequest, ErrorKind::Timeout);
                    return Some(result.map_err(timeout).and_then(|result| result));
                }
                wakeup = wakeups.recv() => {
                    wakeup?;
                    if state.with_current(CurrentToken::token).is_none() {
                        schedule.register_waiter(now());
                    }
                }
            }
        }
    }

    /// Discards wakeups sent before a result: the result answers them, and they would only cause
    /// another request.
    fn discard_wakeups(&mut self) {
        while self.wakeups.try_recv().is_ok() {}
    }

    /// Publishes the result to all waiting calls.
    fn notify_waiters(&self, result: Result<AccessToken, Error>) {
        self.results.send_modify(|results| {
            results.count += 1;
            results.latest = Some(result);
        });
    }

    /// Ends the wait for the successor of an invalidated token, and with an error the wait of all
    /// other calls.
    fn report_failure(&self, error: Option<Error>) {
        self.state.fail_invalidation();
        self.results
            .send_modify(|results| results.failed_replacements += 1);
        if let Some(error) = error {
            self.notify_waiters(Err(error));
        }
    }
}

/// Counts a token request.
fn record_metrics(result: &Result<IssuedToken, Error>) {
    let (outcome, error) = match result {
        Ok(_) => ("success", "none"),
        Err(error) => ("failure", error.kind().as_str()),
    };
    metrics::count(
        metrics::TOKEN_REQUESTS,
        &[("outcome", outcome), ("error", error)],
    );
}

/// Requests a token once, and a second time if discovery shows that the token endpoint has moved.
async fn request_token(
    endpoint: &mut TokenEndpoint,
    token_request: &TokenRequest,
    allow_loopback_http: bool,
    transport: &dyn Transport,
    state: &SharedState,
    limit: Duration,
) -> Result<IssuedToken, Error> {
    let ends_at = now() + limit;
    let limits = || Limits {
        allow_loopback_http,
        total: ends_at.saturating_duration_since(now()),
        max_body: MAX_RESPONSE,
    };
    let context = || DiscoveryContext {
        transport,
        now: state.clock.now(),
        limits: limits(),
    };
    let resolved = endpoint.resolve(context()).await?;
    let result = request_token_at(&resolved, token_request, transport, state, limits()).await;
    let may_have_moved = endpoint.record_result(&resolved, &result);
    match result {
        // A transient failure is retried later, after a new discovery.
        Err(error) if may_have_moved && classify(&error) == Failure::Permanent => {
            let moved = endpoint.resolve(context()).await?;
            if moved.url == resolved.url {
                return Err(error);
            }
            let result = request_token_at(&moved, token_request, transport, state, limits()).await;
            endpoint.record_result(&moved, &result);
            result
        }
        result => result,
    }
}

/// Sends one token request to this endpoint.
async fn request_token_at(
    endpoint: &ResolvedEndpoint,
    token_request: &TokenRequest,
    transport: &dyn Transport,
    state: &SharedState,
    limits: Limits,
) -> Result<IssuedToken, Error> {
    let request = token_request.to_http(&endpoint.url)?;
    let sent_at = state.clock.now();
    let secrets = || {
        let mut secrets = token_request.secrets();
        if let Some(token) = state.with_current(CurrentToken::token) {
            secrets.add(token.expose_secret());
        }
        secrets
    };
    send(transport, Operation::TokenRequest, request, limits)
        .await
        .and_then(|response| {
            token_request::parse_response(&response, sent_at, &endpoint.url, secrets)
        })
        .map_err(|error| endpoint.annotate(error))
}

/// Transport errors, 429 and 5xx are transient; all other failures, certificate errors included,
/// are permanent.
fn classify(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::Transport | ErrorKind::Timeout => Failure::Transient(None),
        ErrorKind::Status(status) if token_request::is_transient(status) => {
            Failure::Transient(error.retry_after())
        }
        _ => Failure::Permanent,
    }
}

/// Obtains and renews the token of a [`TokenManager`](crate::TokenManager) while it is polled.
///
/// It completes when the last clone of the manager is dropped.
#[must_use = "tokens are obtained only while this is polled"]
pub struct Renewer(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Renewer {
    pub(in crate::client) fn new(task: RenewalTask) -> Self {
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
