//! An issuer that fails in every way that a socket can, and a resource server that goes on.
//!
//! For each fault: tokens with known keys are served throughout, the key set tells what is wrong,
//! and one good answer later it is well again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

#[path = "support/raw_issuer.rs"]
mod raw_issuer;
mod support;

use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use raw_issuer::{Act, RawIssuer, answer, matrix, ok};
use serde_json::json;
use support::{AUDIENCE, NOW, claims_with, compact, now_or_never, rsa};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::{
    Audience, Endpoint, ErrorKind, Issuer, KeySetState, ManualClock, RefreshPolicy, ResourceServer, StartUp,
    UnixTime,
};

#[tokio::test]
async fn every_way_to_fail_is_survived_told_and_recovered_from() {
    let set = json!({ "keys": [rsa(0).jwk("a")] }).to_string();
    let good = || Act::Answer(ok(set.as_bytes()));
    let issuer = RawIssuer::start(good()).await;
    let base = format!("http://{}", issuer.address);
    let timeout = Duration::from_millis(400);
    let server = ResourceServer::builder(Issuer::new(&base).unwrap(), Audience::new(AUDIENCE).unwrap())
        .jwks_uri(Endpoint::new(format!("{base}/keys")).unwrap())
        .clock(ManualClock::at(UnixTime::from_secs(NOW)))
        .refresh(RefreshPolicy::new().fetch_timeout(timeout))
        .allow_loopback_http()
        .start_up(StartUp::Require(Duration::from_secs(10)))
        .start()
        .await
        .unwrap();
    let claims = claims_with(json!({ "iss": base }));
    let token = compact(rsa(0), "RS256", r#"{"alg":"RS256","kid":"a"}"#, claims.to_string().as_bytes());
    // Decided in the first poll: at the cost that it always has.
    let served = || {
        let service = server
            .layer()
            .layer(service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(()))));
        let request =
            Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap();
        now_or_never(service.oneshot(request)).unwrap().status()
    };
    assert_eq!(served(), StatusCode::OK);

    println!("| fault                        | told as              | next good answer |");
    println!("| ---------------------------- | -------------------- | ---------------- |");
    for (fault, act, kind) in matrix(&set, &base) {
        issuer.does(act);
        let error = server.refresh_now().await.expect_err(fault);
        if let Some(kind) = kind {
            assert_eq!(error.kind(), kind, "{fault}: {error}");
        }
        assert_eq!(served(), StatusCode::OK, "{fault}");
        let told = server.key_sets().remove(0);
        assert_eq!((told.state(), told.usable_keys()), (KeySetState::Degraded, 1), "{fault}");
        assert_eq!(told.last_error().unwrap().kind(), error.kind(), "{fault}");
        issuer.does(good());
        server.refresh_now().await.unwrap_or_else(|error| panic!("after {fault}: {error}"));
        assert_eq!(server.key_sets().remove(0).state(), KeySetState::Healthy, "{fault}");
        println!("| {fault:<28} | {:<20} | healthy          |", error.kind().as_str());
    }
    // A content type is no reason to do without good keys.
    issuer.does(Act::Answer(answer("200 OK", "content-type: text/plain\r\n", set.as_bytes())));
    server.refresh_now().await.unwrap();
}

#[tokio::test]
async fn nobody_at_the_port_is_an_issuer_that_is_down() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let server = ResourceServer::builder(Issuer::new(&base).unwrap(), Audience::new(AUDIENCE).unwrap())
        .allow_loopback_http()
        .start_up(StartUp::Background)
        .start()
        .await
        .unwrap();
    assert_eq!(server.refresh_now().await.unwrap_err().kind(), ErrorKind::Transport);
    assert!(!server.is_ready());
}

/// RFC 8414 §3.3
#[tokio::test]
async fn metadata_of_another_issuer_leads_nowhere() {
    let issuer = RawIssuer::start(Act::Reset).await;
    let base = format!("http://{}", issuer.address);
    let document =
        json!({ "issuer": "https://evil.example", "jwks_uri": format!("{base}/keys") }).to_string();
    issuer.does(Act::Answer(ok(document.as_bytes())));
    let server = ResourceServer::builder(Issuer::new(&base).unwrap(), Audience::new(AUDIENCE).unwrap())
        .allow_loopback_http()
        .start_up(StartUp::Background)
        .start()
        .await
        .unwrap();
    assert_eq!(server.refresh_now().await.unwrap_err().kind(), ErrorKind::IssuerMismatch);
}
