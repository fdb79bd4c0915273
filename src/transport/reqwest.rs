//! The default transport, on reqwest.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{AlertDescription, CertificateError};

use super::client_certificate::CertificateClient;
use super::diagnosis::{authority, find_in_chain};
use super::{SendFuture, Transport, TransportError};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::oauth::{Endpoint, is_forbidden_address};

/// The time limit of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A [`Transport`] on [`reqwest`](https://docs.rs/reqwest).
///
/// Uses HTTP/1.1 (HTTP/2 too, if another crate enables reqwest's feature `http2`), and TLS by
/// rustls with the system's certificate store. Cheap to clone; clones share their connections.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).bind(0).await?;
/// # let server = issuer.server().clone();
/// # tokio::spawn(issuer.serve(std::future::pending()));
/// # let issuer = server;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::transport::ReqwestTransport;
///
/// let transport = ReqwestTransport::new()?;
/// let orders = ResourceServer::builder(issuer.issuer(), "orders") // a server on loopback
///     .transport(transport.clone()) // shares its connections with other uses
///     .allow_loopback_http()
///     .start()
///     .await?;
/// assert!(orders.keys_available());
/// # drop(transport);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ReqwestTransport {
    https: HttpsClient,
    /// For plain `http` to loopback. Ignores proxies.
    loopback: reqwest::Client,
    /// For plain `http` to other hosts.
    plain_http: reqwest::Client,
}

/// The client for `https`.
#[derive(Clone, Debug)]
enum HttpsClient {
    Fixed(reqwest::Client),
    WithCertificate(CertificateClient),
}

impl ReqwestTransport {
    /// Creates a transport with the default settings.
    ///
    /// Connecting takes at most 2 seconds. Redirects, cookies, and link-local and metadata
    /// addresses are disabled. Plain `http` does not use the proxy that `HTTP_PROXY` names, because
    /// it would read secrets and tokens.
    ///
    /// # Errors
    ///
    /// If the TLS backend cannot be initialized.
    pub fn new() -> Result<Self, ConfigError> {
        let loopback = loopback_client()?;
        Ok(Self {
            https: HttpsClient::Fixed(build(with_address_policy(reqwest::Client::builder()))?),
            plain_http: loopback.clone(),
            loopback,
        })
    }

    /// Creates a transport from a client builder: certificates, proxies, timeouts.
    ///
    /// Overrides four settings of the builder. Connecting takes at most 2 seconds. Redirects are
    /// disabled, because one could send a fetch of keys, or client credentials, to any server. So
    /// are retries, because an assertion is sent once: the crate retries with a new one. Names are
    /// resolved by the system's resolver, without link-local and metadata addresses: to use another
    /// resolver, see [`dangerous_from_builder_without_address_policy`][dangerous]. Addresses set
    /// with the builder's `resolve` are used as they are.
    ///
    /// A proxy, from the builder or from variables such as `HTTPS_PROXY`, resolves names itself: it
    /// must block such addresses. A proxy that is used for plain `http` reads secrets and tokens.
    /// Requests to plain `http` on loopback ignore the builder.
    ///
    /// A `user_agent` of this builder is replaced: use
    /// [`ResourceServerBuilder::user_agent`][server] and
    /// [`TokenManagerBuilder::user_agent`][tokens].
    ///
    /// [server]: crate::resource_server::ResourceServerBuilder::user_agent
    /// [tokens]: crate::client::TokenManagerBuilder::user_agent
    /// [dangerous]: Self::dangerous_from_builder_without_address_policy
    ///
    /// ```
    /// use tower_oauth::transport::ReqwestTransport;
    ///
    /// let proxy = reqwest::Proxy::https("http://proxy.example:3128")?;
    /// let builder = reqwest::Client::builder().proxy(proxy).https_only(true);
    /// let transport = ReqwestTransport::from_builder(builder)?;
    /// assert!(format!("{transport:?}").contains("proxy.example"));
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the client cannot be built.
    pub fn from_builder(builder: reqwest::ClientBuilder) -> Result<Self, ConfigError> {
        Self::dangerous_from_builder_without_address_policy(with_address_policy(builder))
    }

