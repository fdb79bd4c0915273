//! Instruction counts of the layer, measured by callgrind and compared with
//! `benches/instructions.baseline`. The counts do not depend on the machine's speed or load.
//!
//! `cargo bench --manifest-path benches/instructions/Cargo.toml` needs valgrind and
//! `gungraun-runner`. It fails if a case takes more than 5 % above its baseline. The counts are for
//! x86-64 with AVX2, the instruction set that valgrind emulates on every processor. After an
//! intended change or a new compiler, copy the new counts from the output.

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

#[path = "../../support/floor.rs"]
mod floor;
#[path = "../../support/tokens.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod tokens;

use std::convert::Infallible;
use std::hint::black_box;

use floor::Moka;
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use http::request::Parts;
use http::{Request, Response, header};
use tokens::{AUDIENCE, ISSUER, NOW, Signer};
use tower::{Layer, Service, service_fn};
use tower_oauth::client::BearerTokenService;
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::key_set::KeySet;
use tower_oauth::resource_server::{
    ProtectedResource, ResourceServerBuilder, ResourceServerService,
};
use tower_oauth::transport::ServiceTransport;
use tower_oauth::{
    Audience, AuthContext, BoxError, ClientCredentials, Endpoint, Issuer, Origin, ResourceServer,
    TokenManager, TrustedIssuer,
};

type Handler = fn(Request<()>) -> std::future::Ready<Result<Response<()>, Infallible>>;
type Layered = ResourceServerService<tower::util::ServiceFn<Handler>>;

/// A service and the request to measure.
pub struct Case {
    service: Layered,
    request: Request<()>,
    expected: u16,
    /// Dropped after the measurement.
    _server: ResourceServer,
}

fn handler(_: Request<()>) -> std::future::Ready<Result<Response<()>, Infallible>> {
    std::future::ready(Ok(Response::new(())))
}

fn poll_once_or_panic<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the future is pending"),
    }
}

/// Leaves free blocks of each size that a request allocates. Without them the allocator's search,
/// which depends on earlier frees and not on the layer, is a tenth of a hit.
fn fill_free_lists() {
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

/// A server that has already verified other tokens of the same issuer.
fn case(algorithm: &str, cached: u64, token: impl FnOnce(&Signer) -> String) -> Case {
    case_with(algorithm, cached, token, |builder| builder)
}

fn case_with(
    algorithm: &str,
    cached: u64,
    token: impl FnOnce(&Signer) -> String,
    change: impl FnOnce(ResourceServerBuilder) -> ResourceServerBuilder,
) -> Case {
    let signer = Signer::new(algorithm);
    let issuer = TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    );
    let issuer = issuer.keys(KeySet::from_json(signer.jwks().as_bytes()).unwrap());
    let builder =
        ResourceServer::from_issuer(issuer).clock(ManualClock::at(UnixTime::from_secs(NOW)));
    let server = change(builder.max_cached_tokens(cached)).build().unwrap().0;
    let layer = match server.resource_metadata() {
        Some(_) => server.layer().scope(["orders.read"]),
        None => server.layer(),
    };
    let mut service = layer.layer(service_fn(handler as Handler));
    for number in [0, 0, 1, 1, 2] {
        let warm =
            poll_once_or_panic(service.call(request(&signer.good(algorithm, number)))).unwrap();
        assert_eq!(warm.status(), 200);
    }
    let request = request(&token(&signer));
    fill_free_lists();
    Case {
        service,
        request,
        expected: 200,
        _server: server,
    }
}

fn hit_shared() -> Case {
    case("EdDSA", 1000, |signer| {
        // Ed25519 is deterministic, so this equals the token of the warm-up.
        signer.good("EdDSA", 1)
    })
}

/// A token in the thread-local cache.
fn hit_thread_local() -> Case {
    in_thread_local_cache(hit_shared())
}

