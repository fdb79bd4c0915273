//! A layer before a service that answers at once, and what its requests took.

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response, StatusCode, header};
use tokio::runtime::Runtime;
use tower::{Service, ServiceExt};

use crate::allocations;

/// As requests come to a server: were all of a round there at once, the memory they fill would be what
/// is measured.
const BATCH: usize = 64;

pub struct Row {
    pub name: &'static str,
    pub version: &'static str,
    pub same: Column,
    pub new: Column,
    ask: Ask,
}

type Ask = Box<dyn FnMut(&Runtime, &[&HeaderValue]) -> Batch>;

/// One token again and again, or tokens never seen before.
#[derive(Default)]
pub struct Column {
    /// Per request, of each round.
    pub nanos: Vec<f64>,
    pub allocations: f64,
}

/// Per request.
pub struct Round {
    pub nanos: f64,
    pub allocations: f64,
}

#[derive(Default)]
struct Batch {
    took: Duration,
    allocations: usize,
    granted: usize,
}

impl Row {
    /// Version: as Cargo.lock has it of `package`.
    pub fn new<S, B>(name: &'static str, package: &str, service: S) -> Self
    where
        S: Service<Request<B>, Response = Response<B>, Error: Debug> + 'static,
        B: Default,
    {
        let (mut service, version) = (service, version(package));
        let ask = move |runtime: &Runtime, fields: &[&HeaderValue]| {
            runtime.block_on(batch(&mut service, fields))
        };
        Self {
            name,
            version,
            same: Column::default(),
            new: Column::default(),
            ask: Box::new(ask),
        }
    }

    /// The same, with something to do before each batch.
    pub fn first(mut self, prepare: impl Fn() + 'static) -> Self {
        let mut ask = self.ask;
        self.ask = Box::new(move |runtime, fields| {
            prepare();
            ask(runtime, fields)
        });
        self
    }

    /// What does not judge is not measured.
    pub fn accepts_and_refuses(
        &mut self,
        runtime: &Runtime,
        good: &HeaderValue,
        forged: &HeaderValue,
    ) {
        // Some fetch their first keys in the background, and refuse till then.
        let ready = (0..500).any(|_| {
            let granted = (self.ask)(runtime, &[good]).granted == 1;
            if !granted {
                runtime.block_on(tokio::time::sleep(Duration::from_millis(10)));
            }
            granted
        });
        assert!(ready, "{} refuses a good token", self.name);
        assert_eq!(
            (self.ask)(runtime, &[forged]).granted,
            0,
            "{} grants a forged token",
            self.name
        );
    }

    /// One request for each of these fields.
    pub fn round<'a>(
        &mut self,
        runtime: &Runtime,
        fields: impl IntoIterator<Item = &'a HeaderValue>,
    ) -> Round {
        let fields: Vec<&HeaderValue> = fields.into_iter().collect();
        let mut all = Batch::default();
        for some in fields.chunks(BATCH) {
            let batch = (self.ask)(runtime, some);
            all.took += batch.took;
            all.allocations += batch.allocations;
            all.granted += batch.granted;
        }
        assert_eq!(
            all.granted,
            fields.len(),
            "{} refuses good tokens",
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

    /// How many times as long as the other, round by round.
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

/// What every layer stands before.
pub async fn answer<B: Default>(request: Request<B>) -> Result<Response<B>, Infallible> {
    drop(std::hint::black_box(request));
    Ok(Response::new(B::default()))
}

async fn batch<S, B>(service: &mut S, fields: &[&HeaderValue]) -> Batch
where
    S: Service<Request<B>, Response = Response<B>, Error: Debug>,
    B: Default,
{
    let requests: Vec<Request<B>> = fields.iter().map(|field| request(field)).collect();
    let (before, began, mut granted) = (allocations::so_far(), Instant::now(), 0);
    for request in requests {
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        granted += usize::from(response.status() == StatusCode::OK);
    }
    Batch {
        took: began.elapsed(),
        allocations: allocations::so_far() - before,
        granted,
    }
}

/// With a field of its own, as a server has it that has just read it: who comes first would otherwise
/// fetch the tokens of a round into the processor's cache for all others.
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
