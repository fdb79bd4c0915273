//! Checks which part of the crate may import which, and which file may use which dependency.
//!
//! Reads the sources; test modules, comments and strings do not count. A new file or import that
//! breaks a rule is a decision: change the code, or change the table and explain why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The parts of the crate that a file may import, by the longest matching prefix of its path.
const IMPORTS: &[(&str, &[&str])] = &[
    (
        "app_id/",
        &[
            "backoff",
            "clock",
            "error",
            "metadata",
            "oauth",
            "redact",
            "secret_file",
            "trace",
            "transport",
        ],
    ),
    // The exchange of an API key is a token request.
    (
        "app_id/iam.rs",
        &["client", "clock", "error", "oauth", "transport"],
    ),
    ("app_id/on_demand.rs", &["client", "clock", "error"]),
    // Wiring: from a binding to both ends.
    (
        "app_id/wiring.rs",
        &["client", "error", "oauth", "resource_server"],
    ),
    (
        "authorization_server/",
        &[
            "app_id",
            "client",
            "clock",
            "error",
            "jwt",
            "key_set",
            "oauth",
            "transport",
        ],
    ),
    (
        "authorization_server/dashboard/",
        &["client", "clock", "error", "resource_server", "transport"],
    ),
    ("backoff.rs", &[]),
    ("bounded_map.rs", &[]),
    (
        "client/",
        &[
            "backoff",
            "clock",
            "error",
            "inbound_token",
            "jwt",
            "log_limit",
            "metadata",
            "metrics",
            "oauth",
            "redact",
            "secret_file",
            "single_flight",
            "timer",
            "trace",
            "transport",
        ],
    ),
    // Assertions are read and sent. What is in them, and their signatures, is of `jwt`.
    ("client/assertion.rs", &["error", "text"]),
    ("client/assertion_audience.rs", &["error", "oauth", "text"]),
    ("client/assertion_file.rs", &["error", "secret_file"]),
    ("client/assertion_source.rs", &["error"]),
    ("client/authentication.rs", &["error"]),
    ("client/client_assertion.rs", &["error"]),
    ("client/azure.rs", &["error", "provider"]),
    ("client/environment.rs", &["error"]),
    (
        "client/google_service_account.rs",
        &["error", "jwt", "oauth"],
    ),
    ("client/grant.rs", &["error"]),
    ("client/jwt_bearer.rs", &["error"]),
    (
        "client/token_exchange/cache.rs",
        &["clock", "error", "inbound_token"],
    ),
    ("client/parameters.rs", &["error", "oauth"]),
    ("client/presets.rs", &["error", "oauth", "provider"]),
    ("client/private_key_jwt.rs", &["error", "jwt"]),
    (
        "client/response_reader.rs",
        &["clock", "error", "oauth", "redact", "transport"],
    ),
    ("client/signing_key.rs", &["error", "jwt", "secret_file"]),
    (
        "client/token_request.rs",
        &["clock", "error", "oauth", "redact"],
    ),
    ("client/token_response.rs", &["error", "oauth"]),
    ("client/token_source.rs", &["error"]),
    (
        "client/targets.rs",
        &["clock", "log_limit", "oauth", "trace"],
    ),
    ("client/renewal/schedule.rs", &["backoff"]),
    // With the algorithm of a signing key.
    (
        "client/settings/mod.rs",
        &["error", "jwt", "oauth", "settings"],
    ),
    // And the transport with a client certificate.
    (
        "client/settings/authentication.rs",
        &["client", "error", "jwt", "settings", "transport"],
    ),
    ("clock.rs", &[]),
    ("error.rs", &["clock", "redact"]),
    ("guide/", &[]),
    ("inbound_token.rs", &["clock"]),
    ("jwt/", &["clock", "oauth", "pem", "text"]),
    (
        "key_set/",
        &[
            "backoff",
            "clock",
            "error",
            "jwt",
            "metadata",
            "metrics",
            "oauth",
            "single_flight",
            "timer",
            "trace",
            "transport",
        ],
    ),
    ("key_set/rate_limit.rs", &[]),
    ("key_set/cache_control.rs", &["clock"]),
    ("key_set/jwk.rs", &["jwt"]),
    ("key_set/jwk_set.rs", &["error", "jwt"]),
    ("key_set/mod.rs", &[]),
    ("key_set/set.rs", &["jwt"]),
    ("key_set/schedule.rs", &["backoff"]),
    ("metadata.rs", &["clock", "error", "oauth", "transport"]),
    ("log_limit.rs", &["clock"]),
    ("metrics.rs", &[]),
    ("oauth/", &["error"]),
    ("pem.rs", &[]),
    ("provider.rs", &["error", "oauth"]),
    ("redact.rs", &[]),
    (
        "resource_server/",
        &[
            "bounded_map",
            "clock",
            "error",
            "inbound_token",
            "jwt",
            "key_set",
            "log_limit",
            "metrics",
            "oauth",
            "text",
            "trace",
        ],
    ),
    (
        "resource_server/claim_rules.rs",
        &["error", "jwt", "oauth", "text"],
    ),
    (
        "resource_server/presets.rs",
        &["error", "jwt", "oauth", "provider"],
    ),
    // The settings of an issuer, its transport among them.
    (
        "resource_server/trusted_issuer.rs",
        &["clock", "error", "jwt", "key_set", "oauth", "transport"],
    ),
    // Wiring: where a key set gets its transport.
    (
        "resource_server/builder.rs",
        &[
            "clock",
            "error",
            "jwt",
            "key_set",
            "log_limit",
            "metadata",
            "metrics",
            "oauth",
            "trace",
            "transport",
        ],
    ),
    (
        "resource_server/settings/",
        &["error", "jwt", "key_set", "oauth", "settings"],
    ),
    ("secret_file.rs", &[]),
    ("settings/", &["error"]),
    ("single_flight.rs", &["timer"]),
    ("text.rs", &["clock", "redact"]),
    ("timer.rs", &[]),
    ("trace.rs", &[]),
    ("transport/", &["clock", "error", "oauth"]),
    (
        "transport/client_certificate.rs",
        &["error", "pem", "secret_file", "trace"],
    ),
];

