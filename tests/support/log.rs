//! What is logged while a token is judged, at TRACE, by this crate and all that it uses.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;

use serde_json::Value;

thread_local!(static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });

/// Each test judges on its own thread.
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

/// Begins to listen, and forgets what was heard before.
pub fn forget() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(|| ThisThread);
        let _another_one_listens_already = subscriber.try_init();
    });
    LOGGED.with_borrow_mut(Vec::clear);
}

/// Whether this was logged since.
pub fn heard(words: &str) -> bool {
    LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).contains(words))
}

/// Row 44: neither the token, nor a part of it, nor the key is in what was logged since.
#[track_caller]
pub fn holds_nothing_of(token: &str, key: &Value) {
    let logged = LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).into_owned());
    // Shorter ones occur by chance.
    let parts = std::iter::once(token).chain(token.split('.')).filter(|part| part.len() >= 12);
    for secret in parts.chain(key["n"].as_str()) {
        assert!(!logged.contains(secret), "logged: {logged}");
    }
    assert!(!logged.contains("eyJ"), "logged: {logged}");
}
