//! The transport on reqwest.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{SendFuture, Transport, TransportError};
use crate::error::ConfigError;
use crate::oauth::is_forbidden_address;

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
        Self::from_builder(reqwest::Client::builder())
    }

    /// A transport from a client with your own settings: certificates, proxies, user agent.
    ///
    /// It takes the builder and not a client, because two things are settled here. Redirects are
    /// switched off: one could lead a fetch of keys, or a client's credentials, anywhere. And names
    /// are resolved by the system, without link-local and metadata addresses; a resolver of your
    /// own would be put aside ([`dangerous_from_builder_without_address_policy`](Self::dangerous_from_builder_without_address_policy)).
    /// Addresses that you gave with the builder's `resolve` stay.
    ///
    /// Behind a proxy, from the builder or from variables such as `HTTPS_PROXY`, it is the proxy
    /// that resolves the names: then it has to be the one that refuses such addresses.
    ///
    /// # Errors
    ///
    /// If the client cannot be built.
    pub fn from_builder(builder: reqwest::ClientBuilder) -> Result<Self, ConfigError> {
        Self::dangerous_from_builder_without_address_policy(builder.dns_resolver(Guarded(System)))
    }

    /// The same with names resolved as the builder says, **whatever addresses that leads to**: for
    /// those whose DNS cannot be pointed at the metadata service of a cloud by others.
    ///
    /// # Errors
    ///
    /// If the client cannot be built.
    pub fn dangerous_from_builder_without_address_policy(
        builder: reqwest::ClientBuilder,
    ) -> Result<Self, ConfigError> {
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(2))
                .build()
                .map_err(|error| {
                    ConfigError::without_value("HTTP client", format!("cannot be built: {error}"))
                })
        };
        Ok(Self {
            client: build(builder)?,
            loopback: build(reqwest::Client::builder().no_proxy())?,
        })
    }
}

impl Transport for ReqwestTransport {
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        Box::pin(async move {
            let request = request.map(reqwest::Body::from);
            let request = reqwest::Request::try_from(request).map_err(convert)?;
            let client = if request.url().scheme() == "http" {
                &self.loopback
            } else {
                &self.client
            };
            let mut answer = client.execute(request).await.map_err(convert)?;
            let mut whole = Response::new(Bytes::new());
            *whole.status_mut() = answer.status();
            *whole.headers_mut() = std::mem::take(answer.headers_mut());
            let mut body = BytesMut::new();
            // `chunk` yields decompressed bytes, so a gzip bomb meets the limit too.
            let read = loop {
                match answer.chunk().await {
                    Ok(Some(chunk)) if body.len() + chunk.len() > max_body => {
                        break Err(TransportError::too_large());
                    }
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(convert(error)),
                }
            };
            // Of an error, status and `Retry-After` are worth more than a page that cannot be read.
            if let Err(error) = read {
                if whole.status().is_success() {
                    return Err(error);
                }
                body.clear();
            }
            *whole.body_mut() = body.freeze();
            Ok(whole)
        })
    }
}

/// The resolver of the system.
#[derive(Clone, Copy, Debug)]
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// A resolver without the addresses where no issuer is.
#[derive(Clone, Copy, Debug)]
struct Guarded<R>(R);

