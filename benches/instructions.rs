//! What the layer costs in instructions, counted by callgrind: steady on any machine, so that
//! continuous integration can compare them with `instructions.baseline`.
//!
//! `cargo bench --bench instructions`; it needs valgrind and `gungraun-runner`. It fails where a
//! case takes 5 % more than the baseline says. The counts are those of x86-64 with AVX2, which is
//! what valgrind shows to programs whatever the processor has; after a change that was meant, or a
//! new compiler, take them from its output.

#![allow(
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::must_use_candidate,
    clippy::needless_pass_by_value,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "a benchmark"
)]

#[path = "support/floor.rs"]
mod floor;
#[path = "support/tokens.rs"]
#[allow(dead_code, reason = "the table uses all of it")]
mod tokens;

use std::convert::Infallible;
use std::hint::black_box;

use floor::Moka;
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use http::{Request, Response, header};
use tokens::{AUDIENCE, ISSUER, NOW, Signer};
use tower::{Layer, Service, service_fn};
use tower_oauth::{
    Audience, Issuer, KeySet, ManualClock, ResourceServer, ResourceServerService, TrustedIssuer,
    UnixTime,
};

type Answer = fn(Request<()>) -> std::future::Ready<Result<Response<()>, Infallible>>;
type Layered = ResourceServerService<tower::util::ServiceFn<Answer>>;

/// A service, and the request that it is asked.
pub struct Case {
    service: Layered,
    request: Request<()>,
    expected: u16,
    /// What is held until the measurement is over.
    _server: ResourceServer,
}

fn answer(_: Request<()>) -> std::future::Ready<Result<Response<()>, Infallible>> {
    std::future::ready(Ok(Response::new(())))
}

fn now_or_never<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it was not decided at once"),
    }
}

/// A few free blocks of each size that a request takes. Whether the allocator finds one or has to
/// look for it is a tenth of a hit, and depends on what was freed before, which is not the layer's
/// work.
fn stock_the_allocator() {
    let blocks = (8..1024)
        .step_by(16)
        .flat_map(|size| [size; 4])
        .map(Vec::<u8>::with_capacity);
    drop(black_box(blocks.collect::<Vec<_>>()));
}

fn request(token: &str) -> Request<()> {
    Request::builder()
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(())
        .unwrap()
}

/// A server that has verified other tokens of the same issuer before.
fn case(algorithm: &str, cached: u64, token: impl FnOnce(&Signer) -> String) -> Case {
    let signer = Signer::new(algorithm);
    let issuer = TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    );
    let issuer = issuer.keys(KeySet::from_json(signer.jwks().as_bytes()).unwrap());
    let builder =
        ResourceServer::from_issuer(issuer).clock(ManualClock::at(UnixTime::from_secs(NOW)));
    let server = builder.max_cached_tokens(cached).build().unwrap().0;
    let mut service = server.layer().layer(service_fn(answer as Answer));
    for number in [0, 0, 1, 1, 2] {
        let warm = now_or_never(service.call(request(&signer.good(algorithm, number)))).unwrap();
        assert_eq!(warm.status(), 200);
    }
    let request = request(&token(&signer));
    stock_the_allocator();
    Case {
        service,
        request,
        expected: 200,
        _server: server,
    }
}

fn hit() -> Case {
    case("EdDSA", 1000, |signer| {
        // Ed25519 signs the same way twice.
        signer.good("EdDSA", 1)
    })
}

/// A token that this thread meets all the time.
fn hit_at_hand() -> Case {
    let mut case = hit();
    let field = case.request.headers()[header::AUTHORIZATION].clone();
    for _ in 0..20 {
        let request = Request::builder()
            .header(header::AUTHORIZATION, &field)
            .body(())
            .unwrap();
        assert_eq!(
            now_or_never(case.service.call(request)).unwrap().status(),
            200
        );
    }
    case
}

