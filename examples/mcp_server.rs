//! A protected MCP server: streamable HTTP on `/mcp`, behind the layer.
//!
//! ```console
//! $ cargo run --example authorization_server     # prints credentials
//! $ # In a second shell, with its `oauthServerUrl`:
//! $ ISSUER=http://127.0.0.1:6002/oauth/v4/… cargo run --example mcp_server
//! $ curl -i http://127.0.0.1:8081/mcp -X POST     # 401: where to get a token, and which scope
//! ```
//!
//! `RESOURCE` is the URL by which clients know the server, `http://127.0.0.1:PORT/mcp` by default.
//! [`guide::mcp`](tower_oauth::guide::mcp) explains each line.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

#[path = "common/mod.rs"]
mod common;

use std::process::ExitCode;

use axum::{Router, body::Body};
use common::{SettingError, invalid_variable, parse_variable, variable};
use http::header::AUTHORIZATION;
use http::{Request, request::Parts};
use rmcp::handler::server::common::Extension;
use rmcp::model::CallToolResult;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, tool, tool_router};
use serde_json::json;
use tower::util::MapRequestLayer;
use tower_oauth::resource_server::{McpHeaders, ProtectedResource, Requirement, Startup};
use tower_oauth::{AuthContext, Issuer, RequireLayer, ResourceServer, Scope};
use url::Url;

/// The scope that the tool `report` needs.
const REPORTS_READ: &str = "reports.read";

#[derive(Clone)]
struct Tools;

#[tool_router(server_handler)]
impl Tools {
    /// The caller, as the layer authenticated it.
    #[tool(description = "Returns who calls, and with which scopes")]
    async fn whoami(&self, head: Extension<Parts>) -> Result<CallToolResult, ErrorData> {
        let caller = AuthContext::from_extensions(&head.0.extensions)
            .ok_or_else(|| ErrorData::internal_error("the layer is missing", None))?;
        Ok(CallToolResult::structured(json!({
            "issuer": caller.issuer().as_str(),
            "subject": caller.subject(),
            "client_id": caller.client_id(),
            "scopes": caller.scopes().collect::<Vec<_>>(),
            "token_in_tool": head.0.headers.contains_key(AUTHORIZATION),
        })))
    }

    /// [`required`] lets only callers with the scope in.
    #[tool(description = "Returns the report; needs the scope reports.read")]
    async fn report(&self) -> CallToolResult {
        CallToolResult::structured(json!({ "report": "all is well" }))
    }
}

/// What a request needs besides a valid token, by its head.
///
/// Any other tool, and a request without headers that the transport compares with its body, needs
/// what all tools need.
fn required() -> impl Fn(&Parts) -> Requirement {
    let all = Requirement::scopes([REPORTS_READ]);
    move |head| match McpHeaders::from_head(head) {
        Some(mcp) if mcp.method() != "tools/call" => Requirement::authenticated(), // calls no tool
        Some(mcp) if mcp.tool() == Some("whoami") => Requirement::authenticated(),
        _ => all.clone(),
    }
}

/// Tools see the caller, not its token.
fn without_token(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().remove(AUTHORIZATION);
    request
}

/// The MCP endpoint behind the layer, and the metadata document, which is open.
fn router(server: &ResourceServer, config: StreamableHttpServerConfig) -> Option<Router> {
    let mcp: StreamableHttpService<Tools, LocalSessionManager> =
        StreamableHttpService::new(|| Ok(Tools), <_>::default(), config);
    let metadata = server.resource_metadata()?;
    let router = Router::new()
        .route_service("/mcp", mcp)
        .layer(MapRequestLayer::new(without_token))
        .layer(RequireLayer::by(required()))
        .layer(server.layer().scope([REPORTS_READ]))
        // After the layers: open to all. A path may have a segment that starts with a colon.
        .without_v07_checks()
        .route_service(metadata.path(), metadata.service());
    Some(router)
}

#[tokio::main]
async fn main() -> ExitCode {
    common::log_to_stderr();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.exit(),
    }
}

async fn run() -> Result<(), SettingError> {
    let listener = common::listen(parse_variable("PORT", 8081)?).await?;
    let address = listener
        .local_addr()
        .map_err(|error| SettingError::new("PORT", error))?;
    let issuer = variable("ISSUER")?.ok_or_else(|| SettingError::new("ISSUER", "is not set"))?;
    let issuer = Issuer::new(issuer).map_err(invalid_variable("ISSUER"))?;
    common::endpoint("ISSUER", issuer.as_str())?;
    let resource = variable("RESOURCE")?.unwrap_or_else(|| format!("http://{address}/mcp"));
    let config = transport(&resource)?;
    let scope = Scope::new(REPORTS_READ)?;
    let resource = ProtectedResource::new(resource)
        .map_err(invalid_variable("RESOURCE"))?
        .resource_name("Reports")
        .scopes_supported([scope]);
    let server = ResourceServer::for_resource(resource, issuer)
        .allow_loopback_http()
        .allow_http(common::allowed_hosts()?)
        .startup(Startup::Background)
        .start()
        .await
        .map_err(common::start_error)?;
    let streams = config.cancellation_token.clone();
    let terminated = common::shutdown_signal();
    let shutdown = async move {
        terminated.await;
        // Streams of clients that stay connected would outlast the time for requests in flight.
        streams.cancel();
    };
    let router = router(&server, config).ok_or_else(|| SettingError::new("RESOURCE", "is lost"))?;
    println!("{}", json!({ "listening": format!("http://{address}") }));
    common::serve(listener, router, shutdown).await;
    Ok(())
}

/// The hosts and origins that the transport accepts: those of the resource, and loopback.
///
/// Against DNS rebinding: a page of another site must not reach a server in the network of its
/// reader.
fn transport(resource: &str) -> Result<StreamableHttpServerConfig, SettingError> {
    common::endpoint("RESOURCE", resource)?;
    let url = Url::parse(resource).map_err(|error| SettingError::new("RESOURCE", error))?;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    Ok(StreamableHttpServerConfig::default()
        .with_allowed_hosts([host, "127.0.0.1", "localhost", "[::1]"])
        .with_allowed_origins([format!("{}://{host}:{port}", url.scheme())]))
}
