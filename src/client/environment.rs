//! Variables that a platform sets for its workloads.

use std::ffi::OsString;

use crate::error::ConfigError;

/// The variable with this name, if it is set and not empty.
pub(super) fn optional(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The variable with this name. `hint` says why it may be absent.
pub(super) fn required(name: &str, hint: &str) -> Result<OsString, ConfigError> {
    optional(name).ok_or_else(|| ConfigError::missing(name, format!("is not set: {hint}")))
}

/// The text of a variable. It may be a secret, so the error does not show it.
pub(super) fn text(name: &str, value: OsString) -> Result<String, ConfigError> {
    value
        .into_string()
        .map_err(|_value| ConfigError::without_value(name, "must be valid UTF-8"))
}

/// The text of a variable that must be set.
pub(super) fn required_text(name: &str, hint: &str) -> Result<String, ConfigError> {
    text(name, required(name, hint)?)
}
