//! What to do about a check that failed.

use crate::oauth::{IssuerDifference, IssuerUrl};

/// What to do about an audience that is not trusted, or none.
pub(super) fn audience(issuer: &str, is_absent: bool) -> String {
    let keycloak = if is_absent {
        "Keycloak: add an audience mapper to the client or one of its client scopes; a lightweight \
         token has no `aud`: switch off \"Always use lightweight access token\" of the client, or \
         switch on \"Add to lightweight access token\" of the mapper"
    } else {
        "Keycloak: add an audience mapper to the client or one of its client scopes"
    };
    let vendor = match Vendor::from_issuer(issuer) {
        Vendor::Auth0 => "Auth0: the client requests the API's identifier as `audience`",
        Vendor::Cognito => "Cognito: its access tokens have no `aud`: use `TrustedIssuer::cognito`",
        Vendor::Entra => {
            "Entra: the client requests the scope `api://…/.default` of this API; the audience is \
             the application id with version 2 tokens, and may be `api://…` with version 1"
        }
        Vendor::Okta => "Okta: the audience is a setting of the custom authorization server",
        Vendor::Keycloak => return format!("{keycloak}. {ADD_AUDIENCE}"),
        Vendor::Unknown => "Others: the client requests this audience (`audience` or `resource`)",
    };
    match Vendor::from_issuer(issuer) {
        Vendor::Unknown => format!("{keycloak}. {vendor}. {ADD_AUDIENCE}"),
        _ => format!("{vendor}. {ADD_AUDIENCE}"),
    }
}

const ADD_AUDIENCE: &str =
    "If this service has that audience as well, add it with `TrustedIssuer::add_audience`";

/// What to do about an issuer that is not one of the trusted ones.
pub(super) fn issuer<'t>(claimed: &str, trusted: impl Iterator<Item = &'t str>) -> String {
    let mut hints = trusted.filter_map(|trusted| difference(claimed, trusted));
    hints.next().unwrap_or_else(|| {
        "The token is of another issuer: request it from a trusted one, or trust this one with \
         `add_issuer`"
            .to_owned()
    })
}

/// The known reason for which two names of one issuer differ.
fn difference(claimed: &str, trusted: &str) -> Option<String> {
    if let Some(difference) = IssuerDifference::between(trusted, claimed) {
        return Some(capitalized(difference.description()));
    }
    let (claimed, trusted) = (IssuerUrl::parse(claimed)?, IssuerUrl::parse(trusted)?);
    let hint = if is_entra(&claimed) && is_entra(&trusted) {
        entra(&claimed, &trusted)
    } else if claimed.authority != trusted.authority {
        return None;
    } else if let (Some(claimed), Some(trusted)) = (claimed.realm(), trusted.realm()) {
        if claimed == trusted {
            "Keycloak before version 17, and with `http-relative-path`, has `/auth` before \
             `/realms`: spell the issuer as its metadata does"
        } else {
            "The token is of another realm: request it from the trusted one"
        }
    } else if claimed.path.is_empty() && trusted.path.starts_with("/oauth2/") {
        "Okta: the token is of the org authorization server, which no other service can validate: \
         request it from the custom authorization server"
    } else {
        "The issuer is another one at the same host: compare the paths"
    };
    Some(hint.into())
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn entra(claimed: &IssuerUrl<'_>, trusted: &IssuerUrl<'_>) -> &'static str {
    if tenant(claimed.path) != tenant(trusted.path) {
        "Entra: the token is of another tenant. `common` and `organizations` are no issuers: \
         trust each tenant by its id"
    } else if claimed.authority == "sts.windows.net" {
        "Entra: this is a version 1 token. Set `requestedAccessTokenVersion` to 2 in the manifest \
         of this API's app registration, or trust the version 1 issuer"
    } else {
        "Entra: this is a version 2 token: trust `https://login.microsoftonline.com/TENANT/v2.0`"
    }
}

