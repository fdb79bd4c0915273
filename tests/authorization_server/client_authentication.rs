//! Clients that authenticate with assertions (RFC 7523): what is accepted, and each defect.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use jsonwebtoken::EncodingKey;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_oauth::authorization_server::{
    AuthorizationServer, EndpointKind, ExpectedAudience, Fault,
};
use tower_oauth::client::{
    AssertionSource, BoxFuture, JwtBearerGrant, NoAuthentication, SigningKey, TokenManagerBuilder,
};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::{BoxError, ClientAssertion, PrivateKeyJwt, TokenManager};

use crate::assertion::{
    ACCESS_TOKEN, CLUSTER, Fixture, JWT_BEARER_ASSERTION, JWT_BEARER_GRANT, NOW, SERVICE_ACCOUNT,
    SPIFFE_ASSERTION, Signer, TOKEN_EXCHANGE, answer, assert_refused, issued, new_id, sign_with,
    with,
};

#[tokio::test]
async fn an_assertion_of_each_algorithm_is_accepted() {
    for &algorithm in Algorithm::ALL {
        let (fixture, signer) = Fixture::with_key(algorithm);
        let assertion = signer.sign(&json!({}), &fixture.claims());
        let claims = issued(fixture.token(&assertion).await);
        assert_eq!(claims["sub"], fixture.shop.client_id(), "{algorithm}");
    }
    // RFC 9864
    let (fixture, signer) = Fixture::with_key(Algorithm::EdDsa);
    let assertion = signer.sign(&json!({ "alg": "Ed25519" }), &fixture.claims());
    issued(fixture.token(&assertion).await);
}

#[tokio::test]
async fn assertions_with_optional_members_and_tolerated_clocks_are_accepted() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let claims = fixture.claims();
    let sign = |header: Value, claims: Value| signer.sign(&header, &with(&claims, "jti", new_id()));
    let issuer = fixture.server.issuer();
    for (what, assertion) in [
        ("typ JWT", sign(json!({ "typ": "JWT" }), claims.clone())),
        (
            "typ of rfc7523bis",
            sign(
                json!({ "typ": "client-authentication+jwt" }),
                claims.clone(),
            ),
        ),
        (
            "the long form of a type",
            sign(
                json!({ "typ": "application/Client-Authentication+JWT" }),
                claims.clone(),
            ),
        ),
        (
            "a thumbprint of a certificate",
            sign(json!({ "x5t#S256": "A4Dt" }), claims.clone()),
        ),
        (
            "aud with a slash",
            sign(json!({}), with(&claims, "aud", format!("{issuer}/"))),
        ),
        ("neither iat nor nbf", {
            sign(
                json!({}),
                with(&with(&claims, "iat", Value::Null), "nbf", Value::Null),
            )
        }),
        (
            "an hour, and the leeway",
            sign(json!({}), with(&claims, "exp", NOW + 3660)),
        ),
        (
            "a clock that is fast",
            sign(json!({}), with(&claims, "iat", NOW + 60)),
        ),
        (
            "a fraction of a second",
            sign(
                json!({}),
                with(&claims, "exp", f64::from(1_800_000_001) + 0.5),
            ),
        ),
        (
            "other claims",
            sign(json!({}), with(&claims, "org", json!({ "id": 7 }))),
        ),
    ] {
        let (status, body) = fixture.token(&assertion).await;
        assert_eq!(status, StatusCode::OK, "{what}: {body}");
    }
    let assertion = sign(json!({}), claims.clone());
    let client_id = [("client_id", fixture.shop.client_id())];
    issued(fixture.token_with(&assertion, &client_id).await);
    // Without `kid`, the only key that fits.
    let rsa = Signer::new(Algorithm::Ps256);
    let keys = json!({ "keys": [signer.jwk(), rsa.jwk()] });
    fixture.shop.set_jwks(keys.to_string()).unwrap();
    issued(
        fixture
            .token(&rsa.sign(&json!({}), &fixture.claims()))
            .await,
    );
    // The secret stays valid.
    issued(
        fixture
            .token_as(&fixture.shop, &[("grant_type", "client_credentials")])
            .await,
    );
}

