//! Published test sets with their own protocols, and statistics of texts. They train nothing and print nothing.

pub mod generation;
pub mod gsm8k;
pub mod lambada;

use serde::Serialize;

/// A mean over independent parts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean; NaN of nothing.
    pub mean: f64,
    /// Standard error of `mean`; NaN of fewer than two values.
    pub standard_error: f64,
    /// Number of values.
    pub count: usize,
}

impl Mean {
    /// The mean of `values` and its standard error, `sqrt(sum((v - mean)²)/(n·(n-1)))`.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let standard_error =
            if values.len() < 2 { f64::NAN } else { (squares / (n * (n - 1.0))).sqrt() };
        Self { mean, standard_error, count: values.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_and_its_error_by_hand() {
        // Deviations -2, 0, 2: sqrt(8/(3·2)).
        let found = Mean::of(&[1.0, 3.0, 5.0]);
        assert_eq!((found.mean, found.count), (3.0, 3));
        assert!((found.standard_error - (8.0_f64 / 6.0).sqrt()).abs() <= 1e-15);
        let single = Mean::of(&[2.0]);
        assert!(single.mean == 2.0 && single.standard_error.is_nan());
        assert!(Mean::of(&[]).mean.is_nan());
    }
}
