//! Token format and JOSE header: one test for each attack.

use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::key_set::{KeySet, SkipReason, SkippedKey};
use tower_oauth::resource_server::RejectionKind::{
    InvalidClaims, InvalidRequest, InvalidSignature, Malformed, MissingProofOfPossession,
    TokenTooLong, UnexpectedTokenType, UnknownKey, UnsupportedAlgorithm,
};
use tower_oauth::resource_server::{Algorithm, TokenProfile};
use tower_oauth::{Audience, Issuer, Rejection, ResourceServer};

use crate::support::{
    self, Fixture, ISSUER, NOW, ROCA_MODULUS, bearer, claims, compact, decoded, encode, rsa,
};

#[test]
fn every_algorithm_is_accepted_with_a_matching_key() {
    let fixture = Fixture::new();
    let payload = claims().to_string();
    for (alg, kid, key) in [
        ("RS256", "rsa", fixture.rsa),
        ("RS384", "rsa", fixture.rsa),
        ("RS512", "rsa", fixture.rsa),
        ("PS256", "rsa", fixture.rsa),
        ("PS384", "rsa", fixture.rsa),
        ("PS512", "rsa", fixture.rsa),
        ("ES256", "p256", &fixture.p256),
        ("ES384", "p384", &fixture.p384),
        ("ES512", "p521", &fixture.p521),
        ("EdDSA", "ed", &fixture.ed25519),
        ("Ed25519", "ed", &fixture.ed25519),
    ] {
        let header = json!({ "alg": alg, "kid": kid, "typ": "JWT" }).to_string();
        let context = fixture.assert_accepts(&compact(key, alg, &header, payload.as_bytes()));
        assert_eq!(context.subject(), Some("app"), "{alg}");
    }
}

