//! Any bytes as `Cache-Control` and `Retry-After`: the fetch rate stays within the policy.
//!
//! The input is `ok` or something else, then a header value on each of two lines.

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
    let mut response = Response::new(Bytes::from_static(KEYS.as_bytes()));
    if fails {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    for (name, value) in [
        (header::CACHE_CONTROL, cache_control),
        (header::RETRY_AFTER, retry_after),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            response.headers_mut().insert(name, value);
        }
    }
    let issuer = ConstantTransport::new(response);
    let (server, refresher) = issuer.server(Some("https://as.example/keys"));
    run_for(600, refresher);
    drop(server);
    let fetches = issuer.requested().len();
    if fails {
        // Without keys the wait is at most five seconds, and rarely a tenth of that.
        assert!((120..=1300).contains(&fetches), "{fetches}");
    } else {
        // At 70 to 95 % of one to ten minutes.
        assert!((2..=15).contains(&fetches), "{fetches}");
    }
});
