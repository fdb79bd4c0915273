//! The client credentials grant (RFC 6749 §4.4), and the token of an application, which the
//! jwt-bearer grant issues as well.

use std::collections::BTreeSet;

use super::super::applications::{DEFAULT_SCOPE, Registration, distinct};
use super::super::error_response::ErrorResponse;
use super::super::issuance::{self, TokenParams};
use super::{GrantRequest, GrantedToken, target};
use crate::oauth::Scope;

pub(super) fn grant(request: &GrantRequest<'_>) -> Result<GrantedToken, ErrorResponse> {
    issue_for(request, &request.authenticate()?)
}

/// The token of an application that has proved who it is.
pub(super) fn issue_for(
    request: &GrantRequest<'_>,
    application: &Registration,
) -> Result<GrantedToken, ErrorResponse> {
    let GrantRequest {
        server,
        version,
        parameters,
        ..
    } = *request;
    super::check_kind(application)?;
    let (assigned, roles) = {
        let state = server.state();
        (
            state.assigned_scopes(application),
            state.role_names(application),
        )
    };
    let scope = granted_scope(&assigned, parameters.get("scope"))?;
    let params = TokenParams {
        client_id: &application.client_id,
        audience: target::audience(application, version, parameters)?,
        scope: scope.clone(),
        roles,
        claims: application.claims.clone(),
    };
    let lifetime = server.token_lifetime;
    Ok(GrantedToken {
        claims: issuance::claims(server, version, params, server.clock.now(), lifetime),
        scope,
        lifetime,
        client_id: application.client_id.clone(),
        issued_token_type: None,
    })
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
