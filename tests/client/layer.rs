//! The client's layer: where the token is sent, and what happens when it is rejected.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{Empty, Full};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_oauth::client::{TokenManagerBuilder, Unauthorized};
use tower_oauth::{BoxError, ClientCredentials, Endpoint, Error, Origin, TokenManager};

use crate::support::log;
use crate::support::token_endpoint::{Reply, TokenEndpoint, TokioClock};

const ORDERS: &str = "https://orders.example/list";

/// A resource server that records the requests, rejects some tokens, and panics when called without
/// a preceding `poll_ready`. A clone is not ready.
#[derive(Debug, Default)]
struct Orders {
    seen: Arc<Mutex<Vec<(String, Option<HeaderValue>, bool)>>>,
    rejects: &'static [&'static str],
    challenge: Option<&'static str>,
    /// Rejects with status 200 and this `grpc-status`.
    grpc_status: Option<&'static str>,
    ready: bool,
}

impl Clone for Orders {
    fn clone(&self) -> Self {
        Self {
            seen: Arc::clone(&self.seen),
            ready: false,
            ..*self
        }
    }
}

impl Orders {
    fn rejecting(rejects: &'static [&'static str]) -> Self {
        let challenge = Some(r#"Bearer realm="orders", error="invalid_token""#);
        Self {
            rejects,
            challenge,
            ..Self::default()
        }
    }

    /// The received tokens in order; `-` for none.
    fn tokens(&self) -> Vec<String> {
        let shown = |value: &Option<HeaderValue>| match value {
            Some(value) => value
                .to_str()
                .unwrap()
                .trim_start_matches("Bearer ")
                .to_owned(),
            None => "-".to_owned(),
        };
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|(_, value, _)| shown(value))
            .collect()
    }
}

impl<B: http_body::Body> Service<Request<B>> for Orders {
    type Response = Response<&'static str>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without a preceding `poll_ready`"
        );
        let value = request.headers().get(header::AUTHORIZATION).cloned();
        let rejected = self.rejects.iter().any(|token| {
            value
                .as_ref()
                .is_some_and(|value| value.as_bytes() == format!("Bearer {token}").as_bytes())
        });
        let entry = (
            request.uri().to_string(),
            value,
            !request.body().is_end_stream(),
        );
        self.seen.lock().unwrap().push(entry);
        let mut response = Response::new("served");
        if rejected {
            match self.grpc_status {
                Some(status) => {
                    response
                        .headers_mut()
                        .insert("grpc-status", HeaderValue::from_static(status));
                }
                None => *response.status_mut() = StatusCode::UNAUTHORIZED,
            }
            if let Some(challenge) = self.challenge {
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
            }
        }
        std::future::ready(Ok(response))
    }
}

fn builder(endpoint: &TokenEndpoint) -> TokenManagerBuilder {
    let url = Endpoint::new("https://as.example/token").unwrap();
    let credentials = ClientCredentials::new("shop", "secret");
    TokenManager::builder(url, credentials)
        .transport(endpoint.clone())
        .clock(TokioClock::new())
}

fn manager(endpoint: &TokenEndpoint) -> TokenManager {
    builder(endpoint).start().unwrap()
}

fn origins() -> [Endpoint; 1] {
    [Endpoint::new("https://orders.example").unwrap()]
}

fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

fn post(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from("order")).unwrap()
}

async fn send<S, B>(service: &mut S, request: Request<B>) -> Result<S::Response, S::Error>
where
    S: Service<Request<B>>,
{
    service.ready().await?.call(request).await
}

fn kind(error: &BoxError) -> String {
    error
        .downcast_ref::<Error>()
        .unwrap()
        .kind()
        .as_str()
        .to_owned()
}

async fn status<S, B>(service: &mut S, request: Request<B>) -> StatusCode
where
    S: Service<Request<B>, Response = Response<&'static str>>,
    S::Error: std::fmt::Debug,
{
    send(service, request).await.unwrap().status()
}

