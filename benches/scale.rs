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
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "support/tokens.rs"]
mod tokens;

use std::sync::{Arc, Barrier};
use std::time::Instant;

use floor::Moka;
use http::HeaderValue;
use plot::Curve;
use rounds::{Call, Row, fields, layered, median, request, server, with};
use tokens::Signer;
use tower_oauth::ResourceServerBuilder;

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
    by_threads(&jwks, &tokens);
    by_memory(&jwks, &tokens[..most.min(100_000)]);
}

/// A token of this length, or a few bytes more.
fn sized(signer: &Signer, number: usize, len: usize) -> String {
    let bare = signer.fresh("EdDSA", number);
    let padding = "x".repeat(len.saturating_sub(bare.len()) * 3 / 4);
    let claims =
        tokens::claims_at(tokens::now(), number).replace(r#""jti""#, &format!(r#""pad":"{padding}","jti""#));
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

/// Requests a second, of one thread and of two. What the bare service gains is what the machine has
/// to give.
fn by_threads(jwks: &str, tokens: &[String]) {
    let resource = server(jwks, |builder| builder);
    let moka = Arc::new(Moka::default());
    let (one, other) = (rounds::field(&tokens[0]), rounds::field(&tokens[1]));
    let shared = [one.clone(), one.clone()];
    let own = [one, other];
    type Make<'m> = Box<dyn Fn() -> Call + 'm>;
    let bare: Make<'_> = Box::new(|| with(|_| {}));
    let floor: Make<'_> = Box::new(|| {
        let moka = Arc::clone(&moka);
        with(move |request| moka.check(request))
    });
    let hit: Make<'_> = Box::new(|| layered(&resource));
    println!("| what | one thread | two threads | times as many |\n| --- | ---: | ---: | ---: |");
    for (name, make, fields) in [
        ("bare service", &bare, &shared),
        ("hit floor, moka, both the same token", &floor, &shared),
        ("hit, both the same token", &hit, &shared),
        ("hit floor, moka, each a token of its own", &floor, &own),
        ("hit, each a token of its own", &hit, &own),
    ] {
        let pairs = (0..if rounds::is_quick() { 1 } else { 15 })
            .map(|_| [1, 2].map(|threads| requests_a_second(make, &fields[..threads])));
        let mut pairs: Vec<_> = pairs.map(|[one, two]| (two / one, one, two)).collect();
        pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let (gain, one, two) = pairs[pairs.len() / 2];
        println!("| {name} | {one:.0} | {two:.0} | {gain:.2} |");
    }
    println!();
}

/// One thread for each field.
fn requests_a_second(make: &dyn Fn() -> Call, fields: &[HeaderValue]) -> f64 {
    let each = if rounds::is_quick() { 100 } else { 300_000 };
    let start = Barrier::new(fields.len());
    std::thread::scope(|scope| {
        let mut working = Vec::new();
        for field in fields {
            let mut call = make();
            // As a connection would have it: bytes of its own.
            let field = HeaderValue::from_bytes(field.as_bytes()).unwrap();
            let start = &start;
            working.push(scope.spawn(move || {
                for _ in 0..3 {
                    assert_eq!(call(request(&field)), 200);
                }
                start.wait();
                let began = Instant::now();
                for _ in 0..each {
                    assert_eq!(call(request(&field)), 200);
                }
                (began, Instant::now())
            }));
        }
        let (began, ended): (Vec<_>, Vec<_>) =
            working.into_iter().map(|thread| thread.join().unwrap()).unzip();
        let took = *ended.iter().max().unwrap() - *began.iter().min().unwrap();
        (fields.len() * each) as f64 / took.as_secs_f64()
    })
}

/// What each token takes that is kept.
fn by_memory(jwks: &str, tokens: &[String]) {
    let server = server(jwks, roomy);
    let mut call = layered(&server);
    let some = fields(tokens);
    let taken = allocation_counter::measure(|| {
        for field in some.iter().chain(&*some) {
            assert_eq!(call(request(field)), 200);
        }
        let _after_housekeeping = server.cached_tokens();
    });
    let (kept, live) = (server.cached_tokens(), u64::try_from(taken.bytes_current).unwrap());
    println!("{kept} tokens of {} bytes are kept in {} bytes each", tokens[0].len(), live / kept);
}
