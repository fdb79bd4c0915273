//! A layer around a service that responds at once, and its measurements.

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response, StatusCode, header};
use tokio::runtime::Runtime;
use tower::{Service, ServiceExt};

use crate::allocations;

/// Requests built at once. A whole round would not fit into the processor's caches.
const BATCH: usize = 64;

pub struct Row {
    pub name: &'static str,
    pub version: &'static str,
    pub same: Column,
    pub new: Column,
    send: SendBatch,
}

type SendBatch = Box<dyn FnMut(&Runtime, &[&HeaderValue]) -> Batch>;

/// Measurements with the same token, or with new tokens.
#[derive(Default)]
pub struct Column {
    /// Nanoseconds per request, one value per round.
    pub nanos: Vec<f64>,
    pub allocations: f64,
}

/// Measurements of one round, per request.
pub struct Round {
    pub nanos: f64,
    pub allocations: f64,
}

#[derive(Default)]
struct Batch {
    took: Duration,
    allocations: usize,
    accepted: usize,
}

impl Row {
    /// Takes the version from the entry of `package` in Cargo.lock.
    pub fn new<S, B>(name: &'static str, package: &str, service: S) -> Self
    where
        S: Service<Request<B>, Response = Response<B>, Error: Debug> + 'static,
        B: Default,
    {
        let (mut service, version) = (service, version(package));
        let send = move |runtime: &Runtime, fields: &[&HeaderValue]| {
            runtime.block_on(batch(&mut service, fields))
        };
        Self {
            name,
            version,
            same: Column::default(),
            new: Column::default(),
            send: Box::new(send),
        }
    }

    /// Runs `prepare` before each batch.
    pub fn before_each_batch(mut self, prepare: impl Fn() + 'static) -> Self {
        let mut send = self.send;
        self.send = Box::new(move |runtime, fields| {
            prepare();
            send(runtime, fields)
        });
        self
    }

    /// Asserts that the layer accepts a good token and rejects a forged one.
    pub fn assert_accepts_and_rejects(
        &mut self,
        runtime: &Runtime,
        good: &HeaderValue,
        forged: &HeaderValue,
    ) {
        // Some layers fetch their first keys in the background and reject requests until then.
        let ready = (0..500).any(|_| {
            let accepted = (self.send)(runtime, &[good]).accepted == 1;
            if !accepted {
                runtime.block_on(tokio::time::sleep(Duration::from_millis(10)));
            }
            accepted
        });
        assert!(ready, "{} rejects a good token", self.name);
        assert_eq!(
            (self.send)(runtime, &[forged]).accepted,
            0,
            "{} accepts a forged token",
            self.name
        );
    }

    /// Sends one request for each field.
    pub fn round<'a>(
        &mut self,
        runtime: &Runtime,
        fields: impl IntoIterator<Item = &'a HeaderValue>,
    ) -> Round {
        let fields: Vec<&HeaderValue> = fields.into_iter().collect();
        let mut all = Batch::default();
        for some in fields.chunks(BATCH) {
            let batch = (self.send)(runtime, some);
            all.took += batch.took;
            all.allocations += batch.allocations;
            all.accepted += batch.accepted;
        }
        assert_eq!(
            all.accepted,
            fields.len(),
            "{} rejects good tokens",
            self.name
        );
        let count = fields.len() as f64;
        Round {
            nanos: all.took.as_nanos() as f64 / count,
            allocations: all.allocations as f64 / count,
        }
    }
}

impl Column {
    pub fn median(&self) -> f64 {
        median(self.nanos.clone())
    }

    /// Median of the ratios per round.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        median(
            self.nanos
                .iter()
                .zip(&other.nanos)
                .map(|(own, other)| own / other)
                .collect(),
        )
    }
}

/// The handler behind each layer.
pub async fn handler<B: Default>(request: Request<B>) -> Result<Response<B>, Infallible> {
    drop(std::hint::black_box(request));
    Ok(Response::new(B::default()))
}

async fn batch<S, B>(service: &mut S, fields: &[&HeaderValue]) -> Batch
where
    S: Service<Request<B>, Response = Response<B>, Error: Debug>,
    B: Default,
{
    let requests: Vec<Request<B>> = fields.iter().map(|field| request(field)).collect();
    let (before, began, mut accepted) = (allocations::total(), Instant::now(), 0);
    for request in requests {
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        accepted += usize::from(response.status() == StatusCode::OK);
    }
    Batch {
        took: began.elapsed(),
        allocations: allocations::total() - before,
        accepted,
    }
}

/// Copies the field, as a server that has just read it. With shared fields, the first layer would
/// load a round's tokens into the processor's caches for all others.
fn request<B: Default>(field: &HeaderValue) -> Request<B> {
    let field = HeaderValue::from_bytes(field.as_bytes()).unwrap();
    Request::builder()
        .header(header::AUTHORIZATION, field)
        .body(B::default())
        .unwrap()
}

fn version(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"");
    let mut lines = include_str!("../Cargo.lock")
        .lines()
        .skip_while(|line| *line != name);
    let version = lines
        .nth(1)
        .and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.unwrap_or_else(|| panic!("{package} is not in Cargo.lock"))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}