    /// Like [`from_builder`](Self::from_builder), but with the resolver of the builder and
    /// **without the address policy**.
    ///
    /// Use it only if no attacker can make the resolver return the address of a cloud metadata
    /// service.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use std::sync::Arc;
    /// use bytes::Bytes;
    /// use reqwest::dns::{Name, Resolve, Resolving};
    /// use tower_oauth::transport::{ReqwestTransport, Transport as _};
    ///
    /// /// A registry of services that knows the names of this network only.
    /// struct Registry;
    ///
    /// impl Resolve for Registry {
    ///     fn resolve(&self, name: Name) -> Resolving {
    ///         let error = format!("{} is no service of this network", name.as_str());
    ///         Box::pin(async { Err(error.into()) })
    ///     }
    /// }
    ///
    /// let builder = reqwest::Client::builder().dns_resolver(Arc::new(Registry));
    /// let transport = ReqwestTransport::dangerous_from_builder_without_address_policy(builder)?;
    /// let request = http::Request::get("https://as.example/").body(Bytes::new())?;
    /// assert!(transport.send(request, 1024).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the client cannot be built.
    pub fn dangerous_from_builder_without_address_policy(
        builder: reqwest::ClientBuilder,
    ) -> Result<Self, ConfigError> {
        let client = build(builder)?;
        Ok(Self {
            plain_http: client.clone(),
            https: HttpsClient::Fixed(client),
            loopback: loopback_client()?,
        })
    }

    /// Creates a transport with a client certificate, for mutual TLS
    /// ([RFC 8705 §2](https://www.rfc-editor.org/rfc/rfc8705#section-2)).
    ///
    /// `certificate` is a PEM file with the certificate and those of the authorities between it and
    /// the root. `key` is a PEM file with its private key, in PKCS#8, PKCS#1 or SEC1, without a
    /// passphrase. Both may be the same file. They are read at once. Otherwise as
    /// [`new`](Self::new).
    ///
    /// The files are read again for each request of this transport: a certificate that is renewed,
    /// such as a mounted one of Kubernetes, is used from the next token request on. If the new
    /// files cannot be used, the last certificate is still sent, because it may still be valid, and
    /// a warning is logged. Nothing else is read from the files, and `Debug` shows only their
    /// paths.
    ///
    /// The certificate is shown to each `https` server that requests one, and never over plain
    /// `http`. Use another transport for servers that must not see it.
    ///
    /// ```
    /// use tower_oauth::error::ConfigErrorKind;
    /// use tower_oauth::transport::ReqwestTransport;
    ///
    /// let error = ReqwestTransport::with_client_certificate("/certs/tls.crt", "/certs/tls.key")
    ///     .unwrap_err();
    /// assert_eq!(error.kind(), ConfigErrorKind::Unavailable);
    /// assert_eq!(error.setting(), "client certificate file /certs/tls.crt");
    /// ```
    ///
    /// [`TlsClientAuth`](crate::TlsClientAuth) authenticates a client with it.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, has no certificate or no unencrypted key, or the key is not that
    /// of the certificate. The error names the file.
    pub fn with_client_certificate(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let builder = reqwest::Client::builder;
        let transport = Self::from_builder_with_client_certificate(builder, certificate, key)?;
        Ok(Self {
            plain_http: transport.loopback.clone(),
            ..transport
        })
    }

