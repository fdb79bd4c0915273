//! The presets of providers, with tokens and key sets in the shapes that they document.

use http_body_util::Full;
use serde_json::{Value, json};
use tower_oauth::error::ConfigErrorKind;
use tower_oauth::key_set::RefreshCause;
use tower_oauth::resource_server::RejectionKind::{
    self, InvalidAudience, InvalidClaims, MissingProofOfPossession, UnexpectedTokenType,
    UnknownKey, UnsupportedAlgorithm, UntrustedClient, UntrustedIssuer,
};
use tower_oauth::{Audience, AuthContext, ConfigError, ResourceServer, TrustedIssuer};

use crate::support::provider::{APPLICATION, Provider, TENANT};

const CLIENT: &str = "7ol0h0kd3rk4b4q6n1m3v5u8a2";
const SERVICE_ACCOUNT: &str = "shop@project.iam.gserviceaccount.com";
const UNIQUE_ID: &str = "113774264463038321964";
const OTHER_TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// A resource server with the documents of this provider. It has fetched the keys.
async fn start(provider: &Provider, issuer: Result<TrustedIssuer, ConfigError>) -> ResourceServer {
    let server = ResourceServer::from_issuer(issuer.unwrap()).transport(provider.clone());
    let server = server.start().await.unwrap();
    assert!(server.keys_available(), "{:?}", server.key_sets());
    server
}

/// Asserts that the token of the provider is accepted, from the cache as well.
async fn assert_accepts(server: &ResourceServer, token: &str) -> AuthContext {
    for _ in 0..2 {
        server.validate(token).await.unwrap();
    }
    assert!(server.explain(token).is_accepted());
    server.validate(token).await.unwrap()
}

/// Asserts that a token is rejected with this kind, and that the explanation agrees.
async fn assert_rejects(server: &ResourceServer, token: &str, kind: RejectionKind) {
    for _ in 0..2 {
        let rejection = server.validate(token).await.map(drop).unwrap_err();
        assert_eq!(rejection.kind(), kind, "{}", server.explain(token));
    }
    let explanation = server.explain(token);
    assert_eq!(explanation.rejection(), Some(kind), "{explanation}");
}

/// Asserts the kinds of rejection of tokens with other claims.
async fn assert_rejects_each<const N: usize>(
    server: &ResourceServer,
    provider: &Provider,
    changes: [(Value, RejectionKind); N],
) {
    for (changes, kind) in changes {
        assert_rejects(server, &provider.token_with(changes), kind).await;
    }
}

fn scopes(caller: &AuthContext) -> Vec<&str> {
    caller.scopes().collect()
}

#[tokio::test]
async fn keycloak_access_tokens_are_accepted_with_client_scopes_and_roles() {
    let keycloak = Provider::keycloak();
    let trusted = TrustedIssuer::keycloak("https://sso.example", "shop", "orders");
    let server = start(&keycloak, trusted).await;
    let caller = assert_accepts(&server, &keycloak.token()).await;
    assert_eq!(caller.client_id(), Some("shop"));
    assert_eq!(scopes(&caller), ["profile", "email", "orders.read"]);
    assert!(caller.has_role("auditor"));
    let access: Value = caller.claim("resource_access").unwrap().unwrap();
    assert_eq!(access["orders"]["roles"], json!(["reader"]));
    // Before version 24, `azp` alone names the client.
    let older = keycloak.token_with(json!({ "client_id": null }));
    assert_eq!(
        assert_accepts(&server, &older).await.client_id(),
        Some("shop")
    );
    let rfc_9068 = keycloak.sign(json!({ "typ": "at+jwt" }), json!({}));
    assert_accepts(&server, &rfc_9068).await;
}

