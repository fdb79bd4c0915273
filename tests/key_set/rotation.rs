//! The life cycle of a key set as requests see it. Time is paused.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_oauth::clock::{Clock, UnixTime};
use tower_oauth::error::{ConfigErrorKind, ErrorKind};
use tower_oauth::key_set::{KeySetState, RefreshPolicy, SkipReason};
use tower_oauth::resource_server::{RejectionKind, Startup};
use tower_oauth::{Audience, Endpoint, Issuer, ResourceServer, TrustedIssuer};

use crate::support::issuer::{
    IssuerReply, ScriptedIssuer, advance, builder, builder_with, clock, secs, send, set, token,
    with_claims,
};
use crate::support::{self, NOW, PrivateKey, claims, claims_with, compact, rsa};

#[tokio::test(start_paused = true)]
async fn discovery_fetches_the_metadata_and_jwks_urls() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    assert_eq!(
        issuer.urls(),
        [
            "https://as.example/.well-known/openid-configuration",
            "https://as.example/keys"
        ]
    );
    assert!(server.keys_available());
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_jwks_uri_skips_discovery() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let uri = Endpoint::new("https://other.example/keys").unwrap();
    let server = builder_with(&issuer, &clock(), |issuer| issuer.jwks_uri(uri))
        .start()
        .await
        .unwrap();
    assert_eq!(issuer.urls(), ["https://other.example/keys"]);
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn the_first_request_signed_with_a_new_key_is_accepted() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    assert_eq!(issuer.fetches(), 2);
}

/// Without discovery, so that a refresh is one request.
fn keys_uri() -> Endpoint {
    Endpoint::new("https://as.example/keys").unwrap()
}

