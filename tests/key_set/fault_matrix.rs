//! An issuer with every socket-level fault, and a resource server that continues to serve.
//!
//! For each fault: tokens with known keys are accepted throughout, the key set reports the fault,
//! and it is healthy again after one good response.

#![allow(clippy::print_stdout, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::error::ErrorKind;
use tower_oauth::key_set::{KeySetState, KeySetStatus, RefreshPolicy};
use tower_oauth::resource_server::{ResourceServerBuilder, Startup};
use tower_oauth::{Audience, Issuer, ResourceServer};

use crate::support::raw_issuer::{Behavior, RawIssuer, faults, ok_response, response};
use crate::support::{AUDIENCE, NOW, bearer, claims_with, compact, ok, poll_once_or_panic, rsa};

/// A resource server, and the issuer whose tokens it validates.
struct Resource {
    server: ResourceServer,
    claims: Value,
    /// Verified before, so that it may be in the token cache.
    known: String,
    tokens: AtomicUsize,
}

impl Resource {
    fn token(&self) -> String {
        let mut claims = self.claims.clone();
        claims["jti"] = self
            .tokens
            .fetch_add(1, Ordering::SeqCst)
            .to_string()
            .into();
        compact(
            rsa(0),
            "RS256",
            r#"{"alg":"RS256","kid":"a"}"#,
            claims.to_string().as_bytes(),
        )
    }

    /// The first poll must return the result: a fault adds no waiting.
    fn validate(&self, token: &str) -> StatusCode {
        let service = self.server.layer().layer(service_fn(ok));
        poll_once_or_panic(service.oneshot(bearer(token, ())))
            .unwrap()
            .status()
    }

    /// Sends a cached token and a new one.
    #[track_caller]
    fn assert_serves(&self, fault: &str) {
        assert_eq!(
            [self.validate(&self.known), self.validate(&self.token())],
            [StatusCode::OK; 2],
            "{fault}"
        );
    }

    fn status(&self) -> KeySetStatus {
        self.server.key_sets().remove(0)
    }

    async fn assert_recovers(&self, fault: &str) {
        self.server
            .refresh_keys()
            .await
            .unwrap_or_else(|error| panic!("after {fault}: {error}"));
        assert_eq!(self.status().state(), KeySetState::Healthy, "{fault}");
        self.assert_serves(fault);
    }
}

/// Enough for any response on a busy machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(20);

/// For faults that are detected by their duration.
const SHORT_TIMEOUT: Duration = Duration::from_secs(1);

fn builder(issuer: &RawIssuer, fetch_timeout: Duration) -> ResourceServerBuilder {
    let base = format!("http://{}", issuer.address);
    ResourceServer::builder(Issuer::new(base).unwrap(), Audience::new(AUDIENCE).unwrap())
        .clock(ManualClock::at(UnixTime::from_secs(NOW)))
        .refresh(RefreshPolicy::new().fetch_timeout(fetch_timeout))
        .allow_loopback_http()
}

/// Starts a resource that has discovered its keys.
async fn start(issuer: &RawIssuer, fetch_timeout: Duration) -> Resource {
    let base = format!("http://{}", issuer.address);
    let server = builder(issuer, fetch_timeout)
        .startup(Startup::Require(Duration::from_secs(10)))
        .start()
        .await
        .unwrap();
    let claims = claims_with(json!({ "iss": base }));
    let mut resource = Resource {
        server,
        claims,
        known: String::new(),
        tokens: AtomicUsize::new(0),
    };
    resource.known = resource.token();
    assert_eq!(resource.validate(&resource.known), StatusCode::OK);
    resource
}

fn per_endpoint(metadata: Behavior, keys: Behavior) -> Behavior {
    Behavior::PerEndpoint {
        metadata: Box::new(metadata),
        keys: Box::new(keys),
    }
}

fn metadata(issuer: &str, base: &str) -> Behavior {
    let document = json!({ "issuer": issuer, "jwks_uri": format!("{base}/keys") }).to_string();
    Behavior::Respond(ok_response(document.as_bytes()))
}

