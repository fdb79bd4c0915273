//! Token exchange (RFC 8693): A calls B with a token, and B calls C on behalf of A.

use std::time::Duration;

use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication, TokenMint};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::{ResourceServer, TokenManager};

use crate::assertion::{
    ACCESS_TOKEN, Fixture, NOW, Signer, TOKEN_EXCHANGE, answer, assert_refused, decode, issued,
    with,
};

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// A is the application `shop` of the fixture, B receives its tokens.
struct Services {
    fixture: Fixture,
    b: RegisteredApplication,
}

impl Services {
    fn new() -> Self {
        let fixture = Fixture::new();
        let b = fixture.server.register("orders").unwrap();
        Self { fixture, b }
    }

    fn a(&self) -> &RegisteredApplication {
        &self.fixture.shop
    }

    /// A token of A for B.
    fn mint(&self) -> TokenMint {
        let mint = self.fixture.server.mint(self.a());
        mint.audience([self.b.client_id()])
            .scope("stock.read stock.write")
    }

    /// An exchange by B. A parameter of `more` replaces one of the same name.
    async fn exchange(&self, subject: &str, more: &[(&str, &str)]) -> (StatusCode, Value) {
        self.exchange_by(&self.b, subject, more).await
    }

    async fn exchange_by(
        &self,
        client: &RegisteredApplication,
        subject: &str,
        more: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let mut form = vec![
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", subject),
            ("subject_token_type", ACCESS_TOKEN),
        ];
        form.retain(|(name, _)| !more.iter().any(|(other, _)| name == other));
        form.extend(more.iter().filter(|(_, value)| !value.is_empty()));
        self.fixture.token_as(client, &form).await
    }
}

#[tokio::test]
async fn the_callee_gets_a_token_of_the_same_subject_with_itself_as_the_actor() {
    let services = Services::new();
    let (a, b) = (services.a(), &services.b);
    let subject = services
        .mint()
        .claim("roles", ["clerk"])
        .claim("plan", "gold")
        .sign();
    let more = [("audience", "stock"), ("scope", "stock.read")];
    let (status, body) = services.exchange(&subject, &more).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    // RFC 8693 §2.2.1
    assert_eq!(body["issued_token_type"], ACCESS_TOKEN);
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["scope"], "stock.read");
    assert_eq!(body["expires_in"], 3600);
    let token = body["access_token"].as_str().unwrap();
    let (_, claims) = decode(token);
    assert_eq!(
        claims,
        json!({
            "iss": services.fixture.server.issuer().as_str(),
            "sub": a.client_id(),
            "aud": ["stock"],
            "client_id": b.client_id(),
            "act": { "sub": b.client_id() },
            "scope": "stock.read",
            "exp": NOW + 3600,
            "iat": NOW,
            "tenant": services.fixture.server.tenant_id(),
            "roles": ["clerk"],
            "plan": "gold",
        })
    );
    // C validates it as any other token.
    let stock = ResourceServer::builder(services.fixture.server.issuer(), "stock")
        .transport(services.fixture.server.transport())
        .clock(services.fixture.clock.clone())
        .start()
        .await
        .unwrap();
    let caller = stock.validate(token).await.unwrap();
    assert_eq!(caller.subject(), Some(a.client_id()));
    assert_eq!(caller.client_id(), Some(b.client_id()));
    let act = caller.claim::<Value>("act").unwrap();
    assert_eq!(act, Some(json!({ "sub": b.client_id() })));
    assert!(
        stock.validate(&subject).await.is_err(),
        "the subject token is for B"
    );
}

#[tokio::test]
async fn the_subject_may_be_a_user_if_client_id_names_an_application() {
    let services = Services::new();
    let a = services.a();
    let of_ann = || services.mint().claim("sub", "ann");
    let subject = of_ann().claim("client_id", a.client_id()).sign();
    let (status, body) = services.exchange(&subject, &[]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, claims) = decode(body["access_token"].as_str().unwrap());
    assert_eq!(claims["sub"], "ann");

    for subject in [
        of_ann().sign(),
        of_ann().claim("client_id", "portal").sign(),
    ] {
        let refused = services.exchange(&subject, &[]).await;
        assert_refused(&refused, 400, "invalid_request", "no application");
        let description = refused.1["error_description"].as_str().unwrap();
        assert!(
            description.contains("(client_id, or else sub)"),
            "{description}"
        );
    }
}

