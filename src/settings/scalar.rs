//! Settings with one value.

use std::fmt::Display;
use std::num::NonZeroU64;
use std::str::FromStr;

use secrecy::SecretString;
use serde::de::{Deserialize as _, Deserializer, Error};

use super::value::Text;

/// A text that is not empty.
pub(crate) fn text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let Text(text) = Text::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(D::Error::custom("must not be empty"));
    }
    text.parse().map(Some).map_err(D::Error::custom)
}

/// A secret that is not empty. No error shows it.
pub(crate) fn secret<'de, D>(deserializer: D) -> Result<Option<SecretString>, D::Error>
where
    D: Deserializer<'de>,
{
    let secret: Option<String> = text(deserializer)?;
    Ok(secret.map(SecretString::from))
}

/// One of these values, by its name.
pub(crate) fn choice<'de, D, T: Copy>(
    deserializer: D,
    choices: &[(&str, T)],
) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
{
    let Text(text) = Text::deserialize(deserializer)?;
    let choice = choices.iter().find(|(name, _)| *name == text);
    choice.map(|(_, value)| Some(*value)).ok_or_else(|| {
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        D::Error::custom(format!("must be {}", names.join(" or ")))
    })
}

/// `true` or `false`, as a boolean or a text.
pub(crate) fn flag<'de, D>(deserializer: D) -> Result<Option<bool>, D::Error>
where
    D: Deserializer<'de>,
{
    choice(deserializer, &[("true", true), ("false", false)])
}

/// A whole number, as a number or a text.
pub(crate) fn number<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let Text(text) = Text::deserialize(deserializer)?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(D::Error::custom("must be a whole number"));
    }
    let number = text.parse().ok();
    let number = number.and_then(|number: u64| T::try_from(number).ok());
    number
        .map(Some)
        .ok_or_else(|| D::Error::custom("is too large"))
}

/// A whole number of at least 1, as a number or a text.
pub(crate) fn positive<'de, D>(deserializer: D) -> Result<Option<NonZeroU64>, D::Error>
where
    D: Deserializer<'de>,
{
    let number = number(deserializer)?.and_then(NonZeroU64::new);
    number
        .map(Some)
        .ok_or_else(|| D::Error::custom("must be at least 1"))
}
