//! Sets up each layer as its documentation says, with its own claims type if it has one, or else a
//! small one.

use std::sync::Arc;

use aliri_oauth2::Authority;
use axum::body::Body;
use axum::extract::FromRef;
use axum::middleware::from_extractor_with_state;
use axum_keycloak_auth::PassthroughMode;
use axum_keycloak_auth::instance::{KeycloakAuthInstance, KeycloakConfig};
use axum_keycloak_auth::layer::KeycloakAuthLayer;
use jwt_authorizer::{IntoLayer, JwtAuthorizer, RegisteredClaims};
use serde::Deserialize;
use tower::{Layer, service_fn};
use tower_oauth::resource_server::ResourceServerBuilder;
use tower_oauth::{Audience, ResourceServer};
use tower_oauth2_resource_server::server::OAuth2ResourceServer;
use tower_oauth2_resource_server::tenant::TenantConfiguration;

use crate::backend::Backend;
use crate::issuer::Issuer;
use crate::row::{Row, handler};
use crate::tokens::{AUDIENCE, TENANT};

/// With defaults, and without the token cache, which only costs time for a new token.
pub async fn ours(issuer: &Issuer) -> Vec<Row> {
    vec![
        tower_oauth(issuer, "tower-oauth", |builder| builder).await,
        tower_oauth(issuer, "tower-oauth, no cache", |builder| {
            builder.max_cached_tokens(0)
        })
        .await,
    ]
}

pub async fn others(issuer: &Issuer) -> Vec<Row> {
    vec![
        tower_oauth2_resource_server(
            issuer,
            "tower-oauth2-resource-server, aws-lc",
            Backend::AwsLc,
        )
        .await,
        tower_oauth2_resource_server(
            issuer,
            "tower-oauth2-resource-server, RustCrypto",
            Backend::RustCrypto,
        )
        .await,
        aliri_tower(issuer).await,
        jwt_authorizer(issuer).await,
        axum_jwks(issuer).await,
        axum_keycloak_auth(issuer).await,
        axum_jwt_auth(issuer).await,
    ]
}

/// For layers without a claims type.
#[allow(dead_code, reason = "constructed, not read")]
#[derive(Clone, Deserialize)]
struct Claims {
    sub: String,
    scope: String,
    exp: u64,
}

async fn tower_oauth(
    issuer: &Issuer,
    name: &'static str,
    change: fn(ResourceServerBuilder) -> ResourceServerBuilder,
) -> Row {
    let (issuer, audience) = (
        tower_oauth::Issuer::new(issuer.url()).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    );
    let server = change(ResourceServer::builder(issuer, audience).allow_loopback_http());
    let layer = server.start().await.unwrap().layer();
    Row::new(
        name,
        "tower-oauth",
        layer.layer(service_fn(handler::<Body>)),
    )
}

async fn tower_oauth2_resource_server(
    issuer: &Issuer,
    name: &'static str,
    backend: Backend,
) -> Row {
    let tenant = TenantConfiguration::builder(issuer.url())
        .audiences(&[AUDIENCE])
        .build()
        .await
        .unwrap();
    let server = <OAuth2ResourceServer>::builder()
        .add_tenant(tenant)
        .build()
        .await
        .unwrap();
    let service = server.into_layer().layer(service_fn(handler::<Body>));
    Row::new(name, "tower-oauth2-resource-server", service)
        .before_each_batch(move || backend.select())
}

async fn aliri_tower(issuer: &Issuer) -> Row {
    use aliri::jwa::Algorithm;
    use aliri::jwt::{self, CoreValidator};

    let validator = CoreValidator::default()
        .add_approved_algorithm(Algorithm::RS256)
        .add_allowed_audience(jwt::Audience::new(AUDIENCE.to_owned()))
        .require_issuer(jwt::Issuer::new(issuer.url()));
    let authority = Authority::new_from_url(issuer.jwks_uri(), validator)
        .await
        .unwrap();
    let authorizer = aliri_tower::Oauth2Authorizer::new().with_terse_error_handler::<Body>();
    let layer = authorizer.jwt_layer::<Body>(authority);
    Row::new(
        "aliri_tower",
        "aliri_tower",
        layer.layer(service_fn(handler::<Body>)),
    )
}

/// Its responses are of axum 0.7.
async fn jwt_authorizer(issuer: &Issuer) -> Row {
    let validation = jwt_authorizer::Validation::new()
        .iss(&[issuer.url()])
        .aud(&[AUDIENCE]);
    let authorizer =
        JwtAuthorizer::<RegisteredClaims>::from_oidc(&issuer.url()).validation(validation);
    let layer = authorizer.build().await.unwrap().into_layer();
    let service = layer.layer(service_fn(handler::<axum_07::body::Body>));
    Row::new("jwt-authorizer", "jwt-authorizer", service)
}

/// axum-jwks clones its keys out of the router's state for each request. With this shared state it
/// clones them once; otherwise it would be twice.
#[derive(Clone)]
struct SharedKeys(Arc<axum_jwks::Jwks>);

impl FromRef<SharedKeys> for axum_jwks::Jwks {
    fn from_ref(keys: &SharedKeys) -> Self {
        Self::clone(&keys.0)
    }
}

impl axum_jwks::ParseTokenClaims for Claims {
    type Rejection = axum_jwks::TokenError;
}

/// axum-jwks is an extractor; as a layer it needs no router.
async fn axum_jwks(issuer: &Issuer) -> Row {
    let keys = axum_jwks::Jwks::from_oidc_url(&issuer.metadata_url(), Some(AUDIENCE))
        .await
        .unwrap();
    let state = SharedKeys(Arc::new(keys));
    let layer = from_extractor_with_state::<axum_jwks::Claims<Claims>, _>(state);
    Row::new(
        "axum-jwks",
        "axum-jwks",
        layer.layer(service_fn(handler::<Body>)),
    )
}

async fn axum_keycloak_auth(issuer: &Issuer) -> Row {
    let config = KeycloakConfig::builder()
        .server(issuer.origin.parse().unwrap())
        .realm(TENANT.to_owned());
    let layer = KeycloakAuthLayer::<String, Scope>::builder()
        .instance(KeycloakAuthInstance::new(config.build()))
        .passthrough_mode(PassthroughMode::Block)
        .expected_audiences(vec![AUDIENCE.to_owned()])
        .build();
    Row::new(
        "axum-keycloak-auth",
        "axum-keycloak-auth",
        layer.layer(service_fn(handler::<Body>)),
    )
}

/// Replaces the default claims type, which requires a user's profile and address.
#[allow(dead_code, reason = "constructed, not read")]
#[derive(Clone, Deserialize)]
struct Scope {
    scope: String,
}

/// Also an extractor. It uses jsonwebtoken's RustCrypto backend.
async fn axum_jwt_auth(issuer: &Issuer) -> Row {
    use axum_jwt_auth::{Decoder, RemoteJwksDecoder};
    use jsonwebtoken_10::{Algorithm, Validation};

    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[issuer.url()]);
    let decoder = RemoteJwksDecoder::builder()
        .jwks_url(issuer.jwks_uri())
        .validation(validation);
    let decoder = decoder.build().unwrap();
    decoder.initialize().await.unwrap();
    let decoder: Decoder<Claims> = Arc::new(decoder);
    let layer = from_extractor_with_state::<axum_jwt_auth::Claims<Claims>, _>(decoder);
    Row::new(
        "axum-jwt-auth",
        "axum-jwt-auth",
        layer.layer(service_fn(handler::<Body>)),
    )
}
