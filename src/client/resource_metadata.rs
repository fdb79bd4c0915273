//! Whether the metadata of a protected resource confirm the issuer of the client.
//!
//! The document of [RFC 9728](https://www.rfc-editor.org/rfc/rfc9728#section-3) never chooses an
//! issuer: the client's credentials belong to one issuer, which is configured with them. A document
//! of another resource, or one that does not list the issuer, is an error, and nothing is sent to
//! the issuer.
//!
//! The document is read before the first token request, and again after an hour. If it cannot be
//! read then, the last confirmation is still used: an outage of the resource is not one of its
//! tokens.

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::token_endpoint::DiscoveryContext;
use crate::error::{ConfigError, Error, ErrorKind, Operation, escape_and_truncate};
use crate::metadata::{document_text, url_for_display};
use crate::oauth::{Endpoint, Issuer, IssuerDifference, ResourceIdentifier};
use crate::timer::now;
use crate::trace;
use crate::transport::{Limits, describe_document};

/// How long a confirmation is used before the document is read again.
const CONFIRMATION_LIFETIME: Duration = Duration::from_secs(3600);

/// Time between a failed reading and the next one while a confirmation is still used.
const RETRY: Duration = Duration::from_secs(60);

/// Longer values of `Retry-After` are cut to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Time limit of reading the document.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum size of the document in bytes.
const MAX_DOCUMENT: usize = 64 * 1024;

/// The metadata of the resource that the tokens are for.
#[derive(Debug)]
pub(super) struct ResourceMetadata {
    resource: ResourceIdentifier,
    /// When the document is read again. `None` if the issuer is not confirmed.
    read_again_at: Option<Instant>,
}

impl ResourceMetadata {
    pub(super) fn new(resource: ResourceIdentifier) -> Self {
        Self {
            resource,
            read_again_at: None,
        }
    }

    /// Confirms the issuer: reads the document, unless that is done.
    pub(super) async fn confirm(
        &mut self,
        issuer: &Issuer,
        context: DiscoveryContext<'_>,
    ) -> Result<(), Error> {
        if self.read_again_at.is_some_and(|at| now() < at) {
            return Ok(());
        }
        let is_confirmed = self.read_again_at.is_some();
        let error = match self.read(issuer, context, is_confirmed).await {
            Ok(()) => {
                self.read_again_at = Some(now() + CONFIRMATION_LIFETIME);
                return Ok(());
            }
            Err(error) => error,
        };
        let is_refuted = matches!(
            error.kind(),
            ErrorKind::ResourceMismatch | ErrorKind::IssuerMismatch
        );
        if is_refuted || !is_confirmed {
            self.read_again_at = None;
            return Err(error);
        }
        let pause = error.retry_after().unwrap_or_default();
        self.read_again_at = Some(now() + pause.clamp(RETRY, MAX_RETRY_AFTER));
        trace::warn!(
            target: "tower_oauth::client",
            resource = self.resource.as_str(),
            error = %error.source_chain(),
            "the metadata of the resource cannot be read: \
             the last confirmation of the issuer is still used"
        );
        Ok(())
    }

    async fn read(
        &self,
        issuer: &Issuer,
        context: DiscoveryContext<'_>,
        is_confirmed: bool,
    ) -> Result<(), Error> {
        let DiscoveryContext {
            http_client,
            now,
            limits,
        } = context;
        // The token request needs the rest of the time.
        let share = if is_confirmed { 0.4 } else { 1.0 };
        let limits = Limits {
            total: limits.total.mul_f64(share).min(TIMEOUT),
            max_body: MAX_DOCUMENT,
        };
        let unusable = |error: ConfigError| {
            Error::new(Operation::ResourceMetadata, ErrorKind::Configuration).with_source(error)
        };
        let url = Endpoint::new(self.resource.metadata_url()).map_err(unusable)?;
        let response = http_client
            .get_json(
                Operation::ResourceMetadata,
                &url,
                HeaderMap::new(),
                now,
                limits,
            )
            .await
            .map_err(explain_not_found)?;
        check(response.body(), self.resource.as_str(), issuer)
            .map_err(|error| describe_document(error, &response).with_url(url.as_str()))
    }
}

fn explain_not_found(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Status(StatusCode::NOT_FOUND) => error.with_detail(
            "the resource publishes no metadata: correct the resource, or use `for_issuer`, with \
             `resource` if the issuer needs it",
        ),
        _ => error,
    }
}

/// The members that are used. Others are not parsed.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
    #[serde(borrow)]
    authorization_servers: Option<&'a RawValue>,
}

/// Checks that the document is that of `resource`, byte for byte
/// ([RFC 9728 §3.3](https://www.rfc-editor.org/rfc/rfc9728#section-3.3)), and lists `issuer`.
fn check(body: &[u8], resource: &str, issuer: &Issuer) -> Result<(), Error> {
    let malformed = || Error::new(Operation::ResourceMetadata, ErrorKind::Malformed);
    let text = document_text(body, Operation::ResourceMetadata)?;
    let document: Document<'_> =
        serde_json::from_str(text).map_err(|error| malformed().with_source(error))?;
    let named = document
        .resource
        .and_then(|value| serde_json::from_str::<String>(value.get()).ok())
        .ok_or_else(|| malformed().with_detail("`resource` is missing or not a string"))?;
    if named != resource {
        return Err(resource_mismatch(resource, &named));
    }
    let listed = document
        .authorization_servers
        .and_then(|value| serde_json::from_str::<Vec<Value>>(value.get()).ok())
        .unwrap_or_default();
    let listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    if listed.contains(&issuer.as_str()) {
        Ok(())
    } else {
        Err(issuer_mismatch(issuer, &listed))
    }
}