    /// Like [`with_client_certificate`](Self::with_client_certificate), with other settings of the
    /// client: roots, proxies, timeouts.
    ///
    /// `make_builder` is called for each new certificate, on a thread that may block. The settings
    /// of its builder that [`from_builder`](Self::from_builder) overrides are overridden here as
    /// well. A proxy whose URL is `https` sees the certificate if it requests one.
    ///
    /// ```
    /// use tower_oauth::transport::ReqwestTransport;
    ///
    /// let builder = || reqwest::Client::builder().https_only(true).no_proxy();
    /// let error = ReqwestTransport::from_builder_with_client_certificate(
    ///     builder,
    ///     "/certs/tls.crt",
    ///     "/certs/tls.key",
    /// );
    /// assert!(error.unwrap_err().to_string().contains("/certs/tls.crt cannot be read"));
    /// ```
    ///
    /// # Errors
    ///
    /// As [`with_client_certificate`](Self::with_client_certificate).
    pub fn from_builder_with_client_certificate(
        make_builder: impl Fn() -> reqwest::ClientBuilder + Send + Sync + 'static,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let plain_http = build(with_address_policy(make_builder()))?;
        let certificate = CertificateClient::new(
            certificate.into(),
            key.into(),
            Box::new(move || with_address_policy(make_builder())),
            build_client,
        )?;
        Ok(Self {
            https: HttpsClient::WithCertificate(certificate),
            loopback: loopback_client()?,
            plain_http,
        })
    }

    /// The client for this URL. Whether plain `http` is allowed to its host was checked before.
    async fn client_for(&self, url: &reqwest::Url) -> reqwest::Client {
        let is_loopback = || Endpoint::new(url.as_str()).is_ok_and(|url| url.is_loopback());
        match (&self.https, url.scheme()) {
            (_, "http") if is_loopback() => self.loopback.clone(),
            (_, "http") => self.plain_http.clone(),
            (HttpsClient::Fixed(client), _) => client.clone(),
            (HttpsClient::WithCertificate(client), _) => client.current().await,
        }
    }
}

/// Sets what all clients have in common.
fn build_client(builder: reqwest::ClientBuilder) -> reqwest::Result<reqwest::Client> {
    builder
        .redirect(reqwest::redirect::Policy::none())
        // A server accepts an assertion once, so each attempt is a new request. By default reqwest
        // repeats one that an HTTP/2 server refused.
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, ConfigError> {
    build_client(builder).map_err(|error| {
        ConfigError::without_value("HTTP client", format!("cannot be built: {error}"))
            .with_kind(ConfigErrorKind::Unavailable)
    })
}

fn loopback_client() -> Result<reqwest::Client, ConfigError> {
    build(with_address_policy(reqwest::Client::builder().no_proxy()))
}

fn with_address_policy(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder.dns_resolver(FilteringResolver(SystemResolver))
}

impl Transport for ReqwestTransport {
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        Box::pin(async move {
            let request = request.map(reqwest::Body::from);
            let request = reqwest::Request::try_from(request)
                .map_err(|error| TransportError::connect(error.without_url()))?;
            let client = self.client_for(request.url()).await;
            let mut received = client.execute(request).await.map_err(convert)?;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = received.status();
            *response.headers_mut() = std::mem::take(received.headers_mut());
            let mut body = BytesMut::new();
            // `chunk` yields decompressed bytes, so the limit applies to a gzip bomb as well.
            let read = loop {
                match received.chunk().await {
                    Ok(Some(chunk)) if body.len() + chunk.len() > max_body => {
                        break Err(TransportError::too_large());
                    }
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(convert(error)),
                }
            };
            // For an error response, status and `Retry-After` matter more than the body.
            if let Err(error) = read {
                if response.status().is_success() {
                    return Err(error);
                }
                body.clear();
            }
            *response.body_mut() = body.freeze();
            Ok(response)
        })
    }
}

/// The resolver of the system.
#[derive(Clone, Copy, Debug)]
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// A resolver that removes forbidden addresses, against server-side request forgery (SSRF).
#[derive(Clone, Copy, Debug)]
struct FilteringResolver<R>(R);

