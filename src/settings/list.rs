//! Settings with several values: an array, or one text with all of them.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::{Deserialize as _, Deserializer, Error};

use super::value::OneOrMany;

/// Values in an array, or in a text with commas. White space around a value in a text is dropped.
pub(crate) fn by_commas<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    list(deserializer, |text| {
        text.split(',').map(str::trim).collect()
    })
}

/// Values in an array, or in a text with spaces.
pub(crate) fn by_spaces<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    list(deserializer, |text| match text.trim() {
        // An empty value, which is an error: it must not mean that no scope is required.
        "" => vec![""],
        text => text.split_ascii_whitespace().collect(),
    })
}

fn list<'de, D, T>(
    deserializer: D,
    split: fn(&str) -> Vec<&str>,
) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let parse = |value: &str| match value {
        "" => Err(D::Error::custom("must not have an empty value")),
        value => value.parse().map_err(D::Error::custom),
    };
    let values: Result<_, _> = match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => split(&text).into_iter().map(parse).collect(),
        OneOrMany::Many(texts) => texts.iter().map(|text| parse(text)).collect(),
    };
    values.map(Some)
}
