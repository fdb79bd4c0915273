//! Claims of each JSON type: what spoils a token, and what does not.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tower_oauth::AuthContext;
use tower_oauth::resource_server::RejectionKind::{
    self, Expired, InvalidAudience, InvalidClaims, MissingProofOfPossession, UnexpectedTokenType,
    UntrustedClient, UntrustedIssuer,
};
use tower_oauth::resource_server::TokenProfile;

use crate::support::{
    AUDIENCE, Fixture, ISSUER, NOW, claims_and, claims_with, compact, poll_once_or_panic,
};

/// A value of each JSON type.
fn every_type() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-7),
        json!(1.5),
        json!(""),
        json!("x"),
        json!([]),
        json!(["x"]),
        json!(["x", 7]),
        json!([null]),
        json!([{ "x": [] }]),
        json!({}),
        json!({ "x": "y" }),
        json!({ "https://schemas.example/event": {} }),
    ]
}

fn validate(fixture: &Fixture, claims: &Value) -> Result<AuthContext, RejectionKind> {
    poll_once_or_panic(fixture.validate(&fixture.token(claims)))
}

/// The result for a generic issuer's token with this value in this claim.
fn expected(claim: &str, value: &Value) -> Result<(), RejectionKind> {
    let is_strings = |value: &Value| match value {
        Value::Array(list) => list.iter().all(Value::is_string),
        value => value.is_string(),
    };
    match claim {
        "iss" if value.is_string() => Err(UntrustedIssuer),
        "aud" if is_strings(value) => Err(InvalidAudience),
        "exp" if value.as_f64().is_some_and(|date| date >= 0.0) => Err(Expired),
        "iss" | "aud" | "exp" => Err(InvalidClaims),
        "nbf" | "iat" if value.as_f64().is_some_and(|date| date >= 0.0) => Ok(()),
        "nbf" | "iat" => Err(InvalidClaims),
        "cnf" => Err(MissingProofOfPossession),
        // Registered and optional.
        "sub" | "jti" | "client_id" | "azp" if value.is_string() || value.is_null() => Ok(()),
        "scope" if is_strings(value) || value.is_null() => Ok(()),
        "sub" | "jti" | "client_id" | "azp" | "scope" => Err(InvalidClaims),
        // Of ID tokens, logout tokens and security event tokens.
        "at_hash" | "c_hash" if !value.is_null() => Err(UnexpectedTokenType),
        "events" if value.is_object() => Err(UnexpectedTokenType),
        _ => Ok(()),
    }
}

/// All claims that the crate reads anywhere, and others that issuers use.
const CLAIMS: &[&str] = &[
    // Registered: RFC 7519, 7800, 8417, 8693, 9068, OpenID Connect.
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "cnf",
    "client_id",
    "azp",
    "scope",
    "act",
    "may_act",
    "events",
    "toe",
    "txn",
    "sub_id",
    "nonce",
    "sid",
    "acr",
    "amr",
    "auth_time",
    "at_hash",
    "c_hash",
    "roles",
    "groups",
    "entitlements",
    "authorization_details",
    "vot",
    // App ID
    "tenant",
    "ver",
    "identities",
    // Keycloak
    "typ",
    "realm_access",
    "resource_access",
    "allowed-origins",
    "session_state",
    "trusted-certs",
    // Entra
    "appid",
    "appidacr",
    "azpacr",
    "idtyp",
    "oid",
    "tid",
    "scp",
    "uti",
    "wids",
    "xms_cc",
    // Auth0, Okta, Cognito, GitHub, Kubernetes
    "gty",
    "permissions",
    "org_id",
    "cid",
    "uid",
    "token_use",
    "username",
    "repository",
    "kubernetes.io",
    "https://example.com/claims",
];

#[test]
fn each_claim_of_each_type_is_accepted_or_rejected_as_listed() {
    let fixture = Fixture::new();
    for claim in CLAIMS {
        for value in every_type() {
            // The dates are before the expiry.
            let claims = claims_and(&json!({ "exp": NOW + 60, *claim: value }));
            let result = validate(&fixture, &claims).map(|_| ());
            assert_eq!(result, expected(claim, &value), "{claim}: {value}");
        }
    }
}

