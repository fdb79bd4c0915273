//! Client libraries of other vendors that authenticate to the development authorization server:
//! oauth4webapi and openid-client of npm, requests-oauth2client of PyPI.
//!
//! What they send is made by the libraries: a defect is put in by the hook that each has for it. In
//! addition to what `node.rs` needs, these tests need the packages that
//! `tests/interop/install_python.sh` installs into `INTEROP_DIR` (else `target/interop`).

mod accepted;
mod refused;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication};
use tower_oauth::resource_server::Algorithm;

use crate::client_keys::signing_key;
use crate::node;
use crate::servers::{install_folder, skip};
use crate::support::jwt;

const CLIENT_CREDENTIALS: &str = "client_credentials";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// In place of a grant: a request to the introspection endpoint (RFC 7662).
const INTROSPECTION: &str = "introspection";

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A program with a library, which takes jobs.
struct Library {
    name: &'static str,
    /// Ends when it is dropped.
    _program: Child,
    jobs: ChildStdin,
    outcomes: BufReader<ChildStdout>,
}

impl Library {
    /// Every library, if all of them are installed.
    fn all() -> Option<[Self; 3]> {
        let packages = node::packages()?;
        let python = install_folder().join("python/bin/python");
        if !python.is_file() {
            skip("requests-oauth2client: tests/interop/install_python.sh");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/client_library.py");
        let python = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let node = |name| node::node(&packages, "client_library.js", &[("LIBRARY", name)]);
        Some([
            Self::new("oauth4webapi", node("oauth4webapi")),
            Self::new("openid-client", node("openid-client")),
            Self::new("requests-oauth2client", python.unwrap()),
        ])
    }

    fn new(name: &'static str, mut program: Child) -> Self {
        Self {
            name,
            jobs: program.stdin.take().unwrap(),
            outcomes: BufReader::new(program.stdout.take().unwrap()),
            _program: program,
        }
    }

    /// Status and body of the response that the library got.
    async fn send(&mut self, what: &str, job: &Value) -> (u64, Value) {
        let job = format!("{job}\n");
        self.jobs.write_all(job.as_bytes()).await.unwrap();
        let mut line = String::new();
        let read = self.outcomes.read_line(&mut line);
        let read = tokio::time::timeout(Duration::from_secs(60), read).await;
        read.expect("the program answers in time").unwrap();
        let outcome: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("{}: {what}: {line:?}", self.name));
        let status = outcome["status"].as_u64().unwrap();
        // RFC 6749 §5.2
        if status == 401 {
            assert_eq!(outcome["challenge"], "basic", "{}: {what}", self.name);
        }
        (status, outcome["body"].clone())
    }

    async fn accepted(&mut self, what: &str, job: &Value) -> Value {
        let (status, body) = self.send(what, job).await;
        assert_eq!(status, 200, "{}: {what}: {body}", self.name);
        body
    }

    async fn assert_refused(&mut self, what: &str, job: &Value, expected: (u64, &str)) -> Value {
        let (status, body) = self.send(what, job).await;
        let found = (status, body["error"].as_str().unwrap_or_default());
        assert_eq!(found, expected, "{}: {what}: {body}", self.name);
        body
    }
}

/// A server with an application that has a key.
struct Fixture {
    server: AuthorizationServer,
    shop: RegisteredApplication,
    other: RegisteredApplication,
    /// The public key.
    jwk: Value,
    job: Value,
}

impl Fixture {
    async fn new() -> Self {
        let (server, shop) = node::server().await;
        let other = server.register("other").unwrap();
        let (pem, jwks) = signing_key(Algorithm::Es256);
        shop.set_jwks(jwks.clone()).unwrap();
        let job = json!({
            "issuer": server.issuer().as_str(),
            "audience": server.issuer().as_str(),
            "client_id": shop.client_id(),
            "secret": shop.secret().expose_secret(),
            "key": key("ES256", pem.expose_secret()),
            "methods": ["private_key_jwt"],
            "grant": CLIENT_CREDENTIALS,
            "parameters": {},
        });
        let jwk = jwks["keys"][0].clone();
        Self {
            server,
            shop,
            other,
            jwk,
            job,
        }
    }

    /// A client credentials request with `private_key_jwt`, but for the members of `changes`.
    fn job(&self, changes: &Value) -> Value {
        with(&self.job, changes)
    }

    /// What makes of a job one of another grant.
    fn grant(&self, grant: &str) -> Value {
        let parameters = match grant {
            INTROSPECTION => json!({ "token": self.server.mint(&self.shop).sign() }),
            TOKEN_EXCHANGE => {
                let mint = self
                    .server
                    .mint(&self.other)
                    .scope("stock.read stock.write");
                json!({
                    "subject_token": mint.audience([self.shop.client_id()]).sign(),
                    "subject_token_type": ACCESS_TOKEN,
                    "audience": "stock",
                    "scope": "stock.read",
                })
            }
            _ => json!({}),
        };
        json!({ "grant": grant, "parameters": parameters })
    }

    async fn metadata(&self) -> Value {
        let issuer = self.server.issuer();
        let url = format!("{issuer}/.well-known/openid-configuration");
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }
}

/// The key of a job. The `kid` is that of its JWK.
fn key(alg: &str, pem: &str) -> Value {
    json!({ "pem": pem, "alg": alg, "kid": alg })
}

/// A copy with other members.
fn with(document: &Value, changes: &Value) -> Value {
    let mut document = document.clone();
    let changes = changes.as_object().unwrap().clone();
    document.as_object_mut().unwrap().extend(changes);
    document
}

/// The claims of a token that this server issued.
fn claims(body: &Value) -> Value {
    jwt::decode(body["access_token"].as_str().unwrap()).1
}
