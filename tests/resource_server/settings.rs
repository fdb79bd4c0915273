//! `ResourceServerSettings`: from each format the builder that code would make, or an error that
//! names the setting.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tower_oauth::authorization_server::AuthorizationServer;
use tower_oauth::error::ConfigErrorKind;
use tower_oauth::key_set::RefreshPolicy;
use tower_oauth::resource_server::{
    Algorithm, ProtectedResource, ReadinessPolicy, RejectionKind, ResourceServerBuilder,
    ResourceServerSettings, Startup, TokenProfile,
};
use tower_oauth::{Audience, Endpoint, Issuer, ResourceServer, Scope, TrustedIssuer};

use crate::support::child_process::test_name;
use crate::support::issuer::secs;
use crate::support::settings::{
    fields, fields_in_guide, parse_toml, paths, print_variables, read, read_in_process, variables,
    with,
};

const TENANT: &str = "8c0ba5b5-3d2a-4ee0-a9d9-3a0d8c1b6d2a";
const APPLICATION: &str = "1f2ad0d6-53f2-4be2-8f7d-2c9a3c0a7e11";

fn audience(name: &str) -> Audience {
    Audience::new(name).unwrap()
}

fn partner() -> TrustedIssuer {
    TrustedIssuer::new(
        Issuer::new("https://partner.example").unwrap(),
        audience("api"),
    )
}

fn settings(toml: &str) -> Result<ResourceServerSettings, String> {
    let document = parse_toml(toml);
    let mut all = read(&document).into_iter().map(|(_, settings)| settings);
    all.next().unwrap()
}

