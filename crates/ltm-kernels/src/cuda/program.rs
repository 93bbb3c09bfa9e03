//! CUDA kernels from outside the crate: a text, compiled when first launched, and the launch.

use super::Context;
use super::launch::{Arg, Geometry};
use crate::{Buffer, Error, Result};

/// The most arguments of a kernel.
pub(super) const MAX_ARGUMENTS: usize = 24;

/// A text in CUDA C++ with entry points `extern "C" __global__`.
///
/// It is compiled by NVRTC for the device at hand when one of its entries is first launched, kept in the cache on disk
/// like the kernels of this crate, and stays loaded until the process ends. No toolkit is needed: the text includes no
/// header but, if it wants, those of this crate, such as `common/map.cuh`.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The name that the compiler's messages carry.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
}

/// One argument of a kernel.
#[derive(Debug)]
pub enum Argument<'a> {
    /// The address of a buffer that the kernel reads.
    Read(&'a Buffer),
    /// The address of a buffer that the kernel writes.
    Write(&'a mut Buffer),
    /// An `int`.
    I32(i32),
    /// An `unsigned int`.
    U32(u32),
    /// A `long long`.
    I64(i64),
    /// A `float`.
    F32(f32),
    /// A `double`.
    F64(f64),
}

impl Program<'_> {
    /// Puts the kernel `entry` of this text on the device's stream, after everything queued before.
    ///
    /// Before anything runs, the arguments are compared with the kernel's signature: their number, their sizes, and
    /// whether each is a floating-point number. The element types of buffers are not known there.
    ///
    /// # Errors
    /// [`Error::Compile`] with the compiler's log, [`Error::NoDevice`] when there is no compiler,
    /// [`Error::WrongDevice`] for a buffer that is elsewhere, [`Error::Cuda`] when there is no such entry, the
    /// arguments do not fit its signature, or the driver refuses the geometry.
    ///
    /// # Safety
    /// With these arguments and this geometry, the kernel stays within the buffers that it is given, reads their
    /// elements as what they are, and writes to none of [`Argument::Read`].
    pub unsafe fn launch(
        &self,
        context: &Context,
        entry: &str,
        geometry: Geometry,
        args: &mut [Argument<'_>],
    ) -> Result<()> {
        if args.len() > MAX_ARGUMENTS {
            let reason = format!("{} arguments, at most {MAX_ARGUMENTS} are possible", args.len());
            return Err(Error::Cuda { call: format!("launch {entry}"), reason });
        }
        let lower = |argument: &mut Argument<'_>| match argument {
            Argument::Read(buffer) => buffer.arg(context, buffer.dtype()),
            Argument::Write(buffer) => {
                let dtype = buffer.dtype();
                buffer.arg_mut(context, dtype)
            }
            Argument::I32(x) => Ok(Arg::I32(*x)),
            Argument::U32(x) => Ok(Arg::U32(*x)),
            Argument::I64(x) => Ok(Arg::I64(*x)),
            Argument::F32(x) => Ok(Arg::F32(*x)),
            Argument::F64(x) => Ok(Arg::F64(*x)),
        };
        let args = args.iter_mut().map(lower).collect::<Result<Vec<_>>>()?;
        // SAFETY: the caller's promise.
        unsafe { context.launch_program(self, entry, geometry, &args) }
    }
}
