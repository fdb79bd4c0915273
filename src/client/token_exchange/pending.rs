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
pub(super) struct PendingExchanges(HashMap<SubjectKey, watch::Receiver<Progress>>);

/// A call's side of an exchange.
pub(super) struct PendingExchange(watch::Receiver<Progress>);

/// The task's side of an exchange. Dropping it ends the exchange.
pub(super) struct ExchangeTask {
    exchange: Arc<Inner>,
    /// `None` once the exchange has ended.
    key: Option<SubjectKey>,
    result: watch::Sender<Progress>,
}

impl PendingExchanges {
    /// The exchange of this subject token that is under way.
    pub(super) fn join(&self, key: &SubjectKey) -> Option<PendingExchange> {
        self.0.get(key).cloned().map(PendingExchange)
    }

    /// Begins an exchange. There must be none for this subject token.
    pub(super) fn begin(
        &mut self,
        key: SubjectKey,
        exchange: Arc<Inner>,
    ) -> (ExchangeTask, PendingExchange) {
        let (result, pending) = watch::channel(None);
        self.0.insert(key, pending.clone());
        let task = ExchangeTask {
            exchange,
            key: Some(key),
            result,
        };
        (task, PendingExchange(pending))
    }
}

impl PendingExchange {
    pub(super) async fn result(&mut self) -> Result<AccessToken, Error> {
        let result = self.0.wait_for(Option::is_some).await;
        let result = result.ok().and_then(|result| result.clone());
        result.unwrap_or_else(|| {
            let stopped = error(ErrorKind::Transport);
            Err(stopped.with_detail("the exchange was stopped: it panicked, or the runtime ended"))
        })
    }
}

impl ExchangeTask {
    /// Exchanges the token, caches the result and publishes it.
    pub(super) async fn run(mut self, subject: InboundToken) {
        let cached = self.exchange.exchange(subject).await;
        let result = cached.result().clone();
        if let Some(key) = self.key.take() {
            // At once: a call finds either the exchange or its result.
            let mut state = self.exchange.state();
            state.pending.0.remove(&key);
            state.cache.insert(key, cached);
        }
        self.result.send_replace(Some(result));
    }
}

impl Drop for ExchangeTask {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.exchange.state().pending.0.remove(&key);
        }
    }
}
