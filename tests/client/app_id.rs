//! App ID: sources of a binding, and the management API on the wire.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_oauth::app_id::{
    ApplicationName, ApplicationType, Binding, IamApiKey, IamToken, IamTokenFuture,
    ManagementClient, ScopeName, Version,
};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::error::{ConfigErrorKind, ErrorKind, Operation};
use tower_oauth::transport::{SendFuture, Transport, TransportError};
use tower_oauth::{ConfigError, Endpoint, Issuer};

use crate::support::child_process::{is_child, run_again, test_name};
use crate::support::mount::Mount;
use crate::support::token_endpoint::{Reply, TokenEndpoint, TokioClock};

const TENANT: &str = "39a37f57-a227-4bfe-a044-93b6e6060b61";
const CLIENT: &str = "111c22c3-38ea-4de8-b5d4-338744d83b0f";
const SECRET: &str = "ZmE5ZDQ5ODctMmA1ZS00OGRiLWExZDMtZTA1MjkyZTc4MDB4";

fn url() -> String {
    format!("https://us-south.appid.cloud.ibm.com/oauth/v4/{TENANT}")
}

/// Credentials in the form that IBM Cloud issues today.
fn credentials() -> Value {
    json!({
        "apikey": "an-api-key",
        "appidServiceEndpoint": "https://us-south.appid.cloud.ibm.com",
        "clientId": CLIENT,
        "secret": SECRET,
        "discoveryEndpoint": format!("{}/.well-known/openid-configuration", url()),
        "managementUrl": format!("https://us-south.appid.cloud.ibm.com/management/v4/{TENANT}"),
        "oauthServerUrl": url(),
        "profilesUrl": "https://us-south.appid.cloud.ibm.com",
        "tenantId": TENANT,
        "version": 4,
        "iam_role_crn": "crn:v1:bluemix:public:iam::::serviceRole:Writer",
    })
}

fn vcap(name: &str) -> String {
    json!({ name: [{ "label": "AppID", "volume_mounts": [], "credentials": credentials() }] })
        .to_string()
}

