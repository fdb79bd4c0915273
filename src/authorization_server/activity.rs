//! A log of the last requests to the endpoints that clients and resource servers use.
//!
//! It records what the server has established itself, never secrets, tokens or request content.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::StatusCode;
use tokio::time::Instant;

use super::AuthorizationServer;
use super::error_response::ErrorCode;
use super::faults::{self, EndpointKind, InjectedFault};
use super::token_endpoint::IssuedTo;
use crate::clock::UnixTime;

/// Number of requests in the log.
const CAPACITY: usize = 100;

/// A bounded log of the last requests.
#[derive(Debug, Default)]
pub(super) struct ActivityLog(Mutex<VecDeque<Entry>>);

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) at: UnixTime,
    pub(super) duration: Duration,
    pub(super) endpoint: EndpointKind,
    /// `None` if the caller disconnected before the response.
    pub(super) status: Option<StatusCode>,
    /// The error code of an error response (RFC 6749 §5.2).
    pub(super) error: Option<&'static str>,
    /// The name of the injected fault.
    pub(super) fault: Option<&'static str>,
    /// The client that a token was issued to.
    pub(super) client_id: Option<String>,
}

impl ActivityLog {
    /// Returns the entries, the latest first.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .rev()
            .cloned()
            .collect()
    }

    fn push(&self, entry: Entry) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == CAPACITY {
            entries.pop_front();
        }
        entries.push_back(entry);
    }
}

/// Middleware that records requests. Runs outside [`faults::inject`], so that it sees faults.
pub(super) async fn record(
    State(server): State<AuthorizationServer>,
    request: Request,
    next: Next,
) -> Response {
    let endpoint = match faults::endpoint_kind(request.uri().path()) {
        None | Some(EndpointKind::Management) => return next.run(request).await,
        Some(endpoint) => endpoint,
    };
    let at = server.0.clock.now();
    let entry = Entry {
        at,
        duration: Duration::ZERO,
        endpoint,
        status: None,
        error: None,
        fault: None,
        client_id: None,
    };
    let mut recorder = Recorder {
        server,
        entry: Some(entry),
        started: Instant::now(),
    };
    let response = next.run(request).await;
    if let Some(entry) = &mut recorder.entry {
        let extensions = response.extensions();
        entry.status = Some(response.status());
        entry.error = extensions.get().map(|ErrorCode(code)| *code);
        entry.fault = extensions.get().map(|InjectedFault(fault)| *fault);
        entry.client_id = extensions
            .get()
            .map(|IssuedTo(client_id)| client_id.clone());
    }
    response
}

/// Adds its entry to the log on drop, which also covers requests whose caller disconnected.
struct Recorder {
    server: AuthorizationServer,
    entry: Option<Entry>,
    started: Instant,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.server.0.activity.push(Entry {
                duration: self.started.elapsed(),
                ..entry
            });
        }
    }
}
