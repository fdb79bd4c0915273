//! Assertions of files and other sources, as client authentication and as the grant.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_source_is_asked_for_each_request_and_its_error_is_transient() {
    let endpoint = tokens().then([Reply::Status(503, None)]);
    let source = Recording::default();
    let client = ClientAssertion::new(source.clone());
    let manager = at_endpoint(&endpoint, client).start().unwrap();
    manager.access_token().await.unwrap();
    let forms = forms(&endpoint);
    assert_eq!(source.audiences(), [TOKEN_URL, TOKEN_URL]);
    assert_eq!(forms[0]["client_assertion"], "s3cr3t-assertion-1");
    assert_eq!(forms[1]["client_assertion"], "s3cr3t-assertion-2");
    assert_eq!(forms[1]["client_assertion_type"], JWT_BEARER);
    assert!(!forms[1].contains_key("client_id"));

    let failing = Recording {
        fails: Some("the agent does not run"),
        ..Recording::default()
    };
    let endpoint = tokens();
    let error = fetch(at_endpoint(&endpoint, ClientAssertion::new(failing))).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials);
    assert!(chain(&error).contains("the agent does not run"));
    assert_eq!(endpoint.count(), 0);
}

/// draft-ietf-oauth-spiffe-client-auth
#[tokio::test(start_paused = true)]
async fn a_jwt_svid_is_sent_with_its_type_or_with_the_usual_one() {
    let spiffe = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
    let source = Recording::default();
    for (client, expected) in [
        (ClientAssertion::spiffe(source.clone()), spiffe),
        (
            ClientAssertion::new(source).with_client_id("orders"),
            JWT_BEARER,
        ),
    ] {
        let endpoint = tokens();
        fetch(at_endpoint(&endpoint, client)).await.unwrap();
        let form = forms(&endpoint).remove(0);
        assert_eq!(form["client_assertion_type"], expected);
        assert_eq!(form.contains_key("client_id"), expected == JWT_BEARER);
        assert_eq!(form["grant_type"], "client_credentials");
    }
}

