//! Captures the log of token validation at TRACE, by this crate and its dependencies.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Once;

use serde_json::Value;

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SECRETS: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Each test validates and fetches on one thread.
struct ThisThread;

impl Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Installs the capturing subscriber.
pub fn capture() {
    static CAPTURING: Once = Once::new();
    CAPTURING.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(|| ThisThread);
        let _already_initialized = subscriber.try_init();
    });
}

/// Installs the capturing subscriber and clears the log of this thread.
pub fn clear_log() {
    capture();
    LOGGED.with_borrow_mut(Vec::clear);
}

/// Whether this text was logged since.
pub fn logged(text: &str) -> bool {
    LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).contains(text))
}

/// The lines that were logged since and contain this text.
pub fn lines(text: &str) -> Vec<String> {
    LOGGED.with_borrow(|logged| {
        let logged = String::from_utf8_lossy(logged);
        let lines = logged.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    })
}

/// The number of occurrences of this text in the log since.
pub fn count(text: &str) -> usize {
    LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).matches(text).count())
}

/// Registers the parts of a served document that must not be logged: the parameters of its keys,
/// public ones too, and the user information of a URL.
pub fn register_secret(document: &Value) {
    match document {
        Value::Object(members) => {
            for (name, value) in members {
                let numbers = ["d", "p", "q", "dp", "dq", "qi", "k", "n", "x", "y"];
                if let (true, Some(number)) = (numbers.contains(&name.as_str()), value.as_str()) {
                    register_secret_text(number);
                }
                register_secret(value);
            }
        }
        Value::Array(members) => members.iter().for_each(register_secret),
        Value::String(text) => {
            if let Some((user, _)) = text
                .split_once("://")
                .and_then(|(_, rest)| rest.split_once('@'))
            {
                user.split(':').for_each(register_secret_text);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Registers a text that must not be logged. Shorter ones occur by chance.
pub fn register_secret_text(secret: &str) {
    if secret.len() >= 8 {
        SECRETS.with_borrow_mut(|secrets| secrets.insert(secret.to_owned()));
    }
}

/// Asserts that neither the token, nor a segment of it, nor a registered secret was logged since.
#[track_caller]
pub fn assert_not_logged(token: &str) {
    let logged = LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).into_owned());
    // Shorter ones occur by chance.
    for part in std::iter::once(token)
        .chain(token.split('.'))
        .filter(|part| part.len() >= 12)
    {
        assert!(!logged.contains(part), "logged: {logged}");
    }
    SECRETS.with_borrow(|secrets| {
        for secret in secrets {
            assert!(!logged.contains(secret), "logged: {secret} in {logged}");
        }
    });
    assert!(!logged.contains("eyJ"), "logged: {logged}");
}
