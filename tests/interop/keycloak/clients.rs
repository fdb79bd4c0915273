//! Facts about clients of Keycloak that authenticate without a secret, and about grants.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::get;
use http::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_oauth::client::{
    AssertionAudience, AssertionFile, AssertionSource, BoxFuture, ClientAuthentication,
    JwtBearerGrant, SigningKey, TokenManagerBuilder, TokenSource as _,
};
use tower_oauth::clock::{Clock as _, SystemClock};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::transport::ReqwestTransport;
use tower_oauth::{
    BoxError, ClientAssertion, Error, Issuer, PrivateKeyJwt, TlsClientAuth, TokenManager,
};

use super::{Keycloak, Realm, SECRET, assert_contains, assert_refused, merge, with_audience};
use crate::client_keys::{Certificate, signing_key};
use crate::servers::validate;
use crate::support::{self, PrivateKey, compact, jwt};

/// A platform that issues a JWT to each of its workloads, as Kubernetes does, with keys at a URL.
struct Platform {
    issuer: String,
    key: PrivateKey,
    issued: AtomicUsize,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Platform")
    }
}

impl Platform {
    /// The name of the platform as identity provider of a realm.
    const ALIAS: &'static str = "platform";

    async fn start() -> Arc<Self> {
        let key = support::p256();
        let keys = json!({ "keys": [key.jwk(Self::ALIAS)] }).to_string();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let keys = axum::Router::new().route("/keys", get(async move || keys.clone()));
        tokio::spawn(async { axum::serve(listener, keys).await });
        Arc::new(Self {
            issuer,
            key,
            issued: AtomicUsize::new(0),
        })
    }

    /// Registers it as identity provider of a realm.
    async fn register(&self, realm: &Realm<'_>, settings: Value) {
        let mut config = json!({
            "issuer": self.issuer,
            "validateSignature": "true",
            "useJwksUrl": "true",
            "jwksUrl": format!("{}/keys", self.issuer),
            // For logins, which these tests have not.
            "authorizationUrl": format!("{}/authorize", self.issuer),
            "tokenUrl": format!("{}/token", self.issuer),
            "clientId": "keycloak",
            "clientSecret": SECRET,
        });
        merge(&mut config, settings);
        let provider = json!({
            "alias": Self::ALIAS,
            "providerId": "oidc",
            "enabled": true,
            "config": config,
        });
        realm.post("/identity-provider/instances", provider).await;
    }

    /// A new JWT for five minutes.
    fn issue(&self, subject: &str, audience: &str) -> SecretString {
        let now = SystemClock.now().as_secs();
        let claims = json!({
            "iss": self.issuer,
            "sub": subject,
            "aud": audience,
            "iat": now,
            "exp": now + 300,
            "jti": format!("jwt-{}", self.issued.fetch_add(1, Ordering::Relaxed)),
        });
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": Self::ALIAS });
        let claims = claims.to_string();
        compact(&self.key, "ES256", &header.to_string(), claims.as_bytes()).into()
    }

    /// Replaces the JWT in a file, as the kubelet does.
    fn rotate(&self, file: &Path, subject: &str, audience: &str) {
        let new = file.with_extension("new");
        let token = self.issue(subject, audience);
        std::fs::write(&new, format!("{}\n", token.expose_secret())).unwrap();
        std::fs::rename(new, file).unwrap();
    }
}

