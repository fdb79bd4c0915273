//! One exchange for all calls with the same subject token.
//!
//! The exchange runs in a spawned task, so a call that is dropped cancels nothing.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::cache::SubjectKey;
use super::{AccessToken, Inner, error};
use crate::error::{Error, ErrorKind};
use crate::inbound_token::InboundToken;

type Progress = Option<Result<AccessToken, Error>>;

/// The exchanges that have not ended.
#[derive(Default)]
pub(super) struct Flights(HashMap<SubjectKey, watch::Receiver<Progress>>);

/// A call's side of an exchange.
pub(super) struct Flight(watch::Receiver<Progress>);

/// The task's side of an exchange. Dropping it ends the exchange.
pub(super) struct Lead {
    exchange: Arc<Inner>,
    /// `None` once the exchange has ended.
    key: Option<SubjectKey>,
    result: watch::Sender<Progress>,
}

impl Flights {
    /// The exchange of this subject token that is under way.
    pub(super) fn join(&self, key: &SubjectKey) -> Option<Flight> {
        self.0.get(key).cloned().map(Flight)
    }

    /// Begins an exchange. There must be none for this subject token.
    pub(super) fn begin(&mut self, key: SubjectKey, exchange: Arc<Inner>) -> (Lead, Flight) {
        let (result, flight) = watch::channel(None);
        self.0.insert(key, flight.clone());
        let lead = Lead {
            exchange,
            key: Some(key),
            result,
        };
        (lead, Flight(flight))
    }
}

impl Flight {
    pub(super) async fn result(&mut self) -> Result<AccessToken, Error> {
        let result = self.0.wait_for(Option::is_some).await;
        let result = result.ok().and_then(|result| result.clone());
        result.unwrap_or_else(|| {
            let stopped = error(ErrorKind::Transport);
            Err(stopped.with_detail("the exchange was stopped: it panicked, or the runtime ended"))
        })
    }
}

impl Lead {
    /// Exchanges the token, caches the result and publishes it.
    pub(super) async fn run(mut self, subject: InboundToken) {
        let cached = self.exchange.exchange(subject).await;
        let result = cached.result().clone();
        if let Some(key) = self.key.take() {
            // At once: a call finds either the exchange or its result.
            let mut state = self.exchange.state();
            state.flights.0.remove(&key);
            state.cache.insert(key, cached);
        }
        self.result.send_replace(Some(result));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.exchange.state().flights.0.remove(&key);
        }
    }
}
