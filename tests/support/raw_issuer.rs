//! An issuer on a socket with scripted behavior, and a list of faults.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower_oauth::error::ErrorKind;

use super::rsa;

/// The behavior of the issuer on a connection.
#[derive(Clone, Debug)]
pub enum Behavior {
    Respond(Vec<u8>),
    /// Sends these bytes and then stalls.
    Stall(Vec<u8>),
    /// Sends one byte per 100 ms.
    Drip(Vec<u8>),
    /// Accepts and closes.
    Reset,
    /// Closes the listening socket.
    Refuse,
    /// One behavior for metadata, the other for everything else.
    PerEndpoint {
        metadata: Box<Self>,
        keys: Box<Self>,
    },
}

pub fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub fn ok_response(body: &[u8]) -> Vec<u8> {
    response("200 OK", "content-type: application/json\r\n", body)
}

#[derive(Clone)]
pub struct RawIssuer {
    behavior: watch::Sender<Behavior>,
    requests: Arc<Mutex<Vec<String>>>,
    pub address: SocketAddr,
}

impl RawIssuer {
    pub async fn start(behavior: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = Self {
            behavior: watch::Sender::new(behavior),
            requests: Arc::default(),
            address,
        };
        let (behaviors, requests) = (issuer.behavior.subscribe(), Arc::clone(&issuer.requests));
        tokio::spawn(listen(listener, behaviors, requests));
        issuer
    }

