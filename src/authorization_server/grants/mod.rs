//! The grants of the token endpoint: what each requires, and the claims of the token it issues.

mod client_credentials;
mod jwt_bearer;
mod target;
mod token_exchange;

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, Value};

use super::applications::Registration;
use super::error_response::ErrorResponse;
use super::parameters::Parameters;
use super::{Inner, Version, client_authentication};

const CLIENT_CREDENTIALS: &str = "client_credentials";

/// RFC 7523 §2.1
const JWT_BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// RFC 8693 §2.1
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Every grant, as the metadata list them.
pub(super) const ALL: [&str; 3] = [CLIENT_CREDENTIALS, JWT_BEARER_GRANT, TOKEN_EXCHANGE];

/// A request to the token endpoint.
#[derive(Clone, Copy)]
pub(super) struct GrantRequest<'a> {
    pub(super) server: &'a Inner,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
    pub(super) parameters: &'a Parameters,
}

/// A token that a grant allows, before it is signed.
pub(super) struct GrantedToken {
    pub(super) claims: Map<String, Value>,
    /// The granted scopes; empty if there are none.
    pub(super) scope: String,
    pub(super) lifetime: Duration,
    /// The client that the token is issued to.
    pub(super) client_id: String,
    /// RFC 8693 §2.2.1
    pub(super) issued_token_type: Option<&'static str>,
}

impl GrantRequest<'_> {
    /// Authenticates the client by exactly one method.
    fn authenticate(&self) -> Result<Registration, ErrorResponse> {
        client_authentication::authenticate(
            self.server,
            self.version,
            self.headers,
            self.parameters,
        )
    }

    /// The same; `None` for a request without credentials.
    fn authenticate_if_present(&self) -> Result<Option<Registration>, ErrorResponse> {
        client_authentication::authenticate_if_present(
            self.server,
            self.version,
            self.headers,
            self.parameters,
        )
    }

    /// Checks the request by the rules of its grant.
    pub(super) fn grant(&self) -> Result<GrantedToken, ErrorResponse> {
        match self.parameters.require("grant_type")? {
            CLIENT_CREDENTIALS => client_credentials::grant(self),
            JWT_BEARER_GRANT => jwt_bearer::grant(self),
            TOKEN_EXCHANGE => token_exchange::grant(self),
            _ => Err(ErrorResponse::bad_request(
                "unsupported_grant_type",
                format!("grant_type must be one of {}", ALL.join(", ")),
            )),
        }
    }
}

/// A single-page application is a public client, which gets no tokens for itself.
fn check_kind(application: &Registration) -> Result<(), ErrorResponse> {
    match application.kind.as_str() {
        "singlepageapp" => Err(ErrorResponse::bad_request(
            "unauthorized_client",
            "a single-page application cannot use this grant",
        )),
        _ => Ok(()),
    }
}
