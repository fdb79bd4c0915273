//! Token exchange (RFC 8693). Time is paused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower_oauth::client::{
    BoxFuture, ClientAuthentication, Grant, TokenExchangeBuilder, TokenManagerBuilder,
    TokenRequest, TokenTypeIdentifier,
};
use tower_oauth::clock::{Clock as _, UnixTime};
use tower_oauth::error::{ConfigErrorKind, ErrorKind};
use tower_oauth::resource_server::InboundToken;
use tower_oauth::transport::{SendFuture, Transport, TransportError};
use tower_oauth::{ClientCredentials, Endpoint, Error, Issuer, TokenExchange, TokenManager};

use crate::support::token_endpoint::{Reply, TokenEndpoint, TokioClock, sleep_seconds};
use crate::support::{jwt, log};

const TOKEN_URL: &str = "https://as.example/token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// An authorization server whose token for a subject token is `for-` and that token, with the
/// number of the exchange.
#[derive(Clone, Debug)]
struct Server(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    forms: Vec<HashMap<String, String>>,
    delay: Duration,
    lifetime: u64,
    /// The response to these subject tokens.
    replies: HashMap<String, (u16, Value)>,
    in_flight: usize,
    max_in_flight: usize,
}

impl Server {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            forms: Vec::new(),
            delay: Duration::from_millis(100),
            lifetime: 300,
            replies: HashMap::new(),
            in_flight: 0,
            max_in_flight: 0,
        })))
    }

    fn with_lifetime(self, seconds: u64) -> Self {
        self.0.lock().unwrap().lifetime = seconds;
        self
    }

    fn with_delay(self, delay: Duration) -> Self {
        self.0.lock().unwrap().delay = delay;
        self
    }

    fn reply(&self, subject: &str, status: u16, body: Value) {
        let mut state = self.0.lock().unwrap();
        state.replies.insert(subject.to_owned(), (status, body));
    }

    fn forms(&self) -> Vec<HashMap<String, String>> {
        self.0.lock().unwrap().forms.clone()
    }

    fn count(&self) -> usize {
        self.forms().len()
    }

    fn max_in_flight(&self) -> usize {
        self.0.lock().unwrap().max_in_flight
    }
}

impl Transport for Server {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        Box::pin(async move {
            let form: HashMap<String, String> = url::form_urlencoded::parse(request.body())
                .into_owned()
                .collect();
            let (delay, reply) = {
                let mut state = self.0.lock().unwrap();
                state.forms.push(form.clone());
                state.in_flight += 1;
                state.max_in_flight = state.max_in_flight.max(state.in_flight);
                let scripted = form
                    .get("subject_token")
                    .and_then(|subject| state.replies.get(subject).cloned());
                let subject = form.get("subject_token").map_or("nobody", String::as_str);
                let body = json!({
                    "access_token": format!("for-{subject}-{}", state.forms.len()),
                    "issued_token_type": ACCESS_TOKEN,
                    "token_type": "Bearer",
                    "expires_in": state.lifetime,
                    "scope": "",
                });
                (state.delay, scripted.unwrap_or((200, body)))
            };
            sleep(delay).await;
            self.0.lock().unwrap().in_flight -= 1;
            let (status, body) = reply;
            if status == 0 {
                return Err(TransportError::connect("connection refused"));
            }
            let mut response = Response::new(Bytes::from(body.to_string()));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        })
    }
}

fn tokens(server: &Server, clock: TokioClock) -> TokenManagerBuilder {
    let credentials = ClientCredentials::new("orders", "s3cr3t-s3cr3t");
    TokenManager::builder(Endpoint::new(TOKEN_URL).unwrap(), credentials)
        .transport(server.clone())
        .clock(clock)
}

fn builder(server: &Server, clock: TokioClock) -> TokenExchangeBuilder {
    TokenExchange::builder(tokens(server, clock).audience("bills"))
}

fn exchange(server: &Server, clock: TokioClock) -> TokenExchange {
    builder(server, clock).build().unwrap()
}

/// A subject token that lives for this many seconds.
fn subject(token: &str, clock: TokioClock, seconds: u64) -> InboundToken {
    let expires_at = clock.now().saturating_add(Duration::from_secs(seconds));
    InboundToken::new(token, expires_at)
}

async fn text(exchange: &TokenExchange, subject: &InboundToken) -> String {
    let token = exchange.access_token(subject).await.unwrap();
    token.expose_secret().to_owned()
}