/// Documents, each with the builder that it stands for.
fn documents() -> Vec<(&'static str, ResourceServerBuilder)> {
    let from = ResourceServer::from_issuer;
    let keycloak = || TrustedIssuer::keycloak("https://sso.example", "shop", "orders").unwrap();
    vec![
        (
            r#"
            [issuers.partner]
            issuer = "https://partner.example"
            audience = "api"
            "#,
            ResourceServer::builder("https://partner.example", "api"),
        ),
        (
            r#"
            [issuers.sso]
            provider = "keycloak"
            url = "https://sso.example"
            realm = "shop"
            audience = "orders, https://orders.example"
            allowed_clients = ["shop", "bills"]
            required_claims = { env = ["staging", "production"], tier = 1 }
            required_scopes = "orders.read orders.write"
            [issuers.partner]
            issuer = "https://partner.example"
            audience = ["api"]
            jwks_uri = "https://partner.example/keys"
            [refresh]
            max_stale_seconds = 3600
            "#,
            // In the order of their names.
            from(partner().jwks_uri(Endpoint::new("https://partner.example/keys").unwrap()))
                .add_issuer(
                    keycloak()
                        .add_audience(audience("https://orders.example"))
                        .allowed_clients(["shop", "bills"])
                        .require_claim("env", ["staging", "production"])
                        .require_claim("tier", [1])
                        .require_scopes(["orders.read", "orders.write"]),
                )
                .refresh(RefreshPolicy::strict()),
        ),
        (
            r#"
            leeway_seconds = 5
            max_token_len = 8192
            max_cached_tokens = 20000
            max_cache_size = 1048576
            max_concurrent_verifications = 3
            realm = "orders"
            resource = "https://orders.example"
            resource_name = "Orders"
            scopes_supported = "orders.read orders.write"
            allow_http = ["keycloak.sso.svc", "10.0.0.7"]
            allow_loopback_http = true
            user_agent = "orders/1.2"
            readiness = "any"
            startup = "require"
            startup_timeout_seconds = 20
            [issuers.all]
            issuer = "https://partner.example"
            aliases = "partner.example"
            audience_optional = true
            allowed_clients = "shop, 123"
            profile = "jwt"
            algorithms = "ES256, Ed25519"
            max_candidate_keys = 2
            max_lifetime_seconds = 600
            max_token_len = 1024
            leeway_seconds = 0
            [issuers.all.refresh]
            interval_seconds = 60
            unknown_key_burst = 5
            refresh_on_invalid_signature = false
            [issuers.strict]
            issuer = "https://strict.example"
            audience = "api"
            profile = "rfc9068"
            [refresh]
            interval_seconds = 120
            min_interval_seconds = 30
            max_interval_seconds = 240
            max_stale_seconds = 7200
            fetch_timeout_seconds = 3
            max_document_size = 65536
            unknown_key_burst = 1
            unknown_key_period_seconds = 30
            unknown_key_timeout_seconds = 2
            max_waiters = 16
            refresh_on_invalid_signature = true
            "#,
            {
                let refresh = || {
                    RefreshPolicy::new()
                        .interval(secs(120))
                        .min_interval(secs(30))
                        .max_interval(secs(240))
                        .max_stale(secs(7200))
                        .fetch_timeout(secs(3))
                        .max_document_size(65536)
                        .unknown_key_rate_limit(1, secs(30))
                        .unknown_key_timeout(secs(2))
                        .max_waiters(16)
                };
                let own_refresh = refresh()
                    .interval(secs(60))
                    .unknown_key_rate_limit(5, secs(30));
                let all = Issuer::new("https://partner.example").unwrap();
                let all = TrustedIssuer::new(all, audience("https://orders.example"))
                    .add_alias(Issuer::new("partner.example").unwrap())
                    .refresh(own_refresh)
                    .audience_optional()
                    .allowed_clients(["shop", "123"])
                    .algorithms([Algorithm::Es256, Algorithm::EdDsa])
                    .max_candidate_keys(2)
                    .max_lifetime(secs(600))
                    .max_token_len(1024)
                    .leeway(secs(0));
                let strict = Issuer::new("https://strict.example").unwrap();
                let strict =
                    TrustedIssuer::new(strict, audience("api")).profile(TokenProfile::Rfc9068);
                let scopes = ["orders.read", "orders.write"].map(|s| Scope::new(s).unwrap());
                from(all)
                    .add_issuer(strict)
                    .refresh(refresh().refresh_on_invalid_signature())
                    .leeway(secs(5))
                    .max_token_len(8192)
                    .max_cached_tokens(20_000)
                    .max_cache_size(1_048_576)
                    .max_concurrent_verifications(3)
                    .realm("orders")
                    .protected_resource(
                        ProtectedResource::new("https://orders.example")
                            .unwrap()
                            .resource_name("Orders")
                            .scopes_supported(scopes),
                    )
                    .allow_http(["keycloak.sso.svc", "10.0.0.7"])
                    .allow_loopback_http()
                    .user_agent("orders/1.2")
                    .readiness(ReadinessPolicy::Any)
                    .startup(Startup::Require(secs(20)))
            },
        ),
        (
            r#"
            startup = "background"
            [issuers.entra]
            provider = "entra"
            tenant = "8c0ba5b5-3d2a-4ee0-a9d9-3a0d8c1b6d2a"
            application_id = "1f2ad0d6-53f2-4be2-8f7d-2c9a3c0a7e11"
            audience = "api://orders"
            "#,
            from(
                TrustedIssuer::entra(TENANT, APPLICATION)
                    .unwrap()
                    .add_audience(audience("api://orders")),
            )
            .startup(Startup::Background),
        ),
        (
            r#"
            startup = "wait"
            startup_timeout_seconds = 3
            [issuers.auth0]
            provider = "auth0"
            domain = "shop.eu.auth0.com"
            audience = "orders"
            "#,
            from(TrustedIssuer::auth0("shop.eu.auth0.com", "orders").unwrap())
                .startup(Startup::Wait(secs(3))),
        ),
        (
            r#"
            [issuers.okta]
            provider = "okta"
            domain = "shop.okta.com"
            authorization_server = "default"
            audience = "api://default"
            "#,
            from(TrustedIssuer::okta("shop.okta.com", "default", "api://default").unwrap()),
        ),
        (
            r#"
            [issuers.cognito]
            provider = "cognito"
            region = "eu-west-1"
            user_pool = "eu-west-1_Example"
            allowed_clients = "7ol0h0kd3rk4b4q6n1m3v5u8a2"
            "#,
            from(
                TrustedIssuer::cognito(
                    "eu-west-1",
                    "eu-west-1_Example",
                    ["7ol0h0kd3rk4b4q6n1m3v5u8a2"],
                )
                .unwrap(),
            ),
        ),
        (
            r#"
            [issuers.google]
            provider = "google"
            audience = "https://orders.example"
            callers = ["shop@project.iam.gserviceaccount.com", "112233445566778899001"]
            "#,
            from(
                TrustedIssuer::google(
                    "https://orders.example",
                    [
                        "shop@project.iam.gserviceaccount.com",
                        "112233445566778899001",
                    ],
                )
                .unwrap(),
            ),
        ),
        (
            r#"
            [issuers.zitadel]
            provider = "zitadel"
            domain = "shop.zitadel.cloud"
            audience = "319811223344556677"
            "#,
            from(TrustedIssuer::zitadel("shop.zitadel.cloud", "319811223344556677").unwrap()),
        ),
        (
            r#"
            [issuers.supabase]
            provider = "supabase"
            project = "abcdefghijklmnopqrst"
            "#,
            from(TrustedIssuer::supabase("abcdefghijklmnopqrst").unwrap()),
        ),
    ]
}

