//! The same layer in front of axum, hyper and tonic services, over loopback sockets. The issuer
//! runs in this process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::handler::{Handler as _, HandlerWithoutStateExt as _};
use axum::response::IntoResponse;
use axum::routing::{get, get_service};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication, TokenMint};
use tower_oauth::resource_server::{Algorithm, RejectionKind, RequiredScopes, Scoped};
use tower_oauth::{
    Audience, AuthContext, Origin, Rejection, RequireScopeLayer, ResourceServer, Scope,
    TokenManager, TrustedIssuer,
};

use crate::support::log;

/// An issuer, a caller, and the resource server that the caller's tokens are for.
struct Fixture {
    issuer: AuthorizationServer,
    shop: RegisteredApplication,
    orders: ResourceServer,
}

impl Fixture {
    async fn new() -> Self {
        let issuer = AuthorizationServer::builder()
            .algorithm(Algorithm::Es256)
            .build()
            .unwrap();
        let shop = issuer.register("shop").unwrap();
        let orders = ResourceServer::builder(issuer.issuer(), Audience::new("orders").unwrap());
        let orders = orders.transport(issuer.transport()).start().await.unwrap();
        Self {
            issuer,
            shop,
            orders,
        }
    }

    fn mint(&self) -> TokenMint {
        self.issuer.mint(&self.shop).audience(["orders"])
    }
}

