//! What client libraries are accepted with: each method, algorithm and grant of the metadata, and
//! what applications can be set to.

use secrecy::ExposeSecret as _;
use serde_json::json;
use tower_oauth::authorization_server::ExpectedAudience;
use tower_oauth::clock::{Clock as _, SystemClock};
use tower_oauth::resource_server::Algorithm;

use super::{
    ACCESS_TOKEN, CLIENT_CREDENTIALS, Fixture, INTROSPECTION, JWT_BEARER, Library, TOKEN_EXCHANGE,
    claims, key, with,
};
use crate::client_keys::signing_key;

/// The methods that each library is tested with.
const METHODS: [&str; 3] = [
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
];

/// The grants that each library is tested with.
const GRANTS: [&str; 3] = [CLIENT_CREDENTIALS, JWT_BEARER, TOKEN_EXCHANGE];

#[tokio::test]
async fn client_libraries_are_accepted_with_every_method_that_the_metadata_name() {
    let Some(libraries) = Library::all() else {
        return;
    };
    let fixture = Fixture::new().await;
    let metadata = fixture.metadata().await;
    for endpoint in ["token", "introspection"] {
        let name = format!("{endpoint}_endpoint_auth_methods_supported");
        assert_eq!(metadata[&name], json!(METHODS), "{name}");
    }
    for mut library in libraries {
        for method in METHODS {
            let methods = json!({ "methods": [method] });
            let body = library.accepted(method, &fixture.job(&methods)).await;
            assert_eq!(claims(&body)["sub"], fixture.shop.client_id(), "{method}");
            let job = with(&fixture.job(&methods), &fixture.grant(INTROSPECTION));
            let body = library.accepted(method, &job).await;
            assert_eq!(body["active"], true, "{method}");
            let exchange = with(&fixture.job(&methods), &fixture.grant(TOKEN_EXCHANGE));
            library.accepted(method, &exchange).await;
        }
        // The methods are proved: another secret, and another key under the same `kid`.
        let (pem, _) = signing_key(Algorithm::Es256);
        for (method, wrong) in [
            ("client_secret_basic", json!({ "secret": "wrong" })),
            ("client_secret_post", json!({ "secret": "wrong" })),
            (
                "private_key_jwt",
                json!({ "key": key("ES256", pem.expose_secret()) }),
            ),
        ] {
            for grant in [CLIENT_CREDENTIALS, TOKEN_EXCHANGE, INTROSPECTION] {
                let job = with(&fixture.job(&wrong), &fixture.grant(grant));
                let job = with(&job, &json!({ "methods": [method] }));
                library
                    .assert_refused(method, &job, (401, "invalid_client"))
                    .await;
            }
        }
    }
}

#[tokio::test]
async fn client_libraries_are_accepted_with_every_algorithm_that_the_metadata_name() {
    let Some(libraries) = Library::all() else {
        return;
    };
    let fixture = Fixture::new().await;
    let metadata = fixture.metadata().await;
    let algorithms = &metadata["token_endpoint_auth_signing_alg_values_supported"];
    assert_eq!(
        *algorithms, metadata["introspection_endpoint_auth_signing_alg_values_supported"],
        "one list for both endpoints"
    );
    let algorithms = algorithms.as_array().unwrap();
    assert_eq!(algorithms.len(), Algorithm::ALL.len() + 1);
    let mut jobs = Vec::new();
    let mut keys = Vec::new();
    for name in algorithms {
        let name = name.as_str().unwrap();
        // RFC 9864 §2.2: two names of one algorithm.
        let family = if name == "Ed25519" { "EdDSA" } else { name };
        let algorithm = Algorithm::ALL.iter().find(|known| known.name() == family);
        let (pem, jwks) = signing_key(*algorithm.unwrap_or_else(|| panic!("untested: {name}")));
        let mut jwk = jwks["keys"][0].clone();
        jwk["kid"] = json!(name);
        keys.push(jwk);
        let key = json!({ "pem": pem.expose_secret(), "alg": family, "kid": name });
        jobs.push((name, json!({ "key": key, "header": { "alg": name } })));
    }
    fixture.shop.set_jwks(json!({ "keys": keys })).unwrap();
    for mut library in libraries {
        for (name, changes) in &jobs {
            for grant in [CLIENT_CREDENTIALS, JWT_BEARER, INTROSPECTION] {
                let job = with(&fixture.job(changes), &fixture.grant(grant));
                library.accepted(name, &job).await;
            }
        }
    }
}

