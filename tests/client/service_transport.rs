//! The transport on a tower service: readiness, the size limit, errors.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use tower::{Service, ServiceBuilder, service_fn};
use tower_oauth::client::TokenManagerBuilder;
use tower_oauth::error::ErrorKind;
use tower_oauth::transport::{ServiceTransport, Transport, TransportError};
use tower_oauth::{BoxError, ClientCredentials, Endpoint, TokenManager};

/// An endless body of frames of 10 bytes, which counts the frames that were read.
struct Endless(Arc<AtomicUsize>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 10])))))
    }
}

fn request() -> Request<Bytes> {
    Request::post("https://as.example/token")
        .body(Bytes::from_static(b"body"))
        .unwrap()
}

fn manager(transport: impl Transport) -> TokenManagerBuilder {
    let endpoint = Endpoint::new("https://as.example/token").unwrap();
    TokenManager::builder(endpoint, ClientCredentials::new("orders", "s3cret")).transport(transport)
}

/// The kind of the error of a token manager with this transport.
async fn error_kind(transport: impl Transport) -> ErrorKind {
    let tokens = manager(transport)
        .acquire_timeout(Duration::ZERO)
        .start()
        .unwrap();
    tokens.access_token().await.unwrap_err().kind()
}

#[tokio::test]
async fn request_and_response_pass_unchanged() {
    let transport = ServiceTransport::new(service_fn(async |request: Request<Full<Bytes>>| {
        assert_eq!(request.uri(), "https://as.example/token");
        let body = request.into_body().collect().await?;
        Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, "https://evil.example/")
            .body(Full::new(body.to_bytes()))
            .map_err(BoxError::from)
    }));
    let response = transport.send(request(), 4).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(
        response.headers()[header::LOCATION],
        "https://evil.example/"
    );
    assert_eq!(response.body(), "body");
}

#[tokio::test(start_paused = true)]
async fn a_service_provides_tokens() {
    let transport = ServiceTransport::new(service_fn(async |_: Request<Full<Bytes>>| {
        let token = r#"{"access_token":"t","token_type":"Bearer","expires_in":60}"#;
        Ok::<_, Infallible>(Response::new(token.to_owned()))
    }));
    let tokens = manager(transport).start().unwrap();
    assert_eq!(tokens.access_token().await.unwrap().expose_secret(), "t");
}

#[tokio::test(start_paused = true)]
async fn reading_stops_at_the_size_limit() {
    let frames = Arc::new(AtomicUsize::new(0));
    let endless = |status: StatusCode| {
        let frames = Arc::clone(&frames);
        ServiceTransport::new(service_fn(move |_: Request<Full<Bytes>>| {
            let mut response = Response::new(Endless(Arc::clone(&frames)));
            *response.status_mut() = status;
            async { Ok::<_, Infallible>(response) }
        }))
    };
    assert!(endless(StatusCode::OK).send(request(), 95).await.is_err());
    assert_eq!(frames.swap(0, Ordering::SeqCst), 10);
    assert_eq!(
        error_kind(endless(StatusCode::OK)).await,
        ErrorKind::TooLarge
    );
    // The status of an error response matters more than its body.
    frames.store(0, Ordering::SeqCst);
    let refused = endless(StatusCode::SERVICE_UNAVAILABLE);
    let response = refused.send(request(), 95).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.body().is_empty());
    assert_eq!(frames.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn a_response_of_exactly_the_limit_is_not_too_large() {
    let transport = ServiceTransport::new(service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, Infallible>(Response::new("0123456789".to_owned()))
    }));
    let response = transport.send(request(), 10).await.unwrap();
    assert_eq!(response.body(), "0123456789");
    assert!(transport.send(request(), 9).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_error_is_a_connection_error_unless_it_is_a_transport_error() {
    fn failing<E: Into<BoxError> + 'static>(error: fn() -> E) -> impl Transport {
        ServiceTransport::new(service_fn(move |_: Request<Full<Bytes>>| async move {
            Err::<Response<Full<Bytes>>, _>(error())
        }))
    }
    let connection = failing(|| std::io::Error::other("connection refused"));
    assert_eq!(error_kind(connection).await, ErrorKind::Transport);
    let certificate = failing(|| TransportError::certificate("expired"));
    assert_eq!(error_kind(certificate).await, ErrorKind::Certificate);
    let boxed = failing(|| BoxError::from(TransportError::certificate("expired")));
    assert_eq!(error_kind(boxed).await, ErrorKind::Certificate);
}

/// A service whose clones become ready one after the other, as with `ConcurrencyLimit`.
#[derive(Debug)]
struct OneAtATime {
    is_busy: Arc<AtomicBool>,
    is_ready: bool,
}

impl Clone for OneAtATime {
    fn clone(&self) -> Self {
        Self {
            is_busy: Arc::clone(&self.is_busy),
            is_ready: false,
        }
    }
}

impl Service<Request<Full<Bytes>>> for OneAtATime {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.is_busy.load(Ordering::SeqCst) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        assert!(self.is_ready, "called before it was ready");
        std::future::ready(Ok(Response::new(Full::from("ok"))))
    }
}

#[tokio::test]
async fn the_service_is_called_when_it_is_ready() {
    let service = OneAtATime {
        is_busy: Arc::new(AtomicBool::new(true)),
        is_ready: false,
    };
    let is_busy = Arc::clone(&service.is_busy);
    let transport = ServiceTransport::new(service);
    let mut sending = transport.send(request(), 10);
    for _ in 0..3 {
        let polled = std::future::poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }
    is_busy.store(false, Ordering::SeqCst);
    assert_eq!(sending.await.unwrap().body(), "ok");
    // The next request uses another clone, which has to become ready, too.
    assert_eq!(transport.send(request(), 10).await.unwrap().body(), "ok");
}

#[tokio::test]
async fn an_error_of_readiness_is_a_connection_error() {
    #[derive(Clone, Debug)]
    struct Closed;

    impl Service<Request<Full<Bytes>>> for Closed {
        type Response = Response<Full<Bytes>>;
        type Error = BoxError;
        type Future = std::future::Pending<Result<Self::Response, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Err("closed".into()))
        }

        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }

    let error = ServiceTransport::new(Closed)
        .send(request(), 10)
        .await
        .unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "closed");
}

/// A boxed service is `Send`, but not `Sync`.
#[tokio::test]
async fn a_boxed_stack_of_layers_is_a_transport() {
    let service = ServiceBuilder::new()
        .boxed_clone()
        .concurrency_limit(1)
        .service(service_fn(async |_: Request<Full<Bytes>>| {
            Ok::<_, Infallible>(Response::new("ok".to_owned()))
        }));
    let transport = ServiceTransport::new(service);
    assert_eq!(transport.send(request(), 10).await.unwrap().body(), "ok");
    assert!(format!("{transport:?}").starts_with("ServiceTransport("));
}
