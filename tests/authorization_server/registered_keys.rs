//! The keys and trusted issuers of an application: what can be registered, by which API, and what
//! the state file has of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, header};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_oauth::authorization_server::{AuthorizationServer, ExpectedAudience};
use tower_oauth::resource_server::Algorithm;

use crate::assertion::{CLUSTER, Fixture, SERVICE_ACCOUNT, Signer, assert_refused, with};

#[tokio::test]
async fn only_public_keys_can_be_registered() {
    let fixture = Fixture::new();
    let signer = Signer::new(Algorithm::Es256).with("kid", "a");
    let shop = &fixture.shop;
    let error = |jwks: Value| shop.set_jwks(jwks).unwrap_err().to_string();
    let private = signer.clone().with("d", "c2VjcmV0LXNjYWxhcg");
    let good = Signer::new(Algorithm::EdDsa).with("kid", "b");
    for (what, jwks, text) in [
        (
            "no JSON",
            json!("keys"),
            "must be a JSON object with an array `keys`",
        ),
        (
            "no array",
            json!({ "keys": "hunter2" }),
            "must be a JSON object with an array `keys`",
        ),
        (
            "no keys",
            json!({ "keys": [] }),
            "must have a public key for signatures",
        ),
        ("a private key", private.jwks(), "private"),
        (
            "a private key beside a public one",
            json!({ "keys": [good.jwk(), private.jwk()] }),
            "must not have private or symmetric keys",
        ),
        (
            "a symmetric key",
            json!({ "keys": [good.jwk(), { "kty": "oct", "k": "c2VjcmV0LXNjYWxhcg" }] }),
            "must not have private or symmetric keys",
        ),
        (
            "a weak key",
            json!({ "keys": [{ "kty": "RSA", "n": "AQAB", "e": "AQAB" }] }),
            "weak",
        ),
    ] {
        let found = error(jwks);
        assert!(
            found.starts_with("JWK Set ") && found.contains(text),
            "{what}: {found}"
        );
        assert!(
            !found.contains("c2VjcmV0") && !found.contains("hunter2"),
            "{what}: {found}"
        );
    }
    let many: Vec<Value> = (0..100)
        .map(|n| {
            Signer::new(Algorithm::Ps256)
                .with("kid", &format!("{n}{}", "x".repeat(200)))
                .jwk()
        })
        .collect();
    assert!(error(json!({ "keys": many })).contains("16 KiB"));
    // None of them was registered.
    let assertion = good.sign(&json!({}), &fixture.claims());
    assert_refused(
        &fixture.token(&assertion).await,
        401,
        "invalid_client",
        "not registered",
    );

    let add =
        |issuer: &str, subject: &str| shop.add_federated_credential(issuer, subject, signer.jwks());
    assert!(add("", "s").is_err());
    assert!(add("https://a b", "s").is_err());
    assert!(add("https://a", "").is_err());
    assert!(add("https://a", "a\nb").is_err());
    assert!(add("https://a", &"x".repeat(2049)).is_err());
    add("https://a", "s").unwrap();
    let error = add("https://a", "s").unwrap_err().to_string();
    assert_eq!(
        error,
        "issuer has a federated credential with the same subject already"
    );
    let other = fixture.server.register("other").unwrap();
    assert!(
        other
            .add_federated_credential("https://a", "s", signer.jwks())
            .is_err()
    );
    other
        .add_federated_credential("https://a", "t", signer.jwks())
        .unwrap();
    for n in 1..4 {
        add("https://a", &format!("s{n}")).unwrap();
    }
    assert!(
        add("https://a", "s5")
            .unwrap_err()
            .to_string()
            .contains("at most 4")
    );
}

#[tokio::test]
async fn keys_and_trusted_issuers_are_managed_by_the_api() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let cluster = Signer::new(Algorithm::EdDsa).with("kid", "cluster-1");
    let send = async |method: &str, id: &str, body: &Value| {
        let token = fixture.server.management_token().expose_secret().to_owned();
        let url = format!(
            "{}/applications/{id}/assertions",
            fixture.server.management_url()
        );
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Bytes::from(body.to_string()))
            .unwrap();
        let response = fixture.send(request).await;
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        (response.status().as_u16(), body)
    };
    let id = fixture.shop.client_id();
    let expected = json!({
        "jwks": signer.jwks(),
        "federated_credentials": [],
        "assertion_audience": "issuer",
    });
    assert_eq!(send("GET", id, &Value::Null).await, (200, expected));
    // Members that public keys do not have are not kept.
    let jwks = json!({ "keys": [with(&signer.jwk(), "note", "internal")] });
    let credential =
        |subject: &str| json!({ "issuer": CLUSTER, "subject": subject, "jwks": cluster.jwks() });
    let body = json!({
        "jwks": jwks,
        "federated_credentials": [credential(SERVICE_ACCOUNT)],
        "assertion_audience": "token_endpoint",
    });
    let expected = with(&body, "jwks", signer.jwks());
    assert_eq!(send("PUT", id, &body).await, (200, expected.clone()));
    assert_eq!(send("GET", id, &Value::Null).await, (200, expected.clone()));
    for (what, body) in [
        ("no object", json!([])),
        ("an unknown member", json!({ "jwk": {} })),
        ("no JWK Set", json!({ "jwks": {} })),
        ("another audience", json!({ "assertion_audience": "any" })),
        (
            "twice",
            json!({ "federated_credentials": [credential("s"), credential("s")] }),
        ),
        (
            "no subject",
            json!({ "federated_credentials": [credential("")] }),
        ),
    ] {
        let (status, answer) = send("PUT", id, &body).await;
        assert_eq!(
            (status, &answer["error"]),
            (400, &json!("invalid_request")),
            "{what}"
        );
    }
    assert_eq!(send("GET", id, &Value::Null).await, (200, expected));
    assert_eq!(send("GET", "unknown", &Value::Null).await.0, 404);
    assert_eq!(send("PUT", "unknown", &json!({})).await.0, 404);
    // Nothing is left.
    assert_eq!(send("PUT", id, &json!({})).await.0, 200);
    let assertion = signer.sign(&json!({}), &fixture.claims());
    assert_refused(
        &fixture.token(&assertion).await,
        401,
        "invalid_client",
        "removed",
    );
}

