//! The names of the resource server that programs of others rely on, used from outside the crate.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth::clock::{Clock as _, UnixTime};
use tower_oauth::resource_server::{
    AuthContextRejection, Claims, RejectionKind, ResourceServerService,
};
use tower_oauth::{
    Audience, AuthContext, ConfigError, Issuer, Rejection, RequireScopeLayer, ResourceServer,
    ResourceServerLayer, Scope, TrustedIssuer,
};

use crate::support::{
    self, AUDIENCE, Fixture, ISSUER, NOW, bearer, claims_with, log, ok, poll_once_or_panic,
};

fn with_context(context: AuthContext) -> Request<()> {
    Request::builder().extension(context).body(()).unwrap()
}

#[test]
fn a_builder_takes_strings_and_values_and_build_reports_the_bad_one() {
    let setting = |error: ConfigError| error.setting().to_owned();
    let issuer = || Issuer::new(ISSUER).unwrap();
    let audience = || Audience::new(AUDIENCE).unwrap();
    assert!(ResourceServer::builder(ISSUER, AUDIENCE).build().is_ok());
    assert!(
        ResourceServer::builder(issuer(), audience())
            .build()
            .is_ok()
    );
    assert!(
        ResourceServer::builder(ISSUER.to_owned(), audience())
            .build()
            .is_ok()
    );
    let bad_issuer = ResourceServer::builder("https://a b", audience());
    assert_eq!(
        bad_issuer.build().map(|_| ()).map_err(setting),
        Err("issuer".to_owned())
    );
    // An issuer that is added later does not hide the error.
    let other = TrustedIssuer::new(Issuer::new("https://other.example").unwrap(), audience());
    let bad_audience = ResourceServer::builder(issuer(), " ").add_issuer(other);
    assert_eq!(
        bad_audience.build().map(|_| ()).map_err(setting),
        Err("audience".to_owned())
    );
}

#[tokio::test]
async fn start_reports_a_bad_value_as_well() {
    let error = ResourceServer::builder("", AUDIENCE)
        .start()
        .await
        .unwrap_err();
    let source = error.source().and_then(|source| source.downcast_ref());
    assert_eq!(source.map(ConfigError::setting), Some("issuer"));
    let reason = source.unwrap().to_string();
    assert_eq!(error.to_string(), format!("configuration failed: {reason}"));
}

#[test]
fn each_issuer_is_complete_before_it_is_added() {
    let issuer = |name: &str, audience: &str| {
        TrustedIssuer::new(Issuer::new(name).unwrap(), Audience::new(audience).unwrap())
    };
    let (server, _refresher) = ResourceServer::from_issuer(issuer("https://one.example", "a"))
        .add_issuer(issuer("https://two.example", "b"))
        .build()
        .unwrap();
    let names: Vec<_> = server
        .key_sets()
        .iter()
        .map(|status| status.issuer().to_string())
        .collect();
    assert_eq!(names, ["https://one.example", "https://two.example"]);
    let twice = ResourceServer::from_issuer(issuer("https://one.example", "a"))
        .add_issuer(issuer("https://one.example", "b"));
    let error = twice.build().unwrap_err().to_string();
    assert!(
        error.contains("twice") && error.contains("https://one.example"),
        "{error}"
    );
}

#[test]
fn layers_and_services_are_created_from_a_server_and_give_back_the_inner_service() {
    let fixture = Fixture::new();
    let token = fixture.token(&support::claims());
    let mut service = ResourceServerService::new(service_fn(ok), fixture.server.clone());
    let response = poll_once_or_panic(service.call(bearer(&token, ()))).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut service = ResourceServerLayer::new(fixture.server).layer("inner");
    assert_eq!(*service.get_ref(), "inner");
    *service.get_mut() = "other";
    assert_eq!(service.into_inner(), "other");
    let mut service = RequireScopeLayer::all(["a"]).layer("inner");
    assert_eq!(*service.get_ref(), "inner");
    *service.get_mut() = "other";
    assert_eq!(service.into_inner(), "other");
}

#[test]
fn scopes_are_required_by_value_and_by_string() {
    let (read, write) = (Scope::new("read").unwrap(), Scope::new("write").unwrap());
    let owned = ["read".to_owned(), "write".to_owned()];
    let layers = [
        (RequireScopeLayer::all([read.clone(), write.clone()]), 403),
        (RequireScopeLayer::all(["read", "write"]), 403),
        (RequireScopeLayer::all(&owned), 403),
        (RequireScopeLayer::any([read, write]), 200),
        (RequireScopeLayer::any(owned), 200),
    ];
    for (layer, status) in layers {
        let context = AuthContext::builder().scopes(["read"]).build();
        let service = layer.layer(service_fn(ok));
        let response = poll_once_or_panic(service.oneshot(with_context(context))).unwrap();
        assert_eq!(response.status(), status);
    }
}

