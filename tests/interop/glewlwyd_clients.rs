//! Clients that authenticate to Glewlwyd without a secret.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_oauth::client::{AssertionAudience, SigningKey};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::{Error, PrivateKeyJwt, Scope, TlsClientAuth};

use crate::client_keys::{Certificate, signing_key};
use crate::glewlwyd::{Glewlwyd, Https, SCOPE, jwks, private_jwk};

const ISSUER: &str = "clients";

/// Adds an issuer with these settings.
async fn add_issuer(glewlwyd: &Glewlwyd, settings: Value) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let mut keys = jwks(&[&private_jwk("first", &key)]);
    let settings = settings.as_object().unwrap().clone();
    keys.as_object_mut().unwrap().extend(settings);
    glewlwyd.add_issuer(ISSUER, &keys).await;
}

/// Registers a client with this method of authentication.
async fn add_client(glewlwyd: &Glewlwyd, client_id: &str, method: &str, settings: Value) {
    let mut client = json!({
        "client_id": client_id,
        "confidential": true,
        "enabled": true,
        "authorization_type": ["client_credentials"],
        "token_endpoint_auth_method": [method],
    });
    let settings = settings.as_object().unwrap().clone();
    client.as_object_mut().unwrap().extend(settings);
    glewlwyd.add_client(client).await;
}

/// A refusal is a 403 without a body, as that of a secret.
fn assert_refused(error: &Error) {
    assert_eq!(error.status(), Some(StatusCode::FORBIDDEN), "{error}");
    assert_eq!(error.oauth_error(), None);
}

/// It accepts no audience but its token endpoint, no assertion without `kid`, and each one once.
#[tokio::test]
async fn glewlwyd_accepts_private_key_jwt_for_its_token_endpoint_in_every_algorithm() {
    let Some(glewlwyd) = Glewlwyd::start(None).await else {
        return;
    };
    let assertions = json!({
        "request-parameter-allow": true,
        "request-maximum-exp": 3600,
        "client-jwks-parameter": "jwks",
    });
    add_issuer(&glewlwyd, assertions).await;
    let request = async |client: PrivateKeyJwt| {
        let tokens = glewlwyd.manager(ISSUER, client).start().unwrap();
        tokens.access_token().await
    };
    for &algorithm in Algorithm::ALL {
        let client_id = algorithm.name();
        let (pem, keys) = signing_key(algorithm);
        let keys = json!({ "jwks": keys });
        add_client(&glewlwyd, client_id, "private_key_jwt", keys).await;
        let key = || SigningKey::from_pem(pem.clone(), algorithm).unwrap();
        let client = |key| {
            let client = PrivateKeyJwt::new(client_id, key);
            client.audience(AssertionAudience::TokenEndpoint)
        };
        let named = || key().key_id(client_id);
        for accepted in [client(named()), client(named()).omit_client_id()] {
            let token = request(accepted).await;
            let token = token.unwrap_or_else(|error| panic!("{client_id}: {error}"));
            let scopes = token.scopes().unwrap();
            assert!(scopes.iter().map(Scope::as_ref).eq([SCOPE]));
        }
        let for_issuer = client(named()).audience(AssertionAudience::Default);
        for refused in [for_issuer, client(key())] {
            assert_refused(&request(refused).await.unwrap_err());
        }
    }
}

/// The endpoint of `mtls_endpoint_aliases` is another one than the token endpoint, which takes no
/// certificate. Debian's settings of clients have no `tls_client_auth_subject_dn`.
#[tokio::test]
async fn glewlwyd_accepts_certificates_at_the_endpoint_of_mtls_endpoint_aliases() {
    let folder = TempDir::new().unwrap();
    let certificate = |name| Certificate::new(folder.path(), name);
    let [server, shop, another] = ["server", "shop", "another"].map(certificate);
    let https = Https {
        server: &server,
        client: &shop,
    };
    let Some(glewlwyd) = Glewlwyd::start(Some(https)).await else {
        return;
    };
    let certificates = json!({
        "client-cert-source": "TLS",
        "client-cert-use-endpoint-aliases": true,
        "client-cert-self-signed-allowed": true,
    });
    add_issuer(&glewlwyd, certificates).await;
    let by_name = json!({ "tls_client_auth_san_dns": "shop" });
    add_client(&glewlwyd, "by-name", "tls_client_auth", by_name).await;
    let by_key = json!({ "jwks": shop.jwks() });
    add_client(&glewlwyd, "by-key", "self_signed_tls_client_auth", by_key).await;
    let request = async |client_id: &str, shown: &Certificate| {
        let manager = glewlwyd.manager(ISSUER, TlsClientAuth::new(client_id));
        let tokens = manager.transport(shown.transport(&server)).start();
        tokens.unwrap().access_token().await
    };
    for client_id in ["by-name", "by-key"] {
        let token = request(client_id, &shop).await;
        let token = token.unwrap_or_else(|error| panic!("{client_id}: {error}"));
        let scopes = token.scopes().unwrap();
        assert!(scopes.iter().map(Scope::as_ref).eq([SCOPE]));
        assert_refused(&request(client_id, &another).await.unwrap_err());
    }
}
