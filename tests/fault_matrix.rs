//! An issuer that fails in every way that a socket can, and a resource server that goes on.
//!
//! For each fault: tokens with known keys are served throughout, the key set tells what is wrong,
//! and one good answer later it is well again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod support;

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use serde_json::json;
use support::{AUDIENCE, NOW, claims_with, compact, now_or_never, rsa};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::{
    Audience, Endpoint, ErrorKind, Issuer, KeySetState, ManualClock, RefreshPolicy, ResourceServer, StartUp,
    UnixTime,
};

/// What the issuer does with a connection.
#[derive(Clone, Debug)]
enum Act {
    Answer(Vec<u8>),
    /// This much, and then nothing more.
    Stall(Vec<u8>),
    /// A byte each hundred milliseconds.
    Drip(Vec<u8>),
    /// Accepts and closes.
    Reset,
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn ok(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "content-type: application/json\r\n", body)
}

#[derive(Clone)]
struct RawIssuer {
    act: Arc<Mutex<Act>>,
    address: std::net::SocketAddr,
}

impl RawIssuer {
    async fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let act = Arc::new(Mutex::new(act));
        let current = Arc::clone(&act);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let act = current.lock().unwrap().clone();
                tokio::spawn(perform(stream, act));
            }
        });
        Self { act, address }
    }

    fn does(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }
}

