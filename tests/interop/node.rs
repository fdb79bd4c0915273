//! Interoperability with programs of other vendors: the App ID Node SDK, oidc-provider, Better Auth,
//! oauth4webapi and openid-client.
//!
//! They run on Node.js from `tests/interop`, with the packages that `tests/interop/install.sh`
//! installs into `INTEROP_DIR` (else `target/interop`). Without them the tests print "skipped" and
//! pass, unless `REQUIRE_INTEROP` is set, as in CI.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind, RegisteredApplication};
use tower_oauth::client::TokenManagerBuilder;
use tower_oauth::clock::{Clock as _, SystemClock};
use tower_oauth::resource_server::{Algorithm, RejectionKind, Requirement, TokenProfile};
use tower_oauth::{
    Audience, ClientCredentials, Issuer, RequireLayer, ResourceServer, Scope, TokenManager,
    TrustedIssuer,
};

use crate::servers::{authorization_server, install_folder, skip, validate};

/// The folder of the packages, if it exists.
pub fn packages() -> Option<PathBuf> {
    let folder = install_folder();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let node = std::process::Command::new("node")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if folder.join("node_modules").is_dir()
        && scripts.is_dir()
        && node.is_ok_and(|status| status.success())
    {
        return Some(folder);
    }
    skip("node or its packages: tests/interop/install.sh");
    None
}

/// Starts a program that exits when its standard input is closed.
pub fn node(packages: &Path, script: &str, settings: &[(&str, &str)]) -> Child {
    Command::new("node")
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/interop")
                .join(script),
        )
        .env("INTEROP_DIR", packages)
        .envs(settings.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The line of JSON that a program prints when it is ready or done.
pub async fn printed(program: &mut Child) -> Value {
    let mut line = String::new();
    let mut stdout = BufReader::new(program.stdout.as_mut().unwrap());
    let read = tokio::time::timeout(Duration::from_secs(60), stdout.read_line(&mut line));
    read.await.expect("the program prints in time").unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("the program printed {line:?}"))
}

/// An authorization server that signs with RS256, as App ID does.
pub async fn server() -> (AuthorizationServer, RegisteredApplication) {
    authorization_server(Algorithm::Rs256).await
}

/// The SDK validates the token: signature, `ver`, `aud`, and `iss` against the metadata.
#[tokio::test]
async fn the_node_sdks_token_manager_gets_a_token_from_this_authorization_server() {
    let Some(packages) = packages() else { return };
    let (server, app) = server().await;
    let url = format!("{}/oauth/v4/{}", server.base_url(), server.tenant_id());
    let settings = [
        ("OAUTH_SERVER_URL", url.as_str()),
        ("CLIENT_ID", app.client_id()),
        ("CLIENT_SECRET", app.secret().expose_secret()),
        ("TENANT_ID", server.tenant_id()),
    ];
    let context = printed(&mut node(&packages, "token_manager.js", &settings)).await;
    assert_eq!(context["tokenType"], "Bearer");
    assert_eq!(context["expiresIn"], 3600);
    let resource = app
        .binding()
        .unwrap()
        .resource_server()
        .unwrap()
        .allow_loopback_http()
        .start()
        .await
        .unwrap();
    let context = validate(&resource, context["accessToken"].as_str().unwrap()).await;
    let context = context.unwrap();
    assert_eq!(context.client_id(), Some(app.client_id()));
}

