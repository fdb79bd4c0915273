//! The complete flow in one command: `cargo run --example app_to_app`.
//!
//! One process runs all three parts, each on a separate loopback port: the authorization server,
//! the protected resource `orders`, and the calling application `shop`.
//!
//! With `--stay` it keeps running, for use with the authorization server's dashboard or `curl`.

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
    let stay = stay(std::env::args().skip(1))?;
    println!("tower-oauth: one application calls another, without a user.\n");

    // 1. A development authorization server. In production it is App ID, Keycloak, Entra ID, Auth0,
    //    Okta, Cognito or another issuer.
    let bound = AuthorizationServer::builder().bind(0).await?;
    let server = bound.server().clone();
    tokio::spawn(bound.serve(std::future::pending()));
    step("The authorization server starts");
    print("issuer", server.issuer());
    print("dashboard", format!("{}/", server.base_url()));

    // 2. Two applications, as the App ID guide registers them.
    let orders = server.register("orders")?;
    let shop = server.register("shop")?;
    step("Two applications are registered");
    print("orders", orders.client_id());
    print("shop", shop.client_id());

    // 3. The protected resource. It needs the issuer and its audience, but no secret.
    let resource = orders
        .binding()?
        .resource_server()?
        .allow_loopback_http()
        .start()
        .await?;
    let url = serve_orders(&resource).await?;
    step("orders starts behind ResourceServerLayer");
    print("address", &url);
    for keys in resource.key_sets() {
        print(
            "key set",
            format!("{}, {} key", keys.state().as_str(), keys.usable_key_count()),
        );
    }

    // 4. The caller. Its token manager requests one token; the layer adds it to each request.
    let tokens = token_manager(&server, &shop, &orders)?.start()?;
    let plain = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let client = ServiceBuilder::new()
        .layer(tokens.layer([Endpoint::new(&url)?]))
        .service(plain.clone());
    step("shop calls orders");
    let (status, body) = call(&client, get_request(&url, "/protected_resource")).await?;
    print(&status.to_string(), &body);
    expect(status == StatusCode::OK)?;
    let (_, body) = call(&client, get_request(&url, "/caller")).await?;
    print("orders sees", &body);
    for _ in 0..99 {
        expect(
            call(&client, get_request(&url, "/protected_resource"))
                .await?
                .0
                == StatusCode::OK,
        )?;
    }
    print(
        "101 calls",
        format!("{} token request", server.requests(EndpointKind::Token)),
    );

    // 5. Requests that are rejected, and the responses.
    step("orders rejects other requests");
    expect_rejected(
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
    expect_rejected(&plain, "forged token", request, StatusCode::UNAUTHORIZED).await?;
    let other_audience = server.mint(&shop).audience(["bills"]).sign();
    let request = with_token(get_request(&url, "/protected_resource"), &other_audience)?;
    expect_rejected(&plain, "token for bills", request, StatusCode::UNAUTHORIZED).await?;
    expect_rejected(
        &client,
        "without the scope",
        get_request(&url, "/reports"),
        StatusCode::FORBIDDEN,
    )
    .await?;

    // 6. With the scope, the same request is accepted.
    step("shop is given the scope reports.read");
    shop.set_scopes(["reports.read"])?;
    let reader = token_manager(&server, &shop, &orders)?
        .scope(Scope::new("reports.read")?)
        .start()?;
    let reports = ServiceBuilder::new()
        .layer(reader.layer([Endpoint::new(&url)?]))
        .service(plain.clone());
    let (status, body) = call(&reports, get_request(&url, "/reports")).await?;
    print(&status.to_string(), &body);
    expect(status == StatusCode::OK)?;

    // 7. Key rotation without a failed call.
    step("The signing keys are rotated while calls go on");
    let (mut calls, mut failed) = (0, 0);
    for call_number in 0..200 {
        if call_number == 100 {
            server.rotate()?;
            print(
                "rotated",
                format!("{} keys are published", server.keys().len()),
            );
            // The old token is still valid. The next one is signed with the new key.
            let _invalidated = tokens.invalidate(&tokens.access_token().await?);
        }
        calls += 1;
        let (status, _) = call(&client, get_request(&url, "/protected_resource")).await?;
        failed += u32::from(status != StatusCode::OK);
    }
    print("calls", format!("{calls}, failed: {failed}"));
    expect(failed == 0)?;

    println!("\nDone. README.md shows the code for each side.");
    if stay {
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

/// Parses `--stay`, the only argument.
fn stay(mut arguments: impl Iterator<Item = String>) -> Result<bool, BoxError> {
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(false),
        (Some("--stay"), None) => Ok(true),
        _ => Err("the only argument is `--stay`".into()),
    }
}

/// Serves two routes for any valid token and one that requires a scope.
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

/// Uses the auth context as an extractor.
async fn caller(context: AuthContext) -> Json<Value> {
    Json(
        json!({ "client_id": context.client_id(), "scopes": context.scopes().collect::<Vec<_>>() }),
    )
}

/// A token manager of `caller` with `resource` as audience.
fn token_manager(
    server: &AuthorizationServer,
    caller: &RegisteredApplication,
    resource: &RegisteredApplication,
) -> Result<tower_oauth::client::TokenManagerBuilder, BoxError> {
    let audience = Audience::new(resource.client_id())?;
    let builder = TokenManager::builder(server.token_endpoint(), caller.credentials());
    Ok(builder.audience(audience).allow_loopback_http())
}

fn get_request(url: &str, path: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = format!("{url}{path}").parse().expect("a valid URL");
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

/// Sends a request with or without the layer.
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

/// Prints a rejection and checks its status.
async fn expect_rejected<S>(
    client: &S,
    label: &str,
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
    print(label, response.status());
    print("", challenge);
    expect(response.status() == status)
}

/// Fails if the step did not have the expected result.
fn expect(condition: bool) -> Result<(), BoxError> {
    if condition {
        Ok(())
    } else {
        Err("unexpected result".into())
    }
}

fn step(title: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static STEP: AtomicU32 = AtomicU32::new(0);
    let number = STEP.fetch_add(1, Ordering::Relaxed) + 1;
    println!("{}{number}. {title}", if number == 1 { "" } else { "\n" });
}

fn print(label: &str, value: impl std::fmt::Display) {
    println!("   {label:<18} {value}");
}
