//! Checks the guide against tests, dependencies and metrics.

use std::collections::BTreeSet;
use std::path::Path;

use tower_oauth::resource_server::RejectionKind;

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

/// All Rust files below these folders. A long message, which goes on in the next line, is joined.
fn joined_sources(folders: &[&str]) -> String {
    let sources = sources(folders);
    let mut lines = sources.split("\\\n");
    let first = lines.next().unwrap().to_owned();
    lines.fold(first, |all, line| all + line.trim_start())
}

/// The text between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of each table whose header has a column of this name, with their cell in this column.
fn column<'g>(guide: &'g str, name: &str) -> Vec<(&'g str, &'g str)> {
    let cells = |line: &'g str| -> Option<Vec<&'g str>> {
        let row = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(row.split('|').map(str::trim).collect())
    };
    let (mut rows, mut at) = (Vec::new(), None);
    let mut lines = guide.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(row) = cells(line) else {
            at = None;
            continue;
        };
        if lines.peek().is_some_and(|next| next.starts_with("| ---")) {
            at = row.iter().position(|header| *header == name);
            lines.next();
        } else if let Some(at) = at {
            rows.push((line, *row.get(at).unwrap()));
        }
    }
    rows
}

/// Each row names tests that exist.
fn assert_tests_exist(guide: &str, name: &str, at_least: usize) {
    let sources = sources(&["src", "tests"]);
    let rows = column(guide, name);
    assert!(rows.len() >= at_least, "{} rows", rows.len());
    for (row, cell) in rows {
        let mut tests = quoted(cell).peekable();
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
fn every_row_of_the_key_set_policy_names_existing_tests() {
    assert_tests_exist(&read("src/guide/key_sets.md"), "test", 60);
}

#[test]
fn every_attack_of_the_threat_model_names_existing_tests() {
    let guide = read("src/guide/threat_model.md");
    assert_tests_exist(&guide, "tests", 60);
    assert_tests_exist(&guide, "test", 15);
}

#[test]
fn every_promise_of_the_security_guide_names_existing_tests() {
    assert_tests_exist(&read("src/guide/security.md"), "tests", 20);
}

#[test]
fn every_demand_of_mcp_names_existing_tests() {
    assert_tests_exist(&read("src/guide/mcp.md"), "tests", 15);
}

#[test]
fn every_fact_about_clients_names_existing_tests() {
    assert_tests_exist(&read("src/guide/clients.md"), "tests", 9);
}

#[test]
fn every_refused_token_names_existing_tests() {
    assert_tests_exist(&read("src/guide/refused_tokens.md"), "test", 50);
}

/// The Markdown pages of the guide, with their paths from `src/guide/`.
fn pages() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let (mut pages, mut open) = (Vec::new(), vec![folder.clone()]);
    while let Some(within) = open.pop() {
        for entry in within.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(&folder).unwrap().to_str().unwrap();
                pages.push((name.to_owned(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    pages
}

/// The blocks of Rust in a page, as rustdoc renders them: without hidden lines.
fn rendered_code(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(language)) => {
                block = language.starts_with("rust").then(String::new);
                if block.is_none() && !language.is_empty() {
                    // Not Rust: its lines up to the end are no code.
                    block = Some("\0".to_owned());
                }
            }
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some(code), None) if line != "#" && !line.trim_start().starts_with("# ") => {
                *code += line;
                code.push('\n');
            }
            _ => {}
        }
    }
    blocks.retain(|code| !code.starts_with('\0'));
    blocks
}

/// The names of the refreshers that a program binds, and of the tasks of token managers: of the
/// second part of each tuple that `build` returns.
fn tasks(code: &str) -> Vec<&str> {
    let statements = code.split("let (").skip(1);
    let bound = statements.filter_map(|statement| {
        let (names, rest) = statement.split_once(')')?;
        let (value, _) = rest.split_once(';')?;
        let (_, second) = names.split_once(',')?;
        value.contains(".build()").then_some(second.trim())
    });
    bound.collect()
}

/// Without a refresher that runs, a server has no keys and responds with 503 for ever.
#[test]
fn each_refresher_and_renewer_that_the_guide_builds_runs() {
    let (mut started, mut bound) = (0, 0);
    for (name, page) in pages() {
        for code in rendered_code(&page) {
            // An explanation needs no keys to say what is wrong before the signature.
            let needs_keys = !code.contains(".explain(");
            for task in tasks(&code) {
                let is_run = !task.starts_with('_') && code.matches(task).count() > 1;
                assert!(
                    !needs_keys || is_run,
                    "src/guide/{name}: nothing runs {task} of\n{code}"
                );
                bound += 1;
            }
            let runs = code.contains(".start()") || code.contains("spawn(");
            started += usize::from(code.contains("ResourceServer::for_resource") && runs);
        }
    }
    assert!(bound >= 4, "{bound}");
    assert!(started >= 5, "{started}");
}

/// The kinds of rejections, by their names in code.
fn kinds() -> BTreeSet<String> {
    let kinds = RejectionKind::ALL.iter();
    kinds.map(|kind| format!("{kind:?}")).collect()
}

/// The kinds in a column of the tables, each of which exists.
fn kinds_in(guide: &str, name: &str) -> BTreeSet<String> {
    let kinds = kinds();
    let mut named = BTreeSet::new();
    for (_, cell) in column(guide, name) {
        let is_kind = |text: &&str| {
            text.starts_with(char::is_uppercase) && text.chars().all(char::is_alphanumeric)
        };
        for kind in quoted(cell).filter(is_kind) {
            assert!(kinds.contains(kind), "no kind of rejection: {kind}");
            named.insert(kind.to_owned());
        }
    }
    named
}

#[test]
fn the_results_of_the_threat_model_are_kinds_of_rejections() {
    let named = kinds_in(&read("src/guide/threat_model.md"), "result");
    assert_eq!(named, kinds(), "each kind is the result of an attack");
}

#[test]
fn each_kind_of_rejection_of_a_token_has_a_refused_token() {
    let guide = read("src/guide/refused_tokens.md");
    for (row, cell) in column(&guide, "kind") {
        assert!(quoted(cell).next().is_some(), "no kind: {row}");
    }
    let mut named = kinds_in(&guide, "kind");
    // Reasons of the server, which no other token changes.
    named.extend(["KeysUnavailable", "LayerMissing", "Overloaded"].map(str::to_owned));
    assert_eq!(named, kinds());
}

#[test]
fn the_threat_model_lists_the_vulnerabilities_that_tests_name() {
    let names = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .filter(|word| word.starts_with("CVE-") || word.starts_with("GHSA-"))
            // A pattern, as in this test.
            .filter(|word| word.len() > "GHSA-".len())
            .map(str::to_owned)
            .collect()
    };
    let tests = names(&sources(&["tests"]));
    assert!(tests.len() > 40, "{tests:?}");
    assert_eq!(names(&read("src/guide/threat_model.md")), tests);
}

