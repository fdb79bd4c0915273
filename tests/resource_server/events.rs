//! The events of rejected requests: what is in them, what is never in them, and how often.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::resource_server::RejectionKind::{
    self, Expired, InvalidAudience, InvalidClaims, InvalidSignature, Malformed, NotYetValid,
    UnexpectedTokenType, UnknownKey, UnsupportedAlgorithm, UntrustedClient, UntrustedIssuer,
};
use tower_oauth::resource_server::TokenProfile;
use tower_oauth::{Audience, Issuer, Rejection, RequireScopeLayer, Scope, TrustedIssuer};

use crate::support::{
    Fixture, ISSUER, NOW, bearer, claims, claims_and, claims_with, compact, log, ok,
    poll_once_or_panic, rsa,
};

const WARN: &str = " WARN tower_oauth::resource_server: ";
const DEBUG: &str = "DEBUG tower_oauth::resource_server: request rejected";

/// Validates a token, and returns the events at `warn`.
fn warnings(fixture: &Fixture, token: &str) -> (RejectionKind, Vec<String>) {
    log::clear_log();
    let rejection = poll_once_or_panic(fixture.server.validate(token)).unwrap_err();
    log::assert_not_logged(token);
    assert_eq!(log::lines(DEBUG).len(), 1);
    let shown = format!("{rejection:?} {rejection}");
    assert!(
        !shown.contains("account") && !shown.contains("shop"),
        "{shown}"
    );
    (rejection.kind(), log::lines(WARN))
}

#[track_caller]
fn assert_warns(fixture: &Fixture, token: &str, kind: RejectionKind, expected: &str, found: &str) {
    fixture.clock.advance(Duration::from_secs(60));
    let (rejected_as, warnings) = warnings(fixture, token);
    assert_eq!(rejected_as, kind);
    let [warning] = &*warnings else {
        panic!("{warnings:?}");
    };
    for part in [
        &format!("reason=\"{kind}\""),
        &format!("expected={expected} found={found}"),
    ] {
        assert!(warning.contains(part), "no {part} in {warning}");
    }
    // The one at `debug` says the same.
    assert!(log::logged(&format!("request rejected reason=\"{kind}\"")));
    assert_eq!(log::count(&format!("expected={expected} found={found}")), 2);
}

#[tokio::test]
async fn the_event_of_a_401_names_what_the_token_must_be_and_not_the_scopes_of_its_challenge() {
    let fixture = Fixture::new();
    log::capture();
    let inner = service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    });
    let anonymous = fixture.server.layer().allow_anonymous();
    let anonymous = anonymous.layer(RequireScopeLayer::all(["orders.write"]).layer(inner));
    let scoped = fixture.server.layer().scope(["orders.write"]).layer(inner);
    log::clear_log();
    for response in [
        anonymous.oneshot(Request::new(())).await.unwrap(),
        scoped.oneshot(Request::new(())).await.unwrap(),
    ] {
        let challenge = response.headers()["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains(r#"scope="orders.write""#), "{challenge}");
    }
    let expected = "expected=one Authorization field of Bearer and the token";
    let events = log::lines(DEBUG);
    assert!(
        events.len() == 2 && events.iter().all(|event| event.contains(expected)),
        "{events:?}"
    );
}

