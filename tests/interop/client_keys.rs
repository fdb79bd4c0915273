//! Keys and certificates of clients that authenticate without a secret.

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::transport::ReqwestTransport;

use crate::support::{self, PrivateKey};

/// A private key that signs with this algorithm, in PEM, and the JWK Set with its public key, which
/// is registered at the authorization server.
pub fn signing_key(algorithm: Algorithm) -> (SecretString, Value) {
    let name = algorithm.name();
    let generated;
    let key = match name {
        "EdDSA" => {
            generated = support::ed25519();
            &generated
        }
        "ES256" => {
            generated = support::p256();
            &generated
        }
        "ES384" => {
            generated = support::p384();
            &generated
        }
        "ES512" => {
            generated = support::p521();
            &generated
        }
        _ => support::rsa(0),
    };
    let mut jwk = key.jwk(name);
    jwk["alg"] = json!(name);
    (pem(key), json!({ "keys": [jwk] }))
}

/// A private key in PKCS #8 and PEM (RFC 7468 §10).
pub fn pem(key: &PrivateKey) -> SecretString {
    let der = match key {
        PrivateKey::Rsa(pair) => {
            let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
            der.as_ref().to_vec()
        }
        PrivateKey::Ec(pair, _) => pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        PrivateKey::Ed25519(pair) => pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
    };
    support::pem("PRIVATE KEY", &der).into()
}

/// A self-signed certificate for `localhost` and its P-256 key, in files of PEM.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The public key.
    jwk: Value,
}

impl Certificate {
    /// Makes one with OpenSSL. Its subject is `CN={name}`, and `name` is one of its DNS names.
    pub fn new(folder: &Path, name: &str) -> Self {
        let [config, certificate, key] =
            ["cnf", "crt", "key"].map(|extension| folder.join(format!("{name}.{extension}")));
        // rustls accepts no certificate of an authority, which is OpenSSL's default, as that of a
        // server.
        let settings = format!(
            "[req]\nprompt=no\ndistinguished_name=name\nx509_extensions=extensions\n\
             [name]\nCN={name}\n\
             [extensions]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:{name},DNS:localhost\n"
        );
        std::fs::write(&config, settings).unwrap();
        let pair = support::p256();
        std::fs::write(&key, pem(&pair).expose_secret()).unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-days", "2", "-config"])
            .arg(&config)
            .arg("-key")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl");
        let errors = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{errors}");
        Self {
            certificate,
            key,
            jwk: pair.jwk(name),
        }
    }

    /// The JWK Set with its public key and `x5c` (RFC 7517 §4.7), which is registered for
    /// `self_signed_tls_client_auth` (RFC 8705 §2.2.2).
    pub fn jwks(&self) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["x5c"] = json!([STANDARD.encode(self.der())]);
        json!({ "keys": [jwk] })
    }

    /// Its `x5t#S256` (RFC 8705 §3.1).
    pub fn thumbprint(&self) -> String {
        support::encode(digest::digest(&digest::SHA256, &self.der()))
    }

    fn der(&self) -> Vec<u8> {
        let text = self.text();
        let lines = text.lines().filter(|line| !line.starts_with('-'));
        STANDARD.decode(lines.collect::<String>()).unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.certificate).unwrap()
    }

    /// A transport that shows it to a server with another certificate.
    pub fn transport(&self, server: &Self) -> ReqwestTransport {
        let server = server.root();
        let client = move || trusting(server.clone());
        let (certificate, key) = (&self.certificate, &self.key);
        ReqwestTransport::from_builder_with_client_certificate(client, certificate, key).unwrap()
    }

    /// The builder of a client that trusts it.
    pub fn trusting_client(&self) -> reqwest::ClientBuilder {
        trusting(self.root())
    }

    fn root(&self) -> reqwest::Certificate {
        reqwest::Certificate::from_pem(self.text().as_bytes()).unwrap()
    }
}

fn trusting(server: reqwest::Certificate) -> reqwest::ClientBuilder {
    let client = reqwest::Client::builder().no_proxy();
    client.tls_certs_merge([server])
}
