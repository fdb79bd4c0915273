//! The table of the documentation, in one run: `cargo bench --bench table`.
//!
//! Each row is measured in short rounds in turn with all others, so that whatever else the machine
//! does falls on all of them; the medians are shown. Every figure is also a ratio, to a floor that was
//! measured in the same run: read the ratios.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

#[path = "support/floor.rs"]
mod floor;
#[path = "support/tokens.rs"]
mod tokens;

use std::alloc::System;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{self, KeyPair as _, ParsedPublicKey};
use floor::{Caller, Map, Miss, Moka};
use http::{HeaderValue, Request, Response, header};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokens::{AUDIENCE, ISSUER, NOW, Signer};
use tower::{Layer, Service, service_fn};
use tower_oauth::{Audience, Issuer, KeySet, ManualClock, ResourceServer, TrustedIssuer, UnixTime};

#[global_allocator]
static ALLOCATIONS: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const DISTINCT: usize = 10_000;
fn distinct() -> usize {
    std::env::var("N").map_or(10_000, |n| n.parse::<usize>().unwrap())
}
const ROUNDS: usize = 25;
const ROUND: Duration = Duration::from_millis(20);
const BATCH: usize = 64;

fn now_or_never<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it was not decided at once"),
    }
}

fn field(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).unwrap()
}

async fn answer(request: Request<()>) -> Result<Response<()>, Infallible> {
    std::hint::black_box(&request);
    drop(request);
    Ok(Response::new(()))
}

type Call = Box<dyn FnMut(Request<()>) -> u16>;

struct Row {
    name: String,
    /// What it is a ratio of, by name.
    floor: &'static str,
    fields: Arc<Vec<HeaderValue>>,
    call: Call,
    next: usize,
    expected: u16,
    nanos: Vec<f64>,
    allocations: f64,
}

impl Row {
    fn new(name: impl Into<String>, floor: &'static str, fields: &Arc<Vec<HeaderValue>>, call: Call) -> Self {
        let fields = Arc::clone(fields);
        Self {
            name: name.into(),
            floor,
            fields,
            call,
            next: 0,
            expected: 200,
            nanos: Vec::new(),
            allocations: 0.0,
        }
    }

    fn refused(mut self) -> Self {
        self.expected = 401;
        self
    }

    fn requests(&mut self, count: usize) -> Vec<Request<()>> {
        (0..count)
            .map(|_| {
                let field = self.fields[(self.next
                    * std::env::var("STEP").map_or(1, |n| n.parse::<usize>().unwrap()))
                    % self.fields.len()]
                .clone();
                self.next += 1;
                Request::builder().header(header::AUTHORIZATION, field).body(()).unwrap()
            })
            .collect()
    }

    /// One round of so many requests, made and asked in small batches, as they come to a server: were all
    /// of them there at once, the memory they fill would be what is measured.
    fn round(&mut self, count: usize) -> Duration {
        let (mut took, mut allocations, mut good) = (Duration::ZERO, 0, 0);
        for batch in (0..count).step_by(BATCH).map(|done| BATCH.min(count - done)) {
            let requests = self.requests(batch);
            let region = Region::new(ALLOCATIONS);
            let began = Instant::now();
            for request in requests {
                good += usize::from((self.call)(request) == self.expected);
            }
            took += began.elapsed();
            allocations += region.change().allocations;
        }
        assert_eq!(good, count, "{}", self.name);
        self.allocations = allocations as f64 / count as f64;
        self.nanos.push(took.as_nanos() as f64 / count as f64);
        took
    }

