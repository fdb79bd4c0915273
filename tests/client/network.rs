//! A resource with its metadata and the issuer of its tokens, behind one transport.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_oauth::authorization_server::AuthorizationServer;
use tower_oauth::client::TokenManagerBuilder;
use tower_oauth::resource_server::ProtectedResourceMetadata;
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{ClientCredentials, Scope, TokenManager};

use crate::support::token_endpoint::{Reply, TokenEndpoint, TokioClock};

pub(crate) const RESOURCE: &str = "https://api.example/orders";
pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The resource's metadata, and the authorization servers.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Replies to the requests for the metadata of the resource.
    pub(crate) documents: TokenEndpoint,
    pub(crate) issuer: TokenEndpoint,
    /// The `aud` of the tokens, which are JWTs; opaque if it is `null`.
    pub(crate) audience: Value,
    /// All URLs that were requested.
    urls: Arc<Mutex<Vec<String>>>,
}

impl Network {
    pub(crate) fn new(document: Reply) -> Self {
        let metadata = json!({ "issuer": ISSUER, "token_endpoint": "https://as.example/token" });
        Self {
            documents: TokenEndpoint::with_reply(Reply::Status(404, None)).metadata(document),
            issuer: TokenEndpoint::with_reply(Reply::Token(3600))
                .metadata(Reply::Json(200, metadata)),
            audience: json!(RESOURCE),
            urls: Arc::default(),
        }
    }

    /// A token of the endpoint as a JWT, whose last part it is.
    fn token(&self, body: &Bytes) -> Bytes {
        let Ok(mut reply) = serde_json::from_slice::<Value>(body) else {
            return body.clone();
        };
        match reply["access_token"].as_str() {
            Some(token) if !self.audience.is_null() => {
                let claims = json!({ "aud": self.audience }).to_string();
                let claims = URL_SAFE_NO_PAD.encode(claims);
                reply["access_token"] = json!(format!("e30.{claims}.{token}"));
                reply.to_string().into()
            }
            _ => body.clone(),
        }
    }

    /// With a document that confirms the issuer.
    pub(crate) fn confirming() -> Self {
        Self::new(Reply::Json(200, document(RESOURCE, &[ISSUER])))
    }

    pub(crate) fn builder(&self) -> TokenManagerBuilder {
        let credentials = ClientCredentials::new("shop", "a-secret-of-the-shop");
        TokenManager::for_resource(RESOURCE, ISSUER, credentials)
            .transport(self.clone())
            .clock(TokioClock::new())
            .acquire_timeout(5 * SECOND)
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.urls.lock().unwrap().clone()
    }

    /// The values of this parameter in each token request.
    pub(crate) fn sent(&self, name: &str) -> Vec<Vec<String>> {
        let requests = self.issuer.token_requests();
        let values = requests.iter().map(|request| {
            let named = request.form.iter().filter(|(other, _)| other == name);
            named.map(|(_, value)| value.clone()).collect()
        });
        values.collect()
    }
}

impl Transport for Network {
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        let url = request.uri().to_string();
        let is_document = url.contains("oauth-protected-resource");
        assert!(!is_document || !request.headers().contains_key(header::AUTHORIZATION));
        self.urls.lock().unwrap().push(url);
        let server = if is_document {
            &self.documents
        } else {
            &self.issuer
        };
        let response = server.send(request, max_body);
        Box::pin(async move { Ok(response.await?.map(|body| self.token(&body))) })
    }
}

pub(crate) fn document(resource: &str, issuers: &[&str]) -> Value {
    json!({
        "resource": resource,
        "authorization_servers": issuers,
        "scopes_supported": ["orders.read", "orders.admin"],
    })
}

/// The development server and a resource server behind one transport.
#[derive(Clone, Debug)]
pub(crate) struct Deployment {
    pub(crate) issuer: AuthorizationServer,
    pub(crate) metadata: Option<ProtectedResourceMetadata>,
}

impl Transport for Deployment {
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        let metadata = self.metadata.clone();
        match metadata.filter(|metadata| request.uri() == metadata.url()) {
            Some(metadata) => Box::pin(async move {
                let response = metadata.service().oneshot(request).await.unwrap();
                let (head, body) = response.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                Ok(Response::from_parts(head, body))
            }),
            None => {
                let transport = self.issuer.transport();
                Box::pin(async move { transport.send(request, max_body).await })
            }
        }
    }
}

pub(crate) fn scope(text: &str) -> Scope {
    Scope::new(text).unwrap()
}
