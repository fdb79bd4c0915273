//! Compares the throughput of one and two threads in interleaved rounds of a few milliseconds, so
//! that variations of the machine affect all rows alike.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Request;

use crate::rounds::{BATCH, Call, field, is_quick, median, requests, thousands};

const ROUNDS: usize = 150;
const ROUND: Duration = Duration::from_millis(6);

/// Requests per second.
#[derive(Clone, Copy)]
struct Rates {
    /// Per second spent in calls.
    in_calls: f64,
    /// Per second of wall time, which includes building the requests.
    in_total: f64,
}

/// A thread that serves requests for one round after each `start` message.
struct Worker {
    start: mpsc::Sender<Arc<AtomicUsize>>,
    served: mpsc::Receiver<Rates>,
    thread: thread::JoinHandle<()>,
}

/// Exits the process on a panic, because the other threads would wait for this one.
struct ExitOnPanic;

impl Drop for ExitOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::exit(1);
        }
    }
}

impl Worker {
    /// Returns when each token is in the token cache and in the thread-local cache.
    fn new(mut call: Call, tokens: &[String], first: usize) -> Self {
        let round = if is_quick() {
            Duration::from_micros(1)
        } else {
            ROUND
        };
        let fields: Vec<_> = tokens.iter().map(|token| field(token)).collect();
        let (start, starts) = mpsc::channel::<Arc<AtomicUsize>>();
        let (report, served) = mpsc::channel();
        let thread = thread::spawn(move || {
            let _exit_on_panic = ExitOnPanic;
            let (mut next, mut buffer) = (first, BytesMut::new());
            let mut batch = || {
                let numbers = next..next + BATCH;
                next = numbers.end;
                serve(
                    &mut call,
                    requests(
                        &mut buffer,
                        numbers.map(|number| &fields[number % fields.len()]),
                    ),
                )
            };
            // Often enough for both caches to admit each token.
            let _unmeasured: Duration = (0..(fields.len() * 20).div_ceil(BATCH))
                .map(|_| batch())
                .sum();
            report
                .send(Rates {
                    in_calls: 0.0,
                    in_total: 0.0,
                })
                .unwrap();
            for missing in starts {
                // Warm the processor's caches, which other rows have used meanwhile.
                let _unmeasured: Duration = (0..4).map(|_| batch()).sum();
                missing.fetch_sub(1, Ordering::Relaxed);
                while missing.load(Ordering::Relaxed) > 0 {
                    std::hint::spin_loop();
                }
                let (began, mut took, mut count) = (Instant::now(), Duration::ZERO, 0);
                while began.elapsed() < round {
                    took += batch();
                    count += BATCH;
                }
                let rate = |took: Duration| count as f64 / took.as_secs_f64();
                report
                    .send(Rates {
                        in_calls: rate(took),
                        in_total: rate(began.elapsed()),
                    })
                    .unwrap();
            }
        });
        served.recv().unwrap();
        Self {
            start,
            served,
            thread,
        }
    }
}

/// Returns the time spent in calls, without that of building the requests.
fn serve(call: &mut Call, requests: Vec<Request<()>>) -> Duration {
    let (began, count) = (Instant::now(), requests.len());
    let good = requests
        .into_iter()
        .map(call)
        .filter(|status| *status == 200)
        .count();
    let took = began.elapsed();
    assert_eq!(good, count);
    took
}

/// One kind of request on two threads.
pub struct Pair {
    name: String,
    workers: [Worker; 2],
    /// With one thread and with two.
    rates: Vec<[Rates; 2]>,
}

impl Pair {
    /// Gives each thread its tokens. The second thread starts in the middle of its list.
    pub fn new(name: &str, make: impl Fn() -> Call, tokens: [&[String]; 2]) -> Self {
        let [one, other] = tokens;
        let workers = [
            Worker::new(make(), one, 0),
            Worker::new(make(), other, other.len() / 2),
        ];
        Self {
            name: name.to_owned(),
            workers,
            rates: Vec::new(),
        }
    }

    fn rates(&self, threads: usize) -> Rates {
        let (workers, missing) = (
            &self.workers[..threads],
            Arc::new(AtomicUsize::new(threads)),
        );
        for worker in workers {
            worker.start.send(Arc::clone(&missing)).unwrap();
        }
        let served = workers.iter().map(|worker| worker.served.recv().unwrap());
        served
            .reduce(|sum, one| Rates {
                in_calls: sum.in_calls + one.in_calls,
                in_total: sum.in_total + one.in_total,
            })
            .unwrap()
    }
}

/// Measures all pairs and prints the ratio of two threads to one.
pub fn compare(mut pairs: Vec<Pair>) {
    for round in 0..if is_quick() { 1 } else { ROUNDS } {
        for pair in &mut pairs {
            // Alternate the order, because the first finds the caches of another pair.
            let rates = if round % 2 == 0 {
                [1, 2].map(|threads| pair.rates(threads))
            } else {
                let [two, one] = [2, 1].map(|threads| pair.rates(threads));
                [one, two]
            };
            pair.rates.push(rates);
        }
    }
    println!(
        "| requests per second in calls | one thread | two threads | two / one | with building |"
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    for Pair {
        name,
        rates,
        workers,
    } in pairs
    {
        let median_of = |figure: fn(&[Rates; 2]) -> f64| median(rates.iter().map(figure).collect());
        println!(
            "| {name} | {} | {} | {:.2} | {:.2} |",
            thousands(median_of(|[one, _]| one.in_calls)),
            thousands(median_of(|[_, two]| two.in_calls)),
            median_of(|[one, two]| two.in_calls / one.in_calls),
            median_of(|[one, two]| two.in_total / one.in_total),
        );
        for Worker { start, thread, .. } in workers {
            drop(start);
            thread.join().unwrap();
        }
    }
    println!();
}