#[test]
fn the_event_of_a_signed_token_names_what_was_expected_and_what_was_found() {
    let limited = |issuer: TrustedIssuer| {
        let other = Audience::new("https://orders.example").unwrap();
        issuer
            .add_audience(other)
            .max_lifetime(Duration::from_secs(7200))
    };
    let trusted = r#"aud with one of ["orders", "https://orders.example"]"#;
    let times = "nbf and iat in the past, exp in the future, with 60 s of leeway";
    for (changes, kind, expected, found) in [
        (
            json!({ "aud": ["account", "shop"], "azp": "web" }),
            InvalidAudience,
            trusted,
            r#"aud ["account", "shop"] (client "web")"#,
        ),
        (
            json!({ "aud": "account" }),
            InvalidAudience,
            trusted,
            r#"aud ["account"]"#,
        ),
        (json!({ "aud": [] }), InvalidAudience, trusted, "aud []"),
        // A lightweight token of Keycloak.
        (json!({ "aud": null }), InvalidClaims, trusted, "no aud"),
        (
            json!({ "exp": null }),
            InvalidClaims,
            "iss, aud and exp",
            "no exp",
        ),
        (
            json!({ "nbf": NOW + 500 }),
            NotYetValid,
            times,
            "nbf in 7 min 20 s",
        ),
        (
            json!({ "iat": NOW + 600, "cid": "web" }),
            NotYetValid,
            times,
            "iat in 9 min (client \"web\")",
        ),
        (
            json!({ "nbf": NOW + 30, "exp": NOW + 20 }),
            InvalidClaims,
            "nbf before exp",
            "nbf after exp",
        ),
        (
            json!({ "exp": NOW + 9000 }),
            InvalidClaims,
            "a lifetime of at most 2 h (max_lifetime)",
            "2 h 30 min",
        ),
        (
            json!({ "iat": null }),
            InvalidClaims,
            "iat or nbf, for the lifetime (max_lifetime)",
            "neither",
        ),
        (
            json!({ "at_hash": "x" }),
            UnexpectedTokenType,
            "an access token",
            "the claim at_hash of another kind of token",
        ),
        (
            json!({ "token_use": "id" }),
            UnexpectedTokenType,
            "an access token",
            "the claim token_use of another kind of token",
        ),
    ] {
        let fixture = Fixture::with(limited);
        let token = fixture.token(&claims_with(changes));
        assert_warns(&fixture, &token, kind, expected, found);
        assert!(log::logged(&format!("issuer=\"{ISSUER}\"")));
    }
}