#[tokio::test]
async fn keycloak_tokens_of_another_use_realm_or_audience_are_rejected() {
    let keycloak = Provider::keycloak();
    let trusted = TrustedIssuer::keycloak("https://sso.example", "shop", "orders");
    let server = start(&keycloak, trusted).await;
    let bound = json!({ "typ": "DPoP", "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2Hgl" } });
    assert_rejects_each(
        &server,
        &keycloak,
        [
            (json!({ "typ": "ID" }), UnexpectedTokenType),
            (json!({ "typ": "Refresh" }), UnexpectedTokenType),
            (json!({ "typ": "Offline" }), UnexpectedTokenType),
            (json!({ "typ": "Logout" }), UnexpectedTokenType),
            (json!({ "typ": "RegistrationAccessToken" }), InvalidClaims),
            (json!({ "typ": "bearer" }), InvalidClaims),
            (json!({ "typ": null }), InvalidClaims),
            (bound, MissingProofOfPossession),
            (
                json!({ "iss": "https://sso.example/realms/bills" }),
                UntrustedIssuer,
            ),
            (json!({ "aud": "account" }), InvalidAudience),
            (json!({ "aud": ["shop"] }), InvalidAudience),
        ],
    )
    .await;
    // The key for encryption is in the set, and verifies nothing.
    let encryption = keycloak.sign(json!({ "kid": "enc" }), json!({}));
    assert_rejects(&server, &encryption, UnknownKey).await;
}

#[tokio::test]
async fn entra_access_tokens_of_both_versions_are_accepted_with_client_roles_and_scopes() {
    let entra = Provider::entra();
    // As copied from a portal that shows ids in upper case.
    let trusted = TrustedIssuer::entra(TENANT.to_uppercase(), APPLICATION.to_uppercase());
    let server = start(&entra, trusted).await;
    let caller = assert_accepts(&server, &entra.token()).await;
    assert_eq!(
        caller.client_id(),
        Some("9d1a6b9f-0c0d-4a39-8d57-4a8d2a4a0c11")
    );
    assert!(caller.has_role("Orders.Read.All"));
    assert_eq!(caller.claim("idtyp").unwrap(), Some("app".to_owned()));
    let v1 = json!({
        "iss": format!("https://sts.windows.net/{TENANT}/"), "ver": "1.0", "azp": null,
        "azpacr": null, "appid": "9d1a6b9f-0c0d-4a39-8d57-4a8d2a4a0c11", "appidacr": "1",
        "aud": format!("api://{APPLICATION}"),
    });
    let header = json!({ "x5t": "-KI3Q9nNR7bRofxmeZoXqbHZGew" });
    let caller = assert_accepts(&server, &entra.sign(header, v1)).await;
    assert_eq!(
        caller.client_id(),
        Some("9d1a6b9f-0c0d-4a39-8d57-4a8d2a4a0c11")
    );
    let delegated = json!({
        "idtyp": "user", "roles": null, "scp": "Orders.Read Orders.Write", "name": "Ada",
        "preferred_username": "ada@shop.example",
    });
    let caller = assert_accepts(&server, &entra.token_with(delegated)).await;
    assert_eq!(scopes(&caller), ["Orders.Read", "Orders.Write"]);
}

#[tokio::test]
async fn entra_tokens_of_another_use_tenant_application_or_algorithm_are_rejected() {
    let mut entra = Provider::entra();
    entra.publish(json!({ "kty": "RSA", "kid": "ps256", "alg": "PS256" }));
    let server = start(&entra, TrustedIssuer::entra(TENANT, APPLICATION)).await;
    let of_tenant = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
    // An application that signs users in itself gets ID tokens with its id as audience, and roles.
    let id_token = json!({
        "azp": null, "azpacr": null, "idtyp": null, "nonce": "n-0S6_WzA2Mj", "name": "Ada",
        "preferred_username": "ada@shop.example",
    });
    assert_rejects_each(
        &server,
        &entra,
        [
            (id_token.clone(), InvalidClaims),
            (
                json!({ "iss": of_tenant(OTHER_TENANT), "tid": OTHER_TENANT }),
                UntrustedIssuer,
            ),
            (json!({ "tid": OTHER_TENANT }), InvalidClaims),
            (json!({ "tid": null }), InvalidClaims),
            (json!({ "iss": of_tenant("common") }), UntrustedIssuer),
            (json!({ "iss": of_tenant("{tenantid}") }), UntrustedIssuer),
            (
                json!({ "iss": format!("https://sts.windows.net/{TENANT}") }),
                UntrustedIssuer,
            ),
            (
                json!({ "iss": format!("{}/", of_tenant(TENANT)) }),
                UntrustedIssuer,
            ),
            (
                json!({ "aud": "00000003-0000-0000-c000-000000000000" }),
                InvalidAudience,
            ),
        ],
    )
    .await;
    // Another name for the client does not make an ID token an access token.
    let named = TrustedIssuer::entra(TENANT, APPLICATION)
        .map(|entra| entra.client_id_from(|token| token.subject().map(str::to_owned)));
    let named = start(&entra, named).await;
    let caller = assert_accepts(&named, &entra.token()).await;
    assert_eq!(caller.client_id(), caller.subject());
    assert_rejects(&named, &entra.token_with(id_token), InvalidClaims).await;
    let ps256 = entra.sign(json!({ "alg": "PS256", "kid": "ps256" }), json!({}));
    assert_rejects(&server, &ps256, UnsupportedAlgorithm).await;
}

