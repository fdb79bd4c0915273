//! Shell commands for a token request and a call to a protected resource.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};
use secrecy::ExposeSecret;
use serde_json::json;
use url::form_urlencoded;

use super::super::Version;
use super::super::applications::Registration;
use super::Inner;
use super::layout::{hidden_listing, listing};
use super::token_request::TokenRequest;

/// The commands of App ID's documentation. All values are safe in single quotes: ids, URLs,
/// base64, tokens and URL-encoded text contain no quotes.
pub(super) fn commands(
    server: &Inner,
    application: &Registration,
    request: Option<&TokenRequest>,
) -> Markup {
    let url = server.oauth_url(Version::V4);
    let token = request.and_then(TokenRequest::token);
    let parameter = |name: &str, value: &str| match value {
        "" => String::new(),
        value => {
            let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            format!(" \\\n  -d '{name}={value}'")
        }
    };
    let (scope, audience) = request.map_or(("", ""), |request| (&request.scope, &request.audience));
    let parameters = parameter("scope", scope) + &parameter("audience", audience);
    // The protected resource is the application in the token's audience.
    let resource = if audience.is_empty() {
        &application.client_id
    } else {
        audience
    };
    let token_request = format!(
        "curl -X POST \\\n  {url}/token \\\n  -H 'Authorization: Basic {}' \\\n  \
         -H 'Content-Type: application/x-www-form-urlencoded' \\\n  \
         -d grant_type=client_credentials{parameters}",
        basic_credentials(application),
    );
    let binding =
        json!({ "clientId": resource, "oauthServerUrl": url, "tenantId": server.tenant_id });
    let environment = format!(
        "export APPID_SERVICE_BINDING='{binding}'\ncargo run --release --example protected_resource"
    );
    let call = |token: &str| {
        format!(
            "curl http://localhost:8081/protected_resource \\\n  \
             -H \"Authorization: Bearer {token}\""
        )
    };
    let call_title = "Call the protected resource";
    html! {
        section.card aria-labelledby="commands" {
            h2 #commands { "On the command line" }
            (hidden_listing("curl-token", "Request a token", "secret", &token_request))
            (listing("environment", "Start the protected resource", &environment))
            p.hint { "A protected resource needs no secret: it fetches the public keys." }
            @match token {
                Some(token) => (hidden_listing("curl-call", call_title, "token", &call(token))),
                None => (listing("curl-call", call_title, &call("$TOKEN"))),
            }
        }
    }
}

/// The credentials of Basic authentication (RFC 7617 §2).
fn basic_credentials(application: &Registration) -> String {
    STANDARD.encode(format!(
        "{}:{}",
        application.client_id,
        application.secret.expose_secret()
    ))
}
