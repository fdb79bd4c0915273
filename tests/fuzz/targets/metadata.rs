//! Any bytes as authorization server metadata. Whatever they say, only https is asked, and only
//! if they name the very issuer.

#![no_main]

use bytes::Bytes;
use http::Response;
use libfuzzer_sys::fuzz_target;
use tower_oauth_fuzz::{ConstantTransport, ISSUER, plain, run_for};

fuzz_target!(|document: &[u8]| {
    let issuer = ConstantTransport::new(Response::new(Bytes::copy_from_slice(document)));
    let (server, refresher) = issuer.server(None);
    run_for(1, refresher);
    drop(server);
    let asked = issuer.asked();
    let well_known = |url: &&String| url.starts_with("https://as.example/.well-known/");
    assert!(asked.first().as_ref().is_some_and(well_known));
    for jwks_uri in asked.iter().filter(|url| !well_known(url)) {
        assert_eq!(plain(document)["issuer"], ISSUER);
        assert!(jwks_uri.starts_with("https://"), "{jwks_uri}");
    }
});
