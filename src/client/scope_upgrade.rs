//! Scopes that a resource server requires, and that a token was not requested with.
//!
//! A challenge of `insufficient_scope` names all scopes of an operation
//! ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)). The missing ones are
//! requested with one token request, whose token serves all calls. If it succeeds, they are
//! requested from then on. If not, the current token stays in use, and the same scopes are not
//! requested again for a while.
//!
//! The authorization server has not verified what a resource server names. That is limited by the
//! settings, in number, and in how often it causes a token request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;

use super::AccessToken;
use super::challenge::challenges;
use super::unverified_claims::is_for_resource_alone;
use crate::clock::UnixTime;
use crate::error::{Error, OAuthError};
use crate::oauth::{Origin, Scope};

/// The most scopes of one challenge, and of all challenges together.
const MAX_SCOPES: usize = 32;

/// The most bytes of a scope in a challenge.
const MAX_SCOPE_LENGTH: usize = 256;

/// For how long scopes that the authorization server has refused are not requested again.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(300);

/// Time between a failed attempt and the next one, also with other scopes.
const PAUSE: Duration = Duration::from_secs(10);

/// The most refusals that are remembered.
const MAX_REFUSALS: usize = 16;

/// Which scopes a challenge may add.
#[derive(Debug)]
pub(super) enum AllowedScopes {
    /// Any scope, if the layer is for the origin of this resource alone, and the new token is for
    /// the resource alone.
    AnyFor {
        resource: String,
        origin: Origin,
    },
    Only(Vec<Scope>),
}

/// The scopes that challenges add to the token requests of a manager.
#[derive(Debug)]
pub(super) struct ScopeUpgrade {
    /// Those of the settings, which each request has.
    configured: Vec<Scope>,
    allowed: AllowedScopes,
    /// Locked after a challenge and for a token request, never for a request with a token.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In each token request, after the configured ones.
    added: Vec<Scope>,
    /// How many of them challenges have named. The others were granted without a request.
    named: usize,
    attempt: Option<Attempt>,
    refusals: Vec<Refusal>,
    failed_at: Option<UnixTime>,
}

/// A token request with more scopes: the next one of the task, or the present one.
#[derive(Clone, Debug)]
struct Attempt {
    /// The value of `added` if it succeeds.
    added: Vec<Scope>,
    named: usize,
    missing: Vec<Scope>,
    is_started: bool,
}

#[derive(Debug)]
struct Refusal {
    scopes: Vec<Scope>,
    at: UnixTime,
}

/// What a challenge leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All scopes are in each token request already.
    Requested,
    /// An attempt has begun: the task has to be woken.
    Begun,
    /// Another attempt has not ended.
    Waiting,
    /// These scopes are not requested.
    Refused,
}

impl ScopeUpgrade {
    pub(super) fn new(configured: &[Scope], allowed: AllowedScopes) -> Self {
        Self {
            configured: configured.to_vec(),
            allowed,
            state: Mutex::default(),
        }
    }

    /// For a source whose scopes are not known.
    pub(super) fn never() -> Self {
        Self::new(&[], AllowedScopes::Only(Vec::new()))
    }