/// What is wrong with a token endpoint's assertion: 401 `invalid_client` for each.
#[tokio::test]
async fn each_defect_of_an_assertion_is_refused() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let other = fixture.server.register("other").unwrap();
    let claims = fixture.claims();
    let plain = json!({});
    let header = |header: Value| signer.sign(&header, &claims);
    let claim = |name: &str, value: Value| signer.sign(&plain, &with(&claims, name, value));
    let stranger = Signer::new(Algorithm::Es256).with("kid", "shop-1");
    let good = signer.sign(&plain, &claims);
    let (input, signature) = good.rsplit_once('.').unwrap();
    let (head, payload) = input.split_once('.').unwrap();
    let issuer = fixture.server.issuer();
    let access_token = fixture
        .server
        .mint(&fixture.shop)
        .audience([issuer.as_str()]);
    let with_public_key = |text: &str| {
        let header = json!({ "alg": "HS256", "kid": "shop-1" }).to_string();
        let input = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header));
        let signature = sign_with(
            "HS256",
            &EncodingKey::from_secret(text.as_bytes()).unwrap(),
            input.as_bytes(),
        );
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let x = signer.jwk()["x"].as_str().unwrap().to_owned();
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[3] ^= 1;
    for (what, assertion) in [
        // Not a JWT.
        ("no JWT", "x".to_owned()),
        ("two segments", input.to_owned()),
        ("four segments", format!("{good}.x")),
        ("no signature", format!("{input}.")),
        ("padding", format!("{good}=")),
        ("a line break", format!("{good}\n")),
        (
            "JSON serialization",
            json!({ "payload": payload, "signature": signature }).to_string(),
        ),
        (
            "more than 16 KiB",
            claim("padding", json!("x".repeat(16 * 1024))),
        ),
        ("no object", format!("{head}.{}.{signature}", encoded("[]"))),
        (
            "a duplicate claim",
            signer.sign_text(&json!({ "alg": "ES256" }).to_string(), &{
                let text = claims.to_string();
                format!("{{\"sub\":\"x\",{}", &text[1..])
            }),
        ),
        (
            "a duplicate header parameter",
            signer.sign_text(r#"{"alg":"ES256","alg":"ES256"}"#, &claims.to_string()),
        ),
        // Algorithms.
        (
            "alg none",
            format!("{}.{payload}.", encoded(r#"{"alg":"none"}"#)),
        ),
        (
            "alg none with a signature",
            header(json!({ "alg": "none" })),
        ),
        ("alg nOnE", header(json!({ "alg": "nOnE" }))),
        ("HS256 with the public key", with_public_key(&x)),
        (
            "HS256 with the JWK",
            with_public_key(&signer.jwk().to_string()),
        ),
        (
            "HS256 with the secret",
            with_public_key(fixture.shop.secret().expose_secret()),
        ),
        ("alg of another key", header(json!({ "alg": "RS256" }))),
        ("no alg", header(json!({ "alg": null }))),
        // Keys.
        (
            "jwk",
            stranger.sign(&json!({ "jwk": stranger.jwk() }), &claims),
        ),
        ("the right jwk", header(json!({ "jwk": signer.jwk() }))),
        (
            "jku",
            header(json!({ "jku": format!("{issuer}/publickeys") })),
        ),
        ("x5u", header(json!({ "x5u": "https://evil.example/x5u" }))),
        ("an unknown kid", header(json!({ "kid": "shop-2" }))),
        ("a kid that is a number", header(json!({ "kid": 1 }))),
        ("another key under the kid", stranger.sign(&plain, &claims)),
        (
            "a changed signature",
            format!("{input}.{}", URL_SAFE_NO_PAD.encode(flipped)),
        ),
        ("a changed payload", {
            let changed = with(&claims, "sub", other.client_id()).to_string();
            format!("{head}.{}.{signature}", encoded(&changed))
        }),
        // Another kind of JWT.
        (
            "an access token of the key",
            header(json!({ "typ": "at+jwt" })),
        ),
        ("a DPoP proof", header(json!({ "typ": "dpop+jwt" }))),
        ("a logout token", header(json!({ "typ": "logout+jwt" }))),
        ("a security event", header(json!({ "typ": "secevent+jwt" }))),
        (
            "an introspection response",
            header(json!({ "typ": "token-introspection+jwt" })),
        ),
        (
            "a request object",
            header(json!({ "typ": "oauth-authz-req+jwt" })),
        ),
        ("an empty type", header(json!({ "typ": "" }))),
        ("crit", header(json!({ "crit": ["exp"] }))),
        ("b64", header(json!({ "b64": false, "crit": ["b64"] }))),
        ("cty", header(json!({ "cty": "JWT" }))),
        ("an access token of the server", access_token.sign()),
        // `iss` and `sub`.
        ("an unknown client", {
            let unknown = json!("8d9c1f3e-0000-4000-8000-000000000000");
            let claims = with(&with(&claims, "iss", unknown.clone()), "sub", unknown);
            signer.sign(&plain, &claims)
        }),
        ("a client without keys", {
            let id = other.client_id();
            signer.sign(&plain, &with(&with(&claims, "iss", id), "sub", id))
        }),
        ("another iss", claim("iss", json!("https://evil.example"))),
        ("iss is the server", claim("iss", json!(issuer.as_str()))),
        ("another sub", claim("sub", json!(other.client_id()))),
        ("no iss", claim("iss", Value::Null)),
        ("no sub", claim("sub", Value::Null)),
        ("a sub that is a number", claim("sub", json!(7))),
        // `aud`.
        (
            "aud of another server",
            claim("aud", json!("https://other.example")),
        ),
        (
            "an array with another",
            claim("aud", json!([issuer.as_str(), "https://other.example"])),
        ),
        ("an array of one", claim("aud", json!([issuer.as_str()]))),
        ("an empty array", claim("aud", json!([]))),
        ("no aud", claim("aud", Value::Null)),
        (
            "the token endpoint",
            claim("aud", json!(fixture.server.token_endpoint().as_str())),
        ),
        ("two slashes", claim("aud", json!(format!("{issuer}//")))),
        (
            "upper case",
            claim("aud", json!(issuer.as_str().to_uppercase())),
        ),
        (
            "a prefix",
            claim("aud", json!(&issuer.as_str()[..issuer.as_str().len() - 1])),
        ),
        ("the client", claim("aud", json!(fixture.shop.client_id()))),
        // Times.
        ("no exp", claim("exp", Value::Null)),
        ("expires now", claim("exp", json!(NOW))),
        ("expired", claim("exp", json!(NOW - 1))),
        ("more than an hour", claim("exp", json!(NOW + 3661))),
        ("ten years", claim("exp", json!(NOW + 10 * 365 * 86_400))),
        ("exp is a string", claim("exp", json!("1800000060"))),
        (
            "exp is huge",
            signer.sign_text(
                r#"{"alg":"ES256","kid":"shop-1"}"#,
                &claims.to_string().replace(&(NOW + 60).to_string(), "1e400"),
            ),
        ),
        ("nbf in the future", claim("nbf", json!(NOW + 61))),
        ("iat in the future", claim("iat", json!(NOW + 61))),
        // `jti`.
        ("no jti", claim("jti", Value::Null)),
        ("an empty jti", claim("jti", json!(""))),
        ("a jti that is a number", claim("jti", json!(7))),
    ] {
        assert_refused(
            &fixture.token(&assertion).await,
            401,
            "invalid_client",
            what,
        );
    }
    // None of them used up the `jti`, and nothing was fetched.
    issued(fixture.token(&good).await);
    assert_eq!(fixture.server.requests(EndpointKind::Keys), 0);
}

#[tokio::test]
async fn an_unknown_client_gets_the_response_of_a_bad_signature() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let without_keys = fixture.server.register("other").unwrap();
    let stranger = Signer::new(Algorithm::Es256).with("kid", "shop-1");
    let of = |id: &str| with(&with(&fixture.claims(), "iss", id), "sub", id);
    let respond = async |assertion: String| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", &assertion),
        ];
        let response = fixture.post("token", &form).await;
        let challenge = response.headers()[header::WWW_AUTHENTICATE].clone();
        (response.status(), challenge, response.into_body())
    };
    let plain = json!({});
    let bad_signature = respond(stranger.sign(&plain, &fixture.claims())).await;
    assert_eq!(bad_signature.0, StatusCode::UNAUTHORIZED);
    for (what, assertion) in [
        ("unknown client", stranger.sign(&plain, &of("unknown"))),
        (
            "client without keys",
            stranger.sign(&plain, &of(without_keys.client_id())),
        ),
        (
            "unknown kid",
            signer.sign(&json!({ "kid": "x" }), &fixture.claims()),
        ),
        (
            "no key for alg",
            Signer::new(Algorithm::EdDsa).sign(&plain, &fixture.claims()),
        ),
        (
            "unknown issuer",
            stranger.sign(&plain, &with(&fixture.claims(), "iss", "https://x")),
        ),
        // Its claims are wrong as well, which only the holder of the key learns.
        (
            "expired",
            stranger.sign(&plain, &with(&fixture.claims(), "exp", 1)),
        ),
    ] {
        assert_eq!(respond(assertion).await, bad_signature, "{what}");
    }
    let expired = signer.sign(&plain, &with(&fixture.claims(), "exp", 1));
    let (_, body) = fixture.token(&expired).await;
    assert_eq!(body["error_description"], "the assertion has expired");
}

