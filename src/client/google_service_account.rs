//! Service accounts of Google: an assertion as the grant, signed with the key of the account.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::authentication::ClientAuthentication;
use super::box_future::BoxFuture;
use super::builder::TokenManagerBuilder;
use super::grant::Grant;
use super::jwt_bearer::JWT_BEARER_GRANT;
use super::signing_key::SigningKey;
use super::token_manager::TokenManager;
use super::token_request::{RequestPart, TokenRequest};
use crate::error::{ConfigError, ConfigErrorKind, Error, ErrorKind, Operation};
use crate::jwt::{Algorithm, new_token_id};
use crate::oauth::Endpoint;

/// The token endpoint of Google, for a key that names none.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// How errors call the argument of `google`.
const SETTING: &str = "service account key";

/// `iat` is this many seconds ago: Google accepts no assertion from the future, and clocks differ.
const BACKDATED: u64 = 10;

/// Seconds from `iat` to `exp`: the maximum, because the access token may live no longer.
const LIFETIME: u64 = 3600;

/// Added to `invalid_grant`.
const INVALID_GRANT_HINT: &str = "the key may have been deleted or disabled at Google, or the clock \
                                  of this machine may be wrong";

/// The key of a service account, as Google's console writes it.
#[derive(Deserialize)]
struct KeyFile<'j> {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: Option<String>,
    /// As it is in the JSON.
    #[serde(borrow)]
    private_key: Option<&'j RawValue>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

/// A service account that signs the assertions of its token requests.
///
/// The client authentication writes the grant as well, because it comes last: the scopes of the
/// request are claims of the assertion.
#[derive(Debug)]
struct ServiceAccount {
    client_email: String,
    key: SigningKey,
    token_uri: String,
}

/// Leaves the grant to the [`ServiceAccount`].
#[derive(Debug)]
struct SignedGrant;

impl TokenManager {
    /// A builder for a manager of access tokens of Google's APIs, for a service account.
    ///
    /// `service_account_json` is the JSON of a key of the account. The `SecretString` is zeroized
    /// here, and the private key when the manager is dropped. A `&str`, or the buffer of a `String`
    /// that is converted, is not. Each token request has an assertion as its grant
    /// ([RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1)), signed with RS256,
    /// valid for an hour, and with the scopes of the builder in its claims.
    /// [`scope`](TokenManagerBuilder::scope) is required. Requests go to the `token_uri` of the
    /// key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use aws_lc_rs::{encoding::AsDer as _, rsa::KeySize, signature::RsaKeyPair};
    /// # use base64::{Engine as _, engine::general_purpose::STANDARD};
    /// # let key = RsaKeyPair::generate(KeySize::Rsa2048)?;
    /// # let key: aws_lc_rs::encoding::Pkcs8V1Der<'static> = key.as_der()?;
    /// # let key = format!(
    /// #     "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
    /// #     STANDARD.encode(key.as_ref())
    /// # );
    /// # let json = serde_json::json!({
    /// #     "type": "service_account",
    /// #     "client_email": "orders@shop.iam.gserviceaccount.com",
    /// #     "private_key_id": "1",
    /// #     "private_key": key,
    /// # }).to_string();
    /// # let google = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         assert_eq!(request.uri(), "https://oauth2.googleapis.com/token");
    /// #         let body = r#"{"access_token":"ya29.t","token_type":"Bearer","expires_in":3599}"#;
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_owned()))
    /// #     },
    /// # ));
    /// use secrecy::SecretString;
    /// use tower_oauth::TokenManager;
    ///
    /// let key = SecretString::from(json); // of a secret store
    /// let tokens = TokenManager::google_service_account(key)?
    ///     .scope("https://www.googleapis.com/auth/pubsub")
    /// #   .transport(google)
    ///     .start()?;
    /// assert!(tokens.access_token().await?.expires_at().is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not the JSON of a service account's key, its private key cannot be used, or its
    /// `token_uri` is not `https`. The error shows no part of the key.
    pub fn google_service_account(
        service_account_json: impl Into<SecretString>,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let account = ServiceAccount::from_json(service_account_json.into().expose_secret())?;
        let endpoint = Endpoint::new(&account.token_uri)
            .map_err(|error| error.with_setting(format!("`token_uri` of the {SETTING}")))?;
        if endpoint.is_plain_http() {
            let reason = "has a `token_uri` of plain http: it must be https";
            let error = ConfigError::without_value(SETTING, reason);
            return Err(error.with_kind(ConfigErrorKind::PlainHttp));
        }
        let mut builder = Self::builder(endpoint, account).grant(SignedGrant);
        builder.source.grant_owner = Some("a service account of Google");
        Ok(builder)
    }
}

