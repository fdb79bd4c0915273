//! Hostile and broken key sources.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_oauth::error::ErrorKind;
use tower_oauth::key_set::{KeySet, KeySetState, RefreshPolicy, SkipReason, SkippedKey};
use tower_oauth::resource_server::{RejectionKind, Startup};
use tower_oauth::{Audience, Endpoint, Issuer, ResourceServer, TrustedIssuer};

use crate::support::issuer::{
    IssuerReply, ScriptedIssuer, advance, builder, builder_with, clock, secs, send, set, token,
    with_claims,
};
use crate::support::{self, ISSUER, claims, claims_with, decoded, encode, log, p256, p384, rsa};

/// A token that outlives every set here.
fn long_lived_token(kid: &str, key: &support::PrivateKey) -> String {
    with_claims(
        kid,
        key,
        &claims_with(json!({ "exp": support::NOW + 10_000_000 })),
    )
}

/// Istio 2026 and earlier SSRF attacks: a URL from the metadata is fetched only if its host may
/// have keys.
#[tokio::test(start_paused = true)]
async fn a_forbidden_jwks_uri_is_not_fetched() {
    for url in [
        "http://as.example/keys",
        "http://127.0.0.1:9/keys",
        "file:///etc/passwd",
        "ftp://as.example/keys",
        "gopher://as.example:70/_",
        "https://user:password@as.example/keys",
        "https://169.254.169.254/keys",
        "https://[::ffff:169.254.169.254]/keys",
        "https://[fe80::1]/keys",
        "https://0.0.0.0/keys",
        "//as.example/keys",
        "/keys",
        "",
    ] {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        issuer.set_jwks_uri(url);
        let server = builder(&issuer, &clock())
            .startup(Startup::Background)
            .start()
            .await
            .unwrap();
        let error = server.refresh_keys().await.expect_err(url);
        assert!(!error.to_string().contains("password"), "{error}");
        log::assert_not_logged("");
        assert!(!server.keys_available(), "{url}");
        let requested = issuer.urls();
        assert!(
            requested
                .iter()
                .all(|url| url.starts_with("https://as.example/.well-known/")),
            "{url}: {requested:?}"
        );
    }
    // In the settings it is an error before any request.
    for url in [
        "https://user:password@as.example/keys",
        "https://169.254.169.254/keys",
        "file:///keys",
    ] {
        Endpoint::new(url).unwrap_err();
    }
    let plain = Endpoint::new("http://127.0.0.1:9/keys").unwrap();
    let issuer = TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new("orders").unwrap(),
    );
    let built = ResourceServer::from_issuer(issuer.jwks_uri(plain)).build();
    assert!(built.is_err(), "plain http requires opt-in");
}

#[tokio::test(start_paused = true)]
async fn redirects_are_failures_and_not_followed() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    for status in [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::TEMPORARY_REDIRECT,
    ] {
        issuer.set_reply(IssuerReply::Status(status, None));
        issuer.set_header("location", "https://evil.example/keys");
        let server = builder(&issuer, &clock())
            .startup(Startup::Background)
            .start()
            .await
            .unwrap();
        assert_eq!(
            server.refresh_keys().await.unwrap_err().kind(),
            ErrorKind::Status(status)
        );
    }
    assert!(issuer.urls().iter().all(|url| url.starts_with(ISSUER)));
}

