//! `ClientSettings`: from each format the builder that code would make, or an error that names the
//! setting and never shows a secret.

use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tower_oauth::authorization_server::AuthorizationServer;
use tower_oauth::client::{
    AssertionAudience, ClientSettings, SigningKey, TokenManagerBuilder, TokenManagers,
};
use tower_oauth::error::ConfigErrorKind;
use tower_oauth::resource_server::Algorithm;
use tower_oauth::transport::ReqwestTransport;
use tower_oauth::{
    Audience, ClientAssertion, ClientCredentials, Endpoint, Issuer, PrivateKeyJwt, Scope,
    TlsClientAuth, TokenExchange, TokenManager,
};

use crate::support::child_process::test_name;
use crate::support::issuer::secs;
use crate::support::settings::{
    fields, fields_in_guide, parse_toml, paths, print_variables, read, read_in_process, variables,
    with,
};

const TENANT: &str = "8c0ba5b5-3d2a-4ee0-a9d9-3a0d8c1b6d2a";

fn scope(scope: &str) -> Scope {
    Scope::new(scope).unwrap()
}

fn settings(toml: &str) -> Result<ClientSettings, String> {
    read(&parse_toml(toml)).remove(0).1
}

fn issuer() -> TokenManagerBuilder {
    let issuer = Issuer::new("https://as.example").unwrap();
    TokenManager::for_issuer(issuer, ClientCredentials::new("shop", "s3cret")).unwrap()
}

