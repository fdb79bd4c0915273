//! A well-signed header and payload: a token that the crate accepts is accepted by jsonwebtoken
//! under the same policy. The input is the header, a line feed, and the payload.

#![no_main]

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_oauth_fuzz::{AUDIENCE, Fixture, ISSUER, NOW, plain};

// The oracle reads the system clock, so tokens of the corpus expire for it. It only checks that
// there is an `exp`; the target `claims` checks the rest.
thread_local!(static FIXTURE: (Fixture, DecodingKey, Validation) = {
    let fixture = Fixture::at(NOW);
    let key = DecodingKey::from_ed_der(fixture.public_key());
    let mut policy = Validation::new(Algorithm::EdDSA);
    policy.validate_exp = false;
    policy.validate_nbf = false;
    policy.set_audience(&[AUDIENCE]);
    policy.set_issuer(&[ISSUER]);
    policy.set_required_spec_claims(&["exp", "iss", "aud"]);
    (fixture, key, policy)
});

fuzz_target!(|input: &[u8]| {
    let Some(at) = input.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let (header, payload) = (&input[..at], &input[at + 1..]);
    FIXTURE.with(|(fixture, key, policy)| {
        let token = fixture.sign(header, payload);
        if fixture.validate(&token).is_err() {
            return;
        }
        // The oracle does not know RFC 9864's name of EdDSA, and it parses keys in the header,
        // which the crate ignores.
        let header = plain(header);
        let keys = ["jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"];
        if header["alg"] != "Ed25519" && !keys.iter().any(|name| header.contains_key(*name)) {
            let theirs = jsonwebtoken::decode::<Value>(&token, key, policy);
            assert!(theirs.is_ok(), "{theirs:?}");
        }
    });
});
