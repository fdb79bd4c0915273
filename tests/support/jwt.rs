//! JWTs that a test does not verify.

use serde_json::{Value, json};

use super::{decoded, encode};

/// A JWT with these claims, whose signature nobody verifies.
pub fn unsigned(claims: &Value) -> String {
    let header = json!({ "alg": "RS256" });
    let [header, claims] = [&header, claims].map(|part| encode(part.to_string()));
    format!("{header}.{claims}.c2lnbmF0dXJl")
}

/// The header and the claims of a JWT, not verified.
pub fn decode(jwt: &str) -> (Value, Value) {
    let [header, claims, _] = jwt.split('.').collect::<Vec<_>>()[..] else {
        panic!("not three parts: {jwt}");
    };
    let [header, claims] = [header, claims].map(|part| serde_json::from_slice(&decoded(part)));
    (header.unwrap(), claims.unwrap())
}
