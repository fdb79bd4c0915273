//! The dashboard and the alert rules of `examples`, with Debian's Prometheus.
//!
//! If `prometheus` or `promtool` is not installed, the tests print "skipped" and pass, unless
//! `REQUIRE_INTEROP` is set, as in CI.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::StatusCode;
use reqwest::Url;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tower_oauth::authorization_server::{
    AuthorizationServer, EndpointKind, Fault, RegisteredApplication, TokenMint,
};
use tower_oauth::clock::{Clock as _, SystemClock};
use tower_oauth::resource_server::Algorithm;

use crate::servers::{authorization_server, eventually, free_port, skip};
use crate::support::program::{Serving, example};

const DASHBOARD: &str = include_str!("../../examples/grafana_dashboard.json");
const RULES: &str = include_str!("../../examples/alert_rules.yml");
const RULE_TESTS: &str = include_str!("alert_rules_test.yml");
const TIMEOUT: Duration = Duration::from_secs(15);

/// `$__rate_interval` at a scrape interval of one second: Grafana uses four of them.
const RATE_INTERVAL: &str = "4s";

/// Whether both programs are installed.
fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_found =
        |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let is_installed = ["prometheus", "promtool"].iter().all(is_found);
    if !is_installed {
        skip("prometheus: bash .ci/run interop");
    }
    is_installed
}

/// The names of the alerts in a text, after this prefix.
fn alerts<'t>(text: &'t str, prefix: &str) -> BTreeSet<&'t str> {
    text.split(prefix)
        .skip(1)
        .filter_map(|rest| rest.split(['"', '\n', '}']).next())
        .collect()
}

/// Runs `promtool`. Panics with its output if it fails.
async fn promtool(arguments: [&str; 2], file: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let output = Command::new("promtool").args(arguments).arg(file).output();
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn each_alert_fires_in_its_case_and_none_in_normal_operation() {
    let rules = alerts(RULES, "- alert: ");
    assert_eq!(rules.len(), 5);
    // That none fires in normal operation is the first test of the file.
    assert_eq!(alerts(RULE_TESTS, r#"ALERTS{alertname=""#), rules);
    if is_installed() {
        promtool(["check", "rules"], "examples/alert_rules.yml").await;
        promtool(["test", "rules"], "tests/interop/alert_rules_test.yml").await;
    }
}

/// Sends a request with one client for all: a new one takes a tenth of a second.
async fn get(client: &reqwest::Client, url: &str, token: Option<&str>) -> (StatusCode, String) {
    let mut request = client.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

/// A running Prometheus. It ends when it is dropped.
struct Prometheus {
    _child: Child,
    _folder: TempDir,
    client: reqwest::Client,
    base: String,
    started: u64,
}

impl Prometheus {
    /// Scrapes these jobs and evaluates the rules each second. Alerts do not wait for longer.
    async fn start(jobs: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let impatient: Vec<&str> = RULES
            .lines()
            .map(|line| {
                if line.trim_start().starts_with("for: ") {
                    "        for: 1s"
                } else {
                    line
                }
            })
            .collect();
        std::fs::write(folder.path().join("rules.yml"), impatient.join("\n")).unwrap();
        let jobs: String = jobs
            .iter()
            .map(|(job, target)| {
                format!("- job_name: {job}\n  static_configs: [{{ targets: [\"{target}\"] }}]\n")
            })
            .collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [rules.yml]\nscrape_configs:\n{jobs}"
        );
        let config_file = folder.path().join("prometheus.yml");
        std::fs::write(&config_file, config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let prometheus = Self {
            _child: command.spawn().unwrap(),
            client: reqwest::Client::new(),
            base: format!("http://{address}"),
            started: SystemClock.now().as_secs(),
            _folder: folder,
        };
        let ready = format!("{}/-/ready", prometheus.base);
        eventually("Prometheus is ready", TIMEOUT, async || {
            let response = prometheus.client.get(&ready).send().await;
            response.is_ok_and(|response| response.status() == StatusCode::OK)
        })
        .await;
        prometheus
    }

    async fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = format!("{}/api/v1/{path}", self.base);
        let url = Url::parse_with_params(&url, parameters).unwrap();
        let (status, body) = get(&self.client, url.as_str(), None).await;
        assert_eq!(status, StatusCode::OK, "{parameters:?}: {body}");
        let mut body: Value = serde_json::from_str(&body).unwrap();
        body["data"].take()
    }

    /// The series of a query since the start, as Grafana asks for them, with their finite values.
    async fn query(&self, query: &str) -> Vec<(BTreeMap<String, String>, Vec<f64>)> {
        // A sample of the current second is after its beginning.
        let (start, end) = (self.started, SystemClock.now().as_secs() + 1);
        let parameters = [
            ("query", query),
            ("start", &start.to_string()),
            ("end", &end.to_string()),
            ("step", "1"),
        ];
        let data = self.api("query_range", &parameters).await;
        let series = data["result"].as_array().unwrap().iter().map(|series| {
            let labels = serde_json::from_value(series["metric"].clone()).unwrap();
            let values = series["values"].as_array().unwrap();
            let values = values
                .iter()
                .map(|value| value[1].as_str().unwrap().parse::<f64>().unwrap());
            (labels, values.filter(|value| value.is_finite()).collect())
        });
        series.collect()
    }

    /// The latest value of a query for one series; 0 if there is none.
    async fn value(&self, query: &str) -> f64 {
        let data = self.api("query", &[("query", query)]).await;
        data.pointer("/result/0/value/1")
            .map_or(0.0, |value| value.as_str().unwrap().parse().unwrap())
    }

    /// The firing alerts by name, with their summaries.
    async fn firing(&self) -> BTreeMap<String, String> {
        let data = self.api("alerts", &[]).await;
        let alerts = data["alerts"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        alerts
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| {
                let name = text(&alert["labels"]["alertname"]);
                (name, text(&alert["annotations"]["summary"]))
            })
            .collect()
    }
}

/// Each query of the dashboard, with the title of its panel.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().into_iter().flatten();
        for target in targets {
            let query = target["expr"].as_str().unwrap().to_owned();
            queries.push((title.to_owned(), query));
        }
    }
    assert!(queries.len() > 15, "{queries:?}");
    queries
}

/// Replaces the variables of a query as Grafana does.
fn interpolate(query: &str, instance: &str) -> String {
    // Grafana escapes the value of a regular expression, and PromQL its strings.
    let query = query.replace("$instance", &instance.replace('\\', r"\\"));
    let query = query.replace("$__rate_interval", RATE_INTERVAL);
    assert!(!query.contains('$'), "{query}");
    query
}

/// The values of the variable `instance`, which its query names.
async fn instances(prometheus: &Prometheus) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = variables
        .iter()
        .find(|variable| variable["name"] == "instance");
    let query = variable.unwrap()["query"].as_str().unwrap();
    let query = query.strip_prefix("label_values(").unwrap();
    let series = query.strip_suffix(", instance)").unwrap();
    let parameters = [("match[]", series)];
    let values = prometheus.api("label/instance/values", &parameters);
    serde_json::from_value(values.await).unwrap()
}