#[test]
fn a_document_in_each_format_is_the_builder_that_code_would_make() {
    for (toml, builder) in documents() {
        let document = parse_toml(toml);
        for (format, settings) in read::<ResourceServerSettings>(&document) {
            let settings = settings.unwrap_or_else(|error| panic!("{format}: {error}\n{toml}"));
            let made = settings.to_builder().unwrap();
            assert_eq!(
                format!("{made:?}"),
                format!("{builder:?}"),
                "{format}{toml}"
            );
        }
    }
}

#[test]
fn resource_is_the_audience_of_each_issuer_without_another_that_needs_one() {
    type NewIssuer = fn(&str) -> TrustedIssuer;
    const RESOURCE: &str = "https://orders.example";
    let rows: [(&str, NewIssuer); 6] = [
        ("issuer = \"https://partner.example\"", |audience| {
            let issuer = Issuer::new("https://partner.example").unwrap();
            TrustedIssuer::new(issuer, self::audience(audience))
        }),
        (
            "provider = \"keycloak\"\nurl = \"https://sso.example\"\nrealm = \"shop\"",
            |audience| TrustedIssuer::keycloak("https://sso.example", "shop", audience).unwrap(),
        ),
        (
            "provider = \"auth0\"\ndomain = \"shop.eu.auth0.com\"",
            |audience| TrustedIssuer::auth0("shop.eu.auth0.com", audience).unwrap(),
        ),
        (
            "provider = \"okta\"\ndomain = \"shop.okta.com\"\nauthorization_server = \"default\"",
            |audience| TrustedIssuer::okta("shop.okta.com", "default", audience).unwrap(),
        ),
        (
            "provider = \"google\"\ncallers = \"112233445566778899001\"",
            |audience| TrustedIssuer::google(audience, ["112233445566778899001"]).unwrap(),
        ),
        (
            "provider = \"zitadel\"\ndomain = \"shop.zitadel.cloud\"",
            |audience| TrustedIssuer::zitadel("shop.zitadel.cloud", audience).unwrap(),
        ),
    ];
    let made = |rest: &str, is_resource: bool| {
        let resource = is_resource.then(|| format!("resource = \"{RESOURCE}\"\n"));
        let toml = format!("{}[issuers.a]\n{rest}", resource.unwrap_or_default());
        settings(&toml).unwrap().to_builder()
    };
    let resource = || ProtectedResource::new(RESOURCE).unwrap();
    let expected = |issuer| ResourceServer::from_issuer(issuer).protected_resource(resource());
    for (fields, issuer) in rows {
        let with_audience = format!("{fields}\naudience = \"api\"");
        for (fields, audience) in [(fields, RESOURCE), (&with_audience, "api")] {
            let expected = expected(issuer(audience));
            let made = made(fields, true).unwrap();
            assert_eq!(format!("{made:?}"), format!("{expected:?}"), "{fields}");
        }
        // Required without `resource`.
        let error = made(fields, false).unwrap_err();
        assert_eq!(error.setting(), "issuers.a.audience", "{error}");
    }
    // These need none, or have another.
    let pool = "eu-west-1_Example";
    let clients = ["7ol0h0kd3rk4b4q6n1m3v5u8a2"];
    for (fields, issuer) in [
        (
            "provider = \"cognito\"\nregion = \"eu-west-1\"\n\
             user_pool = \"eu-west-1_Example\"\n\
             allowed_clients = \"7ol0h0kd3rk4b4q6n1m3v5u8a2\""
                .to_owned(),
            TrustedIssuer::cognito("eu-west-1", pool, clients),
        ),
        (
            format!(
                "provider = \"entra\"\ntenant = \"{TENANT}\"\n\
                 application_id = \"{APPLICATION}\""
            ),
            TrustedIssuer::entra(TENANT, APPLICATION),
        ),
        (
            "provider = \"supabase\"\nproject = \"abcdefghijklmnopqrst\"".to_owned(),
            TrustedIssuer::supabase("abcdefghijklmnopqrst"),
        ),
    ] {
        let expected = expected(issuer.unwrap());
        let made = made(&fields, true).unwrap();
        assert_eq!(format!("{made:?}"), format!("{expected:?}"), "{fields}");
    }
}