/// Documents, each with the builder that it stands for.
fn documents() -> Vec<(&'static str, TokenManagerBuilder)> {
    let client = || ClientCredentials::new("shop", "s3cret");
    vec![
        (
            r#"
            issuer = "https://as.example"
            client_id = "shop"
            client_secret = "s3cret"
            "#,
            issuer(),
        ),
        (
            r#"
            issuer = "https://as.example"
            client_id = "shop"
            client_secret_file = "/run/secrets/shop"
            client_authentication = "client_secret_post"
            audience = "orders"
            resource = ["https://orders.example", "urn:bills"]
            scopes = "orders.read orders.write"
            step_up_scopes = ["orders.delete"]
            parameters = { organization = "acme", device_assertion = "an assertion" }
            assume_bearer = true
            name = "orders"
            assumed_lifetime_seconds = 1800
            renew_before_expiry_seconds = 120
            request_timeout_seconds = 3
            acquire_timeout_seconds = 20
            max_waiters = 8
            allow_http = "keycloak.sso.svc, orders"
            allow_loopback_http = true
            user_agent = "shop/1.2"
            "#,
            {
                let client = ClientCredentials::from_secret_file("shop", "/run/secrets/shop");
                let issuer = Issuer::new("https://as.example").unwrap();
                TokenManager::for_issuer(issuer, client.client_secret_post())
                    .unwrap()
                    .audience(Audience::new("orders").unwrap())
                    .resource("https://orders.example")
                    .resource("urn:bills")
                    .scopes([scope("orders.read"), scope("orders.write")])
                    .step_up_scopes([scope("orders.delete")])
                    .parameter("device_assertion", "an assertion")
                    .parameter("organization", "acme")
                    .assume_bearer()
                    .name("orders")
                    .assumed_lifetime(secs(1800))
                    .renew_before_expiry(secs(120))
                    .request_timeout(secs(3))
                    .acquire_timeout(secs(20))
                    .max_waiters(8)
                    .allow_http(["keycloak.sso.svc", "orders"])
                    .allow_loopback_http()
                    .user_agent("shop/1.2")
            },
        ),
        (
            r#"
            token_endpoint = "https://as.example/token"
            client_id = "123"
            client_secret = "456"
            client_authentication = "client_secret_basic_raw"
            "#,
            TokenManager::builder(
                Endpoint::new("https://as.example/token").unwrap(),
                ClientCredentials::new("123", "456").client_secret_basic_raw(),
            ),
        ),
        (
            r#"
            issuer = "https://as.example"
            for_resource = "https://orders.example"
            omit_resource = true
            client_id = "shop"
            client_secret = "s3cret"
            client_authentication = "client_secret_basic"
            "#,
            TokenManager::for_resource("https://orders.example", "https://as.example", client())
                .omit_resource(),
        ),
        (
            r#"
            token_endpoint = "https://as.example/token"
            client_id = "shop"
            client_authentication = "private_key_jwt"
            client_key_file = "/run/tls/tls.key"
            client_key_algorithm = "PS256"
            client_key_id = "2026-11"
            client_certificate_file = "/run/tls/tls.crt"
            client_assertion_audience = "https://as.example/realm"
            "#,
            {
                let key = SigningKey::from_file("/run/tls/tls.key", Algorithm::Ps256)
                    .key_id("2026-11")
                    .certificate_file("/run/tls/tls.crt");
                let audience = AssertionAudience::Other("https://as.example/realm".to_owned());
                TokenManager::builder(
                    Endpoint::new("https://as.example/token").unwrap(),
                    PrivateKeyJwt::new("shop", key).audience(audience),
                )
            },
        ),
        (
            r#"
            issuer = "https://as.example"
            client_id = "shop"
            client_authentication = "private_key_jwt"
            client_key_file = "/run/tls/tls.key"
            client_key_algorithm = "EdDSA"
            client_assertion_audience = "token_endpoint"
            "#,
            {
                let key = SigningKey::from_file("/run/tls/tls.key", Algorithm::EdDsa);
                let client = PrivateKeyJwt::new("shop", key);
                TokenManager::for_issuer(
                    Issuer::new("https://as.example").unwrap(),
                    client.audience(AssertionAudience::TokenEndpoint),
                )
                .unwrap()
            },
        ),
        (
            r#"
            issuer = "https://as.example"
            client_id = "shop"
            client_authentication = "private_key_jwt"
            client_key_file = "/run/tls/tls.key"
            client_key_algorithm = "EdDSA"
            client_assertion_audience = "issuer"
            "#,
            {
                let key = SigningKey::from_file("/run/tls/tls.key", Algorithm::EdDsa);
                let issuer = Issuer::new("https://as.example").unwrap();
                TokenManager::for_issuer(issuer, PrivateKeyJwt::new("shop", key)).unwrap()
            },
        ),
        (
            r#"
            provider = "entra"
            tenant = "8c0ba5b5-3d2a-4ee0-a9d9-3a0d8c1b6d2a"
            client_id = "shop"
            client_authentication = "private_key_jwt"
            client_key_file = "/run/tls/tls.key"
            client_key_algorithm = "PS256"
            client_certificate_file = "/run/tls/tls.crt"
            "#,
            {
                let key = SigningKey::from_file("/run/tls/tls.key", Algorithm::Ps256);
                let key = key.certificate_file("/run/tls/tls.crt");
                let client = PrivateKeyJwt::new("shop", key)
                    .audience(AssertionAudience::TokenEndpoint)
                    .lifetime(secs(300));
                TokenManager::entra(TENANT, client).unwrap()
            },
        ),
        (
            r#"
            issuer = "https://as.example"
            client_id = "shop"
            client_authentication = "client_assertion"
            client_assertion_file = "/var/run/secrets/tokens/as"
            "#,
            {
                let client = ClientAssertion::from_file("/var/run/secrets/tokens/as");
                let issuer = Issuer::new("https://as.example").unwrap();
                TokenManager::for_issuer(issuer, client.with_client_id("shop")).unwrap()
            },
        ),
        (
            r#"
            issuer = "https://as.example"
            client_id = "shop"
            client_authentication = "tls_client_auth"
            "#,
            {
                let issuer = Issuer::new("https://as.example").unwrap();
                TokenManager::for_issuer(issuer, TlsClientAuth::new("shop")).unwrap()
            },
        ),
        (
            r#"
            issuer = "https://as.example"
            client_authentication = "client_assertion"
            client_assertion_file = "/var/run/secrets/tokens/as"
            "#,
            {
                let client = ClientAssertion::from_file("/var/run/secrets/tokens/as");
                let issuer = Issuer::new("https://as.example").unwrap();
                TokenManager::for_issuer(issuer, client).unwrap()
            },
        ),
        (
            r#"
            provider = "keycloak"
            url = "https://sso.example"
            realm = "shop"
            client_id = "shop"
            client_secret = "s3cret"
            "#,
            TokenManager::keycloak("https://sso.example", "shop", client()).unwrap(),
        ),
        (
            r#"
            provider = "entra"
            tenant = "8c0ba5b5-3d2a-4ee0-a9d9-3a0d8c1b6d2a"
            client_id = "shop"
            client_secret = "s3cret"
            scopes = "api://orders/.default"
            "#,
            TokenManager::entra(TENANT, client())
                .unwrap()
                .scope(scope("api://orders/.default")),
        ),
        (
            r#"
            provider = "auth0"
            domain = "shop.eu.auth0.com"
            audience = "orders"
            client_id = "shop"
            client_secret = "s3cret"
            "#,
            TokenManager::auth0("shop.eu.auth0.com", "orders", client()).unwrap(),
        ),
        (
            r#"
            provider = "okta"
            domain = "shop.okta.com"
            authorization_server = "default"
            client_id = "shop"
            client_secret = "s3cret"
            "#,
            TokenManager::okta("shop.okta.com", "default", client()).unwrap(),
        ),
        (
            r#"
            provider = "cognito"
            region = "eu-west-1"
            user_pool = "eu-west-1_Example"
            client_id = "shop"
            client_secret = "s3cret"
            "#,
            TokenManager::cognito("eu-west-1", "eu-west-1_Example", client()).unwrap(),
        ),
    ]
}

