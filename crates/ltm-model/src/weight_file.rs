//! A safetensors file in memory: its tensors under the model's names, as single precision. Knows no disk and no
//! device.

use std::collections::{BTreeMap, HashSet};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

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