#[test]
fn variables_of_a_process_are_the_same_settings_as_a_document() {
    if print_variables::<ResourceServerSettings>() {
        return;
    }
    for (toml, _) in documents() {
        let document = parse_toml(toml);
        let from_document = format!("{:?}", Ok::<_, String>(settings(toml).unwrap()));
        for from_variables in read_in_process(test_name!(), &variables(&document)) {
            assert_eq!(from_variables, from_document, "{toml}");
        }
    }
}

/// Settings with every field, and valid as such.
fn every_field() -> Value {
    let documents = documents();
    let (all, _) = &documents[2];
    let mut all = parse_toml(all);
    for (index, (toml, _)) in documents.iter().enumerate() {
        let issuers = parse_toml(toml)["issuers"].clone();
        for (name, issuer) in issuers.as_object().unwrap() {
            all["issuers"][format!("{name}{index}")] = issuer.clone();
        }
    }
    all["issuers"]["all"]["initial_keys_file"] = json!("/etc/keys.json");
    all
}

#[test]
fn the_documents_of_these_tests_and_the_guide_have_every_field() {
    let valid = every_field();
    let tested = |table: &Value| -> BTreeSet<String> {
        table.as_object().unwrap().keys().cloned().collect()
    };
    let server = fields::<ResourceServerSettings>(&[]);
    assert_eq!(server, tested(&valid));
    assert_eq!(server, fields_in_guide("Fields of a resource server"));

    let refresh = fields::<ResourceServerSettings>(&["refresh"]);
    assert_eq!(refresh, tested(&valid["refresh"]));
    assert_eq!(refresh, fields_in_guide("Fields of `refresh`"));

    let issuer = fields::<ResourceServerSettings>(&["issuers", "a"]);
    let issuers = valid["issuers"].as_object().unwrap();
    assert_eq!(issuer, issuers.values().flat_map(tested).collect());
    let mut listed = fields_in_guide("Fields of an issuer");
    for (name, settings) in issuers {
        // The rows of the providers, each with its fields.
        if let Some(provider) = settings.get("provider").and_then(Value::as_str) {
            listed.remove(provider);
            listed.extend(tested(settings));
        } else {
            assert!(!listed.contains(name));
        }
    }
    assert_eq!(listed, issuer);
}

#[test]
fn a_value_of_a_wrong_type_is_an_error_that_names_the_path_of_the_setting() {
    let valid = every_field();
    let leaves = paths(&valid, true);
    assert!(leaves.len() > 80, "{}", leaves.len());
    for path in leaves {
        let is_claims = path.contains(&"required_claims".to_owned());
        for wrong in [json!({ "x": 1 }), json!([["x"]]), json!(1.5), Value::Null] {
            if is_claims && !wrong.is_null() {
                continue; // A claim may have any value.
            }
            for (format, settings) in
                read::<ResourceServerSettings>(&with(&json!({}), &path, wrong.clone()))
            {
                if is_claims && format.contains("TOML") {
                    continue; // It has no null.
                }
                let error = settings
                    .err()
                    .unwrap_or_else(|| panic!("{format}: {path:?} {wrong}"));
                // serde_json names the line instead.
                let named = format == "JSON" || error.contains(&format!("app.{}", path.join(".")));
                assert!(named, "{format}: {path:?} {wrong}: {error}");
            }
        }
    }
}

