//! Any bytes as a well-signed JOSE header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_oauth_fuzz::{CLAIMS, Fixture, plain};

thread_local!(static FIXTURE: Fixture = Fixture::new());

fuzz_target!(|header: &[u8]| {
    FIXTURE.with(|fixture| {
        if fixture.validate(&fixture.sign(header, CLAIMS)).is_ok() {
            let header = plain(header);
            assert!(header["alg"] == "EdDSA" || header["alg"] == "Ed25519");
            assert!(header.get("kid").is_none_or(|kid| kid == "k"));
            for rejected in ["b64", "crit", "cty", "enc", "zip"] {
                assert!(!header.contains_key(rejected), "{rejected}");
            }
            if let Some(typ) = header.get("typ") {
                let typ = typ.as_str().expect("a string").to_ascii_lowercase();
                assert!(
                    ["jwt", "jose", "at+jwt", "application/at+jwt"].contains(&&*typ),
                    "{typ}"
                );
            }
        }
    });
});
