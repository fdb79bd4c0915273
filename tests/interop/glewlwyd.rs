//! Interoperability with Glewlwyd, an authorization server in C.
//!
//! It is Debian's. If it is not installed, the test prints "skipped" and passes, unless
//! `REQUIRE_INTEROP` is set, as in CI.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, EcPrivateKeyBin, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RsaKeyPair,
};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tower_oauth::client::{ClientAuthentication, TokenManagerBuilder};
use tower_oauth::resource_server::{RejectionKind, TokenProfile};
use tower_oauth::{
    Audience, ClientCredentials, Issuer, ResourceServer, Scope, TokenManager, TrustedIssuer,
};

use crate::client_keys::Certificate;
use crate::servers::{eventually, free_port, skip, validate};
use crate::support::{self, decoded, encode};

const PROGRAM: &str = "/usr/bin/glewlwyd";
const SCHEMA: &str = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3";
const CLIENT_ID: &str = "shop";
/// A secret that form-urlencoding (RFC 6749 §2.3.1) changes.
const SECRET: &str = "a+b/c=d%e&f:g";
pub const SCOPE: &str = "orders.read";
const RESOURCE: &str = "https://orders.example/";

/// A running Glewlwyd with a database of its own, and one client.
pub struct Glewlwyd {
    base: String,
    http: reqwest::Client,
    /// The administrator's session.
    cookie: String,
    _process: Child,
    _data: TempDir,
}

/// The settings of https.
pub struct Https<'a> {
    pub server: &'a Certificate,
    /// The certificate of a client that is accepted.
    pub client: &'a Certificate,
}

