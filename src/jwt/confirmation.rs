//! The confirmation of a token: the keys whose possession its sender must prove (RFC 7800).

use serde::Deserialize;
use serde_json::Value;

/// A key to which a token is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thumbprint {
    /// `jkt`: of the key of a DPoP proof (RFC 9449 §6.1).
    Key(Box<str>),
    /// `x5t#S256`: of a client certificate (RFC 8705 §3.1).
    Certificate(Box<str>),
}

/// The claim `cnf`. Every value of it is a confirmation, `null` as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Confirmation {
    keys: Vec<Thumbprint>,
    /// Whether there is another member, or a value that is no thumbprint.
    has_unknown_method: bool,
}

impl Confirmation {
    /// Reads `cnf` of a payload that was parsed strictly before.
    pub(super) fn from_payload(payload: &str) -> Self {
        #[derive(Deserialize)]
        struct Payload {
            #[serde(default)]
            cnf: Value,
        }
        let cnf = serde_json::from_str(payload).map_or(Value::Null, |Payload { cnf }| cnf);
        let members = match &cnf {
            Value::Object(members) => members.iter().collect(),
            _ => Vec::new(),
        };
        let keys: Vec<_> = members
            .iter()
            .filter_map(|(name, value)| match (name.as_str(), value) {
                ("jkt", Value::String(thumbprint)) => Some(Thumbprint::Key((**thumbprint).into())),
                ("x5t#S256", Value::String(thumbprint)) => {
                    Some(Thumbprint::Certificate((**thumbprint).into()))
                }
                _ => None,
            })
            .collect();
        Self {
            has_unknown_method: keys.is_empty() || keys.len() != members.len(),
            keys,
        }
    }

    /// Whether possession of these keys is all the proof that the token needs: each key of the
    /// token is among them.
    pub(crate) fn is_proved_by(&self, proved: &[Thumbprint]) -> bool {
        !self.has_unknown_method && self.keys.iter().all(|key| proved.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_of_a_confirmation_must_be_proved() {
        let confirmation =
            |cnf: &str| Confirmation::from_payload(&format!(r#"{{"iss":"a","cnf":{cnf}}}"#));
        let key = Thumbprint::Key("k".into());
        let certificate = Thumbprint::Certificate("c".into());
        let by_key = confirmation(r#"{"jkt":"k"}"#);
        assert!(by_key.is_proved_by(std::slice::from_ref(&key)));
        assert!(!by_key.is_proved_by(&[]));
        assert!(!by_key.is_proved_by(&[Thumbprint::Key("l".into())]));
        assert!(!by_key.is_proved_by(&[Thumbprint::Certificate("k".into())]));
        let by_both = confirmation(r#"{"jkt":"k","x5t#S256":"c"}"#);
        assert!(!by_both.is_proved_by(std::slice::from_ref(&key)));
        assert!(by_both.is_proved_by(&[certificate.clone(), key.clone()]));
        for unknown in [
            "null",
            "{}",
            "[]",
            "7",
            r#""k""#,
            r#"{"jkt":7}"#,
            r#"{"jkt":null}"#,
            r#"{"jwk":{"kty":"EC"}}"#,
            r#"{"jkt":"k","jku":"https://as.example/keys"}"#,
        ] {
            let confirmation = confirmation(unknown);
            assert!(
                !confirmation.is_proved_by(&[key.clone(), certificate.clone()]),
                "{unknown}"
            );
        }
    }
}
