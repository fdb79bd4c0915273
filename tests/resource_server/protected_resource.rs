//! The metadata of a protected resource (RFC 9728), and the scopes in challenges.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};
use tower_oauth::key_set::KeySet;
use tower_oauth::resource_server::{ProtectedResource, ProtectedResourceMetadata};
use tower_oauth::{Audience, Endpoint, Issuer, RequireScopeLayer, Scope};
use tower_oauth::{ResourceServer, TrustedIssuer};

use crate::support::{self, Fixture, claims, claims_with, poll_once_or_panic};

const RESOURCE: &str = "https://api.example/orders";
const PLACE: &str = "/.well-known/oauth-protected-resource/orders";

fn server(resource: ProtectedResource) -> ResourceServer {
    ResourceServer::for_resource(resource, support::ISSUER)
        .build()
        .unwrap()
        .0
}

fn metadata(resource: ProtectedResource) -> ProtectedResourceMetadata {
    server(resource).resource_metadata().unwrap().clone()
}

fn document(metadata: &ProtectedResourceMetadata) -> Value {
    serde_json::from_slice(metadata.document()).unwrap()
}

fn named() -> ProtectedResource {
    ProtectedResource::new(RESOURCE).unwrap()
}

async fn respond(metadata: &ProtectedResourceMetadata, request: Request<()>) -> Response<Vec<u8>> {
    let response = metadata.service().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes().to_vec())
}

fn request(method: Method, target: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(target)
        .body(())
        .unwrap()
}

#[test]
fn the_document_has_what_the_operator_says_and_what_the_server_trusts() {
    let page = |name: &str| Endpoint::new(format!("https://docs.example/{name}")).unwrap();
    let resource = named()
        .scopes_supported([Scope::new("orders.read").unwrap()])
        .resource_name("Orders")
        .resource_documentation(&page("how"))
        .resource_policy_uri(&page("policy"))
        .resource_tos_uri(&page("terms"))
        .member("resource_name#fr", "Commandes")
        .unwrap();
    assert_eq!(
        document(&metadata(resource)),
        json!({
            "resource": RESOURCE,
            "authorization_servers": [support::ISSUER],
            "scopes_supported": ["orders.read"],
            "bearer_methods_supported": ["header"],
            "resource_name": "Orders",
            "resource_name#fr": "Commandes",
            "resource_documentation": "https://docs.example/how",
            "resource_policy_uri": "https://docs.example/policy",
            "resource_tos_uri": "https://docs.example/terms",
        })
    );
}

#[test]
fn issuers_are_listed_in_their_order_and_one_with_fixed_keys_only_if_it_is_named() {
    let keys = json!({ "keys": [support::rsa(0).jwk("rsa")] }).to_string();
    let issuer = |name: &str| Issuer::new(name).unwrap();
    let trusted = |name: &str| TrustedIssuer::new(issuer(name), Audience::new("orders").unwrap());
    let fixed = || trusted("https://workload.example");
    let fixed = || fixed().keys(KeySet::from_json(keys.as_bytes()).unwrap());
    let servers = |resource: ProtectedResource| {
        let (server, _refresher) = ResourceServer::from_issuer(trusted("https://b.example"))
            .add_issuer(fixed())
            .add_issuer(trusted("https://a.example"))
            .protected_resource(resource)
            .build()
            .unwrap();
        document(server.resource_metadata().unwrap())["authorization_servers"].clone()
    };
    assert_eq!(
        servers(named()),
        json!(["https://b.example", "https://a.example"])
    );
    let one = named().authorization_servers([issuer("https://workload.example")]);
    assert_eq!(servers(one), json!(["https://workload.example"]));
    assert_eq!(servers(named().authorization_servers([])), Value::Null);
}

#[tokio::test]
async fn get_and_head_respond_with_the_document_to_everyone() {
    let metadata = metadata(named());
    let mut bad_token = request(Method::GET, PLACE);
    for value in ["Bearer x", "Basic x"] {
        let value = value.parse().unwrap();
        bad_token.headers_mut().append(header::AUTHORIZATION, value);
    }
    let mut other_host = request(
        Method::GET,
        "https://evil.example/.well-known/oauth-protected-resource/orders",
    );
    for name in ["host", "x-forwarded-host", "forwarded"] {
        other_host
            .headers_mut()
            .insert(name, "evil.example".parse().unwrap());
    }
    for (request, has_body) in [
        (request(Method::GET, PLACE), true),
        (request(Method::HEAD, PLACE), false),
        (bad_token, true),
        (other_host, true),
    ] {
        let response = respond(&metadata, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        let field = |name| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        assert_eq!(field(header::CONTENT_TYPE), Some("application/json"));
        assert_eq!(field(header::CACHE_CONTROL), Some("public, max-age=300"));
        assert_eq!(field(header::ACCESS_CONTROL_ALLOW_ORIGIN), Some("*"));
        let length = metadata.document().len().to_string();
        assert_eq!(field(header::CONTENT_LENGTH), Some(length.as_str()));
        let body = if has_body {
            metadata.document().to_vec()
        } else {
            Vec::new()
        };
        assert_eq!(response.body(), &body);
    }
}

#[tokio::test]
async fn options_responds_to_a_preflight_and_other_methods_get_405() {
    let metadata = metadata(named());
    let response = respond(&metadata, request(Method::OPTIONS, PLACE)).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert_eq!(
        response.headers()[header::ACCESS_CONTROL_ALLOW_METHODS],
        "GET"
    );
    assert_eq!(
        response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS],
        "*"
    );
    for method in [
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::TRACE,
    ] {
        let response = respond(&metadata, request(method, PLACE)).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD, OPTIONS");
    }
}

