//! Cloning of request bodies of reqwest.

use bytes::Bytes;
use reqwest::Body;

use super::CloneBody;

/// Retries requests whose `reqwest::Body` is in memory, with a copy of it.
///
/// A stream is not cloned. For [`retry_with`](super::BearerTokenLayer::retry_with). It copies the
/// body of each request that gets a token, because the first attempt consumes it.
///
/// ```
/// use http_body_util::Full;
/// use reqwest::Body;
/// use tower_oauth::client::{CloneBody, CloneBufferedBody};
///
/// let buffered = Body::from("an order");
/// let clone = CloneBufferedBody.clone_body(&buffered);
/// assert_eq!(clone.and_then(|body| body.as_bytes().map(<[u8]>::to_vec)), Some(b"an order".into()));
///
/// let stream = Body::wrap(Full::<bytes::Bytes>::from("an order"));
/// assert!(CloneBufferedBody.clone_body(&stream).is_none());
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no settings")]
pub struct CloneBufferedBody;

impl CloneBody<Body> for CloneBufferedBody {
    fn clone_body(&self, body: &Body) -> Option<Body> {
        body.as_bytes()
            .map(|bytes| Bytes::copy_from_slice(bytes).into())
    }
}
