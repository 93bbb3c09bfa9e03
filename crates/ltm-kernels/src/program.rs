//! Custom CUDA kernels: source text that is compiled when first launched, and the launch.
#![expect(unsafe_code, reason = "a launch vouches for its kernel")]

use crate::cuda::{Arg, Context, Geometry, MAX_ARGUMENTS};
use crate::{Buffer, Error, Result};

/// CUDA C++ source with entry points `extern "C" __global__`.
///
/// NVRTC compiles it for the device when one of its entries is first launched. Like the kernels of this crate it is
/// kept in the cache on disk, and it stays loaded until the process ends. No toolkit is needed; the source may include
/// the headers of this crate, such as `common/map.cuh`, and no others.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its name in the compiler's messages.
    pub name: &'a str,
    /// The source.
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
    /// Queues the kernel `entry` on the device's stream.
    ///
    /// The number of arguments, their sizes and whether they are floating-point numbers are checked against the
    /// compiled kernel's signature, which does not state the element types of buffers.
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
        unsafe { context.launch_text(self.name, self.text, entry, geometry, &args) }
    }
}
