//! Validated tokens are cached, and the cache accepts no token that validation would reject.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use metrics_exporter_prometheus::PrometheusBuilder;
use proptest::prelude::*;
use serde_json::json;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::key_set::{KeySet, RefreshPolicy};
use tower_oauth::resource_server::{RejectionKind, ResourceServerBuilder};
use tower_oauth::{
    Audience, AuthContext, Issuer, RequireScopeLayer, ResourceServer, TrustedIssuer,
};

use crate::support::issuer::{
    IssuerReply, ScriptedIssuer, advance, builder, clock, secs, send, set, token, with_claims,
};
use crate::support::{
    AUDIENCE, Fixture, ISSUER, NOW, bearer, claims, claims_with, compact, encode,
    poll_once_or_panic, rsa,
};

/// Whether two tokens have the same last 32 bytes.
fn ends_like(token: &str, other: &str) -> bool {
    token.as_bytes().last_chunk::<32>() == other.as_bytes().last_chunk::<32>()
}

/// A token with this subject.
fn of(subject: &str) -> String {
    with_claims("a", rsa(0), &claims_with(json!({ "sub": subject })))
}

/// Enough requests for the shared cache and the thread-local cache.
const WARM_UP_REQUESTS: usize = 20;

/// Sends a token until it is cached.
fn warm_up(fixture: &Fixture, token: &str) {
    let before = fixture.server.cached_token_count();
    for _ in 0..WARM_UP_REQUESTS {
        fixture.assert_accepts(token);
    }
    assert_eq!(fixture.server.cached_token_count(), before + 1);
}

/// The same for a server that fetches its keys.
async fn assert_accepted(server: &ResourceServer, token: &str) {
    let before = server.cached_token_count();
    for _ in 0..WARM_UP_REQUESTS {
        assert_eq!(send(server, token).await, Ok(()));
    }
    assert_eq!(server.cached_token_count(), before + 1);
}

/// Runs `work` with a function that returns the number of token cache hits so far.
async fn with_hit_counter(work: impl AsyncFnOnce(&dyn Fn() -> f64)) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let hits = move || {
        let rendered = recorded.render();
        let line = rendered
            .lines()
            .find(|line| line.starts_with("tower_oauth_token_cache_hits_total"));
        line.map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
    };
    work(&hits).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_cached_from_its_second_request_on() {
    with_hit_counter(async |hits| {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        let server = builder(&issuer, &clock()).start().await.unwrap();
        assert_eq!(server.cached_token_count(), 0);
        for (kept, hits_by_now) in [(0, 0.0), (1, 0.0), (1, 1.0), (1, 2.0)] {
            assert_eq!(send(&server, &of("app")).await, Ok(()));
            assert_eq!((server.cached_token_count(), hits()), (kept, hits_by_now));
        }
        assert_eq!(send(&server, &of("other")).await, Ok(()));
        assert_eq!(
            (server.cached_token_count(), hits()),
            (1, 2.0),
            "a token that is used once is not cached"
        );
    })
    .await;
}