#[tokio::test(start_paused = true)]
async fn the_token_is_inserted_and_marked_sensitive() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(Duration::from_millis(50));
    let orders = Orders::default();
    let mut client = manager(&endpoint).layer(origins()).layer(orders.clone());
    for _ in 0..3 {
        assert_eq!(status(&mut client, get(ORDERS)).await, StatusCode::OK);
    }
    assert_eq!(orders.tokens(), ["token-1"; 3]);
    assert_eq!(endpoint.count(), 1);
    assert!(
        orders
            .seen
            .lock()
            .unwrap()
            .iter()
            .all(|(_, value, _)| value.as_ref().unwrap().is_sensitive())
    );
}

#[tokio::test(start_paused = true)]
async fn with_a_current_token_the_call_does_not_wait() {
    let tokens = manager(&TokenEndpoint::with_reply(Reply::Token(3600)));
    tokens.access_token().await.unwrap();
    let mut client = tokens.layer(origins()).layer(Orders::default());
    std::future::poll_fn(|cx| Service::<Request<Empty<Bytes>>>::poll_ready(&mut client, cx))
        .await
        .unwrap();
    let call = client.call(get(ORDERS));
    let mut call = std::pin::pin!(call);
    let polled = call
        .as_mut()
        .poll(&mut Context::from_waker(std::task::Waker::noop()));
    assert!(polled.is_ready());
}

#[tokio::test(start_paused = true)]
async fn the_token_never_goes_to_another_origin() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let orders = Orders::default();
    let mut client = manager(&endpoint).layer(origins()).layer(orders.clone());
    for uri in [
        "https://evil.example/list",
        "http://orders.example/list",
        "https://orders.example:8443/list",
        "https://orders.example.evil.example/",
        "https://orders.example@evil.example/",
        "/list",
    ] {
        assert_eq!(status(&mut client, get(uri)).await, StatusCode::OK);
    }
    assert_eq!(orders.tokens(), ["-"; 6]);
    assert_eq!(endpoint.count(), 0, "no token is requested");
}

