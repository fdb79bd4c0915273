//! The crate adds no copy of a token to memory that outlives its cache entry, and none of a private
//! key or an assertion that outlives its use.
//!
//! The tests search the process's own memory for tokens and keys. Nothing else in the process has
//! one in the clear: a child process makes them, the tests keep them masked, and wipe the buffer of
//! each request. It is a binary of its own, because other tests in the process would hold tokens.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "tests"
)]

#[path = "token_memory/keys.rs"]
mod keys;
mod support;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use support::child_process::{is_child, run_again, test_name};
use support::{AUDIENCE, ISSUER, NOW, claims_with, compact, encode, poll_once_or_panic, rsa};
use tokio::runtime::Builder;
use tower::{Layer, Service, service_fn};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::key_set::KeySet;
use tower_oauth::resource_server::{InboundToken, ResourceServerBuilder};
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{
    Audience, ClientCredentials, Endpoint, Issuer, ResourceServer, TokenExchange, TokenManager,
    TrustedIssuer,
};
use zeroize::Zeroizing;

/// Precedes each masked line of the child.
const LINE: &str = "masked ";

/// Each byte of a token is stored with these bits inverted.
const MASK: u8 = 0x55;

/// The shortest part of a token that counts as a copy.
const TOKEN_WINDOW: usize = 48;

/// Bytes that are looked up at each address. Each window contains at least one such piece.
const PIECE: usize = 8;

/// Tokens with a role in the test; the others fill the caches.
const EXPIRES: usize = 0;
const REVOKED: usize = 1;
const REPLACED: usize = 2;
const OTHER_THREAD: usize = 3;
const KEPT: usize = 4;

const TOKENS: usize = 64;

/// The child: prints a text masked.
fn print(text: impl AsRef<[u8]>) {
    let bytes = text.as_ref().iter();
    let masked = bytes.map(|byte| format!("{:02x}", byte ^ MASK));
    println!("\n{LINE}{}", masked.collect::<String>());
}

/// Held by each test: a search unmasks what it reads, the secrets of another test too.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The masked texts that the child prints in this test.
fn texts_of_child(test: &str) -> Vec<Vec<u8>> {
    let output = run_again(test, &[]);
    let lines = output.lines().filter_map(|line| line.strip_prefix(LINE));
    let masked = lines.map(|hex| {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    });
    masked.collect()
}

/// The child: prints a key set and tokens.
fn print_tokens() {
    print(serde_json::json!({ "keys": [rsa(0).jwk("a"), rsa(1).jwk("b")] }).to_string());
    for number in 0..TOKENS {
        let mut random = [0; 300];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let lifetime = if number == EXPIRES { 10 } else { 3600 };
        let claims = claims_with(serde_json::json!({ "exp": NOW + lifetime })).to_string();
        let payload = format!(r#"{{"pad":"{}",{}"#, encode(random), &claims[1..]);
        let (key, kid) = if number == REVOKED {
            (1, "b")
        } else {
            (0, "a")
        };
        let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
        print(compact(rsa(key), "RS256", &header, payload.as_bytes()));
    }
}

/// The key set, and the masked tokens.
fn tokens_of_child(test: &str) -> (KeySet, Vec<Vec<u8>>) {
    let mut masked = texts_of_child(test).into_iter();
    let keys: Vec<u8> = masked.next().unwrap().iter().map(|b| b ^ MASK).collect();
    let tokens: Vec<_> = masked.collect();
    assert_eq!(tokens.len(), TOKENS);
    (KeySet::from_json(&keys).unwrap(), tokens)
}

/// The parts that no other token has: the random claim at the start of the payload, and the
/// signature.
fn unique_parts(masked: &[u8]) -> [Range<usize>; 2] {
    let dots = masked
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'.' ^ MASK);
    let dots: Vec<usize> = dots.map(|(at, _)| at).collect();
    [dots[0] + 16..dots[0] + 500, dots[1] + 1..masked.len()]
}

/// The decoded signature, masked. With header and payload it is the token.
fn decoded_signature(masked: &[u8]) -> Vec<u8> {
    let [_, signature] = unique_parts(masked);
    let clear: Vec<u8> = masked[signature].iter().map(|byte| byte ^ MASK).collect();
    let (clear, mut decoded) = (Zeroizing::new(clear), Zeroizing::new([0; 256]));
    URL_SAFE_NO_PAD
        .decode_slice(&*clear, &mut *decoded)
        .unwrap();
    decoded.iter().map(|byte| byte ^ MASK).collect()
}

/// What is searched for.
struct Secret {
    /// The token or key that it is, or is a part of.
    number: usize,
    masked: Vec<u8>,
    /// What no other secret has.
    unique: Vec<Range<usize>>,
}

impl Secret {
    fn new(number: usize, masked: Vec<u8>) -> Self {
        let whole = std::iter::once(0..masked.len());
        Self {
            number,
            unique: whole.collect(),
            masked,
        }
    }
}