#[tokio::test]
async fn every_fault_is_survived_reported_and_recovered_from() {
    let set = json!({ "keys": [rsa(0).jwk("a")] }).to_string();
    let issuer = RawIssuer::start(Behavior::Reset).await;
    let base = format!("http://{}", issuer.address);
    let well = || metadata(&base, &base);
    let good = || per_endpoint(well(), Behavior::Respond(ok_response(set.as_bytes())));
    issuer.set_behavior(good()).await;
    let [long, short] = [
        start(&issuer, LONG_TIMEOUT).await,
        start(&issuer, SHORT_TIMEOUT).await,
    ];

    println!("| fault                        | reported as          | next good answer |");
    println!("| ---------------------------- | -------------------- | ---------------- |");
    for (fault, behavior, kind) in faults(&set, &base) {
        let resource = if kind == Some(ErrorKind::Timeout) {
            &short
        } else {
            &long
        };
        // With intact metadata, and with the same fault there.
        for (behavior, is_everywhere) in [
            (per_endpoint(well(), behavior.clone()), false),
            (behavior, true),
        ] {
            issuer.set_behavior(behavior).await;
            let error = resource.server.refresh_keys().await.expect_err(fault);
            if let Some(kind) = kind {
                assert_eq!(error.kind(), kind, "{fault}: {error}");
            }
            resource.assert_serves(fault);
            let status = resource.status();
            assert_eq!(
                (status.state(), status.usable_key_count()),
                (KeySetState::Degraded, 1),
                "{fault}"
            );
            let metadata = status.metadata_error().map(|error| error.kind());
            assert_eq!(metadata.is_some(), is_everywhere, "{fault}: {metadata:?}");
            assert_eq!(status.last_error().unwrap().kind(), error.kind(), "{fault}");
            issuer.set_behavior(good()).await;
            resource.assert_recovers(fault).await;
            if let Some(kind) = kind {
                println!("| {fault:<28} | {:<20} | healthy          |", kind.as_str());
            }
        }
    }
    let resource = long;
    // Metadata of another issuer, RFC 8414 §3.3: the keys stay usable, but no start succeeds with
    // it.
    let keys = || Behavior::Respond(ok_response(set.as_bytes()));
    issuer
        .set_behavior(per_endpoint(
            metadata("https://evil.example", &base),
            keys(),
        ))
        .await;
    let cold = builder(&issuer, LONG_TIMEOUT)
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    assert_eq!(
        cold.refresh_keys().await.unwrap_err().kind(),
        ErrorKind::IssuerMismatch
    );
    assert!(!cold.keys_available());
    resource.server.refresh_keys().await.unwrap();
    resource.assert_serves("metadata of another issuer");
    let status = resource.status();
    assert_eq!(status.state(), KeySetState::Degraded);
    assert_eq!(
        status.metadata_error().unwrap().kind(),
        ErrorKind::IssuerMismatch
    );
    issuer.set_behavior(good()).await;
    resource.assert_recovers("metadata of another issuer").await;
    cold.refresh_keys().await.unwrap();
    assert!(cold.keys_available());
    // The content type does not matter.
    let plain = response(
        "200 OK",
        "content-type: text/plain\r\netag: \"1\"\r\n",
        set.as_bytes(),
    );
    issuer
        .set_behavior(per_endpoint(well(), Behavior::Respond(plain)))
        .await;
    resource.assert_recovers("another content type").await;
    assert_eq!(resource.status().generation(), 1);
}

#[tokio::test]
async fn scheduled_refreshes_are_conditional_and_304_is_a_success() {
    let set = json!({ "keys": [rsa(0).jwk("a")] }).to_string();
    let issuer = RawIssuer::start(Behavior::Reset).await;
    let base = format!("http://{}", issuer.address);
    let keys = response(
        "200 OK",
        "cache-control: max-age=0\r\netag: \"1\"\r\n",
        set.as_bytes(),
    );
    issuer
        .set_behavior(per_endpoint(
            metadata(&base, &base),
            Behavior::Respond(keys),
        ))
        .await;
    let often = RefreshPolicy::new().min_interval(Duration::from_millis(100));
    let server = builder(&issuer, LONG_TIMEOUT).refresh(often);
    let server = server
        .startup(Startup::Require(LONG_TIMEOUT))
        .start()
        .await
        .unwrap();
    let unchanged = response("304 Not Modified", "cache-control: max-age=0\r\n", b"");
    issuer
        .set_behavior(per_endpoint(
            metadata(&base, &base),
            Behavior::Respond(unchanged),
        ))
        .await;
    let conditional_requests = || {
        issuer
            .requests()
            .iter()
            .filter(|got| got.to_lowercase().contains("if-none-match: \"1\""))
            .count()
    };
    let seen = async {
        while conditional_requests() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG_TIMEOUT, seen)
        .await
        .expect("scheduled refreshes happen in time");
    let status = server.key_sets().remove(0);
    assert_eq!(
        (
            status.state(),
            status.generation(),
            status.refreshes_failed()
        ),
        (KeySetState::Healthy, 1, 0)
    );
}

#[tokio::test]
async fn status_and_retry_after_of_an_error_are_read_regardless_of_its_body() {
    let issuer = RawIssuer::start(Behavior::Reset).await;
    let server = builder(&issuer, LONG_TIMEOUT)
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    let page = vec![b'x'; 1 << 20];
    let huge = response("503 Service Unavailable", "retry-after: 120\r\n", &page);
    let cut_off = huge.get(..huge.len() / 2).unwrap().to_vec();
    for behavior in [Behavior::Respond(huge), Behavior::Respond(cut_off)] {
        issuer.set_behavior(behavior).await;
        let error = server.refresh_keys().await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Status(StatusCode::SERVICE_UNAVAILABLE)
        );
        assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
    }
}

#[tokio::test]
async fn cookies_are_not_stored() {
    let set = json!({ "keys": [rsa(0).jwk("a")] }).to_string();
    let issuer = RawIssuer::start(Behavior::Reset).await;
    let base = format!("http://{}", issuer.address);
    let keys = response(
        "200 OK",
        "set-cookie: session=1; Path=/\r\n",
        set.as_bytes(),
    );
    issuer
        .set_behavior(per_endpoint(
            metadata(&base, &base),
            Behavior::Respond(keys),
        ))
        .await;
    let resource = start(&issuer, LONG_TIMEOUT).await;
    resource.assert_recovers("a cookie").await;
    let requests = issuer.requests();
    assert!(requests.len() >= 3, "{requests:?}");
    assert!(
        requests
            .iter()
            .all(|request| !request.to_lowercase().contains("cookie")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn connection_refused_is_an_outage() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let server = ResourceServer::builder(
        Issuer::new(&base).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    )
    .allow_loopback_http()
    .startup(Startup::Background)
    .start()
    .await
    .unwrap();
    assert_eq!(
        server.refresh_keys().await.unwrap_err().kind(),
        ErrorKind::Transport
    );
    assert!(!server.keys_available());
}
