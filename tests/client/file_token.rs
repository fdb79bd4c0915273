//! Tokens in files that are replaced while the client runs. Time is paused.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_oauth::client::{FileToken, TokenManagerBuilder, TokenSource};
use tower_oauth::clock::Clock as _;
use tower_oauth::error::ErrorKind;
use tower_oauth::{Endpoint, Error, TokenManager};

use crate::support::jwt::{decode, unsigned};
use crate::support::mount::Mount;
use crate::support::token_endpoint::{TokioClock, sleep_seconds};

/// The only file of a mount.
struct TokenFile(Mount);

impl TokenFile {
    fn missing() -> Self {
        Self(Mount::new())
    }

    fn with(content: &str) -> Self {
        let file = Self::missing();
        file.replace(content);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path("token")
    }

    fn replace(&self, content: impl AsRef<[u8]>) {
        self.0.write(&[("token", content)]);
    }

    fn remove(&self) {
        fs::remove_file(self.path()).unwrap();
    }

    fn source(&self, clock: TokioClock) -> FileToken {
        FileToken::new(self.path()).clock(clock)
    }

    fn builder(&self, clock: TokioClock) -> TokenManagerBuilder<Arc<dyn TokenSource>> {
        TokenManager::from_source(self.source(clock)).clock(clock)
    }
}

fn jwt(name: &str, exp: u64) -> String {
    unsigned(&json!({ "sub": name, "exp": exp }))
}

/// The `exp` of a JWT.
fn exp(token: &str) -> u64 {
    decode(token).1["exp"].as_u64().unwrap()
}