#[test]
fn the_files_that_the_guide_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for (page, text) in pages() {
        for name in quoted(&text).filter(|name| {
            ["src/", "tests/", "examples/", "benches/"]
                .iter()
                .any(|folder| name.starts_with(folder))
        }) {
            assert!(root.join(name).exists(), "src/guide/{page}: {name}");
            named += 1;
        }
    }
    assert!(named > 30, "{named}");
}

#[test]
fn the_ports_in_the_guide_are_the_defaults_of_the_example_programs() {
    let guide = read("src/guide/configuration.md");
    for example in ["protected_resource", "mcp_server", "authorization_server"] {
        let (_, table) = guide
            .split_once(&format!("| variable of `{example}` |"))
            .unwrap();
        let (_, row) = table.split_once("\n| `PORT` | ").unwrap();
        let (port, _) = row.split_once(" |").unwrap();
        let code = read(&format!("examples/{example}.rs"));
        let default = format!("parse_variable(\"PORT\", {port})");
        assert!(code.contains(&default), "{example}: {port}");
    }
}

#[test]
fn the_guide_lists_the_variables_of_the_example_programs() {
    let guide = read("src/guide/configuration.md");
    let common = read("examples/common/mod.rs");
    for example in [
        "protected_resource",
        "call_protected_resource",
        "mcp_server",
        "authorization_server",
    ] {
        let code = read(&format!("examples/{example}.rs"));
        let arguments = ["variable(\"", "list(\""]
            .iter()
            .flat_map(|call| code.split(call).skip(1));
        let read: BTreeSet<&str> = arguments
            .filter_map(|rest| rest.split('"').next())
            .collect();
        let rows = column(&guide, &format!("variable of `{example}`"));
        let listed: BTreeSet<&str> = rows.iter().flat_map(|(_, cell)| quoted(cell)).collect();
        let missing = |name: &&&str| !listed.contains(**name);
        // A pair of variables is read in one place, and one of them named in the error.
        assert_eq!(
            read.iter().filter(missing).count(),
            0,
            "{read:?} {listed:?}"
        );
        for name in listed {
            let quoted = format!("\"{name}\"");
            assert!(
                code.contains(&quoted) || common.contains(&quoted),
                "{example} reads no {name}"
            );
        }
    }
}

