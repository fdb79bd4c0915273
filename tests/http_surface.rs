//! `attack-checklist`, "HTTP surface", as far as bearer tokens go: one test for each row.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use serde_json::json;
use support::{Bench, claims, claims_with, now_or_never};
use tower::{Layer, ServiceExt};
use tower_oauth::{
    Audience, AuthContext, Endpoint, Issuer, KeySet, Rejection, RejectionKind, RequireScopeLayer,
    ResourceServer, ResourceServerLayer, TrustedIssuer,
};

fn send(bench: &Bench, request: http::request::Builder) -> Response<Full<Bytes>> {
    now_or_never(bench.send(request.body(Full::default()).unwrap()))
}

fn kind(response: &Response<Full<Bytes>>) -> Option<RejectionKind> {
    response
        .extensions()
        .get::<Rejection>()
        .map(Rejection::kind)
}

/// CVE-2026-47673 (Hono: any scheme accepted)
#[test]
fn row_22_several_tokens_fields_or_methods_are_a_bad_request() {
    let bench = Bench::new();
    let token = bench.token(&claims());
    // Never seen, remembered by the cache, and at hand.
    for sent_before in [0, 3, 30] {
        for _ in 0..sent_before {
            bench.accepts(&token);
        }
        assert_eq!(
            bench.server.cached_token_count(),
            u64::from(sent_before > 0)
        );
        several_tokens_fields_or_methods_are_a_bad_request(&bench, &token);
    }
}

fn several_tokens_fields_or_methods_are_a_bad_request(bench: &Bench, token: &str) {
    let bearer = format!("Bearer {token}");
    let twice = Request::builder()
        .header(header::AUTHORIZATION, &bearer)
        .header(header::AUTHORIZATION, &bearer);
    let mixed = Request::builder()
        .header(header::AUTHORIZATION, "Basic YTpi")
        .header(header::AUTHORIZATION, &bearer);
    let joined = Request::builder().header(header::AUTHORIZATION, format!("{bearer}, {bearer}"));
    let repeated = Request::builder().header(header::AUTHORIZATION, format!("Bearer {bearer}"));
    let query = Request::builder()
        .uri("/orders?access_token=x")
        .header(header::AUTHORIZATION, &bearer);
    let disguised = Request::builder()
        .uri("/?access%5Ftoken=x")
        .header(header::AUTHORIZATION, &bearer);
    let proof = Request::builder()
        .header("dpop", "x.y.z")
        .header(header::AUTHORIZATION, &bearer);
    let proofs = Request::builder()
        .header("dpop", "x")
        .header("dpop", "y")
        .header(header::AUTHORIZATION, &bearer);
    for request in [
        twice, mixed, joined, repeated, query, disguised, proof, proofs,
    ] {
        let response = send(bench, request);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(kind(&response), Some(RejectionKind::InvalidRequest));
        let challenge = response.headers()[header::WWW_AUTHENTICATE]
            .to_str()
            .unwrap();
        assert!(
            challenge.contains(r#"error="invalid_request""#),
            "{challenge}"
        );
    }
    for scheme in ["Basic", "DPoP", "Token", "Digest", "Negotiate"] {
        let field = format!("{scheme} {token}");
        let response = send(
            bench,
            Request::builder().header(header::AUTHORIZATION, field),
        );
        assert_eq!(kind(&response), Some(RejectionKind::MissingToken));
    }
}

#[test]
fn row_23_the_scheme_is_case_insensitive_and_one_space_follows() {
    let bench = Bench::new();
    let token = bench.token(&claims());
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let response = send(
            &bench,
            Request::builder().header(header::AUTHORIZATION, format!("{scheme} {token}")),
        );
        assert_eq!(response.status(), StatusCode::OK, "{scheme}");
    }
    for field in [
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer\t{token}"),
        format!("Bearer  {token}"),
        format!("Bearer {token} "),
        format!("Bearer {token} x"),
        format!("Bearer{token}"),
    ] {
        let response = send(
            &bench,
            Request::builder().header(header::AUTHORIZATION, &field),
        );
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{field}");
    }
}

