//! What the tests of authorization servers of other vendors share.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use http::{Request, Response, header};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::resource_server::RejectionKind;
use tower_oauth::{AuthContext, Rejection, ResourceServer};

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
