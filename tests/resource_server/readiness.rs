//! `poll_ready` is honored on every path, and limit and buffer layers work inside and outside. A
//! readiness policy decides of which issuers a resource server needs keys.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use serde_json::json;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::key_set::{KeySet, RefreshPolicy};
use tower_oauth::resource_server::{ReadinessPolicy, ResourceServerBuilder, Startup};
use tower_oauth::{Audience, Endpoint, Issuer, RequireScopeLayer, ResourceServer, TrustedIssuer};

use crate::support::issuer::{IssuerReply, ScriptedIssuer, advance, clock, secs, set};
use crate::support::{self, Fixture, bearer, claims, compact};

/// Panics when called without a preceding `poll_ready`. A clone is not ready.
#[derive(Debug, Default)]
struct Strict {
    ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(self.ready, "called without a preceding `poll_ready`");
        self.ready = false;
        std::future::ready(Ok(Response::new("served".to_owned())))
    }
}

async fn status<S>(service: &mut S, request: Request<()>) -> StatusCode
where
    S: Service<Request<()>, Response = Response<String>>,
    S::Error: std::fmt::Debug,
{
    service
        .ready()
        .await
        .unwrap()
        .call(request)
        .await
        .unwrap()
        .status()
}

#[tokio::test]
async fn accepted_and_rejected_requests_call_only_a_ready_service() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    let mut service = ServiceBuilder::new()
        .layer(fixture.server.layer())
        .layer(RequireScopeLayer::all(["orders.read"]))
        .service(Strict::default());
    for _ in 0..3 {
        assert_eq!(
            status(&mut service, bearer(&token, ())).await,
            StatusCode::OK
        );
        assert_eq!(
            status(&mut service, bearer("x.y.z", ())).await,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(
            status(&mut service, Request::new(())).await,
            StatusCode::UNAUTHORIZED
        );
    }
}

#[tokio::test]
async fn it_works_under_and_over_buffer_and_concurrency_limit() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    let mut under = ServiceBuilder::new()
        .buffer(8)
        .concurrency_limit(1)
        .layer(fixture.server.layer())
        .service(Strict::default());
    let mut over = ServiceBuilder::new()
        .layer(fixture.server.layer())
        .buffer::<Request<()>>(8)
        .concurrency_limit(1)
        .service(Strict::default());
    for _ in 0..5 {
        assert_eq!(status(&mut under, bearer(&token, ())).await, StatusCode::OK);
        assert_eq!(status(&mut over, bearer(&token, ())).await, StatusCode::OK);
        assert_eq!(
            status(&mut under, bearer("x.y.z", ())).await,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(
            status(&mut over, bearer("x.y.z", ())).await,
            StatusCode::UNAUTHORIZED
        );
    }
}

#[test]
fn layer_service_and_context_are_clone_send_and_sync() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<ResourceServer>();
    check::<tower_oauth::ResourceServerLayer>();
    check::<tower_oauth::resource_server::ResourceServerService<Strict>>();
    check::<tower_oauth::resource_server::RequireService<Strict>>();
    check::<tower_oauth::AuthContext>();
    check::<tower_oauth::Rejection>();
    fn send<T: Send>() {}
    send::<tower_oauth::resource_server::ResponseFuture<Strict, (), String>>();
}

#[tokio::test(start_paused = true)]
async fn a_request_waiting_for_keys_calls_the_service_that_was_ready() {
    let (old, new) = (support::rsa(0), support::rsa(1));
    let issuer = ScriptedIssuer::new(json!({ "keys": [old.jwk("old")] }));
    let server = ResourceServer::builder(
        Issuer::new(support::ISSUER).unwrap(),
        Audience::new("orders").unwrap(),
    )
    .clock(ManualClock::at(UnixTime::from_secs(support::NOW)))
    .transport(issuer.clone())
    .startup(Startup::Require(Duration::from_secs(5)))
    .start()
    .await
    .unwrap();
    issuer.publish(json!({ "keys": [old.jwk("old"), new.jwk("new")] }));
    let token = compact(
        new,
        "RS256",
        r#"{"alg":"RS256","kid":"new"}"#,
        claims().to_string().as_bytes(),
    );
    let mut service = server.layer().layer(Strict::default());
    assert_eq!(
        status(&mut service, bearer(&token, ())).await,
        StatusCode::OK
    );
    assert_eq!(
        status(&mut service, bearer(&token, ())).await,
        StatusCode::OK
    );
}