async fn perform(mut stream: TcpStream, act: Act) {
    let mut request = [0; 4096];
    let _read = stream.read(&mut request).await;
    let _peer_may_be_gone = match act {
        Act::Reset => Ok(()),
        Act::Answer(bytes) => stream.write_all(&bytes).await,
        Act::Stall(bytes) => {
            let _sent = stream.write_all(&bytes).await;
            std::future::pending().await
        }
        Act::Drip(bytes) => {
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

fn gzip_bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..50 {
        encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let body = encoder.finish().unwrap();
    answer("200 OK", "content-encoding: gzip\r\n", &body)
}

#[tokio::test]
async fn every_way_to_fail_is_survived_told_and_recovered_from() {
    let set = json!({ "keys": [rsa(0).jwk("a")] }).to_string();
    let good = || Act::Answer(ok(set.as_bytes()));
    let issuer = RawIssuer::start(good()).await;
    let base = format!("http://{}", issuer.address);
    let timeout = Duration::from_millis(400);
    let server = ResourceServer::builder(Issuer::new(&base).unwrap(), Audience::new(AUDIENCE).unwrap())
        .jwks_uri(Endpoint::new(format!("{base}/keys")).unwrap())
        .clock(ManualClock::at(UnixTime::from_secs(NOW)))
        .refresh(RefreshPolicy::new().fetch_timeout(timeout))
        .allow_loopback_http()
        .start_up(StartUp::Require(Duration::from_secs(10)))
        .start()
        .await
        .unwrap();
    let claims = claims_with(json!({ "iss": base }));
    let token = compact(rsa(0), "RS256", r#"{"alg":"RS256","kid":"a"}"#, claims.to_string().as_bytes());
    // Decided in the first poll: at the cost that it always has.
    let served = || {
        let service = server
            .layer()
            .layer(service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(()))));
        let request =
            Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap();
        now_or_never(service.oneshot(request)).unwrap().status()
    };
    assert_eq!(served(), StatusCode::OK);

    let html = answer("200 OK", "content-type: text/html\r\n", b"<!doctype html><title>Maintenance</title>");
    let truncated = set.as_bytes().get(..set.len() / 2).unwrap();
    let cut_off = {
        let whole = ok(set.as_bytes());
        whole.get(..whole.len() - 20).unwrap().to_vec()
    };
    let junk = br#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"EC","crv":"P-521"},7,{}]}"#;
    let huge = [b"{\"keys\":[],\"x\":\"".as_slice(), &vec![b'x'; 50 << 20], b"\"}"].concat();
    let many = json!({ "keys": vec![rsa(0).jwk("a"); 101] }).to_string();
    let deep = format!(r#"{{"keys":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    let status = |text: &str, headers: &str| Act::Answer(answer(text, headers, b"{}"));
    let other = format!("location: {base}/elsewhere\r\n");
    let matrix: Vec<(&str, Act, Option<ErrorKind>)> = vec![
        ("reset", Act::Reset, Some(ErrorKind::Transport)),
        ("hang before headers", Act::Stall(Vec::new()), Some(ErrorKind::Timeout)),
        ("hang in the body", Act::Stall(cut_off.clone()), Some(ErrorKind::Timeout)),
        ("slow drip", Act::Drip(ok(set.as_bytes())), Some(ErrorKind::Timeout)),
        ("connection lost in the body", Act::Answer(cut_off), Some(ErrorKind::Transport)),
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
        ("404", status("404 Not Found", ""), Some(ErrorKind::Status(StatusCode::NOT_FOUND))),
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
        ("HTML with 200", Act::Answer(html), Some(ErrorKind::Malformed)),
        ("truncated JSON", Act::Answer(ok(truncated)), Some(ErrorKind::Malformed)),
        ("nothing with 200", Act::Answer(ok(b"")), Some(ErrorKind::Malformed)),
        ("another document", Act::Answer(ok(br#"{"issuer":"x"}"#)), Some(ErrorKind::Malformed)),
        ("too many keys", Act::Answer(ok(many.as_bytes())), None),
        ("too deep", Act::Answer(ok(deep.as_bytes())), Some(ErrorKind::Malformed)),
        ("empty set", Act::Answer(ok(br#"{"keys":[]}"#)), Some(ErrorKind::NoUsableKey)),
        ("set of junk", Act::Answer(ok(junk)), Some(ErrorKind::NoUsableKey)),
        ("50 MiB", Act::Answer(ok(&huge)), Some(ErrorKind::TooLarge)),
        ("gzip bomb", Act::Answer(gzip_bomb()), Some(ErrorKind::TooLarge)),
        ("304 that nobody asked for", status("304 Not Modified", ""), Some(ErrorKind::Malformed)),
        ("no HTTP", Act::Answer(b"SSH-2.0-OpenSSH\r\n".to_vec()), Some(ErrorKind::Transport)),
    ];
    println!("| fault                        | told as              | next good answer |");
    println!("| ---------------------------- | -------------------- | ---------------- |");
    for (fault, act, kind) in matrix {
        issuer.does(act);
        let error = server.refresh_now().await.expect_err(fault);
        if let Some(kind) = kind {
            assert_eq!(error.kind(), kind, "{fault}: {error}");
        }
        assert_eq!(served(), StatusCode::OK, "{fault}");
        let told = server.key_sets().remove(0);
        assert_eq!((told.state(), told.usable_keys()), (KeySetState::Degraded, 1), "{fault}");
        assert_eq!(told.last_error().unwrap().kind(), error.kind(), "{fault}");
        issuer.does(good());
        server.refresh_now().await.unwrap_or_else(|error| panic!("after {fault}: {error}"));
        assert_eq!(server.key_sets().remove(0).state(), KeySetState::Healthy, "{fault}");
        println!("| {fault:<28} | {:<20} | healthy          |", error.kind().as_str());
    }
    // A content type is no reason to do without good keys.
    issuer.does(Act::Answer(answer("200 OK", "content-type: text/plain\r\n", set.as_bytes())));
    server.refresh_now().await.unwrap();
}

#[tokio::test]
async fn nobody_at_the_port_is_an_issuer_that_is_down() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let server = ResourceServer::builder(Issuer::new(&base).unwrap(), Audience::new(AUDIENCE).unwrap())
        .allow_loopback_http()
        .start_up(StartUp::Background)
        .start()
        .await
        .unwrap();
    assert_eq!(server.refresh_now().await.unwrap_err().kind(), ErrorKind::Transport);
    assert!(!server.is_ready());
}

/// RFC 8414 §3.3
#[tokio::test]
async fn metadata_of_another_issuer_leads_nowhere() {
    let issuer = RawIssuer::start(Act::Reset).await;
    let base = format!("http://{}", issuer.address);
    let document =
        json!({ "issuer": "https://evil.example", "jwks_uri": format!("{base}/keys") }).to_string();
    issuer.does(Act::Answer(ok(document.as_bytes())));
    let server = ResourceServer::builder(Issuer::new(&base).unwrap(), Audience::new(AUDIENCE).unwrap())
        .allow_loopback_http()
        .start_up(StartUp::Background)
        .start()
        .await
        .unwrap();
    assert_eq!(server.refresh_now().await.unwrap_err().kind(), ErrorKind::IssuerMismatch);
}
