//! Any text as a token. The only one that is accepted is the one that was signed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_oauth_fuzz::{Bench, CLAIMS, HEADER};

thread_local!(static BENCH: (Bench, String) = {
    let bench = Bench::new();
    let good = bench.sign(HEADER, CLAIMS);
    assert!(bench.judge(&good).is_ok());
    (bench, good)
});

fuzz_target!(|token: &str| {
    BENCH.with(|(bench, good)| {
        if bench.judge(token).is_ok() {
            assert_eq!(token, good);
        }
    });
});
