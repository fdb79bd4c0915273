//! The metrics of a program, for Prometheus.

use std::future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use super::{SettingError, serve};

/// Buckets for the verification of a signature, in seconds.
const VERIFICATION: [f64; 10] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05,
];
/// Buckets for the fetch of a key set, in seconds.
const FETCH: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// How often the recorder merges the values of its histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the recorder of this process. Call it in a tokio runtime, before anything is built
/// that records.
///
/// Without buckets the exporter renders quantiles of one process, which cannot be added up.
/// Without upkeep the values of histograms stay in memory until the next scrape.
///
/// # Errors
///
/// If there is a recorder already.
pub fn install_recorder() -> Result<PrometheusHandle, SettingError> {
    let histogram = |name: &str| Matcher::Full(name.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(
            histogram("tower_oauth_verification_duration_seconds"),
            &VERIFICATION,
        )
        .and_then(|builder| {
            builder.set_buckets_for_metric(
                histogram("tower_oauth_jwks_fetch_duration_seconds"),
                &FETCH,
            )
        })
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| SettingError::new("metrics", error))?;
    let upkeep = recorder.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            upkeep.run_upkeep();
        }
    });
    Ok(recorder)
}

/// Serves all metrics as text at `/metrics`.
pub fn router(recorder: PrometheusHandle) -> Router {
    let render = async move || {
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            recorder.render(),
        )
    };
    Router::new().route("/metrics", get(render))
}

/// Serves all metrics on a loopback port until the process ends, for a program that serves nothing
/// else.
///
/// # Errors
///
/// If the port cannot be bound.
pub async fn listen(
    name: &str,
    port: u16,
    recorder: PrometheusHandle,
) -> Result<SocketAddr, SettingError> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listener.map_err(|error| SettingError::new(name, error))?;
    let address = listener.local_addr();
    let address = address.map_err(|error| SettingError::new(name, error))?;
    tokio::spawn(serve(listener, router(recorder), future::pending()));
    Ok(address)
}
