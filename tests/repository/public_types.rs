//! The public types that users build settings from, used from outside the crate.

use std::collections::{BTreeSet, HashSet};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tower_oauth::clock::{Clock as _, SystemClock, UnixTime};
use tower_oauth::error::ConfigErrorKind;
use tower_oauth::key_set::RefreshCause;
use tower_oauth::resource_server::Algorithm;
use tower_oauth::{
    Audience, ClientCredentials, ConfigError, Endpoint, Issuer, Origin, Scope, TokenManager,
};

/// Every conversion of a valid text, and the refusal of an invalid one by each.
fn check_text_value<T>(valid: &str, invalid: &str)
where
    T: FromStr<Err = ConfigError>
        + for<'a> TryFrom<&'a str, Error = ConfigError>
        + for<'a> TryFrom<&'a String, Error = ConfigError>
        + TryFrom<String, Error = ConfigError>
        + Into<String>
        + AsRef<str>
        + Display
        + Debug
        + Clone
        + Ord
        + Hash
        + PartialEq<str>
        + for<'a> PartialEq<&'a str>
        + PartialEq<String>
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let owned = valid.to_owned();
    let value: T = valid.parse().unwrap();
    assert!(value == T::try_from(valid).unwrap());
    assert!(value == T::try_from(&owned).unwrap());
    assert!(value == T::try_from(owned.clone()).unwrap());
    let texts: [String; 4] = [
        value.as_ref().to_owned(),
        value.to_string(),
        value.clone().into(),
        serde_json::from_str(&format!("{value:?}")).unwrap(),
    ];
    for text in texts {
        assert_eq!(text, valid);
    }
    assert!(value == *valid && value == valid && value == owned);
    assert!(value != *"another");
    assert_eq!(HashSet::from([value.clone(), value.clone()]).len(), 1);
    assert_eq!(BTreeSet::from([value.clone(), value.clone()]).len(), 1);
    assert_eq!(serde_json::to_value(&value).unwrap(), json!(valid));
    assert!(serde_json::from_value::<T>(json!(valid)).unwrap() == value);

    let error = invalid.parse::<T>().err().unwrap();
    assert_eq!(T::try_from(invalid).err().unwrap(), error);
    assert_eq!(T::try_from(&invalid.to_owned()).err().unwrap(), error);
    assert_eq!(T::try_from(invalid.to_owned()).err().unwrap(), error);
}

#[test]
fn issuers_audiences_scopes_endpoints_and_origins_convert_from_and_to_text() {
    check_text_value::<Issuer>("https://as.example", "https://as.example /");
    check_text_value::<Audience>("orders", " ");
    check_text_value::<Scope>("orders.read", "orders.read orders.write");
    check_text_value::<Endpoint>("https://as.example/token?x=1", "as.example/token");
    check_text_value::<Origin>("https://orders.example:8443", "https://orders.example/v1");
}

#[test]
fn a_text_may_be_on_either_side_of_a_comparison() {
    let text = "https://as.example";
    let issuer = Issuer::new(text).unwrap();
    let owned = String::from(text);
    assert!(*text == issuer && text == issuer && owned == issuer);
    assert!("https://as.example/" != issuer);
    assert_eq!("orders", Audience::new("orders").unwrap());
    assert_eq!("orders.read", Scope::new("orders.read").unwrap());
    assert_eq!("https://as.example/", Endpoint::new(text).unwrap());
    assert_eq!(text, Origin::new(text).unwrap());
}

#[test]
fn errors_of_deserialization_say_which_kind_of_value_is_wrong_and_why() {
    fn error<T: serde::de::DeserializeOwned + Debug>(value: Value) -> String {
        serde_json::from_value::<T>(value).unwrap_err().to_string()
    }
    for (error, kind, reason) in [
        (error::<Issuer>(json!("")), "issuer", "must not be empty"),
        (error::<Issuer>(json!(5)), "an issuer identifier", "integer"),
        (
            error::<Audience>(json!(" ")),
            "audience",
            "must not be empty",
        ),
        (error::<Audience>(json!([])), "an audience", "sequence"),
        (error::<Scope>(json!("a b")), "scope", "RFC 6749"),
        (error::<Scope>(Value::Null), "a scope token", "null"),
        (error::<Endpoint>(json!("as.example")), "URL", "scheme"),
        (error::<Endpoint>(json!(true)), "a URL", "boolean"),
        (
            error::<Origin>(json!("https://a.example/b")),
            "origin",
            "path",
        ),
        (error::<Origin>(json!({})), "an origin", "map"),
    ] {
        assert!(error.contains(kind) && error.contains(reason), "{error}");
    }
    for error in [
        error::<Issuer>(json!("https://user:secret@as.example /")),
        error::<Endpoint>(json!("https://user:secret@as.example/?key=secret")),
        error::<Endpoint>(json!("https://as.example/secret#secret")),
        error::<Origin>(json!("https://orders.example/secret")),
    ] {
        assert!(!error.contains("secret"), "{error}");
    }
}

/// A function that takes what converts, as `ResourceServer::builder` does.
fn converted<T>(value: impl TryInto<T, Error: Into<ConfigError>>) -> Result<T, ConfigError> {
    value.try_into().map_err(Into::into)
}

