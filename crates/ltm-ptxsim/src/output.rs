//! Where the text goes that kernels print.

use std::fmt;
use std::sync::Arc;

/// Takes the text of a kernel's `printf`, one call per thread that prints.
#[derive(Clone)]
pub struct Output(Arc<dyn Fn(&str) + Send + Sync>);

impl Output {
    /// Text goes to this function, which may be called from several threads at once.
    pub fn new(print: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(print))
    }

    pub(crate) fn print(&self, text: &str) {
        (self.0)(text);
    }
}

impl Default for Output {
    /// Text goes nowhere.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Output(…)")
    }
}