#[test]
fn a_document_in_each_format_is_the_builder_that_code_would_make() {
    for (toml, builder) in documents() {
        for (format, settings) in read::<ClientSettings>(&parse_toml(toml)) {
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
fn variables_of_a_process_are_the_same_settings_as_a_document() {
    if print_variables::<ClientSettings>() {
        return;
    }
    for toml in documents()
        .into_iter()
        .map(|(toml, _)| toml)
        .chain([TARGETS])
    {
        let from_document = format!("{:?}", Ok::<_, String>(settings(toml).unwrap()));
        for from_variables in read_in_process(test_name!(), &variables(&parse_toml(toml))) {
            assert_eq!(from_variables, from_document, "{toml}");
        }
    }
}

const TARGETS: &str = r#"
    issuer = "https://as.example"
    client_id = "shop"
    client_secret = "s3cret"
    scopes = "common"
    name = "shop"
    [targets.bills]
    origin = "https://bills.example"
    audience = "bills"
    name = "bills"
    [targets.orders]
    origin = "https://orders.example:8443"
    resource = "https://orders.example, urn:orders"
    scopes = "orders.read orders.write"
    step_up_scopes = "orders.delete"
"#;

#[test]
fn each_target_has_the_settings_of_the_client_and_its_own() {
    let common = issuer().scope(scope("common")).user_agent("shop/1.2");
    let expected = TokenManagers::builder()
        .target(
            "https://bills.example",
            common
                .clone()
                .audience(Audience::new("bills").unwrap())
                .name("bills"),
        )
        .target(
            "https://orders.example:8443",
            common
                .resource("https://orders.example")
                .resource("urn:orders")
                .scopes([scope("orders.read"), scope("orders.write")])
                .step_up_scopes([scope("orders.delete")])
                .name("shop orders"),
        );
    for (format, settings) in read::<ClientSettings>(&parse_toml(TARGETS)) {
        let settings = settings.unwrap();
        let change = |builder: TokenManagerBuilder| builder.user_agent("shop/1.2");
        let made = settings.to_managers_builder(change).unwrap();
        assert_eq!(format!("{made:?}"), format!("{expected:?}"), "{format}");
        let error = settings.to_builder().unwrap_err();
        assert_eq!(error.setting(), "targets", "{format}: {error}");
    }
}

#[test]
fn a_target_inherits_the_audience_unless_it_has_another_and_adds_its_resources() {
    let toml = r#"
        issuer = "https://as.example"
        client_id = "shop"
        client_secret = "s3cret"
        audience = "common"
        resource = "urn:common"
        [targets.bills]
        origin = "https://bills.example"
        audience = "bills"
        resource = "urn:bills, urn:common"
        [targets.orders]
        origin = "https://orders.example"
    "#;
    let common = issuer()
        .audience(Audience::new("common").unwrap())
        .resource("urn:common");
    let bills = common
        .clone()
        .audience(Audience::new("bills").unwrap())
        .resource("urn:bills")
        .resource("urn:common");
    let expected = TokenManagers::builder()
        .target("https://bills.example", bills)
        .target("https://orders.example", common);
    for (format, settings) in read::<ClientSettings>(&parse_toml(toml)) {
        let made = settings.unwrap().to_managers_builder(|builder| builder);
        let made = format!("{:?}", made.unwrap());
        assert_eq!(made, format!("{expected:?}"), "{format}");
        assert!(made.contains("urn:bills"), "{made}");
    }
}

#[test]
fn targets_that_do_not_fit_are_errors_that_name_the_target() {
    let client =
        r#"{ "client_id": "shop", "client_secret": "s3cret", "issuer": "https://as.example" }"#;
    let client: Value = serde_json::from_str(client).unwrap();
    let a = |target: Value| json!({ "a": target });
    let origin = json!("https://a.example");
    let auth0 = json!({ "client_id": "shop", "client_secret": "s3cret", "provider": "auth0",
        "domain": "shop.eu.auth0.com" });
    let for_resource = with(&client, &["for_resource".to_owned()], origin.clone());
    let two = json!({ "a": { "origin": origin, "audience": "a" }, "b": { "origin": "https://b.example" } });
    let rows = [
        (&client, json!({}), "targets"),
        (&client, a(json!({ "audience": "a" })), "targets.a.origin"),
        (&for_resource, a(json!({ "origin": origin })), "targets"),
        (&auth0, two, "targets.b.audience"),
        (
            &client,
            json!({ "a": { "origin": origin }, "b": { "origin": origin } }),
            "target",
        ),
    ];
    for (client, targets, setting) in rows {
        let document = with(client, &["targets".to_owned()], targets);
        let settings = read::<ClientSettings>(&document).remove(0).1.unwrap();
        let managers = settings.to_managers_builder(|builder| builder);
        let error = managers
            .and_then(|builder| builder.build().map(drop))
            .unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
    }
}

/// Settings with every field. They do not fit together.
fn every_field() -> Value {
    let mut all = json!({});
    for toml in documents()
        .into_iter()
        .map(|(toml, _)| toml)
        .chain([TARGETS])
    {
        for (field, value) in parse_toml(toml).as_object().unwrap() {
            all[field] = value.clone();
        }
    }
    all
}

#[test]
fn the_documents_of_these_tests_and_the_guide_have_every_field() {
    let fields = fields::<ClientSettings>(&[]);
    let tested = every_field();
    assert_eq!(
        fields,
        tested.as_object().unwrap().keys().cloned().collect()
    );
    let mut listed = fields_in_guide("Fields of a client");
    // By provider.
    for name in [
        "authorization_server",
        "domain",
        "realm",
        "region",
        "tenant",
        "url",
        "user_pool",
    ] {
        listed.insert(name.to_owned());
    }
    for name in ["auth0", "cognito", "entra", "keycloak", "okta"] {
        assert!(listed.remove(name));
    }
    assert_eq!(listed, fields);

    let target = self::fields::<ClientSettings>(&["targets", "a"]);
    let targets = tested["targets"].as_object().unwrap().values();
    let tested = targets.flat_map(|target| target.as_object().unwrap().keys().cloned());
    assert_eq!(target, tested.collect());
    assert_eq!(target, fields_in_guide("Fields of a target"));
}

#[test]
fn a_value_of_a_wrong_type_or_an_empty_one_is_an_error_that_names_the_path_of_the_setting() {
    let valid = every_field();
    let leaves = paths(&valid, true);
    assert_eq!(leaves.len(), 38 + 7);
    for path in leaves {
        let is_parameter = path[0] == "parameters";
        for wrong in [
            json!({ "x": 1 }),
            json!([["x"]]),
            json!(1.5),
            Value::Null,
            json!(""),
        ] {
            if is_parameter && wrong == json!("") {
                continue; // A parameter may be empty.
            }
            for (format, settings) in
                read::<ClientSettings>(&with(&json!({}), &path, wrong.clone()))
            {
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
fn an_unknown_field_is_an_error_that_names_it() {
    let path = ["client_secert".to_owned()];
    for (format, settings) in read::<ClientSettings>(&with(&json!({}), &path, json!("hunter2"))) {
        let error = settings.err().unwrap();
        assert!(error.contains("client_secert"), "{format}: {error}");
        assert!(!error.contains("hunter2"), "{format}: {error}");
    }
}

#[test]
fn settings_that_do_not_fit_together_are_errors_that_name_setting_and_reason() {
    let client = "client_id = \"shop\"\nclient_secret = \"s3cret\"\n";
    let at_issuer = |rest: &str| format!("{client}issuer = \"https://as.example\"\n{rest}");
    let keycloak = |rest: &str| format!("{client}provider = \"keycloak\"\n{rest}");
    let auth0 = "provider = \"auth0\"\ndomain = \"shop.eu.auth0.com\"";
    let with_method = |method: &str, rest: &str| {
        let issuer = "issuer = \"https://as.example\"\nclient_id = \"shop\"";
        format!("{issuer}\nclient_authentication = \"{method}\"\n{rest}")
    };
    let signed = |rest: &str| with_method("private_key_jwt", rest);
    let assertion = |rest: &str| with_method("client_assertion", rest);
    let mtls = |rest: &str| with_method("tls_client_auth", rest);
    let rows = [
        (client.to_owned(), "issuer", "is required"),
        (
            format!("{client}for_resource = \"https://orders.example\""),
            "issuer",
            "is required",
        ),
        (
            "client_secret = \"s3cret\"".to_owned(),
            "client_id",
            "is required",
        ),
        (
            "client_id = \"shop\"".to_owned(),
            "client_secret or client_secret_file",
            "is required",
        ),
        (
            at_issuer("client_secret_file = \"/s\""),
            "client_secret",
            "`client_secret_file`",
        ),
        (
            at_issuer("token_endpoint = \"https://as.example/token\""),
            "token_endpoint",
            "`issuer`",
        ),
        (
            at_issuer("omit_resource = true"),
            "omit_resource",
            "`for_resource`",
        ),
        (
            at_issuer("realm = \"shop\""),
            "realm",
            "only with a `provider`",
        ),
        (at_issuer("max_waiters = 0"), "max_waiters", "at least 1"),
        (
            at_issuer("parameters = { scope = \"a\" }"),
            "parameter",
            "its own builder method",
        ),
        (
            keycloak("url = \"https://sso.example\""),
            "realm",
            "required by the provider `keycloak`",
        ),
        (
            keycloak("realm = \"a\"\nurl = \"https://sso.example\"\nregion = \"b\""),
            "region",
            "not used by the provider `keycloak`",
        ),
        (
            keycloak("realm = \"a\"\nurl = \"https://sso.example\"\nissuer = \"b\""),
            "issuer",
            "not used by the provider `keycloak`",
        ),
        (
            keycloak(
                "realm = \"a\"\nurl = \"https://sso.example\"\nfor_resource = \"https://b.example\"",
            ),
            "for_resource",
            "not used by the provider `keycloak`",
        ),
        (
            keycloak("realm = \"a\"\nurl = \"http://sso.example\""),
            "issuer",
            "https",
        ),
        (
            format!("{client}{auth0}"),
            "audience",
            "required by the provider `auth0`",
        ),
        (
            at_issuer("client_authentication = \"private_key_jwt\""),
            "client_secret",
            "is not used with `client_authentication` `private_key_jwt`",
        ),
        (
            at_issuer("client_key_id = \"2026-11\""),
            "client_key_id",
            "is not used with `client_authentication` `client_secret_basic`",
        ),
        (
            "token_endpoint = \"https://as.example/token\"\nclient_id = \"shop\"\n\
             client_authentication = \"private_key_jwt\"\nclient_key_file = \"/k\"\n\
             client_assertion_audience = \"issuer\""
                .to_owned(),
            "client_assertion_audience",
            "no issuer is known",
        ),
        (
            signed("client_key_algorithm = \"ES256\""),
            "client_key_file",
            "is required",
        ),
        (
            signed("client_assertion_file = \"/a\""),
            "client_assertion_file",
            "is not used with `client_authentication` `private_key_jwt`",
        ),
        (
            "issuer = \"https://as.example\"\nclient_authentication = \"private_key_jwt\""
                .to_owned(),
            "client_id",
            "is required",
        ),
        (
            mtls("client_key_file = \"/k\""),
            "client_certificate_file",
            "is required",
        ),
        (
            mtls("client_certificate_file = \"/c\""),
            "client_key_file",
            "is required",
        ),
        (
            mtls("client_key_file = \"/k\"\nclient_certificate_file = \"/c\""),
            "client certificate file /c",
            "cannot be read",
        ),
        (
            mtls("client_key_algorithm = \"ES256\""),
            "client_key_algorithm",
            "is not used with `client_authentication` `tls_client_auth`",
        ),
        (assertion(""), "client_assertion_file", "is required"),
        (
            assertion("client_assertion_audience = \"token_endpoint\""),
            "client_assertion_audience",
            "is not used with `client_authentication` `client_assertion`",
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
        assert!(!error.to_string().contains("s3cret"), "{error}\n{toml}");
    }
    let google = settings(&format!("{client}provider = \"google\"")).unwrap_err();
    assert!(google.contains("`auth0` or `cognito`"), "{google}");
    let symmetric = settings("client_key_algorithm = \"HS256\"").unwrap_err();
    assert!(symmetric.contains("`ES256` or `ES384`"), "{symmetric}");
    let error = settings(client).unwrap().to_builder().unwrap_err();
    assert_eq!(error.kind(), ConfigErrorKind::Missing);
}

#[test]
fn a_duration_of_0_is_an_error_that_names_the_setting() {
    for field in [
        "assumed_lifetime_seconds",
        "renew_before_expiry_seconds",
        "request_timeout_seconds",
        "acquire_timeout_seconds",
    ] {
        for (format, settings) in read::<ClientSettings>(&json!({ field: "0" })) {
            let error = settings
                .err()
                .unwrap_or_else(|| panic!("{format}: {field}"));
            assert!(error.contains("at least 1"), "{format}: {error}");
            assert!(
                format == "JSON" || error.contains(field),
                "{format}: {error}"
            );
        }
    }
}

#[test]
fn given_credentials_replace_the_fields_of_the_client_and_not_its_method() {
    let given = || ClientCredentials::new("shop", "s3cret").client_secret_post();
    for (method, expected) in [
        (None, given()),
        (Some("client_secret_basic"), given().client_secret_basic()),
        (
            Some("client_secret_basic_raw"),
            given().client_secret_basic_raw(),
        ),
    ] {
        let method = method.map(|method| format!("client_authentication = \"{method}\""));
        let toml = format!(
            "issuer = \"https://as.example\"\n{}",
            method.unwrap_or_default()
        );
        let made = settings(&toml)
            .unwrap()
            .to_builder_with_credentials(given())
            .unwrap();
        let issuer = Issuer::new("https://as.example").unwrap();
        let builder = TokenManager::for_issuer(issuer, expected).unwrap();
        assert_eq!(format!("{made:?}"), format!("{builder:?}"), "{toml}");
    }
}

#[test]
fn given_credentials_and_a_field_that_they_replace_are_an_error() {
    let target = "[targets.orders]\norigin = \"https://orders.example\"";
    for (setting, line) in [
        ("client_id", "client_id = \"shop\""),
        ("client_secret", "client_secret = \"hunter2\""),
        ("client_secret_file", "client_secret_file = \"/s\""),
        ("targets", target),
    ] {
        let toml = format!("issuer = \"https://as.example\"\n{line}");
        let given = ClientCredentials::new("shop", "s3cret");
        let error = settings(&toml)
            .unwrap()
            .to_builder_with_credentials(given)
            .unwrap_err();
        assert_eq!(error.setting(), setting);
        assert_eq!(error.kind(), ConfigErrorKind::Conflict);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_manager_of_settings_gets_a_token_with_the_secret_that_they_have() {
    let issuer = AuthorizationServer::builder()
        .algorithm(Algorithm::Es256)
        .build()
        .unwrap();
    let shop = issuer.register("shop").unwrap();
    let secret = shop.secret().expose_secret();
    let file = NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let of = |field: &str, value: &str| json!({ "issuer": issuer.issuer(), "client_id": shop.client_id(), field: value });
    let rows = [
        (of("client_secret", secret), true),
        (
            of("client_secret_file", file.path().to_str().unwrap()),
            true,
        ),
        (of("client_secret", "another"), false),
    ];
    for (document, is_right) in rows {
        for (format, settings) in read::<ClientSettings>(&document) {
            let settings = settings.unwrap();
            assert!(!format!("{settings:?}").contains(secret), "{format}");
            let builder = settings.to_builder().unwrap().transport(issuer.transport());
            assert!(TokenExchange::builder(builder.clone()).build().is_ok());
            let token = builder.start().unwrap().access_token().await;
            assert_eq!(token.is_ok(), is_right, "{format}");
        }
    }
}

#[test]
fn the_certificate_of_settings_is_that_of_the_transport() {
    let keys = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/client/client_authentication/keys"
    );
    let certificate = format!("{keys}/p256_certificate.pem");
    let key = format!("{keys}/p256.pem");
    let document = json!({
        "issuer": "https://as.example",
        "client_id": "shop",
        "client_authentication": "tls_client_auth",
        "client_certificate_file": certificate,
        "client_key_file": key,
    });
    let transport = ReqwestTransport::with_client_certificate(&certificate, &key).unwrap();
    let issuer = Issuer::new("https://as.example").unwrap();
    let builder = TokenManager::for_issuer(issuer, TlsClientAuth::new("shop")).unwrap();
    let expected = builder.transport(transport);
    for (format, settings) in read::<ClientSettings>(&document) {
        let made = settings.unwrap().to_builder().unwrap();
        assert_eq!(format!("{made:?}"), format!("{expected:?}"), "{format}");
        assert!(format!("{made:?}").contains(&certificate), "{made:?}");
    }
}

/// The error of the files, with the folder of the keys that tests share in place of `KEYS`.
fn check_files(toml: &str) -> Result<(), String> {
    let keys = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/client/client_authentication/keys"
    );
    let toml = format!(
        "issuer = \"https://as.example\"\nclient_id = \"shop\"\n{}",
        toml.replace("KEYS", keys)
    );
    let settings = settings(&toml).unwrap();
    assert!(settings.to_builder().is_ok(), "no file is read");
    settings.check_files().map_err(|error| error.to_string())
}

#[test]
fn files_of_a_client_are_checked_once_they_are_asked_for() {
    let signed = "client_authentication = \"private_key_jwt\"\n";
    let file = NamedTempFile::new().unwrap();
    let secret = file.path().display();
    std::fs::write(&file, "s3cr3t\n").unwrap();
    for toml in [
        "client_secret = \"s\"",
        &format!("client_secret_file = \"{secret}\""),
        &format!("{signed}client_key_file = \"KEYS/p256.pem\""),
        &format!("{signed}client_key_file = \"KEYS/rsa.pem\"\nclient_key_algorithm = \"PS512\""),
        &format!(
            "{signed}client_key_file = \"KEYS/rsa.pem\"\n\
             client_certificate_file = \"KEYS/rsa_certificate.pem\""
        ),
        // The platform may write it later.
        "client_authentication = \"client_assertion\"\nclient_assertion_file = \"/no/such/file\"",
    ] {
        assert_eq!(check_files(toml), Ok(()), "{toml}");
    }
    for (toml, expected) in [
        (
            "client_secret_file = \"/no/such/file\"".to_owned(),
            "client_secret_file cannot be read: ",
        ),
        (
            "client_secret_file = \"KEYS/p256.pem\"".to_owned(),
            "client_secret_file has more than one line",
        ),
        (
            format!("{signed}client_key_file = \"/no/such/file\""),
            "client_key_file cannot be read: ",
        ),
        (
            format!(
                "{signed}client_key_file = \"KEYS/p256.pem\"\nclient_key_algorithm = \"RS256\""
            ),
            "client_key_file does not sign with RS256",
        ),
        (
            format!(
                "{signed}client_key_file = \"KEYS/rsa.pem\"\n\
                 client_certificate_file = \"/no/such/file\""
            ),
            "client_certificate_file cannot be read: ",
        ),
        (
            format!(
                "{signed}client_key_file = \"KEYS/rsa.pem\"\n\
                 client_certificate_file = \"KEYS/p256_certificate.pem\""
            ),
            "client_certificate_file is of another key than the signing key",
        ),
    ] {
        let error = check_files(&toml).unwrap_err();
        assert!(error.starts_with(expected), "{error}\n{toml}");
    }
}

/// What may stand where a secret is meant.
fn secrets() -> impl Strategy<Value = (String, Value)> {
    let texts = "[a-z0-9]{10}-[\\[\\]{}'\",=a-zA-Z0-9]{10}".prop_map(|text| {
        let value = json!(text);
        (text, value)
    });
    let numbers = (10_000_000_000_u64..1_000_000_000_000)
        .prop_map(|number| (number.to_string(), json!(number)));
    #[allow(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "exact below 2^53"
    )]
    let fractions = (10_000_000_000_u64..1_000_000_000_000)
        .prop_map(|number| (number.to_string(), json!(number as f64 + 0.5)));
    prop_oneof![texts, numbers, fractions].prop_flat_map(|(text, value)| {
        let values = vec![
            value.clone(),
            json!([value.clone()]),
            json!([[value.clone()]]),
            json!({ "x": value }),
            json!({ "x": [value] }),
        ];
        proptest::sample::select(values).prop_map(move |value| (text.clone(), value))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_error_and_no_debug_output_shows_a_secret(
        (secret, value) in secrets(),
        place in 0..3,
        other in proptest::sample::select(paths(&every_field(), true)),
        wrong in proptest::sample::select(vec![json!(1.5), json!({ "x": 1 }), json!("?")]),
        is_alone in any::<bool>(),
    ) {
        let mut document = if is_alone {
            json!({ "issuer": "https://as.example", "client_id": "shop" })
        } else {
            with(&every_field(), &other, wrong)
        };
        match place {
            0 => document["client_secret"] = value,
            1 => document["parameters"] = json!({ "device_assertion": value }),
            _ => document["parameters"] = value,
        }
        for (format, settings) in read::<ClientSettings>(&document) {
            let shown = match settings {
                Err(error) => error,
                Ok(settings) => format!("{settings:?} {:?}", settings.to_builder()),
            };
            prop_assert!(!shown.contains(&secret), "{format}: {shown}");
        }
    }
}

#[test]
fn a_variable_that_looks_like_a_number_is_a_text_and_leading_zeros_need_quotes_with_figment() {
    if print_variables::<ClientSettings>() {
        return;
    }
    let ids = |id: &str| {
        let document = json!({ "client_id": id });
        read_in_process(test_name!(), &variables(&document)).map(|printed| {
            let (_, rest) = printed
                .split_once("client_id: Some(")
                .unwrap_or(("", &printed));
            rest.split("),").next().unwrap().to_owned()
        })
    };
    for (variable, by_figment, by_config) in [
        ("123", r#""123""#, r#""123""#),
        ("true", r#""true""#, r#""true""#),
        (
            "18446744073709551616",
            r#""18446744073709551616""#,
            r#""18446744073709551616""#,
        ),
        ("1e5", r#""1e5""#, r#""1e5""#),
        ("a,b", r#""a,b""#, r#""a,b""#),
        // figment makes a number of it.
        ("007", r#""7""#, r#""007""#),
        (r#""007""#, r#""007""#, r#""\"007\"""#),
    ] {
        assert_eq!(ids(variable), [by_figment, by_config], "{variable}");
    }
    let [by_figment, by_config] = ids("1.10");
    assert!(
        by_figment.contains("put a text that looks like a number in quotes"),
        "{by_figment}"
    );
    assert_eq!(by_config, r#""1.10""#);
}

#[test]
fn only_figment_interprets_white_space_and_brackets_of_a_variable() {
    if print_variables::<ClientSettings>() {
        return;
    }
    let shown = |document: &Value| read_in_process(test_name!(), &variables(document));
    let is = |printed: &str, document: Value| {
        let settings = read::<ClientSettings>(&document).remove(0).1.unwrap();
        assert_eq!(printed, format!("{:?}", Ok::<_, String>(settings)));
    };

    let [figment, config] = shown(&json!({ "client_id": "  shop  " }));
    is(&figment, json!({ "client_id": "shop" }));
    is(&config, json!({ "client_id": "  shop  " }));

    let [figment, config] = shown(&json!({ "scopes": "[a, b]" }));
    is(&figment, json!({ "scopes": ["a", "b"] }));
    is(&config, json!({ "scopes": ["[a,", "b]"] }));

    let [figment, config] = shown(&json!({ "parameters": "{a=b}" }));
    is(&figment, json!({ "parameters": { "a": "b" } }));
    assert!(config.starts_with("Err"), "{config}");

    // Where a text is meant.
    for variable in ["[a, b]", "{a=b}"] {
        let [figment, config] = shown(&json!({ "client_id": variable }));
        assert!(figment.starts_with("Err"), "{figment}");
        is(&config, json!({ "client_id": variable }));
    }
}

#[test]
fn without_prefix_separator_config_separates_the_prefix_as_the_rest_of_the_name() {
    use config::{Config, Environment};

    #[derive(serde::Deserialize)]
    struct Settings {
        bills: ClientSettings,
    }

    let variables = [
        ("APP_BILLS__CLIENT_ID", "one underscore"),
        ("APP__BILLS__CLIENT_ID", "two underscores"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = || {
        Environment::with_prefix("APP")
            .separator("__")
            .source(Some(variables.clone().into()))
    };
    for (environment, read) in [
        (environment(), "two underscores"),
        (environment().prefix_separator("_"), "one underscore"),
    ] {
        let config = Config::builder().add_source(environment).build().unwrap();
        let settings: Settings = config.try_deserialize().unwrap();
        let settings = format!("{:?}", settings.bills);
        assert!(settings.contains(read), "{read}: {settings}");
    }
}

#[test]
fn figment_names_the_path_of_a_setting_in_order_after_extract_alone() {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    #[derive(Debug, serde::Deserialize)]
    struct Settings {
        #[expect(dead_code, reason = "only the error is of interest")]
        bills: ClientSettings,
    }

    let figment = Figment::from(Toml::string("[bills.targets.orders]\norigin = 5"));
    let error = figment.extract::<Settings>().unwrap_err().to_string();
    assert!(error.contains("bills.targets.orders.origin"), "{error}");
    let error = figment.extract_inner::<ClientSettings>("bills");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("targets.orders.origin.bills"), "{error}");
}