#[tokio::test]
async fn two_methods_at_once_are_an_invalid_request() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let other = fixture.server.register("other").unwrap();
    let assertion = signer.sign(&json!({}), &fixture.claims());
    let secret = fixture.shop.secret().expose_secret();
    let basic = format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{secret}", fixture.shop.client_id()))
    );
    let with_assertion = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", assertion.as_str()),
    ];
    let send = async |form: &[(&str, &str)], fields: &[&str]| {
        let mut request = fixture.request("token", form);
        for field in fields {
            request
                .headers_mut()
                .append(header::AUTHORIZATION, field.parse().unwrap());
        }
        answer(&fixture.send(request).await)
    };
    let secret_too = [&with_assertion[..], &[("client_secret", secret)]].concat();
    for (what, form, fields) in [
        (
            "Basic and assertion",
            &with_assertion[..],
            &[basic.as_str()][..],
        ),
        (
            "another scheme and assertion",
            &with_assertion,
            &["Bearer x"],
        ),
        ("secret and assertion", &secret_too, &[]),
        ("all three", &secret_too, &[&basic]),
        ("two fields", &with_assertion[..1], &[&basic, &basic]),
        ("no type", &[with_assertion[0], with_assertion[2]], &[]),
        ("no assertion", &with_assertion[..2], &[]),
    ] {
        assert_refused(&send(form, fields).await, 400, "invalid_request", what);
    }
    let form = [&with_assertion[..], &[("client_id", other.client_id())]].concat();
    assert_refused(
        &send(&form, &[]).await,
        400,
        "invalid_request",
        "another client_id",
    );
    let unknown_type = [(
        "client_assertion_type",
        "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
    )];
    let assertion = signer.sign(&json!({}), &fixture.claims());
    let refused = fixture.token_with(&assertion, &unknown_type).await;
    assert_refused(&refused, 401, "invalid_client", "another type");
}