fn resource_mismatch(resource: &str, named: &str) -> Error {
    let error = Error::new(Operation::ResourceMetadata, ErrorKind::ResourceMismatch)
        .with_expected(url_for_display(resource))
        .with_found(escape_and_truncate(&url_for_display(named)));
    // Of a server with one document for all paths.
    let is_parent = resource.strip_prefix(named).is_some_and(|rest| {
        let is_segment = named.ends_with('/') || rest.starts_with(['/', '?']);
        is_segment && Endpoint::new(named).is_ok()
    });
    if is_parent {
        error.with_detail("name the resource as its metadata do")
    } else {
        error
    }
}

fn issuer_mismatch(issuer: &Issuer, listed: &[&str]) -> Error {
    let error = Error::new(Operation::ResourceMetadata, ErrorKind::IssuerMismatch)
        .with_expected(issuer.as_str());
    if listed.is_empty() {
        return error.with_detail("the metadata of the resource list no authorization server");
    }
    let shown: Vec<String> = listed.iter().map(|named| url_for_display(named)).collect();
    let error = error.with_found(escape_and_truncate(&shown.join(" ")));
    let difference = listed
        .iter()
        .find_map(|named| IssuerDifference::between(issuer.as_str(), named));
    match difference {
        Some(difference) => error.with_detail(difference.description()),
        None => error.with_detail("the resource accepts no tokens of the configured issuer"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RESOURCE: &str = "https://api.example/orders";

    fn check_document(document: &Value) -> Result<(), Error> {
        let issuer = Issuer::new("https://as.example").unwrap();
        check(document.to_string().as_bytes(), RESOURCE, &issuer)
    }

    #[test]
    fn a_document_that_names_resource_and_issuer_confirms_both() {
        for servers in [
            json!(["https://as.example"]),
            json!(["https://other.example", "https://as.example"]),
            json!([5, null, {}, "https://as.example"]),
        ] {
            let document =
                json!({ "resource": RESOURCE, "authorization_servers": servers, "x": 1 });
            check_document(&document).unwrap();
        }
    }

    #[test]
    fn another_issuer_is_an_error_that_names_both() {
        for (servers, found, says) in [
            (
                json!(["https://evil.example"]),
                Some("https://evil.example"),
                "accepts no tokens",
            ),
            (
                json!(["https://as.example/"]),
                Some("https://as.example/"),
                "only the slash",
            ),
            (
                json!(["https://u:s3cret@a.example/t?s3cret", "https://b.example"]),
                Some("https://a.example/t?… https://b.example"),
                "accepts no tokens",
            ),
            (json!([]), None, "list no authorization server"),
            (
                json!("https://as.example"),
                None,
                "list no authorization server",
            ),
            (json!(null), None, "list no authorization server"),
        ] {
            let document = json!({ "resource": RESOURCE, "authorization_servers": servers });
            let error = check_document(&document).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IssuerMismatch, "{servers}");
            assert_eq!(error.expected(), Some("https://as.example"));
            assert_eq!(error.found(), found);
            let text = error.to_string();
            assert!(text.contains(says) && !text.contains("s3cret"), "{text}");
        }
        let none = check_document(&json!({ "resource": RESOURCE })).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::IssuerMismatch);
    }

    #[test]
    fn a_document_of_another_resource_is_an_error_that_names_both() {
        for (named, is_parent) in [
            ("https://evil.example/orders", false),
            ("https://api.example/orders/", false),
            ("https://api.example/Orders", false),
            ("https://api.example/orders/1", false),
            ("https://api.example.evil.example/orders", false),
            ("https://api.example/ord", false),
            ("https://api.exam", false),
            ("https://", false),
            ("", false),
            ("https://api.example", true),
            ("https://api.example/", true),
        ] {
            let document = json!({
                "resource": named,
                "authorization_servers": ["https://as.example"],
            });
            let error = check_document(&document).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ResourceMismatch, "{named}");
            assert_eq!(error.expected(), Some(RESOURCE));
            assert_eq!(error.found(), Some(named));
            let hints = error.to_string().contains("as its metadata do");
            assert_eq!(hints, is_parent, "{error}");
        }
    }

    #[test]
    fn a_document_without_a_resource_is_malformed() {
        for body in [
            "",
            "<html>",
            "[]",
            "{",
            "{}",
            r#"{"resource":5}"#,
            r#"{"resource":["https://api.example/orders"]}"#,
            r#"{"resource":"https://api.example/orders","resource":"x"}"#,
        ] {
            let issuer = Issuer::new("https://as.example").unwrap();
            let error = check(body.as_bytes(), RESOURCE, &issuer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{body}");
            assert_eq!(error.operation(), Operation::ResourceMetadata);
        }
    }
}
