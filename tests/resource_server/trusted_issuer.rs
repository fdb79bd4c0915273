//! The settings of a trusted issuer: what they accept and reject, cached and not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use http_body_util::Full;
use serde_json::{Value, json};
use tower_oauth::app_id::Binding;
use tower_oauth::error::ConfigErrorKind;
use tower_oauth::key_set::{KeySet, RefreshPolicy};
use tower_oauth::resource_server::RejectionKind::{
    self, Expired, InsufficientScope, InvalidAudience, InvalidClaims, InvalidSignature,
    KeysUnavailable, TokenTooLong, UntrustedClient, UntrustedIssuer,
};
use tower_oauth::resource_server::TokenProfile;
use tower_oauth::{Audience, AuthContext, Issuer, Rejection, ResourceServer, Scope, TrustedIssuer};

use crate::support::issuer::{
    IssuerReply, ScriptedIssuer, advance, builder_with, clock, secs, send, set, with_claims,
};
use crate::support::{
    AUDIENCE, Fixture, ISSUER, NOW, bearer, claims, claims_with, compact, poll_once_or_panic, rsa,
};

const OTHER: &str = "https://other.example";

/// A second issuer without settings.
fn other() -> TrustedIssuer {
    TrustedIssuer::new(
        Issuer::new(OTHER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    )
}

fn issuer() -> TrustedIssuer {
    TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    )
}

/// Enough requests for a miss, the insertion into the cache, and hits.
const REQUESTS: usize = 4;

/// Asserts that a token with these changes is accepted, and then found in the cache.
#[track_caller]
fn assert_accepts(fixture: &Fixture, changes: Value) -> AuthContext {
    let token = fixture.token(&claims_with(changes));
    let before = fixture.server.cached_token_count();
    let first = fixture.assert_accepts(&token);
    for _ in 1..REQUESTS {
        let context = fixture.assert_accepts(&token);
        assert_eq!(context.client_id(), first.client_id());
    }
    assert_eq!(fixture.server.cached_token_count(), before + 1);
    first
}

/// Asserts that a token with these changes is rejected each time, and never cached.
#[track_caller]
fn assert_rejects(fixture: &Fixture, changes: Value, kind: RejectionKind) {
    let before = fixture.server.cached_token_count();
    let token = fixture.token(&claims_with(changes));
    for _ in 0..REQUESTS {
        fixture.assert_rejects(&token, kind);
    }
    assert_eq!(fixture.server.cached_token_count(), before);
}

/// A predicate that counts its calls.
fn counted(calls: &Arc<AtomicUsize>) -> impl Fn(&AuthContext) -> bool + Send + Sync + 'static {
    let calls = Arc::clone(calls);
    move |_| {
        calls.fetch_add(1, Ordering::SeqCst);
        true
    }
}

