//! Trusted issuers for known providers.

use serde_json::Value;

use super::claim_rules::ProviderRule;
use super::{AuthContext, TrustedIssuer};
use crate::error::ConfigError;
use crate::jwt::Algorithm;
use crate::oauth::{Audience, Endpoint, Issuer};
use crate::provider;

impl TrustedIssuer {
    /// Trusts the access tokens of a Keycloak realm.
    ///
    /// `url` is that of the server, such as `https://sso.example`, or `https://sso.example/auth`
    /// before version 17. `audience` is what an audience mapper of the client adds.
    ///
    /// The claim `typ` must be `Bearer` or `DPoP`. [`guide::providers::keycloak`][guide] says what
    /// to set in Keycloak.
    ///
    /// [guide]: mod@crate::guide::providers::keycloak
    ///
    /// ```
    /// use tower_oauth::{ResourceServer, TrustedIssuer};
    ///
    /// let issuer = TrustedIssuer::keycloak("https://sso.example", "shop", "orders")?;
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// assert_eq!(orders.key_sets()[0].issuer(), "https://sso.example/realms/shop");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `url` is not an `https` or `http` URL, `realm` has characters other than letters, digits,
    /// `-`, `.`, `_` and `~`, or the audience is empty. Whether plain `http` is allowed is checked
    /// by [`build`](super::ResourceServerBuilder::build).
    pub fn keycloak(
        url: impl AsRef<str>,
        realm: impl AsRef<str>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        let issuer = provider::keycloak(url.as_ref(), realm.as_ref())?;
        Ok(for_audience(issuer, audience)?.require_claim("typ", ["Bearer", "DPoP"]))
    }

    /// Trusts the access tokens of a Microsoft Entra tenant for one application.
    ///
    /// `tenant` is the id of the tenant, and `application_id` that of the app registration of this
    /// service. Both are GUIDs.
    ///
    /// Tokens of version 1 and 2 are accepted, with the audience `application_id` or
    /// `api://application_id`, signed with RS256. `tid` must be the tenant, and `azp` or `appid`
    /// must name the client, which ID tokens lack. A key whose member `issuer` names another tenant
    /// verifies no token. Any application of the tenant can get a token without roles: require a
    /// role, or [`allowed_clients`](Self::allowed_clients). [`guide::providers::entra`][guide] says
    /// what to set in Entra.
    ///
    /// [guide]: mod@crate::guide::providers::entra
    ///
    /// ```
    /// use tower_oauth::{ResourceServer, TrustedIssuer};
    ///
    /// let tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    /// let issuer = TrustedIssuer::entra(tenant, "6e74172b-be56-4843-9ff4-e66a39bb12e3")?;
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// let name = format!("https://login.microsoftonline.com/{tenant}/v2.0");
    /// assert_eq!(orders.key_sets()[0].issuer(), &name);
    ///
    /// let error = TrustedIssuer::entra("common", "6e74172b-be56-4843-9ff4-e66a39bb12e3");
    /// assert_eq!(error.unwrap_err().setting(), "tenant");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If one of them is not a GUID. `common`, `organizations` and `consumers` stand for many
    /// tenants, and no token names them as its issuer.
    pub fn entra(
        tenant: impl AsRef<str>,
        application_id: impl AsRef<str>,
    ) -> Result<Self, ConfigError> {
        let tenant = provider::entra_tenant(tenant.as_ref())?;
        let reason = "must be an application (client) id, a GUID: add the other audiences of the \
                      application with `add_audience`";
        let application_id = provider::guid("application_id", application_id.as_ref(), reason)?;
        let audience = Audience::new(&application_id)?;
        let names_its_client = |token: &AuthContext| has(token, "azp") || has(token, "appid");
        Ok(Self::new(provider::entra(&tenant)?, audience)
            .add_alias(provider::entra_v1(&tenant)?)
            .add_audience(Audience::new(format!("api://{application_id}"))?)
            .algorithms([Algorithm::Rs256])
            .check_key_issuers()
            .require_claim("tid", [tenant])
            .require_of_provider(ProviderRule {
                expected: "azp or appid, as in access tokens",
                otherwise: "neither azp nor appid",
                is_met: names_its_client,
            }))
    }

    /// Trusts the access tokens of an Auth0 tenant for one API.
    ///
    /// `domain` is that of the tenant, such as `shop.eu.auth0.com`, or a custom domain. `audience`
    /// is the identifier of the API, never the id of an application: that is the audience of its ID
    /// tokens. [`guide::providers::auth0`][guide] says what to set in Auth0.
    ///
    /// [guide]: mod@crate::guide::providers::auth0
    ///
    /// ```
    /// use tower_oauth::{ResourceServer, TrustedIssuer};
    ///
    /// let issuer = TrustedIssuer::auth0("shop.eu.auth0.com", "https://orders.example")?;
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// assert_eq!(orders.key_sets()[0].issuer(), "https://shop.eu.auth0.com/");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `domain` is not a host name in lower case, or the audience is empty.
    pub fn auth0(
        domain: impl AsRef<str>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        for_audience(provider::auth0(domain.as_ref())?, audience)
    }