#[tokio::test]
async fn an_entra_key_of_another_tenant_verifies_no_token() {
    let key = |kid: &str, issuer: Value| json!({ "kty": "RSA", "use": "sig", "kid": kid, "issuer": issuer });
    let of_tenant =
        |tenant: &str| json!(format!("https://login.microsoftonline.com/{tenant}/v2.0"));
    let mut entra = Provider::entra();
    for (kid, issuer) in [
        ("own", of_tenant(TENANT)),
        ("v1", json!(format!("https://sts.windows.net/{TENANT}/"))),
        ("template", of_tenant("{tenantid}")),
        ("none", Value::Null),
        ("personal", of_tenant(OTHER_TENANT)),
        ("common", of_tenant("common")),
        (
            "prefix",
            json!(format!("https://login.microsoftonline.com/{TENANT}")),
        ),
        ("number", json!(7)),
        ("array", json!([of_tenant(TENANT)])),
    ] {
        entra.publish(key(kid, issuer));
    }
    // Listed for all tenants and for one: it is both.
    entra.publish(key("both", of_tenant(OTHER_TENANT)));
    entra.publish(key("both", of_tenant("{tenantid}")));
    let server = start(&entra, TrustedIssuer::entra(TENANT, APPLICATION)).await;
    for kid in ["own", "v1", "template", "none", "both"] {
        assert_accepts(&server, &entra.sign(json!({ "kid": kid }), json!({}))).await;
    }
    let generation = server.key_sets()[0].generation();
    for kid in ["personal", "common", "prefix", "number", "array"] {
        let token = entra.sign(json!({ "kid": kid }), json!({}));
        assert_rejects(&server, &token, UnknownKey).await;
        let explanation = server.explain(&token).to_string();
        assert!(explanation.contains("another tenant"), "{explanation}");
    }
    // A refresh would not help.
    assert_eq!(server.key_sets()[0].generation(), generation);
    let causes = RefreshCause::ALL.iter();
    let counts = causes.map(|cause| server.key_sets()[0].refreshes(*cause));
    let refreshes: u64 = counts.map(|count| count.succeeded + count.failed).sum();
    assert_eq!(refreshes, 1);
    // Other issuers may publish a member of this name for something else.
    let issuer = entra.metadata["issuer"].as_str().unwrap();
    let builder = ResourceServer::builder(issuer, APPLICATION).transport(entra.clone());
    let other = builder.start().await.unwrap();
    let token = entra.sign(json!({ "kid": "personal" }), json!({}));
    assert_accepts(&other, &token).await;
}

#[tokio::test]
async fn a_cached_entra_token_ends_when_its_key_is_given_to_another_tenant() {
    let mut entra = Provider::entra();
    let token = entra.token();
    let shared = std::sync::Arc::new(std::sync::Mutex::new(entra.clone()));
    let network = std::sync::Arc::clone(&shared);
    let service = tower::service_fn(move |request: http::Request<Full<bytes::Bytes>>| {
        let provider = network.lock().unwrap().clone();
        async move {
            let request = request.map(|_| bytes::Bytes::new());
            let response = tower_oauth::transport::Transport::send(&provider, request, 1 << 20);
            response.await.map(|response| response.map(Full::new))
        }
    });
    let trusted = TrustedIssuer::entra(TENANT, APPLICATION).unwrap();
    let server = ResourceServer::from_issuer(trusted);
    let server = server.transport(tower_oauth::transport::ServiceTransport::new(service));
    let server = server.start().await.unwrap();
    assert_accepts(&server, &token).await;
    assert_eq!(server.cached_token_count(), 1);
    let other = format!("https://login.microsoftonline.com/{OTHER_TENANT}/v2.0");
    entra.keys["keys"][0]["issuer"] = json!(other);
    *shared.lock().unwrap() = entra;
    server.refresh_keys().await.unwrap();
    assert_rejects(&server, &token, UnknownKey).await;
}

