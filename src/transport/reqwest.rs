//! The transport on reqwest.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{SendFuture, Transport, TransportError};
use crate::error::ConfigError;
use crate::oauth::is_no_server;

/// A [`Transport`] on [`reqwest`](https://docs.rs/reqwest): HTTP/1.1 and TLS by rustls with
/// the system's certificate store.
///
/// Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct ReqwestTransport {
    client: reqwest::Client,
    /// For plain `http`, which is for loopback only: no proxy of the environment gets to see it.
    loopback: reqwest::Client,
}

impl ReqwestTransport {
    /// A transport with the defaults: 2 s to connect, no redirects, no cookies, and no names
    /// that lead to link-local or metadata addresses.
    ///
    /// # Errors
    ///
    /// If the TLS back end cannot be started.
    pub fn new() -> Result<Self, ConfigError> {
        Self::from_builder(reqwest::Client::builder().dns_resolver(Resolver))
    }

    /// A transport from a client with your own settings: certificates, proxies, DNS.
    ///
    /// It takes the builder and not a client, because redirects are switched off here: a
    /// redirect could lead a fetch of keys, or a client's credentials, anywhere.
    ///
    /// # Errors
    ///
    /// If the client cannot be built.
    pub fn from_builder(builder: reqwest::ClientBuilder) -> Result<Self, ConfigError> {
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(2))
                .build()
                .map_err(|error| {
                    ConfigError::without_value("HTTP client", format!("cannot be built: {error}"))
                })
        };
        Ok(Self { client: build(builder)?, loopback: build(reqwest::Client::builder().no_proxy())? })
    }
}

impl Transport for ReqwestTransport {
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        Box::pin(async move {
            let request = request.map(reqwest::Body::from);
            let request = reqwest::Request::try_from(request).map_err(convert)?;
            let client = if request.url().scheme() == "http" { &self.loopback } else { &self.client };
            let mut answer = client.execute(request).await.map_err(convert)?;
            let mut body = BytesMut::new();
            // `chunk` yields decompressed bytes, so a gzip bomb meets the limit too.
            while let Some(chunk) = answer.chunk().await.map_err(convert)? {
                if body.len() + chunk.len() > max_body {
                    return Err(TransportError::too_large());
                }
                body.extend_from_slice(&chunk);
            }
            let mut whole = Response::new(body.freeze());
            *whole.status_mut() = answer.status();
            *whole.headers_mut() = std::mem::take(answer.headers_mut());
            Ok(whole)
        })
    }
}

/// The system's resolver, without the addresses where no issuer is.
#[derive(Clone, Copy, Debug)]
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let usable: Vec<SocketAddr> = found.filter(|address| !is_no_server(address.ip())).collect();
            if usable.is_empty() {
                return Err("the name has no address, or only link-local or metadata ones".into());
            }
            let addresses: Addrs = Box::new(usable.into_iter());
            Ok(addresses)
        })
    }
}

/// The URL is taken out: errors name it once, and without its query.
fn convert(error: reqwest::Error) -> TransportError {
    if error.is_timeout() {
        TransportError::timeout()
    } else {
        TransportError::unreachable(error.without_url())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_resolved_but_not_to_addresses_where_no_issuer_is() {
        let found = Resolver.resolve("localhost".parse().unwrap()).await.unwrap();
        assert!(found.into_iter().all(|address| address.ip().is_loopback()));
        // A name that the system's resolver reads as an address.
        let refused = Resolver.resolve("169.254.169.254".parse().unwrap()).await;
        assert!(refused.is_err());
    }
}