    /// Trusts the access tokens of a custom authorization server of Okta.
    ///
    /// `domain` is that of the organization, such as `shop.okta.com`, `authorization_server` the id
    /// of the server, such as `default`, and `audience` its audience, such as `api://default`.
    ///
    /// `cid` must name the client, which ID tokens lack. Tokens of the org authorization server
    /// cannot be validated by other services. [`guide::providers::okta`][guide] says what to set in
    /// Okta.
    ///
    /// [guide]: mod@crate::guide::providers::okta
    ///
    /// ```
    /// use tower_oauth::{ResourceServer, TrustedIssuer};
    ///
    /// let issuer = TrustedIssuer::okta("shop.okta.com", "default", "api://default")?;
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// assert_eq!(orders.key_sets()[0].issuer(), "https://shop.okta.com/oauth2/default");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `domain` is not a host name in lower case, `authorization_server` is not an id, or the
    /// audience is empty.
    pub fn okta(
        domain: impl AsRef<str>,
        authorization_server: impl AsRef<str>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        let issuer = provider::okta(domain.as_ref(), authorization_server.as_ref())?;
        Ok(
            for_audience(issuer, audience)?.require_of_provider(ProviderRule {
                expected: "cid, as in access tokens",
                otherwise: "no cid",
                is_met: |token| has(token, "cid"),
            }),
        )
    }

