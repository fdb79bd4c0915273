//! The tower layer, and the same layer as middleware for reqwest: each fact is shown of both, over
//! real connections. The facts of reqwest alone are at the end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use reqwest::{Body, Client, Method, Request, redirect};
use reqwest_middleware::{Middleware, Next};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_oauth::client::{
    BearerTokenLayer, BoxFuture, CloneBody, CloneBufferedBody, TokenManagerBuilder, Unauthorized,
};
use tower_oauth::error::ErrorKind;
use tower_oauth::{
    BoxError, ClientCredentials, Endpoint, Error, Origin, TokenManager, TokenManagers,
};

use crate::certificates;
use crate::support::token_endpoint::{Reply, TokenEndpoint};

/// A request that a server has received: its origin, its token, and its body.
type Seen = (String, String, String);

/// A server for http and https on one port. It has several names, which the clients resolve.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Host names of all servers.
const HOSTS: [&str; 2] = ["a.test", "b.test"];

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (acceptor, _) = certificates::acceptor(false);
        let received = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&received));
                tokio::spawn(async move {
                    let mut first = [0];
                    stream.peek(&mut first).await.unwrap();
                    // The type of a TLS handshake record (RFC 8446 §5.1).
                    if first == [0x16] {
                        let stream = acceptor.accept(stream).await.unwrap();
                        serve("https", stream, seen).await;
                    } else {
                        serve("http", stream, seen).await;
                    }
                });
            }
        });
        Self { port, seen }
    }

    fn url(&self, scheme: &str, host: &str, path: &str) -> String {
        format!("{scheme}://{host}:{}{path}", self.port)
    }

    /// What was received since the last call.
    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// The tokens that were received since the last call; `-` for none.
    fn tokens(&self) -> Vec<String> {
        self.seen().into_iter().map(|(_, token, _)| token).collect()
    }
}

async fn serve(
    scheme: &'static str,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let field = |name| {
                parts
                    .headers
                    .get(name)
                    .map(|field| field.to_str().unwrap().to_owned())
            };
            let token = field(header::AUTHORIZATION).unwrap_or_else(|| "-".to_owned());
            let token = token.trim_start_matches("Bearer ").to_owned();
            let body = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            let origin = format!("{scheme}://{}", field(header::HOST).unwrap());
            seen.lock().unwrap().push((origin, token.clone(), body));
            Ok::<_, std::convert::Infallible>(respond(&parts.uri, &token))
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _closed_by_the_client = connection.await;
}

