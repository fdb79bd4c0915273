//! Measures kinds of requests in interleaved rounds, so that other load on the machine affects all
//! kinds alike. Benchmark libraries measure one kind after the other, and their ratios drift with
//! the machine.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::{HeaderValue, Request, Response, header};
use tower::{Layer, Service, service_fn};
use tower_oauth::key_set::KeySet;
use tower_oauth::resource_server::ResourceServerBuilder;
use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};

use crate::tokens::{AUDIENCE, ISSUER};

const ROUNDS: usize = 100;
const ROUND: Duration = Duration::from_millis(20);
pub const BATCH: usize = 64;

pub fn poll_once_or_panic<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the future is pending"),
    }
}

pub fn field(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).unwrap()
}

pub fn fields(tokens: &[String]) -> Arc<Vec<HeaderValue>> {
    Arc::new(tokens.iter().map(|token| field(token)).collect())
}

pub fn request(field: &HeaderValue) -> Request<()> {
    Request::builder()
        .header(header::AUTHORIZATION, field)
        .body(())
        .unwrap()
}

pub async fn handler(request: Request<()>) -> Result<Response<()>, Infallible> {
    std::hint::black_box(&request);
    drop(request);
    Ok(Response::new(()))
}

/// Builds requests as a connection does: their fields are slices of a read `buffer`, which is
/// reused afterwards. With fields as cold in the processor's caches as the token cache's entries,
/// half of a hit would be cache misses on the request.
pub fn requests<'f>(
    buffer: &mut BytesMut,
    fields: impl Iterator<Item = &'f HeaderValue>,
) -> Vec<Request<()>> {
    let fields: Vec<_> = fields.collect();
    // Reserve once: a reallocation would be freed within the measurement.
    buffer.reserve(fields.iter().map(|field| field.len()).sum());
    let read = fields.into_iter().map(|field| {
        buffer.extend_from_slice(field.as_bytes());
        request(&HeaderValue::from_maybe_shared(buffer.split().freeze()).unwrap())
    });
    read.collect()
}

/// Sends a request and returns the status.
pub type Call = Box<dyn FnMut(Request<()>) -> u16 + Send>;

/// Calls a service.
pub fn calls<S>(mut service: S) -> Call
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible> + Send + 'static,
{
    Box::new(move |request| {
        poll_once_or_panic(service.call(request))
            .unwrap()
            .status()
            .as_u16()
    })
}

/// Calls the handler through the layer.
pub fn layered(server: &ResourceServer) -> Call {
    calls(server.layer().layer(service_fn(handler)))
}

/// Calls the handler after a check that is not a layer.
pub fn with(mut check: impl FnMut(&mut Request<()>) + Send + 'static) -> Call {
    let mut service = service_fn(handler);
    Box::new(move |mut request| {
        check(&mut request);
        poll_once_or_panic(service.call(request))
            .unwrap()
            .status()
            .as_u16()
    })
}

pub fn server(
    jwks: &str,
    change: impl FnOnce(ResourceServerBuilder) -> ResourceServerBuilder,
) -> ResourceServer {
    let issuer = TrustedIssuer::new(
        Issuer::new(ISSUER).unwrap(),
        Audience::new(AUDIENCE).unwrap(),
    );
    let issuer = issuer.keys(KeySet::from_json(jwks.as_bytes()).unwrap());
    change(ResourceServer::from_issuer(issuer))
        .build()
        .unwrap()
        .0
}

/// One kind of request.
pub struct Row {
    pub name: String,
    /// The name of the row that this one is compared with.
    pub floor: String,
    fields: Arc<Vec<HeaderValue>>,
    /// Distance between the tokens of successive requests; 1 is insertion order.
    step: usize,
    buffer: BytesMut,
    call: Call,
    next: usize,
    expected: u16,
    nanos: Vec<f64>,
    pub allocations: f64,
}

impl Row {
    pub fn new(
        name: impl Into<String>,
        floor: impl Into<String>,
        fields: &Arc<Vec<HeaderValue>>,
        call: Call,
    ) -> Self {
        Self {
            name: name.into(),
            floor: floor.into(),
            fields: Arc::clone(fields),
            step: 1,
            buffer: BytesMut::new(),
            call,
            next: 0,
            expected: 200,
            nanos: Vec::new(),
            allocations: 0.0,
        }
    }