    /// Trusts the access tokens of these app clients of an Amazon Cognito user pool.
    ///
    /// Access tokens of Cognito have no `aud`: the `clients`, ids of app clients, take its place. A
    /// token with any `aud` is rejected, unless [`add_audience`](Self::add_audience) has it, for
    /// resource binding. `token_use` must be `access`. [`guide::providers::cognito`][guide] says
    /// what to set in Cognito.
    ///
    /// [guide]: mod@crate::guide::providers::cognito
    ///
    /// ```
    /// use tower_oauth::{ResourceServer, TrustedIssuer};
    ///
    /// let clients = ["7ol0h0kd3rk4b4q6n1m3v5u8a2"];
    /// let issuer = TrustedIssuer::cognito("eu-west-1", "eu-west-1_Example1", clients)?;
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// let name = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example1";
    /// assert_eq!(orders.key_sets()[0].issuer(), name);
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `region` is not the name of a region, `user_pool` is not a user pool in it, or `clients`
    /// is empty or has an empty id.
    pub fn cognito(
        region: impl AsRef<str>,
        user_pool: impl AsRef<str>,
        clients: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, ConfigError> {
        let issuer = provider::cognito(region.as_ref(), user_pool.as_ref())?;
        let cognito = Self::with_audiences(issuer, Vec::new())
            .audience_optional()
            .allowed_clients(clients)
            .require_claim("token_use", ["access"]);
        cognito.rules.check()?;
        Ok(cognito)
    }

    /// Trusts the ID tokens of these Google service accounts.
    ///
    /// Google issues ID tokens for any audience to every account, so the `callers` have to be
    /// named: each is an e-mail address, which is compared with `email` if `email_verified` is
    /// `true`, or a unique id, which is compared with `sub`. The name in this list is the
    /// [client](AuthContext::client_id). Tokens are signed with RS256. A later
    /// [`allowed_clients`](Self::allowed_clients) or [`client_id_from`](Self::client_id_from)
    /// replaces this check.
    /// [`guide::providers::google`][guide] says how a service account gets a token.
    ///
    /// [guide]: mod@crate::guide::providers::google
    ///
    /// ```
    /// use tower_oauth::{ResourceServer, TrustedIssuer};
    ///
    /// let callers = ["shop@project.iam.gserviceaccount.com"];
    /// let issuer = TrustedIssuer::google("https://orders.example", callers)?;
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// assert_eq!(orders.key_sets()[0].issuer(), "https://accounts.google.com");
    ///
    /// let none: [&str; 0] = [];
    /// let error = TrustedIssuer::google("https://orders.example", none).unwrap_err();
    /// assert_eq!(error.setting(), "callers");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `callers` is empty or has another name than these, or the audience is empty.
    pub fn google(
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
        callers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, ConfigError> {
        let callers: Vec<String> = callers.into_iter().map(Into::into).collect();
        if callers.is_empty() {
            let reason = "must name at least one service account: Google issues tokens for any \
                          audience to all accounts";
            return Err(ConfigError::missing("callers", reason));
        }
        let is_unique_id =
            |caller: &str| !caller.is_empty() && caller.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(caller) = callers
            .iter()
            .find(|caller| !is_unique_id(caller) && !is_service_account(caller))
        {
            let reason = "must be the e-mail address or the unique id of a service account";
            return Err(ConfigError::new("callers", caller, reason));
        }
        let names = callers.clone();
        Ok(for_audience(provider::google()?, audience)?
            .add_alias(provider::google_without_scheme()?)
            .algorithms([Algorithm::Rs256])
            .client_id_from(move |token| google_caller(token, &names))
            .allowed_clients(callers))
    }

    /// Trusts the access tokens of a Zitadel instance.
    ///
    /// `domain` is that of the instance, such as `shop-ab12.zitadel.cloud`, and `audience` the id
    /// of the project. `jti` is required, which ID tokens lack. The access token type has to be
    /// JWT: [`guide::providers::zitadel`][guide] says what to set in Zitadel.
    ///
    /// [guide]: mod@crate::guide::providers::zitadel
    ///
    /// ```
    /// use tower_oauth::{ResourceServer, TrustedIssuer};
    ///
    /// let issuer = TrustedIssuer::zitadel("shop-ab12.zitadel.cloud", "344374183645413380")?;
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// assert_eq!(orders.key_sets()[0].issuer(), "https://shop-ab12.zitadel.cloud");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `domain` is not a host name in lower case, or the audience is empty.
    pub fn zitadel(
        domain: impl AsRef<str>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        // The audience of an ID token may contain the project as well.
        Ok(
            for_audience(provider::zitadel(domain.as_ref())?, audience)?.require_of_provider(
                ProviderRule {
                    expected: "jti, as in access tokens",
                    otherwise: "no jti",
                    is_met: |token| has(token, "jti"),
                },
            ),
        )
    }

    /// Trusts the access tokens of the signed-in users of a Supabase project.
    ///
    /// `project` is its reference, or the host of a custom domain. The audience is `authenticated`.
    /// Users who signed in anonymously are rejected, and so are applications that sign users in
    /// through the OAuth server of the project: their tokens have a `client_id`.
    /// The keys are fetched from `/auth/v1/.well-known/jwks.json`. Tokens that are signed with the
    /// legacy secret of the project are rejected. [`guide::providers::supabase`][guide] says what
    /// to set in Supabase.
    ///
    /// [guide]: mod@crate::guide::providers::supabase
    ///
    /// ```
    /// use tower_oauth::{ResourceServer, TrustedIssuer};
    ///
    /// let issuer = TrustedIssuer::supabase("abcdefghijklmnopqrst")?;
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// let name = "https://abcdefghijklmnopqrst.supabase.co/auth/v1";
    /// assert_eq!(orders.key_sets()[0].issuer(), name);
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `project` is neither a reference nor a host name in lower case.
    pub fn supabase(project: impl AsRef<str>) -> Result<Self, ConfigError> {
        let issuer = provider::supabase(project.as_ref())?;
        let jwks_uri = Endpoint::new(format!("{issuer}/.well-known/jwks.json"))?;
        Ok(Self::new(issuer, Audience::new("authenticated")?)
            .jwks_uri(jwks_uri)
            .require_of_provider(ProviderRule {
                expected: "a user with an account",
                otherwise: "an anonymous user (is_anonymous)",
                is_met: |token| matches!(token.claim("is_anonymous"), Ok(None | Some(false))),
            })
            .require_of_provider(ProviderRule {
                expected: "no client_id",
                otherwise: "the client_id of another application",
                is_met: |token| matches!(token.claim("client_id"), Ok(None | Some(Value::Null))),
            }))
    }
}

/// Whether a name is the e-mail address of a service account, and not of a person.
fn is_service_account(caller: &str) -> bool {
    caller
        .split_once('@')
        .is_some_and(|(_, domain)| domain.ends_with(".gserviceaccount.com"))
}

fn for_audience(
    issuer: Issuer,
    audience: impl TryInto<Audience, Error: Into<ConfigError>>,
) -> Result<TrustedIssuer, ConfigError> {
    let audience = audience.try_into().map_err(Into::into)?;
    Ok(TrustedIssuer::new(issuer, audience))
}

/// Whether a token has this claim, a string. Not `client_id`, which the application may name.
fn has(token: &AuthContext, claim: &str) -> bool {
    matches!(token.claim::<String>(claim), Ok(Some(_)))
}

/// The name of a Google service account: the unique id if that is allowed, else its verified e-mail
/// address, else the unique id.
fn google_caller(token: &AuthContext, allowed: &[String]) -> Option<String> {
    let id = token.subject().filter(|id| !id.contains('@'));
    if id.is_some_and(|id| allowed.iter().any(|one| one == id)) {
        return id.map(str::to_owned);
    }
    let is_verified = matches!(token.claim("email_verified"), Ok(Some(true)));
    let email: Option<String> = token.claim("email").ok().flatten();
    let email = email.filter(|email| is_verified && email.contains('@'));
    email.or_else(|| id.map(str::to_owned))
}
