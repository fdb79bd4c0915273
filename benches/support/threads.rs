//! What two threads serve, and what one serves, in rounds of a few milliseconds that take turns:
//! what the machine has to give to a second thread goes up and down, and falls on all rows alike.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Request;

use crate::rounds::{BATCH, Call, field, is_quick, median, requests, thousands};

const ROUNDS: usize = 150;
const ROUND: Duration = Duration::from_millis(6);

/// Requests a second.
#[derive(Clone, Copy)]
struct Rates {
    /// By the time that was spent in calls.
    in_calls: f64,
    /// By the time that passed, in which the requests were made, too.
    in_all: f64,
}

/// A thread that serves requests of its own, for as long as a round takes, whenever it is told to.
struct Worker {
    start: mpsc::Sender<Arc<AtomicUsize>>,
    served: mpsc::Receiver<Rates>,
    thread: thread::JoinHandle<()>,
}

/// The other threads would wait for one that panics.
struct EndsAll;

impl Drop for EndsAll {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::exit(1);
        }
    }
}

impl Worker {
    /// Returns when each token was seen often enough to be remembered, and to be at hand.
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
            let _ends_all = EndsAll;
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
            // Often enough to be remembered, and to be at hand.
            let _unmeasured: Duration = (0..(fields.len() * 20).div_ceil(BATCH))
                .map(|_| batch())
                .sum();
            report
                .send(Rates {
                    in_calls: 0.0,
                    in_all: 0.0,
                })
                .unwrap();
            for missing in starts {
                // What the others left in the processor's caches is not what this one would find
                // there.
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
                        in_all: rate(began.elapsed()),
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

/// How long the calls took. To make the requests is not the layer's work.
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

/// One kind of request, on two threads.
pub struct Pair {
    name: String,
    workers: [Worker; 2],
    /// Of one thread and of two.
    rates: Vec<[Rates; 2]>,
}

impl Pair {
    /// Each thread has its tokens; where they are the same, it begins at another place of the list.
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
                in_all: sum.in_all + one.in_all,
            })
            .unwrap()
    }
}

/// Measures them, and prints how many times as many requests two threads serve as one.
pub fn compare(mut pairs: Vec<Pair>) {
    for round in 0..if is_quick() { 1 } else { ROUNDS } {
        for pair in &mut pairs {
            // Whichever comes first finds the caches as another pair left them.
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
        "| requests a second, in the calls | one thread | two threads | two / one | with making them |"
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    for Pair {
        name,
        rates,
        workers,
    } in pairs
    {
        let of = |figure: fn(&[Rates; 2]) -> f64| median(rates.iter().map(figure).collect());
        println!(
            "| {name} | {} | {} | {:.2} | {:.2} |",
            thousands(of(|[one, _]| one.in_calls)),
            thousands(of(|[_, two]| two.in_calls)),
            of(|[one, two]| two.in_calls / one.in_calls),
            of(|[one, two]| two.in_all / one.in_all),
        );
        for Worker { start, thread, .. } in workers {
            drop(start);
            thread.join().unwrap();
        }
    }
    println!();
}
