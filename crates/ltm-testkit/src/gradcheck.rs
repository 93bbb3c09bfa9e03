//! Analytic gradients against central finite differences. Knows functions of f64, never an op.

use crate::{Tol, assert_close};

/// Asserts that `analytic` is the gradient of `f` at `x`, to within `tol`.
///
/// Each partial is `(f(x + h e_i) - f(x - h e_i)) / 2h` with `h = eps^(1/3) * max(1, |x_i|)`: the
/// step that balances the truncation error `h^2 f'''/6` against the rounding error `eps |f| / h`.
/// Both are near `4e-11` where `f` and its derivatives are near 1, so `abs` and `rel` of `1e-7` fit
/// most functions.
///
/// # Panics
/// When the lengths differ, or when a partial is too far off or NaN; see [`assert_close`].
#[track_caller]
pub fn gradcheck(mut f: impl FnMut(&[f64]) -> f64, x: &[f64], analytic: &[f64], tol: Tol) {
    let mut moved = x.to_vec();
    let mut numeric = Vec::with_capacity(x.len());
    for (i, &at) in x.iter().enumerate() {
        let step = f64::EPSILON.cbrt() * at.abs().max(1.0);
        let (above, below) = (at + step, at - step);
        moved[i] = above;
        let f_above = f(&moved);
        moved[i] = below;
        let f_below = f(&moved);
        moved[i] = at;
        // The step as it was rounded, not as it was meant.
        numeric.push((f_above - f_below) / (above - below));
    }
    assert_close(analytic, &numeric, tol);
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f64; 3] = [0.3, -1.2, 40.0];
    const TOL: Tol = Tol { abs: 1e-8, rel: 1e-8 };

    fn f(x: &[f64]) -> f64 {
        x[0].exp() * x[1] + x[2].sin()
    }

    fn gradient() -> Vec<f64> {
        vec![X[0].exp() * X[1], X[0].exp(), X[2].cos()]
    }

    #[test]
    fn accepts_the_gradient() {
        gradcheck(f, &X, &gradient(), TOL);
    }

    #[test]
    #[should_panic(expected = "worst at [2]")]
    fn refuses_a_wrong_partial() {
        let mut wrong = gradient();
        wrong[2] += 1e-5;
        gradcheck(f, &X, &wrong, TOL);
    }

    #[test]
    #[should_panic(expected = "actual NaN")]
    fn refuses_nan() {
        gradcheck(f, &X, &[f64::NAN; 3], TOL);
    }

    #[test]
    #[should_panic(expected = "lengths differ")]
    fn refuses_a_missing_partial() {
        gradcheck(f, &X, &gradient()[..2], TOL);
    }
}
