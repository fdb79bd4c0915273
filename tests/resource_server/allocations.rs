//! Counts the memory allocations of a request.

use allocation_counter::AllocationInfo;
use http::{Request, header};
use serde_json::json;
use tower::{Layer, Service, service_fn};
use tower_oauth::key_set::KeySet;
use tower_oauth::{Audience, Issuer, ResourceServer, ResourceServerLayer, TrustedIssuer};
use tracing::subscriber::{NoSubscriber, with_default};

use crate::support::{
    AUDIENCE, Fixture, ISSUER, NOW, PrivateKey, claims, claims_with, compact, ok,
    poll_once_or_panic, rsa,
};

/// Allocations of each of `times` consecutive requests, without those of building the requests.
/// Without a subscriber: those of other tests in this process would format each event.
fn each_taken(
    times: usize,
    uri: &str,
    fixture: &Fixture,
    token: &str,
    status: u16,
) -> Vec<AllocationInfo> {
    let mut service = fixture.server.layer().layer(service_fn(ok));
    let mut ask = || {
        let request = Request::builder()
            .uri(uri)
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        let request = request.body(()).unwrap();
        let mut response = None;
        let taken = with_default(NoSubscriber::default(), || {
            allocation_counter::measure(|| {
                response = Some(poll_once_or_panic(service.call(request)).unwrap())
            })
        });
        assert_eq!(response.unwrap().status(), status);
        taken
    };
    (0..times).map(|_| ask()).collect()
}

/// The minimum over a few requests: occasionally a request runs the cache's housekeeping.
fn taken_at(uri: &str, fixture: &Fixture, token: &str, status: u16) -> AllocationInfo {
    each_taken(8, uri, fixture, token, status)
        .into_iter()
        .min_by_key(|taken| taken.bytes_total)
        .unwrap()
}

fn taken(fixture: &Fixture, token: &str, status: u16) -> AllocationInfo {
    taken_at("/", fixture, token, status)
}

/// Anyone can cause a 401, so its headers are made in advance.
#[test]
fn a_401_that_names_scopes_takes_no_more_allocations_than_one_that_names_none() {
    let fixture = Fixture::new();
    let allocations = |layer: ResourceServerLayer, token: Option<&str>| {
        let mut service = layer.layer(service_fn(ok));
        let mut taken = (0..8).map(|_| {
            let mut request = Request::builder();
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let request = request.body(()).unwrap();
            with_default(NoSubscriber::default(), || {
                allocation_counter::measure(|| {
                    drop(poll_once_or_panic(service.call(request)).unwrap())
                })
            })
        });
        let first = taken.next().unwrap().count_total;
        taken.fold(first, |least, one| least.min(one.count_total))
    };
    let layer = || fixture.server.layer();
    let long: Vec<_> = (0..100).map(|n| format!("orders.{n}")).collect();
    for token in [None, Some("x"), Some("a.b.c")] {
        let without = allocations(layer(), token);
        for scopes in [&long[..1], &long] {
            assert_eq!(
                allocations(layer().scope(scopes), token),
                without,
                "{token:?}"
            );
        }
    }
}

/// The third request is a hit in the shared cache, the thirtieth in the thread-local cache.
#[test]
fn cached_requests_take_three_allocations_each() {
    let fixture = Fixture::new();
    let subjects = ["a", "b", "c", "d", "e", "f"];
    let each = subjects.map(|subject| {
        let token = fixture.token(&claims_with(json!({ "sub": subject })));
        each_taken(30, "/", &fixture, &token, 200)
    });
    for nth in [3, 30] {
        let least = each
            .iter()
            .filter_map(|each| each.get(nth - 1))
            .map(|taken| taken.count_total)
            .min();
        assert_eq!(least, Some(3), "{nth}");
    }
}

/// The three allocations of a hit, the decoded payload and signature, the member names of the
/// claims, and the context with its payload and strings.
#[test]
fn a_signature_verification_takes_thirteen_allocations() {
    let mut fixture = Fixture::new();
    let keys = json!({ "keys": [fixture.rsa.jwk("rsa")] }).to_string();
    let issuer = TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    )
    .keys(KeySet::from_json(keys.as_bytes()).unwrap());
    let uncached = ResourceServer::from_issuer(issuer)
        .max_cached_tokens(0)
        .clock(fixture.clock.clone());
    fixture.server = uncached.build().unwrap().0;
    let token = fixture.token(&claims());
    let each = each_taken(3, "/", &fixture, &token, 200);
    // The first request initializes the base64 decoder, and its header is not cached yet.
    assert_eq!(
        each.iter()
            .skip(1)
            .map(|taken| taken.count_total)
            .collect::<Vec<_>>(),
        [13, 13]
    );
}

