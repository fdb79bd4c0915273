//! Parses one member of a JWK Set into a verification key (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
//!
//! A key is its numbers, in any spelling. `null` and an empty string count as absent, and members
//! that are not used are not looked at. What restricts a key (`use`, `key_ops`, `alg`) or discloses
//! it (`d`) is never ignored: if it cannot be read, the key is skipped.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::compromised::Compromised;
use super::skip_reason::SkipReason;
use super::skipped_key::Skip;
use crate::jwt::{
    Algorithm, InvalidKey, KeyMaterial, StrKey, VerificationKey, decode_base64url, valid_key_id,
};

/// The members of private keys (RFC 7518 §6.2.2, §6.3.2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// What identifies the key of a private key.
const IDENTITY: [&str; 5] = ["kid", "n", "e", "x", "y"];

/// How many readings of a private key with duplicate names are revoked. Three values of `kid`, `x`
/// and `y` have 27.
const MAX_READINGS: usize = 32;

/// The DER tag of an INTEGER.
const INTEGER: u8 = 0x02;

/// A parsed member of a JWK Set.
pub(super) struct Member {
    /// Set even if the key is unusable.
    pub(super) kid: Option<Box<str>>,
    pub(super) key: Result<VerificationKey, Skip>,
    /// The keys that it discloses; empty unless it is a private key.
    pub(super) disclosed: Vec<Compromised>,
}

impl Member {
    pub(super) fn parse(json: &str) -> Self {
        let Ok(jwk) = serde_json::from_str::<Jwk<'_>>(json) else {
            let detail = format!("the member is {}, expected a JWK", type_of(json));
            return Self {
                kid: None,
                key: Err(Skip::new(SkipReason::Malformed, detail)),
                disclosed: Vec::new(),
            };
        };
        let (kid, kid_error) = match jwk.kid() {
            Ok(kid) => (kid, None),
            Err(skip) => (None, Some(skip)),
        };
        if let Some(name) = PRIVATE.into_iter().find(|name| jwk.has_value(name)) {
            let detail = format!("{name} is published: the private key is disclosed");
            return Self {
                kid,
                key: Err(Skip::new(SkipReason::PrivateKey, detail)),
                disclosed: jwk.disclosed(),
            };
        }
        let duplicate = jwk.duplicate_name().map(|name| {
            let detail = format!("{} occurs twice", shown(name));
            Skip::new(SkipReason::Malformed, detail)
        });
        match duplicate {
            // Which `kid` it has is uncertain.
            Some(skip) => Self {
                kid: None,
                key: Err(skip),
                disclosed: Vec::new(),
            },
            None => Self {
                kid,
                key: kid_error.map_or_else(|| jwk.verification_key(), Err),
                disclosed: Vec::new(),
            },
        }
    }
}

/// The type of a public key.
#[derive(Clone, Copy)]
enum KeyType {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl KeyType {
    const ALL: [Self; 5] = [Self::Rsa, Self::P256, Self::P384, Self::P521, Self::Ed25519];
}

/// The members of a JWK, in the order of the document.
struct Jwk<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Jwk<'a> {
    /// The JSON of a member; `None` if it is absent or `null`. Of two with the same name the last.
    fn get(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().rfind(|(member, _)| member == name)?;
        Some(value.get()).filter(|json| *json != "null")
    }

    /// Whether a member of this name is neither `null` nor an empty string nor an empty array.
    fn has_value(&self, name: &str) -> bool {
        let mut values = self.0.iter().filter(|(member, _)| member == name);
        values.any(|(_, value)| {
            let json = value.get();
            let array = json
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            let is_empty = array.is_some_and(|elements| elements.trim().is_empty());
            !is_empty && !matches!(json, "null" | "\"\"")
        })
    }

