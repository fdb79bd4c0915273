//! The cost of token requests whose client authenticates with a signed assertion: a table of
//! `guide::performance`, `cargo bench --bench assertions`.
//!
//! The token endpoint responds at once. A token exchange without a cache sends one request for each
//! call. All rows are measured in interleaved rounds, next to a request with a client secret, and
//! next to the signature of aws-lc alone.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

#[allow(dead_code, reason = "other benchmarks use the rest")]
#[path = "support/rounds.rs"]
mod rounds;
#[allow(dead_code, reason = "other benchmarks use the rest")]
#[path = "support/tokens.rs"]
mod tokens;

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use bytes::Bytes;
use http::{Request, Response};
use pem_rfc7468::LineEnding;
use rounds::{Call, Row, field, thousands};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tower_oauth::client::{ClientAuthentication, SigningKey};
use tower_oauth::clock::UnixTime;
use tower_oauth::resource_server::{Algorithm, InboundToken};
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{ClientCredentials, Endpoint, PrivateKeyJwt, TokenExchange, TokenManager};

const SECRET: &str = "client secret";

/// As long as the signed part of an assertion.
const MESSAGE: [u8; 400] = [b'm'; 400];

/// A token endpoint that responds at once.
#[derive(Debug)]
struct Immediate;

impl Transport for Immediate {
    fn send(&self, _request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let body = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600,
            "issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#;
        Box::pin(async { Ok(Response::new(Bytes::from_static(body.as_bytes()))) })
    }
}

/// Sends one token request.
fn request(client: impl ClientAuthentication) -> Call {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let endpoint = Endpoint::new("https://as.example/token").unwrap();
    let tokens = TokenManager::builder(endpoint, client).transport(Immediate);
    let exchange = TokenExchange::builder(tokens).max_cached_tokens(0);
    let exchange = exchange.build().unwrap();
    let subject = InboundToken::new("subject", UnixTime::from_secs(4_000_000_000));
    Box::new(
        move |_| match runtime.block_on(exchange.access_token(&subject)) {
            Ok(_) => 200,
            Err(error) => panic!("{error}"),
        },
    )
}

/// Signs, without a token request.
fn signature(mut sign: impl FnMut() + Send + 'static) -> Call {
    Box::new(move |_| {
        sign();
        200
    })
}

/// A key, and its signature alone.
struct Case {
    name: &'static str,
    algorithm: Algorithm,
    pkcs8: Vec<u8>,
    sign: Call,
}

fn ec(name: &'static str, algorithm: Algorithm, curve: &'static EcdsaSigningAlgorithm) -> Case {
    let pair = EcdsaKeyPair::generate(curve).unwrap();
    Case {
        name,
        algorithm,
        pkcs8: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        sign: signature(move || {
            black_box(pair.sign(&SystemRandom::new(), &MESSAGE).unwrap());
        }),
    }
}

fn rsa(
    name: &'static str,
    algorithm: Algorithm,
    encoding: &'static dyn RsaEncoding,
    size: KeySize,
) -> Case {
    let pair = RsaKeyPair::generate(size).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let pkcs8 = pkcs8.as_ref().to_vec();
    let mut signed = vec![0; pair.public_modulus_len()];
    let sign = move || {
        pair.sign(encoding, &SystemRandom::new(), &MESSAGE, &mut signed)
            .unwrap();
    };
    Case {
        name,
        algorithm,
        pkcs8,
        sign: signature(sign),
    }
}

fn ed25519() -> Case {
    let pair = Ed25519KeyPair::generate().unwrap();
    Case {
        name: "EdDSA",
        algorithm: Algorithm::EdDsa,
        pkcs8: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        sign: signature(move || {
            black_box(pair.sign(&MESSAGE));
        }),
    }
}

fn cases() -> Vec<Case> {
    vec![
        ec("ES256", Algorithm::Es256, &ECDSA_P256_SHA256_FIXED_SIGNING),
        ec("ES384", Algorithm::Es384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        ec("ES512", Algorithm::Es512, &ECDSA_P521_SHA512_FIXED_SIGNING),
        ed25519(),
        rsa(
            "RS256, 2048 bits",
            Algorithm::Rs256,
            &RSA_PKCS1_SHA256,
            KeySize::Rsa2048,
        ),
        rsa(
            "PS256, 2048 bits",
            Algorithm::Ps256,
            &RSA_PSS_SHA256,
            KeySize::Rsa2048,
        ),
        rsa(
            "PS256, 4096 bits",
            Algorithm::Ps256,
            &RSA_PSS_SHA256,
            KeySize::Rsa4096,
        ),
    ]
}

fn pem(pkcs8: &[u8]) -> String {
    pem_rfc7468::encode_string("PRIVATE KEY", LineEnding::LF, pkcs8).unwrap()
}

fn main() {
    let folder = TempDir::new().unwrap();
    let secret = request(ClientCredentials::new("shop", "s3cret"));
    let signed = cases().into_iter().flat_map(|case| {
        let Case {
            name,
            algorithm,
            pkcs8,
            sign,
        } = case;
        let (pem, path) = (pem(&pkcs8), folder.path().join(format!("{name}.pem")));
        std::fs::write(&path, &pem).unwrap();
        let key = SigningKey::from_pem(pem, algorithm).unwrap();
        let file = SigningKey::from_file(path, algorithm);
        [
            row(format!("{name} signature"), sign),
            row(
                format!("{name} request"),
                request(PrivateKeyJwt::new("shop", key)),
            ),
            row(
                format!("{name} file"),
                request(PrivateKeyJwt::new("shop", file)),
            ),
        ]
    });
    let secret = std::iter::once(row(SECRET.to_owned(), secret));
    let mut rows: Vec<_> = secret.chain(signed).collect();
    rounds::measure(&mut rows);
    print(&rows);
}

/// A row that ignores the request of the benchmark.
fn row(name: String, call: Call) -> Row {
    Row::new(name, SECRET, &Arc::new(vec![field("none")]), call)
}

/// Prints the table in Markdown. Microseconds, and the ratio to a request with a client secret.
fn print(rows: &[Row]) {
    let micros = |row: &Row| {
        let micros = row.median() / 1000.0;
        if micros < 100.0 {
            format!("{micros:.1}")
        } else {
            thousands(micros)
        }
    };
    println!(
        "| client authentication | signature alone | token request | ÷ with a secret | key from a file |"
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    let (secret, signed) = rows.split_first().unwrap();
    println!("| {SECRET} | | {} | | |", micros(secret));
    for case in signed.as_chunks::<3>().0 {
        let [alone, request, file] = case;
        let name = alone.name.trim_end_matches(" signature");
        let ratio = request.ratio(rows).unwrap();
        let (alone, request, file) = (micros(alone), micros(request), micros(file));
        println!("| {name} | {alone} | {request} | {ratio:.1} | {file} |");
    }
}