#[tokio::test]
async fn an_assertion_is_used_once_until_it_expires() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let claims = with(&fixture.claims(), "exp", NOW + 30);
    let first = signer.sign(&json!({}), &claims);
    issued(fixture.token(&first).await);
    let refused =
        |answer: &(StatusCode, Value)| assert_refused(answer, 401, "invalid_client", "used before");
    refused(&fixture.token(&first).await);
    // The same `jti` in another assertion, which expires later.
    let later = signer.sign(&json!({}), &with(&claims, "exp", NOW + 600));
    refused(&fixture.token(&later).await);
    // As a grant, too.
    let grant = [
        ("grant_type", JWT_BEARER_GRANT),
        ("assertion", first.as_str()),
    ];
    let (status, body) = answer(&fixture.post("token", &grant).await);
    assert_refused(&(status, body), 400, "invalid_grant", "used as a grant");
    // Another client has `jti`s that are independent.
    let other = fixture.server.register("other").unwrap();
    other.set_jwks(signer.jwks()).unwrap();
    let id = other.client_id();
    let same_id = with(&with(&claims, "iss", id), "sub", id);
    issued(fixture.token(&signer.sign(&json!({}), &same_id)).await);
    // The server forgets a `jti` when its assertion has expired.
    fixture.clock.advance(Duration::from_secs(30));
    issued(fixture.token(&later).await);
    refused(&fixture.token(&later).await);
}

#[tokio::test]
async fn an_assertion_can_be_used_once_more_after_a_restart_of_the_server() {
    let folder = TempDir::new().unwrap();
    let (clock, path) = (
        ManualClock::at(UnixTime::from_secs(NOW)),
        folder.path().join("state.json"),
    );
    let start = || {
        let server = AuthorizationServer::builder()
            .algorithm(Algorithm::Es256)
            .clock(clock.clone())
            .state_file(&path)
            .build()
            .unwrap();
        let shop = match server.applications().into_iter().next() {
            Some(shop) => shop,
            None => server.register("shop").unwrap(),
        };
        let clock = clock.clone();
        Fixture {
            clock,
            server,
            shop,
        }
    };
    let signer = Signer::new(Algorithm::Es256).with("kid", "shop-1");
    let first = start();
    first.shop.set_jwks(signer.jwks()).unwrap();
    let assertion = signer.sign(&json!({}), &first.claims());
    issued(first.token(&assertion).await);
    let used_before = first.token(&assertion).await;
    assert_refused(&used_before, 401, "invalid_client", "before the restart");
    drop(first);

    let second = start();
    issued(second.token(&assertion).await);
    let used_before = second.token(&assertion).await;
    assert_refused(&used_before, 401, "invalid_client", "after the restart");
    // It expires as before.
    clock.advance(Duration::from_secs(60 + 60));
    let expired = start().token(&assertion).await;
    assert_refused(&expired, 401, "invalid_client", "expired");
}

/// A client cannot make the server forget a `jti`, or remember without bound.
#[tokio::test]
async fn ten_thousand_assertions_of_a_client_are_remembered_and_no_more_accepted() {
    let (fixture, signer) = Fixture::with_key(Algorithm::EdDsa);
    let claims = with(&fixture.claims(), "exp", NOW + 3600);
    let nth = |n: usize| signer.sign(&json!({}), &with(&claims, "jti", format!("id-{n}")));
    for n in 0..10_000 {
        let (status, body) = fixture.token(&nth(n)).await;
        assert_eq!(status, StatusCode::OK, "{n}: {body}");
    }
    let form = |assertion: &str| {
        fixture.request(
            "token",
            &[
                ("grant_type", "client_credentials"),
                ("client_assertion_type", JWT_BEARER_ASSERTION),
                ("client_assertion", assertion),
            ],
        )
    };
    let response = fixture.send(form(&nth(10_000))).await;
    assert_refused(
        &answer(&response),
        503,
        "temporarily_unavailable",
        "one more",
    );
    assert_eq!(response.headers()[header::RETRY_AFTER], "30");
    assert_refused(
        &fixture.token(&nth(0)).await,
        401,
        "invalid_client",
        "the first",
    );
    // Other clients are not affected, and after the hour nor is this one.
    let other = fixture.server.register("other").unwrap();
    other.set_jwks(signer.jwks()).unwrap();
    let id = other.client_id();
    let of_other = with(&with(&fixture.claims(), "iss", id), "sub", id);
    issued(fixture.token(&signer.sign(&json!({}), &of_other)).await);
    fixture.clock.advance(Duration::from_secs(3600));
    let claims = with(&fixture.claims(), "exp", NOW + 3660);
    issued(fixture.token(&signer.sign(&json!({}), &claims)).await);
}