#[tokio::test(start_paused = true)]
async fn an_assertion_file_that_cannot_be_sent_is_a_transient_error_until_it_can() {
    let jwt = platform_jwt_until(3600);
    let large = "s3cr3t-".repeat(1 << 20);
    let breakages: [(&str, &dyn Fn(&Path), &str); 12] = [
        (
            "missing",
            &|path| fs::remove_file(path).unwrap(),
            "cannot be read",
        ),
        ("empty", &|path| fs::write(path, "").unwrap(), "is empty"),
        (
            "line_end",
            &|path| fs::write(path, "\r\n").unwrap(),
            "is empty",
        ),
        (
            "large",
            &|path| fs::write(path, &large).unwrap(),
            "more than 16384 bytes",
        ),
        (
            "binary",
            &|path| fs::write(path, [0xff, 0xfe]).unwrap(),
            "not valid UTF-8",
        ),
        (
            "two_lines",
            &|path| fs::write(path, format!("{jwt}\n{jwt}\n")).unwrap(),
            "more than one line",
        ),
        (
            "opaque",
            &|path| fs::write(path, "s3cr3t-opaque").unwrap(),
            "is not a JWT",
        ),
        (
            "space",
            &|path| fs::write(path, format!(" {jwt}")).unwrap(),
            "is not a JWT",
        ),
        (
            "padding",
            &|path| fs::write(path, format!("{jwt}=")).unwrap(),
            "is not a JWT",
        ),
        (
            "folder",
            &|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            "not a regular file",
        ),
        (
            "pipe",
            &|path| {
                fs::remove_file(path).unwrap();
                create_pipe(path);
            },
            "not a regular file",
        ),
        (
            "dangling",
            &|path| {
                fs::remove_file(path).unwrap();
                symlink("nowhere", path).unwrap();
            },
            "cannot be read",
        ),
    ];
    for (name, break_it, expected) in breakages {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "x").unwrap();
        break_it(&path);
        let endpoint = tokens();
        let client = ClientAssertion::from_file(&path);
        let error = fetch(at_endpoint(&endpoint, client.clone()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Credentials, "{name}: {error}");
        let shown = format!("{} {error:?}", chain(&error));
        assert!(shown.contains(expected), "{name}: {shown}");
        let path = path.to_str().unwrap();
        assert!(shown.contains(path), "{shown}");
        // The name of the folder is random.
        let rest = shown.replace(path, "");
        assert!(!rest.contains("s3cr3t") && !rest.contains("eyJ"), "{rest}");
        assert_eq!(endpoint.count(), 0, "{name}");

        // It is no error of `build`, and the file is found when it is there.
        let manager = at_endpoint(&endpoint, client).start().unwrap();
        let repair = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let _ = fs::remove_dir(path).or_else(|_| fs::remove_file(path));
            fs::write(path, format!("{jwt}\n")).unwrap();
        };
        let (token, ()) = tokio::join!(manager.access_token(), repair);
        token.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(assertions(&endpoint), [jwt.as_str()], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_assertion_of_any_source_is_not_sent() {
    /// A source that returns this assertion.
    #[derive(Clone, Debug)]
    struct Fixed(String);

    impl AssertionSource for Fixed {
        fn assertion<'a>(
            &'a self,
            _audience: &'a str,
        ) -> BoxFuture<'a, Result<SecretString, BoxError>> {
            Box::pin(async { Ok(self.0.as_str().into()) })
        }
    }

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    let clock = ManualClock::at(UnixTime::from_secs(NOW));
    for (claims, ago) in [
        (json!({ "exp": NOW - 12 }), Some(12)),
        (json!({ "exp": 1_699_999_999.5 }), Some(1)),
        (json!({ "exp": NOW }), Some(0)),
        (json!({ "exp": -1 }), Some(NOW)),
        (json!({ "exp": NOW + 1 }), None),
        (json!({ "exp": 1e300 }), None),
        // What is no date is left to the server.
        (json!({ "exp": "s3cr3t" }), None),
        (json!({}), None),
    ] {
        let jwt = jwt::unsigned(&claims);
        fs::write(&path, &jwt).unwrap();
        let in_file = format!("the assertion in {} expired", path.display());
        let sources: [(Source, &str); 2] = [
            (Arc::new(AssertionFile::new(&path)), &in_file),
            (Arc::new(Fixed(jwt.clone())), "the assertion expired"),
        ];
        for (source, description) in sources {
            let endpoint = tokens();
            let grant = JwtBearerGrant::new(source.clone());
            for builder in [
                at_endpoint(&endpoint, ClientAssertion::new(source)),
                at_endpoint(&endpoint, NoAuthentication).grant(grant),
            ] {
                let result = fetch(builder.clock(clock.clone())).await;
                let Some(ago) = ago else {
                    result.unwrap();
                    continue;
                };
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Credentials);
                let expected = format!("{description} {ago} s ago: it was not replaced");
                assert!(error.to_string().contains(&expected), "{error}");
            }
            assert_eq!(
                endpoint.count(),
                if ago.is_some() { 0 } else { 2 },
                "{claims}"
            );
        }
    }
}

