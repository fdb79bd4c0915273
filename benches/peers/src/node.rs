//! Verifiers for Node on the same tokens, if they are installed with
//! `npm install --prefix benches/peers/node`.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::issuer::Issuer;

/// Prints a row for each, or how to install them.
pub fn print(runtime: &tokio::runtime::Runtime, issuer: &Issuer, tokens: usize, ours: (f64, f64)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("node");
    if !folder.join("node_modules").exists() {
        return println!("\nfor Node's verifiers: npm install --prefix benches/peers/node");
    }
    let input = issuer.for_node(tokens).to_string();
    let work = move || {
        let mut command = Command::new("node");
        command
            .arg(folder.join("bench.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut node = command.spawn().unwrap();
        node.stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        node.wait_with_output().unwrap()
    };
    // A blocking task, because the issuer must serve its keys meanwhile.
    let output = runtime.block_on(async { tokio::task::spawn_blocking(work).await.unwrap() });
    assert!(output.status.success(), "bench.mjs failed");
    println!("\n| on Node, without HTTP | version | same token | / ours | new token | / ours |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    let printed = String::from_utf8(output.stdout).unwrap();
    // The SDK also logs to stdout.
    for line in printed
        .lines()
        .filter(|line| line.starts_with(r#"{"name""#))
    {
        let row: Value = serde_json::from_str(line).unwrap();
        let (same, never) = (
            row["same"].as_f64().unwrap(),
            row["never"].as_f64().unwrap(),
        );
        println!(
            "| {} | {} | {same:.0} | {:.1} | {never:.0} | {:.2} |",
            row["name"].as_str().unwrap(),
            row["version"].as_str().unwrap(),
            same / ours.0,
            never / ours.1
        );
    }
}

impl Issuer {
    /// The input of `bench.mjs`.
    fn for_node(&self, tokens: usize) -> Value {
        let text = |field: http::HeaderValue| field.to_str().unwrap().replacen("Bearer ", "", 1);
        let first = 1_000_000;
        json!({
            "issuer": self.url(),
            "audience": crate::tokens::AUDIENCE,
            "tenant": crate::tokens::TENANT,
            "jwks": self.keys(),
            "one": text(self.good(first)),
            "forged": text(self.forged(first)),
            "fresh": (1..=tokens).map(|number| text(self.good(first + number))).collect::<Vec<_>>(),
        })
    }
}
