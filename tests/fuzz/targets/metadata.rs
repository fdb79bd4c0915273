//! Any bytes as authorization server metadata: only https URLs are fetched, and only if the issuer
//! matches.

#![no_main]

use bytes::Bytes;
use http::Response;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use tower_oauth_fuzz::{ConstantTransport, ISSUER, published, run_for};

#[derive(Deserialize)]
struct Document {
    issuer: String,
}

fuzz_target!(|document: &[u8]| {
    let issuer = ConstantTransport::new(Response::new(Bytes::copy_from_slice(document)));
    let (server, refresher) = issuer.server(None);
    run_for(1, refresher);
    drop(server);
    let urls = issuer.requested();
    let well_known = |url: &&String| url.starts_with("https://as.example/.well-known/");
    assert!(urls.first().as_ref().is_some_and(well_known));
    for jwks_uri in urls.iter().filter(|url| !well_known(url)) {
        assert_eq!(published::<Document>(document).issuer, ISSUER);
        assert!(jwks_uri.starts_with("https://"), "{jwks_uri}");
    }
});
