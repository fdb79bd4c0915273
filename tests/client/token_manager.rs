//! The token manager: shared requests, storage, renewal, retries. Time is paused.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep};
use tower_oauth::client::{TokenManagerBuilder, TokenSource as _};
use tower_oauth::clock::UnixTime;
use tower_oauth::error::ErrorKind;
use tower_oauth::{
    Audience, ClientCredentials, ConfigError, Endpoint, Issuer, Scope, TokenManager,
};

use crate::support::log;
use crate::support::token_endpoint::{Reply, TokenEndpoint, TokioClock, sleep_seconds};

const TOKEN_URL: &str = "https://as.example/token";

fn credentials() -> ClientCredentials {
    ClientCredentials::new("orders", "s3cr3t/+=")
}

fn builder(endpoint: &TokenEndpoint) -> TokenManagerBuilder {
    TokenManager::builder(Endpoint::new(TOKEN_URL).unwrap(), credentials())
        .transport(endpoint.clone())
        .clock(TokioClock::new())
}

fn manager(endpoint: &TokenEndpoint) -> TokenManager {
    builder(endpoint).start().unwrap()
}

async fn token(manager: &TokenManager) -> String {
    manager
        .access_token()
        .await
        .unwrap()
        .expose_secret()
        .to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_share_one_request() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(Duration::from_millis(200));
    let manager = manager(&endpoint);
    let mut callers = JoinSet::new();
    for _ in 0..1000 {
        let manager = manager.clone();
        callers.spawn(async move { token(&manager).await });
    }
    assert!(
        callers
            .join_all()
            .await
            .iter()
            .all(|token| token == "token-1")
    );
    assert_eq!(endpoint.count(), 1);
    assert_eq!(token(&manager).await, "token-1", "the token is stored");
    assert_eq!(endpoint.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_request_is_sent_before_a_token_is_needed() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let _manager = manager(&endpoint);
    sleep_seconds(10_000).await;
    assert_eq!(endpoint.count(), 0);
}

/// Starts calls that wait for a token, and polls them once.
async fn waiting(manager: &TokenManager, calls: usize) -> JoinSet<Result<(), ErrorKind>> {
    let mut waiting = JoinSet::new();
    for _ in 0..calls {
        let manager = manager.clone();
        waiting.spawn(async move {
            manager
                .access_token()
                .await
                .map(drop)
                .map_err(|error| error.kind())
        });
    }
    sleep(Duration::from_millis(1)).await;
    waiting
}

#[tokio::test(start_paused = true)]
async fn beyond_1024_waiting_calls_a_call_fails_at_once() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(Duration::from_secs(1));
    let manager = manager(&endpoint);
    let mut calls = waiting(&manager, 1025).await;
    let start = Instant::now();
    let (first, others) = (
        calls.join_next().await.unwrap().unwrap(),
        calls.join_all().await,
    );
    assert_eq!(first, Err(ErrorKind::Overloaded));
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(others.iter().all(Result::is_ok), "1024 were served");
    assert_eq!(endpoint.count(), 1);
    // With a token there is no such limit, and the permits are free again.
    assert!(
        waiting(&manager, 5000)
            .await
            .join_all()
            .await
            .iter()
            .all(Result::is_ok)
    );
    sleep_seconds(3600).await;
    assert!(
        waiting(&manager, 1024)
            .await
            .join_all()
            .await
            .iter()
            .all(Result::is_ok)
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_releases_its_waiter_permit() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(Duration::from_secs(1));
    let manager = builder(&endpoint).max_waiters(2).start().unwrap();
    let mut calls = waiting(&manager, 2).await;
    let error = manager.access_token().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.kind().as_str()),
        (ErrorKind::Overloaded, "overloaded")
    );
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    let calls = waiting(&manager, 2).await;
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(endpoint.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_waiting_calls_is_an_error() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let error = builder(&endpoint).max_waiters(0).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid max_waiters \"0\": must be at least 1"
    );
    let _manager = builder(&endpoint).max_waiters(usize::MAX).start().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_request_without_a_response_ends_after_10_s_by_default() {
    let endpoint = TokenEndpoint::with_reply(Reply::Hang);
    let source = builder(&endpoint).build_source().unwrap();
    let started = Instant::now();
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn waiters_survive_a_cancelled_leader() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(Duration::from_secs(1));
    let manager = manager(&endpoint);
    let leader = tokio::spawn({
        let manager = manager.clone();
        async move { token(&manager).await }
    });
    sleep(Duration::from_millis(100)).await;
    let follower = tokio::spawn({
        let manager = manager.clone();
        async move { token(&manager).await }
    });
    sleep(Duration::from_millis(100)).await;
    leader.abort();
    assert_eq!(follower.await.unwrap(), "token-1");
    assert_eq!(endpoint.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_request_continues_without_repetition_when_all_callers_are_cancelled() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(Duration::from_secs(1));
    let manager = manager(&endpoint);
    assert!(
        tokio::time::timeout(Duration::from_millis(10), manager.access_token())
            .await
            .is_err()
    );
    sleep_seconds(2).await;
    assert_eq!(token(&manager).await, "token-1");
    assert_eq!(endpoint.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_used_token_is_renewed_before_expiry_without_waiting() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(300));
    let manager = manager(&endpoint);
    let mut tokens = std::collections::BTreeSet::new();
    for _ in 0..1500 {
        let started = Instant::now();
        tokens.insert(token(&manager).await);
        assert_eq!(
            started.elapsed(),
            Duration::ZERO,
            "no call waits for a renewal"
        );
        sleep_seconds(1).await;
    }
    // Each token lives for 300 s and is renewed after 225 to 240 s.
    assert!(
        (6..=7).contains(&endpoint.count()),
        "{} requests",
        endpoint.count()
    );
    assert_eq!(tokens.len(), endpoint.count());
}

#[tokio::test(start_paused = true)]
async fn an_unused_token_is_not_renewed() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(300));
    let manager = manager(&endpoint);
    token(&manager).await;
    sleep_seconds(100_000).await;
    // The second token replaced the first, which had been used. The second was never used.
    assert_eq!(endpoint.count(), 2);
    assert_eq!(token(&manager).await, "token-3", "expired meanwhile");
}

