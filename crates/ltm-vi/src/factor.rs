//! The low-rank part of a posterior: columns that correlate the numbers of a layer, and what densities need of them.
//! Knows no graph and no device.

use std::borrow::Cow;

use crate::error::argument;
use crate::estimators::check_length;
use crate::key::Draw;
use crate::prior::Density;
use crate::{Posterior, Result};

/// `R` columns `A` for each layer of a sequence. Its latents are distributed as `mu + s·(e + A·f)` with the deviations
/// `s = exp(log_var/2)` and standard normal `e` and `f`: as `N(mu, diag(s²) + U·Uᵀ)` with `U = s·A`.
///
/// The columns are in units of `s`, so that a step of a fit moves them by the same share of every deviation, and densities
/// need `I + Aᵀ·A` alone. They are those of one layer, so that layers are independent and the KL is a sum over them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor<T> {
    /// `A`, `(B,L,R,Z·C)`.
    pub columns: T,
    /// The noise `f` of the sample, `(B,L,R)`.
    pub noise: T,
}

/// The columns of one layer `(R,n)`, and the Cholesky factor of `I + Aᵀ·A`.
struct Layer<'a> {
    columns: Vec<&'a [f32]>,
    cholesky: Vec<Vec<f64>>,
}

impl<'a> Layer<'a> {
    fn new(columns: &'a [f32], rank: usize) -> Self {
        let columns: Vec<&[f32]> = columns.chunks(columns.len() / rank).collect();
        let mut cholesky: Vec<Vec<f64>> = Vec::with_capacity(rank);
        for (i, column) in columns.iter().enumerate() {
            let mut row = Vec::with_capacity(i + 1);
            for (j, other) in columns[..=i].iter().enumerate() {
                let before = cholesky.get(j).unwrap_or(&row);
                let known: f64 = row.iter().zip(before).map(|(a, b)| a * b).sum();
                let entry = dot(column, other) - known;
                row.push(if i == j { (1.0 + entry).sqrt() } else { entry / before[j] });
            }
            cholesky.push(row);
        }
        Self { columns, cholesky }
    }

    /// `log det(I + A·Aᵀ)`.
    fn log_det(&self) -> f64 {
        2.0 * self.cholesky.iter().enumerate().map(|(i, row)| row[i].ln()).sum::<f64>()
    }

    /// `wᵀ·w - wᵀ·(I + A·Aᵀ)⁻¹·w`, by the Woodbury identity `bᵀ·(I + Aᵀ·A)⁻¹·b` with `b = Aᵀ·w`.
    fn explained(&self, w: &[f32]) -> f64 {
        let mut solved: Vec<f64> = Vec::with_capacity(self.columns.len());
        for (column, row) in self.columns.iter().zip(&self.cholesky) {
            let known: f64 = row.iter().zip(&solved).map(|(a, b)| a * b).sum();
            solved.push((dot(column, w) - known) / row[solved.len()]);
        }
        solved.iter().map(|x| x * x).sum()
    }

