//! Grants, client authentications and token sources of an application. Time is paused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use secrecy::SecretString;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower_oauth::client::{
    BoxFuture, ClientAuthentication, Grant, NoAuthentication, TokenManagerBuilder, TokenRequest,
    TokenResponse, TokenSource,
};
use tower_oauth::error::{ConfigErrorKind, ErrorKind, Operation};
use tower_oauth::{
    Audience, ClientCredentials, ConfigError, Endpoint, Error, Issuer, Scope, TokenManager,
};

use crate::support::token_endpoint::{Reply, TokenEndpoint, TokioClock};

const AS: &str = "https://as.example";
const TOKEN_URL: &str = "https://as.example/token";

fn url() -> Endpoint {
    Endpoint::new(TOKEN_URL).unwrap()
}

fn metadata(token_endpoint: &str) -> Reply {
    Reply::Json(
        200,
        json!({ "issuer": AS, "token_endpoint": token_endpoint }),
    )
}

fn failed(kind: ErrorKind) -> Error {
    Error::new(Operation::TokenRequest, kind).with_source("the key service is down")
}

/// Signs an assertion for each request: its number and its audience.
#[derive(Clone, Debug, Default)]
struct Signer {
    signed: Arc<AtomicUsize>,
    /// The error of the next assertions.
    failure: Arc<Mutex<Option<ErrorKind>>>,
    debug: Arc<Mutex<String>>,
}

impl ClientAuthentication for Signer {
    fn authenticate<'a>(
        &'a self,
        request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let number = self.signed.fetch_add(1, Ordering::SeqCst);
            if let Some(kind) = *self.failure.lock().unwrap() {
                return Err(failed(kind));
            }
            let audience = request
                .issuer()
                .map_or_else(|| request.endpoint().as_str(), Issuer::as_str);
            let assertion = SecretString::from(format!("assertion-{number}-for-{audience}"));
            request.append_secret("client_assertion", &assertion);
            *self.debug.lock().unwrap() = format!("{request:?}");
            Ok(())
        })
    }
}

/// The JWT bearer grant, with a header that a gateway requires.
#[derive(Debug)]
struct JwtBearer;

impl Grant for JwtBearer {
    fn write<'a>(&'a self, request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>> {
        request.append("grant_type", "jwt-bearer");
        request.append_secret("assertion", &"granted/by+it".into());
        request.insert_header(
            header::AUTHORIZATION,
            HeaderValue::from_static("Gateway a-gateway-key=="),
        );
        request.insert_header(
            HeaderName::from_static("signature"),
            HeaderValue::from_static(
                r#"keyid="gateway", sig="c2lnbmF0dXJl", nonce=b25lLW5vbmNl, alg="hs""#,
            ),
        );
        Box::pin(async { Ok(()) })
    }
}

fn signing(endpoint: &TokenEndpoint, signer: &Signer) -> TokenManagerBuilder {
    TokenManager::builder(url(), signer.clone())
        .grant(JwtBearer)
        .transport(endpoint.clone())
        .clock(TokioClock::new())
}

#[tokio::test(start_paused = true)]
async fn grant_parameters_and_authentication_are_written_anew_for_each_attempt() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60)).then([Reply::Status(503, None)]);
    let tokens = signing(&endpoint, &Signer::default())
        .scope(Scope::new("orders.read").unwrap())
        .audience(Audience::new("orders").unwrap())
        .parameter("account", "7")
        .start()
        .unwrap();
    tokens.access_token().await.unwrap();
    let requests = endpoint.token_requests();
    assert_eq!(requests.len(), 2);
    for (number, request) in requests.iter().enumerate() {
        let field = request.authorization.as_deref();
        assert_eq!(field, Some("Gateway a-gateway-key=="));
        let assertion = format!("assertion-{number}-for-{TOKEN_URL}");
        let form: Vec<(&str, &str)> = request
            .form
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            form,
            [
                ("grant_type", "jwt-bearer"),
                ("assertion", "granted/by+it"),
                ("scope", "orders.read"),
                ("audience", "orders"),
                ("account", "7"),
                ("client_assertion", assertion.as_str()),
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_has_the_configured_issuer_and_the_discovered_endpoint() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60))
        .metadata(metadata("https://tokens.example/moved"));
    let signer = Signer::default();
    let tokens = TokenManager::for_issuer(Issuer::new(AS).unwrap(), signer.clone())
        .unwrap()
        .transport(endpoint.clone())
        .start()
        .unwrap();
    tokens.access_token().await.unwrap();
    let request = endpoint.token_requests().remove(0);
    assert_eq!(request.url, "https://tokens.example/moved");
    let assertion = format!("assertion-0-for-{AS}");
    assert!(
        request
            .form
            .contains(&("client_assertion".to_owned(), assertion)),
        "{:?}",
        request.form
    );
    assert!(signer.debug.lock().unwrap().contains("tokens.example"));
}

