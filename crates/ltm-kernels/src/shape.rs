//! Shape checks and operation counts that all ops share. Must not know any op.

use crate::{Error, Result};

/// The work of one op call, computed from its dims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts two.
    pub flops: u64,
    /// Bytes moved if each element is read or written once, at 4 bytes per element: the minimum for
    /// a call.
    pub bytes: u64,
}

impl Cost {
    /// `flops` operations over `elements` elements read or written.
    pub(crate) fn new(flops: usize, elements: usize) -> Self {
        Self { flops: flops as u64, bytes: 4 * elements as u64 }
    }
}

/// Fails if a buffer's length differs from what the dims require.
pub(crate) fn check_len(
    op: &'static str,
    arg: &'static str,
    got: usize,
    expected: usize,
) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Shape { op, arg, expected, got }) }
}

/// Fails unless a condition on the dims holds: `check_dims("op", n > 0, || "n is 0, …".into())`.
pub(crate) fn check_dims(
    op: &'static str,
    holds: bool,
    reason: impl FnOnce() -> String,
) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Dims { op, reason: reason() }) }
}

/// Fails if an extent is 0 or the product exceeds the address space (at 8 bytes per element).
pub(crate) fn check_extents(op: &'static str, extents: &[(&str, usize)]) -> Result<()> {
    let mut product = 8usize;
    for &(name, extent) in extents {
        check_dims(op, extent > 0, || format!("{name} is 0, it must be at least 1"))?;
        product = product
            .checked_mul(extent)
            .filter(|&bytes| bytes <= isize::MAX as usize)
            .ok_or_else(|| crate::Error::Dims {
                op,
                reason: format!("{extents:?} multiply past the address space"),
            })?;
    }
    Ok(())
}

/// Runs an expression with `$T` bound to the float type of `$dtype`.
macro_rules! on_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            got => Err($crate::Error::DType { expected: "f32 or f64", got }),
        }
    };
}
pub(crate) use on_float;
