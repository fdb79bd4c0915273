//! The dashboard of the development authorization server, page by page, as a browser without
//! scripts sees it.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::app_id::Binding;
use tower_oauth::authorization_server::{
    AuthorizationServer, AuthorizationServerBuilder, EndpointKind, ExpectedAudience, Fault,
};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::transport::Transport;

use crate::assertion::Signer;

const PAGES: [&str; 7] = [
    "/",
    "/applications/new",
    "/try",
    "/explain",
    "/keys",
    "/activity",
    "/faults",
];

/// A browser session without window and socket.
struct Session {
    clock: ManualClock,
    server: AuthorizationServer,
    cookie: Mutex<Option<String>>,
}

impl Session {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(
        settings: impl FnOnce(AuthorizationServerBuilder) -> AuthorizationServerBuilder,
    ) -> Self {
        let clock = ManualClock::at(UnixTime::from_secs(1_700_000_000));
        let server = settings(AuthorizationServer::builder().clock(clock.clone()))
            .build()
            .unwrap();
        Self {
            clock,
            server,
            cookie: Mutex::default(),
        }
    }

    async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        let router = self.server.router_with_dashboard();
        let (head, body) = router
            .oneshot(request.map(Body::from))
            .await
            .unwrap()
            .into_parts();
        Response::from_parts(head, axum::body::to_bytes(body, 1 << 20).await.unwrap())
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server.base_url()));
        if let Some(cookie) = &*self.cookie.lock().unwrap() {
            request = request.header(header::COOKIE, cookie);
        }
        request
    }

    async fn open(&self, path: &str) -> Response<Bytes> {
        let response = self
            .send(self.request("GET", path).body(Bytes::new()).unwrap())
            .await;
        if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
            let pair = cookie
                .to_str()
                .unwrap()
                .split(';')
                .next()
                .unwrap()
                .to_owned();
            *self.cookie.lock().unwrap() = Some(pair);
        }
        response
    }

    async fn page(&self, path: &str) -> String {
        let response = self.open(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        text(&response)
    }

    async fn post(&self, path: &str, form: &str) -> Response<Bytes> {
        let request = self
            .request("POST", path)
            .body(form.to_owned().into())
            .unwrap();
        self.send(request).await
    }

    /// The CSRF token that all forms contain.
    async fn token(&self) -> String {
        let page = self.page("/applications/new").await;
        between(&page, r#"name="csrf_token" value=""#, "\"").to_owned()
    }

    /// Fills in a form and submits it.
    async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Response<Bytes> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("csrf_token", &self.token().await)
            .extend_pairs(fields);
        let form = form.finish();
        self.post(path, &form).await
    }

    /// Submits a form that must be accepted, and returns the page that follows. The page contains
    /// this form with these fields.
    async fn change(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let page = self.page(path).await;
        let forms = page
            .split("<form ")
            .skip(1)
            .filter_map(|rest| rest.split("</form>").next());
        let has = |form: &str, name: &str, value: &str| {
            let is_fixed = ["action", "endpoint"].contains(&name);
            form.contains(&format!("name=\"{name}\""))
                && (!is_fixed || form.contains(&format!("value=\"{value}\"")))
        };
        let mut own = forms.filter(|form| form.contains(&format!("action=\"{path}\"")));
        assert!(
            own.any(|form| fields.iter().all(|(name, value)| has(form, name, value))),
            "no form of {path} has {fields:?}: {page}"
        );
        let response = self.submit(path, fields).await;
        assert_eq!(
            response.status(),
            StatusCode::SEE_OTHER,
            "{}",
            text(&response)
        );
        self.page(response.headers()["location"].to_str().unwrap())
            .await
    }

    async fn request_token(&self, client_id: &str, secret: &str) -> Response<Bytes> {
        let form = format!("grant_type=client_credentials&client_id={client_id}&client_secret=");
        let secret: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let request = Request::post(self.server.token_endpoint().as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body((form + &secret).into());
        self.send(request.unwrap()).await
    }
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8(response.body().to_vec()).unwrap()
}

#[track_caller]
fn between<'a>(page: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = page
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before} in {page}"));
    rest.split_once(after).unwrap().0
}

