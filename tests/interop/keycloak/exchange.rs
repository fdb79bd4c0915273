//! Facts about token exchange at Keycloak.

use std::convert::Infallible;

use http::{Request, Response, StatusCode, header};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_oauth::resource_server::{InboundToken, RejectionKind};
use tower_oauth::{Audience, ResourceServer, TokenExchange, TrustedIssuer};

use super::{Keycloak, Realm, assert_contains, assert_refused, kind, merge, start};
use crate::servers::validate;

/// The settings of a client with a mapper that adds another client to `aud`.
fn with_audience(client_id: &str) -> Value {
    let mapper = json!({
        "name": "audience",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": { "included.client.audience": client_id, "access.token.claim": "true" },
    });
    json!({ "protocolMappers": [mapper] })
}

/// The settings of a client that may exchange tokens.
fn exchange_enabled() -> Value {
    json!({ "attributes": { "standard.token.exchange.enabled": "true" } })
}

/// The token that the service behind this resource server gets with a request.
async fn inbound(server: &ResourceServer, token: &str) -> InboundToken {
    let layer = server.layer().keep_token();
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let token = InboundToken::from_request(&request).unwrap().clone();
        let mut response = Response::new(());
        response.extensions_mut().insert(token);
        Ok::<_, Infallible>(response)
    }));
    let request = Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}"));
    let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
    response.extensions().get::<InboundToken>().unwrap().clone()
}

async fn resource_server(realm: &Realm<'_>, audience: &str) -> ResourceServer {
    let audience = Audience::new(audience).unwrap();
    start(TrustedIssuer::new(realm.issuer(), audience)).await
}

/// `shop` calls `orders`, which calls `bills` on its behalf.
pub async fn a_token_is_exchanged_for_a_call_on_behalf_of_its_caller(keycloak: &Keycloak) {
    let realm = keycloak.realm("exchange", json!({})).await;
    realm.client("shop", with_audience("orders")).await;
    let mut orders = with_audience("bills");
    merge(&mut orders, exchange_enabled());
    realm.client("orders", orders).await;
    realm.client("bills", json!({})).await;
    let orders = resource_server(&realm, "orders").await;
    let bills = resource_server(&realm, "bills").await;

    let subject = realm.token("shop").await;
    let caller = validate(&orders, &subject).await.unwrap();
    let rejected = validate(&bills, &subject).await;
    assert_eq!(kind(rejected), Some(RejectionKind::InvalidAudience));
    let inbound = inbound(&orders, &subject).await;
    let to = |audience: &str| {
        let tokens = realm.manager("orders").audience(audience);
        TokenExchange::builder(tokens).build().unwrap()
    };
    let exchange = to("bills");
    let token = exchange.access_token(&inbound).await.unwrap();
    let context = validate(&bills, token.expose_secret()).await.unwrap();
    assert_eq!(context.subject(), caller.subject());
    assert_eq!(context.client_id(), Some("orders"));
    assert!(context.audience().eq(["bills"]));
    // Keycloak gives it a whole lifetime, beyond that of the subject token.
    let expires_at = context.expires_at();
    assert!(inbound.expires_at() <= expires_at && token.expires_at() <= Some(expires_at));
    let again = exchange.access_token(&inbound).await.unwrap();
    assert_eq!(again.expose_secret(), token.expose_secret());

    // `shop` is a client, but no audience of `orders`. `parcels` is no client.
    for (audience, code, description) in [
        (
            "shop",
            "invalid_request",
            "Requested audience not available: shop",
        ),
        ("parcels", "invalid_client", "Audience not found"),
    ] {
        let error = to(audience).access_token(&inbound).await.unwrap_err();
        assert_refused(&error, StatusCode::BAD_REQUEST, code);
        assert_contains(&error.to_string(), &[description]);
    }
    // A token that is not for `orders`.
    realm.client("kiosk", json!({})).await;
    let foreign = InboundToken::new(realm.token("kiosk").await, inbound.expires_at());
    let error = exchange.access_token(&foreign).await.unwrap_err();
    assert_refused(&error, StatusCode::FORBIDDEN, "access_denied");
    assert_contains(
        &error.to_string(),
        &[
            "Client is not within the token audience",
            "is in the `aud` of the subject token",
        ],
    );
    // Without the attribute.
    let kiosk = TokenExchange::builder(realm.manager("kiosk").audience("bills"));
    let error = kiosk.build().unwrap().access_token(&inbound).await;
    let error = error.unwrap_err();
    assert_refused(&error, StatusCode::BAD_REQUEST, "invalid_request");
    assert_contains(
        &error.to_string(),
        &["Standard token exchange is not enabled"],
    );
}

/// The token has no `act`.
pub async fn an_actor_token_is_ignored(keycloak: &Keycloak) {
    let realm = keycloak.realm("actor", json!({})).await;
    realm.client("shop", with_audience("orders")).await;
    let mut orders = with_audience("bills");
    merge(&mut orders, exchange_enabled());
    realm.client("orders", orders).await;
    realm.client("bills", json!({})).await;
    let inbound = inbound(
        &resource_server(&realm, "orders").await,
        &realm.token("shop").await,
    )
    .await;
    let exchange = TokenExchange::builder(realm.manager("orders").audience("bills"));
    let actor = realm.manager("orders").start().unwrap();
    let exchange = exchange.actor(actor).build().unwrap();
    let token = exchange.access_token(&inbound).await.unwrap();
    let bills = resource_server(&realm, "bills").await;
    let context = validate(&bills, token.expose_secret()).await.unwrap();
    assert_eq!(context.claim::<Value>("act").unwrap(), None);
}
