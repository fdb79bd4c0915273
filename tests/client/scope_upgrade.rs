//! A challenge of `insufficient_scope` may lead to a token with more scopes (RFC 6750).

use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use tower::{Layer as _, ServiceExt as _};
use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind};
use tower_oauth::client::TokenManagerBuilder;
use tower_oauth::resource_server::{Algorithm, ProtectedResource};
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{
    Audience, ClientCredentials, Endpoint, RequireScopeLayer, ResourceServer, TokenManager,
};

use crate::network::{Deployment, Network, RESOURCE, SECOND, scope};
use crate::support::token_endpoint::{Reply, TokenEndpoint, TokenRequest};

/// A resource server that requires scopes of each path, by the scopes that the token was requested
/// with. Its challenges are as given.
#[derive(Clone, Debug)]
struct Guarded {
    issuer: TokenEndpoint,
    /// The scopes that each path requires, and the fields of the challenge.
    rules: Arc<[(&'static str, &'static [&'static str], Vec<String>)]>,
    grpc_status: Option<&'static str>,
    /// The scopes of the token of each request, as they were requested.
    seen: Arc<Mutex<Vec<String>>>,
}

fn challenge(scopes: &str) -> Vec<String> {
    vec![format!(
        r#"Bearer realm="orders", error="insufficient_scope", scope="{scopes}""#
    )]
}

impl Guarded {
    fn new(issuer: &TokenEndpoint, rules: &[(&'static str, &'static [&'static str])]) -> Self {
        let rules = rules.iter();
        Self::with_challenges(
            issuer,
            rules.map(|&(path, scopes)| (path, scopes, challenge(&scopes.join(" ")))),
        )
    }

    /// With this challenge to each request whose token lacks one of these scopes.
    fn with_challenge(
        issuer: &TokenEndpoint,
        required: &'static [&'static str],
        fields: Vec<String>,
    ) -> Self {
        Self::with_challenges(issuer, [("/", required, fields)])
    }

    fn with_challenges(
        issuer: &TokenEndpoint,
        rules: impl IntoIterator<Item = (&'static str, &'static [&'static str], Vec<String>)>,
    ) -> Self {
        Self {
            issuer: issuer.clone(),
            rules: rules.into_iter().collect(),
            grpc_status: None,
            seen: Arc::default(),
        }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// The scope parameter of the request that this token was issued for.
    fn requested(&self, token: &str) -> String {
        let number = token.rsplit_once("token-").unwrap().1;
        let number: usize = number.parse().unwrap();
        let requests = self.issuer.token_requests();
        // The requests that were refused have no token.
        let mut issued = requests
            .iter()
            .filter(|request| !is_refused(&scope_of(request)));
        scope_of(issued.nth(number - 1).unwrap())
    }

    fn respond<B>(&self, request: &Request<B>) -> Response<String> {
        let token = request.headers()[header::AUTHORIZATION].to_str().unwrap();
        let scopes = self.requested(token);
        self.seen.lock().unwrap().push(scopes.clone());
        let held: Vec<&str> = scopes.split(' ').collect();
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.0 == request.uri().path());
        let Some((_, required, fields)) = rule else {
            return Response::new(scopes);
        };
        let grants = |scope: &&str| held.contains(scope) && !scope.starts_with("ignored");
        if required.iter().all(grants) {
            return Response::new(scopes);
        }
        let mut response = Response::new(String::new());
        match self.grpc_status {
            Some(status) => {
                response
                    .headers_mut()
                    .insert("grpc-status", status.parse().unwrap());
            }
            None => *response.status_mut() = StatusCode::FORBIDDEN,
        }
        for field in fields {
            let field = field.parse().unwrap();
            response
                .headers_mut()
                .append(header::WWW_AUTHENTICATE, field);
        }
        response
    }
}

impl<B> tower::Service<Request<B>> for Guarded {
    type Response = Response<String>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        std::future::ready(Ok(self.respond(&request)))
    }
}

fn scope_of(request: &TokenRequest) -> String {
    let scope = request.form.iter().find(|(name, _)| name == "scope");
    scope.map(|(_, value)| value.clone()).unwrap_or_default()
}

/// What the issuer of [`Guarded`] refuses.
fn is_refused(scopes: &str) -> bool {
    scopes.split(' ').any(|scope| scope.starts_with("refused"))
}

/// Replies by the scopes of the request: those that begin with `refused` are an error.
#[derive(Clone, Debug)]
struct ByScope {
    network: Network,
    refusal: Reply,
}

impl Transport for ByScope {
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        if request.uri().path() == "/token" && body.contains("refused") {
            let _ = self.network.issuer.clone().then([self.refusal.clone()]);
        }
        self.network.send(request, max_body)
    }
}

fn refusing(network: &Network) -> ByScope {
    ByScope {
        network: network.clone(),
        refusal: Reply::Json(400, json!({ "error": "invalid_scope" })),
    }
}

async fn status<S>(client: &S, path: &str) -> StatusCode
where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<String>, Error: std::fmt::Debug>
        + Clone,
{
    let uri = format!("https://api.example{path}");
    let request = Request::get(uri).body(Full::default()).unwrap();
    client.clone().oneshot(request).await.unwrap().status()
}

fn origin() -> [Endpoint; 1] {
    [Endpoint::new(RESOURCE).unwrap()]
}

#[tokio::test(start_paused = true)]
async fn a_challenge_of_insufficient_scope_leads_to_one_token_with_the_union_that_serves_all() {
    let network = Network::confirming();
    let tokens = network.builder().scope(scope("read")).start().unwrap();
    let rules: &[(&str, &[&str])] = &[
        ("/write", &["read", "write"]),
        ("/admin", &["admin"]),
        ("/none", &[]),
    ];
    let orders = Guarded::new(&network.issuer, rules);
    let client = tokens.layer(origin()).layer(orders.clone());
    for path in [
        "/none", "/write", "/none", "/write", "/admin", "/write", "/none",
    ] {
        assert_eq!(status(&client, path).await, StatusCode::OK, "{path}");
    }
    let all = "read write admin";
    let expected = [
        "read",
        "read",
        "read write",
        "read write",
        "read write",
        "read write",
        all,
        all,
        all,
    ];
    assert_eq!(orders.seen(), expected);
    assert_eq!(network.issuer.count(), 3);
    // The scopes are kept when the token is renewed.
    tokio::time::sleep(3700 * SECOND).await;
    assert_eq!(status(&client, "/admin").await, StatusCode::OK);
    let requests = network.issuer.token_requests();
    assert!(requests.len() > 3 && scope_of(requests.last().unwrap()) == all);
}

#[tokio::test(start_paused = true)]
async fn concurrent_calls_share_the_token_requests_for_more_scopes() {
    let network = Network::confirming();
    let _ = network.issuer.clone().delay(SECOND / 10);
    let tokens = network.builder().scope(scope("read")).start().unwrap();
    let rules: &[(&str, &[&str])] = &[("/a", &["a"]), ("/b", &["b"])];
    let orders = Guarded::new(&network.issuer, rules);
    let client = tokens.layer(origin()).layer(orders);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let client = client.clone();
        let path = if number % 2 == 0 { "/a" } else { "/b" };
        calls.spawn(async move { status(&client, path).await });
    }
    for status in calls.join_all().await {
        assert_eq!(status, StatusCode::OK);
    }
    assert_eq!(
        network.issuer.count(),
        3,
        "one for all, and one for each union"
    );
    assert_eq!(network.issuer.max_in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn scopes_that_are_never_granted_cost_one_token_request_across_calls() {
    // The server grants less than was requested, and says so or not.
    let network = Network::confirming();
    let tokens = network.builder().scope(scope("read")).start().unwrap();
    let rules: &[(&str, &[&str])] = &[("/x", &["ignored"]), ("/y", &["refused"])];
    let orders = Guarded::new(&network.issuer, rules);
    let client = tokens.layer(origin()).layer(orders.clone());
    for _ in 0..50 {
        assert_eq!(status(&client, "/x").await, StatusCode::FORBIDDEN);
    }
    assert_eq!(network.issuer.count(), 2);
    assert_eq!(orders.seen().len(), 51, "one retry");

    // The server refuses the request.
    let network = Network::confirming();
    let transport = refusing(&network);
    let builder = network.builder().scope(scope("read")).transport(transport);
    let tokens = builder.start().unwrap();
    let orders = Guarded::new(&network.issuer, rules);
    let client = tokens.layer(origin()).layer(orders.clone());
    for _ in 0..50 {
        assert_eq!(status(&client, "/y").await, StatusCode::FORBIDDEN);
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(network.issuer.count(), 2);
    assert_eq!(
        orders.seen(),
        ["read"; 50],
        "the token that is held serves on"
    );
    tokio::time::sleep(300 * SECOND).await;
    status(&client, "/y").await;
    assert_eq!(network.issuer.count(), 3, "it may be granted by now");
}

#[tokio::test(start_paused = true)]
async fn ever_new_scopes_cost_few_token_requests() {
    let call = async |network: &Network, tokens: &TokenManager, scopes: String| {
        let orders = Guarded::with_challenge(&network.issuer, &["never"], challenge(&scopes));
        let client = tokens.layer(origin()).layer(orders);
        assert_eq!(status(&client, "/").await, StatusCode::FORBIDDEN);
    };
    let network = Network::confirming();
    let transport = refusing(&network);
    let tokens = network.builder().transport(transport).start().unwrap();
    for index in 0..100 {
        call(&network, &tokens, format!("refused{index}")).await;
    }
    assert_eq!(
        network.issuer.count(),
        2,
        "a refusal is followed by a pause"
    );
    // The server grants all of them.
    let network = Network::confirming();
    let tokens = network.builder().start().unwrap();
    for index in 0..100 {
        call(&network, &tokens, format!("x{index}")).await;
    }
    assert_eq!(network.issuer.count(), 33, "at most 32 scopes are added");
}

#[tokio::test(start_paused = true)]
async fn only_a_bearer_challenge_with_few_scope_tokens_leads_to_a_token() {
    let long = "s".repeat(257);
    let many = (0..33)
        .map(|n| format!("s{n}"))
        .collect::<Vec<_>>()
        .join(" ");
    let two = |first: &str| vec![format!("{first}, {}", challenge("write")[0])];
    for (fields, leads) in [
        (challenge("write"), true),
        (challenge(" read  write "), true),
        (
            vec!["bearer Error = insufficient_scope , SCOPE=write".to_owned()],
            true,
        ),
        // Two challenges, of which the second has what is sought.
        (two(r#"Basic realm="x""#), true),
        (
            two(r#"DPoP error="insufficient_scope", scope="other""#),
            true,
        ),
        (two(r#"Bearer realm="x""#), true),
        (two("Negotiate YII+="), true),
        (
            vec!["Bearer".to_owned(), challenge("write")[0].clone()],
            true,
        ),
        // No such challenge.
        (vec![], false),
        (vec!["Bearer".to_owned()], false),
        (
            vec![r#"Bearer error="insufficient_scope""#.to_owned()],
            false,
        ),
        (vec![r#"Bearer scope="write""#.to_owned()], false),
        (
            vec![r#"Bearer error="invalid_token", scope="write""#.to_owned()],
            false,
        ),
        (
            vec![r#"DPoP error="insufficient_scope", scope="write""#.to_owned()],
            false,
        ),
        (
            vec![r#"Basic realm="Bearer error=insufficient_scope, scope=write""#.to_owned()],
            false,
        ),
        // No scope tokens, or too much of them.
        (challenge(""), false),
        (challenge("  "), false),
        (challenge("read"), false),
        (challenge("write \t"), false),
        (challenge(r#"write \"x\""#), false),
        (challenge(r"write a\\b"), false),
        (challenge("write \u{e9}"), false),
        (challenge(&long), false),
        (challenge(&format!("write {many}")), false),
    ] {
        for grpc_status in [None, Some("7")] {
            let network = Network::confirming();
            let tokens = network.builder().scope(scope("read")).start().unwrap();
            let mut orders = Guarded::with_challenge(&network.issuer, &["write"], fields.clone());
            orders.grpc_status = grpc_status;
            let client = tokens.layer(origin()).layer(orders.clone());
            status(&client, "/").await;
            let expected = if leads {
                vec!["read", "read write"]
            } else {
                vec!["read"]
            };
            assert_eq!(orders.seen(), expected, "{fields:?}");
            assert_eq!(network.issuer.count(), expected.len(), "{fields:?}");
        }
    }
    // Other codes of gRPC are no 403.
    for grpc_status in ["0", "14", "16"] {
        let network = Network::confirming();
        let tokens = network.builder().scope(scope("read")).start().unwrap();
        let mut orders = Guarded::new(&network.issuer, &[("/", &["write"])]);
        orders.grpc_status = Some(grpc_status);
        let client = tokens.layer(origin()).layer(orders.clone());
        status(&client, "/").await;
        assert_eq!(orders.seen(), ["read"], "grpc-status {grpc_status}");
    }
}

#[tokio::test(start_paused = true)]
async fn resource_metadata_of_a_challenge_is_not_followed() {
    let network = Network::confirming();
    let tokens = network.builder().scope(scope("read")).start().unwrap();
    tokens.access_token().await.unwrap();
    let known = network.urls();
    let address = "http://169.254.169.254/.well-known/oauth-protected-resource";
    let orders = tower::service_fn(async |request: Request<Full<Bytes>>| {
        let mut response = Response::new(String::new());
        let (status, error) = match request.uri().path() {
            "/401" => (StatusCode::UNAUTHORIZED, "invalid_token"),
            _ => (StatusCode::FORBIDDEN, "insufficient_scope"),
        };
        *response.status_mut() = status;
        let field =
            format!(r#"Bearer error="{error}", scope="write", resource_metadata="{address}""#);
        let field = field.parse().unwrap();
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, field);
        Ok::<_, std::convert::Infallible>(response)
    });
    let client = tokens.layer(origin()).layer(orders);
    assert_eq!(status(&client, "/401").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&client, "/403").await, StatusCode::FORBIDDEN);
    let urls = network.urls();
    assert_eq!(network.issuer.count(), 3);
    assert!(urls.iter().all(|url| known.contains(url)), "{urls:?}");
}

#[tokio::test(start_paused = true)]
async fn which_scopes_a_challenge_may_add_follows_from_the_settings() {
    type Change = fn(TokenManagerBuilder) -> TokenManagerBuilder;
    let unchanged: Change = |builder| builder;
    let elsewhere = "https://elsewhere.example";
    let for_resource = |network: &Network| network.builder();
    let fixed = |network: &Network| {
        let endpoint = Endpoint::new("https://as.example/token").unwrap();
        TokenManager::builder(endpoint, ClientCredentials::new("shop", "secret"))
            .transport(network.clone())
    };
    let origins = |others: &[&str]| -> Vec<Endpoint> {
        let all = [RESOURCE].into_iter().chain(others.iter().copied());
        all.map(|url| Endpoint::new(url).unwrap()).collect()
    };
    for (is_for_resource, change, origins, adds) in [
        (true, unchanged, origins(&[]), true),
        (true, |b| b.omit_resource(), origins(&[]), false),
        // The token is for another resource, too.
        (
            true,
            |b| b.resource("https://bills.example"),
            origins(&[]),
            false,
        ),
        (
            true,
            |b| b.audience(Audience::new("bills").unwrap()),
            origins(&[]),
            false,
        ),
        (
            true,
            |b| b.parameter("organization", "bills"),
            origins(&[]),
            false,
        ),
        (true, |b| b.step_up_scopes([]), origins(&[]), false),
        (
            true,
            |b| b.step_up_scopes([scope("other")]),
            origins(&[]),
            false,
        ),
        (
            true,
            |b| b.step_up_scopes([scope("other"), scope("write")]),
            origins(&[]),
            true,
        ),
        // The token of this resource goes to another origin as well.
        (true, unchanged, origins(&[elsewhere]), false),
        (
            true,
            |b| b.step_up_scopes([scope("write")]),
            origins(&[elsewhere]),
            true,
        ),
        (false, unchanged, origins(&[]), false),
        (
            false,
            |b| b.step_up_scopes([scope("write")]),
            origins(&[]),
            true,
        ),
        (
            false,
            |b| b.step_up_scopes([scope("other")]),
            origins(&[]),
            false,
        ),
    ] {
        let network = Network::confirming();
        let builder = if is_for_resource {
            for_resource(&network)
        } else {
            fixed(&network)
        };
        let tokens = change(builder.scope(scope("read"))).start().unwrap();
        let orders = Guarded::new(&network.issuer, &[("/", &["read", "write"])]);
        let client = tokens.layer(origins.clone()).layer(orders);
        let expected = if adds {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(
            status(&client, "/").await,
            expected,
            "{is_for_resource} {origins:?}"
        );
        assert_eq!(network.issuer.count(), if adds { 2 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_retried_gets_its_403_and_the_next_one_the_wider_token() {
    let network = Network::confirming();
    let tokens = network.builder().scope(scope("read")).start().unwrap();
    let orders = Guarded::new(&network.issuer, &[("/", &["write"])]);
    let client = tokens.layer(origin()).layer(orders.clone());
    let post = || {
        Request::post("https://api.example/")
            .body(Full::<Bytes>::from("order"))
            .unwrap()
    };
    let response = client.clone().oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    tokio::time::sleep(SECOND).await;
    let response = client.oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(orders.seen(), ["read", "read write"]);
    // With a body that is cloned, it is sent again.
    let network = Network::confirming();
    let tokens = network.builder().scope(scope("read")).start().unwrap();
    let orders = Guarded::new(&network.issuer, &[("/", &["write"])]);
    let client = tokens
        .layer(origin())
        .retry_with_cloned_body()
        .layer(orders);
    let response = client.oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_causes_one_token_request_for_more_scopes_and_one_retry() {
    let network = Network::confirming();
    let tokens = network.builder().scope(scope("read")).start().unwrap();
    // A server that names the scopes one after the other.
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let orders = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let token = request.headers()[header::AUTHORIZATION].clone();
        let token = token
            .to_str()
            .unwrap()
            .rsplit_once('.')
            .unwrap()
            .1
            .to_owned();
        let mut response = Response::new(String::new());
        let missing = match token.as_str() {
            "token-1" => Some("a"),
            "token-2" => Some("b"),
            _ => None,
        };
        if let Some(missing) = missing {
            *response.status_mut() = StatusCode::FORBIDDEN;
            let field = challenge(missing)[0].parse().unwrap();
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, field);
        }
        seen.lock().unwrap().push(token);
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let client = tokens.layer(origin()).layer(orders);
    assert_eq!(status(&client, "/").await, StatusCode::FORBIDDEN);
    tokio::time::sleep(SECOND).await;
    assert_eq!(*calls.lock().unwrap(), ["token-1", "token-2"]);
    assert_eq!(network.sent("scope").concat(), ["read", "read a"]);
    // The next request goes on from there.
    assert_eq!(status(&client, "/").await, StatusCode::OK);
    assert_eq!(
        *calls.lock().unwrap(),
        ["token-1", "token-2", "token-2", "token-3"]
    );
    assert_eq!(
        network.sent("scope").concat(),
        ["read", "read a", "read a b"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_for_more_scopes_does_not_disturb_the_renewals() {
    let unauthorized = Reply::Json(401, json!({ "error": "invalid_client" }));
    for refusal in [
        Reply::Json(400, json!({ "error": "invalid_scope" })),
        Reply::Status(503, Some("120")),
        Reply::Unreachable,
        Reply::Hang,
        unauthorized,
    ] {
        let network = Network::confirming();
        let transport = ByScope {
            network: network.clone(),
            refusal: refusal.clone(),
        };
        let builder = network.builder().scope(scope("read")).transport(transport);
        let tokens = builder.start().unwrap();
        let orders = Guarded::new(&network.issuer, &[("/x", &["refused"])]);
        let client = tokens.layer(origin()).layer(orders.clone());
        let started = tokio::time::Instant::now();
        assert_eq!(
            status(&client, "/x").await,
            StatusCode::FORBIDDEN,
            "{refusal:?}"
        );
        assert!(started.elapsed() <= 6 * SECOND, "{refusal:?}");
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(network.issuer.count(), 2, "it is not retried: {refusal:?}");
        for _ in 0..3 {
            tokio::time::sleep(3500 * SECOND).await;
            assert_eq!(status(&client, "/").await, StatusCode::OK, "{refusal:?}");
        }
        let scopes = network.sent("scope").concat();
        assert_eq!(scopes.iter().filter(|scopes| is_refused(scopes)).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_other_scopes_wait_ten_seconds_and_refused_ones_five_minutes() {
    let invalid_scope = Reply::Json(400, json!({ "error": "invalid_scope" }));
    for (failure, again_after) in [
        (invalid_scope, 300),
        (Reply::Unreachable, 10),
        (Reply::Status(503, Some("120")), 10),
    ] {
        for (path, scopes, after) in [("/b", "read b", 10), ("/a", "read a", again_after)] {
            let network = Network::confirming();
            let tokens = network.builder().scope(scope("read")).start().unwrap();
            let rules: &[(&str, &[&str])] = &[("/a", &["a"]), ("/b", &["b"])];
            let orders = Guarded::new(&network.issuer, rules);
            let client = tokens.layer(origin()).layer(orders);
            assert_eq!(status(&client, "/").await, StatusCode::OK);
            let _ = network.issuer.clone().then([failure.clone()]);
            assert_eq!(status(&client, "/a").await, StatusCode::FORBIDDEN);
            assert_eq!(network.sent("scope").concat(), ["read", "read a"]);
            // The next token of the endpoint is the third one that was requested.
            network.issuer.count_as_issued();
            let failed = tokio::time::Instant::now();
            for second in 0..after {
                let case = format!("{failure:?}: {path} after {second} s");
                assert_eq!(status(&client, path).await, StatusCode::FORBIDDEN, "{case}");
                assert_eq!(network.issuer.count(), 2, "{case}");
                tokio::time::sleep_until(failed + (second + 1) * SECOND).await;
            }
            assert_eq!(status(&client, path).await, StatusCode::OK, "{failure:?}");
            let requested = network.sent("scope").concat();
            assert_eq!(requested, ["read", "read a", scopes], "{failure:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn added_scopes_that_are_withdrawn_are_left_out_of_the_next_renewal() {
    for (code, is_left_out) in [
        ("invalid_scope", true),
        ("access_denied", true),
        ("invalid_target", false),
    ] {
        let network = Network::confirming();
        network.issuer.set_reply(Reply::Token(100));
        let tokens = network.builder().scope(scope("read")).start().unwrap();
        let orders = Guarded::new(&network.issuer, &[("/", &["write"])]);
        let client = tokens.layer(origin()).layer(orders.clone());
        assert_eq!(status(&client, "/").await, StatusCode::OK);
        // The right to write ends.
        tokio::time::sleep(200 * SECOND).await;
        let renewals = network.issuer.count();
        let refusal = Reply::Json(400, json!({ "error": code }));
        let _ = network.issuer.clone().then([refusal]);
        let token = tokens.access_token().await;
        let scopes = network.sent("scope").concat().split_off(renewals);
        if is_left_out {
            token.unwrap();
            assert_eq!(scopes, ["read write", "read"], "{code}");
        } else {
            token.unwrap_err();
            assert_eq!(scopes, ["read write"], "{code}");
        }
    }
}

/// Else a resource could have the client get a token for another one, and use it there.
#[tokio::test(start_paused = true)]
async fn a_wider_token_that_is_not_for_the_resource_alone_is_not_used() {
    let other = "https://bills.example";
    for (audience, is_used) in [
        (json!(RESOURCE), true),
        (json!([RESOURCE]), true),
        (json!(other), false),
        (json!([RESOURCE, other]), false),
        (json!(null), false),
    ] {
        for (lists_scopes, is_used) in [(false, is_used), (true, true)] {
            let mut network = Network::confirming();
            network.audience = audience.clone();
            let mut builder = network.builder().scope(scope("read"));
            if lists_scopes {
                builder = builder.step_up_scopes([scope("write")]);
            }
            let tokens = builder.start().unwrap();
            let orders = Guarded::new(&network.issuer, &[("/", &["write"])]);
            let client = tokens.layer(origin()).layer(orders.clone());
            let case = format!("{audience} {lists_scopes}");
            let expected = match is_used {
                true => StatusCode::OK,
                false => StatusCode::FORBIDDEN,
            };
            assert_eq!(status(&client, "/").await, expected, "{case}");
            assert_eq!(network.issuer.count(), 2, "{case}");
            if !is_used {
                // The old token stays, and the scopes rest.
                assert_eq!(status(&client, "/").await, StatusCode::FORBIDDEN, "{case}");
                assert_eq!(status(&client, "/other").await, StatusCode::OK, "{case}");
                assert_eq!(orders.seen(), ["read", "read", "read"], "{case}");
                assert_eq!(network.issuer.count(), 2, "{case}");
            }
        }
    }
}

/// A refusal of the client delays requests for more scopes as it delays renewals.
#[tokio::test(start_paused = true)]
async fn no_scopes_are_requested_within_thirty_seconds_of_a_refused_renewal() {
    let network = Network::confirming();
    network.issuer.set_reply(Reply::Token(100));
    let builder = network.builder().scope(scope("read"));
    let tokens = builder.start().unwrap();
    let orders = Guarded::new(&network.issuer, &[("/a", &["a"]), ("/b", &["b"])]);
    let client = tokens.layer(origin()).layer(orders.clone());
    assert_eq!(status(&client, "/").await, StatusCode::OK);
    let refusal = Reply::Json(401, json!({ "error": "invalid_client" }));
    network.issuer.set_reply(refusal);
    // Until the renewal is refused.
    while network.issuer.count() < 2 {
        tokio::time::sleep(SECOND).await;
        assert_eq!(status(&client, "/").await, StatusCode::OK);
    }
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(status(&client, "/a").await, StatusCode::FORBIDDEN);
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(status(&client, "/b").await, StatusCode::FORBIDDEN);
    assert_eq!(network.issuer.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn scopes_that_the_server_has_chosen_are_part_of_the_union() {
    let network = Network::confirming();
    let token = json!({
        "access_token": "token-1",
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "read profile",
    });
    let _ = network.issuer.clone().then([Reply::Json(200, token)]);
    network.issuer.count_as_issued();
    let tokens = network.builder().start().unwrap();
    let orders = Guarded::new(&network.issuer, &[("/", &["read", "write"])]);
    let client = tokens.layer(origin()).layer(orders.clone());
    assert_eq!(status(&client, "/").await, StatusCode::OK);
    assert_eq!(orders.seen(), ["", "read profile write"]);
}

#[tokio::test(start_paused = true)]
async fn a_resource_server_of_this_crate_gets_a_token_with_the_scopes_of_the_route() {
    let issuer = AuthorizationServer::builder()
        .algorithm(Algorithm::Es256)
        .build()
        .unwrap();
    let shop = issuer.register("shop").unwrap();
    shop.set_scopes(["orders.read", "orders.write"]).unwrap();
    let resource = ProtectedResource::new(RESOURCE).unwrap();
    let server = ResourceServer::for_resource(resource, issuer.issuer())
        .transport(issuer.transport())
        .start()
        .await
        .unwrap();
    let network = Deployment {
        issuer: issuer.clone(),
        metadata: server.resource_metadata().cloned(),
    };
    let tokens = TokenManager::for_resource(RESOURCE, issuer.issuer(), shop.credentials())
        .scope(scope("orders.read"))
        .transport(network)
        .start()
        .unwrap();
    let orders = tower::service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let require = RequireScopeLayer::all(["orders.read", "orders.write"]);
    let orders = server.layer().layer(require.layer(orders));
    let client = tokens.layer(origin()).layer(orders);
    for _ in 0..2 {
        let request = Request::get(format!("{RESOURCE}/1"))
            .body(Full::default())
            .unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(issuer.requests(EndpointKind::Token), 2);
    // A scope that is not assigned.
    let require = RequireScopeLayer::all(["orders.admin"]);
    let nothing = tower::service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let client = tokens
        .layer(origin())
        .layer(server.layer().layer(require.layer(nothing)));
    for _ in 0..5 {
        let request = Request::get(format!("{RESOURCE}/1"))
            .body(Full::default())
            .unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(issuer.requests(EndpointKind::Token), 3);
}
