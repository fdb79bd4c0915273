//! How the client of the settings authenticates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::Deserializer;

use super::{ClientSettings, conflict, required};
use crate::client::{
    AssertionAudience, ClientAssertion, ClientAuthentication, ClientCredentials, PrivateKeyJwt,
    SigningKey, TlsClientAuth, TokenManagerBuilder,
};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::jwt::Algorithm;
use crate::settings::{Provider, choice};
#[cfg(feature = "reqwest")]
use crate::transport::ReqwestTransport;

/// How the client authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Basic,
    BasicRaw,
    Post,
    PrivateKeyJwt,
    Assertion,
    Tls,
}

/// The names of the methods.
const METHODS: [(&str, Method); 6] = [
    ("client_secret_basic", Method::Basic),
    ("client_secret_basic_raw", Method::BasicRaw),
    ("client_secret_post", Method::Post),
    ("private_key_jwt", Method::PrivateKeyJwt),
    ("client_assertion", Method::Assertion),
    ("tls_client_auth", Method::Tls),
];

/// The methods with a client secret.
const SECRET_METHODS: &[Method] = &[Method::Basic, Method::BasicRaw, Method::Post];

pub(super) fn client_authentication<'de, D>(deserializer: D) -> Result<Option<Method>, D::Error>
where
    D: Deserializer<'de>,
{
    choice(deserializer, &METHODS)
}

pub(super) fn algorithm<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Algorithm>, D::Error> {
    let all = Algorithm::ALL.iter().copied();
    let choices: Vec<_> = all.map(|algorithm| (algorithm.name(), algorithm)).collect();
    choice(deserializer, &choices)
}

impl ClientSettings {
    /// The client that the fields describe.
    pub(super) fn client(&self) -> Result<Arc<dyn ClientAuthentication>, ConfigError> {
        self.check_client_fields()?;
        match self.client_authentication {
            Some(Method::PrivateKeyJwt) => Ok(Arc::new(self.private_key_jwt()?)),
            Some(Method::Assertion) => Ok(Arc::new(self.client_assertion()?)),
            Some(Method::Tls) => Ok(Arc::new(TlsClientAuth::new(self.required_client_id()?))),
            _ => self.with_method(self.credentials()?),
        }
    }

    /// These credentials, with the method that is set, else with theirs.
    pub(super) fn with_method(
        &self,
        credentials: ClientCredentials,
    ) -> Result<Arc<dyn ClientAuthentication>, ConfigError> {
        Ok(Arc::new(match self.client_authentication {
            None => credentials,
            Some(Method::Basic) => credentials.client_secret_basic(),
            Some(Method::BasicRaw) => credentials.client_secret_basic_raw(),
            Some(Method::Post) => credentials.client_secret_post(),
            Some(Method::PrivateKeyJwt | Method::Assertion | Method::Tls) => {
                let reason = "must be a method with a client secret, for credentials with one";
                let error = ConfigError::without_value("client_authentication", reason);
                return Err(error.with_kind(ConfigErrorKind::Conflict));
            }
        }))
    }