#[tokio::test(start_paused = true)]
async fn debug_output_of_a_request_has_names_and_no_values() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let signer = Signer::default();
    let tokens = signing(&endpoint, &signer).parameter("password", "pass-word");
    tokens.start().unwrap().access_token().await.unwrap();
    let debug = signer.debug.lock().unwrap().clone();
    for name in [
        "grant_type",
        "assertion",
        "password",
        "client_assertion",
        "authorization",
    ] {
        assert!(debug.contains(name), "{name} in {debug}");
    }
    for value in [
        "granted",
        "a-gateway-key",
        "pass-word",
        "jwt-bearer",
        "assertion-0",
    ] {
        assert!(!debug.contains(value), "{value} in {debug}");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_redact_the_secrets_of_grant_authentication_and_headers() {
    for quote in [
        "granted/by+it",
        "granted%2Fby%2Bit",
        "assertion-0-for-https://as.example/token",
        "a-gateway-key",
        "c2lnbmF0dXJl",
        "b25lLW5vbmNl",
    ] {
        let body = json!({ "error": "invalid_grant", "error_description": format!("<{quote}>") });
        let endpoint = TokenEndpoint::with_reply(Reply::Json(400, body));
        let tokens = signing(&endpoint, &Signer::default()).start().unwrap();
        let error = tokens.access_token().await.unwrap_err();
        let oauth = error.oauth_error().unwrap();
        assert!(
            oauth.description().unwrap().starts_with("<[redacted]"),
            "{quote}: {oauth:?}"
        );
        assert!(!format!("{error} {error:?}").contains(quote), "{error:?}");
    }
}

/// RFC 6749 §3.2
#[tokio::test(start_paused = true)]
async fn a_parameter_that_is_written_twice_is_an_error_and_nothing_is_sent() {
    /// With a parameter of its server.
    #[derive(Debug)]
    struct Ticket;

    impl Grant for Ticket {
        fn write<'a>(&'a self, request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>> {
            request.append("grant_type", "ticket");
            request.append_secret("ticket", &"one-ticket".into());
            Box::pin(async { Ok(()) })
        }
    }

    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let tokens = signing(&endpoint, &Signer::default())
        .grant(Ticket)
        .parameter("ticket", "another-one");
    let error = tokens.start().unwrap().access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let shown = format!("{error:?}");
    assert!(
        shown.contains("ticket") && !shown.contains("-one"),
        "{shown}"
    );
    assert_eq!(endpoint.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_authentication_sends_nothing_and_causes_no_discovery() {
    let endpoint =
        TokenEndpoint::with_reply(Reply::Token(60)).metadata(metadata("https://as.example/t"));
    let signer = Signer::default();
    let tokens = TokenManager::for_issuer(Issuer::new(AS).unwrap(), signer.clone())
        .unwrap()
        .transport(endpoint.clone())
        .clock(TokioClock::new())
        .start()
        .unwrap();
    tokens.access_token().await.unwrap();
    // A transient failure is retried.
    *signer.failure.lock().unwrap() = Some(ErrorKind::Transport);
    sleep(Duration::from_secs(100)).await;
    let signed = signer.signed.load(Ordering::SeqCst);
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(signer.signed.load(Ordering::SeqCst) > signed + 3);
    // Another one is not.
    *signer.failure.lock().unwrap() = Some(ErrorKind::Configuration);
    sleep(Duration::from_secs(60)).await;
    let signed = signer.signed.load(Ordering::SeqCst);
    tokens.access_token().await.unwrap_err();
    assert_eq!(signer.signed.load(Ordering::SeqCst), signed + 1);
    assert_eq!((endpoint.count(), endpoint.metadata_requests()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_authentication_that_hangs_is_a_timeout() {
    #[derive(Debug)]
    struct Hanging;

    impl ClientAuthentication for Hanging {
        fn authenticate<'a>(
            &'a self,
            _request: &'a mut TokenRequest,
        ) -> BoxFuture<'a, Result<(), Error>> {
            Box::pin(std::future::pending())
        }
    }

    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let source = TokenManager::builder(url(), Hanging)
        .transport(endpoint.clone())
        .request_timeout(Duration::from_secs(3))
        .build_source()
        .unwrap();
    let start = Instant::now();
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains("client authentication"),
        "{error}"
    );
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert_eq!(endpoint.count(), 0);
}

/// Wraps another source, as a shared store does, and counts its fetches.
#[derive(Clone, Debug)]
struct Counting {
    fetches: Arc<AtomicUsize>,
    source: Arc<dyn TokenSource>,
}

impl Counting {
    fn new(source: impl TokenSource) -> Self {
        Self {
            fetches: Arc::default(),
            source: Arc::new(source),
        }
    }

    fn count(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl TokenSource for Counting {
    fn fetch(&self) -> BoxFuture<'_, Result<TokenResponse, Error>> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.source.fetch()
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_wraps_a_token_endpoint_is_kept_fresh() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(300));
    let source = TokenManager::builder(url(), ClientCredentials::new("orders", "s3cret"))
        .transport(endpoint.clone())
        .build_source()
        .unwrap();
    let source = Counting::new(source);
    let tokens = TokenManager::from_source(source.clone())
        .clock(TokioClock::new())
        .start()
        .unwrap();
    let (first, second) = tokio::join!(tokens.access_token(), tokens.access_token());
    assert_eq!(
        first.unwrap().expose_secret(),
        second.unwrap().expose_secret()
    );
    assert_eq!(source.count(), 1, "one fetch for all");
    for _ in 0..1499 {
        tokens.access_token().await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert!((6..=7).contains(&source.count()), "{}", source.count());
    assert_eq!(source.count(), endpoint.count());
}

/// A source with scripted results; a token when the script has ended.
#[derive(Debug, Default)]
struct Scripted(Mutex<Vec<Step>>);

#[derive(Clone, Copy, Debug)]
enum Step {
    Fail(ErrorKind),
    Panic,
    PanicWhenPolled,
    Hang,
}

impl TokenSource for Scripted {
    fn fetch(&self) -> BoxFuture<'_, Result<TokenResponse, Error>> {
        let step = self.0.lock().unwrap().pop();
        if let Some(Step::Panic) = step {
            panic!("scripted");
        }
        Box::pin(async move {
            match step {
                None => Ok(TokenResponse::new("a-token")?
                    .with_expires_in(Duration::from_millis(60_900))
                    .with_scopes([Scope::new("orders.read").unwrap()])),
                Some(Step::Fail(kind)) => Err(failed(kind)),
                Some(Step::Panic | Step::PanicWhenPolled) => panic!("scripted"),
                Some(Step::Hang) => std::future::pending().await,
            }
        })
    }
}

fn scripted(steps: &[Step]) -> TokenManagerBuilder<Arc<dyn TokenSource>> {
    TokenManager::from_source(Scripted(Mutex::new(steps.to_vec()))).clock(TokioClock::new())
}

#[tokio::test(start_paused = true)]
async fn a_token_has_the_lifetime_and_the_scopes_of_its_source() {
    let clock = TokioClock::new();
    let tokens = scripted(&[]).clock(clock).start().unwrap();
    let token = tokens.access_token().await.unwrap();
    assert_eq!(token.expose_secret(), "a-token");
    assert_eq!(token.header_value(), "Bearer a-token");
    assert_eq!(token.expires_at().unwrap().as_secs(), 1_700_000_060);
    assert_eq!(token.scopes().unwrap(), ["orders.read"]);
}

#[tokio::test(start_paused = true)]
async fn the_kind_of_an_error_of_a_source_decides_whether_it_is_retried() {
    for kind in [
        ErrorKind::Transport,
        ErrorKind::Timeout,
        ErrorKind::Status(StatusCode::SERVICE_UNAVAILABLE),
        ErrorKind::Status(StatusCode::TOO_MANY_REQUESTS),
    ] {
        let tokens = scripted(&[Step::Fail(kind), Step::Fail(kind)])
            .start()
            .unwrap();
        assert!(tokens.access_token().await.is_ok(), "{kind}");
    }
    for kind in [
        ErrorKind::Configuration,
        ErrorKind::Malformed,
        ErrorKind::Refused,
        ErrorKind::Status(StatusCode::FORBIDDEN),
    ] {
        let tokens = scripted(&[Step::Fail(kind)]).start().unwrap();
        let error = tokens.access_token().await.unwrap_err();
        assert_eq!(error.kind(), kind);
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "the key service is down");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_source_is_an_error_and_the_renewer_goes_on() {
    for step in [Step::Panic, Step::PanicWhenPolled] {
        let tokens = scripted(&[step])
            .acquire_timeout(Duration::ZERO)
            .start()
            .unwrap();
        let error = tokens.access_token().await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        let tokens = scripted(&[step]).start().unwrap();
        assert_eq!(
            tokens.access_token().await.unwrap().expose_secret(),
            "a-token"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_cut_off_and_an_earlier_error_is_kept() {
    let start = Instant::now();
    let tokens = scripted(&[Step::Hang])
        .request_timeout(Duration::from_secs(2))
        .start()
        .unwrap();
    tokens.access_token().await.unwrap();
    let elapsed = start.elapsed();
    assert!((2..4).contains(&elapsed.as_secs()), "{elapsed:?}");

    // The last step is the first.
    let tokens = scripted(&[Step::Hang, Step::Fail(ErrorKind::Transport)])
        .acquire_timeout(Duration::from_secs(2))
        .start()
        .unwrap();
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_discovers_the_endpoint_once_and_redacts_the_token_before() {
    let quoted = json!({ "error": "invalid_scope", "error_description": "you have token-1" });
    let endpoint = TokenEndpoint::with_reply(Reply::Json(400, quoted))
        .then([Reply::Token(60)])
        .metadata(metadata("https://as.example/t"));
    let credentials = ClientCredentials::new("orders", "s3cret");
    let source = TokenManager::for_issuer(Issuer::new(AS).unwrap(), credentials)
        .unwrap()
        .transport(endpoint.clone())
        .build_source()
        .unwrap();
    let token = source.fetch().await.unwrap();
    assert_eq!(
        (token.expose_secret(), token.expires_in()),
        ("token-1", Some(Duration::from_secs(60)))
    );
    let error = source.fetch().await.unwrap_err();
    assert_eq!(
        error.oauth_error().unwrap().description(),
        Some("you have [redacted]")
    );
    assert_eq!(endpoint.metadata_requests(), 1);
    let shown = format!("{source:?} {token:?}");
    assert!(
        !shown.contains("s3cret") && !shown.contains("token-1"),
        "{shown}"
    );
}

#[test]
fn a_name_must_not_be_empty_and_settings_of_the_client_are_checked() {
    fn setting<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> (String, ConfigErrorKind) {
        let error = result.unwrap_err();
        (error.setting().to_owned(), error.kind())
    }

    #[derive(Debug)]
    struct Unusable;

    impl ClientAuthentication for Unusable {
        fn authenticate<'a>(
            &'a self,
            _request: &'a mut TokenRequest,
        ) -> BoxFuture<'a, Result<(), Error>> {
            Box::pin(async { Ok(()) })
        }

        fn check(&self) -> Result<(), ConfigError> {
            Err(ConfigError::without_value("key", "must be an RSA key"))
        }
    }

    let missing = |name: &str| (name.to_owned(), ConfigErrorKind::Missing);
    let empty_name = TokenManager::builder(url(), NoAuthentication).name("");
    assert_eq!(setting(empty_name.build()), missing("name"));
    assert_eq!(setting(scripted(&[]).name("").build()), missing("name"));
    let no_waiters = scripted(&[]).max_waiters(0).build();
    assert_eq!(
        setting(no_waiters),
        ("max_waiters".to_owned(), ConfigErrorKind::Invalid)
    );
    let no_secret = TokenManager::builder(url(), ClientCredentials::new("orders", ""));
    assert_eq!(setting(no_secret.build_source()), missing("client secret"));
    let unusable = TokenManager::builder(url(), Unusable).build();
    assert_eq!(
        setting(unusable),
        ("key".to_owned(), ConfigErrorKind::Invalid)
    );
}
