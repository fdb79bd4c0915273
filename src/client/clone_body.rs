//! Whether a request can be sent twice: its body decides.

use http_body::Body;

/// Makes the body of a second attempt, before the first one consumes it.
///
/// A request whose body cannot be cloned is sent once, and a 401 to it is the caller's response.
/// The token that was refused is replaced all the same, so that the next request goes out with
/// another one.
pub trait CloneBody<B> {
    /// The same body once more, if that is possible.
    fn clone_body(&self, body: &B) -> Option<B>;
}

/// Clones the body of requests without a body, such as most `GET`s. The default.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CloneEmptyBody;

impl<B: Body + Default> CloneBody<B> for CloneEmptyBody {
    fn clone_body(&self, body: &B) -> Option<B> {
        body.is_end_stream().then(B::default)
    }
}

/// Clones the body of every request, by a clone of its body. For bodies that are cheap to clone, such as
/// `Full<Bytes>`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CloneAnyBody;

impl<B: Clone> CloneBody<B> for CloneAnyBody {
    fn clone_body(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

/// Clones the body of nothing. For any body.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CloneNoBody;

impl<B> CloneBody<B> for CloneNoBody {
    fn clone_body(&self, _: &B) -> Option<B> {
        None
    }
}
