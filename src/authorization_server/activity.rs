//! The last requests to the endpoints that clients and resource servers use, and what came of
//! them. Neither secrets nor tokens get in: only what the server itself found out.

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

/// So many requests are remembered.
const CAPACITY: usize = 100;

/// A ring of the last requests.
#[derive(Debug, Default)]
pub(super) struct ActivityLog(Mutex<VecDeque<Entry>>);

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) at: UnixTime,
    pub(super) duration: Duration,
    pub(super) endpoint: EndpointKind,
    /// `None`: the caller left before there was an answer.
    pub(super) status: Option<StatusCode>,
    /// Of a refusal (RFC 6749 §5.2).
    pub(super) error: Option<&'static str>,
    /// The scripted fault that spoiled the answer.
    pub(super) fault: Option<&'static str>,
    /// To whom a token was issued.
    pub(super) client_id: Option<String>,
}

impl ActivityLog {
    /// The last requests, the latest first.
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

/// Stands before the endpoints, and before their faults.
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

/// Writes its entry down when the request is over, also when the caller left.
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
