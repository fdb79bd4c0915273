//! Several targets: each origin has its own token, with one discovery and one task.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use proptest::prelude::*;
use serde_json::json;
use tokio::time::{Instant, timeout};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_oauth::client::{BearerTokenLayer, TokenManagerBuilder, TokenSource as _};
use tower_oauth::error::{ConfigErrorKind, ErrorKind, Operation};
use tower_oauth::transport::{SendFuture, Transport, TransportError};
use tower_oauth::{
    BoxError, ClientCredentials, Error, Issuer, Origin, TokenManager, TokenManagers,
};

use crate::support::log;
use crate::support::token_endpoint::TokioClock;

const ISSUER: &str = "https://sso.example";
const SECRET: &str = "s3cret-of-the-shop";

/// The origins of three services, with the audiences of their tokens.
const SERVICES: [(&str, &str); 3] = [
    ("https://orders.example", "orders"),
    ("https://bills.example", "bills"),
    ("https://orders.example:8443", "parts"),
];

/// An issuer whose tokens are `{audience or scope}-1`, `-2`, …
#[derive(Clone, Debug)]
struct Sso(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    issuer: &'static str,
    metadata_delay: Duration,
    metadata_requests: usize,
    /// Each request for metadata that begins fails, this often.
    metadata_outages: usize,
    token_endpoint: &'static str,
    /// Token requests for it have no response.
    hangs: Option<&'static str>,
    issued: BTreeMap<String, usize>,
    token_requests: Vec<String>,
}

impl Sso {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            issuer: ISSUER,
            metadata_delay: Duration::from_millis(50),
            metadata_requests: 0,
            metadata_outages: 0,
            token_endpoint: "https://sso.example/token",
            hangs: None,
            issued: BTreeMap::new(),
            token_requests: Vec::new(),
        })))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn metadata_requests(&self) -> usize {
        self.0.lock().unwrap().metadata_requests
    }

    /// The URLs of the token requests.
    fn token_requests(&self) -> Vec<String> {
        self.0.lock().unwrap().token_requests.clone()
    }

    fn builder(&self) -> TokenManagerBuilder {
        let issuer = Issuer::new(self.0.lock().unwrap().issuer).unwrap();
        TokenManager::for_issuer(issuer, ClientCredentials::new("shop", SECRET))
            .unwrap()
            .transport(self.clone())
            .clock(TokioClock::new())
    }

    /// Managers for all services, whose builders are clones.
    fn managers(&self) -> TokenManagers {
        let sso = self.builder();
        let targets = SERVICES.iter();
        let targets = targets.fold(TokenManagers::builder(), |builder, (origin, audience)| {
            builder.target(*origin, sso.clone().audience(*audience))
        });
        targets.start().unwrap()
    }
}

impl Transport for Sso {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        Box::pin(async move {
            let ok = |body: serde_json::Value| Ok(Response::new(Bytes::from(body.to_string())));
            if request.uri().path().contains("/.well-known/") {
                let (delay, is_down) = {
                    let mut state = self.0.lock().unwrap();
                    state.metadata_requests += 1;
                    let is_down = state.metadata_outages > 0;
                    state.metadata_outages -= usize::from(is_down);
                    (state.metadata_delay, is_down)
                };
                tokio::time::sleep(delay).await;
                if is_down {
                    return Err(TransportError::connect("connection refused"));
                }
                let state = self.0.lock().unwrap();
                return ok(json!({
                    "issuer": state.issuer,
                    "token_endpoint": state.token_endpoint,
                }));
            }
            let form: BTreeMap<String, String> = url::form_urlencoded::parse(request.body())
                .into_owned()
                .collect();
            let target = form.get("audience").or_else(|| form.get("scope")).unwrap();
            let target = target.replace(' ', "+");
            let (hangs, moved) = {
                let mut state = self.0.lock().unwrap();
                let uri = request.uri().to_string();
                let moved = uri != state.token_endpoint;
                state.token_requests.push(uri);
                (state.hangs == Some(target.as_str()), moved)
            };
            if hangs {
                std::future::pending::<()>().await;
            }
            if moved {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = StatusCode::NOT_FOUND;
                return Ok(response);
            }
            let mut state = self.0.lock().unwrap();
            let count = state.issued.entry(target.clone()).or_default();
            *count += 1;
            ok(json!({
                "access_token": format!("{target}-{count}"),
                "token_type": "Bearer",
                "expires_in": 3600,
                "scope": form.get("scope"),
            }))
        })
    }
}

