//! Any bytes as `Cache-Control` and `Retry-After`: the keys are asked for as often as the policy
//! allows, and not more.
//!
//! The input is `ok` or something else, then a field on each of two lines.

#![no_main]

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use libfuzzer_sys::fuzz_target;
use tower_oauth_fuzz::{ConstantTransport, run_for};

const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let fails = lines.next() != Some(b"ok");
    let (cache_control, retry_after) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let mut answer = Response::new(Bytes::from_static(KEYS.as_bytes()));
    if fails {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    for (name, value) in [
        (header::CACHE_CONTROL, cache_control),
        (header::RETRY_AFTER, retry_after),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    let issuer = ConstantTransport::new(answer);
    let (server, refresher) = issuer.server(Some("https://as.example/keys"));
    run_for(600, refresher);
    drop(server);
    let asked = issuer.asked().len();
    if fails {
        // Without keys the wait is never longer than five seconds, and seldom a tenth of that.
        assert!((120..=1300).contains(&asked), "{asked}");
    } else {
        // At 70 to 95 % of one to ten minutes.
        assert!((2..=15).contains(&asked), "{asked}");
    }
});
