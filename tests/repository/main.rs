//! The repository itself: its guide, its layers, and its public types.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod guide;
mod layering;
mod public_types;