impl<R: Resolve> Resolve for FilteringResolver<R> {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = self.0.resolve(name);
        Box::pin(async move {
            let usable: Vec<SocketAddr> = found
                .await?
                .filter(|address| !is_forbidden_address(address.ip()))
                .collect();
            if usable.is_empty() {
                return Err(ForbiddenName(host).into());
            }
            let addresses: Addrs = Box::new(usable.into_iter());
            Ok(addresses)
        })
    }
}

/// The error of a name without an address that may be used.
#[derive(Debug)]
struct ForbiddenName(String);

impl fmt::Display for ForbiddenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(
            f,
            "the name {name} has no address, or only link-local or metadata ones"
        )
    }
}

impl StdError for ForbiddenName {}

/// Converts an error. Removes the URL, which [`Error`](crate::Error) shows without its query.
fn convert(error: reqwest::Error) -> TransportError {
    let authority = error
        .url()
        .and_then(|url| Endpoint::new(url.as_str()).ok())
        .map(|url| authority(&url))
        .unwrap_or_default();
    if error.is_timeout() {
        let detail = error.is_connect().then(|| {
            let limit = CONNECT_TIMEOUT.as_secs();
            format!(
                "no connection to {authority} within {limit} s: a firewall may drop the packets"
            )
        });
        return TransportError::timeout().with_detail(detail);
    }
    let tls = find_in_chain(&error, &|error| {
        error.downcast_ref::<rustls::Error>().cloned()
    });
    match tls {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            let detail = certificate_detail(&reason, &authority);
            TransportError::certificate(error.without_url()).with_detail(Some(detail))
        }
        Some(tls) => {
            let detail = tls_detail(&tls, &authority);
            TransportError::connect(error.without_url()).with_detail(detail)
        }
        None => {
            let forbidden = find_in_chain(&error, &|error| {
                Some(error.downcast_ref::<ForbiddenName>()?.to_string())
            });
            TransportError::connect(error.without_url()).with_detail(forbidden)
        }
    }
}

const TRUST_IT: &str = "name a PEM file with the authority's certificate in SSL_CERT_FILE, or pass \
                        a client that trusts it to ReqwestTransport::from_builder (tls_certs_merge)";

/// What to do about a certificate.
fn certificate_detail(reason: &CertificateError, authority: &str) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("that of {authority} has expired: renew it, or check the clock of this machine")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("that of {authority} is not valid yet: check the clock of this machine")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("that of {authority} is for another name: use a name that it has")
        }
        // An error of webpki, whose type rustls does not show.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            format!(
                "that of {authority} is marked as an authority's (CA:TRUE): create it with CA:FALSE, \
                 and trust the new one: {TRUST_IT}"
            )
        }
        _ => format!(
            "that of {authority} is self-signed, or of an authority that is not trusted: {TRUST_IT}"
        ),
    }
}

/// What a failed handshake means.
fn tls_detail(error: &rustls::Error, authority: &str) -> Option<String> {
    match error {
        rustls::Error::InvalidMessage(_) => Some(format!(
            "the response of {authority} is not TLS: if the port is one for plain http, use http"
        )),
        rustls::Error::AlertReceived(alert) => Some(alert_detail(*alert, authority)),
        _ => None,
    }
}