#[tokio::test]
async fn the_audience_is_the_token_endpoint_if_the_application_is_set_so() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    fixture
        .shop
        .set_assertion_audience(ExpectedAudience::TokenEndpoint)
        .unwrap();
    let endpoint = fixture.server.token_endpoint();
    for (audience, is_accepted) in [
        (json!(endpoint.as_str()), true),
        (json!(format!("{endpoint}/")), false),
        (json!([endpoint.as_str()]), false),
        (json!(fixture.server.issuer().as_str()), false),
        (json!(endpoint.as_str().replace("/v4/", "/v3/")), false),
    ] {
        let claims = with(&fixture.claims(), "aud", audience.clone());
        let answer = fixture.token(&signer.sign(&json!({}), &claims)).await;
        match is_accepted {
            true => drop(issued(answer)),
            false => assert_refused(&answer, 401, "invalid_client", &audience.to_string()),
        }
    }
}

#[tokio::test]
async fn the_token_of_a_trusted_issuer_authenticates_the_application_again_and_again() {
    let fixture = Fixture::new();
    let cluster = Signer::new(Algorithm::Ps256).with("kid", "cluster-1");
    let credential = (CLUSTER, SERVICE_ACCOUNT);
    fixture
        .shop
        .add_federated_credential(credential.0, credential.1, cluster.jwks())
        .unwrap();
    // Kubernetes has an array of one.
    let claims = json!({
        "iss": CLUSTER,
        "sub": SERVICE_ACCOUNT,
        "aud": [fixture.server.issuer().as_str()],
        "exp": NOW + 24 * 3600,
        "iat": NOW,
        "nbf": NOW,
        "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "default" } },
    });
    let token = cluster.sign(&json!({}), &claims);
    for _use in 0..2 {
        let issued = issued(fixture.token(&token).await);
        assert_eq!(issued["sub"], fixture.shop.client_id());
    }
    let client_id = [("client_id", fixture.shop.client_id())];
    issued(fixture.token_with(&token, &client_id).await);
    let string = with(&claims, "aud", fixture.server.issuer().as_str());
    issued(fixture.token(&cluster.sign(&json!({}), &string)).await);

    let stranger = Signer::new(Algorithm::Ps256).with("kid", "cluster-2");
    let other = fixture.server.register("other").unwrap();
    let another_key = Signer::new(Algorithm::Es256).with("kid", "other");
    other.set_jwks(another_key.jwks()).unwrap();
    let two = json!([fixture.server.issuer().as_str(), "https://other.example"]);
    for (what, token) in [
        (
            "another subject",
            cluster.sign(
                &json!({}),
                &with(&claims, "sub", "system:serviceaccount:shop:x"),
            ),
        ),
        (
            "a prefix",
            cluster.sign(
                &json!({}),
                &with(&claims, "sub", "system:serviceaccount:shop:defaul"),
            ),
        ),
        (
            "another issuer",
            cluster.sign(&json!({}), &with(&claims, "iss", format!("{CLUSTER}/"))),
        ),
        ("another kid", stranger.sign(&json!({}), &claims)),
        ("the key of a client", another_key.sign(&json!({}), &claims)),
        ("the issuer's key for a client", {
            let id = other.client_id();
            cluster.sign(&json!({}), &with(&with(&claims, "iss", id), "sub", id))
        }),
        ("the issuer's key for the id of its application", {
            let id = fixture.shop.client_id();
            cluster.sign(&json!({}), &with(&with(&claims, "iss", id), "sub", id))
        }),
        (
            "two audiences",
            cluster.sign(&json!({}), &with(&claims, "aud", two)),
        ),
        (
            "no audience",
            cluster.sign(&json!({}), &with(&claims, "aud", json!([]))),
        ),
        (
            "more than a day",
            cluster.sign(&json!({}), &with(&claims, "exp", NOW + 24 * 3600 + 61)),
        ),
        (
            "expired",
            cluster.sign(&json!({}), &with(&claims, "exp", NOW)),
        ),
        (
            "a logout token",
            cluster.sign(&json!({ "typ": "logout+jwt" }), &claims),
        ),
    ] {
        assert_refused(&fixture.token(&token).await, 401, "invalid_client", what);
    }
    let spiffe = [("client_assertion_type", SPIFFE_ASSERTION)];
    let refused = fixture.token_with(&token, &spiffe).await;
    assert_refused(&refused, 401, "invalid_client", "no SPIFFE ID");
}

/// An access token is for a resource server, which could send it here.
#[tokio::test]
async fn an_access_token_of_the_server_is_no_assertion_even_if_its_keys_are_registered() {
    let fixture = Fixture::new();
    let b = fixture.server.register("orders").unwrap();
    let keys = fixture.server.jwks();
    let issuer = fixture.server.issuer();
    b.set_jwks(keys.clone()).unwrap();
    b.add_federated_credential(issuer.as_str(), fixture.shop.client_id(), keys)
        .unwrap();
    let token = fixture
        .server
        .mint(&fixture.shop)
        .audience([issuer.as_str()]);
    let refused = fixture.token(&token.sign()).await;
    assert_refused(&refused, 401, "invalid_client", "an access token");
    // The same token of another issuer is accepted: it is refused for its issuer alone.
    let keys = fixture.server.jwks();
    b.add_federated_credential("https://other.example", fixture.shop.client_id(), keys)
        .unwrap();
    let token = fixture
        .server
        .mint(&fixture.shop)
        .audience([issuer.as_str()]);
    issued(
        fixture
            .token(&token.claim("iss", "https://other.example").sign())
            .await,
    );
}

