//! The table of `guide::performance`: `cargo bench --bench authorize`.
//!
//! All rows are measured in interleaved short rounds; the table shows medians. Each row is also
//! shown as a ratio to a floor measured in the same run. Ratios are more stable than times.
//! `cargo bench --bench authorize -- rejected` measures the rows whose names contain `rejected`.

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
#[allow(dead_code, reason = "other benchmarks use the rest")]
#[path = "support/tokens.rs"]
mod tokens;

use std::collections::HashSet;
use std::sync::Arc;

use aws_lc_rs::signature::{self, KeyPair as _, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use floor::{Miss, Moka};
use http::{HeaderValue, Request};
use rounds::{Call, Row, calls, field, fields, layered, request, server, thousands, with};
use tokens::{AUDIENCE, ISSUER, Signer};
use tower::{Layer as _, Service as _, service_fn};
use tower_oauth::{Audience, Issuer, RequireScopeLayer, ResourceServer, TrustedIssuer};

fn main() {
    let distinct = if rounds::is_quick() { 50 } else { 10_000 };
    let rs256 = Signer::new("RS256");
    let tokens: Vec<String> = (0..distinct)
        .map(|number| rs256.fresh("RS256", number))
        .collect();
    println!("RS256 with RSA-2048, tokens of {} bytes\n", tokens[0].len());
    let mut rows = hits(&rs256, &tokens);
    rows.extend(hits_of_many(10 * distinct, tokens[0].len()));
    rows.extend(misses(&rs256, &tokens));
    rows.extend(rejections(&rs256, &tokens[0]));
    let all = rows.len();
    let selected = rows.iter().filter(|row| rounds::is_selected(&row.name));
    let selected: HashSet<_> = selected
        .flat_map(|row| [row.name.clone(), row.floor.clone()])
        .collect();
    rows.retain(|row| selected.contains(&row.name));
    rounds::measure(&mut rows);
    rounds::print(&rows);
    if rows.len() == all {
        print_summary(&rows);
    }
}

/// Prints the README's table.
fn print_summary(rows: &[Row]) {
    let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
    let line = |what: &str, row: &Row, floor: &str| {
        let ratio = row
            .ratio(rows)
            .map_or(String::new(), |ratio| format!("{ratio:.2} "));
        println!(
            "| {what} | {} | {:.0} | {ratio}{floor} |",
            thousands(row.median()),
            row.allocations
        );
    };
    println!("| a request | ns | allocations | ÷ its floor |");
    println!("| --- | ---: | ---: | --- |");
    line("bare service", row(BARE), "");
    line("cached token", row(HIT), "of a lookup in moka");
    line(
        "one of 10,000 cached tokens, in turn",
        row(HIT_IN_TURN),
        "of a lookup in moka",
    );
    line(
        "one of 10,000 cached tokens, at random",
        row(HIT_AT_RANDOM),
        "of a lookup in moka",
    );
    line(
        "new token",
        row(FIRST_SEEN),
        "of base64, one pass of serde and the signature",
    );
    let cheap = [
        "no dots",
        "bad base64",
        "HS256",
        "unknown issuer",
        "expired",
    ];
    let cheap = cheap.map(|what| row(&format!("rejected: {what}")));
    let range = |all: [f64; 5]| {
        let (least, most) = all.iter().fold((f64::MAX, 0.0_f64), |(low, high), x| {
            (low.min(*x), high.max(*x))
        });
        if least < most {
            format!("{} to {}", thousands(least), thousands(most))
        } else {
            thousands(most)
        }
    };
    let slowest =
        cheap.iter().map(|row| row.median()).fold(0.0, f64::max) / row(FIRST_SEEN).median();
    println!(
        "| rejected: not three parts, no base64, other algorithm, unknown issuer, expired \
         | {} | {} | at most {slowest:.2} of a new token |",
        range(cheap.map(Row::median)),
        range(cheap.map(|row| row.allocations)),
    );
    line(
        "rejected: forged",
        row("rejected: forged"),
        "of base64, one pass of serde and the signature",
    );
}

const BARE: &str = "bare service";
const HIT: &str = "hit";
const HIT_AT_RANDOM: &str = "hit, 10,000 tokens at random";
const HIT_IN_TURN: &str = "hit, 10,000 tokens in turn";
const FIRST_SEEN: &str = "miss, RS256, cache on";

fn hits(signer: &Signer, tokens: &[String]) -> Vec<Row> {
    let (all, one) = (fields(tokens), fields(&tokens[..1]));
    let jwks = signer.jwks();
    let hit = || layered(&server(&jwks, |builder| builder));
    let map = || {
        let map = floor::Map::new(tokens);
        with(move |request| map.check(request))
    };
    let moka = || {
        let moka = Moka::default();
        with(move |request| moka.check(request))
    };
    let [map_floor, moka_floor] = ["a map", "moka"].map(|what| {
        ["", ", 10,000 tokens at random", ", 10,000 tokens in turn"]
            .map(|order| format!("floor of a hit: {what}{order}"))
    });
    vec![
        Row::new(BARE, "", &one, with(|_| {})),
        Row::new(&map_floor[0], "", &one, map()),
        Row::new(&moka_floor[0], "", &one, moka()),
        Row::new(HIT, &moka_floor[0], &one, hit()),
        Row::new("hit, authenticate", HIT, &one, authenticate(&jwks)),
        Row::new("hit, validate", HIT, &one, validate(&jwks, &tokens[0])),
        Row::new(&map_floor[1], "", &all, map()).scattered(),
        Row::new(&moka_floor[1], "", &all, moka()).scattered(),
        Row::new(HIT_AT_RANDOM, &moka_floor[1], &all, hit()).scattered(),
        Row::new(&map_floor[2], "", &all, map()),
        Row::new(&moka_floor[2], "", &all, moka()),
        Row::new(HIT_IN_TURN, &moka_floor[2], &all, hit()),
    ]
}

/// Authenticates the head of a request, and passes its context on as the layer does.
fn authenticate(jwks: &str) -> Call {
    let server = server(jwks, |builder| builder);
    let mut service = service_fn(rounds::handler);
    Box::new(move |request| {
        let (head, body) = request.into_parts();
        let context = rounds::poll_once_or_panic(server.authenticate(&head)).unwrap();
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(context);
        let response = rounds::poll_once_or_panic(service.call(request));
        response.unwrap().status().as_u16()
    })
}

/// Validates a token without its request, and passes its context on as the layer does.
fn validate(jwks: &str, token: &str) -> Call {
    let server = server(jwks, |builder| builder);
    let token = token.to_owned();
    with(move |request| {
        let context = rounds::poll_once_or_panic(server.validate(&token)).unwrap();
        request.extensions_mut().insert(context);
    })
}

/// Hits of ten times as many tokens, of the same length. They are signed with Ed25519, because
/// signing them with RSA takes a minute.
fn hits_of_many(count: usize, len: usize) -> [Row; 2] {
    let signer = Signer::new("EdDSA");
    let tokens: Vec<_> = (0..count)
        .map(|number| signer.fresh_of_len("EdDSA", number, len))
        .collect();
    let (all, moka) = (fields(&tokens), Moka::default());
    let server = server(&signer.jwks(), |builder| {
        builder.max_cached_tokens(1 << 20).max_cache_size(1 << 30)
    });
    let floor = "floor of a hit: moka, 100,000 tokens at random";
    let check = with(move |request| moka.check(request));
    [
        Row::new(floor, "", &all, check).scattered(),
        Row::new(
            "hit, 100,000 tokens at random",
            floor,
            &all,
            layered(&server),
        )
        .scattered(),
    ]
}

fn misses(rs256: &Signer, tokens: &[String]) -> Vec<Row> {
    let uncached = |signer: &Signer| {
        layered(&server(&signer.jwks(), |builder| {
            builder.max_cached_tokens(0)
        }))
    };
    let of_algorithm = |algorithm: &str, signer: &Signer, tokens: &[String]| {
        // The cryptographic primitive alone.
        let key = parsed(signer, algorithm);
        let signed = tokens.iter().map(|token| {
            let (message, signature) = token.rsplit_once('.').unwrap();
            (
                message.to_owned(),
                URL_SAFE_NO_PAD.decode(signature).unwrap(),
            )
        });
        let (signed, mut next) = (signed.collect::<Vec<_>>(), 0);
        let alone = move |_: &mut Request<()>| {
            next = (next + 1) % signed.len();
            key.verify_sig(signed[next].0.as_bytes(), &signed[next].1)
                .unwrap();
        };
        let alone = Row::new(
            format!("{algorithm} signature alone"),
            "",
            &fields(&tokens[..1]),
            with(alone),
        );
        let (some, floor) = (fields(tokens), format!("floor of a miss, {algorithm}"));
        let miss = Miss(parsed(signer, algorithm));
        let least = Row::new(&floor, "", &some, with(move |request| miss.check(request)));
        [
            alone,
            least,
            Row::new(format!("miss, {algorithm}"), floor, &some, uncached(signer)),
        ]
    };
    let mut rows = Vec::from(of_algorithm("RS256", rs256, tokens));
    let first = first_seen(rs256.jwks(), tokens.len());
    rows.push(Row::new(
        FIRST_SEEN,
        "floor of a miss, RS256",
        &fields(tokens),
        first,
    ));
    for algorithm in [
        "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    ] {
        let signer = Signer::new(algorithm);
        let some: Vec<_> = (0..tokens.len() / 10)
            .map(|number| signer.fresh(algorithm, number))
            .collect();
        rows.extend(of_algorithm(algorithm, &signer, &some));
    }
    rows
}

/// Replaces the server after `tokens` requests, so that each token is new to it.
fn first_seen(jwks: String, tokens: usize) -> Call {
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

/// A token with another signature, which is below the modulus: it costs a whole verification.
fn forged(good: &str) -> String {
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let middle = signature.len() / 2;
    let (start, end) = signature.split_at(middle);
    let other = if end.starts_with('A') { 'B' } else { 'A' };
    format!("{rest}.{start}{other}{}", &end[1..])
}

fn rejections(signer: &Signer, good: &str) -> Vec<Row> {
    let jwks = signer.jwks();
    let (now, header) = (tokens::now(), tokens::header("RS256"));
    let other_header = |from: &str, to: &str| {
        assert!(header.contains(from));
        signer.token(&header.replace(from, to), &tokens::claims_at(now, 1))
    };
    let other_claims = |from: &str, to: &str| {
        let claims = tokens::claims_at(now, 1);
        assert!(claims.contains(from));
        signer.token(&header, &claims.replace(from, to))
    };
    let expires = format!("\"exp\":{}", now + 3600);
    let rejections = [
        ("too long", "a".repeat(17_000)),
        ("no dots", "a".repeat(900)),
        ("bad base64", good.replace('.', ".*")),
        (
            "duplicate member",
            other_claims(r#""jti""#, r#""amr":[],"jti""#),
        ),
        ("HS256", other_header("RS256", "HS256")),
        ("unknown issuer", other_claims("eu-de", "us-east")),
        ("expired", other_claims(&expires, r#""exp":1700000000"#)),
        ("unknown key", other_header("appId-", "other-")),
        (
            "bound to a key",
            other_claims(r#""jti""#, r#""cnf":{"jkt":"x"},"jti""#),
        ),
        (
            "ID token",
            other_claims(r#""jti""#, r#""at_hash":"x","jti""#),
        ),
        (
            "other audience",
            other_claims(&format!("[\"{AUDIENCE}\"]"), r#"["other"]"#),
        ),
        (
            "not yet valid",
            other_claims(
                &format!("\"iat\":{now}"),
                &format!("\"iat\":{}", now + 3000),
            ),
        ),
        ("forged", forged(good)),
    ];
    // One good token first, which initializes what is lazy and fills the header cache.
    let warm = || {
        let mut call = layered(&server(&jwks, |builder| builder));
        assert_eq!(call(request(&field(good))), 200);
        call
    };
    let rejected = |what: &str, fields: &Arc<Vec<_>>, call, status| {
        Row::new(
            format!("rejected: {what}"),
            "floor of a miss, RS256",
            fields,
            call,
        )
        .expecting(status)
    };
    let one = |field| Arc::new(vec![HeaderValue::from_static(field)]);
    let mut rows = vec![
        rejected("no bearer token", &one("Basic YXBwOnNlY3JldA"), warm(), 401),
        rejected("two words", &one("Bearer a b"), warm(), 400),
    ];
    rows.extend(rejections.map(|(what, token)| rejected(what, &fields(&[token]), warm(), 401)));
    let good = fields(&[good.to_owned()]);
    let scope = RequireScopeLayer::all(["orders.write"]);
    let scoped = server(&jwks, |builder| builder)
        .layer()
        .layer(scope.layer(service_fn(rounds::handler)));
    rows.push(rejected("other scope", &good, calls(scoped), 403));
    let revoking = server(&jwks, |builder| builder);
    assert!(revoking.revoke_key(&Issuer::new(ISSUER).unwrap(), &tokens::kid()));
    rows.push(rejected("revoked key", &good, layered(&revoking), 401));
    rows.push(rejected(
        "no keys yet",
        &good,
        layered(&without_keys()),
        503,
    ));
    rows
}

/// A server that has not fetched any keys.
fn without_keys() -> ResourceServer {
    let issuer = TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    );
    ResourceServer::from_issuer(issuer).build().unwrap().0
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
        Signer::Ec(pair, "P-384") => {
            ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, pair.public_key()).unwrap()
        }
        Signer::Ec(pair, _) => {
            ParsedPublicKey::new(&signature::ECDSA_P521_SHA512_FIXED, pair.public_key()).unwrap()
        }
        Signer::Ed25519(pair) => {
            ParsedPublicKey::new(&signature::ED25519, pair.public_key()).unwrap()
        }
    }
}