/// RFC 8414 §3.3: the issuer is compared byte for byte.
#[tokio::test(start_paused = true)]
async fn metadata_of_another_issuer_or_type_is_a_failed_fetch() {
    for (document, kind) in [
        (
            r#"{"issuer":"https://as.example/","jwks_uri":"https://as.example/keys"}"#,
            ErrorKind::IssuerMismatch,
        ),
        (
            r#"{"issuer":"https://AS.example","jwks_uri":"https://as.example/keys"}"#,
            ErrorKind::IssuerMismatch,
        ),
        (
            r#"{"issuer":"https://evil.example","jwks_uri":"https://as.example/keys"}"#,
            ErrorKind::IssuerMismatch,
        ),
        (
            r#"{"jwks_uri":"https://as.example/keys"}"#,
            ErrorKind::Malformed,
        ),
        (r#"{"issuer":"https://as.example"}"#, ErrorKind::Malformed),
        (
            r#"{"issuer":"https://as.example","jwks_uri":7}"#,
            ErrorKind::Malformed,
        ),
        (r#"["https://as.example"]"#, ErrorKind::Malformed),
        (
            "<!doctype html><title>Sign in</title>",
            ErrorKind::Malformed,
        ),
        ("\u{feff}{}", ErrorKind::Malformed),
        ("", ErrorKind::Malformed),
    ] {
        let issuer = ScriptedIssuer::new(json!({}));
        issuer.set_reply(IssuerReply::Metadata(document));
        let server = builder(&issuer, &clock())
            .startup(Startup::Background)
            .start()
            .await
            .unwrap();
        assert_eq!(
            server.refresh_keys().await.expect_err(document).kind(),
            kind,
            "{document}"
        );
        let status = server.key_sets().remove(0);
        assert_eq!(
            (status.state(), status.last_error().unwrap().kind()),
            (KeySetState::Starting, kind)
        );
        assert_eq!(issuer.fetches(), 0, "{document}");
    }
}

/// RFC 8414 leaves it open, and issuers do keep their keys on another host: the metadata is
/// authoritative for the location.
#[tokio::test(start_paused = true)]
async fn a_jwks_uri_of_another_origin_is_accepted() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_jwks_uri("https://cdn.example/as/keys");
    let server = builder(&issuer, &clock()).start().await.unwrap();
    assert_eq!(issuer.urls().last().unwrap(), "https://cdn.example/as/keys");
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn document_limits_are_inclusive() {
    let ed25519 = support::ed25519();
    let outcome = async |document: Value| {
        let issuer = ScriptedIssuer::new(document);
        let server = builder(&issuer, &clock())
            .startup(Startup::Background)
            .start()
            .await
            .unwrap();
        let outcome = server.refresh_keys().await.map_err(|error| error.kind());
        outcome.map(|()| server.key_sets().remove(0).usable_key_count())
    };
    let distinct =
        |count: u32| -> Vec<Value> { (0..count).map(|n| ed25519.jwk(&n.to_string())).collect() };
    assert_eq!(outcome(json!({ "keys": distinct(100) })).await, Ok(100));
    assert_eq!(
        outcome(json!({ "keys": distinct(101) })).await,
        Err(ErrorKind::TooLarge)
    );

    // The set, its list and the member are three levels; this member has as many levels as remain.
    let deep = |levels: usize| {
        let inner = (0..levels).fold(json!(0), |inner, _| json!([inner]));
        json!({ "keys": [ed25519.jwk("a"), { "kty": "deep", "x": inner }] })
    };
    assert_eq!(outcome(deep(13)).await, Ok(1));
    assert_eq!(outcome(deep(14)).await, Err(ErrorKind::Malformed));

    let long = |bytes: usize| {
        let mut document = json!({ "keys": [ed25519.jwk("a")], "pad": "" });
        document["pad"] = "x".repeat(bytes - document.to_string().len()).into();
        assert_eq!(document.to_string().len(), bytes);
        document
    };
    assert_eq!(outcome(long(256 << 10)).await, Ok(1));
    assert_eq!(
        outcome(long((256 << 10) + 1)).await,
        Err(ErrorKind::TooLarge)
    );
}

/// An issuer may publish its private keys by mistake.
#[tokio::test(start_paused = true)]
async fn served_key_material_is_never_logged() {
    let secret = |name: &str| encode(format!("s3cr3t-{name}-0123456789"));
    let mut private = rsa(1).jwk("private");
    for name in ["d", "p", "q", "dp", "dq", "qi"] {
        private[name] = secret(name).into();
    }
    let document = json!({ "keys": [
        rsa(0).jwk("a"), private, p256().jwk("ec"), support::ed25519().jwk("okp"),
        { "kty": "oct", "kid": "symmetric", "k": secret("k") },
        { "kty": "EC", "crv": "P-256", "kid": "no point", "x": secret("x"), "y": secret("y") },
    ] });
    let issuer = ScriptedIssuer::new(document);
    let server = builder(&issuer, &clock()).start().await.unwrap();
    assert!(
        log::logged("publishes a private key"),
        "the log is captured"
    );
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    issuer.set_reply(IssuerReply::Text(
        r#"{"keys":[{"kty":"oct","k":"czNjcjN0LWFuZC1ub3RoaW5nLWVsc2U"}]}"#,
    ));
    server.refresh_keys().await.unwrap_err();
    assert!(log::logged("could not be refreshed"));
    log::assert_not_logged("");
}

#[tokio::test(start_paused = true)]
async fn names_in_a_token_are_never_logged_and_overlong_kids_are_rejected() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    let validate = async |kid: &str, iss: &str, kind| {
        [kid, iss]
            .into_iter()
            .filter(|name| name.contains("s3cr3t"))
            .for_each(log::register_secret_text);
        let token = with_claims(kid, rsa(0), &claims_with(json!({ "iss": iss })));
        assert_eq!(send(&server, &token).await, Err(kind));
    };
    for (kid, kind) in [
        ("s3cr3t-kid".to_owned(), RejectionKind::UnknownKey),
        ("s3cr3t-kid".repeat(100), RejectionKind::Malformed),
        (
            "s3cr3t-kid\u{1b}[31m\n".to_owned(),
            RejectionKind::Malformed,
        ),
    ] {
        validate(&kid, ISSUER, kind).await;
        validate(
            "a",
            &format!("https://s3cr3t.example/{kid}"),
            RejectionKind::UntrustedIssuer,
        )
        .await;
    }
    log::register_secret_text(&"k".repeat(255));
    validate(&"k".repeat(255), ISSUER, RejectionKind::UnknownKey).await;
    validate(&"k".repeat(256), ISSUER, RejectionKind::Malformed).await;
}

/// The start and the end of a self-signed certificate around another public key.
pub(crate) fn certificate_of(number: &[u8], exponent: &[u8]) -> String {
    use base64::Engine as _;
    let length = u8::try_from(exponent.len()).unwrap();
    let numbers = [number, &[0x02, length], exponent].concat();
    let der = [
        &[0x30, 0x82, 0x03, 0x00],
        &[0x01; 300][..],
        &numbers,
        &[0x05; 40],
    ]
    .concat();
    base64::engine::general_purpose::STANDARD.encode(der)
}

/// Java's `BigInteger` writes numbers with a sign byte and without leading zeros.
#[tokio::test]
async fn a_key_is_its_numbers_in_any_spelling() {
    let decoded = |text: &Value| decoded(text.as_str().unwrap());
    let signed = |text: &Value| encode([vec![0], decoded(text)].concat());
    // One point in 256 has an x that starts with a zero byte.
    let point = std::iter::repeat_with(p256)
        .find(|key| decoded(&key.jwk("ec")["x"])[0] == 0)
        .unwrap();
    let mut short = point.jwk("ec");
    short["x"] = json!(encode(&decoded(&short["x"])[1..]));
    short["y"] = json!(signed(&short["y"]));
    let mut rsa_key = rsa(1).jwk("rsa");
    rsa_key["n"] = json!(format!("{}==", signed(&rsa_key["n"])).replace('-', "+"));
    rsa_key["e"] = json!("AAEAAQ");
    let document = json!({ "keys": [short, rsa_key] }).to_string();
    let keys = KeySet::from_json(document.as_bytes()).unwrap();
    assert_eq!((keys.len(), keys.skipped().count()), (2, 0));
    let fixture = support::Fixture::with(|issuer| issuer.keys(keys.clone()));
    for (kid, alg, key) in [("ec", "ES256", &point), ("rsa", "RS256", rsa(1))] {
        let header = json!({ "alg": alg, "kid": kid }).to_string();
        let payload = claims().to_string();
        let token = support::compact(key, alg, &header, payload.as_bytes());
        fixture.validate(&token).await.unwrap();
    }
}

/// CVE-2022-23541 and similar: an unusable key does not affect the others, and is never used.
#[test]
fn unusable_keys_are_skipped_and_reported_with_a_reason() {
    let good = rsa(0).jwk("good");
    let with = |changes: Value| {
        let mut jwk = rsa(1).jwk("bad");
        for (name, value) in changes.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    };
    let without_use = |mut jwk: Value| {
        jwk.as_object_mut().unwrap().remove("use");
        jwk
    };
    let point = |key: &support::PrivateKey, changes: Value| {
        let mut jwk = key.jwk("bad");
        for (name, value) in changes.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    };
    let zeros = encode([0; 32]);
    for (what, jwk, reason) in [
        (
            "private exponent",
            with(json!({ "d": "AQAB" })),
            SkipReason::PrivateKey,
        ),
        (
            "private primes",
            with(json!({ "p": "AQAB", "q": "AQAB" })),
            SkipReason::PrivateKey,
        ),
        (
            "for encryption",
            with(json!({ "use": "enc" })),
            SkipReason::NotForSignatures,
        ),
        (
            "operations without verify",
            without_use(with(json!({ "key_ops": ["encrypt"] }))),
            SkipReason::NotForSignatures,
        ),
        (
            "use against operations",
            with(json!({ "key_ops": ["sign"] })),
            SkipReason::NotForSignatures,
        ),
        (
            "unknown type",
            json!({ "kty": "AKP", "kid": "bad", "pub": "AA" }),
            SkipReason::UnsupportedType,
        ),
        (
            "unknown curve",
            json!({ "kty": "OKP", "crv": "Ed448", "kid": "bad", "x": "AA" }),
            SkipReason::UnsupportedType,
        ),
        (
            "curve without an algorithm here",
            point(&p256(), json!({ "crv": "secp256k1" })),
            SkipReason::UnsupportedType,
        ),
        (
            "not on the curve",
            point(&p256(), json!({ "x": zeros, "y": zeros })),
            SkipReason::Invalid,
        ),
        (
            "x too short",
            point(&p256(), json!({ "x": "AAAA" })),
            SkipReason::Invalid,
        ),
        (
            "coordinates of the other curve",
            point(&p384(), json!({ "crv": "P-256" })),
            SkipReason::Invalid,
        ),
        (
            "symmetric",
            json!({ "kty": "oct", "kid": "bad", "k": "c2VjcmV0" }),
            SkipReason::Symmetric,
        ),
        (
            "HMAC with an RSA key",
            with(json!({ "alg": "HS256" })),
            SkipReason::Algorithm,
        ),
        (
            "algorithm of another type",
            with(json!({ "alg": "ES256" })),
            SkipReason::Algorithm,
        ),
        (
            "even exponent",
            with(json!({ "e": "AQAA" })),
            SkipReason::Weak,
        ),
        (
            "number that is no base64",
            with(json!({ "n": "AQ=A" })),
            SkipReason::Invalid,
        ),
        (
            "certificate of another key",
            with(json!({ "x5c": [certificate_of(&[7; 256], &[1, 0, 1])] })),
            SkipReason::Invalid,
        ),
        (
            "kid of the wrong type",
            with(json!({ "kid": ["bad"] })),
            SkipReason::Malformed,
        ),
    ] {
        let document = json!({ "keys": [good, jwk] }).to_string();
        let keys = KeySet::from_json(document.as_bytes()).unwrap();
        assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["good"], "{what}");
        assert_eq!(
            keys.skipped().map(SkippedKey::reason).collect::<Vec<_>>(),
            [reason],
            "{what}"
        );
    }
    // Two keys with one `kid`: the match is ambiguous.
    let duplicates = json!({ "keys": [good, rsa(1).jwk("bad"), rsa(2).jwk("bad")] }).to_string();
    let keys = KeySet::from_json(duplicates.as_bytes()).unwrap();
    assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["good"]);
    // A certificate of the same key, and an invalid certificate, do no harm.
    let n = decoded(good["n"].as_str().unwrap());
    let certified = |certificate: String| {
        let mut certified = good.clone();
        certified["x5c"] = json!([certificate]);
        KeySet::from_json(json!({ "keys": [certified] }).to_string().as_bytes())
    };
    for certificate in [
        certificate_of(&n, &[1, 0, 1]),
        "MIID".to_owned(),
        "?".to_owned(),
    ] {
        certified(certificate).unwrap();
    }
    // With another exponent it is another key.
    certified(certificate_of(&n, &[3])).unwrap_err();
}

