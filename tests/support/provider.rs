// A provider without a network: its documents and its tokens, in the shapes that it documents.
// Shared by the tests and, through `include!`, by the examples of `guide::providers`.

use std::sync::{Arc, Mutex, OnceLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};
use tower_oauth::transport::{SendFuture, Transport};

pub const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
pub const APPLICATION: &str = "6e74172b-be56-4843-9ff4-e66a39bb12e3";

/// A provider. The fields may be changed before it is used.
#[derive(Clone, Debug)]
pub struct Provider {
    pub metadata_url: &'static str,
    /// With `issuer`, `jwks_uri` and `token_endpoint`.
    pub metadata: Value,
    /// The JWK Set.
    pub keys: Value,
    /// Header and claims of an access token.
    pub header: Value,
    pub claims: Value,
    /// The error code for a token request that lacks what this provider requires.
    check: fn(&TokenRequest) -> Result<(), &'static str>,
    requests: Arc<Mutex<Vec<TokenRequest>>>,
}

/// A request to the token endpoint.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    pub headers: HeaderMap,
    pub form: String,
}

impl TokenRequest {
    fn parameter(&self, name: &str) -> Option<String> {
        let mut form = url::form_urlencoded::parse(self.form.as_bytes());
        form.find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    }

    fn scopes(&self) -> Vec<String> {
        let scopes = self.parameter("scope").unwrap_or_default();
        scopes.split_whitespace().map(str::to_owned).collect()
    }

    /// The client whose secret is in the header.
    fn basic_client(&self) -> Option<String> {
        let field = self.headers.get("authorization")?.to_str().ok()?;
        let pair = STANDARD.decode(field.strip_prefix("Basic ")?).ok()?;
        let pair = String::from_utf8(pair).ok()?;
        Some(pair.split_once(':')?.0.to_owned())
    }

    /// Whether the request has the grant type, and authenticates a client by one method.
    fn check(&self) -> Result<(), &'static str> {
        let has = |name| self.parameter(name).is_some();
        match self.parameter("grant_type").as_deref() {
            Some("client_credentials") => {}
            Some("urn:ietf:params:oauth:grant-type:jwt-bearer") if has("assertion") => {
                return Ok(());
            }
            _ => return Err("unsupported_grant_type"),
        }
        let methods = [
            self.basic_client().is_some(),
            has("client_id") && has("client_secret"),
            has("client_assertion_type") && has("client_assertion"),
        ];
        match methods.into_iter().filter(|is_used| *is_used).count() {
            1 => Ok(()),
            _ => Err("invalid_client"),
        }
    }
}

impl Provider {
    fn new(metadata_url: &'static str, metadata: Value, key: Value) -> Self {
        let kid = key["kid"].clone();
        Self {
            metadata_url,
            metadata,
            keys: json!({ "keys": [jwk(key)] }),
            header: json!({ "alg": "RS256", "kid": kid }),
            claims: json!({ "iat": now(), "exp": now() + 3600 }),
            check: |_| Ok(()),
            requests: Arc::default(),
        }
    }

    /// Requires more of each token request. `check` returns the error code.
    fn with_check(mut self, check: fn(&TokenRequest) -> Result<(), &'static str>) -> Self {
        self.check = check;
        self
    }

    fn with_header(mut self, members: Value) -> Self {
        merge(&mut self.header, members);
        self
    }

    /// Adds claims to the tokens, or removes those that are `null`.
    pub fn with_claims(mut self, claims: Value) -> Self {
        merge(&mut self.claims, claims);
        self
    }

    /// Adds the issuer of the metadata to the tokens.
    fn with_issuer_of_metadata(mut self) -> Self {
        self.claims["iss"] = self.metadata["issuer"].clone();
        self
    }

    /// An access token.
    pub fn token(&self) -> String {
        self.token_with(json!({}))
    }

    /// A token that differs in these claims; `null` removes one.
    pub fn token_with(&self, changes: Value) -> String {
        self.sign(json!({}), changes)
    }

