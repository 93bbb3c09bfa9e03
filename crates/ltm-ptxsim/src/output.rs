//! Receives the text that kernels print.

use std::fmt;
use std::sync::Arc;

/// A sink for the text of a kernel's `printf`, called once per printing thread.
#[derive(Clone)]
pub struct Output(Arc<dyn Fn(&str) + Send + Sync>);

impl Output {
    /// Passes the text to this function, which may be called from several threads at once.
    pub fn new(print: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(print))
    }

    pub(crate) fn print(&self, text: &str) {
        (self.0)(text);
    }
}

impl Default for Output {
    /// Discards the text.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Output(…)")
    }
}
