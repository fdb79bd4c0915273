//! What more tokens, longer tokens and more threads do to a hit: `cargo bench --bench scale`.
//!
//! Prints tables; the curves go to `target/plots`. `cargo bench --bench scale -- threads` prints
//! one of them (`number`, `size`, `threads`, `memory`). The tokens are signed
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
#[path = "support/threads.rs"]
mod threads;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "support/tokens.rs"]
mod tokens;

use std::sync::Arc;
use std::time::Instant;

use floor::Moka;
use plot::Curve;
use rounds::{Row, fields, layered, request, server, with};
use threads::Pair;
use tokens::Signer;
use tower_oauth::ResourceServerBuilder;

/// What App ID's tokens have.
const USUAL: usize = 900;

fn main() {
    let signer = Signer::new("EdDSA");
    let jwks = signer.jwks();
    let parts = ["number", "size", "threads", "memory"].map(rounds::is_wanted);
    let most = match parts {
        _ if rounds::is_quick() => 100,
        [true, ..] => 1_000_000,
        _ => 100_000,
    };
    let made = Instant::now();
    let tokens: Vec<String> = (0..most)
        .map(|number| sized(&signer, number, USUAL))
        .collect();
    println!(
        "{most} tokens of {} bytes, made in {} s\n",
        tokens[0].len(),
        made.elapsed().as_secs()
    );
    let [number, size, threads, memory] = parts;
    if number {
        by_number(&jwks, &tokens);
    }
    if size {
        by_size(&signer);
    }
    if threads {
        by_threads(&jwks, &tokens);
    }
    if memory {
        by_memory(&jwks, &tokens[..most.min(100_000)]);
    }
}

/// A token of this length, or a few bytes more.
fn sized(signer: &Signer, number: usize, len: usize) -> String {
    let bare = signer.fresh("EdDSA", number);
    let padding = "x".repeat(len.saturating_sub(bare.len()) * 3 / 4);
    let claims = tokens::claims_at(tokens::now(), number)
        .replace(r#""jti""#, &format!(r#""pad":"{padding}","jti""#));
    signer.token(&tokens::header("EdDSA"), &claims)
}

fn roomy(builder: ResourceServerBuilder) -> ResourceServerBuilder {
    builder.max_cached_tokens(2_000_000).max_cache_size(8 << 30)
}

/// Over 1 to a million tokens, in an order that has nothing to do with that of their coming.
fn by_number(jwks: &str, tokens: &[String]) {
    let numbers: Vec<usize> = (0..)
        .map(|power| 10_usize.pow(power))
        .take_while(|n| *n <= tokens.len())
        .collect();
    let (floor_name, hit_name) = (
        |number| format!("floor of a hit: moka, {number} tokens"),
        |number| format!("hit, {number} tokens"),
    );
    let (mut floors, mut hits) = (Curve::new("floor of a hit: moka"), Curve::new("hit"));
    let mut printed = Vec::new();
    for number in numbers {
        // One number after the other: a million tokens fill a few gigabytes.
        let some = fields(&tokens[..number]);
        let moka = Moka::default();
        let mut rows = [
            Row::new(
                floor_name(number),
                "",
                &some,
                with(move |request| moka.check(request)),
            )
            .scattered(),
            Row::new(
                hit_name(number),
                floor_name(number),
                &some,
                layered(&server(jwks, roomy)),
            )
            .scattered(),
        ];
        rounds::measure(&mut rows);
        floors.push(number, rows[0].median());
        hits.push(number, rows[1].median());
        printed.extend(rows);
    }
    rounds::print(&printed);
    let cost = |name: fn(usize) -> String, number| {
        printed
            .iter()
            .find(|row| row.name == name(number))
            .map(Row::median)
    };
    if let (Some(floor), Some(floor_of_few), Some(hit), Some(hit_of_few)) = (
        cost(floor_name, 100_000),
        cost(floor_name, 1_000),
        cost(hit_name, 100_000),
        cost(hit_name, 1_000),
    ) {
        println!(
            "\n100,000 tokens / 1,000: {:.2}; the floor's, which is memory latency: {:.2}; beyond that: {:.2}\n",
            hit / hit_of_few,
            floor / floor_of_few,
            (hit / hit_of_few) / (floor / floor_of_few)
        );
    }
    plot::draw(
        "distinct_tokens",
        "a hit, by the number of tokens in use",
        "tokens",
        &[floors, hits],
    );
}

/// Over 0.5 to 8 KiB.
fn by_size(signer: &Signer) {
    let jwks = signer.jwks();
    let mut rows = Vec::new();
    for len in [512, 900, 2048, 4096, 8192 - 64] {
        let some = fields(&[sized(signer, 1, len)]);
        let (moka, len) = (Moka::default(), some[0].len() - "Bearer ".len());
        let (hit_floor, miss) = (
            format!("floor of a hit: moka, {len} bytes"),
            format!("miss EdDSA, {len} bytes"),
        );
        rows.push(Row::new(
            &hit_floor,
            "",
            &some,
            with(move |request| moka.check(request)),
        ));
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
    let curves = [
        curve("floor of a hit: moka", "floor of a hit"),
        curve("hit", "hit,"),
        curve("miss, EdDSA", "miss"),
    ];
    plot::draw(
        "token_size",
        "a request, by the size of its token",
        "bytes",
        &curves,
    );
}

/// What a second thread is worth. What the bare service gains is what the machine has to give.
fn by_threads(jwks: &str, tokens: &[String]) {
    let resource = server(jwks, |builder| builder);
    let moka = Arc::new(Moka::default());
    let bare = || with(|_| {});
    let floor = || {
        let moka = Arc::clone(&moka);
        with(move |request| moka.check(request))
    };
    let hit = || layered(&resource);
    // Threads that share nothing: what the machine has to give for this work.
    let alone = || layered(&server(jwks, |builder| builder));
    let first = |count: usize| &tokens[..count.min(tokens.len())];
    let (one, other, some, many) = (&tokens[..1], &tokens[1..2], first(50), first(10_000));
    // Not more at a time: threads beyond 16 share the allocator's arenas on two cores, and its
    // locks.
    threads::compare(vec![
        Pair::new("bare service", bare, [one, one]),
        Pair::new(
            "floor of a hit: moka, both the same token",
            floor,
            [one, one],
        ),
        Pair::new("**hit**, both the same token", hit, [one, one]),
        Pair::new(
            "floor of a hit: moka, each a token of its own",
            floor,
            [one, other],
        ),
        Pair::new("**hit**, each a token of its own", hit, [one, other]),
        Pair::new(
            "**hit**, each a server and a token of its own",
            alone,
            [one, other],
        ),
    ]);
    threads::compare(vec![
        Pair::new("bare service", bare, [one, one]),
        Pair::new(
            "floor of a hit: moka, both 50 tokens in turn",
            floor,
            [some, some],
        ),
        Pair::new("**hit**, both 50 tokens in turn", hit, [some, some]),
        Pair::new(
            "floor of a hit: moka, both 10,000 tokens in turn",
            floor,
            [many, many],
        ),
        Pair::new("**hit**, both 10,000 tokens in turn", hit, [many, many]),
        Pair::new(
            "**hit**, both 10,000 tokens in turn, each a server of its own",
            alone,
            [many, many],
        ),
    ]);
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
        let _after_housekeeping = server.cached_token_count();
    });
    let (kept, live) = (
        server.cached_token_count(),
        u64::try_from(taken.bytes_current).unwrap(),
    );
    println!(
        "{kept} tokens of {} bytes are kept in {} bytes each",
        tokens[0].len(),
        live / kept
    );
}
