//! A header and a payload, well signed: what we accept, jsonwebtoken accepts under the same
//! policy. The input is the header, a line feed, and the payload.

#![no_main]

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_oauth_fuzz::{AUDIENCE, Fixture, ISSUER, NOW, plain};

// The oracle reads the clock of the system, so tokens of the corpus expire for it. Their time
// is far from the edges: it checks whether there is an `exp`, and the rest is `claims`'s.
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
        // RFC 9864's name of EdDSA is one that the oracle does not know, and it wants to be able to
        // read keys in the header, which we read over.
        let header = plain(header);
        let keys = ["jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"];
        if header["alg"] != "Ed25519" && !keys.iter().any(|name| header.contains_key(*name)) {
            let theirs = jsonwebtoken::decode::<Value>(&token, key, policy);
            assert!(theirs.is_ok(), "{theirs:?}");
        }
    });
});