/// Else the server would accept other keys after its next start, or not start.
#[tokio::test]
async fn a_set_that_reads_differently_when_it_is_stored_is_refused() {
    let server = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    let shop = server.build().unwrap().register("shop").unwrap();
    let good = Signer::new(Algorithm::EdDsa).with("kid", "good").jwk();
    let other = Signer::new(Algorithm::EdDsa).jwk();
    let repeated = |kid: &str| {
        let (x, second) = (&good["x"], &other["x"]);
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":{x},"x":{second}}}"#)
    };
    // A certificate that does not contain the key: a DER sequence of zeros.
    let mut certified = Signer::new(Algorithm::EdDsa).with("kid", "certified").jwk();
    certified["x5c"] = json!([STANDARD.encode([&[0x30, 98][..], &[0; 98]].concat())]);
    for member in [
        repeated("repeated"),
        repeated("good"),
        certified.to_string(),
        r#""a text""#.to_owned(),
    ] {
        let error = shop.set_jwks(format!(r#"{{"keys":[{good},{member}]}}"#));
        let error = error.expect_err(&member).to_string();
        assert!(error.contains("given twice"), "{member}: {error}");
    }
    // A member that is not used in either form does no harm.
    let unused = r#"{"kty":"EC","crv":"secp256k1","kid":"unused","x":"AA","y":"AA"}"#;
    shop.set_jwks(format!(r#"{{"keys":[{good},{unused}]}}"#))
        .unwrap();
}

#[tokio::test]
async fn keys_and_trusted_issuers_persist_in_the_state_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.json");
    let build = || {
        AuthorizationServer::builder()
            .algorithm(Algorithm::Es256)
            .state_file(&path)
            .build()
    };
    let signer = Signer::new(Algorithm::Es256).with("kid", "a");
    let (first, other) = {
        let server = build().unwrap();
        let (first, other) = (
            server.register("shop").unwrap(),
            server.register("other").unwrap(),
        );
        let plain: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(plain["applications"][0].get("assertions"), None);
        first.set_jwks(signer.jwks()).unwrap();
        first
            .add_federated_credential(CLUSTER, SERVICE_ACCOUNT, signer.jwks())
            .unwrap();
        first
            .set_assertion_audience(ExpectedAudience::TokenEndpoint)
            .unwrap();
        (first.client_id().to_owned(), other.client_id().to_owned())
    };
    let sound: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let server = build().unwrap();
    let shop = &server.applications()[0];
    assert_eq!(
        (shop.client_id(), server.applications()[1].client_id()),
        (&*first, &*other)
    );
    assert_eq!(shop.assertion_audience(), ExpectedAudience::TokenEndpoint);
    let again = shop.add_federated_credential(CLUSTER, SERVICE_ACCOUNT, signer.jwks());
    assert!(again.is_err(), "it is there already");
    let credential = sound["applications"][0]["assertions"]["federated_credentials"][0].clone();
    for (member, value) in [
        ("jwks", json!({ "keys": [] })),
        ("jwks", signer.with("d", "c2VjcmV0").jwks()),
        ("assertion_audience", json!("any")),
        ("federated_credentials/0/subject", json!("")),
        ("federated_credentials/0/issuer", json!("a b")),
        ("federated_credentials/0/jwks", json!({})),
        ("federated_credentials", json!([credential, credential])),
        (
            "federated_credentials/0",
            with(&credential, "note", "internal"),
        ),
    ] {
        let mut document = sound.clone();
        let pointer = format!("/applications/0/assertions/{member}");
        *document.pointer_mut(&pointer).unwrap() = value;
        std::fs::write(&path, document.to_string()).unwrap();
        let error = build().map(drop).expect_err(member).to_string();
        assert!(error.contains("is damaged"), "{member}: {error}");
        assert!(!error.contains("c2VjcmV0"), "{member}: {error}");
    }
}