fn lookup(variables: &[(&str, &str)]) -> Result<Option<Binding>, ConfigError> {
    Binding::from_lookup(|name| {
        variables
            .iter()
            .find(|(variable, _)| *variable == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

/// The binding from these variables.
fn bound(variables: &[(&str, &str)]) -> Binding {
    lookup(variables).unwrap().expect("a binding")
}

/// The error text for these variables. Asserts that it contains no secret in raw or encoded form.
fn error_for(variables: &[(&str, &str)]) -> String {
    let error = lookup(variables).expect_err("an error");
    let text = format!("{error} / {error:?}");
    assert!(!text.contains(SECRET), "{text}");
    error.to_string()
}

fn assert_whole(binding: &Binding) {
    assert_eq!(binding.tenant_id(), TENANT);
    assert_eq!(binding.client_id(), Some(CLIENT));
    assert_eq!(binding.secret().unwrap().expose_secret(), SECRET);
    assert_eq!(binding.oauth_server_url().as_str(), url());
    assert_eq!(binding.version(), Version::V4);
    assert_eq!(binding.issuer().as_str(), url());
    assert_eq!(binding.keys_url().as_str(), format!("{}/publickeys", url()));
    assert_eq!(
        binding.token_endpoint().as_str(),
        format!("{}/token", url())
    );
}

/// Creates a folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (file, text) in files {
        fs::write(folder.path().join(file), text).unwrap();
    }
    folder
}

#[test]
fn every_source_gives_the_same_binding() {
    let credentials = credentials().to_string();
    let files = folder(&[("any-name.json", &credentials)]);
    let file = files.path().join("any-name.json");
    let entry = folder(&[("binding", &credentials)]);
    // The layout of a Kubernetes mount. `echo` appended line ends.
    let keys = Mount::new();
    keys.write(&[
        ("clientId", CLIENT),
        ("secret", &format!("{SECRET}\n")),
        ("tenantId", &format!("{TENANT}\r\n")),
        ("oauthServerUrl", &url()),
        ("version", "4\n"),
        ("profilesUrl", "https://us-south.appid.cloud.ibm.com"),
    ]);
    let parsed = serde_json::from_str::<Value>(&credentials).unwrap();
    let ce = json!({ "appid": [{ "credentials": parsed }] });

    let sources = [
        ("VCAP_SERVICES", vcap("AppID")),
        ("VCAP_SERVICES", vcap("AppID-fl")),
        ("VCAP_SERVICES", vcap("AdvancedMobileAccess")),
        ("CE_SERVICES", ce.to_string()),
        ("APPID_SERVICE_BINDING", credentials),
        ("APPID_BINDING_FILE", file.display().to_string()),
        ("APPID_BINDING_FILE", entry.path().display().to_string()),
        ("APPID_BINDING_FILE", keys.folder().display().to_string()),
    ];
    for (variable, value) in &sources {
        let binding = bound(&[(variable, value)]);
        assert_whole(&binding);
        assert_eq!(binding.source(), Some(*variable));
    }
    for path in [&*file, entry.path(), keys.folder()] {
        assert_whole(&Binding::from_file(path).unwrap());
    }
    assert_whole(&Binding::from_vcap_services(&vcap("AppID")).unwrap());
    assert_whole(&Binding::from_ce_services(&ce.to_string()).unwrap());
    let binding = Binding::from_json(&sources[4].1).unwrap();
    assert_whole(&binding);
    let management = format!("https://us-south.appid.cloud.ibm.com/management/v4/{TENANT}");
    assert_eq!(binding.management_url().unwrap().as_str(), management);
    assert_eq!(binding.api_key().unwrap().expose_secret(), "an-api-key");
    let shown = format!("{binding:?}");
    assert!(
        !shown.contains(SECRET) && !shown.contains("an-api-key"),
        "{shown}"
    );

    let singles = bound(&[
        ("clientId", CLIENT),
        ("secret", SECRET),
        ("oauthServerUrl", &url()),
    ]);
    assert_whole(&singles);
    assert_eq!(singles.source(), None);
}

#[test]
fn the_environment_of_the_process_is_read() {
    if is_child() {
        let binding = Binding::from_env();
        return match std::env::var_os("clientId") {
            Some(_) => assert_whole(&binding.unwrap().unwrap()),
            None => assert_eq!(
                binding.unwrap_err().setting(),
                "VCAP_SERVICES and APPID_SERVICE_BINDING"
            ),
        };
    }
    let child = |variables: &[(&str, &str)]| run_again(test_name!(), variables);
    let only_url = json!({ "oauthServerUrl": url() }).to_string();
    child(&[
        ("APPID_SERVICE_BINDING", &only_url),
        ("clientId", CLIENT),
        ("secret", SECRET),
    ]);
    child(&[
        ("APPID_SERVICE_BINDING", &only_url),
        ("VCAP_SERVICES", &vcap("AppID")),
    ]);
}

#[test]
fn no_binding_without_app_id_settings() {
    for variables in [
        &[][..],
        &[("VCAP_SERVICES", "{}")],
        &[(
            "VCAP_SERVICES",
            r#"{"appid":[],"user-provided":[{"credentials":{"clientId":"x"}}]}"#,
        )],
        &[("CE_SERVICES", r#"{"AppID":[]}"#)],
        &[("APPID_SERVICE_BINDING", ""), ("oauthServerUrl", "")],
        // Names that have another meaning for other programs.
        &[
            ("version", "1.2.3"),
            ("secret", SECRET),
            ("tenantId", TENANT),
            ("clientId", CLIENT),
        ],
    ] {
        assert!(lookup(variables).unwrap().is_none(), "{variables:?}");
    }
    assert!(Binding::from_vcap_services("{}").is_err());
    assert!(Binding::from_ce_services("{}").is_err());
}

#[test]
fn vcap_services_uses_the_first_matching_service_in_document_order() {
    let text = |first: &str, second: &str| {
        let service = |name: &str, tenant: &str| {
            format!(
                r#""{name}":[{{"credentials":
                    {{"oauthServerUrl":"https://as.example/oauth/v4/{tenant}"}}}}]"#
            )
        };
        format!(
            r#"{{"kafka":[1],{},{}}}"#,
            service(first, "one"),
            service(second, "two")
        )
    };
    for names in [
        ("AppID", "AdvancedMobileAccess"),
        ("AdvancedMobileAccess", "AppID"),
        ("AppIDz", "AppIDa"),
    ] {
        let binding = Binding::from_vcap_services(&text(names.0, names.1)).unwrap();
        assert_eq!(binding.tenant_id(), "one", "{names:?}");
    }
}

#[test]
fn two_service_bindings_are_an_error_that_names_both() {
    let binding = credentials().to_string();
    let (vcap, ce) = (
        vcap("AppID"),
        json!({ "appid": [{ "credentials": credentials() }] }).to_string(),
    );
    let error = error_for(&[("VCAP_SERVICES", &vcap), ("CE_SERVICES", &ce)]);
    assert!(
        error.contains("VCAP_SERVICES") && error.contains("CE_SERVICES"),
        "{error}"
    );
    let error = error_for(&[
        ("VCAP_SERVICES", &vcap),
        ("APPID_SERVICE_BINDING", &binding),
    ]);
    assert!(
        error.contains("VCAP_SERVICES") && error.contains("APPID_SERVICE_BINDING"),
        "{error}"
    );
    let file = folder(&[("binding", &binding)]);
    let error = error_for(&[
        ("APPID_BINDING_FILE", file.path().to_str().unwrap()),
        ("APPID_SERVICE_BINDING", &binding),
    ]);
    assert!(
        error.contains("APPID_BINDING_FILE") && error.contains("APPID_SERVICE_BINDING"),
        "{error}"
    );

    // Other services are ignored.
    assert_whole(&bound(&[
        ("VCAP_SERVICES", r#"{"kafka":[{}]}"#),
        ("APPID_SERVICE_BINDING", &binding),
    ]));
}

#[test]
fn single_variables_fill_gaps_only() {
    let only_url = json!({ "oauthServerUrl": url(), "clientId": "", "secret": null }).to_string();
    let binding = bound(&[
        ("APPID_SERVICE_BINDING", &only_url),
        ("clientId", CLIENT),
        ("secret", SECRET),
        ("oauthServerUrl", "https://other.example/oauth/v4/other"),
        ("tenantId", "other"),
        ("version", "1.2.3"),
    ]);
    assert_whole(&binding);

    let binding = bound(&[
        ("APPID_SERVICE_BINDING", &credentials().to_string()),
        ("clientId", "another"),
        ("secret", "another"),
    ]);
    assert_whole(&binding);

    let no_url = json!({ "clientId": CLIENT, "secret": SECRET }).to_string();
    assert_whole(&bound(&[
        ("APPID_SERVICE_BINDING", &no_url),
        ("oAuthServerUrl", &url()),
    ]));
    let endpoint = json!({
        "clientId": CLIENT, "secret": SECRET,
        "appidServiceEndpoint": "https://us-south.appid.cloud.ibm.com//",
    });
    let endpoint = endpoint.to_string();
    let binding = bound(&[
        ("APPID_SERVICE_BINDING", &endpoint),
        ("version", "4"),
        ("tenantId", TENANT),
    ]);
    assert_whole(&binding);
}

#[test]
fn explicit_settings_override_the_environment() {
    let binding = Binding::builder()
        .client_id("mine")
        .secret("my-secret")
        .oauth_server_url(
            Endpoint::new(format!("https://gw.example/appid/oauth/v4/{TENANT}/")).unwrap(),
        )
        .issuer(Issuer::new("https://issuer.example").unwrap())
        .management_url(Endpoint::new("https://management.example").unwrap())
        .api_key("my-key")
        .build_from_lookup(|name| (name == "VCAP_SERVICES").then(|| vcap("AppID")))
        .unwrap()
        .unwrap();
    assert_eq!(binding.client_id(), Some("mine"));
    assert_eq!(binding.secret().unwrap().expose_secret(), "my-secret");
    let token_endpoint = format!("https://gw.example/appid/oauth/v4/{TENANT}/token");
    assert_eq!(binding.token_endpoint().as_str(), token_endpoint);
    assert_eq!(binding.issuer().as_str(), "https://issuer.example");
    assert_eq!(
        binding.management_url().unwrap().as_str(),
        "https://management.example/"
    );
    assert_eq!(binding.api_key().unwrap().expose_secret(), "my-key");
    assert_eq!(binding.tenant_id(), TENANT);

    // Empty strings are skipped, and an explicit endpoint overrides the binding's URL.
    let binding = Binding::builder()
        .client_id("")
        .secret("")
        .tenant_id("")
        .service_endpoint(Endpoint::new("https://eu-de.appid.cloud.ibm.com").unwrap())
        .build_from_lookup(|name| (name == "VCAP_SERVICES").then(|| vcap("AppID")))
        .unwrap()
        .unwrap();
    assert_eq!(binding.client_id(), Some(CLIENT));
    let url = format!("https://eu-de.appid.cloud.ibm.com/oauth/v4/{TENANT}");
    assert_eq!(binding.oauth_server_url().as_str(), url);

    let alone = Binding::builder()
        .service_endpoint(Endpoint::new("https://eu-de.appid.cloud.ibm.com").unwrap())
        .version(Version::V3)
        .tenant_id("t")
        .build()
        .unwrap();
    assert_eq!(
        alone.oauth_server_url().as_str(),
        "https://eu-de.appid.cloud.ibm.com/oauth/v3/t"
    );
    assert!(Binding::builder().client_id(CLIENT).build().is_err());
    let nothing = Binding::builder()
        .client_id(CLIENT)
        .build_from_lookup(|_| None)
        .unwrap();
    assert!(nothing.is_none());
    assert!(!format!("{:?}", Binding::builder().secret(SECRET).api_key(SECRET)).contains(SECRET));
}

#[test]
fn explicit_url_overrides_endpoint_and_alias_overrides_url() {
    let binding = Binding::from_json(
        r#"{"appidServiceEndpoint":"https://one.example","version":4,"tenantId":"t",
            "oauthServerUrl":"https://two.example/oauth/v4/t"}"#,
    );
    assert_eq!(
        binding.unwrap().oauth_server_url().as_str(),
        "https://two.example/oauth/v4/t"
    );
    let binding = Binding::from_json(
        r#"{"oauthServerUrl":"https://two.example/oauth/v4/t",
            "oAuthServerUrl":"https://three.example/oauth/v3/t//"}"#,
    )
    .unwrap();
    assert_eq!(
        binding.oauth_server_url().as_str(),
        "https://three.example/oauth/v3/t"
    );
    assert_eq!(binding.version().number(), 3);
}

