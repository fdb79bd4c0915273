//! A server that stays small and goes on answering, however many connections are opened to it.

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

/// Connections at a time, and bytes that one of them can make us keep: together they bound
/// the memory of the process, whatever is sent.
const MAX_CONNECTIONS: usize = 512;
const MAX_HEADERS: usize = 64 * 1024;

/// Serves until `end`; then takes no new connection, and lets requests in flight be answered
/// for a few seconds.
///
/// At the limit a new connection gets the place of the one that has been idle longest, which is
/// closed. A connection with a request in flight is never closed for another: if all have one, the
/// new one waits.
pub async fn serve(listener: TcpListener, router: Router, end: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_buf_size(MAX_HEADERS);
    let graceful = GracefulShutdown::new();
    let mut connections = Connections::default();
    let mut end = std::pin::pin!(end);
    loop {
        let stream = tokio::select! {
            stream = connections.accept(&listener) => stream,
            () = &mut end => break,
        };
        let activity = Arc::new(Activity::idle());
        let service = TowerToHyperService::new(router.clone());
        let watched = service_fn({
            let activity = Arc::clone(&activity);
            move |request: Request<Incoming>| {
                let in_flight = InFlight::begin(&activity);
                let answer = service.call(request);
                async move {
                    // The connection is being closed: the request is not begun.
                    let Some(in_flight) = in_flight else {
                        return std::future::pending().await;
                    };
                    let response = answer.await?;
                    // The body holds it until all of it was taken to be sent.
                    Ok::<_, Infallible>(response.map(|body| {
                        Body::new(body.map_err(move |error| {
                            let _held = &in_flight;
                            error
                        }))
                    }))
                }
            }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), watched));
        connections.spawn(activity, async move {
            let _a_broken_connection_is_its_peers_concern = connection.await;
        });
    }
    drop(listener);
    let _too_slow_to_wait_for =
        tokio::time::timeout(Duration::from_secs(8), graceful.shutdown()).await;
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

    /// The next connection, as soon as there is room for it.
    async fn accept(&mut self, listener: &TcpListener) -> TcpStream {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(_) => {
                    // Out of file descriptors, most likely: one comes back with each connection
                    // that ends.
                    self.close_longest_idle();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        let _unimportant = stream.set_nodelay(true);
        self.open.retain(|(_, task)| !task.is_finished());
        while self.tasks.try_join_next().is_some() {}
        while self.tasks.len() >= MAX_CONNECTIONS {
            self.close_longest_idle();
            // If none was idle, one is soon.
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

/// What happens on a connection: a number of [`tick`], since which it has been idle, or one of
/// these.
struct Activity(AtomicU64);

const IN_FLIGHT: u64 = 0;
const CLOSED: u64 = u64::MAX;

impl Activity {
    fn idle() -> Self {
        Self(AtomicU64::new(tick()))
    }

    fn idle_since(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|now| ![IN_FLIGHT, CLOSED].contains(now))
    }

    /// Whether it was still idle. From now on no request begins.
    fn close(&self, since: u64) -> bool {
        self.0
            .compare_exchange(since, CLOSED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// A request in flight; over when it is dropped.
struct InFlight(Arc<Activity>);

impl InFlight {
    /// `None` on a connection that is being closed.
    fn begin(activity: &Arc<Activity>) -> Option<Self> {
        let since = activity.idle_since()?;
        let begun =
            activity
                .0
                .compare_exchange(since, IN_FLIGHT, Ordering::AcqRel, Ordering::Acquire);
        begun.is_ok().then(|| Self(Arc::clone(activity)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.store(tick(), Ordering::Release);
    }
}

/// A number that is larger each time: in which order connections became idle.
fn tick() -> u64 {
    static TICKS: AtomicU64 = AtomicU64::new(1);
    TICKS.fetch_add(1, Ordering::Relaxed)
}
