//! The metadata of a protected resource (RFC 9728), and the scopes in challenges.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, ServiceExt as _};
use tower_oauth::authorization_server::AuthorizationServer;
use tower_oauth::key_set::KeySet;
use tower_oauth::resource_server::{
    Algorithm, ProtectedResource, ProtectedResourceMetadata, ResourceServerBuilder,
};
use tower_oauth::{Audience, Endpoint, Issuer, RequireScopeLayer, Scope};
use tower_oauth::{ResourceServer, TrustedIssuer};

use crate::support::{self, Fixture, claims, claims_with, poll_once_or_panic};

const RESOURCE: &str = "https://api.example/orders";
const LOCATION: &str = "/.well-known/oauth-protected-resource/orders";

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
    let mut bad_token = request(Method::GET, LOCATION);
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
        (request(Method::GET, LOCATION), true),
        (request(Method::HEAD, LOCATION), false),
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
    let response = respond(&metadata, request(Method::OPTIONS, LOCATION)).await;
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
        let response = respond(&metadata, request(method, LOCATION)).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD, OPTIONS");
    }
}

#[tokio::test]
async fn another_path_or_query_is_not_the_location_of_the_document() {
    let location = metadata(named());
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
        let response = respond(&location, request(Method::GET, target)).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{target}");
    }
    let query = ProtectedResource::new("https://api.example/orders?tenant=a").unwrap();
    let query = metadata(query);
    for (target, status) in [
        ("/.well-known/oauth-protected-resource/orders?tenant=a", 200),
        ("/.well-known/oauth-protected-resource/orders?tenant=b", 404),
        (LOCATION, 404),
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
    assert_eq!(send(LOCATION).await.status(), StatusCode::OK);
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

#[tokio::test]
async fn axum_wraps_unknown_paths_with_layer_and_leaves_them_a_404_with_route_layer() {
    let server = server(named());
    let metadata = server.resource_metadata().unwrap();
    let orders = || Router::new().route("/orders", get(async || "orders"));
    let (unauthorized, not_found) = (StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND);
    for (app, unknown) in [
        (orders().layer(server.layer()), unauthorized),
        (orders().route_layer(server.layer()), not_found),
    ] {
        let app: Router = app.route_service(metadata.path(), metadata.service());
        for (path, expected) in [
            ("/orders", unauthorized),
            (LOCATION, StatusCode::OK),
            ("/unknown", unknown),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), expected, "{path}");
        }
    }
}

#[tokio::test]
async fn axum_refuses_a_path_with_a_colon_or_a_star_unless_the_router_allows_it() {
    for segment in [":a", "*a"] {
        let resource = ProtectedResource::new(format!("https://api.example/{segment}")).unwrap();
        let metadata = metadata(resource);
        let add = |router: Router| router.route_service(metadata.path(), metadata.service());
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drop::<Router>(add(Router::new()));
        }));
        let message = refused.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("without_v07_checks"), "{message}");

        let app = add(Router::new().without_v07_checks());
        for (path, expected) in [
            (metadata.path(), StatusCode::OK),
            // The segment is no parameter.
            (
                "/.well-known/oauth-protected-resource/b",
                StatusCode::NOT_FOUND,
            ),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), expected, "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_identifier_is_the_audience_unless_another_is_set() {
    let issuer = AuthorizationServer::builder()
        .algorithm(Algorithm::Es256)
        .build()
        .unwrap();
    let shop = issuer.register("shop").unwrap();
    let start = async |server: ResourceServerBuilder| {
        server.transport(issuer.transport()).start().await.unwrap()
    };
    let accepts = async |server: &ResourceServer, audience: &str| {
        let token = issuer.mint(&shop).audience([audience]).sign();
        server.validate(&token).await.is_ok()
    };
    let resource = start(ResourceServer::for_resource(RESOURCE, issuer.issuer())).await;
    assert!(accepts(&resource, RESOURCE).await);
    for other in [
        "https://api.example/orders/",
        "https://api.example",
        "orders",
    ] {
        assert!(!accepts(&resource, other).await, "{other}");
    }
    let other = ResourceServer::builder(issuer.issuer(), "orders").protected_resource(named());
    let other = start(other).await;
    assert!(accepts(&other, "orders").await);
    assert!(!accepts(&other, RESOURCE).await);
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