#[test]
fn a_text_or_null_where_a_table_is_meant_is_an_error_that_names_the_path() {
    for path in paths(&every_field(), false)
        .into_iter()
        .filter(|path| !path.is_empty())
    {
        for wrong in [json!("x"), Value::Null] {
            for (format, settings) in
                read::<ResourceServerSettings>(&with(&json!({}), &path, wrong))
            {
                let error = settings
                    .err()
                    .unwrap_or_else(|| panic!("{format}: {path:?}"));
                let named = format == "JSON" || error.contains(&format!("app.{}", path.join(".")));
                assert!(named, "{format}: {path:?}: {error}");
            }
        }
    }
}

#[test]
fn an_unknown_field_in_any_table_is_an_error_that_names_it() {
    let valid = every_field();
    for mut path in paths(&valid, false) {
        if path
            .last()
            .is_some_and(|name| ["issuers", "required_claims"].contains(&name.as_str()))
        {
            continue; // Their names are free.
        }
        path.push("audiance".to_owned());
        for (format, settings) in
            read::<ResourceServerSettings>(&with(&json!({}), &path, json!("x")))
        {
            let error = settings
                .err()
                .unwrap_or_else(|| panic!("{format}: {path:?}"));
            assert!(error.contains("audiance"), "{format}: {path:?}: {error}");
        }
    }
}

