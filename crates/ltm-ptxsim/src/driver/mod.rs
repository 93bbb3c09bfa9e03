//! The C side: the functions of `libcuda.so.1`, over the simulator.
//!
//! Built as a shared library under that name, it runs a program written for the CUDA driver API
//! unchanged. Work runs when it is submitted, in the order of submission; a stream that captures
//! records it instead. What it must not know is PTX: it hands programs, launches and bytes to the
//! rest of this crate and turns what comes back into a `CUresult`, with the reason on stderr.
//!
//! Files: `ffi` the C caller's pointers, `error` codes, `settings` the environment, `state`
//! handles, then one file for each chapter of the driver manual.
//!
//! Unlike hardware, a launch waits for its kernel, so a fault is already the launch's own result;
//! from then on every call of that context returns it, as on hardware.

#![allow(unsafe_code, non_snake_case)]

/// Defines exported driver functions from bodies that return [`error::Outcome`], and `find`, which
/// resolves the same names for `cuGetProcAddress`.
macro_rules! driver_functions {
    ($(fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)*) => {
        $(
            // SAFETY: the name is the CUDA driver's, which this library stands in for; nothing else
            // in this crate defines it.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $kind),*) -> u32 {
                $crate::driver::answer(stringify!($name), || {
                    $body
                })
            }
        )*

        /// The address of the function of that name, if this chapter has it.
        pub(super) fn find(name: &str) -> Option<usize> {
            $(
                if name == stringify!($name) {
                    return Some($name as *const () as usize);
                }
            )*
            None
        }
    };
}

mod ffi;

mod capture;
mod context;
mod device;
mod error;
mod event;
mod graph;
mod launch;
mod library;
mod memory;
mod module;
mod occupancy;
mod operation;
mod report;
mod settings;
mod state;
mod stream;
mod symbols;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use error::{Code, Outcome};
use settings::Log;

/// Runs the body of a driver function: prints on stderr why it failed, and lets no panic cross into
/// C.
fn answer(name: &str, body: impl FnOnce() -> Outcome<()>) -> u32 {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        Err(Code::Unknown.because("the simulator itself failed; its panic message is above"))
    });
    let (number, result) = match &outcome {
        Ok(()) => (0, "CUDA_SUCCESS"),
        Err(failure) => (failure.code as u32, failure.code.name()),
    };
    let log = settings::log();
    if log == Log::Calls {
        say(&format!("{name} -> {result}"));
    }
    if let Err(failure) = outcome
        && let Some(story) = failure.story
        && log >= if failure.is_probe { Log::Failures } else { Log::Errors }
    {
        say(&format!("{name}: {result}: {story}"));
    }
    number
}

/// One line (or one fault report) on stderr in one write, so that threads do not mix.
fn say(text: &str) {
    // Where stderr is closed, nothing can be reported.
    let _ = std::io::stderr().write_all(format!("ptxsim: {text}\n").as_bytes());
}