#[test]
fn version_is_3_or_4_as_number_or_string() {
    let with = |version: &str| {
        Binding::from_json(&format!(
            r#"{{"appidServiceEndpoint":"https://as.example","tenantId":"t","version":{version}}}"#
        ))
    };
    for (version, number) in [("3", 3), ("4", 4), ("\"3\"", 3), ("\"4\"", 4)] {
        assert_eq!(with(version).unwrap().version().number(), number);
    }
    for version in ["5", "4.0", "\"4abc\"", "\"\"", "null", "true", "-4", "[4]"] {
        let error = with(version).expect_err(version).to_string();
        assert!(error.contains("version"), "{version}: {error}");
    }
}

#[test]
fn contradictory_settings_are_errors() {
    for json in [
        r#"{"oauthServerUrl":"https://as.example/oauth/v4/t","tenantId":"u"}"#,
        r#"{"oauthServerUrl":"https://as.example/oauth/v4/t","version":3}"#,
        r#"{"oauthServerUrl":"https://as.example/oauth/v4/t","version":"4abc"}"#,
    ] {
        let error = error_for(&[("APPID_SERVICE_BINDING", json)]);
        assert!(error.contains("of APPID_SERVICE_BINDING"), "{error}");
    }
    // The explicit tenant differs from the tenant whose secret would be sent.
    let torn = Binding::builder()
        .oauth_server_url(Endpoint::new("https://as.example/oauth/v4/other").unwrap())
        .build_from_lookup(|name| (name == "VCAP_SERVICES").then(|| vcap("AppID")));
    let torn = torn.unwrap_err();
    assert_eq!(torn.setting(), "tenantId of VCAP_SERVICES");
    assert_eq!(torn.kind(), ConfigErrorKind::Conflict);
    let torn = Binding::builder()
        .tenant_id("u")
        .oauth_server_url(Endpoint::new("https://as.example/oauth/v4/t").unwrap())
        .build();
    assert_eq!(torn.unwrap_err().setting(), "tenant_id");
}

#[test]
fn invalid_urls_and_tenants_are_errors() {
    for (url, tenant) in [
        ("ftp://as.example/oauth/v4/t", ""),
        ("https://user:ZmE5@as.example/oauth/v4/t", ""),
        ("https://as.example/oauth/v4/t?x=1", ""),
        ("https://as.example/oauth/v4/t#x", ""),
        ("https://as.example/oauth/v4", "t"),
        ("https://as.example/oauth/v5/t", "t"),
        ("https://as.example/oauth/v4/t/token", "t"),
        ("https://as.example/oauth/v4/t%2fu", ""),
        ("https://as.example/other", ""),
        ("https://as.example/other", "a/b"),
        ("https://as.example/other", ".."),
        ("as.example/oauth/v4/t", "t"),
    ] {
        let binding =
            json!({ "oauthServerUrl": url, "tenantId": tenant, "secret": SECRET }).to_string();
        let error = error_for(&[("APPID_SERVICE_BINDING", &binding)]);
        assert!(error.contains("APPID_SERVICE_BINDING"), "{url}: {error}");
        assert!(!error.contains("ZmE5"), "{error}");
    }
    let gateway =
        json!({ "oauthServerUrl": "https://as.example/other/", "tenantId": "t" }).to_string();
    let gateway = Binding::from_json(&gateway).unwrap();
    assert_eq!((gateway.tenant_id(), gateway.version()), ("t", Version::V4));
    assert_eq!(gateway.issuer().as_str(), "https://as.example/other");
}

