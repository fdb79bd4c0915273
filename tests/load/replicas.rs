//! Fifty replicas of a service with one issuer, in a simulated hour.
//!
//! `cargo test --test load replicas -- --nocapture` prints the table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::resource_server::Startup;
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{Audience, Issuer, ResourceServer};

use crate::PROCESSORS;
use crate::support::issuer::{IssuerReply, ScriptedIssuer};
use crate::support::{self, NOW, bearer, claims, compact, ok, rsa};

const REPLICAS: usize = 50;

/// Requests to the issuer, for metadata and keys, per second.
struct Simulation {
    clock: ManualClock,
    issuer: ScriptedIssuer,
    replicas: Vec<ResourceServer>,
    seconds: Vec<usize>,
}

impl Simulation {
    async fn start() -> Self {
        let issuer = ScriptedIssuer::new(json!({ "keys": [rsa(0).jwk("a")] }));
        let clock = ManualClock::at(UnixTime::from_secs(NOW));
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            let audience = Audience::new(support::AUDIENCE).unwrap();
            let replica = ResourceServer::builder(Issuer::new(support::ISSUER).unwrap(), audience)
                .transport(issuer.clone())
                .clock(clock.clone())
                .startup(Startup::Background);
            replicas.push(replica.start().await.unwrap());
        }
        Self {
            clock,
            issuer,
            replicas,
            seconds: Vec::new(),
        }
    }

    async fn advance(&mut self, seconds: usize) {
        for _ in 0..seconds {
            let before = self.issuer.urls().len();
            self.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.seconds.push(self.issuer.urls().len() - before);
        }
    }

    /// The number of requests, and the maximum in one second, from this second on.
    fn report(&self, what: &str, from: usize) -> (usize, usize) {
        let seconds = self.seconds.get(from..).unwrap();
        let (sum, most) = (seconds.iter().sum(), *seconds.iter().max().unwrap());
        println!(
            "| {what:<28} | {:>7} s | {sum:>8} | {most:>15} |",
            seconds.len()
        );
        (sum, most)
    }
}

/// A store that replicas share, as in the guide: it caches each response for four minutes, and
/// forwards requests with `no-cache`.
#[derive(Clone, Debug)]
struct Shared {
    issuer: ScriptedIssuer,
    responses: Responses,
}

type Responses = Arc<tokio::sync::Mutex<HashMap<String, (tokio::time::Instant, Bytes)>>>;