    /// Visits tokens in an order unrelated to their insertion, so that successive requests do not
    /// read adjacent memory.
    pub fn scattered(mut self) -> Self {
        // A prime that divides none of the token counts.
        self.step = 7919;
        self
    }

    /// Sets the expected status; the default is 200.
    pub fn expecting(mut self, status: u16) -> Self {
        self.expected = status;
        self
    }

    fn requests(&mut self, count: usize) -> Vec<Request<()>> {
        let (start, step, fields) = (self.next, self.step, &self.fields);
        self.next += count * step;
        let next = (1..=count).map(|number| &fields[(start + number * step) % fields.len()]);
        requests(&mut self.buffer, next)
    }

    /// Sends `count` requests in small batches. A single large batch would not fit into the
    /// processor's caches.
    fn round(&mut self, count: usize) -> Duration {
        let (mut took, mut good) = (Duration::ZERO, 0);
        for batch in (0..count)
            .step_by(BATCH)
            .map(|done| BATCH.min(count - done))
        {
            let requests = self.requests(batch);
            let began = Instant::now();
            for request in requests {
                good += usize::from((self.call)(request) == self.expected);
            }
            took += began.elapsed();
        }
        assert_eq!(good, count, "{}", self.name);
        self.nanos.push(took.as_nanos() as f64 / count as f64);
        took
    }

    /// Runs in a separate round, because counting takes time.
    fn count_allocations(&mut self) {
        let requests = self.requests(BATCH);
        let counted = allocation_counter::measure(|| {
            for request in requests {
                assert_eq!((self.call)(request), self.expected);
            }
        });
        self.allocations = counted.count_total as f64 / BATCH as f64;
    }

    /// Median nanoseconds per request.
    pub fn median(&self) -> f64 {
        median(self.nanos.clone())
    }

    /// Median ratio to the floor. The ratio is taken per round, because other load varies between
    /// rounds.
    pub fn ratio(&self, rows: &[Self]) -> Option<f64> {
        let floor = rows.iter().find(|row| row.name == self.floor)?;
        Some(median(
            self.nanos
                .iter()
                .zip(&floor.nanos)
                .map(|(own, floor)| own / floor)
                .collect(),
        ))
    }
}

pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Whether to run each benchmark once without measuring, as `cargo test --benches` and CI do.
pub fn is_quick() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// Whether the command line selects this name. Without arguments it selects all.
pub fn is_selected(name: &str) -> bool {
    let mut parts = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .peekable();
    parts.peek().is_none() || parts.any(|part| name.contains(&part))
}

/// Measures all rows.
pub fn measure(rows: &mut [Row]) {
    let (rounds, length) = if is_quick() {
        (1, Duration::ZERO)
    } else {
        (ROUNDS, ROUND)
    };
    let mut counts = Vec::new();
    for row in &mut *rows {
        // Send each token twice to cache it, then size the rounds.
        row.round(2 * row.fields.len());
        let each = row.round(200).as_secs_f64() / 200.0;
        counts.push(if is_quick() {
            20
        } else {
            ((length.as_secs_f64() / each) as usize).clamp(20, 100_000)
        });
        row.count_allocations();
        row.nanos.clear();
    }
    for _ in 0..rounds {
        for (row, count) in rows.iter_mut().zip(&counts) {
            row.round(*count);
        }
    }
}

/// Prints the table in Markdown. Accepted requests through the layer are bold.
pub fn print(rows: &[Row]) {
    println!("| a request | ns | allocations | ÷ its floor |\n| --- | ---: | ---: | --- |");
    for row in rows {
        let (name, nanos) = (&row.name, thousands(row.median()));
        match row.ratio(rows) {
            Some(ratio) if row.expected != 200 => {
                println!("| {name} | {nanos} | {:.0} | {ratio:.2} |", row.allocations)
            }
            Some(ratio) => println!(
                "| **{name}** | {nanos} | {:.0} | {ratio:.2} |",
                row.allocations
            ),
            None => println!("| {name} | {nanos} | {:.0} | |", row.allocations),
        }
    }
    println!();
}

/// Formats a number with thousands separators.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let grouped = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy);
    grouped.collect::<Vec<_>>().join(",")
}
