//! Settings from each format, by figment and by config, and by serde_json alone.
#![allow(
    clippy::print_stdout,
    reason = "read by the test that started the process"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use config::{Config, Environment, FileFormat};
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml, Yaml};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::child_process::{is_child, run_again};

/// The table of each document that has the settings.
pub const TABLE: &str = "app";

/// The texts of an array are separated by spaces in a variable, not by commas.
const SCOPES: [&str; 4] = [
    "required_scopes",
    "scopes",
    "scopes_supported",
    "step_up_scopes",
];

/// Reads a document of TOML without this crate.
pub fn parse_toml(toml: &str) -> Value {
    Figment::from(Toml::string(toml)).extract().unwrap()
}

/// The results of each way to read these settings from a document, with its name.
pub fn read<T: DeserializeOwned>(settings: &Value) -> Vec<(&'static str, Result<T, String>)> {
    let document = Value::from_iter([(TABLE, settings.clone())]);
    let (json, yaml, toml) = (document.to_string(), yaml(&document, 0), toml(&document));
    let config = |text: &str, format| {
        let file = config::File::from_str(text, format);
        let config = Config::builder().add_source(file).build();
        table(config.and_then(Config::try_deserialize))
    };
    let serialized = Figment::from(Serialized::defaults(&document));
    vec![
        (
            "figment, TOML",
            table(Figment::from(Toml::string(&toml)).extract()),
        ),
        (
            "figment, YAML",
            table(Figment::from(Yaml::string(&yaml)).extract()),
        ),
        ("figment, JSON", table(serialized.extract())),
        ("config, TOML", config(&toml, FileFormat::Toml)),
        ("config, YAML", config(&yaml, FileFormat::Yaml)),
        // Without its feature `json`: JSON is YAML.
        ("config, JSON", config(&json, FileFormat::Yaml)),
        ("JSON", table(serde_json::from_str(&json))),
    ]
}

/// The table with the settings, or what a log of the error may contain.
fn table<T, E: Error>(tables: Result<BTreeMap<String, T>, E>) -> Result<T, String> {
    let tables = tables.map_err(|error| shown(&error))?;
    Ok(tables.into_values().next().unwrap())
}

fn shown<E: Error>(error: &E) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(" {cause} {cause:?}");
        source = cause.source();
    }
    text
}

/// The prefix of the variables.
const PREFIX: &str = "TEST_SETTINGS_";

/// The variables that stand for these settings.
pub fn variables(settings: &Value) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    add_variables(
        &format!("{PREFIX}{}", TABLE.to_uppercase()),
        settings,
        &mut variables,
    );
    variables
}

fn add_variables(name: &str, value: &Value, variables: &mut Vec<(String, String)>) {
    let is_claims = name.ends_with("__REQUIRED_CLAIMS");
    let text = match value {
        Value::Object(members) if !is_claims => {
            for (member, value) in members {
                add_variables(
                    &format!("{name}__{}", member.to_uppercase()),
                    value,
                    variables,
                );
            }
            return;
        }
        Value::Array(values) => {
            let is_scopes = SCOPES
                .iter()
                .any(|field| name.ends_with(&field.to_uppercase()));
            let texts: Vec<&str> = values.iter().map(|text| text.as_str().unwrap()).collect();
            texts.join(if is_scopes { " " } else { ", " })
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    variables.push((name.to_owned(), text));
}

/// Runs a test again, as a process with these variables, which calls [`print_variables`]. Returns
/// what it prints, for figment and for config.
pub fn read_in_process(test: &str, variables: &[(String, String)]) -> [String; 2] {
    let variables = variables.iter();
    let variables: Vec<_> = variables.map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let text = run_again(test, &variables);
    ["figment: ", "config: "].map(|library| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.split_once(library));
        line.unwrap_or_else(|| panic!("{text}")).1.to_owned()
    })
}

