//! Compares this crate with other published layers, on the same tokens:
//! `cargo run --release --manifest-path benches/peers/Cargo.toml`. With `-- --test` it sends a few
//! requests only, and the figures mean nothing.
//!
//! Each layer is set up as its documentation says. It fetches the keys from an issuer, checks
//! signature, `exp`, `aud`, and `iss` if it can, and wraps a service that responds at once.
//! All rows are measured in interleaved short rounds. The table shows medians, of the times and of
//! the ratios per round. Ratios are more stable than times.

mod allocations;
mod backend;
mod issuer;
mod node;
mod peers;
mod row;
#[path = "../../support/tokens.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod tokens;

use std::iter::repeat_n;
use std::time::Duration;

use http::HeaderValue;
use issuer::Issuer;
use row::{Column, Row};

const ROUNDS: usize = 25;
/// Number of new tokens in a round.
const NEW: usize = 400;
/// Duration of a round with the same token.
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
        row.assert_accepts_and_rejects(&runtime, &one, &issuer.forged(0));
    }

    // One round for warm-up and one for counting allocations.
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
        allocations::set_enabled(true);
        row.same.allocations = row.round(&runtime, repeat_n(&one, new)).allocations;
        row.new.allocations = row.round(&runtime, counted).allocations;
        allocations::set_enabled(false);
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

/// Prints the table. All ratios are to the first row, this crate with its defaults.
fn print(ours: &[Row], others: &[Row], token: &HeaderValue) {
    let first = &ours[0];
    println!(
        "RS256, tokens of {} bytes; ns and allocations per request",
        token.len() - "Bearer ".len()
    );
    println!();
    println!(
        "| layer | version | same token | allocations | / ours | new token | allocations | / ours |"
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
        "best other layer, same token: {:.1} times ours",
        best(|row| &row.same, first)
    );
    for row in ours {
        println!(
            "best other layer, new tokens: {:.2} times {}",
            best(|row| &row.new, row),
            row.name
        );
    }
}
