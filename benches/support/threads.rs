//! What two threads serve, and what one serves, in rounds of a few milliseconds that take turns: what the
//! machine has to give to a second thread goes up and down, and falls on all rows alike.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Request;

use crate::rounds::{Call, field, is_quick, median, requests, thousands};

const ROUNDS: usize = 150;
const ROUND: Duration = Duration::from_millis(6);
const BATCH: usize = 64;

/// A thread that serves requests of its own, for as long as a round takes, whenever it is told to.
struct Worker {
    start: mpsc::Sender<Arc<AtomicUsize>>,
    served: mpsc::Receiver<f64>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    fn new(mut call: Call, tokens: &[String], first: usize) -> Self {
        let fields: Vec<_> = tokens.iter().map(|token| field(token)).collect();
        let (start, starts) = mpsc::channel::<Arc<AtomicUsize>>();
        let (report, served) = mpsc::channel();
        let thread = thread::spawn(move || {
            let (mut next, mut buffer) = (first, BytesMut::new());
            let mut batch = |count| {
                let start = next;
                next += count;
                batch(
                    &mut call,
                    requests(&mut buffer, (start..next).map(|number| &fields[number % fields.len()])),
                )
            };
            // Often enough to be remembered, and to be at hand.
            for _ in 0..20 {
                batch(fields.len());
            }
            for missing in starts {
                // What the others left in the processor's caches is not what this one would find there.
                batch(BATCH * 4);
                missing.fetch_sub(1, Ordering::Relaxed);
                while missing.load(Ordering::Relaxed) > 0 {
                    std::hint::spin_loop();
                }
                let (began, mut took, mut count) = (Instant::now(), Duration::ZERO, 0);
                while count == 0 || !is_quick() && began.elapsed() < ROUND {
                    took += batch(BATCH);
                    count += BATCH;
                }
                report.send(count as f64 / took.as_secs_f64()).unwrap();
            }
        });
        Self { start, served, thread }
    }
}

/// How long the calls took. To make the requests is not the layer's work.
fn batch(call: &mut Call, requests: Vec<Request<()>>) -> Duration {
    let (began, count) = (Instant::now(), requests.len());
    let good = requests.into_iter().map(call).filter(|status| *status == 200).count();
    let took = began.elapsed();
    assert_eq!(good, count);
    took
}

/// One kind of request, on two threads.
pub struct Pair {
    name: String,
    workers: [Worker; 2],
    /// Requests a second, of one thread and of two.
    rates: Vec<[f64; 2]>,
}

impl Pair {
    /// Each thread has its tokens; where they are the same, it begins at another place of the list.
    pub fn new(name: &str, make: impl Fn() -> Call, tokens: [&[String]; 2]) -> Self {
        let [one, other] = tokens;
        let workers = [Worker::new(make(), one, 0), Worker::new(make(), other, other.len() / 2)];
        Self { name: name.to_owned(), workers, rates: Vec::new() }
    }

    fn rate(&self, threads: usize) -> f64 {
        let (workers, missing) = (&self.workers[..threads], Arc::new(AtomicUsize::new(threads)));
        for worker in workers {
            worker.start.send(Arc::clone(&missing)).unwrap();
        }
        workers.iter().map(|worker| worker.served.recv().unwrap()).sum()
    }
}

/// Measures them, and prints how many times as many requests two threads serve as one.
pub fn compare(mut pairs: Vec<Pair>) {
    for _ in 0..if is_quick() { 1 } else { ROUNDS } {
        for pair in &mut pairs {
            let rates = [1, 2].map(|threads| pair.rate(threads));
            pair.rates.push(rates);
        }
    }
    println!("| requests a second, in the calls | one thread | two threads | two / one |");
    println!("| --- | ---: | ---: | ---: |");
    for Pair { name, rates, workers } in pairs {
        let of = |figure: fn(&[f64; 2]) -> f64| median(rates.iter().map(figure).collect());
        let (one, two) = (thousands(of(|rates| rates[0])), thousands(of(|rates| rates[1])));
        println!("| {name} | {one} | {two} | {:.2} |", of(|[one, two]| two / one));
        for Worker { start, thread, .. } in workers {
            drop(start);
            thread.join().unwrap();
        }
    }
    println!();
}