    /// A name that occurs twice. Two parsers may read two keys from such a member.
    fn duplicate_name(&self) -> Option<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let mut pairs = names.iter().zip(names.iter().skip(1));
        pairs.find(|(one, next)| one == next).map(|(name, _)| *name)
    }

    /// A string; `None` if it is absent, `null` or empty.
    fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Skip> {
        let Some(json) = self.get(name) else {
            return Ok(None);
        };
        match serde_json::from_str::<StrKey<'a>>(json) {
            Ok(StrKey(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Err(_) => Err(wrong_type(name, json, "a string")),
        }
    }

    /// A string that must be present.
    fn required(&self, name: &str) -> Result<Cow<'a, str>, Skip> {
        let missing = || Skip::new(SkipReason::Malformed, format!("{name} is missing"));
        self.text(name)?.ok_or_else(missing)
    }

    /// A string, or the strings of an array; `None` if it is absent, `null` or an empty string.
    fn texts(&self, name: &str) -> Result<Option<Vec<Cow<'a, str>>>, Skip> {
        let Some(json) = self.get(name) else {
            return Ok(None);
        };
        if let Ok(elements) = serde_json::from_str::<Vec<&'a RawValue>>(json) {
            let texts: Vec<_> = elements
                .iter()
                .filter_map(|element| serde_json::from_str::<StrKey<'a>>(element.get()).ok())
                .map(|StrKey(text)| text)
                .collect();
            // A restriction that cannot be read. An empty array can: it permits nothing.
            return if texts.is_empty() && !elements.is_empty() {
                Err(wrong_type(name, json, "a string or an array of strings"))
            } else {
                Ok(Some(texts))
            };
        }
        match serde_json::from_str::<StrKey<'a>>(json) {
            Ok(StrKey(text)) => Ok(Some(vec![text]).filter(|_| json != "\"\"")),
            Err(_) => Err(wrong_type(name, json, "a string or an array of strings")),
        }
    }

    /// The `kid`. An integer stands for its digits.
    fn kid(&self) -> Result<Option<Box<str>>, Skip> {
        let is_integer = |json: &&str| json.bytes().all(|byte| byte.is_ascii_digit());
        let kid = match self.get("kid").filter(is_integer) {
            Some(digits) => Some(Cow::Borrowed(digits)),
            None => self.text("kid")?,
        };
        let Some(kid) = kid else { return Ok(None) };
        valid_key_id(kid).map(Some).ok_or_else(|| {
            let detail = "kid has more than 255 bytes or control characters";
            Skip::new(SkipReason::Malformed, detail)
        })
    }

    fn verification_key(&self) -> Result<VerificationKey, Skip> {
        if self.has_value("k") {
            return Err(symmetric());
        }
        self.check_purpose("use", "sig")?;
        self.check_purpose("key_ops", "verify")?;
        let alg = self.text("alg")?;
        let key = self.public_key(self.key_type()?, alg.as_deref())?;
        Ok(key.with_issuer(self.issuer()))
    }

    /// The issuer whose tokens the key verifies, a member of Entra's keys. A member that is not a
    /// string is read as the empty issuer, which no token has: the key verifies none.
    fn issuer(&self) -> Option<Box<str>> {
        let issuer = self.text("issuer").unwrap_or(Some(Cow::Borrowed("")));
        issuer.map(Box::from)
    }

    /// Checks that `use` or `key_ops`, if it is present, has this value (RFC 7517 §4.2, §4.3).
    fn check_purpose(&self, name: &str, expected: &str) -> Result<(), Skip> {
        let Some(values) = self.texts(name)? else {
            return Ok(());
        };
        let is_expected = |value: &Cow<'_, str>| value.eq_ignore_ascii_case(expected);
        if values.iter().any(is_expected) {
            return Ok(());
        }
        let found = shown(&values.join(", "));
        let detail = format!("{name} is [{found}], expected {expected}");
        Err(Skip::new(SkipReason::NotForSignatures, detail))
    }

    /// The keys that a private key discloses, in every reading of its `kid` and its numbers.
    ///
    /// Its other members are ignored. A wrong `kty`, `use` or `x5c` leaves the key disclosed.
    fn disclosed(&self) -> Vec<Compromised> {
        let mut all = Vec::new();
        for reading in self.readings() {
            let kid = reading.kid().ok().flatten();
            let public_keys: Vec<_> = KeyType::ALL
                .into_iter()
                .filter_map(|key_type| reading.public_key(key_type, None).ok())
                .map(|key| Some(key.public_key_digest()))
                .collect();
            let unreadable = public_keys.is_empty().then_some(None);
            all.extend(public_keys.into_iter().chain(unreadable).map(|public_key| {
                let kid = kid.clone();
                Compromised { kid, public_key }
            }));
        }
        all
    }

    /// The [`IDENTITY`] in each way in which programs may read it: one value of each name.
    fn readings(&self) -> Vec<Self> {
        let mut readings = vec![Jwk(Vec::new())];
        for name in IDENTITY {
            let values = self.0.iter().filter(|(member, _)| member == name);
            let longer = values.flat_map(|(_, value)| {
                let with_value = |Jwk(members): &Self| {
                    let member = (Cow::Borrowed(name), *value);
                    Jwk(members.iter().cloned().chain([member]).collect())
                };
                readings.iter().map(with_value).collect::<Vec<_>>()
            });
            let longer: Vec<Self> = longer.take(MAX_READINGS).collect();
            if !longer.is_empty() {
                readings = longer;
            }
        }
        readings
    }

    fn public_key(&self, key_type: KeyType, alg: Option<&str>) -> Result<VerificationKey, Skip> {
        let algorithm = alg.map(algorithm).transpose()?;
        let new = |material: KeyMaterial<'_>| {
            VerificationKey::new(&material, algorithm).map_err(|invalid| unusable(invalid, alg))
        };
        match key_type {
            KeyType::Rsa => {
                let (n, e) = (&self.number("n")?, &self.number("e")?);
                // In a certificate the exponent follows the modulus, as a short DER INTEGER.
                let sign = e.first().filter(|&&first| first >= 0x80).map(|_| 0);
                let exponent: Vec<u8> = sign.into_iter().chain(e.iter().copied()).collect();
                let length = u8::try_from(exponent.len())
                    .map_err(|_| unusable(InvalidKey::Exponent, alg))?;
                self.check_certificate(&[n, &[INTEGER, length][..], &exponent].concat())?;
                new(KeyMaterial::Rsa { n, e })
            }
            KeyType::P256 => {
                let (x, y) = &self.point(32)?;
                new(KeyMaterial::P256 { x, y })
            }
            KeyType::P384 => {
                let (x, y) = &self.point(48)?;
                new(KeyMaterial::P384 { x, y })
            }
            KeyType::P521 => {
                let (x, y) = &self.point(66)?;
                new(KeyMaterial::P521 { x, y })
            }
            KeyType::Ed25519 => {
                // Bytes, not a number (RFC 8032 §5.1.2): exactly as many as the key has.
                let x = &self.octets("x")?;
                if x.len() != 32 {
                    return Err(wrong_length("x", x.len(), "32"));
                }
                self.check_certificate(x)?;
                new(KeyMaterial::Ed25519 { x })
            }
        }
    }

    fn key_type(&self) -> Result<KeyType, Skip> {
        let unsupported = |name: &str, value: &str, supported: &str| {
            let value = shown(value);
            let detail = format!("{name} {value} is not supported, expected {supported}");
            Skip::new(SkipReason::UnsupportedType, detail)
        };
        let kty = self.required("kty")?;
        match kty.to_ascii_uppercase().as_str() {
            "RSA" => Ok(KeyType::Rsa),
            "EC" => {
                let crv = self.required("crv")?;
                match crv.to_ascii_uppercase().as_str() {
                    "P-256" => Ok(KeyType::P256),
                    "P-384" => Ok(KeyType::P384),
                    "P-521" => Ok(KeyType::P521),
                    _ => Err(unsupported("crv", &crv, "P-256, P-384 or P-521")),
                }
            }
            "OKP" => {
                let crv = self.required("crv")?;
                match crv.to_ascii_uppercase().as_str() {
                    "ED25519" => Ok(KeyType::Ed25519),
                    _ => Err(unsupported("crv", &crv, "Ed25519")),
                }
            }
            "OCT" => Err(symmetric()),
            _ => Err(unsupported("kty", &kty, "RSA, EC or OKP")),
        }
    }

    /// Decodes base64url, also with padding, in the standard alphabet, or with line breaks, as
    /// issuers have published it.
    fn octets(&self, name: &str) -> Result<Vec<u8>, Skip> {
        let encoded = self.required(name)?;
        let encoded: String = encoded
            .chars()
            .filter(|c| !c.is_ascii_whitespace())
            .map(|c| match c {
                '+' => '-',
                '/' => '_',
                other => other,
            })
            .collect();
        decode_base64url(encoded.trim_end_matches('=')).map_err(|_| {
            let detail = format!("{name} is not base64url");
            Skip::new(SkipReason::Invalid, detail)
        })
    }

    /// Decodes a number (RFC 7518 §2), without leading zeros. Issuers publish moduli with the sign
    /// byte of DER.
    fn number(&self, name: &str) -> Result<Vec<u8>, Skip> {
        let mut number = self.octets(name)?;
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        number.drain(..zeros);
        Ok(number)
    }

    /// Decodes a point whose coordinates have `len` bytes (RFC 7518 §6.2.1.2), or less without
    /// their leading zeros.
    fn point(&self, len: usize) -> Result<(Vec<u8>, Vec<u8>), Skip> {
        let coordinate = |name| {
            let number = self.number(name)?;
            let zeros = len
                .checked_sub(number.len())
                .ok_or_else(|| wrong_length(name, number.len(), &format!("at most {len}")))?;
            Ok::<_, Skip>([vec![0; zeros], number].concat())
        };
        let (x, y) = (coordinate("x")?, coordinate("y")?);
        self.check_certificate(&x)?;
        Ok((x, y))
    }

    /// Checks that the first certificate contains the same key (RFC 7517 §4.7).
    ///
    /// The certificate is searched for the bytes of the key, which it contains unchanged, and is
    /// not parsed. It adds no trust; a value that is not a certificate is ignored.
    fn check_certificate(&self, number: &[u8]) -> Result<(), Skip> {
        const SEQUENCE: u8 = 0x30;
        let certificate = || {
            let chain: Vec<&RawValue> = serde_json::from_str(self.get("x5c")?).ok()?;
            let StrKey(first) = serde_json::from_str(chain.first()?.get()).ok()?;
            STANDARD.decode(first.as_bytes()).ok()
        };
        match certificate() {
            Some(der) if der.first() == Some(&SEQUENCE) && der.len() > number.len() => {
                if der.windows(number.len().max(1)).any(|part| part == number) {
                    Ok(())
                } else {
                    let detail = "x5c has the certificate of another key";
                    Err(Skip::new(SkipReason::Invalid, detail))
                }
            }
            _ => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Jwk<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JwkVisitor;

        impl<'de> Visitor<'de> for JwkVisitor {
            type Value = Jwk<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JWK")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((StrKey(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Jwk(members))
            }
        }

        deserializer.deserialize_map(JwkVisitor)
    }
}

