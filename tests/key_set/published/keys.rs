//! Each form of a member of a key, and keys that are listed several times.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};
use tower_oauth::error::ErrorKind;
use tower_oauth::key_set::KeySet;

use super::{
    Case, Key, accepts, assert_same_rows, decoded, keys, line_breaks, results, sign, with, without,
};
use crate::source::certificate_of;
use crate::support::{ROCA_MODULUS, encode, rsa};

/// The cases of each row of the table of members.
fn members() -> Vec<(&'static str, Vec<Case>)> {
    let [rsa, p256, p384, p521, ed] = keys();
    let points = [p256, p384, p521];
    let numbers = [rsa, p256, p384, p521];
    let each = |names: &[&str], value: Value| -> Vec<Case> {
        names
            .iter()
            .map(|name| rsa.with(json!({ *name: value.clone() })))
            .collect()
    };
    let all = |changes: Value| -> Vec<Case> {
        keys().iter().map(|key| key.with(changes.clone())).collect()
    };
    let spellings = |key: &Key| {
        vec![
            key.spelled(|bytes| URL_SAFE.encode(bytes)),
            key.spelled(|bytes| STANDARD.encode(bytes)),
            key.spelled(|bytes| line_breaks(&encode(bytes), 20)),
            key.spelled(|bytes| format!("{}\n", encode(bytes))),
        ]
    };
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth"];
    let odd = |bytes: usize| encode([&vec![0xff; bytes - 1][..], &[0x01]].concat());
    let n = decoded(&rsa.jwk, "n");
    let without_kid = |jwk: String| Case {
        jwk,
        token: sign(&rsa.key, "RS256", None),
    };
    let added = |member: &str| {
        let jwk = rsa
            .jwk
            .to_string()
            .replacen('{', &format!("{{{member},"), 1);
        rsa.case(jwk)
    };
    vec![
        (
            "`kty`: in another case",
            vec![
                rsa.with(json!({ "kty": "rsa" })),
                p256.with(json!({ "kty": "ec" })),
                ed.with(json!({ "kty": "Okp" })),
            ],
        ),
        (
            "`kty`: `oct`",
            vec![rsa.with(json!({ "kty": "oct", "k": "c2VjcmV0" }))],
        ),
        (
            "`kty`: another name",
            vec![rsa.with(json!({ "kty": "AKP" }))],
        ),
        ("`kty`: absent, `null` or empty", rsa.absent("kty")),
        ("`kty`: of another type", rsa.of_other_types("kty")),
        (
            "`crv`: in another case",
            vec![
                p256.with(json!({ "crv": "p-256" })),
                ed.with(json!({ "crv": "ED25519" })),
            ],
        ),
        (
            "`crv`: `Ed448`, `X25519`, `secp256k1`, another name",
            vec![
                ed.with(json!({ "crv": "Ed448" })),
                ed.with(json!({ "crv": "X25519" })),
                ed.with(json!({ "crv": "Ed448", "alg": "Ed448" })),
                p256.with(json!({ "crv": "secp256k1", "alg": "ES256K" })),
                p256.with(json!({ "crv": "brainpoolP256r1" })),
            ],
        ),
        (
            "`crv`: absent, `null` or empty",
            [p256.absent("crv"), ed.absent("crv")]
                .into_iter()
                .flatten()
                .collect(),
        ),
        (
            "`n`, `e`, `x`, `y`: with a sign byte or more leading zeros",
            numbers
                .iter()
                .flat_map(|key| {
                    [1, 5]
                        .map(|zeros| key.spelled(|bytes| encode([vec![0; zeros], bytes].concat())))
                })
                .collect(),
        ),
        (
            "`n`, `e`, `x`, `y`: without leading zeros",
            vec![p256.spelled(|bytes| encode(bytes.strip_prefix(&[0]).unwrap_or(&bytes)))],
        ),
        (
            "`n`, `e`, `x`, `y`: with padding, in standard base64, or with line breaks",
            numbers.iter().flat_map(|key| spellings(key)).collect(),
        ),
        (
            "`n`, `e`, `x`, `y`: not base64",
            vec![
                rsa.with(json!({ "n": "AQ=A" })),
                rsa.with(json!({ "e": "AQ.B" })),
                rsa.with(json!({ "e": "AQABA" })),
                p256.with(json!({ "x": "?" })),
                p256.with(json!({ "y": "=AAA" })),
            ],
        ),
        (
            "`n`, `e`, `x`, `y`: absent, `null` or empty",
            [
                rsa.absent("n"),
                rsa.absent("e"),
                p256.absent("x"),
                p256.absent("y"),
                ed.absent("x"),
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        (
            "`n`, `e`, `x`, `y`: of another type",
            [
                rsa.of_other_types("n"),
                rsa.of_other_types("e"),
                p256.of_other_types("y"),
                vec![rsa.with(json!({ "e": 65537 }))],
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        (
            "`n`: below 2048 or above 8192 bits",
            [64, 128, 255, 1025, 2048]
                .map(|bytes| rsa.with(json!({ "n": odd(bytes) })))
                .into(),
        ),
        (
            "`n`: with the ROCA weakness",
            vec![
                rsa.with(json!({ "n": ROCA_MODULUS })),
                rsa.with(json!({ "n": format!("AAAA{ROCA_MODULUS}") })),
            ],
        ),
        (
            "`e`: even, 1, or above 32 bits",
            ["AQ", "AQAC", "AAE"]
                .into_iter()
                .map(str::to_owned)
                .chain([encode([1, 0, 0, 0, 1])])
                .map(|e| rsa.with(json!({ "e": e })))
                .collect(),
        ),
        (
            "`x`, `y`: a number above the field of the curve",
            points
                .iter()
                .map(|key| key.spelled(|bytes| encode([vec![1], bytes].concat())))
                .collect(),
        ),
        (
            "`x`, `y`: a point that is not on the curve",
            points
                .iter()
                .map(|key| key.with(json!({ "y": key.jwk["x"] })))
                .collect(),
        ),
        (
            "`x` of Ed25519: with padding, in standard base64, or with line breaks",
            spellings(ed),
        ),
        (
            "`x` of Ed25519: not of 32 bytes",
            vec![
                ed.spelled(|bytes| encode([vec![0], bytes].concat())),
                ed.spelled(|bytes| encode([bytes, vec![0]].concat())),
                ed.spelled(|bytes| encode(&bytes[1..])),
            ],
        ),
        (
            "`x` of Ed25519: a point of small order",
            vec![
                ed.with(json!({ "x": encode([0; 32]) })),
                ed.with(json!({ "x": encode([&[1][..], &[0; 31]].concat()) })),
            ],
        ),
        ("`use`: absent, `null` or empty", rsa.absent("use")),
        (
            "`use`: `sig`, in any case, or an array with it",
            vec![
                rsa.with(json!({ "use": "sig" })),
                rsa.with(json!({ "use": "SIG" })),
                rsa.with(json!({ "use": ["sig"] })),
                rsa.with(json!({ "use": ["enc", "sig"] })),
            ],
        ),
        (
            "`use`: another value, or an empty array",
            vec![
                rsa.with(json!({ "use": "enc" })),
                rsa.with(json!({ "use": "signature" })),
                rsa.with(json!({ "use": ["enc"] })),
                rsa.with(json!({ "use": [] })),
                rsa.with(json!({ "use": "enc", "key_ops": ["verify"] })),
            ],
        ),
        (
            "`use`: of another type, or an array without a string",
            [
                rsa.of_other_types("use"),
                vec![
                    rsa.with(json!({ "use": [null] })),
                    rsa.with(json!({ "use": [7, {}] })),
                ],
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        (
            "`key_ops`: absent, `null` or empty string",
            rsa.absent("key_ops"),
        ),
        (
            "`key_ops`: `verify`, alone or among others, or as a string",
            vec![
                rsa.with(json!({ "key_ops": ["verify"] })),
                rsa.with(json!({ "key_ops": ["sign", 7, "verify", "verify"] })),
                rsa.with(json!({ "key_ops": "verify" })),
            ],
        ),
        (
            "`key_ops`: without `verify`, or an empty array",
            vec![
                rsa.with(json!({ "key_ops": ["sign"] })),
                rsa.with(json!({ "key_ops": "encrypt" })),
                rsa.with(json!({ "key_ops": [] })),
            ],
        ),
        (
            "`key_ops`: of another type, or an array without a string",
            [
                rsa.of_other_types("key_ops"),
                vec![
                    rsa.with(json!({ "key_ops": [null] })),
                    rsa.with(json!({ "key_ops": [7, {}] })),
                ],
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        (
            "`alg`: absent, `null` or empty",
            ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
                .into_iter()
                .flat_map(|alg| {
                    rsa.absent("alg").into_iter().map(move |case| Case {
                        jwk: case.jwk,
                        token: sign(&rsa.key, alg, Some("k")),
                    })
                })
                .collect(),
        ),
        (
            "`alg`: in another case",
            vec![
                rsa.with(json!({ "alg": "rs256" })),
                ed.with(json!({ "alg": "EDDSA" })),
                ed.with(json!({ "alg": "Ed25519" })),
            ],
        ),
        (
            "`alg`: that does not match the key",
            vec![
                rsa.with(json!({ "alg": "ES256" })),
                p256.with(json!({ "alg": "ES384" })),
                p521.with(json!({ "alg": "RS256" })),
                ed.with(json!({ "alg": "ES256" })),
            ],
        ),
        (
            "`alg`: not a supported signature algorithm",
            vec![
                rsa.with(json!({ "alg": "HS256" })),
                rsa.with(json!({ "alg": "RSA-OAEP" })),
                rsa.with(json!({ "alg": "none" })),
            ],
        ),
        (
            "`alg`: of another type",
            [
                rsa.of_other_types("alg"),
                vec![rsa.with(json!({ "alg": ["RS256"] }))],
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        (
            "`kid`: absent, `null` or empty",
            rsa.absent("kid")
                .into_iter()
                .map(|case| without_kid(case.jwk))
                .collect(),
        ),
        (
            "`kid`: an integer",
            vec![Case {
                jwk: with(&rsa.jwk, json!({ "kid": 2026 })),
                token: sign(&rsa.key, "RS256", Some("2026")),
            }],
        ),
        (
            "`kid`: above 255 bytes, or with control characters",
            vec![
                rsa.with(json!({ "kid": "k".repeat(256) })),
                rsa.with(json!({ "kid": "k\n" })),
            ],
        ),
        (
            "`kid`: of another type",
            [
                rsa.of_other_types("kid"),
                vec![rsa.with(json!({ "kid": ["k"] }))],
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        (
            "`d`, `p`, `q`, `dp`, `dq`, `qi`, `oth`: `null` or empty",
            [json!(null), json!(""), json!([])]
                .into_iter()
                .flat_map(|value| each(&private, value))
                .collect(),
        ),
        (
            "`d`, `p`, `q`, `dp`, `dq`, `qi`, `oth`: any other value",
            [
                each(&private, json!("AQAB")),
                each(&["d"], json!(7)),
                each(&["oth"], json!([{ "r": "AQAB" }])),
                all(json!({ "d": "AQAB" })),
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        (
            "`k`: `null` or empty",
            [each(&["k"], json!(null)), each(&["k"], json!(""))]
                .into_iter()
                .flatten()
                .collect(),
        ),
        ("`k`: any other value", each(&["k"], json!("c2VjcmV0"))),
        (
            "`x5c`: with the certificate of this key",
            vec![
                rsa.with(json!({ "x5c": [certificate_of(&n, &[1, 0, 1])] })),
                Case {
                    jwk: with(
                        &rsa.jwk,
                        json!({
                            "n": encode([vec![0], n.clone()].concat()),
                            "x5c": [certificate_of(&n, &[1, 0, 1])],
                        }),
                    ),
                    token: sign(&rsa.key, "RS256", Some("k")),
                },
            ],
        ),
        (
            "`x5c`: `null`, empty, of another type, or not a certificate",
            [
                json!(null),
                json!(""),
                json!([]),
                json!("MIID"),
                json!(7),
                json!({ "a": [] }),
                json!([null]),
                json!([7, "MIID"]),
                json!(["MIID"]),
                json!(["?"]),
                json!([[]]),
            ]
            .into_iter()
            .flat_map(|value| all(json!({ "x5c": value })))
            .collect(),
        ),
        (
            "`x5c`: with the certificate of another key",
            vec![
                rsa.with(json!({ "x5c": [certificate_of(&[7; 256], &[1, 0, 1])] })),
                rsa.with(json!({ "x5c": [certificate_of(&n, &[3])] })),
            ],
        ),
        (
            "`x5t`, `x5t#S256`, `x5u`, `exp`, any other: of any type",
            [
                "x5t", "x5t#S256", "x5u", "exp", "nbf", "iat", "ext", "issuer", "pub",
            ]
            .into_iter()
            .flat_map(|name| {
                [
                    format!(r#""{name}":null"#),
                    format!(r#""{name}":7"#),
                    format!(r#""{name}":-1e999"#),
                    format!(r#""{name}":[{{"n":"AQAB"}}]"#),
                    format!(r#""{name}":"\ud800""#),
                    format!(r#""{name}":{{"d":"AQAB"}}"#),
                ]
                .map(|member| added(&member))
            })
            .collect(),
        ),
        (
            "more than 64 members: ",
            vec![{
                let many = (0..200)
                    .map(|number| format!(r#""m{number}":0"#))
                    .collect::<Vec<_>>();
                added(&many.join(","))
            }],
        ),
        (
            "any: twice",
            [
                r#""kid":"k""#,
                r#""k\u0069d":"k""#,
                r#""n":"AQAB""#,
                r#""alg":"RS256","alg":"RS256""#,
                r#""x5t":1,"x5t":1"#,
            ]
            .map(added)
            .into(),
        ),
        (
            "no object: ",
            ["7", "null", "[]", r#""k""#, "true"]
                .map(|jwk| rsa.case(jwk.to_owned()))
                .into(),
        ),
    ]
}

#[tokio::test]
async fn each_form_of_a_member_has_the_result_that_the_guide_says() {
    let guide = results("member", 2);
    let rows = members();
    assert_same_rows(&guide, rows.iter().map(|(name, _)| *name));
    let other = rsa(0).jwk("other");
    for (row, cases) in rows {
        let expected = guide[row][0].trim_matches('`');
        assert!(!cases.is_empty(), "{row}");
        for Case { jwk, token } in cases {
            let document = format!(r#"{{"keys":[{other},{jwk}]}}"#);
            let keys = KeySet::from_json(document.as_bytes()).expect(&document);
            assert_eq!(
                keys.key_ids().filter(|kid| *kid == "other").count(),
                1,
                "{row}"
            );
            let skipped: Vec<_> = keys.skipped().collect();
            let result = match &skipped[..] {
                [] => "used",
                [skipped] => {
                    assert!(!skipped.detail().is_empty(), "{row}");
                    skipped.reason().as_str()
                }
                _ => panic!("{row}: {skipped:?}"),
            };
            assert_eq!(result, expected, "{row}: {jwk} {skipped:?}");
            // The other key does not match a token without `kid`.
            let alone = format!(r#"{{"keys":[{jwk}]}}"#);
            match KeySet::from_json(alone.as_bytes()) {
                Ok(keys) => assert!(accepts(&keys, &token).await, "{row}: {jwk}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoUsableKey, "{row}");
                    assert!(!accepts(&keys, &token).await, "{row}: {jwk}");
                }
            }
            assert_eq!(
                KeySet::from_json(alone.as_bytes()).is_ok(),
                expected == "used",
                "{row}"
            );
        }
    }
}

/// The keys of a document, with the algorithm and `kid` of each token that they verify, and of
/// each token that they do not.
struct Listing {
    keys: Vec<Value>,
    accepted: Vec<(&'static str, Option<&'static str>)>,
    rejected: Vec<(&'static str, Option<&'static str>)>,
    skipped: &'static [&'static str],
}

#[tokio::test]
async fn the_same_key_listed_several_times_is_one_key() {
    let [key, ..] = keys();
    let jwk = |changes: Value| serde_json::from_str(&with(&key.jwk, changes)).unwrap();
    let bare =
        |changes: Value| -> Value { serde_json::from_str(&without(&jwk(changes), "kid")).unwrap() };
    let spelled: Value = serde_json::from_str(
        &key.spelled(|bytes| STANDARD.encode([vec![0], bytes].concat()))
            .jwk,
    )
    .unwrap();
    let (k, a, b) = (Some("k"), Some("a"), Some("b"));
    let rows = [
        (
            "the same key twice, under one `kid`",
            Listing {
                keys: vec![
                    jwk(json!({ "alg": "RS256" })),
                    jwk(json!({ "alg": "RS256" })),
                    {
                        let mut spelled = spelled.clone();
                        spelled["alg"] = json!("RS256");
                        spelled
                    },
                ],
                accepted: vec![("RS256", k), ("RS256", None)],
                rejected: vec![("PS256", k)],
                skipped: &[],
            },
        ),
        (
            "the same key with `alg` and without",
            Listing {
                keys: vec![jwk(json!({ "alg": "RS256" })), jwk(json!({}))],
                accepted: vec![("RS256", k), ("PS512", k), ("PS256", None)],
                rejected: vec![],
                skipped: &[],
            },
        ),
        (
            "the same key for two algorithms, under one `kid`",
            Listing {
                keys: vec![
                    jwk(json!({ "alg": "RS256" })),
                    jwk(json!({ "alg": "PS256" })),
                ],
                accepted: vec![("RS256", k), ("PS256", k), ("PS256", None)],
                rejected: vec![("RS384", k)],
                skipped: &[],
            },
        ),
        (
            "the same key for two algorithms, under two `kid`s",
            Listing {
                keys: vec![
                    jwk(json!({ "alg": "RS256", "kid": "a" })),
                    jwk(json!({ "alg": "PS256", "kid": "b" })),
                ],
                accepted: vec![("RS256", a), ("PS256", b), ("RS256", None)],
                rejected: vec![("PS256", a), ("RS256", b)],
                skipped: &[],
            },
        ),
        (
            "the same key under two `kid`s, and a token without `kid`",
            Listing {
                keys: vec![
                    jwk(json!({ "kid": "a" })),
                    jwk(json!({ "kid": "b" })),
                    bare(json!({})),
                ],
                accepted: vec![("RS256", a), ("RS256", b), ("RS256", None)],
                rejected: vec![("RS256", k)],
                skipped: &[],
            },
        ),
        (
            "the same key without `kid`, twice",
            Listing {
                keys: vec![bare(json!({})), bare(json!({ "alg": "RS256" }))],
                accepted: vec![("RS256", None), ("PS256", None)],
                rejected: vec![("RS256", k)],
                skipped: &[],
            },
        ),
        (
            "the same key, once for encryption",
            Listing {
                keys: vec![jwk(json!({})), jwk(json!({ "use": "enc" }))],
                accepted: vec![("RS256", k), ("RS256", None)],
                rejected: vec![],
                skipped: &["not_for_signatures"],
            },
        ),
        (
            "different keys under one `kid`",
            Listing {
                keys: vec![
                    jwk(json!({})),
                    jwk(json!({ "alg": "RS256" })),
                    rsa(1).jwk("k"),
                    jwk(json!({ "kid": "a" })),
                ],
                accepted: vec![("RS256", a)],
                rejected: vec![("RS256", k)],
                skipped: &["duplicate_key_id"; 2],
            },
        ),
    ];
    let guide = results("listing", 1);
    assert_same_rows(&guide, rows.iter().map(|(name, _)| *name));
    for (row, listing) in rows {
        let mut orders = [listing.keys.clone(), listing.keys];
        orders[1].reverse();
        for order in orders {
            let document = json!({ "keys": order }).to_string();
            let keys = KeySet::from_json(document.as_bytes()).unwrap();
            let skipped = keys.skipped().map(|skipped| skipped.reason().as_str());
            let skipped: Vec<_> = skipped.collect();
            assert_eq!(skipped, listing.skipped, "{row}");
            let is_named = |code| guide[row][0].contains(code);
            assert!(listing.skipped.iter().all(is_named), "{row}");
            for (alg, kid) in &listing.accepted {
                let token = sign(&key.key, alg, *kid);
                assert!(accepts(&keys, &token).await, "{row}: {alg} {kid:?}");
            }
            for (alg, kid) in &listing.rejected {
                let token = sign(&key.key, alg, *kid);
                assert!(!accepts(&keys, &token).await, "{row}: {alg} {kid:?}");
            }
        }
    }
}
