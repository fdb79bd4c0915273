//! The presets of providers: where a token is requested, and how.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tower_oauth::client::TokenManagerBuilder;
use tower_oauth::{
    ClientCredentials, ConfigError, Issuer, ResourceServer, Scope, TokenManager, TrustedIssuer,
};

use crate::support::provider::{APPLICATION, Provider, TENANT, TokenRequest};

const SECRET: &str = "a+b/c=~%d";

fn credentials() -> ClientCredentials {
    ClientCredentials::new("shop", SECRET)
}

/// The token request of a manager with the documents of this provider. The token is that of the
/// provider.
async fn request(
    provider: &Provider,
    manager: Result<TokenManagerBuilder, ConfigError>,
) -> TokenRequest {
    let tokens = manager.unwrap().transport(provider.clone()).start();
    let tokens = tokens.unwrap();
    let token = tokens.access_token().await.unwrap();
    let claims = token.expose_secret().split('.').nth(1).unwrap();
    assert_eq!(provider.token().split('.').nth(1), Some(claims));
    let mut requests = provider.token_requests();
    assert_eq!(requests.len(), 1);
    requests.remove(0)
}

/// Asserts that the credentials are in the header alone, form-urlencoded (RFC 6749 §2.3.1).
#[track_caller]
fn assert_is_basic(request: &TokenRequest) {
    let field = request.headers["authorization"].to_str().unwrap();
    let pair = STANDARD
        .decode(field.strip_prefix("Basic ").unwrap())
        .unwrap();
    let pair = String::from_utf8(pair).unwrap();
    assert_eq!(pair, "shop:a%2Bb%2Fc%3D%7E%25d");
    for parameter in ["client_id=", "client_secret="] {
        assert!(!request.form.contains(parameter), "{}", request.form);
    }
}

#[tokio::test]
async fn each_manager_requests_its_token_at_the_endpoint_of_the_metadata() {
    let scope = |scope: &str| Scope::new(scope).unwrap();
    let default_scope = format!("api://{APPLICATION}/.default");
    for (provider, manager, parameters) in [
        (
            Provider::keycloak(),
            TokenManager::keycloak("https://sso.example/", "shop", credentials()),
            String::new(),
        ),
        (
            Provider::entra(),
            TokenManager::entra(TENANT.to_uppercase(), credentials())
                .map(|manager| manager.scope(scope(&default_scope))),
            format!("&scope=api%3A%2F%2F{APPLICATION}%2F.default"),
        ),
        (
            Provider::auth0(),
            TokenManager::auth0("shop.eu.auth0.com", "https://orders.example", credentials()),
            "&audience=https%3A%2F%2Forders.example".to_owned(),
        ),
        (
            Provider::okta(),
            TokenManager::okta("shop.okta.com", "default", credentials())
                .map(|manager| manager.scope(scope("orders.read"))),
            "&scope=orders.read".to_owned(),
        ),
        (
            Provider::cognito(),
            TokenManager::cognito("eu-west-1", "eu-west-1_Example1", credentials())
                .map(|manager| manager.scope(scope("orders/read"))),
            "&scope=orders%2Fread".to_owned(),
        ),
    ] {
        let request = request(&provider, manager).await;
        assert_is_basic(&request);
        let form = format!("grant_type=client_credentials{parameters}");
        assert_eq!(request.form, form);
    }
}