fn message(error: &Error) -> String {
    let source = std::error::Error::source(error).unwrap();
    source.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_token_file_that_rotates_each_second_under_load_fails_no_call_and_sends_no_expired_token()
{
    let clock = TokioClock::new();
    let token_of = move |n: u64| jwt(&format!("token {n}"), clock.now().as_secs() + 3);
    let file = Arc::new(TokenFile::with(&token_of(0)));
    let tokens = file.builder(clock).start().unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let received = Arc::clone(&sent);
    let server = service_fn(move |request: Request<String>| {
        let field = request.headers()["authorization"].to_str().unwrap();
        let token = field.strip_prefix("Bearer ").unwrap().to_owned();
        assert!(clock.now().as_secs() < exp(&token), "an expired token");
        received.lock().unwrap().push(token);
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(())))
    });
    let origin = Endpoint::new("https://orders.example").unwrap();
    let client = tokens.layer([origin]).layer(server);
    let rotation = {
        let file = Arc::clone(&file);
        tokio::spawn(async move {
            for n in 1_u64.. {
                sleep_seconds(1).await;
                file.replace(token_of(n));
            }
        })
    };
    let calls = (0..20).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(number)).await;
            for _ in 0..600 {
                let request = Request::get("https://orders.example/")
                    .body(String::new())
                    .unwrap();
                let response = client.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                sleep(Duration::from_millis(97)).await;
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    rotation.abort();
    let mut different = sent.lock().unwrap().clone();
    assert_eq!(different.len(), 20 * 600);
    different.sort_unstable();
    different.dedup();
    assert!(different.len() > 20, "{} tokens", different.len());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_appears_after_the_start_is_read() {
    let clock = TokioClock::new();
    let file = TokenFile::missing();
    let tokens = file.builder(clock).start().unwrap();
    let write = async {
        sleep_seconds(20).await;
        file.replace("a-token\n");
    };
    let (token, ()) = tokio::join!(tokens.access_token(), write);
    assert_eq!(token.unwrap().expose_secret(), "a-token");
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_file_that_stays_missing_names_the_path() {
    let file = TokenFile::missing();
    let tokens = file.builder(TokioClock::new()).start().unwrap();
    let start = Instant::now();
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials);
    let path = file.path().display().to_string();
    assert!(message(&error).contains(&path), "{error:?}");
    let waited = start.elapsed().as_secs();
    assert!((20..=40).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_not_sent_and_its_successor_is() {
    let clock = TokioClock::new();
    let now = clock.now().as_secs();
    let file = TokenFile::with(&jwt("dead", now - 7));
    let error = file.source(clock).fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials);
    let path = file.path().display().to_string();
    assert_eq!(
        error.to_string(),
        format!(
            "token request failed: the client's credentials cannot be read: the token in {path} \
             expired 7 s ago: it was not replaced, or the clock of this client is ahead"
        )
    );
    // It expires at its `exp`.
    file.replace(jwt("dead", now));
    let error = file.source(clock).fetch().await.unwrap_err();
    assert!(error.to_string().contains("expired 0 s ago"), "{error:?}");
    let tokens = file.builder(clock).start().unwrap();
    let write = async {
        sleep_seconds(5).await;
        file.replace(jwt("alive", now + 3600));
    };
    let (token, ()) = tokio::join!(tokens.access_token(), write);
    let token = token.unwrap();
    assert_eq!(token.expose_secret(), jwt("alive", now + 3600));
    assert_eq!(token.expires_at().unwrap().as_secs(), now + 3600);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_used_until_its_exp_while_the_file_cannot_be_read() {
    let clock = TokioClock::new();
    let now = clock.now().as_secs();
    let file = TokenFile::with(&jwt("last", now + 3600));
    let tokens = file.builder(clock).start().unwrap();
    tokens.access_token().await.unwrap();
    file.remove();
    for _ in 0..3580 {
        sleep_seconds(1).await;
        let token = tokens.access_token().await.unwrap();
        assert_eq!(token.expose_secret(), jwt("last", now + 3600));
    }
    sleep_seconds(20).await;
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_again_each_minute_while_its_token_is_used() {
    let clock = TokioClock::new();
    let hour = clock.now().as_secs() + 3600;
    for (first, second) in [
        ("first".to_owned(), "second".to_owned()),
        (jwt("first", hour), jwt("second", hour)),
    ] {
        let file = TokenFile::with(&first);
        let tokens = file.builder(clock).start().unwrap();
        let token = async || {
            tokens
                .access_token()
                .await
                .unwrap()
                .expose_secret()
                .to_owned()
        };
        assert_eq!(token().await, first);
        file.replace(&second);
        sleep_seconds(59).await;
        assert_eq!(token().await, first);
        sleep_seconds(2).await;
        assert_eq!(token().await, second);
        // Nothing is read while nobody calls, and the first call afterwards has it read.
        file.replace(&first);
        sleep_seconds(200).await;
        let _ = token().await;
        sleep_seconds(1).await;
        assert_eq!(token().await, first);
    }
    let file = TokenFile::with("first");
    let source = file.source(clock).renew_after(Duration::ZERO);
    let tokens = TokenManager::from_source(source).clock(clock);
    let tokens = tokens.start().unwrap();
    tokens.access_token().await.unwrap();
    file.replace("second");
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(
        tokens.access_token().await.unwrap().expose_secret(),
        "second"
    );
}

/// Rejects all tokens but one, and counts the requests.
#[derive(Clone)]
struct Orders {
    accepted: Arc<Mutex<&'static str>>,
    requests: Arc<AtomicUsize>,
}

impl Orders {
    fn accepting(token: &'static str) -> Self {
        Self {
            accepted: Arc::new(Mutex::new(token)),
            requests: Arc::default(),
        }
    }

    fn respond(&self, request: &Request<String>) -> Response<()> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let expected = format!("Bearer {}", self.accepted.lock().unwrap());
        let field = request.headers().get("authorization");
        if field.is_some_and(|field| *field == expected) {
            return Response::new(());
        }
        let challenge = r#"Bearer error="invalid_token""#;
        let response = Response::builder().header("www-authenticate", challenge);
        response.status(401).body(()).unwrap()
    }

    /// Sends a request through the layer of this manager. Returns the status and the number of
    /// requests that arrived.
    async fn call(&self, tokens: &TokenManager, url: &str) -> (StatusCode, usize) {
        let orders = self.clone();
        let server = service_fn(move |request: Request<String>| {
            let response = orders.respond(&request);
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        });
        let origin = Endpoint::new("https://orders.example").unwrap();
        let client = tokens.layer([origin]).layer(server);
        let request = Request::get(url).body(String::new()).unwrap();
        let status = client.oneshot(request).await.unwrap().status();
        (status, self.requests.swap(0, Ordering::SeqCst))
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_read_again_and_sent_again_only_if_it_is_another_one() {
    const URL: &str = "https://orders.example/";
    let file = TokenFile::with("first");
    let tokens = file.builder(TokioClock::new()).start().unwrap();
    let orders = Orders::accepting("first");
    assert_eq!(orders.call(&tokens, URL).await, (StatusCode::OK, 1));
    // The resource server has withdrawn it, and the file has its successor.
    *orders.accepted.lock().unwrap() = "second";
    file.replace("second");
    assert_eq!(orders.call(&tokens, URL).await, (StatusCode::OK, 2));
    // The file has no other token: a second request would be in vain.
    *orders.accepted.lock().unwrap() = "third";
    sleep_seconds(11).await;
    let start = Instant::now();
    assert_eq!(
        orders.call(&tokens, URL).await,
        (StatusCode::UNAUTHORIZED, 1)
    );
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "nothing to wait for"
    );
    // It has one now.
    file.replace("third");
    sleep_seconds(11).await;
    assert_eq!(orders.call(&tokens, URL).await, (StatusCode::OK, 2));
}

#[tokio::test(start_paused = true)]
async fn a_file_token_is_sent_to_no_other_origin() {
    let file = TokenFile::with("a-token");
    let tokens = file.builder(TokioClock::new()).start().unwrap();
    let orders = Orders::accepting("a-token");
    for (url, status) in [
        ("https://orders.example/", StatusCode::OK),
        ("https://orders.example:8443/", StatusCode::UNAUTHORIZED),
        ("http://orders.example/", StatusCode::UNAUTHORIZED),
        ("https://bills.example/", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(orders.call(&tokens, url).await, (status, 1), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_one_line_of_visible_ascii_of_at_most_16_kib() {
    let clock = TokioClock::new();
    let file = TokenFile::missing();
    let longest = "a".repeat(16 * 1024 - 1);
    for (content, token) in [
        ("a-token", "a-token"),
        ("a-token\n", "a-token"),
        ("a-token\r\n\n", "a-token"),
        (&format!("{longest}\n"), longest.as_str()),
    ] {
        file.replace(content);
        let response = file.source(clock).fetch().await.unwrap();
        assert_eq!(response.expose_secret(), token);
    }
    let too_long = format!("{longest}aa");
    for content in [
        &b""[..],
        b"\n",
        b"se-cret\nse-cret",
        b"se-cret se-cret",
        b"\tse-cret",
        b"\xef\xbb\xbfse-cret",
        b"se-cret\0",
        b"se-cret\xff",
        too_long.as_bytes(),
    ] {
        file.replace(content);
        let error = file.source(clock).fetch().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Credentials, "{error:?}");
        let path = file.path().display().to_string();
        assert!(message(&error).contains(&path), "{error:?}");
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("se-cret") && !shown.contains("aaaa"),
            "{shown}"
        );
    }
    let folder = FileToken::new(file.0.folder()).fetch().await.unwrap_err();
    assert!(
        message(&folder).contains("not a regular file"),
        "{folder:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn debug_output_of_a_file_token_shows_the_path_and_no_token() {
    let file = TokenFile::with("s3cr3t-t0k3n");
    let source = file.source(TokioClock::new());
    let response = source.fetch().await.unwrap();
    let shown = format!("{source:?} {response:?}");
    let path = file.path().display().to_string();
    assert!(
        shown.contains(&path) && !shown.contains("s3cr3t"),
        "{shown}"
    );
}
