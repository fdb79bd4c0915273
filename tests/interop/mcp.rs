//! MCP clients of other vendors, and the MCP conformance suite, against the example `mcp_server`; and
//! the suite against the example `mcp_client`.
//!
//! The clients know the URL of the server and their credentials, and nothing else: rmcp, and npm
//! `@modelcontextprotocol/sdk` and `@modelcontextprotocol/client`. The suite is npm
//! `@modelcontextprotocol/conformance`, which needs the newer Node of npm `node`. The packages are
//! those of `tests/interop/install.sh`; the test of rmcp needs none. The test of a page needs
//! Chromium and chromedriver, as `tests/browser` does.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axum::response::Html;
use axum::routing::get;
use axum::{Router, extract};
use http::{StatusCode, header};
use reqwest::header::WWW_AUTHENTICATE;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::ClientServiceExt as _;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::auth::{
    AuthClient, AuthorizationManager, AuthorizationMetadataSource, ClientCredentialsConfig,
};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication};

use crate::node::{node, packages, printed, server};
use crate::servers::{eventually, free_port};
use crate::session::with_browser;
use crate::support::program::{Serving, example};

/// The scope that the tool `report` needs.
const REPORTS: &str = "reports.read";

/// An issuer, a client that may have the scope, and the program.
struct Fixture {
    issuer: AuthorizationServer,
    app: RegisteredApplication,
    program: Serving,
}

impl Fixture {
    async fn new(variables: &[(&str, &str)]) -> Self {
        let (issuer, app) = server().await;
        app.set_scopes([REPORTS]).unwrap();
        let mut command = example("mcp_server");
        command
            .env("ISSUER", issuer.issuer().as_str())
            .envs(variables.iter().copied());
        let program = Serving::start(command).await;
        let fixture = Self {
            issuer,
            app,
            program,
        };
        // 503 until the keys have been fetched.
        let any = fixture.issuer.mint(&fixture.app).sign();
        let limit = Duration::from_secs(20);
        eventually("keys", limit, || async {
            let request = reqwest::Client::new().post(fixture.mcp()).bearer_auth(&any);
            request.send().await.unwrap().status() == StatusCode::UNAUTHORIZED
        })
        .await;
        fixture
    }

    fn mcp(&self) -> String {
        format!("{}/mcp", self.program.text("listening"))
    }
}

/// From a bare 401 to a token, as rmcp's client does it.
async fn authorized(fixture: &Fixture) -> AuthClient<reqwest::Client> {
    let mcp = fixture.mcp();
    let bare = reqwest::Client::new().post(&mcp).send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    let challenge = bare.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    let mut manager = AuthorizationManager::new(&mcp).await.unwrap();
    let found = manager.resolve_metadata_from_challenge(Some(challenge));
    let found = found.await.unwrap();
    let expected = AuthorizationMetadataSource::ProtectedResourceMetadata;
    assert_eq!(found.source, expected);
    let issuer = fixture.issuer.issuer();
    assert_eq!(found.metadata.issuer.as_deref(), Some(issuer.as_str()));
    manager.set_metadata(found.metadata);
    let scopes = manager.select_initial_scopes(&[]).await;
    assert_eq!(scopes, [REPORTS], "the scope of the challenge");
    let credentials = ClientCredentialsConfig::ClientSecret {
        client_id: fixture.app.client_id().to_owned(),
        client_secret: fixture.app.secret().expose_secret().to_owned(),
        scopes,
        resource: Some(mcp),
    };
    manager
        .validate_client_credentials_metadata(&credentials)
        .unwrap();
    manager.configure_client_credentials(&credentials).unwrap();
    manager
        .exchange_client_credentials(&credentials)
        .await
        .unwrap();
    AuthClient::new(reqwest::Client::new(), manager)
}

