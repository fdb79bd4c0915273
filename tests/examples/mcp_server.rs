//! The example `mcp_server`, with the development authorization server, over loopback.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication};
use tower_oauth::clock::{Clock as _, SystemClock};
use tower_oauth::resource_server::Algorithm;

use crate::support::program::{Serving, example};

/// The version from which on `Mcp-Method` and `Mcp-Name` are required.
const WITH_HEADERS: &str = "2026-07-28";
const REPORTS: &str = "reports.read";

/// An issuer on a port, a caller, and the program.
struct Fixture {
    issuer: AuthorizationServer,
    shop: RegisteredApplication,
    program: Serving,
    /// The URL of the MCP server, which is the audience.
    mcp: String,
}

async fn issuer() -> (AuthorizationServer, RegisteredApplication) {
    let builder = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    let listening = builder.bind(0).await.unwrap();
    let issuer = listening.server().clone();
    tokio::spawn(listening.serve(std::future::pending()));
    let shop = issuer.register("shop").unwrap();
    (issuer, shop)
}

impl Fixture {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(variables: &[(&str, &str)]) -> Self {
        let (issuer, shop) = issuer().await;
        let mut command = example("mcp_server");
        command
            .env("ISSUER", issuer.issuer().as_str())
            .env("RUST_LOG", "trace")
            .envs(variables.iter().copied());
        let program = Serving::start(command).await;
        let mcp = format!("{}/mcp", program.text("listening"));
        let resource = variables.iter().find(|(name, _)| *name == "RESOURCE");
        let fixture = Self {
            issuer,
            shop,
            program,
            mcp: resource.map_or(mcp, |(_, resource)| (*resource).to_owned()),
        };
        // 503 until the keys have been fetched.
        let token = fixture.token("");
        let ready = async {
            while fixture.call(&token, "tools/list", "").await.status == 503 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ready = tokio::time::timeout(Duration::from_secs(20), ready);
        ready.await.expect("keys within 20 seconds");
        fixture
    }

    /// A token of the caller for the server, with these scopes.
    fn token(&self, scope: &str) -> String {
        self.token_of(&self.shop, scope)
    }

    fn token_of(&self, caller: &RegisteredApplication, scope: &str) -> String {
        let mint = self.issuer.mint(caller).audience([self.mcp.as_str()]);
        let mint = mint.claim("client_id", caller.client_id());
        mint.scope(scope).sign()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.program.text("listening"))
    }

    /// A request with a body, without a token.
    fn post(&self, body: &Value) -> RequestBuilder {
        reqwest::Client::new()
            .post(self.url("/mcp"))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(body.to_string())
    }

    /// Calls a method, or a tool if it has a name, as 2026-07-28 has it.
    async fn call(&self, token: &str, method: &str, tool: &str) -> Outcome {
        let body = request(method, tool, Some(WITH_HEADERS));
        let mut request = self
            .post(&body)
            .bearer_auth(token)
            .header("mcp-protocol-version", WITH_HEADERS)
            .header("mcp-method", method);
        if !tool.is_empty() {
            request = request.header("mcp-name", tool);
        }
        Outcome::of(request).await
    }
}

/// A JSON-RPC request; from 2026-07-28 on each has the version of its client.
fn request(method: &str, tool: &str, version: Option<&str>) -> Value {
    let mut params = json!({});
    if !tool.is_empty() {
        params = json!({ "name": tool, "arguments": {} });
    }
    if let Some(version) = version {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
    }
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

fn initialize() -> Value {
    let mut body = request("initialize", "", None);
    body["params"] = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    });
    body
}

#[derive(Debug)]
struct Outcome {
    status: u16,
    headers: HeaderMap,
    /// The last message, whether it came as JSON or as an event.
    message: Value,
    text: String,
}

impl Outcome {
    async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let last = events.map(str::trim).rfind(|data| !data.is_empty());
        Self {
            status,
            headers,
            message: serde_json::from_str(last.unwrap_or(&text)).unwrap_or_default(),
            text,
        }
    }

    fn challenge(&self) -> &str {
        let mut fields = self.headers.get_all("www-authenticate").iter();
        let challenge = fields.next().map_or("", |field| field.to_str().unwrap());
        assert_eq!(fields.next(), None, "one challenge");
        challenge
    }

    /// What the tool returned.
    fn result(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        &self.message["result"]["structuredContent"]
    }
}

