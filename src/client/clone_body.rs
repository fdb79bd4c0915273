//! Cloning of request bodies, which decides whether a request can be retried.

use http_body::Body;

/// Clones the body of a request for a retry, before the first attempt consumes it.
///
/// A request whose body is not cloned is not retried: the caller gets the 401 response. The
/// rejected token is renewed nevertheless, so that the next request has a new one.
pub trait CloneBody<B> {
    /// Returns a clone of the body, or `None` if the request is not to be retried.
    fn clone_body(&self, body: &B) -> Option<B>;
}

/// Retries requests with an empty body, such as most `GET` requests. The default.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CloneEmptyBody;

impl<B: Body + Default> CloneBody<B> for CloneEmptyBody {
    fn clone_body(&self, body: &B) -> Option<B> {
        body.is_end_stream().then(B::default)
    }
}

/// Retries every request with a clone of its body.
///
/// For bodies that are cheap to clone, such as `Full<Bytes>`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CloneAnyBody;

impl<B: Clone> CloneBody<B> for CloneAnyBody {
    fn clone_body(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

/// Retries no request. For bodies of any type.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CloneNoBody;

impl<B> CloneBody<B> for CloneNoBody {
    fn clone_body(&self, _: &B) -> Option<B> {
        None
    }
}