#[tokio::test]
async fn a_token_of_the_token_endpoint_is_exchanged_and_introspected() {
    let services = Services::new();
    let (a, b) = (services.a(), &services.b);
    a.set_scopes(["stock.read"]).unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("audience", b.client_id()),
    ];
    let (_, body) = services.fixture.token_as(a, &form).await;
    let subject = body["access_token"].as_str().unwrap().to_owned();
    let (_, body) = services.exchange(&subject, &[]).await;
    let token = body["access_token"].as_str().unwrap().to_owned();
    // Without a target it is for the client, without `scope` it has those of the subject token.
    let claims = decode(&token).1;
    assert_eq!(claims["aud"], json!([b.client_id()]));
    assert_eq!(claims["scope"], "appid_default stock.read");
    assert_eq!(claims["amr"], Value::Null, "it says how A authenticated");
    let form = [
        ("token", token.as_str()),
        ("client_id", b.client_id()),
        ("client_secret", b.secret().expose_secret()),
    ];
    let (_, active) = answer(&services.fixture.post("introspect", &form).await);
    assert_eq!(active["active"], true);
    assert_eq!(active["sub"], a.client_id());
    assert_eq!(active["client_id"], b.client_id());
    assert_eq!(active["act"], json!({ "sub": b.client_id() }));
}

#[tokio::test]
async fn each_further_actor_holds_the_actors_before_it() {
    let services = Services::new();
    let c = services.fixture.server.register("stock").unwrap();
    let (b, for_c) = (&services.b, [("audience", c.client_id())]);
    let (_, body) = services.exchange(&services.mint().sign(), &for_c).await;
    let token = body["access_token"].as_str().unwrap();
    let claims = issued(services.exchange_by(&c, token, &[]).await);
    assert_eq!(
        claims["act"],
        json!({ "sub": c.client_id(), "act": { "sub": b.client_id() } })
    );
    assert_eq!(claims["sub"], services.a().client_id());
    assert_eq!(claims["client_id"], c.client_id());
    // The client that got a token exchanges it as well.
    let narrowed = issued(
        services
            .exchange_by(b, token, &[("scope", "stock.read")])
            .await,
    );
    assert_eq!(narrowed["scope"], "stock.read");
}

#[tokio::test]
async fn the_subject_of_an_actor_token_is_the_actor() {
    let services = Services::new();
    let server = &services.fixture.server;
    let actor = |application: &RegisteredApplication| server.mint(application);
    let subject = services.mint().sign();
    let exchange = async |token: &str, kind: &str| {
        let more = [("actor_token", token), ("actor_token_type", kind)];
        services.exchange(&subject, &more).await
    };
    let robot = actor(&services.b)
        .claim("sub", "robot-7")
        .claim("client_id", services.b.client_id());
    let claims = issued(exchange(&robot.sign(), ACCESS_TOKEN).await);
    assert_eq!(claims["act"], json!({ "sub": "robot-7" }));
    // It expires no later than the actor token.
    let short = actor(&services.b)
        .expires_in(Duration::from_secs(30))
        .sign();
    let (_, body) = exchange(&short, ACCESS_TOKEN).await;
    assert_eq!(body["expires_in"], 30);
    let for_b = actor(services.a()).audience([services.b.client_id()]);
    for (what, token, kind) in [
        ("of another client", for_b.sign(), ACCESS_TOKEN),
        ("expired", actor(&services.b).expired().sign(), ACCESS_TOKEN),
        (
            "forged",
            actor(&services.b).with_another_key().sign(),
            ACCESS_TOKEN,
        ),
        ("no type", actor(&services.b).sign(), ""),
        ("another type", actor(&services.b).sign(), JWT),
        ("no token", String::new(), ACCESS_TOKEN),
    ] {
        assert_refused(&exchange(&token, kind).await, 400, "invalid_request", what);
    }
    // RFC 8693 §4.4
    let may_act = |value: Value| services.mint().claim("may_act", value).sign();
    let of_b = may_act(json!({ "sub": services.b.client_id() }));
    let claims = issued(services.exchange(&of_b, &[]).await);
    assert_eq!(claims["may_act"], Value::Null, "it is spent");
    for other in [
        json!({ "sub": "robot-8" }),
        json!({}),
        json!("x"),
        json!([]),
    ] {
        let refused = services.exchange(&may_act(other.clone()), &[]).await;
        assert_refused(&refused, 400, "invalid_request", &other.to_string());
    }
}