#[tokio::test]
async fn client_libraries_are_accepted_with_every_grant_that_the_metadata_name() {
    let Some(libraries) = Library::all() else {
        return;
    };
    let fixture = Fixture::new().await;
    let metadata = fixture.metadata().await;
    assert_eq!(metadata["grant_types_supported"], json!(GRANTS));
    fixture.shop.set_scopes(["reports.read"]).unwrap();
    let (shop, other) = (fixture.shop.client_id(), fixture.other.client_id());
    for mut library in libraries {
        for grant in [CLIENT_CREDENTIALS, JWT_BEARER] {
            let parameters = json!({ "scope": "reports.read", "audience": "reports" });
            let job = fixture.job(&json!({ "grant": grant, "parameters": parameters }));
            let body = library.accepted(grant, &job).await;
            assert_eq!(body["scope"], "reports.read", "{grant}");
            let claims = claims(&body);
            assert_eq!(claims["sub"], shop, "{grant}");
            assert_eq!(claims["aud"], json!(["reports"]), "{grant}");
        }
        // RFC 8693 §2.2.1: on behalf of the other application.
        let exchange = fixture.grant(TOKEN_EXCHANGE);
        let body = library.accepted("exchange", &fixture.job(&exchange)).await;
        assert_eq!(body["issued_token_type"], ACCESS_TOKEN);
        assert_eq!(body["scope"], "stock.read");
        let received = claims(&body);
        assert_eq!(received["sub"], other);
        assert_eq!(received["act"], json!({ "sub": shop }));
        assert_eq!(received["aud"], json!(["stock"]));
        // With an actor token, and the type that is asked for.
        let actor = fixture.server.mint(&fixture.shop);
        let actor = json!({
            "actor_token": actor.claim("client_id", shop).claim("sub", "clerk").sign(),
            "actor_token_type": ACCESS_TOKEN,
            "requested_token_type": ACCESS_TOKEN,
        });
        let parameters = with(&exchange["parameters"], &actor);
        let job = json!({ "grant": TOKEN_EXCHANGE, "parameters": parameters });
        let body = library.accepted("an actor", &fixture.job(&job)).await;
        assert_eq!(claims(&body)["act"], json!({ "sub": "clerk" }));
        // RFC 8693 §2.2.2
        let elsewhere = fixture.server.mint(&fixture.other).audience(["x"]);
        for (what, changes, error) in [
            (
                "a token for another audience",
                json!({ "subject_token": elsewhere.sign() }),
                "invalid_request",
            ),
            (
                "an expired token",
                json!({ "subject_token": fixture.server.mint(&fixture.shop).expired().sign() }),
                "invalid_request",
            ),
            (
                "another type of token",
                json!({ "requested_token_type": "urn:ietf:params:oauth:token-type:jwt" }),
                "invalid_request",
            ),
            (
                "more scopes",
                json!({ "scope": "stock.delete" }),
                "invalid_scope",
            ),
            (
                "a relative URI",
                json!({ "resource": "stock" }),
                "invalid_target",
            ),
        ] {
            let parameters = with(&exchange["parameters"], &changes);
            let job = json!({ "grant": TOKEN_EXCHANGE, "parameters": parameters });
            let job = fixture.job(&job);
            library.assert_refused(what, &job, (400, error)).await;
        }
    }
}

/// oauth4webapi and openid-client send the issuer, requests-oauth2client the token endpoint.
#[tokio::test]
async fn client_libraries_are_accepted_with_the_audience_that_the_application_is_set_to() {
    let Some(libraries) = Library::all() else {
        return;
    };
    let fixture = Fixture::new().await;
    let issuer = fixture.server.issuer();
    let endpoint = fixture.server.token_endpoint();
    let to_endpoint = fixture.job(&json!({
        "audience": endpoint.as_str(),
        "claims": { "aud": endpoint.as_str() },
    }));
    let with_slash = fixture.job(&json!({ "claims": { "aud": format!("{issuer}/") } }));
    let mut by_default = fixture.job.clone();
    by_default.as_object_mut().unwrap().remove("audience");
    for mut library in libraries {
        let invalid_client = (401, "invalid_client");
        let sends_endpoint = library.name == "requests-oauth2client";
        for (audience, is_endpoint) in [
            (ExpectedAudience::Issuer, false),
            (ExpectedAudience::TokenEndpoint, true),
        ] {
            fixture.shop.set_assertion_audience(audience).unwrap();
            for (what, job, is_expected) in [
                ("the endpoint", &to_endpoint, is_endpoint),
                ("the issuer", &fixture.job, !is_endpoint),
                ("the issuer with a slash", &with_slash, !is_endpoint),
                ("the default", &by_default, sends_endpoint == is_endpoint),
            ] {
                let what = format!("{what} for {audience:?}");
                if is_expected {
                    library.accepted(&what, job).await;
                } else {
                    library.assert_refused(&what, job, invalid_client).await;
                }
            }
        }
    }
}

/// rfc7523bis §4, and a federated credential, whose JWT is sent again until it expires.
#[tokio::test]
async fn client_libraries_are_accepted_with_an_explicit_type_and_with_a_trusted_issuer() {
    const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
    const SERVICE_ACCOUNT: &str = "system:serviceaccount:shop:default";

    let Some(libraries) = Library::all() else {
        return;
    };
    let fixture = Fixture::new().await;
    let jwks = json!({ "keys": [fixture.jwk] });
    let shop = &fixture.shop;
    shop.add_federated_credential(CLUSTER, SERVICE_ACCOUNT, jwks)
        .unwrap();
    for mut library in libraries {
        for typ in ["JWT", "client-authentication+jwt"] {
            let job = fixture.job(&json!({ "header": { "typ": typ } }));
            library.accepted(typ, &job).await;
        }
        let typ = json!({ "typ": "client-authentication+jwt" });
        let job = fixture.job(&json!({ "header": typ, "grant": JWT_BEARER }));
        library
            .assert_refused("jwt-bearer", &job, (400, "invalid_grant"))
            .await;
        let claims = json!({
            "iss": CLUSTER,
            "sub": SERVICE_ACCOUNT,
            "aud": [fixture.server.issuer().as_str()],
            "exp": SystemClock.now().as_secs() + 3600,
            "jti": "of the file",
        });
        let job = fixture.job(&json!({ "claims": claims }));
        for grant in [CLIENT_CREDENTIALS, JWT_BEARER, INTROSPECTION] {
            let job = with(&job, &fixture.grant(grant));
            for _ in 0..2 {
                library.accepted(grant, &job).await;
            }
            let claims = with(&claims, &json!({ "sub": "system:serviceaccount:shop:x" }));
            let job = with(&job, &json!({ "claims": claims }));
            let refused = match grant {
                JWT_BEARER => (400, "invalid_grant"),
                _ => (401, "invalid_client"),
            };
            library.assert_refused("another sub", &job, refused).await;
        }
    }
}