/// Tokens, and their decoded signatures.
fn secrets_of(tokens: &[Vec<u8>]) -> Vec<Secret> {
    let tokens = tokens.iter().enumerate();
    let secrets = tokens.flat_map(|(number, token)| {
        let mut whole = Secret::new(number, token.clone());
        whole.unique = unique_parts(token).into();
        [whole, Secret::new(number, decoded_signature(token))]
    });
    secrets.collect()
}

/// Searches the memory of this process.
struct Search {
    secrets: Vec<Secret>,
    /// The shortest part of a secret that counts as a copy.
    window: usize,
    /// Masked pieces of the secrets, with the index of the secret and the offset there.
    pieces: HashMap<[u8; PIECE], (usize, usize)>,
    /// Whether a piece starts with these two bytes.
    starts: Vec<bool>,
    /// What was read. The search does not look here.
    buffer: Vec<u8>,
}

impl Search {
    fn new(secrets: Vec<Secret>, window: usize) -> Self {
        let mut pieces = HashMap::new();
        let mut starts = vec![false; 1 << 16];
        for (index, secret) in secrets.iter().enumerate() {
            for part in &secret.unique {
                for at in part.clone().step_by(window - PIECE) {
                    if let Some(piece) = secret.masked[at..].first_chunk::<PIECE>() {
                        pieces.insert(*piece, (index, at));
                        starts[usize::from(u16::from_le_bytes([piece[0], piece[1]]))] = true;
                    }
                }
            }
        }
        Self {
            secrets,
            window,
            pieces,
            starts,
            buffer: vec![0; 1 << 20],
        }
    }

    /// The numbers of the secrets of which memory has a window.
    fn found(&mut self) -> Vec<usize> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let start = buffer.as_ptr().addr();
        let (own, len) = (start..start + buffer.len(), buffer.len());
        let memory = File::open("/proc/self/mem").unwrap();
        let mut found = Vec::new();
        for mapping in writable_mappings() {
            for range in [
                mapping.start..mapping.end.min(own.start),
                mapping.start.max(own.end)..mapping.end,
            ] {
                // Successive reads overlap, so that no window is cut in two.
                for at in range.clone().step_by(len - 2 * self.window) {
                    let read = &mut buffer[..len.min(range.end - at)];
                    // A mapping may be gone: the list of them was made before.
                    if memory
                        .read_exact_at(read, u64::try_from(at).unwrap())
                        .is_ok()
                    {
                        self.find_in(read, &mut found);
                    }
                }
            }
        }
        buffer.fill(0);
        self.buffer = buffer;
        found.sort_unstable();
        found.dedup();
        found
    }

    fn find_in(&self, memory: &mut [u8], found: &mut Vec<usize>) {
        static ZEROS: [u8; 4096] = [0; 4096];
        if memory
            .chunks(ZEROS.len())
            .all(|page| *page == ZEROS[..page.len()])
        {
            return;
        }
        memory.iter_mut().for_each(|byte| *byte ^= MASK);
        for at in 0..memory.len().saturating_sub(PIECE) {
            if !self.starts[usize::from(u16::from_le_bytes([memory[at], memory[at + 1]]))] {
                continue;
            }
            let piece = memory[at..].first_chunk().unwrap();
            let Some((index, offset)) = self.pieces.get(piece).copied() else {
                continue;
            };
            let Secret { number, masked, .. } = &self.secrets[index];
            let same = |(one, other): &(&u8, &u8)| one == other;
            let after = memory[at..].iter().zip(&masked[offset..]).take_while(same);
            let before = memory[..at].iter().rev().zip(masked[..offset].iter().rev());
            if after.count() + before.take_while(same).count() >= self.window {
                found.push(*number);
            }
        }
    }
}

/// The mappings that this process can write to: its heap, its stacks, its static variables.
fn writable_mappings() -> Vec<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let writable = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let address = |hex| usize::from_str_radix(hex, 16).unwrap();
        rest.starts_with("rw").then(|| address(start)..address(end))
    });
    writable.collect()
}

/// A request with a token, in a buffer that is wiped when the request is dropped.
fn request(masked: &[u8]) -> Request<()> {
    let mut field = Zeroizing::new(Vec::with_capacity("Bearer ".len() + masked.len()));
    field.extend_from_slice(b"Bearer ");
    field.extend(masked.iter().map(|byte| byte ^ MASK));
    let field = HeaderValue::from_maybe_shared(Bytes::from_owner(field)).unwrap();
    let request = Request::builder().header(header::AUTHORIZATION, field);
    request.body(()).unwrap()
}

/// Sends a token `times` times and returns the last status.
fn send(server: &ResourceServer, masked: &[u8], times: usize) -> u16 {
    let handler = |_: Request<()>| std::future::ready(Ok::<_, Infallible>(Response::new(())));
    let mut service = server.layer().layer(service_fn(handler));
    let mut status = || {
        poll_once_or_panic(service.call(request(masked)))
            .unwrap()
            .status()
    };
    (0..times).map(|_| status().as_u16()).last().unwrap()
}

