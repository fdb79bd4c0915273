//! What the client accepts from a token endpoint, and what its errors say.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tower_oauth::client::{TokenManagerBuilder, TokenSource as _};
use tower_oauth::error::ErrorKind;
use tower_oauth::{ClientCredentials, Endpoint, Error, Scope, TokenManager};

use crate::support::jwt;
use crate::support::token_endpoint::{Reply, TokenEndpoint, TokioClock};

const NOW: u64 = 1_700_000_000;

fn builder(endpoint: &TokenEndpoint) -> TokenManagerBuilder {
    let credentials = ClientCredentials::new("orders", "s3cr3t/+=");
    let url = Endpoint::new("https://as.example/token").unwrap();
    TokenManager::builder(url, credentials)
        .transport(endpoint.clone())
        .clock(TokioClock::new())
}

fn raw(status: u16, body: &str) -> TokenEndpoint {
    TokenEndpoint::with_reply(Reply::Raw(status, Vec::new(), body.to_owned()))
}

/// The error of one request without retries.
async fn error_of(reply: Reply) -> Error {
    let endpoint = TokenEndpoint::with_reply(reply);
    let source = builder(&endpoint).build_source().unwrap();
    source.fetch().await.unwrap_err()
}

/// The rows of the guide's tables whose first column has this name.
fn rows(first: &str) -> Vec<[&'static str; 3]> {
    let guide = include_str!("../../src/guide/token_responses.md");
    let (_, table) = guide.split_once(&format!("\n| {first} | ")).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().expect(row)
    })
    .collect()
}

/// The texts between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The kind of error that a row names; `None` for a token.
fn kind_in(result: &str) -> Option<&str> {
    if result.starts_with("token") {
        None
    } else {
        Some(quoted(result).next().unwrap())
    }
}

fn name(kind: ErrorKind) -> String {
    let name = format!("{kind:?}");
    name.split('(').next().unwrap().to_owned()
}

