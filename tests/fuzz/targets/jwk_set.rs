//! Any bytes as a JWK Set.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tower_oauth::key_set::KeySet;

/// Accepts any members: a skipped one may contain a number that is out of range.
#[derive(Deserialize)]
struct Document {
    keys: Vec<IgnoredAny>,
}

fuzz_target!(|document: &[u8]| {
    let Ok(keys) = KeySet::from_json(document) else {
        return;
    };
    let document = document
        .strip_prefix("\u{feff}".as_bytes())
        .unwrap_or(document);
    let Document { keys: members } =
        serde_json::from_slice(document).expect("an accepted set is an object");
    let members = members.len();
    assert!((1..=100).contains(&members));
    assert!(keys.len() >= 1);
    assert!(
        keys.len() + keys.skipped().count() <= members,
        "the same key twice is one key"
    );
    assert!(
        keys.key_ids()
            .all(|kid| !kid.is_empty() && kid.len() <= 255)
    );
    let _shown = format!("{keys:?}");
});
