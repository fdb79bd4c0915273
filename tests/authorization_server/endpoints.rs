//! The development authorization server, through its endpoints and with both sides of the crate.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::app_id::ManagementClient;
use tower_oauth::authorization_server::{
    AuthorizationServer, EndpointKind, Fault, RegisteredApplication,
};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::resource_server::{Algorithm, RejectionKind, Startup, TokenProfile};
use tower_oauth::transport::Transport;
use tower_oauth::{Audience, AuthContext, Rejection, ResourceServer, TokenManager};

use crate::assertion::decode;

const TENANT: &str = "39a37f57-a227-4bfe-a044-93b6e6060b61";
const NOW: u64 = 1_700_000_000;

/// A server with one application, in-process.
struct Fixture {
    clock: ManualClock,
    server: AuthorizationServer,
    app: RegisteredApplication,
}

impl Fixture {
    fn new() -> Self {
        let clock = ManualClock::at(UnixTime::from_secs(NOW));
        let server = AuthorizationServer::builder()
            .clock(clock.clone())
            .build()
            .unwrap();
        let app = server.register("shop").unwrap();
        Self { clock, server, app }
    }

    async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.server
            .transport()
            .send(request, 1 << 20)
            .await
            .unwrap()
    }

    fn url(&self, version: &str, path: &str) -> String {
        format!("{}/oauth/{version}/{TENANT}/{path}", self.server.base_url())
    }

    fn basic(&self) -> String {
        let pair = format!(
            "{}:{}",
            self.app.client_id(),
            self.app.secret().expose_secret()
        );
        format!("Basic {}", STANDARD.encode(pair))
    }

    /// Sends a form-encoded token request.
    async fn request_token(
        &self,
        version: &str,
        authorization: Option<&str>,
        form: &str,
    ) -> (StatusCode, Value) {
        let mut request = Request::post(self.url(version, "token"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = self
            .send(request.body(form.to_owned().into()).unwrap())
            .await;
        assert_eq!(response.headers()["cache-control"], "no-store");
        (response.status(), json_of(&response))
    }

    async fn token(&self, version: &str, form: &str) -> (Value, Value) {
        let (status, body) = self.request_token(version, Some(&self.basic()), form).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        decode(body["access_token"].as_str().unwrap())
    }

    async fn manage(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let token = self.server.management_token().expose_secret().to_owned();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server.management_url()))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(if body.is_null() {
                Bytes::new()
            } else {
                body.to_string().into()
            })
            .unwrap();
        let response = self.send(request).await;
        (
            response.status(),
            serde_json::from_slice(response.body()).unwrap_or_default(),
        )
    }

    async fn resource(&self) -> ResourceServer {
        let builder = self.app.binding().unwrap().resource_server().unwrap();
        builder
            .transport(self.server.transport())
            .clock(self.clock.clone())
            .start()
            .await
            .unwrap()
    }
}

fn json_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

async fn validate(resource: &ResourceServer, token: &str) -> Result<AuthContext, RejectionKind> {
    let service = resource
        .layer()
        .layer(service_fn(async |request: Request<()>| {
            let mut response = Response::new(());
            response
                .extensions_mut()
                .insert(AuthContext::from_request(&request).unwrap().clone());
            Ok::<_, std::convert::Infallible>(response)
        }));
    let request = Request::builder()
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    match response.extensions().get::<Rejection>() {
        Some(rejection) => Err(rejection.kind()),
        None => Ok(response.extensions().get::<AuthContext>().unwrap().clone()),
    }
}

#[tokio::test]
async fn token_response_has_the_members_shown_in_the_guide() {
    let fixture = Fixture::new();
    let (status, body) = fixture
        .request_token(
            "v3",
            Some(&fixture.basic()),
            "grant_type=client_credentials",
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["expires_in"], 3600);
    assert_eq!(body["token_type"], "Bearer");
    let names: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["access_token", "expires_in", "scope", "token_type"],
        "no id token, no refresh token"
    );
}

#[tokio::test]
async fn a_version_4_token_has_app_ids_shape() {
    let fixture = Fixture::new();
    let (header, claims) = fixture.token("v4", "grant_type=client_credentials").await;
    let kid = fixture.server.keys()[0].kid().to_owned();
    assert!(kid.starts_with(&format!("appId-{TENANT}-")));
    assert_eq!(
        header,
        json!({ "alg": "RS256", "typ": "JWT", "kid": kid, "ver": 4 })
    );
    let id = fixture.app.client_id();
    assert_eq!(
        claims,
        json!({
            "iss": format!("{}/oauth/v4/{TENANT}", fixture.server.base_url()),
            "exp": NOW + 3600,
            "aud": [id],
            "sub": id,
            "amr": ["appid_client_credentials"],
            "iat": NOW,
            "tenant": TENANT,
            "scope": "appid_default",
        })
    );
}

#[tokio::test]
async fn a_version_3_token_has_app_ids_version_3_shape() {
    let fixture = Fixture::new();
    let (header, claims) = fixture.token("v3", "grant_type=client_credentials").await;
    assert_eq!(
        (&header["typ"], &header["ver"]),
        (&json!("JOSE"), &json!(3))
    );
    assert_eq!(claims["iss"], "authorization-server.test", "a bare host");
    assert_eq!(claims["aud"], fixture.app.client_id(), "a string");
}

