//! The task of a token manager: requests tokens, one request at a time, and publishes the results.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::super::AccessToken;
use super::super::lifetime::lifetime_of;
use super::super::scope_upgrade::ScopeUpgrade;
use super::super::state::{CurrentToken, RenewalLeader, SharedState};
use super::super::token_source::{TokenSource, fetch, is_transient};
use super::schedule::{Failure, RenewalPolicy, RenewalSchedule};
use super::task_set::TaskSet;
#[cfg(feature = "tracing")]
use crate::error::escape_and_truncate;
use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::Scope;
use crate::timer::{now, sleep_until_some};
use crate::{metrics, trace};

/// Added to the time limit of a token request, so that the inner limits expire first: their
/// errors say more.
const TIMEOUT_GRACE: Duration = Duration::from_millis(100);

/// The state of the task.
#[derive(Debug)]
pub(in crate::client) struct RenewalTask {
    /// The name of the manager in metrics and events.
    pub(in crate::client) name: String,
    pub(in crate::client) source: Arc<dyn TokenSource>,
    pub(in crate::client) policy: RenewalPolicy,
    pub(in crate::client) state: Arc<SharedState>,
    pub(in crate::client) leader: RenewalLeader,
    pub(in crate::client) scope_upgrade: Arc<ScopeUpgrade>,
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
            if let Some(scopes) = self.scope_upgrade.start_attempt() {
                let Some(token) = self.request_scopes(&scopes, &mut schedule).await else {
                    return;
                };
                if let Some(token) = token {
                    last_error = None;
                    self.succeeded(&mut schedule, token);
                }
                continue;
            }
            tokio::select! {
                biased;
                requested = self.leader.requested() => {
                    let Some(()) = requested else { return };
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
            record_metrics(&self.name, &result);
            match result {
                Ok(token) => {
                    last_error = None;
                    self.succeeded(&mut schedule, token);
                }
                Err(error) => {
                    trace::warn!(
                        target: "tower_oauth::client",
                        manager = %self.name,
                        error = %error.source_chain(),
                        "no access token could be obtained"
                    );
                    let ends_wait = schedule.failed(now(), classify(&error), fastrand::f64());
                    // The time left may cut the last attempt short: an earlier OAuth error says
                    // more than the timeout, and any earlier error more than one without a URL.
                    let more_specific = last_error
                        .take()
                        .filter(|last| last.oauth_error().is_some() || error.url().is_none());
                    let error = match more_specific {
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

    /// A token was obtained: makes it the current one.
    fn succeeded(&mut self, schedule: &mut RenewalSchedule, fetched: FetchedToken) {
        let FetchedToken {
            token,
            lifetime,
            renew_after,
        } = fetched;
        trace::debug!(
            target: "tower_oauth::client",
            manager = %self.name,
            expires_in = lifetime.map(|l| l.as_secs()),
            "an access token was obtained"
        );
        schedule.succeeded(now(), lifetime, fastrand::f64());
        if let Some(after) = renew_after {
            schedule.renew_within(now(), after);
        }
        let is_invalidated = self.state.is_invalidated(&token);
        if let Some(current) = CurrentToken::new(&token, lifetime) {
            self.state.set_current(current);
        }
        // After the token: a call that finds its scopes requested finds the token as well.
        self.scope_upgrade.request_succeeded();
        if is_invalidated {
            // The source has no other token: a retry with it would be in vain.
            self.report_failure(None);
        } else {
            self.state.complete_invalidation();
        }
        self.discard_wakeups();
        self.notify_waiters(Ok(token));
    }

    /// Requests a token with these scopes in addition. `None` if all handles were dropped meanwhile.
    /// A failure changes nothing but the wait for such a token: the current one is good.
    #[cfg_attr(
        not(feature = "tracing"),
        expect(unused_variables, reason = "nothing is logged")
    )]
    async fn request_scopes(
        &mut self,
        scopes: &[Scope],
        schedule: &mut RenewalSchedule,
    ) -> Option<Option<FetchedToken>> {
        if schedule.is_backing_off(now()) {
            self.attempt_failed(false);
            return Some(None);
        }
        let result = self.try_once(schedule).await?;
        record_metrics(&self.name, &result);
        let error = match result {
            Ok(fetched) if self.scope_upgrade.accepts(&fetched.token) => {
                return Some(Some(fetched));
            }
            Ok(_) => {
                trace::warn!(
                    target: "tower_oauth::client",
                    manager = %self.name,
                    scopes = %list(scopes),
                    "a token with the scopes that a resource server requires is not used: it is \
                     not a JWT for that resource alone. Name the scopes with step_up_scopes"
                );
                self.attempt_failed(true);
                return Some(None);
            }
            Err(error) => error,
        };
        trace::warn!(
            target: "tower_oauth::client",
            manager = %self.name,
            scopes = %list(scopes),
            error = %error.source_chain(),
            "no access token could be obtained with the scopes that a resource server requires"
        );
        self.attempt_failed(classify(&error) == Failure::Permanent);
        Some(None)
    }

    fn attempt_failed(&self, is_permanent: bool) {
        let now = self.state.clock.now();
        self.scope_upgrade.attempt_failed(is_permanent, now);
        // Ends the waits.
        self.leader.update(|_| {});
    }

    /// Makes one token request. `None` if all handles were dropped meanwhile.
    async fn try_once(
        &mut self,
        schedule: &mut RenewalSchedule,
    ) -> Option<Result<FetchedToken, Error>> {
        let limit = schedule.attempt_timeout(now());
        let Self {
            source,
            state,
            leader,
            policy,
            ..
        } = self;
        let requested_at = state.clock.now();
        let request = tokio::time::timeout(limit.saturating_add(TIMEOUT_GRACE), fetch(&**source));
        let mut request = pin!(trace::instrument!(
            request,
            target: "tower_oauth::client",
            "token_request",
            manager = %self.name
        ));
        loop {
            tokio::select! {
                biased;
                result = &mut request => {
                    let timeout = |_| Error::new(Operation::TokenRequest, ErrorKind::Timeout);
                    let response = result.map_err(timeout).and_then(|result| result);
                    return Some(response.map(|response| {
                        let lifetime =
                            lifetime_of(&response, policy.assumed_lifetime, requested_at);
                        FetchedToken {
                            lifetime,
                            renew_after: response.renew_after(),
                            token: AccessToken::new(response, lifetime, requested_at),
                        }
                    }));
                }
                requested = leader.requested() => {
                    requested?;
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
        self.leader.take_requests();
    }

    /// Publishes the result to all waiting calls.
    fn notify_waiters(&self, result: Result<AccessToken, Error>) {
        self.leader.update(|results| {
            results.count += 1;
            results.latest = Some(result);
        });
    }

    /// Ends the wait for the successor of an invalidated token, and with an error the wait of all
    /// other calls.
    fn report_failure(&self, error: Option<Error>) {
        self.state.fail_invalidation();
        self.leader
            .update(|results| results.failed_replacements += 1);
        if let Some(error) = error {
            self.notify_waiters(Err(error));
        }
    }
}

/// A token that the source fetched.
struct FetchedToken {
    token: AccessToken,
    /// `None` if the token is not stored.
    lifetime: Option<Duration>,
    /// When the source has it renewed at the latest.
    renew_after: Option<Duration>,
}

/// Scopes as they are logged. A resource server has named them.
#[cfg(feature = "tracing")]
fn list(scopes: &[Scope]) -> String {
    let names: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
    escape_and_truncate(&names.join(" "))
}

/// Counts a token request.
pub(in crate::client) fn record_metrics<T>(name: &str, result: &Result<T, Error>) {
    let (outcome, error) = match result {
        Ok(_) => ("success", "none"),
        Err(error) => ("failure", error.kind().as_str()),
    };
    metrics::count(
        metrics::TOKEN_REQUESTS,
        &[("manager", name), ("outcome", outcome), ("error", error)],
    );
}

fn classify(error: &Error) -> Failure {
    if is_transient(error) {
        Failure::Transient(error.retry_after())
    } else {
        Failure::Permanent
    }
}

/// Obtains and renews the token of a [`TokenManager`](crate::TokenManager) while it is polled.
///
/// It needs a tokio runtime, and completes when the last clone of the manager is dropped. That of
/// [`TokenManagers`](crate::TokenManagers) renews the tokens of all of them.
///
/// Callers may run on another runtime, or on none: they use no timer. The renewer ends their waits,
/// at the time limit and when it is dropped. While it is not polled, time limits have no effect: a
/// call without a token waits.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use tower_oauth::TokenManager;
///
/// let (tokens, renewer) = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
///     .transport(issuer.transport())
///     .build()?;
/// tokio::select! {
///     () = renewer => unreachable!("it ends with the last clone of the manager"),
///     token = tokens.access_token() => assert!(token?.expires_at().is_some()),
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "tokens are obtained only while this is polled"]
pub struct Renewer(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Renewer {
    pub(in crate::client) fn new(task: RenewalTask) -> Self {
        let deadlines = task.leader.deadlines();
        Self(Box::pin(async move { deadlines.serve(task.run()).await }))
    }

    /// One renewer for several managers.
    pub(in crate::client) fn all(renewers: impl IntoIterator<Item = Self>) -> Self {
        Self(Box::pin(TaskSet::new(renewers)))
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
