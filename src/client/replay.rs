//! Whether a request can be sent twice: its body decides.

use http_body::Body;

/// Makes the body of a second attempt, before the first one consumes it.
///
/// A request whose body cannot be replayed is sent once, and a 401 to it is the caller's response.
/// The token that was refused is replaced all the same, so that the next request goes out with
/// another one.
pub trait Replay<B> {
    /// The same body once more, if that is possible.
    fn replay(&self, body: &B) -> Option<B>;
}

/// Replays requests without a body, such as most `GET`s. The default.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ReplayEmpty;

impl<B: Body + Default> Replay<B> for ReplayEmpty {
    fn replay(&self, body: &B) -> Option<B> {
        body.is_end_stream().then(B::default)
    }
}

/// Replays every request, by a clone of its body. For bodies that are cheap to clone, such as
/// `Full<Bytes>`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ReplayCloned;

impl<B: Clone> Replay<B> for ReplayCloned {
    fn replay(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

/// Replays nothing. For any body.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ReplayNever;

impl<B> Replay<B> for ReplayNever {
    fn replay(&self, _: &B) -> Option<B> {
        None
    }
}
