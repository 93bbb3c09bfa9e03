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
    /// [`Error::Kernel`](crate::Error::Kernel) when the moments are on another device.
    pub fn reset(&mut self, device: &Device) -> Result<()> {
        ltm_kernels::ops::elementwise::fill(device, &mut self.m, 0.0)?;
        ltm_kernels::ops::elementwise::fill(device, &mut self.v, 0.0)?;
        self.step = 0;
        Ok(())
    }

    /// One step on `param` with the gradient `grad_scale · grad`. An error changes nothing.
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
        let step = self.step + 1;
        adamw::step(device, param, &mut self.m, &mut self.v, grad, grad_scale, options, step)?;
        self.step = step;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_step_changes_nothing() {
        let cpu = Device::Cpu;
        let adamw = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
        let mut state = AdamWState::new(&cpu, DType::F32, 2).expect("a small buffer fits");
        let mut param = Buffer::from_vec(vec![1f32, 2.0]);
        let grad = Buffer::from_vec(vec![0.5f32, -0.5]);
        state.update(&cpu, &mut param, &grad, 1.0, adamw).expect("lengths agree");
        let numbers = |state: &AdamWState, param: &Buffer| {
            let all =
                [&state.m, &state.v, param].map(|buffer| buffer.to_f64().expect("on the cpu"));
            (state.step, all)
        };
        let before = numbers(&state, &param);
        assert_eq!(before.0, 1);
        let wrong_type = Buffer::from_vec(vec![0.5f64, -0.5]);
        let wrong_beta = AdamW { beta1: 1.5, ..adamw };
        for (grad, options) in
            [(&Buffer::from_vec(vec![1f32; 3]), adamw), (&wrong_type, adamw), (&grad, wrong_beta)]
        {
            assert!(state.update(&cpu, &mut param, grad, 1.0, options).is_err());
            assert_eq!(numbers(&state, &param), before);
        }
    }
}
