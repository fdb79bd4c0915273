//! Tokens that the crate accepts are accepted by jsonwebtoken under the same policy. It is the
//! oracle for signatures and for claims.

#![allow(clippy::as_conversions, reason = "tests")]

use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::Jwk;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower_oauth::clock::UnixTime;

use crate::support::{self, Fixture, PrivateKey, claims, compact, poll_once_or_panic};

/// Whether jsonwebtoken verifies the signature of a token made with this key.
fn oracle_accepts(token: &str, key: &PrivateKey, alg: &str) -> bool {
    let Ok(algorithm) = alg.parse() else {
        return false;
    };
    let jwk: Jwk = serde_json::from_value(key.jwk("any")).unwrap();
    let key = DecodingKey::from_jwk(&jwk).unwrap();
    let Some((input, signature)) = token.rsplit_once('.') else {
        return false;
    };
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let Ok(signature) = base64::Engine::decode(&engine, signature) else {
        return false;
    };
    (DEFAULT_PROVIDER.verifier_factory)(&algorithm, &key)
        .unwrap()
        .verify(input.as_bytes(), &signature)
        .is_ok()
}

fn keys(fixture: &Fixture) -> [(&'static str, &'static str, &PrivateKey); 9] {
    [
        ("RS256", "rsa", fixture.rsa),
        ("RS384", "rsa", fixture.rsa),
        ("RS512", "rsa", fixture.rsa),
        ("PS256", "rsa", fixture.rsa),
        ("PS384", "rsa", fixture.rsa),
        ("PS512", "rsa", fixture.rsa),
        ("ES256", "p256", &fixture.p256),
        ("ES384", "p384", &fixture.p384),
        ("EdDSA", "ed", &fixture.ed25519),
    ]
}

#[test]
fn valid_tokens_of_every_algorithm_are_accepted_by_crate_and_oracle() {
    let fixture = Fixture::new();
    for (alg, kid, key) in keys(&fixture) {
        let header = json!({ "alg": alg, "kid": kid }).to_string();
        let token = compact(key, alg, &header, claims().to_string().as_bytes());
        fixture.assert_accepts(&token);
        assert!(oracle_accepts(&token, key, alg), "{alg}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn mutated_tokens_are_accepted_only_if_the_oracle_accepts_them(
        which in 0_usize..9,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        edit in 0_u8..3,
    ) {
        thread_local!(static FIXTURE: Fixture = Fixture::new());
        FIXTURE.with(|fixture| {
            let (alg, kid, key) = keys(fixture)[which];
            let header = json!({ "alg": alg, "kid": kid }).to_string();
            let claims = claims().to_string();
            let mut token = compact(key, alg, &header, claims.as_bytes()).into_bytes();
            let at = at.index(token.len());
            let byte = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.="
                [usize::from(byte) % 66];
            match edit {
                0 => token[at] = byte,
                1 => token.insert(at, byte),
                _ => drop(token.remove(at)),
            }
            let token = String::from_utf8(token).unwrap();
            if poll_once_or_panic(fixture.validate(&token)).is_ok() {
                assert!(oracle_accepts(&token, key, alg), "{token}");
            }
        });
    }

    #[test]
    fn arbitrary_bytes_in_the_authorization_header_are_rejected(token in "[ -~]{0,200}") {
        thread_local!(static FIXTURE: Fixture = Fixture::new());
        FIXTURE.with(|fixture| {
            prop_assert!(poll_once_or_panic(fixture.validate(&token)).is_err());
            Ok(())
        })?;
    }
}

/// Whether jsonwebtoken accepts the whole token under the same policy: these claims, 60 seconds of
/// leeway.
fn oracle_validates(token: &str, key: &PrivateKey) -> bool {
    let jwk: Jwk = serde_json::from_value(key.jwk("any")).unwrap();
    let mut policy = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    policy.leeway = 60;
    policy.validate_nbf = true;
    policy.set_audience(&[support::AUDIENCE]);
    policy.set_issuer(&[support::ISSUER]);
    policy.set_required_spec_claims(&["exp", "iss", "aud"]);
    jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(&jwk).unwrap(), &policy).is_ok()
}

/// One of several values, `null` for none.
fn one_of(values: Vec<Value>) -> impl Strategy<Value = Value> {
    prop::sample::select(values)
}

/// Seconds from now, away from the edges of the leeway.
fn date() -> impl Strategy<Value = Option<i64>> {
    prop::sample::select(vec![
        None,
        Some(-7200),
        Some(-80),
        Some(-40),
        Some(0),
        Some(40),
        Some(80),
        Some(7200),
    ])
}

/// Of `nbf` and `iat`: mostly past or absent.
fn late_date() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![3 => prop::sample::select(vec![None, Some(-7200), Some(-40), Some(0)]), 1 => date()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_claims_are_accepted_only_if_the_oracle_accepts_them(
        iss in one_of(vec![
            json!(support::ISSUER),
            json!(support::ISSUER),
            json!(support::ISSUER),
            json!(support::ISSUER),
            json!("https://as.example/"),
            json!([support::ISSUER]),
            json!(7),
            json!(null),
        ]),
        aud in one_of(vec![
            json!("orders"),
            json!(["orders"]),
            json!(["x", "orders"]),
            json!("x"),
            json!([]),
            json!(7),
            json!(null),
        ]),
        (exp, nbf, iat) in (date(), late_date(), late_date()),
        fraction in any::<bool>(),
        forged in prop::bool::weighted(0.1),
    ) {
        thread_local!(static FIXTURE: Fixture = Fixture::new());
        FIXTURE.with(|fixture| {
            // The oracle reads the system clock.
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs();
            fixture.clock.set(UnixTime::from_secs(now));
            let at = |offset: Option<i64>| match offset {
                None => Value::Null,
                Some(offset) if fraction => json!(now.saturating_add_signed(offset) as f64 + 0.5),
                Some(offset) => json!(now.saturating_add_signed(offset)),
            };
            let claims = support::claims_with(
                json!({ "iss": iss, "aud": aud, "exp": at(exp), "nbf": at(nbf), "iat": at(iat) }),
            );
            let signer = if forged { support::rsa(1) } else { fixture.rsa };
            let header = r#"{"alg":"RS256","kid":"rsa"}"#;
            let token = compact(signer, "RS256", header, claims.to_string().as_bytes());
            let ours = poll_once_or_panic(fixture.validate(&token)).is_ok();
            if ours {
                prop_assert!(oracle_validates(&token, fixture.rsa), "{claims}");
            }
            // Claims that are valid by a plain reading are accepted.
            let good = !forged
                && claims["iss"] == support::ISSUER
                && ["\"orders\"", "[\"orders\"]", "[\"x\",\"orders\"]"]
                    .contains(&claims["aud"].to_string().as_str())
                && exp.is_some_and(|offset| offset >= -40)
                && [nbf, iat].iter().flatten().all(|offset| *offset <= 40)
                && nbf <= exp;
            prop_assert_eq!(ours, good, "{}", claims);
            Ok(())
        })?;
    }
}
