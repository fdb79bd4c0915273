//! Any bytes as a JWK Set.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tower_oauth::key_set::KeySet;
use tower_oauth_fuzz::published;

#[derive(Deserialize)]
struct Document {
    keys: Vec<IgnoredAny>,
}

fuzz_target!(|document: &[u8]| {
    let Ok(keys) = KeySet::from_json(document) else {
        return;
    };
    let Document { keys: members } = published(document);
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
