//! Requirements beyond a valid token: scopes, roles, conditions and authentication, with "and" and
//! "or"; in layers and in handlers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version, request::Parts};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_oauth::resource_server::{RejectionKind, Requirement};
use tower_oauth::{
    AuthContext, Rejection, RequireLayer, RequireRoleLayer, RequireScopeLayer, Scope,
};

use crate::support::issuer::secs;
use crate::support::{self, Fixture, NOW, bearer, claims_and, log, ok, poll_once_or_panic};

const METADATA: &str = "https://orders.example/.well-known/oauth-protected-resource";

/// Parses a challenge as RFC 9110 §11.6.1 writes it, with quoted strings without escapes and no
/// white space that is optional: the scheme and its parameters, none twice.
fn challenge(text: &str) -> (String, Vec<(String, String)>) {
    let is_token = |text: &str| {
        let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !text.is_empty() && text.bytes().all(is_tchar)
    };
    let (scheme, mut rest) = text.split_once(' ').unwrap();
    assert!(is_token(scheme), "{text}");
    let mut parameters: Vec<(String, String)> = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(is_token(name), "{text}");
        let (value, after) = after.split_once('"').unwrap();
        let is_text = |b: u8| matches!(b, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        assert!(value.bytes().all(is_text), "{text}");
        assert!(parameters.iter().all(|(other, _)| other != name), "{text}");
        parameters.push((name.to_owned(), value.to_owned()));
        if after.is_empty() {
            return (scheme.to_owned(), parameters);
        }
        rest = after.strip_prefix(", ").unwrap();
    }
}

/// The parameters of the one challenge of a response, without those that each has, which are
/// checked.
fn parameters<B>(response: &Response<B>) -> Option<Vec<(String, String)>> {
    let mut fields = response.headers().get_all("www-authenticate").iter();
    let (scheme, mut parameters) = challenge(fields.next()?.to_str().unwrap());
    assert_eq!((scheme.as_str(), fields.next()), ("Bearer", None));
    assert_eq!(parameters.remove(0), ("realm".into(), "orders".into()));
    let last = parameters.pop().unwrap();
    assert_eq!(last, ("resource_metadata".into(), METADATA.into()));
    parameters.retain(|(name, value)| {
        let is_description = name == "error_description";
        assert!(!is_description || !value.is_empty());
        !is_description
    });
    Some(parameters)
}

fn send(fixture: &Fixture, layer: &RequireLayer, request: Request<()>) -> Response<()> {
    let service = layer.layer(service_fn(ok));
    let service = fixture.server.layer().allow_anonymous().layer(service);
    poll_once_or_panic(service.oneshot(request)).unwrap()
}

fn scopes(scopes: &[&str]) -> Requirement {
    Requirement::scopes(scopes)
}

