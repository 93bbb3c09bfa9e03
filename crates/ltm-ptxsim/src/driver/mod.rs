//! The exported C functions of `libcuda.so.1`, implemented on the simulator.
//!
//! Built as a shared library under that name, it runs unchanged programs written for the CUDA
//! driver API. Work runs when it is submitted, in the order of submission; a capturing stream
//! records it instead. The driver must not know PTX: it passes programs, launches and bytes to the
//! rest of this crate, turns the outcome into a `CUresult`, and prints the reason for a failure on
//! stderr.
//!
//! Reading order: `ffi` wraps the C caller's pointers, `code` has the errors, `settings` the environment, `handle` the
//! tables of objects. Then come the objects, from what work runs on (`engine`) to contexts and libraries, and in `calls`
//! the exported functions, one file per chapter of the driver manual.
//!
//! Unlike on hardware, a launch waits for its kernel, so the launch itself returns a fault. As on
//! hardware, every later call in that context returns it too.

#![allow(unsafe_code, non_snake_case)]

/// Defines exported driver functions from bodies that return [`code::Outcome`], and `find`, which
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

        /// The address of the function named `name`, if it is in this file.
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

mod calls;
mod capture;
mod code;
mod context;
mod device;
mod engine;
mod event;
mod graph;
mod handle;
mod launch;
mod library;
mod module;
mod operation;
mod report;
mod settings;
mod stream;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use code::{Code, Outcome};
use settings::Log;

/// Runs the body of a driver function. Prints the reason for a failure on stderr, and stops a panic
/// from unwinding into C.
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

/// Prints one message on stderr in a single write, so that messages of several threads do not mix.
fn say(text: &str) {
    // If stderr is closed, nothing can be reported.
    let _ = std::io::stderr().write_all(format!("ptxsim: {text}\n").as_bytes());
}
