//! The explanation of a token: its outcome is that of the validation, and each check has a token
//! that fails it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use metrics_exporter_prometheus::PrometheusBuilder;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower_oauth::key_set::KeySet;
use tower_oauth::resource_server::{
    Algorithm, CheckOutcome, Explanation, RejectionKind, TokenProfile,
};
use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};

use crate::support::issuer::{IssuerReply, ScriptedIssuer, builder_with, clock, set, with_claims};
use crate::support::{
    AUDIENCE, Fixture, ISSUER, NOW, claims, claims_with, compact, encode, log, poll_once_or_panic,
    rsa,
};

/// Explains a token, and compares the outcome with that of the validation: before the token is
/// cached and after.
#[track_caller]
fn explain(server: &ResourceServer, token: &str) -> Explanation {
    let explanation = server.explain(token);
    // The third one is a hit of the cache.
    for _ in 0..3 {
        let validated = poll_once_or_panic(server.validate(token));
        let kind = validated.err().map(|rejection| rejection.kind());
        assert_eq!(explanation.rejection(), kind, "{explanation}");
    }
    assert_eq!(server.explain(token).to_string(), explanation.to_string());
    assert_consistent(&explanation, token);
    explanation
}

/// The checks show the outcome, and nothing shows the token.
#[track_caller]
fn assert_consistent(explanation: &Explanation, token: &str) {
    let checks = explanation.checks();
    let mut failed = checks
        .iter()
        .filter_map(|check| check.rejection())
        .peekable();
    match explanation.rejection() {
        None => {
            assert_eq!(failed.peek(), None, "{explanation}");
            let passed = |check: &&_| outcome(check) == CheckOutcome::Passed;
            assert_eq!(checks.iter().filter(passed).count(), checks.len());
        }
        Some(kind) => assert!(failed.any(|one| one == kind), "{explanation}"),
    }
    assert!(explanation.check("other").is_none(), "{explanation}");
    let json = serde_json::to_string(explanation).unwrap();
    let texts = [explanation.to_string(), format!("{explanation:?}"), json];
    for text in texts {
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        let parts = token.split('.').filter(|part| part.is_ascii());
        for part in parts.filter_map(|part| part.get(..40)) {
            assert!(!text.contains(part), "{text}");
        }
    }
}

fn outcome(check: &tower_oauth::resource_server::Check) -> CheckOutcome {
    check.outcome()
}

/// An issuer with every rule that there is.
fn strict(issuer: TrustedIssuer) -> TrustedIssuer {
    issuer
        .algorithms([Algorithm::Rs256])
        .profile(TokenProfile::Rfc9068)
        .max_lifetime(Duration::from_secs(3600))
        .require_claim("env", ["staging", "production"])
        .client_id_from(|token| token.client_id().map(str::to_owned))
        .allowed_clients(["shop"])
        .require(|token| !token.has_role("guest"))
        .require_scopes(["orders.read"])
}