    /// A field that the method does not use is a mistake.
    pub(super) fn check_client_fields(&self) -> Result<(), ConfigError> {
        let method = self.client_authentication.unwrap_or(Method::Basic);
        let key = &[Method::PrivateKeyJwt][..];
        let key_or_tls = &[Method::PrivateKeyJwt, Method::Tls][..];
        let assertion = &[Method::Assertion][..];
        let fields = [
            (
                "client_secret",
                self.client_secret.is_some(),
                SECRET_METHODS,
            ),
            (
                "client_secret_file",
                self.client_secret_file.is_some(),
                SECRET_METHODS,
            ),
            (
                "client_key_file",
                self.client_key_file.is_some(),
                key_or_tls,
            ),
            (
                "client_key_algorithm",
                self.client_key_algorithm.is_some(),
                key,
            ),
            ("client_key_id", self.client_key_id.is_some(), key),
            (
                "client_certificate_file",
                self.client_certificate_file.is_some(),
                key_or_tls,
            ),
            (
                "client_assertion_audience",
                self.client_assertion_audience.is_some(),
                key,
            ),
            (
                "client_assertion_file",
                self.client_assertion_file.is_some(),
                assertion,
            ),
        ];
        let mut unused = fields
            .into_iter()
            .filter(|(_, is_set, methods)| *is_set && !methods.contains(&method));
        let name = METHODS.into_iter().find(|(_, other)| *other == method);
        match (unused.next(), name) {
            (Some((field, ..)), Some((name, _))) => {
                let reason = format!("is not used with `client_authentication` `{name}`");
                let error = ConfigError::without_value(field, reason);
                Err(error.with_kind(ConfigErrorKind::Conflict))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn required_client_id(&self) -> Result<&String, ConfigError> {
        let id = self.client_id.as_ref();
        id.ok_or_else(|| required("client_id"))
    }

    pub(super) fn credentials(&self) -> Result<ClientCredentials, ConfigError> {
        let id = self.required_client_id()?;
        match (&self.client_secret, &self.client_secret_file) {
            (Some(secret), None) => Ok(ClientCredentials::new(id, secret.clone())),
            (None, Some(file)) => Ok(ClientCredentials::from_secret_file(id, file)),
            (Some(_), Some(_)) => Err(conflict("client_secret", "client_secret_file")),
            (None, None) => Err(required("client_secret or client_secret_file")),
        }
    }

    pub(super) fn private_key_jwt(&self) -> Result<PrivateKeyJwt, ConfigError> {
        let id = self.required_client_id()?;
        let file = self.client_key_file.as_ref();
        let file = file.ok_or_else(|| required("client_key_file"))?;
        let mut key = self.signing_key(file);
        if let Some(id) = &self.client_key_id {
            key = key.key_id(id);
        }
        if let Some(file) = &self.client_certificate_file {
            key = key.certificate_file(file);
        }
        let client = PrivateKeyJwt::new(id, key);
        let audience = self.client_assertion_audience.as_deref();
        if audience == Some("issuer") && self.token_endpoint.is_some() {
            let reason = "must not be `issuer` with `token_endpoint`: no issuer is known";
            let error = ConfigError::without_value("client_assertion_audience", reason);
            return Err(error.with_kind(ConfigErrorKind::Conflict));
        }
        Ok(match (audience, self.provider) {
            (Some("issuer"), _) => client.audience(AssertionAudience::Default),
            (Some("token_endpoint"), _) => client.audience(AssertionAudience::TokenEndpoint),
            (Some(audience), _) => client.audience(AssertionAudience::Other(audience.to_owned())),
            // It expects its token endpoint, and documents five minutes.
            (None, Some(Provider::Entra)) => client
                .audience(AssertionAudience::TokenEndpoint)
                .lifetime(Duration::from_secs(300)),
            (None, _) => client,
        })
    }

    /// The key of a file, without the certificate.
    pub(super) fn signing_key(&self, file: &Path) -> SigningKey {
        match self.client_key_algorithm {
            Some(algorithm) => SigningKey::from_file(file, algorithm),
            None => SigningKey::from_file_of_any_type(file),
        }
    }

    pub(super) fn client_assertion(&self) -> Result<ClientAssertion, ConfigError> {
        let file = self.client_assertion_file.as_ref();
        let file = file.ok_or_else(|| required("client_assertion_file"))?;
        let client = ClientAssertion::from_file(file);
        Ok(match &self.client_id {
            Some(id) => client.with_client_id(id),
            None => client,
        })
    }

    /// Adds the transport that shows the client certificate to the server, if its files are set.
    pub(super) fn with_mtls(
        &self,
        builder: TokenManagerBuilder,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        if self.client_authentication != Some(Method::Tls) {
            return Ok(builder);
        }
        match (&self.client_certificate_file, &self.client_key_file) {
            // Code sets it.
            (None, None) => Ok(builder),
            (Some(certificate), Some(key)) => with_client_certificate(builder, certificate, key),
            (None, Some(_)) => Err(required("client_certificate_file")),
            (Some(_), None) => Err(required("client_key_file")),
        }
    }
}

#[cfg(feature = "reqwest")]
fn with_client_certificate(
    builder: TokenManagerBuilder,
    certificate: &Path,
    key: &Path,
) -> Result<TokenManagerBuilder, ConfigError> {
    let transport = ReqwestTransport::with_client_certificate(certificate, key)?;
    Ok(builder.transport(transport))
}

#[cfg(not(feature = "reqwest"))]
fn with_client_certificate(
    _builder: TokenManagerBuilder,
    _certificate: &Path,
    _key: &Path,
) -> Result<TokenManagerBuilder, ConfigError> {
    let reason = "requires the feature `reqwest`: without it, set a transport in code";
    Err(ConfigError::without_value(
        "client_certificate_file",
        reason,
    ))
}
