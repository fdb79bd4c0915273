//! What client libraries are refused with.

use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tower_oauth::clock::{Clock as _, SystemClock};
use tower_oauth::resource_server::Algorithm;

use super::{
    CLIENT_CREDENTIALS, Fixture, INTROSPECTION, JWT_BEARER, Library, TOKEN_EXCHANGE, key, with,
};
use crate::client_keys::signing_key;
use crate::support::{decoded, pem};

/// What makes of a sound assertion one that no server may accept, by the reason that the server
/// names.
fn defects(fixture: &Fixture, elsewhere: &str) -> [(&'static str, Vec<(&'static str, Value)>); 12] {
    let issuer = fixture.server.issuer();
    let issuer = issuer.as_str();
    let now = SystemClock.now().as_secs();
    let jwk = &fixture.jwk;
    let claims = |claims: Value| json!({ "claims": claims });
    let header = |header: Value| json!({ "header": header });
    let typ = |typ: &str| json!({ "header": { "typ": typ } });
    let hs256 = |secret: &str| {
        let kid = json!({ "kid": "ES256" });
        json!({ "methods": ["client_secret_jwt"], "secret": secret, "header": kid })
    };
    let other = fixture.other.client_id();
    let unknown = "8d9c1f3e-0000-4000-8000-000000000000";
    let (stranger, stranger_jwks) = signing_key(Algorithm::Es256);
    let stranger = json!({ "key": key("ES256", stranger.expose_secret()) });
    let stranger_jwk = header(json!({ "jwk": stranger_jwks["keys"][0] }));
    let access_token = fixture.server.mint(&fixture.shop).audience([issuer]);
    [
        (
            "aud of the assertion must be the issuer, as one string",
            vec![
                (
                    "another server",
                    claims(json!({ "aud": "https://as.example" })),
                ),
                (
                    "two",
                    claims(json!({ "aud": [issuer, "https://as.example"] })),
                ),
                ("an array of one", claims(json!({ "aud": [issuer] }))),
                (
                    "the token endpoint",
                    claims(json!({ "aud": format!("{issuer}/token") })),
                ),
                ("none", claims(json!({ "aud": null }))),
            ],
        ),
        (
            "the assertion has expired",
            vec![("a second ago", claims(json!({ "exp": now - 1 })))],
        ),
        (
            "exp of the assertion is too far in the future",
            vec![
                (
                    "ten years",
                    claims(json!({ "exp": now + 10 * 365 * 86_400 })),
                ),
                ("two hours", claims(json!({ "exp": now + 7200 }))),
            ],
        ),
        (
            "exp of the assertion is missing",
            vec![("no exp", claims(json!({ "exp": null })))],
        ),
        (
            "nbf or iat of the assertion is in the future",
            vec![
                (
                    "nbf",
                    claims(json!({ "nbf": now + 3000, "exp": now + 3060 })),
                ),
                (
                    "iat",
                    claims(json!({ "iat": now + 3000, "exp": now + 3060 })),
                ),
            ],
        ),
        (
            "jti of the assertion is missing",
            vec![("no jti", claims(json!({ "jti": null })))],
        ),
        (
            "iss of the assertion is missing",
            vec![("no iss", claims(json!({ "iss": null })))],
        ),
        (
            "sub of the assertion is missing",
            vec![("no sub", claims(json!({ "sub": null })))],
        ),
        (
            "the assertion is not that of a registered client",
            vec![
                ("another sub", claims(json!({ "sub": other }))),
                (
                    "another iss",
                    claims(json!({ "iss": "https://as.example" })),
                ),
                ("no keys", claims(json!({ "iss": other, "sub": other }))),
                (
                    "unknown client",
                    claims(json!({ "iss": unknown, "sub": unknown })),
                ),
                ("another key", stranger.clone()),
                ("alg of another key", header(json!({ "alg": "RS256" }))),
                ("unknown kid", header(json!({ "kid": "another" }))),
                (
                    "an access token of the server",
                    json!({ "assertion": access_token.sign() }),
                ),
            ],
        ),
        (
            "the assertion is not a JWT of at most 16 KiB with a supported alg",
            vec![
                ("HS256 with the JWK", hs256(&jwk.to_string())),
                ("HS256 with the public key", hs256(&public_pem(jwk))),
                (
                    "HS256 with the secret",
                    hs256(fixture.shop.secret().expose_secret()),
                ),
                ("none", json!({ "unsigned": true })),
                ("none with a signature", header(json!({ "alg": "none" }))),
                ("crit", header(json!({ "crit": ["exp"] }))),
            ],
        ),
        (
            "the header of the assertion has jwk, jku or x5u",
            vec![
                ("jwk of another key", with(&stranger, &stranger_jwk)),
                ("jwk", header(json!({ "jwk": jwk }))),
                ("jku", header(json!({ "jku": elsewhere }))),
                ("x5u", header(json!({ "x5u": elsewhere }))),
            ],
        ),
        (
            "typ of the assertion is not that of an assertion",
            vec![
                ("access token", typ("at+jwt")),
                ("DPoP proof", typ("dpop+jwt")),
                ("logout token", typ("logout+jwt")),
                ("introspection response", typ("token-introspection+jwt")),
            ],
        ),
    ]
}

