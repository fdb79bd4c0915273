//! The management API: App ID's API for applications, scopes and roles, extended by signing keys
//! and by what authenticates an application in place of its secret.

mod assertions;

use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use http::{StatusCode, header};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::applications::{Registration, Role, check_app_id_scopes};
use super::error_response::ErrorResponse;
use super::extractor::RequestBody;
use super::persistence::STATE_FILE;
use super::signing_keys::constant_time_eq;
use super::{AuthorizationServer, Inner, PublishedKey, Version};
use crate::error::ConfigError;

pub(super) fn router(server: AuthorizationServer) -> Router<AuthorizationServer> {
    Router::new()
        // App ID's documentation posts to the path with a trailing slash.
        .route("/applications", get(list).post(register))
        .route("/applications/", get(list).post(register))
        .route(
            "/applications/{client_id}",
            get(show).put(rename).delete(remove),
        )
        .route(
            "/applications/{client_id}/scopes",
            get(scopes).put(set_scopes),
        )
        .route(
            "/applications/{client_id}/assertions",
            get(assertions::show).put(assertions::replace),
        )
        .route(
            "/applications/{client_id}/roles",
            get(application_roles).put(set_application_roles),
        )
        .route("/roles", get(list_roles).post(add_role))
        .route(
            "/roles/{id}",
            get(show_role).put(replace_role).delete(remove_role),
        )
        .route("/keys", get(list_keys).post(rotate))
        .route("/keys/{kid}", delete(withdraw))
        .route_layer(from_fn_with_state(server, check_management_token))
}

/// The path parameter with this name. Routers are nested, so positions are not fixed.
fn path_parameter<'a>(path: &'a [(String, String)], name: &str) -> Result<&'a str, ErrorResponse> {
    let found = path.iter().find(|(other, _)| other == name);
    found
        .map(|(_, value)| value.as_str())
        .ok_or_else(ErrorResponse::not_found)
}

type Server = State<AuthorizationServer>;
type PathParameters = Path<Vec<(String, String)>>;

/// Checks the management token, which takes the place of App ID's IAM token.
async fn check_management_token(State(server): Server, request: Request, next: Next) -> Response {
    let mut fields = request.headers().get_all(header::AUTHORIZATION).iter();
    let token = fields
        .next()
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("Bearer").then_some(token)
        });
    if fields.next().is_none()
        && token.is_some_and(|token| constant_time_eq(token, &server.0.management_token))
    {
        return next.run(request).await;
    }
    ErrorResponse::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the management token is missing or wrong",
    )
    .with_challenge(r#"Bearer realm="management""#)
    .into_response()
}

/// Parses a JSON body and ignores its content type.
fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorResponse> {
    serde_json::from_slice(body).map_err(unexpected_json)
}

/// The text of the parser may quote the body.
fn unexpected_json(_: serde_json::Error) -> ErrorResponse {
    ErrorResponse::bad_request("invalid_request", "the body is not the expected JSON")
}

/// The response to an update that was invalid or could not be saved.
fn error_response(error: &ConfigError) -> ErrorResponse {
    if error.setting() == STATE_FILE {
        return ErrorResponse::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "the state file cannot be written",
        );
    }
    ErrorResponse::bad_request("invalid_request", error.to_string())
}

#[derive(Deserialize)]
struct ApplicationBody {
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
}

async fn register(
    State(server): Server,
    RequestBody(body): RequestBody,
) -> Result<Json<Value>, ErrorResponse> {
    let ApplicationBody { name, kind } = parse_json(&body)?;
    let kind = kind.as_deref().unwrap_or("regularwebapp");
    let registered = server
        .0
        .update(|state| state.register_as(&name, kind))
        .map_err(|error| error_response(&error))?;
    Ok(Json(application_json(&server.0, &registered)))
}

async fn list(State(server): Server) -> Json<Value> {
    let applications = server.0.state().applications.clone();
    let shown: Vec<Value> = applications
        .iter()
        .map(|registration| application_json(&server.0, registration))
        .collect();
    Json(json!({ "applications": shown }))
}

async fn show(
    State(server): Server,
    Path(path): PathParameters,
) -> Result<Json<Value>, ErrorResponse> {
    let client_id = path_parameter(&path, "client_id")?;
    let found = server
        .0
        .state()
        .application(client_id)
        .cloned()
        .ok_or_else(ErrorResponse::not_found)?;
    Ok(Json(application_json(&server.0, &found)))
}