/// Both ends of the crate.
#[tokio::test]
async fn the_client_of_this_crate_is_accepted_with_each_method() {
    let (fixture, cluster) = (Fixture::new(), Signer::new(Algorithm::Es256));
    let start = |manager: TokenManagerBuilder| {
        manager
            .transport(fixture.server.transport())
            .clock(fixture.clock.clone())
            .start()
            .unwrap()
    };
    let issuer = fixture.server.issuer();
    let id = fixture.shop.client_id();
    for &algorithm in Algorithm::ALL {
        let signer = Signer::new(algorithm).with("kid", "shop-1");
        fixture.shop.set_jwks(signer.jwks()).unwrap();
        let key = SigningKey::from_pem(signer.pem(), algorithm).unwrap();
        let client = PrivateKeyJwt::new(id, key.key_id("shop-1"));
        let manager = TokenManager::for_issuer(issuer.clone(), client).unwrap();
        let tokens = start(manager);
        tokens.access_token().await.unwrap();
    }
    fixture
        .shop
        .add_federated_credential(CLUSTER, SERVICE_ACCOUNT, cluster.jwks())
        .unwrap();
    let claims = with(
        &with(&fixture.claims(), "iss", CLUSTER),
        "sub",
        SERVICE_ACCOUNT,
    );
    let token = Mounted(cluster.sign(&json!({}), &claims).into());
    let client = ClientAssertion::new(token.clone());
    let manager = TokenManager::for_issuer(issuer.clone(), client).unwrap();
    start(manager).access_token().await.unwrap();
    let manager = TokenManager::for_issuer(issuer, NoAuthentication).unwrap();
    let manager = manager.grant(JwtBearerGrant::new(token));
    start(manager).access_token().await.unwrap();
}

/// A token that a platform issued.
#[derive(Clone, Debug)]
struct Mounted(SecretString);

impl AssertionSource for Mounted {
    fn assertion<'a>(
        &'a self,
        _audience: &'a str,
    ) -> BoxFuture<'a, Result<SecretString, BoxError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// draft-ietf-oauth-spiffe-client-auth
#[tokio::test]
async fn a_jwt_svid_authenticates_the_application_of_its_spiffe_id() {
    const ID: &str = "spiffe://shop.example/orders";
    let fixture = Fixture::new();
    let domain = Signer::new(Algorithm::Es256).with("kid", "td-1");
    fixture
        .shop
        .add_federated_credential("spiffe://shop.example", ID, domain.jwks())
        .unwrap();
    let claims = json!({
        "sub": ID,
        "aud": [fixture.server.issuer().as_str()],
        "exp": NOW + 300,
        "iat": NOW,
    });
    let svid = domain.sign(&json!({ "typ": "JWT" }), &claims);
    let spiffe = [("client_assertion_type", SPIFFE_ASSERTION)];
    for _use in 0..2 {
        let issued = issued(fixture.token_with(&svid, &spiffe).await);
        assert_eq!(issued["sub"], fixture.shop.client_id());
    }
    // The type of RFC 7523 requires `iss`.
    assert_refused(&fixture.token(&svid).await, 401, "invalid_client", "no iss");
    for (what, claims) in [
        (
            "another workload",
            with(&claims, "sub", "spiffe://shop.example/bills"),
        ),
        (
            "another domain",
            with(&claims, "sub", "spiffe://shop.example.evil/orders"),
        ),
        ("no path", with(&claims, "sub", "spiffe://shop.example")),
        ("no domain", with(&claims, "sub", "spiffe:///orders")),
        (
            "no SPIFFE ID",
            with(&claims, "sub", "https://shop.example/orders"),
        ),
        (
            "another issuer",
            with(&claims, "iss", "https://spire.example"),
        ),
    ] {
        let svid = domain.sign(&json!({}), &claims);
        let refused = fixture.token_with(&svid, &spiffe).await;
        assert_refused(&refused, 401, "invalid_client", what);
    }
    // SPIRE with an issuer.
    fixture
        .shop
        .add_federated_credential("https://spire.example", ID, domain.jwks())
        .unwrap();
    let svid = domain.sign(&json!({}), &with(&claims, "iss", "https://spire.example"));
    issued(fixture.token_with(&svid, &spiffe).await);
    issued(fixture.token(&svid).await);
    // The key of a client is none of a trust domain.
    fixture.shop.set_jwks(domain.jwks()).unwrap();
    let assertion = domain.sign(&json!({}), &fixture.claims());
    let refused = fixture.token_with(&assertion, &spiffe).await;
    assert_refused(
        &refused,
        401,
        "invalid_client",
        "a client's assertion as a JWT-SVID",
    );
}

