//! Any spelling of a key, and any value of its members.

use proptest::prelude::*;
use serde_json::{Value, json};
use tower_oauth::key_set::KeySet;

use super::{decoded, keys, line_breaks, server, sign, with};
use crate::support::{self, encode};

/// The spelling of one number.
#[derive(Clone, Debug)]
struct Spelling {
    /// Leading zeros that are added; `None` removes them.
    zeros: Option<usize>,
    is_standard: bool,
    padding: usize,
    line: usize,
}

impl Spelling {
    fn write(&self, bytes: &[u8], is_number: bool) -> String {
        let bytes = match self.zeros {
            _ if !is_number => bytes.to_vec(),
            Some(zeros) => [vec![0; zeros], bytes.to_vec()].concat(),
            None => bytes
                .iter()
                .copied()
                .skip_while(|&byte| byte == 0)
                .collect(),
        };
        let mut text = encode(bytes);
        if self.is_standard {
            text = text.replace('-', "+").replace('_', "/");
        }
        line_breaks(&format!("{text}{}", "=".repeat(self.padding)), self.line)
    }
}

fn spelling() -> impl Strategy<Value = Spelling> {
    let zeros = prop::option::of(0_usize..9);
    let fields = (zeros, any::<bool>(), 0_usize..3, 1_usize..90);
    fields.prop_map(|(zeros, is_standard, padding, line)| Spelling {
        zeros,
        is_standard,
        padding,
        line,
    })
}

/// Any JSON, as text.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(128)
    })]

    #[test]
    fn any_spelling_of_its_numbers_is_the_same_key(
        which in 0_usize..5,
        first in spelling(),
        second in spelling(),
    ) {
        let key = &keys()[which];
        let (names, is_number) = match key.alg {
            "RS256" => (&["n", "e"][..], true),
            "EdDSA" => (&["x"][..], false),
            _ => (&["x", "y"][..], true),
        };
        let spelled = names.iter().zip([first, second]).map(|(name, spelling)| {
            ((*name).to_owned(), spelling.write(&decoded(&key.jwk, name), is_number).into())
        });
        let jwk = with(&key.jwk, Value::Object(spelled.collect()));
        // Beside the key in its plain form it is the same key.
        let document = format!(r#"{{"keys":[{jwk},{}]}}"#, key.jwk);
        let keys = KeySet::from_json(document.as_bytes()).unwrap();
        prop_assert_eq!((keys.len(), keys.skipped().count()), (1, 0));
        let alone = KeySet::from_json(format!(r#"{{"keys":[{jwk}]}}"#).as_bytes()).unwrap();
        let token = sign(&key.key, key.alg, Some("k"));
        prop_assert!(support::poll_once_or_panic(server(alone).validate(&token)).is_ok());
    }

    #[test]
    fn a_member_that_is_not_used_never_spoils_a_key(
        name in "(x5t|x5u|x5t#S256|exp|nbf|iat|ext|[a-c]{5,9})",
        value in any_json(),
    ) {
        let key = &keys()[4];
        let jwk = with(&key.jwk, json!({ &name: value, "x5c": value }));
        let document = format!(r#"{{"keys":[{jwk}],"{name}":{value}}}"#);
        let keys = KeySet::from_json(document.as_bytes()).unwrap();
        prop_assert_eq!((keys.len(), keys.skipped().count()), (1, 0));
    }

    #[test]
    fn no_value_of_a_member_affects_the_other_keys(
        name in "(kty|crv|x|y|n|e|kid|use|alg|key_ops|x5c|d|k|oth)",
        value in any_json(),
    ) {
        let [rsa, p256, ..] = keys();
        let other = with(&rsa.jwk, json!({ "kid": "other" }));
        let document = format!(r#"{{"keys":[{},{other}]}}"#, with(&p256.jwk, json!({ name: value })));
        let keys = KeySet::from_json(document.as_bytes()).unwrap();
        prop_assert!(keys.key_ids().any(|kid| kid == "other"));
        prop_assert_eq!(keys.len() + keys.skipped().count(), 2);
    }
}