async fn rename(
    State(server): Server,
    Path(path): PathParameters,
    RequestBody(body): RequestBody,
) -> Result<Json<Value>, ErrorResponse> {
    let ApplicationBody { name, .. } = parse_json(&body)?;
    let renamed = update_application(&server.0, &path, |application| application.set_name(&name))?;
    Ok(Json(application_json(&server.0, &renamed)))
}

async fn remove(
    State(server): Server,
    Path(path): PathParameters,
) -> Result<StatusCode, ErrorResponse> {
    let client_id = path_parameter(&path, "client_id")?;
    let removed = server
        .0
        .update(|state| Ok(state.delete_application(client_id)));
    match removed.map_err(|error| error_response(&error))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ErrorResponse::not_found()),
    }
}

#[derive(Deserialize)]
struct Scopes {
    scopes: Vec<String>,
}

async fn scopes(
    State(server): Server,
    Path(path): PathParameters,
) -> Result<Json<Value>, ErrorResponse> {
    let client_id = path_parameter(&path, "client_id")?;
    let state = server.0.state();
    let found = state
        .application(client_id)
        .ok_or_else(ErrorResponse::not_found)?;
    Ok(Json(json!({ "scopes": found.scopes })))
}

async fn set_scopes(
    State(server): Server,
    Path(path): PathParameters,
    RequestBody(body): RequestBody,
) -> Result<Json<Value>, ErrorResponse> {
    let Scopes { scopes } = parse_json(&body)?;
    let changed = update_application(&server.0, &path, |application| {
        check_app_id_scopes(&scopes)?;
        application.set_scopes(scopes)
    })?;
    Ok(Json(json!({ "scopes": changed.scopes })))
}

#[derive(Deserialize)]
struct RoleIds {
    roles: Ids,
}

#[derive(Deserialize)]
struct Ids {
    ids: Vec<String>,
}

async fn application_roles(
    State(server): Server,
    Path(path): PathParameters,
) -> Result<Json<Value>, ErrorResponse> {
    let client_id = path_parameter(&path, "client_id")?;
    let ids = server
        .0
        .state()
        .application(client_id)
        .ok_or_else(ErrorResponse::not_found)?
        .role_ids
        .clone();
    Ok(Json(roles_by_id(&server.0, &ids)))
}

async fn set_application_roles(
    State(server): Server,
    Path(path): PathParameters,
    RequestBody(body): RequestBody,
) -> Result<Json<Value>, ErrorResponse> {
    let RoleIds { roles: Ids { ids } } = parse_json(&body)?;
    let client_id = path_parameter(&path, "client_id")?;
    let changed = server.0.update(|state| {
        if !ids.iter().all(|id| state.has_role(id)) {
            return Err(ConfigError::without_value(
                "roles",
                "must be ids of existing roles",
            ));
        }
        state.update_application(client_id, |application| {
            application.role_ids = ids;
            Ok(())
        })
    });
    let changed = changed
        .map_err(|error| error_response(&error))?
        .ok_or_else(ErrorResponse::not_found)?;
    Ok(Json(roles_by_id(&server.0, &changed.role_ids)))
}

fn roles_by_id(server: &Inner, ids: &[String]) -> Value {
    let state = server.state();
    let roles = state.roles.iter().filter(|role| ids.contains(&role.id));
    let shown: Vec<Value> = roles
        .map(|role| json!({ "id": role.id, "name": role.name }))
        .collect();
    json!({ "roles": shown })
}

/// Updates one application.
fn update_application(
    server: &Inner,
    path: &[(String, String)],
    update: impl FnOnce(&mut Registration) -> Result<(), ConfigError>,
) -> Result<Registration, ErrorResponse> {
    let client_id = path_parameter(path, "client_id")?;
    let changed = server.update(|state| state.update_application(client_id, update));
    changed
        .map_err(|error| error_response(&error))?
        .ok_or_else(ErrorResponse::not_found)
}

fn application_json(server: &Inner, application: &Registration) -> Value {
    let url = server.oauth_url(Version::V4);
    json!({
        "clientId": application.client_id,
        "tenantId": server.tenant_id,
        "secret": application.secret.expose_secret(),
        "name": application.name,
        "oAuthServerUrl": url,
        "profilesUrl": server.base_url,
        "discoveryEndpoint": format!("{url}/.well-known/openid-configuration"),
        "type": application.kind,
        "scopes": application.scopes,
    })
}

#[derive(Deserialize)]
struct RoleBody {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    access: Vec<Access>,
}

