//! Interoperability with Keycloak, over plain http on loopback.
//!
//! `tests/interop/install_keycloak.sh` installs it into `INTEROP_DIR` (else `target/interop`).
//! Without it the test prints "skipped" and passes, unless `REQUIRE_INTEROP` is set, as in CI.
//!
//! One Keycloak serves all facts, because it takes half a minute to start.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::routing::get;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::client::TokenManagerBuilder;
use tower_oauth::error::ErrorKind;
use tower_oauth::key_set::{KeySetStatus, RefreshPolicy};
use tower_oauth::resource_server::{RejectionKind, TokenProfile};
use tower_oauth::{
    Audience, ClientCredentials, Issuer, Origin, ResourceServer, TokenManager, TrustedIssuer,
};

use crate::servers::{Scratch, eventually, free_port, install_folder, skip, validate, warnings};

const STARTUP: Duration = Duration::from_secs(300);
const ADMIN: &str = "admin";
/// A secret whose form-urlencoding (RFC 6749 §2.3.1) differs in every reserved character. Without
/// it, `%d%` is no encoding.
const SECRET: &str = "a+b/c=%d%e&f:g?h%20";
const AUDIENCE: &str = "orders";
/// A setting that Keycloak's administrators find in a client's advanced settings.
const LIGHTWEIGHT: &str = "client.use.lightweight.access.token.enabled";

/// A running Keycloak with a database of its own.
struct Keycloak {
    port: u16,
    data: Scratch,
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
        let keycloak = Self {
            port: free_port(),
            data: Scratch::new("keycloak"),
            process: Mutex::new(None),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        keycloak.run().await;
        Some(Arc::new(keycloak))
    }

    fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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
        let process = Command::new(install_folder().join("keycloak/bin/kc.sh"))
            .args(["start", "--optimized", "--cache=local"])
            .args(["--http-enabled=true", "--http-host=127.0.0.1"])
            .arg(format!("--http-port={}", self.port))
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

fn kind(result: Result<impl Sized, RejectionKind>) -> Option<RejectionKind> {
    result.err()
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak_works_as_issuer_of_tokens_and_keys() {
    let Some(keycloak) = Keycloak::start().await else {
        return;
    };
    let mut failed = Vec::new();
    macro_rules! check {
        ($($fact:ident)*) => {$({
            let keycloak = Arc::clone(&keycloak);
            // A task, so that a panic does not hide the other facts.
            let fact = tokio::spawn(async move { $fact(&keycloak).await });
            if fact.await.is_err() {
                failed.push(stringify!($fact));
            }
        })*};
    }
    check! {
        an_audience_mapper_or_a_client_role_sets_the_audience
        tokens_of_every_supported_algorithm_are_accepted
        an_rfc_9068_token_passes_the_strict_profile_and_another_does_not
        a_lightweight_token_is_rejected_until_its_mapper_sets_the_audience
        realm_and_client_roles_are_in_the_context
        the_presets_of_both_ends_accept_access_tokens_and_no_others
        a_secret_of_reserved_characters_is_sent_form_urlencoded
        localhost_is_another_issuer_than_its_address
        the_resource_identifier_is_the_audience_by_a_mapper_and_by_resource_indicators
        a_key_of_higher_priority_signs_new_tokens_and_old_tokens_stay_valid
        tokens_of_a_withdrawn_key_are_rejected_after_a_refresh
        a_restart_fails_no_call
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

/// Without a mapper, `aud` is `account`: the roles that every service account has.
async fn an_audience_mapper_or_a_client_role_sets_the_audience(keycloak: &Keycloak) {
    let realm = keycloak.realm("audience", json!({})).await;
    realm.client("without", json!({})).await;
    realm.client("mapped", with_audience()).await;
    realm.client("by-role", json!({})).await;
    let orders = realm.client(AUDIENCE, json!({})).await;
    grant_client_role(&realm, "by-role", &orders, "reader").await;
    let server = realm.resource_server().await;
    let without = realm.token("without").await;
    let log = warnings(&server, &without).await;
    let audiences = [r#"["orders"]"#, r#"["account"]"#];
    assert_contains(&log, &["invalid_audience"]);
    assert_contains(&log, &audiences);
    let explanation = server.explain(&without).to_string();
    assert_contains(&explanation, &audiences);
    assert_contains(&explanation, &["Keycloak: add an audience mapper"]);
    let without = validate(&server, &without).await;
    assert_eq!(kind(without), Some(RejectionKind::InvalidAudience));
    for client_id in ["mapped", "by-role"] {
        let context = validate(&server, &realm.token(client_id).await).await;
        let context = context.unwrap_or_else(|kind| panic!("{client_id}: {kind}"));
        assert_eq!(context.client_id(), Some(client_id));
        let audience: Vec<_> = context.audience().collect();
        assert_eq!(audience, [AUDIENCE, "account"], "{client_id}");
    }
}

/// Keycloak creates a key for an algorithm when a client first uses it.
async fn tokens_of_every_supported_algorithm_are_accepted(keycloak: &Keycloak) {
    const ALGORITHM: &str = "access.token.signed.response.alg";
    let realm = keycloak.realm("algorithms", json!({})).await;
    let server = realm.resource_server().await;
    for algorithm in [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    ] {
        realm
            .client(algorithm, with_attribute(ALGORITHM, algorithm))
            .await;
        let token = realm.token(algorithm).await;
        assert_eq!(jose_header(&token)["alg"], algorithm);
        // The key is new. The rate limit of on-demand refreshes is not the subject.
        server.refresh_keys().await.unwrap();
        let context = validate(&server, &token).await;
        let context = context.unwrap_or_else(|kind| panic!("{algorithm}: {kind}"));
        assert_eq!(context.client_id(), Some(algorithm));
    }
    realm
        .client("HS256", with_attribute(ALGORITHM, "HS256"))
        .await;
    let symmetric = validate(&server, &realm.token("HS256").await).await;
    assert_eq!(kind(symmetric), Some(RejectionKind::UnsupportedAlgorithm));
    // A key that is not supported spoils no other.
    let ed448 = json!({ "eddsaEllipticCurveKey": ["Ed448"] });
    realm.key("eddsa-generated", 200, ed448).await;
    let accepted = realm.token("ES256").await;
    let rejected = realm.token("EdDSA").await;
    server.refresh_keys().await.unwrap();
    assert_eq!(kind(validate(&server, &accepted).await), None);
    assert_eq!(
        kind(validate(&server, &rejected).await),
        Some(RejectionKind::UnknownKey)
    );
    let status: KeySetStatus = server.key_sets().swap_remove(0);
    let kid = jose_header(&rejected)["kid"].as_str().unwrap().to_owned();
    let mut skipped = status.skipped();
    assert!(skipped.any(|key| key.kid() == Some(&kid)), "{status:?}");
}

/// The JOSE header of a token.
fn jose_header(token: &str) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

async fn an_rfc_9068_token_passes_the_strict_profile_and_another_does_not(keycloak: &Keycloak) {
    let realm = keycloak.realm("profile", json!({})).await;
    let rfc_9068 = with_attribute("access.token.header.type.rfc9068", "true");
    realm.client("rfc-9068", rfc_9068).await;
    realm.client("jwt", with_audience()).await;
    let strict = start(realm.trusted().profile(TokenProfile::Rfc9068)).await;
    let token = realm.token("rfc-9068").await;
    assert_eq!(jose_header(&token)["typ"], "at+jwt");
    let context = validate(&strict, &token).await.unwrap();
    assert_eq!(context.client_id(), Some("rfc-9068"));
    let jwt = realm.token("jwt").await;
    assert_eq!(
        kind(validate(&strict, &jwt).await),
        Some(RejectionKind::UnexpectedTokenType)
    );
    let lenient = realm.resource_server().await;
    for token in [token, jwt] {
        assert_eq!(kind(validate(&lenient, &token).await), None);
    }
}

/// A lightweight token has no `aud`, unless the mapper's setting `lightweight.claim` is on.
async fn a_lightweight_token_is_rejected_until_its_mapper_sets_the_audience(keycloak: &Keycloak) {
    let realm = keycloak.realm("lightweight", json!({})).await;
    let client = realm
        .client("shop", with_attribute(LIGHTWEIGHT, "true"))
        .await;
    let server = realm.resource_server().await;
    let rejected = realm.token("shop").await;
    let log = warnings(&server, &rejected).await;
    assert_contains(&log, &["invalid_claims", "no aud"]);
    let explanation = server.explain(&rejected).to_string();
    assert_contains(&explanation, &["Always use lightweight access token"]);
    let rejected = validate(&server, &rejected).await;
    assert_eq!(kind(rejected), Some(RejectionKind::InvalidClaims));
    let path = format!("/clients/{client}/protocol-mappers/models");
    let mut mapper = realm.get(&path).await[0].take();
    mapper["config"]["lightweight.claim"] = json!("true");
    let id = mapper["id"].as_str().unwrap().to_owned();
    realm.put(&format!("{path}/{id}"), mapper).await;
    let context = validate(&server, &realm.token("shop").await).await.unwrap();
    assert_eq!(context.client_id(), Some("shop"));
    assert!(context.audience().eq([AUDIENCE]));
}

async fn realm_and_client_roles_are_in_the_context(keycloak: &Keycloak) {
    let realm = keycloak.realm("roles", json!({})).await;
    let shop = realm.client("shop", with_audience()).await;
    let orders = realm.client(AUDIENCE, json!({})).await;
    realm.post("/roles", json!({ "name": "auditor" })).await;
    let role = realm.get("/roles/auditor").await;
    let user = service_account(&realm, &shop).await;
    let path = format!("/users/{user}/role-mappings/realm");
    realm.post(&path, json!([role])).await;
    grant_client_role(&realm, "shop", &orders, "reader").await;
    let server = realm.resource_server().await;
    let context = validate(&server, &realm.token("shop").await).await.unwrap();
    assert!(context.has_role("auditor"));
    assert!(!context.has_role("reader"), "a role of the client alone");
    let realm_access: Value = context.claim("realm_access").unwrap().unwrap();
    let roles = realm_access["roles"].as_array().unwrap();
    assert!(roles.contains(&json!("auditor")), "{roles:?}");
    let resource_access: Value = context.claim("resource_access").unwrap().unwrap();
    assert_eq!(resource_access[AUDIENCE]["roles"], json!(["reader"]));
}

/// With the slash at the end that a copied URL may have.
async fn the_presets_of_both_ends_accept_access_tokens_and_no_others(keycloak: &Keycloak) {
    let realm = keycloak.realm("presets", json!({})).await;
    let mut shop = with_audience();
    merge(&mut shop, json!({ "directAccessGrantsEnabled": true }));
    realm.client("shop", shop).await;
    let rfc_9068 = with_attribute("access.token.header.type.rfc9068", "true");
    realm.client("rfc-9068", rfc_9068).await;
    let url = format!("{}/", keycloak.base());
    let preset = |audience: &str| TrustedIssuer::keycloak(&url, "presets", audience).unwrap();
    let server = start(preset(AUDIENCE)).await;
    for client_id in ["shop", "rfc-9068"] {
        let client = ClientCredentials::new(client_id, SECRET);
        let tokens = TokenManager::keycloak(&url, "presets", client).unwrap();
        let tokens = tokens.allow_loopback_http().start().unwrap();
        let token = tokens.access_token().await.unwrap();
        let context = validate(&server, token.expose_secret()).await.unwrap();
        assert_eq!(context.client_id(), Some(client_id));
        assert_eq!(context.claim("typ").unwrap(), Some("Bearer".to_owned()));
        assert!(context.has_scope("profile"));
        assert!(context.has_role("default-roles-presets"));
    }
    let other = keycloak.realm("another", json!({})).await;
    other.client("shop", with_audience()).await;
    let other = validate(&server, &other.token("shop").await).await;
    assert_eq!(kind(other), Some(RejectionKind::UntrustedIssuer));

    let ada = json!({
        "username": "ada", "enabled": true, "email": "ada@shop.example", "emailVerified": true,
        "firstName": "Ada", "lastName": "Lovelace",
        "credentials": [{ "type": "password", "value": "p4ssword", "temporary": false }],
    });
    realm.post("/users", ada).await;
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("grant_type", "password"), ("scope", "openid")])
        .extend_pairs([("client_id", "shop"), ("client_secret", SECRET)])
        .extend_pairs([("username", "ada"), ("password", "p4ssword")])
        .finish();
    let endpoint = format!("{}/protocol/openid-connect/token", realm.issuer());
    let login = keycloak.http.post(endpoint);
    let login = login.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let login = login.body(form).send().await.unwrap().text().await.unwrap();
    let login: Value = serde_json::from_str(&login).unwrap();
    let token = |name: &str| login[name].as_str().expect(name).to_owned();
    let context = validate(&server, &token("access_token")).await.unwrap();
    assert_eq!(context.client_id(), Some("shop"));
    // The audience of an ID token is the client.
    let for_client = start(preset("shop")).await;
    for (name, expected) in [
        ("id_token", RejectionKind::UnexpectedTokenType),
        ("refresh_token", RejectionKind::UnsupportedAlgorithm),
    ] {
        let rejected = validate(&for_client, &token(name)).await;
        assert_eq!(kind(rejected), Some(expected), "{name}");
    }
}

/// The id of a client's service account.
async fn service_account(realm: &Realm<'_>, client: &str) -> String {
    let path = format!("/clients/{client}/service-account-user");
    realm.get(&path).await["id"].as_str().unwrap().to_owned()
}

/// Gives the service account of a client a new role of another client.
async fn grant_client_role(realm: &Realm<'_>, client_id: &str, of: &str, name: &str) {
    let client = realm.get(&format!("/clients?clientId={client_id}")).await;
    let user = service_account(realm, client[0]["id"].as_str().unwrap()).await;
    let roles = format!("/clients/{of}/roles");
    realm.post(&roles, json!({ "name": name })).await;
    let role = realm.get(&format!("{roles}/{name}")).await;
    let path = format!("/users/{user}/role-mappings/clients/{of}");
    realm.post(&path, json!([role])).await;
}

async fn a_secret_of_reserved_characters_is_sent_form_urlencoded(keycloak: &Keycloak) {
    let realm = keycloak.realm("secret", json!({})).await;
    let client_id = "https://shop.example/+%";
    realm.client(client_id, with_audience()).await;
    let server = realm.resource_server().await;
    let request = async |credentials| {
        let manager = TokenManager::for_issuer(realm.issuer(), credentials).unwrap();
        let manager = manager.allow_loopback_http().start().unwrap();
        manager.access_token().await
    };
    let credentials = |secret: &str| ClientCredentials::new(client_id, secret);
    for credentials in [
        credentials(SECRET),
        credentials(SECRET).client_secret_post(),
    ] {
        let token = request(credentials.clone()).await;
        let token = token.unwrap_or_else(|error| panic!("{credentials:?}: {error}"));
        let context = validate(&server, token.expose_secret()).await.unwrap();
        assert_eq!(context.client_id(), Some(client_id));
    }
    // Keycloak's code for a wrong secret is not `invalid_client`.
    let error = request(credentials("another")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(error.oauth_error().unwrap().code(), "unauthorized_client");
}

/// Keycloak names itself after the Host header, unless a host name is set.
async fn localhost_is_another_issuer_than_its_address(keycloak: &Keycloak) {
    let realm = keycloak.realm("localhost", json!({})).await;
    realm.client("shop", with_audience()).await;
    let audience = || Audience::new(AUDIENCE).unwrap();
    let localhost = start(TrustedIssuer::new(realm.localhost(), audience())).await;
    assert!(localhost.keys_available(), "the metadata name localhost");
    let rejected = realm.token("shop").await;
    let explanation = localhost.explain(&rejected).to_string();
    let names = [realm.issuer(), realm.localhost()];
    assert_contains(&explanation, &names.each_ref().map(Issuer::as_str));
    assert_contains(
        &explanation,
        &["Keycloak names itself after the Host header"],
    );
    let rejected = validate(&localhost, &rejected).await;
    assert_eq!(kind(rejected), Some(RejectionKind::UntrustedIssuer));
    // With a host name, the metadata name the issuer.
    let attributes = json!({ "attributes": { "frontendUrl": keycloak.base() } });
    let named = keycloak.realm("named", attributes).await;
    named.client("shop", with_audience()).await;
    let localhost = start(TrustedIssuer::new(named.localhost(), audience())).await;
    assert!(!localhost.keys_available());
    let status = localhost.key_sets().swap_remove(0);
    let client = ClientCredentials::new("shop", SECRET);
    let manager = TokenManager::for_issuer(named.localhost(), client).unwrap();
    let manager = manager.allow_loopback_http().start().unwrap();
    let token_error = manager.access_token().await.unwrap_err();
    for error in [status.last_error().unwrap(), &token_error] {
        assert_eq!(error.kind(), ErrorKind::IssuerMismatch);
        let text = error.to_string();
        for issuer in [named.localhost(), named.issuer()] {
            assert!(text.contains(issuer.as_str()), "{text}");
        }
    }
    let server = named.resource_server().await;
    assert_eq!(
        kind(validate(&server, &named.token("shop").await).await),
        None
    );
}

/// The identifier of RFC 9728 as `aud`: without `resource` by an audience mapper, and as the only
/// audience by `resource` (RFC 8707). For the latter, Keycloak has to know the resource as a client
/// that is among the audiences of the token. Without the attribute about refresh tokens, 26.7.3
/// responds with 500 to client credentials.
async fn the_resource_identifier_is_the_audience_by_a_mapper_and_by_resource_indicators(
    keycloak: &Keycloak,
) {
    const RESOURCE: &str = "https://api.example/orders";
    let realm = keycloak.realm("resource", json!({})).await;
    let mapper = |setting: &str, audience: &str| {
        let mut mapper = audience_mapper();
        mapper["config"] = json!({ setting: audience, "access.token.claim": "true" });
        json!({ "protocolMappers": [mapper] })
    };
    let by_mapper = mapper("included.custom.audience", RESOURCE);
    realm.client("mapped", by_mapper).await;
    let resource = json!({ "attributes": { "resource_url": RESOURCE } });
    realm.client("orders-api", resource).await;
    let mut by_resource = mapper("included.client.audience", "orders-api");
    let attributes = json!({ "client_credentials.use_refresh_token": "true" });
    merge(&mut by_resource, json!({ "attributes": attributes }));
    realm.client("asks", by_resource).await;

    let server = ResourceServer::for_resource(RESOURCE, realm.issuer());
    let server = server.allow_loopback_http().start().await.unwrap();
    let token = realm.token("mapped").await;
    let context = validate(&server, &token).await.unwrap();
    assert!(context.audience().any(|audience| audience == RESOURCE));

    let request = async |resource: &str| {
        let manager = realm.manager("asks").resource(resource).start().unwrap();
        manager.access_token().await
    };
    let token = request(RESOURCE).await.unwrap();
    let context = validate(&server, token.expose_secret()).await.unwrap();
    assert!(context.audience().eq([RESOURCE]));
    assert_eq!(context.client_id(), Some("asks"));
    // For another resource of the same process, the same token is for another audience.
    let bills = server.also("https://api.example/bills").unwrap();
    let rejected = validate(&bills, token.expose_secret()).await;
    assert_eq!(kind(rejected), Some(RejectionKind::InvalidAudience));

    let error = request("https://api.example/orders/").await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_target");
}

async fn a_key_of_higher_priority_signs_new_tokens_and_old_tokens_stay_valid(keycloak: &Keycloak) {
    let realm = keycloak.realm("rotation", json!({})).await;
    realm.client("shop", with_audience()).await;
    let server = realm.resource_server().await;
    let old = realm.token("shop").await;
    assert_eq!(kind(validate(&server, &old).await), None);
    realm.key("rsa-generated", 200, json!({})).await;
    let new = realm.token("shop").await;
    assert_ne!(jose_header(&new)["kid"], jose_header(&old)["kid"]);
    let before = server.key_sets().swap_remove(0).generation();
    // The unknown key causes a refresh, and the request waits for it.
    assert_eq!(kind(validate(&server, &new).await), None);
    assert_eq!(server.key_sets().swap_remove(0).generation(), before + 1);
    assert_eq!(kind(validate(&server, &old).await), None);
}

async fn tokens_of_a_withdrawn_key_are_rejected_after_a_refresh(keycloak: &Keycloak) {
    let realm = keycloak.realm("withdrawn", json!({})).await;
    realm.client("shop", with_audience()).await;
    let id = realm.key("rsa-generated", 200, json!({})).await;
    let server = realm.resource_server().await;
    let old = realm.token("shop").await;
    assert_eq!(kind(validate(&server, &old).await), None);
    let path = format!("/components/{id}");
    let mut key = realm.get(&path).await;
    merge(
        &mut key["config"],
        json!({ "enabled": ["false"], "active": ["false"] }),
    );
    realm.put(&path, key).await;
    let new = realm.token("shop").await;
    assert_ne!(jose_header(&new)["kid"], jose_header(&old)["kid"]);
    server.refresh_keys().await.unwrap();
    assert_eq!(
        kind(validate(&server, &old).await),
        Some(RejectionKind::UnknownKey)
    );
    assert_eq!(kind(validate(&server, &new).await), None);
}

/// Key refreshes and a renewal of the token are due during the restart.
async fn a_restart_fails_no_call(keycloak: &Keycloak) {
    let realm = keycloak
        .realm("restart", json!({ "accessTokenLifespan": 600 }))
        .await;
    realm.client("shop", with_audience()).await;
    let second = Duration::from_secs(1);
    let refresh = RefreshPolicy::new().min_interval(second).interval(second);
    let server = start(realm.trusted().refresh(refresh)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let orders = axum::Router::new().route("/orders", get(async || "orders"));
    let orders = orders.layer(server.layer());
    let serving = tokio::spawn(async { axum::serve(listener, orders).await });

    let tokens = realm.manager("shop").start().unwrap();
    let client = ServiceBuilder::new()
        .layer(tokens.layer([Origin::new(&origin).unwrap()]))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let stopped = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (client, url) = (client.clone(), format!("{origin}/orders"));
            let (stopped, calls) = (Arc::clone(&stopped), Arc::clone(&calls));
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let request = Request::get(&url).body(Full::default()).unwrap();
                    match client.clone().oneshot(request).await {
                        Ok(response) if response.status() == StatusCode::OK => {}
                        other => failed.push(format!("{other:?}")),
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                failed
            })
        })
        .collect();

    let first = tokens.access_token().await.unwrap();
    let status = || server.key_sets().swap_remove(0);
    keycloak.stop().await;
    eventually("a refresh fails", 30 * second, async || {
        status().consecutive_failures() > 0
    })
    .await;
    // The next calls ask for a new token, which cannot be had.
    assert!(tokens.invalidate(&first));
    assert_eq!(tokens.invalidate_and_wait(&first).await.map(|_| ()), None);
    let current = tokens.access_token().await.unwrap();
    assert_eq!(current.expose_secret(), first.expose_secret());
    let during = calls.load(Ordering::Relaxed);
    keycloak.run().await;
    assert!(calls.load(Ordering::Relaxed) > during + 100);
    eventually("the token is renewed", 120 * second, async || {
        let token = tokens.access_token().await.unwrap();
        token.expose_secret() != first.expose_secret()
    })
    .await;
    server.refresh_keys().await.unwrap();
    eventually("calls have the new token", 30 * second, async || {
        calls.load(Ordering::Relaxed) > during + 200
    })
    .await;
    assert_eq!(status().consecutive_failures(), 0);
    stopped.store(true, Ordering::Relaxed);
    for caller in callers {
        let failed = caller.await.unwrap();
        assert!(failed.is_empty(), "{failed:#?}");
    }
    serving.abort();
}
