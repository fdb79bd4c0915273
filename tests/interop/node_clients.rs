//! Clients that authenticate to oidc-provider without a secret.
//!
//! `node.rs` says what these tests need.

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_oauth::client::{AssertionAudience, ClientAuthentication, SigningKey};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::transport::ReqwestTransport;
use tower_oauth::{Error, Issuer, PrivateKeyJwt, TlsClientAuth, TokenManager};

use crate::client_keys::{Certificate, signing_key};
use crate::node::{node, packages, printed};
use crate::support::jwt;

/// The metadata of a client (RFC 7591 §2) with this method of authentication.
fn registration(client_id: &str, method: &str, more: &Value) -> Value {
    let mut client = json!({
        "client_id": client_id,
        "token_endpoint_auth_method": method,
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
    });
    let more = more.as_object().unwrap().clone();
    client.as_object_mut().unwrap().extend(more);
    client
}

/// The claims of a new token. They are not verified.
async fn request(
    issuer: &str,
    client: impl ClientAuthentication,
    transport: Option<ReqwestTransport>,
) -> Result<Value, Error> {
    let manager = TokenManager::for_issuer(Issuer::new(issuer).unwrap(), client).unwrap();
    let manager = match transport {
        Some(transport) => manager.transport(transport),
        None => manager.allow_loopback_http(),
    };
    let tokens = manager.resource("https://reports.example/");
    let token = tokens.start().unwrap().access_token().await?;
    Ok(jwt::decode(token.expose_secret()).1)
}

#[tokio::test]
async fn oidc_provider_accepts_private_key_jwt_in_every_algorithm() {
    let Some(packages) = packages() else { return };
    let keys: Vec<_> = Algorithm::ALL
        .iter()
        .map(|&algorithm| (algorithm, signing_key(algorithm)))
        .collect();
    let clients = keys.iter().map(|(algorithm, (_, jwks))| {
        let more = json!({ "jwks": jwks, "token_endpoint_auth_signing_alg": algorithm.name() });
        registration(algorithm.name(), "private_key_jwt", &more)
    });
    let clients = json!(clients.collect::<Vec<_>>()).to_string();
    let mut provider = node(&packages, "oidc_provider.js", &[("CLIENTS", &clients)]);
    let issuer = printed(&mut provider).await["issuer"].clone();
    let issuer = issuer.as_str().unwrap();
    for (algorithm, (pem, _)) in &keys {
        let client_id = algorithm.name();
        let key = || SigningKey::from_pem(pem.clone(), *algorithm).unwrap();
        let client = || PrivateKeyJwt::new(client_id, key());
        for client in [
            client(),
            client().audience(AssertionAudience::TokenEndpoint),
            client().omit_client_id(),
            PrivateKeyJwt::new(client_id, key().key_id(client_id)),
        ] {
            let claims = request(issuer, client, None).await;
            let claims = claims.unwrap_or_else(|error| panic!("{client_id}: {error}"));
            assert_eq!(claims["client_id"], client_id);
        }
        let other = AssertionAudience::Other("https://as.example".to_owned());
        let error = request(issuer, client().audience(other), None).await;
        let error = error.unwrap_err();
        assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED), "{error}");
        assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
    }
}

/// The port of the issuer takes no certificates.
#[tokio::test]
async fn oidc_provider_accepts_certificates_at_the_endpoint_of_mtls_endpoint_aliases() {
    let Some(packages) = packages() else { return };
    let folder = TempDir::new().unwrap();
    let certificate = |name| Certificate::new(folder.path(), name);
    let [server, shop, self_signed] = ["server", "shop", "self-signed"].map(certificate);
    // The token is bound to the certificate (RFC 8705 §3).
    let bound = "tls_client_certificate_bound_access_tokens";
    let subject = json!({ "tls_client_auth_subject_dn": "CN=shop", bound: true });
    let jwks = json!({ "jwks": self_signed.jwks(), bound: true });
    let clients = json!([
        registration("shop", "tls_client_auth", &subject),
        registration("self-signed", "self_signed_tls_client_auth", &jwks),
    ]);
    let file = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let settings = [
        ("CLIENTS", &*clients.to_string()),
        ("CERTIFICATE", &file(&server.certificate)),
        ("KEY", &file(&server.key)),
        ("CLIENT_CA", &file(&shop.certificate)),
    ];
    let mut provider = node(&packages, "oidc_provider.js", &settings);
    let issuer = printed(&mut provider).await["issuer"].clone();
    let issuer = issuer.as_str().unwrap();
    let show = async |client_id: &str, shown: &Certificate| {
        let client = TlsClientAuth::new(client_id);
        request(issuer, client, Some(shown.transport(&server))).await
    };
    for (client_id, own, other) in [
        ("shop", &shop, &self_signed),
        ("self-signed", &self_signed, &shop),
    ] {
        let claims = show(client_id, own).await;
        let claims = claims.unwrap_or_else(|error| panic!("{client_id}: {error}"));
        assert_eq!(claims["client_id"], client_id);
        assert_eq!(claims["cnf"]["x5t#S256"], own.thumbprint());
        let error = show(client_id, other).await.unwrap_err();
        assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}
