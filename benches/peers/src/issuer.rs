//! An issuer on loopback with Keycloak's paths, and its tokens.

use axum::routing::get;
use axum::{Json, Router};
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_oauth::clock::{Clock, SystemClock};

use crate::tokens::{AUDIENCE, Signer, TENANT, kid};

const DAY: u64 = 24 * 60 * 60;

pub struct Issuer {
    /// Scheme, host, and port.
    pub origin: String,
    /// Time at which the issuer started; tokens are valid for a day from it.
    issued_at: u64,
    signer: Signer,
    untrusted: Signer,
}

impl Issuer {
    /// Serves metadata and keys until the runtime ends.
    #[expect(
        clippy::disallowed_methods,
        reason = "the lint applies to the library only"
    )]
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (signer, untrusted) = (Signer::new("RS256"), Signer::new("RS256"));
        let issuer = Self {
            origin,
            issued_at: SystemClock.now().as_secs(),
            signer,
            untrusted,
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

    /// The members that OpenID Connect requires; axum-keycloak-auth needs all of them.
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

    /// An `Authorization` field with token `number`.
    pub fn good(&self, number: usize) -> HeaderValue {
        self.signed_by(&self.signer, number)
    }

    /// The same, signed with another key.
    pub fn forged(&self, number: usize) -> HeaderValue {
        self.signed_by(&self.untrusted, number)
    }

    /// An App ID token with the claims that axum-keycloak-auth requires (`typ`, `azp`), and without
    /// the header member `ver`: axum-jwt-auth responds 500 to a header that contains a number.
    fn signed_by(&self, signer: &Signer, number: usize) -> HeaderValue {
        let (issuer, issued_at, expires_at) = (self.url(), self.issued_at, self.issued_at + DAY);
        let header = format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{}"}}"#, kid());
        let claims = format!(
            r#"{{"iss":"{issuer}","exp":{expires_at},"aud":["{AUDIENCE}"],"sub":"{AUDIENCE}","iat":{issued_at},"typ":"Bearer","azp":"{AUDIENCE}","tenant":"{TENANT}","scope":"appid_default orders.read","jti":"{number:08}"}}"#
        );
        HeaderValue::try_from(format!("Bearer {}", signer.token(&header, &claims))).unwrap()
    }
}