#[test]
fn the_files_in_the_pictures_of_the_architecture_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let guide = read("src/guide/architecture.md");
    let mut checked = 0;
    for (title, folder) in [
        ("# One request\n", "resource_server"),
        ("# One key refresh\n", "key_set"),
        ("# One client token\n", "client"),
        ("# One exchange\n", "client/token_exchange"),
    ] {
        let (_, section) = guide.split_once(title).unwrap();
        let picture = section.split("```").nth(1).unwrap();
        let words = picture.split(|c: char| !c.is_ascii_alphanumeric() && !"_./".contains(c));
        for file in words.filter(|word| word.ends_with(".rs")) {
            let found = root.join(folder).join(file).exists() || root.join(file).exists();
            assert!(found, "{title}{file}");
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn readme_and_docs_list_the_features() {
    let manifest = read("Cargo.toml");
    let (_, features) = manifest.split_once("\n[features]\n").unwrap();
    let features = features.split("\n[").next().unwrap();
    let names = features.lines().filter_map(|line| line.split_once(" = "));
    let declared: BTreeSet<&str> = names
        .map(|(name, _)| name)
        .filter(|name| *name != "default")
        .collect();
    assert!(declared.len() > 4, "{declared:?}");
    let docs = read("src/lib.rs").replace("//! ", "");
    for text in [read("README.md"), docs] {
        let rows = column(&text, "feature");
        let listed: BTreeSet<&str> = rows.iter().flat_map(|(_, cell)| quoted(cell)).collect();
        assert_eq!(listed, declared);
    }
}

#[test]
fn readme_and_docs_link_every_page_of_the_guide() {
    let readme = read("README.md");
    let modules = read("src/guide/mod.rs");
    let pages = pages();
    for (page, _) in &pages {
        match page.split_once('/') {
            None => assert!(readme.contains(&format!("](src/guide/{page})")), "{page}"),
            // The page of the folder links it, as a module.
            Some((folder, page)) => {
                let index = read(&format!("src/guide/{folder}.md"));
                let module = page.trim_end_matches(".md");
                let link = format!("](mod@crate::guide::{folder}::{module}");
                assert!(index.contains(&link), "{page}");
            }
        }
        let included = format!("include_str!(\"{page}\")");
        assert!(modules.contains(&included), "{page}");
    }
    assert!(pages.len() > 8, "{}", pages.len());
}

#[test]
fn the_guide_has_a_page_for_each_provider() {
    let index = read("src/guide/providers.md");
    let modules = read("src/guide/mod.rs");
    let presets = read("src/resource_server/presets.rs");
    let names = presets.lines().filter_map(|line| {
        let (name, _) = line.trim().strip_prefix("pub fn ")?.split_once('(')?;
        Some(name)
    });
    let mut pages = BTreeSet::new();
    for name in names {
        let page = read(&format!("src/guide/providers/{name}.md"));
        let preset = format!("TrustedIssuer::{name}");
        assert!(
            page.contains(&format!("{preset}(")) && index.contains(&preset),
            "{name}"
        );
        assert!(
            index.contains(&format!("guide::providers::{name})")),
            "{name}"
        );
        let included = format!("include_str!(\"providers/{name}.md\")");
        assert!(modules.contains(&included), "{name}");
        pages.insert(format!("{name}.md"));
    }
    assert!(pages.len() >= 8, "{pages:?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/providers");
    let files = folder
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().file_name());
    let files: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(files, pages);
}

#[test]
fn the_messages_that_the_symptoms_quote_are_those_of_the_programs() {
    let messages = joined_sources(&["src", "examples"]);
    let guide = read("src/guide/troubleshooting.md");
    let rows = column(&guide, "symptom");
    assert!(rows.len() > 50, "{} rows", rows.len());
    let mut checked = 0;
    for (row, cell) in rows {
        assert_eq!(row.split('|').count(), 5, "symptom, cause and cure: {row}");
        for message in quoted(cell).filter(|message| *message != "OPTIONS") {
            assert!(messages.contains(message), "no such message: {message}");
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn the_texts_of_refused_clients_that_the_guide_quotes_are_those_of_the_code() {
    let sources = joined_sources(&["src"]);
    let guide = read("src/guide/client_authentication.md");
    let mut checked = 0;
    for (row, cell) in column(&guide, "text") {
        // One text, between two backticks if it has a backtick.
        let text = cell.trim_matches('`').trim();
        assert!(cell.len() >= text.len() + 2, "no quoted text: {row}");
        // What differs from error to error.
        for part in text.split('…').map(str::trim) {
            let is_mark = part.chars().all(|c| !c.is_alphanumeric());
            // A text may go on with that of a variable.
            let is_continued = |at: usize| {
                let (start, rest) = part.split_at(at);
                sources.contains(&format!("{start}{{")) && sources.contains(&format!("\"{rest}"))
            };
            let is_found = sources.contains(part)
                || part.match_indices(' ').any(|(at, _)| is_continued(at + 1));
            assert!(is_mark || is_found, "no such text: {part}");
            checked += usize::from(!is_mark);
        }
    }
    assert!(checked >= 13, "{checked}");
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

/// An event or a span of the code, or a row of the guide about it.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Event {
    target: String,
    level: String,
    /// Of the code, what is the same each time and fits into a line. Of the guide, all of it.
    message: String,
}

impl Event {
    /// Whether this event of the code is that of the row.
    fn is_in(&self, row: &Self) -> bool {
        // The name of a span may be a word of a message.
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let is_message = match self.message.chars().all(is_name) {
            true => row.message == self.message,
            false => row.message.contains(&self.message),
        };
        is_message && (&self.target, &self.level) == (&row.target, &row.level)
    }
}

/// The message of an event or the name of a span is the first line that begins with a quotation mark.
fn events(sources: &str) -> BTreeSet<Event> {
    let macros = [
        ("warn!(", "warn"),
        ("error!(", "error"),
        ("debug!(", "debug"),
        ("instrument!(", "debug"),
        ("warn_of_plain_http!(", "warn"),
    ];
    let mut events = BTreeSet::new();
    for event in sources.split("trace::").skip(1) {
        let level = |(name, level)| Some((event.strip_prefix(name)?, level));
        let Some((rest, level)) = macros.into_iter().find_map(level) else {
            continue;
        };
        // The definition of a macro, which takes the message as a parameter.
        if rest.trim_start().starts_with("target: $") {
            continue;
        }
        let (_, target) = rest.split_once("target: \"").unwrap();
        let (target, rest) = target.split_once('"').unwrap();
        let mut lines = rest.lines().map(str::trim);
        let message = lines.find_map(|line| line.strip_prefix('"')).unwrap();
        // What is the same each time, and fits into this line.
        let (message, _) = message.split_once("(logged").unwrap_or((message, ""));
        let parts = message.split(['{', '}', '\\', '"', '`']);
        let longest = parts.max_by_key(|part| part.len()).unwrap();
        events.insert(Event {
            target: target.to_owned(),
            level: level.to_owned(),
            message: longest.trim().to_owned(),
        });
    }
    events
}

#[test]
fn the_guide_lists_all_events_and_spans_with_their_targets_and_levels() {
    let guide = read("src/guide/metrics.md");
    let cells = |name| column(&guide, name).into_iter().map(|(_, cell)| cell);
    let rows = cells("target")
        .zip(cells("level"))
        .zip(cells("event or span"));
    let rows: Vec<Event> = rows
        .map(|((target, level), message)| Event {
            target: quoted(target).collect(),
            level: level.to_owned(),
            message: quoted(message).collect(),
        })
        .collect();
    let events = events(&sources(&["src"]));
    for event in &events {
        assert!(rows.iter().any(|row| event.is_in(row)), "{event:?}");
    }
    for row in &rows {
        assert!(events.iter().any(|event| event.is_in(row)), "{row:?}");
    }
    assert!(events.len() > 15, "{events:?}");
}

/// The metric names in a text. A histogram is queried by its buckets and count.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_lowercase() && c != '_')
        .filter(|word| word.starts_with("tower_oauth_") && *word != "tower_oauth_")
        .map(|word| word.trim_end_matches("_bucket").trim_end_matches("_count"))
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
    for panel in panels {
        let is_row = panel.pointer("/type").is_some_and(|kind| kind == "row");
        let has_query = panel.pointer("/targets/0/expr").is_some();
        assert!(is_row || has_query, "{panel}");
    }
}

/// The ids of the headings of a page, as rustdoc makes them.
fn heading_ids(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("# "));
    let id = |heading: &str| {
        let words: String = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
            .collect();
        words.to_lowercase().replace(' ', "-")
    };
    headings.map(id).collect()
}

#[test]
fn each_alert_rule_uses_known_metrics_links_to_the_guide_and_is_explained_there() {
    let rules = read("examples/alert_rules.yml");
    let code = read("src/metrics.rs");
    assert!(metrics(&rules).is_subset(&metrics(&code)));
    let explained: BTreeSet<String> = column(&read("src/guide/metrics.md"), "alert")
        .into_iter()
        .flat_map(|(_, cell)| quoted(cell).map(str::to_owned))
        .collect();
    let ids = heading_ids(&read("src/guide/troubleshooting.md"));
    let mut alerts = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        let (_, link) = rule.split_once("runbook_url: ").unwrap();
        let link = link.lines().next().unwrap();
        let section = link
            .strip_prefix("https://docs.rs/tower-oauth/latest/tower_oauth/guide/troubleshooting/")
            .and_then(|path| path.strip_prefix("index.html#"));
        assert!(ids.contains(section.unwrap()), "{name}: {link}: {ids:?}");
        for part in ["expr", "severity", "summary", "description", "action"] {
            assert!(rule.contains(&format!("{part}: ")), "{name}: {part}");
        }
        alerts.insert(name.to_owned());
    }
    assert_eq!(alerts, explained);
    assert_eq!(alerts.len(), 5);
}
