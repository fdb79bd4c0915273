//! The responses to rejected requests: one `on_rejection` for all that is behind it, and problem
//! details.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth::resource_server::{
    Claims, ProblemJson, RejectionKind, RejectionResponse, RequiredScopes, Requirement, Scoped,
};
use tower_oauth::{
    AuthContext, Rejection, RequireLayer, RequireRoleLayer, RequireScopeLayer, Scope,
};

use crate::support::issuer::{ScriptedIssuer, advance, builder, clock, secs, set, token};
use crate::support::{self, Fixture, bearer, claims_and, log, poll_once_or_panic, rsa};

/// A response that only this responder makes: its body has what the rejection says.
fn teapot(rejection: &Rejection) -> Response<Body> {
    let text = format!("{}: {}", rejection.kind(), rejection.status().as_u16());
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::IM_A_TEAPOT;
    response.headers_mut().extend(rejection.headers().clone());
    response
}

struct Write;
impl RequiredScopes for Write {
    const SCOPES: &'static [&'static str] = &["orders.write", "orders.list"];
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}

fn challenges<B>(response: &Response<B>) -> Vec<&str> {
    let fields = response.headers().get_all("www-authenticate").iter();
    fields.map(|field| field.to_str().unwrap()).collect()
}

const SERVED: &str = "served";
const INSUFFICIENT_SCOPE: &str = r#"Bearer realm="orders", error="insufficient_scope", error_description="The access token lacks a required scope", scope="orders.write orders.list", resource_metadata="https://orders.example/.well-known/oauth-protected-resource""#;

/// An app that rejects in each way that there is, with the expected kind.
fn rejecting() -> Vec<(Router, RejectionKind)> {
    use RejectionKind::{Forbidden, InsufficientAuthentication, InsufficientScope};
    let scopes = ["orders.write", "orders.list"];
    let served = || get(async || SERVED);
    let at = |route| Router::new().route("/", route);
    vec![
        (
            at(served().layer(RequireScopeLayer::all(scopes))),
            InsufficientScope,
        ),
        (
            at(served()).layer(RequireScopeLayer::all(scopes)),
            InsufficientScope,
        ),
        (
            at(served().layer(RequireRoleLayer::any(["admin"]))),
            Forbidden,
        ),
        (
            at(served().layer(RequireLayer::new(|_: &AuthContext| -> bool { false }))),
            Forbidden,
        ),
        (
            at(served().layer(RequireLayer::by(|_| Requirement::acr_values(["mfa"])))),
            InsufficientAuthentication,
        ),
        (at(get(async |_: Scoped<Write>| SERVED)), InsufficientScope),
        (
            at(get(async move |caller: AuthContext| {
                caller.require_scopes(scopes)?;
                Ok::<_, Rejection>(SERVED)
            })),
            InsufficientScope,
        ),
        (
            at(get(async |caller: AuthContext| {
                caller.require(&Requirement::roles(["admin"]))?;
                Ok::<_, Rejection>(SERVED)
            })),
            Forbidden,
        ),
        (at(get(async || Rejection::forbidden())), Forbidden),
        (at(get(async |_: Claims<Vec<String>>| SERVED)), Forbidden),
    ]
}

