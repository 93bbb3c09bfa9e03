//! Safetensors files of weights: read from bytes, under the model's names and as single precision, and written. Knows
//! no device.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};

use crate::{Error, ModelConfig, ParamSpec, Result, Weights, param_table};

/// The output matrix, which some files also store although it is tied to the embedding.
pub(crate) const OUTPUT: &str = "output.weight";

/// The tensors of a safetensors file that is in memory.
///
/// Files that others wrote have other names: [`rename`](Self::rename) maps them to those of [`param_table`], and
/// [`weights`](Self::weights) reads floats of 16, 32 or 64 bits. Neither reorders numbers: a file whose rotary pairs
/// are halves of a head, and not neighbours as here, needs the rows of `wq` and `wk` permuted in [`Weights::params`].
///
/// ```
/// use ltm_model::{ModelConfig, WeightFile, Weights};
/// # fn main() -> ltm_model::Result<()> {
/// # let config = ModelConfig { dim: 8, n_layers: 1, n_heads: 1, n_kv_heads: 1, vocab_size: 5, max_seq_len: 4,
/// #     window: 4, n_latents: 0, ffn_hidden: 8, ..ModelConfig::ltm_small() };
/// # let bytes = Weights::init(&config, 1)?.to_bytes(&config)?;
/// // As PyTorch names them in a compiled module; buffers are not weights.
/// let ours = |name: &str| (!name.ends_with("inv_freq")).then(|| name.trim_start_matches("_orig_mod.").into());
/// let weights = WeightFile::parse(&bytes, "weights of the server")?.rename(ours).weights(&config)?;
/// # assert_eq!(weights, Weights::init(&config, 1)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct WeightFile<'a> {
    source: String,
    /// In the order of their names in the file.
    tensors: Vec<Tensor<'a>>,
}

#[derive(Debug)]
struct Tensor<'a> {
    stored_name: String,
    name: String,
    view: TensorView<'a>,
}

impl<'a> WeightFile<'a> {
    /// The tensors in `bytes`, the whole of a file, under their names there. Errors call the file `source`.
    ///
    /// # Errors
    /// [`Error::Format`] for a truncated, damaged or foreign file.
    pub fn parse(bytes: &'a [u8], source: impl Into<String>) -> Result<Self> {
        let name = source.into();
        let file = match SafeTensors::deserialize(bytes) {
            Ok(file) => file,
            Err(source) => return Err(Error::Format { name, source }),
        };
        let mut tensors = Vec::with_capacity(file.len());
        for (stored_name, view) in file.tensors() {
            tensors.push(Tensor { name: stored_name.clone(), stored_name, view });
        }
        tensors.sort_unstable_by(|a, b| a.stored_name.cmp(&b.stored_name));
        Ok(Self { source: name, tensors })
    }

    /// Gives each tensor the name that `rule` returns for its present one, and skips those for which it returns
    /// `None`.
    pub fn rename(mut self, mut rule: impl FnMut(&str) -> Option<String>) -> Self {
        self.tensors.retain_mut(|tensor| match rule(&tensor.name) {
            Some(name) => {
                tensor.name = name;
                true
            }
            None => false,
        });
        self
    }