#[test]
fn the_event_of_another_type_names_the_type() {
    let strict = Fixture::with(|issuer| issuer.profile(TokenProfile::Rfc9068));
    let other = |fixture: &Fixture, header: &str, expected: &str, found: &str| {
        let token = fixture.with_header(header);
        assert_warns(fixture, &token, UnexpectedTokenType, expected, found);
    };
    let at = r#"typ "at+jwt""#;
    other(
        &strict,
        r#"{"alg":"RS256","kid":"rsa","typ":"JWT"}"#,
        at,
        r#"typ "JWT""#,
    );
    other(&strict, r#"{"alg":"RS256","kid":"rsa"}"#, at, "no typ");
    let fixture = Fixture::new();
    let any = r#"typ absent, "JWT", "JOSE" or "at+jwt""#;
    let header = r#"{"alg":"RS256","kid":"rsa","typ":"logout+jwt"}"#;
    other(&fixture, header, any, r#"typ "logout+jwt""#);
    let required = "iss, aud, exp, sub, client_id, iat and jti (RFC 9068)";
    let token = strict.with_header(r#"{"alg":"RS256","kid":"rsa","typ":"at+jwt"}"#);
    assert_warns(&strict, &token, InvalidClaims, required, "no client_id");
}

#[test]
fn the_event_of_a_token_that_breaks_a_rule_names_the_rule() {
    let fixture = Fixture::with(|issuer| {
        let issuer = issuer.require_claim("plan", ["pro", "team"]);
        let issuer = issuer.allowed_clients(["shop", "bank"]);
        let issuer = issuer
            .require(|_| true)
            .require(|token| token.subject() == Some("app"));
        issuer.require_scopes(["orders.write"])
    });
    let rejects = |changes: Value, kind, expected: &str, found: &str| {
        let full = json!({ "plan": "pro", "azp": "shop", "scope": "orders.write" });
        let mut claims = claims_and(&full);
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        assert_warns(&fixture, &fixture.token(&claims), kind, expected, found);
    };
    rejects(
        json!({ "plan": ["free"] }),
        InvalidClaims,
        r#"the claim plan with one of ["pro", "team"]"#,
        r#"the claim plan with ["free"] (client "shop")"#,
    );
    let clients = r#"one of the clients ["shop", "bank"]"#;
    rejects(
        json!({ "azp": "web" }),
        UntrustedClient,
        clients,
        r#"another client (client "web")"#,
    );
    rejects(
        json!({ "azp": null }),
        UntrustedClient,
        clients,
        "no claim that names the client",
    );
    rejects(
        json!({ "cid": 7 }),
        InvalidClaims,
        "a string that names the client",
        r#"the claim cid of another type (client "shop")"#,
    );
    rejects(
        json!({ "sub": "x" }),
        InvalidClaims,
        "true of the rule 2 of `require`",
        r#"false (client "shop")"#,
    );
    rejects(
        json!({ "scope": "orders.read orders.list" }),
        RejectionKind::InsufficientScope,
        r#"all of the scopes ["orders.write"]"#,
        r#"scopes ["orders.read", "orders.list"] (client "shop")"#,
    );
}

#[test]
fn nothing_of_a_token_without_a_valid_signature_is_logged() {
    let names = json!({
        "aud": ["s3cr3t-aud"], "azp": "s3cr3t-azp", "sub": "s3cr3t-sub", "jti": "s3cr3t-jti",
        "scope": "s3cr3t-scope", "x-s3cr3t": "s3cr3t-x",
    });
    let forged = |header: &str, changes: Value| {
        let mut claims = claims_and(&names);
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        compact(rsa(1), "RS256", header, claims.to_string().as_bytes())
    };
    let (rs256, unverified) = (
        r#"{"alg":"RS256","kid":"rsa"}"#,
        "not logged: the signature is not verified",
    );
    for (token, kind, expected) in [
        (
            forged(rs256, json!({})),
            InvalidSignature,
            "a signature by the key that the token names",
        ),
        (
            forged(rs256, json!({ "exp": NOW - 999 })),
            Expired,
            "exp in the future, with 60 s of leeway",
        ),
        (
            forged(rs256, json!({ "iss": "https://s3cr3t.example" })),
            UntrustedIssuer,
            r#"one of the issuers ["https://as.example", "https://alias.example"]"#,
        ),
        (
            forged(
                r#"{"alg":"RS256","kid":"s3cr3t-kid","s3cr3t":"s3cr3t"}"#,
                json!({}),
            ),
            UnknownKey,
            "a kid of the key set of the issuer, see `key_sets`",
        ),
        (
            forged(r#"{"alg":"s3cr3t-HS256","kid":"s3cr3t-kid"}"#, json!({})),
            UnsupportedAlgorithm,
            r#"one of ["RS256", "ES256"], and a key for it"#,
        ),
        (
            forged(r#"{"alg":"RS256","crit":["s3cr3t"]}"#, json!({})),
            Malformed,
            "a signed JWT: three segments, strict base64url and JSON, no crit, b64, zip, enc or cty",
        ),
        (
            forged(rs256, json!({ "sub": ["s3cr3t-list"] })),
            InvalidClaims,
            "iss, aud and exp, each registered claim of its type, and no name twice",
        ),
    ] {
        let fixture = Fixture::with(|issuer| {
            use tower_oauth::resource_server::Algorithm;
            let alias = Issuer::new("https://alias.example").unwrap();
            issuer
                .add_alias(alias)
                .algorithms([Algorithm::Rs256, Algorithm::Es256])
        });
        assert_warns(&fixture, &token, kind, expected, unverified);
        assert!(!log::logged("s3cr3t"), "{kind}");
    }
    let fixture = Fixture::new();
    let long = format!("{}.", "s3cr3t".repeat(4000));
    let expected = "at most 16384 bytes (max_token_len), and 8 KiB of header";
    assert_warns(
        &fixture,
        &long,
        RejectionKind::TokenTooLong,
        expected,
        "more",
    );
    assert!(!log::logged("s3cr3t"));
}

#[test]
fn each_reason_is_logged_at_warn_once_a_minute_and_each_rejection_at_debug() {
    let fixture = Fixture::new();
    let wrong_audience = fixture.token(&claims_with(json!({ "aud": "account" })));
    let unsigned = "a.b.c";
    let reject = |many: usize| {
        log::clear_log();
        for _ in 0..many {
            poll_once_or_panic(fixture.server.validate(&wrong_audience)).unwrap_err();
            poll_once_or_panic(fixture.server.validate(unsigned)).unwrap_err();
        }
        assert_eq!(log::lines(DEBUG).len(), 2 * many);
        log::lines(WARN)
    };
    let once = "(logged once a minute for each reason) ";
    let warnings = reject(1_235);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, reason) in warnings.iter().zip(["invalid_audience", "malformed"]) {
        assert!(
            warning.contains(&format!("a request was rejected {once}reason=\"{reason}\"")),
            "{warning}"
        );
    }
    fixture.clock.advance(Duration::from_secs(59));
    assert_eq!(reject(1), Vec::<String>::new());
    fixture.clock.advance(Duration::from_secs(1));
    let more = "a request was rejected, and 1,235 more since the last such event ";
    for warning in reject(1) {
        assert!(warning.contains(&format!("{more}{once}")), "{warning}");
    }
    // Each resource server has its own.
    let (another, _) = warnings_of_two(&Fixture::new(), unsigned);
    assert_eq!(another, 1);
}

#[test]
fn a_token_without_a_valid_signature_does_not_hide_the_event_of_one_with() {
    let fixture = Fixture::new();
    let signed = fixture.token(&claims_with(json!({ "exp": null })));
    let claims = claims_with(json!({ "sub": ["x"] })).to_string();
    let header = r#"{"alg":"RS256","kid":"rsa"}"#;
    let forged = compact(rsa(1), "RS256", header, claims.as_bytes());
    for first in [&forged, &signed] {
        // Neither hides the other, and each is limited.
        let second = if first == &forged { &signed } else { &forged };
        for token in [first, second] {
            let (kind, shown) = warnings(&fixture, token);
            assert_eq!(kind, InvalidClaims);
            assert_eq!(shown.len(), 1, "{shown:?}");
            assert_eq!(shown[0].contains("found=no exp"), token == &signed);
            assert_eq!(warnings(&fixture, token).1, Vec::<String>::new());
        }
        fixture.clock.advance(Duration::from_secs(60));
    }
}

/// The numbers of events at `warn` of two rejections.
fn warnings_of_two(fixture: &Fixture, token: &str) -> (usize, usize) {
    (
        warnings(fixture, token).1.len(),
        warnings(fixture, token).1.len(),
    )
}

#[test]
fn values_of_a_token_are_escaped_and_bounded_in_events() {
    let fixture = Fixture::new();
    let odd = "\u{1b}[31m\nWARN forged=\"line\"\r\u{202e}\u{7}".repeat(8);
    let token = fixture.token(&claims_and(
        &json!({ "aud": vec![odd.clone(); 12], "azp": odd }),
    ));
    log::clear_log();
    poll_once_or_panic(fixture.server.validate(&token)).unwrap_err();
    let lines = log::lines("");
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        assert!(line.contains(", and 4 more]"), "{line}");
        assert!(line.len() < 4_000, "{}", line.len());
        assert!(
            !line.contains(char::is_control) && !line.contains('\u{202e}'),
            "{line}"
        );
    }
    // Cut, as in an explanation.
    let long = fixture.token(&claims_and(&json!({ "aud": "x".repeat(5000) })));
    let found = format!("aud [\"{}…]", "x".repeat(199));
    let expected = r#"aud with one of ["orders"]"#;
    assert_warns(&fixture, &long, InvalidAudience, expected, &found);
    // A word that resembles the start of a token, in a setting as well.
    let survey = Fixture::with(|issuer| issuer.require_claim("role", ["surveyJobs"]));
    let other = survey.token(&claims_and(&json!({ "role": "eyJobs" })));
    log::clear_log();
    poll_once_or_panic(survey.server.validate(&other)).unwrap_err();
    assert!(log::logged(
        r#"expected=the claim role with one of ["surveyJobs"] found=the claim role with "eyJobs""#
    ));
    // A token in a token.
    let nested = fixture.token(&claims_and(&json!({ "aud": fixture.token(&claims()) })));
    assert_warns(
        &fixture,
        &nested,
        InvalidAudience,
        r#"aud with one of ["orders"]"#,
        r#"aud ["[redacted]"]"#,
    );
}

#[test]
fn a_missing_scope_of_a_route_is_logged_with_the_scopes_of_the_token() {
    for (layer, expected) in [
        (
            RequireScopeLayer::all(["orders.write", "orders.list"]),
            r#"all of the scopes ["orders.write", "orders.list"]"#,
        ),
        (
            RequireScopeLayer::any(["orders.write"]),
            r#"one of the scopes ["orders.write"]"#,
        ),
    ] {
        let fixture = Fixture::new();
        let token = fixture.token(&claims_and(
            &json!({ "azp": "web", "scope": "orders.read a" }),
        ));
        let service = fixture.server.layer().layer(layer.layer(service_fn(ok)));
        log::clear_log();
        for _ in 0..3 {
            let request = bearer(&token, ());
            let response = poll_once_or_panic(service.clone().oneshot(request)).unwrap();
            assert_eq!(response.status(), 403);
            let rejection = response.extensions().get::<Rejection>().unwrap();
            assert!(!format!("{rejection:?}").contains("orders.read"));
        }
        assert_eq!((log::lines(WARN).len(), log::lines(DEBUG).len()), (1, 3));
        let found = r#"scopes ["orders.read", "a"] (client "web")"#;
        let event = format!(
            "reason=\"insufficient_scope\" issuer=\"{ISSUER}\" expected={expected} found={found}"
        );
        assert_eq!(log::count(&event), 4);
        log::assert_not_logged(&token);
    }
}

#[test]
fn a_scope_that_a_handler_requires_is_logged() {
    let fixture = Fixture::new();
    let deny = service_fn(async |_: Request<()>| {
        let mut response = http::Response::new(());
        let scope = Scope::new("orders.write").unwrap();
        response
            .extensions_mut()
            .insert(Rejection::insufficient_scope([scope]));
        Ok::<_, std::convert::Infallible>(response)
    });
    log::clear_log();
    let service = fixture.server.layer().layer(deny);
    let request = bearer(&fixture.token(&claims()), ());
    poll_once_or_panic(service.oneshot(request)).unwrap();
    // The layer around the handler does not keep the token.
    let (expected, found) = (
        r#"the scopes ["orders.write"]"#,
        "a token that a handler rejects",
    );
    assert_eq!(log::count(&format!("expected={expected} found={found}")), 2);
}

#[test]
fn a_request_without_a_token_is_logged_with_what_it_has_instead() {
    for (field, found) in [
        (None, "no Authorization field"),
        (
            Some("Basic czNjcjN0"),
            "an Authorization field of another scheme",
        ),
        (
            Some("s3cr3t s3cr3t"),
            "an Authorization field of another scheme",
        ),
    ] {
        let fixture = Fixture::new();
        log::clear_log();
        for _ in 0..3 {
            let request = Request::get("/");
            let request = match field {
                Some(field) => request.header("authorization", field),
                None => request,
            };
            let request = request.body(Full::default()).unwrap();
            let response = poll_once_or_panic(fixture.send(request));
            assert_eq!(response.status(), 401);
        }
        let expected = "one Authorization field of Bearer and the token";
        assert_eq!(log::count(&format!("expected={expected} found={found}")), 4);
        assert_eq!(log::lines(WARN).len(), 1);
        assert!(!log::logged("s3cr3t") && !log::logged("czNjcjN0"));
    }
}