/// RFC 6750 §3.1: what a route wants is answered in the name of the resource server that judged the
/// token.
#[test]
fn one_scope_layer_behind_several_resource_servers_speaks_for_each() {
    let bench = Bench::new();
    let keys = json!({ "keys": [bench.rsa.jwk("rsa")] }).to_string();
    let behind = RequireScopeLayer::all(["admin"]);
    let servers = ["orders", "reports"].map(|realm| {
        let audience = Audience::new(support::AUDIENCE).unwrap();
        let issuer = TrustedIssuer::new(Issuer::new(support::ISSUER).unwrap(), audience)
            .keys(KeySet::from_json(keys.as_bytes()).unwrap());
        (
            realm,
            ResourceServer::from_issuer(issuer)
                .realm(realm)
                .clock(bench.clock.clone())
                .build()
                .unwrap()
                .0,
        )
    });
    for (realm, server) in servers.iter().chain(&servers) {
        let inner = tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        });
        let service = server.layer().layer(behind.layer(inner));
        let field = format!("Bearer {}", bench.token(&claims()));
        let request = Request::builder()
            .header(header::AUTHORIZATION, field)
            .body(())
            .unwrap();
        let response = now_or_never(service.oneshot(request)).unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let challenge = response.headers()[header::WWW_AUTHENTICATE]
            .to_str()
            .unwrap();
        assert!(challenge.starts_with(&format!(
            r#"Bearer realm="{realm}", error="insufficient_scope""#
        )));
        assert!(challenge.contains(r#"scope="admin""#), "{challenge}");
    }
}

