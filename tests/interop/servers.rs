//! What the tests of authorization servers of other vendors share.

use std::convert::Infallible;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Request, Response, header};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication};
use tower_oauth::resource_server::{Algorithm, RejectionKind};
use tower_oauth::{AuthContext, Rejection, ResourceServer};
use tracing::instrument::WithSubscriber as _;

/// The folder that the installation scripts fill.
pub fn install_folder() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop");
    std::env::var_os("INTEROP_DIR").map_or_else(default, PathBuf::from)
}

/// Prints that a test is skipped, and fails it if `REQUIRE_INTEROP` is set.
pub fn skip(missing: &str) {
    assert!(
        std::env::var_os("REQUIRE_INTEROP").is_none(),
        "missing: {missing}"
    );
    // Bypasses the output capture of passing tests.
    let _ = writeln!(std::io::stderr(), "skipped: missing {missing}");
}

/// A port of loopback that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The development authorization server on a port, with one application.
pub async fn authorization_server(
    algorithm: Algorithm,
) -> (AuthorizationServer, RegisteredApplication) {
    let builder = AuthorizationServer::builder().algorithm(algorithm);
    let listening = builder.bind(0).await.unwrap();
    let server = listening.server().clone();
    tokio::spawn(listening.serve(std::future::pending()));
    let shop = server.register("shop").unwrap();
    (server, shop)
}

/// Polls until a condition holds. Panics after the limit.
#[track_caller]
pub fn eventually<F: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let deadline = Instant::now() + limit;
    async move {
        while !holds().await {
            assert!(Instant::now() < deadline, "{caller}: not in time: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Sends a token through the layer. Returns what is logged at `warn`.
pub async fn warnings(server: &ResourceServer, token: &str) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _ = validate(server, token).with_subscriber(subscriber).await;
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

/// Sends a token through the layer. Returns its context, or the reason of the rejection.
pub async fn validate(server: &ResourceServer, token: &str) -> Result<AuthContext, RejectionKind> {
    let service = server
        .layer()
        .layer(service_fn(async |request: Request<()>| {
            let context = AuthContext::from_request(&request).unwrap().clone();
            let mut response = Response::new(());
            response.extensions_mut().insert(context);
            Ok::<_, Infallible>(response)
        }));
    let request = Request::builder()
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    match response.extensions().get::<Rejection>() {
        Some(rejection) => Err(rejection.kind()),
        None => Ok(response.extensions().get::<AuthContext>().unwrap().clone()),
    }
}