/// The least that a hit takes with moka, around the same service.
fn floor_of_a_hit() -> (Moka, Request<()>) {
    let (moka, signer) = (Moka::default(), Signer::new("EdDSA"));
    for number in [0, 1, 2, 1] {
        moka.check(&mut request(&signer.good("EdDSA", number)));
    }
    let request = request(&signer.good("EdDSA", 1));
    stock_the_allocator();
    (moka, request)
}

fn miss(algorithm: &str) -> Case {
    case(algorithm, 0, |signer| signer.good(algorithm, 9))
}

fn first_sight(algorithm: &str) -> Case {
    case(algorithm, 1000, |signer| signer.good(algorithm, 9))
}

fn refused(what: &str) -> Case {
    // Without the cache, whose housekeeping comes when it comes.
    let refused = case("EdDSA", 0, |signer| {
        let swap = |from: &str, to: &str| {
            signer.token(
                &tokens::header("EdDSA"),
                &tokens::claims(9).replace(from, to),
            )
        };
        match what {
            "no dots" => "a".repeat(900),
            "bad base64" => signer.good("EdDSA", 9).replace('.', ".*"),
            "hs256" => signer.token(&tokens::header("HS256"), &tokens::claims(9)),
            "unknown issuer" => swap("eu-de", "us-east"),
            _ => swap(&format!("\"exp\":{}", NOW + 3600), "\"exp\":1700000000"),
        }
    });
    Case {
        expected: 401,
        ..refused
    }
}

/// What each case took when it was last looked at. A line for each: its name, its instructions.
const BASELINE: &str = include_str!("instructions.baseline");

/// Not more than 5 % above the baseline. A case that it does not know would pass whatever it took.
fn near(case: &str) -> LibraryBenchmarkConfig {
    let known = BASELINE.lines().find_map(|line| {
        line.strip_prefix(case)?
            .strip_prefix(' ')?
            .parse::<u64>()
            .ok()
    });
    let Some(known) = known else {
        panic!("instructions.baseline has no line for {case}")
    };
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, known + known / 20)]));
    config
}

#[library_benchmark(teardown = is_as_expected)]
#[bench::hit(args = (hit()), config = near("hit"))]
#[bench::hit_at_hand(args = (hit_at_hand()), config = near("hit_at_hand"))]
#[bench::miss_rs256(args = (miss("RS256")), config = near("miss_rs256"))]
#[bench::miss_ps256(args = (miss("PS256")), config = near("miss_ps256"))]
#[bench::miss_es256(args = (miss("ES256")), config = near("miss_es256"))]
#[bench::miss_eddsa(args = (miss("EdDSA")), config = near("miss_eddsa"))]
#[bench::first_sight_rs256(args = (first_sight("RS256")), config = near("first_sight_rs256"))]
#[bench::refused_no_dots(args = (refused("no dots")), config = near("refused_no_dots"))]
#[bench::refused_bad_base64(args = (refused("bad base64")), config = near("refused_bad_base64"))]
#[bench::refused_hs256(args = (refused("hs256")), config = near("refused_hs256"))]
#[bench::refused_unknown_issuer(args = (refused("unknown issuer")), config = near("refused_unknown_issuer"))]
#[bench::refused_expired(args = (refused("expired")), config = near("refused_expired"))]
fn layer(case: Case) -> (Response<()>, u16, Layered) {
    let Case {
        mut service,
        request,
        expected,
        ..
    } = case;
    let response = now_or_never(service.call(black_box(request))).unwrap();
    (response, expected, service)
}

#[library_benchmark]
#[bench::floor_of_a_hit(args = (floor_of_a_hit()), config = near("floor_of_a_hit"))]
fn without_layer((moka, mut request): (Moka, Request<()>)) -> (Response<()>, Moka) {
    moka.check(&mut request);
    (now_or_never(answer(black_box(request))).unwrap(), moka)
}

fn is_as_expected((response, expected, _service): (Response<()>, u16, Layered)) {
    assert_eq!(response.status(), expected);
}

library_benchmark_group!(name = requests, benchmarks = [layer, without_layer]);
main!(library_benchmark_groups = requests);
