//! Facts about tokens and keys of Keycloak.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::get;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::error::ErrorKind;
use tower_oauth::key_set::{KeySetStatus, RefreshPolicy};
use tower_oauth::resource_server::{RejectionKind, TokenProfile};
use tower_oauth::{
    Audience, ClientCredentials, Error, Issuer, Origin, ResourceServer, TokenManager, TrustedIssuer,
};

use super::{
    AUDIENCE, Keycloak, Realm, SECRET, assert_contains, audience_mapper, jose_header, kind, merge,
    start, with_attribute, with_audience,
};
use crate::servers::{eventually, validate, warnings};

/// A setting that Keycloak's administrators find in a client's advanced settings.
const LIGHTWEIGHT: &str = "client.use.lightweight.access.token.enabled";

/// Without a mapper, `aud` is `account`: the roles that every service account has.
pub async fn an_audience_mapper_or_a_client_role_sets_the_audience(keycloak: &Keycloak) {
    let realm = keycloak.realm("audience", json!({})).await;
    realm.client("without", json!({})).await;
    realm.client("mapped", with_audience()).await;
    realm.client("by-role", json!({})).await;
    let orders = realm.client(AUDIENCE, json!({})).await;
    grant_client_role(&realm, "by-role", &orders, "reader").await;
    let server = realm.resource_server().await;
    let without = realm.token("without").await;
    let log = warnings(&server, &without).await;
    let audiences = [r#"["orders"]"#, r#"["account"]"#];
    assert_contains(&log, &["invalid_audience"]);
    assert_contains(&log, &audiences);
    let explanation = server.explain(&without).to_string();
    assert_contains(&explanation, &audiences);
    assert_contains(&explanation, &["Keycloak: add an audience mapper"]);
    let without = validate(&server, &without).await;
    assert_eq!(kind(without), Some(RejectionKind::InvalidAudience));
    for client_id in ["mapped", "by-role"] {
        let context = validate(&server, &realm.token(client_id).await).await;
        let context = context.unwrap_or_else(|kind| panic!("{client_id}: {kind}"));
        assert_eq!(context.client_id(), Some(client_id));
        let audience: Vec<_> = context.audience().collect();
        assert_eq!(audience, [AUDIENCE, "account"], "{client_id}");
    }
}

/// Keycloak creates a key for an algorithm when a client first uses it.
pub async fn tokens_of_every_supported_algorithm_are_accepted(keycloak: &Keycloak) {
    const ALGORITHM: &str = "access.token.signed.response.alg";
    let realm = keycloak.realm("algorithms", json!({})).await;
    let server = realm.resource_server().await;
    for algorithm in [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    ] {
        realm
            .client(algorithm, with_attribute(ALGORITHM, algorithm))
            .await;
        let token = realm.token(algorithm).await;
        assert_eq!(jose_header(&token)["alg"], algorithm);
        // The key is new. The rate limit of on-demand refreshes is not the subject.
        server.refresh_keys().await.unwrap();
        let context = validate(&server, &token).await;
        let context = context.unwrap_or_else(|kind| panic!("{algorithm}: {kind}"));
        assert_eq!(context.client_id(), Some(algorithm));
    }
    realm
        .client("HS256", with_attribute(ALGORITHM, "HS256"))
        .await;
    let symmetric = validate(&server, &realm.token("HS256").await).await;
    assert_eq!(kind(symmetric), Some(RejectionKind::UnsupportedAlgorithm));
    // A key that is not supported spoils no other.
    let ed448 = json!({ "eddsaEllipticCurveKey": ["Ed448"] });
    realm.key("eddsa-generated", 200, ed448).await;
    let accepted = realm.token("ES256").await;
    let rejected = realm.token("EdDSA").await;
    server.refresh_keys().await.unwrap();
    assert_eq!(kind(validate(&server, &accepted).await), None);
    assert_eq!(
        kind(validate(&server, &rejected).await),
        Some(RejectionKind::UnknownKey)
    );
    let status: KeySetStatus = server.key_sets().swap_remove(0);
    let kid = jose_header(&rejected)["kid"].as_str().unwrap().to_owned();
    let mut skipped = status.skipped();
    assert!(skipped.any(|key| key.kid() == Some(&kid)), "{status:?}");
}

pub async fn an_rfc_9068_token_passes_the_strict_profile_and_another_does_not(keycloak: &Keycloak) {
    let realm = keycloak.realm("profile", json!({})).await;
    let rfc_9068 = with_attribute("access.token.header.type.rfc9068", "true");
    realm.client("rfc-9068", rfc_9068).await;
    realm.client("jwt", with_audience()).await;
    let strict = start(realm.trusted().profile(TokenProfile::Rfc9068)).await;
    let token = realm.token("rfc-9068").await;
    assert_eq!(jose_header(&token)["typ"], "at+jwt");
    let context = validate(&strict, &token).await.unwrap();
    assert_eq!(context.client_id(), Some("rfc-9068"));
    let jwt = realm.token("jwt").await;
    assert_eq!(
        kind(validate(&strict, &jwt).await),
        Some(RejectionKind::UnexpectedTokenType)
    );
    let lenient = realm.resource_server().await;
    for token in [token, jwt] {
        assert_eq!(kind(validate(&lenient, &token).await), None);
    }
}

/// A lightweight token has no `aud`, unless the mapper's setting `lightweight.claim` is on.
pub async fn a_lightweight_token_is_rejected_until_its_mapper_sets_the_audience(
    keycloak: &Keycloak,
) {
    let realm = keycloak.realm("lightweight", json!({})).await;
    let client = realm
        .client("shop", with_attribute(LIGHTWEIGHT, "true"))
        .await;
    let server = realm.resource_server().await;
    let rejected = realm.token("shop").await;
    let log = warnings(&server, &rejected).await;
    assert_contains(&log, &["invalid_claims", "no aud"]);
    let explanation = server.explain(&rejected).to_string();
    assert_contains(&explanation, &["Always use lightweight access token"]);
    let rejected = validate(&server, &rejected).await;
    assert_eq!(kind(rejected), Some(RejectionKind::InvalidClaims));
    let path = format!("/clients/{client}/protocol-mappers/models");
    let mut mapper = realm.get(&path).await[0].take();
    mapper["config"]["lightweight.claim"] = json!("true");
    let id = mapper["id"].as_str().unwrap().to_owned();
    realm.put(&format!("{path}/{id}"), mapper).await;
    let context = validate(&server, &realm.token("shop").await).await.unwrap();
    assert_eq!(context.client_id(), Some("shop"));
    assert!(context.audience().eq([AUDIENCE]));
}

pub async fn realm_and_client_roles_are_in_the_context(keycloak: &Keycloak) {
    let realm = keycloak.realm("roles", json!({})).await;
    let shop = realm.client("shop", with_audience()).await;
    let orders = realm.client(AUDIENCE, json!({})).await;
    realm.post("/roles", json!({ "name": "auditor" })).await;
    let role = realm.get("/roles/auditor").await;
    let user = service_account(&realm, &shop).await;
    let path = format!("/users/{user}/role-mappings/realm");
    realm.post(&path, json!([role])).await;
    grant_client_role(&realm, "shop", &orders, "reader").await;
    let server = realm.resource_server().await;
    let context = validate(&server, &realm.token("shop").await).await.unwrap();
    assert!(context.has_role("auditor"));
    assert!(!context.has_role("reader"), "a role of the client alone");
    let realm_access: Value = context.claim("realm_access").unwrap().unwrap();
    let roles = realm_access["roles"].as_array().unwrap();
    assert!(roles.contains(&json!("auditor")), "{roles:?}");
    let resource_access: Value = context.claim("resource_access").unwrap().unwrap();
    assert_eq!(resource_access[AUDIENCE]["roles"], json!(["reader"]));
}

pub async fn a_client_scope_is_in_a_token_by_default_or_on_request(keycloak: &Keycloak) {
    let realm = keycloak.realm("scopes", json!({})).await;
    let shop = realm.client("shop", with_audience()).await;
    for (name, kind) in [("orders.read", "default"), ("orders.write", "optional")] {
        let attributes = json!({ "include.in.token.scope": "true" });
        let scope = json!({ "name": name, "protocol": "openid-connect", "attributes": attributes });
        let id = realm.post("/client-scopes", scope).await;
        let path = format!("/clients/{shop}/{kind}-client-scopes/{id}");
        realm.put(&path, json!({})).await;
    }
    let unassigned = json!({ "name": "orders.delete", "protocol": "openid-connect" });
    realm.post("/client-scopes", unassigned).await;
    let server = realm.resource_server().await;
    let scopes = async |requested: &[&str]| {
        let tokens = realm.manager("shop").scopes(requested.iter().copied());
        let token = tokens.start().unwrap().access_token().await?;
        let context = validate(&server, token.expose_secret()).await.unwrap();
        let mut scopes: Vec<_> = context.scopes().map(str::to_owned).collect();
        scopes.sort();
        Ok::<_, Error>(scopes)
    };
    let by_default = ["email", "orders.read", "profile"];
    assert_eq!(scopes(&[]).await.unwrap(), by_default);
    let on_request = ["email", "orders.read", "orders.write", "profile"];
    assert_eq!(scopes(&["orders.write"]).await.unwrap(), on_request);
    let error = scopes(&["orders.delete"]).await.unwrap_err();
    let code = error.oauth_error().map(|error| error.code());
    assert_eq!(code, Some("invalid_scope"));
}

pub async fn an_optional_scope_with_a_mapper_is_the_only_audience_of_a_token(keycloak: &Keycloak) {
    let realm = keycloak.realm("audience-scopes", json!({})).await;
    let shop = realm.client("shop", json!({})).await;
    let audiences = [AUDIENCE, "orders-queue"];
    for audience in audiences {
        let mut mapper = audience_mapper();
        mapper["config"]["included.custom.audience"] = json!(audience);
        let name = format!("to-{audience}");
        let scope =
            json!({ "name": name, "protocol": "openid-connect", "protocolMappers": [mapper] });
        let id = realm.post("/client-scopes", scope).await;
        let path = format!("/clients/{shop}/optional-client-scopes/{id}");
        realm.put(&path, json!({})).await;
    }
    let server = |audience: &'static str| {
        let audience = Audience::new(audience).unwrap();
        start(TrustedIssuer::new(realm.issuer(), audience))
    };
    let [orders, queue] = audiences.map(server);
    let (orders, queue) = (orders.await, queue.await);
    for (requested, accepts, rejects) in [
        ("to-orders", &orders, &queue),
        ("to-orders-queue", &queue, &orders),
    ] {
        let tokens = realm.manager("shop").scope(requested).start().unwrap();
        let token = tokens.access_token().await.unwrap();
        assert!(
            validate(accepts, token.expose_secret()).await.is_ok(),
            "{requested}"
        );
        let rejected = validate(rejects, token.expose_secret()).await;
        assert_eq!(kind(rejected), Some(RejectionKind::InvalidAudience));
    }
}