#[tokio::test]
async fn rmcps_client_finds_its_way_from_a_bare_401_to_each_tool() {
    use rmcp::service::ClientLifecycleMode::{Discover, Initialize};
    let fixture = Fixture::new(&[]).await;
    let client = authorized(&fixture).await;
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    for lifecycle in [Initialize, Discover { preferred_versions }] {
        let config = StreamableHttpClientTransportConfig::with_uri(fixture.mcp());
        let transport = StreamableHttpClientTransport::with_client(client.clone(), config);
        let case = format!("{lifecycle:?}");
        let session = ().serve_with_lifecycle(transport, lifecycle).await.unwrap();
        let mut called = Vec::new();
        for tool in session.list_all_tools().await.unwrap() {
            let call = CallToolRequestParams::new(tool.name.clone());
            let result = session.call_tool(call).await.unwrap();
            called.push((tool.name.to_string(), result.structured_content.unwrap()));
        }
        called.sort_by(|(one, _), (other, _)| one.cmp(other));
        let [(report, reported), (whoami, caller)] = &called[..] else {
            panic!("{case}: {called:?}");
        };
        assert_eq!((report.as_str(), whoami.as_str()), ("report", "whoami"));
        assert_eq!(reported, &json!({ "report": "all is well" }), "{case}");
        assert_eq!(caller["subject"], fixture.app.client_id(), "{case}");
        assert_eq!(caller["scopes"], json!([REPORTS]), "{case}");
        session.cancel().await.unwrap();
    }
}

/// The SDK of protocol 2025-11-25, and its successor for both protocols.
#[tokio::test]
async fn the_typescript_sdks_find_their_way_from_a_bare_401_to_each_tool() {
    let Some(packages) = packages() else { return };
    let fixture = Fixture::new(&[]).await;
    let mcp = fixture.mcp();
    for (library, version) in [("sdk", ""), ("client", ""), ("client", "2026-07-28")] {
        let settings = [
            ("LIBRARY", library),
            ("VERSION", version),
            ("MCP_URL", mcp.as_str()),
            ("CLIENT_ID", fixture.app.client_id()),
            ("CLIENT_SECRET", fixture.app.secret().expose_secret()),
        ];
        let case = format!("{library} {version}");
        let done = printed(&mut node(&packages, "mcp_client.js", &settings)).await;
        assert_eq!(done["results"]["report"]["report"], "all is well", "{case}");
        let caller = &done["results"]["whoami"];
        assert_eq!(caller["subject"], fixture.app.client_id(), "{case}");
        assert_eq!(caller["issuer"], fixture.issuer.issuer().as_str(), "{case}");

        let requests = done["requests"].as_array().unwrap();
        let text = |request: &Value, name: &str| request[name].as_str().unwrap_or("").to_owned();
        let first = &requests[0];
        assert_eq!(
            (text(first, "url"), &first["status"]),
            (mcp.clone(), &json!(401))
        );
        assert_eq!(first["bearer"], false, "{case}: bare");
        let document = mcp.replace("/mcp", "/.well-known/oauth-protected-resource/mcp");
        let documents = requests.iter().filter(|one| text(one, "url") == document);
        let statuses: Vec<_> = documents.map(|one| one["status"].clone()).collect();
        assert_eq!(statuses, [200], "{case}: {requests:?}");
        let refused = |one: &&Value| text(one, "url") == mcp && one["status"] == 401;
        assert_eq!(requests.iter().filter(refused).count(), 1, "{case}");
    }
}

/// The discovery of the MCP Inspector, which is that of the SDK, in a page of its own origin.
///
/// The header makes the request one that the browser asks for first (CORS). If that fails, the SDK
/// tries again without the header: there must be no second request.
const DISCOVER: &str = r"
    const [mcp, done] = arguments;
    const sent = [];
    const recorded = async (url, init) => {
        sent.push({ url: String(url), version: init?.headers?.['MCP-Protocol-Version'] ?? null });
        return fetch(url, init);
    };
    import('@modelcontextprotocol/sdk/client/auth.js')
        .then((sdk) => sdk.discoverOAuthProtectedResourceMetadata(mcp, {}, recorded))
        .then((document) => done({ sent, document }), (error) => done({ sent, error: String(error) }));
";

