//! AdamW over one buffer: the latents' fast optimiser and the weights' slow one.

use ltm_kernels::ops::adamw::{self, AdamW};
use ltm_kernels::{Buffer, DType, Device};

use crate::Result;

/// First and second moments of one parameter, and the number of steps taken.
#[derive(Debug)]
pub struct AdamWState {
    /// Running mean of the gradient.
    pub m: Buffer,
    /// Running mean of the squared gradient.
    pub v: Buffer,
    /// Steps taken so far.
    pub step: u64,
}

impl AdamWState {
    /// Zero moments for `len` elements.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the device runs out of memory.
    pub fn new(device: &Device, dtype: DType, len: usize) -> Result<Self> {
        let zeros = || Buffer::zeros(device, dtype, len);
        Ok(Self { m: zeros()?, v: zeros()?, step: 0 })
    }

    /// Back to zero moments and step 0, without allocating.
    ///
    /// # Errors
    /// None on the CPU.
    pub fn reset(&mut self, device: &Device) -> Result<()> {
        ltm_kernels::ops::elementwise::fill(device, &mut self.m, 0.0)?;
        ltm_kernels::ops::elementwise::fill(device, &mut self.v, 0.0)?;
        self.step = 0;
        Ok(())
    }

    /// One step on `param` with the gradient `grad_scale · grad`.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when lengths or types differ.
    pub fn update(
        &mut self,
        device: &Device,
        param: &mut Buffer,
        grad: &Buffer,
        grad_scale: f64,
        options: AdamW,
    ) -> Result<()> {
        self.step += 1;
        adamw::step(device, param, &mut self.m, &mut self.v, grad, grad_scale, options, self.step)?;
        Ok(())
    }
}
