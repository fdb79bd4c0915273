//! The token endpoint, with the client credentials grant
//! ([RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4)).
//!
//! It issues access tokens only, no id tokens and no refresh tokens.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::applications::{DEFAULT_SCOPE, Registration, distinct};
use super::error_response::ErrorResponse;
use super::extractor::{RequestBody, parse_version};
use super::issuance::{self, TokenParams};
use super::state::State as ServerState;
use super::{AuthorizationServer, Version};
use crate::oauth::{Scope, has_only_uri_characters};

pub(super) async fn token(
    State(server): State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ErrorResponse> {
    let version = parse_version(&path)?;
    let parameters = Parameters::from_request(&headers, &body)?;
    let grant_type = parameters
        .get("grant_type")
        .ok_or_else(|| missing_parameter("grant_type"))?;
    if grant_type != "client_credentials" {
        return Err(ErrorResponse::bad_request(
            "unsupported_grant_type",
            "grant_type must be client_credentials",
        ));
    }
    let (claims, scope, lifetime, key, issued_to) = {
        let inner = &server.0;
        let state = inner.state();
        let application = authenticate(&state, &headers, &parameters)?;
        if application.kind == "singlepageapp" {
            let reason = "a single-page application cannot use the client credentials grant";
            return Err(ErrorResponse::bad_request("unauthorized_client", reason));
        }
        let scope = granted_scope(&state.assigned_scopes(application), parameters.get("scope"))?;
        let params = TokenParams {
            client_id: &application.client_id,
            audience: audience(application, version, &parameters)?,
            scope: scope.clone(),
            roles: state.role_names(application),
            claims: application.claims.clone(),
        };
        let lifetime = inner.token_lifetime;
        let claims = issuance::claims(inner, version, params, inner.clock.now(), lifetime);
        let issued_to = IssuedTo(application.client_id.clone());
        (
            claims,
            scope,
            lifetime,
            std::sync::Arc::clone(state.keys.current()),
            issued_to,
        )
    };
    let token = issuance::encode(&issuance::header(version, &key), &claims, |input| {
        key.sign(input)
    })
    .map_err(|_| {
        ErrorResponse::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "the token could not be signed",
        )
    })?;
    let body = json!({
        "access_token": token,
        "expires_in": lifetime.as_secs(),
        "token_type": "Bearer",
        "scope": scope,
    });
    // RFC 6749 §5.1
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, Extension(issued_to), Json(body)).into_response())
}

/// The client id that a token was issued to, as a response extension.
#[derive(Clone, Debug)]
pub(super) struct IssuedTo(pub(super) String);

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
            // RFC 6749 §3.2 forbids repeated parameters; RFC 8707 §2 allows `resource` to repeat.
            let may_repeat = name == "resource";
            let values = parameters.0.entry(name).or_default();
            if !values.is_empty() && !may_repeat {
                return Err(ErrorResponse::bad_request(
                    "invalid_request",
                    "a parameter is repeated",
                ));
            }
            values.push(value);
        }
        Ok(parameters)
    }

    /// The value of a parameter. An empty value counts as absent (RFC 6749 §3.2).
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next().filter(|value| !value.is_empty())
    }

    fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
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
            Value::Array(values) if name == "resource" => values,
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

fn missing_parameter(parameter: &str) -> ErrorResponse {
    ErrorResponse::bad_request("invalid_request", format!("{parameter} is missing"))
}

