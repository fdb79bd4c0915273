//! Access tokens of this server that come back to it: to be introspected, or to be exchanged.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Inner;
use super::signed_jwt::{JwtClaims, SignedJwt};
use crate::clock::UnixTime;

/// The `typ` of access tokens: of both versions of App ID's API, and of RFC 9068.
const TYPES: [&str; 3] = ["JWT", "JOSE", "at+jwt"];

/// An active access token of this server.
pub(super) struct ActiveToken {
    claims: JwtClaims,
    subject: String,
    client_id: String,
    expires_at: UnixTime,
}

impl ActiveToken {
    /// Verifies a token; `None` if it is not active: the signature is not that of a published key,
    /// the issuer is another, the time is not within `nbf` and `exp`, or the application that it
    /// was issued to has been deleted.
    pub(super) fn verify(server: &Inner, token: &str) -> Option<Self> {
        let jwt = SignedJwt::parse(token).ok()?;
        let claims = jwt.claims();
        let subject = claims.string("sub")?.to_owned();
        // Tokens of the token endpoint have no `client_id`, but those of an exchange.
        let client_id = claims.string("client_id").unwrap_or(&subject).to_owned();
        let expires_at = claims.date("exp")?;
        let now = server.clock.now();
        let key = {
            let state = server.state();
            state.application(&client_id)?;
            let mut keys = state.keys.published(now).map(|ring_key| &ring_key.key);
            let matches = |key: &&Arc<super::SigningKey>| {
                jwt.key_id() == Some(key.kid()) && jwt.algorithm() == key.algorithm()
            };
            Arc::clone(keys.find(matches)?)
        };
        let (message, signature) = jwt.signature().ok()?;
        let issuer = claims.string("iss")?;
        let is_active = key.verify(message, &signature)
            && jwt.has_type(&TYPES)
            && server.is_issuer(issuer)
            && now < expires_at
            && claims.date("nbf") <= Some(now);
        is_active.then(|| Self {
            claims: jwt.into_claims(),
            subject,
            client_id,
            expires_at,
        })
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// The application that it was issued to.
    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    pub(super) fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    pub(super) fn has_audience(&self, audience: &str) -> bool {
        match self.claim("aud") {
            Some(Value::Array(all)) => all.iter().any(|one| one == audience),
            Some(one) => one == audience,
            None => false,
        }
    }

    pub(super) fn scopes(&self) -> Vec<&str> {
        let scope = self.claims.string("scope").unwrap_or_default();
        scope.split(' ').filter(|scope| !scope.is_empty()).collect()
    }

    /// Whether its sender would have to prove that it has a key (RFC 7800).
    pub(super) fn is_bound_to_a_key(&self) -> bool {
        self.claims.0.contains_key("cnf")
    }

    pub(super) fn into_claims(self) -> Map<String, Value> {
        self.claims.0
    }
}
