//! The whole story in one command: `cargo run --example app_to_app`.
//!
//! One process plays all three parts, each on a loopback port of its own: the authorization
//! server, the protected resource `orders`, and the calling application `shop`.
//!
//! With `--stay` it goes on running, so that one can play with it: in the authorization server's
//! dashboard, or with `curl`.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt as _};
use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind, RegisteredApplication};
use tower_oauth::{
    Audience, AuthContext, BoxError, Endpoint, RequireScopeLayer, ResourceServer, Scope,
    TokenManager,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let stays = stays(std::env::args().skip(1))?;
    println!("tower-oauth: an application calls another one, and nobody is there to log in.\n");

    // 1. A development authorization server; yours is App ID, Keycloak, Entra, Auth0, Okta, Cognito
    //    …
    let listening = AuthorizationServer::builder().bind(0).await?;
    let server = listening.server().clone();
    tokio::spawn(listening.serve(std::future::pending()));
    step("The authorization server starts");
    tell("issuer", server.issuer());
    tell("dashboard", format!("{}/", server.base_url()));

    // 2. Two applications, as the App ID guide registers them.
    let orders = server.register("orders")?;
    let shop = server.register("shop")?;
    step("Two applications are registered");
    tell("orders", orders.client_id());
    tell("shop", shop.client_id());

    // 3. The protected resource: it knows the issuer and who it is itself, and no secret.
    let resource = orders
        .binding()?
        .resource_server()?
        .allow_loopback_http()
        .start()
        .await?;
    let url = serve_orders(&resource).await?;
    step("orders starts behind ResourceServerLayer");
    tell("address", &url);
    for keys in resource.key_sets() {
        tell(
            "key set",
            format!("{}, {} key", keys.state().as_str(), keys.usable_keys()),
        );
    }

    // 4. The caller: its token manager asks for a token once, the layer puts it on each request.
    let tokens = manager(&server, &shop, &orders)?.start()?;
    let plain = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let client = ServiceBuilder::new()
        .layer(tokens.layer([Endpoint::new(&url)?]))
        .service(plain.clone());
    step("shop calls orders");
    let (status, body) = call(&client, get_request(&url, "/protected_resource")).await?;
    tell(&status.to_string(), &body);
    expect(status == StatusCode::OK)?;
    let (_, body) = call(&client, get_request(&url, "/caller")).await?;
    tell("orders sees", &body);
    for _ in 0..99 {
        expect(
            call(&client, get_request(&url, "/protected_resource"))
                .await?
                .0
                == StatusCode::OK,
        )?;
    }
    tell(
        "101 calls",
        format!("{} token request", server.requests(EndpointKind::Token)),
    );

    // 5. Who is turned away, and what it is told.
    step("Others are turned away");
    refused(
        &plain,
        "no token",
        get_request(&url, "/protected_resource"),
        StatusCode::UNAUTHORIZED,
    )
    .await?;
    let forged = server
        .mint(&shop)
        .audience([orders.client_id()])
        .with_another_key()
        .sign();
    let request = with_token(get_request(&url, "/protected_resource"), &forged)?;
    refused(&plain, "forged token", request, StatusCode::UNAUTHORIZED).await?;
    let elsewhere = server.mint(&shop).audience(["bills"]).sign();
    let request = with_token(get_request(&url, "/protected_resource"), &elsewhere)?;
    refused(&plain, "token for bills", request, StatusCode::UNAUTHORIZED).await?;
    refused(
        &client,
        "without the scope",
        get_request(&url, "/reports"),
        StatusCode::FORBIDDEN,
    )
    .await?;

    // 6. With the scope, the door opens.
    step("shop is given the scope reports.read");
    shop.set_scopes(["reports.read"])?;
    let reader = manager(&server, &shop, &orders)?
        .scope(Scope::new("reports.read")?)
        .start()?;
    let reports = ServiceBuilder::new()
        .layer(reader.layer([Endpoint::new(&url)?]))
        .service(plain.clone());
    let (status, body) = call(&reports, get_request(&url, "/reports")).await?;
    tell(&status.to_string(), &body);
    expect(status == StatusCode::OK)?;

    // 7. New keys, new tokens, and nobody notices.
    step("The signing keys are rotated while calls go on");
    let (mut calls, mut failed) = (0, 0);
    for call_number in 0..200 {
        if call_number == 100 {
            server.rotate()?;
            tell(
                "rotated",
                format!("{} keys are published", server.keys().len()),
            );
            // The old token is still good; the next one is signed by the new key.
            let _another_one_can_be_had = tokens.invalidate(&tokens.access_token().await?);
        }
        calls += 1;
        let (status, _) = call(&client, get_request(&url, "/protected_resource")).await?;
        failed += u32::from(status != StatusCode::OK);
    }
    tell("calls", format!("{calls}, failed: {failed}"));
    expect(failed == 0)?;

    println!("\nThat is all. Your turn: README.md shows the ten lines for each end.");
    if stays {
        println!("In the dashboard, under Try it, `shop` gets a token to call `orders`. Then:");
        println!("curl {url}/protected_resource -H \"Authorization: Bearer $TOKEN\"");
        println!(
            "The dashboard {}/ and {url} stay until Ctrl-C.",
            server.base_url()
        );
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

/// Whether `--stay` is there, and nothing else.
fn stays(mut arguments: impl Iterator<Item = String>) -> Result<bool, BoxError> {
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(false),
        (Some("--stay"), None) => Ok(true),
        _ => Err("the only argument is `--stay`".into()),
    }
}

/// The service: two routes for any valid token, one for a scope.
async fn serve_orders(resource: &ResourceServer) -> Result<String, BoxError> {
    let router = Router::new()
        .route(
            "/protected_resource",
            get(async || "Hello from protected resource"),
        )
        .route("/caller", get(caller))
        .route(
            "/reports",
            get(async || "Hello from reports").layer(RequireScopeLayer::all(["reports.read"])),
        )
        .layer(resource.layer());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(url)
}

/// The auth context is an extractor.
async fn caller(context: AuthContext) -> Json<Value> {
    Json(
        json!({ "client_id": context.client_id(), "scopes": context.scopes().collect::<Vec<_>>() }),
    )
}

/// Tokens of the caller, for the resource.
fn manager(
    server: &AuthorizationServer,
    caller: &RegisteredApplication,
    resource: &RegisteredApplication,
) -> Result<tower_oauth::TokenManagerBuilder, BoxError> {
    let audience = Audience::new(resource.client_id())?;
    let builder = TokenManager::builder(server.token_endpoint(), caller.credentials());
    Ok(builder.audience(audience).allow_loopback_http())
}

fn get_request(url: &str, path: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = format!("{url}{path}")
        .parse()
        .expect("an address that was just bound");
    request
}

fn with_token(
    mut request: Request<Empty<Bytes>>,
    token: &str,
) -> Result<Request<Empty<Bytes>>, BoxError> {
    request
        .headers_mut()
        .insert(header::AUTHORIZATION, format!("Bearer {token}").parse()?);
    Ok(request)
}

/// Sends a request; plainly, or through the layer.
async fn send<S>(
    client: &S,
    request: Request<Empty<Bytes>>,
) -> Result<Response<hyper::body::Incoming>, BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<hyper::body::Incoming>> + Clone,
    S::Error: Into<BoxError>,
{
    client.clone().oneshot(request).await.map_err(Into::into)
}

async fn call<S>(
    client: &S,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, String), BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<hyper::body::Incoming>> + Clone,
    S::Error: Into<BoxError>,
{
    let response = send(client, request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Shows a refusal, and insists on it.
async fn refused<S>(
    client: &S,
    who: &str,
    request: Request<Empty<Bytes>>,
    status: StatusCode,
) -> Result<(), BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<hyper::body::Incoming>> + Clone,
    S::Error: Into<BoxError>,
{
    let response = send(client, request).await?;
    let challenge = response
        .headers()
        .get(header::WWW_AUTHENTICATE)
        .map_or("", |value| value.to_str().unwrap_or(""));
    tell(who, response.status());
    tell("", challenge);
    expect(response.status() == status)
}

/// The story is only told if it is true.
fn expect(is_so: bool) -> Result<(), BoxError> {
    if is_so {
        Ok(())
    } else {
        Err("that is not what should have happened".into())
    }
}

fn step(title: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static STEP: AtomicU32 = AtomicU32::new(0);
    let number = STEP.fetch_add(1, Ordering::Relaxed) + 1;
    println!("{}{number}. {title}", if number == 1 { "" } else { "\n" });
}

fn tell(what: &str, value: impl std::fmt::Display) {
    println!("   {what:<18} {value}");
}