impl Glewlwyd {
    /// Starts the installed Glewlwyd, if there is one.
    pub async fn start(https: Option<Https<'_>>) -> Option<Self> {
        if !Path::new(PROGRAM).is_file() {
            skip("Glewlwyd: bash .ci/run interop");
            return None;
        }
        let data = TempDir::new().unwrap();
        let port = free_port();
        let (url, tls) = match &https {
            Some(Https { server, client }) => (
                format!("https://localhost:{port}"),
                format!(
                    r#"use_secure_connection = true
                    secure_connection_key_file = "{}"
                    secure_connection_pem_file = "{}"
                    secure_connection_ca_file = "{}"
                    "#,
                    server.key.display(),
                    server.certificate.display(),
                    client.certificate.display()
                ),
            ),
            None => (format!("http://127.0.0.1:{port}"), String::new()),
        };
        let base = format!("{url}/api");
        let database = data.path().join("database");
        let created = Command::new("sqlite3")
            .arg(&database)
            .stdin(std::fs::File::open(SCHEMA).unwrap())
            .status();
        assert!(created.await.unwrap().success());
        let config = format!(
            r#"port = {port}
            bind_address = "127.0.0.1"
            external_url = "{url}"
            login_url = "login.html"
            api_prefix = "api"
            log_mode = "console"
            log_level = "ERROR"
            session_key = "SESSION"
            admin_scope = "g_admin"
            profile_scope = "g_profile"
            hash_algorithm = "SHA512"
            user_module_path = "/usr/lib/glewlwyd/user"
            client_module_path = "/usr/lib/glewlwyd/client"
            user_auth_scheme_module_path = "/usr/lib/glewlwyd/scheme"
            plugin_module_path = "/usr/lib/glewlwyd/plugin"
            database = {{ type = "sqlite3"; path = "{}"; }};
            {tls}"#,
            database.display()
        );
        let config_file = data.path().join("glewlwyd.conf");
        std::fs::write(&config_file, config).unwrap();
        let process = Command::new(PROGRAM)
            .arg(format!("--config-file={}", config_file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let http = match &https {
            Some(https) => https.server.trusting_client(),
            None => reqwest::Client::builder().no_proxy(),
        };
        let http = http.build().unwrap();
        // The administrator of the schema.
        let login = json!({ "username": "admin", "password": "password" }).to_string();
        let log_in = || http.post(format!("{base}/auth/")).body(login.clone());
        eventually("Glewlwyd serves", Duration::from_secs(30), async || {
            log_in().send().await.is_ok()
        })
        .await;
        let log_in = log_in().header(header::CONTENT_TYPE, "application/json");
        let response = log_in.send().await.unwrap();
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        let glewlwyd = Self {
            cookie: cookie.split(';').next().unwrap().to_owned(),
            base,
            http,
            _process: process,
            _data: data,
        };
        let scope = json!({ "name": SCOPE, "display_name": SCOPE, "scheme": {} });
        glewlwyd.admin(Method::POST, "/scope/", scope).await;
        let client = json!({
            "client_id": CLIENT_ID,
            "password": SECRET,
            "confidential": true,
            "enabled": true,
            "authorization_type": ["client_credentials"],
            "token_endpoint_auth_method": ["client_secret_basic", "client_secret_post"],
        });
        glewlwyd.add_client(client).await;
        Some(glewlwyd)
    }

    /// Registers a client of the scope.
    pub async fn add_client(&self, mut client: Value) {
        client["scope"] = json!([SCOPE]);
        self.admin(Method::POST, "/client/", client).await;
    }

    async fn admin(&self, method: Method, path: &str, body: Value) {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = request.header(header::COOKIE, &self.cookie);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let response = request.body(body.to_string()).send().await.unwrap();
        let status = response.status();
        let body = response.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {body}");
    }

    pub fn issuer(&self, name: &str) -> Issuer {
        Issuer::new(format!("{}/{name}", self.base)).unwrap()
    }

    /// The settings of the plugin that is the issuer of this name.
    fn plugin(&self, name: &str, keys: &Value) -> Value {
        let mut parameters = json!({
            "iss": self.issuer(name),
            "access-token-duration": 3600,
            "refresh-token-duration": 3600,
            "code-duration": 600,
            "refresh-token-rolling": false,
            "allow-non-oidc": true,
            "auth-type-code-enabled": false,
            "auth-type-token-enabled": false,
            "auth-type-id-token-enabled": true,
            "auth-type-client-enabled": true,
            "auth-type-refresh-enabled": false,
            "jwks-show": true,
            "resource-allowed": true,
            "resource-scope": { SCOPE: [RESOURCE] },
            "resource-scope-and-client-property": false,
            "resource-change-allowed": false,
        });
        let keys = keys.as_object().unwrap().clone();
        parameters.as_object_mut().unwrap().extend(keys);
        json!({
            "module": "oidc",
            "name": name,
            "display_name": name,
            "enabled": true,
            "parameters": parameters,
        })
    }

    /// Adds an issuer with these keys and other settings.
    pub async fn add_issuer(&self, name: &str, keys: &Value) {
        let plugin = self.plugin(name, keys);
        self.admin(Method::POST, "/mod/plugin/", plugin).await;
    }

    /// Replaces the keys of an issuer. The first one signs.
    async fn replace_keys(&self, name: &str, keys: &Value) {
        let path = format!("/mod/plugin/{name}");
        self.admin(Method::PUT, &path, self.plugin(name, keys))
            .await;
        let reset = format!("{path}/reset");
        self.admin(Method::PUT, &reset, Value::Null).await;
    }

    pub fn manager(&self, name: &str, client: impl ClientAuthentication) -> TokenManagerBuilder {
        let manager = TokenManager::for_issuer(self.issuer(name), client).unwrap();
        let manager = manager.scope(Scope::new(SCOPE).unwrap());
        manager.allow_loopback_http()
    }

    /// A new token for the resource.
    async fn token(&self, name: &str) -> String {
        let manager = self.manager(name, credentials()).resource(RESOURCE);
        let token = manager.start().unwrap().access_token().await.unwrap();
        token.expose_secret().to_owned()
    }

    async fn resource_server(&self, name: &str) -> ResourceServer {
        let issuer = TrustedIssuer::new(self.issuer(name), Audience::new(RESOURCE).unwrap());
        let server = ResourceServer::from_issuer(issuer.profile(TokenProfile::Rfc9068));
        server.allow_loopback_http().start().await.unwrap()
    }
}

fn credentials() -> ClientCredentials {
    ClientCredentials::new(CLIENT_ID, SECRET).client_secret_basic_raw()
}

/// The settings of a key pair in PEM.
fn pem(key_type: &str, size: u32, private: &[u8], public: &[u8]) -> Value {
    json!({
        "jwt-type": key_type,
        "jwt-key-size": size.to_string(),
        "key": support::pem("PRIVATE KEY", private),
        "cert": support::pem("PUBLIC KEY", public),
    })
}

/// The private JWK of a P-256 key.
pub fn private_jwk(kid: &str, key: &EcdsaKeyPair) -> Value {
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let d: EcPrivateKeyBin<'_> = key.private_key().as_be_bytes().unwrap();
    json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid,
        "x": encode(x), "y": encode(y), "d": encode(d.as_ref()),
    })
}

pub fn jwks(keys: &[&Value]) -> Value {
    json!({ "jwks-private": json!({ "keys": keys }).to_string() })
}

#[tokio::test]
async fn glewlwyd_works_as_issuer_of_tokens_and_keys() {
    let Some(glewlwyd) = Glewlwyd::start(None).await else {
        return;
    };
    a_secret_is_accepted_only_without_form_urlencoding(&glewlwyd).await;
    the_audience_is_the_scope_unless_resource_names_one(&glewlwyd).await;
    keys_are_accepted_as_it_writes_them(&glewlwyd).await;
    rotated_and_withdrawn_keys_are_noticed(&glewlwyd).await;
}