#[test]
fn one_parameter_takes_a_value_and_a_text_of_it() {
    let issuer = Issuer::new("https://as.example").unwrap();
    assert_eq!(converted::<Issuer>("https://as.example").unwrap(), issuer);
    assert_eq!(converted::<Issuer>(issuer.clone()).unwrap(), issuer);
    let error = converted::<Issuer>("").unwrap_err();
    assert_eq!((error.setting(), error.value()), ("issuer", None));
}

#[test]
fn an_endpoint_may_be_plain_http_with_any_host() {
    for (url, is_loopback) in [
        ("http://as.example/token", false),
        ("http://127.0.0.1/token", true),
        ("http://localhost:6002/token", true),
        ("http://[::1]/token", true),
    ] {
        let endpoint: Endpoint = url.parse().unwrap();
        assert!(endpoint.is_plain_http());
        assert_eq!(endpoint.is_loopback(), is_loopback, "{url}");
    }
    assert!(!Endpoint::new("https://as.example").unwrap().is_plain_http());
}

#[test]
fn an_origin_has_no_path_query_fragment_or_user_information() {
    for (text, serialization) in [
        ("https://orders.example", "https://orders.example"),
        ("https://orders.example/", "https://orders.example"),
        ("HTTPS://ORDERS.example:443", "https://orders.example"),
        ("http://orders.example:80", "http://orders.example"),
        ("http://[::1]:8081", "http://[::1]:8081"),
    ] {
        let origin = Origin::new(text).unwrap();
        assert_eq!(origin, serialization);
        assert_eq!(origin.as_str().parse::<Origin>().unwrap(), origin);
    }
    for bad in [
        "https://orders.example/v1",
        "https://orders.example//",
        "https://orders.example?",
        "https://orders.example/?page=2",
        "https://orders.example/#top",
        "https://user@orders.example",
        "https://169.254.169.254",
        "ftp://orders.example",
        "orders.example",
        "orders.example:8443",
        "null",
        "",
    ] {
        let error = Origin::new(bad).unwrap_err();
        assert_eq!(error.setting(), "origin", "{bad}");
    }
    let endpoint = Endpoint::new("https://orders.example:8443/v1?page=2").unwrap();
    assert_eq!(Origin::from(&endpoint), "https://orders.example:8443");
    assert_eq!(Origin::from(endpoint), "https://orders.example:8443");
}

#[tokio::test]
async fn the_system_clock_is_a_value() {
    let endpoint = Endpoint::new("https://as.example/token").unwrap();
    let builder = TokenManager::builder(endpoint, ClientCredentials::new("orders", "s3cret"));
    builder.clock(SystemClock).start().unwrap();
    let now = UnixTime::from(SystemTime::now());
    assert!(SystemClock.now().saturating_since(now) <= Duration::from_secs(1));
    assert!(now.saturating_since(SystemClock.now()) <= Duration::from_secs(1));
}

#[test]
fn a_unix_time_converts_from_and_to_a_system_time() {
    let time = UnixTime::from_secs(1_700_000_000);
    let system_time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    assert_eq!(SystemTime::from(time), system_time);
    let fraction = Duration::from_millis(999);
    assert_eq!(UnixTime::from(system_time + fraction), time);
    assert_eq!(time.to_string(), "2023-11-14T22:13:20Z");

    let epoch = UnixTime::from_secs(0);
    assert_eq!(UnixTime::from(UNIX_EPOCH), epoch);
    assert_eq!(UnixTime::from(UNIX_EPOCH - fraction), epoch);
    let end = SystemTime::from(UnixTime::from_secs(u64::MAX));
    assert_eq!(UnixTime::from(end).to_string(), "9999-12-31T23:59:59Z");
}

#[test]
fn the_kind_of_a_configuration_error_says_what_to_do() {
    let build = |url: &str, secret: &str| {
        let endpoint = Endpoint::new(url).unwrap();
        let credentials = ClientCredentials::new("orders", secret);
        TokenManager::builder(endpoint, credentials)
    };
    let url = "https://as.example/token";
    for (builder, kind, setting, value) in [
        (
            build("http://as.example/token", "s3cret").allow_loopback_http(),
            ConfigErrorKind::PlainHttp,
            "token endpoint",
            Some("http://as.example"),
        ),
        (
            build("http://localhost/token", "s3cret"),
            ConfigErrorKind::PlainHttp,
            "token endpoint",
            Some("http://localhost"),
        ),
        (
            build(url, ""),
            ConfigErrorKind::Missing,
            "client secret",
            None,
        ),
        (
            build(url, "s3cret").max_waiters(0),
            ConfigErrorKind::Invalid,
            "max_waiters",
            Some("0"),
        ),
        (
            build(url, "s3cret").parameter("a", "1").parameter("a", "2"),
            ConfigErrorKind::Conflict,
            "parameter",
            Some("a"),
        ),
        (
            build(url, "s3cret").parameter("scope", "a"),
            ConfigErrorKind::Conflict,
            "parameter",
            Some("scope"),
        ),
    ] {
        let error = builder.build().map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!((error.setting(), error.value()), (setting, value));
    }
    let outside = build(url, "s3cret").start().unwrap_err();
    assert_eq!(outside.kind(), ConfigErrorKind::Unavailable, "{outside}");
}

#[test]
fn all_algorithms_and_refresh_causes_are_slices() {
    let algorithms: &'static [Algorithm] = Algorithm::ALL;
    assert!(algorithms.contains(&Algorithm::Es256));
    let causes: &'static [RefreshCause] = RefreshCause::ALL;
    assert!(causes.contains(&RefreshCause::Timer));
}