#[test]
fn logout_and_security_event_tokens_are_rejected_and_other_events_are_not() {
    let fixture = Fixture::new();
    let logout = "http://schemas.openid.net/event/backchannel-logout";
    let event = "https://schemas.openid.net/secevent/risc/event-type/account-disabled";
    for events in [
        json!({ logout: {} }),
        json!({ event: { "subject": { "sub": "app" } } }),
        json!({ logout: null, event: 7 }),
        json!({}),
    ] {
        for other in [
            json!({}),
            json!({ "sid": "x" }),
            json!({ "jti": "1", "toe": NOW }),
        ] {
            let mut claims = claims_and(&other);
            claims["events"] = events.clone();
            let result = validate(&fixture, &claims).map(|_| ());
            assert_eq!(result, Err(UnexpectedTokenType), "{claims}");
        }
    }
    for typ in [
        "logout+jwt",
        "application/logout+jwt",
        "secevent+jwt",
        "Application/SecEvent+JWT",
    ] {
        let header = json!({ "alg": "RS256", "kid": "rsa", "typ": typ }).to_string();
        fixture.assert_rejects(&fixture.with_header(&header), UnexpectedTokenType);
    }
    for events in [
        json!(["login"]),
        json!("login"),
        json!(3),
        json!(true),
        json!(null),
    ] {
        let context = validate(&fixture, &claims_and(&json!({ "events": events }))).unwrap();
        assert_eq!(context.claim::<Value>("events").unwrap(), Some(events));
    }
}

#[test]
fn scp_of_another_type_grants_no_scope() {
    let fixture = Fixture::new();
    let scopes = |claims: Value| {
        let context = validate(&fixture, &claims).unwrap();
        context.scopes().map(str::to_owned).collect::<Vec<_>>()
    };
    for value in every_type() {
        let expected: Vec<&str> = match &value {
            Value::String(scope) => scope.split(' ').filter(|one| !one.is_empty()).collect(),
            Value::Array(list) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(Value::as_str).collect()
            }
            _ => Vec::new(),
        };
        let alone = claims_with(json!({ "scope": null, "scp": value }));
        assert_eq!(scopes(alone), expected, "{value}");
        // `scope` comes first, and counts as absent if it is `null`.
        let both = claims_and(&json!({ "scope": "a b", "scp": value }));
        assert_eq!(scopes(both), ["a", "b"], "{value}");
        let null = claims_and(&json!({ "scope": null, "scp": value }));
        assert_eq!(scopes(null), expected, "{value}");
    }
}

/// What a handler can see of the registered claims.
fn seen(context: &AuthContext) -> Value {
    json!({
        "sub": context.subject(),
        "client": context.client_id(),
        "scopes": context.scopes().collect::<Vec<_>>(),
        "roles": context.roles().collect::<Vec<_>>(),
        "aud": context.audience().collect::<Vec<_>>(),
        "exp": context.expires_at().as_secs(),
    })
}

#[test]
fn an_optional_claim_that_is_null_counts_as_absent() {
    let fixture = Fixture::new();
    for claim in CLAIMS {
        let mut without = claims_and(&json!({ "azp": "web", "cid": "okta", "scp": "b" }));
        without.as_object_mut().unwrap().remove(*claim);
        let mut null = without.clone();
        null[*claim] = Value::Null;
        let result = validate(&fixture, &null);
        match *claim {
            "iss" | "aud" | "exp" | "nbf" | "iat" => assert_eq!(result.unwrap_err(), InvalidClaims),
            "cnf" => assert_eq!(result.unwrap_err(), MissingProofOfPossession),
            _ => {
                let context = result.unwrap();
                assert_eq!(seen(&context), seen(&validate(&fixture, &without).unwrap()));
                assert_eq!(context.claim::<String>(claim).unwrap(), None, "{claim}");
                assert_eq!(context.claim::<u64>(claim).unwrap(), None, "{claim}");
                assert_eq!(
                    context.claim::<Option<u64>>(claim).unwrap(),
                    Some(None),
                    "{claim}"
                );
            }
        }
    }
}

#[test]
fn null_meets_no_requirement() {
    let full = json!({ "client_id": "shop", "jti": "1", "plan": "pro", "scope": "a" });
    let header = r#"{"alg":"RS256","kid":"rsa","typ":"at+jwt"}"#;
    let profile = Fixture::with(|issuer| issuer.profile(TokenProfile::Rfc9068));
    let signed = |claims: &Value| {
        let payload = claims.to_string();
        compact(profile.rsa, "RS256", header, payload.as_bytes())
    };
    profile.assert_accepts(&signed(&claims_and(&full)));
    for claim in ["sub", "client_id", "iat", "jti"] {
        let mut claims = claims_and(&full);
        claims[claim] = Value::Null;
        profile.assert_rejects(&signed(&claims), InvalidClaims);
    }

    let required = Fixture::with(|issuer| issuer.require_claim("plan", ["pro", "null"]));
    let scope = Fixture::with(|issuer| issuer.require_scopes(["a"]));
    let short = Fixture::with(|issuer| issuer.max_lifetime(std::time::Duration::from_secs(7200)));
    let clients = Fixture::with(|issuer| issuer.allowed_clients(["shop", "null"]));
    for (fixture, claim, kind) in [
        (&required, "plan", InvalidClaims),
        (&clients, "client_id", UntrustedClient),
        (&short, "iat", InvalidClaims),
    ] {
        validate(fixture, &claims_and(&full)).unwrap();
        let mut claims = claims_and(&full);
        claims[claim] = Value::Null;
        assert_eq!(validate(fixture, &claims).unwrap_err(), kind, "{claim}");
    }
    validate(&scope, &claims_and(&full)).unwrap();
    let request = crate::support::bearer(
        &scope.token(&claims_and(&json!({ "scope": null }))),
        Default::default(),
    );
    assert_eq!(poll_once_or_panic(scope.send(request)).status(), 403);
}