impl ServiceAccount {
    fn from_json(json: &str) -> Result<Self, ConfigError> {
        let invalid = |reason: String| ConfigError::without_value(SETTING, reason);
        // The error of the parser may quote the key.
        let file: KeyFile<'_> = serde_json::from_str(json).map_err(|error| {
            invalid(format!(
                "is not the JSON of a service account key: error at line {}, column {}",
                error.line(),
                error.column()
            ))
        })?;
        match file.kind.as_deref() {
            Some("service_account") => {}
            Some("authorized_user" | "external_account" | "impersonated_service_account") => {
                let reason = "is that of other credentials: its `type` must be `service_account`";
                return Err(invalid(reason.to_owned()));
            }
            _ => return Err(invalid("must have the `type` `service_account`".to_owned())),
        }
        let required = |name: &str| ConfigError::missing(SETTING, format!("has no `{name}`"));
        let client_email = file.client_email.filter(|email| !email.is_empty());
        let private_key = file.private_key.ok_or_else(|| required("private_key"))?;
        let private_key = ascii_text(private_key)
            .ok_or_else(|| invalid("has a `private_key` that is not a text in ASCII".to_owned()))?;
        let private_key = SecretString::from(private_key.as_str());
        let mut key = SigningKey::from_pem(private_key, Algorithm::Rs256)
            .map_err(|error| error.with_setting(format!("`private_key` of the {SETTING}")))?;
        if let Some(key_id) = file.private_key_id.filter(|id| !id.is_empty()) {
            key = key.key_id(key_id);
        }
        Ok(Self {
            client_email: client_email.ok_or_else(|| required("client_email"))?,
            key,
            token_uri: file.token_uri.unwrap_or_else(|| TOKEN_URI.to_owned()),
        })
    }

    async fn write(&self, request: &mut TokenRequest) -> Result<(), Error> {
        let issued_at = request.now().as_secs().saturating_sub(BACKDATED);
        let token_id = new_token_id().map_err(|error| {
            Error::new(Operation::TokenRequest, ErrorKind::Credentials)
                .with_detail(error.to_string())
        })?;
        let mut claims = json!({
            "iss": self.client_email,
            "aud": self.token_uri,
            "iat": issued_at,
            "exp": issued_at.saturating_add(LIFETIME),
            "jti": token_id,
        });
        // Google expects them in the claims, not in the form.
        if let (Some(scope), Some(claims)) =
            (request.remove_parameter("scope"), claims.as_object_mut())
        {
            claims.insert("scope".to_owned(), scope.expose_secret().into());
        }
        let assertion = self.key.sign("JWT", claims).await?.jwt;
        request.append("grant_type", JWT_BEARER_GRANT);
        request.append_secret("assertion", &assertion);
        request.add_refusal_hint(RequestPart::Grant, INVALID_GRANT_HINT);
        Ok(())
    }
}

/// The text of a JSON string in ASCII, zeroized on drop. No other copy of it remains.
///
/// The parser copies a string with escapes, such as the line ends of a PEM text, and does not
/// zeroize that copy.
fn ascii_text(json: &RawValue) -> Option<Zeroizing<String>> {
    let mut rest = json.get().strip_prefix('"')?.strip_suffix('"')?;
    // Allocated at once: an escape is longer than its character.
    let mut text = Zeroizing::new(String::with_capacity(rest.len()));
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut length = 1;
        text.push(match escape.chars().next()? {
            character @ ('"' | '\\' | '/') => character,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                length = 5;
                let code = u32::from_str_radix(escape.get(1..length)?, 16).ok()?;
                char::from_u32(code)?
            }
            _ => return None,
        });
        rest = escape.get(length..)?;
    }
    text.push_str(rest);
    text.is_ascii().then_some(text)
}

impl ClientAuthentication for ServiceAccount {
    fn authenticate<'a>(
        &'a self,
        request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.write(request))
    }

    fn client_id(&self) -> Option<&str> {
        Some(&self.client_email)
    }
}

impl Grant for SignedGrant {
    fn write<'a>(&'a self, _request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> Option<String> {
        let json = serde_json::from_str::<&RawValue>(json).unwrap();
        ascii_text(json).map(|text| {
            assert!(
                text.capacity() < json.get().len(),
                "the buffer did not grow"
            );
            text.to_string()
        })
    }

    #[test]
    fn a_json_string_in_ascii_is_read_as_the_parser_reads_it() {
        for json in [
            r#""""#,
            r#""plain""#,
            r#""\n""#,
            r#""-----BEGIN A-----\nAQ\u003d\u003D\n""#,
            r#""\"\\\/\b\f\n\r\t\u0000\u007f\\n""#,
        ] {
            assert_eq!(text(json), serde_json::from_str(json).unwrap(), "{json}");
        }
        for json in [
            r#""\u0080""#,
            r#""é""#,
            r#""\ud83d\ude00""#,
            r#""\udead""#,
            "5",
            "[]",
            "{}",
        ] {
            assert_eq!(text(json), None, "{json}");
        }
    }
}
