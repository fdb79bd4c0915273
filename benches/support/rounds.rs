//! Requests in rounds, each kind of request in turn, so that whatever else the machine does falls
//! on all of them. Benchmark libraries measure one kind after the other: ratios drift with the
//! machine.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::{HeaderValue, Request, Response, header};
use tower::{Layer, Service, service_fn};
use tower_oauth::{Audience, Issuer, KeySet, ResourceServer, ResourceServerBuilder, TrustedIssuer};

use crate::tokens::{AUDIENCE, ISSUER};

const ROUNDS: usize = 25;
const ROUND: Duration = Duration::from_millis(20);
pub const BATCH: usize = 64;

pub fn now_or_never<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it was not decided at once"),
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

pub async fn answer(request: Request<()>) -> Result<Response<()>, Infallible> {
    std::hint::black_box(&request);
    drop(request);
    Ok(Response::new(()))
}

/// Requests as a connection has them: their fields are parts of a `buffer` that was read just now,
/// and that is used again when they are done with. Were they as far away in memory as what is
/// remembered of them, half of a hit would be the way to them.
pub fn requests<'f>(
    buffer: &mut BytesMut,
    fields: impl Iterator<Item = &'f HeaderValue>,
) -> Vec<Request<()>> {
    let fields: Vec<_> = fields.collect();
    // Room for all of them: else the last would have memory of their own, freed within the
    // measurement.
    buffer.reserve(fields.iter().map(|field| field.len()).sum());
    let read = fields.into_iter().map(|field| {
        buffer.extend_from_slice(field.as_bytes());
        request(&HeaderValue::from_maybe_shared(buffer.split().freeze()).unwrap())
    });
    read.collect()
}

/// Sends a request, and has the status.
pub type Call = Box<dyn FnMut(Request<()>) -> u16 + Send>;

/// Of a service.
pub fn calls<S>(mut service: S) -> Call
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible> + Send + 'static,
{
    Box::new(move |request| {
        now_or_never(service.call(request))
            .unwrap()
            .status()
            .as_u16()
    })
}

/// Through the layer.
pub fn layered(server: &ResourceServer) -> Call {
    calls(server.layer().layer(service_fn(answer)))
}

/// Through a check that is no layer.
pub fn with(mut check: impl FnMut(&mut Request<()>) + Send + 'static) -> Call {
    let mut service = service_fn(answer);
    Box::new(move |mut request| {
        check(&mut request);
        now_or_never(service.call(request))
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
    /// What it is a ratio of, by name.
    pub floor: String,
    fields: Arc<Vec<HeaderValue>>,
    /// From one request's token to the next one's: 1 for those that were made one after the other.
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

    /// Tokens in an order that has nothing to do with that in which they came first, as a server
    /// sees them: what lies side by side in memory is not asked for one after the other.
    pub fn scattered(mut self) -> Self {
        // A prime that divides no number of tokens here.
        self.step = 7919;
        self
    }

    /// With this status; without, 200 is expected.
    pub fn answered(mut self, status: u16) -> Self {
        self.expected = status;
        self
    }

    fn requests(&mut self, count: usize) -> Vec<Request<()>> {
        let (start, step, fields) = (self.next, self.step, &self.fields);
        self.next += count * step;
        let next = (1..=count).map(|number| &fields[(start + number * step) % fields.len()]);
        requests(&mut self.buffer, next)
    }

    /// One round of so many requests, made and asked in small batches, as they come to a server:
    /// were all of them there at once, the memory they fill would be what is measured.
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

    /// In a round of its own: to count takes time.
    fn count_allocations(&mut self) {
        let requests = self.requests(BATCH);
        let counted = allocation_counter::measure(|| {
            for request in requests {
                assert_eq!((self.call)(request), self.expected);
            }
        });
        self.allocations = counted.count_total as f64 / BATCH as f64;
    }

    /// Nanoseconds for a request.
    pub fn median(&self) -> f64 {
        median(self.nanos.clone())
    }

    /// How many times as long as its floor: in each round, since what else the machine does goes up
    /// and down from one to the next.
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

/// `cargo test --benches` and CI only ask whether it runs.
pub fn is_quick() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// Whether the command line asks for what has this name: all, or `cargo bench --bench table --
/// hit`.
pub fn is_wanted(name: &str) -> bool {
    let mut wanted = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .peekable();
    wanted.peek().is_none() || wanted.any(|part| name.contains(&part))
}

/// Measures them all.
pub fn measure(rows: &mut [Row]) {
    let (rounds, length) = if is_quick() {
        (1, Duration::ZERO)
    } else {
        (ROUNDS, ROUND)
    };
    let mut counts = Vec::new();
    for row in &mut *rows {
        // All tokens often enough to be remembered, then how many fit into a round.
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

/// The table of the documentation, in Markdown; what is ours and granted is set bold.
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

/// A number with commas.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let grouped = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy);
    grouped.collect::<Vec<_>>().join(",")
}