#[test]
fn poll_ready_only_polls_the_inner_service() {
    #[derive(Clone)]
    struct Busy(Arc<AtomicBool>);

    impl Service<Request<()>> for Busy {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<String>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.0.store(true, Ordering::SeqCst);
            Poll::Pending
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            panic!("never ready, never called")
        }
    }

    let fixture = Fixture::new();
    let polled = Arc::new(AtomicBool::new(false));
    let mut service = fixture.server.layer().layer(Busy(Arc::clone(&polled)));
    let mut ready = pin!(service.ready());
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(ready.as_mut().poll(&mut context).is_pending());
    assert!(polled.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_request_waiting_for_keys_holds_no_permit() {
    let key = support::rsa(0);
    let issuer = ScriptedIssuer::new(json!({ "keys": [key.jwk("known")] }));
    let server = ResourceServer::builder(
        Issuer::new(support::ISSUER).unwrap(),
        Audience::new("orders").unwrap(),
    )
    .clock(ManualClock::at(UnixTime::from_secs(support::NOW)))
    .transport(issuer.clone())
    .start()
    .await
    .unwrap();
    issuer.set_reply(IssuerReply::Hang);
    let token = |kid: &str| {
        let header = json!({ "alg": "RS256", "kid": kid }).to_string();
        compact(key, "RS256", &header, claims().to_string().as_bytes())
    };
    let service = ServiceBuilder::new()
        .layer(server.layer())
        .concurrency_limit(1)
        .service(Strict::default());
    let mut waiting = service.clone();
    let waiting = waiting
        .ready()
        .await
        .unwrap()
        .call(bearer(&token("unknown"), ()));
    let mut service = service;
    let served = tokio::time::timeout(
        Duration::from_millis(1),
        status(&mut service, bearer(&token("known"), ())),
    );
    assert_eq!(served.await.unwrap(), StatusCode::OK);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::UNAUTHORIZED);
    // A request that is accepted after its wait acquires the released permit again.
    issuer.publish(json!({ "keys": [key.jwk("new")] }));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        status(&mut service, bearer(&token("new"), ())).await,
        StatusCode::OK
    );
}

/// The URL of the keys of each issuer.
const KEYS: [&str; 2] = ["https://one.example/keys", "https://two.example/keys"];

fn trusted(name: &str) -> TrustedIssuer {
    TrustedIssuer::new(Issuer::new(name).unwrap(), Audience::new("orders").unwrap())
}

/// A resource server with two issuers, whose keys come from `KEYS`.
fn two_issuers(issuer: &ScriptedIssuer, readiness: ReadinessPolicy) -> ResourceServerBuilder {
    let [one, two] = KEYS.map(|url| {
        let name = url.strip_suffix("/keys").unwrap();
        trusted(name).jwks_uri(Endpoint::new(url).unwrap())
    });
    ResourceServer::from_issuer(one)
        .add_issuer(two)
        .transport(issuer.clone())
        .readiness(readiness)
}

