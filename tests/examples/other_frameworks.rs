//! The examples for hyper and tonic, which need no axum.

use http::{HeaderMap, Request};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::program::{Serving, example, token};

async fn authorization_server() -> Serving {
    Serving::start(example("authorization_server")).await
}

async fn service(name: &str, issuer: &Serving) -> Serving {
    let mut command = example(name);
    command
        .env("ISSUER", issuer.text("oauthServerUrl"))
        .env("AUDIENCE", issuer.text("clientId"));
    Serving::start(command).await
}

#[tokio::test]
async fn the_tower_client_calls_the_hyper_service() {
    let issuer = authorization_server().await;
    let orders = service("hyper_service", &issuer).await;
    let url = orders.text("listening") + "/";

    let mut client = example("tower_client");
    client
        .arg(&url)
        .env("ISSUER", issuer.text("oauthServerUrl"))
        .env("CLIENT_ID", issuer.text("clientId"))
        .env("CLIENT_SECRET", issuer.text("secret"));
    let output = client.output().await.unwrap();
    let expected = format!("200 OK\nHello, {}\n", issuer.text("clientId"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);

    let without_token = reqwest::get(&url).await.unwrap();
    assert_eq!(without_token.status(), 401);
}

/// The header section of the response to a call without a message.
async fn call(listening: &str, token: Option<&str>) -> HeaderMap {
    let address = listening.strip_prefix("http://").unwrap();
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut client, connection) = handshake.await.unwrap();
    let _connection = tokio::spawn(connection);
    let mut request = Request::post(format!("{listening}/demo.Greeter/Hello"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = client.send_request(request).await.unwrap();
    response.into_parts().0.headers
}

#[tokio::test]
async fn the_tonic_service_names_its_caller() {
    let issuer = authorization_server().await;
    let service = service("tonic_service", &issuer).await;
    let greeter = service.text("listening");
    let token = token(&issuer, &issuer.text("oauthServerUrl")).await;

    let accepted = call(&greeter, Some(&token)).await;
    assert_eq!(accepted["grpc-status"], "12"); // unimplemented: the service says hello in a status
    let message = accepted["grpc-message"].to_str().unwrap();
    assert!(message.starts_with("hello,"), "{message}");

    let without_token = call(&greeter, None).await;
    assert_eq!(without_token["grpc-status"], "16");
}