/// The claims of a token that a strict issuer's tokens have.
fn strict_claims(changes: &Value) -> Value {
    let mut claims = claims_with(json!({ "client_id": "shop", "jti": "1", "env": "staging" }));
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

const STRICT_HEADER: &str = r#"{"alg":"RS256","typ":"at+jwt","kid":"rsa"}"#;

fn signed(header: &str, claims: &Value) -> String {
    compact(rsa(0), "RS256", header, claims.to_string().as_bytes())
}

#[test]
fn a_wrong_audience_is_explained_with_both_values_and_the_cure() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims_with(json!({ "aud": ["account"] })));
    let explanation = explain(&fixture.server, &token);
    assert_eq!(
        explanation.rejection(),
        Some(RejectionKind::InvalidAudience)
    );
    let text = explanation.to_string();
    let line =
        r#"failed   aud is ["account"], trusted: ["orders"]. Keycloak: add an audience mapper"#;
    assert!(text.contains(line), "{text}");
    assert!(
        text.starts_with("rejected: invalid_audience (401)\n"),
        "{text}"
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["accepted"], false);
    assert_eq!(json["rejection"], "invalid_audience");
    assert_eq!(json["key_set"]["state"], "healthy");
    let checks = json["checks"].as_array().unwrap();
    let aud = checks.iter().find(|check| check["name"] == "aud").unwrap();
    assert_eq!(aud["outcome"], "failed");
    assert_eq!(
        (&aud["found"], &aud["expected"]),
        (&json!(r#"["account"]"#), &json!(r#"["orders"]"#))
    );
}

#[test]
fn a_good_token_passes_every_check() {
    let fixture = Fixture::new();
    let explanation = explain(&fixture.server, &fixture.token(&claims()));
    assert!(explanation.is_accepted());
    let text = explanation.to_string();
    assert!(text.starts_with("accepted\npassed   length"), "{text}");
    for line in [
        r#"alg is "RS256", expected: one of ES256"#,
        r#"iss is "https://as.example", trusted: ["https://as.example"]"#,
        "key_set: healthy with 5 usable keys, of https://as.example",
        r#"key: kid "rsa" for RS256, expected: one of "ed" (EdDSA), "p256" (ES256)"#,
        "exp: expires in 1 h; leeway 60 s (2023-11-14T23:13:20Z)",
        r#"scope: ["orders.read"], expected: any"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let fixture = Fixture::with(strict);
    let token = signed(STRICT_HEADER, &strict_claims(&json!({})));
    let explanation = explain(&fixture.server, &token);
    assert!(explanation.is_accepted(), "{explanation}");
    assert_eq!(explanation.checks().len(), 25);
}

/// Name of the check, token, and a part of its line.
fn failures() -> Vec<(&'static str, String, &'static str)> {
    let good = signed(STRICT_HEADER, &strict_claims(&json!({})));
    let header = |header: &str| signed(header, &strict_claims(&json!({})));
    let with = |changes: Value| signed(STRICT_HEADER, &strict_claims(&changes));
    let without = |name: &str| {
        let mut claims = strict_claims(&json!({}));
        claims.as_object_mut().unwrap().remove(name);
        signed(STRICT_HEADER, &claims)
    };
    let raw = |payload: &str| compact(rsa(0), "RS256", STRICT_HEADER, payload.as_bytes());
    let forged = strict_claims(&json!({})).to_string();
    let forged = compact(rsa(1), "RS256", STRICT_HEADER, forged.as_bytes());
    let altered = good.replacen("eyJ", "eyK", 1);
    vec![
        ("length", String::new(), "length: 0 bytes"),
        (
            "length",
            "a".repeat(17_000),
            "length: 17000 bytes, expected: 1 to 16384 bytes",
        ),
        (
            "characters",
            format!("Bearer {good}"),
            "Pass the token without `Bearer`",
        ),
        ("characters", format!("{good}\n"), r"'\n' at byte "),
        ("segments", "d2hhdA".into(), "1 part, an opaque token"),
        (
            "segments",
            "a.b.c.d.e".into(),
            "5 parts, an encrypted token (JWE)",
        ),
        ("segments", "a.b".into(), "2 parts"),
        ("segments", "a.b.".into(), "an empty part"),
        (
            "segments",
            format!("{}.b.c", "a".repeat(9000)),
            "a header of more than 8 KiB",
        ),
        ("segments", format!("{good}="), "Remove the padding"),
        ("segments", format!("\"{good}\""), "Remove the quotes"),
        ("header", altered, "no JSON object"),
        (
            "header",
            header(r#"{"alg":"RS256","x":1,"x":2}"#),
            "one of them twice",
        ),
        ("header", header("[]"), "no JSON object"),
        (
            "alg",
            header(r#"{"alg":"HS256","typ":"JWT"}"#),
            "have the issuer sign with RS256",
        ),
        (
            "alg",
            header(r#"{"alg":"none"}"#),
            "An unsigned token is never accepted",
        ),
        ("alg", header(r#"{"typ":"JWT"}"#), "alg is absent"),
        (
            "alg",
            header(r#"{"alg":"ES256","kid":"p256"}"#),
            "expected: one of RS256. Allow it",
        ),
        (
            "crit",
            header(r#"{"alg":"RS256","crit":["b64"],"b64":false}"#),
            r#"b64 false, crit ["b64"]"#,
        ),
        ("kid", header(r#"{"alg":"RS256","kid":7}"#), "kid is 7"),
        (
            "typ",
            header(r#"{"alg":"RS256","typ":"JWT","kid":"rsa"}"#),
            r#"typ is "JWT", expected: "at+jwt""#,
        ),
        (
            "typ",
            header(r#"{"alg":"RS256","typ":7,"kid":"rsa"}"#),
            "typ is 7",
        ),
        ("claims", raw("[]"), "no JSON object"),
        ("claims", raw("{"), "not valid JSON"),
        (
            "claims",
            raw(&format!(r#"{{"iss":"{ISSUER}","sub":"a","sub":"b"}}"#)),
            "one of them twice",
        ),
        (
            "claims",
            with(json!({ "sub": 42 })),
            "sub 42, which must be a string",
        ),
        (
            "claims",
            with(json!({ "aud": [7] })),
            "aud [7], which must be a string or an array",
        ),
        (
            "claims",
            with(json!({ "exp": "soon" })),
            r#"exp "soon", which must be a number"#,
        ),
        (
            "claims",
            with(json!({ "x": vec![0; 3000] })),
            "more members",
        ),
        (
            "claims",
            compact(rsa(0), "RS256", STRICT_HEADER, b"\xff"),
            "UTF-8",
        ),
        (
            "iss",
            with(json!({ "iss": "https://as.example/" })),
            "Only the slash at the end differs",
        ),
        ("iss", without("iss"), "iss is absent"),
        (
            "key",
            header(r#"{"alg":"RS256","typ":"at+jwt","kid":"new"}"#),
            r#"kid "new" for RS256"#,
        ),
        (
            "key",
            header(r#"{"alg":"RS256","typ":"at+jwt","kid":"p256"}"#),
            "is not that of the key",
        ),
        ("signature", forged, "not that of 1 key of the issuer"),
        (
            "token_use",
            with(json!({ "at_hash": "x" })),
            r#"at_hash "x""#,
        ),
        (
            "token_use",
            with(json!({ "events": {} })),
            "send the access token",
        ),
        (
            "aud",
            with(json!({ "aud": "x" })),
            r#"aud is ["x"], trusted: ["orders"]"#,
        ),
        ("aud", without("aud"), "lightweight"),
        (
            "exp",
            with(json!({ "exp": NOW - 300 })),
            "expired 5 min ago; leeway 60 s (2023-11-14T22:08:20Z)",
        ),
        ("exp", without("exp"), "exp: absent"),
        (
            "iat",
            with(json!({ "iat": NOW + 300 })),
            "iat: in 5 min; leeway 60 s",
        ),
        (
            "nbf",
            with(json!({ "nbf": NOW + 300 })),
            "Compare the clocks",
        ),
        (
            "nbf",
            with(json!({ "nbf": NOW + 20, "exp": NOW + 10 })),
            "`nbf` is after `exp`",
        ),
        (
            "lifetime",
            with(json!({ "exp": NOW + 7200 })),
            "lifetime: 2 h, expected: at most 1 h",
        ),
        ("profile", without("jti"), "no jti"),
        (
            "required_claims",
            with(json!({ "env": "test" })),
            r#"env "test", expected: env one of ["staging", "production"]"#,
        ),
        (
            "client",
            with(json!({ "client_id": "other" })),
            r#"client: "other", expected: one of ["shop"]"#,
        ),
        (
            "require",
            with(json!({ "roles": ["guest"] })),
            "require: `false`",
        ),
        (
            "scope",
            with(json!({ "scope": "x" })),
            r#"scope: ["x"], expected: all of ["orders.read"]"#,
        ),
        (
            "cnf",
            with(json!({ "cnf": { "jkt": "x" } })),
            r#"cnf: {"jkt":"x"}"#,
        ),
    ]
}

#[test]
fn each_check_has_a_token_that_fails_it() {
    let fixture = Fixture::with(strict);
    let mut failed = Vec::new();
    for (name, token, line) in failures() {
        let explanation = explain(&fixture.server, &token);
        let check = explanation.check(name).unwrap();
        assert_eq!(
            check.outcome(),
            CheckOutcome::Failed,
            "{name}: {explanation}"
        );
        assert!(check.to_string().contains(line), "{line}: {check}");
        assert!(check.cure().is_some() || name == "typ", "{check}");
        assert!(
            explanation
                .to_string()
                .contains(&format!("\nfailed   {check}"))
        );
        failed.push(name);
    }
    // The key set of this server is fixed: see the next test.
    failed.push("key_set");
    let token = fixture.token(&claims());
    for check in fixture.server.explain(&token).checks() {
        assert!(failed.contains(&check.name()), "{check}");
    }
}

#[test]
fn a_null_claim_of_the_profile_is_missing() {
    let fixture = Fixture::with(strict);
    for (name, check, found) in [
        ("sub", "profile", "no sub"),
        ("client_id", "profile", "no client_id"),
        ("jti", "profile", "no jti"),
        ("iat", "claims", "iat null, which must be a number"),
    ] {
        let token = signed(STRICT_HEADER, &strict_claims(&json!({ name: null })));
        let explanation = explain(&fixture.server, &token);
        let check = explanation.check(check).unwrap();
        assert_eq!(
            (check.outcome(), check.found()),
            (CheckOutcome::Failed, Some(found)),
            "{explanation}"
        );
    }
    let token = signed(
        STRICT_HEADER,
        &strict_claims(&json!({ "sub": null, "jti": null })),
    );
    let explanation = explain(&fixture.server, &token);
    let check = explanation.check("profile").unwrap();
    assert_eq!(check.found(), Some("no sub, no jti"));
}

#[test]
fn only_the_time_that_the_validation_rejects_is_named() {
    let fixture = Fixture::new();
    for (time, problem) in [
        ("1700000000.5", None),
        ("1.7e9", None),
        ("9007199254740991", None),
        ("9007199254740992", Some("seconds since 1970")),
        ("1e300", Some("seconds since 1970")),
        ("-1", Some("seconds since 1970")),
        ("\"1\"", Some("a number")),
        ("null", Some("a number")),
    ] {
        for name in ["exp", "iat", "nbf"] {
            // `sub` fails the check in any case.
            let payload = format!(r#"{{"{name}":{time},"iss":"{ISSUER}","sub":7}}"#);
            let token = compact(rsa(0), "RS256", r#"{"alg":"RS256"}"#, payload.as_bytes());
            let explanation = fixture.server.explain(&token);
            let found = explanation.check("claims").unwrap().found().unwrap();
            let named = problem.map(|what| format!("which must be {what}, sub 7"));
            match named {
                Some(named) => {
                    assert!(found.starts_with(name) && found.contains(&named), "{found}")
                }
                None => assert_eq!(found, "sub 7, which must be a string", "{name} {time}"),
            }
        }
    }
}

#[test]
fn one_failed_check_leaves_the_others_as_they_are() {
    let fixture = Fixture::with(strict);
    for (name, token, _) in failures() {
        let explanation = explain(&fixture.server, &token);
        let is_claim = [
            "aud",
            "exp",
            "iat",
            "lifetime",
            "profile",
            "token_use",
            "client",
            "scope",
            "cnf",
        ];
        if is_claim.contains(&name) && name != "exp" {
            let failed = explanation
                .checks()
                .iter()
                .filter(|check| check.rejection().is_some());
            let failed: Vec<&str> = failed.map(|check| check.name()).collect();
            assert_eq!(failed, [name], "{explanation}");
        }
    }
}

#[test]
fn checks_go_on_after_the_first_failure() {
    let fixture = Fixture::with(strict);
    let wrong = strict_claims(&json!({
        "iss": "https://other.example", "aud": "x", "exp": NOW - 300, "nbf": NOW - 600,
    }));
    let explanation = explain(&fixture.server, &signed(STRICT_HEADER, &wrong));
    assert_eq!(
        explanation.rejection(),
        Some(RejectionKind::UntrustedIssuer)
    );
    let outcome = |name: &str| explanation.check(name).unwrap().outcome();
    for name in ["iss", "aud", "exp"] {
        assert_eq!(outcome(name), CheckOutcome::Failed, "{name}");
    }
    // Never with the keys of another issuer.
    for name in ["key_set", "key", "signature"] {
        assert_eq!(outcome(name), CheckOutcome::Skipped, "{name}");
    }
    assert!(explanation.key_set().is_none());
    let text = explanation.to_string();
    assert!(text.contains("The signature is not verified"), "{text}");
    assert!(
        text.ends_with("skipped  key_set, key, signature, required_claims, client, require, scope"),
        "{text}"
    );
}

#[test]
fn the_rules_of_an_expired_token_are_looked_at_and_closures_are_not_called() {
    let fixture = Fixture::with(|issuer| {
        issuer
            .require_scopes(["orders.read"])
            .require(|token| token.expires_at().as_secs() > NOW || panic!("an expired token"))
    });
    let old = claims_with(json!({ "exp": NOW - 300, "scope": "x" }));
    let explanation = explain(&fixture.server, &fixture.token(&old));
    assert_eq!(explanation.rejection(), Some(RejectionKind::Expired));
    let outcome = |name: &str| explanation.check(name).unwrap().outcome();
    assert_eq!(outcome("scope"), CheckOutcome::Failed);
    assert_eq!(outcome("require"), CheckOutcome::Skipped);
}

/// Each token, the outcome of the validation, and how often it calls each closure.
#[test]
fn closures_get_only_the_tokens_that_the_validation_gives_to_them() {
    let header = |header: &str| signed(header, &strict_claims(&json!({})));
    let with = |changes: Value| signed(STRICT_HEADER, &strict_claims(&changes));
    let long = "x".repeat(2000);
    for (token, rejection, calls) in [
        (
            compact(
                rsa(0),
                "RS384",
                r#"{"alg":"RS384","typ":"at+jwt","kid":"rsa"}"#,
                strict_claims(&json!({})).to_string().as_bytes(),
            ),
            Some(RejectionKind::UnsupportedAlgorithm),
            [0, 0],
        ),
        (
            header(r#"{"alg":"RS256","typ":"JWT","kid":"rsa"}"#),
            Some(RejectionKind::UnexpectedTokenType),
            [0, 0],
        ),
        (
            with(json!({ "x": long })),
            Some(RejectionKind::TokenTooLong),
            [0, 0],
        ),
        (
            with(json!({ "exp": NOW - 300 })),
            Some(RejectionKind::Expired),
            [0, 0],
        ),
        (
            with(json!({ "aud": "x" })),
            Some(RejectionKind::InvalidAudience),
            [0, 0],
        ),
        (
            with(json!({ "env": "test" })),
            Some(RejectionKind::InvalidClaims),
            [1, 0],
        ),
        (
            with(json!({ "client_id": "other" })),
            Some(RejectionKind::UntrustedClient),
            [1, 0],
        ),
        (
            with(json!({ "roles": ["visitor"] })),
            Some(RejectionKind::InvalidClaims),
            [1, 1],
        ),
        (
            with(json!({ "scope": "x" })),
            Some(RejectionKind::InsufficientScope),
            [1, 1],
        ),
        (
            with(json!({ "cnf": { "jkt": "x" } })),
            Some(RejectionKind::MissingProofOfPossession),
            [1, 1],
        ),
        (with(json!({})), None, [1, 1]),
    ] {
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let [names, rules] = counts.clone();
        let fixture = Fixture::with_server(move |keys| {
            let issuer = |name: &str| {
                let audience = Audience::new(AUDIENCE).unwrap();
                TrustedIssuer::new(Issuer::new(name).unwrap(), audience).keys(keys.clone())
            };
            let (names, rules) = (Arc::clone(&names), Arc::clone(&rules));
            let strict = strict(issuer(ISSUER))
                .max_token_len(1500)
                .client_id_from(move |token| {
                    names.fetch_add(1, Ordering::Relaxed);
                    token.client_id().map(str::to_owned)
                })
                .require(move |token| {
                    rules.fetch_add(1, Ordering::Relaxed);
                    !token.has_role("visitor")
                });
            // The limit of the server is that of the other issuer.
            ResourceServer::from_issuer(strict).add_issuer(issuer("https://other.example"))
        });
        let called = || {
            counts
                .each_ref()
                .map(|count| count.swap(0, Ordering::Relaxed))
        };
        let explanation = fixture.server.explain(&token);
        assert_eq!(explanation.rejection(), rejection, "{explanation}");
        let [names, rules] = calls;
        assert_eq!(called(), [2 * names, rules], "{explanation}");
        let validated = poll_once_or_panic(fixture.server.validate(&token));
        assert_eq!(validated.err().map(|one| one.kind()), rejection);
        assert_eq!(called(), calls, "{explanation}");
        let require = explanation.check("require").unwrap().outcome();
        assert_eq!(
            require == CheckOutcome::Skipped,
            rules == 0,
            "{explanation}"
        );
    }
}

#[test]
fn the_rules_never_see_a_forged_token() {
    let fixture = Fixture::with(|issuer| {
        issuer
            .client_id_from(|_| panic!("a forged token"))
            .require(|_| panic!("a forged token"))
            .require_scopes(["orders.read"])
    });
    let payload = claims().to_string();
    let forged = compact(
        rsa(1),
        "RS256",
        r#"{"alg":"RS256","kid":"rsa"}"#,
        payload.as_bytes(),
    );
    let explanation = explain(&fixture.server, &forged);
    assert_eq!(
        explanation.rejection(),
        Some(RejectionKind::InvalidSignature)
    );
    for name in ["client", "require", "scope"] {
        let check = explanation.check(name).unwrap();
        assert_eq!(check.outcome(), CheckOutcome::Skipped, "{check}");
    }
    // The claims are shown.
    let aud = explanation.check("aud").unwrap();
    assert_eq!(
        (aud.outcome(), aud.found()),
        (CheckOutcome::Passed, Some(r#"["orders"]"#))
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_cached_counted_or_logged() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder_with(&issuer, &clock, |issuer| issuer)
        .start()
        .await
        .unwrap();
    let tokens = [
        with_claims("a", rsa(0), &claims()),
        with_claims("new", rsa(0), &claims()),
        with_claims("a", rsa(1), &claims()),
        "x".into(),
    ];
    let state = || {
        let statuses = serde_json::to_value(server.key_sets()).unwrap();
        let rendered = recorded.render();
        let mut series: Vec<String> = rendered.lines().map(str::to_owned).collect();
        series.sort_unstable();
        (
            statuses,
            server.cached_token_count(),
            issuer.requests().len(),
            series,
        )
    };
    let before = state();
    log::clear_log();
    let kinds: Vec<_> = tokens
        .iter()
        .map(|token| {
            assert_eq!(
                server.explain(token).rejection(),
                server.explain(token).rejection()
            );
            let explanation = server.explain(token);
            assert_consistent(&explanation, token);
            explanation.rejection()
        })
        .collect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(state(), before);
    assert!(!log::logged("tower_oauth"));
    assert!(recorded.render().contains("tower_oauth_requests_total"));
    use RejectionKind::{InvalidSignature, Malformed, UnknownKey};
    assert_eq!(
        kinds,
        [
            None,
            Some(UnknownKey),
            Some(InvalidSignature),
            Some(Malformed)
        ]
    );
    // Where the validation waits for newer keys, only it fetches.
    issuer.publish(set(&[("new", rsa(0))]));
    assert!(server.validate(&tokens[1]).await.is_ok());
    assert!(server.explain(&tokens[1]).is_accepted());
}

#[tokio::test(start_paused = true)]
async fn missing_keys_are_explained_with_the_error_and_the_skipped_keys() {
    let mut keys = set(&[("a", rsa(0))]);
    keys["keys"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "kty": "oct", "kid": "shared", "k": "AA" }));
    let issuer = ScriptedIssuer::new(keys);
    issuer.set_reply(IssuerReply::Status(StatusCode::BAD_GATEWAY, None));
    let server = builder_with(&issuer, &clock(), |issuer| issuer)
        .start()
        .await
        .unwrap();
    let token = with_claims("a", rsa(0), &claims());
    let explanation = explain(&server, &token);
    assert_eq!(
        explanation.rejection(),
        Some(RejectionKind::KeysUnavailable)
    );
    let check = explanation.check("key_set").unwrap().to_string();
    assert!(
        check.starts_with(
            "key_set: starting with 0 usable keys, of https://as.example; last error: "
        ),
        "{check}"
    );
    assert!(check.contains("502 Bad Gateway"), "{check}");
    assert_eq!(
        explanation.check("key").unwrap().outcome(),
        CheckOutcome::Skipped
    );
    // The claims are looked at without the keys.
    assert_eq!(
        explanation.check("exp").unwrap().outcome(),
        CheckOutcome::Passed
    );
}

#[test]
fn skipped_keys_are_named_with_their_reasons() {
    let keys =
        |keys: Value| KeySet::from_json(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
    let keys = keys(json!([rsa(0).jwk("rsa"), { "kty": "OKP", "crv": "Ed448", "kid": "ed448" }]));
    let fixture = Fixture::with(move |issuer| issuer.keys(keys.clone()));
    let token = fixture.with_header(r#"{"alg":"RS256","kid":"ed448"}"#);
    let explanation = explain(&fixture.server, &token);
    let line = |name: &str| explanation.check(name).unwrap().to_string();
    assert!(
        line("key_set").ends_with(
            r#"; skipped: "ed448" (unsupported_type: crv Ed448 is not supported, expected Ed25519), expected: a usable key set"#
        ),
        "{explanation}"
    );
    assert!(
        line("key").ends_with(
            "The key set has this key, but it is not used: unsupported_type: crv Ed448 is not supported, expected Ed25519"
        ),
        "{explanation}"
    );
}

#[test]
fn keys_that_are_revoked_or_several_are_explained() {
    let fixture = Fixture::new();
    let token = fixture.with_header(r#"{"alg":"RS256","kid":"rsa"}"#);
    assert!(
        fixture
            .server
            .revoke_key(&Issuer::new(ISSUER).unwrap(), "rsa")
    );
    let explanation = explain(&fixture.server, &token);
    assert_eq!(explanation.rejection(), Some(RejectionKind::RevokedKey));
    let keys = json!({ "keys": [rsa(0).jwk("a"), rsa(1).jwk("b")] }).to_string();
    let keys = KeySet::from_json(keys.as_bytes()).unwrap();
    let fixture = Fixture::with(move |issuer| issuer.keys(keys.clone()));
    let explanation = explain(&fixture.server, &fixture.with_header(r#"{"alg":"RS256"}"#));
    assert_eq!(explanation.rejection(), Some(RejectionKind::AmbiguousKey));
    let check = explanation.check("key").unwrap().to_string();
    assert!(
        check.contains("no kid for RS256") && check.contains("max_candidate_keys"),
        "{check}"
    );
}

#[test]
fn a_verification_limit_is_no_limit_for_explanations() {
    let fixture = Fixture::with_server(|keys| {
        let issuer = Issuer::new(ISSUER).unwrap();
        let issuer = TrustedIssuer::new(issuer, Audience::new(AUDIENCE).unwrap()).keys(keys);
        ResourceServer::from_issuer(issuer).max_concurrent_verifications(1)
    });
    for _ in 0..3 {
        assert!(explain(&fixture.server, &fixture.token(&claims())).is_accepted());
    }
}

#[test]
fn claims_are_escaped_and_cut() {
    let fixture = Fixture::new();
    let long = "x".repeat(5000);
    let changes = json!({ "aud": [long, "\u{1b}[2J\u{202e}"], "iss": ISSUER });
    let explanation = explain(&fixture.server, &fixture.token(&claims_with(changes)));
    let found = explanation.check("aud").unwrap().found().unwrap();
    assert!(found.contains(r"\u001b[2J\u{202e}"), "{found}");
    assert!(found.chars().count() < 300, "{found}");
}

/// `eyJ` is the start of a compact JWS, and occurs in words.
#[test]
fn only_a_token_within_a_claim_is_not_shown() {
    let role = "surveyJobs.of.the.whole.company";
    let fixture = Fixture::with(|issuer| issuer.require_claim("role", [role]));
    let nested = fixture.token(&claims());
    let token = |aud: &str| {
        let changes = json!({ "aud": ["surveyJobs", aud], "role": "surveyJobs" });
        fixture.token(&claims_with(changes))
    };
    let explanation = explain(&fixture.server, &token("x"));
    let line = |name: &str| explanation.check(name).unwrap().to_string();
    assert!(line("aud").starts_with(r#"aud is ["surveyJobs", "x"], "#));
    let rule = format!(r#"role "surveyJobs", expected: role one of ["{role}"]"#);
    assert!(line("required_claims").contains(&rule), "{explanation}");
    let explanation = explain(&fixture.server, &token(&nested));
    let found = explanation.check("aud").unwrap().found();
    assert_eq!(found, Some(r#"["surveyJobs", "[redacted]"]"#));
}

#[test]
fn each_issuer_has_its_own_limit_audience_and_rules() {
    let fixture = Fixture::with_server(|keys| {
        let issuer = |name: &str, audience: &str| {
            let (name, audience) = (Issuer::new(name), Audience::new(audience));
            TrustedIssuer::new(name.unwrap(), audience.unwrap()).keys(keys.clone())
        };
        let small = issuer("https://small.example", "small").max_token_len(600);
        ResourceServer::from_issuer(issuer(ISSUER, AUDIENCE)).add_issuer(small)
    });
    let pad = "x".repeat(600);
    let small = claims_with(json!({ "iss": "https://small.example", "aud": "small", "pad": pad }));
    let explanation = explain(&fixture.server, &fixture.token(&small));
    assert_eq!(explanation.rejection(), Some(RejectionKind::TokenTooLong));
    let check = explanation.check("length").unwrap();
    assert_eq!(check.expected(), Some("1 to 600 bytes"));
    // Of two issuers, neither's policy is that of a third one.
    let third = claims_with(json!({ "iss": "https://third.example" }));
    let explanation = explain(&fixture.server, &fixture.token(&third));
    assert_eq!(
        explanation.check("aud").unwrap().outcome(),
        CheckOutcome::Skipped
    );
}

/// Resource servers with different policies, and the same keys.
fn servers() -> &'static [Fixture] {
    thread_local!(static SERVERS: &'static [Fixture] = Box::leak(Box::new([
        Fixture::new(),
        Fixture::with(strict),
        Fixture::with(|issuer| issuer.allowed_clients(["app"]).audience_optional().client_id_from(
            |token| token.subject().map(str::to_owned)
        )),
        Fixture::with(|issuer| issuer.max_candidate_keys(4).max_token_len(900)),
        Fixture::with_server(|keys| {
            let issuer = |name: &str| {
                let audience = Audience::new(AUDIENCE).unwrap();
                TrustedIssuer::new(Issuer::new(name).unwrap(), audience).keys(keys.clone())
            };
            ResourceServer::from_issuer(issuer(ISSUER))
                .add_issuer(issuer("https://as.example/").max_token_len(500))
        }),
    ])));
    SERVERS.with(|servers| *servers)
}

/// One of these JSON texts, or none.
fn text(texts: &'static [&'static str]) -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![3 => Just(texts.first().copied()), 2 => prop::sample::select(texts).prop_map(Some), 1 => Just(None)]
}

/// A payload whose members may be repeated, in any order.
fn payload() -> impl Strategy<Value = String> {
    const TIMES: &[&str] = &[
        "1700003600",
        "1700000000",
        "1699999950",
        "1699990000",
        "1700000050",
        "1.7e9",
        "-1",
        "1e400",
        "\"1700003600\"",
        "null",
        "9007199254740992",
    ];
    const STRINGS: &[&str] = &[
        "\"app\"", "\"shop\"", "\"\"", "null", "7", "[]", "{}", "true",
    ];
    let issuer = text(&[
        "\"https://as.example\"",
        "\"https://as.example/\"",
        "\"https://x\"",
        "7",
        "null",
    ]);
    let audience = text(&[
        "\"orders\"",
        "[\"orders\",\"x\"]",
        "\"x\"",
        "[]",
        "[7]",
        "null",
        "{}",
    ]);
    let start = || prop_oneof![2 => Just(Some("1700000000")), 1 => text(TIMES)];
    let scope = text(&[
        "\"orders.read x\"",
        "\"x\"",
        "[\"orders.read\"]",
        "[[]]",
        "null",
        "7",
    ]);
    let other = text(&[
        "0",
        "{\"jkt\":\"x\"}",
        "null",
        "\"ID\"",
        "\"id\"",
        "[\"guest\"]",
        "\"staging\"",
    ]);
    let other_name = prop::sample::select(vec![
        "x",
        "cnf",
        "typ",
        "token_use",
        "events",
        "at_hash",
        "roles",
        "env",
        "appid",
        "cid",
        "azp",
        "aud",
        "iss",
        "exp",
    ]);
    let is_other = prop::bool::weighted(0.3);
    let strings = (text(STRINGS), text(STRINGS), text(STRINGS));
    let times = (text(TIMES), start(), start());
    let order = Just((0..11).collect::<Vec<usize>>()).prop_shuffle();
    let parts = (
        issuer,
        audience,
        times,
        strings,
        scope,
        (other_name, other, is_other),
        order,
    );
    parts.prop_map(
        |(iss, aud, (exp, iat, nbf), (sub, client, jti), scope, other, order)| {
            let (other_name, other, is_other) = other;
            let members = [
                ("iss", iss),
                ("aud", aud),
                ("exp", exp),
                ("iat", iat),
                ("nbf", nbf),
                ("sub", sub),
                ("client_id", client),
                ("jti", jti),
                ("scope", scope),
                ("env", Some("\"staging\"")),
                (other_name, other.filter(|_| is_other)),
            ];
            let members = order.iter().filter_map(|at| members.get(*at));
            let members =
                members.filter_map(|(name, value)| Some(format!("\"{name}\":{}", (*value)?)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        },
    )
}

fn header() -> impl Strategy<Value = String> {
    let alg = text(&[
        "\"RS256\"",
        "\"ES256\"",
        "\"HS256\"",
        "\"none\"",
        "7",
        "null",
        "\"PS256\"",
    ]);
    let typ = text(&[
        "\"at+jwt\"",
        "\"JWT\"",
        "\"application/at+jwt\"",
        "\"logout+jwt\"",
        "7",
        "null",
    ]);
    let kid = text(&[
        "\"rsa\"",
        "\"p256\"",
        "\"new\"",
        "\"\"",
        "7",
        "null",
        "\"a\\u0000\"",
    ]);
    let other = prop::sample::select(vec![
        "",
        "",
        "",
        "",
        ",\"crit\":[]",
        ",\"zip\":\"DEF\"",
        ",\"x\":1,\"x\":1",
        ",\"alg\":\"RS256\"",
    ]);
    (alg, typ, kid, other).prop_map(|(alg, typ, kid, other)| {
        let members = [("alg", alg), ("typ", typ), ("kid", kid)];
        let members = members
            .iter()
            .filter_map(|(name, value)| Some(format!("\"{name}\":{}", (*value)?)));
        let members = members.collect::<Vec<_>>().join(",");
        format!(
            "{{{}}}",
            format!("{members}{other}").trim_start_matches(',')
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_claims_and_headers_have_the_outcome_of_the_validation(
        payload in payload(),
        header in prop_oneof![2 => Just(STRICT_HEADER.to_owned()), 1 => header()],
        signer in prop::bool::weighted(0.15).prop_map(usize::from),
    ) {
        let token = compact(rsa(signer), "RS256", &header, payload.as_bytes());
        for fixture in servers() {
            explain(&fixture.server, &token);
        }
    }

    #[test]
    fn mutated_tokens_have_the_outcome_of_the_validation(
        claims in prop::bool::ANY,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, "[A-Za-z0-9_.=+/ \"{}-]"), 1..4),
    ) {
        let claims = if claims { strict_claims(&json!({})) } else { support_claims() };
        let mut token = signed(STRICT_HEADER, &claims);
        for (at, edit, text) in edits {
            let at = at.index(token.len());
            match edit {
                0 => token.replace_range(at..=at, &text),
                1 => token.insert_str(at, &text),
                _ => drop(token.remove(at)),
            }
        }
        for fixture in servers() {
            explain(&fixture.server, &token);
        }
    }

    #[test]
    fn arbitrary_texts_have_the_outcome_of_the_validation(
        text in prop_oneof![
            ".{0,60}",
            "[A-Za-z0-9_-]{0,20}\\.[A-Za-z0-9_-]{0,20}\\.[A-Za-z0-9_-]{0,20}",
        ],
        header in ".{0,30}",
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let token = format!("{}.{}.AAAA", encode(&header), encode(&payload));
        for fixture in servers() {
            explain(&fixture.server, &text);
            explain(&fixture.server, &token);
        }
    }
}

fn support_claims() -> Value {
    claims_with(json!({ "client_id": "app" }))
}
