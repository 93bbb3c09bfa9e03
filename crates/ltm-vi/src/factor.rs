//! The low-rank part of a posterior: columns that correlate the numbers of a layer, and what densities need of them.
//! Knows no graph and no device.

use crate::Result;
use crate::error::argument;
use crate::estimators::check_length;

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
pub(crate) struct Layer<'a> {
    pub(crate) columns: Vec<&'a [f32]>,
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
    pub(crate) fn log_det(&self) -> f64 {
        2.0 * self.cholesky.iter().enumerate().map(|(i, row)| row[i].ln()).sum::<f64>()
    }

    /// `wᵀ·w - wᵀ·(I + A·Aᵀ)⁻¹·w`, by the Woodbury identity `bᵀ·(I + Aᵀ·A)⁻¹·b` with `b = Aᵀ·w`.
    pub(crate) fn explained(&self, w: &[f32]) -> f64 {
        let mut solved: Vec<f64> = Vec::with_capacity(self.columns.len());
        for (column, row) in self.columns.iter().zip(&self.cholesky) {
            let known: f64 = row.iter().zip(&solved).map(|(a, b)| a * b).sum();
            solved.push((dot(column, w) - known) / row[solved.len()]);
        }
        solved.iter().map(|x| x * x).sum()
    }

    /// The squares of each number's row of `A`, `(n)`: by how much its variance is above `s²`, in units of that.
    pub(crate) fn squares(&self) -> Vec<f64> {
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

impl<T> Factor<T> {
    /// Another thing for each of both.
    ///
    /// # Errors
    /// The first of `f`.
    pub(crate) fn try_map<U, E>(
        &self,
        f: impl Fn(&T) -> std::result::Result<U, E>,
    ) -> std::result::Result<Factor<U>, E> {
        Ok(Factor { columns: f(&self.columns)?, noise: f(&self.noise)? })
    }
}

impl Factor<Vec<f32>> {
    /// Columns of each layer of posteriors of `len` numbers.
    pub(crate) fn rank(&self, len: usize) -> usize {
        self.columns.len() / len.max(1)
    }

    /// Refuses columns that are not as many for every layer of posteriors of `len` numbers.
    pub(crate) fn check(&self, len: usize) -> Result<()> {
        let Self { columns, noise } = self;
        let rank = self.rank(len);
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

    /// Every layer of every sequence of posteriors of `len` numbers.
    pub(crate) fn layers(&self, len: usize) -> Vec<Layer<'_>> {
        let Self { columns, noise } = self;
        let rank = self.rank(len);
        let layers = noise.len() / rank;
        columns.chunks(columns.len() / layers).map(|columns| Layer::new(columns, rank)).collect()
    }
}
