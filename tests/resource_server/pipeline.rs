//! One way for a request and for a token: the layer, `authenticate` and `validate`; and one count
//! and one event for each request.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{Request, Response, StatusCode, Version};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth::resource_server::{AuthContextRejection, RejectionKind};
use tower_oauth::{AuthContext, Rejection, RequireScopeLayer, Scope};

use crate::support::issuer::{IssuerReply, ScriptedIssuer, builder, clock, set};
use crate::support::{self, Fixture, bearer, claims_with, log, poll_once_or_panic, rsa};

/// The counts of requests by result, without zeros.
fn counts(recorded: &PrometheusHandle) -> Vec<(String, u64)> {
    let rendered = recorded.render();
    let mut counts: Vec<_> = rendered
        .lines()
        .filter_map(|line| line.strip_prefix("tower_oauth_requests_total{result=\""))
        .filter_map(|line| line.split_once("\"} "))
        .map(|(result, count)| (result.to_owned(), count.parse().unwrap()))
        .filter(|(_, count)| *count > 0)
        .collect();
    counts.sort();
    counts
}

fn counted<const N: usize>(expected: [(&str, u64); N]) -> Vec<(String, u64)> {
    expected
        .map(|(result, count)| (result.to_owned(), count))
        .into()
}

const PARAMETERS: [&str; 2] = [
    r#"Bearer realm="orders""#,
    r#"resource_metadata="https://orders.example/.well-known/oauth-protected-resource""#,
];

/// Sends a request through the layer of the fixture around this service.
async fn call(fixture: &Fixture, app: Router, request: Request<Body>) -> Response<Body> {
    app.layer(fixture.server.layer())
        .oneshot(request)
        .await
        .unwrap()
}

fn challenges<B>(response: &Response<B>) -> Vec<&str> {
    let fields = response.headers().get_all("www-authenticate").iter();
    fields.map(|field| field.to_str().unwrap()).collect()
}