#[test]
fn errors_name_the_variable_and_contain_no_secret() {
    let cut = credentials().to_string();
    let cut = &cut[..cut.len() - 1];
    let wrong_type = json!({ "oauthServerUrl": url(), "secret": [SECRET] }).to_string();
    let not_credentials = json!({ "AppID": [{ "credentials": SECRET }] }).to_string();
    let appid_string = json!({ "appid": SECRET }).to_string();
    let text = json!(SECRET).to_string();
    let latin = folder(&[]);
    fs::write(
        latin.path().join("binding"),
        [b"{\"secret\":\"", SECRET.as_bytes(), b"\xe9\"}"].concat(),
    )
    .unwrap();
    let large = folder(&[("binding", &" ".repeat((1 << 20) + 1))]);
    let empty = folder(&[]);
    let missing = empty.path().join("missing");
    let file = folder(&[("binding", cut)]);
    let (latin, large, empty, file) = (latin.path(), large.path(), empty.path(), file.path());
    let paths = [latin, large, empty, &missing, file].map(|path| path.display().to_string());
    let mut cases = vec![
        ("VCAP_SERVICES", cut),
        ("VCAP_SERVICES", SECRET),
        ("VCAP_SERVICES", &text),
        ("VCAP_SERVICES", &not_credentials),
        ("VCAP_SERVICES", r#"{"AppID":[]}"#),
        ("CE_SERVICES", cut),
        ("CE_SERVICES", &appid_string),
        ("APPID_SERVICE_BINDING", cut),
        ("APPID_SERVICE_BINDING", SECRET),
        ("APPID_SERVICE_BINDING", &text),
        ("APPID_SERVICE_BINDING", "[]"),
        ("APPID_SERVICE_BINDING", "{}"),
        ("APPID_SERVICE_BINDING", &wrong_type),
        ("oauthServerUrl", SECRET),
        ("appidServiceEndpoint", "ftp://as.example"),
    ];
    cases.extend(
        paths
            .iter()
            .map(|path| ("APPID_BINDING_FILE", path.as_str())),
    );
    for (variable, value) in cases {
        let error = error_for(&[(variable, value)]);
        assert!(error.contains(variable), "{variable}: {error}");
        assert!(
            !error.contains("ZmE5") && error.lines().count() == 1,
            "{error}"
        );
    }
    let error = error_for(&[
        ("appidServiceEndpoint", "https://as.example"),
        ("tenantId", "t"),
    ]);
    assert!(error.contains("version"), "{error}");
    let error = error_for(&[
        ("appidServiceEndpoint", "https://as.example"),
        ("version", "4"),
    ]);
    assert!(error.contains("tenantId"), "{error}");
}

#[test]
fn issuers_are_derived_from_the_oauth_url() {
    for (url, v4, v3) in [
        (
            "https://us-south.appid.cloud.ibm.com/oauth/v4/t",
            "https://us-south.appid.cloud.ibm.com/oauth/v4/t",
            "us-south.appid.cloud.ibm.com",
        ),
        (
            "https://eu-de.appid.cloud.ibm.com/oauth/v3/t",
            "https://eu-de.appid.cloud.ibm.com/oauth/v4/t",
            "eu-de.appid.cloud.ibm.com",
        ),
        (
            "https://appid-oauth.ng.bluemix.net/oauth/v3/t",
            "https://us-south.appid.cloud.ibm.com/oauth/v4/t",
            "appid-oauth.ng.bluemix.net",
        ),
        (
            "https://appid-oauth.eu-gb.bluemix.net/oauth/v4/t",
            "https://eu-gb.appid.cloud.ibm.com/oauth/v4/t",
            "appid-oauth.eu-gb.bluemix.net",
        ),
        (
            "https://appid-oauth.stage1.ng.bluemix.net/oauth/v3/t",
            "https://us-south.appid.test.cloud.ibm.com/oauth/v4/t",
            "appid-oauth.stage1.ng.bluemix.net",
        ),
        (
            "https://appid-oauth.stage1.eu-gb.bluemix.net/oauth/v3/t",
            "https://eu-gb.appid.test.cloud.ibm.com/oauth/v4/t",
            "appid-oauth.stage1.eu-gb.bluemix.net",
        ),
        (
            "https://ng.bluemix.net.example/oauth/v4/t",
            "https://ng.bluemix.net.example/oauth/v4/t",
            "ng.bluemix.net.example",
        ),
        (
            "http://127.0.0.1:6002/oauth/v3/t/",
            "http://127.0.0.1:6002/oauth/v4/t",
            "127.0.0.1:6002",
        ),
        (
            "http://[::1]:6002/oauth/v4/t",
            "http://[::1]:6002/oauth/v4/t",
            "[::1]:6002",
        ),
        (
            "https://as.example:443/oauth/v4/t",
            "https://as.example/oauth/v4/t",
            "as.example",
        ),
    ] {
        let binding = Binding::builder()
            .oauth_server_url(Endpoint::new(url).unwrap())
            .build()
            .unwrap();
        assert_eq!(binding.issuer().as_str(), v4, "{url}");
        assert_eq!(binding.v3_issuer().as_str(), v3, "{url}");
        assert_eq!(binding.tenant_id(), "t");
    }
}

#[tokio::test]
async fn version_3_base_url_requests_tokens_without_discovery() {
    for base in [
        "https://eu-de.appid.cloud.ibm.com/oauth/v3/t",
        "https://eu-de.appid.cloud.ibm.com/oauth/v3/t//",
    ] {
        let url = Endpoint::new(base).unwrap();
        let binding = Binding::builder()
            .oauth_server_url(url)
            .client_id("a")
            .secret("s")
            .build()
            .unwrap();
        let script = Script::default();
        script.push_response(
            200,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#,
        );
        let tokens = binding
            .token_manager()
            .unwrap()
            .transport(script.clone())
            .start()
            .unwrap();
        tokens.access_token().await.unwrap();
        assert_eq!(
            script.request().uri().to_string(),
            "https://eu-de.appid.cloud.ibm.com/oauth/v3/t/token",
            "the only request"
        );
    }
}

/// Records the requests and returns the scripted responses in order.
#[derive(Clone, Debug, Default)]
struct Script(Arc<Mutex<(VecDeque<Response<Bytes>>, Vec<Request<Bytes>>)>>);

impl Script {
    fn push_response(&self, status: u16, body: &(impl ToString + ?Sized)) -> &Self {
        let mut answer = Response::new(Bytes::from(body.to_string()));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        self.0.lock().unwrap().0.push_back(answer);
        self
    }

    /// The single request since the last call.
    fn request(&self) -> Request<Bytes> {
        let mut requests = std::mem::take(&mut self.0.lock().unwrap().1);
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }
}

impl Transport for Script {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let mut script = self.0.lock().unwrap();
        script.1.push(request);
        let answer = script
            .0
            .pop_front()
            .ok_or_else(|| TransportError::connect("no answer is left"));
        Box::pin(async { answer })
    }
}

fn management() -> (ManagementClient, Script) {
    let script = Script::default();
    let url = Endpoint::new(format!(
        "https://appid-management.ng.bluemix.net/management/v4/{TENANT}/"
    ))
    .unwrap();
    let client =
        ManagementClient::new(url, SecretString::from("IAM_TOKEN"), script.clone()).unwrap();
    (client, script)
}

