//! The parameters of a request to the token endpoint or the introspection endpoint.

use std::collections::BTreeMap;

use http::{HeaderMap, header};
use serde_json::Value;
use url::form_urlencoded;

use super::error_response::ErrorResponse;
use super::grants::TOKEN_EXCHANGE;

/// Maximum number of parameters; RFC 6749 and its extensions define a dozen.
const MAX_PARAMETERS: usize = 100;

/// The parameters of a request, each name with its values: a form, or JSON as App ID's Node SDK
/// sends it.
#[derive(Default)]
pub(super) struct Parameters(BTreeMap<String, Vec<String>>);

impl Parameters {
    pub(super) fn from_request(headers: &HeaderMap, body: &[u8]) -> Result<Self, ErrorResponse> {
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match essence.as_str() {
            "application/x-www-form-urlencoded" => {
                Self::collect(form_urlencoded::parse(body).into_owned())
            }
            "application/json" => Self::collect(json_parameters(body)?.into_iter()),
            _ => Err(ErrorResponse::bad_request(
                "invalid_request",
                "content type must be application/x-www-form-urlencoded or application/json",
            )),
        }
    }

    fn collect(pairs: impl Iterator<Item = (String, String)>) -> Result<Self, ErrorResponse> {
        let mut parameters = Self::default();
        for (count, (name, value)) in pairs.enumerate() {
            if count == MAX_PARAMETERS {
                let reason = format!("there are more than {MAX_PARAMETERS} parameters");
                return Err(ErrorResponse::bad_request("invalid_request", reason));
            }
            // RFC 6749 §3.2 forbids repeated parameters. RFC 8707 §2 allows `resource` to repeat,
            // RFC 8693 §2.1 `audience` as well.
            let may_repeat = matches!(name.as_str(), "resource" | "audience");
            let values = parameters.0.entry(name).or_default();
            if !values.is_empty() && !may_repeat {
                return Err(repeated_parameter());
            }
            values.push(value);
        }
        let is_exchange = parameters.get("grant_type") == Some(TOKEN_EXCHANGE);
        if !is_exchange && parameters.get_all("audience").nth(1).is_some() {
            return Err(repeated_parameter());
        }
        Ok(parameters)
    }

    /// The value of a parameter. An empty value counts as absent (RFC 6749 §3.2).
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next().filter(|value| !value.is_empty())
    }

    /// The value of a parameter that the request must have.
    pub(super) fn require(&self, name: &str) -> Result<&str, ErrorResponse> {
        let missing =
            || ErrorResponse::bad_request("invalid_request", format!("{name} is missing"));
        self.get(name).ok_or_else(missing)
    }

    /// Every value of a parameter that may repeat.
    pub(super) fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }
}

fn json_parameters(body: &[u8]) -> Result<Vec<(String, String)>, ErrorResponse> {
    let malformed = || {
        ErrorResponse::bad_request(
            "invalid_request",
            "the body must be a JSON object of strings",
        )
    };
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return Err(malformed());
    };
    let mut parameters = Vec::new();
    for (name, value) in members {
        let values = match value {
            Value::Null => Vec::new(),
            Value::Array(values) if matches!(name.as_str(), "resource" | "audience") => values,
            other => vec![other],
        };
        for value in values {
            let Value::String(value) = value else {
                return Err(malformed());
            };
            parameters.push((name.clone(), value));
        }
    }
    Ok(parameters)
}

fn repeated_parameter() -> ErrorResponse {
    ErrorResponse::bad_request("invalid_request", "a parameter is repeated")
}
