//! The limit on concurrent signature verifications.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use http::{Response, StatusCode, header};
use serde_json::json;
use tower::{Layer, Service, service_fn};
use tower_oauth::resource_server::RejectionKind;
use tower_oauth::{Rejection, ResourceServer};

use crate::support::issuer::{ScriptedIssuer, builder, clock, set, with_claims};
use crate::support::{bearer, claims_with, ok, rsa};

async fn send(server: &ResourceServer, token: &str) -> Response<()> {
    server
        .layer()
        .layer(service_fn(ok))
        .call(bearer(token, ()))
        .await
        .unwrap()
}

fn good(number: usize) -> String {
    with_claims(
        "a",
        rsa(0),
        &claims_with(json!({ "jti": number.to_string() })),
    )
}

fn forged(number: usize) -> String {
    with_claims(
        "a",
        rsa(1),
        &claims_with(json!({ "jti": number.to_string() })),
    )
}

/// A server that verifies this many signatures at a time.
async fn server(limit: usize) -> ResourceServer {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    builder(&issuer, &clock())
        .max_concurrent_verifications(limit)
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_request_gets_its_own_result_under_the_verification_limit() {
    for limit in [1, 3] {
        let server = server(limit).await;
        let pending: Vec<_> = (0..400)
            .map(|number| {
                let server = server.clone();
                let (token, expected) = if number % 2 == 0 {
                    (good(number), StatusCode::OK)
                } else {
                    (forged(number), StatusCode::UNAUTHORIZED)
                };
                (
                    expected,
                    tokio::spawn(async move { send(&server, &token).await.status() }),
                )
            })
            .collect();
        for (expected, pending) in pending {
            assert_eq!(pending.await.unwrap(), expected);
        }
    }
}

/// Returns a request that waits for the only permit, which is free and reserved for it.
macro_rules! waiting_request {
    ($server:expr, $call:expr, $token:expr) => {{
        // Other threads verify only forged tokens, until a request here finds the permit taken.
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for which in 0..2 {
                let mut service = $server.layer().layer(service_fn(ok));
                let (token, over) = (forged(which), &over);
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        drop(service.call(bearer(&token, ())));
                    }
                });
            }
            let waiting = loop {
                match $call($token) {
                    (waiting, Poll::Pending) => break waiting,
                    (_, Poll::Ready(response)) => {
                        assert_eq!(response.status(), StatusCode::UNAUTHORIZED)
                    }
                }
            };
            over.store(true, Ordering::SeqCst);
            waiting
        })
    }};
}

#[tokio::test]
async fn a_request_that_waits_for_keys_holds_no_permit() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
    let server = builder(&issuer, &clock())
        .max_concurrent_verifications(1)
        .start()
        .await
        .unwrap();
    let mut service = server.layer().layer(service_fn(ok));
    let mut call = |token: &str| {
        let mut pending = Box::pin(service.call(bearer(token, ())));
        let mut context = Context::from_waker(Waker::noop());
        let polled = pending.as_mut().poll(&mut context);
        (pending, polled.map(Result::unwrap))
    };
    let mut waiting = waiting_request!(server, call, &forged(2));
    issuer.publish(set(&[("b", rsa(1))]));
    server.refresh_keys().await.unwrap();
    // It gets the permit, and finds that its key is gone.
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    let other = with_claims("b", rsa(1), &claims_with(json!({ "jti": "other" })));
    let (_, polled) = call(&other);
    let Poll::Ready(response) = polled else {
        panic!("the permit is held");
    };
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn beyond_1024_waiting_verifications_requests_get_503_and_cached_tokens_are_served() {
    let server = server(1).await;
    let known = good(0);
    assert_eq!(send(&server, &known).await.status(), StatusCode::OK);
    assert_eq!(
        server.cached_token_count(),
        1,
        "no request needs two permits"
    );
    let mut service = server.layer().layer(service_fn(ok));
    let mut call = |token: &str| {
        let mut pending = Box::pin(service.call(bearer(token, ())));
        let polled = pending
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        (pending, polled.map(Result::unwrap))
    };

    let next = waiting_request!(server, call, &forged(2));

    // The permit is reserved for the waiting request; later requests queue behind it.
    let mut waiting = Vec::new();
    let overloaded = loop {
        match call(&good(1)) {
            (pending, Poll::Pending) => waiting.push(pending),
            (_, Poll::Ready(response)) => break response,
        }
    };
    assert_eq!(waiting.len(), 1023);
    assert_eq!(overloaded.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(overloaded.headers()[header::RETRY_AFTER], "1");
    assert!(!overloaded.headers().contains_key(header::WWW_AUTHENTICATE));
    assert_eq!(
        overloaded.extensions().get::<Rejection>().unwrap().kind(),
        RejectionKind::Overloaded
    );
    assert_eq!(
        send(&server, &known).await.status(),
        StatusCode::OK,
        "a cached token needs no permit"
    );

    // A dropped request lets the next one in, and the results stay correct.
    waiting.truncate(20);
    assert_eq!(next.await.unwrap().status(), StatusCode::UNAUTHORIZED);
    for pending in waiting {
        assert_eq!(pending.await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(server.cached_token_count(), 2);
}

#[tokio::test]
async fn the_resources_of_a_process_share_the_verification_limit() {
    const BILLS: &str = "https://api.example/bills";
    let server = server(1).await;
    for bills in [
        server.also(BILLS).unwrap(),
        server.also_with_audience(BILLS).unwrap(),
    ] {
        let mut service = server.layer().layer(service_fn(ok));
        let mut call = |token: &str| {
            let mut pending = Box::pin(service.call(bearer(token, ())));
            let mut context = Context::from_waker(Waker::noop());
            let polled = pending.as_mut().poll(&mut context);
            (pending, polled.map(Result::unwrap))
        };
        let waiting = waiting_request!(server, call, &forged(2));
        let token = with_claims("a", rsa(0), &claims_with(json!({ "aud": BILLS })));
        let mut at_bills = Box::pin(send(&bills, &token));
        let mut context = Context::from_waker(Waker::noop());
        assert!(at_bills.as_mut().poll(&mut context).is_pending());
        assert_eq!(waiting.await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(at_bills.await.status(), StatusCode::OK);
    }
}