/// An issuer on a port, with an application.
struct Issuer {
    server: AuthorizationServer,
    shop: RegisteredApplication,
}

impl Issuer {
    async fn start() -> Self {
        let (server, shop) = authorization_server(Algorithm::Es256).await;
        Self { server, shop }
    }

    fn mint(&self) -> TokenMint {
        self.server.mint(&self.shop)
    }

    fn url(&self) -> String {
        self.server.issuer().as_str().to_owned()
    }

    /// Publishes a new key and withdraws all others.
    fn replace_keys(&self) {
        let new = self.server.rotate().unwrap();
        for key in self.server.keys().iter().filter(|key| key.kid() != new) {
            assert!(self.server.withdraw(key.kid()).unwrap());
        }
    }
}

/// A resource server that fetches its keys each few seconds and trusts them for six.
async fn protected_resource(issuer: &Issuer) -> Serving {
    let mut command = example("protected_resource");
    command
        .env("ISSUER", issuer.url())
        .env("AUDIENCE", issuer.shop.client_id())
        .env("MAX_STALE", "6")
        .env("MIN_REFRESH", "1");
    Serving::start(command).await
}

/// A program that calls the resource all the time. Returns it with the address of its metrics.
fn calling_program(issuer: &Issuer, url: &str) -> (Child, String) {
    let port = free_port().to_string();
    let mut command = example("call_protected_resource");
    command
        .arg(url)
        .env("ISSUER", issuer.url())
        .env("CLIENT_ID", issuer.shop.client_id())
        .env("CLIENT_SECRET", issuer.shop.secret().expose_secret())
        .env("METRICS_PORT", &port)
        .env("REPEAT", "1000000")
        .env("INTERVAL_MS", "50")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    (command.spawn().unwrap(), format!("127.0.0.1:{port}"))
}

/// Sends a request for each reason that a stranger can cause, and good ones.
async fn send_all_kinds(client: &reqwest::Client, issuer: &Issuer, resource: &str) {
    let mint = || issuer.mint();
    let unknown = mint().with_unknown_key(Algorithm::Es256).sign();
    for (path, token, status) in [
        ("protected_resource", Some(mint().sign()), 200),
        ("reports", Some(mint().sign()), 403),
        ("protected_resource", None, 401),
        ("protected_resource", Some(mint().expired().sign()), 401),
        (
            "protected_resource",
            Some(mint().audience(["else"]).sign()),
            401,
        ),
        (
            "protected_resource",
            Some(mint().with_another_key().sign()),
            401,
        ),
        // The second time, the kid is in the negative cache.
        ("protected_resource", Some(unknown.clone()), 401),
        ("protected_resource", Some(unknown), 401),
    ] {
        let url = format!("{resource}/{path}");
        let response = get(client, &url, token.as_deref()).await;
        assert_eq!(response.0.as_u16(), status, "{path} {}", response.1);
    }
}