/// With the slash at the end that a copied URL may have.
pub async fn the_presets_of_both_ends_accept_access_tokens_and_no_others(keycloak: &Keycloak) {
    let realm = keycloak.realm("presets", json!({})).await;
    let mut shop = with_audience();
    merge(&mut shop, json!({ "directAccessGrantsEnabled": true }));
    realm.client("shop", shop).await;
    let rfc_9068 = with_attribute("access.token.header.type.rfc9068", "true");
    realm.client("rfc-9068", rfc_9068).await;
    let url = format!("{}/", keycloak.base());
    let preset = |audience: &str| TrustedIssuer::keycloak(&url, "presets", audience).unwrap();
    let server = start(preset(AUDIENCE)).await;
    for client_id in ["shop", "rfc-9068"] {
        let client = ClientCredentials::new(client_id, SECRET);
        let tokens = TokenManager::keycloak(&url, "presets", client).unwrap();
        let tokens = tokens.allow_loopback_http().start().unwrap();
        let token = tokens.access_token().await.unwrap();
        let context = validate(&server, token.expose_secret()).await.unwrap();
        assert_eq!(context.client_id(), Some(client_id));
        assert_eq!(context.claim("typ").unwrap(), Some("Bearer".to_owned()));
        assert!(context.has_scope("profile"));
        assert!(context.has_role("default-roles-presets"));
    }
    let other = keycloak.realm("another", json!({})).await;
    other.client("shop", with_audience()).await;
    let other = validate(&server, &other.token("shop").await).await;
    assert_eq!(kind(other), Some(RejectionKind::UntrustedIssuer));

    let ada = json!({
        "username": "ada", "enabled": true, "email": "ada@shop.example", "emailVerified": true,
        "firstName": "Ada", "lastName": "Lovelace",
        "credentials": [{ "type": "password", "value": "p4ssword", "temporary": false }],
    });
    realm.post("/users", ada).await;
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("grant_type", "password"), ("scope", "openid")])
        .extend_pairs([("client_id", "shop"), ("client_secret", SECRET)])
        .extend_pairs([("username", "ada"), ("password", "p4ssword")])
        .finish();
    let endpoint = format!("{}/protocol/openid-connect/token", realm.issuer());
    let login = keycloak.http.post(endpoint);
    let login = login.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let login = login.body(form).send().await.unwrap().text().await.unwrap();
    let login: Value = serde_json::from_str(&login).unwrap();
    let token = |name: &str| login[name].as_str().expect(name).to_owned();
    let context = validate(&server, &token("access_token")).await.unwrap();
    assert_eq!(context.client_id(), Some("shop"));
    // The audience of an ID token is the client.
    let for_client = start(preset("shop")).await;
    for (name, expected) in [
        ("id_token", RejectionKind::UnexpectedTokenType),
        ("refresh_token", RejectionKind::UnsupportedAlgorithm),
    ] {
        let rejected = validate(&for_client, &token(name)).await;
        assert_eq!(kind(rejected), Some(expected), "{name}");
    }
}