#[tokio::test]
async fn each_invalid_subject_token_is_an_invalid_request() {
    let services = Services::new();
    let b = &services.b;
    let server = &services.fixture.server;
    let foreign = AuthorizationServer::builder()
        .algorithm(Algorithm::Es256)
        .clock(services.fixture.clock.clone())
        .build()
        .unwrap();
    let stranger = foreign.register("shop").unwrap();
    let deleted = server.register("deleted").unwrap();
    let of_deleted = server.mint(&deleted).audience([b.client_id()]).sign();
    delete(&services.fixture, &deleted).await;
    let signer = Signer::new(Algorithm::Es256).with("kid", "b-1");
    b.set_jwks(signer.jwks()).unwrap();
    let id = b.client_id();
    let assertion = with(&with(&services.fixture.claims(), "iss", id), "sub", id);
    let good = services.mint().sign();
    let (input, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = input.split_once('.').unwrap();
    let other_payload = services.mint().claim("sub", b.client_id()).sign();
    let other_payload = other_payload.split('.').nth(1).unwrap();
    for (what, token) in [
        ("no token", "x".to_owned()),
        ("expired", services.mint().expired().sign()),
        (
            "not yet valid",
            services.mint().claim("nbf", NOW + 1).sign(),
        ),
        ("tampered", services.mint().tampered().sign()),
        (
            "another payload",
            format!("{header}.{other_payload}.{signature}"),
        ),
        ("forged", services.mint().with_another_key().sign()),
        (
            "an unknown key",
            services.mint().with_unknown_key(Algorithm::Es256).sign(),
        ),
        ("no kid", services.mint().without_header("kid").sign()),
        ("unsigned", services.mint().unsigned().sign()),
        ("HS256", services.mint().hs256_with_public_key().sign()),
        (
            "of another server",
            foreign.mint(&stranger).audience([id]).sign(),
        ),
        (
            "another issuer",
            services.mint().claim("iss", "https://other.example").sign(),
        ),
        ("no exp", services.mint().without("exp").sign()),
        ("no sub", services.mint().without("sub").sign()),
        (
            "exp is a string",
            services.mint().claim("exp", "soon").sign(),
        ),
        (
            "a DPoP proof",
            services.mint().header("typ", "dpop+jwt").sign(),
        ),
        (
            "an ID token",
            services.mint().header("typ", "id+jwt").sign(),
        ),
        (
            "crit",
            services.mint().header("crit", json!(["exp"])).sign(),
        ),
        (
            "bound to a key",
            services.mint().claim("cnf", json!({ "jkt": "x" })).sign(),
        ),
        ("act is a string", services.mint().claim("act", "x").sign()),
        (
            "an assertion of the client",
            signer.sign(&json!({}), &assertion),
        ),
        ("a client that is deleted", of_deleted),
        (
            "a client that is unknown",
            services.mint().claim("client_id", "x").sign(),
        ),
        (
            "for another audience",
            services.mint().audience(["stock"]).sign(),
        ),
        (
            "an audience that starts so",
            services.mint().audience([&id[..id.len() - 1]]).sign(),
        ),
        ("no audience", services.mint().without("aud").sign()),
        (
            "an empty audience",
            services.mint().claim("aud", json!([])).sign(),
        ),
        (
            "more than 16 KiB",
            services.mint().claim("x", "x".repeat(16 * 1024)).sign(),
        ),
    ] {
        assert_refused(
            &services.exchange(&token, &[]).await,
            400,
            "invalid_request",
            what,
        );
    }
    issued(services.exchange(&good, &[]).await);
    // Withdrawn, as after a compromise.
    let kid = server.keys()[0].kid().to_owned();
    server.withdraw(&kid).unwrap();
    assert_refused(
        &services.exchange(&good, &[]).await,
        400,
        "invalid_request",
        "withdrawn key",
    );
}

/// Deletes an application through the management API.
async fn delete(fixture: &Fixture, application: &RegisteredApplication) {
    let token = fixture.server.management_token().expose_secret().to_owned();
    let url = format!(
        "{}/applications/{}",
        fixture.server.management_url(),
        application.client_id()
    );
    let request = http::Request::delete(url)
        .header(http::header::AUTHORIZATION, format!("Bearer {token}"))
        .body(bytes::Bytes::new());
    let response = fixture.send(request.unwrap()).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn each_invalid_parameter_of_an_exchange_has_its_error() {
    let services = Services::new();
    let subject = services.mint().sign();
    for (more, error) in [
        (&[("subject_token", "")][..], "invalid_request"),
        (&[("subject_token_type", "")], "invalid_request"),
        (&[("subject_token_type", JWT)], "invalid_request"),
        (&[("requested_token_type", JWT)], "invalid_request"),
        (
            &[(
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:refresh_token",
            )],
            "invalid_request",
        ),
        (&[("resource", "stock")], "invalid_target"),
        (
            &[("resource", "https://stock.example/#x")],
            "invalid_target",
        ),
        (&[("scope", "stock.read bills.read")], "invalid_scope"),
        (&[("scope", "stock")], "invalid_scope"),
        (&[("scope", " ")], "invalid_scope"),
        (&[("client_id", "another")], "invalid_request"),
    ] {
        let answer = services.exchange(&subject, more).await;
        assert_refused(&answer, 400, error, &format!("{more:?}"));
    }
    let targets = [
        ("requested_token_type", ACCESS_TOKEN),
        ("audience", "stock"),
        ("audience", "bills"),
        ("resource", "https://stock.example/"),
    ];
    let claims = issued(services.exchange(&subject, &targets).await);
    assert_eq!(
        claims["aud"],
        json!(["stock", "bills", "https://stock.example/"])
    );
    // Other grants have one `audience`.
    let twice = [
        ("grant_type", "client_credentials"),
        ("audience", "a"),
        ("audience", "b"),
    ];
    let refused = services.fixture.token_as(&services.b, &twice).await;
    assert_refused(&refused, 400, "invalid_request", "a parameter is repeated");
    // An exchange needs a client.
    let form = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", subject.as_str()),
        ("subject_token_type", ACCESS_TOKEN),
    ];
    let refused = answer(&services.fixture.post("token", &form).await);
    assert_refused(&refused, 401, "invalid_client", "no client");
}

#[tokio::test]
async fn an_exchanged_token_has_no_more_scopes_than_its_subject_token() {
    let services = Services::new();
    services.b.set_scopes(["stock.delete"]).unwrap();
    services.b.set_claim("scope", "stock.delete").unwrap();
    services.b.set_claim("scp", "stock.delete").unwrap();
    services.b.set_claim("roles", ["admin"]).unwrap();
    services.b.set_claim("sub", "root").unwrap();
    services.b.set_claim("exp", NOW + 100_000).unwrap();
    let subject = services.mint().sign();
    let more = [("scope", "stock.delete")];
    assert_refused(
        &services.exchange(&subject, &more).await,
        400,
        "invalid_scope",
        "B's scope",
    );
    let claims = issued(services.exchange(&subject, &[]).await);
    assert_eq!(claims["scope"], "stock.read stock.write");
    for (name, value) in [
        ("sub", json!(services.a().client_id())),
        ("exp", json!(NOW + 3600)),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
    for name in ["scp", "roles"] {
        assert_eq!(claims[name], Value::Null, "{name}");
    }
    let without = services
        .mint()
        .without("scope")
        .claim("scp", "stock.read")
        .sign();
    let (_, body) = services.exchange(&without, &[]).await;
    assert_eq!(body.get("scope"), None);
    let claims = decode(body["access_token"].as_str().unwrap()).1;
    assert_eq!((claims.get("scope"), claims.get("scp")), (None, None));
}

#[tokio::test]
async fn an_exchanged_token_expires_with_its_subject_token() {
    let services = Services::new();
    let subject = services.mint().expires_in(Duration::from_secs(90)).sign();
    services.fixture.clock.advance(Duration::from_secs(60));
    let (_, body) = services.exchange(&subject, &[]).await;
    assert_eq!(body["expires_in"], 30);
    let token = body["access_token"].as_str().unwrap().to_owned();
    assert_eq!(decode(&token).1["exp"], NOW + 90);
    // An exchange of it lasts no longer.
    let (_, body) = services.exchange(&token, &[]).await;
    assert_eq!(body["expires_in"], 30);
    services.fixture.clock.advance(Duration::from_secs(30));
    for (what, token) in [
        ("the subject token", &subject),
        ("the exchanged token", &token),
    ] {
        assert_refused(
            &services.exchange(token, &[]).await,
            400,
            "invalid_request",
            what,
        );
    }
}

/// Chains of any length would grow without bound.
#[tokio::test]
async fn a_chain_of_actors_ends_at_the_depth_limit() {
    let services = Services::new();
    let mut token = services.mint().sign();
    for depth in 0..100 {
        let (status, body) = services.exchange(&token, &[]).await;
        if status != StatusCode::OK {
            assert_refused(&(status, body), 400, "invalid_request", "too deep");
            assert!(depth > 10, "{depth}");
            return;
        }
        token = body["access_token"].as_str().unwrap().to_owned();
    }
    panic!("the chain has no end");
}

/// The token that a `TokenManager` gets is one that can be exchanged.
#[tokio::test]
async fn a_token_of_a_token_manager_is_exchanged() {
    let services = Services::new();
    let server = &services.fixture.server;
    let tokens = TokenManager::for_issuer(server.issuer(), services.a().credentials())
        .unwrap()
        .audience(tower_oauth::Audience::new(services.b.client_id()).unwrap())
        .transport(server.transport())
        .clock(services.fixture.clock.clone())
        .start()
        .unwrap();
    let token = tokens.access_token().await.unwrap();
    let claims = issued(services.exchange(token.expose_secret(), &[]).await);
    assert_eq!(claims["sub"], services.a().client_id());
}
