//! What we accept, jsonwebtoken accepts under the same policy: it is the oracle, called through
//! an explicit provider value, never through its process-wide one.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, reason = "tests")]

mod support;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::Jwk;
use proptest::prelude::*;
use serde_json::json;
use support::{Bench, PrivateKey, claims, compact, now_or_never};

/// Whether jsonwebtoken's verifier takes the signature of a token made with this key.
fn oracle_accepts(token: &str, key: &PrivateKey, alg: &str) -> bool {
    let Ok(algorithm) = alg.parse() else { return false };
    let jwk: Jwk = serde_json::from_value(key.jwk("any")).unwrap();
    let key = DecodingKey::from_jwk(&jwk).unwrap();
    let Some((input, signature)) = token.rsplit_once('.') else { return false };
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let Ok(signature) = base64::Engine::decode(&engine, signature) else { return false };
    (DEFAULT_PROVIDER.verifier_factory)(&algorithm, &key)
        .unwrap()
        .verify(input.as_bytes(), &signature)
        .is_ok()
}

fn keys(bench: &Bench) -> [(&'static str, &'static str, &PrivateKey); 9] {
    [
        ("RS256", "rsa", bench.rsa),
        ("RS384", "rsa", bench.rsa),
        ("RS512", "rsa", bench.rsa),
        ("PS256", "rsa", bench.rsa),
        ("PS384", "rsa", bench.rsa),
        ("PS512", "rsa", bench.rsa),
        ("ES256", "p256", &bench.p256),
        ("ES384", "p384", &bench.p384),
        ("EdDSA", "ed", &bench.ed25519),
    ]
}

#[test]
fn good_tokens_of_every_algorithm_are_accepted_by_both() {
    let bench = Bench::new();
    for (alg, kid, key) in keys(&bench) {
        let header = json!({ "alg": alg, "kid": kid }).to_string();
        let token = compact(key, alg, &header, claims().to_string().as_bytes());
        bench.accepts(&token);
        assert!(oracle_accepts(&token, key, alg), "{alg}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_done_to_a_token_we_accept_no_more_than_the_oracle(
        which in 0_usize..9,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        edit in 0_u8..3,
    ) {
        thread_local!(static BENCH: Bench = Bench::new());
        BENCH.with(|bench| {
            let (alg, kid, key) = keys(bench)[which];
            let header = json!({ "alg": alg, "kid": kid }).to_string();
            let mut token = compact(key, alg, &header, claims().to_string().as_bytes()).into_bytes();
            let at = at.index(token.len());
            let byte = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.="[usize::from(byte) % 66];
            match edit {
                0 => token[at] = byte,
                1 => token.insert(at, byte),
                _ => drop(token.remove(at)),
            }
            let token = String::from_utf8(token).unwrap();
            if now_or_never(bench.judge(&token)).is_ok() {
                assert!(oracle_accepts(&token, key, alg), "{token}");
            }
        });
    }

    #[test]
    fn no_bytes_in_the_field_do_anything_but_refuse(token in "[ -~]{0,200}") {
        thread_local!(static BENCH: Bench = Bench::new());
        BENCH.with(|bench| {
            prop_assert!(now_or_never(bench.judge(&token)).is_err());
            Ok(())
        })?;
    }
}
