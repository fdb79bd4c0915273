//! An access token, as it is handed to callers.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::clock::UnixTime;
use crate::oauth::Scope;

/// An access token of this client ([RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1)).
///
/// Cheap to clone. The token is in no `Debug` output. To a client a token is a word without a
/// meaning: only the resource server looks inside.
#[derive(Clone)]
pub struct AccessToken(Arc<Inner>);

struct Inner {
    secret: SecretString,
    /// `Bearer …`, made once, marked sensitive.
    header: HeaderValue,
    expires_at: Option<UnixTime>,
    scopes: Option<Vec<Scope>>,
}

impl AccessToken {
    /// `None` if the token cannot be a header's value.
    pub(super) fn new(
        secret: SecretString,
        expires_at: Option<UnixTime>,
        scopes: Option<Vec<Scope>>,
    ) -> Option<Self> {
        let mut header =
            HeaderValue::try_from(format!("Bearer {}", secret.expose_secret())).ok()?;
        header.set_sensitive(true);
        Some(Self(Arc::new(Inner {
            secret,
            header,
            expires_at,
            scopes,
        })))
    }

    /// The token itself. Whoever has it can use it: put it on a request, and nowhere else.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.0.secret.expose_secret()
    }

    /// `Bearer …` as the value of an `Authorization` field, marked sensitive
    /// ([RFC 6750 §2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1)).
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.0.header.clone()
    }

    /// When it expires, counted from when it was asked for; `None` if the server did not say. A
    /// life of more than a day counts as a day: then it is renewed.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixTime> {
        self.0.expires_at
    }

    /// The scopes that were granted, if the server named them. It need not when they are the
    /// requested ones.
    #[must_use]
    pub fn scopes(&self) -> Option<&[Scope]> {
        self.0.scopes.as_deref()
    }

    /// Whether this is the very same grant.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("expires_at", &self.0.expires_at)
            .field("scopes", &self.0.scopes)
            .finish_non_exhaustive()
    }
}
