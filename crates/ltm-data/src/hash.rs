//! SHA-256 as text. Knows no files.

use sha2::{Digest, Sha256};

/// The first digits of a hash, enough to tell two apart.
pub(crate) fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

/// SHA-256 in lower-case hexadecimal digits, as `sha256sum` prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// The digits of a finished hash.
pub(crate) fn hex(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())
}
