//! What is logged while a token is judged, at TRACE, by this crate and all that it uses.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Once;

use serde_json::Value;

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SECRETS: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Each test judges on its own thread, and fetches there, too.
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

/// Begins to listen.
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

/// Begins to listen, and forgets what was heard before.
pub fn clear_log() {
    capture();
    LOGGED.with_borrow_mut(Vec::clear);
}

/// Whether this was logged since.
pub fn logged(words: &str) -> bool {
    LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).contains(words))
}

/// How many lines with these words were logged since.
pub fn count(words: &str) -> usize {
    LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).matches(words).count())
}

/// Notes what of a document that is served must not be in a log: the numbers of its keys, public
/// ones too, and what stands before the host of a URL.
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

/// Notes what must not be in a log. Shorter words occur by chance.
pub fn register_secret_text(secret: &str) {
    if secret.len() >= 8 {
        SECRETS.with_borrow_mut(|secrets| secrets.insert(secret.to_owned()));
    }
}

/// Row 44: neither the token, nor a part of it, nor anything that was to be kept secret is in what
/// was logged since.
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
