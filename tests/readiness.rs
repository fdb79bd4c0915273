//! `poll_ready` is honored on every path, and limit and buffer layers work inside and outside.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod support;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use serde_json::json;
use support::{Fixture, claims, compact};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::resource_server::Startup;
use tower_oauth::{Audience, Issuer, RequireScopeLayer, ResourceServer};

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

fn request(token: &str) -> Request<()> {
    Request::builder()
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(())
        .unwrap()
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
        assert_eq!(status(&mut service, request(&token)).await, StatusCode::OK);
        assert_eq!(
            status(&mut service, request("x.y.z")).await,
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
        assert_eq!(status(&mut under, request(&token)).await, StatusCode::OK);
        assert_eq!(status(&mut over, request(&token)).await, StatusCode::OK);
        assert_eq!(
            status(&mut under, request("x.y.z")).await,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(
            status(&mut over, request("x.y.z")).await,
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
    check::<tower_oauth::resource_server::RequireScopeService<Strict>>();
    check::<tower_oauth::AuthContext>();
    check::<tower_oauth::Rejection>();
    fn send<T: Send>() {}
    send::<tower_oauth::resource_server::ResponseFuture<Strict, (), String>>();
}

#[tokio::test(start_paused = true)]
async fn a_request_waiting_for_keys_calls_the_service_that_was_ready() {
    let (old, new) = (support::rsa(0), support::rsa(1));
    let issuer = support::issuer::ScriptedIssuer::new(json!({ "keys": [old.jwk("old")] }));
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
    assert_eq!(status(&mut service, request(&token)).await, StatusCode::OK);
    assert_eq!(status(&mut service, request(&token)).await, StatusCode::OK);
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
    let issuer = support::issuer::ScriptedIssuer::new(json!({ "keys": [key.jwk("known")] }));
    let server = ResourceServer::builder(
        Issuer::new(support::ISSUER).unwrap(),
        Audience::new("orders").unwrap(),
    )
    .clock(ManualClock::at(UnixTime::from_secs(support::NOW)))
    .transport(issuer.clone())
    .start()
    .await
    .unwrap();
    issuer.set_reply(support::issuer::IssuerReply::Hang);
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
        .call(request(&token("unknown")));
    let mut service = service;
    let served = tokio::time::timeout(
        Duration::from_millis(1),
        status(&mut service, request(&token("known"))),
    );
    assert_eq!(served.await.unwrap(), StatusCode::OK);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::UNAUTHORIZED);
    // A request that is accepted after its wait acquires the released permit again.
    issuer.publish(json!({ "keys": [key.jwk("new")] }));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        status(&mut service, request(&token("new"))).await,
        StatusCode::OK
    );
}
