//! `PrivateKeyJwt`: what is in an assertion, for whom it is, and what happens when it is refused.

use super::*;

use crate::network::{Network, RESOURCE};
use crate::support::provider::{self, Provider};

#[tokio::test(start_paused = true)]
async fn each_algorithm_signs_an_assertion_that_an_independent_library_verifies() {
    let keys = |algorithm: Algorithm| match algorithm {
        Algorithm::Es256 => &["p256", "p256_sec1"][..],
        Algorithm::Es384 => &["p384"],
        Algorithm::Es512 => &["p521"],
        Algorithm::EdDsa => &["ed25519"],
        _ => &["rsa", "rsa_pkcs1"],
    };
    for &algorithm in Algorithm::ALL {
        for name in keys(algorithm) {
            let endpoint = tokens();
            let key = parse(&pem(name), algorithm).unwrap();
            fetch(at_endpoint(&endpoint, PrivateKeyJwt::new("orders", key)))
                .await
                .unwrap();
            let assertion = assertions(&endpoint).remove(0);
            let (header, _) = decode(&assertion);
            assert_eq!(header["alg"], algorithm.name());
            let public_key = format!("{}_public", name.split('_').next().unwrap());
            assert!(
                verify(&assertion, &public_key, algorithm),
                "{name} {algorithm}"
            );
            let (input, _) = assertion.rsplit_once('.').unwrap();
            let altered = format!("{input}A.{}", assertion.rsplit('.').next().unwrap());
            assert!(!verify(&altered, &public_key, algorithm), "{name}");
        }
    }
}

/// RFC 7523 §2.2, §3; RFC 7521 §4.2
#[tokio::test(start_paused = true)]
async fn a_signed_assertion_has_exactly_these_claims_headers_and_parameters() {
    let endpoint = tokens();
    let client = PrivateKeyJwt::new("orders", ed25519().key_id("2026-11"));
    let builder = at_endpoint(&endpoint, client.clone()).scope(Scope::new("read").unwrap());
    fetch(builder).await.unwrap();
    let form = forms(&endpoint).remove(0);
    let names: Vec<&str> = form.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "client_assertion",
            "client_assertion_type",
            "client_id",
            "grant_type",
            "scope"
        ]
    );
    assert_eq!(form["client_assertion_type"], JWT_BEARER);
    assert_eq!(form["client_id"], "orders");
    let (header, mut claims) = decode(&form["client_assertion"]);
    assert_eq!(
        header,
        json!({ "alg": "EdDSA", "typ": "JWT", "kid": "2026-11" })
    );
    let token_id = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(decoded(token_id.as_str().unwrap()).len(), 16);
    assert_eq!(
        claims,
        json!({
            "iss": "orders",
            "sub": "orders",
            "aud": TOKEN_URL,
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 60,
        })
    );

    // Nothing but the client id depends on these settings.
    let endpoint = tokens();
    let client = client.omit_client_id().lifetime(Duration::from_secs(300));
    fetch(at_endpoint(&endpoint, client)).await.unwrap();
    let form = forms(&endpoint).remove(0);
    assert!(!form.contains_key("client_id"));
    assert_eq!(self::claims(&form["client_assertion"])["exp"], NOW + 300);
}

