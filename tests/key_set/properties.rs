//! Invariants of a key set under any sequence of failures, recoveries, floods, rotations and system
//! sleep. Time is paused.

use std::time::Duration;

use http::StatusCode;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_oauth::key_set::{KeySetState, RefreshCause, RefreshPolicy};
use tower_oauth::resource_server::{RejectionKind, Startup};

use crate::support::issuer::{IssuerReply, ScriptedIssuer, advance, builder, clock, secs, send};
use crate::support::{self, PrivateKey, claims_with, compact};

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    /// This many concurrent tokens with unknown kids.
    Flood(u8),
    /// Sets the issuer's reply.
    Issuer(IssuerReply),
    /// Sets the issuer's delay in milliseconds.
    Slow(u64),
    /// Publishes these kids, each with the key of its number.
    Publish(Vec<u8>),
    Asked,
    /// System sleep: only the wall clock advances.
    Sleep(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let answer = prop_oneof![
        Just(IssuerReply::Unreachable),
        Just(IssuerReply::Hang),
        Just(IssuerReply::Text("<html>")),
        Just(IssuerReply::Text(r#"{"keys":[]}"#)),
        Just(IssuerReply::Status(StatusCode::INTERNAL_SERVER_ERROR, None)),
        Just(IssuerReply::Status(
            StatusCode::TOO_MANY_REQUESTS,
            Some("40")
        )),
    ];
    let step = prop_oneof![
        6 => (1_u64..120).prop_map(Step::Pass),
        1 => (1_u64..4000).prop_map(Step::Pass),
        6 => (1_u8..30).prop_map(Step::Flood),
        3 => answer.prop_map(Step::Issuer),
        2 => (0_u64..7000).prop_map(Step::Slow),
        3 => prop::collection::vec(0_u8..3, 1..3).prop_map(Step::Publish),
        1 => Just(Step::Asked),
        1 => (1_u64..10_000).prop_map(Step::Sleep),
    ];
    prop::collection::vec(step, 1..40)
}

/// Ed25519, because signatures are not under test and it is the fastest.
fn token(kid: &str, key: &PrivateKey) -> String {
    compact(
        key,
        "EdDSA",
        &json!({ "alg": "EdDSA", "kid": kid }).to_string(),
        long_lived_claims().as_bytes(),
    )
}

/// They outlive any sleep.
fn long_lived_claims() -> String {
    claims_with(json!({ "exp": support::NOW + 10_000_000 })).to_string()
}

async fn check_properties(steps: Vec<Step>) {
    let keys = [support::ed25519(), support::ed25519(), support::ed25519()];
    let stranger = support::ed25519();
    let set = |numbers: &[u8]| -> Value {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        let jwk = |number: &u8| {
            keys.get(usize::from(*number))
                .unwrap()
                .jwk(&format!("k{number}"))
        };
        json!({ "keys": numbers.iter().map(jwk).collect::<Vec<_>>() })
    };
    let issuer = ScriptedIssuer::new(set(&[0]));
    let clock = clock();
    let max_stale = secs(3600);
    let server = builder(&issuer, &clock).refresh(RefreshPolicy::new().max_stale(max_stale));
    let server = server.startup(Startup::Background).start().await.unwrap();
    let began = Instant::now();
    let mut strangers = 0;
    for step in steps {
        match step {
            Step::Pass(seconds) => advance(&clock, secs(seconds)).await,
            Step::Issuer(answer) => issuer.set_reply(answer),
            Step::Slow(millis) => issuer.set_delay(Duration::from_millis(millis)),
            Step::Publish(numbers) => issuer.publish(set(&numbers)),
            Step::Sleep(seconds) => clock.advance(secs(seconds)),
            Step::Asked => drop(server.refresh_keys().await),
            Step::Flood(tokens) => {
                let mut calls = tokio::task::JoinSet::new();
                for _ in 0..tokens {
                    strangers += 1;
                    let (server, token) =
                        (server.clone(), token(&format!("x{strangers}"), &stranger));
                    calls.spawn(async move {
                        let came = Instant::now();
                        (send(&server, &token).await, came.elapsed())
                    });
                }
                for (result, waited) in calls.join_all().await {
                    let rejected = [RejectionKind::UnknownKey, RejectionKind::KeysUnavailable];
                    assert!(
                        result.is_err_and(|kind| rejected.contains(&kind)),
                        "{result:?}"
                    );
                    assert!(waited <= Duration::from_secs(1), "{waited:?}");
                }
            }
        }
        let status = server.key_sets().remove(0);
        let usable = status.state().is_usable();
        assert_eq!(
            usable,
            status.age().is_some_and(|age| age <= max_stale),
            "{status:?}"
        );
        for (number, key) in keys.iter().enumerate() {
            let came = Instant::now();
            let result = send(&server, &token(&format!("k{number}"), key)).await;
            match result {
                Ok(()) => assert!(usable),
                // The key is not in the set, and was not when the wait ended.
                Err(RejectionKind::UnknownKey) => assert!(usable),
                Err(RejectionKind::KeysUnavailable) => {
                    assert!(
                        !server.keys_available()
                            || server.key_sets().remove(0).generation() > status.generation()
                    );
                }
                Err(kind) => panic!("a valid token was rejected as {kind}"),
            }
            if result == Ok(()) && status.state() != KeySetState::Starting {
                assert!(came.elapsed() <= secs(1));
            }
        }
        assert!(issuer.max_in_flight() <= 1, "two fetches in flight");
        let status = server.key_sets().remove(0);
        let passed = began.elapsed().as_secs_f64();
        let count = |cause: RefreshCause| u32::try_from(status.refreshes(cause).total()).unwrap();
        assert!(
            f64::from(count(RefreshCause::UnknownKey)) <= 2.0 + passed / 15.0,
            "{status:?}"
        );
        assert!(
            f64::from(count(RefreshCause::Timer)) <= 8.0 + passed / 2.5,
            "{status:?}"
        );
        assert!(
            f64::from(count(RefreshCause::ClockJump)) <= 1.0 + passed / 10.0,
            "{status:?}"
        );
        if status.consecutive_failures() == 0 && status.generation() > 0 {
            assert!(status.next_refresh_in().unwrap() <= secs(570), "{status:?}");
        }
        if status.consecutive_failures() > 0 {
            assert!(status.next_refresh_in().unwrap() <= secs(60), "{status:?}");
        }
    }
    // When the issuer recovers, so does the set.
    issuer.set_delay(Duration::ZERO);
    issuer.publish(set(&[0, 1, 2]));
    advance(&clock, secs(600)).await;
    let status = server.key_sets().remove(0);
    assert_eq!(
        (status.state(), status.usable_key_count()),
        (KeySetState::Healthy, 3),
        "{status:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    })]

    #[test]
    fn fetches_are_serial_and_rate_limited_and_keys_expire_at_max_stale(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check_properties(steps));
    }
}
