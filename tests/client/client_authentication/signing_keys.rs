//! `SigningKey`: keys and certificates, in memory and in files.

use super::*;

#[test]
fn a_key_that_cannot_sign_is_an_error_that_says_what_to_do_and_shows_no_key() {
    let indent = |pem: &str| {
        pem.lines()
            .map(|l| format!("    {l}\n"))
            .collect::<String>()
    };
    let (rsa, p256, ed) = (pem("rsa"), pem("p256"), pem("ed25519"));
    let cut = rsa.len() / 2;
    let rows = [
        (pem("rsa_encrypted"), Algorithm::Ps256, "openssl pkey -in"),
        (
            pem("rsa_encrypted_pkcs1"),
            Algorithm::Ps256,
            "openssl pkey -in",
        ),
        (pem("rsa_public"), Algorithm::Ps256, "is a public key"),
        (pem("rsa_certificate"), Algorithm::Ps256, "is a certificate"),
        (pem("rsa_1024"), Algorithm::Ps256, "fewer than 2048 bits"),
        (pem("rsa_1024"), Algorithm::Es256, "fewer than 2048 bits"),
        (pem("openssh"), Algorithm::EdDsa, "ssh-keygen -p -m PKCS8"),
        (
            rsa.clone(),
            Algorithm::Es256,
            "with ES256: it is an RSA key, for PS256",
        ),
        (
            pem("rsa_pkcs1"),
            Algorithm::EdDsa,
            "with EdDSA: it is an RSA key",
        ),
        (
            p256.clone(),
            Algorithm::Es384,
            "with ES384: it is a key on P-256, for ES256",
        ),
        (
            pem("p256_sec1"),
            Algorithm::Es512,
            "it is a key on P-256, for ES256",
        ),
        (
            pem("p384"),
            Algorithm::Es256,
            "it is a key on P-384, for ES384",
        ),
        (
            pem("p521"),
            Algorithm::Es256,
            "it is a key on P-521, for ES512",
        ),
        (ed, Algorithm::Rs256, "it is an Ed25519 key, for EdDSA"),
        (
            pem("secp256k1"),
            Algorithm::Es256,
            "not a supported private key",
        ),
        (
            format!("{rsa}{p256}"),
            Algorithm::Ps256,
            "only the one that signs",
        ),
        (
            format!("{rsa}{rsa}"),
            Algorithm::Ps256,
            "only the one that signs",
        ),
        (indent(&rsa), Algorithm::Ps256, "white space"),
        (rsa.replace('\n', "\n "), Algorithm::Ps256, "white space"),
        (
            rsa.replace('\n', "\\n"),
            Algorithm::Ps256,
            "must be line ends",
        ),
        (rsa[..cut].to_owned(), Algorithm::Ps256, "cut off"),
        (
            rsa.replacen("M", "*", 1),
            Algorithm::Ps256,
            "is not valid PEM",
        ),
        (String::new(), Algorithm::Ps256, "-----BEGIN"),
        ("s3cr3t-no-pem".to_owned(), Algorithm::Ps256, "-----BEGIN"),
        (
            "-----BEGIN PRIVATE KEY-----\nczNjcjN0LW5vLWtleQ==\n-----END PRIVATE KEY-----\n"
                .to_owned(),
            Algorithm::Ps256,
            "not a supported private key",
        ),
    ];
    for (text, algorithm, expected) in rows {
        let error = parse(&text, algorithm).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}\n{expected}");
        assert_eq!(error.setting(), "signing key");
        let shown = format!("{error} {error:?}");
        for line in text.lines().map(str::trim).filter(|line| line.len() > 12) {
            assert!(
                line.starts_with("-----BEGIN") || !shown.contains(line),
                "{shown}"
            );
        }
    }
}

