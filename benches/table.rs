//! The table of the documentation, in one run: `cargo bench --bench table`.
//!
//! Each row is measured in short rounds in turn with all others, and the medians are shown. Every
//! figure is also a ratio, to a floor that was measured in the same run: read the ratios.

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

#[path = "support/floor.rs"]
mod floor;
#[path = "support/rounds.rs"]
mod rounds;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "support/tokens.rs"]
mod tokens;

use aws_lc_rs::signature::{self, KeyPair as _, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use floor::{Miss, Moka};
use http::Request;
use rounds::{Call, Row, field, fields, layered, request, server, with};
use tokens::{AUDIENCE, Signer};

fn main() {
    let distinct = if rounds::is_quick() { 50 } else { 10_000 };
    let rs256 = Signer::new("RS256");
    let tokens: Vec<String> = (0..distinct).map(|number| rs256.fresh("RS256", number)).collect();
    println!("tokens of {} bytes", tokens[0].len());
    let mut rows = hits(&rs256, &tokens);
    rows.extend(misses(&rs256, &tokens));
    rows.extend(refusals(&rs256, &tokens[0]));
    rounds::measure(&mut rows);
    rounds::print(&rows);
}

fn hits(signer: &Signer, tokens: &[String]) -> Vec<Row> {
    let (all, one) = (fields(tokens), fields(&tokens[..1]));
    let jwks = signer.jwks();
    let ours = || layered(&server(&jwks, |builder| builder));
    let map = || {
        let map = floor::Map::of(tokens);
        with(move |request| map.check(request))
    };
    let moka = || {
        let moka = Moka::default();
        with(move |request| moka.check(request))
    };
    let in_turn = |what: &str| format!("{what}, {} tokens in turn", tokens.len());
    let scattered = |what: &str| format!("{what}, {} tokens at random", tokens.len());
    let (map_name, moka_name) = ("hit floor, a map", "hit floor, moka");
    vec![
        Row::new("bare service", "", &one, with(|_| {})),
        Row::new(map_name, "", &one, map()),
        Row::new(moka_name, "", &one, moka()),
        Row::new("hit", moka_name, &one, ours()),
        Row::new(scattered(map_name), "", &all, map()).scattered(),
        Row::new(scattered(moka_name), "", &all, moka()).scattered(),
        Row::new(scattered("hit"), scattered(moka_name), &all, ours()).scattered(),
        Row::new(in_turn(map_name), "", &all, map()),
        Row::new(in_turn(moka_name), "", &all, moka()),
        Row::new(in_turn("hit"), in_turn(moka_name), &all, ours()),
    ]
}

fn misses(rs256: &Signer, tokens: &[String]) -> Vec<Row> {
    let uncached = |signer: &Signer| layered(&server(&signer.jwks(), |builder| builder.max_cached_tokens(0)));
    // The primitive, and nothing around it.
    let (key, signed) = (parsed(rs256, "RS256"), tokens[0].clone());
    let alone = move |_: &mut Request<()>| {
        let (message, signature) = signed.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        key.verify_sig(message.as_bytes(), &signature).unwrap();
    };
    let mut rows = vec![Row::new("signature alone RS256", "", &fields(&tokens[..1]), with(alone))];
    let mut pair = |algorithm: &str, signer: &Signer, tokens: &[String]| {
        let (some, floor) = (fields(tokens), format!("miss floor {algorithm}"));
        let miss = Miss(parsed(signer, algorithm));
        rows.push(Row::new(&floor, "", &some, with(move |request| miss.check(request))));
        rows.push(Row::new(format!("miss {algorithm}"), floor, &some, uncached(signer)));
    };
    pair("RS256", rs256, tokens);
    for algorithm in ["RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"] {
        let signer = Signer::new(algorithm);
        let some: Vec<_> = (0..tokens.len() / 10).map(|number| signer.fresh(algorithm, number)).collect();
        pair(algorithm, &signer, &some);
    }
    let first = first_sight(rs256.jwks(), tokens.len());
    rows.push(Row::new("first sight RS256, cache on", "miss floor RS256", &fields(tokens), first));
    rows
}

/// A server that is made anew when it has seen each of so many tokens once.
fn first_sight(jwks: String, tokens: usize) -> Call {
    let fresh = move || layered(&server(&jwks, |builder| builder));
    let (mut call, mut seen) = (fresh(), 0);
    Box::new(move |request| {
        if seen == tokens {
            (call, seen) = (fresh(), 0);
        }
        seen += 1;
        call(request)
    })
}

fn refusals(signer: &Signer, good: &str) -> Vec<Row> {
    let jwks = signer.jwks();
    let (now, header) = (tokens::now(), tokens::header("RS256"));
    let swap = |from: &str, to: &str| {
        let claims = tokens::claims_at(now, 1);
        assert!(claims.contains(from));
        signer.token(&header, &claims.replace(from, to))
    };
    let refusals = [
        ("no dots", "a".repeat(900)),
        ("bad base64", good.replace('.', ".*")),
        ("HS256", signer.token(&tokens::header("HS256"), &tokens::claims_at(now, 1))),
        ("unknown issuer", swap("eu-de", "us-east")),
        ("expired", swap(&format!("\"exp\":{}", now + 3600), "\"exp\":1700000000")),
        ("other audience", swap(&format!("[\"{AUDIENCE}\"]"), "[\"other\"]")),
        ("forged", Signer::new("RS256").fresh("RS256", 1)),
    ];
    let rows = refusals.into_iter().map(|(name, token)| {
        // As after the first good token.
        let mut call = layered(&server(&jwks, |builder| builder));
        assert_eq!(call(request(&field(good))), 200);
        Row::new(format!("refused: {name}"), "miss RS256", &fields(&[token]), call).refused()
    });
    rows.collect()
}

fn parsed(signer: &Signer, algorithm: &str) -> ParsedPublicKey {
    match signer {
        Signer::Rsa(pair, _) => {
            let parameters: &'static signature::RsaParameters = match algorithm {
                "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                _ => &signature::RSA_PKCS1_2048_8192_SHA256,
            };
            ParsedPublicKey::new(parameters, pair.public_key()).unwrap()
        }
        Signer::Ec(pair, "P-256") => {
            ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, pair.public_key()).unwrap()
        }
        Signer::Ec(pair, _) => {
            ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, pair.public_key()).unwrap()
        }
        Signer::Ed25519(pair) => ParsedPublicKey::new(&signature::ED25519, pair.public_key()).unwrap(),
    }
}