/// Asserts method, path, headers and body of a management request.
fn assert_request(request: &Request<Bytes>, method: &Method, path: &str, body: Option<Value>) {
    assert_eq!(request.method(), method);
    assert_eq!(
        request.uri().to_string(),
        format!("https://appid-management.ng.bluemix.net/management/v4/{TENANT}/{path}")
    );
    assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer IAM_TOKEN");
    assert!(request.headers()[header::AUTHORIZATION].is_sensitive());
    match body {
        Some(body) => {
            assert_eq!(request.headers()[header::CONTENT_TYPE], "application/json");
            assert_eq!(
                serde_json::from_slice::<Value>(request.body()).unwrap(),
                body
            );
        }
        None => {
            assert!(
                request.body().is_empty() && !request.headers().contains_key(header::CONTENT_TYPE)
            );
        }
    }
}

/// The example response of IBM's documentation.
const REGISTERED: &str = r#"  {
  "clientId": "111c22c3-38ea-4de8-b5d4-338744d83b0f",
   "tenantId": "39a37f57-a227-4bfe-a044-93b6e6060b61",
  "secret": "ZmE5ZDQ5ODctMmA1ZS00OGRiLWExZDMtZTA1MjkyZTc4MDB4",
  "name": "ApplicationName",
   "oAuthServerUrl": "https://appid-oauth.eu-gb.bluemix.net/oauth/v3/39a37f57-a227-4bfe-a044-93b6e6060b61"
   }"#;

