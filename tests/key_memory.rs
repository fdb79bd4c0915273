//! A signing key, from a file or of a Google service account, leaves no copy of its private part in
//! memory when it is dropped.
//!
//! The test searches the process's memory. Nothing else in the process has the key in the clear: a
//! child process makes it, and the test keeps it masked. It is a separate binary, as
//! `token_memory.rs`.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "tests"
)]

mod support;

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use support::PrivateKey;
use support::token_endpoint::{Reply, TokenEndpoint, TokioClock};
use tower_oauth::client::{SigningKey, TokenSource as _};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::{Endpoint, PrivateKeyJwt, TokenManager};
use zeroize::Zeroizing;

/// Set for the child process: where it writes the key.
const CHILD: &str = "KEY_MEMORY_CHILD";

/// Precedes each masked line of the child.
const LINE: &str = "masked ";

/// Each byte of the key is stored with these bits inverted.
const MASK: u8 = 0x55;

/// The shortest part of the key that counts as a copy.
const WINDOW: usize = 24;

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// The child: writes a key, and prints its private part in each form, masked.
fn write_key(path: &str) {
    let PrivateKey::Rsa(pair) = support::rsa(0) else {
        unreachable!()
    };
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let der = der.as_ref();
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        lines.join("\n")
    );
    std::fs::write(path, pem).unwrap();
    // RFC 8017 §A.1.2: version, modulus and public exponent are first.
    let private = &der[310..];
    // As the numbers of aws-lc are in memory.
    let reversed: Vec<u8> = private.iter().rev().copied().collect();
    for part in [private, &reversed, &body.as_bytes()[420..]] {
        let masked = part.iter().map(|byte| format!("{:02x}", byte ^ MASK));
        println!("\n{LINE}{}", masked.collect::<String>());
    }
}

/// The masked windows of the private part.
fn windows_of_child(path: &str) -> HashSet<[u8; WINDOW]> {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .output()
        .unwrap();
    assert!(child.status.success());
    let output = String::from_utf8(child.stdout).unwrap();
    let parts = output.lines().filter_map(|line| line.strip_prefix(LINE));
    let mut windows = HashSet::new();
    let mut count = 0;
    for hex in parts {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let masked: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        windows.extend(
            masked
                .windows(WINDOW)
                .map(|w| <[u8; WINDOW]>::try_from(w).unwrap()),
        );
        count += 1;
    }
    assert_eq!(count, 3);
    windows
}

/// Whether this process has a window of the private part in memory that it can write to.
fn is_found(windows: &HashSet<[u8; WINDOW]>, buffer: &mut [u8]) -> bool {
    let starts: HashSet<[u8; 4]> = windows.iter().map(|w| [w[0], w[1], w[2], w[3]]).collect();
    let mut is_start = vec![false; 1 << 16];
    for start in &starts {
        is_start[usize::from(u16::from_le_bytes([start[0], start[1]]))] = true;
    }
    let own = buffer.as_ptr().addr()..buffer.as_ptr().addr() + buffer.len();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut found = false;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let address = |hex| usize::from_str_radix(hex, 16).unwrap();
        if !rest.starts_with("rw") {
            continue;
        }
        let (start, end) = (address(start), address(end));
        for range in [start..end.min(own.start), start.max(own.end)..end] {
            for at in range.clone().step_by(BLOCK - WINDOW) {
                let read = &mut buffer[..BLOCK.min(range.end - at)];
                // A mapping may be gone: the list of them was made before.
                let at = u64::try_from(at).unwrap();
                if memory.read_exact_at(read, at).is_err() {
                    continue;
                }
                read.iter_mut().for_each(|byte| *byte ^= MASK);
                found |= read.windows(WINDOW).any(|window| {
                    is_start[usize::from(u16::from_le_bytes([window[0], window[1]]))]
                        && windows.contains(window)
                });
            }
        }
    }
    buffer.fill(0);
    found
}

#[test]
fn no_copy_of_a_private_key_outlives_the_signing_key() {
    if let Some(path) = std::env::var_os(CHILD) {
        return write_key(path.to_str().unwrap());
    }
    let path = std::env::temp_dir().join(format!("tower-oauth-{}-key", std::process::id()));
    let windows = windows_of_child(path.to_str().unwrap());
    let mut buffer = vec![0; BLOCK];
    let mut is_found = || is_found(&windows, &mut buffer);
    assert!(!is_found(), "the test has no key in the clear");
    let mut text = Zeroizing::new(vec![0; 4096]);
    let read = File::open(&path).unwrap().read_at(&mut text, 0).unwrap();
    assert!(
        read > 1600 && is_found(),
        "the search finds the text of the key"
    );
    let pem = SecretString::from(std::str::from_utf8(&text[..read]).unwrap());
    let key = SigningKey::from_pem(pem, Algorithm::Ps256).unwrap();
    drop(text);
    assert!(is_found(), "the search finds the numbers of a key in use");
    drop(key);
    assert!(!is_found(), "text and numbers are wiped");

    let mut text = Zeroizing::new(vec![0; 4096]);
    let read = File::open(&path).unwrap().read_at(&mut text, 0).unwrap();
    let mut json = Zeroizing::new(String::with_capacity(8192));
    json.push_str(r#"{"type":"service_account","client_email":"a@b.example","private_key":""#);
    for byte in &text[..read] {
        match byte {
            b'\n' => json.push_str("\\n"),
            byte => json.push(char::from(*byte)),
        }
    }
    json.push_str(r#""}"#);
    let service_account = SecretString::from(json.as_str());
    let builder = TokenManager::google_service_account(service_account).unwrap();
    // As far as the parser goes: what follows might overwrite its copies by chance.
    json.pop();
    json.push_str(r#","token_uri":5}"#);
    let invalid = SecretString::from(json.as_str());
    drop((text, json));
    let error = TokenManager::google_service_account(invalid).map(drop);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("line 1, column"), "{error}");
    assert!(is_found(), "the builder has the key");
    drop(builder);
    assert!(!is_found(), "neither parser nor builder leaves a copy");

    let key = SigningKey::from_file(&path, Algorithm::Ps256);
    key.check_key().unwrap();
    assert!(
        !is_found(),
        "the file is parsed without a copy that remains"
    );

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
        let url = Endpoint::new("https://as.example/token").unwrap();
        let source = TokenManager::builder(url, PrivateKeyJwt::new("orders", key))
            .transport(endpoint.clone())
            .clock(TokioClock::new())
            .build_source()
            .unwrap();
        let _token = source.fetch().await.unwrap();
        assert_eq!(endpoint.count(), 1);
    });
    assert!(!is_found(), "signing leaves no copy either");
    std::fs::remove_file(path).unwrap();
}
