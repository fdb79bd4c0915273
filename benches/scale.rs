//! What more tokens, longer tokens and more threads do to a hit: `cargo bench --bench scale`.
//!
//! Prints tables; the curves go to `target/plots`. `cargo bench --bench scale -- threads` prints one of them
//! (`number`, `size`, `threads`, `memory`). The tokens are signed
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
use std::time::{Duration, Instant};

use floor::Moka;
use plot::Curve;
use rounds::{Call, Row, fields, layered, request, server, thousands, with};
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
    let tokens: Vec<String> = (0..most).map(|number| sized(&signer, number, USUAL)).collect();
    println!("{most} tokens of {} bytes, made in {} s\n", tokens[0].len(), made.elapsed().as_secs());
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
        (|number| format!("floor of a hit: moka, {number} tokens"), |number| format!("hit, {number} tokens"));
    let (mut floors, mut hits) = (Curve::new("floor of a hit: moka"), Curve::new("hit"));
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
    let cost = |name: fn(usize) -> String, number| {
        printed.iter().find(|row| row.name == name(number)).map(Row::median)
    };
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
        let (hit_floor, miss) =
            (format!("floor of a hit: moka, {len} bytes"), format!("miss EdDSA, {len} bytes"));
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
    let curves =
        [curve("floor of a hit: moka", "floor of a hit"), curve("hit", "hit,"), curve("miss, EdDSA", "miss")];
    plot::draw("token_size", "a request, by the size of its token", "bytes", &curves);
}

/// Requests a second, of one thread and of two. What the bare service gains is what the machine has
/// to give.
fn by_threads(jwks: &str, tokens: &[String]) {
    let resource = server(jwks, |builder| builder);
    let moka = Arc::new(Moka::default());
    type Make<'m> = Box<dyn Fn() -> Call + 'm>;
    let bare: Make<'_> = Box::new(|| with(|_| {}));
    let floor: Make<'_> = Box::new(|| {
        let moka = Arc::clone(&moka);
        with(move |request| moka.check(request))
    });
    let hit: Make<'_> = Box::new(|| layered(&resource));
    // Threads that share nothing: what the machine has to give for this work.
    let alone: Make<'_> = Box::new(|| layered(&server(jwks, |builder| builder)));
    let first = |count: usize| &tokens[..count.min(tokens.len())];
    let (one, other) = (&tokens[..1], &tokens[1..2]);
    println!(
        "Requests a second, and how many times as many two threads serve: in the calls alone, and with what"
    );
    println!("it takes to make the requests.\n");
    println!(
        "| what | one thread | two threads | in the calls | in all |\n| --- | ---: | ---: | ---: | ---: |"
    );
    for (name, make, tokens) in [
        ("bare service", &bare, [one, one]),
        ("floor of a hit: moka, both the same token", &floor, [one, one]),
        ("**hit**, both the same token", &hit, [one, one]),
        ("floor of a hit: moka, each a token of its own", &floor, [one, other]),
        ("**hit**, each a token of its own", &hit, [one, other]),
        ("**hit**, each a server and a token of its own", &alone, [one, other]),
        ("floor of a hit: moka, both 50 tokens in turn", &floor, [first(50); 2]),
        ("**hit**, both 50 tokens in turn", &hit, [first(50); 2]),
        ("floor of a hit: moka, both 10,000 tokens in turn", &floor, [first(10_000); 2]),
        ("**hit**, both 10,000 tokens in turn", &hit, [first(10_000); 2]),
        ("**hit**, both 10,000 tokens in turn, each a server of its own", &alone, [first(10_000); 2]),
    ] {
        let pairs: Vec<_> = (0..if rounds::is_quick() { 1 } else { 15 })
            .map(|_| [1, 2].map(|threads| requests_a_second(make, &tokens[..threads])))
            .collect();
        let of = |figure: fn(&[Rates; 2]) -> f64| rounds::median(pairs.iter().map(figure).collect());
        println!(
            "| {name} | {} | {} | {:.2} | {:.2} |",
            thousands(of(|[one, _]| one.in_calls)),
            thousands(of(|[_, two]| two.in_calls)),
            of(|[one, two]| two.in_calls / one.in_calls),
            of(|[one, two]| two.in_all / one.in_all),
        );
    }
    println!();
}

/// Requests a second.
struct Rates {
    /// By the time that each thread spent in calls.
    in_calls: f64,
    /// From the first start to the last end.
    in_all: f64,
}

/// One thread for each list of tokens. The requests are made in small batches, which is not the layer's
/// work.
fn requests_a_second(make: &dyn Fn() -> Call, threads: &[&[String]]) -> Rates {
    const BATCH: usize = 64;
    let batches = if rounds::is_quick() { 2 } else { 4_000 };
    let start = Barrier::new(threads.len());
    std::thread::scope(|scope| {
        let mut working = Vec::new();
        for (thread, tokens) in threads.iter().enumerate() {
            let mut call = make();
            // As a connection would have it: bytes of its own. Each thread is at another place of the list.
            let fields: Vec<_> = tokens.iter().map(|token| rounds::field(token)).collect();
            let mut next = thread * fields.len() / 2;
            let start = &start;
            working.push(scope.spawn(move || {
                let mut batch = |count: usize| {
                    let requests: Vec<_> = (0..count)
                        .map(|_| {
                            next += 1;
                            request(&fields[next % fields.len()])
                        })
                        .collect();
                    let began = Instant::now();
                    let good = requests.into_iter().map(&mut call).filter(|status| *status == 200).count();
                    let took = began.elapsed();
                    assert_eq!(good, count);
                    took
                };
                // Often enough to be remembered, and to be at hand.
                for _ in 0..20 {
                    batch(fields.len());
                }
                start.wait();
                let began = Instant::now();
                let in_calls = (0..batches).map(|_| batch(BATCH)).sum::<Duration>();
                (in_calls, began, Instant::now())
            }));
        }
        let (mut in_calls, mut times) = (0.0, Vec::new());
        let each = (batches * BATCH) as f64;
        for thread in working {
            let (took, began, ended) = thread.join().unwrap();
            in_calls += each / took.as_secs_f64();
            times.push((began, ended));
        }
        let began = times.iter().map(|(began, _)| *began).min().unwrap();
        let ended = times.iter().map(|(_, ended)| *ended).max().unwrap();
        Rates { in_calls, in_all: each * times.len() as f64 / (ended - began).as_secs_f64() }
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
