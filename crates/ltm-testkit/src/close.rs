//! The one comparison. Knows numbers, never what they mean or which tolerance is right.

#![expect(clippy::neg_cmp_op_on_partial_ord, reason = "`!(x <= y)` is how NaN fails")]

/// How far two numbers may differ: `|actual - expected| <= abs + rel * |expected|`.
///
/// Derived where it is used, from the type's precision and the length of the sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tol {
    /// The part that does not depend on the values.
    pub abs: f64,
    /// The part that grows with the expected value.
    pub rel: f64,
}

impl Tol {
    /// The distance allowed around `expected`.
    fn allowed(self, expected: f64) -> f64 {
        self.abs + self.rel * expected.abs()
    }
}

/// Asserts that every element of `actual` lies within `tol` of the same element of `expected`.
///
/// Equal infinities agree; NaN agrees with nothing, not even with NaN.
///
/// # Panics
/// When the lengths differ, or when an element is too far off. The message names the worst index,
/// both values there, how many times the tolerance their distance is, and how many elements fail.
#[track_caller]
pub fn assert_close<A, E>(actual: &[A], expected: &[E], tol: Tol)
where
    A: Copy + Into<f64>,
    E: Copy + Into<f64>,
{
    assert_eq!(actual.len(), expected.len(), "lengths differ (actual, expected)");
    let mut worst = (0, 0.0);
    let mut failed = 0;
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let share = share_used(a.into(), e.into(), tol);
        failed += usize::from(!(share <= 1.0));
        // The first NaN stays the worst: nothing compares greater than it.
        if !(share <= worst.1) && !f64::is_nan(worst.1) {
            worst = (i, share);
        }
    }
    let (i, share) = worst;
    assert!(
        failed == 0,
        "{failed} of {} elements differ; worst at [{i}]: actual {:e}, expected {:e}, \
         {share:.3} times the tolerance (abs {:e}, rel {:e})",
        actual.len(),
        actual[i].into(),
        expected[i].into(),
        tol.abs,
        tol.rel,
    );
}

/// The distance of two numbers as a share of what `tol` allows: at most 1 passes, NaN is a failure.
fn share_used(actual: f64, expected: f64, tol: Tol) -> f64 {
    if actual == expected {
        return 0.0; // also where the tolerance is zero, and for equal infinities
    }
    if expected.is_infinite() {
        return f64::NAN; // `rel` would make the allowance infinite
    }
    (actual - expected).abs() / tol.allowed(expected)
}

/// `|actual - expected| / |expected|` in the Frobenius norm, over whole arrays.
///
/// Against an expectation of zeros it is 0 for zeros and infinite for anything else. NaN stays NaN.
///
/// # Panics
/// When the lengths differ.
#[track_caller]
pub fn relative_frobenius<A, E>(actual: &[A], expected: &[E]) -> f64
where
    A: Copy + Into<f64>,
    E: Copy + Into<f64>,
{
    assert_eq!(actual.len(), expected.len(), "lengths differ (actual, expected)");
    let (mut distance, mut norm) = (0.0, 0.0);
    for (&a, &e) in actual.iter().zip(expected) {
        let (a, e): (f64, f64) = (a.into(), e.into());
        distance += (a - e) * (a - e);
        norm += e * e;
    }
    if distance == 0.0 { 0.0 } else { (distance / norm).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOL: Tol = Tol { abs: 1e-3, rel: 1e-2 };

    /// The panic's message, or `None` when the comparison passes.
    fn check(actual: &[f64], expected: &[f64], tol: Tol) -> Option<String> {
        std::panic::catch_unwind(|| assert_close(actual, expected, tol))
            .err()
            .map(|panic| *panic.downcast::<String>().expect("assert! formats a String"))
    }

    #[test]
    fn passes_within_and_fails_beyond() {
        assert_eq!(check(&[], &[], TOL), None);
        assert_eq!(check(&[1.0, -100.9], &[1.01, -100.0], TOL), None);
        assert_eq!(check(&[0.0009], &[0.0], TOL), None);
        assert!(check(&[0.0011], &[0.0], TOL).is_some());
        assert!(check(&[1.0], &[1.0, 2.0], TOL).is_some());
        assert_eq!(check(&[0.5], &[0.5], Tol { abs: 0.0, rel: 0.0 }), None);
        assert!(check(&[0.5], &[0.6], Tol { abs: 0.0, rel: 0.0 }).is_some());
    }

    #[test]
    fn nan_never_passes() {
        for (actual, expected) in [(f64::NAN, 1.0), (1.0, f64::NAN), (f64::NAN, f64::NAN)] {
            assert!(check(&[actual], &[expected], TOL).is_some());
        }
        assert!(check(&[1.0], &[2.0], Tol { abs: f64::NAN, rel: 0.0 }).is_some());
    }

    #[test]
    fn infinities_agree_only_with_themselves() {
        let inf = f64::INFINITY;
        assert_eq!(check(&[inf, -inf], &[inf, -inf], TOL), None);
        for (actual, expected) in [(inf, -inf), (inf, 1.0), (1.0, inf)] {
            assert!(check(&[actual], &[expected], TOL).is_some());
        }
    }

    #[test]
    fn message_names_the_worst_element() {
        let message = check(&[1.0, 5.0, 1.1], &[1.0, 2.0, 1.0], TOL).expect("two elements differ");
        assert!(message.contains("2 of 3"), "{message}");
        assert!(message.contains("[1]: actual 5e0, expected 2e0, 142.857 times"), "{message}");
        let message = check(&[9.0, f64::NAN, 99.0], &[1.0; 3], TOL).expect("all differ");
        assert!(message.contains("[1]: actual NaN"), "{message}");
    }

    #[test]
    fn compares_f32_with_f64() {
        assert_close(&[0.5f32], &[0.5f64], Tol { abs: 0.0, rel: 0.0 });
    }

    #[test]
    fn frobenius() {
        assert_eq!(relative_frobenius(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(relative_frobenius(&[3.0f32, 4.5], &[3.0f64, 4.0]), 0.1);
        assert_eq!(relative_frobenius(&[0.0], &[0.0]), 0.0);
        assert_eq!(relative_frobenius(&[1.0], &[0.0]), f64::INFINITY);
        assert!(relative_frobenius(&[f64::NAN], &[1.0]).is_nan());
    }
}