/// A server with the resources `/orders` and `/bills`, on a port.
async fn listening() -> (std::net::SocketAddr, Fixture) {
    let fixture = Fixture::with_server(|keys| {
        let issuer = Issuer::new(support::ISSUER).unwrap();
        let issuer = TrustedIssuer::new(issuer, Audience::new(RESOURCE).unwrap());
        let resource = named().authorization_servers([Issuer::new(support::ISSUER).unwrap()]);
        ResourceServer::from_issuer(issuer.keys(keys)).protected_resource(resource)
    });
    let bills = fixture.server.also("https://api.example/bills").unwrap();
    let mut app = Router::new();
    for (server, path) in [(&fixture.server, "/orders"), (&bills, "/bills")] {
        let metadata = server.resource_metadata().unwrap();
        let layer = server.layer().scope(["orders.read"]);
        let routes = Router::new().route(path, get(async || "ok"));
        // Unlike `layer`, without the fallback for other paths.
        let routes = routes.route_layer(layer);
        app = app
            .merge(routes)
            .route_service(metadata.path(), metadata.service());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, fixture)
}

/// Sends a request as it is, and returns the response without its date.
async fn exchange(address: std::net::SocketAddr, request_line: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request_line}\r\n{fields}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    let lines = response.split("\r\n");
    let lines: Vec<_> = lines.filter(|line| !line.starts_with("date: ")).collect();
    lines.join("\r\n")
}

#[tokio::test]
async fn the_host_of_a_request_is_in_no_response() {
    let (address, fixture) = listening().await;
    let foreign = fixture.token(&claims_with(json!({ "aud": "https://api.example/bills" })));
    let own = fixture.token(&claims_with(json!({ "aud": RESOURCE, "scope": "" })));
    let location = format!("https://api.example{LOCATION}");
    for (target, token, expected) in [
        (LOCATION, None, "200 OK"),
        ("/orders", None, "401 Unauthorized"),
        ("/orders", Some(&foreign), "401 Unauthorized"),
        ("/orders", Some(&own), "200 OK"),
    ] {
        let token = token.map_or(String::new(), |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let own_host = format!("Host: api.example\r\n{token}");
        let usual = exchange(address, &format!("GET {target} HTTP/1.1"), &own_host).await;
        assert!(
            usual.starts_with(&format!("HTTP/1.1 {expected}")),
            "{usual}"
        );
        if expected.starts_with("401") {
            let metadata = format!(r#"resource_metadata="{location}""#);
            assert_eq!(usual.matches("resource_metadata").count(), 1, "{usual}");
            assert!(usual.contains(&metadata), "{usual}");
        }
        let evil = format!(
            "Host: evil.example\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Prefix: /evil\r\nForwarded: host=evil.example;proto=http\r\n\
             X-Original-URL: /evil\r\nX-Rewrite-URL: /evil\r\n{token}"
        );
        for line in [
            format!("GET {target} HTTP/1.1"),
            format!("GET http://evil.example{target} HTTP/1.1"),
            format!("GET https://evil.example:8443{target} HTTP/1.1"),
        ] {
            let response = exchange(address, &line, &evil).await;
            assert_eq!(response, usual, "{line}");
        }
        let old = exchange(address, &format!("GET {target} HTTP/1.0"), &token).await;
        let status_and_body = |response: &str| {
            let body = response.split("\r\n\r\n").nth(1).unwrap().to_owned();
            (response[8..12].to_owned(), body)
        };
        assert_eq!(status_and_body(&old), status_and_body(&usual));
    }
}

#[tokio::test]
async fn a_server_responds_with_a_document_at_its_own_location_only_and_with_any_token() {
    let (address, fixture) = listening().await;
    let get = async |target: &str, fields: &str| {
        let line = format!("GET {target} HTTP/1.1");
        exchange(address, &line, &format!("Host: api.example\r\n{fields}")).await
    };
    let expired = fixture.token(&claims_with(json!({ "exp": 1, "aud": RESOURCE })));
    let usual = get(LOCATION, "").await;
    assert!(
        usual.contains(r#""resource":"https://api.example/orders""#),
        "{usual}"
    );
    for token in ["x", "", "a.b.c", expired.as_str()] {
        let field = format!("Authorization: Bearer {token}\r\n");
        assert_eq!(get(LOCATION, &field).await, usual);
        assert_eq!(get(LOCATION, &field.repeat(2)).await, usual);
    }
    let bills = "/.well-known/oauth-protected-resource/bills";
    let other = get(bills, "").await;
    assert!(
        other.contains(r#""resource":"https://api.example/bills""#),
        "{other}"
    );
    for target in [
        "//.well-known/oauth-protected-resource/orders",
        "/.well-known//oauth-protected-resource/orders",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/",
        "/.well-known/oauth-protected-resource/orders/",
        "/.well-known/oauth-protected-resource/ORDERS",
        "/.Well-Known/oauth-protected-resource/orders",
        "/.well-known/oauth-protected-resource/../x",
        "/.well-known/oauth-protected-resource/bills/../orders",
        "/.well-known/oauth-protected-resource/./orders",
        "/x/../.well-known/oauth-protected-resource/orders",
        "/.well-known/oauth-protected-resource%2forders",
        "/.well-known/oauth-protected-resource/%6frders",
        "/.well-known/oauth-protected-resource/orders%2f..%2fbills",
        "/.well-known/oauth-protected-resource/orders;x=1",
        "/.well-known/oauth-protected-resource/orders?x=1",
        "/.well-known/oauth-protected-resource/orders?",
    ] {
        let response = get(target, "").await;
        assert!(response.starts_with("HTTP/1.1 404"), "{target}: {response}");
        assert!(!response.contains("\"resource\""), "{target}: {response}");
    }
    for method in ["POST", "PUT", "TRACE", "DELETE", "X"] {
        let line = format!("{method} {LOCATION} HTTP/1.1");
        let response = exchange(address, &line, "Host: api.example\r\n").await;
        assert!(response.starts_with("HTTP/1.1 405"), "{response}");
        assert!(response.contains("allow: GET, HEAD, OPTIONS"), "{response}");
    }
}

#[test]
fn a_scope_that_no_challenge_can_have_is_an_error_and_a_layer_panics_with_it() {
    for bad in ["a\"b", "a\\b", "a b", "", "a\nb", "\u{e9}"] {
        assert!(Scope::new(bad).is_err(), "{bad:?}");
        let layer = server(named()).layer();
        let scoped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| layer.scope([bad])));
        let panic = scoped.unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("each must be a scope token"), "{message}");
    }
}

#[test]
fn a_layer_without_scopes_names_none_in_its_challenges() {
    let layer = server(named()).layer().scope([""; 0]);
    let inner = tower::service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    });
    let response = poll_once_or_panic(layer.layer(inner).oneshot(Request::new(()))).unwrap();
    let challenge = response.headers()[header::WWW_AUTHENTICATE]
        .to_str()
        .unwrap();
    assert!(!challenge.contains("scope"), "{challenge}");
}

