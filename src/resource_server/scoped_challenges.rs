//! The challenges of a layer that names scopes in its 401s.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::responses::Responses;
use super::{Rejection, RejectionKind};
use crate::oauth::Scope;

/// The headers of each 401 with these scopes, built once: anyone can cause a 401.
#[derive(Debug)]
pub(super) struct ScopedChallenges {
    scopes: Arc<[Scope]>,
    by_kind: Vec<(RejectionKind, Arc<HeaderMap>)>,
}

impl ScopedChallenges {
    pub(super) fn new(responses: &Responses, scopes: Arc<[Scope]>) -> Self {
        let kinds = RejectionKind::ALL.iter().copied();
        let kinds = kinds.filter(|kind| kind.status() == StatusCode::UNAUTHORIZED);
        let by_kind = kinds.map(|kind| (kind, responses.headers(kind, &scopes)));
        Self {
            by_kind: by_kind.collect(),
            scopes,
        }
    }

    /// Adds the scopes to a 401 that names none.
    pub(super) fn add_to(&self, rejection: &mut Rejection) {
        let own = self.by_kind.iter().find(|(own, _)| *own == rejection.kind);
        if let (Some((_, headers)), None) = (own, &rejection.required_scopes) {
            rejection.headers = Arc::clone(headers);
            rejection.required_scopes = Some(Arc::clone(&self.scopes));
        }
    }
}