/// A P-256 public key in PEM (RFC 5480).
fn public_pem(jwk: &Value) -> String {
    let prefix = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
    let mut der = STANDARD.decode(prefix).unwrap();
    for name in ["x", "y"] {
        let coordinate = jwk[name].as_str().unwrap();
        der.extend(decoded(coordinate));
    }
    pem("PUBLIC KEY", &der)
}

#[tokio::test]
async fn assertions_of_client_libraries_are_refused_with_each_defect() {
    let Some(libraries) = Library::all() else {
        return;
    };
    let fixture = Fixture::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let elsewhere = format!("http://{}/keys", listener.local_addr().unwrap());
    for mut library in libraries {
        for (grant, expected) in [
            (CLIENT_CREDENTIALS, (401, "invalid_client")),
            (TOKEN_EXCHANGE, (401, "invalid_client")),
            (INTROSPECTION, (401, "invalid_client")),
            (JWT_BEARER, (400, "invalid_grant")),
        ] {
            let of_grant = fixture.grant(grant);
            let send = |changes: &Value| with(&fixture.job(changes), &of_grant);
            for (reason, changes) in defects(&fixture, &elsewhere) {
                for (what, changes) in changes {
                    let what = format!("{grant}: {reason}: {what}");
                    let body = library
                        .assert_refused(&what, &send(&changes), expected)
                        .await;
                    assert_eq!(
                        body["error_description"], reason,
                        "{}: {what}",
                        library.name
                    );
                }
            }
            // Nothing else is wrong with these requests.
            let jti = format!("{} {grant}", library.name);
            let job = send(&json!({ "claims": { "jti": jti } }));
            library.accepted(grant, &job).await;
            let body = library.assert_refused("used twice", &job, expected).await;
            let reason = "the assertion was used before: jti must be new";
            assert_eq!(body["error_description"], reason, "{}", library.name);
            library.accepted(grant, &send(&json!({}))).await;
        }
    }
    let connection = listener.accept().map(|(_, address)| address);
    let error = connection.expect_err("no key is fetched");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn client_libraries_are_refused_with_two_methods_or_the_client_id_of_another() {
    let Some(libraries) = Library::all() else {
        return;
    };
    let fixture = Fixture::new().await;
    let other = json!({ "client_id": fixture.other.client_id() });
    for mut library in libraries {
        for grant in [CLIENT_CREDENTIALS, TOKEN_EXCHANGE, INTROSPECTION] {
            let of_grant = fixture.grant(grant);
            for methods in [
                ["private_key_jwt", "client_secret_basic"],
                ["private_key_jwt", "client_secret_post"],
                ["client_secret_basic", "client_secret_post"],
            ] {
                let job = fixture.job(&json!({ "methods": methods }));
                let (what, job) = (methods.join(" and "), with(&job, &of_grant));
                library
                    .assert_refused(&what, &job, (400, "invalid_request"))
                    .await;
            }
            for (method, expected) in [
                ("client_secret_basic", (400, "invalid_request")),
                // It is a wrong secret of the other client.
                ("client_secret_post", (401, "invalid_client")),
                ("private_key_jwt", (400, "invalid_request")),
            ] {
                let job = json!({ "methods": [method], "form": other });
                let job = with(&fixture.job(&job), &of_grant);
                library.assert_refused(method, &job, expected).await;
            }
        }
        // RFC 6749 §5.2
        let job = fixture.job(&json!({ "grant": JWT_BEARER, "form": other }));
        library
            .assert_refused("jwt-bearer", &job, (400, "invalid_grant"))
            .await;
    }
}
