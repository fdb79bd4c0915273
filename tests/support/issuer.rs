//! An issuer behind a `Transport`, with scripted replies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::resource_server::{RejectionKind, ResourceServerBuilder};
use tower_oauth::transport::{SendFuture, Transport, TransportError};
use tower_oauth::{Audience, Issuer, Rejection, ResourceServer, TrustedIssuer};

use super::{AUDIENCE, ISSUER, NOW, PrivateKey, claims, compact, log};

/// The reply to a request for the keys.
#[derive(Clone, Debug)]
pub enum IssuerReply {
    Keys(Value),
    Status(StatusCode, Option<&'static str>),
    Text(&'static str),
    /// This text as metadata, without keys.
    Metadata(&'static str),
    /// Valid metadata, and 404 for the keys.
    MetadataOnly,
    Unreachable,
    Hang,
    Panic,
}

/// The URL of the metadata.
const METADATA: &str = "https://as.example/.well-known/openid-configuration";

/// Cheap to clone. Clones share the script.
#[derive(Clone, Debug)]
pub struct ScriptedIssuer(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    reply: IssuerReply,
    /// Replies that override `reply` for single URLs.
    overrides: HashMap<String, IssuerReply>,
    headers: HashMap<&'static str, &'static str>,
    delay: Duration,
    /// Whether the reply is chosen before the delay instead of after it.
    reads_before_delay: bool,
    jwks_uri: String,
    requests: Vec<(String, HeaderMap, Instant)>,
    in_flight: usize,
    max_in_flight: usize,
}

impl ScriptedIssuer {
    pub fn new(keys: Value) -> Self {
        Self(Arc::new(Mutex::new(State {
            reply: IssuerReply::Keys(keys),
            overrides: HashMap::new(),
            headers: HashMap::new(),
            delay: Duration::ZERO,
            reads_before_delay: false,
            jwks_uri: format!("{ISSUER}/keys"),
            requests: Vec::new(),
            in_flight: 0,
            max_in_flight: 0,
        })))
    }

    pub fn publish(&self, keys: Value) {
        self.set_reply(IssuerReply::Keys(keys));
    }

    pub fn set_reply(&self, reply: IssuerReply) {
        self.0.lock().unwrap().reply = reply;
    }

    /// Sets the reply of one URL.
    pub fn set_reply_at(&self, url: &str, reply: IssuerReply) {
        self.0
            .lock()
            .unwrap()
            .overrides
            .insert(url.to_owned(), reply);
    }

    /// Sets the reply for the metadata alone.
    pub fn set_metadata(&self, reply: IssuerReply) {
        self.set_reply_at(METADATA, reply);
    }

    pub fn set_header(&self, name: &'static str, value: &'static str) {
        self.0.lock().unwrap().headers.insert(name, value);
    }

    /// Sets the `jwks_uri` of the metadata. Only that URL serves what is published from now on.
    pub fn set_jwks_uri(&self, jwks_uri: &str) {
        self.0.lock().unwrap().jwks_uri = jwks_uri.to_owned();
    }

    pub fn set_delay(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    /// As [`set_delay`](Self::set_delay), with the reply chosen before the delay: it does not
    /// contain what is published meanwhile.
    pub fn set_delay_after_read(&self, delay: Duration) {
        let mut state = self.0.lock().unwrap();
        (state.delay, state.reads_before_delay) = (delay, true);
    }

    /// The requests so far, in order: URL, headers and time.
    pub fn requests(&self) -> Vec<(String, HeaderMap, Instant)> {
        self.0.lock().unwrap().requests.clone()
    }

    /// The requested URLs, in order.
    pub fn urls(&self) -> Vec<String> {
        self.requests().into_iter().map(|(url, ..)| url).collect()
    }

    /// The number of requests for the keys.
    pub fn fetches(&self) -> usize {
        self.urls()
            .iter()
            .filter(|url| url.ends_with("/keys"))
            .count()
    }

    /// The number of requests for the metadata.
    pub fn discoveries(&self) -> usize {
        self.urls().iter().filter(|url| *url == METADATA).count()
    }

    /// A header of the last request for keys.
    pub fn last_header(&self, name: &str) -> Option<String> {
        let requests = self.requests();
        let (_, headers, _) = requests.iter().rfind(|(url, ..)| url.ends_with("/keys"))?;
        Some(headers.get(name)?.to_str().unwrap().to_owned())
    }

    pub fn max_in_flight(&self) -> usize {
        self.0.lock().unwrap().max_in_flight
    }
}

/// Counts a request as in flight until it completes or is dropped.
struct Flight(Arc<Mutex<State>>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.lock().unwrap().in_flight -= 1;
    }
}

impl Transport for ScriptedIssuer {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        Box::pin(async move {
            let url = request.uri().to_string();
            let (delay, early_reply) = {
                let mut state = self.0.lock().unwrap();
                state
                    .requests
                    .push((url.clone(), request.headers().clone(), Instant::now()));
                state.in_flight += 1;
                state.max_in_flight = state.max_in_flight.max(state.in_flight);
                let reply = state.overrides.get(&url).unwrap_or(&state.reply).clone();
                (state.delay, state.reads_before_delay.then_some(reply))
            };
            let _flight = Flight(Arc::clone(&self.0));
            tokio::time::sleep(delay).await;
            let reply = early_reply.unwrap_or_else(|| {
                let state = self.0.lock().unwrap();
                state.overrides.get(&url).unwrap_or(&state.reply).clone()
            });
            let mut response = Response::new(Bytes::new());
            let discovery = url == METADATA;
            match reply {
                IssuerReply::Unreachable => {
                    return Err(TransportError::connect("connection refused"));
                }
                IssuerReply::Hang => std::future::pending().await,
                IssuerReply::Panic => panic!("a panicking transport"),
                IssuerReply::Status(status, retry_after) => {
                    *response.status_mut() = status;
                    if let Some(value) = retry_after {
                        response
                            .headers_mut()
                            .insert("retry-after", value.parse().unwrap());
                    }
                }
                IssuerReply::Keys(_) | IssuerReply::MetadataOnly | IssuerReply::Text(_)
                    if discovery =>
                {
                    let metadata =
                        json!({ "issuer": ISSUER, "jwks_uri": self.0.lock().unwrap().jwks_uri });
                    log::register_secret(&metadata);
                    *response.body_mut() = metadata.to_string().into();
                }
                IssuerReply::Keys(keys) => {
                    log::register_secret(&keys);
                    *response.body_mut() = keys.to_string().into();
                }
                IssuerReply::MetadataOnly => *response.status_mut() = StatusCode::NOT_FOUND,
                IssuerReply::Metadata(text) | IssuerReply::Text(text) => {
                    if let Ok(document) = serde_json::from_str(text) {
                        log::register_secret(&document);
                    }
                    *response.body_mut() = Bytes::from_static(text.as_bytes())
                }
            }
            let state = self.0.lock().unwrap();
            for (name, value) in &state.headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            let unchanged = [
                ("etag", "if-none-match"),
                ("last-modified", "if-modified-since"),
            ]
            .iter()
            .any(|(validator, condition)| {
                let condition = request.headers().get(*condition);
                state
                    .headers
                    .get(validator)
                    .is_some_and(|current| condition.is_some_and(|sent| sent == current))
            });
            if unchanged && !discovery {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                *response.body_mut() = Bytes::new();
            }
            Ok(response)
        })
    }
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn builder(issuer: &ScriptedIssuer, clock: &ManualClock) -> ResourceServerBuilder {
    builder_with(issuer, clock, |trusted| trusted)
}

/// A builder whose trusted issuer has other settings.
pub fn builder_with(
    issuer: &ScriptedIssuer,
    clock: &ManualClock,
    change: impl FnOnce(TrustedIssuer) -> TrustedIssuer,
) -> ResourceServerBuilder {
    log::capture();
    let trusted = TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    );
    ResourceServer::from_issuer(change(trusted))
        .transport(issuer.clone())
        .clock(clock.clone())
}

pub fn clock() -> ManualClock {
    ManualClock::at(UnixTime::from_secs(NOW))
}

pub fn set(keys: &[(&str, &PrivateKey)]) -> Value {
    json!({ "keys": keys.iter().map(|(kid, key)| key.jwk(kid)).collect::<Vec<_>>() })
}

pub fn token(kid: &str, key: &PrivateKey) -> String {
    with_claims(kid, key, &claims())
}

pub fn with_claims(kid: &str, key: &PrivateKey, claims: &Value) -> String {
    compact(
        key,
        "RS256",
        &json!({ "alg": "RS256", "kid": kid }).to_string(),
        claims.to_string().as_bytes(),
    )
}

/// Validates a token. Also checks the response to a rejected one, and that this thread has logged
/// nothing secret.
pub async fn send(server: &ResourceServer, token: &str) -> Result<(), RejectionKind> {
    log::capture();
    let result = send_unchecked(server, token).await;
    log::assert_not_logged(token);
    // Each line is searched once, which keeps floods fast.
    log::clear_log();
    result
}

async fn send_unchecked(server: &ResourceServer, token: &str) -> Result<(), RejectionKind> {
    let service = server
        .layer()
        .layer(service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
        }));
    let request = Request::builder()
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::default())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    match response.extensions().get::<Rejection>() {
        None => Ok(()),
        Some(rejection) => {
            let unavailable = matches!(
                rejection.kind(),
                RejectionKind::Overloaded | RejectionKind::KeysUnavailable
            );
            assert_eq!(
                response.status() == StatusCode::SERVICE_UNAVAILABLE,
                unavailable
            );
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                unavailable
            );
            assert_eq!(
                response.headers().contains_key(header::WWW_AUTHENTICATE),
                !unavailable
            );
            Err(rejection.kind())
        }
    }
}

/// Advances timers and wall time together.
pub async fn advance(clock: &ManualClock, by: Duration) {
    clock.advance_with_timers(by).await;
}