/// Built on the public API: they may use all that `lib.rs` exports, by its public name.
const ON_THE_PUBLIC_API: &[&str] = &["app_id/", "authorization_server/"];

/// The parts of which `app_id/` may import only what they export to users: no vendor is known to
/// them.
const PUBLIC_TO_APP_ID: &[&str] = &["client", "key_set", "resource_server"];

/// The only files that may use a dependency, or one of its functions.
const NAMES: &[(&str, &[&str])] = &[
    ("SystemTime::now", &["clock.rs"]),
    // The clock, opening without waiting, and the user of the process, which must own the state
    // file.
    (
        "rustix",
        &[
            "authorization_server/state_file.rs",
            "clock.rs",
            "secret_file.rs",
        ],
    ),
    (
        "aws_lc_rs",
        &[
            "jwt/certificate.rs",
            "jwt/signing.rs",
            "jwt/verification_key.rs",
            "authorization_server/",
            "client/token_exchange/cache.rs",
            "resource_server/token_cache/digest.rs",
        ],
    ),
    ("axum", &["authorization_server/"]),
    (
        "axum_core",
        &["resource_server/extractor.rs", "resource_server/scoped.rs"],
    ),
    ("maud", &["authorization_server/dashboard/"]),
    ("papaya", &["bounded_map.rs"]),
    ("pem_rfc7468", &["pem.rs"]),
    ("polymur_hash", &["resource_server/token_cache/digest.rs"]),
    // The oracle of the tests.
    ("jsonwebtoken", &[]),
    ("::metrics", &["metrics.rs"]),
    (
        "reqwest",
        &[
            "client/reqwest_body.rs",
            "client/reqwest_middleware.rs",
            "transport/client_certificate.rs",
            "transport/reqwest.rs",
        ],
    ),
    ("reqwest_middleware", &["client/reqwest_middleware.rs"]),
    (
        "rustls",
        &["transport/client_certificate.rs", "transport/reqwest.rs"],
    ),
    (
        "tokio::spawn",
        &["resource_server/builder.rs", "authorization_server/"],
    ),
    ("tracing", &["trace.rs"]),
];

