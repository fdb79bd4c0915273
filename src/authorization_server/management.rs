//! The management API: applications, their scopes and roles, in App ID's shapes; and, beyond
//! App ID's, the signing keys.

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

use super::applications::{Registration, Role};
use super::error_response::Refusal;
use super::extractor::Whole;
use super::persistence::STATE_FILE;
use super::signing_keys::same;
use super::{AuthorizationServer, Inner, PublishedKey, Version};
use crate::error::ConfigError;

pub(super) fn router(server: AuthorizationServer) -> Router<AuthorizationServer> {
    Router::new()
        // App ID's guide posts to the path with a slash at its end.
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
        .route_layer(from_fn_with_state(server, check_token))
}

/// The part of a path with this name. Paths nest, so they are read by name.
fn segment<'a>(path: &'a [(String, String)], name: &str) -> Result<&'a str, Refusal> {
    let found = path.iter().find(|(other, _)| other == name);
    found
        .map(|(_, value)| value.as_str())
        .ok_or_else(Refusal::not_found)
}

type Server = State<AuthorizationServer>;
type Segments = Path<Vec<(String, String)>>;

/// In App ID an IAM token; here the one that the server was started with.
async fn check_token(State(server): Server, request: Request, next: Next) -> Response {
    let mut fields = request.headers().get_all(header::AUTHORIZATION).iter();
    let token = fields
        .next()
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("Bearer").then_some(token)
        });
    if fields.next().is_none() && token.is_some_and(|token| same(token, &server.0.management_token))
    {
        return next.run(request).await;
    }
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the management token is missing or wrong",
    )
    .challenging(r#"Bearer realm="management""#)
    .into_response()
}

/// The JSON of a request, whatever its content type says: the guide's `curl` says it right.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|_| Refusal::bad_request("invalid_request", "the body is not as it should be"))
}

/// A change that was refused, or could not be written down.
fn refused(error: &ConfigError) -> Refusal {
    if error.setting() == STATE_FILE {
        return Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "the state file cannot be written",
        );
    }
    Refusal::bad_request("invalid_request", error.to_string())
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
}

async fn register(State(server): Server, Whole(body): Whole) -> Result<Json<Value>, Refusal> {
    let Named { name, kind } = read(&body)?;
    let kind = kind.as_deref().unwrap_or("regularwebapp");
    let registered = server
        .0
        .change(|state| state.register_as(&name, kind))
        .map_err(|error| refused(&error))?;
    Ok(Json(application(&server.0, &registered)))
}

async fn list(State(server): Server) -> Json<Value> {
    let applications = server.0.state().applications.clone();
    let shown: Vec<Value> = applications
        .iter()
        .map(|one| application(&server.0, one))
        .collect();
    Json(json!({ "applications": shown }))
}

async fn show(State(server): Server, Path(path): Segments) -> Result<Json<Value>, Refusal> {
    let client_id = segment(&path, "client_id")?;
    let found = server
        .0
        .state()
        .application(client_id)
        .cloned()
        .ok_or_else(Refusal::not_found)?;
    Ok(Json(application(&server.0, &found)))
}

async fn rename(
    State(server): Server,
    Path(path): Segments,
    Whole(body): Whole,
) -> Result<Json<Value>, Refusal> {
    let Named { name, .. } = read(&body)?;
    let renamed = change(&server.0, &path, |application| application.set_name(&name))?;
    Ok(Json(application(&server.0, &renamed)))
}

async fn remove(State(server): Server, Path(path): Segments) -> Result<StatusCode, Refusal> {
    let client_id = segment(&path, "client_id")?;
    let removed = server
        .0
        .change(|state| Ok(state.delete_application(client_id)));
    match removed.map_err(|error| refused(&error))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::not_found()),
    }
}

#[derive(Deserialize)]
struct Scopes {
    scopes: Vec<String>,
}

async fn scopes(State(server): Server, Path(path): Segments) -> Result<Json<Value>, Refusal> {
    let client_id = segment(&path, "client_id")?;
    let state = server.0.state();
    let found = state
        .application(client_id)
        .ok_or_else(Refusal::not_found)?;
    Ok(Json(json!({ "scopes": found.scopes })))
}

