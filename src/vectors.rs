//! Third-party test vectors: Wycheproof, the RFC 7520 cookbook, JSONTestSuite, ed25519-speccheck.
//!
//! They are read from `../shared/vectors` and are not part of this repository. Without them the
//! tests print "skipped" and pass; with `REQUIRE_VECTORS` set they fail. They are inside the crate
//! because their payloads are not claims sets: only the signature is verified.

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::error::ErrorKind;
use crate::jwt::{
    Header, KeyMaterial, Segments, SizeLimits, UnverifiedClaims, VerificationKey, decode_base64url,
};
use crate::key_set::KeySet;
use crate::resource_server::Algorithm;

fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/vectors"));
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        std::env::var_os("REQUIRE_VECTORS").is_none(),
        "the test vectors are missing"
    );
    // Bypasses the output capture of passing tests.
    let _ = writeln!(
        std::io::stderr(),
        "skipped: there are no test vectors in ../shared/vectors"
    );
    None
}

fn read(path: &str) -> Option<Value> {
    let text = std::fs::read(folder()?.join(path)).unwrap();
    Some(serde_json::from_slice(&text).unwrap())
}

/// Whether a compact JWS has a valid signature by a key of `keys`, in the same steps as a token.
fn verifies(jws: &str, keys: &KeySet) -> bool {
    let verify = || -> Result<(), ()> {
        let segments = Segments::split(jws.as_bytes()).map_err(drop)?;
        let header = decode_base64url(segments.header).map_err(drop)?;
        let header = Header::parse(&header).map_err(drop)?;
        decode_base64url(segments.payload).map_err(drop)?;
        let keys = keys.select(&header, &Default::default(), 1).map_err(drop)?;
        let signature = decode_base64url(segments.signature).map_err(drop)?;
        let [key] = keys.as_slice() else {
            return Err(());
        };
        key.verify(header.algorithm, segments.signing_input, &signature)
            .map_err(drop)
    };
    verify().is_ok()
}

/// Parses claims from any bytes, in the same steps as a token's.
fn claims(payload: &[u8]) -> Result<(), ()> {
    let text = std::str::from_utf8(payload).map_err(drop)?;
    UnverifiedClaims::parse(text, SizeLimits::DEFAULT, &|_, _| Ok(()))
        .map(drop)
        .map_err(drop)
}

/// A key set from a JWK or a JWK set, in the form that an issuer publishes.
fn published(key: &Value) -> Option<KeySet> {
    let mut keys = key
        .get("keys")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_else(|| vec![key.clone()]);
    for key in &mut keys {
        if let Some(members) = key.as_object_mut() {
            members
                .retain(|name, _| !matches!(name.as_str(), "d" | "p" | "q" | "dp" | "dq" | "qi"));
        }
    }
    KeySet::from_json(serde_json::json!({ "keys": keys }).to_string().as_bytes()).ok()
}

/// Runs one Wycheproof file. Returns the number of accepted signatures.
fn wycheproof(file: &str, deviations: &[(u64, &str)]) -> Option<usize> {
    let file = read(file)?;
    let mut accepted = 0;
    let mut deviating = Vec::new();
    for group in file["testGroups"].as_array().unwrap() {
        let keys = published(group.get("public").unwrap_or_else(|| &group["private"]));
        for test in group["tests"].as_array().unwrap() {
            // A JSON serialization is an object, and never a compact token.
            let jws = test.get("jws").unwrap_or_else(|| &test["jwe"]);
            let jws = jws.as_str().map_or_else(|| jws.to_string(), str::to_owned);
            let ours = keys.as_ref().is_some_and(|keys| verifies(&jws, keys));
            accepted += usize::from(ours);
            if ours != (test["result"] == "valid") {
                deviating.push(test["tcId"].as_u64().unwrap());
            }
        }
    }
    deviating.sort_unstable();
    let mut declared: Vec<u64> = deviations.iter().map(|(id, _)| *id).collect();
    declared.sort_unstable();
    assert_eq!(deviating, declared);
    Some(accepted)
}

const HMAC: &str = "HS256 with an `oct` key: there is no symmetric verification";

