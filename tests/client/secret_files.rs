//! Client secrets in files that are replaced while the client runs.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::json;
use tower_oauth::app_id::Binding;
use tower_oauth::client::{TokenManagerBuilder, TokenSource as _};
use tower_oauth::error::ErrorKind;
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{ClientCredentials, Endpoint, TokenManager};

use crate::support::create_pipe;
use crate::support::mount::Mount;
use crate::support::token_endpoint::{TokioClock, sleep_seconds};

/// A token endpoint that accepts one pair of id and secret at a time, and runs a hook before it
/// looks at a request.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    accepted: String,
    received: Vec<String>,
    before: Option<Box<dyn FnMut(&mut String) + Send>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Server {
    fn accepting(pair: &str) -> Self {
        let server = Self::default();
        server.accept(pair);
        server
    }

    fn accept(&self, pair: &str) {
        self.0.lock().unwrap().accepted = pair.to_owned();
    }

    /// Runs a hook before each response, with the accepted pair.
    fn before(&self, hook: impl FnMut(&mut String) + Send + 'static) {
        self.0.lock().unwrap().before = Some(Box::new(hook));
    }

    /// The pairs of all requests.
    fn received(&self) -> Vec<String> {
        self.0.lock().unwrap().received.clone()
    }
}

impl Transport for Server {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let field = request.headers()["authorization"].to_str().unwrap();
        let pair = STANDARD
            .decode(field.strip_prefix("Basic ").unwrap())
            .unwrap();
        let pair = String::from_utf8(pair).unwrap();
        let mut state = self.0.lock().unwrap();
        let State {
            accepted, before, ..
        } = &mut *state;
        if let Some(before) = before {
            before(accepted);
        }
        let mut response = Response::new(Bytes::new());
        let body = if *accepted == pair {
            json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 60 })
        } else {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            json!({ "error": "invalid_client" })
        };
        state.received.push(pair);
        *response.body_mut() = body.to_string().into();
        Box::pin(async { Ok(response) })
    }
}

fn builder(server: &Server, credentials: ClientCredentials) -> TokenManagerBuilder {
    let url = Endpoint::new("https://as.example/token").unwrap();
    TokenManager::builder(url, credentials)
        .transport(server.clone())
        .clock(TokioClock::new())
}

#[tokio::test(start_paused = true)]
async fn a_secret_file_is_read_again_for_each_token_request() {
    let mount = Mount::new();
    mount.write(&[("secret", "one\n")]);
    let server = Server::accepting("shop:one");
    let credentials = ClientCredentials::from_secret_file("shop", mount.path("secret"));
    let source = builder(&server, credentials).build_source().unwrap();
    let _first = source.fetch().await.unwrap();
    for (text, secret) in [
        ("two", "two"),
        ("three\r\n", "three"),
        ("four\n\n", "four"),
        (" five ", "+five+"),
        ("s+x/=", "s%2Bx%2F%3D"),
    ] {
        mount.write(&[("secret", text)]);
        server.accept(&format!("shop:{secret}"));
        let _next = source.fetch().await.unwrap();
        assert_eq!(*server.received().last().unwrap(), format!("shop:{secret}"));
    }
    assert_eq!(server.received().len(), 6, "one request for each token");
}