impl Transport for Shared {
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        Box::pin(async move {
            let mut responses = self.responses.lock().await;
            let no_cache = request
                .headers()
                .get(header::CACHE_CONTROL)
                .is_some_and(|value| value == "no-cache");
            let kept = responses
                .get(&request.uri().to_string())
                .filter(|_| !no_cache);
            if let Some((_, body)) = kept.filter(|(at, _)| at.elapsed() < Duration::from_secs(240))
            {
                return Ok(Response::new(body.clone()));
            }
            let url = request.uri().to_string();
            let response = self.issuer.send(request, max_body).await?;
            responses.insert(url, (tokio::time::Instant::now(), response.body().clone()));
            Ok(response)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_with_a_shared_caching_transport_cause_one_fetch() {
    let _shared = PROCESSORS.read().await;
    let issuer = ScriptedIssuer::new(json!({ "keys": [rsa(0).jwk("a")] }));
    let shared = Shared {
        issuer: issuer.clone(),
        responses: Responses::default(),
    };
    let mut replicas = Vec::new();
    let clock = support::issuer::clock();
    for _ in 0..REPLICAS {
        let builder = support::issuer::builder(&issuer, &clock).transport(shared.clone());
        replicas.push(builder.start().await.unwrap());
    }
    assert_eq!(issuer.fetches(), 1);
    support::issuer::advance(&clock, Duration::from_secs(3600)).await;
    assert!(
        (10..=17).contains(&issuer.fetches()),
        "{}",
        issuer.fetches()
    );
    assert!(replicas.iter().all(ResourceServer::keys_available));

    // The first token of a new key finds it, despite the store.
    let before = issuer.fetches();
    issuer.publish(json!({ "keys": [rsa(0).jwk("a"), rsa(1).jwk("b")] }));
    let replica = replicas.first().unwrap();
    let later = json!({ "exp": NOW + 10_000 });
    let token =
        |kid, key| support::issuer::with_claims(kid, key, &support::claims_with(later.clone()));
    assert_eq!(
        support::issuer::send(replica, &token("b", rsa(1))).await,
        Ok(())
    );
    assert_eq!(issuer.fetches(), before + 1);
    // A manual refresh finds a withdrawn key.
    issuer.publish(json!({ "keys": [rsa(1).jwk("b")] }));
    replica.refresh_keys().await.unwrap();
    assert!(
        support::issuer::send(replica, &token("a", rsa(0)))
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn replicas_with_a_seed_spread_their_first_fetch_over_a_second() {
    let _shared = PROCESSORS.read().await;
    let issuer = ScriptedIssuer::new(json!({ "keys": [rsa(0).jwk("a")] }));
    let clock = support::issuer::clock();
    let document = json!({ "keys": [rsa(0).jwk("a")] }).to_string();
    let seed = tower_oauth::key_set::KeySet::from_json(document.as_bytes()).unwrap();
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        let seed = seed.clone();
        let builder = support::issuer::builder_with(&issuer, &clock, |issuer| {
            issuer.initial_keys(seed, UnixTime::from_secs(NOW - 10))
        })
        .startup(Startup::Background);
        replicas.push(builder.start().await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(issuer.fetches(), REPLICAS);
    let spread = spread(&issuer, 0);
    assert!(
        (Duration::from_millis(500)..=Duration::from_secs(1)).contains(&spread),
        "{spread:?}"
    );
}

/// The time between the first and the last request from this index on.
fn spread(issuer: &ScriptedIssuer, from: usize) -> Duration {
    let times: Vec<_> = issuer
        .requests()
        .into_iter()
        .skip(from)
        .map(|(_, _, at)| at)
        .collect();
    *times.last().unwrap() - *times.first().unwrap()
}

#[tokio::test(start_paused = true)]
async fn fifty_replicas_fetch_at_the_policy_rate_and_spread_out() {
    let _shared = PROCESSORS.read().await;
    let mut simulation = Simulation::start().await;
    println!("| {REPLICAS} replicas                  | time      | requests | most in a second |");
    println!("| ---------------------------- | --------- | -------- | ---------------- |");
    simulation.advance(300).await;
    simulation.report("start", 0);

    // Each fetches once in 210 to 285 seconds, at independent random times.
    simulation.advance(2340).await;
    let (fetches, most) = simulation.report("the issuer is well", 300);
    assert!(
        (REPLICAS * 2340 / 285 - REPLICAS..=REPLICAS * 2340 / 210 + REPLICAS).contains(&fetches),
        "{fetches}"
    );
    assert!(most <= REPLICAS / 4, "{most} in one second");

    // Outage: backoff up to a minute, with full jitter.
    simulation.issuer.set_reply(IssuerReply::Unreachable);
    let from = simulation.seconds.len();
    simulation.advance(900).await;
    let (_, most) = simulation.report("the issuer is down", from);
    assert!(most <= REPLICAS / 3, "{most} in one second");
    assert!(
        simulation
            .replicas
            .iter()
            .all(ResourceServer::keys_available),
        "no request is affected"
    );

    // Recovery: within a minute all replicas have the keys, and the fetches are spread out.
    simulation
        .issuer
        .publish(json!({ "keys": [rsa(0).jwk("a"), rsa(1).jwk("b")] }));
    let from = simulation.seconds.len();
    simulation.advance(61).await;
    let (_, most) = simulation.report("the issuer is back", from);
    assert!(most <= REPLICAS / 3, "{most} in one second");
    assert!(simulation.replicas.iter().all(|replica| {
        replica
            .key_sets()
            .iter()
            .all(|keys| keys.usable_key_count() == 2)
    }));

    // A rotation that all replicas see at once: one fetch each, spread over a quarter of a second.
    simulation
        .issuer
        .publish(json!({ "keys": [rsa(0).jwk("a"), rsa(1).jwk("b"), rsa(2).jwk("c")] }));
    let from = simulation.seconds.len();
    let token = compact(
        rsa(2),
        "RS256",
        r#"{"alg":"RS256","kid":"c"}"#,
        claims().to_string().as_bytes(),
    );
    let before = (simulation.issuer.urls().len(), simulation.issuer.fetches());
    let mut calls = tokio::task::JoinSet::new();
    for replica in &simulation.replicas {
        let service = replica.layer().layer(service_fn(ok));
        calls.spawn(service.oneshot(bearer(&token, ())));
    }
    assert!(
        calls
            .join_all()
            .await
            .iter()
            .all(|response| response.as_ref().unwrap().status() == 200)
    );
    // And some discovery requests, because discovery had failed a minute before.
    let fetches = simulation.issuer.fetches() - before.1;
    println!(
        "| a new key, seen by all       | {:>7} s | {fetches:>8} | {fetches:>15} |",
        1
    );
    assert!(
        (REPLICAS..=REPLICAS + REPLICAS / 4).contains(&fetches),
        "{fetches}"
    );
    let spread = spread(&simulation.issuer, before.0);
    assert!(
        (Duration::from_millis(125)..=Duration::from_millis(252)).contains(&spread),
        "{spread:?}"
    );
    simulation.advance(1).await;
    assert!(simulation.seconds.len() > from);
}
