//! Token exchange ([RFC 8693](https://www.rfc-editor.org/rfc/rfc8693)): a client that received a
//! token gets one for another service, with the same subject.
//!
//! Subject and actor tokens are access tokens of this server. The client must be an audience of the
//! subject token, or the client that it was issued to. The new token has the claims of the subject
//! token, and is for no more scopes and no longer than it.

use serde_json::{Map, Value, json};

use super::super::active_token::ActiveToken;
use super::super::applications::distinct;
use super::super::error_response::ErrorResponse;
use super::super::issuance;
use super::{GrantRequest, GrantedToken, check_kind, target};

/// RFC 8693 §3
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The claims of the subject token that are not about its subject: they name its client, its
/// target and its validity. `grant` sets those that the new token has.
const NOT_ABOUT_THE_SUBJECT: [&str; 16] = [
    "act",
    "amr",
    "appid",
    "aud",
    "azp",
    "cid",
    "client_id",
    "cnf",
    "exp",
    "iat",
    "iss",
    "jti",
    "may_act",
    "nbf",
    "scope",
    "scp",
];

pub(super) fn grant(request: &GrantRequest<'_>) -> Result<GrantedToken, ErrorResponse> {
    let GrantRequest {
        server,
        version,
        parameters,
        ..
    } = *request;
    let client = request.authenticate()?;
    check_kind(&client)?;
    if !matches!(
        parameters.get("requested_token_type"),
        None | Some(ACCESS_TOKEN)
    ) {
        let reason = format!("requested_token_type must be {ACCESS_TOKEN}");
        return Err(ErrorResponse::bad_request("invalid_request", reason));
    }
    let subject = token_parameter(request, "subject_token", "subject_token_type")?;
    if subject.client_id() != client.client_id && !subject.has_audience(&client.client_id) {
        return Err(ErrorResponse::bad_request(
            "invalid_request",
            "the client is neither an audience of subject_token nor the client it was issued to",
        ));
    }
    let actor = actor_token(request)?;
    // Another client's token does not make this client that actor.
    if actor
        .as_ref()
        .is_some_and(|actor| actor.client_id() != client.client_id)
    {
        return Err(ErrorResponse::bad_request(
            "invalid_request",
            "actor_token was not issued to the client",
        ));
    }
    let actor_subject = actor
        .as_ref()
        .map_or(client.client_id.as_str(), ActiveToken::subject);
    let act = act_claim(&subject, actor_subject)?;
    let scope = granted_scope(&subject.scopes(), parameters.get("scope"))?;
    let audience = target::audience(&client, version, parameters)?;

    let now = server.clock.now();
    let ends = [
        Some(subject.expires_at()),
        actor.as_ref().map(ActiveToken::expires_at),
    ];
    let expires_at = ends
        .into_iter()
        .flatten()
        .fold(now.saturating_add(server.token_lifetime), Ord::min);
    let mut claims = subject.into_claims();
    claims.retain(|name, _| !NOT_ABOUT_THE_SUBJECT.contains(&name.as_str()));
    let issuer = server.issuer(version);
    let audience = issuance::audience_claim(version, audience);
    for (name, value) in [
        ("iss", json!(issuer)),
        ("aud", audience),
        ("exp", json!(expires_at.as_secs())),
        ("iat", json!(now.as_secs())),
        ("client_id", json!(client.client_id)),
        ("act", Value::Object(act)),
    ] {
        claims.insert(name.to_owned(), value);
    }
    // RFC 6749 §3.3: a scope has at least one token.
    if !scope.is_empty() {
        claims.insert("scope".to_owned(), json!(scope));
    }
    Ok(GrantedToken {
        claims,
        scope,
        lifetime: expires_at.saturating_since(now),
        client_id: client.client_id,
        issued_token_type: Some(ACCESS_TOKEN),
    })
}

/// An active access token of this server in a parameter. RFC 8693 §2.2.2: a token that is invalid
/// for any reason is `invalid_request`.
fn token_parameter(
    request: &GrantRequest<'_>,
    name: &str,
    type_name: &str,
) -> Result<ActiveToken, ErrorResponse> {
    let invalid = |reason| Err(ErrorResponse::bad_request("invalid_request", reason));
    let token = request.parameters.require(name)?;
    if request.parameters.require(type_name)? != ACCESS_TOKEN {
        return invalid(format!("{type_name} must be {ACCESS_TOKEN}"));
    }
    let Some(token) = ActiveToken::verify(request.server, token) else {
        return invalid(format!(
            "{name} is not an active access token of this server, issued to one of its clients \
             (client_id, or else sub)"
        ));
    };
    // RFC 7800 §3: its sender would have to prove that it has the key.
    match token.is_bound_to_a_key() {
        true => invalid(format!("{name} is bound to a key")),
        false => Ok(token),
    }
}

fn actor_token(request: &GrantRequest<'_>) -> Result<Option<ActiveToken>, ErrorResponse> {
    match (
        request.parameters.get("actor_token"),
        request.parameters.get("actor_token_type"),
    ) {
        (None, None) => Ok(None),
        // RFC 8693 §2.1
        (None, Some(_)) => Err(ErrorResponse::bad_request(
            "invalid_request",
            "actor_token_type requires actor_token",
        )),
        (Some(_), _) => token_parameter(request, "actor_token", "actor_token_type").map(Some),
    }
}

/// The claim `act` (RFC 8693 §4.1): the actor, with the actors before it.
fn act_claim(subject: &ActiveToken, actor: &str) -> Result<Map<String, Value>, ErrorResponse> {
    let invalid = |reason| Err(ErrorResponse::bad_request("invalid_request", reason));
    // RFC 8693 §4.4
    let may_act = subject.claim("may_act");
    if may_act.is_some_and(|may_act| may_act.get("sub").and_then(Value::as_str) != Some(actor)) {
        return invalid("subject_token has a may_act for another actor");
    }
    let mut act = Map::from_iter([("sub".to_owned(), json!(actor))]);
    match subject.claim("act") {
        None => {}
        Some(prior @ Value::Object(_)) => {
            act.insert("act".to_owned(), prior.clone());
        }
        Some(_) => return invalid("act of subject_token is not an object"),
    }
    Ok(act)
}

/// The requested scopes, if the subject token has all of them; without a request, those of the
/// subject token.
fn granted_scope(granted: &[&str], requested: Option<&str>) -> Result<String, ErrorResponse> {
    let Some(requested) = requested else {
        return Ok(granted.join(" "));
    };
    let requested = distinct(requested.split(' ').filter(|scope| !scope.is_empty()));
    match requested.iter().all(|scope| granted.contains(scope)) {
        true if !requested.is_empty() => Ok(requested.join(" ")),
        _ => Err(ErrorResponse::bad_request(
            "invalid_scope",
            "scope is empty, or subject_token does not have a scope of it",
        )),
    }
}
