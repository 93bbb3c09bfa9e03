//! A file of tensors in a checkpoint: written whole, and read with errors that name file and tensor. Knows no weight.

use std::path::Path;

use ltm_files::write_whole;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{Error, Result};

/// A tensor to write.
pub(super) struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// Floats of this shape.
    pub(super) fn floats<'n>(
        name: impl Into<String>,
        shape: &[usize],
        numbers: impl IntoIterator<Item = &'n f32>,
    ) -> Self {
        let bytes = numbers.into_iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F32, shape: shape.into(), bytes }
    }

    /// A list of whole numbers.
    pub(super) fn list<'n>(
        name: impl Into<String>,
        numbers: impl IntoIterator<Item = &'n u64>,
    ) -> Self {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(|n| n.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::U64, shape: vec![bytes.len() / 8], bytes }
    }
}

/// Writes a file of these tensors.
pub(super) fn write<'t>(path: &Path, tensors: &'t [Tensor]) -> Result<()> {
    let refused = |error: safetensors::SafeTensorError| {
        Error::content(path, "content", "tensors that serialise", error.to_string())
    };
    let view = |tensor: &'t Tensor| {
        let Tensor { name, dtype, shape, bytes } = tensor;
        Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?))
    };
    let views =
        tensors.iter().map(view).collect::<std::result::Result<Vec<_>, _>>().map_err(refused)?;
    Ok(write_whole(path, &safetensors::serialize(views, None).map_err(refused)?)?)
}

/// The tensors of a file.
pub(super) struct TensorFile<'f> {
    path: &'f Path,
    tensors: SafeTensors<'f>,
}

impl<'f> TensorFile<'f> {
    /// The tensors in `bytes`, the content of the file at `path`.
    pub(super) fn parse(path: &'f Path, bytes: &'f [u8]) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| {
            Error::content(path, "content", "a whole safetensors file", error.to_string())
        })?;
        Ok(Self { path, tensors })
    }

    /// The floats of a tensor of this shape, which must be finite.
    pub(super) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let view = self.view(name, Dtype::F32, |found| found == shape, format!("{shape:?}"))?;
        let (numbers, _) = view.data().as_chunks::<4>();
        let numbers: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
        match numbers.iter().position(|number| !number.is_finite()) {
            None => Ok(numbers),
            Some(idx) => {
                let found = format!("{} at index {idx}", numbers[idx]);
                Err(Error::content(self.path, format!("tensor `{name}`"), "finite numbers", found))
            }
        }
    }

    /// A list of whole numbers.
    pub(super) fn list(&self, name: &str) -> Result<Vec<u64>> {
        let view =
            self.view(name, Dtype::U64, |found| found.len() == 1, "of one dimension".into())?;
        let (numbers, _) = view.data().as_chunks::<8>();
        Ok(numbers.iter().map(|b| u64::from_le_bytes(*b)).collect())
    }

    fn view(
        &self,
        name: &str,
        dtype: Dtype,
        is_shape: impl Fn(&[usize]) -> bool,
        shape: String,
    ) -> Result<TensorView<'f>> {
        let view = self.tensors.tensor(name).map_err(|error| {
            Error::content(self.path, name, "a tensor of this name", error.to_string())
        })?;
        if view.dtype() != dtype || !is_shape(view.shape()) {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            return Err(Error::content(self.path, name, format!("{dtype:?} {shape}"), found));
        }
        Ok(view)
    }
}
