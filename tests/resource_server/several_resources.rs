//! Several resources in one process share the keys of their issuers, and nothing else.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_oauth::key_set::KeySetState;
use tower_oauth::resource_server::RejectionKind::{
    InsufficientScope, InvalidAudience, InvalidClaims, RevokedKey, UnknownKey, UntrustedClient,
};
use tower_oauth::resource_server::{ProtectedResource, RejectionKind};
use tower_oauth::{Issuer, ResourceServer, TrustedIssuer};

use crate::support::issuer::{
    IssuerReply, ScriptedIssuer, advance, builder, builder_with, clock, secs, send, set,
    with_claims,
};
use crate::support::{self, AUDIENCE, claims_with, rsa};

const ORDERS: &str = "https://api.example/orders";
const BILLS: &str = "https://api.example/bills";

/// A server with the resource `ORDERS`, and one with the resource `BILLS` that shares its keys.
async fn orders_and_bills(issuer: &ScriptedIssuer) -> [ResourceServer; 2] {
    let trusted = |trusted: TrustedIssuer| trusted.add_audience(ORDERS.try_into().unwrap());
    let orders = builder_with(issuer, &clock(), trusted)
        .protected_resource(ProtectedResource::new(ORDERS).unwrap())
        .start()
        .await
        .unwrap();
    let bills = orders.also(BILLS).unwrap();
    [orders, bills]
}

fn token(kid: &str, key: usize, audience: &str) -> String {
    with_claims(kid, rsa(key), &claims_with(json!({ "aud": audience })))
}

