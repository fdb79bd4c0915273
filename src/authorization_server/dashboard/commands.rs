//! What an application does, as lines for a shell.

use maud::{Markup, html};
use serde_json::json;
use url::form_urlencoded;

use super::super::Version;
use super::super::applications::Registration;
use super::Inner;
use super::layout::{hidden_listing, listing};
use super::token_request::{TokenRequest, basic_credentials};

/// The requests of App ID's guide as lines for a shell. Ids, URLs, base64, tokens and
/// what is URL-encoded hold nothing that single quotes would not.
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
    // Whoever the token is for is the one to be started.
    let resource = if audience.is_empty() {
        &application.client_id
    } else {
        audience
    };
    let token_request = format!(
        "curl -X POST \\\n  {url}/token \\\n  -H 'Authorization: Basic {}' \\\n  \
         -H 'Content-Type: application/x-www-form-urlencoded' \\\n  -d grant_type=client_credentials{parameters}",
        basic_credentials(application),
    );
    let binding =
        json!({ "clientId": resource, "oauthServerUrl": url, "tenantId": server.tenant_id });
    let environment = format!(
        "export APPID_SERVICE_BINDING='{binding}'\ncargo run --release --example protected_resource"
    );
    let call = |token: &str| {
        format!(
            "curl http://localhost:8081/protected_resource \\\n  -H \"Authorization: Bearer {token}\""
        )
    };
    html! {
        section.card aria-labelledby="commands" {
            h2 #commands { "On the command line" }
            (hidden_listing("curl-token", "Request a token", "secret", &token_request))
            (listing("environment", "Start the protected resource", &environment))
            p.hint { "It needs no secret: it fetches the keys." }
            @match token {
                Some(token) => (hidden_listing("curl-call", "Call the protected resource", "token", &call(token))),
                None => (listing("curl-call", "Call the protected resource", &call("$TOKEN"))),
            }
        }
    }
}
