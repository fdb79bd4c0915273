//! Reading of settings from files and variables, for both ends.
//!
//! The functions are for `#[serde(deserialize_with = …)]`. They take what a value can be in a file,
//! and what a configuration library makes of a variable: a text that looks like a number may arrive
//! as a number, and a number as a text. No error shows the value of a text, which may be a secret.

mod list;
mod map;
mod provider;
mod scalar;
mod value;

pub(crate) use self::list::{by_commas, by_spaces};
pub(crate) use self::map::{required_claims, secrets, table};
pub(crate) use self::provider::{Provider, ProviderFields};
pub(crate) use self::scalar::{choice, flag, number, positive, secret, text};
