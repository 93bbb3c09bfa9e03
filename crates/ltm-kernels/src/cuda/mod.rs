//! CUDA: contexts, memory, compilation, capture, and the choice of rungs. Must not know any op.
//!
//! Building needs no CUDA toolkit: driver and compiler are loaded at run time, and if they are
//! missing the result is an [`Error::NoDevice`]. Without the feature `cuda` the same types exist
//! without values, so ops need no conditional compilation.

#[cfg(not(feature = "cuda"))]
mod absent;
mod architecture;
#[cfg(feature = "cuda")]
mod cache;
#[cfg(feature = "cuda")]
mod compile;
#[cfg(feature = "cuda")]
mod context;
#[cfg(feature = "cuda")]
mod driver;
#[cfg(feature = "cuda")]
mod graph;
#[cfg(feature = "cuda")]
mod image;
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "nothing launches"))]
mod launch;
#[cfg(feature = "cuda")]
mod memory;
#[cfg(feature = "cuda")]
#[expect(dead_code, reason = "a log is read after a failure alone")]
mod nvrtc;
#[cfg(feature = "cuda")]
mod pool;
#[cfg(feature = "cuda")]
mod side;
#[cfg(feature = "cuda")]
mod signature;
#[cfg(feature = "cuda")]
mod text;

use std::cell::Cell;

use crate::{DType, Error, Result};

#[cfg(not(feature = "cuda"))]
pub(crate) use absent::DeviceBuffer;
#[cfg(not(feature = "cuda"))]
pub use absent::{Context, Recording};
pub use architecture::Architecture;
#[cfg(feature = "cuda")]
pub use compile::compile;
#[cfg(feature = "cuda")]
pub use context::Context;
#[cfg(feature = "cuda")]
pub use graph::Recording;
#[cfg(feature = "cuda")]
pub use image::Image;
pub use launch::Geometry;
pub(crate) use launch::{Arg, MAX_ARGUMENTS};
#[cfg(feature = "cuda")]
pub(crate) use memory::DeviceBuffer;
#[cfg(feature = "cuda")]
pub use side::SideStream;

/// One rung of an op's ladder, and its `needs`: the lines of the kernel's contract, each with
/// whether the call at hand meets it.
pub(crate) struct Rung<'a>(pub u32, pub &'a [(&'static str, bool)]);

thread_local! {
    static FORCED: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Runs `body`; on CUDA, every op that it calls on this thread uses rung `rung`. Tests and benches
/// use it to reach rungs that production does not choose.
///
/// Inside `body`, an op without that rung, or with unmet `needs`, returns [`Error::Unsupported`].
pub fn with_rung<T>(rung: u32, body: impl FnOnce() -> T) -> T {
    struct Restore(Option<u32>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    let _restore = Restore(FORCED.replace(Some(rung)));
    body()
}

/// Chooses the rung to run: the one requested by [`with_rung`], otherwise the first of `rungs`
/// (fastest first) whose `needs` are all met.
pub(crate) fn choose(op: &'static str, rungs: &[Rung]) -> Result<u32> {
    let unmet = |rung: &Rung| rung.1.iter().find(|(_, holds)| !holds).map(|(need, _)| *need);
    let refuse = |rung, need| Err(Error::Unsupported { op, rung, need });
    match FORCED.get() {
        None => {
            let last = rungs.last().expect("an op has at least one rung");
            let rung = rungs.iter().find(|rung| unmet(rung).is_none());
            rung.map_or_else(|| refuse(last.0, unmet(last).unwrap_or_default()), |rung| Ok(rung.0))
        }
        Some(forced) => match rungs.iter().find(|rung| rung.0 == forced) {
            None => refuse(forced, "a rung of that number"),
            Some(rung) => unmet(rung).map_or(Ok(forced), |need| refuse(forced, need)),
        },
    }
}

/// Fails if no kernel supports this activation type; `f32` and `bf16` are supported.
pub(crate) fn check_activation(dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::BF16 => Ok(()),
        got => Err(Error::DType { expected: "f32 or bf16", got }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_rung_whose_needs_hold_is_taken() {
        fn choose_if(even: bool) -> Result<u32> {
            choose("op", &[Rung(2, &[("[P1] even", even)]), Rung(1, &[])])
        }
        assert_eq!(choose_if(true), Ok(2));
        assert_eq!(choose_if(false), Ok(1));
        assert_eq!(with_rung(1, || choose_if(true)), Ok(1));
        let refused = |rung, need| Err(Error::Unsupported { op: "op", rung, need });
        assert_eq!(with_rung(2, || choose_if(false)), refused(2, "[P1] even"));
        assert_eq!(with_rung(3, || choose_if(true)), refused(3, "a rung of that number"));
        assert_eq!(choose_if(true), Ok(2), "the force ends with its body");
    }
}
