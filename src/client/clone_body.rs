//! Cloning of request bodies, which decides whether a request can be retried.

use http_body::Body;

/// Clones the body of a request for a retry, before the first attempt consumes it.
///
/// A request whose body is not cloned is not retried: the caller gets the 401 response. The
/// rejected token is renewed nevertheless, so that the next request has a new one.
///
/// ```
/// use bytes::Bytes;
/// use http_body::Body as _;
/// use http_body_util::Full;
/// use tower_oauth::client::CloneBody;
///
/// /// Retries requests with a body of up to 64 KiB.
/// #[derive(Clone)]
/// struct CloneSmallBody;
///
/// impl CloneBody<Full<Bytes>> for CloneSmallBody {
///     fn clone_body(&self, body: &Full<Bytes>) -> Option<Full<Bytes>> {
///         let length = body.size_hint().exact()?;
///         (length <= 64 * 1024).then(|| body.clone())
///     }
/// }
///
/// assert!(CloneSmallBody.clone_body(&Full::from("small")).is_some());
/// assert!(CloneSmallBody.clone_body(&Full::from("x".repeat(100_000))).is_none());
/// ```
pub trait CloneBody<B> {
    /// Returns a clone of the body, or `None` if the request is not to be retried.
    fn clone_body(&self, body: &B) -> Option<B>;
}

/// Retries requests with an empty body, such as most `GET` requests. The default.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use tower_oauth::client::{CloneBody, CloneEmptyBody};
///
/// let clone_body = CloneEmptyBody;
/// assert!(clone_body.clone_body(&Full::<Bytes>::default()).is_some());
/// assert!(clone_body.clone_body(&Full::<Bytes>::from("an order")).is_none());
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no settings")]
pub struct CloneEmptyBody;

impl<B: Body + Default> CloneBody<B> for CloneEmptyBody {
    fn clone_body(&self, body: &B) -> Option<B> {
        body.is_end_stream().then(B::default)
    }
}

/// Retries every request with a clone of its body.
///
/// For bodies that are cheap to clone, such as `Full<Bytes>`.
///
/// ```
/// use tower_oauth::client::{CloneAnyBody, CloneBody};
///
/// let body = "an order".to_owned();
/// assert_eq!(CloneAnyBody.clone_body(&body), Some(body));
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no settings")]
pub struct CloneAnyBody;

impl<B: Clone> CloneBody<B> for CloneAnyBody {
    fn clone_body(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

/// Retries no request. For bodies of any type.
///
/// ```
/// use tower_oauth::client::{CloneBody, CloneNoBody};
///
/// assert_eq!(CloneNoBody.clone_body(&"an order"), None);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no settings")]
pub struct CloneNoBody;

impl<B> CloneBody<B> for CloneNoBody {
    fn clone_body(&self, _: &B) -> Option<B> {
        None
    }
}