/// The outcomes.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Passes,
    /// 403 that names these scopes.
    Scopes(&'static str),
    /// 403 without a challenge.
    Forbidden,
    /// 401 that asks for another authentication: `acr_values`, `max_age`, `scope`.
    StepUp(&'static str, &'static str, &'static str),
}

#[test]
fn each_requirement_is_met_or_rejected_with_exactly_this_challenge() {
    use Outcome::{Forbidden, Passes, Scopes, StepUp};
    let fixture = Fixture::with_metadata();
    let a = || scopes(&["a"]);
    let b = || scopes(&["b"]);
    let role = || Requirement::roles(["r"]);
    let is_shop = || Requirement::new(|caller: &AuthContext| caller.client_id() == Some("shop"));
    let none = json!({});
    let rows: Vec<(Requirement, Value, Outcome)> = vec![
        // Of alternatives, the first one that another token can meet, in any order of its parts.
        (a().and(role()).or(b()), none.clone(), Scopes("b")),
        (role().and(a()).or(b()), none.clone(), Scopes("b")),
        (b().or(a().and(role())), none.clone(), Scopes("b")),
        (
            a().and(role()).or(b()),
            json!({ "roles": ["r"] }),
            Scopes("a"),
        ),
        (Requirement::authenticated(), none.clone(), Passes),
        // Scopes.
        (scopes(&["a", "b"]), json!({ "scope": "b a" }), Passes),
        (scopes(&["a", "b"]), json!({ "scope": "a" }), Scopes("a b")),
        (a(), json!({ "scope": "aa A" }), Scopes("a")),
        (a(), json!({ "scope": null }), Scopes("a")),
        (
            Requirement::any_scope(["a", "b"]),
            json!({ "scope": "b" }),
            Passes,
        ),
        (
            Requirement::any_scope(["a", "b"]),
            json!({ "scope": "c" }),
            Scopes("a b"),
        ),
        // Roles: flat, of the realm, of a client.
        (role(), json!({ "roles": ["r"] }), Passes),
        (
            role(),
            json!({ "realm_access": { "roles": ["r"] } }),
            Passes,
        ),
        (
            role(),
            json!({ "resource_access": { "orders": { "roles": ["r"] } } }),
            Forbidden,
        ),
        (role(), json!({ "roles": "r" }), Forbidden),
        (role(), json!({ "roles": null }), Forbidden),
        (role(), json!({ "scope": "r" }), Forbidden),
        (
            Requirement::roles(["r", "s"]),
            json!({ "roles": ["r"] }),
            Forbidden,
        ),
        (
            Requirement::roles(["r", "s"]),
            json!({ "roles": ["r"], "realm_access": { "roles": ["s"] } }),
            Passes,
        ),
        (
            Requirement::any_role(["r", "s"]),
            json!({ "roles": ["s"] }),
            Passes,
        ),
        (
            Requirement::any_role(["r", "s"]),
            json!({ "roles": ["t"] }),
            Forbidden,
        ),
        (
            Requirement::client_roles("orders", ["r"]),
            json!({ "resource_access": { "orders": { "roles": ["r"] } } }),
            Passes,
        ),
        (
            Requirement::client_roles("orders", ["r"]),
            json!({ "resource_access": { "bills": { "roles": ["r"] } }, "roles": ["r"] }),
            Forbidden,
        ),
        (
            Requirement::client_roles("orders", ["r"]),
            json!({ "resource_access": { "orders": ["r"] } }),
            Forbidden,
        ),
        // Conditions.
        (is_shop(), json!({ "azp": "shop" }), Passes),
        (is_shop(), none.clone(), Forbidden),
        // Authentication.
        (
            Requirement::acr_values(["gold", "silver"]),
            json!({ "acr": "silver" }),
            Passes,
        ),
        (
            Requirement::acr_values(["gold", "silver"]),
            json!({ "acr": "gold silver" }),
            StepUp("gold silver", "", ""),
        ),
        (
            Requirement::acr_values(["gold"]),
            json!({ "acr": ["gold"] }),
            StepUp("gold", "", ""),
        ),
        (
            Requirement::acr_values(["gold"]),
            json!({ "acr": null }),
            StepUp("gold", "", ""),
        ),
        (
            Requirement::acr_values(["1"]),
            json!({ "acr": 1 }),
            StepUp("1", "", ""),
        ),
        (
            Requirement::acr_values(["gold"]),
            none.clone(),
            StepUp("gold", "", ""),
        ),
        (
            Requirement::max_age(secs(300)),
            json!({ "auth_time": NOW }),
            Passes,
        ),
        (
            Requirement::max_age(secs(300)),
            json!({ "auth_time": NOW - 360 }),
            Passes,
        ),
        (
            Requirement::max_age(secs(300)),
            json!({ "auth_time": NOW - 361 }),
            StepUp("", "300", ""),
        ),
        (
            Requirement::max_age(secs(300)),
            json!({ "auth_time": NOW + 60 }),
            Passes,
        ),
        (
            Requirement::max_age(secs(300)),
            json!({ "auth_time": NOW + 61 }),
            StepUp("", "300", ""),
        ),
        (
            Requirement::max_age(secs(300)),
            json!({ "auth_time": 1e300 }),
            StepUp("", "300", ""),
        ),
        (
            Requirement::max_age(secs(300)),
            json!({ "auth_time": -1 }),
            StepUp("", "300", ""),
        ),
        (
            Requirement::max_age(secs(300)),
            json!({ "auth_time": NOW.to_string() }),
            StepUp("", "300", ""),
        ),
        (
            Requirement::max_age(secs(300)),
            json!({ "auth_time": null }),
            StepUp("", "300", ""),
        ),
        (
            Requirement::max_age(secs(300)),
            none.clone(),
            StepUp("", "300", ""),
        ),
        (
            Requirement::max_age(secs(0)),
            json!({ "auth_time": NOW - 60 }),
            Passes,
        ),
        (
            Requirement::max_age(secs(0)),
            none.clone(),
            StepUp("", "0", ""),
        ),
        (
            Requirement::max_age(Duration::MAX),
            json!({ "auth_time": 0 }),
            Passes,
        ),
        // Both: the first that is not met decides, and the challenge has what both need.
        (a().and(b()), json!({ "scope": "a b" }), Passes),
        (a().and(b()), json!({ "scope": "a" }), Scopes("a b")),
        (a().and(b()), json!({ "scope": "b" }), Scopes("a b")),
        (a().and(scopes(&["b", "a"])), none.clone(), Scopes("a b")),
        (a().and(role()), json!({ "scope": "a" }), Forbidden),
        // More scopes would not help.
        (a().and(role()), none.clone(), Forbidden),
        (role().and(a()), none.clone(), Forbidden),
        (
            Requirement::max_age(secs(300))
                .and(Requirement::acr_values(["gold"]))
                .and(a()),
            json!({ "auth_time": NOW, "scope": "a" }),
            StepUp("gold", "300", "a"),
        ),
        (
            a().and(Requirement::max_age(secs(300))),
            json!({ "auth_time": NOW, "scope": "" }),
            Scopes("a"),
        ),
        (
            Requirement::max_age(secs(300)).and(Requirement::max_age(secs(60))),
            none.clone(),
            StepUp("", "60", ""),
        ),
        (
            Requirement::acr_values(["gold", "silver"])
                .and(Requirement::acr_values(["silver", "tin"])),
            json!({ "acr": "gold" }),
            StepUp("silver", "", ""),
        ),
        // Either: the response of the first that another token can meet.
        (a().or(b()), json!({ "scope": "b" }), Passes),
        (a().or(b()), none.clone(), Scopes("a")),
        (role().or(a()), none.clone(), Scopes("a")),
        (a().or(role()), none.clone(), Scopes("a")),
        (role().or(is_shop()), none.clone(), Forbidden),
        (
            role().or(Requirement::acr_values(["gold"])),
            none,
            StepUp("gold", "", ""),
        ),
        // An alternative that is met is needed too.
        (
            a().or(b()).and(scopes(&["c"])),
            json!({ "scope": "b" }),
            Scopes("b c"),
        ),
        (
            a().or(b()).and(scopes(&["c"])),
            json!({ "scope": "c" }),
            Scopes("a c"),
        ),
    ];
    for (requirement, claims, outcome) in rows {
        let token = fixture.token(&claims_and(&{
            let mut all = json!({ "scope": "other" });
            all.as_object_mut()
                .unwrap()
                .extend(claims.as_object().unwrap().clone());
            all
        }));
        let row = format!("{requirement:?} {claims}");
        let layer = RequireLayer::new(requirement.clone());
        let response = send(&fixture, &layer, bearer(&token, ()));
        let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (status, expected) = match outcome {
            Passes => (200, None),
            Forbidden => (403, None),
            Scopes(scopes) => {
                let error = owned("error", "insufficient_scope");
                (403, Some(vec![error, owned("scope", scopes)]))
            }
            StepUp(acr_values, max_age, scope) => {
                let all = [
                    ("error", "insufficient_user_authentication"),
                    ("acr_values", acr_values),
                    ("max_age", max_age),
                    ("scope", scope),
                ];
                let all = all.into_iter().filter(|(_, value)| !value.is_empty());
                (
                    401,
                    Some(all.map(|(name, value)| owned(name, value)).collect()),
                )
            }
        };
        assert_eq!(response.status().as_u16(), status, "{row}");
        assert_eq!(parameters(&response), expected, "{row}");
        let rejection = response.extensions().get::<Rejection>();
        assert_eq!(rejection.is_none(), status == 200, "{row}");
        if let Some(rejection) = rejection {
            assert_eq!(response.headers()["cache-control"], "no-store", "{row}");
            assert_eq!(
                rejection.www_authenticate().is_some(),
                expected.is_some(),
                "{row}"
            );
            let of = |name: &str| {
                let all = expected.iter().flatten();
                let value = all.clone().find(|(other, _)| other == name);
                value.map_or("", |(_, value)| value.as_str()).to_owned()
            };
            let scopes: Vec<&str> = rejection
                .required_scopes()
                .iter()
                .map(Scope::as_str)
                .collect();
            assert_eq!(scopes.join(" "), of("scope"), "{row}");
            let values: Vec<&str> = rejection.acr_values().collect();
            assert_eq!(values.join(" "), of("acr_values"), "{row}");
            let max_age = rejection.max_age().map(|age| age.as_secs().to_string());
            assert_eq!(max_age.unwrap_or_default(), of("max_age"), "{row}");
            assert_eq!(rejection.error().unwrap_or_default(), of("error"), "{row}");
        }
    }
}

/// A requirement of each kind, and whether this context meets it.
fn requirements() -> impl Strategy<Value = (Requirement, bool)> {
    let leaf = any::<bool>().prop_flat_map(|is_met| {
        let name = if is_met { "held" } else { "lacking" };
        prop_oneof![
            Just((Requirement::scopes([name]), is_met)),
            Just((Requirement::scopes(["held", name]), is_met)),
            Just((Requirement::any_scope(["lacking", name]), is_met)),
            Just((Requirement::roles([name]), is_met)),
            Just((Requirement::client_roles("orders", [name]), is_met)),
            Just((Requirement::acr_values([name]), is_met)),
            Just((Requirement::new(move |_: &AuthContext| is_met), is_met)),
            Just((Requirement::authenticated(), true)),
        ]
    });
    leaf.prop_recursive(4, 16, 2, |inner| {
        (inner.clone(), inner, any::<bool>()).prop_map(|((a, is_a), (b, is_b), both)| {
            if both {
                (a.and(b), is_a && is_b)
            } else {
                (a.or(b), is_a || is_b)
            }
        })
    })
}

fn caller() -> AuthContext {
    AuthContext::builder()
        .scopes(["held"])
        .roles(["held"])
        .claim(
            "resource_access",
            json!({ "orders": { "roles": ["held"] } }),
        )
        .claim("acr", "held")
        .build()
}

proptest! {
    #[test]
    fn a_requirement_is_met_exactly_if_its_parts_say_so((requirement, is_met) in requirements()) {
        let caller = caller();
        prop_assert_eq!(requirement.is_met_by(&caller), is_met);
        prop_assert_eq!(caller.require(&requirement).is_ok(), is_met);
    }

    #[test]
    fn and_and_or_are_associative_in_outcome_and_challenge(
        (a, _) in requirements(), (b, _) in requirements(), (c, _) in requirements(),
    ) {
        let caller = caller();
        let outcome = |requirement: Requirement| {
            let rejection = caller.require(&requirement).err()?;
            Some((rejection.kind(), rejection.headers().clone()))
        };
        let [a, b, c] = [a, b, c].map(|one| move || one.clone());
        prop_assert_eq!(outcome(a().and(b()).and(c())), outcome(a().and(b().and(c()))));
        prop_assert_eq!(outcome(a().or(b()).or(c())), outcome(a().or(b().or(c()))));
        prop_assert_eq!(outcome(a().and(Requirement::authenticated())), outcome(a()));
        prop_assert_eq!(outcome(a().and(a())), outcome(a()));
        prop_assert_eq!(outcome(a().or(a())), outcome(a()));
    }

    /// A client that gets what the challenge names, and no more, passes.
    #[test]
    fn the_scopes_of_a_challenge_are_enough(
        sets in prop::collection::vec((prop::collection::vec(0..6_u8, 1..4), any::<bool>()), 1..6),
        held in prop::collection::vec(0..6_u8, 0..4),
    ) {
        let name = |number: &u8| format!("s{number}");
        let requirement = sets.iter().fold(Requirement::authenticated(), |all, (set, both)| {
            let next = Requirement::scopes(set.iter().map(name));
            if *both { all.and(next) } else { next.or(all.and(Requirement::scopes(["x"]))) }
        });
        let caller = AuthContext::builder().scopes(held.iter().map(name)).build();
        if let Err(rejection) = caller.require(&requirement) {
            prop_assert_eq!(rejection.kind(), RejectionKind::InsufficientScope);
            let next = AuthContext::builder().scopes(rejection.required_scopes()).build();
            prop_assert!(requirement.is_met_by(&next));
        }
    }
}

#[test]
fn a_request_without_a_token_gets_a_401_that_names_the_scopes_of_the_route() {
    let fixture = Fixture::with_metadata();
    let by_head = RequireLayer::by(|_: &Parts| scopes(&["a"]).and(scopes(&["b"])));
    for (layer, scope) in [
        (RequireLayer::new(scopes(&["a", "b"])), Some("a b")),
        (by_head, Some("a b")),
        (
            RequireLayer::new(Requirement::roles(["r"]).or(scopes(&["a"]))),
            Some("a"),
        ),
        (
            RequireLayer::new(Requirement::max_age(secs(1)).and(scopes(&["a"]))),
            Some("a"),
        ),
        (RequireLayer::new(Requirement::roles(["r"])), None),
        (RequireLayer::new(Requirement::authenticated()), None),
        (RequireLayer::new(|_: &AuthContext| true), None),
    ] {
        let response = send(&fixture, &layer, Request::new(()));
        assert_eq!(response.status(), 401);
        let expected = scope.map(|scope| ("scope".to_owned(), scope.to_owned()));
        assert_eq!(parameters(&response), Some(Vec::from_iter(expected)));
        let kind = response.extensions().get().map(Rejection::kind);
        assert_eq!(kind, Some(RejectionKind::MissingToken));
    }
}

#[test]
fn a_rule_by_the_head_sees_method_path_and_headers_and_passes_the_request_on_unchanged() {
    let fixture = Fixture::with_metadata();
    let layer = RequireLayer::by(|head: &Parts| {
        assert!(AuthContext::from_extensions(&head.extensions).is_some());
        match head
            .headers
            .get("mcp-name")
            .map(http::HeaderValue::as_bytes)
        {
            Some(b"whoami") => Requirement::authenticated(),
            Some(b"report") => scopes(&["reports.read"]),
            // What any tool needs.
            _ => scopes(&["reports.read", "reports.write"]),
        }
    });
    let inner = service_fn(async |request: Request<String>| {
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "/mcp?a=b");
        assert!(AuthContext::from_request(&request).is_some());
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let service = fixture.server.layer().layer(layer.layer(inner));
    let send = |name: Option<&str>, scope: &str| {
        let token = fixture.token(&claims_and(&json!({ "scope": scope })));
        let mut request = bearer(&token, "body".to_owned());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = "/mcp?a=b".parse().unwrap();
        if let Some(name) = name {
            request
                .headers_mut()
                .insert("mcp-name", name.parse().unwrap());
        }
        let response = poll_once_or_panic(service.clone().oneshot(request)).unwrap();
        let scope = parameters(&response).map(|all| all.last().unwrap().1.clone());
        if response.status() == 200 {
            assert_eq!(response.body(), "body");
        }
        (response.status().as_u16(), scope)
    };
    let union = Some("reports.read reports.write".to_owned());
    assert_eq!(send(Some("whoami"), ""), (200, None));
    assert_eq!(
        send(Some("report"), ""),
        (403, Some("reports.read".to_owned()))
    );
    assert_eq!(send(Some("report"), "reports.read"), (200, None));
    assert_eq!(send(Some("other"), "reports.read"), (403, union.clone()));
    assert_eq!(send(None, "reports.read"), (403, union));
    assert_eq!(send(None, "reports.write reports.read"), (200, None));
}

#[test]
fn scope_and_role_layers_are_requirements_of_scopes_and_roles() {
    let fixture = Fixture::with_metadata();
    let server = fixture.server.layer();
    let reader = fixture.token(&claims_and(&json!({
        "scope": "a",
        "roles": ["r"],
        "resource_access": { "orders": { "roles": ["c", "d"] } },
    })));
    let status = |service| {
        let send = tower::util::BoxCloneService::<Request<()>, Response<()>, Infallible>::oneshot;
        poll_once_or_panic(send(service, bearer(&reader, ())))
            .unwrap()
            .status()
            .as_u16()
    };
    let scope = |layer: RequireScopeLayer| {
        status(tower::util::BoxCloneService::new(
            server.layer(layer.layer(service_fn(ok))),
        ))
    };
    let role = |layer: RequireRoleLayer| {
        status(tower::util::BoxCloneService::new(
            server.layer(layer.layer(service_fn(ok))),
        ))
    };
    assert_eq!(scope(RequireScopeLayer::all(["a"])), 200);
    assert_eq!(scope(RequireScopeLayer::all(["a", "b"])), 403);
    assert_eq!(scope(RequireScopeLayer::any(["a", "b"])), 200);
    assert_eq!(scope(RequireScopeLayer::all(["r"])), 403);
    assert_eq!(role(RequireRoleLayer::all(["r"])), 200);
    assert_eq!(role(RequireRoleLayer::all(["r", "s"])), 403);
    assert_eq!(role(RequireRoleLayer::any(["s", "r"])), 200);
    assert_eq!(role(RequireRoleLayer::any(["a"])), 403);
    let of_client = |client: &str, roles: [&str; 2]| RequireRoleLayer::all_of_client(client, roles);
    let any_of_client =
        |client: &str, roles: [&str; 2]| RequireRoleLayer::any_of_client(client, roles);
    assert_eq!(role(of_client("orders", ["c", "d"])), 200);
    assert_eq!(role(of_client("orders", ["c", "r"])), 403);
    assert_eq!(role(of_client("bills", ["c", "d"])), 403);
    assert_eq!(role(any_of_client("orders", ["r", "d"])), 200);
    assert_eq!(role(any_of_client("orders", ["r", "s"])), 403);
    assert_eq!(role(any_of_client("bills", ["c", "d"])), 403);
}

#[test]
fn a_rejected_request_does_not_reach_the_service_and_a_grpc_call_gets_its_status() {
    let fixture = Fixture::with_metadata();
    let called = Arc::new(AtomicUsize::new(0));
    for (requirement, code) in [
        (scopes(&["a"]), "7"),
        (Requirement::roles(["r"]), "7"),
        (Requirement::max_age(secs(1)), "16"),
    ] {
        let counter = Arc::clone(&called);
        let inner = service_fn(move |_: Request<()>| {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok::<_, Infallible>(Response::new(())))
        });
        let service = RequireLayer::new(requirement).layer(inner);
        let service = fixture.server.layer().layer(service);
        let mut call = bearer(&fixture.token(&support::claims()), ());
        *call.method_mut() = Method::POST;
        *call.version_mut() = Version::HTTP_2;
        call.headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        let response = poll_once_or_panic(service.oneshot(call)).unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], code);
        assert_eq!(
            response.headers().contains_key("www-authenticate"),
            code != "7" || {
                response
                    .extensions()
                    .get::<Rejection>()
                    .unwrap()
                    .error()
                    .is_some()
            }
        );
    }
    assert_eq!(called.load(Ordering::SeqCst), 0);
}