    /// A token that differs in these header parameters and claims; `null` removes one.
    pub fn sign(&self, header_changes: Value, changes: Value) -> String {
        let (mut header, mut claims) = (self.header.clone(), self.claims.clone());
        merge(&mut header, header_changes);
        merge(&mut claims, changes);
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", encode(&header), encode(&claims));
        let signature = match header["alg"].as_str() {
            Some("ES256") => {
                let signature = ec().sign(&SystemRandom::new(), input.as_bytes());
                signature.unwrap().as_ref().to_vec()
            }
            _ => {
                let mut signature = vec![0; rsa_key().public_modulus_len()];
                let random = SystemRandom::new();
                let signed =
                    rsa_key().sign(&RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature);
                signed.unwrap();
                signature
            }
        };
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Publishes one more key.
    pub fn publish(&mut self, key: Value) {
        self.keys["keys"].as_array_mut().unwrap().push(jwk(key));
    }

    /// The requests to the token endpoint.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// The realm `shop` of a Keycloak at `https://sso.example`.
    pub fn keycloak() -> Self {
        let metadata = json!({
            "issuer": "https://sso.example/realms/shop",
            "jwks_uri": "https://sso.example/realms/shop/protocol/openid-connect/certs",
            "token_endpoint": "https://sso.example/realms/shop/protocol/openid-connect/token",
        });
        let key = json!({
            "kid": "MG1bWvnrRVw1mKS2YzsTYyvTlZ3j0DYKsHZ9JsNFGPE", "kty": "RSA", "alg": "RS256",
            "use": "sig", "x5c": ["MIIC"], "x5t": "jZYJYG9Z", "x5t#S256": "Yv4nBSK1",
        });
        let url = "https://sso.example/realms/shop/.well-known/openid-configuration";
        let mut keycloak = Self::new(url, metadata, key).with_issuer_of_metadata();
        let encryption = json!({ "kid": "enc", "kty": "RSA", "alg": "RSA-OAEP", "use": "enc" });
        keycloak.publish(encryption);
        keycloak
            .with_header(json!({ "typ": "JWT" }))
            .with_claims(json!({
                "jti": "trrtcc:6a0f0b0e", "aud": ["orders", "account"], "typ": "Bearer", "acr": "1",
                "sub": "6b7b2d12-4f27-4b6e-8b4e-6f5f6a4c8f7e", "azp": "shop", "client_id": "shop",
                "scope": "profile email orders.read", "email_verified": false,
                "realm_access": { "roles": ["auditor", "offline_access"] },
                "resource_access": {
                    "orders": { "roles": ["reader"] }, "account": { "roles": ["view-profile"] },
                },
                "clientHost": "10.0.0.7", "preferred_username": "service-account-shop",
            }))
    }

    /// The tenant [`TENANT`] of Entra, with tokens for [`APPLICATION`].
    pub fn entra() -> Self {
        let base = format!("https://login.microsoftonline.com/{TENANT}");
        let metadata = json!({
            "issuer": format!("{base}/v2.0"),
            "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        });
        let key = json!({
            "kty": "RSA", "use": "sig", "kid": "-KI3Q9nNR7bRofxmeZoXqbHZGew", "x5c": ["MIIC"],
            "x5t": "-KI3Q9nNR7bRofxmeZoXqbHZGew", "cloud_instance_name": "microsoftonline.com",
            "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
        });
        let url = "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0\
                   /.well-known/openid-configuration";
        let entra = Self::new(url, metadata, key).with_issuer_of_metadata();
        entra
            // One scope: `/.default` of an API.
            .with_check(|request| match &request.scopes()[..] {
                [] => Err("invalid_request"),
                [scope] if scope.ends_with("/.default") => Ok(()),
                _ => Err("invalid_scope"),
            })
            .with_header(json!({ "typ": "JWT" }))
            .with_claims(json!({
                "aud": APPLICATION, "nbf": now(), "aio": "k2RgYHi9", "azpacr": "1",
                "azp": "9d1a6b9f-0c0d-4a39-8d57-4a8d2a4a0c11", "idtyp": "app", "rh": "0.AXkA",
                "oid": "3a7b9c1d-2222-4f4f-9e9e-123456789abc", "roles": ["Orders.Read.All"],
                "sub": "3a7b9c1d-2222-4f4f-9e9e-123456789abc", "tid": TENANT, "uti": "wJ5h",
                "ver": "2.0",
            }))
    }

    /// The tenant `shop.eu.auth0.com`, with tokens for the API `https://orders.example`.
    pub fn auth0() -> Self {
        let metadata = json!({
            "issuer": "https://shop.eu.auth0.com/",
            "jwks_uri": "https://shop.eu.auth0.com/.well-known/jwks.json",
            "token_endpoint": "https://shop.eu.auth0.com/oauth/token",
        });
        let key = json!({
            "kty": "RSA", "use": "sig", "kid": "NjVBRjY5MDlC", "alg": "RS256", "x5c": ["MIIC"],
            "x5t": "NjVBRjY5",
        });
        let url = "https://shop.eu.auth0.com/.well-known/openid-configuration";
        let auth0 = Self::new(url, metadata, key).with_issuer_of_metadata();
        auth0
            .with_check(|request| {
                // Its application has *Client Secret (Post)*.
                let is_basic = request.basic_client().as_deref() == Some("K1AUPhZq8mRi0Q0p");
                match request.parameter("audience").as_deref() {
                    _ if is_basic => Err("invalid_client"),
                    Some("https://orders.example") => Ok(()),
                    _ => Err("access_denied"),
                }
            })
            .with_header(json!({ "typ": "JWT" }))
            .with_claims(json!({
                "aud": "https://orders.example", "sub": "K1AUPhZq8mRi0Q0p@clients",
                "azp": "K1AUPhZq8mRi0Q0p", "scope": "read:orders", "gty": "client-credentials",
                "permissions": ["read:orders"],
            }))
    }

    /// The authorization server `default` of `shop.okta.com`.
    pub fn okta() -> Self {
        let metadata = json!({
            "issuer": "https://shop.okta.com/oauth2/default",
            "jwks_uri": "https://shop.okta.com/oauth2/default/v1/keys",
            "token_endpoint": "https://shop.okta.com/oauth2/default/v1/token",
        });
        let key = json!({
            "kty": "RSA", "alg": "RS256", "kid": "ZkvelLN_seik7w4pc_prCcfUf", "use": "sig",
        });
        let url = "https://shop.okta.com/oauth2/default/.well-known/openid-configuration";
        let okta = Self::new(url, metadata, key).with_issuer_of_metadata();
        // The server has no default scopes.
        let okta = okta.with_check(|request| match request.scopes().is_empty() {
            true => Err("invalid_scope"),
            false => Ok(()),
        });
        okta.with_claims(json!({
            "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "aud": "api://default", "cid": "0oabv6kx4qq6h1U5l0h7", "scp": ["orders.read"],
            "sub": "0oabv6kx4qq6h1U5l0h7",
        }))
    }

    /// The user pool `eu-west-1_Example1`.
    pub fn cognito() -> Self {
        let metadata = json!({
            "issuer": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example1",
            "jwks_uri": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example1\
                         /.well-known/jwks.json",
            "token_endpoint": "https://shop.auth.eu-west-1.amazoncognito.com/oauth2/token",
        });
        let key = json!({ "alg": "RS256", "kid": "1234example=", "kty": "RSA", "use": "sig" });
        let url = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example1\
                   /.well-known/openid-configuration";
        let cognito = Self::new(url, metadata, key).with_issuer_of_metadata();
        cognito.with_claims(json!({
            "sub": "7ol0h0kd3rk4b4q6n1m3v5u8a2", "token_use": "access", "version": 2,
            "scope": "orders/read", "auth_time": now(), "jti": "8a8a8a8a-1111",
            "client_id": "7ol0h0kd3rk4b4q6n1m3v5u8a2",
        }))
    }

    /// Google, with ID tokens of a service account for `https://orders.example`.
    pub fn google() -> Self {
        let metadata = json!({
            "issuer": "https://accounts.google.com",
            "jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
            "token_endpoint": "https://oauth2.googleapis.com/token",
        });
        let key = json!({
            "kty": "RSA", "alg": "RS256", "kid": "c8ab71530972bba20b49f78a09c9852c43ff9118",
            "use": "sig",
        });
        let url = "https://accounts.google.com/.well-known/openid-configuration";
        let google = Self::new(url, metadata, key).with_issuer_of_metadata();
        google
            .with_header(json!({ "typ": "JWT" }))
            .with_claims(json!({
                "aud": "https://orders.example", "azp": "113774264463038321964",
                "email": "shop@project.iam.gserviceaccount.com", "email_verified": true,
                "sub": "113774264463038321964",
            }))
    }

    /// The instance `shop-ab12.zitadel.cloud`, with tokens for the project `344374183645413380`.
    pub fn zitadel() -> Self {
        let metadata = json!({
            "issuer": "https://shop-ab12.zitadel.cloud",
            "jwks_uri": "https://shop-ab12.zitadel.cloud/oauth/v2/keys",
            "token_endpoint": "https://shop-ab12.zitadel.cloud/oauth/v2/token",
        });
        let key = json!({
            "use": "sig", "kty": "RSA", "kid": "344373908297744389", "alg": "RS256",
        });
        let url = "https://shop-ab12.zitadel.cloud/.well-known/openid-configuration";
        let zitadel = Self::new(url, metadata, key).with_issuer_of_metadata();
        zitadel
            // Without them, Zitadel issues a token that is not for the project, or has no roles.
            .with_check(|request| {
                let required = [
                    "openid",
                    "urn:zitadel:iam:org:project:id:344374183645413380:aud",
                    "urn:zitadel:iam:org:projects:roles",
                ];
                let scopes = request.scopes();
                let is_sent = |scope| scopes.iter().any(|sent| sent == scope);
                match required.into_iter().all(is_sent) {
                    true => Ok(()),
                    false => Err("invalid_scope"),
                }
            })
            .with_header(json!({ "typ": "JWT" }))
            .with_claims(json!({
                "sub": "345377791925026818", "aud": ["344374183645413380"], "nbf": now(),
                "client_id": "shop", "jti": "V2_345377791925026819-at_345377791925092355",
                "urn:zitadel:iam:org:project:344374183645413380:roles": {
                    "reader": { "344373908297744388": "shop.example" },
                },
            }))
    }

    /// The project `abcdefghijklmnopqrst`, which publishes no metadata here.
    pub fn supabase() -> Self {
        let metadata = json!({
            "issuer": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
            "jwks_uri":
                "https://abcdefghijklmnopqrst.supabase.co/auth/v1/.well-known/jwks.json",
        });
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "ext": true, "key_ops": ["verify"],
            "kid": "b81269f1-21d8-4f2e-b719-c2240a840d90", "use": "sig",
        });
        let supabase = Self::new("", metadata, key).with_issuer_of_metadata();
        let header = json!({ "alg": "ES256", "typ": "JWT" });
        supabase.with_header(header).with_claims(json!({
            "sub": "123e4567-e89b-12d3-a456-426614174000", "aud": "authenticated",
            "email": "ada@example.com", "phone": "", "role": "authenticated", "aal": "aal1",
            "app_metadata": { "provider": "email", "providers": ["email"] }, "user_metadata": {},
            "amr": [{ "method": "password", "timestamp": now() }],
            "session_id": "5b4c2a90-7a1b-4b39-9f6e-1f6e7d0d8a11", "is_anonymous": false,
        }))
    }
}

impl Transport for Provider {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let url = request.uri().to_string();
        let named = |member: &str| self.metadata[member] == url.as_str();
        let (status, body) = if url == self.metadata_url {
            (StatusCode::OK, self.metadata.clone())
        } else if named("jwks_uri") {
            (StatusCode::OK, self.keys.clone())
        } else if named("token_endpoint") {
            let form = String::from_utf8_lossy(request.body()).into_owned();
            let headers = request.headers().clone();
            let request = TokenRequest { headers, form };
            let checked = request.check().and_then(|()| (self.check)(&request));
            self.requests.lock().unwrap().push(request);
            match checked {
                Ok(()) => {
                    let body = json!({
                        "access_token": self.token(), "token_type": "Bearer", "expires_in": 3600,
                    });
                    (StatusCode::OK, body)
                }
                Err(code) => (StatusCode::BAD_REQUEST, json!({ "error": code })),
            }
        } else {
            (StatusCode::NOT_FOUND, Value::Null)
        };
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        Box::pin(async { Ok(response) })
    }
}

/// Adds the public numbers to a key.
fn jwk(mut key: Value) -> Value {
    let numbers = match key["kty"].as_str() {
        Some("EC") => {
            let point = ec().public_key().as_ref();
            let (x, y) = (&point[1..33], &point[33..]);
            json!({ "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) })
        }
        _ => {
            let key = rsa_key().public_key();
            let n = key.modulus().big_endian_without_leading_zero();
            json!({ "n": URL_SAFE_NO_PAD.encode(n), "e": "AQAB" })
        }
    };
    merge(&mut key, numbers);
    key
}

/// Adds members to an object, or removes those that are `null`.
fn merge(object: &mut Value, members: Value) {
    let Value::Object(members) = members else {
        panic!("not an object: {members}")
    };
    let object = object.as_object_mut().unwrap();
    for (name, value) in members {
        match value.is_null() {
            true => drop(object.remove(&name)),
            false => drop(object.insert(name, value)),
        }
    }
}

/// Generated once, because it takes long.
fn rsa_key() -> &'static RsaKeyPair {
    static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
    KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
}

fn ec() -> &'static EcdsaKeyPair {
    static KEY: OnceLock<EcdsaKeyPair> = OnceLock::new();
    KEY.get_or_init(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}
