//! The example `forward_auth` behind nginx and Caddy, with the configurations of its documentation.
//!
//! The proxies are Debian's. If one is not installed, the tests print "skipped" and pass, unless
//! `REQUIRE_INTEROP` is set, as in CI.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication, TokenMint};
use tower_oauth::resource_server::Algorithm;

use crate::servers::{authorization_server, skip};
use crate::support::program::{self, Serving, example};

const TIMEOUT: Duration = Duration::from_secs(10);
const IDENTITY: [&str; 3] = ["x-auth-subject", "x-auth-client-id", "x-auth-scope"];
/// The addresses in the documentation of the example.
const DOCUMENTED_AUTH: &str = "127.0.0.1:8082";
const DOCUMENTED_UPSTREAM: &str = "127.0.0.1:3000";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Nginx,
    Caddy,
}

/// Finds a program, also where Debian installs daemons.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The proxies to test: both or none.
fn proxies() -> Vec<Kind> {
    if find("nginx").is_some() && find("caddy").is_some() {
        return vec![Kind::Nginx, Kind::Caddy];
    }
    skip("nginx or caddy: bash .ci/run interop");
    Vec::new()
}

/// The configuration in the documentation of the example.
fn documented(language: &str) -> String {
    let fence = format!("//! ```{language}");
    let lines = include_str!("../../examples/forward_auth.rs").lines();
    let lines = lines
        .skip_while(|line| *line != fence)
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!"));
    lines.collect::<Vec<_>>().join("\n")
}

fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replace(from, to)
}

/// A running proxy. It ends, and its folder is removed, when it is dropped.
struct Proxy {
    _child: Child,
    folder: TempDir,
    http1: SocketAddr,
    http2: SocketAddr,
}

impl Proxy {
    async fn start(kind: Kind, auth: &str, upstream: SocketAddr) -> Self {
        // Another program may take a free port before the proxy does.
        for _ in 0..5 {
            if let Some(proxy) = Self::try_start(kind, auth, upstream).await {
                return proxy;
            }
        }
        panic!("{kind:?} does not start");
    }