#[test]
fn a_number_or_boolean_is_a_text_where_a_text_is_meant_and_the_other_way_round() {
    let issuer = |allowed_clients: Value, leeway: Value, optional: Value| {
        json!({ "issuers": { "a": {
            "issuer": "https://as.example", "audience": true, "allowed_clients": allowed_clients,
            "leeway_seconds": leeway, "audience_optional": optional, "max_candidate_keys": "2",
        } } })
    };
    let texts = issuer(json!(["123", "false"]), json!("5"), json!("true"));
    let others = issuer(json!([123, false]), json!(5), json!(true));
    let debug = |document: &Value| -> Vec<String> {
        let all = read::<ResourceServerSettings>(document).into_iter();
        all.map(|(_, settings)| format!("{:?}", settings.unwrap()))
            .collect()
    };
    let (texts, others) = (debug(&texts), debug(&others));
    assert!(texts[0].contains(r#"["123", "false"]"#), "{}", texts[0]);
    assert_eq!(texts, others);
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
}

#[test]
fn a_claim_may_have_any_name_and_is_compared_with_the_type_that_it_has_in_the_document() {
    let toml = r#"
        [issuers.a]
        issuer = "https://as.example"
        audience = "orders"
        [issuers.a.required_claims]
        "https://orders.example/Env" = "staging"
        tier = [1, "2", true]
    "#;
    let expected = ResourceServer::from_issuer(
        TrustedIssuer::new(
            Issuer::new("https://as.example").unwrap(),
            audience("orders"),
        )
        .require_claim("https://orders.example/Env", ["staging"])
        .require_claim("tier", [json!(1), json!("2"), json!(true)]),
    );
    for (format, settings) in read::<ResourceServerSettings>(&parse_toml(toml)) {
        let made = settings.unwrap().to_builder().unwrap();
        assert_eq!(format!("{made:?}"), format!("{expected:?}"), "{format}");
    }
}

/// Documents that each format can express, and the error of the builder: setting and reason.
#[test]
fn settings_that_do_not_fit_together_are_errors_that_name_setting_and_reason() {
    let issuer = |rest: &str| {
        format!("[issuers.a]\nissuer = \"https://as.example\"\naudience = \"orders\"\n{rest}")
    };
    let keycloak = "[issuers.sso]\nprovider = \"keycloak\"\naudience = \"orders\"\n";
    let no_file = "initial_keys_file = \"/no/such/file\"";
    let rows = [
        (String::new(), "issuers", "at least one issuer"),
        ("[issuers.a]\naudience = \"orders\"".into(), "issuers.a.issuer", "without a `provider`"),
        ("[issuers.a]\nissuer = \"https://as.example\"".into(), "issuers.a.audience", "required"),
        (issuer("realm = \"shop\""), "issuers.a.realm", "only with a `provider`"),
        (issuer("audience_optional = true"), "issuers.a.audience_optional", "`allowed_clients`"),
        (issuer("allowed_clients = []"), "issuers.a.allowed_clients", "at least one"),
        (issuer("algorithms = []"), "issuers.a.algorithms", "must not be empty"),
        (issuer("max_candidate_keys = 5"), "issuers.a.max_candidate_keys", "1 to 4"),
        (issuer("required_claims = { a = 1.5 }"), "issuers.a.required_claims", "64 bits"),
        (issuer(no_file), "issuers.a.initial_keys_file", "cannot be read"),
        (format!("{keycloak}url = \"https://sso.example\""), "issuers.sso.realm", "`keycloak`"),
        (format!("{keycloak}realm = \"shop\""), "issuers.sso.url", "required by the provider `keycloak`"),
        (
            format!("{keycloak}realm = \"shop\"\nurl = \"https://sso.example\"\ntenant = \"x\""),
            "issuers.sso.tenant",
            "not used by the provider `keycloak`",
        ),
        (
            format!("{keycloak}realm = \"shop\"\nurl = \"https://sso.example\"\nissuer = \"x\""),
            "issuers.sso.issuer",
            "not used by the provider `keycloak`",
        ),
        (format!("{keycloak}realm = \"a/b\"\nurl = \"https://sso.example\""), "issuers.sso.realm", ""),
        (format!("realm = \"a\\\"b\"\n{}", issuer("")), "realm", ""),
        (format!("startup = \"require\"\n{}", issuer("")), "startup", "startup_timeout_seconds"),
        (format!("startup_timeout_seconds = 5\n{}", issuer("")), "startup_timeout_seconds", "startup"),
        (format!("resource = \"orders\"\n{}", issuer("")), "resource", ""),
        (format!("resource_name = \"Orders\"\n{}", issuer("")), "resource_name", "`resource`"),
        (format!("scopes_supported = \"a\"\n{}", issuer("")), "scopes_supported", "`resource`"),
        (
            "[issuers.g]\nprovider = \"google\"\naudience = \"a\"\ncallers = \"12\"\nallowed_clients = \"c\"".into(),
            "issuers.g.allowed_clients",
            "not used by the provider `google`",
        ),
        (
            "[issuers.p]\nissuer = \"as.example\"\naudience = \"a\"".into(),
            "issuers.p.issuer",
            "has no scheme",
        ),
        (
            "[issuers.g]\nprovider = \"google\"\naudience = \"a\"".into(),
            "issuers.g.callers",
            "required by the provider `google`",
        ),
        (
            "[issuers.c]\nprovider = \"cognito\"\nregion = \"eu-west-1\"\nuser_pool = \"eu-west-1_A\"".into(),
            "issuers.c.allowed_clients",
            "required by the provider `cognito`",
        ),
    ];
    for (toml, setting, reason) in rows {
        let settings = settings(&toml).unwrap_or_else(|error| panic!("{error}\n{toml}"));
        let error = settings
            .to_builder()
            .and_then(|builder| builder.build().map(drop));
        let error = error.expect_err(&toml);
        assert_eq!(error.setting(), setting, "{error}\n{toml}");
        assert!(error.to_string().contains(reason), "{error}\n{toml}");
    }
}

#[test]
fn a_field_of_another_provider_is_an_error_that_names_both() {
    let fields = [
        ("url", "https://x.example"),
        ("realm", "x"),
        ("tenant", TENANT),
        ("application_id", APPLICATION),
        ("domain", "x.example"),
        ("authorization_server", "x"),
        ("region", "eu-west-1"),
        ("user_pool", "eu-west-1_X"),
        ("project", "abcdefghijklmnopqrst"),
        ("callers", "a@b.iam.gserviceaccount.com"),
        ("issuer", "https://x.example"),
    ];
    let mut unused = 0;
    for (toml, _) in documents() {
        let document = parse_toml(toml);
        for (name, issuer) in document["issuers"].as_object().unwrap() {
            let Some(provider) = issuer.get("provider") else {
                continue;
            };
            for (field, value) in fields {
                if issuer.get(field).is_some() {
                    continue;
                }
                let path = ["issuers", name, field].map(str::to_owned);
                let changed = with(&document, &path, json!(value));
                let settings = read::<ResourceServerSettings>(&changed)
                    .remove(0)
                    .1
                    .unwrap();
                let error = settings.to_builder().unwrap_err();
                assert_eq!(error.kind(), ConfigErrorKind::Conflict);
                let provider = provider.as_str().unwrap();
                let expected = format!(
                    "{} is not used by the provider `{provider}`",
                    path.join(".")
                );
                assert_eq!(error.to_string(), expected);
                unused += 1;
            }
        }
    }
    assert_eq!(unused, 8 * 11 - 2 - 2 - 1 - 2 - 2 - 1 - 1 - 1);
}

#[test]
fn an_empty_text_is_no_default_and_no_empty_list() {
    let valid = every_field();
    for path in paths(&valid, true) {
        if path.contains(&"required_claims".to_owned()) {
            continue; // A claim may be empty.
        }
        for (format, settings) in
            read::<ResourceServerSettings>(&with(&json!({}), &path, json!("")))
        {
            assert!(settings.is_err(), "{format}: {path:?}");
        }
    }
}

#[tokio::test]
async fn a_server_of_settings_accepts_and_rejects_as_they_say() {
    let issuer = AuthorizationServer::builder()
        .algorithm(Algorithm::Es256)
        .build()
        .unwrap();
    let (shop, other) = (
        issuer.register("shop").unwrap(),
        issuer.register("other").unwrap(),
    );
    let document = json!({
        "issuers": { "local": {
            "issuer": issuer.issuer(),
            "audience": "orders, bills",
            "allowed_clients": shop.client_id(),
            "required_claims": { "env": ["staging", "production"] },
            "required_scopes": "orders",
        } },
    });
    let mint = |client| {
        issuer
            .mint(client)
            .audience(["bills"])
            .scope("orders")
            .claim("env", "staging")
    };
    for (format, settings) in read::<ResourceServerSettings>(&document) {
        let client = |_: &str, issuer: TrustedIssuer| {
            issuer.client_id_from(|token| token.subject().map(str::to_owned))
        };
        let builder = settings.unwrap().to_builder_with(client).unwrap();
        let server = builder.transport(issuer.transport()).start().await.unwrap();
        let rows = [
            (mint(&shop), None),
            (mint(&shop).audience(["orders"]), None),
            (
                mint(&shop).audience(["orders, bills"]),
                Some(RejectionKind::InvalidAudience),
            ),
            (mint(&other), Some(RejectionKind::UntrustedClient)),
            (
                mint(&shop).claim("env", "test"),
                Some(RejectionKind::InvalidClaims),
            ),
            (
                mint(&shop).scope("bills"),
                Some(RejectionKind::InsufficientScope),
            ),
        ];
        for (index, (token, expected)) in rows.into_iter().enumerate() {
            let rejection = server.validate(&token.sign()).await.err();
            assert_eq!(
                rejection.map(|r| r.kind()),
                expected,
                "{format}: row {index}"
            );
        }
    }
}

#[test]
fn each_issuer_of_settings_has_the_identifier_that_its_preset_derives() {
    let settings = settings(&format!(
        r#"
        [issuers.cloud]
        provider = "entra"
        tenant = "{TENANT}"
        application_id = "{APPLICATION}"

        [issuers.own]
        provider = "keycloak"
        url = "https://sso.example"
        realm = "shop"
        audience = "orders"

        [issuers.partner]
        issuer = "https://partner.example"
        audience = "orders"
        aliases = "https://old.example"
        "#
    ));
    let mut issuers = Vec::new();
    let builder = settings.unwrap().to_builder_with(|name, issuer| {
        issuers.push((name.to_owned(), issuer.issuer().clone()));
        issuer
    });
    let (server, _refresher) = builder.unwrap().build().unwrap();
    let entra = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    for ((name, issuer), expected) in issuers.iter().zip([
        ("cloud", &*entra),
        ("own", "https://sso.example/realms/shop"),
        ("partner", "https://partner.example"),
    ]) {
        assert_eq!((&**name, issuer.as_str()), expected);
    }
    let of_server: Vec<_> = server
        .key_sets()
        .iter()
        .map(|keys| keys.issuer().clone())
        .collect();
    let of_closure: Vec<_> = issuers.into_iter().map(|(_, issuer)| issuer).collect();
    assert_eq!(of_closure, of_server);
}

#[test]
fn an_error_about_a_variable_names_the_path_of_the_setting_without_the_prefix() {
    if print_variables::<ResourceServerSettings>() {
        return;
    }
    let document = json!({ "issuers": { "sso": { "provider": "unknown" } } });
    let [figment, config] = read_in_process(test_name!(), &variables(&document));
    // Each is in a table of the program.
    let path = |error: &str, path: &str| {
        let (_, key) = error.split_once("for key ").unwrap();
        assert!(
            key.trim_start_matches(['`', '"', '\\']).starts_with(path),
            "{error}"
        );
    };
    let lower = format!("{}.issuers.sso.provider", crate::support::settings::TABLE);
    path(&figment, &lower.to_uppercase());
    path(&config, &lower);
}

/// serde supports no `deny_unknown_fields` there.
#[test]
fn settings_beside_fields_of_the_program_are_read_without_an_error_for_an_unknown_one() {
    #[derive(serde::Deserialize)]
    struct Flattened {
        port: u16,
        #[serde(flatten)]
        orders: ResourceServerSettings,
    }

    #[derive(serde::Deserialize)]
    struct InTable {
        orders: ResourceServerSettings,
    }

    let document = json!({
        "port": 8080,
        "reallm": "orders",
        "issuers": { "sso": { "issuer": "https://as.example", "audience": "orders" } },
    });
    let flattened: Flattened = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(flattened.port, 8080);
    drop(flattened.orders.to_builder().unwrap().build().unwrap());

    let mut orders = document;
    orders.as_object_mut().unwrap().remove("port");
    let mut in_table = json!({ "orders": orders });
    let error = serde_json::from_value::<InTable>(in_table.clone()).err();
    assert!(error.unwrap().to_string().contains("`reallm`"));
    in_table["orders"].as_object_mut().unwrap().remove("reallm");
    let in_table: InTable = serde_json::from_value(in_table).unwrap();
    drop(in_table.orders.to_builder().unwrap());
}

/// In figment a variable is parsed as here: JSON stays a text.
#[tokio::test]
async fn json_replaces_all_required_claims_of_a_file_and_a_single_claim_leaves_the_others() {
    use config::{Config, Environment, File, FileFormat};
    use figment::Figment;
    use figment::providers::{Format as _, Toml};
    use figment::value::Value as Parsed;

    let server = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    let server = server.build().unwrap();
    let shop = server.register("shop").unwrap();
    let file = format!(
        "[issuers.sso]\nissuer = \"{}\"\naudience = \"api\"\n\
         required_claims = {{ env = [\"production\"], use = \"access\" }}",
        server.issuer()
    );
    let claims = "issuers.sso.required_claims";
    let single = format!("{claims}.env");
    for (name, value, of_staging, without_use) in [
        (claims, r#"{"env":["production","staging"]}"#, true, true),
        (&single, "staging", true, false),
        ("max_token_len", "4096", false, false),
    ] {
        let figment = Figment::from(Toml::string(&file));
        let figment = figment.merge((name, value.parse::<Parsed>().unwrap()));
        let variable = (name.replace('.', "__").to_uppercase(), value.to_owned());
        let variables = Environment::default().separator("__");
        let config = Config::builder()
            .add_source(File::from_str(&file, FileFormat::Toml))
            .add_source(variables.source(Some([variable].into())));
        let config = config.build().unwrap();
        let both: [ResourceServerSettings; 2] = [
            figment.extract().unwrap(),
            config.try_deserialize().unwrap(),
        ];
        for settings in both {
            let builder =
                settings.to_builder_with(|_, issuer| issuer.transport(server.transport()));
            let orders = builder.unwrap().start().await.unwrap();
            let mint = || server.mint(&shop).audience(["api"]).claim("env", "staging");
            for (token, expected) in [
                (mint().claim("use", "access"), of_staging),
                (mint().claim("use", "refresh"), without_use),
            ] {
                let validated = orders.validate(&token.sign()).await;
                assert_eq!(validated.is_ok(), expected, "{name}");
            }
        }
    }
}

#[test]
fn a_missing_file_is_an_error_and_for_figment_without_exact_an_empty_one() {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    let name = "no-such-folder/orders.toml";
    let exact = Figment::from(Toml::file_exact(name)).extract::<ResourceServerSettings>();
    let error = exact.unwrap_err().to_string();
    assert!(error.contains(name), "{error}");
    let found = Figment::from(Toml::file(name)).extract::<ResourceServerSettings>();
    let error = found.unwrap().to_builder().unwrap_err();
    assert_eq!(error.setting(), "issuers");
}