    fn median(&self) -> f64 {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

fn layered(server: &ResourceServer) -> Call {
    let mut service = server.layer().layer(service_fn(answer));
    Box::new(move |request| now_or_never(service.call(request)).unwrap().status().as_u16())
}

fn with(mut check: impl FnMut(&mut Request<()>) + 'static) -> Call {
    let mut service = service_fn(answer);
    Box::new(move |mut request| {
        check(&mut request);
        now_or_never(service.call(request)).unwrap().status().as_u16()
    })
}

fn server(jwks: &str, cached: bool) -> ResourceServer {
    let issuer = TrustedIssuer::new(Issuer::new(ISSUER).unwrap(), Audience::new(AUDIENCE).unwrap());
    let issuer = issuer.keys(KeySet::from_json(jwks.as_bytes()).unwrap());
    let builder = ResourceServer::trusting(issuer).clock(ManualClock::at(UnixTime::from_secs(NOW)));
    let builder = if cached {
        if let Ok(n) = std::env::var("CAP") {
            builder.max_cached_tokens(n.parse().unwrap()).max_cache_size(n.parse::<u64>().unwrap() * 3355)
        } else {
            builder
        }
    } else {
        builder.max_cached_tokens(0)
    };
    builder.build().unwrap().0
}

fn parsed(signer: &Signer, algorithm: &str) -> ParsedPublicKey {
    match signer {
        Signer::Rsa(pair, _) => {
            let parameters: &'static signature::RsaParameters = match algorithm {
                "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
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

fn main() {
    // `cargo test --benches` and CI only ask whether it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let (distinct, rounds, length) = if quick { (50, 1, Duration::ZERO) } else { (DISTINCT, ROUNDS, ROUND) };
    let mut rows = rows(distinct);
    rows.truncate(7);
    let mut counts = Vec::new();
    for row in &mut rows {
        // All tokens once, then how many fit into a round.
        row.round(row.fields.len());
        let each = row.round(200).as_secs_f64() / 200.0;
        counts.push(if quick { 20 } else { ((length.as_secs_f64() / each) as usize).clamp(20, 100_000) });
        row.nanos.clear();
    }
    for _ in 0..rounds {
        for (row, count) in rows.iter_mut().zip(&counts) {
            row.round(*count);
        }
    }
    println!("| what | ns | allocations | ratio to |");
    println!("| --- | ---: | ---: | --- |");
    let medians: Vec<(String, f64)> = rows.iter().map(|row| (row.name.clone(), row.median())).collect();
    for row in &rows {
        let floor = medians.iter().find(|(name, _)| name == row.floor).map(|(_, nanos)| row.median() / nanos);
        let ratio = floor.map_or(String::new(), |ratio| format!("{ratio:.3} {}", row.floor));
        println!("| {} | {:.0} | {:.1} | {ratio} |", row.name, row.median(), row.allocations);
    }
}

fn rows(distinct: usize) -> Vec<Row> {
    let rs256 = Signer::new("RS256");
    let tokens: Vec<String> = (0..distinct).map(|number| rs256.good("RS256", number)).collect();
    println!("tokens of {} bytes", tokens[0].len());
    let all = Arc::new(tokens.iter().map(|token| field(token)).collect::<Vec<_>>());
    let one = Arc::new(vec![field(&tokens[0])]);
    let caller =
        || Arc::new(Caller { subject: AUDIENCE.into(), scope: "orders.read".into(), expires_at: NOW });
    let map = || {
        let entries = tokens.iter().map(|token| (token.as_bytes().into(), caller()));
        Map(entries.collect())
    };
    let moka = || {
        let cache = moka::sync::Cache::builder()
            .max_capacity(std::env::var("FCAP").map_or(1 << 20, |n| n.parse().unwrap()))
            .build_with_hasher(Default::default());
        Moka(cache)
    };
    let (map_one, map_all, moka_one, moka_all) = (map(), map(), moka(), moka());
    let (miss_one, miss_all) = (Miss(parsed(&rs256, "RS256")), Miss(parsed(&rs256, "RS256")));
    let jwks = rs256.jwks();
    let bad = |token: String| Arc::new(vec![field(&token)]);
    let mut rows = vec![
        Row::new("bare service", "", &one, with(|_| {})),
        Row::new("hit floor, a map", "", &one, with(move |request| map_one.check(request))),
        Row::new("hit floor, moka", "", &one, with(move |request| moka_one.check(request))),
        Row::new("hit", "hit floor, moka", &one, layered(&server(&jwks, true))),
        Row::new("hit floor, a map, 10,000 tokens", "", &all, with(move |request| map_all.check(request))),
        Row::new("hit floor, moka, 10,000 tokens", "", &all, with(move |request| moka_all.check(request))),
        Row::new("hit, 10,000 tokens", "hit floor, moka, 10,000 tokens", &all, layered(&server(&jwks, true))),
        Row::new("miss floor RS256, same", "", &one, with(move |request| miss_one.check(request))),
        Row::new("miss RS256, same", "miss floor RS256, same", &one, layered(&server(&jwks, false))),
        Row::new("miss floor RS256", "", &all, with(move |request| miss_all.check(request))),
        Row::new("miss RS256", "miss floor RS256", &all, layered(&server(&jwks, false))),
    ];
    for (algorithm, floor) in [
        ("PS256", "miss floor PS256"),
        ("ES256", "miss floor ES256"),
        ("ES384", "miss floor ES384"),
        ("EdDSA", "miss floor EdDSA"),
    ] {
        let signer = Signer::new(algorithm);
        let some =
            Arc::new((0..distinct / 10).map(|n| field(&signer.good(algorithm, n))).collect::<Vec<_>>());
        let miss = Miss(parsed(&signer, algorithm));
        rows.push(Row::new(floor, "", &some, with(move |request| miss.check(request))));
        let ours = layered(&server(&signer.jwks(), false));
        rows.push(Row::new(format!("miss {algorithm}"), floor, &some, ours));
    }
    let swap =
        |from: &str, to: &str| rs256.token(&tokens::header("RS256"), &tokens::claims(1).replace(from, to));
    let good = &tokens[0];
    let refusals = [
        ("no dots", "a".repeat(900)),
        ("bad base64", good.replace('.', ".*")),
        ("HS256", rs256.token(&tokens::header("HS256"), &tokens::claims(1))),
        ("unknown issuer", swap("eu-de", "us-east")),
        ("expired", swap(&format!("\"exp\":{}", NOW + 3600), "\"exp\":1700000000")),
        ("other audience", swap(&format!("[\"{AUDIENCE}\"]"), "[\"other\"]")),
        ("forged", Signer::new("RS256").good("RS256", 1)),
    ];
    for (name, token) in refusals {
        // As after the first good token.
        let mut call = layered(&server(&jwks, true));
        call(Request::builder().header(header::AUTHORIZATION, &one[0]).body(()).unwrap());
        rows.push(Row::new(format!("refused: {name}"), "", &bad(token), call).refused());
    }
    rows
}
