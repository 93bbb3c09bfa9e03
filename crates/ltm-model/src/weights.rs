//! Values of a model's parameters: seeded initialisation, and safetensors files and bytes. Knows no gradients.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use ltm_kernels::ops::philox::{self, PhiloxKey};
use ltm_kernels::{Buffer, DType, Device};
use safetensors::tensor::{Dtype, View};

use crate::params::check_lengths;
use crate::{Error, Init, ModelConfig, ParamSpec, Result, WeightFile, param_table};

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

    /// Reads a safetensors file with exactly the tensors of [`param_table`] under their names; see
    /// [`WeightFile`] for other names.
    ///
    /// # Errors
    /// [`Error::Io`], and those of [`from_bytes`](Self::from_bytes).
    pub fn load(path: &Path, config: &ModelConfig) -> Result<Self> {
        let bytes = fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
        Self::from_bytes(&bytes, path.display().to_string(), config)
    }

    /// As [`load`](Self::load) for a whole file in memory, which errors call `source`.
    ///
    /// # Errors
    /// Those of [`WeightFile::parse`] and [`WeightFile::weights`].
    pub fn from_bytes(
        bytes: &[u8],
        source: impl Into<String>,
        config: &ModelConfig,
    ) -> Result<Self> {
        WeightFile::parse(bytes, source)?.weights(config)
    }

    /// Writes a safetensors file that [`load`](Self::load) reads, atomically. The same weights give
    /// the same bytes.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), and [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: &Path, config: &ModelConfig) -> Result<()> {
        let bytes = self.to_bytes(config)?;
        ltm_files::write_whole(path, &bytes).map_err(|error| match error {
            ltm_files::Error::Io { path, source, .. } => Error::Io { path, source },
            other => Error::Io { path: path.into(), source: std::io::Error::other(other) },
        })
    }

    /// The bytes of the file that [`save`](Self::save) writes.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn to_bytes(&self, config: &ModelConfig) -> Result<Vec<u8>> {
        self.check(config)?;
        let table = param_table(config);
        let tensors = table
            .iter()
            .zip(&self.params)
            .map(|(spec, values)| (spec.name.as_str(), TensorRef { shape: &spec.shape, values }));
        Ok(safetensors::serialize(tensors, None).expect("checked parameters are sound tensors"))
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

/// A parameter in the form that the serialiser requires.
struct TensorRef<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for TensorRef<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ModelConfig = ModelConfig {
        dim: 8,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 11,
        max_seq_len: 8,
        window: 4,
        n_latents: 4,
        ffn_hidden: 32,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        attention: crate::Attention::Causal,
        encoder_layers: 0,
    };

    /// A file of chosen tensors, loaded as `CONFIG`.
    fn load(edit: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<f32>)>)) -> Result<Weights> {
        let weights = Weights::init(&CONFIG, 1).unwrap();
        let mut tensors = param_table(&CONFIG)
            .into_iter()
            .zip(weights.params)
            .map(|(spec, values)| (spec.name, spec.shape, values))
            .collect();
        edit(&mut tensors);
        let views = tensors.iter().map(|(name, shape, values)| (name, TensorRef { shape, values }));
        let bytes = safetensors::serialize(views, None).unwrap();
        Weights::from_bytes(&bytes, "model.safetensors", &CONFIG)
    }

    /// What is wrong with a file whose path the error names.
    fn cause(result: Result<Weights>) -> Error {
        match result {
            Err(Error::File { source, .. }) => *source,
            other => panic!("{other:?}"),
        }
    }

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

    #[test]
    fn a_file_gives_back_the_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut weights = Weights::init(&CONFIG, 3).unwrap();
        weights.params[0][0] = f32::MIN_POSITIVE / 2.0;
        weights.save(&path, &CONFIG).unwrap();
        let first = fs::read(&path).unwrap();
        weights.save(&path, &CONFIG).unwrap();
        assert_eq!(first, fs::read(&path).unwrap());
        assert_eq!(Weights::load(&path, &CONFIG).unwrap(), weights);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn tensors_of_another_model_are_listed() {
        load(|_| ()).unwrap();
        let names = cause(load(|tensors| {
            tensors.drain(5..7);
            tensors.push(("bias".into(), vec![1], vec![0.0]));
        }));
        let table = param_table(&CONFIG);
        match &names {
            Error::Tensors { missing, unknown, doubled } => {
                assert_eq!(missing[..], [5, 6].map(|i| table[i].name.clone()));
                assert_eq!((unknown[..].join(" ").as_str(), doubled.len()), ("bias", 0));
            }
            other => panic!("{other:?}"),
        }
        let none = cause(load(Vec::clear)).to_string();
        let more = format!(" and {} more", table.len() - 8);
        assert!(none.contains("`tok_embeddings.weight`, `layers.0"), "{none}");
        assert!(none.contains(&more) && none.len() < 500, "{none}");
        let shape = cause(load(|tensors| tensors[0].1 = vec![8, 11])).to_string();
        for part in ["tok_embeddings.weight", "[11, 8]", "[8, 11]"] {
            assert!(shape.contains(part), "{shape}");
        }
    }

    #[test]
    fn a_stored_output_must_equal_the_embedding() {
        let output = |tensors: &mut Vec<(String, Vec<usize>, Vec<f32>)>| {
            let (_, shape, values) = tensors[0].clone();
            tensors.push(("output.weight".into(), shape, values));
        };
        load(output).unwrap();
        let error = load(|tensors| {
            output(tensors);
            tensors.last_mut().unwrap().2[87] += 1.0;
        });
        assert!(matches!(cause(error), Error::Untied { .. }));
    }

    #[test]
    fn nan_and_infinity_are_refused_wherever_weights_enter() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = load(|tensors| tensors[1].2[3] = value).unwrap_err();
            assert!(error.to_string().contains("model.safetensors"), "{error}");
            let message = cause(Err(error)).to_string();
            let expected = format!("`layers.0.attention_norm.weight`: number 3 is {value}");
            assert!(message.contains(&expected), "{message}");

            let mut weights = Weights::init(&CONFIG, 1).unwrap();
            weights.params[1][3] = value;
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model.safetensors");
            for refused in [
                weights.check(&CONFIG),
                weights.save(&path, &CONFIG),
                crate::Decoder::new(CONFIG, &weights, Device::Cpu, 1).map(|_| ()),
            ] {
                assert!(matches!(refused, Err(Error::NotFinite { index: 3, .. })), "{refused:?}");
            }
            assert!(!path.exists());
        }
    }

    #[test]
    fn damaged_and_absent_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        assert!(matches!(Weights::load(&path, &CONFIG), Err(Error::Io { .. })));
        let weights = Weights::init(&CONFIG, 3).unwrap();
        weights.save(&path, &CONFIG).unwrap();
        let bytes = fs::read(&path).unwrap();
        for len in [0, 7, 100, bytes.len() - 1] {
            fs::write(&path, &bytes[..len]).unwrap();
            assert!(matches!(Weights::load(&path, &CONFIG), Err(Error::Format { .. })), "{len}");
        }
        let absent = folder.path().join("absent/model.safetensors");
        assert!(matches!(weights.save(&absent, &CONFIG), Err(Error::Io { .. })));
        let other = ModelConfig { vocab_size: 12, ..CONFIG };
        assert!(matches!(weights.save(&path, &other), Err(Error::TensorShape { .. })));
        let other = ModelConfig { n_layers: 1, n_latents: 2, ..CONFIG };
        assert!(weights.save(&path, &other).is_err());
    }
}
