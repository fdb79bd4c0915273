//! Private keys and the assertions that they sign.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use tempfile::TempDir;
use tower_oauth::PrivateKeyJwt;
use tower_oauth::client::{ClientAuthentication, JwtBearerGrant, NoAuthentication, SigningKey};
use tower_oauth::resource_server::Algorithm;

use super::*;

/// The shortest part of a key that counts as a copy: less than the 32 bytes of two of the keys.
const KEY_WINDOW: usize = 24;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Ps256];

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----\n";

/// The child: prints each key as DER and as PEM.
fn print_keys() {
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    for der in [
        ec.to_pkcs8v1().unwrap().as_ref(),
        ed25519.to_pkcs8v1().unwrap().as_ref(),
        rsa.as_ref(),
    ] {
        print(der);
        let body = STANDARD.encode(der);
        let lines = body.as_bytes().chunks(64);
        let lines = lines.map(|line| format!("{}\n", str::from_utf8(line).unwrap()));
        let body = lines.collect::<String>();
        print(format!("{BEGIN}{body}-----END PRIVATE KEY-----\n"));
    }
}

/// Where the DER has what is private.
fn private_part(algorithm: Algorithm, der: &[u8]) -> Range<usize> {
    match algorithm {
        // RFC 5915 §3: before the public key.
        Algorithm::Es256 => 36..68,
        // RFC 8410 §7: at the end.
        Algorithm::EdDsa => der.len() - 32..der.len(),
        // RFC 8017 §A.1.2: the prime factors and what is derived from them are the last members.
        _ => der.len() - 600..der.len(),
    }
}

/// The private part of a key: as DER, as the words of a number, and in the PEM text.
fn secrets_of_key(number: usize, der: &[u8], pem: &[u8]) -> [Secret; 3] {
    let private = private_part(ALGORITHMS[number], der);
    let bytes = der[private.clone()].to_vec();
    let words = bytes.iter().rev().copied().collect();
    let position = |character: usize| BEGIN.len() + character + character / 64;
    let lines = position(private.start.div_ceil(3) * 4)..position(private.end / 3 * 4);
    let mut text = Secret::new(number, pem.to_vec());
    text.unique = std::iter::once(lines).collect();
    [Secret::new(number, bytes), Secret::new(number, words), text]
}

fn unmask(masked: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(masked.iter().map(|byte| byte ^ MASK).collect())
}

/// A token endpoint that keeps the signatures of the assertions, masked.
#[derive(Clone, Debug, Default)]
struct Signatures(Arc<Mutex<Vec<Vec<u8>>>>);

impl Transport for Signatures {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let form = request.body();
        let name = b"assertion="; // of the client, or of the grant
        let start = form.windows(name.len()).position(|window| window == name);
        let assertion = form[start.unwrap() + name.len()..].split(|byte| *byte == b'&');
        let signature = assertion
            .take(1)
            .flat_map(|jwt| jwt.rsplit(|byte| *byte == b'.').next());
        let masked = signature.flatten().map(|byte| byte ^ MASK).collect();
        self.0.lock().unwrap().push(masked);
        let body = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#;
        Box::pin(async { Ok(Response::new(body.into())) })
    }
}

/// Sends a token request with an assertion that this key signed. `then` runs while the manager has
/// the key.
fn request_token(key: SigningKey, is_grant: bool, signatures: &Signatures, then: impl FnOnce()) {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::new("https://as.example/token").unwrap();
        let client = PrivateKeyJwt::new("shop", key);
        let tokens = if is_grant {
            let none: Arc<dyn ClientAuthentication> = Arc::new(NoAuthentication);
            TokenManager::builder(endpoint, none).grant(JwtBearerGrant::signed(client))
        } else {
            let client: Arc<dyn ClientAuthentication> = Arc::new(client);
            TokenManager::builder(endpoint, client)
        };
        let tokens = tokens.transport(signatures.clone()).start().unwrap();
        assert_eq!(tokens.access_token().await.unwrap().expose_secret(), "t");
        then();
    });
}