/// The refusal is a 403 without a body, instead of `invalid_client`.
async fn a_secret_is_accepted_only_without_form_urlencoding(glewlwyd: &Glewlwyd) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let keys = jwks(&[&private_jwk("first", &key)]);
    glewlwyd.add_issuer("secret", &keys).await;
    let client = || ClientCredentials::new(CLIENT_ID, SECRET);
    for accepted in [
        client().client_secret_basic_raw(),
        client().client_secret_post(),
    ] {
        let manager = glewlwyd.manager("secret", accepted).start().unwrap();
        let token = manager.access_token().await.unwrap();
        let scopes = token.scopes().unwrap();
        assert!(scopes.iter().map(Scope::as_ref).eq([SCOPE]));
    }
    let manager = glewlwyd.manager("secret", client()).start().unwrap();
    let error = manager.access_token().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::FORBIDDEN), "{error}");
    assert_eq!(error.oauth_error(), None);
    // The scheme of a token is spelled in lower case.
    let form = format!("grant_type=client_credentials&scope={SCOPE}");
    let request = glewlwyd
        .http
        .post(format!("{}/secret/token", glewlwyd.base));
    let request = request.basic_auth(CLIENT_ID, Some(SECRET));
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let response = request
        .body(form)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let response: Value = serde_json::from_str(&response).unwrap();
    assert_eq!(response["token_type"], "bearer");
}

async fn the_audience_is_the_scope_unless_resource_names_one(glewlwyd: &Glewlwyd) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let keys = jwks(&[&private_jwk("first", &key)]);
    glewlwyd.add_issuer("audience", &keys).await;
    let server = glewlwyd.resource_server("audience").await;
    let manager = glewlwyd.manager("audience", credentials()).start().unwrap();
    let without = manager.access_token().await.unwrap();
    let rejected = validate(&server, without.expose_secret()).await;
    assert_eq!(rejected.err(), Some(RejectionKind::InvalidAudience));
    let token = glewlwyd.token("audience").await;
    let context = validate(&server, &token).await.unwrap();
    assert_eq!(context.client_id(), Some(CLIENT_ID));
    assert!(context.audience().eq([RESOURCE]));
    assert!(context.has_scope(SCOPE));
}

/// It writes a coordinate without its leading zeros.
async fn keys_are_accepted_as_it_writes_them(glewlwyd: &Glewlwyd) {
    let ec = loop {
        let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        if pair.public_key().as_ref()[1] == 0 {
            break pair;
        }
    };
    let ec_public: PublicKeyX509Der<'_> = ec.public_key().as_der().unwrap();
    let ec_private = ec.to_pkcs8v1().unwrap();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_public: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
    let rsa_private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let ed = Ed25519KeyPair::generate().unwrap();
    let ed_public: PublicKeyX509Der<'_> = ed.public_key().as_der().unwrap();
    let ed_private = ed.to_pkcs8v1().unwrap();
    for (name, keys) in [
        (
            "es512",
            pem("ecdsa", 512, ec_private.as_ref(), ec_public.as_ref()),
        ),
        (
            "rs256",
            pem("rsa", 256, rsa_private.as_ref(), rsa_public.as_ref()),
        ),
        (
            "ps512",
            pem("rsa-pss", 512, rsa_private.as_ref(), rsa_public.as_ref()),
        ),
        (
            "eddsa",
            pem("eddsa", 256, ed_private.as_ref(), ed_public.as_ref()),
        ),
    ] {
        glewlwyd.add_issuer(name, &keys).await;
        let server = glewlwyd.resource_server(name).await;
        let status = server.key_sets().swap_remove(0);
        assert!(server.keys_available(), "{name}: {status:?}");
        let context = validate(&server, &glewlwyd.token(name).await).await;
        let context = context.unwrap_or_else(|kind| panic!("{name}: {kind}"));
        assert_eq!(context.client_id(), Some(CLIENT_ID));
    }
    let url = format!("{}/es512/jwks", glewlwyd.base);
    let keys = glewlwyd.http.get(url).send().await.unwrap();
    let keys: Value = serde_json::from_str(&keys.text().await.unwrap()).unwrap();
    let x = keys["keys"][0]["x"].as_str().unwrap();
    assert!(decoded(x).len() < 66, "{x}");
}

async fn rotated_and_withdrawn_keys_are_noticed(glewlwyd: &Glewlwyd) {
    let [first, second] = ["first", "second"].map(|kid| {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        private_jwk(kid, &key)
    });
    glewlwyd.add_issuer("rotation", &jwks(&[&first])).await;
    let server = glewlwyd.resource_server("rotation").await;
    let old = glewlwyd.token("rotation").await;
    assert!(validate(&server, &old).await.is_ok());
    glewlwyd
        .replace_keys("rotation", &jwks(&[&second, &first]))
        .await;
    let new = glewlwyd.token("rotation").await;
    // The unknown key causes a refresh, and the request waits for it.
    assert!(validate(&server, &new).await.is_ok());
    assert!(validate(&server, &old).await.is_ok());
    assert_eq!(server.key_sets().swap_remove(0).usable_key_count(), 2);
    glewlwyd.replace_keys("rotation", &jwks(&[&second])).await;
    server.refresh_keys().await.unwrap();
    let rejected = validate(&server, &old).await;
    assert_eq!(rejected.err(), Some(RejectionKind::UnknownKey));
    assert!(validate(&server, &new).await.is_ok());
}