/// Authenticates the client by exactly one method (RFC 6749 §2.3).
pub(super) fn authenticate<'a>(
    state: &'a ServerState,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<&'a Registration, ErrorResponse> {
    let invalid_client = || {
        ErrorResponse::new(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "client authentication failed",
        )
        .with_challenge(r#"Basic realm="authorization server", charset="UTF-8""#)
    };
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, second_field) = (fields.next(), fields.next());
    if second_field.is_some() || field.is_some() && parameters.get("client_secret").is_some() {
        return Err(ErrorResponse::bad_request(
            "invalid_request",
            "the client must use exactly one authentication method",
        ));
    }
    let Some(field) = field else {
        let id = parameters.get("client_id").ok_or_else(invalid_client)?;
        let secret = parameters.get("client_secret").ok_or_else(invalid_client)?;
        return state.authenticate(id, secret).ok_or_else(invalid_client);
    };
    let (id, secret) = basic_credentials(field).ok_or_else(invalid_client)?;
    // App ID expects the parts as they are, RFC 6749 §2.3.1 form-urlencoded. Accept both.
    let decoded = |part: &str| {
        // An unencoded `&` would end the value, and encoded values contain none.
        if part.contains('&') {
            return None;
        }
        form_urlencoded::parse(format!("x={part}").as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
    };
    let application = state.authenticate(&id, &secret).or_else(|| {
        let (id, secret) = (decoded(&id)?, decoded(&secret)?);
        state.authenticate(&id, &secret)
    });
    let application = application.ok_or_else(invalid_client)?;
    match parameters.get("client_id") {
        Some(other) if other != application.client_id => Err(ErrorResponse::bad_request(
            "invalid_request",
            "client_id differs from the authenticated client",
        )),
        _ => Ok(application),
    }
}

/// User id and password (RFC 7617 §2).
fn basic_credentials(field: &HeaderValue) -> Option<(String, String)> {
    let (scheme, credentials) = field.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// The requested scopes, if all of them are assigned; without a request, the default scope and
/// all assigned scopes.
fn granted_scope(
    assigned: &BTreeSet<String>,
    requested: Option<&str>,
) -> Result<String, ErrorResponse> {
    let Some(requested) = requested else {
        let all: Vec<&str> = std::iter::once(DEFAULT_SCOPE)
            .chain(assigned.iter().map(String::as_str))
            .collect();
        return Ok(all.join(" "));
    };
    let granted = distinct(requested.split(' ').filter(|scope| !scope.is_empty()));
    let is_assigned = |scope: &str| {
        Scope::new(scope).is_ok() && (scope == DEFAULT_SCOPE || assigned.contains(scope))
    };
    if !granted.iter().all(|scope| is_assigned(scope)) {
        return Err(ErrorResponse::bad_request(
            "invalid_scope",
            "a scope is not assigned to this application",
        ));
    }
    if granted.is_empty() {
        // RFC 6749 §3.3 requires at least one scope token.
        return Err(ErrorResponse::bad_request(
            "invalid_scope",
            "scope is empty",
        ));
    }
    Ok(granted.join(" "))
}

/// The audience: `audience` (App ID, Auth0) and each `resource` (RFC 8707 §2), or the application
/// itself.
fn audience(
    application: &Registration,
    version: Version,
    parameters: &Parameters,
) -> Result<Vec<String>, ErrorResponse> {
    let invalid_target = |reason| Err(ErrorResponse::bad_request("invalid_target", reason));
    let resources = parameters.get_all("resource");
    // RFC 6749 §3.2: an empty value counts as absent.
    let resources: Vec<&str> = resources.filter(|resource| !resource.is_empty()).collect();
    if !resources.iter().all(|resource| is_absolute_uri(resource)) {
        return invalid_target("resource must be an absolute URI without a fragment");
    }
    let audience = distinct(parameters.get("audience").into_iter().chain(resources));
    match (version, audience.as_slice()) {
        (_, []) => Ok(vec![application.client_id.clone()]),
        (Version::V3, [_, _, ..]) => invalid_target("a token of version 3 has one audience"),
        (_, audience) => Ok(audience.iter().copied().map(str::to_owned).collect()),
    }
}

/// RFC 3986 §4.3, which has no fragment.
fn is_absolute_uri(text: &str) -> bool {
    has_only_uri_characters(text) && Url::parse(text).is_ok()
}
