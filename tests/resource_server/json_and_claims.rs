//! JSON parsing and claims validation: one test for each attack.

use std::time::Duration;

use serde_json::{Value, json};
use tower_oauth::app_id::Binding;
use tower_oauth::clock::UnixTime;
use tower_oauth::resource_server::RejectionKind::{
    Expired, InvalidAudience, InvalidClaims, Malformed, NotYetValid, TokenTooLong, TooManyMembers,
    UnexpectedTokenType, UnsupportedAlgorithm, UntrustedIssuer,
};
use tower_oauth::resource_server::ResourceServerSettings;
use tower_oauth::{Audience, ResourceServer, TrustedIssuer};

use crate::support::{self, AUDIENCE, Fixture, ISSUER, NOW, claims, claims_with, compact};

#[test]
fn duplicate_members_are_rejected() {
    let fixture = Fixture::new();
    let good = claims().to_string();
    for extra in [
        format!(r#"{{"iss":"{ISSUER}","#),
        r#"{"exp":9999999999,"#.to_owned(),
        r#"{"e\u0078p":9999999999,"#.to_owned(),
        r#"{"sub":"admin","#.to_owned(),
        r#"{"own":1,"own":1,"#.to_owned(),
        r#"{"own":1,"\u006fwn":2,"#.to_owned(),
        r#"{"realm_access":{"roles":["a"],"roles":["admin"]},"#.to_owned(),
        r#"{"own":[[{"a":1,"\u0061":2}]],"#.to_owned(),
        // The key that serde_json uses to pass raw values.
        r#"{"own":{"$serde_json::private::RawValue":"[1]"},"#.to_owned(),
    ] {
        let payload = good.replacen('{', &extra, 1);
        fixture.assert_rejects(&fixture.with_payload(payload.as_bytes()), InvalidClaims);
    }
    fixture.assert_rejects(
        &fixture.with_header(r#"{"alg":"RS256","kid":"rsa","kid":"rsa"}"#),
        Malformed,
    );
    fixture.assert_rejects(
        &fixture.with_header(r#"{"alg":"RS256","kid":"rsa","jwk":{"kty":1,"kty":2}}"#),
        Malformed,
    );
}

#[test]
fn a_duplicate_is_found_among_few_and_among_many_members() {
    let fixture = Fixture::new();
    for count in [1, 7, 8, 9, 16, 17, 100] {
        let member = |index: usize| format!(r#""m{index}":0"#);
        let members: Vec<String> = (0..count).map(member).collect();
        let with = |members: &[String]| {
            let object = format!("{{{}}}", members.join(","));
            [
                claims()
                    .to_string()
                    .replacen('{', &format!("{{{},", members.join(",")), 1),
                claims()
                    .to_string()
                    .replacen('{', &format!(r#"{{"own":{object},"#), 1),
            ]
            .map(|payload| fixture.with_payload(payload.as_bytes()))
        };
        for token in with(&members) {
            fixture.assert_accepts(&token);
        }
        for repeated in [0, count / 2, count - 1] {
            let members = [members.clone(), vec![member(repeated)]].concat();
            for token in with(&members) {
                fixture.assert_rejects(&token, InvalidClaims);
            }
        }
    }
}

#[test]
fn payloads_other_than_json_objects_are_rejected() {
    let fixture = Fixture::new();
    let good = claims().to_string();
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // Another JSON value than an object.
    let others = ["[]", "[7]", "\"text\"", "7", "1e3", "true", "false", "null"];
    for payload in others
        .map(str::to_owned)
        .into_iter()
        .chain([format!("[{good}]")])
    {
        fixture.assert_rejects(&fixture.with_payload(payload.as_bytes()), InvalidClaims);
    }
    let malformed: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"{".to_vec(),
        format!("{good}x").into_bytes(),
        format!("{good}{good}").into_bytes(),
        format!("\u{feff}{good}").into_bytes(),
        [&[0xff, 0xfe][..], &utf16].concat(),
        utf16,
        good.replacen('{', r#"{"x":"\ud800","#, 1).into_bytes(),
        good.replacen('{', r#"{"\udc00":1,"#, 1).into_bytes(),
        good.replacen("app", "\u{1}", 1).into_bytes(),
        [good.trim_end_matches('}').as_bytes(), b",\"x\":\"\xff\"}"].concat(),
        good.replace('"', "'").into_bytes(),
        good.replacen('{', "{/**/", 1).into_bytes(),
        good.replacen('}', ",}", 1).into_bytes(),
    ];
    for payload in malformed {
        fixture.assert_rejects(&fixture.with_payload(&payload), Malformed);
    }
    fixture.assert_accepts(&fixture.with_payload(format!(" \n{good}\t").as_bytes()));
}

/// CVE-2026-25537 (jsonwebtoken: dates of the wrong type taken for absent), CVE-2019-17195
#[test]
fn dates_are_validated_with_leeway() {
    let fixture = Fixture::new();
    let with = |member: &str, value: &str| {
        let rest = claims_with(json!({ member: null })).to_string();
        fixture.with_payload(
            rest.replacen('{', &format!(r#"{{"{member}":{value},"#), 1)
                .as_bytes(),
        )
    };
    for member in ["exp", "nbf", "iat"] {
        for value in [
            r#""1700003600""#,
            "null",
            "true",
            "[1700003600]",
            "{}",
            "-1",
            "-0.5",
            "9007199254740992",
            "18446744073709551616",
        ] {
            fixture.assert_rejects(&with(member, value), InvalidClaims);
        }
        for value in ["1e400", "NaN", "Infinity", "0x10", "1_0", "+1", "01"] {
            fixture.assert_rejects(&with(member, value), Malformed);
        }
    }
    fixture.assert_accepts(&with("exp", "1700003600.75"));
    fixture.assert_accepts(&with("exp", "1.7000036e9"));
    fixture.assert_rejects(
        &fixture.token(&claims_with(json!({ "exp": null }))),
        InvalidClaims,
    );
    // The edges: 60 s of leeway, "on or after" is expired (RFC 7519 §4.1.4).
    fixture.assert_accepts(&fixture.token(&claims_with(json!({ "exp": NOW - 59 }))));
    fixture.assert_rejects(
        &fixture.token(&claims_with(json!({ "exp": NOW - 60 }))),
        Expired,
    );
    fixture.assert_accepts(&fixture.token(&claims_with(json!({ "nbf": NOW + 60 }))));
    fixture.assert_rejects(
        &fixture.token(&claims_with(json!({ "nbf": NOW + 61 }))),
        NotYetValid,
    );
    // A valid token expires with the clock.
    let token = fixture.token(&claims());
    fixture.assert_accepts(&token);
    fixture.clock.advance(Duration::from_secs(3659));
    fixture.assert_accepts(&token);
    fixture.clock.advance(Duration::from_secs(1));
    fixture.assert_rejects(&token, Expired);
    fixture.clock.set(UnixTime::from_secs(NOW));
    fixture.assert_accepts(&token);
}

/// CVE-2025-30144 (fast-jwt: `iss` array accepted)
#[test]
fn the_issuer_is_compared_byte_for_byte() {
    let fixture = Fixture::new();
    for iss in [
        "https://as.example/",
        "https://AS.example",
        "HTTPS://as.example",
        "https://as.exampl",
        "https://as.example.evil.example",
        "https://as.example/x",
        "https://as%2eexample",
        "https://аs.example",
        " https://as.example",
        "",
    ] {
        fixture.assert_rejects(
            &fixture.token(&claims_with(json!({ "iss": iss }))),
            UntrustedIssuer,
        );
    }
    for iss in [
        json!([ISSUER]),
        json!([ISSUER, "other"]),
        json!(7),
        json!({}),
    ] {
        fixture.assert_rejects(
            &fixture.token(&claims_with(json!({ "iss": iss }))),
            InvalidClaims,
        );
    }
    fixture.assert_rejects(
        &fixture.token(&claims_with(json!({ "iss": null }))),
        InvalidClaims,
    );
}

/// CVE-2020-26160 (jwt-go: empty `aud`), CVE-2024-5798 (Vault)
#[test]
fn the_audience_must_be_listed_exactly() {
    let fixture = Fixture::new();
    fixture.assert_accepts(&fixture.token(&claims_with(json!({ "aud": AUDIENCE }))));
    fixture.assert_accepts(&fixture.token(&claims_with(json!({ "aud": ["other", AUDIENCE] }))));
    for aud in [
        json!([]),
        json!([""]),
        json!(""),
        json!("order"),
        json!("orders2"),
        json!("ORDERS"),
        json!("orders "),
        json!("orders other"),
        json!(["other"]),
    ] {
        fixture.assert_rejects(
            &fixture.token(&claims_with(json!({ "aud": aud }))),
            InvalidAudience,
        );
    }
    for aud in [
        json!(7),
        json!({ "orders": true }),
        json!([AUDIENCE, 7]),
        json!([[AUDIENCE]]),
        json!(true),
    ] {
        fixture.assert_rejects(
            &fixture.token(&claims_with(json!({ "aud": aud }))),
            InvalidClaims,
        );
    }
    fixture.assert_rejects(
        &fixture.token(&claims_with(json!({ "aud": null }))),
        InvalidClaims,
    );
    assert!(
        Audience::new("").is_err(),
        "an empty audience cannot be configured"
    );
    let two = Fixture::with(|issuer| {
        issuer.add_audience(Audience::new("https://orders.example").unwrap())
    });
    two.assert_accepts(&two.token(&claims_with(json!({ "aud": "https://orders.example" }))));
    two.assert_accepts(&two.token(&claims()));
}

#[test]
fn identities_and_scopes_are_read_from_the_right_claims() {
    let fixture = Fixture::new();
    for member in ["sub", "client_id", "azp", "jti", "scope"] {
        for value in [json!(7), json!({}), json!(true)] {
            fixture.assert_rejects(
                &fixture.token(&claims_with(json!({ member: value }))),
                InvalidClaims,
            );
        }
    }
    fixture.assert_rejects(
        &fixture.token(&claims_with(json!({ "scope": ["a", 7] }))),
        InvalidClaims,
    );
    let scopes = |changes| -> Vec<String> {
        fixture
            .assert_accepts(&fixture.token(&claims_with(changes)))
            .scopes()
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(scopes(json!({ "scope": "read write" })), ["read", "write"]);
    assert_eq!(
        scopes(json!({ "scope": ["read", "write"] })),
        ["read", "write"]
    );
    assert_eq!(
        scopes(json!({ "scope": null, "scp": "read write" })),
        ["read", "write"]
    );
    assert_eq!(scopes(json!({ "scope": null, "scp": ["read"] })), ["read"]);
    assert_eq!(scopes(json!({ "scope": "" })), Vec::<String>::new());
    assert_eq!(
        scopes(json!({ "scope": " read  write " })),
        ["read", "write"]
    );
    let context = fixture
        .assert_accepts(&fixture.token(&claims_with(json!({ "scope": "read:all\treader READ" }))));
    assert!(
        !context.has_scope("read") && !context.has_scope("reader") && context.has_scope("READ")
    );
    // `sub` is the client only where App ID is configured.
    assert_eq!(context.client_id(), None);
    let named = fixture.assert_accepts(&fixture.token(&claims_with(json!({ "azp": "web" }))));
    assert_eq!(
        (named.subject(), named.client_id()),
        (Some("app"), Some("web"))
    );
}

#[test]
fn the_client_is_the_first_of_client_id_azp_appid_and_cid() {
    let fixture = Fixture::new();
    let client = |changes: &Value| {
        let context = fixture.assert_accepts(&fixture.token(&claims_with(changes.clone())));
        context.client_id().map(str::to_owned)
    };
    let mut all = json!({ "cid": "okta", "appid": "entra", "azp": "web", "client_id": "job" });
    for (name, expected) in [
        ("client_id", "job"),
        ("azp", "web"),
        ("appid", "entra"),
        ("cid", "okta"),
    ] {
        assert_eq!(client(&all).as_deref(), Some(expected));
        all.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(client(&all), None);
    // Private claims of some issuers: another type is no client, and no reason to reject.
    for other in [json!(7), json!(["a"]), json!({ "a": 1 }), json!(true)] {
        assert_eq!(client(&json!({ "appid": other, "cid": other })), None);
        assert_eq!(
            client(&json!({ "appid": other, "cid": "okta" })).as_deref(),
            Some("okta")
        );
    }
}

#[test]
fn impossible_times_are_rejected() {
    let fixture = Fixture::new();
    fixture.assert_accepts(&fixture.token(&claims_with(json!({ "iat": NOW + 60 }))));
    fixture.assert_rejects(
        &fixture.token(&claims_with(json!({ "iat": NOW + 61 }))),
        NotYetValid,
    );
    fixture.assert_rejects(
        &fixture.token(&claims_with(json!({ "nbf": NOW + 30, "exp": NOW + 10 }))),
        InvalidClaims,
    );
    let short = Fixture::with(|issuer| issuer.max_lifetime(Duration::from_secs(3600)));
    short.assert_accepts(&short.token(&claims()));
    short.assert_rejects(
        &short.token(&claims_with(json!({ "exp": NOW + 3601 }))),
        InvalidClaims,
    );
    short.assert_rejects(
        &short.token(&claims_with(json!({ "iat": null }))),
        InvalidClaims,
    );
}

#[test]
fn other_claims_are_available_typed_and_as_json() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims_with(json!({
        "tenant_ids": [1, 2],
        "roles": ["auditor"],
        "realm_access": { "roles": ["admin"] },
    })));
    let context = fixture.assert_accepts(&token);
    assert_eq!(
        context.claim::<Vec<u8>>("tenant_ids").unwrap(),
        Some(vec![1, 2])
    );
    assert_eq!(context.claim::<String>("absent").unwrap(), None);
    assert!(context.claim::<String>("tenant_ids").is_err());
    assert_eq!(context.roles().collect::<Vec<_>>(), ["auditor", "admin"]);
    let all: Value = context.claims().unwrap();
    assert_eq!(all["iss"], ISSUER);
    assert_eq!(
        serde_json::from_str::<Value>(context.claims_json()).unwrap(),
        all
    );
    assert!(!format!("{context:?}").contains("tenant_ids"));
}

/// CVE-2022-31142 (fastify-bearer-auth: comparison oracle): the response to a forged token reveals
/// nothing about the expected values. No secret is compared while a request is processed:
/// signatures are verified with public keys.
#[tokio::test]
async fn the_response_to_a_forged_token_is_independent_of_its_claims() {
    let fixture = Fixture::new();
    let answer = async |token: &str| {
        let request = http::Request::builder().header("authorization", format!("Bearer {token}"));
        let response = fixture
            .send(request.body(http_body_util::Full::default()).unwrap())
            .await;
        let (head, body) = response.into_parts();
        let body = http_body_util::BodyExt::collect(body)
            .await
            .unwrap()
            .to_bytes();
        (head.status, format!("{:?}", head.headers), body)
    };
    let forge = |changes: Value| {
        let header = r#"{"alg":"RS256","kid":"rsa"}"#;
        compact(
            support::rsa(1),
            "RS256",
            header,
            claims_with(changes).to_string().as_bytes(),
        )
    };
    let expected = answer(&forge(json!({}))).await;
    assert_eq!(expected.0, 401);
    for changes in [
        json!({ "exp": 1 }),
        json!({ "aud": "other" }),
        json!({ "iss": "https://other.example" }),
        json!({ "nbf": NOW + 9999 }),
        json!({ "cnf": { "jkt": "x" } }),
        json!({ "exp": null }),
    ] {
        assert_eq!(answer(&forge(changes.clone())).await, expected, "{changes}");
    }
    for changes in [
        json!({ "aud": "other" }),
        json!({ "nbf": NOW + 9999 }),
        json!({ "cnf": {} }),
    ] {
        fixture.assert_rejects(
            &forge(changes),
            tower_oauth::resource_server::RejectionKind::InvalidSignature,
        );
    }
}

/// `tenant` has a meaning in App ID's tokens only.
#[test]
fn a_private_claim_of_another_issuer_may_be_of_any_type() {
    let fixture = Fixture::new();
    for tenant in [json!(42), json!({ "id": "x" }), json!(["x"]), json!("x")] {
        fixture.assert_accepts(&fixture.token(&claims_with(json!({ "tenant": tenant }))));
    }
}

const APP_ID: &str = "https://eu-de.appid.cloud.ibm.com/oauth/v4/39a37f57";

/// A resource server with an App ID binding whose client id is the audience.
fn app_id() -> Fixture {
    let binding = json!({ "clientId": AUDIENCE, "oauthServerUrl": APP_ID }).to_string();
    let binding = Binding::from_json(&binding).unwrap();
    let issuer = binding.trusted_issuer(Audience::new(AUDIENCE).unwrap());
    Fixture::with_server(|keys| ResourceServer::from_issuer(issuer.clone().keys(keys)))
}

/// The same, with the issuer in settings.
fn app_id_of_settings() -> Fixture {
    let binding = Binding::from_json(&json!({ "oauthServerUrl": APP_ID }).to_string()).unwrap();
    let settings: ResourceServerSettings = serde_json::from_value(json!({
        "issuers": { "main": { "issuer": binding.issuer(), "audience": AUDIENCE } },
        "max_cached_tokens": "0",
    }))
    .unwrap();
    Fixture::with_server(|keys| {
        let change = |_: &str, issuer| binding.apply_to(issuer).keys(keys.clone());
        settings.to_builder_with(change).unwrap()
    })
}

#[test]
fn the_rules_of_a_binding_hold_for_an_issuer_of_settings() {
    let (fixture, expected) = (app_id_of_settings(), app_id());
    let base = json!({
        "iss": APP_ID, "tenant": "39a37f57", "amr": ["appid_client_credentials"], "sub": "shop",
        "client_id": null,
    });
    for (changes, rejection) in [
        (json!({}), None),
        (json!({ "iss": "eu-de.appid.cloud.ibm.com" }), None),
        (json!({ "tenant": "another" }), Some(InvalidClaims)),
        (json!({ "scope": ["appid_default"] }), Some(InvalidClaims)),
        (json!({ "scope": null }), Some(InvalidClaims)),
        (json!({ "aud": ["another"] }), Some(InvalidAudience)),
        (
            json!({ "iss": "https://as.example" }),
            Some(UntrustedIssuer),
        ),
    ] {
        let mut claims = claims_with(base.clone());
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = fixture.token(&claims);
        for fixture in [&fixture, &expected] {
            match rejection {
                Some(kind) => fixture.assert_rejects(&token, kind),
                None => {
                    let client = fixture.assert_accepts(&token);
                    assert_eq!(client.client_id(), Some("shop"), "{changes}");
                }
            }
        }
    }
}

#[test]
fn an_app_id_token_without_a_string_scope_is_rejected() {
    let fixture = app_id();
    let with = |changes: Value| {
        let mut claims =
            claims_with(json!({ "iss": APP_ID, "tenant": "39a37f57", "amr": ["google"] }));
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let mut identity = with(json!({ "email": "user@example.com" }));
    identity.as_object_mut().unwrap().remove("scope");
    fixture.assert_rejects(&fixture.token(&identity), InvalidClaims);
    fixture.assert_rejects(
        &fixture.token(&with(json!({ "scope": ["appid_default"] }))),
        InvalidClaims,
    );
    fixture.assert_rejects(&fixture.token(&with(json!({ "scope": [] }))), InvalidClaims);
    // `scp` is a claim of other issuers.
    identity["scp"] = json!("appid_default");
    fixture.assert_rejects(&fixture.token(&identity), InvalidClaims);
    // `appid_default` is chosen by the user.
    for scope in ["appid_default", "reports.read", ""] {
        fixture.assert_accepts(&fixture.token(&with(json!({ "scope": scope }))));
    }
    // Tokens of other issuers need no scope.
    let fixture = Fixture::new();
    let mut without = claims();
    without.as_object_mut().unwrap().remove("scope");
    fixture.assert_accepts(&fixture.token(&without));
}

#[test]
fn the_subject_of_an_app_id_token_is_the_client_only_with_that_amr() {
    let fixture = app_id();
    let client = |amr: Value| {
        let mut claims =
            claims_with(json!({ "iss": APP_ID, "tenant": "39a37f57", "sub": "caller" }));
        if !amr.is_null() {
            claims["amr"] = amr;
        }
        fixture
            .assert_accepts(&fixture.token(&claims))
            .client_id()
            .map(str::to_owned)
    };
    assert_eq!(
        client(json!(["appid_client_credentials"])).as_deref(),
        Some("caller")
    );
    for user in [
        json!(["google"]),
        json!([]),
        json!("cloud_directory"),
        Value::Null,
    ] {
        assert_eq!(client(user.clone()), None, "{user}");
    }
}

/// Cognito: `token_use` distinguishes ID tokens from access tokens.
#[test]
fn an_id_token_is_rejected_for_every_issuer() {
    let fixture = Fixture::new();
    fixture.assert_rejects(
        &fixture.token(&claims_with(json!({ "token_use": "id" }))),
        UnexpectedTokenType,
    );
    fixture.assert_accepts(&fixture.token(&claims_with(json!({ "token_use": "access" }))));
    // Another issuer's claim may be of any type.
    fixture.assert_accepts(&fixture.token(&claims_with(json!({ "token_use": 1 }))));
}

/// serde_json passes such numbers differently when the feature `arbitrary_precision` is enabled.
/// The same tokens are accepted then.
#[test]
fn numbers_of_every_kind_in_private_claims_are_accepted_and_readable() {
    let fixture = Fixture::new();
    for number in [
        "1.5",
        "-0",
        "-1.25e-3",
        "1e5",
        "123456789012345678901234567890",
        "0.1234567890123456789",
        "7",
    ] {
        for claim in [
            format!(r#""x":{number}"#),
            format!(r#""x":[{number},[{number}]]"#),
            format!(r#""x":{{"y":{number}}}"#),
            // Claims that have a meaning for some issuers only.
            format!(r#""x":{number},"tenant":{number},"typ":{number},"token_use":{number}"#),
        ] {
            let payload = claims()
                .to_string()
                .replacen('{', &format!("{{{claim},"), 1);
            let context = fixture.assert_accepts(&fixture.with_payload(payload.as_bytes()));
            let all: Value = context.claims().unwrap();
            assert_eq!(
                context.claim::<Value>("x").unwrap().as_ref(),
                all.get("x"),
                "{claim}"
            );
        }
        let header = format!(r#"{{"alg":"RS256","kid":"rsa","x":{number},"y":[{number}]}}"#);
        fixture.assert_accepts(&fixture.with_header(&header));
    }
    let payload = claims().to_string().replacen('{', r#"{"x":1.5,"#, 1);
    let context = fixture.assert_accepts(&fixture.with_payload(payload.as_bytes()));
    assert_eq!(context.claim::<f64>("x").unwrap(), Some(1.5));
    // A value that does not parse as a double is rejected, whatever the feature.
    let payload = claims().to_string().replacen('{', r#"{"x":[1e400],"#, 1);
    fixture.assert_rejects(&fixture.with_payload(payload.as_bytes()), Malformed);
    // The key under which serde_json passes such a number is not accepted from a document.
    for member in [
        r#"{"$serde_json::private::Number":"1.5"}"#,
        r#"{"\u0024serde_json::private::Number":"1.5"}"#,
    ] {
        let payload = claims()
            .to_string()
            .replacen('{', &format!(r#"{{"x":{member},"#), 1);
        fixture.assert_rejects(&fixture.with_payload(payload.as_bytes()), InvalidClaims);
    }
}

#[test]
fn claim_limits_scale_with_max_token_length() {
    let numbered =
        |name: &str, many: usize| (0..many).map(|n| format!("{name}{n}")).collect::<Vec<_>>();
    let object = |many: usize| {
        Value::Object(
            numbered("m", many)
                .into_iter()
                .map(|name| (name, json!(0)))
                .collect(),
        )
    };
    let mut members = claims();
    members
        .as_object_mut()
        .unwrap()
        .extend(object(900).as_object().unwrap().clone());
    let mut audience = claims();
    audience["aud"] = json!(numbered("audience", 4000));
    audience["aud"][3999] = json!(AUDIENCE);
    let large = [
        members,
        audience,
        claims_with(json!({ "groups": numbered("group", 8000) })),
        claims_with(json!({ "resource_access": object(900) })),
    ];
    let default = Fixture::new();
    let generous = Fixture::with_server(|keys| {
        let issuer = tower_oauth::Issuer::new(ISSUER).unwrap();
        let issuer = TrustedIssuer::new(issuer, Audience::new(AUDIENCE).unwrap()).keys(keys);
        ResourceServer::from_issuer(issuer).max_token_len(200 * 1024)
    });
    for claims in large {
        generous.assert_accepts(&generous.token(&claims));
        default.assert_rejects(
            &default.token(&claims),
            if claims.to_string().len() > 12_000 {
                TokenTooLong
            } else {
                TooManyMembers
            },
        );
    }
    // The limit is bounded.
    for claims in [
        claims_with(json!({ "groups": vec![0; 30_000] })),
        claims_with(json!({ "aud": vec![AUDIENCE; 13_000] })),
        claims_with(json!({ "x": object(3200) })),
    ] {
        generous.assert_rejects(&generous.token(&claims), TooManyMembers);
    }
    // The default limit also accepts the largest claims of a 16 KiB token.
    for claims in [
        claims_with(json!({ "groups": vec![0; 2100] })),
        claims_with(json!({ "aud": vec!["a"; 1100] })),
        claims_with(json!({ "x": object(300) })),
    ] {
        default.assert_rejects(&default.token(&claims), TooManyMembers);
    }
    let header = format!(r#"{{"alg":"RS256","kid":"rsa","x":{}}}"#, object(300));
    default.assert_rejects(&default.with_header(&header), TooManyMembers);
}

/// The rest of such a token is not read, here the missing end of its JSON.
#[test]
fn an_unsupported_algorithm_an_untrusted_issuer_and_a_passed_expiry_end_the_parse() {
    let fixture = Fixture::new();
    let trusted = format!(r#""iss":"{ISSUER}""#);
    let (past, future) = (NOW - 3600, NOW + 3600);
    for (members, kind) in [
        (
            r#""iss":"https://other.example""#.to_owned(),
            UntrustedIssuer,
        ),
        (format!(r#"{trusted},"exp":{past}"#), Expired),
        (format!(r#""exp":{past},{trusted}"#), Expired),
        // Its issuer decides whether it is expired.
        (format!(r#""exp":{past}"#), Malformed),
        (format!(r#"{trusted},"exp":{future}"#), Malformed),
        // Each member is checked, not only the first.
        (format!(r#"{trusted},"exp":{future},"exp":{past}"#), Expired),
        (
            format!(r#"{trusted},"iss":"https://other.example""#),
            UntrustedIssuer,
        ),
    ] {
        fixture.assert_rejects(
            &fixture.with_payload(format!("{{{members},").as_bytes()),
            kind,
        );
    }
    for (alg, kind) in [("HS256", UnsupportedAlgorithm), ("RS256", Malformed)] {
        let header = format!(r#"{{"kid":"rsa","alg":"{alg}","#);
        fixture.assert_rejects(&fixture.with_header(&header), kind);
    }
}