    /// The squares of each number's row of `A`, `(n)`: by how much its variance is above `s²`, in units of that.
    fn squares(&self) -> Vec<f64> {
        let mut squares = vec![0.0; self.columns[0].len()];
        for column in &self.columns {
            for (sum, x) in squares.iter_mut().zip(*column) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        squares
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

impl Posterior {
    /// Columns of each layer, `R`; 0 for independent numbers.
    pub fn rank(&self) -> usize {
        self.factor.as_ref().map_or(0, |factor| factor.columns.len() / self.mu.len().max(1))
    }

    /// Numbers of the columns' noise.
    pub(crate) fn column_noise(&self) -> &[f32] {
        self.factor.as_ref().map_or(&[], |factor| &factor.noise)
    }

    /// Refuses a factor whose columns are not as many for every layer.
    pub(crate) fn check_factor(&self) -> Result<()> {
        let Some(Factor { columns, noise }) = &self.factor else { return Ok(()) };
        let (len, rank) = (self.mu.len(), self.rank());
        if rank == 0 || columns.len() != rank * len {
            let expected = format!("R columns for each of {len} numbers, R at least 1");
            return Err(argument("factor.columns", expected, columns.len()));
        }
        let layers = noise.len() / rank;
        if layers == 0 || !len.is_multiple_of(layers) {
            let expected = format!("{rank} numbers per layer");
            return Err(argument("factor.noise", expected, noise.len()));
        }
        check_length("factor.noise", layers * rank, noise.len())
    }

    /// Every layer of every sequence; none without a factor.
    fn layers(&self) -> Vec<Layer<'_>> {
        let Some(Factor { columns, noise }) = &self.factor else { return Vec::new() };
        let rank = self.rank();
        let layers = noise.len() / rank;
        columns.chunks(columns.len() / layers).map(|columns| Layer::new(columns, rank)).collect()
    }

    /// The noise of all numbers `e + A·f`, `(B,L·Z,C)`.
    pub(crate) fn correlated<'n>(&self, draw: &'n Draw) -> Cow<'n, [f32]> {
        let layers = self.layers();
        if layers.is_empty() {
            return Cow::Borrowed(&draw.numbers);
        }
        let (len, rank) = (self.mu.len() / layers.len(), self.rank());
        let mut noise = draw.numbers.clone();
        let parts = noise.chunks_mut(len).zip(&layers).zip(draw.columns.chunks(rank));
        for ((part, layer), factors) in parts {
            for (i, x) in part.iter_mut().enumerate() {
                let columns = layer.columns.iter().zip(factors);
                let sum: f64 = columns.map(|(v, c)| f64::from(v[i]) * f64::from(*c)).sum();
                *x = (f64::from(*x) + sum) as f32;
            }
        }
        Cow::Owned(noise)
    }

    /// The logarithm of each number's own variance, `(B,L·Z,C)`.
    pub(crate) fn marginal_log_var(&self) -> Cow<'_, [f32]> {
        let squares = self.layers().into_iter().flat_map(|layer| layer.squares());
        if self.factor.is_none() {
            return Cow::Borrowed(&self.log_var);
        }
        let of = |(log_var, square): (&f32, f64)| (f64::from(*log_var) + square.ln_1p()) as f32;
        Cow::Owned(self.log_var.iter().zip(squares).map(of).collect())
    }

    /// The KL of each of `rows` equal parts from independent numbers of the same variances, in nats: 0 without a factor. `None`
    /// where a part is not of whole layers.
    ///
    /// The KL from a prior of independent numbers is this plus that of such numbers.
    pub(crate) fn total_correlation(&self, rows: usize) -> Option<Vec<f64>> {
        let layers = self.layers();
        if layers.is_empty() {
            return Some(vec![0.0; rows]);
        }
        let of = |layer: &Layer<'_>| {
            let marginal: f64 = layer.squares().iter().map(|square| square.ln_1p()).sum();
            0.5 * (marginal - layer.log_det())
        };
        let whole = rows > 0 && layers.len().is_multiple_of(rows);
        whole.then(|| {
            let part = |layers: &[Layer<'_>]| layers.iter().map(of).sum();
            layers.chunks(layers.len() / rows).map(part).collect()
        })
    }

    /// `log p(z) - log q(z)` of each of `b` sequences at the sample of `draw`.
    pub(crate) fn log_ratios(&self, prior: &dyn Density, draw: &Draw, b: usize) -> Vec<f64> {
        let noise = self.correlated(draw);
        let layers = self.layers();
        let len = self.mu.len() / b;
        let sequence = |row: usize| {
            let [mu, log_var, noise] =
                [&self.mu, &self.log_var, &*noise].map(|numbers| &numbers[row * len..][..len]);
            let independent = prior.log_ratio(mu, log_var, noise);
            let of_row = layers.len() / b;
            let layers = &layers[row * of_row..][..of_row];
            let parts = layers.iter().zip(noise.chunks(len / of_row.max(1)));
            let more = parts.map(|(layer, w)| 0.5 * (layer.log_det() - layer.explained(w)));
            independent + more.sum::<f64>()
        };
        (0..b).map(sequence).collect()
    }
}