#[tokio::test]
async fn auth0_access_tokens_of_both_profiles_are_accepted_with_client_scopes_and_permissions() {
    let auth0 = Provider::auth0();
    let trusted = TrustedIssuer::auth0("shop.eu.auth0.com", "https://orders.example");
    let server = start(&auth0, trusted).await;
    let rfc_9068 = json!({ "azp": null, "client_id": "K1AUPhZq8mRi0Q0p", "jti": "73WakrfV" });
    let rfc_9068 = auth0.sign(json!({ "typ": "at+jwt" }), rfc_9068);
    for token in [auth0.token(), rfc_9068] {
        let caller = assert_accepts(&server, &token).await;
        assert_eq!(caller.client_id(), Some("K1AUPhZq8mRi0Q0p"));
        assert_eq!(scopes(&caller), ["read:orders"]);
        let permissions: Option<Vec<String>> = caller.claim("permissions").unwrap();
        assert_eq!(permissions, Some(vec!["read:orders".to_owned()]));
    }
    let with_user =
        json!({ "aud": ["https://orders.example", "https://shop.eu.auth0.com/userinfo"] });
    assert_accepts(&server, &auth0.token_with(with_user)).await;
}

#[tokio::test]
async fn auth0_tokens_of_another_use_tenant_or_api_are_rejected() {
    let auth0 = Provider::auth0();
    let trusted = TrustedIssuer::auth0("shop.eu.auth0.com", "https://orders.example");
    let server = start(&auth0, trusted).await;
    let id_token = json!({
        "aud": "K1AUPhZq8mRi0Q0p", "azp": null, "scope": null, "gty": null, "nonce": "a1b2",
        "sub": "auth0|123456", "sid": "s1", "name": "Ada",
    });
    assert_rejects_each(
        &server,
        &auth0,
        [
            (id_token, InvalidAudience),
            (
                json!({ "iss": "https://other.eu.auth0.com/" }),
                UntrustedIssuer,
            ),
            (
                json!({ "iss": "https://shop.eu.auth0.com" }),
                UntrustedIssuer,
            ),
            (
                json!({ "aud": "https://shop.eu.auth0.com/api/v2/" }),
                InvalidAudience,
            ),
        ],
    )
    .await;
    let hs256 = auth0.sign(json!({ "alg": "HS256" }), json!({}));
    assert_rejects(&server, &hs256, UnsupportedAlgorithm).await;
}

#[tokio::test]
async fn okta_access_tokens_are_accepted_with_client_and_scopes() {
    let okta = Provider::okta();
    let trusted = TrustedIssuer::okta("shop.okta.com", "default", "api://default");
    let server = start(&okta, trusted).await;
    let caller = assert_accepts(&server, &okta.token()).await;
    assert_eq!(caller.client_id(), Some("0oabv6kx4qq6h1U5l0h7"));
    assert_eq!(scopes(&caller), ["orders.read"]);
    let of_user = json!({ "uid": "00u1", "sub": "ada@shop.example", "groups": ["Everyone"] });
    let caller = assert_accepts(&server, &okta.token_with(of_user)).await;
    let groups: Option<Vec<String>> = caller.claim("groups").unwrap();
    assert_eq!(groups, Some(vec!["Everyone".to_owned()]));
}