#[test]
fn a_client_claim_that_is_null_leaves_the_next_one_to_name_the_client() {
    let fixture = Fixture::with(|issuer| issuer.allowed_clients(["shop"]));
    for (claims, expected) in [
        (json!({ "client_id": null, "azp": "shop" }), Ok(())),
        (
            json!({ "client_id": null, "azp": null, "appid": null, "cid": "shop" }),
            Ok(()),
        ),
        (json!({ "client_id": "shop", "azp": null }), Ok(())),
        (json!({ "client_id": null }), Err(UntrustedClient)),
        (
            json!({ "client_id": null, "azp": "other", "cid": "shop" }),
            Err(UntrustedClient),
        ),
        (
            json!({ "client_id": null, "appid": 7, "cid": "shop" }),
            Err(InvalidClaims),
        ),
        (
            json!({ "client_id": null, "appid": [], "cid": "shop" }),
            Err(InvalidClaims),
        ),
    ] {
        let result = validate(&fixture, &claims_and(&claims)).map(|_| ());
        assert_eq!(result, expected, "{claims}");
    }
}

/// Any JSON, in the limits of a token.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(".{0,8}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Names to which the crate gives a meaning for every issuer.
fn has_a_meaning(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "client_id",
        "azp",
        "scope",
        "cnf",
        "at_hash",
        "c_hash",
        "events",
    ];
    NAMES.contains(&name)
}

fn free_name() -> impl Strategy<Value = String> {
    let known = CLAIMS.iter().copied().filter(|name| !has_a_meaning(name));
    let known = prop::sample::select(known.map(str::to_owned).collect::<Vec<_>>());
    prop_oneof![3 => known, 1 => ".{0,20}"].prop_filter("no meaning", |name| !has_a_meaning(name))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_claim_without_a_meaning_never_spoils_a_token(
        members in prop::collection::hash_map(free_name(), any_json(), 1..6),
    ) {
        thread_local!(static FIXTURE: Fixture = Fixture::new());
        FIXTURE.with(|fixture| {
            let members = Value::Object(members.into_iter().collect());
            // Keycloak and Cognito name other tokens by these words.
            let words = ["ID", "Refresh", "Offline", "Logout", "id"];
            prop_assume!(!words.iter().any(|word| members["typ"] == *word));
            prop_assume!(members["token_use"] != "id");
            let context = validate(fixture, &claims_and(&members));
            prop_assert!(context.is_ok(), "{members}");
            let context = context.unwrap();
            prop_assert_eq!(context.subject(), Some("app"));
            prop_assert_eq!(context.issuer().as_str(), ISSUER);
            prop_assert_eq!(context.audience().collect::<Vec<_>>(), [AUDIENCE]);
            prop_assert_eq!(context.scopes().collect::<Vec<_>>(), ["orders.read"]);
            let strings = |name: &str| members[name].as_str();
            prop_assert_eq!(context.client_id(), strings("appid").or_else(|| strings("cid")));
            Ok(())
        })?;
    }

    #[test]
    fn only_a_string_that_is_listed_passes_an_allow_list(
        members in prop::collection::hash_map(
            prop::sample::select(vec!["client_id", "azp", "appid", "cid"]),
            prop_oneof![
                3 => Just(json!("shop")),
                2 => Just(Value::Null),
                1 => Just(json!("other")),
                1 => any_json(),
            ],
            0..4,
        ),
    ) {
        thread_local!(static FIXTURE: Fixture =
            Fixture::with(|issuer| issuer.allowed_clients(["shop"])));
        FIXTURE.with(|fixture| {
            let members: Value = members.into_iter().collect();
            let names = ["client_id", "azp", "appid", "cid"];
            let mut claims = names.iter().map(|name| &members[*name]);
            let all = claims.clone().all(|claim| claim.is_string() || claim.is_null());
            let first = claims.find(|claim| !claim.is_null());
            let passes = all && first.is_some_and(|claim| claim == "shop");
            let result = validate(fixture, &claims_and(&members));
            prop_assert_eq!(result.is_ok(), passes, "{}", members);
            Ok(())
        })?;
    }
}