/// A page that can import the SDK. It has an origin of its own.
async fn page(packages: &Path) -> String {
    let imports = json!({ "imports": {
        "@modelcontextprotocol/sdk/client/auth.js":
            "/modules/@modelcontextprotocol/sdk/dist/esm/client/auth.js",
        "pkce-challenge": "/modules/pkce-challenge/dist/index.browser.js",
        "zod/v4": "/modules/zod/v4/index.js",
    } });
    let html = format!("<title>client</title><script type=importmap>{imports}</script>");
    let modules = packages.join("node_modules");
    let module = async move |path: extract::Path<String>| {
        let source = std::fs::read_to_string(modules.join(path.as_str()));
        let source = source.map_err(|_| StatusCode::NOT_FOUND);
        source.map(|source| ([(header::CONTENT_TYPE, "text/javascript")], source))
    };
    let router = Router::new()
        .route("/", get(async move || Html(html)))
        .route("/modules/{*path}", get(module));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn a_page_of_another_origin_discovers_the_metadata_of_an_mcp_server() {
    let Some(packages) = packages() else { return };
    with_browser(true, |browser| async move {
        let fixture = Fixture::new(&[]).await;
        let mcp = fixture.mcp();
        browser.open(&page(&packages).await).await;
        let found = browser.0.execute_async(DISCOVER, vec![json!(mcp)]);
        let found = found.await.unwrap();
        let document = mcp.replace("/mcp", "/.well-known/oauth-protected-resource/mcp");
        let sent = json!([{ "url": document, "version": "2025-11-25" }]);
        assert_eq!(found["sent"], sent, "{found}");
        assert_eq!(found["document"]["resource"], mcp, "{found}");
        let issuers = json!([fixture.issuer.issuer().as_str()]);
        assert_eq!(found["document"]["authorization_servers"], issuers);
    })
    .await;
}

/// The scenarios that run, each in the protocol versions that it is for.
const CONFORMANCE: [(&str, &[&str]); 8] = [
    ("dns-rebinding-protection", &["2025-11-25", "2026-07-28"]),
    ("http-header-validation", &["2026-07-28"]),
    ("ping", &["2025-11-25"]),
    ("server-initialize", &["2025-11-25"]),
    ("server-session-lifecycle", &["2025-11-25"]),
    ("server-sse-multiple-streams", &["2025-11-25", "2026-07-28"]),
    // In part: it has checks with tools of the suite, which are "not testable" here.
    ("server-stateless", &["2026-07-28"]),
    ("tools-list", &["2025-11-25", "2026-07-28"]),
];

/// The scenarios that do not apply, by the beginning of their names, and why. They are about tools,
/// prompts and resources of a server that is made for the suite.
const NOT_APPLICABLE: [(&str, &str); 14] = [
    ("caching", "the server has no prompts and no resources"),
    ("completion-complete", "the server completes no arguments"),
    ("elicitation-", "no tool asks the user"),
    (
        "http-custom-header-server-validation",
        "no tool has an argument in a header",
    ),
    ("input-required-result-", "no tool asks for input"),
    ("json-schema-2020-12", "needs a tool of the suite"),
    ("logging-set-level", "the server sends no logs"),
    ("prompts-", "the server has no prompts"),
    ("resources-", "the server has no resources"),
    ("sep-2164-resource-not-found", "the server has no resources"),
    ("sep-2640-skills-", "the server has no skills"),
    (
        "server-sse-polling",
        "needs a tool of the suite that closes its stream",
    ),
    ("tasks-", "the server has no tasks"),
    ("tools-call-", "needs tools of the suite"),
];

/// The scenarios that concern the headers of an HTTP server, through a proxy that adds a token: the
/// suite has none.
#[tokio::test]
async fn the_mcp_conformance_suite_passes_where_it_concerns_headers() {
    let Some(packages) = packages() else { return };
    let port = free_port();
    let resource = format!("http://127.0.0.1:{port}/mcp");
    let fixture = Fixture::new(&[("RESOURCE", &resource)]).await;
    let mint = fixture.issuer.mint(&fixture.app);
    let token = mint.audience([resource.as_str()]).scope(REPORTS).sign();
    let listening = fixture.program.text("listening");
    let settings = [
        ("PORT", &*port.to_string()),
        ("TARGET", &*listening),
        ("TOKEN", &*token),
    ];
    let mut proxy = node(&packages, "token_proxy.js", &settings);
    assert_eq!(printed(&mut proxy).await["port"], port);
    let mut passed = 0;
    for (scenario, versions) in CONFORMANCE {
        for version in versions {
            let case = format!("{scenario} {version}");
            for check in checks(&packages, &resource, scenario, version).await {
                let status = check["status"].as_str().unwrap();
                let error = check["errorMessage"].as_str().unwrap_or_default();
                let is_in_part = scenario == "server-stateless"
                    && (status == "SKIPPED" || error.starts_with("Not testable: "));
                assert!(status == "SUCCESS" || is_in_part, "{case}: {check:#}");
                passed += usize::from(status == "SUCCESS");
            }
        }
    }
    assert!(passed > 50, "{passed}");
}

#[tokio::test]
async fn each_scenario_of_the_mcp_conformance_suite_runs_or_has_a_reason() {
    let Some(packages) = packages() else { return };
    let output = suite(&packages).arg("list").output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut lines = printed.lines();
    lines.find(|line| line.starts_with("Server scenarios"));
    let scenarios = lines.map_while(|line| line.trim().strip_prefix("- ")?.split(' ').next());
    let scenarios: Vec<_> = scenarios.collect();
    assert!(scenarios.len() > 60, "{printed}");
    let runs = |name: &str| CONFORMANCE.iter().any(|(run, _)| *run == name);
    for name in &scenarios {
        let reason = NOT_APPLICABLE.iter().find(|(not, _)| name.starts_with(not));
        assert!(runs(name) || reason.is_some(), "{name}");
    }
    for (named, _) in NOT_APPLICABLE {
        assert!(
            scenarios.iter().any(|name| name.starts_with(named)),
            "{named}"
        );
    }
}

/// The suite, on its own Node.
fn suite(packages: &Path) -> Command {
    let modules = packages.join("node_modules");
    let mut command = Command::new(modules.join("node/bin/node"));
    command
        .arg(modules.join("@modelcontextprotocol/conformance/dist/index.js"))
        .stdin(Stdio::null());
    command
}

/// The scenarios of clients without a user, with the example `mcp_client`.
#[tokio::test]
async fn the_mcp_conformance_suite_passes_for_clients_without_a_user() {
    let Some(packages) = packages() else { return };
    let node = packages.join("node_modules/node/bin/node");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/conformance_client.js");
    let command = format!("{} {}", node.display(), script.display());
    for (scenario, verified) in [
        (
            "auth/client-credentials-basic",
            "client-credentials-basic-auth",
        ),
        (
            "auth/client-credentials-jwt",
            "client-credentials-jwt-verified",
        ),
        ("auth/wif-jwt-bearer", "wif-assertion-verified"),
    ] {
        let mut suite = suite(&packages);
        suite
            .args(["client", "--command", &command, "--scenario", scenario])
            .env("PROGRAM", example("mcp_client").as_std().get_program());
        let checks = run(suite, scenario).await;
        let has_passed = |id: &str| {
            let is_passed = |check: &Value| check["id"] == id && check["status"] == "SUCCESS";
            checks.iter().any(is_passed)
        };
        // The token was requested as the scenario demands, and the server was called with it.
        assert!(
            has_passed(verified) && has_passed("valid-bearer-token"),
            "{scenario}: {checks:#?}"
        );
        for check in &checks {
            let is_good = check["status"] == "SUCCESS" || check["status"] == "INFO";
            assert!(is_good, "{scenario}: {check:#}");
        }
    }
}

/// The checks of a scenario for servers, with their status.
async fn checks(packages: &Path, url: &str, scenario: &str, version: &str) -> Vec<Value> {
    let mut suite = suite(packages);
    suite
        .args(["server", "--url", url, "--scenario", scenario])
        .args(["--spec-version", version]);
    run(suite, &format!("{scenario} {version}")).await
}

/// Runs the suite for one scenario. Returns its checks.
async fn run(mut suite: Command, case: &str) -> Vec<Value> {
    let results = TempDir::new().unwrap();
    suite.arg("--output-dir").arg(results.path());
    let output = suite.output().await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let found = checks_file(results.path());
    let file = found.unwrap_or_else(|| panic!("{case}: {printed}"));
    let checks = std::fs::read_to_string(file).unwrap();
    let checks: Vec<Value> = serde_json::from_str(&checks).unwrap();
    assert!(!checks.is_empty(), "{case}: {printed}");
    checks
}

/// The only `checks.json` below a folder: the name of a scenario may have a slash.
fn checks_file(folder: &Path) -> Option<PathBuf> {
    let mut folder = folder.to_owned();
    loop {
        let entries = std::fs::read_dir(&folder).ok()?;
        let entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        let file = folder.join("checks.json");
        match &entries[..] {
            _ if file.is_file() => return Some(file),
            [one] if one.is_dir() => folder = one.clone(),
            _ => return None,
        }
    }
}