/// The algorithm of this name, in any case. An unknown one restricts the key to something else.
fn algorithm(name: &str) -> Result<Algorithm, Skip> {
    let mut all = Algorithm::ALL.iter().copied();
    all.find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
        .or_else(|| Algorithm::from_name(name))
        .ok_or_else(|| {
            let detail = format!("alg {} is not supported", shown(name));
            Skip::new(SkipReason::Algorithm, detail)
        })
}

fn symmetric() -> Skip {
    let detail = "a symmetric key: anyone who verifies with it can also sign";
    Skip::new(SkipReason::Symmetric, detail)
}

fn wrong_type(name: &str, json: &str, expected: &str) -> Skip {
    let detail = format!("{name} is {}, expected {expected}", type_of(json));
    Skip::new(SkipReason::Malformed, detail)
}

fn wrong_length(name: &str, found: usize, expected: &str) -> Skip {
    let detail = format!("{name} has {found} bytes, expected {expected}");
    Skip::new(SkipReason::Invalid, detail)
}

/// The type of a JSON value, by its first character.
fn type_of(json: &str) -> &'static str {
    match json.bytes().next() {
        Some(b'{') => "an unreadable object",
        Some(b'[') => "an array",
        Some(b'"') => "an unreadable string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// A text of the document, escaped and short.
fn shown(text: &str) -> String {
    text.escape_debug().take(64).collect()
}

/// Why a key with this `alg` cannot be used.
fn unusable(invalid: InvalidKey, alg: Option<&str>) -> Skip {
    let reason = match invalid {
        InvalidKey::AlgorithmMismatch => SkipReason::Algorithm,
        InvalidKey::Invalid => SkipReason::Invalid,
        InvalidKey::ModulusLength(_) | InvalidKey::Exponent | InvalidKey::Roca => SkipReason::Weak,
    };
    let detail = match alg.filter(|_| invalid == InvalidKey::AlgorithmMismatch) {
        Some(alg) => format!("alg {} does not match the type of the key", shown(alg)),
        None => invalid.to_string(),
    };
    Skip::new(reason, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::Fingerprint;

    /// RFC 7515 appendix A.2.
    const N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

    /// The digest of a key, given without its braces.
    fn digest(member: &str) -> Option<Fingerprint> {
        let member = Member::parse(&format!("{{{member}}}"));
        member.key.ok().map(|key| key.public_key_digest())
    }

    fn encode(bytes: &[u8]) -> String {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }

    #[test]
    fn an_rsa_key_is_the_same_in_every_spelling_of_its_numbers() {
        let rsa = |n: &str, e: &str| digest(&format!(r#""kty":"RSA","n":"{n}","e":"{e}""#));
        let key = rsa(N, "AQAB").expect("a valid key");
        let with_zeros = |count: usize| {
            let modulus = decode_base64url(N).unwrap();
            encode(&[vec![0; count], modulus].concat())
        };
        let standard = N.replace('-', "+").replace('_', "/");
        for (n, e) in [
            (standard.clone(), "AQAB"),
            (format!("{standard}=="), "AQAB"),
            (format!("{N}=="), "AQAB"),
            (with_zeros(1), "AQAB"),
            (with_zeros(3), "AAEAAQ"),
            (N.to_owned(), "AAAAAAEAAQ=="),
            (format!("{N}\\r\\n"), "AQ AB"),
        ] {
            assert_eq!(rsa(&n, e), Some(key), "{n} {e}");
        }
        // Not base64 of these bytes: bits after the last byte, padding inside.
        let other_bits = N.strip_suffix('Q').map(|rest| format!("{rest}R"));
        assert_eq!(rsa(&other_bits.unwrap(), "AQAB"), None);
        for (n, e) in [(N, "AQ=B"), (N, "=AQAB"), ("", "AQAB")] {
            assert_eq!(rsa(n, e), None, "{e}");
        }
    }

    #[test]
    fn a_point_is_the_same_in_every_spelling_of_its_coordinates() {
        // RFC 7515 appendix A.3.
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
        let point =
            |x: &str, y: &str| digest(&format!(r#""kty":"EC","crv":"P-256","x":"{x}","y":"{y}""#));
        let key = point(x, y).expect("a valid key");
        let with_zero =
            |number: &str| encode(&[vec![0], decode_base64url(number).unwrap()].concat());
        assert_eq!(point(&with_zero(x), &with_zero(y)), Some(key));
        assert_eq!(point(&format!("{x}="), &y.replace('_', "/")), Some(key));
        assert_ne!(point(y, x), Some(key));
        // A byte more that is not zero makes another number.
        let longer = encode(&[vec![1], decode_base64url(x).unwrap()].concat());
        assert_eq!(point(&longer, y), None);
    }
}
