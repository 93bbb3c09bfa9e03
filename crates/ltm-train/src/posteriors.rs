//! The posteriors that the last fits of rows ended with, where fits under `infer.start = "given"` begin. Knows no file
//! and no corpus.

use std::collections::BTreeMap;
use std::sync::Arc;

use ltm_kernels::Buffer;
use ltm_vi::{Gaussian, InferKey, Problem, Start};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The posterior of one row's latents, in single precision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowPosterior {
    /// Means, `(L·Z,C)`.
    pub mu: Box<[f32]>,
    /// Logarithms of the variances, `(L·Z,C)`.
    pub log_var: Box<[f32]>,
}

/// Posteriors by the number of their row in the corpus, on the host: `2·L·Z·C·4` bytes per row that was visited.
///
/// The moments of a fit's AdamW are not among them: each fit begins with new ones, and with new noise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Posteriors {
    /// One posterior per row that was visited, by the row's [number](crate::data::Batch::numbers).
    pub rows: BTreeMap<u64, RowPosterior>,
}

impl Posteriors {
    /// Where a fit of rows of these numbers begins, with noise under `key`: each row at its own posterior, or at that of
    /// `otherwise` where it has none.
    pub(crate) fn start(
        &self,
        problem: &mut Problem<'_>,
        otherwise: &Start,
        key: InferKey<'_>,
        numbers: &[u64],
    ) -> Result<Start> {
        let [b, _] = problem.batch().shape();
        let kept: Vec<_> = numbers.iter().take(b).map(|number| self.rows.get(number)).collect();
        // What every row replaces need not be predicted.
        let all = kept.len() == b && kept.iter().all(Option::is_some);
        let mut start = problem.start(if all { &Start::Prior } else { otherwise }, key)?;
        let len = problem.extents().latent_len();
        let places: Vec<_> =
            kept.iter().enumerate().filter_map(|(at, row)| Some((at * len, (*row)?))).collect();
        let [mut mu, mut log_var] = [(); 2].map(|()| vec![0.0; b * len]);
        for (at, row) in &places {
            mu[*at..*at + len].copy_from_slice(&row.mu);
            log_var[*at..*at + len].copy_from_slice(&row.log_var);
        }
        for (whole, numbers) in [(&mut start.mu, mu), (&mut start.log_var, log_var)] {
            // On the device in one copy, and from there to their places.
            let mut given = Buffer::zeros(&whole.device(), whole.dtype(), whole.len())?;
            given.write_f32(&numbers)?;
            for (at, _) in &places {
                whole.copy_range(*at, &given, *at, len)?;
            }
        }
        Ok(Start::Given(Arc::new(start)))
    }

    /// Refuses posteriors of more or fewer than `len` numbers.
    pub(crate) fn check(&self, len: usize) -> Result<()> {
        for (number, RowPosterior { mu, log_var }) in &self.rows {
            if let Some(found) = [mu.len(), log_var.len()].into_iter().find(|found| *found != len) {
                let expected = format!("{len} means and log-variances of row {number}");
                return Err(Error::field("posteriors", expected, found));
            }
        }
        Ok(())
    }
}

/// The posteriors that a fit of rows of these numbers has ended with.
///
/// # Errors
/// [`Error::NonFinite`] naming step and row, [`Error::Infer`] when the device fails.
pub(crate) fn ended(q: &Gaussian, len: usize, numbers: &[u64], step: u64) -> Result<Posteriors> {
    let [mu, log_var] = [q.mu.to_f32()?, q.log_var.to_f32()?];
    let mut rows = BTreeMap::new();
    for ((number, mu), log_var) in numbers.iter().zip(mu.chunks(len)).zip(log_var.chunks(len)) {
        if !mu.iter().chain(log_var).all(|x| x.is_finite()) {
            let tensor = format!("the posterior of row {number}");
            return Err(Error::NonFinite { step: step + 1, tensor, last_good: None });
        }
        rows.insert(*number, RowPosterior { mu: mu.into(), log_var: log_var.into() });
    }
    Ok(Posteriors { rows })
}
