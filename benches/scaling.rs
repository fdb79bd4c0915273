//! The cost of a cache hit by token count, token size and threads: `cargo bench --bench scaling`.
//!
//! Prints tables and draws curves in `target/plots`. `cargo bench --bench scaling -- threads`
//! prints one of them (`number`, `size`, `threads`, `memory`). The tokens are signed with Ed25519,
//! because a million have to be signed; a hit does not verify the signature.

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
#[allow(dead_code, reason = "other benchmarks use the rest")]
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/threads.rs"]
mod threads;
#[allow(dead_code, reason = "other benchmarks use the rest")]
#[path = "support/tokens.rs"]
mod tokens;

use std::sync::Arc;
use std::time::Instant;

use floor::Moka;
use http::HeaderValue;
use plot::Curve;
use rounds::{Row, fields, layered, request, server, with};
use threads::Pair;
use tokens::Signer;
use tower_oauth::resource_server::ResourceServerBuilder;

/// The usual length of an App ID token.
const USUAL_LEN: usize = 900;

fn main() {
    let signer = Signer::new("EdDSA");
    let jwks = signer.jwks();
    let parts = ["number", "size", "threads", "memory"].map(rounds::is_selected);
    let count = match parts {
        _ if rounds::is_quick() => 100,
        [true, ..] => 1_000_000,
        _ => 100_000,
    };
    let started = Instant::now();
    let tokens: Vec<String> = (0..count)
        .map(|number| signer.fresh_of_len("EdDSA", number, USUAL_LEN))
        .collect();
    println!(
        "{count} tokens of {} bytes, signed in {} s\n",
        tokens[0].len(),
        started.elapsed().as_secs()
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
        by_memory(&jwks, &tokens[..count.min(100_000)]);
    }
}

fn with_large_cache(builder: ResourceServerBuilder) -> ResourceServerBuilder {
    builder.max_cached_tokens(2_000_000).max_cache_size(8 << 30)
}

/// 1 to 1,000,000 tokens, visited in an order unrelated to their insertion.
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
        // One size at a time: a million tokens fill a few gigabytes.
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
                layered(&server(jwks, with_large_cache)),
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
    if let (Some(floor), Some(floor_of_1000), Some(hit), Some(hit_of_1000)) = (
        cost(floor_name, 100_000),
        cost(floor_name, 1_000),
        cost(hit_name, 100_000),
        cost(hit_name, 1_000),
    ) {
        println!(
            "\n100,000 tokens / 1,000: {:.2}; floor (memory latency): {:.2}; hit / floor: {:.2}\n",
            hit / hit_of_1000,
            floor / floor_of_1000,
            (hit / hit_of_1000) / (floor / floor_of_1000)
        );
    }
    plot::draw(
        "distinct_tokens",
        "cost of a hit by number of tokens",
        "tokens",
        &[floors, hits],
    );
}

/// Tokens of 0.5 to 8 KiB.
fn by_size(signer: &Signer) {
    let jwks = signer.jwks();
    let mut rows = Vec::new();
    for len in [512, 900, 2048, 4096, 8192 - 64] {
        let some = fields(&[signer.fresh_of_len("EdDSA", 1, len)]);
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
        "cost of a request by token size",
        "bytes",
        &curves,
    );
}

/// The throughput of two threads. The bare service shows what the machine allows.
fn by_threads(jwks: &str, tokens: &[String]) {
    let resource = server(jwks, |builder| builder);
    let moka = Arc::new(Moka::default());
    let bare = || with(|_| {});
    let floor = || {
        let moka = Arc::clone(&moka);
        with(move |request| moka.check(request))
    };
    let hit = || layered(&resource);
    // Threads that share nothing show what the machine allows for this work.
    let own_server = || layered(&server(jwks, |builder| builder));
    let first = |count: usize| &tokens[..count.min(tokens.len())];
    let (one, other, some, many) = (&tokens[..1], &tokens[1..2], first(50), first(10_000));
    // Two comparisons, because more than 16 threads on two cores share the allocator's arenas and
    // their locks.
    threads::compare(vec![
        Pair::new("bare service", bare, [one, one]),
        Pair::new(
            "floor of a hit: moka, both the same token",
            floor,
            [one, one],
        ),
        Pair::new("**hit**, both the same token", hit, [one, one]),
        Pair::new(
            "floor of a hit: moka, each its own token",
            floor,
            [one, other],
        ),
        Pair::new("**hit**, each its own token", hit, [one, other]),
        Pair::new(
            "**hit**, each its own server and token",
            own_server,
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
            "**hit**, both 10,000 tokens in turn, each its own server",
            own_server,
            [many, many],
        ),
    ]);
}

/// The memory of a cached token, of the capacity of a cache, and of the copies of a thread.
fn by_memory(jwks: &str, tokens: &[String]) {
    let empty = |capacity| {
        let cache = move |builder: ResourceServerBuilder| {
            with_large_cache(builder).max_cached_tokens(capacity)
        };
        let mut built = None;
        let measured = allocation_counter::measure(|| built = Some(server(jwks, cache)));
        measured.bytes_current
    };
    let (few, many) = (1_000, 1_001_000);
    println!(
        "a cache takes {:.1} bytes for each token of its capacity",
        (empty(many) - empty(few)) as f64 / (many - few) as f64
    );

    let server = server(jwks, with_large_cache);
    let mut call = layered(&server);
    let some = fields(tokens);
    let measured = allocation_counter::measure(|| {
        for field in some.iter().chain(&*some) {
            assert_eq!(call(request(field)), 200);
        }
        let _runs_maintenance = server.cached_token_count();
    });
    let (cached, live) = (
        server.cached_token_count(),
        u64::try_from(measured.bytes_current).unwrap(),
    );
    println!(
        "{cached} cached tokens of {} bytes take {} bytes each",
        tokens[0].len(),
        live / cached
    );

    // A thread copies a token that it sees often. The first token allocates the slots.
    let copies = 16;
    let of_thread = std::thread::scope(|scope| {
        let copying = scope.spawn(|| {
            let mut call = layered(&server);
            let mut see = |some: &[HeaderValue]| {
                for field in some.iter().cycle().take(some.len() * 100) {
                    assert_eq!(call(request(field)), 200);
                }
            };
            see(&some[..1]);
            allocation_counter::measure(|| see(&some[1..=copies])).bytes_current
        });
        copying.join().unwrap()
    });
    println!(
        "each copy of a cached token in a thread takes {} bytes",
        of_thread / i64::try_from(copies).unwrap()
    );
}