/// The same with a metadata document (RFC 9728), and scopes in challenges.
fn hit_of_a_resource() -> Case {
    let resource = ProtectedResource::new("https://api.example/orders").unwrap();
    let good = |signer: &Signer| signer.good("EdDSA", 1);
    let case = case_with("EdDSA", 1000, good, |builder| {
        builder.protected_resource(resource)
    });
    in_thread_local_cache(case)
}

fn in_thread_local_cache(mut case: Case) -> Case {
    let field = case.request.headers()[header::AUTHORIZATION].clone();
    for _ in 0..20 {
        let request = Request::builder()
            .header(header::AUTHORIZATION, &field)
            .body(())
            .unwrap();
        assert_eq!(
            poll_once_or_panic(case.service.call(request))
                .unwrap()
                .status(),
            200
        );
    }
    case
}

/// The server and the head of a request with a token in the thread-local cache.
fn hit_direct() -> (ResourceServer, Parts) {
    let Case {
        request, _server, ..
    } = hit_thread_local();
    (_server, request.into_parts().0)
}

/// The server and a token in the thread-local cache.
fn hit_of_token() -> (ResourceServer, String) {
    let (server, head) = hit_direct();
    let field = head.headers[header::AUTHORIZATION].to_str().unwrap();
    (server, field.strip_prefix("Bearer ").unwrap().to_owned())
}

/// The floor of a hit: a lookup in moka before the same service.
fn hit_floor_moka() -> (Moka, Request<()>) {
    let (moka, signer) = (Moka::default(), Signer::new("EdDSA"));
    for number in [0, 1, 2, 1] {
        moka.check(&mut request(&signer.good("EdDSA", number)));
    }
    let request = request(&signer.good("EdDSA", 1));
    moka.maintain();
    fill_free_lists();
    (moka, request)
}

type Called = fn(Request<String>) -> std::future::Ready<Result<Response<()>, Infallible>>;

/// A client that has a token, the request to measure, and the runtime of the token's renewal.
pub struct Outgoing {
    service: BearerTokenService<tower::util::ServiceFn<Called>>,
    /// With an empty body, so that it is copied for a retry.
    request: Request<String>,
    runtime: tokio::runtime::Runtime,
}

/// The outgoing layer with a token in hand.
fn outgoing_hit() -> Outgoing {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let endpoint = service_fn(async |_: Request<_>| {
        let body = r#"{"access_token":"a-token","token_type":"Bearer","expires_in":3600}"#;
        Ok::<_, BoxError>(Response::new(body.to_owned()))
    });
    let tokens = runtime.block_on(async {
        let endpoint_url = Endpoint::new("https://as.example/token").unwrap();
        let credentials = ClientCredentials::new("shop", "s3cret");
        let tokens = TokenManager::builder(endpoint_url, credentials)
            .transport(ServiceTransport::new(endpoint))
            .clock(ManualClock::at(UnixTime::from_secs(NOW)))
            .start()
            .unwrap();
        let token = tokens.access_token().await.unwrap();
        assert_eq!(token.expose_secret(), "a-token");
        tokens
    });
    let layer = tokens.layer([Origin::new("https://orders.example").unwrap()]);
    let called: Called = |_| std::future::ready(Ok(Response::new(())));
    let mut service = layer.layer(service_fn(called));
    let request = || {
        Request::get("https://orders.example/orders")
            .body(String::new())
            .unwrap()
    };
    for _ in 0..20 {
        poll_once_or_panic(service.call(request())).unwrap();
    }
    let request = request();
    fill_free_lists();
    Outgoing {
        service,
        request,
        runtime,
    }
}

fn miss(algorithm: &str) -> Case {
    case(algorithm, 0, |signer| signer.good(algorithm, 9))
}

fn first_seen(algorithm: &str) -> Case {
    case(algorithm, 1000, |signer| signer.good(algorithm, 9))
}

