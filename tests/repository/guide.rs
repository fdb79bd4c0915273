//! Checks the guide against tests, dependencies and metrics.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// All Rust files below these folders, in one text.
fn sources(folders: &[&str]) -> String {
    let mut all = String::new();
    let mut open: Vec<_> = folders
        .iter()
        .map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .collect();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("fuzz") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    all
}

/// The text between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_row_of_the_key_set_policy_names_existing_tests() {
    let sources = sources(&["src", "tests"]);
    let guide = read("src/guide/key_sets.md");
    let rows: Vec<&str> = guide
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(2)
        .collect();
    assert!(rows.len() > 30);
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let mut tests = quoted(last).peekable();
        assert!(tests.peek().is_some(), "no test: {row}");
        for test in tests {
            assert!(
                sources.contains(&format!("fn {test}(")),
                "no test of this name: {test}"
            );
        }
    }
}

#[test]
fn the_testing_guide_lists_the_dependencies_of_its_examples() {
    let guide = read("src/guide/testing.md");
    let listed: BTreeSet<String> = guide
        .split_once("[dev-dependencies]")
        .and_then(|(_, rest)| rest.split_once("```"))
        .map(|(listed, _)| listed.lines().filter_map(|line| line.split_once(" = ")))
        .unwrap()
        .map(|(name, _)| name.replace('-', "_"))
        .collect();
    let used: BTreeSet<String> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("use "))
        .filter_map(|path| path.split_once("::"))
        .map(|(name, _)| name.to_owned())
        // Used through its macros and attributes.
        .chain(["tokio".to_owned()])
        .filter(|name| name != "std")
        .collect();
    assert_eq!(listed, used);
}

/// The metric names in a text. A histogram is queried by its sum and count.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_lowercase() && c != '_')
        .filter(|word| word.starts_with("tower_oauth_"))
        .map(|word| word.trim_end_matches("_sum").trim_end_matches("_count"))
        .collect()
}

#[test]
fn guide_code_and_dashboard_have_the_same_metrics() {
    let code = read("src/metrics.rs");
    let in_code = metrics(&code);
    assert!(in_code.len() > 8, "{in_code:?}");
    assert_eq!(metrics(&read("src/guide/metrics.md")), in_code);
    let dashboard = read("examples/grafana_dashboard.json");
    assert_eq!(metrics(&dashboard), in_code);
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = parsed
        .pointer("/panels")
        .and_then(serde_json::Value::as_array)
        .unwrap();
    assert!(
        panels
            .iter()
            .all(|panel| panel.pointer("/targets/0/expr").is_some())
    );
}