    async fn try_start(kind: Kind, auth: &str, upstream: SocketAddr) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let free = [(); 2].map(|()| StdListener::bind("127.0.0.1:0").unwrap());
        let [http1, http2] = free.map(|listener| listener.local_addr().unwrap());
        let adapt = |language| {
            let documented = documented(language);
            let adapted = replace(&documented, DOCUMENTED_AUTH, auth);
            replace(&adapted, DOCUMENTED_UPSTREAM, &upstream.to_string())
        };
        let mut command = match kind {
            Kind::Nginx => {
                // Without a master process, no worker outlives it.
                let listen = format!("listen {http1}; listen {http2} http2;");
                let server = replace(&adapt("nginx"), "listen 8080;", &listen);
                let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|path| format!("{path}_temp_path {path};"));
                let config = format!(
                    "daemon off; master_process off; pid nginx.pid; error_log stderr;\n\
                     events {{}}\nhttp {{ access_log off; {}\n{server}\n}}\n",
                    paths.join(" ")
                );
                std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
                let mut command = Command::new(find("nginx").unwrap());
                command
                    .arg("-p")
                    .arg(folder.path())
                    .args(["-c", "nginx.conf"]);
                command.args(["-e", "stderr"]);
                command
            }
            Kind::Caddy => {
                let site = format!("http://{http1}, http://{http2} {{");
                let site = replace(&adapt("caddyfile"), "api.example {", &site);
                let config = format!(
                    "{{\n\tadmin off\n\tservers {{\n\t\tprotocols h1 h2c\n\t}}\n}}\n{site}\n"
                );
                std::fs::write(folder.path().join("Caddyfile"), config).unwrap();
                let mut command = Command::new(find("caddy").unwrap());
                command.args(["run", "--adapter", "caddyfile", "--config"]);
                command.arg(folder.path().join("Caddyfile"));
                command
            }
        };
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut child = command
            .env_clear()
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let listens = async {
            for address in [http1, http2] {
                while TcpStream::connect(address).await.is_err() {
                    if child.try_wait().unwrap().is_some() {
                        return false;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            true
        };
        let listens = tokio::time::timeout(TIMEOUT, listens).await == Ok(true);
        let proxy = Self {
            _child: child,
            folder,
            http1,
            http2,
        };
        if !listens {
            let log = std::fs::read_to_string(proxy.folder.path().join("log"));
            let _ = writeln!(std::io::stderr(), "{kind:?}: {}", log.unwrap_or_default());
        }
        listens.then_some(proxy)
    }

    /// Sends a request on a new connection.
    async fn send(&self, version: Version, mut request: Request<Full<Bytes>>) -> Response<Bytes> {
        let address = if version == Version::HTTP_2 {
            self.http2
        } else {
            self.http1
        };
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let path = request.uri().path().to_owned();
        *request.version_mut() = version;
        let exchange = async {
            if version == Version::HTTP_2 {
                *request.uri_mut() = format!("http://{address}{path}").parse().unwrap();
                let executor = TokioExecutor::new();
                let connection = hyper::client::conn::http2::handshake(executor, stream).await;
                let (mut sender, connection) = connection.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            } else {
                let host = address.to_string().parse().unwrap();
                request.headers_mut().insert(header::HOST, host);
                let connection = hyper::client::conn::http1::handshake(stream).await;
                let (mut sender, connection) = connection.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            }
        };
        let response = tokio::time::timeout(TIMEOUT, exchange).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Response::from_parts(head, body)
    }
}

/// A server that counts requests and responds with their fields. A path like `/403` sets the status.
struct Upstream {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Upstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
            counter.fetch_add(1, Ordering::Relaxed);
            let status = request.uri().path().trim_start_matches('/').parse();
            let fields: Vec<(&str, &str)> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            (status.unwrap_or(StatusCode::OK), axum::Json(json!(fields)))
        });
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// The non-empty fields that the upstream got, with names as CGI programs read them.
fn upstream_fields(response: &Response<Bytes>) -> Vec<(String, String)> {
    assert_eq!(response.status(), StatusCode::OK);
    let fields: Vec<(String, String)> = serde_json::from_slice(response.body()).unwrap();
    fields
        .into_iter()
        .map(|(name, value)| (name.replace('_', "-"), value))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// The values of the identity fields that the upstream got.
fn identity(response: &Response<Bytes>) -> [Vec<String>; 3] {
    let fields = upstream_fields(response);
    IDENTITY.map(|name| {
        let values = fields.iter().filter(|(field, _)| field == name);
        values.map(|(_, value)| value.clone()).collect()
    })
}

/// An issuer on a port.
struct Issuer {
    server: AuthorizationServer,
    shop: RegisteredApplication,
}

impl Issuer {
    async fn start() -> Self {
        let (server, shop) = authorization_server(Algorithm::Es256).await;
        Self { server, shop }
    }

    fn mint(&self) -> TokenMint {
        let mint = self.server.mint(&self.shop).audience(["orders"]);
        mint.claim("sub", "shop-1").claim("client_id", "shop")
    }
}

/// Starts the example, and returns it with its address. Waits until it has keys, if it can.
async fn forward_auth(issuer: Option<&Issuer>, scope: &str) -> (Serving, String) {
    let mut command = example("forward_auth");
    let url = issuer.map_or_else(
        || "http://127.0.0.1:1".to_owned(),
        |issuer| issuer.server.issuer().as_str().to_owned(),
    );
    command.env("ISSUER", url).env("AUDIENCE", "orders");
    command.env("SCOPE", scope);
    let program = Serving::start(command).await;
    let base = program.text("listening");
    if let Some(issuer) = issuer {
        let token = issuer.mint().sign();
        let url = format!("{base}/auth");
        let keys_are_there = async {
            while program::get(&url, Some(&token)).await.0 == StatusCode::SERVICE_UNAVAILABLE {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, keys_are_there).await.unwrap();
    }
    let address = base.strip_prefix("http://").unwrap().to_owned();
    (program, address)
}

fn request(token: &str) -> Request<Full<Bytes>> {
    request_with(Method::GET, Some(&format!("Bearer {token}")), &[])
}

fn request_with(
    method: Method,
    authorization: Option<&str>,
    fields: &[(&str, &str)],
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri("/orders");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request.body(Full::default()).unwrap()
}

fn field<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str().unwrap());
    assert_eq!(values.next(), None, "{name} is repeated");
    value
}

