//! Keys whose private part the issuer published, so that anyone can sign with them.

use crate::jwt::{Fingerprint, VerificationKey};

/// The private keys of one document, indexed by `kid` and by public-key digest: the public part
/// may be published under another `kid`, or without one.
#[derive(Clone, Debug, Default)]
pub(super) struct CompromisedKeys(pub(super) Vec<Compromised>);

#[derive(Clone, Debug)]
pub(super) struct Compromised {
    pub(super) kid: Option<Box<str>>,
    /// `None` if the member has no readable public key.
    pub(super) public_key: Option<Fingerprint>,
}

impl CompromisedKeys {
    /// Adds a member that was published with its private part.
    pub(super) fn insert(&mut self, kid: Option<&str>, public_key: Option<Fingerprint>) {
        self.0.push(Compromised {
            kid: kid.map(Box::from),
            public_key,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this key is one of them.
    pub(super) fn contains(&self, kid: Option<&str>, key: &VerificationKey) -> bool {
        self.0.iter().any(|entry| {
            let same_kid = kid.is_some() && entry.kid.as_deref() == kid;
            same_kid || entry.public_key == Some(key.public_key_digest())
        })
    }
}