/// CVE-2015-9235, CVE-2020-28042, CVE-2021-22160 (Pulsar: `none`), CVE-2020-15084 (no algorithms)
#[test]
fn alg_none_in_any_spelling_and_empty_signatures_are_rejected() {
    let fixture = Fixture::new();
    for alg in [
        json!("none"),
        json!("nOnE"),
        json!("None"),
        json!(""),
        json!("RS256\0"),
        json!("none\0"),
    ] {
        let header = json!({ "alg": alg, "kid": "rsa" }).to_string();
        fixture.assert_rejects(&fixture.with_header(&header), UnsupportedAlgorithm);
    }
    fixture.assert_rejects(
        &fixture.with_header(r#"{"kid":"rsa"}"#),
        UnsupportedAlgorithm,
    );
    for alg in ["null", "[\"RS256\"]", "1", "{}", "true"] {
        fixture.assert_rejects(
            &fixture.with_header(&format!(r#"{{"alg":{alg},"kid":"rsa"}}"#)),
            Malformed,
        );
    }
    let good = fixture.token(&claims());
    let unsigned = good.rsplit_once('.').unwrap().0;
    fixture.assert_rejects(&format!("{unsigned}."), Malformed);
    fixture.assert_rejects(unsigned, Malformed);
    fixture.assert_rejects(&format!("{unsigned}.AA"), InvalidSignature);
}

/// CVE-2016-10555, CVE-2017-11424, CVE-2022-29217, CVE-2024-33663, CVE-2024-37568, CVE-2024-54150,
/// CVE-2023-48223, CVE-2023-48238, CVE-2026-39999, CVE-2026-44351, CVE-2026-34950, CVE-2025-65945:
/// HMAC with a public key as the secret
#[test]
fn hmac_with_a_public_or_empty_key_is_rejected() {
    use aws_lc_rs::hmac;
    let fixture = Fixture::new();
    let jwk = fixture.rsa.jwk("rsa");
    let secrets = [
        jwk["n"].as_str().unwrap().as_bytes().to_vec(),
        jwk.to_string().into_bytes(),
        Vec::new(),
    ];
    for (alg, algorithm) in [
        ("HS256", hmac::HMAC_SHA256),
        ("HS384", hmac::HMAC_SHA384),
        ("HS512", hmac::HMAC_SHA512),
    ] {
        for secret in &secrets {
            for kid in ["rsa", "p256", "ed", "secret"] {
                let header = json!({ "alg": alg, "kid": kid }).to_string();
                let input = format!("{}.{}", encode(header), encode(claims().to_string()));
                let tag = hmac::sign(&hmac::Key::new(algorithm, secret), input.as_bytes());
                fixture.assert_rejects(&format!("{input}.{}", encode(tag)), UnsupportedAlgorithm);
            }
        }
    }
    // An `oct` key in the set is skipped and reported.
    let oct = json!({ "kty": "oct", "kid": "secret", "k": encode([7; 32]), "alg": "HS256" });
    let keys = json!({ "keys": [jwk, oct] });
    let keys = KeySet::from_json(keys.to_string().as_bytes()).unwrap();
    assert_eq!(
        keys.skipped()
            .map(|skipped| (skipped.kid(), skipped.reason()))
            .collect::<Vec<_>>(),
        [(Some("secret"), SkipReason::Symmetric)]
    );
}

/// CVE-2026-22817, CVE-2026-22818 (Hono: the header chooses the algorithm), CVE-2021-46743
#[test]
fn the_algorithm_must_be_allowed_by_key_and_issuer() {
    let mut jwk = rsa(0).jwk("rsa");
    jwk["alg"] = json!("RS256");
    let keys = KeySet::from_json(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let fixture = Fixture::with(|issuer| issuer.keys(keys.clone()));
    let payload = claims().to_string();
    for alg in [
        "RS384", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA",
    ] {
        let header = json!({ "alg": alg, "kid": "rsa" }).to_string();
        fixture.assert_rejects(
            &compact(fixture.rsa, alg, &header, payload.as_bytes()),
            UnsupportedAlgorithm,
        );
    }
    // A curve that does not belong to the algorithm.
    let fixture = Fixture::new();
    let header = r#"{"alg":"ES256","kid":"p384"}"#;
    fixture.assert_rejects(
        &compact(&fixture.p384, "ES256", header, payload.as_bytes()),
        UnsupportedAlgorithm,
    );
    // Registered, but not allowed for this issuer.
    let fixture = Fixture::with(|issuer| issuer.algorithms([Algorithm::Es256]));
    fixture.assert_rejects(&fixture.token(&claims()), UnsupportedAlgorithm);
    for alg in ["ES256K", "RSA-OAEP", "dir", "HS256", "Ed448", "ML-DSA-44"] {
        fixture.assert_rejects(
            &fixture.with_header(&json!({ "alg": alg, "kid": "rsa" }).to_string()),
            UnsupportedAlgorithm,
        );
    }
}

/// CVE-2018-0114 (node-jose: embedded `jwk`)
#[test]
fn keys_in_the_jose_header_are_ignored() {
    let url = "https://evil.example/keys";
    let fixture = Fixture::new();
    let own = rsa(1);
    for (name, value) in [
        ("jwk", own.jwk("mine")),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
    ] {
        for (kid, kind) in [("mine", UnknownKey), ("rsa", InvalidSignature)] {
            let mut header = json!({ "alg": "RS256", "kid": kid });
            header[name] = value.clone();
            fixture.assert_rejects(
                &compact(
                    own,
                    "RS256",
                    &header.to_string(),
                    claims().to_string().as_bytes(),
                ),
                kind,
            );
        }
        // With a key of the issuer they are accepted: Entra sends `x5t`.
        let mut header = json!({ "alg": "RS256", "kid": "rsa" });
        header[name] = value;
        fixture.assert_accepts(&fixture.with_header(&header.to_string()));
    }
}

/// With an issuer whose keys are fetched: URLs in a token are never requested.
#[tokio::test(start_paused = true)]
async fn urls_in_the_jose_header_are_never_fetched() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let issuer = support::issuer::ScriptedIssuer::new(json!({ "keys": [rsa(0).jwk("rsa")] }));
    let server = ResourceServer::builder(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(support::AUDIENCE).unwrap(),
    )
    .transport(issuer.clone())
    .clock(ManualClock::at(UnixTime::from_secs(NOW)))
    .start()
    .await
    .unwrap();
    for name in ["jku", "x5u"] {
        for kid in ["mine", "rsa"] {
            let mut header = json!({ "alg": "RS256", "kid": kid });
            header[name] = json!(url);
            let token = compact(
                rsa(1),
                "RS256",
                &header.to_string(),
                claims().to_string().as_bytes(),
            );
            let service = server.layer().layer(service_fn(|_: Request<()>| async {
                Ok::<_, std::convert::Infallible>(Response::new(()))
            }));
            let request = Request::builder()
                .header("authorization", format!("Bearer {token}"))
                .body(())
                .unwrap();
            assert_eq!(service.oneshot(request).await.unwrap().status(), 401);
        }
    }
    assert!(
        issuer.urls().iter().all(|url| url.starts_with(ISSUER)),
        "{:?}",
        issuer.urls()
    );
    assert!(issuer.fetches() > 1, "the unknown kid caused a refresh");
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
}

/// CVE-2026-32597, CVE-2025-59420, GHSA-hm7r-c7qw-ghp6: `crit` ignored
#[test]
fn crit_and_b64_in_any_form_are_rejected() {
    let fixture = Fixture::new();
    for member in [
        r#""crit":["exp"],"exp":1"#,
        r#""crit":["unknown"],"unknown":1"#,
        r#""crit":["absent"]"#,
        r#""crit":["alg"]"#,
        r#""crit":["a","a"],"a":1"#,
        r#""crit":[]"#,
        r#""crit":"b64""#,
        r#""crit":{}"#,
        r#""crit":null"#,
        r#""crit":["b64"],"b64":false"#,
        r#""crit":["b64"],"b64":true"#,
        r#""b64":false"#,
        r#""\u0063rit":["x"]"#,
    ] {
        fixture.assert_rejects(
            &fixture.with_header(&format!(r#"{{"alg":"RS256","kid":"rsa",{member}}}"#)),
            Malformed,
        );
    }
}

#[test]
fn key_ids_of_the_wrong_type_or_length_are_rejected() {
    let fixture = Fixture::new();
    for kid in [
        "7",
        "{}",
        "[]",
        "null",
        "true",
        r#""""#,
        r#""a\u0000""#,
        r#""a\nb""#,
        r#""\u001b[31m""#,
    ] {
        fixture.assert_rejects(
            &fixture.with_header(&format!(r#"{{"alg":"RS256","kid":{kid}}}"#)),
            Malformed,
        );
    }
    fixture.assert_rejects(
        &fixture.with_header(&json!({ "alg": "RS256", "kid": "k".repeat(256) }).to_string()),
        Malformed,
    );
    // Well-formed, but unknown.
    for kid in [
        "../../dev/null",
        "' OR 1=1 --",
        "rsа",
        "RSA",
        " rsa",
        "rsa ",
        &"k".repeat(255),
    ] {
        fixture.assert_rejects(
            &fixture.with_header(&json!({ "alg": "RS256", "kid": kid }).to_string()),
            UnknownKey,
        );
    }
}

/// Entra signs a token for Microsoft Graph with the digest of the `nonce` in its header, and sends
/// the `nonce` itself.
#[test]
fn a_token_that_is_signed_with_another_header_than_its_own_is_rejected() {
    let fixture = Fixture::new();
    let with_nonce = |nonce| {
        let header = json!({ "alg": "RS256", "kid": "rsa", "nonce": nonce }).to_string();
        fixture.with_header(&header)
    };
    let (signed, sent) = (with_nonce("its digest"), with_nonce("its text"));
    fixture.assert_accepts(&signed);
    fixture.assert_accepts(&sent);
    let (header, _) = sent.split_once('.').unwrap();
    let (_, rest) = signed.split_once('.').unwrap();
    fixture.assert_rejects(&format!("{header}.{rest}"), InvalidSignature);
}

/// CVE-2022-21449 (psychic signatures)
#[test]
fn ecdsa_signatures_out_of_range_or_malformed_are_rejected() {
    let fixture = Fixture::new();
    let header = r#"{"alg":"ES256","kid":"p256"}"#;
    let good = compact(
        &fixture.p256,
        "ES256",
        header,
        claims().to_string().as_bytes(),
    );
    fixture.assert_accepts(&good);
    let (input, signature) = good.rsplit_once('.').unwrap();
    let signature = decoded(signature);
    let (r, s) = signature.split_at(32);
    // The order of P-256 (FIPS 186-4, D.1.2.3).
    let n = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let n: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&n[at..at + 2], 16).unwrap())
        .collect();
    let zero = vec![0; 32];
    let der = [&[0x30, 0x44, 0x02, 0x20], r, &[0x02, 0x20], s].concat();
    for bad in [
        [&zero[..], &zero].concat(),
        [&zero[..], s].concat(),
        [r, &zero].concat(),
        [&n[..], s].concat(),
        [r, &n].concat(),
        [&n[..], &n].concat(),
        der,
        signature[..63].to_vec(),
        [&signature[..], &[0]].concat(),
        [&[0], r, &[0], s].concat(),
        Vec::from([0; 96]),
    ] {
        fixture.assert_rejects(&format!("{input}.{}", encode(bad)), InvalidSignature);
    }
    // n - s is an equally valid signature: the bytes of a token do not identify it.
    let mut borrow = 0_i16;
    let mut mirrored = [0; 32];
    for at in (0..32).rev() {
        let difference = i16::from(n[at]) - i16::from(s[at]) - borrow;
        borrow = i16::from(difference < 0);
        mirrored[at] = u8::try_from(difference + 256 * borrow).unwrap();
    }
    fixture.assert_accepts(&format!("{input}.{}", encode([r, &mirrored].concat())));
}

#[test]
fn ed25519_small_order_and_out_of_range_values_are_rejected() {
    // The published vectors are in the crate's `vectors` tests; this is one as a token.
    let fixture = Fixture::new();
    let header = r#"{"alg":"EdDSA","kid":"ed"}"#;
    let good = compact(
        &fixture.ed25519,
        "EdDSA",
        header,
        claims().to_string().as_bytes(),
    );
    fixture.assert_accepts(&good);
    let (input, signature) = good.rsplit_once('.').unwrap();
    let mut signature = decoded(signature);
    signature[63] |= 0xe0; // S is far above the order now.
    fixture.assert_rejects(&format!("{input}.{}", encode(&signature)), InvalidSignature);
    let small_order = [&[1][..], &[0; 63]].concat();
    fixture.assert_rejects(
        &format!("{input}.{}", encode(small_order)),
        InvalidSignature,
    );
    for x in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let okp = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(x) });
        let set = json!({ "keys": [fixture.rsa.jwk("rsa"), okp] });
        let keys = KeySet::from_json(set.to_string().as_bytes()).unwrap();
        assert_eq!(
            keys.skipped().map(SkippedKey::reason).collect::<Vec<_>>(),
            [SkipReason::Invalid]
        );
    }
}

/// CVE-2022-23539, CVE-2022-23540, CVE-2022-23541: weak keys; CVE-2017-15361: ROCA
#[test]
fn weak_rsa_keys_are_skipped() {
    let good = fixture_jwk();
    let skipped = |n: &str, e: &str| {
        let set = json!({ "keys": [good, { "kty": "RSA", "kid": "weak", "n": n, "e": e }] });
        let keys = KeySet::from_json(set.to_string().as_bytes()).unwrap();
        keys.skipped()
            .map(SkippedKey::reason)
            .collect::<Vec<_>>()
            .first()
            .copied()
    };
    let n = good["n"].as_str().unwrap();
    assert_eq!(skipped(n, "AQAB"), None);
    for e in ["AQ", "AA", "Ag", "AQAC", &encode([1, 0, 0, 0, 1])] {
        assert!(skipped(n, e).is_some(), "e = {e}");
    }
    let odd = |bytes: usize| encode([&vec![0xff; bytes - 1][..], &[0x01]].concat());
    for bytes in [64, 128, 255, 1025, 2048] {
        assert_eq!(
            skipped(&odd(bytes), "AQAB"),
            Some(SkipReason::Weak),
            "{bytes} bytes"
        );
    }
    // Leading zeros and padding are spelling: the limits are those of the number.
    let with_zeros = |bytes: usize, zeros: usize| {
        let number = [&vec![0xff; bytes - 1][..], &[0x01]].concat();
        encode([vec![0; zeros], number].concat())
    };
    assert_eq!(skipped(&with_zeros(256, 1), "AAEAAQ=="), None);
    for (bytes, zeros) in [(255, 1), (128, 128), (1025, 3)] {
        let n = with_zeros(bytes, zeros);
        assert_eq!(skipped(&n, "AQAB"), Some(SkipReason::Weak), "{bytes}");
    }
    assert_eq!(skipped(n, "AAE"), Some(SkipReason::Weak), "e = 1");
    assert_eq!(skipped(ROCA_MODULUS, "AQAB"), Some(SkipReason::Weak));
}

fn fixture_jwk() -> Value {
    rsa(0).jwk("rsa")
}

#[test]
fn base64url_is_strict_in_each_segment() {
    let fixture = Fixture::new();
    let good = fixture.token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    for which in 0..3 {
        for spoil in ["=", "==", "+", "/", "?", "A"] {
            let mut spoiled: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            // "A" gives a length of 1 modulo 4, or trailing bits that are not zero.
            while spoil == "A" && spoiled[which].len() % 4 != 1 {
                spoiled[which].push('A');
            }
            if spoil != "A" {
                spoiled[which].push_str(spoil);
            }
            let result =
                support::poll_once_or_panic(fixture.validate(&spoiled.join("."))).map(|_| ());
            // A longer signature may be well-formed base64url and still be invalid.
            assert!(
                result == Err(Malformed) || result == Err(InvalidSignature),
                "{which} {spoil:?} {result:?}"
            );
        }
    }
    // With a signature over the modified text: the modification is the only defect.
    for which in 0..2 {
        for spoil in ["=", "==", "+", "/", " ", "\t", "\r\n", "\u{0}"] {
            let mut spoiled: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            spoiled[which].push_str(spoil);
            let input = format!("{}.{}", spoiled[0], spoiled[1]);
            let token = format!(
                "{input}.{}",
                encode(fixture.rsa.sign("RS256", input.as_bytes()))
            );
            // Without a request, because no field can have each of these bytes.
            let result = support::poll_once_or_panic(fixture.server.validate(&token));
            assert_eq!(result.unwrap_err().kind(), Malformed, "{which} {spoil:?}");
            if spoil.bytes().all(|byte| byte.is_ascii_graphic()) {
                fixture.assert_rejects(&token, Malformed);
            }
        }
    }
    // Trailing bits: a 256-byte signature ends in a character of which four bits count.
    let last = good.chars().last().unwrap();
    let next = char::from(u8::try_from(u32::from(last)).unwrap() + 1);
    fixture.assert_rejects(&format!("{}{next}", &good[..good.len() - 1]), Malformed);
}

/// The signature covers the modified text: the white space is the only defect.
#[test]
fn white_space_in_a_segment_is_a_bad_request_and_without_a_request_malformed() {
    let fixture = Fixture::new();
    let good = fixture.token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    for which in 0..3 {
        for space in [" ", "\t", "  "] {
            let mut spoiled: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            spoiled[which].insert_str(4, space);
            let input = format!("{}.{}", spoiled[0], spoiled[1]);
            if which < 2 {
                spoiled[2] = encode(fixture.rsa.sign("RS256", input.as_bytes()));
            }
            let token = spoiled.join(".");
            let response =
                support::poll_once_or_panic(fixture.send(bearer(&token, Full::default())));
            let rejection = response.extensions().get::<Rejection>().unwrap();
            assert_eq!(
                (response.status(), rejection.kind()),
                (StatusCode::BAD_REQUEST, InvalidRequest),
                "{which} {space:?}"
            );
            let challenge = &response.headers()[header::WWW_AUTHENTICATE];
            let challenge = challenge.to_str().unwrap();
            assert!(
                challenge.contains(r#"error="invalid_request""#),
                "{challenge}"
            );
            let result = support::poll_once_or_panic(fixture.server.validate(&token));
            assert_eq!(result.unwrap_err().kind(), Malformed, "{which} {space:?}");
        }
    }
}

/// CVE-2022-39227 (python-jwt: polyglot), CVE-2025-30204, CVE-2025-27144, CVE-2025-22868 (split on
/// dots)
#[test]
fn tokens_without_exactly_three_segments_are_rejected() {
    let fixture = Fixture::new();
    let good = fixture.token(&claims());
    for token in [
        "a".to_owned(),
        "a.b".to_owned(),
        good.replace('.', ""),
        format!("{good}.AAAA"),
        format!("{good}.AAAA.AAAA"),
        "..".to_owned(),
        "...".to_owned(),
        ".".repeat(15_000),
    ] {
        fixture.assert_rejects(&token, Malformed);
    }
    // A JWE has five segments; JSON serializations have no dots, or the wrong number.
    fixture.assert_rejects(
        "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..48V1_ALb6US04U3b._A.XFBoMYUZodetZdvTiFvSkQ",
        Malformed,
    );
    let parts: Vec<&str> = good.split('.').collect();
    for json in [
        json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] }).to_string(),
        format!(r#"{{"{}":"x","protected":"{}"}}"#, good, parts[0]),
    ] {
        fixture.assert_rejects(&json, Malformed);
    }
    fixture.assert_rejects(&".".repeat(65_000), TokenTooLong);
}

/// CVE-2026-29000 (pac4j: unsigned token within a JWE), CVE-2023-51774 (JWE accepted as a JWS), and
/// the JWE bombs CVE-2024-33664, CVE-2024-28180, CVE-2024-28176, CVE-2024-28122, CVE-2024-21319,
/// CVE-2023-52428, CVE-2023-50658, CVE-2023-51775
#[test]
fn nested_compressed_and_encrypted_tokens_are_rejected() {
    let fixture = Fixture::new();
    for member in [
        r#""cty":"JWT""#,
        r#""cty":"jwt""#,
        r#""zip":"DEF""#,
        r#""enc":"A256GCM""#,
        r#""zip":null"#,
    ] {
        fixture.assert_rejects(
            &fixture.with_header(&format!(r#"{{"alg":"RS256","kid":"rsa",{member}}}"#)),
            Malformed,
        );
    }
    for alg in ["dir", "RSA-OAEP", "PBES2-HS256+A128KW"] {
        // At any position of `alg`.
        let header = format!(r#"{{"enc":"A256GCM","alg":"{alg}","p2c":100000000}}"#);
        fixture.assert_rejects(&fixture.with_header(&header), UnsupportedAlgorithm);
        let header = header.replace(r#"{"enc":"A256GCM","#, r#"{"x":{},"enc":"A256GCM","#);
        fixture.assert_rejects(&fixture.with_header(&header), UnsupportedAlgorithm);
    }
}

#[test]
fn the_typ_header_must_name_an_access_token() {
    let fixture = Fixture::new();
    let with_typ = |fixture: &Fixture, typ: &str| {
        let header = json!({ "alg": "RS256", "kid": "rsa", "typ": typ }).to_string();
        let claims = support::claims_with(json!({ "client_id": "app", "jti": "1" }));
        compact(fixture.rsa, "RS256", &header, claims.to_string().as_bytes())
    };
    for typ in [
        "JWT",
        "jwt",
        "JOSE",
        "at+jwt",
        "AT+JWT",
        "application/at+jwt",
        "Application/At+Jwt",
        "application/jwt",
        "application/JWT",
        "APPLICATION/jwt",
        "application/jose",
        "Application/JOSE",
    ] {
        fixture.assert_accepts(&with_typ(&fixture, typ));
    }
    fixture.assert_accepts(&fixture.with_header(r#"{"alg":"RS256","kid":"rsa"}"#));
    for typ in [
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "id+jwt",
        "application/logout+jwt",
        "application/secevent+jwt",
        "application/id+jwt",
        "application/dpop+jwt",
        "application/application/jwt",
        "application/",
        "application/jwt;v=1",
        "text/jwt",
        "JWE",
        "",
        "at+jwt ",
    ] {
        fixture.assert_rejects(&with_typ(&fixture, typ), UnexpectedTokenType);
    }
    for typ in ["7", "null", "[\"JWT\"]"] {
        fixture.assert_rejects(
            &fixture.with_header(&format!(r#"{{"alg":"RS256","kid":"rsa","typ":{typ}}}"#)),
            Malformed,
        );
    }
    // ID tokens, logout tokens and Keycloak's other types, signed with the same keys.
    for (name, value) in [
        ("at_hash", json!("x")),
        ("c_hash", json!("x")),
        ("events", json!({})),
        ("typ", json!("ID")),
        ("typ", json!("Refresh")),
        ("typ", json!("Offline")),
        ("typ", json!("Logout")),
    ] {
        fixture.assert_rejects(
            &fixture.token(&support::claims_with(json!({ name: value }))),
            UnexpectedTokenType,
        );
    }
    fixture.assert_accepts(&fixture.token(&support::claims_with(json!({ "typ": "Bearer" }))));
    // RFC 9068 §4
    let strict = Fixture::with(|issuer| issuer.profile(TokenProfile::Rfc9068));
    for typ in [
        "at+jwt",
        "application/at+jwt",
        "AT+jwt",
        "APPLICATION/at+JWT",
    ] {
        strict.assert_accepts(&with_typ(&strict, typ));
    }
    for typ in ["JWT", "JOSE", "application/jwt", "dpop+jwt"] {
        strict.assert_rejects(&with_typ(&strict, typ), UnexpectedTokenType);
    }
    strict.assert_rejects(
        &strict.with_header(r#"{"alg":"RS256","kid":"rsa"}"#),
        UnexpectedTokenType,
    );
    // RFC 9068 §2.2: `client_id` and `jti` are missing here.
    strict.assert_rejects(
        &strict.with_header(r#"{"alg":"RS256","kid":"rsa","typ":"at+jwt"}"#),
        InvalidClaims,
    );
}

/// CVE-2025-53864 (Nimbus: deep JSON)
#[test]
fn token_size_depth_and_member_count_are_limited() {
    let fixture = Fixture::new();
    let mut large = claims();
    large["x"] = json!("x".repeat(11_000));
    fixture.assert_accepts(&fixture.token(&large));
    large["x"] = json!("x".repeat(16 * 1024));
    fixture.assert_rejects(&fixture.token(&large), TokenTooLong);
    let header = json!({ "alg": "RS256", "kid": "rsa", "x": "x".repeat(7000) }).to_string();
    fixture.assert_rejects(&fixture.with_header(&header), TokenTooLong);
    for (depth, fine) in [(31, true), (32, false), (2000, false)] {
        let payload = claims().to_string().replacen(
            '{',
            &format!(r#"{{"x":{}{},"#, "[".repeat(depth), "]".repeat(depth)),
            1,
        );
        let result = support::poll_once_or_panic(
            fixture.validate(&fixture.with_payload(payload.as_bytes())),
        )
        .is_ok();
        assert_eq!(result, fine, "{depth}");
    }
    for (members, fine) in [(200, true), (300, false)] {
        let mut many = claims();
        for member in 0..members {
            many[format!("m{member}")] = json!(0);
        }
        assert_eq!(
            support::poll_once_or_panic(fixture.validate(&fixture.token(&many))).is_ok(),
            fine,
            "{members}"
        );
    }
    for (members, fine) in [(200, true), (300, false)] {
        let nested: serde_json::Map<String, Value> =
            (0..members).map(|n| (format!("m{n}"), json!(0))).collect();
        let result = support::poll_once_or_panic(
            fixture.validate(&fixture.token(&support::claims_with(json!({ "x": nested })))),
        );
        assert_eq!(result.is_ok(), fine, "{members} members of a member");
    }
    for number in [
        "9".repeat(5000),
        "9".repeat(300),
        format!("1.{}", "0".repeat(5000)),
        format!("1e{}1", "0".repeat(99)),
    ] {
        for member in [
            format!(r#"{{"x":{number},"#),
            format!(r#"{{"x":[[{number}]],"#),
        ] {
            let payload = claims().to_string().replacen('{', &member, 1);
            fixture.assert_rejects(&fixture.with_payload(payload.as_bytes()), Malformed);
        }
    }
    fixture.assert_accepts(&fixture.token(&support::claims_with(json!({ "x": "9".repeat(300) }))));
}

#[test]
fn a_sender_constrained_token_is_rejected_as_a_bearer_token() {
    let fixture = Fixture::new();
    for cnf in [
        json!({ "jkt": "x" }),
        json!({ "x5t#S256": "x" }),
        json!({}),
        json!("x"),
        json!([]),
        json!(7),
    ] {
        let mut claims = claims();
        claims["cnf"] = cnf;
        fixture.assert_rejects(&fixture.token(&claims), MissingProofOfPossession);
    }
    let payload = claims().to_string().replacen('{', r#"{"cnf":null,"#, 1);
    fixture.assert_rejects(
        &fixture.with_payload(payload.as_bytes()),
        MissingProofOfPossession,
    );
}
