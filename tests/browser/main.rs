//! The dashboard in a real browser: headless Chromium through chromedriver.
//!
//! Without them the tests print "skipped" and pass, unless `REQUIRE_BROWSER` is set, as in CI.
//! Screenshots of all pages are written to `target/screenshots/`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod session;

use std::path::Path;

use axum::Router;
use axum::routing::get;
use fantoccini::Locator;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use session::{Browser, ENTER, with_browser};
use tower_oauth::app_id::Binding;
use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind, Fault};

async fn start() -> AuthorizationServer {
    let listening = AuthorizationServer::builder().bind(0).await.unwrap();
    let server = listening.server().clone();
    tokio::spawn(listening.serve(std::future::pending()));
    server
}

/// The protected resource of App ID's guide, behind the layer.
async fn protected_resource(binding: &Binding) -> String {
    let resource = binding
        .resource_server()
        .unwrap()
        .allow_loopback_http()
        .start()
        .await
        .unwrap();
    let router = Router::new()
        .route(
            "/protected_resource",
            get(async || "Hello from protected resource"),
        )
        .layer(resource.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{}/protected_resource",
        listener.local_addr().unwrap()
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// "Registering your app with the GUI", step by step; then "Obtaining an access token".
async fn register_and_call(browser: Browser, scripts: bool) {
    let server = start().await;
    browser.open(server.base_url()).await;

    // 1. In the Application tab of the dashboard, click Add Application.
    browser.click("Application").await;
    browser.click("Add Application").await;
    // 2. Add your application name and click Save to return to a list of your registered apps.
    browser
        .css("#name")
        .await
        .send_keys("ApplicationName")
        .await
        .unwrap();
    browser.click("Save").await;
    // 3. From the list of registered apps, select the application that you added in the previous
    //    step. The row expands to show your credentials.
    browser.wait_for_path("/").await;
    assert!(!browser.css(".fields").await.is_displayed().await.unwrap());
    browser.click("ApplicationName").await;
    assert!(browser.css(".fields").await.is_displayed().await.unwrap());

    assert_eq!(
        browser
            .css("button.copy")
            .await
            .is_displayed()
            .await
            .unwrap(),
        scripts,
        "the button is useless without scripts"
    );

    let field = async |name: &str| {
        let shown = browser.css(&format!("code[id^='{name}-']")).await;
        shown.text().await.unwrap()
    };
    assert_eq!(field("secret").await, "", "hidden by default");
    browser.css(".reveal summary").await.click().await.unwrap();
    let (client_id, secret, url) = (
        field("clientId").await,
        field("secret").await,
        field("oAuthServerUrl").await,
    );
    assert_eq!(field("tenantId").await, server.tenant_id());
    assert_eq!(field("name").await, "ApplicationName");
    browser
        .css(".inside .listing summary")
        .await
        .click()
        .await
        .unwrap();
    let json = field("json").await;
    let members: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&members["clientId"], &members["secret"]),
        (
            &Value::from(client_id.as_str()),
            &Value::from(secret.as_str())
        )
    );

    let http = reqwest::Client::new();
    let answer = http
        .post(format!("{url}/token"))
        .basic_auth(client_id, Some(secret))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials");
    let answer: Value =
        serde_json::from_slice(&answer.send().await.unwrap().bytes().await.unwrap()).unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let protected = protected_resource(&Binding::from_json(&json).unwrap()).await;
    assert_eq!(http.get(&protected).send().await.unwrap().status(), 401);
    let hello = http
        .get(&protected)
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    assert_eq!(hello.text().await.unwrap(), "Hello from protected resource");

    // The same through the dashboard.
    browser.click("Try it").await;
    browser.click("Request a token").await;
    let claims = browser.css("#token-claims").await.text().await.unwrap();
    let claims: Value = serde_json::from_str(&claims).unwrap();
    assert_eq!(claims["sub"], members["clientId"]);
    browser.click("The token itself").await;
    let token = browser.css("code#token").await.text().await.unwrap();
    assert_eq!(
        http.get(&protected)
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn guide_steps_from_dashboard_to_protected_resource_work() {
    with_browser(true, |browser| register_and_call(browser, true)).await;
}

#[tokio::test]
async fn guide_steps_work_without_scripts() {
    with_browser(false, |browser| register_and_call(browser, false)).await;
}

#[tokio::test]
async fn a_name_of_51_characters_is_rejected_at_its_field() {
    with_browser(true, async |browser: Browser| {
        let server = start().await;
        browser
            .open(&format!("{}/applications/new", server.base_url()))
            .await;
        browser
            .css("#name")
            .await
            .send_keys(&"é".repeat(51))
            .await
            .unwrap();
        browser.click("Save").await;
        let error = browser.css("#name-error").await;
        assert_eq!(
            error.text().await.unwrap(),
            "Name must have 1 to 50 characters."
        );
        let field = browser.css("#name").await;
        assert!(
            field
                .attr("aria-describedby")
                .await
                .unwrap()
                .unwrap()
                .contains("name-error")
        );
        assert_eq!(field.attr("aria-invalid").await.unwrap().unwrap(), "true");
        assert_eq!(
            field.prop("value").await.unwrap().unwrap(),
            "é".repeat(51),
            "the input is kept"
        );
        assert!(server.applications().is_empty());
        // The field has the focus: press End, then Backspace.
        let has_focus = "return document.activeElement.id";
        assert_eq!(
            browser.0.execute(has_focus, Vec::new()).await.unwrap(),
            "name"
        );
        field.send_keys("\u{e010}\u{e003}").await.unwrap();
        browser.click("Save").await;
        browser.css(".notice").await;
        assert_eq!(server.applications()[0].name(), "é".repeat(50));
    })
    .await;
}

#[tokio::test]
async fn keys_are_rotated_and_withdrawn_in_the_browser() {
    with_browser(true, async |browser: Browser| {
        let server = start().await;
        let first = server.keys()[0].kid().to_owned();
        browser.open(server.base_url()).await;
        browser.click("Keys").await;
        browser.click("Rotate").await;
        browser.css(".notice").await;
        let kids: Vec<String> = server
            .keys()
            .iter()
            .map(|key| key.kid().to_owned())
            .collect();
        assert_eq!((kids.len(), &kids[1]), (2, &first));
        for kid in &kids {
            assert_eq!(
                browser
                    .css(&format!("[id='kid-{kid}']"))
                    .await
                    .text()
                    .await
                    .unwrap(),
                *kid
            );
        }
        let retired = browser.css("li.key:last-child").await;
        assert!(retired.text().await.unwrap().contains("Retired"));
        retired
            .find(Locator::Css("summary"))
            .await
            .unwrap()
            .click()
            .await
            .unwrap();
        retired
            .find(Locator::Css("button.danger"))
            .await
            .unwrap()
            .click()
            .await
            .unwrap();
        browser
            .find(Locator::XPath(
                "//p[@role='status'][contains(., 'withdrawn')]",
            ))
            .await;
        assert_eq!(server.keys().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_copy_button_copies_the_hidden_value() {
    with_browser(true, async |browser: Browser| {
        let server = start().await;
        let application = server.register("shop").unwrap();
        browser.open(server.base_url()).await;
        let allowed = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
        browser.devtools("Browser.grantPermissions", allowed).await;
        browser.click("shop").await;
        let copy = browser.css("button[data-copy^='secret-']").await;
        copy.click().await.unwrap();
        browser
            .find(Locator::XPath("//button[starts-with(., 'Copied')]"))
            .await;
        // Screen readers announce it.
        browser
            .find(Locator::XPath("//p[@role='status'][.='Copied secret']"))
            .await;
        let read = "navigator.clipboard.readText().then(arguments[0], arguments[0])";
        let copied = browser.0.execute_async(read, Vec::new()).await.unwrap();
        assert_eq!(copied, application.secret().expose_secret());
    })
    .await;
}

#[tokio::test]
async fn a_link_from_another_site_keeps_open_forms_valid() {
    with_browser(true, async |browser: Browser| {
        let server = start().await;
        let link = format!(
            r#"<!doctype html><a href="{}/keys">To the keys</a>"#,
            server.base_url()
        );
        let page = get(async move || axum::response::Html(link.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", page)).await });

        browser
            .open(&format!("{}/applications/new", server.base_url()))
            .await;
        let session = async || {
            browser.0.get_all_cookies().await.unwrap()[0]
                .value()
                .to_owned()
        };
        let before = session().await;
        // For browsers another host name is another site.
        browser.open(&format!("http://localhost:{port}")).await;
        browser.click("To the keys").await;
        browser.css("li.key").await;
        assert_eq!(session().await, before);
    })
    .await;
}

#[tokio::test]
async fn an_active_fault_is_shown_by_more_than_color() {
    with_browser(true, async |browser: Browser| {
        let server = start().await;
        server.fail(EndpointKind::Token, Fault::Garbage);
        let forced = json!({ "features": [{ "name": "forced-colors", "value": "active" }] });
        browser.devtools("Emulation.setEmulatedMedia", forced).await;
        browser.open(&format!("{}/faults", server.base_url())).await;
        for (pressed, border) in [("true", "2px"), ("false", "0px")] {
            let selector = format!(".switch button[value=garbage][aria-pressed={pressed}]");
            assert_eq!(
                browser
                    .css(&selector)
                    .await
                    .css_value("border-top-width")
                    .await
                    .unwrap(),
                border
            );
        }
    })
    .await;
}

#[tokio::test]
async fn keyboard_navigation_reaches_everything_with_visible_focus() {
    with_browser(true, async |browser: Browser| {
        let server = start().await;
        browser.open(server.base_url()).await;
        browser.tab_to(".skip").await;
        browser.tab_to("main .button").await;
        browser.press(ENTER).await;
        browser.tab_to("#name").await;
        for character in "shop".chars() {
            browser.press(character).await;
        }
        browser.press(ENTER).await;
        browser.css(".notice").await;
        let row = browser.tab_to(".row > summary").await;
        browser.press(ENTER).await;
        assert_eq!(
            row.find(Locator::XPath(".."))
                .await
                .unwrap()
                .attr("open")
                .await
                .unwrap()
                .as_deref(),
            Some("true")
        );
        browser.tab_to(".reveal summary").await;
        browser.press(ENTER).await;
        let secret = browser
            .css("code[id^='secret-']")
            .await
            .text()
            .await
            .unwrap();
        assert_eq!(secret, server.applications()[0].secret().expose_secret());
    })
    .await;
}

/// The contrast of every text with its background, and whether the page is wider than the viewport
/// (WCAG 2.2, 1.4.3 and 1.4.10).
const FINDINGS: &str = r#"
const channel = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
const colour = text => text.match(/[\d.]+/g).map(Number);
const findings = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const text = texts.currentNode, element = text.parentElement;
  if (!text.data.trim() || !element.checkVisibility()) continue;
  if (element.closest(".unseen, .skip")) continue;
  let behind = element;
  const background = () => colour(getComputedStyle(behind).backgroundColor);
  while (behind && (background()[3] ?? 1) < 1) behind = behind.parentElement;
  const front = luminance(colour(getComputedStyle(element).color));
  const back = luminance(behind ? background() : [255, 255, 255]);
  const contrast = (Math.max(front, back) + .05) / (Math.min(front, back) + .05);
  if (contrast < 4.5) findings.push(`${text.data.trim()}: contrast ${contrast.toFixed(2)}`);
}
for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
  if (!field.labels.length) findings.push(`${field.id}: no label`);
}
const ids = [...document.querySelectorAll("[id]")].map(element => element.id);
if (new Set(ids).size < ids.length) findings.push("duplicate id");
for (const button of document.querySelectorAll("button, .button")) {
  const isWider = button.scrollWidth > button.clientWidth;
  if (isWider) findings.push(`${button.textContent}: wider than its button`);
}
const width = document.documentElement.scrollWidth;
if (width > innerWidth) findings.push(`${width} px wide`);
return findings;
"#;

#[tokio::test]
async fn every_page_is_legible_at_every_width_in_light_and_dark() {
    with_browser(true, async |browser: Browser| {
        let server = start().await;
        let client_id = populate(&server).await;
        let base = server.base_url().to_owned();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        browser.open(&format!("{base}/try/{client_id}")).await;
        browser.click("Request a token").await;
        browser.css("#token-claims").await;
        let edit = format!("/applications/{client_id}");
        let trial = format!("/try/{client_id}");
        for (width, scheme) in [
            (320, "light"),
            (360, "light"),
            (360, "dark"),
            (1440, "light"),
            (1440, "dark"),
        ] {
            browser.set_viewport(width, scheme).await;
            for (name, path) in [
                ("applications", "/?done=added"),
                ("new", "/applications/new"),
                ("application", &edit),
                ("try", &trial),
                ("keys", "/keys"),
                ("activity", "/activity"),
                ("faults", "/faults"),
            ] {
                browser.open(&format!("{base}{path}")).await;
                match name {
                    "applications" => {
                        browser.click("Reports of the night").await;
                        browser
                            .css("details[open] .reveal summary")
                            .await
                            .click()
                            .await
                            .unwrap();
                    }
                    "new" => {
                        browser
                            .css("#name")
                            .await
                            .send_keys(&"a name of 51 characters ".repeat(3)[..51])
                            .await
                            .unwrap();
                        browser.click("Save").await;
                        browser.css("#name-error").await;
                    }
                    "application" => browser.click("Add a role").await,
                    "keys" => browser
                        .css("li.key:last-child summary")
                        .await
                        .click()
                        .await
                        .unwrap(),
                    _ => {}
                }
                let picture = browser.screenshot().await;
                std::fs::write(folder.join(format!("{name}-{width}-{scheme}.png")), picture)
                    .unwrap();
                let findings = browser.0.execute(FINDINGS, Vec::new()).await.unwrap();
                assert_eq!(findings, json!([]), "{name}, {width} px, {scheme}");
            }
        }
    })
    .await;
}

/// Creates data for every page to show. Returns the client id of an application.
async fn populate(server: &AuthorizationServer) -> String {
    server.register("shop").unwrap();
    let reports = server.register("Reports of the night").unwrap();
    reports
        .set_scopes(["reports.read", "reports.write"])
        .unwrap();
    server.register(&"<script>".repeat(6)).unwrap();
    let manage = |request: reqwest::RequestBuilder, body: Value| {
        let token = server.management_token().expose_secret();
        request
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
    };
    let url = server.management_url();
    let scopes = ["archive.read", "archive.write"];
    let access = json!([{ "application_id": reports.client_id(), "scopes": scopes }]);
    let http = reqwest::Client::new();
    let role = json!({ "name": "archivist", "access": access });
    let added = manage(http.post(format!("{url}/roles")), role)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let added: Value = serde_json::from_slice(&added).unwrap();
    let roles = json!({ "roles": { "ids": [added["id"]] } });
    manage(
        http.put(format!("{url}/applications/{}/roles", reports.client_id())),
        roles,
    )
    .await
    .unwrap();
    server.rotate().unwrap();
    let send = async |request: reqwest::RequestBuilder| request.send().await.unwrap();
    send(http.get(server.jwks_uri().as_str())).await;
    send(http.get(format!(
        "{}/.well-known/openid-configuration",
        server.issuer().as_str()
    )))
    .await;
    let token = |secret: &str| {
        http.post(server.token_endpoint().as_str())
            .basic_auth(reports.client_id(), Some(secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials")
    };
    send(token("wrong")).await;
    send(token(reports.secret().expose_secret())).await;
    server.fail_next(EndpointKind::Keys, 1, Fault::Outage(None));
    send(http.get(server.jwks_uri().as_str())).await;
    server.fail_next(EndpointKind::Discovery, 1, Fault::Garbage);
    send(http.get(format!(
        "{}/.well-known/openid-configuration",
        server.issuer().as_str()
    )))
    .await;
    server.fail(EndpointKind::Introspection, Fault::Garbage);
    reports.client_id().to_owned()
}