#[tokio::test]
async fn another_path_or_query_is_not_the_place_of_the_document() {
    let place = metadata(named());
    for target in [
        "/",
        "//.well-known/oauth-protected-resource/orders",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/orders/",
        "/.well-known/oauth-protected-resource/Orders",
        "/.well-known/oauth-protected-resource/../orders",
        "/.well-known/oauth-protected-resource%2forders",
        "/.well-known/oauth-protected-resource/orders?x=1",
        "/.well-known/oauth-protected-resource/bills",
    ] {
        let response = respond(&place, request(Method::GET, target)).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{target}");
    }
    let query = ProtectedResource::new("https://api.example/orders?tenant=a").unwrap();
    let query = metadata(query);
    for (target, status) in [
        ("/.well-known/oauth-protected-resource/orders?tenant=a", 200),
        ("/.well-known/oauth-protected-resource/orders?tenant=b", 404),
        (PLACE, 404),
    ] {
        let response = respond(&query, request(Method::GET, target)).await;
        assert_eq!(response.status(), status, "{target}");
    }
}

/// In axum, a layer protects the routes that were added before it.
#[tokio::test]
async fn the_document_is_open_beside_protected_routes() {
    let server = server(named());
    let metadata = server.resource_metadata().unwrap();
    let app: Router = Router::new()
        .route("/orders", get(async || "orders"))
        .layer(server.layer())
        .route_service(metadata.path(), metadata.service());
    let send = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap()
    };
    assert_eq!(send(PLACE).await.status(), StatusCode::OK);
    let response = send("/orders").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        response.headers()[header::WWW_AUTHENTICATE],
        format!(
            r#"Bearer realm="resource", resource_metadata="{}""#,
            metadata.url()
        )
    );
}

#[test]
fn the_identifier_is_the_audience_unless_another_is_set() {
    let fixture = |audience: Option<&'static str>| {
        Fixture::with_server(move |keys| {
            let issuer = Issuer::new(support::ISSUER).unwrap();
            let audience = Audience::new(audience.unwrap_or(RESOURCE)).unwrap();
            let issuer = TrustedIssuer::new(issuer, audience).keys(keys);
            ResourceServer::from_issuer(issuer).protected_resource(named())
        })
    };
    let accepts = |fixture: &Fixture, audience: &str| {
        let token = fixture.token(&claims_with(json!({ "aud": audience })));
        poll_once_or_panic(fixture.validate(&token)).is_ok()
    };
    let resource = fixture(None);
    assert!(accepts(&resource, RESOURCE));
    for other in [
        "https://api.example/orders/",
        "https://api.example",
        "orders",
    ] {
        assert!(!accepts(&resource, other), "{other}");
    }
    assert!(accepts(&fixture(Some("orders")), "orders"));
    let error = ResourceServer::for_resource("api.example", support::ISSUER)
        .build()
        .unwrap_err();
    assert_eq!(error.setting(), "resource");
}

#[test]
fn a_401_names_the_scopes_of_the_layer_and_a_403_those_of_the_route() {
    let fixture = Fixture::new();
    let inner = tower::service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    });
    let layer = fixture.server.layer().scope(["orders.read", "orders.list"]);
    let service = layer.layer(RequireScopeLayer::all(["orders.write"]).layer(inner));
    let challenge = |token: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(
                header::AUTHORIZATION,
                format!("Bearer {token}").parse().unwrap(),
            );
        }
        let mut request = Request::new(());
        *request.headers_mut() = headers;
        let response = poll_once_or_panic(service.clone().oneshot(request)).unwrap();
        let challenge = response.headers()[header::WWW_AUTHENTICATE]
            .to_str()
            .unwrap();
        (response.status().as_u16(), challenge.to_owned())
    };
    let scope = r#"scope="orders.read orders.list""#;
    assert_eq!(
        challenge(None),
        (401, format!(r#"Bearer realm="resource", {scope}"#))
    );
    let (status, invalid) = challenge(Some("a.b.c"));
    assert!(status == 401 && invalid.contains("invalid_token") && invalid.ends_with(scope));
    let (status, lacking) = challenge(Some(&fixture.token(&claims())));
    assert!(
        status == 403 && lacking.ends_with(r#"scope="orders.write""#),
        "{lacking}"
    );
    let (status, malformed) = challenge(Some("a b"));
    assert!(
        status == 400 && !malformed.contains("scope="),
        "{malformed}"
    );
}