async fn set_scopes(
    State(server): Server,
    Path(path): Segments,
    Whole(body): Whole,
) -> Result<Json<Value>, Refusal> {
    let Scopes { scopes } = read(&body)?;
    let changed = change(&server.0, &path, |application| {
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
    Path(path): Segments,
) -> Result<Json<Value>, Refusal> {
    let client_id = segment(&path, "client_id")?;
    let ids = server
        .0
        .state()
        .application(client_id)
        .ok_or_else(Refusal::not_found)?
        .role_ids
        .clone();
    Ok(Json(roles_by_id(&server.0, &ids)))
}

async fn set_application_roles(
    State(server): Server,
    Path(path): Segments,
    Whole(body): Whole,
) -> Result<Json<Value>, Refusal> {
    let RoleIds { roles: Ids { ids } } = read(&body)?;
    let client_id = segment(&path, "client_id")?;
    let changed = server.0.change(|state| {
        if !ids.iter().all(|id| state.has_role(id)) {
            return Err(ConfigError::without_value(
                "roles",
                "must be ids of roles that there are",
            ));
        }
        state.change_application(client_id, |application| {
            application.role_ids = ids;
            Ok(())
        })
    });
    let changed = changed
        .map_err(|error| refused(&error))?
        .ok_or_else(Refusal::not_found)?;
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

/// Changes one application.
fn change(
    server: &Inner,
    path: &[(String, String)],
    change: impl FnOnce(&mut Registration) -> Result<(), ConfigError>,
) -> Result<Registration, Refusal> {
    let client_id = segment(path, "client_id")?;
    let changed = server.change(|state| state.change_application(client_id, change));
    changed
        .map_err(|error| refused(&error))?
        .ok_or_else(Refusal::not_found)
}

fn application(server: &Inner, application: &Registration) -> Value {
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

fn role(role: &Role) -> Value {
    let access: Vec<Value> = role
        .access
        .iter()
        .map(|(id, scopes)| json!({ "application_id": id, "scopes": scopes }))
        .collect();
    json!({ "id": role.id, "name": role.name, "description": role.description, "access": access })
}

async fn list_roles(State(server): Server) -> Json<Value> {
    let shown: Vec<Value> = server.0.state().roles.iter().map(role).collect();
    Json(json!({ "roles": shown }))
}

async fn add_role(
    State(server): Server,
    Whole(body): Whole,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let body: RoleBody = read(&body)?;
    let added = server
        .0
        .change(|state| state.add_role(body.into_role(uuid::Uuid::new_v4().to_string())?));
    let added = added.map_err(|error| refused(&error))?;
    Ok((StatusCode::CREATED, Json(role(&added))))
}

async fn show_role(State(server): Server, Path(path): Segments) -> Result<Json<Value>, Refusal> {
    let id = segment(&path, "id")?;
    let state = server.0.state();
    let found = state
        .roles
        .iter()
        .find(|role| role.id == id)
        .ok_or_else(Refusal::not_found)?;
    Ok(Json(role(found)))
}

async fn replace_role(
    State(server): Server,
    Path(path): Segments,
    Whole(body): Whole,
) -> Result<Json<Value>, Refusal> {
    let id = segment(&path, "id")?;
    let body: RoleBody = read(&body)?;
    let replaced = server.0.change(|state| {
        let replacement = body.into_role(id.to_owned())?;
        let found = state.roles.iter_mut().find(|role| role.id == id);
        Ok(found.map(|role| {
            role.clone_from(&replacement);
            replacement
        }))
    });
    let replaced = replaced
        .map_err(|error| refused(&error))?
        .ok_or_else(Refusal::not_found)?;
    Ok(Json(role(&replaced)))
}

async fn remove_role(State(server): Server, Path(path): Segments) -> Result<StatusCode, Refusal> {
    let id = segment(&path, "id")?;
    let removed = server.0.change(|state| Ok(state.delete_role(id)));
    match removed.map_err(|error| refused(&error))? {
        true => Ok(StatusCode::ACCEPTED),
        false => Err(Refusal::not_found()),
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

async fn rotate(State(server): Server) -> Result<(StatusCode, Json<Value>), Refusal> {
    // Making an RSA key takes a while: not on a worker of the runtime.
    let rotated = tokio::task::spawn_blocking(move || server.rotate()).await;
    let failed = || {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "no key could be made",
        )
    };
    let kid = rotated.map_err(|_| failed())?.map_err(|_| failed())?;
    Ok((StatusCode::CREATED, Json(json!({ "kid": kid }))))
}

async fn withdraw(State(server): Server, Path(path): Segments) -> Result<StatusCode, Refusal> {
    let kid = segment(&path, "kid")?.to_owned();
    // It may have to make a key: not on a worker of the runtime.
    let withdrawn = tokio::task::spawn_blocking(move || server.withdraw(&kid)).await;
    let failed = |_| {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "no key could be made",
        )
    };
    match withdrawn
        .map_err(failed)?
        .map_err(|error| refused(&error))?
    {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::not_found()),
    }
}
