//! What a fit leaves: latents of a batch on its device. Whether they have a density is a matter of type. Knows no
//! graph and no method.

use ltm_kernels::{Buffer, DType, Device};

use crate::error::check_finite;
use crate::estimators::check_length;
use crate::{Factor, Posterior, Result};

/// `q(z|x) = N(mu, diag(exp(log_var)))` for each sequence of a batch, or with a [`Factor`] its correlated form, and the
/// noise of one sample; on a device, in the type that the program computes latents in. All three are `(B,L·Z,C)`.
#[derive(Debug)]
pub struct Gaussian {
    /// Means.
    pub mu: Buffer,
    /// Logarithms of the variances.
    pub log_var: Buffer,
    /// Standard normal noise of the sample.
    pub noise: Buffer,
    /// What correlates the numbers of a layer; `None` for independent ones.
    pub factor: Option<Factor<Buffer>>,
}

impl Gaussian {
    /// A posterior of the host, copied to a device.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when the lengths of the three differ, those of a factor do not fit, or a
    /// number is not finite,
    /// [`Error::Kernel`](crate::Error::Kernel) when memory runs out.
    pub fn new(posterior: &Posterior, device: &Device, dtype: DType) -> Result<Self> {
        let Posterior { mu, log_var, noise, factor } = posterior;
        for (arg, numbers) in [("mu", mu), ("log_var", log_var), ("noise", noise)] {
            check_length(arg, mu.len(), numbers.len())?;
            check_finite(arg, numbers)?;
        }
        posterior.check_factor()?;
        let upload = |numbers: &[f32]| upload(numbers, device, dtype);
        if let Some(Factor { columns, noise }) = factor {
            check_finite("factor.columns", columns)?;
            check_finite("factor.noise", noise)?;
        }
        let factor = factor.as_ref().map(|factor| factor.try_map(|x| upload(x))).transpose()?;
        Ok(Self { mu: upload(mu)?, log_var: upload(log_var)?, noise: upload(noise)?, factor })
    }

    /// A copy on the host, in single precision.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the device fails.
    pub fn to_host(&self) -> Result<Posterior> {
        let [mu, log_var, noise] = [&self.mu, &self.log_var, &self.noise].map(Buffer::to_f32);
        let factor =
            self.factor.as_ref().map(|factor| factor.try_map(Buffer::to_f32)).transpose()?;
        Ok(Posterior { mu: mu?, log_var: log_var?, noise: noise?, factor })
    }

    /// A copy on the same device.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when memory runs out.
    pub fn try_clone(&self) -> Result<Self> {
        let [mu, log_var, noise] = [&self.mu, &self.log_var, &self.noise].map(Buffer::try_clone);
        let factor =
            self.factor.as_ref().map(|factor| factor.try_map(Buffer::try_clone)).transpose()?;
        Ok(Self { mu: mu?, log_var: log_var?, noise: noise?, factor })
    }

    /// Columns of each layer, `R`; 0 for independent numbers.
    pub fn rank(&self) -> usize {
        self.factor.as_ref().map_or(0, |factor| factor.columns.len() / self.mu.len().max(1))
    }

    /// What a fit moves: means, log-variances and columns.
    pub(crate) fn parameters_mut(&mut self) -> Vec<&mut Buffer> {
        let columns = self.factor.as_mut().map(|factor| &mut factor.columns);
        [&mut self.mu, &mut self.log_var].into_iter().chain(columns).collect()
    }
}

/// Latents of the sequences of a batch.
#[derive(Debug)]
pub enum Latents {
    /// Those of a model without latents.
    None,
    /// A Gaussian posterior, and one sample of it. It has a density: bounds can be computed.
    Gaussian(Gaussian),
    /// One sample of the posterior, `z (B,L·Z,C)`, whose density is not known.
    Sample(Buffer),
}

impl Latents {
    /// The posterior, if there is one.
    pub fn gaussian(&self) -> Option<&Gaussian> {
        match self {
            Self::Gaussian(gaussian) => Some(gaussian),
            Self::None | Self::Sample(_) => None,
        }
    }

    /// A copy of their centre `(B,L·Z,C)` on the host: the mean, or the only sample; empty without latents.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the device fails.
    pub fn center(&self) -> Result<Vec<f32>> {
        Ok(match self {
            Self::None => Vec::new(),
            Self::Gaussian(Gaussian { mu, .. }) => mu.to_f32()?,
            Self::Sample(z) => z.to_f32()?,
        })
    }
}

impl From<Gaussian> for Latents {
    fn from(gaussian: Gaussian) -> Self {
        Self::Gaussian(gaussian)
    }
}

/// A copy of numbers on a device.
pub(crate) fn upload(numbers: &[f32], device: &Device, dtype: DType) -> Result<Buffer> {
    let mut buffer = Buffer::zeros(device, dtype, numbers.len())?;
    buffer.write_f32(numbers)?;
    Ok(buffer)
}