#[tokio::test]
async fn registration_matches_the_documented_exchange() {
    let (client, script) = management();
    script.push_response(200, REGISTERED);
    let application = client
        .register(&ApplicationName::new("ApplicationName").unwrap())
        .await
        .unwrap();
    let request = script.request();
    assert_request(
        &request,
        &Method::POST,
        "applications",
        Some(json!({ "name": "ApplicationName" })),
    );
    assert_eq!(request.body(), r#"{"name":"ApplicationName"}"#);

    assert_eq!(application.client_id(), CLIENT);
    assert_eq!(application.tenant_id(), TENANT);
    assert_eq!(application.secret().unwrap().expose_secret(), SECRET);
    assert_eq!(application.name(), "ApplicationName");
    assert_eq!(application.application_type(), None);
    assert!(!format!("{application:?}").contains(SECRET));

    let binding = application.binding().unwrap();
    assert_eq!(
        (binding.client_id(), binding.tenant_id()),
        (Some(CLIENT), TENANT)
    );
    assert_eq!(binding.secret().unwrap().expose_secret(), SECRET);
    let base = format!("https://appid-oauth.eu-gb.bluemix.net/oauth/v3/{TENANT}");
    assert_eq!(binding.token_endpoint().as_str(), format!("{base}/token"));
    assert_eq!(binding.version(), Version::V3);
    assert_eq!(
        binding.issuer().as_str(),
        format!("https://eu-gb.appid.cloud.ibm.com/oauth/v4/{TENANT}")
    );

    script.push_response(201, REGISTERED);
    let name = ApplicationName::new("é").unwrap();
    client
        .register_as(&name, ApplicationType::SinglePageApp)
        .await
        .unwrap();
    let body = json!({ "name": "é", "type": "singlepageapp" });
    assert_request(&script.request(), &Method::POST, "applications", Some(body));
}

#[tokio::test]
async fn applications_are_listed_read_renamed_and_deleted() {
    let (client, script) = management();
    let today = json!({
        "clientId": "c", "tenantId": TENANT, "name": "n", "type": "regularwebapp", "secret": "s",
        "oAuthServerUrl": url(), "profilesUrl": "https://us-south.appid.cloud.ibm.com",
        "discoveryEndpoint": format!("{}/.well-known/openid-configuration", url()),
        "scopes": ["reports.read"],
    });
    script.push_response(
        200,
        &json!({ "applications": [today, { "clientId": "spa", "tenantId": TENANT, "name": "b",
        "type": "singlepageapp", "oAuthServerUrl": url() }] }),
    );
    let list = client.applications().await.unwrap();
    assert_request(&script.request(), &Method::GET, "applications", None);
    assert_eq!(list.len(), 2);
    assert_eq!(
        list[0].application_type(),
        Some(ApplicationType::RegularWebApp)
    );
    assert_eq!(list[0].scopes()[0].as_str(), "reports.read");
    assert!(
        list[0]
            .discovery_endpoint()
            .unwrap()
            .as_str()
            .ends_with("/openid-configuration")
    );
    assert_eq!(list[0].oauth_server_url().as_str(), url());
    assert!(list[1].secret().is_none());

    script.push_response(200, &today);
    assert_eq!(client.application("c").await.unwrap().client_id(), "c");
    assert_request(&script.request(), &Method::GET, "applications/c", None);

    for status in [200, 201] {
        script.push_response(status, &today);
        client
            .rename("c", &ApplicationName::new("new").unwrap())
            .await
            .unwrap();
        assert_request(
            &script.request(),
            &Method::PUT,
            "applications/c",
            Some(json!({ "name": "new" })),
        );
    }

    script.push_response(204, "");
    client.delete("c").await.unwrap();
    assert_request(&script.request(), &Method::DELETE, "applications/c", None);
}

#[tokio::test]
async fn scopes_and_roles_are_read_and_replaced() {
    let (client, script) = management();
    script.push_response(200, r#"{"scopes":["read","write"]}"#);
    let scopes = client.scopes("c").await.unwrap();
    assert_request(
        &script.request(),
        &Method::GET,
        "applications/c/scopes",
        None,
    );
    assert_eq!(
        scopes
            .iter()
            .map(|scope| scope.as_str())
            .collect::<Vec<_>>(),
        ["read", "write"]
    );

    script.push_response(200, r#"{"scopes":["read"]}"#);
    client
        .set_scopes("c", &[ScopeName::new("read").unwrap()])
        .await
        .unwrap();
    let body = json!({ "scopes": ["read"] });
    assert_request(
        &script.request(),
        &Method::PUT,
        "applications/c/scopes",
        Some(body),
    );

    script.push_response(200, r#"{"roles":[{"id":"r1","name":"reader"}]}"#);
    let roles = client.roles("c").await.unwrap();
    assert_request(
        &script.request(),
        &Method::GET,
        "applications/c/roles",
        None,
    );
    assert_eq!((roles[0].id(), roles[0].name()), ("r1", "reader"));

    script.push_response(200, r#"{"roles":[]}"#);
    assert!(
        client
            .set_roles("c", &["r1", "r2"])
            .await
            .unwrap()
            .is_empty()
    );
    let body = json!({ "roles": { "ids": ["r1", "r2"] } });
    assert_request(
        &script.request(),
        &Method::PUT,
        "applications/c/roles",
        Some(body),
    );
}

#[tokio::test]
async fn client_ids_cannot_change_the_path() {
    let (client, script) = management();
    for (client_id, path) in [
        ("a/b", "applications/a%2Fb"),
        ("../roles", "applications/..%2Froles"),
        ("a?b#c", "applications/a%3Fb%23c"),
        ("%2e%2e", "applications/%252e%252e"),
    ] {
        script.push_response(204, "");
        client.delete(client_id).await.unwrap();
        assert_request(&script.request(), &Method::DELETE, path, None);
    }
    for client_id in ["", ".", "..", "a\nb", "é"] {
        let error = client.delete(client_id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{client_id:?}");
    }
    assert!(script.0.lock().unwrap().1.is_empty());
}

#[tokio::test]
async fn api_errors_keep_the_servers_message() {
    let (client, script) = management();
    script.push_response(
        400,
        r#"{"error":"invalid_name","error_description":"too long"}"#,
    );
    let error = client.applications().await.unwrap_err();
    assert_eq!(
        (error.operation(), error.kind()),
        (Operation::Management, ErrorKind::Refused)
    );
    assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
    let oauth_error = error.oauth_error().unwrap();
    assert_eq!(
        (oauth_error.code(), oauth_error.description()),
        ("invalid_name", Some("too long"))
    );

    script.push_response(403, r#"{"error_code":"FORBIDDEN"}"#);
    let error = client.applications().await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "FORBIDDEN");

    // The wrong region: nine bytes of plain text.
    script.push_response(404, "Not Found");
    let error = client.application("c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Status(StatusCode::NOT_FOUND));
    assert!(error.oauth_error().is_none() && error.url().unwrap().ends_with("/applications/c"));

    let mut busy = Response::new(Bytes::from_static(br#"{"error_code":"too many requests"}"#));
    *busy.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    busy.headers_mut()
        .insert(header::RETRY_AFTER, "30".parse().unwrap());
    script.0.lock().unwrap().0.push_back(busy);
    let error = client.applications().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));

    // A redirect would send the token elsewhere.
    script.push_response(302, "");
    let error = client.applications().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Status(StatusCode::FOUND));
}

#[tokio::test]
async fn errors_redact_keys_and_tokens_quoted_by_the_server() {
    let (client, script) = management();
    for code in ["error", "error_code", "errorCode"] {
        for description in ["error_description", "errorMessage", "message"] {
            for quote in ["IAM_TOKEN", "Bearer IAM_TOKEN", SECRET] {
                let text = format!("bad {quote} bad");
                script.push_response(
                    401,
                    &json!({ code: text, description: text, "secret": SECRET }),
                );
                let error = client.applications().await.unwrap_err();
                let oauth_error = error.oauth_error().unwrap();
                assert_eq!(
                    oauth_error.code(),
                    text.replace(quote.trim_start_matches("Bearer "), "[redacted]")
                );
                assert_eq!(oauth_error.description(), Some(oauth_error.code()));
                let shown = format!("{error} {error:?} {oauth_error:?}");
                assert!(
                    !shown.contains("TOKEN") && !shown.contains(SECRET),
                    "{shown}"
                );
            }
        }
    }
    let url = Endpoint::new("https://iam.cloud.ibm.com/identity/token").unwrap();
    let clock = ManualClock::at(UnixTime::from_secs(1_700_000_000));
    let iam = IamApiKey::with_transport(url, "api/key+=", script.clone(), clock).unwrap();
    for quote in [
        "api/key+=",
        "api%2Fkey%2B%3D",
        "api%2fkey%2b%3d",
        "api\\/key+=",
    ] {
        script.push_response(
            400,
            &json!({ "errorCode": quote, "errorMessage": format!("no such key: {quote}") }),
        );
        let error = iam.token().await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("key+") && !shown.contains("key%2") && shown.contains("[redacted]"),
            "{shown}"
        );
    }
}

/// An invalid member may contain a secret in the wrong place.
#[tokio::test]
async fn errors_contain_no_member_of_an_application() {
    let (client, script) = management();
    let secret = format!("{SECRET} with a space");
    script.push_response(200, &json!({ "scopes": [secret] }));
    let scopes = client.scopes("c").await.unwrap_err();
    let application = json!({ "clientId": "c", "tenantId": TENANT, "name": "n" });
    let mut shown = format!("{scopes} {scopes:?} {}", scopes.source().unwrap());
    for url in [
        format!("https://{SECRET}:{SECRET}@as.example"),
        format!("{SECRET}://as.example"),
    ] {
        let mut application = application.clone();
        application["oAuthServerUrl"] = json!(url);
        script.push_response(200, &application);
        let error = client.application("c").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let source = error.source().unwrap().to_string();
        assert!(source.contains("oAuthServerUrl"), "{source}");
        shown.push_str(&format!("{error} {error:?} {source}"));
    }
    assert!(
        !shown.to_lowercase().contains(&SECRET.to_lowercase()),
        "{shown}"
    );
}

/// URLs in an https document must be https: a binding made from it could send the secret there.
#[tokio::test]
async fn https_management_api_rejects_plain_http_urls_in_responses() {
    for member in ["oAuthServerUrl", "discoveryEndpoint"] {
        let (client, script) = management();
        let mut application = json!({
            "clientId": "c",
            "tenantId": "t",
            "name": "n",
            "oAuthServerUrl": "https://as.example/oauth/v4/t",
        });
        application[member] = json!("http://127.0.0.1:6002/oauth/v4/t");
        script.push_response(200, &application);
        let error = client.application("c").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{member}");

        let url = Endpoint::new("http://127.0.0.1:6002/management/v4/t").unwrap();
        let client = ManagementClient::builder(url, SecretString::from("t")).allow_loopback_http();
        let script = Script::default();
        script.push_response(200, &application);
        client
            .build_with(script)
            .unwrap()
            .application("c")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn lost_and_malformed_responses_are_errors_after_one_request() {
    let name = ApplicationName::new("n").unwrap();
    let (client, script) = management();
    assert_eq!(
        client.register(&name).await.unwrap_err().kind(),
        ErrorKind::Transport
    );
    script.request();
    for body in [
        "",
        "Not JSON",
        "[]",
        r#"{"clientId":"c"}"#,
        // serde_json would quote the secret.
        &json!({ "clientId": { SECRET: 1 } }).to_string(),
        &REGISTERED.replace(
            "\"name\": \"ApplicationName\"",
            &format!("\"name\": [\"{SECRET}\"]"),
        ),
        &REGISTERED.replace("https://", "http://"),
    ] {
        script.push_response(200, body);
        let error = client.register(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{body}");
        let text = format!(
            "{error} {error:?} {:?}",
            error.source().map(ToString::to_string)
        );
        assert!(
            !text.contains(SECRET) && !text.contains("IAM_TOKEN"),
            "{text}"
        );
    }
    script.0.lock().unwrap().1.clear();
    script.push_response(200, &" ".repeat((1 << 20) + 1));
    assert_eq!(
        client.register(&name).await.unwrap_err().kind(),
        ErrorKind::TooLarge
    );
    script.request();
}

#[derive(Debug)]
struct Silent;

impl Transport for Silent {
    fn send(&self, _request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_a_timeout() {
    let url = Endpoint::new("https://management.example").unwrap();
    let client = ManagementClient::builder(url, SecretString::from("t"))
        .timeout(Duration::from_secs(3))
        .build_with(Silent)
        .unwrap();
    let before = tokio::time::Instant::now();
    assert_eq!(
        client.applications().await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert_eq!(before.elapsed().as_secs(), 3);
}

#[test]
fn plain_http_requires_opt_in() {
    let url = Endpoint::new("http://127.0.0.1:6002/management/v4/t").unwrap();
    let builder = || ManagementClient::builder(url.clone(), SecretString::from("t"));
    assert!(builder().build_with(Silent).is_err());
    let client = builder().allow_loopback_http().build_with(Silent).unwrap();
    assert!(format!("{client:?}").contains("6002"));
    let query = Endpoint::new("https://management.example/?a").unwrap();
    assert!(ManagementClient::new(query, SecretString::from("t"), Silent).is_err());
}

#[tokio::test]
async fn a_token_invalid_as_a_header_value_is_not_in_the_error() {
    let url = Endpoint::new("https://management.example").unwrap();
    let client = ManagementClient::new(
        url,
        SecretString::from(format!("{SECRET}\n")),
        Script::default(),
    )
    .unwrap();
    let error = client.applications().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(!format!("{error} {error:?}").contains(SECRET));
}

#[derive(Debug)]
struct NoToken;

impl IamToken for NoToken {
    fn token(&self) -> IamTokenFuture<'_> {
        Box::pin(async { Err("no token available".into()) })
    }
}

#[tokio::test]
async fn a_failing_token_provider_is_the_source_of_the_error() {
    let url = Endpoint::new("https://management.example").unwrap();
    let client = ManagementClient::new(url, NoToken, Script::default()).unwrap();
    let error = client.applications().await.unwrap_err();
    assert_eq!(error.operation(), Operation::TokenRequest);
    assert_eq!(error.source().unwrap().to_string(), "no token available");
}

#[test]
fn names_have_one_to_fifty_characters() {
    for (name, good) in [
        (String::new(), false),
        ("n".to_owned(), true),
        ("n".repeat(50), true),
        ("n".repeat(51), false),
        // Characters, not bytes.
        ("é".repeat(50), true),
        ("é".repeat(51), false),
    ] {
        assert_eq!(
            ApplicationName::new(&name).is_ok(),
            good,
            "{}",
            name.chars().count()
        );
    }
}

#[test]
fn scope_names_follow_app_ids_rules() {
    for good in ["read", "reports.read", "a_1", "xappid", &"a".repeat(49)] {
        assert_eq!(ScopeName::new(good).unwrap().as_str(), good);
    }
    for bad in [
        "",
        "Read",
        "a b",
        "a-b",
        "é",
        "appid_default",
        "appid",
        "openid",
        "openid.x",
        &"a".repeat(50),
    ] {
        assert!(ScopeName::new(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn api_key_is_exchanged_once_and_again_before_the_token_expires() {
    let script = Script::default();
    let clock = ManualClock::at(UnixTime::from_secs(1_700_000_000));
    let url = Endpoint::new("https://iam.cloud.ibm.com/identity/token").unwrap();
    let iam = IamApiKey::with_transport(url, "key+/=", script.clone(), clock.clone()).unwrap();
    script.push_response(
        200,
        r#"{"access_token":"one","expires_in":3600,"token_type":"Bearer"}"#,
    );
    for _ in 0..3 {
        assert_eq!(iam.token().await.unwrap().expose_secret(), "one");
    }
    let request = script.request();
    assert_eq!(
        (request.method(), request.uri().path()),
        (&Method::POST, "/identity/token")
    );
    assert_eq!(
        request.headers()[header::CONTENT_TYPE],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(
        request.body(),
        "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=key%2B%2F%3D"
    );
    clock.set(UnixTime::from_secs(1_700_000_000 + 3540));
    script.push_response(200, r#"{"access_token":"two","token_type":"Bearer"}"#);
    assert_eq!(iam.token().await.unwrap().expose_secret(), "two");

    // A token of unknown lifetime is not cached. IAM has its own error members.
    script.push_response(
        400,
        r#"{"errorCode":"BXNIM0415E","errorMessage":"Provided API key could not be found"}"#,
    );
    let management = Endpoint::new("https://management.example").unwrap();
    let client = ManagementClient::new(management, iam.clone(), Silent).unwrap();
    let error = client.applications().await.unwrap_err();
    assert_eq!(
        (error.operation(), error.kind()),
        (Operation::TokenRequest, ErrorKind::Refused)
    );
    assert_eq!(error.oauth_error().unwrap().code(), "BXNIM0415E");
    assert!(!format!("{iam:?} {error:?}").contains("key+"));
}

fn iam(script: &Script) -> (IamApiKey, ManualClock) {
    let clock = ManualClock::at(UnixTime::from_secs(1_700_000_000));
    let url = Endpoint::new("https://iam.cloud.ibm.com/identity/token").unwrap();
    (
        IamApiKey::with_transport(url, "api-key", script.clone(), clock.clone()).unwrap(),
        clock,
    )
}

#[tokio::test]
async fn iam_token_must_be_a_bearer_token_and_a_valid_header_value() {
    for body in [
        json!({ "access_token": "t", "expires_in": 3600 }),
        json!({ "access_token": "t", "token_type": "mac", "expires_in": 3600 }),
        json!({ "access_token": "t", "token_type": "DPoP", "expires_in": 3600 }),
        json!({ "access_token": "", "token_type": "Bearer", "expires_in": 3600 }),
        json!({ "access_token": "a\r\nx: b", "token_type": "Bearer", "expires_in": 3600 }),
        json!({ "access_token": "a b", "token_type": "Bearer", "expires_in": 3600 }),
        json!({ "access_token": "é", "token_type": "Bearer", "expires_in": 3600 }),
        json!({ "access_token": "t", "token_type": "Bearer", "expires_in": "soon" }),
        json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 0 }),
        json!({ "access_token": "t", "token_type": "Bearer", "expires_in": -1 }),
    ] {
        let script = Script::default();
        script.push_response(200, &body);
        let error = iam(&script).0.token().await.unwrap_err();
        let error = error.downcast_ref::<tower_oauth::Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{body}");
        assert!(!format!("{error:?} {:?}", error.source()).contains("x: b"));
    }
    for expires_in in [json!(3600), json!("3600"), json!(3600.5)] {
        let script = Script::default();
        script.push_response(
            200,
            &json!({ "access_token": "t", "token_type": "bearer", "expires_in": expires_in }),
        );
        let iam = iam(&script).0;
        for _ in 0..2 {
            assert_eq!(
                iam.token().await.unwrap().expose_secret(),
                "t",
                "{expires_in}"
            );
        }
    }
}

#[tokio::test]
async fn iam_token_is_cached_for_at_most_one_day() {
    let script = Script::default();
    let (iam, clock) = iam(&script);
    script.push_response(
        200,
        r#"{"access_token":"one","token_type":"Bearer","expires_in":1e300}"#,
    );
    script.push_response(
        200,
        r#"{"access_token":"two","token_type":"Bearer","expires_in":3600}"#,
    );
    assert_eq!(iam.token().await.unwrap().expose_secret(), "one");
    clock.advance(Duration::from_secs(86_339));
    assert_eq!(iam.token().await.unwrap().expose_secret(), "one");
    clock.advance(Duration::from_secs(1));
    assert_eq!(
        iam.token().await.unwrap().expose_secret(),
        "two",
        "a minute before expiry"
    );
}

#[tokio::test]
async fn iam_token_is_invalidated_by_a_401_at_most_once_in_ten_seconds() {
    let (exchanges, calls) = (Script::default(), Script::default());
    let (iam, clock) = iam(&exchanges);
    for name in ["one", "two", "three"] {
        let body = json!({ "access_token": name, "token_type": "Bearer", "expires_in": 3600 });
        exchanges.push_response(200, &body);
    }
    let url = Endpoint::new("https://management.example").unwrap();
    let client = ManagementClient::new(url, iam, calls.clone()).unwrap();
    let call = async |status: u16| {
        calls.push_response(status, r#"{"roles":[]}"#);
        let outcome = client.roles("c").await;
        assert_eq!(outcome.is_ok(), status == 200);
        calls.request().headers()[header::AUTHORIZATION]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(call(200).await, "Bearer one");
    assert_eq!(call(403).await, "Bearer one");
    assert_eq!(call(500).await, "Bearer one");
    assert_eq!(call(401).await, "Bearer one", "no request is repeated");
    assert_eq!(
        call(200).await,
        "Bearer two",
        "the next call uses another token"
    );
    assert_eq!(call(401).await, "Bearer two");
    assert_eq!(call(401).await, "Bearer two", "not within ten seconds");
    clock.advance(Duration::from_secs(9));
    assert_eq!(call(401).await, "Bearer two");
    clock.advance(Duration::from_secs(1));
    assert_eq!(call(200).await, "Bearer three");
}

/// An IAM outage does not affect a token that is valid for an hour.
#[tokio::test]
async fn iam_token_rejected_with_401_is_used_until_its_replacement_arrives() {
    let script = Script::default();
    let (iam, clock) = iam(&script);
    let issued =
        |token: &str| json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 });
    script.push_response(200, &issued("one"));
    let one = iam.token().await.unwrap();
    let _ = script.request();
    iam.invalidate(&one);
    script.push_response(503, "");
    assert_eq!(iam.token().await.unwrap().expose_secret(), "one");
    let _ = script.request();
    // A late 401 for another token is ignored, and an expired token is not used.
    iam.invalidate(&SecretString::from("zero"));
    clock.advance(Duration::from_secs(11));
    script.push_response(200, &issued("two"));
    let two = iam.token().await.unwrap();
    assert_eq!(two.expose_secret(), "two");
    let _ = script.request();
    iam.invalidate(&one);
    clock.advance(Duration::from_secs(11));
    assert_eq!(iam.token().await.unwrap().expose_secret(), "two");
    clock.advance(Duration::from_secs(3600));
    script.push_response(503, "");
    iam.token().await.unwrap_err();
}

/// No task runs: the exchange is part of the call that needs the token.
#[tokio::test(start_paused = true)]
async fn concurrent_calls_share_one_exchange_and_a_cancelled_call_leaves_it_to_the_next() {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3600)).delay(Duration::from_secs(1));
    let url = Endpoint::new("https://iam.cloud.ibm.com/identity/token").unwrap();
    let iam = IamApiKey::with_transport(url, "api-key", endpoint.clone(), TokioClock::new());
    let iam = iam.unwrap();
    let cancelled = tokio::time::timeout(Duration::from_millis(500), iam.token()).await;
    assert!(cancelled.is_err());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let iam = iam.clone();
        calls.spawn(async move { iam.token().await.unwrap().expose_secret().to_owned() });
    }
    let tokens = calls.join_all().await;
    assert!(tokens.iter().all(|token| token == "token-1"));
    assert_eq!((endpoint.count(), endpoint.max_in_flight()), (2, 1));
}

#[tokio::test]
async fn provider_is_notified_of_a_rejected_token() {
    #[derive(Clone, Debug, Default)]
    struct Provider(Arc<Mutex<Vec<String>>>);

    impl IamToken for Provider {
        fn token(&self) -> IamTokenFuture<'_> {
            Box::pin(async { Ok(SecretString::from("mine")) })
        }

        fn invalidate(&self, token: &SecretString) {
            self.0
                .lock()
                .unwrap()
                .push(token.expose_secret().to_owned());
        }
    }

    let (provider, script) = (Provider::default(), Script::default());
    let url = Endpoint::new("https://management.example").unwrap();
    let client = ManagementClient::new(url, provider.clone(), script.clone()).unwrap();
    for status in [200, 401, 403] {
        script.push_response(status, r#"{"roles":[]}"#);
        let _either_way = client.roles("c").await;
    }
    assert_eq!(*provider.0.lock().unwrap(), ["mine"]);
}