/// The guide's examples run against the same providers.
#[tokio::test]
async fn a_token_request_without_what_a_provider_requires_is_an_oauth_error() {
    let entra = || TokenManager::entra(TENANT, credentials());
    let auth0 = |audience: &str, client: &str| {
        TokenManager::auth0(
            "shop.eu.auth0.com",
            audience,
            ClientCredentials::new(client, SECRET),
        )
    };
    let issuer = Issuer::new("https://shop-ab12.zitadel.cloud").unwrap();
    for (provider, manager, expected) in [
        (Provider::entra(), entra(), "invalid_request"),
        (
            Provider::entra(),
            entra().map(|manager| manager.scope("api://orders/read")),
            "invalid_scope",
        ),
        (
            Provider::entra(),
            entra()
                .map(|manager| manager.scopes(["api://orders/.default", "api://bills/.default"])),
            "invalid_scope",
        ),
        (Provider::auth0(), auth0("orders", "shop"), "access_denied"),
        (
            Provider::auth0(),
            auth0("https://orders.example", "K1AUPhZq8mRi0Q0p"),
            "invalid_client",
        ),
        (
            Provider::okta(),
            TokenManager::okta("shop.okta.com", "default", credentials()),
            "invalid_scope",
        ),
        (
            Provider::zitadel(),
            TokenManager::for_issuer(issuer, credentials()).map(|manager| manager.scope("openid")),
            "invalid_scope",
        ),
    ] {
        let tokens = manager.unwrap().transport(provider).start().unwrap();
        let error = tokens.access_token().await.unwrap_err();
        let code = error.oauth_error().map(|error| error.code().to_owned());
        assert_eq!(code.as_deref(), Some(expected), "{error}");
    }
}

#[tokio::test]
async fn the_clients_choice_of_authentication_stands() {
    let auth0 = Provider::auth0();
    let credentials = ClientCredentials::new("shop", "s3cret").client_secret_post();
    let manager = TokenManager::auth0("shop.eu.auth0.com", "https://orders.example", credentials);
    let request = request(&auth0, manager).await;
    assert!(!request.headers.contains_key("authorization"));
    let sent = "client_id=shop&client_secret=s3cret";
    assert!(request.form.contains(sent), "{}", request.form);
}

#[tokio::test]
async fn a_token_of_one_end_is_accepted_by_the_other() {
    let keycloak = Provider::keycloak();
    let trusted = TrustedIssuer::keycloak("https://sso.example", "shop", "orders").unwrap();
    let orders = ResourceServer::from_issuer(trusted).transport(keycloak.clone());
    let orders = orders.start().await.unwrap();
    let tokens = TokenManager::keycloak("https://sso.example", "shop", credentials()).unwrap();
    let tokens = tokens.transport(keycloak).start().unwrap();
    let token = tokens.access_token().await.unwrap();
    let caller = orders.validate(token.expose_secret()).await.unwrap();
    assert_eq!(caller.client_id(), Some("shop"));
}

#[tokio::test]
async fn metadata_of_another_tenant_send_no_secret() {
    // That of another one, and the template in the metadata of `common` and `organizations`.
    for tenant in ["9d1a6b9f-0c0d-4a39-8d57-4a8d2a4a0c11", "{tenantid}"] {
        let mut entra = Provider::entra();
        let issuer = format!("https://login.microsoftonline.com/{tenant}/v2.0");
        entra.metadata["issuer"] = json!(issuer);
        let manager = TokenManager::entra(TENANT, credentials()).unwrap();
        let tokens = manager.transport(entra.clone()).start().unwrap();
        let error = tokens.access_token().await.unwrap_err();
        let kind = tower_oauth::error::ErrorKind::IssuerMismatch;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(entra.token_requests().is_empty(), "{tenant}");
    }
}

#[test]
fn an_invalid_part_of_a_preset_is_an_error_that_names_it() {
    let error = |manager: Result<TokenManagerBuilder, ConfigError>| manager.map(drop).unwrap_err();
    for (error, setting) in [
        (
            error(TokenManager::keycloak("sso.example", "shop", credentials())),
            "url",
        ),
        (
            error(TokenManager::keycloak(
                "https://sso.example",
                "",
                credentials(),
            )),
            "realm",
        ),
        (
            error(TokenManager::entra("common", credentials())),
            "tenant",
        ),
        (
            error(TokenManager::auth0(
                "https://shop.auth0.com",
                "orders",
                credentials(),
            )),
            "domain",
        ),
        (
            error(TokenManager::auth0("shop.auth0.com", "", credentials())),
            "audience",
        ),
        (
            error(TokenManager::okta("shop.okta.com", "", credentials())),
            "authorization_server",
        ),
        (
            error(TokenManager::cognito(
                "eu-west-1",
                "us-east-1_a",
                credentials(),
            )),
            "user_pool",
        ),
    ] {
        assert_eq!(error.setting(), setting, "{error}");
    }
}
