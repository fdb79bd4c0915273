//! `protected_resource` under load, while its issuer shows every fault of the matrix.
//!
//! `cargo test --test load under_load -- --nocapture` prints the table.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde_json::{Value, json};

use crate::PROCESSORS;
use crate::support::program::{Serving, example};
use crate::support::raw_issuer::{Behavior, RawIssuer, faults, response};
use crate::support::{claims_with, compact, rsa};

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// After the first fault, which is a warm-up, the second half of the faults takes no more memory
/// than the first half, except for the growth of the token cache (at most 1 KiB per new token, and
/// bounded) and for pages that the allocator retains.
fn assert_flat_memory(memory: &[u64]) {
    let (first, second) = memory.split_at(memory.len() / 2);
    if let (Some(before), Some(after)) = (first.iter().max(), second.iter().max()) {
        assert!(*after < before + (8 << 10), "{memory:?} KiB");
    }
}

/// The results of one client's requests.
struct Counts {
    served: u32,
    slowest: Duration,
}

/// The maximum time that a request may wait for keys.
const BOUNDED_WAIT: Duration = Duration::from_secs(1);

/// Sends requests one after the other until `over` is set. Each must be accepted; every other one
/// has a new token.
async fn load(url: String, claims: Value, over: Arc<AtomicBool>) -> Counts {
    let client = client();
    let mut counts = Counts {
        served: 0,
        slowest: Duration::ZERO,
    };
    let token = |jti: String| {
        let mut claims = claims.clone();
        claims["jti"] = jti.into();
        compact(
            rsa(0),
            "RS256",
            r#"{"alg":"RS256","kid":"a"}"#,
            claims.to_string().as_bytes(),
        )
    };
    let (known, mine) = (token("known".to_owned()), name());
    while !over.load(Ordering::SeqCst) {
        let fresh = counts.served % 2 == 1;
        let token = if fresh {
            token(format!("{mine}-{}", counts.served))
        } else {
            known.clone()
        };
        let sent_at = Instant::now();
        let response = client.get(&url).bearer_auth(&token).send().await.unwrap();
        assert_eq!(
            response.status(),
            200,
            "a token with a known key is always accepted"
        );
        counts.slowest = counts.slowest.max(sent_at.elapsed());
        counts.served += 1;
    }
    counts
}

/// One client for all: building one takes longer than many requests.
fn client() -> reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(reqwest::Client::new).clone()
}

async fn readiness(url: &str) -> (StatusCode, String) {
    let response = client().get(format!("{url}/readyz")).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

/// A unique name for each client.
fn name() -> String {
    static CLIENTS: AtomicU32 = AtomicU32::new(0);
    CLIENTS.fetch_add(1, Ordering::SeqCst).to_string()
}

/// One resource and one issuer, which shows these faults one after the other.
async fn assert_survives(set: String, faults: Vec<(&'static str, Behavior)>) {
    let good = || {
        Behavior::Respond(response(
            "200 OK",
            "cache-control: max-age=1\r\n",
            set.as_bytes(),
        ))
    };
    let issuer = RawIssuer::start(good()).await;
    let base = format!("http://{}", issuer.address);
    let mut command = example("protected_resource");
    command
        .env("ISSUER", &base)
        .env("JWKS_URI", format!("{base}/keys"))
        .env("AUDIENCE", "orders");
    command.env("MIN_REFRESH", "1").env("RUST_LOG", "off");
    let resource = Serving::start(command).await;
    let listening = resource.text("listening");
    let failures = async || {
        let (_, body) = readiness(&listening).await;
        let readiness_body: Value = serde_json::from_str(&body).unwrap();
        readiness_body["key_sets"][0]["consecutive_failures"]
            .as_u64()
            .unwrap()
    };
    let until = async |failing: bool| {
        let wait = async {
            while (failures().await > 0) != failing {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .expect("the failure is reported in time");
    };
    let ready = async { while readiness(&listening).await.0 != 200 {} };
    tokio::time::timeout(Duration::from_secs(10), ready)
        .await
        .expect("ready in time");

    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = claims_with(json!({ "iss": base, "exp": now + 3600, "iat": now }));
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        clients.spawn(load(
            format!("{listening}/protected_resource"),
            claims.clone(),
            Arc::clone(&over),
        ));
    }
    let pid = resource.child.id().unwrap();
    let mut memory = Vec::new();
    for (fault, behavior) in faults {
        issuer.set_behavior(behavior).await;
        until(true).await;
        issuer.set_behavior(good()).await;
        until(false).await;
        memory.extend(resident(pid));
        println!("| {fault:<28} | {:>8} KiB |", memory.last().unwrap_or(&0));
    }
    over.store(true, Ordering::SeqCst);
    let results = clients.join_all().await;
    let served: u32 = results.iter().map(|counts| counts.served).sum();
    let slowest = results.iter().map(|counts| counts.slowest).max().unwrap();
    println!("| {served} accepted, the slowest in {slowest:?} |");
    assert!(served > 100);
    assert!(slowest < BOUNDED_WAIT, "{slowest:?}");
    assert_flat_memory(memory.get(1..).unwrap_or_default());
    assert_eq!(resource.terminate().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_keys_are_served_through_every_fault_with_flat_memory() {
    const AT_A_TIME: usize = 4;
    let _alone = PROCESSORS.write().await;
    let set = json!({ "keys": [rsa(0).jwk("a")] }).to_string();
    // Built before there is any load, because the bombs take a while.
    let matrix = faults(&set, "http://127.0.0.1:9");
    let mut resources = tokio::task::JoinSet::new();
    for which in 0..AT_A_TIME {
        let some = matrix.iter().skip(which).step_by(AT_A_TIME);
        let faults = some
            .map(|(fault, behavior, _)| (*fault, behavior.clone()))
            .collect();
        resources.spawn(assert_survives(set.clone(), faults));
    }
    let _all_survived: Vec<()> = resources.join_all().await;
}
