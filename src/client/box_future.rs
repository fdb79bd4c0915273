//! The future type of the client's traits.

use std::pin::Pin;

/// A boxed future that can be sent to another thread.
///
/// The client's traits return it, so that they can be trait objects. It costs one allocation for
/// each token request.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
