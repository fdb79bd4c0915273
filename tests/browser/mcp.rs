//! The discovery of a client in a browser, such as the MCP Inspector, against the example
//! `mcp_server`.

use std::net::SocketAddr;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use serde_json::{Value, json};
use tower_oauth::authorization_server::AuthorizationServer;

use crate::program::{Serving, example};
use crate::session::with_browser;

/// As the TypeScript SDK does it, on which the Inspector is built: the header makes the request one
/// that the browser asks for before it sends it.
const DISCOVER: &str = r"
    const [url, headers, done] = arguments;
    fetch(url, { headers })
        .then(async (response) => [response.status, response.type, await response.json()])
        .catch((error) => String(error))
        .then(done);
";

/// A page with an origin of its own.
async fn page() -> SocketAddr {
    let router = Router::new().route("/", get(async || Html("<title>client</title>")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn a_page_of_another_origin_reads_the_metadata_of_an_mcp_server() {
    with_browser(true, |browser| async move {
        let issuer = AuthorizationServer::builder().build().unwrap().issuer();
        let mut command = example("mcp_server");
        command.env("ISSUER", issuer.as_str());
        let program = Serving::start(command).await;
        let listening = program.text("listening");
        browser.open(&format!("http://{}/", page().await)).await;
        let discover = async |path: &str| {
            let url = json!(format!("{listening}{path}"));
            let headers = json!({ "MCP-Protocol-Version": "2025-11-25" });
            let found = browser.0.execute_async(DISCOVER, vec![url, headers]).await;
            found.unwrap()
        };
        let found = discover("/.well-known/oauth-protected-resource/mcp").await;
        assert_eq!((&found[0], &found[1]), (&json!(200), &json!("cors")));
        assert_eq!(found[2]["resource"], format!("{listening}/mcp"));
        assert_eq!(found[2]["authorization_servers"], json!([issuer.as_str()]));

        // The page of another origin cannot read what is behind the layer.
        let closed = discover("/mcp").await;
        assert!(matches!(&closed, Value::String(error) if error.contains("TypeError")));
        assert_eq!(program.terminate().await.0, Some(0));
    })
    .await;
}
