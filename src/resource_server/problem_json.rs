//! Responses to rejected requests as problem details (RFC 9457).

use http::{HeaderValue, Response, header};
use serde::Serialize;

use super::rejection_response::default_response;
use super::{Rejection, RejectionResponse};
use crate::oauth::Scope;

/// Responds to rejected requests with problem details
/// ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).
///
/// With the status and the header fields of
/// [`DefaultRejectionResponse`](super::DefaultRejectionResponse), the challenge among them, and a
/// body of `application/problem+json`. Its members:
///
/// | member | value |
/// | --- | --- |
/// | `type` | `about:blank`: the status says what the problem is |
/// | `title` | the status in words |
/// | `status` | the status |
/// | `detail` | [`Rejection::description`] |
/// | `error`, `scope`, `acr_values`, `max_age` | those of the challenge, if it has them |
///
/// For each body that is made from a `String`, such as those of axum and `http_body_util::Full`.
/// The response to a gRPC call has no body.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use tower::ServiceExt as _;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::resource_server::ProblemJson;
///
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// let layer = orders.layer().on_rejection(ProblemJson);
/// let app: Router = Router::new().route("/", get(async || "orders")).layer(layer);
///
/// let response = app.oneshot(Request::get("/").body(Body::empty())?).await?;
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.headers()["content-type"], "application/problem+json");
/// assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="resource""#);
/// let body = axum::body::to_bytes(response.into_body(), 1024).await?;
/// let problem: serde_json::Value = serde_json::from_slice(&body)?;
/// assert_eq!(problem["title"], "Unauthorized");
/// assert_eq!(problem["detail"], "An access token is required");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no settings")]
pub struct ProblemJson;

#[derive(Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    acr_values: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age: Option<u64>,
}

impl<B: From<String>> RejectionResponse<B> for ProblemJson {
    fn response(&self, rejection: &Rejection) -> Response<B> {
        if rejection.is_grpc() {
            return default_response(rejection, String::new().into());
        }
        let scopes = rejection.required_scopes().iter().map(Scope::as_str);
        let problem = Problem {
            r#type: "about:blank",
            title: rejection.status().canonical_reason().unwrap_or_default(),
            status: rejection.status().as_u16(),
            detail: rejection.description(),
            error: rejection.error(),
            scope: joined(scopes),
            acr_values: joined(rejection.acr_values()),
            max_age: rejection.max_age().map(|age| age.as_secs()),
        };
        // Strings and numbers are JSON.
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let mut response = default_response(rejection, body.into());
        let problem_json = HeaderValue::from_static("application/problem+json");
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, problem_json);
        response
    }
}

fn joined<'r>(values: impl Iterator<Item = &'r str>) -> String {
    values.collect::<Vec<_>>().join(" ")
}
