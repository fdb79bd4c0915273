//! Any text as a token. Only the signed one is accepted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_oauth_fuzz::{CLAIMS, Fixture, HEADER};

thread_local!(static FIXTURE: (Fixture, String) = {
    let fixture = Fixture::new();
    let good = fixture.sign(HEADER, CLAIMS);
    assert!(fixture.validate(&good).is_ok());
    (fixture, good)
});

fuzz_target!(|token: &str| {
    FIXTURE.with(|(fixture, good)| {
        if fixture.validate(token).is_ok() {
            assert_eq!(token, good);
        }
    });
});
