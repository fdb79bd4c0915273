//! Requests and callers on an executor without timers: no wait needs a tokio runtime. The refresher
//! and the renewer run on a tokio runtime in another thread, and end the waits.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use tower_oauth::clock::UnixTime;
use tower_oauth::error::ErrorKind;
use tower_oauth::key_set::{KeySet, RefreshPolicy};
use tower_oauth::resource_server::RejectionKind;
use tower_oauth::{
    AuthContext, ClientCredentials, Endpoint, Rejection, ResourceServer, TokenManager,
};

use crate::support::issuer::{
    IssuerReply, ScriptedIssuer, builder, builder_with, clock, send, set, token,
};
use crate::support::token_endpoint::{Reply, TokenEndpoint};
use crate::support::{self, NOW, claims_with, rsa};

/// Runs a refresher or a renewer on a tokio runtime in another thread, which ends with it.
fn run(background: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    std::thread::spawn(move || runtime.block_on(background))
}

/// Polls once.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn head(token: &str) -> http::request::Parts {
    let request = http::Request::get("/").header("authorization", format!("Bearer {token}"));
    request.body(()).unwrap().into_parts().0
}

/// Validates a token in each of the three ways.
fn validate_in_each_way(server: &ResourceServer, token: &str) -> [Result<(), RejectionKind>; 3] {
    assert!(tokio::runtime::Handle::try_current().is_err());
    let outcome = |result: Result<AuthContext, Rejection>| {
        result.map(drop).map_err(|rejection| rejection.kind())
    };
    [
        outcome(block_on(server.validate(token))),
        outcome(block_on(server.authenticate(&head(token)))),
        block_on(send(server, token)),
    ]
}

#[test]
fn tokens_are_accepted_and_rejected_without_a_tokio_runtime() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let (server, refresher) = builder(&issuer, &clock()).build().unwrap();
    let thread = run(refresher);
    block_on(server.wait_for_keys());
    let good = token("a", rsa(0));
    for _ in 0..3 {
        assert_eq!(validate_in_each_way(&server, &good), [Ok(()); 3]);
    }
    assert_eq!(server.cached_token_count(), 1, "some of them were hits");
    let forged = validate_in_each_way(&server, &token("a", rsa(1)));
    assert_eq!(forged, [Err(RejectionKind::InvalidSignature); 3]);
    drop(server);
    thread.join().unwrap();
}

#[test]
fn an_unknown_kid_waits_for_the_refresher_in_another_thread() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let policy = RefreshPolicy::new().unknown_key_rate_limit(10, Duration::from_secs(60));
    let builder = builder(&issuer, &clock()).refresh(policy);
    let (server, refresher) = builder.build().unwrap();
    let thread = run(refresher);
    block_on(server.wait_for_keys());
    issuer.publish(set(&[("b", rsa(1))]));
    assert_eq!(
        validate_in_each_way(&server, &token("b", rsa(1))),
        [Ok(()); 3]
    );
    // Each of the ways waits once.
    issuer.publish(set(&[("c", rsa(0))]));
    assert_eq!(block_on(send(&server, &token("c", rsa(0)))), Ok(()));
    issuer.publish(set(&[("d", rsa(1))]));
    assert!(block_on(server.authenticate(&head(&token("d", rsa(1))))).is_ok());
    let status = server.key_sets().remove(0);
    assert_eq!((status.refresh_waits(), status.generation()), (3, 4));
    issuer.publish(set(&[("e", rsa(1))]));
    block_on(server.refresh_keys()).unwrap();
    assert_eq!(server.key_sets().remove(0).generation(), 5);
    drop(server);
    thread.join().unwrap();
}

#[test]
fn a_wait_for_keys_ends_at_its_time_limit() {
    const LIMIT: Duration = Duration::from_millis(200);
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let policy = RefreshPolicy::new().unknown_key_timeout(LIMIT);
    let builder = builder(&issuer, &clock()).refresh(policy);
    let (server, refresher) = builder.build().unwrap();
    let thread = run(refresher);
    block_on(server.wait_for_keys());
    // The fetch lasts until its own time limit, which is longer than all three waits.
    issuer.set_reply(IssuerReply::Hang);
    let start = Instant::now();
    let unknown = validate_in_each_way(&server, &token("x", rsa(1)));
    assert_eq!(unknown, [Err(RejectionKind::UnknownKey); 3]);
    let waited = start.elapsed();
    assert_eq!(server.key_sets().remove(0).refresh_waits(), 3);
    assert!(
        waited >= LIMIT * 3 && waited < Duration::from_secs(4),
        "{waited:?}"
    );
    drop(server);
    thread.join().unwrap();
}