#[test]
fn a_required_claim_equals_one_of_its_values_as_json() {
    let fixture = Fixture::with(|issuer| {
        issuer
            .require_claim("token_use", ["access", "service"])
            .require_claim("repository_id", [json!(123_456_789_u64), json!(["a", 1])])
    });
    for repository in [json!(123_456_789_u64), json!(["a", 1])] {
        for token_use in ["access", "service"] {
            let changes = json!({ "token_use": token_use, "repository_id": repository });
            assert_accepts(&fixture, changes);
        }
    }
    for (token_use, repository) in [
        (json!("access"), json!("123456789")),
        (json!("access"), json!(123_456_789.5)),
        (json!("access"), json!([123_456_789_u64])),
        (json!("access"), json!(["a"])),
        (json!("access"), json!(["a", "1"])),
        (json!("access"), json!({ "0": "a" })),
        (json!("access"), Value::Null),
        (json!("Access"), json!(123_456_789_u64)),
        (json!("access "), json!(123_456_789_u64)),
        (json!(""), json!(123_456_789_u64)),
        (json!(["access"]), json!(123_456_789_u64)),
        (Value::Null, json!(123_456_789_u64)),
        (Value::Null, Value::Null),
    ] {
        let changes = json!({ "token_use": token_use, "repository_id": repository });
        assert_rejects(&fixture, changes, InvalidClaims);
    }
    // `null` in the token is a value, not an absent claim.
    let nullable = Fixture::with(|issuer| issuer.require_claim("department", [Value::Null]));
    let payload = claims()
        .to_string()
        .replacen('{', r#"{"department":null,"#, 1);
    nullable.assert_accepts(&nullable.with_payload(payload.as_bytes()));
    nullable.assert_rejects(&nullable.token(&claims()), InvalidClaims);
}

#[test]
fn a_claim_that_is_required_twice_must_meet_both_requirements() {
    let fixture = Fixture::with(|issuer| {
        let issuer = issuer.require_claim("region", ["eu", "us"]);
        issuer.require_claim("region", ["eu", "asia"])
    });
    assert_accepts(&fixture, json!({ "region": "eu" }));
    for region in ["us", "asia"] {
        assert_rejects(&fixture, json!({ "region": region }), InvalidClaims);
    }
}

#[test]
fn only_tokens_of_allowed_clients_are_accepted() {
    let fixture = Fixture::with(|issuer| issuer.allowed_clients(["shop", "warehouse"]));
    for changes in [
        json!({ "client_id": "shop" }),
        json!({ "azp": "warehouse" }),
        json!({ "appid": "shop" }),
        json!({ "cid": "shop" }),
        json!({ "client_id": "shop", "azp": "other" }),
    ] {
        assert_accepts(&fixture, changes);
    }
    for changes in [
        json!({}),
        json!({ "sub": "shop" }),
        json!({ "client_id": "Shop" }),
        json!({ "client_id": "" }),
        json!({ "client_id": "other", "azp": "shop" }),
        json!({ "azp": "other", "cid": "shop" }),
    ] {
        assert_rejects(&fixture, changes, UntrustedClient);
    }
}

#[test]
fn a_client_claim_of_the_wrong_type_is_rejected_when_clients_are_restricted() {
    let restricted = Fixture::with(|issuer| issuer.allowed_clients(["shop"]));
    let open = Fixture::new();
    for name in ["client_id", "azp", "appid", "cid"] {
        for value in [
            json!(7),
            json!(["shop"]),
            json!({ "id": "shop" }),
            json!(true),
        ] {
            for other in ["cid", "azp"].into_iter().filter(|other| *other != name) {
                let changes = json!({ name: value, other: "shop" });
                assert_rejects(&restricted, changes.clone(), InvalidClaims);
                // Private claims of other issuers may have any type.
                if ["appid", "cid"].contains(&name) {
                    assert_accepts(&open, changes);
                }
            }
        }
    }
}

#[test]
fn a_token_without_an_audience_is_accepted_from_an_allowed_client_only() {
    let fixture = Fixture::with(|issuer| issuer.allowed_clients(["shop"]).audience_optional());
    let context = assert_accepts(&fixture, json!({ "aud": null, "client_id": "shop" }));
    assert_eq!(context.audience().count(), 0);
    assert_accepts(&fixture, json!({ "client_id": "shop" }));
    for (changes, kind) in [
        (json!({ "aud": null }), UntrustedClient),
        (
            json!({ "aud": null, "client_id": "other" }),
            UntrustedClient,
        ),
        (json!({ "client_id": "other" }), UntrustedClient),
        (
            json!({ "aud": "other", "client_id": "shop" }),
            InvalidAudience,
        ),
        (
            json!({ "aud": ["other"], "client_id": "shop" }),
            InvalidAudience,
        ),
        (json!({ "aud": [], "client_id": "shop" }), InvalidAudience),
        (json!({ "aud": "", "client_id": "shop" }), InvalidAudience),
        (json!({ "aud": 7, "client_id": "shop" }), InvalidClaims),
    ] {
        assert_rejects(&fixture, changes, kind);
    }
    let payload = claims_with(json!({ "aud": null, "client_id": "shop" })).to_string();
    let with_null = payload.replacen('{', r#"{"aud":null,"#, 1);
    fixture.assert_rejects(&fixture.with_payload(with_null.as_bytes()), InvalidClaims);
    // Without the setting the audience is required, from allowed clients as well.
    let strict = Fixture::with(|issuer| issuer.allowed_clients(["shop"]));
    assert_rejects(
        &strict,
        json!({ "aud": null, "client_id": "shop" }),
        InvalidClaims,
    );
}

#[test]
fn rules_that_no_token_can_meet_are_configuration_errors() {
    let none: [&str; 0] = [];
    let cases = [
        (
            issuer().audience_optional(),
            "audience_optional",
            ConfigErrorKind::Conflict,
        ),
        (
            issuer()
                .audience_optional()
                .allowed_clients(["shop"])
                .profile(TokenProfile::Rfc9068),
            "audience_optional",
            ConfigErrorKind::Conflict,
        ),
        (
            issuer().allowed_clients(none),
            "allowed_clients",
            ConfigErrorKind::Missing,
        ),
        (
            issuer().allowed_clients(["shop", ""]),
            "allowed_clients",
            ConfigErrorKind::Invalid,
        ),
        (
            issuer().require_claim("token_use", none),
            "require_claim",
            ConfigErrorKind::Missing,
        ),
        (
            issuer().require_scopes(["orders.read", "two scopes"]),
            "require_scopes",
            ConfigErrorKind::Invalid,
        ),
        (
            issuer().add_alias(Issuer::new(ISSUER).unwrap()),
            "issuer",
            ConfigErrorKind::Conflict,
        ),
        (
            issuer().add_alias(Issuer::new(OTHER).unwrap()),
            "issuer",
            ConfigErrorKind::Conflict,
        ),
    ];
    for (issuer, setting, kind) in cases {
        let error = ResourceServer::from_issuer(other())
            .add_issuer(issuer)
            .build();
        let error = error.unwrap_err();
        assert_eq!((error.setting(), error.kind()), (setting, kind), "{error}");
    }
}

#[test]
fn the_closure_names_the_client_before_it_is_compared_and_cached() {
    let by_subject = Fixture::with(|issuer| {
        issuer
            .client_id_from(|token| token.subject().map(str::to_uppercase))
            .allowed_clients(["SHOP"])
    });
    let context = assert_accepts(&by_subject, json!({ "sub": "shop", "client_id": "other" }));
    assert_eq!(context.client_id(), Some("SHOP"));
    let claim: Option<String> = context.claim("client_id").unwrap();
    assert_eq!(claim.as_deref(), Some("other"), "the claims are unchanged");
    assert_rejects(&by_subject, json!({ "client_id": "SHOP" }), UntrustedClient);
    assert_rejects(
        &by_subject,
        json!({ "sub": null, "client_id": "SHOP" }),
        UntrustedClient,
    );
    // The closure gets the default, and replaces it.
    let with_prefix = Fixture::with(|issuer| {
        issuer.client_id_from(|token| token.client_id()?.strip_prefix("m2m-").map(str::to_owned))
    });
    let client = |changes: Value| {
        let context = assert_accepts(&with_prefix, changes);
        context.client_id().map(str::to_owned)
    };
    assert_eq!(
        client(json!({ "azp": "m2m-shop" })).as_deref(),
        Some("shop")
    );
    assert_eq!(client(json!({ "azp": "shop" })), None);
    assert_eq!(client(json!({})), None);
}

/// Sends a token through the layer, without the checks of `Fixture::validate`.
fn rejection(fixture: &Fixture, token: &str) -> (StatusCode, String, Rejection) {
    let response = poll_once_or_panic(fixture.send(bearer(token, Full::default())));
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    let rejection = response.extensions().get::<Rejection>().unwrap();
    (response.status(), challenge.to_owned(), rejection.clone())
}

#[test]
fn a_token_that_lacks_a_scope_of_its_issuer_is_rejected_with_403_and_the_scopes() {
    let fixture = Fixture::with(|issuer| {
        issuer
            .require_scopes(["orders.read"])
            .require_scopes([Scope::new("orders.list").unwrap()])
            .require_claim("env", ["production"])
    });
    let both = "orders.list orders.read x";
    assert_accepts(&fixture, json!({ "env": "production", "scope": both }));
    let changes =
        json!({ "env": "production", "scope": null, "scp": ["orders.read", "orders.list"] });
    assert_accepts(&fixture, changes);
    let cached = fixture.server.cached_token_count();
    for scope in [
        json!("orders.read"),
        json!("orders.reads orders.list"),
        json!(null),
    ] {
        let token = fixture.token(&claims_with(json!({ "env": "production", "scope": scope })));
        for _ in 0..REQUESTS {
            let (status, challenge, rejection) = rejection(&fixture, &token);
            assert_eq!(
                (status, rejection.kind()),
                (StatusCode::FORBIDDEN, InsufficientScope)
            );
            assert!(
                challenge.contains(r#"error="insufficient_scope""#)
                    && challenge.contains(r#"scope="orders.read orders.list""#),
                "{challenge}"
            );
            assert_eq!(rejection.required_scopes(), ["orders.read", "orders.list"]);
        }
        let rejection = poll_once_or_panic(fixture.server.validate(&token)).unwrap_err();
        assert_eq!(rejection.required_scopes(), ["orders.read", "orders.list"]);
    }
    assert_eq!(fixture.server.cached_token_count(), cached);
    // A token that breaks another rule is rejected as invalid with any scopes.
    assert_rejects(&fixture, json!({ "scope": "x" }), InvalidClaims);
    assert_rejects(&fixture, json!({ "scope": both }), InvalidClaims);
}

#[test]
fn an_alias_names_the_same_issuer() {
    let fixture = Fixture::with(|issuer| {
        issuer
            .add_alias(Issuer::new("as.example").unwrap())
            .require_claim("env", ["production"])
    });
    let context = assert_accepts(
        &fixture,
        json!({ "iss": "as.example", "env": "production" }),
    );
    assert_eq!(context.issuer(), "as.example");
    assert_rejects(&fixture, json!({ "iss": "as.example" }), InvalidClaims);
    for iss in ["AS.example", "as.example/", "https://as.example/", OTHER] {
        let changes = json!({ "iss": iss, "env": "production" });
        assert_rejects(&fixture, changes, UntrustedIssuer);
    }
    assert_eq!(fixture.server.key_sets().len(), 1);
    // A key that is revoked under one name is revoked under all.
    let alias = Issuer::new("as.example").unwrap();
    assert!(fixture.server.revoke_key(&alias, "rsa"));
    let changes = json!({ "env": "production" });
    assert_rejects(&fixture, changes, RejectionKind::RevokedKey);
}

#[test]
fn a_predicate_sees_the_token_as_a_handler_does_and_once() {
    let calls = Arc::<AtomicUsize>::default();
    let seen = Arc::clone(&calls);
    let fixture = Fixture::with(move |issuer| {
        let seen = Arc::clone(&seen);
        issuer
            .client_id_from(|token| token.claim("service").ok()?)
            .require(move |token| {
                seen.fetch_add(1, Ordering::SeqCst);
                token.issuer() == ISSUER
                    && token.client_id() == Some("shop")
                    && token.has_scope("orders.read")
                    && token.audience().eq([AUDIENCE])
                    && token.has_role("buyer")
                    && token.expires_at().as_secs() == NOW + 3600
            })
            .require(|token| token.subject() != Some("banned"))
    });
    let good = json!({ "service": "shop", "roles": ["buyer"] });
    assert_accepts(&fixture, good.clone());
    let misses = calls.swap(0, Ordering::SeqCst);
    // A token is cached from its second request on; hits do not call it.
    assert_eq!(misses, 2);
    let token = fixture.token(&claims_with(good));
    for _ in 0..50 {
        fixture.assert_accepts(&token);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    for changes in [
        json!({ "service": "shop" }),
        json!({ "service": "other", "roles": ["buyer"] }),
        json!({ "service": "shop", "roles": ["buyer"], "sub": "banned" }),
    ] {
        assert_rejects(&fixture, changes, InvalidClaims);
    }
}

#[test]
fn no_rule_sees_a_token_that_is_not_verified_or_not_valid() {
    let calls = Arc::<AtomicUsize>::default();
    let fixture = Fixture::with(|issuer| {
        let counted_name = counted(&calls);
        issuer
            .require(counted(&calls))
            .client_id_from(move |token| counted_name(token).then(|| "shop".to_owned()))
    });
    let good = fixture.token(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let forged = signature.replace(|_: char| true, "A");
    fixture.assert_rejects(&format!("{signed}.{forged}"), InvalidSignature);
    for (changes, kind) in [
        (json!({ "aud": "other" }), InvalidAudience),
        (json!({ "exp": NOW - 3600 }), Expired),
        (json!({ "iss": OTHER }), UntrustedIssuer),
        (json!({ "nbf": NOW + 3600 }), RejectionKind::NotYetValid),
    ] {
        assert_rejects(&fixture, changes, kind);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    poll_once_or_panic(fixture.server.validate(&good)).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// Such a token would pass with a newer key as far as the server knows, so it may cause a refresh,
/// within the rate limit. The rules do not see it.
#[tokio::test(start_paused = true)]
async fn no_rule_sees_a_token_with_an_unknown_key() {
    let calls = Arc::<AtomicUsize>::default();
    let published = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder_with(&published, &clock(), |issuer| {
        issuer.require(counted(&calls))
    });
    let server = server.start().await.unwrap();
    for number in 0..20 {
        let token = with_claims(&format!("unknown-{number}"), rsa(1), &claims());
        assert_eq!(send(&server, &token).await, Err(RejectionKind::UnknownKey));
    }
    assert!(published.fetches() <= 1 + 2, "{}", published.fetches());
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[test]
fn a_panicking_predicate_leaves_nothing_behind() {
    let panics = Arc::new(AtomicBool::new(true));
    let fixture = Fixture::with(|issuer| {
        let panics = Arc::clone(&panics);
        issuer.require(move |_| {
            assert!(!panics.load(Ordering::SeqCst), "the predicate panics");
            true
        })
    });
    let token = fixture.token(&claims());
    for _ in 0..REQUESTS {
        let validate = || poll_once_or_panic(fixture.server.validate(&token)).map(drop);
        assert!(catch_unwind(AssertUnwindSafe(validate)).is_err());
    }
    assert_eq!(fixture.server.cached_token_count(), 0);
    panics.store(false, Ordering::SeqCst);
    assert_accepts(&fixture, json!({}));
}

/// A permit of the verification limit is given back after a panic.
#[test]
fn a_panicking_predicate_keeps_no_permit() {
    let panics = Arc::new(AtomicBool::new(true));
    let predicate = Arc::clone(&panics);
    let limited = issuer().require(move |_| {
        assert!(!predicate.load(Ordering::SeqCst), "the predicate panics");
        true
    });
    let fixture = Fixture::with_server(move |keys| {
        ResourceServer::from_issuer(limited.clone().keys(keys)).max_concurrent_verifications(1)
    });
    let token = fixture.token(&claims());
    let validate = || poll_once_or_panic(fixture.server.validate(&token)).map(drop);
    assert!(catch_unwind(AssertUnwindSafe(validate)).is_err());
    panics.store(false, Ordering::SeqCst);
    fixture.assert_accepts(&token);
}

/// A server that trusts two issuers with the same keys.
fn two(first: TrustedIssuer, second: TrustedIssuer) -> Fixture {
    Fixture::with_server(move |keys| {
        ResourceServer::from_issuer(first.clone().keys(keys.clone()))
            .add_issuer(second.clone().keys(keys))
    })
}

#[test]
fn each_issuer_has_its_own_rules() {
    let fixture = two(
        issuer()
            .allowed_clients(["shop"])
            .require_claim("env", ["production"]),
        other()
            .client_id_from(|token| token.subject().map(str::to_owned))
            .require_scopes(["orders.read"])
            .require(|token| token.client_id() == Some("app")),
    );
    let ours = json!({ "client_id": "shop", "env": "production", "sub": "x", "scope": null });
    assert_accepts(&fixture, ours);
    assert_rejects(&fixture, json!({ "env": "production" }), UntrustedClient);
    let context = assert_accepts(&fixture, json!({ "iss": OTHER }));
    assert_eq!(context.client_id(), Some("app"));
    let changes = json!({ "iss": OTHER, "client_id": "shop", "env": "production", "sub": "x" });
    assert_rejects(&fixture, changes, InvalidClaims);
}

#[test]
fn an_issuer_grants_any_scope_and_role_unless_its_rules_bound_them() {
    let more = json!({ "iss": OTHER, "scope": "orders.read orders.delete", "roles": ["admin"] });

    let fixture = two(issuer(), other());
    let context = assert_accepts(&fixture, more.clone());
    assert!(context.has_scope("orders.delete") && context.has_role("admin"));
    assert_eq!(context.issuer(), OTHER);

    let bounded = other().require(|token| {
        token.scopes().all(|scope| scope == "orders.read") && token.roles().next().is_none()
    });
    let fixture = two(issuer(), bounded);
    let with_role = json!({ "iss": OTHER, "scope": "orders.read", "roles": ["admin"] });
    for granted in [more.clone(), with_role] {
        assert_rejects(&fixture, granted, InvalidClaims);
    }
    assert_accepts(&fixture, json!({ "iss": OTHER, "scope": "orders.read" }));
    // The rules of one issuer are not those of the other.
    let mut ours = more;
    ours["iss"] = ISSUER.into();
    assert_accepts(&fixture, ours);
}

#[test]
fn each_issuer_has_its_own_leeway() {
    let fixture = two(issuer(), other().leeway(Duration::ZERO));
    let token = |iss: &str, exp: u64| {
        let changes = json!({ "iss": iss, "exp": exp, "iat": NOW - 100 });
        fixture.token(&claims_with(changes))
    };
    fixture.assert_accepts(&token(ISSUER, NOW - 59));
    fixture.assert_rejects(&token(ISSUER, NOW - 60), Expired);
    fixture.assert_rejects(&token(OTHER, NOW), Expired);
    let early = |iss: &str| fixture.token(&claims_with(json!({ "iss": iss, "iat": NOW + 1 })));
    fixture.assert_accepts(&early(ISSUER));
    fixture.assert_rejects(&early(OTHER), RejectionKind::NotYetValid);
    // Cached tokens expire with the leeway of their issuer.
    let (ours, theirs) = (token(ISSUER, NOW + 10), token(OTHER, NOW + 10));
    for _ in 0..REQUESTS {
        fixture.assert_accepts(&ours);
        fixture.assert_accepts(&theirs);
    }
    fixture.clock.advance(secs(9));
    fixture.assert_accepts(&theirs);
    fixture.clock.advance(secs(1));
    fixture.assert_rejects(&theirs, Expired);
    fixture.assert_accepts(&ours);
    fixture.clock.advance(secs(59));
    fixture.assert_accepts(&ours);
    fixture.clock.advance(secs(1));
    fixture.assert_rejects(&ours, Expired);
}

#[test]
fn the_leeway_of_the_server_is_the_default_of_its_issuers() {
    let (first, second) = (issuer().leeway(secs(5)), other());
    let fixture = Fixture::with_server(move |keys| {
        ResourceServer::from_issuer(first.clone().keys(keys.clone()))
            .add_issuer(second.clone().keys(keys))
            .leeway(secs(100))
    });
    let token =
        |iss: &str, exp: u64| fixture.token(&claims_with(json!({ "iss": iss, "exp": exp })));
    fixture.assert_accepts(&token(OTHER, NOW - 99));
    fixture.assert_rejects(&token(OTHER, NOW - 100), Expired);
    fixture.assert_accepts(&token(ISSUER, NOW - 4));
    fixture.assert_rejects(&token(ISSUER, NOW - 5), Expired);
}

/// A token of exactly this length, or one byte less where base64 has no such length.
fn of_len(fixture: &Fixture, iss: &str, len: usize) -> String {
    let with = |padding: usize| {
        let padding = "x".repeat(padding);
        fixture.token(&claims_with(json!({ "iss": iss, "padding": padding })))
    };
    let short = with(0).len();
    let token = (0..8)
        .map(|more| with((len - short) / 4 * 3 + more))
        .take_while(|token| token.len() <= len)
        .last()
        .unwrap();
    assert!(len - token.len() <= 1, "{} {len}", token.len());
    token
}

#[test]
fn each_issuer_has_its_own_limit_on_the_length_of_a_token() {
    let (kib2, kib16, kib64) = (2 << 10, 16 << 10, 64 << 10);
    let fixture = two(issuer().max_token_len(kib2), other());
    fixture.assert_accepts(&of_len(&fixture, ISSUER, kib2));
    fixture.assert_rejects(&of_len(&fixture, ISSUER, kib2 + 2), TokenTooLong);
    fixture.assert_accepts(&of_len(&fixture, OTHER, kib16));
    fixture.assert_rejects(&of_len(&fixture, OTHER, kib16 + 2), TokenTooLong);
    // A token is expired or too long only for the issuer that it names.
    fixture.assert_rejects(
        &of_len(&fixture, "https://x.example", kib16),
        UntrustedIssuer,
    );
    // One issuer's higher limit is no other's.
    let fixture = two(issuer(), other().max_token_len(kib64));
    fixture.assert_accepts(&of_len(&fixture, OTHER, kib64));
    fixture.assert_rejects(&of_len(&fixture, OTHER, kib64 + 2), TokenTooLong);
    fixture.assert_accepts(&of_len(&fixture, ISSUER, kib16));
    fixture.assert_rejects(&of_len(&fixture, ISSUER, kib16 + 2), TokenTooLong);
    fixture.assert_rejects(&of_len(&fixture, ISSUER, kib64 + 2), TokenTooLong);
    // It scales the limits on the content, which are checked before the issuer is known.
    let roles = |iss: &str| {
        let members: serde_json::Map<String, Value> = (0..600)
            .map(|number| (format!("m{number}"), json!(number)))
            .collect();
        fixture.token(&claims_with(json!({ "iss": iss, "roles": members })))
    };
    fixture.assert_accepts(&roles(OTHER));
    assert!(roles(ISSUER).len() < kib16);
    fixture.assert_accepts(&roles(ISSUER));
    let default = two(issuer(), other());
    default.assert_rejects(&roles(OTHER), RejectionKind::TooManyMembers);
}

#[test]
fn the_limit_of_the_server_is_the_largest_of_its_issuers() {
    let small = two(issuer().max_token_len(1000), other().max_token_len(2000));
    // Rejected by its length alone, before it is parsed.
    small.assert_rejects(&"x".repeat(2000), RejectionKind::Malformed);
    small.assert_rejects(&"x".repeat(2001), TokenTooLong);
    let large = two(issuer(), other().max_token_len(20_000));
    large.assert_rejects(&"x".repeat(20_000), RejectionKind::Malformed);
    large.assert_rejects(&"x".repeat(20_001), TokenTooLong);
}

#[tokio::test(start_paused = true)]
async fn each_issuer_has_its_own_transport() {
    let (ours, theirs) = (
        ScriptedIssuer::new(set(&[("a", rsa(0))])),
        ScriptedIssuer::new(set(&[("a", rsa(1))])),
    );
    let keys = "https://other.example/keys";
    let server = builder_with(&ours, &clock(), |issuer| issuer).add_issuer(
        other()
            .jwks_uri(keys.parse().unwrap())
            .transport(theirs.clone()),
    );
    let server = server.start().await.unwrap();
    assert_eq!(theirs.urls(), [keys]);
    assert_eq!((ours.fetches(), ours.discoveries()), (1, 1));
    let token =
        |iss: &str, key: usize| with_claims("a", rsa(key), &claims_with(json!({ "iss": iss })));
    for _ in 0..REQUESTS {
        assert_eq!(send(&server, &token(ISSUER, 0)).await, Ok(()));
        assert_eq!(send(&server, &token(OTHER, 1)).await, Ok(()));
        assert_eq!(
            send(&server, &token(ISSUER, 1)).await,
            Err(InvalidSignature)
        );
        assert_eq!(send(&server, &token(OTHER, 0)).await, Err(InvalidSignature));
    }
    assert!(ours.urls().iter().all(|url| url.starts_with(ISSUER)));
}

/// Without issuers that need it, no default transport is created.
#[tokio::test(start_paused = true)]
async fn a_server_needs_no_transport_if_each_issuer_has_one() {
    let published = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = ResourceServer::from_issuer(issuer().transport(published.clone()))
        .clock(clock())
        .start()
        .await
        .unwrap();
    assert!(server.keys_available());
    assert_eq!(published.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_issuer_has_its_own_refresh_policy() {
    let published = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder_with(&published, &clock, |issuer| issuer)
        .add_issuer(
            other()
                .jwks_uri("https://other.example/keys".parse().unwrap())
                .refresh(RefreshPolicy::new().max_stale(secs(3600))),
        )
        .start()
        .await
        .unwrap();
    let changes = |iss: &str| json!({ "iss": iss, "exp": NOW + 86_400 });
    let token = |iss: &str| with_claims("a", rsa(0), &claims_with(changes(iss)));
    for _ in 0..REQUESTS {
        assert_eq!(send(&server, &token(ISSUER)).await, Ok(()));
        assert_eq!(send(&server, &token(OTHER)).await, Ok(()));
    }
    published.set_reply(IssuerReply::Unreachable);
    for _ in 0..8 {
        advance(&clock, secs(15 * 60)).await;
    }
    assert_eq!(send(&server, &token(ISSUER)).await, Ok(()));
    assert_eq!(send(&server, &token(OTHER)).await, Err(KeysUnavailable));
}

#[test]
fn closures_and_their_state_are_not_printed() {
    let secret = "not-for-logs".to_owned();
    let issuer = issuer()
        .allowed_clients(["shop"])
        .require(move |token| token.subject() != Some(&secret));
    let printed = format!("{issuer:?}");
    assert!(
        printed.contains("shop") && !printed.contains("not-for-logs"),
        "{printed}"
    );
}

fn tenant(id: &str) -> Binding {
    let url = format!("https://eu-de.appid.cloud.ibm.com/oauth/v4/{id}");
    Binding::from_json(&json!({ "clientId": AUDIENCE, "oauthServerUrl": url }).to_string()).unwrap()
}

#[test]
fn a_required_number_that_is_compared_as_a_double_is_a_configuration_error() {
    // 2^64 and 2^64 + 1 are the same double.
    let values = [
        "18446744073709551616",
        "1.5",
        r#"[1, {"a": -9223372036854775809}]"#,
    ];
    for value in values {
        let value: Value = serde_json::from_str(value).unwrap();
        let issuer = TrustedIssuer::new(
            Issuer::new(ISSUER).unwrap(),
            Audience::new(AUDIENCE).unwrap(),
        );
        let issuer = issuer.require_claim("account", [value]);
        let error = ResourceServer::from_issuer(issuer).build().unwrap_err();
        assert_eq!(error.setting(), "require_claim");
    }
    let largest = u64::MAX;
    let fixture = Fixture::with(|issuer| issuer.require_claim("account", [largest]));
    assert_accepts(&fixture, json!({ "account": largest }));
    assert_rejects(&fixture, json!({ "account": largest - 1 }), InvalidClaims);
    assert_rejects(
        &fixture,
        json!({ "account": 18446744073709551616_f64 }),
        InvalidClaims,
    );
}

#[test]
fn a_bound_token_that_lacks_a_scope_is_rejected_as_bound() {
    let fixture = Fixture::with(|issuer| issuer.require_scopes(["orders.write"]));
    let bound = json!({ "cnf": { "jkt": "a" } });
    assert_rejects(&fixture, bound, RejectionKind::MissingProofOfPossession);
}

#[test]
fn a_key_that_is_revoked_under_a_shared_alias_is_revoked_for_each_issuer() {
    let alias = Issuer::new("as.example").unwrap();
    let trust = |name: &str, which: usize| {
        let document = json!({ "keys": [rsa(which).jwk("rsa")] }).to_string();
        let keys = KeySet::from_json(document.as_bytes()).unwrap();
        let issuer = Issuer::new(name).unwrap();
        let trusted = TrustedIssuer::new(issuer, Audience::new(AUDIENCE).unwrap());
        trusted.add_alias(alias.clone()).keys(keys)
    };
    let fixture = Fixture::with_server(|_| {
        ResourceServer::from_issuer(trust(ISSUER, 0)).add_issuer(trust(OTHER, 1))
    });
    let header = r#"{"alg":"RS256","typ":"JWT","kid":"rsa"}"#;
    let token = |name: &str, which: usize| {
        let claims = claims_with(json!({ "iss": name })).to_string();
        compact(rsa(which), "RS256", header, claims.as_bytes())
    };
    let tokens = [token(ISSUER, 0), token(OTHER, 1)];
    for token in &tokens {
        fixture.assert_accepts(token);
    }
    assert!(fixture.server.revoke_key(&alias, "rsa"));
    for token in &tokens {
        fixture.assert_rejects(token, RejectionKind::RevokedKey);
    }
    let unknown = Issuer::new("other.example").unwrap();
    assert!(!fixture.server.revoke_key(&unknown, "rsa"));
}

/// Both tenants are in one region, and so share the issuer of version 3 tokens.
#[test]
fn a_second_app_id_tenant_is_as_strict_as_the_first() {
    let trust = |id: &str| tenant(id).trusted_issuer(Audience::new(AUDIENCE).unwrap());
    let keys = |which: usize| {
        let document = json!({ "keys": [rsa(which).jwk("rsa")] }).to_string();
        KeySet::from_json(document.as_bytes()).unwrap()
    };
    let fixture = Fixture::with_server(|_| {
        ResourceServer::from_issuer(trust("tenant-a").keys(keys(0)))
            .add_issuer(trust("tenant-b").keys(keys(1)))
    });
    let header = r#"{"alg":"RS256","typ":"JWT","kid":"rsa"}"#;
    let (a, b) = (tenant("tenant-a"), tenant("tenant-b"));
    for (own, which, another) in [(&a, 0, &b), (&b, 1, &a)] {
        let (issuer, id) = (own.issuer().as_str(), own.tenant_id());
        let token = |changes: Value| {
            let mut claims = claims_with(json!({
                "iss": issuer,
                "tenant": id,
                "amr": ["appid_client_credentials"],
            }));
            for (name, value) in changes.as_object().unwrap() {
                claims[name] = value.clone();
            }
            claims
        };
        let signed =
            |claims: &Value| compact(rsa(which), "RS256", header, claims.to_string().as_bytes());
        for _ in 0..REQUESTS {
            let context = fixture.assert_accepts(&signed(&token(json!({}))));
            assert_eq!(context.client_id(), Some("app"));
        }
        let mut by_issuer = token(json!({}));
        by_issuer.as_object_mut().unwrap().remove("tenant");
        fixture.assert_accepts(&signed(&by_issuer));
        let context = fixture.assert_accepts(&signed(&token(json!({ "amr": ["google"] }))));
        assert_eq!(context.client_id(), None);
        for (changes, kind) in [
            (json!({ "tenant": another.tenant_id() }), InvalidClaims),
            (json!({ "tenant": null }), InvalidClaims),
            (json!({ "tenant": [id] }), InvalidClaims),
            (json!({ "scope": ["appid_default"] }), InvalidClaims),
            (json!({ "aud": ["other"] }), InvalidAudience),
            (json!({ "iss": another.issuer() }), InvalidSignature),
        ] {
            fixture.assert_rejects(&signed(&token(changes)), kind);
        }
        let mut identity = token(json!({}));
        identity.as_object_mut().unwrap().remove("scope");
        fixture.assert_rejects(&signed(&identity), InvalidClaims);
        let v3 = signed(&token(json!({ "iss": own.v3_issuer() })));
        match which {
            0 => drop(fixture.assert_accepts(&v3)),
            _ => fixture.assert_rejects(&v3, InvalidSignature),
        }
        let mut v3_without_tenant = token(json!({ "iss": own.v3_issuer() }));
        v3_without_tenant.as_object_mut().unwrap().remove("tenant");
        let kind = [InvalidClaims, InvalidSignature][which];
        fixture.assert_rejects(&signed(&v3_without_tenant), kind);
    }
}