#[tokio::test(start_paused = true)]
async fn the_first_use_past_the_renewal_time_renews_the_token() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(300));
    let manager = manager(&endpoint);
    token(&manager).await; // renewed after some 230 s, then rests
    sleep_seconds(500).await;
    assert_eq!(endpoint.count(), 2);
    assert_eq!(token(&manager).await, "token-2", "no call waits");
    sleep(Duration::from_millis(1)).await;
    assert_eq!(token(&manager).await, "token-3");
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_invisible_while_the_token_is_valid() {
    let endpoint = TokenEndpoint::with_reply(Reply::Unreachable).then([Reply::Token(300)]);
    let manager = manager(&endpoint);
    for _ in 0..280 {
        assert_eq!(token(&manager).await, "token-1");
        sleep_seconds(1).await;
    }
    assert!(endpoint.count() > 3, "renewal was attempted");
    endpoint.set_reply(Reply::Token(300));
    sleep_seconds(11).await;
    assert_eq!(token(&manager).await, "token-2", "renewal is retried");
}

#[tokio::test(start_paused = true)]
async fn a_token_about_to_expire_is_not_returned() {
    let endpoint = TokenEndpoint::with_reply(Reply::Hang).then([Reply::Token(300)]);
    let manager = builder(&endpoint)
        .acquire_timeout(Duration::from_secs(5))
        .start()
        .unwrap();
    token(&manager).await;
    sleep_seconds(289).await;
    assert_eq!(token(&manager).await, "token-1");
    sleep_seconds(2).await;
    assert!(
        manager.access_token().await.is_err(),
        "less than ten seconds are left"
    );
}