#[tokio::test(start_paused = true)]
async fn a_secret_file_that_cannot_be_read_for_a_moment_fails_no_call() {
    let too_long = "x".repeat(64 * 1024 + 1);
    let breakages: [(&str, &dyn Fn(&Path)); 7] = [
        ("missing", &|path| fs::remove_file(path).unwrap()),
        ("empty", &|path| fs::write(path, "").unwrap()),
        ("line_end", &|path| fs::write(path, "\r\n").unwrap()),
        ("binary", &|path| fs::write(path, [0xff, 0xfe]).unwrap()),
        ("too_long", &|path| fs::write(path, &too_long).unwrap()),
        ("folder", &|path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("pipe", &|path| {
            fs::remove_file(path).unwrap();
            create_pipe(path);
        }),
    ];
    for (name, break_it) in breakages {
        let mount = Mount::new();
        let path = mount.path("secret");
        fs::write(&path, "one").unwrap();
        break_it(&path);
        let server = Server::accepting("shop:two");
        let credentials = || ClientCredentials::from_secret_file("shop", &path);
        let source = builder(&server, credentials()).build_source().unwrap();
        let error = source.fetch().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Credentials, "{name}: {error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(&path.display().to_string()), "{cause}");
        assert!(!cause.contains("xxx"), "{cause}");

        let tokens = builder(&server, credentials()).start().unwrap();
        let repair = async {
            sleep_seconds(3).await;
            let _ = fs::remove_dir(&path).or_else(|_| fs::remove_file(&path));
            fs::write(&path, "two\n").unwrap();
        };
        let (token, ()) = tokio::join!(tokens.access_token(), repair);
        token.expect(name);
        assert_eq!(server.received(), ["shop:two"], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_secret_is_an_error_that_names_the_file_in_the_end() {
    let mount = Mount::new();
    let path = mount.path("secret");
    let server = Server::accepting("shop:one");
    let credentials = ClientCredentials::from_secret_file("shop", &path);
    let tokens = builder(&server, credentials).start().unwrap();
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials);
    assert_eq!(
        error.to_string(),
        "token request failed: the client's credentials cannot be read"
    );
    assert!(server.received().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_replaced_while_it_was_sent_is_read_again_once() {
    let mount = Arc::new(Mount::new());
    mount.write(&[("secret", "1")]);
    let server = Server::accepting("shop:2");
    let mut rotations = 0;
    server.before({
        let mount = Arc::clone(&mount);
        move |_| {
            rotations += 1;
            if rotations == 1 {
                mount.write(&[("secret", "2")]);
            }
        }
    });
    let credentials = || ClientCredentials::from_secret_file("shop", mount.path("secret"));
    let tokens = builder(&server, credentials()).start().unwrap();
    let start = tokio::time::Instant::now();
    tokens.access_token().await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(100), "no backoff");
    assert_eq!(server.received(), ["shop:1", "shop:2"]);

    // A secret that is still the same is not sent again, and a second other one is.
    let server = Server::accepting("shop:9");
    let tokens = builder(&server, credentials()).start().unwrap();
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
    assert_eq!(server.received(), ["shop:2"]);
    let mut version = 2;
    server.before({
        let mount = Arc::clone(&mount);
        move |_| {
            version += 1;
            mount.write(&[("secret", &version.to_string())]);
        }
    });
    let source = builder(&server, credentials()).build_source().unwrap();
    source.fetch().await.unwrap_err();
    assert_eq!(server.received(), ["shop:2", "shop:2", "shop:3"], "once");
}

/// The server accepts only the secret that is mounted.
#[tokio::test(start_paused = true)]
async fn no_call_fails_while_a_mounted_secret_is_rotated_again_and_again() {
    let mount = Arc::new(Mount::new());
    mount.write(&[("secret", "0")]);
    let server = Server::accepting("shop:0");
    let mut requests = 0;
    server.before({
        let mount = Arc::clone(&mount);
        move |accepted: &mut String| {
            requests += 1;
            // The secret is replaced between its reading and its use, with every third request.
            if requests % 3 == 0 {
                mount.write(&[("secret", &requests.to_string())]);
                *accepted = format!("shop:{requests}");
            }
        }
    });
    let credentials = ClientCredentials::from_secret_file("shop", mount.path("secret"));
    let tokens = builder(&server, credentials).start().unwrap();
    for _ in 0..200 {
        tokens.access_token().await.unwrap();
        sleep_seconds(7).await;
    }
    let received = server.received();
    assert!(received.len() > 20, "{received:?}");
}

fn binding_files(id: &str, secret: &str) -> [(&'static str, String); 3] {
    let url = "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227";
    [
        ("clientId", id.to_owned()),
        ("secret", format!("{secret}\n")),
        ("oauthServerUrl", url.to_owned()),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_replaced_app_id_mount_needs_no_restart_in_each_of_its_layouts() {
    let json = |id: &str, secret: &str| {
        let members = binding_files(id, secret);
        let members = members
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.trim().into()));
        serde_json::Value::Object(members.collect()).to_string()
    };
    for layout in ["file.json", "binding", "keys"] {
        let mount = Mount::new();
        let write = |id: &str, secret: &str| match layout {
            "keys" => mount.write(&binding_files(id, secret)),
            file => mount.write(&[(file, &json(id, secret))]),
        };
        write("first", "one");
        let path = match layout {
            "file.json" => mount.path(layout),
            _ => mount.folder().to_owned(),
        };
        let variable = path.display().to_string();
        let lookup = |name: &str| (name == "APPID_BINDING_FILE").then(|| variable.clone());
        let binding = Binding::from_lookup(lookup).unwrap().unwrap();
        let server = Server::accepting("first:one");
        let tokens = binding.token_manager().unwrap().transport(server.clone());
        let tokens = tokens.clock(TokioClock::new()).start().unwrap();
        tokens.access_token().await.unwrap();
        // App ID encodes nothing. Another application has another client id.
        for (id, secret) in [("first", "+/="), ("second", "three")] {
            write(id, secret);
            server.accept(&format!("{id}:{secret}"));
            sleep_seconds(61).await;
            tokens.access_token().await.expect(layout);
        }
        let mut received = server.received();
        received.dedup();
        assert_eq!(received, ["first:one", "first:+/=", "second:three"]);
        // While it is gone, calls wait.
        let (token, ()) = tokio::join!(
            async {
                sleep_seconds(61).await;
                tokens.access_token().await
            },
            async {
                fs::remove_file(mount.path("..data")).unwrap();
                sleep_seconds(65).await;
                write("third", "four");
                server.accept("third:four");
            }
        );
        token.expect(layout);

        // Explicit values stay.
        let explicit = Binding::builder().client_id("explicit").secret("fixed");
        let explicit = explicit.build_from_lookup(lookup).unwrap().unwrap();
        server.accept("explicit:fixed");
        let tokens = explicit.token_manager().unwrap().transport(server.clone());
        let _token = tokens.build_source().unwrap().fetch().await.expect(layout);
        let explicit = Binding::builder().client_id("explicit");
        let explicit = explicit.build_from_lookup(lookup).unwrap().unwrap();
        server.accept("explicit:four");
        let tokens = explicit.token_manager().unwrap().transport(server.clone());
        let _token = tokens.build_source().unwrap().fetch().await.expect(layout);
    }
}

#[test]
fn a_pipe_as_an_app_id_binding_is_an_error_and_is_not_waited_for() {
    for (name, file) in [("pipe", "pipe"), ("pipe_binding", ""), ("pipe_secret", "")] {
        let mount = Mount::new();
        create_pipe(&mount.path(name.trim_start_matches("pipe_")));
        let path = mount.path(file);
        let (send, read) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(Binding::from_file(path)).unwrap());
        let binding = read.recv_timeout(Duration::from_secs(10)).expect(name);
        let error = binding.unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_credentials_are_read_is_an_error_without_its_message() {
    let server = Server::accepting("shop:one");
    let credentials = ClientCredentials::from_fn("shop", || panic!("s3cr3t"));
    let source = builder(&server, credentials).build_source().unwrap();
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials);
    assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
}

#[test]
fn debug_output_of_credentials_from_a_file_shows_no_secret() {
    let mount = Mount::new();
    mount.write(&[("secret", "s3cr3t")]);
    let credentials = ClientCredentials::from_secret_file("shop", mount.path("secret"));
    let shown = format!("{credentials:?}");
    assert!(
        shown.contains("shop") && !shown.contains("s3cr3t"),
        "{shown}"
    );
}