#[test]
fn wycheproof_json_web_signature() {
    const ALPHABET: &str = "`?` inside base64url: rfc8725bis §3.14";
    const ONE_KEY_ONE_ALGORITHM: &str = "the key says PS256, the token PS384: rfc8725bis §3.1";
    const UNREGISTERED: &str = "the key says `ES521`, which is not registered: skipped";
    let deviations = [
        (372, ALPHABET),
        (373, ALPHABET),
        (346, ONE_KEY_ONE_ALGORITHM),
        (350, ONE_KEY_ONE_ALGORITHM),
        (347, UNREGISTERED),
        (351, UNREGISTERED),
        (1, HMAC),
        (348, HMAC),
        (352, HMAC),
        (357, HMAC),
        (358, HMAC),
        (359, HMAC),
        (376, HMAC),
        (377, HMAC),
    ];
    if let Some(accepted) = wycheproof("wycheproof/json_web_signature_test.json", &deviations) {
        assert_eq!(accepted, 32);
    }
}

#[test]
fn wycheproof_json_web_key() {
    let deviations = [(2, HMAC), (13, HMAC), (14, HMAC), (15, HMAC)];
    if let Some(accepted) = wycheproof("wycheproof/json_web_key_test.json", &deviations) {
        assert_eq!(accepted, 1);
    }
}

#[test]
fn wycheproof_json_web_crypto() {
    const ENCRYPTED: &str = "a JWE: the crate decrypts nothing";
    let deviations = [(1, HMAC), (48, HMAC), (50, ENCRYPTED), (67, ENCRYPTED)];
    if let Some(accepted) = wycheproof("wycheproof/json_web_crypto_test.json", &deviations) {
        assert_eq!(accepted, 2);
    }
}

#[test]
fn wycheproof_base64_group_against_the_compact_parser() {
    // The group is signed with HS256, so that full validation would reject all of it for another
    // reason.
    let Some(file) = read("wycheproof/json_web_signature_test.json") else {
        return;
    };
    let mut rejected = Vec::new();
    for group in file["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            let id = test["tcId"].as_u64().unwrap();
            if !(357..=377).contains(&id) {
                continue;
            }
            let parts =
                Segments::split(test["jws"].as_str().unwrap().as_bytes()).and_then(|segments| {
                    decode_base64url(segments.header)?;
                    decode_base64url(segments.payload)?;
                    decode_base64url(segments.signature)
                });
            if parts.is_err() {
                rejected.push(id);
            }
        }
    }
    rejected.sort_unstable();
    assert_eq!(
        rejected,
        [
            360, 361, 362, 363, 364, 365, 366, 368, 369, 371, 372, 373, 374, 375
        ]
    );
}

#[test]
fn rfc_7520_signature_examples() {
    let Some(folder) = folder() else { return };
    let example = |path: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("rfc7520-cookbook").join(path)).unwrap())
            .unwrap()
    };
    for path in [
        "jws/4_1.rsa_v15_signature.json",
        "jws/4_2.rsa-pss_signature.json",
        "jws/4_3.ecdsa_signature.json",
        "curve25519/jws.json",
    ] {
        let example = example(path);
        let keys = published(&example["input"]["key"]).expect(path);
        let jws = example["output"]["compact"].as_str().unwrap();
        assert!(verifies(jws, &keys), "{path}");
        let (rest, signature) = jws.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { "B" } else { "A" };
        assert!(
            !verifies(&format!("{rest}.{other}{}", &signature[1..]), &keys),
            "{path}, tampered"
        );
    }
    // HS256 is not supported; the key sets contain no usable key.
    for path in [
        "jws/4_4.hmac-sha2_integrity_protection.json",
        "jws/4_5.signature_with_detached_content.json",
        "jws/4_6.protecting_specific_header_fields.json",
        "jws/4_7.protecting_content_only.json",
        "rfc7797/hmac-sha2_b64_false.json",
    ] {
        assert!(
            published(&example(path)["input"]["key"]).is_none(),
            "{path}"
        );
    }
    // Encryption, and signatures in JSON form, are rejected by their format with any key.
    let keys = published(&example("jws/4_1.rsa_v15_signature.json")["input"]["key"]).unwrap();
    for entry in std::fs::read_dir(folder.join("rfc7520-cookbook/jwe")).unwrap() {
        let example: Value =
            serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        for form in ["compact", "json", "json_flat"] {
            if let Some(output) = example["output"].get(form) {
                assert!(!verifies(
                    &output
                        .as_str()
                        .map_or_else(|| output.to_string(), str::to_owned),
                    &keys
                ));
            }
        }
    }
    let several = example("jws/4_8.multiple_signatures.json")["output"]["json"].to_string();
    assert!(!verifies(&several, &keys));
}