/// Pure: `now` is an argument, and nothing is fetched, locked, awaited or logged.
const PURE: &[&str] = &[
    "backoff.rs",
    "client/renewal/schedule.rs",
    "client/clone_body.rs",
    "client/parameters.rs",
    "client/response_reader.rs",
    "client/token_request.rs",
    "client/token_response.rs",
    "client/token_exchange/cache.rs",
    "jwt/",
    "key_set/rate_limit.rs",
    "key_set/cache_control.rs",
    "key_set/jwk.rs",
    "key_set/jwk_set.rs",
    "key_set/mod.rs",
    "key_set/schedule.rs",
    "oauth/",
    "pem.rs",
    "provider.rs",
];
const IMPURE: &[&str] = &[
    "Instant::now",
    "Mutex",
    "RwLock",
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "std::fs",
    "std::thread",
    "tokio",
];

#[test]
fn imports_follow_the_layering() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let exports = exports(&code(&read(&root.join("lib.rs"))));
    let mut broken = Vec::new();
    for file in files(&root) {
        let name = file
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        if matches!(name.as_str(), "lib.rs" | "vectors.rs") {
            continue;
        }
        let found = paths(&code(&read(&file)));
        check(&name, &found, &exports, &mut broken);
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The part of the crate that a path of `file` names.
fn part_of<'p>(path: &'p str, exports: &'p [(String, String)]) -> Option<&'p str> {
    let part = path.strip_prefix("crate::")?.split("::").next()?;
    let exported = exports.iter().find(|(name, _)| name == part);
    Some(exported.map_or(part, |(_, part)| part))
}

/// The parts of the crate, with the parts that each imports.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let exports = exports(&code(&read(&root.join("lib.rs"))));
    let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
    for file in files(&root) {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let own = name.split(['/', '\\', '.']).next().unwrap();
        let found = paths(&code(&read(&file)));
        let found = found.iter().map(|(_, path)| from_root(name, path));
        let parts: Vec<String> = found
            .filter_map(|path| part_of(&path, &exports).map(str::to_owned))
            .filter(|part| part != own)
            .collect();
        imports.entry(own.to_owned()).or_default().extend(parts);
    }
    imports.remove("lib");
    imports
}

#[test]
fn the_parts_of_the_crate_do_not_import_each_other_in_a_cycle() {
    let imports = imports();
    assert!(imports["client"].contains("error"), "{imports:?}");
    assert_eq!(cycle(imports), BTreeMap::new());
}

#[test]
fn the_module_map_of_the_guide_is_that_of_the_imports() {
    let guide = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/architecture.md"));
    let quoted = |text: &str| -> Vec<String> {
        let names = text.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    let (_, map) = guide.split_once("\n# Module map\n").unwrap();
    let (text, table) = map
        .split_once("| part | imports |\n| --- | --- |\n")
        .unwrap();
    let table = table.lines().take_while(|line| line.starts_with('|'));
    let mut shown = BTreeMap::<String, BTreeSet<String>>::new();
    let mut above = BTreeSet::new();
    let text = text.replace('\n', " ");
    let (_, without) = text.split_once("Parts without imports:").unwrap();
    for part in quoted(without.split('.').next().unwrap()) {
        above.insert(part.clone());
        shown.insert(part, BTreeSet::new());
    }
    for row in table {
        let mut parts = quoted(row).into_iter();
        let part = parts.next().unwrap();
        let targets: BTreeSet<String> = parts.collect();
        assert!(targets.is_subset(&above), "{part} imports a part below it");
        above.insert(part.clone());
        assert_eq!(shown.insert(part, targets), None, "{row}: a second row");
    }
    let mut imports = imports();
    // Tests.
    imports.remove("vectors");
    assert_eq!(shown, imports);
}

#[test]
fn a_cycle_of_imports_is_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in edges {
            graph
                .entry((*from).into())
                .or_default()
                .insert((*to).into());
        }
        graph
    };
    let straight = [("a", "b"), ("b", "c"), ("a", "c")];
    assert!(cycle(graph(&straight)).is_empty());
    let round = [("a", "b"), ("b", "c"), ("c", "b")];
    assert_eq!(cycle(graph(&round)), graph(&round));
}

/// Removes the parts that import no part that is left, again and again. Without a cycle none stays.
fn cycle(mut imports: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let left = imports.len();
        let parts: BTreeSet<String> = imports.keys().cloned().collect();
        imports.retain(|_, targets| !targets.is_disjoint(&parts));
        if imports.len() == left {
            return imports;
        }
    }
}

