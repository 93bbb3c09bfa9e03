//! Values of a model's parameters: seeded initialisation, and what they must be. Knows no files and no gradients.

use ltm_kernels::ops::philox::{self, PhiloxKey};
use ltm_kernels::{Buffer, DType, Device};

use crate::params::check_lengths;
use crate::{Error, Init, ModelConfig, ParamSpec, Result, param_table};

/// A model's parameters on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// One row-major vector per entry of [`param_table`], in its order.
    pub params: Vec<Vec<f32>>,
}

/// The first random stream of initialisation ("init" in ASCII), one per parameter, so that no other
/// use of the same seed draws the same numbers.
const INIT_STREAM: u64 = 0x696e_6974 << 32;

impl Weights {
    /// Initial weights: each parameter drawn from the distribution in its [`ParamSpec`]. The same
    /// seed gives the same weights on every machine.
    ///
    /// # Errors
    /// [`Error::Config`] when `config` is not valid.
    pub fn init(config: &ModelConfig, seed: u64) -> Result<Self> {
        config.validate()?;
        let params = param_table(config)
            .iter()
            .zip(INIT_STREAM..)
            .map(|(spec, stream)| match spec.init {
                Init::Ones => Ok(vec![1.0; spec.len()]),
                Init::Constant { value } => Ok(vec![value as f32; spec.len()]),
                Init::Normal { std } => {
                    let mut values = Buffer::zeros(&Device::Cpu, DType::F32, spec.len())?;
                    let key = PhiloxKey { seed, stream, step: 0 };
                    philox::normal(&Device::Cpu, &mut values, key, 0.0, std)?;
                    Ok(values.to_f32()?)
                }
            })
            .collect::<Result<_>>()?;
        Ok(Self { params })
    }

    /// Checks that these are the parameters of a model of the given configuration, and finite.
    ///
    /// # Errors
    /// [`Error::Config`]; [`Error::Argument`] when there are more or fewer parameters,
    /// [`Error::TensorShape`] for the first of another length, [`Error::NotFinite`] for the first NaN
    /// or infinity.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        config.validate()?;
        self.check_specs(&param_table(config))
    }

    /// As [`check`](Self::check) for parameters of any model, one per entry of `specs`.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), but for the configuration.
    pub fn check_specs(&self, specs: &[ParamSpec]) -> Result<()> {
        check_lengths(specs, self.params.iter().map(Vec::len))?;
        self.check_finite(specs)
    }

    fn check_finite(&self, table: &[ParamSpec]) -> Result<()> {
        for (spec, values) in table.iter().zip(&self.params) {
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                let (name, value) = (spec.name.clone(), values[index].into());
                return Err(Error::NotFinite { name, index, value });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ModelConfig = ModelConfig::TINY;

    #[test]
    fn initial_values_follow_their_distributions() {
        let config = ModelConfig { vocab_size: 5000, ..CONFIG };
        let weights = Weights::init(&config, 7).unwrap();
        assert_eq!(weights, Weights::init(&config, 7).unwrap());
        assert_ne!(weights, Weights::init(&config, 8).unwrap());
        weights.check(&config).unwrap();
        let embedding = &weights.params[0];
        let n = embedding.len() as f64;
        let mean = embedding.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let std = (embedding.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n).sqrt();
        // Five standard errors.
        assert!(mean.abs() <= 5.0 * 0.02 / n.sqrt(), "{mean}");
        assert!((std - 0.02).abs() <= 5.0 * 0.02 / (2.0 * n).sqrt(), "{std}");
        assert!(weights.params[1].iter().all(|&x| x == 1.0));
        // Equal distributions, distinct streams.
        assert_ne!(weights.params[3], weights.params[4]);
    }
}