#[tokio::test(start_paused = true)]
async fn transport_errors_429_and_5xx_are_retried() {
    for trouble in [
        Reply::Unreachable,
        Reply::Status(429, None),
        Reply::Status(500, None),
        Reply::Status(503, None),
    ] {
        let endpoint =
            TokenEndpoint::with_reply(Reply::Token(60)).then([trouble.clone(), trouble.clone()]);
        assert_eq!(token(&manager(&endpoint)).await, "token-1", "{trouble:?}");
        assert_eq!(endpoint.count(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_error_is_not_retried() {
    let endpoint = TokenEndpoint::with_reply(Reply::Certificate);
    let error = manager(&endpoint).access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Certificate);
    assert_eq!(endpoint.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honored() {
    let endpoint =
        TokenEndpoint::with_reply(Reply::Token(60)).then([Reply::Status(429, Some("7"))]);
    let start = Instant::now();
    token(&manager(&endpoint)).await;
    assert!(
        (7..9).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn other_4xx_and_redirects_are_not_retried() {
    for (status, code) in [
        (400, "invalid_grant"),
        (401, "invalid_client"),
        (403, "FORBIDDEN"),
        (404, "not_found"),
    ] {
        let rejection = Reply::Json(status, json!({ "error": code, "error_description": "no" }));
        let endpoint = TokenEndpoint::with_reply(rejection);
        let error = manager(&endpoint).access_token().await.unwrap_err();
        assert_eq!(endpoint.count(), 1, "{code}");
        assert_eq!(error.oauth_error().unwrap().code(), code);
        assert!(error.to_string().contains(code), "{error}");
    }
    for reply in [
        Reply::Status(404, None),
        Reply::Redirect("https://evil.example/token"),
        Reply::Json(200, json!({})),
    ] {
        let endpoint = TokenEndpoint::with_reply(reply.clone());
        manager(&endpoint).access_token().await.unwrap_err();
        assert_eq!(endpoint.count(), 1, "{reply:?}");
    }
}

/// The secret follows no redirect.
#[tokio::test(start_paused = true)]
async fn a_redirect_of_the_token_request_is_an_error() {
    let endpoint = TokenEndpoint::with_reply(Reply::Redirect("https://evil.example/token"));
    let error = manager(&endpoint).access_token().await.unwrap_err();
    assert_eq!(error.status().unwrap(), 307);
    assert!(
        endpoint
            .token_requests()
            .iter()
            .all(|seen| seen.url == TOKEN_URL)
    );
}

#[tokio::test(start_paused = true)]
async fn unexpected_token_types_lifetimes_and_errors_with_200_are_rejected() {
    for body in [
        json!({ "access_token": "t", "token_type": "DPoP", "expires_in": 60 }),
        json!({ "access_token": "t", "expires_in": 60 }),
        json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 0 }),
        json!({ "access_token": "t", "token_type": "Bearer", "expires_in": -5 }),
        json!({ "access_token": "t", "token_type": "Bearer", "expires_in": "soon" }),
        json!({ "error": "invalid_client", "access_token": "t", "token_type": "Bearer" }),
        json!(["t"]),
    ] {
        let endpoint = TokenEndpoint::with_reply(Reply::Json(200, body.clone()));
        let error = manager(&endpoint).access_token().await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Refused),
            "{body}: {error}"
        );
    }
}

/// A huge lifetime neither overflows nor keeps a token for ever.
#[tokio::test(start_paused = true)]
async fn a_token_with_unbounded_lifetime_is_renewed_within_a_day() {
    let body = json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 1e300 });
    let endpoint = TokenEndpoint::with_reply(Reply::Json(200, body));
    let manager = manager(&endpoint);
    token(&manager).await;
    sleep_seconds(86_400).await;
    token(&manager).await;
    assert_eq!(endpoint.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_an_assumed_lifetime_a_token_serves_current_waiters_and_is_not_stored() {
    let body = json!({ "access_token": "t", "token_type": "Bearer" });
    let endpoint =
        TokenEndpoint::with_reply(Reply::Json(200, body)).delay(Duration::from_millis(50));
    let manager = builder(&endpoint).assumed_lifetime(Duration::ZERO);
    let manager = manager.start().unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let manager = manager.clone();
        callers.spawn(async move { token(&manager).await });
    }
    callers.join_all().await;
    assert_eq!(endpoint.count(), 1);
    assert_eq!(manager.access_token().await.unwrap().expires_at(), None);
    assert_eq!(endpoint.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn expires_in_may_be_a_string() {
    let body = json!({
        "access_token": "t",
        "token_type": "bearer",
        "expires_in": "3600",
        "scope": "a b",
    });
    let endpoint = TokenEndpoint::with_reply(Reply::Json(200, body));
    let token = manager(&endpoint).access_token().await.unwrap();
    assert_eq!(token.expires_at(), Some(UnixTime::from_secs(1_700_003_600)));
    assert_eq!(
        token
            .scopes()
            .unwrap()
            .iter()
            .map(Scope::as_str)
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[tokio::test(start_paused = true)]
async fn acquire_timeout_error_contains_the_servers_error() {
    let unavailable = Reply::Json(503, json!({ "error": "temporarily_unavailable" }));
    let endpoint = TokenEndpoint::with_reply(unavailable);
    let start = Instant::now();
    let error = manager(&endpoint).access_token().await.unwrap_err();
    assert!(
        (20..=40).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    let oauth_error = error.oauth_error().unwrap();
    assert_eq!(oauth_error.code(), "temporarily_unavailable");
    assert!(endpoint.count() > 4);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_server_is_a_timeout() {
    let endpoint = TokenEndpoint::with_reply(Reply::Hang);
    let start = Instant::now();
    let error = manager(&endpoint).access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        start.elapsed() <= Duration::from_secs(41),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_request_is_not_repeated_within_a_second() {
    let endpoint =
        TokenEndpoint::with_reply(Reply::Json(401, json!({ "error": "invalid_client" })));
    let manager = manager(&endpoint);
    for _ in 0..100 {
        let error = manager.access_token().await.unwrap_err();
        assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
    }
    assert_eq!(endpoint.count(), 1);
    sleep_seconds(1).await;
    manager.access_token().await.unwrap_err();
    assert_eq!(endpoint.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn at_most_one_token_request_is_in_flight() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(2)).delay(Duration::from_millis(300));
    let manager = manager(&endpoint);
    let mut callers = JoinSet::new();
    for caller in 0..20_u64 {
        let manager = manager.clone();
        callers.spawn(async move {
            for _ in 0..200 {
                let token = manager.access_token().await.unwrap();
                if caller == 0 {
                    let _ = manager.invalidate(&token);
                }
                sleep(Duration::from_millis(17 + caller)).await;
            }
        });
    }
    callers.join_all().await;
    assert_eq!(endpoint.max_in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_invalidated_token_is_replaced_at_most_once_in_ten_seconds() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let manager = manager(&endpoint);
    let first = manager.access_token().await.unwrap();
    assert!(manager.invalidate(&first));
    assert_eq!(
        token(&manager).await,
        "token-1",
        "the old token is used until the new one arrives"
    );
    let second = manager.invalidate_and_wait(&first).await.unwrap();
    assert_eq!(second.expose_secret(), "token-2");
    assert!(manager.invalidate(&first), "there is a new token");
    assert_eq!(
        manager
            .invalidate_and_wait(&first)
            .await
            .unwrap()
            .expose_secret(),
        "token-2"
    );
    assert_eq!(
        token(&manager).await,
        "token-2",
        "invalidating the old token does not affect the new one"
    );
    assert!(!manager.invalidate(&second), "the token is not the cause");
    assert!(manager.invalidate_and_wait(&second).await.is_none());
    assert_eq!(endpoint.count(), 2);
    sleep_seconds(10).await;
    assert!(manager.invalidate(&second));
    sleep_seconds(1).await;
    assert_eq!(
        token(&manager).await,
        "token-3",
        "the token is renewed without a waiting call"
    );
}

/// The clock is stopped, so that everything happens within ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_invalidations_cause_one_token_request() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let clock = tower_oauth::clock::ManualClock::at(UnixTime::from_secs(1_700_000_000));
    let manager = builder(&endpoint).clock(clock).start().unwrap();
    manager.access_token().await.unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let manager = manager.clone();
        callers.spawn(async move {
            let first = manager.access_token().await.unwrap();
            let replacement = manager.invalidate_and_wait(&first).await;
            for _ in 0..200 {
                let _once_is_enough = manager.invalidate(&manager.access_token().await.unwrap());
            }
            (
                first.expose_secret().to_owned(),
                replacement.map(|token| token.expose_secret().to_owned()),
            )
        });
    }
    for (first, replacement) in callers.join_all().await {
        // A caller that came late had the new token from the beginning.
        let expected = (first == "token-1").then(|| "token-2".to_owned());
        assert_eq!(replacement, expected, "{first}");
    }
    assert_eq!(endpoint.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_new_token_is_bounded_by_five_seconds_and_the_request_timeout() {
    for (request_timeout, limit) in [(10, 5), (2, 2)] {
        let endpoint = TokenEndpoint::with_reply(Reply::Hang).then([Reply::Token(3600)]);
        let builder = builder(&endpoint).request_timeout(Duration::from_secs(request_timeout));
        let manager = builder.start().unwrap();
        let first = manager.access_token().await.unwrap();
        let start = Instant::now();
        assert!(manager.invalidate_and_wait(&first).await.is_none());
        assert_eq!(start.elapsed().as_secs(), limit);
        assert_eq!(token(&manager).await, "token-1", "the token stays in use");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slowly_issued_token_is_not_replaced_within_ten_seconds() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).then([
        Reply::Token(3600),
        Reply::Unreachable,
        Reply::Status(429, Some("60")),
    ]);
    let manager = manager(&endpoint);
    let first = manager.access_token().await.unwrap();
    assert!(manager.invalidate(&first));
    sleep_seconds(62).await;
    let second = manager.access_token().await.unwrap();
    assert_eq!(second.expose_secret(), "token-2");
    assert!(
        !manager.invalidate(&second),
        "it has just replaced a rejected token"
    );
    sleep_seconds(10).await;
    assert!(manager.invalidate(&second));
    assert_eq!(endpoint.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle_even_during_a_request() {
    let endpoint = TokenEndpoint::with_reply(Reply::Hang);
    let (manager, renewer) = builder(&endpoint).build().unwrap();
    let task = tokio::spawn(renewer);
    let clone = manager.clone();
    assert!(
        tokio::time::timeout(Duration::from_secs(1), manager.access_token())
            .await
            .is_err()
    );
    assert_eq!(endpoint.in_flight(), 1);
    drop(manager);
    sleep(Duration::from_millis(1)).await;
    assert!(!task.is_finished());
    drop(clone);
    task.await.unwrap();
    assert_eq!(endpoint.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_manager_without_its_task_returns_an_error() {
    let endpoint = TokenEndpoint::with_reply(Reply::Hang);
    let (manager, renewer) = builder(&endpoint).build().unwrap();
    let task = tokio::spawn(renewer);
    let waiting = tokio::spawn({
        let manager = manager.clone();
        async move { manager.access_token().await.map(|_| ()) }
    });
    sleep(Duration::from_millis(10)).await;
    task.abort();
    assert_eq!(
        waiting.await.unwrap().unwrap_err().kind(),
        ErrorKind::Configuration
    );
    assert_eq!(
        manager.access_token().await.unwrap_err().kind(),
        ErrorKind::Configuration
    );
}

#[tokio::test(start_paused = true)]
async fn the_request_is_a_form_with_basic_authentication() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let manager = builder(&endpoint)
        .scope(Scope::new("orders.read").unwrap())
        .scopes([Scope::new("orders.write").unwrap()])
        .audience(Audience::new("orders").unwrap())
        .resource("https://orders.example/")
        .resource("https://bills.example/")
        .parameter("account", "a&b")
        .start()
        .unwrap();
    token(&manager).await;
    let seen = endpoint.token_requests().remove(0);
    assert_eq!(seen.url, TOKEN_URL);
    // "orders:s3cr3t%2F%2B%3D"
    assert_eq!(
        seen.authorization.unwrap(),
        "Basic b3JkZXJzOnMzY3IzdCUyRiUyQiUzRA=="
    );
    assert_eq!(
        seen.content_type.unwrap(),
        "application/x-www-form-urlencoded"
    );
    let form: Vec<(&str, &str)> = seen
        .form
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        form,
        [
            ("grant_type", "client_credentials"),
            ("scope", "orders.read orders.write"),
            ("audience", "orders"),
            ("resource", "https://orders.example/"),
            ("resource", "https://bills.example/"),
            ("account", "a&b"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn client_secret_post_puts_the_credentials_into_the_body_only() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let url = Endpoint::new(TOKEN_URL).unwrap();
    let manager =
        TokenManager::builder(url, credentials().client_secret_post()).transport(endpoint.clone());
    token(&manager.start().unwrap()).await;
    let seen = endpoint.token_requests().remove(0);
    assert_eq!(seen.authorization, None);
    assert!(
        seen.form
            .contains(&("client_id".to_owned(), "orders".to_owned()))
    );
    assert!(
        seen.form
            .contains(&("client_secret".to_owned(), "s3cr3t/+=".to_owned()))
    );
}

/// A manager that discovers its token endpoint.
fn discovering(issuer: &str, endpoint: &TokenEndpoint) -> TokenManager {
    let builder = TokenManager::for_issuer(Issuer::new(issuer).unwrap(), credentials()).unwrap();
    builder
        // A token without `expires_in` is not stored.
        .assumed_lifetime(Duration::ZERO)
        .transport(endpoint.clone())
        .clock(TokioClock::new())
        .start()
        .unwrap()
}

fn metadata(issuer: &str, token_endpoint: &str) -> Reply {
    Reply::Json(
        200,
        json!({ "issuer": issuer, "token_endpoint": token_endpoint }),
    )
}

#[tokio::test(start_paused = true)]
async fn the_token_endpoint_is_discovered_or_derived_from_the_issuer() {
    let issuer = "https://as.example/tenant";
    for (reply, url) in [
        (
            metadata(issuer, "https://as.example/oauth2/t"),
            "https://as.example/oauth2/t",
        ),
        (Reply::Status(404, None), "https://as.example/tenant/token"),
    ] {
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60)).metadata(reply.clone());
        token(&discovering(issuer, &endpoint)).await;
        assert_eq!(endpoint.token_requests()[0].url, url, "{reply:?}");
    }
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    token(&discovering("https://as.example/tenant/", &endpoint)).await;
    assert_eq!(
        endpoint.token_requests()[0].url,
        "https://as.example/tenant/token",
        "one slash"
    );
}

#[tokio::test(start_paused = true)]
async fn metadata_of_another_issuer_is_an_error_naming_both_and_no_secret_is_sent() {
    let issuer = "https://as.example/tenant";
    let long = format!("https://evil.example/{}", "x".repeat(1000));
    for (named, shown) in [
        ("https://evil.example", "https://evil.example"),
        ("https://as.example/tenant/", "https://as.example/tenant/"),
        (
            "https://user:pass-word@evil.example/?key=pass-word",
            "https://evil.example/?…",
        ),
        ("\u{1b}[2J\nevil", "\\u{1b}[2J\\nevil"),
        (long.as_str(), "https://evil.example/xxx"),
    ] {
        // At one of the locations, whatever the others return.
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60)).then_metadata([
            Reply::Status(404, None),
            metadata(named, "https://evil.example/token"),
            Reply::Status(403, None),
        ]);
        let manager = discovering(issuer, &endpoint);
        let start = Instant::now();
        let error = manager.access_token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IssuerMismatch, "{named}");
        assert_eq!(error.expected(), Some(issuer));
        let found = error.found().unwrap();
        assert!(found.starts_with(shown), "{found}");
        let text = error.to_string();
        let both = format!("expected \"{issuer}\", found \"{found}\"");
        assert!(text.contains(&both), "{text}");
        assert!(
            !text.contains("pass-word") && text.len() < 600 && text.lines().count() == 1,
            "{text}"
        );
        assert_eq!(endpoint.count(), 0, "nothing is sent");
        assert_eq!(start.elapsed(), Duration::ZERO, "the error is not retried");
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_endpoint_is_derived_only_if_no_location_has_metadata() {
    let issuer = "https://as.example/tenant";
    let no_endpoint = Reply::Json(200, json!({ "issuer": issuer }));
    for (odd, kind) in [
        (
            Reply::Status(401, None),
            ErrorKind::Status(StatusCode::UNAUTHORIZED),
        ),
        (
            Reply::Status(403, None),
            ErrorKind::Status(StatusCode::FORBIDDEN),
        ),
        (
            Reply::Status(410, None),
            ErrorKind::Status(StatusCode::GONE),
        ),
        (
            Reply::Redirect("https://evil.example"),
            ErrorKind::Status(StatusCode::TEMPORARY_REDIRECT),
        ),
        (
            Reply::Text(200, "<html>Sign in</html>"),
            ErrorKind::Malformed,
        ),
        (
            Reply::Json(200, json!({ "token_endpoint": "https://as.example/t" })),
            ErrorKind::Malformed,
        ),
        (no_endpoint, ErrorKind::Malformed),
        (Reply::Large(65 * 1024), ErrorKind::TooLarge),
    ] {
        for location in 0..3 {
            let mut replies = vec![Reply::Status(404, None); 3];
            replies[location] = odd.clone();
            let endpoint = TokenEndpoint::with_reply(Reply::Token(60)).then_metadata(replies);
            let error = discovering(issuer, &endpoint)
                .access_token()
                .await
                .unwrap_err();
            assert_eq!(
                error.kind(),
                kind,
                "{odd:?} at location {location}: {error}"
            );
            assert!(error.to_string().starts_with("discovery"), "{error}");
            assert_eq!(endpoint.count(), 0, "{odd:?} at location {location}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_derived_token_endpoint_names_it_as_guessed() {
    for reply in [
        Reply::Status(404, None),
        Reply::Text(200, "<html>"),
        Reply::Unreachable,
        Reply::Hang,
    ] {
        // Discovery takes a part of the time.
        let endpoint = TokenEndpoint::with_reply(reply).delay(Duration::from_millis(10));
        let error = discovering("https://as.example/tenant", &endpoint)
            .access_token()
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("at https://as.example/tenant/token"),
            "{text}"
        );
        assert!(
            text.contains("guessed") && text.contains("no metadata"),
            "{text}"
        );
    }
    let endpoint = TokenEndpoint::with_reply(Reply::Status(404, None));
    let text = manager(&endpoint)
        .access_token()
        .await
        .unwrap_err()
        .to_string();
    assert!(!text.contains("guessed"), "{text}");
}

/// A secret goes over plain http only on loopback, and only after opt-in.
#[test]
fn a_secret_is_never_sent_over_plain_http_by_default() {
    let loopback = Endpoint::new("http://127.0.0.1:6002/token").unwrap();
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let builder = |url: &Endpoint| {
        TokenManager::builder(url.clone(), credentials()).transport(endpoint.clone())
    };
    assert!(builder(&loopback).build().is_err());
    assert!(builder(&loopback).allow_loopback_http().build().is_ok());
    let issuer = Issuer::new("http://127.0.0.1:6002/oauth").unwrap();
    let discovered = TokenManager::for_issuer(issuer, credentials()).unwrap();
    assert!(discovered.transport(endpoint.clone()).build().is_err());
}

#[tokio::test(start_paused = true)]
async fn metadata_cannot_redirect_the_secret_to_plain_http() {
    let issuer = "https://as.example";
    let metadata = json!({ "issuer": issuer, "token_endpoint": "http://as.example/token" });
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60)).metadata(Reply::Json(200, metadata));
    let manager = TokenManager::for_issuer(Issuer::new(issuer).unwrap(), credentials()).unwrap();
    let manager = manager.transport(endpoint.clone()).start().unwrap();
    assert_eq!(
        manager.access_token().await.unwrap_err().kind(),
        ErrorKind::Malformed
    );
    assert_eq!(endpoint.count(), 0);
}

/// The last path segments of the token requests.
fn last_segments(endpoint: &TokenEndpoint) -> Vec<String> {
    let last = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    endpoint
        .token_requests()
        .iter()
        .map(|seen| last(&seen.url))
        .collect()
}

const AS: &str = "https://as.example";

#[tokio::test(start_paused = true)]
async fn a_discovered_token_endpoint_is_rediscovered_after_an_hour() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60))
        .metadata(metadata(AS, "https://as.example/old"));
    let manager = discovering(AS, &endpoint);
    token(&manager).await;
    let endpoint = endpoint.metadata(metadata(AS, "https://as.example/new"));
    // Used continuously, so that there is a token request each minute.
    for _ in 0..3590 {
        token(&manager).await;
        sleep_seconds(1).await;
    }
    assert!(
        last_segments(&endpoint)
            .iter()
            .all(|location| location == "old"),
        "not before an hour"
    );
    assert_eq!(endpoint.metadata_requests(), 1);
    for _ in 0..120 {
        token(&manager).await;
        sleep_seconds(1).await;
    }
    assert_eq!(last_segments(&endpoint).last().unwrap(), "new");
    assert_eq!(endpoint.metadata_requests(), 2);
    // No request is sent when no token is needed.
    sleep_seconds(100_000).await;
    assert_eq!(endpoint.metadata_requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_moved_token_endpoint_is_rediscovered_when_the_old_one_fails() {
    for old in [
        Reply::Unreachable,
        Reply::Hang,
        Reply::Status(404, None),
        Reply::Status(405, None),
        Reply::Status(410, None),
        Reply::Status(421, None),
        Reply::Status(403, None),
        Reply::Status(500, None),
        Reply::Status(503, None),
        Reply::Redirect("https://as.example/new"),
        Reply::Text(200, "<html>moved</html>"),
    ] {
        let body = json!({ "access_token": "t", "token_type": "Bearer" });
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60))
            .then([Reply::Json(200, body), old.clone()])
            .metadata(metadata(AS, "https://as.example/old"));
        let manager = discovering(AS, &endpoint);
        assert_eq!(token(&manager).await, "t");
        let endpoint = endpoint.metadata(metadata(AS, "https://as.example/new"));
        let start = Instant::now();
        assert_eq!(token(&manager).await, "token-1", "{old:?}");
        assert_eq!(last_segments(&endpoint), ["old", "old", "new"], "{old:?}");
        assert!(
            start.elapsed() <= Duration::from_secs(11),
            "{old:?}: {:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_oauth_error_causes_no_rediscovery() {
    let rejection = Reply::Json(401, json!({ "error": "invalid_client" }));
    let body = json!({ "access_token": "t", "token_type": "Bearer" });
    let endpoint = TokenEndpoint::with_reply(rejection)
        .then([Reply::Json(200, body)])
        .metadata(metadata(AS, "https://as.example/old"));
    let manager = discovering(AS, &endpoint);
    token(&manager).await;
    for _ in 0..20 {
        manager.access_token().await.unwrap_err();
        sleep_seconds(2).await;
    }
    assert_eq!((endpoint.count(), endpoint.metadata_requests()), (21, 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_known_token_endpoint_is_used_while_discovery_fails() {
    for trouble in [
        Reply::Unreachable,
        Reply::Hang,
        Reply::Status(404, None),
        Reply::Status(429, Some("600")),
        Reply::Status(503, None),
        Reply::Status(403, None),
        Reply::Text(200, "<html>"),
    ] {
        log::clear_log();
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60))
            .metadata(metadata(AS, "https://as.example/known"));
        let manager = discovering(AS, &endpoint);
        token(&manager).await;
        let endpoint = endpoint.metadata(trouble.clone());
        sleep_seconds(3600).await;
        assert_eq!(token(&manager).await, "token-3", "{trouble:?}");
        let discoveries = endpoint.metadata_requests();
        assert!(discoveries > 1, "{trouble:?}");
        // The first discovery succeeds. After an outage, no second location is tried.
        let locations = match trouble {
            Reply::Status(403 | 404, None) | Reply::Text(..) => 2,
            _ => 1,
        };
        let event = "tower_oauth::client: discovery failed: \
                     token requests go to the last known endpoint";
        assert_eq!(
            log::count(event) * locations,
            discoveries - 1,
            "{trouble:?}"
        );
        for _ in 0..50 {
            token(&manager).await;
            sleep_seconds(1).await;
        }
        assert_eq!(
            endpoint.metadata_requests(),
            discoveries,
            "{trouble:?}: they are left alone for a minute"
        );
        assert!(
            last_segments(&endpoint)
                .iter()
                .all(|location| location == "known"),
            "{trouble:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn later_metadata_of_another_issuer_is_an_error_and_no_secret_is_sent() {
    for (later, kind) in [
        (
            metadata("https://evil.example", "https://evil.example/t"),
            ErrorKind::IssuerMismatch,
        ),
        (metadata(AS, "http://127.0.0.1/t"), ErrorKind::Malformed),
        (
            Reply::Json(200, json!({ "issuer": AS })),
            ErrorKind::Malformed,
        ),
    ] {
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60))
            .metadata(metadata(AS, "https://as.example/known"));
        let manager = discovering(AS, &endpoint);
        token(&manager).await;
        let endpoint = endpoint.metadata(later.clone());
        sleep_seconds(3600).await;
        let sent = endpoint.count();
        assert_eq!(
            manager.access_token().await.unwrap_err().kind(),
            kind,
            "{later:?}"
        );
        sleep_seconds(2).await;
        assert_eq!(
            manager.access_token().await.unwrap_err().kind(),
            kind,
            "{later:?}"
        );
        assert_eq!(endpoint.count(), sent, "nothing is sent");
        let endpoint = endpoint.metadata(metadata(AS, "https://as.example/back"));
        sleep_seconds(2).await;
        token(&manager).await;
        assert_eq!(last_segments(&endpoint).last().unwrap(), "back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_outage_causes_a_bounded_number_of_discoveries() {
    let endpoint = TokenEndpoint::with_reply(Reply::Status(503, None))
        .then([Reply::Token(60)])
        .metadata(metadata(AS, "https://as.example/known"));
    let manager = discovering(AS, &endpoint);
    token(&manager).await;
    sleep_seconds(60).await;
    for _ in 0..60 {
        manager.access_token().await.unwrap_err();
    }
    assert!(endpoint.count() > 20, "{}", endpoint.count());
    let most =
        2 + usize::try_from(endpoint.token_requests()[0].at.elapsed().as_secs() / 10).unwrap();
    assert!(
        endpoint.metadata_requests() <= most,
        "{} of {most}",
        endpoint.metadata_requests()
    );
}

/// URLs in an https document must be https, even where plain http on loopback is allowed.
#[tokio::test(start_paused = true)]
async fn metadata_of_an_https_issuer_never_lead_to_plain_http() {
    for (issuer, named, good) in [
        ("https://as.example", "http://127.0.0.1:6002/token", false),
        ("https://as.example", "http://localhost/token", false),
        ("HTTPS://as.example", "http://[::1]/token", false),
        (
            "https://localhost:6002",
            "http://localhost:6002/token",
            false,
        ),
        ("https://as.example", "https://127.0.0.1/token", true),
        ("http://localhost:6002", "http://127.0.0.1:6003/token", true),
    ] {
        let endpoint =
            TokenEndpoint::with_reply(Reply::Token(60)).metadata(metadata(issuer, named));
        let builder =
            TokenManager::for_issuer(Issuer::new(issuer).unwrap(), credentials()).unwrap();
        let manager = builder
            .transport(endpoint.clone())
            .allow_loopback_http()
            .start()
            .unwrap();
        let outcome = manager.access_token().await;
        assert_eq!(outcome.is_ok(), good, "{issuer} names {named}");
        assert_eq!(endpoint.count(), usize::from(good));
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn debug_output_and_errors_contain_no_secret_or_token() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let builder = builder(&endpoint).parameter("device_assertion", "s3cr3t-assertion");
    let shown = format!("{builder:?} {:?}", credentials());
    let manager = builder.start().unwrap();
    let token = manager.access_token().await.unwrap();
    assert!(token.header_value().is_sensitive());
    let shown = format!("{shown} {manager:?} {token:?} {:?}", token.header_value());
    assert!(
        !shown.contains("s3cr3t") && !shown.contains("token-1"),
        "{shown}"
    );
}

/// A secret in each encoding in which a server may receive and quote it.
fn quotes(secret: &str) -> Vec<String> {
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let spaces = form.replace('+', "%20");
    let lower = form
        .replace("%2B", "%2b")
        .replace("%2F", "%2f")
        .replace("%3D", "%3d");
    let lower = lower.replace("%C3%A9", "%c3%a9").replace("%5C", "%5c");
    let json = json!(secret).to_string().trim_matches('"').to_owned();
    let twice: String = url::form_urlencoded::byte_serialize(form.as_bytes()).collect();
    vec![secret.to_owned(), form, spaces, lower, json, twice]
}

/// CVE-2022-29266 (APISIX: a secret in an error message)
#[tokio::test(start_paused = true)]
async fn errors_redact_secrets_and_tokens_quoted_by_the_server() {
    let secret = "p/w+ \"=%25é\\&x-long-one";
    let assertion = "an-assertion/that+is=secret";
    let mut quoted = quotes(secret);
    quoted.extend(quotes(assertion));
    let basic = ClientCredentials::new("orders", secret);
    let pairs = [basic.clone(), basic.clone().client_secret_basic_raw()];
    for credentials in pairs.into_iter().chain([basic.client_secret_post()]) {
        let url = Endpoint::new(TOKEN_URL).unwrap();
        // Sent first, to learn the credentials in base64.
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
        let manager = || {
            let builder = TokenManager::builder(url.clone(), credentials.clone());
            builder
                .parameter("device_assertion", assertion)
                .clock(TokioClock::new())
        };
        token(&manager().transport(endpoint.clone()).start().unwrap()).await;
        let mut quoted = quoted.clone();
        if let Some(field) = &endpoint.token_requests()[0].authorization {
            let pair = field.strip_prefix("Basic ").unwrap().trim_end_matches('=');
            quoted.extend([pair.to_owned(), format!("{pair}%3D")]);
        }
        for (status, quote) in [200, 400, 401, 503]
            .iter()
            .flat_map(|s| quoted.iter().map(move |q| (*s, q)))
        {
            // The secret also crosses the position where the text is truncated.
            let text = format!("{}{quote} or {quote}, {quote}.", "x".repeat(190));
            for body in [
                json!({ "error": text, "error_description": text }),
                json!({ "error_code": text, "error_description": format!("bad client {quote}") }),
                json!({ "error": "invalid_client", "error_description": text }),
            ] {
                let endpoint = TokenEndpoint::with_reply(Reply::Json(status, body));
                let builder = manager()
                    .transport(endpoint)
                    .acquire_timeout(Duration::ZERO);
                let error = builder.start().unwrap().access_token().await.unwrap_err();
                let oauth_error = error.oauth_error().unwrap();
                let shown = format!(
                    "{error} {error:?} {oauth_error:?} {} {}",
                    oauth_error.code(),
                    oauth_error.description().unwrap()
                );
                let part: String = quote.chars().take(9).collect();
                assert!(
                    !shown.contains(quote) && !shown.contains(&part),
                    "{quote} in {shown}"
                );
                assert!(shown.contains("[redacted]"), "{shown}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_redact_a_token_in_the_response() {
    for member in ["access_token", "refresh_token", "id_token"] {
        let issued = "an.issued/token+x==";
        let body = json!({
            "error": "invalid_scope", member: issued, "token_type": "Bearer",
            "error_description":
                format!("no scope for {issued}, nor eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln"),
        });
        let endpoint = TokenEndpoint::with_reply(Reply::Json(400, body));
        let error = manager(&endpoint).access_token().await.unwrap_err();
        let oauth_error = error.oauth_error().unwrap();
        let shown = format!(
            "{error} {error:?} {oauth_error:?} {}",
            oauth_error.description().unwrap()
        );
        assert!(
            !shown.contains("issued/") && !shown.contains("eyJ"),
            "{shown}"
        );
        assert_eq!(
            oauth_error.description().unwrap(),
            "no scope for [redacted], nor [redacted]"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_registered_error_code_that_contains_the_secret_is_kept() {
    let endpoint =
        TokenEndpoint::with_reply(Reply::Json(401, json!({ "error": "invalid_client" })));
    let url = Endpoint::new(TOKEN_URL).unwrap();
    let manager =
        TokenManager::builder(url, ClientCredentials::new("a", "client")).transport(endpoint);
    let error = manager.start().unwrap().access_token().await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
}

#[tokio::test(start_paused = true)]
async fn after_system_sleep_an_expired_token_is_not_used() {
    let clock = tower_oauth::clock::ManualClock::at(UnixTime::from_secs(1_700_000_000));
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let manager = builder(&endpoint).clock(clock.clone()).start().unwrap();
    assert_eq!(token(&manager).await, "token-1");
    clock.advance(Duration::from_secs(3600)); // while tokio's time stood still
    assert_eq!(token(&manager).await, "token-2");
    advance(Duration::from_secs(1)).await;
}

#[test]
fn starting_outside_a_runtime_is_an_error() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let url = Endpoint::new(TOKEN_URL).unwrap();
    assert!(
        TokenManager::builder(url, credentials())
            .transport(endpoint)
            .start()
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn metadata_available_after_a_failed_guess_is_used() {
    let issuer = "https://as.example/tenant";
    let endpoint = TokenEndpoint::with_reply(Reply::Status(404, None));
    let manager = TokenManager::for_issuer(Issuer::new(issuer).unwrap(), credentials()).unwrap();
    let manager = manager.transport(endpoint.clone()).start().unwrap();
    manager.access_token().await.unwrap_err();
    let metadata = json!({ "issuer": issuer, "token_endpoint": "https://as.example/oauth2/t" });
    let endpoint = endpoint.metadata(Reply::Json(200, metadata));
    endpoint.set_reply(Reply::Token(60));
    sleep_seconds(2).await;
    token(&manager).await;
    assert_eq!(
        endpoint.token_requests().last().unwrap().url,
        "https://as.example/oauth2/t"
    );
}

#[tokio::test(start_paused = true)]
async fn the_servers_error_is_kept_when_the_last_attempt_times_out() {
    let endpoint = TokenEndpoint::with_reply(Reply::Hang).then([Reply::Json(
        503,
        json!({ "error": "temporarily_unavailable" }),
    )]);
    let error = manager(&endpoint).access_token().await.unwrap_err();
    let oauth_error = error.oauth_error().unwrap();
    assert_eq!(oauth_error.code(), "temporarily_unavailable");
}

/// CVE-2025-26620 (Duende: a token for one scope, served for another)
#[tokio::test(start_paused = true)]
async fn a_token_is_stored_for_its_scope_and_resource_only() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let reader = builder(&endpoint)
        .scope(Scope::new("orders.read").unwrap())
        .start()
        .unwrap();
    let writer = builder(&endpoint)
        .scope(Scope::new("orders.write").unwrap())
        .start()
        .unwrap();
    assert_ne!(token(&reader).await, token(&writer).await);
    let requested: Vec<_> = endpoint
        .token_requests()
        .into_iter()
        .flat_map(|request| request.form)
        .collect();
    let scopes: Vec<&str> = requested
        .iter()
        .filter(|(name, _)| name == "scope")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(scopes, ["orders.read", "orders.write"]);
    assert_eq!(token(&reader).await, token(&reader.clone()).await);
    assert_eq!(endpoint.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn scopes_and_audiences_convert_and_what_does_not_is_an_error_of_build() {
    let builder = TokenManager::builder(Endpoint::new(TOKEN_URL).unwrap(), credentials());
    let build =
        |builder: TokenManagerBuilder| -> Result<(), ConfigError> { builder.build().map(|_| ()) };
    let scope: Scope = "read".parse().unwrap();
    let audience: Audience = "orders".parse().unwrap();
    build(builder.clone().scope("read").audience("orders")).unwrap();
    build(builder.clone().scope(scope.clone()).audience(audience)).unwrap();
    build(builder.clone().scopes(["read", "write"])).unwrap();
    build(builder.clone().scopes(vec![String::from("read")])).unwrap();
    build(builder.clone().scopes([scope])).unwrap();
    for (bad, setting) in [
        (builder.clone().scope("read write"), "scope"),
        (builder.clone().scopes(["read", ""]), "scope"),
        (builder.clone().audience(""), "audience"),
        // The first of several.
        (builder.clone().audience("").scope(""), "audience"),
        // A later valid one changes nothing.
        (builder.audience("").audience("orders"), "audience"),
    ] {
        assert_eq!(build(bad.clone()).unwrap_err().setting(), setting);
        let error = bad.build_source().map(|_| ()).unwrap_err();
        assert_eq!(error.setting(), setting);
    }
}