/// A server that takes each assertion once, like Keycloak.
#[tokio::test(start_paused = true)]
async fn the_refusal_of_an_assertion_that_was_sent_before_says_so() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    let reused = format!(
        "the server may take each assertion once, and the assertion in {} has not changed since",
        path.display()
    );
    let file = || AssertionFile::new(&path);
    let client = |endpoint: &TokenEndpoint| at_endpoint(endpoint, ClientAssertion::new(file()));
    let grant = |endpoint: &TokenEndpoint| {
        at_endpoint(endpoint, NoAuthentication).grant(JwtBearerGrant::new(file()))
    };
    let builders: [(&dyn Fn(&TokenEndpoint) -> TokenManagerBuilder, &[&str]); 2] = [
        (&client, &["invalid_client"]),
        (&grant, &["invalid_grant", "jti_known"]),
    ];
    for (builder, codes) in builders {
        for code in codes {
            fs::write(&path, platform_jwt_until(3600)).unwrap();
            // Accepted, or the response was lost, and then refused.
            for first in [Reply::Token(60), Reply::Hang, Reply::Unreachable] {
                let endpoint = TokenEndpoint::with_reply(refusal(code)).then([first]);
                let source = builder(&endpoint).request_timeout(Duration::from_secs(3));
                let source = source.build_source().unwrap();
                let _either_way = source.fetch().await;
                let error = source.fetch().await.unwrap_err();
                assert!(error.to_string().contains(&reused), "{error}");
                // The first request may not have reached the server.
                let other_cause = "if the server expects another one, set it at the platform";
                assert!(error.to_string().contains(other_cause), "{error}");
                assert_eq!(endpoint.count(), 2, "it is not sent again");
            }
            // The first one was refused: there is another reason.
            let endpoint = TokenEndpoint::with_reply(refusal(code));
            let source = builder(&endpoint).build_source().unwrap();
            for _ in 0..3 {
                let error = source.fetch().await.unwrap_err();
                assert!(!error.to_string().contains("has not changed"), "{error}");
            }
            // Another error has nothing to do with it.
            let endpoint =
                TokenEndpoint::with_reply(Reply::Json(400, json!({ "error": "invalid_scope" })))
                    .then([Reply::Token(60)]);
            let source = builder(&endpoint).build_source().unwrap();
            let _token = source.fetch().await.unwrap();
            let error = source.fetch().await.unwrap_err();
            assert!(!error.to_string().contains("has not changed"), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_assertion_that_was_replaced_while_it_was_sent_is_read_again_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    let jwt = |number: u64| platform_jwt_until(3600 + number);
    fs::write(&path, jwt(0)).unwrap();
    let server = Server::new({
        let path = path.clone();
        move |assertion, number| {
            if number == 0 {
                fs::write(&path, jwt(1)).unwrap();
            }
            assertion == jwt(1)
        }
    });
    let source = |server: &Server| {
        TokenManager::builder(
            TOKEN_URL.parse::<Endpoint>().unwrap(),
            ClientAssertion::from_file(&path),
        )
        .transport(server.clone())
        .clock(TokioClock::new())
        .build_source()
        .unwrap()
    };
    let _token = source(&server).fetch().await.unwrap();
    assert_eq!(server.sent(), [jwt(0), jwt(1)]);

    // The same one is not sent again, and a second other one is not either.
    let server = Server::new(|_, _| false);
    source(&server).fetch().await.unwrap_err();
    assert_eq!(server.sent(), [jwt(1)]);
    let server = Server::new({
        let path = path.clone();
        move |_, number| {
            fs::write(&path, jwt(10 + u64::try_from(number).unwrap())).unwrap();
            false
        }
    });
    source(&server).fetch().await.unwrap_err();
    assert_eq!(server.sent(), [jwt(1), jwt(10)]);
}

/// RFC 7523 §2.1, RFC 7521 §4.1
#[tokio::test(start_paused = true)]
async fn an_assertion_as_the_grant_needs_no_client_authentication() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    let jwt = platform_jwt_until(3600);
    fs::write(&path, format!("{jwt}\n")).unwrap();
    let endpoint = tokens();
    let grant = JwtBearerGrant::new(AssertionFile::new(&path));
    let builder = at_endpoint(&endpoint, NoAuthentication).grant(grant.clone());
    let builder = builder.scope(Scope::new("orders.read").unwrap());
    fetch(builder.resource("https://orders.example"))
        .await
        .unwrap();
    let grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let sent = &endpoint.token_requests()[0].form;
    let sent: Vec<(&str, &str)> = sent.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(
        sent,
        [
            ("grant_type", grant_type),
            ("assertion", jwt.as_str()),
            ("scope", "orders.read"),
            ("resource", "https://orders.example"),
        ]
    );

    // With one, both assertions are sent.
    fetch(at_endpoint(&endpoint, orders()).grant(grant))
        .await
        .unwrap();
    let form = forms(&endpoint).remove(1);
    assert_eq!(form["assertion"], jwt);
    assert_eq!(claims(&form["client_assertion"])["sub"], "orders");
}

/// A token that the kubelet replaces each second, while tokens live for two.
#[tokio::test(start_paused = true)]
async fn no_call_fails_and_no_expired_assertion_is_sent_while_a_file_is_rotated_again_and_again() {
    let mount = Mount::new();
    let clock = TokioClock::new();
    let start = tokio::time::Instant::now();
    let write = || {
        let until = start.elapsed().as_secs() + 2;
        mount.write(&[("token", platform_jwt_until(until))]);
    };
    write();
    let expired = Arc::new(AtomicUsize::new(0));
    let server = Server::new({
        let expired = Arc::clone(&expired);
        move |assertion, _| {
            let is_valid = claims(assertion)["exp"].as_u64().unwrap() > clock.now().as_secs();
            expired.fetch_add(usize::from(!is_valid), Ordering::SeqCst);
            is_valid
        }
    });
    let client = ClientAssertion::from_file(mount.path("token"));
    let builder = TokenManager::builder(TOKEN_URL.parse::<Endpoint>().unwrap(), client);
    let manager = builder
        .transport(server.clone())
        .clock(clock)
        .start()
        .unwrap();
    let calls = async {
        for _ in 0..200 {
            let calls = [(); 8].map(|()| manager.access_token());
            for token in futures_util::future::join_all(calls).await {
                token.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(970)).await;
        }
    };
    let rotation = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            write();
        }
    };
    tokio::select! {
        () = calls => {}
        () = rotation => {}
    }
    assert_eq!(expired.load(Ordering::SeqCst), 0);
    let sent: BTreeSet<String> = server.sent().into_iter().collect();
    assert!(sent.len() >= 4, "{}", sent.len());
}