fn check(
    file: &str,
    found: &[(usize, String)],
    exports: &[(String, String)],
    broken: &mut Vec<String>,
) {
    let rule = IMPORTS
        .iter()
        .filter(|(start, _)| file.starts_with(start))
        .max_by_key(|(start, _)| start.len());
    let Some((_, allowed)) = rule else {
        broken.push(format!("src/{file}: has no rule in IMPORTS"));
        return;
    };
    let own = file.split(['/', '.']).next().unwrap();
    let is_in = |list: &[&str]| list.iter().any(|start| file.starts_with(start));
    for (line, path) in found {
        let path = &from_root(file, path);
        let mut breaks = |rule: &str| broken.push(format!("src/{file}:{line}: `{path}`: {rule}"));
        if let Some(target) = part_of(path, exports) {
            let is_exported = |(name, _): &(String, _)| path.split("::").nth(1) == Some(name);
            let public = exports.iter().any(is_exported) && is_in(ON_THE_PUBLIC_API);
            if target != own && !public && !allowed.contains(&target) {
                breaks(&format!("imports {target}, IMPORTS allows {allowed:?}"));
            }
        }
        for (dependency, files) in NAMES {
            if names(path, dependency) && !is_in(files) {
                breaks(&format!("only {files:?} may name {dependency}"));
            }
        }
        if is_in(PURE) && IMPURE.iter().any(|impure| names(path, impure)) {
            breaks("the file is to be pure");
        }
    }
}

/// A path of `file` that starts with `super::` up to the root, as one that starts with `crate::`.
fn from_root(file: &str, path: &str) -> String {
    let depth = file.split('/').filter(|part| *part != "mod.rs").count();
    let path_in_root = path.strip_prefix(&"super::".repeat(depth));
    path_in_root.map_or_else(|| path.to_owned(), |path| format!("crate::{path}"))
}

#[test]
fn app_id_uses_the_public_api_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let public: Vec<(&str, Vec<String>)> = PUBLIC_TO_APP_ID
        .iter()
        .map(|part| {
            (
                *part,
                public_names(&code(&read(&root.join(part).join("mod.rs")))),
            )
        })
        .collect();
    assert!(
        public.iter().all(|(_, names)| names.len() > 3),
        "{public:?}"
    );
    let mut broken = Vec::new();
    let mut checked = 0;
    for file in files(&root.join("app_id")) {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let found = paths(&code(&read(&file)));
        checked += check_public(name, &found, &public, &mut broken);
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    assert!(checked > 3, "{checked} imports");
}

/// Checks the imports from these parts, and returns their number.
fn check_public(
    file: &str,
    found: &[(usize, String)],
    public: &[(&str, Vec<String>)],
    broken: &mut Vec<String>,
) -> usize {
    let mut checked = 0;
    for (line, path) in found {
        let path = from_root(file, path);
        let mut segments = path.split("::");
        let part = segments.nth(1).filter(|_| path.starts_with("crate::"));
        let names = public.iter().find(|(name, _)| part == Some(name));
        let Some((_, names)) = names else { continue };
        checked += 1;
        // Neither a glob nor the module itself, through which any name can be reached.
        let name = segments.next().unwrap_or_default();
        if !names.iter().any(|public| public == name) {
            broken.push(format!("src/{file}:{line}: `{path}` is not public"));
        }
    }
    checked
}