/// A token endpoint that exchanges each token.
#[derive(Debug)]
struct Exchanging;

impl Transport for Exchanging {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let name = b"&subject_token=ey";
        assert!(request.body().windows(name.len()).any(|part| part == name));
        let body = r#"{"access_token":"exchanged","token_type":"Bearer","expires_in":3600,
            "issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#;
        Box::pin(async { Ok(Response::new(body.into())) })
    }
}

/// Enough requests for the thread-local cache.
const OFTEN: usize = 20;

#[test]
fn no_copy_of_a_token_outlives_its_cache_entry() {
    if is_child() {
        return print_tokens();
    }
    let _alone = alone();
    let (keys, tokens) = tokens_of_child(test_name!());
    let mut search = Search::new(secrets_of(&tokens), TOKEN_WINDOW);
    let clock = ManualClock::at(UnixTime::from_secs(NOW));
    let server = |change: fn(ResourceServerBuilder) -> ResourceServerBuilder| {
        let issuer = Issuer::new(ISSUER).unwrap();
        let issuer = TrustedIssuer::new(issuer, Audience::new(AUDIENCE).unwrap());
        let builder = ResourceServer::from_issuer(issuer.keys(keys.clone()));
        change(builder.clock(clock.clone())).build().unwrap().0
    };
    assert!(
        search.found().is_empty(),
        "the test has no token in the clear"
    );
    let held = request(&tokens[5]);
    assert_eq!(search.found(), [5], "the search finds a token");
    drop(held);
    assert!(search.found().is_empty(), "the request is wiped");

    // Kept for the handler.
    let uncached = server(|builder| builder.max_cached_tokens(0));
    let handler = |request: Request<()>| {
        let kept = InboundToken::from_request(&request).cloned();
        std::future::ready(Ok::<_, Infallible>(Response::new(kept)))
    };
    let mut service = uncached.layer().keep_token().layer(service_fn(handler));
    let response = poll_once_or_panic(service.call(request(&tokens[KEPT]))).unwrap();
    let kept = response.into_body().unwrap();
    assert_eq!(search.found(), [KEPT]);
    let endpoint = Endpoint::new("https://as.example/token").unwrap();
    let orders = TokenManager::builder(endpoint, ClientCredentials::new("orders", "s3cret"));
    let exchange = TokenExchange::builder(orders.transport(Exchanging).clock(clock.clone()));
    let exchange = exchange.build().unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let token = runtime.block_on(exchange.access_token(&kept)).unwrap();
    assert_eq!(token.expose_secret(), "exchanged");
    drop(runtime);
    let clone = kept.clone();
    drop(kept);
    assert_eq!(search.found(), [KEPT], "a clone shares the memory");
    drop(clone);
    assert!(search.found().is_empty(), "it is wiped with the last clone");
    assert_eq!(exchange.cached_token_count(), 1, "the cache has its hash");

    // The shared cache.
    let usual = server(|builder| builder);
    for token in &tokens {
        assert_eq!(send(&usual, token, 3), 200);
    }
    assert_eq!(usual.cached_token_count(), 64);
    assert!(
        search.found().is_empty(),
        "the shared cache stores no tokens"
    );
    let small = server(|builder| builder.max_cached_tokens(10));
    for token in &tokens {
        assert_eq!(send(&small, token, 3), 200);
    }
    assert!(small.cached_token_count() <= 10);
    assert!(
        search.found().is_empty(),
        "nor does it while it evicts entries"
    );

    // The thread-local cache.
    for number in [EXPIRES, REVOKED, REPLACED] {
        assert_eq!(send(&usual, &tokens[number], OFTEN), 200);
    }
    assert_eq!(search.found(), [EXPIRES, REVOKED, REPLACED]);
    clock.advance(std::time::Duration::from_secs(70));
    assert_eq!(send(&usual, &tokens[EXPIRES], 1), 401);
    assert_eq!(search.found(), [REVOKED, REPLACED]);
    assert!(usual.revoke_key(&Issuer::new(ISSUER).unwrap(), "b"));
    assert_eq!(send(&usual, &tokens[REVOKED], 1), 401);
    assert_eq!(search.found(), [REPLACED]);

    // Its slots are reused.
    drop(usual);
    assert_eq!(
        search.found(),
        [REPLACED],
        "a dropped server leaves its slots"
    );
    for _ in 0..60 {
        let other = server(|builder| builder);
        for token in &tokens[OTHER_THREAD + 1..] {
            assert_eq!(send(&other, token, 5), 200);
        }
    }
    assert!(!search.found().contains(&REPLACED));

    // The thread ends.
    let usual = server(|builder| builder);
    let mut found_on_thread = false;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            assert_eq!(send(&usual, &tokens[OTHER_THREAD], OFTEN), 200);
            found_on_thread = search.found().contains(&OTHER_THREAD);
        });
        // The end of the scope alone does not wait until thread-local values are dropped.
        thread.join().unwrap();
    });
    assert!(found_on_thread);
    assert!(!search.found().contains(&OTHER_THREAD));
}
