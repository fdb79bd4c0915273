//! The metadata of a resource confirm the issuer of its tokens, or the issuer gets nothing (RFC 9728).

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _};
use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind};
use tower_oauth::error::{ConfigErrorKind, ErrorKind, Operation};
use tower_oauth::resource_server::{Algorithm, ProtectedResource};
use tower_oauth::{
    AuthContext, ClientCredentials, Endpoint, Error, Issuer, ResourceServer, TokenManager,
};

use crate::network::{Deployment, ISSUER, Network, RESOURCE, SECOND, document};
use crate::support::log;
use crate::support::token_endpoint::Reply;

const LOCATION: &str = "https://api.example/.well-known/oauth-protected-resource/orders";

async fn error(network: &Network) -> Error {
    let tokens = network.builder().start().unwrap();
    tokens.access_token().await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn the_document_is_read_once_at_its_location_before_the_issuer_gets_the_credentials() {
    let network = Network::confirming();
    let tokens = network.builder().start().unwrap();
    assert!(network.urls().is_empty(), "nothing before the first token");
    for _ in 0..3 {
        tokens.access_token().await.unwrap();
    }
    assert_eq!(
        network.urls(),
        [
            LOCATION,
            "https://as.example/.well-known/openid-configuration",
            "https://as.example/token",
        ]
    );
    assert_eq!(network.sent("resource"), [[RESOURCE]]);
    let no_scope: [String; 0] = [];
    assert_eq!(
        network.sent("scope"),
        [no_scope],
        "no scope of the document is requested"
    );
}

#[tokio::test(start_paused = true)]
async fn the_location_of_the_document_is_that_of_the_insertion_rule() {
    for (resource, location) in [
        (
            "https://api.example",
            "https://api.example/.well-known/oauth-protected-resource",
        ),
        (
            "https://api.example/",
            "https://api.example/.well-known/oauth-protected-resource",
        ),
        (
            "https://api.example:8443/mcp/",
            "https://api.example:8443/.well-known/oauth-protected-resource/mcp/",
        ),
        (
            "https://api.example/a?x=1",
            "https://api.example/.well-known/oauth-protected-resource/a?x=1",
        ),
    ] {
        let network = Network::new(Reply::Json(200, document(resource, &[ISSUER])));
        let credentials = ClientCredentials::new("shop", "secret");
        let tokens = TokenManager::for_resource(resource, ISSUER, credentials)
            .transport(network.clone())
            .start()
            .unwrap();
        tokens.access_token().await.unwrap();
        assert_eq!(network.urls()[0], location);
        assert_eq!(network.sent("resource"), [[resource]], "byte for byte");
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_that_does_not_confirm_the_issuer_is_an_error_and_the_issuer_gets_nothing() {
    let evil = "https://evil.example";
    let lists = |resource: &str, issuers: &[&str]| Reply::Json(200, document(resource, issuers));
    let redirect = |to: &str| Reply::Raw(302, vec![("location", to.to_owned())], String::new());
    for (reply, kind, says) in [
        // The document of another origin, or of another path.
        (
            lists("https://evil.example/orders", &[ISSUER]),
            ErrorKind::ResourceMismatch,
            evil,
        ),
        (
            lists("https://api.example/bills", &[ISSUER]),
            ErrorKind::ResourceMismatch,
            "/bills",
        ),
        (
            lists("https://api.example/", &[ISSUER]),
            ErrorKind::ResourceMismatch,
            "name the resource as its metadata do",
        ),
        // An attacker's issuer.
        (lists(RESOURCE, &[evil]), ErrorKind::IssuerMismatch, evil),
        (
            lists(RESOURCE, &["https://as.example/"]),
            ErrorKind::IssuerMismatch,
            "only the slash",
        ),
        (
            lists(RESOURCE, &["http://169.254.169.254/"]),
            ErrorKind::IssuerMismatch,
            "169.254",
        ),
        (
            lists(RESOURCE, &[]),
            ErrorKind::IssuerMismatch,
            "list no authorization server",
        ),
        // Redirects, to plain http or not.
        (
            redirect("http://api.example/x"),
            ErrorKind::Status(StatusCode::FOUND),
            "redirects are not",
        ),
        (
            redirect(&format!("{LOCATION}/x")),
            ErrorKind::Status(StatusCode::FOUND),
            "redirects are not",
        ),
        (
            Reply::Redirect("http://169.254.169.254/"),
            ErrorKind::Status(StatusCode::TEMPORARY_REDIRECT),
            "redirects",
        ),
        (Reply::Large(10_000_000), ErrorKind::TooLarge, "65536"),
        (Reply::Large(65_537), ErrorKind::TooLarge, "65536"),
        (Reply::Text(200, "<html>"), ErrorKind::Malformed, "JSON"),
        (
            Reply::Json(200, json!({})),
            ErrorKind::Malformed,
            "`resource` is missing",
        ),
        (
            Reply::Status(404, None),
            ErrorKind::Status(StatusCode::NOT_FOUND),
            "use `for_issuer`",
        ),
        (
            Reply::Status(401, None),
            ErrorKind::Status(StatusCode::UNAUTHORIZED),
            "401",
        ),
    ] {
        let network = Network::new(reply.clone());
        let error = error(&network).await;
        assert_eq!(error.kind(), kind, "{reply:?}: {error}");
        assert_eq!(error.operation(), Operation::ResourceMetadata);
        assert_eq!(error.url(), Some(LOCATION));
        let text = error.to_string();
        assert!(text.contains(says), "{reply:?}: {text}");
        if kind == ErrorKind::IssuerMismatch {
            assert_eq!(error.expected(), Some(ISSUER));
        }
        assert_eq!(
            network.urls(),
            [LOCATION],
            "nothing else is requested: {reply:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_that_does_not_arrive_is_retried_and_limited_to_five_seconds() {
    let started = tokio::time::Instant::now();
    let network = Network::new(Reply::Hang);
    let tokens = network
        .builder()
        .acquire_timeout(6 * SECOND)
        .start()
        .unwrap();
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.operation(), Operation::ResourceMetadata, "{error}");
    assert_eq!(error.expected(), Some("a response within 5 s"));
    assert!(started.elapsed() <= 8 * SECOND);
    assert_eq!(network.issuer.count(), 0);

    let network = Network::confirming();
    let documents = network.documents.clone();
    let _ = documents.then_metadata([Reply::Status(503, None), Reply::Unreachable]);
    let tokens = network
        .builder()
        .acquire_timeout(40 * SECOND)
        .start()
        .unwrap();
    tokens.access_token().await.unwrap();
    assert_eq!(network.documents.metadata_requests(), 3);
    assert_eq!(network.issuer.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_document_costs_no_token_once_the_issuer_is_confirmed() {
    let network = Network::confirming();
    network.issuer.set_reply(Reply::Token(30));
    let tokens = network.builder().start().unwrap();
    let mut issued = Vec::new();
    for hour in 0..8 {
        issued.push(
            tokens
                .access_token()
                .await
                .unwrap()
                .expose_secret()
                .to_owned(),
        );
        if hour == 0 {
            let outages = [
                Reply::Unreachable,
                Reply::Status(503, Some("30")),
                Reply::Status(404, None),
                Reply::Redirect("https://evil.example/"),
                Reply::Large(10_000_000),
                Reply::Text(200, "<html>"),
                Reply::Hang,
            ];
            let _ = network.documents.clone().then_metadata(outages);
        }
        tokio::time::sleep(3700 * SECOND).await;
    }
    issued.dedup();
    assert_eq!(issued.len(), 8, "{issued:?}");
    assert_eq!(network.documents.metadata_requests(), 8);
}

/// Each failed reading is logged, because nothing else shows it.
#[tokio::test(start_paused = true)]
async fn a_document_that_cannot_be_read_again_is_read_after_one_to_five_minutes() {
    for (retry_after, pause) in [
        (None, 60),
        (Some("30"), 60),
        (Some("120"), 120),
        (Some("3000"), 300),
    ] {
        log::clear_log();
        let network = Network::confirming();
        network.issuer.set_reply(Reply::Token(20));
        let tokens = network.builder().start().unwrap();
        tokens.access_token().await.unwrap();
        let outage = Reply::Status(503, retry_after);
        let _ = network.documents.clone().metadata(outage);
        let started = tokio::time::Instant::now();
        let mut readings = Vec::new();
        while started.elapsed() < 5400 * SECOND {
            tokio::time::sleep(SECOND).await;
            tokens.access_token().await.unwrap();
            if network.documents.metadata_requests() > 1 + readings.len() {
                readings.push(started.elapsed().as_secs());
            }
        }
        // The confirmation is an hour old at the first of them. Token requests are up to the
        // lifetime of a token apart.
        assert!((3600..=3620).contains(&readings[0]), "{readings:?}");
        assert!(readings.len() >= 5, "{retry_after:?}: {readings:?}");
        for pair in readings.windows(2) {
            let gap = pair[1] - pair[0];
            let is_due = (pause..=pause + 20).contains(&gap);
            assert!(is_due, "{retry_after:?}: {readings:?}");
        }
        let event = "tower_oauth::client: the metadata of the resource cannot be read: \
                     the last confirmation of the issuer is still used";
        assert_eq!(log::count(event), readings.len(), "{retry_after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_that_no_longer_confirms_the_issuer_ends_the_token_requests() {
    for (resource, issuers, kind) in [
        (
            RESOURCE,
            &["https://other.example"][..],
            ErrorKind::IssuerMismatch,
        ),
        (RESOURCE, &[], ErrorKind::IssuerMismatch),
        // The document of another resource.
        (
            "https://api.example/bills",
            &[ISSUER],
            ErrorKind::ResourceMismatch,
        ),
    ] {
        let network = Network::confirming();
        network.issuer.set_reply(Reply::Token(30));
        let tokens = network.builder().start().unwrap();
        tokens.access_token().await.unwrap();
        let other = document(resource, issuers);
        let _ = network.documents.clone().metadata(Reply::Json(200, other));
        tokio::time::sleep(3700 * SECOND).await;
        let count = network.issuer.count();
        let error = tokens.access_token().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{resource} {issuers:?}");
        assert_eq!(network.issuer.count(), count, "{resource} {issuers:?}");
        // And again when it does.
        let again = document(RESOURCE, &["https://other.example", ISSUER]);
        let _ = network.documents.clone().metadata(Reply::Json(200, again));
        tokio::time::sleep(2 * SECOND).await;
        tokens.access_token().await.unwrap();
        assert_eq!(network.issuer.count(), count + 1, "{resource} {issuers:?}");
    }
}

#[tokio::test]
async fn an_unusable_resource_or_issuer_is_an_error_of_build() {
    let build = |resource: &str, issuer: &str| {
        let credentials = ClientCredentials::new("shop", "secret");
        TokenManager::for_resource(resource, issuer, credentials)
            .transport(Network::confirming())
            .build()
            .map(|_| ())
    };
    for (resource, issuer, setting, kind) in [
        (
            "https://169.254.169.254/latest",
            ISSUER,
            "resource",
            ConfigErrorKind::Invalid,
        ),
        (
            "https://[fe80::1]/",
            ISSUER,
            "resource",
            ConfigErrorKind::Invalid,
        ),
        (
            "http://api.example/orders",
            ISSUER,
            "resource",
            ConfigErrorKind::PlainHttp,
        ),
        (
            "http://127.0.0.1/orders",
            ISSUER,
            "resource",
            ConfigErrorKind::PlainHttp,
        ),
        (
            "https://API.example",
            ISSUER,
            "resource",
            ConfigErrorKind::Invalid,
        ),
        (
            "https://api.example/#x",
            ISSUER,
            "resource",
            ConfigErrorKind::Invalid,
        ),
        ("orders", ISSUER, "resource", ConfigErrorKind::Invalid),
        ("", ISSUER, "resource", ConfigErrorKind::Missing),
        (RESOURCE, "", "issuer", ConfigErrorKind::Missing),
        (RESOURCE, "as.example", "issuer", ConfigErrorKind::Invalid),
        (
            RESOURCE,
            "http://as.example",
            "issuer",
            ConfigErrorKind::PlainHttp,
        ),
    ] {
        let error = build(resource, issuer).unwrap_err();
        assert_eq!(error.setting(), setting, "{resource} {issuer}: {error}");
        assert_eq!(error.kind(), kind, "{resource} {issuer}: {error}");
    }
    build(RESOURCE, ISSUER).unwrap();
}

#[tokio::test(start_paused = true)]
async fn plain_http_of_the_resource_is_allowed_by_name_only() {
    let resource = "http://orders.svc/v1";
    let network = Network::new(Reply::Json(200, document(resource, &[ISSUER])));
    let credentials = ClientCredentials::new("shop", "secret");
    let builder = TokenManager::for_resource(resource, ISSUER, credentials);
    let tokens = builder
        .allow_http(["orders.svc"])
        .transport(network.clone());
    tokens.start().unwrap().access_token().await.unwrap();
    assert_eq!(
        network.urls()[0],
        "http://orders.svc/.well-known/oauth-protected-resource/v1"
    );
}

#[tokio::test(start_paused = true)]
async fn the_parameter_resource_can_be_left_out_or_added_to() {
    let network = Network::confirming();
    for builder in [
        network.builder().omit_resource(),
        network.builder().omit_resource().resource("urn:bills"),
        network.builder().resource("urn:bills"),
        network.builder().resource(RESOURCE),
    ] {
        builder.start().unwrap().access_token().await.unwrap();
    }
    let expected: [&[&str]; 4] = [&[], &["urn:bills"], &[RESOURCE, "urn:bills"], &[RESOURCE]];
    assert_eq!(network.sent("resource"), expected);
    assert_eq!(
        network.documents.metadata_requests(),
        4,
        "the issuer is confirmed all the same"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_or_fails_at_resource_is_an_error_with_both_ways_out() {
    let oauth = |code: &str| Reply::Json(400, json!({ "error": code }));
    for (reply, sends_resource, says) in [
        (
            oauth("invalid_target"),
            true,
            Some("issues no token for this `resource`"),
        ),
        (
            oauth("invalid_request"),
            true,
            Some("may not support the parameter"),
        ),
        (
            Reply::Status(500, None),
            true,
            Some("may fail at the parameter"),
        ),
        (
            Reply::Json(500, json!({ "error": "server_error" })),
            true,
            Some("may fail at"),
        ),
        (Reply::Status(503, None), true, None),
        (oauth("invalid_scope"), true, None),
        (oauth("invalid_target"), false, None),
        (Reply::Status(500, None), false, None),
    ] {
        let network = Network::confirming();
        network.issuer.set_reply(reply.clone());
        let builder = network.builder();
        let builder = if sends_resource {
            builder
        } else {
            builder.omit_resource()
        };
        let error = builder.start().unwrap().access_token().await.unwrap_err();
        let text = error.to_string();
        match says {
            Some(says) => {
                assert!(text.contains(says), "{reply:?}: {text}");
                assert!(
                    text.contains("register the resource at the server"),
                    "{text}"
                );
                assert!(text.contains("`omit_resource()`"), "{text}");
            }
            None => assert!(!text.contains("resource"), "{reply:?}: {text}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_in_with_the_resource_the_issuer_and_its_credentials_alone() {
    let issuer = AuthorizationServer::builder()
        .algorithm(Algorithm::Es256)
        .build()
        .unwrap();
    let shop = issuer.register("shop").unwrap();
    let resource = ProtectedResource::new(RESOURCE).unwrap();
    let server = ResourceServer::for_resource(resource, issuer.issuer())
        .transport(issuer.transport())
        .start()
        .await
        .unwrap();
    let network = Deployment {
        issuer: issuer.clone(),
        metadata: server.resource_metadata().cloned(),
    };
    let tokens = TokenManager::for_resource(RESOURCE, issuer.issuer(), shop.credentials())
        .transport(network)
        .start()
        .unwrap();
    let orders = tower::service_fn(async |request: Request<Full<Bytes>>| {
        let context = AuthContext::from_request(&request).unwrap();
        let audience = context
            .audience()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(audience.join(" "))))
    });
    let origin = Endpoint::new(RESOURCE).unwrap();
    let client = tokens.layer([origin]).layer(server.layer().layer(orders));
    let request = Request::get(format!("{RESOURCE}/1"))
        .body(Full::default())
        .unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, RESOURCE);
    assert_eq!(issuer.requests(EndpointKind::Token), 1);

    // The same resource does not trust another issuer.
    let other = Issuer::new("https://other.example").unwrap();
    let network = Deployment {
        issuer: issuer.clone(),
        metadata: server.resource_metadata().cloned(),
    };
    let tokens = TokenManager::for_resource(RESOURCE, other, shop.credentials())
        .transport(network)
        .start()
        .unwrap();
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IssuerMismatch);
    assert_eq!(error.found(), Some(issuer.issuer().as_str()));
}