/// The value of `Authorization`.
fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn get_body(address: SocketAddr, path: &str, token: Option<&str>) -> (StatusCode, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut request = Request::builder().uri(format!("http://{address}{path}"));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = client
        .request(request.body(Empty::new()).unwrap())
        .await
        .unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn axum_protects_the_routes_before_the_layer_and_unknown_paths() {
    let fixture = Fixture::new().await;
    let token = fixture.mint().sign();
    let app = Router::new()
        .route("/before", get(async || "before"))
        .layer(fixture.orders.layer())
        .route("/after", get(async || "after"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    for (path, without_token, with_token) in [
        ("/before", StatusCode::UNAUTHORIZED, StatusCode::OK),
        ("/after", StatusCode::OK, StatusCode::OK),
        ("/unknown", StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND),
    ] {
        assert_eq!(
            get_body(address, path, None).await.0,
            without_token,
            "{path}"
        );
        assert_eq!(
            get_body(address, path, Some(&token)).await.0,
            with_token,
            "{path}"
        );
    }
}

/// Whoever looks for the authorization server has no token yet.
#[tokio::test]
async fn a_layer_outside_of_the_metadata_document_protects_it() {
    const RESOURCE: &str = "https://api.example/orders";
    let fixture = Fixture::new().await;
    let orders = ResourceServer::for_resource(RESOURCE, fixture.issuer.issuer());
    let orders = orders.transport(fixture.issuer.transport());
    let orders = orders.start().await.unwrap();
    let metadata = orders.resource_metadata().unwrap();
    let document = || Router::new().route_service(metadata.path(), metadata.service());
    let other = fixture.mint().sign();
    let own = fixture.mint().audience([RESOURCE]).sign();
    let outside = [
        document().layer(orders.layer()),
        Router::new().merge(document()).layer(orders.layer()),
        Router::new().fallback_service(orders.layer().layer(document())),
    ];
    let beside = Router::new().layer(orders.layer()).merge(document());
    let get = async |app: &Router, token: Option<&str>| {
        let mut request = Request::get(metadata.path());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap()
    };
    for token in [None, Some("x.y.z"), Some(other.as_str())] {
        for app in &outside {
            let response = get(app, token).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{token:?}");
            // The challenge leads to the document that cannot be read.
            let challenge = response.headers()[header::WWW_AUTHENTICATE].to_str();
            assert!(challenge.unwrap().contains(metadata.url()));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.is_empty());
        }
        assert_eq!(get(&beside, token).await.status(), StatusCode::OK);
    }
    // It is protected, not gone.
    for app in &outside {
        assert_eq!(get(app, Some(&own)).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn axum_works_with_extractors_and_per_route_scopes() {
    log::clear_log();
    let fixture = Fixture::new().await;
    let app = Router::new()
        .route(
            "/who",
            get(async |context: AuthContext| context.subject().unwrap_or_default().to_owned()),
        )
        .route(
            "/orders",
            get(async || "orders").layer(RequireScopeLayer::all(["orders.read"])),
        )
        .route(
            "/both",
            get(async || "both").layer(RequireScopeLayer::all(["orders.read", "orders.write"])),
        )
        .route(
            "/either",
            get(async || "either").layer(RequireScopeLayer::any(["orders.write", "orders.read"])),
        )
        .layer(fixture.orders.layer())
        .route("/unprotected", get(async |_: AuthContext| "never"))
        .merge(
            Router::new()
                .route(
                    "/maybe",
                    get(async |context: Option<AuthContext>| format!("{}", context.is_some())),
                )
                .route("/must", get(async |_: AuthContext| "never without"))
                .layer(fixture.orders.layer().allow_anonymous()),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let token = fixture.mint().scope("orders.read").sign();
    let with = async |path| get_body(address, path, Some(&token)).await;
    assert_eq!(
        with("/who").await,
        (StatusCode::OK, fixture.shop.client_id().to_owned())
    );
    assert_eq!(with("/orders").await, (StatusCode::OK, "orders".to_owned()));
    assert_eq!(with("/either").await, (StatusCode::OK, "either".to_owned()));
    assert_eq!(with("/both").await.0, StatusCode::FORBIDDEN);
    assert_eq!(with("/maybe").await, (StatusCode::OK, "true".to_owned()));
    assert_eq!(
        with("/unprotected").await.0,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    let without = async |path| get_body(address, path, None).await;
    assert_eq!(
        without("/unprotected").await.0,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    // Once a minute, over all handlers.
    assert_eq!(log::count("ERROR"), 1);
    assert!(log::logged(
        "a handler that extracts `AuthContext` or `Claims` is outside of"
    ));
    assert_eq!(
        without("/who").await,
        (StatusCode::UNAUTHORIZED, String::new())
    );
    assert_eq!(
        without("/maybe").await,
        (StatusCode::OK, "false".to_owned())
    );
    assert_eq!(without("/must").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn axum_applies_a_requirement_of_a_group_to_unknown_paths_unless_it_is_a_route_layer() {
    let fixture = Fixture::new().await;
    let token = fixture.mint().scope("orders.read").sign();
    let write = || RequireScopeLayer::all(["orders.write"]);
    let group = || Router::new().route("/orders", get(async || "orders"));
    let open = || Router::new().route("/open", get(async || "open"));
    for (name, app, unknown) in [
        ("layer", group().layer(write()), StatusCode::FORBIDDEN),
        (
            "layer, in a router that merges the group",
            open().merge(group().layer(write())),
            StatusCode::FORBIDDEN,
        ),
        (
            "layer, in a group that merges others",
            group().layer(write()).merge(open()),
            StatusCode::NOT_FOUND,
        ),
        (
            "route_layer",
            group().route_layer(write()),
            StatusCode::NOT_FOUND,
        ),
        (
            "route_layer, in a router that merges the group",
            open().merge(group().route_layer(write())),
            StatusCode::NOT_FOUND,
        ),
        (
            "route_layer, in a group that merges others",
            group().route_layer(write()).merge(open()),
            StatusCode::NOT_FOUND,
        ),
    ] {
        let app = app.layer(fixture.orders.layer());
        let send = async |path: &str| {
            let request = Request::get(path).header(header::AUTHORIZATION, bearer(&token));
            let request = request.body(Body::empty()).unwrap();
            app.clone().oneshot(request).await.unwrap().status()
        };
        assert_eq!(send("/orders").await, StatusCode::FORBIDDEN, "{name}");
        assert_eq!(send("/unknown").await, unknown, "{name}");
        if name.contains("merges") {
            assert_eq!(send("/open").await, StatusCode::OK, "{name}");
        }
    }
}

#[tokio::test]
async fn axum_applies_a_requirement_on_a_method_to_the_methods_before_it() {
    let fixture = Fixture::new().await;
    let token = fixture.mint().sign();
    let read = || RequireScopeLayer::all(["orders.read"]);
    let route = |methods| {
        Router::new()
            .route("/", methods)
            .layer(fixture.orders.layer())
    };
    let (list, create) = (async || "list", async || "create");
    let (ok, forbidden) = (StatusCode::OK, StatusCode::FORBIDDEN);
    for (app, of_post) in [
        (route(get(list).layer(read()).post(create)), ok),
        (route(get(list).post(create).layer(read())), forbidden),
    ] {
        for (method, expected) in [("GET", forbidden), ("POST", of_post)] {
            let request = Request::builder().method(method);
            let request = request.header(header::AUTHORIZATION, bearer(&token));
            let request = request.body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), expected, "{method}");
        }
    }
}

/// A layer that counts the services that it creates, and has no other effect.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<AtomicUsize>);

impl<S> Layer<S> for Counting {
    type Service = S;

    fn layer(&self, inner: S) -> S {
        self.0.fetch_add(1, Ordering::SeqCst);
        inner
    }
}

#[tokio::test]
async fn axum_creates_a_service_for_each_request_of_a_handler_with_a_layer_only() {
    let (of_handler, of_service) = (Counting::default(), Counting::default());
    let hello = async || "hello";
    let app: Router = Router::new()
        .route("/handler", get(hello.layer(of_handler.clone())))
        .route(
            "/service",
            get_service(of_service.layer(hello.into_service())),
        );
    let created = |counting: &Counting| counting.0.load(Ordering::SeqCst);
    let before = [created(&of_handler), created(&of_service)];
    for path in ["/handler", "/service"] {
        for _ in 0..5 {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
    }
    let after = [created(&of_handler), created(&of_service)];
    assert_eq!([after[0] - before[0], after[1] - before[1]], [5, 0]);
}

struct Read;

impl RequiredScopes for Read {
    const SCOPES: &'static [&'static str] = &["orders.read"];
}

struct ReadAll;

impl RequiredScopes for ReadAll {
    const SCOPES: &'static [&'static str] = &["orders.read.all"];
}

/// An error of a service, with a rejection as one of its cases.
#[derive(Debug)]
enum ServiceError {
    Rejected(Rejection),
}

impl From<Rejection> for ServiceError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl IntoResponse for ServiceError {
    fn into_response(self) -> axum::response::Response {
        match self {
            Self::Rejected(rejection) => rejection.into_response(),
        }
    }
}

/// A client that requests exactly the scopes of each challenge. Returns those of the token that is
/// accepted at last, if one is.
async fn scopes_after_challenges(
    fixture: &Fixture,
    server: &ResourceServer,
    service: &Router,
) -> Option<String> {
    let service = service.clone().layer(server.layer());
    let mut scopes = String::new();
    for _ in 0..5 {
        let token = fixture.mint().scope(&scopes).sign();
        let request = Request::get("/").header(header::AUTHORIZATION, format!("Bearer {token}"));
        let request = request.body(Body::empty()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        if response.status() == StatusCode::OK {
            return Some(scopes);
        }
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let rejection = response.extensions().get::<Rejection>().unwrap();
        let named = rejection.required_scopes().iter().map(Scope::as_str);
        scopes = named.collect::<Vec<_>>().join(" ");
        let challenge = response.headers()[header::WWW_AUTHENTICATE]
            .to_str()
            .unwrap();
        let parameter = format!(r#", scope="{scopes}""#);
        assert!(challenge.contains(&parameter), "{challenge:?}");
    }
    None
}

#[tokio::test]
async fn axum_names_the_scopes_of_layers_around_a_handler_and_none_of_its_other_requirements() {
    let fixture = Fixture::new().await;
    let read = || RequireScopeLayer::all(["orders.read"]);
    let at = |route| Router::new().route("/", route);
    let both = Some("orders.read orders.read.all");
    let rows = [
        (
            "a layer and an extractor",
            at(get(async |_: Scoped<ReadAll>| "orders").layer(read())),
            both,
        ),
        (
            "a layer and a handler",
            at(get(async |caller: AuthContext| {
                caller.require_scopes(["orders.read.all"])?;
                Ok::<_, Rejection>("orders")
            })
            .layer(read())),
            both,
        ),
        (
            "a layer and an error type of the service",
            at(get(async |caller: AuthContext| {
                caller.require_scopes(["orders.read.all"])?;
                Ok::<_, ServiceError>("orders")
            })
            .layer(read())),
            both,
        ),
        (
            "two extractors",
            at(get(async |_: Scoped<Read>, _: Scoped<ReadAll>| "orders")),
            None,
        ),
        (
            "an extractor and a handler that names the others",
            at(get(async |caller: Scoped<Read>| {
                caller.require_scopes(["orders.read.all"])?;
                Ok::<_, Rejection>("orders")
            })),
            None,
        ),
        (
            "an extractor and a handler that names all",
            at(get(async |caller: Scoped<Read>| {
                caller.require_scopes(["orders.read", "orders.read.all"])?;
                Ok::<_, Rejection>("orders")
            })),
            both,
        ),
    ];
    for (name, service, expected) in rows {
        let scopes = scopes_after_challenges(&fixture, &fixture.orders, &service).await;
        assert_eq!(scopes.as_deref(), expected, "{name}");
    }
}

#[tokio::test]
async fn the_challenge_of_a_route_does_not_name_the_scopes_of_the_issuer() {
    let fixture = Fixture::new().await;
    let issuer = TrustedIssuer::new(fixture.issuer.issuer(), Audience::new("orders").unwrap())
        .require_scopes(["orders"])
        .transport(fixture.issuer.transport());
    let server = ResourceServer::from_issuer(issuer).start().await.unwrap();
    for (scopes, expected) in [
        (vec!["orders.read"], None),
        (vec!["orders", "orders.read"], Some("orders orders.read")),
    ] {
        let route = get(async || "orders").layer(RequireScopeLayer::all(scopes));
        let service = Router::new().route("/", route);
        let scopes = scopes_after_challenges(&fixture, &server, &service).await;
        assert_eq!(scopes.as_deref(), expected);
    }
}

#[tokio::test]
async fn hyper_works_without_a_framework() {
    let fixture = Fixture::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = ServiceBuilder::new()
        .layer(fixture.orders.layer())
        .service(service_fn(|request: Request<Incoming>| async move {
            let context = AuthContext::from_request(&request).unwrap();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(
                context.issuer().to_string(),
            )))
        }));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            });
        }
    });
    let token = fixture.mint().sign();
    assert_eq!(
        get_body(address, "/", Some(&token)).await,
        (StatusCode::OK, fixture.issuer.issuer().to_string())
    );
    assert_eq!(
        get_body(address, "/", None).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        get_body(address, "/", Some(&fixture.mint().tampered().sign()))
            .await
            .0,
        StatusCode::UNAUTHORIZED
    );
}

/// A gRPC service without generated code: tonic's own server and status, one unary method.
#[derive(Clone, Debug)]
struct WhoAmI;

impl tonic::server::NamedService for WhoAmI {
    const NAME: &'static str = "test.WhoAmI";
}

impl tower::Service<Request<tonic::body::Body>> for WhoAmI {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let subject = AuthContext::from_request(&request)
            .and_then(AuthContext::subject)
            .unwrap_or_default()
            .to_owned();
        std::future::ready(Ok(tonic::Status::failed_precondition(subject).into_http()))
    }
}

/// The event of a scope layer that no request passes after a resource server.
const LAYER_MISSING: &str = "`RequireScopeLayer` is outside of `ResourceServerLayer`, or there is \
                             none: add `.layer(server.layer())`";

fn assert_logged_once(rejection: Option<&Rejection>) {
    assert_eq!(
        rejection.map(Rejection::kind),
        Some(RejectionKind::LayerMissing)
    );
    assert_eq!((log::count("ERROR"), log::count(LAYER_MISSING)), (1, 1));
}

#[tokio::test]
async fn axum_rejects_with_500_and_one_event_if_the_layers_are_in_the_wrong_order() {
    let fixture = Fixture::new().await;
    log::clear_log();
    let app = Router::new()
        .route("/", get(async || "never"))
        .layer(fixture.orders.layer())
        .layer(RequireScopeLayer::all(["orders.read"]));
    let token = fixture.mint().scope("orders.read").sign();
    for authorization in [format!("Bearer {token}"), "Basic YTpi".to_owned()] {
        let request = Request::builder().header(header::AUTHORIZATION, authorization);
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE));
        assert_logged_once(response.extensions().get());
    }
}