/// A thread-local hit reaches the shared cache at most once a second.
#[tokio::test(start_paused = true)]
async fn evicted_token_is_reinserted_from_the_thread_cache_without_reverification() {
    with_hit_counter(async |hits| {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        let clock = clock();
        let server = builder(&issuer, &clock)
            .max_cached_tokens(2)
            .start()
            .await
            .unwrap();
        let in_use = of("app");
        assert_accepted(&server, &in_use).await;
        for number in 0..10 {
            let other = of(&format!("other-{number}"));
            for _ in 0..3 {
                assert_eq!(send(&server, &other).await, Ok(()));
            }
            assert!(server.cached_token_count() <= 2);
        }
        clock.advance(Duration::from_secs(1));
        let before = hits();
        for _ in 0..100 {
            assert_eq!(send(&server, &in_use).await, Ok(()));
        }
        assert_eq!(hits(), before + 100.0);
        assert_eq!(server.cached_token_count(), 2);
        // The thread-local cache of another thread is empty.
        let elsewhere = || poll_once_or_panic(send(&server, &in_use));
        assert_eq!(
            std::thread::scope(|scope| scope.spawn(elsewhere).join().unwrap()),
            Ok(())
        );
        assert_eq!(hits(), before + 101.0, "the token is in the shared cache");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_thread_local_cache_serves_dozens_of_changing_tokens() {
    with_hit_counter(async |hits| {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        let server = builder(&issuer, &clock())
            .max_cached_tokens(50)
            .start()
            .await
            .unwrap();
        for hour in 0..6 {
            // Tokens of the previous hour are never sent again.
            let callers: Vec<_> = (0..40)
                .map(|number| of(&format!("app-{hour}-{number}")))
                .collect();
            for _ in 0..60 {
                for caller in &callers {
                    assert_eq!(send(&server, caller).await, Ok(()));
                }
            }
            // More tokens than the cache holds, each sent often enough to be cached.
            for number in 0..70 {
                let other = of(&format!("other-{hour}-{number}"));
                for _ in 0..3 {
                    assert_eq!(send(&server, &other).await, Ok(()));
                }
            }
            let before = hits();
            for caller in &callers {
                assert_eq!(send(&server, caller).await, Ok(()));
            }
            // The sets are 4-way, and by chance some get five tokens.
            assert!(
                hits() - before >= 25.0,
                "{} of 40 in hour {hour}",
                hits() - before
            );
        }
    })
    .await;
}

/// CVE-2026-35030 (LiteLLM): the cache identified a token by its first 20 characters.
#[test]
fn a_token_that_matches_a_cached_one_in_part_is_no_hit() {
    let fixture = Fixture::new();
    let good = fixture.token(&claims());
    warm_up(&fixture, &good);
    for at in 0..good.len() {
        let mut spoiled = good.clone().into_bytes();
        spoiled[at] = if spoiled[at] == b'A' { b'B' } else { b'A' };
        let spoiled = String::from_utf8(spoiled).unwrap();
        assert!(
            spoiled == good || poll_once_or_panic(fixture.validate(&spoiled)).is_err(),
            "changed at {at}"
        );
    }
    // Header and signature of the valid token, with other claims.
    let parts: Vec<&str> = good.split('.').collect();
    let other = encode(claims_with(json!({ "sub": "other", "scope": "admin" })).to_string());
    let grafted = format!("{}.{other}.{}", parts[0], parts[2]);
    assert!(ends_like(&grafted, &good));
    fixture.assert_rejects(&grafted, RejectionKind::InvalidSignature);
    for shorter in [
        &good[1..],
        &good[..good.len() - 1],
        &good[good.len() - 32..],
        &good[..20],
    ] {
        assert!(poll_once_or_panic(fixture.validate(shorter)).is_err());
    }
    fixture.assert_rejects(&format!("{good}A"), RejectionKind::InvalidSignature);
    fixture.assert_accepts(&good);
}

/// GHSA-rp9m-7r4c-75qg (fast-jwt): two tokens with the same cache key, and one caller got the
/// claims of the other.
#[test]
fn each_cached_token_has_a_separate_auth_context() {
    let fixture = Fixture::new();
    let named = |number: usize| format!("app-{number}");
    let tokens: Vec<String> = (0..60)
        .map(|number| fixture.token(&claims_with(json!({ "sub": named(number) }))))
        .collect();
    for round in 0..30 {
        for (number, token) in tokens.iter().enumerate() {
            assert_eq!(
                fixture.assert_accepts(token).subject(),
                Some(&*named(number)),
                "round {round}"
            );
        }
    }
    assert_eq!(fixture.server.cached_token_count(), 60);
}

/// lua-resty-openidc#569: a token accepted by one location was accepted by another with stricter
/// checks.
#[test]
fn a_cached_token_is_valid_only_under_the_policy_that_validated_it() {
    let keys = || KeySet::from_json(set(&[("a", rsa(0))]).to_string().as_bytes()).unwrap();
    let server = |change: fn(TrustedIssuer) -> TrustedIssuer, leeway| {
        let issuer = TrustedIssuer::new(
            Issuer::new(ISSUER).unwrap(),
            Audience::new(AUDIENCE).unwrap(),
        );
        let issuer = change(issuer.keys(keys()));
        ResourceServer::from_issuer(issuer)
            .leeway(leeway)
            .clock(clock())
            .build()
            .unwrap()
            .0
    };
    let lax = server(|issuer| issuer, secs(60));
    let strict = server(
        |issuer| issuer.profile(tower_oauth::resource_server::TokenProfile::Rfc9068),
        secs(60),
    );
    let exact = server(|issuer| issuer, secs(0));
    let elsewhere = server(
        |issuer| issuer.algorithms([tower_oauth::resource_server::Algorithm::Es256]),
        secs(60),
    );
    let late = with_claims("a", rsa(0), &claims_with(json!({ "exp": NOW - 30 })));
    for _ in 0..WARM_UP_REQUESTS {
        assert_eq!(poll_once_or_panic(send(&lax, &late)), Ok(()));
        assert_eq!(
            poll_once_or_panic(send(&strict, &late)),
            Err(RejectionKind::UnexpectedTokenType)
        );
        assert_eq!(
            poll_once_or_panic(send(&exact, &late)),
            Err(RejectionKind::Expired)
        );
        assert_eq!(
            poll_once_or_panic(send(&elsewhere, &late)),
            Err(RejectionKind::UnsupportedAlgorithm)
        );
    }
}

#[test]
fn a_cached_token_expires_to_the_second() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims_with(json!({ "exp": NOW + 10 })));
    warm_up(&fixture, &token);
    fixture.clock.advance(secs(10 + 59));
    fixture.assert_accepts(&token);
    assert_eq!(fixture.server.cached_token_count(), 1);
    fixture.clock.advance(secs(1));
    fixture.assert_rejects(&token, RejectionKind::Expired);
    assert_eq!(
        fixture.server.cached_token_count(),
        0,
        "the expired token is removed"
    );
    fixture.assert_rejects(&token, RejectionKind::Expired);
}

#[test]
fn a_cached_token_is_not_yet_valid_after_the_clock_is_set_back() {
    let fixture = Fixture::new();
    for claims in [
        claims_with(json!({ "nbf": NOW })),
        claims_with(json!({ "iat": NOW, "jti": "2" })),
    ] {
        let token = fixture.token(&claims);
        warm_up(&fixture, &token);
        fixture.clock.set(UnixTime::from_secs(NOW - 61));
        fixture.assert_rejects(&token, RejectionKind::NotYetValid);
        fixture.clock.set(UnixTime::from_secs(NOW));
        fixture.assert_accepts(&token);
    }
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_key_invalidates_cached_tokens() {
    with_hit_counter(async |hits| {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
        let server = builder(&issuer, &clock()).start().await.unwrap();
        let tokens: Vec<String> = (0..20).map(|number| of(&number.to_string())).collect();
        let staying = token("b", rsa(1));
        for _ in 0..3 {
            for token in &tokens {
                assert_eq!(send(&server, token).await, Ok(()));
            }
            assert_eq!(send(&server, &staying).await, Ok(()));
        }
        assert_eq!((server.cached_token_count(), hits()), (21, 21.0));
        issuer.publish(set(&[("b", rsa(1))]));
        server.refresh_keys().await.unwrap();
        for token in &tokens {
            assert_eq!(send(&server, token).await, Err(RejectionKind::UnknownKey));
        }
        assert_eq!(send(&server, &staying).await, Ok(()));
        assert_eq!(
            (server.cached_token_count(), hits()),
            (1, 22.0),
            "a token of the other key is cached nevertheless"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_invalidates_cached_tokens_at_once() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    assert_accepted(&server, &of("app")).await;
    assert!(server.revoke_key(&Issuer::new(ISSUER).unwrap(), "a"));
    assert_eq!(
        send(&server, &of("app")).await,
        Err(RejectionKind::RevokedKey)
    );
    assert_eq!(server.cached_token_count(), 0);
}

/// Both threads have copies of the entry, and each reports its first hit of a second.
#[tokio::test(start_paused = true)]
async fn a_revoked_key_invalidates_the_copies_of_all_threads() {
    let (issuer, clock) = (ScriptedIssuer::new(set(&[("a", rsa(0))])), clock());
    let server = builder(&issuer, &clock).start().await.unwrap();
    let token = of("app");
    let send_often = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let sent = |_| runtime.block_on(send(&server, &token));
        (0..30).map(sent).collect::<Vec<_>>()
    };
    let barrier = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| {
            scope.spawn(|| {
                assert!(send_often().iter().all(Result::is_ok));
                barrier.wait();
                barrier.wait();
                send_often()
            })
        });
        barrier.wait();
        assert!(server.revoke_key(&Issuer::new(ISSUER).unwrap(), "a"));
        clock.advance(Duration::from_secs(1));
        barrier.wait();
        for thread in threads {
            for result in thread.join().unwrap() {
                assert_eq!(result, Err(RejectionKind::RevokedKey));
            }
        }
    });
    assert_eq!(server.cached_token_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn key_replaced_under_same_kid_invalidates_cached_tokens() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    assert_accepted(&server, &of("app")).await;
    issuer.publish(set(&[("a", rsa(1))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(
        send(&server, &of("app")).await,
        Err(RejectionKind::InvalidSignature)
    );
    // The same public key under another `kid` is another key.
    issuer.publish(set(&[("a", rsa(0))]));
    server.refresh_keys().await.unwrap();
    assert_accepted(&server, &of("app")).await;
    issuer.publish(set(&[("b", rsa(0))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(
        send(&server, &of("app")).await,
        Err(RejectionKind::UnknownKey)
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_algorithm_changes_invalidates_cached_tokens() {
    let mut key = rsa(0).jwk("a");
    let issuer = ScriptedIssuer::new(json!({ "keys": [key] }));
    let server = builder(&issuer, &clock()).start().await.unwrap();
    assert_accepted(&server, &of("app")).await;
    key["alg"] = json!("PS256");
    issuer.publish(json!({ "keys": [key] }));
    server.refresh_keys().await.unwrap();
    assert_eq!(
        send(&server, &of("app")).await,
        Err(RejectionKind::UnsupportedAlgorithm)
    );
}

#[tokio::test(start_paused = true)]
async fn cached_tokens_are_not_served_past_max_stale() {
    let (clock, issuer) = (clock(), ScriptedIssuer::new(set(&[("a", rsa(0))])));
    let server = builder(&issuer, &clock)
        .refresh(RefreshPolicy::new().max_stale(secs(1800)))
        .start()
        .await
        .unwrap();
    let token = of("app");
    assert_accepted(&server, &token).await;
    issuer.set_reply(IssuerReply::Unreachable);
    advance(&clock, secs(1700)).await;
    assert_eq!(send(&server, &token).await, Ok(()));
    advance(&clock, secs(200)).await;
    assert_eq!(
        send(&server, &token).await,
        Err(RejectionKind::KeysUnavailable)
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_without_kid_is_cached_only_for_its_key_set() {
    with_hit_counter(async |hits| {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
        let server = builder(&issuer, &clock()).start().await.unwrap();
        let token = compact(
            rsa(0),
            "RS256",
            r#"{"alg":"RS256"}"#,
            claims().to_string().as_bytes(),
        );
        assert_accepted(&server, &token).await;
        assert_eq!(hits(), 18.0);
        // With two keys the match is ambiguous.
        issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
        server.refresh_keys().await.unwrap();
        assert_eq!(
            send(&server, &token).await,
            Err(RejectionKind::AmbiguousKey)
        );
    })
    .await;
}

#[test]
fn scopes_and_proofs_are_checked_for_cached_tokens() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    let service = |scope: &'static str| {
        ServiceBuilder::new()
            .layer(fixture.server.layer())
            .layer(RequireScopeLayer::all([scope]))
            .service(service_fn(async |_: Request<()>| {
                Ok::<_, Infallible>(Response::new(()))
            }))
    };
    let ask = |scope, scheme: &str| {
        let request = Request::builder().header(header::AUTHORIZATION, format!("{scheme} {token}"));
        poll_once_or_panic(service(scope).oneshot(request.body(()).unwrap()))
            .unwrap()
            .status()
    };
    for _ in 0..WARM_UP_REQUESTS {
        assert_eq!(ask("orders.read", "Bearer"), StatusCode::OK);
        assert_eq!(ask("orders.write", "Bearer"), StatusCode::FORBIDDEN);
        assert_eq!(ask("orders.read", "DPoP"), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(fixture.server.cached_token_count(), 1);
}

#[test]
fn a_panicking_or_cancelled_request_leaves_a_correct_cache_entry() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    let request = || bearer(&token, ());
    let never =
        async |_: Request<()>| std::future::pending::<Result<Response<()>, Infallible>>().await;
    let mut cancelled = fixture.server.layer().layer(service_fn(never));
    drop(cancelled.call(request()));
    let panics = service_fn(
        |_: Request<()>| -> std::future::Ready<Result<Response<()>, Infallible>> {
            panic!("a panicking handler")
        },
    );
    let mut panics = fixture.server.layer().layer(panics);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(panics.call(request()))
    }));
    assert!(caught.is_err());
    fixture.assert_accepts(&token);
    fixture.assert_rejects(&token.replace('.', ".."), RejectionKind::Malformed);
    fixture.clock.advance(secs(3600 + 60));
    fixture.assert_rejects(&token, RejectionKind::Expired);
}

#[test]
fn rejections_are_never_cached() {
    let fixture = Fixture::new();
    for number in 0..50 {
        let payload = claims_with(json!({ "jti": number.to_string() }));
        let forged = compact(
            rsa(1),
            "RS256",
            r#"{"alg":"RS256","kid":"rsa"}"#,
            payload.to_string().as_bytes(),
        );
        fixture.assert_rejects(&forged, RejectionKind::InvalidSignature);
        fixture.assert_rejects(
            &fixture.token(&claims_with(
                json!({ "jti": number.to_string(), "aud": "other" }),
            )),
            RejectionKind::InvalidAudience,
        );
    }
    assert_eq!(fixture.server.cached_token_count(), 0);
}

fn bounded(change: impl Fn(ResourceServerBuilder) -> ResourceServerBuilder) -> ResourceServer {
    let keys = KeySet::from_json(set(&[("a", rsa(0))]).to_string().as_bytes()).unwrap();
    let issuer = TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    )
    .keys(keys);
    change(ResourceServer::from_issuer(issuer).clock(clock()))
        .build()
        .unwrap()
        .0
}

#[test]
fn the_cache_is_bounded_by_tokens_and_bytes_and_can_be_disabled() {
    let padded = |number: usize, len: usize| {
        with_claims(
            "a",
            rsa(0),
            &claims_with(json!({ "jti": number.to_string(), "pad": "x".repeat(len) })),
        )
    };
    let kept = |server: &ResourceServer, tokens: usize, len: usize| {
        for token in (0..tokens).map(|number| padded(number, len)) {
            for _ in 0..3 {
                assert_eq!(poll_once_or_panic(send(server, &token)), Ok(()));
            }
        }
        server.cached_token_count()
    };
    let few = bounded(|builder| builder.max_cached_tokens(10));
    assert!((1..=10).contains(&kept(&few, 40, 10)));
    let small = bounded(|builder| builder.max_cache_size(20_000));
    assert!(
        (1..=30).contains(&kept(&small, 40, 10)),
        "{}",
        small.cached_token_count()
    );
    assert!((1..=7).contains(&kept(
        &bounded(|builder| builder.max_cache_size(20_000)),
        40,
        2_000
    )));
    for off in [
        bounded(|builder| builder.max_cached_tokens(0)),
        bounded(|builder| builder.max_cache_size(0)),
    ] {
        assert_eq!(kept(&off, 5, 10), 0);
    }
    let usual = bounded(|builder| builder);
    assert_eq!(kept(&usual, 40, 10), 40);
    assert_eq!(
        kept(&usual, 1, 6_500),
        40,
        "a token over 8 KiB is accepted and not cached"
    );
}

#[tokio::test]
async fn new_tokens_replace_old_ones_in_the_cache() {
    with_hit_counter(async |hits| {
        let server = bounded(|builder| builder.max_cached_tokens(20));
        for hour in 0..4 {
            let tokens: Vec<String> = (0..20).map(|app| of(&format!("{app} at {hour}"))).collect();
            // Twice to be cached, then often.
            let mut before = 0.0;
            for request in 0..42 {
                for token in &tokens {
                    assert_eq!(send(&server, token).await, Ok(()));
                }
                if request == 1 {
                    (_, before) = (server.cached_token_count(), hits());
                }
            }
            assert_eq!(
                (server.cached_token_count(), hits() - before),
                (20, 800.0),
                "hour {hour}"
            );
        }
    })
    .await;
}

#[test]
fn concurrent_first_requests_with_a_token_all_succeed() {
    for _ in 0..20 {
        let server = bounded(|builder| builder);
        let token = of("app");
        let start = Arc::new(std::sync::Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (server, token, start) = (server.clone(), token.clone(), Arc::clone(&start));
                std::thread::spawn(move || {
                    start.wait();
                    (0..20).all(|_| poll_once_or_panic(send(&server, &token)).is_ok())
                })
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        assert_eq!(server.cached_token_count(), 1);
    }
}

#[test]
fn an_auth_context_outlives_its_cache_entry() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    warm_up(&fixture, &token);
    let first: AuthContext = fixture.assert_accepts(&token);
    fixture.clock.advance(secs(3600 + 60));
    fixture.assert_rejects(&token, RejectionKind::Expired);
    assert_eq!(
        (first.subject(), first.has_scope("orders.read")),
        (Some("app"), true)
    );
}

/// Events for an issuer and its two resource servers, one of which has a token cache.
#[derive(Clone, Debug)]
enum Event {
    /// This many times.
    Send(usize, usize),
    Advance(u64),
    SetClockBack(u64),
    Publish(Vec<(&'static str, usize)>),
    Revoke(&'static str),
}

fn event() -> impl Strategy<Value = Event> {
    let key = (prop_oneof![Just("a"), Just("b")], 0_usize..2);
    prop_oneof![
        12 => ((0_usize..8), prop_oneof![Just(1), Just(WARM_UP_REQUESTS)])
            .prop_map(|(which, often)| Event::Send(which, often)),
        2 => (1_u64..100).prop_map(Event::Advance),
        1 => (1_u64..100).prop_map(Event::SetClockBack),
        2 => prop::collection::vec(key, 1..3).prop_map(Event::Publish),
        1 => prop_oneof![Just("a"), Just("b")].prop_map(Event::Revoke),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn cache_never_changes_the_result(events in prop::collection::vec(event(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let clock = clock();
            let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
            let policy = || RefreshPolicy::new().unknown_key_timeout(Duration::ZERO);
            let with_cache = builder(&issuer, &clock).refresh(policy()).start().await.unwrap();
            let without_cache = builder(&issuer, &clock)
                .refresh(policy())
                .max_cached_tokens(0)
                .start()
                .await
                .unwrap();
            let tokens: Vec<String> = (0..8).map(|number: usize| {
                let jti = number.to_string();
                let claims = claims_with(json!({ "nbf": NOW - 50, "exp": NOW + 60, "jti": jti }));
                let kid = if number.is_multiple_of(2) { "a" } else { "b" };
                with_claims(kid, rsa(number / 4), &claims)
            }).collect();
            for event in events {
                match event {
                    Event::Send(which, often) => for _ in 0..often {
                        let cached = send(&with_cache, &tokens[which]).await;
                        assert_eq!(cached, send(&without_cache, &tokens[which]).await);
                    }
                    Event::Advance(seconds) => clock.advance(secs(seconds)),
                    Event::SetClockBack(seconds) => clock.set(clock_now(&clock, seconds)),
                    Event::Publish(keys) => {
                        let keys: Vec<_> =
                            keys.iter().map(|(kid, key)| (*kid, rsa(*key))).collect();
                        issuer.publish(set(&keys));
                        let refreshed = with_cache.refresh_keys().await;
                        let other = without_cache.refresh_keys().await;
                        assert_eq!(refreshed.is_ok(), other.is_ok());
                    }
                    Event::Revoke(kid) => {
                        for server in [&with_cache, &without_cache] {
                            assert!(server.revoke_key(&Issuer::new(ISSUER).unwrap(), kid));
                        }
                    }
                }
            }
        });
    }
}

fn clock_now(clock: &ManualClock, back: u64) -> UnixTime {
    use tower_oauth::clock::Clock as _;
    UnixTime::from_secs(clock.now().as_secs() - back)
}