/// The names that `pub use path::{…}` exports.
fn public_names(module: &str) -> Vec<String> {
    let statements = module.split("pub use ").skip(1);
    let statements = statements.filter_map(|statement| statement.split(';').next());
    let names = statements.flat_map(|statement| {
        let names = statement.split_once('{').map(|(_, names)| names);
        let names = names.or_else(|| statement.rsplit("::").next());
        names
            .unwrap_or_default()
            .split(|c: char| !c.is_alphanumeric() && c != '_')
    });
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_private_import_of_app_id_is_reported() {
    let module = "pub use self::a::{Public, Other};\npub(crate) use self::a::Hidden;\n\
                  pub use self::b::Single;\n";
    assert_eq!(public_names(module), ["Public", "Other", "Single"]);
    let public = [("client", public_names(module))];
    let source = "use crate::client::{Public, Hidden};\nuse crate::client;\n\
                  use crate::client::*;\nuse super::super::client::Single;\n\
                  use super::super::client::a::Other;\nfn f() { crate::client::Public::new() }\n\
                  use crate::oauth::Hidden;\n";
    let mut broken = Vec::new();
    let found = paths(&code(source));
    assert_eq!(
        check_public("app_id/wiring.rs", &found, &public, &mut broken),
        7
    );
    let lines: Vec<&str> = broken
        .iter()
        .filter_map(|line| line.split(": ").next())
        .collect();
    let expected = [1, 2, 3, 5].map(|line| format!("src/app_id/wiring.rs:{line}"));
    assert_eq!(lines, expected, "{broken:#?}");
}

/// Whether a path starts with a dependency, or contains a type or its function.
fn names(path: &str, what: &str) -> bool {
    let path = path.trim_start_matches("::");
    let starts = path == what || path.starts_with(&format!("{what}::"));
    starts
        || what.starts_with(char::is_uppercase)
            && format!("::{path}::").contains(&format!("::{what}::"))
}

/// The names that `pub use self::part::{…}` in `lib.rs` exports, with their part.
fn exports(lib: &str) -> Vec<(String, String)> {
    let mut exports = Vec::new();
    for statement in lib.split("pub use self::").skip(1) {
        let statement = statement.split(';').next().unwrap();
        let (part, names) = statement.split_once("::").unwrap();
        let words = names.split(|c: char| !c.is_alphanumeric() && c != '_');
        exports.extend(
            words
                .filter(|word| !word.is_empty())
                .map(|word| (word.into(), part.into())),
        );
    }
    exports
}

/// Every path and identifier with its line. The members of `crate::{…}` and the like are returned
/// as full paths, nested ones included.
fn paths(code: &str) -> Vec<(usize, String)> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let (mut found, mut prefixes, mut open) = (Vec::new(), vec![String::new()], None);
    for (line, text) in code.lines().enumerate() {
        let mut rest = text;
        let mut importing = false;
        while let Some(first) = rest.chars().next() {
            if !is_path(first) {
                match first {
                    '{' => prefixes.push(open.take().unwrap_or_default()),
                    '}' => drop(prefixes.pop()),
                    _ => {}
                }
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let end = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
            let prefix = prefixes.last().map_or("", String::as_str);
            let path = format!("{prefix}{}", &rest[..end]);
            // `use x;` and `x::y` name a crate; any other single identifier is a local name.
            rest = &rest[end..];
            open = (path.ends_with("::") && rest.starts_with('{')).then(|| path.clone());
            let lone = !path.contains("::") && !importing && !path.starts_with(char::is_uppercase);
            if open.is_none() && !lone {
                found.push((line + 1, path.clone()));
            }
            importing = path == "use";
        }
    }
    found
}

/// The source without test module, comments and strings; line numbers are kept.
fn code(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut code = String::new();
    for line in source.lines() {
        let line = if line.trim_start().starts_with("//") {
            ""
        } else {
            line
        };
        let line = line.split(" // ").next().unwrap();
        code.extend(
            line.replace("\\\"", "")
                .split('"')
                .step_by(2)
                .flat_map(|piece| [piece, " "]),
        );
        code.push('\n');
    }
    code
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_violation_is_reported_with_file_and_line() {
    let source = "//! x\nuse crate::clock::{UnixTime, Clock};\nuse crate::{\n    Issuer,\n    client::{A, B},\n};\n\
                  // use crate::app_id;\nfn f() { let a = \"crate::app_id\"; tokio::time::sleep(x) }\n\
                  use jsonwebtoken as j;\nuse super::super::client::*;\n";
    let exports =
        exports("pub use self::oauth::{Audience, Issuer};\npub use self::clock::UnixTime;\n");
    let mut broken = Vec::new();
    check(
        "jwt/claims.rs",
        &paths(&code(source)),
        &exports,
        &mut broken,
    );
    let found_at: Vec<&str> = broken
        .iter()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    let lines = [5, 5, 8, 9, 10].map(|line| format!("src/jwt/claims.rs:{line}"));
    assert_eq!(found_at, lines, "{broken:#?}");
}