#[tokio::test]
async fn the_introspection_endpoint_accepts_assertions_by_the_same_rules() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let token = fixture.server.mint(&fixture.shop).sign();
    let introspect = async |assertion: &str| {
        let form = [
            ("token", token.as_str()),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", assertion),
        ];
        answer(&fixture.post("introspect", &form).await)
    };
    let assertion = signer.sign(&json!({}), &fixture.claims());
    let (status, body) = introspect(&assertion).await;
    assert_eq!(
        (status, &body["active"]),
        (StatusCode::OK, &json!(true)),
        "{body}"
    );
    assert_refused(
        &introspect(&assertion).await,
        401,
        "invalid_client",
        "used before",
    );
    assert_refused(
        &fixture.token(&assertion).await,
        401,
        "invalid_client",
        "used before",
    );
    let url = with(
        &fixture.claims(),
        "aud",
        format!("{}/introspect", fixture.server.issuer()),
    );
    let refused = introspect(&signer.sign(&json!({}), &url)).await;
    assert_refused(&refused, 401, "invalid_client", "the endpoint");
}

/// RFC 7523 §2.1 and §3.1
#[tokio::test]
async fn the_jwt_bearer_grant_takes_an_assertion_in_place_of_credentials() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let (shop, other) = (&fixture.shop, fixture.server.register("other").unwrap());
    shop.set_scopes(["orders.read", "orders.write"]).unwrap();
    let new = |change: &dyn Fn(Value) -> Value| signer.sign(&json!({}), &change(fixture.claims()));
    let same = |claims: Value| claims;
    let send = async |assertion: &str, more: &[(&str, &str)]| {
        let mut form = vec![("grant_type", JWT_BEARER_GRANT), ("assertion", assertion)];
        form.extend(more);
        answer(&fixture.post("token", &form).await)
    };
    let more = [
        ("scope", "orders.read"),
        ("resource", "https://orders.example/"),
    ];
    let token = issued(send(&new(&same), &more).await);
    assert_eq!(token["sub"], shop.client_id());
    assert_eq!(token["scope"], "orders.read");
    assert_eq!(token["aud"], json!(["https://orders.example/"]));
    // With client authentication of the same client, by each method.
    let secret = shop.secret().expose_secret();
    let post = [("client_id", shop.client_id()), ("client_secret", secret)];
    issued(send(&new(&same), &post).await);
    let assertion = new(&same);
    let with_assertion = [
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", assertion.as_str()),
    ];
    issued(send(&new(&same), &with_assertion).await);

    let used = new(&same);
    issued(send(&used, &[]).await);
    let typed = |typ: &str| signer.sign(&json!({ "typ": typ }), &fixture.claims());
    let stranger = Signer::new(Algorithm::Es256).with("kid", "shop-1");
    let array = json!([fixture.server.issuer().as_str()]);
    for (what, assertion) in [
        ("used before", used),
        ("no JWT", "x".to_owned()),
        ("another key", stranger.sign(&json!({}), &fixture.claims())),
        ("expired", new(&|claims| with(&claims, "exp", NOW))),
        (
            "another audience",
            new(&|claims| with(&claims, "aud", "https://other.example")),
        ),
        (
            "an array",
            new(&|claims| with(&claims, "aud", array.clone())),
        ),
        ("no jti", new(&|claims| with(&claims, "jti", Value::Null))),
        (
            "an unknown client",
            new(&|claims| with(&claims, "sub", "alice")),
        ),
        (
            "for client authentication",
            typed("client-authentication+jwt"),
        ),
        ("an access token", typed("at+jwt")),
        (
            "an access token of the server",
            fixture.server.mint(shop).sign(),
        ),
        (
            "jwk",
            signer.sign(&json!({ "jwk": signer.jwk() }), &fixture.claims()),
        ),
    ] {
        assert_refused(&send(&assertion, &[]).await, 400, "invalid_grant", what);
    }
    let id = [("client_id", other.client_id())];
    assert_refused(
        &send(&new(&same), &id).await,
        400,
        "invalid_grant",
        "another client_id",
    );
    let secret = other.secret().expose_secret();
    let post = [("client_id", other.client_id()), ("client_secret", secret)];
    assert_refused(
        &send(&new(&same), &post).await,
        400,
        "invalid_grant",
        "another client",
    );
    let post = [("client_id", shop.client_id()), ("client_secret", "wrong")];
    assert_refused(
        &send(&new(&same), &post).await,
        401,
        "invalid_client",
        "a wrong secret",
    );
    let one = new(&same);
    let twice = [
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", one.as_str()),
    ];
    assert_refused(
        &send(&one, &twice).await,
        400,
        "invalid_grant",
        "one assertion for both",
    );
    let scope = [("scope", "bills.read")];
    assert_refused(
        &send(&new(&same), &scope).await,
        400,
        "invalid_scope",
        "another scope",
    );
    let none = [("grant_type", JWT_BEARER_GRANT)];
    let refused = answer(&fixture.post("token", &none).await);
    assert_refused(&refused, 400, "invalid_request", "no assertion");
}