#[tokio::test(start_paused = true)]
async fn an_issuer_without_keys_makes_the_server_unready_unless_any_is_enough() {
    let document = set(&[("a", support::rsa(0))]);
    let issuer = ScriptedIssuer::new(document.clone());
    issuer.set_reply(IssuerReply::Unreachable);
    let clock = clock();
    let server = async |readiness| {
        let keys = KeySet::from_json(document.to_string().as_bytes()).unwrap();
        ResourceServer::from_issuer(trusted("https://fixed.example").keys(keys))
            .add_issuer(trusted(support::ISSUER))
            .transport(issuer.clone())
            .clock(clock.clone())
            .refresh(RefreshPolicy::new().max_stale(secs(600)))
            .startup(Startup::Background)
            .readiness(readiness)
            .start()
            .await
            .unwrap()
    };
    let (all, any) = (
        server(ReadinessPolicy::All).await,
        server(ReadinessPolicy::Any).await,
    );
    let ready = || (all.keys_available(), any.keys_available());
    // The keys of one issuer never came. The fixed ones are there.
    advance(&clock, secs(60)).await;
    assert_eq!(ready(), (false, true));
    let usable: Vec<_> = any
        .key_sets()
        .iter()
        .map(|status| (status.issuer().to_string(), status.state().is_usable()))
        .collect();
    let expected = [("https://fixed.example", true), (support::ISSUER, false)];
    assert_eq!(
        usable,
        expected.map(|(name, ready)| (name.to_owned(), ready))
    );
    issuer.publish(document.clone());
    all.wait_for_keys().await;
    advance(&clock, secs(60)).await;
    assert_eq!(ready(), (true, true));
    // The keys of one issuer are too old.
    issuer.set_reply(IssuerReply::Unreachable);
    advance(&clock, secs(700)).await;
    assert_eq!(ready(), (false, true));
}

#[tokio::test(start_paused = true)]
async fn the_start_waits_for_the_keys_that_make_the_server_ready() {
    let issuer = ScriptedIssuer::new(set(&[("a", support::rsa(0))]));
    issuer.set_reply_at(KEYS[0], IssuerReply::Unreachable);
    let start = async |readiness, startup| {
        let start = tokio::time::Instant::now();
        let server = two_issuers(&issuer, readiness).startup(startup).start();
        let ready = server.await.map(|server| server.keys_available());
        (ready.ok(), start.elapsed())
    };
    let (all, any) = (ReadinessPolicy::All, ReadinessPolicy::Any);
    let (wait, require) = (Startup::Wait(secs(10)), Startup::Require(secs(10)));
    assert_eq!(start(all, wait).await, (Some(false), secs(10)));
    assert_eq!(start(all, require).await, (None, secs(10)));
    assert_eq!(start(any, wait).await, (Some(true), Duration::ZERO));
    assert_eq!(start(any, require).await, (Some(true), Duration::ZERO));
    issuer.set_reply_at(KEYS[1], IssuerReply::Unreachable);
    assert_eq!(start(any, wait).await, (Some(false), secs(10)));
    assert_eq!(start(any, require).await, (None, secs(10)));
}

#[tokio::test(start_paused = true)]
async fn with_any_issuer_the_wait_for_keys_ends_when_the_first_keys_arrive_or_none_can() {
    let issuer = ScriptedIssuer::new(set(&[("a", support::rsa(0))]));
    let outage = || KEYS.map(|url| issuer.set_reply_at(url, IssuerReply::Unreachable));
    outage();
    let server = two_issuers(&issuer, ReadinessPolicy::Any).startup(Startup::Background);
    let server = server.start().await.unwrap();
    let recovery = async {
        tokio::time::sleep(secs(60)).await;
        let keys = set(&[("a", support::rsa(0))]);
        issuer.set_reply_at(KEYS[1], IssuerReply::Keys(keys));
    };
    let start = tokio::time::Instant::now();
    tokio::join!(server.wait_for_keys(), recovery);
    assert!(server.keys_available());
    assert!((secs(60)..secs(66)).contains(&start.elapsed()));

    outage();
    let (server, refresher) = two_issuers(&issuer, ReadinessPolicy::Any).build().unwrap();
    let task = tokio::spawn(refresher);
    let end = async {
        tokio::time::sleep(secs(1)).await;
        task.abort();
    };
    tokio::join!(server.wait_for_keys(), end);
    assert!(!server.keys_available());
}