#[test]
fn without_a_running_refresher_an_unknown_kid_is_rejected_at_once() {
    let issuer = ScriptedIssuer::new(set(&[("b", rsa(1))]));
    let keys = KeySet::from_json(set(&[("a", rsa(0))]).to_string().as_bytes()).unwrap();
    let builder = builder_with(&issuer, &clock(), |issuer| {
        issuer.initial_keys(keys, UnixTime::from_secs(NOW))
    });
    let (server, refresher) = builder.build().unwrap();
    let validate = |token: String| match poll_once(server.validate(&token)) {
        Poll::Ready(result) => result.map(drop).map_err(|rejection| rejection.kind()),
        Poll::Pending => panic!("it waits"),
    };
    assert_eq!(validate(token("a", rsa(0))), Ok(()));
    assert_eq!(validate(token("b", rsa(1))), Err(RejectionKind::UnknownKey));
    drop(refresher);
    assert_eq!(validate(token("b", rsa(1))), Err(RejectionKind::UnknownKey));
    assert_eq!(server.key_sets().remove(0).refresh_waits(), 0);
}

#[test]
fn requests_wait_for_a_verification_without_a_tokio_runtime() {
    let keys = |keys| {
        ResourceServer::from_issuer(
            tower_oauth::TrustedIssuer::new(
                support::ISSUER.parse().unwrap(),
                support::AUDIENCE.parse().unwrap(),
            )
            .keys(keys),
        )
        .max_concurrent_verifications(1)
    };
    let fixture = support::Fixture::with_server(keys);
    let (server, fixture) = (&fixture.server, &fixture);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in 0..50 {
                    let jti = serde_json::json!({ "jti": format!("{thread}-{number}") });
                    let token = fixture.token(&claims_with(jti));
                    block_on(server.validate(&token)).unwrap();
                }
            });
        }
    });
    assert_eq!(server.cached_token_count(), 200);
}

fn manager(endpoint: &TokenEndpoint) -> tower_oauth::client::TokenManagerBuilder {
    let url = Endpoint::new("https://as.example/token").unwrap();
    TokenManager::builder(url, ClientCredentials::new("orders", "secret"))
        .transport(endpoint.clone())
}

#[test]
fn a_token_is_obtained_and_replaced_without_a_tokio_runtime() {
    const LIMIT: Duration = Duration::from_millis(300);
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let builder = manager(&endpoint).request_timeout(LIMIT);
    let (tokens, renewer) = builder.build().unwrap();
    let waiting = tokens.clone();
    let mut waiting = Box::pin(async move { waiting.access_token().await });
    let context = &mut Context::from_waker(Waker::noop());
    assert!(
        waiting.as_mut().poll(context).is_pending(),
        "it waits for the first poll of the renewer"
    );
    let thread = run(renewer);
    let first = block_on(waiting).unwrap();
    assert_eq!(first.expose_secret(), "token-1");
    assert_eq!(
        block_on(tokens.access_token()).unwrap().expose_secret(),
        "token-1"
    );
    let second = block_on(tokens.invalidate_and_wait(&first)).unwrap();
    assert_eq!(second.expose_secret(), "token-2");
    drop(tokens);
    thread.join().unwrap();

    // The same with an endpoint that does not reply.
    let (tokens, renewer) = manager(&endpoint).request_timeout(LIMIT).build().unwrap();
    let thread = run(renewer);
    let token = block_on(tokens.access_token()).unwrap();
    endpoint.set_reply(Reply::Hang);
    let start = Instant::now();
    assert!(block_on(tokens.invalidate_and_wait(&token)).is_none());
    let waited = start.elapsed();
    assert!(
        waited >= LIMIT && waited < Duration::from_secs(3),
        "{waited:?}"
    );
    drop(tokens);
    thread.join().unwrap();
}

#[test]
fn a_call_ends_when_its_renewer_is_dropped_without_a_poll() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let (tokens, renewer) = manager(&endpoint).build().unwrap();
    let mut waiting = pin!(tokens.access_token());
    let context = &mut Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(context).is_pending());
    drop(renewer);
    assert_eq!(
        block_on(waiting).unwrap_err().kind(),
        ErrorKind::Configuration
    );
}