    /// Whether challenges of these origins may add scopes.
    pub(super) fn is_for<'a>(&self, origins: impl IntoIterator<Item = &'a Origin>) -> bool {
        match &self.allowed {
            AllowedScopes::AnyFor { origin, .. } => {
                let mut origins = origins.into_iter().peekable();
                origins.peek().is_some() && origins.all(|other| other == origin)
            }
            AllowedScopes::Only(scopes) => !scopes.is_empty(),
        }
    }

    /// Whether a token with added scopes may be used. Without a list of scopes it must be for the
    /// resource alone: else the resource could have the client get a token for another one, and use
    /// it there. An authorization server may ignore `resource`.
    pub(super) fn accepts(&self, token: &AccessToken) -> bool {
        match &self.allowed {
            AllowedScopes::AnyFor { resource, .. } => {
                is_for_resource_alone(token.expose_secret(), resource)
            }
            AllowedScopes::Only(_) => true,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A resource server requires these scopes, and did not accept `token` without them.
    pub(super) fn begin(&self, required: &[Scope], token: &AccessToken, now: UnixTime) -> Step {
        let mut state = self.state();
        let is_requested =
            |scope: &&Scope| self.configured.contains(scope) || state.added.contains(scope);
        if required.iter().all(|scope| is_requested(&scope)) {
            return Step::Requested;
        }
        if state.attempt.is_some() {
            return Step::Waiting;
        }
        // Without a requested scope, the server has chosen those of the token.
        let chosen = match token.scopes() {
            Some(scopes) if self.configured.is_empty() && state.added.is_empty() => scopes,
            _ => &[],
        };
        let missing = required
            .iter()
            .filter(|scope| !is_requested(scope) && !chosen.contains(scope));
        let missing: Vec<Scope> = missing.cloned().collect();
        let named = state.named + missing.len();
        if missing.is_empty()
            || named > MAX_SCOPES
            || !missing.iter().all(|scope| self.allows(scope))
            || state.was_refused(&missing, now)
        {
            return Step::Refused;
        }
        let mut added = state.added.clone();
        added.extend(chosen.iter().chain(&missing).cloned());
        state.attempt = Some(Attempt {
            added,
            named,
            missing,
            is_started: false,
        });
        Step::Begun
    }

    fn allows(&self, scope: &Scope) -> bool {
        match &self.allowed {
            AllowedScopes::AnyFor { .. } => true,
            AllowedScopes::Only(scopes) => scopes.contains(scope),
        }
    }

    /// Starts the attempt that has begun. Returns the scopes that it is for.
    pub(super) fn start_attempt(&self) -> Option<Vec<Scope>> {
        let mut state = self.state();
        let attempt = state
            .attempt
            .as_mut()
            .filter(|attempt| !attempt.is_started)?;
        attempt.is_started = true;
        Some(attempt.missing.clone())
    }

    /// The scopes that a token request has in addition to the configured ones.
    pub(super) fn added(&self) -> Vec<Scope> {
        let state = self.state();
        let attempt = state.attempt.as_ref().filter(|attempt| attempt.is_started);
        attempt
            .map_or(&state.added, |attempt| &attempt.added)
            .clone()
    }

    /// A token request has succeeded. If it was that of the attempt, its scopes stay.
    pub(super) fn request_succeeded(&self) {
        let mut state = self.state();
        if let Some(Attempt { added, named, .. }) =
            state.attempt.take_if(|attempt| attempt.is_started)
        {
            state.added = added;
            state.named = named;
        }
    }

    /// The token request of the attempt has failed. If it may succeed later, the scopes may be
    /// requested again after a pause.
    pub(super) fn attempt_failed(&self, is_permanent: bool, now: UnixTime) {
        let mut state = self.state();
        let attempt = state.attempt.take();
        state.failed_at = Some(now);
        if let Some(attempt) = attempt.filter(|_| is_permanent) {
            state.remember_refusal(attempt.missing, now);
        }
    }

    /// Removes the added scopes, if the server does not grant them any more: without them the next
    /// request may succeed. Not in an attempt, which fails then.
    pub(super) fn drop_refused(&self, error: &Error, now: UnixTime) -> bool {
        let code = error.oauth_error().map(OAuthError::code);
        let mut state = self.state();
        let is_refused = matches!(code, Some("invalid_scope" | "access_denied"));
        let is_attempt = state
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.is_started);
        if !is_refused || is_attempt || state.added.is_empty() {
            return false;
        }
        let added = std::mem::take(&mut state.added);
        state.named = 0;
        // One that has begun would add to the scopes that are removed.
        state.attempt = None;
        state.failed_at = Some(now);
        for scope in added {
            state.remember_refusal(vec![scope], now);
        }
        true
    }
}

impl State {
    /// Whether these scopes, or some of them, were refused not long ago, or an attempt has just
    /// failed.
    fn was_refused(&self, missing: &[Scope], now: UnixTime) -> bool {
        // A clock that was set back makes neither last longer.
        let is_recent = |at: UnixTime, lifetime| now >= at && now.saturating_since(at) < lifetime;
        self.failed_at.is_some_and(|at| is_recent(at, PAUSE))
            || self.refusals.iter().any(|refusal| {
                is_recent(refusal.at, REFUSAL_LIFETIME)
                    && refusal.scopes.iter().all(|scope| missing.contains(scope))
            })
    }

    fn remember_refusal(&mut self, scopes: Vec<Scope>, at: UnixTime) {
        if self.refusals.len() == MAX_REFUSALS {
            self.refusals.remove(0);
        }
        self.refusals.push(Refusal { scopes, at });
    }
}

/// The scopes that a Bearer challenge of `insufficient_scope` names.
///
/// `None` if there is no such challenge, or if it names too many scopes, too long ones, or what is
/// no scope token ([RFC 6749 §3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3)).
pub(super) fn required_scopes(headers: &HeaderMap) -> Option<Vec<Scope>> {
    let challenge = challenges(headers).find(|challenge| {
        challenge.is_of("Bearer")
            && (challenge.parameter("error"))
                .is_some_and(|error| error.eq_ignore_ascii_case("insufficient_scope"))
            && challenge.parameter("scope").is_some()
    })?;
    let names = challenge.parameter("scope")?.split(' ');
    let mut scopes: Vec<Scope> = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        if name.len() > MAX_SCOPE_LENGTH || scopes.len() == MAX_SCOPES {
            return None;
        }
        let scope = Scope::new(name).ok()?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    (!scopes.is_empty()).then_some(scopes)
}