#[tokio::test]
async fn one_on_rejection_holds_for_layers_extractors_and_handlers_behind_it() {
    let fixture = Fixture::with_metadata();
    for (app, kind) in rejecting() {
        let token = fixture.token(&support::claims());
        let default = app.clone().layer(fixture.server.layer());
        let response = default
            .oneshot(bearer(&token, Body::empty()))
            .await
            .unwrap();
        assert_eq!(response.status(), kind.status(), "{kind}");
        if kind == RejectionKind::InsufficientScope {
            assert_eq!(challenges(&response), [INSUFFICIENT_SCOPE]);
        }
        let (default, rejection) = (
            response.headers().clone(),
            response.extensions().get::<Rejection>().unwrap().clone(),
        );
        assert_eq!(rejection.kind(), kind);
        assert_eq!(text(response).await, "");

        let app = app.layer(fixture.server.layer().on_rejection(teapot));
        let response = app.oneshot(bearer(&token, Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT, "{kind}");
        for name in ["www-authenticate", "cache-control"] {
            assert_eq!(response.headers().get(name), default.get(name), "{kind}");
        }
        assert_eq!(
            response.extensions().get::<Rejection>().unwrap().kind(),
            kind
        );
        let status = kind.status().as_u16();
        assert_eq!(text(response).await, format!("{kind}: {status}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_waited_for_keys_gets_the_same_response() {
    let (issuer, clock) = (ScriptedIssuer::new(set(&[("a", rsa(0))])), clock());
    let server = builder(&issuer, &clock).start().await.unwrap();
    issuer.publish(set(&[("b", rsa(1))]));
    advance(&clock, secs(60)).await;
    let fetches = issuer.fetches();
    let app = Router::new()
        .route("/", get(SERVED))
        .layer(RequireScopeLayer::all(["orders.write"]))
        .layer(server.layer().on_rejection(teapot));
    let request = bearer(&token("b", rsa(1)), Body::empty());
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(issuer.fetches(), fetches + 1);
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(text(response).await, "insufficient_scope: 403");
}

#[tokio::test]
async fn an_anonymous_request_gets_the_same_from_an_extractor_as_from_the_layer() {
    let fixture = Fixture::with_metadata();
    let scope = r#"Bearer realm="orders", scope="orders.write orders.list", "#;
    for (route, challenge) in [
        (
            get(async |_: AuthContext| SERVED),
            r#"Bearer realm="orders", resource_metadata="#,
        ),
        (get(async |_: Scoped<Write>| SERVED), scope),
        (
            get(SERVED).layer(RequireScopeLayer::all(Write::SCOPES)),
            scope,
        ),
    ] {
        let layer = fixture
            .server
            .layer()
            .allow_anonymous()
            .on_rejection(teapot);
        let app = Router::new().route("/", route).layer(layer);
        let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
        assert!(
            challenges(&response)[0].starts_with(challenge),
            "{response:?}"
        );
        assert_eq!(text(response).await, "missing_token: 401");
    }
}

#[tokio::test]
async fn the_scopes_of_the_layer_are_in_each_401_from_inside_that_names_none_itself() {
    let fixture = Fixture::with_metadata();
    let layer = fixture.server.layer().allow_anonymous();
    let layer = layer.scope(["orders.read", "orders.list"]);
    let anonymous = || Request::new(Body::empty());
    let with_token = || bearer(&fixture.token(&support::claims()), Body::empty());
    let of_layer = "orders.read orders.list";
    let login = || Requirement::max_age(secs(300));
    for (route, request, status, scope) in [
        (
            get(async |_: AuthContext| SERVED),
            anonymous(),
            401,
            of_layer,
        ),
        (
            get(SERVED).layer(RequireRoleLayer::all(["admin"])),
            anonymous(),
            401,
            of_layer,
        ),
        (
            get(SERVED).layer(RequireScopeLayer::all(["orders.write"])),
            anonymous(),
            401,
            "orders.write",
        ),
        (
            get(async |_: Scoped<Write>| SERVED),
            anonymous(),
            401,
            "orders.write orders.list",
        ),
        // A token is not enough for these: also a step-up challenge is a 401.
        (
            get(SERVED).layer(RequireLayer::new(login())),
            with_token(),
            401,
            of_layer,
        ),
        (
            get(SERVED).layer(RequireLayer::new(
                login().and(Requirement::scopes(["orders.write"])),
            )),
            with_token(),
            401,
            "orders.write",
        ),
        (
            get(SERVED).layer(RequireScopeLayer::all(["orders.write"])),
            with_token(),
            403,
            "orders.write",
        ),
    ] {
        let app = Router::new().route("/", route).layer(layer.clone());
        let is_step_up = status == 401 && request.headers().contains_key("authorization");
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        let rejection = response.extensions().get::<Rejection>().unwrap();
        let named: Vec<_> = rejection
            .required_scopes()
            .iter()
            .map(Scope::as_str)
            .collect();
        assert_eq!(named.join(" "), scope);
        let [challenge] = challenges(&response)[..] else {
            panic!("one challenge: {response:?}");
        };
        let scope = format!(r#", scope="{scope}", resource_metadata=""#);
        assert!(challenge.contains(&scope), "{challenge}");
        assert_eq!(
            challenge.contains(r#"max_age="300""#),
            is_step_up,
            "{challenge}"
        );
    }
}

/// Layers, extractors and handlers inside of each other, the scopes of the token, and the scopes
/// and the rest of the challenge.
#[tokio::test]
async fn a_rejection_from_inside_names_what_the_layers_around_it_require_too() {
    let all = |scopes: [&str; 1]| RequireScopeLayer::all(scopes);
    let write = || Requirement::scopes(["orders.write"]);
    let (login, mfa) = (
        || Requirement::max_age(secs(300)),
        || Requirement::acr_values(["mfa"]),
    );
    let either = || Requirement::scopes(["a"]).or(Requirement::scopes(["b"]));
    let at = |route| Router::new().route("/", route);
    let served = || at(get(SERVED));
    let scoped = || at(get(async |_: Scoped<Write>| SERVED));
    let in_handler = || {
        at(get(async |caller: AuthContext| {
            caller.require_scopes(["orders.write", "orders"])?;
            Ok::<_, Rejection>(SERVED)
        }))
    };
    let own = |rejection: &Rejection| {
        let mut response = Response::new(Body::from("own"));
        *response.status_mut() = StatusCode::FORBIDDEN;
        response.headers_mut().extend(rejection.headers().clone());
        response
    };
    let rows = [
        // Layers.
        (
            served().layer(all(["orders.write"])).layer(all(["orders"])),
            "orders",
            Some("orders orders.write"),
        ),
        (
            served()
                .layer(all(["c"]))
                .layer(RequireScopeLayer::all(["b", "c"]))
                .layer(all(["a"])),
            "a b",
            Some("a b c"),
        ),
        // The outer one is not met: what is inside of it is unknown.
        (
            served().layer(all(["orders.write"])).layer(all(["orders"])),
            "",
            Some("orders"),
        ),
        (
            served()
                .layer(all(["c"]).on_rejection(own))
                .layer(all(["a"])),
            "a",
            Some("a c"),
        ),
        (
            served()
                .layer(all(["c"]))
                .layer(RequireLayer::by(|_| Requirement::scopes(["a"]))),
            "a",
            Some("a c"),
        ),
        // Of alternatives, the one that the token has.
        (
            served()
                .layer(all(["c"]))
                .layer(RequireLayer::new(either())),
            "b",
            Some("b c"),
        ),
        // An extractor, a handler.
        (
            scoped().layer(all(["orders"])),
            "orders",
            Some("orders orders.write orders.list"),
        ),
        (
            in_handler().layer(all(["orders"])),
            "orders",
            Some("orders orders.write"),
        ),
        // Authentication. A 403 asks for none.
        (
            served()
                .layer(RequireLayer::new(login()))
                .layer(RequireLayer::new(mfa().and(write()))),
            "orders.write mfa",
            Some("orders.write mfa 300"),
        ),
        (
            served().layer(all(["c"])).layer(RequireLayer::new(mfa())),
            "mfa",
            Some("c"),
        ),
        // No other token has the role: nothing to request.
        (
            served()
                .layer(RequireRoleLayer::all(["admin"]))
                .layer(all(["orders"])),
            "orders",
            None,
        ),
        (
            served()
                .layer(all(["c"]))
                .layer(RequireLayer::new(|_: &AuthContext| true)),
            "",
            Some("c"),
        ),
    ];
    let fixture = Fixture::with_metadata();
    for (app, granted, expected) in rows {
        let acr = granted.ends_with("mfa").then_some("mfa");
        let token = fixture.token(&claims_and(&json!({ "scope": granted, "acr": acr })));
        for app in [
            app.clone().layer(fixture.server.layer()),
            app.layer(fixture.server.layer().on_rejection(own)),
        ] {
            let response = app.oneshot(bearer(&token, Body::empty())).await.unwrap();
            let rejection = response.extensions().get::<Rejection>().unwrap();
            let mut named: Vec<_> = rejection
                .required_scopes()
                .iter()
                .map(Scope::as_str)
                .collect();
            if let Some(challenge) = challenges(&response).first() {
                assert!(
                    challenge.starts_with(r#"Bearer realm="orders", "#),
                    "{challenge}"
                );
                let scope = format!(r#", scope="{}", resource_metadata="#, named.join(" "));
                assert!(challenge.contains(&scope), "{challenge}");
                assert_eq!(challenge.matches("scope=").count(), 1, "{challenge}");
            }
            named.extend(rejection.acr_values());
            let max_age = rejection.max_age().map(|age| age.as_secs().to_string());
            named.extend(max_age.as_deref());
            let is_named = response.headers().contains_key("www-authenticate");
            assert_eq!(is_named.then(|| named.join(" ")).as_deref(), expected);
        }
    }
}

#[tokio::test]
async fn the_response_of_an_inner_on_rejection_and_of_the_service_is_left_as_it_is() {
    let fixture = Fixture::with_metadata();
    let own = RequireScopeLayer::all(["orders.write"]).on_rejection(|rejection: &Rejection| {
        let mut response = Response::new(Body::from("own"));
        *response.status_mut() = rejection.status();
        response
    });
    let service = || {
        let response = Response::builder().status(401);
        response
            .header("www-authenticate", "Basic realm=\"other\"")
            .body(Body::from("of the service"))
            .unwrap()
    };
    for (app, status, challenge, body) in [
        (get(SERVED).layer(own), 403, None, "own"),
        (
            get(move || std::future::ready(service())),
            401,
            Some("Basic realm=\"other\""),
            "of the service",
        ),
    ] {
        let layer = fixture.server.layer().on_rejection(teapot);
        let app = Router::new().route("/", app).layer(layer);
        let token = fixture.token(&support::claims());
        let response = app.oneshot(bearer(&token, Body::empty())).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(challenges(&response), Vec::from_iter(challenge));
        assert_eq!(text(response).await, body);
    }
}

/// Sends a request through a layer between the resource server and a rejecting layer.
fn send_between(
    between: impl Fn(&mut Response<String>) + Clone,
    on_rejection: impl RejectionResponse<String> + Clone,
) -> Response<String> {
    let fixture = Fixture::with_metadata();
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::default()));
    let service = ServiceBuilder::new()
        .layer(fixture.server.layer().on_rejection(on_rejection))
        .map_response(move |mut response: Response<String>| {
            between(&mut response);
            response
        })
        .layer(RequireScopeLayer::all(["orders.write"]))
        .service(inner);
    let token = fixture.token(&support::claims());
    poll_once_or_panic(service.oneshot(bearer(&token, ()))).unwrap()
}

#[test]
fn header_fields_that_layers_between_add_stay_and_those_of_the_replaced_body_go() {
    let response = send_between(
        |response| {
            let headers = response.headers_mut();
            for (name, value) in [
                ("x-request-id", "7"),
                ("www-authenticate", "Basic realm=\"other\""),
                ("content-length", "0"),
                ("content-encoding", "gzip"),
                ("vary", "origin"),
                ("set-cookie", "between=1"),
            ] {
                headers.append(name, HeaderValue::from_static(value));
            }
        },
        |rejection: &Rejection| {
            let mut response = Response::new("no".to_owned());
            *response.status_mut() = rejection.status();
            response.headers_mut().extend(rejection.headers().clone());
            for (name, value) in [("vary", "accept"), ("set-cookie", "own=1")] {
                let value = HeaderValue::from_static(value);
                response.headers_mut().insert(name, value);
            }
            let name = http::HeaderName::from_static("x-made-by");
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("me"));
            response.extensions_mut().insert("an extension");
            response
        },
    );
    assert_eq!(
        (response.status().as_u16(), response.body().as_str()),
        (403, "no")
    );
    let [ours, other] = challenges(&response).try_into().unwrap();
    assert!(ours.contains(r#"realm="orders""#), "{ours}");
    assert_eq!(other, "Basic realm=\"other\"");
    let names: Vec<&str> = response
        .headers()
        .keys()
        .map(http::HeaderName::as_str)
        .collect();
    for name in ["x-request-id", "vary", "x-made-by", "cache-control"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(names.len(), 6, "{names:?}");
    for (name, expected) in [
        ("vary", ["accept", "origin"]),
        ("set-cookie", ["own=1", "between=1"]),
    ] {
        let values: Vec<_> = response.headers().get_all(name).iter().collect();
        assert_eq!(values, expected);
    }
    assert_eq!(response.extensions().get(), Some(&"an extension"));
}

#[test]
fn a_layer_between_that_sets_another_status_keeps_its_response() {
    let response = send_between(
        |response| {
            *response.status_mut() = StatusCode::NOT_FOUND;
            "hidden".clone_into(response.body_mut());
        },
        |_: &Rejection| Response::new("replaced".to_owned()),
    );
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.body(), "hidden");
}

#[tokio::test]
async fn an_outer_server_makes_the_default_response_of_an_inner_one() {
    let (outer, inner) = (Fixture::new(), Fixture::with_metadata());
    let header = r#"{"alg":"ES256","kid":"p256"}"#;
    let claims = support::claims().to_string();
    // Signed by a key of the outer server that the inner one does not have.
    let token = support::compact(&outer.p256, "ES256", header, claims.as_bytes());
    let app = Router::new()
        .route("/", get(SERVED))
        .layer(inner.server.layer());
    let app = app.layer(outer.server.layer().on_rejection(teapot));
    let response = app.oneshot(bearer(&token, Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    // The inner one rejects, so the challenge is its own.
    let [challenge] = challenges(&response).try_into().unwrap();
    assert!(
        challenge.starts_with(r#"Bearer realm="orders""#),
        "{challenge}"
    );
}

#[tokio::test]
async fn scopes_of_extractors_hold_for_their_own_method_whatever_layers_there_are() {
    struct Read;
    impl RequiredScopes for Read {
        const SCOPES: &'static [&'static str] = &["orders.read"];
    }
    let fixture = Fixture::with_metadata();
    let route = get(async |_: Scoped<Read>| SERVED)
        .layer(RequireLayer::new(Requirement::authenticated()))
        .merge(post(async |caller: Scoped<Write>| {
            assert!(format!("{caller:?}").starts_with("Scoped("));
            assert_eq!(caller.clone().into_inner().subject(), caller.subject());
            SERVED
        }))
        .layer(RequireLayer::new(Requirement::authenticated()));
    let app = Router::new()
        .route("/", route)
        .layer(fixture.server.layer());
    for (method, scope, status) in [
        (Method::GET, "orders.read", 200),
        (Method::GET, "orders.write orders.list", 403),
        (Method::POST, "orders.read", 403),
        (Method::POST, "orders.write", 403),
        (Method::POST, "orders.list orders.write", 200),
    ] {
        let token = fixture.token(&claims_and(&json!({ "scope": scope })));
        let mut request = bearer(&token, Body::empty());
        *request.method_mut() = method.clone();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {scope}");
    }
}

#[tokio::test]
async fn a_scoped_extractor_without_a_resource_server_is_a_500_and_an_event() {
    log::capture();
    log::clear_log();
    let app: Router = Router::new().route("/", get(async |_: Scoped<Write>| SERVED));
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(log::logged(
        "a handler that extracts `Scoped` is outside of `ResourceServerLayer`"
    ));
}

#[test]
fn a_handler_rejects_and_its_event_has_what_the_token_has() {
    log::capture();
    let fixture = Fixture::with_metadata();
    let inner = service_fn(async |request: Request<()>| {
        let caller = AuthContext::from_request(&request).unwrap();
        assert!(caller.require_scopes(["orders.read"]).is_ok());
        let none: [&str; 0] = [];
        assert!(caller.require_scopes(none).is_ok());
        // No scope token, so no token has it.
        let rejection = caller.require_scopes(["orders.read", "a b"]).unwrap_err();
        assert_eq!(rejection.required_scopes(), ["orders.read"]);
        let rejection = caller
            .require_scopes(vec!["orders.write".to_owned()])
            .unwrap_err();
        let mut response = Response::new(());
        response.extensions_mut().insert(rejection);
        Ok::<_, Infallible>(response)
    });
    log::clear_log();
    let service = fixture.server.layer().layer(inner);
    let token = fixture.token(&support::claims());
    poll_once_or_panic(service.oneshot(bearer(&token, ()))).unwrap();
    let event = r#"expected=all of the scopes ["orders.write"] found=scopes ["orders.read"]"#;
    assert_eq!(log::count(event), 2);
    log::assert_not_logged(&token);
}

/// The problem details of a rejection by this requirement, with each type of body.
fn problem(fixture: &Fixture, requirement: Requirement) -> (Response<String>, Value) {
    let layer = fixture.server.layer().on_rejection(ProblemJson);
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::default()));
    let service = layer.layer(RequireLayer::new(requirement).layer(inner));
    let token = fixture.token(&support::claims());
    let response: Response<String> =
        poll_once_or_panic(service.oneshot(bearer(&token, ()))).unwrap();
    let problem = serde_json::from_str(response.body()).unwrap();
    (response, problem)
}

#[test]
fn problem_details_have_the_members_of_the_challenge() {
    let fixture = Fixture::with_metadata();
    let forbidden = "The access token does not permit this request";
    let lacking = "The access token lacks a required scope";
    let step_up = "A more recent or stronger authentication is required";
    for (requirement, expected) in [
        (
            Requirement::roles(["admin"]),
            json!({ "title": "Forbidden", "status": 403, "detail": forbidden }),
        ),
        (
            Requirement::scopes(["a", "b"]),
            json!({
                "title": "Forbidden", "status": 403, "detail": lacking,
                "error": "insufficient_scope", "scope": "a b",
            }),
        ),
        (
            Requirement::max_age(std::time::Duration::from_secs(5))
                .and(Requirement::acr_values(["gold", "silver"])),
            json!({
                "title": "Unauthorized", "status": 401, "detail": step_up,
                "error": "insufficient_user_authentication",
                "acr_values": "gold silver", "max_age": 5,
            }),
        ),
    ] {
        let (response, mut problem) = problem(&fixture, requirement);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(expected["status"], response.status().as_u16());
        let has_challenge = response.headers().contains_key("www-authenticate");
        assert_eq!(has_challenge, expected.get("error").is_some());
        let members = problem.as_object_mut().unwrap();
        assert_eq!(members.remove("type"), Some(json!("about:blank")));
        assert_eq!(problem, expected);
    }
}

#[tokio::test]
async fn problem_details_are_a_body_of_each_type_that_a_string_becomes() {
    let rejection = Rejection::insufficient_scope(["orders.write"]);
    let string: Response<String> = ProblemJson.response(&rejection);
    let full: Response<Full<Bytes>> = ProblemJson.response(&rejection);
    let body: Response<Body> = ProblemJson.response(&rejection);
    let full = full.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text(body).await, *string.body());
    assert_eq!(full, *string.body());
    assert!(string.body().contains("insufficient_scope"));
}

#[test]
fn problem_details_are_no_body_of_a_grpc_response() {
    let fixture = Fixture::with_metadata();
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::default()));
    let within = RequireScopeLayer::all(["orders.write"]).layer(inner);
    for (token, code) in [(Some(fixture.token(&support::claims())), "7"), (None, "16")] {
        let layer = fixture.server.layer().on_rejection(ProblemJson);
        let mut call = bearer(token.as_deref().unwrap_or("a.b.c"), ());
        *call.method_mut() = Method::POST;
        *call.version_mut() = Version::HTTP_2;
        let grpc = HeaderValue::from_static("application/grpc");
        call.headers_mut().insert("content-type", grpc);
        let response: Response<String> =
            poll_once_or_panic(layer.layer(within.clone()).oneshot(call)).unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], code);
        assert_eq!(challenges(&response).len(), 1);
        assert_eq!(response.body(), "");
    }
}

#[test]
fn no_part_of_the_token_or_of_the_request_is_in_problem_details() {
    let fixture = Fixture::with_metadata();
    let layer = fixture.server.layer().on_rejection(ProblemJson);
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::default()));
    let service = layer.layer(inner);
    let claims = claims_and(&json!({ "aud": "s3cr3t", "sub": "s3cr3t", "azp": "s3cr3t" }));
    let mut request = bearer(&fixture.token(&claims), ());
    *request.uri_mut() = "https://s3cr3t.example/s3cr3t".parse().unwrap();
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("s3cr3t.example"));
    let response: Response<String> = poll_once_or_panic(service.oneshot(request)).unwrap();
    assert_eq!(response.status(), 401);
    assert!(
        response
            .body()
            .contains(r#""detail":"The access token is invalid""#)
    );
    assert!(!format!("{response:?}").contains("s3cr3t"), "{response:?}");
}
