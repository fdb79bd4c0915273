//! A consumer that validates the access token of each message, without HTTP:
//! `cargo run --example validate_message`.
//!
//! The queue is a channel in memory, in place of Kafka, NATS or AMQP. The producer `shop` puts its
//! token into the header `authorization` of the message. The authorization server is the embedded
//! one, in the same process.
//!
//! A program that reads the queue can use the tokens in it, so they should be valid for the consumer
//! only and not for longer than messages wait.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind, Fault};
use tower_oauth::resource_server::{RejectionKind, Startup};
use tower_oauth::{Audience, AuthContext, BoxError, Rejection, ResourceServer, TokenManager};

/// A message as brokers know it: headers, a payload, and how often it was delivered again.
struct Message {
    headers: BTreeMap<&'static str, String>,
    payload: &'static str,
    redeliveries: u32,
}

/// A message is delivered again this many times. Then it is refused.
const MAX_REDELIVERIES: u32 = 5;

impl Message {
    fn new(payload: &'static str) -> Self {
        Self {
            headers: BTreeMap::new(),
            payload,
            redeliveries: 0,
        }
    }

    fn with_token(mut self, token: &str) -> Self {
        let value = format!("Bearer {token}");
        self.headers.insert("authorization", value);
        self
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A development authorization server. `transport` calls it without a socket.
    let server = AuthorizationServer::builder().build()?;
    let orders = server.register("orders")?;
    let shop = server.register("shop")?;

    // The producer obtains tokens for the consumer.
    let tokens = TokenManager::builder(server.token_endpoint(), shop.credentials())
        .audience(Audience::new(orders.client_id())?)
        .transport(server.transport())
        .start()?;
    let good = tokens.access_token().await?;
    let mint = || server.mint(&shop).audience([orders.client_id()]);
    let messages = [
        Message::new("sent during an outage").with_token(good.expose_secret()),
        Message::new("valid").with_token(good.expose_secret()),
        Message::new("without a token"),
        Message::new("with a forged token").with_token(&mint().with_another_key().sign()),
        Message::new("for another audience").with_token(&mint().audience(["bills"]).sign()),
        Message::new("in the queue for too long").with_token(&mint().expired().sign()),
    ];
    let (queue, mut inbox) = mpsc::unbounded_channel();
    for message in messages {
        queue.send(message)?;
    }

    // The consumer starts while the keys cannot be fetched.
    server.fail_next(EndpointKind::Keys, 1, Fault::Outage(None));
    let consumer = orders
        .binding()?
        .resource_server()?
        .transport(server.transport())
        .startup(Startup::Background)
        .start()
        .await?;
    let (mut handled, mut refused, mut postponed) = (0, 0, 0);
    while let Ok(mut message) = inbox.try_recv() {
        let payload = message.payload;
        match authenticate(&consumer, &message).await {
            Ok(caller) => {
                let client = caller.client_id().unwrap_or("an unnamed client");
                println!("handled    {payload}: sent by {client}");
                handled += 1;
            }
            // A broker would deliver the message again after that time, and others meanwhile.
            Err(rejection)
                if can_become_valid(&rejection) && message.redeliveries < MAX_REDELIVERIES =>
            {
                println!("postponed  {payload}: {}", rejection.kind());
                postponed += 1;
                message.redeliveries += 1;
                queue.send(message)?;
                let delay = rejection.retry_after().unwrap_or(Duration::from_secs(5));
                tokio::time::sleep(delay).await;
            }
            // Such a message belongs in a dead-letter queue.
            Err(rejection) => {
                println!("refused    {payload}: {}", rejection.kind());
                refused += 1;
            }
        }
    }
    println!("\n{handled} handled, {refused} refused, {postponed} postponed");
    if (handled, refused, postponed) != (2, 4, 1) {
        return Err("unexpected result".into());
    }
    Ok(())
}

/// Validates the token of a message. A message without one is refused like an empty token.
async fn authenticate(
    consumer: &ResourceServer,
    message: &Message,
) -> Result<AuthContext, Rejection> {
    let header = message.headers.get("authorization");
    let token = match header.and_then(|value| value.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => token,
        _ => "",
    };
    consumer.validate(token).await
}

/// Whether the message may be valid later. Its issuer has no keys yet, or the consumer is
/// overloaded; or the issuer has a new key, and the consumer cannot fetch it yet.
fn can_become_valid(rejection: &Rejection) -> bool {
    rejection.status().is_server_error() || rejection.kind() == RejectionKind::UnknownKey
}