#[test]
fn json_test_suite_as_payload_header_and_key_set() {
    let Some(folder) = folder() else { return };
    let (mut must_fail, mut must_parse) = (0, 0);
    for entry in std::fs::read_dir(folder.join("JSONTestSuite/test_parsing")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read(&path).unwrap();
        // A header requires `alg` and a set `keys`, so no file is valid there. Each must be
        // rejected with an error.
        assert!(Header::parse(&text).is_err(), "{name}");
        assert!(KeySet::from_json(&text).is_err(), "{name}");
        let parsed = claims(&text);
        if name.starts_with("n_") {
            assert!(parsed.is_err(), "{name}");
            must_fail += 1;
        } else if name.starts_with("y_") {
            let is_object =
                serde_json::from_slice::<Value>(&text).is_ok_and(|value| value.is_object());
            // RFC 7519 §4 allows a parser to reject duplicate names.
            let duplicates = [
                "y_object_duplicated_key.json",
                "y_object_duplicated_key_and_value.json",
            ]
            .contains(&name.as_str());
            assert_eq!(parsed.is_ok(), is_object && !duplicates, "{name}");
            must_parse += 1;
        } else {
            // Implementation-defined: invalid UTF-8, lone surrogates and excessive depth are
            // rejected.
            assert!(parsed.is_err(), "{name}");
        }
    }
    assert_eq!((must_fail, must_parse), (188, 95));
}

#[test]
fn json_test_suite_inside_a_header_and_a_claims_set() {
    let Some(folder) = folder() else { return };
    for entry in std::fs::read_dir(folder.join("JSONTestSuite/test_parsing")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("n_") {
            continue;
        }
        let text = std::fs::read(&path).unwrap();
        // Two files are a valid value inside another document.
        if ["n_structure_object_with_trailing_garbage.json"].contains(&name.as_str()) {
            continue;
        }
        let header = [br#"{"alg":"RS256","x":"#, &*text, b"}"].concat();
        let claims = [br#"{"iss":"a","x":"#, &*text, b"}"].concat();
        let agrees = serde_json::from_slice::<Value>(&header).is_ok();
        assert!(!agrees || Header::parse(&header).is_ok(), "{name}");
        assert!(agrees || Header::parse(&header).is_err(), "{name}");
        assert!(agrees || self::claims(&claims).is_err(), "{name}");
    }
}

#[test]
fn ed25519_speccheck_accepts_the_strict_case_only() {
    let Some(cases) = read("ed25519-speccheck/cases.json") else {
        return;
    };
    let bytes = |case: &Value, member: &str| -> Vec<u8> {
        let hex = case[member].as_str().unwrap();
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let accepted: Vec<usize> = (0..cases.as_array().unwrap().len())
        .filter(|&index| {
            let case = &cases[index];
            let material = bytes(case, "pub_key");
            let key = VerificationKey::new(
                &KeyMaterial::Ed25519 { x: &material },
                Some(Algorithm::EdDsa),
            );
            key.is_ok_and(|key| {
                key.verify(
                    Algorithm::EdDsa,
                    &bytes(case, "message"),
                    &bytes(case, "signature"),
                )
                .is_ok()
            })
        })
        .collect();
    assert_eq!(accepted, [3]);
}

#[test]
fn a_set_without_usable_keys_is_an_error() {
    let error = KeySet::from_json(br#"{"keys":[{"kty":"junk"}]}"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoUsableKey);
}