#[tokio::test(start_paused = true)]
async fn two_resources_cost_one_fetch_and_one_schedule() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let clock = clock();
    let orders = builder(&issuer, &clock).start().await.unwrap();
    let bills = orders.also(BILLS).unwrap();
    // A further resource of either of them.
    let costs = bills.also("https://api.example/costs").unwrap();
    for server in [&orders, &bills, &costs] {
        assert!(server.keys_available());
        server.wait_for_keys().await;
    }
    assert_eq!((issuer.discoveries(), issuer.fetches()), (1, 1));

    bills.refresh_keys().await.unwrap();
    assert_eq!(issuer.fetches(), 2);
    // The schedule of one server: 10 minutes by default, 70 to 95 % of it.
    for _ in 0..600 {
        advance(&clock, secs(60)).await;
    }
    let fetches = issuer.fetches() - 2;
    let alone = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let _alone = builder(&alone, &clock).start().await.unwrap();
    for _ in 0..600 {
        advance(&clock, secs(60)).await;
    }
    let difference = fetches.abs_diff(alone.fetches());
    assert!(
        fetches > 9 && difference * 5 < fetches,
        "{fetches} {difference}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_one_resource_finds_reaches_the_others() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let [orders, bills] = orders_and_bills(&issuer).await;
    assert_eq!(send(&orders, &token("a", 0, ORDERS)).await, Ok(()));
    assert_eq!(send(&bills, &token("a", 0, BILLS)).await, Ok(()));
    for _ in 0..3 {
        assert_eq!(send(&bills, &token("a", 0, BILLS)).await, Ok(()));
    }
    issuer.publish(set(&[("b", rsa(1))]));
    // The unknown key causes a refresh.
    assert_eq!(send(&orders, &token("b", 1, ORDERS)).await, Ok(()));
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(send(&bills, &token("b", 1, BILLS)).await, Ok(()));
    // A token that is cached at the other resource, with a key that is withdrawn.
    assert_eq!(send(&bills, &token("a", 0, BILLS)).await, Err(UnknownKey));
    let state = |server: &ResourceServer| server.key_sets()[0].usable_key_count();
    assert_eq!((state(&orders), state(&bills)), (1, 1));
    issuer.set_reply(IssuerReply::Unreachable);
    assert!(orders.refresh_keys().await.is_err());
    let state = bills.key_sets()[0].state();
    assert_ne!(state, KeySetState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_token_for_one_resource_is_rejected_at_the_other() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let [orders, bills] = orders_and_bills(&issuer).await;
    let both = claims_with(json!({ "aud": [ORDERS, BILLS] }));
    for (server, own, foreign) in [(&orders, ORDERS, BILLS), (&bills, BILLS, ORDERS)] {
        // The later ones from the cache of the server that accepts the token.
        for _ in 0..4 {
            let own = token("a", 0, own);
            assert_eq!(send(server, &own).await, Ok(()));
            let foreign = token("a", 0, foreign);
            assert_eq!(send(server, &foreign).await, Err(InvalidAudience));
        }
        assert_eq!(send(server, &with_claims("a", rsa(0), &both)).await, Ok(()));
        let slash = token("a", 0, &format!("{own}/"));
        assert_eq!(send(server, &slash).await, Err(InvalidAudience));
    }
    // Of the other audiences of the first server.
    assert_eq!(send(&orders, &token("a", 0, AUDIENCE)).await, Ok(()));
    let other = token("a", 0, AUDIENCE);
    assert_eq!(send(&bills, &other).await, Err(InvalidAudience));
    // Two of them are used twice at each server: they are cached by both.
    assert_eq!(bills.cached_token_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_rules_of_the_issuer_apply_to_each_resource_and_each_requires_an_audience() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let rules = |trusted: TrustedIssuer| {
        let trusted = trusted.allowed_clients(["shop"]).audience_optional();
        trusted.require_scopes(["orders.read"])
    };
    let orders = builder_with(&issuer, &clock(), rules)
        .start()
        .await
        .unwrap();
    let bills = orders.also(BILLS).unwrap();
    for (changes, at_orders, at_bills) in [
        (json!({ "aud": BILLS }), Some(InvalidAudience), None),
        // Nothing shows for which of them it is.
        (json!({ "aud": null }), None, Some(InvalidClaims)),
        (
            json!({ "aud": [AUDIENCE, BILLS], "client_id": "other" }),
            Some(UntrustedClient),
            Some(UntrustedClient),
        ),
        (
            json!({ "aud": [AUDIENCE, BILLS], "scope": "bills.read" }),
            Some(InsufficientScope),
            Some(InsufficientScope),
        ),
    ] {
        let mut claims = json!({ "client_id": "shop" });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = with_claims("a", rsa(0), &claims_with(claims));
        for (server, expected) in [(&orders, at_orders), (&bills, at_bills)] {
            let found: Option<RejectionKind> = send(server, &token).await.err();
            assert_eq!(found, expected, "{changes}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_revoked_at_one_resource_is_revoked_at_all() {
    for by in [0, 1] {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
        let servers = orders_and_bills(&issuer).await;
        let tokens = [ORDERS, BILLS].map(|audience| token("a", 0, audience));
        for _ in 0..3 {
            for (server, token) in servers.iter().zip(&tokens) {
                assert_eq!(send(server, token).await, Ok(()));
            }
        }
        let name = Issuer::new(support::ISSUER).unwrap();
        assert!(servers[by].revoke_key(&name, "a"));
        for (server, token) in servers.iter().zip(&tokens) {
            assert_eq!(send(server, token).await, Err(RevokedKey));
        }
        assert_eq!(send(&servers[1], &token("b", 1, BILLS)).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_published_as_private_is_revoked_at_all_servers_that_share_it() {
    for found_by in [0, 1] {
        let issuer = ScriptedIssuer::new(set(&[("a", rsa(0)), ("b", rsa(1))]));
        let servers = orders_and_bills(&issuer).await;
        let tokens = [ORDERS, BILLS].map(|audience| token("a", 0, audience));
        // The later ones from the caches.
        for _ in 0..3 {
            for (server, token) in servers.iter().zip(&tokens) {
                assert_eq!(send(server, token).await, Ok(()));
            }
        }
        let mut private = rsa(0).jwk("a");
        private["d"] = json!("AAAA");
        issuer.publish(json!({ "keys": [private, rsa(1).jwk("b")] }));
        servers[found_by].refresh_keys().await.unwrap();
        // It is not in the set, so its `kid` is unknown.
        for (server, token) in servers.iter().zip(&tokens) {
            assert_eq!(send(server, token).await, Err(UnknownKey));
        }
        // Nor is it used without its private part, under any `kid`, or by a later server.
        issuer.publish(set(&[("c", rsa(0)), ("b", rsa(1))]));
        servers[1 - found_by].refresh_keys().await.unwrap();
        let costs = "https://api.example/costs";
        let later = servers[found_by].also(costs).unwrap();
        let [orders, bills] = servers;
        for (server, audience) in [(orders, ORDERS), (bills, BILLS), (later, costs)] {
            let of_compromised_key = token("c", 0, audience);
            assert_eq!(send(&server, &of_compromised_key).await, Err(RevokedKey));
            assert_eq!(send(&server, &token("b", 1, audience)).await, Ok(()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_refresh_goes_on_until_the_last_resource_is_dropped() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let [orders, bills] = orders_and_bills(&issuer).await;
    drop(orders);
    issuer.publish(set(&[("b", rsa(1))]));
    bills.refresh_keys().await.unwrap();
    assert_eq!(send(&bills, &token("b", 1, BILLS)).await, Ok(()));
    assert!(!bills.key_sets()[0].is_refresher_stopped());
    let fetches = issuer.fetches();
    drop(bills);
    tokio::time::sleep(secs(24 * 3600)).await;
    assert_eq!(issuer.fetches(), fetches);
}

#[tokio::test(start_paused = true)]
async fn each_resource_has_its_own_challenges_and_document() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let orders = builder(&issuer, &clock())
        .protected_resource(
            ProtectedResource::new(ORDERS)
                .unwrap()
                .resource_name("Orders"),
        )
        .realm("shop")
        .start()
        .await
        .unwrap();
    let bills = orders.also(BILLS).unwrap();
    let mut app = Router::new();
    for (server, path) in [(&orders, "/orders"), (&bills, "/bills")] {
        let metadata = server.resource_metadata().unwrap();
        let routes = Router::new()
            .route(path, get(async || "ok"))
            .route_layer(server.layer())
            .route_service(metadata.path(), metadata.service());
        app = app.merge(routes);
    }
    let send = async |target: &str| {
        let request = Request::get(target).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).cloned();
        let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, challenge, body)
    };
    for (path, identifier, name) in [
        ("/orders", ORDERS, json!("Orders")),
        ("/bills", BILLS, Value::Null),
    ] {
        let place = format!("/.well-known/oauth-protected-resource{path}");
        let (status, challenge, body) = send(&place).await;
        assert_eq!((status, challenge), (StatusCode::OK, None));
        let document: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(document["resource"], identifier);
        assert_eq!(document["resource_name"], name);
        assert_eq!(document["authorization_servers"], json!([support::ISSUER]));
        let (status, challenge, _) = send(path).await;
        let expected =
            format!(r#"Bearer realm="shop", resource_metadata="https://api.example{place}""#);
        assert_eq!(
            (status, challenge),
            (StatusCode::UNAUTHORIZED, Some(expected))
        );
    }
}

#[test]
fn an_identifier_is_checked_as_by_the_builder() {
    let (https, _refresher) = ResourceServer::for_resource(ORDERS, "https://as.example")
        .build()
        .unwrap();
    let (development, _refresher) = ResourceServer::for_resource(ORDERS, "https://as.example")
        .allow_loopback_http()
        .allow_http(["bills.svc"])
        .build()
        .unwrap();
    for (identifier, at_https, at_development) in [
        (BILLS, true, true),
        ("https://API.example/bills", false, false),
        ("http://127.0.0.1:8081/bills", false, true),
        ("http://bills.svc", false, true),
        ("http://orders.svc", false, false),
    ] {
        for (server, expected) in [(&https, at_https), (&development, at_development)] {
            let also = server.also(identifier);
            assert_eq!(also.is_ok(), expected, "{identifier}");
            assert!(also.is_ok() || also.unwrap_err().setting() == "resource");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_with_another_audience_shares_the_keys_and_has_no_document() {
    let issuer = ScriptedIssuer::new(set(&[("a", rsa(0))]));
    let [orders, _bills] = orders_and_bills(&issuer).await;
    let queue = orders.also_with_audience("orders-queue").unwrap();
    assert!(queue.keys_available() && queue.resource_metadata().is_none());
    assert_eq!(issuer.fetches(), 1);
    for (server, own, foreign) in [
        (&orders, ORDERS, "orders-queue"),
        (&queue, "orders-queue", ORDERS),
    ] {
        let own = token("a", 0, own);
        assert_eq!(send(server, &own).await, Ok(()));
        let foreign = token("a", 0, foreign);
        assert_eq!(send(server, &foreign).await, Err(InvalidAudience));
    }
    let rejection = queue.validate("").await.unwrap_err();
    let challenge = rejection.www_authenticate().unwrap().to_str().unwrap();
    assert!(!challenge.contains("resource_metadata"), "{challenge}");
    assert!(orders.also_with_audience("").is_err());
}