    /// Sets the behavior of future connections.
    pub async fn set_behavior(&self, behavior: Behavior) {
        let refuses = matches!(behavior, Behavior::Refuse);
        self.behavior.send_replace(behavior);
        // The task opens and closes the listener asynchronously.
        while TcpStream::connect(self.address).await.is_err() != refuses {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn listen(
    listener: TcpListener,
    mut behaviors: watch::Receiver<Behavior>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    loop {
        let behavior = behaviors.borrow_and_update().clone();
        match (behavior, &listener) {
            (Behavior::Refuse, _) => listener = None,
            (_, None) => listener = Some(TcpListener::bind(address).await.unwrap()),
            (_, Some(listener)) => {
                tokio::select! {
                    changed = behaviors.changed() => if changed.is_err() { return },
                    accepted = listener.accept() => {
                        let behavior = behaviors.borrow().clone();
                        tokio::spawn(serve(accepted.unwrap().0, behavior, Arc::clone(&requests)));
                    }
                }
                continue;
            }
        }
        if listener.is_none() && behaviors.changed().await.is_err() {
            return;
        }
    }
}

async fn serve(mut stream: TcpStream, mut behavior: Behavior, requests: Arc<Mutex<Vec<String>>>) {
    let mut request = [0; 4096];
    let read = stream.read(&mut request).await.unwrap_or(0);
    let request = String::from_utf8_lossy(request.get(..read).unwrap()).into_owned();
    if let Behavior::PerEndpoint { metadata, keys } = behavior {
        behavior = if request.contains("/.well-known/") {
            *metadata
        } else {
            *keys
        };
    }
    if !request.is_empty() {
        requests.lock().unwrap().push(request);
    }
    let _sent_or_closed = match behavior {
        Behavior::Reset | Behavior::Refuse | Behavior::PerEndpoint { .. } => Ok(()),
        Behavior::Respond(bytes) => stream.write_all(&bytes).await,
        Behavior::Stall(bytes) => {
            let _sent = stream.write_all(&bytes).await;
            std::future::pending().await
        }
        Behavior::Drip(bytes) => {
            for byte in bytes {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        }
    };
    let _closed = stream.shutdown().await;
}

pub fn gzip_bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..50 {
        encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let body = encoder.finish().unwrap();
    response("200 OK", "content-encoding: gzip\r\n", &body)
}

/// All faults, each with its error kind where that is unambiguous. `set` is the valid key set,
/// `base` the address of the issuer.
pub fn faults(set: &str, base: &str) -> Vec<(&'static str, Behavior, Option<ErrorKind>)> {
    let html = response(
        "200 OK",
        "content-type: text/html\r\n",
        b"<!doctype html><title>Maintenance</title>",
    );
    let truncated = set.as_bytes().get(..set.len() / 2).unwrap();
    let cut_off = {
        let whole = ok_response(set.as_bytes());
        whole.get(..whole.len() - 20).unwrap().to_vec()
    };
    let junk = br#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"EC","crv":"P-521"},7,{}]}"#;
    let huge = [
        b"{\"keys\":[],\"x\":\"".as_slice(),
        &vec![b'x'; 50 << 20],
        b"\"}",
    ]
    .concat();
    let many = json!({ "keys": vec![rsa(0).jwk("a"); 101] }).to_string();
    let deep = format!(r#"{{"keys":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    let status = |text: &str, headers: &str| Behavior::Respond(response(text, headers, b"{}"));
    let other = format!("location: {base}/elsewhere\r\n");
    vec![
        ("refused", Behavior::Refuse, Some(ErrorKind::Transport)),
        ("reset", Behavior::Reset, Some(ErrorKind::Transport)),
        (
            "hang before headers",
            Behavior::Stall(Vec::new()),
            Some(ErrorKind::Timeout),
        ),
        (
            "hang in the body",
            Behavior::Stall(cut_off.clone()),
            Some(ErrorKind::Timeout),
        ),
        (
            "slow drip",
            Behavior::Drip(ok_response(set.as_bytes())),
            Some(ErrorKind::Timeout),
        ),
        (
            "connection lost in the body",
            Behavior::Respond(cut_off),
            Some(ErrorKind::Transport),
        ),
        (
            "301",
            status("301 Moved Permanently", &other),
            Some(ErrorKind::Status(StatusCode::MOVED_PERMANENTLY)),
        ),
        (
            "307",
            status("307 Temporary Redirect", &other),
            Some(ErrorKind::Status(StatusCode::TEMPORARY_REDIRECT)),
        ),
        (
            "404",
            status("404 Not Found", ""),
            Some(ErrorKind::Status(StatusCode::NOT_FOUND)),
        ),
        (
            "429",
            status("429 Too Many Requests", "retry-after: 1\r\n"),
            Some(ErrorKind::Status(StatusCode::TOO_MANY_REQUESTS)),
        ),
        (
            "500",
            status("500 Internal Server Error", ""),
            Some(ErrorKind::Status(StatusCode::INTERNAL_SERVER_ERROR)),
        ),
        (
            "503",
            status("503 Service Unavailable", ""),
            Some(ErrorKind::Status(StatusCode::SERVICE_UNAVAILABLE)),
        ),
        (
            "HTML with 200",
            Behavior::Respond(html),
            Some(ErrorKind::Malformed),
        ),
        (
            "truncated JSON",
            Behavior::Respond(ok_response(truncated)),
            Some(ErrorKind::Malformed),
        ),
        (
            "nothing with 200",
            Behavior::Respond(ok_response(b"")),
            Some(ErrorKind::Malformed),
        ),
        (
            "another document",
            Behavior::Respond(ok_response(br#"{"issuer":"x"}"#)),
            Some(ErrorKind::Malformed),
        ),
        (
            "too many keys",
            Behavior::Respond(ok_response(many.as_bytes())),
            None,
        ),
        (
            "too deep",
            Behavior::Respond(ok_response(deep.as_bytes())),
            Some(ErrorKind::Malformed),
        ),
        (
            "empty set",
            Behavior::Respond(ok_response(br#"{"keys":[]}"#)),
            Some(ErrorKind::NoUsableKey),
        ),
        (
            "set of junk",
            Behavior::Respond(ok_response(junk)),
            Some(ErrorKind::NoUsableKey),
        ),
        (
            "50 MiB",
            Behavior::Respond(ok_response(&huge)),
            Some(ErrorKind::TooLarge),
        ),
        (
            "gzip bomb",
            Behavior::Respond(gzip_bomb()),
            Some(ErrorKind::TooLarge),
        ),
        (
            "unsolicited 304",
            status("304 Not Modified", ""),
            Some(ErrorKind::Malformed),
        ),
        (
            "no HTTP",
            Behavior::Respond(b"SSH-2.0-OpenSSH\r\n".to_vec()),
            Some(ErrorKind::Transport),
        ),
    ]
}
