//! The HTTP surface of bearer authentication: one test for each attack.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_oauth::key_set::KeySet;
use tower_oauth::resource_server::{ProtectedResource, RejectionKind};
use tower_oauth::{
    Audience, AuthContext, Issuer, Rejection, RequireScopeLayer, ResourceServer,
    ResourceServerLayer, TrustedIssuer,
};

use crate::support::{self, Fixture, claims, claims_with, poll_once_or_panic};

fn send(fixture: &Fixture, request: http::request::Builder) -> Response<Full<Bytes>> {
    poll_once_or_panic(fixture.send(request.body(Full::default()).unwrap()))
}

fn kind(response: &Response<Full<Bytes>>) -> Option<RejectionKind> {
    response
        .extensions()
        .get::<Rejection>()
        .map(Rejection::kind)
}

/// CVE-2026-47673 (Hono: any scheme accepted)
#[test]
fn more_than_one_authorization_header_or_method_is_a_bad_request() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    // A new token, one from the shared cache, and one from the thread-local cache.
    for sent_before in [0, 3, 30] {
        for _ in 0..sent_before {
            fixture.assert_accepts(&token);
        }
        assert_eq!(
            fixture.server.cached_token_count(),
            u64::from(sent_before > 0)
        );
        assert_bad_requests(&fixture, &token);
    }
}

fn assert_bad_requests(fixture: &Fixture, token: &str) {
    let bearer = format!("Bearer {token}");
    let two_headers = Request::builder()
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
        two_headers,
        mixed,
        joined,
        repeated,
        query,
        disguised,
        proof,
        proofs,
    ] {
        let response = send(fixture, request);
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
            fixture,
            Request::builder().header(header::AUTHORIZATION, field),
        );
        assert_eq!(kind(&response), Some(RejectionKind::MissingToken));
    }
}

#[test]
fn the_bearer_scheme_is_case_insensitive_and_followed_by_one_space() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let response = send(
            &fixture,
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
            &fixture,
            Request::builder().header(header::AUTHORIZATION, &field),
        );
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{field}");
    }
}