/// rfc7523bis: an explicit type, if the audience is the issuer.
#[tokio::test(start_paused = true)]
async fn the_audience_is_one_string_that_follows_from_how_the_server_is_configured() {
    let other = |audience: &str| AssertionAudience::Other(audience.to_owned());
    let typed = "client-authentication+jwt";
    let discovered = "https://as.example/tenant/token";
    for (is_discovered, audience, expected, typ) in [
        (true, AssertionAudience::Default, ISSUER, typed),
        (true, AssertionAudience::TokenEndpoint, discovered, "JWT"),
        (
            true,
            other("https://as.example/realm"),
            "https://as.example/realm",
            "JWT",
        ),
        (true, other(ISSUER), ISSUER, typed),
        (false, AssertionAudience::Default, TOKEN_URL, "JWT"),
        (false, AssertionAudience::TokenEndpoint, TOKEN_URL, "JWT"),
        (false, other(ISSUER), ISSUER, "JWT"),
    ] {
        let endpoint = tokens().metadata(metadata(ISSUER, discovered));
        let client = orders().audience(audience.clone());
        let builder = if is_discovered {
            at_issuer(&endpoint, client)
        } else {
            at_endpoint(&endpoint, client)
        };
        fetch(builder).await.unwrap();
        let (header, claims) = decode(&assertions(&endpoint)[0]);
        assert_eq!(claims["aud"], expected, "{audience:?}");
        assert_eq!(header["typ"], typ, "{audience:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_audience_with_a_resource_or_a_preset_is_the_issuer() {
    let network = Network::confirming();
    let tokens = TokenManager::for_resource(RESOURCE, ISSUER, orders());
    let tokens = tokens.transport(network.clone()).start().unwrap();
    tokens.access_token().await.unwrap();
    let (header, claims) = decode(&network.sent("client_assertion")[0][0]);
    assert_eq!(claims["aud"], ISSUER);
    assert_eq!(header["typ"], "client-authentication+jwt");

    let tenant = provider::TENANT;
    let entra = format!("https://login.microsoftonline.com/{tenant}/v2.0");
    for (provider, manager, issuer) in [
        (
            Provider::keycloak(),
            TokenManager::keycloak("https://sso.example", "shop", orders()),
            "https://sso.example/realms/shop",
        ),
        (
            Provider::entra(),
            TokenManager::entra(tenant, orders())
                .map(|manager| manager.scope("api://orders/.default")),
            entra.as_str(),
        ),
        (
            Provider::auth0(),
            TokenManager::auth0("shop.eu.auth0.com", "https://orders.example", orders()),
            "https://shop.eu.auth0.com/",
        ),
        (
            Provider::okta(),
            TokenManager::okta("shop.okta.com", "default", orders())
                .map(|manager| manager.scope("orders.read")),
            "https://shop.okta.com/oauth2/default",
        ),
        (
            Provider::cognito(),
            TokenManager::cognito("eu-west-1", "eu-west-1_Example1", orders()),
            "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example1",
        ),
    ] {
        let manager = manager.unwrap().transport(provider.clone());
        // The provider may refuse the client: the request is what is checked.
        let _ = fetch(manager).await;
        let form = provider.token_requests().remove(0).form;
        let mut form = url::form_urlencoded::parse(form.as_bytes());
        let (_, assertion) = form.find(|(name, _)| name == "client_assertion").unwrap();
        let (header, claims) = decode(&assertion);
        assert_eq!(claims["aud"], issuer);
        assert_eq!(header["typ"], "client-authentication+jwt", "{issuer}");
    }
}

/// CVE-2025-27370, CVE-2025-27371 (OpenID Connect and RFC 7523: metadata choose the audience)
#[tokio::test(start_paused = true)]
async fn metadata_that_name_the_endpoint_of_another_server_never_choose_the_audience() {
    for victim in [
        "https://victim.example/token",
        "https://as.example:8443/token",
        "https://as.example.evil.example/token",
    ] {
        let endpoint = tokens().metadata(metadata(ISSUER, victim));
        let signer = Recording::default();
        fetch(at_issuer(&endpoint, ClientAssertion::new(signer.clone())))
            .await
            .unwrap();
        fetch(at_issuer(&endpoint, orders())).await.unwrap();
        let grant = JwtBearerGrant::new(signer.clone());
        let builder = at_issuer(&endpoint, NoAuthentication).grant(grant);
        fetch(builder).await.unwrap();
        assert_eq!(signer.audiences(), [ISSUER, ISSUER]);
        assert_eq!(claims(&assertions_of(&endpoint, 1))["aud"], ISSUER);

        // With the endpoint as the audience, no assertion is made.
        let endpoint = tokens().metadata(metadata(ISSUER, victim));
        let signer = Recording::default();
        let audience = AssertionAudience::TokenEndpoint;
        let client = ClientAssertion::new(signer.clone()).audience(audience.clone());
        let grant = JwtBearerGrant::new(signer.clone()).audience(audience.clone());
        let signed = JwtBearerGrant::signed(orders().audience(audience.clone()));
        for builder in [
            at_issuer(&endpoint, client),
            at_issuer(&endpoint, NoAuthentication).grant(signed),
            at_issuer(&endpoint, orders().audience(audience)),
            at_issuer(&endpoint, NoAuthentication).grant(grant),
        ] {
            let error = fetch(builder).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(
                error.to_string().contains("the origin of the issuer"),
                "{error}"
            );
        }
        assert!(signer.audiences().is_empty());
        assert_eq!(endpoint.count(), 0);
    }
}

/// RFC 7523 §2.1
#[tokio::test(start_paused = true)]
async fn an_assertion_that_the_key_of_an_account_signs_is_the_grant() {
    let endpoint = tokens();
    let key = ed25519().key_id("2026-11");
    let account = PrivateKeyJwt::new("orders", key).lifetime(Duration::from_secs(300));
    let grant = JwtBearerGrant::signed(account.clone());
    let builder = at_endpoint(&endpoint, NoAuthentication).grant(grant);
    let source = builder.scope("openid").build_source().unwrap();
    for _ in 0..2 {
        let _token = source.fetch().await.unwrap();
    }
    let token_ids = forms(&endpoint).into_iter().map(|form| {
        let names: Vec<&str> = form.keys().map(String::as_str).collect();
        assert_eq!(names, ["assertion", "grant_type", "scope"]);
        assert_eq!(
            form["grant_type"],
            "urn:ietf:params:oauth:grant-type:jwt-bearer"
        );
        assert!(verify(
            &form["assertion"],
            "ed25519_public",
            Algorithm::EdDsa
        ));
        let (header, mut claims) = decode(&form["assertion"]);
        assert_eq!(
            header,
            json!({ "alg": "EdDSA", "typ": "JWT", "kid": "2026-11" })
        );
        let token_id = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert_eq!(
            claims,
            json!({
                "iss": "orders",
                "sub": "orders",
                "aud": TOKEN_URL,
                "iat": NOW,
                "nbf": NOW,
                "exp": NOW + 300,
            })
        );
        token_id
    });
    let token_ids: Vec<Value> = token_ids.collect();
    assert_ne!(token_ids[0], token_ids[1]);

    // For an issuer: it is the audience, and the type is not that of client authentication.
    let endpoint = tokens().metadata(metadata(ISSUER, "https://victim.example/token"));
    let grant = JwtBearerGrant::signed(account.clone());
    let builder = at_issuer(&endpoint, NoAuthentication).grant(grant);
    fetch(builder).await.unwrap();
    let (header, claims) = decode(&forms(&endpoint)[0]["assertion"]);
    assert_eq!(
        (&claims["aud"], &header["typ"]),
        (&json!(ISSUER), &json!("JWT"))
    );

    // A refusal says for whom the assertion was, and settings are checked.
    let endpoint = TokenEndpoint::with_reply(refusal("invalid_grant"));
    let grant = JwtBearerGrant::signed(account.clone());
    let error = fetch(at_endpoint(&endpoint, NoAuthentication).grant(grant)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the assertion is valid from"), "{error}");
    for wrong in [
        account.clone().lifetime(Duration::ZERO),
        PrivateKeyJwt::new("", ed25519()),
    ] {
        let grant = JwtBearerGrant::signed(wrong);
        assert!(
            at_endpoint(&endpoint, NoAuthentication)
                .grant(grant)
                .build_source()
                .is_err()
        );
    }
}

/// The assertion of one of several requests.
fn assertions_of(endpoint: &TokenEndpoint, index: usize) -> String {
    forms(endpoint)[index]["client_assertion"].clone()
}

#[tokio::test(start_paused = true)]
async fn metadata_that_name_an_endpoint_of_the_issuer_again_are_found_within_seconds() {
    let endpoint = tokens()
        .metadata(metadata(ISSUER, TOKEN_URL))
        .then_metadata([metadata(ISSUER, "https://victim.example/token")]);
    let client = orders().audience(AssertionAudience::TokenEndpoint);
    let source = at_issuer(&endpoint, client).build_source().unwrap();
    source.fetch().await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let _token = source.fetch().await.unwrap();
    assert_eq!(claims(&assertions(&endpoint)[0])["aud"], TOKEN_URL);
    assert_eq!(endpoint.metadata_requests(), 2);
}

/// RFC 8414 §3.3
#[tokio::test(start_paused = true)]
async fn metadata_of_another_issuer_get_no_assertion() {
    let endpoint = tokens().metadata(metadata("https://evil.example", TOKEN_URL));
    let signer = Recording::default();
    let error = fetch(at_issuer(&endpoint, ClientAssertion::new(signer.clone())))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IssuerMismatch);
    assert!(signer.audiences().is_empty());
    assert_eq!(endpoint.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_assertion_is_not_repeated_after_a_redirect() {
    let endpoint = TokenEndpoint::with_reply(Reply::Redirect("https://evil.example/token"));
    fetch(at_endpoint(&endpoint, orders())).await.unwrap_err();
    let urls: Vec<String> = endpoint
        .token_requests()
        .into_iter()
        .map(|r| r.url)
        .collect();
    assert_eq!(urls, [TOKEN_URL]);
}

#[tokio::test(start_paused = true)]
async fn each_retry_has_an_assertion_of_its_own() {
    let endpoint = tokens().then([Reply::Hang, Reply::Unreachable, Reply::Status(503, None)]);
    let manager = at_endpoint(&endpoint, orders())
        .request_timeout(Duration::from_secs(3))
        .start()
        .unwrap();
    manager.access_token().await.unwrap();
    let all: Vec<Value> = assertions(&endpoint)
        .iter()
        .map(|jwt| claims(jwt))
        .collect();
    assert_eq!(all.len(), 4);
    let ids: HashSet<&str> = all.iter().map(|c| c["jti"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 4);
    // The first one timed out.
    assert!(all[1]["iat"].as_u64() >= Some(NOW + 3), "{all:?}");
    for claims in &all {
        assert_eq!(
            claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
            60
        );
    }
}

#[tokio::test(start_paused = true)]
async fn two_managers_with_the_same_key_have_different_assertions_in_the_same_second() {
    let endpoint = tokens();
    let managers = [(); 2].map(|()| at_endpoint(&endpoint, orders()).start().unwrap());
    let (one, two) = tokio::join!(managers[0].access_token(), managers[1].access_token());
    one.and(two).unwrap();
    let all: Vec<Value> = assertions(&endpoint)
        .iter()
        .map(|jwt| claims(jwt))
        .collect();
    assert_eq!(all[0]["iat"], all[1]["iat"]);
    assert_ne!(all[0]["jti"], all[1]["jti"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_client_id_and_audience_are_signed_as_they_are_and_no_two_jti_are_equal(
        client_id in "\\PC{1,40}",
        audience in "\\PC{1,40}",
        lifetime in 1_u64..=3600,
    ) {
        prop_assume!(!audience.trim().is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let endpoint = tokens();
        let client = PrivateKeyJwt::new(&client_id, ed25519())
            .audience(AssertionAudience::Other(audience.clone()))
            .lifetime(Duration::from_secs(lifetime));
        runtime.block_on(async {
            let source = at_endpoint(&endpoint, client).build_source().unwrap();
            for _ in 0..20 {
                let _token = source.fetch().await.unwrap();
            }
        });
        let mut ids = HashSet::new();
        for form in forms(&endpoint) {
            prop_assert_eq!(&form["client_id"], &client_id);
            let claims = claims(&form["client_assertion"]);
            prop_assert_eq!(&claims["iss"], &client_id);
            prop_assert_eq!(&claims["sub"], &client_id);
            prop_assert_eq!(&claims["aud"], &audience);
            prop_assert_eq!(claims["exp"].as_u64(), Some(NOW + lifetime));
            prop_assert!(ids.insert(claims["jti"].as_str().unwrap().to_owned()));
        }
        prop_assert_eq!(ids.len(), 20);
    }
}

#[test]
fn settings_with_which_no_request_could_succeed_are_errors_of_build() {
    let endpoint = tokens();
    let error = |builder: TokenManagerBuilder| builder.build().map(drop).unwrap_err();
    let empty = AssertionAudience::Other(" ".to_owned());
    let source = Recording::default();
    for (client, setting) in [
        (PrivateKeyJwt::new("", ed25519()), "client id"),
        (orders().lifetime(Duration::ZERO), "assertion lifetime"),
        (
            orders().lifetime(Duration::from_millis(999)),
            "assertion lifetime",
        ),
        (
            orders().lifetime(Duration::from_secs(3601)),
            "assertion lifetime",
        ),
        (orders().audience(empty.clone()), "assertion audience"),
    ] {
        assert_eq!(error(at_endpoint(&endpoint, client)).setting(), setting);
    }
    let client = ClientAssertion::new(source.clone());
    for (client, setting) in [
        (client.clone().with_client_id(""), "client id"),
        (client.audience(empty.clone()), "assertion audience"),
    ] {
        assert_eq!(error(at_endpoint(&endpoint, client)).setting(), setting);
    }
    let grant = JwtBearerGrant::new(source).audience(empty);
    let builder = at_endpoint(&endpoint, NoAuthentication).grant(grant);
    assert_eq!(error(builder).setting(), "assertion audience");
    for longest in [1, 3600] {
        let client = orders().lifetime(Duration::from_secs(longest));
        at_endpoint(&endpoint, client).build().map(drop).unwrap();
    }
    for reserved in [
        "assertion",
        "client_assertion",
        "client_assertion_type",
        "subject_token",
        "subject_token_type",
        "actor_token",
        "actor_token_type",
        "requested_token_type",
    ] {
        let error = error(at_endpoint(&endpoint, orders()).parameter(reserved, "s3cr3t-value"));
        assert_eq!(error.kind(), ConfigErrorKind::Conflict, "{reserved}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }
}

/// A client that is refused must not double its requests.
#[tokio::test(start_paused = true)]
async fn an_assertion_that_is_made_for_each_request_is_not_sent_again_when_it_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, pem("ed25519")).unwrap();
    let from_file = SigningKey::from_file(&path, Algorithm::EdDsa);
    let signed = |key| JwtBearerGrant::signed(PrivateKeyJwt::new("orders", key));
    let endpoint = TokenEndpoint::with_reply(refusal("invalid_grant"));
    let builder = at_endpoint(&endpoint, NoAuthentication).grant(signed(from_file.clone()));
    fetch(builder).await.unwrap_err();
    assert_eq!(endpoint.count(), 1);
    let endpoint = TokenEndpoint::with_reply(refusal("invalid_client"));
    for builder in [
        at_endpoint(&endpoint, orders()),
        at_endpoint(&endpoint, PrivateKeyJwt::new("orders", from_file.clone())),
        at_endpoint(&endpoint, ClientAssertion::new(Recording::default())),
        at_endpoint(&endpoint, NoAuthentication).grant(JwtBearerGrant::new(Recording::default())),
        at_endpoint(&endpoint, NoAuthentication).grant(signed(from_file.clone())),
    ] {
        let before = endpoint.count();
        fetch(builder).await.unwrap_err();
        assert_eq!(endpoint.count(), before + 1);
    }

    // A key that was replaced meanwhile is another matter.
    let server = Server::new({
        let path = path.clone();
        move |_, number| {
            fs::write(&path, pem("ed25519_newer")).unwrap();
            number == 1
        }
    });
    let client = PrivateKeyJwt::new("orders", from_file);
    let builder = TokenManager::builder(TOKEN_URL.parse::<Endpoint>().unwrap(), client);
    fetch(builder.transport(server.clone())).await.unwrap();
    let sent = server.sent();
    assert!(verify(&sent[0], "ed25519_public", Algorithm::EdDsa));
    assert!(!verify(&sent[1], "ed25519_public", Algorithm::EdDsa));
    assert_ne!(claims(&sent[0])["jti"], claims(&sent[1])["jti"]);
}

/// Ory Hydra and Microsoft Entra ID expect their token endpoint.
#[tokio::test(start_paused = true)]
async fn a_refused_assertion_for_the_issuer_hints_at_the_token_endpoint_and_nothing_is_tried() {
    let hint = "`AssertionAudience::TokenEndpoint`";
    let endpoint =
        |code: &str| TokenEndpoint::with_reply(refusal(code)).metadata(metadata(ISSUER, TOKEN_URL));
    let for_endpoint = AssertionAudience::TokenEndpoint;
    let refused = endpoint("invalid_client");
    let source = Recording::default();
    let client = || ClientAssertion::new(source.clone());
    let rows = [
        (at_issuer(&refused, orders()), true),
        (at_issuer(&refused, client()), true),
        (
            at_issuer(&refused, orders().audience(for_endpoint.clone())),
            false,
        ),
        (
            at_issuer(&refused, client().audience(for_endpoint.clone())),
            false,
        ),
        (at_endpoint(&refused, orders()), false),
        (at_endpoint(&refused, client()), false),
    ];
    for (builder, is_hinted) in rows {
        let before = refused.count();
        let error = fetch(builder).await.unwrap_err();
        assert_eq!(error.to_string().contains(hint), is_hinted, "{error}");
        assert_eq!(refused.count(), before + 1);
    }
    let grant = JwtBearerGrant::new(source.clone());
    for (code, is_hinted) in [("invalid_grant", true), ("invalid_scope", false)] {
        let builder = at_issuer(&endpoint(code), NoAuthentication).grant(grant.clone());
        let error = fetch(builder).await.unwrap_err();
        assert_eq!(error.to_string().contains(hint), is_hinted, "{error}");
    }
    let error = fetch(at_issuer(&endpoint("unauthorized_client"), orders())).await;
    assert!(!error.unwrap_err().to_string().contains(hint));
}

/// The clock of one of them may be wrong.
#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_signed_assertion_says_when_it_is_valid() {
    let endpoint = TokenEndpoint::with_reply(refusal("invalid_client"));
    let error = fetch(at_endpoint(&endpoint, orders())).await.unwrap_err();
    let expected =
        "valid from 2023-11-14T22:13:20Z to 2023-11-14T22:14:20Z by the clock of this client";
    assert!(error.to_string().contains(expected), "{error}");
}

/// CVE-2022-29266 (APISIX: a secret in an error message)
#[tokio::test(start_paused = true)]
async fn no_error_debug_output_or_log_shows_an_assertion_or_a_key() {
    log::clear_log();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    let jwt = platform_jwt_until(3600);
    fs::write(&path, &jwt).unwrap();
    let certificate = pem("ed25519_certificate");
    let key = ed25519().certificate_pem(&certificate).unwrap();
    let file = || AssertionFile::new(&path);
    let grant = JwtBearerGrant::new(file());
    let key_line = pem("ed25519").lines().nth(1).unwrap().to_owned();
    let signed = JwtBearerGrant::signed(PrivateKeyJwt::new("orders", key.clone()));
    let mut shown = format!("{key:?} {grant:?} {signed:?}");
    for code in ["invalid_client", "invalid_grant", "invalid_scope"] {
        // A server that quotes the request.
        let quoting = Quoting::new(code);
        let at = |client: Arc<dyn ClientAuthentication>| {
            let url = TOKEN_URL.parse::<Endpoint>().unwrap();
            let builder = TokenManager::builder(url, client).transport(quoting.clone());
            builder.clock(TokioClock::new())
        };
        for builder in [
            at(Arc::new(PrivateKeyJwt::new("orders", key.clone()))),
            at(Arc::new(ClientAssertion::new(file()))),
            at(Arc::new(ClientAssertion::spiffe(file()))),
            at(Arc::new(NoAuthentication)).grant(grant.clone()),
            at(Arc::new(NoAuthentication)).grant(signed.clone()),
        ] {
            shown += &format!("{builder:?}");
            let source = builder.clone().build_source().unwrap();
            let error = source.fetch().await.unwrap_err();
            assert!(error.to_string().contains("[redacted]"), "{error}");
            shown += &format!("{source:?} {error:?} {}", chain(&error));
            let manager = builder.start().unwrap();
            let error = manager.access_token().await.unwrap_err();
            shown += &format!("{manager:?} {error:?} {}", chain(&error));
        }
        for assertion in quoting.sent() {
            log::assert_not_logged(&assertion);
            for part in assertion.split('.') {
                assert!(!shown.contains(part), "{shown}");
            }
        }
    }
    assert!(log::logged("token request failed"));
    assert!(
        !shown.contains(&key_line) && !shown.contains("eyJh"),
        "{shown}"
    );
    assert!(!log::logged(&key_line));
}

/// A token endpoint whose errors quote the assertion of the request.
#[derive(Clone)]
struct Quoting {
    code: &'static str,
    sent: Arc<Mutex<Vec<String>>>,
}

impl std::fmt::Debug for Quoting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Quoting")
    }
}

impl Quoting {
    fn new(code: &'static str) -> Self {
        let sent = Arc::default();
        Self { code, sent }
    }

    fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().clone()
    }
}

impl Transport for Quoting {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let form = url::form_urlencoded::parse(request.body()).into_owned();
        let assertions = form.filter(|(n, _)| n == "assertion" || n == "client_assertion");
        let (_, assertion) = assertions.last().unwrap();
        let text = format!("bad assertion {assertion} in {:?}", request.body());
        let body = json!({ "error": self.code, "error_description": text });
        self.sent.lock().unwrap().push(assertion);
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        Box::pin(async { Ok(response) })
    }
}