#[test]
fn the_number_of_allocations_of_a_hit_or_rejection_is_independent_of_token_length() {
    let fixture = Fixture::new();
    let token = fixture.token(&claims());
    taken(&fixture, &token, 200);
    assert_eq!(
        taken(&fixture, &token, 200).count_total,
        3,
        "the first insertion into the extensions"
    );

    let padded = |changes: serde_json::Value, len: usize| {
        let mut claims = claims_with(changes);
        claims["pad"] = json!("x".repeat(len));
        claims.to_string()
    };
    let with_header =
        |header: &str, payload: &str| compact(rsa(0), "RS256", header, payload.as_bytes());
    let header = r#"{"alg":"RS256","typ":"JWT","kid":"rsa"}"#;
    let other: &PrivateKey = rsa(1);
    let rejected: [(&str, Box<dyn Fn(usize) -> String>); 8] = [
        ("no dots", Box::new(|len| "a".repeat(len))),
        ("dots", Box::new(|len| ".".repeat(len))),
        (
            "bad base64",
            Box::new(|len| with_header(header, &padded(json!({}), len)).replace('.', ".*")),
        ),
        (
            "HS256",
            Box::new(|len| with_header(r#"{"alg":"HS256"}"#, &padded(json!({}), len))),
        ),
        (
            "no JSON",
            Box::new(|len| with_header(header, &"[".repeat(len))),
        ),
        (
            "unknown issuer",
            Box::new(|len| {
                with_header(
                    header,
                    &padded(json!({ "iss": "https://other.example" }), len),
                )
            }),
        ),
        (
            "expired",
            Box::new(|len| with_header(header, &padded(json!({ "exp": NOW - 3600 }), len))),
        ),
        (
            "forged",
            Box::new(|len| compact(other, "RS256", header, padded(json!({}), len).as_bytes())),
        ),
    ];
    for (what, token) in rejected {
        taken(&fixture, &token(100), 401);
        let (short, long) = (
            taken(&fixture, &token(100), 401),
            taken(&fixture, &token(10_000), 401),
        );
        assert!(short.count_total <= 14, "{what}: {short:?}");
        assert_eq!(long.count_total, short.count_total, "{what}");
        // The decoded payload.
        let longer = u64::try_from(token(10_000).len() - token(100).len()).unwrap();
        assert!(
            long.bytes_total <= short.bytes_total + longer,
            "{what}: {short:?} {long:?}"
        );
    }
}

/// A caller can send tokens without owning the issuer's key.
#[test]
fn memory_of_a_rejection_is_linear_in_token_length_whatever_the_claims() {
    let fixture = Fixture::new();
    let list = |len: usize| {
        (0..len)
            .map(|number| format!(r#""e{number}""#))
            .collect::<Vec<_>>()
            .join(",")
    };
    // Not numbers: serde_json allocates for each if its feature `arbitrary_precision` is enabled.
    let members = |len: usize| {
        (0..len)
            .map(|number| format!(r#""m{number}":true"#))
            .collect::<Vec<_>>()
            .join(",")
    };
    let payloads: [(&str, usize, usize, Box<dyn Fn(usize) -> String>); 8] = [
        (
            "aud",
            10,
            1000,
            Box::new(|len| format!(r#""aud":[{}]"#, list(len))),
        ),
        (
            "scope",
            10,
            1000,
            Box::new(|len| format!(r#""scope":[{}]"#, list(len))),
        ),
        (
            "scp",
            10,
            1000,
            Box::new(|len| format!(r#""scp":[{}]"#, list(len))),
        ),
        (
            "another array",
            10,
            1000,
            Box::new(|len| format!(r#""roles":[{}]"#, list(len))),
        ),
        ("members", 5, 250, Box::new(members)),
        (
            "members of a claim",
            5,
            250,
            Box::new(|len| format!(r#""ext":{{{}}}"#, members(len))),
        ),
        (
            "arrays in the tenant",
            1,
            30,
            Box::new(|len| format!(r#""tenant":{}{}"#, "[".repeat(len), "]".repeat(len))),
        ),
        (
            "depth of the tenant",
            40,
            4000,
            Box::new(|len| format!(r#""tenant":{}{}"#, "[".repeat(len), "]".repeat(len))),
        ),
    ];
    for (what, few_members, many_members, members) in payloads {
        let token = |len: usize| {
            let payload = format!(r#"{{{},"iss":"https://other.example"}}"#, members(len));
            compact(
                rsa(0),
                "RS256",
                r#"{"alg":"RS256","typ":"JWT","kid":"rsa"}"#,
                payload.as_bytes(),
            )
        };
        taken(&fixture, &token(few_members), 401);
        let (few, many) = (
            taken(&fixture, &token(few_members), 401),
            taken(&fixture, &token(many_members), 401),
        );
        // The names, and the strings of an array claim, are in vectors that double.
        let len = u64::try_from(token(many_members).len()).unwrap();
        assert!(
            many.count_total <= few.count_total + 10
                && many.bytes_total <= few.bytes_total + 8 * len,
            "{what}: {few:?} {many:?}"
        );
    }
}

#[test]
fn query_strings_cause_no_allocations() {
    let fixture = Fixture::new();
    let query = |len: usize| {
        format!(
            "/orders?{}",
            "n+%41=v+%42&".repeat(len).trim_end_matches('&')
        )
    };
    let token = fixture.token(&claims());
    taken(&fixture, &token, 200);
    for len in [1, 1000] {
        assert_eq!(
            taken_at(&query(len), &fixture, &token, 200).count_total,
            3,
            "{len}"
        );
    }
    let rejected = |len: usize| taken_at(&query(len), &fixture, "a", 401);
    let (short, long) = (rejected(1), rejected(1000));
    assert_eq!(
        (long.count_total, long.bytes_total),
        (short.count_total, short.bytes_total)
    );
}
