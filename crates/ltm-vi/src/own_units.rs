//! Steps in units of the posterior's own standard deviation. Knows no optimiser.

use ltm_kernels::ops::binary::{self, BinaryDims, Operator};
use ltm_kernels::ops::elementwise;
use ltm_kernels::ops::unary::{self, Function};
use ltm_kernels::{Buffer, DType, Device};

use crate::Result;

/// The change of variables `mu = s·u` with the standard deviation `s = exp(log_var/2)`: the gradient by `u` is
/// `s·dmu`, and a step of `u` moves `mu` by `s` times as much.
///
/// In these units the gradient's noise is about 1 for any length of text, because a posterior narrows as its likelihood
/// becomes steeper, and where `eps` dominates the root of the squared gradient, a step is one of natural gradient
/// descent: `s²·dmu`, the Fisher information of a Gaussian's mean being `1/s²`.
pub(crate) struct OwnUnits {
    dims: BinaryDims,
    scale: Buffer,
    /// The gradient by `u`.
    pub(crate) gradient: Buffer,
    /// The step of `u`.
    pub(crate) step: Buffer,
}

impl OwnUnits {
    /// For `len` numbers.
    pub(crate) fn new(device: &Device, dtype: DType, len: usize) -> Result<Self> {
        let zeros = || Buffer::zeros(device, dtype, len);
        let (dims, _) = BinaryDims::broadcast(&[len], &[len])?;
        Ok(Self { dims, scale: zeros()?, gradient: zeros()?, step: zeros()? })
    }

    /// Computes the gradient by `u`, and sets the step to 0.
    pub(crate) fn begin(&mut self, device: &Device, log_var: &Buffer, dmu: &Buffer) -> Result<()> {
        let Self { dims, scale, gradient, step } = self;
        let half = Function::Affine { scale: 0.5, shift: 0.0 };
        unary::fwd(device, step, log_var, half)?;
        unary::fwd(device, scale, step, Function::Exp)?;
        binary::fwd(device, gradient, dmu, scale, Operator::Mul, *dims)?;
        Ok(elementwise::fill(device, step, 0.0)?)
    }

    /// Moves `mu` by the step.
    pub(crate) fn apply(&mut self, device: &Device, mu: &mut Buffer) -> Result<()> {
        let Self { dims, scale, gradient, step } = self;
        binary::fwd(device, gradient, step, scale, Operator::Mul, *dims)?;
        Ok(elementwise::add_assign(device, mu, gradient)?)
    }
}
