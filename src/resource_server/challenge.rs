//! The headers of rejections: challenges (RFC 6750 §3) and `Retry-After` (RFC 9110 §10.2.3).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::RejectionKind;
use crate::error::ConfigError;
use crate::oauth::Scope;

/// The realm of challenges unless another is configured.
pub(super) const DEFAULT_REALM: &str = "resource";

/// The authentication that a request needs (RFC 9470 §3).
#[derive(Clone, Debug, Default)]
pub(super) struct StepUp {
    /// In order of preference; each is one word. `None`: any.
    pub(super) acr_values: Option<Vec<Box<str>>>,
    pub(super) max_age: Option<Duration>,
}

impl StepUp {
    /// What meets both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.acr_values = match (self.acr_values, other.acr_values) {
            (Some(mut own), Some(other)) => {
                own.retain(|value| other.contains(value));
                Some(own)
            }
            (own, other) => own.or(other),
        };
        self.max_age = self.max_age.into_iter().chain(other.max_age).min();
        self
    }

    fn parameters(&self) -> impl Iterator<Item = String> {
        let values = self.acr_values.iter().filter(|values| !values.is_empty());
        let acr_values = values.map(|values| format!(r#"acr_values="{}""#, values.join(" ")));
        let max_age = self.max_age.map(|age| age.as_secs());
        let max_age = max_age.map(|seconds| format!(r#"max_age="{seconds}""#));
        acr_values.chain(max_age)
    }
}

/// The parameters that each challenge of a resource server has; empty for a rejection that no
/// resource server has completed.
#[derive(Debug, Default)]
pub(super) struct ChallengeParameters {
    /// `realm="…"`
    realm: Option<String>,
    /// `resource_metadata="…"`
    resource_metadata: Option<String>,
}

impl ChallengeParameters {
    /// `resource_metadata` is the URL of RFC 9728 §5.1.
    pub(super) fn new(realm: &str, resource_metadata: Option<&str>) -> Result<Self, ConfigError> {
        let realm = quoted("realm", realm)?;
        let metadata = resource_metadata.map(|url| quoted("resource_metadata", url));
        Ok(Self {
            realm: Some(format!("realm={realm}")),
            resource_metadata: metadata
                .transpose()?
                .map(|url| format!("resource_metadata={url}")),
        })
    }

    /// Builds the headers of a rejection: a challenge (RFC 6750 §3) or `Retry-After` (RFC 9110
    /// §10.2.3).
    pub(super) fn headers(
        &self,
        kind: RejectionKind,
        scopes: &[Scope],
        step_up: Option<&StepUp>,
    ) -> Arc<HeaderMap> {
        let mut headers = no_store();
        if let Some(wait) = kind.retry_after() {
            headers.insert(header::RETRY_AFTER, wait.as_secs().into());
        } else if kind.has_challenge() {
            let error = kind.error().map(|error| {
                let description = kind.description();
                format!(r#"error="{error}", error_description="{description}""#)
            });
            let names: Vec<_> = scopes.iter().map(Scope::as_str).collect();
            let scope = (!names.is_empty()).then(|| format!(r#"scope="{}""#, names.join(" ")));
            let (realm, metadata) = (self.realm.clone(), self.resource_metadata.clone());
            let step_up = step_up.into_iter().flat_map(StepUp::parameters);
            let parameters: Vec<_> = [realm, error]
                .into_iter()
                .flatten()
                .chain(step_up)
                .chain(scope)
                .chain(metadata)
                .collect();
            let challenge = format!("Bearer {}", parameters.join(", "));
            let challenge = HeaderValue::try_from(challenge.trim_end());
            // Each part has been checked before, so the fallback is unreachable.
            let challenge = challenge.unwrap_or(HeaderValue::from_static("Bearer"));
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        Arc::new(headers)
    }
}

/// The headers of a rejection that no resource server has completed.
pub(super) fn incomplete_headers(
    kind: RejectionKind,
    scopes: &[Scope],
    step_up: Option<&StepUp>,
) -> Arc<HeaderMap> {
    ChallengeParameters::default().headers(kind, scopes, step_up)
}

/// The headers of every rejection.
fn no_store() -> HeaderMap {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    HeaderMap::from_iter([no_store])
}

/// Formats a quoted-string; fails if the content needs escapes.
fn quoted(setting: &str, content: &str) -> Result<String, ConfigError> {
    // RFC 6750 §3: %x20-21 / %x23-5B / %x5D-7E.
    if content.is_empty()
        || !content
            .bytes()
            .all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    {
        return Err(ConfigError::new(
            setting,
            content,
            "must be printable ASCII without quotes and backslashes",
        ));
    }
    Ok(format!("\"{content}\""))
}
