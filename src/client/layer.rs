//! The client's layer, and how it is adjusted.

use std::sync::Arc;

use http::Uri;
use tower_layer::Layer;

use super::origin::Origin;
use super::{BearerTokenService, CloneAnyBody, CloneEmptyBody, CloneNoBody, TokenManager};
use crate::oauth::Endpoint;

/// Puts the access token on requests, and replaces a token that a resource server refuses.
///
/// A refusal that names the token is a 401 whose Bearer challenge says `invalid_token`
/// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)), or over gRPC the same
/// challenge with `grpc-status: 16` in the headers of the response (a trailers-only response;
/// trailers after a body are not looked at). Then the token is renewed, whether or not the request
/// can be sent again; meanwhile it serves other requests, because another resource server may
/// accept it. A request that can be sent again waits for the successor, for 5 seconds at most (see
/// [`TokenManager::replace`]), and is sent once more. If there is no successor in that time, the
/// caller gets the response that refused the token. Within ten seconds of a replacement there is no
/// other one.
///
/// Made by [`TokenManager::layer`]. The token goes to the origins that were named there and to
/// no other; a request that already has an `Authorization` field goes out as it is. Put a layer
/// that follows redirects outside of this one, so that each hop is looked at anew.
#[derive(Clone, Debug)]
#[must_use]
pub struct BearerTokenLayer<P = CloneEmptyBody> {
    tokens: TokenManager,
    targets: Targets,
    clone_body: P,
}

/// Which requests get the token.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    origins: Arc<[Origin]>,
    origin_form: bool,
}

impl Targets {
    pub(super) fn cover(&self, uri: &Uri) -> bool {
        match uri.authority() {
            Some(_) => self.origins.iter().any(|origin| origin.covers(uri)),
            None => self.origin_form,
        }
    }
}

impl BearerTokenLayer {
    pub(super) fn new(tokens: TokenManager, origins: impl IntoIterator<Item = Endpoint>) -> Self {
        let origins = origins
            .into_iter()
            .map(|endpoint| Origin::of(&endpoint))
            .collect();
        Self {
            tokens,
            targets: Targets {
                origins,
                origin_form: false,
            },
            clone_body: CloneEmptyBody,
        }
    }
}

impl<P> BearerTokenLayer<P> {
    /// Puts the token on requests that name no origin, too, because the inner service knows where
    /// they go: a tonic `Channel`, or a client with a base URL
    /// ([RFC 9112 §3.2.1](https://www.rfc-editor.org/rfc/rfc9112#section-3.2.1)).
    pub fn allow_origin_form(mut self) -> Self {
        self.targets.origin_form = true;
        self
    }

    /// Tries every rejected request once more, with a clone of its body.
    pub fn retry_with_cloned_body(self) -> BearerTokenLayer<CloneAnyBody> {
        self.retry_with(CloneAnyBody)
    }

    /// Tries no request twice. Any body will do.
    pub fn retry_never(self) -> BearerTokenLayer<CloneNoBody> {
        self.retry_with(CloneNoBody)
    }

    /// Decides in your own way which requests are tried once more. Default: those without a
    /// body.
    pub fn retry_with<N>(self, clone_body: N) -> BearerTokenLayer<N> {
        BearerTokenLayer {
            tokens: self.tokens,
            targets: self.targets,
            clone_body,
        }
    }
}

impl<S, P: Clone> Layer<S> for BearerTokenLayer<P> {
    type Service = BearerTokenService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerTokenService::new(
            inner,
            self.tokens.clone(),
            self.targets.clone(),
            self.clone_body.clone(),
        )
    }
}
