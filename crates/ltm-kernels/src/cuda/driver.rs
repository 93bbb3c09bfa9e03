//! What every call of the driver shares: its errors, and the locks around it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::result::DriverError;

use crate::{Error, Result};

/// Locks a mutex, ignoring poisoning: every update here is a single step, so the content is always
/// consistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Converts a driver error, naming the call that failed.
pub(super) fn check<T>(call: &str, outcome: std::result::Result<T, DriverError>) -> Result<T> {
    outcome.map_err(|e| Error::Cuda { call: call.into(), reason: describe(e) })
}

/// The driver's error text, such as `CUDA_ERROR_INVALID_VALUE: invalid argument`.
pub(super) fn describe(error: DriverError) -> String {
    let text = |words: std::result::Result<&std::ffi::CStr, _>| {
        words.map_or_else(|_: DriverError| format!("{:?}", error.0), |w| w.to_string_lossy().into())
    };
    format!("{}: {}", text(error.error_name()), text(error.error_string()))
}