impl<R: Resolve> Resolve for Guarded<R> {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.0.resolve(name);
        Box::pin(async move {
            let usable: Vec<SocketAddr> = found
                .await?
                .filter(|address| !is_forbidden_address(address.ip()))
                .collect();
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
    } else if is_certificate_error(&error) {
        TransportError::certificate(error.without_url())
    } else {
        TransportError::connect(error.without_url())
    }
}

/// Whether rustls found the certificate of the server invalid.
fn is_certificate_error(error: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return matches!(error, rustls::Error::InvalidCertificate(_));
    }
    // An `io::Error` is not the source of what it wraps, it stands in place of it.
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    match wrapped {
        Some(wrapped) => is_certificate_error(wrapped),
        None => error.source().is_some_and(is_certificate_error),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    /// Answers every name with this address, and counts.
    #[derive(Clone)]
    struct Always(SocketAddr, Arc<AtomicUsize>);

    impl Resolve for Always {
        fn resolve(&self, _: Name) -> Resolving {
            self.1.fetch_add(1, Ordering::SeqCst);
            let found: Addrs = Box::new(std::iter::once(self.0));
            Box::pin(async { Ok(found) })
        }
    }

    fn always(address: &str) -> Always {
        Always(SocketAddr::new(address.parse().unwrap(), 0), Arc::default())
    }

    async fn failure(transport: &ReqwestTransport, url: &str) -> String {
        let request = Request::get(url).body(Bytes::new()).unwrap();
        let error = transport.send(request, 1000).await.unwrap_err();
        let mut reasons = vec![error.to_string()];
        let mut source = error.source();
        while let Some(reason) = source {
            reasons.push(reason.to_string());
            source = reason.source();
        }
        reasons.join(": ")
    }

    #[tokio::test]
    async fn names_are_resolved_but_not_to_addresses_where_no_issuer_is() {
        let found = Guarded(System)
            .resolve("localhost".parse().unwrap())
            .await
            .unwrap();
        assert!(found.into_iter().all(|address| address.ip().is_loopback()));
        for refused in [
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "fe80::1",
            "::ffff:169.254.0.1",
        ] {
            let name = "keys.example".parse().unwrap();
            assert!(
                Guarded(always(refused)).resolve(name).await.is_err(),
                "{refused}"
            );
        }
    }

    /// In paused time, so that nobody waits.
    #[tokio::test(start_paused = true)]
    async fn a_connection_is_waited_for_two_seconds() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody accepts: when the queue is full, further ones are left without an answer.
        let at_once = Duration::from_millis(100);
        let queue: Vec<_> =
            std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, at_once).ok())
                .take(64)
                .collect();
        assert!(queue.len() < 64, "the queue has an end");
        let transport = ReqwestTransport::new().unwrap();
        let began = tokio::time::Instant::now();
        failure(&transport, &format!("http://{address}/keys")).await;
        assert_eq!(began.elapsed().as_secs(), 2);
    }

    /// Rebinding: `keys.example` is an issuer's today and leads to the metadata of the cloud
    /// tomorrow.
    #[tokio::test]
    async fn row_37_a_client_with_settings_of_its_own_is_guarded_too_unless_that_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}/keys",
            listener.local_addr().unwrap().port()
        );
        let own = always("169.254.169.254");
        let limit = Duration::from_secs(5);
        let builder = || {
            reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(2))
        };

        // Guarded, the resolver of the builder is put aside: localhost is this machine again.
        let guarded = ReqwestTransport::from_builder(builder().dns_resolver(own.clone())).unwrap();
        let (_, accepted) = tokio::join!(
            failure(&guarded, &url),
            tokio::time::timeout(limit, listener.accept())
        );
        accepted.expect("it was asked").unwrap();
        assert_eq!(own.1.load(Ordering::SeqCst), 0);
        // What the system resolves meets the same guard as this.
        let rebound = builder().dns_resolver(Guarded(own.clone()));
        let rebound =
            ReqwestTransport::dangerous_from_builder_without_address_policy(rebound).unwrap();
        let reason = failure(&rebound, "https://keys.example/keys").await;
        assert!(reason.contains("only link-local or metadata"), "{reason}");

        // Given up, the resolver has the word.
        let here = always("127.0.0.1");
        let unguarded = builder().dns_resolver(here.clone());
        let unguarded =
            ReqwestTransport::dangerous_from_builder_without_address_policy(unguarded).unwrap();
        let keys = format!(
            "https://keys.example:{}/keys",
            listener.local_addr().unwrap().port()
        );
        let (_, accepted) = tokio::join!(
            failure(&unguarded, &keys),
            tokio::time::timeout(limit, listener.accept())
        );
        accepted.expect("it was asked").unwrap();
        assert_eq!(here.1.load(Ordering::SeqCst), 1);
    }
}