#[test]
fn a_401_or_403_of_the_inner_service_is_passed_on_as_it_is() {
    let fixture = Fixture::with_server(|keys| {
        let issuer = Issuer::new(support::ISSUER).unwrap();
        let issuer = TrustedIssuer::new(issuer, Audience::new(RESOURCE).unwrap());
        ResourceServer::from_issuer(issuer.keys(keys)).protected_resource(named())
    });
    let token = fixture.token(&claims_with(json!({ "aud": RESOURCE })));
    let bearer = r#"Bearer realm="inner", error="insufficient_scope", scope="inner""#;
    for status in [401, 403] {
        for challenges in [&[][..], &[bearer], &["Basic realm=\"inner\"", bearer]] {
            let inner = tower::service_fn(move |_: Request<()>| async move {
                let mut response = Response::builder().status(status);
                for challenge in challenges {
                    response = response.header(header::WWW_AUTHENTICATE, *challenge);
                }
                Ok::<_, std::convert::Infallible>(response.body("inner".to_owned()).unwrap())
            });
            let layer = fixture.server.layer().scope(["orders.read"]);
            let request = support::bearer(&token, ());
            let response = poll_once_or_panic(layer.layer(inner).oneshot(request)).unwrap();
            assert_eq!(response.status(), status);
            let fields = response.headers().get_all(header::WWW_AUTHENTICATE);
            assert!(fields.iter().eq(challenges), "{challenges:?}");
            assert_eq!(response.headers().len(), challenges.len());
            assert_eq!(response.body(), "inner");
        }
    }
}