    /// The tensors' names and shapes, in the order of their names in the file.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.view.shape()))
    }

    /// The weights of a model, if these are exactly its tensors, in `f32` or converted from `f16`, `bf16` or `f64`.
    /// A stored `output.weight` is accepted when it equals the embedding.
    ///
    /// # Errors
    /// [`Error::Config`]; [`Error::File`] of the source and an [`Error::Tensors`], [`Error::TensorShape`],
    /// [`Error::TensorType`], [`Error::Untied`] or [`Error::NotFinite`].
    pub fn weights(&self, config: &ModelConfig) -> Result<Weights> {
        config.validate()?;
        let in_file = |source| Error::File { name: self.source.clone(), source: Box::new(source) };
        self.read(&param_table(config)).map_err(in_file)
    }

    fn read(&self, table: &[ParamSpec]) -> Result<Weights> {
        let found = self.by_name(table)?;
        let params = table.iter().map(|spec| read_tensor(found[spec.name.as_str()], spec));
        let params = params.collect::<Result<Vec<_>>>()?;
        if let Some(output) = found.get(OUTPUT) {
            let spec = ParamSpec { name: OUTPUT.into(), ..table[0].clone() };
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            if !read_tensor(output, &spec)?.iter().zip(&params[0]).all(same) {
                return Err(Error::Untied { name: spec.name });
            }
        }
        Ok(Weights { params })
    }

    /// One tensor per entry of `table`, and perhaps the output matrix.
    fn by_name(&self, table: &[ParamSpec]) -> Result<BTreeMap<&str, &TensorView<'a>>> {
        let mut found: BTreeMap<&str, Vec<&Tensor<'a>>> = BTreeMap::new();
        for tensor in &self.tensors {
            found.entry(&tensor.name).or_default().push(tensor);
        }
        let known: HashSet<&str> =
            table.iter().map(|spec| spec.name.as_str()).chain([OUTPUT]).collect();
        let missing = table.iter().filter(|spec| !found.contains_key(spec.name.as_str()));
        let missing: Vec<_> = missing.map(|spec| spec.name.clone()).collect();
        let mut unknown = Vec::new();
        let mut doubled = Vec::new();
        for (&name, tensors) in &found {
            let stored = tensors.iter().map(|tensor| tensor.stored_name.clone());
            if !known.contains(name) {
                unknown.extend(stored);
            } else if tensors.len() > 1 {
                doubled.push((name.to_string(), stored.collect()));
            }
        }
        if !(missing.is_empty() && unknown.is_empty() && doubled.is_empty()) {
            return Err(Error::Tensors { missing, unknown, doubled });
        }
        Ok(found.into_iter().map(|(name, tensors)| (name, &tensors[0].view)).collect())
    }
}

fn read_tensor(tensor: &TensorView<'_>, spec: &ParamSpec) -> Result<Vec<f32>> {
    let name = &spec.name;
    if tensor.shape() != spec.shape {
        let (expected, found) = (spec.shape.clone(), tensor.shape().to_vec());
        return Err(Error::TensorShape { name: name.clone(), expected, found });
    }
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => convert(name, data, |bytes| f32::from_le_bytes(bytes).into()),
        Dtype::F16 => convert(name, data, |bytes| f16::from_le_bytes(bytes).to_f64()),
        Dtype::BF16 => convert(name, data, |bytes| bf16::from_le_bytes(bytes).to_f64()),
        Dtype::F64 => convert(name, data, f64::from_le_bytes),
        other => Err(Error::TensorType { name: name.clone(), found: format!("{other:?}") }),
    }
}

/// The numbers in single precision, to which only those of 64 bits are rounded.
fn convert<const N: usize>(
    name: &str,
    data: &[u8],
    read: impl Fn([u8; N]) -> f64,
) -> Result<Vec<f32>> {
    let (numbers, _) = data.as_chunks::<N>();
    let mut converted = Vec::with_capacity(numbers.len());
    for (index, bytes) in numbers.iter().enumerate() {
        let value = read(*bytes);
        let number = value as f32;
        if !number.is_finite() {
            return Err(Error::NotFinite { name: name.into(), index, value });
        }
        converted.push(number);
    }
    Ok(converted)
}

impl Weights {
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
        self.to_bytes_with(config, [])
    }

    /// As [`to_bytes`](Self::to_bytes) with metadata in the file's header: `("format", "pt")` is how other libraries know
    /// that a file is PyTorch's.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn to_bytes_with(
        &self,
        config: &ModelConfig,
        metadata: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Vec<u8>> {
        self.check(config)?;
        let metadata: HashMap<String, String> = metadata.into_iter().collect();
        let metadata = (!metadata.is_empty()).then_some(metadata);
        let table = param_table(config);
        let tensors = table
            .iter()
            .zip(&self.params)
            .map(|(spec, values)| (spec.name.as_str(), TensorRef { shape: &spec.shape, values }));
        Ok(safetensors::serialize(tensors, metadata).expect("checked parameters are sound tensors"))
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
    use ltm_kernels::Device;

    use super::*;

    const CONFIG: ModelConfig = ModelConfig::TINY;

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
