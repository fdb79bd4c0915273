//! An issuer on loopback, laid out as Keycloak's, and its tokens.

use axum::routing::get;
use axum::{Json, Router};
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_oauth::{Clock, SystemClock};

use crate::tokens::{AUDIENCE, Signer, TENANT, kid};

const DAY: u64 = 24 * 60 * 60;

pub struct Issuer {
    /// Scheme, host, and port.
    pub origin: String,
    /// Made now, for a day.
    issued_at: u64,
    signer: Signer,
    stranger: Signer,
}

impl Issuer {
    /// Serves its metadata and keys as long as the runtime runs.
    #[expect(clippy::disallowed_methods, reason = "the rule is the library's")]
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (signer, stranger) = (Signer::new("RS256"), Signer::new("RS256"));
        let issuer = Self {
            origin,
            issued_at: SystemClock::default().now().as_secs(),
            signer,
            stranger,
        };
        let (metadata, keys) = (issuer.metadata(), issuer.keys());
        let app = Router::new()
            .route(
                &format!("/realms/{TENANT}/.well-known/openid-configuration"),
                get(Json(metadata)),
            )
            .route(
                &format!("/realms/{TENANT}/publickeys"),
                get(Json(keys.clone())),
            )
            .route(&format!("/realms/{TENANT}/certs"), get(Json(keys)));
        tokio::spawn(axum::serve(listener, app).into_future());
        issuer
    }

    pub fn keys(&self) -> Value {
        serde_json::from_str(&self.signer.jwks()).unwrap()
    }

    pub fn url(&self) -> String {
        format!("{}/realms/{TENANT}", self.origin)
    }

    pub fn jwks_uri(&self) -> String {
        format!("{}/certs", self.url())
    }

    pub fn metadata_url(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.url())
    }

    /// What OpenID Connect requires; axum-keycloak-auth reads nothing less.
    fn metadata(&self) -> Value {
        json!({
            "issuer": self.url(),
            "authorization_endpoint": format!("{}/auth", self.url()),
            "token_endpoint": format!("{}/token", self.url()),
            "jwks_uri": self.jwks_uri(),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })
    }

    /// An `Authorization` field with the token of this number.
    pub fn good(&self, number: usize) -> HeaderValue {
        self.signed_by(&self.signer, number)
    }

    /// The same, but signed with another key.
    pub fn forged(&self, number: usize) -> HeaderValue {
        self.signed_by(&self.stranger, number)
    }

    /// App ID's token with the members that axum-keycloak-auth insists on (`typ`, `azp`), and without
    /// the header's `ver`: axum-jwt-auth answers 500 to a header with a number.
    fn signed_by(&self, signer: &Signer, number: usize) -> HeaderValue {
        let (issuer, issued_at, expires_at) = (self.url(), self.issued_at, self.issued_at + DAY);
        let header = format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{}"}}"#, kid());
        let claims = format!(
            r#"{{"iss":"{issuer}","exp":{expires_at},"aud":["{AUDIENCE}"],"sub":"{AUDIENCE}","iat":{issued_at},"typ":"Bearer","azp":"{AUDIENCE}","tenant":"{TENANT}","scope":"appid_default orders.read","jti":"{number:08}"}}"#
        );
        HeaderValue::try_from(format!("Bearer {}", signer.token(&header, &claims))).unwrap()
    }
}