/// Two parsers may read two keys from a member with a duplicate name (RFC 7517 §4).
#[test]
fn a_key_with_a_duplicate_member_is_skipped() {
    let good = rsa(0).jwk("good");
    let other = rsa(1).jwk("bad");
    for duplicate in [
        r#""kid":"good""#,
        r#""k\u0069d":"good""#,
        r#""n":"AQAB""#,
        r#""alg":"PS256","alg":"PS256""#,
    ] {
        let duplicate = other
            .to_string()
            .replacen('{', &format!("{{{duplicate},"), 1);
        let document = format!(r#"{{"keys":[{good},{duplicate}]}}"#);
        let keys = KeySet::from_json(document.as_bytes()).unwrap();
        assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["good"], "{document}");
        assert_eq!(
            keys.skipped().map(SkippedKey::reason).collect::<Vec<_>>(),
            [SkipReason::Malformed],
            "{document}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_or_empty_set_is_reported_and_keeps_the_last_good_one() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    for (answer, kind) in [
        (
            IssuerReply::Text("<html>502 Bad Gateway</html>"),
            ErrorKind::Malformed,
        ),
        (IssuerReply::Text(r#"{"keys":[]}"#), ErrorKind::NoUsableKey),
        (
            IssuerReply::Keys(json!({ "keys": [] })),
            ErrorKind::NoUsableKey,
        ),
        (
            IssuerReply::Keys(json!({ "keys": [{ "kty": "oct", "kid": "a", "k": "c2VjcmV0" }] })),
            ErrorKind::NoUsableKey,
        ),
        (
            IssuerReply::Keys(json!({ "keys": [null] })),
            ErrorKind::NoUsableKey,
        ),
        (
            IssuerReply::Keys(json!({ "error": "not now" })),
            ErrorKind::Malformed,
        ),
    ] {
        issuer.set_reply(answer);
        assert_eq!(server.refresh_keys().await.unwrap_err().kind(), kind);
        assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
        assert_eq!(server.key_sets().remove(0).state(), KeySetState::Degraded);
    }
    issuer.publish(set(&[("a", rsa(0))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(server.key_sets().remove(0).state(), KeySetState::Healthy);
}

/// Istio 2026 (a public fallback key): without a key set no token is accepted.
#[tokio::test(start_paused = true)]
async fn without_keys_requests_get_503() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_reply(IssuerReply::Unreachable);
    let clock = clock();
    let server = builder(&issuer, &clock)
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    for key in [rsa(0), rsa(1)] {
        assert_eq!(
            send(&server, &token("a", key)).await,
            Err(RejectionKind::KeysUnavailable)
        );
    }
    issuer.publish(set(&[("a", rsa(0))]));
    server.refresh_keys().await.unwrap();
    issuer.set_reply(IssuerReply::Unreachable);
    advance(&clock, secs(86_000)).await;
    assert_eq!(
        send(&server, &long_lived_token("a", rsa(1))).await,
        Err(RejectionKind::InvalidSignature)
    );
    advance(&clock, secs(500)).await;
    assert_eq!(
        send(&server, &long_lived_token("a", rsa(1))).await,
        Err(RejectionKind::KeysUnavailable)
    );
}

/// A new key could not make it valid: its caller has no reason to try again.
#[tokio::test(start_paused = true)]
async fn without_keys_a_token_that_no_key_could_make_valid_is_401() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let policy = RefreshPolicy::new().max_stale(secs(600));
    let builder = builder(&issuer, &clock).refresh(policy);
    let server = builder.start().await.unwrap();
    issuer.set_reply(IssuerReply::Unreachable);
    advance(&clock, secs(700)).await;
    assert!(!server.keys_available());
    let with = |changes: Value| with_claims("a", rsa(0), &claims_with(changes));
    let hmac = r#"{"alg":"HS256","kid":"a"}"#;
    let hmac = support::compact(rsa(0), "RS256", hmac, claims().to_string().as_bytes());
    for (token, kind) in [
        ("x.y.z".to_owned(), RejectionKind::Malformed),
        (hmac, RejectionKind::UnsupportedAlgorithm),
        (
            with(json!({ "iss": "https://other.example" })),
            RejectionKind::UntrustedIssuer,
        ),
        (with(json!({ "exp": 1 })), RejectionKind::Expired),
        (token("a", rsa(0)), RejectionKind::KeysUnavailable),
    ] {
        // The helper also compares the status and `Retry-After`.
        assert_eq!(send(&server, &token).await, Err(kind));
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_or_replaced_key_verifies_no_token_after_the_next_refresh() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    for (kid, key) in [("a", rsa(0)), ("b", rsa(1))] {
        assert_eq!(send(&server, &token(kid, key)).await, Ok(()));
    }
    // `a` returns with another public key, `b` is removed.
    issuer.publish(set(&[("a", rsa(2))]));
    advance(&clock, secs(300)).await;
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Err(RejectionKind::InvalidSignature)
    );
    assert_eq!(send(&server, &token("a", rsa(2))).await, Ok(()));
    assert_eq!(
        send(&server, &token("b", rsa(1))).await,
        Err(RejectionKind::UnknownKey)
    );
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_seed_file_is_its_mtime_and_never_negative() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_reply(IssuerReply::Unreachable);
    let clock = clock();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("seed.json");
    std::fs::write(&path, set(&[("a", rsa(0))]).to_string()).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let age =
        |seconds: u64| std::time::UNIX_EPOCH + Duration::from_secs(support::NOW) - secs(seconds);
    let seeded = async |modified: std::time::SystemTime| {
        file.set_modified(modified).unwrap();
        let seeded = builder_with(&issuer, &clock, |issuer| {
            issuer.initial_keys_file(&path).unwrap()
        });
        seeded.startup(Startup::Background).start().await.unwrap()
    };
    let server = seeded(age(3600)).await;
    assert_eq!(send(&server, &long_lived_token("a", rsa(0))).await, Ok(()));
    assert_eq!(server.key_sets().remove(0).age(), Some(secs(3600)));
    let too_old = seeded(age(90_000)).await;
    assert_eq!(
        send(&too_old, &long_lived_token("a", rsa(0))).await,
        Err(RejectionKind::KeysUnavailable)
    );
    let of_the_future = seeded(age(0) + secs(1_000_000)).await;
    assert_eq!(
        of_the_future.key_sets().remove(0).age(),
        Some(Duration::ZERO)
    );
    clock.advance(secs(86_500));
    assert_eq!(
        send(&of_the_future, &long_lived_token("a", rsa(0))).await,
        Err(RejectionKind::KeysUnavailable)
    );

    let trusted = || {
        TrustedIssuer::new(
            Issuer::new(ISSUER).unwrap(),
            Audience::new(support::AUDIENCE).unwrap(),
        )
    };
    for (content, kind) in [
        (vec![b' '; 300 << 10], ErrorKind::Configuration),
        (b"{".to_vec(), ErrorKind::Malformed),
        (br#"{"keys":[]}"#.to_vec(), ErrorKind::NoUsableKey),
    ] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(trusted().initial_keys_file(&path).unwrap_err().kind(), kind);
    }
    std::fs::remove_file(&path).unwrap();
    let missing = trusted().initial_keys_file(&path).unwrap_err();
    let reason = std::error::Error::source(&missing).unwrap().to_string();
    assert!(
        reason.contains("seed.json") && reason.contains("cannot be read"),
        "{reason}"
    );
}

/// Numbers in ignored members, with any features of serde_json.
#[tokio::test(start_paused = true)]
async fn numbers_in_unknown_members_of_keys_and_metadata_are_ignored() {
    let mut jwk = rsa(0).jwk("a");
    jwk["exp"] = json!(1_700_000_000.5);
    jwk["nested"] = json!({ "of": [1e30, -1.5, 7] });
    let issuer = ScriptedIssuer::new(json!({ "keys": [jwk], "version": 1.5 }));
    issuer.set_metadata(IssuerReply::Metadata(
        r#"{"issuer":"https://as.example","jwks_uri":"https://as.example/keys",
            "version":1.5,"x":[1e30]}"#,
    ));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
}
