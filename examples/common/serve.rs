//! An HTTP server with bounded connections and memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Maximum of open connections. With [`MAX_HEADERS_SIZE`] it bounds the memory of the process.
const MAX_CONNECTIONS: usize = 512;
/// Maximum size of the read buffer of a connection in bytes.
const MAX_HEADERS_SIZE: usize = 64 * 1024;

/// Serves until `shutdown` completes. Then it accepts no new connections, and requests in flight
/// have 8 seconds to complete.
///
/// At [`MAX_CONNECTIONS`] the connection that has been idle longest is closed for a new one. A
/// connection with a request in flight is never closed; if all have one, the new connection waits.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_buf_size(MAX_HEADERS_SIZE);
    let graceful = GracefulShutdown::new();
    let mut connections = Connections::default();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            stream = connections.accept(&listener) => stream,
            () = &mut shutdown => break,
        };
        let activity = Arc::new(Activity::idle());
        let service = TowerToHyperService::new(router.clone());
        let tracked = service_fn({
            let activity = Arc::clone(&activity);
            move |request: Request<Incoming>| {
                let in_flight = InFlight::try_start(&activity);
                let response = service.call(request);
                async move {
                    // The connection is being closed.
                    let Some(in_flight) = in_flight else {
                        return std::future::pending().await;
                    };
                    let response = response.await?;
                    // The response body owns the guard until it has been read completely.
                    Ok::<_, Infallible>(response.map(|body| {
                        Body::new(body.map_err(move |error| {
                            let _guard = &in_flight;
                            error
                        }))
                    }))
                }
            }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), tracked));
        connections.spawn(activity, async move {
            let _connection_error = connection.await;
        });
    }
    drop(listener);
    let _timeout = tokio::time::timeout(Duration::from_secs(8), graceful.shutdown()).await;
}

/// The open connections.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: Vec<(Arc<Activity>, AbortHandle)>,
}

impl Connections {
    fn spawn(
        &mut self,
        activity: Arc<Activity>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        self.open.push((activity, self.tasks.spawn(connection)));
    }

    /// Accepts the next connection and waits until it is within the limit.
    async fn accept(&mut self, listener: &TcpListener) -> TcpStream {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(_) => {
                    // Probably out of file descriptors: closing a connection frees one.
                    self.close_longest_idle();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        let _optional = stream.set_nodelay(true);
        self.open.retain(|(_, task)| !task.is_finished());
        while self.tasks.try_join_next().is_some() {}
        while self.tasks.len() >= MAX_CONNECTIONS {
            self.close_longest_idle();
            // If no connection was idle, try again soon.
            let _ended =
                tokio::time::timeout(Duration::from_millis(10), self.tasks.join_next()).await;
        }
        stream
    }

    fn close_longest_idle(&self) {
        let idle = self
            .open
            .iter()
            .filter_map(|(activity, task)| Some((activity.idle_since()?, activity, task)));
        if let Some((since, activity, task)) = idle.min_by_key(|(since, ..)| *since)
            && activity.close(since)
        {
            task.abort();
        }
    }
}

/// State of a connection: [`IN_FLIGHT`], [`CLOSED`], or the [`tick`] at which it became idle.
struct Activity(AtomicU64);

const IN_FLIGHT: u64 = 0;
const CLOSED: u64 = u64::MAX;

impl Activity {
    fn idle() -> Self {
        Self(AtomicU64::new(tick()))
    }

    fn idle_since(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|state| ![IN_FLIGHT, CLOSED].contains(state))
    }

    /// Marks an idle connection as closed. Returns false if a request came meanwhile.
    fn close(&self, since: u64) -> bool {
        self.0
            .compare_exchange(since, CLOSED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// A request in flight. Dropping it marks the connection as idle.
struct InFlight(Arc<Activity>);

impl InFlight {
    /// Returns `None` if the connection is being closed.
    fn try_start(activity: &Arc<Activity>) -> Option<Self> {
        let since = activity.idle_since()?;
        let started =
            activity
                .0
                .compare_exchange(since, IN_FLIGHT, Ordering::AcqRel, Ordering::Acquire);
        started.is_ok().then(|| Self(Arc::clone(activity)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.store(tick(), Ordering::Release);
    }
}

/// Returns an increasing number, which orders connections by the time they became idle.
fn tick() -> u64 {
    static TICKS: AtomicU64 = AtomicU64::new(1);
    TICKS.fetch_add(1, Ordering::Relaxed)
}
