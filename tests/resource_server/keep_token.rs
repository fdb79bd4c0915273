//! The token of an accepted request, which the layer keeps if it is asked to.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::routing::get;
use http::{Request, Response, StatusCode, header};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication};
use tower_oauth::resource_server::{
    Algorithm, AuthContextRejection, InboundToken, ProblemJson, RejectionResponse,
};
use tower_oauth::{AuthContext, ResourceServer, ResourceServerLayer};

use crate::support::{Fixture, claims, log, ok, poll_once_or_panic};

async fn issuer() -> (AuthorizationServer, RegisteredApplication, ResourceServer) {
    let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    let issuer = issuer.build().unwrap();
    let shop = issuer.register("shop").unwrap();
    let orders = ResourceServer::builder(issuer.issuer(), "orders").transport(issuer.transport());
    let orders = orders.start().await.unwrap();
    (issuer, shop, orders)
}

fn request(token: Option<&str>) -> Request<()> {
    let mut request = Request::builder();
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(()).unwrap()
}

/// The inbound token that a handler behind this layer finds, and the status.
async fn kept<R>(
    layer: ResourceServerLayer<R>,
    request: Request<()>,
) -> (StatusCode, Option<(InboundToken, Option<AuthContext>)>)
where
    R: RejectionResponse<String> + Clone,
{
    let found = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&found);
    let handler = service_fn(move |request: Request<()>| {
        let context = AuthContext::from_request(&request).cloned();
        let token = InboundToken::from_request(&request).cloned();
        if let Some(token) = &token {
            assert!(!format!("{request:?}").contains(token.expose_secret()));
        }
        *seen.lock().unwrap() = token.map(|token| (token, context));
        std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
    });
    let response = layer.layer(handler).oneshot(request).await.unwrap();
    let found = found.lock().unwrap().take();
    (response.status(), found)
}

#[tokio::test]
async fn an_accepted_request_has_its_token_only_if_the_layer_keeps_it() {
    let (issuer, shop, orders) = issuer().await;
    let token = issuer.mint(&shop).audience(["orders"]).sign();
    for _ in 0..30 {
        let (status, found) = kept(orders.layer(), request(Some(&token))).await;
        assert!(status == 200 && found.is_none());
        let layer = orders.layer().keep_token();
        let (status, found) = kept(layer.on_rejection(ProblemJson), request(Some(&token))).await;
        let (inbound, context) = found.unwrap();
        assert_eq!(status, 200);
        assert_eq!(inbound.expose_secret(), token);
        assert_eq!(inbound.expires_at(), context.unwrap().expires_at());
        assert!(!format!("{inbound:?}").contains(&token));
    }
    let (status, found) = kept(orders.layer().keep_token(), request(Some("a.b.c"))).await;
    assert!(status == 401 && found.is_none());
}

#[tokio::test]
async fn a_request_that_waited_for_newer_keys_has_its_token() {
    let (issuer, shop, orders) = issuer().await;
    issuer.rotate().unwrap();
    let token = issuer.mint(&shop).audience(["orders"]).sign();
    let mut service = orders
        .layer()
        .keep_token()
        .layer(service_fn(async |request: Request<()>| {
            let kept = InboundToken::from_request(&request).cloned();
            Ok::<_, Infallible>(Response::new(kept))
        }));
    let mut call = Box::pin(service.call(request(Some(&token))));
    let first_poll = call
        .as_mut()
        .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(first_poll.is_pending(), "it waits");
    let kept = call.await.unwrap().into_body().unwrap();
    assert_eq!(kept.expose_secret(), token);
}

/// A request with the token of an outer layer.
fn with_outer_token(token: Option<&str>) -> Request<()> {
    let mut request = request(token);
    let expires_at = tower_oauth::clock::UnixTime::from_secs(4_000_000_000);
    let outer = InboundToken::new("outer", expires_at);
    request.extensions_mut().insert(outer);
    request
}

#[tokio::test]
async fn an_anonymous_request_has_no_token_of_an_outer_layer() {
    let (_issuer, _shop, orders) = issuer().await;
    let anonymous = || orders.layer().allow_anonymous();
    for layer in [anonymous(), anonymous().keep_token()] {
        let (status, found) = kept(layer, with_outer_token(None)).await;
        assert!(status == 200 && found.is_none());
    }
}

#[tokio::test]
async fn an_accepted_request_has_no_token_of_an_outer_layer() {
    let (issuer, shop, orders) = issuer().await;
    let token = issuer.mint(&shop).audience(["orders"]).sign();
    // Verified, and from the caches.
    for _ in 0..30 {
        let (status, found) = kept(orders.layer(), with_outer_token(Some(&token))).await;
        assert!(status == 200 && found.is_none());
        let layer = orders.layer().keep_token();
        let (status, found) = kept(layer, with_outer_token(Some(&token))).await;
        assert_eq!(
            (status.as_u16(), found.unwrap().0.expose_secret()),
            (200, &*token)
        );
    }
}

#[tokio::test]
async fn the_extractor_needs_a_layer_that_keeps_the_token() {
    log::clear_log();
    let (issuer, shop, orders) = issuer().await;
    let token = issuer.mint(&shop).audience(["orders"]).sign();
    let handler = async |kept: Result<InboundToken, AuthContextRejection>| match kept {
        Ok(kept) => (StatusCode::OK, kept.expose_secret().to_owned()),
        Err(rejection) => (rejection.status(), String::new()),
    };
    let app = || axum::Router::new().route("/", get(handler));
    let layer = || orders.layer().allow_anonymous();
    for (app, token, expected) in [
        (app().layer(layer().keep_token()), Some(&token), 200),
        (app().layer(layer().keep_token()), None, 401),
        (app().layer(layer()), Some(&token), 500),
        (app(), Some(&token), 500),
    ] {
        let request = request(token.map(String::as_str)).map(|()| Body::empty());
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected);
        let body = axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .unwrap();
        let sent = if expected == 200 {
            token.map_or("", |token| token)
        } else {
            ""
        };
        assert_eq!(body, sent);
    }
    // Once a minute.
    assert_eq!(log::count("ERROR"), 1);
    assert!(log::logged(
        "a handler that extracts `InboundToken` needs `keep_token()` on the `ResourceServerLayer`"
    ));
}

/// The token, what its clones share, and its place in the extensions.
#[test]
fn keeping_the_token_takes_three_more_allocations_per_request() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    let allocations = |layer: ResourceServerLayer| {
        let mut service = layer.layer(service_fn(ok));
        let taken = (0..40).map(|_| {
            let request = request(Some(&token));
            let taken = allocation_counter::measure(|| {
                drop(poll_once_or_panic(service.call(request)).unwrap());
            });
            taken.count_total
        });
        taken.min().unwrap()
    };
    let without = allocations(fixture.server.layer());
    assert_eq!(without, 3);
    assert_eq!(
        allocations(fixture.server.layer().keep_token()),
        without + 3
    );
}
