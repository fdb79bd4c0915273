//! Interoperability with Keycloak, over plain http and https on loopback.
//!
//! `tests/interop/install_keycloak.sh` installs it into `INTEROP_DIR` (else `target/interop`).
//! Without it the test prints "skipped" and passes, unless `REQUIRE_INTEROP` is set, as in CI.
//!
//! One Keycloak serves all facts, because it takes half a minute to start.

mod clients;
mod exchange;
mod tokens;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tower_oauth::client::TokenManagerBuilder;
use tower_oauth::error::ErrorKind;
use tower_oauth::resource_server::RejectionKind;
use tower_oauth::{
    Audience, ClientCredentials, Error, Issuer, ResourceServer, TokenManager, TrustedIssuer,
};

use crate::client_keys::Certificate;
use crate::servers::{free_port, install_folder, skip};
use crate::support::jwt;

const STARTUP: Duration = Duration::from_secs(300);
const ADMIN: &str = "admin";
/// A secret whose form-urlencoding (RFC 6749 §2.3.1) differs in every reserved character. Without
/// it, `%d%` is no encoding.
const SECRET: &str = "a+b/c=%d%e&f:g?h%20";
const AUDIENCE: &str = "orders";

/// A running Keycloak with a database of its own.
struct Keycloak {
    port: u16,
    https_port: u16,
    data: TempDir,
    /// The certificate of its https.
    server: Certificate,
    /// The certificates of two clients, which its https accepts. Their common names are `shop` and
    /// `another`.
    certificates: [Certificate; 2],
    /// `None` while it is stopped.
    process: Mutex<Option<Process>>,
    http: reqwest::Client,
}

/// The script `kc.sh` and its Java process, which are one process group.
struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.0.id());
        let mut kill = Command::new("kill");
        let _ = kill.args(["-s", signal, "--", &group]).status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal("KILL");
            let _ = self.0.wait();
        }
    }
}