/// Its JWTs for one subject.
#[derive(Debug)]
struct Workload(Arc<Platform>, &'static str);

impl AssertionSource for Workload {
    fn assertion<'a>(&'a self, audience: &'a str) -> BoxFuture<'a, Result<SecretString, BoxError>> {
        Box::pin(async { Ok(self.0.issue(self.1, audience)) })
    }
}

fn manager(issuer: Issuer, client: impl ClientAuthentication) -> TokenManagerBuilder {
    let manager = TokenManager::for_issuer(issuer, client).unwrap();
    manager.allow_loopback_http()
}

/// A new token.
async fn request(manager: TokenManagerBuilder) -> Result<String, Error> {
    let token = manager.start().unwrap().access_token().await?;
    Ok(token.expose_secret().to_owned())
}

/// The error of a token request that Keycloak refuses with this code.
async fn refused(manager: TokenManagerBuilder, status: StatusCode, code: &str) -> String {
    let error = request(manager).await.unwrap_err();
    assert_refused(&error, status, code);
    error.to_string()
}

/// What an error says about an assertion that was sent before.
fn taken_once(file: &Path) -> String {
    let file = file.display();
    format!(
        "the server may take each assertion once, and the assertion in {file} has not changed since"
    )
}

/// The settings of a client with this authenticator and these attributes.
fn authenticated_by(authenticator: &str, attributes: &Value) -> Value {
    let mut client = with_audience();
    let authentication = json!({
        "clientAuthenticatorType": authenticator,
        "attributes": attributes,
    });
    merge(&mut client, authentication);
    client
}

/// The settings of a client whose assertions have to be signed with a key of this set.
fn with_keys(algorithm: Algorithm, keys: &Value) -> Value {
    let attributes = json!({
        "use.jwks.string": "true",
        "jwks.string": keys.to_string(),
        "token.endpoint.auth.signing.alg": algorithm.name(),
    });
    authenticated_by("client-jwt", &attributes)
}

/// Each request has an assertion of its own, because Keycloak takes each once.
pub async fn private_key_jwt_is_accepted_in_every_algorithm(keycloak: &Keycloak) {
    let realm = keycloak.realm("private-key-jwt", json!({})).await;
    let server = realm.resource_server().await;
    for &algorithm in Algorithm::ALL {
        let client_id = algorithm.name();
        let (pem, keys) = signing_key(algorithm);
        realm.client(client_id, with_keys(algorithm, &keys)).await;
        let key = || SigningKey::from_pem(pem.clone(), algorithm).unwrap();
        let client = || PrivateKeyJwt::new(client_id, key());
        for client in [
            client(),
            client().audience(AssertionAudience::TokenEndpoint),
            client().omit_client_id(),
            PrivateKeyJwt::new(client_id, key().key_id(client_id)),
        ] {
            let token = request(manager(realm.issuer(), client)).await;
            let token = token.unwrap_or_else(|error| panic!("{client_id}: {error}"));
            let context = validate(&server, &token).await.unwrap();
            assert_eq!(context.client_id(), Some(client_id));
        }
    }
}

/// The key of a certificate, with `x5t#S256` in the header of the assertion.
pub async fn a_key_in_a_file_with_its_certificate_is_accepted(keycloak: &Keycloak) {
    let realm = keycloak.realm("certificate", json!({})).await;
    let [shop, another] = &keycloak.certificates;
    realm
        .client("shop", with_keys(Algorithm::Es256, &shop.jwks()))
        .await;
    let client = |certificate: &Certificate| {
        let key = SigningKey::from_file(&certificate.key, Algorithm::Es256);
        let key = key.certificate_file(&certificate.certificate);
        manager(realm.issuer(), PrivateKeyJwt::new("shop", key))
    };
    request(client(shop)).await.unwrap();
    refused(client(another), StatusCode::BAD_REQUEST, "invalid_client").await;
}

pub async fn the_key_of_an_imported_certificate_is_found_without_a_kid_only(keycloak: &Keycloak) {
    let realm = keycloak.realm("imported-certificate", json!({})).await;
    let [shop, _] = &keycloak.certificates;
    let pem = std::fs::read_to_string(&shop.certificate).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let attributes = json!({
        "jwt.credential.certificate": base64,
        "token.endpoint.auth.signing.alg": "ES256",
    });
    let settings = authenticated_by("client-jwt", &attributes);
    realm.client("shop", settings).await;
    let key = || SigningKey::from_file(&shop.key, Algorithm::Es256);
    let client = |key| manager(realm.issuer(), PrivateKeyJwt::new("shop", key));
    request(client(key())).await.unwrap();
    let with_kid = client(key().key_id("2026-11"));
    let error = refused(with_kid, StatusCode::BAD_REQUEST, "invalid_client").await;
    assert_contains(&error, &["Unable to load public key"]);
}

pub async fn a_wrong_audience_or_key_is_refused(keycloak: &Keycloak) {
    let realm = keycloak.realm("wrong-audience", json!({})).await;
    let (pem, keys) = signing_key(Algorithm::Es256);
    realm
        .client("shop", with_keys(Algorithm::Es256, &keys))
        .await;
    let client = |pem: &SecretString| {
        let key = SigningKey::from_pem(pem.clone(), Algorithm::Es256).unwrap();
        PrivateKeyJwt::new("shop", key)
    };
    let with_slash = AssertionAudience::Other(format!("{}/", realm.issuer()));
    let wrong_audience = manager(realm.issuer(), client(&pem).audience(with_slash));
    let error = refused(wrong_audience, StatusCode::BAD_REQUEST, "invalid_client").await;
    assert_contains(&error, &["Invalid token audience"]);
    let (other, _) = signing_key(Algorithm::Es256);
    let wrong_key = manager(realm.issuer(), client(&other));
    let error = refused(wrong_key, StatusCode::BAD_REQUEST, "invalid_client").await;
    assert_contains(&error, &["Signature on JWT token failed validation"]);
    // The right one still works.
    request(manager(realm.issuer(), client(&pem)))
        .await
        .unwrap();
}

/// The JWT of a platform, whose subject is mapped to the client.
pub async fn a_federated_assertion_is_accepted_once_unless_reuse_is_allowed(keycloak: &Keycloak) {
    const SUBJECT: &str = "system:serviceaccount:shop:shop";
    let platform = Platform::start().await;
    let folder = TempDir::new().unwrap();
    let file: PathBuf = folder.path().join("token");
    for reuse in ["false", "true"] {
        let realm = format!("federated-{reuse}");
        let realm = keycloak.realm(&realm, json!({})).await;
        let provider = json!({
            "supportsClientAssertions": "true",
            "supportsClientAssertionReuse": reuse,
        });
        platform.register(&realm, provider).await;
        let attributes = json!({
            "jwt.credential.issuer": Platform::ALIAS,
            "jwt.credential.sub": SUBJECT,
        });
        realm
            .client("shop", authenticated_by("federated-jwt", &attributes))
            .await;
        let server = realm.resource_server().await;
        let audience = realm.issuer();
        let client = || ClientAssertion::from_file(&file);
        for client in [client(), client().with_client_id("shop")] {
            platform.rotate(&file, SUBJECT, audience.as_str());
            let tokens = manager(realm.issuer(), client).start().unwrap();
            let first = tokens.access_token().await.unwrap();
            let context = validate(&server, first.expose_secret()).await.unwrap();
            assert_eq!(context.client_id(), Some("shop"));
        }
        platform.rotate(&file, SUBJECT, "https://as.example");
        let wrong = manager(realm.issuer(), client());
        let error = refused(wrong, StatusCode::BAD_REQUEST, "invalid_client").await;
        let hint = "set it at the platform that issues the assertion";
        assert_contains(&error, &["Invalid token audience", hint]);
        // At the second request, the file has not changed.
        platform.rotate(&file, SUBJECT, audience.as_str());
        let source = manager(realm.issuer(), client().with_client_id("shop"));
        let source = source.build_source().unwrap();
        drop(source.fetch().await.unwrap());
        let again = source.fetch().await;
        if reuse == "true" {
            assert!(again.is_ok(), "{again:?}");
            continue;
        }
        let again = again.unwrap_err();
        assert_refused(&again, StatusCode::BAD_REQUEST, "invalid_client");
        assert_contains(
            &again.to_string(),
            &["Token reuse detected", &taken_once(&file)],
        );
        platform.rotate(&file, SUBJECT, audience.as_str());
        drop(source.fetch().await.unwrap());
        // A source that gets a new assertion for each request.
        let source = ClientAssertion::new(Workload(Arc::clone(&platform), SUBJECT));
        let source = manager(realm.issuer(), source).start().unwrap();
        let first = source.access_token().await.unwrap();
        assert!(source.invalidate(&first));
        assert!(source.invalidate_and_wait(&first).await.is_some());
    }
}

/// Over https, where the metadata name the endpoint in `mtls_endpoint_aliases`.
pub async fn a_certificate_is_accepted_and_another_is_refused(keycloak: &Keycloak) {
    let realm = keycloak.realm("mtls", json!({})).await;
    let attributes = json!({
        "x509.subjectdn": "CN=shop",
        "tls.client.certificate.bound.access.tokens": "true",
    });
    realm
        .client("shop", authenticated_by("client-x509", &attributes))
        .await;
    let issuer = format!("{}/realms/mtls", keycloak.https_base());
    let issuer = || Issuer::new(&issuer).unwrap();
    let [shop, another] = &keycloak.certificates;
    let client = |certificate: &Certificate| {
        let manager = TokenManager::for_issuer(issuer(), TlsClientAuth::new("shop")).unwrap();
        manager.transport(certificate.transport(&keycloak.server))
    };
    let https = keycloak.server.trusting_client().build().unwrap();
    let metadata = https.get(format!("{}/.well-known/openid-configuration", issuer()));
    let metadata = metadata.send().await.unwrap().text().await.unwrap();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let alias = &metadata["mtls_endpoint_aliases"]["token_endpoint"];
    assert_eq!(
        *alias,
        format!("{}/protocol/openid-connect/token", issuer())
    );
    let token = request(client(shop)).await.unwrap();
    let (_, claims) = jwt::decode(&token);
    assert_eq!(claims["azp"], "shop");
    assert_eq!(claims["cnf"]["x5t#S256"], shop.thumbprint());
    // Without a certificate, and with one that is not the client's.
    let without = TokenManager::for_issuer(issuer(), TlsClientAuth::new("shop")).unwrap();
    let transport = ReqwestTransport::from_builder(keycloak.server.trusting_client()).unwrap();
    for refused_client in [client(another), without.transport(transport)] {
        let error = refused(refused_client, StatusCode::UNAUTHORIZED, "invalid_client").await;
        assert_contains(&error, &["certificate"]);
    }
    // One that Keycloak does not trust ends the handshake. The request is retried, because the
    // certificate may be replaced.
    let folder = TempDir::new().unwrap();
    let stranger = client(&Certificate::new(folder.path(), "stranger"));
    let error = request(stranger.acquire_timeout(Duration::from_secs(1))).await;
    let error = error.unwrap_err().to_string();
    assert_contains(
        &error,
        &["refuses the client certificate", "with_client_certificate"],
    );
    // Over plain http, the metadata name an alias with plain http, which takes no certificate.
    let plain = manager(realm.issuer(), TlsClientAuth::new("shop"));
    let error = request(plain).await.unwrap_err().to_string();
    assert_contains(&error, &["certificate"]);
}

/// The assertion of a platform about a user of the realm.
pub async fn an_assertion_is_a_grant_once(keycloak: &Keycloak) {
    const SUBJECT: &str = "ada at the platform";
    let platform = Platform::start().await;
    let realm = keycloak.realm("jwt-bearer", json!({})).await;
    let provider = json!({ "jwtAuthorizationGrantEnabled": "true" });
    platform.register(&realm, provider).await;
    let ada = json!({
        "username": "ada", "enabled": true, "email": "ada@shop.example", "emailVerified": true,
        "firstName": "Ada", "lastName": "Lovelace",
    });
    let ada = realm.post("/users", ada).await;
    let link = json!({ "userId": SUBJECT, "userName": SUBJECT });
    realm
        .post(&format!("/users/{ada}/federated-identity/platform"), link)
        .await;
    let (pem, keys) = signing_key(Algorithm::Es256);
    let mut shop = with_keys(Algorithm::Es256, &keys);
    let grant = json!({
        "oauth2.jwt.authorization.grant.enabled": "true",
        "oauth2.jwt.authorization.grant.idp": Platform::ALIAS,
    });
    merge(&mut shop["attributes"], grant);
    realm.client("shop", shop).await;
    let server = realm.resource_server().await;

    let client = || {
        let key = SigningKey::from_pem(pem.clone(), Algorithm::Es256).unwrap();
        manager(realm.issuer(), PrivateKeyJwt::new("shop", key))
    };
    let workload = Workload(Arc::clone(&platform), SUBJECT);
    let tokens = client()
        .grant(JwtBearerGrant::new(workload))
        .start()
        .unwrap();
    let first = tokens.access_token().await.unwrap();
    let context = validate(&server, first.expose_secret()).await.unwrap();
    assert_eq!(context.subject(), Some(&*ada));
    assert_eq!(context.client_id(), Some("shop"));
    assert!(tokens.invalidate(&first));
    assert!(tokens.invalidate_and_wait(&first).await.is_some());

    let folder = TempDir::new().unwrap();
    let file = folder.path().join("token");
    platform.rotate(&file, SUBJECT, realm.issuer().as_str());
    let source = client().grant(JwtBearerGrant::new(AssertionFile::new(&file)));
    let source = source.build_source().unwrap();
    drop(source.fetch().await.unwrap());
    let again = source.fetch().await.unwrap_err();
    assert_refused(&again, StatusCode::BAD_REQUEST, "invalid_grant");
    assert_contains(
        &again.to_string(),
        &["Token reuse detected", &taken_once(&file)],
    );
    platform.rotate(&file, SUBJECT, realm.issuer().as_str());
    drop(source.fetch().await.unwrap());
}