#[tokio::test(start_paused = true)]
async fn a_request_to_another_origin_is_logged_without_its_path_and_user() {
    log::clear_log();
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let layer = manager(&endpoint).layer(origins());
    let mut client = layer.clone().layer(Orders::default());
    status(&mut client, get(ORDERS)).await;
    assert!(!log::logged("gets no token"), "it gets one");
    let others = [
        (
            "https://user:s3cr3t@evil.example:8443/s3cr3t?a=s3cr3t",
            "https://evil.example:8443",
        ),
        ("http://orders.example/list", "http://orders.example"),
        ("https://[::1]/list", "https://[::1]"),
        ("/s3cr3t", "none: the URI has no host"),
    ];
    for (uri, origin) in others {
        status(&mut client, get(uri)).await;
        let event = format!("is not for its origin origin={origin} allowed=[");
        assert_eq!(log::count(&event), 1, "{uri}");
    }
    let warnings = log::lines(" WARN tower_oauth::client: requests get no token");
    assert_eq!(warnings.len(), 1, "one a minute");
    assert!(
        warnings[0].contains("origin=https://evil.example:8443 allowed=[\"https://orders.example")
    );
    // Clones of a layer share the limit, and its own credentials are no reason for an event.
    let mut another = layer.layer(Orders::default());
    status(&mut another, get("https://other.example/")).await;
    let mut request = get("https://own.example/");
    let field = "Bearer own".parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, field);
    status(&mut another, request).await;
    assert_eq!(log::count(" WARN "), 1);
    assert!(!log::logged("own.example") && !log::logged("s3cr3t") && !log::logged("token-1"));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_origin_gets_the_token_after_opt_in() {
    let orders = Orders::default();
    let tokens = manager(&TokenEndpoint::with_reply(Reply::Token(3600)));
    let mut client = tokens
        .layer(origins())
        .allow_origin_form()
        .layer(orders.clone());
    status(&mut client, get("/list")).await;
    status(&mut client, get("https://evil.example/list")).await;
    assert_eq!(orders.tokens(), ["token-1", "-"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_origin_gets_a_token_only_if_the_layer_allows_all_its_origins() {
    let orders = Orders::default();
    let tokens = manager(&TokenEndpoint::with_reply(Reply::Token(3600)));
    let https = "https://orders.example";
    for (allowed, expected) in [
        (&[][..], "-"),
        (&["http://orders.svc"], "-"),
        (&[https, "http://orders.svc"], "-"),
        (&[https, "http://127.0.0.1:8080"], "token-1"),
    ] {
        let origins = allowed.iter().map(|origin| Origin::new(*origin).unwrap());
        let layer = tokens.layer(origins).allow_origin_form();
        status(&mut layer.layer(orders.clone()), get("/list")).await;
        assert_eq!(orders.tokens().last().unwrap(), expected, "{allowed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_existing_authorization_header_is_kept() {
    let orders = Orders::rejecting(&["own"]);
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let mut client = manager(&endpoint).layer(origins()).layer(orders.clone());
    let mut request = get(ORDERS);
    request
        .headers_mut()
        .insert(header::AUTHORIZATION, "Bearer own".parse().unwrap());
    assert_eq!(status(&mut client, request).await, StatusCode::UNAUTHORIZED);
    assert_eq!(orders.tokens(), ["own"], "the request is not retried");
    assert_eq!(endpoint.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_invalidated_and_the_request_retried_once() {
    let orders = Orders::rejecting(&["token-1"]);
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let mut client = manager(&endpoint).layer(origins()).layer(orders.clone());
    assert_eq!(status(&mut client, get(ORDERS)).await, StatusCode::OK);
    assert_eq!(orders.tokens(), ["token-1", "token-2"]);
    assert_eq!(orders.seen.lock().unwrap()[1].0, ORDERS);
    assert_eq!(status(&mut client, get(ORDERS)).await, StatusCode::OK);
    assert_eq!(endpoint.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_rejection_is_returned_without_another_token_request() {
    let orders = Orders::rejecting(&["token-1", "token-2", "token-3"]);
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let mut client = manager(&endpoint).layer(origins()).layer(orders.clone());
    for _ in 0..50 {
        assert_eq!(
            status(&mut client, get(ORDERS)).await,
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(orders.tokens().len(), 51);
    assert_eq!(endpoint.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_rejections_are_not_retried() {
    for challenge in [
        None,
        Some("Bearer"),
        Some(r#"Bearer error="insufficient_scope""#),
        Some("Basic realm=\"x\""),
    ] {
        let orders = Orders {
            challenge,
            ..Orders::rejecting(&["token-1"])
        };
        let tokens = manager(&TokenEndpoint::with_reply(Reply::Token(3600)));
        let mut client = tokens.layer(origins()).layer(orders.clone());
        assert_eq!(
            status(&mut client, get(ORDERS)).await,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(orders.tokens(), ["token-1"], "{challenge:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_opt_in_every_401_and_grpc_status_16_replaces_the_token() {
    for (challenge, grpc_status) in [
        (None, None),
        (None, Some("16")),
        (Some("Bearer"), None),
        (Some(r#"Bearer error="invalid_token""#), None),
        (Some(r#"Bearer error="insufficient_scope""#), None),
        (Some("Basic realm=\"x\""), None),
        (Some("Negotiate"), Some("16")),
    ] {
        let orders = Orders {
            challenge,
            grpc_status,
            ..Orders::rejecting(&["token-1"])
        };
        let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
        let layer = manager(&endpoint).layer(origins());
        let mut client = layer.renew_on(Unauthorized::Any).layer(orders.clone());
        assert_eq!(status(&mut client, get(ORDERS)).await, StatusCode::OK);
        assert_eq!(orders.tokens(), ["token-1", "token-2"], "{challenge:?}");
        // The first request of another client waits for the token, and is retried as well.
        let orders = Orders {
            challenge,
            grpc_status,
            ..Orders::rejecting(&["token-1"])
        };
        let layer = manager(&TokenEndpoint::with_reply(Reply::Token(3600))).layer(origins());
        let layer = layer.retry_with_cloned_body().renew_on(Unauthorized::Any);
        let mut client = layer.layer(orders.clone());
        assert_eq!(status(&mut client, post(ORDERS)).await, StatusCode::OK);
        assert_eq!(orders.tokens(), ["token-1", "token-2"], "{challenge:?}");
    }
    for grpc_status in ["7", "14", "0"] {
        let orders = Orders {
            challenge: None,
            grpc_status: Some(grpc_status),
            ..Orders::rejecting(&["token-1"])
        };
        let layer = manager(&TokenEndpoint::with_reply(Reply::Token(3600))).layer(origins());
        let mut client = layer.renew_on(Unauthorized::Any).layer(orders.clone());
        assert_eq!(status(&mut client, get(ORDERS)).await, StatusCode::OK);
        assert_eq!(orders.tokens(), ["token-1"], "grpc-status {grpc_status}");
    }
}

/// A response with these fields.
fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect::<HeaderMap>()
}

#[tokio::test(start_paused = true)]
async fn a_token_is_refused_by_exactly_the_responses_for_which_the_layer_renews_it() {
    const INVALID_TOKEN: (&str, &str) = ("www-authenticate", r#"Bearer error="invalid_token""#);
    const OTHER: (&str, &str) = ("www-authenticate", r#"Bearer error="insufficient_scope""#);
    for (status, headers, expected) in [
        (401, fields(&[INVALID_TOKEN]), true),
        (
            401,
            fields(&[("www-authenticate", "Basic"), INVALID_TOKEN]),
            true,
        ),
        (401, fields(&[OTHER]), false),
        (401, fields(&[("www-authenticate", "Bearer")]), false),
        (401, fields(&[]), false),
        (403, fields(&[INVALID_TOKEN]), false),
        (400, fields(&[INVALID_TOKEN]), false),
        (200, fields(&[INVALID_TOKEN]), false),
        (200, fields(&[("grpc-status", "16"), INVALID_TOKEN]), true),
        (200, fields(&[("grpc-status", "16")]), false),
        (200, fields(&[("grpc-status", "7"), INVALID_TOKEN]), false),
        (500, fields(&[("grpc-status", "16"), INVALID_TOKEN]), true),
    ] {
        let tokens = manager(&TokenEndpoint::with_reply(Reply::Token(3600)));
        let token = tokens.access_token().await.unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let response = headers.clone();
        let client = tokens.layer(origins()).retry_never().layer(service_fn(
            move |_: Request<Empty<Bytes>>| {
                let mut sent = Response::new(());
                *sent.status_mut() = status;
                *sent.headers_mut() = response.clone();
                async { Ok::<_, Infallible>(sent) }
            },
        ));
        client.oneshot(get(ORDERS)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let is_renewed = tokens.access_token().await.unwrap().expose_secret() != "token-1";
        assert_eq!(is_renewed, expected, "{status} {headers:?}");
        assert_eq!(token.is_refused_by(status, &headers), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_responds_401_to_every_token_costs_one_token_in_ten_seconds() {
    let orders = Orders {
        challenge: None,
        ..Orders::rejecting(&["token-1", "token-2", "token-3"])
    };
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let layer = manager(&endpoint).layer(origins());
    let mut client = layer.renew_on(Unauthorized::Any).layer(orders.clone());
    for _ in 0..50 {
        let status = status(&mut client, get(ORDERS)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(endpoint.count(), 2);
    assert_eq!(orders.tokens().len(), 51);
    tokio::time::sleep(11 * SECOND).await;
    for _ in 0..50 {
        status(&mut client, get(ORDERS)).await;
    }
    assert_eq!(endpoint.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_cloned_only_after_opt_in() {
    let orders = Orders::rejecting(&["token-1"]);
    let tokens = manager(&TokenEndpoint::with_reply(Reply::Token(3600)));
    let mut client = tokens.layer(origins()).layer(orders.clone());
    assert_eq!(
        status(&mut client, post(ORDERS)).await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(orders.tokens(), ["token-1"]);

    let tokens = manager(&TokenEndpoint::with_reply(Reply::Token(3600)));
    let mut client = tokens
        .layer(origins())
        .retry_with_cloned_body()
        .layer(orders.clone());
    assert_eq!(status(&mut client, post(ORDERS)).await, StatusCode::OK);
    assert_eq!(orders.tokens(), ["token-1", "token-1", "token-2"]);
    assert!(
        orders.seen.lock().unwrap().iter().all(|(_, _, body)| *body),
        "every request had its body"
    );

    let tokens = manager(&TokenEndpoint::with_reply(Reply::Token(3600)));
    let mut client = tokens.layer(origins()).retry_never().layer(orders.clone());
    assert_eq!(
        status(&mut client, get(ORDERS)).await,
        StatusCode::UNAUTHORIZED
    );
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_renewed_even_if_the_request_cannot_be_retried() {
    for grpc_status in [None, Some("16")] {
        let orders = Orders {
            grpc_status,
            ..Orders::rejecting(&["token-1"])
        };
        let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
        let tokens = manager(&endpoint);
        let mut client = tokens.layer(origins()).layer(orders.clone());
        let rejected = send(&mut client, post(ORDERS)).await.unwrap();
        assert_eq!(rejected.status() == StatusCode::OK, grpc_status.is_some());
        tokio::time::sleep(SECOND).await;
        let served = send(&mut client, post(ORDERS)).await.unwrap();
        assert!(served.status() == StatusCode::OK && !served.headers().contains_key("grpc-status"));
        assert_eq!(orders.tokens(), ["token-1", "token-2"]);

        // A resource server that rejects every token causes one token request in ten seconds.
        let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
        let orders = Orders {
            grpc_status,
            ..Orders::rejecting(&["token-1", "token-2", "token-3"])
        };
        let mut client = manager(&endpoint)
            .layer(origins())
            .retry_never()
            .layer(orders.clone());
        for _ in 0..100 {
            send(&mut client, get(ORDERS)).await.unwrap();
            tokio::time::sleep(SECOND / 100).await;
        }
        assert_eq!(endpoint.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_challenge_in_the_headers_invalidates_the_token() {
    let orders = Orders {
        grpc_status: Some("16"),
        ..Orders::rejecting(&["token-1"])
    };
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let mut client = manager(&endpoint)
        .layer(origins())
        .retry_with_cloned_body()
        .layer(orders.clone());
    let response = send(&mut client, post(ORDERS)).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
    assert_eq!(orders.tokens(), ["token-1", "token-2"]);

    let rejected = || Orders::rejecting(&["token-1"]);
    for orders in [
        Orders {
            grpc_status: Some("7"),
            ..rejected()
        },
        Orders {
            grpc_status: Some("16"),
            challenge: None,
            ..rejected()
        },
        Orders {
            grpc_status: Some("16"),
            challenge: Some("Bearer"),
            ..rejected()
        },
        // A response without a gRPC status is no rejection, whatever else it contains.
        Orders {
            grpc_status: Some("0"),
            ..rejected()
        },
    ] {
        let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
        let mut client = manager(&endpoint)
            .layer(origins())
            .retry_with_cloned_body()
            .layer(orders.clone());
        send(&mut client, post(ORDERS)).await.unwrap();
        tokio::time::sleep(SECOND).await;
        assert_eq!(
            (orders.tokens().len(), endpoint.count()),
            (1, 1),
            "{orders:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_serves_other_origins_until_its_replacement_arrives() {
    let endpoint = TokenEndpoint::with_reply(Reply::Hang).then([Reply::Token(3600)]);
    let tokens = manager(&endpoint);
    let bills = Orders::default();
    let mut others = tokens
        .layer([Endpoint::new("https://bills.example").unwrap()])
        .layer(bills.clone());
    assert_eq!(
        status(&mut others, get("https://bills.example/")).await,
        StatusCode::OK
    );
    let orders = Orders::rejecting(&["token-1"]);
    let mut client = tokens.layer(origins()).layer(orders.clone());
    let rejected = tokio::spawn(async move { status(&mut client, get(ORDERS)).await });
    let start = Instant::now();
    for _ in 0..4 {
        tokio::time::sleep(SECOND).await;
        let started = Instant::now();
        assert_eq!(
            status(&mut others, get("https://bills.example/")).await,
            StatusCode::OK
        );
        assert_eq!(started.elapsed(), Duration::ZERO, "the call does not wait");
    }
    assert_eq!(
        rejected.await.unwrap(),
        StatusCode::UNAUTHORIZED,
        "the original response"
    );
    assert!(start.elapsed() <= 6 * SECOND, "{:?}", start.elapsed());
    // It is replaced as soon as that is possible.
    endpoint.set_reply(Reply::Token(3600));
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(
        status(&mut others, get("https://bills.example/")).await,
        StatusCode::OK
    );
    assert_eq!(
        bills.tokens(),
        [
            "token-1", "token-1", "token-1", "token-1", "token-1", "token-2"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_new_token_the_original_response_is_returned_in_bounded_time() {
    for (trouble, limit) in [
        (Reply::Unreachable, Duration::ZERO),
        (Reply::Status(503, None), Duration::ZERO),
        (Reply::Status(429, Some("300")), Duration::ZERO),
        (
            Reply::Json(401, serde_json::json!({ "error": "invalid_client" })),
            Duration::ZERO,
        ),
        (Reply::Json(200, serde_json::json!({})), Duration::ZERO),
        (Reply::Hang, 5 * SECOND),
    ] {
        let endpoint = TokenEndpoint::with_reply(trouble.clone()).then([Reply::Token(3600)]);
        let orders = Orders::rejecting(&["token-1"]);
        let mut client = manager(&endpoint).layer(origins()).layer(orders.clone());
        // Repeatedly, while the token endpoint stays unchanged.
        for call in 0..120 {
            let start = Instant::now();
            let response = send(&mut client, get(ORDERS)).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{trouble:?}");
            // Later an attempt may be due within a moment.
            let limit = if call == 0 { limit } else { 5 * SECOND };
            assert!(
                start.elapsed() <= limit,
                "{trouble:?}, call {call}: {:?}",
                start.elapsed()
            );
            tokio::time::sleep(SECOND).await;
        }
        assert_eq!(
            orders.tokens(),
            vec!["token-1"; 120],
            "the token stays in use"
        );
        assert!(endpoint.count() > 1, "{trouble:?}: its renewal was tried");
        assert!(
            endpoint.count() < 80,
            "{trouble:?}: {} requests in two minutes",
            endpoint.count()
        );
        // Each token stays in use, and is replaced when that is possible.
        endpoint.set_reply(Reply::Token(3600));
        tokio::time::sleep(301 * SECOND).await;
        assert_eq!(
            status(&mut client, get(ORDERS)).await,
            StatusCode::OK,
            "{trouble:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn calls_rejected_with_the_same_token_share_one_renewal_and_are_retried() {
    let unknown_life = serde_json::json!({ "access_token": "token-1", "token_type": "Bearer" });
    for first in [Reply::Token(3600), Reply::Json(200, unknown_life)] {
        let endpoint = TokenEndpoint::with_reply(Reply::Token(3600))
            .then([first.clone()])
            .delay(Duration::from_millis(50));
        if matches!(first, Reply::Json(..)) {
            endpoint.count_as_issued();
        }
        let orders = Orders::rejecting(&["token-1"]);
        let client = manager(&endpoint).layer(origins()).layer(orders.clone());
        let calls = (0..20).map(|_| tokio::spawn(client.clone().oneshot(get(ORDERS))));
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(
                call.await.unwrap().unwrap().status(),
                StatusCode::OK,
                "{first:?}"
            );
        }
        assert_eq!(orders.tokens().len(), 40);
        assert_eq!(endpoint.count(), 2, "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_waiting_for_a_token_or_its_replacement_are_bounded() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(SECOND);
    let orders = Orders::rejecting(&["token-1"]);
    let tokens = builder(&endpoint).max_waiters(1).start().unwrap();
    let client = tokens.layer(origins()).layer(orders.clone());
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        calls.spawn(client.clone().oneshot(get(ORDERS)));
    }
    let mut outcomes: Vec<_> = (calls.join_all().await.into_iter())
        .map(|outcome| {
            outcome.map_or_else(
                |error| kind(&error),
                |response| response.status().as_str().to_owned(),
            )
        })
        .collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["200", "overloaded", "overloaded"]);

    // The token exists and is rejected: one call waits for its replacement.
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(SECOND);
    let tokens = builder(&endpoint).max_waiters(1).start().unwrap();
    tokens.access_token().await.unwrap();
    let client = tokens.layer(origins()).layer(orders.clone());
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        calls.spawn(client.clone().oneshot(get(ORDERS)));
    }
    let mut statuses: Vec<u16> = calls
        .join_all()
        .await
        .into_iter()
        .map(|response| response.unwrap().status().as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 401, 401],
        "the other calls get the original response"
    );
    assert_eq!(endpoint.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_not_used_after_expiry() {
    let endpoint = TokenEndpoint::with_reply(Reply::Unreachable).then([Reply::Token(60)]);
    let orders = Orders::rejecting(&["token-1"]);
    let tokens = builder(&endpoint).acquire_timeout(SECOND).start().unwrap();
    let mut client = tokens.layer(origins()).layer(orders.clone());
    assert_eq!(
        status(&mut client, get(ORDERS)).await,
        StatusCode::UNAUTHORIZED
    );
    tokio::time::sleep(60 * SECOND).await;
    let error = send(&mut client, get(ORDERS)).await.unwrap_err();
    assert!(error.is::<Error>(), "{error}");
    assert_eq!(orders.tokens(), ["token-1"]);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_not_stored_are_replaced_at_most_once_in_ten_seconds() {
    let body = serde_json::json!({ "access_token": "token-1", "token_type": "Bearer" });
    let endpoint = TokenEndpoint::with_reply(Reply::Json(200, body));
    let orders = Orders::rejecting(&["token-1"]);
    let tokens = builder(&endpoint).assumed_lifetime(Duration::ZERO);
    let tokens = tokens.start().unwrap();
    let mut client = tokens.layer(origins()).layer(orders.clone());
    for _ in 0..50 {
        assert_eq!(
            status(&mut client, get(ORDERS)).await,
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(
        endpoint.count(),
        51,
        "one token per call, and one replacement"
    );
    assert_eq!(
        orders.tokens().len(),
        50,
        "the replacement is the same token, which is not sent again"
    );
    tokio::time::sleep(10 * SECOND).await;
    for _ in 0..50 {
        assert_eq!(
            status(&mut client, get(ORDERS)).await,
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(endpoint.count(), 102);
}

#[tokio::test(start_paused = true)]
async fn without_a_token_the_request_fails_with_the_cause() {
    let rejection = Reply::Json(401, serde_json::json!({ "error": "invalid_client" }));
    let orders = Orders::default();
    let client = manager(&TokenEndpoint::with_reply(rejection))
        .layer(origins())
        .layer(orders.clone());
    let error = client.oneshot(get(ORDERS)).await.unwrap_err();
    let error = error.downcast_ref::<Error>().unwrap();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
    assert!(orders.tokens().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_works_under_and_over_buffer_and_concurrency_limit() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(Duration::from_millis(20));
    let orders = Orders::rejecting(&["token-1"]);
    let tokens = manager(&endpoint);
    let client = ServiceBuilder::new()
        .buffer::<Request<Empty<Bytes>>>(8)
        .concurrency_limit(4)
        .layer(tokens.layer(origins()))
        .buffer::<Request<Empty<Bytes>>>(8)
        .concurrency_limit(2)
        .service(orders.clone());
    let calls = (0..20).map(|_| tokio::spawn(client.clone().oneshot(get(ORDERS))));
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(endpoint.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_waiting_for_a_token_holds_no_permit() {
    let orders = Orders::default();
    let client = ServiceBuilder::new()
        .layer(manager(&TokenEndpoint::with_reply(Reply::Hang)).layer(origins()))
        .concurrency_limit(1)
        .service(orders.clone());
    let mut waiting = client.clone();
    let waiting = tokio::spawn(async move { status(&mut waiting, get(ORDERS)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut client = client;
    let elsewhere = status(&mut client, get("https://elsewhere.example/"));
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(1), elsewhere)
            .await
            .unwrap(),
        StatusCode::OK
    );
    waiting.abort();
}
