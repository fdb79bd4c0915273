//! SHA-256 as an array, to be compared and to be a key.

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

pub(super) type Hash = [u8; SHA256_OUTPUT_LEN];

pub(super) fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