#[tokio::test]
async fn tower_rejects_with_500_and_one_event_for_each_layer_without_a_resource_server() {
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    for _ in 0..2 {
        log::clear_log();
        let layer = RequireScopeLayer::any(["orders.read"]);
        // Each service of a layer shares its limit.
        for service in [layer.layer(inner), layer.clone().layer(inner)] {
            let response = service.oneshot(Request::new(())).await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_logged_once(response.extensions().get());
        }
    }
}

#[tokio::test]
async fn tonic_rejects_with_status_internal_if_the_resource_server_is_missing() {
    log::clear_log();
    let service = RequireScopeLayer::all(["orders.read"]).layer(WhoAmI);
    let request = Request::builder()
        .method("POST")
        .version(http::Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(tonic::body::Body::empty())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), tonic::Code::Internal);
    assert_logged_once(response.extensions().get());
}

#[tokio::test]
async fn tonic_rejects_with_grpc_status_and_serves_with_the_auth_context() {
    let fixture = Fixture::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = tonic::transport::Server::builder()
        .layer(fixture.orders.layer())
        .add_service(WhoAmI)
        .serve(address);
    tokio::spawn(server);
    let channel = loop {
        match tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
        {
            Ok(channel) => break channel,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    let call = async |token: Option<String>| {
        let mut request = Request::builder()
            .method("POST")
            .uri(format!("http://{address}/test.WhoAmI/Ask"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header("te", "trailers");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(tonic::body::Body::empty()).unwrap();
        let response = channel.clone().oneshot(request).await.unwrap();
        tonic::Status::from_header_map(response.headers()).unwrap()
    };
    assert_eq!(call(None).await.code(), tonic::Code::Unauthenticated);
    assert_eq!(
        call(Some(fixture.mint().expired().sign())).await.code(),
        tonic::Code::Unauthenticated
    );
    let served = call(Some(fixture.mint().sign())).await;
    assert_eq!(
        (served.code(), served.message()),
        (tonic::Code::FailedPrecondition, fixture.shop.client_id())
    );
}

/// A warning of the guide: a server without TLS reads the token of a call to its `https` address.
#[tokio::test]
async fn tonic_without_tls_sends_an_https_call_and_its_token_in_plain_text() {
    let fixture = Fixture::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://{}", listener.local_addr().unwrap());
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let service = service_fn({
        let seen = Arc::clone(&seen);
        move |request: Request<Incoming>| {
            let field = request.headers()[header::AUTHORIZATION].to_str().unwrap();
            seen.lock().unwrap().push(field.to_owned());
            let status = tonic::Status::failed_precondition("read");
            let response: Response<tonic::body::Body> = status.into_http();
            std::future::ready(Ok::<_, Infallible>(response))
        }
    });
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
        let stream = TokioIo::new(stream);
        let served = builder.serve_connection(stream, TowerToHyperService::new(service));
        served.await.unwrap();
    });
    let tokens = TokenManager::for_issuer(fixture.issuer.issuer(), fixture.shop.credentials())
        .unwrap()
        .transport(fixture.issuer.transport())
        .start()
        .unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(origin.clone()).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let layer = tokens.layer([Origin::new(&origin).unwrap()]);
    let request = Request::post(format!("{origin}/test.WhoAmI/Ask"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(tonic::body::Body::empty())
        .unwrap();
    let response = layer.layer(channel).oneshot(request).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.message(), "read");
    let token = tokens.access_token().await.unwrap();
    let expected = bearer(token.expose_secret());
    assert_eq!(*seen.lock().unwrap(), [expected]);
}