/// What an alert of the server means. Some are about the certificate of this client
/// ([RFC 8446 §6.2](https://www.rfc-editor.org/rfc/rfc8446#section-6.2)).
fn alert_detail(alert: AlertDescription, authority: &str) -> String {
    match alert {
        AlertDescription::CertificateRequired => format!(
            "{authority} requires a client certificate: pass a transport with it \
             (ReqwestTransport::with_client_certificate)"
        ),
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => format!(
            "{authority} refuses the client certificate, or the lack of one (alert {alert:?}): send \
             the one that is registered there (ReqwestTransport::with_client_certificate), with \
             the certificates up to an authority that the server trusts, and check that it has \
             not expired"
        ),
        AlertDescription::HandshakeFailure => format!(
            "{authority} ended the TLS handshake with the alert {alert:?}: it may require a client \
             certificate, or support no version or cipher of this client"
        ),
        _ => format!("{authority} ended the TLS handshake with the alert {alert:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    /// Resolves every name to this address, and counts the calls.
    #[derive(Clone)]
    struct FixedResolver(SocketAddr, Arc<AtomicUsize>);

    impl Resolve for FixedResolver {
        fn resolve(&self, _: Name) -> Resolving {
            self.1.fetch_add(1, Ordering::SeqCst);
            let found: Addrs = Box::new(std::iter::once(self.0));
            Box::pin(async { Ok(found) })
        }
    }

    fn fixed_resolver(address: &str) -> FixedResolver {
        FixedResolver(SocketAddr::new(address.parse().unwrap(), 0), Arc::default())
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
    async fn names_are_not_resolved_to_forbidden_addresses() {
        let found = FilteringResolver(SystemResolver)
            .resolve("localhost".parse().unwrap())
            .await
            .unwrap();
        assert!(found.into_iter().all(|address| address.ip().is_loopback()));
        for forbidden in [
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "fe80::1",
            "::ffff:169.254.0.1",
        ] {
            let name = "keys.example".parse().unwrap();
            assert!(
                FilteringResolver(fixed_resolver(forbidden))
                    .resolve(name)
                    .await
                    .is_err(),
                "{forbidden}"
            );
        }
    }

    /// Runs in paused time.
    #[tokio::test(start_paused = true)]
    async fn connecting_times_out_after_two_seconds() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        // No connection is accepted: when the queue is full, connecting hangs.
        let at_once = Duration::from_millis(100);
        let queue: Vec<_> =
            std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, at_once).ok())
                .take(64)
                .collect();
        assert!(queue.len() < 64, "the queue is bounded");
        let transport = ReqwestTransport::new().unwrap();
        let started = tokio::time::Instant::now();
        let request = Request::get(format!("http://{address}/keys"));
        let request = request.body(Bytes::new()).unwrap();
        let error = transport.send(request, 1000).await.unwrap_err();
        assert_eq!(started.elapsed().as_secs(), 2);
        let detail = error.detail.unwrap();
        assert!(
            detail.contains(&format!("no connection to {address} within 2 s")),
            "{detail}"
        );
    }

    /// DNS rebinding: the name of an issuer resolves to a metadata address later.
    #[tokio::test]
    async fn a_client_from_a_builder_has_the_address_policy_unless_it_is_disabled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}/keys",
            listener.local_addr().unwrap().port()
        );
        let metadata = fixed_resolver("169.254.169.254");
        let limit = Duration::from_secs(5);
        let builder = || {
            reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(2))
        };

        // With the policy, the resolver of the builder is ignored: localhost is loopback again.
        let guarded =
            ReqwestTransport::from_builder(builder().dns_resolver(metadata.clone())).unwrap();
        let (_, accepted) = tokio::join!(
            failure(&guarded, &url),
            tokio::time::timeout(limit, listener.accept())
        );
        accepted.expect("a connection").unwrap();
        assert_eq!(metadata.1.load(Ordering::SeqCst), 0);
        // The same guard applies to the system's resolver, and to plain http.
        let rebound = builder().dns_resolver(FilteringResolver(metadata.clone()));
        let rebound =
            ReqwestTransport::dangerous_from_builder_without_address_policy(rebound).unwrap();
        for url in ["https://keys.example/keys", "http://keys.example/keys"] {
            let reason = failure(&rebound, url).await;
            let expected = "the name keys.example has no address, or only link-local or metadata";
            assert!(reason.contains(expected), "{reason}");
        }

        // Without the policy, the resolver of the builder is used.
        let loopback = fixed_resolver("127.0.0.1");
        let unguarded = builder().dns_resolver(loopback.clone());
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
        accepted.expect("a connection").unwrap();
        assert_eq!(loopback.1.load(Ordering::SeqCst), 1);
    }
}
