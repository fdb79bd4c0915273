//! The counters, gauges and histograms, under their documented names.

#![allow(clippy::as_conversions, reason = "tests")]

use http::StatusCode;
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::ServiceExt;
use tower_oauth::client::NoAuthentication;
use tower_oauth::key_set::RefreshCause;
use tower_oauth::resource_server::{RejectionKind, Startup};
use tower_oauth::{ClientCredentials, Endpoint, Issuer, RequireScopeLayer, TokenManager};

use crate::support::issuer::{
    IssuerReply, ScriptedIssuer, advance, builder, builder_with, clock, secs, send, set, token,
};
use crate::support::token_endpoint::{Reply, TokenEndpoint};
use crate::support::{self, claims_with, rsa};

/// The value of a series, with its labels in any order.
fn value(rendered: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = rendered.lines().find(|line| {
        line.starts_with(name)
            && line
                .as_bytes()
                .get(name.len())
                .is_some_and(|next| matches!(next, b'{' | b' '))
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn results_refreshes_and_key_set_state_are_recorded() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let server = builder(&issuer, &clock).start().await.unwrap();
    let of = |name: &str, labels: &[&str]| value(&recorded.render(), name, labels);
    let requests = |result: &str| {
        of(
            "tower_oauth_requests_total",
            &[&format!("result=\"{result}\"")],
        )
        .unwrap_or(-1.0)
    };
    for kind in RejectionKind::ALL {
        assert_eq!(
            requests(kind.as_str()),
            0.0,
            "{kind} is there from the start"
        );
    }

    assert_eq!(send(&server, &token("a", rsa(0))).await, Ok(()));
    assert_eq!(send(&server, "a.b.c").await, Err(RejectionKind::Malformed));
    assert_eq!(
        send(&server, &token("a", rsa(1))).await,
        Err(RejectionKind::InvalidSignature)
    );
    assert_eq!(
        send(&server, &token("x", rsa(1))).await,
        Err(RejectionKind::UnknownKey)
    );
    assert_eq!(
        send(&server, &token("x", rsa(1))).await,
        Err(RejectionKind::UnknownKey)
    );
    let expired = claims_with(serde_json::json!({ "exp": support::NOW - 3600 }));
    let expired = support::issuer::with_claims("a", rsa(0), &expired);
    assert_eq!(send(&server, &expired).await, Err(RejectionKind::Expired));
    assert_eq!(
        [
            "granted",
            "malformed",
            "invalid_signature",
            "unknown_key",
            "expired",
            "invalid_audience"
        ]
        .map(requests),
        [1.0, 1.0, 1.0, 2.0, 1.0, 0.0]
    );

    // A valid token without the scope of the route.
    let route = RequireScopeLayer::all(["orders.write"]);
    let route = tower::ServiceBuilder::new()
        .layer(server.layer())
        .layer(route)
        .service(tower::service_fn(async |_: http::Request<()>| {
            Ok::<_, std::convert::Infallible>(http::Response::new(()))
        }));
    let field = format!("Bearer {}", token("a", rsa(0)));
    let request = http::Request::builder()
        .header("authorization", field)
        .body(())
        .unwrap();
    assert_eq!(
        route.oneshot(request).await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(["granted", "insufficient_scope"].map(requests), [1.0, 1.0]);

    let keys =
        |what: &str, labels: &[&str]| of(&format!("tower_oauth_{what}"), labels).unwrap_or(-1.0);
    // Of the good token twice, before it is cached, and of the one with an invalid signature.
    let verified = ["issuer=\"https://as.example\""];
    assert_eq!(keys("verification_duration_seconds_count", &verified), 3.0);
    assert!(keys("verification_duration_seconds_sum", &verified) > 0.0);
    let by = |cause: &str, outcome: &str, error: &str| {
        let labels = [
            "issuer=\"https://as.example\"",
            &format!("cause=\"{cause}\""),
            &format!("outcome=\"{outcome}\""),
            &format!("error=\"{error}\""),
        ];
        keys("key_set_refreshes_total", &labels)
    };
    assert_eq!(by("timer", "success", "none"), 1.0);
    assert_eq!(by("unknown_key", "success", "none"), 1.0);
    assert_eq!(
        (
            keys("jwks_refresh_waits_total", &[]),
            keys("jwks_negative_cache_hits_total", &[])
        ),
        (1.0, 1.0)
    );
    assert_eq!(
        ["usable_keys", "skipped_keys", "generation", "ready"]
            .map(|what| keys(&format!("key_set_{what}"), &[])),
        [1.0, 0.0, 1.0, 1.0]
    );
    let refreshed_at = keys("jwks_last_refresh_success_timestamp_seconds", &[]);

    issuer.set_reply(IssuerReply::Status(StatusCode::INTERNAL_SERVER_ERROR, None));
    server.refresh_keys().await.unwrap_err();
    assert_eq!(by("manual", "failure", "status"), 1.0);
    assert_eq!(keys("key_set_consecutive_failures", &[]), 1.0);
    assert_eq!(
        keys("jwks_last_refresh_success_timestamp_seconds", &[]),
        refreshed_at,
        "the value of the last good set"
    );
    advance(&clock, secs(90_000)).await;
    assert_eq!(
        (keys("key_set_ready", &[]), keys("key_set_usable_keys", &[])),
        (0.0, 0.0)
    );

    // The same values in the status that a readiness route returns.
    let status = server.key_sets().remove(0);
    assert_eq!(status.refreshes(RefreshCause::Manual).failed, 1);
    assert_eq!(
        (status.refresh_waits(), status.negative_cache_hits()),
        (1, 1)
    );
    let status = serde_json::to_value(&status).unwrap();
    assert_eq!(
        (&status["state"], &status["last_error"]),
        (&"stale".into(), &"status".into())
    );
    assert_eq!(status["refreshes"]["asked"]["failed"], 1);
    assert!(
        status["next_attempt_seconds"].as_u64().unwrap() <= 60
            && status["skipped"].as_array().unwrap().is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_counter_with_an_error_or_outcome_appears_with_its_first_event() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    // By their names and the value of `outcome`.
    let counters = || {
        ["key_set_refreshes_total", "token_requests_total"].map(|name| {
            let name = format!("tower_oauth_{name}");
            ["success", "failure"].map(|outcome| {
                let outcome = format!("outcome=\"{outcome}\"");
                value(&recorded.render(), &name, &[&outcome])
            })
        })
    };
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let (server, refresher) = builder(&issuer, &clock()).build().unwrap();
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let manager = || {
        let url = Endpoint::new("https://as.example/token").unwrap();
        let credentials = ClientCredentials::new("shop", "secret");
        let manager = TokenManager::builder(url, credentials).transport(endpoint.clone());
        manager.start().unwrap()
    };
    let tokens = manager();
    assert_eq!(counters(), [[None, None], [None, None]]);
    let requests = "tower_oauth_requests_total";
    let granted = value(&recorded.render(), requests, &["result=\"granted\""]);
    assert_eq!(granted, Some(0.0), "others are there from the start");

    let _refresher = tokio::spawn(refresher);
    server.wait_for_keys().await;
    assert_eq!(counters(), [[Some(1.0), None], [None, None]]);
    tokens.access_token().await.unwrap();
    assert_eq!(counters(), [[Some(1.0), None], [Some(1.0), None]]);

    issuer.set_reply(IssuerReply::Unreachable);
    server.refresh_keys().await.unwrap_err();
    endpoint.set_reply(Reply::Status(403, None));
    manager().access_token().await.unwrap_err();
    assert_eq!(counters(), [[Some(1.0), Some(1.0)], [Some(1.0), Some(1.0)]]);
}

#[tokio::test(start_paused = true)]
async fn the_duration_of_fetches_is_recorded_by_issuer_and_outcome() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_delay(std::time::Duration::from_millis(250));
    let of = |what: &str, outcome: &str| {
        let labels = [
            "issuer=\"https://as.example\"",
            &format!("outcome=\"{outcome}\""),
        ];
        let name = format!("tower_oauth_jwks_fetch_duration_seconds_{what}");
        value(&recorded.render(), &name, &labels)
    };
    let server = builder(&issuer, &clock()).start().await.unwrap();
    // Discovery and keys take a quarter of a second each.
    assert_eq!(
        ["count", "sum"].map(|what| of(what, "success")),
        [Some(1.0), Some(0.5)]
    );
    issuer.set_reply(IssuerReply::Hang);
    server.refresh_keys().await.unwrap_err();
    assert_eq!(of("count", "failure"), Some(1.0));
    assert_eq!(of("sum", "failure"), Some(5.0), "the time limit of a fetch");
    assert_eq!(of("count", "success"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn gauges_match_request_results_for_seeds_and_after_system_sleep() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let gauges = || {
        [
            "key_set_ready",
            "key_set_usable_keys",
            "key_set_skipped_keys",
            "jwks_last_refresh_success_timestamp_seconds",
        ]
        .map(|what| value(&recorded.render(), &format!("tower_oauth_{what}"), &[]).unwrap_or(-1.0))
    };
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    issuer.set_reply(IssuerReply::Unreachable);
    let clock = clock();
    let mut document = set(&[("a", rsa(0))]);
    document["keys"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({ "kty": "oct", "k": "AAAA" }));
    let seed = tower_oauth::key_set::KeySet::from_json(document.to_string().as_bytes()).unwrap();
    let fetched_at = tower_oauth::clock::UnixTime::from_secs(support::NOW - 86_000);
    let server = builder_with(&issuer, &clock, |issuer| {
        issuer.initial_keys(seed, fetched_at)
    });
    let server = server.startup(Startup::Background).start().await.unwrap();
    let seeded_at = (support::NOW - 86_000) as f64;
    assert_eq!(gauges(), [1.0, 1.0, 1.0, seeded_at]);
    advance(&clock, secs(401)).await;
    assert_eq!(gauges(), [0.0, 0.0, 0.0, seeded_at], "the seed has expired");
    issuer.publish(set(&[("a", rsa(0))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(gauges(), [1.0, 1.0, 0.0, (support::NOW + 401) as f64]);
    // Asleep: no timer runs, and the issuer is down after waking.
    issuer.set_reply(IssuerReply::Hang);
    clock.advance(secs(90_000));
    advance(&clock, secs(11)).await;
    assert_eq!(gauges(), [0.0, 0.0, 0.0, (support::NOW + 401) as f64]);
}

#[tokio::test(start_paused = true)]
async fn servers_of_one_issuer_share_counters_and_gauges_have_the_last_value_written() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let of = |name: &str, labels: &[&str]| value(&recorded.render(), name, labels);
    let ready = || of("tower_oauth_key_set_ready", &[]);
    let clock = clock();
    let unreachable = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    unreachable.set_reply(IssuerReply::Unreachable);
    let first = builder(&unreachable, &clock).startup(Startup::Background);
    let first = first.start().await.unwrap();
    assert_eq!(ready(), Some(0.0));

    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let second = builder(&issuer, &clock).start().await.unwrap();
    assert_eq!(ready(), Some(1.0));
    assert!(!first.keys_available() && second.keys_available());
    for server in [&first, &second] {
        let _ = send(server, "a.b.c").await;
    }
    let malformed = ["result=\"malformed\""];
    assert_eq!(of("tower_oauth_requests_total", &malformed), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn token_requests_are_counted_by_manager_and_outcome() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    let url = || Endpoint::new("https://as.example/token?key=a-key").unwrap();
    let credentials = || ClientCredentials::new("shop", "secret");
    let issuer = Issuer::new("https://as.example/tenant").unwrap();
    let source = TokenManager::builder(url(), credentials()).transport(endpoint.clone());
    let source = source.build_source().unwrap();
    let of_client = TokenManager::builder(url(), credentials());
    let named = TokenManager::builder(url(), credentials()).name("orders");
    let of_endpoint = TokenManager::builder(url(), NoAuthentication);
    let of_issuer = TokenManager::for_issuer(issuer, NoAuthentication).unwrap();
    for manager in [of_client, named, of_endpoint, of_issuer] {
        let manager = manager.transport(endpoint.clone()).start().unwrap();
        manager.access_token().await.unwrap();
    }
    let of_source = TokenManager::from_source(source).start().unwrap();
    of_source.access_token().await.unwrap();
    endpoint.set_reply(Reply::Status(403, None));
    let refused = TokenManager::builder(url(), credentials()).transport(endpoint);
    refused.start().unwrap().access_token().await.unwrap_err();

    let of = |manager: &str, outcome: &str, error: &str| {
        let labels = [("manager", manager), ("outcome", outcome), ("error", error)];
        let labels = labels.map(|(name, value)| format!("{name}=\"{value}\""));
        let labels = labels.each_ref().map(String::as_str);
        let name = "tower_oauth_token_requests_total";
        value(&recorded.render(), name, &labels).unwrap_or(-1.0)
    };
    for manager in [
        "shop",
        "orders",
        "https://as.example",
        "https://as.example/tenant",
        "token_source",
    ] {
        assert_eq!(of(manager, "success", "none"), 1.0, "{manager}");
    }
    assert_eq!(of("shop", "failure", "status"), 1.0);
    assert!(!recorded.render().contains("a-key"), "no query in a label");
}