const FORGED: [(&str, &str); 7] = [
    ("x-auth-subject", "forged"),
    ("x-auth-client-id", "forged"),
    ("x-auth-scope", "forged"),
    ("x_auth_subject", "forged"),
    ("x_auth-client_id", "forged"),
    ("x-auth_client-id", "forged"),
    ("x-auth_scope", "forged"),
];

#[tokio::test]
async fn the_upstream_gets_the_identity_of_the_token_and_never_that_of_the_client() {
    for kind in proxies() {
        let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
        let (_auth, address) = forward_auth(Some(&issuer), "").await;
        let proxy = Proxy::start(kind, &address, upstream.address).await;
        let named = issuer.mint().scope("orders.read orders.write").sign();
        let nameless = issuer.mint().without("sub").without("client_id");
        let nameless = nameless.scope("").sign();
        for version in [Version::HTTP_11, Version::HTTP_2] {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                for (token, expected) in [
                    (&named, ["shop-1", "shop", "orders.read orders.write"]),
                    (&nameless, ["", "", ""]),
                ] {
                    for forged in [&[][..], &FORGED] {
                        let case = format!("{kind:?} {version:?} {method} {expected:?}");
                        let bearer = format!("Bearer {token}");
                        let request = request_with(method.clone(), Some(&bearer), forged);
                        let response = proxy.send(version, request).await;
                        let expected = expected.map(|value| {
                            let value = Some(value).filter(|value| !value.is_empty());
                            value.map(str::to_owned).into_iter().collect::<Vec<_>>()
                        });
                        assert_eq!(identity(&response), expected, "{case}");
                        let fields = upstream_fields(&response);
                        assert!(
                            fields.iter().all(|(_, value)| value != "forged"),
                            "{case}: {fields:?}"
                        );
                    }
                }
            }
        }
    }
}

