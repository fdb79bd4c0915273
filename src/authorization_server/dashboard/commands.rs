//! What an application does, as lines for a shell.

use maud::{Markup, html};
use serde_json::json;

use super::super::Version;
use super::super::applications::Registration;
use super::Inner;
use super::layout::{hidden_listing, listing};
use super::trial::basic;

/// The requests of App ID's guide as lines for a shell. Ids, URLs, base64 and tokens hold nothing
/// that single quotes would not.
pub(super) fn commands(server: &Inner, application: &Registration, token: Option<&str>) -> Markup {
    let url = server.oauth_url(Version::V4);
    let token_request = format!(
        "curl -X POST \\\n  {url}/token \\\n  -H 'Authorization: Basic {}' \\\n  \
         -H 'Content-Type: application/x-www-form-urlencoded' \\\n  -d grant_type=client_credentials",
        basic(application),
    );
    let binding =
        json!({ "clientId": application.client_id, "oauthServerUrl": url, "tenantId": server.tenant_id });
    let environment =
        format!("export APPID_SERVICE_BINDING='{binding}'\ncargo run --release --example protected_resource");
    let call = |token: &str| {
        format!("curl http://localhost:8081/protected_resource \\\n  -H \"Authorization: Bearer {token}\"")
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
