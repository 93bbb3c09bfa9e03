//! Weights on a device: uploaded once, shared by everything that computes with them. Knows no graph and no
//! optimiser.

use std::sync::Arc;

use ltm_autodiff::{Parameters, Precision};
use ltm_kernels::ops::reduce;
use ltm_kernels::{Buffer, DType, Device};

use crate::params::check_lengths;
use crate::{Error, ModelConfig, ParamSpec, Result, Weights, param_table};

/// A model's parameters on a device.
///
/// A value: clones share one copy of the numbers, and programs and decoders hold clones or borrow. Whoever changes
/// a parameter, the trainer alone, changes its own value: while other clones exist, the numbers are copied first, and
/// the others keep theirs.
///
/// ```
/// use ltm_model::{Decoder, Device, DeviceWeights, ModelConfig, Weights};
/// use ltm_model::ltm_autodiff::Precision;
/// # fn main() -> ltm_model::Result<()> {
/// let config = ModelConfig { dim: 8, n_layers: 1, n_heads: 1, n_kv_heads: 1, vocab_size: 5, max_seq_len: 4,
///     window: 4, n_latents: 0, ffn_hidden: 8, ..ModelConfig::ltm_small() };
/// let weights = Weights::init(&config, 1)?;
/// let weights = DeviceWeights::new(&config, &weights, &Device::Cpu, Precision::F32)?;
/// // Two decoders, one copy of the weights.
/// let one = Decoder::with_weights(config, weights.clone(), 1)?;
/// let many = Decoder::with_weights(config, weights, 8)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeviceWeights {
    device: Device,
    dtype: DType,
    shared: Arc<Parameters>,
}

impl DeviceWeights {
    /// Whether `other` is the same copy of the weights.
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Copies a model's weights to a device, in the type that `precision` gives to full precision.
    ///
    /// # Errors
    /// Those of [`Weights::check`], and [`Error::Kernel`] when the device runs out of memory.
    pub fn new(
        config: &ModelConfig,
        weights: &Weights,
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        config.validate()?;
        Self::of(&param_table(config), weights, device, precision)
    }

    /// As [`new`](Self::new) for parameters of any model, one per entry of `specs`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn of(
        specs: &[ParamSpec],
        weights: &Weights,
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        weights.check_specs(specs)?;
        let dtype = precision.float;
        let upload = |values: &Vec<f32>| {
            let mut buffer = Buffer::zeros(device, dtype, values.len())?;
            buffer.write_f32(values)?;
            Ok(buffer)
        };
        let buffers = weights.params.iter().map(upload).collect::<Result<_>>()?;
        Ok(Self { device: *device, dtype, shared: Arc::new(Parameters::new(buffers)) })
    }

    /// Where they are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The type of every parameter.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// One buffer per parameter.
    pub fn params(&self) -> &[Buffer] {
        self.shared.buffers()
    }

    /// The same for plans of a graph whose inputs they are.
    pub fn parameters(&self) -> &Parameters {
        &self.shared
    }

    /// Parameter `i`, for an optimiser to update; what depends on it is computed again.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are `i` parameters or fewer; [`Error::Kernel`] when the device runs out of
    /// memory for a copy, which is made while clones exist.
    pub fn param_mut(&mut self, i: usize) -> Result<&mut Buffer> {
        let n = self.params().len();
        if i >= n {
            let (expected, found) = (format!("below {n}"), i.to_string());
            return Err(Error::Argument { arg: "i", expected, found });
        }
        if Arc::get_mut(&mut self.shared).is_none() {
            let copies = self.params().iter().map(|buffer| Ok(buffer.try_clone()?));
            self.shared = Arc::new(Parameters::new(copies.collect::<Result<_>>()?));
        }
        let own = Arc::get_mut(&mut self.shared).expect("a new copy has no clones");
        Ok(own.get_mut(i).expect("the index is in bounds"))
    }

    /// A copy on the host, rounded to single precision.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the device fails.
    pub fn to_host(&self) -> Result<Weights> {
        let read = |buffer: &Buffer| Ok(buffer.to_f32()?);
        Ok(Weights { params: self.params().iter().map(read).collect::<Result<_>>()? })
    }

    /// Checks that these are parameters of the lengths of `specs`.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are more or fewer, [`Error::TensorShape`] for the first of another length.
    pub fn check(&self, specs: &[ParamSpec]) -> Result<()> {
        check_lengths(specs, self.params().iter().map(Buffer::len))
    }

    /// Refuses NaN and infinities, which an optimiser may have left.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the parameter's name; those of [`check`](Self::check).
    pub fn check_finite(&self, specs: &[ParamSpec]) -> Result<()> {
        self.check(specs)?;
        for (spec, buffer) in specs.iter().zip(self.params()) {
            if let Some(index) = reduce::first_non_finite(&self.device, buffer)? {
                let (name, value) = (spec.name.clone(), buffer.to_f32()?[index].into());
                return Err(Error::NotFinite { name, index, value });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_its_owner_alone() {
        let config = ModelConfig {
            dim: 8,
            n_layers: 1,
            n_heads: 1,
            n_kv_heads: 1,
            vocab_size: 5,
            max_seq_len: 4,
            window: 4,
            n_latents: 0,
            ffn_hidden: 8,
            ..ModelConfig::ltm_small()
        };
        let host = Weights::init(&config, 1).expect("a good model");
        let mut own = DeviceWeights::new(&config, &host, &Device::Cpu, Precision::F32).unwrap();
        let address =
            |weights: &DeviceWeights| weights.params()[0].as_slice::<f32>().unwrap().as_ptr();
        let other = own.clone();
        assert_eq!(address(&own), address(&other));
        own.param_mut(0).unwrap().as_mut_slice::<f32>().unwrap()[0] = f32::NAN;
        assert_eq!(other.to_host().unwrap(), host);
        let table = param_table(&config);
        other.check_finite(&table).unwrap();
        let error = own.check_finite(&table).unwrap_err();
        assert!(matches!(&error, Error::NotFinite { index: 0, .. }), "{error}");
        // Alone again, it is changed where it is.
        drop(other);
        let (before, id) = (address(&own), own.parameters().id());
        own.param_mut(0).unwrap().as_mut_slice::<f32>().unwrap()[0] = 1.0;
        assert_eq!((address(&own), own.parameters().id()), (before, id));
        assert!(matches!(own.param_mut(999), Err(Error::Argument { arg: "i", .. })));
        assert!(own.check(&table[1..]).is_err());
    }
}