/// Each refusal is of one of them.
#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_client_does_not_blame_the_assertion_of_the_grant() {
    let folder = TempDir::new().unwrap();
    let (token, key, secret) = (
        folder.path().join("token"),
        folder.path().join("key"),
        folder.path().join("secret"),
    );
    fs::write(&token, platform_jwt_until(3600)).unwrap();
    fs::write(&key, pem("ed25519")).unwrap();
    fs::write(&secret, "s3cret-value").unwrap();
    let clients: [Arc<dyn ClientAuthentication>; 3] = [
        Arc::new(orders()),
        Arc::new(PrivateKeyJwt::new(
            "orders",
            SigningKey::from_file(&key, Algorithm::EdDsa),
        )),
        Arc::new(ClientCredentials::from_secret_file("orders", &secret).client_secret_post()),
    ];
    for client in clients {
        for (code, is_explained) in [("invalid_client", false), ("invalid_grant", true)] {
            let reply = Reply::Json(400, json!({ "error": code }));
            let endpoint = TokenEndpoint::with_reply(reply).then([Reply::Token(60)]);
            let grant = JwtBearerGrant::new(AssertionFile::new(&token));
            let source = at_endpoint(&endpoint, Arc::clone(&client)).grant(grant);
            let source = source.build_source().unwrap();
            let _token = source.fetch().await.unwrap();
            let error = source.fetch().await.unwrap_err();
            assert_eq!(error.to_string().contains("once"), is_explained, "{error}");
            assert_eq!(endpoint.count(), 2);
        }
    }
}

/// Hydra's code is about the assertion that was read, and about nothing else in the request.
#[tokio::test(start_paused = true)]
async fn a_known_jti_blames_no_other_part_of_the_request() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, platform_jwt_until(3600)).unwrap();
    let clients: [(Arc<dyn ClientAuthentication>, &str); 3] = [
        (Arc::new(TlsClientAuth::new("orders")), "certificate"),
        (Arc::new(orders()), "AssertionAudience"),
        (
            Arc::new(ClientCredentials::new("orders", "a+b/c=")),
            "client_secret_basic_raw",
        ),
    ];
    for (client, other_hint) in clients {
        let endpoint = TokenEndpoint::with_reply(refusal("jti_known"));
        let grant = JwtBearerGrant::new(AssertionFile::new(&path));
        let builder = at_endpoint(&endpoint, client).grant(grant);
        let error = fetch(builder).await.unwrap_err().to_string();
        assert!(error.contains("takes each assertion once"), "{error}");
        assert!(!error.contains(other_hint), "{error}");
    }
}

