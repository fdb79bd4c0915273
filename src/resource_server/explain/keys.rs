//! The checks of the key set and of the key.

use super::check::Check;
use crate::jwt::{Algorithm, Header};
use crate::key_set::{KeySet, KeySetStatus, SelectError};
use crate::resource_server::RejectionKind;
use crate::text;

/// The state of a key set, its last error, its keys, and those that were skipped.
pub(super) fn key_set(status: &KeySetStatus) -> String {
    let issuer = text::escaped(status.issuer().as_str());
    let keys = text::count(status.usable_key_count(), "usable key");
    let mut found = format!("{} with {keys}, of {issuer}", status.state().as_str());
    if let Some(age) = status.age() {
        found += &format!(", fetched {} ago", text::duration(age));
    }
    if let Some(error) = status.last_error().or_else(|| status.metadata_error()) {
        // As it is logged: what a server sent is escaped and cut in it.
        found += &format!("; last error: {error}");
    }
    let skipped = status.skipped().map(|skipped| {
        let kid = skipped
            .kid()
            .map_or_else(|| "no kid".to_owned(), text::shown);
        let detail = text::shown_text(skipped.detail());
        format!("{kid} ({}: {detail})", skipped.reason())
    });
    let skipped = text::joined(skipped);
    if !skipped.is_empty() {
        found += &format!("; skipped: {skipped}");
    }
    found
}

/// The selection of the key.
pub(super) fn key(header: &Header, keys: &KeySet, error: Option<SelectError>) -> Check {
    let kid = header.key_id.as_deref();
    let algorithm = header.algorithm;
    let outcome = match error {
        None => Ok(()),
        Some(SelectError::Revoked) => Err(RejectionKind::RevokedKey),
        Some(SelectError::NoMatch) => Err(RejectionKind::UnsupportedAlgorithm),
        Some(SelectError::Ambiguous) => Err(RejectionKind::AmbiguousKey),
        Some(SelectError::OtherIssuer | SelectError::UnknownKid) => Err(RejectionKind::UnknownKey),
    };
    let mut skipped = keys.skipped();
    let skipped = skipped.find(|skipped| skipped.kid() == kid);
    let cure = match (error, skipped) {
        (Some(SelectError::Revoked), _) => {
            "The key was revoked here, or its issuer has published its private part: request a \
             new token"
                .to_owned()
        }
        (Some(SelectError::NoMatch), _) => {
            "The algorithm of the token is not that of the key: see `alg` and `kty` in the key set"
                .to_owned()
        }
        (Some(SelectError::Ambiguous), _) => {
            "Give each key a `kid` at the issuer, or set `max_candidate_keys`".to_owned()
        }
        (Some(SelectError::OtherIssuer), _) => {
            "The key set says of this key that it signs the tokens of another tenant".to_owned()
        }
        (_, Some(skipped)) if kid.is_some() => {
            let (reason, detail) = (skipped.reason(), text::escaped(skipped.detail()));
            format!("The key set has this key, but it is not used: {reason}: {detail}")
        }
        _ => "The token is older than the keys, newer than this key set (`refresh_keys` fetches \
              it, and so does `validate`, within its rate limit), or of another environment with \
              the same issuer"
            .to_owned(),
    };
    let kid = kid.map_or_else(
        || "no kid".to_owned(),
        |kid| format!("kid {}", text::shown(kid)),
    );
    let mut all: Vec<String> = keys
        .used_keys()
        .map(|(kid, key)| {
            let kid = kid.map_or_else(|| "no kid".to_owned(), text::shown);
            let algorithms: Vec<&str> = key.algorithms().map(Algorithm::name).collect();
            format!("{kid} ({})", algorithms.join(" "))
        })
        .collect();
    all.sort_unstable();
    Check::new("key", outcome)
        .expects(format!("one of {}", text::joined(all.into_iter())))
        .finds(format!("{kid} for {algorithm}"))
        .cure_by(cure)
}