/// RFC 6750 §3.1: the challenge for a missing scope is that of the resource server that validated
/// the token.
#[test]
fn one_scope_layer_uses_the_challenge_of_each_resource_server() {
    let fixture = Fixture::new();
    let keys = json!({ "keys": [fixture.rsa.jwk("rsa")] }).to_string();
    let behind = RequireScopeLayer::all(["admin"]);
    let servers = ["orders", "reports"].map(|realm| {
        let audience = Audience::new(support::AUDIENCE).unwrap();
        let issuer = TrustedIssuer::new(Issuer::new(support::ISSUER).unwrap(), audience)
            .keys(KeySet::from_json(keys.as_bytes()).unwrap());
        (
            realm,
            ResourceServer::from_issuer(issuer)
                .realm(realm)
                .clock(fixture.clock.clone())
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
        let field = format!("Bearer {}", fixture.token(&claims()));
        let request = Request::builder()
            .header(header::AUTHORIZATION, field)
            .body(())
            .unwrap();
        let response = poll_once_or_panic(service.oneshot(request)).unwrap();
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

/// The response is the same whatever else is wrong with the token, so that it reveals nothing about
/// it.
#[test]
fn trailing_bytes_after_any_token_are_a_bad_request() {
    let fixture = Fixture::new();
    let tokens = [
        fixture.token(&claims()),
        fixture.token(&claims_with(json!({ "exp": 1_000_000_000 }))),
        fixture.token(&claims_with(json!({ "iss": "https://other.example" }))),
        fixture.token(&claims_with(json!({ "aud": "other" }))),
        fixture.with_header(r#"{"alg":"HS256","kid":"rsa"}"#),
        fixture.with_header(r#"{"alg":"RS256","kid":"other"}"#),
        fixture.with_payload(b"{}"),
    ];
    let without_keys = ResourceServer::builder(
        Issuer::new(support::ISSUER).unwrap(),
        Audience::new(support::AUDIENCE).unwrap(),
    );
    let without_keys = without_keys.clock(fixture.clock.clone()).build().unwrap().0;
    let mut bare = Fixture::new();
    bare.server = without_keys;
    for token in tokens {
        for behind in [" x", " Bearer x", ",Basic YTpi", ", Basic YTpi", " ", "\t"] {
            for fixture in [&fixture, &bare] {
                let field = format!("Bearer {token}{behind}");
                let response = send(
                    fixture,
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
fn tokens_in_the_query_or_body_are_ignored() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    let request = Request::builder().uri(format!("/orders?access_token={token}"));
    assert_eq!(
        kind(&send(&fixture, request)),
        Some(RejectionKind::MissingToken)
    );
    let form = Request::builder()
        .method(Method::POST)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(format!("access_token={token}")))
        .unwrap();
    assert_eq!(
        kind(&poll_once_or_panic(fixture.send(form))),
        Some(RejectionKind::MissingToken)
    );
}

/// Unauthenticated callers can send any number of such requests.
#[test]
fn tokens_in_the_query_cause_one_warning_a_minute() {
    let fixture = Fixture::new();
    let requests = |many: usize| {
        support::log::clear_log();
        for _ in 0..many {
            send(
                &fixture,
                Request::builder().uri("/orders?access_token=a.b.c"),
            );
        }
        (
            support::log::count("WARN"),
            support::log::count("the query, where it is ignored"),
        )
    };
    assert_eq!(requests(50), (1, 1));
    fixture.clock.advance(Duration::from_secs(59));
    assert_eq!(requests(50), (0, 0));
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(requests(50), (1, 1));
    assert!(support::log::logged(
        "ignored, and 99 more since the last such event"
    ));
}

/// `Debug` of a request never prints the token, neither for accepted nor for anonymous requests.
#[test]
fn the_authorization_header_is_marked_sensitive_for_inner_services() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
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
        let response = poll_once_or_panic(service.oneshot(request.body(()).unwrap())).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body()
    };
    // Verified, from the shared cache, and from the thread-local cache.
    for _ in 0..20 {
        let printed = printed(fixture.server.layer(), &[&format!("Bearer {token}")]);
        assert!(
            printed.contains("Sensitive") && !printed.contains(&token),
            "{printed}"
        );
    }
    let printed = printed(
        fixture.server.layer().allow_anonymous(),
        &["Basic czNjcjN0"],
    );
    assert!(
        printed.contains("Sensitive") && !printed.contains("czNjcjN0"),
        "{printed}"
    );
}

#[test]
fn bytes_other_than_visible_ascii_are_a_bad_request() {
    let fixture = Fixture::new();
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
            kind(&send(&fixture, request)),
            Some(RejectionKind::InvalidRequest)
        );
    }
}

#[test]
fn the_response_contains_nothing_of_the_request() {
    let fixture = Fixture::new();
    let mark = "x0x0mark";
    let header = json!({ "alg": "RS256", "kid": format!("{mark}\"") }).to_string();
    let payload =
        claims_with(json!({ "iss": format!("https://{mark}.example"), "scope": mark })).to_string();
    let token = support::compact(fixture.rsa, "RS256", &header, payload.as_bytes());
    let alg = fixture.with_header(&json!({ "alg": mark, "kid": "rsa" }).to_string());
    for token in [token, alg, format!("{mark}.{mark}.{mark}"), mark.to_owned()] {
        let request = Request::builder()
            .uri(format!("/{mark}?{mark}"))
            .header(header::HOST, format!("{mark}.example"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        let response = send(&fixture, request);
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(!format!("{:?} {:?}", response.headers(), response.body()).contains(mark));
        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"resource\", error=\"invalid_token\", \
             error_description=\"The access token is invalid\""
        );
    }
}

#[test]
fn a_context_inserted_by_an_outer_layer_is_removed() {
    let fixture = Fixture::new();
    let stranger =
        fixture.assert_accepts(&fixture.token(&claims_with(json!({ "sub": "stranger" }))));
    let token = fixture.token(&claims());
    let request = Request::builder()
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .extension(stranger.clone());
    let response = send(&fixture, request);
    assert_eq!(
        response
            .extensions()
            .get::<AuthContext>()
            .unwrap()
            .subject(),
        Some("app")
    );

    // It is removed without a token, too, where anonymous requests are allowed.
    let service = fixture
        .server
        .layer()
        .allow_anonymous()
        .layer(tower::service_fn(|request: Request<()>| async move {
            assert!(AuthContext::from_request(&request).is_none());
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
    let request = Request::builder().extension(stranger).body(()).unwrap();
    assert_eq!(
        poll_once_or_panic(service.oneshot(request))
            .unwrap()
            .status(),
        StatusCode::OK
    );
}

/// CVE-2026-40575, CVE-2025-54576 (oauth2-proxy: skip rules), CVE-2020-8595 (Istio: path match),
/// CVE-2021-21378 (Envoy: `allow_missing`)
#[test]
fn no_path_method_or_header_bypasses_authentication() {
    let fixture = Fixture::new();
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
                kind(&send(&fixture, request)),
                Some(RejectionKind::MissingToken),
                "{uri}"
            );
        }
    }
    // A route that allows anonymous requests still rejects an invalid token.
    let service = fixture
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
        poll_once_or_panic(service.oneshot(request))
            .unwrap()
            .status(),
        StatusCode::UNAUTHORIZED
    );
}

/// Addresses and errors of a failed fetch are for the operator only.
#[tokio::test(start_paused = true)]
async fn internal_errors_are_never_in_a_response() {
    let issuer = support::issuer::ScriptedIssuer::new(json!({ "keys": [] }));
    issuer.set_reply(support::issuer::IssuerReply::Unreachable);
    let server = ResourceServer::builder(
        Issuer::new(support::ISSUER).unwrap(),
        Audience::new("orders").unwrap(),
    )
    .transport(issuer)
    .clock(tower_oauth::clock::ManualClock::at(
        tower_oauth::clock::UnixTime::from_secs(support::NOW),
    ))
    .start()
    .await
    .unwrap();
    let service = server
        .layer()
        .layer(tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
    let bearer = format!("Bearer {}", Fixture::new().token(&claims()));
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
async fn insufficient_scope_challenge_has_the_realm_of_the_resource_server() {
    let fixture = Fixture::new();
    let keys = json!({ "keys": [fixture.rsa.jwk("rsa")] }).to_string();
    let issuer = TrustedIssuer::new(
        Issuer::new(support::ISSUER).unwrap(),
        Audience::new("orders").unwrap(),
    )
    .keys(KeySet::from_json(keys.as_bytes()).unwrap());
    let (server, _nothing) = ResourceServer::from_issuer(issuer)
        .clock(fixture.clock.clone())
        .realm("orders")
        .protected_resource(ProtectedResource::new("https://orders.example/x").unwrap())
        .build()
        .unwrap();
    let inner = tower::service_fn(|_: Request<()>| async {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    });
    let service = server
        .layer()
        .layer(RequireScopeLayer::all(["admin"]).layer(inner));
    let bearer = format!("Bearer {}", fixture.token(&claims()));
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
fn grpc_calls_are_rejected_with_a_grpc_status() {
    let fixture = Fixture::new();
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
        let response = send(&fixture, call(content_type));
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "16");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc");
        assert_eq!(kind(&response), Some(RejectionKind::MissingToken));
    }
    // A request that only resembles a gRPC call gets a plain HTTP status.
    for request in [
        call("application/grpc-web"),
        call("application/grpcfoo"),
        call("application/grpc").version(Version::HTTP_11),
        call("application/grpc").method(Method::GET),
    ] {
        assert_eq!(send(&fixture, request).status(), StatusCode::UNAUTHORIZED);
    }
    let head = send(&fixture, Request::builder().method(Method::HEAD));
    assert_eq!(head.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        head.headers()[header::WWW_AUTHENTICATE],
        r#"Bearer realm="resource""#
    );
}

#[test]
fn a_missing_token_is_challenged_without_an_error() {
    let fixture = Fixture::new();
    let response = send(&fixture, Request::builder());
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        response.headers()[header::WWW_AUTHENTICATE],
        r#"Bearer realm="resource""#
    );
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
}

#[test]
fn an_expired_token_is_rejected_regardless_of_its_signer() {
    let fixture = Fixture::new();
    let expired = claims_with(json!({ "exp": 1 }));
    let forged = support::compact(
        support::rsa(1),
        "RS256",
        r#"{"alg":"RS256","kid":"rsa"}"#,
        expired.to_string().as_bytes(),
    );
    for token in [fixture.token(&expired), forged] {
        let field = format!("Bearer {token}");
        let response = send(
            &fixture,
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
fn a_custom_rejection_response_keeps_the_rejection_extension() {
    let fixture = Fixture::new();
    let layer = fixture
        .server
        .layer()
        .on_rejection(|rejection: &Rejection| {
            Response::builder()
                .status(StatusCode::IM_A_TEAPOT)
                .body(rejection.kind().to_string())
                .unwrap()
        });
    let service = layer.layer(tower::service_fn(|_: Request<()>| async {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let response = poll_once_or_panic(service.oneshot(Request::new(()))).unwrap();
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
fn realm_and_resource_metadata_are_in_the_challenge_if_quotable() {
    use tower_oauth::key_set::KeySet;
    use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    let keys = json!({ "keys": [support::rsa(0).jwk("rsa")] }).to_string();
    let builder = || {
        let issuer = TrustedIssuer::new(
            Issuer::new("https://as.example").unwrap(),
            Audience::new("a").unwrap(),
        );
        let keys = KeySet::from_json(keys.as_bytes()).unwrap();
        ResourceServer::from_issuer(issuer.keys(keys))
    };
    for realm in ["a\"b", "a\\b", "a\r\nb", "é", ""] {
        assert!(builder().realm(realm).build().is_err(), "{realm:?}");
    }
    let resource = ProtectedResource::new("https://orders.example").unwrap();
    let (server, _) = builder()
        .realm("orders")
        .protected_resource(resource)
        .build()
        .unwrap();
    let service = server
        .layer()
        .layer(tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
    let response = poll_once_or_panic(service.oneshot(Request::new(()))).unwrap();
    assert_eq!(
        response.headers()[header::WWW_AUTHENTICATE],
        "Bearer realm=\"orders\", \
         resource_metadata=\"https://orders.example/.well-known/oauth-protected-resource\""
    );
}