/// `/rejects/{tokens}`, `/redirects/{status}?{URL}`, `/requires-write`; else 200.
fn respond(uri: &http::Uri, token: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("served"));
    let set = |response: &mut Response<_>, status, name: header::HeaderName, value: &str| {
        *response.status_mut() = status;
        response.headers_mut().insert(name, value.parse().unwrap());
    };
    if let Some(rejected) = uri.path().strip_prefix("/rejects/")
        && rejected.split(',').any(|rejected| rejected == token)
    {
        let challenge = r#"Bearer error="invalid_token""#;
        let status = StatusCode::UNAUTHORIZED;
        set(&mut response, status, header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(status) = uri.path().strip_prefix("/redirects/") {
        let status = status.parse().unwrap();
        set(
            &mut response,
            status,
            header::LOCATION,
            uri.query().unwrap(),
        );
    }
    if uri.path() == "/requires-write" && token == "token-1" {
        let challenge = r#"Bearer error="insufficient_scope", scope="write""#;
        let status = StatusCode::FORBIDDEN;
        set(&mut response, status, header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// A client that finds the servers by each of their names.
fn http_client() -> Client {
    let builder = Client::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .redirect(redirect::Policy::limited(3));
    let builder = HOSTS.iter().fold(builder, |builder, host| {
        builder.resolve(host, ([127, 0, 0, 1], 0).into())
    });
    builder.build().unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    TowerLayer,
    ReqwestMiddleware,
}

const KINDS: [Kind; 2] = [Kind::TowerLayer, Kind::ReqwestMiddleware];

impl Kind {
    async fn try_send<P>(
        self,
        layer: &BearerTokenLayer<P>,
        request: Request,
    ) -> Result<StatusCode, BoxError>
    where
        P: CloneBody<Body> + Clone + Send + Sync + 'static,
    {
        let client = http_client();
        match self {
            Self::TowerLayer => {
                let inner = service_fn(move |request: http::Request<Body>| {
                    let sent = client.execute(request.try_into().unwrap());
                    async { sent.await.map(Response::<Body>::from) }
                });
                let response = layer.layer(inner).oneshot(request.try_into()?).await?;
                Ok(response.status())
            }
            Self::ReqwestMiddleware => {
                let client = reqwest_middleware::ClientBuilder::new(client)
                    .with(layer.clone())
                    .build();
                match client.execute(request).await {
                    Ok(response) => Ok(response.status()),
                    Err(reqwest_middleware::Error::Middleware(error)) => {
                        Err(error.downcast::<Error>().unwrap().into())
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    async fn send<P>(self, layer: &BearerTokenLayer<P>, request: Request) -> u16
    where
        P: CloneBody<Body> + Clone + Send + Sync + 'static,
    {
        self.try_send(layer, request).await.unwrap().as_u16()
    }

    async fn get<P>(self, layer: &BearerTokenLayer<P>, url: &str) -> u16
    where
        P: CloneBody<Body> + Clone + Send + Sync + 'static,
    {
        self.send(layer, Request::new(Method::GET, url.parse().unwrap()))
            .await
    }
}

fn post(url: &str, body: impl Into<Body>) -> Request {
    let mut request = Request::new(Method::POST, url.parse().unwrap());
    *request.body_mut() = Some(body.into());
    request
}

/// A manager of `token-1`, `token-2`, …
fn builder(endpoint: &TokenEndpoint) -> TokenManagerBuilder {
    let url = Endpoint::new("https://as.example/token").unwrap();
    TokenManager::builder(url, ClientCredentials::new("shop", "s3cret-of-the-shop"))
        .transport(endpoint.clone())
        .allow_http(HOSTS)
}

fn tokens() -> TokenManager {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
    builder(&endpoint).start().unwrap()
}

/// The layer of a manager for this server, by its name `a.test`.
fn layer(tokens: &TokenManager, server: &Server) -> BearerTokenLayer {
    let origins = ["http", "https"].map(|scheme| server.url(scheme, "a.test", ""));
    tokens.layer(origins.map(|origin| Origin::new(origin).unwrap()))
}

#[tokio::test]
async fn a_request_to_the_origin_gets_the_current_token() {
    for kind in KINDS {
        let server = Server::start().await;
        let layer = layer(&tokens(), &server);
        for scheme in ["http", "https"] {
            let url = server.url(scheme, "a.test", "/list?x=y");
            assert_eq!(kind.get(&layer, &url).await, 200);
            assert_eq!(kind.send(&layer, post(&url, "an order")).await, 200);
        }
        assert_eq!(server.tokens(), ["token-1"; 4], "{kind:?}");
    }
}

#[tokio::test]
async fn a_rejected_token_is_renewed_and_the_request_sent_once_more() {
    for kind in KINDS {
        let server = Server::start().await;
        let layer = layer(&tokens(), &server);
        let url = server.url("http", "a.test", "/rejects/token-1");
        assert_eq!(kind.get(&layer, &url).await, 200);
        assert_eq!(server.tokens(), ["token-1", "token-2"], "{kind:?}");
    }
}

#[tokio::test]
async fn a_retry_that_is_rejected_is_not_retried() {
    for kind in KINDS {
        let server = Server::start().await;
        let layer = layer(&tokens(), &server);
        let url = server.url("http", "a.test", "/rejects/token-1,token-2");
        assert_eq!(kind.get(&layer, &url).await, 401);
        assert_eq!(server.tokens(), ["token-1", "token-2"], "{kind:?}");
        // Within ten seconds, a rejection renews no further token.
        assert_eq!(kind.get(&layer, &url).await, 401);
        assert_eq!(server.tokens(), ["token-2"], "{kind:?}");
    }
}

#[tokio::test]
async fn each_401_renews_with_that_setting() {
    for kind in KINDS {
        let server = Server::start().await;
        let url = server.url("http", "a.test", "/redirects/401?/");
        let layer = layer(&tokens(), &server);
        assert_eq!(kind.get(&layer, &url).await, 401);
        assert_eq!(
            server.tokens(),
            ["token-1"],
            "{kind:?}: without a challenge"
        );
        let layer = layer.renew_on(Unauthorized::Any);
        assert_eq!(kind.get(&layer, &url).await, 401);
        assert_eq!(server.tokens(), ["token-1", "token-2"], "{kind:?}");
    }
}

#[tokio::test]
async fn a_body_in_memory_is_sent_again_and_a_stream_is_not() {
    let stream = || Body::wrap(Full::<Bytes>::from("an order"));
    let is_sent_again: [(fn() -> Body, bool); 3] = [
        (|| Body::from("an order"), true),
        (|| Body::from(String::from("an order")), true),
        (stream_of_an_order, false),
    ];
    assert!(stream().as_bytes().is_none());
    for kind in KINDS {
        for (body, is_sent_again) in is_sent_again {
            let server = Server::start().await;
            let layer = layer(&tokens(), &server).retry_with(CloneBufferedBody);
            let url = server.url("http", "a.test", "/rejects/token-1");
            let status = kind.send(&layer, post(&url, body())).await;
            let seen = server.seen();
            assert!(seen.iter().all(|(_, _, body)| body == "an order"));
            let tokens: Vec<&str> = seen.iter().map(|(_, token, _)| &**token).collect();
            if is_sent_again {
                assert_eq!((status, &*tokens), (200, &["token-1", "token-2"][..]));
            } else {
                assert_eq!((status, &*tokens), (401, &["token-1"][..]), "{kind:?}");
                // The token is renewed for the next request.
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert_eq!(kind.send(&layer, post(&url, body())).await, 200);
                assert_eq!(server.tokens(), ["token-2"], "{kind:?}");
            }
        }
    }
}

fn stream_of_an_order() -> Body {
    Body::wrap(Full::<Bytes>::from("an order"))
}

#[tokio::test]
async fn by_default_only_a_request_without_a_body_is_sent_again() {
    for kind in KINDS {
        for (body, is_sent_again) in [
            (None, true),
            (Some(Body::from("")), true),
            (Some(Body::from("an order")), false),
            (Some(stream_of_an_order()), false),
        ] {
            let server = Server::start().await;
            let url = server.url("http", "a.test", "/rejects/token-1");
            let mut request = Request::new(Method::POST, url.parse().unwrap());
            *request.body_mut() = body;
            let status = kind.send(&layer(&tokens(), &server), request).await;
            let expected = if is_sent_again { 200 } else { 401 };
            assert_eq!(status, expected, "{kind:?}");
            assert_eq!(server.tokens().len(), 1 + usize::from(is_sent_again));
        }
        // And none, if that is set.
        let server = Server::start().await;
        let layer = layer(&tokens(), &server).retry_never();
        let url = server.url("http", "a.test", "/rejects/token-1");
        assert_eq!(kind.get(&layer, &url).await, 401);
        assert_eq!(server.tokens(), ["token-1"], "{kind:?}");
    }
}

#[tokio::test]
async fn another_origin_gets_no_token() {
    for kind in KINDS {
        let (server, other) = (Server::start().await, Server::start().await);
        let tokens = tokens();
        let layer = tokens
            .layer([Origin::new(server.url("https", "a.test", "")).unwrap()])
            .allow_origin_form();
        for url in [
            server.url("http", "a.test", "/"),
            server.url("https", "b.test", "/"),
            other.url("https", "a.test", "/"),
        ] {
            assert_eq!(kind.get(&layer, &url).await, 200);
        }
        assert_eq!(server.tokens(), ["-"; 2], "{kind:?}");
        assert_eq!(other.tokens(), ["-"], "{kind:?}");
    }
}

#[tokio::test]
async fn plain_http_beyond_loopback_gets_no_token_unless_its_host_is_allowed() {
    for kind in KINDS {
        let server = Server::start().await;
        let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
        let url = Endpoint::new("https://as.example/token").unwrap();
        let strict = TokenManager::builder(url, ClientCredentials::new("shop", "s3cret"))
            .transport(endpoint)
            .start()
            .unwrap();
        let url = |host| server.url("http", host, "/");
        for (tokens, host, expected) in [
            (&strict, "a.test", "-"),
            (&strict, "127.0.0.1", "token-1"),
            (&tokens(), "a.test", "token-1"),
        ] {
            let origins = ["a.test", "127.0.0.1"].map(|host| Endpoint::new(url(host)).unwrap());
            assert_eq!(kind.get(&tokens.layer(origins), &url(host)).await, 200);
            assert_eq!(server.tokens(), [expected], "{kind:?} {host}");
        }
    }
}

#[tokio::test]
async fn own_credentials_are_sent_unchanged() {
    for kind in KINDS {
        let server = Server::start().await;
        let url = server.url("http", "a.test", "/rejects/own");
        let mut request = Request::new(Method::GET, url.parse().unwrap());
        let field = "Bearer own".parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, field);
        assert_eq!(kind.send(&layer(&tokens(), &server), request).await, 401);
        assert_eq!(server.tokens(), ["own"], "{kind:?}");
    }
}

/// Another host, another port, and another scheme, each alone; also if the other origin is a
/// target, too.
#[tokio::test]
async fn a_redirect_to_another_origin_takes_no_token_with_it() {
    for kind in KINDS {
        for status in [301, 302, 303, 307, 308] {
            let (server, other) = (Server::start().await, Server::start().await);
            for (from, to) in [
                (("https", "a.test"), server.url("https", "b.test", "/")),
                (("https", "a.test"), server.url("http", "a.test", "/")),
                (("http", "a.test"), server.url("https", "a.test", "/")),
                (("https", "a.test"), other.url("https", "a.test", "/")),
            ] {
                let from = server.url(from.0, from.1, &format!("/redirects/{status}?{to}"));
                let origin = |url: &str| Origin::from(Endpoint::new(url).unwrap());
                let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
                let targets = TokenManagers::builder()
                    .target(origin(&from), builder(&endpoint))
                    .target(origin(&to), builder(&endpoint));
                for layer in [
                    builder(&endpoint).start().unwrap().layer([origin(&from)]),
                    targets.start().unwrap().layer(),
                ] {
                    assert_eq!(kind.get(&layer, &from).await, 200);
                    let [mut at_server, at_other] = [server.seen(), other.seen()];
                    at_server.extend(at_other);
                    let [first, second] = &at_server[..] else {
                        panic!("{at_server:?}")
                    };
                    assert!(first.1.starts_with("token-"), "{first:?}");
                    assert_eq!(second.1, "-", "{kind:?} {status} {first:?} {second:?}");
                    assert!(to.starts_with(&second.0), "it has arrived");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_redirect_within_the_origin_keeps_the_token() {
    for kind in KINDS {
        let server = Server::start().await;
        let layer = layer(&tokens(), &server);
        let url = server.url("http", "a.test", "/redirects/307?/list");
        assert_eq!(kind.get(&layer, &url).await, 200);
        assert_eq!(server.tokens(), ["token-1", "token-1"], "{kind:?}");
        // And a rejection there is one of this token.
        let url = server.url("http", "a.test", "/redirects/307?/rejects/token-1");
        assert_eq!(kind.get(&layer, &url).await, 200);
        assert_eq!(
            server.tokens(),
            ["token-1", "token-1", "token-2", "token-2"],
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn a_challenge_of_insufficient_scope_leads_to_a_token_with_that_scope() {
    for kind in KINDS {
        let server = Server::start().await;
        let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
        let builder = || builder(&endpoint).scope("read");
        let url = server.url("http", "a.test", "/requires-write");
        let fixed = builder().start().unwrap();
        assert_eq!(kind.get(&layer(&fixed, &server), &url).await, 403);
        assert_eq!(server.tokens(), ["token-1"], "{kind:?}");

        let endpoint = TokenEndpoint::with_reply(Reply::Token(3600));
        let builder = self::builder(&endpoint).scope("read");
        let tokens = builder
            .step_up_scopes(["write".parse().unwrap()])
            .start()
            .unwrap();
        let layer = layer(&tokens, &server);
        assert_eq!(kind.get(&layer, &url).await, 200);
        assert_eq!(server.tokens(), ["token-1", "token-2"], "{kind:?}");
        let scope = ("scope".to_owned(), "read write".to_owned());
        assert!(endpoint.token_requests()[1].form.contains(&scope));
    }
}

#[tokio::test]
async fn each_target_of_several_gets_its_token() {
    for kind in KINDS {
        let (server, other) = (Server::start().await, Server::start().await);
        let tokens = |number| {
            let reply = json!({ "access_token": number, "token_type": "Bearer" });
            builder(&TokenEndpoint::with_reply(Reply::Json(200, reply)))
        };
        let layer = TokenManagers::builder()
            .target(server.url("https", "a.test", ""), tokens("1"))
            .target(server.url("http", "a.test", ""), tokens("2"))
            .target(server.url("https", "b.test", ""), tokens("3"))
            .target(other.url("https", "a.test", ""), tokens("4"))
            .start()
            .unwrap()
            .layer();
        for url in [
            server.url("https", "a.test", "/"),
            server.url("http", "a.test", "/"),
            server.url("https", "b.test", "/"),
            server.url("http", "b.test", "/"),
            other.url("https", "a.test", "/"),
        ] {
            assert_eq!(kind.get(&layer, &url).await, 200);
        }
        assert_eq!(server.tokens(), ["1", "2", "3", "-"], "{kind:?}");
        assert_eq!(other.tokens(), ["4"], "{kind:?}");
    }
}

#[tokio::test]
async fn an_error_of_the_manager_can_be_downcast_from_that_of_the_client() {
    for kind in KINDS {
        let server = Server::start().await;
        let refusal = Reply::Json(401, json!({ "error": "invalid_client" }));
        let tokens = builder(&TokenEndpoint::with_reply(refusal));
        let layer = layer(&tokens.start().unwrap(), &server);
        let url = server.url("http", "a.test", "/");
        let request = Request::new(Method::GET, url.parse().unwrap());
        let error = kind.try_send(&layer, request).await.unwrap_err();
        let error = error.downcast_ref::<Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused, "{kind:?}");
        let code = error.oauth_error().map(|error| error.code().to_owned());
        assert_eq!(code.as_deref(), Some("invalid_client"));
        assert_eq!(server.seen(), []);
    }
}

// Facts of reqwest alone.

/// The tower service does not see where its inner service was redirected.
#[tokio::test]
async fn a_rejection_by_another_origin_renews_no_token_of_the_middleware() {
    let (server, other) = (Server::start().await, Server::start().await);
    let layer = layer(&tokens(), &server).renew_on(Unauthorized::Any);
    let to = other.url("http", "b.test", "/rejects/-");
    let url = server.url("http", "a.test", &format!("/redirects/302?{to}"));
    for _ in 0..2 {
        assert_eq!(Kind::ReqwestMiddleware.get(&layer, &url).await, 401);
        assert_eq!(server.tokens(), ["token-1"]);
        assert_eq!(other.tokens(), ["-"]);
    }
}

#[tokio::test]
async fn a_retry_of_reqwest_has_the_settings_of_the_request() {
    let server = Server::start().await;
    let layer = layer(&tokens(), &server).retry_with(CloneBufferedBody);
    let attempts = Attempts::default();
    let client = reqwest_middleware::ClientBuilder::new(http_client());
    let client = client.with(layer).with(record(&attempts)).build();
    let url = server.url("http", "a.test", "/rejects/token-1");
    let request = client
        .post(url)
        .version(http::Version::HTTP_10)
        .timeout(Duration::from_secs(3))
        .header("x-order", "7")
        .body("an order");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let order = "7".to_owned();
    let attempt = (http::Version::HTTP_10, Some(Duration::from_secs(3)), order);
    assert_eq!(*attempts.lock().unwrap(), [attempt.clone(), attempt]);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|(_, _, body)| body == "an order"));
}

/// The version, the time limit and the field `x-order` of each request.
type Attempts = Arc<Mutex<Vec<(http::Version, Option<Duration>, String)>>>;

/// A middleware that records what the layer before it sends.
fn record(attempts: &Attempts) -> impl Middleware {
    fn middleware<F>(function: F) -> F
    where
        F: for<'a> Fn(
            Request,
            &'a mut Extensions,
            Next<'a>,
        )
            -> BoxFuture<'a, Result<reqwest::Response, reqwest_middleware::Error>>,
    {
        function
    }
    let attempts = Arc::clone(attempts);
    middleware(move |request, extensions, next| {
        let order = request.headers()["x-order"].to_str().unwrap().to_owned();
        let attempt = (request.version(), request.timeout().copied(), order);
        attempts.lock().unwrap().push(attempt);
        Box::pin(next.run(request, extensions))
    })
}