/// Fields named in `Connection` are removed on the way (RFC 9110 §7.6.1).
#[tokio::test]
async fn a_client_can_remove_an_identity_field_but_not_forge_it() {
    for kind in proxies() {
        let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
        let (_auth, address) = forward_auth(Some(&issuer), "").await;
        let proxy = Proxy::start(kind, &address, upstream.address).await;
        let bearer = format!("Bearer {}", issuer.mint().scope("orders.read").sign());
        let mut fields = FORGED.to_vec();
        fields.push(("connection", "x-auth-scope"));
        let request = request_with(Method::GET, Some(&bearer), &fields);
        let [subject, client_id, scope] = identity(&proxy.send(Version::HTTP_11, request).await);
        assert_eq!(
            (subject, client_id),
            (vec!["shop-1".into()], vec!["shop".into()])
        );
        let expected: &[&str] = match kind {
            Kind::Nginx => &["orders.read"],
            Kind::Caddy => &[],
        };
        assert_eq!(scope, expected, "{kind:?}");
        // Without the credentials, the request is refused.
        let request = request_with(
            Method::GET,
            Some(&bearer),
            &[("connection", "authorization")],
        );
        let response = proxy.send(Version::HTTP_11, request).await;
        let expected = match kind {
            Kind::Nginx => StatusCode::OK,
            Kind::Caddy => StatusCode::UNAUTHORIZED,
        };
        assert_eq!(response.status(), expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_the_client_with_its_challenge_and_not_the_upstream() {
    for kind in proxies() {
        let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
        let (_auth, address) = forward_auth(Some(&issuer), "orders.read").await;
        let proxy = Proxy::start(kind, &address, upstream.address).await;
        let bearer = |mint: TokenMint| Some(format!("Bearer {}", mint.sign()));
        let read = || issuer.mint().scope("orders.read");
        let cases = [
            (None, 401, r#"Bearer realm="resource""#),
            (bearer(read().with_another_key()), 401, "invalid_token"),
            (bearer(read().expired()), 401, "invalid_token"),
            (bearer(read().audience(["bills"])), 401, "invalid_token"),
            (Some("Bearer a b".to_owned()), 400, "invalid_request"),
            (
                bearer(issuer.mint().scope("orders.write")),
                403,
                r#"scope="orders.read""#,
            ),
        ];
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        for version in [Version::HTTP_11, Version::HTTP_2] {
            for (method, fields) in [
                (Method::GET, &[][..]),
                (Method::POST, &[]),
                (Method::POST, &grpc),
                (Method::OPTIONS, &FORGED),
            ] {
                for (authorization, status, challenge) in &cases {
                    let case = format!("{kind:?} {version:?} {method} {status} {challenge}");
                    let request = request_with(method.clone(), authorization.as_deref(), fields);
                    let response = proxy.send(version, request).await;
                    assert_eq!(response.status().as_u16(), *status, "{case}");
                    let found = field(response.headers(), "www-authenticate").unwrap();
                    assert!(found.contains(challenge), "{case}: {found}");
                    assert_eq!(field(response.headers(), "grpc-status"), None, "{case}");
                }
                let mut twice = request_with(method.clone(), bearer(read()).as_deref(), fields);
                let second = header::HeaderValue::from_static("Bearer x");
                twice.headers_mut().append(header::AUTHORIZATION, second);
                let response = proxy.send(version, twice).await;
                assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{kind:?}");
                assert_eq!(upstream.requests(), 0, "{kind:?} {version:?} {method}");
                let request = request_with(method.clone(), bearer(read()).as_deref(), fields);
                let response = proxy.send(version, request).await;
                assert_eq!(response.status(), StatusCode::OK, "{kind:?} {method}");
                assert_eq!(upstream.requests.swap(0, Ordering::Relaxed), 1);
            }
        }
    }
}

#[tokio::test]
async fn without_keys_or_without_the_program_no_request_is_forwarded() {
    for kind in proxies() {
        let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
        let (auth, address) = forward_auth(None, "").await;
        let proxy = Proxy::start(kind, &address, upstream.address).await;
        // A token of the issuer that cannot be reached.
        let token = issuer.mint().claim("iss", "http://127.0.0.1:1").sign();
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let response = proxy.send(version, request(&token)).await;
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(field(response.headers(), "retry-after"), Some("5"));
            assert_eq!(field(response.headers(), "www-authenticate"), None);
        }
        assert_eq!(auth.terminate().await.0, Some(0));
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let response = proxy.send(version, request(&token)).await;
            let expected = match kind {
                Kind::Nginx => StatusCode::SERVICE_UNAVAILABLE,
                Kind::Caddy => StatusCode::BAD_GATEWAY,
            };
            assert_eq!(response.status(), expected, "{kind:?} {version:?}");
        }
        assert_eq!(upstream.requests(), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn an_error_of_the_upstream_is_not_taken_for_a_refusal() {
    for kind in proxies() {
        let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
        let (_auth, address) = forward_auth(Some(&issuer), "").await;
        let proxy = Proxy::start(kind, &address, upstream.address).await;
        for status in [400, 401, 403, 500, 503] {
            let mut request = request(&issuer.mint().sign());
            *request.uri_mut() = format!("/{status}").parse().unwrap();
            let response = proxy.send(Version::HTTP_11, request).await;
            assert_eq!(response.status().as_u16(), status, "{kind:?}");
            let body: Value = serde_json::from_slice(response.body()).unwrap();
            assert!(body.is_array(), "{kind:?} {status}: the upstream's body");
            assert_eq!(field(response.headers(), "www-authenticate"), None);
        }
    }
}
