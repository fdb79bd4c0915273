//! Trusted issuers for known providers.

use super::{AuthContext, TrustedIssuer};
use crate::error::ConfigError;
use crate::jwt::Algorithm;
use crate::oauth::{Audience, Endpoint, Issuer};
use crate::provider;

impl TrustedIssuer {
    /// Trusts the access tokens of a Keycloak realm.
    pub fn keycloak(
        url: impl AsRef<str>,
        realm: impl AsRef<str>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        let issuer = provider::keycloak(url.as_ref(), realm.as_ref())?;
        Ok(for_audience(issuer, audience)?.require_claim("typ", ["Bearer", "DPoP"]))
    }

    /// Trusts the access tokens of a Microsoft Entra tenant for one application.
    pub fn entra(
        tenant: impl AsRef<str>,
        application_id: impl AsRef<str>,
    ) -> Result<Self, ConfigError> {
        let tenant = provider::entra_tenant(tenant.as_ref())?;
        let reason = "must be an application (client) id, a GUID: add the other audiences of the \
                      application with `add_audience`";
        let application_id = provider::guid("application_id", application_id.as_ref(), reason)?;
        let audience = Audience::new(&application_id)?;
        let names_its_client = |token: &AuthContext| token.client_id().is_some();
        Ok(Self::new(provider::entra(&tenant)?, audience)
            .add_alias(provider::entra_v1(&tenant)?)
            .add_audience(Audience::new(format!("api://{application_id}"))?)
            .algorithms([Algorithm::Rs256])
            .check_key_issuers()
            .require_claim("tid", [tenant])
            .require_of_provider("azp or appid, as in access tokens", names_its_client))
    }

    /// Trusts the access tokens of an Auth0 tenant for one API.
    pub fn auth0(
        domain: impl AsRef<str>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        for_audience(provider::auth0(domain.as_ref())?, audience)
    }

    /// Trusts the access tokens of a custom authorization server of Okta.
    pub fn okta(
        domain: impl AsRef<str>,
        authorization_server: impl AsRef<str>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        let issuer = provider::okta(domain.as_ref(), authorization_server.as_ref())?;
        for_audience(issuer, audience)
    }

    /// Trusts the access tokens that an Amazon Cognito user pool issues to these app clients.
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
            .find(|caller| !is_unique_id(caller) && !caller.contains('@'))
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
    pub fn zitadel(
        domain: impl AsRef<str>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        // The audience of an ID token may contain the project as well.
        let has_id = |token: &AuthContext| matches!(token.claim::<String>("jti"), Ok(Some(_)));
        Ok(for_audience(provider::zitadel(domain.as_ref())?, audience)?
            .require_of_provider("jti, as in access tokens", has_id))
    }

    /// Trusts the access tokens of the signed-in users of a Supabase project.
    pub fn supabase(project: impl AsRef<str>) -> Result<Self, ConfigError> {
        let issuer = provider::supabase(project.as_ref())?;
        let jwks_uri = Endpoint::new(format!("{issuer}/.well-known/jwks.json"))?;
        Ok(Self::new(issuer, Audience::new("authenticated")?).jwks_uri(jwks_uri))
    }
}

fn for_audience(
    issuer: Issuer,
    audience: impl TryInto<Audience, Error: Into<ConfigError>>,
) -> Result<TrustedIssuer, ConfigError> {
    let audience = audience.try_into().map_err(Into::into)?;
    Ok(TrustedIssuer::new(issuer, audience))
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
