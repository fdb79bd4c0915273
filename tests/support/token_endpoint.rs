//! A token endpoint behind a `Transport`, with scripted replies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_oauth::clock::{Clock, UnixTime};
use tower_oauth::transport::{SendFuture, Transport, TransportError};

/// Sleeps for this many seconds of paused time.
pub async fn sleep_seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A wall clock that follows tokio's paused time.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock(Instant);

impl TokioClock {
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_secs(1_700_000_000 + self.0.elapsed().as_secs())
    }
}

/// The reply to a token request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// `token-1`, `token-2`, … with this lifetime in seconds.
    Token(u64),
    Json(u16, Value),
    /// A status, header fields and a body.
    Raw(u16, Vec<(&'static str, String)>, String),
    /// A status and a body that is not JSON.
    Text(u16, &'static str),
    /// 200 with a body of this many bytes.
    Large(usize),
    /// A status and its `Retry-After`.
    Status(u16, Option<&'static str>),
    Redirect(&'static str),
    Unreachable,
    /// An untrusted certificate.
    Certificate,
    Hang,
}

/// Cheap to clone. Clones share the script.
#[derive(Clone, Debug)]
pub struct TokenEndpoint(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Reply>,
    default_reply: Option<Reply>,
    metadata: Option<Reply>,
    metadata_script: VecDeque<Reply>,
    metadata_requests: usize,
    delay: Duration,
    issued: usize,
    token_requests: Vec<TokenRequest>,
    in_flight: usize,
    max_in_flight: usize,
}

/// A received token request.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    pub url: String,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    pub form: Vec<(String, String)>,
    pub at: Instant,
}

impl TokenEndpoint {
    /// Sends this reply to every request without a scripted one.
    pub fn with_reply(reply: Reply) -> Self {
        Self(Arc::new(Mutex::new(State {
            default_reply: Some(reply),
            ..State::default()
        })))
    }

    /// Appends replies for the next requests.
    pub fn then(self, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.0.lock().unwrap().script.extend(replies);
        self
    }

    pub fn set_reply(&self, reply: Reply) {
        self.0.lock().unwrap().default_reply = Some(reply);
    }

    /// Sets the reply to discovery requests; the default is 404.
    pub fn metadata(self, reply: Reply) -> Self {
        self.0.lock().unwrap().metadata = Some(reply);
        self
    }

    /// Appends replies for the next discovery requests.
    pub fn then_metadata(self, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.0.lock().unwrap().metadata_script.extend(replies);
        self
    }

    /// The number of discovery requests so far.
    pub fn metadata_requests(&self) -> usize {
        self.0.lock().unwrap().metadata_requests
    }

    /// Skips one token number.
    pub fn count_as_issued(&self) {
        self.0.lock().unwrap().issued += 1;
    }

    pub fn delay(self, delay: Duration) -> Self {
        self.0.lock().unwrap().delay = delay;
        self
    }

    /// The token requests so far.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.0.lock().unwrap().token_requests.clone()
    }

    pub fn count(&self) -> usize {
        self.token_requests().len()
    }

    pub fn max_in_flight(&self) -> usize {
        self.0.lock().unwrap().max_in_flight
    }

    pub fn in_flight(&self) -> usize {
        self.0.lock().unwrap().in_flight
    }
}

/// Counts a request as in flight until it completes or is dropped.
struct Flight(Arc<Mutex<State>>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.lock().unwrap().in_flight -= 1;
    }
}

impl Transport for TokenEndpoint {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        Box::pin(async move {
            let (reply, delay) = {
                let mut state = self.0.lock().unwrap();
                let reply = if request.uri().path().contains("/.well-known/") {
                    state.metadata_requests += 1;
                    let scripted = state.metadata_script.pop_front();
                    scripted
                        .or_else(|| state.metadata.clone())
                        .unwrap_or(Reply::Status(404, None))
                } else {
                    let field = |name: &str| {
                        request
                            .headers()
                            .get(name)
                            .map(|v| v.to_str().unwrap().to_owned())
                    };
                    state.token_requests.push(TokenRequest {
                        url: request.uri().to_string(),
                        authorization: field("authorization"),
                        content_type: field("content-type"),
                        form: url::form_urlencoded::parse(request.body())
                            .into_owned()
                            .collect(),
                        at: Instant::now(),
                    });
                    let scripted = state.script.pop_front();
                    scripted.or_else(|| state.default_reply.clone()).unwrap()
                };
                state.in_flight += 1;
                state.max_in_flight = state.max_in_flight.max(state.in_flight);
                (reply, state.delay)
            };
            let _flight = Flight(Arc::clone(&self.0));
            tokio::time::sleep(delay).await;
            let mut response = Response::new(Bytes::new());
            let (status, body) = match reply {
                Reply::Unreachable => {
                    return Err(TransportError::connect("connection refused"));
                }
                Reply::Certificate => return Err(TransportError::certificate("UnknownIssuer")),
                Reply::Hang => std::future::pending().await,
                Reply::Token(lifetime) => {
                    let mut state = self.0.lock().unwrap();
                    state.issued += 1;
                    let token = format!("token-{}", state.issued);
                    (
                        200,
                        json!({
                            "access_token": token,
                            "token_type": "Bearer",
                            "expires_in": lifetime,
                        }),
                    )
                }
                Reply::Json(status, body) => (status, body),
                Reply::Large(length) => {
                    *response.body_mut() = vec![b' '; length].into();
                    return Ok(response);
                }
                Reply::Raw(status, headers, body) => {
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    for (name, value) in headers {
                        response.headers_mut().insert(name, value.parse().unwrap());
                    }
                    *response.body_mut() = body.into();
                    return Ok(response);
                }
                Reply::Text(status, text) => {
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    *response.body_mut() = Bytes::from_static(text.as_bytes());
                    return Ok(response);
                }
                Reply::Status(status, retry_after) => {
                    if let Some(value) = retry_after {
                        response
                            .headers_mut()
                            .insert("retry-after", value.parse().unwrap());
                    }
                    (status, Value::Null)
                }
                Reply::Redirect(to) => {
                    response
                        .headers_mut()
                        .insert("location", to.parse().unwrap());
                    (307, Value::Null)
                }
            };
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            *response.body_mut() = body.to_string().into();
            Ok(response)
        })
    }
}