/// The token that a request to this URI is sent with. `-` for none.
async fn token<P>(layer: &BearerTokenLayer<P>, uri: &str) -> Result<String, BoxError>
where
    P: tower_oauth::client::CloneBody<String> + Clone,
{
    let echo = service_fn(async |request: Request<String>| {
        let field = request.headers().get(header::AUTHORIZATION);
        let token = field.map_or("-", |field| field.to_str().unwrap());
        let token = token.trim_start_matches("Bearer ").to_owned();
        Ok::<_, Infallible>(Response::new(token))
    });
    let request = Request::get(uri).body(String::new()).unwrap();
    let response = layer.layer(echo).oneshot(request).await?;
    Ok(response.into_body())
}

#[tokio::test(start_paused = true)]
async fn each_origin_gets_its_token_and_no_other() {
    let tokens = Sso::new().managers();
    let layer = tokens.layer();
    for _ in 0..2 {
        for (uri, expected) in [
            ("https://orders.example/", "orders-1"),
            ("https://orders.example:443/list?x=y", "orders-1"),
            ("HTTPS://ORDERS.EXAMPLE/", "orders-1"),
            ("https://bills.example/", "bills-1"),
            ("https://orders.example:8443/", "parts-1"),
            ("http://orders.example/", "-"),
            ("https://bills.example:8443/", "-"),
            ("https://bills.example.evil.example/", "-"),
            ("https://bills.example@evil.example/", "-"),
            ("https://sso.example/", "-"),
            ("/list", "-"),
        ] {
            assert_eq!(token(&layer, uri).await.unwrap(), expected, "{uri}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// In any order of targets and of concurrent requests.
    #[test]
    fn concurrent_requests_get_the_tokens_of_their_targets(
        targets in Just(SERVICES.to_vec()).prop_shuffle(),
        requests in prop::collection::vec(0..SERVICES.len(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let issuer = Sso::new();
            let builder = targets.iter().fold(TokenManagers::builder(), |builder, target| {
                builder.target(target.0, issuer.builder().audience(target.1))
            });
            let layer = builder.start().unwrap().layer();
            let mut calls = tokio::task::JoinSet::new();
            for service in requests {
                let layer = layer.clone();
                calls.spawn(async move {
                    let (origin, audience) = SERVICES[service];
                    let token = token(&layer, origin).await.unwrap();
                    assert_eq!(token, format!("{audience}-1"));
                });
            }
            while let Some(result) = calls.join_next().await {
                result.unwrap();
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn one_discovery_serves_all_targets() {
    // Whose first requests are concurrent,
    let issuer = Sso::new();
    let layer = issuer.managers().layer();
    let [a, b, c] = SERVICES.map(|(origin, _)| token(&layer, origin));
    let tokens = tokio::try_join!(a, b, c).unwrap();
    assert_eq!(
        tokens,
        ("orders-1".into(), "bills-1".into(), "parts-1".into())
    );
    assert_eq!(issuer.metadata_requests(), 1);
    // and whose first requests are one after the other.
    let issuer = Sso::new();
    let layer = issuer.managers().layer();
    for (origin, _) in SERVICES {
        token(&layer, origin).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    assert_eq!(issuer.metadata_requests(), 1);
    assert_eq!(issuer.token_requests().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_metadata_are_fetched_again_after_an_hour_for_all_targets() {
    let issuer = Sso::new();
    let layer = issuer.managers().layer();
    // Metadata are fetched for a token request. Tokens are renewed after 45 to 48 minutes: the
    // first requests more than an hour after a fetch are in the second and in the fourth hour.
    for (hour, fetches) in [(1, 1), (2, 2), (3, 2), (4, 3)] {
        // The tokens are used, so that they are renewed.
        for _ in 0..60 {
            for (origin, _) in SERVICES {
                token(&layer, origin).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(issuer.metadata_requests(), fetches, "hour {hour}");
    }
    assert!(issuer.token_requests().len() >= 12);
}

#[tokio::test(start_paused = true)]
async fn all_targets_find_a_token_endpoint_that_has_moved() {
    let issuer = Sso::new();
    let tokens = issuer.managers();
    for (origin, _) in SERVICES {
        tokens.get(origin).unwrap().access_token().await.unwrap();
    }
    issuer.change(|issuer| issuer.token_endpoint = "https://sso.example/v2/token");
    tokio::time::sleep(Duration::from_secs(1800)).await;
    for (origin, audience) in SERVICES {
        let tokens = tokens.get(origin).unwrap();
        let first = tokens.access_token().await.unwrap();
        let second = tokens.invalidate_and_wait(&first).await.unwrap();
        assert_eq!(second.expose_secret(), format!("{audience}-2"));
    }
    let old = |url: &&String| *url == "https://sso.example/token";
    assert_eq!(issuer.token_requests().iter().filter(old).count(), 6);
    assert!(issuer.metadata_requests() <= 4);
}

#[tokio::test(start_paused = true)]
async fn targets_that_wait_for_a_failed_discovery_share_its_error() {
    let issuer = Sso::new();
    issuer.change(|issuer| issuer.metadata_outages = usize::MAX);
    let sso = issuer.builder();
    let sources = SERVICES.map(|(_, audience)| sso.clone().audience(audience));
    let [a, b, c] = sources.map(|builder| builder.build_source().unwrap());
    let started = Instant::now();
    let (a, b, c) = tokio::join!(a.fetch(), b.fetch(), c.fetch());
    for result in [a, b, c] {
        let error = result.unwrap_err();
        assert_eq!(error.operation(), Operation::Discovery, "{error}");
        assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
    }
    assert_eq!(issuer.metadata_requests(), 1, "one failure for all");
    assert_eq!(started.elapsed(), Duration::from_millis(50));
    // Only for those that have waited: the next one fetches again.
    issuer.change(|issuer| issuer.metadata_outages = 0);
    let next = sso.audience("orders").build_source().unwrap();
    assert!(next.fetch().await.is_ok());
    assert_eq!(issuer.metadata_requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_discovery_that_is_dropped_is_made_by_another_target() {
    let issuer = Sso::new();
    let sso = issuer.builder();
    let first = sso.clone().audience("orders").start().unwrap();
    let second = sso.audience("bills").start().unwrap();
    let mut waiting = std::pin::pin!(second.access_token());
    {
        let mut dropped = std::pin::pin!(first.access_token());
        let both = async { tokio::join!(&mut dropped, &mut waiting) };
        assert!(timeout(Duration::from_millis(20), both).await.is_err());
    }
    assert_eq!(issuer.metadata_requests(), 1);
    // Its task ends.
    drop(first);
    let token = waiting.await.unwrap();
    assert_eq!(token.expose_secret(), "bills-1");
    assert_eq!(issuer.metadata_requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clone_with_another_transport_discovers_by_itself() {
    let (first, second) = (Sso::new(), Sso::new());
    second.change(|issuer| issuer.token_endpoint = "https://second.example/token");
    let sso = first.builder().audience("orders");
    let other = sso.clone().transport(second.clone());
    sso.start().unwrap().access_token().await.unwrap();
    other.start().unwrap().access_token().await.unwrap();
    assert_eq!(
        (first.metadata_requests(), second.metadata_requests()),
        (1, 1)
    );
    assert_eq!(second.token_requests(), ["https://second.example/token"]);
}

#[tokio::test(start_paused = true)]
async fn a_clone_uses_no_endpoint_that_its_own_settings_forbid() {
    let issuer = Sso::new();
    issuer.change(|issuer| {
        issuer.issuer = "http://sso.svc";
        issuer.token_endpoint = "http://tokens.svc/token";
    });
    let sso = issuer.builder().audience("orders").allow_http(["sso.svc"]);
    let permissive = sso.clone().allow_http(["tokens.svc"]).start().unwrap();
    let strict = sso.start().unwrap();
    permissive.access_token().await.unwrap();
    let error = strict.access_token().await.unwrap_err();
    assert_eq!(error.operation(), Operation::Discovery, "{error}");
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    assert_eq!(issuer.token_requests().len(), 1, "nothing is sent");
}

#[tokio::test(start_paused = true)]
async fn a_slow_target_delays_no_other() {
    let issuer = Sso::new();
    issuer.change(|issuer| issuer.hangs = Some("orders"));
    let layer = issuer.managers().layer();
    let slow = token(&layer, "https://orders.example");
    let others = async {
        // While the request for the slow one is under way.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let started = Instant::now();
        let bills = token(&layer, "https://bills.example").await.unwrap();
        let parts = token(&layer, "https://orders.example:8443").await.unwrap();
        assert_eq!((&*bills, &*parts), ("bills-1", "parts-1"));
        assert!(started.elapsed() < Duration::from_millis(10));
    };
    let (slow, ()) = tokio::join!(slow, others);
    let error = slow.unwrap_err();
    assert_eq!(
        error.downcast_ref::<Error>().unwrap().kind(),
        ErrorKind::Timeout
    );
}

#[tokio::test(start_paused = true)]
async fn one_renewer_renews_all_and_ends_with_the_last_handle() {
    let issuer = Sso::new();
    let sso = issuer.builder();
    let builder = TokenManagers::builder()
        .target("https://orders.example", sso.clone().audience("orders"))
        .target("https://bills.example", sso.audience("bills"));
    let (tokens, renewer) = builder.build().unwrap();
    let renewer = tokio::spawn(renewer);
    let layer = tokens.layer();
    token(&layer, "https://orders.example").await.unwrap();
    let bills = tokens.get("https://bills.example").unwrap().clone();
    bills.access_token().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3590)).await;
    let renewed = token(&layer, "https://orders.example").await.unwrap();
    assert_eq!(renewed, "orders-2");
    assert_eq!(
        bills.access_token().await.unwrap().expose_secret(),
        "bills-2"
    );
    let is_finished = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        renewer.is_finished()
    };
    drop(tokens);
    assert!(!is_finished().await);
    drop(layer);
    assert!(!is_finished().await);
    // A target without a handle is left behind.
    assert!(bills.access_token().await.is_ok());
    drop(bills);
    assert!(is_finished().await);
}

#[tokio::test(start_paused = true)]
async fn more_scopes_are_requested_for_the_target_that_requires_them() {
    let issuer = Sso::new();
    let sso = issuer.builder();
    let write = || "write".parse().unwrap();
    let tokens = TokenManagers::builder()
        .target(
            "https://orders.example",
            sso.clone().scope("read").step_up_scopes([write()]),
        )
        .target("https://bills.example", sso.scope("bills"))
        .start()
        .unwrap();
    let guarded = service_fn(async |request: Request<String>| {
        let field = &request.headers()[header::AUTHORIZATION];
        let token = field.to_str().unwrap().trim_start_matches("Bearer ");
        let mut response = Response::new(token.to_owned());
        if !token.contains("write") {
            *response.status_mut() = StatusCode::FORBIDDEN;
            let challenge = r#"Bearer error="insufficient_scope", scope="write""#;
            let challenge = challenge.parse().unwrap();
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        Ok::<_, Infallible>(response)
    });
    let client = tokens.layer().layer(guarded);
    for (uri, expected) in [
        ("https://bills.example/", "bills-1"),
        ("https://orders.example/", "read+write-1"),
        ("https://bills.example/", "bills-1"),
    ] {
        let request = Request::get(uri).body(String::new()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.into_body(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_origin_gets_the_token_of_the_only_target() {
    let sso = Sso::new().builder().audience("orders");
    let one = TokenManagers::builder().target("https://orders.example", sso.clone());
    let two = one.clone().target("https://bills.example", sso);
    let layer = |builder: tower_oauth::client::TokenManagersBuilder| {
        builder.start().unwrap().layer().allow_origin_form()
    };
    assert_eq!(token(&layer(one), "/list").await.unwrap(), "orders-1");
    log::clear_log();
    assert_eq!(token(&layer(two), "/list").await.unwrap(), "-");
    assert!(log::logged("origin=none: the URI has no host"));
}

#[tokio::test(start_paused = true)]
async fn the_managers_of_targets_have_different_names() {
    log::clear_log();
    let tokens = Sso::new().managers();
    for (origin, _) in SERVICES {
        tokens.get(origin).unwrap().access_token().await.unwrap();
        let event = format!("an access token was obtained manager=shop {origin} ");
        assert_eq!(log::count(&event), 1, "{origin}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_is_found_by_any_spelling_of_its_origin() {
    let tokens = Sso::new().managers();
    let token = tokens.get("https://orders.example").unwrap();
    let token = token.access_token().await.unwrap();
    let origin = Origin::new("https://orders.example").unwrap();
    for found in [
        tokens.get(&origin),
        tokens.get("HTTPS://ORDERS.example:443/"),
        tokens.get(String::from("https://orders.example")),
    ] {
        let same = found.unwrap().access_token().await.unwrap();
        assert_eq!(same.expose_secret(), token.expose_secret());
    }
    for other in ["http://orders.example", "orders.example", "", "/"] {
        assert!(tokens.get(other).is_none(), "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn debug_output_of_targets_has_no_secret() {
    let issuer = Sso::new();
    let builder = TokenManagers::builder().target(
        "https://orders.example",
        issuer.builder().audience("orders").parameter("key", SECRET),
    );
    let tokens = builder.clone().start().unwrap();
    let layer = tokens.layer();
    token(&layer, "https://orders.example").await.unwrap();
    for shown in [
        format!("{builder:?}"),
        format!("{tokens:?}"),
        format!("{layer:?}"),
    ] {
        assert!(shown.contains("orders.example"), "{shown}");
        assert!(
            !shown.contains(SECRET) && !shown.contains("orders-1"),
            "{shown}"
        );
    }
}

#[test]
fn a_host_that_several_targets_allow_is_named_once() {
    log::clear_log();
    let sso = Sso::new().builder().allow_http(["orders.svc", "bills.svc"]);
    let builder = TokenManagers::builder()
        .target("http://orders.svc:8080", sso.clone())
        .target("http://bills.svc:8080", sso.clone())
        .target("https://parts.example", sso.allow_http(["parts.svc"]));
    assert!(builder.build().is_ok());
    let event = "plain http to this host is allowed";
    for host in ["orders.svc", "bills.svc", "parts.svc"] {
        let of_host = |line: &&String| line.contains(host);
        assert_eq!(
            log::lines(event).iter().filter(of_host).count(),
            1,
            "{host}"
        );
    }
}

#[test]
fn targets_that_cannot_be_built_are_errors_that_name_them() {
    let issuer = Sso::new();
    let sso = || issuer.builder();
    let build = |targets: Vec<(&str, TokenManagerBuilder)>| {
        let builder = TokenManagers::builder();
        let targets = targets.into_iter();
        let builder = targets.fold(builder, |builder, (origin, tokens)| {
            builder.target(origin, tokens)
        });
        builder.build().map(|_| ()).unwrap_err()
    };
    for (error, kind, text) in [
        (
            build(vec![]),
            ConfigErrorKind::Missing,
            "target must be added at least once",
        ),
        (
            build(vec![
                ("https://orders.example", sso().audience("orders")),
                ("https://bills.example", sso()),
                ("https://ORDERS.example:443/", sso()),
            ]),
            ConfigErrorKind::Conflict,
            "invalid target \"https://orders.example\": must be added only once",
        ),
        (
            build(vec![("orders.example", sso())]),
            ConfigErrorKind::Invalid,
            "target has no scheme",
        ),
        (
            build(vec![("https://orders.example/v1", sso())]),
            ConfigErrorKind::Invalid,
            "must not have a path or a query",
        ),
        (
            build(vec![("http://orders.svc:8080", sso())]),
            ConfigErrorKind::PlainHttp,
            "invalid target \"http://orders.svc:8080\"",
        ),
        (
            build(vec![
                ("https://orders.example", sso()),
                ("https://bills.example", sso().audience(" ")),
            ]),
            ConfigErrorKind::Missing,
            "audience of the target https://bills.example must not be empty",
        ),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    // Loopback, and hosts that are allowed.
    let mesh = sso().allow_http(["orders.svc"]);
    let allowed = TokenManagers::builder()
        .target("http://orders.svc:8080", mesh)
        .target("http://127.0.0.1:8080", sso());
    assert!(allowed.build().is_ok());
    let outside = TokenManagers::builder().target("https://orders.example", sso());
    let error = outside.start().unwrap_err();
    assert_eq!(error.kind(), ConfigErrorKind::Unavailable);
}