#[derive(Deserialize)]
struct Access {
    application_id: String,
    scopes: Vec<String>,
}

impl RoleBody {
    fn into_role(self, id: String) -> Result<Role, ConfigError> {
        let access = self.access.into_iter().map(
            |Access {
                 application_id,
                 scopes,
             }| (application_id, scopes),
        );
        let role = Role {
            id,
            name: self.name,
            description: self.description,
            access: access.collect(),
        };
        role.check()?;
        Ok(role)
    }
}

fn role_json(role: &Role) -> Value {
    let access: Vec<Value> = role
        .access
        .iter()
        .map(|(id, scopes)| json!({ "application_id": id, "scopes": scopes }))
        .collect();
    json!({ "id": role.id, "name": role.name, "description": role.description, "access": access })
}

async fn list_roles(State(server): Server) -> Json<Value> {
    let shown: Vec<Value> = server.0.state().roles.iter().map(role_json).collect();
    Json(json!({ "roles": shown }))
}

async fn add_role(
    State(server): Server,
    RequestBody(body): RequestBody,
) -> Result<(StatusCode, Json<Value>), ErrorResponse> {
    let body: RoleBody = parse_json(&body)?;
    let added = server
        .0
        .update(|state| state.add_role(body.into_role(uuid::Uuid::new_v4().to_string())?));
    let added = added.map_err(|error| error_response(&error))?;
    Ok((StatusCode::CREATED, Json(role_json(&added))))
}

async fn show_role(
    State(server): Server,
    Path(path): PathParameters,
) -> Result<Json<Value>, ErrorResponse> {
    let id = path_parameter(&path, "id")?;
    let state = server.0.state();
    let found = state
        .roles
        .iter()
        .find(|role| role.id == id)
        .ok_or_else(ErrorResponse::not_found)?;
    Ok(Json(role_json(found)))
}

async fn replace_role(
    State(server): Server,
    Path(path): PathParameters,
    RequestBody(body): RequestBody,
) -> Result<Json<Value>, ErrorResponse> {
    let id = path_parameter(&path, "id")?;
    let body: RoleBody = parse_json(&body)?;
    let replaced = server.0.update(|state| {
        let replacement = body.into_role(id.to_owned())?;
        let found = state.roles.iter_mut().find(|role| role.id == id);
        Ok(found.map(|role| {
            role.clone_from(&replacement);
            replacement
        }))
    });
    let replaced = replaced
        .map_err(|error| error_response(&error))?
        .ok_or_else(ErrorResponse::not_found)?;
    Ok(Json(role_json(&replaced)))
}

async fn remove_role(
    State(server): Server,
    Path(path): PathParameters,
) -> Result<StatusCode, ErrorResponse> {
    let id = path_parameter(&path, "id")?;
    let removed = server.0.update(|state| Ok(state.delete_role(id)));
    match removed.map_err(|error| error_response(&error))? {
        true => Ok(StatusCode::ACCEPTED),
        false => Err(ErrorResponse::not_found()),
    }
}

async fn list_keys(State(server): Server) -> Json<Value> {
    let key = |key: &PublishedKey| {
        json!({
            "kid": key.kid(),
            "alg": key.algorithm().name(),
            "created_at": key.created_at().as_secs(),
            "current": key.is_current(),
        })
    };
    Json(json!({ "keys": server.keys().iter().map(key).collect::<Vec<_>>() }))
}

async fn rotate(State(server): Server) -> Result<(StatusCode, Json<Value>), ErrorResponse> {
    // RSA key generation is slow and must not block the runtime.
    let rotated = tokio::task::spawn_blocking(move || server.rotate()).await;
    let key_error = || {
        ErrorResponse::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "no key could be generated",
        )
    };
    let kid = rotated.map_err(|_| key_error())?.map_err(|_| key_error())?;
    Ok((StatusCode::CREATED, Json(json!({ "kid": kid }))))
}

async fn withdraw(
    State(server): Server,
    Path(path): PathParameters,
) -> Result<StatusCode, ErrorResponse> {
    let kid = path_parameter(&path, "kid")?.to_owned();
    // This may generate a key, which must not block the runtime.
    let withdrawn = tokio::task::spawn_blocking(move || server.withdraw(&kid)).await;
    let key_error = |_| {
        ErrorResponse::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "no key could be generated",
        )
    };
    match withdrawn
        .map_err(key_error)?
        .map_err(|error| error_response(&error))?
    {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ErrorResponse::not_found()),
    }
}