#[test]
fn a_rejection_has_the_error_the_description_and_the_required_scopes() {
    let fixture = Fixture::new();
    let scopes = RequireScopeLayer::all(["orders.write", "orders.admin"]);
    let mut service = fixture.server.layer().layer(scopes.layer(service_fn(ok)));
    let mut reject = |request: Request<()>| {
        let response = poll_once_or_panic(service.call(request)).unwrap();
        response.extensions().get::<Rejection>().unwrap().clone()
    };
    let cases = [
        (Request::new(()), 401, None, "An access token is required"),
        (
            bearer("a b", ()),
            400,
            Some("invalid_request"),
            "The Authorization field is malformed or repeated",
        ),
        (
            bearer("a.b.c", ()),
            401,
            Some("invalid_token"),
            "The access token is invalid",
        ),
        (
            bearer(&fixture.token(&support::claims()), ()),
            403,
            Some("insufficient_scope"),
            "The access token lacks a required scope",
        ),
    ];
    for (request, status, error, description) in cases {
        let rejection = reject(request);
        let kind = rejection.kind();
        assert_eq!(rejection.status(), status, "{kind}");
        assert_eq!(
            (rejection.error(), rejection.description()),
            (error, description),
            "{kind}"
        );
        let challenge = rejection.www_authenticate().unwrap().to_str().unwrap();
        let in_challenge = error.is_some_and(|error| {
            challenge.contains(&format!(
                r#"error="{error}", error_description="{description}""#
            ))
        });
        assert_eq!(in_challenge, error.is_some(), "{challenge}");
        let required: Vec<_> = rejection
            .required_scopes()
            .iter()
            .map(Scope::as_str)
            .collect();
        if status == 403 {
            assert_eq!(required, ["orders.write", "orders.admin"]);
            assert!(
                challenge.contains(r#"scope="orders.write orders.admin""#),
                "{challenge}"
            );
        } else {
            assert_eq!(required, [""; 0]);
        }
        let error: Box<dyn Error + Send + Sync> = rejection.into();
        assert_eq!(error.to_string(), format!("request rejected: {kind}"));
    }
}

#[test]
fn the_list_of_kinds_is_a_slice_of_distinct_names() {
    let kinds: &'static [RejectionKind] = RejectionKind::ALL;
    let names: std::collections::BTreeSet<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(names.len(), kinds.len());
    assert!(names.contains("ambiguous_key") && names.contains("layer_missing"));
}

#[test]
fn a_built_context_is_that_of_an_authenticated_request() {
    let context = AuthContext::builder()
        .issuer(ISSUER)
        .subject("shop")
        .client_id("shop-id")
        .audience(["orders", "bills"])
        .scopes(["orders.read", "orders.write"])
        .roles(["buyer"])
        .expires_at(UnixTime::from_secs(NOW))
        .claim("tenant", json!({ "id": 7 }))
        .build();
    assert_eq!(context.issuer().as_str(), ISSUER);
    assert_eq!(context.subject(), Some("shop"));
    assert_eq!(context.client_id(), Some("shop-id"));
    assert_eq!(context.audience().collect::<Vec<_>>(), ["orders", "bills"]);
    assert_eq!(
        context.scopes().collect::<Vec<_>>(),
        ["orders.read", "orders.write"]
    );
    assert_eq!(context.expires_at(), UnixTime::from_secs(NOW));
    assert_eq!(context.expires_in(), Duration::ZERO);
    assert!(context.has_role("buyer") && !context.has_role("buy"));
    assert_eq!(
        context.claim::<Value>("tenant").unwrap(),
        Some(json!({ "id": 7 }))
    );
    let default = AuthContext::builder().build();
    assert!((3590..=3600).contains(&default.expires_in().as_secs()));
    assert_eq!((default.subject(), default.roles().count()), (None, 0));
}

#[test]
fn the_remaining_lifetime_follows_the_clock_of_the_resource_server() {
    let fixture = Fixture::new();
    let context = fixture.assert_accepts(&fixture.token(&claims_with(json!({ "exp": NOW + 100 }))));
    assert_eq!(context.expires_in(), Duration::from_secs(100));
    fixture.clock.advance(Duration::from_secs(30));
    assert_eq!(context.expires_in(), Duration::from_secs(70));
    // Within the leeway, and after it.
    fixture.clock.advance(Duration::from_secs(71));
    assert_eq!(context.expires_in(), Duration::ZERO);
    assert_eq!(fixture.clock.now(), UnixTime::from_secs(NOW + 101));
}

#[test]
fn a_context_is_found_in_the_extensions() {
    let mut extensions = http::Extensions::new();
    assert!(AuthContext::from_extensions(&extensions).is_none());
    extensions.insert(AuthContext::builder().subject("shop").build());
    let context = AuthContext::from_extensions(&extensions).unwrap();
    assert_eq!(context.subject(), Some("shop"));
}

#[test]
fn roles_are_those_of_both_claims_that_are_arrays_of_strings() {
    let fixture = Fixture::new();
    let context = fixture.assert_accepts(&fixture.token(&claims_with(json!({
        "roles": ["admin", "auditor"],
        "realm_access": { "roles": ["admin", "user"] },
    }))));
    assert_eq!(
        context.roles().collect::<Vec<_>>(),
        ["admin", "auditor", "admin", "user"]
    );
    let odd = [
        json!("admin"),
        json!({ "admin": true }),
        json!(null),
        json!(["admin", 1]),
    ];
    for odd in odd {
        let mut claims = claims_with(json!({ "roles": [], "realm_access": { "roles": odd } }));
        claims["roles"] = odd;
        let context = fixture.assert_accepts(&fixture.token(&claims));
        assert_eq!(context.roles().count(), 0, "{claims}");
    }
}

#[derive(Debug, Deserialize, PartialEq)]
struct Tenant {
    tenant: String,
}

#[test]
fn the_claims_are_parsed_once_for_all_clones_of_a_requests_context() {
    let large: Vec<_> = (0..500).map(|number| json!({ "n": number })).collect();
    let context = AuthContext::builder()
        .claim("tenant", "acme")
        .claim("large", large)
        .build();
    let clone = context.clone();
    let allocations = |context: &AuthContext| {
        let mut tenant = None;
        let taken = allocation_counter::measure(|| tenant = context.claims::<Tenant>().ok());
        assert_eq!(tenant.unwrap().tenant, "acme");
        taken.count_total
    };
    assert!(allocations(&clone) > 1000, "the first use parses");
    let later = context.clone();
    assert!(allocations(&later) < 10 && allocations(&context) < 10);
}

/// A cache hit makes a context that has not parsed anything yet.
#[test]
fn parsed_claims_are_not_kept_in_the_token_cache() {
    let fixture = Fixture::new();
    let large: Vec<_> = (0..100).map(|number| json!({ "n": number })).collect();
    let token = fixture.token(&claims_with(json!({ "large": large })));
    for _ in 0..30 {
        let context = fixture.assert_accepts(&token);
        let taken = allocation_counter::measure(|| {
            assert_eq!(
                context.claim::<String>("sub").unwrap().as_deref(),
                Some("app")
            );
        });
        assert!(taken.count_total > 200, "{taken:?}");
    }
}

#[tokio::test]
async fn claims_are_extracted_as_a_type_of_the_application() {
    log::capture();
    let tenant = async |Claims(Tenant { tenant }): Claims<Tenant>| tenant;
    let fixture = Fixture::new();
    let app: Router = Router::new().route("/", get(tenant));
    let send = async |app: Router, context: Option<AuthContext>| {
        let mut request = Request::new(Body::empty());
        if let Some(context) = context {
            request.extensions_mut().insert(context);
        }
        let response = app.oneshot(request).await.unwrap();
        let is_challenge = response.headers().contains_key(header::WWW_AUTHENTICATE);
        assert_eq!(
            response.headers().contains_key(header::CACHE_CONTROL),
            response.status() != 200
        );
        (response.status().as_u16(), is_challenge)
    };
    let context = |tenant: Value| Some(AuthContext::builder().claim("tenant", tenant).build());
    assert_eq!(
        send(app.clone(), context(json!("acme"))).await,
        (200, false)
    );
    assert_eq!(send(app.clone(), context(json!(7))).await, (403, false));
    assert_eq!(send(app.clone(), None).await, (500, false));
    let anonymous = app.layer(fixture.server.layer().allow_anonymous());
    assert_eq!(send(anonymous, None).await, (401, true));
}

#[test]
fn the_rejection_of_an_extractor_is_an_error_with_a_text() {
    let error = AuthContext::builder()
        .build()
        .claim::<u8>("iss")
        .unwrap_err();
    let rejection = AuthContextRejection::ClaimsMismatch(error);
    assert_eq!(rejection.status(), StatusCode::FORBIDDEN);
    let error: Box<dyn Error> = rejection.into();
    assert_eq!(
        error.to_string(),
        "the claims do not have the expected type"
    );
}
