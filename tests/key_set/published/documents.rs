//! Each form of a key set and of metadata, and what the status shows of them.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tower_oauth::client::{ClientAuthentication, TlsClientAuth};
use tower_oauth::error::ErrorKind;
use tower_oauth::key_set::{KeySet, KeySetState};
use tower_oauth::resource_server::Startup;
use tower_oauth::transport::ServiceTransport;
use tower_oauth::{
    ClientCredentials, Endpoint, Issuer, ResourceServer, TokenManager, TrustedIssuer,
};

use super::{accepts, assert_same_rows, keys, results, sign, with, without};
use crate::support::issuer::{IssuerReply, ScriptedIssuer, builder, clock, set};
use crate::support::{AUDIENCE, ISSUER, rsa};

#[tokio::test(start_paused = true)]
async fn each_form_of_a_key_set_has_the_result_that_the_guide_says() {
    let [key, ..] = keys();
    let jwk = &key.jwk;
    let good = json!({ "keys": [jwk] }).to_string();
    let text = |documents: &[&str]| -> Vec<Vec<u8>> {
        documents
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect()
    };
    let deep = format!(
        r#"{{"keys":[{jwk}],"x":{}{}}}"#,
        "[".repeat(16),
        "]".repeat(16)
    );
    let rows = [
        (
            "with a byte order mark",
            text(&[&format!("\u{feff}{good}")]),
        ),
        (
            "with other members, of any type",
            text(&[&format!(
                r#"{{"a":null,"keys":[{jwk}],"a":-1e999,"b":[{{}}],"c":"\ud800"}}"#
            )]),
        ),
        (
            "with members of `keys` that cannot be used",
            text(&[&format!(
                r#"{{"keys":[null,7,{{}},[],{jwk},"k",{{"kty":"oct"}}]}}"#
            )]),
        ),
        (
            "without a usable key",
            text(&[r#"{"keys":[]}"#, r#"{"keys":[null,{"kty":"oct"}]}"#]),
        ),
        (
            "with `keys` absent, `null`, or no array",
            text(&[
                "{}",
                r#"{"keys":null}"#,
                r#"{"keys":{}}"#,
                r#"{"keys":"k"}"#,
                r#"{"KEYS":[]}"#,
            ]),
        ),
        (
            "with `keys` twice",
            text(&[&format!(r#"{{"keys":[{jwk}],"keys":[{jwk}]}}"#)]),
        ),
        (
            "a single key, an array, HTML, or not JSON",
            text(&[
                &jwk.to_string(),
                &format!("[{jwk}]"),
                &format!("[[{jwk}]]"),
                "<html>",
                "",
                "{",
                &format!("{good},"),
            ]),
        ),
        (
            "not UTF-8",
            vec![
                [b"\xff\xfe", good.as_bytes()].concat(),
                [good.as_bytes(), b"\xff"].concat(),
            ],
        ),
        (
            "with more than 100 members of `keys`",
            text(&[&json!({ "keys": vec![jwk; 101] }).to_string()]),
        ),
        ("that nests deeper than 16 levels", text(&[&deep])),
    ];
    let guide = results("document", 1);
    let content_type = "of any content type";
    let status = "with any status 2xx";
    assert_same_rows(
        &guide,
        rows.iter()
            .map(|(name, _)| *name)
            .chain([content_type, status]),
    );
    for (row, documents) in rows {
        for document in documents {
            let result = match KeySet::from_json(&document) {
                Ok(keys) => {
                    assert!(
                        accepts(&keys, &sign(&key.key, "RS256", Some("k"))).await,
                        "{row}"
                    );
                    "read"
                }
                Err(error) => error.kind().as_str(),
            };
            let document = String::from_utf8_lossy(&document);
            assert_eq!(result, guide[row][0].trim_matches('`'), "{row}: {document}");
        }
    }
    assert_eq!(guide[status][0], "`read`");
    for status in [200, 201, 203, 206] {
        let keys = json!({ "keys": [jwk] }).to_string();
        let issuer = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let response = Response::builder().status(status).body(keys.clone());
            std::future::ready(Ok::<_, Infallible>(response.unwrap()))
        });
        let uri = Endpoint::new(format!("{ISSUER}/keys")).unwrap();
        let trusted = TrustedIssuer::new(ISSUER.parse().unwrap(), AUDIENCE.parse().unwrap());
        let server = ResourceServer::from_issuer(trusted.jwks_uri(uri))
            .transport(ServiceTransport::new(issuer));
        let server = server.start().await.unwrap();
        assert!(server.keys_available(), "{status}");
    }
    assert_eq!(guide[content_type][0], "`read`");
    for content_type in ["text/html", "application/octet-stream", "nonsense"] {
        let issuer = ScriptedIssuer::new(json!({ "keys": [jwk] }));
        issuer.set_header("content-type", content_type);
        let server = builder(&issuer, &clock()).start().await.unwrap();
        assert_eq!(
            server.key_sets()[0].state(),
            KeySetState::Healthy,
            "{content_type}"
        );
    }
}

/// Where the scripted server has the metadata, the keys and the token endpoint.
const METADATA: &str = "/.well-known/openid-configuration";

/// The members of metadata that neither a resource server nor a client uses.
const UNUSED: [&str; 48] = [
    // RFC 8414 §2.
    "authorization_endpoint",
    "registration_endpoint",
    "scopes_supported",
    "response_types_supported",
    "response_modes_supported",
    "grant_types_supported",
    "token_endpoint_auth_methods_supported",
    "token_endpoint_auth_signing_alg_values_supported",
    "service_documentation",
    "ui_locales_supported",
    "op_policy_uri",
    "op_tos_uri",
    "revocation_endpoint",
    "revocation_endpoint_auth_methods_supported",
    "revocation_endpoint_auth_signing_alg_values_supported",
    "introspection_endpoint",
    "introspection_endpoint_auth_methods_supported",
    "introspection_endpoint_auth_signing_alg_values_supported",
    "code_challenge_methods_supported",
    "signed_metadata",
    // OpenID Connect Discovery.
    "userinfo_endpoint",
    "acr_values_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
    "id_token_encryption_alg_values_supported",
    "id_token_encryption_enc_values_supported",
    "userinfo_signing_alg_values_supported",
    "userinfo_encryption_alg_values_supported",
    "userinfo_encryption_enc_values_supported",
    "request_object_signing_alg_values_supported",
    "request_object_encryption_alg_values_supported",
    "request_object_encryption_enc_values_supported",
    "display_values_supported",
    "claim_types_supported",
    "claims_supported",
    "claims_locales_supported",
    "claims_parameter_supported",
    "request_parameter_supported",
    "request_uri_parameter_supported",
    "require_request_uri_registration",
    // Later documents, and one that is not registered.
    "mtls_endpoint_aliases",
    "tls_client_certificate_bound_access_tokens",
    "device_authorization_endpoint",
    "pushed_authorization_request_endpoint",
    "dpop_signing_alg_values_supported",
    "protected_resources",
    "end_session_endpoint",
    "version",
];

/// A resource server and a client that discover from this document. Returns their results.
async fn discover(document: String) -> [&'static str; 2] {
    discover_with(document, ClientCredentials::new("orders", "not-a-secret")).await
}

/// The same, with a client that authenticates in this way.
async fn discover_with(document: String, client: impl ClientAuthentication) -> [&'static str; 2] {
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let document = document.clone();
        async move {
            let body = match request.uri().path() {
                METADATA => document,
                "/keys" => json!({ "keys": [keys()[0].jwk] }).to_string(),
                "/token" => {
                    json!({ "access_token": "opaque", "token_type": "Bearer", "expires_in": 60 })
                        .to_string()
                }
                _ => {
                    let missing = Response::builder().status(404).body(String::new());
                    return Ok::<_, Infallible>(missing.unwrap());
                }
            };
            Ok(Response::new(body))
        }
    });
    let transport = || ServiceTransport::new(service.clone());
    let server = ResourceServer::builder(ISSUER, AUDIENCE).transport(transport());
    let server = server.startup(Startup::Background).start().await.unwrap();
    let keys = server.refresh_keys().await;
    let tokens = TokenManager::for_issuer(Issuer::new(ISSUER).unwrap(), client).unwrap();
    let tokens = tokens.transport(transport()).start().unwrap();
    let token = tokens.access_token().await.map(drop);
    [keys, token].map(|result| match result {
        Ok(()) => "used",
        Err(error) => error.kind().as_str(),
    })
}

#[tokio::test(start_paused = true)]
async fn each_form_of_the_metadata_has_the_result_that_the_guide_says() {
    let document = json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{ISSUER}/keys"),
        "token_endpoint": format!("{ISSUER}/token"),
    });
    let each = |name: &str, values: &[Value]| -> Vec<String> {
        values
            .iter()
            .map(|value| with(&document, json!({ name: value })))
            .collect()
    };
    let absent = |name: &str| {
        let mut documents = each(name, &[json!(null), json!("")]);
        documents.push(without(&document, name));
        documents
    };
    let with_each = |name: &str, values: &[&str]| -> Vec<String> {
        let rest = without(&document, name);
        let add = |value| rest.replacen('{', &format!(r#"{{"{name}":{value},"#), 1);
        values.iter().map(add).collect()
    };
    let deep = "[".repeat(200) + &"]".repeat(200);
    let others = [
        "[]",
        "{}",
        "5",
        "-0.5",
        "true",
        "1e999",
        r#""\ud800""#,
        r#"["https://as.example"]"#,
        r#"{"a":"https://as.example"}"#,
        &*deep,
    ];
    let no_urls = [
        "/keys",
        "keys",
        "http://as.example/keys",
        "ftp://as.example/keys",
        ":",
    ]
    .map(Value::from);
    let around = |name: &str, url: &str| {
        each(
            name,
            &[
                json!(format!("  {ISSUER}{url}")),
                json!(format!("{ISSUER}{url}\r\n")),
            ],
        )
    };
    let twice = |member: &str| {
        document
            .to_string()
            .replacen('{', &format!("{{{member},"), 1)
    };
    let rows = [
        (
            "`issuer`: absent, `null`, empty, or of another type",
            [absent("issuer"), with_each("issuer", &others)].concat(),
        ),
        (
            "`issuer`: with another slash, case, scheme or host, or with white space",
            each(
                "issuer",
                &[
                    "https://as.example/",
                    "https://AS.example",
                    "http://as.example",
                    "https://other.example",
                    "https://as.example:443",
                    " https://as.example",
                ]
                .map(Value::from),
            ),
        ),
        (
            "`jwks_uri`: with white space around it",
            around("jwks_uri", "/keys"),
        ),
        ("`jwks_uri`: absent, `null` or empty", absent("jwks_uri")),
        (
            "`jwks_uri`: of another type",
            with_each("jwks_uri", &others),
        ),
        (
            "`jwks_uri`: relative, plain `http`, or not a URL",
            each("jwks_uri", &no_urls),
        ),
        (
            "`token_endpoint`: with white space around it",
            around("token_endpoint", "/token"),
        ),
        (
            "`token_endpoint`: absent, `null` or empty",
            absent("token_endpoint"),
        ),
        (
            "`token_endpoint`: of another type",
            with_each("token_endpoint", &others),
        ),
        (
            "`token_endpoint`: relative, plain `http`, or not a URL",
            each("token_endpoint", &no_urls),
        ),
        (
            "any other, registered or not: `null`, empty, or of any type",
            UNUSED
                .into_iter()
                .flat_map(|name| {
                    let values = ["null", "\"\"", "[]", "{}", "5", "true", "1e999"];
                    let values = values.into_iter().chain(["[null]", r#""\ud800""#, &deep]);
                    values.map(move |value| twice(&format!(r#""{name}":{value}"#)))
                })
                .collect(),
        ),
        (
            "`issuer`, `jwks_uri`, `token_endpoint`: twice",
            [
                r#""issuer":"https://as.example""#,
                r#""jwks_uri":null"#,
                r#""token_endpoint":"""#,
                r#""mtls_endpoint_aliases":{},"mtls_endpoint_aliases":{}"#,
                r#""mtls_endpoint_aliases":null,"mtls_endpoint_aliases":null"#,
            ]
            .map(twice)
            .into(),
        ),
        (
            "the document: with a byte order mark",
            vec![format!("\u{feff}{document}")],
        ),
        (
            "the document: an array, HTML, or not JSON",
            vec![
                format!("[{document}]"),
                r#"["https://as.example","https://as.example/keys","https://as.example/token"]"#
                    .to_owned(),
                "<html>".to_owned(),
                String::new(),
                format!("{document}}}"),
                "null".to_owned(),
            ],
        ),
    ];
    let guide = results("metadata", 2);
    assert_same_rows(&guide, rows.iter().map(|(name, _)| *name));
    for (row, documents) in rows {
        let expected = [guide[row][0], guide[row][1]].map(|cell| cell.trim_matches('`'));
        assert!(!documents.is_empty(), "{row}");
        for document in documents {
            assert_eq!(
                discover(document.clone()).await,
                expected,
                "{row}: {document}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mtls_endpoint_aliases_are_read_by_a_client_with_a_certificate_only() {
    let with_aliases = |members: &str| {
        format!(
            r#"{{"issuer":"{ISSUER}","jwks_uri":"{ISSUER}/keys",
                "token_endpoint":"{ISSUER}/token",{members}}}"#
        )
    };
    for (value, client) in [
        ("null", "used"),
        (r#""""#, "used"),
        ("{}", "used"),
        (r#"{"token_endpoint":null}"#, "used"),
        (
            r#"{"token_endpoint":"https://as.example/token","a":1e999}"#,
            "used",
        ),
        (r#"{"token_endpoint":5}"#, "malformed"),
        (r#"{"token_endpoint":"/token"}"#, "malformed"),
        (r#"{"token_endpoint":"","token_endpoint":""}"#, "malformed"),
        ("5", "malformed"),
        ("true", "malformed"),
        ("[]", "malformed"),
        (r#""https://as.example/token""#, "malformed"),
        (r#"["https://as.example/token"]"#, "malformed"),
    ] {
        let document = with_aliases(&format!(r#""mtls_endpoint_aliases":{value}"#));
        let tls = discover_with(document.clone(), TlsClientAuth::new("orders")).await;
        assert_eq!(tls, ["used", client], "{value}");
        assert_eq!(discover(document).await, ["used"; 2], "{value}");
    }
    // Twice is a different document for each reader.
    let twice = with_aliases(r#""mtls_endpoint_aliases":{},"mtls_endpoint_aliases":{}"#);
    let tls = discover_with(twice, TlsClientAuth::new("orders")).await;
    assert_eq!(tls, ["malformed"; 2]);
}

#[tokio::test(start_paused = true)]
async fn skipped_keys_of_the_last_document_are_shown_although_none_is_usable() {
    let unusable = json!({ "keys": [
        { "kty": "OKP", "crv": "Ed448", "kid": "ed448", "alg": "EdDSA", "x": "AAAA" },
        { "kty": "EC", "crv": "secp256k1", "kid": "k1\u{202e}", "alg": "ES256K", "x": "AA", "y": "AA" },
        { "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": null },
    ] });
    let issuer = ScriptedIssuer::new(unusable.clone());
    let server = builder(&issuer, &clock())
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    let status = || server.key_sets().remove(0);
    let shown = json!([
        {
            "kid": "ed448",
            "reason": "unsupported_type",
            "detail": "crv Ed448 is not supported, expected Ed25519",
        },
        {
            "kid": "k1\\u{202e}",
            "reason": "unsupported_type",
            "detail": "crv secp256k1 is not supported, expected P-256, P-384 or P-521",
        },
        { "kid": null, "reason": "weak", "detail": "n has 17 bits, expected 2048 to 8192" },
    ]);
    let json = |expected: &Value| {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!(&json["skipped"], expected);
        json
    };
    let error = server.refresh_keys().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoUsableKey);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("crv Ed448 is not supported"), "{source}");
    let first = json(&shown);
    assert_eq!(
        (&first["state"], &first["last_error"]),
        (&json!("starting"), &json!("no_usable_key"))
    );
    // The last document stays the last one when a fetch fails.
    issuer.set_reply(IssuerReply::Unreachable);
    server.refresh_keys().await.unwrap_err();
    assert_eq!(json(&shown)["last_error"], "transport");
    issuer.publish(set(&[("a", rsa(0))]));
    server.refresh_keys().await.unwrap();
    json(&json!([]));
    // The keys in use are those of an earlier document.
    issuer.publish(unusable);
    server.refresh_keys().await.unwrap_err();
    let degraded = json(&shown);
    assert_eq!(
        (&degraded["state"], &degraded["usable_keys"]),
        (&json!("degraded"), &json!(1))
    );
    // The same document as the one before: the set in use is not loaded again.
    issuer.publish(set(&[("a", rsa(0))]));
    server.refresh_keys().await.unwrap();
    assert_eq!(json(&json!([]))["generation"], 1);
}

/// A status of a hundred keys with the longest names stays small.
#[test]
fn the_shown_names_of_a_document_are_bounded() {
    let long = "\u{202e}x".repeat(60);
    let jwk = json!({ "kty": long, "kid": long, "crv": long, "alg": long });
    let mut members = vec![jwk; 99];
    members.push(rsa(0).jwk("a"));
    let document = json!({ "keys": members }).to_string();
    let keys = KeySet::from_json(document.as_bytes()).unwrap();
    assert_eq!(keys.skipped().count(), 99);
    for skipped in keys.skipped() {
        assert_eq!(skipped.kid(), Some(&*long));
        assert!(serde_json::to_string(skipped).unwrap().len() < 500);
        assert!(!skipped.to_string().contains('\u{202e}'));
    }
}

/// The table at `KeySetStatus` lists the members of its JSON.
#[tokio::test(start_paused = true)]
async fn the_members_of_the_status_are_those_that_its_docs_list() {
    let document = json!({ "keys": [rsa(0).jwk("a"), { "kty": "oct" }] });
    let issuer = ScriptedIssuer::new(document);
    let server = builder(&issuer, &clock()).start().await.unwrap();
    let status = serde_json::to_value(&server.key_sets()[0]).unwrap();
    let names = |value: &Value, before: &str| -> Vec<String> {
        let members = value.as_object().unwrap().keys();
        members.map(|name| format!("{before}{name}")).collect()
    };
    let mut shown = names(&status, "");
    shown.extend(names(&status["skipped"][0], "skipped[]."));
    shown.extend(names(&status["refreshes"]["timer"], "refreshes.*."));
    let source = include_str!("../../../src/key_set/status.rs");
    let (_, table) = source.split_once("/// | member | type | method |").unwrap();
    let rows = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("/// | "));
    let cells = rows.map(|row| row.split(" | ").next().unwrap());
    let mut listed: Vec<String> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned))
        .collect();
    shown.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, shown);
}