fn is_entra(issuer: &IssuerUrl<'_>) -> bool {
    ["sts.windows.net", "login.microsoftonline.com"].contains(&issuer.authority)
}

/// The first segment of the path, which names the tenant at Entra.
fn tenant(path: &str) -> Option<&str> {
    path.split('/').nth(1)
}

/// The vendors whose settings the cures name.
#[derive(Clone, Copy)]
enum Vendor {
    Auth0,
    Cognito,
    Entra,
    Keycloak,
    Okta,
    Unknown,
}

impl Vendor {
    fn from_issuer(issuer: &str) -> Self {
        let Some(name) = IssuerUrl::parse(issuer) else {
            return Self::Unknown;
        };
        let host = name.authority;
        if is_entra(&name) {
            Self::Entra
        } else if host.ends_with(".auth0.com") {
            Self::Auth0
        } else if host.ends_with(".okta.com") || host.ends_with(".oktapreview.com") {
            Self::Okta
        } else if host.starts_with("cognito-idp.") {
            Self::Cognito
        } else if name.realm().is_some() {
            Self::Keycloak
        } else {
            Self::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_differences_between_two_names_of_an_issuer_are_named() {
        const TENANT: &str = "6f0b2f4e-0000-0000-0000-000000000000";
        let v1 = format!("https://sts.windows.net/{TENANT}/");
        let v2 = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        let common = "https://login.microsoftonline.com/common/v2.0";
        for (claimed, trusted, hint) in [
            ("https://a.example/", "https://a.example", "slash"),
            ("https://a.example", "https://a.example/", "slash"),
            ("https://A.example", "https://a.example", "case"),
            ("http://a.example/x", "https://a.example/x", "scheme"),
            (
                "http://localhost:8080/realms/x",
                "http://127.0.0.1:8080/realms/x",
                "Host header",
            ),
            ("http://[::1]/x", "http://localhost/x", "two names"),
            (v1.as_str(), v2.as_str(), "requestedAccessTokenVersion"),
            (v2.as_str(), v1.as_str(), "version 2 token"),
            (v2.as_str(), common, "another tenant"),
            (
                "http://keycloak:8080/realms/x",
                "https://sso.example/realms/x",
                "`hostname`",
            ),
            (
                "https://a.example/auth/realms/x",
                "https://a.example/realms/x",
                "/auth",
            ),
            (
                "https://a.example/realms/y",
                "https://a.example/realms/x",
                "another realm",
            ),
            (
                "https://a.okta.com",
                "https://a.okta.com/oauth2/default",
                "org authorization server",
            ),
            (
                "https://a.example/one",
                "https://a.example/two",
                "compare the paths",
            ),
            ("https://b.example", "https://a.example", "another issuer"),
            ("accounts.example", "https://a.example", "another issuer"),
        ] {
            let cure = issuer(claimed, std::iter::once(trusted));
            assert!(cure.contains(hint), "{claimed} {trusted}: {cure}");
        }
    }

    #[test]
    fn the_cure_for_an_audience_is_that_of_the_vendor() {
        for (name, hint) in [
            (
                "https://a.example/realms/x",
                "Keycloak: add an audience mapper",
            ),
            ("https://a.example", "Keycloak: add an audience mapper"),
            ("https://a.eu.auth0.com/", "Auth0"),
            ("https://a.okta.com/oauth2/default", "Okta"),
            (
                "https://cognito-idp.eu-west-1.amazonaws.com/x",
                "TrustedIssuer::cognito",
            ),
            ("https://sts.windows.net/x/", ".default"),
            ("eu-gb.appid.cloud.ibm.com", "`resource`"),
        ] {
            let cure = audience(name, false);
            assert!(cure.contains(hint), "{name}: {cure}");
        }
        assert!(
            audience("https://a.example/realms/x", true)
                .contains("Add to lightweight access token")
        );
    }
}