/// The id of a client's service account.
async fn service_account(realm: &Realm<'_>, client: &str) -> String {
    let path = format!("/clients/{client}/service-account-user");
    realm.get(&path).await["id"].as_str().unwrap().to_owned()
}

/// Gives the service account of a client a new role of another client.
async fn grant_client_role(realm: &Realm<'_>, client_id: &str, of: &str, name: &str) {
    let client = realm.get(&format!("/clients?clientId={client_id}")).await;
    let user = service_account(realm, client[0]["id"].as_str().unwrap()).await;
    let roles = format!("/clients/{of}/roles");
    realm.post(&roles, json!({ "name": name })).await;
    let role = realm.get(&format!("{roles}/{name}")).await;
    let path = format!("/users/{user}/role-mappings/clients/{of}");
    realm.post(&path, json!([role])).await;
}

pub async fn a_secret_of_reserved_characters_is_sent_form_urlencoded(keycloak: &Keycloak) {
    let realm = keycloak.realm("secret", json!({})).await;
    let client_id = "https://shop.example/+%";
    realm.client(client_id, with_audience()).await;
    let server = realm.resource_server().await;
    let request = async |credentials| {
        let manager = TokenManager::for_issuer(realm.issuer(), credentials).unwrap();
        let manager = manager.allow_loopback_http().start().unwrap();
        manager.access_token().await
    };
    let credentials = |secret: &str| ClientCredentials::new(client_id, secret);
    for credentials in [
        credentials(SECRET),
        credentials(SECRET).client_secret_post(),
    ] {
        let token = request(credentials.clone()).await;
        let token = token.unwrap_or_else(|error| panic!("{credentials:?}: {error}"));
        let context = validate(&server, token.expose_secret()).await.unwrap();
        assert_eq!(context.client_id(), Some(client_id));
    }
    // Keycloak's code for a wrong secret is not `invalid_client`.
    let error = request(credentials("another")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(error.oauth_error().unwrap().code(), "unauthorized_client");
}

/// Keycloak names itself after the Host header, unless a host name is set.
pub async fn localhost_is_another_issuer_than_its_address(keycloak: &Keycloak) {
    let realm = keycloak.realm("localhost", json!({})).await;
    realm.client("shop", with_audience()).await;
    let audience = || Audience::new(AUDIENCE).unwrap();
    let localhost = start(TrustedIssuer::new(realm.localhost(), audience())).await;
    assert!(localhost.keys_available(), "the metadata name localhost");
    let rejected = realm.token("shop").await;
    let explanation = localhost.explain(&rejected).to_string();
    let names = [realm.issuer(), realm.localhost()];
    assert_contains(&explanation, &names.each_ref().map(Issuer::as_str));
    assert_contains(
        &explanation,
        &["Keycloak names itself after the Host header"],
    );
    let rejected = validate(&localhost, &rejected).await;
    assert_eq!(kind(rejected), Some(RejectionKind::UntrustedIssuer));
    // With a host name, the metadata name the issuer.
    let attributes = json!({ "attributes": { "frontendUrl": keycloak.base() } });
    let named = keycloak.realm("named", attributes).await;
    named.client("shop", with_audience()).await;
    let localhost = start(TrustedIssuer::new(named.localhost(), audience())).await;
    assert!(!localhost.keys_available());
    let status = localhost.key_sets().swap_remove(0);
    let client = ClientCredentials::new("shop", SECRET);
    let manager = TokenManager::for_issuer(named.localhost(), client).unwrap();
    let manager = manager.allow_loopback_http().start().unwrap();
    let token_error = manager.access_token().await.unwrap_err();
    for error in [status.last_error().unwrap(), &token_error] {
        assert_eq!(error.kind(), ErrorKind::IssuerMismatch);
        let text = error.to_string();
        for issuer in [named.localhost(), named.issuer()] {
            assert!(text.contains(issuer.as_str()), "{text}");
        }
    }
    let server = named.resource_server().await;
    assert_eq!(
        kind(validate(&server, &named.token("shop").await).await),
        None
    );
}

/// The identifier of RFC 9728 as `aud`: without `resource` by an audience mapper, and as the only
/// audience by `resource` (RFC 8707). For the latter, Keycloak has to know the resource as a client
/// that is among the audiences of the token. Without the attribute about refresh tokens, 26.7.3
/// responds with 500 to client credentials.
pub async fn the_resource_identifier_is_the_audience_by_a_mapper_and_by_resource_indicators(
    keycloak: &Keycloak,
) {
    const RESOURCE: &str = "https://api.example/orders";
    let realm = keycloak.realm("resource", json!({})).await;
    let mapper = |setting: &str, audience: &str| {
        let mut mapper = audience_mapper();
        mapper["config"] = json!({ setting: audience, "access.token.claim": "true" });
        json!({ "protocolMappers": [mapper] })
    };
    let by_mapper = mapper("included.custom.audience", RESOURCE);
    realm.client("mapped", by_mapper).await;
    let resource = json!({ "attributes": { "resource_url": RESOURCE } });
    realm.client("orders-api", resource).await;
    let mut by_resource = mapper("included.client.audience", "orders-api");
    let attributes = json!({ "client_credentials.use_refresh_token": "true" });
    merge(&mut by_resource, json!({ "attributes": attributes }));
    realm.client("asks", by_resource).await;

    let server = ResourceServer::for_resource(RESOURCE, realm.issuer());
    let server = server.allow_loopback_http().start().await.unwrap();
    let token = realm.token("mapped").await;
    let context = validate(&server, &token).await.unwrap();
    assert!(context.audience().any(|audience| audience == RESOURCE));

    let request = async |resource: &str| {
        let manager = realm.manager("asks").resource(resource).start().unwrap();
        manager.access_token().await
    };
    let token = request(RESOURCE).await.unwrap();
    let context = validate(&server, token.expose_secret()).await.unwrap();
    assert!(context.audience().eq([RESOURCE]));
    assert_eq!(context.client_id(), Some("asks"));
    // For another resource of the same process, the same token is for another audience.
    let bills = server.also("https://api.example/bills").unwrap();
    let rejected = validate(&bills, token.expose_secret()).await;
    assert_eq!(kind(rejected), Some(RejectionKind::InvalidAudience));

    let error = request("https://api.example/orders/").await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_target");
}

pub async fn a_key_of_higher_priority_signs_new_tokens_and_old_tokens_stay_valid(
    keycloak: &Keycloak,
) {
    let realm = keycloak.realm("rotation", json!({})).await;
    realm.client("shop", with_audience()).await;
    let server = realm.resource_server().await;
    let old = realm.token("shop").await;
    assert_eq!(kind(validate(&server, &old).await), None);
    realm.key("rsa-generated", 200, json!({})).await;
    let new = realm.token("shop").await;
    assert_ne!(jose_header(&new)["kid"], jose_header(&old)["kid"]);
    let before = server.key_sets().swap_remove(0).generation();
    // The unknown key causes a refresh, and the request waits for it.
    assert_eq!(kind(validate(&server, &new).await), None);
    assert_eq!(server.key_sets().swap_remove(0).generation(), before + 1);
    assert_eq!(kind(validate(&server, &old).await), None);
}

pub async fn tokens_of_a_withdrawn_key_are_rejected_after_a_refresh(keycloak: &Keycloak) {
    let realm = keycloak.realm("withdrawn", json!({})).await;
    realm.client("shop", with_audience()).await;
    let id = realm.key("rsa-generated", 200, json!({})).await;
    let server = realm.resource_server().await;
    let old = realm.token("shop").await;
    assert_eq!(kind(validate(&server, &old).await), None);
    let path = format!("/components/{id}");
    let mut key = realm.get(&path).await;
    merge(
        &mut key["config"],
        json!({ "enabled": ["false"], "active": ["false"] }),
    );
    realm.put(&path, key).await;
    let new = realm.token("shop").await;
    assert_ne!(jose_header(&new)["kid"], jose_header(&old)["kid"]);
    server.refresh_keys().await.unwrap();
    assert_eq!(
        kind(validate(&server, &old).await),
        Some(RejectionKind::UnknownKey)
    );
    assert_eq!(kind(validate(&server, &new).await), None);
}

/// Key refreshes and a renewal of the token are due during the restart.
pub async fn a_restart_fails_no_call(keycloak: &Keycloak) {
    let realm = keycloak
        .realm("restart", json!({ "accessTokenLifespan": 600 }))
        .await;
    realm.client("shop", with_audience()).await;
    let second = Duration::from_secs(1);
    let refresh = RefreshPolicy::new().min_interval(second).interval(second);
    let server = start(realm.trusted().refresh(refresh)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let orders = axum::Router::new().route("/orders", get(async || "orders"));
    let orders = orders.layer(server.layer());
    let serving = tokio::spawn(async { axum::serve(listener, orders).await });

    let tokens = realm.manager("shop").start().unwrap();
    let client = ServiceBuilder::new()
        .layer(tokens.layer([Origin::new(&origin).unwrap()]))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let stopped = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (client, url) = (client.clone(), format!("{origin}/orders"));
            let (stopped, calls) = (Arc::clone(&stopped), Arc::clone(&calls));
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let request = Request::get(&url).body(Full::default()).unwrap();
                    match client.clone().oneshot(request).await {
                        Ok(response) if response.status() == StatusCode::OK => {}
                        other => failed.push(format!("{other:?}")),
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                failed
            })
        })
        .collect();

    let first = tokens.access_token().await.unwrap();
    let status = || server.key_sets().swap_remove(0);
    keycloak.stop().await;
    eventually("a refresh fails", 30 * second, async || {
        status().consecutive_failures() > 0
    })
    .await;
    // The next calls ask for a new token, which cannot be had.
    assert!(tokens.invalidate(&first));
    assert_eq!(tokens.invalidate_and_wait(&first).await.map(|_| ()), None);
    let current = tokens.access_token().await.unwrap();
    assert_eq!(current.expose_secret(), first.expose_secret());
    let during = calls.load(Ordering::Relaxed);
    keycloak.run().await;
    assert!(calls.load(Ordering::Relaxed) > during + 100);
    eventually("the token is renewed", 120 * second, async || {
        let token = tokens.access_token().await.unwrap();
        token.expose_secret() != first.expose_secret()
    })
    .await;
    server.refresh_keys().await.unwrap();
    eventually("calls have the new token", 30 * second, async || {
        calls.load(Ordering::Relaxed) > during + 200
    })
    .await;
    assert_eq!(status().consecutive_failures(), 0);
    stopped.store(true, Ordering::Relaxed);
    for caller in callers {
        let failed = caller.await.unwrap();
        assert!(failed.is_empty(), "{failed:#?}");
    }
    serving.abort();
}