/// Whatever is wrong with the token besides, so that the answer tells nothing of it.
#[test]
fn row_22_what_stands_behind_a_token_makes_a_bad_request_of_any() {
    let bench = Bench::new();
    let tokens = [
        bench.token(&claims()),
        bench.token(&claims_with(json!({ "exp": 1_000_000_000 }))),
        bench.token(&claims_with(json!({ "iss": "https://other.example" }))),
        bench.token(&claims_with(json!({ "aud": "other" }))),
        bench.with_header(r#"{"alg":"HS256","kid":"rsa"}"#),
        bench.with_header(r#"{"alg":"RS256","kid":"other"}"#),
        bench.with_payload(b"{}"),
    ];
    let without_keys = ResourceServer::builder(
        Issuer::new(support::ISSUER).unwrap(),
        Audience::new(support::AUDIENCE).unwrap(),
    );
    let without_keys = without_keys.clock(bench.clock.clone()).build().unwrap().0;
    let mut bare = Bench::new();
    bare.server = without_keys;
    for token in tokens {
        for behind in [" x", " Bearer x", ",Basic YTpi", ", Basic YTpi", " ", "\t"] {
            for bench in [&bench, &bare] {
                let field = format!("Bearer {token}{behind}");
                let response = send(
                    bench,
                    Request::builder().header(header::AUTHORIZATION, &field),
                );
                assert_eq!(
                    kind(&response),
                    Some(RejectionKind::InvalidRequest),
                    "{field}"
                );
            }
        }
    }
}

#[test]
fn row_24_tokens_in_the_query_or_body_are_not_looked_for() {
    let bench = Bench::new();
    let token = bench.token(&claims());
    let request = Request::builder().uri(format!("/orders?access_token={token}"));
    assert_eq!(
        kind(&send(&bench, request)),
        Some(RejectionKind::MissingToken)
    );
    let form = Request::builder()
        .method(Method::POST)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(format!("access_token={token}")))
        .unwrap();
    assert_eq!(
        kind(&now_or_never(bench.send(form))),
        Some(RejectionKind::MissingToken)
    );
}

/// Anybody can send such requests, as many as they like.
#[test]
fn tokens_in_the_query_cause_one_warning_a_minute() {
    let bench = Bench::new();
    let requests = |many: usize| {
        support::log::forget();
        for _ in 0..many {
            send(&bench, Request::builder().uri("/orders?access_token=a.b.c"));
        }
        (
            support::log::count("WARN"),
            support::log::count("the query, where it is ignored"),
        )
    };
    assert_eq!(requests(50), (1, 50));
    bench.clock.advance(Duration::from_secs(59));
    assert_eq!(requests(50), (0, 50));
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(requests(50), (1, 50));
}

/// No `Debug` of a request prints the token: not where it is served, nor where it passes without
/// one.
#[test]
fn the_authorization_field_is_sensitive_behind_the_layer() {
    let bench = Bench::new();
    let token = bench.token(&claims());
    let printed = |layer: ResourceServerLayer, fields: &[&str]| {
        let service = Layer::layer(
            &layer,
            tower::service_fn(|request: Request<()>| async move {
                Ok::<_, std::convert::Infallible>(Response::new(format!("{request:?}")))
            }),
        );
        let mut request = Request::builder();
        for field in fields {
            request = request.header(header::AUTHORIZATION, *field);
        }
        let response = now_or_never(service.oneshot(request.body(()).unwrap())).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body()
    };
    // Verified, from the token cache, and from the thread's part of it.
    for _ in 0..20 {
        let printed = printed(bench.server.layer(), &[&format!("Bearer {token}")]);
        assert!(
            printed.contains("Sensitive") && !printed.contains(&token),
            "{printed}"
        );
    }
    let printed = printed(bench.server.layer().allow_anonymous(), &["Basic czNjcjN0"]);
    assert!(
        printed.contains("Sensitive") && !printed.contains("czNjcjN0"),
        "{printed}"
    );
}

#[test]
fn row_25_bytes_that_are_no_visible_ascii() {
    let bench = Bench::new();
    for field in [
        &b"Bearer \xff\xfe"[..],
        "Bearer é".as_bytes(),
        b"Bearer a\tb",
    ] {
        let request = Request::builder().header(
            header::AUTHORIZATION,
            HeaderValue::from_bytes(field).unwrap(),
        );
        assert_eq!(
            kind(&send(&bench, request)),
            Some(RejectionKind::InvalidRequest)
        );
    }
}

#[test]
fn row_26_nothing_of_the_request_is_in_the_answer() {
    let bench = Bench::new();
    let mark = "x0x0mark";
    let header = json!({ "alg": "RS256", "kid": format!("{mark}\"") }).to_string();
    let payload =
        claims_with(json!({ "iss": format!("https://{mark}.example"), "scope": mark })).to_string();
    let token = support::compact(bench.rsa, "RS256", &header, payload.as_bytes());
    let alg = bench.with_header(&json!({ "alg": mark, "kid": "rsa" }).to_string());
    for token in [token, alg, format!("{mark}.{mark}.{mark}"), mark.to_owned()] {
        let request = Request::builder()
            .uri(format!("/{mark}?{mark}"))
            .header(header::HOST, format!("{mark}.example"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        let response = send(&bench, request);
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(!format!("{:?} {:?}", response.headers(), response.body()).contains(mark));
        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            r#"Bearer realm="resource", error="invalid_token", error_description="The access token is invalid""#
        );
    }
}

#[test]
fn row_28_a_context_that_an_outer_layer_left_is_removed() {
    let bench = Bench::new();
    let stranger = bench.accepts(&bench.token(&claims_with(json!({ "sub": "stranger" }))));
    let token = bench.token(&claims());
    let request = Request::builder()
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .extension(stranger.clone());
    let response = send(&bench, request);
    assert_eq!(
        response
            .extensions()
            .get::<AuthContext>()
            .unwrap()
            .subject(),
        Some("app")
    );

    // Without a token it does not survive either, where such requests are let through.
    let service = bench
        .server
        .layer()
        .allow_anonymous()
        .layer(tower::service_fn(|request: Request<()>| async move {
            assert!(AuthContext::from_request(&request).is_none());
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
    let request = Request::builder().extension(stranger).body(()).unwrap();
    assert_eq!(
        now_or_never(service.oneshot(request)).unwrap().status(),
        StatusCode::OK
    );
}

/// CVE-2026-40575, CVE-2025-54576 (oauth2-proxy: skip rules), CVE-2020-8595 (Istio: path match),
/// CVE-2021-21378 (Envoy: `allow_missing`)
#[test]
fn row_29_no_path_method_or_header_skips_the_check() {
    let bench = Bench::new();
    for uri in [
        "/",
        "//",
        "/healthz",
        "/%2e%2e/",
        "/a;b",
        "/a%2fb",
        "*",
        "http://other.example/healthz",
    ] {
        for method in [
            Method::GET,
            Method::OPTIONS,
            Method::HEAD,
            Method::TRACE,
            Method::CONNECT,
        ] {
            let request = Request::builder()
                .method(method)
                .uri(uri)
                .header("x-forwarded-uri", "/healthz")
                .header("x-original-url", "/healthz")
                .header("x-http-method-override", "OPTIONS")
                .header("upgrade", "websocket");
            assert_eq!(
                kind(&send(&bench, request)),
                Some(RejectionKind::MissingToken),
                "{uri}"
            );
        }
    }
    // A route that takes requests without a token still refuses a bad one.
    let service = bench
        .server
        .layer()
        .allow_anonymous()
        .layer(tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
    let request = Request::builder()
        .header(header::AUTHORIZATION, "Bearer x.y.z")
        .body(())
        .unwrap();
    assert_eq!(
        now_or_never(service.oneshot(request)).unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
}

/// The addresses and errors of a fetch that failed are for the operator.
#[tokio::test(start_paused = true)]
async fn row_27_internal_errors_are_never_in_a_response() {
    let issuer = support::issuer::Scripted::new(json!({ "keys": [] }));
    issuer.answer(support::issuer::Answer::Unreachable);
    let server = ResourceServer::builder(
        Issuer::new(support::ISSUER).unwrap(),
        Audience::new("orders").unwrap(),
    )
    .transport(issuer)
    .clock(tower_oauth::ManualClock::at(
        tower_oauth::UnixTime::from_secs(support::NOW),
    ))
    .start()
    .await
    .unwrap();
    let service = server
        .layer()
        .layer(tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
    let bearer = format!("Bearer {}", Bench::new().token(&claims()));
    let request = Request::builder()
        .header(header::AUTHORIZATION, bearer)
        .body(())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.body(), "");
    let mut names: Vec<&str> = response
        .headers()
        .keys()
        .map(header::HeaderName::as_str)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["cache-control", "retry-after"]);
}

#[tokio::test]
async fn a_lacking_scope_is_told_in_the_realm_of_the_resource_server() {
    let bench = Bench::new();
    let keys = json!({ "keys": [bench.rsa.jwk("rsa")] }).to_string();
    let (server, _nothing) = ResourceServer::builder(
        Issuer::new(support::ISSUER).unwrap(),
        Audience::new("orders").unwrap(),
    )
    .keys(KeySet::from_json(keys.as_bytes()).unwrap())
    .clock(bench.clock.clone())
    .realm("orders")
    .resource_metadata(Endpoint::new("https://orders.example/.well-known/x").unwrap())
    .build()
    .unwrap();
    let inner = tower::service_fn(|_: Request<()>| async {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    });
    let service = server
        .layer()
        .layer(RequireScopeLayer::all(["admin"]).layer(inner));
    let bearer = format!("Bearer {}", bench.token(&claims()));
    let request = Request::builder()
        .header(header::AUTHORIZATION, bearer)
        .body(())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let challenge = response.headers()[header::WWW_AUTHENTICATE]
        .to_str()
        .unwrap();
    assert!(
        challenge.starts_with(r#"Bearer realm="orders", error="insufficient_scope""#),
        "{challenge}"
    );
    assert!(
        challenge.contains(r#"scope="admin", resource_metadata="https://orders.example/"#),
        "{challenge}"
    );
}

#[test]
fn row_31_grpc_calls_are_answered_in_grpcs_terms() {
    let bench = Bench::new();
    let call = |content_type: &str| {
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2);
        request.header(header::CONTENT_TYPE, content_type)
    };
    for content_type in [
        "application/grpc",
        "application/grpc+proto",
        "Application/gRPC;x=y",
    ] {
        let response = send(&bench, call(content_type));
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "16");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc");
        assert_eq!(kind(&response), Some(RejectionKind::MissingToken));
    }
    // What only looks like a call gets a status that everybody understands.
    for request in [
        call("application/grpc-web"),
        call("application/grpcfoo"),
        call("application/grpc").version(Version::HTTP_11),
        call("application/grpc").method(Method::GET),
    ] {
        assert_eq!(send(&bench, request).status(), StatusCode::UNAUTHORIZED);
    }
    let head = send(&bench, Request::builder().method(Method::HEAD));
    assert_eq!(head.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        head.headers()[header::WWW_AUTHENTICATE],
        r#"Bearer realm="resource""#
    );
}

#[test]
fn a_missing_token_is_challenged_without_an_error() {
    let bench = Bench::new();
    let response = send(&bench, Request::builder());
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        response.headers()[header::WWW_AUTHENTICATE],
        r#"Bearer realm="resource""#
    );
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
}

#[test]
fn an_expired_token_is_an_invalid_one_whoever_signed_it() {
    let bench = Bench::new();
    let expired = claims_with(json!({ "exp": 1 }));
    let forged = support::compact(
        support::rsa(1),
        "RS256",
        r#"{"alg":"RS256","kid":"rsa"}"#,
        expired.to_string().as_bytes(),
    );
    for token in [bench.token(&expired), forged] {
        let field = format!("Bearer {token}");
        let response = send(
            &bench,
            Request::builder().header(header::AUTHORIZATION, field),
        );
        assert_eq!(kind(&response), Some(RejectionKind::Expired));
        let challenge = response.headers()[header::WWW_AUTHENTICATE]
            .to_str()
            .unwrap();
        assert!(
            challenge.contains(r#"error_description="The access token is invalid""#),
            "{challenge}"
        );
    }
}

#[test]
fn the_answer_can_be_replaced_and_still_tells_outer_layers_the_cause() {
    let bench = Bench::new();
    let layer = bench.server.layer().on_rejection(|rejection: &Rejection| {
        Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .body(rejection.kind().to_string())
            .unwrap()
    });
    let service = layer.layer(tower::service_fn(|_: Request<()>| async {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let response = now_or_never(service.oneshot(Request::new(()))).unwrap();
    assert_eq!(
        (response.status(), response.body().as_str()),
        (StatusCode::IM_A_TEAPOT, "missing_token")
    );
    assert_eq!(
        response.extensions().get::<Rejection>().unwrap().kind(),
        RejectionKind::MissingToken
    );
}

#[test]
fn realm_and_resource_metadata_are_named_if_they_can_be_quoted() {
    use tower_oauth::{Audience, Endpoint, Issuer, KeySet, ResourceServer};
    let keys = json!({ "keys": [support::rsa(0).jwk("rsa")] }).to_string();
    let builder = || {
        ResourceServer::builder(
            Issuer::new("https://as.example").unwrap(),
            Audience::new("a").unwrap(),
        )
        .keys(KeySet::from_json(keys.as_bytes()).unwrap())
    };
    for realm in ["a\"b", "a\\b", "a\r\nb", "é", ""] {
        assert!(builder().realm(realm).build().is_err(), "{realm:?}");
    }
    let url = Endpoint::new("https://orders.example/.well-known/oauth-protected-resource").unwrap();
    let (server, _) = builder()
        .realm("orders")
        .resource_metadata(url)
        .build()
        .unwrap();
    let service = server
        .layer()
        .layer(tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
    let response = now_or_never(service.oneshot(Request::new(()))).unwrap();
    assert_eq!(
        response.headers()[header::WWW_AUTHENTICATE],
        r#"Bearer realm="orders", resource_metadata="https://orders.example/.well-known/oauth-protected-resource""#
    );
}
