//! Panics of libraries that read files, as errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether a panic on this thread becomes an error, about which nothing is to be printed.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls a library that panics on some malformed files; such a panic becomes what was found in the file, without a message
/// on standard error.
pub(crate) fn guarded<T, E: std::fmt::Display>(
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !GUARDED.try_with(Cell::get).unwrap_or(false) {
                hook(info);
            }
        }));
    });
    GUARDED.set(true);
    // What a panic leaves half done is not used again.
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(false);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("content that is damaged ({})", message.as_deref().unwrap_or("no reason")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let error = guarded(|| -> Result<(), String> { panic!("at {}", 7) });
        assert_eq!(error, Err("content that is damaged (at 7)".into()));
        assert_eq!(guarded(|| Ok::<_, String>(3)), Ok(3));
    }
}
