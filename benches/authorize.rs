//! What the layer costs: a granted request for each algorithm, and refusals.
//!
//! `cargo bench`. The bare service and the raw signature check are in the same run, so that
//! every figure can be read as a ratio.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a benchmark")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::convert::Infallible;

use bytes::Bytes;
use divan::{Bencher, black_box};
use http::{Request, Response, header};
use http_body_util::Full;
use serde_json::json;
use support::{Bench, claims, claims_with, compact, now_or_never};
use tower::{Layer, Service, service_fn};

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

type Body = Full<Bytes>;

async fn answer(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Full::default()))
}

fn request(token: &str) -> Request<Body> {
    Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}")).body(Full::default()).unwrap()
}

fn through_the_layer(bencher: Bencher<'_, '_>, bench: &Bench, token: &str) {
    let mut service = bench.server.layer().layer(service_fn(answer));
    bencher
        .with_inputs(|| request(token))
        .bench_local_values(|request| now_or_never(service.call(black_box(request))));
}

#[divan::bench]
fn bare_service(bencher: Bencher<'_, '_>) {
    let mut service = service_fn(answer);
    bencher
        .with_inputs(|| request("x"))
        .bench_local_values(|request| now_or_never(service.call(black_box(request))));
}

/// The signature alone, by aws-lc-rs with a key parsed once.
#[divan::bench]
fn raw_rs256(bencher: Bencher<'_, '_>) {
    use aws_lc_rs::signature::{KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
    let support::PrivateKey::Rsa(pair) = support::rsa(0) else { return };
    let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key()).unwrap();
    let message = [7; 800];
    let signature = support::rsa(0).sign("RS256", &message);
    bencher.bench_local(|| key.verify_sig(black_box(&message), &signature).unwrap());
}

#[divan::bench(args = ["RS256", "PS256", "ES256", "ES384", "EdDSA"])]
fn grant(bencher: Bencher<'_, '_>, alg: &str) {
    let bench = Bench::new();
    let (kid, key) = match alg {
        "ES256" => ("p256", &bench.p256),
        "ES384" => ("p384", &bench.p384),
        "EdDSA" => ("ed", &bench.ed25519),
        _ => ("rsa", bench.rsa),
    };
    let header = json!({ "alg": alg, "kid": kid, "typ": "JWT" }).to_string();
    let token = compact(key, alg, &header, claims().to_string().as_bytes());
    through_the_layer(bencher, &bench, &token);
}

#[divan::bench(args = ["missing dots", "wrong algorithm", "unknown issuer", "bad signature", "expired"])]
fn refusal(bencher: Bencher<'_, '_>, case: &str) {
    let bench = Bench::new();
    let token = match case {
        "missing dots" => "abc".to_owned(),
        "wrong algorithm" => bench.with_header(r#"{"alg":"HS256","kid":"rsa"}"#),
        "unknown issuer" => bench.token(&claims_with(json!({ "iss": "https://other.example" }))),
        "expired" => bench.token(&claims_with(json!({ "exp": 1 }))),
        _ => {
            let payload = claims().to_string();
            compact(support::rsa(1), "RS256", r#"{"alg":"RS256","kid":"rsa"}"#, payload.as_bytes())
        }
    };
    through_the_layer(bencher, &bench, &token);
}
