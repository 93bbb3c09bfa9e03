//! The low-rank part of a posterior in a graph: its sample and its KL. Knows no prior but through its trait.

use ltm_autodiff::{Graph, Kind, Result, UpdateRate, Value, ops};

use crate::Prior;
use crate::prior::TracedGaussian;

/// The inputs of a [`Factor`](crate::Factor).
#[derive(Clone, Copy, Debug)]
pub struct TracedFactor {
    /// Input `(B·L,R,Z·C)`: the columns `A`.
    pub columns: Value,
    /// Input `(B·L,R,1)`: the noise `f` of the sample.
    pub noise: Value,
}

impl TracedFactor {
    /// Inputs for `[B·L,R,Z·C]`.
    pub(crate) fn inputs(g: &mut Graph, [rows, rank, len]: [usize; 3]) -> Self {
        let mut input = |name, shape| g.input(name, shape, Kind::Float, UpdateRate::Step);
        Self {
            columns: input("columns", &[rows, rank, len]),
            noise: input("column_noise", &[rows, rank, 1]),
        }
    }

    /// The sample `mu + exp(log_var/2)·(e + A·f)`, with `e` in `noise`, all `(B,L·Z,C)`.
    pub(crate) fn sample(self, g: &mut Graph, [mu, log_var, noise]: [Value; 3]) -> Result<Value> {
        let moved = ops::mul(g, self.columns, self.noise)?;
        let moved = ops::sum(g, moved, &[1])?;
        let shape = g.shape(noise).to_vec();
        let moved = ops::reshape(g, moved, &shape)?;
        let noise = ops::add(g, moved, noise)?;
        let half = ops::scale(g, log_var, 0.5)?;
        let deviation = ops::exp(g, half)?;
        let off = ops::mul(g, deviation, noise)?;
        ops::add(g, mu, off)
    }

    /// The KL from the prior of each of the `B·L` rows: that of independent numbers of the same variances, plus their
    /// total correlation `(Σ log(1 + Σ A²) - log det(I + Aᵀ·A))/2`. `log_var` of `q` is without the factor.
    pub(crate) fn kl(
        self,
        g: &mut Graph,
        prior: &dyn Prior,
        weights: &[Value],
        q: TracedGaussian,
    ) -> Result<Value> {
        let rows = g.shape(self.columns)[0];
        let squares = ops::mul(g, self.columns, self.columns)?;
        let squares = ops::sum(g, squares, &[1])?;
        let ratio = ops::affine(g, squares, 1.0, 1.0)?;
        let log_ratio = ops::log(g, ratio)?;
        let shape = g.shape(q.log_var).to_vec();
        let wider = ops::reshape(g, log_ratio, &shape)?;
        let log_var = ops::add(g, wider, q.log_var)?;
        let independent = prior.kl(g, weights, TracedGaussian { log_var, ..q }, rows)?;
        let marginal = ops::sum(g, log_ratio, &[2])?;
        let joint = self.log_det(g)?;
        let correlation = ops::sub(g, marginal, joint)?;
        let correlation = ops::scale(g, correlation, 0.5)?;
        let correlation = ops::reshape(g, correlation, &[rows])?;
        ops::add(g, independent, correlation)
    }

    /// `log det(I + Aᵀ·A)` of each row, `(B·L,1,1)`: the sum of the logarithms of the pivots of Gaussian elimination.
    fn log_det(self, g: &mut Graph) -> Result<Value> {
        let rank = g.shape(self.columns)[1];
        let columns = (0..rank).map(|i| ops::narrow(g, self.columns, 1, i, 1));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        // Of each row the entries from the diagonal on, which elimination leaves symmetric.
        let mut rows: Vec<Vec<Value>> = Vec::with_capacity(rank);
        for i in 0..rank {
            let mut row = Vec::with_capacity(rank - i);
            for j in i..rank {
                let products = ops::mul(g, columns[i], columns[j])?;
                let entry = ops::sum(g, products, &[2])?;
                row.push(if i == j { ops::affine(g, entry, 1.0, 1.0)? } else { entry });
            }
            rows.push(row);
        }
        let mut log_det = None;
        for i in 0..rank {
            let pivot = rows[i][0];
            for j in i + 1..rank {
                let share = ops::div(g, rows[i][j - i], pivot)?;
                for k in j..rank {
                    let known = ops::mul(g, share, rows[i][k - i])?;
                    rows[j][k - j] = ops::sub(g, rows[j][k - j], known)?;
                }
            }
            let log = ops::log(g, pivot)?;
            log_det = Some(match log_det {
                Some(sum) => ops::add(g, sum, log)?,
                None => log,
            });
        }
        Ok(log_det.expect("at least one column"))
    }
}
