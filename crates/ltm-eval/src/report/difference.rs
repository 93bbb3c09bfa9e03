//! Differences of two scores, and when one is more than the variation between seeds. Knows no run.

/// A difference with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Difference {
    pub(super) nats: f64,
    pub(super) error: f64,
    /// How many standard errors are beyond chance, where the error is over seeds; `None` where it is over sequences and
    /// another seed may change more.
    pub(super) critical: Option<f64>,
}

/// What a difference shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Below,
    Above,
    Unclear,
    /// There is one seed.
    None,
}

impl Difference {
    /// In units of its standard error.
    pub(super) fn errors(self) -> f64 {
        self.nats / self.error
    }

    pub(super) fn verdict(self) -> Verdict {
        match (self.critical, self.errors()) {
            (None, _) => Verdict::None,
            (Some(critical), errors) if errors <= -critical => Verdict::Below,
            (Some(critical), errors) if errors >= critical => Verdict::Above,
            (Some(_), _) => Verdict::Unclear,
        }
    }
}

/// The mean, and the variance where there are several numbers.
pub(super) fn mean(x: &[f64]) -> (f64, Option<f64>) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, (x.len() > 1).then(|| squares / (n - 1.0)))
}

/// The difference of two means over seeds by Welch's t-test, which takes the variances to be unequal: its standard
/// error, and how many of these are beyond chance. `None` where either has one seed.
pub(super) fn welch(a: &[f64], b: &[f64]) -> Option<Difference> {
    let [(a_mean, a_variance), (b_mean, b_variance)] = [mean(a), mean(b)];
    let [a_n, b_n] = [a, b].map(|x| x.len() as f64);
    let [a, b] = [a_variance? / a_n, b_variance? / b_n];
    let freedom = (a + b).powi(2) / (a.powi(2) / (a_n - 1.0) + b.powi(2) / (b_n - 1.0));
    let critical = Some(critical(freedom));
    Some(Difference { nats: a_mean - b_mean, error: (a + b).sqrt(), critical })
}

/// Student's t that is exceeded by chance, on either side, in one of twenty cases, and at least 2. Degrees of freedom
/// are rounded down, which makes it larger.
fn critical(freedom: f64) -> f64 {
    const T: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    // Without any variance the degrees of freedom are 0/0: two equal numbers each.
    let rounded = if freedom.is_nan() { 1 } else { freedom.max(1.0) as usize };
    T.get(rounded - 1).copied().unwrap_or(2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_measured_by_the_variation_between_seeds() {
        let difference = welch(&[1.5, 1.7, 1.6], &[1.2, 1.3, 1.25]).expect("three each");
        assert!((difference.nats - 0.35).abs() <= 1e-12, "{difference:?}");
        let [a, b] = [0.01 / 3.0, 0.0025 / 3.0];
        assert!((difference.error - f64::sqrt(a + b)).abs() <= 1e-12, "{difference:?}");
        // Welch's degrees of freedom: (a + b)²/(a²/2 + b²/2) = 2.94, so 2.
        assert_eq!(difference.critical, Some(4.303));
        assert_eq!(welch(&[1.5], &[1.2, 1.3]), None);
        assert_eq!(welch(&[1.0; 2], &[2.0; 2]).expect("two each").critical, Some(12.706));
        assert_eq!([3.99, 30.0, 31.0, 1e9].map(critical), [3.182, 2.042, 2.0, 2.0]);
    }
}
