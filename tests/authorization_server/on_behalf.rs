//! A service calls another one on behalf of its caller: a resource server that keeps the token, a
//! token exchange (RFC 8693), and a second resource server. All calls are over loopback.

use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_oauth::authorization_server::{
    AuthorizationServer, EndpointKind, Fault, RegisteredApplication,
};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::resource_server::{Algorithm, InboundToken};
use tower_oauth::{AuthContext, ResourceServer, TokenExchange, TokenManager};

use crate::assertion::NOW;

/// `shop` calls `orders`, which calls `bills` on its behalf.
struct Services {
    issuer: AuthorizationServer,
    clock: ManualClock,
    shop: RegisteredApplication,
    orders: RegisteredApplication,
    exchange: TokenExchange,
    http: reqwest::Client,
    orders_url: String,
}

/// What the handler of `orders` needs.
#[derive(Clone)]
struct Orders {
    exchange: TokenExchange,
    http: reqwest::Client,
    bills_url: String,
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, app).into_future());
    url
}

/// What `bills` knows about a call.
async fn bills(caller: AuthContext) -> Json<Value> {
    Json(json!({
        "sub": caller.subject(),
        "client_id": caller.client_id(),
        "act": caller.claim::<Value>("act").unwrap(),
    }))
}

async fn orders(State(orders): State<Orders>, inbound: InboundToken) -> (StatusCode, Json<Value>) {
    let token = match orders.exchange.access_token(&inbound).await {
        Ok(token) => token,
        Err(error) => return (StatusCode::BAD_GATEWAY, Json(json!(error.to_string()))),
    };
    let call = orders.http.get(&orders.bills_url);
    let call = call.header("authorization", token.header_value());
    let response = call.send().await.unwrap();
    let status = response.status();
    (status, Json(response.json().await.unwrap_or_default()))
}

impl Services {
    async fn new() -> Self {
        let clock = ManualClock::at(UnixTime::from_secs(NOW));
        let issuer = AuthorizationServer::builder()
            .algorithm(Algorithm::Es256)
            .clock(clock.clone())
            .build()
            .unwrap();
        let (shop, orders_client) = (issuer.register("shop"), issuer.register("orders"));
        let (shop, orders_client) = (shop.unwrap(), orders_client.unwrap());
        let resource_server = async |audience: &str| {
            ResourceServer::builder(issuer.issuer(), audience)
                .transport(issuer.transport())
                .clock(clock.clone())
                .start()
                .await
                .unwrap()
        };
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let app = Router::new().route("/", get(bills));
        let bills_url = serve(app.layer(resource_server("bills").await.layer())).await;
        let tokens = TokenManager::builder(issuer.token_endpoint(), orders_client.credentials());
        let tokens = tokens.audience("bills").transport(issuer.transport());
        let tokens = tokens.clock(clock.clone());
        let exchange = TokenExchange::builder(tokens).build().unwrap();
        let state = Orders {
            exchange: exchange.clone(),
            http: http.clone(),
            bills_url,
        };
        let app = Router::new().route("/", get(orders)).with_state(state);
        let layer = resource_server(orders_client.client_id()).await.layer();
        let orders_url = serve(app.layer(layer.keep_token())).await;
        Self {
            issuer,
            clock,
            shop,
            orders: orders_client,
            exchange,
            http,
            orders_url,
        }
    }

    /// A token of a client for `orders`.
    fn token(&self, client: &RegisteredApplication, seconds: u64) -> String {
        let mint = self.issuer.mint(client);
        mint.audience([self.orders.client_id()])
            .expires_in(Duration::from_secs(seconds))
            .sign()
    }

    /// Sends these tokens to `orders` at the same time.
    async fn call(&self, tokens: impl IntoIterator<Item = &String>) -> Vec<(StatusCode, Value)> {
        let mut calls = JoinSet::new();
        for token in tokens {
            let call = self.http.get(&self.orders_url).bearer_auth(token);
            calls.spawn(async {
                let response = call.send().await.unwrap();
                let status = response.status();
                (status, response.json().await.unwrap_or_default())
            });
        }
        calls.join_all().await
    }

