//! Any bytes as a JWK Set.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_oauth::KeySet;
use tower_oauth_fuzz::plain;

fuzz_target!(|document: &[u8]| {
    let Ok(keys) = KeySet::from_json(document) else { return };
    let members = plain(document)["keys"].as_array().expect("an array").len();
    assert!((1..=100).contains(&members));
    assert!(keys.len() >= 1);
    assert!(keys.len() + keys.skipped().count() >= members, "each member is used or told of");
    assert!(keys.key_ids().all(|kid| !kid.is_empty() && kid.len() <= 255));
    let _shown = format!("{keys:?}");
});