impl Keycloak {
    /// Starts the installed Keycloak, if there is one.
    async fn start() -> Option<Arc<Self>> {
        if !install_folder().join("keycloak/installed").is_file() {
            skip("Keycloak: tests/interop/install_keycloak.sh");
            return None;
        }
        let data = TempDir::new().unwrap();
        let certificate = |name| Certificate::new(data.path(), name);
        let keycloak = Self {
            port: free_port(),
            https_port: free_port(),
            server: certificate("keycloak"),
            certificates: ["shop", "another"].map(certificate),
            data,
            process: Mutex::new(None),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        keycloak.run().await;
        Some(Arc::new(keycloak))
    }

    fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The URL under which it asks for a certificate of the client.
    fn https_base(&self) -> String {
        format!("https://localhost:{}", self.https_port)
    }

    /// Starts the process and waits until it serves.
    async fn run(&self) {
        let data = self.data.path();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(data.join("log"))
            .unwrap();
        let database = data.join("database").display().to_string();
        let [shop, another] = self.certificates.each_ref();
        let [shop, another] = [shop, another].map(|client| client.certificate.display());
        let process = Command::new(install_folder().join("keycloak/bin/kc.sh"))
            .args(["start", "--optimized", "--cache=local"])
            .args(["--http-enabled=true", "--http-host=127.0.0.1"])
            .arg(format!("--http-port={}", self.port))
            .arg(format!("--https-port={}", self.https_port))
            .arg(option("https-certificate-file", &self.server.certificate))
            .arg(option("https-certificate-key-file", &self.server.key))
            .arg(format!("--truststore-paths={shop},{another}"))
            .arg("--hostname-strict=false")
            .arg(format!(
                "--db-url=jdbc:h2:file:{database};NON_KEYWORDS=VALUE"
            ))
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN)
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", ADMIN)
            .env("JAVA_OPTS_KC_HEAP", "-Xmx700m")
            // It starts sooner without the optimizing compiler.
            .env("JAVA_OPTS_APPEND", "-XX:TieredStopAtLevel=1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let mut process = Process(process);
        let deadline = Instant::now() + STARTUP;
        let url = format!("{}/realms/master", self.base());
        while !matches!(self.http.get(&url).send().await, Ok(response) if response.status() == 200)
        {
            let ended = process.0.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < deadline, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        *self.process.lock().await = Some(process);
    }

    /// Ends the process, and waits for its end.
    async fn stop(&self) {
        let mut process = self.process.lock().await.take().unwrap();
        process.signal("TERM");
        let ended = tokio::task::spawn_blocking(move || process.0.wait());
        let ended = tokio::time::timeout(Duration::from_secs(60), ended);
        ended.await.expect("Keycloak ends").unwrap().unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// Sends a request to the admin API. Returns the id of what was created, and the body.
    async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> (String, Value) {
        let form =
            format!("grant_type=password&client_id=admin-cli&username={ADMIN}&password={ADMIN}");
        let url = format!(
            "{}/realms/master/protocol/openid-connect/token",
            self.base()
        );
        let login = self
            .http
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let login = login.body(form).send().await.unwrap();
        let login: Value = serde_json::from_str(&login.text().await.unwrap()).unwrap();
        let url = format!("{}/admin/realms{path}", self.base());
        let request = self.http.request(method, &url);
        let request = request.bearer_auth(login["access_token"].as_str().unwrap());
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status();
        let id = response
            .headers()
            .get(header::LOCATION)
            .map_or("", |url| url.to_str().unwrap().rsplit('/').next().unwrap());
        let id = id.to_owned();
        let body = response.text().await.unwrap();
        assert!(status.is_success(), "{url}: {status} {body}");
        (id, serde_json::from_str(&body).unwrap_or_default())
    }

    /// Creates a realm with these settings.
    async fn realm<'k>(&'k self, name: &'k str, settings: Value) -> Realm<'k> {
        let mut realm = json!({ "realm": name, "enabled": true });
        merge(&mut realm, settings);
        self.admin(Method::POST, "", Some(realm)).await;
        Realm {
            keycloak: self,
            name,
        }
    }
}

fn option(name: &str, file: &Path) -> String {
    format!("--{name}={}", file.display())
}

fn merge(object: &mut Value, members: Value) {
    let Value::Object(members) = members else {
        panic!("not an object: {members}")
    };
    object.as_object_mut().unwrap().extend(members);
}

/// An issuer of its own, with keys and clients.
struct Realm<'k> {
    keycloak: &'k Keycloak,
    name: &'k str,
}

impl Realm<'_> {
    fn issuer(&self) -> Issuer {
        Issuer::new(format!("{}/realms/{}", self.keycloak.base(), self.name)).unwrap()
    }

    /// The realm under the name `localhost`.
    fn localhost(&self) -> Issuer {
        Issuer::new(self.issuer().as_str().replace("127.0.0.1", "localhost")).unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let path = format!("/{}{path}", self.name);
        self.keycloak.admin(Method::GET, &path, None).await.1
    }

    /// Creates an object. Returns its id.
    async fn post(&self, path: &str, body: Value) -> String {
        let path = format!("/{}{path}", self.name);
        self.keycloak.admin(Method::POST, &path, Some(body)).await.0
    }

    async fn put(&self, path: &str, body: Value) {
        let path = format!("/{}{path}", self.name);
        self.keycloak.admin(Method::PUT, &path, Some(body)).await;
    }

    /// Registers a client that may use client credentials. Returns its id in the admin API.
    async fn client(&self, client_id: &str, settings: Value) -> String {
        let mut client = json!({
            "clientId": client_id,
            "secret": SECRET,
            "serviceAccountsEnabled": true,
            "standardFlowEnabled": false,
        });
        merge(&mut client, settings);
        self.post("/clients", client).await
    }

    /// Adds a key pair. Returns its id in the admin API.
    async fn key(&self, provider: &str, priority: u32, settings: Value) -> String {
        let mut config = json!({ "priority": [priority.to_string()] });
        merge(&mut config, settings);
        let key = json!({
            "name": format!("{provider} {priority}"),
            "providerId": provider,
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": config,
        });
        self.post("/components", key).await
    }

    fn manager(&self, client_id: &str) -> TokenManagerBuilder {
        let client = ClientCredentials::new(client_id, SECRET);
        let manager = TokenManager::for_issuer(self.issuer(), client).unwrap();
        manager.allow_loopback_http()
    }

    /// A new token of a client.
    async fn token(&self, client_id: &str) -> String {
        let tokens = self.manager(client_id).start().unwrap();
        let token = tokens.access_token().await.unwrap();
        token.expose_secret().to_owned()
    }

    fn trusted(&self) -> TrustedIssuer {
        TrustedIssuer::new(self.issuer(), Audience::new(AUDIENCE).unwrap())
    }

    async fn resource_server(&self) -> ResourceServer {
        start(self.trusted()).await
    }
}

async fn start(issuer: TrustedIssuer) -> ResourceServer {
    let server = ResourceServer::from_issuer(issuer).allow_loopback_http();
    server.start().await.unwrap()
}

/// The settings of a client with a mapper that adds `orders` to `aud`.
fn with_audience() -> Value {
    json!({ "protocolMappers": [audience_mapper()] })
}

fn audience_mapper() -> Value {
    json!({
        "name": "audience",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": { "included.custom.audience": AUDIENCE, "access.token.claim": "true" },
    })
}

/// `with_audience` with an attribute of the client.
fn with_attribute(name: &str, value: &str) -> Value {
    let mut client = with_audience();
    merge(&mut client, json!({ "attributes": { name: value } }));
    client
}

#[track_caller]
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// An error of Keycloak with this code.
#[track_caller]
fn assert_refused(error: &Error, status: StatusCode, code: &str) {
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(error.status(), Some(status), "{error}");
    assert_eq!(error.oauth_error().unwrap().code(), code, "{error}");
}

/// The JOSE header of a token.
fn jose_header(token: &str) -> Value {
    jwt::decode(token).0
}

fn kind(result: Result<impl Sized, RejectionKind>) -> Option<RejectionKind> {
    result.err()
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak_works_as_authorization_server() {
    let Some(keycloak) = Keycloak::start().await else {
        return;
    };
    let mut failed = Vec::new();
    macro_rules! check {
        ($($module:ident::$fact:ident)*) => {$({
            let keycloak = Arc::clone(&keycloak);
            // A task, so that a panic does not hide the other facts.
            let fact = tokio::spawn(async move { $module::$fact(&keycloak).await });
            if fact.await.is_err() {
                failed.push(stringify!($fact));
            }
        })*};
    }
    check! {
        tokens::an_audience_mapper_or_a_client_role_sets_the_audience
        tokens::tokens_of_every_supported_algorithm_are_accepted
        tokens::an_rfc_9068_token_passes_the_strict_profile_and_another_does_not
        tokens::a_lightweight_token_is_rejected_until_its_mapper_sets_the_audience
        tokens::realm_and_client_roles_are_in_the_context
        tokens::a_client_scope_is_in_a_token_by_default_or_on_request
        tokens::an_optional_scope_with_a_mapper_is_the_only_audience_of_a_token
        tokens::the_presets_of_both_ends_accept_access_tokens_and_no_others
        tokens::a_secret_of_reserved_characters_is_sent_form_urlencoded
        tokens::localhost_is_another_issuer_than_its_address
        tokens::the_resource_identifier_is_the_audience_by_a_mapper_and_by_resource_indicators
        tokens::a_key_of_higher_priority_signs_new_tokens_and_old_tokens_stay_valid
        tokens::tokens_of_a_withdrawn_key_are_rejected_after_a_refresh
        clients::private_key_jwt_is_accepted_in_every_algorithm
        clients::a_key_in_a_file_with_its_certificate_is_accepted
        clients::the_key_of_an_imported_certificate_is_found_without_a_kid_only
        clients::a_wrong_audience_or_key_is_refused
        clients::a_federated_assertion_is_accepted_once_unless_reuse_is_allowed
        clients::a_certificate_is_accepted_and_another_is_refused
        clients::an_assertion_is_a_grant_once
        exchange::a_token_is_exchanged_for_a_call_on_behalf_of_its_caller
        exchange::an_actor_token_is_ignored
        tokens::a_restart_fails_no_call
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}