#[tokio::test]
async fn a_bare_401_names_the_document_and_the_scope_and_the_document_is_open() {
    let fixture = Fixture::new().await;
    let outcome = Outcome::of(fixture.post(&initialize())).await;
    assert_eq!(outcome.status, 401);
    let document = fixture.url("/.well-known/oauth-protected-resource/mcp");
    let challenge = outcome.challenge();
    assert!(challenge.starts_with("Bearer "), "{challenge}");
    assert!(challenge.contains(r#"scope="reports.read""#), "{challenge}");
    let member = format!(r#"resource_metadata="{document}""#);
    assert_eq!(challenge.matches(&member).count(), 1, "{challenge}");
    assert!(!challenge.contains("error"), "{challenge}");

    // Nothing that a client sends closes the document, or is in it.
    let expired = fixture.issuer.mint(&fixture.shop).expired().sign();
    let client = reqwest::Client::new();
    for request in [
        client.get(&document),
        client.get(&document).bearer_auth("a.b.c"),
        client.get(&document).bearer_auth(expired),
        client.get(&document).header("host", "evil.example"),
        client
            .get(&document)
            .header("x-forwarded-host", "evil.example"),
    ] {
        let outcome = Outcome::of(request).await;
        assert_eq!(outcome.status, 200);
        assert_eq!(
            outcome.message,
            json!({
                "resource": fixture.mcp,
                "authorization_servers": [fixture.issuer.issuer().as_str()],
                "scopes_supported": [REPORTS],
                "bearer_methods_supported": ["header"],
                "resource_name": "Reports",
            })
        );
    }
}

#[tokio::test]
async fn a_client_of_an_older_protocol_works_in_a_session_with_all_scopes() {
    let fixture = Fixture::new().await;
    let token = fixture.token(REPORTS);
    let outcome = Outcome::of(fixture.post(&initialize()).bearer_auth(&token)).await;
    assert_eq!(outcome.status, 200, "{outcome:?}");
    assert_eq!(outcome.message["result"]["protocolVersion"], "2025-11-25");
    let session = outcome.headers["mcp-session-id"].to_str().unwrap();
    let call = |body: &Value, token: &str| {
        let request = fixture
            .post(body)
            .header("mcp-session-id", session)
            .header("mcp-protocol-version", "2025-11-25");
        Outcome::of(request.bearer_auth(token))
    };
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(call(&initialized, &token).await.status, 202);
    let outcome = call(&request("tools/list", "", None), &token).await;
    let tools = outcome.message["result"]["tools"].as_array().unwrap();
    let mut names: Vec<_> = tools.iter().map(|tool| &tool["name"]).collect();
    names.sort_by_key(|name| name.to_string());
    assert_eq!(names, ["report", "whoami"]);
    let outcome = call(&request("tools/call", "report", None), &token).await;
    assert_eq!(outcome.result(), &json!({ "report": "all is well" }));

    // The session is no authentication: each request is of the caller of its own token.
    let other = fixture.issuer.register("warehouse").unwrap();
    let other_token = fixture.token_of(&other, REPORTS);
    for (token, caller) in [(&token, &fixture.shop), (&other_token, &other)] {
        let outcome = call(&request("tools/call", "whoami", None), token).await;
        assert_eq!(outcome.result()["client_id"], caller.client_id());
    }
    let without = fixture.post(&request("tools/call", "whoami", None));
    let without = Outcome::of(without.header("mcp-session-id", session)).await;
    assert_eq!(without.status, 401);
}

#[tokio::test]
async fn whoami_needs_a_token_and_report_its_scope() {
    let fixture = Fixture::new().await;
    let (without, with) = (fixture.token("orders.read"), fixture.token(REPORTS));
    for tool in ["whoami", "report"] {
        let request = fixture
            .post(&request("tools/call", tool, Some(WITH_HEADERS)))
            .header("mcp-protocol-version", WITH_HEADERS)
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool);
        let outcome = Outcome::of(request).await;
        assert_eq!(outcome.status, 401, "{tool}: {outcome:?}");
        assert!(outcome.challenge().contains("resource_metadata="), "{tool}");
        assert_eq!(outcome.message, Value::Null, "no tool has run");
    }
    for method in ["server/discover", "tools/list"] {
        assert_eq!(fixture.call(&without, method, "").await.status, 200);
    }
    let outcome = fixture.call(&without, "tools/call", "whoami").await;
    assert_eq!(
        outcome.result(),
        &json!({
            "issuer": fixture.issuer.issuer().as_str(),
            "subject": fixture.shop.client_id(),
            "client_id": fixture.shop.client_id(),
            "scopes": ["orders.read"],
            "token_in_tool": false,
        })
    );
    let outcome = fixture.call(&without, "tools/call", "report").await;
    assert_eq!(outcome.status, 403);
    let challenge = outcome.challenge();
    for member in [
        r#"error="insufficient_scope""#,
        r#"scope="reports.read""#,
        "resource_metadata=",
    ] {
        assert_eq!(challenge.matches(member).count(), 1, "{challenge}");
    }
    let outcome = fixture.call(&with, "tools/call", "report").await;
    assert_eq!(outcome.result(), &json!({ "report": "all is well" }));
    let outcome = fixture.call(&with, "tools/call", "whoami").await;
    assert_eq!(outcome.result()["scopes"], json!([REPORTS]));
}

/// The transport puts the whole head into the call: the token must not be in it any more.
#[tokio::test]
async fn no_tool_gets_the_token_of_its_caller() {
    let fixture = Fixture::new().await;
    let token = fixture.token(REPORTS);
    let outcome = fixture.call(&token, "tools/call", "whoami").await;
    assert_eq!(outcome.result()["token_in_tool"], false);
    assert!(!outcome.text.contains(&token));
    // The caller is known all the same, and so it is in a session of an older protocol.
    assert_eq!(outcome.result()["client_id"], fixture.shop.client_id());
    let opened = Outcome::of(fixture.post(&initialize()).bearer_auth(&token)).await;
    let request = fixture
        .post(&request("tools/call", "whoami", None))
        .bearer_auth(&token)
        .header("mcp-session-id", &opened.headers["mcp-session-id"])
        .header("mcp-protocol-version", "2025-11-25");
    let outcome = Outcome::of(request).await;
    assert_eq!(outcome.result()["token_in_tool"], false);
    assert_eq!(outcome.result()["client_id"], fixture.shop.client_id());
}

#[tokio::test]
async fn a_malformed_authorization_is_a_400_that_names_the_document() {
    let fixture = Fixture::new().await;
    let token = fixture.token(REPORTS);
    let body = request("tools/call", "whoami", Some(WITH_HEADERS));
    for values in [
        vec![format!("Bearer {token} {token}")],
        vec!["Bearer".to_owned()],
        vec![format!("Bearer {token}"), format!("Bearer {token}")],
    ] {
        let mut request = fixture
            .post(&body)
            .header("mcp-protocol-version", WITH_HEADERS)
            .header("mcp-method", "tools/call")
            .header("mcp-name", "whoami");
        for value in values {
            request = request.header("authorization", value);
        }
        let outcome = Outcome::of(request).await;
        assert_eq!(outcome.status, 400, "{outcome:?}");
        for member in [r#"error="invalid_request""#, "resource_metadata="] {
            assert_eq!(
                outcome.challenge().matches(member).count(),
                1,
                "{outcome:?}"
            );
        }
    }
}

/// Without the headers, or with headers that the transport does not compare with the body.
#[tokio::test]
async fn without_trusted_headers_a_request_needs_the_scopes_of_all_tools() {
    let fixture = Fixture::new().await;
    let token = fixture.token("orders.read");
    let whoami = [("mcp-method", "tools/call"), ("mcp-name", "whoami")];
    for (case, headers) in [
        ("no headers", vec![]),
        ("no version", whoami.to_vec()),
        (
            "an older version",
            [&whoami[..], &[("mcp-protocol-version", "2025-11-25")]].concat(),
        ),
        (
            "two versions",
            [
                &whoami[..],
                &[("mcp-protocol-version", "2025-11-25")],
                &[("mcp-protocol-version", WITH_HEADERS)],
            ]
            .concat(),
        ),
        (
            "no method",
            vec![
                ("mcp-protocol-version", WITH_HEADERS),
                ("mcp-name", "whoami"),
            ],
        ),
        (
            "two methods",
            [
                &whoami[..],
                &[("mcp-method", "ping")],
                &[("mcp-protocol-version", WITH_HEADERS)],
            ]
            .concat(),
        ),
        (
            "two names",
            [
                &whoami[..],
                &[("mcp-name", "report")],
                &[("mcp-protocol-version", WITH_HEADERS)],
            ]
            .concat(),
        ),
        // The transport decodes it to `report`, so it must not count as an unknown, harmless name.
        (
            "an encoded name",
            vec![
                ("mcp-protocol-version", WITH_HEADERS),
                ("mcp-method", "tools/call"),
                ("mcp-name", "=?base64?cmVwb3J0?="),
            ],
        ),
        (
            "an unknown tool",
            vec![
                ("mcp-protocol-version", WITH_HEADERS),
                ("mcp-method", "tools/call"),
                ("mcp-name", "harmless"),
            ],
        ),
    ] {
        for body in [
            request("tools/call", "report", None),
            request("tools/call", "report", Some(WITH_HEADERS)),
            initialize(),
        ] {
            let mut request = fixture.post(&body).bearer_auth(&token);
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let outcome = Outcome::of(request).await;
            assert_eq!(outcome.status, 403, "{case}: {body} {outcome:?}");
            assert!(outcome.challenge().contains("insufficient_scope"), "{case}");
        }
    }
    // The other methods of the transport: the streams of sessions.
    let client = reqwest::Client::new();
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let bare = client.request(method, fixture.url("/mcp"));
        let bare = bare.bearer_auth(&token);
        let with_headers = bare.try_clone().unwrap();
        let with_headers = with_headers
            .header("mcp-protocol-version", WITH_HEADERS)
            .header("mcp-method", "tools/list");
        for request in [bare, with_headers] {
            assert_eq!(Outcome::of(request).await.status, 403);
        }
    }
}

/// The rule by the head relies on it: from 2026-07-28 on the transport compares head and body.
#[tokio::test]
async fn a_head_that_names_another_tool_than_the_body_is_refused_by_the_transport() {
    let fixture = Fixture::new().await;
    let token = fixture.token("orders.read");
    let report = request("tools/call", "report", Some(WITH_HEADERS));
    let without_version = request("tools/call", "report", None);
    for (body, method, name) in [
        (&report, "tools/call", Some("whoami")),
        (&report, "tools/list", None),
        (&report, "tools/list", Some("report")),
        (&report, "server/discover", None),
        (&report, "initialize", None),
        (&report, "notifications/initialized", None),
        (&report, "anything", Some("whoami")),
        (&without_version, "tools/call", Some("whoami")),
        (&without_version, "tools/list", None),
    ] {
        for session in [None, Some("00000000-0000-0000-0000-000000000000")] {
            let mut request = fixture
                .post(body)
                .bearer_auth(&token)
                .header("mcp-protocol-version", WITH_HEADERS)
                .header("mcp-method", method);
            if let Some(name) = name {
                request = request.header("mcp-name", name);
            }
            if let Some(session) = session {
                request = request.header("mcp-session-id", session);
            }
            let outcome = Outcome::of(request).await;
            assert_eq!(outcome.status, 400, "{method} {name:?}: {outcome:?}");
            assert!(!outcome.text.contains("all is well"), "{outcome:?}");
            let code = outcome.message["error"]["code"].as_i64();
            // HeaderMismatch, or the missing version in the body.
            assert!(matches!(code, Some(-32020 | -32602)), "{outcome:?}");
            if *body == report {
                assert_eq!(code, Some(-32020), "{outcome:?}");
            }
        }
    }
}

/// The rule relies on the headers with the dates among these versions, too.
#[tokio::test]
async fn a_later_or_unknown_version_does_not_get_past_the_comparison() {
    let fixture = Fixture::new().await;
    let token = fixture.token("orders.read");
    for (version, status) in [
        ("2026-07-29", 400),
        ("2027-01-01", 400),
        // No dates: the rule does not rely on the headers.
        ("9", 403),
        ("draft", 403),
    ] {
        for body_version in [Some(version), Some("2025-11-25"), Some(WITH_HEADERS), None] {
            let body = request("tools/call", "report", body_version);
            for (method, name) in [("tools/call", "whoami"), ("initialize", "report")] {
                let request = fixture
                    .post(&body)
                    .bearer_auth(&token)
                    .header("mcp-protocol-version", version)
                    .header("mcp-method", method)
                    .header("mcp-name", name);
                let outcome = Outcome::of(request).await;
                let case = format!("{version} {body_version:?} {method}: {outcome:?}");
                assert_eq!(outcome.status, status, "{case}");
                assert!(!outcome.text.contains("all is well"), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn tokens_for_another_audience_or_in_the_query_are_refused() {
    let fixture = Fixture::new().await;
    for audience in [
        fixture.mcp.replace("/mcp", "/other"),
        format!("{}/", fixture.mcp),
        fixture.shop.client_id().to_owned(),
    ] {
        let mint = fixture.issuer.mint(&fixture.shop);
        let token = mint.audience([audience.as_str()]).scope(REPORTS).sign();
        let outcome = fixture.call(&token, "tools/call", "whoami").await;
        assert_eq!(outcome.status, 401, "{audience}");
        assert!(outcome.challenge().contains(r#"error="invalid_token""#));
    }
    let token = fixture.token(REPORTS);
    let url = format!("{}?access_token={token}", fixture.url("/mcp"));
    let body = request("tools/call", "whoami", Some(WITH_HEADERS));
    let request = reqwest::Client::new().post(url).body(body.to_string());
    assert_eq!(Outcome::of(request).await.status, 401);
}

#[tokio::test]
async fn other_hosts_and_origins_are_refused() {
    let fixture = Fixture::new().await;
    let token = fixture.token(REPORTS);
    let own = fixture.program.text("listening");
    for (header, value, status) in [
        ("host", "evil.example", 403),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://127.0.0.1:1", 403),
        ("origin", own.as_str(), 200),
        ("host", "localhost", 200),
    ] {
        let request = fixture
            .post(&request("tools/list", "", Some(WITH_HEADERS)))
            .bearer_auth(&token)
            .header("mcp-protocol-version", WITH_HEADERS)
            .header("mcp-method", "tools/list")
            .header(header, value);
        let outcome = Outcome::of(request).await;
        assert_eq!(outcome.status, status, "{header} {value}: {outcome:?}");
        assert_eq!(outcome.challenge(), "", "not of the layer");
    }
}

#[tokio::test]
async fn a_resource_behind_a_proxy_is_the_audience_and_names_its_own_document() {
    let resource = "https://mcp.example/mcp";
    let fixture = Fixture::with(&[("RESOURCE", resource)]).await;
    let document = fixture.url("/.well-known/oauth-protected-resource/mcp");
    let outcome = Outcome::of(reqwest::Client::new().get(document)).await;
    assert_eq!(outcome.message["resource"], resource);
    let outcome = Outcome::of(fixture.post(&initialize())).await;
    let named = "https://mcp.example/.well-known/oauth-protected-resource/mcp";
    assert!(outcome.challenge().contains(named), "{outcome:?}");
    let outcome = Outcome::of(
        fixture
            .post(&initialize())
            .bearer_auth(fixture.token(REPORTS))
            .header("host", "mcp.example")
            .header("origin", "https://mcp.example"),
    )
    .await;
    assert_eq!(outcome.status, 200, "{outcome:?}");
}

#[tokio::test]
async fn an_unusable_setting_is_exit_code_2_and_one_line_that_names_it() {
    let good = "http://127.0.0.1:1/issuer";
    for (variables, named) in [
        (&[][..], "ISSUER"),
        (&[("ISSUER", "not a url")], "ISSUER"),
        (&[("ISSUER", "http://as.example")], "ISSUER"),
        (&[("ISSUER", good), ("PORT", "many")], "PORT"),
        (&[("ISSUER", good), ("RESOURCE", "mcp")], "RESOURCE"),
        (
            &[("ISSUER", good), ("RESOURCE", "https://API.example")],
            "RESOURCE",
        ),
        (
            &[("ISSUER", good), ("RESOURCE", "https://mcp.example/#a")],
            "RESOURCE",
        ),
        (
            &[("ISSUER", good), ("RESOURCE", "http://mcp.example/mcp")],
            "RESOURCE",
        ),
    ] {
        let mut command = example("mcp_server");
        let output = command.envs(variables.iter().copied()).output();
        let output = output.await.unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{variables:?} {line}");
        assert_eq!(output.stdout, b"");
        assert!(line.contains(named), "{variables:?} {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[tokio::test]
async fn the_server_stops_on_sigterm_though_a_stream_is_open_and_logs_no_token() {
    let fixture = Fixture::new().await;
    let token = fixture.token(REPORTS);
    let outcome = Outcome::of(fixture.post(&initialize()).bearer_auth(&token)).await;
    let session = outcome.headers["mcp-session-id"].clone();
    let stream = reqwest::Client::new()
        .get(fixture.url("/mcp"))
        .header("accept", "text/event-stream")
        .header("mcp-session-id", session)
        .bearer_auth(&token);
    let mut stream = stream.send().await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    assert!(stream.chunk().await.unwrap().is_some(), "it is open");
    let stopped = std::time::Instant::now();
    let (code, log) = fixture.program.terminate().await;
    assert_eq!(code, Some(0));
    assert!(stopped.elapsed() < Duration::from_secs(5));
    assert!(log.contains("tower_oauth"), "the log is not empty");
    assert!(!log.contains(&token), "a token is in the log");
    assert!(!log.contains("eyJ"), "a token is in the log");
}

/// Nothing but the clock of the program ends a token, so this takes a few seconds.
#[tokio::test]
async fn an_open_stream_outlives_its_token() {
    const LEEWAY: u64 = 60;
    let fixture = Fixture::new().await;
    let token = fixture.token(REPORTS);
    let outcome = Outcome::of(fixture.post(&initialize()).bearer_auth(&token)).await;
    let session = outcome.headers["mcp-session-id"].clone();
    let open = async |token: &str| {
        let stream = reqwest::Client::new()
            .get(fixture.url("/mcp"))
            .header("accept", "text/event-stream")
            .header("mcp-session-id", session.clone())
            .bearer_auth(token);
        stream.send().await.unwrap()
    };
    // The program has to get the request before the token ends.
    let mut seconds = 2;
    let (token, mut stream) = loop {
        assert!(seconds < 60, "no stream within {seconds} seconds");
        let exp = SystemClock.now().as_secs() + seconds - LEEWAY;
        let mint = fixture.issuer.mint(&fixture.shop);
        let mint = mint.audience([fixture.mcp.as_str()]).scope(REPORTS);
        let mint = mint.claim("client_id", fixture.shop.client_id());
        let token = mint.claim("exp", exp).sign();
        let stream = open(&token).await;
        if stream.status() == StatusCode::OK {
            break (token, stream);
        }
        seconds *= 2;
    };
    assert!(stream.chunk().await.unwrap().is_some(), "it is open");
    let rejected = async {
        while fixture.call(&token, "tools/list", "").await.status != 401 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let rejected = tokio::time::timeout(Duration::from_secs(90), rejected);
    rejected.await.expect("the token expires");
    assert_eq!(open(&token).await.status(), StatusCode::UNAUTHORIZED);
    // Not even the end comes.
    let next = tokio::time::timeout(Duration::from_millis(500), stream.chunk()).await;
    assert!(!matches!(next, Ok(Ok(None) | Err(_))), "{next:?}");

    // But it does when the program stops.
    assert_eq!(fixture.program.terminate().await.0, Some(0));
    let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended);
    ended.await.expect("the stream ends with the program");
}