/// A token file may be sent for each token, as SEP-1933 does.
#[tokio::test]
async fn the_jwt_bearer_grant_takes_the_token_of_a_trusted_issuer_more_than_once() {
    let fixture = Fixture::new();
    let cluster = Signer::new(Algorithm::Es256).with("kid", "cluster-1");
    let jwks = cluster.jwks();
    fixture
        .shop
        .add_federated_credential(CLUSTER, SERVICE_ACCOUNT, jwks)
        .unwrap();
    let claims = with(
        &with(&fixture.claims(), "iss", CLUSTER),
        "sub",
        SERVICE_ACCOUNT,
    );
    let token = cluster.sign(&json!({}), &claims);
    let form = [
        ("grant_type", JWT_BEARER_GRANT),
        ("assertion", token.as_str()),
    ];
    for _use in 0..2 {
        let issued = issued(answer(&fixture.post("token", &form).await));
        assert_eq!(issued["sub"], fixture.shop.client_id());
    }
}

#[tokio::test]
async fn metadata_list_all_methods_and_algorithms_and_each_listed_grant_is_accepted() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let url = format!(
        "{}/.well-known/openid-configuration",
        fixture.server.issuer()
    );
    let response = fixture
        .send(Request::get(url).body(Bytes::new()).unwrap())
        .await;
    let metadata: Value = serde_json::from_slice(response.body()).unwrap();
    for endpoint in ["token", "introspection"] {
        assert_eq!(
            metadata[format!("{endpoint}_endpoint_auth_methods_supported")],
            json!([
                "client_secret_basic",
                "client_secret_post",
                "private_key_jwt"
            ])
        );
        let listed = &metadata[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")];
        let names = Algorithm::ALL.iter().map(|algorithm| algorithm.name());
        let names: Vec<&str> = names.chain(["Ed25519"]).collect();
        assert_eq!(*listed, json!(names));
    }
    for grant in metadata["grant_types_supported"].as_array().unwrap() {
        let grant = grant.as_str().unwrap();
        let mut form = vec![("grant_type", grant)];
        let assertion = signer.sign(&json!({}), &fixture.claims());
        let shop = &fixture.shop;
        let subject = fixture.server.mint(shop).audience([shop.client_id()]);
        let subject = subject.sign();
        form.extend(match grant {
            "client_credentials" => vec![],
            JWT_BEARER_GRANT => vec![("assertion", assertion.as_str())],
            TOKEN_EXCHANGE => vec![
                ("subject_token", subject.as_str()),
                ("subject_token_type", ACCESS_TOKEN),
            ],
            other => panic!("what does {other} need?"),
        });
        let claims = issued(fixture.token_as(shop, &form).await);
        assert_eq!(claims["sub"], shop.client_id(), "{grant}");
    }
    let refused = fixture
        .token_as(&fixture.shop, &[("grant_type", "password")])
        .await;
    assert_refused(&refused, 400, "unsupported_grant_type", "password");
}

#[tokio::test]
async fn a_fault_refuses_valid_assertions_until_it_ends() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    fixture
        .server
        .fail_next(EndpointKind::Token, 1, Fault::InvalidClient);
    let assertion = signer.sign(&json!({}), &fixture.claims());
    assert_refused(
        &fixture.token(&assertion).await,
        401,
        "invalid_client",
        "the fault",
    );
    issued(fixture.token(&assertion).await);
}

#[tokio::test]
async fn a_single_page_application_gets_no_token_by_an_assertion() {
    let fixture = Fixture::new();
    let request = Request::post(format!("{}/applications", fixture.server.management_url()))
        .header(
            header::AUTHORIZATION,
            format!(
                "Bearer {}",
                fixture.server.management_token().expose_secret()
            ),
        )
        .body(r#"{"name":"page","type":"singlepageapp"}"#.into());
    fixture.send(request.unwrap()).await;
    let page = fixture.server.applications().pop().unwrap();
    assert_eq!(page.name(), "page");
    let signer = Signer::new(Algorithm::Es256);
    page.set_jwks(signer.jwks()).unwrap();
    let id = page.client_id();
    let claims = with(&with(&fixture.claims(), "iss", id), "sub", id);
    let refused = fixture.token(&signer.sign(&json!({}), &claims)).await;
    assert_refused(
        &refused,
        400,
        "unauthorized_client",
        "single-page application",
    );
}

#[test]
fn debug_output_contains_no_assertion() {
    let (fixture, signer) = Fixture::with_key(Algorithm::Es256);
    let cluster = signer.jwks();
    fixture
        .shop
        .add_federated_credential(CLUSTER, SERVICE_ACCOUNT, cluster)
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let assertion = signer.sign(
        &json!({}),
        &with(&fixture.claims(), "jti", "recognizable-id"),
    );
    issued(runtime.block_on(fixture.token(&assertion)));
    let shown = format!("{:?} {:?}", fixture.server, fixture.server.applications());
    let signature = assertion.rsplit('.').next().unwrap();
    for secret in [&assertion, signature, "recognizable-id"] {
        assert!(!shown.contains(secret));
    }
}