#[tokio::test]
async fn okta_tokens_of_another_use_server_or_audience_are_rejected() {
    let okta = Provider::okta();
    let trusted = TrustedIssuer::okta("shop.okta.com", "default", "api://default");
    let server = start(&okta, trusted).await;
    let id_token = |audience: &str| {
        json!({
            "aud": audience, "cid": null, "scp": null, "jti": "ID.4eAWJOCMB3SX8XewDfVR",
            "amr": ["pwd"], "idp": "00o1", "auth_time": 1_700_000_000, "sub": "00u1",
        })
    };
    assert_rejects_each(
        &server,
        &okta,
        [
            (id_token("0oabv6kx4qq6h1U5l0h7"), InvalidAudience),
            // If the audience of the server is chosen as the id of a client.
            (id_token("api://default"), InvalidClaims),
            (
                json!({ "at_hash": "fPlsvVszI29LU2Uh" }),
                UnexpectedTokenType,
            ),
            (
                json!({ "iss": "https://shop.okta.com", "aud": "https://shop.okta.com" }),
                UntrustedIssuer,
            ),
            (
                json!({ "iss": "https://shop.okta.com/oauth2/aus1" }),
                UntrustedIssuer,
            ),
            (json!({ "aud": "api://other" }), InvalidAudience),
        ],
    )
    .await;
}

#[tokio::test]
async fn cognito_access_tokens_of_the_app_clients_are_accepted_with_client_and_scopes() {
    let cognito = Provider::cognito();
    let trusted = TrustedIssuer::cognito("eu-west-1", "eu-west-1_Example1", [CLIENT]);
    let server = start(&cognito, trusted).await;
    let caller = assert_accepts(&server, &cognito.token()).await;
    assert_eq!(caller.client_id(), Some(CLIENT));
    assert_eq!(scopes(&caller), ["orders/read"]);
    assert_eq!(caller.audience().count(), 0);
    let of_user = json!({ "username": "ada", "cognito:groups": ["admins"], "sub": "aaaa-bbbb" });
    let caller = assert_accepts(&server, &cognito.token_with(of_user)).await;
    let groups: Option<Vec<String>> = caller.claim("cognito:groups").unwrap();
    assert_eq!(groups, Some(vec!["admins".to_owned()]));
}

#[tokio::test]
async fn cognito_tokens_of_another_use_pool_or_client_or_with_any_audience_are_rejected() {
    let cognito = Provider::cognito();
    let trusted = || TrustedIssuer::cognito("eu-west-1", "eu-west-1_Example1", [CLIENT]);
    let server = start(&cognito, trusted()).await;
    let pool = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example2";
    let id_token = json!({
        "aud": CLIENT, "client_id": null, "scope": null, "token_use": "id", "email": "a@b.example",
        "cognito:username": "ada",
    });
    assert_rejects_each(
        &server,
        &cognito,
        [
            (id_token, UnexpectedTokenType),
            (json!({ "token_use": "refresh" }), InvalidClaims),
            (json!({ "token_use": null }), InvalidClaims),
            (json!({ "client_id": "another" }), UntrustedClient),
            (json!({ "client_id": null }), UntrustedClient),
            (json!({ "iss": pool }), UntrustedIssuer),
            (json!({ "aud": CLIENT }), InvalidAudience),
            (json!({ "aud": "https://orders.example" }), InvalidAudience),
            (json!({ "aud": [] }), InvalidAudience),
            (json!({ "aud": "" }), InvalidAudience),
        ],
    )
    .await;
    // With resource binding, `aud` is the resource.
    let audience = Audience::new("https://orders.example").unwrap();
    let bound = trusted().map(|cognito| cognito.add_audience(audience));
    let server = start(&cognito, bound).await;
    let with_audience = json!({ "aud": "https://orders.example" });
    assert_accepts(&server, &cognito.token_with(with_audience)).await;
    assert_accepts(&server, &cognito.token()).await;
    let other = cognito.token_with(json!({ "aud": "https://bills.example" }));
    assert_rejects(&server, &other, InvalidAudience).await;
}

#[tokio::test]
async fn google_id_tokens_of_the_service_accounts_are_accepted_and_name_the_caller() {
    let google = Provider::google();
    for (callers, client) in [
        (vec![SERVICE_ACCOUNT], SERVICE_ACCOUNT),
        (vec![UNIQUE_ID], UNIQUE_ID),
        (
            vec!["other@project.iam.gserviceaccount.com", SERVICE_ACCOUNT],
            SERVICE_ACCOUNT,
        ),
    ] {
        let trusted = TrustedIssuer::google("https://orders.example", callers.clone());
        let server = start(&google, trusted).await;
        let caller = assert_accepts(&server, &google.token()).await;
        assert_eq!(caller.client_id(), Some(client), "{callers:?}");
        let older = google.token_with(json!({ "iss": "accounts.google.com" }));
        assert_accepts(&server, &older).await;
    }
    // Without `format=full` and `includeEmail` there is no address.
    let server = start(
        &google,
        TrustedIssuer::google("https://orders.example", [UNIQUE_ID]),
    )
    .await;
    let without_email = json!({ "email": null, "email_verified": null });
    let caller = assert_accepts(&server, &google.token_with(without_email)).await;
    assert_eq!(caller.client_id(), Some(UNIQUE_ID));
}