/// Prints the settings of the environment, if this process is a child of the test.
pub fn print_variables<T: DeserializeOwned + std::fmt::Debug>() -> bool {
    if !is_child() {
        return false;
    }
    let figment = Figment::from(Env::prefixed(PREFIX).split("__"));
    let figment: Result<T, _> = table(figment.extract());
    let variables = Environment::with_prefix(PREFIX.trim_end_matches('_'));
    let variables = variables.prefix_separator("_").separator("__");
    let config = Config::builder().add_source(variables).build();
    let config: Result<T, _> = table(config.and_then(Config::try_deserialize));
    println!("\nfigment: {figment:?}\nconfig: {config:?}");
    true
}

/// A block-style document.
fn yaml(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(members) if !members.is_empty() => members
            .iter()
            .map(|(name, value)| (format!("{}:", Value::from(name.as_str())), value))
            .collect(),
        Value::Array(values) if !values.is_empty() => {
            values.iter().map(|value| ("-".to_owned(), value)).collect()
        }
        scalar => return format!(" {scalar}\n"),
    };
    let lines = entries
        .into_iter()
        .map(|(start, value)| format!("{indent}{start}{}", yaml(value, depth + 1)));
    if depth == 0 {
        lines.collect()
    } else {
        format!("\n{}", lines.collect::<String>())
    }
}

fn toml(document: &Value) -> String {
    let inline = |value: &Value| inline_toml(value);
    let members = document.as_object().unwrap();
    members
        .iter()
        .map(|(name, value)| format!("{name} = {}\n", inline(value)))
        .collect()
}

fn inline_toml(value: &Value) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    match value {
        // TOML has no null.
        Value::Null => "[[]]".to_owned(),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                format!("{} = {}", quoted(name), inline_toml(value))
            };
            format!(
                "{{ {} }}",
                members.iter().map(member).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Array(values) => {
            format!(
                "[{}]",
                values
                    .iter()
                    .map(inline_toml)
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        scalar => scalar.to_string(),
    }
}

/// The path of each leaf, and of each table.
pub fn paths(settings: &Value, leaves: bool) -> Vec<Vec<String>> {
    fn walk(value: &Value, path: &mut Vec<String>, leaves: bool, found: &mut Vec<Vec<String>>) {
        let members = value.as_object();
        if members.is_some() != leaves {
            found.push(path.clone());
        }
        for (name, value) in members.into_iter().flatten() {
            path.push(name.clone());
            walk(value, path, leaves, found);
            path.pop();
        }
    }
    let mut found = Vec::new();
    walk(settings, &mut Vec::new(), leaves, &mut found);
    found
}

/// The settings with another value at this path.
pub fn with(settings: &Value, path: &[String], value: Value) -> Value {
    let mut changed = settings.clone();
    let mut at = &mut changed;
    for name in path {
        at = at
            .as_object_mut()
            .unwrap_or_else(|| panic!("{path:?}"))
            .entry(name)
            .or_insert(Value::Object(Map::new()));
    }
    *at = value;
    changed
}

/// The fields that an error about an unknown one lists.
pub fn fields<T: DeserializeOwned>(tables: &[&str]) -> BTreeSet<String> {
    let path: Vec<String> = tables.iter().map(|name| (*name).to_owned()).collect();
    let path = [path, vec!["unknown_field".to_owned()]].concat();
    let settings = with(&Value::Object(Map::new()), &path, Value::from("x"));
    let error = serde_json::from_value::<T>(settings)
        .err()
        .unwrap()
        .to_string();
    let (_, fields) = error.split_once("expected one of ").unwrap();
    fields
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The fields that the tables of this section of the guide list.
pub fn fields_in_guide(section: &str) -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/settings.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let (_, section) = guide.split_once(&format!("\n# {section}\n")).unwrap();
    let section = section.split("\n# ").next().unwrap();
    // A name may be a link.
    let lines = section.lines();
    let rows = lines.filter_map(|line| {
        line.strip_prefix("| ")?
            .trim_start_matches('[')
            .strip_prefix('`')
    });
    let first = rows.filter_map(|row| row.split(" | ").next());
    let names = first.flat_map(|names| names.split('`').filter(|name| !name.contains([' ', '('])));
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}