#[tokio::test]
async fn the_node_sdks_api_strategy_accepts_a_token_of_this_token_manager() {
    let Some(packages) = packages() else { return };
    let (server, app) = server().await;
    app.set_scopes(["reports.read"]).unwrap();
    let url = format!("{}/oauth/v4/{}", server.base_url(), server.tenant_id());
    let settings = [
        ("OAUTH_SERVER_URL", url.as_str()),
        ("TENANT_ID", server.tenant_id()),
        ("SCOPE", "reports.read"),
        ("AUDIENCE", app.client_id()),
    ];
    let mut express = node(&packages, "api_strategy.js", &settings);
    let listening = printed(&mut express).await["listening"]
        .as_str()
        .unwrap()
        .to_owned();
    let tokens = app
        .binding()
        .unwrap()
        .token_manager()
        .unwrap()
        .allow_loopback_http()
        .start()
        .unwrap();
    let http = reqwest::Client::new();
    let call = || http.get(format!("{listening}/protected_resource"));
    let token = tokens.access_token().await.unwrap();
    let response = call()
        .bearer_auth(token.expose_secret())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.text().await.unwrap(),
        "Hello from protected resource"
    );
    assert_eq!(
        call().send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let forged = server.mint(&app).with_another_key().sign();
    assert_eq!(
        call().bearer_auth(forged).send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
}

/// Both libraries fetch the metadata only from the location of RFC 8414 §3.1, and form-urlencode
/// the secret in Basic credentials as RFC 6749 §2.3.1 requires.
#[tokio::test]
async fn clients_using_rfc_8414_discovery_get_tokens_this_resource_server_accepts() {
    let Some(packages) = packages() else { return };
    let (server, app) = server().await;
    app.set_scopes(["reports.read", "reports.write"]).unwrap();
    let issuer = server.issuer();
    let resource = app
        .binding()
        .unwrap()
        .resource_server()
        .unwrap()
        .allow_loopback_http()
        .start()
        .await
        .unwrap();
    let discovered = server.requests(EndpointKind::Discovery);
    let mut clients = 0;
    for library in ["oauth4webapi", "openid-client"] {
        for method in ["client_secret_basic", "client_secret_post"] {
            for scope in ["", "reports.read"] {
                let case = format!("{library} {method} {scope:?}");
                let settings = [
                    ("LIBRARY", library),
                    ("METHOD", method),
                    ("ISSUER", issuer.as_str()),
                    ("CLIENT_ID", app.client_id()),
                    ("CLIENT_SECRET", app.secret().expose_secret()),
                    ("SCOPE", scope),
                ];
                let got = printed(&mut node(&packages, "discovery_client.js", &settings)).await;
                clients += 1;
                assert_eq!(got["issuer"], issuer.as_str(), "{case}");
                assert_eq!(got["token"]["expires_in"], 3600, "{case}");
                let context =
                    validate(&resource, got["token"]["access_token"].as_str().unwrap()).await;
                let context = context.unwrap();
                assert_eq!(context.client_id(), Some(app.client_id()), "{case}");
                assert!(context.has_scope("reports.read"), "{case}");
                assert_eq!(
                    context.has_scope("reports.write"),
                    scope.is_empty(),
                    "{case}"
                );
            }
        }
    }
    assert_eq!(
        server.requests(EndpointKind::Discovery),
        discovered + clients,
        "one request each"
    );
}

/// RFC 9470: what the client has to ask the authorization server for is read from the challenge.
#[tokio::test]
async fn a_client_reads_the_step_up_challenge_of_an_old_login_and_passes_with_a_fresh_one() {
    let Some(packages) = packages() else { return };
    let (server, app) = server().await;
    let orders = ResourceServer::builder(server.issuer(), "orders")
        .allow_loopback_http()
        .realm("orders")
        .start()
        .await
        .unwrap();
    let recent = Requirement::max_age(Duration::from_secs(300))
        .and(Requirement::acr_values([
            "urn:example:mfa",
            "urn:example:key",
        ]))
        .and(Requirement::scopes(["orders.pay"]));
    let app_behind: axum::Router = axum::Router::new()
        .route("/", axum::routing::get(async || "paid"))
        .layer(RequireLayer::new(recent))
        .layer(orders.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resource = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app_behind).await });

    let token = |login: u64| {
        let auth_time = SystemClock.now().saturating_sub(Duration::from_secs(login));
        server
            .mint(&app)
            .audience(["orders"])
            .scope("orders.pay")
            .claim("acr", "urn:example:key")
            .claim("auth_time", auth_time.as_secs())
            .sign()
    };
    let (old, fresh) = (token(3600), token(10));
    let settings = [
        ("RESOURCE", resource.as_str()),
        ("OLD_TOKEN", old.as_str()),
        ("FRESH_TOKEN", fresh.as_str()),
    ];
    let called = printed(&mut node(&packages, "step_up.js", &settings)).await;
    let description = "A more recent or stronger authentication is required";
    let parameters = serde_json::json!({
        "realm": "orders",
        "error": "insufficient_user_authentication",
        "error_description": description,
        "acr_values": "urn:example:mfa urn:example:key",
        "max_age": "300",
        "scope": "orders.pay",
    });
    let challenges = serde_json::json!([{ "scheme": "bearer", "parameters": parameters }]);
    assert_eq!(called["refused"], 401);
    assert_eq!(called["challenges"], challenges);
    assert_eq!(called["fresh"], 200);
}

/// RFC 9728: nothing is configured but the URL of the resource and the credentials.
#[cfg(unix)]
#[tokio::test]
async fn a_client_finds_its_way_from_a_bare_401_to_a_token_and_200() {
    use crate::support::program::{Serving, example};

    let Some(packages) = packages() else { return };
    let (server, app) = server().await;
    app.set_scopes(["reports.read", "reports.write"]).unwrap();
    let port = crate::servers::free_port();
    let origin = format!("http://127.0.0.1:{port}");
    let resource = format!("{origin}/protected_resource");
    let mut program = example("protected_resource");
    program
        .env("PORT", port.to_string())
        .env("ISSUER", server.issuer().as_str())
        .env("RESOURCE", &resource)
        .env("RESOURCE_SCOPE", "reports.read");
    let _program = Serving::start(program).await;
    let settings = [
        ("RESOURCE", resource.as_str()),
        ("CLIENT_ID", app.client_id()),
        ("CLIENT_SECRET", app.secret().expose_secret()),
    ];
    let got = printed(&mut node(&packages, "resource_client.js", &settings)).await;
    let place = format!("{origin}/.well-known/oauth-protected-resource/protected_resource");
    assert_eq!(got["refused"], 401);
    assert_eq!(
        got["challenges"],
        json!([{
            "scheme": "bearer",
            "parameters": {
                "realm": "resource",
                "scope": "reports.read",
                "resource_metadata": place,
            },
        }])
    );
    assert_eq!(got["place"], place, "as the client derives it");
    assert_eq!(
        got["document"],
        json!({
            "resource": resource,
            "authorization_servers": [server.issuer().as_str()],
            "bearer_methods_supported": ["header"],
        })
    );
    assert_eq!(got["scope"], "reports.read");
    assert_eq!(got["status"], 200);
    assert_eq!(got["body"], "Hello from protected resource");
}