#[test]
fn line_ends_of_windows_comments_and_certificates_beside_the_key_are_accepted() {
    let rsa = pem("rsa");
    let certificate = pem("rsa_certificate");
    for text in [
        rsa.replace('\n', "\r\n"),
        rsa.trim_end().to_owned(),
        format!("Bag Attributes\n    friendlyName: orders\n{rsa}"),
        format!("{certificate}{rsa}{certificate}"),
    ] {
        let parsed = parse(&text, Algorithm::Ps256);
        assert!(parsed.is_ok(), "{parsed:?}\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_certificate_of_the_key_is_named_by_its_sha_256() {
    // Of openssl: `x509 -outform DER | dgst -sha256 -binary`.
    for (name, algorithm, thumbprint) in [
        (
            "rsa",
            Algorithm::Ps256,
            "9lC5NV4xB3z14xiEkt3ibgsItYhRRJ_FMaQKPdHm5nI",
        ),
        (
            "p256",
            Algorithm::Es256,
            "6kFufJJNSCWxpplLopAOabTF9mkiPbg-FwRR4L-fXlw",
        ),
        (
            "ed25519",
            Algorithm::EdDsa,
            "QhmtQFz6vf76v3u0HMMcch3luK1BOqgmmu85dgBqnjs",
        ),
    ] {
        let certificate = pem(&format!("{name}_certificate"));
        // A chain: the first one is that of the client.
        let chain = format!("{certificate}{}", pem("p256_certificate"));
        let key = parse(&pem(name), algorithm).unwrap();
        let endpoint = tokens();
        let key = key.certificate_pem(&chain).unwrap();
        fetch(at_endpoint(&endpoint, PrivateKeyJwt::new("orders", key)))
            .await
            .unwrap();
        let (header, _) = decode(&assertions(&endpoint)[0]);
        let expected = json!({ "alg": algorithm.name(), "typ": "JWT", "x5t#S256": thumbprint });
        assert_eq!(header, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_key_is_an_error_and_signs_nothing() {
    let rsa = || parse(&pem("rsa"), Algorithm::Ps256).unwrap();
    let other = format!("{}{}", pem("p256_certificate"), pem("rsa_certificate"));
    for (certificate, expected) in [
        (other.as_str(), "the certificate of that key"),
        (&pem("rsa"), "has no certificate"),
        (&pem("rsa_public"), "has no certificate"),
        ("", "is not PEM"),
    ] {
        let error = rsa().certificate_pem(certificate).unwrap_err();
        assert_eq!(error.setting(), "certificate");
        assert!(error.to_string().contains(expected), "{error}");
    }

    // From files: an error of the token request.
    let folder = TempDir::new().unwrap();
    let (key, certificate) = (folder.path().join("tls.key"), folder.path().join("tls.crt"));
    fs::write(&key, pem("rsa")).unwrap();
    fs::write(&certificate, &other).unwrap();
    let from_file = || SigningKey::from_file(&key, Algorithm::Ps256);
    let with_pem = from_file().certificate_pem(&other).unwrap();
    for key in [from_file().certificate_file(&certificate), with_pem] {
        assert_eq!(
            key.check_key().unwrap_err().kind(),
            ConfigErrorKind::Conflict
        );
        let endpoint = tokens();
        let client = PrivateKeyJwt::new("orders", key);
        let error = fetch(at_endpoint(&endpoint, client)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Credentials);
        assert!(
            chain(&error).contains("is of another key"),
            "{}",
            chain(&error)
        );
        assert_eq!(endpoint.count(), 0);
    }
    fs::write(&certificate, pem("rsa_certificate")).unwrap();
    let key = from_file().certificate_file(&certificate);
    key.check_key().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_file_that_is_replaced_signs_the_next_assertion() {
    let mount = Mount::new();
    let (key, certificate) = (mount.path("tls.key"), mount.path("tls.crt"));
    let files = |name: &str| {
        [
            ("tls.key", pem(name)),
            ("tls.crt", pem(&format!("{name}_certificate"))),
        ]
    };
    let key = SigningKey::from_file(&key, Algorithm::Es256).certificate_file(&certificate);
    let endpoint = tokens();
    let client = PrivateKeyJwt::new("orders", key);
    let manager = at_endpoint(&endpoint, client).start().unwrap();
    // The key is mounted after the start. A key for another algorithm is never sent.
    for name in ["p256", "rsa", "p256"] {
        let ((), token) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                mount.write(&files(name));
            },
            manager.access_token(),
        );
        token.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    manager.access_token().await.unwrap();
    for assertion in assertions(&endpoint) {
        assert!(verify(&assertion, "p256_public", Algorithm::Es256));
    }
    assert!(endpoint.count() >= 2);

    // A newer key of the same type.
    let path = mount.path("ed25519");
    fs::write(&path, pem("ed25519")).unwrap();
    let endpoint = tokens();
    let client = PrivateKeyJwt::new("orders", SigningKey::from_file(&path, Algorithm::EdDsa));
    let source = at_endpoint(&endpoint, client).build_source().unwrap();
    let _old = source.fetch().await.unwrap();
    fs::write(&path, pem("ed25519_newer")).unwrap();
    let _new = source.fetch().await.unwrap();
    let verified = assertions(&endpoint).into_iter();
    let verified: Vec<bool> = verified
        .map(|jwt| verify(&jwt, "ed25519_public", Algorithm::EdDsa))
        .collect();
    assert_eq!(verified, [true, false]);
}

#[tokio::test(start_paused = true)]
async fn an_unusable_key_file_is_a_transient_error_that_names_the_file_and_no_key() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key");
    let too_long = format!("{}{}", pem("ed25519"), "s3cr3t\n".repeat(10_000));
    let (folder_path, pipe) = (folder.path().join("folder"), folder.path().join("pipe"));
    fs::create_dir(&folder_path).unwrap();
    create_pipe(&pipe);
    let write = |text: &str| fs::write(&path, text).unwrap();
    let cases: [(&Path, &dyn Fn(), &str); 7] = [
        (&path, &|| {}, "cannot be read"),
        (&path, &|| write(""), "is not PEM"),
        (&path, &|| write(&too_long), "more than 65536 bytes"),
        (&path, &|| write(&pem("p256")), "does not sign with EdDSA"),
        (&path, &|| write(&pem("rsa_encrypted")), "is encrypted"),
        (&folder_path, &|| {}, "not a regular file"),
        (&pipe, &|| {}, "not a regular file"),
    ];
    for (path, prepare, expected) in cases {
        prepare();
        let endpoint = tokens();
        let key = SigningKey::from_file(path, Algorithm::EdDsa);
        let client = PrivateKeyJwt::new("orders", key.clone());
        let error = fetch(at_endpoint(&endpoint, client)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Credentials);
        let shown = chain(&error);
        assert!(shown.contains(expected), "{shown}");
        let path = path.to_str().unwrap();
        assert!(shown.contains(path), "{shown}");
        // The name of the folder is random.
        let rest = shown.replace(path, "");
        assert!(!rest.contains("s3cr3t") && !rest.contains("MI"), "{rest}");
        assert!(key.check_key().unwrap_err().to_string().contains(expected));
        assert_eq!(endpoint.count(), 0);
    }
}

/// In settings, where the name of an algorithm is one more thing to get wrong.
#[tokio::test]
async fn a_key_of_settings_without_an_algorithm_signs_with_that_of_its_type() {
    for (name, algorithm) in [
        ("rsa", Algorithm::Rs256),
        ("rsa_pkcs1", Algorithm::Rs256),
        ("p256_sec1", Algorithm::Es256),
        ("p384", Algorithm::Es384),
        ("p521", Algorithm::Es512),
        ("ed25519", Algorithm::EdDsa),
    ] {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("key.pem");
        fs::write(&file, pem(name)).unwrap();
        let document = json!({
            "token_endpoint": TOKEN_URL,
            "client_id": "orders",
            "client_authentication": "private_key_jwt",
            "client_key_file": file,
        });
        let settings: ClientSettings = serde_json::from_value(document).unwrap();
        let endpoint = tokens();
        let builder = settings.to_builder().unwrap();
        fetch(builder.transport(endpoint.clone())).await.unwrap();
        let assertion = assertions(&endpoint).remove(0);
        assert_eq!(decode(&assertion).0["alg"], algorithm.name(), "{name}");
        let public_key = format!("{}_public", name.split('_').next().unwrap());
        assert!(verify(&assertion, &public_key, algorithm), "{name}");
    }
}
