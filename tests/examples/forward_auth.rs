//! The example `forward_auth`, without a proxy: `tests/interop/proxies.rs` has nginx and Caddy.

#[allow(dead_code, reason = "its `main` is not used here")]
#[path = "../../examples/forward_auth.rs"]
mod source;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use tower_oauth::authorization_server::{
    AuthorizationServer, EndpointKind, Fault, RegisteredApplication, TokenMint,
};
use tower_oauth::resource_server::{Algorithm, Startup};
use tower_oauth::{Audience, ResourceServer, Scope, TrustedIssuer};

use crate::support::program::{self, Serving, example};

/// An issuer, a caller, and the routes of the example for the audience `orders`.
struct Fixture {
    issuer: AuthorizationServer,
    shop: RegisteredApplication,
    routes: Router,
}

impl Fixture {
    async fn new(required_scopes: &[&str]) -> Self {
        let issuer = AuthorizationServer::builder()
            .algorithm(Algorithm::Es256)
            .build()
            .unwrap();
        let shop = issuer.register("shop").unwrap();
        let routes = routes(&issuer, Startup::Wait(WAIT), required_scopes).await;
        Self {
            issuer,
            shop,
            routes,
        }
    }

    fn mint(&self) -> TokenMint {
        let mint = self.issuer.mint(&self.shop).audience(["orders"]);
        mint.claim("sub", "shop-1").claim("client_id", "shop")
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        self.routes.clone().oneshot(request).await.unwrap()
    }
}

const WAIT: std::time::Duration = std::time::Duration::from_secs(10);

async fn routes(issuer: &AuthorizationServer, startup: Startup, scopes: &[&str]) -> Router {
    let scopes = scopes.iter().map(|scope| Scope::new(scope).unwrap());
    let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders").unwrap());
    let server = ResourceServer::from_issuer(trusted.require_scopes(scopes))
        .transport(issuer.transport())
        .startup(startup)
        .start()
        .await
        .unwrap();
    source::router(server)
}

fn request(token: &str) -> Request<Body> {
    Request::get("/auth")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap()
}

fn field<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    let mut values = response.headers().get_all(name).iter();
    let value = values.next().map(|value| value.to_str().unwrap());
    assert_eq!(values.next(), None, "{name} is repeated");
    value
}

fn identity(response: &Response<Body>) -> [Option<&str>; 3] {
    ["x-auth-subject", "x-auth-client-id", "x-auth-scope"].map(|name| field(response, name))
}

/// Every combination that could make a refusal look like a gRPC response.
fn requests(authorization: Option<&str>) -> Vec<Request<Body>> {
    let mut requests = Vec::new();
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS", "PURGE"] {
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            for content_type in ["", "application/grpc", "application/grpc+proto", "text/a"] {
                let mut request = Request::builder()
                    .method(method)
                    .uri("/auth")
                    .version(version);
                if let Some(authorization) = authorization {
                    request = request.header(header::AUTHORIZATION, authorization);
                }
                if !content_type.is_empty() {
                    request = request
                        .header(header::CONTENT_TYPE, content_type)
                        .header("te", "trailers");
                }
                requests.push(request.body(Body::empty()).unwrap());
            }
        }
    }
    requests
}