#[tokio::test]
async fn google_tokens_of_another_account_or_audience_are_rejected() {
    let google = Provider::google();
    let by_email = TrustedIssuer::google("https://orders.example", [SERVICE_ACCOUNT]);
    let server = start(&google, by_email).await;
    assert_rejects_each(
        &server,
        &google,
        [
            (json!({ "email_verified": false }), UntrustedClient),
            (json!({ "email_verified": "true" }), UntrustedClient),
            (json!({ "email_verified": null }), UntrustedClient),
            (json!({ "email": null }), UntrustedClient),
            (json!({ "email": [SERVICE_ACCOUNT] }), UntrustedClient),
            (
                json!({ "email": "eve@evil.iam.gserviceaccount.com" }),
                UntrustedClient,
            ),
            // No claim but `email` may have the address.
            (
                json!({ "email": null, "azp": SERVICE_ACCOUNT }),
                UntrustedClient,
            ),
            (
                json!({ "email": null, "sub": SERVICE_ACCOUNT }),
                UntrustedClient,
            ),
            (json!({ "aud": "https://bills.example" }), InvalidAudience),
            (
                json!({ "iss": "https://securetoken.google.com/shop" }),
                UntrustedIssuer,
            ),
            // An ID token of a user, as `gcloud auth print-identity-token` prints.
            (
                json!({ "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q" }),
                UnexpectedTokenType,
            ),
        ],
    )
    .await;
    let by_id = TrustedIssuer::google("https://orders.example", [UNIQUE_ID]);
    let server = start(&google, by_id).await;
    assert_rejects_each(
        &server,
        &google,
        [
            (json!({ "sub": "113774264463038321965" }), UntrustedClient),
            (json!({ "sub": null }), UntrustedClient),
            (json!({ "sub": null, "email": UNIQUE_ID }), UntrustedClient),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_later_list_replaces_the_callers_of_google_and_a_closure_how_they_are_named() {
    let google = Provider::google();
    let preset = || TrustedIssuer::google("https://orders.example", [SERVICE_ACCOUNT]).unwrap();
    let other = google.token_with(json!({ "sub": "113774264463038321965" }));
    let unverified = google.token_with(json!({ "email_verified": false }));
    let stranger = json!({ "email": "eve@evil.iam.gserviceaccount.com" });
    let stranger = google.token_with(stranger);

    // The list of the preset no longer counts; the preset still finds the name of the caller.
    let server = start(&google, Ok(preset().allowed_clients([UNIQUE_ID]))).await;
    assert_rejects(&server, &google.token(), UntrustedClient).await;
    let caller = assert_accepts(&server, &unverified).await;
    assert_eq!(caller.client_id(), Some(UNIQUE_ID));

    // The closure names the caller by `sub`, with the list of the preset and with a later one.
    let by_id =
        |trusted: TrustedIssuer| trusted.client_id_from(|token| token.subject().map(str::to_owned));
    let server = start(&google, Ok(by_id(preset()))).await;
    assert_rejects(&server, &google.token(), UntrustedClient).await;
    let server = start(&google, Ok(by_id(preset()).allowed_clients([UNIQUE_ID]))).await;
    for token in [&google.token(), &unverified, &stranger] {
        let caller = assert_accepts(&server, token).await;
        assert_eq!(caller.client_id(), Some(UNIQUE_ID));
    }
    assert_rejects(&server, &other, UntrustedClient).await;
}

#[tokio::test]
async fn zitadel_access_tokens_are_accepted_with_client_and_roles_of_the_project() {
    let zitadel = Provider::zitadel();
    let trusted = TrustedIssuer::zitadel("shop-ab12.zitadel.cloud", "344374183645413380");
    let server = start(&zitadel, trusted).await;
    let caller = assert_accepts(&server, &zitadel.token()).await;
    assert_eq!(caller.client_id(), Some("shop"));
    let roles = "urn:zitadel:iam:org:project:344374183645413380:roles";
    let roles: Value = caller.claim(roles).unwrap().unwrap();
    assert!(roles.get("reader").is_some());
}

#[tokio::test]
async fn zitadel_tokens_of_another_use_instance_or_project_are_rejected() {
    let zitadel = Provider::zitadel();
    let trusted = TrustedIssuer::zitadel("shop-ab12.zitadel.cloud", "344374183645413380");
    let server = start(&zitadel, trusted).await;
    // The project is an audience of ID tokens, too.
    let id_token = json!({
        "aud": ["shop", "344374183645413380"], "azp": "shop", "jti": null, "nbf": null,
        "amr": ["pwd"], "auth_time": 1_700_000_000, "sid": "V1_1",
    });
    assert_rejects_each(
        &server,
        &zitadel,
        [
            (id_token, InvalidClaims),
            (
                json!({ "iss": "https://other-ab12.zitadel.cloud" }),
                UntrustedIssuer,
            ),
            (json!({ "aud": ["shop"] }), InvalidAudience),
        ],
    )
    .await;
}

#[tokio::test]
async fn supabase_access_tokens_of_users_are_accepted_with_their_role() {
    let supabase = Provider::supabase();
    let server = start(&supabase, TrustedIssuer::supabase("abcdefghijklmnopqrst")).await;
    let caller = assert_accepts(&server, &supabase.token()).await;
    let user = "123e4567-e89b-12d3-a456-426614174000";
    assert_eq!(caller.subject(), Some(user));
    assert_eq!(caller.client_id(), None);
    let role: Option<String> = caller.claim("role").unwrap();
    assert_eq!(role.as_deref(), Some("authenticated"));
}

#[tokio::test]
async fn supabase_tokens_of_another_use_or_project_are_rejected() {
    let supabase = Provider::supabase();
    let server = start(&supabase, TrustedIssuer::supabase("abcdefghijklmnopqrst")).await;
    let other = "https://zyxwvutsrqponmlkjihg.supabase.co/auth/v1";
    assert_rejects_each(
        &server,
        &supabase,
        [
            (json!({ "iss": other }), UntrustedIssuer),
            (json!({ "iss": "supabase", "aud": null }), UntrustedIssuer),
            (json!({ "aud": "anon", "role": "anon" }), InvalidAudience),
            (json!({ "aud": null }), InvalidClaims),
            (json!({ "is_anonymous": true }), InvalidClaims),
            (json!({ "is_anonymous": "false" }), InvalidClaims),
            (json!({ "client_id": "9a8b7c6d" }), InvalidClaims),
        ],
    )
    .await;
    let before_anonymous_sign_ins = supabase
        .clone()
        .with_claims(json!({ "is_anonymous": null }));
    assert_accepts(&server, &before_anonymous_sign_ins.token()).await;
    // Signed with the legacy secret of the project, as the legacy API keys are.
    let hs256 = supabase.sign(json!({ "alg": "HS256" }), json!({}));
    assert_rejects(&server, &hs256, UnsupportedAlgorithm).await;
}

#[test]
fn each_preset_names_the_issuer_that_the_provider_documents() {
    let keycloak = |url: &str| TrustedIssuer::keycloak(url, "shop", "orders");
    for (trusted, issuer) in [
        (
            keycloak("https://sso.example"),
            "https://sso.example/realms/shop",
        ),
        (
            keycloak("https://sso.example/"),
            "https://sso.example/realms/shop",
        ),
        (
            keycloak("https://sso.example:8443/auth/"),
            "https://sso.example:8443/auth/realms/shop",
        ),
        (
            TrustedIssuer::auth0("login.shop.example", "https://orders.example"),
            "https://login.shop.example/",
        ),
        (
            TrustedIssuer::okta("shop.okta.com", "aus9o8wzkhckw9TLa0h7", "orders"),
            "https://shop.okta.com/oauth2/aus9o8wzkhckw9TLa0h7",
        ),
        (
            TrustedIssuer::zitadel("id.shop.example:8443", "1"),
            "https://id.shop.example:8443",
        ),
        (
            TrustedIssuer::supabase("auth.shop.example"),
            "https://auth.shop.example/auth/v1",
        ),
    ] {
        let (server, _) = ResourceServer::from_issuer(trusted.unwrap())
            .build()
            .unwrap();
        assert_eq!(server.key_sets()[0].issuer(), issuer);
    }
}

#[test]
fn an_invalid_part_of_a_preset_is_an_error_that_names_it_and_says_why() {
    let none: [&str; 0] = [];
    let entra = |tenant: &str| TrustedIssuer::entra(tenant, APPLICATION);
    let keycloak = |url: &str, realm: &str| TrustedIssuer::keycloak(url, realm, "orders");
    let auth0 = |domain: &str| TrustedIssuer::auth0(domain, "orders");
    let okta = |id: &str| TrustedIssuer::okta("shop.okta.com", id, "orders");
    let cognito = |region: &str, pool: &str| TrustedIssuer::cognito(region, pool, [CLIENT]);
    for (trusted, setting, reason) in [
        (entra("common"), "tenant", "many tenants"),
        (entra("organizations"), "tenant", "many tenants"),
        (entra("consumers"), "tenant", "many tenants"),
        (entra("contoso.onmicrosoft.com"), "tenant", "domain"),
        (entra("{tenantid}"), "tenant", "GUID"),
        (entra(""), "tenant", "GUID"),
        (entra(&format!("{TENANT}-0")), "tenant", "GUID"),
        (entra(&TENANT.replace('-', "")), "tenant", "GUID"),
        (
            entra("72f988bf-86f1-41af-91ab-2d7cd011db4g"),
            "tenant",
            "GUID",
        ),
        (
            TrustedIssuer::entra(TENANT, "api://orders"),
            "application_id",
            "add_audience",
        ),
        (keycloak("sso.example", "shop"), "url", "scheme"),
        (keycloak("https://sso.example?a=b", "shop"), "url", "query"),
        (keycloak("https://sso.example", ""), "realm", "realm"),
        (
            keycloak("https://sso.example", "my shop"),
            "realm",
            "TrustedIssuer::new",
        ),
        (keycloak("https://sso.example", "a/b"), "realm", "realm"),
        (keycloak("https://sso.example", ".."), "realm", "realm"),
        (
            TrustedIssuer::keycloak("https://sso.example", "shop", ""),
            "audience",
            "empty",
        ),
        (
            auth0("https://shop.auth0.com"),
            "domain",
            "without a scheme",
        ),
        (auth0("shop.auth0.com/"), "domain", "path"),
        (auth0("Shop.auth0.com"), "domain", "lower case"),
        (auth0("user@shop.auth0.com"), "domain", "host name"),
        (auth0(""), "domain", "host name"),
        (okta(""), "authorization_server", "default"),
        (okta("a/b"), "authorization_server", "default"),
        (cognito("", "_a"), "region", "eu-west-1"),
        (
            cognito("eu-west-1", "us-east-1_Example1"),
            "user_pool",
            "eu-west-1_",
        ),
        (
            cognito("eu-west-1", "eu-west-1_"),
            "user_pool",
            "eu-west-1_",
        ),
        (
            cognito("eu-west-1", "eu-west-1_a/b"),
            "user_pool",
            "eu-west-1_",
        ),
        (
            TrustedIssuer::cognito("eu-west-1", "eu-west-1_Example1", none),
            "allowed_clients",
            "at least one",
        ),
        (
            TrustedIssuer::google("orders", none),
            "callers",
            "any audience",
        ),
        (
            TrustedIssuer::google("orders", ["shop"]),
            "callers",
            "e-mail",
        ),
        (TrustedIssuer::google("orders", [""]), "callers", "e-mail"),
        (
            TrustedIssuer::google("orders", ["ada@shop.example"]),
            "callers",
            "service account",
        ),
        (
            TrustedIssuer::zitadel("https://id.example", "1"),
            "domain",
            "scheme",
        ),
        (
            TrustedIssuer::supabase("https://abc.supabase.co"),
            "project",
            "scheme",
        ),
    ] {
        let error = trusted.map(drop).unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    let missing = TrustedIssuer::google("orders", none).map(drop).unwrap_err();
    assert_eq!(missing.kind(), ConfigErrorKind::Missing);
}
