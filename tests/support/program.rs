//! The example programs as processes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

/// A built example; `cargo test` builds them.
pub fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --examples`",
        path.display()
    );
    let mut command = Command::new(path);
    // Only the variables that a test sets reach the program.
    command.env_clear();
    command
        .env("PORT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A running server program, and the line of JSON that it printed.
pub struct Serving {
    pub child: Child,
    stdout: BufReader<ChildStdout>,
    /// Read continuously: a full pipe would block the program.
    log: JoinHandle<String>,
    pub printed: Value,
}

impl Serving {
    pub async fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stdout.read_line(&mut line));
        read.await.expect("the program is ready in time").unwrap();
        let printed = serde_json::from_str(&line).unwrap_or_else(|_| panic!("it printed {line:?}"));
        let mut stderr = child.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut log = String::new();
            stderr.read_to_string(&mut log).await.unwrap();
            log
        });
        Self {
            child,
            stdout,
            log,
            printed,
        }
    }

    pub fn text(&self, name: &str) -> String {
        self.printed[name].as_str().unwrap().to_owned()
    }

    /// Waits until the resource server has its keys.
    pub async fn wait_until_ready(&self) {
        let ready = format!("{}/readyz", self.text("listening"));
        let became_ready = async {
            while get(&ready, None).await.0 != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let became_ready = tokio::time::timeout(Duration::from_secs(20), became_ready);
        became_ready.await.expect("ready within 20 seconds");
    }

    /// Sends SIGTERM. Returns the exit code and the log.
    pub async fn terminate(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Instant::now();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
        let status = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        let status = status
            .expect("the program exits within 10 seconds")
            .unwrap();
        assert!(sent.elapsed() < Duration::from_secs(10));
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "", "one line on stdout, and no more");
        (status.code(), self.log.await.unwrap())
    }
}

/// A token of the development server, for its first application.
pub async fn token(credentials: &Serving, base: &str) -> String {
    let request = reqwest::Client::new()
        .post(format!("{base}/token"))
        .basic_auth(
            credentials.text("clientId"),
            Some(credentials.text("secret")),
        )
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials");
    let body: Value =
        serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

pub async fn get(url: &str, token: Option<&str>) -> (StatusCode, String) {
    let mut request = reqwest::Client::new().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}