#[tokio::test]
async fn every_query_of_the_dashboard_has_data_and_an_outage_fires_alerts() {
    if !is_installed() {
        return;
    }
    let issuer = Issuer::start().await;
    let resource = protected_resource(&issuer).await;
    let base = resource.text("listening");
    let hello = format!("{base}/protected_resource");
    let (mut caller, caller_address) = calling_program(&issuer, &hello);
    let orders = base.strip_prefix("http://").unwrap().to_owned();
    let prometheus = Prometheus::start(&[("orders", &orders), ("shop", &caller_address)]).await;
    let client = reqwest::Client::new();

    // Normal operation.
    let count = "sum(tower_oauth_requests_total{result=\"granted\"})";
    eventually("the caller is served", TIMEOUT, async || {
        prometheus.value(count).await > 10.0
    })
    .await;
    // Before the unknown kids of strangers, which use up the rate limit of on-demand refreshes.
    issuer.server.rotate().unwrap();
    let token = issuer.mint().sign();
    assert_eq!(get(&client, &hello, Some(&token)).await.0, 200);
    // Its counter appears with the first event. Only later ones are an increase.
    let refreshes = "sum(tower_oauth_key_set_refreshes_total{cause=\"unknown_key\"})";
    eventually("the refresh is scraped", TIMEOUT, async || {
        prometheus.value(refreshes).await > 0.0
    })
    .await;
    for _ in 0..2 {
        send_all_kinds(&client, &issuer, &base).await;
        // Until it has been scraped.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(prometheus.firing().await, BTreeMap::new());

    // The token endpoint fails while the caller needs another token, because its key is withdrawn.
    let outage = || Fault::Outage(None);
    issuer.server.fail(EndpointKind::Token, outage());
    issuer.replace_keys();
    let token = issuer.mint().sign();
    eventually("the new key is known", TIMEOUT, async || {
        get(&client, &hello, Some(&token)).await.0 == StatusCode::OK
    })
    .await;
    eventually("an alert for the client fires", TIMEOUT, async || {
        let firing = prometheus.firing().await;
        firing.contains_key("TowerOauthTokenRequestsFail")
    })
    .await;

    // The issuer fails for longer than the keys are trusted. The caller renews its token meanwhile.
    issuer.server.clear_faults();
    issuer.server.fail(EndpointKind::Keys, outage());
    issuer.server.fail(EndpointKind::Discovery, outage());
    let keys_unavailable = "TowerOauthKeysUnavailable";
    eventually("an alert for the keys fires", TIMEOUT, async || {
        get(&client, &hello, Some(&token)).await;
        prometheus.firing().await.contains_key(keys_unavailable)
    })
    .await;
    let firing = prometheus.firing().await;
    assert_eq!(
        firing[keys_unavailable],
        format!("No keys of {}", issuer.url())
    );
    assert_eq!(firing.len(), 2, "{firing:?}");

    // All is well again.
    issuer.server.clear_faults();
    eventually("the alert for the keys ends", TIMEOUT, async || {
        !prometheus.firing().await.contains_key(keys_unavailable)
    })
    .await;
    let renewed = "increase(tower_oauth_token_requests_total{outcome=\"success\"}[1m])";
    eventually("the caller has another token", TIMEOUT, async || {
        prometheus.value(renewed).await > 0.0
    })
    .await;

    // As Grafana has it for "All", and for all of the instances.
    let instances = instances(&prometheus).await;
    assert_eq!(
        BTreeSet::from_iter(&instances),
        BTreeSet::from([&orders, &caller_address])
    );
    let escaped = instances.iter().map(|one| one.replace('.', r"\."));
    let all = format!("({})", escaped.collect::<Vec<_>>().join("|"));
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (title, query) in queries() {
        for instance in [".*", &all] {
            let query = interpolate(&query, instance);
            let series = prometheus.query(&query).await;
            // The development server publishes no key that cannot be used.
            let is_zero = query.contains("skipped_keys");
            let has_data = |values: &Vec<f64>| values.iter().any(|value| is_zero || *value > 0.0);
            assert!(
                series.iter().any(|(_, values)| has_data(values)),
                "{title}: {query}: {series:?}"
            );
            for (labels, values) in &series {
                if has_data(values) {
                    let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
                    seen.entry(title.clone()).or_default().extend(labels);
                }
            }
        }
    }
    for (title, labels) in [
        (
            "Requests by result",
            &[
                "result=granted",
                "result=expired",
                "result=insufficient_scope",
                "result=invalid_audience",
                "result=invalid_signature",
                "result=keys_unavailable",
                "result=missing_token",
                "result=unknown_key",
            ][..],
        ),
        (
            "Refreshes by cause, outcome and error",
            &[
                "cause=timer",
                "cause=unknown_key",
                "outcome=success",
                "outcome=failure",
            ],
        ),
        ("Fetch duration", &["outcome=success", "outcome=failure"]),
        (
            "Token requests by manager and outcome",
            &["outcome=success", "outcome=failure"],
        ),
    ] {
        for label in labels {
            assert!(seen[title].contains(*label), "{title}: {label}: {seen:?}");
        }
    }
    assert_eq!(caller.try_wait().unwrap(), None, "the caller still runs");
}
