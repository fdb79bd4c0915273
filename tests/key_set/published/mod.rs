//! What an issuer may publish: the tables of the guide, row by row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::key_set::KeySet;
use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};

use crate::support::{self, AUDIENCE, ISSUER, NOW, PrivateKey, claims, compact};

mod documents;
mod keys;
mod spellings;

/// The rows of the guide's table whose first column has this name, without the header.
fn table(name: &str) -> Vec<Vec<&'static str>> {
    let guide = include_str!("../../../src/guide/published_documents.md");
    let start = format!("| {name} |");
    let rows = guide.lines().skip_while(|line| !line.starts_with(&start));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &'static str| {
        let row = row.strip_prefix('|').unwrap().strip_suffix('|').unwrap();
        row.split('|').map(str::trim).collect()
    };
    rows.map(cells).collect()
}

/// The results of a table, by the text of its first `columns` columns.
fn results(name: &str, columns: usize) -> BTreeMap<String, Vec<&'static str>> {
    let rows = table(name).into_iter();
    let by_name = rows.map(|row| (row[..columns].join(": "), row[columns..].to_vec()));
    let results: BTreeMap<_, _> = by_name.collect();
    assert_eq!(results.len(), table(name).len(), "each row once");
    results
}

/// A table and a test have the same rows.
fn assert_same_rows<'r>(
    guide: &BTreeMap<String, Vec<&str>>,
    tested: impl IntoIterator<Item = &'r str>,
) {
    let tested: BTreeSet<&str> = tested.into_iter().collect();
    let listed: BTreeSet<&str> = guide.keys().map(String::as_str).collect();
    assert_eq!(listed, tested);
}

/// A resource server with fixed keys.
fn server(keys: KeySet) -> ResourceServer {
    let issuer = TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    );
    let clock = ManualClock::at(UnixTime::from_secs(NOW));
    let builder = ResourceServer::from_issuer(issuer.keys(keys)).clock(clock);
    builder.build().unwrap().0
}

fn sign(key: &PrivateKey, alg: &str, kid: Option<&str>) -> String {
    let header = match kid {
        Some(kid) => json!({ "alg": alg, "kid": kid }),
        None => json!({ "alg": alg }),
    };
    compact(
        key,
        alg,
        &header.to_string(),
        claims().to_string().as_bytes(),
    )
}

async fn accepts(keys: &KeySet, token: &str) -> bool {
    server(keys.clone()).validate(token).await.is_ok()
}

/// `jwk` with members replaced, as JSON. `null` stays `null`.
fn with(jwk: &Value, changes: Value) -> String {
    let (mut jwk, Value::Object(changes)) = (jwk.clone(), changes) else {
        panic!("the changes are members");
    };
    jwk.as_object_mut().unwrap().extend(changes);
    jwk.to_string()
}

fn without(jwk: &Value, name: &str) -> String {
    let mut jwk = jwk.clone();
    jwk.as_object_mut().unwrap().remove(name);
    jwk.to_string()
}

fn decoded(jwk: &Value, name: &str) -> Vec<u8> {
    support::decoded(jwk[name].as_str().unwrap())
}

/// A key in one form, and a token that it verifies if it is used.
struct Case {
    jwk: String,
    token: String,
}

/// The keys of a case: one of each type, with the algorithm of its tokens.
struct Key {
    key: PrivateKey,
    alg: &'static str,
    jwk: Value,
}

impl Key {
    fn new(key: PrivateKey, alg: &'static str) -> Self {
        let jwk = key.jwk("k");
        Self { key, alg, jwk }
    }

    fn case(&self, jwk: String) -> Case {
        let token = sign(&self.key, self.alg, Some("k"));
        Case { jwk, token }
    }

    /// The key with these members.
    fn with(&self, changes: Value) -> Case {
        self.case(with(&self.jwk, changes))
    }

    /// The key with each of these values of a member; the last is without the member.
    fn absent(&self, name: &str) -> Vec<Case> {
        let null = self.with(json!({ name: null }));
        let empty = self.with(json!({ name: "" }));
        vec![null, empty, self.case(without(&self.jwk, name))]
    }

    /// The key with values of another type than a string.
    fn of_other_types(&self, name: &str) -> Vec<Case> {
        let values = [json!(-7.5), json!(true), json!({ "a": 1 })];
        let cases = values
            .into_iter()
            .map(|value| self.with(json!({ name: value })));
        cases.collect()
    }

    /// The numbers of the key, each changed by `change`.
    fn spelled(&self, change: impl Fn(Vec<u8>) -> String) -> Case {
        let names = ["n", "e", "x", "y"].into_iter();
        let names = names.filter(|name| self.jwk.get(name).is_some());
        let changes = names.map(|name| (name.to_owned(), change(decoded(&self.jwk, name)).into()));
        self.with(Value::Object(changes.collect::<Map<_, _>>()))
    }
}

fn keys() -> &'static [Key; 5] {
    static KEYS: OnceLock<[Key; 5]> = OnceLock::new();
    // One point in 256 has an x that starts with a zero byte.
    let starts_with_zero = |key: &PrivateKey| decoded(&key.jwk("k"), "x")[0] == 0;
    KEYS.get_or_init(|| {
        let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048);
        [
            Key::new(PrivateKey::Rsa(rsa.unwrap()), "RS256"),
            Key::new(
                std::iter::repeat_with(support::p256)
                    .find(starts_with_zero)
                    .unwrap(),
                "ES256",
            ),
            Key::new(support::p384(), "ES384"),
            Key::new(support::p521(), "ES512"),
            Key::new(support::ed25519(), "EdDSA"),
        ]
    })
}

fn line_breaks(text: &str, after: usize) -> String {
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(after)
        .map(String::from_utf8_lossy)
        .collect();
    lines.join("\r\n")
}
