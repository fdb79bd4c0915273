//! The layer as middleware for reqwest. What it decides is shared with the tower service.

use std::pin::Pin;

use http::{Extensions, Uri};
use reqwest::{Body, Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use super::renewal::trigger::{Cause, RenewalTrigger};
use super::token::authorize;
use super::{BearerTokenLayer, CloneBody};

/// Adds the access token to requests, with the rules of the tower layer.
///
/// See [`BearerTokenLayer`](BearerTokenLayer#reqwest).
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
impl<P> Middleware for BearerTokenLayer<P>
where
    P: CloneBody<Body> + Send + Sync + 'static,
{
    // As `async_trait` writes it.
    fn handle<'layer, 'extensions, 'next, 'future>(
        &'layer self,
        request: Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> Pin<Box<dyn Future<Output = Result<Response>> + Send + 'future>>
    where
        'layer: 'future,
        'extensions: 'future,
        'next: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            match self.find(&request) {
                Some(renewal) => self.send(request, renewal, extensions, next).await,
                None => next.run(request, extensions).await,
            }
        })
    }
}

impl<P: CloneBody<Body>> BearerTokenLayer<P> {
    /// The manager of the token for this request, by the URI that is sent.
    fn find(&self, request: &Request) -> Option<&RenewalTrigger> {
        let uri = Uri::try_from(request.url().as_str()).ok()?;
        // The URL of reqwest is absolute, so `allow_origin_form` does not apply.
        uri.authority()?;
        self.targets.find(&uri, request.headers())
    }

    async fn send(
        &self,
        mut request: Request,
        renewal: &RenewalTrigger,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let token = renewal.tokens.access_token().await;
        let token = token.map_err(Error::middleware)?;
        let retry = self.retry(&mut request);
        let origin = request.url().origin();
        // After a redirect to another origin, the response is of a server without the token.
        let cause = |response: &Response, renewal: &RenewalTrigger| -> Option<Cause> {
            let is_of_origin = response.url().origin() == origin;
            let cause = renewal.cause(response.status(), response.headers());
            cause.filter(|_| is_of_origin)
        };
        authorize(request.headers_mut(), &token);
        let response = next.clone().run(request, extensions).await?;
        let Some(reason) = cause(&response, renewal) else {
            return Ok(response);
        };
        let Some(mut retry) = retry else {
            renewal.start_renewal(&token, &reason);
            return Ok(response);
        };
        let Some(token) = renewal.renew_and_wait(&token, &reason).await else {
            return Ok(response);
        };
        authorize(retry.headers_mut(), &token);
        let response = next.run(retry, extensions).await?;
        let renewal = renewal.for_retry();
        if let Some(reason) = cause(&response, &renewal) {
            renewal.start_renewal(&token, &reason);
        }
        Ok(response)
    }

    /// The request of a retry. `None` if the body is not cloned.
    fn retry(&self, request: &mut Request) -> Option<Request> {
        let body = request.body_mut().take();
        // Without a body, each request can be cloned.
        let retry = request.try_clone();
        let retry_body = match &body {
            Some(body) => self.clone_body.clone_body(body).map(Some),
            None => self.clone_body.clone_body(&Body::default()).map(|_| None),
        };
        *request.body_mut() = body;
        let mut retry = retry?;
        *retry.body_mut() = retry_body?;
        Some(retry)
    }
}