    /// What `bills` sees for a call on behalf of this client.
    fn seen(&self, client: &RegisteredApplication) -> Value {
        json!({
            "sub": client.client_id(),
            "client_id": self.orders.client_id(),
            "act": { "sub": self.orders.client_id() },
        })
    }

    fn exchanges(&self) -> usize {
        self.issuer.requests(EndpointKind::Token)
    }
}

#[tokio::test]
async fn the_callee_sees_the_caller_as_subject_and_the_service_between_as_actor() {
    let services = Services::new().await;
    let token = services.token(&services.shop, 600);
    let calls = services.call([&token]).await;
    assert_eq!(calls, [(StatusCode::OK, services.seen(&services.shop))]);
    // Without the exchange, `bills` is not called.
    services
        .issuer
        .fail_next(EndpointKind::Token, 1, Fault::InvalidClient);
    let calls = services.call([&services.token(&services.shop, 601)]).await;
    let (status, message) = &calls[0];
    assert_eq!(*status, StatusCode::BAD_GATEWAY);
    assert!(message.as_str().unwrap().contains("invalid_client"));
    assert!(!message.as_str().unwrap().contains(&token));
}

#[tokio::test]
async fn a_hundred_calls_at_the_same_time_cause_one_exchange_for_each_subject_token() {
    let services = Services::new().await;
    // So that all calls have come before the first exchange ends.
    let delay = Fault::Latency(Duration::from_secs(1));
    services.issuer.fail(EndpointKind::Token, delay);
    let token = services.token(&services.shop, 600);
    let calls = services.call([&token; 100]).await;
    assert_eq!(calls.len(), 100);
    for call in calls {
        assert_eq!(call, (StatusCode::OK, services.seen(&services.shop)));
    }
    assert_eq!(services.exchanges(), 1);
    // Of two callers, each has its own.
    let till = services.issuer.register("till").unwrap();
    let tokens = [token, services.token(&till, 600)];
    let calls = services.call(tokens.iter().cycle().take(100)).await;
    for client in [&services.shop, &till] {
        let expected = (StatusCode::OK, services.seen(client));
        let of_client = calls.iter().filter(|call| **call == expected);
        assert_eq!(of_client.count(), 50);
    }
    assert_eq!(services.exchanges(), 2);
    assert_eq!(services.exchange.cached_token_count(), 2);
}

#[tokio::test]
async fn the_exchanged_token_is_cached_no_longer_than_the_callers_token_is_valid() {
    let services = Services::new().await;
    let [short, long] = [60, 600].map(|seconds| services.token(&services.shop, seconds));
    let statuses = async || {
        let mut statuses = Vec::new();
        for token in [&short, &long] {
            statuses.push(services.call([token]).await[0].0.as_u16());
        }
        statuses
    };
    assert_eq!(statuses().await, [200, 200]);
    services.clock.advance(Duration::from_secs(50));
    assert_eq!(statuses().await, [200, 200]);
    assert_eq!(services.exchange.cached_token_count(), 2);
    assert_eq!(services.exchanges(), 2);
    services.clock.advance(Duration::from_secs(10));
    assert_eq!(services.exchange.cached_token_count(), 1);
    // The resource server still accepts a token that expired less than a minute ago, but an
    // exchange for it is another request, which is refused.
    assert_eq!(statuses().await, [502, 200]);
    assert_eq!(services.exchanges(), 3);
    services.clock.advance(Duration::from_secs(60));
    assert_eq!(statuses().await, [401, 200]);
    assert_eq!(services.exchanges(), 3);
    services.clock.advance(Duration::from_secs(600));
    assert_eq!(services.exchange.cached_token_count(), 0);
}