fn write(path: &Path, masked: &[u8]) {
    std::fs::write(path, &*unmask(masked)).unwrap();
}

/// A service account with the key of this PEM text. The buffer does not grow.
fn service_account(pem: &[u8]) -> Zeroizing<String> {
    let mut json = Zeroizing::new(String::with_capacity(8192));
    json.push_str(r#"{"type":"service_account","client_email":"a@b.example","private_key":""#);
    for byte in pem {
        match byte {
            b'\n' => json.push_str("\\n"),
            byte => json.push(char::from(*byte)),
        }
    }
    json.push_str(r#""}"#);
    json
}

#[test]
fn no_copy_of_a_private_key_or_an_assertion_outlives_its_use() {
    if is_child() {
        return print_keys();
    }
    let _alone = alone();
    let texts = texts_of_child(test_name!());
    let (keys, rest) = texts.as_chunks::<2>();
    assert!(keys.len() == ALGORITHMS.len() && rest.is_empty());
    let secrets = keys.iter().enumerate();
    let secrets = secrets.flat_map(|(number, [der, pem])| secrets_of_key(number, der, pem));
    let mut search = Search::new(secrets.collect(), KEY_WINDOW);
    assert!(
        search.found().is_empty(),
        "the test has no key in the clear"
    );

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key.pem");
    let signatures = Signatures::default();
    for (number, ([_, masked], algorithm)) in keys.iter().zip(ALGORITHMS).enumerate() {
        let text = String::from_utf8(std::mem::take(&mut *unmask(masked))).unwrap();
        let text = SecretString::from(text);
        assert_eq!(search.found(), [number], "the search finds a PEM text");
        let key = SigningKey::from_pem(text, algorithm).unwrap();
        assert_eq!(search.found(), [number], "it finds a parsed key");
        request_token(key.clone(), false, &signatures, || {});
        assert_eq!(search.found(), [number], "a clone has the key");
        drop(key);
        assert!(search.found().is_empty(), "{algorithm}: a dropped key");

        // A key from a file is in memory only while it signs.
        write(&path, masked);
        let key = SigningKey::from_file(&path, algorithm);
        key.check_key().unwrap();
        assert!(search.found().is_empty(), "{algorithm}: a checked file");
        for is_grant in [false, true] {
            request_token(key.clone(), is_grant, &signatures, || {
                assert!(search.found().is_empty(), "{algorithm}: a file");
            });
        }
        // The error of a file with another key.
        write(&path, &[masked.as_slice(), masked].concat());
        let error = SigningKey::from_file(&path, algorithm).check_key();
        assert!(error.unwrap_err().to_string().contains("several"));
        assert!(search.found().is_empty(), "{algorithm}: an invalid file");
    }

    // The JSON of a service account, whose parser replaces `\n` in the key.
    let [_, masked] = &keys[2];
    let mut json = service_account(&unmask(masked));
    let text = SecretString::from(json.as_str());
    let builder = TokenManager::google_service_account(text).unwrap();
    // As far as the parser goes: what follows might overwrite its copies by chance.
    json.pop();
    json.push_str(r#","token_uri":5}"#);
    let text = SecretString::from(json.as_str());
    drop(json);
    let error = TokenManager::google_service_account(text).map(drop);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("line 1, column"), "{error}");
    assert_eq!(search.found(), [2], "the builder has the key");
    drop(builder);
    assert!(search.found().is_empty(), "a dropped service account");

    // The assertions were sent, so that nothing needs them any more.
    let signatures = std::mem::take(&mut *signatures.0.lock().unwrap());
    assert_eq!(signatures.len(), 3 * ALGORITHMS.len());
    let secrets = signatures.into_iter().enumerate();
    let secrets = secrets.map(|(number, masked)| Secret::new(number, masked));
    let mut search = Search::new(secrets.collect(), TOKEN_WINDOW);
    let held = unmask(&search.secrets[1].masked);
    assert_eq!(search.found(), [1], "the search finds a signature");
    drop(held);
    assert_eq!(search.found(), Vec::<usize>::new(), "sent assertions");
}
