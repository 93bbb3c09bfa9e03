//! The parts of a corpus. Knows no files.

/// What a part of a corpus is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training.
    Train,
    /// Validation.
    Val,
}

impl Split {
    /// Both, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Train, Self::Val];
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
        })
    }
}
