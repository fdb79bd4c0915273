//! An MCP client with the credentials of a service. Lists the tools of a server.
//!
//! ```console
//! $ export ISSUER=https://as.example CLIENT_ID=shop CLIENT_SECRET_FILE=…
//! $ cargo run --example mcp_client -- https://api.example/mcp
//! ```
//!
//! Without a secret: `CLIENT_AUTHENTICATION=private_key_jwt` with `CLIENT_KEY_FILE`, or
//! `client_assertion` with `CLIENT_ASSERTION_FILE`. With `GRANT_ASSERTION_FILE`, an assertion of the
//! platform is the grant, and there is no client.
//!
//! The metadata of the server have to name `ISSUER`; else nothing is sent to it.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

use figment::Figment;
use figment::providers::Env;
use rmcp::ServiceExt as _;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use tower_oauth::client::{AssertionFile, ClientSettings, JwtBearerGrant, NoAuthentication};
use tower_oauth::{BoxError, TokenManager};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = std::env::args().nth(1).ok_or("usage: mcp_client URL")?;
    let tokens = if let Some(path) = std::env::var_os("GRANT_ASSERTION_FILE") {
        let issuer = std::env::var("ISSUER").map_err(|error| format!("ISSUER: {error}"))?;
        TokenManager::for_resource(&url, issuer, NoAuthentication)
            .grant(JwtBearerGrant::new(AssertionFile::new(path)))
    } else {
        let names = [
            "ISSUER",
            "CLIENT_ID",
            "CLIENT_SECRET",
            "CLIENT_SECRET_FILE",
            "CLIENT_AUTHENTICATION",
            "CLIENT_KEY_FILE",
            "CLIENT_KEY_ALGORITHM",
            "CLIENT_KEY_ID",
            "CLIENT_ASSERTION_FILE",
            "SCOPES",
        ];
        let settings = Figment::from(Env::raw().only(&names)).join(("for_resource", &url));
        settings.extract::<ClientSettings>()?.to_builder()?
    };
    let tokens = tokens.allow_loopback_http().start()?;

    // One session, which is shorter than the lifetime of its token.
    let token = tokens.access_token().await?;
    let config =
        StreamableHttpClientTransportConfig::with_uri(url).auth_header(token.expose_secret());
    let session = ().serve(StreamableHttpClientTransport::from_config(config)).await?;
    for tool in session.list_all_tools().await? {
        println!("{}", tool.name);
    }
    session.cancel().await?;
    Ok(())
}
