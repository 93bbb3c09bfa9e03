//! The error of text that the simulator cannot load.

use std::fmt;

/// PTX that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line of the PTX, from 1.
    pub line: u32,
    /// The offending text, shortened.
    pub text: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.reason)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": `{}`", self.text) }
    }
}

impl std::error::Error for ParseError {}
