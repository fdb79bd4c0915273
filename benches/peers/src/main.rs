//! The same tokens through this crate and through the other published layers, in one table:
//! `cargo run --release --manifest-path benches/peers/Cargo.toml`. With `-- --test` a few requests
//! show whether it runs, and the figures mean nothing.
//!
//! Each layer is set up as its documentation has it: it fetches the keys from an issuer, checks
//! signature, `exp`, `aud`, and `iss` where it can, and stands before a service that answers at once.
//! The rows are measured in short rounds in turn, so that whatever else the machine does falls on all of
//! them; the medians are shown, of the times and of each round's ratios. Read the ratios.

mod allocations;
mod backend;
mod issuer;
mod node;
mod peers;
mod row;
#[path = "../../support/tokens.rs"]
#[allow(dead_code, reason = "the other benchmarks use the rest")]
mod tokens;

use std::iter::repeat_n;
use std::time::Duration;

use http::HeaderValue;
use issuer::Issuer;
use row::{Column, Row};

const ROUNDS: usize = 25;
/// How many tokens are new in a round.
const NEW: usize = 400;
/// For how long the same token is sent in a round.
const SAME: Duration = Duration::from_millis(20);

fn main() {
    let quick = std::env::args().any(|argument| argument == "--test");
    let (rounds, new, same) = if quick {
        (1, 5, Duration::ZERO)
    } else {
        (ROUNDS, NEW, SAME)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    backend::install();
    let issuer = runtime.block_on(Issuer::start());
    let mut rows = runtime.block_on(peers::ours(&issuer));
    let ours = rows.len();
    rows.extend(runtime.block_on(peers::others(&issuer)));

    let one = issuer.good(0);
    for row in &mut rows {
        row.accepts_and_refuses(&runtime, &one, &issuer.forged(0));
    }

    // One round to warm up, and one in which allocations are counted.
    let tokens: Vec<HeaderValue> = (1..=new * (rounds + 2))
        .map(|number| issuer.good(number))
        .collect();
    let mut fresh = tokens.chunks(new);
    let (warm_up, counted) = (fresh.next().unwrap(), fresh.next().unwrap());
    let mut counts = Vec::new();
    for row in &mut rows {
        row.round(&runtime, warm_up);
        let each = row.round(&runtime, repeat_n(&one, new)).nanos;
        counts.push((same.as_nanos() as f64 / each).clamp(5.0, 100_000.0) as usize);
        allocations::count(true);
        row.same.allocations = row.round(&runtime, repeat_n(&one, new)).allocations;
        row.new.allocations = row.round(&runtime, counted).allocations;
        allocations::count(false);
    }
    for fresh in fresh {
        for (row, count) in rows.iter_mut().zip(&counts) {
            let nanos = row.round(&runtime, repeat_n(&one, *count)).nanos;
            row.same.nanos.push(nanos);
        }
        for row in &mut rows {
            let nanos = row.round(&runtime, fresh).nanos;
            row.new.nanos.push(nanos);
        }
    }
    let (ours, others) = rows.split_at(ours);
    print(ours, others, &one);
    let (same, new) = (ours[0].same.median(), ours[0].new.median());
    node::print(
        &runtime,
        &issuer,
        if quick { 16 } else { 4_000 },
        (same, new),
    );
}

/// The first row is ours as it comes, and what all are ratios to.
fn print(ours: &[Row], others: &[Row], token: &HeaderValue) {
    let first = &ours[0];
    println!(
        "RS256, tokens of {} bytes; ns and allocations per request",
        token.len() - "Bearer ".len()
    );
    println!();
    println!(
        "| layer | version | same token | allocations | / ours | never seen | allocations | / ours |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for row in ours.iter().chain(others) {
        let cells = |column: &Column, first: &Column| {
            let (median, ratio) = (column.median(), column.ratio_to(first));
            format!("{median:.0} | {:.1} | {ratio:.2}", column.allocations)
        };
        let (same, new) = (cells(&row.same, &first.same), cells(&row.new, &first.new));
        println!("| {} | {} | {same} | {new} |", row.name, row.version);
    }
    println!();
    let best = |column: fn(&Row) -> &Column, ours: &Row| {
        others
            .iter()
            .map(|row| column(row).ratio_to(column(ours)))
            .fold(f64::INFINITY, f64::min)
    };
    println!(
        "the best of the others, to the same token: {:.1} times ours",
        best(|row| &row.same, first)
    );
    for row in ours {
        println!(
            "the best of the others, to tokens never seen: {:.2} times {}",
            best(|row| &row.new, row),
            row.name
        );
    }
}