/// The body of a response with a token, with this member in it or without it.
fn body_with(member: &str, value: Option<&str>) -> String {
    let usual = [
        ("access_token", r#""a-token""#),
        ("token_type", r#""Bearer""#),
        ("expires_in", "3600"),
    ];
    let others = usual.into_iter().filter(|(name, _)| *name != member);
    let members = others.chain(value.map(|value| (member, value)));
    let members: Vec<String> = members.map(|(n, v)| format!("{n:?}: {v}")).collect();
    format!("{{{}}}", members.join(", "))
}

#[tokio::test(start_paused = true)]
async fn every_member_of_the_guides_table_has_its_result() {
    let mut checked = 0;
    for [members, values, result] in rows("member") {
        let values = quoted(values).map(Some);
        let absent = rows("member")
            .iter()
            .any(|row| row[0] == members && row[2] == result && row[1].starts_with("absent"));
        let values: Vec<Option<&str>> = values.chain(absent.then_some(None)).collect();
        for (member, value) in quoted(members).flat_map(|m| values.iter().map(move |v| (m, *v))) {
            let body = body_with(member, value);
            let endpoint = raw(200, &body);
            let token = builder(&endpoint).start().unwrap().access_token().await;
            let found = token.as_ref().err().map(|error| name(error.kind()));
            assert_eq!(found.as_deref(), kind_in(result), "{body}");
            if result.contains("assume_bearer") {
                let builder = builder(&endpoint).assume_bearer();
                let token = builder.start().unwrap().access_token().await;
                let is_accepted = result.contains("token with `assume_bearer`");
                assert_eq!(token.is_ok(), is_accepted, "{body}");
            }
            if let Some((_, lifetime)) = result.split_once("token of ")
                && let Some((seconds, _)) = lifetime.split_once(" s")
                && let Ok(seconds) = seconds.parse::<u64>()
            {
                let expires_at = token.as_ref().unwrap().expires_at().unwrap();
                assert_eq!(expires_at.as_secs(), NOW + seconds, "{body}");
            }
            if member == "scope" {
                let expected = match result {
                    "token without scopes" => Some(Vec::new()),
                    "token of unknown scopes" => None,
                    scopes => Some(quoted(scopes).collect()),
                };
                let token = token.unwrap();
                let scopes = token.scopes();
                let scopes = scopes.map(|all| all.iter().map(Scope::as_str).collect::<Vec<_>>());
                assert_eq!(scopes, expected, "{body}");
            }
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

#[tokio::test(start_paused = true)]
async fn every_status_of_the_guides_table_has_its_result() {
    let mut checked = 0;
    for [statuses, bodies, result] in rows("status") {
        let empty = bodies.starts_with("empty").then_some("");
        let bodies: Vec<&str> = empty.into_iter().chain(quoted(bodies)).collect();
        for (status, body) in quoted(statuses).flat_map(|s| bodies.iter().map(move |b| (s, *b))) {
            for content_type in ["application/json", "text/html; charset=utf-8", "x"] {
                let headers = vec![("content-type", content_type.to_owned())];
                let reply = Reply::Raw(status.parse().unwrap(), headers, body.to_owned());
                let endpoint = TokenEndpoint::with_reply(reply);
                let result_of = builder(&endpoint).build_source().unwrap().fetch().await;
                let found = result_of.as_ref().err().map(|error| name(error.kind()));
                assert_eq!(found.as_deref(), kind_in(result), "{status} {body}");
                if let Err(error) = result_of {
                    assert_eq!(error.status().unwrap().as_str(), status);
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 150, "{checked}");
}

#[tokio::test(start_paused = true)]
async fn unused_members_are_ignored_at_any_depth_and_in_any_encoding() {
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    let long = format!("\"{}\"", "x".repeat(20_000));
    let surrogate = r#""\ud800""#;
    for value in [&deep, &long, surrogate, "1e999", "-0", r#"{"a":1,"a":2}"#] {
        for member in ["refresh_token", "expires_on", "x"] {
            let body = body_with(member, Some(value));
            let token = builder(&raw(200, &body)).start().unwrap();
            let token = token.access_token().await.unwrap();
            assert_eq!(token.expose_secret(), "a-token");
        }
    }
    let body = format!("\u{feff}{}", body_with("x", None));
    let manager = builder(&raw(200, &body)).start().unwrap();
    assert!(manager.access_token().await.is_ok(), "a byte order mark");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_used_and_given_twice_is_an_error_that_names_it() {
    for (member, values) in [
        ("access_token", [r#""a-token""#, r#""another-token""#]),
        ("token_type", [r#""Bearer""#, r#""DPoP""#]),
        ("expires_in", ["3600", "5"]),
        ("scope", [r#""orders.read""#, r#""orders.write""#]),
        // None of them says that the request failed.
        ("error", ["null", r#""""#]),
        (
            "issued_token_type",
            [r#""urn:example:a""#, r#""urn:example:b""#],
        ),
    ] {
        for [first, second] in [values, [values[1], values[0]]] {
            let twice = format!("{{{member:?}: {first}, {member:?}: {second}, ");
            let body = body_with(member, None).replacen('{', &twice, 1);
            let error = error_of(Reply::Raw(200, Vec::new(), body)).await;
            let expected = format!("expected `{member}` once, found it twice");
            assert!(error.to_string().ends_with(&expected), "{error}");
        }
    }
}

fn html(status: u16, text: &str) -> Reply {
    let headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
    Reply::Raw(status, headers, format!("<html>{text}</html>"))
}

fn redirect(status: u16, to: &str) -> Reply {
    let headers = vec![("location", to.to_owned())];
    Reply::Raw(status, headers, "<html>moved b0dy</html>".to_owned())
}

#[tokio::test(start_paused = true)]
async fn an_error_names_what_was_expected_and_what_was_found() {
    let cases: [(Reply, &str); 23] = [
        (
            redirect(302, "https://me:pw@sso.example/login?secret=1#x"),
            "responded with 302 Found: it redirects to https://sso.example/login: redirects",
        ),
        (
            redirect(308, "/v2/token"),
            "308 Permanent Redirect: it redirects to https://as.example/v2/token: redirects",
        ),
        (
            redirect(307, "https://evil.example/s3cr3t%2F%2B%3D/x"),
            "it redirects to https://evil.example/[redacted]/x: redirects",
        ),
        (html(302, ""), "302 Found: redirects are not followed"),
        (
            html(404, "a-b0dy"),
            "404 Not Found: the URL is not that of a token endpoint, which accepts POST: \
             expected a JSON object with `error`, found HTML or XML (content type text/html)",
        ),
        (
            html(405, "a-b0dy"),
            "405 Method Not Allowed: the URL is not that of a token endpoint, which accepts POST",
        ),
        (
            html(410, "a-b0dy"),
            "410 Gone: the URL is not that of a token endpoint, which accepts POST: \
             expected a JSON object with `error`, found HTML or XML (content type text/html)",
        ),
        (
            html(401, "a-b0dy"),
            "401 Unauthorized: expected a JSON object with `error`, found HTML or XML \
             (content type text/html)",
        ),
        (
            html(503, "a-b0dy"),
            "503 Service Unavailable: expected a JSON object with `error`",
        ),
        (
            html(200, "a-b0dy"),
            "(200 OK): expected a JSON object with `access_token`, found HTML or XML \
             (content type text/html)",
        ),
        (
            Reply::Raw(200, Vec::new(), String::new()),
            "(200 OK): expected a JSON object with `access_token`, found no body",
        ),
        (
            Reply::Raw(400, Vec::new(), "a-b0dy".to_owned()),
            "400 Bad Request: expected a JSON object with `error`, found a body that is not JSON \
             (no content type)",
        ),
        (
            Reply::Raw(200, Vec::new(), "[1]".to_owned()),
            "found JSON that is not an object",
        ),
        (
            Reply::Json(400, json!({ "x": "a-b0dy" })),
            "found a JSON object without it",
        ),
        (
            Reply::Json(201, json!({ "accessToken": "a-b0dy" })),
            "found a JSON object without it",
        ),
        (
            Reply::Json(200, json!({ "access_token": 5, "token_type": "Bearer" })),
            "expected a string as `access_token`, found a number",
        ),
        (
            Reply::Json(
                200,
                json!({ "access_token": "a-b0dy", "token_type": "mac" }),
            ),
            "expected \"Bearer\", found \"mac\": that is the `token_type`",
        ),
        (
            Reply::Json(200, json!({ "access_token": "a-b0dy" })),
            "expected \"Bearer\", found \"no token_type\": that is the `token_type`",
        ),
        (
            Reply::Json(
                200,
                json!({ "access_token": "a-b0dy", "token_type": "a-b0dy\u{1b}[1m" }),
            ),
            "expected \"Bearer\", found \"[redacted]\\u{1b}[1m\"",
        ),
        (
            Reply::Json(
                200,
                json!({ "access_token": "a-b0dy", "token_type": "Bearer", "expires_in": 0 }),
            ),
            "expected \"a second or more\", found \"0\": that is `expires_in`",
        ),
        (
            Reply::Json(200, json!({ "error": true, "access_token": "a-b0dy" })),
            "expected a token, found an `error` that is not a code",
        ),
        (
            Reply::Json(
                403,
                json!({ "error": "slow\ndown", "error_description": "no" }),
            ),
            "(403 Forbidden): slow\\ndown (no)",
        ),
        (
            Reply::Json(403, json!({ "error": { "code": 7, "message": "not yet" } })),
            "(403 Forbidden): 7 (not yet)",
        ),
    ];
    for (reply, expected) in cases {
        let error = error_of(reply.clone()).await;
        let shown = error.to_string();
        assert!(shown.contains(expected), "{reply:?}:\n{shown}\n{expected}");
        assert!(shown.contains("https://as.example/token"), "{shown}");
        for secret in ["b0dy", "pw", "secret=", "s3cr3t"] {
            assert!(!format!("{shown}{error:?}").contains(secret), "{shown}");
        }
        assert!(
            shown.chars().count() < 600 && !shown.contains('\n'),
            "{shown}"
        );
    }
    let long = json!({ "access_token": "t", "token_type": "x".repeat(5000) });
    let error = error_of(Reply::Json(200, long)).await;
    assert_eq!(error.expected(), Some("Bearer"));
    assert_eq!(error.found().unwrap().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn without_expires_in_twenty_calls_cost_one_request_for_five_minutes() {
    let reply = Reply::Json(200, json!({ "access_token": "t", "token_type": "Bearer" }));
    let endpoint = TokenEndpoint::with_reply(reply.clone());
    let tokens = builder(&endpoint).start().unwrap();
    for _ in 0..20 {
        let token = tokens.access_token().await.unwrap();
        assert_eq!(token.expires_at().unwrap().as_secs(), NOW + 300);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(endpoint.count(), 1);
    tokio::time::sleep(Duration::from_secs(100)).await;
    tokens.access_token().await.unwrap();
    assert_eq!(endpoint.count(), 2, "the assumed lifetime has ended");

    let endpoint = TokenEndpoint::with_reply(reply);
    let hour = Duration::from_secs(3600);
    let tokens = builder(&endpoint).assumed_lifetime(hour).start().unwrap();
    for _ in 0..20 {
        tokens.access_token().await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(endpoint.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_expires_in_a_jwt_is_used_until_its_exp() {
    let token = jwt::unsigned(&json!({ "exp": NOW + 60 }));
    let reply = Reply::Json(
        200,
        json!({ "access_token": token, "token_type": "Bearer" }),
    );
    let endpoint = TokenEndpoint::with_reply(reply);
    let tokens = builder(&endpoint).start().unwrap();
    for _ in 0..20 {
        let token = tokens.access_token().await.unwrap();
        assert_eq!(token.expires_at().unwrap().as_secs(), NOW + 60);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(endpoint.count(), 1);
    // The server repeats a token that has expired: it serves the call, and is not stored.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(tokens.access_token().await.unwrap().expires_at(), None);
    assert_eq!(tokens.access_token().await.unwrap().expires_at(), None);
    assert!(endpoint.count() > 2, "{}", endpoint.count());
}

#[tokio::test(start_paused = true)]
async fn an_oauth_error_is_read_beside_any_other_member() {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for other in [&deep, "1e999", r#""\ud800""#, r#"{"error":5,"x":[-1e999]}"#] {
        for (error, shown) in [
            (r#""error":"invalid_client""#, "invalid_client"),
            (r#""errorCode":"invalid_client""#, "invalid_client"),
            (
                r#""error":{"code":"invalid_client","x":1e999}"#,
                "invalid_client",
            ),
        ] {
            let description = r#""error_description":"no b0dy-token","token":"b0dy-token""#;
            let body = format!(r#"{{"x":{other},{error},{description}}}"#);
            let url = Endpoint::new("https://as.example/token").unwrap();
            let credentials = ClientCredentials::new("orders", "a+b");
            let endpoint = TokenEndpoint::with_reply(Reply::Raw(400, Vec::new(), body));
            let manager = TokenManager::builder(url, credentials).transport(endpoint);
            let error = manager.build_source().unwrap().fetch().await.unwrap_err();
            let found = error.oauth_error().unwrap();
            assert_eq!(found.code(), shown, "{other:.40} {error}");
            // Where secrets may be hidden too deep, the text of the server is not shown.
            let is_deep = other == deep;
            let description = if is_deep {
                "[not shown]"
            } else {
                "no [redacted]"
            };
            assert_eq!(found.description(), Some(description), "{other:.40}");
            assert!(
                error.to_string().contains("client_secret_basic_raw"),
                "{error}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_client_hints_at_the_unencoded_method_if_encoding_changes_the_secret() {
    let reply = Reply::Json(401, json!({ "error": "invalid_client" }));
    let url = Endpoint::new("https://as.example/token").unwrap();
    let hint = "client_secret_basic_raw";
    for (id, secret, is_changed) in [
        ("orders", "s3cr3t", false),
        ("orders", "A-Z.a_z*09", false),
        ("orders", "a+b", true),
        ("orders", "a/b", true),
        ("orders", "a=b", true),
        ("orders", "50%", true),
        ("orders", "two words", true),
        ("orders", "é", true),
        ("urn:orders", "s3cr3t", true),
    ] {
        let credentials = ClientCredentials::new(id, secret);
        for (credentials, is_hinted) in [
            (credentials.clone(), is_changed),
            (credentials.clone().client_secret_post(), false),
        ] {
            let manager = TokenManager::builder(url.clone(), credentials)
                .transport(TokenEndpoint::with_reply(reply.clone()));
            let error = manager.build_source().unwrap().fetch().await.unwrap_err();
            assert_eq!(
                error.to_string().contains(hint),
                is_hinted,
                "{id} {secret}: {error}"
            );
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
    let raw = ClientCredentials::new("orders", "a+b").client_secret_basic_raw();
    let manager = TokenManager::builder(url, raw).transport(TokenEndpoint::with_reply(reply));
    let error = manager.build_source().unwrap().fetch().await.unwrap_err();
    assert!(!error.to_string().contains(hint), "{error}");
    let other = error_of(Reply::Json(400, json!({ "error": "invalid_scope" }))).await;
    assert!(!other.to_string().contains(hint), "{other}");
}

#[tokio::test(start_paused = true)]
async fn a_resource_may_be_any_text_without_control_characters() {
    for resource in [
        "orders",
        "https://orders.example/#x",
        "Läden & Lager",
        "a b",
    ] {
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
        let tokens = builder(&endpoint).resource(resource).start().unwrap();
        tokens.access_token().await.unwrap();
        let sent = endpoint.token_requests().remove(0).form;
        assert!(
            sent.contains(&("resource".to_owned(), resource.to_owned())),
            "{sent:?}"
        );
    }
    for resource in ["", "a\nb", "a\0b", "a\u{85}b"] {
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
        let error = builder(&endpoint).resource(resource).build().unwrap_err();
        assert_eq!(error.setting(), "resource");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let members = prop::collection::btree_map(".{0,10}", inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            members.prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Names of members, those of errors and of other grants among them.
fn unused_name() -> impl Strategy<Value = String> {
    let used = ["access_token", "token_type", "expires_in", "scope", "error"];
    let known = [
        "refresh_token",
        "id_token",
        "error_code",
        "errorCode",
        "error_description",
        "message",
        "not_before",
        "ext_expires_in",
    ];
    let any = ".{0,20}".prop_filter("used", move |name| !used.contains(&name.as_str()));
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        any
    ]
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_value_of_an_unused_member_spoils_a_response(
        members in prop::collection::vec((unused_name(), any_json()), 0..6),
        status in 200_u16..300,
    ) {
        let mut body: serde_json::Map<String, Value> = members.into_iter().collect();
        for (name, value) in [("access_token", "a-token"), ("token_type", "bearer")] {
            body.insert(name.to_owned(), value.into());
        }
        body.insert("expires_in".to_owned(), 60.into());
        let endpoint = TokenEndpoint::with_reply(Reply::Json(status, body.into()));
        let token = run(async { builder(&endpoint).build_source().unwrap().fetch().await });
        prop_assert!(token.is_ok_and(|token| token.expose_secret() == "a-token"));
    }

    #[test]
    fn no_scope_spoils_a_response(scope in any_json()) {
        let body = json!({ "access_token": "a-token", "token_type": "Bearer", "scope": scope });
        let endpoint = TokenEndpoint::with_reply(Reply::Json(200, body));
        let token = run(async { builder(&endpoint).build_source().unwrap().fetch().await });
        prop_assert!(token.is_ok_and(|token| token.expose_secret() == "a-token"));
    }

    #[test]
    fn no_error_shows_text_of_the_body(
        status in 200_u16..600,
        before in ".{0,20}",
        form in 0..6,
        content_type in prop::option::of("[ -~]{1,40}"),
    ) {
        let marker = "t0p-s3cret-text";
        let body = match form {
            0 => format!("{before}{marker}"),
            1 => format!("<html>{before}{marker}</html>"),
            2 => json!({ "x": [before, marker] }).to_string(),
            3 => json!([before, marker]).to_string(),
            4 => json!({ "access_token": marker, "token_type": marker }).to_string(),
            _ => json!({ "access_token": marker, "refresh_token": marker, "x": before })
                .to_string()
                .replace('}', ""),
        };
        let headers = content_type.map(|text| ("content-type", text));
        let reply = Reply::Raw(status, headers.into_iter().collect(), body);
        let error = run(error_of(reply));
        let shown = format!("{error} {error:?}");
        prop_assert!(!shown.contains(marker), "{}", shown);
    }
}