fn unescaped(html: &str) -> String {
    html.replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// The text of an element by the start of its id.
#[track_caller]
fn element(page: &str, id: &str) -> String {
    let (_, rest) = page
        .split_once(&format!("<code id=\"{id}"))
        .unwrap_or_else(|| panic!("no {id} in {page}"));
    unescaped(between(rest, ">", "</code>"))
}

#[tokio::test]
async fn registration_returns_credentials_that_obtain_a_token() {
    let session = Session::new();
    assert!(
        session
            .page("/")
            .await
            .contains("No application is registered yet")
    );
    let list = session
        .change("/applications/new", &[("name", " ApplicationName ")])
        .await;
    assert!(list.contains("The application was added"));
    let json = element(&list, "json-");
    let positions: Vec<usize> = ["clientId", "tenantId", "secret", "name", "oAuthServerUrl"]
        .iter()
        .map(|member| json.find(&format!("\"{member}\"")).unwrap())
        .collect();
    assert!(positions.is_sorted(), "the members of the guide: {json}");
    let members: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(members["name"], "ApplicationName", "trimmed");
    for member in ["clientId", "tenantId", "secret", "name", "oAuthServerUrl"] {
        assert_eq!(
            element(&list, &format!("{member}-")),
            members[member].as_str().unwrap()
        );
    }
    let of = |member: &str| members[member].as_str().unwrap();
    let answer = session.request_token(of("clientId"), of("secret")).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_form_without_the_csrf_token_of_its_cookie_is_rejected() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let kid = session.server.keys()[0].kid().to_owned();
    let good = session.token().await;
    let other = Session {
        clock: session.clock.clone(),
        server: session.server.clone(),
        cookie: Mutex::default(),
    };
    let foreign = other.token().await;
    assert_ne!(good, foreign);
    let application = format!("/applications/{}", app.client_id());
    for (path, fields) in [
        ("/applications/new", "name=intruder"),
        (application.as_str(), "action=delete"),
        ("/try", "application=x"),
        ("/explain", "resource=x&token=a.b.c"),
        ("/keys", "action=rotate"),
        ("/faults", "endpoint=Token&fault=outage"),
    ] {
        for token in [
            "",
            "csrf_token=",
            "csrf_token=AAAA",
            &format!("csrf_token={foreign}"),
        ] {
            let response = session.post(path, &format!("{token}&{fields}")).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path} {token}");
        }
        let without_cookie = Request::post(format!("{}{path}", session.server.base_url()));
        let response = session
            .send(
                without_cookie
                    .body(format!("csrf_token={good}&{fields}").into())
                    .unwrap(),
            )
            .await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(session.server.applications().len(), 1);
    assert_eq!(session.server.keys()[0].kid(), kid);
    assert_eq!(
        session
            .request_token(app.client_id(), app.secret().expose_secret())
            .await
            .status(),
        200
    );
    // Another server has another key, which rejects its tokens here.
    let elsewhere = Session {
        cookie: Mutex::new(session.cookie.lock().unwrap().clone()),
        ..Session::new()
    };
    assert_eq!(
        elsewhere
            .post("/keys", &format!("csrf_token={good}&action=rotate"))
            .await
            .status(),
        403
    );
}

#[tokio::test]
async fn only_loopback_host_names_with_the_port_are_served() {
    let listening = AuthorizationServer::builder().bind(0).await.unwrap();
    let server = listening.server().clone();
    let port = listening.address().port();
    let serving = tokio::spawn(listening.serve(std::future::pending()));
    let get = async |path: &str, host: &str| {
        let request = reqwest::Client::new()
            .get(format!("http://127.0.0.1:{port}{path}"))
            .header("host", host);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"] {
        assert_eq!(get("/", &format!("{host}:{port}")).await.0, 200, "{host}");
    }
    let with_port = |host: &str| format!("{host}:{port}");
    server.register("shop").unwrap();
    for host in [
        with_port("rebound.example"),
        with_port("127.0.0.1.rebound.example"),
        with_port("localhost."),
        with_port("0.0.0.0"),
        "127.0.0.1".to_owned(),
        "127.0.0.1:1".to_owned(),
        format!("127.0.0.1:{port}0"),
        "rebound.example".to_owned(),
        String::new(),
    ] {
        for path in ["/", "/keys", "/dashboard/style.css"] {
            let (status, body) = get(path, &host).await;
            assert_eq!(status, 421, "{path} at {host:?}");
            assert!(!body.contains("shop"));
        }
    }
    let keys = server.jwks_uri();
    let path = keys.as_str().strip_prefix(server.base_url()).unwrap();
    assert_eq!(
        get(path, "issuer.internal").await.0,
        200,
        "API endpoints allow any host name"
    );
    serving.abort();
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let (edit, trial) = (
        format!("/applications/{}", app.client_id()),
        format!("/try/{}", app.client_id()),
    );
    let others = [
        &edit,
        &trial,
        "/applications/none",
        "/try/none",
        "/dashboard/style.css",
        "/dashboard/script.js",
        "/dashboard/icon.svg",
    ];
    let foreign = session
        .request("GET", "/")
        .header(header::HOST, "rebound.example")
        .body(Bytes::new())
        .unwrap();
    let mut answers = vec![session.send(foreign).await, session.post("/keys", "").await];
    for path in PAGES.into_iter().chain(others) {
        answers.push(session.open(path).await);
    }
    answers.push(session.submit("/faults", &[("endpoint", "all")]).await);
    let statuses: HashSet<u16> = answers
        .iter()
        .map(|answer| answer.status().as_u16())
        .collect();
    assert_eq!(statuses, [200, 303, 403, 404, 421].into());
    for answer in answers {
        let headers = answer.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.split("; ").any(|one| one == part), "{policy}");
        }
        assert!(!policy.contains("unsafe"));
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(headers.get_all(header::SET_COOKIE).iter().all(|cookie| {
            cookie
                .to_str()
                .unwrap()
                .ends_with("; Path=/; HttpOnly; SameSite=Lax")
        }));
    }
}