#[tokio::test]
async fn json_request_of_the_node_sdk_is_accepted() {
    let fixture = Fixture::new();
    let request = Request::post(fixture.url("v4", "token"))
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .header(header::AUTHORIZATION, fixture.basic())
        .body(r#"{"grant_type":"client_credentials"}"#.into())
        .unwrap();
    assert_eq!(fixture.send(request).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn client_credentials_are_accepted_in_exactly_one_of_three_encodings() {
    let fixture = Fixture::new();
    let (id, secret) = (
        fixture.app.client_id(),
        fixture.app.secret().expose_secret(),
    );
    let encode =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let encoded = format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", encode(id), encode(secret)))
    );
    let in_body = format!(
        "grant_type=client_credentials&client_id={id}&client_secret={}",
        encode(secret)
    );
    let good = "grant_type=client_credentials";
    assert_eq!(
        fixture
            .request_token("v4", Some(&fixture.basic()), good)
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(
        fixture.request_token("v4", Some(&encoded), good).await.0,
        StatusCode::OK
    );
    assert_eq!(
        fixture.request_token("v4", None, &in_body).await.0,
        StatusCode::OK
    );
    let (status, body) = fixture
        .request_token("v4", Some(&fixture.basic()), &in_body)
        .await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_request"))
    );
}

#[tokio::test]
async fn rejected_token_requests_return_oauth_errors() {
    let fixture = Fixture::new();
    let basic = fixture.basic();
    let wrong = format!(
        "Basic {}",
        STANDARD.encode(format!("{}:wrong", fixture.app.client_id()))
    );
    let pair = format!(
        "{}:{}&junk",
        fixture.app.client_id(),
        fixture.app.secret().expose_secret()
    );
    let trailing = format!("Basic {}", STANDARD.encode(pair));
    let grant = "grant_type=client_credentials";
    for (authorization, form, status, code) in [
        (
            Some(wrong.as_str()),
            grant.to_owned(),
            401,
            "invalid_client",
        ),
        (None, grant.to_owned(), 401, "invalid_client"),
        (Some("Bearer x"), grant.to_owned(), 401, "invalid_client"),
        (Some("Basic %%%"), grant.to_owned(), 401, "invalid_client"),
        (Some(&basic), String::new(), 400, "invalid_request"),
        (
            Some(&basic),
            "grant_type=password&username=a".to_owned(),
            400,
            "unsupported_grant_type",
        ),
        (
            Some(&basic),
            format!("{grant}&{grant}"),
            400,
            "invalid_request",
        ),
        (
            Some(&basic),
            format!("{grant}&scope=reports.read"),
            400,
            "invalid_scope",
        ),
        (
            Some(&basic),
            format!("{grant}&scope=a%22b"),
            400,
            "invalid_scope",
        ),
        (
            Some(&basic),
            format!("{grant}&scope=+"),
            400,
            "invalid_scope",
        ),
        (Some(&trailing), grant.to_owned(), 401, "invalid_client"),
        (
            Some(&basic),
            format!("{grant}&resource=orders"),
            400,
            "invalid_target",
        ),
        (
            Some(&basic),
            format!("{grant}&client_id=another"),
            400,
            "invalid_request",
        ),
    ] {
        let (got, body) = fixture.request_token("v4", authorization, &form).await;
        assert_eq!(
            (got.as_u16(), body["error"].as_str().unwrap()),
            (status, code),
            "{form}: {body}"
        );
        assert!(body["error_description"].is_string());
    }
    let request = Request::post(fixture.url("v4", "token"))
        .header(header::AUTHORIZATION, &basic)
        .body(grant.into());
    assert_eq!(
        fixture.send(request.unwrap()).await.status(),
        StatusCode::BAD_REQUEST,
        "no content type"
    );
    let request = Request::get(fixture.url("v4", "token"))
        .body(Bytes::new())
        .unwrap();
    assert_eq!(
        fixture.send(request).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}

/// Work caused by unauthenticated callers is bounded.
#[tokio::test]
async fn a_request_has_at_most_100_parameters() {
    let fixture = Fixture::new();
    let with = |count: usize| -> String {
        (1..count).fold("grant_type=client_credentials".to_owned(), |form, n| {
            form + &format!("&p{n}=x")
        })
    };
    assert_eq!(
        fixture
            .request_token("v4", Some(&fixture.basic()), &with(100))
            .await
            .0,
        StatusCode::OK
    );
    let resources = "&resource=https://a.example/".repeat(100);
    let json: Value = (0..101)
        .map(|n| (format!("p{n}"), json!("x")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for (path, kind, body) in [
        ("token", "application/x-www-form-urlencoded", with(101)),
        ("token", "application/x-www-form-urlencoded", with(5000)),
        (
            "token",
            "application/x-www-form-urlencoded",
            format!("{}{resources}", with(1)),
        ),
        ("token", "application/json", json.to_string()),
        ("introspect", "application/x-www-form-urlencoded", with(101)),
    ] {
        let request = Request::post(fixture.url("v4", path)).header(header::CONTENT_TYPE, kind);
        let response = fixture.send(request.body(body.into()).unwrap()).await;
        let answer = json_of(&response);
        assert_eq!(
            (response.status().as_u16(), &answer["error"]),
            (400, &json!("invalid_request")),
            "{path}"
        );
        assert!(
            answer["error_description"]
                .as_str()
                .unwrap()
                .contains("100 parameters"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_body_over_64_kib_returns_an_oauth_error() {
    let fixture = Fixture::new();
    let bearer = format!(
        "Bearer {}",
        fixture.server.management_token().expose_secret()
    );
    for size in [64 * 1024 + 1, 4 << 20] {
        for url in [
            fixture.url("v4", "token"),
            fixture.url("v4", "introspect"),
            format!("{}/applications", fixture.server.management_url()),
        ] {
            let request = Request::post(&url)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::AUTHORIZATION, &bearer);
            let response = fixture
                .send(request.body(vec![b'x'; size].into()).unwrap())
                .await;
            assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "{url}");
            let answer: Value = serde_json::from_slice(response.body()).unwrap_or_default();
            assert_eq!(answer["error"], "invalid_request", "{url}: {size} bytes");
        }
    }
}

#[tokio::test]
async fn a_failed_client_authentication_is_challenged() {
    let fixture = Fixture::new();
    let request = Request::post(fixture.url("v4", "token"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials".into())
        .unwrap();
    let response = fixture.send(request).await;
    assert!(
        response.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .starts_with("Basic realm=")
    );
}

#[tokio::test]
async fn other_tenants_and_versions_are_not_found() {
    let fixture = Fixture::new();
    for path in [
        "/oauth/v4/another/publickeys".to_owned(),
        format!("/oauth/v5/{TENANT}/publickeys"),
        format!("/oauth/v4/{TENANT}/publickey"),
        format!("/oauth/v4/{TENANT}/nothing"),
        "/management/v4/another/applications".to_owned(),
        "/nothing".to_owned(),
    ] {
        let request = Request::get(format!("{}{path}", fixture.server.base_url()))
            .body(Bytes::new())
            .unwrap();
        assert_eq!(
            fixture.send(request).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn assigned_scopes_are_granted_and_a_requested_scope_replaces_the_default() {
    let fixture = Fixture::new();
    fixture
        .app
        .set_scopes(["reports.read", "reports.write"])
        .unwrap();
    let scope = async |form: &str| {
        fixture.token("v4", form).await.1["scope"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let grant = "grant_type=client_credentials";
    assert_eq!(
        scope(grant).await,
        "appid_default reports.read reports.write"
    );
    assert_eq!(
        scope(&format!("{grant}&scope=reports.read")).await,
        "reports.read"
    );
}

#[tokio::test]
async fn claims_set_for_an_application_are_in_its_tokens_and_replace_the_default() {
    let fixture = Fixture::new();
    let app = &fixture.app;
    app.set_claim("plan", json!({ "name": "gold" })).unwrap();
    app.set_claim("sub", "the-shop").unwrap();
    let (_, issued) = fixture.token("v4", "grant_type=client_credentials").await;
    let (_, minted) = decode(&fixture.server.mint(app).sign());
    for claims in [issued, minted] {
        assert_eq!(claims["plan"]["name"], "gold");
        assert_eq!(claims["sub"], "the-shop");
    }
    let one = fixture.server.mint(app).claim("plan", "free").sign();
    assert_eq!(decode(&one).1["plan"], "free");
    let error = app.set_claim("plan", "a".repeat(8192)).unwrap_err();
    assert_eq!(error.setting(), "claims");
    let (_, after) = fixture.token("v4", "grant_type=client_credentials").await;
    assert_eq!(
        after["plan"]["name"], "gold",
        "a failed update has no effect"
    );
}

#[tokio::test]
async fn audience_and_resource_parameters_set_the_aud_claim() {
    let fixture = Fixture::new();
    let form = "grant_type=client_credentials&audience=orders\
                &resource=https://a.example/&resource=https://b.example/";
    let (_, claims) = fixture.token("v4", form).await;
    assert_eq!(
        claims["aud"],
        json!(["orders", "https://a.example/", "https://b.example/"])
    );
}

/// RFC 8707 §2.
#[tokio::test]
async fn each_resource_becomes_an_audience_and_one_that_is_no_absolute_uri_is_an_invalid_target() {
    let fixture = Fixture::new();
    let client_id = fixture.app.client_id();
    let (a, b) = ("https://a.example/orders", "https://b.example");
    for (version, parameters, expected) in [
        ("v4", &[][..], Ok(json!([client_id]))),
        ("v4", &[("resource", a)], Ok(json!([a]))),
        ("v4", &[("resource", b), ("resource", a)], Ok(json!([b, a]))),
        ("v4", &[("resource", a), ("resource", a)], Ok(json!([a]))),
        ("v4", &[("audience", a), ("resource", a)], Ok(json!([a]))),
        ("v4", &[("resource", "")], Ok(json!([client_id]))),
        (
            "v4",
            &[("resource", "urn:example:orders")],
            Ok(json!(["urn:example:orders"])),
        ),
        (
            "v4",
            &[("resource", "https://a.example/?x=1")],
            Ok(json!(["https://a.example/?x=1"])),
        ),
        ("v3", &[("resource", a)], Ok(json!(a))),
        ("v3", &[("audience", "orders")], Ok(json!("orders"))),
        ("v3", &[], Ok(json!(client_id))),
        // A token of version 3 has one audience: none of them is dropped silently.
        (
            "v3",
            &[("resource", a), ("resource", b)],
            Err("invalid_target"),
        ),
        (
            "v3",
            &[("audience", "orders"), ("resource", a)],
            Err("invalid_target"),
        ),
        (
            "v4",
            &[("resource", a), ("resource", "orders")],
            Err("invalid_target"),
        ),
        ("v4", &[("resource", "/orders")], Err("invalid_target")),
        ("v4", &[("resource", "//a.example")], Err("invalid_target")),
        (
            "v4",
            &[("resource", "https://a.example/#x")],
            Err("invalid_target"),
        ),
        (
            "v4",
            &[("resource", "https://a.example#")],
            Err("invalid_target"),
        ),
        (
            "v4",
            &[("resource", " https://a.example")],
            Err("invalid_target"),
        ),
        (
            "v4",
            &[("resource", "https://a.example/\u{e9}")],
            Err("invalid_target"),
        ),
        (
            "v4",
            &[("audience", a), ("audience", b)],
            Err("invalid_request"),
        ),
    ] {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        form.extend_pairs(parameters);
        let form = form.finish();
        let basic = fixture.basic();
        let (status, body) = fixture.request_token(version, Some(&basic), &form).await;
        match expected {
            Ok(audience) => {
                let (_, claims) = fixture.token(version, &form).await;
                assert_eq!(
                    (status, &claims["aud"]),
                    (StatusCode::OK, &audience),
                    "{form}"
                );
            }
            Err(error) => assert_eq!(
                (status.as_u16(), &body["error"]),
                (400, &json!(error)),
                "{form}"
            ),
        }
    }
}

/// RFC 8414 §2.
#[tokio::test]
async fn the_metadata_name_what_the_server_supports() {
    let fixture = Fixture::new();
    fixture
        .app
        .set_scopes(["reports.write", "reports.read"])
        .unwrap();
    let other = fixture.server.register("other").unwrap();
    other.set_scopes(["bills.read", "reports.read"]).unwrap();
    let url = fixture.url("v4", ".well-known/openid-configuration");
    let request = Request::get(url).body(Bytes::new()).unwrap();
    let document = json_of(&fixture.send(request).await);
    let methods = json!([
        "client_secret_basic",
        "client_secret_post",
        "private_key_jwt"
    ]);
    for (member, expected) in [
        (
            "grant_types_supported",
            json!([
                "client_credentials",
                "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "urn:ietf:params:oauth:grant-type:token-exchange"
            ]),
        ),
        ("token_endpoint_auth_methods_supported", methods.clone()),
        ("introspection_endpoint_auth_methods_supported", methods),
        (
            "introspection_endpoint",
            json!(fixture.url("v4", "introspect")),
        ),
        // Required, although there is no grant that has a response type.
        ("response_types_supported", json!([])),
        (
            "scopes_supported",
            json!([
                "appid_default",
                "bills.read",
                "reports.read",
                "reports.write"
            ]),
        ),
    ] {
        assert_eq!(document[member], expected, "{member}");
    }
    // Each scope can be requested, by an application that has it.
    let form = "grant_type=client_credentials&scope=appid_default+reports.read+reports.write";
    let (status, _) = fixture
        .request_token("v4", Some(&fixture.basic()), form)
        .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn the_metadata_of_many_scopes_stay_below_the_limit_of_clients() {
    let fixture = Fixture::new();
    for number in 0..10 {
        let other = fixture.server.register("other").unwrap();
        let scopes =
            (0..50).map(|scope| format!("{number}-{scope}-{}", "x".repeat(40 * (scope % 4))));
        other.set_scopes(scopes).unwrap();
    }
    let other = fixture.server.register("other").unwrap();
    let scopes = (0..50).map(|scope| format!("scope-{scope}"));
    other.set_scopes(scopes).unwrap();
    let url = fixture.url("v4", ".well-known/openid-configuration");
    let request = Request::get(url).body(Bytes::new()).unwrap();
    let document = json_of(&fixture.send(request).await);
    let scopes = document["scopes_supported"].as_array().unwrap();
    assert_eq!(scopes.len(), 100);
    assert!(document.to_string().len() < 16 * 1024);
}

#[tokio::test]
async fn the_metadata_names_the_issuer_of_its_version() {
    let fixture = Fixture::new();
    for (version, issuer) in [
        ("v4", fixture.server.issuer().to_string()),
        ("v3", "authorization-server.test".to_owned()),
    ] {
        let url = fixture.url(version, ".well-known/openid-configuration");
        let document = json_of(
            &fixture
                .send(Request::get(url).body(Bytes::new()).unwrap())
                .await,
        );
        assert_eq!(document["issuer"], issuer);
        assert_eq!(document["token_endpoint"], fixture.url(version, "token"));
        assert_eq!(document["jwks_uri"], fixture.url(version, "publickeys"));
    }
}

/// RFC 8414 §3.1 inserts the well-known part before the issuer's path; OpenID Connect appends it.
#[tokio::test]
async fn metadata_is_also_served_at_the_rfc_8414_location() {
    let fixture = Fixture::new();
    let base = fixture.server.base_url();
    let get = async |url: String| {
        fixture
            .send(Request::get(url).body(Bytes::new()).unwrap())
            .await
    };
    let appended = get(fixture.url("v4", ".well-known/openid-configuration")).await;
    for name in ["oauth-authorization-server", "openid-configuration"] {
        let before = fixture.server.requests(EndpointKind::Discovery);
        let url = format!("{base}/.well-known/{name}/oauth/v4/{TENANT}");
        let inserted = get(url.clone()).await;
        assert_eq!(inserted.status(), StatusCode::OK, "{name}");
        assert_eq!(
            json_of(&inserted)["issuer"],
            fixture.server.issuer().as_str()
        );
        assert_eq!(
            (inserted.body(), inserted.headers()),
            (appended.body(), appended.headers())
        );
        assert_eq!(
            fixture.server.requests(EndpointKind::Discovery),
            before + 1,
            "the token is counted"
        );
        fixture
            .server
            .fail_next(EndpointKind::Discovery, 1, Fault::Outage(None));
        assert_eq!(
            get(url).await.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "faults apply to it"
        );

        // The issuer of version 3 tokens is a bare host: no issuer identifier has this path.
        for path in [
            format!("/oauth/v3/{TENANT}"),
            "/oauth/v4/another".to_owned(),
            String::new(),
        ] {
            let response = get(format!("{base}/.well-known/{name}{path}")).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{name}{path}");
        }
    }
}

#[tokio::test]
async fn jwks_response_has_a_validator() {
    let fixture = Fixture::new();
    let get = |tag: Option<&str>| {
        let mut request = Request::get(fixture.url("v4", "publickeys"));
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        request.body(Bytes::new()).unwrap()
    };
    let first = fixture.send(get(None)).await;
    let key = json_of(&first)["keys"][0].clone();
    let names: Vec<&String> = key.as_object().unwrap().keys().collect();
    assert_eq!(names, ["e", "kid", "kty", "n", "use"], "nothing private");
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let second = fixture.send(get(Some(&tag))).await;
    assert_eq!(
        (second.status(), second.body().len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
    fixture.server.rotate().unwrap();
    assert_eq!(fixture.send(get(Some(&tag))).await.status(), StatusCode::OK);
    let single = fixture
        .send(
            Request::get(fixture.url("v3", "publickey"))
                .body(Bytes::new())
                .unwrap(),
        )
        .await;
    assert_eq!(json_of(&single)["kid"], fixture.server.keys()[0].kid());
}

#[tokio::test]
async fn a_rotated_key_is_published_until_its_tokens_have_expired() {
    let fixture = Fixture::new();
    let old = fixture.server.keys()[0].kid().to_owned();
    let new = fixture.server.rotate().unwrap();
    let kids = || {
        fixture
            .server
            .keys()
            .iter()
            .map(|key| key.kid().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(kids(), [new.clone(), old]);
    assert_eq!(
        fixture.token("v4", "grant_type=client_credentials").await.0["kid"],
        new
    );
    fixture.clock.advance(Duration::from_secs(3601));
    assert_eq!(kids(), [new]);
}

#[tokio::test]
async fn a_withdrawn_key_is_removed_at_once_even_the_current_one() {
    let fixture = Fixture::new();
    let old = fixture.server.keys()[0].kid().to_owned();
    assert!(fixture.server.withdraw(&old).unwrap());
    assert!(!fixture.server.withdraw(&old).unwrap());
    assert_eq!(fixture.server.keys().len(), 1);
    assert!(fixture.server.keys()[0].is_current());
}

#[tokio::test]
async fn every_algorithm_is_issued_and_accepted() {
    let fixture = Fixture::new();
    for &algorithm in Algorithm::ALL {
        fixture.server.rotate_to(algorithm).unwrap();
        let resource = fixture.resource().await;
        let token = fixture.server.mint(&fixture.app).sign();
        assert_eq!(decode(&token).0["alg"], algorithm.name());
        validate(&resource, &token).await.unwrap();
    }
}

#[tokio::test]
async fn tokens_of_both_versions_are_accepted_by_the_binding() {
    let fixture = Fixture::new();
    let resource = fixture.resource().await;
    for version in ["v3", "v4"] {
        let (_, body) = fixture
            .request_token(
                version,
                Some(&fixture.basic()),
                "grant_type=client_credentials",
            )
            .await;
        let context = validate(&resource, body["access_token"].as_str().unwrap())
            .await
            .unwrap();
        assert_eq!(
            context.client_id(),
            Some(fixture.app.client_id()),
            "{version}"
        );
    }
}

#[tokio::test]
async fn introspection_reports_only_valid_tokens_as_active() {
    let fixture = Fixture::new();
    let active = async |token: &str| {
        let request = Request::post(fixture.url("v4", "introspect"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::AUTHORIZATION, fixture.basic())
            .body(format!("token={token}").into())
            .unwrap();
        json_of(&fixture.send(request).await)
    };
    let mint = || fixture.server.mint(&fixture.app);
    let good = active(&mint().sign()).await;
    assert_eq!(
        (&good["active"], &good["scope"]),
        (&json!(true), &json!("appid_default"))
    );
    for bad in [
        mint().expired(),
        mint().with_another_key(),
        mint().unsigned(),
        mint().claim("iss", "x"),
    ] {
        assert_eq!(active(&bad.sign()).await, json!({ "active": false }));
    }
    assert_eq!(active("x").await, json!({ "active": false }));
    let request = Request::post(fixture.url("v4", "introspect"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body("token=x".into())
        .unwrap();
    assert_eq!(
        fixture.send(request).await.status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn minted_tokens_have_the_requested_defect() {
    let fixture = Fixture::new();
    let resource = fixture.resource().await;
    let mint = || fixture.server.mint(&fixture.app);
    validate(&resource, &mint().sign()).await.unwrap();
    // The table of the testing guide.
    let cases = [
        (mint().expired(), RejectionKind::Expired),
        (mint().audience(["orders"]), RejectionKind::InvalidAudience),
        (mint().without("exp"), RejectionKind::InvalidClaims),
        (mint().without("aud"), RejectionKind::InvalidClaims),
        (
            mint().claim("iss", "https://evil.example"),
            RejectionKind::UntrustedIssuer,
        ),
        (mint().with_another_key(), RejectionKind::InvalidSignature),
        (mint().tampered(), RejectionKind::InvalidSignature),
        (
            mint().with_unknown_key(Algorithm::Es256),
            RejectionKind::UnknownKey,
        ),
        (mint().unsigned(), RejectionKind::Malformed),
        (
            mint().hs256_with_public_key(),
            RejectionKind::UnsupportedAlgorithm,
        ),
        (
            mint().header("typ", "dpop+jwt"),
            RejectionKind::UnexpectedTokenType,
        ),
        (
            mint().claim("nbf", 4_000_000_000_u64),
            RejectionKind::NotYetValid,
        ),
        (mint().claim("exp", "soon"), RejectionKind::InvalidClaims),
        (
            mint().claim("cnf", json!({ "jkt": "x" })),
            RejectionKind::MissingProofOfPossession,
        ),
    ];
    for (mint, kind) in cases {
        let shown = format!("{mint:?}");
        let result = validate(&resource, &mint.sign()).await;
        assert_eq!(result.map(|_| ()), Err(kind), "{shown}");
    }
}

#[tokio::test]
async fn an_rfc_9068_token_passes_the_strict_profile() {
    let fixture = Fixture::new();
    let audience = Audience::new(fixture.app.client_id()).unwrap();
    let issuer = fixture.app.binding().unwrap().trusted_issuer(audience);
    let strict = ResourceServer::from_issuer(issuer.profile(TokenProfile::Rfc9068))
        .transport(fixture.server.transport())
        .clock(fixture.clock.clone())
        .start()
        .await
        .unwrap();
    validate(&strict, &fixture.server.mint(&fixture.app).rfc9068().sign())
        .await
        .unwrap();
    assert!(
        validate(&strict, &fixture.server.mint(&fixture.app).sign())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn management_api_matches_app_id() {
    let fixture = Fixture::new();
    let (status, made) = fixture
        .manage("POST", "/applications/", json!({ "name": "reports" }))
        .await;
    assert_eq!(status, StatusCode::OK);
    let id = made["clientId"].as_str().unwrap().to_owned();
    for name in [
        "clientId",
        "tenantId",
        "secret",
        "name",
        "oAuthServerUrl",
        "discoveryEndpoint",
        "type",
    ] {
        assert!(made[name].is_string(), "{name}");
    }
    assert_eq!(made["type"], "regularwebapp");
    let one = format!("/applications/{id}");
    assert_eq!(fixture.manage("GET", &one, Value::Null).await.1, made);
    let (_, renamed) = fixture
        .manage("PUT", &one, json!({ "name": "bills" }))
        .await;
    assert_eq!(renamed["name"], "bills");
    let (_, all) = fixture.manage("GET", "/applications", Value::Null).await;
    assert_eq!(all["applications"].as_array().unwrap().len(), 2);
    let scopes = json!({ "scopes": ["reports.read"] });
    assert_eq!(
        fixture
            .manage("PUT", &format!("{one}/scopes"), scopes.clone())
            .await,
        (StatusCode::OK, scopes.clone())
    );
    assert_eq!(
        fixture
            .manage("GET", &format!("{one}/scopes"), Value::Null)
            .await
            .1,
        scopes
    );
    assert_eq!(
        fixture.manage("DELETE", &one, Value::Null).await.0,
        StatusCode::NO_CONTENT
    );
    for method in ["GET", "DELETE"] {
        assert_eq!(
            fixture.manage(method, &one, Value::Null).await.0,
            StatusCode::NOT_FOUND
        );
    }
}

#[tokio::test]
async fn names_and_scopes_outside_the_limits_are_rejected() {
    let fixture = Fixture::new();
    for name in ["", &"x".repeat(51)] {
        let (status, body) = fixture
            .manage("POST", "/applications", json!({ "name": name }))
            .await;
        assert_eq!(
            (status, &body["error"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_request"))
        );
        assert!(fixture.server.register(name).is_err());
    }
    let fifty = "é".repeat(50);
    assert_eq!(
        fixture
            .manage("POST", "/applications", json!({ "name": fifty }))
            .await
            .0,
        StatusCode::OK
    );
    for body in [
        json!({}),
        json!({ "name": 1 }),
        json!([]),
        json!({ "name": "x", "type": "native" }),
    ] {
        assert_eq!(
            fixture.manage("POST", "/applications", body).await.0,
            StatusCode::BAD_REQUEST
        );
    }
    let path = format!("/applications/{}/scopes", fixture.app.client_id());
    for scope in [
        "Reports",
        "a b",
        "appid_default",
        "openid",
        "",
        &"x".repeat(50),
    ] {
        assert_eq!(
            fixture
                .manage("PUT", &path, json!({ "scopes": [scope] }))
                .await
                .0,
            StatusCode::BAD_REQUEST,
            "{scope}"
        );
    }
    for _ in fixture.server.applications().len()..200 {
        fixture.server.register("x").unwrap();
    }
    assert!(fixture.server.register("one too many").is_err());
}

#[tokio::test]
async fn applications_get_the_scopes_of_their_roles() {
    let fixture = Fixture::new();
    let access = json!([{ "application_id": "orders", "scopes": ["orders.read"] }]);
    let (status, role) = fixture
        .manage(
            "POST",
            "/roles",
            json!({ "name": "clerk", "access": access }),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED);
    let path = format!("/applications/{}/roles", fixture.app.client_id());
    let ids = json!({ "roles": { "ids": [role["id"]] } });
    let (_, assigned) = fixture.manage("PUT", &path, ids).await;
    assert_eq!(assigned["roles"][0]["name"], "clerk");
    let (_, claims) = fixture.token("v4", "grant_type=client_credentials").await;
    assert_eq!(
        (&claims["scope"], &claims["roles"]),
        (&json!("appid_default orders.read"), &json!(["clerk"]))
    );
    let minted = fixture.server.mint(&fixture.app).sign();
    assert_eq!(
        decode(&minted).1,
        claims,
        "a minted token has the same scopes as a requested one"
    );
    let role_path = format!("/roles/{}", role["id"].as_str().unwrap());
    assert_eq!(
        fixture.manage("DELETE", &role_path, Value::Null).await.0,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        fixture.manage("GET", &path, Value::Null).await.1,
        json!({ "roles": [] })
    );
    let unknown = json!({ "roles": { "ids": ["unknown"] } });
    assert_eq!(
        fixture.manage("PUT", &path, unknown).await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn management_requires_the_management_token() {
    let fixture = Fixture::new();
    let basic = fixture.basic();
    for authorization in [None, Some("Bearer wrong"), Some(basic.as_str())] {
        let mut request = Request::get(format!("{}/applications", fixture.server.management_url()));
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = fixture.send(request.body(Bytes::new()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(!String::from_utf8_lossy(response.body()).contains(fixture.app.client_id()));
    }
}

#[tokio::test]
async fn keys_are_rotated_and_withdrawn_through_the_management_api() {
    let fixture = Fixture::new();
    let old = fixture.server.keys()[0].kid().to_owned();
    let (status, rotated) = fixture.manage("POST", "/keys", Value::Null).await;
    assert_eq!(
        (status, rotated["kid"].as_str()),
        (StatusCode::CREATED, Some(fixture.server.keys()[0].kid()))
    );
    assert_eq!(
        fixture
            .manage("DELETE", &format!("/keys/{old}"), Value::Null)
            .await
            .0,
        StatusCode::NO_CONTENT
    );
    let (_, keys) = fixture.manage("GET", "/keys", Value::Null).await;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn management_client_works_with_the_authorization_server() {
    let listening = AuthorizationServer::builder().bind(0).await.unwrap();
    let server = listening.server().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(listening.serve(async move { drop(stopped.await) }));
    let url = tower_oauth::Endpoint::new(server.management_url()).unwrap();
    let client =
        ManagementClient::builder(url, server.management_token().clone()).allow_loopback_http();
    let client = client.build().unwrap();
    let name = tower_oauth::app_id::ApplicationName::new("orders").unwrap();
    let made = client.register(&name).await.unwrap();
    let binding = made.binding().unwrap();
    let tokens = binding
        .token_manager()
        .unwrap()
        .allow_loopback_http()
        .start()
        .unwrap();
    let resource = binding
        .resource_server()
        .unwrap()
        .allow_loopback_http()
        .start()
        .await
        .unwrap();
    let token = tokens.access_token().await.unwrap();
    let context = validate(&resource, token.expose_secret()).await.unwrap();
    assert_eq!(context.client_id(), Some(made.client_id()));
    client.delete(made.client_id()).await.unwrap();
    assert!(client.applications().await.unwrap().is_empty());
    stop.send(()).unwrap();
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn injected_faults_break_responses_but_not_tokens_with_known_keys() {
    let fixture = Fixture::new();
    let resource = fixture.resource().await;
    let token = fixture
        .server
        .mint(&fixture.app)
        .expires_in(Duration::from_secs(86_000))
        .sign();
    for fault in [
        Fault::Outage(Some(1)),
        Fault::Garbage,
        Fault::Empty,
        Fault::Truncated,
        Fault::Oversize,
        Fault::Reset,
        Fault::Hang,
        Fault::Status(StatusCode::NOT_FOUND),
    ] {
        let (fetched, failed) = (
            fixture.server.requests(EndpointKind::Keys),
            resource.key_sets()[0].refreshes_failed(),
        );
        fixture.server.fail(EndpointKind::Keys, fault.clone());
        tokio::time::sleep(Duration::from_secs(400)).await;
        assert!(
            fixture.server.requests(EndpointKind::Keys) > fetched,
            "{fault:?}"
        );
        assert!(
            resource.key_sets()[0].refreshes_failed() > failed,
            "{fault:?}"
        );
        validate(&resource, &token).await.unwrap();
        fixture.server.clear_faults();
        tokio::time::sleep(Duration::from_secs(400)).await;
        assert_eq!(
            resource.key_sets()[0].consecutive_failures(),
            0,
            "{fault:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn faults_count_down_and_the_token_manager_recovers() {
    let fixture = Fixture::new();
    let binding = fixture.app.binding().unwrap();
    fixture
        .server
        .fail_next(EndpointKind::Token, 2, Fault::Outage(None));
    fixture.server.fail_next(
        EndpointKind::Token,
        1,
        Fault::Latency(Duration::from_secs(1)),
    );
    let tokens = binding
        .token_manager()
        .unwrap()
        .transport(fixture.server.transport());
    tokens
        .clock(fixture.clock.clone())
        .start()
        .unwrap()
        .access_token()
        .await
        .unwrap();
    assert_eq!(fixture.server.requests(EndpointKind::Token), 3);
}

#[tokio::test(start_paused = true)]
async fn fail_replaces_the_earlier_fault_and_faults_of_fail_next_apply_first() {
    let fixture = Fixture::new();
    let server = &fixture.server;
    let resource = fixture.resource().await;
    let statuses = [500, 502, 503].map(|status| StatusCode::from_u16(status).unwrap());
    server.fail(EndpointKind::Keys, Fault::Status(statuses[0]));
    server.fail(EndpointKind::Keys, Fault::Status(statuses[2]));
    server.fail_next(EndpointKind::Keys, 1, Fault::Status(statuses[1]));
    for expected in [statuses[1], statuses[2], statuses[2]] {
        let error = resource.refresh_keys().await.unwrap_err();
        assert_eq!(error.status(), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_token_after_a_rotation_is_accepted() {
    let fixture = Fixture::new();
    let resource = fixture.resource().await;
    fixture.server.rotate().unwrap();
    let token = fixture.server.mint(&fixture.app).sign();
    validate(&resource, &token).await.unwrap();
    assert_eq!(fixture.server.requests(EndpointKind::Keys), 2);
}

#[tokio::test(start_paused = true)]
async fn a_resource_server_started_before_its_issuer_becomes_ready() {
    let fixture = Fixture::new();
    fixture
        .server
        .fail_next(EndpointKind::Keys, 3, Fault::Reset);
    let builder = fixture.app.binding().unwrap().resource_server().unwrap();
    let resource = builder
        .transport(fixture.server.transport())
        .clock(fixture.clock.clone())
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    let token = fixture.server.mint(&fixture.app).sign();
    assert_eq!(
        validate(&resource, &token).await.map(|_| ()),
        Err(RejectionKind::KeysUnavailable)
    );
    tokio::time::timeout(Duration::from_secs(10), resource.wait_for_keys())
        .await
        .unwrap();
    validate(&resource, &token).await.unwrap();
}

/// A server with an application, which has its own clock and tenant.
fn issuer_at(now: u64, tenant: &str) -> (AuthorizationServer, RegisteredApplication, ManualClock) {
    let clock = ManualClock::at(UnixTime::from_secs(now));
    let issuer = AuthorizationServer::builder()
        .algorithm(Algorithm::Es256)
        .tenant_id(tenant)
        .clock(clock.clone())
        .build()
        .unwrap();
    let app = issuer.register("shop").unwrap();
    (issuer, app, clock)
}

#[tokio::test(start_paused = true)]
async fn the_transport_of_another_server_is_named_by_its_error() {
    let (issuer, shop, clock) = issuer_at(NOW, "orders");
    let (other, ..) = issuer_at(NOW, "bills");
    let server = || {
        let orders = Audience::new("orders").unwrap();
        ResourceServer::builder(issuer.issuer(), orders).clock(clock.clone())
    };
    let failed = server()
        .transport(other.transport())
        .startup(Startup::Require(Duration::from_secs(10)))
        .start()
        .await;
    let error = failed.unwrap_err().to_string();
    assert!(error.contains("404 Not Found"), "{error}");
    assert!(error.contains("check the issuer"), "{error}");

    let manager = |transport_of: &AuthorizationServer| {
        TokenManager::for_issuer(issuer.issuer(), shop.credentials())
            .unwrap()
            .transport(transport_of.transport())
            .clock(clock.clone())
            .start()
            .unwrap()
    };
    let error = manager(&other).access_token().await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("404"), "{error}");
    let guessed = "the URL is guessed, because the issuer publishes no metadata";
    assert!(error.contains(guessed), "{error}");

    // Of the same tenant there is no error: it responds with its keys, and knows no such client.
    let (same_tenant, ..) = issuer_at(NOW, "orders");
    let orders = server().transport(same_tenant.transport()).start();
    let orders = orders.await.unwrap();
    let token = issuer.mint(&shop).audience(["orders"]).sign();
    let rejected = validate(&orders, &token).await.map(drop);
    assert_eq!(rejected, Err(RejectionKind::UnknownKey));
    let error = manager(&same_tenant).access_token().await.unwrap_err();
    let code = error.oauth_error().map(|error| error.code().to_owned());
    assert_eq!(code.as_deref(), Some("invalid_client"), "{error}");
    manager(&issuer).access_token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn with_two_clocks_tokens_are_not_yet_valid_or_expired_and_a_manager_uses_an_old_one() {
    const DAY: u64 = 24 * 3600;
    let clock = ManualClock::at(UnixTime::from_secs(NOW));
    for (of_issuer, expected) in [
        (NOW + DAY, Err(RejectionKind::NotYetValid)),
        (NOW - DAY, Err(RejectionKind::Expired)),
        (NOW, Ok(())),
    ] {
        let (issuer, shop, _) = issuer_at(of_issuer, TENANT);
        let orders = Audience::new("orders").unwrap();
        let orders = ResourceServer::builder(issuer.issuer(), orders)
            .transport(issuer.transport())
            .clock(clock.clone())
            .start()
            .await
            .unwrap();
        let token = issuer.mint(&shop).audience(["orders"]).sign();
        assert_eq!(validate(&orders, &token).await.map(drop), expected);
    }

    for manager_has_the_clock in [false, true] {
        let (issuer, shop, clock) = issuer_at(NOW, TENANT);
        let manager = TokenManager::for_issuer(issuer.issuer(), shop.credentials())
            .unwrap()
            .audience("orders")
            .transport(issuer.transport());
        let tokens = match manager_has_the_clock {
            true => manager.clock(clock.clone()).start(),
            false => manager.start(),
        };
        let tokens = tokens.unwrap();
        let orders = Audience::new("orders").unwrap();
        let orders = ResourceServer::builder(issuer.issuer(), orders)
            .transport(issuer.transport())
            .clock(clock.clone())
            .start()
            .await
            .unwrap();
        let token = tokens.access_token().await.unwrap();
        let accepted = validate(&orders, token.expose_secret()).await.map(drop);
        assert_eq!(accepted, Ok(()));

        clock.advance(Duration::from_secs(2 * 3600));
        let later = tokens.access_token().await.unwrap();
        let is_new = later.expose_secret() != token.expose_secret();
        let result = validate(&orders, later.expose_secret()).await.map(drop);
        assert_eq!(is_new, manager_has_the_clock);
        let expected = match manager_has_the_clock {
            true => Ok(()),
            false => Err(RejectionKind::Expired),
        };
        assert_eq!(result, expected);
    }
}

/// The sorted names of the files in a folder.
fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn with_state(path: &std::path::Path) -> Result<AuthorizationServer, tower_oauth::ConfigError> {
    AuthorizationServer::builder()
        .algorithm(Algorithm::Es256)
        .state_file(path)
        .build()
}

#[tokio::test]
async fn an_application_may_have_any_scopes_in_process_and_those_of_app_id_by_the_api() {
    let fixture = Fixture::new();
    let scopes = ["read:orders", "Orders.Read", "api://orders/.default"];
    fixture.app.set_scopes(scopes).unwrap();
    let form = "grant_type=client_credentials&scope=read:orders%20api://orders/.default";
    let (_, body) = fixture.token("v4", form).await;
    let scope = body["scope"].as_str().unwrap();
    assert!(
        scope.contains("read:orders api://orders/.default"),
        "{scope}"
    );
    assert!(fixture.app.set_scopes(["read orders"]).is_err());
    assert!(fixture.app.set_scopes([""]).is_err());
}

#[test]
fn applications_and_keys_persist_in_the_state_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.json");
    let build = || with_state(&path);
    let first = build().unwrap();
    let app = first.register("shop").unwrap();
    app.set_scopes(["orders.read"]).unwrap();
    app.set_claim("plan", "gold").unwrap();
    first.rotate().unwrap();
    let second = build().unwrap();
    let kids = |server: &AuthorizationServer| {
        server
            .keys()
            .iter()
            .map(|key| key.kid().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(kids(&second), kids(&first));
    let again = &second.applications()[0];
    assert_eq!((again.client_id(), again.name()), (app.client_id(), "shop"));
    assert_eq!(again.secret().expose_secret(), app.secret().expose_secret());
    assert_eq!(decode(&second.mint(again).sign()).1["plan"], "gold");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert!(
        AuthorizationServer::builder()
            .tenant_id("another")
            .state_file(&path)
            .build()
            .is_err()
    );
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = build().unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(
        std::fs::read(&path).unwrap().len(),
        whole.len() / 2,
        "the file is unchanged"
    );
}

#[cfg(unix)]
#[test]
fn a_state_file_readable_by_others_gets_restricted_permissions() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.json");
    with_state(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    with_state(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

/// A user who can write to the file chooses the signing keys and the secrets.
#[cfg(unix)]
#[test]
fn a_state_file_writable_by_others_is_rejected_and_left_unchanged() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.json");
    let server = with_state(&path).unwrap();
    let text = std::fs::read(&path).unwrap();
    for mode in [0o620, 0o602, 0o666] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        for error in [
            with_state(&path).unwrap_err(),
            server.register("shop").unwrap_err(),
        ] {
            assert_eq!(error.setting(), "state file");
            let error = error.to_string();
            assert!(
                error.contains(path.to_str().unwrap()) && error.contains("chmod 600"),
                "{error}"
            );
        }
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode
        );
        assert_eq!(std::fs::read(&path).unwrap(), text);
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    with_state(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_state_file_of_another_user_is_rejected_and_left_unchanged() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.json");
    let server = with_state(&path).unwrap();
    let (text, ours) = (
        std::fs::read(&path).unwrap(),
        std::fs::metadata(&path).unwrap().uid(),
    );
    let theirs = ours + 1;
    if chown(&path, Some(theirs), None).is_err() {
        use std::io::Write as _;
        // Bypasses the output capture of passing tests.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: only root can change the owner of a file"
        );
        return;
    }
    for error in [
        with_state(&path).unwrap_err(),
        server.register("shop").unwrap_err(),
    ] {
        assert_eq!(error.setting(), "state file");
        let error = error.to_string();
        assert!(
            error.contains(path.to_str().unwrap()) && error.contains("another user"),
            "{error}"
        );
    }
    assert_eq!(std::fs::metadata(&path).unwrap().uid(), theirs);
    assert_eq!(std::fs::read(&path).unwrap(), text);
    chown(&path, Some(ours), None).unwrap();
    with_state(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_file_that_is_no_state_file_is_rejected_and_left_unchanged() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let (inner, notes) = (
        folder.path().join("folder"),
        folder.path().join("notes.txt"),
    );
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(&notes, "milk, bread").unwrap();
    for (path, mode, reason) in [(&inner, 0o755, "is no file"), (&notes, 0o644, "is damaged")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = with_state(path).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            mode,
            "{reason}"
        );
    }
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "milk, bread");
    let endless = with_state(std::path::Path::new("/dev/zero")).unwrap_err();
    assert!(endless.to_string().contains("is no file"), "{endless}");
}

#[cfg(unix)]
#[test]
fn state_file_symlink_is_followed_and_a_dangling_one_is_an_error() {
    let folder = TempDir::new().unwrap();
    let (target, link) = (
        folder.path().join("target.json"),
        folder.path().join("state.json"),
    );
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let error = with_state(&link).unwrap_err();
    assert_eq!(error.setting(), "state file");
    assert!(error.to_string().contains("leads nowhere"), "{error}");
    assert!(!target.exists());

    with_state(&target).unwrap();
    with_state(&link).unwrap().register("shop").unwrap();
    assert!(
        std::fs::symlink_metadata(&link).unwrap().is_symlink(),
        "the symlink is kept"
    );
    assert_eq!(with_state(&target).unwrap().applications().len(), 1);
}

#[test]
fn state_file_changes_of_another_program_are_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.json");
    let (first, second) = (with_state(&path).unwrap(), with_state(&path).unwrap());
    first.register("shop").unwrap();
    let error = second.register("orders").unwrap_err();
    assert!(
        error.to_string().contains("was changed by another program"),
        "{error}"
    );
    assert!(second.rotate().is_err(), "keys neither");
    first.register("bills").unwrap();
    let names: Vec<String> = with_state(&path)
        .unwrap()
        .applications()
        .iter()
        .map(|one| one.name().to_owned())
        .collect();
    assert_eq!(names, ["shop", "bills"]);
}

#[cfg(unix)]
#[test]
fn files_beside_the_state_file_are_left_unchanged() {
    let folder = TempDir::new().unwrap();
    let (path, precious) = (
        folder.path().join("state.json"),
        folder.path().join("precious"),
    );
    std::fs::write(&precious, "kept").unwrap();
    std::os::unix::fs::symlink(&precious, folder.path().join("state.json.new")).unwrap();
    let server = with_state(&path).unwrap();
    server.register("shop").unwrap();
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "kept");
    assert_eq!(
        names(folder.path()),
        ["precious", "state.json", "state.json.new"]
    );
    // A file cannot replace a folder at its path.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir_all(path.join("full")).unwrap();
    assert_eq!(
        server.register("orders").unwrap_err().setting(),
        "state file"
    );
    assert_eq!(
        server.applications().len(),
        1,
        "a change that was not saved is undone"
    );
    assert_eq!(
        names(folder.path()),
        ["precious", "state.json", "state.json.new"],
        "no temporary file is left"
    );
}

#[test]
fn an_inconsistent_state_file_is_damaged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.json");
    let server = with_state(&path).unwrap();
    server
        .register("shop")
        .unwrap()
        .set_scopes(["orders.read"])
        .unwrap();
    server.register("orders").unwrap();
    server.rotate().unwrap();
    let mut sound: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let access = json!([["x", ["desk.open"]]]);
    let role = json!({ "id": "clerk", "name": "clerk", "description": "", "access": access });
    sound["roles"] = json!([role]);
    sound["applications"][0]["role_ids"] = json!(["clerk"]);
    let load = |document: &Value| {
        std::fs::write(&path, document.to_string()).unwrap();
        with_state(&path).map(drop)
    };
    load(&sound).unwrap();
    for (pointer, value) in [
        ("/keys", json!([])),
        ("/keys/0/published_until", json!(1)),
        ("/keys/1/published_until", Value::Null),
        ("/keys/1/kid", sound["keys"][0]["kid"].clone()),
        ("/keys/1/kid", json!("\"><script>")),
        (
            "/applications/1/client_id",
            sound["applications"][0]["client_id"].clone(),
        ),
        ("/applications/1/client_id", json!("../keys")),
        ("/applications/1/client_id", json!("")),
        ("/applications/0/name", json!("")),
        ("/applications/0/name", json!("x".repeat(51))),
        ("/applications/0/secret", json!("")),
        ("/applications/0/type", json!("robot")),
        ("/applications/0/scopes", json!(["Orders Read"])),
        ("/applications/1/role_ids", json!(["unknown"])),
        ("/roles/0/name", json!("")),
        ("/roles/0/access/0/1", json!(["openid.x"])),
        ("/roles", json!([role, role])),
    ] {
        let mut document = sound.clone();
        *document.pointer_mut(pointer).unwrap() = value;
        let error = load(&document).expect_err(pointer);
        assert!(
            error.to_string().contains("is damaged"),
            "{pointer}: {error}"
        );
        let secret = sound["applications"][0]["secret"].as_str().unwrap();
        assert!(!error.to_string().contains(secret), "{pointer}: {error}");
    }
    // The file's location and owner, as far as they can be determined.
    std::fs::write(&path, "{\n  \"tenant_id\": 7\n}").unwrap();
    let error = with_state(&path).unwrap_err().to_string();
    assert!(error.contains("is damaged at line 2, column 16"), "{error}");
    let mut document = sound.clone();
    document["tenant_id"] = json!("somebody-elses");
    let error = load(&document).unwrap_err().to_string();
    assert!(
        error.contains("belongs to another tenant, `somebody-elses`"),
        "{error}"
    );
}

#[test]
fn beyond_50_keys_the_oldest_is_removed() {
    let server = AuthorizationServer::builder()
        .algorithm(Algorithm::Es256)
        .build()
        .unwrap();
    let mut made = vec![server.keys()[0].kid().to_owned()];
    for _ in 0..50 {
        made.push(server.rotate().unwrap());
    }
    let published: Vec<String> = server
        .keys()
        .iter()
        .map(|key| key.kid().to_owned())
        .collect();
    assert!(
        published.iter().eq(made[1..].iter().rev()),
        "the latest key first"
    );
}

#[test]
fn debug_output_contains_no_secrets() {
    let fixture = Fixture::new();
    let shown = format!(
        "{:?} {:?} {:?}",
        fixture.server,
        fixture.app,
        fixture.server.mint(&fixture.app)
    );
    assert!(!shown.contains(fixture.app.secret().expose_secret()));
    assert!(!shown.contains(fixture.server.management_token().expose_secret()));
}

/// The bare host of version 3 is shared by all tenants of a region.
#[tokio::test]
async fn tenant_must_match_the_token_or_its_issuer() {
    let fixture = Fixture::new();
    let resource = fixture.resource().await;
    let mint = || fixture.server.mint(&fixture.app);
    let v3 = "authorization-server.test";
    validate(&resource, &mint().without("tenant").sign())
        .await
        .unwrap();
    validate(&resource, &mint().claim("iss", v3).sign())
        .await
        .unwrap();
    for wrong in [
        mint().claim("iss", v3).without("tenant"),
        mint().claim("iss", v3).claim("tenant", "another"),
        mint().claim("tenant", "another"),
        mint().claim("tenant", 42),
    ] {
        let result = validate(&resource, &wrong.sign()).await;
        assert_eq!(result.map(|_| ()), Err(RejectionKind::InvalidClaims));
    }
}