#[test]
fn a_layer_without_a_resource_server_around_it_rejects_with_500_and_says_its_name() {
    log::capture();
    let names = ["`RequireLayer`", "`RequireRoleLayer`"];
    for (at, name) in names.into_iter().enumerate() {
        log::clear_log();
        let response = if at == 0 {
            let service = RequireLayer::new(|_: &AuthContext| true).layer(service_fn(ok));
            poll_once_or_panic(service.oneshot(Request::new(())))
        } else {
            let service = RequireRoleLayer::all(["r"]).layer(service_fn(ok));
            poll_once_or_panic(service.oneshot(Request::new(())))
        };
        assert_eq!(
            response.unwrap().status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
        assert!(log::logged(&format!(
            "{name} is outside of `ResourceServerLayer`"
        )));
    }
}

#[test]
fn an_unmet_requirement_is_logged_with_what_it_expects_and_what_the_token_has() {
    for (requirement, reason, expected, found) in [
        (
            Requirement::roles(["admin", "auditor"]),
            "forbidden",
            r#"all of the roles ["admin", "auditor"]"#,
            r#"roles ["buyer"]"#,
        ),
        (
            Requirement::any_role(["admin"]),
            "forbidden",
            r#"one of the roles ["admin"]"#,
            r#"roles ["buyer"]"#,
        ),
        (
            Requirement::client_roles("orders", ["admin"]),
            "forbidden",
            r#"all of the roles ["admin"] of the client "orders""#,
            r#"roles ["reader"]"#,
        ),
        (
            Requirement::new(|_: &AuthContext| false),
            "forbidden",
            "a condition of the route that is true",
            "false",
        ),
        (
            Requirement::acr_values(["gold"]),
            "insufficient_authentication",
            r#"acr with one of ["gold"]"#,
            r#"acr "tin""#,
        ),
        (
            Requirement::max_age(secs(300)),
            "insufficient_authentication",
            "auth_time at most 5 min ago, with 60 s of leeway",
            "auth_time 10 min ago",
        ),
        (
            scopes(&["a"]).and(Requirement::any_scope(["b", "c"])),
            "insufficient_scope",
            r#"one of the scopes ["b", "c"]"#,
            r#"scopes ["a"]"#,
        ),
    ] {
        log::capture();
        let fixture = Fixture::with_metadata();
        let token = fixture.token(&claims_and(&json!({
            "azp": "web", "scope": "a", "roles": ["buyer"], "acr": "tin", "auth_time": NOW - 600,
            "resource_access": { "orders": { "roles": ["reader"] } },
        })));
        let layer = RequireLayer::new(requirement);
        log::clear_log();
        for _ in 0..3 {
            let response = send(&fixture, &layer, bearer(&token, ()));
            let rejection = response.extensions().get::<Rejection>().unwrap();
            let debug = format!("{rejection:?}");
            assert!(
                !debug.contains("buyer") && !debug.contains("tin\""),
                "{debug}"
            );
        }
        let issuer = support::ISSUER;
        let event = format!(
            r#"reason="{reason}" issuer="{issuer}" expected={expected} found={found} (client "web")"#
        );
        // Three at `debug`, and one at `warn`.
        assert_eq!(log::count(&event), 4, "{event}");
        assert_eq!(log::count("a request was rejected"), 1);
        log::assert_not_logged(&token);
    }
}

#[test]
fn an_unusable_requirement_panics_when_it_is_built() {
    let panics = |build: fn() -> Requirement| std::panic::catch_unwind(build).is_err();
    assert!(panics(|| Requirement::scopes([""; 0])));
    assert!(panics(|| Requirement::scopes(["a b"])));
    assert!(panics(|| Requirement::any_scope(["a\"b"])));
    assert!(panics(|| Requirement::roles([""; 0])));
    assert!(panics(|| Requirement::any_role([""])));
    assert!(panics(|| Requirement::client_roles("orders", [""; 0])));
    assert!(panics(|| Requirement::any_client_role("orders", [""])));
    assert!(panics(|| Requirement::acr_values([""; 0])));
    assert!(panics(|| Requirement::acr_values(["a b"])));
    assert!(panics(|| Requirement::acr_values(["a\\b"])));
    assert!(!panics(|| Requirement::roles(["any text \" \\"])));
}