#[tokio::test]
async fn pages_have_no_inline_and_no_external_resources() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let (edit, trial) = (
        format!("/applications/{}", app.client_id()),
        format!("/try/{}", app.client_id()),
    );
    session
        .change("/try", &[("application", app.client_id())])
        .await;
    for path in PAGES.into_iter().chain([edit.as_str(), &trial]) {
        let page = session.page(path).await;
        assert_eq!(page.matches("<script").count(), 1, "{path}");
        assert!(page.contains(r#"<script src="/dashboard/script.js" defer></script>"#));
        for inline in [
            " style=",
            "<style",
            " onclick",
            " onload",
            "javascript:",
            "src=\"http",
            "href=\"http",
            "action=\"http",
        ] {
            assert!(!page.contains(inline), "{inline} in {path}");
        }
        assert_eq!(page.matches("<h1").count(), 1, "{path}");
        assert_eq!(
            page.matches("<form").count(),
            page.matches(r#"name="csrf_token""#).count(),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_cookie_is_set_once() {
    let session = Session::new();
    assert!(
        session
            .open("/")
            .await
            .headers()
            .contains_key(header::SET_COOKIE)
    );
    assert!(
        !session
            .open("/keys")
            .await
            .headers()
            .contains_key(header::SET_COOKIE)
    );
    assert!(
        !session
            .open("/dashboard/style.css")
            .await
            .headers()
            .contains_key(header::SET_COOKIE)
    );
}

#[tokio::test]
async fn a_name_with_markup_is_escaped() {
    let session = Session::new();
    let name = r#"<script>alert("1")</script>&'"#;
    session.change("/applications/new", &[("name", name)]).await;
    let app = session.server.applications().remove(0);
    assert_eq!(app.name(), name);
    let tried = session
        .change("/try", &[("application", app.client_id())])
        .await;
    let edit = session
        .page(&format!("/applications/{}", app.client_id()))
        .await;
    for page in [
        session.page("/").await,
        tried,
        edit,
        session.page("/activity").await,
    ] {
        assert!(!page.contains("<script>"));
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;"));
    }
    let script = "\"><script>";
    let rejected = session
        .submit("/applications/new", &[("name", &script.repeat(6))])
        .await;
    assert_eq!(rejected.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!text(&rejected).contains("<script>"));
    assert!(
        !session
            .page("/?done=%3Cscript%3E")
            .await
            .contains("<script>")
    );
}

#[tokio::test]
async fn a_name_has_1_to_50_characters() {
    let session = Session::new();
    for (name, is_good) in [
        ("", false),
        (" ", false),
        (&"é".repeat(50), true),
        (&"é".repeat(51), false),
    ] {
        let before = session.server.applications().len();
        let response = session.submit("/applications/new", &[("name", name)]).await;
        assert_eq!(
            session.server.applications().len() - before,
            usize::from(is_good),
            "{name:?}"
        );
        if is_good {
            assert_eq!(response.status(), StatusCode::SEE_OTHER);
            continue;
        }
        assert_eq!(
            response.status(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "{name:?}"
        );
        let page = text(&response);
        let field = between(&page, r#"<input id="name""#, ">");
        assert!(
            field.contains(r#"aria-describedby="name-hint name-error" aria-invalid="true""#),
            "{field}"
        );
        assert!(field.contains(" autofocus"), "visible: {field}");
        assert!(
            field.contains(&format!("value=\"{}\"", name.trim())),
            "the input is kept"
        );
        assert!(page.contains(
            r#"<p class="error" id="name-error" role="alert">Name must have 1 to 50 characters.</p>"#
        ));
    }
}

#[tokio::test]
async fn an_application_can_be_renamed_get_scopes_and_roles_and_be_deleted() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let path = format!("/applications/{}", app.client_id());
    let page = session
        .change(&path, &[("action", "rename"), ("name", "orders")])
        .await;
    assert!(page.contains("The name was saved.") && page.contains("orders</h1>"));
    session
        .change(
            &path,
            &[
                ("action", "scopes"),
                ("scopes", "orders.read\r\norders.write,orders.read"),
            ],
        )
        .await;
    let added = [
        ("action", "add-role"),
        ("role_name", "clerk"),
        ("role_scopes", "desk.open"),
    ];
    let page = session.change(&path, &added).await;
    let role = between(&page, "id=\"role-", "\"").to_owned();
    assert!(
        page.contains(&format!(r#"value="{role}" checked"#)),
        "assigned at once"
    );

    let scope = async || {
        let answer = session
            .request_token(app.client_id(), app.secret().expose_secret())
            .await;
        let answer: Value = serde_json::from_slice(answer.body()).unwrap();
        answer["scope"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        scope().await,
        "appid_default desk.open orders.read orders.write"
    );
    session.change(&path, &[("action", "roles")]).await;
    assert_eq!(
        scope().await,
        "appid_default orders.read orders.write",
        "no role is checked"
    );
    session
        .change(
            &path,
            &[("action", "roles"), ("role", &role), ("role", "unknown")],
        )
        .await;
    assert_eq!(
        scope().await,
        "appid_default desk.open orders.read orders.write"
    );
    let delete = [("action", "delete-role"), ("role", role.as_str())];
    assert!(
        session
            .change(&path, &delete)
            .await
            .contains("The role was deleted.")
    );
    assert_eq!(scope().await, "appid_default orders.read orders.write");
    // From a page that was opened before.
    let late = session.submit(&path, &delete).await;
    let page = session
        .page(late.headers()["location"].to_str().unwrap())
        .await;
    assert!(page.contains("There was no such role any more."));

    let page = session.change(&path, &[("action", "delete")]).await;
    assert!(page.contains("The application was deleted."));
    assert!(session.server.applications().is_empty());
    assert_eq!(session.open(&path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        session
            .submit(&path, &[("action", "delete")])
            .await
            .status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_rejected_change_keeps_the_input_beside_its_error() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let path = format!("/applications/{}", app.client_id());
    for (fields, error, typed) in [
        (
            vec![("action", "rename"), ("name", "")],
            "name-error",
            "value=\"\"",
        ),
        (
            vec![("action", "scopes"), ("scopes", "commandé")],
            "scopes-error",
            ">commandé</textarea>",
        ),
        (
            vec![
                ("action", "add-role"),
                ("role_name", "clerk"),
                ("role_scopes", "openid.x"),
            ],
            "role-scopes-error",
            "value=\"openid.x\"",
        ),
        (
            vec![
                ("action", "add-role"),
                ("role_name", ""),
                ("role_scopes", "desk.open"),
            ],
            "role-name-error",
            "value=\"desk.open\"",
        ),
    ] {
        let response = session.submit(&path, &fields).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let page = text(&response);
        assert!(
            page.contains(&format!(r#"id="{error}" role="alert""#)),
            "{page}"
        );
        assert!(page.contains(typed), "{page}");
        assert_eq!(page.matches(r#"role="alert""#).count(), 1);
        assert_eq!(
            page.matches(r#"aria-invalid="true""#).count(),
            1,
            "one field is wrong: {page}"
        );
        let invalid = page
            .split('<')
            .find(|tag| tag.contains(r#"aria-invalid="true""#))
            .unwrap();
        assert!(invalid.contains(error), "{invalid}");
        assert!(page.contains("<title>Error: shop"));
    }
    let unknown = session.submit(&path, &[("action", "promote")]).await;
    assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
}

/// A limit, and a full disk.
#[tokio::test]
async fn a_server_error_is_not_shown_at_a_field() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state.json");
    let session = Session::with(|builder| builder.algorithm(Algorithm::Es256).state_file(&state));
    let app = session.server.register("shop").unwrap();
    folder.close().unwrap();
    let path = format!("/applications/{}", app.client_id());
    for (path, fields) in [
        ("/applications/new", vec![("name", "orders")]),
        (&path, vec![("action", "rename"), ("name", "orders")]),
        (&path, vec![("action", "scopes"), ("scopes", "orders.read")]),
        (&path, vec![("action", "roles")]),
        (&path, vec![("action", "add-role"), ("role_name", "clerk")]),
        (&path, vec![("action", "delete")]),
        ("/keys", vec![("action", "rotate")]),
    ] {
        let response = session.submit(path, &fields).await;
        assert_eq!(
            response.status(),
            StatusCode::INTERNAL_SERVER_ERROR,
            "{fields:?}"
        );
        let page = text(&response);
        assert!(
            page.contains("state file") && page.contains("cannot be written"),
            "{page}"
        );
        assert!(!page.contains("aria-invalid"));
    }
    assert_eq!(session.server.applications().len(), 1);

    let session = Session::new();
    for _ in 0..200 {
        session.server.register("one of many").unwrap();
    }
    let response = session
        .submit("/applications/new", &[("name", "orders")])
        .await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert!(text(&response).contains("there are 200 already, the most that a tenant can have"));
}

#[tokio::test]
async fn the_page_title_names_the_completed_action() {
    let session = Session::new();
    let title = |page: &str| between(page, "<title>", " · ").to_owned();
    let page = session
        .change("/applications/new", &[("name", "shop")])
        .await;
    assert_eq!(
        title(&page),
        "The application was added. Select it to see its credentials. Applications"
    );
    let edit = format!(
        "/applications/{}",
        session.server.applications()[0].client_id()
    );
    let page = session
        .change(&edit, &[("action", "rename"), ("name", "orders")])
        .await;
    assert_eq!(title(&page), "The name was saved. orders");
    let page = session.change("/keys", &[("action", "rotate")]).await;
    assert_eq!(
        title(&page),
        "Tokens are signed with a new key from now on. Keys"
    );
    assert_eq!(
        title(&session.change("/faults", &[("endpoint", "all")]).await),
        "All faults were ended. Faults"
    );
    assert_eq!(
        title(&session.page("/keys").await),
        "Keys",
        "but not without limit"
    );
}

#[tokio::test]
async fn the_router_without_the_dashboard_has_no_pages() {
    let session = Session::new();
    for path in PAGES.into_iter().chain(["/dashboard/style.css"]) {
        let request = || session.request("GET", path).body(Bytes::new()).unwrap();
        let response = session
            .server
            .router()
            .oneshot(request().map(Body::from))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let response = session
            .server
            .transport()
            .send(request(), 1 << 20)
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let keys = Request::get(session.server.jwks_uri().as_str())
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        session
            .server
            .router()
            .oneshot(keys)
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_requested_token_is_shown_decoded() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let response = session
        .submit("/try", &[("application", app.client_id()), ("scope", "")])
        .await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(
        location,
        format!("/try/{}", app.client_id()),
        "neither token nor secret"
    );
    let page = session.page(&location).await;
    let json = |id: &str| serde_json::from_str::<Value>(&element(&page, id)).unwrap();
    assert_eq!(json("token-header")["kid"], session.server.keys()[0].kid());
    assert_eq!(json("token-claims")["sub"], app.client_id());
    assert!(page.contains("<strong>1 h 0 min</strong>"));
    assert!(page.contains("<title>Token issued: Try it · "));
    session.clock.advance(Duration::from_secs(90));
    assert!(
        session
            .page(&location)
            .await
            .contains("<strong>58 min 30 s</strong>")
    );
    session.clock.advance(Duration::from_secs(3600));
    assert!(
        session
            .page(&location)
            .await
            .contains("<strong>expired</strong>")
    );

    let rejected = session
        .change(
            "/try",
            &[("application", app.client_id()), ("scope", "orders.read")],
        )
        .await;
    assert!(rejected.contains("invalid_scope") && !rejected.contains("token-claims"));
    assert!(rejected.contains("<title>No token: Try it · "));
    assert_eq!(
        session
            .submit("/try", &[("application", "none")])
            .await
            .status(),
        StatusCode::NOT_FOUND
    );
}

/// Explains a token by the form, and returns the page.
async fn explain(session: &Session, resource: &str, token: &str) -> String {
    let fields = [("resource", resource), ("token", token)];
    let response = session.submit("/explain", &fields).await;
    assert_eq!(response.status(), StatusCode::OK);
    let page = text(&response);
    let signature = token.rsplit('.').next().unwrap();
    assert!(signature.is_empty() || !page.contains(signature), "{page}");
    page
}

#[tokio::test(start_paused = true)]
async fn a_pasted_token_is_explained_for_the_application_that_is_called() {
    let session = Session::new();
    let shop = session.server.register("shop").unwrap();
    let orders = session.server.register("orders").unwrap();
    let form = session.page("/try").await;
    assert!(form.contains("action=\"/explain\""), "{form}");
    let token = session
        .server
        .mint(&shop)
        .audience([orders.client_id()])
        .sign();
    let page = explain(&session, orders.client_id(), &format!(" {token}\n")).await;
    assert!(
        page.contains("<title>Accepted: Explain a token · "),
        "{page}"
    );
    let page = explain(&session, shop.client_id(), &token).await;
    assert!(
        page.contains("<title>Rejected: Explain a token · "),
        "{page}"
    );
    let expected = format!("expected: [&quot;{}&quot;]", shop.client_id());
    for part in [
        "<code>invalid_audience</code>",
        &format!("[&quot;{}&quot;]", orders.client_id()),
        &expected,
        "add an audience mapper",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let page = explain(&session, orders.client_id(), "<script>").await;
    assert!(
        page.contains("1 part, an opaque token") && !page.contains("<script>"),
        "{page}"
    );
    let none = [("resource", "none"), ("token", "a.b.c")];
    let response = session.submit("/explain", &none).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_names_the_fault_of_the_keys() {
    let session = Session::new();
    let shop = session.server.register("shop").unwrap();
    let token = session.server.mint(&shop).sign();
    for (fault, named) in [
        (Fault::Outage(None), "503 Service Unavailable"),
        (Fault::Hang, "keys_unavailable"),
    ] {
        session.server.fail(EndpointKind::Keys, fault);
        let page = explain(&session, shop.client_id(), &token).await;
        assert!(page.contains(named), "{page}");
    }
}

#[tokio::test]
async fn a_token_is_requested_for_another_application() {
    let session = Session::new();
    let shop = session.server.register("shop").unwrap();
    let orders = session.server.register("orders").unwrap();
    let fields = [
        ("application", shop.client_id()),
        ("audience", orders.client_id()),
    ];
    let page = session.change("/try", &fields).await;
    let claims: Value = serde_json::from_str(&element(&page, "token-claims")).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&json!(shop.client_id()), &json!([orders.client_id()]))
    );
    // The application stays selected, is in the commands, and is the one to be started.
    assert!(page.contains(&format!(
        r#"<option value="{}" selected>orders</option>"#,
        orders.client_id()
    )));
    assert!(
        element(&page, "curl-token").ends_with(&format!("-d 'audience={}'", orders.client_id()))
    );
    assert!(
        element(&page, "environment").contains(&format!(r#""clientId":"{}""#, orders.client_id()))
    );
    // Only an existing application is accepted.
    let none = [
        ("application", shop.client_id()),
        ("audience", "x' ; id ; '"),
    ];
    assert_eq!(
        session.submit("/try", &none).await.status(),
        StatusCode::NOT_FOUND
    );
    let bills = session.server.register("bills").unwrap();
    session
        .change(
            "/try",
            &[
                ("application", shop.client_id()),
                ("audience", bills.client_id()),
            ],
        )
        .await;
    session
        .change(
            &format!("/applications/{}", bills.client_id()),
            &[("action", "delete")],
        )
        .await;
    let page = session.page(&format!("/try/{}", shop.client_id())).await;
    assert!(!page.contains(bills.client_id()) && !page.contains("token-claims"));
    // Without one the token is for the application itself.
    let page = session
        .change("/try", &[("application", shop.client_id())])
        .await;
    let claims: Value = serde_json::from_str(&element(&page, "token-claims")).unwrap();
    assert_eq!(claims["aud"], json!([shop.client_id()]));
}

#[tokio::test]
async fn the_shown_commands_match_the_guide_and_work() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let page = session.page(&format!("/try/{}", app.client_id())).await;
    assert!(
        element(&page, "curl-call").contains("\"Authorization: Bearer $TOKEN\""),
        "there is no token yet"
    );
    let page = session
        .change("/try", &[("application", app.client_id())])
        .await;

    let line = element(&page, "curl-token");
    assert!(line.starts_with("curl -X POST \\\n"));
    assert!(line.ends_with(
        "-H 'Content-Type: application/x-www-form-urlencoded' \\\n  \
         -d grant_type=client_credentials"
    ));
    let request = Request::post(between(&line, "\\\n  ", " \\\n"))
        .header(
            header::AUTHORIZATION,
            between(&line, "'Authorization: ", "'"),
        )
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials".into());
    assert_eq!(
        session.send(request.unwrap()).await.status(),
        StatusCode::OK
    );

    let environment = element(&page, "environment");
    let secret = app.secret().expose_secret();
    assert!(
        !environment.contains(secret),
        "a resource server needs no credentials"
    );
    let binding =
        Binding::from_json(between(&environment, "APPID_SERVICE_BINDING='", "'")).unwrap();
    let resource = binding
        .resource_server()
        .unwrap()
        .transport(session.server.transport());
    let resource = resource.clock(session.clock.clone()).start().await.unwrap();
    let call = element(&page, "curl-call");
    assert!(call.starts_with("curl http://localhost:8081/protected_resource"));
    let request = Request::builder()
        .header(
            header::AUTHORIZATION,
            between(&call, "\"Authorization: ", "\""),
        )
        .body(())
        .unwrap();
    let protected = resource.layer().layer(service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(()))
    }));
    assert_eq!(
        protected.oneshot(request).await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn the_token_request_command_has_the_requested_scope() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    app.set_scopes(["orders.read", "orders.write"]).unwrap();
    for (scope, last) in [
        (
            "orders.read orders.write",
            "-d 'scope=orders.read+orders.write'",
        ),
        (
            "'; rm -rf ~ #&x=y",
            "-d 'scope=%27%3B+rm+-rf+%7E+%23%26x%3Dy'",
        ),
        ("", "-d grant_type=client_credentials"),
    ] {
        let page = session
            .change(
                "/try",
                &[("application", app.client_id()), ("scope", scope)],
            )
            .await;
        let line = element(&page, "curl-token");
        assert_eq!(line.lines().last().unwrap().trim(), last);
    }
}

#[tokio::test]
async fn keys_are_rotated_and_withdrawn() {
    let session = Session::new();
    let first = session.server.keys()[0].kid().to_owned();
    session.clock.advance(Duration::from_secs(7200));
    assert!(session.page("/keys").await.contains("2 h 0 min ago"));
    let page = session.change("/keys", &[("action", "rotate")]).await;
    assert!(page.contains("Current") && page.contains("published for another <span"));
    assert_eq!(session.server.keys().len(), 2);
    let withdraw = [("action", "withdraw"), ("kid", first.as_str())];
    assert!(
        session
            .change("/keys", &withdraw)
            .await
            .contains("The key was withdrawn.")
    );
    assert!(
        session
            .change("/keys", &withdraw)
            .await
            .contains("no such key any more")
    );
    assert_eq!(session.server.keys().len(), 1);
    assert_eq!(
        session
            .submit("/keys", &[("action", "publish")])
            .await
            .status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn keys_and_trusted_issuers_of_an_application_are_edited_on_one_page() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let signer = Signer::new(Algorithm::Es256).with("kid", "shop-1");
    let cluster = Signer::new(Algorithm::EdDsa).with("kid", "cluster-1");
    let application = format!("/applications/{}", app.client_id());
    let path = format!("{application}/assertions");
    let shown = session.page(&application).await;
    assert!(shown.contains("0 keys, 0 trusted issuers"), "{shown}");
    assert!(shown.contains(&format!("href=\"{path}\"")));

    let jwks = signer.jwks().to_string();
    let page = session
        .change(&path, &[("action", "jwks"), ("jwks", &jwks)])
        .await;
    assert!(page.contains("The keys were saved."));
    assert!(
        page.contains("<code>shop-1</code>") && page.contains("ES256"),
        "{page}"
    );
    let text = unescaped(between(&page, r#"<textarea id="jwks""#, "</textarea>"));
    let text = text.split_once('>').unwrap().1;
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), signer.jwks());
    let issuer_jwks = cluster.jwks().to_string();
    let credential = [
        ("action", "federated"),
        ("issuer", "https://cluster.example"),
        ("subject", "<system>"),
        ("issuer_jwks", &issuer_jwks),
    ];
    let page = session.change(&path, &credential).await;
    assert!(page.contains("The federated credential was added."));
    for part in [
        "https://cluster.example",
        "&lt;system&gt;",
        "cluster-1",
        "EdDSA",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let choice = [("action", "audience"), ("audience", "token_endpoint")];
    let page = session.change(&path, &choice).await;
    assert!(
        page.contains(r#"<option value="token_endpoint" selected>"#),
        "{page}"
    );
    assert_eq!(app.assertion_audience(), ExpectedAudience::TokenEndpoint);
    let shown = session.page(&application).await;
    assert!(shown.contains("1 key, 1 trusted issuer"), "{shown}");

    let private = signer
        .clone()
        .with("d", "c2VjcmV0LXNjYWxhcg")
        .jwks()
        .to_string();
    for (fields, field, text) in [
        (
            vec![("action", "jwks"), ("jwks", private.as_str())],
            "jwks-error",
            "private",
        ),
        (credential.to_vec(), "issuer-error", "same subject already"),
        (
            vec![
                ("action", "federated"),
                ("issuer", "https://a"),
                ("issuer_jwks", &issuer_jwks),
            ],
            "subject-error",
            "must not be empty",
        ),
        (
            vec![
                ("action", "federated"),
                ("issuer", "https://a"),
                ("subject", "a"),
            ],
            "issuer-jwks-error",
            "JWK Set must be",
        ),
    ] {
        let response = session.submit(&path, &fields).await;
        assert_eq!(
            response.status(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "{field}"
        );
        let page = self::text(&response);
        let error = between(&page, &format!(r#"<p class="error" id="{field}""#), "</p>");
        assert!(error.contains(text), "{error}");
    }
    let unknown = [("action", "audience"), ("audience", "any")];
    let response = session.submit(&path, &unknown).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);

    let remove = [
        ("action", "unfederated"),
        ("issuer", "https://cluster.example"),
        ("subject", "<system>"),
    ];
    let page = session.change(&path, &remove).await;
    assert!(!page.contains("https://cluster.example"));
    let page = session
        .change(&path, &[("action", "jwks"), ("jwks", "")])
        .await;
    assert!(!page.contains("shop-1"));
    let gone = session.open("/applications/unknown/assertions").await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn only_endpoints_that_authenticate_clients_can_refuse_them() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let switch = [("endpoint", "Token"), ("fault", "invalid-client")];
    let page = session.change("/faults", &switch).await;
    assert_eq!(page.matches(r#"value="invalid-client""#).count(), 2);
    let response = session
        .request_token(app.client_id(), app.secret().expose_secret())
        .await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let keys = [("endpoint", "Keys"), ("fault", "invalid-client")];
    let response = session.submit("/faults", &keys).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn faults_are_switched_on_and_off_endpoint_by_endpoint() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let ask = async || {
        session
            .request_token(app.client_id(), app.secret().expose_secret())
            .await
    };
    let switch = async |fault: &str| {
        session
            .change("/faults", &[("endpoint", "Token"), ("fault", fault)])
            .await
    };
    let page = switch("outage").await;
    assert_eq!(
        page.matches(r#"aria-pressed="true""#).count(),
        5,
        "one per endpoint"
    );
    let pressed = between(&page, r#"value="outage""#, ">");
    assert!(pressed.contains(r#"aria-pressed="true""#), "{pressed}");
    assert_eq!(ask().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let tried = session
        .change("/try", &[("application", app.client_id())])
        .await;
    assert!(tried.contains("The answer was 503 Service Unavailable, and no token response."));
    switch("garbage").await;
    assert!(
        ask().await.body().starts_with(b"<!doctype html>"),
        "instead of the outage"
    );
    switch("latency").await;
    let started = tokio::time::Instant::now();
    assert_eq!(ask().await.status(), StatusCode::OK);
    assert_eq!(started.elapsed().as_secs(), 2);
    switch("none").await;
    let started = tokio::time::Instant::now();
    assert_eq!(ask().await.status(), StatusCode::OK);
    assert_eq!(started.elapsed().as_secs(), 0);

    session.server.fail(EndpointKind::Token, Fault::Hang);
    assert!(
        session
            .page("/faults")
            .await
            .contains("Scripted elsewhere: no answer")
    );
    let tried = session
        .change("/try", &[("application", app.client_id())])
        .await;
    assert!(tried.contains("There was no answer within 5 s."));
    assert!(
        session
            .change("/faults", &[("endpoint", "all")])
            .await
            .contains("All faults were ended.")
    );
    assert_eq!(ask().await.status(), StatusCode::OK);
    let unknown = session
        .submit("/faults", &[("endpoint", "Token"), ("fault", "flood")])
        .await;
    assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn activity_shows_outcomes_and_contains_no_secret() {
    let session = Session::new();
    let app = session.server.register("shop").unwrap();
    let secret = app.secret().expose_secret();
    assert!(
        session
            .page("/activity")
            .await
            .contains("No request has come yet.")
    );
    let answer: Value =
        serde_json::from_slice(session.request_token(app.client_id(), secret).await.body())
            .unwrap();
    session.request_token("guessed-id", "guessed-secret").await;
    let keys = || {
        Request::get(session.server.jwks_uri().as_str())
            .body(Bytes::new())
            .unwrap()
    };
    session
        .server
        .fail_next(EndpointKind::Keys, 1, Fault::Garbage);
    session.send(keys()).await;
    session.server.fail_next(EndpointKind::Keys, 1, Fault::Hang);
    tokio::time::timeout(Duration::from_secs(3), session.send(keys()))
        .await
        .unwrap_err();
    let page = session.page("/activity").await;
    for outcome in [
        "token issued",
        "shop",
        "invalid_client",
        "fault: garbage",
        "the caller left before an answer",
        "3.0 s",
    ] {
        assert!(page.contains(outcome), "{outcome}");
    }
    for kept in [secret, answer["access_token"].as_str().unwrap(), "guessed"] {
        assert!(!page.contains(kept));
        assert!(
            !format!("{:?}", session.server).contains(kept),
            "nor in Debug output"
        );
    }
    let rows = |page: &str| page.matches(r#"<td class="endpoint""#).count();
    assert_eq!(rows(&page), 4);
    for _ in 0..150 {
        session.send(keys()).await;
    }
    assert_eq!(
        rows(&session.page("/activity").await),
        100,
        "the list is bounded"
    );
}

#[tokio::test]
async fn activity_shows_discovery_at_the_rfc_8414_location() {
    let session = Session::new();
    let issuer = session.server.issuer();
    let path = issuer
        .as_str()
        .strip_prefix(session.server.base_url())
        .unwrap();
    let found = session
        .open(&format!("/.well-known/oauth-authorization-server{path}"))
        .await;
    assert_eq!(found.status(), StatusCode::OK);
    session
        .open("/.well-known/appspecific/com.chrome.devtools.json")
        .await;
    let page = session.page("/activity").await;
    assert_eq!(
        page.matches(r#"<td class="endpoint" role="cell">Discovery</td>"#)
            .count(),
        1,
        "{page}"
    );
}

#[tokio::test]
async fn a_form_that_is_too_large_is_rejected() {
    let session = Session::new();
    let name = "x".repeat(65 * 1024);
    assert_eq!(
        session
            .submit("/applications/new", &[("name", &name)])
            .await
            .status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[tokio::test]
async fn paths_outside_the_dashboard_are_unaffected() {
    let session = Session::new();
    let response = session.open("/nothing").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(
        session
            .send(session.request("DELETE", "/").body(Bytes::new()).unwrap())
            .await
            .status(),
        405
    );
}
