//! Any bytes as one or two `Authorization` headers and as the query.
//!
//! The input is the query, then one or two lines with a header value each; `TOKEN` is replaced by a
//! valid token.

#![no_main]

use http::{HeaderValue, Request, Uri, header};
use libfuzzer_sys::fuzz_target;
use tower_oauth_fuzz::{CLAIMS, Fixture, HEADER};

thread_local!(static FIXTURE: (Fixture, String) = {
    let fixture = Fixture::new();
    let good = fixture.sign(HEADER, CLAIMS);
    (fixture, good)
});

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let Some(first) = lines.next() else { return };
    let second = lines.next();
    FIXTURE.with(|(fixture, good)| {
        // Without this placeholder the fuzzer would never pass the signature check.
        let fill = |field: &[u8]| {
            let text = String::from_utf8_lossy(field);
            let filled = if text.contains("TOKEN") {
                text.replace("TOKEN", good).into_bytes()
            } else {
                field.to_vec()
            };
            HeaderValue::from_bytes(&filled).ok()
        };
        let Some(one) = fill(first) else { return };
        let uri = format!("/orders?{query}")
            .parse()
            .unwrap_or(Uri::from_static("/orders"));
        let mut request = Request::builder()
            .uri(uri.clone())
            .header(header::AUTHORIZATION, one.clone());
        let two = second.and_then(fill);
        let several = two.is_some();
        if let Some(two) = two {
            request = request.header(header::AUTHORIZATION, two);
        }
        if fixture.send(request.body(()).expect("a request")).is_ok() {
            assert!(!several);
            let (scheme, token) = one.as_bytes().split_at(7);
            assert!(scheme.eq_ignore_ascii_case(b"bearer "));
            assert_eq!(token, good.as_bytes());
            assert!(
                !uri.query()
                    .unwrap_or_default()
                    .split('&')
                    .any(|pair| pair.starts_with("access_token="))
            );
        }
    });
});
