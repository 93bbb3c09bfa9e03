//! How two corpora differ. Knows no corpus.

use std::fmt;

/// One property in which two corpora differ. Displayed as `key: old → new`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The property, such as `tokenizer`, `storyworld.seed` or the name of a file.
    pub key: String,
    /// Its value in the first corpus.
    pub old: String,
    /// Its value in the second corpus.
    pub new: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.key, self.old, self.new)
    }
}

impl Difference {
    /// `None` where both values are equal.
    pub(super) fn of(key: &str, old: impl ToString, new: impl ToString) -> Option<Self> {
        let (old, new) = (old.to_string(), new.to_string());
        (old != new).then(|| Self { key: key.into(), old, new })
    }
}
