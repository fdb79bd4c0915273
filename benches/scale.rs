//! What more tokens, longer tokens and more threads do to a hit: `cargo bench --bench scale`.
//!
//! Prints a table and the bars of the project; the curves go to `target/plots`. The tokens are signed
//! with Ed25519, because a million of them have to be made; a hit does not look at the signature.

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
#[path = "support/plot.rs"]
mod plot;
#[allow(dead_code, reason = "the table uses all of it")]
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/tokens.rs"]
mod tokens;

use std::sync::Barrier;
use std::time::Instant;

use floor::Moka;
use http::HeaderValue;
use plot::Curve;
use rounds::{ALLOCATIONS, Row, fields, layered, median, request, server, with};
use stats_alloc::Region;
use tokens::Signer;
use tower_oauth::{ResourceServer, ResourceServerBuilder};

/// What App ID's tokens have.
const USUAL: usize = 900;

fn main() {
    let signer = Signer::new("EdDSA");
    let jwks = signer.jwks();
    let most = if rounds::is_quick() { 100 } else { 1_000_000 };
    let made = Instant::now();
    let tokens: Vec<String> = (0..most).map(|number| sized(&signer, number, USUAL)).collect();
    println!("{most} tokens of {} bytes, made in {} s\n", tokens[0].len(), made.elapsed().as_secs());
    by_number(&jwks, &tokens);
    by_size(&signer);
    by_threads(&jwks, &tokens[0]);
    by_memory(&jwks, &tokens[..most.min(100_000)]);
}

/// A token of this length, or a few bytes more.
fn sized(signer: &Signer, number: usize, len: usize) -> String {
    let bare = signer.good("EdDSA", number);
    let padding = "x".repeat(len.saturating_sub(bare.len()) * 3 / 4);
    let claims = tokens::claims(number).replace(r#""jti""#, &format!(r#""pad":"{padding}","jti""#));
    signer.token(&tokens::header("EdDSA"), &claims)
}

fn roomy(builder: ResourceServerBuilder) -> ResourceServerBuilder {
    builder.max_cached_tokens(2_000_000).max_cache_size(8 << 30)
}

/// Over 1 to a million tokens, in an order that has nothing to do with that of their coming.
fn by_number(jwks: &str, tokens: &[String]) {
    let numbers: Vec<usize> =
        (0..).map(|power| 10_usize.pow(power)).take_while(|n| *n <= tokens.len()).collect();
    let (floor_name, hit_name) =
        (|number| format!("hit floor, moka, {number} tokens"), |number| format!("hit, {number} tokens"));
    let (mut floors, mut hits) = (Curve::new("hit floor, moka"), Curve::new("hit"));
    let mut printed = Vec::new();
    for number in numbers {
        // One number after the other: a million tokens fill a few gigabytes.
        let some = fields(&tokens[..number]);
        let moka = Moka::default();
        let mut rows = [
            Row::new(floor_name(number), "", &some, with(move |request| moka.check(request))).scattered(),
            Row::new(hit_name(number), floor_name(number), &some, layered(&server(jwks, roomy))).scattered(),
        ];
        rounds::measure(&mut rows);
        floors.push(number, rows[0].median());
        hits.push(number, rows[1].median());
        printed.extend(rows);
    }
    rounds::print(&printed);
    let cost = |name: fn(usize) -> String, number| median(&printed, &name(number));
    if let (Some(floor), Some(floor_of_few), Some(hit), Some(hit_of_few)) =
        (cost(floor_name, 100_000), cost(floor_name, 1_000), cost(hit_name, 100_000), cost(hit_name, 1_000))
    {
        println!(
            "\n100,000 tokens / 1,000: {:.2}; the floor's, which is memory latency: {:.2}; beyond that: {:.2}\n",
            hit / hit_of_few,
            floor / floor_of_few,
            (hit / hit_of_few) / (floor / floor_of_few)
        );
    }
    plot::draw("distinct_tokens", "a hit, by the number of tokens in use", "tokens", &[floors, hits]);
}

/// Over 0.5 to 8 KiB.
fn by_size(signer: &Signer) {
    let jwks = signer.jwks();
    let mut rows = Vec::new();
    for len in [512, 900, 2048, 4096, 8192 - 64] {
        let some = fields(&[sized(signer, 1, len)]);
        let (moka, len) = (Moka::default(), some[0].len() - "Bearer ".len());
        let (hit_floor, miss) = (format!("hit floor, moka, {len} bytes"), format!("miss EdDSA, {len} bytes"));
        rows.push(Row::new(&hit_floor, "", &some, with(move |request| moka.check(request))));
        rows.push(Row::new(
            format!("hit, {len} bytes"),
            hit_floor,
            &some,
            layered(&server(&jwks, |all| all)),
        ));
        let uncached = layered(&server(&jwks, |builder| builder.max_cached_tokens(0)));
        rows.push(Row::new(miss, "", &some, uncached));
    }
    rounds::measure(&mut rows);
    rounds::print(&rows);
    let curve = |name: &str, start: &str| {
        let mut curve = Curve::new(name);
        for row in rows.iter().filter(|row| row.name.starts_with(start)) {
            let len = row.name.split(' ').rev().nth(1).unwrap().parse().unwrap();
            curve.push(len, row.median());
        }
        curve
    };
    let curves = [curve("hit floor, moka", "hit floor"), curve("hit", "hit,"), curve("miss, EdDSA", "miss")];
    plot::draw("token_size", "a request, by the size of its token", "bytes", &curves);
}

/// Hits a second, of one thread and of two.
fn by_threads(jwks: &str, token: &str) {
    let server = server(jwks, |builder| builder);
    let field = rounds::field(token);
    let mut best = [0.0_f64; 2];
    hits_a_second(&server, &field, 1);
    for _ in 0..if rounds::is_quick() { 1 } else { 9 } {
        for (threads, best) in (1..).zip(&mut best) {
            *best = best.max(hits_a_second(&server, &field, threads));
        }
    }
    println!(
        "\nhits a second: one thread {:.0}, two threads {:.0}: {:.2} times as many\n",
        best[0],
        best[1],
        best[1] / best[0]
    );
}

fn hits_a_second(server: &ResourceServer, field: &HeaderValue, threads: usize) -> f64 {
    let each = if rounds::is_quick() { 100 } else { 300_000 };
    let start = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..threads)
            .map(|_| {
                let mut call = layered(server);
                // As a connection would have it: a value of its own.
                let field = HeaderValue::from_bytes(field.as_bytes()).unwrap();
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..each {
                        assert_eq!(call(request(&field)), 200);
                    }
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        for thread in working {
            thread.join().unwrap();
        }
        (threads * each) as f64 / began.elapsed().as_secs_f64()
    })
}

/// What each token takes that is kept.
fn by_memory(jwks: &str, tokens: &[String]) {
    let server = server(jwks, roomy);
    let mut call = layered(&server);
    let some = fields(tokens);
    let region = Region::new(ALLOCATIONS);
    for field in some.iter().chain(&*some) {
        assert_eq!(call(request(field)), 200);
    }
    let kept = server.cached_tokens();
    let change = region.change();
    let live = change.bytes_allocated - change.bytes_deallocated;
    println!("{kept} tokens of {} bytes are kept in {} bytes each", tokens[0].len(), live as u64 / kept);
}
