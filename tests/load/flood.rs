//! A flood of tokens with random kids, from many tasks, during good traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tower_oauth::ResourceServer;
use tower_oauth::key_set::{KeySetState, RefreshCause};
use tower_oauth::resource_server::RejectionKind;

use crate::PROCESSORS;
use crate::support::issuer::{
    ScriptedIssuer, advance, builder, clock, secs, send, set, token, with_claims,
};
use crate::support::{self, claims, claims_with, compact, rsa};

const TASKS: usize = 50;
const EACH: usize = 200;

/// Sends the forged tokens from many tasks, and valid requests meanwhile. Returns how long it takes,
/// and the number of valid requests.
async fn flood(
    server: &ResourceServer,
    forged: &Arc<Vec<String>>,
    good: String,
) -> (Duration, usize) {
    let over = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let traffic = tokio::spawn({
        let (server, over, served) = (server.clone(), Arc::clone(&over), Arc::clone(&served));
        async move {
            while !over.load(Ordering::SeqCst) {
                let number = served.load(Ordering::SeqCst);
                // A cached token and a new one.
                let claims = claims_with(json!({ "jti": number.to_string() }));
                let token = if number % 2 == 0 {
                    good.clone()
                } else {
                    with_claims("a", rsa(0), &claims)
                };
                let came = tokio::time::Instant::now();
                assert_eq!(send(&server, &token).await, Ok(()));
                assert_eq!(
                    came.elapsed(),
                    Duration::ZERO,
                    "a valid request does not wait"
                );
                served.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let mut flood = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (server, forged) = (server.clone(), Arc::clone(forged));
        flood.spawn(async move {
            for token in forged.iter().skip(task * EACH).take(EACH) {
                assert_eq!(send(&server, token).await, Err(RejectionKind::UnknownKey));
                tokio::task::yield_now().await;
            }
        });
    }
    let began = tokio::time::Instant::now();
    while flood.join_next().await.transpose().unwrap().is_some() {}
    let took = began.elapsed();
    over.store(true, Ordering::SeqCst);
    traffic.await.unwrap();
    (took, served.load(Ordering::SeqCst))
}

#[test]
fn ten_thousand_unknown_kids_cost_few_fetches_and_no_memory_or_valid_request() {
    let _shared = PROCESSORS.blocking_read();
    // On one thread, because the allocations of a thread are counted.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = runtime.block_on(builder(&issuer, &clock).start()).unwrap();
    issuer.set_delay(Duration::from_millis(200));
    // The signature is made up. It is never verified, and everything else is valid.
    let forged: Arc<Vec<String>> = Arc::new(
        (0..TASKS * EACH)
            .map(|n| {
                let good = token("a", rsa(0));
                let (_, payload_and_signature) = good.split_once('.').unwrap();
                let header = json!({ "alg": "RS256", "kid": format!("flood-{n}") }).to_string();
                format!("{}.{payload_and_signature}", support::encode(header))
            })
            .collect(),
    );
    let good = token("a", rsa(0));
    assert_eq!(runtime.block_on(send(&server, &good)), Ok(()));

    let mut outcome = None;
    let memory = allocation_counter::measure(|| {
        outcome = Some(runtime.block_on(flood(&server, &forged, good)))
    });
    let (took, served) = outcome.unwrap();
    let status = server.key_sets().remove(0);
    let on_demand = status.refreshes(RefreshCause::UnknownKey).total();
    println!(
        "{} forged tokens in {took:?}: {on_demand} fetches, {} valid requests accepted, {} waits",
        TASKS * EACH,
        served,
        status.refresh_waits()
    );
    assert!(on_demand <= 2 + took.as_secs() / 15, "{on_demand}");
    assert_eq!(issuer.max_in_flight(), 1);
    assert_eq!(status.state(), KeySetState::Healthy);
    assert!(served > 10);
    // A waiting request is held in memory; a rejected one leaves nothing behind.
    let peak = memory.bytes_max;
    assert!(peak < 4 << 20, "{peak} bytes at the peak");
    let left = memory.bytes_current;
    assert!(left < 128 << 10, "{left} bytes left");

    runtime.block_on(async {
        // A rotation during the flood is found within fifteen seconds.
        issuer.publish(set(&[("a", rsa(0)), ("b", rsa(1))]));
        let new = compact(
            rsa(1),
            "RS256",
            r#"{"alg":"RS256","kid":"b"}"#,
            claims().to_string().as_bytes(),
        );
        for second in 0..=15 {
            for token in forged.iter().skip(second * 100).take(100) {
                assert_eq!(send(&server, token).await, Err(RejectionKind::UnknownKey));
            }
            advance(&clock, secs(1)).await;
        }
        assert_eq!(send(&server, &new).await, Ok(()));
    });
}