fn rejected(what: &str) -> Case {
    // Without the cache, whose maintenance runs at unpredictable requests.
    let rejected = case("EdDSA", 0, |signer| {
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
        ..rejected
    }
}

/// The recorded count of each case, one line `name instructions` each.
const BASELINE: &str = include_str!("../../instructions.baseline");

/// Limits a case to 5 % above its baseline. Panics without a baseline, or the case would have no
/// limit.
fn limit(case: &str) -> LibraryBenchmarkConfig {
    let baseline = BASELINE.lines().find_map(|line| {
        line.strip_prefix(case)?
            .strip_prefix(' ')?
            .parse::<u64>()
            .ok()
    });
    let Some(baseline) = baseline else {
        panic!("instructions.baseline has no line for {case}")
    };
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, baseline + baseline / 20)]));
    config
}

#[library_benchmark(teardown = assert_status)]
#[bench::hit_shared(args = (hit_shared()), config = limit("hit_shared"))]
#[bench::hit_thread_local(args = (hit_thread_local()), config = limit("hit_thread_local"))]
#[bench::hit_of_a_resource(args = (hit_of_a_resource()), config = limit("hit_of_a_resource"))]
#[bench::miss_rs256(args = (miss("RS256")), config = limit("miss_rs256"))]
#[bench::miss_ps256(args = (miss("PS256")), config = limit("miss_ps256"))]
#[bench::miss_es256(args = (miss("ES256")), config = limit("miss_es256"))]
#[bench::miss_eddsa(args = (miss("EdDSA")), config = limit("miss_eddsa"))]
#[bench::first_seen_rs256(args = (first_seen("RS256")), config = limit("first_seen_rs256"))]
#[bench::rejected_no_dots(args = (rejected("no dots")), config = limit("rejected_no_dots"))]
#[bench::rejected_bad_base64(
    args = (rejected("bad base64")),
    config = limit("rejected_bad_base64")
)]
#[bench::rejected_hs256(args = (rejected("hs256")), config = limit("rejected_hs256"))]
#[bench::rejected_unknown_issuer(
    args = (rejected("unknown issuer")),
    config = limit("rejected_unknown_issuer")
)]
#[bench::rejected_expired(args = (rejected("expired")), config = limit("rejected_expired"))]
fn layer(case: Case) -> (Response<()>, u16, Layered) {
    let Case {
        mut service,
        request,
        expected,
        ..
    } = case;
    let response = poll_once_or_panic(service.call(black_box(request))).unwrap();
    (response, expected, service)
}

#[library_benchmark]
#[bench::hit_authenticate(args = (hit_direct()), config = limit("hit_authenticate"))]
fn authenticate((server, head): (ResourceServer, Parts)) -> (AuthContext, ResourceServer, Parts) {
    let context = poll_once_or_panic(server.authenticate(black_box(&head))).unwrap();
    (context, server, head)
}

#[library_benchmark]
#[bench::hit_validate(args = (hit_of_token()), config = limit("hit_validate"))]
fn validate((server, token): (ResourceServer, String)) -> (AuthContext, ResourceServer, String) {
    let context = poll_once_or_panic(server.validate(black_box(&token))).unwrap();
    (context, server, token)
}

#[library_benchmark]
#[bench::outgoing_hit(args = (outgoing_hit()), config = limit("outgoing_hit"))]
fn client(outgoing: Outgoing) -> (Response<()>, impl Sized) {
    let Outgoing {
        mut service,
        request,
        runtime,
    } = outgoing;
    let response = poll_once_or_panic(service.call(black_box(request))).unwrap();
    (response, (service, runtime))
}

#[library_benchmark]
#[bench::hit_floor_moka(args = (hit_floor_moka()), config = limit("hit_floor_moka"))]
fn without_layer((moka, mut request): (Moka, Request<()>)) -> (Response<()>, Moka) {
    moka.check(&mut request);
    (
        poll_once_or_panic(handler(black_box(request))).unwrap(),
        moka,
    )
}

fn assert_status((response, expected, _service): (Response<()>, u16, Layered)) {
    assert_eq!(response.status(), expected);
}

library_benchmark_group!(
    name = requests,
    benchmarks = [layer, authenticate, validate, client, without_layer]
);
main!(library_benchmark_groups = requests);