#[test]
fn one_extension_is_added_to_a_request() {
    let fixture = Fixture::new();
    let service = fixture
        .server
        .layer()
        .layer(service_fn(|request: Request<()>| {
            assert!(AuthContext::from_request(&request).is_some());
            assert_eq!(request.extensions().len(), 1);
            ready(Ok::<_, Infallible>(Response::new(())))
        }));
    let token = fixture.token(&support::claims());
    for _ in 0..3 {
        let response = poll_once_or_panic(service.clone().oneshot(bearer(&token, ()))).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(fixture.server.cached_token_count(), 1);
}

#[tokio::test]
async fn a_rejection_of_a_handler_or_inner_layer_gets_the_parameters_of_the_server() {
    let fixture = Fixture::with_metadata();
    let denied = || {
        let scope = Scope::new("orders.write").unwrap();
        Rejection::insufficient_scope([scope])
    };
    let handler = Router::new().route("/", get(move || ready(denied().into_response())));
    let layer = Router::new()
        .route("/", get(|| ready("served")))
        .layer(RequireScopeLayer::all(["orders.write"]));
    for app in [handler, layer] {
        let token = fixture.token(&support::claims());
        let response = call(&fixture, app, bearer(&token, Body::empty())).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let [realm, metadata] = PARAMETERS;
        let description = "The access token lacks a required scope";
        let error = format!(r#"error="insufficient_scope", error_description="{description}""#);
        let challenge = format!(r#"{realm}, {error}, scope="orders.write", {metadata}"#);
        assert_eq!(challenges(&response), [challenge.as_str()]);
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!(rejection.www_authenticate().unwrap(), challenge.as_str());
        assert_eq!(rejection.required_scopes()[0], "orders.write");
    }
}

#[tokio::test]
async fn a_route_that_requires_a_token_has_the_servers_challenge_for_an_anonymous_request() {
    let fixture = Fixture::with_metadata();
    let extractor = Router::new().route("/", get(|_: AuthContext| ready("served")));
    let layer = Router::new()
        .route("/", get(|| ready("served")))
        .layer(RequireScopeLayer::all(["orders.write"]));
    let [realm, metadata] = PARAMETERS;
    for (app, expected) in [
        (extractor, format!("{realm}, {metadata}")),
        // With the scopes that the operation needs, and no error (RFC 6750 §3, §3.1).
        (
            layer,
            format!(r#"{realm}, scope="orders.write", {metadata}"#),
        ),
    ] {
        let app = app.layer(fixture.server.layer().allow_anonymous());
        let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(challenges(&response), [expected]);
    }
}

#[tokio::test]
async fn other_challenges_and_responses_without_one_are_left_alone() {
    let fixture = Fixture::with_metadata();
    let send = async |app: Router| {
        let token = fixture.token(&support::claims());
        call(&fixture, app, bearer(&token, Body::empty())).await
    };
    // The second is no scope token, and not in the challenge.
    let forbidden = || Rejection::insufficient_scope(["orders.write", "a \"b"]);
    // A challenge for another scheme, beside ours.
    let app = Router::new().route(
        "/",
        get(move || {
            let mut response = forbidden().into_response();
            let basic = http::HeaderValue::from_static("Basic realm=\"other\"");
            response.headers_mut().append("www-authenticate", basic);
            ready(response)
        }),
    );
    let response = send(app).await;
    let [ours, basic] = challenges(&response).try_into().unwrap();
    assert!(
        ours.starts_with(r#"Bearer realm="orders", error="#),
        "{ours}"
    );
    assert_eq!(basic, "Basic realm=\"other\"");
    // A response that the program built itself.
    let layer = RequireScopeLayer::all(["orders.write"]).on_rejection(|rejection: &Rejection| {
        let mut response = Response::new(Body::from("no"));
        *response.status_mut() = rejection.status();
        response
    });
    let app = Router::new()
        .route("/", get(|| ready("served")))
        .layer(layer);
    let response = send(app).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(challenges(&response).is_empty());
}

#[tokio::test]
async fn the_challenge_of_an_inner_server_is_not_changed_by_an_outer_one() {
    let (inner, outer) = (Fixture::with_metadata(), Fixture::new());
    let app = Router::new().route("/", get(|| ready("served")));
    // Signed by a key of the outer server that the inner one does not have.
    let header = r#"{"alg":"ES256","kid":"p256"}"#;
    let claims = support::claims().to_string();
    let token = support::compact(&outer.p256, "ES256", header, claims.as_bytes());
    let app = app.layer(inner.server.layer());
    let response = call(&outer, app, bearer(&token, Body::empty())).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let challenges = challenges(&response);
    assert!(challenges[0].starts_with(PARAMETERS[0]), "{challenges:?}");
}

#[test]
fn a_bound_token_is_refused_on_a_cache_hit_as_well() {
    let fixture = Fixture::new();
    let confirmations = [
        json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }),
        json!({ "x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0" }),
        json!({ "kid": "a" }),
        json!({}),
        json!([]),
        json!("a"),
        json!(false),
        Value::Null,
    ];
    for cnf in confirmations {
        let mut claims = support::claims();
        claims["cnf"] = cnf;
        let token = fixture.token(&claims);
        for _ in 0..3 {
            fixture.assert_rejects(&token, RejectionKind::MissingProofOfPossession);
        }
    }
    fixture.assert_accepts(&fixture.token(&support::claims()));
}

/// Proof of possession is not supported, so that nothing proves it.
#[tokio::test]
async fn a_bound_token_is_rejected_with_a_proof_or_a_certificate_header_each_time() {
    let fixture = Fixture::new();
    let mut claims = support::claims();
    claims["cnf"] = json!({ "x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0" });
    let by_certificate = fixture.token(&claims);
    claims["cnf"] = json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" });
    let by_key = fixture.token(&claims);
    let certificate = "Hash=0380ed2f626650c840b2f263e6d2b29fae12ab39ae5db32b25ad27eb5e72e6fd";
    for (authorization, name, value, kind) in [
        (
            format!("Bearer {by_certificate}"),
            "x-forwarded-client-cert",
            certificate,
            RejectionKind::MissingProofOfPossession,
        ),
        (
            format!("Bearer {by_certificate}"),
            "client-cert",
            ":MIIB:",
            RejectionKind::MissingProofOfPossession,
        ),
        (
            format!("DPoP {by_key}"),
            "dpop",
            "e30.e30.AA",
            RejectionKind::MissingToken,
        ),
        (
            format!("Bearer {by_key}"),
            "dpop",
            "e30.e30.AA",
            RejectionKind::InvalidRequest,
        ),
    ] {
        for _ in 0..3 {
            let request = Request::get("/orders")
                .header("authorization", &authorization)
                .header(name, value);
            let (head, ()) = request.body(()).unwrap().into_parts();
            let rejection = fixture.server.authenticate(&head).await.unwrap_err();
            assert_eq!(rejection.kind(), kind, "{name}");
        }
    }
}

#[test]
fn a_grpc_request_is_rejected_with_an_http_status() {
    let fixture = Fixture::new();
    let request = Request::post("/orders.v1.Orders/Get")
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc");
    let (head, ()) = request.body(()).unwrap().into_parts();
    let rejection = poll_once_or_panic(fixture.server.authenticate(&head)).unwrap_err();
    assert!(rejection.is_grpc());
    assert_eq!(rejection.status(), StatusCode::UNAUTHORIZED);
}

#[test]
fn a_bare_token_that_cannot_be_in_a_header_is_an_invalid_token() {
    let fixture = Fixture::new();
    let validate = |token: &str| poll_once_or_panic(fixture.server.validate(token));
    let good = fixture.token(&support::claims());
    assert_eq!(validate(&good).unwrap().subject(), Some("app"));
    for bad in [
        format!("Bearer {good}"),
        format!("{good}\n"),
        format!(" {good}"),
        "é".to_owned(),
    ] {
        let rejection = validate(&bad).unwrap_err();
        assert_eq!(rejection.kind(), RejectionKind::Malformed);
        assert_eq!(rejection.error(), Some("invalid_token"));
    }
    assert_eq!(
        validate("").unwrap_err().kind(),
        RejectionKind::MissingToken
    );
    let long = "a".repeat(16 * 1024 + 1);
    assert_eq!(
        validate(&long).unwrap_err().kind(),
        RejectionKind::TokenTooLong
    );
}

#[tokio::test]
async fn each_request_is_counted_once_and_each_rejection_logged_once() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let fixture = Fixture::new();
    let (good, expired) = (
        fixture.token(&support::claims()),
        fixture.token(&claims_with(json!({ "exp": support::NOW - 3600 }))),
    );
    let app = Router::new()
        .route("/", get(|| ready("served")))
        .route("/context", get(|_: AuthContext| ready("served")))
        .route(
            "/optional",
            get(|context: Option<AuthContext>| ready(context.map_or("anonymous", |_| "served"))),
        )
        .route(
            "/write",
            get(|| ready("served")).layer(RequireScopeLayer::all(["orders.write"])),
        )
        .route(
            "/denied",
            get(|| {
                let scope = Scope::new("orders.write").unwrap();
                ready(Rejection::insufficient_scope([scope]))
            }),
        )
        .route("/absent", get(|| ready(StatusCode::NOT_FOUND)))
        .layer(fixture.server.layer().allow_anonymous());
    log::clear_log();
    let send = async |path: &str, token: Option<&str>| {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        app.clone()
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let (token, good) = (good.as_str(), Some(good.as_str()));
    assert_eq!(send("/", good).await, 200);
    assert_eq!(send("/context", good).await, 200);
    assert_eq!(send("/absent", good).await, 404);
    assert_eq!(counts(&recorded), counted([("granted", 3)]));
    assert_eq!(send("/", None).await, 200);
    assert_eq!(send("/optional", None).await, 200);
    assert_eq!(
        counts(&recorded),
        counted([("anonymous", 2), ("granted", 3)])
    );
    assert_eq!(log::count("request rejected"), 0);
    assert_eq!(send("/context", None).await, 401);
    assert_eq!(send("/write", None).await, 401);
    assert_eq!(send("/write", good).await, 403);
    assert_eq!(send("/denied", good).await, 403);
    assert_eq!(send("/", Some(&expired)).await, 401);
    assert_eq!(log::count("request rejected"), 5);
    let rejected = log::lines("request rejected");
    let lacks_scope = |line: &&String| line.contains("reason=\"insufficient_scope\"");
    assert_eq!(rejected.iter().filter(lacks_scope).count(), 2);
    // One a minute for each reason; that of a handler does not describe the token, and is apart.
    assert_eq!(log::lines(" WARN ").len(), 4);
    assert_eq!(
        counts(&recorded),
        counted([
            ("anonymous", 2),
            ("expired", 1),
            ("granted", 3),
            ("insufficient_scope", 2),
            ("missing_token", 2)
        ])
    );
    // Without the layer, each call counts as a request.
    let (head, ()) = bearer(token, ()).into_parts();
    fixture.server.authenticate(&head).await.unwrap();
    fixture.server.validate(token).await.unwrap();
    fixture.server.validate(&expired).await.unwrap_err();
    let total: u64 = counts(&recorded).iter().map(|(_, count)| count).sum();
    assert_eq!(total, 10 + 3);
    assert_eq!(log::count("request rejected"), 6);
    let rendered = recorded.render();
    let cache = |what: &str| {
        let name = format!("tower_oauth_token_cache_{what}_total ");
        let line = rendered
            .lines()
            .find_map(|line| line.strip_prefix(name.as_str()));
        line.unwrap().parse::<u64>().unwrap()
    };
    // Nine requests had a token: seven times the good one, which is cached from the second on.
    assert_eq!((cache("hits"), cache("misses")), (5, 4));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_before_its_response_counts_as_cancelled() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    let hangs = Arc::new(tokio::sync::Semaphore::new(0));
    let service = ServiceBuilder::new()
        .layer(server.layer())
        .service(service_fn({
            let hangs = Arc::clone(&hangs);
            move |_: Request<()>| {
                let hangs = Arc::clone(&hangs);
                async move {
                    hangs.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(Response::new(()))
                }
            }
        }));
    let short = Duration::from_millis(50);
    let send = async |token: &str| {
        let request = bearer(token, ());
        tokio::time::timeout(short, service.clone().oneshot(request))
            .await
            .is_err()
    };
    let good = support::issuer::token("a", rsa(0));
    // Dropped while the inner service works.
    assert!(send(&good).await);
    assert_eq!(counts(&recorded), counted([("cancelled", 1)]));
    // Dropped while it waits for newer keys.
    issuer.set_reply(IssuerReply::Hang);
    let unknown = support::issuer::token("x", rsa(1));
    assert!(send(&unknown).await);
    assert_eq!(counts(&recorded), counted([("cancelled", 2)]));
    let (head, ()) = bearer(&unknown, ()).into_parts();
    assert!(
        tokio::time::timeout(short, server.authenticate(&head))
            .await
            .is_err()
    );
    assert!(
        tokio::time::timeout(short, server.validate(&unknown))
            .await
            .is_err()
    );
    assert_eq!(counts(&recorded), counted([("cancelled", 4)]));
    hangs.add_permits(1);
    assert!(!send(&good).await);
    assert_eq!(
        counts(&recorded),
        counted([("cancelled", 4), ("granted", 1)])
    );
}

#[tokio::test]
async fn a_service_that_fails_counts_as_granted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let fixture = Fixture::new();
    let service = fixture.server.layer().layer(service_fn(|_: Request<()>| {
        ready(Err::<Response<()>, _>("failed"))
    }));
    let request = bearer(&fixture.token(&support::claims()), ());
    assert_eq!(service.oneshot(request).await.unwrap_err(), "failed");
    assert_eq!(counts(&recorded), counted([("granted", 1)]));
}

#[test]
fn a_missing_layer_is_counted_once_behind_the_layer_of_another_server() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let fixture = Fixture::new();
    // The context does not reach the inner layer.
    let strip = tower::util::MapRequestLayer::new(|mut request: Request<()>| {
        request.extensions_mut().clear();
        request
    });
    let service = ServiceBuilder::new()
        .layer(fixture.server.layer())
        .layer(strip)
        .layer(RequireScopeLayer::all(["orders.read"]))
        .service(service_fn(|_: Request<()>| {
            pending::<Result<Response<()>, Infallible>>()
        }));
    let request = bearer(&fixture.token(&support::claims()), ());
    let response = poll_once_or_panic(service.oneshot(request)).unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(counts(&recorded), counted([("layer_missing", 1)]));
    let _shape: fn(Rejection) -> AuthContextRejection = AuthContextRejection::LayerMissing;
}