/// A running fetch may have read the set before the key was added.
#[tokio::test(start_paused = true)]
async fn the_first_token_of_a_new_key_is_accepted_during_an_older_fetch() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder_with(&issuer, &clock(), |issuer| issuer.jwks_uri(keys_uri()))
        .start()
        .await
        .unwrap();
    // Both fetches fit into the wait of one second, including the random delay.
    issuer.set_delay_after_read(Duration::from_millis(480));
    let older = tokio::spawn({
        let server = server.clone();
        async move { server.refresh_keys().await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    older.await.unwrap().unwrap();
    assert_eq!((issuer.fetches(), issuer.max_in_flight()), (3, 1));
}

/// The same for an issuer that reuses a `kid`: an older fetch does not answer for an invalid
/// signature.
#[tokio::test(start_paused = true)]
async fn a_replaced_key_is_found_during_an_older_fetch() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let policy = RefreshPolicy::new().refresh_on_invalid_signature();
    let server = builder_with(&issuer, &clock(), |issuer| issuer.jwks_uri(keys_uri()))
        .refresh(policy)
        .start()
        .await
        .unwrap();
    issuer.set_delay_after_read(Duration::from_millis(100));
    let older = tokio::spawn({
        let server = server.clone();
        async move { server.refresh_keys().await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    issuer.publish(set(&[("a", rsa(1))]));
    assert_eq!(send(&server, &token("a", rsa(1))).await, Ok(()));
    older.await.unwrap().unwrap();
    assert_eq!(issuer.fetches(), 3);
}

/// A running fetch that returns the key ends the wait: one fetch is enough for a rotation.
#[tokio::test(start_paused = true)]
async fn an_older_fetch_that_returns_the_key_is_sufficient() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder_with(&issuer, &clock(), |issuer| issuer.jwks_uri(keys_uri()))
        .start()
        .await
        .unwrap();
    issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
    issuer.set_delay(Duration::from_millis(300));
    let fetching = tokio::spawn({
        let server = server.clone();
        async move { server.refresh_keys().await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    fetching.await.unwrap().unwrap();
    tokio::time::sleep(secs(2)).await;
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_kid_waits_for_one_refresh_and_is_rejected() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    assert_eq!(
        send(&server, &token("x", rsa(1))).await,
        Err(RejectionKind::UnknownKey)
    );
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_concurrent_unknown_kids_cause_one_fetch() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    issuer.set_delay(Duration::from_millis(500));
    issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (server, token) = (server.clone(), token("b", rsa(1)));
            tokio::spawn(async move { send(&server, &token).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(()));
    }
    assert_eq!((issuer.fetches(), issuer.max_in_flight()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_kids_stays_within_the_rate_limit() {
    let clock = clock();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock).start().await.unwrap();
    let good = token("a", rsa(0));
    let forged: Vec<String> = (0..20).map(|n| token(&format!("x{n}"), rsa(1))).collect();
    for second in 0..60 {
        for forged in &forged {
            assert_eq!(send(&server, forged).await, Err(RejectionKind::UnknownKey));
        }
        assert_eq!(send(&server, &good).await, Ok(()));
        if second == 30 {
            issuer.publish(set(&[("a", rsa(0)), ("b", rsa(2))]));
        }
        advance(&clock, secs(1)).await;
    }
    // The first fetch, a burst of two, then one per 15 s.
    assert!(issuer.fetches() <= 1 + 2 + 5, "{}", issuer.fetches());
    assert_eq!(
        send(&server, &token("b", rsa(2))).await,
        Ok(()),
        "found within 15 s even under a flood"
    );
}

#[tokio::test(start_paused = true)]
async fn only_a_token_with_valid_claims_causes_an_on_demand_refresh() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    let before = issuer.urls().len();
    for (changes, kind) in [
        (
            json!({ "iss": "https://other.example" }),
            RejectionKind::UntrustedIssuer,
        ),
        (json!({ "aud": "other" }), RejectionKind::UnknownKey),
        (json!({ "exp": 1 }), RejectionKind::Expired),
        (json!({ "exp": null }), RejectionKind::UnknownKey),
        (json!({ "cnf": {} }), RejectionKind::UnknownKey),
    ] {
        assert_eq!(
            send(&server, &with_claims("x", rsa(1), &claims_with(changes))).await,
            Err(kind)
        );
    }
    // An invalid signature with a known key causes no fetch either.
    assert_eq!(
        send(&server, &token("a", rsa(1))).await,
        Err(RejectionKind::InvalidSignature)
    );
    assert_eq!(send(&server, "x.y.z").await, Err(RejectionKind::Malformed));
    tokio::time::sleep(secs(2)).await;
    assert_eq!(issuer.urls().len(), before);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_at_most_one_second_for_a_hanging_issuer() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    issuer.set_reply(IssuerReply::Hang);
    let start = tokio::time::Instant::now();
    assert_eq!(
        send(&server, &token("b", rsa(1))).await,
        Err(RejectionKind::UnknownKey)
    );
    assert_eq!(start.elapsed().as_millis() / 10, 100);
    // A request with a known key does not wait.
    let start = tokio::time::Instant::now();
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// How many of these requests with an unknown key wait for an issuer that hangs.
async fn waiting_requests(policy: RefreshPolicy, requests: usize) -> usize {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock())
        .refresh(policy)
        .start()
        .await
        .unwrap();
    issuer.set_reply(IssuerReply::Hang);
    let start = tokio::time::Instant::now();
    let unknown = token("b", rsa(1));
    let calls: Vec<_> = (0..requests)
        .map(|_| {
            let (server, token) = (server.clone(), unknown.clone());
            tokio::spawn(async move {
                assert_eq!(send(&server, &token).await, Err(RejectionKind::UnknownKey));
                start.elapsed() > Duration::ZERO
            })
        })
        .collect();
    let mut waited = 0;
    for call in calls {
        waited += usize::from(call.await.unwrap());
    }
    waited
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_are_bounded() {
    let policy = RefreshPolicy::new().max_waiters(3);
    assert_eq!(waiting_requests(policy, 10).await, 3);
}

#[tokio::test(start_paused = true)]
async fn at_most_1024_requests_wait_for_a_refresh_by_default() {
    for policy in [RefreshPolicy::new(), RefreshPolicy::strict()] {
        assert_eq!(waiting_requests(policy, 1100).await, 1024);
    }
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_key_is_rejected_after_the_next_refresh() {
    let clock = clock();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
    let server = builder(&issuer, &clock).start().await.unwrap();
    let long_lived = with_claims("a", rsa(0), &claims_with(json!({ "exp": NOW + 10_000 })));
    assert_eq!(send(&server, &long_lived).await, Ok(()));
    issuer.publish(set(&[("b", rsa(1))]));
    advance(&clock, secs(290)).await;
    assert_eq!(
        send(&server, &long_lived).await,
        Err(RejectionKind::UnknownKey)
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_replaced_under_the_same_kid_replaces_the_old_key() {
    let clock = clock();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.publish(set(&[("a", rsa(1))]));
    assert_eq!(
        send(&server, &token("a", rsa(1))).await,
        Err(RejectionKind::InvalidSignature)
    );
    advance(&clock, secs(290)).await;
    assert_eq!(send(&server, &token("a", rsa(1))).await, Ok(()));
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Err(RejectionKind::InvalidSignature)
    );
}

#[tokio::test(start_paused = true)]
async fn tokens_with_known_keys_are_accepted_during_a_30_minute_outage() {
    for answer in [
        IssuerReply::Unreachable,
        IssuerReply::Hang,
        IssuerReply::Status(StatusCode::INTERNAL_SERVER_ERROR, None),
        IssuerReply::Status(StatusCode::TOO_MANY_REQUESTS, Some("120")),
        IssuerReply::Status(StatusCode::FOUND, None),
        IssuerReply::Status(StatusCode::NOT_FOUND, None),
        IssuerReply::Status(StatusCode::NOT_MODIFIED, None),
        IssuerReply::Text("<html>sorry</html>"),
        IssuerReply::Text(r#"{"keys":[{"kty":"RSA""#),
        IssuerReply::Text(r#"{"keys":[]}"#),
        IssuerReply::Text(r#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"unheard-of"}]}"#),
    ] {
        let clock = clock();
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        let server = builder(&issuer, &clock).start().await.unwrap();
        issuer.set_reply(answer.clone());
        let good = with_claims("a", rsa(0), &claims_with(json!({ "exp": NOW + 10_000 })));
        for _ in 0..30 {
            advance(&clock, secs(60)).await;
            let start = tokio::time::Instant::now();
            assert_eq!(send(&server, &good).await, Ok(()), "{answer:?}");
            assert_eq!(start.elapsed(), Duration::ZERO, "{answer:?}");
        }
        let status = server.key_sets().remove(0);
        assert_eq!(status.state(), KeySetState::Degraded, "{answer:?}");
        assert!(
            status.consecutive_failures() > 3 && status.last_error().is_some(),
            "{answer:?}"
        );
        assert!(server.keys_available());
        assert_eq!(issuer.max_in_flight(), 1);
        // Recovery is automatic, within the longest backoff.
        issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
        advance(&clock, secs(301)).await;
        assert_eq!(
            server.key_sets().remove(0).state(),
            KeySetState::Healthy,
            "{answer:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn past_max_stale_requests_get_503_until_the_issuer_recovers() {
    let clock = clock();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let policy = RefreshPolicy::new().max_stale(secs(600));
    let server = builder(&issuer, &clock)
        .refresh(policy)
        .start()
        .await
        .unwrap();
    let good = with_claims("a", rsa(0), &claims_with(json!({ "exp": NOW + 10_000 })));
    issuer.set_reply(IssuerReply::Unreachable);
    advance(&clock, secs(400)).await;
    assert_eq!(send(&server, &good).await, Ok(()));
    advance(&clock, secs(220)).await;
    assert_eq!(
        send(&server, &good).await,
        Err(RejectionKind::KeysUnavailable)
    );
    assert!(!server.keys_available());
    assert_eq!(server.key_sets().remove(0).state(), KeySetState::Stale);
    issuer.publish(set(&[("a", rsa(0))]));
    advance(&clock, secs(10)).await;
    assert_eq!(send(&server, &good).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn after_system_sleep_past_max_stale_keys_are_not_trusted() {
    let clock = clock();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.set_reply(IssuerReply::Unreachable);
    clock.advance(secs(86_402)); // Wall time went on, timers did not.
    let now = clock.now().as_secs();
    let good = with_claims("a", rsa(0), &claims_with(json!({ "exp": now + 100 })));
    assert_eq!(
        send(&server, &good).await,
        Err(RejectionKind::KeysUnavailable)
    );
}

#[tokio::test(start_paused = true)]
async fn a_short_max_stale_never_expires_keys_of_a_healthy_issuer() {
    let clock = clock();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock)
        .refresh(RefreshPolicy::new().max_stale(secs(2)))
        .start()
        .await
        .unwrap();
    let good = with_claims("a", rsa(0), &claims_with(json!({ "exp": NOW + 10_000 })));
    for _ in 0..300 {
        advance(&clock, secs(1)).await;
        assert_eq!(send(&server, &good).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn startup_succeeds_during_an_outage_and_keys_become_available_later() {
    let clock = clock();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_reply(IssuerReply::Unreachable);
    let start = tokio::time::Instant::now();
    let server = builder(&issuer, &clock).start().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
    let good = token("a", rsa(0));
    assert_eq!(
        send(&server, &good).await,
        Err(RejectionKind::KeysUnavailable)
    );
    assert_eq!(send(&server, "x.y.z").await, Err(RejectionKind::Malformed));
    assert!(!server.keys_available());
    assert_eq!(server.key_sets().remove(0).state(), KeySetState::Starting);
    advance(&clock, secs(600)).await;
    issuer.publish(set(&[("a", rsa(0))]));
    let start = tokio::time::Instant::now();
    server.wait_for_keys().await;
    assert!(
        start.elapsed() <= secs(5),
        "the backoff stays short until the first set"
    );
    assert_eq!(send(&server, &good).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn startup_can_require_keys_or_continue_in_the_background() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_reply(IssuerReply::Status(StatusCode::BAD_GATEWAY, None));
    let required = builder(&issuer, &clock())
        .startup(Startup::Require(secs(3)))
        .start()
        .await
        .unwrap_err();
    assert_eq!(required.kind(), ErrorKind::Status(StatusCode::BAD_GATEWAY));
    let start = tokio::time::Instant::now();
    let server = builder(&issuer, &clock())
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(!server.keys_available());
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_set_is_a_304_and_keeps_its_generation() {
    let clock = clock();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_header("etag", "\"1\"");
    let server = builder(&issuer, &clock).start().await.unwrap();
    advance(&clock, secs(900)).await;
    assert_eq!(
        issuer.last_header("if-none-match").as_deref(),
        Some("\"1\"")
    );
    assert!(issuer.fetches() >= 4);
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.generation(), status.state()),
        (1, KeySetState::Healthy)
    );
    assert!(status.age().unwrap() <= secs(300));
}

#[tokio::test(start_paused = true)]
async fn cache_control_shortens_the_interval_down_to_the_minimum() {
    let clock = clock();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_header("cache-control", "max-age=1");
    let policy = RefreshPolicy::new().min_interval(secs(10));
    let _server = builder(&issuer, &clock)
        .refresh(policy)
        .start()
        .await
        .unwrap();
    advance(&clock, secs(100)).await;
    assert!(
        (11..=16).contains(&issuer.fetches()),
        "{}",
        issuer.fetches()
    );
}

#[tokio::test(start_paused = true)]
async fn two_issuers_with_the_same_kid_have_separate_keys() {
    let keys = |key: &PrivateKey| {
        tower_oauth::key_set::KeySet::from_json(set(&[("a", key)]).to_string().as_bytes()).unwrap()
    };
    let trusted = |name: &str, audience: &str, key| {
        TrustedIssuer::new(Issuer::new(name).unwrap(), Audience::new(audience).unwrap())
            .keys(keys(key))
    };
    let (server, refresher) =
        ResourceServer::from_issuer(trusted("https://one.example", "orders", rsa(0)))
            .add_issuer(trusted("https://two.example", "bills", rsa(1)))
            .clock(clock())
            .build()
            .unwrap();
    refresher.await; // Nothing to refresh: it ends at once.
    let validate = async |iss: &str, aud: &str, key| {
        send(
            &server,
            &with_claims("a", key, &claims_with(json!({ "iss": iss, "aud": aud }))),
        )
        .await
    };
    assert_eq!(
        validate("https://one.example", "orders", rsa(0)).await,
        Ok(())
    );
    assert_eq!(
        validate("https://two.example", "bills", rsa(1)).await,
        Ok(())
    );
    assert_eq!(
        validate("https://one.example", "orders", rsa(1)).await,
        Err(RejectionKind::InvalidSignature)
    );
    assert_eq!(
        validate("https://two.example", "bills", rsa(0)).await,
        Err(RejectionKind::InvalidSignature)
    );
    assert_eq!(
        validate("https://two.example", "orders", rsa(1)).await,
        Err(RejectionKind::InvalidAudience)
    );
    assert_eq!(
        validate("https://three.example", "orders", rsa(0)).await,
        Err(RejectionKind::UntrustedIssuer)
    );
    let duplicate = ResourceServer::from_issuer(trusted("https://one.example", "a", rsa(0)))
        .add_issuer(trusted("https://one.example", "b", rsa(1)))
        .build();
    assert!(duplicate.is_err());
}

#[tokio::test(start_paused = true)]
async fn unusable_keys_are_skipped_with_kid_and_reason() {
    let mut document = set(&[("a", rsa(0))]);
    document["keys"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "kty": "oct", "kid": "hmac", "k": "AAAA" }));
    let issuer = ScriptedIssuer::new(document);
    let server = builder(&issuer, &clock()).start().await.unwrap();
    let status = server.key_sets().remove(0);
    assert_eq!(status.usable_key_count(), 1);
    assert_eq!(
        status
            .skipped()
            .map(|skipped| (skipped.kid(), skipped.reason()))
            .collect::<Vec<_>>(),
        [(Some("hmac"), SkipReason::Symmetric)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_without_kid_requires_exactly_one_matching_key() {
    let payload = claims().to_string();
    let anonymous = compact(rsa(0), "RS256", r#"{"alg":"RS256"}"#, payload.as_bytes());
    let validate = async |document: Value| {
        let server = builder(&ScriptedIssuer::new(document), &clock())
            .start()
            .await
            .unwrap();
        send(&server, &anonymous).await
    };
    assert_eq!(validate(set(&[("a", rsa(0))])).await, Ok(()));
    assert_eq!(
        validate(set(&[("a", rsa(0)), ("ec", &support::p256())])).await,
        Ok(())
    );
    assert_eq!(
        validate(set(&[("a", rsa(0)), ("b", rsa(1))])).await,
        Err(RejectionKind::AmbiguousKey)
    );
    // A key without `kid` is never used for a token with one.
    let mut document = set(&[("a", rsa(0))]);
    document["keys"][0].as_object_mut().unwrap().remove("kid");
    let server = builder(&ScriptedIssuer::new(document), &clock())
        .start()
        .await
        .unwrap();
    assert_eq!(send(&server, &anonymous).await, Ok(()));
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Err(RejectionKind::UnknownKey)
    );
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let (server, refresher) = builder(&issuer, &clock).build().unwrap();
    let task = tokio::spawn(refresher);
    server.wait_for_keys().await;
    let layer = server.layer();
    drop(server);
    advance(&clock, secs(1000)).await;
    assert!(!task.is_finished(), "the layer is a handle, too");
    let fetches = issuer.fetches();
    drop(layer);
    task.await.unwrap();
    advance(&clock, secs(1000)).await;
    assert_eq!(issuer.fetches(), fetches);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_during_a_hanging_fetch() {
    let issuer = ScriptedIssuer::new(json!({}));
    issuer.set_reply(IssuerReply::Hang);
    let (server, refresher) = builder(&issuer, &clock()).build().unwrap();
    let task = tokio::spawn(refresher);
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(server);
    tokio::time::timeout(Duration::from_millis(100), task)
        .await
        .expect("at once")
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn invalid_settings_do_not_build() {
    let build = |issuer: &str| {
        ResourceServer::builder(Issuer::new(issuer).unwrap(), Audience::new("a").unwrap())
            .transport(ScriptedIssuer::new(json!({})))
            .build()
            .map(|_| ())
    };
    assert!(build("https://as.example").is_ok());
    assert!(build("http://as.example").is_err());
    let loopback = build("http://127.0.0.1:8080").unwrap_err();
    assert_eq!(loopback.kind(), ConfigErrorKind::PlainHttp, "{loopback}");
    assert!(build("not-a-url").is_err());
    let none = builder_with(&ScriptedIssuer::new(json!({})), &clock(), |issuer| {
        issuer.algorithms([])
    })
    .build();
    assert!(none.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_changed_jwks_uri_is_followed_although_the_old_one_still_responds() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.set_jwks_uri("https://as.example/moved/keys");
    // The old location does not have the key of the new token, so it is rediscovered.
    assert_eq!(
        send(&server, &token("b", rsa(1))).await,
        Err(RejectionKind::UnknownKey)
    );
    assert_eq!(issuer.discoveries(), 1);
    let _ = send(&server, &token("c", rsa(1))).await;
    assert_eq!(issuer.discoveries(), 2);
    assert_eq!(
        issuer.urls().last().unwrap(),
        "https://as.example/moved/keys"
    );
    // Without such a token it is rediscovered hourly.
    advance(&clock, secs(4200)).await;
    assert_eq!(issuer.discoveries(), 3);
}

#[tokio::test(start_paused = true)]
async fn after_system_sleep_keys_are_refreshed_within_ten_seconds() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    advance(&clock, secs(30)).await;
    assert_eq!(issuer.fetches(), 1);
    issuer.publish(set(&[("b", rsa(1))]));
    clock.advance(secs(3600)); // asleep: no timer runs
    advance(&clock, secs(11)).await;
    assert_eq!(issuer.fetches(), 2);
    let long = with_claims("a", rsa(0), &claims_with(json!({ "exp": NOW + 100_000 })));
    assert_eq!(
        send(&server, &long).await,
        Err(RejectionKind::UnknownKey),
        "withdrawn meanwhile"
    );
}

#[tokio::test(start_paused = true)]
async fn a_revoked_kid_is_rejected_at_once_and_permanently() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    let name = Issuer::new(support::ISSUER).unwrap();
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    assert!(server.revoke_key(&name, "a"));
    assert!(!server.revoke_key(&Issuer::new("https://other.example").unwrap(), "a"));
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Err(RejectionKind::RevokedKey)
    );
    assert_eq!(issuer.fetches(), 1, "no fetch is attempted");
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    server.refresh_keys().await.unwrap();
    issuer.publish(set(&[("a", rsa(0))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Err(RejectionKind::RevokedKey)
    );
    // A revoked key is not the single key for a token without `kid` either.
    let nameless = compact(
        rsa(0),
        "RS256",
        r#"{"alg":"RS256"}"#,
        claims().to_string().as_bytes(),
    );
    assert!(send(&server, &nameless).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn refresh_keys_ignores_the_rate_limit_and_returns_the_outcome() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    for fetches in 2..10 {
        server.refresh_keys().await.unwrap();
        assert_eq!(issuer.fetches(), fetches);
    }
    issuer.set_reply(IssuerReply::Unreachable);
    assert_eq!(
        server.refresh_keys().await.unwrap_err().kind(),
        ErrorKind::Transport
    );
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Ok(()),
        "the current keys stay usable"
    );
    issuer.set_reply(IssuerReply::Hang);
    assert_eq!(
        server.refresh_keys().await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
}

#[tokio::test(start_paused = true)]
async fn a_seed_is_used_during_an_outage_until_max_stale() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_reply(IssuerReply::Unreachable);
    let clock = clock();
    let keys =
        tower_oauth::key_set::KeySet::from_json(set(&[("a", rsa(0))]).to_string().as_bytes())
            .unwrap();
    let fetched_at = UnixTime::from_secs(NOW - 3600);
    let seeded = |policy: RefreshPolicy| {
        let keys = keys.clone();
        let builder = builder_with(&issuer, &clock, |issuer| {
            issuer.initial_keys(keys, fetched_at)
        });
        builder.refresh(policy).startup(Startup::Background)
    };
    let server = seeded(RefreshPolicy::new()).start().await.unwrap();
    assert!(server.keys_available());
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    let too_old = seeded(RefreshPolicy::strict().max_stale(secs(3599)))
        .start()
        .await
        .unwrap();
    assert_eq!(
        send(&too_old, &token("a", rsa(0))).await,
        Err(RejectionKind::KeysUnavailable)
    );
    issuer.publish(set(&[("b", rsa(1))]));
    advance(&clock, secs(10)).await;
    assert_eq!(
        send(&server, &token("b", rsa(1))).await,
        Ok(()),
        "the fetched set replaces the seed"
    );
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Err(RejectionKind::UnknownKey)
    );
}

#[tokio::test(start_paused = true)]
async fn the_negative_cache_rejects_an_unknown_kid_for_fifteen_seconds() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.set_delay(Duration::from_millis(300));
    let unknown = token("b", rsa(1));
    let rejected_after = async || {
        let start = tokio::time::Instant::now();
        assert_eq!(
            send(&server, &unknown).await,
            Err(RejectionKind::UnknownKey)
        );
        start.elapsed()
    };
    assert!(rejected_after().await >= Duration::from_millis(300));
    for _ in 0..10 {
        assert_eq!(rejected_after().await, Duration::ZERO);
    }
    assert_eq!(issuer.fetches(), 2);
    advance(&clock, secs(15)).await;
    assert!(
        rejected_after().await >= Duration::from_millis(300),
        "the kid is fetched again afterwards"
    );
    // A new set clears the negative cache.
    issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(send(&server, &unknown).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn invalid_signatures_cause_a_refresh_once_in_five_minutes_after_opt_in() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let strict = builder(&issuer, &clock).start().await.unwrap();
    let lenient = builder(&issuer, &clock)
        .refresh(RefreshPolicy::new().refresh_on_invalid_signature())
        .start()
        .await
        .unwrap();
    let invalid_signature_refreshes = || {
        lenient
            .key_sets()
            .remove(0)
            .refreshes(tower_oauth::key_set::RefreshCause::InvalidSignature)
            .total()
    };
    for _ in 0..20 {
        assert_eq!(
            send(&lenient, &token("a", rsa(2))).await,
            Err(RejectionKind::InvalidSignature)
        );
    }
    assert_eq!(
        invalid_signature_refreshes(),
        1,
        "a flood of invalid signatures causes one fetch"
    );
    issuer.publish(set(&[("a", rsa(1))]));
    assert_eq!(
        send(&lenient, &token("a", rsa(1))).await,
        Err(RejectionKind::InvalidSignature),
        "too soon"
    );
    let before = issuer.fetches();
    assert_eq!(
        send(&strict, &token("a", rsa(1))).await,
        Err(RejectionKind::InvalidSignature)
    );
    assert_eq!(
        issuer.fetches(),
        before,
        "without opt-in an invalid signature causes no fetch"
    );
    // The scheduled refresh has found the new key by now; the next reuse is found by its first
    // token.
    advance(&clock, secs(301)).await;
    assert_eq!(send(&lenient, &token("a", rsa(1))).await, Ok(()));
    issuer.publish(set(&[("a", rsa(2))]));
    assert_eq!(send(&lenient, &token("a", rsa(2))).await, Ok(()));
    assert_eq!(invalid_signature_refreshes(), 2);
    // A token with invalid claims causes no refresh.
    advance(&clock, secs(301)).await;
    let expired = with_claims("a", rsa(0), &claims_with(json!({ "exp": NOW - 3600 })));
    assert!(send(&lenient, &expired).await.is_err());
    assert_eq!(invalid_signature_refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_with_the_same_kid_and_tokens_without_kid_are_tried_after_opt_in() {
    let payload = claims().to_string();
    let anonymous = |key| compact(key, "RS256", r#"{"alg":"RS256"}"#, payload.as_bytes());
    let shared = set(&[("a", rsa(0)), ("a", rsa(1)), ("b", rsa(2))]);
    let validate = async |limit: usize, token: &str| {
        let keys = tower_oauth::key_set::KeySet::from_json(shared.to_string().as_bytes()).unwrap();
        let issuer = ScriptedIssuer::new(json!({}));
        let builder = builder_with(&issuer, &clock(), |issuer| {
            issuer.keys(keys).max_candidate_keys(limit)
        });
        send(&builder.start().await.unwrap(), token).await
    };
    for key in [rsa(0), rsa(1)] {
        assert_eq!(
            validate(1, &token("a", key)).await,
            Err(RejectionKind::UnknownKey)
        );
        assert_eq!(validate(2, &token("a", key)).await, Ok(()));
    }
    assert_eq!(
        validate(4, &token("a", rsa(2))).await,
        Err(RejectionKind::InvalidSignature)
    );
    // One key has a unique `kid`; it is used for a token without `kid`.
    assert_eq!(validate(1, &anonymous(rsa(2))).await, Ok(()));
    assert_eq!(
        validate(4, &anonymous(rsa(0))).await,
        Err(RejectionKind::InvalidSignature)
    );
}

/// The operator of an ambiguous key acts on the key set, that of an algorithm on the issuer.
#[tokio::test(start_paused = true)]
async fn more_matching_keys_than_the_limit_are_ambiguous_and_none_is_an_unsupported_algorithm() {
    let payload = claims().to_string();
    let anonymous = |alg: &str| {
        let header = json!({ "alg": alg }).to_string();
        compact(rsa(0), "RS256", &header, payload.as_bytes())
    };
    let shared = set(&[("a", rsa(0)), ("a", rsa(1)), ("a", rsa(2)), ("b", rsa(0))]);
    let validate = async |document: &Value, limit: usize, token: &str| {
        let issuer = ScriptedIssuer::new(document.clone());
        let builder = builder_with(&issuer, &clock(), |issuer| issuer.max_candidate_keys(limit));
        send(&builder.start().await.unwrap(), token).await
    };
    let ambiguous = Err(RejectionKind::AmbiguousKey);
    assert_eq!(validate(&shared, 2, &token("a", rsa(0))).await, ambiguous);
    assert_eq!(validate(&shared, 3, &token("a", rsa(0))).await, Ok(()));
    let separate = set(&[("a", rsa(0)), ("b", rsa(1)), ("c", rsa(2))]);
    assert_eq!(validate(&separate, 2, &anonymous("RS256")).await, ambiguous);
    assert_eq!(validate(&separate, 3, &anonymous("RS256")).await, Ok(()));
    assert_eq!(
        validate(&separate, 2, &anonymous("ES256")).await,
        Err(RejectionKind::UnsupportedAlgorithm)
    );
}

/// Each signature check takes time, and anyone can cause it.
#[tokio::test(start_paused = true)]
async fn at_most_four_keys_are_tried_for_a_token_with_any_setting() {
    let pairs: Vec<_> = (0..5).map(|_| support::p256()).collect();
    let payload = claims().to_string();
    let sign = |header: &str, key| compact(key, "ES256", header, payload.as_bytes());
    let with_kid = |key| sign(r#"{"alg":"ES256","kid":"a"}"#, key);
    let anonymous = |key| sign(r#"{"alg":"ES256"}"#, key);
    let shared: Vec<_> = pairs.iter().map(|key| ("a", key)).collect();
    let separate: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().zip(&pairs).collect();
    for limit in [4, 5, 100, usize::MAX] {
        let validate = async |keys: &[(&str, &PrivateKey)], token: &str| {
            let issuer = ScriptedIssuer::new(set(keys));
            let builder =
                builder_with(&issuer, &clock(), |issuer| issuer.max_candidate_keys(limit));
            send(&builder.start().await.unwrap(), token).await
        };
        for key in &pairs[..4] {
            let (with_kid, anonymous) = (with_kid(key), anonymous(key));
            assert_eq!(validate(&shared[..4], &with_kid).await, Ok(()), "{limit}");
            assert_eq!(
                validate(&separate[..4], &anonymous).await,
                Ok(()),
                "{limit}"
            );
            let ambiguous = Err(RejectionKind::AmbiguousKey);
            assert_eq!(validate(&shared, &with_kid).await, ambiguous, "{limit}");
            assert_eq!(validate(&separate, &anonymous).await, ambiguous, "{limit}");
        }
    }
}

/// Anyone can invent a `kid`: a 503 for it would let strangers take instances out of a balancer.
#[tokio::test(start_paused = true)]
async fn an_unknown_kid_is_401_during_an_outage_and_known_keys_are_used() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    // The issuer signs with a new key that cannot be fetched.
    issuer.set_reply(IssuerReply::Unreachable);
    server.refresh_keys().await.unwrap_err();
    assert_eq!(server.key_sets()[0].state(), KeySetState::Degraded);
    for number in 0..20 {
        let invented = token(&format!("x{number}"), rsa(2));
        assert_eq!(
            send(&server, &invented).await,
            Err(RejectionKind::UnknownKey)
        );
    }
    assert_eq!(
        send(&server, &token("b", rsa(1))).await,
        Err(RejectionKind::UnknownKey)
    );
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn validators_of_the_last_response_are_sent_back() {
    for (validator, condition) in [
        ("etag", "if-none-match"),
        ("last-modified", "if-modified-since"),
    ] {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        let clock = clock();
        let server = builder(&issuer, &clock).start().await.unwrap();
        for version in ["\"1\"", "\"2\""] {
            issuer.set_header(validator, version);
            // The same document with another validator, which replaces the old one.
            advance(&clock, secs(600)).await;
            assert_eq!(issuer.last_header(condition).as_deref(), Some(version));
        }
        assert_eq!(server.key_sets().remove(0).generation(), 1);
        // On-demand refreshes are unconditional: they need the set, not a 304.
        server.refresh_keys().await.unwrap();
        assert_eq!(issuer.last_header(condition), None);
    }
}

#[tokio::test(start_paused = true)]
async fn constant_etag_hides_a_new_key_for_at_most_one_hour() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    issuer.set_header("etag", "\"as ever\"");
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.publish(set(&[("b", rsa(1))]));
    advance(&clock, secs(900)).await;
    assert_eq!(
        server.key_sets().remove(0).generation(),
        1,
        "the issuer responds with 304"
    );
    advance(&clock, secs(3600)).await;
    assert_eq!(server.key_sets().remove(0).generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_first_fetch_after_a_failure_is_unconditional() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    issuer.set_header("etag", "\"1\"");
    let server = builder(&issuer, &clock).start().await.unwrap();
    advance(&clock, secs(300)).await;
    assert_eq!(
        issuer.last_header("if-none-match").as_deref(),
        Some("\"1\"")
    );
    // The validators may be the cause of the failure.
    issuer.set_reply(IssuerReply::Unreachable);
    advance(&clock, secs(600)).await;
    assert!(server.key_sets().remove(0).consecutive_failures() > 1);
    assert_eq!(issuer.last_header("if-none-match"), None);
}

#[tokio::test(start_paused = true)]
async fn a_published_private_key_is_never_used_even_as_the_only_key() {
    let exposed = |key: &'static PrivateKey| {
        let mut jwk = key.jwk("a");
        jwk["d"] = "AAAA".into();
        jwk
    };
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    // The set has no other key: the last good set is kept without that key.
    issuer.publish(json!({ "keys": [exposed(rsa(0))] }));
    let error = server.refresh_keys().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.starts_with("members that cannot be used: 1 private_key (d is published"),
        "{source}"
    );
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Err(RejectionKind::RevokedKey)
    );
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    // A public part beside it is compromised as well.
    issuer.publish(json!({ "keys": [exposed(rsa(0)), rsa(0).jwk("a"), rsa(1).jwk("b")] }));
    server.refresh_keys().await.unwrap();
    assert_eq!(server.key_sets().remove(0).usable_key_count(), 1);
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Err(RejectionKind::UnknownKey)
    );
    // So it is under another `kid`, or without one.
    let mut nameless = rsa(0).jwk("");
    nameless.as_object_mut().unwrap().remove("kid");
    issuer
        .publish(json!({ "keys": [exposed(rsa(0)), rsa(0).jwk("c"), nameless, rsa(1).jwk("b")] }));
    server.refresh_keys().await.unwrap();
    assert_eq!(server.key_sets().remove(0).usable_key_count(), 1);
    // A private part without a `kid` compromises the key with the same parameters.
    let mut leaked = exposed(rsa(1));
    leaked.as_object_mut().unwrap().remove("kid");
    issuer.publish(json!({ "keys": [leaked] }));
    server.refresh_keys().await.unwrap_err();
    assert_eq!(
        send(&server, &token("b", rsa(1))).await,
        Err(RejectionKind::RevokedKey)
    );
    // A valid new set is used.
    issuer.publish(set(&[("a", rsa(2)), ("b", rsa(1))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(send(&server, &token("a", rsa(2))).await, Ok(()));
}

/// A JWK with these additional members.
fn jwk_with(key: &PrivateKey, kid: &str, members: &Value) -> Value {
    let mut jwk = key.jwk(kid);
    jwk.as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    jwk
}

#[tokio::test(start_paused = true)]
async fn an_empty_private_member_makes_no_private_key() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    for members in [
        json!({ "d": null }),
        json!({ "d": "", "p": null, "q": null, "dp": null, "dq": null, "qi": "", "oth": [] }),
        json!({ "k": null }),
    ] {
        issuer.publish(json!({ "keys": [jwk_with(rsa(0), "a", &members)] }));
        server.refresh_keys().await.unwrap();
        assert_eq!(
            send(&server, &token("a", rsa(0))).await,
            Ok(()),
            "{members}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_private_part_was_published_stays_compromised_under_any_kid() {
    let whole = jwk_with(rsa(0), "a", &json!({ "d": "AAAA" }));
    let in_a_list = jwk_with(rsa(0), "a", &json!({ "oth": [{ "r": "AAAA" }] }));
    let only_its_kid = json!({ "kty": "RSA", "kid": "a", "d": "AAAA" });
    // Another spelling of the same number.
    let padded = format!("{}==", whole["n"].as_str().unwrap());
    let under_another_kid = jwk_with(rsa(0), "old", &json!({ "d": "AAAA", "n": padded }));
    let null_after_it = jwk_with(rsa(0), "a", &json!({ "d": "AAAA" })).to_string();
    let null_after_it = null_after_it.replacen('}', r#","d":null}"#, 1);
    for published in [
        json!({ "keys": [under_another_kid, rsa(0).jwk("a"), rsa(1).jwk("b")] }),
        json!({ "keys": [whole, rsa(1).jwk("b")] }),
        json!({ "keys": [in_a_list, rsa(1).jwk("b")] }),
        json!({ "keys": [only_its_kid, rsa(1).jwk("b")] }),
        json!({ "keys": [whole] }),
        json!({ "keys": [only_its_kid] }),
        Value::from(format!(
            r#"{{"keys":[{null_after_it},{}]}}"#,
            rsa(1).jwk("b")
        )),
    ] {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
        let server = builder(&issuer, &clock()).start().await.unwrap();
        match &published {
            Value::String(text) => issuer.set_reply(IssuerReply::Text(text.clone().leak())),
            document => issuer.publish(document.clone()),
        }
        let _with_or_without_a_usable_key = server.refresh_keys().await;
        assert!(
            send(&server, &token("a", rsa(0))).await.is_err(),
            "{published}"
        );
        for kid in ["a", "c"] {
            issuer.publish(set(&[(kid, rsa(0)), ("b", rsa(1))]));
            server.refresh_keys().await.unwrap();
            let rejected = Err(RejectionKind::RevokedKey);
            assert_eq!(
                send(&server, &token(kid, rsa(0))).await,
                rejected,
                "{published}"
            );
            assert_eq!(
                send(&server, &token("b", rsa(1))).await,
                Ok(()),
                "{published}"
            );
        }
        // Also without a `kid`, as the only key; a new key may reuse the old `kid`.
        let mut unnamed = rsa(0).jwk("");
        unnamed.as_object_mut().unwrap().remove("kid");
        issuer.publish(json!({ "keys": [unnamed] }));
        server.refresh_keys().await.unwrap();
        let without_kid = compact(
            rsa(0),
            "RS256",
            r#"{"alg":"RS256"}"#,
            claims().to_string().as_bytes(),
        );
        assert_eq!(
            send(&server, &without_kid).await,
            Err(RejectionKind::RevokedKey),
            "{published}"
        );
        issuer.publish(set(&[("a", rsa(2))]));
        server.refresh_keys().await.unwrap();
        assert_eq!(
            send(&server, &token("a", rsa(2))).await,
            Ok(()),
            "{published}"
        );
    }
}

/// The first fetched document may contain the private key.
#[tokio::test(start_paused = true)]
async fn a_key_first_published_with_its_private_part_is_never_trusted() {
    let only_its_kid = json!({ "kty": "RSA", "kid": "a", "d": "AAAA" });
    for first in [
        json!([jwk_with(rsa(0), "a", &json!({ "d": "AAAA" }))]),
        // Its public key is also published, under its `kid` and under another.
        json!([
            rsa(0).jwk("x"),
            only_its_kid,
            rsa(0).jwk("a"),
            rsa(2).jwk("other")
        ]),
    ] {
        let issuer = ScriptedIssuer::new(json!({ "keys": first }));
        let server = builder(&issuer, &clock())
            .startup(Startup::Background)
            .start()
            .await
            .unwrap();
        let _with_or_without_a_usable_key = server.refresh_keys().await;
        assert!(send(&server, &token("x", rsa(0))).await.is_err());
        issuer.publish(set(&[("c", rsa(0)), ("b", rsa(1))]));
        server.refresh_keys().await.unwrap();
        assert_eq!(
            send(&server, &token("c", rsa(0))).await,
            Err(RejectionKind::RevokedKey)
        );
        assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_compromised_key_without_a_kid_leaves_the_other_keys_usable() {
    let unnamed = |members: Value| {
        let mut jwk = jwk_with(rsa(0), "", &members);
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let issuer = ScriptedIssuer::new(json!({ "keys": [unnamed(json!({})), rsa(1).jwk("b")] }));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    issuer.publish(json!({ "keys": [unnamed(json!({ "d": "AAAA" }))] }));
    server.refresh_keys().await.unwrap_err();
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    let without_kid = compact(
        rsa(0),
        "RS256",
        r#"{"alg":"RS256"}"#,
        claims().to_string().as_bytes(),
    );
    assert!(send(&server, &without_kid).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn null_members_count_as_absent() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    let null =
        json!({ "alg": null, "use": null, "key_ops": null, "x5c": null, "x5t": null, "x5u": null });
    issuer.publish(json!({ "keys": [jwk_with(rsa(0), "a", &null)] }));
    server.refresh_keys().await.unwrap();
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    issuer.publish(json!({ "keys": [jwk_with(rsa(0), "a", &json!({ "kid": null }))] }));
    server.refresh_keys().await.unwrap();
    let without_kid = compact(
        rsa(0),
        "RS256",
        r#"{"alg":"RS256"}"#,
        claims().to_string().as_bytes(),
    );
    assert_eq!(send(&server, &without_kid).await, Ok(()));
}

/// A malformed JWK discloses its private part as well.
#[tokio::test(start_paused = true)]
async fn a_private_key_in_a_malformed_member_is_compromised_too() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    let duplicate = jwk_with(rsa(0), "a", &json!({ "d": "AAAA" }))
        .to_string()
        .replacen('{', r#"{"use":"sig","#, 1);
    let document = format!(r#"{{"keys":[{duplicate},{}]}}"#, rsa(1).jwk("b"));
    issuer.set_reply(IssuerReply::Text(document.leak()));
    server.refresh_keys().await.unwrap();
    let status = server.key_sets().remove(0);
    let skipped = status.skipped().next().unwrap();
    assert_eq!(
        (skipped.kid(), skipped.reason()),
        (Some("a"), SkipReason::PrivateKey)
    );
    issuer.publish(set(&[("c", rsa(0)), ("b", rsa(1))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(
        send(&server, &token("c", rsa(0))).await,
        Err(RejectionKind::RevokedKey)
    );
}

/// The resource server after a document with this private key and `published`, and then after one
/// with `published` alone.
async fn after_private_key(
    private: &str,
    published: &[(&str, &'static PrivateKey)],
) -> ResourceServer {
    let issuer = ScriptedIssuer::new(set(&[("b", rsa(1))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    let document = set(published).to_string();
    let leaked = document.replacen('[', &format!("[{private},"), 1);
    issuer.set_reply(IssuerReply::Text(leaked.leak()));
    server.refresh_keys().await.unwrap();
    for (kid, key) in published.iter().filter(|(kid, _)| *kid != "b") {
        let validated = send(&server, &token(kid, key)).await;
        assert!(validated.is_err(), "{kid}: {private}");
    }
    issuer.publish(set(published));
    server.refresh_keys().await.unwrap();
    server
}

/// The public key of a private key is revoked, even if the member would not be used without `d`.
#[tokio::test(start_paused = true)]
async fn a_private_key_is_revoked_whatever_its_other_members_are() {
    // DER that does not contain the key.
    let certificate = STANDARD.encode([&[0x30, 0x82, 0x03, 0x00][..], &[7; 600]].concat());
    let keys = [("new", rsa(0)), ("b", rsa(1))];
    for members in [
        json!({}),
        json!({ "x5c": [certificate] }),
        json!({ "x5c": 7 }),
        json!({ "use": 7 }),
        json!({ "use": "enc" }),
        json!({ "key_ops": { "a": 1 } }),
        json!({ "key_ops": [7] }),
        json!({ "alg": ["RS256"] }),
        json!({ "alg": "ES256" }),
        json!({ "kty": null }),
        json!({ "kty": 7 }),
        json!({ "kty": "EC", "crv": "P-256" }),
        json!({ "k": "c2VjcmV0" }),
    ] {
        let mut private = jwk_with(rsa(0), "old", &members);
        private["d"] = "AAAA".into();
        let mut without_kid = private.clone();
        without_kid.as_object_mut().unwrap().remove("kid");
        let mut odd_kid = private.clone();
        odd_kid["kid"] = json!(["old"]);
        for private in [private, without_kid, odd_kid] {
            let server = after_private_key(&private.to_string(), &keys).await;
            assert_eq!(
                send(&server, &token("new", rsa(0))).await,
                Err(RejectionKind::RevokedKey),
                "{private}"
            );
            assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
        }
    }
}

/// Two programs may read two keys from one member: each of them may be the disclosed one.
#[tokio::test(start_paused = true)]
async fn a_private_key_with_duplicate_members_discloses_each_key_that_it_may_mean() {
    let numbers = |key: &PrivateKey| key.jwk("")["n"].to_string();
    let (first, second) = (numbers(rsa(0)), numbers(rsa(2)));
    let keys = [("x", rsa(0)), ("y", rsa(2)), ("b", rsa(1))];
    for private in [
        format!(r#"{{"kty":"RSA","n":{first},"n":{second},"e":"AQAB","d":"AAAA"}}"#),
        format!(r#"{{"n":{second},"e":"AQAB","d":"AAAA","n":null,"\u006e":{first},"e":7}}"#),
        r#"{"kty":"RSA","kid":"x","kid":"y","d":"AAAA"}"#.to_owned(),
        r#"{"kid":"y","kid":7,"kty":"RSA","d":"AAAA","kid":"x","kid":null}"#.to_owned(),
    ] {
        let server = after_private_key(&private, &keys).await;
        for (kid, key) in [("x", rsa(0)), ("y", rsa(2))] {
            assert_eq!(
                send(&server, &token(kid, key)).await,
                Err(RejectionKind::RevokedKey),
                "{kid}: {private}"
            );
        }
        assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_is_rejected_under_every_kid() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    assert!(server.revoke_key(&Issuer::new(support::ISSUER).unwrap(), "a"));
    issuer.publish(set(&[("c", rsa(0)), ("b", rsa(1)), ("a", rsa(2))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(
        send(&server, &token("c", rsa(0))).await,
        Err(RejectionKind::RevokedKey)
    );
    assert_eq!(
        send(&server, &token("a", rsa(2))).await,
        Err(RejectionKind::RevokedKey),
        "the kid, too"
    );
    // A revoked key is not the single key for a token without `kid` either.
    issuer.publish(set(&[("a", rsa(0))]));
    server.refresh_keys().await.unwrap();
    let without_kid = compact(
        rsa(0),
        "RS256",
        r#"{"alg":"RS256"}"#,
        claims().to_string().as_bytes(),
    );
    assert_eq!(
        send(&server, &without_kid).await,
        Err(RejectionKind::RevokedKey)
    );
    issuer.publish(set(&[("b", rsa(1))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn publishing_the_private_part_of_a_kidless_key_expires_the_set() {
    let mut nameless = rsa(0).jwk("");
    nameless.as_object_mut().unwrap().remove("kid");
    let issuer = ScriptedIssuer::new(json!({ "keys": [nameless.clone()] }));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    let token = compact(
        rsa(0),
        "RS256",
        r#"{"alg":"RS256"}"#,
        claims().to_string().as_bytes(),
    );
    assert_eq!(send(&server, &token).await, Ok(()));
    let mut leaked = nameless.clone();
    leaked["d"] = "AAAA".into();
    issuer.publish(json!({ "keys": [leaked] }));
    server.refresh_keys().await.unwrap_err();
    assert_eq!(
        send(&server, &token).await,
        Err(RejectionKind::KeysUnavailable)
    );
    // No request can be served: retries are as frequent as at startup.
    let status = server.key_sets().remove(0);
    assert_eq!(status.state(), KeySetState::Stale);
    assert!(status.next_refresh_in().unwrap() <= secs(5), "{status:?}");
    issuer.publish(set(&[("a", rsa(1))]));
    server.refresh_keys().await.unwrap();
    assert!(server.keys_available());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_ends_after_five_seconds() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    issuer.set_reply(IssuerReply::Hang);
    for _ in 0..2 {
        let start = tokio::time::Instant::now();
        assert_eq!(
            server.refresh_keys().await.unwrap_err().kind(),
            ErrorKind::Timeout
        );
        // To the resolution of the timer. The second server also runs discovery, which hangs as
        // well.
        assert!(
            (5000..=5002).contains(&start.elapsed().as_millis()),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_metadata_does_not_prevent_a_key_refresh() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    issuer.set_delay(Duration::from_millis(10));
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.set_metadata(IssuerReply::Hang);
    advance(&clock, secs(2 * 3600)).await;
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.state(), status.refreshes_failed()),
        (KeySetState::Degraded, 0)
    );
    assert_eq!(status.metadata_error().unwrap().kind(), ErrorKind::Timeout);
    assert!(
        issuer.discoveries() > 2,
        "discovery is retried: {}",
        issuer.discoveries()
    );
    issuer.publish(set(&[("b", rsa(1))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(server.key_sets().remove(0).generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_known_jwks_uri_is_used_while_discovery_fails() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.set_metadata(IssuerReply::Unreachable);
    issuer.set_reply(IssuerReply::Status(StatusCode::INTERNAL_SERVER_ERROR, None));
    let error = server.refresh_keys().await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Status(StatusCode::INTERNAL_SERVER_ERROR)
    );
    // Discovery pauses for a minute: one failure is enough.
    advance(&clock, secs(50)).await;
    assert_eq!(issuer.discoveries(), 2);
    assert!(server.key_sets().remove(0).consecutive_failures() > 2);
    issuer.publish(set(&[("b", rsa(1))]));
    server.refresh_keys().await.unwrap();
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.state(), status.last_error().is_none()),
        (KeySetState::Degraded, true)
    );
    assert_eq!(
        status.metadata_error().unwrap().kind(),
        ErrorKind::Transport
    );
    // A manual refresh includes discovery.
    issuer.set_metadata(IssuerReply::MetadataOnly);
    server.refresh_keys().await.unwrap();
    assert_eq!(server.key_sets().remove(0).state(), KeySetState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn discovery_retry_after_is_honored_under_unknown_kid_load() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.set_metadata(IssuerReply::Status(
        StatusCode::SERVICE_UNAVAILABLE,
        Some("300"),
    ));
    server.refresh_keys().await.unwrap();
    assert_eq!(issuer.discoveries(), 2);
    for number in 0..9 {
        let fetched = issuer.fetches();
        let unknown = token(&format!("x{number}"), rsa(1));
        assert_eq!(
            send(&server, &unknown).await,
            Err(RejectionKind::UnknownKey)
        );
        advance(&clock, secs(30)).await;
        assert!(issuer.fetches() > fetched, "the keys are fetched");
    }
    assert_eq!(issuer.discoveries(), 2);
    advance(&clock, secs(120)).await;
    assert_eq!(issuer.discoveries(), 3);
}

/// Nobody waits, and no request asks: the refresher finds the new location by itself.
#[tokio::test(start_paused = true)]
async fn discovery_is_repeated_after_a_failed_fetch_of_the_keys() {
    for failure in [
        IssuerReply::Status(StatusCode::NOT_FOUND, None),
        IssuerReply::Unreachable,
        IssuerReply::Hang,
        IssuerReply::Text("<html>moved</html>"),
        IssuerReply::Text(r#"{"keys":[]}"#),
    ] {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        let clock = clock();
        let server = builder(&issuer, &clock).start().await.unwrap();
        issuer.set_jwks_uri("https://as.example/moved/keys");
        issuer.publish(set(&[("b", rsa(1))]));
        issuer.set_reply_at("https://as.example/keys", failure.clone());
        advance(&clock, secs(310)).await;
        let urls = issuer.urls();
        assert_eq!(
            urls[2..5],
            [
                "https://as.example/keys",
                "https://as.example/.well-known/openid-configuration",
                "https://as.example/moved/keys",
            ],
            "{failure:?}"
        );
        let status = server.key_sets().remove(0);
        assert_eq!(
            (status.state(), status.refreshes_failed()),
            (KeySetState::Healthy, 1),
            "{failure:?}"
        );
        assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_discovery_is_honored_for_at_most_five_minutes() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.set_metadata(IssuerReply::Status(
        StatusCode::SERVICE_UNAVAILABLE,
        Some("3600"),
    ));
    server.refresh_keys().await.unwrap();
    assert_eq!(issuer.discoveries(), 2);
    advance(&clock, secs(295)).await;
    assert_eq!(issuer.discoveries(), 2);
    // The next scheduled refresh after the five minutes includes it.
    advance(&clock, secs(66)).await;
    assert_eq!(issuer.discoveries(), 3);
}

#[tokio::test(start_paused = true)]
async fn discovery_uses_at_most_40_percent_of_the_time_for_a_fetch() {
    for (fetch_timeout, discovery) in [(None, 2000), (Some(secs(10)), 4000)] {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        let mut policy = RefreshPolicy::new();
        if let Some(limit) = fetch_timeout {
            policy = policy.fetch_timeout(limit);
        }
        let builder = builder(&issuer, &clock()).refresh(policy);
        let server = builder.start().await.unwrap();
        issuer.set_metadata(IssuerReply::Hang);
        let start = tokio::time::Instant::now();
        server.refresh_keys().await.unwrap();
        let requests = issuer.requests();
        let [.., (metadata, _, first), (keys, _, second)] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert!(metadata.ends_with("/openid-configuration") && keys.ends_with("/keys"));
        assert_eq!(*first, start);
        // To the resolution of the timer.
        let waited = second.duration_since(*first).as_millis();
        assert!((discovery..=discovery + 2).contains(&waited), "{waited}");
        // The keys get the rest.
        issuer.set_reply(IssuerReply::Hang);
        let start = tokio::time::Instant::now();
        server.refresh_keys().await.unwrap_err();
        let ended = start.elapsed().as_millis() * 2 / 5;
        assert!((discovery..=discovery + 2).contains(&ended), "{ended}");
    }
}

#[tokio::test(start_paused = true)]
async fn discovery_is_repeated_early_enough_for_a_short_max_stale() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock)
        .refresh(RefreshPolicy::strict())
        .start()
        .await
        .unwrap();
    advance(&clock, secs(20 * 60)).await;
    issuer.set_metadata(IssuerReply::Unreachable);
    advance(&clock, secs(36 * 60)).await;
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.state(), status.refreshes_failed()),
        (KeySetState::Degraded, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn jwks_uri_is_dropped_after_max_stale_without_metadata() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let policy = RefreshPolicy::new().max_stale(secs(4 * 3600));
    let server = builder(&issuer, &clock)
        .refresh(policy)
        .start()
        .await
        .unwrap();
    issuer.set_metadata(IssuerReply::Unreachable);
    advance(&clock, secs(3 * 3600)).await;
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.state(), status.refreshes_failed()),
        (KeySetState::Degraded, 0)
    );
    // From now on the origin of the keys is unconfirmed. The current keys stay valid as long as in
    // any outage.
    advance(&clock, secs(2 * 3600)).await;
    assert!(server.key_sets().remove(0).refreshes_failed() > 0);
    issuer.publish(set(&[("b", rsa(1))]));
    advance(&clock, secs(3600)).await;
    assert_eq!(server.key_sets().remove(0).generation(), 1);
    advance(&clock, secs(3 * 3600)).await;
    assert_eq!(server.key_sets().remove(0).state(), KeySetState::Stale);
    issuer.set_metadata(IssuerReply::MetadataOnly);
    advance(&clock, secs(360)).await;
    assert_eq!(server.key_sets().remove(0).state(), KeySetState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_changed_jwks_uri_is_found_although_the_old_one_hangs() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_delay(Duration::from_millis(100));
    issuer.set_reply_at("https://as.example/keys", IssuerReply::Hang);
    let server = builder(&issuer, &clock())
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    assert_eq!(
        server.refresh_keys().await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    issuer.set_jwks_uri("https://as.example/moved/keys");
    server.refresh_keys().await.unwrap();
    assert_eq!(
        issuer.urls().last().unwrap(),
        "https://as.example/moved/keys"
    );
}

fn keys(set: &Value) -> tower_oauth::key_set::KeySet {
    tower_oauth::key_set::KeySet::from_json(set.to_string().as_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_request_after_the_start_with_a_seed_waits_for_an_unknown_kid() {
    let issuer = ScriptedIssuer::new(set(&[("b", rsa(1))]));
    let seeded = builder_with(&issuer, &clock(), |issuer| {
        issuer.initial_keys(keys(&set(&[("a", rsa(0))])), UnixTime::from_secs(NOW))
    });
    // The refresh task is spawned, but not polled yet.
    let server = seeded.start().await.unwrap();
    assert_eq!(issuer.fetches(), 0);
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_seed_counts_as_a_fetched_set_for_the_backoff() {
    let issuer = ScriptedIssuer::new(json!({}));
    let clock = clock();
    let seeded = builder_with(&issuer, &clock, |issuer| {
        let seed = keys(&set(&[("a", rsa(0))]));
        issuer
            .initial_keys(seed, UnixTime::from_secs(NOW - 60))
            .jwks_uri(keys_uri())
    })
    .startup(Startup::Background);
    issuer.set_reply(IssuerReply::Status(
        StatusCode::TOO_MANY_REQUESTS,
        Some("120"),
    ));
    let server = seeded.start().await.unwrap();
    advance(&clock, secs(118)).await;
    assert_eq!(
        issuer.fetches(),
        1,
        "the seed counts as keys: `Retry-After` is honored"
    );
    issuer.set_reply(IssuerReply::Unreachable);
    advance(&clock, secs(1200)).await;
    assert!(
        (10..=60).contains(&issuer.fetches()),
        "backoff up to a minute: {}",
        issuer.fetches()
    );
    assert!(server.keys_available());
}

#[tokio::test(start_paused = true)]
async fn a_seed_expires_in_time_although_the_wall_clock_is_set_back() {
    let issuer = ScriptedIssuer::new(json!({}));
    issuer.set_reply(IssuerReply::Unreachable);
    let clock = clock();
    let server = builder_with(&issuer, &clock, |issuer| {
        issuer.initial_keys(keys(&set(&[("a", rsa(0))])), UnixTime::from_secs(NOW - 500))
    })
    .refresh(RefreshPolicy::new().max_stale(secs(600)))
    .startup(Startup::Background)
    .start()
    .await
    .unwrap();
    advance(&clock, secs(90)).await;
    assert!(server.keys_available());
    clock.set(UnixTime::from_secs(NOW - 7200));
    advance(&clock, secs(11)).await;
    assert!(!server.keys_available());
    assert_eq!(server.key_sets().remove(0).state(), KeySetState::Stale);
}

#[tokio::test(start_paused = true)]
async fn an_expired_set_that_is_fetched_again_keeps_its_generation() {
    for etag in [None, Some("\"1\"")] {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        if let Some(etag) = etag {
            issuer.set_header("etag", etag);
        }
        let clock = clock();
        let policy = RefreshPolicy::new().max_stale(secs(600));
        let server = builder(&issuer, &clock)
            .refresh(policy)
            .start()
            .await
            .unwrap();
        issuer.set_reply(IssuerReply::Unreachable);
        advance(&clock, secs(700)).await;
        assert_eq!(server.key_sets().remove(0).state(), KeySetState::Stale);
        issuer.publish(set(&[("a", rsa(0))]));
        server.refresh_keys().await.unwrap();
        let status = server.key_sets().remove(0);
        assert_eq!(
            (status.state(), status.generation()),
            (KeySetState::Healthy, 1)
        );
        assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_whose_keys_all_share_one_kid_is_accepted_after_opt_in() {
    let shared = |one, other| set(&[("a", one), ("a", other)]);
    let issuer = ScriptedIssuer::new(shared(rsa(0), rsa(1)));
    let clock = clock();
    let start = async |limit| {
        let builder = builder_with(&issuer, &clock, |issuer| issuer.max_candidate_keys(limit));
        builder.startup(Startup::Background).start().await.unwrap()
    };
    let rejected = start(1).await;
    assert_eq!(
        rejected.refresh_keys().await.unwrap_err().kind(),
        ErrorKind::NoUsableKey
    );
    assert!(!rejected.keys_available());
    let server = start(2).await;
    server.refresh_keys().await.unwrap();
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.usable_key_count(), status.skipped().count()),
        (2, 0)
    );
    for key in [rsa(0), rsa(1)] {
        assert_eq!(send(&server, &token("a", key)).await, Ok(()));
    }
    // And from one key to two.
    issuer.publish(set(&[("a", rsa(2))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(
        send(&server, &token("a", rsa(0))).await,
        Err(RejectionKind::InvalidSignature)
    );
    issuer.publish(shared(rsa(1), rsa(2)));
    server.refresh_keys().await.unwrap();
    assert_eq!(send(&server, &token("a", rsa(1))).await, Ok(()));
    rejected.refresh_keys().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_invalid_signatures_leaves_the_unknown_kid_rate_limit_intact() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let policy = RefreshPolicy::new().refresh_on_invalid_signature();
    let server = builder(&issuer, &clock())
        .refresh(policy)
        .start()
        .await
        .unwrap();
    let forged = token("a", rsa(2));
    assert_eq!(
        send(&server, &forged).await,
        Err(RejectionKind::InvalidSignature)
    );
    assert_eq!(
        server.key_sets().remove(0).refresh_waits(),
        1,
        "the refresh of these five minutes is used up"
    );
    let flood = tokio::spawn({
        let server = server.clone();
        async move {
            loop {
                let start = tokio::time::Instant::now();
                assert_eq!(
                    send(&server, &forged).await,
                    Err(RejectionKind::InvalidSignature)
                );
                assert_eq!(start.elapsed(), Duration::ZERO);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    issuer.set_delay(Duration::from_millis(300));
    issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
    assert!(!flood.is_finished());
    flood.abort();
    assert_eq!(
        server.key_sets().remove(0).refresh_waits(),
        2,
        "a request over the rate limit takes no waiter permit"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_as_soon_as_the_exhausted_rate_limit_allows() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    for kid in ["x", "y"] {
        assert_eq!(
            send(&server, &token(kid, rsa(2))).await,
            Err(RejectionKind::UnknownKey)
        );
    }
    issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
    advance(&clock, secs(1)).await;
    let new = token("b", rsa(1));
    let start = tokio::time::Instant::now();
    assert_eq!(send(&server, &new).await, Err(RejectionKind::UnknownKey));
    assert_eq!(start.elapsed(), Duration::ZERO, "no fetch is running");
    advance(&clock, secs(14)).await;
    assert_eq!(
        send(&server, &new).await,
        Ok(()),
        "fifteen seconds after the rate limit was exhausted"
    );
}

#[tokio::test(start_paused = true)]
async fn the_negative_cache_has_only_kids_missing_from_a_later_fetch() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    let new = token("b", rsa(1));
    // The wait ends before the fetch does, which then fails.
    issuer.set_delay(secs(2));
    issuer.set_reply(IssuerReply::Unreachable);
    assert_eq!(send(&server, &new).await, Err(RejectionKind::UnknownKey));
    issuer.set_delay(Duration::ZERO);
    advance(&clock, secs(2)).await;
    issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
    assert_eq!(send(&server, &new).await, Ok(()));
    assert_eq!(server.key_sets().remove(0).negative_cache_hits(), 0);
}

#[tokio::test(start_paused = true)]
async fn refresh_keys_returns_the_outcome_of_a_fetch_started_after_the_call() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let jwks_uri = Endpoint::new("https://as.example/keys").unwrap();
    let server = builder_with(&issuer, &clock(), |issuer| issuer.jwks_uri(jwks_uri))
        .start()
        .await
        .unwrap();
    issuer.set_delay(secs(1));
    issuer.set_reply(IssuerReply::Unreachable);
    let first = async {
        assert_eq!(
            server.refresh_keys().await.unwrap_err().kind(),
            ErrorKind::Transport
        );
    };
    let second = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let answer = server.refresh_keys();
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer.await.unwrap();
        assert_eq!(issuer.fetches(), 3);
    };
    let later = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        issuer.publish(set(&[("b", rsa(1))]));
    };
    tokio::join!(first, second, later);
    assert_eq!(
        (
            issuer.max_in_flight(),
            server.key_sets().remove(0).generation()
        ),
        (1, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn refresh_keys_fetches_from_all_issuers_concurrently() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let jwks_uri = |name: &str| Endpoint::new(format!("https://{name}.example/keys")).unwrap();
    let other = |name: &str| {
        TrustedIssuer::new(
            Issuer::new(format!("https://{name}.example")).unwrap(),
            Audience::new("orders").unwrap(),
        )
        .jwks_uri(jwks_uri(name))
    };
    let builder = builder_with(&issuer, &clock(), |issuer| issuer.jwks_uri(jwks_uri("as")))
        .add_issuer(other("two"))
        .add_issuer(other("three"));
    let server = builder.start().await.unwrap();
    issuer.set_delay(secs(1));
    issuer.set_reply_at("https://two.example/keys", IssuerReply::Unreachable);
    let start = tokio::time::Instant::now();
    assert_eq!(
        server.refresh_keys().await.unwrap_err().kind(),
        ErrorKind::Transport
    );
    assert_eq!(start.elapsed().as_millis() / 10, 100);
    assert_eq!(issuer.max_in_flight(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_causes_a_refresh() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    let jumps = || {
        server
            .key_sets()
            .remove(0)
            .refreshes(tower_oauth::key_set::RefreshCause::ClockJump)
            .total()
    };
    advance(&clock, secs(30)).await;
    assert_eq!(jumps(), 0);
    clock.set(UnixTime::from_secs(NOW - 3600));
    advance(&clock, secs(11)).await;
    assert_eq!((jumps(), issuer.fetches()), (1, 2));
    advance(&clock, secs(30)).await;
    assert_eq!(jumps(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kid_is_revoked_under_every_issuer_alias() {
    let binding = tower_oauth::app_id::Binding::from_json(
        r#"{"clientId": "111c22c3-38ea-4de8-b5d4-338744d83b0f",
            "oauthServerUrl":
            "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227-4bfe-a044-93b6e6060b61"}"#,
    )
    .unwrap();
    let issuer = binding.trusted_issuer(Audience::new("orders").unwrap());
    let issuer = issuer.keys(keys(&set(&[("a", rsa(0))])));
    let builder = ResourceServer::from_issuer(issuer).clock(clock());
    let (server, _nothing) = builder.build().unwrap();
    let changes = json!({ "iss": binding.issuer().as_str(), "tenant": binding.tenant_id() });
    let token = with_claims("a", rsa(0), &claims_with(changes));
    assert_eq!(send(&server, &token).await, Ok(()));
    assert!(server.revoke_key(binding.v3_issuer(), "a"));
    assert!(send(&server, &token).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_key_set_reports_that_its_refresher_stopped() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let (server, refresher) = builder(&issuer, &clock()).build().unwrap();
    let task = tokio::spawn(refresher);
    server.wait_for_keys().await;
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.state(), status.is_refresher_stopped()),
        (KeySetState::Healthy, false)
    );
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.state(), status.is_refresher_stopped()),
        (KeySetState::Degraded, true)
    );
    assert_eq!(
        (
            status.next_refresh_in(),
            &serde_json::to_value(&status).unwrap()["abandoned"]
        ),
        (None, &json!(true))
    );
    let start = tokio::time::Instant::now();
    let error = server.refresh_keys().await.unwrap_err();
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("has stopped")
    );
    // The current keys stay usable, and no request waits for a refresh.
    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    assert_eq!(
        send(&server, &token("b", rsa(1))).await,
        Err(RejectionKind::UnknownKey)
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn wait_for_keys_returns_once_the_refresher_stops() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_reply(IssuerReply::Hang);
    let (server, refresher) = builder(&issuer, &clock()).build().unwrap();
    drop(refresher);
    server.wait_for_keys().await;
    assert!(!server.keys_available());
    // Also if the refresher stops during the wait. No request waits for a refresh then.
    let (server, refresher) = builder(&issuer, &clock()).build().unwrap();
    let task = tokio::spawn(refresher);
    let start = tokio::time::Instant::now();
    let end = async {
        tokio::time::sleep(secs(1)).await;
        task.abort();
    };
    let ((), refreshed, ()) = tokio::join!(server.wait_for_keys(), server.refresh_keys(), end);
    assert!(refreshed.is_err() && !server.keys_available());
    assert_eq!(start.elapsed(), secs(1));
}

/// The header of a waiting request is sensitive, too, when the request is served.
#[tokio::test(start_paused = true)]
async fn the_authorization_header_of_a_waiting_request_is_marked_sensitive() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    issuer.publish(set(&[("b", rsa(1))]));
    let service =
        server
            .layer()
            .layer(tower::service_fn(|request: http::Request<()>| async move {
                Ok::<_, std::convert::Infallible>(http::Response::new(format!("{request:?}")))
            }));
    let field = format!("Bearer {}", token("b", rsa(1)));
    let request = http::Request::builder()
        .header("authorization", &field)
        .body(())
        .unwrap();
    let printed = service.oneshot(request).await.unwrap().into_body();
    assert!(
        printed.contains("Sensitive") && !printed.contains(&field),
        "{printed}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panicking_transport_is_a_failed_fetch() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    issuer.set_reply(IssuerReply::Panic);
    assert_eq!(
        server.refresh_keys().await.unwrap_err().kind(),
        ErrorKind::Transport
    );
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.state(), status.is_refresher_stopped()),
        (KeySetState::Degraded, false)
    );
    issuer.publish(set(&[("b", rsa(1))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(send(&server, &token("b", rsa(1))).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn on_demand_refreshes_send_cache_control_no_cache() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let policy = RefreshPolicy::new().refresh_on_invalid_signature();
    let server = builder(&issuer, &clock)
        .refresh(policy)
        .start()
        .await
        .unwrap();
    let no_cache = || issuer.last_header("cache-control").as_deref() == Some("no-cache");
    assert!(!no_cache());
    server.refresh_keys().await.unwrap();
    assert!(no_cache());
    let timer = async || {
        advance(&clock, secs(290)).await;
        assert!(!no_cache());
    };
    timer().await;
    let _unknown = send(&server, &token("b", rsa(1))).await;
    assert!(no_cache());
    timer().await;
    let _rejected = send(&server, &token("a", rsa(1))).await;
    assert!(no_cache());
    timer().await;
    clock.advance(secs(1000));
    advance(&clock, secs(11)).await;
    assert!(no_cache());
}