#[tokio::test(start_paused = true)]
async fn an_exchange_has_the_parameters_of_rfc_8693_and_those_of_the_target() {
    let clock = TokioClock::new();
    let server = Server::new();
    let actor = tokens(&server, clock).start().unwrap();
    let target = tokens(&server, clock)
        .audience("bills")
        .resource("https://bills.example")
        .scope("bills.read")
        .parameter("tenant", "7");
    let exchange = TokenExchange::builder(target)
        .actor(actor)
        .subject_token_type(TokenTypeIdentifier::Jwt)
        .requested_token_type(TokenTypeIdentifier::Other("urn:example:ticket".to_owned()))
        .build()
        .unwrap();
    let reply = json!({
        "access_token": "for-alice-2",
        "issued_token_type": "urn:example:ticket",
        "token_type": "Bearer",
        "scope": "",
    });
    server.reply("alice", 200, reply);
    let token = exchange.access_token(&subject("alice", clock, 600)).await;
    let token = token.unwrap();
    assert_eq!(token.expose_secret(), "for-alice-2");
    assert_eq!(token.scopes(), Some(&[][..]), "`scope` is empty");
    let expected = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", "alice"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("actor_token", "for-nobody-1"),
        ("actor_token_type", ACCESS_TOKEN),
        ("requested_token_type", "urn:example:ticket"),
        ("audience", "bills"),
        ("resource", "https://bills.example"),
        ("scope", "bills.read"),
        ("tenant", "7"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(server.forms()[1], HashMap::from(expected));

    let plain = builder(&server, clock).build().unwrap();
    text(&plain, &subject("bob", clock, 600)).await;
    let form = server.forms().remove(2);
    assert_eq!(form["subject_token_type"], ACCESS_TOKEN);
    for absent in ["actor_token", "actor_token_type", "requested_token_type"] {
        assert!(!form.contains_key(absent), "{absent}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_subject_token_and_target_has_one_exchange_however_many_calls_wait() {
    let clock = TokioClock::new();
    let server = Server::new();
    let bills = exchange(&server, clock);
    let stock = TokenExchange::builder(tokens(&server, clock).audience("stock"));
    let stock = stock.build().unwrap();
    let mut calls = JoinSet::new();
    for call in 0..600 {
        let exchange = if call % 2 == 0 { &bills } else { &stock }.clone();
        let name = ["alice", "bob", "carol"][call % 3];
        let subject = subject(name, clock, 600);
        calls.spawn(async move { (name, text(&exchange, &subject).await) });
    }
    for (name, token) in calls.join_all().await {
        assert!(
            token.starts_with(&format!("for-{name}-")),
            "{name}: {token}"
        );
    }
    assert_eq!(server.count(), 6);
    // The tokens are cached, for each target.
    text(&bills, &subject("alice", clock, 600)).await;
    text(&stock, &subject("alice", clock, 600)).await;
    assert_eq!(server.count(), 6);
    assert_eq!(
        (bills.cached_token_count(), stock.cached_token_count()),
        (3, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn the_cache_holds_no_token_longer_than_its_subject_token_or_its_lifetime() {
    for (subject_lifetime, lifetime, cached_for) in [
        (60, 300, 60),
        (1, 300, 1),
        (600, 300, 290), // ten seconds before it expires
        (600, 50, 45),
        (600, 1, 1),
    ] {
        let clock = TokioClock::new();
        let server = Server::new()
            .with_lifetime(lifetime)
            .with_delay(Duration::ZERO);
        let exchange = exchange(&server, clock);
        let alice = subject("alice", clock, subject_lifetime);
        text(&exchange, &alice).await;
        assert_eq!(exchange.cached_token_count(), 1);
        sleep(Duration::from_millis(cached_for * 1000 - 900)).await;
        text(&exchange, &alice).await;
        let row = format!("{subject_lifetime} {lifetime}");
        assert_eq!(server.count(), 1, "{row}");
        sleep(Duration::from_millis(1000)).await;
        assert_eq!(exchange.cached_token_count(), 0, "{row}");
        text(&exchange, &alice).await;
        assert_eq!(server.count(), 2, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_for_an_expired_subject_token_is_not_cached() {
    let clock = TokioClock::new();
    let server = Server::new();
    let exchange = exchange(&server, clock);
    // Expired, but within the leeway of the resource server.
    let expired = InboundToken::new("alice", clock.now());
    assert_eq!(text(&exchange, &expired).await, "for-alice-1");
    assert_eq!(exchange.cached_token_count(), 0);
    // Nor is it served to a token that claims to have expired.
    text(&exchange, &subject("alice", clock, 60)).await;
    assert_eq!(exchange.cached_token_count(), 1);
    assert_eq!(text(&exchange, &expired).await, "for-alice-3");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_the_result_of_further_calls_even_if_the_subject_token_has_expired() {
    let clock = TokioClock::new();
    let server = Server::new();
    let exchange = exchange(&server, clock);
    server.reply("mallory", 400, json!({ "error": "invalid_request" }));
    // Expired, but within the leeway of the resource server.
    let expired = InboundToken::new("mallory", clock.now());
    for _ in 0..50 {
        let error = exchange.access_token(&expired).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
    assert_eq!(server.count(), 1);
    sleep_seconds(1).await;
    exchange.access_token(&expired).await.unwrap_err();
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_cache_each_refused_call_is_an_exchange() {
    let clock = TokioClock::new();
    let server = Server::new();
    let uncached = builder(&server, clock).max_cached_tokens(0);
    let uncached = uncached.build().unwrap();
    server.reply("mallory", 400, json!({ "error": "invalid_request" }));
    for lifetime in [600, 0] {
        let mallory = subject("mallory", clock, lifetime);
        let before = server.count();
        for _ in 0..5 {
            let error = uncached.access_token(&mallory).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
        }
        assert_eq!(server.count(), before + 5, "{lifetime}");
        // Calls at the same time still share one exchange.
        let (one, other) = tokio::join!(
            uncached.access_token(&mallory),
            uncached.access_token(&mallory)
        );
        assert!(one.is_err() && other.is_err());
        assert_eq!(server.count(), before + 6, "{lifetime}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_cancels_no_other_and_no_exchange() {
    let clock = TokioClock::new();
    let server = Server::new();
    let exchange = exchange(&server, clock);
    let alice = subject("alice", clock, 600);
    // The first call begins the exchange, and is dropped.
    let short = Duration::from_millis(10);
    let first = tokio::time::timeout(short, exchange.access_token(&alice)).await;
    assert!(first.is_err());
    let second = tokio::time::timeout(short, exchange.access_token(&alice)).await;
    assert!(second.is_err());
    assert_eq!(text(&exchange, &alice).await, "for-alice-1");
    assert_eq!(server.count(), 1);
    // With no call left, its result is cached.
    let bob = subject("bob", clock, 600);
    let first = tokio::time::timeout(short, exchange.access_token(&bob)).await;
    assert!(first.is_err());
    sleep_seconds(1).await;
    assert_eq!(exchange.cached_token_count(), 2);
    assert_eq!(text(&exchange, &bob).await, "for-bob-2");
}

#[tokio::test(start_paused = true)]
async fn a_full_cache_evicts_the_token_that_expires_first() {
    let clock = TokioClock::new();
    let server = Server::new();
    let exchange = builder(&server, clock)
        .max_cached_tokens(3)
        .build()
        .unwrap();
    let lifetimes = [("a", 50), ("b", 20), ("c", 40), ("d", 30)];
    let subjects = lifetimes.map(|(name, lifetime)| subject(name, clock, lifetime));
    for subject in &subjects {
        text(&exchange, subject).await;
        assert!(exchange.cached_token_count() <= 3);
    }
    let cached = [&subjects[0], &subjects[2], &subjects[3]];
    for subject in cached {
        text(&exchange, subject).await;
    }
    assert_eq!(server.count(), 4);
    text(&exchange, &subjects[1]).await;
    assert_eq!(server.count(), 5, "b had to make room");

    let uncached = builder(&server, clock)
        .max_cached_tokens(0)
        .build()
        .unwrap();
    for _ in 0..2 {
        text(&uncached, &subjects[0]).await;
    }
    assert_eq!((uncached.cached_token_count(), server.count()), (0, 7));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_one_subject_is_not_seen_by_another_and_ends_after_a_second() {
    let clock = TokioClock::new();
    let server = Server::new();
    let exchange = exchange(&server, clock);
    server.reply("mallory", 400, json!({ "error": "invalid_request" }));
    let (alice, mallory) = (subject("alice", clock, 600), subject("mallory", clock, 600));
    let (good, bad) = tokio::join!(
        exchange.access_token(&alice),
        exchange.access_token(&mallory)
    );
    assert_eq!(bad.unwrap_err().kind(), ErrorKind::Refused);
    assert!(good.is_ok());
    assert_eq!(exchange.cached_token_count(), 1);
    // For a moment, further calls have the same error.
    for _ in 0..100 {
        exchange.access_token(&mallory).await.unwrap_err();
    }
    assert_eq!(server.count(), 2);
    sleep_seconds(1).await;
    server.reply(
        "mallory",
        200,
        json!({
            "access_token": "t", "token_type": "Bearer", "issued_token_type": ACCESS_TOKEN,
        }),
    );
    assert_eq!(text(&exchange, &mallory).await, "t");
    // A transient failure is that of the calls that waited for it.
    for (subject_token, status) in [("dave", 503), ("erin", 429), ("frank", 0)] {
        server.reply(subject_token, status, Value::Null);
        let subject = subject(subject_token, clock, 600);
        let before = server.count();
        for _ in 0..2 {
            exchange.access_token(&subject).await.unwrap_err();
        }
        assert_eq!(server.count(), before + 2, "{subject_token}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_issued_token_type_or_of_another_token_type_is_an_error() {
    let clock = TokioClock::new();
    let server = Server::new();
    let good = json!({
        "access_token": "t", "token_type": "Bearer", "issued_token_type": ACCESS_TOKEN,
    });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let exchange = exchange(&server, clock);
    let lenient = TokenExchange::builder(tokens(&server, clock).assume_bearer());
    let lenient = lenient.build().unwrap();
    let refresh_token = "urn:ietf:params:oauth:token-type:refresh_token";
    for (row, body, text, is_accepted_if_assumed) in [
        (
            0,
            with("issued_token_type", Value::Null),
            "issued_token_type",
            false,
        ),
        (1, with("token_type", json!("N_A")), "N_A", true),
        (2, with("token_type", json!("DPoP")), "DPoP", false),
        (
            3,
            with("issued_token_type", json!(refresh_token)),
            "issued_token_type",
            false,
        ),
        (4, json!({ "token_type": "Bearer" }), "access_token", false),
    ] {
        let name = format!("subject-{row}");
        server.reply(&name, 200, body);
        let error = exchange.access_token(&subject(&name, clock, 60)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.url(), Some(TOKEN_URL));
        let assumed = lenient.access_token(&subject(&name, clock, 60)).await;
        assert_eq!(
            assumed.is_ok(),
            is_accepted_if_assumed,
            "{row}: {assumed:?}"
        );
    }
    server.reply(
        "a-jwt",
        200,
        with(
            "issued_token_type",
            json!("urn:ietf:params:oauth:token-type:jwt"),
        ),
    );
    assert_eq!(text(&exchange, &subject("a-jwt", clock, 60)).await, "t");
    // The client credentials grant needs none.
    server.reply(
        "nobody",
        200,
        json!({ "access_token": "t", "token_type": "Bearer" }),
    );
    assert!(
        tokens(&server, clock)
            .start()
            .unwrap()
            .access_token()
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn the_issued_token_is_of_the_requested_type_or_for_resource_servers() {
    let urn = |name: &str| format!("urn:ietf:params:oauth:token-type:{name}");
    let names = [
        "access_token",
        "jwt",
        "id_token",
        "saml1",
        "saml2",
        "refresh_token",
    ];
    let others = ["urn:example:ticket", "access_token", ""].map(str::to_owned);
    let issued: Vec<String> = names.map(urn).into_iter().chain(others).collect();
    let other = |name: &str| TokenTypeIdentifier::Other(name.to_owned());
    for (requested, accepted) in [
        (None, vec![urn("access_token"), urn("jwt")]),
        (
            Some(TokenTypeIdentifier::AccessToken),
            vec![urn("access_token")],
        ),
        (Some(TokenTypeIdentifier::Jwt), vec![urn("jwt")]),
        (Some(TokenTypeIdentifier::IdToken), vec![urn("id_token")]),
        (Some(other(&urn("saml2"))), vec![urn("saml2")]),
        (
            Some(other("urn:example:ticket")),
            vec!["urn:example:ticket".to_owned()],
        ),
        (Some(other(&urn("refresh_token"))), vec![]),
    ] {
        let clock = TokioClock::new();
        let server = Server::new();
        let builder = builder(&server, clock);
        let exchange = match &requested {
            None => builder,
            Some(requested) => builder.requested_token_type(requested.clone()),
        };
        let exchange = exchange.build().unwrap();
        for (row, issued) in issued.iter().enumerate() {
            let name = format!("subject-{row}");
            let reply = json!({
                "access_token": "3xch4nged", "token_type": "Bearer", "issued_token_type": issued,
            });
            server.reply(&name, 200, reply);
            let result = exchange.access_token(&subject(&name, clock, 60)).await;
            let row = format!("{requested:?} {issued}");
            assert_eq!(result.is_ok(), accepted.contains(issued), "{row}");
            let Err(error) = result else { continue };
            assert_eq!(error.kind(), ErrorKind::Malformed, "{row}");
            let text = error.to_string();
            assert!(text.contains("issued_token_type"), "{text}");
            assert!(
                text.contains(issued) && !text.contains("3xch4nged"),
                "{text}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_text_of_a_refusal_says_what_to_do() {
    let clock = TokioClock::new();
    let server = Server::new();
    let exchange = exchange(&server, clock);
    for (code, hint) in [
        ("invalid_target", "allow it at the server"),
        ("invalid_request", "must be in its `aud`"),
        ("invalid_grant", "must be in its `aud`"),
        ("invalid_client", "may not know the `audience`"),
        ("access_denied", "is in the `aud` of the subject token"),
        (
            "unauthorized_client",
            "allow token exchange for this client",
        ),
        (
            "unsupported_grant_type",
            "allow token exchange for this client",
        ),
    ] {
        server.reply(code, 400, json!({ "error": code }));
        let error = exchange.access_token(&subject(code, clock, 60)).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(code) && error.contains(hint), "{error}");
    }
}

/// Keycloak sends `invalid_client` for an `audience` that it does not know.
#[tokio::test(start_paused = true)]
async fn invalid_client_hints_at_the_audience_before_the_client_authentication() {
    let clock = TokioClock::new();
    let server = Server::new();
    let credentials = ClientCredentials::new("orders", "s3cr3t+s3cr3t");
    let tokens = TokenManager::builder(Endpoint::new(TOKEN_URL).unwrap(), credentials)
        .transport(server.clone())
        .clock(clock);
    let exchange = TokenExchange::builder(tokens).build().unwrap();
    server.reply("alice", 400, json!({ "error": "invalid_client" }));
    let error = exchange.access_token(&subject("alice", clock, 60)).await;
    let text = error.unwrap_err().to_string();
    let [audience, encoding] =
        ["may not know the `audience`", "client_secret_basic_raw"].map(|hint| text.find(hint));
    assert!(audience.is_some() && audience < encoding, "{text}");
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_in_debug_output_logs_or_errors() {
    log::clear_log();
    let clock = TokioClock::new();
    let server = Server::new();
    let actor = tokens(&server, clock).start().unwrap();
    let exchange = builder(&server, clock).actor(actor).build().unwrap();
    let secret = "subject/t0ken+of+alice=";
    let alice = subject(secret, clock, 600);
    let token = exchange.access_token(&alice).await.unwrap();
    let quote = format!("bad token {secret} or subject%2Ft0ken%2Bof%2Balice%3D or for-nobody-1");
    server.reply(
        "t0ken-of-mallory",
        400,
        json!({
            "error": "invalid_request", "error_description": format!("{quote} t0ken-of-mallory"),
        }),
    );
    let mallory = subject("t0ken-of-mallory", clock, 600);
    let error = exchange.access_token(&mallory).await.unwrap_err();
    let refused = subject(secret, clock, 0);
    server.reply(
        secret,
        400,
        json!({ "error": "invalid_request", "error_description": quote }),
    );
    let quoted = exchange.access_token(&refused).await.unwrap_err();
    let future = format!("{exchange:?} {alice:?} {mallory:?} {token:?}");
    assert!(future.contains("orders"), "{future}");
    let shown = format!("{quoted} {quoted:?}");
    for hidden in [secret, "t0ken%2Bof", "for-nobody", "s3cr3t"] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
    assert!(shown.contains("[redacted]"), "{shown}");
    let all = format!("{future} {error} {error:?}");
    for hidden in ["t0ken-of-mallory", "s3cr3t", "for-subject", "for-nobody"] {
        assert!(!all.contains(hidden), "{hidden} in {all}");
    }
    for hidden in [secret, "t0ken", "for-subject", "for-nobody", "s3cr3t"] {
        assert!(!log::logged(hidden), "{hidden} in the log");
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_16_exchanges_are_sent_at_a_time_and_max_waiters_calls_wait() {
    let clock = TokioClock::new();
    let server = Server::new();
    let exchange = TokenExchange::builder(tokens(&server, clock).max_waiters(40));
    let exchange = exchange.build().unwrap();
    let mut calls = JoinSet::new();
    for call in 0..50 {
        let (exchange, subject) = (exchange.clone(), subject(&format!("s-{call}"), clock, 60));
        calls.spawn(async move { exchange.access_token(&subject).await.map(drop) });
    }
    sleep(Duration::from_millis(1)).await;
    let refused = exchange.access_token(&subject("late", clock, 60)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded);
    let results = calls.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 40);
    assert_eq!((server.max_in_flight(), server.count()), (16, 40));
    // Dropped calls leave their exchanges, which count until they end.
    let short = Duration::from_millis(1);
    for call in 0..40 {
        let subject = subject(&format!("dropped-{call}"), clock, 60);
        let dropped = tokio::time::timeout(short, exchange.access_token(&subject)).await;
        assert!(dropped.is_err());
    }
    let refused = exchange.access_token(&subject("late", clock, 60)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded);
    sleep_seconds(1).await;
    text(&exchange, &subject("late", clock, 60)).await;
    // A cached token needs no permit.
    assert_eq!(exchange.cached_token_count(), 81);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_no_longer_than_acquire_timeout() {
    let clock = TokioClock::new();
    let server = Server::new().with_delay(Duration::from_secs(3600));
    let tokens = tokens(&server, clock).acquire_timeout(Duration::from_secs(15));
    let exchange = TokenExchange::builder(tokens.request_timeout(Duration::from_secs(10)));
    let exchange = exchange.build().unwrap();
    let start = Instant::now();
    let error = exchange.access_token(&subject("alice", clock, 60)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    // Sixteen exchanges hang, and the next one waits for them.
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for call in 0..40 {
        let (exchange, subject) = (exchange.clone(), subject(&format!("s-{call}"), clock, 60));
        calls.spawn(async move { exchange.access_token(&subject).await.map(drop) });
    }
    let errors = calls.join_all().await;
    assert!(errors.iter().all(Result::is_err));
    assert!(
        start.elapsed() <= Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_exchanged_again_but_not_within_ten_seconds() {
    let clock = TokioClock::new();
    let server = Server::new();
    let exchange = exchange(&server, clock);
    let (alice, bob) = (subject("alice", clock, 600), subject("bob", clock, 600));
    let first = exchange.access_token(&alice).await.unwrap();
    assert!(
        !exchange.invalidate(&alice, &first),
        "it was issued just now"
    );
    assert_eq!(text(&exchange, &alice).await, first.expose_secret());
    sleep_seconds(10).await;
    assert!(exchange.invalidate(&alice, &first));
    let second = exchange.access_token(&alice).await.unwrap();
    assert_ne!(second.expose_secret(), first.expose_secret());
    // A late report of the first one removes nothing, nor does one of another subject.
    sleep_seconds(10).await;
    assert!(exchange.invalidate(&alice, &first));
    assert!(exchange.invalidate(&bob, &second));
    assert_eq!(text(&exchange, &alice).await, second.expose_secret());
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_panics_is_an_error_of_its_calls_alone() {
    /// Panics for the first request.
    #[derive(Debug, Default)]
    struct Panicking(std::sync::atomic::AtomicBool);

    impl ClientAuthentication for Panicking {
        fn authenticate<'a>(
            &'a self,
            _request: &'a mut TokenRequest,
        ) -> BoxFuture<'a, Result<(), Error>> {
            let has_panicked = self.0.swap(true, std::sync::atomic::Ordering::SeqCst);
            Box::pin(async move {
                assert!(has_panicked, "s3cr3t");
                Ok(())
            })
        }
    }

    let clock = TokioClock::new();
    let server = Server::new();
    let url = Endpoint::new(TOKEN_URL).unwrap();
    let tokens = TokenManager::builder(url, Panicking::default());
    let tokens = tokens.transport(server.clone()).clock(clock);
    let exchange = TokenExchange::builder(tokens).build().unwrap();
    let alice = subject("alice", clock, 60);
    let error = exchange.access_token(&alice).await.unwrap_err();
    assert!(error.to_string().contains("it panicked"), "{error}");
    assert!(!format!("{error:?}").contains("s3cr3t"));
    assert_eq!(text(&exchange, &alice).await, "for-alice-1");
}

#[tokio::test(start_paused = true)]
async fn an_exchange_without_an_actor_token_is_not_sent() {
    let clock = TokioClock::new();
    let server = Server::new();
    let refusing =
        TokenEndpoint::with_reply(Reply::Json(400, json!({ "error": "invalid_client" })));
    let credentials = ClientCredentials::new("actor", "s3cret");
    let url = Endpoint::new("https://other.example/token").unwrap();
    let actor = TokenManager::builder(url, credentials)
        .transport(refusing)
        .clock(clock);
    let exchange = builder(&server, clock).actor(actor.start().unwrap());
    let exchange = exchange.build().unwrap();
    let error = exchange.access_token(&subject("alice", clock, 60)).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("no actor token"), "{error}");
    assert_eq!((error.kind(), server.count()), (ErrorKind::Refused, 0));
}

/// The token endpoint of an issuer, and an exchange that discovers it.
fn discovered(clock: TokioClock) -> (TokenEndpoint, TokenExchange) {
    let metadata = json!({ "issuer": "https://as.example", "token_endpoint": TOKEN_URL });
    let reply = json!({
        "access_token": "t", "token_type": "Bearer", "issued_token_type": ACCESS_TOKEN,
    });
    let endpoint = TokenEndpoint::with_reply(Reply::Json(200, reply))
        .metadata(Reply::Json(200, metadata))
        .delay(Duration::from_millis(50));
    let credentials = ClientCredentials::new("orders", "s3cret");
    let tokens = TokenManager::for_issuer(Issuer::new("https://as.example").unwrap(), credentials)
        .unwrap()
        .transport(endpoint.clone())
        .clock(clock);
    (endpoint, TokenExchange::builder(tokens).build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn all_exchanges_share_one_discovery() {
    let clock = TokioClock::new();
    let (endpoint, exchange) = discovered(clock);
    let mut calls = JoinSet::new();
    for call in 0..100 {
        let (exchange, subject) = (exchange.clone(), subject(&format!("s-{call}"), clock, 600));
        calls.spawn(async move { exchange.access_token(&subject).await.is_ok() });
    }
    assert!(calls.join_all().await.into_iter().all(|is_ok| is_ok));
    assert_eq!((endpoint.count(), endpoint.metadata_requests()), (100, 1));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_issuer_is_sent_to_the_token_endpoint_too() {
    let clock = TokioClock::new();
    let (endpoint, exchange) = discovered(clock);
    let token = jwt::unsigned(&json!({ "iss": "https://partner.example" }));
    let subject = subject(&token, clock, 600);
    assert!(exchange.access_token(&subject).await.is_ok());
    let form = &endpoint.token_requests()[0].form;
    assert!(form.contains(&("subject_token".to_owned(), token)));
}

/// On several threads, with a cache that is too small, and real time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_calls_get_the_token_of_their_subject() {
    let clock = TokioClock::new();
    let server = Server::new().with_delay(Duration::ZERO);
    let exchange = builder(&server, clock).max_cached_tokens(4);
    let exchange = exchange.build().unwrap();
    let mut calls = JoinSet::new();
    for call in 0..64 {
        let exchange = exchange.clone();
        calls.spawn(async move {
            for round in 0..50 {
                let name = format!("subject-{}", (call * 7 + round) % 6);
                let token = text(&exchange, &subject(&name, clock, 600)).await;
                assert!(
                    token.starts_with(&format!("for-{name}-")),
                    "{name}: {token}"
                );
            }
        });
    }
    calls.join_all().await;
    assert!(exchange.cached_token_count() <= 4);
    assert!(server.count() < 64 * 50, "{}", server.count());
}

#[test]
fn exchanges_are_counted_by_the_name_of_their_builder() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let clock = TokioClock::new();
            let server = Server::new();
            let exchange = TokenExchange::builder(tokens(&server, clock).name("bills"));
            let exchange = exchange.build().unwrap();
            server.reply("mallory", 400, json!({ "error": "invalid_request" }));
            for _ in 0..2 {
                text(&exchange, &subject("alice", clock, 60)).await;
            }
            let mallory = subject("mallory", clock, 60);
            exchange.access_token(&mallory).await.unwrap_err();
        });
    });
    let shown = recorder.handle().render();
    for line in [
        r#"tower_oauth_token_requests_total{manager="bills",outcome="success",error="none"} 1"#,
        r#"tower_oauth_token_requests_total{manager="bills",outcome="failure",error="refused"} 1"#,
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(
        !shown.contains("alice") && !shown.contains("mallory"),
        "{shown}"
    );
}

#[test]
fn an_invalid_setting_is_an_error_of_build() {
    let build = |change: fn(TokenManagerBuilder) -> TokenManagerBuilder| {
        let server = Server::new();
        let url = Endpoint::new(TOKEN_URL).unwrap();
        let credentials = ClientCredentials::new("orders", "s3cret");
        let tokens = TokenManager::builder(url, credentials).transport(server);
        TokenExchange::builder(change(tokens)).build()
    };
    assert!(build(|tokens| tokens).is_ok());
    let invalid: [(fn(TokenManagerBuilder) -> TokenManagerBuilder, _); 5] = [
        (|tokens| tokens.scope("a b"), ConfigErrorKind::Invalid),
        (|tokens| tokens.max_waiters(0), ConfigErrorKind::Invalid),
        (|tokens| tokens.name(""), ConfigErrorKind::Missing),
        (|tokens| tokens.grant(NoGrant), ConfigErrorKind::Conflict),
        (
            |tokens| tokens.parameter("subject_token", "x"),
            ConfigErrorKind::Conflict,
        ),
    ];
    for (change, kind) in invalid {
        assert_eq!(build(change).unwrap_err().kind(), kind);
    }
}

#[test]
fn a_call_outside_of_a_runtime_is_an_error() {
    let server = Server::new();
    let exchange = exchange(&server, TokioClock::new());
    let subject = InboundToken::new("alice", UnixTime::from_secs(4_000_000_000));
    let error = futures_executor::block_on(exchange.access_token(&subject)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

/// A step of a test.
#[derive(Clone, Debug)]
enum Step {
    /// A call for this subject, which is dropped after some milliseconds.
    Call(usize, u64),
    /// The server refuses this subject from now on, or not any more.
    Refuse(usize, bool),
    Sleep(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5_usize, 1..400_u64).prop_map(|(subject, limit)| Step::Call(subject, limit)),
        1 => (0..5_usize, any::<bool>()).prop_map(|(subject, is)| Step::Refuse(subject, is)),
        2 => (1..20_000_u64).prop_map(Step::Sleep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// For any calls that are made, dropped and refused.
    #[test]
    fn no_call_gets_the_token_or_the_error_of_another_subject(
        steps in prop::collection::vec(step(), 1..80),
        max_cached in 0..6_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let clock = TokioClock::new();
            let server = Server::new().with_lifetime(30);
            let exchange = builder(&server, clock).max_cached_tokens(max_cached);
            let exchange = exchange.build().unwrap();
            let name = |subject: usize| format!("subject-{subject}");
            let subjects: Vec<_> = (0..5)
                .zip(1_u64..)
                .map(|(number, nth)| subject(&name(number), clock, 20 * nth))
                .collect();
            let mut calls = JoinSet::new();
            for step in steps {
                match step {
                    Step::Call(number, limit) => {
                        let (exchange, subject) = (exchange.clone(), subjects[number].clone());
                        calls.spawn(async move {
                            let call = exchange.access_token(&subject);
                            let result = tokio::time::timeout(Duration::from_millis(limit), call);
                            (number, result.await.ok())
                        });
                    }
                    Step::Refuse(number, true) => {
                        let body = json!({
                            "error": "invalid_request",
                            "error_description": format!("<{number}>"),
                        });
                        server.reply(&name(number), 400, body);
                    }
                    Step::Refuse(number, false) => {
                        server.0.lock().unwrap().replies.remove(&name(number));
                    }
                    Step::Sleep(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
                }
                assert!(exchange.cached_token_count() <= max_cached);
            }
            while let Some(result) = calls.join_next().await {
                let (number, result) = result.unwrap();
                match result {
                    None => {}
                    Some(Ok(token)) => {
                        let expected = format!("for-{}-", name(number));
                        assert!(token.expose_secret().starts_with(&expected));
                    }
                    Some(Err(error)) => {
                        let description = error.oauth_error().unwrap().description();
                        assert_eq!(description, Some(format!("<{number}>").as_str()));
                    }
                }
            }
        });
    }
}

/// A grant that is never written.
#[derive(Debug)]
struct NoGrant;

impl Grant for NoGrant {
    fn write<'a>(&'a self, _request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>> {
        unreachable!("it is a conflict")
    }
}

#[test]
fn a_grant_beside_the_exchange_is_an_error_that_says_so() {
    let tokens = tokens(&Server::new(), TokioClock::new()).grant(NoGrant);
    let error = TokenExchange::builder(tokens).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "grant must not be set: a token exchange has its own"
    );
}