/// An issuer of another vendor, found by discovery, under the strict profile and with every
/// algorithm family. Its client secret needs the form-urlencoding of RFC 6749 §2.3.1.
#[tokio::test]
async fn an_rfc_9068_token_of_oidc_provider_is_accepted() {
    let Some(packages) = packages() else { return };
    for alg in ["RS256", "PS256", "ES256", "EdDSA"] {
        let mut provider = node(&packages, "oidc_provider.js", &[("ALG", alg)]);
        let provider_output = printed(&mut provider).await;
        let text = |name: &str| provider_output[name].as_str().unwrap().to_owned();
        let issuer = Issuer::new(text("issuer")).unwrap();
        let tokens = TokenManager::for_issuer(
            issuer.clone(),
            ClientCredentials::new(text("clientId"), text("clientSecret")),
        )
        .unwrap()
        .scope(Scope::new("reports.read").unwrap())
        .resource(text("audience"))
        .allow_loopback_http()
        .start()
        .unwrap();
        let issuer = TrustedIssuer::new(issuer, Audience::new(text("audience")).unwrap());
        let resource = ResourceServer::from_issuer(issuer.profile(TokenProfile::Rfc9068))
            .allow_loopback_http()
            .start()
            .await
            .unwrap();
        assert!(resource.keys_available(), "{alg}");
        let token = tokens.access_token().await.unwrap();
        let context = validate(&resource, token.expose_secret()).await.unwrap();
        assert_eq!(context.client_id(), Some(text("clientId").as_str()));
        assert!(context.has_scope("reports.read"), "{alg}");
    }
}

/// An issuer whose name has a path, and which signs with Ed25519. Its tokens are opaque unless a
/// resource is named (RFC 8707).
#[tokio::test]
async fn better_auth_is_found_by_discovery_and_rotates_its_key() {
    let Some(packages) = packages() else { return };
    let mut program = node(&packages, "better_auth.js", &[]);
    let settings = printed(&mut program).await;
    let text = |name: &str| settings[name].as_str().unwrap().to_owned();
    let issuer = Issuer::new(text("issuer")).unwrap();
    assert!(issuer.as_str().ends_with("/api/auth"), "{issuer}");
    let manager = || {
        let client = ClientCredentials::new(text("clientId"), text("clientSecret"));
        let manager = TokenManager::for_issuer(issuer.clone(), client).unwrap();
        manager.allow_loopback_http()
    };
    let token = async |manager: TokenManagerBuilder| {
        let token = manager.start().unwrap().access_token().await.unwrap();
        token.expose_secret().to_owned()
    };
    let trusted = TrustedIssuer::new(issuer.clone(), Audience::new(text("audience")).unwrap());
    let resource = ResourceServer::from_issuer(trusted.profile(TokenProfile::Rfc9068));
    let resource = resource.allow_loopback_http().start().await.unwrap();

    let opaque = token(manager()).await;
    assert_eq!(opaque.matches('.').count(), 0);
    let rejected = validate(&resource, &opaque).await;
    assert_eq!(rejected.err(), Some(RejectionKind::Malformed));
    let old = token(manager().resource(text("audience"))).await;
    let context = validate(&resource, &old).await.unwrap();
    assert_eq!(context.client_id(), Some(text("clientId").as_str()));
    let scopes: Vec<_> = context.scopes().collect();
    assert_eq!(scopes, ["reports.read", "reports.write"]);

    let stdin = program.stdin.as_mut().unwrap();
    stdin.write_all(b"rotate\n").await.unwrap();
    let kid = printed(&mut program).await["kid"].clone();
    let new = token(manager().resource(text("audience"))).await;
    let header = new.split('.').next().unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!((&header["kid"], &header["alg"]), (&kid, &"EdDSA".into()));
    // The unknown key causes a refresh, and the request waits for it.
    for token in [new, old] {
        assert!(validate(&resource, &token).await.is_ok());
    }
    assert_eq!(resource.key_sets().swap_remove(0).usable_key_count(), 2);
}