#[tokio::test]
async fn a_valid_token_gets_204_with_the_identity_for_every_method() {
    let fixture = Fixture::new(&["orders.read"]).await;
    let token = fixture.mint().scope("orders.read orders.write").sign();
    for request in requests(Some(&format!("Bearer {token}"))) {
        let case = format!("{request:?}");
        let response = fixture.call(request).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{case}");
        let expected = ["shop-1", "shop", "orders.read orders.write"].map(Some);
        assert_eq!(identity(&response), expected, "{case}");
        assert_eq!(field(&response, "cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn a_refusal_has_the_status_of_its_reason_for_every_method_version_and_content_type() {
    let fixture = Fixture::new(&["orders.read", "orders.write"]).await;
    let bearer = |token: String| Some(format!("Bearer {token}"));
    let without_keys = AuthorizationServer::builder().build().unwrap();
    without_keys.fail(EndpointKind::Discovery, Fault::Outage(None));
    without_keys.fail(EndpointKind::Keys, Fault::Outage(None));
    let keyless_app = without_keys.register("shop").unwrap();
    let keyless_token = without_keys.mint(&keyless_app).audience(["orders"]).sign();
    let keyless = routes(&without_keys, Startup::Background, &[]).await;
    let insufficient = r#"scope="orders.read orders.write""#;
    let cases = [
        (None, 401, r#"Bearer realm="resource""#),
        (Some("Basic YTpi".to_owned()), 401, "Bearer"),
        (Some("Bearer".to_owned()), 400, "invalid_request"),
        (Some("Bearer a b".to_owned()), 400, "invalid_request"),
        (Some("Bearer a.b.c".to_owned()), 401, "invalid_token"),
        (
            bearer(fixture.mint().with_another_key().sign()),
            401,
            "invalid_token",
        ),
        (
            bearer(fixture.mint().expired().sign()),
            401,
            "invalid_token",
        ),
        (
            bearer(fixture.mint().audience(["bills"]).sign()),
            401,
            "invalid_token",
        ),
        (
            bearer(fixture.mint().scope("orders.read").sign()),
            403,
            insufficient,
        ),
        (bearer(keyless_token), 503, ""),
    ];
    for (authorization, status, challenge) in cases {
        let routes = if status == 503 {
            &keyless
        } else {
            &fixture.routes
        };
        for request in requests(authorization.as_deref()) {
            let case = format!("{status} {request:?}");
            let response = routes.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{case}");
            if status == 503 {
                assert_eq!(field(&response, "www-authenticate"), None, "{case}");
                assert_eq!(field(&response, "retry-after"), Some("5"), "{case}");
            } else {
                let found = field(&response, "www-authenticate").unwrap();
                assert!(found.contains(challenge), "{case}: {found}");
                assert_eq!(field(&response, "retry-after"), None, "{case}");
            }
            assert_eq!(field(&response, "cache-control"), Some("no-store"));
            assert_eq!(field(&response, "grpc-status"), None, "{case}");
            assert_eq!(identity(&response), [None; 3], "{case}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.is_empty(), "{case}");
        }
    }
}

#[tokio::test]
async fn only_the_path_auth_is_answered() {
    let fixture = Fixture::new(&[]).await;
    let token = fixture.mint().sign();
    for path in ["/", "/auth/", "/auth/x", "//auth", "/Auth"] {
        let mut request = request(&token);
        *request.uri_mut() = path.parse().unwrap();
        assert_eq!(
            fixture.call(request).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

/// A field value is trimmed by its reader, and cannot have control characters.
#[tokio::test]
async fn a_value_that_a_header_cannot_carry_unchanged_is_empty() {
    let fixture = Fixture::new(&[]).await;
    for (subject, expected) in [
        ("shop 1", "shop 1"),
        ("a,b;c=\"d\"", "a,b;c=\"d\""),
        ("", ""),
        (" shop-1", ""),
        ("shop-1 ", ""),
        ("shop\t1", ""),
        ("shop-1\r\nx-auth-scope: admin", ""),
        ("shop\u{0}", ""),
        ("shop\u{7f}", ""),
        ("shöp", ""),
        ("shop-1\u{a0}", ""),
    ] {
        let token = fixture.mint().claim("sub", subject).scope("").sign();
        let response = fixture.call(request(&token)).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{subject:?}");
        let expected = [expected, "shop", ""].map(Some);
        assert_eq!(identity(&response), expected, "{subject:?}");
    }
    let token = fixture.mint().without("sub").without("client_id");
    let response = fixture
        .call(request(&token.scope("read \"all ü wri\\te,x").sign()))
        .await;
    assert_eq!(identity(&response), ["", "", "read"].map(Some));
}

#[tokio::test]
async fn the_program_serves_until_sigterm_and_logs_no_token() {
    let mut issuer = example("authorization_server");
    issuer.env("RUST_LOG", "error");
    let issuer = Serving::start(issuer).await;
    let mut program = example("forward_auth");
    program
        .env("ISSUER", issuer.text("oauthServerUrl"))
        .env("AUDIENCE", format!("bills, {}", issuer.text("clientId")))
        .env("JWKS_URI", issuer.text("oauthServerUrl") + "/publickeys")
        .env("SCOPE", " appid_default  ")
        .env("RUST_LOG", "trace");
    let program = Serving::start(program).await;
    let url = program.text("listening") + "/auth";
    let answer = reqwest::Client::new()
        .post(issuer.text("oauthServerUrl") + "/token")
        .basic_auth(issuer.text("clientId"), Some(issuer.text("secret")))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials");
    let answer = answer.send().await.unwrap().bytes().await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let token = answer["access_token"].as_str().unwrap();

    let keys_are_there = async {
        while program::get(&url, Some(token)).await.0 == StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT, keys_are_there).await.unwrap();
    let client = reqwest::Client::new();
    let allowed = client.request(Method::DELETE, &url).bearer_auth(token);
    let allowed = allowed.send().await.unwrap();
    assert_eq!(allowed.status(), StatusCode::NO_CONTENT);
    assert_eq!(allowed.headers()["x-auth-scope"], "appid_default");
    assert_eq!(
        allowed.headers()["x-auth-subject"],
        issuer.text("clientId").as_str()
    );
    assert_eq!(
        program::get(&url, None).await.0,
        StatusCode::UNAUTHORIZED,
        "no token"
    );
    let (code, log) = program.terminate().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("request rejected"), "the log is not empty");
    assert!(!log.contains(token) && !log.contains("eyJ"), "{log}");
}

#[tokio::test]
async fn an_invalid_setting_exits_with_2_and_names_the_setting() {
    let issuer = ("ISSUER", "https://as.example");
    let audience = ("AUDIENCE", "orders");
    let cases: [(&[(&str, &str)], &str); 10] = [
        (&[], "ISSUER"),
        (&[("ISSUER", "http://as.example"), audience], "ISSUER"),
        (&[("ISSUER", "as.example"), audience], "ISSUER"),
        (&[issuer], "AUDIENCE"),
        (&[issuer, ("AUDIENCE", "")], "AUDIENCE"),
        (&[issuer, ("AUDIENCE", "a,,b")], "AUDIENCE"),
        (&[issuer, audience, ("JWKS_URI", "keys")], "JWKS_URI"),
        (
            &[issuer, audience, ("JWKS_URI", "http://as.example/k")],
            "JWKS_URI",
        ),
        (&[issuer, audience, ("SCOPE", "read \"all\"")], "SCOPE"),
        (&[issuer, audience, ("PORT", "70000")], "PORT"),
    ];
    for (variables, named) in cases {
        let output = example("forward_auth")
            .envs(variables.iter().copied())
            .output();
        let output = tokio::time::timeout(WAIT, output)
            .await
            .expect(named)
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variables:?}: {log}");
        assert!(
            log.contains(named) && log.lines().count() == 1,
            "{variables:?}: {log}"
        );
        assert!(output.stdout.is_empty());
    }
}
