//! The file of a checkpoint that holds the posteriors of rows: `rows (N)`, ascending, `mu` and `log_var (N,L·Z,C)`.

use std::fs;
use std::path::Path;

use ltm_model::ModelConfig;

use super::tensors::{Tensor, TensorFile, write};
use crate::posteriors::{Posteriors, RowPosterior};
use crate::{Error, Result};

pub(super) fn save(path: &Path, model: &ModelConfig, posteriors: &Posteriors) -> Result<()> {
    let rows = &posteriors.rows;
    let shape = [rows.len(), model.n_latents, model.dim];
    let mu = rows.values().flat_map(|row| &row.mu);
    let log_var = rows.values().flat_map(|row| &row.log_var);
    let tensors = [
        Tensor::list("rows", rows.keys()),
        Tensor::floats("mu", &shape, mu),
        Tensor::floats("log_var", &shape, log_var),
    ];
    write(path, &tensors)
}

pub(super) fn load(path: &Path, model: &ModelConfig) -> Result<Posteriors> {
    let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
    let file = TensorFile::parse(path, &bytes)?;
    let numbers = file.list("rows")?;
    if let Some(pair) = numbers.windows(2).find(|pair| pair[0] >= pair[1]) {
        let found = format!("{} before {}", pair[0], pair[1]);
        return Err(Error::content(path, "tensor `rows`", "ascending numbers", found));
    }
    let shape = [numbers.len(), model.n_latents, model.dim];
    let [mu, log_var] = [file.floats("mu", &shape)?, file.floats("log_var", &shape)?];
    let len = model.n_latents * model.dim;
    let posteriors = mu.chunks(len).zip(log_var.chunks(len));
    let row =
        |(mu, log_var): (&[f32], &[f32])| RowPosterior { mu: mu.into(), log_var: log_var.into() };
    Ok(Posteriors { rows: numbers.into_iter().zip(posteriors.map(row)).collect() })
}