/// A projected token whose `aud` is not the server: no setting of the client changes it.
#[tokio::test(start_paused = true)]
async fn the_refusal_of_an_assertion_of_a_file_names_its_audience_and_both_causes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    let long = "a".repeat(4096);
    let token_within = jwt::unsigned(&json!({ "sub": "s3cr3t" }));
    for (aud, shown) in [
        (
            json!("https://k8s.example"),
            r#"the `aud` "https://k8s.example""#,
        ),
        (json!(["a", "b"]), r#"the `aud` ["a", "b"]"#),
        (json!(["a"]), r#"the `aud` "a""#),
        (json!(long), "aaa…"),
        (json!(token_within), "the `aud`"),
        (json!(7), "no readable `aud`"),
    ] {
        let claims = json!({ "sub": "orders", "aud": aud, "exp": NOW + 3600 });
        fs::write(&path, jwt::unsigned(&claims)).unwrap();
        let file = || AssertionFile::new(&path);
        for (code, is_client) in [("invalid_client", true), ("invalid_grant", false)] {
            let endpoint =
                TokenEndpoint::with_reply(refusal(code)).metadata(metadata(ISSUER, TOKEN_URL));
            let builder = match is_client {
                true => at_issuer(&endpoint, ClientAssertion::new(file())),
                false => at_issuer(&endpoint, NoAuthentication).grant(JwtBearerGrant::new(file())),
            };
            let error = fetch(builder).await.unwrap_err().to_string();
            let start = format!("the assertion in {} has ", path.display());
            assert!(error.contains(&start) && error.contains(shown), "{error}");
            assert!(
                error.contains("set it at the platform that issues"),
                "{error}"
            );
            assert!(error.contains("takes each assertion once"), "{error}");
            assert!(!error.contains("AssertionAudience"), "{error}");
            assert!(
                !error.contains(&token_within) && error.len() < 1000,
                "{error}"
            );
        }
    }
}

/// Another process sent it first: a restart, or a second replica.
#[tokio::test(start_paused = true)]
async fn an_assertion_that_another_process_has_sent_is_a_cause_that_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, platform_jwt_until(3600)).unwrap();
    for reply in [
        json!({ "error": "invalid_client", "error_description": "Token reuse detected" }),
        json!({ "error": "jti_known" }),
    ] {
        let endpoint = TokenEndpoint::with_reply(Reply::Json(400, reply));
        let client = ClientAssertion::from_file(&path);
        let error = fetch(at_endpoint(&endpoint, client)).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("one that another process has sent"), "{text}");
    }
}

/// Glewlwyd refuses an assertion with an empty response.
#[tokio::test(start_paused = true)]
async fn a_refusal_without_an_oauth_error_has_the_hint_of_the_assertion() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, platform_jwt_until(3600)).unwrap();
    for (status, is_hinted) in [(401, true), (403, true), (400, false), (500, false)] {
        let endpoint = TokenEndpoint::with_reply(Reply::Status(status, None));
        let other = AssertionAudience::Other("https://other.example".to_owned());
        let grant = JwtBearerGrant::new(AssertionFile::new(&path));
        for (builder, hint) in [
            (
                at_endpoint(&endpoint, orders()),
                "the assertion is valid from",
            ),
            (
                at_endpoint(&endpoint, orders().audience(other)),
                "correct `AssertionAudience::Other`",
            ),
            (
                at_endpoint(&endpoint, ClientAssertion::from_file(&path)),
                "set it at the platform",
            ),
            (
                at_endpoint(&endpoint, NoAuthentication).grant(grant),
                "set it at the platform",
            ),
        ] {
            let error = fetch(builder).await.unwrap_err();
            assert_eq!(error.to_string().contains(hint), is_hinted, "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_assertion_for_another_audience_names_it_and_the_setting() {
    let endpoint = TokenEndpoint::with_reply(refusal("invalid_client"));
    let audience = || AssertionAudience::Other("https://as.example/".to_owned());
    let source = ClientAssertion::new(Recording::default());
    for builder in [
        at_endpoint(&endpoint, orders().audience(audience())),
        at_endpoint(&endpoint, source.audience(audience())),
    ] {
        let error = fetch(builder).await.unwrap_err();
        let hint = "the audience of the assertion is \"https://as.example/\"; if the server \
                    expects another one, correct `AssertionAudience::Other`";
        assert!(error.to_string().contains(hint), "{error}");
    }
}
